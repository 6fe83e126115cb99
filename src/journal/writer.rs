//! The single writer: append, commit, and the index at the start. Moving the tail is the [mover](super::mover)'s.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::block::{self, Body, Encoding, KindSet, MAX_BLOCK_ENTRIES, weight};
use super::file::{AppendFile, FILE_HEADER_BYTES, LOG, create_dir, is_full};
use super::index::{Index, Mark};
use super::lazy::LazySync;
use super::mover::{Failed, Mover, Moving, meaning, parts};
use super::reader::Reader;
use super::recovery::{documents, recover, recover_beside};
use super::state::Shared;
use super::tail::{Chunk, TAIL_MEMORY};
use super::version::{Documents, Held, fold, is_indexed};
use super::{Bookmark, Durability, Error, Loss, Options, Progress};
use crate::record::{Entry, Kind};

/// A journal under writing. There is one writer; readers are as many as you like.
pub struct Journal {
    shared: Arc<Shared>,
    options: Options,
    /// Held while we write; the kernel lets go of it when we die.
    _lock: File,
    buffer: Vec<Entry>,
    /// Weight of each buffered entry, as [`weight`] has it.
    weights: Vec<usize>,
    /// Of the first buffered entry.
    buffer_seq: u64,
    /// The log that takes commits.
    log: Option<AppendFile>,
    /// Logs before it that still hold parts of the tail.
    old_logs: Vec<PathBuf>,
    /// Logs that hold the frozen tail.
    frozen_logs: Vec<PathBuf>,
    moving: Moving,
    lazy: LazySync,
    scratch: Vec<u8>,
    #[cfg(test)]
    pub(super) faults: Arc<super::file::Faults>,
}

