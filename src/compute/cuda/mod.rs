//! The CUDA backend: the kernels of `kernels/` on the first NVIDIA GPU.
//!
//! libcuda is loaded at run time: the binary starts on any machine, and a machine without a driver is told from
//! one whose driver fails. A thread of its own owns the context ([`thread`]); it has a stream, a memory pool and
//! pinned blocks ([`staging`]), which kernels that stream work on where CPU and GPU share their memory (a Jetson), and
//! from which all else is copied. What runs at every tick is captured once as a graph ([`Graph`]). There are two
//! streams: that of ticks comes first; simulated races, which may take long, are on the background's, and nobody waits
//! for them but who asked. Engines of somebody else's library are guests ([`Guest`]), alone or in one graph with
//! kernels that prepare their inputs ([`Scene`]).
//!
//! **When the device fails** (an error, a hang, a library that lacks a symbol): it is logged with each kernel's
//! launch, counted, and the CPU does the task within the same call. The device's own thread tears the context down
//! and opens it anew after [`FIRST_REST`], doubled up to [`LONGEST_REST`] while it keeps failing; meanwhile nobody
//! else asks it for anything, nor waits for it. Ticks wait [`TICK_LIMIT`] at most for their work to begin and as long
//! for it to end ([`Cuda::hurried`]); graphs are captured beside them. A thread that hangs in the driver is lost, and
//! says so ([`State::Silent`]).

#![allow(unsafe_code)]

mod device;
mod error;
mod fault;
mod graph;
mod guest;
mod lodger;
mod memory;
mod parking;
mod properties;
mod pulse;
mod recording;
mod scene;
mod staging;
mod thread;

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::error::CudaError;
pub use self::fault::During;
pub use self::graph::{Graph, TickGraph};
#[cfg(test)]
pub(in crate::compute) use self::guest::Echo;
pub use self::guest::{Current, Guest, Hold, Hosted, Maker, Staged};
pub use self::properties::Properties;
pub use self::pulse::State;
pub use self::scene::{Array, Assembled, Scene};
use self::staging::{Layout, Staging};
use self::thread::{Opened, Thread};
use super::launch::{Arg, Data, Step};
use super::{Backend, By, Launch, ShapeError, Task};

/// Longest that a tick waits for its work to begin, and again for it to end: a few ticks, after which the CPU does
/// it.
pub const TICK_LIMIT: Duration = Duration::from_millis(100);
/// The same for who would rather have the device's answer: benchmarks, and commands that nobody races against. A
/// sanitizer makes a launch a hundred times as long.
pub const PATIENT_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for what runs on the background's stream, and how often it is asked after.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(60);
const BACKGROUND_POLL: Duration = Duration::from_micros(200);
/// Longest wait for a device to open: PTX may have to be compiled.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// How long a device rests after its first failure, and at most.
pub const FIRST_REST: Duration = Duration::from_secs(5);
pub const LONGEST_REST: Duration = Duration::from_secs(300);
/// Counter: failures, for each kernel that the CPU did for them; `none` where only memory was given back.
const ERRORS: &str = "trackside_compute_gpu_errors_total";
/// Most bytes of one launch.
pub const MAX_BYTES: usize = 2 << 30;

/// The device that is open. A process has one, for good: closing it resets the context that everything in it shares,
/// another opening's, too.
static OPEN: Mutex<Opening> = Mutex::new(Opening::Closed);

/// How far the process is with its device.
enum Opening {
    Closed,
    /// A thread opens it that has not answered in time. It is waited for again, and there is no second one.
    Slow(Thread, Opened),
    Open(Cuda),
}

/// The first NVIDIA GPU.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
    /// Longest wait for a launch to begin, and again for it to end.
    limit: Duration,
}

struct Inner {
    thread: Thread,
    properties: Properties,
    /// Held by whose launch is on the background's stream: one at a time.
    background: Mutex<()>,
    /// That launch, for the log.
    behind: Mutex<Option<String>>,
}

