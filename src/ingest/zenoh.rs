//! The Zenoh source.
//!
//! **What is promised, and what is not.** Zenoh acknowledges hop by hop: a `put` that returned has
//! left the publisher, no more. A sample is durable when it is journalled, and no word of that goes
//! back. A publisher that needs proof reads the durable watermark in the daemon's health topic and
//! sends again what it does not find covered; what arrives twice is journalled once. Frames carry
//! sequence numbers, and a gap in them is counted.
//!
//! **Back-pressure.** The subscriber's callback blocks Zenoh's reading thread while the source has
//! [`HELD_BYTES`] that the intake has no room for. Zenoh then stops reading its TCP links, and
//! publishers that use `CongestionControl::Block` wait. Those that use `Drop` (Zenoh's default) lose
//! samples before they reach us; only the gaps in the frames' sequence tell.
//!
//! **The end of a stream.** Closing a session drops what is still on its way. A publisher that wants
//! to be sure queries [`TAKEN_KEY`] first ([`taken`]): each source answers once it has come to the
//! query, and so has taken every sample before it.
//!
//! Payloads may be JSON or CBOR, as over MQTT: told by the key's `/cbor` suffix or by the first
//! byte. Zenoh's encoding hint is not needed and not read.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zenoh::Wait;
use zenoh::qos::CongestionControl;
use zenoh::query::QueryTarget;
use zenoh::sample::{Sample, SampleKind};

use super::Message;
use super::backoff::Backoff;
use super::intake::Intake;
use super::secret::{self, Secret};
use super::status::{REFRESH, SourceStatus, State, Tally};
use crate::record::codec::MAX_FRAME_BYTES;

/// Samples taken from Zenoh that the intake has no room for yet (B, with [`OVERHEAD`] for each).
pub const HELD_BYTES: usize = 8 * 1024 * 1024;
/// What a held sample costs beside its payload (B).
const OVERHEAD: usize = 256;
/// Largest sample that is taken; larger ones are counted and dropped at once.
const MAX_SAMPLE_BYTES: usize = MAX_FRAME_BYTES + 64 * 1024;
/// Samples handed on at a time.
const BATCH: usize = 256;
/// Longest that opening a session may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Every source answers queries for this key: it has then taken all that the same session put before.
pub const TAKEN_KEY: &str = "trackside/v1/taken";
/// How long an answer is waited for: a source may be held back by a stalled disk.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// How long a stopping source hands on what it holds.
const DRAIN: Duration = Duration::from_secs(5);
/// Most endpoints or key expressions.
const MAX_LIST: usize = 64;

/// How to take part in a Zenoh network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Connects to others and is connected to.
    #[default]
    Peer,
    /// Only through a router, to which it connects.
    Client,
}

/// A Zenoh session: shared by the source, the publisher and replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub mode: Mode,
    /// Locators to connect to, such as `tcp/10.0.0.2:7447`; retried for as long as it takes.
    pub connect: Vec<String>,
    /// Locators to listen on, such as `tcp/0.0.0.0:7447` (peers).
    pub listen: Vec<String>,
    /// Find others by multicast.
    pub scouting: bool,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
}

/// A Zenoh source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// In logs, health and metrics.
    pub name: String,
    pub network: Network,
    /// Key expressions, with `*` and `**`.
    pub keys: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "zenoh".into(),
            network: Network::default(),
            keys: vec!["v1/**".into(), "trackside/v1/frames/**".into()],
        }
    }
}

/// What is wrong with Zenoh's options, or why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{key} = {value}: must be {allowed}")]
    Value {
        key: &'static str,
        value: String,
        allowed: &'static str,
    },
    #[error(transparent)]
    Password(#[from] secret::Unreadable),
    #[error("no Zenoh session: {0}")]
    Session(String),
}

