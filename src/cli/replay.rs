//! `trackside replay`: a recording through the whole pipeline in this process, or to a broker.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::say::{note, say};
use crate::engines::Chosen;
use crate::ingest::Message;
use crate::ingest::mqtt::Broker;
use crate::ingest::recording::{self, Meter};
use crate::ingest::replay::{self, Pace};
use crate::ingest::tally::Tally;
use crate::ingest::writer::{CommitOptions, Writer};
use crate::ingest::zenoh::Network;
use crate::journal::{self, Journal};
use crate::live::Live;
use crate::predict::floor::Floor;
use crate::predict::{Predictor, Scores};
use crate::race::{ClassificationRow, PitRow, StatusChange, StintRow};
use crate::record::Time;

/// Lines that were no messages and are spelt out; further ones are counted.
const MAX_SPELT_OUT: u64 = 5;

/// Messages between two commits when replaying through this process.
const COMMIT_MESSAGES: usize = 8_192;

/// Replay a recording: NDJSON, optionally zstd, `{"t": receive time, "topic": …, "payload": …}` a
/// line.
#[derive(clap::Args)]
pub struct Args {
    /// The recording.
    file: PathBuf,
    /// How fast: a factor of real time, or `max`.
    #[arg(long, default_value = "max", value_name = "N|max")]
    speed: Pace,
    /// Publish to this broker (QoS 1; done when every message is acknowledged).
    #[arg(long, value_name = "URL", conflicts_with_all = ["zenoh", "offline"])]
    mqtt: Option<String>,
    /// Publish to this Zenoh locator, such as `tcp/127.0.0.1:7447`.
    #[arg(long, value_name = "LOCATOR", conflicts_with = "offline")]
    zenoh: Option<String>,
    /// Through journal, state and predictions in this process (the default).
    #[arg(long)]
    offline: bool,
    /// Publish as CBOR instead of JSON.
    #[arg(long)]
    cbor: bool,
    /// Write each prediction as a line of JSON.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mqtt", "zenoh"])]
    predictions: Option<PathBuf>,
    /// Write counts, classification, stints, stops and track status as JSON.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mqtt", "zenoh"])]
    summary: Option<PathBuf>,
    /// Keep the journals in this data directory instead of a temporary one.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["mqtt", "zenoh"])]
    data: Option<PathBuf>,
    /// Folder of the models, or `none` for the statistical floor alone.
    #[arg(long, value_name = "DIR|none", default_value = "", hide_default_value = true, conflicts_with_all = ["mqtt", "zenoh"])]
    engines: Chosen,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.mqtt.is_none() && args.zenoh.is_none() {
        return offline(args);
    }
    tokio::runtime::Runtime::new()?.block_on(publish(args))
}

async fn publish(args: &Args) -> anyhow::Result<()> {
    let options = replay::Options {
        pace: args.speed,
        cbor: args.cbor,
    };
    let stop = CancellationToken::new();
    let on_interrupt = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.cancel();
        }
    });
    let reader = recording::Reader::open(&args.file)?;
    let bar = Bar::of(&reader);
    let mut tell = |p: replay::Progress| {
        if let Some(fault) = &p.fault {
            note!("{fault}; trying again");
        }
        bar.show(p.messages, p.at);
    };
    let summary = match (&args.mqtt, &args.zenoh) {
        (Some(url), _) => {
            let broker = Broker {
                url: url.clone(),
                ..Broker::default()
            };
            replay::publish_mqtt(reader, options, &broker, &stop, &mut tell).await?
        }
        (None, Some(locator)) => {
            let network = Network::towards(locator.clone());
            replay::publish_zenoh(reader, options, &network, &stop, &mut tell).await?
        }
        (None, None) => unreachable!("checked by the caller"),
    };
    bar.finish();
    if let Some(fault) = &summary.first_fault {
        note!(
            "{} lines were no messages; the first: {fault}",
            summary.skipped
        );
    }
    if summary.stopped {
        let arrived = summary.delivered.unwrap_or(summary.messages);
        let (read, what) = (summary.messages, arrival(&summary));
        bail!("interrupted: {arrived} of the {read} messages that were read were {what}");
    }
    something(&args.file, summary.messages, summary.skipped)?;
    let rate = summary.messages as f64 / summary.elapsed_s.max(1e-9);
    say!(
        "{} messages {} in {:.1} s ({rate:.0}/s)",
        summary.messages,
        arrival(&summary),
        summary.elapsed_s
    );
    Ok(())
}

