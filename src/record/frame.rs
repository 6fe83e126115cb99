//! The native high-rate form: one car, one burst of samples, one typed array a channel.
//!
//! One CBOR map: `session` (int), `driver` (int), `seq` (uint, counts up by one for each frame of a
//! car), `t0` (int, µs since 1970 of the first sample) and `dt` (uint, µs between samples), or `t`
//! (a typed array of int64 µs since 1970, one a sample, never decreasing), and `ch`: a map from
//! channel name to an RFC 8746 typed array, little-endian, all of the same length. Arrays are byte
//! strings under a tag, so that decoding borrows them and copies nothing. Channel names and units
//! come from the registry in the configuration.
//!
//! ```text
//! a6                                  map of 6
//!   67 "session"  19 2500             9472
//!   66 "driver"   01
//!   63 "seq"      18 2a
//!   62 "t0"       1b 000612b3f0f57a40
//!   62 "dt"       19 03e8             1 kHz
//!   62 "ch"       a2                  map of 2
//!     65 "speed"  d8 55 58 40 …       float32, little-endian: 16 samples
//!     63 "rpm"    d8 45 58 20 …       uint16, little-endian: 16 samples
//! ```
//!
//! The reader below knows this map and no more: no recursion but for unknown members (a handful of
//! levels), no indefinite lengths, no allocation unless it refuses. 100 samples of 7 channels take
//! about a fifth of a microsecond; a general CBOR decoder would have to be told what to borrow.
//!
//! **Invariant:** a [`Frame`] that exists was checked from its first byte to its last.

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::codec::{FRAMES_PREFIX, MAX_FRAME_BYTES};
use super::samples::{Column, Element, Samples};
use super::{Reject, Time};

/// Most channels in a frame.
pub const MAX_CHANNELS: usize = 64;
/// Most samples in a frame.
pub const MAX_SAMPLES: u32 = 65_536;
/// Longest channel name (bytes of `a-z0-9_./-`).
pub const MAX_NAME_BYTES: usize = 48;
/// Longest time between samples (µs).
pub const MAX_PERIOD_US: u64 = 60_000_000;
/// Highest sequence number: it must fit the journal's signed columns.
pub const MAX_SEQUENCE: u64 = i64::MAX as u64;
/// Most members of the outer map, ours and those that we do not know.
const MAX_MEMBERS: u64 = 32;
/// How deep a member that we do not know may nest.
const MAX_SKIP_DEPTH: u8 = 4;

/// A validated frame: its head as fields, its samples still in the payload as they arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub session_key: i32,
    pub driver_number: u8,
    /// Counts up by one for each frame of a car in a session.
    pub sequence: u64,
    /// Time of the first sample.
    pub first: Time,
    /// Time of the last sample.
    pub last: Time,
    /// Samples of each channel.
    pub samples: u32,
    spacing: Spacing,
    /// Where in the payload the map of channels begins.
    channels_at: u32,
    payload: Bytes,
}

/// How a frame says when its samples were taken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spacing {
    /// Evenly: µs between samples.
    Period(u32),
    /// One by one: where in the payload the bytes of the array of times begin.
    Each(u32),
}

impl Frame {
    /// Checks a payload and reads its head.
    ///
    /// # Errors
    /// [`Reject`], with the member and the value at fault.
    pub fn decode(payload: Bytes) -> Result<Frame, Reject> {
        if payload.len() > MAX_FRAME_BYTES {
            return Err(Reject::Oversized {
                bytes: payload.len(),
                limit: MAX_FRAME_BYTES,
            });
        }
        let head = Head::read(&payload)?;
        Ok(Frame {
            session_key: head.session_key,
            driver_number: head.driver_number,
            sequence: head.sequence,
            first: head.first,
            last: head.last,
            samples: head.samples,
            spacing: head.spacing,
            channels_at: head.channels_at,
            payload,
        })
    }

