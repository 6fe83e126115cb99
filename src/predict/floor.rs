//! The fitted parameters of the floor, as `floor.toml` holds them.
//!
//! They were fitted on seasons up to 2023 by `engines/training/floor/fit.py` and are embedded in the
//! program; [`Floor::parse`] reads another set and refuses one of the wrong shape.
//!
//! **Invariant:** a [`Floor`] that exists has tables of the right sizes, finite numbers, ascending
//! edges and knots: nothing that reads it needs to check again.

use serde::Deserialize;

use crate::race::Compound;

/// Compounds that have a row in the tables, in their order there.
pub const COMPOUNDS: [Compound; 5] = [
    Compound::Soft,
    Compound::Medium,
    Compound::Hard,
    Compound::Intermediate,
    Compound::Wet,
];

/// Place of a compound in [`COMPOUNDS`].
pub fn compound_index(compound: Compound) -> Option<usize> {
    COMPOUNDS.iter().position(|c| *c == compound)
}

/// P10, P50 and P90.
pub type Triple = [f64; 3];

/// Columns of the lap time regression.
pub const PACE_FEATURES: usize = 35;
/// Columns of the regression once sectors are known.
pub const CARRIED_FEATURES: usize = 8;
/// Features of the finishing order.
pub const ORDER_FEATURES: usize = 8;

/// All parameters.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    pub pace: Pace,
    pub order: Order,
    pub pit: Pit,
    pub elsewhere: Elsewhere,
    pub circuits: Vec<Circuit>,
}

/// The next lap.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Weights of the flying lap, less the last clean lap (s per column).
    pub flying: Vec<f64>,
    /// Residuals over the last clean lap: dry then wet, each by history and scatter.
    pub residual: [Triple; 10],
    pub after_1: [f64; CARRIED_FEATURES],
    pub residual_1: [Triple; 10],
    pub after_2: [f64; CARRIED_FEATURES],
    pub residual_2: [Triple; 10],
    /// Ratios of what is left of the lap to the same part of the reference lap, by sectors known.
    pub out: [Triple; 3],
    pub out_slow: [Triple; 3],
    pub fresh: [Triple; 3],
    pub safety_car_first: [Triple; 3],
    pub safety_car: [Triple; 3],
    pub r#virtual: [Triple; 3],
    pub restart: [Triple; 3],
    pub crossover: [Triple; 3],
    /// Laps 1 and 2 over the field's median qualifying time.
    pub lap_1: Triple,
    pub lap_2: Triple,
}

/// The finishing order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Shares of the distance at which the weights are given.
    pub knots: Vec<f64>,
    /// Per feature, one weight per knot.
    pub weights: [Vec<f64>; ORDER_FEATURES],
    /// Probability of retiring on lap 1, and on each lap after it.
    pub retire_lap_1: f64,
    pub retire_per_lap: f64,
    /// Scale of one car's strength (two cars' difference has scale 1).
    pub spread: f64,
}

/// The next stop: odds = base × one factor of each group.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pit {
    pub base: f64,
    pub age: Vec<f64>,
    pub compound: [f64; 5],
    pub left: Vec<f64>,
    pub left_rule: Vec<f64>,
    pub status: [f64; 6],
    pub rival: [f64; 3],
    pub slower: Vec<f64>,
    pub cross: Vec<f64>,
    pub stops: [f64; 4],
    pub age_edges: Vec<f64>,
    pub left_edges: Vec<f64>,
    pub slower_edges: Vec<f64>,
    pub cross_edges: Vec<f64>,
    /// From this probability on, "within two laps" counts as a yes: the best F1 on 2022–2023.
    pub yes: f64,
    /// Probability of the compound taken, by two-compound rule open, then laps left (< .35, < .6, more of
    /// the race), then the compound that it was on.
    pub next: [[[[f64; 5]; 5]; 3]; 2],
}

/// What is taken where a circuit is not known.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Time lost on the in-lap and on the out-lap of a stop under green (s).
    pub in_loss_s: f64,
    pub out_loss_s: f64,
    /// Typical stint (share of the race), by compound.
    pub life: [f64; 5],
    /// Its spread (share of the race), by compound.
    pub life_spread: [f64; 5],
}

/// One circuit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circuit {
    /// As OpenF1's `circuit_short_name` writes it.
    pub name: String,
    /// Laps of a Grand Prix, as last scheduled.
    pub laps: u16,
    pub length_km: f64,
    pub in_loss_s: f64,
    pub out_loss_s: f64,
    pub life: [f64; 5],
}

/// The parameters are not usable.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    #[error("floor parameters do not parse: {0}; write them with engines/training/floor/fit.py")]
    Toml(#[from] toml::de::Error),
    #[error("floor parameter {name} {problem}; write them with engines/training/floor/fit.py")]
    Wrong {
        name: &'static str,
        problem: &'static str,
    },
}

impl Floor {
    /// The parameters that the program was built with.
    pub fn shipped() -> Floor {
        // Embedded at build time and parsed by a test: not from outside the process.
        Floor::parse(include_str!("floor.toml")).expect("floor.toml is checked by a test")
    }

