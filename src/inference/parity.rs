//! How far two engines' answers are apart, and what they are asked: recorded inputs, or made-up ones, in the batch size
//! that is asked for.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Fixture, Model, Tensor};

/// Most runs that are compared in one batch size.
const MAX_RUNS: usize = 16;
/// Runs that are made up where none is recorded, and their seed.
const MADE_UP_RUNS: usize = 8;
const SEED: u64 = 2024;

/// Inputs to compare two engines of that model on, in that batch size: the recorded ones, and made-up ones of the right
/// shapes where none is recorded for it. There is always one.
pub fn runs(model: &Model, fixture: Option<&Fixture>, batch: usize) -> Vec<Vec<Tensor>> {
    let recorded = fixture.map_or(Vec::new(), |f| f.at_batch(model, batch));
    if !recorded.is_empty() {
        return recorded;
    }
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut tensor = |spec: &super::TensorSpec| {
        let shape = spec.with_batch(batch);
        // From 0 to 1: what a mask, a share or a logarithm can do with, too.
        let values = (0..shape.iter().product()).map(|_| random.random());
        Tensor::new(&spec.name, &shape, values.collect())
    };
    (0..MADE_UP_RUNS)
        .map(|_| model.inputs.iter().map(&mut tensor).collect())
        .collect()
}

/// How far an output is off: relative to 1, or to the value where that is larger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parity {
    pub tensor: String,
    pub max: f64,
    pub mean: f64,
}

impl Parity {
    /// Of one output. Infinite if shapes differ or anything is not a number.
    pub fn of(answer: &Tensor, expected: &Tensor) -> Parity {
        let pairs = answer.values.iter().zip(&expected.values);
        let alike = answer.shape == expected.shape && answer.values.len() == expected.values.len();
        let off = pairs.map(|(x, y)| {
            let off = f64::from((x - y).abs()) / f64::from(y.abs()).max(1.0);
            if off.is_nan() { f64::INFINITY } else { off }
        });
        let (max, sum) = off.fold((0.0, 0.0), |(max, sum), off: f64| (off.max(max), off + sum));
        let (max, mean) = match alike {
            true => (max, sum / answer.values.len().max(1) as f64),
            false => (f64::INFINITY, f64::INFINITY),
        };
        Parity {
            tensor: expected.name.clone(),
            max,
            mean,
        }
    }

    /// Takes another run's figures in, which came from as many values as the `runs` before each.
    pub fn merge(&mut self, other: &Parity, runs: usize) {
        self.max = self.max.max(other.max);
        let runs = runs as f64;
        self.mean = (self.mean * runs + other.mean) / (runs + 1.0);
    }
}

/// Each expected output against the answer of its name; infinite where there is none.
pub fn parity(answers: &[Tensor], expected: &[Tensor]) -> Vec<Parity> {
    let nothing = Tensor::new("", &[0, 0], Vec::new());
    let own = |e: &Tensor| answers.iter().find(|a| a.name == e.name).cloned();
    let pairs = expected.iter().map(|e| (own(e), e));
    pairs
        .map(|(a, e)| Parity::of(a.as_ref().unwrap_or(&nothing), e))
        .collect()
}

impl Fixture {
    /// The recorded inputs, row by row in runs of that batch size, the first rows again where they do not fill the
    /// last run. A model without a batch in its inputs' first dimension has the cases of that size alone.
    pub fn at_batch(&self, model: &Model, batch: usize) -> Vec<Vec<Tensor>> {
        let leads = model.inputs.iter().all(|s| s.shape.first() == Some(&-1));
        if !leads {
            let fits = |inputs: &&Vec<Tensor>| model.batch_of(inputs).ok() == Some(batch);
            let inputs = self.cases.iter().map(|c| &c.inputs);
            return inputs.filter(fits).take(MAX_RUNS).cloned().collect();
        }
        let rows: Vec<Vec<&[f32]>> = self.cases.iter().flat_map(|c| rows(&c.inputs)).collect();
        let runs = rows.len().div_ceil(batch.max(1)).min(MAX_RUNS);
        let run = |run: usize| {
            let of = |(at, spec): (usize, &super::TensorSpec)| {
                let picked = (run * batch..(run + 1) * batch).map(|r| &rows[r % rows.len()]);
                let values = picked.flat_map(|row| row.get(at).copied().unwrap_or_default());
                Tensor::new(
                    &spec.name,
                    &spec.with_batch(batch),
                    values.copied().collect(),
                )
            };
            model.inputs.iter().enumerate().map(of).collect()
        };
        (0..runs).map(run).collect()
    }
}

/// Of each row of a case the values of every input.
fn rows(inputs: &[Tensor]) -> Vec<Vec<&[f32]>> {
    let count = inputs.first().and_then(|t| t.shape.first()).copied();
    let row = |r: usize| {
        let of = |t: &Tensor| {
            let width = t.values.len() / t.shape.first().copied().unwrap_or(1).max(1);
            r * width..(r + 1) * width
        };
        let cut = inputs
            .iter()
            .map(|t| t.values.get(of(t)).unwrap_or_default());
        cut.collect()
    };
    (0..count.unwrap_or(0)).map(row).collect()
}
