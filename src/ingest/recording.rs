//! Recordings: what a subscriber saw, one message a line.
//!
//! NDJSON, plain or zstd (told by the first four bytes):
//!
//! ```text
//! {"t":"2024-03-02T15:03:42.641Z","topic":"v1/laps","payload":{…}}
//! {"t":"2024-03-02T15:03:42.700Z","topic":"trackside/v1/frames/9472/1","payload_hex":"a5…"}
//! ```
//!
//! `t` is when it was received. `payload` is the message itself where that is JSON, byte for byte;
//! whatever is not (CBOR, frames, the malformed) stands in `payload_hex`, which zstd takes back to
//! its size.
//!
//! **Invariant:** a line is bounded; a bad line is an error that names it, and the next line is
//! read.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::record::Time;
use crate::record::codec::MAX_FRAME_BYTES;

/// Longest line that is read: the largest frame in hex and what stands around it.
pub const MAX_LINE_BYTES: usize = 2 * MAX_FRAME_BYTES + 4096;
/// First bytes of a zstd file.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest window that a zstd file may ask for (log2 of bytes): 128 MiB, what `zstd --long` makes.
const MAX_WINDOW_LOG: u32 = 27;
/// Compression of what is written: fast, since it is written live.
const ZSTD_LEVEL: i32 = 3;

/// A message of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it was received.
    pub at: Time,
    pub topic: Box<str>,
    pub payload: Bytes,
}

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("line {line}: cannot be read further: {source}")]
    Read { line: u64, source: io::Error },
    #[error("line {line}: more than {MAX_LINE_BYTES} bytes; no message is that large")]
    TooLong { line: u64 },
    #[error("line {line}: {fault}; expected {{\"t\":…,\"topic\":…,\"payload\":…}}")]
    Malformed { line: u64, fault: String },
}

impl Error {
    /// Whether the lines behind it can still be read.
    pub const fn is_of_one_line(&self) -> bool {
        matches!(self, Error::TooLong { .. } | Error::Malformed { .. })
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    payload_hex: Option<Cow<'a, str>>,
}

/// How much of a recording's file has been read, for whoever shows progress.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    read: Arc<AtomicU64>,
    of: u64,
}

impl Meter {
    /// Bytes read of the file, as it lies on the disk.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Its length (bytes); 0 where that is not known, as of a pipe.
    pub const fn of(&self) -> u64 {
        self.of
    }
}

/// A file under a [`Meter`].
struct Metered {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Reads a recording line by line; holds one line at a time.
pub struct Reader {
    meter: Meter,
    lines: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

impl Reader {
    /// Opens a file, plain or zstd.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub fn open(path: &Path) -> Result<Reader, Error> {
        let wrap = |source| Error::Open {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(wrap)?;
        let meter = Meter {
            read: Arc::default(),
            of: file.metadata().map_err(wrap)?.len(),
        };
        let read = Arc::clone(&meter.read);
        let reader = Reader::new(Metered { file, read }).map_err(wrap)?;
        Ok(Reader { meter, ..reader })
    }

    /// How much of it has been read; of one that [`Reader::new`] made, nothing is known.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Reads from anything, plain or zstd.
    ///
    /// # Errors
    /// If its first bytes cannot be read.
    pub fn new(source: impl Read + Send + 'static) -> io::Result<Reader> {
        let mut source = BufReader::with_capacity(128 * 1024, source);
        let lines: Box<dyn BufRead + Send> = if source.fill_buf()?.starts_with(&ZSTD_MAGIC) {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(128 * 1024, decoder))
        } else {
            Box::new(source)
        };
        Ok(Reader {
            meter: Meter::default(),
            lines,
            line: Vec::new(),
            number: 0,
            ended: false,
        })
    }

