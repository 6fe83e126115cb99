//! Versions: what the shim was compiled against, and what was loaded.

use std::fmt;

use crate::ffi;

/// The release that the shim is compiled for.
pub const RELEASE: &str = if cfg!(feature = "rtx") {
    "TensorRT-RTX 1"
} else if cfg!(feature = "tensorrt-11") {
    "TensorRT 11"
} else {
    "TensorRT 10"
};

/// Whether the release can be told to compute an fp32 model in fp16 ([`BuilderConfig::fp16`]). Where it cannot,
/// precision is the model's own: give it an ONNX file in fp16.
///
/// [`BuilderConfig::fp16`]: crate::BuilderConfig::fp16
pub const HAS_FP16_FLAG: bool = cfg!(feature = "tensorrt-10");

/// The folder of the headers that the shim was compiled against, on the machine that compiled it: for tests that
/// compile more against the same.
#[doc(hidden)]
pub const HEADERS: &str = env!("TENSORRT_RS_HEADERS");

/// A version of TensorRT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major: another one has another interface.
    pub major: u32,
    /// Minor: a newer one has more.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

impl Version {
    /// The headers that the shim was compiled against.
    pub fn of_headers() -> Self {
        headers().0
    }

    /// From the number that a library gives: major · 10,000 + minor · 100 + patch.
    pub(crate) fn from_number(number: i32) -> Self {
        let number = u32::try_from(number).unwrap_or(0);
        Self {
            major: number / 10_000,
            minor: number / 100 % 100,
            patch: number % 100,
        }
    }
}

/// The headers' version, and the number of their ONNX parser.
pub(crate) fn headers() -> (Version, i32) {
    let (mut major, mut minor, mut patch, mut parser) = (0, 0, 0, 0);
    // SAFETY: four numbers are written.
    unsafe { ffi::trt_headers(&mut major, &mut minor, &mut patch, &mut parser) };
    let part = |n| u32::try_from(n).unwrap_or(0);
    (
        Version {
            major: part(major),
            minor: part(minor),
            patch: part(patch),
        },
        parser,
    )
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_apart() {
        assert_eq!(
            Version::from_number(10_701),
            Version {
                major: 1,
                minor: 7,
                patch: 1
            }
        );
        assert_eq!(
            Version::from_number(100_300),
            Version {
                major: 10,
                minor: 3,
                patch: 0
            }
        );
        assert_eq!(Version::from_number(110_400).to_string(), "11.4.0");
    }

    #[test]
    fn the_headers_are_of_the_release() {
        let wanted = if cfg!(feature = "rtx") {
            1
        } else if cfg!(feature = "tensorrt-11") {
            11
        } else {
            10
        };
        assert_eq!(Version::of_headers().major, wanted);
    }
}
