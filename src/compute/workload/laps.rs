//! Laps: sampled in time, resampled, compared.

use super::recorded::Stretches;
use super::{Case, Draw, Size, Values, bytes_of};
use crate::compute::delta_trace::NONE;
use crate::compute::lap_features::{self, NO_CORNER, Pedals, Rows};
use crate::compute::{DeltaTrace, LapFeatures, LapResample, Task};

/// Laps of a season.
const SEASON_LAPS: usize = 24_000;
/// Laps of a race, which compare themselves with its fastest.
const RACE_LAPS: usize = 1_000;

pub(super) struct Samples {
    lap_start: Vec<u32>,
    time_us: Vec<i32>,
    channels: Vec<f32>,
    bins: usize,
    max_gap_us: i32,
    grid: Vec<f32>,
    length_m: Vec<f32>,
}

/// speed, throttle, brake, gear, rpm, DRS.
pub(super) const CHANNELS: usize = 6;
const STEPS: u32 = 0b10_1100;
/// Longest gap that is bridged (µs).
const MAX_GAP_US: i32 = 1_000_000;
/// Points, mini-sectors and corners of a lap of real size.
const BINS: usize = 512;
const MINIS: usize = 24;
const CORNERS: usize = 16;

impl Samples {
    /// What was driven.
    pub(super) fn of(driven: Stretches) -> Samples {
        let laps = driven.starts.len() - 1;
        Samples {
            grid: vec![0.0; laps * (CHANNELS + 1) * BINS],
            length_m: vec![0.0; laps],
            lap_start: driven.starts,
            time_us: driven.time_us,
            channels: driven.channels.concat(),
            bins: BINS,
            max_gap_us: MAX_GAP_US,
        }
    }

    pub(super) fn grid(&self) -> &[f32] {
        &self.grid
    }

    pub(super) fn draw(size: Size, draw: &mut Draw) -> Samples {
        let (laps, bins) = match size {
            Size::Small => (7 + draw.below(20), 8 + 4 * draw.below(160)),
            Size::Season => (SEASON_LAPS, BINS),
        };
        let mut lap_start = vec![0];
        let mut time_us = Vec::new();
        for _ in 0..laps {
            let samples = match (size, draw.below(8)) {
                (Size::Small, 0) => 0,
                (Size::Small, 1) => 1,
                (Size::Small, 2) => 2 + draw.below(3),
                (Size::Small, 3) => 900 + draw.below(300),
                _ => 280 + draw.below(120),
            };
            let mut t = draw.below(200_000) as i32;
            for _ in 0..samples {
                time_us.push(t);
                t += match draw.below(100) {
                    0 => 0,
                    1 => 3_000_000,
                    // As long as is just allowed.
                    2 => MAX_GAP_US,
                    _ => 200_000 + draw.below(140_000) as i32,
                };
            }
            lap_start.push(time_us.len() as u32);
        }
        // A sample more than the laps need, so that there is always one.
        time_us.push(0);
        let samples = time_us.len();
        let mut channels = Vec::with_capacity(CHANNELS * samples);
        let mut speed = 200.0_f32;
        for _ in 0..samples {
            speed = (speed + draw.between(-40.0, 40.0)).clamp(0.0, 340.0);
            channels.push(if draw.once_in(40) { f32::NAN } else { speed });
        }
        for c in 1..CHANNELS {
            let (steps, most) = (
                STEPS >> c & 1 == 1,
                [0.0, 100.0, 2.0, 9.0, 13_000.0, 15.0][c],
            );
            for _ in 0..samples {
                let v = draw.between(0.0, most);
                let v = if steps { v.floor() } else { v };
                channels.push(if draw.once_in(50) { f32::NAN } else { v });
            }
        }
        Samples {
            grid: vec![0.0; laps * (CHANNELS + 1) * bins],
            length_m: vec![0.0; laps],
            lap_start,
            time_us,
            channels,
            bins,
            max_gap_us: MAX_GAP_US,
        }
    }
}

