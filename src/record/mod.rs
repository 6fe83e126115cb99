//! Records: what the feeds say, as types; how they are written and read.
//!
//! The OpenF1 v1 vocabulary ([`openf1`]), the native high-rate [`Frame`], predictions
//! ([`prediction`]), their JSON and CBOR forms ([`codec`]), the keys that make two messages versions
//! of one document ([`key`]), and the bounds of the possible ([`sanitise`]).
//!
//! **Invariant:** no I/O, no clock, and no knowledge of who sent a record or who reads it. Bytes
//! from outside become a record or a [`Reject`] with a reason; there is no third way.

pub mod codec;
pub mod frame;
pub mod key;
mod lenient;
pub mod openf1;
pub mod prediction;
pub mod samples;
pub mod sanitise;
#[cfg(test)]
mod tests;
pub mod time;

pub use codec::{Reject, Wire, decode};
pub use frame::Frame;
pub use key::DocumentKey;
pub use openf1::*;
pub use prediction::Prediction;
pub use time::Time;

use serde::Serialize;

/// What a record is about. The numbers are part of the journal's format: append, never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    CarData = 1,
    Location = 2,
    Interval = 3,
    Position = 4,
    Lap = 5,
    Pit = 6,
    Stint = 7,
    Weather = 8,
    RaceControl = 9,
    Overtake = 10,
    TeamRadio = 11,
    Driver = 12,
    Session = 13,
    Meeting = 14,
    StartingGrid = 15,
    SessionResult = 16,
    ChampionshipDriver = 17,
    ChampionshipTeam = 18,
    Frame = 19,
    Prediction = 20,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Kind; 20] = [
        Kind::CarData,
        Kind::Location,
        Kind::Interval,
        Kind::Position,
        Kind::Lap,
        Kind::Pit,
        Kind::Stint,
        Kind::Weather,
        Kind::RaceControl,
        Kind::Overtake,
        Kind::TeamRadio,
        Kind::Driver,
        Kind::Session,
        Kind::Meeting,
        Kind::StartingGrid,
        Kind::SessionResult,
        Kind::ChampionshipDriver,
        Kind::ChampionshipTeam,
        Kind::Frame,
        Kind::Prediction,
    ];

    /// The collection's name, as OpenF1 and our topics write it.
    ///
    /// ```
    /// use trackside::record::Kind;
    /// assert_eq!(Kind::Lap.name(), "laps");
    /// assert_eq!(Kind::from_name("laps"), Some(Kind::Lap));
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Kind::CarData => "car_data",
            Kind::Location => "location",
            Kind::Interval => "intervals",
            Kind::Position => "position",
            Kind::Lap => "laps",
            Kind::Pit => "pit",
            Kind::Stint => "stints",
            Kind::Weather => "weather",
            Kind::RaceControl => "race_control",
            Kind::Overtake => "overtakes",
            Kind::TeamRadio => "team_radio",
            Kind::Driver => "drivers",
            Kind::Session => "sessions",
            Kind::Meeting => "meetings",
            Kind::StartingGrid => "starting_grid",
            Kind::SessionResult => "session_result",
            Kind::ChampionshipDriver => "championship_drivers",
            Kind::ChampionshipTeam => "championship_teams",
            Kind::Frame => "frames",
            Kind::Prediction => "predictions",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// The kind of that number.
    pub fn from_number(number: u8) -> Option<Kind> {
        Self::ALL.into_iter().find(|k| *k as u8 == number)
    }

    /// Whether it streams: many a second, each one soon overtaken by the next. Only these may be
    /// shed when a QoS 0 source outruns the disk.
    pub const fn streams(self) -> bool {
        matches!(
            self,
            Kind::CarData | Kind::Location | Kind::Interval | Kind::Frame
        )
    }
}

