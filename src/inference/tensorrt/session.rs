//! A plan on the device: TensorRT's engine and context as a guest of the device that the kernels have, too.
//!
//! It holds `unsafe` because TensorRT reads and writes addresses; each one's reason stands beside it.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use tensorrt_rs::{
    ContextOptions, DeviceBuffer, Engine, ExecutionContext, Library, Logger, Runtime, Stream,
};

use super::plan::shape;
use crate::compute::cuda::Guest;
use crate::inference::{Model, TensorSpec};

/// An engine at work.
pub(super) struct Session {
    context: ExecutionContext<'static>,
    /// Inputs, then outputs: name and how many numbers.
    tensors: Vec<(String, usize)>,
}

impl Session {
    /// Loads a plan, which [`super::Cache`] or [`super::plan::build`] gave.
    ///
    /// # Errors
    /// What TensorRT said, or that the plan's tensors are not the manifest's.
    pub(super) fn load(
        library: Library,
        logger: &Arc<Logger>,
        plan: &[u8],
        model: &Model,
        batch: usize,
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
            context: ExecutionContext::new(Arc::new(engine), ContextOptions::default())
                .map_err(say)?,
        })
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
        unsafe { self.context.enqueue(Stream::from_raw(stream)) }.map_err(|e| e.to_string())
    }
}
