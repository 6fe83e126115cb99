//! A folder on a disk whose cache is lost when the power goes.
//!
//! What is sure, and nothing more: a file's bytes and length after an `fsync` or `fdatasync` of that file
//! that began after they were written and came back well (or a write through `O_SYNC`/`O_DSYNC`); a name
//! in a folder after an `fsync` of that folder. All the rest is *pending*: after a power cut it is there in
//! full, in part, or not at all, and [`Outcome`] says which. `sync_file_range` makes nothing sure: it
//! neither commits a file's length nor empties the drive's cache.
//!
//! Stricter than ext4 in one point: there, syncing a new file also keeps its name. POSIX promises no such
//! thing and other file systems keep no such promise, so both outcomes are played.
//!
//! *Invariant:* taking a cut changes nothing; one recording is played once, and cut as often as one likes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The unit that a drive writes whole or not at all (bytes).
pub const SECTOR: usize = 512;

/// Names a file or folder for as long as the disk lives.
pub type Inode = usize;

/// What becomes of the pending changes when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// None of them is there.
    Nothing,
    /// All of them are there.
    Everything,
    /// Names and lengths are there, bytes are not: they read as zeros, or as what stood there before.
    LengthsOnly,
    /// Everything up to some moment, in order, and a torn piece of the next write.
    InOrder,
    /// Each sector, each length and each name is there or not, in no order (but a name's own changes
    /// keep theirs).
    Scattered,
}

impl Outcome {
    pub const ALL: [Outcome; 5] = [
        Outcome::Nothing,
        Outcome::Everything,
        Outcome::LengthsOnly,
        Outcome::InOrder,
        Outcome::Scattered,
    ];

    /// Whether different seeds give different disks.
    pub fn is_random(self) -> bool {
        matches!(self, Outcome::InOrder | Outcome::Scattered)
    }
}

#[derive(Clone, Debug)]
enum FileChange {
    Write { at: usize, data: Vec<u8> },
    Resize { len: usize },
}

#[derive(Clone, Debug)]
enum NameChange {
    Add {
        name: String,
        inode: Inode,
    },
    Remove {
        name: String,
    },
    /// Atomic within one folder.
    Rename {
        from: String,
        to: String,
        inode: Inode,
    },
}

impl NameChange {
    fn names(&self) -> [Option<&str>; 2] {
        match self {
            NameChange::Add { name, .. } | NameChange::Remove { name } => [Some(name), None],
            NameChange::Rename { from, to, .. } => [Some(from), Some(to)],
        }
    }
}

#[derive(Clone, Debug)]
struct Pending<C> {
    change: C,
    /// When it was issued, over the whole disk.
    order: u64,
    /// The call came back: a sync that begins now covers it.
    settled: bool,
}

#[derive(Debug)]
enum Node {
    File {
        durable: Vec<u8>,
        pending: Vec<Pending<FileChange>>,
        len: usize,
    },
    Folder {
        durable: BTreeMap<String, Inode>,
        pending: Vec<Pending<NameChange>>,
        /// As running programs see it.
        live: BTreeMap<String, Inode>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Disk {
    nodes: Vec<Node>,
    order: u64,
}

/// The folder that the recording watches; it is there from the start, and empty.
pub const ROOT: Inode = 0;

impl Disk {
    pub fn new() -> Disk {
        let mut disk = Disk {
            nodes: Vec::new(),
            order: 0,
        };
        disk.new_folder();
        disk
    }

    fn new_folder(&mut self) -> Inode {
        self.nodes.push(Node::Folder {
            durable: BTreeMap::new(),
            pending: Vec::new(),
            live: BTreeMap::new(),
        });
        self.nodes.len() - 1
    }

    fn new_file(&mut self) -> Inode {
        self.nodes.push(Node::File {
            durable: Vec::new(),
            pending: Vec::new(),
            len: 0,
        });
        self.nodes.len() - 1
    }

    fn file(&mut self, inode: Inode) -> (&mut Vec<u8>, &mut Vec<Pending<FileChange>>, &mut usize) {
        match &mut self.nodes[inode] {
            Node::File {
                durable,
                pending,
                len,
            } => (durable, pending, len),
            Node::Folder { .. } => panic!("inode {inode} is a folder, not a file"),
        }
    }

    /// The inode at a path below the root, as running programs see it.
    pub fn find(&self, path: &str) -> Option<Inode> {
        let mut inode = ROOT;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let Node::Folder { live, .. } = &self.nodes[inode] else {
                return None;
            };
            inode = *live.get(part)?;
        }
        Some(inode)
    }

    /// The folder and the name in it that a path stands for.
    fn place<'a>(&self, path: &'a str) -> Result<(Inode, &'a str), String> {
        let path = path.trim_matches('/');
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inode = self
            .find(folder)
            .ok_or_else(|| format!("{path}: its folder is not known"))?;
        Ok((inode, name))
    }

