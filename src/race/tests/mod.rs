//! The fold against recordings of real races, and against sessions written by hand.

mod hand;
mod holes;
mod races;
mod robustness;
mod seasons;
mod strangers;
mod track;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use crate::record::{Entry, Record, decode};

use super::Race;

/// The folder of recordings; `None` where there is none and none is required.
pub(super) fn data(file: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("TRACKSIDE_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    let path = folder.join(file);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is missing: set TRACKSIDE_DATA to the folder with the recordings",
        path.display()
    );
    eprintln!("skipped: {} is missing", path.display());
    None
}

/// Every entry of a recording, in order; read once for all tests.
pub(super) fn recording(name: &'static str) -> Option<&'static [Entry]> {
    static READ: Mutex<BTreeMap<&str, &[Entry]>> = Mutex::new(BTreeMap::new());
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if !read.contains_key(name) {
        read.insert(name, Vec::leak(read_recording(name)?));
    }
    read.get(name).copied()
}

fn read_recording(name: &str) -> Option<Vec<Entry>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        topic: &'a str,
        #[serde(borrow)]
        payload: &'a serde_json::value::RawValue,
    }
    let path = data(&format!("recordings/{name}.ndjson.zst"))?;
    let file = std::fs::File::open(path).unwrap();
    let mut lines = std::io::BufReader::new(zstd::Decoder::new(file).unwrap());
    let mut entries = Vec::new();
    let mut text = String::new();
    while lines.read_line(&mut text).unwrap() > 0 {
        let line: Line = serde_json::from_str(&text).unwrap();
        let payload = bytes::Bytes::copy_from_slice(line.payload.get().as_bytes());
        match decode(line.topic, &payload) {
            Ok(decoded) => entries.push(decoded.entry),
            // The meeting of 2023 comes without its own key.
            Err(reject) => assert_eq!(line.topic, "v1/meetings", "{reject}"),
        }
        text.clear();
    }
    Some(entries)
}

pub(super) fn fold(entries: &[Entry]) -> Race {
    let mut race = Race::new();
    for (seq, entry) in entries.iter().enumerate() {
        race.apply(seq as u64, entry);
    }
    race
}

/// A table of the data folder, row by row, columns by name.
pub(super) fn table(file: &str) -> Option<Vec<BTreeMap<String, String>>> {
    let path = data(file)?;
    let text = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.lines().map(cells);
    let head = lines.next().unwrap();
    Some(
        lines
            .map(|row| head.iter().cloned().zip(row).collect())
            .collect(),
    )
}

fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

/// The official result of a recording: (driver, laps), in its order, and whether it was classified.
pub(super) fn official(entries: &[Entry]) -> Vec<(u8, u16, bool)> {
    let results = entries.iter().filter_map(|e| match &e.record {
        Record::SessionResult(r) => Some((
            r.driver_number,
            r.number_of_laps.unwrap(),
            r.position.is_some(),
        )),
        _ => None,
    });
    results.collect()
}
