//! Published seasons, read from a folder of tables: what models are trained and judged on.
//!
//! The folder has `laps/laps-*.csv.zst` (one row a car and lap), and may have `history/f1db-*.csv.zst`
//! (calendar, grid, qualifying, results) and `strategy/*.csv.zst` (stints, stops, track status, race
//! control, results). [`Dataset::read`] brings them into one [`RaceData`] a race; [`Walk`] walks through
//! a race in the order in which things happened, showing at each step only what was known by then.
//!
//! | file | noun |
//! |---|---|
//! | [`table`] | a compressed table, its columns by name, and what was wrong with its rows |
//! | [`lap`] | one lap of one car |
//! | [`weekend`] | calendar, grid, qualifying, results |
//! | [`strategy`] | stops, stints, track status, race control's messages |
//! | [`race`] | a race put together |
//! | [`walk`] | a race as it happened |
//! | [`moment`] | a race at a lap, where the race model starts from |
//! | [`features`] | arrays for training: `.npy` and `schema.json` |
//! | [`laptime`] | rows for the model of that name, and what they should have predicted |
//! | [`pit`] | rows for the model of that name, and when each car really stopped |
//!
//! Tables are dirty and change from season to season: a column or a file that is not there is a value that
//! is not known; a cell that cannot be read is named ([`Faults`]: file, line, column, value), counted, and
//! taken as not known; a row without a season, round, car or lap is left out.
//!
//! **Invariant:** it only reads, and it draws no conclusions from what comes later in a race.

#![forbid(unsafe_code)]

pub mod features;
pub mod form;
pub mod lap;
pub mod laptime;
pub mod moment;
pub mod outcome;
pub mod pit;
pub mod pit_cases;
pub mod pit_scores;
pub mod race;
pub mod strategy;
pub mod table;
pub mod walk;
pub mod weekend;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

pub use lap::LapRow;
pub use race::{CarData, RaceData};
pub use table::Faults;
pub use walk::{Step, Walk};

/// Why a folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error("{0} cannot be read: {1}; it must hold laps/laps-*.csv.zst")]
    Folder(PathBuf, std::io::Error),
    #[error(
        "{folder} holds no lap of the seasons {first}-{last}: put laps-{first}.csv.zst there, or ask for other \
         seasons{faults}; there are: {found}"
    )]
    NoLaps {
        folder: PathBuf,
        first: u16,
        last: u16,
        found: String,
        /// What was wrong with the rows that were left out, if any were.
        faults: String,
    },
    #[error("{0} cannot be read: {1}")]
    Table(PathBuf, std::io::Error),
}

/// The races of some seasons.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// By season and round, ascending.
    pub races: Vec<RaceData>,
    /// What could not be read.
    pub faults: Faults,
}

impl Dataset {
    /// Reads every race of those seasons that `folder` has laps of.
    ///
    /// # Errors
    /// [`DatasetError`]: no such folder, no laps of these seasons, a table that is damaged as a whole.
    pub fn read(folder: &Path, seasons: RangeInclusive<u16>) -> Result<Dataset, DatasetError> {
        let mut faults = Faults::default();
        let files = files(&folder.join("laps"), "laps-")
            .map_err(|e| DatasetError::Folder(folder.to_owned(), e))?;
        let mut laps: BTreeMap<(u16, u16), Vec<LapRow>> = BTreeMap::new();
        let mut found = std::collections::BTreeSet::new();
        for file in &files {
            for row in lap::read(file, &seasons, &mut found, &mut faults)? {
                laps.entry((row.season, row.round)).or_default().push(row);
            }
        }
        if laps.is_empty() {
            let found: Vec<String> = found.iter().map(u16::to_string).collect();
            let left_out = faults.named.first().map(|fault| {
                let rows = faults.rows_skipped;
                format!(" ({rows} rows were left out; the first fault: {fault})")
            });
            return Err(DatasetError::NoLaps {
                folder: folder.join("laps"),
                first: *seasons.start(),
                last: *seasons.end(),
                found: match found.as_slice() {
                    [] => "none".to_owned(),
                    found => found.join(", "),
                },
                faults: left_out.unwrap_or_default(),
            });
        }
        let weekends = weekend::read(folder, &seasons, &mut faults)?;
        let strategy = strategy::read(folder, &seasons, &mut faults)?;
        let races = laps
            .into_iter()
            .map(|(key, rows)| race::assemble(key, rows, &weekends, &strategy, &mut faults))
            .collect();
        Ok(Dataset { races, faults })
    }
}

/// `folder/prefix*.csv.zst` (or `.csv`), by name.
fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if name.starts_with(prefix) && (name.ends_with(".csv.zst") || name.ends_with(".csv")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
