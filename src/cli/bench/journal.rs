//! `trackside bench journal`: what a row costs on disk, how quickly a journal opens and is read.
//!
//! The baseline, in the same run: the same rows appended as NDJSON and packed by zstd.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::memory_of;
use crate::journal::{Journal, MAX_BATCH, Options, Query};
use crate::record::{Entry, Kind, decode};

/// Entries in one commit while the journal is filled.
const COMMIT_ENTRIES: usize = 4096;
/// zstd's own default, for the baseline.
const ZSTD_LEVEL: i32 = 3;

#[derive(Deserialize)]
struct Line<'a> {
    topic: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Calls `each` with every entry of a recording and the payload that it came from.
fn read_recording(
    recording: &Path,
    mut each: impl FnMut(Entry, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let file = File::open(recording).with_context(|| format!("open {}", recording.display()))?;
    let mut lines = BufReader::new(zstd::stream::read::Decoder::new(file)?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let parsed: Line = serde_json::from_str(&line)?;
        let payload = parsed.payload.get();
        if let Ok(decoded) = decode(parsed.topic, &Bytes::copy_from_slice(payload.as_bytes())) {
            each(decoded.entry, payload)?;
        }
        line.clear();
    }
    Ok(())
}

/// Forgets the highest resident set so far.
fn reset_peak() -> std::io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
}

fn segment_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if file.path().extension().is_some_and(|e| e == "seg") {
            bytes += file.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Bytes and rows of a journal of one kind (or of all), and of the same rows as zstd-packed NDJSON.
fn cost(recording: &Path, dir: &Path, kind: Option<Kind>) -> anyhow::Result<Value> {
    let mut journal = Journal::open(dir, Options::default(), &mut |_| {})?;
    let mut packed = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    let mut buffer = Vec::with_capacity(COMMIT_ENTRIES);
    let (mut rows, mut raw, mut writing) = (0u64, 0u64, 0.0);
    read_recording(recording, |entry, payload| {
        if kind.is_some_and(|k| entry.record.kind() != k) {
            return Ok(());
        }
        rows += 1;
        raw += payload.len() as u64 + 1;
        packed.write_all(payload.as_bytes())?;
        packed.write_all(b"\n")?;
        buffer.push(entry);
        if buffer.len() == COMMIT_ENTRIES {
            let started = Instant::now();
            journal.append(std::mem::take(&mut buffer));
            journal.commit()?;
            writing += started.elapsed().as_secs_f64();
        }
        Ok(())
    })?;
    journal.append(buffer);
    journal.close_segment()?;
    journal.close()?;
    let bytes = segment_bytes(dir)?;
    let ndjson = packed.finish()?.len() as u64;
    let per_row = |bytes: u64| bytes as f64 / rows.max(1) as f64;
    Ok(json!({
        "rows": rows,
        "bytes_per_row": per_row(bytes),
        "ndjson_zstd_bytes_per_row": per_row(ndjson),
        "ndjson_bytes_per_row": per_row(raw),
        "ratio_to_ndjson_zstd": bytes as f64 / ndjson.max(1) as f64,
        "commit_rows_per_s": rows as f64 / f64::max(writing, 1e-9),
    }))
}

/// Measures the journal on a recording.
pub fn run(recording: &Path) -> anyhow::Result<Value> {
    let scratch = std::env::temp_dir().join(format!("trackside-bench-{}", std::process::id()));
    let measured = measure(recording, &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    measured
}

fn measure(recording: &Path, scratch: &Path) -> anyhow::Result<Value> {
    let car_data = cost(recording, &scratch.join("car_data"), Some(Kind::CarData))?;
    let location = cost(recording, &scratch.join("location"), Some(Kind::Location))?;
    let whole = scratch.join("all");
    let all = cost(recording, &whole, None)?;

    let started = Instant::now();
    let journal = Journal::open(&whole, Options::default(), &mut |_| {})?;
    let open_s = started.elapsed().as_secs_f64();
    let reader = journal.reader();
    let (mut seq, mut entries) = (reader.first_seq(), 0u64);
    loop {
        let batch = reader.batch(seq, MAX_BATCH)?;
        if batch.entries.is_empty() {
            break;
        }
        entries += batch.entries.len() as u64;
        seq = batch.next_seq();
    }
    let recover_s = started.elapsed().as_secs_f64();
    anyhow::ensure!(json!(entries) == all["rows"], "{entries} entries came back");
    drop((reader, journal));

    let reader = Journal::open_read_only(&whole, &mut |_| {})?;
    // What filling the journal left in the allocator counts as idle here: the figure is what scanning
    // adds to a process that has worked. Without leave to reset it, the peak is that of the whole run: too high, never too low.
    let _ = reset_peak();
    let idle = memory_of("self", "VmRSS")?;
    let started = Instant::now();
    let mut fastest = i16::MIN;
    let rows = reader.car_data(&Query::default(), &mut |columns| {
        fastest = columns.speed.values.iter().copied().fold(fastest, i16::max);
    })?;
    let scan_s = started.elapsed().as_secs_f64();
    let over_idle = memory_of("self", "VmHWM")?.saturating_sub(idle);
    Ok(json!({
        "journal": {
            "bytes_per_row": {
                "car_data": car_data["bytes_per_row"],
                "location": location["bytes_per_row"],
                "all": all["bytes_per_row"],
            },
            "ratio_to_ndjson_zstd": {
                "car_data": car_data["ratio_to_ndjson_zstd"],
                "location": location["ratio_to_ndjson_zstd"],
                "all": all["ratio_to_ndjson_zstd"],
            },
            "commit_rows_per_s": all["commit_rows_per_s"],
            "open_s": open_s,
            "recover_s": recover_s,
            "scan": {
                "rows": rows,
                "rows_per_s": rows as f64 / scan_s,
                "peak_bytes_over_idle": over_idle,
                "fastest_kmh": fastest,
            },
        },
        "baseline": { "car_data": car_data, "location": location, "all": all },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::say::note;

    /// The promise of the format, on ten minutes of a real race.
    #[test]
    fn a_row_of_car_data_costs_less_than_four_and_a_half_bytes() {
        let data = std::env::var_os("TRACKSIDE_DATA").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
            Into::into,
        );
        let recording = data.join("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst");
        if !recording.exists() {
            assert!(
                std::env::var_os("CI").is_none(),
                "{} is missing",
                recording.display()
            );
            note!("passed over: {} is missing", recording.display());
            return;
        }
        let found = run(&recording).unwrap();
        note!("{found:#}");
        assert!(
            found["journal"]["bytes_per_row"]["car_data"]
                .as_f64()
                .unwrap()
                <= 4.5
        );
        assert!(
            found["journal"]["ratio_to_ndjson_zstd"]["all"]
                .as_f64()
                .unwrap()
                < 0.5
        );
    }
}