/// What became of the messages: over MQTT it is known that they arrived.
const fn arrival(summary: &replay::Summary) -> &'static str {
    match summary.delivered {
        Some(_) => "acknowledged",
        None => "put",
    }
}

/// Refuses what held no message at all: it is hardly what was meant.
fn something(file: &Path, messages: u64, skipped: u64) -> anyhow::Result<()> {
    if messages > 0 {
        return Ok(());
    }
    let file = file.display();
    match skipped {
        0 => bail!("{file} is empty; a recording has one message a line"),
        _ => bail!(
            "{file} holds no message ({skipped} lines are none); a recording has \
             {{\"t\":…,\"topic\":…,\"payload\":…}} a line, as NDJSON, plain or zstd"
        ),
    }
}

/// How far the recording's file has been read, and when that will be over.
struct Bar {
    bar: ProgressBar,
    meter: Meter,
}

impl Bar {
    fn of(reader: &recording::Reader) -> Bar {
        let meter = reader.meter();
        // A pipe has no length, and so no end that could be told.
        let (length, template) = match meter.of() {
            0 => (None, "{spinner} {msg}  {elapsed}"),
            of => (Some(of), "[{bar:40}] {percent}%  {msg}  {eta} left"),
        };
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar { bar, meter }
    }

    fn show(&self, messages: u64, at: Option<Time>) {
        self.bar.set_position(self.meter.read());
        let at = at.map(|t| t.to_string()).unwrap_or_default();
        self.bar.set_message(format!("{messages} messages  {at}"));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What `--summary` writes.
#[derive(Serialize)]
struct Summary<'a> {
    session_key: Option<i32>,
    records: &'a Tally,
    classification: Vec<ClassificationRow>,
    stints: Vec<StintRow>,
    pits: Vec<PitRow>,
    track_status: &'a [StatusChange],
    scores: &'a Scores,
    /// Why the recording could not be read to its end, where it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<&'a str>,
}

impl<'a> Summary<'a> {
    fn new(live: &'a Live, tally: &'a Tally, incomplete: Option<&'a str>) -> Summary<'a> {
        let race = live.race();
        Summary {
            session_key: race.session.key,
            records: tally,
            classification: race.classification(),
            stints: race.stint_rows(),
            pits: race.pit_rows(),
            track_status: race.track_status_history(),
            scores: live.scores(),
            incomplete,
        }
    }
}

fn offline(args: &Args) -> anyhow::Result<()> {
    let temporary;
    let data = match &args.data {
        Some(data) => data.clone(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_owned()
        }
    };
    let open = |name: &str, options| {
        let dir = data.join(name);
        Journal::open(&dir, options, &mut |_| {})
            .with_context(|| format!("the journal in {} cannot be opened", dir.display()))
    };
    let mut writer = Writer::new(
        open("records", journal::Options::default())?,
        CommitOptions::default(),
    );
    let lazy = journal::Options {
        durability: journal::Durability::Lazy,
        ..journal::Options::default()
    };
    let models = args.engines.load()?;
    let reader = writer.reader();
    let mut live = Live::new(
        &reader,
        Predictor::new(Floor::shipped()).with_models(models),
        open("predictions", lazy)?,
    )?;
    let mut predictions = args.predictions.as_deref().map(create).transpose()?;

    for loss in reader.losses() {
        note!("the journal is damaged: {loss}");
    }
    let recording = recording::Reader::open(&args.file)?;
    let bar = Bar::of(&recording);
    let mut schedule = Schedule::new(args.speed);
    let (mut waiting, mut played, mut skipped) = (0, 0_u64, 0_u64);
    let mut incomplete = None;
    for recorded in recording {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(e) if e.is_of_one_line() => {
                skipped += 1;
                if skipped <= MAX_SPELT_OUT {
                    note!("{}: {e}", args.file.display());
                }
                continue;
            }
            Err(e) => {
                // What was read counts for what it is.
                incomplete = Some(e.to_string());
                break;
            }
        };
        let pause = schedule.pause_before(recorded.at);
        if waiting == COMMIT_MESSAGES || (waiting > 0 && !pause.is_zero()) {
            advance(&mut writer, &mut live, &reader, predictions.as_mut())?;
            bar.show(played, Some(recorded.at));
            waiting = 0;
        }
        std::thread::sleep(pause);
        writer.absorb(&mut Message {
            topic: recorded.topic,
            payload: recorded.payload,
            received: Instant::now(),
            ack: None,
        });
        (waiting, played) = (waiting + 1, played + 1);
    }
    advance(&mut writer, &mut live, &reader, predictions.as_mut())?;
    if let Some(mut file) = predictions {
        file.flush()?;
    }
    bar.finish();
    if skipped > MAX_SPELT_OUT {
        note!(
            "and {} more lines that are no messages",
            skipped - MAX_SPELT_OUT
        );
    }

