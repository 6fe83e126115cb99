//! Histories that are not full, values half way between two halves.

use super::{Case, Draw, Size, Values, bytes_of};
use crate::compute::assemble_inputs::Tensor;
use crate::compute::{AssembleInputs, Task};

pub(super) struct Inputs {
    history: Vec<f32>,
    slots: usize,
    features: usize,
    newest: Vec<u32>,
    count: Vec<u32>,
    steps: usize,
    choice: Vec<u32>,
    mean: Vec<f32>,
    scale: Vec<f32>,
    half: bool,
    full: Vec<f32>,
    halves: Vec<u16>,
    mask: Vec<f32>,
}

impl Inputs {
    pub(super) fn draw(size: Size, draw: &mut Draw) -> Inputs {
        let (cars, slots, features, steps, wanted) = match size {
            Size::Small => {
                let slots = 1 + draw.below(30);
                let features = 1 + draw.below(20);
                (
                    1 + draw.below(24),
                    slots,
                    features,
                    1 + draw.below(slots),
                    1 + draw.below(25),
                )
            }
            Size::Season => (20, 64, 40, 50, 32),
        };
        let half = draw.once_in(2);
        let values = cars * steps * wanted;
        Inputs {
            history: (0..cars * slots * features)
                .map(|_| match draw.below(20) {
                    0 => f32::NAN,
                    // Half way between two halves, where mean and scale let it be.
                    1..4 => 1.0 + draw.below(2048) as f32 / 2048.0,
                    4 => draw.below(2048) as f32 / (1 << 25) as f32,
                    _ => draw.between(-9.0, 100.0),
                })
                .collect(),
            slots,
            features,
            newest: (0..cars).map(|_| draw.below(slots) as u32).collect(),
            count: (0..cars).map(|_| draw.below(2 * slots) as u32).collect(),
            steps,
            choice: (0..wanted).map(|_| draw.below(features) as u32).collect(),
            mean: (0..wanted)
                .map(|i| {
                    if i % 3 == 0 {
                        0.0
                    } else {
                        draw.between(0.0, 90.0)
                    }
                })
                .collect(),
            scale: (0..wanted)
                .map(|i| {
                    if i % 3 == 0 {
                        1.0
                    } else {
                        draw.between(0.001, 1.0)
                    }
                })
                .collect(),
            half,
            full: vec![0.0; if half { 0 } else { values }],
            halves: vec![0; if half { values } else { 0 }],
            mask: vec![0.0; cars * steps],
        }
    }
}

impl Case for Inputs {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(AssembleInputs {
            history: &self.history,
            slots: self.slots,
            features: self.features,
            newest: &self.newest,
            count: &self.count,
            steps: self.steps,
            choice: &self.choice,
            mean: &self.mean,
            scale: &self.scale,
            limit: 10.0,
            tensor: if self.half {
                Tensor::F16(&mut self.halves)
            } else {
                Tensor::F32(&mut self.full)
            },
            mask: &mut self.mask,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        let tensor = if self.half {
            Values::U16(&self.halves)
        } else {
            Values::F32(&self.full)
        };
        vec![("tensor", tensor), ("mask", Values::F32(&self.mask))]
    }

    fn reset(&mut self) {
        self.full.fill(0.0);
        self.halves.fill(0);
        self.mask.fill(0.0);
    }

    fn bytes(&self) -> u64 {
        let read = 4 * (self.mask.len() * self.choice.len()) as u64;
        read + bytes_of(&self.full) + bytes_of(&self.halves) + bytes_of(&self.mask)
    }
}
