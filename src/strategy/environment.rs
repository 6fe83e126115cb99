//! Many simulated races side by side, asked for decisions and paid for them: what the pit network learns in.
//!
//! In each race about half of the cars ask the policy; the others follow their rules of thumb. A decision stands for
//! as many laps as its action says ([`super::policy::meaning`]), or until the track's status or wetness changes. Its
//! reward is the time gained on the running field meanwhile (s); at the flag [`PLACE_S`] more for each place ahead
//! of the middle, and [`RULE_S`] less for a car that broke the two-compound rule or another of the
//! race. A car that retires is simply over.
//!
//! **Invariant:** the same seed and the same answers give the same questions.

use super::model::{ALL_COMPOUNDS, GridCar, ModelError, Start};
use super::parameters::Parameters;
use super::policy::{ACTIONS, STATE, legal, meaning, state};
use super::simulation::{Decision, Simulation};
use crate::compute::philox::philox;
use crate::compute::race_monte_carlo::{OUT_MS, Problem, Race, breaks_rules};

/// What a place is worth (s).
pub const PLACE_S: f32 = 2.0;
/// What breaking the two-compound rule, or another of the race, costs (s).
pub const RULE_S: f32 = 60.0;
/// What the network's values are told in (s): it learns rewards over this.
pub const SCALE_S: f32 = 20.0;
/// Cars of a race.
const CARS: u8 = 20;
/// Races that begin on a wet track, of 256.
const WET: u32 = 20;

/// A car's question, or the end of its race.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Race and car: `32 · race + car`.
    pub slot: u32,
    /// Pay for the decision before (s); 0 for the first.
    pub reward: f32,
    /// No answer is wanted: its race is over.
    pub over: bool,
    /// Actions that may be taken (bits).
    pub legal: u16,
    pub state: [f32; STATE],
}

/// The races.
pub struct Environment<'a> {
    problems: &'a [Problem],
    seed: u64,
    races: Vec<Episode<'a>>,
    /// Races begun so far.
    begun: u32,
}

struct Episode<'a> {
    simulation: Simulation<'a>,
    /// By car: what was decided, until before which lap it stands, and what it has earned.
    held: Vec<Option<Held>>,
    controlled: u32,
    /// Status and wetness when the last decisions were asked for.
    asked_under: (i32, i32),
}

#[derive(Clone, Copy)]
struct Held {
    decision: Decision,
    until: i32,
    earned: f32,
    waits: bool,
}

/// Races of all circuits in the parameters: fields of different width and order, tyres and weather.
///
/// # Errors
/// If the parameters make a race that the engines cannot hold.
pub fn problems(
    parameters: &Parameters,
    count: u32,
    seed: u64,
) -> Result<Vec<Problem>, ModelError> {
    (0..count)
        .map(|i| {
            let roll = philox([i, 0, 0, 77], seed);
            let at = roll[0] as usize % parameters.circuits.len();
            let circuit = parameters.circuits[at].name.clone();
            let wet = roll[1] % 256 < WET;
            let spread = 0.02 + 0.03 * share(roll[2]);
            let grid: Vec<GridCar> = (0..CARS)
                .map(|c| {
                    let roll = philox([i, 1, u32::from(c), 77], seed);
                    let place = f64::from(c) / f64::from(CARS - 1) - 0.5;
                    let luck = 0.01 * (share(roll[0]) - 0.5);
                    GridCar {
                        number: c + 1,
                        qualifying_s: Some(90.0 * (1.0 + spread * place + luck)),
                        compound: match roll[1] % 20 {
                            _ if wet => 3,
                            0..5 => 0,
                            5..16 => 1,
                            _ => 2,
                        },
                    }
                })
                .collect();
            let mut start = Start::grid(parameters, &circuit, None, &grid);
            start.level = u8::from(wet);
            for car in &mut start.cars {
                car.available = ALL_COMPOUNDS;
            }
            start.problem(parameters)
        })
        .collect()
}

fn share(word: u32) -> f64 {
    f64::from(word) / 4_294_967_296.0
}

