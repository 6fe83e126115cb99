//! The engine on an NVIDIA GPU: TensorRT.
//!
//! TensorRT makes a plan of a model for one GPU, one version of itself and one batch size, which takes from a second
//! to minutes. So plans are made on the device that runs them, in the background while the CPU engine serves
//! ([`crate::engines`] hands over what comes of it), and kept:
//!
//! ```text
//!   ONNX ─▶ fp16? ─▶ fixed batch ─▶ plan ─▶ cache, under a key ─▶ on the device ─▶ the CPU's answers?
//! ```
//!
//! | file | noun |
//! |---|---|
//! | [`key`] | what a plan was made from and for |
//! | [`cache`] | the folder of plans: checked when read, bounded |
//! | `plan` | a plan, made of an ONNX file |
//! | `session` | a plan on the device |
//! | `engine` | a model with its sessions, and the CPU engine behind them |
//! | `together` | several models in one graph, with the kernel that assembles their inputs |
//! | `apart` | a build in a process of its own |
//!
//! Beside the plans lies what makes the next build or start shorter: TensorRT's measurements of this machine, and what
//! TensorRT-RTX has compiled for its GPU.
//!
//! **Invariant:** a plan is used only if its file is whole, its key is what is wanted and its answers are the CPU's. A
//! kept one that is refused is made anew, once.
//! Without a library, a driver or a GPU there is an [`Unavailable`] that says so, and the CPU serves.

pub mod cache;
pub mod key;

#[cfg(feature = "tensorrt")]
mod apart;
#[cfg(feature = "tensorrt")]
mod engine;
#[cfg(feature = "tensorrt")]
mod plan;
#[cfg(feature = "tensorrt")]
mod session;
#[cfg(test)]
#[cfg(feature = "tensorrt")]
mod tests;
#[cfg(feature = "tensorrt")]
mod together;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tensorrt")]
pub use apart::{Apart, give_way};
pub use cache::{Cache, Cached, Fault};
#[cfg(feature = "tensorrt")]
pub use engine::{Gpu, TensorRt};
pub use key::{Key, Machine};
#[cfg(feature = "tensorrt")]
pub use plan::{Builder, Made};
#[cfg(feature = "tensorrt")]
pub use together::Together;

use super::Model;
#[cfg(not(feature = "tensorrt"))]
use super::{EngineError, Tensor};

/// Its name in predictions.
pub const BACKEND: &str = "tensorrt";
/// How far an answer in fp16 may be off the CPU's (relative to 1, or to the value where larger): products keep 11
/// bits, and a network adds its layers' errors up. The shipped models lose up to 4e-4 where sums stay in fp32
/// (the test of [`crate::engines::computed`]); a GPU may sum in fp16.
pub const HALF_TOLERANCE: f64 = 1e-2;

/// What products are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    Fp32,
    Fp16,
}

impl Precision {
    pub const ALL: [Precision; 2] = [Precision::Fp32, Precision::Fp16];

    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
        }
    }

    /// How far an answer of that model may be off the CPU's.
    pub fn tolerance(self, model: &Model) -> f64 {
        match self {
            Precision::Fp32 => model.tolerance,
            Precision::Fp16 => model.tolerance.max(HALF_TOLERANCE),
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        let known = Precision::ALL.into_iter().find(|p| p.name() == text);
        known.ok_or_else(|| format!("{text:?} is no precision: fp32 and fp16 are"))
    }
}

/// Why there is no TensorRT here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("this program was built without TensorRT")]
    NotBuilt,
    /// The library is not there, or of another release.
    #[error("{0}")]
    Library(String),
    /// No driver, no GPU, or one that fails.
    #[error("{0}")]
    Gpu(String),
    /// Asked to build for a GPU that is not here.
    #[error("{0} builds for the GPU of its machine alone")]
    Target(&'static str),
}

impl Unavailable {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Unavailable::NotBuilt => {
                "build it with --features tensorrt-10 (JetPack 6), tensorrt-11 or tensorrt-rtx and the headers of \
                 that release in TENSORRT_INCLUDE: docs/tensorrt.md"
            }
            Unavailable::Library(_) => {
                "install TensorRT (on a Jetson: apt-get install nvidia-jetpack), or set TENSORRT_LIB to its folder"
            }
            Unavailable::Gpu(_) => {
                "engines run on a machine with an NVIDIA GPU and its driver; the CPU serves here"
            }
            Unavailable::Target(_) => {
                "run the same command on the machine that is to use the engines"
            }
        }
    }
}

/// Models that answer together: without TensorRT there are none.
#[cfg(not(feature = "tensorrt"))]
#[derive(Debug)]
pub enum Together {}

#[cfg(not(feature = "tensorrt"))]
impl Together {
    /// Whether it has not failed.
    pub fn works(&self) -> bool {
        match *self {}
    }

    /// The outputs of each model that is asked.
    ///
    /// # Errors
    /// None, for nobody can ask.
    pub fn run(&self, _: &[(usize, &[Tensor])]) -> Result<Vec<Vec<Tensor>>, EngineError> {
        match *self {}
    }
}

/// Whether TensorRT can run engines on this machine, and what machine it is.
///
/// # Errors
/// [`Unavailable`], with what is missing.
pub fn machine() -> Result<Machine, Unavailable> {
    #[cfg(feature = "tensorrt")]
    {
        Gpu::open().map(|gpu| gpu.machine().clone())
    }
    #[cfg(not(feature = "tensorrt"))]
    Err(Unavailable::NotBuilt)
}
