//! The journal's end, in memory: what the logs hold, so that live readers decode nothing.

use std::sync::Arc;

use super::block::MAX_BLOCK_MEMORY;
use super::block::stats::Stats;
use super::version::{Documents, Held, fold};
use crate::record::{DocumentKey, Entry};

/// The tail is moved into a segment when it would take this much memory (bytes), however few entries
/// it holds.
pub(super) const TAIL_MEMORY: usize = MAX_BLOCK_MEMORY;

/// The entries of one commit.
#[derive(Clone)]
pub(super) struct Chunk {
    pub first_seq: u64,
    pub entries: Arc<[Entry]>,
}

impl Chunk {
    pub fn end_seq(&self) -> u64 {
        self.first_seq + self.entries.len() as u64
    }
}

/// What was committed since the last block of the last segment.
#[derive(Default)]
pub(super) struct Tail {
    pub chunks: Vec<Chunk>,
    pub entries: usize,
    pub memory: usize,
    pub stats: Stats,
    pub documents: Documents,
}

impl Tail {
    pub fn first_seq(&self) -> Option<u64> {
        self.chunks.first().map(|c| c.first_seq)
    }

    pub fn push(&mut self, chunk: Chunk, memory: usize, documents: Vec<(DocumentKey, Held)>) {
        for (seq, entry) in (chunk.first_seq..).zip(chunk.entries.iter()) {
            self.stats.add(seq, entry);
        }
        for (key, held) in documents {
            fold(&mut self.documents, key, held);
        }
        self.entries += chunk.entries.len();
        self.memory += memory;
        self.chunks.push(chunk);
    }

    /// The entries from `from` on, at most `most`, up to the next gap: where they begin, and they.
    pub fn read(&self, from: u64, most: usize) -> Option<(u64, Vec<Entry>)> {
        let at = self.chunks.partition_point(|c| c.end_seq() <= from);
        let mut next = from.max(self.chunks.get(at)?.first_seq);
        let (first, mut entries) = (next, Vec::new());
        for chunk in &self.chunks[at..] {
            if chunk.first_seq > next || entries.len() >= most {
                break;
            }
            let skip = (next - chunk.first_seq) as usize;
            let n = (chunk.entries.len() - skip).min(most - entries.len());
            entries.extend_from_slice(&chunk.entries[skip..skip + n]);
            next += n as u64;
        }
        Some((first, entries))
    }
}
