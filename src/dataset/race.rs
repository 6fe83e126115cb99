//! A race put together from the tables.

use std::collections::BTreeMap;

use super::lap::LapRow;
use super::strategy::{MessageRow, PitRow, StatusRow, StintRow, Strategy};
use super::table::{Fault, Faults};
use super::weekend::{CalendarRow, Key, ResultRow, Weekends};

/// One race of a season. Times in seconds are on the race's one clock: the session's where the laps have it,
/// else since 1970.
#[derive(Clone, Debug, Default)]
pub struct RaceData {
    pub season: u16,
    pub round: u16,
    /// Such as `Bahrain Grand Prix`.
    pub event: String,
    /// OpenF1's `circuit_short_name`, where it is known; else f1db's id; else empty.
    pub circuit: String,
    pub session_key: Option<i32>,
    pub calendar: CalendarRow,
    /// By driver number, ascending.
    pub cars: Vec<CarData>,
    /// (index of the car, index of its lap), in the order in which the laps ended; laps whose end is not
    /// known are left out.
    pub order: Vec<(usize, usize)>,
    pub pits: Vec<PitRow>,
    pub stints: Vec<StintRow>,
    /// Changes of track status; empty where they are not known (before 2023) or there were none.
    pub status: Vec<StatusRow>,
    pub messages: Vec<MessageRow>,
    /// Whether the clock is the session's (else seconds since 1970).
    pub session_clock: bool,
}

/// One car of a race.
#[derive(Clone, Debug, Default)]
pub struct CarData {
    pub number: u8,
    /// Three letters.
    pub driver: String,
    pub team: String,
    /// Place on the grid; `None` from the pit lane.
    pub grid: Option<u8>,
    /// Best qualifying time (s).
    pub qualifying_s: Option<f64>,
    pub result: Option<ResultRow>,
    /// By lap number, ascending, each number once.
    pub laps: Vec<LapRow>,
}

impl RaceData {
    /// Laps of the car that went furthest.
    pub fn laps(&self) -> u16 {
        let last = self.cars.iter().filter_map(|c| Some(c.laps.last()?.lap));
        last.max().unwrap_or(0)
    }

    /// The car of that number.
    pub fn car(&self, number: u8) -> Option<&CarData> {
        let at = self.cars.binary_search_by_key(&number, |c| c.number).ok()?;
        self.cars.get(at)
    }

    /// `2024 R3 Australian Grand Prix`.
    pub fn title(&self) -> String {
        format!("{} R{} {}", self.season, self.round, self.event)
    }

    /// When the car that finished the last lap first did so (s).
    pub fn flag_s(&self) -> Option<f64> {
        let laps = self.laps();
        let ends = self.cars.iter().filter_map(|c| {
            let last = c.laps.last().filter(|l| l.lap == laps)?;
            last.end_s
        });
        ends.min_by(f64::total_cmp)
    }

    /// Whether that car was still racing when the flag fell: by the official result, or, where there is
    /// none, by having crossed the line after the winner.
    pub fn finished(&self, car: &CarData) -> bool {
        match &car.result {
            Some(result) => result.finished(),
            None => {
                let end = car.laps.last().and_then(|l| l.end_s);
                end.zip(self.flag_s())
                    .is_some_and(|(own, flag)| own >= flag)
            }
        }
    }
}

impl CarData {
    /// The lap of that number.
    pub fn lap(&self, number: u16) -> Option<&LapRow> {
        let at = self.laps.binary_search_by_key(&number, |l| l.lap).ok()?;
        self.laps.get(at)
    }

    /// Index of the clean lap before lap `at` in the same stint, where `at` is clean itself: the pair on which
    /// lap times are judged.
    pub fn clean_before(&self, at: usize) -> Option<usize> {
        let lap = self.laps.get(at).filter(|l| l.is_clean())?;
        let before = self.laps[..at].iter().rposition(LapRow::is_clean)?;
        (self.laps[before].stint == lap.stint).then_some(before)
    }
}

pub(super) fn assemble(
    key: Key,
    rows: Vec<LapRow>,
    weekends: &Weekends,
    strategy: &Strategy,
    faults: &mut Faults,
) -> RaceData {
    let calendar = weekends.calendar.get(&key).cloned().unwrap_or_default();
    let event = rows.first().map(|r| r.event.clone()).unwrap_or_default();
    let session_key = rows.iter().find_map(|r| r.session_key);
    let session_clock = rows
        .iter()
        .any(|r| r.end_s.is_some_and(|t| t < DAYS_SINCE_1970_S));
    let mut cars: BTreeMap<u8, CarData> = BTreeMap::new();
    for row in rows {
        let car = cars.entry(row.number).or_default();
        car.number = row.number;
        if !row.driver.is_empty() {
            car.driver.clone_from(&row.driver);
        }
        if !row.team.is_empty() {
            car.team.clone_from(&row.team);
        }
        car.laps.push(row);
    }
    let mut race = RaceData {
        season: key.0,
        round: key.1,
        circuit: circuit_name(&calendar.circuit, &event, key.0),
        event,
        session_key,
        calendar,
        cars: cars.into_values().collect(),
        order: Vec::new(),
        pits: strategy.pits.get(&key).cloned().unwrap_or_default(),
        stints: strategy.stints.get(&key).cloned().unwrap_or_default(),
        status: strategy.status.get(&key).cloned().unwrap_or_default(),
        messages: strategy.messages.get(&key).cloned().unwrap_or_default(),
        session_clock,
    };
    let shift = clock_shift(&race);
    let title = race.title();
    for car in &mut race.cars {
        car.grid = weekends
            .grid
            .get(&key)
            .and_then(|g| g.get(&car.number).copied());
        car.qualifying_s = weekends
            .qualifying
            .get(&key)
            .and_then(|q| q.get(&car.number).copied());
        car.result = weekends
            .results
            .get(&key)
            .and_then(|r| r.get(&car.number).cloned());
        tidy(car, shift, session_clock, &title, faults);
    }
    race.order = order(&race.cars);
    race
}

