//! The order, and what a summary of a session holds.
//!
//! A race is classified by its order on the road: laps completed, then the time at the line at the
//! end of the last one. Where two cars that finished lie within [`LINE_TOLERANCE_S`] (lap starts are
//! approximate) and neither has a penalty to serve, the feed's own positions decide. Penalties that
//! race control announced stand beside it, unserved ones also as the order that they would give
//! ([`ClassificationRow::corrected_position`]); the feed's last position stands there too
//! ([`ClassificationRow::feed_position`]). The official result, when it comes, decides laps and status
//! ([`super::finish`]), and with the status who is not classified; the order of the others stays that
//! on the road.
//!
//! A car whose last line time the feed lost is put among those of as many laps by the best there is:
//! when its last lap was told to be over, its official gap, a guess from the start of the lap and the
//! lap before. No such guess puts it ahead of or behind a car that has no penalty against what the
//! official positions say, or the feed's where there are none. Its line time and gap stay unknown.
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

use super::{Car, CarStatus, Events, Race, StatusChange};
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
    /// How its race ended, where the row tells.
    #[serde(skip)]
    pub ending: Option<CarStatus>,
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

/// How the row says that the race ended. A car that started and did not stop and yet has no position
/// was disqualified after the race, though the row's own flag may not say so (Austin 2023, Spa 2024).
fn ending(r: &SessionResult) -> Option<CarStatus> {
    match (r.dsq, r.dns, r.dnf) {
        (Some(true), _, _) => Some(CarStatus::Disqualified),
        (_, Some(true), _) => Some(CarStatus::NotStarted),
        (_, _, Some(true)) => Some(CarStatus::Retired),
        (None, None, None) => None,
        _ if r.position.is_some() => Some(CarStatus::Finished),
        (Some(false), Some(false), Some(false)) => Some(CarStatus::Disqualified),
        _ => None,
    }
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
            ending: ending(r),
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
    /// Every car, best first: on the road as it stands now. A race that has fallen silent is listed as
    /// if it had ended.
    pub fn classification(&self) -> Vec<ClassificationRow> {
        if !self.has_fallen_silent() {
            return self.rows();
        }
        let mut ended = self.clone();
        ended.close_race(&mut Events::new());
        ended.rows()
    }

    fn rows(&self) -> Vec<ClassificationRow> {
        let cars = self.classified();
        let most = self.leader_laps_completed();
        let winner = cars.first().and_then(|p| p.car.line());
        let corrected = self.corrected(&cars);
        let row = |(i, &Placed { car, .. }): (usize, &Placed)| ClassificationRow {
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
            line: car.line(),
            gap_s: car
                .line()
                .zip(winner)
                .filter(|_| car.laps_completed == most)
                .map(|(t, w)| t.seconds_since(w)),
            best_lap_s: car.best_lap_s,
            parts: self.parts(car),
            official: car.official.clone(),
        };
        cars.iter().enumerate().map(row).collect()
    }

    fn classified(&self) -> Vec<Placed<'_>> {
        let placed = |car, at| Placed { car, at };
        if !self.session.session_type.is_race() {
            let mut cars: Vec<&Car> = self.cars.iter().collect();
            let key = |c: &Car| self.timed_key(c);
            cars.sort_by(|a, b| {
                compare(key(a), key(b)).then(a.driver_number.cmp(&b.driver_number))
            });
            return cars.into_iter().map(|c| placed(c, c.line())).collect();
        }
        let timed = |c: &Car| c.line().is_some() || c.laps_completed == 0;
        let (timed, lost): (Vec<&Car>, Vec<&Car>) = self.cars.iter().partition(|c| timed(c));
        let timed = timed.into_iter().map(|c| placed(c, c.line()));
        let mut cars = by_line_times(timed.collect());
        let start = self.official_start();
        let lost = lost.into_iter().map(|c| placed(c, near_line(c, start)));
        for car in by_line_times(lost.collect()) {
            put_among(&mut cars, car);
        }
        cars
    }

    /// What the official gaps count from: the line time less the gap, of the car in the middle of all,
    /// as some may have got or been spared seconds that nobody announced.
    fn official_start(&self) -> Time {
        let start = |c: &Car| Some(c.line()?.plus_seconds(-official_gap_s(c)?));
        let mut starts: Vec<Time> = self.cars.iter().filter_map(start).collect();
        starts.sort();
        starts.get(starts.len() / 2).copied().unwrap_or_default()
    }

    /// Driver numbers in the order that unserved penalties would give.
    fn corrected(&self, road: &[Placed]) -> Vec<u8> {
        let mut keyed: Vec<((u8, u16, f64), u8)> = Vec::with_capacity(road.len());
        let mut ahead = (0, 0, 0.0);
        for placed in road {
            let car = placed.car;
            let mut key = road_key(placed, car.penalty_s);
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

    /// Every stint, by car and number, as last told. Its last versions may be lost: it ends no sooner
    /// than the next one begins, and the last one not before the car has.
    pub fn stint_rows(&self) -> Vec<StintRow> {
        let rows = self.cars.iter().flat_map(|c| {
            let until = |i: usize| match c.stints.get(i + 1) {
                Some(next) if next.number == c.stints[i].number + 1 => next.lap_start.max(1) - 1,
                Some(_) => 0,
                None if c.status.runs() => 0,
                None => c.laps_completed,
            };
            c.stints.iter().enumerate().map(move |(i, s)| StintRow {
                driver_number: c.driver_number,
                stint_number: s.number,
                compound: s.compound,
                lap_start: s.lap_start,
                lap_end: s.lap_end.max(until(i)),
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

/// A car in its place.
#[derive(Clone, Copy)]
struct Placed<'a> {
    car: &'a Car,
    /// When it ended its last lap, as near as can be told.
    at: Option<Time>,
}

/// Seconds that the official result puts the car behind the winner, unserved penalties left out.
fn official_gap_s(car: &Car) -> Option<f64> {
    let official = car.official.as_ref()?;
    let gap = match official.position {
        Some(1) => 0.0,
        _ => official.gap_to_leader?.seconds()?,
    };
    (car.status == CarStatus::Finished).then_some(gap - car.penalty_s)
}

/// When a car without a line time ended its last lap, as near as can be told; official gaps count
/// from `start`.
fn near_line(car: &Car, start: Time) -> Option<Time> {
    let told = car
        .last_completed()
        .is_some_and(super::LapState::is_complete);
    let heard = car.crossed();
    let gap = || official_gap_s(car).map(|s| start.plus_seconds(s));
    heard
        .filter(|_| told)
        .or_else(gap)
        .or(heard)
        .or_else(|| car.guessed_end(car.laps_completed))
}

fn by_line_times(mut cars: Vec<Placed>) -> Vec<Placed> {
    cars.sort_by(|a, b| {
        compare(road_key(a, 0.0), road_key(b, 0.0))
            .then(a.car.driver_number.cmp(&b.car.driver_number))
    });
    // One pass settles a pair; a row of cars that close would need as many as it is long.
    for _ in 0..cars.len() {
        let mut settled = true;
        for i in 1..cars.len() {
            if feed_disagrees(cars[i - 1].car, cars[i].car) {
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

/// Puts a car without a line time among those of as many laps.
fn put_among<'a>(cars: &mut Vec<Placed<'a>>, mut new: Placed<'a>) {
    let rank = |p: &Placed| (group(p.car), u16::MAX - p.car.laps_completed);
    let first = cars.partition_point(|p| rank(p) < rank(&new));
    let end = cars.partition_point(|p| rank(p) <= rank(&new));
    let peers = &cars[first..end];
    let later = |p: &Placed| matches!((p.at, new.at), (Some(a), Some(b)) if a > b);
    let by_time = peers.iter().position(later).unwrap_or(peers.len());
    let clean = |c: &Car| c.status == CarStatus::Finished && c.penalty_s == 0.0;
    // Of a penalised car of which no time is known a place after the penalty says more than none.
    let lost = new.at.is_none() && new.car.status == CarStatus::Finished;
    let ranked = |p: &Placed| (lost || clean(new.car)) && clean(p.car);
    let is_ahead = |p: &Placed| ranked(p) && outranks(p.car, new.car);
    let is_behind = |p: &Placed| ranked(p) && outranks(new.car, p.car);
    let ahead = peers.iter().rposition(is_ahead);
    let behind = peers.iter().position(is_behind);
    let (from, to) = (ahead.map_or(0, |i| i + 1), behind.unwrap_or(peers.len()));
    let i = match from <= to {
        true => by_time.clamp(from, to),
        false => by_time,
    };
    // Its time is to agree with its place.
    let before = i.checked_sub(1).and_then(|i| peers[i].at);
    let after = peers.get(i).and_then(|p| p.at);
    let at = new.at.or(before).or(after).max(before);
    new.at = after.map_or(at, |t| at.min(Some(t)));
    cars.insert(first + i, new);
}

/// Whether the official positions put `a` ahead of `b`, or the feed's where there are none.
fn outranks(a: &Car, b: &Car) -> bool {
    let official = |c: &Car| c.official.as_ref().and_then(|o| o.position);
    let by_result = official(a).zip(official(b));
    let by_feed = || a.position.zip(b.position);
    by_result.or_else(by_feed).is_some_and(|(p, q)| p < q)
}

const fn group(car: &Car) -> u8 {
    match car.status {
        CarStatus::Disqualified => 2,
        CarStatus::NotStarted => 1,
        _ => 0,
    }
}

/// Group, laps left behind, line time with `penalty_s` added.
fn road_key(placed: &Placed, penalty_s: f64) -> (u8, u16, f64) {
    let car = placed.car;
    let at = match placed.at {
        Some(t) => t.plus_seconds(penalty_s).micros() as f64,
        // No lap yet: as the cars run.
        None => NO_LINE + f64::from(car.position.or(car.grid).unwrap_or(u8::MAX)),
    };
    (group(car), u16::MAX - car.laps_completed, at)
}

fn compare(a: (u8, u16, f64), b: (u8, u16, f64)) -> Ordering {
    (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2))
}

fn feed_disagrees(ahead: &Car, behind: &Car) -> bool {
    let home = |c: &Car| c.status == CarStatus::Finished && c.penalty_s == 0.0;
    let (Some(a), Some(b)) = (ahead.line(), behind.line()) else {
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
