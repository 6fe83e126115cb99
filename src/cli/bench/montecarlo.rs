//! `trackside bench montecarlo`: simulated races a second.
//!
//! The baseline, in the same run: the reference, one race after the other on one core. And whether one thread and two
//! drive the same races.

use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use super::median;
use crate::compute::race_monte_carlo::Problem;
use crate::compute::{Backend, Cpu, RaceMonteCarlo};
use crate::strategy::example_problem;
use crate::strategy::simulation::{Decision, Simulation};

/// Threads: what the target is for.
const THREADS: usize = 2;
/// Races a round, and rounds.
const RACES: usize = 100_000;
const ROUNDS: usize = 5;
/// Races of the baseline.
const PLAIN_RACES: u32 = 2_000;
const SEED: u64 = 7;

/// Measures the engine on a race of 20 cars over 57 laps.
///
/// # Errors
/// If the threads cannot be started.
pub fn run() -> anyhow::Result<Value> {
    let problem = example_problem();
    let count = problem.count as usize;
    let mut keys = vec![0; RACES * count];
    let mut rates = Vec::new();
    let busy = processor_s()?;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        on(THREADS, &problem, &mut keys)?;
        rates.push(RACES as f64 / began.elapsed().as_secs_f64());
    }
    let busy = processor_s()? - busy;
    let mut one = vec![0; RACES * count];
    let began = Instant::now();
    on(1, &problem, &mut one)?;
    let alone = RACES as f64 / began.elapsed().as_secs_f64();

    let began = Instant::now();
    let mut same_as_reference = true;
    for (number, expected) in (0..PLAIN_RACES).zip(keys.chunks(count)) {
        let mut race = Simulation::new(&problem, SEED, number)?;
        while !race.is_over() {
            race.step(|_, _| Decision::Plan);
        }
        same_as_reference &= race.keys() == expected;
    }
    let plain = f64::from(PLAIN_RACES) / began.elapsed().as_secs_f64();
    Ok(json!({
        "montecarlo": {
            "races_per_s": median(&mut rates),
            "races_per_s_of_one_thread": alone,
            // What a core does when nobody else is at it, whatever else is going on now.
            "races_per_processor_s": (ROUNDS * RACES) as f64 / busy,
            "threads": THREADS,
            "cars": count,
            "laps": problem.laps,
            "threads_agree": one == keys,
            "agrees_with_reference": same_as_reference,
        },
        "baseline": { "reference_races_per_s": plain },
    }))
}

/// Processor time that this process has used so far (s), to a hundredth.
fn processor_s() -> anyhow::Result<f64> {
    /// Linux counts in these, whatever its timer does (1/s).
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold anything; user and system time are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || -> anyhow::Result<f64> {
        let field = times.next().context("/proc/self/stat ends early")?;
        Ok(field.parse()?)
    };
    Ok((next()? + next()?) / TICKS)
}

fn on(threads: usize, problem: &Problem, keys: &mut [i32]) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .context("threads for the simulation")?;
    // The way that the planner takes.
    pool.install(|| {
        Cpu.run(&mut RaceMonteCarlo {
            problems: std::slice::from_ref(problem),
            seed: SEED,
            first: 0,
            keys,
        })
    })?;
    Ok(())
}
