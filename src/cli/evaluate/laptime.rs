//! `trackside evaluate laptime`: the next clean lap, and the same once sectors 1 and 2 are in.
//!
//! Clean: accurate, green throughout, neither in- nor out-lap, a clean lap before it in the stint. Every race is
//! walked through as it happened by the same predictor that the daemon runs, with answers that were computed
//! many rows at a time ([`super::rehearsal`]); each prediction is judged against the lap that came, beside the
//! previous clean lap (with known sectors in place of its own), the median of the last three, and the floor.
//! A lap that nothing was predicted for counts with the previous clean lap.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::Common;
use super::races::side_by_side;
use super::rehearsal::Rehearsal;
use crate::cli::say::note;
use crate::dataset::laptime::{Collector, Sample, samples};
use crate::dataset::{RaceData, Walk};
use crate::predict::models::{LAPTIME, LapTimeModel};
use crate::predict::scores::Errors;
use crate::predict::{self, Floor, Models, Predictor};
use crate::record::prediction::{Prediction, Quantiles};

/// By car, lap and sectors known.
type Predicted = HashMap<(u8, u16, u8), Quantiles>;

/// Errors by sectors known (0, 1, 2).
#[derive(Clone, Default)]
struct Figures {
    ours: [Errors; 3],
    floor: [Errors; 3],
    previous: [Errors; 3],
    median: Errors,
    /// Judged laps that nothing was predicted for.
    missing: u64,
}

impl Figures {
    fn add(&mut self, car: &[Sample], ours: &Predicted, floor: &Predicted) {
        for sample in car.iter().filter(|s| s.graded) {
            let Some(truth) = sample.truth_s else {
                continue;
            };
            let lap = sample.lap + 1;
            if let Some(m) = sample.median_s {
                self.median.add(m, truth);
            }
            for sectors in 0..3u8 {
                let at = usize::from(sectors);
                let Some(plain) = sample.plain_s[at] else {
                    continue;
                };
                self.previous[at].add(plain, truth);
                let key = (sample.car, lap, sectors);
                for (all, errors) in [(ours, &mut self.ours), (floor, &mut self.floor)] {
                    match all.get(&key) {
                        Some(q) => {
                            errors[at].add(q.p50, truth);
                            errors[at].add_interval([q.p10, q.p50, q.p90], truth);
                        }
                        None => errors[at].add(plain, truth),
                    }
                }
                self.missing += u64::from(!ours.contains_key(&key));
            }
        }
    }

    fn merge(&mut self, other: &Figures) {
        for at in 0..3 {
            self.ours[at].merge(&other.ours[at]);
            self.floor[at].merge(&other.floor[at]);
            self.previous[at].merge(&other.previous[at]);
        }
        self.median.merge(&other.median);
        self.missing += other.missing;
    }

