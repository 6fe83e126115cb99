//! Regret: what a car lost against the best plan in hindsight, over the same simulated races.
//!
//! Each race (number of a seed) is driven once per plan: the luck is the same, only the stops differ. The best of
//! all plans *for that very race* is the hindsight; nobody can reach it, who comes nearer knows more. A plan's cost
//! is its time to the flag and [`PLACE_S`] for each place. Retiring is luck, the same for every plan: those races are
//! left out; a plan that breaks the two-compound rule, or another of the race, counts as last and [`RULE_S`] slower than the slowest.
//!
//! **Invariant:** pure, and a policy is chosen on other races than those it is judged on.

use super::environment::{PLACE_S, RULE_S};
use super::policy::{ACTIONS, STATE, legal, meaning, state};
use super::simulation::{Decision, Simulation};
use crate::compute::race_monte_carlo::{
    OUT_MS, Plan, Problem, Stop, WrongProblem, car_of, class, time_ms,
};

/// The race numbers that plans are chosen on start here, far from those they are judged on.
const CHOSEN_ON: u32 = 1_000_000;
/// Races on which all plans are tried, and those of the best of them and of the network.
const FIRST_LOOK: u32 = 16;
const SECOND_LOOK: u32 = 48;
/// Plans of the second look.
const FINALISTS: usize = 16;
/// Laps between two neighbouring in-laps of the plans in hindsight: with one stop, with two.
const STEP: [usize; 2] = [2, 5];
/// Shortest stint (laps).
const SHORTEST: i32 = 5;

/// How a race went for one car.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    pub time_s: f64,
    pub place: u8,
}

impl Outcome {
    /// Seconds, with what places are worth.
    pub fn cost(&self) -> f64 {
        self.time_s + f64::from(PLACE_S) * f64::from(self.place)
    }
}

/// By race; `None` where the car is out.
pub type Outcomes = Vec<Option<Outcome>>;

/// One car of one race.
#[derive(Clone, Debug)]
pub struct Case {
    pub problem: Problem,
    pub car: usize,
    /// What it did.
    pub driven: Plan,
    /// Stops where tyres reach their typical stint.
    pub fixed: Plan,
}

/// Values of the actions in that state: the network.
pub type Values<'a> = dyn FnMut(&[f32; STATE]) -> [f32; ACTIONS] + 'a;

/// What each way of stopping lost in one case, per race (s, s, places): cost, time, places.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regret {
    pub races: u32,
    pub driven: [f64; 3],
    pub fixed: [f64; 3],
    /// The best single plan beforehand, by Monte Carlo alone.
    pub monte_carlo: [f64; 3],
    /// The network alone.
    pub network: [f64; 3],
    /// Monte Carlo's choice between its own best plan and following the network.
    pub both: [f64; 3],
    /// Cases in which the network was followed.
    pub followed: u32,
}

impl Regret {
    /// Adds another case.
    pub fn add(&mut self, other: &Regret) {
        self.races += other.races;
        self.followed += other.followed;
        let pairs = [
            (&mut self.driven, &other.driven),
            (&mut self.fixed, &other.fixed),
            (&mut self.monte_carlo, &other.monte_carlo),
            (&mut self.network, &other.network),
            (&mut self.both, &other.both),
        ];
        for (sum, more) in pairs {
            for (a, b) in sum.iter_mut().zip(more) {
                *a += b;
            }
        }
    }

    /// Cost of ours over that of the better of the plan driven and the fixed plan: below 1 is better.
    pub fn ratio(&self) -> Option<f64> {
        let better = self.driven[0].min(self.fixed[0]);
        (better > 0.0).then(|| self.both[0] / better)
    }
}

