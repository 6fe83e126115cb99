//! The runtime: makes engines of their serialised form.

use std::ptr::{self, NonNull};

use crate::logger::some;
use crate::{Driver, Engine, Error, Held, Library, Logger, ffi};

/// Deserialises engines. Needs a GPU and its driver.
#[derive(Debug)]
pub struct Runtime<'l> {
    raw: NonNull<ffi::Runtime>,
    logger: Held<'l, Logger>,
    library: Library,
}

// SAFETY: TensorRT allows a runtime on any thread, and says that deserialising an engine is thread-safe; nothing
// else is done with a shared one here.
unsafe impl Send for Runtime<'_> {}
// SAFETY: as above.
unsafe impl Sync for Runtime<'_> {}

impl<'l> Runtime<'l> {
    /// A runtime that logs to `logger`; [`Error::NoDriver`] where there is no driver or no GPU.
    pub fn new(library: Library, logger: impl Into<Held<'l, Logger>>) -> Result<Self, Error> {
        let (create, logger) = (library.runtime()?, logger.into());
        // First: without a driver some libraries return a pointer to nothing from the call below.
        Driver::find()?;
        let (mark, mut made) = (logger.mark(), ptr::null_mut());
        // SAFETY: the library's entry point, with a driver behind it, and a logger that outlives what is made.
        let status = unsafe { ffi::trt_runtime_create(create, logger.as_ptr(), &mut made) };
        logger.check("create a runtime", mark, status)?;
        Ok(Self {
            raw: some(made)?,
            logger,
            library,
        })
    }

    /// An engine that borrows this runtime; [`Engine::new`] has a form that shares it.
    ///
    /// # Safety
    ///
    /// That of [`Engine::new`].
    pub unsafe fn deserialize(&self, plan: &[u8]) -> Result<Engine<'_>, Error> {
        // SAFETY: the caller's promise.
        unsafe { Engine::new(self, plan) }
    }

    /// The logger.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// The library.
    pub fn library(&self) -> Library {
        self.library
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::Runtime {
        self.raw.as_ptr()
    }
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once; no engine of it is left.
        unsafe { ffi::trt_runtime_destroy(self.raw.as_ptr()) };
    }
}
