//! `trackside evaluate outcome`: the finishing order, at the grid and at 25, 50 and 75 % of the distance.
//!
//! Every race is walked through as it happened; at each moment the model, the floor, the order on track and
//! the grid say how likely each car is to end on the podium. The form that the model reads is folded forward
//! through history and the races before this one, and has seen nothing of it. The two orders become
//! probabilities by how often a place has led to the podium in races up to 2023 (`frequencies.toml`).
//!
//! Figures are means over races; log-loss and Brier score are means over the cars that started. Intervals
//! are 90 %, from [`RESAMPLES`] bootstrap samples of races.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Common;
use crate::cli::say::note;
use crate::dataset::form::{FIRST_SEASON, History, fold};
use crate::dataset::outcome::{Collector, Moment, grid_only, moments};
use crate::dataset::{Faults, RaceData};
use crate::predict::distance::Distance;
use crate::predict::outcome::{Chances, OutcomeModel};
use crate::predict::{Floor, View, order};

/// Moments that are judged (% of the distance).
const MOMENTS: [u16; 4] = [0, 25, 50, 75];
/// A probability is never taken as surer than this.
const LEAST_P: f64 = 1e-3;
/// Bins of the calibration error.
const BINS: usize = 10;
/// Bootstrap samples of races.
const RESAMPLES: usize = 2_000;
/// Grids of seasons without laps that are written for training begin here.
const FIRST_GRID: u16 = 2008;

/// How often a place on track or on the grid has led to the podium, per moment and place from 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frequencies {
    grid: [Vec<f64>; 4],
    current_order: [Vec<f64>; 4],
}

impl Frequencies {
    fn shipped() -> anyhow::Result<Frequencies> {
        toml::from_str(include_str!("../../../engines/outcome/frequencies.toml"))
            .context("engines/outcome/frequencies.toml")
    }
}

/// What is said of the cars of a moment: the names under which it is reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
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
#[derive(Clone, Copy, Default)]
struct Score {
    overlap: f64,
    log_loss: f64,
    brier: f64,
}