impl Case {
    /// Judges every way over `races` races, each chosen on as many others.
    ///
    /// # Errors
    /// If the problem holds a number that the engines cannot.
    pub fn regret(
        &self,
        races: u32,
        seed: u64,
        values: &mut Values<'_>,
    ) -> Result<Regret, WrongProblem> {
        let mut plans = plans(&self.problem, self.car);
        plans.extend([self.driven, self.fixed]);
        let n = plans.len();
        let mut judged: Vec<Outcomes> = Vec::with_capacity(n + 1);
        let mut tried: Vec<(f64, usize)> = Vec::with_capacity(n);
        for (at, plan) in plans.iter().enumerate() {
            judged.push(self.follow(plan, seed, 0, races)?);
            if at + 2 < n {
                let outcomes = self.follow(plan, seed, CHOSEN_ON, FIRST_LOOK)?;
                tried.push((mean(&outcomes), at));
            }
        }
        tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut best = (f64::INFINITY, 0);
        for (_, at) in tried.into_iter().take(FINALISTS) {
            let outcomes = self.follow(&plans[at], seed, CHOSEN_ON + FIRST_LOOK, SECOND_LOOK)?;
            let mean = mean(&outcomes);
            if mean < best.0 {
                best = (mean, at);
            }
        }
        judged.push(self.policy(seed, 0, races, values)?);
        let by_network = self.policy(seed, CHOSEN_ON + FIRST_LOOK, SECOND_LOOK, values)?;
        let follows = mean(&by_network) < best.0;
        let both = if follows { n } else { best.1 };
        let mut regret = Regret {
            followed: u32::from(follows),
            ..Regret::default()
        };
        for race in 0..races as usize {
            // Retiring is luck, the same for all; whoever is out while others finish broke the rule.
            let finished = judged.iter().filter_map(|o| o[race]);
            let worst = finished.clone().map(|o| o.time_s).fold(0.0, f64::max);
            let Some(hindsight) = finished.min_by(|a, b| a.cost().total_cmp(&b.cost())) else {
                continue;
            };
            let excluded = Outcome {
                time_s: worst + f64::from(RULE_S),
                place: self.problem.count as u8,
            };
            let all: Vec<Outcome> = judged.iter().map(|o| o[race].unwrap_or(excluded)).collect();
            regret.races += 1;
            let ways = [
                (&mut regret.driven, n - 2),
                (&mut regret.fixed, n - 1),
                (&mut regret.monte_carlo, best.1),
                (&mut regret.network, n),
                (&mut regret.both, both),
            ];
            for (sum, way) in ways {
                let own = &all[way];
                sum[0] += own.cost() - hindsight.cost();
                sum[1] += own.time_s - hindsight.time_s;
                sum[2] += f64::from(own.place) - f64::from(hindsight.place);
            }
        }
        Ok(regret)
    }

    /// Races in which the car follows a plan, by the batch engine.
    fn follow(
        &self,
        plan: &Plan,
        seed: u64,
        first: u32,
        races: u32,
    ) -> Result<Outcomes, WrongProblem> {
        let mut problem = self.problem.clone();
        problem.cars[self.car].plan = *plan;
        let cars = problem.count as usize;
        let mut keys = vec![0; cars * races as usize];
        crate::compute::cpu::race_monte_carlo::simulate(&problem, seed, first, &mut keys)?;
        Ok(keys
            .chunks(cars)
            .map(|race| outcome(race, self.car))
            .collect())
    }

    /// Races in which the car does what the network values most.
    fn policy(
        &self,
        seed: u64,
        first: u32,
        races: u32,
        values: &mut Values<'_>,
    ) -> Result<Outcomes, WrongProblem> {
        (first..first + races)
            .map(|number| {
                let mut simulation = Simulation::new(&self.problem, seed, number)?;
                while !simulation.is_over() {
                    let own = decide(&simulation, self.car, values);
                    simulation.step(|car, _| if car == self.car { own } else { Decision::Plan });
                }
                Ok(outcome(simulation.keys(), self.car))
            })
            .collect()
    }
}

/// What the network would do about the lap under way, asked anew every lap.
pub fn decide(simulation: &Simulation<'_>, car: usize, values: &mut Values<'_>) -> Decision {
    let race = simulation.upcoming();
    let may = legal(simulation, car, &race);
    let values = values(&state(simulation, car, &race));
    let best = (0..ACTIONS)
        .filter(|a| may >> a & 1 != 0)
        .max_by(|a, b| values[*a].total_cmp(&values[*b]));
    meaning(best.unwrap_or(0)).0
}

fn outcome(keys: &[i32], car: usize) -> Option<Outcome> {
    let place = keys.iter().position(|k| car_of(*k) == car)?;
    let time = time_ms(keys[place]);
    (time < OUT_MS).then(|| Outcome {
        time_s: f64::from(time) / 1000.0,
        place: place as u8 + 1,
    })
}

/// Mean cost; a race that the car does not finish tells nothing, unless it never does.
fn mean(outcomes: &Outcomes) -> f64 {
    let costs: Vec<f64> = outcomes.iter().flatten().map(Outcome::cost).collect();
    // A plan that breaks the rules ends in the list of the retired: it is no plan.
    if 2 * costs.len() < outcomes.len() {
        return f64::INFINITY;
    }
    costs.iter().sum::<f64>() / costs.len() as f64
}

/// Stops at these (lap, compound), nothing else but for the weather; a safety car may pull them forward.
pub fn plan(stops: &[(i32, i32)]) -> Plan {
    let mut plan = Plan {
        reactive: 1,
        only: 1,
        ..Plan::default()
    };
    for (at, (lap, compound)) in plan.stops.iter_mut().zip(stops) {
        *at = Stop {
            lap: *lap,
            compound: *compound,
        };
        plan.count += 1;
    }
    plan
}

