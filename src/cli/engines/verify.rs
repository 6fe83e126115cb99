//! `trackside engines verify`: each model on each backend against its recorded answers and the CPU's, how long it
//! takes, and what handing it over costs.

use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "tensorrt")]
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use super::{Backend, Common, together};
use crate::cli::say::say;
#[cfg(not(feature = "tensorrt"))]
use crate::inference::tensorrt::Unavailable;
use crate::inference::tensorrt::{self, Cache, Precision};
use crate::inference::{self, Engine, Fixture, Model, Parity, Tensor, parity};

/// Most runs that are timed.
const MAX_RUNS: usize = 1_000_000;
/// How often the models are asked while they are handed over, and how many times between two hand-overs.
#[cfg(feature = "tensorrt")]
const TICK: Duration = Duration::from_millis(20);
#[cfg(feature = "tensorrt")]
const TICKS_BETWEEN_SWAPS: u32 = 10;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// What products are computed in on the GPU: fp32 or fp16.
    #[arg(long, default_value = "fp32")]
    precision: Precision,
    /// Fail where TensorRT cannot run.
    #[arg(long)]
    require_gpu: bool,
    /// Time so many runs of each, too.
    #[arg(long, value_name = "RUNS", default_value_t = 0)]
    time: usize,
    /// Put the live models into one graph, too, and compare and time that.
    #[arg(long, requires = "require_gpu")]
    together: bool,
    /// Hand the models over so many times, CPU to GPU and back, while they are asked; fail if a tick is late.
    #[arg(
        long,
        value_name = "SWAPS",
        default_value_t = 0,
        requires = "require_gpu"
    )]
    swaps: usize,
}

/// A model on a backend, judged.
#[derive(Serialize)]
struct Verdict {
    model: String,
    backend: &'static str,
    tolerance: f64,
    /// Nothing where the model does not load, or has no recorded answers.
    outputs: Vec<Parity>,
    /// Against the CPU's answers to the recorded inputs, in every batch size; on the GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    against_cpu: Vec<Parity>,
    /// Medians and tails of a run, by batch size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timed: Vec<Timed>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Serialize)]
struct Timed {
    batch: usize,
    runs: usize,
    p50_us: f64,
    p99_us: f64,
}

/// Runs it; fails if a model does not answer as it should.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.time <= MAX_RUNS, "at most {MAX_RUNS} runs are timed");
    let (folder, models, cache) = args.common.open()?;
    let machine = tensorrt::machine();
    let mut verdicts = Vec::new();
    for model in &models {
        let cpu: Arc<dyn Engine> = match inference::load(&folder, &model.name) {
            Ok(engine) => engine.into(),
            Err(e) => {
                verdicts.push(Verdict::failed(model, inference::tract::BACKEND, &e));
                continue;
            }
        };
        let fixture = model.fixture(&folder)?;
        let time = args.time;
        verdicts.push(Verdict::of(
            &*cpu,
            model.tolerance,
            fixture.as_ref(),
            None,
            time,
        )?);
        if machine.is_ok() {
            let precision = args.precision;
            verdicts.push(match on_gpu(&cpu, &folder, &cache, precision) {
                Ok(engine) => {
                    let tolerance = precision.tolerance(model);
                    Verdict::of(&*engine, tolerance, fixture.as_ref(), Some(&*cpu), time)?
                }
                Err(e) => Verdict::failed(model, tensorrt::BACKEND, &e),
            });
        }
    }
    let joined = match args.together {
        true => Some(together::judged(
            &folder,
            &cache,
            args.precision,
            args.time,
        )?),
        false => None,
    };
    let backend = Backend::of(&machine);
    let swaps = match args.swaps {
        0 => None,
        swaps => Some(swap_under_load(&folder, &cache, args.precision, swaps)?),
    };
    if args.common.json {
        let all = serde_json::json!({ "tensorrt": backend, "models": verdicts, "together": joined, "swaps": swaps });
        say!("{all:#}");
    } else {
        verdicts.iter().for_each(Verdict::say);
        joined.iter().for_each(together::Judged::say);
        backend.say();
        if let Some(s) = &swaps {
            let (swaps, ticks, late, longest) = (s.swaps, s.ticks, s.late, s.longest_ms);
            say!(
                "{swaps} swaps under load: {ticks} ticks, {late} late, the longest {longest:.2} ms"
            );
        }
    }
    let late = swaps.as_ref().map_or(0, |s| s.late);
    anyhow::ensure!(
        late == 0,
        "{late} ticks were late while models were handed over"
    );
    anyhow::ensure!(
        joined.as_ref().is_none_or(|t| t.ok),
        "together the models do not answer as the CPU's do"
    );
    let bad = verdicts.iter().filter(|v| !v.ok).count();
    anyhow::ensure!(
        bad == 0,
        "{bad} of {} are not what they should be",
        verdicts.len()
    );
    anyhow::ensure!(
        backend.available || !args.require_gpu,
        "TensorRT cannot run here: {}",
        backend.what
    );
    Ok(())
}

