//! Race state: what is true on track right now, folded from records.
//!
//! [`Race::apply`] takes one journal entry and says what it changed ([`Events`]). Feeds are dirty:
//! laps arrive in pieces and out of order, an older version of a document may follow a newer one,
//! records of another session slip in, dates jump. So every noun keeps what makes it safe to hear
//! the same thing twice or late: laps and stints their document version, positions and intervals
//! their date, track status the dated signals that it is derived from.
//!
//! | file | noun |
//! |---|---|
//! | [`session`] | which session it is, and when a record begins another |
//! | [`clock`] | the feed's time, the only clock there is |
//! | [`car`] | a car and its driver |
//! | [`lap`], [`stint`], [`pit`] | what it has driven, on what, and its visits to the pits |
//! | [`track`] | track status and its history |
//! | [`control`], [`penalty`] | race control's messages; investigations and penalties read from them |
//! | [`weather`] | the latest weather |
//! | [`finish`] | retirement, the chequered flag, and the end of a race whose feed has holes |
//! | [`qualifying`] | the parts of qualifying and the best laps in them |
//! | [`classification`] | the order, and what a summary writes |
//! | [`fold`] | one record into the state |
//!
//! **Invariant:** nothing here reads a clock, a file or a socket. The same records in the same order
//! give the same state, bit for bit. That is why a restart may simply fold the journal again.
//! Streaming records (telemetry, locations, intervals, positions) cost O(1) and allocate nothing:
//! cars are found by a table, laps are reserved when a car first appears, and all else has a fixed
//! capacity.

#![forbid(unsafe_code)]

pub mod car;
pub mod classification;
pub mod clock;
pub mod control;
pub mod event;
pub mod finish;
pub mod fold;
pub mod lap;
pub mod penalty;
pub mod pit;
pub mod qualifying;
pub mod session;
pub mod stint;
mod text;
pub mod track;
pub mod weather;

#[cfg(test)]
mod tests;

pub use car::{Car, CarStatus};
pub use classification::{ClassificationRow, OfficialResult, PitRow, Standing, StintRow};
pub use control::ControlMessage;
pub use event::{Event, Events, MAX_EVENTS};
pub use lap::{LapState, MAX_LAPS};
pub use penalty::{Investigation, InvestigationState, Penalty, PenaltyKind};
pub use pit::{MAX_PITS, PitState};
pub use session::{SessionState, SessionType};
pub use stint::{Compound, MAX_STINTS, StintState};
pub use track::{StatusChange, Track, TrackStatus};
pub use weather::WeatherState;

use serde::Serialize;

use crate::record::Time;

/// Most cars in a session.
pub const MAX_CARS: usize = 32;

/// No car has this number in [`Race::slots`].
const NO_SLOT: u8 = u8::MAX;

/// The state of one session, as far as the records tell it.
///
/// ```
/// use trackside::race::{Event, Race};
/// use trackside::record::decode;
/// let mut race = Race::new();
/// let payload = br#"{"meeting_key":1229,"session_key":9472,"driver_number":1,
///     "date":"2024-03-02T15:06:42.341000+00:00","position":1}"#;
/// let entry = decode("v1/position", &bytes::Bytes::from_static(payload)).unwrap().entry;
/// let events = race.apply(0, &entry);
/// assert!(events.contains(&Event::PositionChanged { driver_number: 1, position: 1 }));
/// assert_eq!(race.order()[0].driver_number, 1);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Race {
    /// Sequence of the last record applied.
    pub seq: u64,
    pub session: SessionState,
    /// The latest plausible date of a record of this session; [`Time::default`] before the first.
    pub clock: Time,
    pub track: Track,
    pub weather: Option<WeatherState>,
    /// Race control's messages, oldest first; at most [`control::MAX_MESSAGES`].
    pub control: Vec<ControlMessage>,
    /// Incidents that the stewards were told of, oldest first.
    pub investigations: Vec<Investigation>,
    /// Penalties that race control announced, oldest first.
    pub penalties: Vec<Penalty>,
    /// Records that were left out because they belong to another session.
    pub foreign_records: u64,
    cars: Vec<Car>,
    #[serde(skip)]
    slots: Slots,
    #[serde(skip)]
    gate: clock::Gate,
    #[serde(skip)]
    sessions: session::Known,
    #[serde(skip)]
    finish: finish::Finish,
    /// The session before, should it go on, or one that may take over; it has no other of its own.
    #[serde(skip)]
    other: Option<Box<Race>>,
}

