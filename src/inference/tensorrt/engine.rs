//! A model on the GPU: a session a batch size, and the CPU engine behind them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::plan::{self, Builder};
use super::session::{Session, numbers};
use super::{BACKEND, Cache, Machine, Precision, Unavailable};
use crate::compute::cuda::{Cuda, Guest, Hosted};
use crate::inference::{Engine, EngineError, Model, Parity, Tensor, parity};

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
            false => Machine {
                tensorrt,
                gpu: properties.name.clone(),
                capability,
            },
        };
        let builder = Builder {
            library,
            logger,
            machine,
        };
        Ok(Gpu { builder, cuda })
    }

    /// What plans are made for.
    pub fn machine(&self) -> &Machine {
        &self.builder.machine
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

impl TensorRt {
    /// Puts `cpu`'s model, of that folder, on the GPU: from the cache, or built anew and kept there.
    ///
    /// # Errors
    /// [`EngineError::Load`] if TensorRT does not take it; [`EngineError::Parity`] if an answer to the recorded
    /// inputs, in any batch size, is further off the CPU's than the precision allows.
    pub fn load(
        gpu: &Gpu,
        cpu: Arc<dyn Engine>,
        folder: &Path,
        cache: &Cache,
        precision: Precision,
    ) -> Result<TensorRt, EngineError> {
        let model = cpu.model().clone();
        let failed = |why: String| EngineError::Load {
            model: model.id(),
            backend: BACKEND,
            why,
        };
        let onnx = model.onnx(folder)?;
        let mut sessions = Vec::with_capacity(model.batches.len());
        for batch in &model.batches {
            let (plan, made) = gpu.builder.plan(&model, &onnx, cache, precision, *batch)?;
            let sizes = |specs: &[crate::inference::TensorSpec]| -> Vec<usize> {
                specs.iter().map(|s| numbers(s, *batch)).collect()
            };
            let make = || -> Result<Box<dyn Guest>, String> {
                let session = Session::load(
                    gpu.builder.library,
                    &gpu.builder.logger,
                    &plan,
                    &model,
                    *batch,
                )?;
                Ok(Box::new(session))
            };
            let hosted = gpu
                .cuda
                .host(&sizes(&model.inputs), &sizes(&model.outputs), make);
            let hosted = hosted.map_err(|e| failed(format!("batch {batch}: {e}")))?;
            tracing::info!(model = model.id(), ?made, "an engine is on the GPU");
            sessions.push((*batch, hosted));
        }
        let engine = TensorRt {
            model,
            sessions,
            cpu,
            failed: AtomicBool::new(false),
        };
        engine.compare(folder, precision)?;
        Ok(engine)
    }

    /// Compares its answers with the CPU's.
    fn compare(&self, folder: &Path, precision: Precision) -> Result<(), EngineError> {
        let Some(fixture) = self.model.fixture(folder)? else {
            return Ok(());
        };
        let tolerance = precision.tolerance(&self.model);
        for (batch, _) in &self.sessions {
            for inputs in fixture.at_batch(&self.model, *batch) {
                let (ours, theirs) = (self.on_gpu(&inputs)?, self.cpu.run(&inputs)?);
                let off = parity(&ours, &theirs);
                if let Some(worst) = off.iter().find(|p| p.max > tolerance) {
                    let Parity { tensor, max, .. } = worst.clone();
                    return Err(EngineError::Parity {
                        model: self.model.id(),
                        backend: BACKEND,
                        tensor,
                        off: max,
                        tolerance,
                    });
                }
            }
        }
        Ok(())
    }

    /// The GPU's answer, or why there is none.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs are not the model's or the GPU fails.
    pub fn on_gpu(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let batch = self.model.batch_of(inputs)?;
        let failed = |why: String| EngineError::Run {
            model: self.model.id(),
            backend: BACKEND,
            why,
        };
        let session = self.sessions.iter().find(|(size, _)| *size == batch);
        let Some((_, session)) = session else {
            return Err(failed(format!("no engine for a batch of {batch}")));
        };
        let values: Vec<&[f32]> = inputs.iter().map(|t| t.values.as_slice()).collect();
        let outputs = session.run(&values).map_err(|e| failed(e.to_string()))?;
        let named = self.model.outputs.iter().zip(outputs);
        let outputs: Vec<Tensor> = named
            .map(|(spec, values)| Tensor::new(&spec.name, &spec.with_batch(batch), values))
            .collect();
        match outputs
            .iter()
            .find(|o| o.values.iter().any(|v| !v.is_finite()))
        {
            Some(bad) => Err(failed(format!("output {:?} is not finite", bad.name))),
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
        if !self.failed.load(Ordering::Relaxed) {
            match self.on_gpu(inputs) {
                Err(e @ EngineError::Run { .. }) => {
                    self.failed.store(true, Ordering::Relaxed);
                    tracing::error!(error = %e, "the GPU failed; the CPU answers from here on");
                    let model = self.model.id();
                    metrics::counter!("trackside_engine_gpu_failures_total", "model" => model)
                        .increment(1);
                }
                said => return said,
            }
        }
        self.cpu.run(inputs)
    }
}
