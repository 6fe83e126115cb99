//! Tyres: what each compound gives, how it wears, and what it can do in the wet.

use serde::Serialize;

/// A compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compound {
    Soft,
    Medium,
    Hard,
    Intermediate,
    Wet,
}
use Compound::{Hard, Intermediate, Medium, Soft, Wet};

impl Compound {
    /// As the feed writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Soft => "SOFT",
            Medium => "MEDIUM",
            Hard => "HARD",
            Intermediate => "INTERMEDIATE",
            Wet => "WET",
        }
    }

    pub const fn is_slick(self) -> bool {
        matches!(self, Soft | Medium | Hard)
    }

    /// Slower than a new soft on a dry track (s a lap), and wear (s a lap, per lap).
    const fn dry(self) -> (f64, f64) {
        match self {
            Soft => (0.0, 0.095),
            Medium => (0.50, 0.058),
            Hard => (0.95, 0.036),
            Intermediate => (4.5, 0.22),
            Wet => (9.0, 0.35),
        }
    }

    /// Laps after which it falls off a cliff.
    const fn cliff(self) -> f64 {
        match self {
            Soft => 20.0,
            Medium => 32.0,
            Hard => 48.0,
            Intermediate => 40.0,
            Wet => 45.0,
        }
    }

    /// What a set of `age` laps loses to a new soft on a dry track (s a lap), on a track whose
    /// wetness is 0 (dry) to 1 (standing water): `base + wear·age + cliff + wet`.
    pub fn loss_s(self, age: f64, wear: f64, wetness: f64) -> f64 {
        let (base, slope) = self.dry();
        let over = (age * wear - self.cliff()).max(0.0);
        // Rain cools wet tyres: they wear and lose less, the more water there is.
        let (base, slope) = if self.is_slick() {
            (base, slope)
        } else {
            (base * (1.0 - wetness), slope * (1.0 - 0.9 * wetness))
        };
        let water = match self {
            Soft | Medium | Hard => (45.0 * wetness * wetness + 8.0 * wetness).min(24.0),
            Intermediate => 8.0 * wetness + 14.0 * (wetness - 0.6).max(0.0),
            Wet => 10.0 * wetness,
        };
        base + slope * wear * age + 0.15 * over * over.min(4.0) + water
    }

    /// The compound for a track that wet, where it must be a wet-weather one.
    pub fn for_water(wetness: f64) -> Option<Compound> {
        match wetness {
            w if w > 0.75 => Some(Wet),
            w if w > 0.22 => Some(Intermediate),
            _ => None,
        }
    }
}

/// A set on a car.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    pub compound: Compound,
    /// Laps on it when it was fitted, and since.
    pub age_at_start: u16,
    pub laps: u16,
}

impl Set {
    pub const fn new(compound: Compound, age_at_start: u16) -> Set {
        Set {
            compound,
            age_at_start,
            laps: 0,
        }
    }

    pub fn age(&self) -> f64 {
        f64::from(self.age_at_start + self.laps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_compound_has_its_weather() {
        let best = |wetness: f64| {
            [Soft, Medium, Hard, Intermediate, Wet]
                .into_iter()
                .min_by(|a, b| {
                    a.loss_s(3.0, 1.0, wetness)
                        .total_cmp(&b.loss_s(3.0, 1.0, wetness))
                })
        };
        assert_eq!(best(0.0), Some(Soft));
        assert_eq!(best(0.45), Some(Intermediate));
        assert_eq!(best(1.0), Some(Wet));
        assert!(Soft.loss_s(25.0, 1.0, 0.0) > Hard.loss_s(25.0, 1.0, 0.0));
    }
}
