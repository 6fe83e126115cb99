//! Segment and log files: reading their blocks, finding the way through damage, and the footer.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::block::stats::Stats;
use super::block::{self, HEADER_BYTES, Header, MAX_BLOCK_BYTES};
use super::cursor::{Cursor, Malformed, matches, put_varint};
use super::damage::Loss;
use super::file::{FILE_HEADER_BYTES, check_header};

const FOOTER_MAGIC: [u8; 8] = *b"\x89TRKFTR\n";
/// Length, CRC32C, magic.
const TRAILER_BYTES: u64 = 16;
/// Largest footer that is read (bytes): a segment of 64 MiB needs about 100 KiB.
const MAX_FOOTER_BYTES: u64 = 64 * 1024 * 1024;
/// How much of a file is held while scanning it (bytes), unless one block is larger.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Where a block stands and what it holds.
#[derive(Clone, Debug)]
pub(super) struct BlockMeta {
    pub offset: u64,
    pub header: Header,
    pub stats: Stats,
}

/// A segment's file and its blocks, in order.
pub(super) struct Handle {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub blocks: Arc<[Arc<BlockMeta>]>,
}

impl Handle {
    /// The first block that ends behind `seq`.
    pub fn block_at(&self, seq: u64) -> Option<&Arc<BlockMeta>> {
        self.blocks
            .get(self.blocks.partition_point(|b| b.header.end_seq() <= seq))
    }

    /// The block's bytes, checked. The inner error is damage.
    pub fn read(&self, meta: &BlockMeta) -> Result<Result<Vec<u8>, Malformed>, Error> {
        let mut bytes = vec![0; meta.header.bytes()];
        match self.file.read_exact_at(&mut bytes, meta.offset) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Err(Malformed("the file ends within the block")));
            }
            // A sector that cannot be read is damage like any other; the rest is served.
            Err(e) if rustix::io::Errno::from_io_error(&e) == Some(rustix::io::Errno::IO) => {
                return Ok(Err(Malformed("the device cannot read the block")));
            }
            Err(e) => return Err(Error::io("read", &self.path, e)),
        }
        if Header::read(&bytes) != Ok(meta.header) {
            return Ok(Err(Malformed(
                "the block's header is not the one it was written with",
            )));
        }
        Ok(meta.header.check(&bytes).map(|_| bytes))
    }

    /// Names the loss of `meta`.
    pub fn loss(&self, meta: &BlockMeta, reason: &Malformed) -> Loss {
        let at = meta.offset..meta.offset + meta.header.bytes() as u64;
        let mut loss = Loss::new(&self.path, at, reason.to_string()).of(&meta.stats);
        loss.seqs = Some(meta.header.first_seq..meta.header.end_seq());
        loss
    }
}

/// One segment of a journal.
pub(super) struct Segment {
    pub first_seq: u64,
    pub end_seq: u64,
    pub path: PathBuf,
    pub bytes: u64,
    /// Of all its blocks.
    pub stats: Stats,
    /// Held for segments without a footer; sealed ones are opened when read.
    pub held: Option<Arc<Handle>>,
}

impl Segment {
    pub fn new(
        first_seq: u64,
        path: PathBuf,
        bytes: u64,
        handle: Arc<Handle>,
        sealed: bool,
    ) -> Segment {
        let mut stats = Stats::default();
        for b in handle.blocks.iter() {
            stats.merge(&b.stats);
        }
        Segment {
            first_seq,
            end_seq: handle
                .blocks
                .last()
                .map_or(first_seq, |b| b.header.end_seq()),
            path,
            bytes,
            stats,
            held: (!sealed).then_some(handle),
        }
    }

    pub fn open(&self) -> Result<Arc<Handle>, Error> {
        if let Some(held) = &self.held {
            return Ok(held.clone());
        }
        let file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        match read_footer(&file).map_err(|e| Error::io("read", &self.path, e))? {
            Some(blocks) => Ok(Arc::new(Handle {
                file: Arc::new(file),
                path: self.path.clone(),
                blocks,
            })),
            // It was whole when the journal was opened.
            None => {
                let blocks =
                    scan(&file, &self.path, self.first_seq..u64::MAX, &mut |_, _| {})?.blocks;
                Ok(Arc::new(Handle {
                    file: Arc::new(file),
                    path: self.path.clone(),
                    blocks: blocks.into(),
                }))
            }
        }
    }
}

