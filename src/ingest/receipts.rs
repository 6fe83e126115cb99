//! Receipts: when a record was received, so that every later stage can say how long it took.
//!
//! Wall-clock time must not enter the journal's fold (it is pure), so it is kept beside it: one
//! receipt a commit, in a bounded ring.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::observability::Stage;

/// Commits that are remembered; at 200 a second, the last 20 seconds.
pub const RECEIPTS: usize = 4_096;

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
            stage.passed(elapsed);
        }
    }
}
