//! A block: a run of consecutive sequence numbers over all kinds, in order of arrival.
//!
//! ```text
//!  0  magic              8   89 'TRKBLK' 0a   the marker at which reading resumes after damage
//!  8  version            1   1
//!  9  encoding           1   0 rows (small live commits), 1 columns
//! 10  zero               2
//! 12  count              4   entries
//! 16  first sequence     8
//! 24  directory bytes    4
//! 28  body bytes         4
//! 32  directory CRC32C   4
//! 36  body CRC32C        4
//! 40  header CRC32C      4   over bytes 0..40
//! 44  directory              per kind and session: count, sequences, dates, cars (see Stats)
//!  …  body                   kinds | ids | keys | one group for each kind
//! ```
//!
//! Little-endian throughout. Three checksums rather than one: a header that holds tells which
//! sequence numbers were lost even where the body did not, and a directory that holds tells whose.
//!
//! Body: the kinds as run lengths; `_id`s as steps; foreign `_key`s as a sparse list; then, in order
//! of the kinds' numbers, each group with its length in front. In a row block groups are plain rows;
//! in a column block `car_data` and `location` are columns (see [`columns`]) and all others are rows
//! packed by zstd.

pub mod columns;
mod prediction;
mod rows;
pub mod stats;

use bytes::Bytes;

use super::cursor::{Cursor, Malformed, matches, put_bytes, put_varint, put_zigzag};
use crate::record::codec::encode as encode_record;
use crate::record::{Entry, Kind, Prediction, Record, Wire};
use columns::{
    CarDataColumns, Delta, LocationColumns, put_bits, put_numbers, take_bits, take_numbers,
};
use stats::Stats;

/// Most entries in a block: 16k rows of telemetry are about 70 kB.
pub const MAX_BLOCK_ENTRIES: usize = 16_384;
/// Entries of about this much memory (bytes) fill a block, however few they are.
pub const MAX_BLOCK_MEMORY: usize = 8 * 1024 * 1024;
/// Largest block on disk (bytes). What claims more is damage.
pub const MAX_BLOCK_BYTES: usize = 64 * 1024 * 1024;

pub(super) const MAGIC: [u8; 8] = *b"\x89TRKBLK\n";
pub(super) const HEADER_BYTES: usize = 44;
const VERSION: u8 = 1;
/// A group that shrinks by less than this part is kept as it is (zstd would only cost time).
const WORTH_PACKING: f64 = 0.95;
const ZSTD_LEVEL: i32 = 3;
/// zstd on frames: their samples hardly repeat, and they come by the tens of megabytes a second.
const ZSTD_LEVEL_FRAMES: i32 = 1;
const KINDS: usize = Kind::ALL.len() + 1;

/// How a block's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Rows = 0,
    Columns = 1,
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KindSet(u32);

impl KindSet {
    pub const ALL: KindSet = KindSet(u32::MAX);

    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> KindSet {
        KindSet(kinds.into_iter().fold(0, |set, k| set | 1 << k as u8))
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 >> kind as u8 & 1 != 0
    }
}

/// The fixed head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub encoding: Encoding,
    pub count: u32,
    pub first_seq: u64,
    pub directory_bytes: u32,
    pub body_bytes: u32,
    directory_crc: u32,
    /// Stands for the block in the index's mark.
    pub body_crc: u32,
}