/// The footer of `blocks`: where each stands and what it holds.
pub(super) fn footer(blocks: &[Arc<BlockMeta>]) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, blocks.len() as u64);
    for b in blocks {
        put_varint(&mut body, b.offset);
        body.extend_from_slice(&b.header.to_bytes());
        b.stats.encode(b.header.first_seq, &mut body);
    }
    let len = (body.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c(&body).to_le_bytes();
    [
        &FOOTER_MAGIC[..],
        &len,
        &crc,
        &body,
        &len,
        &crc,
        &FOOTER_MAGIC,
    ]
    .concat()
}

/// The blocks as the footer lists them; `None` if there is no footer or it is damaged.
pub(super) fn read_footer(file: &File) -> io::Result<Option<Arc<[Arc<BlockMeta>]>>> {
    let bytes = file.metadata()?.len();
    if bytes < FILE_HEADER_BYTES + 2 * TRAILER_BYTES {
        return Ok(None);
    }
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.read_exact_at(&mut trailer, bytes - TRAILER_BYTES)?;
    let mut c = Cursor(&trailer);
    let parts = (|| Ok::<_, Malformed>((c.array::<4>()?, c.array::<4>()?, c.array::<8>()?)))();
    let Ok((len, crc, FOOTER_MAGIC)) = parts else {
        return Ok(None);
    };
    let len = u64::from(u32::from_le_bytes(len));
    if len > MAX_FOOTER_BYTES || len + 2 * TRAILER_BYTES + FILE_HEADER_BYTES > bytes {
        return Ok(None);
    }
    let mut body = vec![0; len as usize];
    file.read_exact_at(&mut body, bytes - TRAILER_BYTES - len)?;
    if !matches(&body, u32::from_le_bytes(crc)) {
        return Ok(None);
    }
    let mut c = Cursor(&body);
    let parse = |c: &mut Cursor| -> Result<Vec<Arc<BlockMeta>>, Malformed> {
        let n = c.count(body.len() / HEADER_BYTES)?;
        (0..n)
            .map(|_| {
                let offset = c.varint()?;
                let header = Header::read(c.take(HEADER_BYTES)?)?;
                let stats = Stats::decode(header.first_seq, c)?;
                Ok(Arc::new(BlockMeta {
                    offset,
                    header,
                    stats,
                }))
            })
            .collect()
    };
    Ok(parse(&mut c).ok().map(Into::into))
}

/// A file, seen through a window that moves forward.
struct Window<'a> {
    file: &'a File,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Up to `n` bytes at `offset`, fewer at the end of the file.
    fn get(&mut self, offset: u64, n: usize) -> io::Result<&[u8]> {
        let n = n.min(self.len.saturating_sub(offset) as usize);
        let have = self.start..self.start + self.bytes.len() as u64;
        if offset < have.start || offset + n as u64 > have.end {
            let size = n.max(WINDOW_BYTES.min((self.len - offset) as usize));
            self.bytes.resize(size, 0);
            self.start = offset;
            if let Err(e) = self.file.read_exact_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(e);
            }
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at..at + n])
    }
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its last block, or a footer.
    Clean,
    /// In the middle of a write that was never acknowledged.
    Torn,
}

/// What a scan found.
pub(super) struct Scan {
    pub blocks: Vec<Arc<BlockMeta>>,
    /// The damaged stretches, in order, each with its bytes' range.
    pub losses: Vec<(Range<u64>, Loss)>,
    /// Where the last whole (or damaged, but not torn) block ends: where writing may go on.
    pub end_offset: u64,
    pub end: End,
    /// Reading stopped at a footer.
    pub footer: bool,
}

/// What damage to the last segment, or the last log, is no loss.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Harmless {
    /// Where the logs begin: what moved into the segment from there on may have been on its way when the power
    /// went, and stands in them.
    pub in_logs_from: Option<u64>,
    /// Up to where records were durable: what was on its way behind it was never acknowledged.
    pub durable_until: Option<u64>,
}

