//! Philox4x32-10: random numbers that are a function of where they are used.
//!
//! ```text
//! key     = seed (64 bits)
//! counter = (race, lap, car, purpose), 32 bits each   →   four words of 32 random bits
//! ```
//!
//! No state is carried from draw to draw. So two plans that are tried on "race 17" meet the same safety car on
//! lap 23 and the same slow stop of car 4 (common random numbers), and the same numbers come out on one thread,
//! on sixteen, or on a GPU.
//!
//! Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3* (SC 2011). The known answers in
//! the tests are those of the Random123 distribution.

/// Multipliers of a round.
const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
/// What the key grows by from round to round (golden ratio, √3 − 1).
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
/// Rounds.
const ROUNDS: u32 = 10;

/// What a draw is for: the fourth word of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// A car's lap.
    Lap = 0,
    /// A car's form of the day; `lap` is 0.
    Form = 1,
    /// A stint that begins after `lap`.
    Stint = 2,
    /// What happens to the whole race on `lap`; `car` is 0.
    Race = 3,
}

/// The four words at a counter.
///
/// ```
/// use trackside::compute::philox::philox;
/// assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
#[inline(always)]
pub const fn philox(mut counter: [u32; 4], seed: u64) -> [u32; 4] {
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    let mut round = 0;
    while round < ROUNDS {
        let a = M0 as u64 * counter[0] as u64;
        let b = M1 as u64 * counter[2] as u64;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ k0,
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ k1,
            a as u32,
        ];
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
        round += 1;
    }
    counter
}

/// The words of races `first`, `first + 1`, … at the same lap, car and purpose: word by word, a race in each lane.
///
/// The same numbers as [`philox`], in a shape that compilers turn into vector instructions.
#[inline(always)]
pub fn philox_lanes<const L: usize>(
    first: u32,
    lap: u32,
    car: u32,
    purpose: Purpose,
    seed: u64,
) -> [[u32; L]; 4] {
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    let mut c0 = [0; L];
    for (l, c) in c0.iter_mut().enumerate() {
        *c = first.wrapping_add(l as u32);
    }
    let (mut c1, mut c2, mut c3) = ([lap; L], [car; L], [purpose as u32; L]);
    for _ in 0..ROUNDS {
        for l in 0..L {
            let a = u64::from(M0) * u64::from(c0[l]);
            let b = u64::from(M1) * u64::from(c2[l]);
            c0[l] = (b >> 32) as u32 ^ c1[l] ^ k0;
            c1[l] = b as u32;
            c2[l] = (a >> 32) as u32 ^ c3[l] ^ k1;
            c3[l] = a as u32;
        }
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    [c0, c1, c2, c3]
}

/// Sum of the four bytes of a word, less its mean: a bell from −510 to 510 with standard deviation
/// [`BELL_SIGMA`] (Irwin–Hall of four), in whole numbers so that every machine agrees.
#[inline(always)]
pub const fn bell(word: u32) -> i32 {
    let pairs = (word & 0x00FF_00FF) + ((word >> 8) & 0x00FF_00FF);
    ((pairs & 0xFFFF) + (pairs >> 16)) as i32 - 510
}

/// Standard deviation of [`bell`]: √(4 · (256² − 1) / 12).
pub const BELL_SIGMA: f64 = 147.799_864_681_942_6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        assert_eq!(
            philox([0; 4], 0),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], u64::MAX),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                0x299f_31d0_a409_3822
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn lanes_are_the_same_numbers() {
        let seed = 0x0123_4567_89ab_cdef;
        let lanes = philox_lanes::<16>(u32::MAX - 3, 57, 19, Purpose::Stint, seed);
        for l in 0..16 {
            let race = (u32::MAX - 3).wrapping_add(l as u32);
            let one = philox([race, 57, 19, Purpose::Stint as u32], seed);
            for (word, lane) in lanes.iter().enumerate() {
                assert_eq!(lane[l], one[word]);
            }
        }
    }

    #[test]
    fn the_bell_has_its_mean_and_spread() {
        assert_eq!((bell(0), bell(u32::MAX)), (-510, 510));
        let draws: Vec<f64> = (0..40_000)
            .map(|i| f64::from(bell(philox([i, 0, 0, 0], 7)[0])))
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>();
        let sigma = (variance / draws.len() as f64).sqrt();
        assert!(mean.abs() < 3.0, "{mean}");
        assert!((sigma / BELL_SIGMA - 1.0).abs() < 0.02, "{sigma}");
    }
}
