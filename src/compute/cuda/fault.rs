//! A fault that is made on purpose: a kernel that is sent where no memory is, as one with a defect would go.
//!
//! The error is the device's own. It comes when the device gets there, long after the call that sent the kernel; it
//! sticks to the context, and whoever calls next meets it, whatever for. That a failure costs nobody an answer is shown
//! with it on a real device (`trackside bench kernels --break`). Nothing else uses it.

use super::error::CudaError;
use super::{Cuda, PATIENT_LIMIT};

/// An address at which there is no memory, the device's or the host's: Linux maps nothing so low.
pub(super) const NOWHERE: u64 = 4096;

/// What the device fails in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// On the stream of ticks, before the next of them.
    Ticks,
    /// On the background's stream, behind the races that are under way there.
    Races,
}

impl Cuda {
    /// Sends a kernel where no memory is, and does not wait for it; whether it did: there may be no races under way.
    /// The device fails everybody in this process from when it gets there, until it was opened anew.
    ///
    /// # Errors
    /// What the driver said, or that the device has failed already.
    pub fn go_astray(&self, during: During) -> Result<bool, CudaError> {
        (self.inner.thread).call(PATIENT_LIMIT, move |device| device.stray(during))
    }
}
