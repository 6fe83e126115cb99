//! The journal: every accepted record, on disk before it is acknowledged, read by sequence number.
//!
//! **Invariant:** no network, and no knowledge of what records mean beyond their kind, session, car
//! and date. Nothing leaves a file unchecked (three checksums a block); nothing is acknowledged that
//! a power cut could take; nothing acknowledged is dropped but by retention, whole segments at a time.
//!
//! What holds, always:
//!
//! 1. A sequence number names one entry for ever. It is never given twice, not after a crash, not
//!    after damage, not after retention.
//! 2. [`Journal::commit`] returns after `fdatasync` of the file that holds the entries (and, for a new
//!    file, of its directory). Only then do readers see them.
//! 3. A commit that fails leaves the buffer whole and the files as they were. A failed `fdatasync` is
//!    believed: its file is left at the last offset known to be durable, for good, and the entries are
//!    written again elsewhere.
//! 4. An entry comes back as it went in, bit for bit.
//! 5. The index in sled can be deleted at any time: the segments say all that it says.
//! 6. Reading needs the memory of a few blocks, however long the journal is.
//! 7. One damaged byte costs one block (16k entries at most), which is named and put aside; all others
//!    are served.
//!
//! # On disk
//!
//! ```text
//! records/                          one journal; `predictions/` is another, with lazy syncs
//!   lock                            held by the writer
//!   00000000000000000000.seg        sealed:  header | block | block | … | footer
//!   00000000000001949894.seg        open:    header | block | …
//!   00000000000002015430.log        the tail: header | small block | small block | …
//!   floor                           up to where retention has removed segments
//!   highwater                       up to where records are durable
//!   index/                          sled: document → version held, and a mark
//!   quarantine/
//!     131072-147456.00…0.seg.81734.bad      damaged bytes; the name says what they held
//!     131072-147456.00…0.log.4096.torn      what was left of an end that was cut off
//! ```
//!
//! Files are named by their first sequence number. A **log** takes the small blocks of live commits,
//! written as rows; its entries are also held in memory, so that live readers decode nothing. When the
//! tail reaches 16,384 entries or 8 MiB it moves, as columns, to the end of the last **segment**, which
//! grows to [`Options::segment_bytes`] or to the end of the session and is then sealed with a footer
//! that lists its blocks. So the many small commits of a live feed are written twice, once for
//! durability and once for keeps, and a crash never leaves more than two tails of small blocks to read.
//! (Rewriting a whole segment when it closes was the other way: it writes as much, at once, and until
//! then leaves hundreds of thousands of blocks of a few rows to be indexed and recovered.)
//!
//! Blocks are drawn in [`block`], the file header in `file`, the footer in `segment`. All are versioned;
//! a newer version than is known is refused, never guessed at.
//!
//! # Write
//!
//! append → buffer · commit → block → `fdatasync` → tail in memory → `committed`. A full tail is frozen:
//! the next commit begins a new log and a new tail, and a thread of its own moves the frozen one: blocks →
//! segment → `fdatasync` → index (one atomic sled batch: documents and mark) → readers see the segment in
//! place of the frozen tail → its log is unlinked. No commit waits for that, unless the new tail is full
//! before it is done: there are never more than two. A crash at any moment finds each entry in a log or in a
//! segment; a log that reappears after a power cut holds only what a segment already has, and is passed over.
//! Where a commit is large (half a block), it goes to the segment directly, and the tail with it.
//!
//! # Read
//!
//! From the tail in memory, or from a segment: block by block, checked, through a cache of four decoded
//! blocks. [`Reader::query`] passes over blocks whose directory says that they cannot match, and over
//! the groups of other kinds; [`Reader::car_data`] hands out columns without making entries of them.
//! A file that retention unlinks while it is read stays readable until it is let go.
//!
//! # Delete
//!
//! Retention unlinks whole segments, oldest first, by bytes or by age (of the file, not of what it
//! tells: a replayed race of years ago is new). The space is back at once; index rows go with them.
//!
//! # Damage
//!
//! At open, the files without a footer are read from front to back. A block that ends beyond the file's
//! end, or zeros, is the end of what was written: cut off. Whether anything acknowledged went with it, the file
//! cannot tell (nor whether what does not match its checksums there was ever whole: sectors reach a disk in any
//! order); the high-water mark can. It follows each commit (see `lazy`), exact when a process dies, at
//! most a second behind when the power goes, never ahead. What is torn behind it never was acknowledged;
//! where the journal ends *before* it, be a log torn or gone, what lies between is a named loss, what is left of
//! it is kept aside as `.torn`, and its numbers are not given again. Anything else that does not match its
//! checksums is damage: reading goes on at the next marker, the bytes are copied to `quarantine/`, and
//! the loss is named by the block's own directory where that is whole, by its neighbours otherwise.
//! Sealed segments are trusted by their footers and checked block by block when read. Where the very
//! end is damaged beyond telling how many entries it held, sequence numbers jump ahead by a million.
//! Sequence numbers that no file holds, from where retention left the journal (its `floor`) to its end, are
//! named as missing at every start; `repair` records them. A journal without a mark (of an earlier version) is
//! believed where it ends, and gets one.
//!
//! # Cost
//!
//! One car-race of telemetry (950k records in 100 minutes) is about 4 MB. A live commit of 20 records
//! writes about 600 bytes and one `fdatasync` (and the mark's 16 bytes, synced once a second); every 16,384 records about 10 ms of encoding come on
//! top, on another thread. Reading entries: about 10⁶ a second and core, bounded by making records;
//! columns: about 10⁷.
//! Memory: the tail and the frozen one (each 16,384 entries, about 2 MB, or 8 MiB), four decoded blocks,
//! sled's 4 MiB.

