//! The order, and what a summary of a session holds.
//!
//! A race is classified by its order on the road: laps completed, then the time at the line at the
//! end of the last one. Where two cars that finished lie within [`LINE_TOLERANCE_S`] (lap starts are
//! approximate) and neither has a penalty to serve, the feed's own positions decide. Penalties that
//! race control announced stand beside it, unserved ones also as the order that they would give
//! ([`ClassificationRow::corrected_position`]); the feed's last position stands there too
//! ([`ClassificationRow::feed_position`]). The official result, when it comes, is kept beside all
//! this and never instead of it.
//!
//! These are three orders, and a race with time penalties shows it. Zandvoort 2023: on the road car
//! 11 crossed the line 3rd before car 10, and 22, 40, 20, 77 were 13th to 16th. The feed's positions
//! already take in what was announced during the race (11 and 22, 5 s each): 10, 11 and 40, 20, 77,
//! 22. The official result adds 5 s that car 20 was given afterwards: 40, 77, 22, 20.
//!
//! Practice and qualifying are classified by the feed's positions; where a car has none, qualifying
//! by the last part in which it set a time and that time, practice by the best lap.
//!
//! **Invariant:** every car is listed once, positions count from 1 without gaps.

use std::cmp::Ordering;

use serde::{Serialize, Serializer};

use super::{Car, CarStatus, Race, StatusChange};
use crate::record::{Gap, OneOrEach, SessionResult, Time};

/// Line times closer than this (s) do not decide an order by themselves.
pub const LINE_TOLERANCE_S: f64 = 0.1;
/// Sorts cars without a line time last (µs; later than any plausible date, and an exact f64).
const NO_LINE: f64 = 8e15;

/// How a car stands. Written `running`, `finished`, `+1 lap`, `+2 laps`, `retired`, `disqualified`,
/// `not_started`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Running,
    Finished,
    /// Finished that many laps behind the winner.
    Lapped(u16),
    Retired,
    Disqualified,
    NotStarted,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Standing::Running => f.write_str("running"),
            Standing::Finished => f.write_str("finished"),
            Standing::Lapped(1) => f.write_str("+1 lap"),
            Standing::Lapped(n) => write!(f, "+{n} laps"),
            Standing::Retired => f.write_str("retired"),
            Standing::Disqualified => f.write_str("disqualified"),
            Standing::NotStarted => f.write_str("not_started"),
        }
    }
}

impl Serialize for Standing {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A car in the classification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassificationRow {
    /// From 1, without gaps: in a race the order on the road.
    pub position: u8,
    pub driver_number: u8,
    /// Laps completed.
    pub laps: u16,
    pub status: Standing,
    /// Announced time penalties that were not served (s).
    pub penalty_s: f64,
    /// Where those penalties would put it.
    pub corrected_position: u8,
    /// The feed's last position.
    pub feed_position: Option<u8>,
    /// When it crossed the line at the end of its last lap.
    pub line: Option<Time>,
    /// Behind the first at the line (s), on the same lap.
    pub gap_s: Option<f64>,
    /// Best lap (s).
    pub best_lap_s: Option<f64>,
    /// Best lap (s) of each part of qualifying.
    pub parts: [Option<f64>; 3],
    pub official: Option<OfficialResult>,
}

/// The official result of a car.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OfficialResult {
    /// `None` where it was not classified.
    pub position: Option<u8>,
    pub laps: Option<u16>,
    pub points: Option<f64>,
    pub dnf: bool,
    pub dns: bool,
    pub dsq: bool,
    /// Race time, or the best lap of the last part of qualifying (s).
    pub duration_s: Option<f64>,
    pub gap_to_leader: Option<Gap>,
    #[serde(skip)]
    pub version: Option<i64>,
}

fn last<T: Copy>(value: &Option<OneOrEach<T>>) -> Option<T> {
    match value {
        Some(OneOrEach::One(v)) => Some(*v),
        Some(OneOrEach::Each(all)) => all.iter().rev().find_map(|v| *v),
        None => None,
    }
}

impl OfficialResult {
    pub(super) fn of(r: &SessionResult, version: Option<i64>) -> OfficialResult {
        OfficialResult {
            position: r.position,
            laps: r.number_of_laps,
            points: r.points,
            dnf: r.dnf == Some(true),
            dns: r.dns == Some(true),
            dsq: r.dsq == Some(true),
            duration_s: last(&r.duration),
            gap_to_leader: last(&r.gap_to_leader),
            version,
        }
    }
}

/// A stint, as a summary writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StintRow {
    pub driver_number: u8,
    pub stint_number: u8,
    pub compound: super::Compound,
    pub lap_start: u16,
    pub lap_end: u16,
}

/// A visit to the pits, as a summary writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PitRow {
    pub driver_number: u8,
    /// The in-lap.
    pub lap: Option<u16>,
}

impl Race {
    /// Every car, best first: on the road as it stands now.
    pub fn classification(&self) -> Vec<ClassificationRow> {
        let cars = self.classified();
        let most = self.leader_laps_completed();
        let winner = cars.first().and_then(|c| line(c));
        let corrected = self.corrected(&cars);
        let row = |(i, car): (usize, &&Car)| ClassificationRow {
            position: i as u8 + 1,
            driver_number: car.driver_number,
            laps: car.laps_completed,
            status: standing(
                car,
                most,
                self.session.session_type.is_race(),
                self.session.finished,
            ),
            penalty_s: car.penalty_s,
            corrected_position: corrected
                .iter()
                .position(|d| *d == car.driver_number)
                .map_or(i as u8 + 1, |p| p as u8 + 1),
            feed_position: car.position,
            line: line(car),
            gap_s: line(car)
                .zip(winner)
                .filter(|_| car.laps_completed == most)
                .map(|(t, w)| t.seconds_since(w)),
            best_lap_s: car.best_lap_s,
            parts: self.parts(car),
            official: car.official.clone(),
        };
        cars.iter().enumerate().map(row).collect()
    }

