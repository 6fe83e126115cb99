//! Windows in parallel; within one, 128 running sums (four a lane) that vectors hold.

use rayon::prelude::*;

use crate::compute::FrameStats;
use crate::compute::frame_stats::STATS;
use crate::compute::lanes::{self, LANES};

/// Running sums: a lane loads four samples at a time.
const WIDTH: usize = 4 * LANES;

pub(in crate::compute) fn run(task: &mut FrameStats<'_>, stride: usize) {
    let (windows, length, hop, samples) = (task.windows, task.length, task.hop, task.samples);
    task.stats
        .par_chunks_exact_mut(STATS)
        .zip(task.known.par_iter_mut())
        .enumerate()
        .with_min_len(16)
        .for_each(|(item, (stats, known))| {
            let start = item / windows * stride + item % windows * hop;
            *known = window(&samples[start..][..length], stats);
        });
}

/// Fills the statistics of a window; gives how many samples were there.
fn window(samples: &[f32], out: &mut [f32]) -> u32 {
    let mut sums = Sums {
        sum: [0.0; WIDTH],
        square: [0.0; WIDTH],
        low: [f32::INFINITY; WIDTH],
        high: [f32::NEG_INFINITY; WIDTH],
        known: [0; WIDTH],
    };
    let mut chunks = samples.chunks_exact(WIDTH);
    for chunk in &mut chunks {
        sums.take(chunk);
    }
    sums.take(chunks.remainder());
    let known: u32 = sums.known.iter().sum();
    if known == 0 {
        out.fill(f32::NAN);
        return 0;
    }
    let count = known as f32;
    out[0] = fold(&sums.low, lanes::lesser);
    out[1] = fold(&sums.high, lanes::greater);
    out[2] = fold(&sums.sum, |a, b| a + b) / count;
    out[3] = (fold(&sums.square, |a, b| a + b) / count).sqrt();
    known
}

struct Sums {
    sum: [f32; WIDTH],
    square: [f32; WIDTH],
    low: [f32; WIDTH],
    high: [f32; WIDTH],
    known: [u32; WIDTH],
}

impl Sums {
    /// Without a branch, for vectors: adding 0 to a sum that began at 0 changes nothing.
    #[inline]
    fn take(&mut self, chunk: &[f32]) {
        for (i, &v) in chunk.iter().enumerate().take(WIDTH) {
            let there = !v.is_nan();
            self.sum[i] += if there { v } else { 0.0 };
            self.square[i] += if there { v * v } else { 0.0 };
            self.low[i] = lanes::lesser(self.low[i], v);
            self.high[i] = lanes::greater(self.high[i], v);
            self.known[i] += u32::from(there);
        }
    }
}

/// Four to a lane, then lane by lane.
fn fold(values: &[f32; WIDTH], with: impl Fn(f32, f32) -> f32) -> f32 {
    let lanes = std::array::from_fn(|lane| {
        let v = &values[4 * lane..][..4];
        with(with(v[0], v[1]), with(v[2], v[3]))
    });
    lanes::fold(lanes, with)
}