    /// The payload, as it came.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Every channel and its samples, in the order of the payload.
    pub fn channels(&self) -> impl Iterator<Item = (&str, Samples<'_>)> {
        let mut cursor = Cursor {
            bytes: &self.payload,
            at: self.channels_at as usize,
        };
        // `decode` has read these very bytes: `ok()` only ends the loop at the last channel.
        let count = cursor.map().unwrap_or(0);
        (0..count).map_while(move |_| Some((cursor.text().ok()?, cursor.samples("ch").ok()?)))
    }

    /// The samples of the channel of that name.
    pub fn channel(&self, name: &str) -> Option<Samples<'_>> {
        self.channels()
            .find_map(|(n, samples)| (n == name).then_some(samples))
    }

    /// The time of each sample.
    pub fn times(&self) -> impl ExactSizeIterator<Item = Time> + '_ {
        (0..self.samples as usize).map(|i| match self.spacing {
            Spacing::Period(us) => {
                Time::from_micros(self.first.micros() + i as i64 * i64::from(us))
            }
            Spacing::Each(at) => time_at(&self.payload, at as usize, i).unwrap_or(self.last),
        })
    }

    /// Time between samples (µs), where they are evenly spaced.
    pub const fn period_us(&self) -> Option<u32> {
        match self.spacing {
            Spacing::Period(us) => Some(us),
            Spacing::Each(_) => None,
        }
    }

    /// The topic on which it is published.
    pub fn topic(&self) -> String {
        format!("{FRAMES_PREFIX}{}/{}", self.session_key, self.driver_number)
    }
}

/// `{"session_key", "driver_number", "seq", "t0", "dt", "channels": {name: […]}}`, with `t`, an
/// array, in place of `dt` where samples are not evenly spaced. Times in µs.
impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        struct Channels<'a>(&'a Frame);
        impl Serialize for Channels<'_> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_map(self.0.channels())
            }
        }
        let mut map = s.serialize_map(Some(6))?;
        map.serialize_entry("session_key", &self.session_key)?;
        map.serialize_entry("driver_number", &self.driver_number)?;
        map.serialize_entry("seq", &self.sequence)?;
        map.serialize_entry("t0", &self.first.micros())?;
        match self.spacing {
            Spacing::Period(us) => map.serialize_entry("dt", &us)?,
            Spacing::Each(_) => {
                let times: Vec<i64> = self.times().map(Time::micros).collect();
                map.serialize_entry("t", &times)?;
            }
        }
        map.serialize_entry("channels", &Channels(self))?;
        map.end()
    }
}

/// Time `i` of the array of times that begins at `at`.
fn time_at(payload: &[u8], at: usize, i: usize) -> Option<Time> {
    let bytes = payload.get(at + 8 * i..)?.first_chunk::<8>()?;
    Some(Time::from_micros(i64::from_le_bytes(*bytes)))
}

/// What the outer map says, once all of it was checked.
struct Head {
    session_key: i32,
    driver_number: u8,
    sequence: u64,
    first: Time,
    last: Time,
    samples: u32,
    spacing: Spacing,
    channels_at: u32,
}

impl Head {
    fn read(payload: &[u8]) -> Result<Head, Reject> {
        let mut cursor = Cursor {
            bytes: payload,
            at: 0,
        };
        let (mut session, mut driver, mut seq, mut t0, mut dt) = (None, None, None, None, None);
        let (mut times, mut channels) = (None, None);
        let members = cursor.map()?;
        if members > MAX_MEMBERS {
            return Err(mistyped(
                "the frame",
                &format!("{members} members, at most {MAX_MEMBERS}"),
            ));
        }
        for _ in 0..members {
            let name = cursor.text()?;
            let again = match name {
                "session" => session.replace(cursor.integer("session")?).is_some(),
                "driver" => driver.replace(cursor.integer("driver")?).is_some(),
                "seq" => seq.replace(cursor.integer("seq")?).is_some(),
                "t0" => t0.replace(cursor.integer("t0")?).is_some(),
                "dt" => dt.replace(cursor.integer("dt")?).is_some(),
                "t" => times.replace(cursor.times()?).is_some(),
                "ch" => channels.replace((cursor.at, cursor.channels()?)).is_some(),
                _ => {
                    cursor.skip(MAX_SKIP_DEPTH)?;
                    false
                }
            };
            if again {
                return Err(mistyped(name, "it is there twice"));
            }
        }
        if cursor.at != payload.len() {
            let left = payload.len() - cursor.at;
            return Err(Reject::Malformed(format!(
                "{left} bytes after the frame's end"
            )));
        }
        let (channels_at, samples) = channels.ok_or_else(|| missing("ch"))?;
        let (first, last, spacing) = span(t0, dt, times, samples)?;
        Ok(Head {
            session_key: within("session", session, 0..=i64::from(i32::MAX))? as i32,
            driver_number: within("driver", driver, 1..=99)? as u8,
            sequence: within("seq", seq, 0..=MAX_SEQUENCE as i64)? as u64,
            first,
            last,
            samples,
            spacing,
            // A payload is at most 1 MiB long.
            channels_at: channels_at as u32,
        })
    }
}

