//! The logger: keeps the last errors, and passes everything on.

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Log, text};
use crate::version::RELEASE;
use crate::{Severity, ffi};

/// Longest message that is kept (bytes).
const LONGEST: usize = 4096;
/// How many warnings and errors are kept.
const KEPT: usize = 64;

/// Loggers that were let go. A library keeps the first logger that it was given, so none is ever freed; their
/// number is that of the loggers that ever lived at the same time.
static SPARE: Mutex<Vec<Shell>> = Mutex::new(Vec::new());

/// The C++ side of a logger.
struct Shell(NonNull<ffi::Logger>);

// SAFETY: the C++ logger guards itself with a mutex.
unsafe impl Send for Shell {}
// SAFETY: as above.
unsafe impl Sync for Shell {}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Sink = Box<dyn Fn(Severity, &str) + Send + Sync>;

#[derive(Default)]
struct Recent {
    /// How many messages were kept so far, gone ones included.
    count: u64,
    messages: VecDeque<(Severity, String)>,
}

struct Heard {
    recent: Mutex<Recent>,
    sink: Option<Sink>,
}

/// TensorRT's logger. It keeps the last 64 warnings and errors, out of which this crate's errors are made, and
/// passes every message on to a closure, if it has one: the place to forward to `log` or `tracing`.
///
/// Builders and runtimes borrow or share it. A logger that several threads build with at the same time works;
/// the messages of their errors may then be mixed.
///
/// ```
/// use tensorrt_rs::{Logger, Severity};
///
/// let logger = Logger::with_sink(|severity, message| {
///     if severity <= Severity::Warning {
///         eprintln!("{severity}: {message}");
///     }
/// })?;
/// # Ok::<(), tensorrt_rs::Error>(())
/// ```
pub struct Logger {
    shell: Shell,
    heard: Box<Heard>,
}

/// A moment in a logger's life.
#[derive(Clone, Copy)]
pub(crate) struct Mark(u64);

impl Logger {
    /// A logger that only keeps.
    pub fn new() -> Result<Self, Error> {
        Self::attached(None)
    }

    /// A logger that also calls `sink` with every message, information and chatter included.
    ///
    /// `sink` is called from whatever thread TensorRT is on, several at a time. It must not call TensorRT. A
    /// panic in it is caught and forgotten.
    pub fn with_sink(sink: impl Fn(Severity, &str) + Send + Sync + 'static) -> Result<Self, Error> {
        Self::attached(Some(Box::new(sink)))
    }

    fn attached(sink: Option<Sink>) -> Result<Self, Error> {
        let spare = locked(&SPARE).pop();
        let shell = match spare {
            Some(shell) => shell,
            None => {
                let mut made = ptr::null_mut();
                // SAFETY: one pointer is written.
                let status = unsafe { ffi::trt_logger_create(&mut made) };
                plain("create a logger", status)?;
                Shell(NonNull::new(made).ok_or_else(nothing)?)
            }
        };
        let heard = Box::new(Heard {
            recent: Mutex::default(),
            sink,
        });
        let user: *const Heard = &*heard;
        // SAFETY: `heard` stays where it is, and lives until `drop` has detached.
        let status = unsafe {
            ffi::trt_logger_attach(shell.0.as_ptr(), heard_message, user.cast_mut().cast())
        };
        plain("attach a logger", status)?;
        Ok(Self { shell, heard })
    }

