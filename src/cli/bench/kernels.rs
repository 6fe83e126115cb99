//! `trackside bench kernels`: every kernel on the GPU against the CPU backend on two threads, in the same run.
//!
//! First parity, on fresh inputs (the seed is in the answer) and on the laps of `--recording`: every bit, or the
//! command fails. Then speed: the kernel alone, its arrays on the device, by the device's own clock; and the whole
//! call, copies included. Then a tick as one captured graph, on an idle device and while races are simulated on it.
//! Bandwidth is beside that of a copy from the device's memory to itself. Each figure that has a target is told with
//! it, and whether it is met. With `--soak` and `--break` nothing is timed: the device works for long, or fails.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::{feed, quantile};
use crate::compute::workload::{Case, Sample, Size, case, recorded};
use crate::compute::{Backend, Cpu, Kernel};
use crate::record::{Record, decode};

/// Threads of the baseline.
const CPU_THREADS: usize = 2;
/// Fresh inputs of each kernel for parity.
const PARITY_ROUNDS: u64 = 40;
/// Runs of each kernel that are timed.
const ROUNDS: usize = 9;
/// Most messages of a recording: half an hour of a race.
const MESSAGES: usize = 400_000;
/// The kernels that a season's laps go through, one after the other.
const OF_LAPS: [Kernel; 3] = [Kernel::LapResample, Kernel::LapFeatures, Kernel::DeltaTrace];
/// What is asked of the device: a figure's path in the answer, the least or the most.
const TARGETS: [(&str, Target); 13] = [
    ("/laps/speedup", Target::AtLeast(20.0)),
    (
        "/lap_resample/share_of_copy_bandwidth",
        Target::AtLeast(0.6),
    ),
    (
        "/lap_features/share_of_copy_bandwidth",
        Target::AtLeast(0.6),
    ),
    ("/delta_trace/share_of_copy_bandwidth", Target::AtLeast(0.6)),
    ("/stint_fit/speedup", Target::AtLeast(10.0)),
    ("/frame_stats/speedup", Target::AtLeast(10.0)),
    ("/frame_stats/share_of_copy_bandwidth", Target::AtLeast(0.6)),
    ("/race_monte_carlo/speedup", Target::AtLeast(50.0)),
    ("/tick/p99_ms", Target::AtMost(0.2)),
    ("/tick_beside_races/p99_ms", Target::AtMost(0.2)),
    ("/soak/leaked_bytes", Target::AtMost(0.0)),
    ("/faults/longest_tick_ms", Target::AtMost(100.0)),
    ("/faults/leaked_bytes", Target::AtMost(0.0)),
];

#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Every kernel on the GPU against the CPU.
#[derive(clap::Args)]
pub struct Args {
    /// Fail where there is no GPU, rather than measure the CPU alone.
    #[arg(long)]
    require_gpu: bool,
    /// Check parity and measure nothing.
    #[arg(long)]
    parity_only: bool,
    /// Only this kernel.
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Where random inputs begin; without it, the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many ticks, and every kernel now and then; fail if the device's memory is not flat.
    #[arg(long, value_name = "TICKS")]
    soak: Option<u64>,
    /// Make the device fail in the middle of ticks and of simulated races; fail unless the CPU takes over within the
    /// tick, the device comes back, and nothing is lost. Let nobody else use the GPU meanwhile.
    #[arg(long = "break")]
    faults: bool,
}

