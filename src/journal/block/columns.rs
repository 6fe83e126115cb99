//! Telemetry as columns: `car_data` and `location`.
//!
//! The car column stays in order of arrival: it is nearly a cycle, which zstd makes vanish. So do
//! dates: all cars share each, so most steps are zero. All other columns are laid out car by car
//! (each car's samples in order of arrival), where a value is close to the one before it. The order
//! is not stored: sorting the car column stably gives it back.

use pco::data_types::Number;
use pco::standalone::{simple_compress_into, simple_decompress_into};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::super::cursor::{Cursor, Malformed, put_bytes, put_varint, put_zigzag};
use super::{MAX_BLOCK_ENTRIES, pack, unpack};
use crate::record::{CarData, Location, Time};

/// Whether neighbours in a column are close to each other.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Delta {
    None,
    Consecutive,
}

/// Level of pco: higher ones cost time and win nothing at this size of block.
const PCO_LEVEL: usize = 8;

fn config(delta: Delta) -> ChunkConfig {
    ChunkConfig::default()
        .with_compression_level(PCO_LEVEL)
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(match delta {
            Delta::None => DeltaSpec::NoOp,
            Delta::Consecutive => DeltaSpec::TryConsecutive(1),
        })
}

pub(super) fn put_numbers<T: Number>(out: &mut Vec<u8>, values: &[T], delta: Delta) {
    let bytes = simple_compress_into(values, &config(delta), Vec::new())
        // The configuration is a constant, the sink is memory, and a block is far below pco's limit.
        .expect("a block's column always compresses");
    put_bytes(out, &bytes);
}

pub(super) fn take_numbers<T: Number + Default>(
    c: &mut Cursor,
    n: usize,
) -> Result<Vec<T>, Malformed> {
    let mut values = vec![T::default(); n];
    let progress = simple_decompress_into(c.bytes()?, &mut values)
        .map_err(|_| Malformed("a column that does not decompress"))?;
    if progress.n_processed != n || !progress.finished {
        return Err(Malformed("a column of the wrong length"));
    }
    Ok(values)
}

/// A bit a row, packed.
pub(super) fn put_bits(out: &mut Vec<u8>, bits: impl ExactSizeIterator<Item = bool>) {
    let mut bytes = vec![0u8; bits.len().div_ceil(8)];
    for (i, bit) in bits.enumerate() {
        bytes[i / 8] |= u8::from(bit) << (i % 8);
    }
    pack(out, &bytes);
}

pub(super) fn take_bits(c: &mut Cursor, n: usize) -> Result<Vec<bool>, Malformed> {
    let bytes = unpack(c)?;
    if bytes.len() != n.div_ceil(8) {
        return Err(Malformed("a bitmap of the wrong length"));
    }
    Ok((0..n).map(|i| bytes[i / 8] >> (i % 8) & 1 != 0).collect())
}

/// One channel of a block: a value a row, and where there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel<T> {
    /// Zero where there is none.
    pub values: Vec<T>,
    /// `true` where the feed had no (possible) value; `None`: it always had one.
    pub nulls: Option<Vec<bool>>,
}

impl<T: Copy> Channel<T> {
    /// The value in row `row`.
    pub fn get(&self, row: usize) -> Option<T> {
        match &self.nulls {
            Some(nulls) if nulls[row] => None,
            _ => Some(self.values[row]),
        }
    }

    fn retain(&mut self, keep: &[bool]) {
        retain(&mut self.values, keep);
        if let Some(nulls) = &mut self.nulls {
            retain(nulls, keep);
        }
    }
}

fn retain<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    values.retain(|_| *keep.next().unwrap_or(&false));
}

impl<T: Copy + Default> FromIterator<Option<T>> for Channel<T> {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(rows: I) -> Self {
        let (mut values, mut nulls, mut any) = (Vec::new(), Vec::new(), false);
        for v in rows {
            values.push(v.unwrap_or_default());
            nulls.push(v.is_none());
            any |= v.is_none();
        }
        Channel {
            values,
            nulls: any.then_some(nulls),
        }
    }
}

