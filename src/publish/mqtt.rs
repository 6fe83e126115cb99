//! The MQTT publisher.
//!
//! Predictions, alerts and health at QoS 1, state at QoS 0. Health is retained, and so is the last
//! will that replaces it when the daemon is gone without a word; one that stops says so itself.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, GRACE, QUEUE};
use super::{Encoding, Outlets, PREFIX, is_prefix};
use crate::ingest::mqtt::Broker;
use crate::ingest::mqtt::broker::{Invalid, beside_broker};
use crate::ingest::mqtt::connection::Will;
use crate::ingest::mqtt::outbox::{self, Progress, Publication};

/// What health says when there is nobody to ask.
const OFFLINE: &[u8] = br#"{"status":"offline"}"#;

/// An MQTT publisher. In the configuration the broker's keys stand beside these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct Options {
    pub broker: Broker,
    /// Before every topic.
    pub prefix: String,
    /// How predictions are written: `json` or `cbor`.
    pub encoding: Encoding,
}

beside_broker!(Flat for Options { prefix: String, encoding: Encoding });

impl Default for Options {
    fn default() -> Self {
        Options {
            broker: Broker::default(),
            prefix: PREFIX.into(),
            encoding: Encoding::Json,
        }
    }
}

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// The first key that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.broker.validate()?;
        if is_prefix(&self.prefix) {
            return Ok(());
        }
        Err(Invalid::Value {
            key: "prefix",
            value: format!("{:?}", self.prefix),
            allowed: "topic levels such as trackside/v1, without wildcards",
        })
    }
}

/// Publishes until told to stop; then hands over what is left, for a moment, and says farewell.
pub async fn run(
    options: Options,
    outlets: Outlets,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) {
    let health = format!("{}/health", options.prefix);
    let will = Will {
        topic: health.clone(),
        payload: OFFLINE.into(),
    };
    let client_id = options.broker.client_id_for("publisher");
    let mut feed = Feed::new(outlets, &options.prefix, options.encoding, "mqtt");
    let (to, publications) = mpsc::channel(QUEUE);
    let told = progress.subscribe();
    let last_told = told.clone();
    let halt = CancellationToken::new();
    let outbox = tokio::spawn({
        let (broker, halt) = (options.broker.clone(), halt.clone());
        async move {
            outbox::run(
                &broker,
                &client_id,
                Some(will),
                publications,
                progress,
                halt,
            )
            .await
        }
    });
    // Should this future be dropped, so is the connection.
    let guard = halt.clone().drop_guard();

    feed.pump(&to, told, &stop).await;
    let farewell = Publication {
        topic: health.into(),
        payload: OFFLINE.into(),
        qos: 1,
        retain: true,
        place: None,
    };
    to.try_send(farewell).ok();
    drop(to);
    let mut outbox = outbox;
    if tokio::time::timeout(GRACE, &mut outbox).await.is_err() {
        drop(guard);
        tokio::time::timeout(GRACE, outbox).await.ok();
    }
    feed.close(&last_told.borrow());
}