    fn change_names(&mut self, folder: Inode, change: NameChange) -> Result<(), String> {
        self.order += 1;
        let order = self.order;
        let Node::Folder { pending, live, .. } = &mut self.nodes[folder] else {
            return Err(format!("inode {folder} is no folder"));
        };
        apply_names(live, &change);
        pending.push(Pending {
            change,
            order,
            settled: true,
        });
        Ok(())
    }

    /// A new, empty file.
    pub fn create(&mut self, path: &str) -> Result<Inode, String> {
        let (folder, name) = self.place(path)?;
        let inode = self.new_file();
        let name = name.to_owned();
        self.change_names(folder, NameChange::Add { name, inode })?;
        Ok(inode)
    }

    /// A new, empty folder.
    pub fn make_folder(&mut self, path: &str) -> Result<(), String> {
        let (folder, name) = self.place(path)?;
        let inode = self.new_folder();
        let name = name.to_owned();
        self.change_names(folder, NameChange::Add { name, inode })
    }

    /// A second name for a file.
    pub fn link(&mut self, from: &str, to: &str) -> Result<(), String> {
        let inode = self.find(from).ok_or_else(|| format!("{from}: unknown"))?;
        let (folder, name) = self.place(to)?;
        let name = name.to_owned();
        self.change_names(folder, NameChange::Add { name, inode })
    }

    /// Takes a name away, of a file or an empty folder.
    pub fn unlink(&mut self, path: &str) -> Result<(), String> {
        let (folder, name) = self.place(path)?;
        let name = name.to_owned();
        self.change_names(folder, NameChange::Remove { name })
    }

    /// Within one folder atomic; between two, the new name comes first and each is sure by itself.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), String> {
        let inode = self.find(from).ok_or_else(|| format!("{from}: unknown"))?;
        let (old, from) = self.place(from)?;
        let (new, to) = self.place(to)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        if old == new {
            return self.change_names(old, NameChange::Rename { from, to, inode });
        }
        self.change_names(new, NameChange::Add { name: to, inode })?;
        self.change_names(old, NameChange::Remove { name: from })
    }

    /// A write has begun. It may reach the disk from now on; [`Disk::settle`] says that it came back.
    pub fn write(&mut self, inode: Inode, at: usize, data: Vec<u8>) -> u64 {
        self.order += 1;
        let order = self.order;
        let (_, pending, len) = self.file(inode);
        *len = (*len).max(at + data.len());
        pending.push(Pending {
            change: FileChange::Write { at, data },
            order,
            settled: false,
        });
        order
    }

    /// The file is cut or grown (with zeros).
    pub fn resize(&mut self, inode: Inode, to: usize) {
        self.order += 1;
        let order = self.order;
        let (_, pending, len) = self.file(inode);
        *len = to;
        pending.push(Pending {
            change: FileChange::Resize { len: to },
            order,
            settled: true,
        });
    }

    /// The length that a running program sees.
    pub fn len(&mut self, inode: Inode) -> usize {
        *self.file(inode).2
    }

    /// The write of that order came back.
    pub fn settle(&mut self, inode: Inode, order: u64) {
        let (_, pending, _) = self.file(inode);
        if let Some(p) = pending.iter_mut().find(|p| p.order == order) {
            p.settled = true;
        }
    }

    /// What a sync of this inode that begins now will have made sure when it comes back well.
    pub fn sync_begins(&self, inode: Inode) -> Vec<u64> {
        match &self.nodes[inode] {
            Node::File { pending, .. } => settled(pending),
            Node::Folder { pending, .. } => settled(pending),
        }
    }

    /// A sync came back well: what it covered is sure.
    pub fn sync_ends(&mut self, inode: Inode, covered: &[u64]) {
        match &mut self.nodes[inode] {
            Node::File {
                durable, pending, ..
            } => pending.retain(|p| {
                let keep = covered.binary_search(&p.order).is_err();
                if !keep {
                    apply_whole(durable, &p.change);
                }
                keep
            }),
            Node::Folder {
                durable, pending, ..
            } => pending.retain(|p| {
                let keep = covered.binary_search(&p.order).is_err();
                if !keep {
                    apply_names(durable, &p.change);
                }
                keep
            }),
        }
    }

    /// Every inode, for a sync of the whole file system.
    pub fn inodes(&self) -> impl Iterator<Item = Inode> + use<> {
        0..self.nodes.len()
    }

    /// Writes into `to` (which must be empty) what a power cut now could leave behind.
    pub fn after_power_cut(
        &self,
        outcome: Outcome,
        rng: &mut ChaCha8Rng,
        to: &Path,
    ) -> io::Result<()> {
        // One moment for the whole disk, somewhere among what is pending.
        let pending = self.pending_orders();
        let until = if pending.is_empty() {
            0
        } else {
            pending[rng.random_range(0..pending.len())]
        };
        let mut pick = Pick {
            outcome,
            until,
            rng,
        };
        self.write_folder(ROOT, &mut pick, to)
    }

    fn pending_orders(&self) -> Vec<u64> {
        let mut orders = Vec::new();
        for node in &self.nodes {
            match node {
                Node::File { pending, .. } => orders.extend(pending.iter().map(|p| p.order)),
                Node::Folder { pending, .. } => orders.extend(pending.iter().map(|p| p.order)),
            }
        }
        orders.sort_unstable();
        orders
    }

    fn write_folder(&self, inode: Inode, pick: &mut Pick<'_>, to: &Path) -> io::Result<()> {
        let Node::Folder {
            durable, pending, ..
        } = &self.nodes[inode]
        else {
            return Ok(());
        };
        for (name, child) in pick.names(durable, pending) {
            let path = to.join(name);
            match &self.nodes[child] {
                Node::Folder { .. } => {
                    fs::create_dir(&path)?;
                    self.write_folder(child, pick, &path)?;
                }
                Node::File {
                    durable, pending, ..
                } => fs::write(&path, pick.bytes(durable, pending))?,
            }
        }
        Ok(())
    }
}

