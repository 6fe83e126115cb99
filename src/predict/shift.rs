//! Where the whole field has just been slower, or quicker, than the model said.
//!
//! Rain that comes or goes and wind that turns are on track before any weather station tells of them: the cars that
//! have just completed a lap were all off the same way, and those still on theirs will be. After a sector the lap that
//! is predicted and the laps that tell of it are the same stretch of time; at the line they are a lap apart, and there
//! it does not help.
//!
//! s = [`SHARE`] · sign(m) · max(0, |m| − [`CHANCE`] · d / √n), where m is the median of the last n differences of a
//! clean lap to what was said of it without s, and d their median distance from m. What is taken off is what m may
//! be by chance, 1.6 standard errors: where nothing happens, s is 0. It is rounded as answers are when they are
//! published, to a millisecond, so that what is learnt from an answer does not depend on the shift that was in it: a
//! model that is swapped in knows as much as any other once it has answered for the last laps.

use super::laptime::median;

/// Most laps: one of every car.
const LAPS: usize = 20;
/// Fewest laps that tell anything.
const FEWEST: usize = 5;
/// How much of it is still there for who comes next.
const SHARE: f64 = 0.5;
/// What a median of n is off by chance, in median distances by √n.
const CHANCE: f64 = 3.0;

/// The field's latest laps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shift {
    /// Truth less what was said without the shift (s), oldest first.
    off: heapless::Deque<f64, LAPS>,
}

impl Shift {
    /// What to add to an answer (s).
    pub fn now(&self) -> f64 {
        if self.off.len() < FEWEST {
            return 0.0;
        }
        let middle = |of: &dyn Fn(f64) -> f64| {
            let mut values: heapless::Vec<f64, LAPS> = self.off.iter().map(|x| of(*x)).collect();
            median(&mut values).unwrap_or(0.0)
        };
        let m = middle(&|x| x);
        let d = middle(&|x| (x - m).abs());
        let chance = CHANCE * d / (self.off.len() as f64).sqrt();
        let shift = SHARE * m.signum() * (m.abs() - chance).max(0.0);
        (shift * 1000.0).round() / 1000.0
    }

    /// A clean lap was `off` what was said of it without the shift (s).
    pub fn learn(&mut self, off: f64) {
        if self.off.is_full() {
            self.off.pop_front();
        }
        let _ = self.off.push_back(off);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_whole_field_tells_is_followed_and_chance_is_not() {
        let mut shift = Shift::default();
        let scattered = |lap: i32| 0.1 * f64::from(lap * 7 % 11 - 5);
        (0..40).for_each(|lap| shift.learn(scattered(lap)));
        assert_eq!(shift.now(), 0.0);
        // A shower: everybody is two seconds slower.
        (0..20).for_each(|lap| shift.learn(2.0 + scattered(lap)));
        assert!((0.8..1.0).contains(&shift.now()), "{}", shift.now());
        (0..20).for_each(|lap| shift.learn(scattered(lap)));
        assert_eq!(shift.now(), 0.0);
    }

    #[test]
    fn few_laps_tell_nothing_and_old_ones_are_forgotten() {
        let mut shift = Shift::default();
        for _ in 1..FEWEST {
            shift.learn(-1.0);
            assert_eq!(shift.now(), 0.0);
        }
        shift.learn(-1.0);
        assert_eq!(shift.now(), -SHARE);
        let mut other = Shift::default();
        for x in 0..LAPS {
            shift.learn(x as f64);
            other.learn(x as f64);
        }
        assert_eq!(shift, other);
    }
}
