//! The MQTT source: takes messages from a broker and acknowledges each one when it is durable.
//!
//! ```text
//!  broker ══▶ wire ──▶ held (≤ 8 MiB) ──▶ forwarder ──▶ Intake ──▶ journal
//!    ▲                                                               │ committed
//!    ╚══════ wire ◀── request queue ◀── this connection's tokens ◀───┘
//! ```
//!
//! - **Back-pressure.** When the intake is full the forwarder waits, `held` fills, the wire is no
//!   longer polled, and TCP pushes back to the broker. Acknowledgements of what became durable are
//!   queued meanwhile; they make room, so nothing can lock up. With MQTT 5 `receive_maximum` bounds
//!   what is out long before that, and pings go on.
//! - **Tokens.** An acknowledgement comes back as (connection epoch, packet id). One from an earlier
//!   connection is dropped: the broker sends that message again, and the intake knows it by its
//!   content.
//! - **QoS 0** messages are offered: when the intake is full some are shed, and counted.
//! - **Stop.** Nothing more is taken; what is out gets [`DRAIN`] to become durable and acknowledged;
//!   then a farewell. Where the broker keeps nothing for us (a clean session) the subscription is given up
//!   first, and what was sent before the broker's word that it has ended is still taken: it would come no
//!   second time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::broker::{
    Broker, Invalid, LIMIT_MAX_PACKET_BYTES, READ_MAX_PACKET_BYTES, beside_broker,
};
use super::connection::{Broken, Handle, Happening, Setup, Wire, next, open};
use crate::ingest::backoff::{self, Backoff};
use crate::ingest::intake::Intake;
use crate::ingest::status::{REFRESH, SourceStatus, State, Tally};
use crate::ingest::{Ack, Message};

/// Room for messages taken off the wire that the intake has no room for yet (KiB).
const HELD_KIB: u32 = 8 * 1024;
/// Requests that may wait for the wire: more than `receive_maximum` may be, so that every
/// acknowledgement that can be due finds room.
const REQUEST_QUEUE: usize = 70_000;
/// Acknowledgements taken over at a time.
const ACK_BATCH: usize = 1024;
/// How long a stopping source waits for what it has out: a full intake on a slow disk takes a while. It is
/// below the time that `systemd/trackside.service` gives a stop.
pub const DRAIN: Duration = Duration::from_secs(15);
/// How long what is held may then take to find room in the intake.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long it waits for its farewell to be written, and then for the broker to hear it.
const FAREWELL: Duration = Duration::from_secs(1);
/// A connection that lived this long was a success: the next wait is short again.
const SETTLED: Duration = Duration::from_secs(5);
/// How long the acknowledgement of a large packet gets to reach the broker.
const AFTER_LARGE: Duration = Duration::from_secs(1);
/// Most topic filters of a source.
const MAX_TOPICS: usize = 64;

/// An MQTT source. In the configuration the broker's keys stand beside these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct Options {
    /// In logs, health and metrics; part of the client id.
    pub name: String,
    pub broker: Broker,
    /// Topic filters, with `+` and `#`.
    pub topics: Vec<String>,
    /// 1: acknowledged when durable. 0: shed under load.
    pub qos: u8,
    /// Ask the broker to forget at each connection what it kept for us. With `true`, what arrives
    /// while the link is down is lost.
    pub clean_session: bool,
    /// How long the broker keeps messages for us while we are away (s; MQTT 5; 3.1.1 brokers have
    /// their own limit).
    pub session_expiry_s: u32,
    /// Most messages that the broker may have out to us unacknowledged: several commits' worth, so
    /// that more arrives while one is on its way to the disk (MQTT 5; with 3.1.1 it is the
    /// broker's setting, often 20, which makes group commits small). Many brokers have a limit of
    /// their own as well: mosquitto's is `max_inflight_messages`.
    pub receive_maximum: u16,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "mqtt".into(),
            broker: Broker::default(),
            topics: vec!["v1/#".into(), "trackside/v1/frames/#".into()],
            qos: 1,
            clean_session: false,
            session_expiry_s: 24 * 3600,
            receive_maximum: 16_384,
        }
    }
}