    {
        let tally = writer.tally();
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &args.summary {
            let mut file = create(path)?;
            let summary = Summary::new(&live, &tally, incomplete.as_deref());
            serde_json::to_writer_pretty(&mut file, &summary)?;
            file.flush()?;
        }
        print_result(&live, &tally, skipped);
    }
    live.close()?;
    writer.finish()?;
    if let Some(fault) = incomplete {
        let file = args.file.display();
        bail!("{file}: {fault}; the {played} messages before it were played");
    }
    something(&args.file, played, skipped)
}

/// When each message of a recording is due.
struct Schedule {
    pace: Pace,
    began: Option<(Instant, Time)>,
}

impl Schedule {
    fn new(pace: Pace) -> Schedule {
        Schedule { pace, began: None }
    }

    fn pause_before(&mut self, at: Time) -> Duration {
        let Pace::Times(times) = self.pace else {
            return Duration::ZERO;
        };
        let (wall, first) = *self.began.get_or_insert((Instant::now(), at));
        let due = at.seconds_since(first).max(0.0) / times;
        Duration::from_secs_f64(due).saturating_sub(wall.elapsed())
    }
}

fn print_result(live: &Live, tally: &Tally, skipped: u64) {
    let race = live.race();
    say!(
        "{:>3} {:>4} {:<4} {:>4}  status",
        "pos",
        "car",
        "name",
        "laps"
    );
    for row in race.classification() {
        let name = race
            .car(row.driver_number)
            .map_or("", |c| c.acronym.as_str());
        say!(
            "{:>3} {:>4} {:<4} {:>4}  {}{}",
            row.position,
            row.driver_number,
            name,
            row.laps,
            row.status,
            if row.penalty_s > 0.0 {
                format!(" (penalty {} s)", row.penalty_s)
            } else {
                String::new()
            }
        );
    }
    say!("{} messages, {skipped} lines skipped", tally.messages());
}

/// Makes durable what was absorbed, folds it, and writes the predictions that it brought.
fn advance(
    writer: &mut Writer,
    live: &mut Live,
    reader: &journal::Reader,
    mut predictions: Option<&mut BufWriter<std::fs::File>>,
) -> anyhow::Result<()> {
    writer.commit()?;
    loop {
        let batch = reader.batch(live.next_seq(), COMMIT_MESSAGES)?;
        if batch.entries.is_empty() {
            return Ok(());
        }
        let folded = live.fold(batch.first_seq, &batch.entries)?;
        if let Some(file) = &mut predictions {
            for prediction in &folded.predictions {
                serde_json::to_writer(&mut **file, prediction)?;
                file.write_all(b"\n")?;
            }
        }
    }
}

fn create(path: &Path) -> anyhow::Result<BufWriter<std::fs::File>> {
    let file = std::fs::File::create(path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(BufWriter::new(file))
}
