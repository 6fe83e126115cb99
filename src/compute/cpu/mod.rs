//! The CPU backend: rayon over laps, stints, windows; loops that the compiler vectorises.
//!
//! It is the reference: what the kernels compute is defined by agreement with it.

pub(super) mod assemble_inputs;
pub(super) mod delta_trace;
pub(super) mod frame_stats;
pub(super) mod lap_features;
pub(super) mod lap_resample;
pub mod race_monte_carlo;
pub(super) mod stint_fit;

use super::{Backend, By, ShapeError, Task};

/// Carries tasks out on the threads of rayon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        By::Cpu.name()
    }

    fn run(&self, task: &mut dyn Task) -> Result<By, ShapeError> {
        task.check()?;
        task.run_on_cpu();
        Ok(By::Cpu)
    }
}
