//! Fresh inputs for every kernel: what parity is tested with and speed is measured with.
//!
//! From a seed, so that a disagreement can be had again. Not plain noise: speeds rise and fall, channels have
//! holes, laps are empty or have a single sample, stints have outliers, rings are not full; a few percent of all
//! values are missing. `Size::Small` has the odd shapes, `Size::Season` the amounts.

mod races;

use self::races::Races;
use super::assemble_inputs::Tensor;
use super::delta_trace::NONE;
use super::lap_features::{NO_CORNER, Pedals, Rows};
use super::stint_fit::TUNING;
use super::{
    AssembleInputs, DeltaTrace, FrameStats, Kernel, LapFeatures, LapResample, StintFit, Task,
    lap_features, stint_fit,
};

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A few blocks, odd shapes.
    Small,
    /// A season of laps; a minute of 1 kHz frames; the cars of a race.
    Season,
}

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to just under `high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.bits() >> 40) as f32 / (1 << 24) as f32)
    }

    /// From 0 to just under `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() >> 32) as usize % end.max(1)
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Values that a task wrote.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    F32(&'a [f32]),
    I32(&'a [i32]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

impl Values<'_> {
    /// The first place where the two differ, by bits; one NaN is as good as another.
    pub fn difference(&self, other: &Values<'_>) -> Option<usize> {
        match (self, other) {
            (Values::F32(a), Values::F32(b)) => a
                .iter()
                .zip(*b)
                .position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()))
                .or((a.len() != b.len()).then_some(a.len())),
            (Values::I32(a), Values::I32(b)) => first(a, b),
            (Values::U16(a), Values::U16(b)) => first(a, b),
            (Values::U32(a), Values::U32(b)) => first(a, b),
            (Values::U64(a), Values::U64(b)) => first(a, b),
            _ => Some(0),
        }
    }

    /// One of them, for a message.
    pub fn show(&self, i: usize) -> String {
        match self {
            Values::F32(v) => format!("{:?}", v.get(i)),
            Values::I32(v) => format!("{:?}", v.get(i)),
            Values::U16(v) => format!("{:?}", v.get(i)),
            Values::U32(v) => format!("{:?}", v.get(i)),
            Values::U64(v) => format!("{:?}", v.get(i)),
        }
    }
}

fn first<T: PartialEq>(a: &[T], b: &[T]) -> Option<usize> {
    a.iter()
        .zip(b)
        .position(|(a, b)| a != b)
        .or((a.len() != b.len()).then_some(a.len()))
}

/// Inputs and room for outputs of one kernel.
pub trait Case: Send {
    fn task(&mut self) -> Box<dyn Task + '_>;
    /// What the task wrote.
    fn outputs(&self) -> Vec<(&'static str, Values<'_>)>;
    /// Outputs as they were before the task.
    fn reset(&mut self);
    /// Bytes that must be moved: every array once.
    fn bytes(&self) -> u64;
}

/// Inputs for a kernel, from a seed: the same seed gives the same inputs.
pub fn case(kernel: Kernel, size: Size, seed: u64) -> Box<dyn Case> {
    let mut draw = Draw::new(seed);
    match kernel {
        Kernel::AssembleInputs => Box::new(Inputs::draw(size, &mut draw)),
        Kernel::DeltaTrace => Box::new(Deltas::draw(size, &mut draw)),
        Kernel::FrameStats => Box::new(Frames::draw(size, &mut draw)),
        Kernel::LapFeatures => Box::new(Features::draw(size, &mut draw)),
        Kernel::LapResample => Box::new(Samples::draw(size, &mut draw)),
        Kernel::RaceMonteCarlo => Box::new(Races::draw(size, &mut draw)),
        Kernel::StintFit => Box::new(Stints::draw(size, &mut draw)),
    }
}

/// What one tick of a race has: a second of 20 cars' channels at 50 Hz, and the models' inputs.
pub fn tick(seed: u64) -> Vec<Box<dyn Case>> {
    let mut draw = Draw::new(seed);
    vec![
        Box::new(Frames::of(20 * 8, 1, 52, 52, &mut draw)),
        Box::new(Inputs::draw(Size::Season, &mut draw)),
    ]
}

fn bytes_of<T>(values: &[T]) -> u64 {
    size_of_val(values) as u64
}

/// Laps of a season.
const SEASON_LAPS: usize = 24_000;
/// Laps of a race, which compare themselves with its fastest.
const RACE_LAPS: usize = 1_000;

struct Samples {
    lap_start: Vec<u32>,
    time_us: Vec<i32>,
    channels: Vec<f32>,
    bins: usize,
    max_gap_us: i32,
    grid: Vec<f32>,
    length_m: Vec<f32>,
}

