//! `trackside engines verify --together`: the live models in one graph, against the CPU's answers, and how long it takes.

use std::path::Path;
#[cfg(feature = "tensorrt")]
use std::time::Instant;

use serde::Serialize;

use crate::cli::say::say;
use crate::inference::Parity;
#[cfg(feature = "tensorrt")]
use crate::inference::Tensor;
#[cfg(not(feature = "tensorrt"))]
use crate::inference::tensorrt::Unavailable;
use crate::inference::tensorrt::{Cache, Precision};
#[cfg(feature = "tensorrt")]
use crate::inference::tensorrt::{Gpu, Together};
#[cfg(feature = "tensorrt")]
use crate::predict::Models;

/// Models that answer together, judged.
#[derive(Serialize)]
pub(super) struct Judged {
    /// Whether each choice of them is one captured graph.
    captured: bool,
    models: Vec<Member>,
    /// By choice: any car that crosses the line, and one that leads.
    timed: Vec<Timed>,
    pub ok: bool,
}

#[derive(Serialize)]
struct Member {
    model: String,
    tolerance: f64,
    /// How far its outputs are off the CPU's answers to the recorded inputs.
    against_cpu: Vec<Parity>,
}

#[derive(Serialize)]
struct Timed {
    models: Vec<String>,
    runs: usize,
    p50_us: f64,
    p99_us: f64,
}

#[cfg(not(feature = "tensorrt"))]
pub(super) fn judged(_: &Path, _: &Cache, _: Precision, _: usize) -> anyhow::Result<Judged> {
    anyhow::bail!(Unavailable::NotBuilt)
}

/// Puts them on the GPU, compares them, and times so many runs of each choice.
#[cfg(feature = "tensorrt")]
pub(super) fn judged(
    folder: &Path,
    cache: &Cache,
    precision: Precision,
    runs: usize,
) -> anyhow::Result<Judged> {
    let (gpu, on_cpu) = (Gpu::open()?, Models::load(folder)?);
    let judged = on_cpu.with_all(|cpus, choices| {
        let together = Together::load(&gpu, cpus, choices, folder, (cache, precision))?;
        let off = together.parity(cpus, folder)?;
        let models = cpus.iter().zip(off).map(|(cpu, against_cpu)| Member {
            model: cpu.model().id(),
            tolerance: precision.tolerance(cpu.model()),
            against_cpu,
        });
        let models: Vec<Member> = models.collect();
        let recorded = together.recorded(folder)?;
        let mut timed = Vec::new();
        for choice in choices.iter().filter(|_| runs > 0) {
            let asked: Vec<(usize, &[Tensor])> = choice
                .iter()
                .map(|m| (*m, recorded[*m][0].as_slice()))
                .collect();
            let mut took = Vec::with_capacity(runs);
            for _ in 0..runs {
                let started = Instant::now();
                together.run(&asked)?;
                took.push(started.elapsed().as_secs_f64() * 1e6);
            }
            took.sort_by(f64::total_cmp);
            let at = |share: usize| took[(runs * share / 100).min(runs - 1)];
            timed.push(Timed {
                models: choice.iter().map(|m| models[*m].model.clone()).collect(),
                runs,
                p50_us: at(50),
                p99_us: at(99),
            });
        }
        let within = |m: &Member| m.against_cpu.iter().all(|p| p.max <= m.tolerance);
        Ok(Judged {
            captured: together.is_captured(),
            ok: models.iter().all(within),
            models,
            timed,
        })
    })?;
    judged.ok_or_else(|| anyhow::anyhow!("the folder has not all of the live models"))
}

impl Judged {
    pub(super) fn say(&self) {
        let word = if self.ok { "ok " } else { "BAD" };
        let how = if self.captured {
            "one graph"
        } else {
            "call by call"
        };
        say!("{word} together, {how}");
        for Member {
            model,
            tolerance,
            against_cpu,
        } in &self.models
        {
            for Parity { tensor, max, mean } in against_cpu {
                say!(
                    "    {model} {tensor:<14} off the CPU's answers by at most {max:.1e}, {mean:.1e} in the mean \
                     (allowed: {tolerance:.0e})"
                );
            }
        }
        for t in &self.timed {
            let (models, runs) = (t.models.join(" + "), t.runs);
            say!(
                "    {models}: p50 {:.1} µs, p99 {:.1} µs of {runs} runs",
                t.p50_us,
                t.p99_us
            );
        }
    }
}
