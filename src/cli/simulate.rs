//! `trackside simulate`: a synthetic session into a recording, to a broker or to a Zenoh network.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zenoh::qos::CongestionControl;

use crate::cli::say::say;
use crate::ingest::mqtt::Broker;
use crate::ingest::mqtt::outbox::{self, Publication};
use crate::ingest::recording;
use crate::ingest::replay::Pace;
use crate::ingest::zenoh::Network;
use crate::record::Time;
use crate::simulator::circuit::{CIRCUITS, Circuit};
use crate::simulator::{Emitted, FrameOptions, Options, Programme, Rain, SessionKind, Simulator};

/// Messages that are simulated at a time, and batches that are simulated ahead of their time.
const BATCH: usize = 256;
const AHEAD: usize = 8;
/// Publications on their way to the broker's connection.
const QUEUE: usize = 1024;
/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// Sleeps shorter than this are not worth it.
const TICK: Duration = Duration::from_millis(2);

/// What to simulate.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Session {
    Practice,
    Qualifying,
    Sprint,
    Race,
    /// Practice, qualifying and race.
    Weekend,
}

/// How much rain there is to be.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Sky {
    Dry,
    /// A shower one day in six.
    Chance,
    /// A shower twenty minutes after the start.
    Shower,
    Wet,
}

/// Simulate a race weekend: the messages that the live feed would have sent about it.
#[derive(clap::Args)]
pub struct Args {
    /// Which circuit; see --list-circuits.
    #[arg(long, value_name = "NAME", default_value = CIRCUITS[0].name, value_parser = circuit)]
    circuit: &'static Circuit,
    /// List the circuits.
    #[arg(long)]
    list_circuits: bool,
    #[arg(long, value_enum, default_value = "race")]
    session: Session,
    /// Laps of the race; the circuit's own by default.
    #[arg(long, value_name = "N")]
    laps: Option<u16>,
    /// Length of practice, or of all parts of qualifying together.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u16>,
    /// The same seed gives the same bytes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[arg(long, value_name = "N", default_value_t = 20)]
    cars: u8,
    /// Faults on the line: 0 none, 1 as on the real feed.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    dirt: f64,
    #[arg(long, value_enum, default_value = "chance")]
    rain: Sky,
    /// Adds high-rate frames, this many samples a second (50 to 1000).
    #[arg(long, value_name = "HZ")]
    rate: Option<u32>,
    /// Time of the start, less a minute; now where it is published, else by the seed.
    #[arg(long, value_name = "TIME")]
    start: Option<Time>,
    /// How fast to publish: a factor of real time, or `max`.
    #[arg(
        long,
        value_name = "N|max",
        default_value = "1",
        conflicts_with = "out"
    )]
    speed: Pace,
    /// Write a recording; compressed if the name ends in .zst.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mqtt", "zenoh"])]
    out: Option<PathBuf>,
    /// Publish to this broker at QoS 1.
    #[arg(long, value_name = "URL", conflicts_with = "zenoh")]
    mqtt: Option<String>,
    /// Publish to this Zenoh locator, such as `tcp/127.0.0.1:7447`.
    #[arg(long, value_name = "LOCATOR")]
    zenoh: Option<String>,
}

pub fn circuit(name: &str) -> Result<&'static Circuit, String> {
    Circuit::named(name).ok_or_else(|| {
        let names: Vec<&str> = CIRCUITS.iter().map(|c| c.name).collect();
        format!("the circuits are {}", names.join(", "))
    })
}