impl Case for Samples {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(LapResample {
            lap_start: &self.lap_start,
            time_us: &self.time_us,
            channels: &self.channels,
            bins: self.bins,
            step_channels: STEPS,
            max_gap_us: self.max_gap_us,
            grid: &mut self.grid,
            length_m: &mut self.length_m,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![
            ("grid", Values::F32(&self.grid)),
            ("length_m", Values::F32(&self.length_m)),
        ]
    }

    fn reset(&mut self) {
        self.grid.fill(0.0);
        self.length_m.fill(0.0);
    }

    fn bytes(&self) -> u64 {
        bytes_of(&self.lap_start)
            + bytes_of(&self.time_us)
            + bytes_of(&self.channels)
            + bytes_of(&self.grid)
            + bytes_of(&self.length_m)
    }
}

/// Resampled laps as they might come from `lap_resample`, a few of them missing.
fn grid(laps: usize, bins: usize, draw: &mut Draw) -> Vec<f32> {
    let rows = CHANNELS + 1;
    let mut grid = vec![f32::NAN; laps * rows * bins];
    for lap in grid.chunks_exact_mut(rows * bins) {
        if draw.once_in(15) {
            continue;
        }
        let mut t = 0.0;
        let holes = !draw.once_in(3);
        for k in 0..bins {
            lap[k] = t;
            t += draw.between(0.05, 0.4);
            for row in 1..rows {
                let most = [0.0, 340.0, 101.0, 101.0, 9.0, 13_000.0, 15.0][row];
                let v = draw.between(0.0, most);
                let v = if (2..=4).contains(&row) { v.floor() } else { v };
                if !(holes && draw.once_in(30)) {
                    lap[row * bins + k] = v;
                }
            }
        }
    }
    grid
}

/// Mini-sectors of the same length.
fn even_edges() -> Vec<u32> {
    (0..=MINIS)
        .map(|m| (m * (BINS - 1) / MINIS) as u32)
        .collect()
}

/// Where each row of channels is in a grid.
const ROWS: Rows = Rows {
    speed: Some(1),
    throttle: Some(2),
    brake: Some(3),
    gear: Some(4),
};

/// Where mini-sectors begin and end on each circuit.
fn edges(tracks: usize, minis: usize, bins: usize, draw: &mut Draw) -> Vec<u32> {
    (0..tracks)
        .flat_map(|_| {
            let mut edges: Vec<u32> = (0..=minis).map(|_| draw.below(bins) as u32).collect();
            edges.sort_unstable();
            (edges[0], edges[minis]) = (0, bins as u32 - 1);
            edges
        })
        .collect()
}

pub(super) struct Features {
    grid: Vec<f32>,
    bins: usize,
    which: Rows,
    lap_track: Vec<u32>,
    curvature: Vec<f32>,
    corner: Vec<u8>,
    corners: usize,
    edges: Vec<u32>,
    minis: usize,
    features: Vec<f32>,
}

impl Features {
    /// Of laps of one circuit, whose corners are made up.
    pub(super) fn of(grid: &[f32]) -> Features {
        let laps = grid.len() / ((CHANNELS + 1) * BINS);
        let corner = |k: usize| match k % 32 {
            0..12 => (k / 32) as u8,
            _ => NO_CORNER,
        };
        Features {
            grid: grid.to_vec(),
            bins: BINS,
            which: ROWS,
            lap_track: vec![0; laps],
            curvature: (0..BINS).map(|k| (k % 64) as f32 * 1e-4 - 3e-3).collect(),
            corner: (0..BINS).map(corner).collect(),
            corners: CORNERS,
            edges: even_edges(),
            minis: MINIS,
            features: vec![0.0; laps * (lap_features::FIXED + MINIS + CORNERS)],
        }
    }

