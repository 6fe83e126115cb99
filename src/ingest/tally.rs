//! What came in, by topic: how many messages, how many documents, how many refused and why.

use std::collections::BTreeMap;

use serde::Serialize;

/// Topics that are counted one by one; what comes after shares [`OTHER`].
const MAX_TOPICS: usize = 256;
/// Where the counts of further topics go.
const OTHER: &str = "(other topics)";

/// Counts of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopicTally {
    /// Messages received, refused ones included.
    pub messages: u64,
    /// Distinct documents accepted (versions of one document count once).
    pub documents: u64,
    /// Messages that brought nothing new: redeliveries.
    pub duplicates: u64,
    /// Messages older than the version held.
    pub superseded: u64,
    /// Fields nulled because their value is impossible.
    pub nulled: u64,
    /// Messages refused, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

/// Counts of all topics since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Tally {
    topics: BTreeMap<Box<str>, TopicTally>,
}

impl Tally {
    /// The counts of `topic`. A topic of frames counts under its prefix, whatever session and car.
    pub fn topic(&mut self, topic: &str) -> &mut TopicTally {
        let name = if topic.starts_with(crate::record::codec::FRAMES_PREFIX) {
            crate::record::codec::FRAMES_PREFIX.trim_end_matches('/')
        } else {
            topic
        };
        let name = match self.topics.contains_key(name) || self.topics.len() < MAX_TOPICS {
            true => name,
            false => OTHER,
        };
        // Looked up twice rather than allocating a name for every message.
        if !self.topics.contains_key(name) {
            self.topics.insert(name.into(), TopicTally::default());
        }
        self.topics.get_mut(name).expect("inserted above")
    }

    /// Every topic with its counts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TopicTally)> {
        self.topics.iter().map(|(name, tally)| (&**name, tally))
    }

    /// All messages received.
    pub fn messages(&self) -> u64 {
        self.topics.values().map(|t| t.messages).sum()
    }
}