impl Header {
    pub fn read(bytes: &[u8]) -> Result<Header, Malformed> {
        let mut c = Cursor(
            bytes
                .get(..HEADER_BYTES)
                .ok_or(Malformed("ends too early"))?,
        );
        if c.array::<8>()? != MAGIC {
            return Err(Malformed("no block begins here"));
        }
        if !matches(&bytes[..HEADER_BYTES - 4], last_u32(&bytes[..HEADER_BYTES])) {
            return Err(Malformed("the block's header does not match its checksum"));
        }
        if c.byte()? != VERSION {
            return Err(Malformed("a block of a newer format"));
        }
        let encoding = match c.byte()? {
            0 => Encoding::Rows,
            1 => Encoding::Columns,
            _ => return Err(Malformed("a block of an unknown encoding")),
        };
        c.take(2)?;
        let mut u32 = || c.array().map(u32::from_le_bytes);
        let count = u32()?;
        let first_seq = u64::from(u32()?) | u64::from(u32()?) << 32;
        let header = Header {
            encoding,
            count,
            first_seq,
            directory_bytes: u32()?,
            body_bytes: u32()?,
            directory_crc: u32()?,
            body_crc: u32()?,
        };
        if count == 0 || count as usize > MAX_BLOCK_ENTRIES || header.bytes() > MAX_BLOCK_BYTES {
            return Err(Malformed("a block beyond its limits"));
        }
        if first_seq.checked_add(u64::from(count)).is_none() {
            return Err(Malformed("a sequence beyond 64 bits"));
        }
        Ok(header)
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        b[..8].copy_from_slice(&MAGIC);
        b[8..10].copy_from_slice(&[VERSION, self.encoding as u8]);
        b[12..16].copy_from_slice(&self.count.to_le_bytes());
        b[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        let rest = [
            self.directory_bytes,
            self.body_bytes,
            self.directory_crc,
            self.body_crc,
        ];
        for (at, v) in rest.into_iter().enumerate() {
            b[24 + 4 * at..28 + 4 * at].copy_from_slice(&v.to_le_bytes());
        }
        let crc = crc32c::crc32c(&b[..HEADER_BYTES - 4]);
        b[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Of the whole block, header and all.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.directory_bytes as usize + self.body_bytes as usize
    }

    pub fn end_seq(&self) -> u64 {
        self.first_seq + u64::from(self.count)
    }

    /// What the block says that it holds, if that part is whole. `block` begins with the header.
    pub fn stats(&self, block: &[u8]) -> Result<Stats, Malformed> {
        let bytes = block
            .get(HEADER_BYTES..HEADER_BYTES + self.directory_bytes as usize)
            .ok_or(Malformed("ends too early"))?;
        if !matches(bytes, self.directory_crc) {
            return Err(Malformed(
                "the block's directory does not match its checksum",
            ));
        }
        Stats::decode(self.first_seq, &mut Cursor(bytes))
    }

    fn body<'a>(&self, block: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let start = HEADER_BYTES + self.directory_bytes as usize;
        let bytes = block
            .get(start..start + self.body_bytes as usize)
            .ok_or(Malformed("ends too early"))?;
        if !matches(bytes, self.body_crc) {
            return Err(Malformed("the block's body does not match its checksum"));
        }
        Ok(bytes)
    }

    /// Holds directory and body against their checksums.
    pub fn check(&self, block: &[u8]) -> Result<Stats, Malformed> {
        self.body(block)?;
        self.stats(block)
    }
}

fn last_u32(bytes: &[u8]) -> u32 {
    bytes
        .last_chunk()
        .map_or(0, |last| u32::from_le_bytes(*last))
}

/// Bytes packed by zstd where that is worth it: flag, length before, bytes.
pub(super) fn pack(out: &mut Vec<u8>, bytes: &[u8]) {
    pack_at(out, bytes, ZSTD_LEVEL);
}

fn pack_at(out: &mut Vec<u8>, bytes: &[u8], level: i32) {
    match zstd::bulk::compress(bytes, level) {
        Ok(packed) if (packed.len() as f64) < bytes.len() as f64 * WORTH_PACKING => {
            out.push(1);
            put_varint(out, bytes.len() as u64);
            put_bytes(out, &packed);
        }
        _ => {
            out.push(0);
            put_bytes(out, bytes);
        }
    }
}

pub(super) fn unpack(c: &mut Cursor) -> Result<Vec<u8>, Malformed> {
    if c.byte()? == 0 {
        return Ok(c.bytes()?.to_vec());
    }
    let n = c.count(MAX_BLOCK_BYTES)?;
    let bytes = zstd::bulk::decompress(c.bytes()?, n)
        .map_err(|_| Malformed("a part that does not decompress"))?;
    if bytes.len() != n {
        return Err(Malformed("a part of the wrong length"));
    }
    Ok(bytes)
}

/// About how much memory an entry takes (bytes): what fills a block.
pub(super) fn weight(entry: &Entry) -> usize {
    let own = std::mem::size_of::<Entry>() + entry.key.as_ref().map_or(0, |k| k.len());
    own + match &entry.record {
        Record::CarData(_) | Record::Location(_) | Record::Interval(_) | Record::Position(_) => 0,
        Record::Overtake(_) | Record::StartingGrid(_) | Record::Pit(_) | Record::Weather(_) => 256,
        Record::Frame(frame) => frame.payload().len() + 128,
        Record::Prediction(p) => match &**p {
            Prediction::Race(race) => {
                256 + (race.cars.iter().map(|c| 96 + 4 * c.positions.len())).sum::<usize>()
            }
            Prediction::Pit(pit) => {
                512 + pit.reason.len()
                    + pit
                        .compounds
                        .iter()
                        .map(|c| 64 + c.compound.len())
                        .sum::<usize>()
            }
            Prediction::LapTime(_) => 256,
        },
        // These hold text of any length. They are rare, so measuring them by writing them is cheap.
        _ => 256 + encode_record(entry, Wire::Cbor).len(),
    }
}

/// Appends the block of `entries` (at most [`MAX_BLOCK_ENTRIES`], at least one) to `out`.
pub(super) fn encode<'a>(
    out: &mut Vec<u8>,
    first_seq: u64,
    entries: impl ExactSizeIterator<Item = &'a Entry> + Clone,
    encoding: Encoding,
) -> (Header, Stats) {
    let count = entries.len();
    debug_assert!((1..=MAX_BLOCK_ENTRIES).contains(&count));
    let mut stats = Stats::default();
    for (seq, entry) in (first_seq..).zip(entries.clone()) {
        stats.add(seq, entry);
    }
    let mut directory = Vec::new();
    stats.encode(first_seq, &mut directory);
    let mut body = Vec::new();
    put_kinds(&mut body, entries.clone());
    put_ids(&mut body, entries.clone(), encoding);
    put_keys(&mut body, entries.clone());
    put_groups(&mut body, entries, encoding);

    let header = Header {
        encoding,
        count: count as u32,
        first_seq,
        directory_bytes: directory.len() as u32,
        body_bytes: body.len() as u32,
        directory_crc: crc32c::crc32c(&directory),
        body_crc: crc32c::crc32c(&body),
    };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(&directory);
    out.extend_from_slice(&body);
    (header, stats)
}

