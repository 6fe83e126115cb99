//! Reading by what records say rather than by their sequence: entries, and telemetry as columns.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Error;
use super::block::columns::{CarDataColumns, LocationColumns};
use super::block::stats::{Stat, Stats, driver_bit};
use super::block::{Body, KindSet};
use super::reader::Reader;
use super::segment::{BlockMeta, Handle, Segment};
use super::tail::Chunk;
use crate::record::{Entry, Kind, Record, Time};

/// What is asked for. Nothing set: everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub kind: Option<Kind>,
    pub session_key: Option<i32>,
    pub driver_number: Option<u8>,
    /// The first date that matches. Records without a date match no bounded query.
    pub from: Option<Time>,
    /// The first date that no longer matches.
    pub to: Option<Time>,
}

impl Query {
    /// Everything of one kind.
    pub fn of(kind: Kind) -> Query {
        Query {
            kind: Some(kind),
            ..Query::default()
        }
    }

    fn dated(&self, date: Time) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date < to)
    }

    /// Whether `record` is asked for.
    pub fn matches(&self, record: &Record) -> bool {
        self.kind.is_none_or(|k| record.kind() == k)
            && (self.session_key).is_none_or(|k| record.session_key() == Some(k))
            && (self.driver_number).is_none_or(|d| record.driver_number() == Some(d))
            && (self.from.is_none() && self.to.is_none()
                || record.date().is_some_and(|d| self.dated(d)))
    }

    fn may_match_one(&self, s: &Stat) -> bool {
        self.kind.is_none_or(|k| s.kind == k)
            && (self.session_key).is_none_or(|k| s.session_key == Some(k))
            && (self.driver_number).is_none_or(|d| s.drivers & driver_bit(d) != 0)
            && (self.from.is_none() && self.to.is_none()
                || s.dates.is_some_and(|(low, high)| {
                    self.from.is_none_or(|from| from <= high) && self.to.is_none_or(|to| low < to)
                }))
    }

    /// Whether something of what `stats` tells of may be asked for.
    pub(super) fn may_match(&self, stats: &Stats) -> bool {
        stats.iter().any(|s| self.may_match_one(s))
    }

    fn kinds(&self) -> KindSet {
        self.kind.map_or(KindSet::ALL, |k| KindSet::of([k]))
    }

    /// Whether it asks for some rows of a block only.
    fn narrows(&self) -> bool {
        self.session_key.is_some()
            || self.driver_number.is_some()
            || self.from.is_some()
            || self.to.is_some()
    }
}

/// A block, and the file that it stands in.
type Found = (Arc<Handle>, Arc<BlockMeta>);

/// The blocks that may match, in order, and the tail as it stood when the query began.
struct Blocks {
    reader: Reader,
    segments: VecDeque<Arc<Segment>>,
    open: Option<(Arc<Handle>, usize)>,
    chunks: VecDeque<Chunk>,
}

impl Blocks {
    fn new(reader: &Reader, query: &Query) -> Blocks {
        let state = reader.shared().state();
        let segments = (state.segments.iter())
            .filter(|s| query.may_match(&s.stats))
            .cloned()
            .collect();
        let chunks = (state.tails().into_iter())
            .filter(|t| query.may_match(&t.stats))
            .flat_map(|t| t.chunks.iter().cloned())
            .collect();
        drop(state);
        Blocks {
            reader: reader.clone(),
            segments,
            open: None,
            chunks,
        }
    }

    fn next(&mut self, query: &Query) -> Result<Option<Found>, Error> {
        loop {
            if let Some((handle, at)) = &mut self.open {
                while let Some(meta) = handle.blocks.get(*at) {
                    *at += 1;
                    if query.may_match(&meta.stats) {
                        return Ok(Some((handle.clone(), meta.clone())));
                    }
                }
                self.open = None;
            }
            let Some(segment) = self.segments.pop_front() else {
                return Ok(None);
            };
            self.open = (self.reader.shared().handle(&segment)?).map(|handle| (handle, 0));
        }
    }
}

