//! A full disk only pauses the intake: nothing is acknowledged that has no room, and nothing is lost.
//!
//! The data folder is a small tmpfs with a ballast file on it. A publisher sends at QoS 1 through mosquitto
//! until the room is used up: acknowledgements must stop, and health must say why. What the daemon does not
//! acknowledge stays with the broker (mosquitto goes on accepting for it, into its own queue). Then the
//! ballast goes: the daemon must go on by itself, and everything must be there exactly once.
//!
//! Once with the reserve that the journal keeps by default, once with none, so that writes really fail
//! half-way; there the daemon is also killed and started again while the disk is full. With the reserve, the
//! messages are large: far more of them are published than the daemon may hold, and its memory must not grow with
//! them. At last the same with QoS 0, which no broker keeps: what streams is shed, and counted to the message.
//!
//! The tmpfs lives in a mount namespace of its own, for which the test runs itself again below `unshare`: it
//! needs no privilege, and no mount outlives it, however it ends.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{
    Broker, BrokerOptions, Daemon, Proxy, Publisher, Recorded, Recording, Scratch, mqtt_source,
    mqtt_source_at, wait_for,
};

/// Set for the run inside the namespace.
const INSIDE: &str = "TRACKSIDE_TEST_IN_NAMESPACE";
const DISK_BYTES: u64 = 24 * 1024 * 1024;
/// What is left above the reserve when the ballast is laid: less than the messages need.
const ROOM_BYTES: u64 = 256 * 1024;
const DEFAULT_RESERVE_BYTES: u64 = 1024 * 1024;
/// Written and read before the disk fills.
const MESSAGES_BEFORE: usize = 5_000;
const MESSAGES: usize = 60_000;
const READY_WITHIN: Duration = Duration::from_secs(180);
const FULL_WITHIN: Duration = Duration::from_secs(180);
const DURABLE_WITHIN: Duration = Duration::from_secs(180);
/// Added to each message of the run that watches memory (bytes): the queue's 32 MiB are then used up by 16 thousand.
const PADDING: usize = 2_000;
/// Messages of that run, and after how many the daemon holds all that it may.
const MESSAGES_LARGE: usize = 90_000;
const MESSAGES_TO_THE_BRIM: usize = 45_000;
/// Unacknowledged messages that the daemon asks a broker for at most (`receive_maximum`).
const MOST_HELD: usize = 16_384;
/// What its memory may grow by while the rest arrives (bytes); the rest has eight times as many.
const MOST_GROWTH_BYTES: u64 = 12 * 1024 * 1024;
/// Messages at QoS 0: twice what the queue holds.
const MESSAGES_QOS_0: usize = 32_768;
/// How long a full disk is watched: nothing may be acknowledged in that time.
const WATCHED_FOR: Duration = Duration::from_secs(2);
const BLOCK: usize = 64 * 1024;

#[test]
fn with_a_reserve_nothing_is_begun_that_has_no_room() {
    inside_a_namespace("with_a_reserve_nothing_is_begun_that_has_no_room", || {
        fill_and_make_room(DEFAULT_RESERVE_BYTES, false);
    });
}

#[test]
fn without_a_reserve_writes_fail_and_nothing_is_lost() {
    inside_a_namespace("without_a_reserve_writes_fail_and_nothing_is_lost", || {
        fill_and_make_room(0, true);
    });
}

/// Runs `test` where mounts are private: in this program once more, below `unshare`.
fn inside_a_namespace(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        test();
        return;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--kill-child", "--"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare (util-linux) must be installed");
    assert!(
        status.success(),
        "{name}: {status} (the kernel must allow user namespaces: sysctl kernel.unprivileged_userns_clone)"
    );
}

