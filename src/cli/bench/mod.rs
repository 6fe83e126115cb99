//! `trackside bench`: each figure beside a baseline from the same run.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

pub mod journal;

/// Measure, each figure beside a baseline from the same run.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Write the figures as JSON.
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
