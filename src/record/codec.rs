//! Bytes to records and back: OpenF1's JSON, and the same objects in CBOR.
//!
//! serde_cbor is no longer maintained; it is named in this file, [`super::frame`] and nowhere else,
//! with typed structs only, so that it can be replaced.

use bytes::Bytes;
use serde::Deserialize;

use super::openf1::{Document, WireKey};
use super::sanitise::{Nulled, absurd, sanitise};
use super::{Entry, Frame, Kind, Record, key, lenient};

/// Largest OpenF1 message that is read.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
/// Largest high-rate frame that is read.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Deepest nesting of a message; OpenF1's own go two deep.
pub const MAX_DEPTH: usize = 128;
/// Topic prefix of OpenF1's collections.
pub const OPENF1_PREFIX: &str = "v1/";
/// Topic prefix of high-rate frames: `…/<session>/<car>`.
pub const FRAMES_PREFIX: &str = "trackside/v1/frames/";

/// How a payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Json,
    Cbor,
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    #[error(
        "no collection has the topic; expected v1/<collection> or {FRAMES_PREFIX}<session>/<car>"
    )]
    UnknownTopic,
    #[error("{bytes} bytes; at most {limit} are read")]
    Oversized { bytes: usize, limit: usize },
    #[error("nested too deeply")]
    TooDeep,
    #[error("cut off: {0}")]
    Truncated(String),
    #[error("not well-formed: {0}")]
    Malformed(String),
    #[error("a field is missing or of the wrong type: {0}")]
    Mistyped(String),
    #[error("{field} is {value}, which cannot be")]
    Absurd { field: &'static str, value: String },
}

impl Reject {
    /// Its name in metrics and summaries.
    pub const fn reason(&self) -> &'static str {
        match self {
            Reject::UnknownTopic => "unknown_topic",
            Reject::Oversized { .. } => "oversized",
            Reject::TooDeep => "too_deep",
            Reject::Truncated(_) => "truncated",
            Reject::Malformed(_) => "malformed",
            Reject::Mistyped(_) => "mistyped",
            Reject::Absurd { .. } => "absurd",
        }
    }
}

/// A message that became a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub entry: Entry,
    /// Fields that held something impossible.
    pub nulled: Nulled,
}

/// What a topic says about its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    pub kind: Kind,
    /// Told by a `/cbor` suffix; otherwise by the payload's first byte.
    pub wire: Option<Wire>,
}

impl Topic {
    /// Reads `v1/<collection>`, `v1/<collection>/cbor` and `trackside/v1/frames/<session>/<car>`.
    pub fn parse(topic: &str) -> Option<Topic> {
        if topic.starts_with(FRAMES_PREFIX) {
            return Some(Topic {
                kind: Kind::Frame,
                wire: Some(Wire::Cbor),
            });
        }
        let rest = topic.strip_prefix(OPENF1_PREFIX)?;
        let (name, wire) = match rest.strip_suffix("/cbor") {
            Some(name) => (name, Some(Wire::Cbor)),
            None => (rest, None),
        };
        let kind = Kind::from_name(name)?;
        (!matches!(kind, Kind::Frame | Kind::Prediction)).then_some(Topic { kind, wire })
    }
}

/// The topic on which OpenF1's live feed publishes `kind`.
pub fn openf1_topic(kind: Kind) -> String {
    format!("{OPENF1_PREFIX}{}", kind.name())
}

/// Reads one message: decodes, bounds, nulls the impossible.
///
/// ```
/// use trackside::record::{decode, Record};
/// let payload = br#"{"meeting_key":1229,"session_key":9472,"driver_number":1,"lap_number":3,
///     "date_start":"2024-03-02T15:06:42.341000+00:00","lap_duration":96.5,"_id":7}"#;
/// let decoded = decode("v1/laps", &bytes::Bytes::from_static(payload)).unwrap();
/// let Record::Lap(lap) = decoded.entry.record else { panic!() };
/// assert_eq!((lap.lap_number, lap.lap_duration), (3, Some(96.5)));
/// ```
pub fn decode(topic: &str, payload: &Bytes) -> Result<Decoded, Reject> {
    let topic = Topic::parse(topic).ok_or(Reject::UnknownTopic)?;
    let limit = match topic.kind {
        Kind::Frame => MAX_FRAME_BYTES,
        _ => MAX_DOCUMENT_BYTES,
    };
    if payload.len() > limit {
        return Err(Reject::Oversized {
            bytes: payload.len(),
            limit,
        });
    }
    let (entry, unfit) = match topic.kind {
        Kind::Frame => (
            Frame::decode(payload.clone()).map(|f| Entry::new(Record::Frame(Box::new(f)))),
            0,
        ),
        kind => lenient::counting(|| decode_document(kind, payload, topic.wire)),
    };
    let mut entry = entry?;
    if let Some((field, value)) = absurd(&entry.record) {
        return Err(Reject::Absurd { field, value });
    }
    let Nulled(impossible) = sanitise(&mut entry.record);
    Ok(Decoded {
        entry,
        nulled: Nulled(unfit + impossible),
    })
}

