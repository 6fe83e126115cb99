//! The thread that owns the device, and how work gets there.
//!
//! Work is a closure over the open device; who sends it waits for its answer, but not for ever: a device that
//! hangs costs one timeout, not the pipeline. Whatever panics in the driver's library stays on this side.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::device::Device;
use super::error::CudaError;

/// Most pieces of work that wait for the device.
const QUEUE: usize = 16;
/// How long a device that is let go of gets to close. A driver that is torn down at the end of the process while it
/// still closes something does harm; one that hangs must not keep the process.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How often is looked whether it has.
const CLOSE_POLL: Duration = Duration::from_millis(1);

type Work = Box<dyn FnOnce(&mut Option<Device>) + Send>;

/// The way to the device's thread; when it is dropped, the device is closed, and the thread ends.
pub(super) struct Thread {
    /// `None` while it is being dropped.
    queue: Option<SyncSender<Work>>,
    /// `None` then, too.
    thread: Option<JoinHandle<()>>,
    /// Something failed: the device is to be closed before it is used again.
    suspect: Arc<AtomicBool>,
}

impl Thread {
    pub(super) fn start() -> Result<Thread, CudaError> {
        let (queue, work) = sync_channel::<Work>(QUEUE);
        let thread = std::thread::Builder::new()
            .name("cuda".into())
            .spawn(move || {
                let mut device = None;
                for work in work {
                    work(&mut device);
                }
            })
            .map_err(|_| CudaError::Gone)?;
        Ok(Thread {
            queue: Some(queue),
            thread: Some(thread),
            suspect: Arc::default(),
        })
    }

    /// Whether the device is to be closed before it is used again.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Has the device closed before it is used again.
    pub(super) fn distrust(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Has `work` done on the open device, which is opened if it is not.
    ///
    /// # Errors
    /// What the work said; or that there is no device, no room, or no answer in time. After any error of the
    /// driver's, and after a timeout, the next call closes the device and opens it anew.
    pub(super) fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Device) -> Result<T, CudaError> + Send + 'static,
    ) -> Result<T, CudaError> {
        let (answer, answered) = sync_channel(1);
        let suspect = self.suspect.clone();
        let work: Work = Box::new(move |slot| {
            let done = catch_unwind(AssertUnwindSafe(|| on_device(slot, &suspect, work)))
                .unwrap_or_else(|panic| Err(CudaError::Panicked(message(&*panic))));
            if matches!(done, Err(CudaError::Driver { .. } | CudaError::Panicked(_))) {
                suspect.store(true, Ordering::Relaxed);
            }
            // Who asked may have stopped waiting.
            let _ = answer.send(done);
        });
        let queue = self.queue.as_ref().ok_or(CudaError::Gone)?;
        queue.try_send(work).map_err(|e| match e {
            TrySendError::Full(_) => CudaError::Busy(QUEUE),
            TrySendError::Disconnected(_) => CudaError::Gone,
        })?;
        answered.recv_timeout(limit).map_err(|e| match e {
            RecvTimeoutError::Timeout => {
                self.distrust();
                CudaError::TimedOut(limit.as_secs())
            }
            RecvTimeoutError::Disconnected => CudaError::Gone,
        })?
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

fn on_device<T>(
    slot: &mut Option<Device>,
    suspect: &AtomicBool,
    work: impl FnOnce(&mut Device) -> Result<T, CudaError>,
) -> Result<T, CudaError> {
    if suspect.load(Ordering::Relaxed) {
        // Its memory goes with the context: nobody may hold any of it.
        if slot.as_ref().is_some_and(Device::is_in_use) {
            return Err(CudaError::StillHeld);
        }
        let device = slot.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(device)));
        suspect.store(false, Ordering::Relaxed);
    }
    if slot.is_none() {
        *slot = Some(Device::open()?);
    }
    slot.as_mut().map_or(Err(CudaError::NoDevice), work)
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}
