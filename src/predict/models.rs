//! The trained models that stand above the floor, and what they remember of each car.
//!
//! `laptime` is a recurrent network that is fed one lap at a time: its state goes in and what the lap adds to it
//! comes out, so that a lap costs one step, however long the race. What it remembers of a car ([`super::memory`]) is
//! kept as it was before the last completed lap, and what that lap adds beside it, because the sectors of the lap in
//! progress are judged from the former with the last lap's row fed again. Rows are kept as well, and fed when the
//! model is first asked about what follows them: so one that is swapped in while a race runs sees the race from its
//! beginning, and a restart, which reads back what was said before it, costs a car its laps once, when it is next
//! predicted, and no sector twice.
//!
//! **Invariant:** a model only ever replaces the floor's quantiles of a flying lap; where it has no answer the
//! floor's stand. A model that fails is left out until the next session, and that is counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::crossing;
use super::features;
use super::features::laptime::{Line, SECTOR, Sector};
use super::floor::Triple;
use super::memory::Memory;
use super::outcome::{OUTCOME, OutcomeModel};
use super::shift::Shift;
use super::stops::{FORECAST, StopModel};
use super::view::{CarView, View};
use crate::inference::tensorrt::Together;
use crate::inference::{self, Engine, EngineError, Tensor};
use crate::record::prediction::Quantiles;
use crate::strategy::opinion::{PIT, Policy};

/// Name of the lap time model in the manifest.
pub const LAPTIME: &str = "laptime";
/// Share of clean laps that may fall below P10, and above P90.
const TAIL: f64 = 0.1;
/// How much one lap moves the width of the intervals, and how far they may move in all.
const PATIENCE: f64 = 0.02;
const WIDTHS: std::ops::RangeInclusive<f64> = 0.5..=2.0;
/// Rows kept of a car: [`crate::race::MAX_LAPS`].
const MAX_ROWS: usize = crate::race::MAX_LAPS;

/// The models that are in use.
#[derive(Clone, Default)]
pub struct Models {
    pub laptime: Option<Arc<LapTimeModel>>,
    /// Where cars will finish.
    pub outcome: Option<Arc<OutcomeModel>>,
    /// What cars will do about their next stop.
    pub stop: Option<Arc<StopModel>>,
    /// All of them on a GPU at once, beside each on its own.
    pub together: Option<Arc<Together>>,
    /// What a car should do about its stops: the strategist's second opinion. It is asked about one car at a time,
    /// seconds apart, and stays on the CPU.
    pub policy: Option<Policy>,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let laptime = self.laptime.as_ref().map(|m| m.engine.model().id());
        let outcome = self.outcome.as_ref().map(|m| m.engine().model().id());
        let stop = self.stop.as_ref().map(|m| m.engine().model().id());
        f.debug_struct("Models")
            .field("laptime", &laptime)
            .field("outcome", &outcome)
            .field("stop", &stop)
            .field("policy", &self.policy.as_ref().map(|m| m.model().id()))
            .finish()
    }
}

impl Models {
    /// No models: the floor alone.
    pub fn none() -> Models {
        Models::default()
    }