impl Network {
    /// A client-side session towards one locator.
    pub fn towards(locator: impl Into<String>) -> Network {
        Network {
            mode: Mode::Client,
            connect: vec![locator.into()],
            ..Network::default()
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first key that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        let value = |key, value: String, allowed| {
            Err(Error::Value {
                key,
                value,
                allowed,
            })
        };
        for (key, list) in [("connect", &self.connect), ("listen", &self.listen)] {
            if list.len() > MAX_LIST {
                return value(
                    key,
                    format!("{} locators", list.len()),
                    "at most 64 locators",
                );
            }
            let wrong = |l: &&String| {
                !l.starts_with("tcp/") || l.parse::<zenoh::config::EndPoint>().is_err()
            };
            if let Some(locator) = list.iter().find(wrong) {
                return value(
                    key,
                    format!("{locator:?}"),
                    "locators such as tcp/10.0.0.2:7447",
                );
            }
        }
        if self.mode == Mode::Client && self.connect.is_empty() && !self.scouting {
            let text = "[]".into();
            return value(
                "connect",
                text,
                "a router's locator in mode \"client\" without scouting",
            );
        }
        if self.mode == Mode::Client && !self.listen.is_empty() {
            let text = format!("{:?}", self.listen);
            return value("listen", text, "empty in mode \"client\"");
        }
        if self.username.is_none() && (self.password.is_some() || self.password_file.is_some()) {
            return value("username", "absent".into(), "given where a password is");
        }
        Ok(())
    }

    /// Opens a session; within a multi-threaded runtime only.
    ///
    /// # Errors
    /// If the options or the runtime are wrong, a listening address is taken, or no router answers in time.
    pub async fn open(&self) -> Result<zenoh::Session, Error> {
        self.validate()?;
        // Zenoh would panic.
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Err(Error::Session("a multi-threaded runtime is needed".into()));
        }
        let wrong = |e: zenoh::Error| Error::Session(e.to_string());
        let mut config = zenoh::Config::default();
        let mut set = |key: &str, value: serde_json::Value| {
            config.insert_json5(key, &value.to_string()).map_err(wrong)
        };
        let (mode, lasting) = match self.mode {
            Mode::Peer => ("peer", -1),
            Mode::Client => ("client", OPEN_TIMEOUT.as_millis() as i64),
        };
        set("mode", mode.into())?;
        set("connect/endpoints", self.connect.clone().into())?;
        // A peer comes up alone and goes on looking for the others.
        set("connect/timeout_ms", lasting.into())?;
        set(
            "connect/exit_on_failure",
            (self.mode == Mode::Client).into(),
        )?;
        set("listen/endpoints", self.listen.clone().into())?;
        set("scouting/multicast/enabled", self.scouting.into())?;
        set("transport/shared_memory/enabled", false.into()).ok();
        if let Some(user) = &self.username {
            let password = secret::resolve(self.password.as_ref(), self.password_file.as_deref())?;
            let password = password.as_ref().map_or("", Secret::reveal);
            set("transport/auth/usrpwd/user", user.as_str().into())?;
            set("transport/auth/usrpwd/password", password.into())?;
        }
        let opening = async { zenoh::open(config).await };
        match tokio::time::timeout(OPEN_TIMEOUT * 2, opening).await {
            Ok(opened) => opened.map_err(wrong),
            Err(_) => Err(Error::Session(format!(
                "nobody answered in {OPEN_TIMEOUT:?}"
            ))),
        }
    }
}

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// The first key that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        let value = |key, value: String, allowed| {
            Err(Error::Value {
                key,
                value,
                allowed,
            })
        };
        self.network.validate()?;
        if self.name.is_empty() {
            return value("name", "\"\"".into(), "non-empty");
        }
        if self.keys.is_empty() || self.keys.len() > MAX_LIST {
            let text = format!("{} key expressions", self.keys.len());
            return value("keys", text, "1 to 64 key expressions");
        }
        let wrong = |k: &&String| zenoh::key_expr::KeyExpr::new(k.as_str()).is_err();
        if let Some(key) = self.keys.iter().find(wrong) {
            return value("keys", format!("{key:?}"), "key expressions such as v1/**");
        }
        Ok(())
    }
}

/// Waits until every source of the network has taken what `session` has put so far: a query goes the
/// same way as the samples before it, and a source answers only when it comes to it. Returns how many
/// answered; none within [`TAKEN_WITHIN`] if nobody runs a source of ours.
pub async fn taken(session: &zenoh::Session) -> usize {
    let asked = session
        .get(TAKEN_KEY)
        .target(QueryTarget::All)
        .congestion_control(CongestionControl::Block)
        .timeout(TAKEN_WITHIN)
        .await;
    let Ok(replies) = asked else { return 0 };
    let mut answered = 0;
    while replies.recv_async().await.is_ok() {
        answered += 1;
    }
    answered
}

/// Runs a source until it is told to stop or the intake closes.
pub async fn run(
    options: Options,
    intake: Intake,
    status: watch::Sender<SourceStatus>,
    stop: CancellationToken,
) {
    let mut tally = Tally::new(status);
    let mut backoff = Backoff::default();
    loop {
        let end = session(&options, &intake, &mut tally, &mut backoff, &stop).await;
        let Err(error) = end else { break };
        tracing::warn!(source = %options.name, "{error}");
        tally.failed(State::Connecting, &error.to_string());
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            () = stop.cancelled() => break,
        }
    }
    tally.stopped();
}

