//! The thread that owns the device, and how work gets there.
//!
//! Work is a closure over the open device; who sends it waits for its answer, but not for ever: work that is not
//! begun in time is withdrawn (the device is busy), and a device that does not end what it began has failed.
//! Whatever panics in the driver's library stays on this side.
//!
//! **After a failure** nothing is sent any more ([`Pulse`]); the thread itself closes the device, opens it anew and
//! has it compute something small, after a rest that doubles while that fails. So whoever has a tick to do never
//! waits for a context to be made or for PTX to be compiled. A thread that hangs in the driver is left alone for
//! good ([`State::Silent`](super::State::Silent)).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ERRORS;
use super::device::Device;
use super::error::CudaError;
use super::lock;
use super::memory::Memory;
use super::properties::Properties;
use super::pulse::{Pulse, Rests};
use super::staging::Staging;

/// Most pieces of work that wait for the device.
const QUEUE: usize = 16;
/// How often the thread looks by itself whether there is something to give back or to mend.
const IDLE: Duration = Duration::from_secs(1);
/// How long a device that is let go of gets to close. A driver that is torn down at the end of the process while it
/// still closes something does harm; one that hangs must not keep the process.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How often is looked whether it has.
const CLOSE_POLL: Duration = Duration::from_millis(1);

type Work = Box<dyn FnOnce(&mut Device) + Send>;

/// The way to the device's thread; when it is dropped, the device is closed, and the thread ends.
pub(super) struct Thread {
    /// `None` while it is being dropped.
    queue: Option<SyncSender<Work>>,
    /// `None` then, too.
    thread: Option<JoinHandle<()>>,
    pub pulse: Arc<Pulse>,
    pub memory: Arc<Memory>,
}

/// What a device that was opened says of itself, or why it does not open.
pub(super) type Opened = Receiver<Result<Properties, CudaError>>;

impl Thread {
    /// Starts the thread, which opens the device and then says so.
    pub(super) fn start() -> Result<(Thread, Opened), CudaError> {
        let (queue, work) = sync_channel::<Work>(QUEUE);
        let (say, opened) = sync_channel(1);
        let (pulse, memory) = (Arc::new(Pulse::new()), Arc::<Memory>::default());
        let (own_pulse, own_memory) = (Arc::clone(&pulse), Arc::clone(&memory));
        let thread = std::thread::Builder::new()
            .name("cuda".into())
            .spawn(move || {
                let device = match caught(Device::open) {
                    Ok(device) => device,
                    Err(e) => {
                        let _ = say.send(Err(e));
                        return;
                    }
                };
                own_pulse.opened();
                // Who asked may have stopped waiting.
                let _ = say.send(Ok(device.properties.clone()));
                serve(device, &work, &own_pulse, &own_memory);
            })
            .map_err(|_| CudaError::Gone)?;
        let started = Thread {
            queue: Some(queue),
            thread: Some(thread),
            pulse,
            memory,
        };
        Ok((started, opened))
    }

    /// Has `work` done on the device, and waits so long for it.
    ///
    /// # Errors
    /// What the work said; or that the device rests, is busy, or has begun and not ended in time. After an error of
    /// the driver's, and after such a silence, nothing is sent to it before it was opened anew.
    pub(super) fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Device) -> Result<T, CudaError> + Send + 'static,
    ) -> Result<T, CudaError> {
        // What has taken so long already may take as long again.
        if self.pulse.is_open() && self.pulse.busy_for() > limit {
            return Err(CudaError::Busy);
        }
        self.send(work)?.wait(limit)
    }

    /// As [`Thread::call`] with a block, which comes back whatever was said, but from a device that is silent.
    pub(super) fn lend<T: Send + 'static>(
        &self,
        limit: Duration,
        staging: Staging,
        work: impl FnOnce(&mut Device, &Staging) -> Result<T, CudaError> + Send + 'static,
    ) -> (Option<Staging>, Result<T, CudaError>) {
        let slot = Arc::new(Mutex::new(Some(staging)));
        let lent = Arc::clone(&slot);
        let said = self.call(limit, move |device| {
            let staging = lock(&lent).take().ok_or(CudaError::Gone)?;
            let said = work(device, &staging);
            lock(&lent).replace(staging);
            said
        });
        (lock(&slot).take(), said)
    }

    /// Sends `work` to the device, and waits for nothing.
    ///
    /// # Errors
    /// If the device rests, is silent, or has its queue full.
    pub(super) fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Device) -> Result<T, CudaError> + Send + 'static,
    ) -> Result<Answer<T>, CudaError> {
        self.pulse.check()?;
        let (say, answered) = sync_channel(1);
        let ticket = Arc::new(Ticket::default());
        let (pulse, own) = (Arc::clone(&self.pulse), Arc::clone(&ticket));
        let work: Work = Box::new(move |device| {
            if !own.begin() {
                return;
            }
            let done = caught(|| work(device));
            if done.as_ref().is_err_and(CudaError::breaks_the_context) {
                pulse.failed();
            }
            // Who asked may have stopped waiting.
            let _ = say.send(done);
        });
        let queue = self.queue.as_ref().ok_or(CudaError::Gone)?;
        queue.try_send(work).map_err(|e| match e {
            TrySendError::Full(_) => CudaError::Busy,
            TrySendError::Disconnected(_) => CudaError::Gone,
        })?;
        Ok(Answer {
            answered,
            ticket,
            pulse: Arc::clone(&self.pulse),
            sent: Instant::now(),
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.queue = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        let began = Instant::now();
        while !thread.is_finished() {
            // Its own work may have been the last to hold it.
            if thread.thread().id() == std::thread::current().id() || began.elapsed() > CLOSE_LIMIT
            {
                return;
            }
            std::thread::sleep(CLOSE_POLL);
        }
        // It catches what panics.
        let _ = thread.join();
    }
}

/// Whether a piece of work was begun, or withdrawn before.
#[derive(Default)]
struct Ticket(AtomicU8);

impl Ticket {
    const BEGUN: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn turns(&self, into: u8) -> bool {
        let turned = (self.0).compare_exchange(0, into, Ordering::AcqRel, Ordering::Acquire);
        turned.is_ok()
    }

    /// Whether it is still wanted.
    fn begin(&self) -> bool {
        self.turns(Self::BEGUN)
    }

    /// Whether it had not begun, and now never will.
    fn withdraw(&self) -> bool {
        self.turns(Self::WITHDRAWN)
    }
}

/// The answer to a piece of work, some time.
pub(super) struct Answer<T> {
    answered: Receiver<Result<T, CudaError>>,
    ticket: Arc<Ticket>,
    pulse: Arc<Pulse>,
    sent: Instant,
}

impl<T> Answer<T> {
    /// Waits so long for it to begin, and as long again for it to end.
    fn wait(self, limit: Duration) -> Result<T, CudaError> {
        for _ in 0..2 {
            match self.answered.recv_timeout(limit) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Disconnected) => return Err(self.refused()),
                Err(RecvTimeoutError::Timeout) if self.ticket.withdraw() => {
                    return Err(CudaError::Busy);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.pulse.fell_silent();
        Err(CudaError::TimedOut(limit))
    }

    /// The answer if it is there; [`CudaError::TimedOut`] if it was due.
    pub(super) fn poll(&self, limit: Duration) -> Option<Result<T, CudaError>> {
        match self.answered.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Disconnected) => Some(Err(self.refused())),
            Err(TryRecvError::Empty) if self.sent.elapsed() <= limit => None,
            Err(TryRecvError::Empty) if self.ticket.withdraw() => Some(Err(CudaError::Busy)),
            Err(TryRecvError::Empty) => {
                self.pulse.fell_silent();
                Some(Err(CudaError::TimedOut(limit)))
            }
        }
    }

    /// The work was thrown away.
    fn refused(&self) -> CudaError {
        self.pulse.check().err().unwrap_or(CudaError::Gone)
    }
}

