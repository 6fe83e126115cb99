//! What a recording says of its race, counted and read without any of the code under test.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use super::Recording;

/// Topics whose last versions are kept; of the others the documents are only counted.
const KEPT: [&str; 3] = ["v1/session_result", "v1/stints", "v1/pit"];

/// Messages and documents of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub messages: u64,
    /// Distinct `_key`s.
    pub documents: u64,
}

/// A car in the official result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    pub driver_number: u64,
    pub laps: u64,
    /// As a summary writes it.
    pub status: String,
}

/// Driver, stint, compound, first and last lap.
pub type Stint = (u64, u64, String, u64, u64);
/// Driver, in-lap, and the time of day at the pit exit.
pub type Stop = (u64, u64, String);

/// The official rows of a recording, and how much there is of everything.
pub struct Official {
    pub counts: BTreeMap<String, Count>,
    /// `_id` of every message, in order.
    pub ids: Vec<i64>,
    /// In the order of the result.
    pub result: Vec<Classified>,
    /// By car and number, each as last told.
    pub stints: Vec<Stint>,
    /// By car and lap.
    pub stops: Vec<Stop>,
}

impl Official {
    /// Reads a whole recording.
    pub fn of(path: &Path) -> Official {
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        let mut ids = Vec::new();
        let mut newest: HashMap<String, HashMap<String, (i64, String)>> = HashMap::new();
        for message in Recording::open(path) {
            let (key, id) = (message.key.expect("a _key"), message.id.expect("an _id"));
            ids.push(id);
            let count = counts.entry(message.topic.clone()).or_default();
            count.messages += 1;
            let kept = KEPT.contains(&message.topic.as_str());
            let text = if kept { message.payload } else { String::new() };
            let documents = newest.entry(message.topic).or_default();
            let held = documents.entry(key).or_insert_with(|| {
                count.documents += 1;
                (i64::MIN, String::new())
            });
            if id > held.0 {
                *held = (id, text);
            }
        }
        let rows = |topic: &str| -> Vec<(i64, Value)> {
            let mut rows: Vec<(i64, Value)> = newest
                .get(topic)
                .into_iter()
                .flat_map(HashMap::values)
                .map(|(id, text)| (*id, serde_json::from_str(text).expect("JSON")))
                .collect();
            rows.sort_by_key(|(id, _)| *id);
            rows
        };
        let result = rows("v1/session_result");
        let mut stints: Vec<Stint> = rows("v1/stints").iter().map(|(_, r)| stint(r)).collect();
        let mut stops: Vec<Stop> = rows("v1/pit").iter().map(|(_, r)| stop(r)).collect();
        stints.sort();
        stops.sort();
        Official {
            counts,
            ids,
            result: result.iter().map(|(_, r)| classified(r)).collect(),
            stints,
            stops,
        }
    }

    /// All messages.
    pub fn messages(&self) -> u64 {
        self.counts.values().map(|c| c.messages).sum()
    }
}

fn whole(row: &Value, field: &str) -> u64 {
    row[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {row}"))
}

fn stint(row: &Value) -> Stint {
    (
        whole(row, "driver_number"),
        whole(row, "stint_number"),
        row["compound"].as_str().expect("a compound").to_owned(),
        whole(row, "lap_start"),
        whole(row, "lap_end"),
    )
}

fn stop(row: &Value) -> Stop {
    let date = row["date"].as_str().expect("a date");
    (
        whole(row, "driver_number"),
        whole(row, "lap_number"),
        date[11..19].to_owned(),
    )
}

fn classified(row: &Value) -> Classified {
    // `5.504`, `+1 LAP`, or nothing for a car that retired.
    let status = match (&row["dnf"], &row["gap_to_leader"]) {
        (Value::Bool(true), _) => "retired".to_owned(),
        (_, Value::String(laps)) => laps.to_lowercase(),
        _ => "finished".to_owned(),
    };
    Classified {
        driver_number: whole(row, "driver_number"),
        laps: whole(row, "number_of_laps"),
        status,
    }
}