impl Args {
    fn options(&self) -> Options {
        let published = self.mqtt.is_some() || self.zenoh.is_some();
        Options {
            programme: match self.session {
                Session::Practice => Programme::Only(SessionKind::Practice),
                Session::Qualifying => Programme::Only(SessionKind::Qualifying),
                Session::Sprint => Programme::Only(SessionKind::Sprint),
                Session::Race => Programme::Only(SessionKind::Race),
                Session::Weekend => Programme::Weekend,
            },
            laps: self.laps,
            minutes: self.minutes,
            seed: self.seed,
            cars: self.cars,
            dirt: self.dirt,
            rain: match self.rain {
                Sky::Dry => Rain::Dry,
                Sky::Chance => Rain::Chance,
                Sky::Shower => Rain::ShowerAt(20.0),
                Sky::Wet => Rain::Wet,
            },
            start: self.start.or_else(|| published.then(now)),
            frames: self.rate.map(FrameOptions::at),
            ..Options::new(self.circuit)
        }
    }
}

/// The present, to the second.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time::from_millis(since.map_or(0, |d| d.as_secs() as i64) * 1000)
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.list_circuits {
        for c in &CIRCUITS {
            say!(
                "{:<14} {}, {}: {} laps",
                c.name,
                c.location,
                c.country_name,
                c.laps
            );
        }
        return Ok(());
    }
    let simulator = Simulator::new(args.options())?;
    let progress = Bar::new();
    match (&args.out, &args.mqtt, &args.zenoh) {
        (Some(path), _, _) => record(simulator, path, progress),
        (None, None, None) => {
            bail!("nowhere to go: name --out FILE, --mqtt URL or --zenoh LOCATOR")
        }
        (None, mqtt, zenoh) => tokio::runtime::Runtime::new()?.block_on(async {
            let stop = CancellationToken::new();
            let interrupted = stop.clone();
            tokio::spawn(async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    interrupted.cancel();
                }
            });
            let paced = Paced::start(simulator, args.speed, stop, progress);
            match (mqtt, zenoh) {
                (Some(url), _) => to_broker(paced, &Broker::at(url)).await,
                (None, Some(locator)) => to_zenoh(paced, &Network::towards(locator)).await,
                (None, None) => Ok(()),
            }
        }),
    }
}

/// Writes a recording.
fn record(simulator: Simulator, path: &Path, mut progress: Bar) -> anyhow::Result<()> {
    let mut writer = recording::Writer::create(path)?;
    let wrong = || format!("{} cannot be written", path.display());
    for message in simulator {
        writer
            .write(message.t, &message.topic, &message.payload)
            .with_context(wrong)?;
        progress.count(message.t);
    }
    writer.finish().with_context(wrong)?;
    progress.finish(&format!("in {}", path.display()));
    Ok(())
}

/// A simulator whose messages come when they are due.
pub struct Paced {
    batches: mpsc::Receiver<Vec<Emitted>>,
    batch: std::vec::IntoIter<Emitted>,
    pace: Pace,
    /// When the first message was handed out, and its time.
    began: Option<(Instant, Time)>,
    stop: CancellationToken,
    progress: Bar,
}

impl Paced {
    /// Simulates ahead, on a thread of its own, by a few thousand messages at most. Needs a runtime.
    pub fn start(
        simulator: Simulator,
        pace: Pace,
        stop: CancellationToken,
        progress: Bar,
    ) -> Paced {
        let (to, batches) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut simulator = simulator;
            loop {
                let batch: Vec<Emitted> = simulator.by_ref().take(BATCH).collect();
                if batch.is_empty() || to.blocking_send(batch).is_err() {
                    break;
                }
            }
        });
        let batch = Vec::new().into_iter();
        Paced {
            batches,
            batch,
            pace,
            began: None,
            stop,
            progress,
        }
    }

    /// The next message, when it is due; `None` at the end or when told to stop.
    async fn next(&mut self) -> Option<Emitted> {
        let message = loop {
            if self.stop.is_cancelled() {
                return None;
            }
            match self.batch.next() {
                Some(message) => break message,
                None => self.batch = self.batches.recv().await?.into_iter(),
            }
        };
        let (began, first) = *self.began.get_or_insert((Instant::now(), message.t));
        if let Pace::Times(times) = self.pace {
            let due = Duration::try_from_secs_f64(message.t.seconds_since(first) / times);
            let due = began + due.unwrap_or_default();
            if due > Instant::now() + TICK {
                tokio::select! {
                    () = tokio::time::sleep_until(due.into()) => {}
                    () = self.stop.cancelled() => return None,
                }
            }
        }
        self.progress.count(message.t);
        Some(message)
    }
}

