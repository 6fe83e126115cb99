//! The CUDA backend: the kernels of `kernels/` on the first NVIDIA GPU.
//!
//! libcuda is loaded at run time: the binary starts on any machine, and a machine without a driver is told from
//! one whose driver fails. A thread of its own owns the context ([`thread`]); it has a stream, a memory pool and
//! pinned blocks ([`staging`]), mapped where CPU and GPU share their memory (a Jetson: no copies), staged where
//! they do not. What runs at every tick is captured once as a graph ([`Graph`]). There are two streams: that of
//! ticks comes first; simulated races, which may take long, are on the background's, and nobody waits for them but
//! who asked.
//!
//! **When the device fails** (an error, a hang, a library that lacks a symbol): it is logged with the kernel and
//! the sizes of its arrays, counted, and the CPU does the task within the same call. The context is torn down and
//! opened anew after [`FIRST_REST`], doubled up to [`LONGEST_REST`] while it keeps failing.

#![allow(unsafe_code)]

mod device;
mod error;
mod guest;
mod parking;
mod properties;
mod staging;
mod thread;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::error::CudaError;
pub use self::guest::{Guest, Hosted};
use self::parking::Parking;
pub use self::properties::Properties;
use self::staging::{Layout, Staging};
use self::thread::Thread;
use super::launch::{Data, Step};
use super::{Backend, By, Kernel, Launch, ShapeError, Task};

/// Longest wait for a launch.
const LAUNCH_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for what runs on the background's stream, and how often it is asked after.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(60);
const BACKGROUND_POLL: Duration = Duration::from_micros(200);
/// Longest wait for a device to open: PTX may have to be compiled.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// How long a device rests after its first failure, and at most.
pub const FIRST_REST: Duration = Duration::from_secs(5);
pub const LONGEST_REST: Duration = Duration::from_secs(300);
/// Most bytes of one launch.
pub const MAX_BYTES: usize = 2 << 30;

/// The device that is open. A process has one, for good: closing it resets the context that everything in it shares,
/// another opening's, too.
static OPEN: Mutex<Option<Cuda>> = Mutex::new(None);

/// The first NVIDIA GPU.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
}

struct Inner {
    thread: Thread,
    properties: Properties,
    blocks: Parking,
    /// The block of each captured graph, by its number; gone after a failure.
    captured: Mutex<HashMap<u64, Staging>>,
    next_graph: AtomicU64,
    health: Mutex<Health>,
    /// Held by whose launch is on the background's stream: one at a time.
    background: Mutex<()>,
}

/// Whether the device may be used.
#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Health {
    fn rest(&mut self, now: Instant) -> Duration {
        let rest = FIRST_REST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_REST);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now + rest);
        rest
    }

    fn check(&self, now: Instant) -> Result<(), CudaError> {
        match self.rests_until {
            Some(until) if until > now => Err(CudaError::Resting((until - now).as_secs().max(1))),
            _ => Ok(()),
        }
    }
}

impl Cuda {
    /// Opens the first GPU; gives the one that is open where there is one.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`] and [`CudaError::NoDevice`] where there is none; else what the driver said.
    pub fn open() -> Result<Cuda, CudaError> {
        let mut open = lock(&OPEN);
        if let Some(cuda) = &*open {
            return Ok(cuda.clone());
        }
        Ok(open.insert(Cuda::open_anew()?).clone())
    }

    fn open_anew() -> Result<Cuda, CudaError> {
        if !device::driver_is_there() {
            return Err(CudaError::NoDriver);
        }
        let thread = Thread::start()?;
        let properties = thread.call(OPEN_LIMIT, |device| Ok(device.properties.clone()))?;
        tracing::info!(
            gpu = properties.name,
            capability = ?properties.capability,
            integrated = properties.integrated,
            "CUDA device opened"
        );
        Ok(Cuda {
            inner: Arc::new(Inner {
                thread,
                properties,
                blocks: Parking::default(),
                captured: Mutex::default(),
                next_graph: AtomicU64::new(0),
                health: Mutex::default(),
                background: Mutex::default(),
            }),
        })
    }

    pub fn properties(&self) -> &Properties {
        &self.inner.properties
    }