/// Runs it.
///
/// # Errors
/// If a kernel and the CPU disagree in a bit, the device fails, or there is none and `--require-gpu` says so.
pub fn run(args: &Args, recording: Option<&Path>) -> anyhow::Result<Value> {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let kernels: Vec<Kernel> = Kernel::ALL
        .into_iter()
        .filter(|k| args.kernel.as_ref().is_none_or(|name| name == k.name()))
        .collect();
    anyhow::ensure!(
        !kernels.is_empty(),
        "no kernel is called {}; there are: {}",
        args.kernel.as_deref().unwrap_or_default(),
        Kernel::ALL.map(Kernel::name).join(", ")
    );
    let gpu = Gpu::open();
    if let (Err(why), true) = (&gpu, args.require_gpu) {
        anyhow::bail!("there is no GPU to measure: {why}");
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(CPU_THREADS)
        .build()?;
    let mut out = Map::new();
    out.insert("seed".into(), seed.into());
    out.insert("cpu_threads".into(), CPU_THREADS.into());
    match &gpu {
        Ok(gpu) => {
            out.insert("gpu".into(), gpu.properties());
            out.insert("parity".into(), parity(gpu, &kernels, seed)?);
            if let Some(recording) = recording {
                out.insert("recorded".into(), driven(gpu, &kernels, recording)?);
            }
        }
        Err(why) => {
            out.insert("gpu".into(), Value::Null);
            out.insert("gpu_missing".into(), why.to_string().into());
        }
    }
    if let (Some(ticks), Ok(gpu)) = (args.soak, &gpu) {
        out.insert("soak".into(), gpu.soak(ticks, seed)?);
    }
    if let (true, Ok(gpu)) = (args.faults, &gpu) {
        out.insert("faults".into(), gpu.faults(seed)?);
    }
    if !args.parity_only && args.soak.is_none() && !args.faults {
        let copy = gpu.as_ref().ok().map(Gpu::copy_rate).transpose()?;
        out.insert("copy_gb_per_s".into(), copy.map(|rate| rate / 1e9).into());
        for kernel in kernels {
            let figures = measure(kernel, gpu.as_ref().ok(), &pool, copy, seed)?;
            out.insert(kernel.name().into(), figures);
        }
        if let Ok(gpu) = &gpu {
            out.insert("tick".into(), gpu.tick(seed)?);
            out.insert("tick_beside_races".into(), gpu.tick_beside_races(seed)?);
        }
        let laps = together(&out);
        out.extend(laps.map(|laps| ("laps".to_owned(), laps)));
    }
    let mut out = Value::Object(out);
    if gpu.is_ok() {
        out["targets"] = targets(&out);
    }
    Ok(json!({ "kernels": out }))
}

/// The kernels of laps as one: what a season of laps takes on either.
fn together(out: &Map<String, Value>) -> Option<Value> {
    let sum = |figure: &str| -> Option<f64> {
        let of = |kernel: &Kernel| out.get(kernel.name())?.get(figure)?.as_f64();
        OF_LAPS.iter().map(of).sum()
    };
    let cpu = sum("cpu_ms")?;
    let mut laps = json!({ "cpu_ms": cpu });
    if let (Some(gpu), Some(copied)) = (sum("gpu_ms"), sum("gpu_with_copies_ms")) {
        laps["gpu_ms"] = json!(gpu);
        laps["speedup"] = json!(cpu / gpu);
        laps["speedup_with_copies"] = json!(cpu / copied);
    }
    Some(laps)
}

/// What was measured of what is asked.
fn targets(out: &Value) -> Value {
    let told = TARGETS.iter().filter_map(|(path, target)| {
        let measured = out.pointer(path)?.as_f64()?;
        let (bound, wanted, met) = match *target {
            Target::AtLeast(wanted) => ("at_least", wanted, measured >= wanted),
            Target::AtMost(wanted) => ("at_most", wanted, measured <= wanted),
        };
        let figure = path.trim_start_matches('/').replace('/', ".");
        Some(json!({ "figure": figure, bound: wanted, "measured": measured, "met": met }))
    });
    told.collect()
}

fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |t| t.as_nanos() as u64)
}

/// Both backends over the same inputs; every bit.
pub(super) fn compare(
    here: &dyn Case,
    there: &dyn Case,
    kernel: Kernel,
    seed: u64,
) -> anyhow::Result<()> {
    for ((name, a), (_, b)) in here.outputs().iter().zip(there.outputs()) {
        if let Some(i) = a.difference(&b) {
            anyhow::bail!(
                "{} with seed {seed}: {name}[{i}] is {} on the CPU and {} on the GPU",
                kernel.name(),
                a.show(i),
                b.show(i)
            );
        }
    }
    Ok(())
}

fn parity(gpu: &Gpu, kernels: &[Kernel], seed: u64) -> anyhow::Result<Value> {
    let mut out = Map::new();
    for &kernel in kernels {
        for seed in (0..PARITY_ROUNDS).map(|round| seed.wrapping_add(round)) {
            let mut here = case(kernel, Size::Small, seed);
            let mut there = case(kernel, Size::Small, seed);
            Cpu.run(&mut *here.task())?;
            gpu.run(&mut *there)
                .with_context(|| format!("{} with seed {seed}", kernel.name()))?;
            compare(&*here, &*there, kernel, seed)?;
        }
        out.insert(kernel.name().into(), json!({ "inputs": PARITY_ROUNDS }));
    }
    Ok(out.into())
}

