//! The trained forecast of the next stop: the hazard of each of the next laps, and the compound taken.
//!
//! It says what a car *will* do; what it *should* do is [`crate::strategy`]'s affair. The network stands in for the
//! floor's numbers wherever there is a row of features; words and the plain baseline stay the floor's.
//!
//! **Invariant:** no stop is foreseen on the last lap, whatever the network says; a model that fails is an error
//! that names it, and the floor's numbers stand.

use std::sync::Arc;

use super::distance::Distance;
use super::features::pit::{FEATURES, VERSION, row};
use super::floor::COMPOUNDS;
use super::pit::{RARE, Stop, name, share};
use super::view::{CarView, View};
use crate::inference::{Engine, EngineError, Tensor};
use crate::record::prediction::{CompoundChance, Quantiles};

/// Name of the model in the manifest.
pub const FORECAST: &str = "pit-forecast";
/// Laps whose hazard it tells.
pub const HORIZON: usize = 30;
/// What a number that is not known is fed as; the graph puts its own in.
pub const MISSING: f32 = -1000.0;

/// The network, and from which probability on its "within two laps" is a yes.
#[derive(Clone)]
pub struct StopModel {
    engine: Arc<dyn Engine>,
    pub yes: f64,
}

/// What it says of one car.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Probability that lap k + 1 from now is the in-lap, none before.
    pub hazard: [f64; HORIZON],
    /// Chance of each compound at that stop.
    pub compound: [f64; COMPOUNDS.len()],
}

impl StopModel {
    /// Takes an engine that has the right tensors.
    ///
    /// # Errors
    /// [`EngineError::Shape`] if it was made for other features or other tensors, or lacks its threshold.
    pub fn new(engine: Arc<dyn Engine>) -> Result<StopModel, EngineError> {
        let model = engine.model();
        model.made_for(VERSION)?;
        model.has(
            &[("features", &[1, FEATURES])],
            &[
                ("hazard", &[1, HORIZON]),
                ("compound", &[1, COMPOUNDS.len()]),
            ],
        )?;
        let yes = match model.calibration("yes") {
            Some([yes]) if (0.0..=1.0).contains(yes) => *yes,
            _ => {
                return Err(model.misfit("hazard", "calibration.yes must be one probability"));
            }
        };
        Ok(StopModel { engine, yes })
    }

    /// The engine below.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// The same, to be shared.
    pub fn shared(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// What it says about a row.
    ///
    /// # Errors
    /// If the engine fails, or answers with what is no probability.
    pub fn forecast(&self, features: &[f32; FEATURES]) -> Result<Forecast, EngineError> {
        let mut forecasts = self.forecasts(std::slice::from_ref(features))?;
        forecasts
            .pop()
            .ok_or_else(|| self.failed("there is no answer"))
    }

    /// What it says about each of these rows, many a call where the model is prepared for that.
    ///
    /// # Errors
    /// As [`StopModel::forecast`].
    pub fn forecasts(&self, rows: &[[f32; FEATURES]]) -> Result<Vec<Forecast>, EngineError> {
        let batches = &self.engine.model().batches;
        let mut forecasts = Vec::with_capacity(rows.len());
        let mut left = rows;
        while !left.is_empty() {
            // The largest batch that is full, else the smallest, filled up with zeros.
            let full = batches.iter().rfind(|b| **b <= left.len());
            let batch = *full.or(batches.first()).unwrap_or(&1);
            let (here, rest) = left.split_at(batch.min(left.len()));
            left = rest;
            let outputs = self.engine.run(&[fed(here, batch)])?;
            for at in 0..here.len() {
                forecasts.push(self.forecast_of(&outputs, at, batch)?);
            }
        }
        Ok(forecasts)
    }

    /// The answer for the row at `at` of a batch.
    ///
    /// # Errors
    /// If it is no probability.
    pub fn forecast_of(
        &self,
        outputs: &[Tensor],
        at: usize,
        batch: usize,
    ) -> Result<Forecast, EngineError> {
        let rows = outputs.iter().flat_map(|t| {
            let width = t.values.len() / batch;
            &t.values[at * width..(at + 1) * width]
        });
        let mut values = rows.map(|v| f64::from(*v));
        let mut next = || values.next().filter(|v| (-1e-3..=1.001).contains(v));
        let mut forecast = Forecast {
            hazard: [0.0; HORIZON],
            compound: [0.0; COMPOUNDS.len()],
        };
        for p in forecast.hazard.iter_mut().chain(&mut forecast.compound) {
            *p = next()
                .ok_or_else(|| self.failed("an answer is no probability"))?
                .clamp(0.0, 1.0);
        }
        Ok(forecast)
    }

    fn failed(&self, why: &str) -> EngineError {
        EngineError::Run {
            model: self.engine.model().id(),
            backend: self.engine.backend(),
            why: why.to_owned(),
        }
    }

    /// The floor's stop with the network's numbers in it; `None` where there is no row.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn refine(
        &self,
        view: &View,
        car: &CarView,
        distance: &Distance,
        floor: &Stop,
    ) -> Result<Option<Stop>, EngineError> {
        let Some(features) = row(view, car, distance) else {
            return Ok(None);
        };
        let forecast = self.forecast(&features)?;
        let left = distance.laps.saturating_sub(floor.lap);
        Ok(Some(forecast.refine(floor, left)))
    }
}

