//! Source and outbox against a real mosquitto. Where none is installed: a failure in CI, a note
//! elsewhere.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, READ_MAX_PACKET_BYTES, Version};
use super::outbox::{self, Publication};
use super::source::{self, Options};
use crate::ingest::SourceStatus;
use crate::ingest::intake::{Intake, Queue};
use crate::ingest::status::State;

/// Longest that anything here may take: it ends a hang, and measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// Ports for brokers and peers. They lie below those that the kernel deals out to outgoing connections: nobody
/// takes one while its broker is being restarted, nor does a client that knocks meanwhile meet itself.
const PORTS: std::ops::Range<u16> = 12_000..20_000;

/// A port that nobody listens on now, dealt out once.
pub(crate) fn free_port() -> u16 {
    static DEALT: AtomicU16 = AtomicU16::new(0);
    let len = PORTS.end - PORTS.start;
    let start = (std::process::id() % u32::from(len)) as u16;
    std::iter::repeat_with(|| DEALT.fetch_add(1, Ordering::Relaxed))
        .take(usize::from(len))
        .map(|dealt| PORTS.start + (start + dealt) % len)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

fn mosquitto() -> Option<PathBuf> {
    let found = [
        "/usr/sbin/mosquitto",
        "/usr/bin/mosquitto",
        "/usr/local/sbin/mosquitto",
    ]
    .into_iter()
    .map(PathBuf::from)
    .find(|p| p.exists());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "mosquitto is needed for this test"
        );
        eprintln!("skipped: no mosquitto here");
    }
    found
}

pub(crate) struct Mosquitto {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Mosquitto {
    fn start(settings: &str) -> Option<Mosquitto> {
        let program = mosquitto()?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = settings
            .replace("DIR", &dir.path().display().to_string())
            .replace("PORT", &port.to_string());
        let here = dir.path().display();
        std::fs::write(
            dir.path().join("mosquitto.conf"),
            format!("persistence true\npersistence_location {here}/\nmax_inflight_messages 1000\nmax_queued_messages 0\nuser root\n{text}\n"),
        )
        .unwrap();
        let child = Self::spawn(&program, dir.path(), port);
        Some(Mosquitto {
            program,
            dir,
            port,
            child,
        })
    }

    pub(crate) fn plain() -> Option<Mosquitto> {
        Self::start("listener PORT 127.0.0.1\nallow_anonymous true")
    }