beside_broker!(Flat for Options {
    name: String,
    topics: Vec<String>,
    qos: u8,
    clean_session: bool,
    session_expiry_s: u32,
    receive_maximum: u16,
});

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// The first key that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        let value = |key, value: String, allowed| {
            Err(Invalid::Value {
                key,
                value,
                allowed,
            })
        };
        self.broker.validate()?;
        if self.name.is_empty() {
            return value("name", "\"\"".into(), "non-empty");
        }
        if self.topics.is_empty() || self.topics.len() > MAX_TOPICS {
            let text = format!("{} filters", self.topics.len());
            return value("topics", text, "1 to 64 topic filters");
        }
        if let Some(topic) = self.topics.iter().find(|t| !rumqttc::valid_filter(t)) {
            let text = format!("{topic:?}");
            return value("topics", text, "topic filters such as v1/# or v1/+");
        }
        if self.qos > 1 {
            return value("qos", self.qos.to_string(), "0 or 1");
        }
        if self.receive_maximum == 0 {
            return value("receive_maximum", "0".into(), "1 to 65535");
        }
        Ok(())
    }
}

/// Runs a source until it is told to stop or the intake closes.
pub async fn run(
    options: Options,
    intake: Intake,
    status: watch::Sender<SourceStatus>,
    stop: CancellationToken,
) {
    let client_id = options.broker.client_id_for(&options.name);
    let subscription = Subscription {
        client_id,
        broker: options.broker,
        topics: options.topics,
        qos: options.qos,
        clean_session: options.clean_session,
        session_expiry_s: options.session_expiry_s,
        receive_maximum: options.receive_maximum,
        ends_when_refused: false,
    };
    let mut tally = Tally::new(status);
    subscribe(&subscription, intake, &mut tally, &stop, || {}).await;
    tally.stopped();
}

/// What a client asks of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub broker: Broker,
    pub client_id: String,
    pub topics: Vec<String>,
    pub qos: u8,
    pub clean_session: bool,
    pub session_expiry_s: u32,
    pub receive_maximum: u16,
    /// Give up on a refusal (the caller will bring other credentials) instead of trying again.
    pub ends_when_refused: bool,
}

/// Why a subscription ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Stopped,
    IntakeClosed,
    Refused(String),
}

/// The source's name for a message: which connection, which packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    epoch: u64,
    pkid: u16,
}

impl Token {
    const fn number(self) -> u64 {
        self.epoch << 16 | self.pkid as u64
    }

    const fn of(number: u64) -> Token {
        Token {
            epoch: number >> 16,
            pkid: number as u16,
        }
    }
}

type Held = (Message, OwnedSemaphorePermit);

/// What outlives a connection.
struct Intakes {
    /// For QoS 0.
    offered: Intake,
    /// To the forwarder, which waits where we must not.
    held: mpsc::UnboundedSender<Held>,
    room: Arc<Semaphore>,
    tokens: mpsc::UnboundedReceiver<u64>,
    token_to: mpsc::UnboundedSender<u64>,
}