    /// The warnings and errors that are kept, oldest first.
    pub fn recent(&self) -> Vec<(Severity, String)> {
        locked(&self.heard.recent)
            .messages
            .iter()
            .cloned()
            .collect()
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::Logger {
        self.shell.0.as_ptr()
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(locked(&self.heard.recent).count)
    }

    /// The errors since `mark`; where there are none, the warnings.
    pub(crate) fn since(&self, mark: Mark) -> Log {
        let recent = locked(&self.heard.recent);
        let fresh = usize::try_from(recent.count - mark.0)
            .unwrap_or(KEPT)
            .min(recent.messages.len());
        let fresh = recent.messages.range(recent.messages.len() - fresh..);
        let errors: Vec<String> = fresh
            .clone()
            .filter(|(s, _)| *s <= Severity::Error)
            .map(|(_, m)| m.clone())
            .collect();
        match errors.is_empty() {
            true => Log(fresh.map(|(_, m)| m.clone()).collect()),
            false => Log(errors),
        }
    }

    /// Turns a status of the shim into an error that says what the logger heard since `mark`.
    pub(crate) fn check(
        &self,
        operation: &'static str,
        mark: Mark,
        status: i32,
    ) -> Result<(), Error> {
        match status {
            ffi::REFUSED => Err(Error::Refused {
                operation,
                log: self.since(mark),
            }),
            other => plain(operation, other),
        }
    }

    #[cfg(test)]
    fn say(&self, severity: i32, message: &CStr) {
        // SAFETY: a logger and a string.
        unsafe { ffi::trt_logger_say(self.as_ptr(), severity, message.as_ptr()) };
    }
}

fn nothing() -> Error {
    Error::Refused {
        operation: "create an object",
        log: Log::default(),
    }
}

/// What a null pointer with a good status would be.
pub(crate) fn some<T>(made: *mut T) -> Result<NonNull<T>, Error> {
    NonNull::new(made).ok_or_else(nothing)
}

/// Turns a status of the shim into an error where no logger is at hand.
pub(crate) fn plain(operation: &'static str, status: i32) -> Result<(), Error> {
    match status {
        ffi::OK => Ok(()),
        ffi::UNSUPPORTED => Err(Error::Unsupported {
            what: operation,
            release: RELEASE,
        }),
        ffi::THREW => Err(Error::Exception {
            operation,
            // SAFETY: a string of this thread's, copied at once.
            exception: unsafe { text(ffi::trt_exception()) },
        }),
        _ => Err(Error::Refused {
            operation,
            log: Log::default(),
        }),
    }
}

/// Names what the release lacks, where that is what went wrong.
pub(crate) fn lacking(done: Result<(), Error>, what: &'static str) -> Result<(), Error> {
    done.map_err(|error| match error {
        Error::Unsupported { release, .. } => Error::Unsupported { what, release },
        other => other,
    })
}

/// # Safety
///
/// `user` is the `Heard` of a logger that is attached, `message` a string.
unsafe extern "C" fn heard_message(user: *mut c_void, severity: i32, message: *const c_char) {
    // Nothing may unwind into C++, neither from here nor from the sink.
    let caught: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promise.
        let (heard, message) = unsafe { (&*user.cast::<Heard>(), CStr::from_ptr(message)) };
        let (severity, message) = (Severity::from_number(severity), message.to_string_lossy());
        if severity <= Severity::Warning {
            let end = message.floor_char_boundary(LONGEST);
            let mut recent = locked(&heard.recent);
            if recent.messages.len() == KEPT {
                recent.messages.pop_front();
            }
            recent.count += 1;
            recent
                .messages
                .push_back((severity, message[..end].trim_end().to_owned()));
        }
        if let Some(sink) = &heard.sink {
            sink(severity, &message);
        }
    }));
    if let Err(panic) = caught {
        // Its drop could panic too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        // SAFETY: waits until nobody calls `heard_message` any more; after it nobody will.
        unsafe { ffi::trt_logger_detach(self.shell.0.as_ptr()) };
        locked(&SPARE).push(Shell(self.shell.0));
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger")
            .field("recent", &self.recent())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn warnings_and_errors_are_kept_up_to_a_bound() {
        let logger = Logger::new().unwrap();
        logger.say(3, c"information");
        logger.say(2, c"warning");
        let mark = logger.mark();
        assert_eq!(logger.recent(), [(Severity::Warning, "warning".to_owned())]);
        assert!(logger.since(mark).messages().is_empty());
        logger.say(2, c"another");
        assert_eq!(logger.since(mark).messages(), ["another"]);
        logger.say(1, c"error");
        assert_eq!(
            logger.since(mark).messages(),
            ["error"],
            "errors go before warnings"
        );
        for _ in 0..1000 {
            logger.say(0, c"worse");
        }
        assert_eq!(logger.recent().len(), KEPT);
        assert_eq!(logger.since(mark).messages().len(), KEPT);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let logger = Logger::new().unwrap();
        let long = std::ffi::CString::new("é".repeat(LONGEST)).unwrap();
        logger.say(1, &long);
        assert_eq!(logger.recent()[0].1.len(), LONGEST);
    }

    #[test]
    fn a_panicking_sink_is_survived() {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&calls);
        let logger = Logger::with_sink(move |_, _| {
            seen.fetch_add(1, Ordering::Relaxed);
            panic!("a sink that panics");
        })
        .unwrap();
        logger.say(1, c"one");
        logger.say(1, c"two");
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert_eq!(logger.recent().len(), 2);
    }

    #[test]
    fn a_detached_shell_is_silent() {
        let heard = Heard {
            recent: Mutex::default(),
            sink: None,
        };
        let user: *const Heard = &heard;
        let mut shell = ptr::null_mut();
        // SAFETY: what `Logger` does, with a shell that no other test gets to see.
        unsafe {
            assert_eq!(ffi::trt_logger_create(&mut shell), ffi::OK);
            ffi::trt_logger_attach(shell, heard_message, user.cast_mut().cast());
            ffi::trt_logger_say(shell, 1, c"heard".as_ptr());
            ffi::trt_logger_detach(shell);
            ffi::trt_logger_say(shell, 1, c"from a library that still holds it".as_ptr());
        }
        assert_eq!(locked(&heard.recent).count, 1);
    }

    #[test]
    fn threads_may_speak_at_once() {
        let logger = Logger::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| logger.say(1, c"error")));
            }
        });
        assert_eq!(locked(&logger.heard.recent).count, 4000);
    }
}
