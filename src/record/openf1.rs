//! The OpenF1 v1 vocabulary: one struct a collection, fields named as its interface names them.
//!
//! Units are OpenF1's own: seconds, km/h, tenths of a metre, °C. `None` is `null` or absent: the
//! feed did not know it, or sent something impossible (see [`super::sanitise`]).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::lenient;
use super::time::Time;

/// `_key` as it stands on the wire, borrowed where the codec lets us.
pub(super) struct WireKey<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for WireKey<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> de::Visitor<'de> for Text {
            type Value = WireKey<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a document key (text or number)")
            }
            fn visit_borrowed_str<E>(self, s: &'de str) -> Result<Self::Value, E> {
                Ok(WireKey(Cow::Borrowed(s)))
            }
            fn visit_str<E>(self, s: &str) -> Result<Self::Value, E> {
                Ok(WireKey(Cow::Owned(s.to_owned())))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
                Ok(WireKey(Cow::Owned(n.to_string())))
            }
        }
        d.deserialize_any(Text)
    }
}

/// A struct that arrives with `_key` and `_id` beside its own fields.
pub(super) trait Document<'de>: Sized {
    type Wire: Deserialize<'de>;
    fn split(wire: Self::Wire) -> (Self, Option<WireKey<'de>>, Option<i64>);
}

/// Declares a collection's struct and, from the same lines, its wire twin with `_key` and `_id`
/// (`#[serde(flatten)]` would buffer every message, at four times the cost).
macro_rules! document {
    ($(#[$meta:meta])* pub struct $name:ident { $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $ty ),* }

        const _: () = {
            #[derive(Deserialize)]
            pub struct Wire<'a> {
                #[serde(rename = "_key", default, borrow)]
                key: Option<WireKey<'a>>,
                #[serde(rename = "_id", default, deserialize_with = "lenient::exact")]
                id: Option<i64>,
                $( $(#[$field_meta])* $field: $ty ),*
            }
            impl<'de> Document<'de> for $name {
                type Wire = Wire<'de>;
                fn split(wire: Wire<'de>) -> (Self, Option<WireKey<'de>>, Option<i64>) {
                    ($name { $( $field: wire.$field ),* }, wire.key, wire.id)
                }
            }
        };
    };
}

document! {
    /// Car telemetry, about 3.7 samples a second.
    pub struct CarData {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        pub date: Time,
        /// Engine speed (1/min).
        #[serde(default, deserialize_with = "lenient::optional")]
        pub rpm: Option<i16>,
        /// Speed (km/h).
        #[serde(default, deserialize_with = "lenient::optional")]
        pub speed: Option<i16>,
        /// Gear, 0 (neutral) to 8.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub n_gear: Option<i16>,
        /// Throttle (%).
        #[serde(default, deserialize_with = "lenient::optional")]
        pub throttle: Option<i16>,
        /// Brake, 0 or 100.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub brake: Option<i16>,
        /// DRS code: 0/1 off, 8 eligible, 10/12/14 on.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub drs: Option<i16>,
    }
}

document! {
    /// Position of a car on the circuit, about 3.7 samples a second.
    pub struct Location {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        pub date: Time,
        /// Coordinates in the circuit's frame (1/10 m).
        #[serde(default, deserialize_with = "lenient::optional")]
        pub x: Option<i32>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub y: Option<i32>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub z: Option<i32>,
    }
}

/// A gap or an interval: seconds, or whole laps behind (`"+1 LAP"`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gap {
    /// Seconds; 0.0 for the leader.
    Seconds(f64),
    /// Laps behind.
    Laps(u16),
}

impl Gap {
    /// The seconds, where it is given in seconds.
    pub fn seconds(self) -> Option<f64> {
        match self {
            Gap::Seconds(s) => Some(s),
            Gap::Laps(_) => None,
        }
    }
}

impl Serialize for Gap {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Gap::Seconds(v) => s.serialize_f64(*v),
            Gap::Laps(1) => s.serialize_str("+1 LAP"),
            Gap::Laps(n) => s.collect_str(&format_args!("+{n} LAPS")),
        }
    }
}

impl<'de> Deserialize<'de> for Gap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct SecondsOrLaps;
        impl de::Visitor<'_> for SecondsOrLaps {
            type Value = Gap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, or text such as \"+1 LAP\"")
            }
            fn visit_f64<E>(self, v: f64) -> Result<Gap, E> {
                Ok(Gap::Seconds(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Gap, E> {
                Ok(Gap::Seconds(v as f64))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Gap, E> {
                Ok(Gap::Seconds(v as f64))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Gap, E> {
                s.trim()
                    .trim_start_matches('+')
                    .split_whitespace()
                    .next()
                    .filter(|_| s.to_ascii_uppercase().contains("LAP"))
                    .and_then(|n| n.parse().ok())
                    .map(Gap::Laps)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(s), &self))
            }
        }
        d.deserialize_any(SecondsOrLaps)
    }
}

