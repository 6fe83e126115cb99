//! From samples in time to points at equal steps of distance. See `kernels/lap_resample.cu` for the rules.

use super::launch::{Arg, Data, Geometry, Launch, Shape};
use super::{Checker, Kernel, ShapeError, Task, cpu};

/// Most channels.
pub const MAX_CHANNELS: usize = 32;
/// Most points of a lap.
pub const MAX_BINS: usize = 4096;
/// Fastest speed that is believed (km/h).
pub const MAX_SPEED_KMH: f32 = 500.0;
const THREADS: u32 = 128;

/// Resamples every channel of every lap to `bins` points at equal steps of the lap's own distance.
#[derive(Debug)]
pub struct LapResample<'a> {
    /// Samples of lap l are `lap_start[l]..lap_start[l + 1]`; one more than laps.
    pub lap_start: &'a [u32],
    /// Time since the lap's start (µs), never decreasing within a lap.
    pub time_us: &'a [i32],
    /// `[channel][sample]`; channel 0 is the speed (km/h). NaN = missing.
    pub channels: &'a [f32],
    /// Points a lap; a multiple of 4, from 8.
    pub bins: usize,
    /// Bit c: channel c holds its value until the next sample (gear, DRS).
    pub step_channels: u32,
    /// Points between samples further apart than this are missing (µs).
    pub max_gap_us: i32,
    /// `[lap][channels + 1][bins]`: row 0 the time (s), then the channels.
    pub grid: &'a mut [f32],
    /// Integrated distance of each lap (m); 0 = too little to resample, and its grid is NaN.
    pub length_m: &'a mut [f32],
}

impl LapResample<'_> {
    /// Laps.
    pub fn laps(&self) -> usize {
        self.lap_start.len().saturating_sub(1)
    }

    /// Channels, the speed among them.
    pub fn channel_count(&self) -> usize {
        self.channels.len() / self.time_us.len().max(1)
    }
}

impl Task for LapResample<'_> {
    fn kernel(&self) -> Kernel {
        Kernel::LapResample
    }

    fn check(&self) -> Result<(), ShapeError> {
        let check = Checker {
            kernel: self.kernel(),
        };
        let samples = self.time_us.len();
        check.within("samples", samples, 1..=u32::MAX as usize)?;
        check.within("lap_start", self.lap_start.len(), 1..=u32::MAX as usize)?;
        check.offsets("lap_start", self.lap_start, samples)?;
        let channels = self.channel_count();
        check.within("channels", channels, 1..=MAX_CHANNELS)?;
        check.length("channels", self.channels.len(), channels * samples)?;
        check.within("bins", self.bins, 8..=MAX_BINS)?;
        check.require(
            "bins",
            self.bins as u64,
            self.bins.is_multiple_of(4),
            || "a multiple of 4 is allowed".into(),
        )?;
        let negative = self.time_us.iter().any(|&t| t < 0);
        check.require("time_us", 0, !negative, || {
            "times are since the lap's start, and one is before it".into()
        })?;
        check.length("length_m", self.length_m.len(), self.laps())?;
        check.length(
            "grid",
            self.grid.len(),
            self.laps() * (channels + 1) * self.bins,
        )
    }

    fn launch(&mut self, geometry: &Geometry) -> Launch<'_> {
        let (laps, channels) = (self.laps(), self.channel_count());
        let shape = Shape {
            grid: geometry.blocks(laps, 1, THREADS),
            block: THREADS,
            shared: 8 * (THREADS / 32) + 8 * self.bins as u32,
        };
        Launch::new(
            self.kernel(),
            shape,
            vec![
                Data::input(self.lap_start),
                Data::input(self.time_us),
                Data::input(self.channels),
                Data::output(self.grid),
                Data::output(self.length_m),
            ],
            &[
                Arg::U32(laps as u32),
                Arg::U32(self.time_us.len() as u32),
                Arg::U32(channels as u32),
                Arg::U32(self.bins as u32),
                Arg::U32(self.step_channels),
                Arg::I32(self.max_gap_us),
            ],
        )
    }

    fn run_on_cpu(&mut self) {
        cpu::lap_resample::run(self);
    }
}
