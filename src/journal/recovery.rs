//! What a journal's directory holds: segments by their footers or a scan, the logs read in full.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{Body, KindSet, weight};
use super::damage::{Loss, explained, keep_torn, known, quarantine};
use super::file::{FILE_HEADER_BYTES, LOG, SEGMENT, list};
use super::segment::{End, Handle, Harmless, Scan, Segment, damaged_bytes, read_footer, scan};
use super::state::State;
use super::tail::Chunk;
use super::version::Held;
use super::{Bookmark, Error, Progress};
use crate::record::{DocumentKey, Entry};

/// A file that ends without a footer: writing may go on behind `end`.
#[derive(Clone)]
pub(super) struct OpenFile {
    pub first_seq: u64,
    pub path: PathBuf,
    pub end: u64,
}

pub(super) struct Recovered {
    pub state: State,
    /// The last segment, if it may grow.
    pub segment: Option<OpenFile>,
    /// The logs that hold the tail, in order.
    pub logs: Vec<OpenFile>,
    /// Logs and segments that hold nothing that is not elsewhere.
    pub spent: Vec<PathBuf>,
    pub losses: Vec<Loss>,
}

/// Documents of a stretch of entries.
pub(super) fn documents(first_seq: u64, entries: &[Entry]) -> Vec<(DocumentKey, Held)> {
    (first_seq..)
        .zip(entries)
        .map(|(seq, e)| (e.document(), Held::of(seq, e)))
        .collect()
}

/// Reads the directory. With `keep`, damaged bytes are copied into quarantine; nothing else is
/// changed.
pub(super) fn recover(
    dir: &Path,
    keep: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Recovered, Error> {
    // Before the files: a writer beside us moves it only behind what stands in them.
    let high_water = Bookmark::high_water(dir).read()?;
    let mut r = Recovery {
        dir,
        keep,
        floor: Bookmark::floor(dir).read()?.unwrap_or(0),
        torn: None,
        harmless: Harmless {
            in_logs_from: None,
            durable_until: high_water,
        },
        out: Recovered {
            state: State::default(),
            segment: None,
            logs: Vec::new(),
            spent: Vec::new(),
            losses: Vec::new(),
        },
    };
    // Logs first: one that is moved into a segment meanwhile is then missed when it is opened. The other way
    // round its records would be missed, and nothing else.
    let logs = list(dir, LOG)?;
    let segments = list(dir, SEGMENT)?;
    r.harmless.in_logs_from = logs.first().map(|(first_seq, _)| *first_seq);
    for (i, (first_seq, path)) in segments.iter().enumerate() {
        progress(Progress {
            what: "opening segments",
            done: i as u64,
            of: segments.len() as u64,
        });
        let limit = segments.get(i + 1).map(|(first, _)| *first);
        r.segment(*first_seq, path, limit)?;
    }
    for (i, (first_seq, path)) in logs.iter().enumerate() {
        let limit = logs.get(i + 1).map_or(u64::MAX, |(first, _)| *first);
        r.log(*first_seq..limit, path)?;
    }
    // Numbers of records that were put into quarantine are not given again.
    let lost = known(dir).iter().map(|seqs| seqs.end).max();
    r.out.state.next_seq = r.out.state.next_seq.max(lost.unwrap_or(0));
    r.end(high_water.unwrap_or(0))?;
    Ok(r.out)
}

/// Why records are missed that no file holds.
pub(super) const CUT_SHORT: &str =
    "the journal ends before what was durable: its end is gone or cut off";

struct Recovery<'a> {
    dir: &'a Path,
    keep: bool,
    /// The first sequence number that retention has left.
    floor: u64,
    /// The bytes that were cut off the file that was read last, and what they are of.
    torn: Option<Torn>,
    harmless: Harmless,
    out: Recovered,
}

struct Torn {
    path: PathBuf,
    at: Range<u64>,
    bytes: Vec<u8>,
}

