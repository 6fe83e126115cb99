//! `trackside evaluate pit`: the next stop, and how much a policy loses against hindsight.
//!
//! The question is asked when a car ends a lap, from what is known then: will it box at the end of one of the next two
//! laps? Every such row of every race counts once. Beside the network: the floor, and the fixed plan (box when the
//! tyres reach the typical stint here). `limit` in the JSON says what any threshold could reach with these
//! probabilities, and what a balanced set would have shown.
//!
//! Regret is simulated: each dry race's grid, every third car, the same luck for every plan.

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::Common;
use super::races::side_by_side;
use crate::dataset::pit::{Collector, Sample, samples};
use crate::dataset::pit_cases::cases;
use crate::dataset::pit_scores::{Answer, Scores};
use crate::dataset::{Dataset, RaceData};
use crate::predict::Floor;
use crate::predict::stops::{FORECAST, StopModel};
use crate::strategy::opinion::{PIT, Policy};
use crate::strategy::parameters::Parameters;
use crate::strategy::policy::ACTIONS;
use crate::strategy::regret::Regret;

/// Seed of the simulated races.
const SEED: u64 = 2024;

/// The next stop, and what a policy loses against hindsight.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// Simulated races a car that regret is measured on; 0 leaves it out.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(super) regret_races: u32,
}

/// Every figure of these seasons.
pub(super) fn figures(args: &Args) -> anyhow::Result<Value> {
    let common = &args.common;
    let set = common.read()?;
    let floor = Floor::shipped();
    let engines = [common.engine(FORECAST)?, common.engine(PIT)?];
    let [model, policy] = engines.clone();
    let model = model.map(StopModel::new).transpose()?;
    let policy = policy.map(Policy::new).transpose()?;
    let mut collector = Collector::default();
    let mut plain = Scores::new("floor", floor.pit.yes);
    let mut plan = Scores::new("fixed plan", 0.5);
    let mut ours = model
        .as_ref()
        .map(|m| Scores::new(&m.engine().model().id(), m.yes));
    let judged = side_by_side("races", &set.races, |race| -> anyhow::Result<_> {
        let rows = samples(race, &floor);
        let said = match &model {
            Some(model) => of_model(model, &rows).with_context(|| race.title())?,
            None => Vec::new(),
        };
        Ok((rows, said))
    });
    for (race, judged) in set.races.iter().zip(judged) {
        let (rows, said) = judged?;
        let title = race.title();
        plain.race(&title, &rows, Answer::of_floor);
        plan.race(&title, &rows, Answer::of_plan);
        if let Some(scores) = &mut ours {
            let mut said = said.into_iter();
            scores.race(&title, &rows, |_| said.next().unwrap_or_default());
        }
        if common.features().is_some() {
            collector.add(race, &rows);
        }
    }
    if let Some(folder) = common.features() {
        collector.write(folder)?;
    }
    let regret = match &policy {
        Some(policy) if args.regret_races > 0 => Some(regret(&set, policy, args.regret_races)?),
        _ => None,
    };
    let headline = ours.as_ref().unwrap_or(&plain).shown();
    let mut pit: Map<String, Value> = match headline {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    pit.insert(
        "baselines".into(),
        json!({ "floor": plain.shown(), "fixed_plan": plan.shown() }),
    );
    if let Some((total, by_race)) = &regret {
        pit.insert("regret_ratio".into(), json!(total.ratio()));
        pit.insert(
            "regret".into(),
            json!({ "all": shown(total), "by_race": by_race }),
        );
    }
    common.computed(&mut pit, &engines)?;
    Ok(json!({ "pit": pit }))
}

/// What the network says of a race's rows.
fn of_model(model: &StopModel, rows: &[Sample]) -> anyhow::Result<Vec<Answer>> {
    let features: Vec<_> = rows.iter().map(|r| r.features).collect();
    let forecasts = model.forecasts(&features)?;
    let answers = rows.iter().zip(forecasts).map(|(row, forecast)| {
        // The first column: laps to go.
        let by_lap = forecast.by_lap(row.features[0] as u16);
        let p_stop = by_lap.last().copied().unwrap_or(0.0);
        let middle = by_lap.iter().position(|p| *p >= 0.5 * p_stop);
        Answer {
            within_2: by_lap.get(1).or(by_lap.last()).copied().unwrap_or(0.0),
            in_lap: middle
                .filter(|_| p_stop > 0.0)
                .map(|k| f64::from(row.lap) + (k + 1) as f64),
            compound: Some(forecast.likeliest()),
        }
    });
    Ok(answers.collect())
}

/// Over all races, and race by race.
fn regret(set: &Dataset, policy: &Policy, races: u32) -> anyhow::Result<(Regret, Vec<Value>)> {
    let parameters = Parameters::shipped();
    let by_case = side_by_side("regret", &set.races, |race| {
        regret_of(race, policy, &parameters, races).with_context(|| race.title())
    });
    let mut total = Regret::default();
    let mut by_race = Vec::new();
    for (race, here) in set.races.iter().zip(by_case) {
        let here = here?;
        if here.races > 0 {
            by_race.push(
                json!({ "race": race.title(), "ratio": here.ratio(), "figures": shown(&here) }),
            );
            total.add(&here);
        }
    }
    Ok((total, by_race))
}

fn regret_of(
    race: &RaceData,
    policy: &Policy,
    parameters: &Parameters,
    races: u32,
) -> anyhow::Result<Regret> {
    let mut here = Regret::default();
    let mut failure = None;
    for case in cases(race, parameters)? {
        let mut values = |state: &[f32; crate::strategy::policy::STATE]| {
            policy.values(state).unwrap_or_else(|e| {
                failure = Some(e);
                [0.0; ACTIONS]
            })
        };
        here.add(&case.regret(races, SEED, &mut values)?);
        if let Some(e) = failure.take() {
            return Err(e.into());
        }
    }
    Ok(here)
}

/// Mean loss a race against the best plan in hindsight.
fn shown(regret: &Regret) -> Value {
    let n = f64::from(regret.races.max(1));
    let way =
        |sum: [f64; 3]| json!({ "cost_s": sum[0] / n, "time_s": sum[1] / n, "places": sum[2] / n });
    json!({
        "simulated_races": regret.races,
        "network_and_monte_carlo": way(regret.both),
        "network": way(regret.network),
        "monte_carlo": way(regret.monte_carlo),
        "driven": way(regret.driven),
        "fixed_plan": way(regret.fixed),
        "network_followed": regret.followed,
    })
}
