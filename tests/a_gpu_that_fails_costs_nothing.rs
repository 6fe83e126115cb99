//! With a GPU the answers are the same; when it fails in the middle of a race the processor goes on, and the GPU comes
//! back; where it is asked for and is not there, that is said with what to do about it.
//!
//! The GPU is `kernels/host/driver.cpp`, a libcuda.so that runs the kernels' own bodies on the host and breaks when it
//! is told to. Against a real one, `tests/gpu` does the same.

#![cfg(feature = "cuda")]
#![forbid(unsafe_code)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    Broker, BrokerOptions, Daemon, Scratch, Subscriber, mqtt_source, trackside, wait_for,
};

const READY_WITHIN: Duration = Duration::from_secs(180);
const HEARD_WITHIN: Duration = Duration::from_secs(180);
/// Launches and graphs until the device breaks.
const LAUNCHES: &str = "fail:cuGraphLaunch:25";
const CARS: &str = "6";
/// Simulations of a question: fibers drive them.
const SIMULATIONS: &str = "16";

/// The folder of a driver for tests.
fn driver(scratch: &Scratch) -> PathBuf {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let folder = scratch.join("driver");
    std::fs::create_dir_all(&folder).expect("a folder");
    let built = Command::new("g++")
        .args([
            "-std=c++17",
            "-O1",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
        ])
        .args(["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"])
        .args(["-ffp-contract=off", "-Wno-unknown-pragmas", "-I"])
        .arg(&kernels)
        .arg(kernels.join("host/driver.cpp"))
        .arg("-o")
        .arg(folder.join("libcuda.so"))
        .status()
        .expect("g++ builds the driver for tests; install build-essential");
    assert!(built.success(), "the driver for tests does not compile");
    folder
}

fn run(command: &mut Command) -> Output {
    command.output().expect("trackside runs")
}

