//! `trackside run`: the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::daemon::{self, Running};
use crate::device::systemd::Systemd;
use crate::device::watchdog::Watchdog;
use crate::observability::{self, Observability};

/// How often the service manager is told how things are.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Run the daemon: ingest, journal, predict, publish, until SIGTERM.
#[derive(clap::Args)]
pub struct Args {
    /// The configuration file; without it, defaults and `TRACKSIDE__…` variables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the API's address into this file once everything runs.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    let observability = observability::install(&config.log)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(serve(args, &config, &observability))
}

async fn serve(args: &Args, config: &Config, observability: &Observability) -> anyhow::Result<()> {
    let systemd = Systemd::from_environment();
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let running = daemon::start(config, observability.metrics()).await?;
    if let Some(file) = &args.ready_file {
        std::fs::write(file, format!("{}\n", running.address()))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    tracing::info!(api = %running.address(), data = %config.data_dir.display(), "ready");
    systemd.ready();
    let mut watchdog = Watchdog::new(running.hearts(), systemd.watchdog_interval());
    let mut status = tokio::time::interval(STATUS_INTERVAL);

    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(args.config.as_deref(), config, observability, &systemd),
            () = watchdog.due() => watchdog.check(&systemd),
            _ = status.tick() => {
                systemd.status(&summary(&running));
                if running.has_failed() {
                    break;
                }
            }
        }
    }
    tracing::info!("stopping: what was received is made durable, then published");
    systemd.stopping();
    running.stop().await
}