document! {
    /// Gaps on the road, about every 4 s, in races only.
    pub struct Interval {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        pub date: Time,
        /// To the leader.
        #[serde(default)]
        pub gap_to_leader: Option<Gap>,
        /// To the car ahead.
        #[serde(default)]
        pub interval: Option<Gap>,
    }
}

document! {
    /// One lap of one car. It arrives in pieces: each version of the same lap knows more.
    pub struct Lap {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        #[serde(deserialize_with = "lenient::required")]
        pub lap_number: u16,
        /// Start of the lap, approximate to some tens of milliseconds.
        #[serde(default)]
        pub date_start: Option<Time>,
        /// Sector times (s).
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub duration_sector_1: Option<f64>,
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub duration_sector_2: Option<f64>,
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub duration_sector_3: Option<f64>,
        /// Speeds at the intermediates and in the trap (km/h).
        #[serde(default, deserialize_with = "lenient::optional")]
        pub i1_speed: Option<i16>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub i2_speed: Option<i16>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub st_speed: Option<i16>,
        #[serde(default)]
        pub is_pit_out_lap: Option<bool>,
        /// Lap time (s).
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub lap_duration: Option<f64>,
        /// Mini-sector codes: 2048 yellow, 2049 green, 2051 purple, 2064 pit lane.
        #[serde(default)]
        pub segments_sector_1: Option<Vec<Option<i32>>>,
        #[serde(default)]
        pub segments_sector_2: Option<Vec<Option<i32>>>,
        #[serde(default)]
        pub segments_sector_3: Option<Vec<Option<i32>>>,
    }
}

document! {
    /// A change of position.
    pub struct Position {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        pub date: Time,
        #[serde(deserialize_with = "lenient::required")]
        pub position: u8,
    }
}

document! {
    /// A visit to the pit lane, told when the car leaves it.
    pub struct Pit {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        /// Pit exit.
        #[serde(default)]
        pub date: Option<Time>,
        /// The in-lap.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub lap_number: Option<u16>,
        /// Time in the pit lane (s); thousands of seconds under a red flag.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub lane_duration: Option<f64>,
        /// Time standing still (s), from late 2024 on.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub stop_duration: Option<f64>,
        /// Deprecated name of `lane_duration`.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub pit_duration: Option<f64>,
    }
}

document! {
    /// A stint on one set of tyres; `lap_end` grows with each version.
    pub struct Stint {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        #[serde(deserialize_with = "lenient::required")]
        pub stint_number: u8,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub lap_start: Option<u16>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub lap_end: Option<u16>,
        /// `SOFT`, `MEDIUM`, `HARD`, `INTERMEDIATE`, `WET`, or what else the feed says.
        #[serde(default)]
        pub compound: Option<String>,
        /// Age of the set when fitted (laps).
        #[serde(default, deserialize_with = "lenient::optional")]
        pub tyre_age_at_start: Option<u16>,
    }
}

document! {
    /// Weather, once a minute.
    pub struct Weather {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        pub date: Time,
        /// °C.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub air_temperature: Option<f64>,
        /// °C.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub track_temperature: Option<f64>,
        /// %.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub humidity: Option<f64>,
        /// mbar.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub pressure: Option<f64>,
        /// 0 dry, 1 rain.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub rainfall: Option<i16>,
        /// Degrees, 0 = north.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub wind_direction: Option<i16>,
        /// m/s.
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub wind_speed: Option<f64>,
    }
}

document! {
    /// A message of race control: flags, safety cars, investigations, penalties.
    pub struct RaceControl {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(default)]
        pub date: Option<Time>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub driver_number: Option<u8>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub lap_number: Option<u16>,
        #[serde(default)]
        pub category: Option<String>,
        #[serde(default)]
        pub flag: Option<String>,
        #[serde(default)]
        pub scope: Option<String>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub sector: Option<i16>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub qualifying_phase: Option<i16>,
        #[serde(default)]
        pub message: Option<String>,
    }
}

document! {
    /// An overtake, many of them swaps in the pit window.
    pub struct Overtake {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        pub date: Time,
        #[serde(deserialize_with = "lenient::required")]
        pub overtaking_driver_number: u8,
        #[serde(deserialize_with = "lenient::required")]
        pub overtaken_driver_number: u8,
        /// Position of the overtaking car afterwards.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub position: Option<u8>,
    }
}

