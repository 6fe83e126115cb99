//! A race is the same race, however it comes in: through mosquitto, through Zenoh or straight from the file.
//!
//! Each recording is counted and read here without the code under test ([`support::Official`]). Journals must
//! hold as much of every topic as the recording does, record for record the same by every way; order, laps,
//! stints and stops must be the official ones; and predictions must be the same, byte for byte, in the file of
//! an offline replay, at a subscriber of the broker and in the daemon's own journal. A daemon that is stopped
//! or killed comes back to the same state and says nothing twice.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod journal;
mod result;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use journal::{check_exports, check_journal, check_topic, lines_of, predictions_in, same_lines};
use result::{check_state, check_summary};
use support::{
    Broker, BrokerOptions, Daemon, Official, Process, Scratch, Subscriber, free_port, mqtt_source,
    trackside, wait_for,
};

const READY_WITHIN: Duration = Duration::from_secs(180);
/// A whole race through a broker, or the fold of one.
const RACE_WITHIN: Duration = Duration::from_secs(480);
const STOPPED_WITHIN: Duration = Duration::from_secs(180);
/// How long a prediction that is said twice would have to be heard.
const ECHO: Duration = Duration::from_secs(2);
const PREDICTIONS: &str = "trackside/v1/predictions/#";
/// Whole races by the floor, which is quick, parts of them by the trained models of this repository: what either
/// predicts must be the same by every way.
const FLOOR: &str = "none";
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/engines");

/// A recording, and where its race is not what the official result says.
struct Race {
    recording: &'static str,
    mqtt_version: u8,
    /// Position and car, where the order on the road is not the official one.
    on_road: &'static [(u64, u64)],
    /// The same with the penalties that race control announced during the race.
    with_penalties: &'static [(u64, u64)],
    /// Car and seconds.
    penalties: &'static [(u64, f64)],
    /// Red flag to two minutes after the restart: who comes out of the pits then, waited there.
    stopped: Option<(&'static str, &'static str)>,
    /// Every change of track status but yellow flags, and the first and last second at which it may be.
    track: &'static [(&'static str, &'static str, &'static str)],
}

const BAHRAIN: Race = Race {
    recording: "2024-bahrain-race",
    mqtt_version: 5,
    on_road: &[],
    with_penalties: &[],
    penalties: &[],
    stopped: None,
    track: &[("chequered", "16:35:26", "16:35:26")],
};

/// Cars 11 and 22 got 5 s each during the race, car 20 after it. Rain, and a red flag of 43 minutes.
const DUTCH: Race = Race {
    recording: "2023-dutch-race",
    mqtt_version: 4,
    on_road: &[(3, 11), (4, 10), (13, 22), (14, 40), (15, 20), (16, 77)],
    with_penalties: &[(14, 20), (15, 77), (16, 22)],
    penalties: &[(11, 5.0), (22, 5.0)],
    stopped: Some(("14:31:16", "15:16:00")),
    track: &[
        ("safety_car", "13:26:04", "13:26:04"),
        ("clear", "13:36:19", "13:36:19"),
        ("virtual_safety_car", "14:30:29", "14:30:29"),
        ("red", "14:31:16", "14:31:16"),
        ("clear", "15:10:39", "15:10:39"),
        ("safety_car", "15:14:00", "15:14:00"),
        // The leader begins the lap after the safety car has come in.
        ("clear", "15:17:24", "15:19:36"),
        ("chequered", "15:27:08", "15:27:08"),
    ],
};

#[test]
fn bahrain_2024_is_the_same_race_by_every_way() {
    everywhere(&BAHRAIN);
}

#[test]
fn zandvoort_2023_is_the_same_race_by_every_way() {
    everywhere(&DUTCH);
}

fn everywhere(race: &Race) {
    let Some(recording) = support::data(&format!("recordings/{}.ndjson.zst", race.recording))
    else {
        return;
    };
    let official = Official::of(&recording);
    assert!(official.messages() > 900_000 && official.result.len() == 20);
    let scratch = Scratch::new();

    let offline = Offline::replay(&recording, &scratch.join("offline"), FLOOR);
    check_summary(&offline.summary, &official, race);
    let journal = check_journal(&offline.data(), &official);
    check_exports(&offline, &official, &scratch.join("exports"));
    let state = state_of(&offline, official.messages());
    check_state(&state, &official, race);

    let over_mqtt = scratch.join("mqtt");
    let mqtt = through_mqtt(
        &recording,
        &over_mqtt,
        race.mqtt_version,
        &official,
        &offline,
    );
    assert_eq!(mqtt, state, "the state after MQTT and after no network");
    assert_eq!(
        check_journal(&Daemon::data_in(&over_mqtt), &official),
        journal,
        "records through MQTT and without a network"
    );

    let over_zenoh = scratch.join("zenoh");
    let zenoh = through_zenoh(&recording, &over_zenoh, &official);
    assert_eq!(zenoh, state, "the state after Zenoh and after no network");
    let data = Daemon::data_in(&over_zenoh);
    assert_eq!(
        check_journal(&data, &official),
        journal,
        "records through Zenoh and without a network"
    );
    same_lines("Zenoh", &predictions_in(&data), &offline.predictions);
    println!(
        "{}: {} messages, {} predictions, the same by every way",
        race.recording,
        official.messages(),
        offline.predictions.len()
    );
}

