//! Moves the tail into segments, seals them, and retains: on a thread beside the writer's, so that no commit
//! waits for the encoding of 16,384 entries, nor for a second file's `fdatasync`.
//!
//! The writer hands over one frozen tail at a time and goes on with a log of its own; should that one be full
//! before the move is done, it waits. What a move does, in order: blocks → segment → `fdatasync` → index →
//! readers see the segment in place of the frozen tail → the logs that held it are unlinked. Until then these
//! logs hold it, so that a crash at any moment leaves what it left when the writer did all this itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::block::{self, Encoding, MAX_BLOCK_ENTRIES, MAX_BLOCK_MEMORY, weight};
use super::file::{AppendFile, FILE_HEADER_BYTES, SEGMENT, is_full, sync_dir};
use super::segment::{BlockMeta, Handle, Segment, footer};
use super::state::{Decoded, Shared, lock};
use super::tail::Tail;
use super::version::{Documents, fold, is_indexed};
use super::{Bookmark, Error, Options};
use crate::record::Entry;

/// Blocks that are kept decoded as they are written. More would push each other out.
const REMEMBERED: usize = 2;

/// A write or a sync that failed: after the latter nothing is known of what was written.
pub(super) enum Failed {
    Write(io::Error),
    Sync(io::Error),
}

/// What an I/O error means to who called.
pub(super) fn meaning(
    dir: &Path,
    options: &Options,
    action: &'static str,
    path: &Path,
    e: io::Error,
) -> Error {
    if is_full(&e) {
        return Error::DiskFull {
            dir: dir.to_owned(),
            available: 0,
            reserve: options.reserve_bytes,
        };
    }
    Error::io(action, path, e)
}

/// Writes the segments. There is one; who moves holds its lock.
pub(super) struct Mover {
    pub shared: Arc<Shared>,
    pub options: Options,
    /// The segment that may grow.
    pub segment: Option<AppendFile>,
    #[cfg(test)]
    pub faults: Arc<super::file::Faults>,
}

impl Mover {
    /// Moves the frozen tail, and `buffered` behind it (which begins at `buffer_seq`), into the segment as
    /// columns; then drops `logs`. Seals the segment if it has grown large enough.
    ///
    /// # Errors
    /// Nothing has been moved then: the frozen tail is where it was, and so are the logs.
    pub fn move_frozen(
        &mut self,
        buffer_seq: u64,
        buffered: &[Entry],
        logs: &[PathBuf],
    ) -> Result<(), Error> {
        let began = Instant::now();
        let chunks = self.shared.state().frozen.chunks.clone();
        let all: Vec<(u64, &Entry)> = (chunks.iter())
            .flat_map(|c| (c.first_seq..).zip(c.entries.iter()))
            .chain((buffer_seq..).zip(buffered))
            .collect();
        let cuts = cut(&all);
        let (Some(first_seq), Some(end_seq)) = (
            all.first().map(|(seq, _)| *seq),
            all.last().map(|(seq, _)| *seq + 1),
        ) else {
            return Ok(());
        };
        let blocks: Vec<_> = cuts.iter().map(|part| encode_columns(part)).collect();
        let placed = match self.try_segment(first_seq, &blocks) {
            Err(Failed::Sync(e)) if !is_full(&e) => {
                tracing::warn!("a sync of a segment failed ({e}); writing it again to a new one");
                self.try_segment(first_seq, &blocks)
            }
            other => other,
        };
        let metas = placed.map_err(|failed| {
            let (Failed::Write(e) | Failed::Sync(e)) = failed;
            let dir = &self.shared.dir;
            meaning(dir, &self.options, "write to a segment in", dir, e)
        })?;
        // Readers that are a little behind find the newest blocks decoded.
        for part in &cuts[cuts.len().saturating_sub(REMEMBERED)..] {
            let entries = part.iter().map(|(_, e)| (*e).clone()).collect();
            self.shared
                .remember(Arc::new(Decoded::new(part[0].0, entries)));
        }
        let mut documents = self.shared.state().frozen.documents.clone();
        for (key, held) in super::recovery::documents(buffer_seq, buffered) {
            fold(&mut documents, key, held);
        }
        self.show_moved(metas, &documents, end_seq);
        for path in logs {
            // What stays is recognised as spent at the next open.
            if let Err(e) = std::fs::remove_file(path) {
                tracing::warn!("cannot remove {}: {e}", path.display());
            }
        }
        metrics::histogram!("trackside_journal_move_seconds").record(began.elapsed());
        let full = (self.segment.as_ref()).is_some_and(|s| s.end >= self.options.segment_bytes);
        if full {
            self.seal();
            // What was moved is moved; retention looks again at the next seal.
            if let Err(e) = self.retain() {
                tracing::error!("retention: {e}");
            }
        }
        Ok(())
    }

