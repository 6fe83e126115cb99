//! Races that are hard to simulate: safety cars, red flags, rain, retirements and stops all happen often.

use super::{Case, Draw, Size, Values, bytes_of};
use crate::compute::race_monte_carlo::{
    COMPOUNDS, Car, MAX_CARS, MAX_LAPS, MAX_STOPS, Plan, Problem, Stop, Tyre,
};
use crate::compute::{RaceMonteCarlo, Task};

/// Races of the large size: the simulations of a strategist's question.
const MANY: usize = 100_000;

pub(super) struct Races {
    problems: Vec<Problem>,
    seed: u64,
    first: u32,
    keys: Vec<i32>,
}

/// A whole number from `low` to `high`, both included.
fn whole(draw: &mut Draw, low: i32, high: i32) -> i32 {
    low + draw.below((high - low + 1) as usize) as i32
}

/// A probability of at most 1 in `least`, of 2³².
fn chance(draw: &mut Draw, least: usize) -> u32 {
    draw.below(u32::MAX as usize / least) as u32
}

impl Races {
    pub(super) fn draw(size: Size, draw: &mut Draw) -> Races {
        let (plans, races) = match size {
            Size::Small => (1 + draw.below(3), 1 + draw.below(40)),
            Size::Season => (1, MANY),
        };
        let mut problem = problem(size, draw);
        let problems: Vec<Problem> = (0..plans)
            .map(|_| {
                let (laps, car) = (problem.laps, draw.below(problem.count as usize));
                problem.cars[car].plan = plan(laps, draw);
                problem.clone()
            })
            .collect();
        Races {
            keys: vec![0; plans * races * problems[0].count as usize],
            problems,
            seed: draw.bits(),
            // Numbers that pass the end of 32 bits go on from 0.
            first: if draw.once_in(4) {
                u32::MAX - 5
            } else {
                draw.below(1 << 20) as u32
            },
        }
    }
}

fn plan(laps: i32, draw: &mut Draw) -> Plan {
    let mut stops = [Stop::default(); MAX_STOPS];
    let count = draw.below(MAX_STOPS + 1);
    let mut lap = 0;
    for stop in &mut stops[..count] {
        lap = whole(draw, lap, laps);
        let compound = whole(draw, 0, 2);
        *stop = Stop { lap, compound };
    }
    Plan {
        stops,
        count: count as i32,
        reactive: whole(draw, 0, 1),
        only: i32::from(draw.once_in(3)),
    }
}

fn car(index: usize, laps: i32, hard: bool, draw: &mut Draw) -> Car {
    let mut tyres = [Tyre::default(); COMPOUNDS];
    for (i, tyre) in tyres.iter_mut().enumerate() {
        *tyre = Tyre {
            offset_ms: 250 * i as i32 + whole(draw, -100, 100),
            slope_q8: whole(draw, 0, 40_000),
            curve_q8: whole(draw, -40, 400),
            life: whole(draw, 3, 45),
        };
    }
    let running = !draw.once_in(10);
    Car {
        base_ms: 90_000 + 60 * index as i32 + whole(draw, -400, 400),
        form_q10: whole(draw, 0, 1500),
        noise_q10: whole(draw, 0, 2500),
        wear_q16: whole(draw, 0, 60),
        life_q16: whole(draw, 0, 40),
        retire: chance(draw, if hard { 100 } else { 900 }),
        retire_start: chance(draw, 60),
        tyres,
        available: 0b11000 | whole(draw, 1, 7),
        plan: plan(laps, draw),
        time_ms: if running {
            180 * index as i32 + whole(draw, 0, 170)
        } else {
            90_000 * whole(draw, 0, 9)
        },
        running: running.into(),
        compound: whole(draw, 0, if hard { 4 } else { 2 }),
        age: whole(draw, 0, 20),
        wear_q8: whole(draw, 0, 300_000),
        slope_q8: whole(draw, 0, 20_000),
        used: 0,
        changes: if hard { whole(draw, 0, 2) } else { 0 },
        stop_ms: if hard { whole(draw, -900, 900) } else { 0 },
    }
}

