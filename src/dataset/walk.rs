//! A race as it happened: a view after each thing that happened, and what it was.
//!
//! The tables hold finished laps; a walk gives them out one by one in the order in which they ended, with
//! the sectors before them, changes of track status where their times are known, and retirements once a
//! car has been gone for a while. What is predicted from a view has seen nothing that came later.

use super::race::{CarData, RaceData};
use crate::predict::view::{CarView, LapView, View, WeatherView};
use crate::race::{CarStatus, Event, Events, SessionType, TrackStatus};
use crate::record::Time;

/// How long after its last lap a car that does not come round again is known to be out (s).
const GONE_S: f64 = 150.0;

/// What happens to one car, or to the track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Status(usize),
    /// Sector 1 or 2 of the car's lap with that index.
    Sector {
        car: usize,
        lap: usize,
        sector: u8,
    },
    Lap {
        car: usize,
        lap: usize,
    },
    Out {
        car: usize,
        lap: usize,
    },
}

/// Walks through one race.
pub struct Walk<'a> {
    race: &'a RaceData,
    steps: Vec<(Time, Step)>,
    /// All laps as views, by car.
    laps: Vec<Vec<LapView>>,
    timed_status: bool,
}

impl<'a> Walk<'a> {
    /// Puts what happened in order.
    pub fn new(race: &'a RaceData) -> Walk<'a> {
        let laps: Vec<Vec<LapView>> = race.cars.iter().map(lap_views).collect();
        let mut steps = Vec::new();
        // When the first car came round: who has not by then may have stopped on lap 1.
        let first_seen = laps.iter().flatten().filter_map(|l| l.ended).min();
        for (c, (car, views)) in race.cars.iter().zip(&laps).enumerate() {
            for (l, lap) in views.iter().enumerate() {
                for sector in [1u8, 2] {
                    let sum = lap.first_sectors(sector.into());
                    // As in the feed, the sectors of lap 1 come only with the whole lap.
                    if let (Some(start), Some(sum), true) = (lap.started, sum, l > 0) {
                        let at = start.plus_seconds(sum);
                        steps.push((
                            at,
                            Step::Sector {
                                car: c,
                                lap: l,
                                sector,
                            },
                        ));
                    }
                }
                let Some(end) = lap.ended else { continue };
                steps.push((end, Step::Lap { car: c, lap: l }));
            }
            // The lap on which a car stops often has no end: what counts is when it was last seen.
            let seen = views.iter().rev().find_map(|l| l.ended).or(first_seen);
            if let (Some(seen), false) = (seen, race.finished(car)) {
                let lap = views.len().saturating_sub(1);
                steps.push((seen.plus_seconds(GONE_S), Step::Out { car: c, lap }));
            }
        }
        for (at, change) in race.status.iter().enumerate() {
            let when = if race.session_clock {
                change.session_s.map(on_clock)
            } else {
                Some(change.at)
            };
            steps.extend(when.map(|t| (t, Step::Status(at))));
        }
        steps.sort_unstable();
        Walk {
            race,
            steps,
            laps,
            timed_status: race
                .status
                .iter()
                .any(|s| s.session_s.is_some() || !race.session_clock),
        }
    }

    /// Calls `each` with the view after every step, a sequence number that grows, and the events: first
    /// `SessionStarted` with the cars on the grid, at last `SessionFinished` with the official result.
    pub fn each(&self, mut each: impl FnMut(&View, u64, &Events)) {
        let mut view = self.grid();
        let mut seq = 0;
        let mut say = |view: &View, event: Event| {
            let mut events = Events::new();
            // One event: there is room.
            let _ = events.push(event);
            each(view, seq, &events);
            seq += 1;
        };
        say(&view, Event::SessionStarted);
        for (at, step) in &self.steps {
            view.clock = *at;
            match *step {
                Step::Status(change) => {
                    let status = self.race.status[change].status;
                    if view.status != status {
                        view.status = status;
                        say(&view, Event::TrackStatusChanged { status });
                    }
                }
                Step::Sector { car, lap, sector } => {
                    let row = self.laps[car][lap];
                    let known = view.cars[car].laps_completed() + 1 == row.number;
                    if !known {
                        continue;
                    }
                    view.cars[car].current = Some(in_progress(&row, sector, view.status));
                    let driver_number = view.cars[car].number;
                    say(
                        &view,
                        Event::SectorCompleted {
                            driver_number,
                            lap: row.number,
                            sector,
                        },
                    );
                }
                Step::Lap { car, lap } => {
                    let row = self.laps[car][lap];
                    // Where no times of changes are known: what the lap that has ended has seen.
                    if !self.timed_status {
                        view.status = self.race.cars[car].laps[lap].status_at_end;
                    }
                    self.weather(&mut view, car, lap);
                    view.cars[car].laps.push(row);
                    view.cars[car].position = self.race.cars[car].laps[lap].position;
                    view.cars[car].current = None;
                    let driver_number = view.cars[car].number;
                    say(
                        &view,
                        Event::LapCompleted {
                            driver_number,
                            lap: row.number,
                        },
                    );
                }
                Step::Out { car, .. } => {
                    view.cars[car].status = CarStatus::Retired;
                    let driver_number = view.cars[car].number;
                    say(&view, Event::Retired { driver_number });
                }
            }
        }
        view.finished = true;
        for (car, data) in view.cars.iter_mut().zip(&self.race.cars) {
            car.official = data
                .result
                .as_ref()
                .filter(|r| r.finished())
                .and_then(|r| r.position);
            if self.race.finished(data) {
                car.status = CarStatus::Finished;
            }
        }
        say(&view, Event::SessionFinished);
    }

    /// The race before lap 1.
    pub fn grid(&self) -> View {
        let starts = self.laps.iter().filter_map(|l| l.first()?.started);
        let started = starts.min();
        View {
            session_key: self
                .race
                .session_key
                .unwrap_or_else(|| i32::from(self.race.season) * 100 + i32::from(self.race.round)),
            session_type: SessionType::Race,
            circuit: self.race.circuit.clone(),
            clock: self
                .steps
                .first()
                .map(|s| s.0)
                .or(started)
                .unwrap_or_default(),
            cars: self.race.cars.iter().map(on_grid).collect(),
            ..View::default()
        }
    }

    fn weather(&self, view: &mut View, car: usize, lap: usize) {
        let row = &self.race.cars[car].laps[lap];
        let old = view.weather;
        view.weather = WeatherView {
            air_c: row.air_c.or(old.air_c),
            track_c: row.track_c.or(old.track_c),
            humidity: row.humidity.or(old.humidity),
            wind_ms: row.wind_ms.or(old.wind_ms),
        };
        view.raining = row.rain.unwrap_or(view.raining);
    }
}

fn on_clock(seconds: f64) -> Time {
    Time::from_micros((seconds * 1e6).round() as i64)
}

fn on_grid(car: &CarData) -> CarView {
    CarView {
        number: car.number,
        driver: car.driver.chars().take(3).collect(),
        team: crate::predict::view::team_name(&car.team),
        grid: car.grid,
        qualifying_s: car.qualifying_s,
        ..CarView::default()
    }
}

fn lap_views(car: &CarData) -> Vec<LapView> {
    let (mut stint, mut before) = (0u8, None::<&super::LapRow>);
    let mut views = Vec::with_capacity(car.laps.len());
    for row in &car.laps {
        let younger = before
            .and_then(|b| b.tyre_age)
            .zip(row.tyre_age)
            .is_some_and(|(a, b)| b <= a);
        let renamed = before
            .and_then(|b| b.stint)
            .zip(row.stint)
            .is_some_and(|(a, b)| a != b);
        if before.is_some() && (row.is_out || younger || renamed) {
            stint = stint.saturating_add(1);
        }
        before = Some(row);
        let ended = row.end_s.map(on_clock);
        views.push(LapView {
            number: row.lap,
            started: ended.zip(row.time_s).map(|(t, d)| t.plus_seconds(-d)),
            ended,
            time_s: row.time_s,
            sectors: row.sectors,
            is_in: row.is_in,
            is_out: row.is_out,
            statuses: row.statuses,
            compound: row.compound,
            age: row.tyre_age,
            stint,
        });
    }
    views
}

/// The lap with its first sectors, as it looks while it is driven.
fn in_progress(lap: &LapView, sectors: u8, status: TrackStatus) -> LapView {
    let mut current = LapView {
        ended: None,
        time_s: None,
        is_in: false,
        statuses: status.bit(),
        ..*lap
    };
    current.sectors[usize::from(sectors)..].fill(None);
    current
}