/// The fixed plan: each set to its typical stint, or as far as a rule lets it; hard after soft and medium, medium after
/// hard, until it lasts and no rule asks for more.
pub fn fixed_plan(problem: &Problem, car: usize) -> Plan {
    let own = &problem.cars[car];
    let (mut stops, mut lap, mut on) = (Vec::new(), 0, own.compound);
    loop {
        let life = own.tyres[on as usize].life;
        let ends = lap
            + match problem.longest_stint_laps {
                0 => life,
                most => life.min(most),
            };
        let goes_on = ends + SHORTEST > problem.laps;
        let owed = (problem.min_stops - stops.len() as i32).max(i32::from(stops.is_empty()));
        if (goes_on && owed <= 0) || stops.len() == 3 {
            break;
        }
        lap = ends.min(problem.laps - SHORTEST * owed.max(1));
        on = [2, 2, 1, 3, 4][on as usize];
        stops.push((lap, on));
    }
    plan(&stops)
}

/// Plans with one and two stops over the whole race that the two-compound rule allows, each once as it stands and
/// once with safety cars pulling stops forward.
fn plans(problem: &Problem, car: usize) -> Vec<Plan> {
    let laps = problem.laps;
    let start = problem.cars[car].compound;
    let mut all = Vec::new();
    let mut add = |stops: &[(i32, i32)]| {
        let differ = stops.iter().any(|s| s.1 != start) || class(start) != 0;
        if differ {
            all.push(plan(stops));
            all.push(Plan {
                reactive: 0,
                ..plan(stops)
            });
        }
    };
    for first in (SHORTEST..=laps - SHORTEST).step_by(STEP[0]) {
        for c in 0..3 {
            add(&[(first, c)]);
        }
    }
    for first in (SHORTEST..=laps - 2 * SHORTEST).step_by(STEP[1]) {
        for second in (first + 2 * SHORTEST..=laps - SHORTEST).step_by(STEP[1]) {
            for pair in 0..9 {
                add(&[(first, pair / 3), (second, pair % 3)]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::example_problem;

    fn case() -> Case {
        let problem = example_problem();
        let fixed = fixed_plan(&problem, 3);
        Case {
            driven: plan(&[(2, 2), (4, 1), (6, 2)]),
            fixed,
            car: 3,
            problem,
        }
    }

    #[test]
    fn the_fixed_plan_meets_the_rule_and_ends_before_the_flag() {
        let problem = example_problem();
        for car in 0..20 {
            let plan = fixed_plan(&problem, car);
            let stops = &plan.stops[..plan.count as usize];
            assert!(!stops.is_empty());
            assert!(
                stops
                    .iter()
                    .any(|s| s.compound != problem.cars[car].compound)
            );
            assert!(stops.iter().all(|s| s.lap < problem.laps));
        }
    }

    #[test]
    fn nobody_beats_hindsight_and_three_early_stops_lose_most() {
        let case = case();
        // Stays out for ever: breaks the rule, so it is never classified and Monte Carlo does not follow it.
        let stay = case
            .regret(4, 7, &mut |_| {
                [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
            })
            .unwrap();
        assert_eq!(stay.followed, 0);
        assert!(stay.network[0] > 4.0 * stay.both[0], "{stay:?}");
        // Boxes for hards once the tyres are 18 laps old, the rest of the race on them.
        let mut sensible = |s: &[f32; STATE]| {
            let mut q = [0.0; ACTIONS];
            q[if s[2] > 0.6 && s[31] == 0.0 { 3 } else { 0 }] = 1.0;
            q
        };
        let regret = case.regret(8, 7, &mut sensible).unwrap();
        assert!(regret.races > 0);
        for way in [
            regret.driven,
            regret.fixed,
            regret.monte_carlo,
            regret.network,
            regret.both,
        ] {
            assert!(way[0] >= 0.0, "{regret:?}");
        }
        assert!(regret.driven[0] > 1.5 * regret.fixed[0], "{regret:?}");
        assert!(regret.monte_carlo[0] < regret.driven[0], "{regret:?}");
    }

    #[test]
    fn a_policy_that_follows_a_plan_drives_the_plan() {
        let case = case();
        let plan = Plan {
            reactive: 0,
            ..plan(&[(20, 2)])
        };
        let by_plan = case.follow(&plan, 11, 0, 6).unwrap();
        let total = case.problem.laps as f32;
        let mut same = |s: &[f32; STATE]| {
            let lap = (total - s[0] * 50.0).round() as i32 + 1;
            let mut q = [0.0; ACTIONS];
            q[if lap == 20 { 3 } else { 0 }] = 1.0;
            q
        };
        let by_policy = case.policy(11, 0, 6, &mut same).unwrap();
        // In the dry, with nobody's red flag: race by race the same.
        let dry = by_plan
            .iter()
            .zip(&by_policy)
            .filter(|(a, b)| a == b)
            .count();
        assert!(dry >= 4, "{by_plan:?} {by_policy:?}");
    }
}