    fn json(&self) -> Map<String, Value> {
        let [line, first, second] = &self.ours;
        let by = |e: &[Errors; 3]| {
            json!({
                "mae": shown(e[0].mae()),
                "rmse": shown(e[0].rmse()),
                "mae_after_s1": shown(e[1].mae()),
                "mae_after_s2": shown(e[2].mae()),
                "coverage80": shown(e[0].coverage_80()),
            })
        };
        let gain = |at: usize| {
            let (own, plain) = (self.ours[at].mae()?, self.previous[at].mae()?);
            (plain > 0.0).then(|| 1.0 - own / plain)
        };
        let figures = json!({
            "laps": line.count,
            "laps_after_s1": first.count,
            "laps_after_s2": second.count,
            "mae": shown(line.mae()),
            "rmse": shown(line.rmse()),
            "bias": shown(line.bias()),
            "within_200_ms": shown(line.within_200_ms()),
            "mae_after_s1": shown(first.mae()),
            "mae_after_s2": shown(second.mae()),
            "coverage80": shown(line.coverage_80()),
            "coverage80_after_s1": shown(first.coverage_80()),
            "coverage80_after_s2": shown(second.coverage_80()),
            "better_than_previous_lap": shown(gain(0)),
            "better_than_previous_lap_after_s1": shown(gain(1)),
            "better_than_previous_lap_after_s2": shown(gain(2)),
            "not_predicted": self.missing,
            "baselines": {
                "previous_lap": by(&self.previous),
                "median_of_3": { "mae": shown(self.median.mae()), "rmse": shown(self.median.rmse()) },
                "floor": by(&self.floor),
            },
        });
        match figures {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// Four digits; `null` where there is nothing.
fn shown(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |v| json!((v * 1e4).round() / 1e4))
}

/// What became of one race.
struct Judged {
    figures: Figures,
    /// Kept where features are written.
    rows: Option<Vec<Vec<Sample>>>,
    failure: Option<String>,
}

/// Every figure of these seasons.
pub(super) fn figures(args: &Common) -> anyhow::Result<Value> {
    let set = args.read()?;
    let engine = args.engine(LAPTIME)?;
    let model = engine.clone().map(LapTimeModel::new).transpose()?;
    let id = model.as_ref().map(|m| m.engine().model().id());
    let floor = Floor::shipped();
    let rehearsal = model
        .map(|model| Rehearsal::new(Arc::new(model)))
        .transpose()?;
    let keep = args.features().is_some();
    let judged = side_by_side("races", &set.races, |race| {
        judge(race, &floor, rehearsal.as_ref(), keep)
    });
    let mut collector = Collector::default();
    let mut total = Figures::default();
    let mut seasons: Vec<(u16, Figures)> = Vec::new();
    let (mut races, mut lost) = (Vec::new(), Vec::new());
    for (race, judged) in set.races.iter().zip(judged) {
        let Judged {
            figures,
            rows,
            failure,
        } = judged.with_context(|| race.title())?;
        if let Some(rows) = rows {
            collector.add(race, &rows);
        }
        if let Some(failure) = failure {
            note!("{}: {failure}", race.title());
        }
        let (own, previous) = (figures.ours[0].mae(), figures.previous[0].mae());
        if own >= previous && own.is_some() {
            lost.push(race.title());
        }
        races.push(json!({
            "race": race.title(),
            "laps": figures.ours[0].count,
            "mae": shown(own),
            "mae_after_s1": shown(figures.ours[1].mae()),
            "mae_after_s2": shown(figures.ours[2].mae()),
            "coverage80": shown(figures.ours[0].coverage_80()),
            "previous_lap": shown(previous),
            "floor": shown(figures.floor[0].mae()),
        }));
        if seasons.last().is_none_or(|(s, _)| *s != race.season) {
            seasons.push((race.season, Figures::default()));
        }
        if let Some((_, season)) = seasons.last_mut() {
            season.merge(&figures);
        }
        total.merge(&figures);
    }
    if let Some(folder) = args.features() {
        collector.write(folder)?;
        note!("features are in {}", folder.display());
    }
    if total.ours[0].count == 0 {
        note!(
            "no lap could be judged: one that counts has a time, track_status 1, and a lap like it before it in its stint"
        );
    }
    let mut figures = total.json();
    let by_season: Map<String, Value> = seasons
        .iter()
        .map(|(season, f)| (season.to_string(), Value::Object(f.json())))
        .collect();
    figures.insert(
        "model".to_owned(),
        json!(id.unwrap_or_else(|| predict::MODEL.to_owned())),
    );
    figures.insert("seasons".to_owned(), Value::Object(by_season));
    figures.insert("races".to_owned(), Value::Array(races));
    figures.insert("races_lost_to_previous_lap".to_owned(), json!(lost));
    args.computed(&mut figures, &[engine])?;
    Ok(json!({ "laptime": figures }))
}

fn judge(
    race: &RaceData,
    floor: &Floor,
    rehearsal: Option<&Rehearsal>,
    keep: bool,
) -> anyhow::Result<Judged> {
    let rows = samples(race, floor);
    let (plain, _) = drive(race, floor, Models::none());
    let (ours, failure) = match rehearsal {
        Some(rehearsal) => {
            let models = Models {
                laptime: Some(Arc::new(rehearsal.of(&rows)?)),
                ..Models::none()
            };
            drive(race, floor, models)
        }
        None => (plain.clone(), None),
    };
    let mut figures = Figures::default();
    for car in &rows {
        figures.add(car, &ours, &plain);
    }
    Ok(Judged {
        figures,
        rows: keep.then_some(rows),
        failure,
    })
}

/// Everything predicted of the laps of a race, and what the model said if it failed.
pub(super) fn drive(race: &RaceData, floor: &Floor, models: Models) -> (Predicted, Option<String>) {
    let mut predictor = Predictor::new(floor.clone())
        .with_models(models)
        .with_calendar(race.calendar.lap_km);
    let mut made = Predicted::new();
    Walk::new(race).each(|view, seq, events| {
        for prediction in predictor.observe_view(view, seq, events) {
            if let Prediction::LapTime(p) = prediction {
                made.insert((p.driver_number, p.lap_number, p.sectors_known), p.lap_time);
            }
        }
    });
    let failure = predictor.model_failure().map(str::to_owned);
    (made, failure)
}