impl<'a> Environment<'a> {
    /// `count` races at a time, from those problems in turn; none without a problem.
    pub fn new(problems: &'a [Problem], count: u32, seed: u64) -> Environment<'a> {
        let mut environment = Environment {
            problems,
            seed,
            races: Vec::new(),
            begun: 0,
        };
        for _ in 0..count {
            let episode = environment.episode();
            environment.races.extend(episode);
        }
        environment
    }

    fn episode(&mut self) -> Option<Episode<'a>> {
        if self.problems.is_empty() {
            return None;
        }
        let number = self.begun;
        self.begun += 1;
        let problem = &self.problems[number as usize % self.problems.len()];
        // The problems were checked when they were made.
        let simulation = Simulation::new(problem, self.seed, number).ok()?;
        Some(Episode {
            held: vec![None; simulation.cars().len()],
            simulation,
            controlled: philox([number, 0, 0, 78], self.seed)[0],
            asked_under: (0, 0),
        })
    }

    /// Drives every race on until somebody asks; at least one question unless there are no races.
    pub fn questions(&mut self) -> Vec<Question> {
        let mut all = Vec::new();
        while all.is_empty() && !self.races.is_empty() {
            for at in 0..self.races.len() {
                let before = all.len();
                self.races[at].ask(at as u32, &mut all);
                if all.len() > before {
                    continue;
                }
                self.races[at].drive();
                if self.races[at].simulation.is_over() {
                    self.races[at].close(at as u32, &mut all);
                    if let Some(next) = self.episode() {
                        self.races[at] = next;
                    }
                }
            }
        }
        all
    }

    /// Takes one answer for every question, in order; those of races that are over are passed over.
    pub fn answer(&mut self, questions: &[Question], actions: &[u8]) {
        for (question, action) in questions.iter().zip(actions) {
            if question.over {
                continue;
            }
            let (race, car) = (question.slot as usize / 32, question.slot as usize % 32);
            let legal = usize::from(*action) < ACTIONS && question.legal >> action & 1 != 0;
            // Else the first that is: staying out, unless a rule forbids it.
            let first = question.legal.trailing_zeros() as usize % ACTIONS;
            let (decision, laps) = meaning(if legal { usize::from(*action) } else { first });
            let episode = &mut self.races[race];
            episode.held[car] = Some(Held {
                decision,
                until: episode.simulation.next_lap() + laps,
                earned: 0.0,
                waits: false,
            });
        }
    }
}

impl Episode<'_> {
    /// Asks for every controlled car whose decision is over; those wait for an answer.
    fn ask(&mut self, race: u32, all: &mut Vec<Question>) {
        let upcoming = self.simulation.upcoming();
        let under = (upcoming.status, upcoming.level);
        let changed = under != self.asked_under;
        self.asked_under = under;
        for car in 0..self.held.len() {
            if self.controlled >> car & 1 == 0 || !self.simulation.cars()[car].running {
                continue;
            }
            let (due, reward) = match self.held[car] {
                None => (true, 0.0),
                Some(h) => (
                    !h.waits && (changed || self.simulation.next_lap() >= h.until),
                    h.earned,
                ),
            };
            if due {
                all.push(Question {
                    slot: 32 * race + car as u32,
                    reward,
                    over: false,
                    legal: legal(&self.simulation, car, &upcoming),
                    state: state(&self.simulation, car, &upcoming),
                });
                // Until the answer comes it stays out.
                self.held[car] = Some(Held {
                    decision: Decision::Stay,
                    until: i32::MAX,
                    earned: 0.0,
                    waits: true,
                });
            }
        }
    }

    fn drive(&mut self) {
        let before: Vec<i32> = self.times();
        let held = &self.held;
        self.simulation
            .step(|car, _| held[car].map_or(Decision::Plan, |h| h.decision));
        let after: Vec<i32> = self.times();
        let running = |i: &usize| self.simulation.cars()[*i].running && after[*i] < OUT_MS;
        let (mut sum, mut n) = (0.0, 0.0);
        for i in (0..after.len()).filter(running) {
            sum += (after[i] - before[i]) as f32;
            n += 1.0;
        }
        let mean = sum / f32::max(n, 1.0);
        for i in 0..after.len() {
            let on = self.simulation.cars()[i].running && after[i] < OUT_MS;
            if let (true, Some(h)) = (on, &mut self.held[i]) {
                h.earned += (mean - (after[i] - before[i]) as f32) / 1000.0;
            }
        }
    }

    fn times(&self) -> Vec<i32> {
        (0..self.held.len())
            .map(|i| self.simulation.time_ms(i))
            .collect()
    }

    /// The race is over: what is still owed.
    fn close(&self, race: u32, all: &mut Vec<Question>) {
        let middle = (self.held.len() as f32 + 1.0) / 2.0;
        for (car, held) in self.held.iter().enumerate() {
            let Some(h) = held else { continue };
            let driving = &self.simulation.cars()[car];
            let mut reward = h.earned;
            if driving.running {
                reward += PLACE_S * (middle - self.simulation.position(car) as f32);
            } else if driving.overran
                || breaks_rules(self.simulation.problem(), driving.used, driving.changes)
            {
                reward -= RULE_S;
            }
            all.push(Question {
                slot: 32 * race + car as u32,
                reward,
                over: true,
                legal: 0,
                state: [0.0; STATE],
            });
        }
    }
}

