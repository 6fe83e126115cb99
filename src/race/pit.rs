//! Visits to the pit lane.
//!
//! **Invariant:** one visit an in-lap, in the order of the in-laps, however often it is told.

use serde::Serialize;

use super::{Car, CarStatus, Event, Events, event::say};
use crate::record::{Pit, Time};

/// Most visits of a car to the pits in a session.
pub const MAX_PITS: usize = 48;
/// Longest visit that can be a pit stop (s); what is longer waited for a restart.
pub const LONGEST_STOP_S: f64 = 600.0;

/// A visit to the pit lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PitState {
    /// The in-lap.
    pub lap: Option<u16>,
    pub exit: Option<Time>,
    /// Time in the pit lane (s).
    pub lane_s: Option<f64>,
    /// Time standing still (s), where the feed knows it.
    pub stop_s: Option<f64>,
    /// The car waited there for a restart, or a red flag fell meanwhile: no stop as one counts them.
    pub under_red: bool,
    #[serde(skip)]
    pub version: Option<i64>,
}

impl PitState {
    /// When the car entered the pit lane.
    pub fn entry(&self) -> Option<Time> {
        Some(self.exit?.plus_seconds(-self.lane_s?))
    }

    fn is_same_visit(&self, r: &Pit, exit: Time) -> bool {
        match (self.lap, r.lap_number) {
            (Some(a), Some(b)) => a == b,
            (None, None) => self.exit == Some(exit),
            _ => false,
        }
    }
}

impl Car {
    /// Takes a visit in; says whether it is a new one.
    pub(super) fn pit(
        &mut self,
        r: &Pit,
        exit: Time,
        version: Option<i64>,
        under_red: bool,
        events: &mut Events,
    ) -> bool {
        let lane_s = r.lane_duration.or(r.pit_duration);
        let new = PitState {
            lap: r.lap_number,
            exit: Some(exit),
            lane_s,
            stop_s: r.stop_duration,
            under_red: under_red || lane_s.is_some_and(|s| s > LONGEST_STOP_S),
            version,
        };
        if let Some(held) = self.pits.iter_mut().find(|p| p.is_same_visit(r, exit)) {
            if version >= held.version {
                *held = new;
            }
            return false;
        }
        let at = self
            .pits
            .iter()
            .position(|p| (p.lap, p.exit) > (new.lap, new.exit))
            .unwrap_or(self.pits.len());
        if self.pits.insert(at, new).is_err() {
            return false;
        }
        if let Some(lap) = r.lap_number {
            if let Ok(i) = self.lap_index(lap) {
                self.laps[i].is_in_lap = true;
            }
            if let Ok(i) = self.lap_index(lap + 1) {
                self.laps[i].is_out_lap = true;
            }
        }
        if self.status == CarStatus::InPit && at + 1 == self.pits.len() {
            self.status = CarStatus::OnTrack;
        }
        say(
            events,
            Event::PitExit {
                driver_number: self.driver_number,
                lap: r.lap_number,
            },
        );
        true
    }

    /// Whether a visit is known whose in-lap is `lap`.
    pub(super) fn pitted_on(&self, lap: u16) -> bool {
        self.pits.iter().any(|p| p.lap == Some(lap))
    }
}
