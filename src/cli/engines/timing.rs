//! How long engines take, in rounds: each in turn, and onnxruntime between, so that what else the machine does falls on
//! all alike.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use crate::cli::bench::onnxruntime::{self, OnnxRuntime, Provider};
use crate::cli::say::say;
use crate::inference::{Engine, Tensor};

/// Rounds that are measured, after one that is not.
const ROUNDS: usize = 20;

/// An engine and what it is asked.
pub(super) struct Case<'a> {
    pub engine: &'a dyn Engine,
    pub batch: usize,
    pub inputs: Vec<Tensor>,
}

/// How long a run takes.
#[derive(Debug, Serialize)]
pub(super) struct Timed {
    pub batch: usize,
    pub runs: usize,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Timed {
    fn of(batch: usize, mut took: Vec<f64>) -> Timed {
        took.sort_by(f64::total_cmp);
        let runs = took.len();
        let at = |share: usize| {
            let rank = (runs * share / 100).min(runs.saturating_sub(1));
            took.get(rank).copied().unwrap_or(0.0)
        };
        Timed {
            batch,
            runs,
            p50_us: at(50),
            p99_us: at(99),
        }
    }

    pub fn say(&self) {
        say!(
            "    {:>3} cars: p50 {:.1} µs, p99 {:.1} µs of {} runs",
            self.batch,
            self.p50_us,
            self.p99_us,
            self.runs
        );
    }
}

/// What onnxruntime took for the same.
#[derive(Serialize)]
pub(super) struct Rival {
    name: &'static str,
    version: String,
    /// What it computed on.
    provider: String,
    models: Vec<RivalTimed>,
}

#[derive(Serialize)]
struct RivalTimed {
    model: String,
    #[serde(flatten)]
    timed: Timed,
}

impl Rival {
    pub fn say(&self) {
        for m in &self.models {
            let (name, version, provider) = (self.name, &self.version, &self.provider);
            say!("    {} on {name} {version} ({provider})", m.model);
            m.timed.say();
        }
    }
}

/// Times each case, `runs` times at least; with a rival, where its process was started.
///
/// # Errors
/// If an engine or the rival fails.
pub(super) fn timed(
    cases: &[Case<'_>],
    runs: usize,
    rival: Option<(&mut OnnxRuntime, &[Case<'_>])>,
) -> anyhow::Result<(Vec<Timed>, Option<Rival>)> {
    let each = runs.div_ceil(ROUNDS);
    let mut ours = vec![Vec::with_capacity(each * ROUNDS); cases.len()];
    let mut theirs: Vec<Vec<f64>> = Vec::new();
    let (mut rival, asked) = rival.unzip();
    for round in 0..=ROUNDS {
        for (case, took) in cases.iter().zip(&mut ours) {
            for _ in 0..each {
                let began = Instant::now();
                case.engine.run(&case.inputs)?;
                took.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
        if let Some(rival) = &mut rival {
            let took = rival.round(each)?;
            theirs.resize_with(took.len(), Vec::new);
            let micros = |ms: f64| ms * 1e3;
            for (all, took) in theirs.iter_mut().zip(took) {
                all.extend(took.into_iter().map(micros));
            }
        }
        if round == 0 {
            ours.iter_mut().chain(&mut theirs).for_each(Vec::clear);
        }
    }
    let pairs = cases.iter().zip(ours);
    let ours = pairs
        .map(|(case, took)| Timed::of(case.batch, took))
        .collect();
    let rival = rival.zip(asked).map(|(rival, asked)| Rival {
        name: "onnxruntime",
        version: rival.version.clone(),
        provider: rival.provider.clone(),
        models: asked
            .iter()
            .zip(theirs)
            .map(|(case, took)| RivalTimed {
                model: case.engine.model().id(),
                timed: Timed::of(case.batch, took),
            })
            .collect(),
    });
    Ok((ours, rival))
}

/// onnxruntime with the files of these cases, on the GPU where it can.
///
/// # Errors
/// If it is not to be had.
pub(super) fn rival(folder: &Path, cases: &[Case<'_>]) -> anyhow::Result<OnnxRuntime> {
    let models: Vec<_> = cases
        .iter()
        .map(|c| onnxruntime::Model::new(folder.join(&c.engine.model().file), &c.inputs))
        .collect();
    OnnxRuntime::start(&models, 1, Provider::Gpu)?
        .map_err(anyhow::Error::msg)
        .context("there is no rival: onnxruntime is wanted, in the Python of TRACKSIDE_PYTHON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_is_timed_in_every_round_but_the_first() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let engine = crate::inference::load_batches(&folder, "pit", &[1]).unwrap();
        let inputs = crate::inference::runs(engine.model(), None, 1).remove(0);
        let case = || Case {
            engine: &*engine,
            batch: 1,
            inputs: inputs.clone(),
        };
        let (timed, rival) = timed(&[case(), case()], 2 * ROUNDS - 1, None).unwrap();
        assert!(rival.is_none());
        assert_eq!(timed.len(), 2);
        for t in &timed {
            assert_eq!((t.runs, t.batch), (2 * ROUNDS, 1));
            assert!(0.0 < t.p50_us && t.p50_us <= t.p99_us, "{t:?}");
        }
    }
}
