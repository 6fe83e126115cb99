//! The timing tower: one row a car in running order, as the page and `/api/v1/state` show it.
//!
//! The only file of this room that knows what race state looks like inside. Cost: one pass over
//! every lap of every car for the sector bests (about 1,200 laps at the end of a race), so that a
//! tower is a pure function of its snapshot and nothing has to be kept in step.

use serde::Serialize;

use crate::live::Snapshot;
use crate::predict::Scores;
use crate::race::{Car, CarStatus, Compound, LapState, Race, SessionType, TrackStatus};
use crate::record::prediction::{LapTimePrediction, PitPrediction};
use crate::record::{Gap, Time};

/// Race control messages that a tower shows, newest last.
pub const MAX_MESSAGES: usize = 20;

/// Two times are the same one if they differ by less than this (s); the feed gives milliseconds.
const SAME_TIME_S: f64 = 0.0005;

/// How a time compares, in the colours of every timing screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rating {
    /// The best of the session.
    Purple,
    /// The car's own best.
    Green,
    Yellow,
}

/// A time with its rating.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatedTime {
    /// Seconds.
    pub s: f64,
    pub rating: Rating,
}

/// The last completed lap of a car.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LastLap {
    pub number: u16,
    #[serde(flatten)]
    pub time: RatedTime,
}

/// The tyres that a car is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tyre {
    pub compound: Compound,
    /// Laps on the set, counting those before it was fitted; `None` where the feed never said.
    pub age: Option<u16>,
    pub stint: u8,
}

/// The next lap of a car, predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NextLap {
    pub lap: u16,
    pub sectors_known: u8,
    /// Seconds.
    pub p10: f64,
    pub p50: f64,
    pub p90: f64,
    /// Age of the oldest input (s).
    pub stale_s: f64,
}

/// Where a car may finish.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Finish {
    pub expected: f64,
    pub p_win: f64,
    pub p_podium: f64,
    pub p_points: f64,
    pub p_retirement: f64,
}

/// When a car may stop.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PitWindow {
    pub p_within_1: f64,
    pub p_within_2: f64,
    pub p_within_3: f64,
    pub p_within_5: f64,
    pub p_stop: f64,
    /// Median of the in-lap, if it stops.
    pub in_lap: Option<f64>,
    pub reason: String,
}

/// One car in the tower.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub position: Option<u8>,
    pub grid: Option<u8>,
    pub driver_number: u8,
    pub acronym: String,
    pub name: String,
    pub team: String,
    /// RRGGBB.
    pub colour: String,
    pub status: CarStatus,
    /// Laps completed.
    pub laps: u16,
    pub gap: Option<Gap>,
    pub interval: Option<Gap>,
    pub last_lap: Option<LastLap>,
    pub best_lap: Option<RatedTime>,
    /// Lap that `sectors` belong to: the one in progress from its first sector on, before that the
    /// last one.
    pub sectors_lap: Option<u16>,
    pub sectors: [Option<RatedTime>; 3],
    pub tyre: Option<Tyre>,
    pub stops: usize,
    /// Not yet served (s).
    pub penalty_s: f64,
    pub speed_kmh: Option<i16>,
    pub next_lap: Option<NextLap>,
    pub finish: Option<Finish>,
    pub pit: Option<PitWindow>,
}

/// Which session it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionHead {
    pub session_key: Option<i32>,
    pub kind: SessionType,
    /// Such as `Race` or `Practice 1`.
    pub name: String,
    /// Such as `Bahrain Grand Prix`.
    pub meeting: String,
    pub circuit: String,
    pub year: Option<i32>,
    /// Part of qualifying: 1, 2 or 3.
    pub part: Option<u8>,
}

/// The weather as last reported.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sky {
    /// °C.
    pub air: Option<f64>,
    /// °C.
    pub track: Option<f64>,
    /// %.
    pub humidity: Option<f64>,
    /// m/s.
    pub wind: Option<f64>,
    /// Degrees, 0 = north.
    pub wind_direction: Option<i16>,
    pub raining: bool,
}

/// A message of race control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Notice<'a> {
    pub date: Time,
    pub lap: Option<u16>,
    pub driver_number: Option<u8>,
    pub flag: Option<&'a str>,
    pub message: &'a str,
}

