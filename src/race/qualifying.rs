//! The parts of qualifying (Q1, Q2, Q3; SQ1, SQ2, SQ3) and the best laps in them.
//!
//! A part begins when the pit exit opens after the flag ended the one before (a green light after a
//! red flag goes on with the same part), or when the feed numbers it. A lap belongs to the part in
//! which it began.
//!
//! **Invariant:** nothing is stored about a car's parts: best laps are worked out from its laps, so
//! that a deleted time counts for nothing wherever it is asked for.

use super::session::MAX_PARTS;
use super::{Car, Race};
use crate::record::Time;

impl Race {
    /// A green light, or a message with the number of the part.
    pub(super) fn begin_part(&mut self, t: Time, number: Option<u8>) {
        let session = &mut self.session;
        let ended = session
            .parts
            .last()
            .is_none_or(|begun| session.chequered > Some(*begun));
        let due = match number {
            Some(n) => usize::from(n) > session.parts.len(),
            None => ended,
        };
        if due {
            // A fourth part does not exist; a stray green light after the last one changes nothing.
            let _ = session.parts.push(t);
        }
    }

    /// Best lap (s) of a car in part 1, 2 or 3.
    pub fn best_in_part(&self, car: &Car, part: u8) -> Option<f64> {
        let i = usize::from(part).checked_sub(1)?;
        let from = *self.session.parts.get(i)?;
        let to = self.session.parts.get(i + 1).copied();
        car.laps
            .iter()
            .filter(|l| {
                !l.deleted
                    && l.started
                        .is_some_and(|t| t >= from && to.is_none_or(|e| t < e))
            })
            .filter_map(|l| l.duration)
            .reduce(f64::min)
    }

    /// Best laps (s) of a car in every part.
    pub fn parts(&self, car: &Car) -> [Option<f64>; MAX_PARTS] {
        [1, 2, 3].map(|part| self.best_in_part(car, part))
    }
}
