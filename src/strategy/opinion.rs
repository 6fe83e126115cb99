//! A second opinion: what the pit network would do, beside what Monte Carlo advises.
//!
//! The network values each action in seconds (time against the field, places and all that follows); the planner
//! counts places over simulated races. Where they disagree it is said so, with both figures: that is where a
//! strategist looks twice.

use std::sync::Arc;

use serde::Serialize;

use super::environment::{SCALE_S, at_start};
use super::model::{ModelError, Start};
use super::parameters::Parameters;
use super::planner::Advice;
use super::policy::{ACTION_NAMES, ACTIONS, STATE, legal, state};
use super::simulation::Simulation;
use crate::inference::{Engine, EngineError, Model, Tensor};

/// Name of the network in the manifest.
pub const PIT: &str = "pit";
/// Version of the state's definition.
pub const VERSION: u32 = 1;

/// The pit network.
#[derive(Clone)]
pub struct Policy {
    engine: Arc<dyn Engine>,
}

/// Why there is no opinion.
#[derive(Debug, thiserror::Error)]
pub enum OpinionError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What the network would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Opinion {
    /// Name and version of the network.
    pub model: String,
    pub recommended: &'static str,
    pub boxes: bool,
    /// How much better that is than the best of the other kind (s), and which that is.
    pub gain_s: Option<f64>,
    pub against: Option<&'static str>,
    /// What each action that may be taken is worth (s, against what the field makes of its race), best first.
    pub values_s: Vec<(&'static str, f64)>,
    /// Whether Monte Carlo advises the same kind of thing: boxing now, or not.
    pub agrees: Option<bool>,
    /// In words and numbers.
    pub reason: String,
}

impl Policy {
    /// Takes an engine that has the right tensors.
    ///
    /// # Errors
    /// [`EngineError::Shape`] if it was made for another state or other actions.
    pub fn new(engine: Arc<dyn Engine>) -> Result<Policy, EngineError> {
        let model = engine.model();
        model.made_for(VERSION)?;
        model.has(&[("state", &[1, STATE])], &[("values", &[1, ACTIONS])])?;
        Ok(Policy { engine })
    }

    /// What it is and where it comes from.
    pub fn model(&self) -> &Model {
        self.engine.model()
    }

    /// Values of the actions in a state (over [`SCALE_S`]).
    ///
    /// # Errors
    /// If the engine fails.
    pub fn values(&self, state: &[f32; STATE]) -> Result<[f32; ACTIONS], EngineError> {
        let input = Tensor::new("state", &[1, STATE], state.to_vec());
        let outputs = self.engine.run(&[input])?;
        let found = outputs.first().map_or(&[][..], |t| &t.values[..]);
        let mut values = [f32::NEG_INFINITY; ACTIONS];
        for (value, found) in values.iter_mut().zip(found) {
            *value = *found;
        }
        Ok(values)
    }

    /// What it would do for the car at `index` of the start; beside Monte Carlo's advice, where that is given.
    ///
    /// # Errors
    /// If the race cannot be simulated or the engine fails.
    pub fn opinion(
        &self,
        start: &Start,
        parameters: &Parameters,
        index: usize,
        advice: Option<&Advice>,
    ) -> Result<Opinion, OpinionError> {
        let problem = start.problem(parameters)?;
        let simulation = Simulation::new(&problem, 0, 0).map_err(ModelError::from)?;
        let race = at_start(&problem);
        let may = legal(&simulation, index, &race);
        let values = self.values(&state(&simulation, index, &race))?;
        let mut ranked: Vec<(usize, f64)> = (0..ACTIONS)
            .filter(|a| may >> a & 1 != 0)
            .map(|a| (a, f64::from(values[a]) * f64::from(SCALE_S)))
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(self.said(&ranked, advice))
    }

    fn said(&self, ranked: &[(usize, f64)], advice: Option<&Advice>) -> Opinion {
        let boxes = |action: usize| (1..=5).contains(&action);
        // There is always one.
        let (best, value) = ranked.first().copied().unwrap_or((0, 0.0));
        let other = ranked.iter().find(|(a, _)| boxes(*a) != boxes(best));
        let gain_s = other.map(|o| value - o.1);
        let by_planner = advice.map(|a| a.recommended.starts_with("box now"));
        let agrees = by_planner.map(|b| b == boxes(best));
        let mut reason = ACTION_NAMES[best].to_owned();
        if let Some((o, v)) = other {
            reason += &format!(
                ": {:.1} s better than {} in the network's eyes ({value:+.1} s against {v:+.1} s)",
                value - v,
                ACTION_NAMES[*o],
            );
        }
        if other.is_none() && boxes(best) {
            reason += ": the rules of the race leave nothing else";
        }
        match (agrees, advice) {
            (Some(true), _) => reason += "; Monte Carlo agrees",
            (Some(false), Some(advice)) => {
                reason += &format!("; Monte Carlo disagrees: {}", advice.recommended);
            }
            _ => {}
        }
        Opinion {
            model: self.model().id(),
            recommended: ACTION_NAMES[best],
            boxes: boxes(best),
            gain_s,
            against: other.map(|o| ACTION_NAMES[o.0]),
            values_s: ranked.iter().map(|(a, v)| (ACTION_NAMES[*a], *v)).collect(),
            agrees,
            reason,
        }
    }
}
