//! Stints: which tyres, from which lap, how old.
//!
//! Stints are kept as the feed tells them, one-lap stints at restarts included. The age of the tyres
//! follows from the stint that a lap belongs to (the last one that had begun by then), so that it is
//! the same whichever version of `lap_end` has arrived.
//!
//! **Invariant:** an older version of a stint never replaces a newer one.

use serde::Serialize;

use super::{Car, Event, Events, event::say};
use crate::record::Stint;

/// Most stints of a car in a session.
pub const MAX_STINTS: usize = 24;

/// Tyre compound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

impl Compound {
    /// Reads what feeds write: `SOFT`, `Soft`, `S`, `INTER`, …; all else is unknown.
    pub fn parse(text: &str) -> Compound {
        let is = |names: &[&str]| names.iter().any(|n| text.trim().eq_ignore_ascii_case(n));
        if is(&["SOFT", "S"]) {
            Compound::Soft
        } else if is(&["MEDIUM", "M"]) {
            Compound::Medium
        } else if is(&["HARD", "H"]) {
            Compound::Hard
        } else if is(&["INTERMEDIATE", "INTER", "I"]) {
            Compound::Intermediate
        } else if is(&["WET", "FULL_WET", "W"]) {
            Compound::Wet
        } else {
            Compound::Unknown
        }
    }

    /// As OpenF1 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Compound::Soft => "SOFT",
            Compound::Medium => "MEDIUM",
            Compound::Hard => "HARD",
            Compound::Intermediate => "INTERMEDIATE",
            Compound::Wet => "WET",
            Compound::Unknown => "UNKNOWN",
        }
    }
}

/// One set of tyres on one car.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StintState {
    pub number: u8,
    pub compound: Compound,
    pub lap_start: u16,
    /// Grows while the stint goes on.
    pub lap_end: u16,
    /// Age of the set when fitted (laps).
    pub age_at_start: Option<u16>,
    #[serde(skip)]
    pub version: Option<i64>,
}

impl StintState {
    /// Age of the set at the end of `lap` (laps): age when fitted + laps on it.
    pub fn age_after(&self, lap: u16) -> Option<u16> {
        Some(self.age_at_start? + (lap + 1).saturating_sub(self.lap_start))
    }
}

impl Car {
    pub(super) fn stint(&mut self, r: &Stint, version: Option<i64>, events: &mut Events) {
        let new = StintState {
            number: r.stint_number,
            compound: r
                .compound
                .as_deref()
                .map_or(Compound::Unknown, Compound::parse),
            lap_start: r.lap_start.or(r.lap_end).unwrap_or(1),
            lap_end: r.lap_end.or(r.lap_start).unwrap_or(1),
            age_at_start: r.tyre_age_at_start,
            version,
        };
        let refit = match self.stints.binary_search_by_key(&new.number, |s| s.number) {
            Ok(i) => {
                let held = &mut self.stints[i];
                if version < held.version {
                    return;
                }
                let refit = (held.compound, held.lap_start, held.age_at_start)
                    != (new.compound, new.lap_start, new.age_at_start);
                *held = new;
                refit
            }
            Err(i) => {
                if self.stints.insert(i, new).is_err() {
                    return;
                }
                say(
                    events,
                    Event::StintStarted {
                        driver_number: self.driver_number,
                        stint: r.stint_number,
                    },
                );
                true
            }
        };
        if refit {
            self.refit();
        }
    }

    /// Tells the laps again what they were driven on.
    fn refit(&mut self) {
        for i in 0..self.laps.len() {
            self.fit(i);
        }
    }

    /// Tells lap number `i` of the list what it is driven on.
    pub(super) fn fit(&mut self, i: usize) {
        let number = self.laps[i].number;
        let (compound, tyre_age) = match self.stint_at(number) {
            Some(s) => (s.compound, s.age_after(number)),
            None => (Compound::Unknown, None),
        };
        let lap = &mut self.laps[i];
        (lap.compound, lap.tyre_age) = (compound, tyre_age);
    }
}
