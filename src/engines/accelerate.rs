//! The models, given to a GPU while the CPU's serve.
//!
//! Plans are read or built, compared with the CPU's answers and handed over like a new version: through the same
//! [`Slot`](super::Slot), between two records. A model that the GPU does not take stays with the CPU and is named in
//! the log; it is tried [`MOST_ATTEMPTS`] times. One whose GPU fails later is given to it again. Between two attempts
//! lies a rest, which grows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::inference::Engine;
use crate::inference::tensorrt::{BACKEND, Cache, Gpu, Precision, TensorRt};
use crate::predict::Models;

/// How long the GPU is left alone after it failed, and at most.
const FIRST_REST: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_secs(600);
/// Times that a model is offered to a GPU that does not take it.
const MOST_ATTEMPTS: u32 = 3;

/// Gives models to the GPU.
pub struct Accelerator {
    cache: Cache,
    precision: Precision,
    stop: CancellationToken,
    state: State,
    /// Times that a model was not taken, by its digest.
    refused: BTreeMap<String, u32>,
}

enum State {
    /// Nobody has looked for TensorRT yet.
    Fresh,
    /// There is none: said once.
    Absent,
    Ready {
        gpu: Gpu,
        rest: Duration,
        /// Not before; `None` while nothing has failed.
        again: Option<Instant>,
    },
}

impl Accelerator {
    /// With plans in that folder. It goes no further than the plan at hand once `stop` is cancelled.
    pub fn new(cache: PathBuf, precision: Precision, stop: CancellationToken) -> Accelerator {
        Accelerator {
            cache: Cache::new(&cache),
            precision,
            stop,
            state: State::Fresh,
            refused: BTreeMap::new(),
        }
    }

    /// The models, those on the GPU that it takes; `None` if there is nothing to be done or to be had. `on_cpu` came
    /// from `folder`; `current` is what is in use.
    pub fn look(&mut self, folder: &Path, on_cpu: &Models, current: &Models) -> Option<Models> {
        if let State::Fresh = self.state {
            self.state = match Gpu::open() {
                Ok(gpu) => {
                    tracing::info!(machine = %gpu.machine(), "TensorRT is here: the models are given to the GPU");
                    State::Ready {
                        gpu,
                        rest: FIRST_REST,
                        again: None,
                    }
                }
                Err(e) => {
                    tracing::info!(why = %e, remedy = e.remedy(), "no TensorRT: the CPU serves");
                    State::Absent
                }
            };
        }
        let State::Ready { gpu, rest, again } = &mut self.state else {
            return None;
        };
        let refused = &mut self.refused;
        let given_up = |refused: &BTreeMap<String, u32>, e: &Arc<dyn Engine>| {
            let times = refused.get(&e.model().sha256);
            times.is_some_and(|times| *times >= MOST_ATTEMPTS)
        };
        let is_done = |e: &Arc<dyn Engine>| e.backend() == BACKEND || given_up(refused, e);
        let now = Instant::now();
        if current.engines().all(is_done)
            || again.is_some_and(|at| at > now)
            || self.stop.is_cancelled()
        {
            return None;
        }
        let stop = &self.stop;
        let mut taken = 0;
        let models = on_cpu.on(|cpu| {
            if stop.is_cancelled() || given_up(refused, cpu) {
                return Ok(Arc::clone(cpu));
            }
            match TensorRt::load(gpu, Arc::clone(cpu), folder, &self.cache, self.precision) {
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
        *again = Some(now + *rest);
        *rest = (*rest * 2).min(LONGEST_REST);
        models.ok().filter(|_| taken > 0)
    }

    /// There are other models: they are not kept waiting for the rest of those before.
    pub fn others(&mut self) {
        self.refused.clear();
        if let State::Ready { rest, again, .. } = &mut self.state {
            (*rest, *again) = (FIRST_REST, None);
        }
    }
}