fn problem(size: Size, draw: &mut Draw) -> Problem {
    let hard = size == Size::Small;
    let laps = if hard { whole(draw, 1, 70) } else { 57 };
    let count = if hard {
        whole(draw, 1, MAX_CARS as i32)
    } else {
        20
    };
    let first = if hard { whole(draw, 1, laps) } else { 1 };
    let mut cars = [Car::default(); MAX_CARS];
    for (i, c) in cars[..count as usize].iter_mut().enumerate() {
        *c = car(i, laps, hard, draw);
    }
    let mut lap_ms = [0; MAX_LAPS];
    for (lap, ms) in lap_ms.iter_mut().enumerate() {
        *ms = 60 * (laps - lap as i32) + whole(draw, -50, 50);
    }
    let often = if hard { 12 } else { 60 };
    let wet = hard && draw.once_in(2);
    let weather = |draw: &mut Draw| if wet { chance(draw, 6) } else { 0 };
    Problem {
        cars,
        count,
        laps,
        first,
        last: laps,
        lap_ms,
        reference_ms: 91_000,
        min_gap_ms: whole(draw, 0, 400),
        dirty_gap_ms: whole(draw, 0, 2000),
        dirty_q8: whole(draw, 0, 120),
        pass_ms: whole(draw, 0, 900),
        pass_span_ms: whole(draw, 0, 1500),
        blue_ms: whole(draw, 0, 900),
        start_ms: whole(draw, 0, 9000),
        start_q10: whole(draw, 0, 9000),
        mistake: whole(draw, 0, 3000),
        mistake_ms: whole(draw, 0, 6000),
        sc_lap_ms: whole(draw, 120_000, 150_000),
        sc_catch_ms: whole(draw, 100_000, 130_000),
        sc_gap_ms: whole(draw, 100, 1200),
        vsc_ms: whole(draw, 10_000, 40_000),
        pit_ms: [22_000, 15_000, 12_000, 0],
        crew_ms: whole(draw, 0, 3000),
        botch: whole(draw, 0, 3000),
        botch_ms: whole(draw, 0, 9000),
        // Now and then so likely that together they pass the end of 32 bits.
        hazard: std::array::from_fn(|_| {
            let likely = hard && draw.once_in(12);
            if likely {
                u32::MAX / 4 * 3
            } else {
                chance(draw, often)
            }
        }),
        hazard_start: std::array::from_fn(|_| chance(draw, 6)),
        sc_laps: [whole(draw, 1, 4), whole(draw, 0, 5)],
        vsc_laps: [whole(draw, 1, 2), whole(draw, 0, 3)],
        wetter: std::array::from_fn(|_| weather(draw)),
        drier: std::array::from_fn(|_| weather(draw)),
        // Slicks in the dry lose nothing: lanes of the CPU backend rely on it.
        wet_ms: [[0, 4000, 7000], [6000, 0, 2500], [20_000, 4000, 0]],
        react: std::array::from_fn(|_| whole(draw, 0, 65_535)),
        cross: whole(draw, 0, 65_535),
        two_compounds: whole(draw, 0, 1),
        status: if hard { whole(draw, 0, 3) } else { 0 },
        status_left: if hard { whole(draw, 0, 4) } else { 0 },
        level: if wet { whole(draw, 0, 2) } else { 0 },
        restart: i32::from(first == 1),
        min_stops: if hard && draw.once_in(2) {
            whole(draw, 1, 4)
        } else {
            0
        },
        longest_stint_laps: if hard && draw.once_in(2) {
            whole(draw, 1, 30)
        } else {
            0
        },
    }
}

impl Case for Races {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(RaceMonteCarlo {
            problems: &self.problems,
            seed: self.seed,
            first: self.first,
            keys: &mut self.keys,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![("keys", Values::I32(&self.keys))]
    }

    fn reset(&mut self) {
        self.keys.fill(0);
    }

    fn bytes(&self) -> u64 {
        bytes_of(&self.problems) + bytes_of(&self.keys)
    }
}