/// Publishes at QoS 1 until the simulation ends and the broker has acknowledged all of it.
pub async fn to_broker(mut paced: Paced, broker: &Broker) -> anyhow::Result<()> {
    broker.validate()?;
    let (to, publications) = mpsc::channel(QUEUE);
    let (told, progress) = watch::channel(outbox::Progress::default());
    let client_id = broker.client_id_for(&format!("simulate-{}", std::process::id()));
    let stop = paced.stop.child_token();
    let _stopping = stop.clone().drop_guard();
    let mut outbox = tokio::spawn({
        let broker = broker.clone();
        async move { outbox::run(&broker, &client_id, None, publications, told, stop).await }
    });
    while let Some(message) = paced.next().await {
        let publication = Publication {
            topic: message.topic,
            payload: message.payload,
            qos: 1,
            retain: false,
            place: None,
        };
        tokio::select! {
            biased;
            sent = to.send(publication) => if sent.is_err() { break },
            ended = &mut outbox => {
                ended?;
                let error = progress.borrow().last_error.clone().unwrap_or_default();
                bail!("{}: {error}", broker.url);
            }
        }
    }
    drop(to);
    outbox.await?;
    let end = progress.borrow().clone();
    if end.rejected || end.refused > 0 {
        let why = end.last_refusal.or(end.last_error).unwrap_or_default();
        bail!("{}: {} messages refused: {why}", broker.url, end.refused);
    }
    paced.progress.finish(&format!(
        "to {}, {} acknowledged",
        broker.url, end.delivered
    ));
    Ok(())
}

/// Puts into a Zenoh network, waiting where it is congested, until the simulation ends.
pub async fn to_zenoh(mut paced: Paced, network: &Network) -> anyhow::Result<()> {
    let session = network.open().await?;
    while let Some(message) = paced.next().await {
        session
            .put(&*message.topic, message.payload)
            .congestion_control(CongestionControl::Block)
            .await
            .map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    crate::ingest::zenoh::taken(&session).await;
    session.close().await.map_err(|e| anyhow::anyhow!("{e}"))?;
    paced.progress.finish("to Zenoh");
    Ok(())
}

/// Shows how far it has come.
pub struct Bar {
    bar: ProgressBar,
    quiet: bool,
    messages: u64,
    shown: Instant,
    told: Option<Box<dyn FnMut(u64) + Send>>,
}

impl Bar {
    /// None to be seen: `told` hears instead how many messages were handed out. The next one waits
    /// until it returns.
    #[cfg(feature = "demo")]
    pub fn telling(told: impl FnMut(u64) + Send + 'static) -> Bar {
        Bar {
            told: Some(Box::new(told)),
            ..Bar::hidden()
        }
    }

    pub fn new() -> Bar {
        let style =
            ProgressStyle::with_template("{spinner} {human_pos} messages  {per_sec}  {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        Bar {
            bar: ProgressBar::new_spinner().with_style(style),
            quiet: false,
            messages: 0,
            shown: Instant::now(),
            told: None,
        }
    }

    /// One that shows nothing.
    #[cfg(feature = "demo")]
    pub fn hidden() -> Bar {
        Bar {
            bar: ProgressBar::hidden(),
            quiet: true,
            messages: 0,
            shown: Instant::now(),
            told: None,
        }
    }

    fn count(&mut self, at: Time) {
        self.messages += 1;
        if self.shown.elapsed() >= SHOW_EVERY {
            self.shown = Instant::now();
            self.bar.set_position(self.messages);
            self.bar.set_message(at.to_string());
            if let Some(told) = &mut self.told {
                told(self.messages);
            }
        }
    }

    fn finish(&self, what: &str) {
        self.bar.finish_and_clear();
        if !self.quiet {
            say!("{} messages {what}", self.messages);
        }
    }
}