    pub(super) fn draw(size: Size, draw: &mut Draw) -> Features {
        let (laps, bins, tracks, minis, corners) = match size {
            Size::Small => (
                1 + draw.below(40),
                8 + 4 * draw.below(100),
                1 + draw.below(3),
                1 + draw.below(40),
                draw.below(33),
            ),
            Size::Season => (SEASON_LAPS, BINS, 24, MINIS, CORNERS),
        };
        let mut which = ROWS;
        if size == Size::Small {
            for row in [
                &mut which.speed,
                &mut which.throttle,
                &mut which.brake,
                &mut which.gear,
            ] {
                if draw.once_in(8) {
                    *row = None;
                }
            }
        }
        let points = tracks * bins;
        Features {
            grid: grid(laps, bins, draw),
            bins,
            which,
            lap_track: (0..laps).map(|_| draw.below(tracks) as u32).collect(),
            curvature: (0..points)
                .map(|_| {
                    if draw.once_in(50) {
                        f32::NAN
                    } else {
                        draw.between(-0.05, 0.05)
                    }
                })
                .collect(),
            corner: (0..points)
                .map(|k| {
                    if k % bins % 20 < 8 {
                        (k % bins / 20) as u8
                    } else {
                        NO_CORNER
                    }
                })
                .collect(),
            corners,
            edges: edges(tracks, minis, bins, draw),
            minis,
            features: vec![0.0; laps * (lap_features::FIXED + minis + corners)],
        }
    }
}

impl Case for Features {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(LapFeatures {
            grid: &self.grid,
            rows: CHANNELS + 1,
            bins: self.bins,
            which: self.which,
            pedals: Pedals::default(),
            lap_track: &self.lap_track,
            curvature: &self.curvature,
            corner: &self.corner,
            corners: self.corners,
            edges: &self.edges,
            minis: self.minis,
            features: &mut self.features,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![("features", Values::F32(&self.features))]
    }

    fn reset(&mut self) {
        self.features.fill(0.0);
    }

    fn bytes(&self) -> u64 {
        // Five of the grid's rows are read; the circuits' tables come from the cache.
        bytes_of(&self.grid) / (CHANNELS as u64 + 1) * 5 + bytes_of(&self.features)
    }
}

pub(super) struct Deltas {
    grid: Vec<f32>,
    bins: usize,
    reference: Vec<u32>,
    lap_group: Vec<u32>,
    lap_track: Vec<u32>,
    edges: Vec<u32>,
    minis: usize,
    delta: Vec<f32>,
    winner: Vec<u64>,
}

impl Deltas {
    /// Of laps of one race, against the first.
    pub(super) fn of(grid: &[f32]) -> Deltas {
        let laps = grid.len() / ((CHANNELS + 1) * BINS);
        Deltas {
            grid: grid.to_vec(),
            bins: BINS,
            reference: vec![0; laps],
            lap_group: vec![0; laps],
            lap_track: vec![0; laps],
            edges: even_edges(),
            minis: MINIS,
            delta: vec![0.0; laps * BINS],
            winner: vec![u64::MAX; MINIS],
        }
    }

    pub(super) fn draw(size: Size, draw: &mut Draw) -> Deltas {
        let (laps, bins, tracks, minis) = match size {
            Size::Small => (
                1 + draw.below(60),
                8 + 4 * draw.below(100),
                1 + draw.below(3),
                1 + draw.below(40),
            ),
            Size::Season => (SEASON_LAPS, BINS, 24, MINIS),
        };
        let race = if size == Size::Small { 20 } else { RACE_LAPS };
        let index = |lap: usize, draw: &mut Draw, value: usize| {
            if lap % 7 == 3 && draw.once_in(3) {
                NONE
            } else {
                value as u32
            }
        };
        let mut grid = grid(laps, bins, draw);
        if laps > 1 {
            // A tie, which goes to the lap of the lower number.
            grid.copy_within(..(CHANNELS + 1) * bins, (CHANNELS + 1) * bins);
        }
        Deltas {
            grid,
            bins,
            reference: (0..laps).map(|l| index(l, draw, l / race * race)).collect(),
            lap_group: (0..laps).map(|l| index(l, draw, l / race)).collect(),
            lap_track: (0..laps).map(|l| (l / race % tracks) as u32).collect(),
            edges: edges(tracks, minis, bins, draw),
            minis,
            delta: vec![0.0; laps * bins],
            winner: vec![u64::MAX; laps.div_ceil(race) * minis],
        }
    }
}

impl Case for Deltas {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(DeltaTrace {
            grid: &self.grid,
            rows: CHANNELS + 1,
            bins: self.bins,
            reference: &self.reference,
            lap_group: &self.lap_group,
            lap_track: &self.lap_track,
            edges: &self.edges,
            minis: self.minis,
            delta: &mut self.delta,
            winner: &mut self.winner,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![
            ("delta", Values::F32(&self.delta)),
            ("winner", Values::U64(&self.winner)),
        ]
    }

    fn reset(&mut self) {
        self.delta.fill(0.0);
        self.winner.fill(u64::MAX);
    }

    fn bytes(&self) -> u64 {
        // The time's row is read; a race's reference comes from the cache.
        2 * bytes_of(&self.delta) + bytes_of(&self.winner)
    }
}
