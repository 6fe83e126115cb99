//! The feed's time.
//!
//! **Invariant:** one absurd date, ahead or behind, never carries the clock away: a date that is far
//! ahead counts only once others agree with it, and a clock that got ahead comes back once the
//! records have stayed far behind it for long enough.

use crate::record::Time;

/// Furthest that one record may carry the clock on by itself (s).
pub const MAX_STEP_S: f64 = 1_800.0;
/// Dated records in a row that must agree on a time further ahead.
pub const CONFIRM_AHEAD: u16 = 8;
/// A record this far behind (s) is no matter of late delivery.
pub const FAR_BEHIND_S: f64 = 21_600.0;
/// Dated records in a row that far behind before the clock is taken to be wrong.
pub const CONFIRM_BEHIND: u16 = 64;

const fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

/// Decides which dates move the clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gate {
    /// Whether any date was taken yet.
    set: bool,
    candidate: Time,
    ahead: u16,
    behind: u16,
    /// Dates refused.
    pub(super) refused: u64,
}

impl Gate {
    /// The clock after a record of `date`.
    #[inline]
    pub(super) fn advance(&mut self, clock: Time, date: Time) -> Time {
        if !self.set {
            self.set = true;
            return date;
        }
        let step = date.micros() - clock.micros();
        if step > micros(MAX_STEP_S) {
            return self.ahead(clock, date);
        }
        if step < -micros(FAR_BEHIND_S) {
            self.behind += 1;
            if self.behind >= CONFIRM_BEHIND {
                self.behind = 0;
                return date;
            }
            return clock;
        }
        self.ahead = 0;
        self.behind = 0;
        if step > 0 { date } else { clock }
    }

    #[cold]
    fn ahead(&mut self, clock: Time, date: Time) -> Time {
        let agrees = (date.micros() - self.candidate.micros()).abs() <= micros(MAX_STEP_S);
        self.ahead = if self.ahead > 0 && agrees {
            self.ahead + 1
        } else {
            1
        };
        self.candidate = match agrees && self.ahead > 1 {
            true => self.candidate.max(date),
            false => date,
        };
        if self.ahead >= CONFIRM_AHEAD {
            self.ahead = 0;
            return self.candidate;
        }
        self.refused += 1;
        clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Time {
        Time::from_millis(1_700_000_000_000 + s * 1000)
    }

    #[test]
    fn one_date_in_the_future_changes_nothing() {
        let mut gate = Gate::default();
        let mut clock = gate.advance(Time::default(), at(0));
        for s in 1..100 {
            clock = gate.advance(clock, at(s));
            clock = gate.advance(clock, Time::LATEST);
        }
        assert_eq!((clock, gate.refused), (at(99), 99));
    }

    #[test]
    fn a_gap_that_others_confirm_is_taken() {
        let mut gate = Gate::default();
        let mut clock = gate.advance(Time::default(), at(0));
        for s in 0..8 {
            clock = gate.advance(clock, at(20_000 + s));
        }
        assert_eq!(clock, at(20_007));
    }

    #[test]
    fn a_first_date_in_the_future_is_forgotten() {
        let mut gate = Gate::default();
        let mut clock = gate.advance(Time::default(), Time::LATEST);
        for s in 0..70 {
            clock = gate.advance(clock, at(s));
        }
        assert_eq!(clock, at(69));
    }
}
