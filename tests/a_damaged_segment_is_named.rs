//! Damage to a journal is named, put aside and survived.
//!
//! A daemon writes a journal of several segments; copies of it are damaged as disks damage files: flipped
//! bytes, an end that is cut off, an index that is gone or garbage. `trackside journal verify` must name the loss
//! with exit code 1, the daemon must start and serve all the rest, and `trackside journal repair` must leave
//! a journal that is whole but for what is named.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use support::{
    Broker, BrokerOptions, Daemon, Publisher, Recording, Scratch, mqtt_source, trackside, wait_for,
};

/// Small segments, so that there are several.
const SEGMENT_BYTES: u64 = 32 * 1024;
/// Not a multiple of what the tail holds, so that a log is left too.
const MESSAGES: usize = 60_000;
const READY_WITHIN: Duration = Duration::from_secs(180);
const DURABLE_WITHIN: Duration = Duration::from_secs(180);
/// Bytes flipped in one place.
const FLIPPED: usize = 8;
/// Places that are damaged one after the other, each in a fresh copy.
const PLACES: usize = 4;

/// A journal that a daemon wrote, and the payloads in it by sequence number.
struct Written {
    _scratch: Scratch,
    recording: PathBuf,
    data: PathBuf,
    payloads: Vec<String>,
}

fn write() -> Option<Written> {
    let path = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")?;
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let home = scratch.join("daemon");
    let daemon = Daemon::start(&home, &sections(&broker), READY_WITHIN);
    daemon.wait_connected(READY_WITHIN);
    publish(&broker, &path);
    wait_for("everything to be durable", DURABLE_WITHIN, || {
        let durable = daemon.json("/health")["journal"]["durable_seq"].as_u64()?;
        (durable >= MESSAGES as u64).then_some(())
    });
    assert!(daemon.terminate(READY_WITHIN).success());
    let data = Daemon::data_in(&home);
    Daemon::verify(&data).expect("whole before it is damaged");
    let payloads = export(&data);
    assert_eq!(payloads.len(), MESSAGES);
    Some(Written {
        _scratch: scratch,
        recording: path,
        data,
        payloads,
    })
}

fn sections(broker: &Broker) -> String {
    format!(
        "[journal]\nsegment_bytes = {SEGMENT_BYTES}\n{}",
        mqtt_source(broker, "damage")
    )
}

fn publish(broker: &Broker, recording: &Path) {
    let publisher = Publisher::connect(broker, "damage-publisher");
    for message in Recording::open(recording).take(MESSAGES) {
        publisher.publish(&message.topic, message.payload);
    }
    publisher.wait_accepted(MESSAGES, DURABLE_WITHIN);
}

/// One after the other, as the journal is written once.
#[test]
fn damage_is_named_put_aside_and_survived() {
    let Some(written) = write() else { return };
    flipped_bytes_cost_what_is_named_and_no_more(&written);
    a_file_that_is_cut_off_or_gone_is_missed(&written);
    an_end_that_was_durable_is_missed(&written);
    an_index_that_is_gone_or_garbage_is_built_anew(&written);
}

fn flipped_bytes_cost_what_is_named_and_no_more(written: &Written) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for place in 0..PLACES {
        let (scratch, home) = copy(written);
        let files = files(&Daemon::data_in(&home));
        let path = &files[place % files.len()];
        let len = fs::metadata(path).unwrap().len();
        let at = rng.random_range(0..len - FLIPPED as u64);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut bytes = [0; FLIPPED];
        file.read_exact_at(&mut bytes, at).unwrap();
        file.write_all_at(&bytes.map(|b| b ^ 0x5a), at).unwrap();
        println!("{} bytes at {at} of {len} in {}", FLIPPED, name(path));
        check(written, &home, &name(path));
        drop(scratch);
    }
}