/// What the network is fed: rows, and zeros up to the batch.
pub fn fed(rows: &[[f32; FEATURES]], batch: usize) -> Tensor {
    let known = rows
        .iter()
        .flatten()
        .map(|v| if v.is_nan() { MISSING } else { *v });
    let mut values: Vec<f32> = known.collect();
    values.resize(batch * FEATURES, 0.0);
    Tensor::new("features", &[batch, FEATURES], values)
}

impl Forecast {
    /// Probability of an in-lap among the next 1, 2, … laps, the last lap of the race left out.
    pub fn by_lap(&self, left: u16) -> Vec<f64> {
        let laps = usize::from(left.saturating_sub(1)).min(HORIZON);
        let mut none = 1.0;
        let hazards = self.hazard[..laps].iter();
        hazards
            .map(|h| {
                none *= 1.0 - h;
                1.0 - none
            })
            .collect()
    }

    /// Index of the likeliest compound.
    pub fn likeliest(&self) -> usize {
        let ranked = self.compound.iter().enumerate();
        ranked.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |c| c.0)
    }

    /// The floor's stop with these numbers; `left`: laps to go.
    pub fn refine(&self, floor: &Stop, left: u16) -> Stop {
        let by_lap = self.by_lap(left);
        let p_stop = by_lap.last().copied().unwrap_or(0.0);
        let within = |k: usize| by_lap.get(k - 1).copied().unwrap_or(p_stop);
        let at = |q: f64| {
            let k = by_lap.iter().position(|p| *p >= q * p_stop);
            f64::from(floor.lap) + (k.unwrap_or(0) + 1) as f64
        };
        let mut compounds: Vec<CompoundChance> = COMPOUNDS
            .iter()
            .zip(self.compound)
            .map(|(c, p)| CompoundChance {
                compound: name(*c).to_owned(),
                probability: share(p),
            })
            .collect();
        compounds.sort_by(|a, b| {
            b.probability
                .total_cmp(&a.probability)
                .then(a.compound.cmp(&b.compound))
        });
        Stop {
            within: [1, 2, 3, 5].map(|k| share(within(k))),
            p_stop: share(p_stop),
            in_lap: (p_stop >= RARE).then(|| Quantiles {
                p10: at(0.1),
                p50: at(0.5),
                p90: at(0.9),
            }),
            compounds,
            ..floor.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor() -> Stop {
        Stop {
            lap: 20,
            within: [0.0; 4],
            p_stop: 0.0,
            in_lap: None,
            compounds: Vec::new(),
            reason: "words stay".to_owned(),
            planned_in_lap: 25,
            rests_on: None,
        }
    }

    #[test]
    fn hazards_chain_and_end_before_the_flag() {
        let mut hazard = [0.0; HORIZON];
        (hazard[0], hazard[1], hazard[4]) = (0.12, 0.5, 1.0);
        let forecast = Forecast {
            hazard,
            compound: [0.1, 0.2, 0.6, 0.05, 0.05],
        };
        let stop = forecast.refine(&floor(), 30);
        assert_eq!(stop.within, [0.12, 0.56, 0.56, 1.0]);
        assert_eq!(stop.p_stop, 1.0);
        let q = stop.in_lap.unwrap();
        assert_eq!((q.p10, q.p50, q.p90), (21.0, 22.0, 25.0));
        assert_eq!(stop.compounds[0].compound, "HARD");
        assert_eq!(
            (stop.reason.as_str(), stop.planned_in_lap),
            ("words stay", 25)
        );
        // Three laps to go: an in-lap may be one of two.
        assert_eq!(
            forecast.refine(&floor(), 3).within,
            [0.12, 0.56, 0.56, 0.56]
        );
        assert_eq!(forecast.refine(&floor(), 1).within, [0.0; 4]);
        assert_eq!(forecast.refine(&floor(), 1).in_lap, None);
        assert_eq!(forecast.likeliest(), 2);
    }

    #[test]
    fn rows_side_by_side_get_the_answers_that_each_gets_alone() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let engine = crate::inference::load(&folder, FORECAST).unwrap();
        let model = StopModel::new(engine.into()).unwrap();
        // One full batch and three rows; some numbers are not known.
        let rows: Vec<[f32; FEATURES]> = (0..23)
            .map(|row: usize| {
                std::array::from_fn(|column| match (3 * row + 7 * column) % 13 {
                    0 => f32::NAN,
                    n => n as f32 / 4.0,
                })
            })
            .collect();
        let together = model.forecasts(&rows).unwrap();
        assert_eq!(together.len(), rows.len());
        assert_ne!(together[0], together[1]);
        for (row, said) in rows.iter().zip(&together) {
            let alone = model.forecast(row).unwrap();
            let pairs = alone.hazard.iter().zip(&said.hazard);
            let pairs = pairs.chain(alone.compound.iter().zip(&said.compound));
            for (a, b) in pairs {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
        assert!(model.forecasts(&[]).unwrap().is_empty());
    }
}
