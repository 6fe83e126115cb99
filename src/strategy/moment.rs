//! A moment of a race in plain facts, and the start of a simulation that follows from it.
//!
//! Recordings, the live state and tables of past seasons all become a [`Moment`]; from there on they share one way:
//! the pace filter over each car's laps, gaps at the leader's last line, tyres as they are.
//!
//! **Invariant:** [`Start::at`] uses no lap that a moment does not hold.

use super::model::{ALL_COMPOUNDS, Entrant, LapsFrom, Start, length, median, prior, reference};
use super::pace::{Known, LapRow, PaceFilter};
use super::parameters::{Circuit, Parameters};
use super::rules::Rules;
use crate::compute::race_monte_carlo::{Plan, Status, class};

/// What the estimate of a car's pace cannot know of the rest of its race (share of a lap).
const REST_OF_RACE: f64 = 0.0015;
/// Spread with which a car's own laps are taken before the field's level is known (share of a lap).
const WIDE: f64 = 0.03;
/// Clean laps before a car counts for the field's level.
const ENOUGH_LAPS: u16 = 3;
/// Share of a stint's extra wear that is put down to the car rather than to the set.
const WEAR_OF_CAR: f64 = 0.5;
/// A lap that took more of the car's own pace than this was no lap of racing, nor behind a safety car.
const MOST_SLOWER: f64 = 1.8;
/// Gap to the car ahead where no line-crossing is known (s).
const BLIND_GAP_S: f64 = 2.5;

/// A race as it stands when the leader crosses the line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// As OpenF1's `circuit_short_name` writes it.
    pub circuit: String,
    /// Laps of the race and how they are known; else as many as were last driven here.
    pub laps: Option<(u16, LapsFrom)>,
    /// Laps that the leader has completed.
    pub lap: u16,
    pub sprint: bool,
    /// What this race asks for beyond two compounds.
    pub rules: Rules,
    pub status: Status,
    /// Laps for which it has held.
    pub status_laps: u16,
    pub raining: bool,
    /// Track temperature (°C).
    pub track_c: Option<f64>,
    pub cars: Vec<CarHistory>,
}

/// A car's race so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CarHistory {
    pub number: u8,
    /// As OpenF1's `team_name` writes it; empty where it is not known.
    pub team: String,
    pub grid: Option<u8>,
    /// Best qualifying time (s).
    pub qualifying_s: Option<f64>,
    pub position: Option<u8>,
    pub running: bool,
    /// In the pit lane, or its last lap was an in-lap: the way out is still to be paid.
    pub in_pit: bool,
    /// Compound that it is on (index), where it is known; after a stop, the one that it took.
    pub compound: Option<u8>,
    /// Age of those tyres (laps).
    pub age: Option<u16>,
    /// Changes of tyres up to the set that it is on, where they are told; else its laps tell.
    pub changes: Option<u16>,
    /// Completed laps by number.
    pub laps: Vec<DrivenLap>,
}

/// A completed lap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DrivenLap {
    pub number: u16,
    pub time_s: Option<f64>,
    /// When it ended (s, any clock that the cars share).
    pub ended_s: Option<f64>,
    /// Index of the compound.
    pub compound: Option<u8>,
    /// Age of the tyres at its end (laps).
    pub age: Option<u16>,
    /// Timed, green, neither in- nor out-lap, not the first.
    pub clean: bool,
}

impl Start {
    /// The race as it goes on from a moment.
    pub fn at(p: &Parameters, moment: &Moment) -> Start {
        let circuit = p.circuit(&moment.circuit);
        let told = moment.laps;
        let (laps, laps_from) = told.unwrap_or_else(|| length(&circuit, moment.lap));
        let mut times: Vec<f64> = moment.cars.iter().filter_map(|c| c.qualifying_s).collect();
        let middle = median(&mut times);
        let rows = rows(moment);
        let (reference_s, filters) = paces(p, &circuit, moment, laps, middle, &rows);
        let known = Known {
            parameters: p,
            circuit: &circuit,
            reference_s,
            laps,
            track_c: moment.track_c,
        };
        let cars = moment
            .cars
            .iter()
            .zip(&filters)
            .enumerate()
            .map(|(i, (car, filter))| entrant(&known, moment, i, car, filter))
            .collect();
        let mut start = Start {
            circuit: moment.circuit.clone(),
            laps,
            laps_from,
            lap: moment.lap,
            sprint: moment.sprint,
            rules: moment.rules,
            status: moment.status,
            status_laps: moment.status_laps,
            level: 0,
            track_c: moment.track_c,
            reference_s,
            cars,
        };
        start.level = level(&start.cars, moment.raining);
        start
    }
}