/// Reads an OpenF1 object of a known collection. A payload whose first byte opens a CBOR map is
/// CBOR; JSON objects begin with `{` or white space.
pub fn decode_document(kind: Kind, payload: &[u8], wire: Option<Wire>) -> Result<Entry, Reject> {
    let wire = wire.unwrap_or(match payload.first() {
        Some(0xa0..=0xbf | 0xd9) => Wire::Cbor,
        _ => Wire::Json,
    });
    fn entry<'de, T: Document<'de>>(
        payload: &'de [u8],
        wire: Wire,
        into: impl FnOnce(T) -> Record,
    ) -> Result<Entry, Reject> {
        let (document, key, id) = T::split(match wire {
            Wire::Json => from_json::<T::Wire>(payload)?,
            Wire::Cbor => from_cbor::<T::Wire>(payload)?,
        });
        // Serde takes a list as an object's values in order.
        if is_list(payload, wire) {
            let text = "a list, where an object is expected: send one document a message";
            return Err(Reject::Mistyped(text.to_owned()));
        }
        with_key(into(document), key, id)
    }
    match kind {
        Kind::CarData => entry(payload, wire, Record::CarData),
        Kind::Location => entry(payload, wire, Record::Location),
        Kind::Interval => entry(payload, wire, Record::Interval),
        Kind::Position => entry(payload, wire, Record::Position),
        Kind::Lap => entry(payload, wire, |r| Record::Lap(Box::new(r))),
        Kind::Pit => entry(payload, wire, |r| Record::Pit(Box::new(r))),
        Kind::Stint => entry(payload, wire, |r| Record::Stint(Box::new(r))),
        Kind::Weather => entry(payload, wire, |r| Record::Weather(Box::new(r))),
        Kind::RaceControl => entry(payload, wire, |r| Record::RaceControl(Box::new(r))),
        Kind::Overtake => entry(payload, wire, Record::Overtake),
        Kind::TeamRadio => entry(payload, wire, |r| Record::TeamRadio(Box::new(r))),
        Kind::Driver => entry(payload, wire, |r| Record::Driver(Box::new(r))),
        Kind::Session => entry(payload, wire, |r| Record::Session(Box::new(r))),
        Kind::Meeting => entry(payload, wire, |r| Record::Meeting(Box::new(r))),
        Kind::StartingGrid => entry(payload, wire, Record::StartingGrid),
        Kind::SessionResult => entry(payload, wire, |r| Record::SessionResult(Box::new(r))),
        Kind::ChampionshipDriver => {
            entry(payload, wire, |r| Record::ChampionshipDriver(Box::new(r)))
        }
        Kind::ChampionshipTeam => entry(payload, wire, |r| Record::ChampionshipTeam(Box::new(r))),
        Kind::Frame | Kind::Prediction => Err(Reject::UnknownTopic),
    }
}

fn with_key(
    mut record: Record,
    key: Option<WireKey<'_>>,
    id: Option<i64>,
) -> Result<Entry, Reject> {
    // Some feeds leave a meeting's own key to `_key`.
    if let Record::Meeting(meeting) = &mut record
        && meeting.meeting_key == 0
    {
        meeting.meeting_key = key
            .as_ref()
            .and_then(|WireKey(text)| text.parse().ok())
            .filter(|key| *key != 0)
            .ok_or_else(|| Reject::Mistyped("missing field `meeting_key`".to_owned()))?;
    }
    let key = match key {
        Some(WireKey(text)) if text.len() > key::MAX_KEY_BYTES => {
            return Err(Reject::Oversized {
                bytes: text.len(),
                limit: key::MAX_KEY_BYTES,
            });
        }
        Some(WireKey(text)) if text != key::derive(&record).as_str() => Some(text.into()),
        _ => None,
    };
    Ok(Entry { record, id, key })
}

/// Whether a list comes first, behind white space (JSON) or tags (CBOR).
fn is_list(mut payload: &[u8], wire: Wire) -> bool {
    match wire {
        Wire::Json => payload.trim_ascii_start().starts_with(b"["),
        Wire::Cbor => {
            while let [head @ 0xc0..=0xdb, rest @ ..] = payload {
                // A tag's number is in its head, or in the 1, 2, 4 or 8 bytes behind it.
                let bytes = match head & 0x1f {
                    size @ 24.. => 1 << (size - 24),
                    _ => 0,
                };
                payload = rest.get(bytes..).unwrap_or_default();
            }
            matches!(payload.first(), Some(0x80..=0x9f))
        }
    }
}

/// Whether JSON text opens more than `limit` brackets at once. Asked only of what was refused.
fn nests_deeper_than(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

fn from_json<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, Reject> {
    serde_json::from_slice(payload).map_err(|e| {
        let text = e.to_string();
        match e.classify() {
            // Typed decoding stumbles over the first bracket; what is wrong is the thousandth.
            _ if nests_deeper_than(payload, MAX_DEPTH) => Reject::TooDeep,
            serde_json::error::Category::Eof => Reject::Truncated(text),
            serde_json::error::Category::Data => Reject::Mistyped(text),
            _ if text.starts_with("recursion limit") => Reject::TooDeep,
            _ => Reject::Malformed(text),
        }
    })
}

fn from_cbor<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, Reject> {
    serde_cbor::from_slice(payload).map_err(|e| {
        let text = e.to_string();
        match e.classify() {
            serde_cbor::error::Category::Eof => Reject::Truncated(text),
            serde_cbor::error::Category::Data => Reject::Mistyped(text),
            _ if text.starts_with("recursion limit") => Reject::TooDeep,
            _ => Reject::Malformed(text),
        }
    })
}

/// Writes an entry as it stands on the live feed.
pub fn encode(entry: &Entry, wire: Wire) -> Vec<u8> {
    match (&entry.record, wire) {
        (Record::Frame(frame), _) => frame.payload().to_vec(),
        // Writing plain structs to memory cannot fail: no maps with odd keys, no I/O.
        (_, Wire::Json) => serde_json::to_vec(entry).expect("a record is always JSON"),
        (_, Wire::Cbor) => serde_cbor::to_vec(entry).expect("a record is always CBOR"),
    }
}
