//! What may go wrong on the way to a GPU.

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
    #[error("no answer from the device within {0} s")]
    TimedOut(u64),
    #[error("{0} pieces of work are waiting for the device already")]
    Busy(usize),
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