    /// Loads every model that `folder` has and this program knows.
    ///
    /// # Errors
    /// The first model that is there and cannot be used, by name.
    pub fn load(folder: &Path) -> Result<Models, EngineError> {
        let manifest = inference::Manifest::read(folder)?;
        let load = |name: &str| -> Result<Option<Arc<dyn Engine>>, EngineError> {
            if !manifest.models.iter().any(|m| m.name == name) {
                return Ok(None);
            }
            // Cars cross the line one after another: nobody has a batch of them to ask about.
            Ok(Some(inference::load_batches(folder, name, &[1])?.into()))
        };
        let (laptime, outcome, stop, policy) = std::thread::scope(|threads| {
            let outcome = threads.spawn(|| load(OUTCOME));
            let stop = threads.spawn(|| load(FORECAST));
            (load(LAPTIME), outcome.join(), stop.join(), load(PIT))
        });
        let joined = |loaded: std::thread::Result<_>| {
            loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let (outcome, stop) = (joined(outcome)?, joined(stop)?);
        Ok(Models {
            laptime: laptime?.map(LapTimeModel::new).transpose()?.map(Arc::new),
            outcome: outcome.map(OutcomeModel::new).transpose()?.map(Arc::new),
            stop: stop.map(StopModel::new).transpose()?.map(Arc::new),
            together: None,
            policy: policy?.map(Policy::new).transpose()?,
        })
    }

    /// The same models on other engines: `other` is given each one's and gives what is to take its place.
    ///
    /// # Errors
    /// What `other` said, or that its engine is not of the model's kind.
    pub fn on(
        &self,
        mut other: impl FnMut(&Arc<dyn Engine>) -> Result<Arc<dyn Engine>, EngineError>,
    ) -> Result<Models, EngineError> {
        let mut moved = Models {
            policy: self.policy.clone(),
            ..Models::none()
        };
        if let Some(model) = &self.laptime {
            moved.laptime = Some(Arc::new(LapTimeModel::new(other(&model.engine)?)?));
        }
        if let Some(model) = &self.outcome {
            moved.outcome = Some(Arc::new(OutcomeModel::new(other(model.shared())?)?));
        }
        if let Some(model) = &self.stop {
            moved.stop = Some(Arc::new(StopModel::new(other(model.shared())?)?));
        }
        Ok(moved)
    }

    /// Does something with all three engines, in the order of their numbers, and the choices of them that are asked
    /// together; `None` where one is missing.
    ///
    /// # Errors
    /// What `work` said.
    pub fn with_all<T>(
        &self,
        work: impl FnOnce(&[Arc<dyn Engine>], &[&[usize]]) -> Result<T, EngineError>,
    ) -> Result<Option<T>, EngineError> {
        let (Some(laptime), Some(stop), Some(outcome)) = (&self.laptime, &self.stop, &self.outcome)
        else {
            return Ok(None);
        };
        let mut engines = [&laptime.engine; 3];
        engines[crossing::STOP] = stop.shared();
        engines[crossing::OUTCOME] = outcome.shared();
        work(&engines.map(Arc::clone), &crossing::CHOICES).map(Some)
    }

    /// The engines of what predicts.
    pub fn engines(&self) -> impl Iterator<Item = &Arc<dyn Engine>> {
        let laptime = self.laptime.as_ref().map(|m| &m.engine);
        let outcome = self.outcome.as_ref().map(|m| m.shared());
        let stop = self.stop.as_ref().map(|m| m.shared());
        [laptime, outcome, stop].into_iter().flatten()
    }

    /// Whether both hold the same versions.
    pub fn same_as(&self, other: &Models) -> bool {
        let ids = |m: &Models| {
            let laptime = m.laptime.as_ref().map(|m| m.engine.model().sha256.clone());
            let outcome = m
                .outcome
                .as_ref()
                .map(|m| m.engine().model().sha256.clone());
            let stop = m.stop.as_ref().map(|m| m.engine().model().sha256.clone());
            let policy = m.policy.as_ref().map(|m| m.model().sha256.clone());
            [laptime, outcome, stop, policy]
        };
        ids(self) == ids(other)
    }
}

/// The lap time network.
pub struct LapTimeModel {
    engine: Arc<dyn Engine>,
    /// What P50 − P10 and P90 − P50 are multiplied with, by sectors known.
    widen: [[f64; 2]; 3],
}

impl LapTimeModel {
    /// Takes an engine that has the right tensors.
    ///
    /// # Errors
    /// [`EngineError::Shape`] if it was made for other features or other tensors, or lacks its calibration.
    pub fn new(engine: Arc<dyn Engine>) -> Result<LapTimeModel, EngineError> {
        let model = engine.model();
        model.made_for(features::laptime::VERSION)?;
        Memory::fits(model)?;
        let widen = match model.calibration("widen") {
            Some([a, b, c, d, e, f]) => [[*a, *b], [*c, *d], [*e, *f]],
            _ => {
                let why = "calibration.widen must be 6 numbers";
                return Err(model.misfit("quantiles", why));
            }
        };
        Ok(LapTimeModel { engine, widen })
    }

    /// The engine below.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// Quantiles by head.
    fn step(
        &self,
        memory: &mut Memory,
        line: &[f32],
        sectors: [Option<&[f32; SECTOR]>; 2],
    ) -> Result<[[f32; 3]; 3], EngineError> {
        let [first, second] = sectors.map(|s| s.unwrap_or(&[0.0; SECTOR]));
        let outputs = self.engine.run(memory.feed([line, first, second]))?;
        Ok(taken_apart(outputs).0)
    }