#[cfg(feature = "tensorrt")]
fn on_gpu(
    cpu: &Arc<dyn Engine>,
    folder: &Path,
    cache: &Cache,
    precision: Precision,
) -> anyhow::Result<Box<dyn Engine>> {
    let gpu = tensorrt::Gpu::open()?;
    let engine = tensorrt::TensorRt::load(&gpu, Arc::clone(cpu), folder, cache, precision)?;
    Ok(Box::new(engine))
}

#[cfg(not(feature = "tensorrt"))]
fn on_gpu(
    _: &Arc<dyn Engine>,
    _: &Path,
    _: &Cache,
    _: Precision,
) -> anyhow::Result<Box<dyn Engine>> {
    anyhow::bail!(Unavailable::NotBuilt)
}

impl Verdict {
    fn failed(model: &Model, backend: &'static str, why: &dyn std::fmt::Display) -> Verdict {
        Verdict {
            model: model.id(),
            backend,
            tolerance: model.tolerance,
            outputs: Vec::new(),
            against_cpu: Vec::new(),
            timed: Vec::new(),
            ok: false,
            why: Some(why.to_string()),
        }
    }

    fn of(
        engine: &dyn Engine,
        tolerance: f64,
        fixture: Option<&Fixture>,
        cpu: Option<&dyn Engine>,
        runs: usize,
    ) -> anyhow::Result<Verdict> {
        let model = engine.model();
        let mut verdict = Verdict::failed(model, engine.backend(), &"");
        (verdict.tolerance, verdict.why) = (tolerance, None);
        let cases = fixture.map_or(&[][..], |f| &f.cases[..]);
        for (before, case) in cases.iter().enumerate() {
            let off = parity(&engine.run(&case.inputs)?, &case.outputs);
            merge(&mut verdict.outputs, off, before);
        }
        let mut compared = 0;
        for batch in &model.batches {
            let inputs = fixture.map_or(Vec::new(), |f| f.at_batch(model, *batch));
            if let Some(cpu) = cpu {
                for inputs in &inputs {
                    let off = parity(&engine.run(inputs)?, &cpu.run(inputs)?);
                    merge(&mut verdict.against_cpu, off, compared);
                    compared += 1;
                }
            }
            if let Some(inputs) = inputs.first().filter(|_| runs > 0) {
                verdict.timed.push(timed(engine, inputs, *batch, runs)?);
            }
        }
        let all = verdict.outputs.iter().chain(&verdict.against_cpu);
        verdict.ok = all.clone().all(|p| p.max <= tolerance);
        // One that has gone over to the CPU meanwhile was not judged.
        verdict.ok &= engine.backend() == verdict.backend;
        Ok(verdict)
    }

