//! What really happened: the race as the model knows it, for tests to hold a folded state against.

use serde::Serialize;

use super::tyre::Compound;
use crate::record::Time;

/// Where a car came in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Classified {
    pub driver_number: u8,
    /// Order on the road (races) or by best lap (practice, qualifying); retired cars last.
    pub position: u8,
    /// Position once time penalties are added.
    pub official_position: u8,
    /// Laps completed.
    pub laps: u16,
    pub retired: bool,
    /// From the start to the flag (s), without penalties; `None` where it did not finish.
    pub race_time_s: Option<f64>,
    pub best_lap_s: Option<f64>,
    /// Penalties that were not served in the pits (s).
    pub penalty_s: f64,
}

/// A set of tyres and the laps it did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stint {
    pub driver_number: u8,
    pub stint_number: u8,
    pub compound: Compound,
    pub lap_start: u16,
    pub lap_end: u16,
    pub age_at_start: u16,
}

/// A visit to the pit lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pit {
    pub driver_number: u8,
    /// The in-lap.
    pub lap: u16,
    pub lane_s: f64,
}

/// State of the whole track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Clear,
    SafetyCar,
    VirtualSafetyCar,
    VirtualSafetyCarEnding,
    Red,
    Chequered,
}

/// A session as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Truth {
    pub session_key: i32,
    /// First to last; empty until the session is over.
    pub classification: Vec<Classified>,
    /// By car and stint number.
    pub stints: Vec<Stint>,
    /// In the order of the pit exits.
    pub pits: Vec<Pit>,
    /// Each change of the track's status.
    pub track_status: Vec<(Time, Status)>,
    /// Lap time of each completed lap (s) by car: `(driver_number, lap, seconds)`.
    pub laps: Vec<(u8, u16, f64)>,
}