impl Cuda {
    /// Opens the first GPU; gives the one that is open where there is one. It waits for launches as long as
    /// [`PATIENT_LIMIT`].
    ///
    /// # Errors
    /// [`CudaError::NoDriver`] and [`CudaError::NoDevice`] where there is none; else what the driver said.
    pub fn open() -> Result<Cuda, CudaError> {
        let mut open = lock(&OPEN);
        let (thread, opened) = match std::mem::replace(&mut *open, Opening::Closed) {
            Opening::Open(cuda) => {
                *open = Opening::Open(cuda.clone());
                return Ok(cuda);
            }
            Opening::Slow(thread, opened) => (thread, opened),
            Opening::Closed if device::driver_is_there() => Thread::start()?,
            Opening::Closed => return Err(CudaError::NoDriver),
        };
        let properties = match opened.recv_timeout(OPEN_LIMIT) {
            Ok(said) => said?,
            Err(RecvTimeoutError::Timeout) => {
                *open = Opening::Slow(thread, opened);
                return Err(CudaError::TimedOut(OPEN_LIMIT));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(CudaError::Gone),
        };
        tracing::info!(
            gpu = properties.name,
            capability = ?properties.capability,
            integrated = properties.integrated,
            "CUDA device opened"
        );
        let cuda = Cuda {
            inner: Arc::new(Inner {
                thread,
                properties,
                background: Mutex::default(),
                behind: Mutex::default(),
            }),
            limit: PATIENT_LIMIT,
        };
        *open = Opening::Open(cuda.clone());
        Ok(cuda)
    }

    /// The same device for who has ticks to do: what it has not done within [`TICK_LIMIT`] the CPU does.
    #[must_use]
    pub fn hurried(self) -> Cuda {
        Cuda {
            limit: TICK_LIMIT,
            ..self
        }
    }

    /// Whether it works, rests after a failure, or does not answer any more.
    pub fn state(&self) -> State {
        self.inner.thread.pulse.state()
    }

    pub fn properties(&self) -> &Properties {
        &self.inner.properties
    }

    /// Free and total memory of the device (bytes).
    ///
    /// # Errors
    /// What the driver said.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        (self.inner.thread).call(PATIENT_LIMIT, |device| device.memory())
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
        self.staged(&mut launch, self.limit, |device, staging, layout, step| {
            device.run(staging, layout, step)
        })
    }

    /// A launch on the background's stream. The device's thread is free for ticks meanwhile: who asked waits, and
    /// asks after it.
    fn behind(&self, launch: &mut Launch<'_>) -> Result<(), CudaError> {
        let _one = lock(&self.inner.background);
        *lock(&self.inner.behind) = Some(described(launch));
        let done = self.wait_behind(launch);
        // What has failed stays named: others may fall over it yet.
        if done.is_ok() {
            *lock(&self.inner.behind) = None;
        }
        done
    }

    fn wait_behind(&self, launch: &mut Launch<'_>) -> Result<(), CudaError> {
        let began = Instant::now();
        let (staging, layout, ()) =
            self.lent(launch, self.limit, |device, staging, layout, step| {
                device.submit(staging, layout, step)
            })?;
        let thread = &self.inner.thread;
        loop {
            match thread.call(self.limit, |device| device.is_done()) {
                Ok(true) => break,
                // With its queue full, the device is at least at work.
                Ok(false) | Err(CudaError::Busy) => {}
                Err(e) => return Err(e),
            }
            if began.elapsed() > BACKGROUND_LIMIT {
                thread.pulse.failed();
                return Err(CudaError::TimedOut(BACKGROUND_LIMIT));
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
            PATIENT_LIMIT,
            move |device, staging, layout, step| device.measure(staging, layout, step, rounds),
        )
    }

    /// How long a copy of so many bytes from the device's memory to the device's memory takes.
    ///
    /// # Errors
    /// What the driver said.
    pub fn measure_copy(&self, bytes: usize, rounds: usize) -> Result<Vec<Duration>, CudaError> {
        (self.inner.thread).call(PATIENT_LIMIT, move |device| {
            device.measure_copy(bytes, rounds)
        })
    }

    /// Copies a launch's arrays into a block, has `work` done with it, and copies back.
    fn staged<T: Send + 'static>(
        &self,
        launch: &mut Launch<'_>,
        limit: Duration,
        work: impl FnOnce(&mut device::Device, &Staging, &Layout, &Step) -> Result<T, CudaError>
        + Send
        + 'static,
    ) -> Result<T, CudaError> {
        let (staging, layout, said) = self.lent(launch, limit, work)?;
        staging.drain(&layout, launch.data.iter_mut());
        self.park(staging);
        Ok(said)
    }

