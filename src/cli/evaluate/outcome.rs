//! `trackside evaluate outcome`: the finishing order, at the grid and at 25, 50 and 75 % of the distance.
//!
//! Every race is walked through as it happened; at each moment the model, the floor, the order on track and
//! the grid say how likely each car is to end on the podium. The form that the model reads is folded forward
//! through history and the races before this one, and has seen nothing of it. The two orders become
//! probabilities by how often a place has led to the podium in races up to 2023 (`frequencies.toml`).
//!
//! Figures are means over races; log-loss and Brier score are means over the cars that started. Intervals
//! are 90 %, from bootstrap samples of races. A race of which nobody's place on the grid is known is not judged
//! before its start, and has no grid for a baseline.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Common;
use super::podium::{Figures, Judged, MOMENTS, Score, Who};
use super::races::side_by_side;
use crate::cli::say::note;
use crate::dataset::form::{FIRST_SEASON, History, PastRace, between, fold};
use crate::dataset::outcome::{Collector, Moment, grid_only, moments};
use crate::dataset::{Faults, RaceData};
use crate::predict::distance::{Distance, LapKm};
use crate::predict::form::Form;
use crate::predict::outcome::{Chances, OUTCOME, OutcomeModel};
use crate::predict::{Floor, View, order};

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

/// What there is to judge or to write, in the order of the calendar.
enum Item<'a> {
    /// A race with laps, what history tells of it, and the form before it.
    Race {
        race: &'a RaceData,
        past: PastRace,
        form: Form,
    },
    /// The grid of a race without.
    Grid {
        key: (u16, u16),
        moment: Box<Moment>,
    },
}

/// What became of one of them.
#[derive(Default)]
struct Made {
    figures: Figures,
    /// Kept where features are written.
    moments: Vec<((u16, u16), Moment)>,
    /// What the model said when it failed first.
    failure: Option<String>,
    /// Moments that were never reached (%), of a race with laps.
    missing: Vec<u16>,
}

/// Every figure of these seasons.
pub(super) fn figures(common: &Common) -> anyhow::Result<Value> {
    let set = common.read()?;
    let mut faults = Faults::default();
    let history = History::read(&common.data, &mut faults)?;
    let engine = common.engine(OUTCOME)?;
    let model = engine.clone().map(OutcomeModel::new).transpose()?;
    let model = model.as_ref();
    let floor = Floor::shipped();
    let frequencies = Frequencies::shipped()?;
    let keep = common.features().is_some();
    let mut items = Vec::new();
    let before = between(&common.data, &history, *common.seasons.start())?;
    let races = before.iter().chain(&set.races);
    let form = fold(&history, races, |key, form, past| {
        let race = set.races.iter().find(|r| (r.season, r.round) == key);
        if let Some(race) = race {
            items.push(Item::Race {
                race,
                past: past.clone(),
                form: form.clone(),
            });
        } else if keep
            && (FIRST_GRID..).contains(&key.0)
            && let Some(moment) = grid_only(past, form, &floor)
        {
            items.push(Item::Grid {
                key,
                moment: Box::new(moment),
            });
        }
    });
    let made = side_by_side("races", &items, |item| match item {
        Item::Race { race, past, form } => {
            judge(race, past, form, model, &floor, &frequencies, keep)
        }
        Item::Grid { key, moment } => Made {
            moments: vec![(*key, (**moment).clone())],
            ..Made::default()
        },
    });
    let mut figures = Figures::default();
    let mut collector = Collector::default();
    let mut missing = 0;
    for (made, item) in made.into_iter().zip(&items) {
        if let (Item::Race { race, .. }, false) = (item, made.missing.is_empty()) {
            missing += made.missing.len();
            note!(
                "{}: not judged at {:?} % of the distance: its laps do not tell who led by then, or who finished",
                race.title(),
                made.missing
            );
        }
        if let (Some(failure), 0) = (made.failure, figures.failures) {
            note!("{failure}");
        }
        for (key, moment) in &made.moments {
            collector.add(*key, moment);
        }
        figures.merge(made.figures);
    }
    if let Some(folder) = common.features() {
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
    if figures.without_grid > 0 {
        note!(
            "{} races have no starting grid (history/f1db-grids* or strategy/starting_grid-*): they are not judged \
             before the start",
            figures.without_grid
        );
    }
    let mut outcome = match figures.json(model) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    common.computed(&mut outcome, &[engine])?;
    outcome.insert("moments_missing".into(), json!(missing));
    Ok(json!({ "outcome": outcome }))
}

fn judge(
    race: &RaceData,
    past: &PastRace,
    form: &Form,
    model: Option<&OutcomeModel>,
    floor: &Floor,
    frequencies: &Frequencies,
    keep: bool,
) -> Made {
    let mut made = Made::default();
    let started = past.cars.iter().filter(|c| c.entry.started == Some(true));
    let mut judge = Judge {
        race,
        model,
        floor,
        frequencies,
        started: started.count(),
        has_grid: race.cars.iter().any(|c| c.grid.is_some()),
        due: MOMENTS.iter().copied().rev().collect(),
        scores: BTreeMap::new(),
        figures: Figures::default(),
        failure: None,
    };
    moments(race, past, form, floor, |view, moment| {
        judge.take(view, &moment);
        if keep {
            made.moments.push(((race.season, race.round), moment));
        }
    });
    made.figures = judge.figures;
    made.failure = judge.failure;
    made.missing = judge.due.iter().rev().copied().collect();
    if !judge.scores.is_empty() {
        made.figures.without_grid = u64::from(!judge.has_grid);
        made.figures.races.push(Judged {
            title: race.title(),
            scores: judge.scores,
        });
    }
    made
}

/// One race that is being judged.
struct Judge<'a> {
    race: &'a RaceData,
    model: Option<&'a OutcomeModel>,
    floor: &'a Floor,
    frequencies: &'a Frequencies,
    started: usize,
    /// Whether anybody's place on the grid is known.
    has_grid: bool,
    /// Moments still to come, the next one last.
    due: Vec<u16>,
    scores: BTreeMap<(u16, Who), Score>,
    figures: Figures,
    /// What the model said when it failed first.
    failure: Option<String>,
}

impl Judge<'_> {
    fn take(&mut self, view: &View, moment: &Moment) {
        let asked = self.model.map(|m| m.ask(&moment.frame));
        if let Some(Err(e)) = &asked {
            let title = self.race.title();
            self.failure.get_or_insert_with(|| format!("{title}: {e}"));
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
            let known = if percent == 0 {
                moment.lap == 0 && self.has_grid
            } else {
                true
            };
            if known {
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
        if self.has_grid {
            put(Who::Grid, &grid, &slots);
            put(
                Who::GridCertain,
                &slots.iter().map(sure).collect::<Vec<f64>>(),
                &slots,
            );
        }
        let lap = LapKm::of_calendar(self.race.calendar.lap_km);
        let distance = Distance::of(view, self.floor, lap, 0.0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_frequencies_fall_with_the_place() {
        let f = Frequencies::shipped().unwrap();
        for row in f.grid.iter().chain(&f.current_order) {
            assert!(row.len() >= 20 && row[0] > 0.6 && row[19] < 0.05, "{row:?}");
        }
    }
}