document! {
    /// A radio message between a driver and the pit wall.
    pub struct TeamRadio {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        pub date: Time,
        #[serde(default)]
        pub recording_url: Option<String>,
    }
}

document! {
    /// Who drives a car in a session.
    pub struct Driver {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        #[serde(default)]
        pub broadcast_name: Option<String>,
        #[serde(default)]
        pub full_name: Option<String>,
        #[serde(default)]
        pub name_acronym: Option<String>,
        #[serde(default)]
        pub team_name: Option<String>,
        /// RRGGBB.
        #[serde(default)]
        pub team_colour: Option<String>,
        #[serde(default)]
        pub first_name: Option<String>,
        #[serde(default)]
        pub last_name: Option<String>,
        #[serde(default)]
        pub headshot_url: Option<String>,
        #[serde(default)]
        pub country_code: Option<String>,
    }
}

document! {
    /// A session of a meeting: practice, qualifying, sprint, race.
    pub struct Session {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(default)]
        pub session_type: Option<String>,
        #[serde(default)]
        pub session_name: Option<String>,
        #[serde(default)]
        pub date_start: Option<Time>,
        #[serde(default)]
        pub date_end: Option<Time>,
        #[serde(default)]
        pub gmt_offset: Option<String>,
        #[serde(default)]
        pub location: Option<String>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub country_key: Option<i32>,
        #[serde(default)]
        pub country_code: Option<String>,
        #[serde(default)]
        pub country_name: Option<String>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub circuit_key: Option<i32>,
        #[serde(default)]
        pub circuit_short_name: Option<String>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub year: Option<i32>,
        #[serde(default)]
        pub is_cancelled: Option<bool>,
    }
}

document! {
    /// A race weekend or a test.
    pub struct Meeting {
        /// Where a source leaves it out, `_key` stands in for it (see [`super::codec`]).
        #[serde(default, deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(default)]
        pub meeting_name: Option<String>,
        #[serde(default)]
        pub meeting_official_name: Option<String>,
        #[serde(default)]
        pub meeting_code: Option<String>,
        #[serde(default)]
        pub date_start: Option<Time>,
        #[serde(default)]
        pub date_end: Option<Time>,
        #[serde(default)]
        pub gmt_offset: Option<String>,
        #[serde(default)]
        pub location: Option<String>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub country_key: Option<i32>,
        #[serde(default)]
        pub country_code: Option<String>,
        #[serde(default)]
        pub country_name: Option<String>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub circuit_key: Option<i32>,
        #[serde(default)]
        pub circuit_short_name: Option<String>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub year: Option<i32>,
        #[serde(default)]
        pub is_cancelled: Option<bool>,
    }
}

document! {
    /// A place on the grid. `session_key` is the **qualifying** session's.
    pub struct StartingGrid {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub position: Option<u8>,
        /// Qualifying time (s).
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub lap_duration: Option<f64>,
    }
}

/// One value, or one for each part of qualifying.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrEach<T> {
    One(T),
    Each(Vec<Option<T>>),
}

document! {
    /// The official classification of a car.
    pub struct SessionResult {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        /// `None` where the car is not classified.
        #[serde(default, deserialize_with = "lenient::optional")]
        pub position: Option<u8>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub number_of_laps: Option<u16>,
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub points: Option<f64>,
        #[serde(default)]
        pub dnf: Option<bool>,
        #[serde(default)]
        pub dns: Option<bool>,
        #[serde(default)]
        pub dsq: Option<bool>,
        /// Seconds: of the race, or the best lap of each part.
        #[serde(default)]
        pub duration: Option<OneOrEach<f64>>,
        #[serde(default)]
        pub gap_to_leader: Option<OneOrEach<Gap>>,
    }
}

document! {
    /// A driver's place in the championship before and during a race (beta).
    pub struct ChampionshipDriver {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub driver_number: u8,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub position_start: Option<u16>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub position_current: Option<u16>,
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub points_start: Option<f64>,
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub points_current: Option<f64>,
    }
}

document! {
    /// A team's place in the championship before and during a race (beta).
    pub struct ChampionshipTeam {
        #[serde(deserialize_with = "lenient::required")]
        pub meeting_key: i32,
        #[serde(deserialize_with = "lenient::required")]
        pub session_key: i32,
        pub team_name: String,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub position_start: Option<u16>,
        #[serde(default, deserialize_with = "lenient::optional")]
        pub position_current: Option<u16>,
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub points_start: Option<f64>,
        #[serde(default, deserialize_with = "lenient::decimal")]
        pub points_current: Option<f64>,
    }
}
