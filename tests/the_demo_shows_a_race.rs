//! `trackside demo`, as somebody meets it who has installed nothing else.
//!
//! One process brings broker, race, daemon and page; what it prints leads to the page; the race moves; a
//! WebSocket client that goes away and comes back has every record exactly once and in order, the same ones
//! that the journal holds; and when it goes, nothing of it stays behind.

#![cfg(feature = "demo")]
#![forbid(unsafe_code)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::Value;
use support::{Daemon, Process, Scratch, get, trackside, wait_for};
use tokio_tungstenite::tungstenite::Message;

const CARS: usize = 20;
/// Laps of about 110 s pass in 4 s.
const SPEED: &str = "25";
const URL_WITHIN: Duration = Duration::from_secs(180);
const LAPS_WITHIN: Duration = Duration::from_secs(180);
/// A demo ends by itself after this, should its test forget about it.
const DURATION_S: &str = "900";
const GONE_WITHIN: Duration = Duration::from_secs(180);
/// Records that the WebSocket client takes before it goes away, and once it is back.
const RECORDS_BEFORE: usize = 15_000;
const RECORDS_AFTER: usize = 15_000;
const RECORD_WITHIN: Duration = Duration::from_secs(180);

/// A demo whose every file is below `folder`.
struct Demo {
    process: Process,
    address: SocketAddr,
}

impl Demo {
    fn start(folder: &Path, args: &[&str]) -> Demo {
        let mut process = Self::spawn(folder, args);
        let address = wait_for("the demo to print its address", URL_WITHIN, || {
            let log = process.log();
            assert!(process.is_running(), "the demo has ended: {log}");
            let url = log.lines().find_map(|l| l.strip_prefix("pit wall:"))?;
            let address = url.trim().strip_prefix("http://")?.strip_suffix('/')?;
            Some(address.parse().expect("an address"))
        });
        Demo { process, address }
    }

