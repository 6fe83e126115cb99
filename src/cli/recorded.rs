//! A recording, folded as far as a command needs it.

use std::path::Path;

use anyhow::Context;

use crate::ingest::recording;
use crate::race::{Events, Race};
use crate::record::decode;

/// Folds a recording until `enough` says so, which is asked whenever something has happened; else to its end. Whether
/// it did is told with the race. Lines and messages that cannot be read are passed over, as a daemon does.
///
/// # Errors
/// If the file cannot be read.
pub fn fold(file: &Path, mut enough: impl FnMut(&Race) -> bool) -> anyhow::Result<(Race, bool)> {
    follow(file, |race, _, events| !events.is_empty() && enough(race))
}

/// As [`fold`], but every record is shown: the state after it, its number and what it brought about.
///
/// # Errors
/// If the file cannot be read.
pub fn follow(
    file: &Path,
    mut enough: impl FnMut(&Race, u64, &Events) -> bool,
) -> anyhow::Result<(Race, bool)> {
    let mut race = Race::new();
    let mut seq = 0;
    for recorded in recording::Reader::open(file)? {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(e) if e.is_of_one_line() => continue,
            Err(e) => return Err(e).context(file.display().to_string()),
        };
        let Ok(decoded) = decode(&recorded.topic, &recorded.payload) else {
            continue;
        };
        let events = race.apply(seq, &decoded.entry);
        if enough(&race, seq, &events) {
            return Ok((race, true));
        }
        seq += 1;
    }
    Ok((race, false))
}
