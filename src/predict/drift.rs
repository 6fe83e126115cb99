//! Drift: whether a model still does what it was chosen for, over the newest of what was graded in this session.
//!
//! | model | loss | within its band as long as |
//! |---|---|---|
//! | lap time, before any sector | absolute error of clean laps (s) | it is not clearly worse than the floor, and its 80 % intervals hold [`COVERAGE`] of the laps |
//! | next stop | Brier score of "boxes within two laps" | it is not clearly worse than the floor |
//!
//! A model is there because it beats the floor, and the floor knows nothing of the season: so the floor on the very
//! same laps is what to expect of a model, whatever the track is like. Clearly: by [`SURE`] standard errors of the
//! difference, which are paired. The order of the finish is graded at the flag alone, and has no window.
//!
//! **Invariant:** at most [`WINDOW`] grades of a model are kept, and of fewer than [`ENOUGH`] nothing is said.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use serde::Serialize;

/// Newest grades that are looked at: ten laps of a field.
pub const WINDOW: usize = 200;
/// Fewest grades that say anything.
pub const ENOUGH: usize = 60;
/// Standard errors by which a model is clearly worse: many, since cars on one lap are off together.
pub const SURE: f64 = 3.0;
/// Share of laps that 80 % intervals may hold.
pub const COVERAGE: RangeInclusive<f64> = 0.68..=0.92;

/// How each model stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Drift {
    pub laptime: Standing,
    pub stop: Standing,
}

/// One model over its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Standing {
    /// Grades in the window.
    pub graded: usize,
    /// Mean loss, and the floor's on the same.
    pub loss: Option<f64>,
    pub floor: Option<f64>,
    /// How far the model is above the floor, in standard errors: below 0 it is better.
    pub errors_above_floor: Option<f64>,
    pub coverage_80: Option<f64>,
    /// Whether it has left its band.
    pub adrift: bool,
}

impl Standing {
    /// In words.
    pub fn words(&self) -> String {
        let figure = |f: Option<f64>| f.map_or_else(|| "–".to_owned(), |f| format!("{f:.3}"));
        let mut words = format!(
            "over the last {} graded: {} against the floor's {}",
            self.graded,
            figure(self.loss),
            figure(self.floor)
        );
        if self.coverage_80.is_some() {
            words += &format!("; 80 % intervals held {}", figure(self.coverage_80));
        }
        words
    }
}

/// The newest grades of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window(VecDeque<Grade>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Grade {
    loss: f64,
    floor: f64,
    covered: Option<bool>,
}

impl Window {
    /// Takes the losses of the model and of the floor on the same, and whether the model's interval held the truth.
    pub fn add(&mut self, loss: f64, floor: f64, covered: Option<bool>) {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(Grade {
            loss,
            floor,
            covered,
        });
    }

    /// How the model stands.
    pub fn standing(&self) -> Standing {
        let graded = self.0.len();
        if graded < ENOUGH {
            return Standing {
                graded,
                ..Standing::default()
            };
        }
        let n = graded as f64;
        let mean = |of: &dyn Fn(&Grade) -> f64| self.0.iter().map(of).sum::<f64>() / n;
        let above = mean(&|g| g.loss - g.floor);
        let variance = mean(&|g| (g.loss - g.floor - above) * (g.loss - g.floor - above));
        let error = (variance / n).sqrt();
        let with_interval = self.0.iter().filter_map(|g| g.covered);
        let (held, of) = with_interval.fold((0, 0), |(held, of), c| (held + u32::from(c), of + 1));
        let coverage_80 = (of > 0).then(|| f64::from(held) / f64::from(of));
        Standing {
            graded,
            loss: Some(mean(&|g| g.loss)),
            floor: Some(mean(&|g| g.floor)),
            errors_above_floor: (error > 0.0).then(|| above / error),
            coverage_80,
            adrift: above > SURE * error || coverage_80.is_some_and(|c| !COVERAGE.contains(&c)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses that scatter: the model's `above` the floor's, of intervals that hold `held` laps of ten.
    fn window(count: usize, above: f64, held: usize) -> Window {
        let mut window = Window::default();
        for i in 0..count {
            let scatter = [0.02, -0.03, 0.01, 0.04, -0.04][i % 5];
            window.add(0.40 + above + scatter, 0.40, Some(i % 10 < held));
        }
        window
    }

    #[test]
    fn too_few_grades_say_nothing() {
        let standing = window(ENOUGH - 1, 1.0, 0).standing();
        assert_eq!((standing.graded, standing.adrift), (ENOUGH - 1, false));
        assert_eq!(standing.loss, None);
    }

    #[test]
    fn a_model_that_beats_the_floor_is_within_its_band() {
        let standing = window(WINDOW, -0.05, 8).standing();
        assert!(!standing.adrift, "{standing:?}");
        assert!(standing.errors_above_floor.unwrap() < -SURE);
        assert_eq!(standing.coverage_80, Some(0.8));
        // As good as the floor: not clearly worse.
        assert!(!window(WINDOW, 0.0, 8).standing().adrift);
    }

    #[test]
    fn worse_than_the_floor_or_too_sure_of_itself_is_adrift() {
        let worse = window(WINDOW, 0.05, 8).standing();
        assert!(worse.adrift && worse.errors_above_floor.unwrap() > SURE);
        assert!(worse.words().contains("0.450 against the floor's 0.400"));
        assert!(window(WINDOW, -0.05, 5).standing().adrift);
        assert!(window(WINDOW, -0.05, 10).standing().adrift);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut window = window(WINDOW, 0.05, 8);
        assert!(window.standing().adrift);
        for i in 0..WINDOW {
            window.add(0.35, 0.40 + 0.001 * (i % 7) as f64, Some(i % 5 > 0));
        }
        let standing = window.standing();
        assert_eq!((standing.graded, standing.adrift), (WINDOW, false));
    }
}
