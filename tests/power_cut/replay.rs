//! Plays a recorded trace onto a [`Disk`], and stops wherever the power is to be cut.
//!
//! *Invariant:* the replay refuses what it cannot follow (shared writable mappings, io_uring, copies made
//! inside the kernel, a second program, a path that is not the one it expects). It never plays on with a
//! disk that may be another than the one that was recorded.

use std::collections::HashMap;

use crate::disk::{Disk, Inode};
use crate::support::mqtt::Conversation;
use crate::trace::{Call, Moment, Trace, bytes, descriptor};

/// What is open behind a descriptor (shared by its duplicates).
#[derive(Debug)]
struct Description {
    inode: Inode,
    position: usize,
    append: bool,
    /// `O_SYNC` or `O_DSYNC`.
    synced: bool,
}

/// A replay under way.
pub struct Replay<'a> {
    trace: &'a Trace,
    /// Folder whose contents are played; absolute, no `/` at its end.
    root: String,
    next: usize,
    pub disk: Disk,
    descriptions: Vec<Description>,
    descriptors: HashMap<i32, usize>,
    /// Calls under way: what they will settle or make sure when they come back.
    writes: HashMap<usize, (Inode, u64, bool)>,
    syncs: HashMap<usize, Vec<(Inode, Vec<u64>)>>,
    conversation: Conversation,
    executed: usize,
}

