//! Laps in parallel; within one, whole-number distances and one walk over points and intervals together.

use rayon::prelude::*;

use crate::compute::LapResample;
use crate::compute::lap_resample::MAX_SPEED_KMH;

/// Speed is rounded to 1/64 km/h.
const SPEED_STEPS: f32 = 64.0;
/// Units of distance in a metre: (1/64 km/h)·µs, twice for the trapezium.
const UNITS_PER_METRE: f32 = 4.608e8;
/// Adding and taking it away rounds a small float to a whole one, ties to even.
const ROUNDER: f32 = 12_582_912.0;

pub(in crate::compute) fn run(task: &mut LapResample<'_>) {
    let (channels, bins) = (task.channel_count(), task.bins);
    let (lap_start, time_us) = (task.lap_start, task.time_us);
    let source = Source {
        channels: task.channels,
        samples: time_us.len(),
        step_channels: task.step_channels,
        max_gap_us: task.max_gap_us,
    };
    task.grid
        .par_chunks_mut((channels + 1) * bins)
        .zip(task.length_m.par_iter_mut())
        .enumerate()
        .for_each_init(Scratch::default, |scratch, (lap, (grid, length))| {
            let (begin, end) = (lap_start[lap] as usize, lap_start[lap + 1] as usize);
            let times = &time_us[begin..end];
            let total = scratch.integrate(times, &source.channels[begin..end]);
            *length = total as f32 * (1.0 / UNITS_PER_METRE);
            if total == 0 {
                grid.fill(f32::NAN);
                return;
            }
            scratch.place(total, bins);
            source.read_off(scratch, begin, times, bins, grid);
        });
}

struct Source<'a> {
    channels: &'a [f32],
    samples: usize,
    step_channels: u32,
    max_gap_us: i32,
}

/// What a lap needs on the way; kept from lap to lap.
#[derive(Default)]
struct Scratch {
    /// Speed of each sample (1/64 km/h), −1 = missing.
    speeds: Vec<i32>,
    /// Twice the distance of each interval.
    intervals: Vec<i64>,
    /// The interval that each point lies in, and how far along.
    at: Vec<(u32, f32)>,
}

impl Scratch {
    /// Distance of each interval; gives the total.
    fn integrate(&mut self, times: &[i32], speeds: &[f32]) -> i64 {
        self.speeds.clear();
        self.speeds.extend(speeds.iter().map(|&v| {
            let whole = (v * SPEED_STEPS).clamp(0.0, MAX_SPEED_KMH * SPEED_STEPS);
            let whole = ((whole + ROUNDER) - ROUNDER) as i32;
            if v.is_nan() { -1 } else { whole }
        }));
        self.intervals.clear();
        self.intervals
            .extend(times.windows(2).zip(self.speeds.windows(2)).map(|(t, v)| {
                let a = if v[0] < 0 { v[1] } else { v[0] };
                let b = if v[1] < 0 { a } else { v[1] };
                let dt = i64::from(t[1]) - i64::from(t[0]);
                if a < 0 || dt <= 0 {
                    0
                } else {
                    i64::from(a + b) * dt
                }
            }));
        self.intervals.iter().sum()
    }

    /// Finds the interval of every point.
    fn place(&mut self, total: i64, bins: usize) {
        let n = bins as i64 - 1;
        self.at.clear();
        let (mut sum, mut k) = (0, 0);
        for (i, &own) in self.intervals.iter().enumerate() {
            while k < n && k * total < (sum + own) * n {
                let past = k * total - sum * n;
                self.at.push((i as u32, past as f32 / (own * n) as f32));
                k += 1;
            }
            sum += own;
        }
        self.at.push((self.intervals.len() as u32 - 1, 1.0));
    }
}

impl Source<'_> {
    fn read_off(
        &self,
        scratch: &Scratch,
        begin: usize,
        times: &[i32],
        bins: usize,
        grid: &mut [f32],
    ) {
        let (time_row, rows) = grid.split_at_mut(bins);
        for (out, &(i, w)) in time_row.iter_mut().zip(&scratch.at) {
            let (t, next) = (times[i as usize], times[i as usize + 1]);
            let along = ((next - t) as f32 * w).round_ties_even() as i32;
            *out = (t + along) as f32 * 1e-6;
        }
        for (c, row) in rows.chunks_exact_mut(bins).enumerate() {
            let values = &self.channels[c * self.samples + begin..][..times.len()];
            let steps = self.step_channels >> c & 1 == 1;
            for (out, &(i, w)) in row.iter_mut().zip(&scratch.at) {
                let i = i as usize;
                let (a, b) = (values[i], values[i + 1]);
                *out = if times[i + 1] - times[i] > self.max_gap_us {
                    f32::NAN
                } else if steps {
                    if w < 1.0 { a } else { b }
                } else {
                    a + (b - a) * w
                };
            }
        }
    }
}