    /// Free and total memory of the device (bytes).
    ///
    /// # Errors
    /// What the driver said.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.inner
            .thread
            .call(LAUNCH_LIMIT, |device| device.memory())
    }

    /// Carries out a task on the device, and nowhere else.
    ///
    /// # Errors
    /// What the driver said; the task's arrays are as they were.
    pub fn try_run(&self, task: &mut dyn Task) -> Result<(), CudaError> {
        let mut launch = task.launch(&self.inner.properties.geometry());
        if launch.step.kernel.is_long() {
            return self.behind(&mut launch);
        }
        self.staged(
            &mut launch,
            LAUNCH_LIMIT,
            |device, staging, layout, step| device.run(staging, layout, step),
        )
    }

    /// A launch on the background's stream. The device's thread is free for ticks meanwhile: who asked waits, and
    /// asks after it.
    fn behind(&self, launch: &mut Launch<'_>) -> Result<(), CudaError> {
        let _one = lock(&self.inner.background);
        let layout = Layout::of(launch.data.iter());
        let mut staging = self.block(layout.bytes)?;
        staging.fill(&layout, launch.data.iter());
        let (step, began) = (launch.step.clone(), Instant::now());
        let thread = &self.inner.thread;
        let (staging, layout) = thread.call(LAUNCH_LIMIT, move |device| {
            device.submit(&staging, &layout, &step)?;
            Ok((staging, layout))
        })?;
        loop {
            match thread.call(LAUNCH_LIMIT, |device| device.is_done()) {
                Ok(true) => break,
                // With its queue full, the device is at least at work.
                Ok(false) | Err(CudaError::Busy(_)) => {}
                Err(e) => return Err(e),
            }
            if began.elapsed() > BACKGROUND_LIMIT {
                thread.distrust();
                return Err(CudaError::TimedOut(BACKGROUND_LIMIT.as_secs()));
            }
            std::thread::sleep(BACKGROUND_POLL);
        }
        staging.drain(&layout, launch.data.iter_mut());
        self.park(staging);
        Ok(())
    }

    /// How long the kernel alone takes on a task (its arrays on the device), so many times over; the task is
    /// carried out, too.
    ///
    /// # Errors
    /// What the driver said.
    pub fn measure(&self, task: &mut dyn Task, rounds: usize) -> Result<Vec<Duration>, CudaError> {
        let mut launch = task.launch(&self.inner.properties.geometry());
        self.staged(
            &mut launch,
            OPEN_LIMIT,
            move |device, staging, layout, step| device.measure(staging, layout, step, rounds),
        )
    }

    /// How long a copy of so many bytes from the device's memory to the device's memory takes.
    ///
    /// # Errors
    /// What the driver said.
    pub fn measure_copy(&self, bytes: usize, rounds: usize) -> Result<Vec<Duration>, CudaError> {
        self.inner
            .thread
            .call(OPEN_LIMIT, move |device| device.measure_copy(bytes, rounds))
    }

    /// Captures tasks of fixed shapes as one graph, to be run over and over with [`Graph::run`].
    ///
    /// # Errors
    /// What the driver said.
    pub fn capture(&self, tasks: &mut [Box<dyn Task + '_>]) -> Result<Graph, CudaError> {
        let plan = Plan::of(self, tasks);
        let staging = self.block(plan.layout.bytes)?;
        let (layout, steps) = (plan.layout.clone(), plan.steps.clone());
        let number = self.inner.next_graph.fetch_add(1, Ordering::Relaxed);
        let (staging, base) = self.inner.thread.call(OPEN_LIMIT, move |device| {
            let base = device.capture(number, &staging, &layout, &steps)?;
            Ok((staging, base))
        })?;
        lock(&self.inner.captured).insert(number, staging);
        Ok(Graph {
            cuda: self.clone(),
            plan,
            number,
            base,
        })
    }

    /// Carries out tasks as one graph, captured at the first call and kept in `graph`; on the CPU if the device
    /// fails.
    ///
    /// # Errors
    /// [`ShapeError`] if the arrays do not fit each other.
    pub fn tick(
        &self,
        graph: &mut Option<Graph>,
        tasks: &mut [Box<dyn Task + '_>],
    ) -> Result<By, ShapeError> {
        self.guarded_all(tasks, |tasks| {
            if graph.is_none() {
                *graph = Some(self.capture(tasks)?);
            }
            graph
                .as_mut()
                .map_or(Err(CudaError::NotCaptured), |graph| graph.try_run(tasks))
        })
    }

    /// Several tasks on the device; all of them on the CPU if it fails.
    fn guarded_all(
        &self,
        tasks: &mut [Box<dyn Task + '_>],
        on_device: impl FnOnce(&mut [Box<dyn Task + '_>]) -> Result<(), CudaError>,
    ) -> Result<By, ShapeError> {
        tasks.iter().try_for_each(|task| task.check())?;
        let kernels: Vec<Kernel> = tasks.iter().map(|t| t.kernel()).collect();
        let sizes: Vec<usize> = tasks
            .iter_mut()
            .flat_map(|task| sizes(&mut **task, self))
            .collect();
        if self.guarded(&kernels, &sizes, || on_device(tasks)) {
            return Ok(By::Cuda);
        }
        tasks.iter_mut().for_each(|task| task.run_on_cpu());
        Ok(By::Cpu)
    }

    /// Whether it failed not long ago, and the CPU does its work.
    pub fn is_resting(&self) -> bool {
        lock(&self.inner.health).check(Instant::now()).is_err()
    }

    /// Lets go of what is held of the device's memory, so that its context can be torn down.
    pub(in crate::compute) fn forget_memory(&self) {
        self.inner.blocks.clear();
        lock(&self.inner.captured).clear();
    }

    /// Copies a launch's arrays into a block, has `work` done with it, and copies back.
    fn staged<T: Send + 'static>(
        &self,
        launch: &mut Launch<'_>,
        limit: Duration,
        work: impl FnOnce(&mut device::Device, &mut Staging, &Layout, &Step) -> Result<T, CudaError>
        + Send
        + 'static,
    ) -> Result<T, CudaError> {
        let layout = Layout::of(launch.data.iter());
        let mut staging = self.block(layout.bytes)?;
        staging.fill(&layout, launch.data.iter());
        let step = launch.step.clone();
        let (staging, layout, said) = self.inner.thread.call(limit, move |device| {
            let said = work(device, &mut staging, &layout, &step)?;
            Ok((staging, layout, said))
        })?;
        staging.drain(&layout, launch.data.iter_mut());
        self.park(staging);
        Ok(said)
    }

    /// A block of pinned memory, one that is parked or a new one.
    fn block(&self, bytes: usize) -> Result<Staging, CudaError> {
        if bytes > MAX_BYTES {
            return Err(CudaError::TooLarge {
                bytes,
                limit: MAX_BYTES,
            });
        }
        if let Some(block) = self.inner.blocks.take(bytes) {
            return Ok(block);
        }
        let bytes = parking::rounded(bytes);
        self.inner
            .thread
            .call(OPEN_LIMIT, move |device| device.stage(bytes))
    }

    /// Keeps a block for the next launch; one too many goes back to the driver.
    fn park(&self, staging: Staging) {
        if self.inner.thread.is_suspect() {
            // Its context is about to go, and waits for this.
            return;
        }
        if let Some(surplus) = self.inner.blocks.put(staging) {
            let freed = self
                .inner
                .thread
                .call(LAUNCH_LIMIT, move |device| device.unstage(surplus));
            if let Err(e) = freed {
                tracing::warn!(error = %e, "pinned memory was not given back");
            }
        }
    }

    /// Runs `on_device` unless the device rests; says, counts and remembers its failure.
    fn guarded(
        &self,
        kernels: &[Kernel],
        sizes: &[usize],
        on_device: impl FnOnce() -> Result<(), CudaError>,
    ) -> bool {
        let now = Instant::now();
        let health = || lock(&self.inner.health);
        if health().check(now).is_err() {
            return false;
        }
        match on_device() {
            Ok(()) => {
                health().failures = 0;
                true
            }
            Err(CudaError::Busy(waiting)) => {
                tracing::debug!(waiting, "the device is busy; the CPU takes it");
                metrics::counter!("trackside_compute_gpu_busy_total").increment(1);
                false
            }
            Err(e) => {
                let rest = health().rest(Instant::now());
                self.forget_memory();
                let names: Vec<&str> = kernels.iter().map(|k| k.name()).collect();
                tracing::error!(
                    error = %e,
                    kernels = ?names,
                    array_bytes = ?sizes,
                    rest_s = rest.as_secs(),
                    "the GPU failed; the CPU takes over, and the GPU is tried again later"
                );
                for name in names {
                    metrics::counter!("trackside_compute_gpu_errors_total", "kernel" => name)
                        .increment(1);
                }
                false
            }
        }
    }
}

/// A lock whose holder panicked still holds whole values here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sizes(task: &mut dyn Task, cuda: &Cuda) -> Vec<usize> {
    let launch = task.launch(&cuda.inner.properties.geometry());
    launch.data.iter().map(Data::len).collect()
}

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        By::Cuda.name()
    }

    fn run(&self, task: &mut dyn Task) -> Result<By, ShapeError> {
        task.check()?;
        let (kernel, sizes) = (task.kernel(), sizes(task, self));
        if self.guarded(&[kernel], &sizes, || self.try_run(task)) {
            return Ok(By::Cuda);
        }
        task.run_on_cpu();
        Ok(By::Cpu)
    }
}

