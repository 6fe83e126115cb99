//! The Monte Carlo planner: what each plan of a car makes of the race, over the same simulated races.
//!
//! Candidates are tried in two rounds with common random numbers: each over a share of the races, then the best of
//! them, and every "box now", over all. So two plans differ by what they do and not by luck: the difference of two
//! means is far more certain than either. The recommendation is the plan with the best mean finishing position, if
//! over those races it beats staying out for now by more than [`SURE`] standard errors, in places or, where places do
//! not tell, in time; else it is staying out, which can still become any of them. The reason gives it against the best
//! of the other kind (staying out, or boxing).
//!
//! The races are those of [`RaceMonteCarlo`], on whichever backend: it is the one definition of a simulated race.
//!
//! **Invariant:** pure: same start, parameters, seed and number of races, same advice, whatever the backend.

use serde::Serialize;

use super::model::{Entrant, LapsFrom, ModelError, Start};
use super::parameters::Parameters;
use super::rules::{self, Illegal, Rules};
use super::snapshot::compound_of;
use crate::compute::race_monte_carlo::{MAX_STOPS, OUT_MS, Plan, Problem, Stop, car_of, time_ms};
use crate::compute::{Backend, Cpu, RaceMonteCarlo};

/// Most candidates of a question.
pub const MAX_CANDIDATES: usize = 96;
/// Share of the races of the first round.
const FIRST_ROUND: u32 = 8;
/// Fewest races of the first round.
const LEAST_RACES: u32 = 64;
/// Candidates of the second round, "box now" aside.
const FINALISTS: usize = 6;
/// Most races of a question.
pub const MAX_RACES: u32 = 1_000_000;
/// Keys that are asked for at a time (4 bytes each): plans of few races go together, many races of one plan in parts.
const KEYS_AT_ONCE: usize = 1 << 22;
/// A plan within this many places of the best is as good (pit window).
const AS_GOOD: f64 = 0.15;
/// Standard errors from which one plan is better than another.
pub const SURE: f64 = 2.0;
/// Fewest laps between two stops, and before the flag.
const SHORTEST_STINT: i32 = 6;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Place of the car in [`Start::cars`].
    pub car: usize,
    pub races: u32,
    pub seed: u64,
}

/// A plan to be tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Such as `box now for HARD`.
    pub name: String,
    pub kind: Kind,
    /// In-laps and compounds.
    pub stops: Vec<(i32, &'static str)>,
    #[serde(skip)]
    pub plan: Plan,
}

/// What kind of plan it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No stop now; later as tyre life and safety cars ask.
    Stay,
    /// In on the lap that is under way.
    BoxNow,
    /// In some laps on.
    BoxLater,
    /// All stops to the flag laid down.
    Schedule,
}

/// What a plan makes of the race.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outlook {
    #[serde(flatten)]
    pub candidate: Candidate,
    pub races: u32,
    /// Finishing position; a car that is out counts with its place among them.
    pub position: Spread,
    /// Time to the flag from now (s), over the races that it finishes.
    pub time_s: Spread,
    /// Probability of each position, from the first.
    pub probability: Vec<f64>,
    pub win: f64,
    pub podium: f64,
    pub points: f64,
    pub out: f64,
    /// Probability of finishing ahead of, and behind, the present position.
    pub gain: f64,
    pub lose: f64,
}

/// P10, mean and P90.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub p10: f64,
    pub mean: f64,
    pub p90: f64,
}

/// One plan against another over the same races.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Places gained on average (above 0: better), and the standard error of that.
    pub places: f64,
    pub error: f64,
    /// Share of the races in which it is better, and worse.
    pub better: f64,
    pub worse: f64,
    /// Time gained on average (s), over the races that both finish, and the standard error of that.
    pub seconds: f64,
    pub seconds_error: f64,
}

