//! What a block or a segment holds, without opening it: per kind and session, how many, which
//! sequence numbers, which dates, which cars.

use rustc_hash::FxHashMap;

use super::super::cursor::{Cursor, Malformed, put_varint, put_zigzag};
use super::MAX_BLOCK_ENTRIES;
use crate::record::{Entry, Kind, Record, Time};

/// One kind in one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// `None` for meetings.
    pub session_key: Option<i32>,
    pub count: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Earliest and latest date, of those that have one.
    pub dates: Option<(Time, Time)>,
    /// Bit n: car n is in it. Bit 127 stands for all cars from 127 on.
    pub drivers: u128,
    /// Lowest and highest sequence of high-rate frames.
    pub frames: Option<(u64, u64)>,
}

/// The bit of a car in [`Stat::drivers`].
pub fn driver_bit(driver: u8) -> u128 {
    1 << driver.min(127)
}

fn widen<T: Ord + Copy>(range: &mut Option<(T, T)>, low: T, high: T) {
    *range = Some(range.map_or((low, high), |(a, b)| (a.min(low), b.max(high))));
}

/// All of them, in order of kind and session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(Vec<Stat>);

impl Stats {
    pub fn iter(&self) -> std::slice::Iter<'_, Stat> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn slot(&mut self, kind: Kind, session_key: Option<i32>, seq: u64) -> &mut Stat {
        let at = match self
            .0
            .binary_search_by_key(&(kind, session_key), |s| (s.kind, s.session_key))
        {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(
                    at,
                    Stat {
                        kind,
                        session_key,
                        count: 0,
                        first_seq: seq,
                        last_seq: seq,
                        dates: None,
                        drivers: 0,
                        frames: None,
                    },
                );
                at
            }
        };
        &mut self.0[at]
    }

    /// Counts one more entry.
    pub fn add(&mut self, seq: u64, entry: &Entry) {
        let stat = self.slot(entry.record.kind(), entry.record.session_key(), seq);
        stat.count += 1;
        stat.first_seq = stat.first_seq.min(seq);
        stat.last_seq = stat.last_seq.max(seq);
        if let Some(date) = entry.record.date() {
            widen(&mut stat.dates, date, date);
        }
        if let Some(driver) = entry.record.driver_number() {
            stat.drivers |= driver_bit(driver);
        }
        if let Record::Frame(frame) = &entry.record {
            widen(&mut stat.frames, frame.sequence, frame.sequence);
        }
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Stats) {
        for o in &other.0 {
            let stat = self.slot(o.kind, o.session_key, o.first_seq);
            stat.count += o.count;
            stat.first_seq = stat.first_seq.min(o.first_seq);
            stat.last_seq = stat.last_seq.max(o.last_seq);
            if let Some((low, high)) = o.dates {
                widen(&mut stat.dates, low, high);
            }
            stat.drivers |= o.drivers;
            if let Some((low, high)) = o.frames {
                widen(&mut stat.frames, low, high);
            }
        }
    }

    /// Writes them relative to the first sequence number of what they describe.
    pub(in super::super) fn encode(&self, base: u64, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for s in &self.0 {
            let flags = u8::from(s.session_key.is_some())
                | u8::from(s.dates.is_some()) << 1
                | u8::from(s.frames.is_some()) << 2;
            out.extend_from_slice(&[s.kind as u8, flags]);
            if let Some(key) = s.session_key {
                put_zigzag(out, i64::from(key));
            }
            put_varint(out, s.count);
            put_varint(out, s.first_seq - base);
            put_varint(out, s.last_seq - s.first_seq);
            if let Some((low, high)) = s.dates {
                put_zigzag(out, low.micros());
                put_varint(out, high.micros().wrapping_sub(low.micros()) as u64);
            }
            put_varint(out, s.drivers as u64);
            put_varint(out, (s.drivers >> 64) as u64);
            if let Some((low, high)) = s.frames {
                put_varint(out, low);
                put_varint(out, high - low);
            }
        }
    }

    pub(in super::super) fn decode(base: u64, c: &mut Cursor) -> Result<Stats, Malformed> {
        let n = c.count(MAX_BLOCK_ENTRIES * 2)?;
        let mut stats = Vec::with_capacity(n.min(64));
        for _ in 0..n {
            let kind = Kind::from_number(c.byte()?).ok_or(Malformed("an unknown kind"))?;
            let flags = c.byte()?;
            let session_key = (flags & 1 != 0).then(|| c.number()).transpose()?;
            let count = c.varint()?;
            let first_seq = base.checked_add(c.varint()?).ok_or(Malformed("sequence"))?;
            let last_seq = first_seq
                .checked_add(c.varint()?)
                .ok_or(Malformed("sequence"))?;
            let dates = (flags & 2 != 0)
                .then(|| -> Result<_, Malformed> {
                    let low = c.zigzag()?;
                    let high = low.wrapping_add(c.varint()? as i64);
                    Ok((Time::from_micros(low), Time::from_micros(high)))
                })
                .transpose()?;
            let drivers = u128::from(c.varint()?) | u128::from(c.varint()?) << 64;
            let frames = (flags & 4 != 0)
                .then(|| -> Result<_, Malformed> {
                    let low = c.varint()?;
                    let high = low.checked_add(c.varint()?).ok_or(Malformed("sequence"))?;
                    Ok((low, high))
                })
                .transpose()?;
            stats.push(Stat {
                kind,
                session_key,
                count,
                first_seq,
                last_seq,
                dates,
                drivers,
                frames,
            });
        }
        Ok(Stats(stats))
    }
}

/// What the journal holds of one session.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SessionSummary {
    pub session_key: i32,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Earliest and latest date of its records.
    pub first: Option<Time>,
    pub last: Option<Time>,
    /// Entries (every version counts) per kind, named as the collections are.
    pub entries: std::collections::BTreeMap<&'static str, u64>,
}

/// Sums up sessions, in order of their first record.
pub(in super::super) fn sessions<'a>(all: impl Iterator<Item = &'a Stat>) -> Vec<SessionSummary> {
    let mut by_key: FxHashMap<i32, SessionSummary> = FxHashMap::default();
    for stat in all {
        let Some(session_key) = stat.session_key else {
            continue;
        };
        let s = by_key.entry(session_key).or_insert_with(|| SessionSummary {
            session_key,
            first_seq: stat.first_seq,
            last_seq: stat.last_seq,
            first: None,
            last: None,
            entries: Default::default(),
        });
        s.first_seq = s.first_seq.min(stat.first_seq);
        s.last_seq = s.last_seq.max(stat.last_seq);
        if let Some((low, high)) = stat.dates {
            s.first = Some(s.first.map_or(low, |t| t.min(low)));
            s.last = Some(s.last.map_or(high, |t| t.max(high)));
        }
        *s.entries.entry(stat.kind.name()).or_default() += stat.count;
    }
    let mut sessions: Vec<_> = by_key.into_values().collect();
    sessions.sort_by_key(|s| s.first_seq);
    sessions
}
