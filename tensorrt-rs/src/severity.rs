//! How bad a message is.

use std::fmt;

/// How bad a message is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// An error inside TensorRT, from which it does not recover.
    InternalError,
    /// An error of the application's.
    Error,
    /// Something that was made the best of.
    Warning,
    /// Information.
    Info,
    /// For who debugs TensorRT.
    Verbose,
}

impl Severity {
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            0 => Self::InternalError,
            1 => Self::Error,
            2 => Self::Warning,
            3 => Self::Info,
            _ => Self::Verbose,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InternalError => "internal error",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Verbose => "verbose",
        })
    }
}
