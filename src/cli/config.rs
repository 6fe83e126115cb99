//! `trackside config check|show`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::say::say;
use crate::config::Config;

/// Check or show the configuration.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Refuse or accept a configuration, environment included.
    Check(File),
    /// Show what is in force: file, environment and defaults.
    Show(File),
}

#[derive(clap::Args)]
struct File {
    /// The configuration file; without it, defaults and environment alone.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.action {
        Action::Check(file) => {
            Config::load(file.config.as_deref())?;
            say!("the configuration is valid");
        }
        Action::Show(file) => {
            let config = Config::load(file.config.as_deref())?;
            // Debug shows secrets as dots: their type does not print them.
            say!("{config:#?}");
        }
    }
    Ok(())
}