/// One record, whatever it is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    CarData(CarData),
    Location(Location),
    Interval(Interval),
    Position(Position),
    Lap(Box<Lap>),
    Pit(Box<Pit>),
    Stint(Box<Stint>),
    Weather(Box<Weather>),
    RaceControl(Box<RaceControl>),
    Overtake(Overtake),
    TeamRadio(Box<TeamRadio>),
    Driver(Box<Driver>),
    Session(Box<Session>),
    Meeting(Box<Meeting>),
    StartingGrid(StartingGrid),
    SessionResult(Box<SessionResult>),
    ChampionshipDriver(Box<ChampionshipDriver>),
    ChampionshipTeam(Box<ChampionshipTeam>),
    Frame(Box<Frame>),
    Prediction(Box<Prediction>),
}

/// Runs one expression for whichever struct a record holds.
#[macro_export]
#[doc(hidden)]
macro_rules! for_record {
    ($record:expr, $inner:ident => $body:expr) => {
        match $record {
            $crate::record::Record::CarData($inner) => $body,
            $crate::record::Record::Location($inner) => $body,
            $crate::record::Record::Interval($inner) => $body,
            $crate::record::Record::Position($inner) => $body,
            $crate::record::Record::Lap($inner) => $body,
            $crate::record::Record::Pit($inner) => $body,
            $crate::record::Record::Stint($inner) => $body,
            $crate::record::Record::Weather($inner) => $body,
            $crate::record::Record::RaceControl($inner) => $body,
            $crate::record::Record::Overtake($inner) => $body,
            $crate::record::Record::TeamRadio($inner) => $body,
            $crate::record::Record::Driver($inner) => $body,
            $crate::record::Record::Session($inner) => $body,
            $crate::record::Record::Meeting($inner) => $body,
            $crate::record::Record::StartingGrid($inner) => $body,
            $crate::record::Record::SessionResult($inner) => $body,
            $crate::record::Record::ChampionshipDriver($inner) => $body,
            $crate::record::Record::ChampionshipTeam($inner) => $body,
            $crate::record::Record::Frame($inner) => $body,
            $crate::record::Record::Prediction($inner) => $body,
        }
    };
}