fn put_channel<T: Number + Default>(out: &mut Vec<u8>, channel: &Channel<T>, delta: Delta) {
    let Some(nulls) = &channel.nulls else {
        out.push(0);
        return put_numbers(out, &channel.values, delta);
    };
    out.push(1);
    put_bits(out, nulls.iter().copied());
    let present: Vec<T> = (channel.values.iter().zip(nulls))
        .filter_map(|(v, null)| (!null).then_some(*v))
        .collect();
    put_numbers(out, &present, delta);
}

fn take_channel<T: Number + Default>(c: &mut Cursor, n: usize) -> Result<Channel<T>, Malformed> {
    if c.byte()? == 0 {
        return Ok(Channel {
            values: take_numbers(c, n)?,
            nulls: None,
        });
    }
    let nulls = take_bits(c, n)?;
    let present = nulls.iter().filter(|null| !**null).count();
    let mut present = take_numbers::<T>(c, present)?.into_iter();
    let values = (nulls.iter())
        .map(|null| if *null { None } else { present.next() }.unwrap_or_default())
        .collect();
    Ok(Channel {
        values,
        nulls: Some(nulls),
    })
}

/// Session and meeting keys: nearly always one run.
fn put_runs(out: &mut Vec<u8>, keys: impl Iterator<Item = (i32, i32)>) {
    let mut runs: Vec<((i32, i32), u64)> = Vec::new();
    for key in keys {
        match runs.last_mut() {
            Some((last, n)) if *last == key => *n += 1,
            _ => runs.push((key, 1)),
        }
    }
    put_varint(out, runs.len() as u64);
    for ((session, meeting), n) in runs {
        put_zigzag(out, i64::from(session));
        put_zigzag(out, i64::from(meeting));
        put_varint(out, n);
    }
}

fn take_runs(c: &mut Cursor, n: usize) -> Result<Vec<(i32, i32)>, Malformed> {
    let mut keys = Vec::with_capacity(n);
    for _ in 0..c.count(n)? {
        let key = (c.number()?, c.number()?);
        let run = c.count(n - keys.len())?;
        keys.resize(keys.len() + run, key);
    }
    if keys.len() != n {
        return Err(Malformed("session runs of the wrong length"));
    }
    Ok(keys)
}

/// The rows in order of car, each car's in order of arrival: a stable counting sort.
fn by_car(drivers: &[u8]) -> Vec<u32> {
    let mut start = [0u32; 257];
    for d in drivers {
        start[usize::from(*d) + 1] += 1;
    }
    for i in 1..257 {
        start[i] += start[i - 1];
    }
    let mut order = vec![0u32; drivers.len()];
    for (row, d) in drivers.iter().enumerate() {
        let at = &mut start[usize::from(*d)];
        order[*at as usize] = row as u32;
        *at += 1;
    }
    order
}

/// What all telemetry has: who and when.
struct Samples {
    keys: Vec<(i32, i32)>,
    drivers: Vec<u8>,
    dates: Vec<i64>,
}

impl Samples {
    fn put(&self, out: &mut Vec<u8>) {
        put_runs(out, self.keys.iter().copied());
        pack(out, &self.drivers);
        put_numbers(out, &self.dates, Delta::Consecutive);
    }

    fn take(c: &mut Cursor, n: usize) -> Result<Samples, Malformed> {
        let keys = take_runs(c, n)?;
        let drivers = unpack(c)?;
        if drivers.len() != n {
            return Err(Malformed("a car column of the wrong length"));
        }
        let dates = take_numbers(c, n)?;
        Ok(Samples {
            keys,
            drivers,
            dates,
        })
    }
}