    fn try_segment(
        &mut self,
        first_seq: u64,
        blocks: &[EncodedBlock],
    ) -> Result<Vec<Arc<BlockMeta>>, Failed> {
        if self.segment.is_none() {
            let created = AppendFile::create(
                &self.shared.dir,
                first_seq,
                SEGMENT,
                #[cfg(test)]
                self.faults.clone(),
            )
            .map_err(Failed::Write)?;
            self.segment = Some(created);
        }
        let Some(segment) = &mut self.segment else {
            return Ok(Vec::new());
        };
        let before = segment.end;
        let mut metas = Vec::with_capacity(blocks.len());
        for block in blocks {
            metas.push(Arc::new(BlockMeta {
                offset: segment.end,
                header: block.header,
                stats: block.stats.clone(),
            }));
            if let Err(e) = segment.append(&block.bytes) {
                segment.truncate(before);
                return Err(Failed::Write(e));
            }
        }
        if let Err(e) = segment.sync() {
            segment.truncate(before);
            if let Some(abandoned) = self.segment.take()
                && abandoned.end <= FILE_HEADER_BYTES
            {
                let _ = std::fs::remove_file(&abandoned.path);
            }
            return Err(Failed::Sync(e));
        }
        Ok(metas)
    }

    /// Puts the documents into the index, then shows readers the segment in place of the frozen tail.
    fn show_moved(&mut self, metas: Vec<Arc<BlockMeta>>, documents: &Documents, end_seq: u64) {
        if let Some(last) = metas.last() {
            let block = (last.header.first_seq, last.header.body_crc);
            self.index_documents(documents, end_seq, block);
        }
        let Some(file) = &self.segment else { return };
        let mut state = self.shared.state_mut();
        let mut blocks = Vec::new();
        if let Some(last) = state.segments.pop_if(|s| s.first_seq == file.first_seq)
            && let Some(held) = &last.held
        {
            blocks.extend(held.blocks.iter().cloned());
        }
        blocks.extend(metas);
        let handle = Arc::new(Handle {
            file: file.file.clone(),
            path: file.path.clone(),
            blocks: blocks.into(),
        });
        let segment = Segment::new(file.first_seq, file.path.clone(), file.end, handle, false);
        state.segments.push(Arc::new(segment));
        state.frozen = Tail::default();
        // Beyond it where the writer has gone on meanwhile.
        state.next_seq = state.next_seq.max(end_seq);
    }

    /// An index that fails is done without until the next open, which builds it anew.
    fn index_documents(&self, documents: &Documents, next_seq: u64, block: (u64, u32)) {
        let mut slot = self.shared.index_mut();
        let Some(index) = &mut *slot else { return };
        let rows = documents.iter().filter(|(key, held)| is_indexed(key, held));
        if let Err(e) = index.apply(rows, next_seq, block) {
            tracing::error!("{e}; looking versions up in the segments until the next start");
            *slot = None;
        }
    }

    /// Writes the footer; the next block begins a new segment.
    pub fn seal(&mut self) {
        let Some(mut file) = self.segment.take() else {
            return;
        };
        let held = {
            let state = self.shared.state();
            (state.segments.last())
                .filter(|s| s.first_seq == file.first_seq)
                .and_then(|s| s.held.clone())
        };
        let Some(held) = held else {
            self.segment = Some(file);
            return;
        };
        let before = file.end;
        let written = file
            .append(&footer(&held.blocks))
            .and_then(|()| file.sync());
        if let Err(e) = written {
            // The blocks are durable, the footer is a convenience: the next open scans instead.
            file.truncate(before);
            tracing::warn!("cannot seal {}: {e}", file.path.display());
            return;
        }
        // The segment is sealed whether or not the index can follow: that would be an error of a commit
        // whose entries are durable.
        let lagging = (self.shared.index().as_ref()).and_then(|index| index.sync().err());
        if let Some(e) = lagging {
            tracing::error!("{e}; looking versions up in the segments until the next start");
            *self.shared.index_mut() = None;
        }
        let segment = Segment::new(file.first_seq, file.path, file.end, held, true);
        let mut state = self.shared.state_mut();
        state.segments.pop();
        state.segments.push(Arc::new(segment));
        metrics::gauge!("trackside_journal_segments").set(state.segments.len() as f64);
    }

    /// Unlinks whole segments, oldest first, until what is left fits. The last one stays: it says
    /// where sequence numbers go on.
    pub fn retain(&mut self) -> Result<(), Error> {
        let limit = self.options.retain.bytes.unwrap_or(u64::MAX);
        let age = (self.options.retain.days).map(|d| Duration::from_secs(u64::from(d) * 86_400));
        let mut removed = None;
        loop {
            let oldest = {
                let state = self.shared.state();
                let bytes: u64 = state.segments.iter().map(|s| s.bytes).sum();
                match &state.segments[..] {
                    [oldest, next, ..]
                        if bytes > limit || age.is_some_and(|age| older(&oldest.path, age)) =>
                    {
                        Some((oldest.clone(), next.first_seq))
                    }
                    _ => None,
                }
            };
            let Some((oldest, floor)) = oldest else { break };
            let bookmark = Bookmark::floor(&self.shared.dir);
            if let Err(e) = bookmark.write(floor).and_then(|()| bookmark.sync()) {
                // Room is worth more than that a later look knows why the records are gone.
                tracing::warn!("{e}; verifying will call what retention removes missing");
            }
            self.shared.state_mut().segments.remove(0);
            self.shared.drop_handle(oldest.first_seq);
            std::fs::remove_file(&oldest.path).map_err(|e| Error::io("remove", &oldest.path, e))?;
            tracing::info!("retention removed {}", oldest.path.display());
            removed = Some(oldest.end_seq);
        }
        if removed.is_some() {
            sync_dir(&self.shared.dir)?;
            let first_seq = super::Reader::new(self.shared.clone()).first_seq();
            let mut slot = self.shared.index_mut();
            if let Some(index) = &mut *slot
                && let Err(e) = index.forget_before(first_seq)
            {
                tracing::error!("{e}; looking versions up in the segments until the next start");
                *slot = None;
            }
        }
        Ok(())
    }
}

