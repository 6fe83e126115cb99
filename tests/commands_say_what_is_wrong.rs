//! The command line says what is wrong, in its exit code too, and keeps what it has.

#![forbid(unsafe_code)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::{Process, Scratch, trackside, wait_for};

/// Lines of a recording that is long enough for several reads of the file.
const LINES: usize = 20_000;
const BAD_LINES: usize = 640;
/// Lines that a flood of bad ones may write to the standard error.
const MOST_SAID: usize = 10;
/// How soon a broker that is out of reach is to be told of.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A recording of one car's telemetry.
fn recording(lines: usize) -> String {
    let mut text = String::new();
    for n in 0..lines {
        let (minute, second, ms) = (n / 60_000 % 60, n / 1000 % 60, n % 1000);
        writeln!(
            text,
            r#"{{"t":"2024-03-02T15:{minute:02}:{second:02}.{ms:03}Z","topic":"v1/car_data","payload":{{"meeting_key":1,"session_key":2,"driver_number":3,"date":"2024-03-02T15:{minute:02}:{second:02}.{ms:03}Z","speed":{},"rpm":{},"_key":"{n}","_id":{n}}}}}"#,
            n * 7919 % 350,
            n * 104_729 % 15_000,
        )
        .expect("a String");
    }
    text
}

fn run(command: &mut Command) -> Output {
    command.output().expect("trackside")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn replay(file: &Path, more: &[&str]) -> Output {
    run(trackside()
        .arg("replay")
        .arg(file)
        .args(["--engines", "none"])
        .args(more))
}

#[test]
fn a_recording_that_ends_too_early_leaves_its_summary() {
    let scratch = Scratch::new();
    let whole = zstd::encode_all(recording(LINES).as_bytes(), 3).unwrap();
    let file = scratch.join("cut.ndjson.zst");
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let summary = scratch.join("summary.json");
    let output = replay(&file, &["--summary", summary.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("cannot be read further"),
        "{}",
        said(&output)
    );
    let summary: Value = serde_json::from_slice(&fs::read(summary).unwrap()).unwrap();
    let read = summary["records"]["v1/car_data"]["messages"]
        .as_u64()
        .unwrap() as usize;
    assert!((1..LINES).contains(&read), "{read}");
    let incomplete = summary["incomplete"].as_str().unwrap();
    assert!(
        incomplete.starts_with(&format!("line {}", read + 1)),
        "{incomplete}"
    );

    // And one that does not says nothing of it.
    let file = scratch.join("whole.ndjson.zst");
    fs::write(&file, &whole).unwrap();
    let path = scratch.join("whole.json");
    let output = replay(&file, &["--summary", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let summary: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(summary["records"]["v1/car_data"]["messages"], LINES);
    assert!(summary.get("incomplete").is_none());
}

#[test]
fn what_is_no_recording_is_refused_and_bad_lines_are_sampled() {
    let scratch = Scratch::new();
    let file = scratch.join("file");
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for (bytes, word) in [
        (&b""[..], "empty"),
        (&noise, "no message"),
        (b"\n\n", "empty"),
    ] {
        fs::write(&file, bytes).unwrap();
        let output = replay(&file, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(word), "{}", said(&output));
    }
    let mut text = recording(10);
    text.push_str(&"no line\n".repeat(BAD_LINES));
    fs::write(&file, text).unwrap();
    let output = replay(&file, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).lines().count() <= MOST_SAID,
        "{}",
        said(&output)
    );
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        out.contains(&format!("10 messages, {BAD_LINES} lines skipped")),
        "{out}"
    );
}

#[test]
fn a_broker_that_is_not_there_is_told_of_at_once() {
    let scratch = Scratch::new();
    let file = scratch.join("race.ndjson");
    fs::write(&file, recording(LINES)).unwrap();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = trackside();
    command.arg("replay").arg(&file);
    command.args(["--mqtt", &format!("mqtt://127.0.0.1:{port}")]);
    let mut process = Process::start("replay", command, &scratch.join("log"));
    wait_for("the refusal to be told", TOLD_WITHIN, || {
        process
            .log()
            .to_lowercase()
            .contains("refused")
            .then_some(())
    });
    process.signal(Signal::INT);
    assert_eq!(process.wait(TOLD_WITHIN).code(), Some(1));
    let log = process.log();
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("interrupted: 0 of") && last.contains("acknowledged"),
        "{log}"
    );
}

fn journal(scratch: &Scratch) -> PathBuf {
    let (file, data) = (scratch.join("race.ndjson"), scratch.join("data"));
    fs::write(&file, recording(LINES)).unwrap();
    let output = replay(&file, &["--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    data
}

fn export(data: &Path) -> Command {
    let mut command = trackside();
    command.args(["journal", "export", "--data"]).arg(data);
    command
}

#[test]
fn what_was_replayed_is_sealed_and_exported_with_its_versions() {
    let scratch = Scratch::new();
    let data = journal(&scratch);
    let output = run(trackside()
        .args(["journal", "verify", "--json", "--data"])
        .arg(&data));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = report["files"].as_array().unwrap();
    assert!(
        !files.is_empty() && files.iter().all(|f| f["sealed"] == true),
        "{report:#}"
    );

    // A table that cannot be leaves nothing behind.
    let out = scratch.join("table");
    for format in ["csv", "parquet"] {
        let table = ["--format", format, "--kind", "frames", "--out"];
        let output = run(export(&data).args(table).arg(&out));
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains("do not fit a table"),
            "{}",
            said(&output)
        );
        assert!(!out.exists(), "{format}");
    }
    let output = run(export(&data).args(["--format", "csv", "--kind", "car_data", "--out", "-"]));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().ends_with(",drs,_key,_id"));
    assert!(lines.next().unwrap().ends_with(",0,0"));
    assert_eq!(text.lines().count(), LINES + 1);

    // Whoever has seen enough may go.
    for format in ["ndjson", "csv"] {
        let table = ["--format", format, "--kind", "car_data", "--out", "-"];
        let mut child = export(&data)
            .args(table)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success() && said(&output).is_empty(),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn a_configuration_that_is_shown_can_be_checked() {
    let scratch = Scratch::new();
    let file = scratch.join("trackside.toml");
    fs::write(
        &file,
        "data_dir = '/tmp'\n[[mqtt]]\nname = 'a'\nusername = 'u'\npassword = 'box'\n",
    )
    .unwrap();
    let config =
        |action, file: &Path| run(trackside().args(["config", action, "--config"]).arg(file));
    let output = config("show", &file);
    assert!(output.status.success(), "{}", said(&output));
    let shown = scratch.join("shown.toml");
    fs::write(&shown, &output.stdout).unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("box"));
    let output = config("check", &shown);
    assert!(output.status.success(), "{}", said(&output));
}
