//! The Zenoh publisher: the same keys as MQTT's topics, `CongestionControl::Block`.
//!
//! A put that blocks does so on a thread of its own. Zenoh retains nothing: health comes every
//! second, and its absence is the last will.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zenoh::Wait;
use zenoh::pubsub::Publisher;
use zenoh::qos::CongestionControl;

use super::feed::{Feed, GRACE, QUEUE};
use super::{Encoding, Outlets, PREFIX, is_prefix};
use crate::ingest::backoff::Backoff;
use crate::ingest::mqtt::outbox::{Progress, Publication};
use crate::ingest::zenoh::{Error, Network};

/// Most topics with a declared publisher: two for each car and a few more, with room.
const MAX_PUBLISHERS: usize = 256;
/// How often the progress is told at most.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A Zenoh publisher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub network: Network,
    /// Before every key.
    pub prefix: String,
    /// How predictions are written: `json` or `cbor`.
    pub encoding: Encoding,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            network: Network::default(),
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
    pub fn validate(&self) -> Result<(), Error> {
        self.network.validate()?;
        if is_prefix(&self.prefix) {
            return Ok(());
        }
        Err(Error::Value {
            key: "prefix",
            value: format!("{:?}", self.prefix),
            allowed: "key parts such as trackside/v1, without wildcards",
        })
    }
}

/// Publishes until told to stop; then hands over what is left, for a moment.
pub async fn run(
    options: Options,
    outlets: Outlets,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) {
    let mut feed = Feed::new(outlets, &options.prefix, options.encoding, "zenoh");
    let (to, publications) = mpsc::channel(QUEUE);
    let told = progress.subscribe();
    let last_told = told.clone();
    let session = tokio::select! {
        opened = open(&options.network, &progress) => opened,
        () = stop.cancelled() => return,
    };
    let sender = tokio::task::spawn_blocking({
        let session = session.clone();
        move || put_all(&session, publications, &progress)
    });
    feed.pump(&to, told, &stop).await;
    drop(to);
    tokio::time::timeout(GRACE, sender).await.ok();
    feed.close(&last_told.borrow());
    tokio::time::timeout(GRACE, session.close()).await.ok();
}

/// Tries until there is a session. Once open it reconnects by itself.
async fn open(network: &Network, progress: &watch::Sender<Progress>) -> zenoh::Session {
    let mut backoff = Backoff::default();
    loop {
        match network.open().await {
            Ok(session) => {
                progress.send_modify(|p| {
                    p.connections += 1;
                    p.connected = true;
                });
                return session;
            }
            Err(error) => {
                tracing::warn!("Zenoh publisher: {error}");
                progress.send_modify(|p| p.last_error = Some(error.to_string()));
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}

fn put_all(
    session: &zenoh::Session,
    mut publications: mpsc::Receiver<Publication>,
    progress: &watch::Sender<Progress>,
) {
    let mut publishers: HashMap<Box<str>, Publisher<'static>> = HashMap::new();
    let (mut delivered, mut reached) = (0, 0);
    let mut told = std::time::Instant::now();
    while let Some(publication) = publications.blocking_recv() {
        let Publication {
            topic,
            payload,
            place,
            ..
        } = publication;
        let put = match publishers.get(&topic) {
            Some(publisher) => publisher.put(payload).wait(),
            None => {
                if publishers.len() >= MAX_PUBLISHERS {
                    publishers.clear();
                }
                let declared = session
                    .declare_publisher(topic.to_string())
                    .congestion_control(CongestionControl::Block)
                    .wait();
                declared.and_then(|publisher| {
                    publisher.put(payload).wait()?;
                    publishers.insert(topic, publisher);
                    Ok(())
                })
            }
        };
        match put {
            Ok(()) => delivered += 1,
            Err(error) => progress.send_modify(|p| p.last_error = Some(error.to_string())),
        }
        // What Zenoh would not take it takes no second time.
        reached = place.map_or(reached, |p| p + 1);
        if told.elapsed() >= TELL_EVERY {
            told = std::time::Instant::now();
            progress.send_modify(|p| (p.delivered, p.place) = (delivered, reached));
        }
    }
    progress.send_modify(|p| {
        (p.delivered, p.place) = (delivered, reached);
        p.connected = false;
    });
}