    /// Reads the next line that is not blank into `self.line`; `false` at the end.
    fn advance(&mut self) -> Result<bool, Error> {
        loop {
            self.line.clear();
            self.number += 1;
            let line = self.number;
            let read = (&mut self.lines)
                .take(MAX_LINE_BYTES as u64 + 1)
                .read_until(b'\n', &mut self.line)
                .map_err(|source| Error::Read { line, source })?;
            if read == 0 {
                return Ok(false);
            }
            if read > MAX_LINE_BYTES && self.line.last() != Some(&b'\n') {
                self.skip_line()?;
                return Err(Error::TooLong { line });
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// Throws the rest of an overlong line away.
    fn skip_line(&mut self) -> Result<(), Error> {
        let line = self.number;
        loop {
            let wrap = |source| Error::Read { line, source };
            let rest = self.lines.fill_buf().map_err(wrap)?;
            if rest.is_empty() {
                return Ok(());
            }
            let end = rest.iter().position(|&b| b == b'\n');
            let used = end.map_or(rest.len(), |at| at + 1);
            self.lines.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    fn parse(&self) -> Result<Recorded, Error> {
        let malformed = |fault: String| Error::Malformed {
            line: self.number,
            fault,
        };
        let line: Line<'_> =
            serde_json::from_slice(&self.line).map_err(|e| malformed(e.to_string()))?;
        let at = line.t.parse().map_err(|e| malformed(format!("t: {e}")))?;
        let payload = match (line.payload, line.payload_hex) {
            (Some(json), None) => Bytes::copy_from_slice(json.get().as_bytes()),
            (None, Some(hex)) => from_hex(&hex)
                .ok_or_else(|| malformed("payload_hex is not pairs of hex digits".into()))?,
            _ => return Err(malformed("one of payload and payload_hex is needed".into())),
        };
        Ok(Recorded {
            at,
            topic: line.topic.into(),
            payload,
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Recorded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let result = match self.advance() {
            Ok(true) => self.parse(),
            Ok(false) => {
                self.ended = true;
                return None;
            }
            Err(e) => Err(e),
        };
        self.ended = matches!(&result, Err(e) if !e.is_of_one_line());
        Some(result)
    }
}

/// Writes a recording.
pub struct Writer {
    to: Sink,
}

enum Sink {
    Plain(BufWriter<File>),
    Zstd(Box<zstd::stream::write::Encoder<'static, BufWriter<File>>>),
}

impl Writer {
    /// Creates a file; zstd if its name ends in `.zst`.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: &Path) -> Result<Writer, Error> {
        let wrap = |source| Error::Open {
            path: path.into(),
            source,
        };
        let file = BufWriter::new(File::create(path).map_err(wrap)?);
        let to = if path.extension().is_some_and(|e| e == "zst") {
            let mut encoder = zstd::stream::write::Encoder::new(file, ZSTD_LEVEL).map_err(wrap)?;
            encoder.include_checksum(true).map_err(wrap)?;
            Sink::Zstd(Box::new(encoder))
        } else {
            Sink::Plain(file)
        };
        Ok(Writer { to })
    }

    /// Adds a message.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, at: Time, topic: &str, payload: &[u8]) -> io::Result<()> {
        let mut line = line_of(at, topic, payload)?;
        line.push(b'\n');
        match &mut self.to {
            Sink::Plain(w) => w.write_all(&line),
            Sink::Zstd(w) => w.write_all(&line),
        }
    }

    /// Completes the file and brings it to the disk. A recording that is not finished ends within a
    /// line or, as zstd, without its end mark.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> io::Result<()> {
        let file = match self.to {
            Sink::Plain(w) => w,
            Sink::Zstd(w) => w.finish()?,
        };
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()
    }
}

/// One line, without its end.
fn line_of(at: Time, topic: &str, payload: &[u8]) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Line<'a> {
        t: Time,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload_hex: Option<String>,
    }
    // As it came, but only if it is one JSON value and does not break the line.
    let json = match payload.contains(&b'\n') || payload.contains(&b'\r') {
        true => None,
        false => serde_json::from_slice::<&RawValue>(payload)
            .ok()
            .filter(|raw| raw.get().len() == payload.len() && raw.get() != "null"),
    };
    let payload_hex = json.is_none().then(|| to_hex(payload));
    Ok(serde_json::to_vec(&Line {
        t: at,
        topic,
        payload: json,
        payload_hex,
    })?)
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for &b in bytes {
        hex.push(DIGITS[usize::from(b >> 4)].into());
        hex.push(DIGITS[usize::from(b & 15)].into());
    }
    hex
}

fn from_hex(hex: &str) -> Option<Bytes> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAP: &str = r#"{"t":"2024-03-02T15:03:42.641Z","topic":"v1/laps","payload":{"lap_number": 1, "_id":7}}"#;

    fn read(bytes: impl Into<Vec<u8>>) -> Vec<Result<Recorded, Error>> {
        let bytes: Vec<u8> = bytes.into();
        Reader::new(io::Cursor::new(bytes)).unwrap().collect()
    }

    #[test]
    fn a_payload_comes_out_byte_for_byte() {
        let read = read(LAP);
        let message = read[0].as_ref().unwrap();
        assert_eq!(&*message.topic, "v1/laps");
        assert_eq!(&message.payload[..], br#"{"lap_number": 1, "_id":7}"#);
        assert_eq!(message.at.to_string(), "2024-03-02T15:03:42.641000+00:00");
    }

    #[test]
    fn a_bad_line_is_named_and_the_next_one_read() {
        let long = "x".repeat(MAX_LINE_BYTES + 100);
        let text = format!(
            "{LAP}\n\nnot json\n{{\"t\":\"2024\",\"topic\":\"a\",\"payload\":1}}\n{long}\n{LAP}\n\
             {{\"t\":\"2024-03-02T15:03:42Z\",\"topic\":\"a\"}}\n\
             {{\"t\":\"2024-03-02T15:03:42Z\",\"topic\":\"a\",\"payload_hex\":\"0g\"}}\n{LAP}"
        );
        let results = read(text);
        let said: Vec<_> = results
            .iter()
            .map(|r| r.as_ref().map_or_else(ToString::to_string, |_| "ok".into()))
            .collect();
        assert_eq!(
            (said.len(), &*said[0], &*said[4], &*said[7]),
            (8, "ok", "ok", "ok")
        );
        for (at, words) in [
            (1, "line 3: expected"),
            (2, "line 4: t:"),
            (3, "line 5: more than"),
            (5, "line 7: one of"),
            (6, "line 8: payload_hex"),
        ] {
            assert!(said[at].starts_with(words), "{}", said[at]);
        }
    }

    #[test]
    fn a_cut_zstd_file_gives_what_is_whole_and_then_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("race.ndjson.zst");
        let mut writer = Writer::create(&path).unwrap();
        let mut noise = 1u64;
        for i in 0..20_000 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let payload = format!("{{\"speed\":{noise}}}");
            writer
                .write(Time::from_millis(i), "v1/car_data", payload.as_bytes())
                .unwrap();
        }
        writer.finish().unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let meter = reader.meter();
        assert!(meter.read() < meter.of() / 2, "{meter:?}");
        assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 20_000);
        assert_eq!(meter.read(), path.metadata().unwrap().len());
        assert_eq!(meter.read(), meter.of());

        let whole = std::fs::read(&path).unwrap();
        let results = read(&whole[..whole.len() / 2]);
        let good = results.iter().filter(|r| r.is_ok()).count();
        let bad: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
        assert!((1_000..20_000).contains(&good), "{good}");
        assert!(
            matches!(bad[..], [Error::Read { line, .. }] if *line > 1_000),
            "{bad:?}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Reader::open(Path::new("/nowhere/race.ndjson"))
            .err()
            .unwrap();
        assert!(error.to_string().contains("/nowhere/race.ndjson"));
    }

    proptest! {
        #[test]
        fn any_payload_survives(payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "\\PC*".prop_map(|s| serde_json::to_vec(&s).unwrap()),
            Just(b" {\"a\":\n1}".to_vec()), Just(b"null".to_vec()), Just(b"{} ".to_vec()),
        ], topic in "\\PC{0,20}", ms in 0i64..4_000_000_000_000) {
            let at = Time::from_millis(ms);
            let line = line_of(at, &topic, &payload).unwrap();
            prop_assert!(!line.contains(&b'\n'));
            let read = read(line);
            let message = read.into_iter().next().unwrap().unwrap();
            prop_assert_eq!((&*message.topic, &message.payload[..], message.at), (&*topic, &payload[..], at));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read(bytes);
        }
    }
}
