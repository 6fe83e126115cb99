//! Whose the pinned blocks and the captured graphs are.
//!
//! Nobody waits for the device to give something back: what is let go of is noted here (a graph or an engine by its
//! number, a block by [`super::staging::Life`]), and the device's thread frees it after its next piece of work. What
//! a device that failed has given goes with its context.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use super::lodger::Room;
use super::parking::Parking;
use super::staging::Staging;

/// Blocks between launches, blocks of graphs, and what is to be freed.
#[derive(Default)]
pub(super) struct Memory {
    pub parking: Parking,
    /// The block of each captured graph and each engine, by its number; gone after a failure.
    captured: Mutex<HashMap<u64, Staging>>,
    discarded: Mutex<Vec<Discarded>>,
    next: AtomicU64,
}

/// What nobody needs any more.
pub(super) enum Discarded {
    /// A graph or an engine of that number; its block is freed after it.
    Graph(u64, Option<Staging>),
    /// The memory of a scene.
    Room(Room),
}

/// A graph's number, never used before; dropped, the graph is let go of.
pub(super) struct Lease {
    pub number: u64,
    memory: Arc<Memory>,
}

impl Memory {
    pub(super) fn lease(self: &Arc<Memory>) -> Lease {
        Lease {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            memory: Arc::clone(self),
        }
    }

    /// Takes a graph's block for a run.
    pub(super) fn take(&self, number: u64) -> Option<Staging> {
        lock(&self.captured).remove(&number)
    }

    /// Keeps a graph's block between runs.
    pub(super) fn keep(&self, number: u64, staging: Staging) {
        lock(&self.captured).insert(number, staging);
    }

    pub(super) fn discard(&self, what: Discarded) {
        lock(&self.discarded).push(what);
    }

    pub(super) fn discarded(&self) -> Vec<Discarded> {
        std::mem::take(&mut lock(&self.discarded))
    }

    /// Lets go of all: their context is lost, and what is here goes with it.
    pub(super) fn clear(&self) {
        self.parking.clear();
        lock(&self.captured).clear();
        lock(&self.discarded).clear();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let staging = self.memory.take(self.number);
        (self.memory).discard(Discarded::Graph(self.number, staging));
    }
}