    /// Reads parameters. Errors name the key that is wrong.
    pub fn parse(text: &str) -> Result<Floor, FloorError> {
        let floor: Floor = toml::from_str(text)?;
        floor.check()?;
        Ok(floor)
    }

    /// The circuit of that name (letter case aside).
    pub fn circuit(&self, name: &str) -> Option<&Circuit> {
        self.circuits
            .iter()
            .find(|c| c.name.eq_ignore_ascii_case(name))
    }

    fn check(&self) -> Result<(), FloorError> {
        let wrong = |name, problem| Err(FloorError::Wrong { name, problem });
        let (order, pit) = (&self.order, &self.pit);
        if order.knots.len() < 2 || !ascending(&order.knots) {
            return wrong("order.knots", "must be two or more, ascending");
        }
        if order
            .weights
            .iter()
            .any(|w| w.len() != order.knots.len() || !finite(w))
        {
            return wrong("order.weights", "must be finite, one for each knot");
        }
        if !probability(order.retire_lap_1) || !probability(order.retire_per_lap) {
            return wrong("order.retire_*", "must lie between 0 and 1");
        }
        if !(order.spread.is_finite() && order.spread > 0.0) {
            return wrong("order.spread", "must be above 0");
        }
        let groups: [(&'static str, &[f64], &[f64]); 5] = [
            ("pit.age", &pit.age, &pit.age_edges),
            ("pit.left", &pit.left, &pit.left_edges),
            ("pit.left_rule", &pit.left_rule, &pit.left_edges),
            ("pit.slower", &pit.slower, &pit.slower_edges),
            ("pit.cross", &pit.cross, &pit.cross_edges),
        ];
        for (name, factors, edges) in groups {
            if factors.len() != edges.len() + 1 || !ascending(edges) || !odds(factors) {
                return wrong(
                    name,
                    "must hold one odds factor more than it has ascending edges",
                );
            }
        }
        let short: [&[f64]; 5] = [
            &[pit.base],
            &pit.compound,
            &pit.status,
            &pit.rival,
            &pit.stops,
        ];
        if !short.iter().all(|f| odds(f)) {
            return wrong("pit", "has an odds factor that is not above 0");
        }
        if !probability(pit.yes) {
            return wrong("pit.yes", "must lie between 0 and 1");
        }
        let rows = pit.next.iter().flatten().flatten();
        if !rows.clone().all(|r| {
            r.iter().all(|p| probability(*p)) && (r.iter().sum::<f64>() - 1.0).abs() < 1e-3
        }) {
            return wrong("pit.next", "has a row that does not sum to 1");
        }
        let pace = &self.pace;
        let residuals = [pace.residual, pace.residual_1, pace.residual_2];
        let kinds = [
            pace.out,
            pace.out_slow,
            pace.fresh,
            pace.safety_car_first,
            pace.safety_car,
            pace.r#virtual,
            pace.restart,
            pace.crossover,
        ];
        let opening = [pace.lap_1, pace.lap_2];
        let mut triples = residuals
            .iter()
            .flatten()
            .chain(kinds.iter().flatten())
            .chain(&opening);
        if !triples.all(|t| finite(t) && t[0] <= t[1] && t[1] <= t[2]) {
            return wrong("pace", "has quantiles that do not ascend");
        }
        if pace.flying.len() != PACE_FEATURES {
            return wrong(
                "pace.flying",
                "must have one weight for each of the 35 columns",
            );
        }
        if !(finite(&pace.flying) && finite(&pace.after_1) && finite(&pace.after_2)) {
            return wrong("pace", "has a weight that is not finite");
        }
        let lives = self
            .circuits
            .iter()
            .map(|c| &c.life)
            .chain([&self.elsewhere.life]);
        if !lives.flatten().all(|l| *l > 0.0 && *l <= 1.0) {
            return wrong("life", "must lie above 0 and not above 1");
        }
        if self
            .circuits
            .iter()
            .any(|c| c.laps == 0 || c.length_km.is_nan() || c.length_km < 0.5)
        {
            return wrong("circuits", "has a circuit without laps or length");
        }
        Ok(())
    }
}

fn finite(x: &[f64]) -> bool {
    x.iter().all(|v| v.is_finite())
}

fn ascending(x: &[f64]) -> bool {
    finite(x) && x.is_sorted_by(|a, b| a < b)
}

fn odds(x: &[f64]) -> bool {
    x.iter().all(|v| v.is_finite() && *v > 0.0)
}

fn probability(p: f64) -> bool {
    (0.0..=1.0).contains(&p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_parameters_are_sound_and_know_the_circuits() {
        let floor = Floor::shipped();
        assert_eq!(floor.circuit("sakhir").map(|c| c.laps), Some(57));
        assert_eq!(floor.circuit("Monte Carlo").map(|c| c.laps), Some(78));
        assert!(floor.circuit("Madrid").is_none());
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        let text = include_str!("floor.toml");
        let bad = text.replacen("spread = 0.", "spread = -0.", 1);
        let error = Floor::parse(&bad).unwrap_err().to_string();
        assert!(error.contains("order.spread"), "{error}");
        let bad = text.replacen("base = ", "bass = ", 1);
        assert!(Floor::parse(&bad).is_err());
    }
}
