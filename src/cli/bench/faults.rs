//! `trackside bench kernels --break`: a GPU that fails as a real one does, in the middle of ticks and of races.
//!
//! A kernel is sent where no memory is: the device's own error comes some time later, sticks to the context, and meets
//! whoever calls next. Ticks go on meanwhile, as often as the daemon's. The command fails unless all of this holds:
//!
//! - the tick in which the device fails is the CPU's, bit for bit, and no later than its limits allow; so are the races;
//! - the failure is logged once, with each kernel's launch, and counted for each of these kernels;
//! - the device comes back in this process, agrees again in every kernel, and has as much memory as the first time.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::kernels::compare;
use crate::compute::cuda::{Cuda, During, State, TICK_LIMIT};
use crate::compute::workload::{Case, Size, case, tick};
use crate::compute::{Backend, By, Cpu, Kernel, Processor, Ticker};
use crate::insight::TICK;
use crate::observability::start_metrics;

/// When it fails, one after the other. Each rest is twice the last: 35 s in all.
const FAULTS: [During; 3] = [During::Ticks, During::Races, During::Ticks];
/// Ticks that the device does before it fails, and after it came back.
const STEADY: usize = 20;
/// Longest wait for races to be under way, and for a fault behind them to show.
const FAILS_WITHIN: Duration = Duration::from_secs(60);
/// How late a thread that waited may wake where others want the processor, too.
const WAKES_WITHIN: Duration = Duration::from_millis(20);
/// Longest wait for a device that failed: its rest, and its opening.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// With fewer multiprocessors, the large race takes a device too long: it simulates the small one.
const LARGE_FROM: u32 = 4;
/// Counted for each kernel of a failure.
const ERRORS: &str = "trackside_compute_gpu_errors_total";

/// What was seen.
pub(super) struct Seen {
    pub figures: Value,
    /// Free memory of the device each time that it had come back and done the same work.
    pub free_bytes: Vec<u64>,
}

/// Makes the device fail.
///
/// # Errors
/// If something of what must hold does not.
pub(super) fn run(cuda: &Cuda, seed: u64) -> anyhow::Result<Seen> {
    let told = Told::start()?;
    agree(cuda, seed)?;
    let mut seen = Seen {
        figures: Value::Null,
        free_bytes: Vec::new(),
    };
    let (mut rounds, mut longest) = (Vec::new(), Duration::ZERO);
    for during in FAULTS {
        let fault = Fault::watch(cuda, during, seed).with_context(|| said(during))?;
        longest = longest.max(fault.tick);
        let failure = told.failure(during).with_context(|| said(during))?;
        fault.in_time().with_context(|| said(during))?;
        rounds.push(fault.figures(failure));
        agree(cuda, seed).context("after it came back")?;
        seen.free_bytes.push(cuda.memory()?.0 as u64);
    }
    seen.figures = json!({
        "longest_tick_ms": ms(longest),
        "tick_limit_ms": ms(TICK_LIMIT),
        "free_bytes": seen.free_bytes,
        "rounds": rounds,
    });
    Ok(seen)
}

