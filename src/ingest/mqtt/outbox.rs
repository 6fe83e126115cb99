//! The outbox: publishes in order over one connection at a time, and keeps each QoS 1 message until
//! the broker has acknowledged it.
//!
//! Fed through a bounded channel; what is out and unacknowledged is bounded in number ([`WINDOW`])
//! and bytes ([`WINDOW_BYTES`]). After a broken connection everything unacknowledged is sent again,
//! in the old order, before anything new: a subscriber may see a message twice, never out of order
//! within what it sees first, never not at all. A connection on which acknowledgements stop coming is
//! given up and made anew.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, LIMIT_MAX_PACKET_BYTES, READ_MAX_PACKET_BYTES};
use super::connection::{Broken, Handle, Happening, Setup, Will, next, open};
use crate::ingest::backoff::{self, Backoff};
use crate::ingest::status::REFRESH;

/// Most publications out at a time. MQTT 5 brokers may allow less.
pub const WINDOW: usize = 1024;
/// Most bytes of payload out at a time, unless a single one is larger.
pub const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Publications taken from the channel at a time.
const BATCH: usize = 64;

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Publication {
    pub topic: Box<str>,
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
    pub retain: bool,
    /// Where it stands in what its sender reads from, for [`Progress::place`].
    pub place: Option<u64>,
}

/// How far an outbox has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections made; the outbox is connected while `connected`.
    pub connections: u64,
    pub connected: bool,
    /// QoS 1 messages that the broker has acknowledged and QoS 0 messages written.
    pub delivered: u64,
    /// Those that the broker acknowledged with a refusal (MQTT 5); not counted in `delivered`.
    pub refused: u64,
    pub last_refusal: Option<String>,
    /// Everything before this place is delivered or refused: where to go on after a crash.
    pub place: u64,
    pub last_error: Option<String>,
    /// Whether the last error was the broker's no, which trying again will hardly mend.
    pub rejected: bool,
}

