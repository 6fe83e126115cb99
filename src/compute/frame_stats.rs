//! Windows of high-rate channels. See `kernels/frame_stats.cu` for the rules.

use super::launch::{Arg, Data, Geometry, Launch, Shape};
use super::{Checker, Kernel, ShapeError, Task, cpu};

/// Values of a window: min, max, mean, root mean square.
pub const STATS: usize = 4;
const THREADS: u32 = 256;
const WARPS: u32 = THREADS / 32;

/// Least, greatest, mean and root mean square of every window of every row.
#[derive(Debug)]
pub struct FrameStats<'a> {
    /// `[row][stride]`; a row is one channel of one car. NaN = missing.
    pub samples: &'a [f32],
    pub rows: usize,
    /// Windows a row; window w is the samples `w·hop..w·hop + length`.
    pub windows: usize,
    /// Samples of a window; a multiple of 4.
    pub length: usize,
    /// Samples from one window to the next; a multiple of 4.
    pub hop: usize,
    /// `[row][window][STATS]`; NaN where nothing is known.
    pub stats: &'a mut [f32],
    /// `[row][window]`: samples that were there.
    pub known: &'a mut [u32],
}

impl FrameStats<'_> {
    fn stride(&self) -> usize {
        self.samples.len() / self.rows.max(1)
    }
}

impl Task for FrameStats<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::FrameStats
    }

    fn check(&self) -> Result<(), ShapeError> {
        let check = Checker {
            kernel: self.kernel(),
        };
        let most = u32::MAX as usize;
        check.within("rows", self.rows, 1..=most)?;
        check.within("windows", self.windows, 1..=most / self.rows)?;
        check.length("samples", self.samples.len(), self.rows * self.stride())?;
        for (what, n) in [
            ("stride", self.stride()),
            ("length", self.length),
            ("hop", self.hop),
        ] {
            check.within(what, n, 4..=most)?;
            check.require(what, n as u64, n.is_multiple_of(4), || {
                "a multiple of 4 is allowed".into()
            })?;
        }
        let end = (self.windows - 1) * self.hop + self.length;
        check.within("stride", self.stride(), end..=most)?;
        check.length("stats", self.stats.len(), self.rows * self.windows * STATS)?;
        check.length("known", self.known.len(), self.rows * self.windows)
    }

    fn launch(&mut self, geometry: &Geometry) -> Launch<'_> {
        let stride = self.stride();
        let shape = Shape {
            grid: geometry.blocks(self.rows * self.windows, WARPS, THREADS),
            block: THREADS,
            shared: 0,
        };
        Launch::new(
            self.kernel(),
            shape,
            vec![
                Data::input(self.samples),
                Data::output(self.stats),
                Data::output(self.known),
            ],
            &[
                Arg::U32(self.rows as u32),
                Arg::U32(stride as u32),
                Arg::U32(self.windows as u32),
                Arg::U32(self.length as u32),
                Arg::U32(self.hop as u32),
            ],
        )
    }

    fn run_on_cpu(&mut self) {
        let stride = self.stride();
        cpu::frame_stats::run(self, stride);
    }
}
