//! How long to wait before trying again.
//!
//! Exponential from [`FLOOR`] to [`CEILING`], each wait cut by a random part of up to one half: many
//! clients of a broker that came back do not return in step.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The first wait, before jitter.
pub const FLOOR: Duration = Duration::from_millis(250);
/// The longest wait, before jitter.
pub const CEILING: Duration = Duration::from_secs(30);
/// The wait after a refusal that trying again will hardly mend (credentials, certificate).
pub const REFUSED: Duration = Duration::from_secs(60);

/// Waits that grow with each failure and start again after a success.
///
/// ```
/// use trackside::ingest::backoff::{Backoff, CEILING, FLOOR};
/// let mut backoff = Backoff::seeded(1);
/// let first = backoff.wait();
/// assert!(FLOOR / 2 <= first && first <= FLOOR);
/// for _ in 0..20 { assert!(backoff.wait() <= CEILING); }
/// backoff.reset();
/// assert!(backoff.wait() <= FLOOR);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        // The standard library's per-process random keys: chance enough to fall out of step.
        Self::seeded(RandomState::new().build_hasher().finish())
    }
}

impl Backoff {
    /// With the jitter of a given seed.
    pub const fn seeded(seed: u64) -> Self {
        Backoff {
            failures: 0,
            random: seed,
        }
    }

    /// The wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        // Doubling saturates at the ceiling long before the shift could overflow.
        let full = FLOOR
            .saturating_mul(1 << self.failures.min(16))
            .min(CEILING);
        self.failures = self.failures.saturating_add(1);
        self.jittered(full)
    }

    /// `full`, less a random part of up to one half.
    pub fn jittered(&mut self, full: Duration) -> Duration {
        full - full.mul_f64(self.fraction() / 2.0)
    }

    /// Failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// After a success: the next wait is short again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// SplitMix64, as a fraction in 0..1.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds() {
        for seed in 0..200 {
            let mut backoff = Backoff::seeded(seed);
            for failures in 0..40u32 {
                let full = FLOOR.saturating_mul(1 << failures.min(16)).min(CEILING);
                let wait = backoff.wait();
                assert!(wait >= full / 2 && wait <= full, "{failures}: {wait:?}");
            }
            assert_eq!(backoff.failures(), 40);
        }
    }

    #[test]
    fn two_clients_fall_out_of_step() {
        let (mut a, mut b) = (Backoff::default(), Backoff::default());
        let waits = |x: &mut Backoff| (0..8).map(|_| x.wait()).collect::<Vec<_>>();
        assert_ne!(waits(&mut a), waits(&mut b));
    }
}
