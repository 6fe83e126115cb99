//! `trackside evaluate pit`.

use serde_json::{Value, json};

use super::Options;
use crate::dataset::pit::{Collector, samples};
use crate::dataset::pit_scores::{Answer, Scores};
use crate::predict::floor::Floor;

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let set = super::read(options)?;
    let floor = Floor::shipped();
    let mut collector = Collector::default();
    let mut plain = Scores::new("floor", floor.pit.yes);
    let mut plan = Scores::new("fixed plan from stint medians", 0.5);
    for race in &set.races {
        let rows = samples(race, &floor);
        let title = race.title();
        plain.race(&title, &rows, |s| Answer::of_floor(s));
        plan.race(&title, &rows, |s| Answer::of_plan(s));
        if options.features.is_some() {
            collector.add(race, &rows);
        }
    }
    if let Some(folder) = &options.features {
        collector.write(folder)?;
    }
    let answer: Value =
        json!({ "pit": { "baselines": { "floor": plain.shown(), "fixed_plan": plan.shown() } } });
    if options.json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    for scores in [&plain, &plan] {
        println!("{scores}");
    }
    Ok(())
}
