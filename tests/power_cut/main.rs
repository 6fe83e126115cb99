//! A power cut takes nothing that was acknowledged.
//!
//! The daemon runs for real, under `strace`, which writes down every system call that touches a file or a
//! socket, with its bytes. [`replay`] plays the recording onto a model of a disk with a cache that is lost
//! ([`disk`]), cuts the power at many moments and builds, for each, several folders that the machine could
//! wake up to. On each, `trackside journal` must open without help and hold every record exactly once
//! whose PUBACK had begun to leave. [`toy`] holds programs that get it wrong, so that this test is known to
//! notice.
//!
//! What the model leaves out: bytes that nobody wrote (a sector that comes back as garbage or fails to
//! read) and a drive that lies about its flushes.
//!
//! `TRACKSIDE_POWER_CUTS` sets how many moments are cut in the daemon's recording,
//! `TRACKSIDE_POWER_CUT_SEED` the seed; both are printed.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

mod disk;
mod replay;
#[path = "../support/mod.rs"]
mod support;
mod toy;
mod trace;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use disk::Outcome;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replay::Replay;
use support::{
    Broker, BrokerOptions, Daemon, Publisher, Recording, Scratch, mqtt_source, wait_for,
};
use toy::Toy;
use trace::Trace;

/// Disks built per moment for each outcome that rolls dice.
const SEEDS_PER_RANDOM_OUTCOME: u64 = 2;
/// Differences that a report spells out; the rest is counted.
const MAX_SPELT_OUT: usize = 10;
/// Moments cut in a toy's recording.
const TOY_CUTS: usize = 150;
/// Messages that a toy takes.
const TOY_MESSAGES: usize = 40;
/// Moments cut in the daemon's recording, unless the environment says otherwise.
const DAEMON_CUTS: usize = 60;
/// Messages that the daemon takes while it is recorded.
const DAEMON_MESSAGES: usize = 3000;
/// Its segments' size (bytes): a few in the run.
const SEGMENT_BYTES: u64 = 64 * 1024;
/// The daemon itself is started again on every so many disks; the others are only read.
const DISKS_PER_RESTART: usize = 8;
const DAEMON_READY_WITHIN: Duration = Duration::from_secs(180);
const DAEMON_ACKNOWLEDGES_WITHIN: Duration = Duration::from_secs(180);

/// What came of many power cuts.
#[derive(Debug, Default)]
struct Report {
    moments: usize,
    disks: usize,
    /// Most records that were acknowledged before any of the cuts.
    most_acknowledged: usize,
    /// Disks on which something was wrong.
    bad_disks: usize,
    wrongs: Vec<String>,
}

/// Cuts the power at up to `cuts` moments of a recording and asks `survivors` what is on each disk.
/// `identity` names a payload in both what was acknowledged and what survived.
fn cut_the_power(
    trace: &Trace,
    root: &Path,
    cuts: usize,
    seed: u64,
    identity: impl Fn(&[u8]) -> String,
    mut survivors: impl FnMut(&Path) -> Result<Vec<Vec<u8>>, String>,
) -> Result<Report, String> {
    let root = root.to_str().ok_or("the folder's path is not UTF-8")?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut replay = Replay::new(trace, root);
    let mut moments: Vec<usize> = (0..trace.moments.len())
        .filter(|m| replay.is_worth_a_cut(*m))
        .collect();
    moments.shuffle(&mut rng);
    moments.truncate(cuts);
    moments.push(trace.moments.len());
    moments.sort_unstable();

    let mut report = Report::default();
    for moment in moments {
        replay.play_until(moment)?;
        report.moments += 1;
        let acknowledged: Vec<String> = replay.acknowledged().iter().map(|p| identity(p)).collect();
        report.most_acknowledged = report.most_acknowledged.max(acknowledged.len());
        for outcome in Outcome::ALL {
            let seeds = if outcome.is_random() {
                SEEDS_PER_RANDOM_OUTCOME
            } else {
                1
            };
            for _ in 0..seeds {
                let disk_seed = rng.random();
                let mut dice = ChaCha8Rng::seed_from_u64(disk_seed);
                let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
                replay
                    .disk
                    .after_power_cut(outcome, &mut dice, folder.path())
                    .map_err(|e| e.to_string())?;
                report.disks += 1;
                let wrong = match survivors(folder.path()) {
                    Err(error) => Some(error),
                    Ok(found) => compare(&acknowledged, found.iter().map(|p| identity(p))),
                };
                if let Some(wrong) = wrong {
                    report.bad_disks += 1;
                    if report.wrongs.len() < MAX_SPELT_OUT {
                        report.wrongs.push(format!(
                            "moment {moment}, {outcome:?}, disk seed {disk_seed}: {wrong}"
                        ));
                    }
                }
            }
        }
    }
    Ok(report)
}

