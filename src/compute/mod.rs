//! Compute: the heavy arithmetic, over plain arrays, on whatever the machine has.
//!
//! A [`Task`] is one piece of work: slices in, slices out, a few numbers. A [`Backend`] carries it out. There
//! are two: [`Cpu`] (rayon, loops that the compiler vectorises) and [`cuda::Cuda`] (the kernels of `kernels/`,
//! feature `cuda`), and one truth: **both give the same bits.** That is made, not hoped for: sums of floats go
//! in one stated order (a warp's, see [`lanes`]), distances and ranks are whole numbers, nothing is contracted
//! into fused multiply-adds, and no library of mathematics is called.
//!
//! ```text
//!   lap_resample ─▶ grid ─┬─▶ lap_features     what a lap looked like
//!                         └─▶ delta_trace      where it was won and lost
//!   stint_fit                                  pace against tyre age and fuel
//!   frame_stats                                windows of high-rate channels
//!   assemble_inputs                            models' input tensors
//!   race_monte_carlo                           the rest of the race, a hundred thousand times
//! ```
//!
//! Missing values are NaN, in and out: what is not known is not guessed at.
//!
//! **Invariant:** it knows arrays, not racing; it reads no clock, file or socket. This is the only room beside
//! `tensorrt-rs` that may hold `unsafe`: in `cuda/`, and where wider instructions are chosen. (One file of
//! `inference/tensorrt` passes a guest's addresses on.)

pub mod assemble_inputs;
pub mod choice;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod delta_trace;
pub mod frame_stats;
pub mod lanes;
pub mod lap_features;
pub mod lap_resample;
pub mod launch;
pub mod philox;
mod race_layout;
pub mod race_monte_carlo;
pub mod race_task;
pub mod stint_fit;
#[cfg(test)]
mod tests;
pub mod workload;

pub use assemble_inputs::AssembleInputs;
pub use choice::{Choice, Processor, Ticker, Witness};
pub use cpu::Cpu;
pub use delta_trace::DeltaTrace;
pub use frame_stats::FrameStats;
pub use lap_features::LapFeatures;
pub use lap_resample::LapResample;
pub use launch::{Geometry, Launch};
pub use race_task::RaceMonteCarlo;
pub use stint_fit::StintFit;

/// The kernels, by the names that they have in `kernels/` and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    AssembleInputs,
    DeltaTrace,
    FrameStats,
    LapFeatures,
    LapResample,
    RaceMonteCarlo,
    StintFit,
}

impl Kernel {
    pub const ALL: [Kernel; 7] = [
        Kernel::AssembleInputs,
        Kernel::DeltaTrace,
        Kernel::FrameStats,
        Kernel::LapFeatures,
        Kernel::LapResample,
        Kernel::RaceMonteCarlo,
        Kernel::StintFit,
    ];

    /// Whether it may run for long: then it has a stream of its own on a GPU, and ticks do not wait for it.
    pub const fn is_long(self) -> bool {
        matches!(self, Kernel::RaceMonteCarlo)
    }

    /// Whether it reads its large arrays about once. Where CPU and GPU share their memory, such a kernel works on the
    /// host's pinned block where it lies, and nothing is copied; but a Tegra's GPU does not cache that memory, so that
    /// what is read again comes from DRAM again. The others have their arrays copied to memory of the device's own:
    ///
    /// | kernel | reads again |
    /// |---|---|
    /// | `lap_resample` | time and speed, in its second pass; two samples for each point |
    /// | `lap_features` | each time and gear as the next one's neighbour; the circuit's tables, for each lap |
    /// | `delta_trace` | the reference lap, for each lap compared with it |
    /// | `race_monte_carlo` | the problem, for each race |
    /// | `stint_fit` | the stint's laps, in each round |
    pub const fn streams(self) -> bool {
        matches!(self, Kernel::FrameStats | Kernel::AssembleInputs)
    }

