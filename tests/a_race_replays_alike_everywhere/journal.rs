//! What a journal holds, as `trackside journal` tells it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::support::{self, Daemon, Heard, Official, trackside};
use super::{Offline, replay};

/// `journal verify` and `journal ls` on a data folder; returns what the export says, by topic.
pub fn check_journal(data: &Path, official: &Official) -> BTreeMap<String, (u64, u64)> {
    Daemon::verify(data).expect("a whole journal");
    let output = trackside()
        .args(["journal", "ls", "--json", "--data"])
        .arg(data)
        .output()
        .expect("trackside");
    assert!(output.status.success(), "{output:?}");
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = |of: fn(&support::Count) -> u64| -> Value {
        let counts = official.counts.iter();
        counts
            .map(|(topic, c)| (topic.trim_start_matches("v1/").to_owned(), of(c).into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    assert_eq!(listed["entries"], expected(|c| c.messages));
    assert_eq!(listed["documents"], expected(|c| c.documents));
    assert_eq!(listed["next_seq"], official.messages());
    assert_eq!(listed["losses"], serde_json::json!([]));

    let exported = fingerprints(data, &official.ids);
    let counted = exported.iter().map(|(topic, of)| (topic.as_str(), of.0));
    let messages = official.counts.iter();
    assert!(
        counted.eq(messages.map(|(topic, c)| (topic.as_str(), c.messages))),
        "exported: {exported:?}"
    );
    exported
}

/// How many records of each topic an export holds, and a hash of them in their order and with their place
/// among all others.
fn fingerprints(data: &Path, ids: &[i64]) -> BTreeMap<String, (u64, u64)> {
    let mut child = trackside()
        .args(["journal", "export", "--out", "-", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("trackside");
    let mut topics: BTreeMap<String, (u64, Xxh3)> = BTreeMap::new();
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut astray = None;
    for (seq, line) in (0_u64..).zip(lines) {
        let line = line.expect("a line");
        let (topic, payload) = exported(&line);
        let (_, id) = support::version(payload.as_bytes()).expect("a document");
        let expected = usize::try_from(seq)
            .ok()
            .and_then(|at| ids.get(at).copied());
        if id != expected {
            astray = astray.or(Some((seq, id, expected)));
        }
        let (count, hash) = topics.entry(topic).or_default();
        *count += 1;
        hash.update(&seq.to_le_bytes());
        hash.update(line.as_bytes());
    }
    let status = child.wait().expect("a child");
    assert!(status.success(), "journal export: {status}");
    assert_eq!(
        astray, None,
        "sequence, its _id, and the one that was recorded there"
    );
    let fingerprint =
        |(topic, (count, hash)): (String, (u64, Xxh3))| (topic, (count, hash.digest()));
    topics.into_iter().map(fingerprint).collect()
}

/// What can be taken out of a journal can be played again, and tables have a row for every record.
pub fn check_exports(offline: &Offline, official: &Official, folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    let export = |arguments: &[&str], name: &str| -> PathBuf {
        let out = folder.join(name);
        let output = trackside()
            .args(["journal", "export", "--data"])
            .arg(offline.data())
            .arg("--out")
            .arg(&out)
            .args(arguments)
            .output()
            .expect("trackside");
        assert!(output.status.success(), "{name}: {output:?}");
        out
    };
    let recording = export(&["--format", "ndjson"], "again.ndjson");
    let again = folder.join("predictions.ndjson");
    let again = again.to_str().expect("a path in UTF-8");
    let engines = ["--engines", offline.engines];
    let rest = ["--offline", "--predictions", again];
    replay(&recording, &[engines.as_slice(), &rest].concat(), folder);
    same_lines(
        "the export",
        &lines_of(again.as_ref()),
        &offline.predictions,
    );
    fs::remove_file(recording).expect("an export");

    for topic in [
        "v1/laps",
        "v1/car_data",
        "v1/race_control",
        "v1/session_result",
    ] {
        let (kind, rows) = (&topic[3..], official.counts[topic].messages);
        let csv = export(&["--format", "csv", "--kind", kind], "table.csv");
        // Nothing here has a line break within a field.
        assert_eq!(
            lines_of(&csv).len() as u64,
            rows + 1,
            "CSV of {kind}, with its header"
        );
        let parquet = export(&["--format", "parquet", "--kind", kind], "table.parquet");
        let file = fs::File::open(parquet).expect("a table");
        let reader = SerializedFileReader::new(file).expect("Parquet");
        let said = u64::try_from(reader.metadata().file_metadata().num_rows());
        let read = reader.get_row_iter(None).expect("rows");
        assert_eq!(said, Ok(rows), "Parquet of {kind}");
        let read = read.filter(Result::is_ok).count() as u64;
        assert_eq!(read, rows, "rows of {kind} that can be read");
    }
}

/// The predictions in a data folder, as JSON, in order.
pub fn predictions_in(data: &Path) -> Vec<String> {
    let output = trackside()
        .args([
            "journal",
            "export",
            "--stream",
            "predictions",
            "--out",
            "-",
            "--data",
        ])
        .arg(data)
        .output()
        .expect("trackside");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let check = |line: &str| {
        let (topic, payload) = exported(line);
        check_topic(Heard {
            topic,
            payload: payload.into_bytes(),
        })
    };
    text.lines().map(check).collect()
}

/// Topic and payload of an exported line, the payload byte for byte.
fn exported(line: &str) -> (String, String) {
    #[derive(Deserialize)]
    struct Line<'a> {
        topic: String,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let line: Line<'_> = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:.200}"));
    (line.topic, line.payload.get().to_owned())
}

/// The payload of a prediction, after a look at its topic.
pub fn check_topic(heard: Heard) -> String {
    let text = String::from_utf8(heard.payload).expect("JSON");
    let prediction: Value = serde_json::from_str(&text).expect("JSON");
    let rest = match (&prediction["prediction"], &prediction["driver_number"]) {
        (Value::String(kind), Value::Number(car)) if kind == "lap_time" => format!("laptime/{car}"),
        (Value::String(kind), Value::Number(car)) if kind == "pit" => format!("pit/{car}"),
        _ => "race".to_owned(),
    };
    assert_eq!(
        heard.topic,
        format!("trackside/v1/predictions/{rest}"),
        "{text:.200}"
    );
    text
}

pub fn lines_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(str::to_owned).collect()
}

/// # Panics
/// With the first difference, where two lists of lines are not the same.
pub fn same_lines(what: &str, found: &[String], expected: &[String]) {
    let first = found.iter().zip(expected).position(|(f, e)| f != e);
    if let Some(at) = first {
        panic!(
            "{what}: prediction {at} is\n  {:.400}\ninstead of\n  {:.400}",
            found[at], expected[at]
        );
    }
    assert_eq!(found.len(), expected.len(), "{what}: predictions");
}
