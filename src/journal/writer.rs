//! The single writer: append, commit, move the tail into segments, seal, retain.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::block::{self, Body, Encoding, KindSet, MAX_BLOCK_ENTRIES, MAX_BLOCK_MEMORY, weight};
use super::file::{AppendFile, FILE_HEADER_BYTES, LOG, SEGMENT, create_dir, is_full, sync_dir};
use super::index::{Index, Mark};
use super::lazy::LazySync;
use super::reader::Reader;
use super::recovery::{documents, recover, recover_beside};
use super::segment::{BlockMeta, Handle, Segment, footer};
use super::state::{Decoded, Shared};
use super::tail::{Chunk, TAIL_MEMORY, Tail};
use super::version::{Documents, Held, fold, is_indexed};
use super::{Durability, Error, Loss, Options, Progress};
use crate::record::{DocumentKey, Entry, Kind};

/// Blocks that are kept decoded as they are written. More would push each other out.
const REMEMBERED: usize = 2;

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
    segment: Option<AppendFile>,
    /// The log that takes commits.
    log: Option<AppendFile>,
    /// Logs before it that still hold parts of the tail.
    old_logs: Vec<PathBuf>,
    lazy: Option<LazySync>,
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
        let found = recover(dir, true, progress)?;
        for path in &found.spent {
            std::fs::remove_file(path).map_err(|e| Error::io("remove", path, e))?;
        }
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
        let old_logs = before.iter().map(|f| f.path.clone()).collect();
        let lazy = match options.durability {
            Durability::Synced => None,
            Durability::Lazy => {
                Some(LazySync::start().map_err(|e| Error::io("start a thread for", dir, e))?)
            }
        };
        let shared = Shared::new(dir.to_owned(), true, found.state, found.losses);
        let buffer_seq = shared.state().next_seq;
        let mut journal = Journal {
            buffer_seq,
            shared: Arc::new(shared),
            options,
            _lock: lock,
            buffer: Vec::new(),
            weights: Vec::new(),
            segment,
            log,
            old_logs,
            lazy,
            scratch: Vec::new(),
            #[cfg(test)]
            faults,
        };
        journal.open_index(progress)?;
        if journal
            .segment
            .as_ref()
            .is_some_and(|s| s.end >= journal.options.segment_bytes)
        {
            journal.seal()?;
        }
        journal.retain()?;
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
        let (held, memory) = {
            let tail = &self.shared.state().tail;
            (tail.entries, tail.memory)
        };
        let weight: usize = self.weights.iter().sum();
        let most = self.options.tail_entries.min(MAX_BLOCK_ENTRIES);
        let full = held + self.buffer.len() >= most || memory + weight >= TAIL_MEMORY;
        let distrusted = self.lazy.as_ref().is_some_and(LazySync::take_failure);
        let entries = self.buffer.len() as u64;
        if full || distrusted {
            self.move_tail()?;
        } else {
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
        if self.shared.state().tail.entries > 0 {
            self.move_tail()?;
        }
        self.seal()?;
        self.retain()
    }

    /// Commits, and makes everything, index and all, survive a power cut.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), Error> {
        self.commit()?;
        self.lazy = None;
        if let Some(log) = &mut self.log {
            log.sync().map_err(|e| Error::io("sync", &log.path, e))?;
        }
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

    /// What an I/O error means to who called.
    fn failed(&self, action: &'static str, path: &Path, e: io::Error) -> Error {
        if is_full(&e) {
            return Error::DiskFull {
                dir: self.shared.dir.clone(),
                available: 0,
                reserve: self.options.reserve_bytes,
            };
        }
        Error::io(action, path, e)
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
                return Err(self.failed("write to a log in", &self.shared.dir, e));
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
        if let Some(lazy) = &self.lazy {
            lazy.wrote(&log.file);
            return Ok(());
        }
        if let Err(e) = log.sync() {
            log.truncate(before);
            self.abandon_log();
            return Err(Failed::Sync(e));
        }
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

    /// Moves the tail, and what is buffered, into the segment as columns; then drops the logs.
    fn move_tail(&mut self) -> Result<(), Error> {
        let end_seq = self.next_seq();
        let buffer = std::mem::take(&mut self.buffer);
        let chunks = self.shared.state().tail.chunks.clone();
        let all: Vec<(u64, &Entry)> = (chunks.iter())
            .flat_map(|c| (c.first_seq..).zip(c.entries.iter()))
            .chain((self.buffer_seq..).zip(&buffer))
            .collect();
        let cuts = cut(&all);
        let Some(first_seq) = all.first().map(|(seq, _)| *seq) else {
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
        let metas = match placed {
            Ok(metas) => metas,
            Err(Failed::Write(e) | Failed::Sync(e)) => {
                self.buffer = buffer;
                return Err(self.failed("write to a segment in", &self.shared.dir, e));
            }
        };
        // Readers that are a little behind find the newest blocks decoded.
        for part in &cuts[cuts.len().saturating_sub(REMEMBERED)..] {
            let entries = part.iter().map(|(_, e)| (*e).clone()).collect();
            self.shared
                .remember(Arc::new(Decoded::new(part[0].0, entries)));
        }
        let documents = documents(self.buffer_seq, &buffer);
        self.weights.clear();
        self.buffer_seq = end_seq;
        self.show_moved(metas, documents, end_seq);
        self.drop_logs();
        let full = (self.segment.as_ref()).is_some_and(|s| s.end >= self.options.segment_bytes);
        if full {
            self.seal()?;
            self.retain()?;
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

    /// Puts the documents into the index, then shows readers the segment in place of the tail.
    fn show_moved(
        &mut self,
        metas: Vec<Arc<BlockMeta>>,
        buffered: Vec<(DocumentKey, Held)>,
        end_seq: u64,
    ) {
        let mut documents = self.shared.state().tail.documents.clone();
        for (key, held) in buffered {
            fold(&mut documents, key, held);
        }
        if let Some(last) = metas.last() {
            let block = (last.header.first_seq, last.header.body_crc);
            self.index_documents(&documents, end_seq, block);
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
        state.tail = Tail::default();
        state.next_seq = end_seq;
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

    fn drop_logs(&mut self) {
        let log = self.log.take().map(|log| log.path);
        for path in self.old_logs.drain(..).chain(log) {
            // What stays is recognised as spent at the next open.
            if let Err(e) = std::fs::remove_file(&path) {
                tracing::warn!("cannot remove {}: {e}", path.display());
            }
        }
    }

    /// Writes the footer; the next block begins a new segment.
    fn seal(&mut self) -> Result<(), Error> {
        let Some(mut file) = self.segment.take() else {
            return Ok(());
        };
        let held = {
            let state = self.shared.state();
            (state.segments.last())
                .filter(|s| s.first_seq == file.first_seq)
                .and_then(|s| s.held.clone())
        };
        let Some(held) = held else {
            self.segment = Some(file);
            return Ok(());
        };
        let before = file.end;
        let written = file
            .append(&footer(&held.blocks))
            .and_then(|()| file.sync());
        if let Err(e) = written {
            // The blocks are durable, the footer is a convenience: the next open scans instead.
            file.truncate(before);
            tracing::warn!("cannot seal {}: {e}", file.path.display());
            return Ok(());
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
        Ok(())
    }

    /// Unlinks whole segments, oldest first, until what is left fits. The last one stays: it says
    /// where sequence numbers go on.
    fn retain(&mut self) -> Result<(), Error> {
        let limit = self.options.retain.bytes.unwrap_or(u64::MAX);
        let age = (self.options.retain.days).map(|d| Duration::from_secs(u64::from(d) * 86_400));
        let mut removed = None;
        loop {
            let oldest = {
                let state = self.shared.state();
                let bytes: u64 = state.segments.iter().map(|s| s.bytes).sum();
                let oldest = state.segments.first().filter(|_| state.segments.len() > 1);
                oldest
                    .filter(|s| bytes > limit || age.is_some_and(|age| older(&s.path, age)))
                    .cloned()
            };
            let Some(oldest) = oldest else { break };
            self.shared.state_mut().segments.remove(0);
            self.shared.drop_handle(oldest.first_seq);
            std::fs::remove_file(&oldest.path).map_err(|e| Error::io("remove", &oldest.path, e))?;
            tracing::info!("retention removed {}", oldest.path.display());
            removed = Some(oldest.end_seq);
        }
        if removed.is_some() {
            sync_dir(&self.shared.dir)?;
            let first_seq = self.reader().first_seq();
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

enum Failed {
    Write(io::Error),
    Sync(io::Error),
}

struct EncodedBlock {
    bytes: Vec<u8>,
    header: block::Header,
    stats: block::stats::Stats,
}

/// Cuts entries of these weights into blocks.
fn parts(weights: &[usize]) -> Vec<std::ops::Range<usize>> {
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

/// One writer at a time. The kernel lets go of the lock when its process dies.
pub(super) fn lock_dir(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| Error::io("open", &path, e))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked {
            dir: dir.to_owned(),
        }),
        Err(e) => Err(Error::io("lock", &path, e.into())),
    }
}
