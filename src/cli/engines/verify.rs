//! `trackside engines verify`: each model on each backend against its recorded answers and the CPU's, how long it
//! takes, and what handing it over costs.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::swaps::{Swaps, Wanted};
use super::timing::{self, Case, Rival, Timed};
use super::{Backend, Common, together};
use crate::cli::say::say;
#[cfg(not(feature = "tensorrt"))]
use crate::inference::tensorrt::Unavailable;
use crate::inference::tensorrt::{self, Cache, Precision};
use crate::inference::{self, Engine, Fixture, Model, Parity, parity, runs};

/// Most runs that are timed.
const MAX_RUNS: usize = 1_000_000;
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
    /// Time onnxruntime on the same files between the rounds, on the GPU where it has one; fail if it is not to be had.
    #[arg(long, requires = "time")]
    rival: bool,
    /// Hand the models over so many times, CPU to GPU and back, while a simulated race is predicted from them and the
    /// engines are built; fail if a tick is late, the GPU does not answer, or an answer is not the CPU's.
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
    /// Against the CPU's answers to the recorded inputs, or to made-up ones where none is recorded, in every batch size; on
    /// the GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    against_cpu: Vec<Parity>,
    /// Medians and tails of a run, by batch size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timed: Vec<Timed>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// A model as it was loaded.
struct Loaded {
    cpu: Arc<dyn Engine>,
    gpu: Option<Box<dyn Engine>>,
    fixture: Option<Fixture>,
    /// Places of their verdicts.
    places: [usize; 2],
}

/// Runs it; fails if a model does not answer as it should.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.time <= MAX_RUNS, "at most {MAX_RUNS} runs are timed");
    let (folder, models, cache) = args.common.open()?;
    let machine = tensorrt::machine();
    let mut verdicts = Vec::new();
    let mut loaded = Vec::new();
    for model in &models {
        let cpu: Arc<dyn Engine> = match inference::load(&folder, &model.name) {
            Ok(engine) => engine.into(),
            Err(e) => {
                verdicts.push(Verdict::failed(model, inference::tract::BACKEND, &e));
                continue;
            }
        };
        let fixture = model.fixture(&folder)?;
        let recorded = fixture.as_ref();
        let mut gpu = None;
        let first = verdicts.len();
        verdicts.push(Verdict::of(&*cpu, model.tolerance, recorded, None)?);
        if machine.is_ok() {
            let precision = args.precision;
            verdicts.push(match on_gpu(&cpu, &folder, &cache, precision) {
                Ok(engine) => {
                    let tolerance = precision.tolerance(model);
                    let verdict = Verdict::of(&*engine, tolerance, recorded, Some(&*cpu))?;
                    gpu = Some(engine);
                    verdict
                }
                Err(e) => Verdict::failed(model, tensorrt::BACKEND, &e),
            });
        }
        let places = [first, first + 1];
        loaded.push(Loaded {
            cpu,
            gpu,
            fixture,
            places,
        });
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
    let rival = match args.time {
        0 => None,
        runs => time(&loaded, &mut verdicts, runs, args.rival.then_some(&*folder))?,
    };
    let backend = Backend::of(&machine);
    let swaps = match args.swaps {
        0 => None,
        swaps => Some(swap_under_load(&folder, args.precision, swaps)?),
    };
    if args.common.json {
        let all = serde_json::json!({
            "tensorrt": backend, "models": verdicts, "together": joined, "rival": rival, "swaps": swaps,
        });
        say!("{all:#}");
    } else {
        verdicts.iter().for_each(Verdict::say);
        joined.iter().for_each(together::Judged::say);
        rival.iter().for_each(Rival::say);
        backend.say();
        if let Some(swaps) = &swaps {
            swaps.say();
        }
    }
    if let Some(swaps) = &swaps {
        swaps.judge(Wanted::of(tensorrt::BACKEND, args.precision))?;
    }
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
            let Some(cpu) = cpu else { break };
            for inputs in runs(model, fixture, *batch) {
                let off = parity(&engine.run(&inputs)?, &cpu.run(&inputs)?);
                merge(&mut verdict.against_cpu, off, compared);
                compared += 1;
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
        self.timed.iter().for_each(Timed::say);
    }
}

