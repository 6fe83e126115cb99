//! Durability at leisure: a thread that syncs, at least once a second, what a lazy journal wrote, and the mark
//! that says how far the journal is durable.
//!
//! The mark is what tells a journal whose end was taken away from one that was torn by a crash: a file that
//! ends early says nothing of what stood behind. It only ever names what is durable already, so that a power
//! cut leaves one that lags, by a second at most, and never one that claims too much. A synced journal writes
//! it after each commit (16 bytes, in place, without a sync: the death of the process leaves it exact), a lazy
//! one after each sync of its logs. Making the mark itself durable costs one `fdatasync` a second, on this
//! thread: no commit waits for it.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::state::lock;
use super::{Bookmark, Error};

/// The most that a power cut may take from a lazy journal, and the most by which the mark of either lags then.
pub const LAZY_SYNC_EVERY: Duration = Duration::from_secs(1);
/// Where a journal keeps up to where it is durable.
const HIGH_WATER: &str = "highwater";

impl Bookmark {
    /// Up to where the journal in `dir` is known to have been durable.
    pub(super) fn high_water(dir: &Path) -> Bookmark {
        Bookmark::at(dir.join(HIGH_WATER))
    }
}

/// The mark, and whether the disk has it.
struct HighWater {
    bookmark: Bookmark,
    reached: u64,
    unsynced: bool,
    /// Said once, not at every commit.
    failed: bool,
}

impl HighWater {
    fn reach(&mut self, seq: u64) {
        if seq <= self.reached {
            return;
        }
        match self.bookmark.write(seq) {
            Ok(()) => {
                self.reached = seq;
                (self.unsynced, self.failed) = (true, false);
            }
            Err(e) => self.say(&e),
        }
    }

    fn say(&mut self, e: &Error) {
        if !std::mem::replace(&mut self.failed, true) {
            tracing::warn!("{e}; an end of the journal that goes missing may go unnoticed");
        }
    }
}

/// What the thread has to do.
#[derive(Default)]
struct Work {
    /// The files that were written since the last sync: one, or two where the tail was moved meanwhile.
    dirty: Vec<Arc<File>>,
    /// The sequence number behind what they hold.
    end_seq: u64,
    /// A sync failed, and nobody was told yet.
    failed: bool,
}

struct Desk {
    work: Mutex<Work>,
    mark: Mutex<HighWater>,
    stop: AtomicBool,
}

impl Desk {
    fn round(&self) {
        let (dirty, end_seq, trusted) = {
            let mut work = lock(&self.work);
            (std::mem::take(&mut work.dirty), work.end_seq, !work.failed)
        };
        if dirty.iter().any(|file| file.sync_data().is_err()) {
            lock(&self.work).failed = true;
        } else if trusted && !dirty.is_empty() {
            lock(&self.mark).reach(end_seq);
        }
        self.sync_mark();
    }

    fn sync_mark(&self) {
        let bookmark = {
            let mut mark = lock(&self.mark);
            if !std::mem::take(&mut mark.unsynced) {
                return;
            }
            mark.bookmark.clone()
        };
        if let Err(e) = bookmark.sync_data() {
            lock(&self.mark).say(&e);
        }
    }
}

/// The thread, and what it is told.
pub(super) struct LazySync {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl LazySync {
    /// For the journal in `dir`, all of which is durable up to `end_seq`.
    pub fn start(dir: &Path, end_seq: u64) -> std::io::Result<LazySync> {
        let bookmark = Bookmark::high_water(dir);
        let reached = bookmark.read().ok().flatten();
        let desk = Arc::new(Desk {
            work: Mutex::default(),
            mark: Mutex::new(HighWater {
                bookmark: bookmark.clone(),
                reached: reached.unwrap_or(0),
                unsynced: false,
                failed: false,
            }),
            stop: AtomicBool::new(false),
        });
        if reached.is_none()
            && let Err(e) = bookmark.write(end_seq).and_then(|()| bookmark.sync())
        {
            // On a full disk, say: it is tried again at each commit.
            lock(&desk.mark).say(&e);
        }
        lock(&desk.mark).reach(end_seq);
        let thread = std::thread::Builder::new()
            .name("journal-sync".into())
            .spawn({
                let desk = desk.clone();
                move || {
                    let mut stop = false;
                    while !stop {
                        std::thread::park_timeout(LAZY_SYNC_EVERY);
                        // What was written before this was asked for is synced in the round behind it.
                        stop = desk.stop.load(Ordering::Acquire);
                        desk.round();
                    }
                }
            })?;
        Ok(LazySync {
            desk,
            thread: Some(thread),
        })
    }

    /// Says that `file` was written to, up to the entry before `end_seq`.
    pub fn wrote(&self, file: &Arc<File>, end_seq: u64) {
        let mut work = lock(&self.desk.work);
        if !work.dirty.iter().any(|d| Arc::ptr_eq(d, file)) {
            work.dirty.push(file.clone());
        }
        work.end_seq = end_seq;
    }

    /// Says that all entries before `end_seq` are durable.
    pub fn durable(&self, end_seq: u64) {
        lock(&self.desk.mark).reach(end_seq);
    }

    /// Whether a sync failed since this was last asked: what the logs hold can no longer be trusted, and has to
    /// be written again.
    pub fn take_failure(&self) -> bool {
        let mut work = lock(&self.desk.work);
        let failed = std::mem::take(&mut work.failed);
        if failed {
            work.dirty.clear();
        }
        failed
    }

    /// Says that what could not be trusted could not be written again either.
    pub fn distrust(&self) {
        lock(&self.desk.work).failed = true;
    }

    /// Syncs what is left, and ends the thread.
    pub fn stop(&mut self) {
        self.desk.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Its panic is in the log already.
            let _ = thread.join();
        }
    }

    /// Makes the mark durable before it returns.
    pub fn end(&self, end_seq: u64) {
        self.durable(end_seq);
        self.desk.sync_mark();
    }
}

impl Drop for LazySync {
    fn drop(&mut self) {
        self.stop();
    }
}
