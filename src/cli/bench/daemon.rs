//! `trackside bench daemon`: how large it is, how quickly it starts, how much memory a race leaves, and how long a
//! restart after it takes until the whole race is in the state again (`recover_s`), with the models that it found.
//!
//! The baseline of the start: the same binary run only to say its version.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::child::{Broker, Daemon, Wired};
use super::feed;
use super::median;
use super::publisher::{Packets, Publisher};

/// Starts that are timed.
const STARTS: usize = 20;
/// Most messages of a race: more than any has.
const MESSAGES: usize = 4_000_000;
/// Messages that are made ready and published at a time.
const PORTION: usize = 50_000;
/// How long what was published may take to be folded.
const SETTLE: Duration = Duration::from_secs(3);
/// Between two looks at the journal that grows.
const LOOK: Duration = Duration::from_millis(500);
/// How long a restart may take until the race is there again, and between two looks at it.
const RECOVERED: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Measures the daemon.
///
/// # Errors
/// If a process cannot be started or does not do its part.
pub fn run(recording: Option<&Path>) -> anyhow::Result<Value> {
    let mut starts = Vec::new();
    let mut versions = Vec::new();
    for _ in 0..STARTS {
        let scratch = tempfile::tempdir()?;
        let wired = Wired {
            broker: None,
            publishes: false,
        };
        let daemon = Daemon::start(scratch.path(), wired)?;
        starts.push(daemon.started_in().as_secs_f64() * 1e3);
        let began = Instant::now();
        Command::new(std::env::current_exe()?)
            .arg("--version")
            .stdout(Stdio::null())
            .status()?;
        versions.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let binary = std::fs::metadata(std::env::current_exe()?)?.len();

    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let wired = Wired {
        broker: Some(&broker),
        publishes: true,
    };
    let daemon = Daemon::start(scratch.path(), wired)?;
    let idle = daemon.memory("VmRSS")?;
    let mut publisher = Publisher::connect(&broker)?;
    let messages = feed::messages(recording, MESSAGES)?;
    let began = Instant::now();
    for portion in messages.chunks(PORTION) {
        let mut packets = Packets::default();
        for message in portion {
            packets.push(&message.topic, &message.payload)?;
        }
        publisher.publish(&packets, 0..packets.len())?;
    }
    let count = messages.len();
    drop(messages);
    // Not all become records: the end is when no more come.
    let records =
        || Ok::<f64, anyhow::Error>(daemon.metrics()?.sum("trackside_journal_records_total", ""));
    let (mut so_far, mut elapsed_s) = (records()?, began.elapsed().as_secs_f64());
    loop {
        std::thread::sleep(LOOK);
        let now = records()?;
        if now > so_far {
            (so_far, elapsed_s) = (now, began.elapsed().as_secs_f64());
        } else if began.elapsed().as_secs_f64() > elapsed_s + SETTLE.as_secs_f64() {
            break;
        }
    }
    let (after_race, peak, cpu_s) = (
        daemon.memory("VmRSS")?,
        daemon.memory("VmHWM")?,
        daemon.cpu_s()?,
    );
    let next = state(&daemon)?;
    drop(daemon);
    let began = Instant::now();
    let unwired = Wired {
        broker: None,
        publishes: false,
    };
    let again = Daemon::start(scratch.path(), unwired)?;
    let ready_ms = again.started_in().as_secs_f64() * 1e3;
    while state(&again)? < next {
        ensure!(
            began.elapsed() < RECOVERED,
            "not recovered within {RECOVERED:?}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
    let recover_s = began.elapsed().as_secs_f64();
    let health: Value = serde_json::from_str(&again.get("/health")?)?;
    Ok(json!({
        "daemon": {
            "start_to_ready_ms": median(&mut starts),
            "restart": {
                "ready_ms": ready_ms,
                "recover_s": recover_s,
                "predictor": health["predictor"]["model"],
                "resident_bytes": again.memory("VmRSS")?,
            },
            "binary_bytes": binary,
            "resident_bytes": {
                "idle": idle,
                "after_race": after_race,
                "peak": peak,
            },
            "race": {
                "messages": count,
                "records": so_far,
                "elapsed_s": elapsed_s,
                "cpu_s": cpu_s,
            },
        },
        "baseline": { "start_and_say_version_ms": median(&mut versions) },
    }))
}

/// The sequence that its state has come to.
fn state(daemon: &Daemon) -> anyhow::Result<u64> {
    let state: Value = serde_json::from_str(&daemon.get("/api/v1/state")?)?;
    state["seq"].as_u64().context("a state without a sequence")
}