    fn spawn(folder: &Path, args: &[&str]) -> Process {
        let temporary = folder.join("tmp");
        fs::create_dir_all(&temporary).expect("a folder");
        let mut command = trackside();
        command.arg("demo").args(args).env("TMPDIR", &temporary);
        Process::start("trackside demo", command, &folder.join("demo.log"))
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = get(self.address, path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// What it says of itself, also while it is not well.
    fn health(&self) -> Value {
        let (_, body) = get(self.address, "/health").expect("an answer");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Ends it as `signal` does, which must be a good end that leaves no temporary file.
    fn end(mut self, signal: Signal, folder: &Path) {
        self.process.signal(signal);
        let status = self.process.wait(GONE_WITHIN);
        assert!(status.success(), "{status}: {}", self.process.log());
        assert_eq!(left_in(&folder.join("tmp")), Vec::<String>::new());
    }
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let names = entries.map(|e| e.expect("an entry").file_name());
    names.map(|n| n.to_string_lossy().into_owned()).collect()
}

#[test]
fn twenty_cars_drive_and_predictions_move() {
    let scratch = Scratch::new();
    let args = [
        "--port",
        "0",
        "--seed",
        "7",
        "--speed",
        SPEED,
        "--duration",
        DURATION_S,
    ];
    let demo = Demo::start(scratch.path(), &args);
    let (status, page) = get(demo.address, "/").expect("the page");
    assert!(
        status == 200 && page.contains("id=\"tower\""),
        "{status}: {page}"
    );

    // What was predicted for each car's next lap, over time.
    let mut predicted: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    let state = wait_for("twenty cars with three laps each", LAPS_WITHIN, || {
        std::thread::sleep(Duration::from_millis(100));
        let state = demo.json("/api/v1/state");
        for car in state["rows"].as_array()? {
            let number = car["driver_number"].as_i64().expect("a number");
            if car["next_lap"]["p50"].is_number() {
                let seen = predicted.entry(number).or_default();
                seen.insert(format!(
                    "{} {}",
                    car["next_lap"]["lap"], car["next_lap"]["p50"]
                ));
            }
        }
        let rows = state["rows"].as_array()?;
        let out = |car: &&Value| car["status"] == "retired" || car["status"] == "not_started";
        let driven = |car: &&Value| car["laps"].as_u64().is_some_and(|laps| laps >= 3);
        let driving = rows.iter().filter(driven).count();
        let retired = rows.iter().filter(out).count();
        (rows.len() == CARS && driving + retired >= CARS && driving >= CARS - 4).then_some(state)
    });
    let moving = predicted.values().filter(|seen| seen.len() >= 3).count();
    assert!(
        moving >= CARS - 4,
        "predictions of only {moving} cars move: {predicted:?}"
    );
    let rows = state["rows"].as_array().expect("rows");
    let sum: f64 = rows
        .iter()
        .filter_map(|c| c["finish"]["p_win"].as_f64())
        .sum();
    assert!(
        (sum - 1.0).abs() < 0.02,
        "the chances to win add up to {sum}"
    );
    assert!(
        rows.iter()
            .any(|c| c["pit"]["p_within_5"].as_f64().is_some_and(|p| p > 0.0))
    );
    let health = demo.health();
    assert_eq!(health["status"], "ok", "{health}");
    demo.end(Signal::TERM, scratch.path());
}

#[test]
fn a_client_that_comes_back_has_every_record_once_and_in_order() {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    let data_arg = data.to_string_lossy().into_owned();
    let args = [
        "--port",
        "0",
        "--speed",
        SPEED,
        "--data",
        &data_arg,
        "--duration",
        DURATION_S,
    ];
    let demo = Demo::start(scratch.path(), &args);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let take = |from, count| runtime.block_on(records(demo.address, from, count));

    // Far enough behind that it must first catch up, and then crosses over to what is new.
    wait_for("some records to catch up with", LAPS_WITHIN, || {
        let next = demo.health()["journal"]["durable_seq"].as_u64()?;
        (next >= RECORDS_BEFORE as u64 / 2).then_some(())
    });
    let (mut heard, caught_up_at) = take(0, RECORDS_BEFORE);
    assert!(
        (1..RECORDS_BEFORE).contains(&caught_up_at),
        "the seam was to be crossed, yet it lies at {caught_up_at}"
    );
    let next = heard.last().expect("records").0 + 1;
    let (more, _) = take(next, RECORDS_AFTER);
    heard.extend(more);
    demo.end(Signal::INT, scratch.path());

    let first = heard[0].0;
    for (record, expected) in heard.iter().zip(first..) {
        assert_eq!(
            record.0, expected,
            "a record is missing, doubled or out of order"
        );
    }
    let held = Daemon::export(&data).expect("a journal that can be read");
    assert!(
        held.len() >= heard.len(),
        "{} of {}",
        held.len(),
        heard.len()
    );
    let mut held = held.iter();
    for (seq, topic, payload) in &heard {
        let kept = held.next().expect("as many");
        let kept_payload: Value = serde_json::from_str(&kept.payload).expect("JSON");
        assert_eq!(
            (&kept.topic, &kept_payload),
            (topic, payload),
            "record {seq}"
        );
    }
}

/// `count` records from `from` on, and how many of them came before the word that it had caught up.
async fn records(
    address: SocketAddr,
    from: u64,
    count: usize,
) -> (Vec<(u64, String, Value)>, usize) {
    let url = format!("ws://{address}/ws?topics=records&from_seq={from}");
    let (mut socket, _) = tokio_tungstenite::connect_async(url)
        .await
        .expect("a WebSocket");
    let (mut heard, mut caught_up_at) = (Vec::new(), 0);
    while heard.len() < count {
        let message = tokio::time::timeout(RECORD_WITHIN, socket.next())
            .await
            .expect("a message in time")
            .expect("no end")
            .expect("a message");
        let Message::Text(text) = message else {
            continue;
        };
        let mut message: Value = serde_json::from_str(&text).expect("JSON");
        match message["type"].as_str() {
            Some("record") => heard.push((
                message["seq"].as_u64().expect("a sequence"),
                message["topic"].as_str().expect("a topic").to_owned(),
                message["payload"].take(),
            )),
            Some("caught_up") => caught_up_at = heard.len(),
            Some("hello") => {}
            _ => panic!("unexpected: {message}"),
        }
    }
    (heard, caught_up_at)
}

#[test]
fn a_taken_port_is_stepped_over_unless_it_was_asked_for() {
    let scratch = Scratch::new();
    // Taken by us, or by somebody else: both will do.
    let _taken = TcpListener::bind("127.0.0.1:8040");
    let demo = Demo::start(&scratch.path().join("free"), &["--duration", DURATION_S]);
    assert_ne!(demo.address.port(), 8040);
    assert_eq!(demo.json("/health/live")["status"], "live");

    let folder = scratch.join("asked");
    let port = demo.address.port().to_string();
    let mut refused = Demo::spawn(&folder, &["--port", &port, "--duration", "20"]);
    assert!(!refused.wait(GONE_WITHIN).success());
    let log = refused.log();
    assert!(log.contains(&port) && log.contains("in use"), "{log}");
    assert_eq!(left_in(&folder.join("tmp")), Vec::<String>::new());
    demo.end(Signal::HUP, &scratch.path().join("free"));
}

#[test]
fn a_recording_plays_without_a_loss_at_any_speed() {
    let Some(path) = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let scratch = Scratch::new();
    let path = path.to_string_lossy().into_owned();
    let args = [
        "--port",
        "0",
        "--recording",
        &path,
        "--speed",
        "max",
        "--duration",
        DURATION_S,
    ];
    let demo = Demo::start(scratch.path(), &args);
    let messages = support::Recording::open(Path::new(&path)).count() as u64;
    wait_for("the whole recording", LAPS_WITHIN, || {
        let health = demo.health();
        let taken = health["sources"][0]["messages"].as_u64()?;
        (taken == messages && demo.process.log().contains("the race is over")).then_some(())
    });
    assert_eq!(
        demo.json("/api/v1/state")["rows"].as_array().map(Vec::len),
        Some(CARS)
    );
    demo.end(Signal::TERM, scratch.path());
}

#[test]
fn a_demo_ends_when_it_was_told_to() {
    let scratch = Scratch::new();
    let mut demo = Demo::start(scratch.path(), &["--port", "0", "--duration", "3"]);
    let status = demo.process.wait(GONE_WITHIN);
    assert!(status.success(), "{status}: {}", demo.process.log());
    assert_eq!(left_in(&scratch.join("tmp")), Vec::<String>::new());
}