    /// Quantiles (s), widened as calibrated.
    fn answer(&self, base: f64, quantiles: [f32; 3], head: usize, width: &Widths) -> Triple {
        let [low, middle, high] = quantiles.map(f64::from);
        let [down, up] = [0, 1].map(|side| self.widen[head][side] * width.0[head][side]);
        [
            base + middle - (middle - low) * down,
            base + middle,
            base + middle + (high - middle) * up,
        ]
    }
}

/// Quantiles by head, and what the lap adds.
fn taken_apart(outputs: Vec<Tensor>) -> ([[f32; 3]; 3], Vec<Tensor>) {
    let mut outputs = outputs.into_iter();
    let answers = outputs.next().map(|t| t.values).unwrap_or_default();
    let quantiles = [0, 1, 2]
        .map(|head| [0, 1, 2].map(|q| answers.get(3 * head + q).copied().unwrap_or(f32::NAN)));
    (quantiles, outputs.collect())
}

/// Factors on P50 − P10 and P90 − P50 by sectors known, on top of the calibration: they follow the race. A clean
/// lap beyond a quantile moves it out by nine parts, one within it moves it in by one, so that in the long run one
/// in ten lies beyond, whatever the season is like.
#[derive(Clone, Debug, PartialEq)]
struct Widths([[f64; 2]; 3]);

impl Default for Widths {
    fn default() -> Self {
        Widths([[1.0; 2]; 3])
    }
}

impl Widths {
    fn learn(&mut self, head: usize, answer: Quantiles, truth: f64) {
        let beyond = [truth < answer.p10, truth > answer.p90];
        for (width, beyond) in self.0[head].iter_mut().zip(beyond) {
            let miss = if beyond { 1.0 } else { 0.0 };
            *width *= 1.0 + PATIENCE * (miss - TAIL);
            *width = width.clamp(*WIDTHS.start(), *WIDTHS.end());
        }
    }
}

/// One car's race as the model has seen it.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Lap, base and whether it may answer, and row of every completed lap.
    rows: Vec<(u16, Line)>,
    /// Rows that the model has been fed.
    fed: usize,
    /// Before the last row that it was fed, and what that row adds; none for a car that it has not seen.
    memory: Option<Memory>,
    added: Vec<Tensor>,
    /// Its answer for the lap after that row, before any sector.
    ahead: Option<[f32; 3]>,
    /// What was said by a model of the lap after the last row, by sectors known, and the shift in it (s).
    said: [Option<(Quantiles, f64)>; 3],
}

/// Runs the lap time model along with a race.
#[derive(Clone, Debug, Default)]
pub struct LapTimes {
    models: Models,
    cars: BTreeMap<u8, Seen>,
    widths: Widths,
    /// After sector 1 and after sector 2.
    shifts: [Shift; 2],
    /// Times that the model failed in this session; it is left out after the first.
    pub failures: u64,
    /// What it said then.
    pub failure: Option<String>,
}

impl LapTimes {
    /// With these models.
    pub fn new(models: Models) -> LapTimes {
        LapTimes {
            models,
            ..LapTimes::default()
        }
    }

    /// The models in use.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Name, version and backend of the model, where there is one that works.
    pub fn provenance(&self) -> Option<(String, &'static str)> {
        let model = self.working()?;
        Some((model.engine.model().id(), model.engine.backend()))
    }

    fn working(&self) -> Option<Arc<LapTimeModel>> {
        self.models.laptime.clone().filter(|_| self.failures == 0)
    }

    /// A car has completed a lap.
    pub fn lap_completed(&mut self, view: &View, car: &CarView, race_laps: u16) {
        // Also without a model: one that is swapped in later wants to see the race from its beginning.
        let Some(row) = features::laptime::line(view, car, race_laps) else {
            return;
        };
        let lap = car.laps_completed();
        let seen = self.cars.entry(car.number).or_default();
        if seen.rows.len() == MAX_ROWS || seen.rows.last().is_some_and(|(l, _)| *l >= lap) {
            return;
        }
        let clean = car.last().filter(|l| l.is_clean()).and_then(|l| l.time_s);
        for (head, answer) in std::mem::take(&mut seen.said).into_iter().enumerate() {
            let (Some((answer, shift)), Some(truth)) = (answer, clean) else {
                continue;
            };
            self.widths.learn(head, answer, truth);
            if let Some(own) = head.checked_sub(1).and_then(|at| self.shifts.get_mut(at)) {
                own.learn(truth - (answer.p50 - shift));
            }
        }
        seen.rows.push((lap, row));
    }

    fn fail(&mut self, error: &EngineError) {
        self.failures += 1;
        self.failure = Some(error.to_string());
    }

    /// A model's answer for the lap after the car's last, as it was published: now, or before a restart, when this
    /// was as it is now.
    pub fn said(&mut self, car: u8, sectors: usize, answer: Quantiles) {
        let shift = self.shift(sectors);
        let seen = self.cars.get_mut(&car);
        if let Some(said) = seen.and_then(|s| s.said.get_mut(sectors)) {
            *said = Some((answer, shift));
        }
    }