/// Everything acknowledged, exactly once; what was not acknowledged may be there too, but not twice.
fn compare(acknowledged: &[String], found: impl Iterator<Item = String>) -> Option<String> {
    let mut times: HashMap<String, usize> = HashMap::new();
    for identity in found {
        *times.entry(identity).or_default() += 1;
    }
    let lost: Vec<&String> = acknowledged
        .iter()
        .filter(|a| !times.contains_key(*a))
        .collect();
    let twice: Vec<&String> = times
        .iter()
        .filter_map(|(identity, times)| (*times > 1).then_some(identity))
        .collect();
    (!lost.is_empty() || !twice.is_empty()).then(|| {
        format!(
            "{} of {} acknowledged are lost (first: {:?}), {} are there more than once (one: {:?})",
            lost.len(),
            acknowledged.len(),
            lost.first(),
            twice.len(),
            twice.first()
        )
    })
}

/// Runs a command under strace, which records it into `output`.
fn traced(command: &Command, output: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-yy", "-xx", "-s", "16777216", "--seccomp-bpf"])
        .args(["-e", "signal=none", "-e"])
        .arg(format!("trace={}", trace::RECORDED.replace(' ', "")))
        .arg("-o")
        .arg(output)
        .arg(command.get_program())
        .args(command.get_args())
        // Paths relative to the working directory are taken to be relative to the root.
        .current_dir("/");
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            strace.env(key, value);
        }
    }
    strace
}

fn read_trace(path: &Path) -> Trace {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|e| panic!("strace wrote nothing to {}: {e}", path.display()));
    Trace::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The toy's own process: this test program, asked for this one test, with these in its environment.
const TOY: &str = "TRACKSIDE_TOY";
const TOY_FOLDER: &str = "TRACKSIDE_TOY_FOLDER";
const TOY_BROKER: &str = "TRACKSIDE_TOY_BROKER";

#[test]
fn a_toy_if_it_is_asked_for() {
    let Ok(name) = std::env::var(TOY) else { return };
    let toy = Toy::named(&name).unwrap();
    let folder = std::env::var(TOY_FOLDER).unwrap();
    let broker = std::env::var(TOY_BROKER).unwrap();
    toy.run(Path::new(&folder), &broker, TOY_MESSAGES).unwrap();
}

/// Records a toy, feeding it messages of growing length one by one.
fn record_toy(toy: Toy, folder: &Path, output: &Path) -> Trace {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "a_toy_if_it_is_asked_for", "--nocapture"])
        .env(TOY, format!("{toy:?}"))
        .env(TOY_FOLDER, folder)
        .env(TOY_BROKER, listener.local_addr().unwrap().to_string());
    let mut child = traced(&command, output)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("strace must be installed");
    let (mut socket, _) = listener.accept().unwrap();
    for number in 0..TOY_MESSAGES {
        let payload = format!("{number}:{}", "payload ".repeat(number * 8));
        let id = u16::try_from(number + 1).unwrap();
        socket
            .write_all(&support::publish_packet("toy", id, payload.as_bytes()))
            .unwrap();
        let mut ack = [0; 4];
        socket.read_exact(&mut ack).unwrap();
        assert_eq!(ack, support::mqtt::puback_packet(id));
    }
    assert!(child.wait().unwrap().success(), "{toy:?} failed");
    read_trace(output)
}

#[test]
fn the_wrong_toys_are_caught_and_the_sound_ones_are_not() {
    for toy in Toy::ALL {
        let folder = tempfile::tempdir().unwrap();
        let output = tempfile::NamedTempFile::new().unwrap();
        let trace = record_toy(toy, folder.path(), output.path());
        let identity = |p: &[u8]| String::from_utf8_lossy(p).into_owned();
        let report = cut_the_power(&trace, folder.path(), TOY_CUTS, 1, identity, toy::survivors)
            .unwrap_or_else(|e| panic!("{toy:?}: {e}"));
        println!(
            "{toy:?}: {} moments, {} disks, {} bad",
            report.moments, report.disks, report.bad_disks
        );
        assert_eq!(report.most_acknowledged, TOY_MESSAGES, "{toy:?}");
        if toy.is_sound() {
            assert_eq!(report.bad_disks, 0, "{toy:?}: {:#?}", report.wrongs);
        } else {
            assert!(report.bad_disks > 0, "{toy:?} was not caught");
        }
    }
}

#[test]
fn what_the_replay_cannot_follow_is_refused() {
    let refused = [
        "1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d/a>, 0) = 0x7f0000000000\n",
        "1 io_uring_setup(8, {}) = 5\n",
        "1 pwrite64(3</d/a>, \"\\x61\", 1, 0) = 1\n",
        "1 openat(AT_FDCWD</>, \"\\x2f\\x64\\x2f\\x61\", O_RDWR) = 3</d/a>\n",
        "1 copy_file_range(4</e>, NULL, 3</d/a>, NULL, 10, 0) = 10\n",
        "1 execve(\"\\x61\", [], 0x0) = 0\n1 execve(\"\\x61\", [], 0x0) = 0\n",
    ];
    for text in refused {
        let trace = Trace::parse(text).unwrap();
        let played = Replay::new(&trace, "/d").play_until(usize::MAX);
        assert!(played.is_err(), "{text}");
    }
}