#[test]
fn cbor_brings_the_same_records_as_json() {
    let Some(recording) = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let official = Official::of(&recording);
    let scratch = Scratch::new();
    let offline = Offline::replay(&recording, &scratch.join("offline"), MODELS);
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let home = scratch.join("daemon");
    let sections = mqtt_source(&broker, "cbor") + &engines(MODELS);
    let daemon = Daemon::start(&home, &sections, READY_WITHIN);
    daemon.wait_connected(READY_WITHIN);
    let url = format!("mqtt://127.0.0.1:{}", broker.port());
    replay(&recording, &["--cbor", "--mqtt", &url], &home);
    wait_for_state(&daemon, official.messages());
    daemon.terminate(STOPPED_WITHIN);
    let data = Daemon::data_in(&home);
    assert_eq!(
        check_journal(&data, &official),
        check_journal(&offline.data(), &official),
        "records in CBOR and in JSON"
    );
    same_lines("CBOR", &predictions_in(&data), &offline.predictions);
}

/// Killed and stopped in mid-race, while records stream in: what is made anew after each start must continue
/// what was made before, with no gap, no repetition and no other number.
#[test]
fn a_daemon_that_dies_in_mid_race_predicts_as_one_that_lives() {
    const LIVES: u64 = 6;
    let Some(recording) = support::data("recordings/2023-dutch-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let official = Official::of(&recording);
    let scratch = Scratch::new();
    let offline = Offline::replay(&recording, &scratch.join("offline"), MODELS);
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let home = scratch.join("daemon");
    let sections = mqtt_source(&broker, "mid-race") + &engines(MODELS);
    let start = || Daemon::start(&home, &sections, READY_WITHIN);
    let mut daemon = start();
    daemon.wait_connected(READY_WITHIN);
    let url = format!("mqtt://127.0.0.1:{}", broker.port());
    let log = scratch.join("replay.log");
    let mut player = play(&recording, &["--speed", "60", "--mqtt", &url], &log);
    let mut cut_short = 0;
    for life in 1..LIVES {
        let until = official.messages() * life / LIVES;
        wait_for("a part of the race", RACE_WITHIN, || {
            (durable(&daemon) >= until).then_some(())
        });
        cut_short += u64::from(durable(&daemon) < official.messages());
        if life % 2 == 0 {
            assert!(daemon.terminate(STOPPED_WITHIN).success());
        } else {
            daemon.kill();
        }
        daemon = start();
    }
    // A busy machine may have the last of them begin when all has come.
    assert!(
        cut_short > LIVES / 2,
        "{cut_short} lives ended in mid-race; play it slower"
    );
    assert!(player.wait(RACE_WITHIN).success());
    let state = wait_for_state(&daemon, official.messages());
    daemon.terminate(STOPPED_WITHIN);
    let data = Daemon::data_in(&home);
    check_journal(&data, &official);
    same_lines("six lives", &predictions_in(&data), &offline.predictions);
    assert_eq!(state, state_of(&offline, official.messages()));
}

/// An offline replay and what it left behind.
struct Offline {
    home: PathBuf,
    engines: &'static str,
    summary: Value,
    /// As written, a line each.
    predictions: Vec<String>,
}

impl Offline {
    fn replay(recording: &Path, home: &Path, engines: &'static str) -> Offline {
        fs::create_dir_all(home).expect("a folder");
        let (summary, predictions) = (home.join("summary.json"), home.join("predictions.ndjson"));
        let data = Daemon::data_in(home);
        let path = |p: &Path| p.to_str().expect("a path in UTF-8").to_owned();
        replay(
            recording,
            &[
                "--offline",
                "--engines",
                engines,
                "--summary",
                &path(&summary),
                "--predictions",
                &path(&predictions),
                "--data",
                &path(&data),
            ],
            home,
        );
        let offline = Offline {
            home: home.to_owned(),
            engines,
            summary: serde_json::from_slice(&fs::read(summary).expect("a summary")).expect("JSON"),
            predictions: lines_of(&predictions),
        };
        assert!(!offline.predictions.is_empty(), "no predictions at all");
        same_lines(
            "the journal of predictions",
            &predictions_in(&data),
            &offline.predictions,
        );
        offline
    }

    fn data(&self) -> PathBuf {
        Daemon::data_in(&self.home)
    }
}

/// The whole way through mosquitto with a subscriber at its end; then stopped, killed and started again.
/// Returns the state at the end of the race.
fn through_mqtt(
    recording: &Path,
    home: &Path,
    version: u8,
    official: &Official,
    offline: &Offline,
) -> Value {
    let broker = Broker::start(&home.join("broker"), BrokerOptions::default());
    let subscriber = Subscriber::to(&broker, PREDICTIONS);
    let url = format!("mqtt://127.0.0.1:{}", broker.port());
    let sections = format!(
        "{}version = {version}\n[publish.mqtt]\nurl = \"{url}\"\nversion = {version}\n{}",
        mqtt_source(&broker, "garage"),
        engines(FLOOR)
    );
    let start = || {
        let daemon = Daemon::start(home, &sections, READY_WITHIN);
        daemon.wait_connected(READY_WITHIN);
        daemon
    };
    let daemon = start();
    replay(recording, &["--mqtt", &url], home);
    let state = wait_for_state(&daemon, official.messages());
    let latest = daemon.json("/api/v1/predictions");
    wait_for("all predictions to be published", RACE_WITHIN, || {
        (subscriber.count() >= offline.predictions.len()).then_some(())
    });

    assert!(daemon.terminate(STOPPED_WITHIN).success());
    let daemon = start();
    assert_eq!(
        wait_for_state(&daemon, official.messages()),
        state,
        "stopped and started"
    );
    daemon.kill();
    let daemon = start();
    assert_eq!(
        wait_for_state(&daemon, official.messages()),
        state,
        "killed and started"
    );
    assert_eq!(daemon.json("/api/v1/predictions"), latest);
    std::thread::sleep(ECHO);
    daemon.terminate(STOPPED_WITHIN);

    let heard: Vec<String> = subscriber.heard().into_iter().map(check_topic).collect();
    same_lines("the broker", &heard, &offline.predictions);
    same_lines(
        "the daemon's journal",
        &predictions_in(&Daemon::data_in(home)),
        &offline.predictions,
    );
    state
}

fn through_zenoh(recording: &Path, home: &Path, official: &Official) -> Value {
    let locator = format!("tcp/127.0.0.1:{}", free_port());
    let sections = format!(
        "[zenoh]\n[zenoh.network]\nlisten = [\"{locator}\"]\n{}",
        engines(FLOOR)
    );
    let daemon = Daemon::start(home, &sections, READY_WITHIN);
    daemon.wait_connected(READY_WITHIN);
    replay(recording, &["--zenoh", &locator], home);
    let state = wait_for_state(&daemon, official.messages());
    daemon.terminate(STOPPED_WITHIN);
    state
}

/// The section that says which models answer.
fn engines(dir: &str) -> String {
    format!("[engines]\ndir = \"{dir}\"\n")
}

/// The state of a daemon without sources on what an offline replay left behind.
fn state_of(offline: &Offline, records: u64) -> Value {
    let daemon = Daemon::start(&offline.home, &engines(offline.engines), READY_WITHIN);
    let state = wait_for_state(&daemon, records);
    daemon.terminate(STOPPED_WITHIN);
    state
}

fn wait_for_state(daemon: &Daemon, records: u64) -> Value {
    let mut last = 0;
    let what = format!("{records} records to be in the state");
    let state = wait_for(&what, RACE_WITHIN, || {
        let state = daemon.json("/api/v1/state");
        last = state["seq"].as_u64().expect("a sequence");
        // Drawing a state costs as much as many records.
        if last < records {
            std::thread::sleep(Duration::from_millis(200));
        }
        (last >= records).then_some(state)
    });
    assert_eq!(last, records, "more records than messages");
    state
}

fn durable(daemon: &Daemon) -> u64 {
    daemon.json("/health")["journal"]["durable_seq"]
        .as_u64()
        .expect("a sequence")
}

fn play(recording: &Path, arguments: &[&str], log: &Path) -> Process {
    let mut command = trackside();
    command.arg("replay").arg(recording).args(arguments);
    Process::start("trackside replay", command, log)
}

fn replay(recording: &Path, arguments: &[&str], home: &Path) {
    let mut player = play(recording, arguments, &home.join("replay.log"));
    let status = player.wait(RACE_WITHIN);
    assert!(status.success(), "{status}: {}", player.log());
}