/// The entries that a query asks for, with their sequence numbers, in order. Memory: one block.
pub struct Entries {
    query: Query,
    blocks: Blocks,
    ready: std::vec::IntoIter<(u64, Entry)>,
}

impl Entries {
    pub(super) fn new(reader: &Reader, query: &Query) -> Entries {
        Entries {
            query: query.clone(),
            blocks: Blocks::new(reader, query),
            ready: Vec::new().into_iter(),
        }
    }

    fn refill(&mut self) -> Result<bool, Error> {
        if let Some((handle, meta)) = self.blocks.next(&self.query)? {
            let shared = self.blocks.reader.shared();
            // A damaged block is noted, and passed over.
            if let Ok(bytes) = shared.read(&handle, &meta)? {
                match Body::open(meta.header, &bytes).and_then(|b| b.entries(self.query.kinds())) {
                    Ok(entries) => self.ready = entries.into_iter(),
                    Err(reason) => {
                        shared.note(&handle, &meta, &reason);
                    }
                }
            }
            return Ok(true);
        }
        let Some(chunk) = self.blocks.chunks.pop_front() else {
            return Ok(false);
        };
        let query = &self.query;
        self.ready = (chunk.first_seq..)
            .zip(chunk.entries.iter())
            .filter(|(_, e)| query.matches(&e.record))
            .map(|(seq, e)| (seq, e.clone()))
            .collect::<Vec<_>>()
            .into_iter();
        Ok(true)
    }
}

impl Iterator for Entries {
    type Item = Result<(u64, Entry), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let query = &self.query;
            if let Some(found) = self.ready.find(|(_, e)| query.matches(&e.record)) {
                return Some(Ok(found));
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// Hands the columns of each matching block to `visit`, in order.
macro_rules! scan {
    ($(#[$doc:meta])* $name:ident, $columns:ident, $record:ident) => {
        $(#[$doc])*
        pub(super) fn $name(
            reader: &Reader,
            query: &Query,
            visit: &mut dyn FnMut(&$columns),
        ) -> Result<u64, Error> {
            let query = Query { kind: Some(Kind::$record), ..query.clone() };
            let mut blocks = Blocks::new(reader, &query);
            let mut rows = 0;
            let mut hand_over = |mut columns: $columns| {
                if query.narrows() {
                    let keep: Vec<bool> = (0..columns.len())
                        .map(|row| {
                            query.session_key.is_none_or(|k| columns.session_key[row] == k)
                                && query.driver_number.is_none_or(|d| columns.driver_number[row] == d)
                                && query.dated(Time::from_micros(columns.date[row]))
                        })
                        .collect();
                    columns.retain(&keep);
                }
                if !columns.is_empty() {
                    rows += columns.len() as u64;
                    visit(&columns);
                }
            };
            while let Some((handle, meta)) = blocks.next(&query)? {
                let Ok(bytes) = reader.shared().read(&handle, &meta)? else {
                    continue;
                };
                match Body::open(meta.header, &bytes).and_then(|b| b.$name()) {
                    Ok(columns) => columns.into_iter().for_each(&mut hand_over),
                    Err(reason) => {
                        reader.shared().note(&handle, &meta, &reason);
                    }
                }
            }
            let of_kind: Vec<_> = (blocks.chunks.iter())
                .flat_map(|c| c.entries.iter())
                .filter_map(|e| match &e.record {
                    Record::$record(r) => Some(r),
                    _ => None,
                })
                .collect();
            hand_over($columns::of(&of_kind));
            Ok(rows)
        }
    };
}

scan!(
    /// See [`Reader::car_data`].
    car_data, CarDataColumns, CarData
);
scan!(
    /// See [`Reader::location`].
    location, LocationColumns, Location
);