/// speed, throttle, brake, gear, rpm, DRS.
const CHANNELS: usize = 6;
const STEPS: u32 = 0b10_1100;

impl Samples {
    fn draw(size: Size, draw: &mut Draw) -> Samples {
        let (laps, bins) = match size {
            Size::Small => (7 + draw.below(20), 8 + 4 * draw.below(160)),
            Size::Season => (SEASON_LAPS, 512),
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
                    2 => 1_000_000,
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
            max_gap_us: 1_000_000,
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

struct Features {
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
    fn draw(size: Size, draw: &mut Draw) -> Features {
        let (laps, bins, tracks, minis, corners) = match size {
            Size::Small => (
                1 + draw.below(40),
                8 + 4 * draw.below(100),
                1 + draw.below(3),
                1 + draw.below(40),
                draw.below(33),
            ),
            Size::Season => (SEASON_LAPS, 512, 24, 24, 16),
        };
        let rows_all = Rows {
            speed: Some(1),
            throttle: Some(2),
            brake: Some(3),
            gear: Some(4),
        };
        let mut which = rows_all;
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

struct Deltas {
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
    fn draw(size: Size, draw: &mut Draw) -> Deltas {
        let (laps, bins, tracks, minis) = match size {
            Size::Small => (
                1 + draw.below(60),
                8 + 4 * draw.below(100),
                1 + draw.below(3),
                1 + draw.below(40),
            ),
            Size::Season => (SEASON_LAPS, 512, 24, 24),
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

struct Stints {
    stint_start: Vec<u32>,
    time_s: Vec<f32>,
    age: Vec<f32>,
    fuel: Vec<f32>,
    prior: Vec<f32>,
    rounds: u32,
    fit: Vec<f32>,
}

impl Stints {
    fn draw(size: Size, draw: &mut Draw) -> Stints {
        let stints = match size {
            Size::Small => 1 + draw.below(60),
            Size::Season => 24 * 20 * 3,
        };
        let (mut stint_start, mut time_s) = (vec![0], Vec::new());
        let (mut age, mut fuel, mut prior) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..stints {
            let laps = match (size, draw.below(10)) {
                (Size::Small, 0) => draw.below(4),
                (Size::Small, 1) => 100 + draw.below(60),
                _ => 8 + draw.below(28),
            };
            let (base, wear) = (draw.between(65.0, 110.0), draw.between(-0.02, 0.2));
            let (used, tank) = (draw.below(8) as f32, draw.between(20.0, 110.0));
            for i in 0..laps {
                let i = i as f32;
                let lap = base + wear * i - 0.05 * i + draw.between(-0.3, 0.3);
                time_s.push(match draw.below(20) {
                    0 => f32::NAN,
                    1 => lap + draw.between(2.0, 30.0),
                    // Laps are timed to a millisecond, and some agree.
                    _ => (lap * 1000.0).round() / 1000.0,
                });
                age.push(used + i);
                fuel.push(tank - 1.6 * i);
            }
            stint_start.push(time_s.len() as u32);
            prior.extend([0.05, draw.between(1.0, 200.0), 0.03, draw.between(1e3, 1e6)]);
        }
        Stints {
            stint_start,
            time_s,
            age,
            fuel,
            prior,
            rounds: if size == Size::Small {
                draw.below(9) as u32
            } else {
                6
            },
            fit: vec![0.0; stints * stint_fit::FIT],
        }
    }
}

impl Case for Stints {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(StintFit {
            stint_start: &self.stint_start,
            time_s: &self.time_s,
            age: &self.age,
            fuel: &self.fuel,
            prior: &self.prior,
            rounds: self.rounds,
            tuning: TUNING,
            fit: &mut self.fit,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![("fit", Values::F32(&self.fit))]
    }

    fn reset(&mut self) {
        self.fit.fill(0.0);
    }

    fn bytes(&self) -> u64 {
        3 * bytes_of(&self.time_s)
            + bytes_of(&self.stint_start)
            + bytes_of(&self.prior)
            + bytes_of(&self.fit)
    }
}

struct Frames {
    samples: Vec<f32>,
    rows: usize,
    windows: usize,
    length: usize,
    hop: usize,
    stats: Vec<f32>,
    known: Vec<u32>,
}

impl Frames {
    fn draw(size: Size, draw: &mut Draw) -> Frames {
        match size {
            Size::Small => {
                let (length, hop) = (4 + 4 * draw.below(200), 4 + 4 * draw.below(200));
                Frames::of(1 + draw.below(9), 1 + draw.below(7), length, hop, draw)
            }
            Size::Season => Frames::of(20 * 32, 60, 1000, 1000, draw),
        }
    }

    fn of(rows: usize, windows: usize, length: usize, hop: usize, draw: &mut Draw) -> Frames {
        let stride = (windows - 1) * hop + length + 4 * draw.below(3);
        let samples = (0..rows * stride)
            .map(|i| match draw.below(60) {
                0 => f32::NAN,
                1 => -0.0,
                2 => 0.0,
                // A row of which nothing is known.
                _ if i / stride == 3 && rows < 10 => f32::NAN,
                _ => draw.between(-300.0, 300.0),
            })
            .collect();
        Frames {
            samples,
            rows,
            windows,
            length,
            hop,
            stats: vec![0.0; rows * windows * 4],
            known: vec![0; rows * windows],
        }
    }
}

impl Case for Frames {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(FrameStats {
            samples: &self.samples,
            rows: self.rows,
            windows: self.windows,
            length: self.length,
            hop: self.hop,
            stats: &mut self.stats,
            known: &mut self.known,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![
            ("stats", Values::F32(&self.stats)),
            ("known", Values::U32(&self.known)),
        ]
    }

    fn reset(&mut self) {
        self.stats.fill(0.0);
        self.known.fill(0);
    }

    fn bytes(&self) -> u64 {
        bytes_of(&self.samples) + bytes_of(&self.stats) + bytes_of(&self.known)
    }
}

struct Inputs {
    history: Vec<f32>,
    slots: usize,
    features: usize,
    newest: Vec<u32>,
    count: Vec<u32>,
    steps: usize,
    choice: Vec<u32>,
    mean: Vec<f32>,
    scale: Vec<f32>,
    half: bool,
    full: Vec<f32>,
    halves: Vec<u16>,
    mask: Vec<f32>,
}

impl Inputs {
    fn draw(size: Size, draw: &mut Draw) -> Inputs {
        let (cars, slots, features, steps, wanted) = match size {
            Size::Small => {
                let slots = 1 + draw.below(30);
                let features = 1 + draw.below(20);
                (
                    1 + draw.below(24),
                    slots,
                    features,
                    1 + draw.below(slots),
                    1 + draw.below(25),
                )
            }
            Size::Season => (20, 64, 40, 50, 32),
        };
        let half = draw.once_in(2);
        let values = cars * steps * wanted;
        Inputs {
            history: (0..cars * slots * features)
                .map(|_| match draw.below(20) {
                    0 => f32::NAN,
                    // Half way between two halves, where mean and scale let it be.
                    1..4 => 1.0 + draw.below(2048) as f32 / 2048.0,
                    4 => draw.below(2048) as f32 / (1 << 25) as f32,
                    _ => draw.between(-9.0, 100.0),
                })
                .collect(),
            slots,
            features,
            newest: (0..cars).map(|_| draw.below(slots) as u32).collect(),
            count: (0..cars).map(|_| draw.below(2 * slots) as u32).collect(),
            steps,
            choice: (0..wanted).map(|_| draw.below(features) as u32).collect(),
            mean: (0..wanted)
                .map(|i| {
                    if i % 3 == 0 {
                        0.0
                    } else {
                        draw.between(0.0, 90.0)
                    }
                })
                .collect(),
            scale: (0..wanted)
                .map(|i| {
                    if i % 3 == 0 {
                        1.0
                    } else {
                        draw.between(0.001, 1.0)
                    }
                })
                .collect(),
            half,
            full: vec![0.0; if half { 0 } else { values }],
            halves: vec![0; if half { values } else { 0 }],
            mask: vec![0.0; cars * steps],
        }
    }
}

impl Case for Inputs {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(AssembleInputs {
            history: &self.history,
            slots: self.slots,
            features: self.features,
            newest: &self.newest,
            count: &self.count,
            steps: self.steps,
            choice: &self.choice,
            mean: &self.mean,
            scale: &self.scale,
            limit: 10.0,
            tensor: if self.half {
                Tensor::F16(&mut self.halves)
            } else {
                Tensor::F32(&mut self.full)
            },
            mask: &mut self.mask,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        let tensor = if self.half {
            Values::U16(&self.halves)
        } else {
            Values::F32(&self.full)
        };
        vec![("tensor", tensor), ("mask", Values::F32(&self.mask))]
    }

    fn reset(&mut self) {
        self.full.fill(0.0);
        self.halves.fill(0);
        self.mask.fill(0.0);
    }

    fn bytes(&self) -> u64 {
        let read = 4 * (self.mask.len() * self.choice.len()) as u64;
        read + bytes_of(&self.full) + bytes_of(&self.halves) + bytes_of(&self.mask)
    }
}