fn settled<C>(pending: &[Pending<C>]) -> Vec<u64> {
    pending
        .iter()
        .filter(|p| p.settled)
        .map(|p| p.order)
        .collect()
}

fn apply_names(names: &mut BTreeMap<String, Inode>, change: &NameChange) {
    match change {
        NameChange::Add { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Remove { name } => {
            names.remove(name);
        }
        NameChange::Rename { from, to, inode } => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}

fn apply_whole(bytes: &mut Vec<u8>, change: &FileChange) {
    match change {
        FileChange::Write { at, data } => write_at(bytes, *at, data),
        FileChange::Resize { len } => bytes.resize(*len, 0),
    }
}

fn write_at(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// The dice of one power cut.
struct Pick<'a> {
    outcome: Outcome,
    /// For [`Outcome::InOrder`]: what was issued before is there, this one is torn, the rest is lost.
    until: u64,
    rng: &'a mut ChaCha8Rng,
}

impl Pick<'_> {
    fn names(
        &mut self,
        durable: &BTreeMap<String, Inode>,
        pending: &[Pending<NameChange>],
    ) -> BTreeMap<String, Inode> {
        let mut names = durable.clone();
        // A journal keeps the order of changes to one name: once one is lost, so are its successors.
        let mut lost: Vec<&str> = Vec::new();
        for p in pending {
            let orphan = p.change.names().iter().flatten().any(|n| lost.contains(n));
            let kept = match self.outcome {
                Outcome::Nothing => false,
                Outcome::Everything | Outcome::LengthsOnly => true,
                Outcome::InOrder => p.order < self.until,
                Outcome::Scattered => !orphan && self.rng.random_bool(0.5),
            };
            if kept {
                apply_names(&mut names, &p.change);
            } else {
                lost.extend(p.change.names().into_iter().flatten());
            }
        }
        names
    }

    fn bytes(&mut self, durable: &[u8], pending: &[Pending<FileChange>]) -> Vec<u8> {
        let mut bytes = durable.to_vec();
        for p in pending {
            match self.outcome {
                Outcome::Nothing => {}
                Outcome::Everything => apply_whole(&mut bytes, &p.change),
                Outcome::InOrder if p.order < self.until => apply_whole(&mut bytes, &p.change),
                Outcome::InOrder if p.order == self.until => self.tear(&mut bytes, &p.change),
                Outcome::InOrder => {}
                Outcome::LengthsOnly => match &p.change {
                    FileChange::Write { at, data } => {
                        let len = bytes.len().max(at + data.len());
                        bytes.resize(len, 0);
                    }
                    FileChange::Resize { len } => bytes.resize(*len, 0),
                },
                Outcome::Scattered => self.scatter(&mut bytes, &p.change),
            }
        }
        bytes
    }

    /// A first part of a write, whole sectors of it.
    fn tear(&mut self, bytes: &mut Vec<u8>, change: &FileChange) {
        if let FileChange::Write { at, data } = change {
            let sectors = data.len().div_ceil(SECTOR);
            let end = (self.rng.random_range(0..=sectors) * SECTOR).min(data.len());
            write_at(bytes, *at, &data[..end]);
        }
    }

    fn scatter(&mut self, bytes: &mut Vec<u8>, change: &FileChange) {
        match change {
            FileChange::Resize { len } => {
                if self.rng.random_bool(0.5) {
                    bytes.resize(*len, 0);
                }
            }
            FileChange::Write { at, data } => {
                // The length may be there without the bytes, not the bytes without the length.
                if self.rng.random_bool(0.5) {
                    let len = bytes.len().max(at + data.len());
                    bytes.resize(len, 0);
                }
                let mut from = 0;
                while from < data.len() {
                    // Sectors lie at multiples of their size in the file, not in the write.
                    let to = (((at + from) / SECTOR + 1) * SECTOR - at).min(data.len());
                    if at + to <= bytes.len() && self.rng.random_bool(0.5) {
                        write_at(bytes, at + from, &data[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn cut(disk: &Disk, outcome: Outcome, seed: u64) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        disk.after_power_cut(outcome, &mut rng, folder.path())
            .unwrap();
        fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .map(|p| {
                let name = p.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read(&p).unwrap())
            })
            .collect()
    }

    fn sync(disk: &mut Disk, inode: Inode) {
        let covered = disk.sync_begins(inode);
        disk.sync_ends(inode, &covered);
    }

    #[test]
    fn what_was_synced_survives_every_outcome() {
        let mut disk = Disk::new();
        let a = disk.create("/a").unwrap();
        let order = disk.write(a, 0, vec![7; 3000]);
        disk.settle(a, order);
        sync(&mut disk, a);
        sync(&mut disk, ROOT);
        for outcome in Outcome::ALL {
            for seed in 0..20 {
                assert_eq!(cut(&disk, outcome, seed)["a"], vec![7; 3000], "{outcome:?}");
            }
        }
    }

    #[test]
    fn a_name_needs_its_folder_synced() {
        let mut disk = Disk::new();
        let a = disk.create("/a").unwrap();
        let order = disk.write(a, 0, vec![7; 10]);
        disk.settle(a, order);
        sync(&mut disk, a);
        assert!(cut(&disk, Outcome::Nothing, 1).is_empty());
        assert_eq!(cut(&disk, Outcome::Everything, 1).len(), 1);
        let seen: Vec<usize> = (0..40)
            .map(|seed| cut(&disk, Outcome::Scattered, seed).len())
            .collect();
        assert!(seen.contains(&0) && seen.contains(&1), "{seen:?}");
    }

    #[test]
    fn a_write_that_had_not_come_back_is_not_covered_by_a_sync() {
        let mut disk = Disk::new();
        let a = disk.create("/a").unwrap();
        sync(&mut disk, ROOT);
        disk.write(a, 0, vec![7; 10]);
        sync(&mut disk, a);
        assert_eq!(cut(&disk, Outcome::Nothing, 1)["a"], b"");
    }

    #[test]
    fn unsynced_bytes_are_torn_at_sectors_and_lost_in_any_order() {
        let mut disk = Disk::new();
        let a = disk.create("/a").unwrap();
        sync(&mut disk, ROOT);
        let order = disk.write(a, 0, vec![7; 10 * SECTOR]);
        disk.settle(a, order);
        let mut lengths = std::collections::BTreeSet::new();
        let mut holes = 0;
        for seed in 0..60 {
            lengths.insert(cut(&disk, Outcome::InOrder, seed)["a"].len());
            let scattered = &cut(&disk, Outcome::Scattered, seed)["a"];
            let sectors: Vec<bool> = scattered.chunks(SECTOR).map(|s| s[0] == 7).collect();
            holes += usize::from(sectors.windows(2).any(|w| !w[0] && w[1]));
        }
        assert!(lengths.len() > 5, "{lengths:?}");
        assert!(lengths.iter().all(|l| l % SECTOR == 0), "{lengths:?}");
        assert!(holes > 10, "{holes}");
        assert_eq!(
            cut(&disk, Outcome::LengthsOnly, 0)["a"],
            vec![0; 10 * SECTOR]
        );
    }

    #[test]
    fn a_rename_is_there_whole_or_not_at_all() {
        let mut disk = Disk::new();
        let a = disk.create("/a").unwrap();
        sync(&mut disk, ROOT);
        disk.rename("/a", "/b").unwrap();
        assert_eq!(disk.find("/b"), Some(a));
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let names: Vec<String> = cut(&disk, Outcome::Scattered, seed).into_keys().collect();
            seen.insert(names.join(","));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
