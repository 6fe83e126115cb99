//! Memory of TensorRT's on the host.

use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use crate::Error;
use crate::ffi;
use crate::logger::{plain, some};

/// Bytes that TensorRT has written: a serialised engine, or a cache. Reads as `&[u8]`, with no copy made.
///
/// It needs none of the objects that it came from.
pub struct HostMemory {
    memory: NonNull<ffi::Memory>,
    data: NonNull<u8>,
    bytes: usize,
}

// SAFETY: owned bytes that nobody writes any more.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// # Safety
    ///
    /// `memory` is an `IHostMemory` that nobody else destroys.
    pub(crate) unsafe fn owned(memory: *mut ffi::Memory) -> Result<Self, Error> {
        let mut made = Self {
            memory: some(memory)?,
            data: NonNull::dangling(),
            bytes: 0,
        };
        let (mut data, mut bytes) = (ptr::null::<c_void>(), 0);
        // SAFETY: a live object; a pointer and a number are written.
        plain("read memory", unsafe {
            ffi::trt_memory_view(memory, &mut data, &mut bytes)
        })?;
        if let Some(data) = NonNull::new(data.cast_mut().cast()) {
            made.data = data;
            made.bytes = bytes;
        }
        Ok(made)
    }
}

impl Deref for HostMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: TensorRT's buffer, alive and unchanged as long as this is; or dangling and empty.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.bytes) }
    }
}

impl AsRef<[u8]> for HostMemory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMemory")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { ffi::trt_memory_destroy(self.memory.as_ptr()) };
    }
}
