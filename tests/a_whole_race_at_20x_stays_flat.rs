//! A race at twenty times its speed: memory and descriptors of the daemon stay flat.
//!
//! The first forty minutes by default (two minutes of the clock); the whole race, which takes six, with
//! `TRACKSIDE_SOAK=full`.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

mod support;

use std::time::{Duration, Instant};

use support::{Broker, BrokerOptions, Daemon, Process, Scratch, mqtt_source, trackside, wait_for};

const SPEED: f64 = 20.0;
/// Of the clock: at twenty times the speed, forty minutes of the race.
const SLICE: Duration = Duration::from_secs(120);
/// Longest that the whole race may take: it is recorded over less than two hours and ten minutes.
const FULL: Duration = Duration::from_secs(420);
const READY_WITHIN: Duration = Duration::from_secs(180);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Share of the run after which everything that is made once has been made.
const WARM_UP: f64 = 0.25;
/// Most that memory may grow after the warm-up (bytes per hour of the race, as a line through all
/// samples rises). The race itself grows: some 600 laps an hour, with their sectors and predictions; and in a
/// slice of the race the tails and sled's cache are still filling (11.7 and 13.6 were measured). A leak of 30
/// bytes a message would be steeper.
const MAX_SLOPE_PER_RACE_HOUR: f64 = 18.0 * MIB;
/// Most that it may be at any time (bytes).
const MAX_RESIDENT: f64 = 64.0 * MIB;
/// Most descriptors more, at any time, than there were at the end of the warm-up: a segment, its index
/// and a look at the API may be open in one sample and not in another.
const MAX_MORE_DESCRIPTORS: usize = 8;
const MIB: f64 = 1024.0 * 1024.0;

struct Sample {
    at_s: f64,
    resident: f64,
    descriptors: usize,
}

#[test]
fn memory_and_descriptors_stay_flat() {
    let Some(path) = support::data("recordings/2024-bahrain-race.ndjson.zst") else {
        return;
    };
    let full = std::env::var_os("TRACKSIDE_SOAK").is_some_and(|v| v == "full");
    let limit = if full { FULL } else { SLICE };
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let mut daemon = Daemon::start(
        &scratch.join("daemon"),
        &mqtt_source(&broker, "soak"),
        READY_WITHIN,
    );
    daemon.wait_connected(READY_WITHIN);

    let mut replay = trackside();
    replay.arg("replay").arg(&path);
    replay.args(["--speed", &SPEED.to_string()]);
    replay
        .arg("--mqtt")
        .arg(format!("mqtt://127.0.0.1:{}", broker.port()));
    let mut replay = Process::start("replay", replay, &scratch.join("replay.log"));

    let started = Instant::now();
    let mut samples = Vec::new();
    while started.elapsed() < limit && replay.is_running() {
        std::thread::sleep(SAMPLE_EVERY);
        samples.push(Sample {
            at_s: started.elapsed().as_secs_f64(),
            resident: daemon.process().resident_bytes() as f64,
            descriptors: daemon.process().descriptors(),
        });
        // As a page does that is left open; not in every sample, so that a leak of these shows, too.
        if samples.len() % 4 == 0 {
            assert!(daemon.json("/api/v1/state")["rows"].is_array());
        }
    }
    let played = started.elapsed();
    if full {
        assert!(!replay.is_running(), "the race is not over after {limit:?}");
        let status = replay.wait(READY_WITHIN);
        assert!(status.success(), "{status}: {}", replay.log());
    } else {
        assert!(
            replay.is_running(),
            "the replay has ended early: {}",
            replay.log()
        );
        replay.kill();
    }
    wait_for("the daemon to have taken it all", READY_WITHIN, || {
        let source = &daemon.json("/health")["sources"][0];
        (source["unacknowledged"] == 0).then_some(())
    });
    let health = daemon.json("/health");
    let messages = health["sources"][0]["messages"].as_u64().expect("a count");
    assert!(
        messages as f64 > played.as_secs_f64() * SPEED * 100.0,
        "only {messages} messages in {played:?}: that was no race"
    );
    // Nothing that was due is left behind: twenty times is within what it can do.
    assert_eq!(health["status"], "ok", "{health}");

    let warm: Vec<&Sample> = samples
        .iter()
        .skip((samples.len() as f64 * WARM_UP) as usize)
        .collect();
    let slope_per_s = slope(warm.iter().map(|s| (s.at_s, s.resident)));
    let slope = slope_per_s * 3600.0 / SPEED;
    let most = samples.iter().map(|s| s.resident).fold(0.0, f64::max);
    let (first, last) = (warm[0], warm[warm.len() - 1]);
    let most_descriptors = warm.iter().map(|s| s.descriptors).max().unwrap_or(0);
    println!(
        "{messages} messages in {played:.0?}; resident {:.1} MiB when warm, {:.1} at the end, {:.1} at most, \
         slope {:+.2} MiB per hour of the race; descriptors {} when warm, {} at the end, {most_descriptors} at most",
        first.resident / MIB,
        last.resident / MIB,
        most / MIB,
        slope / MIB,
        first.descriptors,
        last.descriptors,
    );
    assert!(
        slope <= MAX_SLOPE_PER_RACE_HOUR,
        "{:.2} MiB an hour",
        slope / MIB
    );
    assert!(most <= MAX_RESIDENT, "{:.1} MiB resident", most / MIB);
    assert!(
        most_descriptors <= first.descriptors + MAX_MORE_DESCRIPTORS,
        "{} descriptors became {most_descriptors}",
        first.descriptors
    );
    assert!(daemon.terminate(READY_WITHIN).success());
}

/// Of the line with the least squares through the points.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let n = points.clone().count() as f64;
    let (sx, sy) = points
        .clone()
        .fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
    let (mx, my) = (sx / n, sy / n);
    let (above, below) = points.fold((0.0, 0.0), |(a, b), (x, y)| {
        (a + (x - mx) * (y - my), b + (x - mx) * (x - mx))
    });
    above / below
}
