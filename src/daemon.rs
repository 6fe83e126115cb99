//! The edge, wired up.
//!
//! ```text
//!  sources ─▶ intake ─▶ writer ─▶ journal "records" ─▶ fold ─▶ journal "predictions" ─▶ outlets
//!  (tasks)    (queue)   (thread)        │              (thread)          │              (tasks)
//!                                       └────────────── API ─────────────┘
//! ```
//!
//! **Invariant:** no logic; it reads from top to bottom as the picture.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::health::{Health, JournalHealth, PredictorHealth, QueueHealth, SourceHealth, Status};
use crate::api::{self, tower};
use crate::config::Config;
use crate::device::watchdog::{Heart, Hearts};
use crate::ingest::intake::{Intake, QUEUE_MESSAGES};
use crate::ingest::status::{SourceStatus, State};
use crate::ingest::writer::{Writer, WriterStatus};
use crate::ingest::{mqtt, openf1, zenoh};
use crate::journal::{self, Durability, Journal, Reader};
use crate::live::{ALERTS, Live, Outlets, Snapshot};
use crate::predict::Predictor;
use crate::publish;

/// How often health is renewed.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// How often the state is published to subscribers.
const STATE_INTERVAL: Duration = Duration::from_millis(500);
/// How long publishers get to hand over the last predictions when the daemon stops.
const PUBLISH_GRACE: Duration = Duration::from_secs(2);
/// Age of the last record beyond which a connected feed counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// A daemon at work.
pub struct Running {
    address: SocketAddr,
    /// Health, as the API shows it.
    pub health: watch::Receiver<Arc<Health>>,
    hearts: Arc<Hearts>,
    stop_sources: CancellationToken,
    stop_fold: CancellationToken,
    stop_outlets: CancellationToken,
    sources: JoinSet<()>,
    writer: thread::JoinHandle<Result<(), journal::Error>>,
    fold: thread::JoinHandle<Result<(), journal::Error>>,
    outlets: JoinSet<()>,
    server: api::Server,
}

/// Opens the journals, folds what they hold and starts everything that `config` asks for.
///
/// # Errors
/// If a journal cannot be opened or the API's address cannot be had. A broker that cannot be reached
/// is no error: it is tried until it can.
pub async fn start(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<Running> {
    let started = Instant::now();
    let runtime = Handle::current();
    let (stop_sources, stop_fold, stop_outlets) = <(
        CancellationToken,
        CancellationToken,
        CancellationToken,
    )>::default();
    let hearts = Arc::new(Hearts::default());

    // The journals, and the two threads that live on them.
    let (records, predictions) = open_journals(config)?;
    let writer = Writer::new(records, config.commit);
    let (reader, tally) = (writer.reader(), writer.tally());
    let (receipts, writer_status) = (writer.receipts(), writer.status());
    let live = Live::new(&reader, Predictor::default(), predictions)
        .context("the journal of predictions cannot be read")?;
    let prediction_reader = live.predictions();
    let snapshot = watch::channel(Arc::new(live.snapshot())).0;
    let snapshots = snapshot.subscribe();
    let alerts = broadcast::channel(ALERTS).0;

    let (intake, queue) = Intake::new(&runtime);
    let writer = spawn("writer", {
        let (stop, heart) = (stop_sources.clone(), hearts.heart("writer"));
        move || writer.run(queue, &stop, || heart.beat())
    })?;
    let fold = spawn("fold", {
        let (reader, runtime, stop) = (reader.clone(), runtime.clone(), stop_fold.clone());
        let outlets = Outlets {
            snapshot,
            alerts: alerts.clone(),
            receipts: Arc::clone(&receipts),
        };
        let heart = hearts.heart("fold");
        move || live.run(&reader, &outlets, &runtime, &stop, || heart.beat())
    })?;

    // Sources in.
    let mut sources = JoinSet::new();
    let statuses = start_sources(config, &intake, &stop_sources, &mut sources);

    // Answers out.
    let mut outlets = JoinSet::new();
    let (health, healths) = watch::channel(Arc::new(Health::starting(started)));
    let server = api::serve(
        config.api.listen,
        api::Context {
            records: reader.clone(),
            predictions: prediction_reader.clone(),
            state: snapshots.clone(),
            health: healths.clone(),
            metrics,
        },
        stop_outlets.clone(),
    )
    .await?;
    start_publishers(
        config,
        &prediction_reader,
        &snapshots,
        &healths,
        &alerts,
        &stop_outlets,
        &mut outlets,
    );
    let watch = Watch {
        started,
        data_dir: config.data_dir.clone(),
        reader,
        intake,
        writer: writer_status,
        snapshots,
        statuses,
        stopping: stop_sources.clone(),
    };
    let heart = hearts.heart("health");
    let stop = stop_outlets.clone();
    outlets.spawn(async move {
        let mut tick = tokio::time::interval(HEALTH_INTERVAL);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            health.send_replace(Arc::new(watch.look()));
            heart.beat();
        }
    });

    Ok(Running {
        address: server.address(),
        health: healths,
        hearts,
        stop_sources,
        stop_fold,
        stop_outlets,
        sources,
        writer,
        fold,
        outlets,
        server,
    })
}