fn race(file: &Path, laps: &str) {
    let made = run(trackside()
        .args([
            "simulate", "--cars", CARS, "--laps", laps, "--dirt", "0", "--rain", "dry", "--out",
        ])
        .arg(file));
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn strategy(file: &Path, backend: &str) -> Command {
    let mut command = trackside();
    command
        .arg("strategy")
        .arg(file)
        .args(["--lap", "13", "--driver", "7", "--laps", "16"]);
    command.args([
        "--simulations",
        SIMULATIONS,
        "--engines",
        "none",
        "--json",
        "--backend",
        backend,
    ]);
    command
}

fn json(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Takes what computed it out of an answer.
fn by(answer: &mut Value) -> (Value, Value) {
    let fields = answer.as_object_mut().expect("an object");
    let mut take = |name: &str| fields.remove(name).expect("a field");
    (take("backend"), take("no_gpu"))
}

#[test]
fn a_strategy_is_the_same_with_a_gpu_with_one_that_fails_and_without() {
    let scratch = Scratch::new();
    let folder = driver(&scratch);
    let file = scratch.join("race.ndjson");
    race(&file, "16");
    let mut cpu = json(&run(&mut strategy(&file, "cpu")));
    assert_eq!(by(&mut cpu), ("cpu".into(), Value::Null));
    let with = |broken: &str| {
        let mut command = strategy(&file, "cuda");
        command
            .env("LD_LIBRARY_PATH", &folder)
            .env("TRACKSIDE_DRIVER", broken);
        json(&run(&mut command))
    };
    let mut gpu = with("");
    assert_eq!(by(&mut gpu), ("cuda".into(), Value::Null));
    assert_eq!(gpu, cpu);
    let mut failed = with("fail:cuLaunchKernel:2");
    let (backend, why) = by(&mut failed);
    assert_eq!(backend, "cpu");
    assert!(
        why.as_str().is_some_and(|why| why.contains("failed")),
        "{why}"
    );
    assert_eq!(failed, cpu);
}

#[test]
fn a_gpu_that_is_not_there_is_missed_only_by_who_asks_for_it() {
    let scratch = Scratch::new();
    let file = scratch.join("race.ndjson");
    race(&file, "16");
    // A driver without a device, on whatever machine this is.
    let folder = driver(&scratch);
    let without = |backend: &str| {
        let mut command = strategy(&file, backend);
        command
            .env("LD_LIBRARY_PATH", &folder)
            .env("TRACKSIDE_DRIVER", "fail:cuModuleLoadData:1");
        run(&mut command)
    };
    let refused = without("cuda");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    for part in ["--backend cuda", "cuModuleLoadData", "take the CPU"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    let mut auto = json(&without("auto"));
    let (backend, why) = by(&mut auto);
    assert_eq!(backend, "cpu");
    assert!(
        why.as_str()
            .is_some_and(|why| why.contains("cuModuleLoadData")),
        "{why}"
    );
    let unknown = without("opencl");
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("auto, cpu and cuda"), "{said}");
}

/// `trackside bench kernels --break` with a driver that breaks like that.
fn broken(scratch: &Scratch, driver_breaks: &str) -> Output {
    let mut command = trackside();
    command
        .args(["bench", "kernels", "--json", "--require-gpu", "--break"])
        .args(["--kernel", "frame_stats"])
        .env("LD_LIBRARY_PATH", driver(scratch))
        .env("TRACKSIDE_DRIVER", driver_breaks);
    run(&mut command)
}

#[test]
fn a_gpu_that_is_broken_on_purpose_is_missed_by_nobody_and_comes_back() {
    let found = json(&broken(&Scratch::new(), ""));
    let faults = &found["kernels"]["faults"];
    assert_eq!(faults["leaked_bytes"], 0);
    let rounds = faults["rounds"].as_array().expect("rounds");
    let during: Vec<&Value> = rounds.iter().map(|round| &round["during"]).collect();
    assert_eq!(during, ["ticks", "races", "ticks"]);
    for round in rounds {
        let error = round["error"].as_str().expect("an error");
        assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{round}");
        assert!(round["ticks_by_cpu"].as_u64() > Some(20), "{round}");
    }
    let figures: Vec<&str> = found["kernels"]["targets"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|target| target["figure"].as_str())
        .collect();
    assert_eq!(figures, ["faults.longest_tick_ms", "faults.leaked_bytes"]);
}

/// What is asked for is judged: a device that does not fail by itself, but does not answer, and one that has less
/// memory each time.
#[test]
fn a_gpu_that_does_not_fail_as_it_should_fails_the_bench() {
    let scratch = Scratch::new();
    // Of the first graph's launches, that after which the fault shows.
    for (breaks, said) in [
        ("slow:cuGraphLaunch:21", "was to fail by itself"),
        ("leaks", "bytes less after it has failed again"),
    ] {
        let output = broken(&scratch, breaks);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{breaks}");
        assert!(stderr.contains(said), "{breaks}: {stderr}");
    }
}

/// Runs of a stage on a backend.
fn runs(daemon: &Daemon, stage: &str, backend: &str) -> f64 {
    let (_, body) = daemon.get("/metrics").expect("metrics");
    let name = "trackside_insight_stage_seconds_count{";
    let (stage, backend) = (
        format!("stage=\"{stage}\""),
        format!("backend=\"{backend}\""),
    );
    body.lines()
        .filter(|l| l.starts_with(name) && l.contains(&stage) && l.contains(&backend))
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_daemon_goes_on_when_its_gpu_fails_and_takes_it_back() {
    let scratch = Scratch::new();
    let folder = driver(&scratch);
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let file = scratch.join("race.ndjson");
    race(&file, "10");
    // Nobody's stops are simulated here: fibers would take minutes for it.
    let sections = format!(
        "{}[compute]\nbackend = \"cuda\"\ncars = [99]\n\n[publish.mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n",
        mqtt_source(&broker, "gpu"),
        broker.port()
    );
    let daemon = Daemon::start_wrapped(
        &scratch.join("daemon"),
        &sections,
        READY_WITHIN,
        |mut command| {
            command
                .env("LD_LIBRARY_PATH", &folder)
                .env("TRACKSIDE_DRIVER", LAUNCHES);
            (command, false)
        },
    );
    daemon.wait_connected(READY_WITHIN);
    let heard = Subscriber::to(&broker, "trackside/v1/insights/#");
    let mut feed = trackside();
    feed.arg("replay")
        .arg(&file)
        .args(["--speed", "25", "--mqtt"]);
    feed.arg(format!("mqtt://127.0.0.1:{}", broker.port()));
    let mut feed = support::Process::start("replay", feed, &scratch.join("replay.log"));

    wait_for("ticks on the GPU", HEARD_WITHIN, || {
        (runs(&daemon, "tick", "cuda") > 10.0).then_some(())
    });
    wait_for(
        "the GPU to fail, and ticks on the CPU",
        HEARD_WITHIN,
        || {
            let failures = daemon.metric("trackside_compute_gpu_errors_total");
            (failures >= Some(1.0) && runs(&daemon, "tick", "cpu") > 10.0).then_some(())
        },
    );
    let before = runs(&daemon, "tick", "cuda");
    wait_for("ticks on the GPU again", HEARD_WITHIN, || {
        (runs(&daemon, "tick", "cuda") > before + 10.0).then_some(())
    });
    wait_for("laps and stints to be told", HEARD_WITHIN, || {
        let told = daemon.json("/api/v1/insights");
        let of = |name: &str| told[name].as_object().map_or(0, serde_json::Map::len);
        (of("lap") >= 6 && of("stint") >= 6).then_some(())
    });
    assert!(feed.wait(HEARD_WITHIN).success(), "{}", feed.log());
    wait_for("insights on the broker", HEARD_WITHIN, || {
        let topics: Vec<String> = heard.heard().into_iter().map(|h| h.topic).collect();
        let has = |part: &str| topics.iter().any(|t| t.contains(part));
        (has("/insights/lap/") && has("/insights/stint/")).then_some(())
    });
    // The pipeline never noticed.
    let (status, health) = daemon.get("/health").expect("health");
    assert_eq!(status, 200, "{health}");
    assert!(daemon.terminate(READY_WITHIN).success());
}

/// Longest time between two ticks beside a GPU that hangs: two limits of a tick, the looks at the metrics, and what
/// a machine that does much else takes.
const LONGEST_GAP: Duration = Duration::from_secs(4);
/// Ticks are watched for so long after it hangs: past the time at which a GPU that failed is opened anew.
const WATCHED: Duration = Duration::from_secs(12);
const LOOKS_EVERY: Duration = Duration::from_millis(20);

#[test]
fn a_daemon_ticks_on_when_its_gpu_hangs() {
    let scratch = Scratch::new();
    let folder = driver(&scratch);
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let file = scratch.join("race.ndjson");
    race(&file, "16");
    let sections = format!(
        "{}[compute]\nbackend = \"cuda\"\ncars = [99]\n",
        mqtt_source(&broker, "hang"),
    );
    let daemon = Daemon::start_wrapped(
        &scratch.join("daemon"),
        &sections,
        READY_WITHIN,
        |mut command| {
            command
                .env("LD_LIBRARY_PATH", &folder)
                .env("TRACKSIDE_DRIVER", "hang:cuGraphLaunch:25");
            (command, false)
        },
    );
    daemon.wait_connected(READY_WITHIN);
    let mut feed = trackside();
    feed.arg("replay")
        .arg(&file)
        .args(["--speed", "25", "--mqtt"]);
    feed.arg(format!("mqtt://127.0.0.1:{}", broker.port()));
    let feed = support::Process::start("replay", feed, &scratch.join("replay.log"));
    wait_for("ticks on the GPU", HEARD_WITHIN, || {
        (runs(&daemon, "tick", "cuda") > 10.0).then_some(())
    });
    let all = || runs(&daemon, "tick", "cuda") + runs(&daemon, "tick", "cpu");
    let (began, mut ticked, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut count = all();
    while began.elapsed() < WATCHED {
        let now = all();
        if now > count {
            longest = longest.max(ticked.elapsed());
            (ticked, count) = (Instant::now(), now);
        }
        std::thread::sleep(LOOKS_EVERY);
    }
    longest = longest.max(ticked.elapsed());
    assert!(longest < LONGEST_GAP, "{longest:?} without a tick");
    assert!(
        runs(&daemon, "tick", "cuda") <= 24.0,
        "graphs until it hangs"
    );
    assert!(runs(&daemon, "tick", "cpu") > 100.0);
    assert_eq!(daemon.metric("trackside_compute_gpu_healthy"), Some(0.0));
    assert!(daemon.metric("trackside_compute_gpu_errors_total") >= Some(1.0));
    let (status, health) = daemon.get("/health").expect("health");
    assert_eq!(status, 200, "{health}");
    drop(feed);
    // A thread that hangs does not keep the process.
    assert!(daemon.terminate(READY_WITHIN).success());
}
