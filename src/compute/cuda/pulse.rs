//! The pulse of the device's thread: what everybody may read of it without asking it.
//!
//! Who wants something done reads whether the device works, and asks for nothing while it does not. To open it anew
//! and to try it is the affair of its own thread alone, so that no tick ever waits for that.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::error::CudaError;
use super::{FIRST_REST, LONGEST_REST, OPEN_LIMIT};

/// Whether the device may be asked for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Open,
    /// It failed; its thread opens it anew after a rest.
    Rests,
    /// Its thread is in a call of the driver's that does not return. Nothing is sent to it, and no second thread is
    /// started: a driver that hangs holds locks of the whole process, on which the second one would hang in its turn,
    /// and a context that is torn down under a call is undefined. Should the call return after all, the device is
    /// opened anew as after any failure; else only a restart of the process helps.
    Silent,
}

/// What both sides know.
pub(super) struct Pulse {
    /// A [`State`].
    state: AtomicU8,
    /// Contexts so far.
    generation: AtomicU64,
    /// The one of which a failure was told last.
    told: AtomicU64,
    /// Since when the thread is in a piece of work (ms after `zero`, and 1); 0: in none.
    busy_since: AtomicU64,
    /// When the rest ends (ms after `zero`).
    rests_until: AtomicU64,
    zero: Instant,
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse {
            state: AtomicU8::new(State::Rests as u8),
            generation: AtomicU64::new(0),
            told: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            rests_until: AtomicU64::new(0),
            zero: Instant::now(),
        }
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            open if open == State::Open as u8 => State::Open,
            silent if silent == State::Silent as u8 => State::Silent,
            // It opens the device anew, and that hangs.
            _ if self.busy_for() > OPEN_LIMIT => State::Silent,
            _ => State::Rests,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state() == State::Open
    }

    /// An error unless the device may be asked.
    pub(super) fn check(&self) -> Result<(), CudaError> {
        match self.state() {
            State::Open => Ok(()),
            State::Silent => Err(CudaError::Silent),
            State::Rests => {
                let until = Duration::from_millis(self.rests_until.load(Ordering::Relaxed));
                let left = until.saturating_sub(self.zero.elapsed());
                Err(CudaError::Resting(left.as_secs().max(1)))
            }
        }
    }

    /// The device works; whatever fails from now on is news.
    pub(super) fn opened(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.state.store(State::Open as u8, Ordering::Release);
        metrics::gauge!(HEALTHY).set(1.0);
    }

    /// The device failed, and is closed before it is used again.
    pub(super) fn failed(&self) {
        self.state.store(State::Rests as u8, Ordering::Release);
        metrics::gauge!(HEALTHY).set(0.0);
    }

    /// A piece of work was begun and not ended in time.
    pub(super) fn fell_silent(&self) {
        let open = State::Open as u8;
        let silent = State::Silent as u8;
        let order = (Ordering::AcqRel, Ordering::Acquire);
        // Where it has failed meanwhile, it has answered.
        let _ = (self.state).compare_exchange(open, silent, order.0, order.1);
        metrics::gauge!(HEALTHY).set(0.0);
    }

    pub(super) fn rests_until(&self, until: Instant) {
        let ms = until.saturating_duration_since(self.zero).as_millis() as u64;
        self.rests_until.store(ms, Ordering::Relaxed);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether nobody has told of that context's failure yet: one is told of however many fall over it.
    pub(super) fn is_news(&self, generation: u64) -> bool {
        self.told.fetch_max(generation, Ordering::Relaxed) < generation
    }

    pub(super) fn begins(&self) {
        let now = self.zero.elapsed().as_millis() as u64;
        self.busy_since.store(now + 1, Ordering::Relaxed);
    }

    pub(super) fn ends(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// For how long the thread has been in one piece of work.
    pub(super) fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => (self.zero.elapsed()).saturating_sub(Duration::from_millis(since)),
        }
    }
}

/// Gauge: 1 while the GPU works, 0 while it rests or does not answer.
const HEALTHY: &str = "trackside_compute_gpu_healthy";

/// How long a device rests after failures.
pub(super) struct Rests {
    failures: u32,
    /// Since when it works.
    works_since: Instant,
}

impl Rests {
    pub(super) fn new(now: Instant) -> Rests {
        Rests {
            failures: 0,
            works_since: now,
        }
    }

    /// It works again.
    pub(super) fn end(&mut self, now: Instant) {
        self.works_since = now;
    }

    /// It failed; `had_worked`: it was open until now. [`FIRST_REST`], doubled with each failure up to
    /// [`LONGEST_REST`]; a device that has worked for as long as that begins anew.
    pub(super) fn begin(&mut self, now: Instant, had_worked: bool) -> Duration {
        if had_worked && now.saturating_duration_since(self.works_since) > LONGEST_REST {
            self.failures = 0;
        }
        let rest = FIRST_REST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_REST);
        self.failures = self.failures.saturating_add(1);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_end() {
        let now = Instant::now();
        let mut rests = Rests::new(now);
        assert_eq!(rests.begin(now, true), FIRST_REST);
        assert_eq!(rests.begin(now, false), FIRST_REST * 2);
        // It came back, and broke soon after.
        rests.end(now);
        assert_eq!(rests.begin(now + FIRST_REST, true), FIRST_REST * 4);
        for _ in 0..40 {
            assert!(rests.begin(now, false) <= LONGEST_REST);
        }
        rests.end(now);
        let later = now + LONGEST_REST + FIRST_REST;
        assert_eq!(rests.begin(later, true), FIRST_REST);
    }

    #[test]
    fn one_incident_is_told_of_once_and_the_next_again() {
        let pulse = Pulse::new();
        assert!(matches!(pulse.check(), Err(CudaError::Resting(_))));
        pulse.opened();
        let first = pulse.generation();
        assert!(pulse.check().is_ok());
        pulse.fell_silent();
        assert!(matches!(pulse.check(), Err(CudaError::Silent)));
        assert!(pulse.is_news(first) && !pulse.is_news(first));
        // It answered after all, and was opened anew.
        pulse.failed();
        assert_eq!(pulse.state(), State::Rests);
        pulse.opened();
        assert!(pulse.is_news(pulse.generation()) && !pulse.is_news(first));
    }

    #[test]
    fn a_failure_that_was_answered_is_no_silence() {
        let pulse = Pulse::new();
        pulse.opened();
        pulse.failed();
        pulse.fell_silent();
        assert_eq!(pulse.state(), State::Rests);
    }
}
