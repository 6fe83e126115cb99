//! Which version of a document the journal holds: the fold of all that it was ever told.

use rustc_hash::FxHashMap;

use crate::record::key::Version;
use crate::record::{DocumentKey, Entry, Kind};

/// A document's version, as a stretch of the journal leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub version: Version,
    /// Of the last entry that spoke of the document.
    pub seq: u64,
    /// Whether what stood before the stretch no longer matters: a version without an `_id` replaces
    /// whatever was there.
    pub anchored: bool,
    /// Whether one of its entries has a key of its source's own. Such a key says neither date nor
    /// car, so that the document is found by the index alone.
    pub foreign: bool,
}

impl Held {
    pub fn of(seq: u64, entry: &Entry) -> Held {
        let version = Version::of(entry);
        Held {
            version,
            seq,
            anchored: matches!(version, Version::Content(_)),
            foreign: entry.key.is_some(),
        }
    }

    /// What is held after `later`, which follows `self`.
    pub fn then(self, later: Held) -> Held {
        let base = if later.anchored || later.version.supersedes(self.version) {
            later
        } else {
            self
        };
        Held {
            seq: self.seq.max(later.seq),
            anchored: self.anchored || later.anchored,
            foreign: self.foreign || later.foreign,
            ..base
        }
    }
}

/// The documents of a stretch.
pub(super) type Documents = FxHashMap<DocumentKey, Held>;

/// Adds what follows to a stretch.
pub(super) fn fold(documents: &mut Documents, key: DocumentKey, held: Held) {
    documents
        .entry(key)
        .and_modify(|before| *before = before.then(held))
        .or_insert(held);
}

/// Whether the index keeps `key`: it keeps what does not stream, and what cannot be found otherwise.
pub(super) fn is_indexed(key: &DocumentKey, held: &Held) -> bool {
    !key.kind.streams() || held.foreign
}

/// What streams is found by what its derived key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Date (ms) and car.
    Sample(Kind, i64, u8),
    /// Session, car and sequence of a high-rate frame.
    Frame(i32, u8, u64),
}

impl Place {
    /// Where an entry with the same document as `entry` must stand, if it has no key of its own.
    /// `None`: nowhere (the key is of a form that nothing derives).
    pub fn of(entry: &Entry) -> Option<Place> {
        use crate::record::Record;
        let kind = entry.record.kind();
        let Some(key) = &entry.key else {
            return match &entry.record {
                Record::Frame(f) => Some(Place::Frame(f.session_key, f.driver_number, f.sequence)),
                r => Some(Place::Sample(kind, r.date()?.millis(), r.driver_number()?)),
            };
        };
        // A foreign key may be the very text that another record derives.
        let (rest, last) = key.rsplit_once('_')?;
        match kind {
            Kind::Frame => {
                let (session, driver) = rest.split_once('_')?;
                Some(Place::Frame(
                    session.parse().ok()?,
                    driver.parse().ok()?,
                    last.parse().ok()?,
                ))
            }
            _ => Some(Place::Sample(kind, rest.parse().ok()?, last.parse().ok()?)),
        }
    }
}