    fn spawn(program: &Path, dir: &Path, port: u16) -> Child {
        let mut child = Command::new(program)
            .arg("-c")
            .arg(dir.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "mosquitto, port {port}: {ended:?}");
            assert!(began.elapsed() < PATIENCE, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    /// SIGTERM: it writes its sessions to disk.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = Self::spawn(&self.program, self.dir.path(), self.port);
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn broker(&self, version: Version) -> Broker {
        Broker {
            version,
            keep_alive_s: 5,
            connect_timeout_s: 2,
            ..Broker::at(format!("mqtt://127.0.0.1:{}", self.port))
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Topics and payloads.
type Durable = Arc<Mutex<Vec<(Box<str>, Bytes)>>>;

/// A journal that only remembers, and acknowledges after `commit` has passed.
pub(crate) struct Sink {
    durable: Durable,
}

impl Sink {
    pub(crate) fn start(mut queue: Queue, commit: Duration) -> Sink {
        let durable = Durable::default();
        let sink = Sink {
            durable: Arc::clone(&durable),
        };
        std::thread::spawn(move || {
            let mut batch = Vec::new();
            while queue.gather(
                &mut batch,
                512,
                Duration::from_secs(1),
                Duration::from_millis(2),
            ) {
                std::thread::sleep(commit);
                let mut durable = durable.lock().unwrap();
                for queued in batch.drain(..) {
                    durable.push((queued.message.topic.clone(), queued.message.payload.clone()));
                    if let Some(ack) = queued.message.ack {
                        ack.to.send(ack.token).ok();
                    }
                }
            }
        });
        sink
    }

    pub(crate) fn distinct(&self) -> usize {
        self.durable
            .lock()
            .unwrap()
            .iter()
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Topics and payloads, as they became durable.
    pub(crate) fn all(&self) -> Vec<(Box<str>, Bytes)> {
        self.durable.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.durable.lock().unwrap().len()
    }
}

pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Running {
    status: watch::Receiver<SourceStatus>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) fn run_source(options: Options, intake: &Intake) -> Running {
    let (to, status) = watch::channel(SourceStatus::new("test", "mqtt"));
    let stop = CancellationToken::new();
    let task = tokio::spawn(source::run(options, intake.clone(), to, stop.clone()));
    Running { status, stop, task }
}

impl Running {
    pub(crate) async fn connected(&self) {
        until("the subscription", || {
            self.status.borrow().state == State::Connected
        })
        .await;
    }

    pub(crate) async fn stopped(self) -> SourceStatus {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
        self.status.borrow().clone()
    }
}

pub(crate) fn options(broker: Broker) -> Options {
    Options {
        name: "test".into(),
        broker: Broker {
            client_id: Some("source-under-test".into()),
            ..broker
        },
        ..Options::default()
    }
}

/// Publishes `range` as numbers at QoS 1; a task that ends when all are acknowledged.
pub(crate) fn publish(
    broker: Broker,
    range: std::ops::Range<u32>,
    qos: u8,
) -> tokio::task::JoinHandle<u64> {
    let (to, publications) = mpsc::channel(64);
    let (told, progress) = watch::channel(outbox::Progress::default());
    tokio::spawn(async move {
        for n in range {
            let publication = Publication {
                topic: "v1/laps".into(),
                payload: n.to_string().into(),
                qos,
                retain: false,
                place: None,
            };
            to.send(publication).await.ok();
        }
    });
    tokio::spawn(async move {
        let id = format!("publisher-{:?}", Instant::now());
        outbox::run(
            &broker,
            &id,
            None,
            publications,
            told,
            CancellationToken::new(),
        )
        .await;
        progress.borrow().delivered
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_in_order_and_is_acknowledged_with_both_versions() {
    for version in [Version::V4, Version::V5] {
        let Some(mosquitto) = Mosquitto::plain() else {
            return;
        };
        let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
        let sink = Sink::start(queue, Duration::from_millis(1));
        let source = run_source(options(mosquitto.broker(version)), &intake);
        source.connected().await;
        let sent = publish(mosquitto.broker(version), 0..5_000, 1);
        assert_eq!(
            tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap(),
            5_000
        );
        until("5,000 messages", || sink.len() >= 5_000).await;
        let numbers: Vec<u32> = sink
            .durable
            .lock()
            .unwrap()
            .iter()
            .map(|(_, b)| std::str::from_utf8(b).unwrap().parse().unwrap())
            .collect();
        assert!(numbers.iter().copied().eq(0..5_000), "{version:?}: order");
        let status = source.stopped().await;
        assert_eq!(
            (status.messages, status.acknowledged),
            (5_000, 5_000),
            "{version:?}"
        );
        assert_eq!((status.unacknowledged, status.state), (0, State::Stopped));
    }
}

/// Publishes numbers from 0 at QoS 1, a few at a time and without an end, until it is told to stop. Its task
/// ends when all are acknowledged, and says how many there were.
struct Stream {
    stop: Arc<AtomicBool>,
    delivered: tokio::task::JoinHandle<u64>,
}

impl Stream {
    fn start(broker: Broker) -> Stream {
        let stop = Arc::new(AtomicBool::new(false));
        let (to, publications) = mpsc::channel(64);
        let (told, progress) = watch::channel(outbox::Progress::default());
        let stopped = Arc::clone(&stop);
        tokio::spawn(async move {
            for n in 0u32.. {
                if n.is_multiple_of(50) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let publication = Publication {
                    topic: "v1/laps".into(),
                    payload: n.to_string().into(),
                    qos: 1,
                    retain: false,
                    place: None,
                };
                if stopped.load(Ordering::Relaxed) || to.send(publication).await.is_err() {
                    break;
                }
            }
        });
        let delivered = tokio::spawn(async move {
            let never = CancellationToken::new();
            outbox::run(&broker, "stream", None, publications, told, never).await;
            progress.borrow().delivered
        });
        Stream { stop, delivered }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(PATIENCE, self.delivered)
            .await
            .expect("all that was published is acknowledged")
            .unwrap()
    }
}

/// The stream goes on through all of it, and each trouble ends when the source has met it and is over it:
/// nothing here depends on how quick the machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_or_hangs_costs_nothing() {
    for version in [Version::V4, Version::V5] {
        let Some(mut mosquitto) = Mosquitto::plain() else {
            return;
        };
        let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
        let sink = Sink::start(queue, Duration::from_millis(20));
        let source = run_source(options(mosquitto.broker(version)), &intake);
        source.connected().await;
        let stream = Stream::start(mosquitto.broker(version));
        until("some", || sink.len() > 1_000).await;
        mosquitto.stop();
        until("the source to notice that the broker is gone", || {
            source.status.borrow().state == State::Connecting
        })
        .await;
        mosquitto.start_again();
        source.connected().await;
        let before = sink.distinct();
        until("more", || sink.distinct() > before + 1_000).await;
        if version == Version::V5 {
            mosquitto.signal("STOP");
            until("the source to give up a broker that hangs", || {
                source.status.borrow().state == State::Connecting
            })
            .await;
            mosquitto.signal("CONT");
            source.connected().await;
            let before = sink.distinct();
            until("more yet", || sink.distinct() > before + 1_000).await;
        }
        let published = stream.end().await as usize;
        until("all", || sink.distinct() >= published).await;
        assert_eq!(sink.distinct(), published, "{version:?}");
        let connections = source.stopped().await.connections;
        let troubles = if version == Version::V5 { 2 } else { 1 };
        assert!(connections > troubles, "{version:?}: {connections}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_before_a_stop_comes_again() {
    let Some(mosquitto) = Mosquitto::plain() else {
        return;
    };
    let broker = mosquitto.broker(Version::V5);
    // Nobody takes anything out of this intake: nothing becomes durable.
    let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
    let source = run_source(options(broker.clone()), &intake);
    source.connected().await;
    assert_eq!(publish(broker.clone(), 0..100, 1).await.unwrap(), 100);
    until("all taken", || source.status.borrow().messages == 100).await;
    let status = source.stopped().await;
    assert_eq!((status.acknowledged, status.unacknowledged), (0, 100));
    drop(queue);

    let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
    let sink = Sink::start(queue, Duration::ZERO);
    let source = run_source(options(broker.clone()), &intake);
    until("all again", || sink.distinct() == 100).await;
    assert_eq!(source.stopped().await.acknowledged, 100);

    let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
    let sink = Sink::start(queue, Duration::ZERO);
    let source = run_source(options(broker), &intake);
    source.connected().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sink.len(), 0, "what was acknowledged does not come again");
    source.stopped().await;
}

/// It must not come again and again, nor hold up what stands behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_limit_is_passed_over_once() {
    let Some(mosquitto) = Mosquitto::plain() else {
        return;
    };
    for version in [Version::V4, Version::V5] {
        let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
        let sink = Sink::start(queue, Duration::ZERO);
        let source = run_source(options(mosquitto.broker(version)), &intake);
        source.connected().await;
        let most = mosquitto.broker(version).max_packet_bytes as usize;
        let (to, publications) = mpsc::channel(8);
        for payload in [b"1".to_vec(), vec![b'x'; most + 1], b"2".to_vec()] {
            let publication = Publication {
                topic: "v1/laps".into(),
                payload: payload.into(),
                qos: 1,
                retain: false,
                place: None,
            };
            to.send(publication).await.unwrap();
        }
        drop(to);
        let (told, progress) = watch::channel(outbox::Progress::default());
        let broker = Broker {
            max_packet_bytes: super::broker::LIMIT_MAX_PACKET_BYTES,
            ..mosquitto.broker(Version::V4)
        };
        let never = CancellationToken::new();
        outbox::run(&broker, "large", None, publications, told, never).await;
        assert_eq!(progress.borrow().delivered, 3);
        let holds = |text: &[u8]| sink.all().iter().any(|(_, payload)| &payload[..] == text);
        until("what stands behind it", || holds(b"2")).await;
        let status = source.stopped().await;
        assert_eq!(
            (status.connections, status.unacknowledged),
            (1, 0),
            "{version:?}"
        );
        let refused = sink.all().into_iter().filter(|(topic, payload)| {
            crate::record::decode(topic, payload).is_err_and(|r| r.reason() == "oversized")
        });
        // A broker of MQTT 5 keeps it to itself.
        let expected = usize::from(version == Version::V4);
        assert_eq!((refused.count(), sink.len()), (expected, 2 + expected));
    }
}

/// Nor may one that is larger than what is read in passing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_far_beyond_the_limit_is_passed_over_on_a_connection_of_its_own() {
    let Some(mosquitto) = Mosquitto::plain() else {
        return;
    };
    let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
    let sink = Sink::start(queue, Duration::ZERO);
    let source = run_source(options(mosquitto.broker(Version::V4)), &intake);
    source.connected().await;
    let mut publisher = rumqttc::MqttOptions::new("huge", "127.0.0.1", mosquitto.port);
    let huge = READ_MAX_PACKET_BYTES as usize + 1;
    publisher.set_max_packet_size(2 * huge, 2 * huge);
    let (client, mut wire) = rumqttc::AsyncClient::new(publisher, 8);
    for bytes in [1, huge, 1] {
        let payload = vec![b'1'; bytes];
        let qos = rumqttc::QoS::AtLeastOnce;
        client
            .publish("v1/laps", qos, false, payload)
            .await
            .unwrap();
    }
    let mut taken = 0;
    while taken < 3 {
        use rumqttc::{Event, Packet};
        let said = wire.poll().await.unwrap();
        taken += usize::from(matches!(said, Event::Incoming(Packet::PubAck(_))));
    }
    // The second small one stands behind it.
    until("all three", || sink.len() == 3).await;
    until("a connection with the usual limit", || {
        source.status.borrow().connections >= 3
    })
    .await;
    let status = source.stopped().await;
    assert_eq!((status.connections, status.unacknowledged), (3, 0));
    let refused = sink.all().into_iter().filter(|(topic, payload)| {
        crate::record::decode(topic, payload).is_err_and(|r| r.reason() == "oversized")
    });
    assert_eq!((refused.count(), sink.len()), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_and_not_tried_in_a_storm() {
    let Some(mosquitto) = Mosquitto::start("listener PORT 127.0.0.1\nallow_anonymous false") else {
        return;
    };
    for version in [Version::V4, Version::V5] {
        let (intake, _queue) = Intake::new(&tokio::runtime::Handle::current());
        let broker = Broker {
            username: Some("nobody".into()),
            password: Some("wrong".into()),
            ..mosquitto.broker(version)
        };
        let source = run_source(options(broker), &intake);
        until("the refusal", || {
            source.status.borrow().state == State::Refused
        })
        .await;
        let error = source.status.borrow().last_error.clone().unwrap();
        assert!(
            error.contains("refused") && !error.contains("wrong"),
            "{error}"
        );
        source.stopped().await;
    }
}

/// An authority, and a server's and a client's certificate that it signed.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let done = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(dir)
            .stderr(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "openssl {args}");
    };
    std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
    );
    for name in ["server", "client"] {
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out {name}.pem"
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_own_authority_and_a_client_certificate() {
    if mosquitto().is_none() || Command::new("openssl").arg("version").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none(),
            "openssl is needed for this test"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let at = |name: &str| dir.path().join(name);
    let settings = format!(
        "listener PORT\nallow_anonymous true\ncafile {0}/ca.pem\ncertfile {0}/server.pem\nkeyfile {0}/server.key\nrequire_certificate true",
        dir.path().display()
    );
    let mosquitto = Mosquitto::start(&settings).unwrap();
    for version in [Version::V4, Version::V5] {
        let trusting = Broker {
            url: format!("mqtts://localhost:{}", mosquitto.port),
            ca_file: Some(at("ca.pem")),
            client_cert_file: Some(at("client.pem")),
            client_key_file: Some(at("client.key")),
            ..mosquitto.broker(version)
        };
        let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
        let sink = Sink::start(queue, Duration::ZERO);
        let source = run_source(options(trusting.clone()), &intake);
        source.connected().await;
        assert_eq!(publish(trusting.clone(), 0..500, 1).await.unwrap(), 500);
        until("all", || sink.len() == 500).await;
        source.stopped().await;

        // Nobody whom we trust vouches for this broker: no connection, and why.
        let doubting = Broker {
            ca_file: Some(at("client.pem")),
            ..trusting
        };
        let source = run_source(options(doubting), &intake);
        until("the error", || source.status.borrow().last_error.is_some()).await;
        let status = source.stopped().await;
        let error = status.last_error.unwrap();
        assert!(error.contains("certificate"), "{error}");
        assert_eq!(status.connections, 0);
    }
}
