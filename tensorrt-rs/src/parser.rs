//! The ONNX parser: fills a network from a model.

use std::ffi::{CString, c_void};
use std::fs;
use std::path::Path;
use std::ptr::{self, NonNull};

use crate::logger::some;
use crate::{Error, Network, ParserError, ffi};

/// Most errors of one model that are kept.
const MOST_ERRORS: usize = 64;

/// Fills a network from an ONNX model: one model, one network.
///
/// It borrows the network, and logs to its builder's logger. The weights of what it has parsed stay in its C++
/// half, which the network keeps; so this half may go when it is done.
#[derive(Debug)]
pub struct Parser<'n, 'b> {
    raw: NonNull<ffi::Parser>,
    network: &'n mut Network<'b>,
}

impl<'n, 'b> Parser<'n, 'b> {
    /// A parser that fills `network`, which must be fresh: one that a model was parsed into, or in vain, is
    /// refused.
    pub fn new(network: &'n mut Network<'b>) -> Result<Self, Error> {
        if network.is_taken() {
            return Err(Error::Argument {
                what: "the network",
                found: "one that has had a parser".to_owned(),
                allowed: "each model wants a fresh one",
            });
        }
        let (builder, mut made) = (network.builder(), ptr::null_mut());
        let (create, logger) = (builder.library().parser()?, builder.logger());
        let mark = logger.mark();
        // SAFETY: the library's entry point; the network keeps what is made, and the logger outlives both.
        let status =
            unsafe { ffi::trt_parser_create(create, network.as_ptr(), logger.as_ptr(), &mut made) };
        logger.check("create an ONNX parser", mark, status)?;
        let raw = some(made)?;
        network.keep(raw);
        Ok(Self { raw, network })
    }

    /// Parses a model that is in memory. Weights that it keeps in other files are not found.
    pub fn parse(self, model: &[u8]) -> Result<(), Error> {
        self.parse_at(model, None)
    }

    /// Parses a file, with the weights that it keeps beside it.
    pub fn parse_file(self, path: &Path) -> Result<(), Error> {
        let argument = |found: String, allowed| Error::Argument {
            what: "the model",
            found,
            allowed,
        };
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| argument(path.display().to_string(), "a path may not contain NUL"))?;
        let model = fs::read(path).map_err(|e| {
            argument(
                format!("{}: {e}", path.display()),
                "it must be a file that can be read",
            )
        })?;
        self.parse_at(&model, Some(&name))
    }

    fn parse_at(self, model: &[u8], path: Option<&CString>) -> Result<(), Error> {
        let logger = self.network.builder().logger();
        let (mark, mut errors) = (logger.mark(), Vec::new());
        let path = path.map_or(ptr::null(), |p| p.as_ptr());
        // SAFETY: a live parser; the model is read during the call only; `errors` is what `push` wants.
        let status = unsafe {
            let user = (&raw mut errors).cast();
            ffi::trt_parser_parse(
                self.raw.as_ptr(),
                model.as_ptr().cast(),
                model.len(),
                path,
                push,
                user,
            )
        };
        match status {
            ffi::REFUSED => Err(Error::Parse {
                errors,
                log: logger.since(mark),
            }),
            // A file that was cut between two fields is still a file of the format, as is an empty one.
            ffi::OK if self.network.outputs().is_empty() => Err(Error::Parse {
                errors: vec![ParserError::of_file(
                    "the model has no outputs: is it an ONNX file, and all of it?",
                )],
                log: logger.since(mark),
            }),
            other => logger.check("parse the model", mark, other),
        }
    }
}

/// Collects an error.
///
/// # Safety
///
/// `user` is a `Vec<ParserError>`, `error` an error whose strings are strings or null.
pub(crate) unsafe extern "C" fn push(user: *mut c_void, error: *const ffi::ParserError) {
    // SAFETY: the caller's promise.
    let (errors, error) = unsafe { (&mut *user.cast::<Vec<ParserError>>(), &*error) };
    if errors.len() < MOST_ERRORS {
        // SAFETY: the caller's promise.
        errors.push(unsafe { ParserError::copied(error) });
    }
}
