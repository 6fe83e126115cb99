//! A model on the GPU: a session a batch size, and the CPU engine behind them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::plan::{self, Builder, Made};
use super::session::{COMPILES, Learned, Session, numbers};
use super::{Apart, BACKEND, Cache, Key, Machine, Precision, Unavailable};
use crate::compute::cuda::{Cuda, CudaError, Guest, Hold, Hosted};
use crate::inference::{self, Engine, EngineError, Model, Parity, Tensor, TensorSpec, parity};

/// TensorRT and a GPU.
#[derive(Clone)]
pub struct Gpu {
    builder: Builder,
    cuda: Cuda,
}

impl Gpu {
    /// Looks for both.
    ///
    /// # Errors
    /// [`Unavailable`], with the first that is missing.
    pub fn open() -> Result<Gpu, Unavailable> {
        let (library, logger) = plan::open()?;
        let cuda = Cuda::open().map_err(|e| Unavailable::Gpu(e.to_string()))?;
        let properties = cuda.properties();
        let (tensorrt, capability) = (plan::version(library), properties.capability);
        let machine = match plan::AHEAD_OF_TIME {
            true => Machine::any(tensorrt, capability),
            false => Machine::of(
                tensorrt,
                (&properties.name, capability),
                (properties.multiprocessors, properties.memory_bytes),
            ),
        };
        let builder = Builder {
            library,
            logger,
            machine,
            apart: None,
        };
        Ok(Gpu { builder, cuda })
    }

    /// What plans are made for.
    pub fn machine(&self) -> &Machine {
        &self.builder.machine
    }

    /// The device, which the kernels have, too.
    pub(super) fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    /// The plan of that model, as [`Builder::plan`] gives it. Where TensorRT builds it in this process, it does so in the
    /// device's context, which is held meanwhile: a tick that fails must not tear it down under a build of minutes.
    pub(super) fn plan(
        &self,
        model: &Model,
        onnx: &[u8],
        cache: &Cache,
        precision: Precision,
        batch: usize,
    ) -> Result<(Vec<u8>, Made), EngineError> {
        let failed = |e: CudaError| EngineError::Load {
            model: model.id(),
            backend: BACKEND,
            why: e.to_string(),
        };
        let here = self.builder.apart.is_none();
        let hold = here.then(|| self.cuda.hold()).transpose().map_err(failed)?;
        let current = hold.as_ref().map(Hold::current);
        let _current = current.transpose().map_err(failed)?;
        self.builder.plan(model, onnx, cache, precision, batch)
    }

    /// That plan of that model, about to run.
    pub(super) fn prepared<'a>(
        &'a self,
        cache: &'a Cache,
        model: &'a Model,
        plan: &'a [u8],
        key: &'a Key,
    ) -> Prepared<'a> {
        let compiler = self.compiler();
        Prepared {
            builder: &self.builder,
            cache,
            model,
            plan,
            key,
            kernels: COMPILES.then(|| cache.kernels(key, &compiler)),
            compiler,
            learned: Learned::default(),
        }
    }

    /// The same, with plans built in a process of their own.
    #[must_use]
    pub fn building(mut self, apart: Apart) -> Gpu {
        self.builder.apart = Some(apart);
        self
    }

    /// What its kernels were compiled for, and by.
    pub(super) fn compiler(&self) -> String {
        let properties = self.cuda.properties();
        format!("{}, driver {}", properties.name, properties.driver_version)
    }

    /// What makes them.
    pub fn builder(self) -> Builder {
        self.builder
    }
}

/// A model on the GPU.
///
/// A run that fails there is answered by the CPU within the same call; the model stays with the CPU from then on,
/// says so in [`Engine::backend`], and is given to the GPU again by [`crate::engines`].
pub struct TensorRt {
    model: Model,
    sessions: Vec<(usize, Hosted)>,
    cpu: Arc<dyn Engine>,
    failed: AtomicBool,
}

/// A plan that is about to run, and the kernels that were compiled for it another time.
pub(super) struct Prepared<'a> {
    builder: &'a Builder,
    cache: &'a Cache,
    model: &'a Model,
    plan: &'a [u8],
    key: &'a Key,
    compiler: String,
    kernels: Option<Vec<u8>>,
    learned: Learned,
}

impl Prepared<'_> {
    /// On the device whose context is current.
    pub(super) fn make(&self) -> Result<Box<dyn Guest>, String> {
        let from = (self.builder.library, &self.builder.logger);
        let kernels = self.kernels.as_ref().map(|k| (k.as_slice(), &self.learned));
        let (plan, batch) = (self.plan, self.key.batch);
        Ok(Box::new(Session::load(
            from, plan, self.model, batch, kernels,
        )?))
    }

    /// Keeps what its first run has compiled.
    pub(super) fn keep(self) {
        if let (Some(kept), Some(new)) = (self.kernels, self.learned.take())
            && kept != new
        {
            self.cache.keep_kernels(self.key, &self.compiler, &new);
        }
    }
}

/// Why a plan did not become an engine.
enum Refusal {
    /// TensorRT refused it, or it answers otherwise than the CPU: one that is made anew may do.
    Plan(EngineError),
    /// Another plan would not help.
    Else(EngineError),
}

