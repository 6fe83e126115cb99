//! Tensors: their types, shapes and names.

use std::ffi::{CString, c_void};
use std::fmt;

use crate::{Error, ffi};

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// 32-bit floating point.
    F32,
    /// IEEE 16-bit floating point.
    F16,
    /// Signed 8-bit integer.
    I8,
    /// Signed 32-bit integer.
    I32,
    /// Boolean, a byte each.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// 8-bit floating point.
    F8,
    /// The upper half of a 32-bit floating point.
    BF16,
    /// Signed 64-bit integer.
    I64,
    /// Another: TensorRT's number for it.
    Other(i32),
}

impl DataType {
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::I8,
            3 => Self::I32,
            4 => Self::Bool,
            5 => Self::U8,
            6 => Self::F8,
            7 => Self::BF16,
            8 => Self::I64,
            other => Self::Other(other),
        }
    }

    /// Size of one element (bytes); nothing for types that are packed or unknown.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::I64 => Some(8),
            Self::F32 | Self::I32 => Some(4),
            Self::F16 | Self::BF16 => Some(2),
            Self::I8 | Self::Bool | Self::U8 | Self::F8 => Some(1),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => write!(f, "type {number}"),
            known => f.write_str(&format!("{known:?}").to_lowercase()),
        }
    }
}

/// A type of Rust's that a tensor can hold.
///
/// # Safety
///
/// The type has the size and meaning of `TYPE`, and any bytes are a valid value of it.
pub unsafe trait Element: Copy + 'static {
    /// The tensor's type.
    const TYPE: DataType;
}

// SAFETY: the same size and meaning.
unsafe impl Element for f32 {
    const TYPE: DataType = DataType::F32;
}
// SAFETY: the same size and meaning.
unsafe impl Element for i32 {
    const TYPE: DataType = DataType::I32;
}
// SAFETY: the same size and meaning.
unsafe impl Element for i64 {
    const TYPE: DataType = DataType::I64;
}
// SAFETY: the same size and meaning.
unsafe impl Element for i8 {
    const TYPE: DataType = DataType::I8;
}
// SAFETY: the same size and meaning.
unsafe impl Element for u8 {
    const TYPE: DataType = DataType::U8;
}

/// An IEEE 16-bit floating point number, as its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Half(pub u16);

// SAFETY: the same size and meaning.
unsafe impl Element for Half {
    const TYPE: DataType = DataType::F16;
}

/// A buffer on the device: an address that a kernel may use, what it holds, and how much of it there is.
///
/// An address of mapped host memory, as an integrated GPU has it, is one too. Making one is safe; giving it to a
/// context is not ([`ExecutionContext::bind`]).
///
/// [`ExecutionContext::bind`]: crate::ExecutionContext::bind
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceBuffer {
    pub(crate) address: *mut c_void,
    pub(crate) holds: DataType,
    pub(crate) bytes: usize,
}

// SAFETY: an address, which means something only to those who promise that it does.
unsafe impl Send for DeviceBuffer {}
// SAFETY: as above.
unsafe impl Sync for DeviceBuffer {}

impl DeviceBuffer {
    /// A buffer of `elements` values of `T` at `address` (a `CUdeviceptr`).
    pub fn new<T: Element>(address: u64, elements: usize) -> Self {
        Self::of(address, T::TYPE, elements.saturating_mul(size_of::<T>()))
    }

    /// A buffer of `bytes` bytes that hold `holds`.
    pub fn of(address: u64, holds: DataType, bytes: usize) -> Self {
        Self {
            address: std::ptr::without_provenance_mut(address as usize),
            holds,
            bytes,
        }
    }
}

/// An input or output of a network or engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub holds: DataType,
    /// Its shape; −1 where a dimension is dynamic.
    pub shape: Vec<i64>,
    /// Input or output.
    pub is_input: bool,
    /// Whether it is read from or written to host memory (shapes) rather than the device's.
    pub on_host: bool,
}

impl Tensor {
    /// Whether any dimension is dynamic.
    pub fn is_dynamic(&self) -> bool {
        self.shape.iter().any(|&n| n < 0)
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.holds, self.shape)
    }
}

/// How many elements a shape has; nothing if it has a dynamic dimension.
pub(crate) fn volume(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |volume, &n| {
        volume.checked_mul(usize::try_from(n).ok()?)
    })
}

impl ffi::Dims {
    /// For TensorRT, if the rank is one that it has.
    pub(crate) fn from_shape(name: &str, shape: &[i64]) -> Result<Self, Error> {
        if shape.len() > ffi::MAX_RANK {
            return Err(Error::WrongShape {
                name: name.to_owned(),
                found: shape.to_vec(),
                allowed: format!("at most {} dimensions", ffi::MAX_RANK),
            });
        }
        let mut dims = Self {
            rank: shape.len() as i32,
            ..Self::default()
        };
        dims.extent[..shape.len()].copy_from_slice(shape);
        Ok(dims)
    }

    /// Empty where TensorRT has no answer.
    pub(crate) fn to_shape(self) -> Vec<i64> {
        let rank = usize::try_from(self.rank).unwrap_or(0).min(ffi::MAX_RANK);
        self.extent[..rank].to_vec()
    }
}

/// A name for TensorRT.
pub(crate) fn c_name(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::Argument {
        what: "a name",
        found: format!("{name:?}"),
        allowed: "it may not contain NUL",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_known_only_of_static_shapes() {
        assert_eq!(volume(&[20, 50, 3]), Some(3000));
        assert_eq!(volume(&[]), Some(1));
        assert_eq!(volume(&[20, 0]), Some(0));
        assert_eq!(volume(&[-1, 4]), None);
        assert_eq!(volume(&[i64::MAX, i64::MAX]), None);
    }

    #[test]
    fn shapes_go_to_and_fro() {
        let dims = ffi::Dims::from_shape("x", &[1, -1, 3]).unwrap();
        assert_eq!(dims.to_shape(), [1, -1, 3]);
        assert!(ffi::Dims { rank: -1, ..dims }.to_shape().is_empty());
        let error = ffi::Dims::from_shape("x", &[1; 9]).unwrap_err().to_string();
        assert!(error.contains("at most 8 dimensions"), "{error}");
    }

    #[test]
    fn a_name_with_nul_is_refused() {
        assert!(
            c_name("car\0data")
                .unwrap_err()
                .to_string()
                .contains(r#""car\0data""#)
        );
    }
}
