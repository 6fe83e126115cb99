//! What a record brought about.
//!
//! **Invariant:** an event is said once: the same record heard again says nothing new.

use heapless::Vec;
use serde::Serialize;

use super::TrackStatus;

/// Most events that one record brings about; what is over is dropped (a record that finishes the
/// race for [`super::MAX_CARS`] cars brings about 1 + 32).
pub const MAX_EVENTS: usize = 64;

/// What a record changed. Predictions and alerts hang on these.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A new session began (or the first one).
    SessionChanged {
        session_key: i32,
    },
    /// The first lap of a race or sprint began, or the pit exit opened.
    SessionStarted,
    /// Every car of a race has finished or stopped for good, or the flag ended a practice session or
    /// the last part of qualifying, or the official result came.
    SessionFinished,
    LapStarted {
        driver_number: u8,
        lap: u16,
    },
    /// A sector time of the lap in progress is known (1, 2). Not said where the lap's time comes in
    /// the same record, as on lap 1.
    SectorCompleted {
        driver_number: u8,
        lap: u16,
        sector: u8,
    },
    /// Once a car and lap: its time is known, or the next lap is well under way and none came.
    LapCompleted {
        driver_number: u8,
        lap: u16,
    },
    PitExit {
        driver_number: u8,
        lap: Option<u16>,
    },
    StintStarted {
        driver_number: u8,
        stint: u8,
    },
    TrackStatusChanged {
        status: TrackStatus,
    },
    PositionChanged {
        driver_number: u8,
        position: u8,
    },
    Retired {
        driver_number: u8,
    },
    /// A car that was taken for retired goes on.
    Resumed {
        driver_number: u8,
    },
    Finished {
        driver_number: u8,
    },
    /// A penalty was announced; 0 seconds for a drive-through.
    PenaltyGiven {
        driver_number: u8,
        seconds: u16,
    },
    /// The official result is known for a car.
    ResultKnown {
        driver_number: u8,
    },
}

/// What one record brought about, oldest first.
pub type Events = Vec<Event, MAX_EVENTS>;

/// Adds an event; one over the bound is dropped, as [`MAX_EVENTS`] says.
pub(super) fn say(events: &mut Events, event: Event) {
    let _ = events.push(event);
}
