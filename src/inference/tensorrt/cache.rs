//! The folder of plans. A file holds what it is, and is checked before it is believed:
//!
//! ```text
//!   "trackside engine 1\n" │ length of the key (u32) │ key (JSON) │ length of the plan (u64) │
//!   SHA-256 of everything else │ plan
//! ```
//!
//! Numbers are little-endian. A file is written beside its place and moved there, so that a crash leaves the old one
//! or none. TensorRT runs what is in a plan: the folder must be writable by nobody but the daemon's user.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::Key;

const MAGIC: &[u8] = b"trackside engine 1\n";
const ENDING: &str = "engine";
/// Most bytes of a key.
const MAX_KEY: u32 = 4096;
/// Most bytes of a plan.
pub const MAX_PLAN: u64 = 1 << 30;
/// Most plans that are kept: those written longest ago go first.
pub const MAX_PLANS: usize = 64;
/// Most files of a folder that are looked at.
const MAX_FILES: usize = 4096;

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is no engine file of trackside's")]
    Foreign,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it holds another engine: {0}")]
    Other(String),
}

/// A folder of plans.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// A file of the folder.
#[derive(Debug)]
pub struct Cached {
    pub path: PathBuf,
    pub bytes: u64,
    pub written: SystemTime,
    /// What it says that it is; only its head was looked at.
    pub key: Result<Key, Fault>,
}

impl Cache {
    /// The plans in that folder, which need not be there.
    pub fn new(folder: &Path) -> Cache {
        Cache {
            folder: folder.to_owned(),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the plan of that key lies, or would.
    pub fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(key.file())
    }

    /// The plan of that key; `None` where there is none.
    ///
    /// # Errors
    /// [`Fault`] if the file is there and is not what it should be, to the last byte.
    pub fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, Fault> {
        let mut file = match fs::File::open(self.path(key)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let (found, text) = head(&mut file)?;
        if let Some(why) = found.differs(key) {
            return Err(Fault::Other(why));
        }
        let length = u64::from_le_bytes(exactly(&mut file)?);
        let digest: [u8; 32] = exactly(&mut file)?;
        if length > MAX_PLAN {
            return Err(Fault::Damaged("its plan is too long"));
        }
        let mut plan = Vec::new();
        file.take(MAX_PLAN + 1).read_to_end(&mut plan)?;
        if plan.len() as u64 != length {
            return Err(Fault::Damaged("it is cut short or has grown"));
        }
        if digest != sum(&text, &plan) {
            return Err(Fault::Damaged("its checksum does not match"));
        }
        Ok(Some(plan))
    }

    /// Keeps a plan, and lets the oldest go where there are too many.
    ///
    /// # Errors
    /// What the file system says; an older file of the same key is as it was then.
    pub fn write(&self, key: &Key, plan: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let text = key.text();
        if text.len() > MAX_KEY as usize || plan.len() as u64 > MAX_PLAN {
            return Err(io::Error::other("an engine of that size is not kept"));
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&(text.len() as u32).to_le_bytes())?;
        file.write_all(text.as_bytes())?;
        file.write_all(&(plan.len() as u64).to_le_bytes())?;
        file.write_all(&sum(&text, plan))?;
        file.write_all(plan)?;
        file.as_file().sync_data()?;
        file.persist(self.path(key)).map_err(|e| e.error)?;
        self.prune()
    }

    /// Every engine file, by name.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn list(&self) -> io::Result<Vec<Cached>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut list = Vec::new();
        for entry in entries.take(MAX_FILES) {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != ENDING) {
                continue;
            }
            let meta = fs::metadata(&path)?;
            let key = fs::File::open(&path)
                .map_err(Fault::from)
                .and_then(|mut file| head(&mut file))
                .map(|(key, _)| key);
            list.push(Cached {
                path,
                bytes: meta.len(),
                written: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                key,
            });
        }
        list.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(list)
    }

    fn prune(&self) -> io::Result<()> {
        let mut list = self.list()?;
        list.sort_by_key(|c| c.written);
        let surplus = list.len().saturating_sub(MAX_PLANS);
        list.iter()
            .take(surplus)
            .try_for_each(|c| fs::remove_file(&c.path))
    }
}

