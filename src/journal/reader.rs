//! Reading what is committed: by sequence, by question, by document.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;

use super::Error;
use super::block::columns::{CarDataColumns, LocationColumns};
use super::block::stats::{SessionSummary, Stat, driver_bit, sessions};
use super::damage::Loss;
use super::file;
use super::query::{self, Entries, Query};
use super::segment::Segment;
use super::state::{Shared, State};
use super::version::{Held, Place};
use crate::record::key::Version;
use crate::record::{DocumentKey, Entry, Kind};

/// Most entries that one [`Reader::batch`] returns: a block's worth.
pub const MAX_BATCH: usize = super::block::MAX_BLOCK_ENTRIES;

/// Sequence numbers that a reader was led past.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    pub seqs: Range<u64>,
    /// What was lost; `None` where retention removed it, or the loss was named when it was found.
    pub loss: Option<Loss>,
}

/// Consecutive entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Sequence number of the first entry; where there is none, of the next one to ask for.
    pub first_seq: u64,
    pub entries: Vec<Entry>,
    /// What lay between the sequence number asked for and [`Batch::first_seq`].
    pub skipped: Vec<Skipped>,
}

impl Batch {
    /// Where to read on.
    pub fn next_seq(&self) -> u64 {
        self.first_seq + self.entries.len() as u64
    }

    /// The entries with their sequence numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (self.first_seq..).zip(&self.entries)
    }
}

/// A segment, from outside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SegmentSummary {
    pub file: String,
    /// On disk.
    pub bytes: u64,
    pub first_seq: u64,
    pub end_seq: u64,
}

/// Reads a journal's committed entries. Cheap to clone; may outlive its writer.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Where an entry is.
enum Whereabouts {
    Tail(Vec<Entry>),
    Segment(Arc<Segment>),
    /// Nothing from here to there.
    Gap(u64),
    End,
}