/// Keeps a subscription up through broken connections. `on_ready` is called each time that the
/// broker has confirmed it.
pub(crate) async fn subscribe(
    subscription: &Subscription,
    intake: Intake,
    tally: &mut Tally,
    stop: &CancellationToken,
    mut on_ready: impl FnMut() + Send,
) -> Ended {
    let (held, held_out) = mpsc::unbounded_channel();
    let (token_to, tokens) = mpsc::unbounded_channel();
    let forwarder = tokio::spawn(forward(intake.clone(), held_out));
    let mut intakes = Intakes {
        offered: intake,
        held,
        room: Arc::new(Semaphore::new(HELD_KIB as usize)),
        tokens,
        token_to,
    };
    let mut backoff = Backoff::default();
    let mut epoch = 0;
    let mut reads_up_to = READ_MAX_PACKET_BYTES;
    let ended = loop {
        epoch += 1;
        let end = connection(
            subscription,
            Attempt { epoch, reads_up_to },
            &mut intakes,
            tally,
            &mut backoff,
            stop,
            &mut on_ready,
        )
        .await;
        let broken = match end {
            Ok(ended) => break ended,
            Err(broken) => broken,
        };
        if stop.is_cancelled() {
            break Ended::Stopped;
        }
        reads_up_to = match broken {
            Broken::Large(bytes) => bytes,
            _ => READ_MAX_PACKET_BYTES,
        };
        let refused = broken.is_refusal();
        let text = broken.to_string();
        if refused && subscription.ends_when_refused {
            break Ended::Refused(text);
        }
        tracing::warn!(client = %subscription.client_id, url = %subscription.broker.url, "MQTT: {text}");
        let (state, wait) = match refused {
            true => (State::Refused, backoff.jittered(backoff::REFUSED)),
            false => (State::Connecting, backoff.wait()),
        };
        tally.failed(state, &text);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => break Ended::Stopped,
        }
    };
    drop(intakes);
    // What is held still goes to the intake, within the time that a stop may take.
    let abort = forwarder.abort_handle();
    if tokio::time::timeout(HAND_OVER, forwarder).await.is_err() {
        abort.abort();
    }
    ended
}

/// Hands held messages over, waiting for the intake as long as it takes.
async fn forward(intake: Intake, mut held: mpsc::UnboundedReceiver<Held>) {
    while let Some((message, _room)) = held.recv().await {
        if intake.send(message).await.is_err() {
            break;
        }
    }
}

/// Which connection it is, and the largest packet that it reads.
struct Attempt {
    epoch: u64,
    reads_up_to: u32,
}

