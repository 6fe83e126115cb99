//! Receipts: when a record was received, so that every later stage can say how long it took.
//!
//! Wall-clock time must not enter the journal's fold (it is pure), so it is kept beside it: one
//! receipt a commit, in a bounded ring.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use metrics::histogram;

/// Commits that are remembered; at 200 a second, the last 20 seconds.
pub const RECEIPTS: usize = 4_096;

/// A stage on a record's way; each is measured from the moment of receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On disk and acknowledged.
    Durable,
    /// Folded into the race state.
    State,
    /// Predictions made.
    Predicted,
    /// Handed to the first outlet's socket.
    Published,
}

impl Stage {
    /// Its label in `trackside_stage_seconds`.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Durable => "durable",
            Stage::State => "state",
            Stage::Predicted => "predicted",
            Stage::Published => "published",
        }
    }
}

struct Receipt {
    first: u64,
    next: u64,
    oldest: Instant,
}

/// The receipts of the last [`RECEIPTS`] commits.
#[derive(Default)]
pub struct Receipts(Mutex<VecDeque<Receipt>>);

impl Receipts {
    /// Notes that records `first..next` were received, the oldest of them at `oldest`.
    pub fn push(&self, first: u64, next: u64, oldest: Instant) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == RECEIPTS {
            ring.pop_front();
        }
        ring.push_back(Receipt {
            first,
            next,
            oldest,
        });
    }

    /// Records in the histogram that `stage` is done with record `seq`, if its receipt is still
    /// held (records folded again after a restart have none).
    pub fn done(&self, stage: Stage, seq: u64) {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = ring.partition_point(|r| r.first <= seq);
        let Some(receipt) = after.checked_sub(1).and_then(|i| ring.get(i)) else {
            return;
        };
        if seq < receipt.next {
            let elapsed = receipt.oldest.elapsed();
            drop(ring);
            histogram!("trackside_stage_seconds", "stage" => stage.name())
                .record(elapsed.as_secs_f64());
        }
    }
}
