//! Durability at leisure: a thread that syncs the log at least once a second.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::state::lock;

/// The most that a power cut may take from a lazy journal.
pub const LAZY_SYNC_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Desk {
    /// The files that were written since the last sync: one, or two where the tail was moved meanwhile.
    dirty: Mutex<Vec<Arc<File>>>,
    failed: AtomicBool,
    stop: AtomicBool,
}

/// The thread, and what it is told.
pub(super) struct LazySync {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl LazySync {
    pub fn start() -> std::io::Result<LazySync> {
        let desk = Arc::new(Desk::default());
        let thread = std::thread::Builder::new()
            .name("journal-sync".into())
            .spawn({
                let desk = desk.clone();
                move || {
                    while !desk.stop.load(Ordering::Acquire) {
                        std::thread::park_timeout(LAZY_SYNC_EVERY);
                        let dirty = std::mem::take(&mut *lock(&desk.dirty));
                        if dirty.iter().any(|file| file.sync_data().is_err()) {
                            desk.failed.store(true, Ordering::Release);
                        }
                    }
                }
            })?;
        Ok(LazySync {
            desk,
            thread: Some(thread),
        })
    }

    /// Says that `file` was written to.
    pub fn wrote(&self, file: &Arc<File>) {
        let mut dirty = lock(&self.desk.dirty);
        if !dirty.iter().any(|d| Arc::ptr_eq(d, file)) {
            dirty.push(file.clone());
        }
    }

    /// Whether a sync failed since this was last asked: what the log holds can no longer be trusted.
    pub fn take_failure(&self) -> bool {
        self.desk.failed.swap(false, Ordering::AcqRel)
    }
}

/// Syncs what is left.
impl Drop for LazySync {
    fn drop(&mut self) {
        self.desk.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