/// What the tyres of the field, and the rain, say about the track: dry 0, damp 1, wet 2.
fn level(cars: &[Entrant], raining: bool) -> u8 {
    let mut on = [0_usize; 3];
    for car in cars.iter().filter(|c| c.running) {
        on[class(i32::from(car.compound)) as usize] += 1;
    }
    if on[2] > on[0] + on[1] {
        2
    } else if on[1] + on[2] > on[0] || (raining && on[1] + on[2] > 0) {
        1
    } else {
        0
    }
}

/// Each car's laps as the pace filter wants them.
fn rows(moment: &Moment) -> Vec<Vec<LapRow>> {
    // When cars crossed the line at the end of each lap, ascending.
    let mut lines: Vec<Vec<f64>> = vec![Vec::new(); usize::from(moment.lap) + 1];
    for lap in moment.cars.iter().flat_map(|c| &c.laps) {
        if let (Some(line), Some(t)) = (lines.get_mut(usize::from(lap.number)), lap.ended_s) {
            line.push(t);
        }
    }
    for line in &mut lines {
        line.sort_unstable_by(f64::total_cmp);
    }
    moment.cars.iter().map(|car| rows_of(car, &lines)).collect()
}

/// Whether a lap was driven on another set than the one before it.
fn is_changed(before: &DrivenLap, lap: &DrivenLap) -> bool {
    let younger = matches!((before.age, lap.age), (Some(a), Some(b)) if b <= a);
    younger || (before.compound != lap.compound && lap.compound.is_some())
}

/// Changes of tyres that a car's laps show, the one that it is in the pits for included.
fn changes(car: &CarHistory) -> u16 {
    let shown = car.laps.windows(2).filter(|l| is_changed(&l[0], &l[1]));
    shown.count() as u16 + u16::from(car.in_pit)
}

fn rows_of(car: &CarHistory, lines: &[Vec<f64>]) -> Vec<LapRow> {
    let mut rows = Vec::with_capacity(car.laps.len());
    let (mut stint, mut before) = (0_u8, DrivenLap::default());
    for lap in &car.laps {
        if is_changed(&before, lap) {
            stint = stint.saturating_add(1);
        }
        let began = (before.number + 1 == lap.number).then_some(before.ended_s);
        let gap_s = began.flatten().and_then(|t| {
            let line = lines.get(usize::from(before.number))?;
            let ahead = line.partition_point(|x| *x < t).checked_sub(1)?;
            Some(t - line[ahead])
        });
        rows.push(LapRow {
            number: lap.number,
            time_s: lap.time_s.unwrap_or(0.0),
            compound: lap.compound.unwrap_or(1),
            age: lap.age.unwrap_or(10).saturating_sub(1),
            stint,
            gap_s,
            clean: lap.clean && lap.time_s.is_some() && lap.compound.is_some(),
        });
        before = *lap;
    }
    rows
}

/// The reference lap as the day has it (s), and every car's filter.
///
/// Qualifying says how cars lie to each other, hardly how quick the race is: so a first pass takes each car's laps for
/// themselves, their median over the prior is the level of the day, and a second pass starts from there.
fn paces(
    p: &Parameters,
    circuit: &Circuit,
    moment: &Moment,
    laps: u16,
    middle: Option<f64>,
    rows: &[Vec<LapRow>],
) -> (f64, Vec<PaceFilter>) {
    let guess = reference(p, circuit, middle);
    let priors: Vec<(f64, f64)> = moment
        .cars
        .iter()
        .map(|c| prior(p, c.qualifying_s, middle))
        .collect();
    let pass = |reference_s: f64, wide: bool| -> Vec<PaceFilter> {
        let known = Known {
            parameters: p,
            circuit,
            reference_s,
            laps,
            track_c: moment.track_c,
        };
        rows.iter()
            .zip(&priors)
            .map(|(rows, (share, spread))| {
                let spread = if wide { WIDE } else { *spread };
                // Where nothing but a guess of the lap is known, the first clean lap sets it.
                let pace = share * reference_s;
                let first = rows.iter().find(|r| r.clean && r.compound < 3);
                let pace = match first {
                    Some(row) if wide => known.own(row),
                    _ => pace,
                };
                PaceFilter::new(pace, spread * reference_s).over(&known, rows)
            })
            .collect()
    };
    let mut levels: Vec<f64> = pass(guess, true)
        .iter()
        .zip(&priors)
        .filter(|(f, _)| f.laps >= ENOUGH_LAPS)
        .map(|(f, (share, _))| f.pace_s / share)
        .collect();
    let reference_s = median(&mut levels).unwrap_or(guess);
    (reference_s, pass(reference_s, false))
}

