//! Numbers as feeds really send them (`49`, `49.0`), and what is to be done with those that cannot be.
//!
//! A number that does not fit its column, a fraction in a column of whole numbers, `true` where a number
//! belongs: the field is `None` and counted, the rest of the record is kept. Where a number must be there the
//! record is refused.
//!
//! Serde gives a field's decoder nothing to count with, so that the count lies beside it, per thread:
//! [`counting`] is the one way to it.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::{Deserializer, de};

thread_local! {
    static NULLED: Cell<u32> = const { Cell::new(0) };
}

/// What `decode` made, and how many fields it nulled on the way.
pub(super) fn counting<T>(decode: impl FnOnce() -> T) -> (T, u32) {
    NULLED.set(0);
    let decoded = decode();
    (decoded, NULLED.take())
}

/// A whole number: refused if it cannot be, or nulled and counted.
struct Whole<T, const REFUSE: bool>(PhantomData<T>);

impl<T: TryFrom<i64>, const REFUSE: bool> Whole<T, REFUSE> {
    fn cannot_be<E: de::Error>(&self, found: de::Unexpected<'_>) -> Result<Option<T>, E> {
        if REFUSE {
            return Err(E::invalid_value(found, self));
        }
        NULLED.set(NULLED.get() + 1);
        Ok(None)
    }
}

impl<T: TryFrom<i64>, const REFUSE: bool> de::Visitor<'_> for Whole<T, REFUSE> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number that fits {}", std::any::type_name::<T>())
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Option<T>, E> {
        match T::try_from(v) {
            Ok(v) => Ok(Some(v)),
            Err(_) => self.cannot_be(de::Unexpected::Signed(v)),
        }
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Option<T>, E> {
        match i64::try_from(v) {
            Ok(v) => self.visit_i64(v),
            Err(_) => self.cannot_be(de::Unexpected::Unsigned(v)),
        }
    }
    // CBOR's integers go a bit further down than 64 bits do.
    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Option<T>, E> {
        self.cannot_be(de::Unexpected::Other("an integer of more than 64 bits"))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Option<T>, E> {
        // Within ±2⁵³ every whole f64 is an exact i64.
        if v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0 {
            self.visit_i64(v as i64)
        } else {
            self.cannot_be(de::Unexpected::Float(v))
        }
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Option<T>, E> {
        self.cannot_be(de::Unexpected::Bool(v))
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
    d.deserialize_any(Whole::<T, false>(PhantomData))
}

/// A whole number that must be there.
pub(super) fn required<'de, D: Deserializer<'de>, T: TryFrom<i64>>(d: D) -> Result<T, D::Error> {
    exact(d)?.ok_or_else(|| de::Error::custom("null where a whole number must be"))
}

/// A whole number or `null`, and nothing else: a version that cannot be read is no version.
pub(super) fn exact<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    d.deserialize_any(Whole::<T, true>(PhantomData))
}

/// A decimal number, or what cannot be one.
struct Decimal;

impl de::Visitor<'_> for Decimal {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }
    fn visit_i64<E>(self, v: i64) -> Result<Option<f64>, E> {
        Ok(Some(v as f64))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Option<f64>, E> {
        Ok(Some(v as f64))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Option<f64>, E> {
        Ok(Some(v))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Option<f64>, E> {
        NULLED.set(NULLED.get() + 1);
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Option<f64>, E> {
        Ok(None)
    }
    fn visit_none<E>(self) -> Result<Option<f64>, E> {
        Ok(None)
    }
}

/// An optional decimal number; `null` is `None`.
pub(super) fn decimal<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    d.deserialize_any(Decimal)
}
