//! Fresh inputs for every kernel: what parity is tested with and speed is measured with.
//!
//! From a seed, so that a disagreement can be had again. Not plain noise: speeds rise and fall, channels have
//! holes, laps are empty or have a single sample, stints have outliers, rings are not full; a few percent of all
//! values are missing. `Size::Small` has the odd shapes, `Size::Season` the amounts. [`recorded`] has what was really
//! driven.

mod frames;
mod inputs;
mod laps;
mod races;
mod recorded;
mod stints;

use self::frames::Frames;
use self::inputs::Inputs;
use self::laps::{Deltas, Features, Samples};
use self::races::Races;
pub use self::recorded::{Cases, Sample, recorded};
use self::stints::Stints;
use super::{Kernel, Task};

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
