//! Where a lap was won and lost. See `kernels/delta_trace.cu` for the rules.

use super::launch::{Arg, Data, Geometry, Launch, Shape};
use super::{Checker, Kernel, ShapeError, Task, cpu};

/// No reference, no group.
pub const NONE: u32 = u32::MAX;
const THREADS: u32 = 128;
const WARPS: u32 = THREADS / 32;

/// Time against a reference lap along the distance, and the fastest lap of each mini-sector.
#[derive(Debug)]
pub struct DeltaTrace<'a> {
    /// `[lap][row][bin]`, of [`super::LapResample`]; row 0 is the time (s).
    pub grid: &'a [f32],
    pub rows: usize,
    /// A multiple of 4.
    pub bins: usize,
    /// The lap to compare each lap with, or [`NONE`].
    pub reference: &'a [u32],
    /// The group in which each lap competes, or [`NONE`].
    pub lap_group: &'a [u32],
    /// The circuit of each lap.
    pub lap_track: &'a [u32],
    /// `[track][minis + 1]`: points where mini-sectors begin, and where the last one ends.
    pub edges: &'a [u32],
    pub minis: usize,
    /// `[lap][bin]`: time − the reference's (s); NaN = none.
    pub delta: &'a mut [f32],
    /// `[group][mini]`: set to `u64::MAX` at first; see [`winner`].
    pub winner: &'a mut [u64],
}

/// The fastest lap of a mini-sector, and its time (s), from an entry of [`DeltaTrace::winner`].
pub fn winner(entry: u64) -> Option<(u32, f32)> {
    (entry != u64::MAX).then(|| (entry as u32, f32::from_bits((entry >> 32) as u32)))
}

impl Task for DeltaTrace<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::DeltaTrace
    }

    fn check(&self) -> Result<(), ShapeError> {
        let check = Checker {
            kernel: self.kernel(),
        };
        let laps = self.reference.len();
        check.within("bins", self.bins, 4..=super::lap_resample::MAX_BINS)?;
        check.require(
            "bins",
            self.bins as u64,
            self.bins.is_multiple_of(4),
            || "a multiple of 4 is allowed".into(),
        )?;
        check.within("minis", self.minis, 1..=super::lap_features::MAX_MINIS)?;
        check.within("rows", self.rows, 1..=super::lap_resample::MAX_CHANNELS + 1)?;
        check.length("grid", self.grid.len(), laps * self.rows * self.bins)?;
        check.indices("reference", self.reference, laps, true)?;
        check.length("lap_group", self.lap_group.len(), laps)?;
        let groups = self.winner.len() / self.minis;
        check.length("winner", self.winner.len(), groups * self.minis)?;
        check.indices("lap_group", self.lap_group, groups, true)?;
        let tracks = self.edges.len() / (self.minis + 1);
        check.length("edges", self.edges.len(), tracks * (self.minis + 1))?;
        check.indices("edges", self.edges, self.bins, false)?;
        check.length("lap_track", self.lap_track.len(), laps)?;
        check.indices("lap_track", self.lap_track, tracks, false)?;
        check.length("delta", self.delta.len(), laps * self.bins)
    }

    fn launch(&mut self, geometry: &Geometry) -> Launch<'_> {
        let laps = self.reference.len();
        let shape = Shape {
            grid: geometry.blocks(laps, WARPS, THREADS),
            block: THREADS,
            shared: 0,
        };
        Launch::new(
            self.kernel(),
            shape,
            vec![
                Data::input(self.grid),
                Data::input(self.reference),
                Data::input(self.lap_group),
                Data::input(self.lap_track),
                Data::input(self.edges),
                Data::output(self.delta),
                Data::both(self.winner),
            ],
            &[
                Arg::U32(laps as u32),
                Arg::U32(self.rows as u32),
                Arg::U32(self.bins as u32),
                Arg::U32(self.minis as u32),
            ],
        )
    }

    fn run_on_cpu(&mut self) {
        cpu::delta_trace::run(self);
    }
}
