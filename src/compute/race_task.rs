//! The race that is simulated many times, as a task for either backend. See `kernels/race_monte_carlo.cu`.

use rayon::prelude::*;

use super::launch::{Arg, Data, Geometry, Launch, Shape, short_blocks};
use super::race_monte_carlo::Problem;
use super::{Checker, Kernel, ShapeError, Task, cpu};

const THREADS: u32 = 128;
const WARPS: u32 = THREADS / 32;

/// Races `first`, `first + 1`, … of a seed under each of several plans.
#[derive(Debug)]
pub struct RaceMonteCarlo<'a> {
    /// The same race under each plan: as many cars in all of them.
    pub problems: &'a [Problem],
    pub seed: u64,
    pub first: u32,
    /// `[plan][race][place]`: a key a car, in finishing order.
    pub keys: &'a mut [i32],
}

impl RaceMonteCarlo<'_> {
    fn cars(&self) -> usize {
        self.problems.first().map_or(1, |p| p.count.max(1) as usize)
    }

    /// Races under each plan.
    pub fn races(&self) -> usize {
        self.keys.len() / self.cars() / self.problems.len().max(1)
    }
}

impl Task for RaceMonteCarlo<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::RaceMonteCarlo
    }

    fn check(&self) -> Result<(), ShapeError> {
        let check = Checker {
            kernel: self.kernel(),
        };
        check.within("problems", self.problems.len(), 1..=u32::MAX as usize)?;
        for problem in self.problems {
            problem.check().map_err(|wrong| ShapeError {
                kernel: self.kernel(),
                what: wrong.what,
                found: wrong.value.into(),
                allowed: "that is outside what the engines hold".into(),
            })?;
            check.length("count", problem.count as usize, self.cars())?;
        }
        let races = self.races();
        check.length(
            "keys",
            self.keys.len(),
            self.problems.len() * races * self.cars(),
        )?;
        // The kernel steps over plans and races in 32 bits.
        let most = i32::MAX as usize / self.problems.len();
        check.within("races", races, 0..=most)
    }

    fn launch(&mut self, _: &Geometry) -> Launch<'_> {
        let (plans, races) = (self.problems.len(), self.races());
        let shape = Shape {
            grid: short_blocks(plans * races, WARPS),
            block: THREADS,
            shared: 0,
        };
        Launch::new(
            self.kernel(),
            shape,
            vec![Data::input(self.problems), Data::output(self.keys)],
            &[
                Arg::U32(plans as u32),
                Arg::U32(races as u32),
                Arg::U32(self.first),
                Arg::U32(self.seed as u32),
                Arg::U32((self.seed >> 32) as u32),
            ],
        )
    }

    fn run_on_cpu(&mut self) {
        let each = (self.races() * self.cars()).max(1);
        let (seed, first) = (self.seed, self.first);
        let keys = self.keys.par_chunks_mut(each);
        // Plans side by side: a few races of many plans would leave threads without work otherwise.
        self.problems
            .par_iter()
            .zip(keys)
            .for_each(|(problem, keys)| {
                // It fails on what `check` refuses, and on nothing else.
                let done = cpu::race_monte_carlo::simulate(problem, seed, first, keys);
                debug_assert!(done.is_ok());
            });
    }
}
