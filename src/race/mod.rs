//! Race state: what is true on track right now, folded from records.
//!
//! **Invariant:** nothing here reads a clock, a file or a socket. The same records in the same order
//! give the same state, bit for bit. That is why a restart may simply fold the journal again. No
//! allocation per streaming record: cars, laps and stints sit in fixed-capacity collections.

use heapless::Vec;
use serde::Serialize;

use crate::record::{Entry, Gap, Time};

/// Most cars in a session.
pub const MAX_CARS: usize = 32;
/// Most laps of a car in a session.
pub const MAX_LAPS: usize = 200;
/// Most stints of a car in a session.
pub const MAX_STINTS: usize = 24;
/// Most visits of a car to the pits in a session.
pub const MAX_PITS: usize = 48;
/// Most events that one record brings about.
pub const MAX_EVENTS: usize = 64;

/// What kind of session it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionType {
    Practice,
    Qualifying,
    SprintQualifying,
    Sprint,
    Race,
    #[default]
    Unknown,
}

/// Status of the whole track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackStatus {
    #[default]
    Clear,
    Yellow,
    SafetyCar,
    VirtualSafetyCar,
    VirtualSafetyCarEnding,
    Red,
    Chequered,
}

/// Tyre compound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compound {
    Soft,
    Medium,
    Hard,
    Intermediate,
    Wet,
    #[default]
    Unknown,
}

/// Where a car is in its race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CarStatus {
    #[default]
    OnTrack,
    InPit,
    /// Stopped for good, as far as one can tell (it may come back).
    Retired,
    /// Took the chequered flag.
    Finished,
    NotStarted,
    Disqualified,
}

/// One lap of one car, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LapState {
    pub number: u16,
    pub started: Option<Time>,
    /// Sector times (s).
    pub sectors: [Option<f64>; 3],
    /// Lap time (s), once complete.
    pub duration: Option<f64>,
    pub is_out_lap: bool,
    pub is_in_lap: bool,
    /// Every track status that held during the lap, as a bit set over `TrackStatus as u8`.
    pub statuses: u8,
    pub compound: Compound,
    /// Age of the tyres at the end of the lap (laps).
    pub tyre_age: Option<u16>,
    /// Position when the lap ended.
    pub position: Option<u8>,
    /// Gap to the leader when the lap ended.
    pub gap_to_leader: Option<Gap>,
    /// Journal sequence of the record that completed it.
    pub completed_seq: Option<u64>,
}

/// One set of tyres on one car.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StintState {
    pub number: u8,
    pub compound: Compound,
    pub lap_start: u16,
    pub lap_end: u16,
    pub age_at_start: Option<u16>,
}

/// A visit to the pit lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PitState {
    /// The in-lap.
    pub lap: Option<u16>,
    pub exit: Option<Time>,
    /// Time in the pit lane (s).
    pub lane_s: Option<f64>,
}

/// One car.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Car {
    pub driver_number: u8,
    /// Three letters, such as `VER`; the number as text until the driver list is known.
    pub acronym: heapless::String<8>,
    pub name: heapless::String<48>,
    pub team: heapless::String<48>,
    /// RRGGBB.
    pub colour: heapless::String<6>,
    pub grid: Option<u8>,
    /// Qualifying time (s).
    pub qualifying_s: Option<f64>,
    pub position: Option<u8>,
    pub status: CarStatus,
    /// Laps completed.
    pub laps_completed: u16,
    pub gap_to_leader: Option<Gap>,
    pub interval: Option<Gap>,
    pub best_lap_s: Option<f64>,
    /// Penalties from race control that are not yet served (s).
    pub penalty_s: f64,
    /// Last telemetry.
    pub speed_kmh: Option<i16>,
    pub last_seen: Option<Time>,
    pub laps: Vec<LapState, MAX_LAPS>,
    pub stints: Vec<StintState, MAX_STINTS>,
    pub pits: Vec<PitState, MAX_PITS>,
}

/// What a record changed. Predictions and alerts hang on these.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A new session began (or the first one).
    SessionChanged { session_key: i32 },
    SessionStarted,
    SessionFinished,
    LapStarted { driver_number: u8, lap: u16 },
    /// A sector time of the lap in progress is known (1, 2).
    SectorCompleted { driver_number: u8, lap: u16, sector: u8 },
    LapCompleted { driver_number: u8, lap: u16 },
    PitExit { driver_number: u8, lap: Option<u16> },
    StintStarted { driver_number: u8, stint: u8 },
    TrackStatusChanged { status: TrackStatus },
    PositionChanged { driver_number: u8, position: u8 },
    Retired { driver_number: u8 },
    Finished { driver_number: u8 },
    PenaltyGiven { driver_number: u8, seconds: u16 },
    /// The official result is known for a car.
    ResultKnown { driver_number: u8 },
}

/// What one record brought about, oldest first.
pub type Events = Vec<Event, MAX_EVENTS>;