impl Journal {
    /// Opens the journal in `dir`, creating it if there is none; mends what a crash left behind.
    pub fn open(
        dir: &Path,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Journal, Error> {
        create_dir(dir)?;
        let lock = lock_dir(dir)?;
        let floor = Bookmark::floor(dir);
        if floor.read()?.is_none()
            && let Err(e) = floor.write(0).and_then(|()| floor.sync())
        {
            // On a full disk, say: it is tried again when it is needed.
            tracing::warn!("{e}");
        }
        let found = recover(dir, true, progress)?;
        #[cfg(test)]
        let faults: Arc<super::file::Faults> = Arc::default();
        let resume = |f: &super::recovery::OpenFile| {
            AppendFile::resume(
                f.path.clone(),
                f.first_seq,
                f.end,
                #[cfg(test)]
                faults.clone(),
            )
            .map_err(|e| Error::io("continue", &f.path, e))
        };
        let segment = found.segment.as_ref().map(resume).transpose()?;
        let (last, before) = match found.logs.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, &[][..]),
        };
        let log = match last.filter(|l| l.end >= FILE_HEADER_BYTES) {
            Some(last) => Some(resume(last)?),
            None => None,
        };
        for old in before {
            // A lazy journal may have died before it was.
            let synced = File::open(&old.path).and_then(|log| log.sync_data());
            synced.map_err(|e| Error::io("sync", &old.path, e))?;
        }
        let old_logs = before.iter().map(|f| f.path.clone()).collect();
        // Not before what makes them spent is known to be on disk.
        for path in &found.spent {
            std::fs::remove_file(path).map_err(|e| Error::io("remove", path, e))?;
        }
        let shared = Shared::new(dir.to_owned(), true, found.state, found.losses);
        let buffer_seq = shared.state().next_seq;
        // What is continued was synced, whoever wrote it.
        let lazy = LazySync::start(dir, buffer_seq)
            .map_err(|e| Error::io("start a thread for", dir, e))?;
        let shared = Arc::new(shared);
        let moving = Moving::start(Mover {
            shared: shared.clone(),
            options: options.clone(),
            segment,
            #[cfg(test)]
            faults: faults.clone(),
        })
        .map_err(|e| Error::io("start a thread for", dir, e))?;
        let mut journal = Journal {
            buffer_seq,
            shared,
            options,
            _lock: lock,
            buffer: Vec::new(),
            weights: Vec::new(),
            log,
            old_logs,
            frozen_logs: Vec::new(),
            moving,
            lazy,
            scratch: Vec::new(),
            #[cfg(test)]
            faults,
        };
        journal.open_index(progress)?;
        {
            let mut mover = journal.moving.mover();
            if (mover.segment.as_ref()).is_some_and(|s| s.end >= mover.options.segment_bytes) {
                mover.seal();
            }
            mover.retain()?;
        }
        Ok(journal)
    }

    /// Reads the journal in `dir` as it stands, without touching it: beside a running daemon, or
    /// where there is none.
    pub fn open_read_only(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Reader, Error> {
        let found = recover_beside(dir, progress)?;
        let shared = Shared::new(dir.to_owned(), false, found.state, found.losses);
        Ok(Reader::new(Arc::new(shared)))
    }

    /// A reader of what is committed.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Sequence number of the next appended entry.
    pub fn next_seq(&self) -> u64 {
        self.buffer_seq + self.buffer.len() as u64
    }

    /// The damage found so far.
    pub fn losses(&self) -> Vec<Loss> {
        self.shared.losses()
    }

    /// Buffers entries for the next commit. Returns the sequence number of the first.
    pub fn append(&mut self, entries: Vec<Entry>) -> u64 {
        let first = self.next_seq();
        self.weights.extend(entries.iter().map(weight));
        self.buffer.extend(entries);
        first
    }

    /// Makes all that was appended durable, then shows it to readers. Returns the durable
    /// [`Journal::next_seq`]. On any error the buffer is whole and a later commit tries again.
    pub fn commit(&mut self) -> Result<u64, Error> {
        if self.buffer.is_empty() {
            return Ok(self.buffer_seq);
        }
        let started = Instant::now();
        self.check_room()?;
        self.note_move(false);
        let (held, memory) = {
            let tail = &self.shared.state().tail;
            (tail.entries, tail.memory)
        };
        let weight: usize = self.weights.iter().sum();
        let most = self.options.tail_entries.min(MAX_BLOCK_ENTRIES);
        let full = held + self.buffer.len() > most || memory + weight > TAIL_MEMORY;
        // Written once rather than twice, where there is so much that nobody minds the time it takes.
        let large = self.buffer.len() >= most / 2 || weight >= TAIL_MEMORY / 2;
        let distrusted = self.lazy.take_failure();
        let entries = self.buffer.len() as u64;
        if distrusted || (full && large) {
            if let Err(e) = self.move_all() {
                if distrusted {
                    self.lazy.distrust();
                }
                return Err(e);
            }
            self.lazy.durable(self.buffer_seq);
        } else {
            if full {
                self.begin_move()?;
            }
            self.write_log()?;
        }
        metrics::histogram!("trackside_journal_commit_seconds").record(started.elapsed());
        metrics::counter!("trackside_journal_entries_total").increment(entries);
        self.shared.committed.send_replace(self.buffer_seq);
        Ok(self.buffer_seq)
    }

    /// Commits, and closes the segment: at the end of a session.
    pub fn close_segment(&mut self) -> Result<(), Error> {
        self.commit()?;
        self.move_all()?;
        let mut mover = self.moving.mover();
        mover.seal();
        mover.retain()
    }

    /// Commits, and makes everything, index and all, survive a power cut.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), Error> {
        let committed = self.commit();
        self.note_move(true);
        self.lazy.stop();
        committed?;
        if self.lazy.take_failure() {
            self.move_all()?;
        }
        if let Some(log) = &mut self.log {
            log.sync().map_err(|e| Error::io("sync", &log.path, e))?;
        }
        self.lazy.end(self.buffer_seq);
        match self.shared.index_mut().take() {
            Some(index) => index.sync(),
            None => Ok(()),
        }
    }

    /// Refuses to begin what would eat the reserve.
    fn check_room(&self) -> Result<(), Error> {
        let dir = &self.shared.dir;
        let fs =
            rustix::fs::statvfs(dir).map_err(|e| Error::io("ask for room in", dir, e.into()))?;
        let available = fs.f_bavail.saturating_mul(fs.f_frsize);
        if available < self.options.reserve_bytes {
            return Err(Error::DiskFull {
                dir: dir.clone(),
                available,
                reserve: self.options.reserve_bytes,
            });
        }
        Ok(())
    }

    /// A small commit: one block of rows at the end of the log.
    fn write_log(&mut self) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let mut seq = self.buffer_seq;
        for part in parts(&self.weights) {
            let entries = &self.buffer[part];
            block::encode(&mut bytes, seq, entries.iter(), Encoding::Rows);
            seq += entries.len() as u64;
        }
        // After a sync that failed, nothing is known of what was written: once more, elsewhere.
        let written = match self.try_log(&bytes) {
            Err(Failed::Sync(e)) if !is_full(&e) => {
                tracing::warn!("a sync of the log failed ({e}); writing it again to a new log");
                self.try_log(&bytes)
            }
            other => other,
        };
        self.scratch = bytes;
        match written {
            Ok(()) => {}
            Err(Failed::Write(e) | Failed::Sync(e)) => {
                let dir = &self.shared.dir;
                return Err(meaning(dir, &self.options, "write to a log in", dir, e));
            }
        }
        let entries: Arc<[Entry]> = std::mem::take(&mut self.buffer).into();
        let documents = documents(self.buffer_seq, &entries);
        let memory = self.weights.drain(..).sum();
        let chunk = Chunk {
            first_seq: self.buffer_seq,
            entries,
        };
        self.buffer_seq = chunk.end_seq();
        let mut state = self.shared.state_mut();
        state.next_seq = chunk.end_seq();
        state.tail.push(chunk, memory, documents);
        Ok(())
    }

    fn try_log(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        if self.log.is_none() {
            let created = AppendFile::create(
                &self.shared.dir,
                self.buffer_seq,
                LOG,
                #[cfg(test)]
                self.faults.clone(),
            );
            self.log = Some(created.map_err(Failed::Write)?);
        }
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let before = log.end;
        log.append(bytes).map_err(Failed::Write)?;
        let end_seq = self.buffer_seq + self.buffer.len() as u64;
        if self.options.durability == Durability::Lazy {
            self.lazy.wrote(&log.file, end_seq);
            return Ok(());
        }
        if let Err(e) = log.sync() {
            log.truncate(before);
            self.abandon_log();
            return Err(Failed::Sync(e));
        }
        self.lazy.durable(end_seq);
        Ok(())
    }

    /// Leaves the log at its last durable offset; the next write begins a new one.
    fn abandon_log(&mut self) {
        let Some(log) = self.log.take() else { return };
        if log.end <= FILE_HEADER_BYTES {
            // It holds nothing, and its name is needed.
            let _ = std::fs::remove_file(&log.path);
        } else {
            self.old_logs.push(log.path);
        }
    }

    /// Takes note of a move that has ended; with `wait`, of one that has yet to end.
    fn note_move(&mut self, wait: bool) {
        if let Some(Err(e)) = self.moving.ended(wait) {
            // Its logs hold it all the same; it is tried again when the tail is full the next time.
            tracing::error!("the tail cannot be moved: {e}");
        }
        if !self.moving.is_out() && self.shared.state().frozen.entries == 0 {
            self.frozen_logs.clear();
        }
    }

    /// Freezes the tail for a move, and with it the logs that hold it. There must be no frozen one.
    fn freeze(&mut self) {
        let log = self.log.take().map(|log| log.path);
        self.frozen_logs = self.old_logs.drain(..).chain(log).collect();
        let mut state = self.shared.state_mut();
        state.frozen = std::mem::take(&mut state.tail);
    }

    /// Moves what is frozen, if a move failed before: waits for the one that is under way.
    fn move_frozen(&mut self) -> Result<(), Error> {
        self.note_move(true);
        if self.shared.state().frozen.entries > 0 {
            (self.moving.mover()).move_frozen(0, &[], &self.frozen_logs)?;
            self.frozen_logs.clear();
        }
        Ok(())
    }

    /// Has the tail moved, beside us: the next commit begins a new log.
    fn begin_move(&mut self) -> Result<(), Error> {
        self.move_frozen()?;
        self.freeze();
        match self.moving.begin(self.frozen_logs.clone()) {
            true => Ok(()),
            false => self.move_frozen(),
        }
    }

    /// Moves the tail, and what is buffered, before it returns.
    fn move_all(&mut self) -> Result<(), Error> {
        self.move_frozen()?;
        if self.buffer.is_empty() && self.shared.state().tail.entries == 0 {
            return Ok(());
        }
        self.freeze();
        (self.moving.mover()).move_frozen(self.buffer_seq, &self.buffer, &self.frozen_logs)?;
        self.frozen_logs.clear();
        self.buffer_seq = self.next_seq();
        self.buffer.clear();
        self.weights.clear();
        Ok(())
    }

    /// Opens the index, if that can be done: on a full disk perhaps not, and yet what the journal
    /// holds must be served, and the disk may get room again.
    fn open_index(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        match self.try_open_index(progress) {
            Err(e @ Error::Index { .. }) => {
                tracing::error!("{e}; looking versions up in the segments until the next start");
                Ok(())
            }
            other => other,
        }
    }

    /// Opens the index and brings it up to the last segment's end; builds it anew if it does not
    /// open or does not belong to these segments.
    fn try_open_index(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        let path = self.shared.dir.join("index");
        let opened = Index::open(&path).and_then(|index| match self.agrees(&index.mark)? {
            true => Ok(index),
            false => Err(Error::Index {
                path: path.clone(),
                why: "it does not belong to these segments".into(),
            }),
        });
        let mut index = match opened {
            Ok(index) => index,
            Err(e) => {
                tracing::warn!("{e}; building it anew from the segments");
                metrics::counter!("trackside_journal_index_rebuilds_total").increment(1);
                match std::fs::remove_dir_all(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &path, e));
                    }
                    _ => Index::open(&path)?,
                }
            }
        };
        self.catch_up(&mut index, progress)?;
        // An index that fell back to an earlier state may know what retention has removed since.
        let first_seq = self.reader().first_seq();
        if index.oldest < first_seq {
            index.forget_before(first_seq)?;
        }
        *self.shared.index_mut() = Some(index);
        Ok(())
    }

    /// Whether the index's mark is that of a block that we hold. Where the index knows of later
    /// entries than we do, sequence numbers go on behind them.
    fn agrees(&mut self, mark: &Mark) -> Result<bool, Error> {
        if mark.next_seq == 0 {
            return Ok(true);
        }
        let next_seq = self.shared.state().next_seq;
        if mark.next_seq > next_seq {
            let mut loss = Loss::new(&self.shared.dir, 0..0, "the index knows of later records");
            loss.seqs = Some(next_seq..mark.next_seq);
            tracing::error!("{loss}");
            self.shared.add_loss(loss);
            self.shared.state_mut().next_seq = mark.next_seq;
            self.buffer_seq = mark.next_seq;
            self.shared.committed.send_replace(mark.next_seq);
            return Ok(false);
        }
        if mark.block.0 < self.reader().first_seq() {
            return Ok(true);
        }
        let segments = self.shared.state().segments.clone();
        let at = segments.partition_point(|s| s.end_seq <= mark.block.0);
        let Some(segment) = segments.get(at) else {
            return Ok(false);
        };
        let Some(handle) = self.shared.handle(segment)? else {
            return Ok(false);
        };
        let found = handle.block_at(mark.block.0).map(|b| b.header);
        Ok(found.is_some_and(|h| {
            (h.first_seq, h.body_crc) == mark.block && h.end_seq() == mark.next_seq
        }))
    }

    /// Reads what the index does not know yet from the segments.
    fn catch_up(&self, index: &mut Index, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        let segments = self.shared.state().segments.clone();
        let start = index.mark.next_seq;
        let of = segments.last().map_or(0, |s| s.end_seq);
        let indexed = KindSet::of(Kind::ALL.into_iter().filter(|k| !k.streams()));
        for segment in segments.iter().filter(|s| s.end_seq > start) {
            let Some(handle) = self.shared.handle(segment)? else {
                continue;
            };
            for meta in handle.blocks.iter() {
                if meta.header.end_seq() <= start {
                    continue;
                }
                progress(Progress {
                    what: "building the index",
                    done: meta.header.first_seq,
                    of,
                });
                let Ok(bytes) = self.shared.read(&handle, meta)? else {
                    continue;
                };
                let entries = Body::open(meta.header, &bytes).and_then(|b| {
                    let kinds = if b.has_keys()? { KindSet::ALL } else { indexed };
                    b.entries(kinds)
                });
                let Ok(entries) = entries else { continue };
                let mut documents = Documents::default();
                for (seq, entry) in &entries {
                    let held = Held::of(*seq, entry);
                    fold(&mut documents, entry.document(), held);
                }
                let rows = documents.iter().filter(|(key, held)| is_indexed(key, held));
                let block = (meta.header.first_seq, meta.header.body_crc);
                index.apply(rows, meta.header.end_seq(), block)?;
            }
        }
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(e) = self.shut() {
            tracing::warn!("closing the journal: {e}");
        }
    }
}

/// How long the lock is waited for: a process that is just ending, or a child that has just been forked, may hold
/// it for an instant more.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One writer at a time. The kernel lets go of the lock when its process dies.
pub(super) fn lock_dir(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| Error::io("open", &path, e))?;
    let began = Instant::now();
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::Locked {
                    dir: dir.to_owned(),
                });
            }
            Err(e) => return Err(Error::io("lock", &path, e.into())),
        }
    }
}
