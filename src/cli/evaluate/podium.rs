//! Scores of the finishing order: who is named for the podium, how sure, and whether that was right.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::dataset::outcome::Moment;
use crate::predict::outcome::OutcomeModel;

/// Moments that are judged (% of the distance).
pub(super) const MOMENTS: [u16; 4] = [0, 25, 50, 75];
/// A probability is never taken as surer than this.
const LEAST_P: f64 = 1e-3;
/// Bins of the calibration error.
const BINS: usize = 10;
/// Bootstrap samples of races.
const RESAMPLES: usize = 2_000;

/// What is said of the cars of a moment: the names under which it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Model,
    Floor,
    CurrentOrder,
    Grid,
    /// The two orders taken as certain: the first three will be the podium.
    CurrentOrderCertain,
    GridCertain,
}

/// A figure by name, and how it is read.
type Pick = (&'static str, fn(&Score) -> f64);

/// One race's score at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Score {
    overlap: f64,
    log_loss: f64,
    brier: f64,
}

impl Score {
    /// `ranking`: larger is more likely on the podium, which decides whom it names; `p`: how likely.
    pub(super) fn of(moment: &Moment, started: usize, p: &[f64], ranking: &[f64]) -> Score {
        let mut named: Vec<usize> = (0..p.len()).collect();
        named.sort_by(|a, b| ranking[*b].total_cmp(&ranking[*a]).then(a.cmp(b)));
        let on = |at: &usize| moment.place[*at] <= 3;
        let overlap = named.iter().take(3).filter(|at| on(at)).count() as f64;
        let (mut log_loss, mut brier) = (0.0, 0.0);
        for (at, p) in p.iter().enumerate() {
            let truth = f64::from(u8::from(on(&at)));
            let q = p.clamp(LEAST_P, 1.0 - LEAST_P);
            log_loss -= truth * q.ln() + (1.0 - truth) * (1.0 - q).ln();
            brier += (p - truth) * (p - truth);
        }
        let cars = started.max(1) as f64;
        Score {
            overlap,
            log_loss: log_loss / cars,
            brier: brier / cars,
        }
    }
}

/// Predicted against observed, by bins of the prediction.
#[derive(Clone, Debug, Default)]
pub(super) struct Reliability {
    /// Count, sum of predictions, sum of what happened.
    bins: [(f64, f64, f64); BINS],
}

impl Reliability {
    pub(super) fn add(&mut self, p: f64, truth: bool) {
        let at = ((p * BINS as f64) as usize).min(BINS - 1);
        let bin = &mut self.bins[at];
        bin.0 += 1.0;
        bin.1 += p;
        bin.2 += f64::from(u8::from(truth));
    }

    fn merge(&mut self, other: &Reliability) {
        for (own, more) in self.bins.iter_mut().zip(&other.bins) {
            *own = (own.0 + more.0, own.1 + more.1, own.2 + more.2);
        }
    }

    /// Mean over predictions of |mean predicted − share observed| in their bin.
    fn error(&self) -> Option<f64> {
        let all: f64 = self.bins.iter().map(|b| b.0).sum();
        (all > 0.0).then(|| self.bins.iter().map(|b| (b.1 - b.2).abs()).sum::<f64>() / all)
    }

    fn json(&self) -> Value {
        let filled = self.bins.iter().filter(|b| b.0 > 0.0);
        let shown = filled.map(|b| {
            json!({ "predictions": b.0, "predicted": digits(b.1 / b.0), "observed": digits(b.2 / b.0) })
        });
        shown.collect()
    }
}

/// One race: its name and its scores by moment.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) title: String,
    pub(super) scores: BTreeMap<(u16, Who), Score>,
}

/// All that was judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) races: Vec<Judged>,
    pub(super) moments: u64,
    pub(super) podium: Reliability,
    pub(super) win: Reliability,
    pub(super) retirement: Reliability,
    pub(super) failures: u64,
    /// Races of which nobody's place on the grid is known.
    pub(super) without_grid: u64,
}

impl Figures {
    /// Takes in the figures of later races.
    pub(super) fn merge(&mut self, other: Figures) {
        self.races.extend(other.races);
        self.moments += other.moments;
        self.podium.merge(&other.podium);
        self.win.merge(&other.win);
        self.retirement.merge(&other.retirement);
        self.failures += other.failures;
        self.without_grid += other.without_grid;
    }

    /// The figures as they are printed.
    pub(super) fn json(&self, model: Option<&OutcomeModel>) -> Value {
        let mut all = self.of(Who::Model);
        let baselines: Map<String, Value> = [
            ("grid", Who::Grid),
            ("current_order", Who::CurrentOrder),
            ("grid_certain", Who::GridCertain),
            ("current_order_certain", Who::CurrentOrderCertain),
            ("floor", Who::Floor),
        ]
        .into_iter()
        .map(|(name, who)| (name.to_owned(), Value::Object(self.of(who))))
        .collect();
        let rest = json!({
            "model": model.map_or_else(|| "floor".to_owned(), |m| m.engine().model().id()),
            "races": self.races.len(),
            "moments": self.moments,
            "failures": self.failures,
            "races_without_grid": self.without_grid,
            "calibration_error_top3": self.podium.error().map(digits),
            "calibration_error_win": self.win.error().map(digits),
            "calibration_error_retirement": self.retirement.error().map(digits),
            "reliability_top3": self.podium.json(),
            "reliability_win": self.win.json(),
            "baselines": baselines,
            "better_than_current_order": self.gains(Who::CurrentOrder),
            "better_than_grid": self.gains(Who::Grid),
            "better_than_floor": self.gains(Who::Floor),
            "lost_to_current_order": self.lost(Who::CurrentOrder),
            "lost_to_grid": self.lost(Who::Grid),
        });
        if let Value::Object(rest) = rest {
            all.extend(rest);
        }
        Value::Object(all)
    }

