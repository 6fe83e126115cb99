//! `trackside replay`: a recording through the whole pipeline in this process, or to a broker.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::say::{note, say};
use crate::engines::Chosen;
use crate::ingest::Message;
use crate::ingest::mqtt::Broker;
use crate::ingest::recording;
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
    #[arg(long, value_name = "DIR|none", default_value = "", conflicts_with_all = ["mqtt", "zenoh"])]
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
    let bar = spinner();
    let mut tell = |p: replay::Progress| {
        bar.set_position(p.messages);
        if let Some(at) = p.at {
            bar.set_message(at.to_string());
        }
    };
    let reader = recording::Reader::open(&args.file)?;
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
    bar.finish_and_clear();
    let rate = summary.messages as f64 / summary.elapsed_s.max(1e-9);
    say!(
        "{} messages in {:.1} s ({rate:.0}/s)",
        summary.messages,
        summary.elapsed_s
    );
    if let Some(fault) = &summary.first_fault {
        say!(
            "{} lines were no messages; the first: {fault}",
            summary.skipped
        );
    }
    Ok(())
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} messages  {per_sec}  {msg}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
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
}

impl<'a> Summary<'a> {
    fn new(live: &'a Live, tally: &'a Tally) -> Summary<'a> {
        let race = live.race();
        Summary {
            session_key: race.session.key,
            records: tally,
            classification: race.classification(),
            stints: race.stint_rows(),
            pits: race.pit_rows(),
            track_status: race.track_status_history(),
            scores: live.scores(),
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

    let bar = spinner();
    let mut schedule = Schedule::new(args.speed);
    let (mut waiting, mut skipped) = (0, 0_u64);
    for recorded in recording::Reader::open(&args.file)? {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(e) if e.is_of_one_line() => {
                skipped += 1;
                note!("{}: {e}", args.file.display());
                continue;
            }
            Err(e) => return Err(e).context(args.file.display().to_string()),
        };
        let pause = schedule.pause_before(recorded.at);
        if waiting == COMMIT_MESSAGES || (waiting > 0 && !pause.is_zero()) {
            advance(&mut writer, &mut live, &reader, predictions.as_mut())?;
            bar.inc(waiting as u64);
            bar.set_message(recorded.at.to_string());
            waiting = 0;
        }
        std::thread::sleep(pause);
        writer.absorb(&mut Message {
            topic: recorded.topic,
            payload: recorded.payload,
            received: Instant::now(),
            ack: None,
        });
        waiting += 1;
    }
    advance(&mut writer, &mut live, &reader, predictions.as_mut())?;
    if let Some(mut file) = predictions {
        file.flush()?;
    }
    bar.finish_and_clear();

    {
        let tally = writer.tally();
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &args.summary {
            let mut file = create(path)?;
            serde_json::to_writer_pretty(&mut file, &Summary::new(&live, &tally))?;
            file.flush()?;
        }
        print_result(&live, &tally, skipped);
    }
    live.close()?;
    writer.close()?;
    Ok(())
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
