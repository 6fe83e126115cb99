//! `trackside demo`: broker, race, daemon and page in one process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::broker;
use super::simulate;
use crate::api::health::Health;
use crate::cli::say::say;
use crate::config::Config;
use crate::daemon;
use crate::ingest::mqtt::{self, Broker, Version};
use crate::ingest::recording;
use crate::ingest::replay::{self, Pace};
use crate::observability::{self, LogFormat};
use crate::publish;
use crate::simulator::circuit::{CIRCUITS, Circuit};
use crate::simulator::{FrameOptions, Options, Simulator};

/// Where the page is looked for first; the next free port if that is taken.
const PORT: u16 = 8040;
/// Ports from there on that are tried before any free one is taken.
const PORTS: u16 = 20;
/// Messages that the feed may be ahead of the daemon. The embedded broker drops what a subscriber
/// takes too late; this many it holds with ease.
const AHEAD: u64 = 40_000;
/// How often the feed looks whether the daemon has come closer, and how long it waits at most for a
/// daemon that takes nothing at all.
const LOOK: Duration = Duration::from_millis(20);
const STALLED: Duration = Duration::from_secs(10);

/// Start everything on this machine: an embedded broker, a simulated race (or a recording), the
/// daemon and the pit-wall page.
#[derive(clap::Args)]
pub struct Args {
    /// Play this recording instead of a simulated race.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// How fast: a factor of real time, or `max`.
    #[arg(long, value_name = "N|max", default_value = "5")]
    speed: Pace,
    /// Laps of the simulated race; the circuit's own by default.
    #[arg(long, value_name = "N", conflicts_with = "recording")]
    laps: Option<u16>,
    /// The same seed gives the same race.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with = "recording"
    )]
    seed: u64,
    /// Which circuit; see `trackside simulate --list-circuits`.
    #[arg(long, value_name = "NAME", default_value = CIRCUITS[0].name, value_parser = simulate::circuit,
          conflicts_with = "recording")]
    circuit: &'static Circuit,
    /// Adds high-rate frames, this many samples a second (50 to 1000).
    #[arg(long, value_name = "HZ", conflicts_with = "recording")]
    rate: Option<u32>,
    /// Port of the page; by default 8040, or the next free one.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Keep the journals in this data directory instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// The log's level.
    // The broker's own words are about its connections and tell a spectator nothing.
    #[arg(long, default_value = "warn,rumqttd=off")]
    log: String,
}

/// Runs it until the race is over and somebody presses Ctrl-C.
pub fn run(args: &Args) -> anyhow::Result<()> {
    observability::start_log(&args.log, LogFormat::Text)?;
    let metrics = observability::start_metrics()?;
    let temporary;
    let data_dir = match &args.data {
        Some(dir) => dir.clone(),
        None => {
            temporary = tempfile::tempdir().context("no temporary directory can be made")?;
            temporary.path().to_owned()
        }
    };
    let broker = Broker {
        url: format!("mqtt://127.0.0.1:{}", broker::start(0)?),
        version: Version::V4,
        ..Broker::default()
    };
    let mut config = Config {
        data_dir,
        mqtt: vec![mqtt::Options {
            name: "demo".to_owned(),
            broker: broker.clone(),
            ..mqtt::Options::default()
        }],
        ..Config::default()
    };
    config.publish.mqtt = Some(publish::mqtt::Options {
        broker: broker.clone(),
        ..publish::mqtt::Options::default()
    });
    config.api.listen = listen(args.port)?;
    tokio::runtime::Runtime::new()
        .context("the runtime cannot be started")?
        .block_on(show(args, config, &broker, metrics))
}

fn listen(port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => Ok(at(port)),
        None => Ok((PORT..PORT + PORTS)
            .map(at)
            .find(|address| TcpListener::bind(address).is_ok())
            .unwrap_or(at(0))),
    }
}

async fn show(
    args: &Args,
    config: Config,
    broker: &Broker,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let running = daemon::start(&config, metrics.clone()).await?;
    tokio::spawn(observability::upkeep(metrics, stop.clone()));
    say!("pit wall:  http://{}/", running.address());
    say!(
        "broker:    {}  (topics v1/# in, trackside/v1/# out)",
        broker.url
    );
    say!("journal:   {}", config.data_dir.display());
    say!("Ctrl-C ends it.");

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // A terminal that is closed must not leave the temporary journals behind.
    let mut hangup = signal(SignalKind::hangup())?;
    let enough = async {
        match args.duration {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let shown = async {
        running.connected().await;
        let backlog = Backlog::new(running.health.clone(), stop.clone());
        let simulator = args
            .recording
            .is_none()
            .then(|| Simulator::new(options(args)))
            .transpose()?;
        let feed = feed(
            args.recording.clone(),
            simulator,
            args.speed,
            broker.clone(),
            backlog,
        );
        over(tokio::spawn(feed)).await
    };
    let ended = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
        () = enough => Ok(()),
        ended = shown => ended,
    };
    stop.cancel();
    running.stop().await?;
    ended
}

/// What was fed stays on the page when the race is over; only an error ends the demo.
async fn over(feed: tokio::task::JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    feed.await??;
    say!("the race is over; the page stays until Ctrl-C");
    std::future::pending().await
}

async fn feed(
    recording: Option<PathBuf>,
    simulator: Option<Simulator>,
    pace: Pace,
    broker: Broker,
    mut backlog: Backlog,
) -> anyhow::Result<()> {
    let stop = backlog.stop.clone();
    let options = replay::Options { pace, cbor: false };
    let mut hold = move |p: replay::Progress| backlog.hold(p.messages);
    if let Some(simulator) = simulator {
        let source = simulate::messages(simulator);
        replay::publish_mqtt(source, options, &broker, &stop, &mut hold).await?;
    } else if let Some(recording) = recording {
        let source = recording::Reader::open(&recording)?;
        replay::publish_mqtt(source, options, &broker, &stop, &mut hold).await?;
    }
    Ok(())
}

/// Keeps the feed within what the embedded broker holds for the daemon.
struct Backlog {
    health: watch::Receiver<Arc<Health>>,
    stop: CancellationToken,
    /// Messages that the daemon had taken when it last took one, and when that was.
    taken: u64,
    moved: Instant,
}

impl Backlog {
    fn new(health: watch::Receiver<Arc<Health>>, stop: CancellationToken) -> Backlog {
        Backlog {
            health,
            stop,
            taken: 0,
            moved: Instant::now(),
        }
    }

    /// Returns when the daemon is near enough to a feed that has sent `messages`, or takes nothing.
    fn hold(&mut self, messages: u64) {
        tokio::task::block_in_place(|| {
            self.moved = Instant::now();
            while !self.stop.is_cancelled() {
                let taken = self
                    .health
                    .borrow()
                    .sources
                    .iter()
                    .map(|s| s.messages)
                    .sum();
                if taken != self.taken {
                    (self.taken, self.moved) = (taken, Instant::now());
                }
                if messages <= taken + AHEAD || self.moved.elapsed() > STALLED {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        });
    }
}

fn options(args: &Args) -> Options {
    Options {
        laps: args.laps,
        seed: args.seed,
        start: Some(simulate::now()),
        frames: args.rate.map(FrameOptions::at),
        ..Options::new(args.circuit)
    }
}