/// The thread's life once the device is open: work while it is healthy; after a failure a rest, and another try.
fn serve(device: Device, queue: &Receiver<Work>, pulse: &Pulse, memory: &Memory) {
    let mut device = Some(device);
    let mut rests = Rests::new(Instant::now());
    // When the device is to be opened anew; `None` while it works.
    let mut due: Option<Instant> = None;
    loop {
        let patience = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
        let work = match queue.recv_timeout(patience) {
            Ok(work) => Some(work),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return close(&mut device),
        };
        pulse.begins();
        let healthy = match &mut device {
            Some(open) if due.is_none() && pulse.is_open() => does(open, work, pulse, memory),
            _ => false,
        };
        let rest = match due {
            None if healthy => None,
            None => Some(rests.begin(Instant::now(), true)),
            Some(due) if due > Instant::now() => None,
            Some(_) => match mend(&mut device, memory) {
                Ok(()) => {
                    tracing::info!("the GPU works again");
                    rests.end(Instant::now());
                    due = None;
                    pulse.opened();
                    None
                }
                // Whoever still holds a block gives it back soon.
                Err(CudaError::StillHeld) => Some(IDLE),
                Err(e) => {
                    let rest = rests.begin(Instant::now(), false);
                    tracing::warn!(error = %e, rest_s = rest.as_secs(), "the GPU does not open");
                    Some(rest)
                }
            },
        };
        if let Some(rest) = rest {
            let until = Instant::now() + rest;
            due = Some(until);
            pulse.rests_until(until);
            // A silence that ended is a failure like any other.
            pulse.failed();
        }
        pulse.ends();
    }
}

/// Does a piece of work and gives back what nobody needs any more; whether the device is healthy after it.
fn does(device: &mut Device, work: Option<Work>, pulse: &Pulse, memory: &Memory) -> bool {
    if let Some(work) = work {
        work(device);
    }
    // Nothing is asked of a context that is broken.
    pulse.is_open()
        && caught(|| device.tidy(memory))
            .inspect_err(|e| {
                tracing::error!(
                    error = %e,
                    "memory of the GPU was not given back; the CPU takes over, and the GPU is opened anew after a rest"
                );
                // Nobody waits for this, and whoever comes next finds that the device rests.
                metrics::counter!(ERRORS, "kernel" => "none").increment(1);
            })
            .is_ok()
}

/// Closes the device, opens it anew, and has it compute something.
fn mend(device: &mut Option<Device>, memory: &Memory) -> Result<(), CudaError> {
    memory.clear();
    // Its memory goes with the context: nobody may hold any of it.
    if device.as_ref().is_some_and(Device::is_in_use) {
        return Err(CudaError::StillHeld);
    }
    // What the last who held some has left since.
    memory.clear();
    close(device);
    let mut fresh = caught(Device::open)?;
    caught(|| fresh.probe())?;
    *device = Some(fresh);
    Ok(())
}

fn close(device: &mut Option<Device>) {
    let device = device.take();
    let _ = caught(|| {
        drop(device);
        Ok(())
    });
}

/// What panics (a library that lacks a symbol, say) is an error.
fn caught<T>(work: impl FnOnce() -> Result<T, CudaError>) -> Result<T, CudaError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(CudaError::Panicked(message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}