pub mod block;
mod bookmark;
mod cursor;
pub mod damage;
pub mod export;
mod file;
mod index;
mod lazy;
mod mover;
pub mod query;
pub mod reader;
mod recovery;
mod segment;
mod state;
mod tail;
pub mod verify;
mod version;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use block::columns::{CarDataColumns, LocationColumns};
pub use block::stats::SessionSummary;
pub use bookmark::Bookmark;
pub use cursor::Malformed;
pub use damage::Loss;
pub use lazy::LAZY_SYNC_EVERY;
pub use query::{Entries, Query};
pub use reader::{Batch, MAX_BATCH, Reader, Skipped};
pub use verify::{Report, repair, verify};
pub use writer::Journal;

/// When a commit is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it returns.
    #[default]
    Synced,
    /// Within [`LAZY_SYNC_EVERY`], and at close: for what can be computed again.
    Lazy,
}

/// What is kept. Nothing set: everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Most bytes in segments.
    pub bytes: Option<u64>,
    /// Oldest segment, by when it was last written.
    pub days: Option<u32>,
}

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A segment is sealed when it is this large (bytes).
    pub segment_bytes: u64,
    /// The tail moves into a segment when it would hold this many entries (16,384 at most).
    pub tail_entries: usize,
    pub durability: Durability,
    pub retain: Retention,
    /// Below this much room (bytes) the journal calls the disk full, so that the rest of the machine
    /// is not choked, nor the index, which comes after.
    pub reserve_bytes: u64,
}

/// Smallest and largest segment that may be configured (bytes): a file for every few commits would help nobody,
/// and retention takes whole segments.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 * 1024..=4 * 1024 * 1024 * 1024;

/// A value that the journal does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}; allowed: {allowed}")]
pub struct Invalid {
    /// Within the journal's section.
    pub key: &'static str,
    pub value: u64,
    pub allowed: String,
}

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// The first key that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        let within =
            |key, value, allowed: std::ops::RangeInclusive<u64>| match allowed.contains(&value) {
                true => Ok(()),
                false => Err(Invalid {
                    key,
                    value,
                    allowed: format!("{} to {}", allowed.start(), allowed.end()),
                }),
            };
        within("segment_bytes", self.segment_bytes, SEGMENT_BYTES)?;
        let most = block::MAX_BLOCK_ENTRIES as u64;
        within("tail_entries", self.tail_entries as u64, 1..=most)?;
        if let Some(bytes) = self.retain.bytes.filter(|b| *b < self.segment_bytes) {
            return Err(Invalid {
                key: "retain.bytes",
                value: bytes,
                allowed: format!("a segment ({} bytes) and more", self.segment_bytes),
            });
        }
        let days = self.retain.days.map_or(1, u64::from);
        within("retain.days", days, 1..=u64::from(u32::MAX))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 * 1024 * 1024,
            tail_entries: block::MAX_BLOCK_ENTRIES,
            durability: Durability::Synced,
            retain: Retention::default(),
            reserve_bytes: 1024 * 1024,
        }
    }
}

/// How far a long step of opening, verifying or repairing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub what: &'static str,
    pub done: u64,
    pub of: u64,
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "no room in {dir}: {available} bytes are free and {reserve} are kept in reserve; \
         free some, or lower journal.retain"
    )]
    DiskFull {
        dir: PathBuf,
        available: u64,
        reserve: u64,
    },
    #[error("{dir} is being written by another process; stop it first")]
    Locked { dir: PathBuf },
    #[error("{path} is of format {version}, and this program knows {known}; use a newer trackside")]
    Newer {
        path: PathBuf,
        version: u16,
        known: u16,
    },
    #[error(
        "{path} has at byte {offset} a block that this program cannot read ({why}); use a newer trackside"
    )]
    Undecodable {
        path: PathBuf,
        offset: u64,
        why: Malformed,
    },
    #[error("the index {path}: {why}")]
    Index { path: PathBuf, why: String },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether room on the disk would mend it.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::DiskFull { .. })
    }
}