impl Torn {
    /// What a scan found cut off. Whether anything was lost with it, what follows tells.
    fn of(found: &Scan, file: &File, path: &Path, len: u64) -> Option<Torn> {
        let at = found.end_offset..len;
        (found.end == End::Torn && !at.is_empty()).then(|| Torn {
            path: path.to_owned(),
            bytes: damaged_bytes(file, &at),
            at,
        })
    }
}

impl Recovery<'_> {
    /// Names what a scan lost, and moves the next sequence number behind it.
    fn note(&mut self, file: &File, scan: &mut Scan) -> Result<(), Error> {
        for (at, loss) in scan.losses.drain(..) {
            if let Some(seqs) = &loss.seqs {
                self.out.state.next_seq = self.out.state.next_seq.max(seqs.end);
            }
            tracing::error!(journal = %self.dir.display(), "{loss}; the rest is served");
            if self.keep {
                quarantine(self.dir, &loss, &damaged_bytes(file, &at))?;
            }
            self.out.losses.push(loss);
        }
        Ok(())
    }

    /// Names a gap before `first_seq`, which `path` holds at byte `offset`, if no damage explains it.
    fn gap(&mut self, path: &Path, offset: u64, first_seq: u64) -> Result<(), Error> {
        let expected = self.out.state.next_seq.max(self.floor);
        if first_seq <= expected || explained(&known(self.dir), expected..first_seq) {
            return Ok(());
        }
        let why = match offset {
            0 => "what stood before this is gone or cut off",
            _ => "records are missing before this block",
        };
        let mut loss = Loss::new(path, offset..offset, why);
        loss.seqs = Some(expected..first_seq);
        self.miss(loss)
    }

    /// Names the loss of an end that was durable up to `high_water`.
    fn end(&mut self, high_water: u64) -> Result<(), Error> {
        let expected = self.out.state.next_seq.max(self.floor);
        self.out.state.next_seq = expected.max(high_water);
        if high_water <= expected || explained(&known(self.dir), expected..high_water) {
            return Ok(());
        }
        let last = (self.out.logs.last().map(|l| l.path.clone()))
            .or_else(|| self.out.state.segments.last().map(|s| s.path.clone()));
        let (path, at) = match (&self.torn, last) {
            (Some(torn), _) => (torn.path.clone(), torn.at.clone()),
            (None, Some(last)) => {
                let len = std::fs::metadata(&last).map_or(0, |m| m.len());
                (last, len..len)
            }
            (None, None) => (self.dir.to_owned(), 0..0),
        };
        let mut loss = Loss::new(&path, at, CUT_SHORT);
        loss.seqs = Some(expected..high_water);
        self.miss(loss)
    }

    /// Names what no file holds, and keeps aside what is left of it.
    fn miss(&mut self, loss: Loss) -> Result<(), Error> {
        let before = self.out.state.segments.last().map(|s| &s.stats);
        let tail = Some(&self.out.state.tail.stats).filter(|_| self.out.state.tail.entries > 0);
        let loss = loss.between(tail.or(before), None);
        tracing::error!(journal = %self.dir.display(), "{loss}; the rest is served. Run `trackside journal repair`");
        if let Some(torn) = self.torn.take().filter(|_| self.keep) {
            let mut of = Loss::new(&torn.path, torn.at, "");
            of.seqs = loss.seqs.clone();
            keep_torn(self.dir, &of, &torn.bytes)?;
        }
        self.out.losses.push(loss);
        Ok(())
    }

    fn segment(&mut self, first_seq: u64, path: &Path, limit: Option<u64>) -> Result<(), Error> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let len = (file.metadata().map_err(|e| Error::io("stat", path, e))?).len();
        self.gap(path, 0, first_seq)?;
        self.torn = None;
        self.out.state.next_seq = self.out.state.next_seq.max(first_seq);
        let footer = read_footer(&file).map_err(|e| Error::io("read", path, e))?;
        let sealed = footer.is_some();
        let mut torn = None;
        let blocks = match footer {
            Some(blocks) => blocks,
            None => {
                let seqs = first_seq..limit.unwrap_or(u64::MAX);
                let mut found = scan(&file, path, seqs, &mut |_, _| {})?;
                if limit.is_none() {
                    found.pass_over(self.harmless);
                }
                let empty = found.blocks.is_empty() && found.losses.is_empty();
                torn = Torn::of(&found, &file, path, len);
                self.note(&file, &mut found)?;
                if limit.is_none() && found.end_offset >= FILE_HEADER_BYTES {
                    self.out.segment = Some(OpenFile {
                        first_seq,
                        path: path.to_owned(),
                        end: found.end_offset,
                    });
                } else if limit.is_none() && empty {
                    // Only the last may be: what others held is missing, and stays named.
                    self.out.spent.push(path.to_owned());
                    self.torn = torn;
                    return Ok(());
                }
                found.blocks.into()
            }
        };
        let handle = Arc::new(Handle {
            file: Arc::new(file),
            path: path.to_owned(),
            blocks,
        });
        for block in handle.blocks.iter() {
            self.gap(path, block.offset, block.header.first_seq)?;
            self.out.state.next_seq = self.out.state.next_seq.max(block.header.end_seq());
        }
        let segment = Segment::new(first_seq, path.to_owned(), len, handle, sealed);
        self.out.state.next_seq = self.out.state.next_seq.max(segment.end_seq);
        self.out.state.segments.push(Arc::new(segment));
        self.torn = torn;
        Ok(())
    }

    fn log(&mut self, seqs: Range<u64>, path: &Path) -> Result<(), Error> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let len = (file.metadata().map_err(|e| Error::io("stat", path, e))?).len();
        let covered = self.out.state.next_seq;
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut unread = None;
        let mut found = scan(&file, path, seqs.clone(), &mut |meta, bytes| {
            if meta.header.end_seq() <= covered {
                return;
            }
            match Body::open(meta.header, bytes).and_then(|b| b.entries(KindSet::ALL)) {
                Ok(entries) => {
                    let mut entries = entries.into_iter().skip_while(|(s, _)| *s < covered);
                    if let Some((first_seq, first)) = entries.next() {
                        let rest = entries.map(|(_, e)| e);
                        let entries = std::iter::once(first).chain(rest).collect();
                        chunks.push(Chunk { first_seq, entries });
                    }
                }
                Err(reason) => unread = Some((meta.clone(), reason)),
            }
        })?;
        if let Some((meta, reason)) = unread {
            // Its checksums are right and yet it cannot be decoded: written by a newer program.
            return Err(Error::Undecodable {
                path: path.to_owned(),
                offset: meta.offset,
                why: reason,
            });
        }
        if seqs.end == u64::MAX {
            found.pass_over(Harmless {
                in_logs_from: None,
                ..self.harmless
            });
        }
        let damaged = !found.losses.is_empty();
        let damage_matters = (found.losses.iter().filter_map(|(_, l)| l.seqs.as_ref()))
            .any(|lost| lost.end > covered);
        if chunks.is_empty() && !damage_matters {
            self.torn = Torn::of(&found, &file, path, len).or(self.torn.take());
            // All of it was moved into a segment. Empty ones may still be written to.
            self.out.spent.push(path.to_owned());
            return Ok(());
        }
        let torn = Torn::of(&found, &file, path, len);
        self.note(&file, &mut found)?;
        self.out.logs.push(OpenFile {
            first_seq: seqs.start,
            path: path.to_owned(),
            end: found.end_offset,
        });
        for chunk in chunks {
            if !damaged {
                self.gap(path, 0, chunk.first_seq)?;
            }
            let documents = documents(chunk.first_seq, &chunk.entries);
            let memory = chunk.entries.iter().map(weight).sum();
            self.out.state.next_seq = self.out.state.next_seq.max(chunk.end_seq());
            self.out.state.tail.push(chunk, memory, documents);
        }
        self.torn = torn;
        Ok(())
    }
}

/// Reads a directory beside a running daemon, which may move the tail into a segment meanwhile.
pub(super) fn recover_beside(
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Recovered, Error> {
    /// How often to look again when files go away under the reader.
    const TRIES: usize = 10;
    let mut tries = 0;
    loop {
        tries += 1;
        match recover(dir, false, progress) {
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < TRIES && dir.exists() => {}
            other => return other,
        }
    }
}
