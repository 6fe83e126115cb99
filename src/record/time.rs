//! Instants as the feeds write them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant in microseconds since 1970-01-01T00:00:00 UTC.
///
/// Written as OpenF1 writes it (Python's `isoformat`): `+00:00`, six digits of fraction, no
/// fraction when it is zero. Read more liberally: any RFC 3339 offset, `Z`, or none (taken as UTC).
///
/// ```
/// use trackside::record::Time;
/// let t: Time = "2024-03-02T15:02:42.038000+00:00".parse().unwrap();
/// assert_eq!(t.to_string(), "2024-03-02T15:02:42.038000+00:00");
/// assert_eq!("2024-03-02T15:02:42Z".parse::<Time>().unwrap().to_string(), "2024-03-02T15:02:42+00:00");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// The text is no ISO 8601 date and time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an ISO 8601 date and time such as 2024-03-02T15:02:42.038000+00:00")]
pub struct NotATime(String);

impl Time {
    /// The first instant that a record may carry: the season of 1950.
    pub const EARLIEST: Time = Time(-631_152_000_000_000);
    /// The last instant that a record may carry: 2100-01-01.
    pub const LATEST: Time = Time(4_102_444_800_000_000);

    /// From microseconds since 1970.
    pub const fn from_micros(us: i64) -> Self {
        Time(us)
    }

    /// From milliseconds since 1970, saturating.
    pub const fn from_millis(ms: i64) -> Self {
        Time(ms.saturating_mul(1000))
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, rounded towards the past (OpenF1's `_key` is built so).
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Seconds from `earlier` to `self`; negative if `earlier` is later.
    pub fn seconds_since(self, earlier: Time) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }

    /// This instant and `seconds` more (rounded to a microsecond, saturating).
    pub fn plus_seconds(self, seconds: f64) -> Time {
        Time(self.0.saturating_add((seconds * 1e6).round() as i64))
    }

    /// Whether a record may carry it: within [`Time::EARLIEST`] and [`Time::LATEST`].
    pub fn is_plausible(self) -> bool {
        (Self::EARLIEST..=Self::LATEST).contains(&self)
    }
}

impl std::str::FromStr for Time {
    type Err = NotATime;

    fn from_str(s: &str) -> Result<Self, NotATime> {
        if let Ok(t) = s.parse::<jiff::Timestamp>() {
            return Ok(Time(t.as_microsecond()));
        }
        s.parse::<jiff::civil::DateTime>()
            .and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC))
            .map(|t| Time(t.timestamp().as_microsecond()))
            .map_err(|_| NotATime(s.chars().take(64).collect()))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(t) = jiff::Timestamp::from_microsecond(self.0) else {
            return write!(f, "{} µs", self.0);
        };
        let d = jiff::tz::Offset::UTC.to_datetime(t);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            d.year(),
            d.month(),
            d.day(),
            d.hour(),
            d.minute(),
            d.second()
        )?;
        let us = self.0.rem_euclid(1_000_000);
        if us != 0 {
            write!(f, ".{us:06}")?;
        }
        f.write_str("+00:00")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an ISO 8601 date and time")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Time, E> {
                s.parse().map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}
