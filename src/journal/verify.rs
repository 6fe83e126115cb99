//! Verify: every byte held against its checksums, beside a running daemon if need be. Repair: what is
//! damaged put aside, what is whole written anew, the index rebuilt.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::block::{Body, KindSet};
use super::damage::{Loss, explained, known, quarantine};
use super::file::{self, FILE_HEADER_BYTES, LOG, SEGMENT, list, sync_dir};
use super::recovery::CUT_SHORT;
use super::segment::{BlockMeta, End, Handle, Harmless, damaged_bytes, footer, read_footer, scan};
use super::writer::lock_dir;
use super::{Bookmark, Error, Journal, Options, Progress};

/// How long a write that is under way is given to end before it is called damage.
const IN_FLIGHT: Duration = Duration::from_millis(300);

/// One file, as found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileReport {
    pub file: String,
    pub bytes: u64,
    /// Has a footer that holds. The last segment gets it when it is full or its session is over (a daemon that
    /// stops leaves it to the next one), logs never.
    pub sealed: bool,
    pub first_seq: u64,
    pub end_seq: u64,
    pub blocks: u64,
    /// Whole ones.
    pub entries: u64,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub files: Vec<FileReport>,
    /// What is damaged.
    pub damage: Vec<Loss>,
    /// Sequence numbers that an earlier repair put aside.
    pub known_losses: Vec<Range<u64>>,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A file's whole blocks and what is wrong with the rest.
struct Checked {
    file: File,
    sealed: bool,
    blocks: Vec<Arc<BlockMeta>>,
    losses: Vec<(Range<u64>, Loss)>,
    end: End,
    /// Where its last block ends.
    end_offset: u64,
    len: u64,
}

fn check(listed: &Listed) -> Result<Checked, Error> {
    let (path, seqs) = (&*listed.path, listed.seqs.clone());
    let harmless = listed.harmless;
    let file = match &listed.log {
        Some(log) => log.try_clone(),
        None => File::open(path),
    };
    let file = file.map_err(|e| Error::io("open", path, e))?;
    let len = (file.metadata().map_err(|e| Error::io("stat", path, e))?).len();
    let listed = read_footer(&file).map_err(|e| Error::io("read", path, e))?;
    let Some(blocks) = listed else {
        let mut undecodable = Vec::new();
        let mut found = scan(&file, path, seqs, &mut |meta, bytes| {
            if let Err(why) = Body::open(meta.header, bytes).and_then(|b| b.entries(KindSet::ALL)) {
                undecodable.push((meta.clone(), why));
            }
        })?;
        found.pass_over(harmless);
        for (meta, why) in undecodable {
            let at = meta.offset..meta.offset + meta.header.bytes() as u64;
            let mut loss = Loss::new(path, at.clone(), why.to_string()).of(&meta.stats);
            loss.seqs = Some(meta.header.first_seq..meta.header.end_seq());
            found.blocks.retain(|b| b.offset != meta.offset);
            found.losses.push((at, loss));
        }
        if found.footer {
            let at = found.end_offset..len;
            let mut loss = Loss::new(path, at.clone(), "the footer is damaged");
            loss.seqs = Some(0..0);
            found.losses.push((at, loss));
        }
        return Ok(Checked {
            file,
            sealed: false,
            blocks: found.blocks,
            losses: found.losses,
            end: found.end,
            end_offset: found.end_offset,
            len,
        });
    };
    let mut losses = Vec::new();
    let mut head = [0; FILE_HEADER_BYTES as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0)
        .map_err(|e| Error::io("read", path, e))?;
    if let Err(why) = file::check_header(path, &head)? {
        let mut loss = Loss::new(path, 0..FILE_HEADER_BYTES, why.to_string());
        loss.seqs = Some(0..0);
        losses.push((0..FILE_HEADER_BYTES, loss));
    }
    let handle = Handle {
        file: Arc::new(file.try_clone().map_err(|e| Error::io("open", path, e))?),
        path: path.to_owned(),
        blocks: blocks.clone(),
    };
    let mut whole = Vec::with_capacity(blocks.len());
    for meta in blocks.iter() {
        let decoded = handle.read(meta)?.and_then(|bytes| {
            meta.header.check(&bytes)?;
            Body::open(meta.header, &bytes)?.entries(KindSet::ALL)
        });
        match decoded {
            Ok(_) => whole.push(meta.clone()),
            Err(why) => {
                let at = meta.offset..meta.offset + meta.header.bytes() as u64;
                losses.push((at, handle.loss(meta, &why)));
            }
        }
    }
    Ok(Checked {
        file,
        sealed: true,
        blocks: whole,
        losses,
        end: End::Clean,
        end_offset: len,
        len,
    })
}

