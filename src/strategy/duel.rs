//! Two cars and the order of their stops: undercuts, overcuts, threats.
//!
//! A duel is the race itself over the few laps that decide it, without safety cars: both cars box, one some laps
//! before the other, everyone else stays out; who is ahead once both are back and up to speed?

use serde::Serialize;

use super::model::{ModelError, Start};
use super::parameters::Parameters;
use crate::compute::race_monte_carlo::{OUT_MS, Plan, Problem, Stop, car_of, time_ms};
use crate::compute::{Backend, Cpu, RaceMonteCarlo};

/// Laps between the first car's stop and the answer.
pub const ANSWER_LAPS: i32 = 2;
/// Laps after the second stop until the order counts.
const SETTLE_LAPS: i32 = 2;
/// Cars further ahead or behind than this are no rivals in a duel (s).
const REACH_S: f64 = 30.0;
/// Most rivals on a board, ahead and behind each.
const MOST_RIVALS: usize = 3;
/// Duels with each rival: we box first, it does, nobody does.
const DUELS: usize = 3;
/// Laps over which a pass on the road is looked for.
const ROAD_LAPS: i32 = 5;

/// How it stands between a car and a rival.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rival {
    pub number: u8,
    /// Ahead of us: above 0; behind us: below (s).
    pub ahead_by_s: f64,
    /// Probability that we are ahead if we box first and it answers two laps later.
    pub if_we_box_first: f64,
    /// Probability that we are ahead if it boxes first and we answer two laps later.
    pub if_it_boxes_first: f64,
    /// Probability that we are ahead after five laps without stops.
    pub on_the_road: f64,
}

impl Rival {
    /// Whether boxing first gains the place of a car ahead.
    pub fn undercut(&self) -> Option<f64> {
        (self.ahead_by_s > 0.0).then_some(self.if_we_box_first)
    }

    /// Whether staying out gains the place of a car ahead that boxes.
    pub fn overcut(&self) -> Option<f64> {
        (self.ahead_by_s > 0.0).then_some(self.if_it_boxes_first)
    }

    /// Probability of losing the place to a car behind: by its undercut, and on the road.
    pub fn threat(&self) -> Option<(f64, f64)> {
        (self.ahead_by_s <= 0.0).then_some((1.0 - self.if_it_boxes_first, 1.0 - self.on_the_road))
    }
}

/// Our car, the compound that we would take, and how the odds are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    pub car: usize,
    pub compound: u8,
    pub races: u32,
    pub seed: u64,
}

/// [`board_on`] the CPU.
///
/// # Errors
/// If the race cannot be simulated.
pub fn board(
    start: &Start,
    parameters: &Parameters,
    terms: Terms,
) -> Result<Vec<Rival>, ModelError> {
    board_on(&Cpu, start, parameters, terms)
}

/// The cars that matter around `terms.car`, nearest first: those ahead, then those behind.
///
/// # Errors
/// If the race cannot be simulated.
pub fn board_on(
    backend: &dyn Backend,
    start: &Start,
    parameters: &Parameters,
    terms: Terms,
) -> Result<Vec<Rival>, ModelError> {
    let mut problem = start.problem(parameters)?;
    calm(&mut problem);
    let own = start.cars[terms.car].behind_s;
    let mut near: Vec<(f64, usize)> = start
        .cars
        .iter()
        .enumerate()
        .filter(|(i, c)| *i != terms.car && c.running)
        .map(|(i, c)| (own - c.behind_s, i))
        .filter(|(by, _)| by.abs() < REACH_S)
        .collect();
    near.sort_unstable_by(|a, b| a.0.abs().total_cmp(&b.0.abs()));
    let side = |ahead: bool| {
        near.iter()
            .filter(move |(by, _)| (*by > 0.0) == ahead)
            .take(MOST_RIVALS)
    };
    let near: Vec<(f64, usize)> = side(true).chain(side(false)).copied().collect();
    if near.is_empty() {
        return Ok(Vec::new());
    }
    let problems: Vec<Problem> = near
        .iter()
        .flat_map(|&(_, rival)| {
            [
                [Some(0), Some(ANSWER_LAPS)],
                [Some(ANSWER_LAPS), Some(0)],
                [None, None],
            ]
            .map(|delays| duel(&problem, terms, rival, delays))
        })
        .collect();
    let each = terms.races as usize * problem.count as usize;
    let mut keys = vec![0; problems.len() * each];
    backend.run(&mut RaceMonteCarlo {
        problems: &problems,
        seed: terms.seed,
        first: 0,
        keys: &mut keys,
    })?;
    let rivals = near.iter().zip(keys.chunks(DUELS * each.max(1)));
    Ok(rivals
        .map(|(&(ahead_by_s, rival), keys)| {
            let odds = |duel: usize| {
                let keys = &keys[duel * each..][..each];
                odds(keys, problem.count as usize, (terms.car, rival))
            };
            Rival {
                number: start.cars[rival].number,
                ahead_by_s,
                if_we_box_first: odds(0),
                if_it_boxes_first: odds(1),
                on_the_road: odds(2),
            }
        })
        .collect())
}

/// A race in which nothing but racing happens, and nobody stops of their own accord.
fn calm(problem: &mut Problem) {
    problem.hazard = [0; 3];
    problem.hazard_start = [0; 3];
    problem.wetter = [0; 3];
    problem.drier = [0; 3];
    (problem.status, problem.status_left) = (0, 0);
    for car in &mut problem.cars[..problem.count as usize] {
        car.plan = Plan {
            only: 1,
            ..Plan::default()
        };
        (car.retire, car.retire_start) = (0, 0);
    }
}

/// The race of a duel; `delays`: laps until our stop and the rival's, counted from the next line.
fn duel(calm: &Problem, terms: Terms, rival: usize, delays: [Option<i32>; 2]) -> Problem {
    let mut problem = calm.clone();
    let mut last = problem.first + ROAD_LAPS - 1;
    for (car, delay) in [terms.car, rival].into_iter().zip(delays) {
        let Some(delay) = delay else { continue };
        let lap = problem.first + delay;
        let compound = i32::from(terms.compound);
        let plan = &mut problem.cars[car].plan;
        plan.stops[0] = Stop { lap, compound };
        plan.count = 1;
        last = last.max(problem.first + ANSWER_LAPS + SETTLE_LAPS);
    }
    // A duel that the flag cuts short is decided there; nobody boxes on the last lap.
    problem.last = last.min(problem.laps);
    // The rules are for the whole race.
    problem.two_compounds = 0;
    (problem.min_stops, problem.longest_stint_laps) = (0, 0);
    problem
}

/// Share of the races in which the first car is ahead of the second.
fn odds(keys: &[i32], count: usize, (us, them): (usize, usize)) -> f64 {
    let races = keys.len() / count;
    let ahead = keys
        .chunks(count)
        .filter(|race| {
            let place = |car| {
                race.iter()
                    .position(|k| car_of(*k) == car && time_ms(*k) < OUT_MS)
            };
            place(us) < place(them)
        })
        .count();
    ahead as f64 / races.max(1) as f64
}
