//! From strengths to the probability of every position for every car.
//!
//! Each running car has a strength (smaller finishes ahead) with Student-t noise of 4 degrees of
//! freedom, independent of the others', and a probability of retiring. Given its own value x, the
//! number of cars ahead of it is a sum of independent coins: their distribution is built up car by
//! car and averaged over [`NODES`] equally likely values of x. Cars that retire from now on come
//! behind all that finish, in even order among themselves; cars that are out already take the last
//! places. Sinkhorn's scaling then removes the error of the quadrature: rows and columns sum to 1.
//!
//! Cost: nodes × cars² × positions, 24 × 20³ ≈ 0.2 M multiplications and additions an order.
//!
//! **Invariant:** + − × ÷ and square root only (the t distribution with 4 degrees of freedom has a
//! closed form in them), so that every IEEE machine gives the same bits.

/// Values that stand for a car's noise.
const NODES: usize = 24;
/// Most rounds of Sinkhorn's scaling.
const ROUNDS: usize = 2_000;
/// Added to every cell: nothing is impossible before the flag, and between groups of cars that are far
/// apart the scaling moves its surplus through these cells; were they nothing, it would not converge.
const LEAST: f64 = 1e-5;
/// The scaling ends when rows and columns sum to 1 within this, or after [`ROUNDS`].
const TOLERANCE: f64 = 1e-9;

/// Cumulative Student t with 4 degrees of freedom:
/// F(x) = 1/2 + 3/8 u (1 − u²/12), u = x / √(1 + x²/4).
pub fn t4(x: f64) -> f64 {
    let u = x / (1.0 + x * x / 4.0).sqrt();
    (0.5 + 0.375 * u * (1.0 - u * u / 12.0)).clamp(0.0, 1.0)
}

/// The x at which [`t4`] is `p`, by halving.
fn t4_inverse(p: f64) -> f64 {
    let (mut low, mut high) = (-200.0, 200.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if t4(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// A car that still races.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Runner {
    /// Smaller finishes ahead.
    pub strength: f64,
    /// Probability of retiring before the flag.
    pub p_retire: f64,
}

/// Probability of each position (column, first to last) for each runner (row): doubly stochastic,
/// runners.len() squared. `spread` is the scale of one car's noise.
pub fn positions(runners: &[Runner], spread: f64) -> Vec<Vec<f64>> {
    let n = runners.len();
    let nodes: [f64; NODES] =
        std::array::from_fn(|k| spread * t4_inverse((k as f64 + 0.5) / NODES as f64));
    let mut table = vec![vec![0.0; n]; n];
    let mut ahead = vec![0.0; n];
    for (i, car) in runners.iter().enumerate() {
        for node in nodes {
            let x = car.strength + node;
            let finishes =
                |other: &Runner| (1.0 - other.p_retire) * t4((x - other.strength) / spread);
            coins(&mut ahead, runners, i, finishes);
            let weight = (1.0 - car.p_retire) / NODES as f64;
            add(&mut table[i], &ahead, weight);
        }
        // Should it retire: behind those that finish, and even odds with those that retire too.
        coins(&mut ahead, runners, i, |other| 1.0 - 0.5 * other.p_retire);
        add(&mut table[i], &ahead, car.p_retire);
    }
    sinkhorn(&mut table);
    table
}

fn add(row: &mut [f64], part: &[f64], weight: f64) {
    for (cell, p) in row.iter_mut().zip(part) {
        *cell += weight * p;
    }
}

/// Distribution of the number of other cars for which a coin of that probability falls.
fn coins(counts: &mut [f64], runners: &[Runner], but: usize, p: impl Fn(&Runner) -> f64) {
    let last = counts.len() - 1;
    counts.fill(0.0);
    counts[0] = 1.0;
    for (done, (_, other)) in runners
        .iter()
        .enumerate()
        .filter(|(j, _)| *j != but)
        .enumerate()
    {
        let p = p(other);
        for k in (0..=(done + 1).min(last)).rev() {
            let before = if k > 0 { counts[k - 1] } else { 0.0 };
            counts[k] = counts[k] * (1.0 - p) + before * p;
        }
    }
}

/// Scales columns and rows in turn until all sum to 1.
pub(super) fn sinkhorn(table: &mut [Vec<f64>]) {
    let n = table.len();
    table.iter_mut().flatten().for_each(|c| *c += LEAST);
    for _ in 0..ROUNDS {
        let mut worst = 0.0f64;
        for column in 0..n {
            let sum: f64 = table.iter().map(|row| row[column]).sum();
            worst = worst.max((sum - 1.0).abs());
            table.iter_mut().for_each(|row| row[column] /= sum);
        }
        for row in table.iter_mut() {
            let sum: f64 = row.iter().sum();
            worst = worst.max((sum - 1.0).abs());
            row.iter_mut().for_each(|c| *c /= sum);
        }
        if worst < TOLERANCE {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(table: &[Vec<f64>]) {
        for (i, row) in table.iter().enumerate() {
            assert!(row.iter().all(|p| (0.0..=1.0).contains(p)), "{row:?}");
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            let column: f64 = table.iter().map(|r| r[i]).sum();
            // Groups of cars that are hopelessly far apart converge slowly: 1e-5 is the worst seen.
            assert!((column - 1.0).abs() < 1e-4, "column {i}: {column}");
        }
    }

    #[test]
    fn t4_agrees_with_the_tables() {
        // Student t, 4 degrees of freedom: P(T < 2.132) = 0.95, P(T < 4.604) = 0.995.
        assert!((t4(2.132) - 0.95).abs() < 1e-4);
        assert!((t4(4.604) - 0.995).abs() < 1e-4);
        assert!((t4(-2.132) - 0.05).abs() < 1e-4);
        assert!((t4_inverse(0.95) - 2.1318).abs() < 1e-3);
    }

    #[test]
    fn equals_share_all_places_and_a_sure_retirement_comes_last() {
        let even = vec![
            Runner {
                strength: 0.0,
                p_retire: 0.0
            };
            4
        ];
        for p in positions(&even, 0.7).iter().flatten() {
            assert!((p - 0.25).abs() < 1e-6);
        }
        let mut sure = even.clone();
        sure[2].p_retire = 1.0;
        assert!(positions(&sure, 0.7)[2][3] > 0.999);
    }

    #[test]
    fn two_cars_agree_with_the_pairwise_model() {
        let pair = [
            Runner {
                strength: 0.0,
                p_retire: 0.0,
            },
            Runner {
                strength: 1.0,
                p_retire: 0.0,
            },
        ];
        let p = positions(&pair, std::f64::consts::FRAC_1_SQRT_2)[0][0];
        // The difference of two t4 of that scale is close to one t4 of scale 1.
        assert!((p - t4(1.0)).abs() < 0.02, "{p}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn rows_and_columns_sum_to_one(cars in prop::collection::vec((-60.0f64..60.0, 0.0f64..=1.0), 1..32)) {
            let runners: Vec<Runner> = cars.iter().map(|(s, p)| Runner { strength: *s, p_retire: *p }).collect();
            check(&positions(&runners, 0.7));
        }
    }
}