/// The engine of a plan: a kept one that is refused is let go and made anew, once.
fn settled<T>(
    mut plan: impl FnMut() -> Result<(Vec<u8>, Made), EngineError>,
    mut settle: impl FnMut(&[u8], &Made) -> Result<T, Refusal>,
    let_go: impl FnOnce(&Key),
) -> Result<T, EngineError> {
    let (bytes, made) = plan()?;
    match settle(&bytes, &made) {
        Ok(engine) => return Ok(engine),
        Err(Refusal::Plan(why)) if !made.built => {
            tracing::warn!(model = made.key.model, batch = made.key.batch, %why,
                "an engine that was kept is not used; it is built anew");
            let_go(&made.key);
        }
        Err(Refusal::Plan(e) | Refusal::Else(e)) => return Err(e),
    }
    let (bytes, made) = plan()?;
    settle(&bytes, &made).map_err(|refusal| match refusal {
        Refusal::Plan(e) | Refusal::Else(e) => e,
    })
}

impl TensorRt {
    /// Puts `cpu`'s model, of that folder, on the GPU: from the cache, or built anew and kept there.
    ///
    /// # Errors
    /// [`EngineError::Load`] if TensorRT does not take it; [`EngineError::Parity`] if an answer to the recorded
    /// inputs (or to made-up ones, where none is recorded), in any batch size, is further off the CPU's than the
    /// precision allows.
    pub fn load(
        gpu: &Gpu,
        cpu: Arc<dyn Engine>,
        folder: &Path,
        cache: &Cache,
        precision: Precision,
    ) -> Result<TensorRt, EngineError> {
        let model = cpu.model().clone();
        let onnx = model.onnx(folder)?;
        let recorded = model.fixture(folder)?;
        let mut engine = TensorRt {
            sessions: Vec::with_capacity(model.batches.len()),
            model,
            cpu,
            failed: AtomicBool::new(false),
        };
        for batch in engine.model.batches.clone() {
            let runs = inference::runs(&engine.model, recorded.as_ref(), batch);
            let session = settled(
                || gpu.plan(&engine.model, &onnx, cache, precision, batch),
                |plan, made| {
                    let session = engine.session(gpu, cache, plan, made)?;
                    engine.compare(&session, batch, &runs, precision)?;
                    Ok(session)
                },
                |key| {
                    if let Err(e) = cache.remove(key) {
                        tracing::warn!(error = %e, "an engine file cannot be removed");
                    }
                },
            )?;
            engine.sessions.push((batch, session));
        }
        Ok(engine)
    }

    /// That plan on the device.
    fn session(
        &self,
        gpu: &Gpu,
        cache: &Cache,
        plan: &[u8],
        made: &Made,
    ) -> Result<Hosted, Refusal> {
        let (model, batch) = (&self.model, made.key.batch);
        let sizes = |specs: &[TensorSpec]| -> Vec<usize> {
            specs.iter().map(|s| numbers(s, batch)).collect()
        };
        let prepared = gpu.prepared(cache, model, plan, &made.key);
        let hosted = (gpu.cuda).host(&sizes(&model.inputs), &sizes(&model.outputs), || {
            prepared.make()
        });
        let hosted = hosted.map_err(|e| {
            let why = format!("batch {batch}: {e}");
            self.refusal(&e, |model, backend| EngineError::Load {
                model,
                backend,
                why,
            })
        })?;
        prepared.keep();
        tracing::info!(model = model.id(), ?made, "an engine is on the GPU");
        Ok(hosted)
    }

    /// Compares its answers with the CPU's.
    fn compare(
        &self,
        session: &Hosted,
        batch: usize,
        runs: &[Vec<Tensor>],
        precision: Precision,
    ) -> Result<(), Refusal> {
        let tolerance = precision.tolerance(&self.model);
        for inputs in runs {
            let theirs = self.cpu.run(inputs).map_err(Refusal::Else)?;
            let ours = self.answer(session, batch, inputs).map_err(|e| {
                let why = e.to_string();
                self.refusal(&e, |model, backend| EngineError::Run {
                    model,
                    backend,
                    why,
                })
            })?;
            let off = parity(&ours, &theirs);
            if let Some(worst) = off.iter().find(|p| p.max > tolerance) {
                let Parity { tensor, max, .. } = worst.clone();
                return Err(Refusal::Plan(EngineError::Parity {
                    model: self.model.id(),
                    backend: BACKEND,
                    tensor,
                    off: max,
                    tolerance,
                }));
            }
        }
        Ok(())
    }

