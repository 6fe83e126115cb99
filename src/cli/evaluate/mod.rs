//! `trackside evaluate`: how good the models are on published seasons, walking forward, beside plain baselines.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Map, Value};

use crate::cli::say::{note, say};
use crate::dataset::Dataset;
use crate::engines::Chosen;
use crate::engines::computed::{Computed, Mover};
use crate::inference::{self, Engine};

mod laptime;
mod outcome;
mod pit;
mod podium;
pub(super) mod races;
mod rehearsal;

#[cfg(test)]
mod tests;

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
    #[arg(
        long,
        value_name = "DIR|none",
        default_value = "",
        hide_default_value = true
    )]
    engines: Chosen,
    /// What computes them: cpu, cpu-fp16 (as in fp16, summed in fp32), tensorrt or tensorrt-fp16.
    #[arg(long, value_name = "ENGINE", default_value = "cpu")]
    engine: Computed,
    /// Write the figures as JSON, on one line.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Laptime(common) => common.print(&laptime::figures(common)?),
        What::Outcome(common) => common.print(&outcome::figures(common)?),
        What::Pit(args) => args.common.print(&pit::figures(args)?),
    }
    Ok(())
}

impl Common {
    /// Reads the races; says on stderr what could not be read.
    ///
    /// # Errors
    /// If the folder holds none of them.
    fn read(&self) -> anyhow::Result<Dataset> {
        let set = Dataset::read(&self.data, self.seasons.clone())?;
        for season in self.seasons.clone() {
            if !set.races.iter().any(|r| r.season == season) {
                note!(
                    "{season} has no laps in {}: it is left out",
                    self.data.join("laps").display()
                );
            }
        }
        for fault in &set.faults.named {
            note!("{fault}");
        }
        if set.faults.count > 0 {
            let (count, rows) = (set.faults.count, set.faults.rows_skipped);
            note!("{count} values could not be read; {rows} rows were left out");
        }
        if self.engines.folder().is_none() && self.engines != Chosen::None {
            note!(
                "no models were found: the figures are the floor's; name their folder with --engines"
            );
        }
        Ok(set)
    }

    /// The model of that name, for all of its batch sizes; `None` where there is none.
    ///
    /// # Errors
    /// If it is there and cannot be used.
    fn engine(&self, name: &str) -> anyhow::Result<Option<Arc<dyn Engine>>> {
        let Some(folder) = self.engines.folder() else {
            return Ok(None);
        };
        let manifest = inference::Manifest::read(&folder)?;
        if !manifest.models.iter().any(|m| m.name == name) {
            return Ok(None);
        }
        let on_cpu = inference::load(&folder, name)?.into();
        Ok(Some(Mover::new(self.engine, &folder)?.take(&on_cpu)?))
    }

    /// Puts into the figures what computed them, and sees to it that it did to the end.
    ///
    /// # Errors
    /// If something else has answered for a model: its figures would be another engine's.
    fn computed(
        &self,
        figures: &mut Map<String, Value>,
        engines: &[Option<Arc<dyn Engine>>],
    ) -> anyhow::Result<()> {
        let mut engines = engines.iter().flatten().peekable();
        let any = engines.peek().is_some();
        engines.try_for_each(|e| self.engine.answers_for(&**e))?;
        if any {
            figures.insert("computed_by".to_owned(), self.engine.to_string().into());
        }
        Ok(())
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
