//! How an engine is to be built.

use std::ptr::{self, NonNull};

use crate::logger::{lacking, some};
use crate::{Builder, Error, HostMemory, OptimizationProfile, RELEASE, ffi};

/// A configuration, made by [`Builder::config`].
#[derive(Debug)]
pub struct BuilderConfig<'b> {
    raw: NonNull<ffi::Config>,
    builder: &'b Builder<'b>,
    /// The builder's: it must outlive it.
    timing_cache: Option<NonNull<ffi::TimingCache>>,
}

impl<'b> BuilderConfig<'b> {
    pub(crate) fn owned(raw: NonNull<ffi::Config>, builder: &'b Builder<'_>) -> Self {
        Self {
            raw,
            builder,
            timing_cache: None,
        }
    }

    /// Lets TensorRT compute an fp32 model in fp16. Only TensorRT 10 has it
    /// ([`HAS_FP16_FLAG`](crate::HAS_FP16_FLAG)), for networks of [`Typing::Weak`](crate::Typing::Weak).
    pub fn fp16(&mut self, on: bool) -> Result<(), Error> {
        self.flag(
            "fp16 flag: give it an ONNX model in fp16",
            ffi::FLAG_FP16,
            on,
        )
    }

    /// Lets matrix products of fp32 be computed in TF32, which keeps 10 bits of the mantissa. On by default.
    pub fn tf32(&mut self, on: bool) -> Result<(), Error> {
        self.flag("TF32 flag", ffi::FLAG_TF32, on)
    }

    /// Makes an engine whose weights can be changed later ([`Engine::refit`](crate::Engine::refit)).
    pub fn refittable(&mut self, on: bool) -> Result<(), Error> {
        self.flag("refit flag", ffi::FLAG_REFIT, on)
    }

    /// Leaves the weights out; they are given later ([`Engine::refit`](crate::Engine::refit)).
    pub fn strip_weights(&mut self, on: bool) -> Result<(), Error> {
        self.flag("flag to strip weights", ffi::FLAG_STRIP_WEIGHTS, on)
    }

    /// Makes an engine that other versions of the same major run too, and a lean runtime.
    pub fn version_compatible(&mut self, on: bool) -> Result<(), Error> {
        self.flag("version compatibility", ffi::FLAG_VERSION_COMPATIBLE, on)
    }

    /// The most device memory that a layer may use for intermediate results (bytes).
    pub fn workspace(&mut self, bytes: usize) -> Result<(), Error> {
        // SAFETY: a live configuration.
        self.done("limit the workspace", |raw| unsafe {
            ffi::trt_config_workspace(raw, bytes)
        })
    }

    /// How long to look for the fastest engine: 0 (quick to build) to 5 (quick to run).
    pub fn optimization_level(&mut self, level: u8) -> Result<(), Error> {
        // SAFETY: a live configuration.
        self.done("set the optimisation level", |raw| unsafe {
            ffi::trt_config_optimization_level(raw, i32::from(level))
        })
    }

    /// Keeps the layers' details in the engine, for [`Engine::inspect`](crate::Engine::inspect). Off by default.
    pub fn detailed_layers(&mut self, on: bool) -> Result<(), Error> {
        // SAFETY: a live configuration.
        self.done("set the verbosity", |raw| unsafe {
            ffi::trt_config_detailed_layers(raw, i32::from(on))
        })
    }

    /// The most streams that an engine may use beside the one that it is enqueued on. With 0 a captured graph
    /// is one chain.
    pub fn aux_streams(&mut self, most: u8) -> Result<(), Error> {
        // SAFETY: a live configuration.
        self.done("limit the auxiliary streams", |raw| unsafe {
            ffi::trt_config_aux_streams(raw, i32::from(most))
        })
    }

    /// Builds for these compute capabilities (major · 10 + minor, 89 for example). Only TensorRT-RTX can; told
    /// nothing, it builds for all that it has. The others build for the GPU of the machine.
    pub fn compute_capabilities(&mut self, capabilities: &[i32]) -> Result<(), Error> {
        let count = i32::try_from(capabilities.len()).map_err(|_| Error::Argument {
            what: "compute capabilities",
            found: format!("{} of them", capabilities.len()),
            allowed: "a handful may be given",
        })?;
        // SAFETY: a live configuration, and as many numbers as said.
        let done = self.done("build for these compute capabilities", |raw| unsafe {
            ffi::trt_config_compute_capabilities(raw, capabilities.as_ptr(), count)
        });
        lacking(done, "way to build for another GPU than the machine's")
    }

    /// Adds a profile; an execution context chooses one by the index that this returns.
    pub fn add_profile(&mut self, profile: OptimizationProfile<'b>) -> Result<usize, Error> {
        self.builder.made("profile", profile.builder())?;
        let mut index = 0;
        // SAFETY: both are alive, and of one builder, which keeps the profile.
        self.done("add the optimisation profile", |raw| unsafe {
            ffi::trt_config_add_profile(raw, profile.as_ptr(), &mut index)
        })?;
        Ok(usize::try_from(index).unwrap_or(0))
    }

    /// Starts from a timing cache that an earlier build has left, or from an empty one (`&[]`). A cache of
    /// another GPU or release is refused. TensorRT-RTX has none: see
    /// [`ContextOptions::runtime_cache`](crate::ContextOptions::runtime_cache).
    pub fn set_timing_cache(&mut self, cache: &[u8]) -> Result<(), Error> {
        let mut made = ptr::null_mut();
        // SAFETY: a live configuration; the bytes are read during the call only.
        let done = self.done("use this timing cache", |raw| unsafe {
            ffi::trt_config_timing_cache(raw, cache.as_ptr().cast(), cache.len(), &mut made)
        });
        lacking(done, "timing cache")?;
        let made = some(made)?;
        self.builder.keep(made);
        self.timing_cache = Some(made);
        Ok(())
    }

    /// The timing cache, with what builds since [`set_timing_cache`](Self::set_timing_cache) have added.
    pub fn timing_cache(&self) -> Result<HostMemory, Error> {
        let none = Error::Unsupported {
            what: "timing cache in this configuration",
            release: RELEASE,
        };
        let (cache, mut blob) = (self.timing_cache.ok_or(none)?, ptr::null_mut());
        let mark = self.builder.logger().mark();
        // SAFETY: a live cache.
        let status = unsafe { ffi::trt_timing_cache_serialize(cache.as_ptr(), &mut blob) };
        self.builder
            .logger()
            .check("serialise the timing cache", mark, status)?;
        // SAFETY: fresh, and ours.
        unsafe { HostMemory::owned(blob) }
    }

    pub(crate) fn as_ptr(&mut self) -> *mut ffi::Config {
        self.raw.as_ptr()
    }

    pub(crate) fn builder(&self) -> &'b Builder<'b> {
        self.builder
    }

    fn flag(&mut self, what: &'static str, flag: i32, on: bool) -> Result<(), Error> {
        // SAFETY: a live configuration.
        let done = self.done("set a flag", |raw| unsafe {
            ffi::trt_config_flag(raw, flag, i32::from(on))
        });
        lacking(done, what)
    }

    fn done(
        &mut self,
        operation: &'static str,
        call: impl FnOnce(*mut ffi::Config) -> i32,
    ) -> Result<(), Error> {
        let mark = self.builder.logger().mark();
        let status = call(self.raw.as_ptr());
        self.builder.logger().check(operation, mark, status)
    }
}

impl Drop for BuilderConfig<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { ffi::trt_config_destroy(self.raw.as_ptr()) };
    }
}