/// First and last time from `t0` and `dt`, or from the array of times.
fn span(
    t0: Option<i64>,
    dt: Option<i64>,
    times: Option<EachTime>,
    samples: u32,
) -> Result<(Time, Time, Spacing), Reject> {
    let (first, last, spacing) = match times {
        None => {
            let first = t0.ok_or_else(|| missing("t0"))?;
            let period = within("dt", dt, 1..=MAX_PERIOD_US as i64)?;
            // Saturating: what saturates is not plausible, and refused below.
            let last = first.saturating_add(period * i64::from(samples - 1));
            (first, last, Spacing::Period(period as u32))
        }
        Some(t) => {
            if t.count != samples as usize {
                return Err(mistyped(
                    "t",
                    &format!("{} times for {samples} samples", t.count),
                ));
            }
            if dt.is_some() {
                return Err(mistyped("dt", "the frame has t, too"));
            }
            if t0.is_some_and(|t0| t0 != t.first) {
                return Err(mistyped("t0", "it is not the first of t"));
            }
            (t.first, t.last, Spacing::Each(t.at as u32))
        }
    };
    let (first, last) = (Time::from_micros(first), Time::from_micros(last));
    for (field, time) in [("t0", first), ("t", last)] {
        if !time.is_plausible() {
            return Err(Reject::Absurd {
                field,
                value: time.to_string(),
            });
        }
    }
    Ok((first, last, spacing))
}

#[cold]
fn mistyped(member: &str, what: &str) -> Reject {
    Reject::Mistyped(format!("{member}: {what}"))
}

#[cold]
fn missing(member: &str) -> Reject {
    mistyped(member, "it is not there")
}

fn within(
    field: &'static str,
    value: Option<i64>,
    allowed: std::ops::RangeInclusive<i64>,
) -> Result<i64, Reject> {
    let value = value.ok_or_else(|| missing(field))?;
    if allowed.contains(&value) {
        Ok(value)
    } else {
        Err(Reject::Absurd {
            field,
            value: value.to_string(),
        })
    }
}

/// An array of times whose values have been checked.
struct EachTime {
    at: usize,
    count: usize,
    first: i64,
    last: i64,
}

/// Reads CBOR items one after another.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Major types of RFC 8949.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

impl<'a> Cursor<'a> {
    /// An item's major type and its argument.
    #[inline]
    fn head(&mut self) -> Result<(u8, u64), Reject> {
        let first = *self.bytes.get(self.at).ok_or_else(|| self.cut_off(1))?;
        self.at += 1;
        let argument = match first & 0x1f {
            n @ 0..=23 => u64::from(n),
            24 => u64::from(self.fixed::<1>()?[0]),
            25 => u64::from(u16::from_be_bytes(self.fixed()?)),
            26 => u64::from(u32::from_be_bytes(self.fixed()?)),
            27 => u64::from_be_bytes(self.fixed()?),
            31 => return Err(self.malformed("an indefinite length")),
            _ => return Err(self.malformed("a reserved length")),
        };
        Ok((first >> 5, argument))
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Reject> {
        let chunk = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>);
        let chunk = *chunk.ok_or_else(|| self.cut_off(N as u64))?;
        self.at += N;
        Ok(chunk)
    }

