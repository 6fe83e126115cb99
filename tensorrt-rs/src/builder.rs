//! The builder: makes networks, configurations and profiles, and engines out of them.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::logger::some;
use crate::{
    BuilderConfig, Driver, Error, Held, HostMemory, Library, Logger, Network, OptimizationProfile,
    ffi,
};

/// Where the types of a network's tensors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// From the model, and they are kept. In TensorRT 11 and TensorRT-RTX it is always so.
    Strong,
    /// From the configuration: TensorRT may compute an fp32 model in fp16 ([`BuilderConfig::fp16`]). Only in
    /// TensorRT 10.
    Weak,
}

/// Builds engines.
///
/// Networks, configurations and profiles borrow it, so none outlives it. It is moved between threads, not
/// shared, and builds one engine at a time.
#[derive(Debug)]
pub struct Builder<'l> {
    raw: NonNull<ffi::Builder>,
    logger: Held<'l, Logger>,
    library: Library,
    /// Timing caches must outlive their builder: freed after it.
    caches: RefCell<Vec<NonNull<ffi::TimingCache>>>,
    /// `&Builder` stays on its thread.
    _not_sync: PhantomData<*mut ()>,
}

// SAFETY: TensorRT's builder may be used from any one thread at a time. Nothing that points to it can be left
// behind when it moves: what it made borrows it.
unsafe impl Send for Builder<'_> {}

impl<'l> Builder<'l> {
    /// A builder that logs to `logger`.
    ///
    /// TensorRT-RTX builds on machines without a GPU, ahead of time; the others want a driver, and
    /// [`Error::NoDriver`] is what this returns where there is none.
    pub fn new(library: Library, logger: impl Into<Held<'l, Logger>>) -> Result<Self, Error> {
        let (create, logger) = (library.builder()?, logger.into());
        if !cfg!(feature = "rtx") {
            Driver::find()?;
        }
        let (mark, mut made) = (logger.mark(), ptr::null_mut());
        // SAFETY: the library's entry point, and a logger that outlives what is made.
        let status = unsafe { ffi::trt_builder_create(create, logger.as_ptr(), &mut made) };
        logger.check("create a builder", mark, status)?;
        let raw = some(made)?;
        Ok(Self {
            raw,
            logger,
            library,
            caches: RefCell::default(),
            _not_sync: PhantomData,
        })
    }

    /// An empty network, to be filled by a [`Parser`](crate::Parser).
    pub fn network(&self, typing: Typing) -> Result<Network<'_>, Error> {
        let (mark, mut made) = (self.logger.mark(), ptr::null_mut());
        let strongly = i32::from(typing == Typing::Strong);
        // SAFETY: a live builder.
        let status = unsafe { ffi::trt_builder_network(self.raw.as_ptr(), strongly, &mut made) };
        if status == ffi::UNSUPPORTED {
            return Err(Error::Unsupported {
                what: "weakly typed network",
                release: crate::RELEASE,
            });
        }
        self.logger.check("create a network", mark, status)?;
        Ok(Network::owned(some(made)?, self))
    }

    /// A configuration with TensorRT's defaults.
    pub fn config(&self) -> Result<BuilderConfig<'_>, Error> {
        let (mark, mut made) = (self.logger.mark(), ptr::null_mut());
        // SAFETY: a live builder.
        let status = unsafe { ffi::trt_builder_config(self.raw.as_ptr(), &mut made) };
        self.logger.check("create a configuration", mark, status)?;
        Ok(BuilderConfig::owned(some(made)?, self))
    }

    /// An optimisation profile: which shapes the dynamic inputs may take. One is needed where there are any.
    pub fn profile(&self) -> Result<OptimizationProfile<'_>, Error> {
        let (mark, mut made) = (self.logger.mark(), ptr::null_mut());
        // SAFETY: a live builder.
        let status = unsafe { ffi::trt_builder_profile(self.raw.as_ptr(), &mut made) };
        self.logger
            .check("create an optimisation profile", mark, status)?;
        Ok(OptimizationProfile::owned(some(made)?, self))
    }

    /// Builds an engine, serialised. Takes from a fraction of a second to minutes.
    pub fn build(
        &self,
        network: &mut Network<'_>,
        config: &mut BuilderConfig<'_>,
    ) -> Result<HostMemory, Error> {
        self.made("network", network.builder())?;
        self.made("configuration", config.builder())?;
        let (mark, mut plan) = (self.logger.mark(), ptr::null_mut());
        // SAFETY: all three are alive, and of one builder.
        let status = unsafe {
            ffi::trt_builder_build(
                self.raw.as_ptr(),
                network.as_ptr(),
                config.as_ptr(),
                &mut plan,
            )
        };
        self.logger.check("build the engine", mark, status)?;
        // SAFETY: fresh, and ours.
        unsafe { HostMemory::owned(plan) }
    }

    /// The logger.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// The library.
    pub fn library(&self) -> Library {
        self.library
    }

    /// Refuses what another builder has made.
    pub(crate) fn made(&self, what: &'static str, by: &Builder<'_>) -> Result<(), Error> {
        match self.raw == by.raw {
            true => Ok(()),
            false => Err(Error::Foreign { what }),
        }
    }

    pub(crate) fn keep(&self, cache: NonNull<ffi::TimingCache>) {
        self.caches.borrow_mut().push(cache);
    }
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once; what it made is gone, and its caches go after it.
        unsafe {
            ffi::trt_builder_destroy(self.raw.as_ptr());
            for cache in self.caches.borrow_mut().drain(..) {
                ffi::trt_timing_cache_destroy(cache.as_ptr());
            }
        }
    }
}