/// Declares a kind's columns, how they are packed, and the way back to records.
macro_rules! telemetry {
    ($(#[$meta:meta])* $columns:ident of $record:ident { $( $(#[$doc:meta])* $channel:ident : $ty:ty = $delta:ident ),* $(,)? }) => {
        $(#[$meta])*
        ///
        /// Rows are in order of car, each car's in order of arrival.
        #[derive(Clone, Debug, PartialEq)]
        pub struct $columns {
            /// Where each row stood among this kind's rows of the block, in order of arrival.
            pub arrival: Vec<u32>,
            pub session_key: Vec<i32>,
            pub meeting_key: Vec<i32>,
            pub driver_number: Vec<u8>,
            /// µs since 1970.
            pub date: Vec<i64>,
            $( $(#[$doc])* pub $channel: Channel<$ty>, )*
        }

        impl $columns {
            /// How many rows.
            pub fn len(&self) -> usize {
                self.date.len()
            }

            pub fn is_empty(&self) -> bool {
                self.date.is_empty()
            }

            /// Row `row` as a record.
            pub fn record(&self, row: usize) -> $record {
                $record {
                    meeting_key: self.meeting_key[row],
                    session_key: self.session_key[row],
                    driver_number: self.driver_number[row],
                    date: Time::from_micros(self.date[row]),
                    $( $channel: self.$channel.get(row), )*
                }
            }

            /// From records in order of arrival.
            pub fn of(rows: &[&$record]) -> $columns {
                let drivers: Vec<u8> = rows.iter().map(|r| r.driver_number).collect();
                let arrival = by_car(&drivers);
                let sorted = || arrival.iter().map(|at| rows[*at as usize]);
                $columns {
                    session_key: sorted().map(|r| r.session_key).collect(),
                    meeting_key: sorted().map(|r| r.meeting_key).collect(),
                    driver_number: sorted().map(|r| r.driver_number).collect(),
                    date: sorted().map(|r| r.date.micros()).collect(),
                    $( $channel: sorted().map(|r| r.$channel).collect(), )*
                    arrival,
                }
            }

            /// Keeps the rows whose flag is set.
            pub(in super::super) fn retain(&mut self, keep: &[bool]) {
                retain(&mut self.arrival, keep);
                retain(&mut self.session_key, keep);
                retain(&mut self.meeting_key, keep);
                retain(&mut self.driver_number, keep);
                retain(&mut self.date, keep);
                $( self.$channel.retain(keep); )*
            }

            pub(super) fn put(out: &mut Vec<u8>, rows: &[&$record]) {
                Samples {
                    keys: rows.iter().map(|r| (r.session_key, r.meeting_key)).collect(),
                    drivers: rows.iter().map(|r| r.driver_number).collect(),
                    dates: rows.iter().map(|r| r.date.micros()).collect(),
                }
                .put(out);
                let columns = $columns::of(rows);
                $( put_channel(out, &columns.$channel, Delta::$delta); )*
            }

            pub(super) fn take(c: &mut Cursor, n: usize) -> Result<$columns, Malformed> {
                if n > MAX_BLOCK_ENTRIES {
                    return Err(Malformed("more rows than a block may hold"));
                }
                let samples = Samples::take(c, n)?;
                let arrival = by_car(&samples.drivers);
                let sorted = || arrival.iter().map(|at| *at as usize);
                Ok($columns {
                    session_key: sorted().map(|at| samples.keys[at].0).collect(),
                    meeting_key: sorted().map(|at| samples.keys[at].1).collect(),
                    driver_number: sorted().map(|at| samples.drivers[at]).collect(),
                    date: sorted().map(|at| samples.dates[at]).collect(),
                    $( $channel: take_channel(c, n)?, )*
                    arrival,
                })
            }
        }
    };
}

telemetry! {
    /// A block's `car_data`.
    CarDataColumns of CarData {
        /// 1/min.
        rpm: i16 = Consecutive,
        /// km/h.
        speed: i16 = Consecutive,
        n_gear: i16 = None,
        /// %.
        throttle: i16 = Consecutive,
        brake: i16 = None,
        drs: i16 = None,
    }
}

telemetry! {
    /// A block's `location`.
    LocationColumns of Location {
        /// 1/10 m in the circuit's frame.
        x: i32 = Consecutive,
        y: i32 = Consecutive,
        z: i32 = Consecutive,
    }
}
