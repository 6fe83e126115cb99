//! Observability: the log, the metrics, and how both are set up.
//!
//! **Invariant:** nothing here decides anything. Take it away and the daemon does the same; and no
//! flood of messages, however bad, can make it write without bound ([`SampledLog`]).
//!
//! Metrics are named `trackside_<room>_<what>_<unit|total>`. The way of a message through the house
//! is one histogram, [`STAGE_SECONDS`], labelled by [`Stage`]: seconds since its source took it off
//! the wire.

#![forbid(unsafe_code)]

pub mod process;
pub mod sampled;

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

pub use sampled::SampledLog;

/// Histogram of the way through the house; label `stage`.
pub const STAGE_SECONDS: &str = "trackside_stage_seconds";

/// Upper bounds of the buckets of every histogram of seconds (s): from a record's way through the
/// fold to a disk that stalls. The targets of 8 and 30 ms are bounds of their own.
pub const SECONDS_BUCKETS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How often the recorder tidies up and the process is measured.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A stage of a message's way, named when it is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On disk: it may be acknowledged.
    Durable,
    /// Folded into the race.
    State,
    /// Its predictions are made.
    Predicted,
    /// Its predictions are with the outlets.
    Published,
}

impl Stage {
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Durable => "durable",
            Stage::State => "state",
            Stage::Predicted => "predicted",
            Stage::Published => "published",
        }
    }

    /// Notes that a message was behind this stage `since_received` after it came.
    pub fn passed(self, since_received: Duration) {
        metrics::histogram!(STAGE_SECONDS, "stage" => self.name())
            .record(since_received.as_secs_f64());
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// journald's own form where systemd reads our log and the `systemd` feature is built in; text
    /// otherwise.
    #[default]
    Auto,
    Text,
    /// One JSON object a line.
    Json,
}

/// What could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "log level {value:?} is not one: {why}; write error, warn, info, debug, trace, or directives such as info,trackside::ingest=debug"
    )]
    Level { value: String, why: String },
    #[error("the log is already set up in this process: {0}")]
    LogTaken(String),
    #[error("metrics are already set up in this process: {0}")]
    MetricsTaken(String),
}

/// Changes the log's level while the daemon runs (SIGHUP).
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

impl LevelHandle {
    /// Takes `level` from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Level`] where it is not one; the level stays as it was.
    pub fn set(&self, level: &str) -> Result<(), Error> {
        let filter = filter(level)?;
        self.0.reload(filter).map_err(|e| Error::Level {
            value: level.to_owned(),
            why: e.to_string(),
        })
    }
}

/// Reads a level: one word, or directives such as `info,trackside::ingest=debug`.
///
/// ```
/// assert!(trackside::observability::filter("info,rumqttc=warn").is_ok());
/// assert!(trackside::observability::filter("loud").is_err());
/// ```
///
/// # Errors
///
/// [`Error::Level`].
pub fn filter(level: &str) -> Result<EnvFilter, Error> {
    let refused = |why: String| Error::Level {
        value: level.to_owned(),
        why,
    };
    // A bare word that is no level would be taken for the name of a target, and silence the rest.
    for word in level.split(',').filter(|part| !part.contains(['=', '['])) {
        word.trim()
            .parse::<tracing_subscriber::filter::LevelFilter>()
            .map_err(|e| refused(format!("{word:?}: {e}")))?;
    }
    EnvFilter::builder()
        .parse(level)
        .map_err(|e| refused(e.to_string()))
}

/// Starts the log, on standard error.
///
/// # Errors
///
/// [`Error::Level`], or [`Error::LogTaken`] on a second call.
pub fn start_log(level: &str, format: LogFormat) -> Result<LevelHandle, Error> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let output = output(format);
    tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .try_init()
        .map_err(|e| Error::LogTaken(e.to_string()))?;
    Ok(LevelHandle(handle))
}

type Output<S> = Box<dyn Layer<S> + Send + Sync>;

fn output<S>(format: LogFormat) -> Output<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    match format {
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
        LogFormat::Text => text(),
        LogFormat::Auto => journald().unwrap_or_else(text),
    }
}

