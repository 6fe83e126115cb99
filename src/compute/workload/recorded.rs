//! What was really driven, as inputs of the kernels of laps: a car's samples, ninety seconds at a time.

use std::collections::BTreeMap;

use super::Case;
use super::laps::{CHANNELS, Deltas, Features, Samples};
use crate::compute::{Backend, Cpu, Kernel, ShapeError};

/// How long a stretch is (µs): about a lap.
const STRETCH_US: i64 = 90_000_000;

/// One sample of a car.
#[derive(Clone, Debug)]
pub struct Sample {
    pub car: u8,
    /// From any beginning that is the same for all (µs).
    pub at_us: i64,
    /// Speed (km/h), throttle, brake, gear, rpm, DRS; NaN = missing.
    pub channels: [f32; CHANNELS],
}

/// A car's samples, its stretches one after the other.
#[derive(Default)]
pub(super) struct Stretches {
    /// Where each begins, and where the last ends.
    pub starts: Vec<u32>,
    /// Since the stretch began.
    pub time_us: Vec<i32>,
    pub channels: [Vec<f32>; CHANNELS],
}

impl Stretches {
    fn of(samples: &[Sample]) -> Stretches {
        let mut cars: BTreeMap<u8, Vec<&Sample>> = BTreeMap::new();
        for sample in samples {
            cars.entry(sample.car).or_default().push(sample);
        }
        let mut out = Stretches {
            starts: vec![0],
            ..Stretches::default()
        };
        for samples in cars.values_mut() {
            samples.sort_by_key(|s| s.at_us);
            let mut rest = &samples[..];
            while let Some(began) = rest.first().map(|s| s.at_us) {
                let (own, after) =
                    rest.split_at(rest.partition_point(|s| s.at_us < began + STRETCH_US));
                for sample in own {
                    out.time_us.push((sample.at_us - began) as i32);
                    for (channel, value) in out.channels.iter_mut().zip(sample.channels) {
                        channel.push(value);
                    }
                }
                out.starts.push(out.time_us.len() as u32);
                rest = after;
            }
        }
        out
    }
}

/// Inputs of several kernels.
pub type Cases = Vec<(Kernel, Box<dyn Case>)>;

/// Resampled, then features and deltas of what the CPU makes of that: a case a kernel. The same samples give the same
/// cases.
///
/// # Errors
/// [`ShapeError`] if there are more samples than a kernel takes.
pub fn recorded(samples: &[Sample]) -> Result<Cases, ShapeError> {
    let mut resampled = Samples::of(Stretches::of(samples));
    Cpu.run(&mut *resampled.task())?;
    let features = Features::of(resampled.grid());
    let deltas = Deltas::of(resampled.grid());
    resampled.reset();
    Ok(vec![
        (Kernel::LapResample, Box::new(resampled)),
        (Kernel::LapFeatures, Box::new(features)),
        (Kernel::DeltaTrace, Box::new(deltas)),
    ])
}