fn entrant(
    known: &Known,
    moment: &Moment,
    i: usize,
    car: &CarHistory,
    filter: &PaceFilter,
) -> Entrant {
    let t = known.reference_s;
    let last = car.laps.last();
    let mut used = car
        .laps
        .iter()
        .filter_map(|l| l.compound)
        .fold(0_u8, |bits, c| bits | 1 << c.min(4));
    let told = car.compound.or(last.and_then(|l| l.compound));
    // Who is in the pits and has not shown its tyres takes hards, or mediums where hards are all it had.
    let compound = match (car.in_pit, car.compound, told) {
        (true, None, Some(2)) => 1,
        (true, None, Some(c)) if c > 2 => c,
        (true, None, _) => 2,
        (_, _, Some(c)) => c.min(4),
        (_, _, None) => 1,
    };
    used |= 1 << compound;
    let fresh = car.in_pit && car.compound.is_none();
    let age = match (fresh, car.age.or(last.and_then(|l| l.age))) {
        (true, _) => 0,
        (false, Some(age)) => age,
        (false, None) => moment.lap,
    };
    let slope = known.slope_s(compound);
    let mean = known.slope_s(1).max(1e-3);
    let wear = (1.0 + WEAR_OF_CAR * filter.extra_wear_s / mean).clamp(0.6, 1.8);
    let rest = REST_OF_RACE * t;
    Entrant {
        number: car.number,
        behind_s: behind(known, moment, i, filter),
        pace_s: filter.pace_s.clamp(0.5 * t, 2.0 * t),
        pace_spread_s: (filter.pace_variance + rest * rest).sqrt(),
        wear,
        running: car.running,
        compound,
        age,
        // On the grid nobody has worn a tyre yet.
        slope_s: (!fresh && moment.lap > 0)
            .then(|| (slope + filter.extra_wear_s).clamp(0.0, 4.0 * mean)),
        used: used & ALL_COMPOUNDS,
        changes: car.changes.unwrap_or_else(|| changes(car)),
        available: ALL_COMPOUNDS,
        stop_s: known.parameters.stop_s(&car.team),
        plan: Plan::default(),
    }
}

/// How far a car is behind the leader at the leader's last line (s); a car that is out ranks by its laps.
fn behind(known: &Known, moment: &Moment, i: usize, filter: &PaceFilter) -> f64 {
    let car = &moment.cars[i];
    let t = known.reference_s;
    if !car.running {
        let done = car.laps.last().map_or(0, |l| l.number);
        return f64::from(known.laps.saturating_sub(done));
    }
    if moment.lap == 0 {
        let slot = car.grid.or(car.position).unwrap_or(20).saturating_sub(1);
        return f64::from(slot) * known.parameters.start.slot * t;
    }
    // What the lap that it is on will take: as its last one, which knows the rain and the safety car; a lap of minutes
    // under a red flag says nothing of it.
    let to_go = known.laps.saturating_sub(moment.lap);
    let pace = filter.pace_s + known.circuit.fuel * t * f64::from(to_go);
    let last = car.laps.last().and_then(|l| l.time_s);
    let lap_s = last
        .filter(|s| (pace..MOST_SLOWER * pace).contains(s))
        .unwrap_or(pace);
    let line = |car: &CarHistory, lap_s: f64| {
        let (n, ended) = car
            .laps
            .iter()
            .rev()
            .find_map(|l| Some((l.number, l.ended_s?)))?;
        Some(ended + f64::from(moment.lap.saturating_sub(n)) * lap_s)
    };
    let leader = moment
        .cars
        .iter()
        .filter(|c| c.running && c.laps.last().is_some_and(|l| l.number >= moment.lap))
        .filter_map(|c| line(c, t))
        .min_by(f64::total_cmp);
    let out = if car.in_pit {
        known.circuit.out_loss_s.max(0.0)
    } else {
        0.0
    };
    match (line(car, lap_s), leader) {
        (Some(own), Some(leader)) => (own - leader).max(0.0) + out,
        _ => f64::from(car.position.unwrap_or(20).saturating_sub(1)) * BLIND_GAP_S + out,
    }
}