    fn column(&self, percent: u16, who: Who, pick: fn(&Score) -> f64) -> Vec<f64> {
        let scores = self
            .races
            .iter()
            .filter_map(|r| r.scores.get(&(percent, who)));
        scores.map(pick).collect()
    }

    fn of(&self, who: Who) -> Map<String, Value> {
        let picks: [Pick; 3] = [
            ("podium_overlap", |s| s.overlap),
            ("log_loss_top3", |s| s.log_loss),
            ("brier_top3", |s| s.brier),
        ];
        let mut all = Map::new();
        let mut intervals = Map::new();
        for (name, pick) in picks {
            let columns = MOMENTS.map(|m| (m.to_string(), self.column(m, who, pick)));
            let means = columns
                .iter()
                .map(|(m, x)| (m.clone(), mean(x).map(digits).into()));
            all.insert(name.to_owned(), Value::Object(means.collect()));
            let spans = columns.iter().map(|(m, x)| (m.clone(), json!(interval(x))));
            intervals.insert(name.to_owned(), Value::Object(spans.collect()));
        }
        all.insert("intervals".to_owned(), Value::Object(intervals));
        all
    }

    /// Mean gain over a baseline (more overlap, less loss is a gain), with its interval, race by race.
    fn gains(&self, than: Who) -> Value {
        let picks: [Pick; 3] = [
            ("podium_overlap", |s| s.overlap),
            ("log_loss_top3", |s| -s.log_loss),
            ("brier_top3", |s| -s.brier),
        ];
        let gain = |m: u16, pick: fn(&Score) -> f64| {
            // A race may lack a baseline: it has no gain over it.
            let both = self.races.iter().filter_map(|r| {
                let score = |who| r.scores.get(&(m, who)).map(pick);
                Some(score(Who::Model)? - score(than)?)
            });
            let x: Vec<f64> = both.collect();
            json!({ "mean": mean(&x).map(digits), "interval": interval(&x) })
        };
        let by = |pick| -> Map<String, Value> {
            MOMENTS
                .iter()
                .map(|m| (m.to_string(), gain(*m, pick)))
                .collect()
        };
        Value::Object(
            picks
                .into_iter()
                .map(|(name, pick)| (name.to_owned(), by(pick).into()))
                .collect(),
        )
    }

    /// Races in which the baseline named more of the podium.
    fn lost(&self, to: Who) -> Value {
        let at = |m: u16| -> Vec<&str> {
            let worse = |r: &&Judged| match (r.scores.get(&(m, Who::Model)), r.scores.get(&(m, to)))
            {
                (Some(own), Some(theirs)) => own.overlap < theirs.overlap,
                _ => false,
            };
            self.races
                .iter()
                .filter(worse)
                .map(|r| r.title.as_str())
                .collect()
        };
        Value::Object(
            MOMENTS
                .iter()
                .map(|m| (m.to_string(), json!(at(*m))))
                .collect(),
        )
    }
}

fn mean(x: &[f64]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().sum::<f64>() / x.len() as f64)
}

/// Four digits.
fn digits(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// The middle 90 % of the means of bootstrap samples, the same on every run.
fn interval(x: &[f64]) -> Option<[f64; 2]> {
    if x.is_empty() {
        return None;
    }
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut draw = || {
        // xorshift64*: a bootstrap needs no better.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % x.len()
    };
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..x.len()).map(|_| x[draw()]).sum::<f64>() / x.len() as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Some([
        digits(means[RESAMPLES / 20]),
        digits(means[RESAMPLES - RESAMPLES / 20 - 1]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let moment = Moment {
            lap: 10,
            race_laps: 20,
            frame: crate::predict::features::outcome::Frame {
                cars: vec![1, 2, 3, 4],
                values: Vec::new(),
                share: 0.5,
            },
            rank: vec![1, 4, 2, 3],
            place: vec![1, 4, 2, 3],
            retired: vec![false; 4],
            grid: vec![1, 2, 3, 4],
        };
        let p = [0.9, 0.8, 0.7, 0.6];
        let score = Score::of(&moment, 5, &p, &p);
        assert_eq!(score.overlap, 2.0);
        assert!((score.brier - (0.01 + 0.64 + 0.09 + 0.16) / 5.0).abs() < 1e-12);
        let loss = -(0.9f64.ln() + 0.2f64.ln() + 0.7f64.ln() + 0.6f64.ln()) / 5.0;
        assert!((score.log_loss - loss).abs() < 1e-12);
        // Who is named follows the ranking, not the probabilities.
        assert_eq!(
            Score::of(&moment, 5, &p, &[4.0, 1.0, 3.0, 2.0]).overlap,
            3.0
        );
    }

    #[test]
    fn calibration_and_intervals_by_hand() {
        let mut r = Reliability::default();
        assert_eq!(r.error(), None);
        for truth in [true, true, true, false] {
            r.add(0.75, truth);
        }
        r.add(0.05, true);
        assert!((r.error().unwrap() - 0.95 / 5.0).abs() < 1e-12);
        assert_eq!(interval(&[2.0; 7]), Some([2.0, 2.0]));
        let [low, high] = interval(&[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]).unwrap();
        assert!(low < 0.5 && high > 0.5 && low >= 0.0 && high <= 1.0);
    }
}