impl Score {
    /// `ranking`: larger is more likely on the podium, which decides whom it names; `p`: how likely.
    fn of(moment: &Moment, started: usize, p: &[f64], ranking: &[f64]) -> Score {
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
#[derive(Clone, Default)]
struct Reliability {
    /// Count, sum of predictions, sum of what happened.
    bins: [(f64, f64, f64); BINS],
}

impl Reliability {
    fn add(&mut self, p: f64, truth: bool) {
        let at = ((p * BINS as f64) as usize).min(BINS - 1);
        let bin = &mut self.bins[at];
        bin.0 += 1.0;
        bin.1 += p;
        bin.2 += f64::from(u8::from(truth));
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
struct Judged {
    title: String,
    scores: BTreeMap<(u16, Who), Score>,
}

/// All that was judged.
#[derive(Default)]
struct Figures {
    races: Vec<Judged>,
    moments: u64,
    podium: Reliability,
    win: Reliability,
    retirement: Reliability,
    failures: u64,
}

/// Runs it.
pub fn run(common: &Common) -> anyhow::Result<()> {
    let set = common.read()?;
    let mut faults = Faults::default();
    let history = History::read(&common.data, &mut faults)?;
    let models = common.engines.load()?;
    let model = models.outcome.as_deref();
    let floor = Floor::shipped();
    let frequencies = Frequencies::shipped()?;
    let mut figures = Figures::default();
    let mut collector = common.features().map(|_| Collector::default());
    let form = fold(&history, &set.races, |key, form, past| {
        let race = set.races.iter().find(|r| (r.season, r.round) == key);
        let Some(race) = race else {
            if let (Some(collector), true) = (&mut collector, (FIRST_GRID..).contains(&key.0))
                && let Some(moment) = grid_only(past, form, &floor)
            {
                collector.add(key, &moment);
            }
            return;
        };
        let mut judged = Judge {
            race,
            model,
            floor: &floor,
            frequencies: &frequencies,
            started: past
                .cars
                .iter()
                .filter(|c| c.entry.started == Some(true))
                .count(),
            due: MOMENTS.iter().copied().rev().collect(),
            scores: BTreeMap::new(),
            figures: &mut figures,
        };
        moments(race, past, form, &floor, |view, moment| {
            if let Some(collector) = &mut collector {
                collector.add(key, &moment);
            }
            judged.take(view, &moment);
        });
        let scores = judged.scores;
        if !scores.is_empty() {
            figures.races.push(Judged {
                title: race.title(),
                scores,
            });
        }
    });
    if let (Some(collector), Some(folder)) = (collector, common.features()) {
        collector.write(folder)?;
        // What serves begins where these races end.
        std::fs::write(folder.join("form.toml"), toml::to_string(&form)?)?;
    }
    if history.races.is_empty() {
        note!(
            "{} has no history/: form begins with the table that is shipped, or in the middle ({FIRST_SEASON} on is read)",
            common.data.display()
        );
    }
    common.print(&json!({ "outcome": figures.json(model) }));
    Ok(())
}

/// One race that is being judged.
struct Judge<'a> {
    race: &'a RaceData,
    model: Option<&'a OutcomeModel>,
    floor: &'a Floor,
    frequencies: &'a Frequencies,
    started: usize,
    /// Moments still to come, the next one last.
    due: Vec<u16>,
    scores: BTreeMap<(u16, Who), Score>,
    figures: &'a mut Figures,
}

impl Judge<'_> {
    fn take(&mut self, view: &View, moment: &Moment) {
        let asked = self.model.map(|m| m.ask(&moment.frame));
        if let Some(Err(e)) = &asked {
            if self.figures.failures == 0 {
                note!("{}: {e}", self.race.title());
            }
            self.figures.failures += 1;
        }
        let chances = asked.and_then(Result::ok);
        if let Some(chances) = &chances {
            self.reliability(moment, chances);
        }
        self.figures.moments += 1;
        let reached = |percent: &u16| {
            u32::from(moment.lap) * 100 >= u32::from(*percent) * u32::from(moment.race_laps)
        };
        // The grid is judged at the grid only, and of two moments reached at once the later one counts.
        while let Some(percent) = self.due.last().copied().filter(reached) {
            self.due.pop();
            if percent > 0 || moment.lap == 0 {
                self.judge(view, moment, percent, chances.as_ref());
            }
        }
    }

    fn judge(&mut self, view: &View, moment: &Moment, percent: u16, chances: Option<&Chances>) {
        let cars = &moment.frame.cars;
        let at = MOMENTS.iter().position(|m| *m == percent).unwrap_or(0);
        let often = |table: &[Vec<f64>; 4], place: usize| {
            let row = &table[at];
            let last = row.len().saturating_sub(1);
            row.get(place.saturating_sub(1).min(last))
                .copied()
                .unwrap_or(0.0)
        };
        let mut put = |who: Who, p: &[f64], ranking: &[f64]| {
            let score = Score::of(moment, self.started, p, ranking);
            self.scores.insert((percent, who), score);
        };
        let places: Vec<f64> = (1..=cars.len()).map(|place| -(place as f64)).collect();
        let current: Vec<f64> = (1..=cars.len())
            .map(|p| often(&self.frequencies.current_order, p))
            .collect();
        put(Who::CurrentOrder, &current, &places);
        let sure = |place: &f64| f64::from(u8::from(*place >= -3.0));
        put(
            Who::CurrentOrderCertain,
            &places.iter().map(sure).collect::<Vec<f64>>(),
            &places,
        );
        let slots: Vec<f64> = moment.grid.iter().map(|g| -f64::from(*g)).collect();
        let grid: Vec<f64> = moment
            .grid
            .iter()
            .map(|g| often(&self.frequencies.grid, usize::from(*g)))
            .collect();
        put(Who::Grid, &grid, &slots);
        put(
            Who::GridCertain,
            &slots.iter().map(sure).collect::<Vec<f64>>(),
            &slots,
        );
        let distance = Distance::of(view, self.floor, None, 0.0);
        if let Some(finish) = order::predict(view, &distance, self.floor) {
            let of = |n: &u8| {
                finish
                    .cars
                    .iter()
                    .find(|c| c.driver_number == *n)
                    .map_or(0.0, |c| c.p_podium)
            };
            let floor: Vec<f64> = cars.iter().map(of).collect();
            put(Who::Floor, &floor, &floor);
            if chances.is_none() {
                put(Who::Model, &floor, &floor);
            }
        }
        if let Some(chances) = chances {
            let podium = chances.within(3);
            put(Who::Model, &podium, &podium);
        }
    }

    fn reliability(&mut self, moment: &Moment, chances: &Chances) {
        let (podium, win) = (chances.within(3), chances.within(1));
        for (at, place) in moment.place.iter().enumerate() {
            self.figures.podium.add(podium[at], *place <= 3);
            self.figures.win.add(win[at], *place == 1);
            self.figures
                .retirement
                .add(chances.retires[at], moment.retired[at]);
        }
    }
}

impl Figures {
    fn json(&self, model: Option<&OutcomeModel>) -> Value {
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
            let (own, theirs) = (self.column(m, Who::Model, pick), self.column(m, than, pick));
            let x: Vec<f64> = own.iter().zip(&theirs).map(|(a, b)| a - b).collect();
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

    #[test]
    fn the_shipped_frequencies_fall_with_the_place() {
        let f = Frequencies::shipped().unwrap();
        for row in f.grid.iter().chain(&f.current_order) {
            assert!(row.len() >= 20 && row[0] > 0.6 && row[19] < 0.05, "{row:?}");
        }
    }
}
