//! `trackside bench`: each figure beside a baseline from the same run.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;

pub mod journal;

/// Measure, each figure beside a baseline from the same run.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Write the figures as JSON, on one line.
    #[arg(long, global = true)]
    json: bool,
    /// The recording to measure with.
    #[arg(long, global = true, value_name = "FILE")]
    recording: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Bytes a row, recovery, scan.
    Journal,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let recording = args.recording.as_deref();
    let figures = match args.what {
        What::Journal => {
            journal::run(recording.context("name a recording with --recording FILE")?)?
        }
    };
    if args.json {
        println!("{figures}");
    } else {
        println!("{figures:#}");
    }
    Ok(())
}