/// The thread that moves, and its one job.
pub(super) struct Moving {
    mover: Arc<Mutex<Mover>>,
    /// The logs that hold the frozen tail.
    jobs: Option<SyncSender<Vec<PathBuf>>>,
    done: Receiver<Result<(), Error>>,
    thread: Option<JoinHandle<()>>,
    /// Whether a job is out.
    out: bool,
}

impl Moving {
    pub fn start(mover: Mover) -> io::Result<Moving> {
        let mover = Arc::new(Mutex::new(mover));
        let (jobs, take) = sync_channel::<Vec<PathBuf>>(1);
        let (tell, done) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("journal-move".into())
            .spawn({
                let mover = Arc::clone(&mover);
                move || {
                    for logs in take {
                        let moved = lock(&mover).move_frozen(0, &[], &logs);
                        if tell.send(moved).is_err() {
                            return;
                        }
                    }
                }
            })?;
        Ok(Moving {
            mover,
            jobs: Some(jobs),
            done,
            thread: Some(thread),
            out: false,
        })
    }

    /// Has the frozen tail moved, and then `logs`, which hold it, removed. There must be no move under way.
    /// `false`: the thread is gone (it panicked); whoever asks must move it himself.
    pub fn begin(&mut self, logs: Vec<PathBuf>) -> bool {
        self.out = (self.jobs.as_ref()).is_some_and(|jobs| jobs.send(logs).is_ok());
        self.out
    }

    /// Whether a move is under way, or its end not yet taken note of.
    pub fn is_out(&self) -> bool {
        self.out
    }

    /// What became of the move that is under way, once it has ended; with `wait`, waits for that.
    pub fn ended(&mut self, wait: bool) -> Option<Result<(), Error>> {
        if !self.out {
            return None;
        }
        let ended = match wait {
            true => self.done.recv().map_err(|_| TryRecvError::Disconnected),
            false => self.done.try_recv(),
        };
        if matches!(ended, Err(TryRecvError::Empty)) {
            return None;
        }
        self.out = false;
        Some(ended.unwrap_or_else(|_| {
            let dir = lock(&self.mover).shared.dir.clone();
            let panicked = io::Error::other("the thread that moves it panicked");
            Err(Error::io("move the tail in", &dir, panicked))
        }))
    }

    /// The mover itself; waits while a move is under way.
    pub fn mover(&self) -> MutexGuard<'_, Mover> {
        lock(&self.mover)
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panic is in the log already.
            let _ = thread.join();
        }
    }
}

struct EncodedBlock {
    bytes: Vec<u8>,
    header: block::Header,
    stats: block::stats::Stats,
}

/// Cuts entries of these weights into blocks.
pub(super) fn parts(weights: &[usize]) -> Vec<std::ops::Range<usize>> {
    let (mut parts, mut start, mut sum) = (Vec::new(), 0, 0);
    for (at, w) in weights.iter().enumerate() {
        if at > start && (at - start == MAX_BLOCK_ENTRIES || sum + w > MAX_BLOCK_MEMORY) {
            parts.push(start..at);
            (start, sum) = (at, 0);
        }
        sum += w;
    }
    if start < weights.len() {
        parts.push(start..weights.len());
    }
    parts
}

/// Cuts entries into what makes a block each: consecutive, and within a block's bounds.
fn cut<'a, 'b>(all: &'b [(u64, &'a Entry)]) -> Vec<&'b [(u64, &'a Entry)]> {
    let mut cuts = Vec::new();
    for run in all.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
        let weights: Vec<usize> = run.iter().map(|(_, e)| weight(e)).collect();
        cuts.extend(parts(&weights).into_iter().map(|part| &run[part]));
    }
    cuts
}

fn encode_columns(part: &[(u64, &Entry)]) -> EncodedBlock {
    let mut bytes = Vec::new();
    let entries = part.iter().map(|(_, e)| *e);
    let (header, stats) = block::encode(&mut bytes, part[0].0, entries, Encoding::Columns);
    EncodedBlock {
        bytes,
        header,
        stats,
    }
}

fn older(path: &Path, age: Duration) -> bool {
    let written = std::fs::metadata(path).and_then(|m| m.modified());
    written.is_ok_and(|t| SystemTime::now().duration_since(t).is_ok_and(|a| a > age))
}
