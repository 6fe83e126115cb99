//! A plan on the device: TensorRT's engine and context as a guest of the device that the kernels have, too.
//!
//! It holds `unsafe` because TensorRT reads and writes addresses; each one's reason stands beside it.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use tensorrt_rs::{
    ContextOptions, DeviceBuffer, Engine, ExecutionContext, Library, Logger, Runtime, Stream,
};

use super::plan::shape;
use crate::compute::cuda::Guest;
use crate::inference::{Model, TensorSpec};

/// Whether this release compiles kernels when an engine first runs, which are worth keeping.
pub(super) const COMPILES: bool = cfg!(feature = "tensorrt-rtx");

/// What TensorRT-RTX has compiled in an engine's first run.
#[derive(Clone, Default)]
pub(super) struct Learned(Arc<Mutex<Option<Vec<u8>>>>);

impl Learned {
    /// Takes it, if there was a first run.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.put(None)
    }

    fn put(&self, kernels: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut own, kernels)
    }
}

/// An engine at work.
pub(super) struct Session {
    context: ExecutionContext<'static>,
    /// Inputs, then outputs: name and how many numbers.
    tensors: Vec<(String, usize)>,
    /// To be told what the first run compiles.
    learned: Option<Learned>,
}

impl Session {
    /// Loads a plan, which [`super::Cache`] or [`super::plan::build`] gave. `kernels`: those compiled another time,
    /// which may be none, and who is to be told of those of this time; only where the release [`COMPILES`].
    ///
    /// # Errors
    /// What TensorRT said, or that the plan's tensors are not the manifest's.
    pub(super) fn load(
        (library, logger): (Library, &Arc<Logger>),
        plan: &[u8],
        model: &Model,
        batch: usize,
        kernels: Option<(&[u8], &Learned)>,
    ) -> Result<Session, String> {
        let say = |e: tensorrt_rs::Error| e.to_string();
        let runtime = Runtime::new(library, Arc::clone(logger)).map_err(say)?;
        // SAFETY: TensorRT wrote it: it was built in this process, or comes from a file whose checksum, written by
        // this program, covers it.
        let engine = unsafe { Engine::new(Arc::new(runtime), plan) }.map_err(say)?;
        let specs = || model.inputs.iter().chain(&model.outputs);
        let is = |spec: &TensorSpec| {
            let tensor = engine.tensor(&spec.name);
            tensor.is_ok_and(|t| {
                t.shape == shape(spec, batch) && t.holds == tensorrt_rs::DataType::F32 && !t.on_host
            })
        };
        if engine.tensors().len() != specs().count() || !specs().all(is) {
            let found: Vec<String> = engine.tensors().iter().map(ToString::to_string).collect();
            return Err(format!(
                "the engine has {}, which is not what the manifest says",
                found.join(", ")
            ));
        }
        let tensors = specs().map(|s| (s.name.clone(), numbers(s, batch)));
        Ok(Session {
            tensors: tensors.collect(),
            context: context(&Arc::new(engine), kernels.map(|k| k.0)).map_err(say)?,
            learned: kernels.map(|k| k.1.clone()),
        })
    }

    /// Tells what the first run has compiled; where TensorRT does not say it, the next start compiles again.
    fn tell(&mut self) {
        let Some(learned) = self.learned.take() else {
            return;
        };
        match self.context.runtime_cache() {
            Ok(kernels) => drop(learned.put(Some(kernels.to_vec()))),
            Err(e) => tracing::warn!(error = %e, "compiled kernels cannot be kept"),
        }
    }
}

/// A context that knows these kernels; if they are refused, one that compiles its own.
fn context(
    engine: &Arc<Engine<'static>>,
    kernels: Option<&[u8]>,
) -> Result<ExecutionContext<'static>, tensorrt_rs::Error> {
    let with = |runtime_cache| {
        let options = ContextOptions { runtime_cache };
        ExecutionContext::new(Arc::clone(engine), options)
    };
    match with(kernels) {
        Err(e) if kernels.is_some_and(|k| !k.is_empty()) => {
            tracing::warn!(error = %e, "kept kernels are not used; they are compiled anew");
            with(Some(&[]))
        }
        made => made,
    }
}

/// How many numbers a tensor has.
pub(super) fn numbers(spec: &TensorSpec, batch: usize) -> usize {
    spec.with_batch(batch).iter().product()
}

impl Guest for Session {
    unsafe fn bind(&mut self, addresses: &[u64]) -> Result<(), String> {
        if addresses.len() != self.tensors.len() {
            return Err(format!(
                "{} addresses for {} tensors",
                addresses.len(),
                self.tensors.len()
            ));
        }
        for ((name, numbers), address) in self.tensors.iter().zip(addresses) {
            let buffer = DeviceBuffer::new::<f32>(*address, *numbers);
            // SAFETY: the caller's promise; the sizes are those that the device was told.
            unsafe { self.context.bind(name, buffer) }.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), String> {
        // SAFETY: the caller's promise.
        unsafe { self.context.enqueue(Stream::from_raw(stream)) }.map_err(|e| e.to_string())?;
        // The first run is its maker's, and not captured.
        self.tell();
        Ok(())
    }
}
