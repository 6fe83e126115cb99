//! What may go wrong on the way to a GPU.

use std::time::Duration;

use cudarc::driver::DriverError;

/// Why a device did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CudaError {
    #[error("no NVIDIA driver is installed (libcuda was not found)")]
    NoDriver,
    #[error("the NVIDIA driver finds no GPU")]
    NoDevice,
    #[error("{call}: {name}: {text}")]
    Driver {
        /// What was called.
        call: &'static str,
        /// Such as `CUDA_ERROR_ILLEGAL_ADDRESS`.
        name: String,
        text: String,
    },
    #[error("the driver's library is not what was expected: {0}")]
    Panicked(String),
    #[error("no answer from the device within {0:?}")]
    TimedOut(Duration),
    #[error("the device is busy with other work")]
    Busy,
    #[error("the device computes, but wrongly")]
    Wrong,
    #[error("the graph is being captured")]
    NotYet,
    #[error("{bytes} bytes are asked for; {limit} at most go to the device at a time")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the device's thread has ended")]
    Gone,
    #[error("the device failed, and memory of it is still held")]
    StillHeld,
    #[error("{0}")]
    Guest(String),
    #[error("the graph is not captured on this device")]
    NotCaptured,
    #[error("the device failed before; it is tried again in {0} s")]
    Resting(u64),
    #[error(
        "the device's thread hangs in the driver; restart the process, and look for NVRM lines in the kernel's log"
    )]
    Silent,
}

impl CudaError {
    /// Whether nothing of the context may be used after it.
    pub(super) fn breaks_the_context(&self) -> bool {
        matches!(self, CudaError::Driver { .. } | CudaError::Panicked(_))
    }

    /// Whether the device failed, rather than having no room or time just now.
    pub(super) fn is_a_failure(&self) -> bool {
        self.breaks_the_context() || matches!(self, CudaError::TimedOut(_) | CudaError::Gone)
    }
}

/// Says which call a driver's error came from.
pub(super) trait Call<T> {
    fn call(self, call: &'static str) -> Result<T, CudaError>;
}

impl<T> Call<T> for Result<T, DriverError> {
    fn call(self, call: &'static str) -> Result<T, CudaError> {
        self.map_err(|e| CudaError::Driver {
            call,
            name: told(e.error_name()),
            text: told(e.error_string()),
        })
    }
}

fn told(text: Result<&std::ffi::CStr, DriverError>) -> String {
    text.map_or_else(
        |e| format!("{:?}", e.0),
        |t| t.to_string_lossy().into_owned(),
    )
}