impl<'a> Replay<'a> {
    /// From the start of a trace. `root` was empty when it began.
    pub fn new(trace: &'a Trace, root: &str) -> Replay<'a> {
        Replay {
            trace,
            root: root.trim_end_matches('/').to_owned(),
            next: 0,
            disk: Disk::new(),
            descriptions: Vec::new(),
            descriptors: HashMap::new(),
            writes: HashMap::new(),
            syncs: HashMap::new(),
            conversation: Conversation::default(),
            executed: 0,
        }
    }

    /// The payloads whose PUBACK has begun to leave for the broker by now.
    pub fn acknowledged(&self) -> &[Vec<u8>] {
        self.conversation.acknowledged()
    }

    /// Plays up to, not including, moment `to`.
    pub fn play_until(&mut self, to: usize) -> Result<(), String> {
        let trace = self.trace;
        while self.next < to.min(trace.moments.len()) {
            let moment = trace.moments[self.next];
            self.next += 1;
            let (Moment::Entered(index) | Moment::Left(index)) = moment;
            let call = &trace.calls[index];
            let played = match moment {
                Moment::Entered(_) => self.entered(index, call),
                Moment::Left(_) => self.left(index, call),
            };
            played.map_err(|e| format!("moment {}: {}: {e}", self.next - 1, call.name))?;
        }
        Ok(())
    }

    /// Whether a cut just before this moment may leave another disk, or another set of acknowledgements,
    /// than a cut just before the last.
    pub fn is_worth_a_cut(&self, moment: usize) -> bool {
        let (Moment::Entered(index) | Moment::Left(index)) = self.trace.moments[moment];
        let call = &self.trace.calls[index];
        match call.name.as_str() {
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "fsync" | "fdatasync"
            | "ftruncate" | "fallocate" | "sendto" | "sendmsg" => call
                .args
                .first()
                .and_then(|a| descriptor(a))
                .is_some_and(|(_, on)| self.below_root(&on).is_some() || on.starts_with("TCP")),
            "rename" | "renameat" | "renameat2" | "link" | "linkat" | "unlink" | "unlinkat"
            | "mkdir" | "mkdirat" | "sync" | "syncfs" => true,
            _ => false,
        }
    }

    fn entered(&mut self, index: usize, call: &Call) -> Result<(), String> {
        match call.name.as_str() {
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => self.write(index, call),
            "sendto" | "sendmsg" => {
                self.sent(call);
                Ok(())
            }
            "fsync" | "fdatasync" => {
                if let Some(inode) = self.open_inode(call)? {
                    let covered = self.disk.sync_begins(inode);
                    self.syncs.insert(index, vec![(inode, covered)]);
                }
                Ok(())
            }
            "sync" | "syncfs" => {
                let all = self
                    .disk
                    .inodes()
                    .map(|i| (i, self.disk.sync_begins(i)))
                    .collect();
                self.syncs.insert(index, all);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn left(&mut self, index: usize, call: &Call) -> Result<(), String> {
        let well = call.returned.is_some_and(|r| r >= 0);
        match call.name.as_str() {
            "execve" if well => {
                self.executed += 1;
                if self.executed > 1 {
                    return Err("a second program was started; only one is followed".into());
                }
                Ok(())
            }
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                if let Some((inode, order, synced)) = self.writes.remove(&index) {
                    self.disk.settle(inode, order);
                    if synced {
                        self.disk.sync_ends(inode, &[order]);
                    }
                }
                Ok(())
            }
            "fsync" | "fdatasync" | "sync" | "syncfs" => {
                // A sync that failed made nothing sure.
                for (inode, covered) in self.syncs.remove(&index).unwrap_or_default() {
                    if well {
                        self.disk.sync_ends(inode, &covered);
                    }
                }
                Ok(())
            }
            _ if !well => Ok(()),
            "read" | "readv" => {
                let read = usize::try_from(call.returned.unwrap_or(0)).unwrap_or(0);
                match self.description(call)? {
                    Some(open) => self.descriptions[open].position += read,
                    None => self.received(call),
                }
                Ok(())
            }
            "recvfrom" | "recvmsg" => {
                self.received(call);
                Ok(())
            }
            "open" | "openat" | "creat" => self.open(call),
            "openat2" => self.refuse_below_root(call, "openat2 is not followed"),
            "close" => {
                let (fd, _) = number(call, 0)?;
                self.descriptors.remove(&fd);
                Ok(())
            }
            "dup" | "dup2" | "dup3" => self.duplicate(call),
            "fcntl" if call.args.get(1).is_some_and(|a| a.starts_with("F_DUPFD")) => {
                self.duplicate(call)
            }
            "lseek" => {
                if let Some(open) = self.description(call)? {
                    self.descriptions[open].position =
                        usize::try_from(call.returned.unwrap_or(0)).unwrap_or(0);
                }
                Ok(())
            }
            "ftruncate" => {
                if let Some(inode) = self.open_inode(call)? {
                    self.disk.resize(inode, integer(call, 1)?);
                }
                Ok(())
            }
            "truncate" => match self.below_root(&path(call, 0, None)?) {
                Some(name) => {
                    let inode = self.known(&name)?;
                    self.disk.resize(inode, integer(call, 1)?);
                    Ok(())
                }
                None => Ok(()),
            },
            "fallocate" => self.allocate(call),
            "rename" => self.rename(path(call, 0, None)?, path(call, 1, None)?),
            "renameat" | "renameat2" => {
                self.rename(path(call, 1, Some(0))?, path(call, 3, Some(2))?)
            }
            "link" => self.link(path(call, 0, None)?, path(call, 1, None)?),
            "linkat" => self.link(path(call, 1, Some(0))?, path(call, 3, Some(2))?),
            "unlink" | "rmdir" => self.unlink(path(call, 0, None)?),
            "unlinkat" => self.unlink(path(call, 1, Some(0))?),
            "mkdir" => self.make_folder(path(call, 0, None)?),
            "mkdirat" => self.make_folder(path(call, 1, Some(0))?),
            "mmap" => {
                let arg = |n: usize| call.args.get(n).map_or("", String::as_str);
                let writes = arg(2).contains("PROT_WRITE") && arg(3).contains("MAP_SHARED");
                if writes && descriptor(arg(4)).is_some_and(|(_, p)| self.below_root(&p).is_some())
                {
                    return Err("a shared writable mapping: its stores cannot be seen".into());
                }
                Ok(())
            }
            "io_uring_setup" => Err("io_uring: its writes cannot be seen".into()),
            "copy_file_range" | "sendfile" | "splice" | "symlink" | "symlinkat" => {
                self.refuse_below_root(call, "this call is not followed")
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, index: usize, call: &Call) -> Result<(), String> {
        // One that failed wrote nothing; one that never came back may have written all.
        if call.returned.is_some_and(|r| r < 0) {
            return Ok(());
        }
        let Some(open) = self.description(call)? else {
            self.sent(call);
            return Ok(());
        };
        let mut data = bytes(&call.args[1]);
        if let Some(written) = call.returned {
            data.truncate(usize::try_from(written).unwrap_or(0));
        }
        let inode = self.descriptions[open].inode;
        let positioned = call.name.starts_with('p');
        let at = if self.descriptions[open].append {
            self.disk.len(inode)
        } else if positioned {
            integer(call, 3)?
        } else {
            self.descriptions[open].position
        };
        if !positioned {
            self.descriptions[open].position = at + data.len();
        }
        let flags = call.args.get(4).map_or("", String::as_str);
        let synced = self.descriptions[open].synced || flags.contains("SYNC");
        let order = self.disk.write(inode, at, data);
        self.writes.insert(index, (inode, order, synced));
        Ok(())
    }

    fn open(&mut self, call: &Call) -> Result<(), String> {
        let (name, flags) = if call.name == "openat" {
            (path(call, 1, Some(0))?, 2)
        } else {
            (path(call, 0, None)?, 1)
        };
        let (fd, landed) = returned_descriptor(call)?;
        let Some(name) = self.below_root(&name) else {
            // Nothing of ours; but the number may have stood for a file of ours that was closed unseen.
            self.descriptors.remove(&fd);
            return match self.below_root(&landed) {
                Some(_) => Err(format!("{landed} was opened by another name")),
                None => Ok(()),
            };
        };
        let flags = match call.name.as_str() {
            "creat" => "O_WRONLY|O_CREAT|O_TRUNC",
            _ => call.args.get(flags).map_or("", String::as_str),
        };
        let inode = match self.disk.find(&name) {
            Some(inode) => {
                if flags.contains("O_TRUNC") {
                    self.disk.resize(inode, 0);
                }
                inode
            }
            None if flags.contains("O_CREAT") => self.disk.create(&name)?,
            None => return Err(format!("{name} was opened and had never been made")),
        };
        self.descriptions.push(Description {
            inode,
            position: 0,
            append: flags.contains("O_APPEND"),
            synced: flags.contains("SYNC"),
        });
        self.descriptors.insert(fd, self.descriptions.len() - 1);
        Ok(())
    }

    fn duplicate(&mut self, call: &Call) -> Result<(), String> {
        let (new, _) = returned_descriptor(call)?;
        match self.description(call)? {
            Some(open) => self.descriptors.insert(new, open),
            None => self.descriptors.remove(&new),
        };
        Ok(())
    }

    fn allocate(&mut self, call: &Call) -> Result<(), String> {
        let Some(inode) = self.open_inode(call)? else {
            return Ok(());
        };
        match call.args[1].as_str() {
            "0" => {
                let end = integer(call, 2)? + integer(call, 3)?;
                if end > self.disk.len(inode) {
                    self.disk.resize(inode, end);
                }
                Ok(())
            }
            "FALLOC_FL_KEEP_SIZE" => Ok(()),
            mode => Err(format!("mode {mode} is not followed")),
        }
    }

    fn rename(&mut self, from: String, to: String) -> Result<(), String> {
        match (self.below_root(&from), self.below_root(&to)) {
            (Some(from), Some(to)) => self.disk.rename(&from, &to),
            (None, None) => Ok(()),
            _ => Err(format!("{from} to {to} crosses the edge of what is played")),
        }
    }

    fn link(&mut self, from: String, to: String) -> Result<(), String> {
        match (self.below_root(&from), self.below_root(&to)) {
            (Some(from), Some(to)) => self.disk.link(&from, &to),
            (None, None) => Ok(()),
            _ => Err(format!("{from} to {to} crosses the edge of what is played")),
        }
    }

    fn unlink(&mut self, name: String) -> Result<(), String> {
        match self.below_root(&name) {
            Some(name) => self.disk.unlink(&name),
            None => Ok(()),
        }
    }

    fn make_folder(&mut self, name: String) -> Result<(), String> {
        match self.below_root(&name) {
            Some(name) => self.disk.make_folder(&name),
            None => Ok(()),
        }
    }

    fn sent(&mut self, call: &Call) {
        if let (Some((_, socket)), Some(data)) = (
            call.args.first().and_then(|a| descriptor(a)),
            call.args.get(1),
        ) && socket.starts_with("TCP")
        {
            let mut data = bytes(data);
            if let Some(sent) = call.returned {
                data.truncate(usize::try_from(sent).unwrap_or(0));
            }
            self.conversation.sent(&socket, &data);
        }
    }

    fn received(&mut self, call: &Call) {
        if let (Some((_, socket)), Some(data)) = (
            call.args.first().and_then(|a| descriptor(a)),
            call.args.get(1),
        ) && socket.starts_with("TCP")
        {
            self.conversation.received(&socket, &bytes(data));
        }
    }

    /// What the call's first argument is open on, if it is below the root.
    fn description(&self, call: &Call) -> Result<Option<usize>, String> {
        let (fd, name) = number(call, 0)?;
        let open = self.descriptors.get(&fd).copied();
        match (open, self.below_root(&name)) {
            (Some(open), Some(name)) => {
                // The kernel's word for where this file lies now must be ours. It lags for a file that
                // has lost its name.
                let expected = self.descriptions[open].inode;
                let deleted = call.args[0].contains("(deleted)");
                if !deleted && self.disk.find(&name) != Some(expected) {
                    return Err(format!("lost track: {name} is not inode {expected}"));
                }
                Ok(Some(open))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("lost track: {fd} is now {name}")),
            (None, Some(name)) => Err(format!("lost track: {name} was opened unseen")),
        }
    }

    fn open_inode(&self, call: &Call) -> Result<Option<Inode>, String> {
        Ok(self.description(call)?.map(|d| self.descriptions[d].inode))
    }

    fn known(&self, name: &str) -> Result<Inode, String> {
        self.disk
            .find(name)
            .ok_or_else(|| format!("{name}: unknown"))
    }

    fn refuse_below_root(&self, call: &Call, why: &str) -> Result<(), String> {
        let ours = call.args.iter().any(|a| {
            let quoted = String::from_utf8_lossy(&bytes(a)).into_owned();
            let open = descriptor(a).map(|(_, name)| name).unwrap_or_default();
            self.below_root(&quoted).is_some() || self.below_root(&open).is_some()
        });
        if ours { Err(why.to_owned()) } else { Ok(()) }
    }

    /// The part of a path below the root (`""` for the root itself).
    fn below_root(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.root)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_end_matches('/').to_owned())
    }
}

fn number(call: &Call, arg: usize) -> Result<(i32, String), String> {
    call.args
        .get(arg)
        .and_then(|a| descriptor(a))
        .ok_or_else(|| format!("argument {arg} of {:?} is no descriptor", call.args))
}

fn returned_descriptor(call: &Call) -> Result<(i32, String), String> {
    let value = call.returned.unwrap_or(-1);
    descriptor(&format!("{value}{}", call.returned_text)).ok_or_else(|| "no descriptor".to_owned())
}

fn integer(call: &Call, arg: usize) -> Result<usize, String> {
    call.args
        .get(arg)
        .and_then(|a| a.parse().ok())
        .ok_or_else(|| format!("argument {arg} of {:?} is no number", call.args))
}

/// A path argument made absolute: by its folder's descriptor, which strace names.
fn path(call: &Call, arg: usize, folder: Option<usize>) -> Result<String, String> {
    let given = call
        .args
        .get(arg)
        .map(|a| String::from_utf8_lossy(&bytes(a)).into_owned())
        .ok_or_else(|| format!("no argument {arg}"))?;
    match folder {
        _ if given.starts_with('/') => Ok(given),
        Some(folder) => Ok(format!("{}/{given}", number(call, folder)?.1)),
        // Relative to the working directory, which strace does not name here: the traced program is
        // started in `/`.
        None => Ok(format!("/{given}")),
    }
}