fn put_kinds<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = &'a Entry>) {
    let mut runs: Vec<(Kind, u64)> = Vec::new();
    for entry in entries {
        let kind = entry.record.kind();
        match runs.last_mut() {
            Some((last, n)) if *last == kind => *n += 1,
            _ => runs.push((kind, 1)),
        }
    }
    let mut bytes = Vec::new();
    for (kind, n) in runs {
        bytes.push(kind as u8);
        put_varint(&mut bytes, n);
    }
    pack(out, &bytes);
}

fn take_kinds(c: &mut Cursor, count: usize) -> Result<Vec<(Kind, usize)>, Malformed> {
    let bytes = unpack(c)?;
    let mut c = Cursor(&bytes);
    let (mut runs, mut left) = (Vec::new(), count);
    while !c.0.is_empty() {
        let kind = Kind::from_number(c.byte()?).ok_or(Malformed("an unknown kind"))?;
        let n = c.count(left)?;
        left -= n;
        runs.push((kind, n));
    }
    match left {
        0 => Ok(runs),
        _ => Err(Malformed("fewer kinds than entries")),
    }
}

const IDS_NONE: u8 = 0;
const IDS_ALL: u8 = 1;
const IDS_SOME: u8 = 2;

fn put_ids<'a>(
    out: &mut Vec<u8>,
    entries: impl ExactSizeIterator<Item = &'a Entry> + Clone,
    encoding: Encoding,
) {
    let count = entries.len();
    let ids: Vec<i64> = entries.clone().filter_map(|e| e.id).collect();
    if ids.is_empty() {
        return out.push(IDS_NONE);
    }
    if ids.len() == count {
        out.push(IDS_ALL);
    } else {
        out.push(IDS_SOME);
        put_bits(out, entries.map(|e| e.id.is_some()));
    }
    match encoding {
        Encoding::Columns => put_numbers(out, &ids, Delta::Consecutive),
        Encoding::Rows => {
            let mut last = 0i64;
            for id in ids {
                put_zigzag(out, id.wrapping_sub(last));
                last = id;
            }
        }
    }
}

