//! Moments of a race for the model `outcome`: what it sees, and how it ended for those cars.

use std::path::Path;

use super::features::Writer;
use super::form::{Entrant, PastRace};
use super::race::{CarData, RaceData};
use super::walk::Walk;
use crate::predict::View;
use crate::predict::distance::{Distance, LapKm};
use crate::predict::features::outcome::{COLUMNS, FEATURES, Frame, MOST_CARS, VERSION, frame};
use crate::predict::floor::Floor;
use crate::predict::form::Form;
use crate::predict::view::{CarView, team_name};
use crate::race::SessionType;

/// A race of fewer laps was no race (Spa 2021).
pub const FEWEST_LAPS: u16 = 10;

/// One moment: the grid, or the leader ending a lap.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// Laps that the leader has completed.
    pub lap: u16,
    /// Laps of the race as it was driven: what 25, 50 and 75 % are taken of.
    pub race_laps: u16,
    pub frame: Frame,
    /// By row of the frame: final place from 1 among the cars of the frame; cars that do not finish come
    /// behind those that do, the furthest first.
    pub rank: Vec<u8>,
    /// Final place from 1 among all that started.
    pub place: Vec<u8>,
    /// Whether it was not running at the end.
    pub retired: Vec<bool>,
    /// Place on the grid (20 from the pit lane).
    pub grid: Vec<u8>,
}

/// How a race ended: driver numbers first to last, and whether they were running at the end.
pub struct Ending {
    order: Vec<(u8, bool)>,
}

impl Ending {
    /// Of every car that started: the classified by position, then by laps.
    pub fn of(race: &PastRace) -> Ending {
        let mut cars: Vec<&Entrant> = race
            .cars
            .iter()
            .filter(|c| c.entry.started == Some(true))
            .collect();
        cars.sort_by_key(|c| {
            (
                c.classified.unwrap_or(u8::MAX),
                std::cmp::Reverse(c.laps),
                c.number,
            )
        });
        let order = cars.iter().map(|c| (c.number, c.entry.position.is_some()));
        Ending {
            order: order.collect(),
        }
    }

    /// Cars that started.
    pub fn cars(&self) -> usize {
        self.order.len()
    }

    fn place(&self, number: u8) -> Option<usize> {
        self.order.iter().position(|(n, _)| *n == number)
    }

    fn moment(&self, view: &View, frame: Frame, race_laps: u16) -> Option<Moment> {
        let places: Option<Vec<usize>> = frame.cars.iter().map(|n| self.place(*n)).collect();
        // A car that never started according to the result: the tables disagree.
        let places = places?;
        let rank = places
            .iter()
            .map(|own| (places.iter().filter(|p| *p < own).count() + 1) as u8);
        let grid = |n: &u8| view.car(*n).and_then(|c| c.grid).unwrap_or(20);
        Some(Moment {
            lap: view.leader_laps(),
            race_laps,
            rank: rank.collect(),
            place: places.iter().map(|p| (p + 1) as u8).collect(),
            retired: places.iter().map(|p| !self.order[*p].1).collect(),
            grid: frame.cars.iter().map(grid).collect(),
            frame,
        })
    }
}

/// The race with those of its cars that the laps do not know, because they did not complete one.
pub fn completed(race: &RaceData, past: &PastRace) -> RaceData {
    let mut race = race.clone();
    let started = past.cars.iter().filter(|c| c.entry.started == Some(true));
    for missing in started
        .filter(|c| race.car(c.number).is_none())
        .cloned()
        .collect::<Vec<_>>()
    {
        race.cars.push(CarData {
            number: missing.number,
            driver: missing.entry.driver.clone(),
            team: missing.entry.team.clone(),
            grid: missing.entry.grid,
            qualifying_s: missing.entry.qualifying_s,
            ..CarData::default()
        });
    }
    race.cars.retain(|c| {
        past.cars
            .iter()
            .any(|p| p.number == c.number && p.entry.started == Some(true))
    });
    race.cars.sort_by_key(|c| c.number);
    race
}

