//! Numbers as feeds really send them: `49`, `49.0`, `true`.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserializer, de};

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<i64>> de::Visitor<'_> for Whole<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number that fits {}", std::any::type_name::<T>())
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Option<T>, E> {
        T::try_from(v)
            .map(Some)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(v), &self))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Option<T>, E> {
        match i64::try_from(v) {
            Ok(v) => self.visit_i64(v),
            Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(v), &self)),
        }
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Option<T>, E> {
        // Within ±2⁵³ every whole f64 is an exact i64.
        if v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0 {
            self.visit_i64(v as i64)
        } else {
            Err(E::invalid_value(de::Unexpected::Float(v), &self))
        }
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Option<T>, E> {
        self.visit_i64(i64::from(v))
    }
    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
    fn visit_none<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}

/// An optional whole number; `null` is `None`.
pub(super) fn optional<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    d.deserialize_any(Whole(PhantomData))
}

/// A whole number that must be there.
pub(super) fn required<'de, D: Deserializer<'de>, T: TryFrom<i64>>(d: D) -> Result<T, D::Error> {
    optional(d)?.ok_or_else(|| de::Error::custom("null where a whole number must be"))
}
