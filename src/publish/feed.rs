//! What goes out next: predictions from the journal, and the latest of everything else.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Encoding, Outlets, PREFIX};
use crate::ingest::mqtt::outbox::{Progress, Publication};
use crate::journal::Bookmark;
use crate::observability::Stage;
use crate::record::codec::{Wire, encode};
use crate::record::{Entry, Record};

/// Predictions read from the journal at a time.
const BATCH: usize = 256;
/// Messages between the feed and what sends them.
pub(super) const QUEUE: usize = 64;
/// Most predictions that are sent after a start although they were made before it. More than a race weekend
/// makes: what is older is history.
const MAX_BACKLOG: u64 = 65_536;
/// How often the place is kept while it moves.
const KEEP_EVERY: Duration = Duration::from_millis(200);
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
    /// Where the peer has answered to, in a file.
    bookmark: Bookmark,
    /// What that file says, and what it should say.
    kept: u64,
    reached: u64,
    /// Read and not yet handed on, with the record that each prediction was made from.
    ready: VecDeque<(u64, Publication)>,
}

impl Feed {
    /// Begins where the peer had answered to, and the first time at the end of the journal: what was predicted
    /// before is history.
    pub(super) fn new(
        outlets: Outlets,
        prefix: &str,
        encoding: Encoding,
        by: &'static str,
    ) -> Feed {
        let end = outlets.predictions.next_seq();
        let bookmark = Bookmark::at(outlets.places.join(by));
        let found = bookmark.read().unwrap_or_else(|e| {
            tracing::warn!("{e}; publishing what is predicted from now on");
            None
        });
        // A journal that lost its end in a power cut fills up again with the same predictions; one that is
        // another altogether must not be waited for.
        let place = found.unwrap_or(end).min(end);
        let cursor = place.max(end.saturating_sub(MAX_BACKLOG));
        if cursor > place {
            counter!("trackside_publish_predictions_skipped_total", "by" => by)
                .increment(cursor - place);
        }
        let feed = Feed {
            outlets,
            prefix: prefix.into(),
            encoding,
            by,
            cursor,
            bookmark,
            kept: cursor,
            reached: cursor,
            ready: VecDeque::with_capacity(BATCH),
        };
        if found != Some(cursor)
            && let Err(e) = feed.bookmark.begin(cursor)
        {
            tracing::warn!("{e}; after a crash, predictions would be published again");
        }
        feed
    }

    /// Keeps the place, if it has moved: this survives a crash, not yet a power cut (nor do the predictions of
    /// the last second).
    fn keep(&mut self) {
        if self.kept == self.reached {
            return;
        }
        // Tried again when it moves on.
        self.kept = self.reached;
        if let Err(e) = self.bookmark.write(self.reached) {
            tracing::warn!("{e}; after a crash, predictions would be published again");
        }
    }

    /// Keeps the place that was reached at last, for good.
    pub(super) fn close(&mut self, progress: &Progress) {
        self.reached = self.reached.max(progress.place);
        self.keep();
        if let Err(e) = self.bookmark.sync() {
            tracing::warn!("{e}");
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
        let mut keep = tokio::time::interval(KEEP_EVERY);
        keep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.outlets.health.mark_changed();
        self.outlets.state.mark_changed();
        loop {
            let there = {
                let p = progress.borrow();
                self.reached = self.reached.max(p.place);
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
                _ = keep.tick(), if self.kept != self.reached => self.keep(),
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
                news = self.outlets.insights.recv(), if to.capacity() > 0 => match news {
                    // While the peer is away there is nobody to be told; what is lost is soon said anew.
                    Ok((topic, insight)) if there => {
                        to.try_send(self.publication(&topic, insight, u8::from(topic == "alerts"), false)).ok();
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        counter!("trackside_publish_insights_missed_total", "by" => self.by).increment(missed);
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                },
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
        for (place, entry) in batch.iter() {
            if let Some(publication) = self.prediction(place, entry) {
                self.ready.push_back(publication);
            }
        }
        self.cursor > before
    }

    fn prediction(&self, place: u64, entry: &Entry) -> Option<(u64, Publication)> {
        let Record::Prediction(prediction) = &entry.record else {
            return None;
        };
        let payload = match self.encoding {
            Encoding::Json => serde_json::to_vec(&**prediction).ok()?,
            Encoding::Cbor => encode(entry, Wire::Cbor),
        };
        let topic = prediction.topic();
        let name = topic.strip_prefix(PREFIX)?.trim_start_matches('/');
        let publication = Publication {
            place: Some(place),
            ..self.publication(name, payload.into(), 1, false)
        };
        Some((prediction.seq(), publication))
    }

    fn publication(&self, name: &str, payload: Bytes, qos: u8, retain: bool) -> Publication {
        Publication {
            topic: format!("{}/{name}", self.prefix).into(),
            payload,
            qos,
            retain,
            place: None,
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