/// One connection, from CONNECT to its end.
async fn connection(
    subscription: &Subscription,
    Attempt { epoch, reads_up_to }: Attempt,
    intakes: &mut Intakes,
    tally: &mut Tally,
    backoff: &mut Backoff,
    stop: &CancellationToken,
    on_ready: &mut (impl FnMut() + Send),
) -> Result<Ended, Broken> {
    let (handle, wire) = open(
        &subscription.broker,
        &Setup {
            client_id: subscription.client_id.clone(),
            clean_session: subscription.clean_session,
            session_expiry_s: subscription.session_expiry_s,
            receive_maximum: subscription.receive_maximum,
            send_maximum: 16,
            queue: REQUEST_QUEUE,
            reads_up_to,
            will: None,
        },
    )?;
    let mut link = Link {
        subscription,
        epoch,
        handle,
        due: VecDeque::new(),
        waiting: None,
        subscribed: None,
        stopping: None,
        leaving: 0,
        farewell: false,
        said_farewell: None,
        heard: Instant::now(),
        reads_up_to,
        large: None,
        passed: None,
    };
    tally.fresh();
    let patience = subscription.broker.patience();
    let mut poll = Box::pin(next(wire));
    let mut tick = tokio::time::interval(REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut arrived = Vec::with_capacity(ACK_BATCH);
    loop {
        link.acknowledge();
        if link.drained(tally) && link.farewell_is_over() {
            return Ok(Ended::Stopped);
        }
        tokio::select! {
            biased;
            () = stop.cancelled(), if link.stopping.is_none() => {
                if link.subscribed.is_none() {
                    return Ok(Ended::Stopped);
                }
                link.stopping = Some(Instant::now());
                link.leave();
                // What the broker keeps for us it will send again.
                if link.leaving == 0 && link.waiting.take().is_some() {
                    tally.withdrawn();
                }
            }
            _ = intakes.tokens.recv_many(&mut arrived, ACK_BATCH) => {
                for number in arrived.drain(..) {
                    link.durable(Token::of(number), tally);
                }
            }
            room = room_for(&intakes.room, link.waiting.as_ref()), if link.waiting.is_some() => {
                let (Some(message), Some(room)) = (link.waiting.take(), room) else {
                    return Ok(Ended::IntakeClosed);
                };
                link.heard = Instant::now();
                if intakes.held.send((message, room)).is_err() {
                    return Ok(Ended::IntakeClosed);
                }
            }
            _ = tick.tick() => {
                tally.refresh();
                if link.subscribed.is_some_and(|since| since.elapsed() >= SETTLED) {
                    backoff.reset();
                }
                if link.waiting.is_none() && link.heard.elapsed() > patience {
                    return Err(Broken::Silent(patience));
                }
                if link.passed.is_some_and(|at| at.elapsed() >= AFTER_LARGE) {
                    return Err(Broken::Passed);
                }
            }
            (wire, happening) = &mut poll, if link.waiting.is_none() => {
                let mut wire = wire;
                let mut happening = happening;
                loop {
                    match happening {
                        Ok(happening) => match link.on(happening, intakes, tally, on_ready)? {
                            Step::On => {}
                            Step::Closed => return Ok(Ended::IntakeClosed),
                        },
                        Err(broken) => {
                            link.salvage(&mut wire, intakes, tally);
                            return match link.stopping {
                                Some(_) => Ok(Ended::Stopped),
                                None => Err(broken),
                            };
                        }
                    }
                    if link.waiting.is_some() {
                        break;
                    }
                    match wire.buffered() {
                        Some(more) => happening = Ok(more),
                        None => break,
                    }
                }
                poll.set(next(wire));
            }
        }
    }
}

/// Waits until there is room for `message` beside what is held.
async fn room_for(
    room: &Arc<Semaphore>,
    message: Option<&Message>,
) -> Option<OwnedSemaphorePermit> {
    let cost = message.map_or(0, held_kib);
    Arc::clone(room).acquire_many_owned(cost).await.ok()
}

/// What a message counts against [`HELD_KIB`].
fn held_kib(message: &Message) -> u32 {
    let kib = (message.payload.len() + message.topic.len()) / 1024 + 1;
    (kib as u32).min(HELD_KIB)
}

enum Step {
    On,
    /// The intake is closed.
    Closed,
}

/// The state of one connection.
struct Link<'a> {
    subscription: &'a Subscription,
    epoch: u64,
    handle: Handle,
    /// Packet ids that are durable, oldest first, not yet in the request queue.
    due: VecDeque<u16>,
    /// A message for which there is no room; the wire rests meanwhile.
    waiting: Option<Message>,
    /// When the broker confirmed the subscription.
    subscribed: Option<Instant>,
    /// When we were told to stop.
    stopping: Option<Instant>,
    /// Topic filters being given up: until the broker has said so for each, messages are still taken.
    leaving: usize,
    /// Whether the farewell is queued.
    farewell: bool,
    /// When it was written.
    said_farewell: Option<Instant>,
    /// When something last happened on the wire.
    heard: Instant,
    /// The largest packet that it reads.
    reads_up_to: u32,
    /// The large packet that this connection was made for, and when it was durable.
    large: Option<u16>,
    passed: Option<Instant>,
}

