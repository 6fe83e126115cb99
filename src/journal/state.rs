//! What the writer and its readers share: the segments, the tail, and small caches.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;
use tokio::sync::watch;

use super::Error;
use super::block::{Body, KindSet};
use super::cursor::Malformed;
use super::damage::{Loss, quarantine};
use super::index::Index;
use super::segment::{BlockMeta, Handle, Segment, damaged_bytes};
use super::tail::Tail;
use super::version::Place;
use crate::record::{DocumentKey, Entry};

/// Sealed segments kept open, with their footers in memory.
const MAX_HANDLES: usize = 8;
/// Decoded blocks kept, of about 2 MB each (8 MiB at most).
const MAX_DECODED: usize = 4;
/// Blocks whose keys are kept, of 64 KiB at most each: a flood of made-up dates then decodes each of them once.
/// In the usual order of things none are.
const MAX_KEYS: usize = 128;
/// Most losses remembered by name.
pub(super) const MAX_LOSSES: usize = 1024;

/// A block's entries, with what is needed to look one up.
pub(super) struct Decoded {
    pub first_seq: u64,
    pub entries: Vec<Entry>,
    places: OnceLock<Vec<(Place, u32)>>,
}

impl Decoded {
    pub fn new(first_seq: u64, entries: Vec<Entry>) -> Decoded {
        Decoded {
            first_seq,
            entries,
            places: OnceLock::new(),
        }
    }

    /// Half of each key's hash of those entries that stand at a place, in order.
    fn keys(&self) -> Arc<[u32]> {
        let placed = (self.entries.iter()).filter(|e| e.key.is_none() && e.record.kind().streams());
        let mut keys: Vec<u32> = placed.map(|e| half(&e.document())).collect();
        keys.sort_unstable();
        keys.into()
    }

    /// The entries that stand at `place` and have no key of their source's own.
    pub fn at(&self, place: Place) -> impl Iterator<Item = (u64, &Entry)> {
        let places = self.places.get_or_init(|| {
            let mut places: Vec<_> = (self.entries.iter().enumerate())
                .filter(|(_, e)| e.key.is_none() && e.record.kind().streams())
                .filter_map(|(at, e)| Some((Place::of(e)?, at as u32)))
                .collect();
            places.sort_unstable();
            places
        });
        let start = places.partition_point(|(p, _)| *p < place);
        places[start..]
            .iter()
            .take_while(move |(p, _)| *p == place)
            .map(|(_, at)| (self.first_seq + u64::from(*at), &self.entries[*at as usize]))
    }
}

fn half(key: &DocumentKey) -> u32 {
    key.hash as u32
}

#[derive(Default)]
pub(super) struct State {
    /// In order; only the last may grow.
    pub segments: Vec<Arc<Segment>>,
    /// What is being moved into a segment, or empty.
    pub frozen: Tail,
    pub tail: Tail,
    /// Of the next entry to be committed.
    pub next_seq: u64,
}

impl State {
    /// What is in no segment yet, in order.
    pub fn tails(&self) -> [&Tail; 2] {
        [&self.frozen, &self.tail]
    }
}

pub(super) struct Shared {
    pub dir: PathBuf,
    /// Whether a writer stands behind it. Readers beside a running daemon write nothing.
    pub writable: bool,
    pub state: RwLock<State>,
    /// `None` where it is not to be had: then versions are looked up in the segments.
    pub index: RwLock<Option<Index>>,
    pub committed: watch::Sender<u64>,
    handles: Mutex<VecDeque<(u64, Arc<Handle>)>>,
    decoded: Mutex<VecDeque<Arc<Decoded>>>,
    /// By a block's first sequence number: what [`Decoded::keys`] said.
    keys: Mutex<FxHashMap<u64, Arc<[u32]>>>,
    losses: Mutex<Vec<Loss>>,
}

