//! `trackside bench daemon`: how large it is, how quickly it starts, how much memory a race leaves.
//!
//! The baseline of the start: the same binary run only to say its version.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    Ok(json!({
        "daemon": {
            "start_to_ready_ms": median(&mut starts),
            "binary_bytes": binary,
            "resident_bytes": {
                "idle": idle,
                "after_race": daemon.memory("VmRSS")?,
                "peak": daemon.memory("VmHWM")?,
            },
            "race": {
                "messages": count,
                "records": so_far,
                "elapsed_s": elapsed_s,
                "cpu_s": daemon.cpu_s()?,
            },
        },
        "baseline": { "start_and_say_version_ms": median(&mut versions) },
    }))
}