fn take_ids(
    c: &mut Cursor,
    count: usize,
    encoding: Encoding,
) -> Result<Vec<Option<i64>>, Malformed> {
    let present = match c.byte()? {
        IDS_NONE => return Ok(vec![None; count]),
        IDS_ALL => vec![true; count],
        IDS_SOME => take_bits(c, count)?,
        _ => return Err(Malformed("an unknown layout of ids")),
    };
    let n = present.iter().filter(|p| **p).count();
    let ids: Vec<i64> = match encoding {
        Encoding::Columns => take_numbers(c, n)?,
        Encoding::Rows => {
            let mut last = 0i64;
            (0..n)
                .map(|_| {
                    last = last.wrapping_add(c.zigzag()?);
                    Ok(last)
                })
                .collect::<Result<_, Malformed>>()?
        }
    };
    let mut ids = ids.into_iter();
    Ok(present
        .into_iter()
        .map(|p| if p { ids.next() } else { None })
        .collect())
}

fn skip_ids(c: &mut Cursor, header: Header) -> Result<(), Malformed> {
    let mut probe = *c;
    if probe.byte()? == IDS_ALL && header.encoding == Encoding::Columns {
        probe.bytes()?;
        *c = probe;
    } else {
        take_ids(c, header.count as usize, header.encoding)?;
    }
    Ok(())
}

fn put_keys<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = &'a Entry>) {
    let keys: Vec<(usize, &str)> = entries
        .enumerate()
        .filter_map(|(at, e)| Some((at, e.key.as_deref()?)))
        .collect();
    put_varint(out, keys.len() as u64);
    if keys.is_empty() {
        return;
    }
    let (mut bytes, mut last) = (Vec::new(), 0);
    for (at, key) in keys {
        put_varint(&mut bytes, (at - last) as u64);
        put_bytes(&mut bytes, key.as_bytes());
        last = at;
    }
    pack(out, &bytes);
}

type Keys = Vec<(usize, Box<str>)>;

fn take_keys(c: &mut Cursor, count: usize) -> Result<Keys, Malformed> {
    let n = c.count(count)?;
    if n == 0 {
        return Ok(Vec::new());
    }
    let bytes = unpack(c)?;
    let (mut c, mut at) = (Cursor(&bytes), 0usize);
    let mut keys = Vec::with_capacity(n);
    for _ in 0..n {
        at += c.count(count - 1 - at.min(count - 1))?;
        keys.push((at, c.text()?.into()));
    }
    Ok(keys)
}