/// The first file and one in the middle: without a whole block, without a byte, and gone altogether.
fn a_file_that_is_cut_off_or_gone_is_missed(written: &Written) {
    for (place, left) in [(0, Some(1000)), (0, Some(24)), (1, Some(0)), (0, None)] {
        let (scratch, home) = copy(written);
        let files = files(&Daemon::data_in(&home));
        let path = &files[place];
        match left {
            Some(left) => {
                let file = File::options().write(true).open(path).unwrap();
                assert!(fs::metadata(path).unwrap().len() > left);
                file.set_len(left).unwrap();
            }
            None => fs::remove_file(path).unwrap(),
        }
        println!("{left:?} bytes left of {}", name(path));
        // What is gone is missed by the file behind it.
        let named = if left.is_some() { place } else { place + 1 };
        check(written, &home, &name(&files[named]));
        drop(scratch);
    }
}

/// The daemon ended well, so that all of the log was durable: what is cut off it, or all of it, is missed.
fn an_end_that_was_durable_is_missed(written: &Written) {
    for cut in [Some(1), Some(700), None] {
        let (_scratch, home) = copy(written);
        let data = Daemon::data_in(&home);
        let mut files = files(&data);
        let log = files.pop().unwrap();
        assert!(log.extension().is_some_and(|e| e == "log"), "{log:?}");
        match cut {
            Some(bytes) => {
                let len = fs::metadata(&log).unwrap().len();
                let file = File::options().write(true).open(&log).unwrap();
                file.set_len(len - bytes).unwrap();
            }
            None => fs::remove_file(&log).unwrap(),
        }
        let (code, report) = verify(&data);
        assert_eq!(code, Some(1), "{report:#}");
        let damage = report["damage"].as_array().unwrap();
        assert_eq!(damage.len(), 1, "{report:#}");
        let named = if cut.is_some() {
            &log
        } else {
            files.last().unwrap()
        };
        assert_eq!(damage[0]["file"], name(named));
        assert_eq!(damage[0]["seqs"]["end"], MESSAGES);
        let left = damage[0]["seqs"]["start"].as_u64().unwrap() as usize;
        println!(
            "{} of {MESSAGES} lost with the log's end ({cut:?})",
            MESSAGES - left
        );
        assert!(left < MESSAGES && left > MESSAGES / 2);

        let mut daemon = Daemon::start_unwell(&home, "", READY_WITHIN);
        let health = settled(&daemon);
        assert_eq!(health["status"], "degraded", "{health:#}");
        assert_eq!(health["journal"]["next_seq"], MESSAGES, "{health:#}");
        let missing = format!("records {left}..{MESSAGES}");
        let why = health["why"].to_string();
        assert!(why.contains(&missing) && why.contains("repair"), "{why}");
        let log = daemon.process().log();
        assert!(log.contains(&missing), "{log}");
        assert!(daemon.terminate(READY_WITHIN).success());
        let quarantine = files_below(&data.join("records/quarantine"));
        assert_eq!(quarantine.is_empty(), cut.is_none(), "{quarantine:?}");
        assert!(
            export(&data) == written.payloads[..left],
            "the rest is served"
        );

        // It is not forgotten by a start, only by a repair.
        assert_eq!(verify(&data).0, Some(1));
        assert!(journal("repair", &data, &[]).status.success());
        assert_eq!(verify(&data).0, Some(0));
        let daemon = Daemon::start(&home, "", READY_WITHIN);
        assert_eq!(daemon.json("/health")["status"], "ok");
        assert!(daemon.terminate(READY_WITHIN).success());
        assert!(export(&data) == written.payloads[..left]);
    }
}

/// Nor does it forget: all that is sent again is known.
fn an_index_that_is_gone_or_garbage_is_built_anew(written: &Written) {
    for garbage in [false, true] {
        let (scratch, home) = copy(written);
        let data = Daemon::data_in(&home);
        let index = data.join("records/index");
        let before = files_below(&index);
        assert!(!before.is_empty());
        if garbage {
            for path in before {
                let len = fs::metadata(&path).unwrap().len() as usize;
                fs::write(&path, vec![0xa5; len]).unwrap();
            }
        } else {
            fs::remove_dir_all(&index).unwrap();
        }
        // All of it once more: who forgets what he holds takes it twice.
        let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
        let daemon = Daemon::start(&home, &sections(&broker), READY_WITHIN);
        daemon.wait_connected(READY_WITHIN);
        assert_eq!(
            daemon
                .metric("trackside_journal_index_rebuilds_total")
                .is_some(),
            garbage
        );
        publish(&broker, &written.recording);
        wait_for("everything to be acknowledged", DURABLE_WITHIN, || {
            let health = daemon.json("/health");
            let acknowledged = health["sources"][0]["acknowledged"].as_u64()?;
            (acknowledged >= MESSAGES as u64).then_some(())
        });
        assert!(daemon.terminate(READY_WITHIN).success());
        assert!(
            export(&data) == written.payloads,
            "garbage {garbage}: the journal is not what it was"
        );
    }
}