impl Scan {
    /// Takes for a write that tore what is damaged and yet no loss. Sectors reach a disk in any order, so that
    /// such a write may leave anything, not just a part from its beginning on.
    pub fn pass_over(&mut self, harmless: Harmless) {
        let starts_at = |loss: &Loss| loss.seqs.as_ref().map_or(0, |seqs| seqs.start);
        if let Some(logs) = harmless.in_logs_from
            && let Some(from) = (self.losses.iter())
                .position(|(at, loss)| at.start >= FILE_HEADER_BYTES && starts_at(loss) >= logs)
        {
            // Blocks of the same move that arrived whole stand in the logs as well.
            let end = self.losses[from].0.start;
            self.losses.truncate(from);
            self.blocks.retain(|block| block.offset < end);
            (self.end_offset, self.end, self.footer) = (end, End::Torn, false);
        }
        while let Some(durable) = harmless.durable_until
            && let Some((at, loss)) = self.losses.last()
            && at.start >= FILE_HEADER_BYTES
            && at.end == self.end_offset
            && starts_at(loss) >= durable
        {
            (self.end_offset, self.end) = (at.start, End::Torn);
            self.losses.pop();
        }
    }
}

/// Reads a file's blocks from front to back, holding each against its checksums. `seqs` runs from the
/// file's first sequence number to that of the file after it: what lies behind is superseded and
/// passed over.
pub(super) fn scan(
    file: &File,
    path: &Path,
    seqs: Range<u64>,
    visit: &mut dyn FnMut(&Arc<BlockMeta>, &[u8]),
) -> Result<Scan, Error> {
    let len = file
        .metadata()
        .map_err(|e| Error::io("stat", path, e))?
        .len();
    let mut scanner = Scanner {
        window: Window {
            file,
            len,
            start: 0,
            bytes: Vec::new(),
        },
        path,
        limit: seqs.end,
        out: Scan {
            blocks: Vec::new(),
            losses: Vec::new(),
            end_offset: FILE_HEADER_BYTES.min(len),
            end: End::Clean,
            footer: false,
        },
    };
    scanner.run(visit)?;
    let mut out = scanner.out;
    name(&mut out, seqs);
    Ok(out)
}

struct Scanner<'a> {
    window: Window<'a>,
    path: &'a Path,
    limit: u64,
    out: Scan,
}

