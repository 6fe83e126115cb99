//! The index in sled: the version held of every document that does not stream.
//!
//! It is written in one atomic batch each time that the tail moves into a segment, with a mark that
//! says up to where it goes and a checksum of all that it holds. What lies behind the mark is read
//! from the segments at the next open; an index that does not match its mark, or whose mark does not
//! match the segments, is deleted and built anew. So sled need not survive a power cut, only notice.
//!
//! sled 0.34 panics where it finds damage; every call runs behind `catch_unwind`.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use super::version::Held;
use crate::record::key::Version;
use crate::record::{DocumentKey, Kind};

/// Memory that sled may use for pages (bytes).
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
const MARK: &[u8] = b"m";
const DOCUMENT: u8 = b'd';
const KEY_BYTES: usize = 10;
const VALUE_BYTES: usize = 18;

/// Up to where the index goes, and what it then holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Entries before this one are in the index.
    pub next_seq: u64,
    /// First sequence number and body checksum of the last block before it: the segments' tail.
    pub block: (u64, u32),
    documents: u64,
    checksum: u64,
}

impl Mark {
    fn to_bytes(self) -> Vec<u8> {
        let mut b = Vec::with_capacity(48);
        for v in [
            self.next_seq,
            self.block.0,
            u64::from(self.block.1),
            self.documents,
            self.checksum,
        ] {
            b.extend_from_slice(&v.to_le_bytes());
        }
        let crc = crc32c::crc32c(&b);
        b.extend_from_slice(&crc.to_le_bytes());
        b
    }

    fn read(b: &[u8]) -> Option<Mark> {
        let (body, crc) = b.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let v: Vec<u64> = body
            .chunks_exact(8)
            .filter_map(|c| Some(u64::from_le_bytes(c.try_into().ok()?)))
            .collect();
        let [next_seq, first, crc, documents, checksum] = v[..] else {
            return None;
        };
        Some(Mark {
            next_seq,
            block: (first, crc as u32),
            documents,
            checksum,
        })
    }
}

pub(super) struct Index {
    db: sled::Db,
    path: PathBuf,
    pub mark: Mark,
    /// Whether it holds documents of kinds that stream (those with keys of their source's own).
    pub has_streaming: bool,
    /// Lowest sequence number that it speaks of.
    pub oldest: u64,
}

/// Runs a call of sled's: its errors and its panics are one to us.
fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, Error> {
    let failed = |why: String| Error::Index {
        path: path.to_owned(),
        why,
    };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(v)) => Ok(v),
        Ok(Err(e)) => Err(failed(e.to_string())),
        Err(panic) => Err(failed(
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_else(|| "sled panicked".to_owned()),
        )),
    }
}

fn key_bytes(key: &DocumentKey) -> [u8; KEY_BYTES] {
    let mut b = [DOCUMENT, key.kind as u8, 0, 0, 0, 0, 0, 0, 0, 0];
    b[2..].copy_from_slice(&key.hash.to_be_bytes());
    b
}

fn value_bytes(held: &Held) -> [u8; VALUE_BYTES] {
    let (tag, v) = match held.version {
        Version::Id(id) => (0, id as u64),
        Version::Content(hash) => (1, hash),
    };
    let mut b = [0; VALUE_BYTES];
    b[0] = tag | u8::from(held.anchored) << 1 | u8::from(held.foreign) << 2;
    b[1..9].copy_from_slice(&v.to_le_bytes());
    b[9..17].copy_from_slice(&held.seq.to_le_bytes());
    b
}

fn read_value(b: &[u8]) -> Option<Held> {
    let b: &[u8; VALUE_BYTES] = b.try_into().ok()?;
    let v = u64::from_le_bytes(b[1..9].try_into().ok()?);
    Some(Held {
        version: match b[0] & 1 {
            0 => Version::Id(v as i64),
            _ => Version::Content(v),
        },
        seq: u64::from_le_bytes(b[9..17].try_into().ok()?),
        anchored: b[0] & 2 != 0,
        foreign: b[0] & 4 != 0,
    })
}

fn streams(key: &[u8]) -> bool {
    (key.get(1).and_then(|k| Kind::from_number(*k))).is_some_and(Kind::streams)
}

fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let mut row = [0; KEY_BYTES + VALUE_BYTES];
    let (k, v) = (key.len().min(KEY_BYTES), value.len().min(VALUE_BYTES));
    row[..k].copy_from_slice(&key[..k]);
    row[KEY_BYTES..KEY_BYTES + v].copy_from_slice(&value[..v]);
    xxh3_64(&row)
}

impl Index {
    /// Opens the index, or creates an empty one; fails if it does not hold what its mark says.
    pub fn open(path: &Path) -> Result<Index, Error> {
        guarded(path, || {
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .open()?;
            let mark = db.get(MARK)?;
            let (mut documents, mut sum, mut has_streaming) = (0, 0, false);
            let mut oldest = u64::MAX;
            for row in db.scan_prefix([DOCUMENT]) {
                let (key, value) = row?;
                documents += 1;
                sum ^= checksum(&key, &value);
                has_streaming |= streams(&key);
                oldest = oldest.min(read_value(&value).map_or(0, |held| held.seq));
            }
            let mark = match &mark {
                Some(bytes) => Mark::read(bytes),
                None => Some(Mark::default()),
            };
            match mark.filter(|m| (m.documents, m.checksum) == (documents, sum)) {
                Some(mark) => Ok(Index {
                    db,
                    path: path.to_owned(),
                    mark,
                    has_streaming,
                    oldest,
                }),
                None => Err(sled::Error::Unsupported(
                    "it does not hold what its mark says".into(),
                )),
            }
        })
    }

    pub fn get(&self, key: &DocumentKey) -> Result<Option<Held>, Error> {
        guarded(&self.path, || self.db.get(key_bytes(key))).map(|v| v.and_then(|v| read_value(&v)))
    }

    /// Adds the documents of a stretch that follows the mark, and moves the mark behind it: all or
    /// nothing.
    pub fn apply<'a>(
        &mut self,
        documents: impl Iterator<Item = (&'a DocumentKey, &'a Held)>,
        next_seq: u64,
        block: (u64, u32),
    ) -> Result<(), Error> {
        let mut mark = Mark {
            next_seq,
            block,
            ..self.mark
        };
        let (db, mut has_streaming) = (&self.db, self.has_streaming);
        guarded(&self.path, || {
            let mut batch = sled::Batch::default();
            for (key, held) in documents {
                has_streaming |= key.kind.streams();
                let key = key_bytes(key);
                let before = db.get(key)?;
                let held = match before.as_deref().and_then(read_value) {
                    Some(old) => old.then(*held),
                    None => *held,
                };
                let value = value_bytes(&held);
                match before {
                    Some(old) => mark.checksum ^= checksum(&key, &old),
                    None => mark.documents += 1,
                }
                mark.checksum ^= checksum(&key, &value);
                batch.insert(&key[..], &value[..]);
            }
            batch.insert(MARK, mark.to_bytes());
            db.apply_batch(batch)
        })?;
        (self.mark, self.has_streaming) = (mark, has_streaming);
        Ok(())
    }

    /// Forgets documents whose version came before `seq`: the journal no longer holds them.
    pub fn forget_before(&mut self, seq: u64) -> Result<(), Error> {
        let mut mark = self.mark;
        let db = &self.db;
        guarded(&self.path, || {
            let mut batch = sled::Batch::default();
            for row in db.scan_prefix([DOCUMENT]) {
                let (key, value) = row?;
                if read_value(&value).is_none_or(|held| held.seq < seq) {
                    mark.documents -= 1;
                    mark.checksum ^= checksum(&key, &value);
                    batch.remove(key);
                }
            }
            batch.insert(MARK, mark.to_bytes());
            db.apply_batch(batch)
        })?;
        self.mark = mark;
        Ok(())
    }

    /// Makes it survive a power cut: sled's own flush does not reach the disk.
    pub fn sync(&self) -> Result<(), Error> {
        guarded(&self.path, || self.db.flush())?;
        let file = self.path.join("db");
        File::open(&file)
            .and_then(|f| f.sync_all())
            .map_err(|e| Error::io("sync", &file, e))
    }
}