/// Runs an outbox until `publications` is closed and everything is delivered, or until it is told to
/// stop (what is unacknowledged is then given up).
pub async fn run(
    broker: &Broker,
    client_id: &str,
    will: Option<Will>,
    mut publications: mpsc::Receiver<Publication>,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) {
    let mut window = Window::default();
    let mut backoff = Backoff::default();
    let setup = Setup {
        client_id: client_id.into(),
        clean_session: true,
        session_expiry_s: 0,
        receive_maximum: 16,
        send_maximum: WINDOW as u16,
        queue: WINDOW + 16,
        reads_up_to: READ_MAX_PACKET_BYTES,
        will,
    };
    loop {
        window.rewind();
        let end = connection(
            broker,
            &setup,
            &mut window,
            &mut publications,
            &progress,
            &mut backoff,
            &stop,
        )
        .await;
        let Err(broken) = end else {
            progress.send_modify(|p| p.connected = false);
            return;
        };
        let refused = broken.is_refusal();
        tracing::warn!(client = %client_id, url = %broker.url, "MQTT: {broken}");
        progress.send_modify(|p| {
            p.connected = false;
            p.last_error = Some(broken.to_string());
            p.rejected = refused;
        });
        let wait = match refused {
            true => backoff.jittered(backoff::REFUSED),
            false => backoff.wait(),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One connection. `Ok` when all is done or we were told to stop.
async fn connection(
    broker: &Broker,
    setup: &Setup,
    window: &mut Window,
    publications: &mut mpsc::Receiver<Publication>,
    progress: &watch::Sender<Progress>,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<(), Broken> {
    let (handle, wire) = open(broker, setup)?;
    let patience = broker.patience();
    let mut poll = Box::pin(next(wire));
    let mut tick = tokio::time::interval(REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    let (mut connected, mut open_ended) = (false, true);
    let (mut stopping, mut farewell) = (false, false);
    let mut heard = Instant::now();
    window.moved = Instant::now();
    let delivered_before = window.delivered;
    loop {
        if connected {
            window.fill(&handle);
            let done = !open_ended && window.entries.is_empty();
            if (done || stopping) && !farewell {
                farewell = handle.disconnect();
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                if !connected {
                    return Ok(());
                }
            }
            _ = tick.tick() => {
                window.tell(progress);
                let stuck = !window.entries.is_empty() && window.moved.elapsed() > patience;
                if heard.elapsed() > patience || (connected && stuck) {
                    return Err(Broken::Silent(patience));
                }
            }
            taken = publications.recv_many(&mut batch, BATCH), if open_ended && window.has_room() => {
                open_ended = taken > 0;
                window.extend(batch.drain(..));
            }
            (wire, happening) = &mut poll => {
                let mut wire = wire;
                let mut happening = happening?;
                heard = Instant::now();
                loop {
                    match happening {
                        Happening::Connected => {
                            connected = true;
                            progress.send_modify(|p| {
                                p.connections += 1;
                                p.connected = true;
                            });
                        }
                        Happening::Sent { pkid } => window.sent(pkid),
                        Happening::Acknowledged { pkid, refused } => {
                            window.acknowledged(pkid, refused);
                        }
                        Happening::Closing => {
                            window.tell(progress);
                            return Ok(());
                        }
                        Happening::Received { .. }
                        | Happening::Subscribed { .. }
                        | Happening::Unsubscribed
                        | Happening::Other => {}
                    }
                    match wire.buffered() {
                        Some(more) => happening = more,
                        None => break,
                    }
                }
                if window.entries.is_empty() {
                    window.tell(progress);
                }
                // A connection that delivers is a success, also where there is always more to deliver.
                if window.delivered > delivered_before {
                    backoff.reset();
                }
                poll.set(next(wire));
            }
        }
    }
}

struct Entry {
    publication: Publication,
    /// In the client's request queue or beyond.
    queued: bool,
    /// Its packet id once written (QoS 1).
    pkid: Option<u16>,
}

/// What is out or about to go, in order.
struct Window {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries at the front that are queued or beyond; of these, how many are written.
    queued: usize,
    written: usize,
    delivered: u64,
    refused: u64,
    last_refusal: Option<String>,
    /// The place behind the furthest one that is done with.
    done: u64,
    /// When something was last delivered, or the connection began.
    moved: Instant,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            entries: VecDeque::new(),
            bytes: 0,
            queued: 0,
            written: 0,
            delivered: 0,
            refused: 0,
            last_refusal: None,
            done: 0,
            moved: Instant::now(),
        }
    }
}

impl Window {
    fn has_room(&self) -> bool {
        self.entries.len() + BATCH <= WINDOW && self.bytes < WINDOW_BYTES
    }

    fn extend(&mut self, publications: impl Iterator<Item = Publication>) {
        if self.entries.is_empty() {
            self.moved = Instant::now();
        }
        for publication in publications {
            // Neither would ever get past the client; what stands behind must not wait for it.
            let fault = if !rumqttc::valid_topic(&publication.topic) {
                "a topic to publish on has no wildcards"
            } else if publication.payload.len() > LIMIT_MAX_PACKET_BYTES as usize {
                "larger than 16 MiB"
            } else {
                self.bytes += publication.payload.len();
                self.entries.push_back(Entry {
                    publication,
                    queued: false,
                    pkid: None,
                });
                continue;
            };
            self.refused += 1;
            self.done = self.done.max(publication.place.map_or(0, |p| p + 1));
            self.last_refusal = Some(format!("{}: {fault}", publication.topic));
        }
    }

    /// A new connection: nothing is written on it yet.
    fn rewind(&mut self) {
        self.queued = 0;
        self.written = 0;
        for entry in &mut self.entries {
            entry.queued = false;
            entry.pkid = None;
        }
    }

    /// Queues what is not queued yet, as far as the client takes it.
    fn fill(&mut self, handle: &Handle) {
        while let Some(entry) = self.entries.get_mut(self.queued) {
            let p = &entry.publication;
            if !handle.publish(&p.topic, p.payload.clone(), p.qos, p.retain) {
                break;
            }
            entry.queued = true;
            self.queued += 1;
        }
    }

    /// The client writes in the order of its queue: this is the first one not yet written.
    fn sent(&mut self, pkid: u16) {
        let Some(entry) = self.entries.get_mut(self.written) else {
            return;
        };
        if pkid == 0 {
            self.remove(self.written);
            self.delivered += 1;
        } else {
            entry.pkid = Some(pkid);
            self.written += 1;
        }
    }

    /// Brokers acknowledge in order, so it is nearly always the first.
    fn acknowledged(&mut self, pkid: u16, refused: Option<String>) {
        let of = |e: &Entry| e.pkid == Some(pkid);
        let Some(at) = self.entries.iter().take(self.written).position(of) else {
            return;
        };
        self.remove(at);
        self.written -= 1;
        match refused {
            None => self.delivered += 1,
            Some(reason) => {
                self.refused += 1;
                self.last_refusal = Some(reason);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(entry) = self.entries.remove(at) {
            self.done = self.done.max(entry.publication.place.map_or(0, |p| p + 1));
            self.bytes -= entry.publication.payload.len();
            self.queued -= usize::from(entry.queued);
            self.moved = Instant::now();
        }
    }

    /// Everything before it is done with. Acknowledgements may overtake each other.
    fn place(&self) -> u64 {
        let waiting = self.entries.iter().find_map(|e| e.publication.place);
        waiting.map_or(self.done, |waiting| waiting.min(self.done))
    }

    fn tell(&self, progress: &watch::Sender<Progress>) {
        progress.send_if_modified(|p| {
            let news = p.delivered != self.delivered || p.refused != self.refused;
            if news {
                p.place = self.place();
                p.delivered = self.delivered;
                p.refused = self.refused;
                p.last_refusal.clone_from(&self.last_refusal);
            }
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(n: u8, qos: u8) -> Publication {
        Publication {
            topic: "v1/laps".into(),
            payload: Bytes::from(vec![n; 10]),
            qos,
            retain: false,
            place: Some(u64::from(n)),
        }
    }

    fn window_of(qos: &[u8]) -> Window {
        let mut window = Window::default();
        window.extend(qos.iter().zip(0..).map(|(&q, n)| publication(n, q)));
        for entry in &mut window.entries {
            entry.queued = true;
        }
        window.queued = window.entries.len();
        window
    }

    fn left(window: &Window) -> Vec<u8> {
        window
            .entries
            .iter()
            .map(|e| e.publication.payload[0])
            .collect()
    }

    #[test]
    fn qos_0_is_delivered_when_written_and_qos_1_when_acknowledged() {
        let mut window = window_of(&[1, 0, 1]);
        window.sent(1);
        window.sent(0);
        window.sent(2);
        assert_eq!((left(&window), window.delivered), (vec![0, 2], 1));
        window.acknowledged(2, None);
        assert_eq!((left(&window), window.delivered), (vec![0], 2));
        window.acknowledged(2, None);
        assert_eq!(window.delivered, 2, "an id is an answer once");
        window.acknowledged(1, Some("QuotaExceeded".into()));
        assert_eq!((window.delivered, window.refused, window.bytes), (2, 1, 0));
        assert_eq!((window.queued, window.written), (0, 0));
    }

    #[test]
    fn after_a_break_everything_unacknowledged_is_due_again_in_order() {
        let mut window = window_of(&[1, 1, 1]);
        window.sent(1);
        window.sent(2);
        window.acknowledged(1, None);
        window.rewind();
        assert_eq!(
            (left(&window), window.queued, window.written),
            (vec![1, 2], 0, 0)
        );
        window.acknowledged(2, None);
        assert_eq!(
            left(&window),
            [1, 2],
            "ids of the old connection mean nothing"
        );
    }

    #[test]
    fn the_place_is_that_of_the_first_that_is_not_done_with() {
        let mut window = window_of(&[1, 1, 1, 1]);
        assert_eq!(window.place(), 0);
        for pkid in 1..=4 {
            window.sent(pkid);
        }
        window.acknowledged(1, None);
        assert_eq!(window.place(), 1);
        window.acknowledged(3, None);
        assert_eq!(window.place(), 1, "the second is still out");
        window.acknowledged(2, Some("NotAuthorized".into()));
        assert_eq!(window.place(), 3);
        window.acknowledged(4, None);
        assert_eq!(window.place(), 4);
    }

    #[test]
    fn what_can_never_be_sent_is_refused_and_holds_nothing_up() {
        let mut window = Window::default();
        let wild = Publication {
            topic: "v1/#".into(),
            ..publication(1, 1)
        };
        window.extend([publication(0, 1), wild, publication(2, 1)].into_iter());
        assert_eq!((left(&window), window.refused), (vec![0, 2], 1));
        assert!(window.last_refusal.unwrap().starts_with("v1/#"));
    }

    #[test]
    fn it_is_bounded_in_number_and_bytes() {
        let mut window = Window::default();
        assert!(window.has_room());
        window.extend((0..WINDOW - BATCH + 1).map(|_| publication(0, 1)));
        assert!(!window.has_room());
        let mut window = Window::default();
        window.extend(std::iter::once(Publication {
            payload: Bytes::from(vec![0; WINDOW_BYTES]),
            ..publication(0, 1)
        }));
        assert!(!window.has_room());
    }
}
