//! One race, lap by lap, with a say in every stop: what a policy is trained and judged in.
//!
//! This is the reference that the batch engine is compared with, race by race: the same rules
//! ([`crate::compute::race_monte_carlo`]), written one car after the other with nothing clever about it.
//!
//! ```
//! use trackside::strategy::simulation::{Decision, Simulation};
//! # let problem = trackside::strategy::example_problem();
//! let mut race = Simulation::new(&problem, 7, 0)?;
//! while !race.is_over() {
//!     // Car 0 boxes for hards at the end of lap 20 and otherwise stays out; the others follow their plans.
//!     let own = if race.next_lap() == 20 { Decision::Box(2) } else { Decision::Stay };
//!     race.step(|car, _| if car == 0 { own } else { Decision::Plan });
//! }
//! assert_eq!(race.cars()[0].stops, 1);
//! assert!(race.position(0) >= 1);
//! # Ok::<(), trackside::compute::race_monte_carlo::WrongProblem>(())
//! ```
//!
//! **Invariant:** with every decision left to the plan, the keys are those of the batch engine for the same
//! problem, seed and race.

use crate::compute::philox::{Purpose, bell, philox};
use crate::compute::race_monte_carlo::*;

/// What a car does about a lap that is about to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// What its plan and the rules of thumb ask for.
    #[default]
    Plan,
    /// Stays out, whatever they ask for.
    Stay,
    /// Boxes at the end of the lap for the compound of that index. Under a red flag and on the last lap it stays.
    Box(u8),
}

/// A car under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Driving {
    pub running: bool,
    /// Pace of the day: base and form (ms).
    pub pace_ms: i32,
    pub compound: i32,
    /// Laps on the set.
    pub age: i32,
    /// Loss of the tyres (1/256 ms), what a lap adds, and how that grows.
    pub wear_q8: i32,
    pub slope_q8: i32,
    pub curve_q8: i32,
    /// Compounds raced on (bits).
    pub used: i32,
    /// Stops so far in this simulation, red-flag changes left out.
    pub stops: i32,
    /// Changes of tyres so far, those before it and those under red flags included.
    pub changes: i32,
    /// Whether it stayed out on a set that had done all the laps that the rules allow.
    pub overran: bool,
    /// Age at which it means to box, and from which it would under a safety car.
    pub target: i32,
    pub early: i32,
    /// The plan's next stop.
    pub next: i32,
    /// Its last lap (ms), time in the pits included.
    pub lap_ms: i32,
    /// Whether it boxed at the end of that lap.
    pub boxed: bool,
}

/// One race under way.
#[derive(Clone, Debug)]
pub struct Simulation<'a> {
    problem: &'a Problem,
    seed: u64,
    number: u32,
    next: i32,
    race: Race,
    cars: Vec<Driving>,
    keys: Vec<i32>,
}

