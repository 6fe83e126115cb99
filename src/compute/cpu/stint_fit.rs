//! Stints in parallel; the sums in a warp's order, the median by selection.

use rayon::prelude::*;

use crate::compute::StintFit;
use crate::compute::lanes::{self, LANES, Lanes};
use crate::compute::stint_fit::{FIT, MAX_LAPS, PRIOR};

/// Least scale of the noise (s): below it, laps agree better than they are timed.
const LEAST_SCALE: f32 = 0.001;
/// From the median size of residuals to the spread of normal noise.
const MEDIAN_TO_SCALE: f32 = 1.4826;
/// Fewest laps that make a fit.
const FEWEST_LAPS: usize = 3;

pub(in crate::compute) fn run(task: &mut StintFit<'_>) {
    let (stint_start, rounds, tuning) = (task.stint_start, task.rounds, task.tuning);
    let (time_s, age, fuel, prior) = (task.time_s, task.age, task.fuel, task.prior);
    task.fit
        .par_chunks_exact_mut(FIT)
        .enumerate()
        .for_each_init(Vec::new, |laps, (stint, out)| {
            let begin = stint_start[stint] as usize;
            let end = (stint_start[stint + 1] as usize).min(begin + MAX_LAPS);
            laps.clear();
            laps.extend((begin..end).filter_map(|i| {
                let (y, x1, x2) = (time_s[i], age[i], fuel[i]);
                [y, x1, x2].into_iter().all(usable).then_some(Lap {
                    lane: (i - begin) % LANES,
                    y,
                    x1,
                    x2,
                    residual: 0.0,
                })
            }));
            fit(laps, &prior[stint * PRIOR..][..PRIOR], rounds, tuning, out);
        });
}

/// Whether it is a number, and one that may occur.
fn usable(v: f32) -> bool {
    v > -1e9 && v < 1e9
}

/// A lap that is used; centred on the way.
struct Lap {
    lane: usize,
    y: f32,
    x1: f32,
    x2: f32,
    residual: f32,
}

fn sum(laps: &[Lap], value: impl Fn(&Lap) -> f32) -> f32 {
    let mut lanes: Lanes<f32> = [0.0; LANES];
    for lap in laps {
        lanes[lap.lane] += value(lap);
    }
    lanes::sum(&lanes)
}

fn fit(laps: &mut [Lap], prior: &[f32], rounds: u32, tuning: f32, out: &mut [f32]) {
    let count = laps.len() as f32;
    if laps.len() < FEWEST_LAPS {
        out.fill(f32::NAN);
        out[7] = count;
        return;
    }
    let fastest = laps.iter().map(|l| l.y).fold(1e9, lanes::lesser);
    let age0 = sum(laps, |l| l.x1) / count;
    let fuel0 = sum(laps, |l| l.x2) / count;
    for lap in laps.iter_mut() {
        lap.y -= fastest;
        lap.x1 -= age0;
        lap.x2 -= fuel0;
    }
    let mut solved = Solved::default();
    let mut scale = 0.0;
    for round in 0..=rounds {
        let most = (round > 0).then_some(tuning * scale);
        solved = Sums::of(laps, most).with(prior).solve();
        for l in laps.iter_mut() {
            l.residual = ((l.y - solved.x[0]) - solved.x[1] * l.x1) - solved.x[2] * l.x2;
        }
        scale = lanes::greater(LEAST_SCALE, median_size(laps) * MEDIAN_TO_SCALE);
    }
    out[0] = solved.x[0] + fastest;
    out[1] = solved.x[1];
    out[2] = solved.x[2];
    out[3] = scale;
    for i in 0..3 {
        out[4 + i] = scale * solved.variance[i].sqrt();
    }
    out[7] = count;
}