impl Record {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Record::CarData(_) => Kind::CarData,
            Record::Location(_) => Kind::Location,
            Record::Interval(_) => Kind::Interval,
            Record::Position(_) => Kind::Position,
            Record::Lap(_) => Kind::Lap,
            Record::Pit(_) => Kind::Pit,
            Record::Stint(_) => Kind::Stint,
            Record::Weather(_) => Kind::Weather,
            Record::RaceControl(_) => Kind::RaceControl,
            Record::Overtake(_) => Kind::Overtake,
            Record::TeamRadio(_) => Kind::TeamRadio,
            Record::Driver(_) => Kind::Driver,
            Record::Session(_) => Kind::Session,
            Record::Meeting(_) => Kind::Meeting,
            Record::StartingGrid(_) => Kind::StartingGrid,
            Record::SessionResult(_) => Kind::SessionResult,
            Record::ChampionshipDriver(_) => Kind::ChampionshipDriver,
            Record::ChampionshipTeam(_) => Kind::ChampionshipTeam,
            Record::Frame(_) => Kind::Frame,
            Record::Prediction(_) => Kind::Prediction,
        }
    }

    /// The session it belongs to; `None` for meetings.
    pub fn session_key(&self) -> Option<i32> {
        Some(match self {
            Record::CarData(r) => r.session_key,
            Record::Location(r) => r.session_key,
            Record::Interval(r) => r.session_key,
            Record::Position(r) => r.session_key,
            Record::Lap(r) => r.session_key,
            Record::Pit(r) => r.session_key,
            Record::Stint(r) => r.session_key,
            Record::Weather(r) => r.session_key,
            Record::RaceControl(r) => r.session_key,
            Record::Overtake(r) => r.session_key,
            Record::TeamRadio(r) => r.session_key,
            Record::Driver(r) => r.session_key,
            Record::Session(r) => r.session_key,
            Record::Meeting(_) => return None,
            Record::StartingGrid(r) => r.session_key,
            Record::SessionResult(r) => r.session_key,
            Record::ChampionshipDriver(r) => r.session_key,
            Record::ChampionshipTeam(r) => r.session_key,
            Record::Frame(r) => r.session_key,
            Record::Prediction(r) => r.session_key(),
        })
    }

    /// The car it is about, where it is about one.
    pub fn driver_number(&self) -> Option<u8> {
        match self {
            Record::CarData(r) => Some(r.driver_number),
            Record::Location(r) => Some(r.driver_number),
            Record::Interval(r) => Some(r.driver_number),
            Record::Position(r) => Some(r.driver_number),
            Record::Lap(r) => Some(r.driver_number),
            Record::Pit(r) => Some(r.driver_number),
            Record::Stint(r) => Some(r.driver_number),
            Record::RaceControl(r) => r.driver_number,
            Record::Overtake(r) => Some(r.overtaking_driver_number),
            Record::TeamRadio(r) => Some(r.driver_number),
            Record::Driver(r) => Some(r.driver_number),
            Record::StartingGrid(r) => Some(r.driver_number),
            Record::SessionResult(r) => Some(r.driver_number),
            Record::ChampionshipDriver(r) => Some(r.driver_number),
            Record::Frame(r) => Some(r.driver_number),
            Record::Prediction(r) => r.driver_number(),
            Record::Weather(_)
            | Record::Session(_)
            | Record::Meeting(_)
            | Record::ChampionshipTeam(_) => None,
        }
    }

    /// When it happened, by the feed's own clock; `None` where the record carries no date.
    pub fn date(&self) -> Option<Time> {
        match self {
            Record::CarData(r) => Some(r.date),
            Record::Location(r) => Some(r.date),
            Record::Interval(r) => Some(r.date),
            Record::Position(r) => Some(r.date),
            Record::Lap(r) => r.date_start,
            Record::Pit(r) => r.date,
            Record::Weather(r) => Some(r.date),
            Record::RaceControl(r) => r.date,
            Record::Overtake(r) => Some(r.date),
            Record::TeamRadio(r) => Some(r.date),
            Record::Session(r) => r.date_start,
            Record::Meeting(r) => r.date_start,
            Record::Frame(r) => Some(r.first),
            Record::Prediction(r) => Some(r.made_at()),
            Record::Stint(_)
            | Record::Driver(_)
            | Record::StartingGrid(_)
            | Record::SessionResult(_)
            | Record::ChampionshipDriver(_)
            | Record::ChampionshipTeam(_) => None,
        }
    }
}

/// A record with what makes it a version of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The record itself.
    pub record: Record,
    /// OpenF1's `_id`: higher is newer. `None` where the source gives none.
    pub id: Option<i64>,
    /// The source's `_key`, kept only where it differs from the one derived from the record's own
    /// fields (see [`key`]): nearly never for what streams.
    pub key: Option<Box<str>>,
}

impl Entry {
    /// A record without a version, as our own producers make them.
    pub fn new(record: Record) -> Entry {
        Entry {
            record,
            id: None,
            key: None,
        }
    }

    /// Which document this is a version of.
    pub fn document(&self) -> DocumentKey {
        DocumentKey::of(self)
    }
}

impl From<Record> for Entry {
    fn from(record: Record) -> Entry {
        Entry::new(record)
    }
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        for_record!(self, r => r.serialize(s))
    }
}

/// As on the live feed: the record's fields, then `_key` and `_id`.
impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Live<'a> {
            #[serde(flatten)]
            record: &'a Record,
            #[serde(rename = "_key", skip_serializing_if = "Option::is_none")]
            key: Option<&'a str>,
            #[serde(rename = "_id", skip_serializing_if = "Option::is_none")]
            id: Option<i64>,
        }
        let derived;
        let key = match &self.key {
            Some(key) => Some(&**key),
            None if self.id.is_some() => {
                derived = key::derive(&self.record);
                Some(derived.as_str())
            }
            None => None,
        };
        Live {
            record: &self.record,
            key,
            id: self.id,
        }
        .serialize(s)
    }
}