/// Seconds since 1970 are larger than this, seconds of a session smaller.
const DAYS_SINCE_1970_S: f64 = 1e8;

/// What to add to a date to have it on the session's clock (s), from the laps that have both.
fn clock_shift(race: &RaceData) -> Option<f64> {
    let laps = race.cars.iter().flat_map(|c| &c.laps);
    let mut shifts: Vec<f64> = laps
        .filter_map(|l| {
            let end = l.end_s.filter(|t| *t < DAYS_SINCE_1970_S)?;
            Some(end - (l.started?.micros() as f64 / 1e6 + l.time_s?))
        })
        .collect();
    shifts.sort_unstable_by(f64::total_cmp);
    shifts.get(shifts.len() / 2).copied()
}

/// Laps in order, each number once, on one clock, ends filled in from their neighbours.
fn tidy(
    car: &mut CarData,
    shift: Option<f64>,
    session_clock: bool,
    title: &str,
    faults: &mut Faults,
) {
    car.laps.sort_by_key(|l| l.lap);
    let before = car.laps.len();
    car.laps.dedup_by_key(|l| l.lap);
    for _ in car.laps.len()..before {
        faults.rows_skipped += 1;
        faults.add(Fault {
            file: title.to_owned(),
            line: 0,
            column: "lap_number".to_owned(),
            value: car.number.to_string(),
            why: "this car has a lap of that number already".to_owned(),
        });
    }
    let mut previous: Option<f64> = None;
    for at in 0..car.laps.len() {
        let next_start = car.laps.get(at + 1).and_then(|n| {
            let end = n.end_s?;
            (n.lap == car.laps[at].lap + 1).then_some(end - n.time_s?)
        });
        let lap = &mut car.laps[at];
        if session_clock && lap.end_s.is_some_and(|t| t >= DAYS_SINCE_1970_S) {
            lap.end_s = lap.end_s.zip(shift).map(|(t, s)| t + s);
        }
        if lap.end_s.is_none() {
            let summed = previous.zip(lap.time_s).map(|(p, t)| p + t);
            lap.end_s = summed.or(next_start.filter(|t| session_clock == (*t < DAYS_SINCE_1970_S)));
        }
        previous = lap.end_s;
    }
}

fn order(cars: &[CarData]) -> Vec<(usize, usize)> {
    let mut ends: Vec<(f64, usize, usize)> = Vec::new();
    for (c, car) in cars.iter().enumerate() {
        let known = car.laps.iter().enumerate();
        ends.extend(known.filter_map(|(l, lap)| Some((lap.end_s?, c, l))));
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    ends.into_iter().map(|(_, c, l)| (c, l)).collect()
}

/// f1db's id, a word of the event's name, OpenF1's short name: races since 2018 and what is announced.
const CIRCUITS: [(&str, &str, &str); 32] = [
    ("austin", "United States", "Austin"),
    ("bahrain", "Bahrain", "Sakhir"),
    ("baku", "Azerbaijan", "Baku"),
    ("catalunya", "Barcelona", "Catalunya"),
    ("hockenheimring", "German Grand Prix", "Hockenheim"),
    ("hungaroring", "Hungarian", "Hungaroring"),
    ("imola", "Emilia", "Imola"),
    ("interlagos", "Paulo", "Interlagos"),
    ("istanbul", "Turkish", "Istanbul"),
    ("jeddah", "Saudi", "Jeddah"),
    ("las-vegas", "Las Vegas", "Las Vegas"),
    ("lusail", "Qatar", "Lusail"),
    ("marina-bay", "Singapore", "Singapore"),
    ("melbourne", "Australian", "Melbourne"),
    ("mexico-city", "Mexico", "Mexico City"),
    ("miami", "Miami", "Miami"),
    ("monaco", "Monaco", "Monte Carlo"),
    ("montreal", "Canadian", "Montreal"),
    ("monza", "Italian", "Monza"),
    ("mugello", "Tuscan", "Mugello"),
    ("nurburgring", "Eifel", "Nurburgring"),
    ("paul-ricard", "French", "Paul Ricard"),
    ("portimao", "Portuguese", "Algarve"),
    ("shanghai", "Chinese", "Shanghai"),
    ("silverstone", "British", "Silverstone"),
    ("sochi", "Russian", "Sochi"),
    ("spa-francorchamps", "Belgian", "Spa-Francorchamps"),
    ("spielberg", "Austrian", "Spielberg"),
    ("suzuka", "Japanese", "Suzuka"),
    ("yas-marina", "Abu Dhabi", "Yas Marina Circuit"),
    ("zandvoort", "Dutch", "Zandvoort"),
    ("madring", "Spanish", "Madring"),
];

/// The Spanish Grand Prix moves to Madrid in this season.
const IN_MADRID: u16 = 2026;

/// By the calendar; where that does not reach, by the event's name.
pub(super) fn circuit_name(id: &str, event: &str, season: u16) -> String {
    let by_id = CIRCUITS.iter().find(|c| c.0 == id);
    let by_event = || {
        let event = if season < IN_MADRID && event.contains("Spanish") {
            "Barcelona"
        } else {
            event
        };
        let named = |c: &&(&str, &str, &str)| event.contains(c.1);
        CIRCUITS.iter().find(named).filter(|_| id.is_empty())
    };
    match by_id.or_else(by_event) {
        Some((_, _, name)) => (*name).to_owned(),
        None => id.to_owned(),
    }
}
