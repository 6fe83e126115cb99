//! What a lap looked like, from its resampled channels. See `kernels/lap_features.cu` for the rules.

use super::launch::{Arg, Data, Geometry, Launch, Shape};
use super::{Checker, Kernel, ShapeError, Task, cpu};

/// Most corners of a circuit.
pub const MAX_CORNERS: usize = 32;
/// Most mini-sectors of a lap.
pub const MAX_MINIS: usize = 128;
/// The corner of a point that lies in none.
pub const NO_CORNER: u8 = 255;
/// Features before the mini-sectors: lap time (s); shares of time at full throttle, braking, coasting; changes
/// of gear; greatest and mean lateral acceleration (g); highest, lowest and mean speed (km/h).
pub const FIXED: usize = 10;
const THREADS: u32 = 128;
const WARPS: u32 = THREADS / 32;

/// Which rows of the grid hold what; `None` = the channel is not there. Row 0 is the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub speed: Option<u32>,
    pub throttle: Option<u32>,
    pub brake: Option<u32>,
    pub gear: Option<u32>,
}

/// From where on a pedal counts as pressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pedals {
    /// Full throttle, from this on (%).
    pub full: f32,
    /// Lifted, below this (%).
    pub lifted: f32,
    /// Braking, from this on (%).
    pub braking: f32,
}

impl Default for Pedals {
    fn default() -> Self {
        Pedals {
            full: 95.0,
            lifted: 5.0,
            braking: 50.0,
        }
    }
}

/// Features of every lap.
#[derive(Debug)]
pub struct LapFeatures<'a> {
    /// `[lap][row][bin]`, of [`super::LapResample`].
    pub grid: &'a [f32],
    pub rows: usize,
    pub bins: usize,
    pub which: Rows,
    pub pedals: Pedals,
    /// The circuit of each lap.
    pub lap_track: &'a [u32],
    /// `[track][bin]`, 1/m, NaN = not known.
    pub curvature: &'a [f32],
    /// `[track][bin]`: the corner that a point lies in, or [`NO_CORNER`].
    pub corner: &'a [u8],
    /// Corners whose lowest speed is wanted.
    pub corners: usize,
    /// `[track][minis + 1]`: points where mini-sectors begin, and where the last one ends.
    pub edges: &'a [u32],
    pub minis: usize,
    /// `[lap][FIXED + minis + corners]`; NaN = not known.
    pub features: &'a mut [f32],
}

impl LapFeatures<'_> {
    /// Features of a lap.
    pub fn width(&self) -> usize {
        FIXED + self.minis + self.corners
    }

    fn tracks(&self) -> usize {
        self.curvature.len() / self.bins.max(1)
    }
}

impl Task for LapFeatures<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::LapFeatures
    }

    fn check(&self) -> Result<(), ShapeError> {
        let check = Checker {
            kernel: self.kernel(),
        };
        let (laps, tracks) = (self.lap_track.len(), self.tracks());
        check.within("bins", self.bins, 2..=super::lap_resample::MAX_BINS)?;
        check.within("rows", self.rows, 1..=super::lap_resample::MAX_CHANNELS + 1)?;
        check.within("corners", self.corners, 0..=MAX_CORNERS)?;
        check.within("minis", self.minis, 1..=MAX_MINIS)?;
        check.length("grid", self.grid.len(), laps * self.rows * self.bins)?;
        check.indices("lap_track", self.lap_track, tracks, false)?;
        check.length("curvature", self.curvature.len(), tracks * self.bins)?;
        check.length("corner", self.corner.len(), tracks * self.bins)?;
        check.length("edges", self.edges.len(), tracks * (self.minis + 1))?;
        check.indices("edges", self.edges, self.bins, false)?;
        let Rows {
            speed,
            throttle,
            brake,
            gear,
        } = self.which;
        for row in [speed, throttle, brake, gear].into_iter().flatten() {
            check.within("row", row as usize, 1..=self.rows.max(2) - 1)?;
        }
        check.length("features", self.features.len(), laps * self.width())
    }

    fn launch(&mut self, geometry: &Geometry) -> Launch<'_> {
        let laps = self.lap_track.len();
        let row = |row: Option<u32>| Arg::U32(row.unwrap_or(0));
        let shape = Shape {
            grid: geometry.blocks(laps, WARPS, THREADS),
            block: THREADS,
            shared: WARPS * MAX_CORNERS as u32 * 4,
        };
        Launch::new(
            self.kernel(),
            shape,
            vec![
                Data::input(self.grid),
                Data::input(self.lap_track),
                Data::input(self.curvature),
                Data::input(self.corner),
                Data::input(self.edges),
                Data::output(self.features),
            ],
            &[
                Arg::U32(laps as u32),
                Arg::U32(self.rows as u32),
                Arg::U32(self.bins as u32),
                Arg::U32(self.minis as u32),
                Arg::U32(self.corners as u32),
                row(self.which.speed),
                row(self.which.throttle),
                row(self.which.brake),
                row(self.which.gear),
                Arg::F32(self.pedals.full),
                Arg::F32(self.pedals.lifted),
                Arg::F32(self.pedals.braking),
            ],
        )
    }

    fn run_on_cpu(&mut self) {
        cpu::lap_features::run(self);
    }
}
