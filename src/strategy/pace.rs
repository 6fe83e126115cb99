//! What a car can do today, learnt lap by lap.
//!
//! ```text
//! state    b  pace: lap time without fuel on fresh mediums (s)
//!          d  wear of this stint beyond the model's (s a lap)
//! a clean lap n on tyres a laps old, everything that the model knows taken off:
//!          y = t − f·T·(N − n) − o_c·T − s_c·T·a − dirty air = b + d·a + ε,   ε ~ N(0, (σT)²)
//! between laps  b drifts;   at a stop  d → ½d, its variance that of a new stint
//! ```
//!
//! A Kalman filter of two states: recursive, and shrunk towards the prior by as much as the laps leave open.
//! Only + − × ÷ are used, so that every machine learns the same.

use super::parameters::{Circuit, Parameters};

/// Drift of a car's pace from lap to lap (share of a lap): what keeps the filter awake.
const DRIFT: f64 = 0.000_4;
/// A lap further off than this many standard deviations says nothing about pace.
const GATE: f64 = 4.0;
/// Share of the last stint's extra wear that is expected of the next.
const CARRIED: f64 = 0.5;

/// A completed lap, as far as pace is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LapRow {
    pub number: u16,
    pub time_s: f64,
    /// Index of the compound; only dry ones teach.
    pub compound: u8,
    /// Laps on the set before this lap.
    pub age: u16,
    /// Counts up with each set of tyres.
    pub stint: u8,
    /// Gap to the car ahead when the lap began (s).
    pub gap_s: Option<f64>,
    /// Timed, green, neither in- nor out-lap, not the first.
    pub clean: bool,
}

/// What the model knows of a lap beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub parameters: &'a Parameters,
    pub circuit: &'a Circuit,
    /// The reference lap (s).
    pub reference_s: f64,
    /// Laps of the race.
    pub laps: u16,
    /// Track temperature (°C).
    pub track_c: Option<f64>,
}

impl Known<'_> {
    /// The model's wear of a compound (s a lap).
    pub fn slope_s(&self, compound: u8) -> f64 {
        let p = &self.parameters.pace;
        let c = usize::from(compound).min(4);
        let heat = self.track_c.map_or(0.0, |t| p.heat * (t - p.heat_at));
        let share = if c < 3 {
            (self.circuit.slope[c] + heat).max(0.2 * self.circuit.slope[c])
        } else {
            p.slope[c]
        };
        share * self.reference_s
    }

    /// A lap less everything but the car's own pace and its extra wear (s).
    pub fn own(&self, row: &LapRow) -> f64 {
        let p = &self.parameters.pace;
        let to_go = f64::from(self.laps.saturating_sub(row.number));
        let fuel = self.circuit.fuel * self.reference_s * to_go;
        let offset = p.offset[usize::from(row.compound).min(4)] * self.reference_s;
        let wear = self.slope_s(row.compound) * f64::from(row.age);
        let close = row
            .gap_s
            .map_or(0.0, |g| (1.0 - g / p.dirty_gap_s).clamp(0.0, 1.0));
        row.time_s - fuel - offset - wear - p.dirty * self.reference_s * close
    }
}

/// A car's pace and wear, and how far they are from certain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaceFilter {
    /// Pace (s).
    pub pace_s: f64,
    /// Wear of this stint beyond the model's (s a lap).
    pub extra_wear_s: f64,
    /// Variances and covariance of the two.
    pub pace_variance: f64,
    pub wear_variance: f64,
    pub covariance: f64,
    /// Laps that taught something.
    pub laps: u16,
    stint: Option<u8>,
}

impl PaceFilter {
    /// What is believed before the first lap (s).
    pub fn new(pace_s: f64, spread_s: f64) -> PaceFilter {
        PaceFilter {
            pace_s,
            extra_wear_s: 0.0,
            pace_variance: spread_s * spread_s,
            wear_variance: 0.0,
            covariance: 0.0,
            laps: 0,
            stint: None,
        }
    }

    /// Takes in a lap. Laps that are not clean, or not on dry tyres, only pass.
    pub fn update(&mut self, known: &Known, row: &LapRow) {
        let p = &known.parameters.pace;
        let t = known.reference_s;
        if self.stint != Some(row.stint) {
            self.stint = Some(row.stint);
            self.extra_wear_s *= CARRIED;
            self.wear_variance = p.wear_spread * t * p.wear_spread * t;
            self.covariance = 0.0;
        }
        self.pace_variance += DRIFT * t * DRIFT * t;
        if !row.clean || row.compound > 2 {
            return;
        }
        let age = f64::from(row.age);
        let noise = known.circuit.noise * t;
        let error = known.own(row) - self.pace_s - self.extra_wear_s * age;
        // Covariance of the state with the lap, and the lap's variance.
        let with_pace = self.pace_variance + self.covariance * age;
        let with_wear = self.covariance + self.wear_variance * age;
        let variance = with_pace + with_wear * age + noise * noise;
        if error * error > GATE * GATE * variance {
            return;
        }
        let (gain_pace, gain_wear) = (with_pace / variance, with_wear / variance);
        self.pace_s += gain_pace * error;
        self.extra_wear_s += gain_wear * error;
        self.pace_variance -= gain_pace * with_pace;
        self.covariance -= gain_pace * with_wear;
        self.wear_variance -= gain_wear * with_wear;
        self.laps += 1;
    }

    /// A filter that has seen these laps.
    pub fn over(mut self, known: &Known, rows: &[LapRow]) -> PaceFilter {
        for row in rows {
            self.update(known, row);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(pace: f64, extra: f64, known: &Known) -> Vec<LapRow> {
        let blank = |n: u16| LapRow {
            number: n,
            compound: 1,
            age: n - 1,
            stint: 1,
            gap_s: Some(9.0),
            clean: true,
            time_s: 0.0,
        };
        (2..22)
            .map(|n| {
                let row = blank(n);
                let time_s = pace + extra * f64::from(row.age) - known.own(&row);
                LapRow { time_s, ..row }
            })
            .collect()
    }

    #[test]
    fn it_finds_pace_and_wear_that_it_was_not_told() {
        let parameters = Parameters::shipped();
        let circuit = parameters.circuit("Sakhir");
        let known = Known {
            parameters: &parameters,
            circuit: &circuit,
            reference_s: 95.0,
            laps: 57,
            track_c: None,
        };
        let seen = rows(95.8, 0.05, &known);
        let filter = PaceFilter::new(95.0, 0.5).over(&known, &seen);
        assert!((filter.pace_s - 95.8).abs() < 0.15, "{filter:?}");
        assert!((filter.extra_wear_s - 0.05).abs() < 0.015, "{filter:?}");
        assert!(filter.pace_variance < 0.25 * 0.5 * 0.5, "{filter:?}");
        assert_eq!(filter.laps, 20);
        // Slow laps, laps under yellow and laps on wets change no belief about pace.
        let mut wrecked = seen.clone();
        for (i, row) in wrecked.iter_mut().enumerate().skip(8).step_by(5) {
            row.time_s += 12.0;
            row.clean = i % 2 == 0;
        }
        let other = PaceFilter::new(95.0, 0.5).over(&known, &wrecked);
        assert!((other.pace_s - 95.8).abs() < 0.2, "{other:?}");
        // A new set: half of the extra wear is carried, the rest open again.
        let mut fresh = filter;
        fresh.update(
            &known,
            &LapRow {
                stint: 2,
                ..LapRow::default()
            },
        );
        assert_eq!(fresh.extra_wear_s, 0.5 * filter.extra_wear_s);
        assert!(fresh.wear_variance > filter.wear_variance);
    }
}
