//! Pace of a stint against tyre age and fuel. See `kernels/stint_fit.cu` for the rules.

use super::launch::{Arg, Data, Geometry, Launch, Shape};
use super::{Checker, Kernel, ShapeError, Task, cpu};

/// Most laps of a stint that are used: the first ones.
pub const MAX_LAPS: usize = 128;
/// Values of a prior: degradation, its precision, burn, its precision.
pub const PRIOR: usize = 4;
/// Values of a fit: base (s), degradation (s/lap), burn (s/unit of fuel), scale of the noise (s), standard
/// errors of base, degradation and burn, laps used.
pub const FIT: usize = 8;
/// Most rounds of reweighting.
pub const MAX_ROUNDS: u32 = 32;
/// The usual tuning of Huber's weights: 95 % efficient where the noise is normal.
pub const TUNING: f32 = 1.345;
const THREADS: u32 = 128;
const WARPS: u32 = THREADS / 32;

/// A robust regression for every stint.
#[derive(Debug)]
pub struct StintFit<'a> {
    /// Laps of stint s are `stint_start[s]..stint_start[s + 1]`; one more than stints.
    pub stint_start: &'a [u32],
    /// Lap times (s); NaN, ±1e9 and beyond = not to be used.
    pub time_s: &'a [f32],
    /// Age of the tyres (laps).
    pub age: &'a [f32],
    /// Fuel on board (kg) or laps to go.
    pub fuel: &'a [f32],
    /// `[stint][PRIOR]`; precisions above 0.
    pub prior: &'a [f32],
    /// Rounds of reweighting after the first, unweighted one.
    pub rounds: u32,
    /// Residuals beyond so many scales weigh less.
    pub tuning: f32,
    /// `[stint][FIT]`; NaN but for the count where fewer than three laps can be used.
    pub fit: &'a mut [f32],
}

impl StintFit<'_> {
    fn stints(&self) -> usize {
        self.stint_start.len().saturating_sub(1)
    }
}

impl Task for StintFit<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::StintFit
    }

    fn check(&self) -> Result<(), ShapeError> {
        let check = Checker {
            kernel: self.kernel(),
        };
        let laps = self.time_s.len();
        check.within("stint_start", self.stint_start.len(), 1..=u32::MAX as usize)?;
        check.offsets("stint_start", self.stint_start, laps)?;
        check.length("age", self.age.len(), laps)?;
        check.length("fuel", self.fuel.len(), laps)?;
        check.length("prior", self.prior.len(), self.stints() * PRIOR)?;
        let precise = |p: &[f32]| p[1] > 0.0 && p[3] > 0.0;
        let holds = self.prior.chunks_exact(PRIOR).all(precise);
        check.require("prior", 0, holds, || {
            "precisions above 0 are allowed".into()
        })?;
        check.within("rounds", self.rounds as usize, 0..=MAX_ROUNDS as usize)?;
        check.length("fit", self.fit.len(), self.stints() * FIT)
    }

    fn launch(&mut self, geometry: &Geometry) -> Launch<'_> {
        let stints = self.stints();
        let shape = Shape {
            grid: geometry.blocks(stints, WARPS, THREADS),
            block: THREADS,
            shared: WARPS * MAX_LAPS as u32 * 4,
        };
        Launch::new(
            self.kernel(),
            shape,
            vec![
                Data::input(self.stint_start),
                Data::input(self.time_s),
                Data::input(self.age),
                Data::input(self.fuel),
                Data::input(self.prior),
                Data::output(self.fit),
            ],
            &[
                Arg::U32(stints as u32),
                Arg::U32(self.rounds),
                Arg::F32(self.tuning),
            ],
        )
    }

    fn run_on_cpu(&mut self) {
        cpu::stint_fit::run(self);
    }
}