    fn say(&self) {
        let word = if self.ok { "ok " } else { "BAD" };
        say!("{word} {} on {}", self.model, self.backend);
        if let Some(why) = &self.why {
            say!("    {why}");
        }
        let both = [
            ("recorded", &self.outputs),
            ("the CPU's", &self.against_cpu),
        ];
        for (against, outputs) in both {
            for p in outputs {
                let Parity { tensor, max, mean } = p;
                let tolerance = self.tolerance;
                say!(
                    "    {tensor:<14} off {against} answers by at most {max:.1e}, {mean:.1e} in the mean \
                     (allowed: {tolerance:.0e})"
                );
            }
        }
        for t in &self.timed {
            say!(
                "    {:>3} cars: p50 {:.1} µs, p99 {:.1} µs of {} runs",
                t.batch,
                t.p50_us,
                t.p99_us,
                t.runs
            );
        }
    }
}

/// What handing models over cost whoever asked them meanwhile.
#[derive(Serialize)]
struct Swaps {
    swaps: usize,
    ticks: u64,
    late: u64,
    longest_ms: f64,
}

/// A thread loads the models for the GPU again and again and puts them into the slot, those of the CPU in between;
/// this one asks every model at every tick, and takes what lies in the slot between two.
#[cfg(feature = "tensorrt")]
fn swap_under_load(
    folder: &Path,
    cache: &Cache,
    precision: Precision,
    swaps: usize,
) -> anyhow::Result<Swaps> {
    use crate::engines::Slot;
    use crate::predict::Models;
    let on_cpu = Models::load(folder)?;
    let mut asked = Vec::new();
    for engine in on_cpu.engines() {
        let model = engine.model();
        let fixture = model.fixture(folder)?;
        asked.push(
            fixture
                .and_then(|f| f.at_batch(model, 1).into_iter().next())
                .unwrap_or_default(),
        );
    }
    let (slot, gpu) = (Slot::default(), tensorrt::Gpu::open()?);
    let mut figures = Swaps {
        swaps,
        ticks: 0,
        late: 0,
        longest_ms: 0.0,
    };
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| -> anyhow::Result<()> {
            for swap in 0..swaps {
                slot.put(match swap % 2 {
                    0 => on_cpu.on(|cpu| {
                        let cpu = Arc::clone(cpu);
                        let engine = tensorrt::TensorRt::load(&gpu, cpu, folder, cache, precision)?;
                        Ok(Arc::new(engine) as Arc<dyn Engine>)
                    })?,
                    _ => on_cpu.clone(),
                });
                std::thread::sleep(TICK * TICKS_BETWEEN_SWAPS);
            }
            Ok(())
        });
        let mut models = on_cpu.clone();
        while !loader.is_finished() {
            let started = Instant::now();
            models = slot.take().unwrap_or(models);
            for (engine, inputs) in models.engines().zip(&asked) {
                engine.run(inputs)?;
            }
            let took = started.elapsed();
            figures.ticks += 1;
            figures.late += u64::from(took > TICK);
            figures.longest_ms = figures.longest_ms.max(took.as_secs_f64() * 1e3);
            std::thread::sleep(TICK.saturating_sub(took));
        }
        loader
            .join()
            .map_err(|_| anyhow::anyhow!("the loader panicked"))?
    })?;
    Ok(figures)
}

#[cfg(not(feature = "tensorrt"))]
fn swap_under_load(_: &Path, _: &Cache, _: Precision, _: usize) -> anyhow::Result<Swaps> {
    anyhow::bail!(Unavailable::NotBuilt)
}

/// Adds a run's figures to those of the runs before.
fn merge(all: &mut Vec<Parity>, run: Vec<Parity>, before: usize) {
    if all.is_empty() {
        *all = run;
        return;
    }
    for (own, other) in all.iter_mut().zip(&run) {
        own.merge(other, before);
    }
}

fn timed(
    engine: &dyn Engine,
    inputs: &[Tensor],
    batch: usize,
    runs: usize,
) -> anyhow::Result<Timed> {
    let mut took = Vec::with_capacity(runs);
    for _ in 0..runs {
        let started = Instant::now();
        engine.run(inputs)?;
        took.push(started.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    let at = |share: usize| {
        took.get((runs * share / 100).min(runs - 1))
            .copied()
            .unwrap_or(0.0)
    };
    Ok(Timed {
        batch,
        runs,
        p50_us: at(50),
        p99_us: at(99),
    })
}