/// Both backends over what was really driven.
fn driven(gpu: &Gpu, kernels: &[Kernel], recording: &Path) -> anyhow::Result<Value> {
    let samples = samples(recording)?;
    let mut out = Map::new();
    for ((kernel, mut here), (_, mut there)) in
        recorded(&samples)?.into_iter().zip(recorded(&samples)?)
    {
        if !kernels.contains(&kernel) {
            continue;
        }
        Cpu.run(&mut *here.task())?;
        gpu.run(&mut *there)
            .with_context(|| format!("{} on {}", kernel.name(), recording.display()))?;
        compare(&*here, &*there, kernel, 0)
            .with_context(|| format!("on the laps of {}", recording.display()))?;
        out.insert(kernel.name().into(), json!({ "samples": samples.len() }));
    }
    Ok(out.into())
}

/// Every car's samples in a recording, as the daemon takes them in.
fn samples(recording: &Path) -> anyhow::Result<Vec<Sample>> {
    let channel = |value: Option<i16>| value.map_or(f32::NAN, f32::from);
    let cars = feed::messages(Some(recording), MESSAGES)?;
    let samples: Vec<Sample> = cars
        .iter()
        .filter_map(|m| match decode(&m.topic, &m.payload).ok()?.entry.record {
            Record::CarData(car) => Some(Sample {
                car: car.driver_number,
                at_us: car.date.micros(),
                channels: [
                    car.speed,
                    car.throttle,
                    car.brake,
                    car.n_gear,
                    car.rpm,
                    car.drs,
                ]
                .map(channel),
            }),
            _ => None,
        })
        .collect();
    anyhow::ensure!(
        !samples.is_empty(),
        "{} has no car_data in its first {MESSAGES} messages: name a recording of a session",
        recording.display()
    );
    Ok(samples)
}

fn middle(took: &[Duration]) -> f64 {
    let mut seconds: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
    quantile(&mut seconds, 0.5)
}

fn measure(
    kernel: Kernel,
    gpu: Option<&Gpu>,
    pool: &rayon::ThreadPool,
    copy: Option<f64>,
    seed: u64,
) -> anyhow::Result<Value> {
    let mut here = case(kernel, Size::Season, seed);
    let bytes = here.bytes();
    let cpu: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            here.reset();
            let began = Instant::now();
            pool.install(|| Cpu.run(&mut *here.task()))?;
            Ok(began.elapsed())
        })
        .collect::<anyhow::Result<_>>()?;
    let cpu = middle(&cpu);
    let mut out = json!({ "bytes": bytes, "cpu_ms": cpu * 1e3 });
    if kernel == Kernel::RaceMonteCarlo {
        out["cpu_races_per_s"] = json!(races(&*here) / cpu);
    }
    if let Some(gpu) = gpu {
        let mut there = case(kernel, Size::Season, seed);
        let alone = middle(&gpu.measure(&mut *there)?);
        compare(&*here, &*there, kernel, seed)?;
        let whole: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                there.reset();
                let began = Instant::now();
                gpu.run(&mut *there)?;
                Ok(began.elapsed())
            })
            .collect::<anyhow::Result<_>>()?;
        out["gpu_ms"] = json!(alone * 1e3);
        out["gpu_with_copies_ms"] = json!(middle(&whole) * 1e3);
        out["speedup"] = json!(cpu / alone);
        out["speedup_with_copies"] = json!(cpu / middle(&whole));
        let rate = bytes as f64 / alone;
        out["gb_per_s"] = json!(rate / 1e9);
        out["share_of_copy_bandwidth"] = json!(copy.map(|copy| rate / copy));
        if kernel == Kernel::RaceMonteCarlo {
            out["gpu_races_per_s"] = json!(races(&*there) / alone);
            out["share_of_instruction_bound"] = json!(gpu.instruction_seconds() / alone);
        }
    }
    Ok(out)
}

/// Cars of the large case of the race.
const CARS: f64 = 20.0;
/// Laps of it.
#[cfg(feature = "cuda")]
const LAPS: f64 = 57.0;
/// Instructions of a warp for a lap of a race, counted by hand: see `kernels/build`.
#[cfg(feature = "cuda")]
const WARP_INSTRUCTIONS_A_LAP: f64 = 500.0;

fn races(case: &dyn Case) -> f64 {
    let keys: usize = case
        .outputs()
        .iter()
        .map(|(_, values)| match values {
            crate::compute::workload::Values::I32(keys) => keys.len(),
            _ => 0,
        })
        .sum();
    keys as f64 / CARS
}

#[cfg(feature = "cuda")]
use gpu::Gpu;

#[cfg(feature = "cuda")]
mod gpu {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use anyhow::Context;
    use serde_json::{Value, json};