/// Calls `each` at the grid and whenever the leader ends a lap, until the one before the flag.
pub fn moments(
    race: &RaceData,
    past: &PastRace,
    form: &Form,
    floor: &Floor,
    mut each: impl FnMut(&View, Moment),
) {
    let ending = Ending::of(past);
    let race = completed(race, past);
    let laps = race.laps();
    if laps < FEWEST_LAPS || ending.cars() == 0 {
        return;
    }
    let mut told = None;
    Walk::new(&race).each(|view, _, _| {
        let lap = view.leader_laps();
        if told >= Some(lap) || lap >= laps || view.finished {
            return;
        }
        told = Some(lap);
        let lap_km = LapKm::of_calendar(race.calendar.lap_km);
        let distance = Distance::of(view, floor, lap_km, 0.0);
        if distance.remaining(view) == 0 {
            return;
        }
        let seen = frame(view, &distance, form);
        if let Some(moment) = seen.and_then(|f| ending.moment(view, f, laps)) {
            each(view, moment);
        }
    });
}

/// The grid of a race of which there are no laps.
pub fn grid_only(past: &PastRace, form: &Form, floor: &Floor) -> Option<Moment> {
    let started = past.cars.iter().filter(|c| c.entry.started == Some(true));
    let view = View {
        session_type: SessionType::Race,
        circuit: past.circuit.clone(),
        cars: started
            .map(|c| CarView {
                number: c.number,
                driver: c.entry.driver.chars().take(3).collect(),
                team: team_name(&c.entry.team),
                grid: c.entry.grid,
                qualifying_s: c.entry.qualifying_s,
                ..CarView::default()
            })
            .collect(),
        ..View::default()
    };
    let distance = Distance::of(&view, floor, LapKm::Unknown, 0.0);
    let laps = past.cars.iter().map(|c| c.laps).max().unwrap_or(0);
    Ending::of(past).moment(&view, frame(&view, &distance, form)?, laps)
}

/// Columns of `meta.npy`.
const META: [&str; 6] = ["season", "round", "lap", "race_laps", "cars", "share"];

/// Moments on their way into files for training.
#[derive(Default)]
pub struct Collector {
    moments: usize,
    x: Vec<f32>,
    rank: Vec<f32>,
    place: Vec<f32>,
    retired: Vec<f32>,
    meta: Vec<f32>,
}

impl Collector {
    /// Takes a moment of the race with that season and round.
    pub fn add(&mut self, key: (u16, u16), moment: &Moment) {
        let padded = |list: &mut Vec<f32>, values: &[u8]| {
            list.extend(values.iter().map(|v| f32::from(*v)));
            list.resize(list.len() + MOST_CARS - values.len(), 0.0);
        };
        let retired: Vec<u8> = moment.retired.iter().map(|r| u8::from(*r)).collect();
        self.x.extend(&moment.frame.values);
        padded(&mut self.rank, &moment.rank);
        padded(&mut self.place, &moment.place);
        padded(&mut self.retired, &retired);
        self.meta.extend([
            f32::from(key.0),
            f32::from(key.1),
            f32::from(moment.lap),
            f32::from(moment.race_laps),
            moment.frame.cars.len() as f32,
            moment.frame.share as f32,
        ]);
        self.moments += 1;
    }

