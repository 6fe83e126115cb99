//! `trackside bench predict`: predictions a second, how long one record takes, and the models for 20 cars.
//!
//! The baseline, in the same run: the same records, folded and not predicted from; and predicted by the floor
//! alone. `predict.p50_ms` and `p99_ms`: one answer of every model in the manifest for [`CARS`] cars, one after
//! another on one core.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::{feed, quantile};
use crate::engines::Chosen;
use crate::inference::{self, Engine, Manifest, Tensor};
use crate::predict::floor::Floor;
use crate::predict::{Models, Predictor};
use crate::race::Race;
use crate::record::decode;

/// Most messages.
const MESSAGES: usize = 1_500_000;
/// Cars that the models answer for at once.
const CARS: usize = 20;
/// Ticks that are measured, after a few that are not.
const TICKS: usize = 300;
const WARM_UP: usize = 20;

/// Measures the predictions.
///
/// # Errors
/// If the recording cannot be read.
pub fn run(recording: Option<&Path>) -> anyhow::Result<Value> {
    let messages = feed::messages(recording, MESSAGES)?;
    let (models, folder) = (Chosen::Found.load()?, Chosen::Found.folder());
    let floor = walk(&messages, Models::none());
    let mut figures = walk(&messages, models);
    if let (Some(ours), Some(fold)) = (figures["predict"].as_object_mut(), floor.get("baseline")) {
        let ticks = folder.as_deref().map(ticks).transpose()?;
        if let Some(Value::Object(ticks)) = ticks {
            ours.extend(ticks);
        }
        let observe = floor["predict"]["observe_us"].clone();
        figures["baseline"] = json!({ "floor_observe_us": observe, "fold": fold });
    }
    Ok(figures)
}

/// One answer of every model for all cars, again and again.
fn ticks(folder: &Path) -> anyhow::Result<Value> {
    let manifest = Manifest::read(folder)?;
    let mut engines = Vec::new();
    for model in &manifest.models {
        engines.push(inference::load(folder, &model.name)?);
    }
    let inputs: Vec<(usize, Vec<Tensor>)> = engines.iter().map(|e| made_up(e.as_ref())).collect();
    let mut each: Vec<Vec<f64>> = vec![Vec::with_capacity(TICKS); engines.len()];
    let mut whole = Vec::with_capacity(TICKS);
    for tick in 0..WARM_UP + TICKS {
        let mut sum = 0.0;
        for ((engine, (times, inputs)), each) in engines.iter().zip(&inputs).zip(&mut each) {
            let began = Instant::now();
            for _ in 0..*times {
                engine.run(inputs)?;
            }
            let took = began.elapsed().as_secs_f64() * 1e3;
            sum += took;
            if tick >= WARM_UP {
                each.push(took);
            }
        }
        if tick >= WARM_UP {
            whole.push(sum);
        }
    }
    let by_model: serde_json::Map<String, Value> = engines
        .iter()
        .zip(&mut each)
        .map(|(engine, times)| {
            let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
            let told = json!({ "backend": engine.backend(), "p50_ms": p50, "p99_ms": p99 });
            (engine.model().id(), told)
        })
        .collect();
    Ok(json!({
        "p50_ms": quantile(&mut whole, 0.5),
        "p99_ms": quantile(&mut whole, 0.99),
        "cars": CARS,
        "models": by_model,
    }))
}

/// Inputs for all cars at once where the model has a plan for so many, and how often to run it.
fn made_up(engine: &dyn Engine) -> (usize, Vec<Tensor>) {
    let model = engine.model();
    let by_car = model.inputs.iter().any(|i| i.shape.contains(&-1));
    let batch = if model.batches.contains(&CARS) {
        CARS
    } else {
        1
    };
    let times = if by_car { CARS / batch } else { 1 };
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let tensor = |spec: &inference::TensorSpec| {
        let shape = spec.with_batch(batch);
        let values = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::new(&spec.name, &shape, values)
    };
    (times, model.inputs.iter().map(tensor).collect())
}

fn walk(messages: &[feed::Message], models: Models) -> Value {
    let mut race = Race::new();
    let mut predictor = Predictor::new(Floor::shipped()).with_models(models);
    let (mut records, mut predictions) = (0_u64, 0);
    let (mut folding, mut observing) = (0.0, 0.0);
    // Of the records that brought predictions about (µs); the others cost next to nothing.
    let mut each = Vec::new();
    for message in messages {
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
    json!({
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
    })
}