/// Where each driver number sits in the list of cars.
#[derive(Clone, Debug, PartialEq)]
struct Slots([u8; 256]);

impl Default for Slots {
    fn default() -> Self {
        Slots([NO_SLOT; 256])
    }
}

impl Default for Race {
    fn default() -> Self {
        Race::new()
    }
}

impl Race {
    /// A race that has heard nothing yet.
    pub fn new() -> Race {
        Race {
            seq: 0,
            session: SessionState::default(),
            clock: Time::default(),
            track: Track::default(),
            weather: None,
            control: Vec::new(),
            investigations: Vec::new(),
            penalties: Vec::new(),
            foreign_records: 0,
            cars: Vec::with_capacity(MAX_CARS),
            slots: Slots::default(),
            gate: clock::Gate::default(),
            sessions: session::Known::default(),
            finish: finish::Finish::default(),
            other: None,
        }
    }

    /// Every car, in the order in which they were first heard of.
    pub fn cars(&self) -> &[Car] {
        &self.cars
    }

    /// The car of that number.
    pub fn car(&self, driver_number: u8) -> Option<&Car> {
        self.cars
            .get(usize::from(self.slots.0[usize::from(driver_number)]))
    }

    /// The cars in running order: those that go on by position, then those that stopped by the
    /// distance that they covered, then the disqualified and those that never started. A car without
    /// a position counts by its place on the grid, else by its best lap.
    pub fn order(&self) -> Vec<&Car> {
        let mut cars: Vec<&Car> = self.cars.iter().collect();
        cars.sort_by(|a, b| {
            a.status
                .rank()
                .cmp(&b.status.rank())
                .then_with(|| match a.status {
                    CarStatus::Retired => b.laps_completed.cmp(&a.laps_completed),
                    _ => std::cmp::Ordering::Equal,
                })
                .then_with(|| {
                    a.running_key()
                        .partial_cmp(&b.running_key())
                        .unwrap_or(std::cmp::Ordering::Equal)
                })
                .then_with(|| a.driver_number.cmp(&b.driver_number))
        });
        cars
    }

    /// What holds on the whole track now.
    pub fn track_status(&self) -> TrackStatus {
        self.track.status
    }

    /// The lap that the leader is on: 0 before the start, the last one once it has finished.
    pub fn leader_lap(&self) -> u16 {
        self.cars
            .iter()
            .map(Car::current_lap)
            .max()
            .unwrap_or_default()
    }

    /// Laps that the leader has completed.
    pub fn leader_laps_completed(&self) -> u16 {
        self.cars
            .iter()
            .map(|c| c.laps_completed)
            .max()
            .unwrap_or_default()
    }

    /// Dates that were refused because they would have carried the clock away.
    pub fn refused_dates(&self) -> u64 {
        self.gate.refused
    }

    /// Bytes that this state holds, roughly: for tests of its bound.
    pub fn bytes(&self) -> usize {
        size_of::<Race>()
            + self.cars.capacity() * size_of::<Car>()
            + self
                .cars
                .iter()
                .map(|c| c.laps.capacity() * size_of::<LapState>())
                .sum::<usize>()
            + self
                .control
                .iter()
                .map(|m| size_of::<ControlMessage>() + m.message.len())
                .sum::<usize>()
            + self.penalties.capacity() * size_of::<Penalty>()
            + self.investigations.capacity() * size_of::<Investigation>()
            + self.track.bytes()
            + self.other.as_ref().map_or(0, |o| o.bytes())
    }

    /// The place of a car in the list, made if need be; `None` when there are [`MAX_CARS`] already.
    fn slot(&mut self, driver_number: u8) -> Option<usize> {
        let slot = self.slots.0[usize::from(driver_number)];
        if slot != NO_SLOT {
            return Some(usize::from(slot));
        }
        if self.cars.len() == MAX_CARS {
            return None;
        }
        let slot = self.cars.len();
        self.slots.0[usize::from(driver_number)] = slot as u8;
        self.cars.push(Car::new(driver_number));
        Some(slot)
    }
}