    #[inline]
    fn take(&mut self, n: u64) -> Result<&'a [u8], Reject> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(n).ok().and_then(|n| rest.get(..n));
        let taken = taken.ok_or_else(|| self.cut_off(n))?;
        self.at += taken.len();
        Ok(taken)
    }

    #[cold]
    fn cut_off(&self, wanted: u64) -> Reject {
        Reject::Truncated(format!(
            "{wanted} bytes wanted at byte {} of {}",
            self.at,
            self.bytes.len()
        ))
    }

    #[cold]
    fn malformed(&self, what: &str) -> Reject {
        Reject::Malformed(format!("{what} before byte {}", self.at))
    }

    /// How many members the map that begins here has.
    fn map(&mut self) -> Result<u64, Reject> {
        match self.head()? {
            (MAP, members) => Ok(members),
            _ => Err(mistyped("the frame", "a map is wanted")),
        }
    }

    #[inline]
    fn text(&mut self) -> Result<&'a str, Reject> {
        match self.head()? {
            (TEXT, len) => {
                let bytes = self.take(len)?;
                std::str::from_utf8(bytes).map_err(|_| self.malformed("text that is not UTF-8"))
            }
            _ => Err(mistyped("the frame", "a name must be text")),
        }
    }

    fn integer(&mut self, member: &str) -> Result<i64, Reject> {
        let (major, argument) = self.head()?;
        let magnitude = i64::try_from(argument);
        match (major, magnitude) {
            (UNSIGNED, Ok(n)) => Ok(n),
            (NEGATIVE, Ok(n)) => Ok(-1 - n),
            _ => Err(mistyped(member, "a whole number of 64 bits is wanted")),
        }
    }

    /// A typed array: a tag of RFC 8746 and a byte string.
    #[inline]
    fn samples(&mut self, member: &str) -> Result<Samples<'a>, Reject> {
        let (TAG, tag) = self.head()? else {
            return Err(mistyped(member, "a typed array is wanted"));
        };
        let Some(element) = Element::from_tag(tag) else {
            return Err(mistyped(
                member,
                &format!("tag {tag} is no little-endian typed array"),
            ));
        };
        let (BYTES, len) = self.head()? else {
            return Err(mistyped(member, "a byte string is wanted under the tag"));
        };
        let bytes = self.take(len)?;
        Samples::new(element, bytes).ok_or_else(|| {
            mistyped(
                member,
                &format!("{len} bytes are no whole number of samples"),
            )
        })
    }

    /// The array of times: int64, never decreasing, all plausible if its ends are.
    fn times(&mut self) -> Result<EachTime, Reject> {
        let samples = self.samples("t")?;
        if samples.element() != Element::I64 {
            return Err(mistyped("t", "tag 79 (int64, little-endian) is wanted"));
        }
        let at = self.at - samples.bytes().len();
        let (chunks, _) = samples.bytes().as_chunks::<8>();
        let value = |chunk: &[u8; 8]| i64::from_le_bytes(*chunk);
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
            return Err(mistyped("t", "no times"));
        };
        if !chunks.is_sorted_by_key(value) {
            return Err(mistyped("t", "times run backwards"));
        }
        Ok(EachTime {
            at,
            count: chunks.len(),
            first: value(first),
            last: value(last),
        })
    }

    /// Checks the map of channels and says how many samples each has.
    fn channels(&mut self) -> Result<u32, Reject> {
        let count = self.map()? as usize;
        if !(1..=MAX_CHANNELS).contains(&count) {
            return Err(mistyped(
                "ch",
                &format!("{count} channels, 1 to {MAX_CHANNELS} allowed"),
            ));
        }
        let mut names = [""; MAX_CHANNELS];
        let mut samples = None;
        for i in 0..count {
            let name = self.text()?;
            if !is_channel_name(name) {
                let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
                return Err(mistyped(
                    "ch",
                    &format!("{shown:?} is no channel name (a-z0-9_./-)"),
                ));
            }
            if names[..i].contains(&name) {
                return Err(mistyped("ch", &format!("{name} is there twice")));
            }
            names[i] = name;
            let len = self.samples(name)?.len();
            if *samples.get_or_insert(len) != len {
                return Err(mistyped(
                    name,
                    &format!("{len} samples, the first channel has others"),
                ));
            }
        }
        match u32::try_from(samples.unwrap_or(0)) {
            Ok(n @ 1..=MAX_SAMPLES) => Ok(n),
            _ => Err(mistyped(
                "ch",
                &format!("1 to {MAX_SAMPLES} samples allowed"),
            )),
        }
    }

    /// Passes over an item that we do not know.
    fn skip(&mut self, depth: u8) -> Result<(), Reject> {
        let (major, argument) = self.head()?;
        let items = match major {
            BYTES | TEXT => {
                self.take(argument)?;
                0
            }
            ARRAY => argument,
            MAP => argument.saturating_mul(2),
            TAG => 1,
            // Integers are their own head; so are floats and simple values.
            _ => 0,
        };
        if items > 0 && depth == 0 {
            return Err(Reject::TooDeep);
        }
        // Ends with the payload at the latest: each item takes at least a byte.
        for _ in 0..items {
            self.skip(depth - 1)?;
        }
        Ok(())
    }
}