fn put_groups<'a>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = &'a Entry> + Clone,
    encoding: Encoding,
) {
    let mut present = [false; KINDS];
    for entry in entries.clone() {
        present[entry.record.kind() as usize] = true;
    }
    for kind in Kind::ALL.into_iter().filter(|k| present[*k as usize]) {
        let of_kind = entries
            .clone()
            .map(|e| &e.record)
            .filter(|r| r.kind() == kind);
        let mut group = Vec::new();
        match (encoding, kind) {
            (Encoding::Columns, Kind::CarData) => {
                let rows: Vec<_> = of_kind
                    .filter_map(|r| match r {
                        Record::CarData(r) => Some(r),
                        _ => None,
                    })
                    .collect();
                CarDataColumns::put(&mut group, &rows);
            }
            (Encoding::Columns, Kind::Location) => {
                let rows: Vec<_> = of_kind
                    .filter_map(|r| match r {
                        Record::Location(r) => Some(r),
                        _ => None,
                    })
                    .collect();
                LocationColumns::put(&mut group, &rows);
            }
            _ => {
                let (mut rows, mut previous) = (Vec::new(), rows::Previous::default());
                for record in of_kind {
                    rows::put(&mut rows, record, &mut previous);
                }
                match (encoding, kind) {
                    (Encoding::Rows, _) => {
                        group.push(0);
                        put_bytes(&mut group, &rows);
                    }
                    (_, Kind::Frame) => pack_at(&mut group, &rows, ZSTD_LEVEL_FRAMES),
                    _ => pack(&mut group, &rows),
                }
            }
        }
        put_bytes(out, &group);
    }
}

/// The entries of a body whose checksum is taken for granted: for the fuzzer, which would find no right one.
///
/// # Errors
/// If it does not decode.
pub fn entries_of_body(
    encoding: Encoding,
    count: u32,
    body: &[u8],
) -> Result<Vec<(u64, Entry)>, Malformed> {
    let header = Header {
        encoding,
        count: count.clamp(1, MAX_BLOCK_ENTRIES as u32),
        first_seq: 0,
        directory_bytes: 0,
        body_bytes: u32::try_from(body.len()).map_err(|_| Malformed("larger than any block"))?,
        directory_crc: 0,
        body_crc: crc32c::crc32c(body),
    };
    let block = [&[0; HEADER_BYTES], body].concat();
    Body::open(header, &block)?.entries(KindSet::ALL)
}

/// A block's body, opened: what is asked for is decoded, the rest is passed over.
pub(super) struct Body<'a> {
    header: Header,
    runs: Vec<(Kind, usize)>,
    rest: Cursor<'a>,
}

