//! What the command line says: on the standard output and, to people, on the standard error.
//!
//! Not `println!`, which panics where nobody reads any more (`trackside journal ls | head`). What cannot be said
//! is left unsaid, and the command goes on to its own end and exit code.

use std::fmt::Arguments;
use std::io::Write;

/// A line of what was asked for.
macro_rules! say {
    ($($what:tt)*) => { $crate::cli::say::out(format_args!($($what)*)) };
}

/// A line beside it: a fault, or how it went.
macro_rules! note {
    ($($what:tt)*) => { $crate::cli::say::err(format_args!($($what)*)) };
}

pub(super) use {note, say};

/// Writes a line to the standard output.
pub(super) fn out(line: Arguments) {
    let mut out = std::io::stdout().lock();
    // Nobody reads: there is nobody to tell, either.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Writes a line to the standard error.
pub(super) fn err(line: Arguments) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