fn is_channel_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'/' | b'-'))
}

/// Writes a frame, channel by channel.
///
/// ```
/// use trackside::record::{Time, frame::FrameBuilder};
/// let t0 = Time::from_millis(1_709_391_822_341);
/// let mut frame = FrameBuilder::evenly(9472, 1, 42, t0, 1000);
/// frame.channel("speed", &[301.5_f32, 302.0][..]).channel("rpm", &[11_400_u16, 11_450][..]);
/// let frame = frame.finish().unwrap();
/// assert_eq!(frame.channel("rpm").unwrap().iter().collect::<Vec<_>>(), [11_400.0, 11_450.0]);
/// assert_eq!(frame.last, t0.plus_seconds(0.001));
/// ```
pub struct FrameBuilder {
    head: Vec<u8>,
    channels: Vec<u8>,
    count: u64,
}

impl FrameBuilder {
    /// A frame of samples `dt_us` microseconds apart, the first one at `first`.
    pub fn evenly(session: i32, driver: u8, sequence: u64, first: Time, dt_us: u32) -> Self {
        let mut builder = Self::start(6, session, driver, sequence);
        builder.member("t0", first.micros());
        builder.member("dt", i64::from(dt_us));
        builder
    }

    /// A frame of samples taken at `times`.
    pub fn at(session: i32, driver: u8, sequence: u64, times: &[Time]) -> Self {
        let mut builder = Self::start(5, session, driver, sequence);
        let times: Vec<i64> = times.iter().map(|t| t.micros()).collect();
        write_text(&mut builder.head, "t");
        write_array(&mut builder.head, Column::I64(&times));
        builder
    }

    fn start(members: u64, session: i32, driver: u8, sequence: u64) -> Self {
        let mut builder = FrameBuilder {
            head: Vec::new(),
            channels: Vec::new(),
            count: 0,
        };
        write_head(&mut builder.head, MAP, members);
        builder.member("session", i64::from(session));
        builder.member("driver", i64::from(driver));
        // Beyond i64 it is refused by `finish`, as by every reader.
        builder.member("seq", i64::try_from(sequence).unwrap_or(-1));
        builder
    }

    fn member(&mut self, name: &str, value: i64) {
        write_text(&mut self.head, name);
        match u64::try_from(value) {
            Ok(n) => write_head(&mut self.head, UNSIGNED, n),
            Err(_) => write_head(&mut self.head, NEGATIVE, (-1 - value) as u64),
        }
    }

    /// Adds a channel.
    pub fn channel<'a>(&mut self, name: &str, samples: impl Into<Column<'a>>) -> &mut Self {
        write_text(&mut self.channels, name);
        write_array(&mut self.channels, samples.into());
        self.count += 1;
        self
    }

    /// The frame, checked as if it had come from outside.
    ///
    /// # Errors
    /// [`Reject`] where a name, a length or a time is not allowed.
    pub fn finish(mut self) -> Result<Frame, Reject> {
        write_text(&mut self.head, "ch");
        write_head(&mut self.head, MAP, self.count);
        self.head.extend_from_slice(&self.channels);
        Frame::decode(self.head.into())
    }
}

