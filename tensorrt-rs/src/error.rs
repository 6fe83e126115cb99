//! What can go wrong, in TensorRT's own words.

use std::ffi::CStr;
use std::fmt;
use std::path::PathBuf;

use crate::{DataType, Version, ffi};

/// What TensorRT's logger heard while an operation failed; oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log(pub(crate) Vec<String>);

impl Log {
    /// The messages, oldest first.
    pub fn messages(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("TensorRT gave no reason"),
            false => f.write_str(&self.0.join("; ")),
        }
    }
}

/// One thing that the ONNX parser did not like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParserError {
    /// The parser's number for the kind of error; 3 is a file that is no ONNX, 8 an operator that it does not have.
    pub code: i32,
    /// The description.
    pub description: String,
    /// The node's index in the graph.
    pub node: Option<u32>,
    /// The node's name, empty where it has none.
    pub node_name: String,
    /// The node's operator, empty where there is none.
    pub operator: String,
}

impl ParserError {
    /// An error about the whole file.
    pub(crate) fn of_file(description: &str) -> Self {
        let (node_name, operator) = (String::new(), String::new());
        Self {
            code: 3,
            description: description.to_owned(),
            node: None,
            node_name,
            operator,
        }
    }

    /// # Safety
    ///
    /// The pointers are null or point to strings.
    pub(crate) unsafe fn copied(from: &ffi::ParserError) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                code: from.code,
                description: text(from.description),
                node: u32::try_from(from.node).ok(),
                node_name: text(from.node_name),
                operator: text(from.node_operator),
            }
        }
    }
}

/// # Safety
///
/// `from` is null or points to a string.
pub(crate) unsafe fn text(from: *const std::ffi::c_char) -> String {
    match from.is_null() {
        true => String::new(),
        // SAFETY: the caller's promise.
        false => unsafe { CStr::from_ptr(from) }
            .to_string_lossy()
            .into_owned(),
    }
}

impl fmt::Display for ParserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = self.node.filter(|_| !self.operator.is_empty()) {
            write!(f, "node {node} ({}", self.operator)?;
            if !self.node_name.is_empty() {
                write!(f, " {:?}", self.node_name)?;
            }
            f.write_str("): ")?;
        }
        write!(f, "{} (code {})", self.description.trim_end(), self.code)
    }
}

fn joined(errors: &[ParserError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Why an operation of this crate failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A library is not there, or not what it should be.
    #[error(
        "cannot load {library}: {reason}; install it, or set TENSORRT_LIB to the folder that holds it"
    )]
    Load {
        /// The file or name that was tried.
        library: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// The library is not of the release that this program was compiled for.
    #[error(
        "{library} is {what} {found}, but this program was compiled with the headers of {headers}; \
         load that release, or rebuild with TENSORRT_INCLUDE set to the headers of {found}"
    )]
    VersionMismatch {
        /// The library.
        library: PathBuf,
        /// TensorRT, or its ONNX parser.
        what: &'static str,
        /// Its version.
        found: Version,
        /// The headers' version.
        headers: Version,
    },
    /// There is no CUDA driver or no GPU. Building with TensorRT-RTX needs none; running an engine does.
    #[error(
        "no CUDA driver: {reason}; engines run only on a machine with an NVIDIA GPU and its driver"
    )]
    NoDriver {
        /// What the loader or the driver said.
        reason: String,
    },
    /// The release that this program was compiled for has no such thing.
    #[error("{release} has no {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// The release.
        release: &'static str,
    },
    /// The model is not one that TensorRT can take in.
    #[error("the model was not parsed: {}", if errors.is_empty() { log.to_string() } else { joined(errors) })]
    Parse {
        /// What the parser did not like, in its order.
        errors: Vec<ParserError>,
        /// What the logger heard.
        log: Log,
    },
    /// TensorRT refused.
    #[error("cannot {operation}: {log}")]
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// What the logger heard.
        log: Log,
    },
    /// C++ code threw an exception.
    #[error("cannot {operation}: an exception was thrown: {exception}")]
    Exception {
        /// What was attempted.
        operation: &'static str,
        /// The exception's text.
        exception: String,
    },
    /// There is no tensor of that name.
    #[error("there is no {what} {name:?}; there are: {have}")]
    NoSuchTensor {
        /// Input, output or tensor.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        have: String,
    },
    /// A buffer holds another type than the tensor.
    #[error("tensor {name:?} holds {expected}, the buffer {found}")]
    WrongType {
        /// The tensor.
        name: String,
        /// Its type.
        expected: DataType,
        /// The buffer's.
        found: DataType,
    },
    /// A shape is none that the tensor may have.
    #[error("tensor {name:?} cannot have the shape {found:?}: {allowed}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// The shape that was given.
        found: Vec<i64>,
        /// What it may be.
        allowed: String,
    },
    /// A buffer is too small for the tensor.
    #[error("tensor {name:?} needs {needed} bytes, the buffer has {found}")]
    TooSmall {
        /// The tensor.
        name: String,
        /// What it needs (bytes).
        needed: usize,
        /// What the buffer has (bytes).
        found: usize,
    },
    /// Something is to be run before it is complete.
    #[error("tensor {name:?} has no {missing} yet")]
    NotReady {
        /// The tensor.
        name: String,
        /// Shape or buffer.
        missing: &'static str,
    },
    /// Two objects of different builders do not go together.
    #[error("the {what} is of another builder")]
    Foreign {
        /// Network, profile or configuration.
        what: &'static str,
    },
    /// An argument that TensorRT could not even be asked with.
    #[error("{what}: {found}; {allowed}")]
    Argument {
        /// The argument.
        what: &'static str,
        /// What was given.
        found: String,
        /// What may be given.
        allowed: &'static str,
    },
}
