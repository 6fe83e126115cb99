//! The command line: one file a subcommand.
//!
//! **Invariant:** the only room that prints. It holds no logic that another room could hold.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod analytics;
mod bench;
#[cfg(feature = "demo")]
mod broker;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod engines;
mod environment;
mod evaluate;
mod journal;
mod recorded;
mod replay;
mod run;
mod say;
mod simulate;
mod strategy;

use say::note;

/// Trackside telemetry, prediction and strategy for Formula 1.
#[derive(Parser)]
#[command(name = "trackside", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine: broker, simulator or recording, daemon and page.
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Run the daemon.
    Run(run::Args),
    /// Replay a recording: through the whole pipeline in this process, or to a broker.
    Replay(replay::Args),
    /// Simulate a race weekend.
    Simulate(simulate::Args),
    /// Advise a car on its stops at a lap of a recorded race.
    Strategy(strategy::Args),
    /// Look into the journal, check it, mend it, take data out of it.
    Journal(journal::JournalArgs),
    /// The models, what computes them here, and the engines built for this machine.
    Engines(engines::Args),
    /// Check or show the configuration.
    Config(config::Args),
    /// Say what this machine has, what is wrong and what to do about it.
    Doctor(doctor::Args),
    /// What the laps say about the drivers.
    Analytics(analytics::Args),
    /// Simulated races for training the pit network, over standard input and output.
    Environment(environment::Args),
    /// Measure, each figure beside a baseline from the same run.
    Bench(bench::Args),
    /// Judge the models on published seasons, each figure beside its baselines.
    Evaluate(evaluate::Args),
    /// Write a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Simulate(args) => simulate::run(args),
        Command::Strategy(args) => strategy::run(&args),
        Command::Journal(args) => journal::run(args),
        Command::Engines(args) => engines::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Analytics(args) => analytics::run(&args),
        Command::Environment(args) => environment::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trackside", &mut script);
            std::io::stdout().write_all(&script).map_err(Into::into)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            note!("trackside: {}", reasons(&e));
            ExitCode::FAILURE
        }
    }
}

/// What went wrong and why. Many errors tell their own cause: it is not told again.
fn reasons(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// `trackside … | head` is no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_reason_is_told_once() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let path = "race.ndjson".into();
        let source = missing();
        let error = anyhow::Error::from(crate::ingest::recording::Error::Open { path, source });
        assert_eq!(reasons(&error), "race.ndjson: entity not found");
        let error = anyhow::Error::from(missing()).context("the folder");
        assert_eq!(reasons(&error), "the folder: entity not found");
    }
}
