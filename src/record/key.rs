//! Document keys: what makes two messages versions of the same thing.
//!
//! OpenF1 builds `_key` from the parts of a collection's unique key, joined by `_`, datetimes as
//! epoch milliseconds, absent parts as `None`. We derive the same text from a record's fields, so
//! that a source without `_key` (REST, our own producers) deduplicates just as well, and so that the
//! journal need not store it. Where a source's `_key` is another one (drivers count cars by an
//! index, for example), the source's is kept and rules.

use std::fmt::{self, Write};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Entry, Kind, Record, Time};

/// Longest `_key` that is kept; longer ones are refused as oversized (see [`super::codec`]).
pub const MAX_KEY_BYTES: usize = 512;

/// Which document an entry is a version of: its kind and a 64-bit hash (XXH3) of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey {
    pub kind: Kind,
    pub hash: u64,
}

impl DocumentKey {
    /// The key of `entry`.
    pub fn of(entry: &Entry) -> DocumentKey {
        let kind = entry.record.kind();
        match &entry.key {
            Some(key) => DocumentKey::from_text(kind, key),
            None => DocumentKey::from_text(kind, derive(&entry.record).as_str()),
        }
    }

    /// The key whose text is `key`.
    pub fn from_text(kind: Kind, key: &str) -> DocumentKey {
        DocumentKey {
            kind,
            hash: xxh3_64_with_seed(key.as_bytes(), u64::from(kind as u8)),
        }
    }
}

/// A derived key: text on the stack, cut at [`MAX_KEY_BYTES`].
pub struct KeyText(heapless::String<MAX_KEY_BYTES>);

impl KeyText {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

struct OrNone<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(v) => v.fmt(f),
            None => f.write_str("None"),
        }
    }
}

fn millis(t: Option<Time>) -> OrNone<i64> {
    OrNone(t.map(Time::millis))
}

/// The key that OpenF1 would give `record`.
pub fn derive(record: &Record) -> KeyText {
    let mut key = KeyText(heapless::String::new());
    // A part that does not fit is left out: `write!` into a full heapless string fails whole.
    let _ = write_key(&mut key.0, record);
    key
}

fn write_key(w: &mut impl Write, record: &Record) -> fmt::Result {
    match record {
        Record::CarData(r) => write!(w, "{}_{}", r.date.millis(), r.driver_number),
        Record::Location(r) => write!(w, "{}_{}", r.date.millis(), r.driver_number),
        Record::Interval(r) => write!(w, "{}_{}", r.date.millis(), r.driver_number),
        Record::Position(r) => write!(w, "{}_{}", r.date.millis(), r.driver_number),
        Record::TeamRadio(r) => write!(w, "{}_{}", r.date.millis(), r.driver_number),
        Record::Lap(r) => write!(w, "{}_{}_{}", r.session_key, r.lap_number, r.driver_number),
        Record::Pit(r) => {
            write!(
                w,
                "{}_{}_{}",
                r.session_key,
                OrNone(r.lap_number),
                r.driver_number
            )
        }
        Record::Stint(r) => {
            write!(
                w,
                "{}_{}_{}",
                r.session_key, r.stint_number, r.driver_number
            )
        }
        Record::Weather(r) => write!(w, "{}", r.date.millis()),
        Record::RaceControl(r) => write!(
            w,
            "{}_{}_{}_{}_{}_{}_{}",
            millis(r.date),
            OrNone(r.driver_number),
            OrNone(r.lap_number),
            OrNone(r.category.as_deref()),
            OrNone(r.flag.as_deref()),
            OrNone(r.scope.as_deref()),
            OrNone(r.sector),
        ),
        Record::Overtake(r) => write!(
            w,
            "{}_{}_{}",
            r.date.millis(),
            r.overtaking_driver_number,
            r.overtaken_driver_number
        ),
        Record::Driver(r) => write!(w, "{}_{}", r.session_key, r.driver_number),
        Record::Session(r) => write!(w, "{}", r.session_key),
        Record::Meeting(r) => write!(w, "{}", r.meeting_key),
        Record::StartingGrid(r) => write!(w, "{}_{}", r.session_key, r.driver_number),
        Record::SessionResult(r) => write!(w, "{}_{}", r.session_key, r.driver_number),
        Record::ChampionshipDriver(r) => write!(w, "{}_{}", r.session_key, r.driver_number),
        Record::ChampionshipTeam(r) => write!(w, "{}_{}", r.session_key, r.team_name),
        Record::Frame(r) => write!(w, "{}_{}_{}", r.session_key, r.driver_number, r.sequence),
        Record::Prediction(r) => write!(
            w,
            "{}_{}_{}_{}",
            r.session_key(),
            r.name(),
            OrNone(r.driver_number()),
            r.seq()
        ),
    }
}

/// Which version of its document an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// OpenF1's `_id`: the higher, the newer.
    Id(i64),
    /// A source without `_id`: what the record says, hashed. The last one said is the newest.
    Content(u64),
}

impl Version {
    /// The version that `entry` is.
    pub fn of(entry: &Entry) -> Version {
        match (entry.id, &entry.record) {
            (Some(id), _) => Version::Id(id),
            (None, Record::Frame(frame)) => Version::Content(xxh3_64_with_seed(frame.payload(), 0)),
            (None, record) => {
                let bytes = serde_json::to_vec(record).unwrap_or_default();
                Version::Content(xxh3_64_with_seed(&bytes, 0))
            }
        }
    }

    /// Whether an entry of this version adds something to a document last seen as `held`.
    pub fn supersedes(self, held: Version) -> bool {
        match (self, held) {
            (Version::Id(new), Version::Id(old)) => new > old,
            (new, old) => new != old,
        }
    }
}