fn fill_and_make_room(reserve: u64, restart_while_full: bool) {
    let Some(path) = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let total = match restart_while_full {
        true => MESSAGES,
        false => MESSAGES_LARGE,
    };
    let scratch = Scratch::new();
    let home = scratch.join("daemon");
    let data = Daemon::data_in(&home);
    fs::create_dir_all(&data).expect("the data folder");
    mount_tmpfs(&data);
    let ballast = data.join("ballast");

    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let proxy = Proxy::to(broker.port());
    let sections = format!(
        "[journal]\nreserve_bytes = {reserve}\n{}",
        mqtt_source_at(&broker, proxy.port(), "full-disk")
    );
    let mut daemon = Daemon::start(&home, &sections, READY_WITHIN);
    daemon.wait_connected(READY_WITHIN);
    let publisher = Publisher::connect(&broker, "full-disk-publisher");
    let mut messages = Recording::open(&path);
    let mut published = Vec::new();
    let mut publish = |count: usize, padding: usize| {
        for message in messages.by_ref().take(count) {
            published.push(id(&message));
            publisher.publish(&message.topic, padded(&message.payload, padding));
        }
        publisher.wait_accepted(published.len(), DURABLE_WITHIN);
        published.clone()
    };

    publish(MESSAGES_BEFORE, 0);
    wait_durable(&daemon, MESSAGES_BEFORE);
    fill(&ballast, &data, reserve + ROOM_BYTES);
    let published = if restart_while_full {
        publish(total - MESSAGES_BEFORE, 0)
    } else {
        publish(MESSAGES_TO_THE_BRIM - MESSAGES_BEFORE, PADDING);
        wait_full(&daemon);
        let before = resident_at_rest(&mut daemon);
        let published = publish(total - MESSAGES_TO_THE_BRIM, PADDING);
        let growth = resident_at_rest(&mut daemon).saturating_sub(before);
        let held = unacknowledged(&daemon);
        let kept = total - proxy.heard() - held;
        println!(
            "{before} bytes resident with a full disk, then {growth} more: {held} messages held, {kept} at the broker"
        );
        assert!(held <= MOST_HELD, "{held} held");
        assert!(
            kept >= (total - MESSAGES_TO_THE_BRIM) / 2,
            "the broker holds {kept}"
        );
        assert!(growth <= MOST_GROWTH_BYTES, "grown by {growth} bytes");
        published
    };
    wait_full(&daemon);
    let heard = proxy.heard();
    std::thread::sleep(WATCHED_FOR);
    wait_full(&daemon);
    assert_eq!(
        proxy.heard(),
        heard,
        "messages were acknowledged on a full disk"
    );
    assert!(
        (MESSAGES_BEFORE..total).contains(&heard),
        "{heard} of {total} acknowledged: the disk was not full in the middle of them"
    );
    assert!(
        daemon.process().is_running(),
        "the daemon gave up on a full disk"
    );
    if restart_while_full {
        daemon.kill();
        let held = count(&data);
        let lost = proxy
            .acknowledged()
            .iter()
            .filter(|payload| !held.contains_key(&payload_id(payload)))
            .count();
        assert_eq!(lost, 0, "acknowledged, yet not on the full disk");
        daemon = Daemon::start_unwell(&home, &sections, READY_WITHIN);
        wait_full(&daemon);
    }

    fs::remove_file(&ballast).expect("the ballast");
    wait_durable(&daemon, total);
    wait_for("health to be well again", FULL_WITHIN, || {
        matches!(daemon.get("/health"), Ok((200, _))).then_some(())
    });
    let status = daemon.terminate(READY_WITHIN);
    assert!(status.success(), "{status}");
    Daemon::verify(&data).expect("a whole journal");
    let held = count(&data);
    let wrong = published
        .iter()
        .filter(|id| held.get(id) != Some(&1))
        .count();
    assert_eq!(wrong, 0, "of {total} so many are not there exactly once");
    assert_eq!(held.len(), total, "records that nobody published");
    println!("reserve {reserve}: paused after {heard} of {total}, then went on");
}

/// The message with a field that nobody knows.
fn padded(payload: &str, padding: usize) -> String {
    match payload.strip_suffix('}') {
        Some(fields) if padding > 0 => {
            format!("{fields},\"padding\":\"{}\"}}", "x".repeat(padding))
        }
        _ => payload.to_owned(),
    }
}

/// Messages that the daemon has taken and not acknowledged.
fn unacknowledged(daemon: &Daemon) -> usize {
    let source = &health(daemon)["sources"][0];
    source["unacknowledged"].as_u64().expect("a number") as usize
}

/// Health, be it good or bad.
fn health(daemon: &Daemon) -> serde_json::Value {
    let (_, body) = daemon.get("/health").expect("an answer");
    serde_json::from_str(&body).expect("JSON")
}

/// What the daemon takes up once that has stopped changing (bytes).
fn resident_at_rest(daemon: &mut Daemon) -> u64 {
    let mut last = 0;
    wait_for("the daemon's memory to rest", FULL_WITHIN, || {
        std::thread::sleep(WATCHED_FOR / 4);
        let before = std::mem::replace(&mut last, daemon.process().resident_bytes());
        (before.abs_diff(last) < BLOCK as u64).then_some(())
    });
    last
}

#[test]
fn at_qos_0_what_streams_is_shed_and_counted() {
    inside_a_namespace("at_qos_0_what_streams_is_shed_and_counted", shed_and_count);
}