fn text<S>() -> Output<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    fmt::layer()
        .with_ansi(terminal)
        .with_target(false)
        .with_writer(std::io::stderr)
        .boxed()
}

/// journald, where it reads our standard error: `JOURNAL_STREAM` says so.
#[cfg(feature = "systemd")]
fn journald<S>() -> Option<Output<S>>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    std::env::var_os("JOURNAL_STREAM")?;
    tracing_journald::layer().ok().map(Layer::boxed)
}

#[cfg(not(feature = "systemd"))]
fn journald<S>() -> Option<Output<S>> {
    None
}

/// The recorder's settings: real histograms, so that several edges can be summed at the centre.
fn recorder() -> PrometheusBuilder {
    let builder = PrometheusBuilder::new();
    match builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS) {
        Ok(builder) => builder,
        // Fails for an empty list only, and ours is not.
        Err(_) => PrometheusBuilder::new(),
    }
}

/// Installs the metrics recorder for this process. Call [`upkeep`] beside it.
///
/// # Errors
///
/// [`Error::MetricsTaken`] on a second call.
pub fn start_metrics() -> Result<PrometheusHandle, Error> {
    let handle = recorder()
        .install_recorder()
        .map_err(|e| Error::MetricsTaken(e.to_string()))?;
    describe();
    Ok(handle)
}

/// A recorder that no one else writes to, for tests and tools.
pub fn detached_metrics() -> PrometheusHandle {
    recorder().build_recorder().handle()
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        STAGE_SECONDS,
        Unit::Seconds,
        "Time from a message's reception until it was behind the stage"
    );
    describe_histogram!(
        crate::insight::STAGE_SECONDS,
        Unit::Seconds,
        "Time that a stage beside the pipeline took, by what computed it"
    );
    describe_counter!(
        crate::insight::SHED,
        "What the stages beside the pipeline left out because they were behind"
    );
    describe_gauge!(
        process::RSS_BYTES,
        Unit::Bytes,
        "Resident memory of the daemon"
    );
    describe_gauge!(process::OPEN_FDS, "Open file descriptors of the daemon");
    describe_gauge!(process::THREADS, "Threads of the daemon");
    describe_counter!(
        process::CPU_SECONDS,
        Unit::Seconds,
        "CPU time of the daemon, rounded down"
    );
    describe_histogram!(
        "trackside_api_request_seconds",
        Unit::Seconds,
        "Time to answer an HTTP request"
    );
}

/// Tidies the recorder and measures the process, until `stop`.
pub async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                // Reading /proc and draining histograms take up to a millisecond.
                let handle = handle.clone();
                let work = move || {
                    handle.run_upkeep();
                    process::Process::read(std::path::Path::new("/proc/self")).record();
                };
                if let Err(error) = tokio::task::spawn_blocking(work).await {
                    tracing::warn!(%error, "metrics upkeep failed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_named_with_what_is_allowed() {
        let text = filter("loud").unwrap_err().to_string();
        assert!(
            text.contains("\"loud\"") && text.contains("debug"),
            "{text}"
        );
        assert!(filter("info,trackside::ingest=debug").is_ok());
        assert!(filter("info,trackside=shout").is_err());
        assert!(filter("INFO").is_ok() && filter("off").is_ok());
    }

    #[test]
    fn seconds_become_histograms_with_the_targets_as_bounds() {
        let recorder = recorder().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            Stage::Published.passed(Duration::from_micros(7_900));
            Stage::Durable.passed(Duration::from_millis(2_000));
        });
        let text = handle.render();
        let published = r#"trackside_stage_seconds_bucket{stage="published",le="#;
        assert!(
            text.contains(&format!(r#"{published}"0.004"}} 0"#)),
            "{text}"
        );
        assert!(
            text.contains(&format!(r#"{published}"0.008"}} 1"#)),
            "{text}"
        );
        assert!(SECONDS_BUCKETS.is_sorted() && SECONDS_BUCKETS.contains(&0.03));
    }
}
