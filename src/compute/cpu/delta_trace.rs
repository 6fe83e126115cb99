//! Laps in parallel; winners as atomic minima of whole numbers, the same in any order.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::compute::DeltaTrace;
use crate::compute::delta_trace::NONE;

pub(in crate::compute) fn run(task: &mut DeltaTrace<'_>) {
    let (bins, rows, minis) = (task.bins, task.rows, task.minis);
    let time = |lap: u32| &task.grid[lap as usize * rows * bins..][..bins];
    let (reference, lap_group, lap_track, edges) =
        (task.reference, task.lap_group, task.lap_track, task.edges);
    let winners: Vec<AtomicU64> = task.winner.iter().map(|&w| AtomicU64::new(w)).collect();
    task.delta
        .par_chunks_mut(bins)
        .enumerate()
        .for_each(|(lap, out)| {
            let own = time(lap as u32);
            if reference[lap] == NONE {
                out.fill(f32::NAN);
            } else {
                let theirs = time(reference[lap]);
                for ((out, a), b) in out.iter_mut().zip(own).zip(theirs) {
                    *out = a - b;
                }
            }
            if lap_group[lap] == NONE {
                return;
            }
            let edges = &edges[lap_track[lap] as usize * (minis + 1)..][..minis + 1];
            let winners = &winners[lap_group[lap] as usize * minis..][..minis];
            for (winner, edge) in winners.iter().zip(edges.windows(2)) {
                let took = own[edge[1] as usize] - own[edge[0] as usize];
                if took > 0.0 {
                    let entry = u64::from(took.to_bits()) << 32 | lap as u64;
                    winner.fetch_min(entry, Ordering::Relaxed);
                }
            }
        });
    for (out, winner) in task.winner.iter_mut().zip(winners) {
        *out = winner.into_inner();
    }
}