    fn classified(&self) -> Vec<&Car> {
        let mut cars: Vec<&Car> = self.cars.iter().collect();
        if !self.session.session_type.is_race() {
            let key = |c: &Car| self.timed_key(c);
            cars.sort_by(|a, b| {
                compare(key(a), key(b)).then(a.driver_number.cmp(&b.driver_number))
            });
            return cars;
        }
        cars.sort_by(|a, b| {
            compare(road_key(a, 0.0), road_key(b, 0.0)).then(a.driver_number.cmp(&b.driver_number))
        });
        // One pass settles a pair; a row of cars that close would need as many as it is long.
        for _ in 0..cars.len() {
            let mut settled = true;
            for i in 1..cars.len() {
                if feed_disagrees(cars[i - 1], cars[i]) {
                    cars.swap(i - 1, i);
                    settled = false;
                }
            }
            if settled {
                break;
            }
        }
        cars
    }

    /// Driver numbers in the order that unserved penalties would give.
    fn corrected(&self, road: &[&Car]) -> Vec<u8> {
        let mut keyed: Vec<((u8, u16, f64), u8)> = Vec::with_capacity(road.len());
        let mut ahead = (0, 0, 0.0);
        for car in road {
            let mut key = road_key(car, car.penalty_s);
            if car.penalty_s == 0.0 {
                // Whom no penalty concerns keeps the order on the road, ties settled as they were.
                if compare(key, ahead) == Ordering::Less {
                    key = ahead;
                }
                ahead = key;
            }
            keyed.push((key, car.driver_number));
        }
        if self.session.session_type.is_race() {
            keyed.sort_by(|a, b| compare(a.0, b.0));
        }
        keyed.into_iter().map(|(_, number)| number).collect()
    }

    fn timed_key(&self, car: &Car) -> (u8, u16, f64) {
        let best = car.best_lap_s.unwrap_or(f64::MAX);
        if let Some(position) = car.position {
            return (0, u16::from(position), best);
        }
        if self.session.session_type.is_qualifying() {
            let parts = self.parts(car);
            if let Some(last) = parts.iter().rposition(Option::is_some) {
                return (1, 3 - last as u16, parts[last].unwrap_or(f64::MAX));
            }
        }
        (2, 0, best)
    }

    /// Every stint, by car and number, as last told.
    pub fn stint_rows(&self) -> Vec<StintRow> {
        let rows = self.cars.iter().flat_map(|c| {
            c.stints.iter().map(|s| StintRow {
                driver_number: c.driver_number,
                stint_number: s.number,
                compound: s.compound,
                lap_start: s.lap_start,
                lap_end: s.lap_end,
            })
        });
        sorted(rows)
    }

    /// Every visit to the pits, by car and lap.
    pub fn pit_rows(&self) -> Vec<PitRow> {
        let rows = self.cars.iter().flat_map(|c| {
            c.pits.iter().map(|p| PitRow {
                driver_number: c.driver_number,
                lap: p.lap,
            })
        });
        sorted(rows)
    }

    /// Every change of track status so far, oldest first.
    pub fn track_status_history(&self) -> &[StatusChange] {
        &self.track.history
    }
}

fn sorted<T: Ord>(rows: impl Iterator<Item = T>) -> Vec<T> {
    let mut rows: Vec<T> = rows.collect();
    rows.sort();
    rows
}

fn line(car: &Car) -> Option<Time> {
    car.last_completed().and_then(|l| l.ended)
}

/// Group, laps left behind, line time with `penalty_s` added.
fn road_key(car: &Car, penalty_s: f64) -> (u8, u16, f64) {
    let group = match car.status {
        CarStatus::Disqualified => 2,
        CarStatus::NotStarted => 1,
        _ => 0,
    };
    let at = match line(car) {
        Some(t) => t.plus_seconds(penalty_s).micros() as f64,
        // No lap yet: as the cars run.
        None => NO_LINE + f64::from(car.position.or(car.grid).unwrap_or(u8::MAX)),
    };
    (group, u16::MAX - car.laps_completed, at)
}

fn compare(a: (u8, u16, f64), b: (u8, u16, f64)) -> Ordering {
    (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2))
}

fn feed_disagrees(ahead: &Car, behind: &Car) -> bool {
    let home = |c: &Car| c.status == CarStatus::Finished && c.penalty_s == 0.0;
    let (Some(a), Some(b)) = (line(ahead), line(behind)) else {
        return false;
    };
    home(ahead)
        && home(behind)
        && ahead.laps_completed == behind.laps_completed
        && b.seconds_since(a) < LINE_TOLERANCE_S
        && matches!((ahead.position, behind.position), (Some(p), Some(q)) if q < p)
}

fn standing(car: &Car, most: u16, race: bool, over: bool) -> Standing {
    match car.status {
        CarStatus::Disqualified => Standing::Disqualified,
        CarStatus::NotStarted => Standing::NotStarted,
        CarStatus::Retired => Standing::Retired,
        CarStatus::Finished => match most.saturating_sub(car.laps_completed) {
            0 => Standing::Finished,
            n => Standing::Lapped(n),
        },
        // Practice and qualifying have no finish of a car's own.
        _ if !race && over => Standing::Finished,
        _ => Standing::Running,
    }
}
