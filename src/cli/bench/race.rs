//! `trackside bench race`: records folded into the race state a second.
//!
//! The baseline, in the same run: the same messages, decoded and not folded.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::feed::{self, Message};
use super::median;
use crate::race::Race;
use crate::record::{Entry, decode};

/// Runs of each.
const ROUNDS: usize = 5;
/// Most messages.
const MESSAGES: usize = 200_000;

/// Measures the fold.
///
/// # Errors
/// If the recording cannot be read.
pub fn run(recording: Option<&Path>) -> anyhow::Result<Value> {
    let messages = feed::messages(recording, MESSAGES)?;
    let (mut decoding, mut both, mut folding) = (Vec::new(), Vec::new(), Vec::new());
    let mut records = 0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let entries: Vec<Entry> = decoded(&messages).collect();
        records = entries.len();
        decoding.push(records as f64 / began.elapsed().as_secs_f64());

        let mut race = Race::new();
        let began = Instant::now();
        for (seq, entry) in (0..).zip(&entries) {
            std::hint::black_box(race.apply(seq, entry));
        }
        folding.push(records as f64 / began.elapsed().as_secs_f64());

        let mut race = Race::new();
        let began = Instant::now();
        for (seq, entry) in (0..).zip(decoded(&messages)) {
            std::hint::black_box(race.apply(seq, &entry));
        }
        both.push(records as f64 / began.elapsed().as_secs_f64());
    }
    let (decoding, both) = (median(&mut decoding), median(&mut both));
    Ok(json!({
        "race": {
            "records": records,
            "fold_records_per_s": median(&mut folding),
            "decode_and_fold_records_per_s": both,
            "ratio_to_decoding": both / decoding,
        },
        "baseline": { "decode_records_per_s": decoding },
    }))
}

fn decoded(messages: &[Message]) -> impl Iterator<Item = Entry> {
    messages
        .iter()
        .filter_map(|m| Some(decode(&m.topic, &m.payload).ok()?.entry))
}
