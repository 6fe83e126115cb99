//! `trackside run`: the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::daemon::{self, Running};
use crate::device::{Notifier, watchdog};
use crate::ingest::status::State;
use crate::observability::{self, LevelHandle};

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
    let level = observability::start_log(&config.log.level, config.log.format)?;
    let metrics = observability::start_metrics()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(serve(args, &config, &level, metrics))
}

async fn serve(
    args: &Args,
    config: &Config,
    level: &LevelHandle,
    metrics: PrometheusHandle,
) -> anyhow::Result<()> {
    let notifier = Notifier::from_env();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let running = daemon::start(config, metrics.clone()).await?;
    let stop = CancellationToken::new();
    tokio::spawn(observability::upkeep(metrics, stop.clone()));
    tokio::spawn(watchdog::run(notifier, running.progress(), stop.clone()));
    if let Some(file) = &args.ready_file {
        publish_address(file, &running)?;
    }
    tracing::info!(api = %running.address(), data = %config.data_dir.display(), "ready");
    notifier.ready();

    let mut status = tokio::time::interval(STATUS_INTERVAL);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                notifier.reloading();
                reload(args, level);
                notifier.ready();
            }
            _ = status.tick() => {
                notifier.status(&summary(&running));
                if running.has_failed() {
                    tracing::error!("a stage of the pipeline has ended; stopping");
                    break;
                }
            }
        }
    }
    tracing::info!("stopping: what was received is made durable, then published");
    notifier.stopping();
    let stopped = running.stop().await;
    stop.cancel();
    tracing::info!("stopped");
    stopped
}

/// Written beside and renamed, so that who waits for the file never reads half an address.
fn publish_address(file: &Path, running: &Running) -> anyhow::Result<()> {
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, format!("{}\n", running.address()))
        .and_then(|()| std::fs::rename(&beside, file))
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// Takes over what can change while running: the log's level. A wrong file changes nothing.
fn reload(args: &Args, level: &LevelHandle) {
    let taken = Config::load(args.config.as_deref())
        .map_err(anyhow::Error::from)
        .and_then(|config| {
            level.set(&config.log.level)?;
            Ok(config)
        });
    match taken {
        Ok(config) => tracing::info!(
            level = config.log.level,
            "configuration read again: the log's level is in force, all else needs a restart"
        ),
        Err(e) => tracing::error!("configuration not read again; all stays as it was: {e:#}"),
    }
}

fn summary(running: &Running) -> String {
    let health = running.health.borrow();
    let connected = health
        .sources
        .iter()
        .filter(|s| s.state == State::Connected)
        .count();
    format!(
        "{} records on disk; {connected} of {} sources connected{}",
        health.journal.durable_seq,
        health.sources.len(),
        health
            .why
            .first()
            .map(|w| format!("; {w}"))
            .unwrap_or_default()
    )
}