fn said(during: During) -> &'static str {
    match during {
        During::Ticks => "a device that fails in the middle of ticks",
        During::Races => "a device that fails in the middle of races",
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Every kernel on the device against the CPU.
fn agree(cuda: &Cuda, seed: u64) -> anyhow::Result<()> {
    for kernel in Kernel::ALL {
        let [mut here, mut there] = [0, 1].map(|_| case(kernel, Size::Small, seed));
        Cpu.run(&mut *here.task())?;
        let mut task = there.task();
        task.check()?;
        cuda.try_run(&mut *task)?;
        drop(task);
        compare(&*here, &*there, kernel, seed)?;
    }
    Ok(())
}

/// How one fault went.
struct Fault {
    during: During,
    /// The longest tick from the fault to the first that did not ask the device any more.
    tick: Duration,
    /// The longest while the device rested: the CPU's own time.
    cpu_tick: Duration,
    ticks_by_cpu: u64,
    back_after: Duration,
}

impl Fault {
    /// Ticks until the device works, makes it fail, and ticks on until it is back.
    fn watch(cuda: &Cuda, during: During, seed: u64) -> anyhow::Result<Fault> {
        let mut ticks = Ticks::on(cuda, seed)?;
        ticks.until_steady()?;
        let races = match during {
            During::Ticks => None,
            During::Races => Some(Races::on(cuda, seed)?),
        };
        let tick = std::thread::scope(|scope| {
            let simulated = races.map(|races| scope.spawn(move || races.until_they_fail()));
            let tick = ticks.until_it_fails(cuda, during)?;
            match simulated.map(|thread| thread.join()).transpose() {
                Ok(simulated) => simulated.transpose().map(|_| tick),
                Err(_) => anyhow::bail!("the races panicked"),
            }
        })?;
        let failed = Instant::now();
        ticks.forget();
        ticks.until_steady()?;
        Ok(Fault {
            during,
            tick,
            cpu_tick: ticks.longest_by_cpu,
            ticks_by_cpu: ticks.by_cpu,
            back_after: failed.elapsed(),
        })
    }

    /// # Errors
    /// If a tick was later than both of its waits and the CPU's own time make it.
    fn in_time(&self) -> anyhow::Result<()> {
        let (tick, most) = (self.tick, 2 * (TICK_LIMIT + WAKES_WITHIN) + self.cpu_tick);
        ensure!(
            tick <= most,
            "the tick took {tick:?}; {most:?} are allowed: to begin, to end, and for the CPU"
        );
        Ok(())
    }

    fn figures(&self, failure: Failure) -> Value {
        json!({
            "during": match self.during { During::Ticks => "ticks", During::Races => "races" },
            "error": failure.error,
            "launches": failure.launches,
            "background": failure.background,
            "counted": failure.counted,
            "tick_ms": ms(self.tick),
            "cpu_tick_ms": ms(self.cpu_tick),
            "ticks_by_cpu": self.ticks_by_cpu,
            "back_after_s": self.back_after.as_secs_f64(),
        })
    }
}

/// Ticks as the daemon does them, each compared with the CPU's.
struct Ticks {
    ticker: Ticker,
    here: Vec<Box<dyn Case>>,
    there: Vec<Box<dyn Case>>,
    seed: u64,
    by_cpu: u64,
    longest_by_cpu: Duration,
}

impl Ticks {
    fn on(cuda: &Cuda, seed: u64) -> anyhow::Result<Ticks> {
        let mut here = tick(seed);
        for case in &mut here {
            Cpu.run(&mut *case.task())?;
        }
        Ok(Ticks {
            ticker: Processor::Cuda(cuda.clone()).hurried().ticker(),
            here,
            there: tick(seed),
            seed,
            by_cpu: 0,
            longest_by_cpu: Duration::ZERO,
        })
    }

    /// One tick: what did it, and how long it took.
    fn tick(&mut self) -> anyhow::Result<(By, Duration)> {
        self.there.iter_mut().for_each(|case| case.reset());
        let mut tasks: Vec<_> = self.there.iter_mut().map(|case| case.task()).collect();
        let began = Instant::now();
        let by = self.ticker.run(&mut tasks)?;
        let took = began.elapsed();
        drop(tasks);
        for (here, there) in self.here.iter().zip(&self.there) {
            compare(&**here, &**there, Kernel::FrameStats, self.seed).context("a tick")?;
        }
        Ok((by, took))
    }

    fn forget(&mut self) {
        (self.by_cpu, self.longest_by_cpu) = (0, Duration::ZERO);
    }

    /// Ticks as often as the daemon, until the device has done some in a row.
    fn until_steady(&mut self) -> anyhow::Result<()> {
        let (began, mut in_a_row) = (Instant::now(), 0);
        while in_a_row < STEADY {
            ensure!(
                began.elapsed() < BACK_WITHIN,
                "it does not come back within {BACK_WITHIN:?}"
            );
            let (by, took) = self.tick()?;
            if by == By::Cpu {
                in_a_row = 0;
                self.by_cpu += 1;
                self.longest_by_cpu = self.longest_by_cpu.max(took);
            } else {
                in_a_row += 1;
            }
            std::thread::sleep(TICK.saturating_sub(took));
        }
        Ok(())
    }

    /// Makes the device fail and ticks until it has: the longest of these ticks.
    fn until_it_fails(&mut self, cuda: &Cuda, during: During) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let in_time = || {
            let late = began.elapsed() > FAILS_WITHIN;
            ensure!(!late, "it does not fail within {FAILS_WITHIN:?}");
            Ok(())
        };
        while !cuda.go_astray(during)? {
            in_time()?;
            self.tick()?;
        }
        let mut longest = Duration::ZERO;
        loop {
            let (by, took) = self.tick()?;
            longest = longest.max(took);
            if cuda.state() != State::Open {
                ensure!(
                    by == By::Cpu,
                    "the device failed, and did the tick all the same"
                );
                return Ok(longest);
            }
            // The kernel that goes wrong is before this tick on its very stream.
            ensure!(
                during == During::Races,
                "the device was to fail, and has not"
            );
            in_time()?;
        }
    }
}

/// Races as a strategist asks for them.
struct Races {
    processor: Processor,
    size: Size,
    seed: u64,
    expected: Box<dyn Case>,
}

