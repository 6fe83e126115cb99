//! A model's input tensors from the cars' histories. See `kernels/assemble_inputs.cu` for the rules.

use super::launch::{Arg, Data, Geometry, Launch, Shape};
use super::{Checker, Kernel, ShapeError, Task, cpu};

const THREADS: u32 = 256;

/// Where the tensor goes, and in which precision.
#[derive(Debug)]
pub enum Tensor<'a> {
    F32(&'a mut [f32]),
    /// Bits of IEEE 754 half precision.
    F16(&'a mut [u16]),
}

impl Tensor<'_> {
    fn len(&self) -> usize {
        match self {
            Tensor::F32(values) => values.len(),
            Tensor::F16(values) => values.len(),
        }
    }
}

/// Chooses, normalises and orders the newest rows of every car's history.
#[derive(Debug)]
pub struct AssembleInputs<'a> {
    /// `[car][slot][feature]`: a ring of rows a car; NaN = missing.
    pub history: &'a [f32],
    pub slots: usize,
    pub features: usize,
    /// Slot of each car's newest row.
    pub newest: &'a [u32],
    /// Rows that each car has had; at most `slots` of them are there.
    pub count: &'a [u32],
    /// Rows of the tensor a car; at most `slots`.
    pub steps: usize,
    /// Which feature becomes which input.
    pub choice: &'a [u32],
    /// An input is (feature − mean)·scale, within ±limit; 0 where it is missing.
    pub mean: &'a [f32],
    pub scale: &'a [f32],
    pub limit: f32,
    /// `[car][step][input]`, oldest first, the newest row last; zeros before the first.
    pub tensor: Tensor<'a>,
    /// `[car][step]`: 1 where there is a row.
    pub mask: &'a mut [f32],
}

impl Task for AssembleInputs<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::AssembleInputs
    }

    fn check(&self) -> Result<(), ShapeError> {
        let check = Checker {
            kernel: self.kernel(),
        };
        let (cars, wanted) = (self.newest.len(), self.choice.len());
        check.within("slots", self.slots, 1..=65_536)?;
        check.within("features", self.features, 1..=65_536)?;
        check.within("steps", self.steps, 1..=self.slots)?;
        check.within("choice", wanted, 1..=65_536)?;
        check.length(
            "history",
            self.history.len(),
            cars * self.slots * self.features,
        )?;
        check.indices("newest", self.newest, self.slots, false)?;
        check.length("count", self.count.len(), cars)?;
        check.indices("choice", self.choice, self.features, false)?;
        check.length("mean", self.mean.len(), wanted)?;
        check.length("scale", self.scale.len(), wanted)?;
        check.require("limit", 0, self.limit > 0.0, || {
            "a limit above 0 is allowed".into()
        })?;
        let values = cars * self.steps * wanted;
        check.within("tensor", values, 0..=u32::MAX as usize)?;
        check.length("tensor", self.tensor.len(), values)?;
        check.length("mask", self.mask.len(), cars * self.steps)
    }

    fn launch(&mut self, geometry: &Geometry) -> Launch<'_> {
        let (cars, wanted) = (self.newest.len(), self.choice.len());
        let half = matches!(self.tensor, Tensor::F16(_));
        let shape = Shape {
            grid: geometry.blocks(cars * self.steps * wanted, THREADS, THREADS),
            block: THREADS,
            shared: 0,
        };
        Launch::new(
            Kernel::AssembleInputs,
            shape,
            vec![
                Data::input(self.history),
                Data::input(self.newest),
                Data::input(self.count),
                Data::input(self.choice),
                Data::input(self.mean),
                Data::input(self.scale),
                match &mut self.tensor {
                    Tensor::F32(values) => Data::output(values),
                    Tensor::F16(values) => Data::output(values),
                },
                Data::output(self.mask),
            ],
            &[
                Arg::U32(cars as u32),
                Arg::U32(self.slots as u32),
                Arg::U32(self.features as u32),
                Arg::U32(self.steps as u32),
                Arg::U32(wanted as u32),
                Arg::F32(self.limit),
                Arg::U32(half.into()),
            ],
        )
    }

    fn run_on_cpu(&mut self) {
        cpu::assemble_inputs::run(self);
    }
}
