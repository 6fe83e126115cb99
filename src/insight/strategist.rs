//! The strategist: simulated races on a thread of their own, for the cars that matter and for whoever asks.
//!
//! A car that passes a mini-sector is put on the list ([`Strategist::consider`]); a car that is on it already is
//! not put there twice, and is judged by the newest snapshot when its turn comes. Who asks ([`Strategist::ask`]) goes
//! first and is answered.
//!
//! Beside Monte Carlo's advice stands what the pit network would do, where there is one; where they disagree the answer
//! says so, and [`OPINIONS`] counts it.
//!
//! Its share of the machine is bounded: after an answer that took t it rests [`REST_ON_CPU`]·t, on a GPU
//! [`REST_ON_GPU`]·t, unless somebody asks; its threads give way to all others.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{Insight, Origin, Outlets, shed, took};
use crate::compute::{By, Processor, Witness};
use crate::live::Snapshot;
use crate::race::MAX_CARS;
use crate::strategy::model::Start;
use crate::strategy::moment::Moment;
use crate::strategy::opinion::Opinion;
use crate::strategy::parameters::Parameters;
use crate::strategy::planner::{Advice, PlannerError, Question, advise_on};
use crate::strategy::rules::Told;

/// Races that each of the best plans is tried on.
pub const RACES: u32 = 400;
/// Rest after an answer, in times of what it took: a tenth of the processor, half of a GPU.
pub const REST_ON_CPU: u32 = 9;
pub const REST_ON_GPU: u32 = 1;
/// Most people who wait for an answer.
pub const MOST_ASKERS: usize = 16;
/// Plans of an answer that are told.
const PLANS_TOLD: usize = 5;
/// Counter of the network's opinions; label `monte_carlo`: `agrees`, `disagrees`; `none` where it had none to give.
pub const OPINIONS: &str = "trackside_strategy_opinions_total";

