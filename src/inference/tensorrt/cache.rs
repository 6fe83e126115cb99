//! The folder of plans, and of what makes builds and starts shorter. A file holds what it is, and is checked before it is
//! believed:
//!
//! ```text
//!   "trackside engine 1\n" │ length of the key (u32) │ key (JSON) │ length of the plan (u64) │
//!   SHA-256 of everything else │ plan
//! ```
//!
//! Numbers are little-endian. Kernels and timings lie in the same way, under a first line and an ending of their own.
//! A file is written beside its place and moved there, so that a crash leaves the old one or none; what it leaves
//! beside it is swept up an hour later. TensorRT runs what is in a plan: the folder must be writable by nobody but the
//! daemon's user.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::{Key, Machine};

/// What a file holds, by its first line and its ending.
struct Part {
    magic: &'static [u8],
    ending: &'static str,
}

const PLAN: Part = Part {
    magic: b"trackside engine 1\n",
    ending: "engine",
};
/// What TensorRT-RTX has compiled of a plan.
const KERNELS: Part = Part {
    magic: b"trackside kernels 1\n",
    ending: "kernels",
};
/// What TensorRT has measured on a machine.
const TIMINGS: Part = Part {
    magic: b"trackside timings 1\n",
    ending: "timings",
};
/// A file that is being written.
const UNFINISHED: &str = "unfinished";
/// How long nobody needs to write one.
const LONGEST_WRITE: Duration = Duration::from_secs(3600);
/// Most bytes of a key.
const MAX_KEY: u32 = 4096;
/// Most bytes of a plan.
pub const MAX_PLAN: u64 = 1 << 30;
/// Most plans, and most of each other part, that are kept: those written longest ago go first.
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
        let Some((found, plan)) = read(&PLAN, &self.path(key))? else {
            return Ok(None);
        };
        match key_of(&found)?.differs(key) {
            Some(why) => Err(Fault::Other(why)),
            None => Ok(Some(plan)),
        }
    }

    /// Keeps a plan, and lets the oldest go where there are too many.
    ///
    /// # Errors
    /// What the file system says; an older file of the same key is as it was then.
    pub fn write(&self, key: &Key, plan: &[u8]) -> io::Result<()> {
        self.keep(&PLAN, &self.path(key), &key.text(), plan)
    }

    /// The kernels that were compiled of that key's plan by `compiler`; none where there are none that are believed.
    pub fn kernels(&self, key: &Key, compiler: &str) -> Vec<u8> {
        let (path, text) = self.place(&KERNELS, key, compiler);
        believed(&KERNELS, &path, &text)
    }

    /// Keeps compiled kernels. Where they cannot be kept that is said, and the next start compiles again.
    pub fn keep_kernels(&self, key: &Key, compiler: &str, kernels: &[u8]) {
        let (path, text) = self.place(&KERNELS, key, compiler);
        self.try_to_keep(&KERNELS, &path, &text, kernels);
    }

    /// What was measured on that machine; nothing where there is nothing that is believed.
    pub fn timings(&self, machine: &Machine) -> Vec<u8> {
        let (path, text) = self.place(&TIMINGS, machine, "");
        believed(&TIMINGS, &path, &text)
    }

    /// Keeps what was measured. Where it cannot be kept that is said, and the next build measures again.
    pub fn keep_timings(&self, machine: &Machine, timings: &[u8]) {
        let (path, text) = self.place(&TIMINGS, machine, "");
        self.try_to_keep(&TIMINGS, &path, &text, timings);
    }

    /// Where a part that is not a plan lies, and what stands in it as its key.
    fn place(&self, part: &Part, of: &impl serde::Serialize, by: &str) -> (PathBuf, String) {
        // Strings and numbers: writing them as JSON cannot fail.
        let text = serde_json::to_string(&(of, by)).unwrap_or_default();
        let digest = Sha256::digest(&text);
        let short: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        (self.folder.join(format!("{short}.{}", part.ending)), text)
    }

    fn try_to_keep(&self, part: &Part, path: &Path, text: &str, bytes: &[u8]) {
        if let Err(e) = self.keep(part, path, text, bytes) {
            tracing::warn!(file = %path.display(), error = %e, "{} are not kept", part.ending);
        }
    }

    fn keep(&self, part: &Part, path: &Path, text: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        if text.len() > MAX_KEY as usize || bytes.len() as u64 > MAX_PLAN {
            return Err(io::Error::other("a file of that size is not kept"));
        }
        let ending = format!(".{UNFINISHED}");
        let mut file = tempfile::Builder::new()
            .suffix(&ending)
            .tempfile_in(&self.folder)?;
        file.write_all(part.magic)?;
        file.write_all(&(text.len() as u32).to_le_bytes())?;
        file.write_all(text.as_bytes())?;
        file.write_all(&(bytes.len() as u64).to_le_bytes())?;
        file.write_all(&sum(part, text, bytes))?;
        file.write_all(bytes)?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|e| e.error)?;
        // It is kept: what cannot be removed is another matter.
        if let Err(e) = self.prune(part) {
            tracing::warn!(folder = %self.folder.display(), error = %e, "old files cannot be removed");
        }
        Ok(())
    }

    /// Lets the plan of that key go, where there is one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, key: &Key) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Every engine file, by name.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn list(&self) -> io::Result<Vec<Cached>> {
        let mut list = Vec::new();
        for (path, meta) in self.files(PLAN.ending)? {
            let key = fs::File::open(&path)
                .map_err(Fault::from)
                .and_then(|mut file| head(&PLAN, &mut file))
                .and_then(|text| key_of(&text));
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

    /// The files of that ending; none where there is no folder.
    fn files(&self, ending: &str) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries.take(MAX_FILES) {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != ending) {
                continue;
            }
            match fs::metadata(&path) {
                // Another process has just moved or removed it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                meta => files.push((path, meta?)),
            }
        }
        Ok(files)
    }

    /// Removes the oldest of that part where there are too many, and what a crash has left unfinished.
    fn prune(&self, part: &Part) -> io::Result<()> {
        let written = |meta: &fs::Metadata| meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let mut files = self.files(part.ending)?;
        files.sort_by_key(|(_, meta)| written(meta));
        files.truncate(files.len().saturating_sub(MAX_PLANS));
        let given_up = |meta: &fs::Metadata| {
            let age = SystemTime::now().duration_since(written(meta));
            age.is_ok_and(|age| age > LONGEST_WRITE)
        };
        let unfinished = self.files(UNFINISHED)?;
        files.extend(unfinished.into_iter().filter(|(_, meta)| given_up(meta)));
        files.iter().try_for_each(|(path, _)| fs::remove_file(path))
    }
}