/// Everything that the page shows of one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tower<'a> {
    /// Journal sequence of the last record that it knows.
    pub seq: u64,
    pub session: SessionHead,
    /// The feed's own time.
    pub clock: Option<Time>,
    pub track_status: TrackStatus,
    /// Lap that the leader is on.
    pub leader_lap: u16,
    pub weather: Option<Sky>,
    pub rows: Vec<Row>,
    /// Newest last, at most [`MAX_MESSAGES`].
    pub race_control: Vec<Notice<'a>>,
    pub scores: &'a Scores,
}

impl<'a> Tower<'a> {
    /// The tower of a snapshot.
    pub fn of(snapshot: &'a Snapshot) -> Tower<'a> {
        let race = &snapshot.race;
        let bests = Bests::of(race.cars().iter().flat_map(|car| car.laps.iter()));
        Tower {
            seq: snapshot.seq,
            session: head(race),
            clock: clock(race),
            track_status: race.track_status(),
            leader_lap: race.leader_lap(),
            weather: sky(race),
            rows: race
                .order()
                .into_iter()
                .map(|car| row(car, &bests, snapshot))
                .collect(),
            race_control: messages(race),
            scores: &snapshot.scores,
        }
    }
}

/// The session's key, where one is known.
pub fn session_key(race: &Race) -> Option<i32> {
    head(race).session_key
}

/// The feed's own time, where one is known.
pub fn clock(race: &Race) -> Option<Time> {
    (race.clock != Time::default()).then_some(race.clock)
}

/// A car by its number.
pub fn car(race: &Race, driver_number: u8) -> Option<&Car> {
    race.car(driver_number)
}

/// Numbers of the cars that are known, in running order.
pub fn numbers(race: &Race) -> Vec<u8> {
    race.order().iter().map(|car| car.driver_number).collect()
}

fn head(race: &Race) -> SessionHead {
    let session = &race.session;
    SessionHead {
        session_key: session.key,
        kind: session.session_type,
        name: session.name.to_string(),
        meeting: session.meeting_name.to_string(),
        circuit: session.circuit_short_name.to_string(),
        year: session.year,
        part: session.part(),
    }
}

fn sky(race: &Race) -> Option<Sky> {
    let weather = race.weather.as_ref()?;
    Some(Sky {
        air: weather.air_temperature,
        track: weather.track_temperature,
        humidity: weather.humidity,
        wind: weather.wind_speed,
        wind_direction: weather.wind_direction,
        raining: weather.raining,
    })
}

fn messages(race: &Race) -> Vec<Notice<'_>> {
    let from = race.control.len().saturating_sub(MAX_MESSAGES);
    let newest = race.control.iter().skip(from);
    newest
        .map(|said| Notice {
            date: said.date,
            lap: said.lap,
            driver_number: said.driver_number,
            flag: said.flag.as_deref(),
            message: &said.message,
        })
        .collect()
}

fn row(car: &Car, session: &Bests, snapshot: &Snapshot) -> Row {
    let own = Bests::of(car.laps.iter());
    let driver = car.driver_number;
    let finish = snapshot
        .order
        .as_ref()
        .and_then(|order| order.cars.iter().find(|c| c.driver_number == driver));
    let shown = shown_sectors(&car.laps);
    Row {
        position: car.position,
        grid: car.grid,
        driver_number: driver,
        acronym: car.acronym.to_string(),
        name: car.name.to_string(),
        team: car.team.to_string(),
        colour: car.colour.to_string(),
        status: car.status,
        laps: car.laps_completed,
        gap: car.gap_to_leader,
        interval: car.interval,
        last_lap: last_lap(&car.laps, &own, session),
        best_lap: car.best_lap_s.and_then(|s| rate(s, Some(s), session.lap)),
        sectors_lap: shown.map(|lap| lap.number),
        sectors: std::array::from_fn(|i| {
            let s = shown?.sectors[i]?;
            rate(s, own.sectors[i], session.sectors[i])
        }),
        tyre: tyre(car),
        stops: car.pits.iter().filter(|visit| !visit.under_red).count(),
        penalty_s: car.penalty_s,
        speed_kmh: car.speed_kmh,
        next_lap: snapshot.laptime.get(&driver).map(next_lap),
        finish: finish.map(|f| Finish {
            expected: f.expected_position,
            p_win: f.p_win,
            p_podium: f.p_podium,
            p_points: f.p_points,
            p_retirement: f.p_retirement,
        }),
        pit: snapshot.pit.get(&driver).map(pit_window),
    }
}

