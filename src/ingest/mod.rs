//! Ingest: records in, from MQTT, Zenoh, OpenF1's live feed and recordings, into the journal.
//!
//! **Invariant:** ingest never touches race state, and nothing is acknowledged to its source before
//! the journal says that it is on disk.

pub mod backoff;
pub mod dedupe;
pub mod intake;
pub mod mqtt;
pub mod openf1;
pub mod receipts;
pub mod recording;
pub mod replay;
pub mod secret;
pub mod status;
pub mod tally;
pub mod tls;
pub mod writer;
pub mod zenoh;

pub use status::SourceStatus;

use bytes::Bytes;
use std::time::Instant;

/// One message as a source received it.
#[derive(Debug)]
pub struct Message {
    /// Topic or key expression, as in [`crate::record::decode`].
    pub topic: Box<str>,
    pub payload: Bytes,
    /// When the source took it off the wire.
    pub received: Instant,
    /// What must be told once it is durable; `None` where the source needs no word (QoS 0, Zenoh,
    /// replay).
    pub ack: Option<Ack>,
}

/// The word that a message is durable (or refused for good), on its way back to its source.
#[derive(Debug)]
pub struct Ack {
    /// The source's own name for the message (for MQTT: packet id and connection epoch).
    pub token: u64,
    /// Where the word goes. Never blocks: a source sizes it for all that it has in flight.
    pub to: tokio::sync::mpsc::UnboundedSender<u64>,
}
