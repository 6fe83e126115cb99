//! Pinned blocks between launches: allocating them takes longer than a launch.

use std::sync::Mutex;

use super::lock;
use super::staging::Staging;

/// Most blocks that wait.
const PLACES: usize = 4;
/// Smallest block.
const LEAST_BYTES: usize = 1 << 20;

/// Blocks that nobody uses.
#[derive(Default)]
pub(super) struct Parking {
    blocks: Mutex<Vec<Staging>>,
}

/// What is allocated for so many bytes.
pub(super) fn rounded(bytes: usize) -> usize {
    bytes.next_power_of_two().max(LEAST_BYTES)
}

impl Parking {
    /// The smallest block that holds so many bytes.
    pub(super) fn take(&self, bytes: usize) -> Option<Staging> {
        let mut blocks = lock(&self.blocks);
        let (place, _) = blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| block.bytes >= bytes)
            .min_by_key(|(_, block)| block.bytes)?;
        Some(blocks.swap_remove(place))
    }

    /// Parks a block; lets go of the smallest if there are too many.
    pub(super) fn put(&self, staging: Staging) {
        let mut blocks = lock(&self.blocks);
        blocks.push(staging);
        let smallest = blocks.iter().enumerate().min_by_key(|(_, b)| b.bytes);
        if let (Some((place, _)), true) = (smallest, blocks.len() > PLACES) {
            blocks.swap_remove(place);
        }
    }

    /// Lets go of all: their context is lost, and their memory goes with it.
    pub(super) fn clear(&self) {
        lock(&self.blocks).clear();
    }
}