/// What that file holds, and under which key; `None` where there is none.
fn read(part: &Part, path: &Path) -> Result<Option<(String, Vec<u8>)>, Fault> {
    let mut file = match fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let text = head(part, &mut file)?;
    let length = u64::from_le_bytes(exactly(&mut file)?);
    let digest: [u8; 32] = exactly(&mut file)?;
    if length > MAX_PLAN {
        return Err(Fault::Damaged("what it holds is too long"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PLAN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(Fault::Damaged("it is cut short or has grown"));
    }
    if digest != sum(part, &text, &bytes) {
        return Err(Fault::Damaged("its checksum does not match"));
    }
    Ok(Some((text, bytes)))
}

/// What that file holds under that key; nothing, and a word in the log, where it is not believed.
fn believed(part: &Part, path: &Path, text: &str) -> Vec<u8> {
    let read = match read(part, path) {
        Ok(Some((found, _))) if found != text => Err(Fault::Other("of another key".to_owned())),
        read => read,
    };
    let read = read.unwrap_or_else(|fault| {
        tracing::warn!(file = %path.display(), %fault, "kept {} are not used", part.ending);
        None
    });
    read.map_or_else(Vec::new, |(_, bytes)| bytes)
}

/// The key's text.
fn head(part: &Part, file: &mut fs::File) -> Result<String, Fault> {
    let mut magic = Vec::new();
    file.take(part.magic.len() as u64).read_to_end(&mut magic)?;
    if magic != part.magic {
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
    Ok(text)
}

/// Of a plan.
fn key_of(text: &str) -> Result<Key, Fault> {
    serde_json::from_str(text).map_err(|_| Fault::Damaged("its key cannot be read"))
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

fn sum(part: &Part, key: &str, plan: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(part.magic);
    hash.update((key.len() as u32).to_le_bytes());
    hash.update(key);
    hash.update((plan.len() as u64).to_le_bytes());
    hash.update(plan);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::super::key::RECIPE;
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
                multiprocessors: 16,
                memory_gib: 61,
            },
            precision: Precision::Fp32,
            batch: 20,
            recipe: RECIPE,
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
            change(|k| k.machine.multiprocessors = 8),
            change(|k| k.machine.memory_gib = 15),
            change(|k| k.recipe -= 1),
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

    #[test]
    fn kernels_and_timings_come_back_to_who_made_them() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let (key, machine) = (key(), key().machine);
        assert!(cache.kernels(&key, "Orin, driver 12060").is_empty());
        cache.keep_kernels(&key, "Orin, driver 12060", b"kernels");
        cache.keep_timings(&machine, b"timings");
        assert_eq!(cache.kernels(&key, "Orin, driver 12060"), b"kernels");
        assert_eq!(cache.timings(&machine), b"timings");
        // Another driver, another plan, another machine.
        assert!(cache.kernels(&key, "Orin, driver 12080").is_empty());
        let other = Key {
            batch: 1,
            ..key.clone()
        };
        assert!(cache.kernels(&other, "Orin, driver 12060").is_empty());
        let other = Machine {
            multiprocessors: 8,
            ..machine.clone()
        };
        assert!(cache.timings(&other).is_empty());
        // They are no plans, and a plan is none of them.
        assert!(cache.list().unwrap().is_empty());
        let (path, _) = cache.place(&TIMINGS, &machine, "");
        cache.write(&key, b"a plan").unwrap();
        fs::copy(cache.path(&key), &path).unwrap();
        assert!(cache.timings(&machine).is_empty());
        // Damaged, then replaced.
        let (path, _) = cache.place(&KERNELS, &key, "Orin, driver 12060");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(cache.kernels(&key, "Orin, driver 12060").is_empty());
        cache.keep_kernels(&key, "Orin, driver 12060", b"others");
        assert_eq!(cache.kernels(&key, "Orin, driver 12060"), b"others");
    }

    #[test]
    fn what_a_crash_has_left_is_swept_up_an_hour_later() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let left = dir.path().join("half.unfinished");
        fs::write(&left, b"half a plan").unwrap();
        cache.write(&key(), b"a plan").unwrap();
        // It may be another process's that is writing.
        assert!(left.exists());
        let file = fs::File::options().write(true).open(&left).unwrap();
        file.set_modified(SystemTime::now() - LONGEST_WRITE * 2)
            .unwrap();
        cache.write(&key(), b"a plan").unwrap();
        assert!(!left.exists());
    }
}
