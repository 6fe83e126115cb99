//! Dedupe: each version of each document once, across redelivery and restart.
//!
//! A broker that got no acknowledgement delivers again, after a reconnect or after our own restart,
//! and not every broker says so (rumqttd does not set the DUP flag). So what counts is the record
//! itself: its document key and its version.
//!
//! Three layers, from quick to exact:
//!
//! 1. a streaming record that is later than everything held of its car is new: no look-up;
//! 2. a window of the last [`RECENT`] documents, in memory;
//! 3. the journal itself, which knows every version that it ever accepted.
//!
//! **Invariant:** the answer is exact. The first two layers only save the third one's cost.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::journal::{self, Reader};
use crate::record::key::Version;
use crate::record::{DocumentKey, Entry, Kind, Record, Time};

/// Documents remembered in memory: more than any broker keeps in flight.
pub const RECENT: usize = 32_768;
/// Documents that their table has room for. Where entries come and go, one that is more than half full grows when it
/// is swept, and touches all of its new memory at once.
const ROOM: usize = 2 * RECENT;
/// Cars × kinds × sessions whose latest time is remembered; when full, the table starts afresh (and
/// the journal is asked instead).
const MAX_STREAMS: usize = 8_192;

/// What an entry is to what is already held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A document never seen before.
    NewDocument,
    /// A newer version of a document that is held.
    NewVersion,
    /// Held already, in this very version.
    Duplicate,
    /// A newer version is held already.
    Superseded,
}

impl Verdict {
    /// Whether the entry belongs into the journal.
    pub fn is_accepted(self) -> bool {
        matches!(self, Verdict::NewDocument | Verdict::NewVersion)
    }
}

type Stream = (Kind, i32, u8);

/// The memory of what was accepted.
pub struct Dedupe {
    reader: Reader,
    recent: FxHashMap<DocumentKey, Version>,
    order: VecDeque<DocumentKey>,
    /// Latest date accepted since start, per stream.
    latest: FxHashMap<Stream, Time>,
    /// Latest date of each session in the journal at start.
    floor: FxHashMap<i32, Time>,
    /// Last frame sequence of each car.
    frames: FxHashMap<(i32, u8), u64>,
    frame_gaps: u64,
}

impl Dedupe {
    /// Over the journal that `reader` reads.
    pub fn new(reader: Reader) -> Dedupe {
        let floor = reader
            .sessions()
            .into_iter()
            .filter_map(|s| Some((s.session_key, s.last?)))
            .collect();
        Dedupe {
            reader,
            recent: FxHashMap::with_capacity_and_hasher(ROOM, Default::default()),
            order: VecDeque::with_capacity(RECENT),
            latest: FxHashMap::default(),
            floor,
            frames: FxHashMap::default(),
            frame_gaps: 0,
        }
    }

    /// Judges `entry` and, if it is accepted, remembers it.
    ///
    /// # Errors
    /// Only if the journal had to be asked and could not be read.
    pub fn judge(&mut self, entry: &Entry) -> Result<Verdict, journal::Error> {
        let document = entry.document();
        let version = Version::of(entry);
        let verdict = if self.is_ahead(entry) {
            Verdict::NewDocument
        } else {
            let held = match self.recent.get(&document) {
                Some(held) => Some(*held),
                None => {
                    let held = self.reader.version_of(entry)?;
                    if let Some(held) = held {
                        // What is delivered again once may well be so again.
                        self.keep(document, held);
                    }
                    held
                }
            };
            match held {
                None => Verdict::NewDocument,
                Some(held) if version.supersedes(held) => Verdict::NewVersion,
                Some(held) if held == version => Verdict::Duplicate,
                Some(_) => Verdict::Superseded,
            }
        };
        if verdict.is_accepted() {
            self.remember(entry, document, version);
        }
        Ok(verdict)
    }

    /// Frames that sequences say were never received, since start.
    pub fn frame_gaps(&self) -> u64 {
        self.frame_gaps
    }

    fn is_ahead(&self, entry: &Entry) -> bool {
        let Some((stream, date)) = stream_of(entry) else {
            return false;
        };
        self.floor.get(&stream.1).is_none_or(|t| date > *t)
            && match self.latest.get(&stream) {
                Some(t) => date > *t,
                // Nothing of this stream since start: beyond the floor there is nothing before it.
                None => self.latest.len() < MAX_STREAMS,
            }
    }

    fn remember(&mut self, entry: &Entry, document: DocumentKey, version: Version) {
        if let Some((stream, date)) = stream_of(entry) {
            if self.latest.len() >= MAX_STREAMS && !self.latest.contains_key(&stream) {
                // From here on, whatever lies before the latest of all is looked up.
                let latest_of_all = self.latest.values().copied().max().unwrap_or(date);
                for session in self.latest.keys().map(|s| s.1).collect::<Vec<_>>() {
                    self.floor.insert(session, latest_of_all);
                }
                self.latest.clear();
            }
            let latest = self.latest.entry(stream).or_insert(date);
            *latest = date.max(*latest);
        }
        if let Record::Frame(frame) = &entry.record {
            self.count_gap((frame.session_key, frame.driver_number), frame.sequence);
        }
        self.keep(document, version);
    }

    fn keep(&mut self, document: DocumentKey, version: Version) {
        if let Some(held) = self.recent.get_mut(&document) {
            *held = version;
            return;
        }
        if self.order.len() == RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.recent.insert(document, version);
        self.order.push_back(document);
    }

    fn count_gap(&mut self, car: (i32, u8), sequence: u64) {
        if self.frames.len() >= MAX_STREAMS && !self.frames.contains_key(&car) {
            self.frames.clear();
        }
        let last = self.frames.entry(car).or_insert(sequence);
        // A frame that comes late fills the gap that it left; one ahead opens one.
        if sequence > *last {
            self.frame_gaps += sequence - *last - 1;
            *last = sequence;
        } else if sequence < *last {
            self.frame_gaps = self.frame_gaps.saturating_sub(1);
        }
    }
}

fn stream_of(entry: &Entry) -> Option<(Stream, Time)> {
    let kind = entry.record.kind();
    if !kind.streams() {
        return None;
    }
    let stream = (
        kind,
        entry.record.session_key()?,
        entry.record.driver_number()?,
    );
    Some((stream, entry.record.date()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, Options};
    use crate::record::codec::{Wire, decode_document};

    fn lap(n: usize) -> Entry {
        let json = format!(
            r#"{{"meeting_key":1229,"session_key":9472,"driver_number":1,"lap_number":1,"_key":"{n}","_id":7}}"#
        );
        decode_document(Kind::Lap, json.as_bytes(), Some(Wire::Json)).unwrap()
    }

    #[test]
    fn the_window_takes_no_more_memory_as_documents_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), Options::default(), &mut |_| {}).unwrap();
        let mut dedupe = Dedupe::new(journal.reader());
        let room = (dedupe.recent.capacity(), dedupe.order.capacity());
        for n in 0..4 * RECENT {
            let verdict = dedupe.judge(&lap(n)).unwrap();
            assert_eq!(verdict, Verdict::NewDocument, "{n}");
            // What it has just seen is what it knows best.
            assert_eq!(dedupe.judge(&lap(n)).unwrap(), Verdict::Duplicate, "{n}");
        }
        assert_eq!(dedupe.recent.len(), RECENT);
        assert!(dedupe.recent.capacity() <= room.0, "the table has grown");
        assert_eq!(dedupe.order.capacity(), room.1);
        // Beyond the window the journal is asked, and this one holds nothing.
        assert_eq!(dedupe.judge(&lap(0)).unwrap(), Verdict::NewDocument);
    }
}
