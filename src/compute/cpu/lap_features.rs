//! Laps in parallel; within one, 32 running sums side by side, folded as a warp folds them.

use rayon::prelude::*;

use crate::compute::LapFeatures;
use crate::compute::lanes::{self, LANES, Lanes};
use crate::compute::lap_features::{FIXED, MAX_CORNERS, Pedals};

const PER_G: f32 = 1.0 / 9.80665;
const KMH: f32 = 1.0 / 3.6;

pub(in crate::compute) fn run(task: &mut LapFeatures<'_>) {
    let (width, bins, minis) = (task.width(), task.bins, task.minis);
    let corners = task.corners;
    let (grid, rows, which, pedals) = (task.grid, task.rows, task.which, task.pedals);
    let (lap_track, curvature, corner, edges) =
        (task.lap_track, task.curvature, task.corner, task.edges);
    task.features
        .par_chunks_mut(width)
        .enumerate()
        .for_each(|(lap, out)| {
            let lap_grid = &grid[lap * rows * bins..][..rows * bins];
            let row = |row: Option<u32>| row.map(|r| &lap_grid[r as usize * bins..][..bins]);
            let track = lap_track[lap] as usize;
            let lap = Lap {
                time: &lap_grid[..bins],
                speed: row(which.speed),
                throttle: row(which.throttle),
                brake: row(which.brake),
                gear: row(which.gear),
                curvature: &curvature[track * bins..][..bins],
                corner: &corner[track * bins..][..bins],
            };
            let (fixed, rest) = out.split_at_mut(FIXED);
            let (mini, slowest) = rest.split_at_mut(minis);
            lap.pedals(&pedals, fixed);
            lap.speeds(fixed, &mut slowest[..corners]);
            let edges = &edges[track * (minis + 1)..][..minis + 1];
            for (out, edge) in mini.iter_mut().zip(edges.windows(2)) {
                *out = lap.time[edge[1] as usize] - lap.time[edge[0] as usize];
            }
        });
}

/// One lap and its circuit.
struct Lap<'a> {
    time: &'a [f32],
    speed: Option<&'a [f32]>,
    throttle: Option<&'a [f32]>,
    brake: Option<&'a [f32]>,
    gear: Option<&'a [f32]>,
    curvature: &'a [f32],
    corner: &'a [u8],
}

fn share(part: f32, whole: f32) -> f32 {
    if whole > 0.0 { part / whole } else { f32::NAN }
}

impl Lap<'_> {
    /// Lap time, shares of time, changes of gear.
    fn pedals(&self, pedals: &Pedals, out: &mut [f32]) {
        let zero: Lanes<f32> = [0.0; LANES];
        let (mut full, mut braking, mut lifted) = (zero, zero, zero);
        let (mut known_throttle, mut known_brake, mut known_both) = (zero, zero, zero);
        let mut shifts = 0_u32;
        for (k, pair) in self.time.windows(2).enumerate() {
            let lane = k % LANES;
            let dt = pair[1] - pair[0];
            let p = self.throttle.map_or(f32::NAN, |row| row[k]);
            let b = self.brake.map_or(f32::NAN, |row| row[k]);
            // A sum that never was below zero is not changed by adding 0.
            let when = |condition: bool| if condition && !dt.is_nan() { dt } else { 0.0 };
            full[lane] += when(p >= pedals.full);
            braking[lane] += when(b >= pedals.braking);
            lifted[lane] += when(p < pedals.lifted && b < pedals.braking);
            known_throttle[lane] += when(!p.is_nan());
            known_brake[lane] += when(!b.is_nan());
            known_both[lane] += when(!p.is_nan() && !b.is_nan());
            if let Some(gear) = self.gear {
                let (now, next) = (gear[k], gear[k + 1]);
                shifts += u32::from(now != next && !now.is_nan() && !next.is_nan());
            }
        }
        out[0] = self.time[self.time.len() - 1] - self.time[0];
        out[1] = share(lanes::sum(&full), lanes::sum(&known_throttle));
        out[2] = share(lanes::sum(&braking), lanes::sum(&known_brake));
        out[3] = share(lanes::sum(&lifted), lanes::sum(&known_both));
        out[4] = self.gear.map_or(f32::NAN, |_| shifts as f32);
    }

    /// Speeds, lateral acceleration, the slowest point of each corner.
    fn speeds(&self, out: &mut [f32], slowest: &mut [f32]) {
        let mut corner_bits = [u32::MAX; MAX_CORNERS];
        let (mut g_sum, mut g_max) = ([0.0; LANES], [-1.0_f32; LANES]);
        let (mut v_sum, mut v_max, mut v_min) = ([0.0; LANES], [-1.0_f32; LANES], [1e9_f32; LANES]);
        let (mut g_count, mut v_count) = (0_u32, 0_u32);
        for (k, &v) in self.speed.unwrap_or(&[]).iter().enumerate() {
            if v.is_nan() {
                continue;
            }
            let lane = k % LANES;
            v_sum[lane] += v;
            v_count += 1;
            v_max[lane] = lanes::greater(v_max[lane], v);
            v_min[lane] = lanes::lesser(v_min[lane], v);
            if usize::from(self.corner[k]) < slowest.len() {
                // Positive floats order like their bits, on the device too.
                let bits = if v > 0.0 { v.to_bits() } else { 0 };
                let least = &mut corner_bits[usize::from(self.corner[k])];
                *least = bits.min(*least);
            }
            let metres = v * KMH;
            let lateral = metres * metres * self.curvature[k] * PER_G;
            if !lateral.is_nan() {
                let size = if lateral < 0.0 { -lateral } else { lateral };
                g_sum[lane] += size;
                g_count += 1;
                g_max[lane] = lanes::greater(g_max[lane], size);
            }
        }
        let known = |count: u32, v: f32| if count > 0 { v } else { f32::NAN };
        out[5] = known(g_count, lanes::fold(g_max, lanes::greater));
        out[6] = share(lanes::sum(&g_sum), g_count as f32);
        out[7] = known(v_count, lanes::fold(v_max, lanes::greater));
        out[8] = known(v_count, lanes::fold(v_min, lanes::lesser));
        out[9] = share(lanes::sum(&v_sum), v_count as f32);
        for (out, bits) in slowest.iter_mut().zip(corner_bits) {
            *out = if bits == u32::MAX {
                f32::NAN
            } else {
                f32::from_bits(bits)
            };
        }
    }
}