/// Times every model on every backend, in every batch size, and onnxruntime on the files of that folder.
fn time(
    loaded: &[Loaded],
    verdicts: &mut [Verdict],
    times: usize,
    rival: Option<&Path>,
) -> anyhow::Result<Option<Rival>> {
    let mut cases = Vec::new();
    let mut places = Vec::new();
    // The rival's: one of each model and batch.
    let mut files = Vec::new();
    for Loaded {
        cpu,
        gpu,
        fixture,
        places: own,
    } in loaded
    {
        let model = cpu.model();
        for batch in &model.batches {
            let inputs = runs(model, fixture.as_ref(), *batch).swap_remove(0);
            let case = |engine| Case {
                engine,
                batch: *batch,
                inputs: inputs.clone(),
            };
            files.push(case(&**cpu));
            let engines = [Some(&**cpu), gpu.as_deref()];
            for (engine, place) in engines.into_iter().zip(own) {
                if let Some(engine) = engine {
                    cases.push(case(engine));
                    places.push(*place);
                }
            }
        }
    }
    let mut rival = rival
        .map(|folder| timing::rival(folder, &files))
        .transpose()?;
    let rival = rival.as_mut().map(|rival| (rival, &*files));
    let (timed, rival) = timing::timed(&cases, times, rival)?;
    for ((case, place), timed) in cases.iter().zip(places).zip(timed) {
        let verdict = &mut verdicts[place];
        verdict.timed.push(timed);
        // One that has gone over to the CPU meanwhile was not timed.
        if case.engine.backend() != verdict.backend {
            verdict.ok = false;
            verdict.why = Some(format!("{} has answered instead", case.engine.backend()));
        }
    }
    Ok(rival)
}

/// Hands the models over, to this machine's GPU and back, as a daemon does it: their plans are built anew, in a process of
/// their own.
#[cfg(feature = "tensorrt")]
fn swap_under_load(folder: &Path, precision: Precision, swaps: usize) -> anyhow::Result<Swaps> {
    use super::swaps::{Course, LAPS, under_load};
    use crate::engines::accelerate::THIS_PROGRAM;
    use crate::inference::EngineError;
    use crate::predict::Models;
    let on_cpu = Models::load(folder)?;
    // Nothing is kept there yet.
    let kept = tempfile::tempdir()?;
    let cache = Cache::new(kept.path());
    let stop = tokio_util::sync::CancellationToken::new();
    let apart = tensorrt::Apart::new(Path::new(THIS_PROGRAM), folder, stop);
    let gpu = tensorrt::Gpu::open()?.building(apart);
    let to_gpu = |cpu: &Arc<dyn Engine>| -> Result<Arc<dyn Engine>, EngineError> {
        let cpu = Arc::clone(cpu);
        let engine = tensorrt::TensorRt::load(&gpu, cpu, folder, &cache, precision)?;
        Ok(Arc::new(engine))
    };
    let moved = || {
        let mut moved = on_cpu.on(to_gpu)?;
        let joined = on_cpu.with_all(|cpus, choices| {
            tensorrt::Together::load(&gpu, cpus, choices, folder, (&cache, precision))
        });
        moved.together = joined?.map(Arc::new);
        Ok(moved)
    };
    let wanted = Wanted::of(tensorrt::BACKEND, precision);
    let course = Course::of(&on_cpu, LAPS)?;
    under_load(&course, &on_cpu, moved, wanted, swaps)
}

#[cfg(not(feature = "tensorrt"))]
fn swap_under_load(_: &Path, _: Precision, _: usize) -> anyhow::Result<Swaps> {
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