    /// Copies a launch's arrays into a block and has `work` done with it.
    fn lent<T: Send + 'static>(
        &self,
        launch: &Launch<'_>,
        limit: Duration,
        work: impl FnOnce(&mut device::Device, &Staging, &Layout, &Step) -> Result<T, CudaError>
        + Send
        + 'static,
    ) -> Result<(Staging, Layout, T), CudaError> {
        let layout = Layout::of(launch.data.iter());
        let mut staging = self.block(layout.bytes)?;
        staging.fill(&layout, launch.data.iter());
        let (own, step) = (layout.clone(), launch.step.clone());
        let (staging, said) = (self.inner.thread).lend(limit, staging, move |device, staging| {
            work(device, staging, &own, &step)
        });
        match (staging, said) {
            (Some(staging), Ok(said)) => Ok((staging, layout, said)),
            (Some(staging), Err(e)) => {
                self.park(staging);
                Err(e)
            }
            (None, said) => Err(said.err().unwrap_or(CudaError::Gone)),
        }
    }

    /// A block of pinned memory, one that is parked or a new one.
    fn block(&self, bytes: usize) -> Result<Staging, CudaError> {
        fits(bytes)?;
        let thread = &self.inner.thread;
        thread.pulse.check()?;
        if let Some(block) = thread.memory.parking.take(bytes) {
            return Ok(block);
        }
        let bytes = parking::rounded(bytes);
        thread.call(self.limit, move |device| device.stage(bytes))
    }

    /// Keeps a block for the next launch; that of a device that has failed goes with its context.
    fn park(&self, staging: Staging) {
        if self.inner.thread.pulse.is_open() {
            self.inner.thread.memory.parking.put(staging);
        }
    }

    /// Several tasks on the device; all of them on the CPU if it fails, which is said and counted.
    fn guarded(
        &self,
        tasks: &mut [Box<dyn Task + '_>],
        on_device: impl FnOnce(&mut [Box<dyn Task + '_>]) -> Result<(), CudaError>,
    ) -> Result<By, ShapeError> {
        tasks.iter().try_for_each(|task| task.check())?;
        let pulse = &self.inner.thread.pulse;
        let generation = pulse.generation();
        match pulse.check().and_then(|()| on_device(tasks)) {
            Ok(()) => return Ok(By::Cuda),
            Err(e) => {
                let mut tasks: Vec<&mut dyn Task> = tasks
                    .iter_mut()
                    .map(|t| &mut **t as &mut dyn Task)
                    .collect();
                self.tell(&e, generation, &mut tasks);
            }
        }
        tasks.iter_mut().for_each(|task| task.run_on_cpu());
        Ok(By::Cpu)
    }

    /// Says and counts why the CPU does these tasks: a failure once, however many fall over it.
    fn tell(&self, e: &CudaError, generation: u64, tasks: &mut [&mut dyn Task]) {
        match e {
            CudaError::Busy => {
                tracing::debug!("the device is busy; the CPU takes it");
                metrics::counter!("trackside_compute_gpu_busy_total").increment(1);
            }
            e if !e.is_a_failure() || !self.inner.thread.pulse.is_news(generation) => {
                tracing::debug!(error = %e, "the CPU takes it");
            }
            e => {
                let names: Vec<&str> = tasks.iter().map(|t| t.kernel().name()).collect();
                let geometry = self.inner.properties.geometry();
                let launches: Vec<String> = tasks
                    .iter_mut()
                    .map(|task| described(&task.launch(&geometry)))
                    .collect();
                // What goes wrong on one stream shows at the next call, whatever stream that is for.
                let behind = lock(&self.inner.behind).clone();
                tracing::error!(
                    error = %e,
                    launches = launches.join("; "),
                    background = behind.as_deref().unwrap_or("idle"),
                    "the GPU failed; the CPU takes over, and the GPU is opened anew after a rest"
                );
                for name in names {
                    metrics::counter!(ERRORS, "kernel" => name).increment(1);
                }
            }
        }
    }
}

/// Whether so many bytes may go to the device at a time.
fn fits(bytes: usize) -> Result<(), CudaError> {
    if bytes > MAX_BYTES {
        return Err(CudaError::TooLarge {
            bytes,
            limit: MAX_BYTES,
        });
    }
    Ok(())
}

/// A lock whose holder panicked still holds whole values here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A launch, for the log.
fn described(launch: &Launch<'_>) -> String {
    let step = &launch.step;
    let scalars = step.args.iter().filter(|arg| !matches!(arg, Arg::Array(_)));
    format!(
        "{}: grid {}, block {}, shared {} B, arrays {:?} B, scalars {:?}",
        step.kernel.name(),
        step.grid,
        step.block,
        step.shared,
        launch.data.iter().map(Data::len).collect::<Vec<_>>(),
        scalars.collect::<Vec<_>>()
    )
}

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        By::Cuda.name()
    }

    fn run(&self, task: &mut dyn Task) -> Result<By, ShapeError> {
        task.check()?;
        let pulse = &self.inner.thread.pulse;
        let generation = pulse.generation();
        if let Err(e) = pulse.check().and_then(|()| self.try_run(task)) {
            self.tell(&e, generation, &mut [&mut *task]);
            task.run_on_cpu();
            return Ok(By::Cpu);
        }
        Ok(By::Cuda)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_it_says_so() {
        if device::driver_is_there() {
            // With one, `tests/gpu` has its say.
            return;
        }
        assert!(matches!(Cuda::open(), Err(CudaError::NoDriver)));
    }
}
