//! What the lap time model is fed: a car's rows, and what is remembered of its race.
//!
//! | input | shape | what it is |
//! |---|---|---|
//! | `line`, `sector1`, `sector2` | `[1, columns]` | the lap's rows; zeros for a sector that is not in |
//! | `hidden`, `cell` | `[1, layers, width]` | the state, which each lap answers anew |
//! | `memory`, `mask` | `[1, laps, width]`, `[1, laps]` | the entries of earlier laps, and 1 for each that there is |
//!
//! A lap answers with its own entry alone, and that takes the place of the oldest: the model attends to entries in
//! whatever order they stand, so that none of them is ever moved.

use super::features::laptime::{LINE, SECTOR};
use crate::inference::{EngineError, Model, Tensor};

/// Inputs that are no state: the rows at the line and after both sectors.
pub const ROWS: usize = 3;
/// What a lap adds: the next `hidden` and `cell`, and its entry. They are answered behind the quantiles.
pub const ADDED: usize = 3;
/// All inputs, in their order.
const INPUTS: [&str; 7] = [
    "line", "sector1", "sector2", "hidden", "cell", "memory", "mask",
];
const HIDDEN: usize = ROWS;
const MEMORY: usize = 5;
const MASK: usize = 6;
/// Most values of a state: 16 networks of 3 × 128 with 50 laps of memory would fit.
const MAX_STATE: usize = 16 * 64 * 128;

/// What the model is fed about one car.
#[derive(Clone, Debug)]
pub struct Memory {
    inputs: Vec<Tensor>,
    /// Entries that it was given.
    entries: usize,
}

impl Memory {
    /// Whether the model has these inputs, and answers with quantiles and what a lap adds.
    ///
    /// # Errors
    /// [`EngineError::Shape`], naming the tensor.
    pub fn fits(model: &Model) -> Result<(), EngineError> {
        if !model.inputs.iter().map(|i| i.name.as_str()).eq(INPUTS) {
            return Err(model.misfit("", format!("{INPUTS:?} are fed, in this order")));
        }
        let shapes: Vec<Vec<usize>> = model.inputs.iter().map(|i| i.with_batch(1)).collect();
        for (at, columns) in [LINE, SECTOR, SECTOR].into_iter().enumerate() {
            if shapes[at] != [1, columns] {
                return Err(model.misfit(INPUTS[at], format!("{columns} columns are fed")));
            }
        }
        let &[1, laps @ (1..), width] = shapes[MEMORY].as_slice() else {
            return Err(model.misfit("memory", "it must be [batch, laps, width]"));
        };
        if shapes[MASK] != [1, laps] {
            return Err(model.misfit("mask", format!("{laps} laps are fed")));
        }
        let [hidden, cell] = [HIDDEN, HIDDEN + 1].map(|at| shapes[at].clone());
        let answers = model.outputs.iter().map(|o| o.with_batch(1));
        if !answers.eq([vec![1, 3, 3], hidden, cell, vec![1, width]]) {
            let why = "quantiles [1, 3, 3], hidden and cell, as they are fed, and an entry of the memory are wanted";
            return Err(model.misfit("quantiles", why));
        }
        let values: usize = shapes[ROWS..]
            .iter()
            .map(|s| s.iter().product::<usize>())
            .sum();
        if values > MAX_STATE {
            let why = format!("a state of {values} values; at most {MAX_STATE}");
            return Err(model.misfit("", &why));
        }
        Ok(())
    }

    /// Of a car that has driven nothing; `model` is one that [fits](Memory::fits).
    pub fn of(model: &Model) -> Memory {
        let zeros = model.inputs.iter().map(|spec| {
            let shape = spec.with_batch(1);
            Tensor::new(&spec.name, &shape, vec![0.0; shape.iter().product()])
        });
        Memory {
            inputs: zeros.collect(),
            entries: 0,
        }
    }

    /// What is fed of that lap.
    pub fn feed(&mut self, rows: [&[f32]; ROWS]) -> &[Tensor] {
        for (input, row) in self.inputs.iter_mut().zip(rows) {
            input.values.copy_from_slice(row);
        }
        &self.inputs
    }

    /// All inputs, as they were fed last.
    pub fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// Takes in what a lap adds.
    pub fn keep(&mut self, [hidden, cell, entry]: [&[f32]; ADDED]) {
        self.inputs[HIDDEN].values.copy_from_slice(hidden);
        self.inputs[HIDDEN + 1].values.copy_from_slice(cell);
        let mask = &mut self.inputs[MASK].values;
        let oldest = self.entries % mask.len();
        mask[oldest] = 1.0;
        let memory = &mut self.inputs[MEMORY].values;
        memory[oldest * entry.len()..][..entry.len()].copy_from_slice(entry);
        self.entries += 1;
    }
}