impl Running {
    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The stages whose progress feeds a watchdog.
    pub fn hearts(&self) -> Arc<Hearts> {
        Arc::clone(&self.hearts)
    }

    /// Whether a stage has ended that should run until it is told to stop.
    pub fn has_failed(&self) -> bool {
        self.writer.is_finished() || self.fold.is_finished()
    }

    /// Stops in the order of the stream: sources first, then what they left in the queue is
    /// committed, acknowledged, folded and published.
    ///
    /// # Errors
    /// What the writer or the fold ended with.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop_sources.cancel();
        while self.sources.join_next().await.is_some() {}
        // The health task holds the last handle of the intake: without sources the queue closes
        // with it.
        let writer = join("writer", self.writer).await;
        self.stop_fold.cancel();
        let fold = join("fold", self.fold).await;
        tokio::time::sleep(Duration::ZERO).await;
        self.stop_outlets.cancel();
        let outlets = &mut self.outlets;
        let _ = tokio::time::timeout(PUBLISH_GRACE, async {
            while outlets.join_next().await.is_some() {}
        })
        .await;
        self.server.finished().await;
        writer.and(fold)
    }
}

async fn join(
    name: &str,
    thread: thread::JoinHandle<Result<(), journal::Error>>,
) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    match joined {
        Ok(result) => result.with_context(|| format!("the {name} ended badly")),
        Err(_) => anyhow::bail!("the {name} panicked; its message is in the log"),
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<T>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .with_context(|| format!("the {name} thread cannot be started"))
}

fn open_journals(config: &Config) -> anyhow::Result<(Journal, Journal)> {
    let open = |name: &str, options: journal::Options| {
        let dir = config.data_dir.join(name);
        Journal::open(&dir, options, &mut |p| tracing::info!(journal = name, "{p}"))
            .with_context(|| format!("the journal in {} cannot be opened", dir.display()))
    };
    let records = open("records", config.journal.clone())?;
    let predictions = open(
        "predictions",
        journal::Options {
            durability: Durability::Lazy,
            ..config.journal.clone()
        },
    )?;
    Ok((records, predictions))
}

fn start_sources(
    config: &Config,
    intake: &Intake,
    stop: &CancellationToken,
    sources: &mut JoinSet<()>,
) -> Vec<watch::Receiver<SourceStatus>> {
    let mut statuses = Vec::new();
    let mut status = |name: &str, kind: &'static str| {
        let (send, receive) = watch::channel(SourceStatus::new(name, kind));
        statuses.push(receive);
        send
    };
    for options in &config.mqtt {
        let status = status(&options.name, "mqtt");
        sources.spawn(mqtt::run(options.clone(), intake.clone(), status, stop.clone()));
    }
    if let Some(options) = &config.zenoh {
        let status = status("zenoh", "zenoh");
        sources.spawn(zenoh::run(options.clone(), intake.clone(), status, stop.clone()));
    }
    if let Some(options) = &config.openf1 {
        let status = status("openf1", "openf1");
        sources.spawn(openf1::run(options.clone(), intake.clone(), status, stop.clone()));
    }
    statuses
}