impl Link<'_> {
    fn on(
        &mut self,
        happening: Happening,
        intakes: &mut Intakes,
        tally: &mut Tally,
        on_ready: &mut impl FnMut(),
    ) -> Result<Step, Broken> {
        self.heard = Instant::now();
        match happening {
            Happening::Received {
                topic,
                payload,
                pkid,
            } if self.stopping.is_none() || self.leaving > 0 => {
                return Ok(self.received(topic, payload, pkid, intakes, tally));
            }
            Happening::Connected => {
                // Also where the broker has kept our session: it may be that of other topics.
                if !self
                    .handle
                    .subscribe(&self.subscription.topics, self.subscription.qos)
                {
                    return Err(Broken::Lost("no room for the subscription".into()));
                }
            }
            Happening::Subscribed { refused: None } => {
                if self.subscribed.is_none() {
                    self.subscribed = Some(Instant::now());
                    tracing::info!(client = %self.subscription.client_id, url = %self.subscription.broker.url, "MQTT: subscribed");
                    tally.connected();
                    on_ready();
                }
            }
            Happening::Subscribed {
                refused: Some(reason),
            } => {
                return Err(Broken::Refused(format!(
                    "subscription to {}: {reason}",
                    self.subscription.topics.join(", ")
                )));
            }
            Happening::Closing => self.said_farewell = Some(Instant::now()),
            Happening::Unsubscribed => self.leaving = self.leaving.saturating_sub(1),
            // A publication while stopping is left to the broker, which will send it again.
            Happening::Received { .. }
            | Happening::Sent { .. }
            | Happening::Acknowledged { .. }
            | Happening::Other => {}
        }
        Ok(Step::On)
    }

    fn received(
        &mut self,
        topic: Box<str>,
        payload: Bytes,
        pkid: u16,
        intakes: &mut Intakes,
        tally: &mut Tally,
    ) -> Step {
        tally.message(payload.len());
        // What is beyond the limit is beyond every limit of a record, too, and refused as oversized, which needs
        // its beginning only.
        let most = self.subscription.broker.max_packet_bytes as usize;
        let payload = match payload.get(..most) {
            Some(beginning) => {
                if self.reads_up_to > READ_MAX_PACKET_BYTES
                    && payload.len() > LIMIT_MAX_PACKET_BYTES as usize
                {
                    self.large = Some(pkid);
                    self.passed = (pkid == 0).then(Instant::now);
                }
                Bytes::copy_from_slice(beginning)
            }
            None => payload,
        };
        let mut message = Message {
            topic,
            payload,
            received: self.heard,
            ack: None,
        };
        if pkid == 0 {
            return match intakes.offered.offer(message) {
                Ok(true) => Step::On,
                Ok(false) => {
                    tally.shed();
                    Step::On
                }
                Err(_) => Step::Closed,
            };
        }
        let token = Token {
            epoch: self.epoch,
            pkid,
        };
        message.ack = Some(Ack {
            token: token.number(),
            to: intakes.token_to.clone(),
        });
        tally.awaits();
        match Arc::clone(&intakes.room).try_acquire_many_owned(held_kib(&message)) {
            Ok(room) => match intakes.held.send((message, room)) {
                Ok(()) => Step::On,
                Err(_) => Step::Closed,
            },
            Err(_) => {
                self.waiting = Some(message);
                Step::On
            }
        }
    }

    /// What was read before the connection broke: QoS 0 messages come no second time; the others do,
    /// unless the session is gone with the connection.
    fn salvage(&mut self, wire: &mut Wire, intakes: &Intakes, tally: &mut Tally) {
        while let Some(happening) = wire.buffered() {
            if let Happening::Received {
                topic,
                payload,
                pkid,
            } = happening
                && (pkid == 0 || self.subscription.clean_session)
            {
                tally.message(payload.len());
                let message = Message {
                    topic,
                    payload,
                    received: self.heard,
                    ack: None,
                };
                if !matches!(intakes.offered.offer(message), Ok(true)) {
                    tally.shed();
                }
            }
        }
    }

    /// The journal has it. Words about earlier connections are dropped.
    fn durable(&mut self, token: Token, tally: &mut Tally) {
        if token.epoch == self.epoch {
            if self.large == Some(token.pkid) {
                self.passed.get_or_insert_with(Instant::now);
            }
            self.due.push_back(token.pkid);
            tally.acknowledged();
        }
    }

    /// Moves due acknowledgements into the request queue, oldest first, as MQTT demands.
    fn acknowledge(&mut self) {
        while let Some(&pkid) = self.due.front() {
            if !self.handle.acknowledge(pkid) {
                break;
            }
            self.due.pop_front();
        }
    }

    /// Gives the subscription up where the broker would keep nothing for it.
    fn leave(&mut self) {
        if !self.subscription.clean_session {
            return;
        }
        for topic in &self.subscription.topics {
            self.leaving += usize::from(self.handle.unsubscribe(topic));
        }
    }

    /// Whether a stopping connection has nothing more to wait for.
    fn drained(&self, tally: &Tally) -> bool {
        let done = self.leaving == 0
            && self.waiting.is_none()
            && tally.unacknowledged() == 0
            && self.due.is_empty();
        (self.stopping).is_some_and(|since| done || since.elapsed() >= DRAIN)
    }

    /// Queues the farewell, once; `true` when there is no point in waiting for it to be written, or for the
    /// broker to close the connection then. To close it ourselves while something lies unread would reset it,
    /// and the last acknowledgements would be lost on their way.
    fn farewell_is_over(&mut self) -> bool {
        if !self.farewell {
            self.farewell = self.handle.disconnect();
            return !self.farewell;
        }
        if let Some(said) = self.said_farewell {
            return said.elapsed() >= FAREWELL;
        }
        self.stopping
            .is_some_and(|since| since.elapsed() >= DRAIN + FAREWELL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_connection() {
        for token in
            [(0, 1), (1, u16::MAX), (1 << 40, 7)].map(|(epoch, pkid)| Token { epoch, pkid })
        {
            assert_eq!(Token::of(token.number()), token);
        }
    }

    #[test]
    fn words_about_an_earlier_connection_are_dropped() {
        let options = Options::default();
        let subscription = Subscription {
            client_id: "x".into(),
            broker: options.broker,
            topics: options.topics,
            qos: 1,
            clean_session: false,
            session_expiry_s: 0,
            receive_maximum: 1,
            ends_when_refused: false,
        };
        let setup = Setup {
            client_id: "x".into(),
            clean_session: false,
            session_expiry_s: 0,
            receive_maximum: 1,
            send_maximum: 1,
            queue: 2,
            reads_up_to: READ_MAX_PACKET_BYTES,
            will: None,
        };
        let (handle, _wire) = open(&subscription.broker, &setup).unwrap();
        let mut link = Link {
            subscription: &subscription,
            epoch: 2,
            handle,
            due: VecDeque::new(),
            waiting: None,
            subscribed: None,
            stopping: None,
            leaving: 0,
            farewell: false,
            said_farewell: None,
            heard: Instant::now(),
            reads_up_to: READ_MAX_PACKET_BYTES,
            large: None,
            passed: None,
        };
        let status = watch::channel(SourceStatus::new("x", "mqtt")).0;
        let mut tally = Tally::new(status);
        for epoch in [1, 2, 3] {
            for pkid in [5, 6, 7] {
                link.durable(Token { epoch, pkid }, &mut tally);
            }
        }
        assert_eq!(link.due, [5, 6, 7]);
        // The request queue takes two; the third waits its turn.
        link.acknowledge();
        assert_eq!(link.due, [7]);
    }

    #[test]
    fn options_stand_in_one_table_and_unknown_keys_are_refused() {
        let text = "url = 'mqtts://pit'\nname = 'garage'\nversion = 4\ntopics = ['v1/+']";
        let options: Options = toml::from_str(text).unwrap();
        assert_eq!(
            (&*options.name, &*options.broker.url),
            ("garage", "mqtts://pit")
        );
        assert_eq!(options.receive_maximum, Options::default().receive_maximum);
        options.validate().unwrap();
        let shown = toml::to_string(&options).unwrap();
        assert_eq!(toml::from_str::<Options>(&shown).unwrap(), options);
        let error = toml::from_str::<Options>("urll = 'mqtt://x'")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("urll") && error.contains("keep_alive_s"),
            "{error}"
        );
    }

    #[test]
    fn wrong_values_are_named() {
        let fault = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert!(fault(|o| o.qos = 2).contains("qos = 2"));
        assert!(fault(|o| o.topics = vec!["v1/#/x".into()]).contains("v1/#/x"));
        assert!(fault(|o| o.topics.clear()).contains("1 to 64"));
        assert!(fault(|o| o.receive_maximum = 0).contains("receive_maximum"));
        assert!(fault(|o| o.name.clear()).contains("name"));
    }
}
