//! Records one after another: telemetry as steps from the row before, all else as it is.
//!
//! This is how small live commits are written (cheap, no compressor), and, packed by zstd, how kinds
//! that are no telemetry lie in column blocks.

use bytes::Bytes;

use super::super::cursor::{Cursor, Malformed, put_bytes, put_zigzag};
use super::prediction;
use crate::record::codec::{decode_document, encode};
use crate::record::{CarData, Entry, Frame, Kind, Location, Record, Time, Wire};

/// The row before, that the next one is told from.
#[derive(Default)]
pub(super) struct Previous {
    session_key: i32,
    meeting_key: i32,
    date: i64,
}

impl Previous {
    fn put(&mut self, out: &mut Vec<u8>, session: i32, meeting: i32, driver: u8, date: Time) {
        put_zigzag(out, i64::from(session) - i64::from(self.session_key));
        put_zigzag(out, i64::from(meeting) - i64::from(self.meeting_key));
        put_zigzag(out, date.micros().wrapping_sub(self.date));
        out.push(driver);
        (self.session_key, self.meeting_key, self.date) = (session, meeting, date.micros());
    }

    fn take(&mut self, c: &mut Cursor) -> Result<u8, Malformed> {
        let step = |v: i32, by: i64| {
            i32::try_from(i64::from(v).wrapping_add(by)).map_err(|_| Malformed("key out of range"))
        };
        self.session_key = step(self.session_key, c.zigzag()?)?;
        self.meeting_key = step(self.meeting_key, c.zigzag()?)?;
        self.date = self.date.wrapping_add(c.zigzag()?);
        c.byte()
    }
}

fn put_values<const N: usize>(out: &mut Vec<u8>, values: [Option<i64>; N]) {
    let mask = (0..N).fold(0u8, |m, i| m | u8::from(values[i].is_some()) << i);
    out.push(mask);
    for v in values.into_iter().flatten() {
        put_zigzag(out, v);
    }
}

fn take_values<T: TryFrom<i64>, const N: usize>(
    c: &mut Cursor,
) -> Result<[Option<T>; N], Malformed> {
    let mask = c.byte()?;
    let mut values = [const { None }; N];
    for (i, v) in values.iter_mut().enumerate() {
        if mask >> i & 1 != 0 {
            *v = Some(c.number()?);
        }
    }
    Ok(values)
}

/// Appends one record.
pub(super) fn put(out: &mut Vec<u8>, record: &Record, previous: &mut Previous) {
    match record {
        Record::CarData(r) => {
            previous.put(out, r.session_key, r.meeting_key, r.driver_number, r.date);
            put_values(
                out,
                [r.rpm, r.speed, r.n_gear, r.throttle, r.brake, r.drs].map(|v| v.map(i64::from)),
            );
        }
        Record::Location(r) => {
            previous.put(out, r.session_key, r.meeting_key, r.driver_number, r.date);
            put_values(out, [r.x, r.y, r.z].map(|v| v.map(i64::from)));
        }
        Record::Frame(frame) => put_bytes(out, frame.payload()),
        Record::Prediction(p) => prediction::put(out, p),
        _ => {
            let bare = Entry {
                record: record.clone(),
                id: None,
                key: None,
            };
            put_bytes(out, &encode(&bare, Wire::Cbor));
        }
    }
}

/// Reads the record that stands next. `whole` is the buffer that `c` reads: frames borrow from it.
pub(super) fn take(
    c: &mut Cursor,
    whole: &Bytes,
    kind: Kind,
    previous: &mut Previous,
) -> Result<Record, Malformed> {
    Ok(match kind {
        Kind::CarData => {
            let driver_number = previous.take(c)?;
            let [rpm, speed, n_gear, throttle, brake, drs] = take_values(c)?;
            Record::CarData(CarData {
                meeting_key: previous.meeting_key,
                session_key: previous.session_key,
                driver_number,
                date: Time::from_micros(previous.date),
                rpm,
                speed,
                n_gear,
                throttle,
                brake,
                drs,
            })
        }
        Kind::Location => {
            let driver_number = previous.take(c)?;
            let [x, y, z] = take_values(c)?;
            Record::Location(Location {
                meeting_key: previous.meeting_key,
                session_key: previous.session_key,
                driver_number,
                date: Time::from_micros(previous.date),
                x,
                y,
                z,
            })
        }
        Kind::Frame => {
            let frame = Frame::decode(whole.slice_ref(c.bytes()?))
                .map_err(|_| Malformed("a frame that its own decoder refuses"))?;
            Record::Frame(Box::new(frame))
        }
        Kind::Prediction => Record::Prediction(Box::new(prediction::take(c)?)),
        _ => {
            decode_document(kind, c.bytes()?, Some(Wire::Cbor))
                .map_err(|_| Malformed("a document that its own decoder refuses"))?
                .record
        }
    })
}
