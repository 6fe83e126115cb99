//! A race's answers of the lap time model, computed before the race is walked through.
//!
//! The daemon asks for one car at a time, as its laps end. Here every row of a race is known beforehand (the rows
//! themselves hold nothing of the future), so all cars are driven side by side, many rows a call, and the daemon's
//! own predictor then walks through the race with an engine that looks the answers up. What it says is what it
//! would have said, but for the last bits of a larger batch.
//!
//! **Invariant:** a row that was not rehearsed is an error, never a made-up answer.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::dataset::laptime::Sample;
use crate::inference::{Engine, EngineError, Model, Tensor};
use crate::predict::features::laptime::{LINE, SECTOR};
use crate::predict::memory::{ADDED, Memory, ROWS};
use crate::predict::models::LapTimeModel;

/// Values of an answer: three heads, three quantiles.
const ANSWER: usize = 9;

/// A row as it is fed: at the line and, where they are in, after sectors 1 and 2.
struct Fed<'a> {
    line: &'a [f32; LINE],
    sectors: [Option<&'a [f32; SECTOR]>; 2],
}

impl Fed<'_> {
    fn values(&self) -> [&[f32]; ROWS] {
        let [first, second] = self.sectors.map(|s| s.unwrap_or(&[0.0; SECTOR]));
        [self.line, first, second]
    }
}

/// What a row brings: quantiles, and what it adds to its car's memory.
struct Answer {
    values: [f32; ANSWER],
    added: [Vec<f32>; ADDED],
}

/// Rehearses races with one model.
pub(super) struct Rehearsal {
    model: Arc<LapTimeModel>,
    /// Whether a head does not see the sectors of another, so that one run answers for all three.
    at_once: bool,
}

impl Rehearsal {
    /// Looks how far the model's heads are independent.
    ///
    /// # Errors
    /// If the model fails.
    pub(super) fn new(model: Arc<LapTimeModel>) -> Result<Rehearsal, EngineError> {
        let mut rehearsal = Rehearsal {
            model,
            at_once: false,
        };
        rehearsal.at_once = rehearsal.heads_are_independent()?;
        Ok(rehearsal)
    }

    fn engine(&self) -> &dyn Engine {
        self.model.engine()
    }

    fn heads_are_independent(&self) -> Result<bool, EngineError> {
        let some = |at: usize| 0.1 * ((at * 7) % 11) as f32 - 0.4;
        let line = std::array::from_fn(some);
        let sector = std::array::from_fn(some);
        let ask = |sectors: [Option<&[f32; SECTOR]>; 2]| -> Result<[f32; ANSWER], EngineError> {
            let fed = Fed {
                line: &line,
                sectors,
            };
            Ok(self.step(&[fed], &[self.rest()], &[0])?[0].values)
        };
        let (both, none) = (ask([Some(&sector); 2])?, ask([None; 2])?);
        let (first, second) = (ask([Some(&sector), None])?, ask([None, Some(&sector)])?);
        Ok(both[..3] == none[..3] && both[3..6] == first[3..6] && both[6..] == second[6..])
    }

    /// What is remembered of a car that has driven nothing.
    fn rest(&self) -> Memory {
        Memory::of(self.engine().model())
    }

