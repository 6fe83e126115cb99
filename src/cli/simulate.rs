//! `trackside simulate`: a synthetic session into a recording, to a broker or to a Zenoh network.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::cli::say::{note, say};
use crate::ingest::mqtt::Broker;
use crate::ingest::recording::{self, Recorded};
use crate::ingest::replay::{self, Pace, Source};
use crate::ingest::zenoh::Network;
use crate::record::Time;
use crate::simulator::circuit::{CIRCUITS, Circuit};
use crate::simulator::{Emitted, FrameOptions, Options, Programme, Rain, SessionKind, Simulator};

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);

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
    let mut progress = Bar::new();
    match (&args.out, &args.mqtt, &args.zenoh) {
        (Some(path), _, _) => record(simulator, path, progress),
        (None, None, None) => {
            bail!("nowhere to go: name --out FILE, --mqtt URL or --zenoh LOCATOR")
        }
        (None, mqtt, zenoh) => {
            let options = replay::Options {
                pace: args.speed,
                cbor: false,
            };
            tokio::runtime::Runtime::new()?.block_on(async {
                let stop = CancellationToken::new();
                let interrupted = stop.clone();
                tokio::spawn(async move {
                    if tokio::signal::ctrl_c().await.is_ok() {
                        interrupted.cancel();
                    }
                });
                let source = messages(simulator);
                let mut tell = |p: replay::Progress| progress.show(&p);
                let (done, whereto) = match (mqtt, zenoh) {
                    (Some(url), _) => {
                        let broker = Broker::at(url);
                        let sent = replay::publish_mqtt(source, options, &broker, &stop, &mut tell);
                        (sent.await?, format!("acknowledged by {url}"))
                    }
                    (None, Some(locator)) => {
                        let network = Network::towards(locator);
                        let put =
                            replay::publish_zenoh(source, options, &network, &stop, &mut tell);
                        (put.await?, format!("taken at {locator}"))
                    }
                    (None, None) => return Ok(()),
                };
                progress.finish(done.delivered.unwrap_or(done.messages), &whereto);
                Ok(())
            })
        }
    }
}

/// Writes a recording.
fn record(simulator: Simulator, path: &Path, mut progress: Bar) -> anyhow::Result<()> {
    let mut writer = recording::Writer::create(path)?;
    let wrong = || format!("{} cannot be written", path.display());
    let mut done = replay::Progress::default();
    for message in simulator {
        writer
            .write(message.t, &message.topic, &message.payload)
            .with_context(wrong)?;
        done.messages += 1;
        done.at = Some(message.t);
        done.bytes += message.payload.len() as u64;
        progress.show(&done);
    }
    writer.finish().with_context(wrong)?;
    progress.finish(done.messages, &format!("in {}", path.display()));
    Ok(())
}

/// What the simulator says, as a recording would give it.
pub fn messages(simulator: Simulator) -> impl Source {
    simulator.map(|emitted: Emitted| {
        Ok(Recorded {
            at: emitted.t,
            topic: emitted.topic,
            payload: emitted.payload,
        })
    })
}

/// Shows how far it has come.
struct Bar {
    bar: ProgressBar,
    shown: Instant,
}

impl Bar {
    fn new() -> Bar {
        let style =
            ProgressStyle::with_template("{spinner} {human_pos} messages  {per_sec}  {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        Bar {
            bar: ProgressBar::new_spinner().with_style(style),
            shown: Instant::now(),
        }
    }

    fn show(&mut self, progress: &replay::Progress) {
        if let Some(fault) = &progress.fault {
            note!("{fault}; trying again");
        }
        if self.shown.elapsed() < SHOW_EVERY {
            return;
        }
        self.shown = Instant::now();
        self.bar.set_position(progress.messages);
        if let Some(at) = progress.at {
            self.bar.set_message(at.to_string());
        }
    }

    fn finish(&self, messages: u64, what: &str) {
        self.bar.finish_and_clear();
        say!("{messages} messages {what}");
    }
}