/// When a stop is as good as at its best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Window {
    pub compound: &'static str,
    /// First and last in-lap.
    pub opens: i32,
    pub closes: i32,
    pub best: i32,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    pub driver_number: u8,
    /// Laps done, and laps of the race.
    pub lap: u16,
    pub laps: u16,
    /// How the laps of the race are known; where they are a guess, the reason says so, too.
    pub laps_from: LapsFrom,
    /// What the race asks for beyond two compounds; the reason says where that forces a stop.
    #[serde(skip_serializing_if = "Rules::is_none")]
    pub rules: Rules,
    pub position: usize,
    pub recommended: String,
    /// In words and numbers.
    pub reason: String,
    /// The recommended plan against the best of the other kind.
    pub against: Option<(String, Difference)>,
    pub window: Option<Window>,
    /// The recommended one, then by mean position.
    pub plans: Vec<Outlook>,
}

/// Why there is no advice.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlannerError {
    #[error("car {0} races no more: it has finished or is out, and there is nothing to plan")]
    Out(u8),
    #[error("the race is over: {0} of {1} laps are done")]
    Over(u16, u16),
    #[error("{0} simulations; ask for 16 to {MAX_RACES}")]
    Races(u32),
    #[error(transparent)]
    Illegal(#[from] Illegal),
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Positions (from 1) and times to the flag (ms; `None`: out) of our car, race by race.
#[derive(Default)]
struct Run {
    position: Vec<u8>,
    time_ms: Vec<Option<i32>>,
}

/// Advises a car, on the CPU.
///
/// # Errors
/// As [`advise_on`].
pub fn advise(
    start: &Start,
    parameters: &Parameters,
    question: Question,
) -> Result<Advice, PlannerError> {
    advise_on(&Cpu, start, parameters, question)
}

/// Advises a car, its races simulated by that backend.
///
/// # Errors
/// If the car is out, the race over, or the race cannot be simulated; if no plan of the car keeps the rules any more, or
/// one that another car was given does not.
pub fn advise_on(
    backend: &dyn Backend,
    start: &Start,
    parameters: &Parameters,
    question: Question,
) -> Result<Advice, PlannerError> {
    // Before the car is looked at: whoever has seen the flag does not race any more either.
    if start.lap >= start.laps {
        return Err(PlannerError::Over(start.lap, start.laps));
    }
    let entrant = &start.cars[question.car];
    if !entrant.running {
        return Err(PlannerError::Out(entrant.number));
    }
    if !(16..=MAX_RACES).contains(&question.races) {
        return Err(PlannerError::Races(question.races));
    }
    rules::possible(start, entrant)?;
    for (i, other) in start.cars.iter().enumerate() {
        if i != question.car && other.running && other.plan != Plan::default() {
            rules::check(start, other, &other.plan)?;
        }
    }
    let problem = start.problem(parameters)?;
    let position = position(start, question.car);
    let few = (question.races / FIRST_ROUND)
        .max(LEAST_RACES)
        .min(question.races);
    let all = candidates(start, question.car);
    let runs = run(backend, &problem, &all, question, few)?;
    let mut first: Vec<(f64, Candidate)> = runs.iter().map(value).zip(all).collect();
    let window = window(&first);
    // A stable sort: of equals the one that was thought of first.
    first.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut finalists: Vec<Candidate> = Vec::new();
    for (place, (_, candidate)) in first.into_iter().enumerate() {
        if place < FINALISTS || matches!(candidate.kind, Kind::BoxNow | Kind::Stay) {
            finalists.push(candidate);
        }
    }
    let runs = run(backend, &problem, &finalists, question, question.races)?;
    let mut tried: Vec<(f64, Run, Candidate)> = runs
        .into_iter()
        .zip(finalists)
        .map(|(run, candidate)| (value(&run), run, candidate))
        .collect();
    tried.sort_by(|a, b| a.0.total_cmp(&b.0));
    prefer_staying_out(&mut tried);
    Ok(advice(start, question, position, window, tried))
}

/// Puts staying out first, unless the best plan is sure to gain something over it.
fn prefer_staying_out(tried: &mut [(f64, Run, Candidate)]) {
    let Some(stay) = tried.iter().position(|(_, _, c)| c.kind == Kind::Stay) else {
        return;
    };
    if !difference(&tried[0].1, &tried[stay].1).is_gain() {
        tried[..=stay].rotate_right(1);
    }
}

impl Difference {
    /// Whether the one plan is sure to gain something over the other: places, or time where places do not tell.
    fn is_gain(&self) -> bool {
        let level = self.places.abs() <= SURE * self.error;
        self.places > SURE * self.error || (level && self.seconds > SURE * self.seconds_error)
    }
}

fn advice(
    start: &Start,
    question: Question,
    position: usize,
    window: Option<Window>,
    tried: Vec<(f64, Run, Candidate)>,
) -> Advice {
    let cars = start.cars.len();
    let now = |c: &Candidate| c.kind == Kind::BoxNow;
    let (_, best_run, best) = &tried[0];
    let other = tried.iter().find(|(_, _, c)| now(c) != now(best));
    let against = other.map(|(_, run, c)| (c.name.clone(), difference(best_run, run)));
    let plans: Vec<Outlook> = tried
        .iter()
        .map(|(_, run, c)| outlook(run, c.clone(), position, cars))
        .collect();
    Advice {
        driver_number: start.cars[question.car].number,
        lap: start.lap,
        laps: start.laps,
        laps_from: start.laps_from,
        rules: start.rules,
        position,
        recommended: best.name.clone(),
        reason: reason(&plans[0], against.as_ref(), position, window)
            + &rules::asked(start, &start.cars[question.car])
            + &doubt(start),
        against,
        window,
        plans,
    }
}

/// Present position of a car among those that run.
pub fn position(start: &Start, car: usize) -> usize {
    let own = start.cars[car].behind_s;
    1 + start
        .cars
        .iter()
        .enumerate()
        .filter(|(i, c)| *i != car && c.running && (c.behind_s, *i) < (own, car))
        .count()
}

/// The plans that make sense for a car now and keep the rules of the race.
pub fn candidates(start: &Start, car: usize) -> Vec<Candidate> {
    let entrant = &start.cars[car];
    let (next, laps) = (i32::from(start.lap) + 1, i32::from(start.laps));
    let left = laps - i32::from(start.lap);
    let dry = (0..3_u8).filter(|c| entrant.available >> c & 1 != 0);
    let fitting: Vec<u8> = match start.level {
        0 => dry.collect(),
        1 => vec![3, 4],
        _ => vec![4, 3],
    };
    let dry_used = entrant.used & 0b111;
    let owing = !start.sprint && entrant.used & 0b1_1000 == 0 && dry_used.count_ones() < 2;
    let legal = |taken: &[u8]| !owing || taken.iter().any(|c| *c > 2 || dry_used & 1 << c == 0);
    let mut all = vec![plan("stay out", Kind::Stay, &[], false)];
    // The lap under way counts as "now"; on the last lap nobody boxes.
    if left >= 2 {
        for &c in &fitting {
            let name = format!("box now for {}", compound_of(c).name());
            all.push(plan(&name, Kind::BoxNow, &[(next, c)], false));
        }
    }
    if !owing && start.level == 0 {
        all.push(plan("stay out to the flag", Kind::Schedule, &[], true));
    }
    for wait in [1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 25, 30, 36] {
        if next + wait >= laps - 1 {
            break;
        }
        for &c in &fitting {
            let name = format!("box on lap {} for {}", next + wait, compound_of(c).name());
            all.push(plan(&name, Kind::BoxLater, &[(next + wait, c)], false));
        }
    }
    if start.level == 0 {
        all.extend(schedules(start, entrant, &fitting, legal));
    }
    let forced = rules::forced(start, entrant).is_some();
    all.retain(|c| {
        let in_time = c.kind == Kind::BoxNow || !forced;
        in_time && rules::check(start, entrant, &c.plan).is_ok()
    });
    all.truncate(MAX_CANDIDATES);
    all
}

/// Most stops of a schedule: three, or four where a rule asks for more than three.
fn most_stops(start: &Start, car: &Entrant) -> i32 {
    let rules = start.rules;
    let owed = i32::from(rules.min_stops) - i32::from(car.changes);
    let longest = i32::from(rules.longest_stint_laps);
    let left = i32::from(start.laps - start.lap);
    let by_stint = match longest {
        0 => 0,
        _ => (left + i32::from(car.age) - 1) / longest,
    };
    owed.max(by_stint).clamp(3, MAX_STOPS as i32)
}

/// One, two and three stops at even distances, later stints on tyres that last no less than the ones before; four, where
/// a rule asks for more than three. Where a set may not stay on until then, the first comes sooner.
fn schedules(
    start: &Start,
    car: &Entrant,
    fitting: &[u8],
    legal: impl Fn(&[u8]) -> bool,
) -> Vec<Candidate> {
    let (next, laps) = (i32::from(start.lap) + 1, i32::from(start.laps));
    let mut found = Vec::new();
    let words = ["one stop", "two stops", "three stops", "four stops"];
    for stops in 1..=most_stops(start, car) {
        let mut stint = (laps - next + 1) / (stops + 1);
        if stint < SHORTEST_STINT {
            break;
        }
        let mut first = next - 1 + stint;
        let longest = i32::from(start.rules.longest_stint_laps);
        let comes_off = next - 1 + (longest - i32::from(car.age)).max(1);
        if longest > 0 && comes_off < first {
            first = comes_off;
            // Rounded up: what is left over makes the last stint shorter, not longer.
            stint = (laps - first + stops - 1) / stops;
        }
        let mut choices: Vec<Vec<u8>> = vec![Vec::new()];
        for _ in 0..stops {
            choices = choices
                .iter()
                .flat_map(|taken| {
                    fitting
                        .iter()
                        .map(move |c| [taken.as_slice(), &[*c]].concat())
                })
                .filter(|taken| taken.is_sorted() || taken.iter().rev().is_sorted())
                .collect();
        }
        for taken in choices.iter().filter(|t| legal(t)) {
            let at: Vec<(i32, u8)> = (1..)
                .zip(taken)
                .map(|(i, c)| (first + (i - 1) * stint, *c))
                .collect();
            let list: Vec<String> = at
                .iter()
                .map(|(lap, c)| format!("{} on lap {lap}", compound_of(*c).name()))
                .collect();
            let name = format!("{}: {}", words[stops as usize - 1], list.join(", "));
            found.push(plan(&name, Kind::Schedule, &at, true));
        }
    }
    found
}

fn plan(name: &str, kind: Kind, stops: &[(i32, u8)], only: bool) -> Candidate {
    let mut plan = Plan {
        count: stops.len() as i32,
        // A stop that is to come may come early under a safety car.
        reactive: i32::from(kind != Kind::BoxNow),
        only: i32::from(only),
        ..Plan::default()
    };
    for (slot, (lap, compound)) in plan.stops.iter_mut().zip(stops) {
        *slot = Stop {
            lap: *lap,
            compound: i32::from(*compound),
        };
    }
    Candidate {
        name: name.to_owned(),
        kind,
        stops: stops
            .iter()
            .map(|(lap, c)| (*lap, compound_of(*c).name()))
            .collect(),
        plan,
    }
}

/// The same races under each of the plans.
fn run(
    backend: &dyn Backend,
    problem: &Problem,
    candidates: &[Candidate],
    question: Question,
    races: u32,
) -> Result<Vec<Run>, ModelError> {
    let (car, count) = (question.car, problem.count as usize);
    let each = (races as usize).min((KEYS_AT_ONCE / count).max(1));
    let together = (KEYS_AT_ONCE / (each * count)).max(1);
    let mut runs = Vec::with_capacity(candidates.len());
    for candidates in candidates.chunks(together) {
        let problems: Vec<Problem> = candidates
            .iter()
            .map(|candidate| {
                let mut problem = problem.clone();
                problem.cars[car].plan = candidate.plan;
                problem
            })
            .collect();
        let mut part: Vec<Run> = candidates.iter().map(|_| Run::default()).collect();
        for first in (0..races).step_by(each) {
            let now = each.min((races - first) as usize);
            let mut keys = vec![0; problems.len() * now * count];
            backend.run(&mut RaceMonteCarlo {
                problems: &problems,
                seed: question.seed,
                first,
                keys: &mut keys,
            })?;
            for (run, keys) in part.iter_mut().zip(keys.chunks(now * count)) {
                run.take(keys, count, car, problem.cars[car].time_ms);
            }
        }
        runs.extend(part);
    }
    Ok(runs)
}

impl Run {
    /// Adds races, of which the car begins at the time `from` (ms).
    fn take(&mut self, keys: &[i32], count: usize, car: usize, from: i32) {
        for race in keys.chunks(count) {
            // Every car has one key in each race.
            let place = race
                .iter()
                .position(|k| car_of(*k) == car)
                .unwrap_or(count - 1);
            let t = time_ms(race[place]);
            self.position.push(place as u8 + 1);
            self.time_ms.push((t < OUT_MS).then_some(t - from));
        }
    }
}

/// What plans are ranked by: the mean position; of equals the quicker (a place is worth more than any time).
fn value(run: &Run) -> f64 {
    let n = run.position.len() as f64;
    let position = run.position.iter().map(|p| f64::from(*p)).sum::<f64>() / n;
    let times: Vec<f64> = run
        .time_ms
        .iter()
        .flatten()
        .map(|t| f64::from(*t))
        .collect();
    let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
    position + mean * 1e-9
}

fn spread(values: &mut [f64]) -> Spread {
    if values.is_empty() {
        return Spread::default();
    }
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Spread {
        p10: at(0.1),
        mean: values.iter().sum::<f64>() / values.len() as f64,
        p90: at(0.9),
    }
}

fn outlook(run: &Run, candidate: Candidate, now: usize, cars: usize) -> Outlook {
    let n = run.position.len() as f64;
    let share = |f: &dyn Fn(usize) -> bool| {
        run.position.iter().filter(|p| f(usize::from(**p))).count() as f64 / n
    };
    let mut positions: Vec<f64> = run.position.iter().map(|p| f64::from(*p)).collect();
    let mut times: Vec<f64> = run
        .time_ms
        .iter()
        .flatten()
        .map(|t| f64::from(*t) / 1000.0)
        .collect();
    Outlook {
        candidate,
        races: run.position.len() as u32,
        probability: (1..=cars).map(|place| share(&|p| p == place)).collect(),
        win: share(&|p| p == 1),
        podium: share(&|p| p <= 3),
        points: share(&|p| p <= 10),
        gain: share(&|p| p < now),
        lose: share(&|p| p > now),
        out: 1.0 - times.len() as f64 / n,
        position: spread(&mut positions),
        time_s: spread(&mut times),
    }
}

fn difference(a: &Run, b: &Run) -> Difference {
    let n = a.position.len().min(b.position.len()) as f64;
    let gained = || {
        a.position
            .iter()
            .zip(&b.position)
            .map(|(a, b)| f64::from(*b) - f64::from(*a))
    };
    let places = gained().sum::<f64>() / n;
    let variance = gained().map(|d| (d - places) * (d - places)).sum::<f64>() / n;
    let both: Vec<f64> = a
        .time_ms
        .iter()
        .zip(&b.time_ms)
        .filter_map(|(a, b)| Some(f64::from((*b)? - (*a)?) / 1000.0))
        .collect();
    let shared = both.len().max(1) as f64;
    let seconds = both.iter().sum::<f64>() / shared;
    let spread = both.iter().map(|s| (s - seconds) * (s - seconds));
    let spread = spread.sum::<f64>() / shared;
    Difference {
        places,
        error: (variance / n).sqrt(),
        better: gained().filter(|d| *d > 0.0).count() as f64 / n,
        worse: gained().filter(|d| *d < 0.0).count() as f64 / n,
        seconds,
        seconds_error: (spread / shared).sqrt(),
    }
}

/// From the first round: over which in-laps the best compound's stop is within [`AS_GOOD`] of its best.
fn window(first: &[(f64, Candidate)]) -> Option<Window> {
    let stops = || {
        first
            .iter()
            .filter(|(_, c)| matches!(c.kind, Kind::BoxNow | Kind::BoxLater) && c.plan.count == 1)
            .map(|(v, c)| (*v, c.plan.stops[0]))
    };
    let (best_value, best) = stops().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let mut good: Vec<i32> = stops()
        .filter(|(v, s)| s.compound == best.compound && *v <= best_value + AS_GOOD)
        .map(|(_, s)| s.lap)
        .collect();
    good.sort_unstable();
    Some(Window {
        compound: compound_of(best.compound as u8).name(),
        opens: *good.first()?,
        closes: *good.last()?,
        best: best.lap,
    })
}

/// What is to be said of the race's length.
fn doubt(start: &Start) -> String {
    match start.laps_from {
        LapsFrom::Guess => format!(". That the race has {} laps is a guess", start.laps),
        LapsFrom::Measured => format!(
            ". That the race has {} laps follows from the lap as telemetry measures it, and may be one off",
            start.laps
        ),
        LapsFrom::Told | LapsFrom::Calendar | LapsFrom::Circuit => String::new(),
    }
}

fn reason(
    best: &Outlook,
    against: Option<&(String, Difference)>,
    now: usize,
    window: Option<Window>,
) -> String {
    let mut text = format!(
        "{}: P{:.1} on average (P{:.0} to P{:.0} in eight races of ten), up from P{now} in {:.0} %, down in {:.0} %",
        best.candidate.name,
        best.position.mean,
        best.position.p10,
        best.position.p90,
        100.0 * best.gain,
        100.0 * best.lose,
    );
    if let Some((name, d)) = against {
        let by = if d.places > SURE * d.error {
            format!("gains {:.2} places", d.places)
        } else {
            format!(
                "no telling apart ({:+.2} ± {:.2} places)",
                d.places, d.error
            )
        };
        text += &format!(
            ". Against \"{name}\": {by}, {:+.1} s; better in {:.0} % of the same races, worse in {:.0} %",
            d.seconds,
            100.0 * d.better,
            100.0 * d.worse,
        );
    }
    if let Some(w) = window {
        text += &format!(
            ". Window for {}: laps {} to {}, best {}",
            w.compound, w.opens, w.closes, w.best
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places and times (ms) of a plan, race by race.
    fn tried(name: &str, kind: Kind, races: &[(u8, i32)]) -> (f64, Run, Candidate) {
        let run = Run {
            position: races.iter().map(|r| r.0).collect(),
            time_ms: races.iter().map(|r| Some(r.1)).collect(),
        };
        (value(&run), run, plan(name, kind, &[], false))
    }

    fn first(mut plans: Vec<(f64, Run, Candidate)>) -> String {
        plans.sort_by(|a, b| a.0.total_cmp(&b.0));
        prefer_staying_out(&mut plans);
        plans[0].2.name.clone()
    }

    #[test]
    fn within_the_noise_it_stays_out() {
        let stay: Vec<(u8, i32)> = (0..400).map(|i| (1 + (i % 3) as u8, 90_000)).collect();
        let like_it = |races: usize, place: i16, ms: i32| -> Vec<(u8, i32)> {
            let moved = |(i, (p, t)): (usize, &(u8, i32))| {
                let moves = i % 400 < races;
                let p = if moves {
                    (i16::from(*p) + place).max(1) as u8
                } else {
                    *p
                };
                (p, t + ms + (i as i32 % 5 - 2) * 100)
            };
            stay.iter().enumerate().map(moved).collect()
        };
        let against = |races: &[(u8, i32)]| {
            first(vec![
                tried("stay out", Kind::Stay, &stay),
                tried("box now", Kind::BoxNow, races),
            ])
        };
        // One race of four hundred is luck; two in five are not.
        assert_eq!(against(&like_it(1, -1, 3_100)), "stay out");
        assert_eq!(against(&like_it(160, -1, 3_100)), "box now");
        // Where places do not tell, time does.
        assert_eq!(against(&like_it(0, 0, -2_000)), "box now");
        assert_eq!(against(&like_it(0, 0, 2_000)), "stay out");
        // Quicker, but sure to lose places.
        assert_eq!(against(&like_it(160, 1, -2_000)), "stay out");
    }
}
