//! What was lost, named; and the bytes of it, kept aside.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Error;
use super::block::stats::Stats;
use crate::record::Time;

/// The folder for damaged bytes, in a journal's directory.
pub const QUARANTINE: &str = "quarantine";
/// Most files kept in quarantine. More damage than this is still named, no longer copied.
pub const MAX_QUARANTINED: usize = 1024;

/// A stretch of a journal that can no longer be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// The file's name.
    pub file: String,
    pub offset: u64,
    pub bytes: u64,
    /// The sequence numbers that are gone, where they are known.
    pub seqs: Option<Range<u64>>,
    pub kinds: Vec<&'static str>,
    pub sessions: Vec<i32>,
    /// When what was lost happened.
    pub from: Option<Time>,
    pub to: Option<Time>,
    /// Whether sessions, kinds and times are the lost block's own. Otherwise they are those of its
    /// neighbours, between which the loss lies.
    pub exact: bool,
    pub reason: String,
}

impl Loss {
    pub(super) fn new(path: &Path, at: Range<u64>, reason: impl Into<String>) -> Loss {
        Loss {
            file: path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default(),
            offset: at.start,
            bytes: at.end - at.start,
            seqs: None,
            kinds: Vec::new(),
            sessions: Vec::new(),
            from: None,
            to: None,
            exact: false,
            reason: reason.into(),
        }
    }

    /// Names whose it was from the block's own directory.
    pub(super) fn of(mut self, stats: &Stats) -> Loss {
        self.describe(stats);
        self.exact = true;
        self
    }

    /// Names it from what stands before and after.
    pub(super) fn between(mut self, before: Option<&Stats>, after: Option<&Stats>) -> Loss {
        if self.exact {
            return self;
        }
        for stats in before.into_iter().chain(after) {
            self.describe(stats);
        }
        let end = |s: &Stats| s.iter().filter_map(|s| s.dates).map(|d| d.1).max();
        let start = |s: &Stats| s.iter().filter_map(|s| s.dates).map(|d| d.0).min();
        self.from = before.and_then(end);
        self.to = after.and_then(start);
        self
    }

    fn describe(&mut self, stats: &Stats) {
        for s in stats.iter() {
            if !self.kinds.contains(&s.kind.name()) {
                self.kinds.push(s.kind.name());
            }
            if let Some(key) = s.session_key.filter(|k| !self.sessions.contains(k)) {
                self.sessions.push(key);
            }
            if let Some((low, high)) = s.dates {
                self.from = Some(self.from.map_or(low, |t| t.min(low)));
                self.to = Some(self.to.map_or(high, |t| t.max(high)));
            }
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seqs {
            Some(seqs) if seqs.is_empty() => f.write_str("no records")?,
            Some(seqs) => write!(f, "records {}..{}", seqs.start, seqs.end)?,
            None => f.write_str("an unknown number of records")?,
        }
        let whose = if self.exact { "of" } else { "among" };
        if !self.sessions.is_empty() {
            write!(f, " {whose} session {:?}", self.sessions)?;
        }
        if !self.kinds.is_empty() {
            write!(f, " ({})", self.kinds.join(", "))?;
        }
        if let (Some(from), Some(to)) = (self.from, self.to) {
            write!(f, " from {from} to {to}")?;
        }
        write!(
            f,
            " lost in {} at byte {} ({} bytes): {}",
            self.file, self.offset, self.bytes, self.reason
        )
    }
}

fn file_of(dir: &Path, loss: &Loss, extension: &str) -> PathBuf {
    let seqs = match &loss.seqs {
        Some(seqs) => format!("{}-{}", seqs.start, seqs.end),
        None => "unknown".to_owned(),
    };
    dir.join(QUARANTINE)
        .join(format!("{seqs}.{}.{}.{extension}", loss.file, loss.offset))
}

/// What is accounted for: its records are known to be gone.
const BAD: &str = "bad";
/// What was cut off to go on writing: its records stay missed until a repair.
const TORN: &str = "torn";

/// Copies the damaged bytes aside, once. The name says which sequence numbers they held.
pub(super) fn quarantine(dir: &Path, loss: &Loss, bytes: &[u8]) -> Result<(), Error> {
    put_aside(dir, &file_of(dir, loss, BAD), bytes)
}

/// Copies what is left of a cut-off end aside, once, before writing goes on in its place.
pub(super) fn keep_torn(dir: &Path, loss: &Loss, bytes: &[u8]) -> Result<(), Error> {
    put_aside(dir, &file_of(dir, loss, TORN), bytes)
}

fn put_aside(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = dir.join(QUARANTINE);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let held = std::fs::read_dir(&folder).map_or(0, Iterator::count);
    if path.exists() || held >= MAX_QUARANTINED {
        return Ok(());
    }
    std::fs::write(path, bytes).map_err(|e| Error::io("write", path, e))
}

/// The sequence numbers that quarantine says are gone: known losses.
pub(super) fn known(dir: &Path) -> Vec<Range<u64>> {
    let Ok(entries) = std::fs::read_dir(dir.join(QUARANTINE)) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| {
            let name = e.ok()?.file_name();
            let name = Path::new(&name);
            if name.extension()? != BAD {
                return None;
            }
            let (start, end) = name.to_str()?.split('.').next()?.split_once('-')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        })
        .collect()
}

/// Whether all of `gap` is among what is `known` to be gone.
pub(super) fn explained(known: &[Range<u64>], gap: Range<u64>) -> bool {
    let mut sorted: Vec<_> = known.iter().filter(|r| !r.is_empty()).collect();
    sorted.sort_by_key(|r| r.start);
    let reached =
        sorted.into_iter().fold(
            gap.start,
            |at, r| {
                if r.start <= at { at.max(r.end) } else { at }
            },
        );
    reached >= gap.end
}