impl<'a> Simulation<'a> {
    /// Race `number` of a seed, before its first lap.
    ///
    /// # Errors
    /// If the problem holds a number outside what the engines can.
    pub fn new(
        problem: &'a Problem,
        seed: u64,
        number: u32,
    ) -> Result<Simulation<'a>, WrongProblem> {
        problem.check()?;
        let mut cars = Vec::new();
        let mut keys = Vec::new();
        for (i, car) in problem.cars[..problem.count as usize].iter().enumerate() {
            let form = philox([number, 0, i as u32, Purpose::Form as u32], seed);
            let begun = stint(
                problem,
                car,
                problem.first - 1,
                car.fitted(),
                0,
                [form[1], form[2], form[3], 0],
            );
            cars.push(Driving {
                running: car.running != 0,
                pace_ms: car.base_ms + ((bell(form[0]) * car.form_q10) >> 10),
                compound: car.compound,
                age: car.age,
                wear_q8: car.wear_q8,
                slope_q8: begun.slope_q8,
                curve_q8: car.tyres[car.compound as usize].curve_q8,
                used: car.used | 1 << car.compound,
                changes: car.changes,
                target: begun.target,
                early: begun.early,
                next: begun.next,
                ..Driving::default()
            });
            keys.push(start_key(car, i));
        }
        keys.sort_unstable();
        Ok(Simulation {
            problem,
            seed,
            number,
            next: problem.first,
            race: Race::of(problem),
            cars,
            keys,
        })
    }

    /// The lap that [`Simulation::step`] drives next.
    pub const fn next_lap(&self) -> i32 {
        self.next
    }

    /// What the races start from.
    pub const fn problem(&self) -> &'a Problem {
        self.problem
    }

    /// What holds on the lap under way, the next that [`Simulation::step`] drives: a safety car that comes out on it is
    /// known before its end, when one may box.
    pub fn upcoming(&self) -> Race {
        let mut race = self.race;
        let n = self.next;
        let roll = philox([self.number, n as u32, 0, Purpose::Race as u32], self.seed);
        race.next_lap(self.problem, n, roll);
        race
    }

    /// The same race up to here; from here on with the luck of another number.
    #[must_use]
    pub fn with_luck(&self, seed: u64, number: u32) -> Simulation<'a> {
        Simulation {
            seed,
            number,
            ..self.clone()
        }
    }

    /// Whether the last lap is done.
    pub const fn is_over(&self) -> bool {
        self.next > self.problem.last
    }

    /// The cars, as in the problem.
    pub fn cars(&self) -> &[Driving] {
        &self.cars
    }

    /// What held on the last lap.
    pub const fn race(&self) -> &Race {
        &self.race
    }

    /// A key a car, in order: what the batch engine writes.
    pub fn keys(&self) -> &[i32] {
        &self.keys
    }

    /// Place of a car, from 1.
    pub fn position(&self, car: usize) -> usize {
        1 + self.place(car)
    }

    /// Time of a car at the last line (ms); from [`OUT_MS`] on it is out.
    pub fn time_ms(&self, car: usize) -> i32 {
        time_ms(self.keys[self.place(car)])
    }

    /// Gap to the car in front, and of the car behind (ms); `None` without one that runs.
    pub fn gaps_ms(&self, car: usize) -> (Option<i32>, Option<i32>) {
        let place = self.place(car);
        let own = time_ms(self.keys[place]);
        let at = |place: Option<usize>| {
            let t = time_ms(*self.keys.get(place?)?);
            (t < OUT_MS && own < OUT_MS).then_some(t)
        };
        (
            at(place.checked_sub(1)).map(|t| own - t),
            at(Some(place + 1)).map(|t| t - own),
        )
    }

    fn place(&self, car: usize) -> usize {
        // Every car has exactly one key.
        self.keys
            .iter()
            .position(|k| car_of(*k) == car)
            .unwrap_or(0)
    }

    /// Drives a lap. `decide` is asked once a running car, with its state before the lap.
    pub fn step(&mut self, mut decide: impl FnMut(usize, &Driving) -> Decision) {
        let (p, n) = (self.problem, self.next);
        let start = self.race.restart != 0;
        let roll = philox([self.number, n as u32, 0, Purpose::Race as u32], self.seed);
        self.race.next_lap(p, n, roll);
        self.race.restart = 0;
        let mut laps = Vec::with_capacity(self.cars.len());
        for i in 0..self.cars.len() {
            let decision = if self.cars[i].running {
                decide(i, &self.cars[i])
            } else {
                Decision::Plan
            };
            laps.push(self.free_lap(i, n, start, decision));
        }
        if n == p.laps {
            for (car, lap) in self.cars.iter().zip(&mut laps) {
                lap.out |= car.overran || breaks_rules(p, car.used, car.changes);
            }
        }
        self.in_order(n, &laps);
        self.keys.sort_unstable();
        if self.race.status == Status::Red as i32 {
            self.stand_under_red(n);
        }
        self.next += 1;
    }

    fn free_lap(&mut self, i: usize, n: i32, start: bool, decision: Decision) -> Lap {
        let p = self.problem;
        let plan = &p.cars[i];
        let (race, car) = (self.race, &mut self.cars[i]);
        car.boxed = false;
        car.lap_ms = 0;
        let [w0, w1, w2, w3] = philox(
            [self.number, n as u32, i as u32, Purpose::Lap as u32],
            self.seed,
        );
        let retire = if n == 1 {
            plan.retire_start
        } else {
            plan.retire
        };
        if !car.running || w2 < retire {
            car.running = false;
            return Lap {
                out: true,
                ..Lap::default()
            };
        }
        let (low, high) = ((w3 & 0xFFFF) as i32, (w3 >> 16) as i32);
        let spread = if start { p.start_q10 } else { plan.noise_q10 };
        let mut free = if race.queues() {
            p.sc_catch_ms
        } else {
            let mut t = car.pace_ms + p.lap_ms[n as usize] + (car.wear_q8 >> 8);
            t += p.wet_ms[race.level as usize][class(car.compound) as usize];
            t += (bell(w0) * spread) >> 10;
            if high < p.mistake {
                t += (p.mistake_ms * low) >> 16;
            }
            if start {
                t += p.start_ms;
            }
            if race.status == Status::Virtual as i32 {
                t += p.vsc_ms;
            }
            t
        };
        car.age += 1;
        let open = n < p.laps && race.status != Status::Red as i32;
        let takes = match decision {
            Decision::Plan => {
                let tyre = (car.compound, car.age, car.target, car.early);
                boxes(p, &race, n, tyre, (w1 >> 16) as i32).then_some(None)
            }
            Decision::Stay => None,
            Decision::Box(compound) => open.then_some(Some(i32::from(compound))),
        };
        let spent = p.longest_stint_laps > 0 && car.age >= p.longest_stint_laps;
        car.overran |= spent && open && takes.is_none();
        // Gentle laps wear less: half under a virtual safety car, a quarter behind a safety car.
        car.wear_q8 += car.slope_q8 >> [0, 1, 2, 2][race.status as usize];
        car.slope_q8 += car.curve_q8;
        if let Some(compound) = takes {
            free += p.pit_ms[race.status as usize] + plan.stop_ms + ((p.crew_ms * low) >> 16);
            if high < p.botch {
                free += p.botch_ms;
            }
            self.change_tyres(i, n, compound, false);
            self.cars[i].boxed = true;
            self.cars[i].stops += 1;
        }
        let need = if start {
            0
        } else {
            p.pass_ms + ((p.pass_span_ms * (w1 & 0xFFFF) as i32) >> 16)
        };
        // Through the word that travels in the batch engine: it is coarser for what a pass needs.
        let word = pack(free, need, 0);
        Lap {
            free: (word >> 13) as i32,
            need: (word << 1 & 0x3FFC) as i32,
            ghost: takes.is_some(),
            out: false,
        }
    }

    fn change_tyres(&mut self, i: usize, n: i32, chosen: Option<i32>, red: bool) {
        let p = self.problem;
        let (plan, race, car) = (&p.cars[i], &self.race, &mut self.cars[i]);
        let roll = stint_roll(self.seed, self.number, n, i);
        let planned =
            !red && car.next < plan.plan.count && race.level == 0 && class(car.compound) == 0;
        let compound = match chosen {
            Some(compound) => compound,
            None if planned => {
                car.next += 1;
                plan.plan.stops[car.next as usize - 1].compound
            }
            None => {
                let raced = (car.used, car.changes + 1);
                compound_for(p, plan, n, race.level, raced, roll[3])
            }
        };
        let tyre = &plan.tyres[compound as usize];
        let on = Fitted {
            compound,
            age: 0,
            slope_q8: tyre.slope_q8,
            used: car.used,
            changes: car.changes + 1,
        };
        let begun = stint(p, plan, n, on, car.next, roll);
        car.compound = compound;
        car.used |= 1 << compound;
        car.changes += 1;
        car.age = 0;
        car.wear_q8 = tyre.offset_ms << 8;
        car.slope_q8 = begun.slope_q8;
        car.curve_q8 = tyre.curve_q8;
        car.target = begun.target;
        car.early = begun.early;
        car.next = begun.next;
    }

    fn in_order(&mut self, n: i32, laps: &[Lap]) {
        let (p, race) = (self.problem, &self.race);
        let lead = time_ms(self.keys[0]);
        let gap = if race.queues() {
            p.sc_gap_ms
        } else if race.racing() {
            p.min_gap_ms
        } else {
            p.sc_gap_ms
        };
        // The slowest line-crossing so far, and the slowest but one: who passes is still behind that one.
        let mut barrier = if race.queues() {
            lead + p.sc_lap_ms - gap
        } else {
            i32::MIN / 2
        };
        let mut second = barrier;
        let mut before = i32::MIN / 2;
        for (place, key_of) in self.keys.iter_mut().enumerate() {
            let (t, i) = (time_ms(*key_of), car_of(*key_of));
            if t >= OUT_MS {
                continue;
            }
            let lap = &laps[i];
            let end = if lap.out {
                out_ms(n, place as i32)
            } else if lap.ghost && race.queues() {
                // Who boxes behind the safety car queues on the way in.
                (t + p.sc_catch_ms).max(barrier + gap) + lap.free - p.sc_catch_ms
            } else if lap.ghost {
                t + lap.free
            } else {
                let mut at = t + lap.free;
                if race.racing() {
                    let close = (p.dirty_gap_ms - (t - before)).max(0);
                    at += (close * p.dirty_q8) >> 8;
                    if t - lead > p.reference_ms {
                        at += p.blue_ms;
                    }
                }
                let limit = barrier + gap;
                if race.racing() && limit - at > lap.need {
                    at.max(second + gap)
                } else {
                    at.max(limit)
                }
            };
            if !lap.out && !lap.ghost {
                second = second.max(barrier.min(end));
                barrier = barrier.max(end);
            }
            if !lap.out {
                self.cars[i].lap_ms = end - t;
            } else {
                self.cars[i].running = false;
            }
            before = t;
            *key_of = key(end, i as i32);
        }
    }

    fn stand_under_red(&mut self, n: i32) {
        self.race.restart = 1;
        let lead = time_ms(self.keys[0]);
        for place in 0..self.keys.len() {
            let k = self.keys[place];
            if time_ms(k) >= OUT_MS {
                continue;
            }
            self.keys[place] = key(lead + grid_ms(place as i32), car_of(k) as i32);
            if n < self.problem.laps {
                self.change_tyres(car_of(k), n, None, true);
            }
        }
    }
}

/// A car's lap before the others are looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Lap {
    free: i32,
    need: i32,
    ghost: bool,
    out: bool,
}