fn write_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn write_array(out: &mut Vec<u8>, column: Column<'_>) {
    write_head(out, TAG, column.element() as u64);
    write_head(out, BYTES, (column.len() * column.element().width()) as u64);
    column.write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of two samples, written by hand, and a way to spoil it.
    fn payload(members: &[(&str, &[u8])]) -> Bytes {
        let mut out = Vec::new();
        write_head(&mut out, MAP, members.len() as u64);
        for (name, value) in members {
            write_text(&mut out, name);
            out.extend_from_slice(value);
        }
        out.into()
    }

    const GOOD: [(&str, &[u8]); 6] = [
        ("session", &[0x19, 0x25, 0x00]),
        ("driver", &[0x01]),
        ("seq", &[0x18, 0x2a]),
        ("t0", &[0x1b, 0, 0x06, 0x12, 0xb3, 0xf0, 0xf5, 0x7a, 0x40]),
        ("dt", &[0x19, 0x03, 0xe8]),
        ("ch", &[0xa1, 0x61, b'v', 0xd8, 64, 0x42, 7, 8]),
    ];

    fn refusal(name: &str, value: &[u8]) -> Reject {
        let spoilt = GOOD.map(|(n, v)| if n == name { (n, value) } else { (n, v) });
        Frame::decode(payload(&spoilt)).unwrap_err()
    }

    #[test]
    fn the_form_is_the_one_that_the_doc_draws() {
        let frame = Frame::decode(payload(&GOOD)).unwrap();
        assert_eq!(
            (frame.session_key, frame.driver_number, frame.sequence),
            (9472, 1, 42)
        );
        assert_eq!((frame.samples, frame.period_us()), (2, Some(1000)));
        assert_eq!(frame.last.micros() - frame.first.micros(), 1000);
        let samples: Vec<f64> = frame.channel("v").unwrap().iter().collect();
        assert_eq!(samples, [7.0, 8.0]);
        // Borrowed, not copied.
        let inside = frame.payload().as_ptr_range();
        assert!(inside.contains(&frame.channel("v").unwrap().bytes().as_ptr()));
    }

    #[test]
    fn what_the_map_may_not_hold_is_refused_by_reason() {
        let two: &[u8] = &[0xd8, 64, 0x42, 7, 8];
        let one: &[u8] = &[0xd8, 64, 0x41, 7];
        let channels = |entries: &[(&[u8], &[u8])]| {
            let mut out = vec![0xa0 | entries.len() as u8];
            for (name, array) in entries {
                out.push(0x60 | name.len() as u8);
                out.extend_from_slice(name);
                out.extend_from_slice(array);
            }
            out
        };
        for (member, value, reason) in [
            ("session", vec![0x20], "absurd"),
            ("session", vec![0x1a, 0xff, 0xff, 0xff, 0xff], "absurd"),
            ("session", vec![0x61, b'9'], "mistyped"),
            ("driver", vec![0x00], "absurd"),
            ("driver", vec![0x18, 100], "absurd"),
            ("seq", vec![0x20], "absurd"),
            ("seq", vec![0x1b, 0xff, 0, 0, 0, 0, 0, 0, 0], "mistyped"),
            (
                "t0",
                vec![0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "absurd",
            ),
            (
                "t0",
                vec![0x1b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "absurd",
            ),
            ("dt", vec![0x00], "absurd"),
            ("dt", vec![0x1a, 0xff, 0xff, 0xff, 0xff], "absurd"),
            ("ch", channels(&[]), "mistyped"),
            ("ch", channels(&[(b"a", two), (b"b", one)]), "mistyped"),
            ("ch", channels(&[(b"a", two), (b"a", two)]), "mistyped"),
            ("ch", channels(&[(b"A", two)]), "mistyped"),
            ("ch", channels(&[(b"", two)]), "mistyped"),
            ("ch", channels(&[(b"a", &[0xd8, 64, 0x40])]), "mistyped"),
            ("ch", channels(&[(b"a", &[0xd8, 69, 0x41, 7])]), "mistyped"),
            (
                "ch",
                channels(&[(b"a", &[0xd8, 65, 0x42, 7, 8])]),
                "mistyped",
            ),
            ("ch", channels(&[(b"a", &[0x82, 7, 8])]), "mistyped"),
            (
                "ch",
                channels(&[(b"a", &[0xd8, 64, 0x5f, 0xff])]),
                "malformed",
            ),
            ("ch", channels(&[(b"\xff", two)]), "malformed"),
            (
                "ch",
                channels(&[(
                    b"a",
                    &[0xd8, 64, 0x5b, 255, 255, 255, 255, 255, 255, 255, 255],
                )]),
                "truncated",
            ),
            ("ch", vec![0xb8, 65], "mistyped"),
            (
                "ch",
                vec![0xbb, 255, 255, 255, 255, 255, 255, 255, 255],
                "mistyped",
            ),
        ] {
            let refusal = refusal(member, &value);
            assert_eq!(refusal.reason(), reason, "{member} {value:x?}: {refusal}");
        }
    }

    #[test]
    fn members_missing_twice_or_left_over_are_refused() {
        for (i, (name, _)) in GOOD.iter().enumerate() {
            let mut members = GOOD.to_vec();
            members.remove(i);
            let refusal = Frame::decode(payload(&members)).unwrap_err();
            assert_eq!(refusal, missing(name));
            let mut members = GOOD.to_vec();
            members.push(GOOD[i]);
            assert_eq!(
                Frame::decode(payload(&members)).unwrap_err().reason(),
                "mistyped"
            );
        }
        let mut trailing = payload(&GOOD).to_vec();
        trailing.push(0);
        assert_eq!(
            Frame::decode(trailing.into()).unwrap_err().reason(),
            "malformed"
        );
    }

    #[test]
    fn members_that_are_not_ours_are_passed_over_unless_they_nest_deeply() {
        let mut members = GOOD.to_vec();
        members.push((
            "origin",
            &[
                0x82, 0x65, b'p', b'i', b't', b' ', b'A', 0xa1, 0x01, 0xf9, 0, 0,
            ],
        ));
        assert_eq!(Frame::decode(payload(&members)).unwrap().samples, 2);
        members.push(("bomb", &[0x81; 2000]));
        assert_eq!(Frame::decode(payload(&members)), Err(Reject::TooDeep));
    }

    #[test]
    fn times_must_be_one_a_sample_and_never_run_backwards() {
        let build = |times: &[i64]| {
            let times: Vec<Time> = times.iter().map(|t| Time::from_micros(*t)).collect();
            let mut builder = FrameBuilder::at(1, 1, 0, &times);
            builder.channel("v", &[1_u8, 2][..]);
            builder.finish()
        };
        assert_eq!(
            build(&[5, 9])
                .unwrap()
                .times()
                .map(Time::micros)
                .collect::<Vec<_>>(),
            [5, 9]
        );
        for wrong in [&[9, 5][..], &[5], &[5, 6, 7], &[]] {
            assert_eq!(build(wrong).unwrap_err().reason(), "mistyped", "{wrong:?}");
        }
        assert_eq!(build(&[5, i64::MAX]).unwrap_err().reason(), "absurd");
    }

    #[test]
    fn bounds_hold_for_builders_too() {
        let mut many = FrameBuilder::evenly(1, 1, 0, Time::default(), 1000);
        for i in 0..=MAX_CHANNELS {
            many.channel(&format!("c{i}"), &[1_u8][..]);
        }
        assert_eq!(many.finish().unwrap_err().reason(), "mistyped");
        let mut long = FrameBuilder::evenly(1, 1, 0, Time::default(), 1);
        long.channel("v", &vec![0_u8; MAX_SAMPLES as usize + 1][..]);
        assert_eq!(long.finish().unwrap_err().reason(), "mistyped");
        let mut heavy = FrameBuilder::evenly(1, 1, 0, Time::default(), 1);
        for name in ["a", "b", "c"] {
            heavy.channel(name, &vec![0.0_f64; MAX_SAMPLES as usize][..]);
        }
        assert_eq!(heavy.finish().unwrap_err().reason(), "oversized");
    }
}
