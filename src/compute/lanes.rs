//! The order in which sums are taken: a warp's.
//!
//! 32 lanes; lane l takes the elements l, l + 32, l + 64, … in that order, then the lanes are folded: with those
//! 16 away, 8, 4, 2, 1. `kernels/include/reduce.h` does the same on the device. It happens to be what a
//! vectorised loop wants, too: 32 independent running sums.

/// Lanes of a warp.
pub const LANES: usize = 32;

/// One value a lane.
pub type Lanes<T> = [T; LANES];

/// Folds the lanes; `fold(own, other)` keeps its own where the two are equal.
pub fn fold<T: Copy>(mut lanes: Lanes<T>, fold: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = fold(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Sum of the lanes.
pub fn sum(lanes: &Lanes<f32>) -> f32 {
    fold(*lanes, |a, b| a + b)
}

/// The lesser; its first argument where neither is.
pub fn lesser(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// The greater; its first argument where neither is.
pub fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_fold_as_a_tree() {
        let mut lanes = [0.0; LANES];
        // Only a tree that pairs lane 0 with 16 first gets rid of the great ones in time.
        lanes[0] = 1e8;
        lanes[16] = -1e8;
        lanes[1] = 1.0;
        assert_eq!(sum(&lanes), 1.0);
        assert_eq!(fold(std::array::from_fn(|i| i as f32), greater), 31.0);
        assert!(lesser(0.0, -0.0).is_sign_positive());
    }
}
