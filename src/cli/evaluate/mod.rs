//! `trackside evaluate`: how good the models are on published seasons, walking forward, beside plain baselines.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::Value;

use crate::cli::say::{note, say};
use crate::dataset::Dataset;
use crate::engines::Chosen;

mod laptime;
mod outcome;
mod pit;

/// Judge the models on published seasons, each figure beside its baselines.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The next clean lap, and the lap in progress once a sector is in.
    Laptime(Common),
    /// The finishing order: at the grid and at 25, 50 and 75 % of the distance.
    Outcome(Common),
    /// The next stop, and what a policy loses against hindsight.
    Pit(pit::Args),
}

/// What every evaluation takes.
#[derive(clap::Args)]
pub struct Common {
    /// A folder with laps/laps-*.csv.zst and, where there are any, history/ and strategy/.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Seasons, such as 2024 or 2018-2024.
    #[arg(long, value_name = "A-B", value_parser = seasons)]
    seasons: RangeInclusive<u16>,
    /// Write the features and truths into this folder, for training.
    #[arg(long, value_name = "OUT")]
    features: Option<PathBuf>,
    /// Folder of the models, or `none` for the floor alone.
    #[arg(long, value_name = "DIR|none", default_value = "")]
    engines: Chosen,
    /// Write the figures as JSON, on one line.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Laptime(common) => laptime::run(common),
        What::Outcome(common) => outcome::run(common),
        What::Pit(args) => pit::run(args),
    }
}

impl Common {
    /// Reads the races; says on stderr what could not be read.
    ///
    /// # Errors
    /// If the folder holds none of them.
    fn read(&self) -> anyhow::Result<Dataset> {
        let set = Dataset::read(&self.data, self.seasons.clone())?;
        for fault in &set.faults.named {
            note!("{fault}");
        }
        if set.faults.count > 0 {
            let (count, rows) = (set.faults.count, set.faults.rows_skipped);
            note!("{count} values could not be read; {rows} rows were left out");
        }
        Ok(set)
    }

    /// Prints the figures.
    fn print(&self, figures: &Value) {
        if self.json {
            say!("{figures}");
        } else {
            say!("{figures:#}");
        }
    }

    fn features(&self) -> Option<&Path> {
        self.features.as_deref()
    }
}

/// `2024` or `2018-2024`.
fn seasons(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let year = |t: &str| {
        let year: u16 = t
            .trim()
            .parse()
            .with_context(|| format!("{t:?} is no year"))?;
        if !(1950..=2100).contains(&year) {
            bail!("{year} is no season: 1950 to 2100 are");
        }
        Ok(year)
    };
    let (first, last) = (year(first)?, year(last)?);
    if first > last {
        bail!("{first} comes after {last}");
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seasons_are_years_in_order() {
        assert_eq!(seasons("2024").unwrap(), 2024..=2024);
        assert_eq!(seasons("2018-2023").unwrap(), 2018..=2023);
        for wrong in ["", "2024-2018", "twenty", "18-23"] {
            assert!(seasons(wrong).is_err(), "{wrong}");
        }
    }
}