impl<'a> Body<'a> {
    /// Opens a block after holding it against its checksum.
    pub fn open(header: Header, block: &'a [u8]) -> Result<Body<'a>, Malformed> {
        let mut rest = Cursor(header.body(block)?);
        let runs = take_kinds(&mut rest, header.count as usize)?;
        Ok(Body { header, runs, rest })
    }

    /// Whether some entry has a key of its source's own.
    pub fn has_keys(&self) -> Result<bool, Malformed> {
        let mut rest = self.rest;
        skip_ids(&mut rest, self.header)?;
        Ok(rest.varint()? > 0)
    }

    fn counts(&self) -> [usize; KINDS] {
        let mut counts = [0; KINDS];
        for (kind, n) in &self.runs {
            counts[*kind as usize] += n;
        }
        counts
    }

    /// Passes over ids and keys without making use of them.
    fn skip_heads(&mut self) -> Result<(), Malformed> {
        skip_ids(&mut self.rest, self.header)?;
        take_keys(&mut self.rest, self.header.count as usize)?;
        Ok(())
    }

    /// The group of `kind`, if the block has one, and how many rows it has.
    fn group(mut self, kind: Kind) -> Result<Option<(Cursor<'a>, usize)>, Malformed> {
        self.skip_heads()?;
        let counts = self.counts();
        for k in Kind::ALL {
            if counts[k as usize] == 0 {
                continue;
            }
            let group = self.rest.bytes()?;
            if k == kind {
                return Ok(Some((Cursor(group), counts[k as usize])));
            }
        }
        Ok(None)
    }

    /// The `car_data` of a block.
    pub fn car_data(self) -> Result<Option<CarDataColumns>, Malformed> {
        let encoding = self.header.encoding;
        let Some((mut group, n)) = self.group(Kind::CarData)? else {
            return Ok(None);
        };
        if encoding == Encoding::Columns {
            return CarDataColumns::take(&mut group, n).map(Some);
        }
        let records = take_group(group, Kind::CarData, n, encoding)?;
        let rows: Vec<_> = (records.iter())
            .filter_map(|r| match r {
                Record::CarData(r) => Some(r),
                _ => None,
            })
            .collect();
        Ok(Some(CarDataColumns::of(&rows)))
    }

    /// The `location` of a block.
    pub fn location(self) -> Result<Option<LocationColumns>, Malformed> {
        let encoding = self.header.encoding;
        let Some((mut group, n)) = self.group(Kind::Location)? else {
            return Ok(None);
        };
        if encoding == Encoding::Columns {
            return LocationColumns::take(&mut group, n).map(Some);
        }
        let records = take_group(group, Kind::Location, n, encoding)?;
        let rows: Vec<_> = (records.iter())
            .filter_map(|r| match r {
                Record::Location(r) => Some(r),
                _ => None,
            })
            .collect();
        Ok(Some(LocationColumns::of(&rows)))
    }

    /// The entries of the kinds in `wanted`, each with its sequence number, in order.
    pub fn entries(mut self, wanted: KindSet) -> Result<Vec<(u64, Entry)>, Malformed> {
        let count = self.header.count as usize;
        let ids = take_ids(&mut self.rest, count, self.header.encoding)?;
        let mut keys = take_keys(&mut self.rest, count)?.into_iter().peekable();
        let counts = self.counts();
        let mut groups: [std::vec::IntoIter<Record>; KINDS] = Default::default();
        for kind in Kind::ALL {
            let n = counts[kind as usize];
            if n == 0 {
                continue;
            }
            let group = Cursor(self.rest.bytes()?);
            if wanted.has(kind) {
                groups[kind as usize] =
                    take_group(group, kind, n, self.header.encoding)?.into_iter();
            }
        }
        let mut entries = Vec::with_capacity(count);
        let mut ids = ids.into_iter().enumerate();
        for (kind, n) in self.runs {
            let group = &mut groups[kind as usize];
            for (at, id) in ids.by_ref().take(n) {
                let key = keys.next_if(|(k, _)| *k == at).map(|(_, key)| key);
                if wanted.has(kind) {
                    let record = group.next().ok_or(Malformed("a group that ends early"))?;
                    entries.push((self.header.first_seq + at as u64, Entry { record, id, key }));
                }
            }
        }
        Ok(entries)
    }
}

fn take_group(
    mut group: Cursor,
    kind: Kind,
    n: usize,
    encoding: Encoding,
) -> Result<Vec<Record>, Malformed> {
    /// Columns to records in order of arrival.
    fn arrive<T>(arrival: &[u32], record: impl Fn(usize) -> T) -> Vec<T> {
        let mut row_of = vec![0u32; arrival.len()];
        for (row, at) in arrival.iter().enumerate() {
            row_of[*at as usize] = row as u32;
        }
        row_of.into_iter().map(|row| record(row as usize)).collect()
    }
    match (encoding, kind) {
        (Encoding::Columns, Kind::CarData) => {
            let c = CarDataColumns::take(&mut group, n)?;
            Ok(arrive(&c.arrival, |row| Record::CarData(c.record(row))))
        }
        (Encoding::Columns, Kind::Location) => {
            let c = LocationColumns::take(&mut group, n)?;
            Ok(arrive(&c.arrival, |row| Record::Location(c.record(row))))
        }
        _ => {
            let whole = Bytes::from(unpack(&mut group)?);
            let (mut c, mut previous) = (Cursor(&whole), rows::Previous::default());
            let mut records = Vec::with_capacity(n);
            for _ in 0..n {
                records.push(rows::take(&mut c, &whole, kind, &mut previous)?);
            }
            Ok(records)
        }
    }
}

#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;