    /// What the guest said is the plan's; what the device said is not.
    fn refusal(
        &self,
        e: &CudaError,
        say: impl FnOnce(String, &'static str) -> EngineError,
    ) -> Refusal {
        let error = say(self.model.id(), BACKEND);
        match e {
            CudaError::Guest(_) => Refusal::Plan(error),
            _ => Refusal::Else(error),
        }
    }

    /// The GPU's answer, or why there is none.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs are not the model's or the GPU fails.
    pub fn on_gpu(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.ask(inputs)?.map_err(|e| self.failure(&e))
    }

    /// As [`TensorRt::on_gpu`], with the device's own error.
    fn ask(&self, inputs: &[Tensor]) -> Result<Result<Vec<Tensor>, CudaError>, EngineError> {
        let batch = self.model.batch_of(inputs)?;
        let session = self.sessions.iter().find(|(size, _)| *size == batch);
        Ok(match session {
            Some((_, session)) => self.answer(session, batch, inputs),
            None => Err(CudaError::Guest(format!(
                "there is no engine for a batch of {batch}"
            ))),
        })
    }

    fn failure(&self, e: &CudaError) -> EngineError {
        EngineError::Run {
            model: self.model.id(),
            backend: BACKEND,
            why: e.to_string(),
        }
    }

    fn answer(
        &self,
        session: &Hosted,
        batch: usize,
        inputs: &[Tensor],
    ) -> Result<Vec<Tensor>, CudaError> {
        let values: Vec<&[f32]> = inputs.iter().map(|t| t.values.as_slice()).collect();
        let outputs = session.run(&values)?;
        let named = self.model.outputs.iter().zip(outputs);
        let outputs: Vec<Tensor> = named
            .map(|(spec, values)| Tensor::new(&spec.name, &spec.with_batch(batch), values))
            .collect();
        let finite = |o: &&Tensor| o.values.iter().all(|v| v.is_finite());
        match outputs.iter().find(|o| !finite(o)) {
            Some(bad) => {
                let why = format!("output {:?} is not finite", bad.name);
                Err(CudaError::Guest(why))
            }
            None => Ok(outputs),
        }
    }
}

impl Engine for TensorRt {
    fn backend(&self) -> &'static str {
        match self.failed.load(Ordering::Relaxed) {
            true => self.cpu.backend(),
            false => BACKEND,
        }
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        if self.failed.load(Ordering::Relaxed) {
            return self.cpu.run(inputs);
        }
        match self.ask(inputs)? {
            Ok(answer) => return Ok(answer),
            // Others keep it busy: this one answer is the CPU's.
            Err(e @ CudaError::Busy) => {
                tracing::debug!(error = %e, model = self.model.id(), "the CPU answers once");
            }
            Err(e) => {
                self.failed.store(true, Ordering::Relaxed);
                let error = self.failure(&e);
                tracing::error!(%error, "the GPU failed; the CPU answers from here on");
                let model = self.model.id();
                metrics::counter!("trackside_engine_gpu_failures_total", "model" => model)
                    .increment(1);
            }
        }
        self.cpu.run(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(built: bool) -> Made {
        let machine = Machine::any("TensorRT-RTX 1 1.7.0".to_owned(), (8, 7));
        Made {
            key: Key {
                model: "toy-1".to_owned(),
                onnx_sha256: String::new(),
                machine,
                precision: Precision::Fp32,
                batch: 1,
                recipe: 0,
            },
            built,
            bytes: 1,
            seconds: 0.0,
        }
    }

    fn said(why: &str) -> EngineError {
        EngineError::Load {
            model: "toy-1".to_owned(),
            backend: BACKEND,
            why: why.to_owned(),
        }
    }

    /// What became of plans that are kept and built so, in this order, where the good one is `b"good"`.
    fn of(plans: &[(&'static [u8], bool)]) -> (Result<Vec<u8>, String>, usize, usize) {
        let (mut taken, mut let_go) = (0, 0);
        let engine = settled(
            || {
                let (bytes, built) = plans[taken];
                taken += 1;
                Ok((bytes.to_vec(), made(built)))
            },
            |plan, _| match plan {
                b"good" => Ok(plan.to_vec()),
                b"lost" => Err(Refusal::Else(said("the device failed"))),
                _ => Err(Refusal::Plan(said("the magic tag does not match"))),
            },
            |_| let_go += 1,
        );
        (engine.map_err(|e| e.to_string()), taken, let_go)
    }

    #[test]
    fn a_kept_plan_that_is_refused_is_built_anew_once() {
        let good = Ok(b"good".to_vec());
        assert_eq!(of(&[(b"good", false)]), (good.clone(), 1, 0));
        assert_eq!(of(&[(b"good", true)]), (good.clone(), 1, 0));
        assert_eq!(of(&[(b"bad", false), (b"good", true)]), (good, 2, 1));
        let refused = |plans| {
            let (engine, taken, let_go) = of(plans);
            assert!(engine.unwrap_err().contains("magic tag"));
            (taken, let_go)
        };
        assert_eq!(refused(&[(b"bad", true)]), (1, 0));
        assert_eq!(refused(&[(b"bad", false), (b"bad", true)]), (2, 1));
        // Even if it is as if it had been kept again.
        assert_eq!(refused(&[(b"bad", false), (b"bad", false)]), (2, 1));
        // A device that fails says nothing about the plan.
        let (engine, taken, let_go) = of(&[(b"lost", false)]);
        assert!(engine.unwrap_err().contains("device failed"));
        assert_eq!((taken, let_go), (1, 0));
    }
}
