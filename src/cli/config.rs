//! `trackside config check|show`.

use std::path::PathBuf;

use anyhow::Context;
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
            // Passwords show as ***: their type does not give them away.
            let shown = config
                .to_toml()
                .context("the configuration cannot be shown")?;
            say!("{}", shown.trim_end());
        }
    }
    Ok(())
}