fn next_lap(p: &LapTimePrediction) -> NextLap {
    NextLap {
        lap: p.lap_number,
        sectors_known: p.sectors_known,
        p10: p.lap_time.p10,
        p50: p.lap_time.p50,
        p90: p.lap_time.p90,
        stale_s: p.provenance.stale_s,
    }
}

fn pit_window(p: &PitPrediction) -> PitWindow {
    PitWindow {
        p_within_1: p.p_within_1,
        p_within_2: p.p_within_2,
        p_within_3: p.p_within_3,
        p_within_5: p.p_within_5,
        p_stop: p.p_stop,
        in_lap: p.in_lap.map(|q| q.p50),
        reason: p.reason.clone(),
    }
}

fn last_lap(laps: &[LapState], own: &Bests, session: &Bests) -> Option<LastLap> {
    let lap = laps.iter().rev().find(|lap| lap.duration.is_some())?;
    Some(LastLap {
        number: lap.number,
        time: rate(lap.duration?, own.lap, session.lap)?,
    })
}

/// The lap whose sectors to show: the newest of which at least one is known.
fn shown_sectors(laps: &[LapState]) -> Option<&LapState> {
    laps.iter()
        .rev()
        .find(|lap| lap.sectors.iter().any(Option::is_some))
}

fn tyre(car: &Car) -> Option<Tyre> {
    let stint = car.stints.last()?;
    Some(Tyre {
        compound: stint.compound,
        age: stint.age_after(car.laps_completed),
        stint: stint.number,
    })
}

fn rate(s: f64, own: Option<f64>, session: Option<f64>) -> Option<RatedTime> {
    let is = |best: Option<f64>| best.is_some_and(|best| s <= best + SAME_TIME_S);
    s.is_finite().then(|| RatedTime {
        s,
        rating: match (is(session), is(own)) {
            (true, _) => Rating::Purple,
            (false, true) => Rating::Green,
            (false, false) => Rating::Yellow,
        },
    })
}

/// Best lap and sector times of some laps (s).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bests {
    lap: Option<f64>,
    sectors: [Option<f64>; 3],
}

impl Bests {
    fn of<'a>(laps: impl Iterator<Item = &'a LapState>) -> Bests {
        let mut bests = Bests::default();
        for lap in laps.filter(|lap| !lap.deleted) {
            lower(&mut bests.lap, lap.duration);
            for (best, time) in bests.sectors.iter_mut().zip(lap.sectors) {
                lower(best, time);
            }
        }
        bests
    }
}

fn lower(best: &mut Option<f64>, time: Option<f64>) {
    if let Some(t) = time
        && t.is_finite()
        && best.is_none_or(|b| t < b)
    {
        *best = Some(t);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lap(number: u16, sectors: [Option<f64>; 3], duration: Option<f64>) -> LapState {
        LapState {
            number,
            sectors,
            duration,
            ..LapState::default()
        }
    }

    #[test]
    fn times_are_rated_as_timing_screens_do() {
        let rating = |s, own, session| rate(s, Some(own), Some(session)).unwrap().rating;
        assert_eq!(rating(90.0, 90.0, 90.0), Rating::Purple);
        assert_eq!(rating(90.5, 90.5, 90.0), Rating::Green);
        assert_eq!(rating(91.0, 90.5, 90.0), Rating::Yellow);
        assert_eq!(rate(f64::NAN, None, None), None);
    }

    #[test]
    fn sectors_of_the_lap_in_progress_replace_those_of_the_last_one() {
        let done = lap(7, [Some(30.0), Some(31.0), Some(29.0)], Some(90.0));
        let begun = lap(8, [None; 3], None);
        let running = lap(8, [Some(29.9), None, None], None);
        let laps = [done.clone(), begun];
        assert_eq!(shown_sectors(&laps).unwrap().number, 7);
        let laps = [done, running];
        assert_eq!(shown_sectors(&laps).unwrap().number, 8);
        let own = Bests::of(laps.iter());
        assert_eq!(own.sectors, [Some(29.9), Some(31.0), Some(29.0)]);
        assert_eq!(last_lap(&laps, &own, &own).unwrap().number, 7);
    }
}
