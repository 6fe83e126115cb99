//! How good forecasts of the next stop were: yes or no within two laps, the lap, the compound.
//!
//! Every row counts once and none is drawn again or left out to balance the classes: stops are rare (about
//! one row in seventeen), and so they are here. What a balanced set would have shown stands apart, under
//! its own name, because published figures are often that.

use std::fmt;

use serde_json::{Value, json};

use super::pit::Sample;
use crate::predict::floor::COMPOUNDS;
use crate::predict::pit::name;
use crate::predict::scores::Hits;

/// Laps before a stop at which the forecast of its lap is judged.
pub const HORIZONS: [u16; 4] = [10, 5, 3, 2];
/// The one that is named in the headline.
const HEADLINE: usize = 1;

/// What one forecaster said about one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answer {
    /// Probability of boxing within two laps.
    pub within_2: f64,
    /// The lap at the end of which it expects the stop.
    pub in_lap: Option<f64>,
    /// Index of the compound it expects.
    pub compound: Option<usize>,
}

impl Answer {
    /// What the statistical floor says.
    pub fn of_floor(sample: &Sample) -> Answer {
        let Some(stop) = &sample.floor else {
            return Answer::default();
        };
        let first = stop.compounds.first();
        Answer {
            within_2: stop.within[1],
            in_lap: stop.in_lap.map(|q| q.p50),
            compound: first.and_then(|c| {
                COMPOUNDS
                    .iter()
                    .position(|k| name(*k) == c.compound.as_str())
            }),
        }
    }

    /// The fixed plan: box when the tyres reach the typical stint here, for what is usually fitted next.
    pub fn of_plan(sample: &Sample) -> Answer {
        let Some(stop) = &sample.floor else {
            return Answer::default();
        };
        let due = stop.planned_in_lap;
        Answer {
            within_2: f64::from(u8::from(due <= sample.lap + 2)),
            in_lap: Some(f64::from(due)),
            // Softer for harder and the other way round.
            compound: usual_next(sample),
        }
    }
}

/// The compound that a fixed plan would name: hard after soft or medium, medium after hard, the same kind in
/// the wet.
fn usual_next(sample: &Sample) -> Option<usize> {
    let on = sample.features[6..11].iter().position(|v| *v > 0.5)?;
    Some([2, 2, 1, 3, 4][on])
}

/// The figures of one forecaster.
#[derive(Clone, Debug)]
pub struct Scores {
    model: String,
    yes: f64,
    all: Hits,
    /// (probability, truth), for what a threshold could do.
    pairs: Vec<(f64, bool)>,
    races: Vec<(String, Hits)>,
    /// By horizon, and at last at the start of the stint: right within a lap, asked.
    lap: [(u64, u64); HORIZONS.len() + 1],
    compound: (u64, u64),
}

impl Scores {
    /// Nothing graded yet; from `yes` on, a probability is a yes.
    pub fn new(model: &str, yes: f64) -> Scores {
        Scores {
            model: model.to_owned(),
            yes,
            all: Hits::default(),
            pairs: Vec::new(),
            races: Vec::new(),
            lap: Default::default(),
            compound: (0, 0),
        }
    }

    /// Grades all rows of a race.
    pub fn race(
        &mut self,
        title: &str,
        rows: &[Sample],
        mut answer: impl FnMut(&Sample) -> Answer,
    ) {
        let mut here = Hits::default();
        let mut first_seen = std::collections::BTreeSet::new();
        for row in rows {
            let said = answer(row);
            if row.graded {
                let truth = row.stops_within(2);
                here.add(said.within_2, said.within_2 >= self.yes, truth);
                self.all
                    .add(said.within_2, said.within_2 >= self.yes, truth);
                self.pairs.push((said.within_2, truth));
            }
            let starts = first_seen.insert((row.car, row.stint_start));
            let Some(to_stop) = row.laps_to_stop else {
                continue;
            };
            let truth = f64::from(row.lap + to_stop);
            let right = said.in_lap.is_some_and(|l| (l - truth).abs() <= 1.0);
            for (at, horizon) in HORIZONS.iter().enumerate() {
                if *horizon == to_stop {
                    self.lap[at].0 += u64::from(right);
                    self.lap[at].1 += 1;
                }
            }
            if starts {
                self.lap[HORIZONS.len()].0 += u64::from(right);
                self.lap[HORIZONS.len()].1 += 1;
            }
            if let (1, Some(fitted)) = (to_stop, row.next_compound) {
                self.compound.0 += u64::from(said.compound == Some(fitted));
                self.compound.1 += 1;
            }
        }
        self.races.push((title.to_owned(), here));
    }

    /// "Boxes within two laps".
    pub const fn within_2(&self) -> &Hits {
        &self.all
    }

    /// Share of stops whose compound was named on the lap before.
    pub fn compound_accuracy(&self) -> Option<f64> {
        share(self.compound)
    }

    /// Share of stops whose lap was named to within one, five laps before.
    pub fn lap_within_1(&self) -> Option<f64> {
        share(self.lap[HEADLINE])
    }