/// The key, and its bytes.
fn head(file: &mut fs::File) -> Result<(Key, String), Fault> {
    let magic: [u8; MAGIC.len()] = exactly(file).map_err(|_| Fault::Foreign)?;
    if magic != *MAGIC {
        return Err(Fault::Foreign);
    }
    let length = u32::from_le_bytes(exactly(file)?);
    if length > MAX_KEY {
        return Err(Fault::Damaged("its key is too long"));
    }
    let mut text = String::new();
    file.take(u64::from(length))
        .read_to_string(&mut text)
        .map_err(|_| Fault::Damaged("its key is no text"))?;
    let key = serde_json::from_str(&text).map_err(|_| Fault::Damaged("its key cannot be read"))?;
    Ok((key, text))
}

fn exactly<const N: usize>(file: &mut fs::File) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Fault::Damaged("it is cut short or has grown"))
        }
        Err(e) => Err(e.into()),
    }
}

fn sum(key: &str, plan: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(MAGIC);
    hash.update((key.len() as u32).to_le_bytes());
    hash.update(key);
    hash.update((plan.len() as u64).to_le_bytes());
    hash.update(plan);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Precision};
    use super::*;

    fn key() -> Key {
        Key {
            model: "laptime-1".to_owned(),
            onnx_sha256: "ab".repeat(32),
            machine: Machine {
                tensorrt: "TensorRT 10 10.3.0".to_owned(),
                gpu: "Orin".to_owned(),
                capability: (8, 7),
            },
            precision: Precision::Fp32,
            batch: 20,
        }
    }

    #[test]
    fn a_plan_comes_back_under_its_own_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&dir.path().join("not there yet"));
        assert!(cache.read(&key()).unwrap().is_none() && cache.list().unwrap().is_empty());
        cache.write(&key(), b"a plan").unwrap();
        assert_eq!(cache.read(&key()).unwrap().unwrap(), b"a plan");
        let change = |f: fn(&mut Key)| {
            let mut other = key();
            f(&mut other);
            other
        };
        let others = [
            change(|k| k.model = "laptime-2".to_owned()),
            change(|k| k.onnx_sha256 = "cd".repeat(32)),
            change(|k| k.machine.tensorrt = "TensorRT 10 10.7.0".to_owned()),
            change(|k| k.machine.gpu = "Orin Nano".to_owned()),
            change(|k| k.machine.capability = (8, 9)),
            change(|k| k.precision = Precision::Fp16),
            change(|k| k.batch = 22),
        ];
        for other in others {
            assert_ne!(cache.path(&other), cache.path(&key()), "{other:?}");
            assert!(cache.read(&other).unwrap().is_none(), "{other:?}");
            assert!(key().differs(&other).is_some(), "{other:?}");
            // Its file under the other's name: somebody renamed it.
            fs::copy(cache.path(&key()), cache.path(&other)).unwrap();
            let fault = cache.read(&other).unwrap_err();
            assert!(matches!(fault, Fault::Other(_)), "{fault}");
            fs::remove_file(cache.path(&other)).unwrap();
        }
        let list = cache.list().unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].key.as_ref().unwrap(), &key());
    }

    #[test]
    fn no_changed_byte_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        cache.write(&key(), &[7; 300]).unwrap();
        let path = cache.path(&key());
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            fs::write(&path, &changed).unwrap();
            assert!(cache.read(&key()).is_err(), "byte {at}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(cache.read(&key()).is_err(), "cut to {length}");
        }
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(cache.read(&key()).is_err());
        fs::write(&path, b"an engine of somebody else's, which is long enough").unwrap();
        assert!(matches!(cache.read(&key()), Err(Fault::Foreign)));
        assert!(matches!(cache.list().unwrap()[0].key, Err(Fault::Foreign)));
        fs::write(&path, &whole).unwrap();
        assert!(cache.read(&key()).unwrap().is_some());
    }

    #[test]
    fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        for batch in 0..MAX_PLANS + 3 {
            let key = Key { batch, ..key() };
            cache.write(&key, b"a plan").unwrap();
            let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(batch as u64);
            let file = fs::File::options()
                .write(true)
                .open(cache.path(&key))
                .unwrap();
            file.set_modified(written).unwrap();
        }
        let kept = cache.list().unwrap();
        assert_eq!(kept.len(), MAX_PLANS);
        assert!(kept.iter().all(|c| c.key.as_ref().unwrap().batch >= 3));
    }
}
