//! Linear least squares with a ridge: the normal equations, solved by Gauss elimination with pivots.

/// Sums of a regression: XᵀX and Xᵀy, one row at a time.
#[derive(Clone, Debug)]
pub struct Regression {
    width: usize,
    xx: Vec<f64>,
    xy: Vec<f64>,
}

impl Regression {
    /// Nothing known yet about `width` coefficients.
    pub fn new(width: usize) -> Regression {
        Regression {
            width,
            xx: vec![0.0; width * width],
            xy: vec![0.0; width],
        }
    }

    /// Adds a row, given by its columns that are not 0 (column, value), each column once.
    pub fn add(&mut self, row: &[(usize, f64)], y: f64) {
        for (i, a) in row {
            self.xy[*i] += a * y;
            for (j, b) in row {
                self.xx[i * self.width + j] += a * b;
            }
        }
    }

    /// The coefficients; `ridge` is added to each of the diagonal and draws them towards 0. A coefficient that
    /// nothing is known about is 0.
    pub fn solve(&self, ridge: f64) -> Vec<f64> {
        let n = self.width;
        let mut a = self.xx.clone();
        let mut b = self.xy.clone();
        for i in 0..n {
            a[i * n + i] += ridge;
        }
        let mut order: Vec<usize> = (0..n).collect();
        for column in 0..n {
            let by_size = |r: &usize| a[order[*r] * n + column].abs();
            let pivot = (column..n).max_by(|x, y| by_size(x).total_cmp(&by_size(y)));
            order.swap(column, pivot.unwrap_or(column));
            let top = order[column];
            let head = a[top * n + column];
            if head.abs() < 1e-12 {
                continue;
            }
            for &row in &order[column + 1..] {
                let factor = a[row * n + column] / head;
                for k in column..n {
                    a[row * n + k] -= factor * a[top * n + k];
                }
                b[row] -= factor * b[top];
            }
        }
        let mut x = vec![0.0; n];
        for column in (0..n).rev() {
            let row = order[column];
            let rest: f64 = (column + 1..n).map(|k| a[row * n + k] * x[k]).sum();
            let head = a[row * n + column];
            x[column] = if head.abs() < 1e-12 {
                0.0
            } else {
                (b[row] - rest) / head
            };
        }
        x
    }
}

/// The middle one (of two, their mean).
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        _ if n.is_multiple_of(2) => Some((values[n / 2 - 1] + values[n / 2]) / 2.0),
        _ => Some(values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found_and_the_unknown_is_nought() {
        let mut r = Regression::new(4);
        for i in 0..10 {
            let (a, b) = (f64::from(i), f64::from(i * i % 7));
            r.add(&[(0, 1.0), (1, a), (2, b)], 3.0 - 2.0 * a + 0.5 * b);
        }
        let x = r.solve(1e-9);
        for (found, true_value) in x.iter().zip([3.0, -2.0, 0.5, 0.0]) {
            assert!((found - true_value).abs() < 1e-6, "{x:?}");
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