    /// The figures as JSON.
    pub fn shown(&self) -> Value {
        let limit = Limit::of(&self.pairs);
        let mut laps: serde_json::Map<String, Value> = HORIZONS
            .iter()
            .zip(&self.lap)
            .map(|(h, s)| (format!("{h}_laps_before"), json!(share(*s))))
            .collect();
        laps.insert("stint_start".into(), json!(share(self.lap[HORIZONS.len()])));
        json!({
            "model": self.model,
            "count": self.all.count(),
            "rate": self.all.rate(),
            "threshold": self.yes,
            "f1_within_2_laps": self.all.f1(),
            "precision": self.all.precision(),
            "recall": self.all.recall(),
            "brier": self.all.brier(),
            "lap_within_1": self.lap_within_1(),
            "lap_within_1_by_horizon": laps,
            "compound_accuracy": self.compound_accuracy(),
            "stops": self.compound.1,
            "limit": limit.shown(),
            "by_race": self.races.iter().map(|(title, hits)| json!({
                "race": title, "f1": hits.f1(), "precision": hits.precision(), "recall": hits.recall(), "rate": hits.rate(),
            })).collect::<Vec<_>>(),
        })
    }
}

fn share((right, asked): (u64, u64)) -> Option<f64> {
    (asked > 0).then(|| right as f64 / asked as f64)
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.3}"));
        write!(
            f,
            "{:<32} F1 {} precision {} recall {} Brier {} (n = {}), lap within 1 {}, compound {}",
            self.model,
            of(self.all.f1()),
            of(self.all.precision()),
            of(self.all.recall()),
            self.all
                .brier()
                .map_or("-".to_owned(), |v| format!("{v:.4}")),
            self.all.count(),
            of(self.lap_within_1()),
            of(self.compound_accuracy()),
        )
    }
}

/// What any threshold on these probabilities could have reached: the frontier, known only afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limit {
    /// Best F1 over all thresholds.
    pub best_f1: f64,
    /// Area under the precision-recall curve (average precision).
    pub average_precision: f64,
    /// Area under the ROC curve.
    pub roc_auc: f64,
    /// Precision where recall reaches 0.5 and 0.81.
    pub precision_at: [f64; 2],
    /// F1 at the best threshold if stops were as frequent as not: what a resampled set would show.
    pub balanced_f1: f64,
    /// Best F1 that these probabilities promise of themselves, were they exactly right.
    pub promised_f1: f64,
}

impl Limit {
    /// From (probability, truth); zeros where there is no stop at all.
    pub fn of(pairs: &[(f64, bool)]) -> Limit {
        let mut sorted = pairs.to_vec();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let all = sorted.iter().filter(|p| p.1).count() as f64;
        let none = sorted.len() as f64 - all;
        let expected: f64 = sorted.iter().map(|p| p.0).sum();
        let mut limit = Limit::default();
        if all == 0.0 || none == 0.0 {
            return limit;
        }
        let (mut hit, mut missed, mut promised, mut at) = (0.0, 0.0, 0.0, 0);
        while at < sorted.len() {
            // Rows with equal probabilities fall on the same side of any threshold.
            let tied = sorted[at..].iter().take_while(|p| p.0 == sorted[at].0);
            let (mut yes, mut n) = (0.0, 0.0);
            for (p, truth) in tied {
                yes += f64::from(u8::from(*truth));
                n += 1.0;
                promised += p;
            }
            at += n as usize;
            limit.roc_auc += (n - yes) / none * (hit + yes / 2.0) / all;
            hit += yes;
            missed += n - yes;
            let (recall, said) = (hit / all, hit + missed);
            let precision = hit / said;
            limit.average_precision += yes / all * precision;
            limit.best_f1 = limit.best_f1.max(2.0 * hit / (said + all));
            limit.promised_f1 = limit.promised_f1.max(2.0 * promised / (said + expected));
            let alarms = missed / none;
            limit.balanced_f1 = limit
                .balanced_f1
                .max(2.0 * recall / (recall + alarms + 1.0));
            for (kept, wanted) in limit.precision_at.iter_mut().zip([0.5, 0.81]) {
                if recall >= wanted && *kept == 0.0 {
                    *kept = precision;
                }
            }
        }
        limit
    }

    fn shown(&self) -> Value {
        json!({
            "best_f1_at_any_threshold": self.best_f1,
            "average_precision": self.average_precision,
            "roc_auc": self.roc_auc,
            "precision_at_recall_0.5": self.precision_at[0],
            "precision_at_recall_0.81": self.precision_at[1],
            "f1_if_classes_were_balanced": self.balanced_f1,
            "f1_promised_by_the_probabilities": self.promised_f1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_by_hand() {
        // Ranked: stop, none, stop, none, none.
        let pairs = [
            (0.9, true),
            (0.1, false),
            (0.6, false),
            (0.5, true),
            (0.2, false),
        ];
        let l = Limit::of(&pairs);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(l.best_f1, 0.8);
        near(l.average_precision, 0.5 * 1.0 + 0.5 * (2.0 / 3.0));
        near(l.roc_auc, 5.0 / 6.0);
        near(l.precision_at[0], 1.0);
        near(l.precision_at[1], 2.0 / 3.0);
        near(l.balanced_f1, 2.0 / (1.0 + 1.0 / 3.0 + 1.0));
        assert_eq!(Limit::of(&[(0.5, true)]), Limit::default());
    }

    #[test]
    fn equal_probabilities_cannot_be_told_apart() {
        let l = Limit::of(&[(0.5, true), (0.5, false), (0.5, false), (0.5, false)]);
        assert!((l.roc_auc - 0.5).abs() < 1e-12 && (l.average_precision - 0.25).abs() < 1e-12);
    }
}