fn shed_and_count() {
    let Some(path) = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let scratch = Scratch::new();
    let home = scratch.join("daemon");
    let data = Daemon::data_in(&home);
    fs::create_dir_all(&data).expect("the data folder");
    mount_tmpfs(&data);
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let sections = mqtt_source(&broker, "qos-0") + "qos = 0\n";
    let daemon = Daemon::start(&home, &sections, READY_WITHIN);
    daemon.wait_connected(READY_WITHIN);
    let ballast = data.join("ballast");
    fill(&ballast, &data, DEFAULT_RESERVE_BYTES / 2);

    let publisher = Publisher::connect(&broker, "qos-0-publisher");
    let streams = |m: &Recorded| m.topic == "v1/car_data" || m.topic == "v1/location";
    let mut published = 0;
    for message in Recording::open(&path).filter(streams).take(MESSAGES_QOS_0) {
        publisher.publish(&message.topic, message.payload);
        published += 1;
    }
    // Behind all of those, and yet there is room for it.
    let laps: Vec<Recorded> = Recording::open(&path)
        .filter(|m| m.topic == "v1/laps")
        .collect();
    for lap in &laps {
        publisher.publish(&lap.topic, lap.payload.clone());
    }
    published += laps.len();
    publisher.wait_accepted(published, DURABLE_WITHIN);
    wait_for("everything to have arrived", DURABLE_WITHIN, || {
        let arrived = health(&daemon)["sources"][0]["messages"].as_u64()?;
        (arrived == published as u64).then_some(())
    });
    wait_full(&daemon);
    let shed = || daemon.metric("trackside_ingest_shed_total").unwrap_or(0.0) as usize;
    fs::remove_file(&ballast).expect("the ballast");
    wait_for(
        "all but what was shed to be durable",
        DURABLE_WITHIN,
        || {
            let durable = health(&daemon)["journal"]["durable_seq"].as_u64()?;
            (durable as usize + shed() == published).then_some(())
        },
    );
    println!("{} of {published} shed", shed());
    assert_eq!(health(&daemon)["sources"][0]["shed"], shed());
    // What was read off the queue before the disk was full makes it a little less than the half.
    assert!(shed() > MESSAGES_QOS_0 / 4, "{} were shed", shed());
    assert!(daemon.terminate(READY_WITHIN).success());
    let held = Daemon::export(&data).expect("a journal that can be read");
    let held = held.iter().filter(|m| m.topic == "v1/laps").count();
    assert_eq!(
        held,
        laps.len(),
        "a lap was shed while there was room for it"
    );
}

fn mount_tmpfs(on: &Path) {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o"])
        .arg(format!("size={DISK_BYTES}"))
        .arg("tmpfs")
        .arg(on)
        .status()
        .expect("mount");
    assert!(status.success(), "mount of a tmpfs: {status}");
}

/// Writes `ballast` until only `leave` bytes are free on the file system of `disk`.
fn fill(ballast: &Path, disk: &Path, leave: u64) {
    let mut file = File::create(ballast).expect("the ballast");
    while free(disk) > leave + BLOCK as u64 {
        file.write_all(&[0xa5; BLOCK]).expect("room for ballast");
    }
}

fn free(disk: &Path) -> u64 {
    let fs = rustix::fs::statvfs(disk).expect("a file system");
    fs.f_bavail * fs.f_frsize
}

/// Waits until health says that the disk is full, with the status that keeps work away.
fn wait_full(daemon: &Daemon) {
    wait_for("health to say disk_full", FULL_WITHIN, || {
        let (status, body) = daemon.get("/health").ok()?;
        let health: serde_json::Value = serde_json::from_str(&body).ok()?;
        let why = health["why"][0].as_str()?;
        (status == 503 && health["status"] == "disk_full" && why.contains("no room")).then_some(())
    });
    let (status, _) = daemon.get("/health/ready").expect("an answer");
    assert_eq!(status, 503, "ready for work with a full disk");
    assert_eq!(daemon.get("/health/live").expect("an answer").0, 200);
}

fn wait_durable(daemon: &Daemon, count: usize) {
    wait_for("everything to be durable", DURABLE_WITHIN, || {
        let (_, body) = daemon.get("/health").ok()?;
        let health: serde_json::Value = serde_json::from_str(&body).ok()?;
        let durable = health["journal"]["durable_seq"].as_u64()?;
        (durable >= count as u64).then_some(())
    });
}

/// How often each `_id` is in the journal.
fn count(data: &Path) -> HashMap<i64, usize> {
    let mut times = HashMap::new();
    for record in Daemon::export(data).expect("a journal that can be read") {
        *times.entry(id(&record)).or_default() += 1;
    }
    times
}

fn id(message: &Recorded) -> i64 {
    message.id.expect("a recorded message has an _id")
}

fn payload_id(payload: &[u8]) -> i64 {
    let (_, id) = support::version(payload).expect("a document");
    id.expect("an _id")
}