fn locate(state: &State, from: u64, most: usize) -> Whereabouts {
    if from >= state.next_seq {
        return Whereabouts::End;
    }
    let at = state.segments.partition_point(|s| s.end_seq <= from);
    match state.segments.get(at) {
        Some(segment) if segment.first_seq <= from => Whereabouts::Segment(segment.clone()),
        Some(segment) => Whereabouts::Gap(segment.first_seq),
        None => match state.tails().iter().find_map(|t| t.read(from, most)) {
            Some((first, entries)) if first == from => Whereabouts::Tail(entries),
            Some((first, _)) => Whereabouts::Gap(first),
            None => Whereabouts::Gap(state.next_seq),
        },
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Sequence number of the oldest entry that is still held.
    pub fn first_seq(&self) -> u64 {
        let state = self.shared.state();
        (state.segments.first().map(|s| s.first_seq))
            .or(state.tails().iter().find_map(|t| t.first_seq()))
            .unwrap_or(state.next_seq)
    }

    /// Sequence number that follows the last committed entry.
    pub fn next_seq(&self) -> u64 {
        self.shared.state().next_seq
    }

    /// [`Reader::next_seq`] after each commit, to wait on.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.shared.committed.subscribe()
    }

    /// The entries from `from` on, at most `most` (and at most [`MAX_BATCH`]). Empty if and only if
    /// there are none yet. What is damaged or gone is skipped and named.
    pub fn batch(&self, from: u64, most: usize) -> Result<Batch, Error> {
        let most = most.clamp(1, MAX_BATCH);
        let mut batch = Batch {
            first_seq: from,
            ..Batch::default()
        };
        loop {
            let found = locate(&self.shared.state(), batch.first_seq, most);
            let segment = match found {
                Whereabouts::End => return Ok(batch),
                Whereabouts::Tail(entries) => {
                    batch.entries = entries;
                    return Ok(batch);
                }
                Whereabouts::Gap(to) => {
                    batch.skip(to, self.known_loss(batch.first_seq..to));
                    continue;
                }
                Whereabouts::Segment(segment) => segment,
            };
            let Some(handle) = self.shared.handle(&segment)? else {
                batch.skip(segment.end_seq, None);
                continue;
            };
            let Some(meta) = handle.block_at(batch.first_seq) else {
                batch.skip(segment.end_seq, None);
                continue;
            };
            if meta.header.first_seq > batch.first_seq {
                let to = meta.header.first_seq;
                batch.skip(to, self.known_loss(batch.first_seq..to));
                continue;
            }
            match self.shared.decode(&handle, meta)? {
                Ok(decoded) => {
                    let skip = (batch.first_seq - decoded.first_seq) as usize;
                    let end = decoded.entries.len().min(skip + most);
                    batch.entries = decoded.entries[skip..end].to_vec();
                    return Ok(batch);
                }
                Err(loss) => batch.skip(meta.header.end_seq(), Some(loss)),
            }
        }
    }

    fn known_loss(&self, gap: Range<u64>) -> Option<Loss> {
        let inside = |seqs: &Range<u64>| seqs.start < gap.end && gap.start < seqs.end;
        (self.shared.losses().into_iter()).find(|l| l.seqs.as_ref().is_some_and(inside))
    }

    /// The entries that `query` asks for, oldest first, as committed when it is asked.
    pub fn query(&self, query: &Query) -> Entries {
        Entries::new(self, query)
    }

    /// Visits `car_data` as columns, block by block (the query's kind does not matter). Returns how
    /// many rows there were.
    pub fn car_data(
        &self,
        query: &Query,
        visit: &mut dyn FnMut(&CarDataColumns),
    ) -> Result<u64, Error> {
        query::car_data(self, query, visit)
    }

    /// Visits `location` as columns, block by block (the query's kind does not matter). Returns how
    /// many rows there were.
    pub fn location(
        &self,
        query: &Query,
        visit: &mut dyn FnMut(&LocationColumns),
    ) -> Result<u64, Error> {
        query::location(self, query, visit)
    }

    /// The sessions that it holds, in order of their first record.
    pub fn sessions(&self) -> Vec<SessionSummary> {
        let state = self.shared.state();
        let tails = state.tails().into_iter().flat_map(|t| t.stats.iter());
        sessions((state.segments.iter().flat_map(|s| s.stats.iter())).chain(tails))
    }

    /// The segments, in order, and last what is not yet in one (the logs, as one).
    pub fn segments(&self) -> Vec<SegmentSummary> {
        let state = self.shared.state();
        let mut all: Vec<_> = (state.segments.iter())
            .map(|s| SegmentSummary {
                file: (s.path.file_name())
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                bytes: s.bytes,
                first_seq: s.first_seq,
                end_seq: s.end_seq,
            })
            .collect();
        if let Some(first_seq) = state.tails().iter().find_map(|t| t.first_seq()) {
            // A log that has just been moved into a segment is gone by now.
            let logs = file::list(&self.shared.dir, file::LOG).unwrap_or_default();
            let sizes = logs.iter().filter_map(|(_, log)| log.metadata().ok());
            all.push(SegmentSummary {
                file: "log".to_owned(),
                bytes: sizes.map(|m| m.len()).sum(),
                first_seq,
                end_seq: state.next_seq,
            });
        }
        all
    }

    /// How many entries of each kind it holds, versions and all.
    pub fn entries_by_kind(&self) -> BTreeMap<&'static str, u64> {
        let state = self.shared.state();
        let mut counts = BTreeMap::new();
        let segments = state.segments.iter().flat_map(|s| s.stats.iter());
        let tails = state.tails().into_iter().flat_map(|t| t.stats.iter());
        for stat in segments.chain(tails) {
            *counts.entry(stat.kind.name()).or_default() += stat.count;
        }
        counts
    }

    /// The damage found so far.
    pub fn losses(&self) -> Vec<Loss> {
        self.shared.losses()
    }

    /// The version that the journal holds of the document that `entry` is a version of; exact, over
    /// all that is held. Quick where dates are new, or asked for in order.
    pub fn version_of(&self, entry: &Entry) -> Result<Option<Version>, Error> {
        let key = entry.document();
        let place = match key.kind.streams() {
            true => Place::of(entry),
            false => None,
        };
        let (mut hits, candidates) = {
            let state = self.shared.state();
            let hits: Vec<Held> = (state.tails().iter())
                .filter_map(|t| t.documents.get(&key).copied())
                .collect();
            if let Some(held) = hits.last().filter(|held| held.anchored) {
                return Ok(Some(held.version));
            }
            let candidates: Vec<_> = match place {
                Some(place) => (state.segments.iter())
                    .filter(|s| s.stats.iter().any(|s| may_stand(s, place)))
                    .cloned()
                    .collect(),
                None => Vec::new(),
            };
            (hits, candidates)
        };
        {
            let index = self.shared.index();
            match &*index {
                Some(index) if !key.kind.streams() || index.has_streaming => {
                    hits.extend(index.get(&key)?);
                }
                Some(_) => {}
                None => {
                    drop(index);
                    self.search(&key, &mut hits)?;
                }
            }
        }
        if let Some(place) = place {
            for segment in candidates {
                self.look_up(&segment, place, &key, &mut hits)?;
            }
        }
        hits.sort_by_key(|held| held.seq);
        Ok(hits.into_iter().reduce(Held::then).map(|h| h.version))
    }

    /// Finds what streams by its place.
    fn look_up(
        &self,
        segment: &Segment,
        place: Place,
        key: &DocumentKey,
        hits: &mut Vec<Held>,
    ) -> Result<(), Error> {
        let Some(handle) = self.shared.handle(segment)? else {
            return Ok(());
        };
        for meta in handle.blocks.iter() {
            if !meta.stats.iter().any(|s| may_stand(s, place)) {
                continue;
            }
            if let Some(decoded) = self.shared.decode_for(&handle, meta, key)? {
                for (seq, entry) in decoded.at(place) {
                    if entry.document() == *key {
                        hits.push(Held::of(seq, entry));
                    }
                }
            }
        }
        Ok(())
    }

    /// Without an index: every entry of the kind in the segments that [`Reader::look_up`] would not
    /// find.
    fn search(&self, key: &DocumentKey, hits: &mut Vec<Held>) -> Result<(), Error> {
        for found in self.query(&Query::of(key.kind)) {
            let (seq, entry) = found?;
            let placed = key.kind.streams() && entry.key.is_none();
            if !placed && entry.document() == *key {
                hits.push(Held::of(seq, &entry));
            }
        }
        Ok(())
    }
}

impl Batch {
    fn skip(&mut self, to: u64, loss: Option<Loss>) {
        self.skipped.push(Skipped {
            seqs: self.first_seq..to,
            loss,
        });
        self.first_seq = to;
    }
}

/// Whether an entry that stands at `place` may be among those that `stat` tells of.
fn may_stand(stat: &Stat, place: Place) -> bool {
    match place {
        Place::Sample(kind, ms, driver) => {
            stat.kind == kind
                && stat.drivers & driver_bit(driver) != 0
                && (stat.dates).is_some_and(|(a, b)| (a.millis()..=b.millis()).contains(&ms))
        }
        Place::Frame(session, driver, sequence) => {
            stat.kind == Kind::Frame
                && stat.session_key == Some(session)
                && stat.drivers & driver_bit(driver) != 0
                && stat
                    .frames
                    .is_some_and(|(a, b)| (a..=b).contains(&sequence))
        }
    }
}