    /// What an answer with so many sectors known is moved by (s).
    fn shift(&self, sectors: usize) -> f64 {
        let own = sectors.checked_sub(1).and_then(|at| self.shifts.get(at));
        own.map_or(0.0, Shift::now)
    }

    /// P10, P50 and P90 of lap `lap` of the car once `sectors` of it are known (s); `None` where the model
    /// has nothing to say.
    pub fn predict(
        &mut self,
        view: &View,
        car: &CarView,
        lap: u16,
        sectors: usize,
    ) -> Option<Triple> {
        let model = self.working()?;
        let shift = self.shift(sectors);
        let seen = self.cars.get_mut(&car.number)?;
        let (last, row) = seen.rows.last()?;
        if *last + 1 != lap || !row.flying {
            return None;
        }
        let (line_base_s, line) = (row.base_s, row.x);
        if let Err(e) = seen.catch_up(&model) {
            self.fail(&e);
            return None;
        }
        if sectors == 0 {
            return Some(model.answer(line_base_s, seen.ahead?, 0, &self.widths));
        }
        let Sector { base_s, x } = features::laptime::sector(view, car, sectors)?;
        let mut given = [None, None];
        *given.get_mut(sectors - 1)? = Some(&x);
        match model.step(seen.memory.as_mut()?, &line, given) {
            Ok(quantiles) => {
                Some(model.answer(base_s + shift, quantiles[sectors], sectors, &self.widths))
            }
            Err(e) => {
                self.fail(&e);
                None
            }
        }
    }

    /// What the model is to be fed about a car that has just completed a lap and is about to drive a flying one; `None`
    /// where it has other laps to see first, or none at all, or there is no model.
    pub fn next(&mut self, car: u8) -> Option<&[Tensor]> {
        let model = self.working()?;
        let seen = self.cars.get_mut(&car)?;
        let flying = seen.rows.last().is_some_and(|(_, row)| row.flying);
        if !flying || seen.fed + 1 != seen.rows.len() {
            return None;
        }
        seen.next(&model)
    }

    /// The model's answer to [`LapTimes::next`], which must have been asked before.
    pub fn told(&mut self, car: u8, outputs: Vec<Tensor>) {
        if let Some(seen) = self.cars.get_mut(&car) {
            seen.told(outputs);
        }
    }

    /// Takes other models from here on. Another lap time model sees every car's laps so far, one after another, once it
    /// is asked about it; the width of its intervals begins as calibrated, and nothing is known of how far it is off.
    /// The same one on another engine goes on where it was: what was remembered and learnt holds for both.
    pub fn swap(&mut self, models: Models) {
        let of = |models: &Models| {
            models
                .laptime
                .as_ref()
                .map(|m| m.engine.model().sha256.clone())
        };
        let same = of(&self.models) == of(&models);
        self.models = models;
        self.failures = 0;
        self.failure = None;
        if same {
            return;
        }
        self.widths = Widths::default();
        self.shifts = Default::default();
        for seen in self.cars.values_mut() {
            (seen.fed, seen.memory, seen.added, seen.ahead) = Default::default();
        }
    }
}

impl Seen {
    /// Feeds the rows that the model has not seen.
    fn catch_up(&mut self, model: &LapTimeModel) -> Result<(), EngineError> {
        while let Some(inputs) = self.next(model) {
            let outputs = model.engine.run(inputs)?;
            self.told(outputs);
        }
        Ok(())
    }

    /// What the model is fed next: the first row that it has not seen, after what the one before added.
    fn next(&mut self, model: &LapTimeModel) -> Option<&[Tensor]> {
        let (_, row) = self.rows.get(self.fed)?;
        let memory = self
            .memory
            .get_or_insert_with(|| Memory::of(model.engine.model()));
        // Taken in once, even if the model is then asked twice.
        if let [hidden, cell, entry] = std::mem::take(&mut self.added).as_slice() {
            memory.keep([&hidden.values, &cell.values, &entry.values]);
        }
        Some(memory.feed([&row.x, &[0.0; SECTOR], &[0.0; SECTOR]]))
    }

    /// The model's answer to that.
    fn told(&mut self, outputs: Vec<Tensor>) {
        let (quantiles, added) = taken_apart(outputs);
        self.added = added;
        self.ahead = Some(quantiles[0]);
        self.fed += 1;
    }
}
