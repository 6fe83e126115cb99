//! What goes wrong between a car and a subscriber, at the rates of two recorded races.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Chances at `dirt` = 1, per sample or per lap.
const NO_PEDAL_DATA: f64 = 0.003;
const GARBAGE_GEAR: f64 = 0.000_12;
const ODD_DRS: f64 = 0.000_5;
/// Per sample and car: the same key once more.
const REPEATED: f64 = 0.000_2;
/// Per sample, for all cars at once.
const SAMPLE_LOST: f64 = 0.001;
/// Per sample and car: nothing for 2 to 6.5 seconds.
const GAP: f64 = 0.000_02;
/// Per sample and car: location (0,0) for 2 to 8 seconds.
const LOCATION_LOST: f64 = 0.000_05;
const LATE_LAP: f64 = 0.01;
const NO_SEGMENT: f64 = 0.012;
const NO_SECTOR: f64 = 0.004;
const NO_DATE_START: f64 = 0.001;

/// Draws faults; has its own stream, so that a clean race is the same race.
pub(super) struct Dirt {
    rng: ChaCha8Rng,
    amount: f64,
}

impl Dirt {
    pub fn new(amount: f64, seed: u64) -> Dirt {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        Dirt { rng, amount }
    }

    fn happens(&mut self, chance: f64) -> bool {
        let chance = (chance * self.amount).clamp(0.0, 1.0);
        chance > 0.0 && self.rng.random_bool(chance)
    }

    pub fn loses_pedals(&mut self) -> bool {
        self.happens(NO_PEDAL_DATA)
    }

    pub fn garbage_gear(&mut self) -> Option<i16> {
        self.happens(GARBAGE_GEAR)
            .then(|| self.rng.random_range(9..=75))
    }

    pub fn odd_drs(&mut self) -> Option<i16> {
        self.happens(ODD_DRS).then(|| self.rng.random_range(2..=3))
    }

    pub fn repeats(&mut self) -> bool {
        self.happens(REPEATED)
    }

    pub fn loses_sample(&mut self) -> bool {
        self.happens(SAMPLE_LOST)
    }

    /// Seconds without telemetry that begin now.
    pub fn gap(&mut self) -> Option<f64> {
        self.happens(GAP).then(|| self.rng.random_range(2.0..6.5))
    }

    /// Seconds without a location that begin now.
    pub fn loses_location(&mut self) -> Option<f64> {
        self.happens(LOCATION_LOST)
            .then(|| self.rng.random_range(2.0..8.0))
    }

    /// How much later than usual a complete lap arrives (s).
    pub fn lap_delay(&mut self) -> f64 {
        if self.happens(LATE_LAP) {
            self.rng.random_range(1.5..9.0)
        } else {
            0.0
        }
    }

    pub fn loses_segment(&mut self) -> bool {
        self.happens(NO_SEGMENT)
    }

    pub fn loses_sector(&mut self) -> bool {
        self.happens(NO_SECTOR)
    }

    pub fn loses_date_start(&mut self) -> bool {
        self.happens(NO_DATE_START)
    }

    /// How far `date_start` is off: approximate on the real feed (ms).
    pub fn date_start_off_ms(&mut self) -> i64 {
        if self.amount > 0.0 {
            self.rng.random_range(-15..=15)
        } else {
            0
        }
    }

    /// What a message takes beyond the usual on its way (s).
    pub fn jitter(&mut self) -> f64 {
        self.rng.random_range(0.0..0.02)
    }
}
