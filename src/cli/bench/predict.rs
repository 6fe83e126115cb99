//! `trackside bench predict`: predictions a second, how long one record takes, and the models for 20 cars.
//!
//! The baseline, in the same run: the same records, folded and not predicted from; and predicted by the floor
//! alone. `predict.p50_ms` and `p99_ms`: one answer of every model in the manifest for [`CARS`] cars, one after
//! another on one core. Between its rounds onnxruntime does the same on the same files, likewise on one thread,
//! where Python has it: `predict.ratio_to_onnxruntime` is below 1 where ours are quicker.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::onnxruntime::{self, OnnxRuntime, Provider};
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
/// Rounds that are measured, after one that is not, and ticks in each.
const ROUNDS: usize = 20;
const TICKS: usize = 25;

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

/// Milliseconds of every model, tick by tick.
type Times = Vec<Vec<f64>>;

/// One answer of every model for all cars, again and again.
fn ticks(folder: &Path) -> anyhow::Result<Value> {
    let manifest = Manifest::read(folder)?;
    let mut engines = Vec::new();
    for model in &manifest.models {
        engines.push(inference::load(folder, &model.name)?);
    }
    let inputs: Vec<Vec<Tensor>> = engines.iter().map(|e| made_up(e.as_ref())).collect();
    let files = engines.iter().map(|e| folder.join(&e.model().file));
    let files = files.zip(&inputs);
    let models: Vec<_> = files.map(|(f, i)| onnxruntime::Model::new(f, i)).collect();
    let mut rival = OnnxRuntime::start(&models, 1, Provider::Cpu)?;
    let mut ours: Times = vec![Vec::new(); engines.len()];
    let mut theirs = ours.clone();
    for round in 0..=ROUNDS {
        let mut took = vec![Vec::with_capacity(TICKS); engines.len()];
        for _ in 0..TICKS {
            for ((engine, inputs), took) in engines.iter().zip(&inputs).zip(&mut took) {
                let began = Instant::now();
                engine.run(inputs)?;
                took.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        let rivals = match &mut rival {
            Ok(runtime) => runtime.round(TICKS)?,
            Err(_) => Times::new(),
        };
        if round > 0 {
            let both = [(&mut ours, took), (&mut theirs, rivals)];
            for (all, new) in both {
                all.iter_mut()
                    .zip(new)
                    .for_each(|(all, new)| all.extend(new));
            }
        }
    }
    let names: Vec<String> = engines.iter().map(|e| e.model().id()).collect();
    let backends = engines.iter().map(|e| e.backend());
    let mut told = told(&names, &mut ours);
    if let Value::Object(models) = &mut told["models"] {
        for (model, backend) in models.values_mut().zip(backends) {
            model["backend"] = json!(backend);
        }
    }
    told["cars"] = json!(CARS);
    let p50 = told["p50_ms"].as_f64();
    match &rival {
        Ok(runtime) => {
            let mut rivals = self::told(&names, &mut theirs);
            let ratio = p50.zip(rivals["p50_ms"].as_f64()).map(|(a, b)| a / b);
            rivals["version"] = json!(runtime.version);
            rivals["threads"] = json!(1);
            told["onnxruntime"] = rivals;
            told["ratio_to_onnxruntime"] = json!(ratio);
        }
        Err(why) => {
            told["onnxruntime"] = json!({ "missing": why });
            told["ratio_to_onnxruntime"] = Value::Null;
        }
    }
    Ok(told)
}

/// Quantiles of whole ticks, and of each model.
fn told(names: &[String], times: &mut [Vec<f64>]) -> Value {
    let ticks = times.first().map_or(0, Vec::len);
    let mut whole: Vec<f64> = (0..ticks)
        .map(|t| times.iter().map(|m| m[t]).sum())
        .collect();
    let quantiles = |times: &mut Vec<f64>| json!({ "p50_ms": quantile(times, 0.5), "p99_ms": quantile(times, 0.99) });
    let models = names.iter().zip(times);
    let models = models.map(|(name, times)| (name.clone(), quantiles(times)));
    let models: serde_json::Map<String, Value> = models.collect();
    let mut told = quantiles(&mut whole);
    told["models"] = Value::Object(models);
    told
}

/// Inputs for all cars at once: a row each where the model has a plan for so many, else it has all cars in one row.
fn made_up(engine: &dyn Engine) -> Vec<Tensor> {
    let model = engine.model();
    let batch = if model.batches.contains(&CARS) {
        CARS
    } else {
        1
    };
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
    model.inputs.iter().map(tensor).collect()
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