impl Scanner<'_> {
    fn get(&mut self, offset: u64, n: usize) -> Result<&[u8], Error> {
        self.window
            .get(offset, n)
            .map_err(|e| Error::io("read", self.path, e))
    }

    fn run(&mut self, visit: &mut dyn FnMut(&Arc<BlockMeta>, &[u8])) -> Result<(), Error> {
        let (path, len) = (self.path, self.window.len);
        let mut offset = FILE_HEADER_BYTES;
        let head = self.get(0, FILE_HEADER_BYTES as usize)?.to_vec();
        if len < FILE_HEADER_BYTES || head.iter().all(|b| *b == 0) {
            self.out.end = End::Torn;
            self.out.end_offset = 0;
            if len <= FILE_HEADER_BYTES {
                return Ok(());
            }
        } else if let Err(reason) = check_header(path, &head)? {
            // The name says what the header said. Nothing but the header is lost.
            let at = 0..FILE_HEADER_BYTES;
            let mut loss = Loss::new(path, at.clone(), reason.to_string());
            loss.seqs = Some(0..0);
            self.out.losses.push((at, loss));
        }
        while offset < len {
            offset = match Header::read(self.get(offset, HEADER_BYTES)?) {
                Ok(header) if offset + header.bytes() as u64 > len => {
                    match self.next_block(offset + 1)? {
                        // Its length is whole (it has a checksum), so the file was cut within it.
                        None => {
                            self.out.end = End::Torn;
                            return Ok(());
                        }
                        Some(next) => self.lose(offset..next, Some(header), "cut off")?,
                    }
                }
                Ok(header) => self.block(offset, header, visit)?,
                Err(reason) => {
                    let rest = (len - offset) as usize;
                    let start = self.get(offset, 8.min(rest))?;
                    if start == FOOTER_MAGIC {
                        self.out.footer = true;
                        self.out.end = End::Clean;
                        return Ok(());
                    }
                    match self.next_block(offset + 1)? {
                        Some(next) => self.lose(offset..next, None, reason.0)?,
                        None if rest < HEADER_BYTES || self.zero_from(offset)? => {
                            self.out.end = End::Torn;
                            return Ok(());
                        }
                        None => self.lose(offset..len, None, reason.0)?,
                    }
                }
            };
            self.out.end = End::Clean;
            self.out.end_offset = offset;
        }
        Ok(())
    }

    fn block(
        &mut self,
        offset: u64,
        header: Header,
        visit: &mut dyn FnMut(&Arc<BlockMeta>, &[u8]),
    ) -> Result<u64, Error> {
        let next = offset + header.bytes() as u64;
        let limit = self.limit;
        let bytes = self.get(offset, header.bytes())?;
        match header.check(bytes) {
            Ok(stats) => {
                let meta = Arc::new(BlockMeta {
                    offset,
                    header,
                    stats,
                });
                let after = self.out.blocks.last().map_or(0, |b| b.header.end_seq());
                if header.first_seq < limit && header.first_seq >= after {
                    let bytes = self.window.get(offset, header.bytes());
                    visit(&meta, bytes.map_err(|e| Error::io("read", self.path, e))?);
                    self.out.blocks.push(meta);
                }
                Ok(next)
            }
            Err(_) if header.first_seq >= limit => Ok(next),
            Err(reason) => self.lose(offset..next, Some(header), reason.0),
        }
    }

    fn lose(&mut self, at: Range<u64>, header: Option<Header>, why: &str) -> Result<u64, Error> {
        let mut loss = Loss::new(self.path, at.clone(), why);
        if let Some(header) = header {
            let directory = HEADER_BYTES + header.directory_bytes as usize;
            let bytes = self.get(at.start, directory)?;
            if let Ok(stats) = header.stats(bytes) {
                loss = loss.of(&stats);
            }
            loss.seqs = Some(header.first_seq..header.end_seq());
        }
        self.out.losses.push((at.clone(), loss));
        Ok(at.end)
    }

    /// The next offset at which a block's header (or the footer) stands whole.
    fn next_block(&mut self, mut from: u64) -> Result<Option<u64>, Error> {
        let len = self.window.len;
        while from + 8 <= len {
            let bytes = self.get(from, WINDOW_BYTES / 2)?;
            let found = bytes
                .windows(8)
                .position(|w| w == block::MAGIC || w == FOOTER_MAGIC);
            match found {
                None => from += bytes.len() as u64 - 7,
                Some(at) => {
                    let at = from + at as u64;
                    let head = self.get(at, HEADER_BYTES)?;
                    if head.starts_with(&FOOTER_MAGIC) || Header::read(head).is_ok() {
                        return Ok(Some(at));
                    }
                    from = at + 1;
                }
            }
        }
        Ok(None)
    }

    fn zero_from(&mut self, mut from: u64) -> Result<bool, Error> {
        while from < self.window.len {
            let bytes = self.get(from, WINDOW_BYTES)?;
            if bytes.iter().any(|b| *b != 0) {
                return Ok(false);
            }
            from += bytes.len() as u64;
        }
        Ok(true)
    }
}

/// How far sequence numbers jump where a journal's end is damaged beyond telling how many entries
/// stood there: more than any reader can have seen.
const SEQ_JUMP: u64 = 1 << 20;

/// Names losses whose own words are gone by what stands around them.
fn name(scan: &mut Scan, seqs: Range<u64>) {
    for (at, loss) in &mut scan.losses {
        let split = scan.blocks.partition_point(|b| b.offset < at.start);
        let before = split.checked_sub(1).and_then(|i| scan.blocks.get(i));
        let after = scan.blocks.get(split);
        if loss.seqs.is_none() {
            let start = before.map_or(seqs.start, |b| b.header.end_seq());
            let end = match (after, seqs.end) {
                (Some(after), _) => after.header.first_seq,
                (None, u64::MAX) => start.saturating_add(SEQ_JUMP),
                (None, limit) => limit,
            };
            loss.seqs = Some(start..end.max(start));
        }
        let named = loss.clone();
        *loss = named.between(before.map(|b| &b.stats), after.map(|b| &b.stats));
    }
}

/// The bytes of a damaged stretch, as many as a block may have.
pub(super) fn damaged_bytes(file: &File, at: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; ((at.end - at.start) as usize).min(MAX_BLOCK_BYTES)];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at.start + read as u64) {
            Ok(0) | Err(_) => break,
            Ok(n) => read += n,
        }
    }
    bytes.truncate(read);
    bytes
}