    use super::super::{faults, memory_of};
    use super::{LAPS, ROUNDS, WARP_INSTRUCTIONS_A_LAP, compare, quantile};
    use crate::compute::cuda::{Cuda, CudaError};
    use crate::compute::workload::{Case, Size, case, tick};
    use crate::compute::{Backend, Cpu, Kernel};

    /// Bytes of the copy that bandwidth is compared with.
    const COPY_BYTES: usize = 512 << 20;
    /// Ticks that are timed, and those before that are not.
    const TICKS: usize = 10_000;
    const WARM_UP: usize = 200;
    /// Every so many ticks of a soak every kernel runs once.
    const ALL_EVERY: u64 = 1_000;
    /// What the memory of a device that has its own may shrink by (bytes): by nothing.
    const SLACK: u64 = 0;
    /// The same where it is the machine's, which others use (bytes).
    const SHARED_SLACK: u64 = 64 << 20;
    /// What the process may grow by (bytes): two of the allocator's arenas' steps. Pinned memory is in it.
    const RESIDENT_SLACK: u64 = 4 << 20;
    /// Instructions on whole numbers that a multiprocessor begins a clock, for a warp each: 64 lanes, from Volta to
    /// Hopper (CUDA C++ Programming Guide, arithmetic instructions). The kernel has hardly any others.
    const INTEGER_WARPS_A_CLOCK: f64 = 2.0;
    /// Races of the large case.
    const RACES: f64 = 100_000.0;

    pub(super) struct Gpu(Cuda);

    impl Gpu {
        pub(super) fn open() -> Result<Gpu, CudaError> {
            Cuda::open().map(Gpu)
        }

        pub(super) fn properties(&self) -> Value {
            json!(self.0.properties())
        }

        pub(super) fn run(&self, case: &mut dyn Case) -> anyhow::Result<()> {
            let mut task = case.task();
            task.check()?;
            Ok(self.0.try_run(&mut *task)?)
        }

        pub(super) fn measure(&self, case: &mut dyn Case) -> anyhow::Result<Vec<Duration>> {
            let mut task = case.task();
            task.check()?;
            Ok(self.0.measure(&mut *task, ROUNDS)?)
        }

        /// Bytes read and written a second by a copy within the device's memory.
        pub(super) fn copy_rate(&self) -> anyhow::Result<f64> {
            let took = self.0.measure_copy(COPY_BYTES, ROUNDS)?;
            Ok(2.0 * COPY_BYTES as f64 / super::middle(&took))
        }

        /// How long the large race would take if every multiprocessor began as many instructions as it can.
        pub(super) fn instruction_seconds(&self) -> f64 {
            let p = self.0.properties();
            let rate = f64::from(p.multiprocessors) * INTEGER_WARPS_A_CLOCK * p.clock_hz as f64;
            RACES * LAPS * WARP_INSTRUCTIONS_A_LAP / rate
        }

        /// A tick: windows of every car's channels, and the models' inputs, as one graph.
        pub(super) fn tick(&self, seed: u64) -> anyhow::Result<Value> {
            let (mut here, mut there) = (tick(seed), tick(seed));
            for case in &mut here {
                Cpu.run(&mut *case.task())?;
            }
            let mut took = Vec::with_capacity(TICKS);
            let mut graph = {
                let mut tasks: Vec<_> = there.iter_mut().map(|case| case.task()).collect();
                self.0.capture(&mut tasks)?
            };
            for round in 0..WARM_UP + TICKS {
                let mut tasks: Vec<_> = there.iter_mut().map(|case| case.task()).collect();
                let began = Instant::now();
                graph.try_run(&mut tasks)?;
                if round >= WARM_UP {
                    took.push(began.elapsed().as_secs_f64() * 1e3);
                }
            }
            for (here, there) in here.iter().zip(&there) {
                compare(&**here, &**there, Kernel::FrameStats, seed).context("a tick")?;
            }
            Ok(json!({
                "ticks": TICKS,
                "p50_ms": quantile(&mut took, 0.5),
                "p99_ms": quantile(&mut took, 0.99),
                "max_ms": quantile(&mut took, 1.0),
            }))
        }

