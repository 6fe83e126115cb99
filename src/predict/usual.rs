//! Where cars in each place on track have usually finished: the second expert beside the model of the order.
//!
//! It knows the place and the share of the distance, and neither gaps, tyres nor names. It errs in other races than
//! the network does, so that a mixture of both is better than either: (1 − w) × network + w × this, w linear in the
//! share of the distance between the table's knots (`calibration.mix` of the model; a model without it stands
//! alone). The tables are fitted by `engines/training/outcome/mix.py`.
//!
//! **Invariant:** pure; a mixture of distributions is one: rows and columns sum to 1 as far as the network's do.

use serde::Deserialize;

use super::strength::sinkhorn;

/// The tables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usual {
    /// Shares of the distance, ascending.
    knots: Vec<f64>,
    /// By knot, place on track and place at the end among the cars that race.
    tables: Vec<Vec<Vec<f64>>>,
}

/// Why a table or the weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsualError {
    #[error("mix.toml: {0}")]
    Text(#[from] toml::de::Error),
    #[error("{0}")]
    Shape(String),
}

impl Usual {
    /// The tables of 2018–2023.
    ///
    /// # Panics
    /// Never: they are part of the binary, and a test reads them.
    pub fn shipped() -> Usual {
        #[expect(clippy::expect_used, reason = "a test reads the tables")]
        Usual::read(include_str!("../../engines/outcome/mix.toml")).expect("mix.toml")
    }

    /// Reads tables.
    ///
    /// # Errors
    /// If the text holds none, or they are not square, of one size, one a knot, with probabilities in them.
    pub fn read(text: &str) -> Result<Usual, UsualError> {
        let usual: Usual = toml::from_str(text)?;
        let size = usual.size();
        let square = |t: &Vec<Vec<f64>>| t.len() == size && t.iter().all(|row| row.len() == size);
        let sound = |p: &f64| (0.0..=1.0).contains(p);
        let fits = usual.knots.len() >= 2
            && usual.knots.is_sorted_by(|a, b| a < b)
            && usual.tables.len() == usual.knots.len()
            && usual.tables.iter().all(square)
            && usual.tables.iter().flatten().flatten().all(sound);
        if fits {
            Ok(usual)
        } else {
            let why = "ascending knots and a square table of probabilities for each are wanted";
            Err(UsualError::Shape(why.to_owned()))
        }
    }

    /// Knots there are: as many weights are wanted.
    pub fn knots(&self) -> usize {
        self.knots.len()
    }

    fn size(&self) -> usize {
        self.tables.first().map_or(0, Vec::len)
    }

    /// The knot before a share of the distance, and how far it is to the next (0 to 1).
    fn between(&self, share: f64) -> (usize, f64) {
        let after = self.knots.partition_point(|k| *k <= share);
        let low = after.clamp(1, self.knots.len() - 1) - 1;
        let (from, to) = (self.knots[low], self.knots[low + 1]);
        (low, ((share - from) / (to - from)).clamp(0.0, 1.0))
    }

    /// The weight at a share of the distance, of one a knot.
    fn weight(&self, weights: &[f64], share: f64) -> f64 {
        let (low, u) = self.between(share);
        let of = |knot: usize| weights.get(knot).copied().unwrap_or(0.0);
        (1.0 - u) * of(low) + u * of(low + 1)
    }

    /// Probability of every place for cars that run in `places` (from 1), one a row; rows and columns sum to 1.
    fn finishes(&self, places: &[usize], share: f64) -> Vec<Vec<f64>> {
        let (low, u) = self.between(share);
        let last = self.size().saturating_sub(1);
        let cell = |from: usize, to: usize| {
            let of = |knot: usize| self.tables[knot][from.min(last)][to.min(last)];
            (1.0 - u) * of(low) + u * of(low + 1)
        };
        let row = |place: &usize| {
            let columns = 0..places.len();
            columns
                .map(|to| cell(place.saturating_sub(1), to))
                .collect()
        };
        let mut table: Vec<Vec<f64>> = places.iter().map(row).collect();
        sinkhorn(&mut table);
        table
    }

    /// Mixes them into the network's places: `weights` one a knot, `places` on track from 1, a row each.
    pub fn mix(&self, table: &mut [Vec<f64>], weights: &[f64], places: &[usize], share: f64) {
        let w = self.weight(weights, share).clamp(0.0, 1.0);
        if w == 0.0 {
            return;
        }
        let other = self.finishes(places, share);
        for (own, usual) in table.iter_mut().zip(&other) {
            for (p, q) in own.iter_mut().zip(usual) {
                *p = (1.0 - w) * *p + w * q;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_tables_tell_what_a_spectator_knows() {
        let usual = Usual::shipped();
        let places: Vec<usize> = (1..=20).collect();
        for share in [0.0, 0.1, 0.25, 0.6, 1.0] {
            let table = usual.finishes(&places, share);
            for (at, row) in table.iter().enumerate() {
                let column: f64 = table.iter().map(|r| r[at]).sum();
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-6);
                assert!((column - 1.0).abs() < 1e-3, "{share} {at}: {column}");
            }
            let podium = |at: usize| table[at][..3].iter().sum::<f64>();
            assert!(podium(0) > podium(4) && podium(4) > podium(12), "{share}");
        }
        // The nearer the flag, the surer the leader.
        let wins = |share| usual.finishes(&places, share)[0][0];
        assert!(wins(0.0) < wins(0.5) && wins(0.5) < wins(0.95));
    }

    #[test]
    fn a_mixture_by_hand() {
        let text =
            "knots = [0.0, 0.5]\ntables = [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]";
        let usual = Usual::read(text).unwrap();
        assert_eq!(usual.knots(), 2);
        let even = vec![vec![0.5, 0.5], vec![0.5, 0.5]];
        let mixed = |weights: &[f64], places: &[usize], share: f64| {
            let mut table = even.clone();
            usual.mix(&mut table, weights, places, share);
            (table[0][0] * 1e4).round() / 1e4
        };
        assert_eq!(mixed(&[0.5, 0.5], &[1, 2], 0.0), 0.75);
        assert_eq!(mixed(&[0.5, 0.5], &[2, 1], 0.0), 0.25);
        // Half way between the knots: weight 0.4, three quarters of the way to the leader's win.
        assert_eq!(mixed(&[0.6, 0.2], &[1, 2], 0.25), 0.6);
        assert_eq!(mixed(&[0.0, 0.0], &[1, 2], 0.1), 0.5);
        assert_eq!(mixed(&[1.0, 1.0], &[1, 2], 2.0), 0.5);
        for wrong in [
            "knots = [0.0]\ntables = [[[1.0]]]",
            "knots = [0.5, 0.0]\ntables = [[[1.0]], [[1.0]]]",
            "knots = [0.0, 0.5]\ntables = [[[1.0]], [[1.2]]]",
            "knots = [0.0, 0.5]\ntables = [[[1.0]], [[1.0, 0.0]]]",
        ] {
            assert!(Usual::read(wrong).is_err(), "{wrong}");
        }
    }
}
