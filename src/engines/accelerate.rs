//! The models, given to a GPU while the CPU's serve.
//!
//! Plans are read, or built in a process of their own, compared with the CPU's answers and handed over like a new
//! version: through the same [`Slot`](super::Slot), between two records. A model that the GPU does not take stays with
//! the CPU and is named in the log; it is tried [`MOST_ATTEMPTS`] times, and those that the GPU has are left alone
//! meanwhile. One whose GPU fails later is given to it again. Between two attempts lies a rest, which grows, and is short
//! again once the GPU has held for long. A driver or a GPU that is not there yet is looked for again, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::inference::Engine;
use crate::inference::tensorrt::{
    Apart, BACKEND, Cache, Gpu, Precision, TensorRt, Together, Unavailable,
};
use crate::predict::Models;

/// How long the GPU is left alone after it failed, and at most.
const FIRST_REST: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_secs(600);
/// Times that a model is offered to a GPU that does not take it.
const MOST_ATTEMPTS: u32 = 3;
/// This program, also where another version has taken its place on the disk.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Gives models to the GPU.
pub struct Accelerator {
    cache: Cache,
    precision: Precision,
    stop: CancellationToken,
    /// What builds plans.
    program: PathBuf,
    state: State,
    rest: Rest,
    /// Times that a model was not taken, by its digest.
    refused: BTreeMap<String, u32>,
}

enum State {
    /// Nobody has found TensorRT and a GPU yet; why, where it was said.
    Without(Option<Unavailable>),
    Ready(Gpu),
}

/// How long the GPU is left alone.
#[derive(Debug)]
struct Rest {
    next: Duration,
    /// Not before; `None` while nothing was tried.
    until: Option<Instant>,
}

impl Default for Rest {
    fn default() -> Self {
        Rest {
            next: FIRST_REST,
            until: None,
        }
    }
}

impl Rest {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Something is tried now: nothing more for a while.
    fn begin(&mut self, now: Instant) {
        let held = |until| now.saturating_duration_since(until) >= LONGEST_REST;
        if self.until.is_some_and(held) {
            *self = Rest::default();
        }
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(LONGEST_REST);
    }
}

impl Accelerator {
    /// With plans in that folder. It ends a build that is under way once `stop` is cancelled, and begins no other.
    pub fn new(cache: PathBuf, precision: Precision, stop: CancellationToken) -> Accelerator {
        Accelerator {
            cache: Cache::new(&cache),
            precision,
            stop,
            program: PathBuf::from(THIS_PROGRAM),
            state: State::Without(None),
            rest: Rest::default(),
            refused: BTreeMap::new(),
        }
    }

    /// The same, with plans built by that program.
    #[cfg(test)]
    pub(crate) fn building_with(self, program: PathBuf) -> Accelerator {
        Accelerator { program, ..self }
    }

    /// As if the rest were over.
    #[cfg(test)]
    pub(crate) fn rested(&mut self) {
        self.rest = Rest::default();
    }

    /// The models, those on the GPU that it takes; `None` if there is nothing to be done or to be had. `on_cpu` came
    /// from `folder`; `current` is what is in use.
    pub fn look(&mut self, folder: &Path, on_cpu: &Models, current: &Models) -> Option<Models> {
        let now = Instant::now();
        if self.stop.is_cancelled() || !self.rest.is_over(now) {
            return None;
        }
        if let State::Without(said) = &self.state {
            if let Some(Unavailable::Library(_)) = said {
                // Nobody installs it under a daemon that runs.
                return None;
            }
            self.state = found(said.as_ref());
            if let State::Without(why) = &self.state {
                // A GPU may come late.
                if let Some(Unavailable::Gpu(_)) = why {
                    self.rest.begin(now);
                }
                return None;
            }
        }
        let State::Ready(gpu) = &self.state else {
            return None;
        };
        let refused = &mut self.refused;
        let given_up = |refused: &BTreeMap<String, u32>, e: &Arc<dyn Engine>| {
            let times = refused.get(&e.model().sha256);
            times.is_some_and(|times| *times >= MOST_ATTEMPTS)
        };
        let is_done = |e: &Arc<dyn Engine>| e.backend() == BACKEND || given_up(refused, e);
        if current.engines().all(is_done) {
            return None;
        }
        let gpu = gpu
            .clone()
            .building(Apart::new(&self.program, folder, self.stop.clone()));
        let mut taken = 0;
        let models = on_cpu.on(|cpu| {
            let mut there = current.engines().filter(|e| e.backend() == BACKEND);
            if let Some(there) = there.find(|e| e.model().sha256 == cpu.model().sha256) {
                return Ok(Arc::clone(there));
            }
            if self.stop.is_cancelled() || given_up(refused, cpu) {
                return Ok(Arc::clone(cpu));
            }
            match TensorRt::load(&gpu, Arc::clone(cpu), folder, &self.cache, self.precision) {
                Ok(engine) => {
                    taken += 1;
                    Ok(Arc::new(engine) as Arc<dyn Engine>)
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a model stays with the CPU");
                    *refused.entry(cpu.model().sha256.clone()).or_default() += 1;
                    Ok(Arc::clone(cpu))
                }
            }
        });
        // Whatever is not on the GPU now, or fails there, is tried again then.
        self.rest.begin(Instant::now());
        let mut models = models.ok().filter(|_| taken > 0)?;
        models.together = self.together(&gpu, folder, on_cpu, &models);
        Some(models)
    }

    /// What answers for all of them at once, where the GPU has taken each; if it does not take them together, each
    /// answers for itself.
    fn together(
        &self,
        gpu: &Gpu,
        folder: &Path,
        on_cpu: &Models,
        models: &Models,
    ) -> Option<Arc<Together>> {
        if !models.engines().all(|e| e.backend() == BACKEND) || self.stop.is_cancelled() {
            return None;
        }
        let with = (&self.cache, self.precision);
        let together = on_cpu
            .with_all(|cpus, choices| Together::load(gpu, cpus, choices, folder, with))
            .inspect_err(|e| tracing::warn!(error = %e, "models on the GPU answer one by one"));
        together.ok().flatten().map(Arc::new)
    }

    /// There are other models: they are not kept waiting for the rest of those before.
    pub fn others(&mut self) {
        self.refused.clear();
        self.rest = Rest::default();
    }
}

/// TensorRT and a GPU; what is missing is said, unless it was.
fn found(said: Option<&Unavailable>) -> State {
    match Gpu::open() {
        Ok(gpu) => {
            tracing::info!(machine = %gpu.machine(), "TensorRT is here: the models are given to the GPU");
            State::Ready(gpu)
        }
        Err(e) => {
            if said != Some(&e) {
                tracing::info!(why = %e, remedy = e.remedy(), "no TensorRT: the CPU serves");
            }
            State::Without(Some(e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_are_forgotten_once_the_gpu_has_held() {
        let mut rest = Rest::default();
        let mut now = Instant::now();
        assert!(rest.is_over(now));
        let mut lengths = Vec::new();
        for _ in 0..9 {
            rest.begin(now);
            let until = rest.until.unwrap();
            assert!(!rest.is_over(now) && rest.is_over(until));
            lengths.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        // It fails within ten minutes again; then not for long.
        now += LONGEST_REST / 2;
        rest.begin(now);
        assert_eq!(rest.until.unwrap() - now, LONGEST_REST);
        now = rest.until.unwrap() + LONGEST_REST;
        rest.begin(now);
        assert_eq!(rest.until.unwrap() - now, FIRST_REST);
    }
}
