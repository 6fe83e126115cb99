//! Stints: what a driver's laps say of his tyres, by regression that a slow lap cannot bend.
//!
//! ```text
//! t(n) = base + (field's wear + own)·age + fuel·n + ε
//! ```
//!
//! Each stint by itself, all stints of all races as one task of [`StintFit`]. The field's wear is the prior of a
//! stint's, as if [`WEAR_PRIOR`] laps² of age spread had told it; fuel is taken from the field. A driver's figures
//! are the means of his stints', weighted by what each tells.

use std::collections::BTreeMap;

use super::driver::{CleanLap, Entry, Model};
use crate::compute::stint_fit::{FIT, TUNING};
use crate::compute::{Backend, ShapeError, StintFit};

/// Fewest clean laps of a stint that tells about its tyres.
pub const FEW_STINT: usize = 5;
/// Pull of the field's wear on one driver's (laps² of age spread, as if seen).
const WEAR_PRIOR: f64 = 300.0;
/// Likewise on the change with each lap driven, which a driver can do nothing about.
const FUEL_PRIOR: f32 = 1e6;
/// Rounds of reweighting.
const ROUNDS: u32 = 6;

/// A driver's tyres.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tyres {
    /// Wear against the field's (s per lap of age).
    pub wear_s: Option<f64>,
    /// What his laps scatter by (s).
    pub scatter_s: Option<f64>,
}

/// Stints of many drivers, laid out for the kernel.
pub(super) struct Stints {
    start: Vec<u32>,
    time_s: Vec<f32>,
    age: Vec<f32>,
    lap: Vec<f32>,
    prior: Vec<f32>,
    /// Of each stint: its field's wear, how much it tells of wear (laps²), and its laps.
    about: Vec<(f64, f64, f64)>,
    /// Stints of each driver.
    drivers: Vec<usize>,
}

impl Default for Stints {
    fn default() -> Stints {
        Stints {
            start: vec![0],
            time_s: Vec::new(),
            age: Vec::new(),
            lap: Vec::new(),
            prior: Vec::new(),
            about: Vec::new(),
            drivers: Vec::new(),
        }
    }
}

impl Stints {
    /// Adds a driver's race.
    pub fn add(&mut self, entry: &Entry, model: &Model) {
        let mut stints: BTreeMap<(u8, usize), Vec<&CleanLap>> = BTreeMap::new();
        for lap in &entry.laps {
            stints
                .entry((lap.stint, lap.compound))
                .or_default()
                .push(lap);
        }
        stints.retain(|_, laps| laps.len() >= FEW_STINT);
        self.drivers.push(stints.len());
        // Together they pull as much as was said.
        let pull = WEAR_PRIOR / stints.len().max(1) as f64;
        for ((_, compound), laps) in stints {
            let n = laps.len() as f64;
            let mean = laps.iter().map(|l| l.age).sum::<f64>() / n;
            let spread: f64 = laps.iter().map(|l| (l.age - mean) * (l.age - mean)).sum();
            for lap in laps {
                self.time_s.push(lap.time_s as f32);
                self.age.push(lap.age as f32);
                self.lap.push(f32::from(lap.number));
            }
            self.start.push(self.time_s.len() as u32);
            let wear = model.wear[compound];
            let prior = [wear as f32, pull as f32, model.fuel as f32, FUEL_PRIOR];
            self.prior.extend(prior);
            self.about.push((wear, spread + pull, n));
        }
    }

    /// The tyres of every driver, in the order in which they were added.
    ///
    /// # Errors
    /// [`ShapeError`] would be a defect of this file.
    pub fn fit(&self, backend: &dyn Backend) -> Result<Vec<Tyres>, ShapeError> {
        let mut fits = vec![0.0; self.about.len() * FIT];
        backend.run(&mut StintFit {
            stint_start: &self.start,
            time_s: &self.time_s,
            age: &self.age,
            fuel: &self.lap,
            prior: &self.prior,
            rounds: ROUNDS,
            tuning: TUNING,
            fit: &mut fits,
        })?;
        let mut told = fits.chunks_exact(FIT).zip(&self.about);
        Ok(self
            .drivers
            .iter()
            .map(|stints| {
                let (mut wear, mut scatter) = ((0.0, 0.0), (0.0, 0.0));
                for (fit, (field, tells, laps)) in told.by_ref().take(*stints) {
                    wear = (wear.0 + tells * (f64::from(fit[1]) - field), wear.1 + tells);
                    scatter = (scatter.0 + laps * f64::from(fit[3]), scatter.1 + laps);
                }
                let mean = |(sum, weight): (f64, f64)| (weight > 0.0).then(|| sum / weight);
                Tyres {
                    wear_s: mean(wear),
                    scatter_s: mean(scatter),
                }
            })
            .collect())
    }
}
