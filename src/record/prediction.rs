//! What trackside says about the future, as it is published and journalled.

use serde::{Deserialize, Serialize};

use super::Time;

/// Topic prefix under which predictions are published.
pub const PREDICTIONS_PREFIX: &str = "trackside/v1/predictions";

/// Who made a prediction, when, and from what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub session_key: i32,
    /// The feed's time at which it was made (never a wall clock).
    pub made_at: Time,
    /// Sequence of the journal record that brought it about.
    pub seq: u64,
    /// Model and version, such as `floor-1`.
    pub model: String,
    /// What computed it: `cpu`, `cuda`, `tensorrt`.
    pub backend: String,
    /// Age of the oldest input that it rests on (s).
    pub stale_s: f64,
}

/// Quantiles of an uncertain quantity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub p10: f64,
    pub p50: f64,
    pub p90: f64,
}

/// The next lap of a car (s).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LapTimePrediction {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub driver_number: u8,
    /// The lap that is predicted.
    pub lap_number: u16,
    /// Sectors of that lap already known (0, 1 or 2).
    pub sectors_known: u8,
    #[serde(flatten)]
    pub lap_time: Quantiles,
}

/// Where one car may finish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishPrediction {
    pub driver_number: u8,
    /// Mean of the finishing position.
    pub expected_position: f64,
    pub p_win: f64,
    pub p_podium: f64,
    /// Top ten.
    pub p_points: f64,
    pub p_retirement: f64,
    /// Probability of each position, first to last; a retired car counts as last.
    pub positions: Vec<f32>,
}

/// The finishing order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderPrediction {
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Laps that the leader has completed.
    pub lap_number: u16,
    /// Best expected position first.
    pub cars: Vec<FinishPrediction>,
}

/// A compound and how likely it is to be fitted next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompoundChance {
    pub compound: String,
    pub probability: f64,
}

/// When a car will stop next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PitPrediction {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub driver_number: u8,
    /// Laps that the car has completed.
    pub lap_number: u16,
    /// Probability that the in-lap is one of the next 1, 2, 3 and 5 laps.
    pub p_within_1: f64,
    pub p_within_2: f64,
    pub p_within_3: f64,
    pub p_within_5: f64,
    /// Probability that it stops at all.
    pub p_stop: f64,
    /// In-lap of the next stop, if it stops.
    pub in_lap: Option<Quantiles>,
    pub compounds: Vec<CompoundChance>,
    /// Why, in words and numbers.
    pub reason: String,
}

/// A prediction of one of the three questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "prediction", rename_all = "snake_case")]
pub enum Prediction {
    LapTime(LapTimePrediction),
    Race(OrderPrediction),
    Pit(PitPrediction),
}

impl Prediction {
    /// `laptime`, `race` or `pit`, as in the topic.
    pub const fn name(&self) -> &'static str {
        match self {
            Prediction::LapTime(_) => "laptime",
            Prediction::Race(_) => "race",
            Prediction::Pit(_) => "pit",
        }
    }

    /// `trackside/v1/predictions/{laptime,pit}/<driver>` or `…/race`.
    pub fn topic(&self) -> String {
        match self.driver_number() {
            Some(driver) => format!("{PREDICTIONS_PREFIX}/{}/{driver}", self.name()),
            None => format!("{PREDICTIONS_PREFIX}/{}", self.name()),
        }
    }

    /// Who made it, when, and from what.
    pub const fn provenance(&self) -> &Provenance {
        match self {
            Prediction::LapTime(p) => &p.provenance,
            Prediction::Race(p) => &p.provenance,
            Prediction::Pit(p) => &p.provenance,
        }
    }

    pub const fn session_key(&self) -> i32 {
        self.provenance().session_key
    }

    pub const fn made_at(&self) -> Time {
        self.provenance().made_at
    }

    /// Sequence of the record that brought it about.
    pub const fn seq(&self) -> u64 {
        self.provenance().seq
    }

    /// The car it is about; `None` for the finishing order.
    pub const fn driver_number(&self) -> Option<u8> {
        match self {
            Prediction::LapTime(p) => Some(p.driver_number),
            Prediction::Race(_) => None,
            Prediction::Pit(p) => Some(p.driver_number),
        }
    }
}
