//! The recordings that tests play, which are not part of the repository.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

/// A file of the development data: below `$TRACKSIDE_DATA`, else below `../shared/data`.
///
/// `None`, after a word about it, where there is none; the caller returns.
///
/// # Panics
/// In CI (`$CI` is set), where a test that silently did nothing would be a lie.
pub fn data(path: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("TRACKSIDE_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    let found = folder.join(path);
    if found.exists() {
        return Some(found);
    }
    let why = format!("{} is not there; set TRACKSIDE_DATA", found.display());
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}

/// One message of a recording or of an export.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub topic: String,
    /// The object as it stood, byte for byte.
    pub payload: String,
    /// OpenF1's `_id`, unique within a recording.
    pub id: Option<i64>,
    /// OpenF1's `_key`.
    pub key: Option<String>,
}

impl Recorded {
    /// # Errors
    /// Where the line is no recorded message.
    pub fn parse(line: &str) -> Result<Recorded, String> {
        #[derive(Deserialize)]
        struct Line<'a> {
            topic: String,
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        let fail = |e: serde_json::Error| format!("{e} in {line:.200}");
        let line: Line<'_> = serde_json::from_str(line).map_err(fail)?;
        let (key, id) = version(line.payload.get().as_bytes()).map_err(fail)?;
        Ok(Recorded {
            topic: line.topic,
            payload: line.payload.get().to_owned(),
            id,
            key,
        })
    }
}

/// `_key` and `_id` of a document.
pub fn version(payload: &[u8]) -> serde_json::Result<(Option<String>, Option<i64>)> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "_key")]
        key: Option<String>,
        #[serde(rename = "_id")]
        id: Option<i64>,
    }
    let version: Version = serde_json::from_slice(payload)?;
    Ok((version.key, version.id))
}

/// The messages of a recording, in order.
pub struct Recording {
    lines: std::io::Lines<BufReader<zstd::Decoder<'static, BufReader<File>>>>,
}

impl Recording {
    /// Opens a zstd-compressed NDJSON recording.
    pub fn open(path: &Path) -> Recording {
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let decoder =
            zstd::Decoder::new(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Recording {
            lines: BufReader::new(decoder).lines(),
        }
    }
}

impl Iterator for Recording {
    type Item = Recorded;

    fn next(&mut self) -> Option<Recorded> {
        let line = self.lines.next()?.expect("a whole recording");
        Some(Recorded::parse(&line).expect("a recorded message"))
    }
}