    /// Writes them: `x` [moments, 24, features], `rank`, `place`, `retired` [moments, 24], `meta`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        let n = self.moments;
        let mut writer = Writer::create(folder, "outcome", VERSION)?;
        writer.array("x", &[n, MOST_CARS, FEATURES], &COLUMNS, &self.x)?;
        writer.array("rank", &[n, MOST_CARS], &[], &self.rank)?;
        writer.array("place", &[n, MOST_CARS], &[], &self.place)?;
        writer.array("retired", &[n, MOST_CARS], &[], &self.retired)?;
        writer.array("meta", &[n, META.len()], &META, &self.meta)?;
        writer.finish(serde_json::json!({ "moments": n }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::LapRow;
    use crate::dataset::form::Entrant;
    use crate::dataset::weekend::ResultRow;
    use crate::predict::form::Entry;
    use crate::race::Compound;
    use proptest::prelude::*;

    const CARS: u8 = 8;
    const LAPS: u16 = 16;

    /// A race of invented laps: `times[car][lap]` (s).
    fn race(times: &[Vec<f64>], stops: &[u16]) -> RaceData {
        let cars = (1..=CARS).map(|number| {
            let at = usize::from(number) - 1;
            let mut end = 0.0;
            let laps = (1..=LAPS).map(|lap| {
                let time = times[at][usize::from(lap) - 1];
                end += time;
                let stop = stops[at];
                LapRow {
                    season: 2031,
                    round: 1,
                    number,
                    lap,
                    time_s: Some(time),
                    end_s: Some(end),
                    compound: if lap <= stop {
                        Compound::Medium
                    } else {
                        Compound::Hard
                    },
                    tyre_age: Some(if lap <= stop { lap } else { lap - stop }),
                    is_in: lap == stop,
                    is_out: lap == stop + 1,
                    clear: true,
                    statuses: 1,
                    ..LapRow::default()
                }
            });
            CarData {
                number,
                driver: format!("D{number:02}"),
                team: format!("team {}", number / 2),
                grid: Some(number),
                qualifying_s: Some(80.0 + f64::from(number) / 10.0),
                result: Some(ResultRow {
                    position: Some(number),
                    ..ResultRow::default()
                }),
                laps: laps.collect(),
            }
        });
        RaceData {
            season: 2031,
            round: 1,
            circuit: "Moon".to_owned(),
            session_clock: true,
            cars: cars.collect(),
            ..RaceData::default()
        }
    }

    fn past(race: &RaceData) -> PastRace {
        let cars = race.cars.iter().map(|c| Entrant {
            number: c.number,
            entry: Entry {
                driver: c.driver.clone(),
                team: c.team.clone(),
                grid: c.grid,
                qualifying_s: c.qualifying_s,
                position: Some(c.number),
                started: Some(true),
            },
            classified: Some(c.number),
            laps: LAPS,
        });
        PastRace {
            circuit: race.circuit.clone(),
            cars: cars.collect(),
        }
    }

    fn frames(race: &RaceData) -> Vec<(u16, Frame)> {
        let mut found = Vec::new();
        moments(
            race,
            &past(race),
            &Form::default(),
            &Floor::shipped(),
            |_, m| {
                found.push((m.lap, m.frame));
            },
        );
        found
    }

    fn times() -> impl Strategy<Value = Vec<Vec<f64>>> {
        let lap = 85.0f64..95.0;
        prop::collection::vec(
            prop::collection::vec(lap, usize::from(LAPS)),
            usize::from(CARS),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn what_comes_later_changes_nothing(
            times in times(),
            others in times(),
            stops in prop::collection::vec(3u16..12, usize::from(CARS)),
            until in 1u16..14,
        ) {
            let one = race(&times, &stops);
            // When the leader ended that lap; every lap that ended later becomes another.
            let ended = |c: &CarData| c.laps[usize::from(until) - 1].end_s;
            let now = one.cars.iter().filter_map(ended).fold(f64::INFINITY, f64::min);
            let mut changed = times.clone();
            let mut later = stops.clone();
            for (at, car) in one.cars.iter().enumerate() {
                for (l, lap) in car.laps.iter().enumerate() {
                    if lap.end_s > Some(now) {
                        changed[at][l] = others[at][l] + 10.0;
                    }
                }
                let done = car.laps.iter().filter(|l| l.end_s <= Some(now)).count() as u16;
                if stops[at] > done {
                    later[at] = stops[at] + 2;
                }
            }
            let other = race(&changed, &later);
            let before = |all: Vec<(u16, Frame)>| -> Vec<(u16, Frame)> {
                all.into_iter().filter(|(lap, _)| *lap <= until).collect()
            };
            let (a, b) = (before(frames(&one)), before(frames(&other)));
            prop_assert_eq!(a.len(), usize::from(until) + 1);
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn a_car_that_never_came_round_is_on_the_grid_and_then_gone() {
        let times = vec![vec![90.0; usize::from(LAPS)]; usize::from(CARS)];
        let mut short = race(&times, &[8; 8]);
        for (at, car) in short.cars.iter_mut().enumerate() {
            // So that the order is clear.
            for lap in &mut car.laps {
                lap.end_s = lap.end_s.map(|t| t + at as f64);
            }
        }
        let mut past = past(&short);
        short.cars.remove(3);
        past.cars[3].entry.position = None;
        past.cars[3].classified = None;
        past.cars[3].laps = 0;
        let mut seen = Vec::new();
        moments(
            &short,
            &past,
            &Form::default(),
            &Floor::shipped(),
            |_, m| {
                assert!(m.rank.iter().all(|r| usize::from(*r) <= m.rank.len()));
                seen.push((m.lap, m.frame.cars.len()));
                let at = m.frame.cars.iter().position(|n| *n == 4);
                assert!(
                    at.is_none_or(|at| m.retired[at] && usize::from(m.rank[at]) == m.rank.len())
                );
            },
        );
        assert_eq!(seen[0], (0, 8));
        assert_eq!(seen.last(), Some(&(LAPS - 1, 7)));
        assert_eq!(seen.len(), usize::from(LAPS));
    }
}