/// Verify, start, serve the rest, repair, verify, start again.
fn check(written: &Written, home: &Path, file: &str) {
    let data = Daemon::data_in(home);
    let report = verify(&data);
    assert_eq!(report.0, Some(1), "exit code of verify: {:#}", report.1);
    let damage = report.1["damage"].as_array().expect("a list");
    assert!(!damage.is_empty());
    let mut lost = vec![false; MESSAGES];
    for loss in damage {
        assert_eq!(loss["file"], file, "another file is named");
        assert!(loss["reason"].as_str().is_some_and(|r| !r.is_empty()));
        let end = |end: &str| loss["seqs"][end].as_u64().expect("a known number") as usize;
        lost[end("start")..end("end").min(MESSAGES)].fill(true);
    }
    let rest: Vec<&String> = (written.payloads.iter().zip(&lost))
        .filter_map(|(payload, lost)| (!lost).then_some(payload))
        .collect();
    println!("{} of {MESSAGES} named as lost", MESSAGES - rest.len());
    assert!(
        rest.len() > MESSAGES / 2,
        "one place of damage cost more than half of the journal"
    );

    let daemon = Daemon::start_unwell(home, "", READY_WITHIN);
    wait_for("the fold to pass the damage", READY_WITHIN, || {
        let health = settled(&daemon);
        (health["predictor"]["seq"].as_u64()? >= MESSAGES as u64).then_some(())
    });
    assert!(
        export(&data).iter().eq(rest.iter().copied()),
        "beside the daemon: not all the rest is served"
    );
    assert!(daemon.terminate(READY_WITHIN).success());
    let quarantine = data.join("records/quarantine");
    // Where there is something to put there.
    if rest.len() < MESSAGES && damage.iter().any(|loss| loss["bytes"] != 0) {
        assert!(
            !files_below(&quarantine).is_empty(),
            "nothing in quarantine"
        );
    }

    let repaired = journal("repair", &data, &[]);
    assert!(repaired.status.success(), "{}", text(&repaired));
    let report = verify(&data);
    assert_eq!(report.0, Some(0), "after repair: {:#}", report.1);
    assert!(
        export(&data).iter().eq(rest.iter().copied()),
        "repair changed what is served"
    );
    let daemon = Daemon::start(home, "", READY_WITHIN);
    assert!(daemon.terminate(READY_WITHIN).success());
    assert!(export(&data).iter().eq(rest.iter().copied()));
}

fn journal(command: &str, data: &Path, more: &[&str]) -> Output {
    trackside()
        .args(["journal", command, "--data"])
        .arg(data)
        .args(more)
        .output()
        .expect("trackside")
}

/// Health once the start is over, be it good or bad.
fn settled(daemon: &Daemon) -> Value {
    wait_for("the start to be over", READY_WITHIN, || {
        let (_, body) = daemon.get("/health").ok()?;
        let health: Value = serde_json::from_str(&body).ok()?;
        (health["status"] != "starting").then_some(health)
    })
}

/// Exit code and report.
fn verify(data: &Path) -> (Option<i32>, Value) {
    let output = journal("verify", data, &["--json"]);
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    (output.status.code(), report)
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

fn export(data: &Path) -> Vec<String> {
    let records = Daemon::export(data).expect("a journal that can be read");
    records.into_iter().map(|r| r.payload).collect()
}

/// A copy of the journal in a home of its own.
fn copy(written: &Written) -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let home = scratch.join("daemon");
    copy_folder(&written.data, &Daemon::data_in(&home)).expect("a copy");
    (scratch, home)
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Segments, then logs, by sequence number.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(data.join("records"))
        .expect("a journal")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg" || e == "log"))
        .collect();
    files.sort();
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
