//! Real processes for the tests in `tests/`: a broker, our binary, a publisher, the recordings.
//!
//! *Invariant:* whatever a test starts is gone when the test is, also when it fails; every wait has a
//! limit; and what a failed test wrote (configurations, logs, journals) is kept and its place printed.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses its own part"
)]
#![allow(
    clippy::print_stderr,
    reason = "a failed test says where its traces are"
)]

mod broker;
mod browser;
mod daemon;
mod http;
pub mod mqtt;
mod official;
mod process;
mod proxy;
mod publisher;
mod recording;
mod subscriber;

pub use broker::{Broker, BrokerOptions, free_port};
pub use browser::Browser;
pub use daemon::{Daemon, mqtt_source, mqtt_source_at, trackside};
pub use http::get;
pub use official::{Classified, Count, Official, Stint, Stop};
pub use process::Process;
pub use proxy::Proxy;
pub use publisher::{Publisher, publish_packet};
pub use recording::{Recorded, Recording, data, version};
pub use subscriber::{Heard, Subscriber};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pause between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// Looks until `look` gives something, for at most `limit`.
///
/// # Panics
/// When the time is up, naming what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(POLL);
    }
}

/// A folder that lives as long as its test; kept, and named, if the test fails.
pub struct Scratch {
    folder: Option<tempfile::TempDir>,
}

impl Scratch {
    pub fn new() -> Scratch {
        let folder = tempfile::Builder::new()
            .prefix("trackside-test-")
            .tempdir()
            .expect("a temporary folder");
        Scratch {
            folder: Some(folder),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.as_ref().expect("until it is dropped").path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("kept for a look: {}", folder.keep().display());
        }
    }
}