impl Races {
    fn on(cuda: &Cuda, seed: u64) -> anyhow::Result<Races> {
        let large = cuda.properties().multiprocessors >= LARGE_FROM;
        let size = if large { Size::Season } else { Size::Small };
        let mut expected = case(Kernel::RaceMonteCarlo, size, seed);
        Cpu.run(&mut *expected.task())?;
        Ok(Races {
            processor: Processor::Cuda(cuda.clone()),
            size,
            seed,
            expected,
        })
    }

    /// Simulates until the CPU had to.
    fn until_they_fail(self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let mut races = case(Kernel::RaceMonteCarlo, self.size, self.seed);
            let by = self.processor.run(&mut *races.task())?;
            compare(&*self.expected, &*races, Kernel::RaceMonteCarlo, self.seed)?;
            if by == By::Cpu {
                return Ok(());
            }
            ensure!(
                began.elapsed() < FAILS_WITHIN,
                "races do not fail within {FAILS_WITHIN:?}"
            );
        }
    }
}

/// A failure as it was logged and counted.
#[derive(Clone, Debug, Default)]
struct Failure {
    error: String,
    launches: String,
    background: String,
    /// How often, for each kernel.
    counted: BTreeMap<String, u64>,
}

/// What the process says and counts of failures.
struct Told {
    lines: Lines,
    metrics: PrometheusHandle,
    counted: Mutex<BTreeMap<String, u64>>,
}

impl Told {
    fn start() -> anyhow::Result<Told> {
        let lines = Lines::default();
        let layer = lines.clone().with_filter(LevelFilter::ERROR);
        tracing_subscriber::registry().with(layer).try_init()?;
        Ok(Told {
            lines,
            metrics: start_metrics()?,
            counted: Mutex::default(),
        })
    }

    /// The one failure since the last time that was asked.
    fn failure(&self, during: During) -> anyhow::Result<Failure> {
        let mut lines = self.lines.take();
        ensure!(
            lines.len() == 1,
            "one failure, and {} lines in the log: {lines:?}",
            lines.len()
        );
        let mut failure = lines.remove(0);
        failure.counted = self.counted();
        let Failure {
            error,
            launches,
            background,
            counted,
        } = &failure;
        ensure!(
            error.contains("CUDA_ERROR_"),
            "the device was to fail by itself, and what is logged is: {error}"
        );
        let kernels: Vec<&str> = launches
            .split("; ")
            .filter_map(|l| Some(l.split_once(": grid ")?.0))
            .collect();
        ensure!(
            launches.contains("arrays [") && !kernels.is_empty(),
            "the launches are not in the log: {launches}"
        );
        let whole = match during {
            During::Ticks => kernels == ["frame_stats", "assemble_inputs"],
            During::Races => {
                kernels.contains(&"race_monte_carlo")
                    || background.starts_with("race_monte_carlo: grid ")
            }
        };
        ensure!(
            whole,
            "other launches are in the log: {launches}; background: {background}"
        );
        let expected: BTreeMap<String, u64> = kernels
            .iter()
            .map(|kernel| ((*kernel).to_owned(), 1))
            .collect();
        ensure!(*counted == expected, "{ERRORS} counts {counted:?}");
        Ok(failure)
    }

    /// What was counted since the last time that was asked.
    fn counted(&self) -> BTreeMap<String, u64> {
        let mut last = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = counters(&self.metrics.render());
        let before = std::mem::replace(&mut *last, now.clone());
        let since = |(kernel, count): (String, u64)| {
            let more = count - before.get(&kernel).copied().unwrap_or(0);
            (more > 0).then_some((kernel, more))
        };
        now.into_iter().filter_map(since).collect()
    }
}

/// The failures of each kernel in what Prometheus would read.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let of = |line: &str| {
        let (kernel, count) = line
            .strip_prefix(ERRORS)?
            .strip_prefix("{kernel=\"")?
            .split_once("\"} ")?;
        Some((kernel.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(of).collect()
}

/// The log's failures, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Failure>>>);

impl Lines {
    fn take(&self) -> Vec<Failure> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut failure = Failure::default();
        event.record(&mut failure);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(failure);
    }
}

impl Visit for Failure {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "error" => self.error = value.to_owned(),
            "launches" => self.launches = value.to_owned(),
            "background" => self.background = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_from_the_metrics_by_kernel() {
        let text = format!(
            "# TYPE {ERRORS} counter\n{ERRORS}{{kernel=\"frame_stats\"}} 2\n{ERRORS}_of_others 5\n"
        );
        assert_eq!(
            counters(&text),
            BTreeMap::from([("frame_stats".to_owned(), 2)])
        );
    }
}