    /// The name of its entry point.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::AssembleInputs => "assemble_inputs",
            Kernel::DeltaTrace => "delta_trace",
            Kernel::FrameStats => "frame_stats",
            Kernel::LapFeatures => "lap_features",
            Kernel::LapResample => "lap_resample",
            Kernel::RaceMonteCarlo => "race_monte_carlo",
            Kernel::StintFit => "stint_fit",
        }
    }
}

/// A task whose arrays do not fit each other: the caller's mistake, found before anything runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what} is {found}; {allowed}", kernel.name())]
pub struct ShapeError {
    pub kernel: Kernel,
    /// The array or number at fault.
    pub what: &'static str,
    pub found: i64,
    /// What it must be.
    pub allowed: String,
}

/// One piece of work over plain arrays.
pub trait Task: Send {
    /// Which kernel does it.
    fn kernel(&self) -> Kernel;

    /// Whether the arrays fit each other, so that no index can leave them.
    ///
    /// # Errors
    /// [`ShapeError`] names the first that does not.
    fn check(&self) -> Result<(), ShapeError>;

    /// The same work as a launch on a device of that geometry. Call after [`Task::check`].
    fn launch(&mut self, geometry: &Geometry) -> Launch<'_>;

    /// Does it here, on the threads of rayon. Call after [`Task::check`].
    fn run_on_cpu(&mut self);
}

/// What did a task: the label of metrics, and what answers say of themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    #[default]
    Cpu,
    Cuda,
}

impl By {
    pub const fn name(self) -> &'static str {
        match self {
            By::Cpu => "cpu",
            By::Cuda => "cuda",
        }
    }
}

/// What carries out tasks.
pub trait Backend: Send + Sync {
    /// Which of the two it is.
    fn name(&self) -> &'static str;

    /// Carries out a task, and says what did it. It succeeds whenever the shapes fit: a device that fails is this
    /// function's affair (it is logged and counted, and the CPU does the task within the same call).
    ///
    /// # Errors
    /// [`ShapeError`] if the arrays do not fit each other.
    fn run(&self, task: &mut dyn Task) -> Result<By, ShapeError>;
}

/// Checks shapes, one requirement a line.
struct Checker {
    kernel: Kernel,
}

impl Checker {
    /// An array of exactly so many values.
    fn length(&self, what: &'static str, found: usize, expected: usize) -> Result<(), ShapeError> {
        self.require(what, found as u64, found == expected, || {
            format!("expected {expected} values")
        })
    }

    /// A number within bounds.
    fn within(
        &self,
        what: &'static str,
        found: usize,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<(), ShapeError> {
        self.require(what, found as u64, bounds.contains(&found), || {
            format!("{} to {} are allowed", bounds.start(), bounds.end())
        })
    }

    /// Offsets that begin at 0 or later, never decrease and do not pass `end`.
    fn offsets(&self, what: &'static str, offsets: &[u32], end: usize) -> Result<(), ShapeError> {
        if let Some(pair) = offsets.windows(2).find(|pair| pair[0] > pair[1]) {
            return self.require(what, pair[1].into(), false, || {
                format!("offsets never decrease, and {} is before it", pair[0])
            });
        }
        let last = offsets.last().copied().unwrap_or(0);
        self.require(what, last.into(), last as usize <= end, || {
            format!("the last offset may be {end} at most")
        })
    }

    /// Indices that are below `end`, or `u32::MAX` where `none` is allowed.
    fn indices(
        &self,
        what: &'static str,
        indices: &[u32],
        end: usize,
        none: bool,
    ) -> Result<(), ShapeError> {
        let wrong = indices
            .iter()
            .find(|&&i| i as usize >= end && !(none && i == u32::MAX));
        match wrong {
            None => Ok(()),
            Some(&i) => self.require(what, i.into(), false, || {
                format!("an index below {end} is allowed")
            }),
        }
    }

    fn require(
        &self,
        what: &'static str,
        found: u64,
        holds: bool,
        allowed: impl FnOnce() -> String,
    ) -> Result<(), ShapeError> {
        if holds {
            return Ok(());
        }
        Err(ShapeError {
            kernel: self.kernel,
            what,
            found: found as i64,
            allowed: allowed(),
        })
    }
}
