//! `trackside evaluate`: predictions on published seasons, beside plain baselines, walking forward.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::Context;

mod pit;

/// Judge predictions on published seasons, beside plain baselines; write features for training.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The next stop: when, and onto what.
    Pit(Options),
}

/// What every evaluation is told.
#[derive(clap::Args)]
struct Options {
    /// Folder with laps/laps-*.csv.zst, and history/ and strategy/ where there are any.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Seasons, such as `2024` or `2018-2023`.
    #[arg(long, value_name = "A-B", value_parser = seasons)]
    seasons: RangeInclusive<u16>,
    /// Also write the features and the truth into this folder, for training.
    #[arg(long, value_name = "OUT")]
    features: Option<PathBuf>,
    /// Write everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Pit(options) => pit::run(options),
    }
}

fn seasons(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let year = |t: &str| t.parse::<u16>().ok().filter(|y| (1950..=2100).contains(y));
    match (year(first), year(last)) {
        (Some(a), Some(b)) if a <= b => Ok(a..=b),
        _ => Err(format!(
            "{text:?} is no range of seasons; write 2024 or 2018-2023"
        )),
    }
}

/// Reads the seasons, and says what could not be read.
fn read(options: &Options) -> anyhow::Result<crate::dataset::Dataset> {
    let set = crate::dataset::Dataset::read(&options.data, options.seasons.clone())
        .context("the seasons")?;
    for fault in set.faults.named.iter().take(5) {
        eprintln!("{fault}");
    }
    Ok(set)
}
