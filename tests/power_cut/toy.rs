//! Toy daemons that take messages over MQTT, write them down and acknowledge them: two that are right, and
//! six that are wrong in the ways in which real ones are. They show that the power-cut test can fail.
//!
//! *Invariant:* a toy differs from the sound one in one line only: the one that its name says.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::support::mqtt::{puback_packet, take_publishes};

/// Entries in a file before the next is begun.
const ENTRIES_PER_FILE: usize = 8;

/// How a toy keeps what it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toy {
    /// Appends, syncs the file, syncs the folder of a new file, then acknowledges.
    SoundLog,
    /// Writes the whole anew beside the old, syncs it, renames it, syncs the folder, then acknowledges.
    SoundRename,
    NeverSyncs,
    AcknowledgesBeforeItSyncs,
    /// A new file's name is never made sure.
    ForgetsTheFolder,
    /// The classic: `rename` over the old file before the new one's bytes are sure.
    RenamesBeforeItSyncs,
    /// The old is cut to nothing before the new is sure.
    RewritesInPlace,
    /// Each entry goes down twice: the reader must notice.
    WritesTwice,
}

impl Toy {
    pub const ALL: [Toy; 8] = [
        Toy::SoundLog,
        Toy::SoundRename,
        Toy::NeverSyncs,
        Toy::AcknowledgesBeforeItSyncs,
        Toy::ForgetsTheFolder,
        Toy::RenamesBeforeItSyncs,
        Toy::RewritesInPlace,
        Toy::WritesTwice,
    ];

    pub fn is_sound(self) -> bool {
        matches!(self, Toy::SoundLog | Toy::SoundRename)
    }

    pub fn named(name: &str) -> Option<Toy> {
        Self::ALL.into_iter().find(|t| format!("{t:?}") == name)
    }

    /// Takes `count` messages from `broker` into `folder`.
    pub fn run(self, folder: &Path, broker: &str, count: usize) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(broker)?;
        let mut stream = Vec::new();
        let mut taken = 0;
        let mut kept: Vec<u8> = Vec::new();
        while taken < count {
            let mut buffer = [0; 4096];
            let read = socket.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            stream.extend_from_slice(&buffer[..read]);
            for (id, payload) in take_publishes(&mut stream) {
                let entry = entry(&payload);
                kept.extend(&entry);
                if self == Toy::AcknowledgesBeforeItSyncs {
                    socket.write_all(&puback_packet(id))?;
                }
                match self {
                    Toy::SoundRename | Toy::RenamesBeforeItSyncs => self.replace(folder, &kept)?,
                    Toy::RewritesInPlace => {
                        let mut file = File::create(folder.join("all"))?;
                        sync_folder(folder)?;
                        file.write_all(&kept)?;
                        file.sync_all()?;
                    }
                    _ => self.append(folder, taken / ENTRIES_PER_FILE, &entry)?,
                }
                if self != Toy::AcknowledgesBeforeItSyncs {
                    socket.write_all(&puback_packet(id))?;
                }
                taken += 1;
            }
        }
        Ok(())
    }

    fn append(self, folder: &Path, file: usize, entry: &[u8]) -> std::io::Result<()> {
        let path = folder.join(format!("log-{file:04}"));
        let is_new = !path.exists();
        let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
        if is_new && self != Toy::ForgetsTheFolder {
            sync_folder(folder)?;
        }
        log.write_all(entry)?;
        if self == Toy::WritesTwice {
            log.write_all(entry)?;
        }
        if self != Toy::NeverSyncs {
            log.sync_data()?;
        }
        Ok(())
    }

    fn replace(self, folder: &Path, kept: &[u8]) -> std::io::Result<()> {
        let fresh = folder.join("all.new");
        let mut file = File::create(&fresh)?;
        file.write_all(kept)?;
        if self != Toy::RenamesBeforeItSyncs {
            file.sync_all()?;
        }
        fs::rename(&fresh, folder.join("all"))?;
        sync_folder(folder)
    }
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Length, checksum, payload.
fn entry(payload: &[u8]) -> Vec<u8> {
    let mut entry = u32::try_from(payload.len())
        .expect("a short payload")
        .to_le_bytes()
        .to_vec();
    entry.extend(crc32c::crc32c(payload).to_le_bytes());
    entry.extend(payload);
    entry
}

/// What a toy's folder still holds; reading stops at the first entry of a file that is not whole.
pub fn survivors(folder: &Path) -> Result<Vec<Vec<u8>>, String> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|e| e.to_string())?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_none())
        .collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let bytes = fs::read(&file).map_err(|e| e.to_string())?;
        let mut rest = &bytes[..];
        while let Some((head, tail)) = rest.split_at_checked(8) {
            let (len, checksum) = head.split_at(4);
            let number = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes"));
            let Some((payload, after)) = tail.split_at_checked(number(len) as usize) else {
                break;
            };
            if number(len) == 0 || crc32c::crc32c(payload) != number(checksum) {
                break;
            }
            found.push(payload.to_vec());
            rest = after;
        }
    }
    Ok(found)
}
