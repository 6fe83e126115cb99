//! A file that only grows: positioned appends, fdatasync, and the way back to the last good offset.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::Error;
use super::cursor::{Cursor, Malformed, matches};

/// What segments are called.
pub(super) const SEGMENT: &str = "seg";
/// What logs are called.
pub(super) const LOG: &str = "log";

const MAGIC: [u8; 8] = *b"\x89TRKJRN\n";
/// Version of the format of a journal's files.
const VERSION: u16 = 1;
/// Magic, version, zero (2), first sequence number (8), CRC32C of these.
pub(super) const FILE_HEADER_BYTES: u64 = 24;

/// The path of the file of kind `extension` that begins at `first_seq`.
pub(super) fn path_of(dir: &Path, first_seq: u64, extension: &str) -> PathBuf {
    dir.join(format!("{first_seq:020}.{extension}"))
}

/// The journal's files of kind `extension`, by first sequence number.
pub(super) fn list(dir: &Path, extension: &str) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))?;
    for entry in entries {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        if path.extension().is_none_or(|e| e != extension) {
            continue;
        }
        if let Some(first_seq) = path
            .file_stem()
            .and_then(|s| s.to_str())
            .and_then(|s| s.parse().ok())
        {
            files.push((first_seq, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Makes names in `dir` (new, renamed, removed) survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| Error::io("sync", dir, e))
}

/// Creates `dir`, with its parents, and makes their names survive a power cut. Without that, files that
/// are synced themselves would be gone with the folder that they lie in.
pub(super) fn create_dir(dir: &Path) -> Result<(), Error> {
    let missing = dir.ancestors().take_while(|d| !d.exists()).count();
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    // The nearest parent in any case: who made `dir` may have died before its name was durable.
    for parent in dir.ancestors().skip(1).take(missing.max(1)) {
        match parent.as_os_str().is_empty() {
            true => sync_dir(Path::new("."))?,
            false => sync_dir(parent)?,
        }
    }
    Ok(())
}

pub(super) fn header(first_seq: u64) -> [u8; FILE_HEADER_BYTES as usize] {
    let mut h = [0; FILE_HEADER_BYTES as usize];
    h[..8].copy_from_slice(&MAGIC);
    h[8..10].copy_from_slice(&VERSION.to_le_bytes());
    h[12..20].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32c::crc32c(&h[..20]);
    h[20..].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Whether a file's header is ours: `Err` says what is wrong, [`Error::Newer`] where we must not go on.
pub(super) fn check_header(path: &Path, bytes: &[u8]) -> Result<Result<(), Malformed>, Error> {
    let mut c = Cursor(bytes);
    let parse = |c: &mut Cursor| -> Result<u16, Malformed> {
        if c.array::<8>()? != MAGIC {
            return Err(Malformed("the file's header is no journal's"));
        }
        let version = u16::from_le_bytes(c.array()?);
        c.take(10)?;
        if !matches(&bytes[..20], u32::from_le_bytes(c.array()?)) {
            return Err(Malformed("the file's header does not match its checksum"));
        }
        Ok(version)
    };
    match parse(&mut c) {
        Ok(version) if version > VERSION => Err(Error::Newer {
            path: path.to_owned(),
            version,
            known: VERSION,
        }),
        Ok(_) => Ok(Ok(())),
        Err(malformed) => Ok(Err(malformed)),
    }
}

/// Whether `e` says that there is no room (rather than that the device fails).
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(e),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
    )
}

/// Faults for tests: the next so many operations fail with that error.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct Faults {
    /// Writes fail once this many more bytes are written.
    pub room: std::sync::Mutex<Option<u64>>,
    /// Errors of the next syncs, first to last; `None` succeeds.
    pub syncs: std::sync::Mutex<std::collections::VecDeque<Option<Errno>>>,
}

/// A file under append.
pub(super) struct AppendFile {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub first_seq: u64,
    /// Where the next block goes.
    pub end: u64,
    /// What is known to be on disk.
    pub durable: u64,
    #[cfg(test)]
    pub faults: Arc<Faults>,
}

impl AppendFile {
    /// Creates a file and makes its name durable. What stood there before held nothing.
    pub fn create(
        dir: &Path,
        first_seq: u64,
        extension: &str,
        #[cfg(test)] faults: Arc<Faults>,
    ) -> io::Result<AppendFile> {
        let path = path_of(dir, first_seq, extension);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)?;
        let mut file = AppendFile {
            file: Arc::new(file),
            path,
            first_seq,
            end: 0,
            durable: 0,
            #[cfg(test)]
            faults,
        };
        file.append(&header(first_seq))?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    }

    /// Goes on after `end`, cutting off what stands behind it.
    pub fn resume(
        path: PathBuf,
        first_seq: u64,
        end: u64,
        #[cfg(test)] faults: Arc<Faults>,
    ) -> io::Result<AppendFile> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        if file.metadata()?.len() != end {
            file.set_len(end)?;
        }
        // What a crash left in the page cache only must not be taken for durable.
        file.sync_all()?;
        Ok(AppendFile {
            file: Arc::new(file),
            path,
            first_seq,
            end,
            durable: end,
            #[cfg(test)]
            faults,
        })
    }

    /// Writes at the end; on failure the file is as it was.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(e) = self.write(bytes) {
            let _ = self.file.set_len(self.end);
            return Err(e);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    #[cfg(not(test))]
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)
    }

    #[cfg(test)]
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(room) = &mut *self.faults.room.lock().unwrap() {
            let fits = (bytes.len() as u64).min(*room);
            self.file.write_all_at(&bytes[..fits as usize], self.end)?;
            *room -= fits;
            if fits < bytes.len() as u64 {
                return Err(Errno::NOSPC.into());
            }
            return Ok(());
        }
        self.file.write_all_at(bytes, self.end)
    }

    /// Makes all that was appended survive a power cut. After a failure nothing may be assumed about
    /// what lies behind [`AppendFile::durable`], not even by trying again: abandon the file.
    pub fn sync(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Some(errno)) = self.faults.syncs.lock().unwrap().pop_front() {
            return Err(errno.into());
        }
        self.file.sync_data()?;
        self.durable = self.end;
        Ok(())
    }

    /// Takes back what was appended behind `end`.
    pub fn truncate(&mut self, end: u64) {
        // If this fails too, what stands there is whole blocks that say what was never acknowledged
        // (they do no harm), or a torn one, which the next open cuts off.
        let _ = self.file.set_len(end);
        self.end = end;
        self.durable = self.durable.min(end);
    }
}