/// A panic elsewhere does not make the data wrong: writers change state in single steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(dir: PathBuf, writable: bool, state: State, losses: Vec<Loss>) -> Shared {
        Shared {
            dir,
            writable,
            committed: watch::Sender::new(state.next_seq),
            state: RwLock::new(state),
            index: RwLock::new(None),
            handles: Mutex::default(),
            decoded: Mutex::default(),
            keys: Mutex::default(),
            losses: Mutex::new(losses),
        }
    }

    pub fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state_mut(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn index(&self) -> std::sync::RwLockReadGuard<'_, Option<Index>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, Option<Index>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment's file and blocks. `None`: retention removed it meanwhile.
    pub fn handle(&self, segment: &Segment) -> Result<Option<Arc<Handle>>, Error> {
        if let Some(held) = &segment.held {
            return Ok(Some(held.clone()));
        }
        {
            let mut handles = lock(&self.handles);
            if let Some(at) = handles.iter().position(|(k, _)| *k == segment.first_seq)
                && let Some(found) = handles.remove(at)
            {
                let handle = found.1.clone();
                handles.push_front(found);
                return Ok(Some(handle));
            }
        }
        let handle = match segment.open() {
            Ok(handle) => handle,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let mut handles = lock(&self.handles);
        handles.push_front((segment.first_seq, handle.clone()));
        handles.truncate(MAX_HANDLES);
        Ok(Some(handle))
    }

    /// Forgets the file of a segment that is no more.
    pub fn drop_handle(&self, first_seq: u64) {
        lock(&self.handles).retain(|(k, _)| *k != first_seq);
    }

    /// A block's entries. The inner error is a loss, already noted.
    pub fn decode(
        &self,
        handle: &Handle,
        meta: &BlockMeta,
    ) -> Result<Result<Arc<Decoded>, Loss>, Error> {
        let first_seq = meta.header.first_seq;
        {
            let mut decoded = lock(&self.decoded);
            if let Some(at) = decoded.iter().position(|d| d.first_seq == first_seq)
                && let Some(found) = decoded.remove(at)
            {
                decoded.push_front(found.clone());
                return Ok(Ok(found));
            }
        }
        let bytes = match self.read(handle, meta)? {
            Ok(bytes) => bytes,
            Err(loss) => return Ok(Err(loss)),
        };
        let entries = Body::open(meta.header, &bytes).and_then(|b| b.entries(KindSet::ALL));
        match entries {
            Ok(entries) => {
                let entries = entries.into_iter().map(|(_, e)| e).collect();
                let decoded = Arc::new(Decoded::new(first_seq, entries));
                self.remember(decoded.clone());
                Ok(Ok(decoded))
            }
            Err(reason) => Ok(Err(self.note(handle, meta, &reason))),
        }
    }

    /// A block's entries, if `key` may be among those that stand at a place. The inner error is a loss, already
    /// noted.
    pub fn decode_for(
        &self,
        handle: &Handle,
        meta: &BlockMeta,
        key: &DocumentKey,
    ) -> Result<Option<Arc<Decoded>>, Error> {
        let first_seq = meta.header.first_seq;
        let known = lock(&self.keys).get(&first_seq).cloned();
        if let Some(keys) = &known
            && keys.binary_search(&half(key)).is_err()
        {
            return Ok(None);
        }
        let Ok(decoded) = self.decode(handle, meta)? else {
            return Ok(None);
        };
        if known.is_none() {
            let made = decoded.keys();
            let mut keys = lock(&self.keys);
            // Any one: where more than these are asked for in turn, most stay.
            if keys.len() >= MAX_KEYS
                && let Some(one) = keys.keys().next().copied()
            {
                keys.remove(&one);
            }
            keys.insert(first_seq, made);
        }
        Ok(Some(decoded))
    }

    /// Keeps a decoded block at hand.
    pub fn remember(&self, decoded: Arc<Decoded>) {
        let mut all = lock(&self.decoded);
        all.push_front(decoded);
        all.truncate(MAX_DECODED);
    }

    /// A block's bytes, checked. The inner error is a loss, already noted.
    pub fn read(&self, handle: &Handle, meta: &BlockMeta) -> Result<Result<Vec<u8>, Loss>, Error> {
        Ok(handle
            .read(meta)?
            .map_err(|reason| self.note(handle, meta, &reason)))
    }

    /// Names a damaged block once, and keeps its bytes aside.
    pub fn note(&self, handle: &Handle, meta: &BlockMeta, reason: &Malformed) -> Loss {
        let loss = handle.loss(meta, reason);
        let mut losses = lock(&self.losses);
        if losses.iter().any(|l| l.seqs == loss.seqs) || losses.len() >= MAX_LOSSES {
            return loss;
        }
        tracing::error!(journal = %self.dir.display(), "{loss}; the rest is served. Run `trackside journal repair`");
        metrics::counter!("trackside_journal_damaged_blocks_total").increment(1);
        if self.writable {
            let at = meta.offset..meta.offset + meta.header.bytes() as u64;
            let bytes = damaged_bytes(&handle.file, &at);
            if let Err(e) = quarantine(&self.dir, &loss, &bytes) {
                tracing::warn!("cannot keep the damaged bytes aside: {e}");
            }
        }
        losses.push(loss.clone());
        loss
    }

    pub fn add_loss(&self, loss: Loss) {
        let mut losses = lock(&self.losses);
        if losses.len() < MAX_LOSSES {
            losses.push(loss);
        }
    }

    pub fn losses(&self) -> Vec<Loss> {
        lock(&self.losses).clone()
    }
}
