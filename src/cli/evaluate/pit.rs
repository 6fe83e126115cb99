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
use crate::dataset::pit::{Collector, Sample, samples};
use crate::dataset::pit_cases::cases;
use crate::dataset::pit_scores::{Answer, Scores};
use crate::dataset::{Dataset, RaceData};
use crate::inference;
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
    common: Common,
    /// Simulated races a car that regret is measured on; 0 leaves it out.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    regret_races: u32,
}

/// Runs it.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let common = &args.common;
    let set = common.read()?;
    let floor = Floor::shipped();
    let folder = common.engines.folder();
    let has = |name: &str| -> anyhow::Result<bool> {
        let Some(folder) = &folder else {
            return Ok(false);
        };
        Ok(inference::Manifest::read(folder)?
            .models
            .iter()
            .any(|m| m.name == name))
    };
    let model = match &folder {
        Some(folder) if has(FORECAST)? => {
            Some(StopModel::new(inference::load(folder, FORECAST)?.into())?)
        }
        _ => None,
    };
    let policy = match &folder {
        Some(folder) if has(PIT)? => Some(Policy::new(inference::load(folder, PIT)?.into())?),
        _ => None,
    };
    let mut collector = Collector::default();
    let mut plain = Scores::new("floor", floor.pit.yes);
    let mut plan = Scores::new("fixed plan", 0.5);
    let mut ours = model
        .as_ref()
        .map(|m| Scores::new(&m.engine().model().id(), m.yes));
    for race in &set.races {
        let rows = samples(race, &floor);
        let title = race.title();
        plain.race(&title, &rows, Answer::of_floor);
        plan.race(&title, &rows, Answer::of_plan);
        if let (Some(model), Some(scores)) = (&model, &mut ours) {
            let said: Vec<Answer> = rows
                .iter()
                .map(|r| of_model(model, r))
                .collect::<anyhow::Result<_>>()?;
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
    common.print(&json!({ "pit": pit }));
    Ok(())
}

fn of_model(model: &StopModel, row: &Sample) -> anyhow::Result<Answer> {
    let forecast = model.forecast(&row.features)?;
    // The first column: laps to go.
    let by_lap = forecast.by_lap(row.features[0] as u16);
    let p_stop = by_lap.last().copied().unwrap_or(0.0);
    let middle = by_lap.iter().position(|p| *p >= 0.5 * p_stop);
    Ok(Answer {
        within_2: by_lap.get(1).or(by_lap.last()).copied().unwrap_or(0.0),
        in_lap: middle
            .filter(|_| p_stop > 0.0)
            .map(|k| f64::from(row.lap) + (k + 1) as f64),
        compound: Some(forecast.likeliest()),
    })
}

/// Over all races, and race by race.
fn regret(set: &Dataset, policy: &Policy, races: u32) -> anyhow::Result<(Regret, Vec<Value>)> {
    let parameters = Parameters::shipped();
    let mut total = Regret::default();
    let mut by_race = Vec::new();
    for race in &set.races {
        let here = regret_of(race, policy, &parameters, races).with_context(|| race.title())?;
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
