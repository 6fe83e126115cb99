//! `trackside bench predict`: predictions a second from the floor, and how long one record takes.
//!
//! The baseline, in the same run: the same records, folded and not predicted from.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::{feed, quantile};
use crate::predict::Predictor;
use crate::predict::floor::Floor;
use crate::race::Race;
use crate::record::decode;

/// Most messages.
const MESSAGES: usize = 1_500_000;

/// Measures the predictions.
///
/// # Errors
/// If the recording cannot be read.
pub fn run(recording: Option<&Path>) -> anyhow::Result<Value> {
    let messages = feed::messages(recording, MESSAGES)?;
    let mut race = Race::new();
    let mut predictor = Predictor::new(Floor::shipped());
    let (mut records, mut predictions) = (0_u64, 0);
    let (mut folding, mut observing) = (0.0, 0.0);
    // Of the records that brought predictions about (µs); the others cost next to nothing.
    let mut each = Vec::new();
    for message in &messages {
        let Ok(decoded) = decode(&message.topic, &message.payload) else {
            continue;
        };
        let began = Instant::now();
        let events = race.apply(records, &decoded.entry);
        let folded = Instant::now();
        let made = predictor.observe(&race, records, &events).len();
        let took = folded.elapsed().as_secs_f64();
        folding += (folded - began).as_secs_f64();
        observing += took;
        if made > 0 {
            each.push(took * 1e6);
        }
        predictions += made;
        records += 1;
    }
    let making: f64 = each.iter().sum::<f64>() * 1e-6;
    Ok(json!({
        "predict": {
            "records": records,
            "predictions": predictions,
            "predictions_per_s": predictions as f64 / making,
            "observe_us": {
                "records_that_predict": each.len(),
                "p50": quantile(&mut each, 0.5),
                "p99": quantile(&mut each, 0.99),
                "max": quantile(&mut each, 1.0),
                "mean_of_all_records": observing / records as f64 * 1e6,
            },
        },
        "baseline": { "fold_us_per_record": folding / records as f64 * 1e6 },
    }))
}