/// What a car should do about its stops.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StrategyInsight {
    #[serde(flatten)]
    pub origin: Origin,
    /// Races of each of the best plans, and their seed.
    pub races: u32,
    pub seed: u64,
    #[serde(flatten)]
    pub advice: Advice,
    /// What the pit network would do, and whether Monte Carlo agrees; none without the network.
    pub network: Option<Opinion>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoAnswer {
    #[error("{MOST_ASKERS} questions are waiting already; ask again in a moment")]
    Busy,
    #[error("car {0} is not in this session")]
    NoCar(u8),
    #[error("only races are planned, and this session is none")]
    NoRace,
    #[error(transparent)]
    Planner(#[from] PlannerError),
    #[error("the daemon is stopping")]
    Stopping,
}

type Answer = Result<Arc<StrategyInsight>, NoAnswer>;

/// What waits for the strategist.
#[derive(Default)]
struct Waiting {
    snapshot: Option<Arc<Snapshot>>,
    cars: VecDeque<u8>,
    asked: VecDeque<(u8, oneshot::Sender<Answer>)>,
    stop: bool,
}

/// The way to the strategist's thread. Clones lead to the same.
#[derive(Clone, Default)]
pub struct Strategist(Arc<(Mutex<Waiting>, Condvar)>);

impl Strategist {
    /// Puts cars on the list, to be judged by that snapshot or a newer one.
    pub fn consider(&self, snapshot: &Arc<Snapshot>, cars: &[u8]) {
        let mut waiting = self.lock();
        waiting.snapshot = Some(Arc::clone(snapshot));
        for car in cars {
            if waiting.cars.contains(car) || waiting.cars.len() >= MAX_CARS {
                shed("questions", 1);
            } else {
                waiting.cars.push_back(*car);
            }
        }
        self.0.1.notify_one();
    }

    /// Asks about a car as it stands now.
    ///
    /// # Errors
    /// [`NoAnswer`], if there is none.
    pub async fn ask(&self, snapshot: Arc<Snapshot>, driver_number: u8) -> Answer {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.lock();
            if waiting.asked.len() >= MOST_ASKERS {
                return Err(NoAnswer::Busy);
            }
            waiting.snapshot = Some(snapshot);
            waiting.asked.push_back((driver_number, answer));
            self.0.1.notify_one();
        }
        answered.await.unwrap_or(Err(NoAnswer::Stopping))
    }

    /// Ends the thread after what it is doing; who waits is told.
    pub fn stop(&self) {
        let mut waiting = self.lock();
        waiting.stop = true;
        waiting.asked.clear();
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Who panicked left whole values here.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next car, and who asked about it; waits for one, before `rested` only for somebody who asks.
    fn next(
        &self,
        rested: Instant,
    ) -> Option<(Arc<Snapshot>, u8, Option<oneshot::Sender<Answer>>)> {
        let mut waiting = self.lock();
        loop {
            if waiting.stop {
                return None;
            }
            let rest = rested.saturating_duration_since(Instant::now());
            if let Some(snapshot) = waiting.snapshot.clone() {
                if let Some((car, asker)) = waiting.asked.pop_front() {
                    return Some((snapshot, car, Some(asker)));
                }
                if rest.is_zero()
                    && let Some(car) = waiting.cars.pop_front()
                {
                    return Some((snapshot, car, None));
                }
            }
            let patience = if waiting.cars.is_empty() {
                PATIENCE
            } else {
                rest.min(PATIENCE)
            };
            let (held, _) = (self.0.1)
                .wait_timeout(waiting, patience.max(Duration::from_millis(1)))
                .unwrap_or_else(PoisonError::into_inner);
            waiting = held;
        }
    }

    /// Answers until [`Strategist::stop`], by the rules of the race as `told` or as the table has them. `processor` says
    /// what to compute on now.
    pub fn run(
        &self,
        parameters: &Parameters,
        told: Told,
        outlets: &Outlets,
        processor: impl Fn() -> Processor,
    ) {
        let mut rested = Instant::now();
        while let Some((snapshot, car, asker)) = self.next(rested) {
            let processor = processor();
            let began = Instant::now();
            let answer = answer(&snapshot, car, (parameters, told), &processor);
            let by = (answer.as_ref()).map_or(By::Cpu, |insight| insight.origin.backend);
            let rest = match by {
                By::Cpu => REST_ON_CPU,
                By::Cuda => REST_ON_GPU,
            };
            match &answer {
                Ok(insight) => {
                    took("strategy", insight.origin.backend, began);
                    outlets.say(Insight::Strategy(Arc::clone(insight)));
                }
                Err(e) => tracing::debug!(car, "no strategy: {e}"),
            }
            if let Some(asker) = asker {
                // Who asked may have gone.
                let _ = asker.send(answer);
            }
            rested = Instant::now() + began.elapsed() * rest;
        }
    }
}

#[cfg(test)]
impl Strategist {
    pub(super) fn waiting(&self) -> usize {
        self.lock().cars.len()
    }

    pub(super) fn askers(&self) -> usize {
        self.lock().asked.len()
    }
}

/// How long it waits before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(500);

fn answer(
    snapshot: &Snapshot,
    driver_number: u8,
    (parameters, told): (&Parameters, Told),
    processor: &Processor,
) -> Answer {
    let race = &snapshot.race;
    if !race.session.session_type.is_race() {
        return Err(NoAnswer::NoRace);
    }
    let mut start = Start::at(parameters, &Moment::of(race, snapshot.laps));
    start.rules = told.over(start.rules);
    let car = start.cars.iter().position(|c| c.number == driver_number);
    let session_key = race.session.key.unwrap_or_default();
    let question = Question {
        car: car.ok_or(NoAnswer::NoCar(driver_number))?,
        races: RACES,
        // The same luck all race long: answers differ by what has happened.
        seed: u64::from(session_key.unsigned_abs()),
    };
    let witness = Witness::of(processor);
    let mut advice = advise_on(&witness, &start, parameters, question)?;
    let network = opinion(snapshot, &start, parameters, question.car, &advice);
    advice.plans.truncate(PLANS_TOLD);
    Ok(Arc::new(StrategyInsight {
        origin: Origin {
            session_key,
            made_at: race.clock,
            seq: snapshot.seq,
            backend: witness.by(),
        },
        races: question.races,
        seed: question.seed,
        advice,
        network,
    }))
}

/// The network's opinion, by the models that the snapshot was made with. A network that fails leaves Monte Carlo's
/// advice as it is.
fn opinion(
    snapshot: &Snapshot,
    start: &Start,
    parameters: &Parameters,
    car: usize,
    advice: &Advice,
) -> Option<Opinion> {
    let policy = snapshot.models.policy.as_ref()?;
    let opinion = policy.opinion(start, parameters, car, Some(advice));
    let word = match &opinion {
        Ok(opinion) if opinion.agrees == Some(true) => "agrees",
        Ok(_) => "disagrees",
        Err(e) => {
            tracing::warn!(model = policy.model().id(), "no second opinion: {e}");
            "none"
        }
    };
    metrics::counter!(OPINIONS, "monte_carlo" => word).increment(1);
    opinion.ok()
}