#[test]
fn sync_file_range_makes_nothing_sure() {
    let text = "1 openat(AT_FDCWD</>, \"\\x2f\\x64\", O_RDONLY|O_DIRECTORY) = 4</d>\n\
        1 openat(AT_FDCWD</>, \"\\x2f\\x64\\x2f\\x61\", O_RDWR|O_CREAT, 0644) = 3</d/a>\n\
        1 fsync(4</d>) = 0\n\
        1 write(3</d/a>, \"\\x61\\x62\", 2) = 2\n\
        1 sync_file_range(3</d/a>, 0, 2, SYNC_FILE_RANGE_WRITE) = 0\n\
        1 fsync(3</d/a>) = -1 EIO (Input/output error)\n\
        1 fdatasync(3</d/a>) = 0\n";
    let trace = Trace::parse(text).unwrap();
    let mut replay = Replay::new(&trace, "/d");
    let mut left = |until| {
        replay.play_until(until).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        replay
            .disk
            .after_power_cut(Outcome::Nothing, &mut dice, folder.path())
            .unwrap();
        std::fs::read(folder.path().join("a")).unwrap()
    };
    assert_eq!(
        left(12),
        b"",
        "after sync_file_range and a sync that failed"
    );
    assert_eq!(left(14), b"ab", "after a sync that came back well");
}

/// A number from the environment.
fn from_environment<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    match std::env::var(name) {
        Err(_) => otherwise,
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    }
}

/// `_id` names a message of a recording.
fn message_id(payload: &[u8]) -> String {
    match support::version(payload) {
        Ok((_, Some(id))) => id.to_string(),
        other => panic!(
            "no _id ({other:?}) in {:.200}",
            String::from_utf8_lossy(payload)
        ),
    }
}

#[test]
fn a_power_cut_takes_nothing_that_the_daemon_acknowledged() {
    let Some(path) = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let cuts = from_environment("TRACKSIDE_POWER_CUTS", DAEMON_CUTS);
    let seed = from_environment("TRACKSIDE_POWER_CUT_SEED", rand::random());
    println!("TRACKSIDE_POWER_CUTS={cuts} TRACKSIDE_POWER_CUT_SEED={seed}");

    let scratch = Scratch::new();
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let home = scratch.join("daemon");
    std::fs::create_dir(&home).unwrap();
    let output = scratch.join("strace");
    // Small segments, so that the cuts also fall on the making of new ones.
    let sections = format!(
        "[journal]\nsegment_bytes = {SEGMENT_BYTES}\n{}",
        mqtt_source(&broker, "power-cut")
    );
    let daemon = Daemon::start_wrapped(&home, &sections, DAEMON_READY_WITHIN, |command| {
        (traced(&command, &output), true)
    });
    daemon.wait_connected(DAEMON_READY_WITHIN);
    let publisher = Publisher::connect(&broker, "power-cut-publisher");
    for message in Recording::open(&path).take(DAEMON_MESSAGES) {
        publisher.publish(&message.topic, message.payload);
    }
    publisher.wait_accepted(DAEMON_MESSAGES, DAEMON_ACKNOWLEDGES_WITHIN);
    wait_for(
        "every message to be durable",
        DAEMON_ACKNOWLEDGES_WITHIN,
        || {
            let health = daemon.json("/health");
            let durable = health["journal"]["durable_seq"].as_u64()?;
            // Under strace the acknowledgements come well behind.
            let acknowledged = health["sources"][0]["acknowledged"].as_u64()?;
            (durable.min(acknowledged) >= DAEMON_MESSAGES as u64).then_some(())
        },
    );
    // As it would be found: not asked to stop.
    daemon.kill();

    let trace = read_trace(&output);
    let root = Daemon::data_in(&home);
    let mut disks = 0;
    let report = cut_the_power(&trace, &root, cuts, seed, message_id, |disk| {
        disks += 1;
        if disks % DISKS_PER_RESTART == 0 {
            // On a copy, whose logs stay if it does not come up: recovery writes, and no source may add.
            let home = scratch.join(&format!("restart-{disks}"));
            copy_folder(disk, &Daemon::data_in(&home)).map_err(|e| e.to_string())?;
            Daemon::start(&home, "", DAEMON_READY_WITHIN).kill();
            let recovered = payloads(&Daemon::data_in(&home))?;
            std::fs::remove_dir_all(&home).map_err(|e| e.to_string())?;
            return Ok(recovered);
        }
        payloads(disk)
    })
    .unwrap();
    println!(
        "{} moments, {} disks, up to {} acknowledged, {} bad disks",
        report.moments, report.disks, report.most_acknowledged, report.bad_disks
    );
    // The last PUBACKs may not have left before the kill; but it must have been a real run.
    assert!(report.most_acknowledged > DAEMON_MESSAGES / 2);
    assert_eq!(report.bad_disks, 0, "seed {seed}: {:#?}", report.wrongs);
}

/// Every record in a data folder, as its payload. A power cut is no damage: none may be named.
fn payloads(data: &Path) -> Result<Vec<Vec<u8>>, String> {
    if data.join("records").is_dir() {
        Daemon::verify(data)?;
    }
    let found = Daemon::export(data)?;
    Ok(found.into_iter().map(|r| r.payload.into_bytes()).collect())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
