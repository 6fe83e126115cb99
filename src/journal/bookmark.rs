//! A place in a journal that must not be forgotten: up to where retention has removed records, up to where they
//! are durable, or up to where a reader has done its work.
//!
//! ```text
//! two slots of 16 bytes: sequence number (8) | zero (4) | CRC32C of these (4)
//! ```
//!
//! Written in turn and in place; the higher whole slot counts. In place, so that it needs no room on a full
//! disk; in turn, so that a write that tears leaves the place before it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::file::sync_dir;

const SLOT_BYTES: usize = 16;
const SLOTS: usize = 2;
/// Where a journal keeps up to where retention has removed records: what tells one that was shortened from one
/// that was hurt.
const FLOOR: &str = "floor";

/// A sequence number that only grows, in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    path: PathBuf,
}

fn slot(seq: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&seq.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..12]);
    slot[12..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let seq = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b))?;
    (bytes == slot(seq)).then_some(seq)
}

/// The slots that are whole.
fn slots(file: &File) -> io::Result<[Option<u64>; SLOTS]> {
    let mut found = [None; SLOTS];
    for (at, found) in found.iter_mut().enumerate() {
        let mut bytes = [0; SLOT_BYTES];
        match file.read_exact_at(&mut bytes, (at * SLOT_BYTES) as u64) {
            Ok(()) => *found = parse(&bytes),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

impl Bookmark {
    /// The one in the file `path`, which need not exist yet.
    pub fn at(path: PathBuf) -> Bookmark {
        Bookmark { path }
    }

    pub(super) fn floor(dir: &Path) -> Bookmark {
        Bookmark::at(dir.join(FLOOR))
    }

    /// The place; `None` where none was ever written.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn read(&self) -> Result<Option<u64>, Error> {
        let found = match File::open(&self.path) {
            Ok(file) => slots(&file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => Err(e),
        };
        let found = found.map_err(|e| Error::io("read", &self.path, e))?;
        Ok(found.into_iter().flatten().max())
    }

    /// Moves it to `seq`. What survives a crash of this process need not survive a power cut: see
    /// [`Bookmark::sync`].
    ///
    /// # Errors
    /// If it cannot be written; it is where it was then.
    pub fn write(&self, seq: u64) -> Result<(), Error> {
        let write = || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&self.path)?;
            let found = slots(&file)?;
            let at = usize::from(found[0] >= found[1]);
            file.write_all_at(&slot(seq), (at * SLOT_BYTES) as u64)
        };
        write().map_err(|e| Error::io("write", &self.path, e))
    }

    /// Moves it to `seq`, also backwards: what it marked is another journal's.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, seq: u64) -> Result<(), Error> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.path, e))
            }
            _ => self.write(seq),
        }
    }

    /// Makes the place survive a power cut, in a file whose name does.
    pub(super) fn sync_data(&self) -> Result<(), Error> {
        File::open(&self.path)
            .and_then(|file| file.sync_data())
            .map_err(|e| Error::io("sync", &self.path, e))
    }

    /// Makes it survive a power cut.
    ///
    /// # Errors
    /// If the disk says no.
    pub fn sync(&self) -> Result<(), Error> {
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .map_err(|e| Error::io("sync", &self.path, e))?;
        self.path.parent().map_or(Ok(()), sync_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("place");
        let bookmark = Bookmark::at(path.clone());
        assert_eq!(bookmark.read().unwrap(), None);
        for seq in [0, 5, 70, 900] {
            bookmark.write(seq).unwrap();
            bookmark.sync().unwrap();
            assert_eq!(bookmark.read().unwrap(), Some(seq));
        }
        // A write of 901 that tears either slot leaves 900, or what was before it.
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), SLOTS * SLOT_BYTES);
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            std::fs::write(&path, torn).unwrap();
            let found = bookmark.read().unwrap();
            assert!([Some(70), Some(900)].contains(&found), "byte {at}");
        }
        std::fs::write(&path, &whole[..3]).unwrap();
        assert_eq!(bookmark.read().unwrap(), None);
        bookmark.write(900).unwrap();
        bookmark.begin(3).unwrap();
        assert_eq!(bookmark.read().unwrap(), Some(3));
    }
}