/// The lower median of the residuals' sizes.
fn median_size(laps: &[Lap]) -> f32 {
    let mut sizes = [0.0_f32; MAX_LAPS];
    let sizes = &mut sizes[..laps.len()];
    for (size, lap) in sizes.iter_mut().zip(laps) {
        *size = lap.residual.abs();
    }
    let middle = (laps.len() - 1) / 2;
    *sizes.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// The normal equations: a symmetric matrix and a right side.
struct Sums {
    a00: f32,
    a01: f32,
    a02: f32,
    a11: f32,
    a12: f32,
    a22: f32,
    b: [f32; 3],
}

impl Sums {
    /// Laps whose residual is greater than `most` weigh less.
    fn of(laps: &[Lap], most: Option<f32>) -> Sums {
        let mut lanes = [[0.0_f32; LANES]; 9];
        for l in laps {
            let w = match most {
                Some(most) if l.residual.abs() > most => most / l.residual.abs(),
                _ => 1.0,
            };
            let (wx1, wx2) = (w * l.x1, w * l.x2);
            let terms = [
                w,
                wx1,
                wx2,
                wx1 * l.x1,
                wx1 * l.x2,
                wx2 * l.x2,
                w * l.y,
                wx1 * l.y,
                wx2 * l.y,
            ];
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[l.lane] += term;
            }
        }
        let s = lanes.map(|lanes| lanes::sum(&lanes));
        Sums {
            a00: s[0],
            a01: s[1],
            a02: s[2],
            a11: s[3],
            a12: s[4],
            a22: s[5],
            b: [s[6], s[7], s[8]],
        }
    }

    /// With what was believed before.
    fn with(mut self, prior: &[f32]) -> Sums {
        self.a11 += prior[1];
        self.a22 += prior[3];
        self.b[1] += prior[1] * prior[0];
        self.b[2] += prior[3] * prior[2];
        self
    }

    /// By Cholesky: A = L·Lᵀ, `d` the inverses of L's diagonal, `m` of L⁻¹.
    fn solve(&self) -> Solved {
        let d0 = 1.0 / self.a00.sqrt();
        let (l10, l20) = (self.a01 * d0, self.a02 * d0);
        let d1 = 1.0 / (self.a11 - l10 * l10).sqrt();
        let l21 = (self.a12 - l20 * l10) * d1;
        let d2 = 1.0 / ((self.a22 - l20 * l20) - l21 * l21).sqrt();
        let y0 = self.b[0] * d0;
        let y1 = (self.b[1] - l10 * y0) * d1;
        let y2 = ((self.b[2] - l20 * y0) - l21 * y1) * d2;
        let x2 = y2 * d2;
        let x1 = (y1 - l21 * x2) * d1;
        let x0 = ((y0 - l10 * x1) - l20 * x2) * d0;
        let m10 = -(l10 * d0) * d1;
        let m20 = -(l20 * d0 + l21 * m10) * d2;
        let m21 = -(l21 * d1) * d2;
        Solved {
            x: [x0, x1, x2],
            variance: [
                (d0 * d0 + m10 * m10) + m20 * m20,
                d1 * d1 + m21 * m21,
                d2 * d2,
            ],
        }
    }
}

/// The solution, and the diagonal of the inverse.
#[derive(Default)]
struct Solved {
    x: [f32; 3],
    variance: [f32; 3],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::{Backend, Cpu, stint_fit::TUNING};

    /// Fits one stint of 25 laps that degrade by 0.08 s a lap and gain 0.06 s a lap from fuel.
    fn fitted(spoil: impl Fn(usize, &mut f32)) -> [f32; FIT] {
        let age: Vec<f32> = (0..25).map(|i| i as f32 + 3.0).collect();
        let fuel: Vec<f32> = (0..25).map(|i| 60.0 - i as f32).collect();
        let time: Vec<f32> = (0..25)
            .map(|i| {
                let noise = if i % 2 == 0 { 0.05 } else { -0.05 };
                let mut t = 92.0 + 0.08 * age[i] + 0.06 * (fuel[i] - 60.0) + noise;
                spoil(i, &mut t);
                t
            })
            .collect();
        let mut fit = [0.0; FIT];
        let mut task = StintFit {
            stint_start: &[0, 25],
            time_s: &time,
            age: &age,
            fuel: &fuel,
            prior: &[0.05, 10.0, 0.06, 1e5],
            rounds: 8,
            tuning: TUNING,
            fit: &mut fit,
        };
        Cpu.run(&mut task).unwrap();
        fit
    }

    #[test]
    fn a_slow_lap_does_not_bend_the_line() {
        let clean = fitted(|_, _| ());
        assert!((clean[1] - 0.08).abs() < 0.003, "{clean:?}");
        assert!((clean[2] - 0.06).abs() < 0.003, "{clean:?}");
        let spoilt = fitted(|i, t| {
            if i == 20 || i == 21 {
                *t += 8.0;
            }
        });
        assert!((spoilt[1] - 0.08).abs() < 0.01, "{spoilt:?}");
        assert!(spoilt[3] < 0.15, "{spoilt:?}");
    }

    #[test]
    fn what_is_missing_is_not_used() {
        let some = fitted(|i, t| {
            if i >= 2 {
                *t = f32::NAN;
            }
        });
        assert!(some[..7].iter().all(|v| v.is_nan()));
        assert_eq!(some[7], 2.0);
        let most = fitted(|i, t| {
            if i == 5 {
                *t = f32::NAN;
            }
        });
        assert_eq!(most[7], 24.0);
        assert!((most[1] - 0.08).abs() < 0.005, "{most:?}");
    }
}