/// Launches that follow each other, their arrays laid out in one block.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    steps: Vec<Step>,
    layout: Layout,
}

impl Plan {
    fn of(cuda: &Cuda, tasks: &mut [Box<dyn Task + '_>]) -> Plan {
        let geometry = cuda.inner.properties.geometry();
        let launches: Vec<Launch<'_>> = tasks.iter_mut().map(|t| t.launch(&geometry)).collect();
        Plan::joined(&launches)
    }

    /// Arrays are numbered through.
    fn joined(launches: &[Launch<'_>]) -> Plan {
        let layout = Layout::of(launches.iter().flat_map(|l| &l.data));
        let mut first = 0;
        let mut steps = Vec::with_capacity(launches.len());
        for launch in launches {
            steps.push(launch.step.with_arrays_from(first));
            first += launch.data.len();
        }
        Plan { steps, layout }
    }
}

/// Tasks of fixed shapes, captured as one CUDA graph: one launch a tick.
pub struct Graph {
    cuda: Cuda,
    plan: Plan,
    number: u64,
    base: u64,
}

impl Graph {
    /// Carries out the tasks; on the CPU if the device fails. Other shapes or numbers than those captured are
    /// captured anew.
    ///
    /// # Errors
    /// [`ShapeError`] if the arrays do not fit each other.
    pub fn run(&mut self, tasks: &mut [Box<dyn Task + '_>]) -> Result<By, ShapeError> {
        self.cuda
            .clone()
            .guarded_all(tasks, |tasks| self.try_run(tasks))
    }

    /// The same on the device, and nowhere else.
    ///
    /// # Errors
    /// What the driver said.
    pub fn try_run(&mut self, tasks: &mut [Box<dyn Task + '_>]) -> Result<(), CudaError> {
        let held = lock(&self.cuda.inner.captured).remove(&self.number);
        let mut staging = match held {
            Some(staging) if Plan::of(&self.cuda, tasks) == self.plan => staging,
            stale => {
                if let Some(staging) = stale {
                    self.give_back(staging)?;
                }
                // The old one's `drop` finds nothing to give back.
                *self = self.cuda.capture(tasks)?;
                lock(&self.cuda.inner.captured)
                    .remove(&self.number)
                    .ok_or(CudaError::NotCaptured)?
            }
        };
        let geometry = self.cuda.inner.properties.geometry();
        let mut launches: Vec<Launch<'_>> = tasks.iter_mut().map(|t| t.launch(&geometry)).collect();
        let layout = &self.plan.layout;
        staging.fill(layout, launches.iter().flat_map(|l| &l.data));
        let number = self.number;
        let staging = self.cuda.inner.thread.call(LAUNCH_LIMIT, move |device| {
            device.replay(number)?;
            Ok(staging)
        })?;
        staging.drain(layout, launches.iter_mut().flat_map(|l| &mut l.data));
        if !self.cuda.inner.thread.is_suspect() {
            lock(&self.cuda.inner.captured).insert(number, staging);
        }
        Ok(())
    }

    /// Where an array lies on the device, arrays numbered through all tasks: for an engine that reads it there.
    /// It changes when the graph is captured anew.
    pub fn address(&self, array: usize) -> Option<u64> {
        Some(self.base + self.plan.layout.arrays.get(array)?.0 as u64)
    }

    fn give_back(&self, staging: Staging) -> Result<(), CudaError> {
        let number = self.number;
        self.cuda.inner.thread.call(LAUNCH_LIMIT, move |device| {
            device.forget(number)?;
            device.unstage(staging)
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let held = lock(&self.cuda.inner.captured).remove(&self.number);
        if let Some(Err(e)) = held.map(|staging| self.give_back(staging)) {
            tracing::warn!(error = %e, "a graph was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_end() {
        let mut health = Health::default();
        let now = Instant::now();
        assert!(health.check(now).is_ok());
        assert_eq!(health.rest(now), FIRST_REST);
        assert!(matches!(health.check(now), Err(CudaError::Resting(5))));
        assert!(health.check(now + FIRST_REST).is_ok());
        assert_eq!(health.rest(now), FIRST_REST * 2);
        for _ in 0..40 {
            assert!(health.rest(now) <= LONGEST_REST);
        }
    }

    #[test]
    fn without_a_driver_it_says_so() {
        if device::driver_is_there() {
            // With one, `tests/gpu` has its say.
            return;
        }
        assert!(matches!(Cuda::open(), Err(CudaError::NoDriver)));
    }
}
