//! Publish: answers out, over MQTT and Zenoh.
//!
//! | topic, under the prefix | what | how |
//! |---|---|---|
//! | `predictions/{laptime,pit}/<driver>`, `predictions/race` | each prediction, in order | from the journal of predictions, by sequence |
//! | `alerts` | each alert | as it comes; a publisher too far behind misses some, counted |
//! | `insights/{lap,stint,strategy}/<driver>` | what was found out beside the pipeline | likewise |
//! | `state` | the running order and all else | the latest only |
//! | `health` | how the daemon is | the latest only; retained on MQTT, with a last will |
//!
//! The journal is the queue: a publisher is a cursor into the journal of predictions. While its peer
//! is away the cursor rests; afterwards it goes on from there. How far the peer has answered is kept in a file,
//! so that what was predicted and not yet delivered at a crash is delivered after it: at least once. What comes
//! twice has the same topic and the same `seq` in it, and the same bytes.
//!
//! **Invariant:** a slow or absent subscriber slows only its own publisher. Nothing here is held
//! back for it but a few hundred messages.

mod feed;
pub mod mqtt;
#[cfg(test)]
mod tests;
pub mod zenoh;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use crate::ingest::receipts::Receipts;
use crate::journal::Reader;

/// Prefix of all topics by default.
pub const PREFIX: &str = "trackside/v1";

/// What there is to publish.
pub struct Outlets {
    /// The journal of predictions.
    pub predictions: Reader,
    /// The race state as JSON.
    pub state: watch::Receiver<Bytes>,
    /// Health as JSON.
    pub health: watch::Receiver<Bytes>,
    /// Alerts as JSON.
    pub alerts: broadcast::Receiver<Bytes>,
    /// Insights: their topic below the prefix, and JSON.
    pub insights: broadcast::Receiver<(String, Bytes)>,
    /// When records were received: what is handed on is measured against it.
    pub receipts: Arc<Receipts>,
    /// The folder in which each publisher keeps its place in the journal.
    pub places: PathBuf,
}

impl Clone for Outlets {
    /// The clone sees the alerts and insights that come from now on.
    fn clone(&self) -> Self {
        Outlets {
            predictions: self.predictions.clone(),
            state: self.state.clone(),
            health: self.health.clone(),
            alerts: self.alerts.resubscribe(),
            insights: self.insights.resubscribe(),
            receipts: Arc::clone(&self.receipts),
            places: self.places.clone(),
        }
    }
}

/// How predictions are written. All else is JSON always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Json,
    Cbor,
}

/// Whether `prefix` may stand before every topic, both in MQTT and in Zenoh.
fn is_prefix(prefix: &str) -> bool {
    let part = |p: &str| !p.is_empty() && !p.contains(['+', '#', '*', '$', '?', '\0']);
    prefix.len() <= 256 && prefix.split('/').all(part)
}