    /// One step of the cars at `cars` of `memories`, with the rows of the same places.
    fn step(
        &self,
        rows: &[Fed<'_>],
        memories: &[Memory],
        cars: &[usize],
    ) -> Result<Vec<Answer>, EngineError> {
        let model = self.engine().model();
        let mut answers = Vec::with_capacity(rows.len());
        let mut done = 0;
        while done < rows.len() {
            let left = rows.len() - done;
            // The smallest batch that holds them all, else the largest; what is over is zeros.
            let batch = *model
                .batches
                .iter()
                .find(|b| **b >= left)
                .or(model.batches.last())
                .unwrap_or(&1);
            let here = done..(done + batch).min(rows.len());
            let mut inputs: Vec<Tensor> = Vec::with_capacity(model.inputs.len());
            for (at, spec) in model.inputs.iter().enumerate() {
                let shape = spec.with_batch(batch);
                let mut values = Vec::with_capacity(shape.iter().product());
                for (row, car) in rows[here.clone()].iter().zip(&cars[here.clone()]) {
                    match at.checked_sub(ROWS) {
                        Some(state) => {
                            values.extend_from_slice(&memories[*car].inputs()[ROWS + state].values)
                        }
                        None => values.extend_from_slice(row.values()[at]),
                    }
                }
                values.resize(shape.iter().product(), 0.0);
                inputs.push(Tensor::new(&spec.name, &shape, values));
            }
            let outputs = self.engine().run(&inputs)?;
            for at in 0..here.len() {
                let of = |output: &Tensor| {
                    let width = output.values.len() / batch;
                    output.values[at * width..(at + 1) * width].to_vec()
                };
                let values = of(&outputs[0]);
                answers.push(Answer {
                    values: std::array::from_fn(|k| values.get(k).copied().unwrap_or(f32::NAN)),
                    added: [1, 2, 3].map(|output| of(&outputs[output])),
                });
            }
            done = here.end;
        }
        Ok(answers)
    }

    /// The model for one race: `cars` are all of its rows, car by car.
    ///
    /// # Errors
    /// If the model fails.
    pub(super) fn of(&self, cars: &[Vec<Sample>]) -> Result<LapTimeModel, EngineError> {
        // As in the daemon, a lap that comes late or twice is no row.
        let cars: Vec<Vec<&Sample>> = cars.iter().map(|rows| in_order(rows)).collect();
        let mut told = HashMap::new();
        let mut memories: Vec<Memory> = cars.iter().map(|_| self.rest()).collect();
        let longest = cars.iter().map(Vec::len).max().unwrap_or(0);
        for lap in 0..longest {
            let driving: Vec<usize> = (0..cars.len()).filter(|c| cars[*c].len() > lap).collect();
            let row = |car: &usize, known: [bool; 2]| {
                let sample = cars[*car][lap];
                let [first, second] = [0, 1].map(|s| {
                    let sector = sample.sectors[s].as_ref().filter(|_| known[s]);
                    sector.map(|s| &s.x)
                });
                Fed {
                    line: &sample.line,
                    sectors: [first, second],
                }
            };
            let asked = [[false, false], [true, false], [false, true]];
            let mut note = |known: [bool; 2], answers: &[Answer]| {
                for (car, answer) in driving.iter().zip(answers) {
                    told.insert(key(row(car, known).values()), answer.values);
                }
            };
            let mut answers = Vec::new();
            if self.at_once {
                let rows: Vec<Fed<'_>> = driving.iter().map(|c| row(c, [true; 2])).collect();
                answers = self.step(&rows, &memories, &driving)?;
                asked.iter().for_each(|known| note(*known, &answers));
            } else {
                // The plain row comes last: what it adds is what is kept.
                for known in asked.iter().rev() {
                    let rows: Vec<Fed<'_>> = driving.iter().map(|c| row(c, *known)).collect();
                    answers = self.step(&rows, &memories, &driving)?;
                    note(*known, &answers);
                }
            }
            for (car, answer) in driving.iter().zip(&answers) {
                memories[*car].keep(answer.added.each_ref().map(Vec::as_slice));
            }
        }
        LapTimeModel::new(Arc::new(Rehearsed {
            model: Arc::clone(&self.model),
            told,
        }))
    }
}

/// The rows of one car, each of a later lap than the one before.
fn in_order(rows: &[Sample]) -> Vec<&Sample> {
    let mut last = 0;
    let later = rows.iter().filter(|row| {
        let later = row.lap > last;
        last = last.max(row.lap);
        later
    });
    later.collect()
}

/// What a row is known by.
fn key(values: [&[f32]; ROWS]) -> u128 {
    let mut hash = Xxh3::new();
    for value in values.into_iter().flatten() {
        hash.update(&value.to_bits().to_le_bytes());
    }
    hash.digest128()
}

/// An engine that looks its answers up.
struct Rehearsed {
    model: Arc<LapTimeModel>,
    told: HashMap<u128, [f32; ANSWER]>,
}

impl Engine for Rehearsed {
    fn backend(&self) -> &'static str {
        self.model.engine().backend()
    }

    fn model(&self) -> &Model {
        self.model.engine().model()
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let model = self.model();
        let batch = model.batch_of(inputs)?;
        let mut answers = Vec::with_capacity(batch * ANSWER);
        for row in 0..batch {
            let values = [0, 1, 2].map(|at| {
                let width = inputs[at].values.len() / batch;
                &inputs[at].values[row * width..(row + 1) * width]
            });
            let Some(answer) = self.told.get(&key(values)) else {
                return Err(EngineError::Run {
                    model: model.id(),
                    backend: self.backend(),
                    why: "it was asked about a row that was not rehearsed".to_owned(),
                });
            };
            answers.extend_from_slice(answer);
        }
        // States are not looked at again: zeros of the right shapes.
        let outputs = model.outputs.iter().enumerate().map(|(at, spec)| {
            let shape = spec.with_batch(batch);
            let values = match at {
                0 => std::mem::take(&mut answers),
                _ => vec![0.0; shape.iter().product()],
            };
            Tensor::new(&spec.name, &shape, values)
        });
        Ok(outputs.collect())
    }
}
