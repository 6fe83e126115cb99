//! What goes out next: predictions from the journal, and the latest of everything else.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Encoding, Outlets, PREFIX};
use crate::ingest::mqtt::outbox::{Progress, Publication};
use crate::observability::Stage;
use crate::record::codec::{Wire, encode};
use crate::record::{Entry, Record};

/// Predictions read from the journal at a time.
const BATCH: usize = 256;
/// Messages between the feed and what sends them.
pub(super) const QUEUE: usize = 64;
/// Pause after a read of the journal failed.
const READ_RETRY: Duration = Duration::from_millis(500);
/// How long a stopping publisher gets to hand over what the journal still holds.
pub(super) const GRACE: Duration = Duration::from_millis(1500);

/// Takes from the outlets and hands on.
pub(super) struct Feed {
    outlets: Outlets,
    prefix: String,
    encoding: Encoding,
    /// `mqtt` or `zenoh`, in metrics.
    by: &'static str,
    /// Next sequence to read.
    cursor: u64,
    /// Read and not yet handed on, with the record that each prediction was made from.
    ready: VecDeque<(u64, Publication)>,
}

impl Feed {
    /// Begins at the end of the journal: what was predicted before is history.
    pub(super) fn new(
        outlets: Outlets,
        prefix: &str,
        encoding: Encoding,
        by: &'static str,
    ) -> Feed {
        let cursor = outlets.predictions.next_seq();
        Feed {
            outlets,
            prefix: prefix.into(),
            encoding,
            by,
            cursor,
            ready: VecDeque::with_capacity(BATCH),
        }
    }

    /// Hands on until told to stop, then what the journal still holds, or until nobody takes it.
    /// `progress` tells whether the peer is there.
    pub(super) async fn pump(
        &mut self,
        to: &mpsc::Sender<Publication>,
        mut progress: watch::Receiver<Progress>,
        stop: &CancellationToken,
    ) {
        let mut committed = self.outlets.predictions.committed();
        let mut connections = 0;
        self.outlets.health.mark_changed();
        self.outlets.state.mark_changed();
        loop {
            let there = {
                let p = progress.borrow();
                if p.connected && p.connections != connections {
                    // A new peer knows nothing yet.
                    connections = p.connections;
                    self.outlets.health.mark_changed();
                    self.outlets.state.mark_changed();
                }
                p.connected
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                alert = self.outlets.alerts.recv() => match alert {
                    Ok(alert) => {
                        let publication = self.publication("alerts", alert, 1, false);
                        if !hand_on(to, publication, stop).await {
                            break;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        counter!("trackside_publish_alerts_missed_total", "by" => self.by).increment(missed);
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                // The latest only: while the peer is away, or the queue full, it grows newer.
                changed = self.outlets.health.changed(), if there && to.capacity() > 0 => {
                    if changed.is_err() {
                        break;
                    }
                    let health = self.outlets.health.borrow_and_update().clone();
                    to.try_send(self.publication("health", health, 1, true)).ok();
                }
                changed = self.outlets.state.changed(), if there && to.capacity() > 0 => {
                    if changed.is_err() {
                        break;
                    }
                    let state = self.outlets.state.borrow_and_update().clone();
                    to.try_send(self.publication("state", state, 0, false)).ok();
                }
                room = to.reserve(), if !self.ready.is_empty() => {
                    let (Ok(room), Some((seq, publication))) = (room, self.ready.pop_front()) else {
                        break;
                    };
                    room.send(publication);
                    self.outlets.receipts.done(Stage::Published, seq);
                    counter!("trackside_publish_predictions_total", "by" => self.by).increment(1);
                }
                open = beyond(&mut committed, self.cursor), if self.ready.is_empty() => {
                    if !open {
                        break;
                    }
                    self.read().await;
                }
                gone = progress.changed() => {
                    if gone.is_err() {
                        break;
                    }
                }
            }
        }
        let rest = async {
            while !self.ready.is_empty() || self.read().await {
                for (_, publication) in self.ready.drain(..) {
                    if to.send(publication).await.is_err() {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(GRACE, rest).await.ok();
    }

    /// Reads on in the journal; `false` if there was nothing.
    async fn read(&mut self) -> bool {
        let (reader, from) = (self.outlets.predictions.clone(), self.cursor);
        let read = tokio::task::spawn_blocking(move || reader.batch(from, BATCH)).await;
        let batch = match read {
            Ok(Ok(batch)) => batch,
            Ok(Err(error)) => {
                tracing::warn!(from, "the journal of predictions cannot be read: {error}");
                tokio::time::sleep(READ_RETRY).await;
                return false;
            }
            // The runtime is going down.
            Err(_) => return false,
        };
        let skipped = batch.first_seq.saturating_sub(self.cursor);
        if skipped > 0 {
            counter!("trackside_publish_predictions_skipped_total", "by" => self.by)
                .increment(skipped);
        }
        let before = self.cursor;
        self.cursor = batch.next_seq().max(self.cursor);
        for entry in &batch.entries {
            if let Some(publication) = self.prediction(entry) {
                self.ready.push_back(publication);
            }
        }
        self.cursor > before
    }

    fn prediction(&self, entry: &Entry) -> Option<(u64, Publication)> {
        let Record::Prediction(prediction) = &entry.record else {
            return None;
        };
        let payload = match self.encoding {
            Encoding::Json => serde_json::to_vec(&**prediction).ok()?,
            Encoding::Cbor => encode(entry, Wire::Cbor),
        };
        let topic = prediction.topic();
        let name = topic.strip_prefix(PREFIX)?.trim_start_matches('/');
        let publication = self.publication(name, payload.into(), 1, false);
        Some((prediction.seq(), publication))
    }

    fn publication(&self, name: &str, payload: Bytes, qos: u8, retain: bool) -> Publication {
        Publication {
            topic: format!("{}/{name}", self.prefix).into(),
            payload,
            qos,
            retain,
        }
    }
}

/// Waits until something is committed from `cursor` on; `false` if nothing ever will be.
async fn beyond(committed: &mut watch::Receiver<u64>, cursor: u64) -> bool {
    committed.wait_for(|&next| next > cursor).await.is_ok()
}

/// `false` if nobody takes it or it is time to stop.
async fn hand_on(
    to: &mpsc::Sender<Publication>,
    publication: Publication,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        sent = to.send(publication) => sent.is_ok(),
        () = stop.cancelled() => false,
    }
}