/// One session. Zenoh itself reconnects its links within it.
async fn session(
    options: &Options,
    intake: &Intake,
    tally: &mut Tally,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let wrong = |e: zenoh::Error| Error::Session(e.to_string());
    let session = tokio::select! {
        opened = options.network.open() => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let (samples, mut arrived) = mpsc::unbounded_channel();
    let gate = Arc::new(Gate::default());
    let _open = Opened(Arc::clone(&gate));
    let mut subscribers = Vec::with_capacity(options.keys.len());
    for key in &options.keys {
        let (samples, gate) = (samples.clone(), Arc::clone(&gate));
        let subscriber = session
            .declare_subscriber(key.clone())
            .callback(move |sample| take(sample, &gate, &samples))
            .await
            .map_err(wrong)?;
        subscribers.push(subscriber);
    }
    let _answers = session
        .declare_queryable(TAKEN_KEY)
        .callback(|query| {
            let key = query.key_expr().clone();
            // Who asked is gone: then nobody wants to know.
            query.reply(key, Vec::new()).wait().ok();
        })
        .await
        .map_err(wrong)?;
    tally.connected();
    backoff.reset();
    let mut tick = tokio::time::interval(REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = tick.tick() => {
                tally.refresh();
                if session.is_closed() {
                    return Err(Error::Session("closed from below".into()));
                }
            }
            _ = arrived.recv_many(&mut batch, BATCH) => {
                let handing = hand_on(&mut batch, intake, &gate, tally);
                tokio::select! {
                    open = handing => if !open { return Ok(()) },
                    // A stalled disk must not hold up the stop.
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    // Callbacks that wait are let go first: undeclaring waits for them.
    gate.close();
    let farewell = async {
        for subscriber in subscribers {
            subscriber.undeclare().await.ok();
        }
        drop(samples);
        while arrived.recv_many(&mut batch, BATCH).await > 0 {
            if !hand_on(&mut batch, intake, &gate, tally).await {
                break;
            }
        }
        session.close().await.ok();
    };
    tokio::time::timeout(DRAIN, farewell).await.ok();
    Ok(())
}

/// Gives samples to the intake; `false` if it is closed.
async fn hand_on(
    batch: &mut Vec<Message>,
    intake: &Intake,
    gate: &Gate,
    tally: &mut Tally,
) -> bool {
    for message in batch.drain(..) {
        let (payload, cost) = (message.payload.len(), cost(&message));
        let sending = intake.send(message);
        tokio::pin!(sending);
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                // A stalled intake is when the counts are looked at.
                () = tokio::time::sleep(REFRESH) => tally.refresh(),
            }
        };
        if sent.is_err() {
            return false;
        }
        gate.leave(cost);
        tally.message(payload);
    }
    tally.refresh();
    true
}

/// Zenoh's callback, on its reading thread.
fn take(sample: Sample, gate: &Gate, to: &mpsc::UnboundedSender<Message>) {
    if sample.kind() != SampleKind::Put {
        return;
    }
    if sample.payload().len() > MAX_SAMPLE_BYTES {
        metrics::counter!("trackside_ingest_zenoh_oversized_total").increment(1);
        return;
    }
    let message = Message {
        topic: sample.key_expr().as_str().into(),
        payload: Bytes::from(sample.payload().to_bytes().into_owned()),
        received: Instant::now(),
        ack: None,
    };
    if gate.enter(cost(&message)) {
        to.send(message).ok();
    }
}

fn cost(message: &Message) -> usize {
    message.payload.len() + message.topic.len() + OVERHEAD
}

/// Bounds what is between Zenoh's threads and ours; blocks Zenoh's.
#[derive(Default)]
struct Gate {
    inside: Mutex<Inside>,
    room: Condvar,
}

#[derive(Default)]
struct Inside {
    bytes: usize,
    closed: bool,
}

impl Gate {
    /// Waits for room; `false` if the gate is closed.
    fn enter(&self, cost: usize) -> bool {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |i: &mut Inside| !i.closed && i.bytes > 0 && i.bytes + cost > HELD_BYTES;
        let mut inside = self
            .room
            .wait_while(inside, full)
            .unwrap_or_else(PoisonError::into_inner);
        inside.bytes += cost;
        !inside.closed
    }

    fn leave(&self, cost: usize) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.bytes = inside.bytes.saturating_sub(cost);
        drop(inside);
        self.room.notify_all();
    }

    fn close(&self) {
        self.inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.room.notify_all();
    }
}

/// Opens the gate for good when the session's future ends, however it ends: a callback that waits
/// for ever would hold Zenoh's threads.
struct Opened(Arc<Gate>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::mqtt::tests::{PATIENCE, Sink, free_port, until};
    use crate::ingest::{recording, replay};

    #[test]
    fn options_are_checked_with_key_and_allowed_values() {
        Options::default().validate().unwrap();
        let fault = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert!(fault(|o| o.network.connect = vec!["10.0.0.2:7447".into()]).contains("tcp/"));
        assert!(fault(|o| o.network.listen = vec!["udp/0.0.0.0:1".into()]).contains("udp/"));
        assert!(fault(|o| o.network.mode = Mode::Client).contains("router"));
        assert!(fault(|o| o.keys = vec!["v1//x".into()]).contains("v1//x"));
        assert!(fault(|o| o.keys.clear()).contains("1 to 64"));
        assert!(fault(|o| o.network.password = Some("x".into())).contains("username"));
        assert!(toml::from_str::<Options>("network = { mode = 'router' }").is_err());
    }

    #[test]
    fn the_gate_holds_back_until_there_is_room_and_lets_go_when_closed() {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter(HELD_BYTES * 2), "one sample always fits");
        gate.leave(HELD_BYTES * 2);
        assert!(gate.enter(HELD_BYTES - 1));
        let waiter = |gate: &Arc<Gate>| {
            let gate = Arc::clone(gate);
            std::thread::spawn(move || gate.enter(2))
        };
        let first = waiter(&gate);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!first.is_finished(), "it waits");
        gate.leave(1);
        assert!(first.join().unwrap());
        let second = waiter(&gate);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished(), "it waits");
        gate.close();
        assert!(!second.join().unwrap());
    }

    fn recording(messages: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = recording::Writer::create(file.path()).unwrap();
        for n in 0..messages {
            let at = crate::record::Time::from_millis(n.into());
            let topic = ["v1/car_data", "v1/location", "v1/laps"][n as usize % 3];
            // A little over a KiB each, so that 8 MiB are soon full.
            let payload = format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(1_024));
            writer.write(at, topic, payload.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_intake_holds_the_publisher_back_and_nothing_is_lost() {
        const MESSAGES: u32 = 60_000;
        let locator = format!("tcp/127.0.0.1:{}", free_port());
        let options = Options {
            network: Network {
                listen: vec![locator.clone()],
                ..Network::default()
            },
            ..Options::default()
        };
        let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
        let (to, mut status) = watch::channel(SourceStatus::new("zenoh", "zenoh"));
        let stop = CancellationToken::new();
        let source = tokio::spawn(run(options, intake.clone(), to, stop.clone()));
        let up = status.wait_for(|s| s.state == State::Connected);
        tokio::time::timeout(PATIENCE, up).await.unwrap().unwrap();

        let file = recording(MESSAGES);
        let reader = recording::Reader::open(file.path()).unwrap();
        let player = tokio::spawn(async move {
            let options = replay::Options {
                pace: replay::Pace::Max,
                cbor: false,
            };
            let stop = CancellationToken::new();
            let network = Network::towards(locator);
            replay::publish_zenoh(reader, options, &network, &stop, &mut |_| {}).await
        });
        // Nobody takes anything out of the intake: 32 MiB there and 8 MiB here, and TCP's buffers.
        let gauge = intake.gauge();
        until("the intake to be full", || gauge.fill() > 0.999).await;
        let taken = loop {
            let before = status.borrow().messages;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if before > 0 && status.borrow().messages == before {
                break before;
            }
        };
        assert!(!player.is_finished(), "the publisher waits");
        assert!(taken < MESSAGES.into(), "{taken}");

        let sink = Sink::start(queue, Duration::ZERO);
        let summary = tokio::time::timeout(PATIENCE, player).await.unwrap();
        assert_eq!(summary.unwrap().unwrap().messages, u64::from(MESSAGES));
        until("every message", || sink.len() >= MESSAGES as usize).await;
        let numbers = sink.all().into_iter().map(|(_, payload)| {
            let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            value["n"].as_u64().unwrap()
        });
        assert!(numbers.eq(0..u64::from(MESSAGES)), "in order, each once");
        stop.cancel();
        tokio::time::timeout(PATIENCE, source)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(status.borrow().state, State::Stopped);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_is_an_error_and_no_panic() {
        let network = Network::towards("tcp/127.0.0.1:1");
        let error = network.open().await.err().unwrap().to_string();
        assert!(error.contains("multi-threaded"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_replay_without_a_subscriber_says_so() {
        let file = recording(1);
        let network = Network {
            listen: vec![format!("tcp/127.0.0.1:{}", free_port())],
            ..Network::default()
        };
        let (stop, options) = (CancellationToken::new(), replay::Options::default());
        let reader = recording::Reader::open(file.path()).unwrap();
        let error = replay::publish_zenoh(reader, options, &network, &stop, &mut |_| {})
            .await
            .unwrap_err();
        assert!(error.to_string().contains("start the daemon"), "{error}");
    }
}