/// Checks a file that may be under writing: what looks damaged at its very end is looked at twice.
fn check_patiently(listed: &Listed) -> Result<Checked, Error> {
    let found = check(listed)?;
    let at_end = |c: &Checked| !c.sealed && c.losses.iter().any(|(at, _)| at.end == c.len);
    if !at_end(&found) {
        return Ok(found);
    }
    std::thread::sleep(IN_FLIGHT);
    check(listed)
}

/// A file of the journal.
struct Listed {
    path: PathBuf,
    /// What it has room for.
    seqs: Range<u64>,
    /// A log, opened as it was listed: it is read to its end even if the daemon moves what it holds meanwhile
    /// and unlinks it. There are few of them.
    log: Option<File>,
    harmless: Harmless,
}

/// The journal's files in the order of what they hold.
fn files(dir: &Path, durable_until: Option<u64>) -> Result<Vec<Listed>, Error> {
    // Logs first, as recovery does, and for the same reason.
    let logs = (list(dir, LOG)?.into_iter())
        .map(|(first, path)| match File::open(&path) {
            Ok(log) => Ok((first, path, Some(log))),
            Err(e) => Err(Error::io("open", &path, e)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let segments = list(dir, SEGMENT)?.into_iter();
    let segments = segments.map(|(first, path)| (first, path, None));
    let in_logs_from = logs.first().map(|(first, ..)| *first);
    let mut segments: Vec<Listed> = listed(segments.collect()).collect();
    let mut logs: Vec<Listed> = listed(logs).collect();
    for (last, in_logs_from) in [(segments.last_mut(), in_logs_from), (logs.last_mut(), None)] {
        if let Some(last) = last {
            last.harmless = Harmless {
                in_logs_from,
                durable_until,
            };
        }
    }
    segments.append(&mut logs);
    Ok(segments)
}

/// Each file ends where the next one begins.
fn listed(files: Vec<(u64, PathBuf, Option<File>)>) -> impl Iterator<Item = Listed> {
    let firsts: Vec<u64> = files.iter().map(|(first, ..)| *first).collect();
    let ends = firsts.into_iter().skip(1).chain([u64::MAX]);
    (files.into_iter().zip(ends)).map(|((first, path, log), end)| Listed {
        path,
        seqs: first..end,
        log,
        harmless: Harmless::default(),
    })
}

/// Follows sequence numbers from file to file, and names what no damage explains.
struct Continuity {
    /// What comes next, if nothing is missing.
    expected: u64,
    /// Up to where records were durable.
    high_water: Option<u64>,
    known: Vec<Range<u64>>,
    /// The file that was followed last, and what is left of the write that was cut off there.
    last: Option<(PathBuf, Range<u64>)>,
}

impl Continuity {
    /// From where retention has left the journal. To be begun before the files are listed: a writer beside us
    /// moves the mark only behind what stands in them.
    fn begin(dir: &Path) -> Result<Continuity, Error> {
        Ok(Continuity {
            high_water: Bookmark::high_water(dir).read()?,
            last: None,
            expected: Bookmark::floor(dir).read()?.unwrap_or(0),
            known: known(dir),
        })
    }

    /// The records that are missing before, between and behind the blocks of a file, which has room for `seqs`.
    fn missing(&mut self, path: &Path, seqs: &Range<u64>, found: &Checked) -> Vec<Loss> {
        let lost: Vec<Range<u64>> = (found.losses.iter())
            .filter_map(|(_, l)| l.seqs.clone())
            .chain(self.known.iter().cloned())
            .collect();
        let mut missing = Vec::new();
        let mut name = |gap: Range<u64>, at: u64, why: &str| {
            if gap.is_empty() || explained(&lost, gap.clone()) {
                return;
            }
            let mut loss = Loss::new(path, at..at, why);
            loss.seqs = Some(gap);
            missing.push(loss);
        };
        name(
            self.expected..seqs.start,
            0,
            "what stood before this file is missing",
        );
        self.expected = self.expected.max(seqs.start);
        for block in &found.blocks {
            let gap = self.expected..block.header.first_seq;
            name(gap, block.offset, "records are missing before this block");
            self.expected = self.expected.max(block.header.end_seq());
        }
        for seqs in found.losses.iter().filter_map(|(_, l)| l.seqs.as_ref()) {
            self.expected = self.expected.max(seqs.end);
        }
        // The last file may end anywhere.
        if seqs.end != u64::MAX {
            name(self.expected..seqs.end, found.len, "the file is cut off");
            self.expected = self.expected.max(seqs.end);
        }
        let torn = match found.end {
            End::Torn => found.end_offset..found.len,
            End::Clean => found.len..found.len,
        };
        // A log that was spent tells nothing of the end.
        if !torn.is_empty() || !found.blocks.is_empty() || self.last.is_none() {
            self.last = Some((path.to_owned(), torn));
        }
        missing
    }

    /// The records that are missing behind the last file.
    fn missing_end(&self, dir: &Path) -> Option<Loss> {
        let gap = self.expected..self.high_water.unwrap_or(0).max(self.expected);
        if gap.is_empty() || explained(&self.known, gap.clone()) {
            return None;
        }
        let (path, at) = match &self.last {
            Some((path, torn)) => (&**path, torn.clone()),
            None => (dir, 0..0),
        };
        let mut loss = Loss::new(path, at, CUT_SHORT);
        loss.seqs = Some(gap);
        Some(loss)
    }
}

/// Holds every block of the journal in `dir` against its checksums, and decodes it. Changes nothing.
pub fn verify(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    /// How often to begin anew when retention removes a segment, or the daemon a log between its listing and its
    /// opening.
    const TRIES: usize = 10;
    let mut tries = 0;
    loop {
        tries += 1;
        match verify_once(dir, progress) {
            Err(Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound
                    && tries < TRIES
                    && dir.exists() => {}
            other => return other,
        }
    }
}

fn verify_once(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    let mut continuity = Continuity::begin(dir)?;
    let files = files(dir, continuity.high_water)?;
    let mut report = Report {
        known_losses: continuity.known.clone(),
        ..Report::default()
    };
    for (i, listed) in files.iter().enumerate() {
        let (path, seqs) = (&listed.path, &listed.seqs);
        progress(Progress {
            what: "verifying",
            done: i as u64,
            of: files.len() as u64,
        });
        let found = check_patiently(listed)?;
        report.damage.extend(continuity.missing(path, seqs, &found));
        report.files.push(FileReport {
            file: path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default(),
            bytes: found.len,
            sealed: found.sealed,
            first_seq: seqs.start,
            end_seq: (found.blocks.last()).map_or(seqs.start, |b| b.header.end_seq()),
            blocks: found.blocks.len() as u64,
            entries: found.blocks.iter().map(|b| u64::from(b.header.count)).sum(),
        });
        report
            .damage
            .extend(found.losses.into_iter().map(|(_, l)| l));
    }
    report.damage.extend(continuity.missing_end(dir));
    Ok(report)
}

/// Puts damaged bytes into quarantine and records what is missing there, writes files that hold damage anew
/// without it, and rebuilds the index. The journal must not be under writing. Returns what was damaged.
pub fn repair(
    dir: &Path,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Loss>, Error> {
    let mut damage = Vec::new();
    {
        let _lock = lock_dir(dir)?;
        let mut continuity = Continuity::begin(dir)?;
        let files = files(dir, continuity.high_water)?;
        for (i, listed) in files.iter().enumerate() {
            let (path, seqs) = (&listed.path, &listed.seqs);
            progress(Progress {
                what: "repairing",
                done: i as u64,
                of: files.len() as u64,
            });
            let found = check(listed)?;
            for loss in continuity.missing(path, seqs, &found) {
                // There are no bytes of it; its name is what is kept.
                quarantine(dir, &loss, &[])?;
                damage.push(loss);
            }
            if found.losses.is_empty() {
                continue;
            }
            for (at, loss) in &found.losses {
                quarantine(dir, loss, &damaged_bytes(&found.file, at))?;
            }
            // An open end stays open: it gets no footer.
            let is_log = path.extension().is_some_and(|e| e == LOG);
            let footed = !is_log && (found.sealed || found.end == End::Clean);
            rewrite(path, seqs.start, &found, footed)?;
            damage.extend(found.losses.into_iter().map(|(_, loss)| loss));
        }
        if let Some(loss) = continuity.missing_end(dir) {
            let torn = loss.offset..loss.offset + loss.bytes;
            let bytes = match File::open(dir.join(&loss.file)) {
                Ok(file) if !torn.is_empty() => damaged_bytes(&file, &torn),
                _ => Vec::new(),
            };
            quarantine(dir, &loss, &bytes)?;
            damage.push(loss);
        }
        let index = dir.join("index");
        match std::fs::remove_dir_all(&index) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &index, e));
            }
            _ => sync_dir(dir)?,
        }
    }
    Journal::open(dir, options, progress)?.close()?;
    Ok(damage)
}

/// Writes the whole blocks of a file to another, which then takes its place.
fn rewrite(path: &Path, first_seq: u64, found: &Checked, footed: bool) -> Result<(), Error> {
    let new = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut out = std::io::BufWriter::new(File::create(&new)?);
        out.write_all(&file::header(first_seq))?;
        let (mut offset, mut blocks) = (FILE_HEADER_BYTES, Vec::new());
        for meta in &found.blocks {
            let bytes = meta.header.bytes() as u64;
            out.write_all(&damaged_bytes(
                &found.file,
                &(meta.offset..meta.offset + bytes),
            ))?;
            blocks.push(Arc::new(BlockMeta {
                offset,
                ..BlockMeta::clone(meta)
            }));
            offset += bytes;
        }
        if footed {
            out.write_all(&footer(&blocks))?;
        }
        out.into_inner()?.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|e| Error::io("rewrite", path, e))?;
    path.parent().map_or(Ok(()), sync_dir)
}