        /// The same while the large race is simulated again and again on the background's stream.
        pub(super) fn tick_beside_races(&self, seed: u64) -> anyhow::Result<Value> {
            let (over, sets) = (AtomicBool::new(false), AtomicU64::new(0));
            let simulate = || -> anyhow::Result<()> {
                let mut races = case(Kernel::RaceMonteCarlo, Size::Season, seed);
                while !over.load(Ordering::Relaxed) {
                    races.reset();
                    self.run(&mut *races)?;
                    sets.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            };
            std::thread::scope(|scope| {
                let races = scope.spawn(simulate);
                while sets.load(Ordering::Relaxed) == 0 && !races.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let before = sets.load(Ordering::Relaxed);
                let ticked = self.tick(seed);
                over.store(true, Ordering::Relaxed);
                let ended = races.join();
                ended.map_err(|_| anyhow::anyhow!("the races panicked"))??;
                let mut ticked = ticked?;
                ticked["sets_of_races"] = json!(sets.load(Ordering::Relaxed) - before);
                Ok(ticked)
            })
        }

        /// Many ticks, and every kernel now and then: does the device's memory stay flat?
        pub(super) fn soak(&self, ticks: u64, seed: u64) -> anyhow::Result<Value> {
            let mut cases = tick(seed);
            let mut graph = {
                let mut tasks: Vec<_> = cases.iter_mut().map(|case| case.task()).collect();
                self.0.capture(&mut tasks)?
            };
            let (mut free, mut resident) = (Vec::new(), Vec::new());
            for n in 0..ticks {
                let mut tasks: Vec<_> = cases.iter_mut().map(|case| case.task()).collect();
                graph.try_run(&mut tasks)?;
                if n % ALL_EVERY == 0 {
                    for kernel in Kernel::ALL {
                        self.run(&mut *case(kernel, Size::Small, seed.wrapping_add(n)))?;
                    }
                    free.push(self.0.memory()?.0 as u64);
                    resident.push(memory_of("self", "VmRSS")?);
                }
            }
            let (at_first, at_last) = settled(&free).context("a soak has at least one tick")?;
            let leaked = self.leaked(at_first, at_last, &format!("{ticks} ticks"))?;
            let (before, after) = settled(&resident).context("a soak has at least one tick")?;
            let grown = after.saturating_sub(before);
            anyhow::ensure!(
                grown <= RESIDENT_SLACK,
                "the process has grown by {grown} bytes in {ticks} ticks; at most {RESIDENT_SLACK} are allowed"
            );
            Ok(json!({
                "ticks": ticks,
                "leaked_bytes": leaked,
                "free_bytes": at_last,
                "resident_growth_bytes": grown,
            }))
        }

        /// A device that fails, and comes back.
        pub(super) fn faults(&self, seed: u64) -> anyhow::Result<Value> {
            let mut said = faults::run(&self.0, seed)?;
            let free = said.free_bytes.iter().copied();
            let leaked = match (free.clone().next(), free.min()) {
                (Some(first), Some(least)) => self.leaked(first, least, "it has failed again")?,
                _ => anyhow::bail!("the device was never opened anew"),
            };
            said.figures["leaked_bytes"] = json!(leaked);
            Ok(said.figures)
        }

        /// By how much the device's free memory has shrunk (bytes).
        fn leaked(&self, before: u64, now: u64, after: &str) -> anyhow::Result<u64> {
            let leaked = before.saturating_sub(now);
            let slack = if self.0.properties().integrated {
                SHARED_SLACK
            } else {
                SLACK
            };
            anyhow::ensure!(
                leaked <= slack,
                "the device has {leaked} bytes less after {after}; at most {slack} are allowed"
            );
            Ok(leaked)
        }
    }

    /// The first and the last figure after the first quarter, in which pools fill.
    fn settled(figures: &[u64]) -> Option<(u64, u64)> {
        let settled = &figures[figures.len() / 4..];
        settled.first().copied().zip(settled.last().copied())
    }
}

/// A binary that was built without the feature has no GPU, and this type no value.
#[cfg(not(feature = "cuda"))]
enum Gpu {}

#[cfg(not(feature = "cuda"))]
impl Gpu {
    fn open() -> Result<Gpu, &'static str> {
        Err("this binary was built without the feature `cuda`")
    }

    fn properties(&self) -> Value {
        match *self {}
    }

    fn run(&self, _: &mut dyn Case) -> anyhow::Result<()> {
        match *self {}
    }

    fn measure(&self, _: &mut dyn Case) -> anyhow::Result<Vec<Duration>> {
        match *self {}
    }

    fn copy_rate(&self) -> anyhow::Result<f64> {
        match *self {}
    }

    fn instruction_seconds(&self) -> f64 {
        match *self {}
    }

    fn tick(&self, _: u64) -> anyhow::Result<Value> {
        match *self {}
    }

    fn tick_beside_races(&self, _: u64) -> anyhow::Result<Value> {
        match *self {}
    }

    fn soak(&self, _: u64, _: u64) -> anyhow::Result<Value> {
        match *self {}
    }

    fn faults(&self, _: u64) -> anyhow::Result<Value> {
        match *self {}
    }
}