/// What holds on the lap under way at the start of a simulation: a status that has run out is over.
pub fn at_start(problem: &Problem) -> Race {
    let mut race = Race::of(problem);
    if race.left == 0 {
        race.status = 0;
    }
    race
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pays of all finished cars when every question is answered by `choose`.
    fn play(rounds: usize, choose: impl Fn(&Question) -> u8) -> (Vec<Question>, Vec<f32>) {
        let problems = problems(&Parameters::shipped(), 8, 3).unwrap();
        let mut environment = Environment::new(&problems, 4, 3);
        let (mut all, mut pays) = (Vec::new(), std::collections::BTreeMap::new());
        let mut finished = Vec::new();
        for _ in 0..rounds {
            let questions = environment.questions();
            assert!(!questions.is_empty());
            for q in &questions {
                *pays.entry(q.slot).or_insert(0.0) += q.reward;
                if q.over {
                    finished.push(pays.remove(&q.slot).unwrap_or(0.0));
                } else {
                    assert!(q.legal & 1 != 0 && q.state.iter().all(|v| v.is_finite()));
                }
            }
            let actions: Vec<u8> = questions.iter().map(&choose).collect();
            environment.answer(&questions, &actions);
            all.extend(questions);
        }
        (all, finished)
    }

    #[test]
    fn the_same_answers_bring_the_same_questions() {
        let one_stop = |q: &Question| u8::from(q.state[2] > 0.7) * 3;
        assert_eq!(play(60, one_stop), play(60, one_stop));
    }

    #[test]
    fn who_never_stops_pays_for_the_rule() {
        let stay = play(400, |_| 0).1;
        let stop = play(400, |q| {
            if q.state[14] > 0.0 && q.state[1] < 0.5 {
                3
            } else {
                0
            }
        })
        .1;
        let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
        assert!(stay.len() > 10 && stop.len() > 10);
        assert!(
            mean(&stay) < mean(&stop) - 8.0,
            "{} {}",
            mean(&stay),
            mean(&stop)
        );
    }

    #[test]
    fn who_commits_is_asked_less() {
        let per_race = |action: u8| {
            let choose = |q: &Question| {
                if q.legal >> action & 1 != 0 {
                    action
                } else {
                    0
                }
            };
            let (all, finished) = play(300, choose);
            all.iter().filter(|q| !q.over).count() as f64 / finished.len() as f64
        };
        let (every_lap, every_ten) = (per_race(0), per_race(9));
        assert!(every_ten < 0.6 * every_lap, "{every_ten} {every_lap}");
    }
}
