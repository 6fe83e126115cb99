//! `trackside bench`: each figure beside a baseline from the same run.

use crate::cli::say::say;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;

mod api;
mod child;
mod daemon;
#[cfg(feature = "cuda")]
mod faults;
mod feed;
mod ingest;
pub mod journal;
mod kernels;
mod montecarlo;
pub(super) mod onnxruntime;
mod predict;
mod publisher;
mod race;
mod subscriber;

/// Measure, each figure beside a baseline from the same run.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Write the figures as JSON, on one line.
    #[arg(long, global = true)]
    json: bool,
    /// The recording to measure with; without it, a simulated race.
    #[arg(long, global = true, value_name = "FILE")]
    recording: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// From a broker to the disk: frames, the feed, latency. Needs mosquitto.
    Ingest,
    /// Bytes a row, recovery, scan.
    Journal,
    /// Records folded into the race state a second.
    Race,
    /// Predictions a second, and how long one record takes.
    Predict,
    /// Every kernel on the GPU against the CPU: parity, speed, a tick as one graph.
    Kernels(kernels::Args),
    /// Simulated races a second.
    Montecarlo,
    /// Memory after a race, time to start, size. Needs mosquitto.
    Daemon,
    /// Answers of the API and messages of its WebSocket a second.
    Api,
    #[command(hide = true)]
    BareSubscriber(subscriber::Args),
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let recording = args.recording.as_deref();
    let figures = match &args.what {
        What::Ingest => ingest::run(recording)?,
        What::Journal => {
            journal::run(recording.context("name a recording with --recording FILE")?)?
        }
        What::Race => race::run(recording)?,
        What::Predict => predict::run(recording)?,
        What::Kernels(args) => kernels::run(args, recording)?,
        What::Montecarlo => montecarlo::run()?,
        What::Daemon => daemon::run(recording)?,
        What::Api => api::run(recording)?,
        What::BareSubscriber(args) => return subscriber::run(args),
    };
    if args.json {
        say!("{figures}");
    } else {
        say!("{figures:#}");
    }
    Ok(())
}

/// A field of `/proc/PROCESS/status` that is a size (bytes).
fn memory_of(process: &str, field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))
        .with_context(|| format!("no {field} in /proc/{process}/status"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The middle one (the upper of two).
fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which that share lies, by rank; 0 of nothing.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (share * values.len() as f64) as usize;
    let last = values.len().saturating_sub(1);
    values.get(rank.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_go_by_rank() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(median(&mut values), 51.0);
        assert_eq!(quantile(&mut values, 0.99), 100.0);
        assert_eq!(quantile(&mut values, 0.0), 1.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }
}
