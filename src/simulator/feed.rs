//! The line to the world: records become messages in the order in which a subscriber gets them.
//!
//! Each kind of message takes its own time from the circuit to the subscriber, as on the real feed,
//! so what happened first need not arrive first. Messages wait here until nothing earlier can come;
//! `_id` is given as they leave, so that it always rises.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::Emitted;
use crate::record::codec::{encode, openf1_topic};
use crate::record::{Entry, Frame, Kind, Record, Time, Wire};

/// Most messages that wait at once. A race sends about 170 a second and the latest lap waits ten
/// seconds; the documents at a session's start are some hundred.
const MAX_WAITING: usize = 65_536;

/// What is to be sent.
enum Parcel {
    /// A document, and text that the feed sends beside our vocabulary.
    Document(Box<Entry>, Option<Box<str>>),
    Frame(Box<Frame>),
}

struct Waiting {
    /// Receive time (ms since 1970).
    at: i64,
    /// Breaks ties: first in, first out.
    order: u64,
    parcel: Parcel,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    /// The earliest is the greatest: the heap's top.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Messages on their way.
pub(super) struct Feed {
    waiting: BinaryHeap<Waiting>,
    order: u64,
    last_id: i64,
    topics: Vec<(Kind, Box<str>)>,
}

impl Feed {
    pub fn new() -> Feed {
        Feed {
            waiting: BinaryHeap::new(),
            order: 0,
            last_id: 0,
            topics: Kind::ALL
                .iter()
                .map(|k| (*k, openf1_topic(*k).into()))
                .collect(),
        }
    }

    fn push(&mut self, at: Time, parcel: Parcel) {
        assert!(
            self.waiting.len() < MAX_WAITING,
            "the feed is never drained"
        );
        self.order += 1;
        self.waiting.push(Waiting {
            at: at.millis(),
            order: self.order,
            parcel,
        });
    }

    /// Sends a record, to arrive at `at`, under the key that its fields make.
    pub fn send(&mut self, at: Time, record: Record) {
        self.push(at, Parcel::Document(Box::new(Entry::new(record)), None));
    }

    /// Sends a record under a key of the feed's own (drivers and results are counted by an index).
    pub fn send_keyed(&mut self, at: Time, key: String, record: Record) {
        let entry = Entry {
            record,
            id: None,
            key: Some(key.into()),
        };
        self.push(at, Parcel::Document(Box::new(entry), None));
    }

    /// Sends a record with a member that is not in our vocabulary.
    pub fn send_with(&mut self, at: Time, record: Record, member: String) {
        let entry = Box::new(Entry::new(record));
        self.push(at, Parcel::Document(entry, Some(member.into())));
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, at: Time, frame: Frame) {
        self.push(at, Parcel::Frame(Box::new(frame)));
    }

    /// The next message that arrives no later than `until`.
    pub fn take(&mut self, until: Time) -> Option<Emitted> {
        if self.waiting.peek()?.at > until.millis() {
            return None;
        }
        let Waiting { at, parcel, .. } = self.waiting.pop()?;
        let t = Time::from_millis(at);
        Some(match parcel {
            Parcel::Frame(frame) => Emitted {
                t,
                topic: frame.topic().into(),
                payload: frame.payload().clone(),
            },
            Parcel::Document(mut entry, member) => {
                self.last_id = at.max(self.last_id + 1);
                entry.id = Some(self.last_id);
                let mut payload = encode(&entry, Wire::Json);
                if let Some(member) = member {
                    payload.pop();
                    payload.push(b',');
                    payload.extend_from_slice(member.as_bytes());
                    payload.push(b'}');
                }
                let kind = entry.record.kind();
                let topic = self.topics.iter().find(|(k, _)| *k == kind);
                Emitted {
                    t,
                    topic: topic.map(|(_, topic)| topic.clone()).unwrap_or_default(),
                    payload: Bytes::from(payload),
                }
            }
        })
    }
}
