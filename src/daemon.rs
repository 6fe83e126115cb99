//! The edge, wired up.
//!
//! ```text
//!  sources ─▶ intake ─▶ writer ─▶ journal "records" ─▶ fold ─▶ journal "predictions" ─▶ outlets
//!  (tasks)    (queue)   (thread)        │              (thread)          │              (tasks)
//!                                       ├────────────── API ─────────────┘
//!                                       └─▶ insight, strategist ─▶ outlets
//!                                           (threads that nothing waits for)
//! ```
//!
//! **Invariant:** no logic; it reads from top to bottom as the picture.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

use crate::api;
use crate::api::health::{Health, JournalHealth, PredictorHealth, QueueHealth, Status};
use crate::api::tower::Tower;
use crate::config::Config;
use crate::device::{Progress, Readings, Stage, readings};
use crate::engines::{self, Slot};
use crate::ingest::intake::{Gauge, Intake, QUEUE_MESSAGES};
use crate::ingest::mqtt::outbox::Progress as Delivery;
use crate::ingest::receipts::Receipts;
use crate::ingest::status::{SourceStatus, State};
use crate::ingest::writer::{Writer, WriterStatus};
use crate::ingest::{mqtt, openf1, zenoh};
use crate::insight::{self, Insight, Strategist};
use crate::journal::{self, Durability, Journal, Loss, Reader};
use crate::live::{ALERTS, Alert, Live, Outlets, Snapshot};
use crate::predict::floor::Floor;
use crate::predict::{Predictor, Scores};
use crate::publish;

/// How often health is renewed.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// How often the machine's sensors are read for the metrics.
const READINGS_INTERVAL: Duration = Duration::from_secs(10);
/// How often the state is published to subscribers.
const STATE_INTERVAL: Duration = Duration::from_millis(500);
/// Predictions that their journal's tail holds in memory: each takes up to a few kilobytes, and a race makes no
/// more than some thousands.
const PREDICTIONS_TAIL: usize = 1_024;
/// How long publishers get to hand over the last predictions when the daemon stops.
const PUBLISH_GRACE: Duration = Duration::from_secs(2);
/// Age of the last record beyond which a connected feed counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// A daemon at work.
pub struct Running {
    address: SocketAddr,
    /// Health, as the API shows it.
    pub health: watch::Receiver<Arc<Health>>,
    progress: Progress,
    stop_sources: CancellationToken,
    stop_fold: CancellationToken,
    stop_outlets: CancellationToken,
    /// Keeps the queue open: a daemon without sources still answers.
    intake: Intake,
    sources: JoinSet<()>,
    writer: thread::JoinHandle<Result<(), journal::Error>>,
    fold: thread::JoinHandle<Result<(), journal::Error>>,
    /// Ends by itself; nothing of it need be waited for.
    strategist: Option<Strategist>,
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
    let (stop_sources, stop_fold, stop_outlets) =
        <(CancellationToken, CancellationToken, CancellationToken)>::default();
    let progress = Progress::new();

    // The models, which take longer than all the rest: the fold alone waits for them.
    let mut outlets = JoinSet::new();
    let slot = Slot::default();
    let looking = watch_engines(config, slot.clone(), &stop_outlets);
    outlets.spawn(looking.run(stop_outlets.clone()));

    // The journals, and the two threads that live on them.
    let (records, predictions) = open_journals(config)?;
    let writer = Writer::new(records, config.commit);
    let reader = writer.reader();
    let (receipts, writer_status) = (writer.receipts(), writer.status());
    let live = Live::new(&reader, Predictor::new(Floor::shipped()), predictions)
        .context("the journal of predictions cannot be read")?
        .with_slot(slot);
    let prediction_reader = live.predictions();
    let snapshot = watch::channel(Arc::new(live.snapshot())).0;
    let snapshots = snapshot.subscribe();
    let alerts = broadcast::channel(ALERTS).0;

    let (intake, queue) = Intake::new(&runtime);
    let writer = spawn("writer", {
        let (stop, progress) = (stop_sources.clone(), progress.clone());
        move || writer.run(queue, &stop, || progress.beat(Stage::Writer))
    })?;
    let fold = spawn("fold", {
        let (reader, runtime, stop) = (reader.clone(), runtime.clone(), stop_fold.clone());
        let outlets = Outlets {
            snapshot,
            alerts: alerts.clone(),
            receipts: Arc::clone(&receipts),
        };
        let progress = progress.clone();
        let beat = move || progress.beat(Stage::Fold);
        move || live.run(&reader, &outlets, &runtime, &stop, beat)
    })?;

    // Beside the pipeline: what nothing waits for.
    let insights = insight::Outlets::default();
    let strategist = (config.compute.live)
        .then(|| {
            insight::start(
                config.insight(),
                &reader,
                &snapshots,
                &insights,
                &runtime,
                &stop_fold,
            )
        })
        .transpose()
        .context("the insight threads cannot be started")?;

    // Sources in.
    let mut sources = JoinSet::new();
    let gauge = intake.gauge();
    let statuses = start_sources(config, &intake, &stop_sources, &mut sources);

    // Answers out.
    let (health, healths) = watch::channel(Arc::new(Health::starting(started)));
    let server = api::serve(
        config.api.listen,
        api::Context {
            records: reader.clone(),
            predictions: prediction_reader.clone(),
            state: snapshots.clone(),
            health: healths.clone(),
            metrics,
            insights: insights.latest.subscribe(),
            alerts: alerts.clone(),
            news: insights.news.clone(),
            strategist: strategist.clone(),
        },
        stop_outlets.clone(),
    )
    .await?;
    let publications = Publications {
        predictions: prediction_reader,
        snapshots: snapshots.clone(),
        health: healths.clone(),
        alerts,
        insights: insights.news,
        receipts,
    };
    start_publishers(config, &publications, &stop_outlets, &mut outlets);
    outlets.spawn(read_sensors(config.data_dir.clone(), stop_outlets.clone()));
    outlets.spawn(
        Watch {
            started,
            data_dir: config.data_dir.clone(),
            reader,
            intake: gauge,
            writer: writer_status,
            snapshots,
            statuses,
            progress: progress.clone(),
            stopping: stop_sources.clone(),
        }
        .run(health, stop_outlets.clone()),
    );

    Ok(Running {
        address: server.address(),
        health: healths,
        progress,
        stop_sources,
        stop_fold,
        stop_outlets,
        intake,
        sources,
        writer,
        fold,
        strategist,
        outlets,
        server,
    })
}

impl Running {
    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the stages do, for a watchdog.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Waits until every source is connected.
    pub async fn connected(&self) {
        let all = |h: &Arc<Health>| h.sources.iter().all(|s| s.state == State::Connected);
        let mut health = self.health.clone();
        // An error: the daemon is stopping, and nobody need wait.
        let _ = health.wait_for(|h| !h.sources.is_empty() && all(h)).await;
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
        // With the sources' own handles gone, this closes the queue.
        drop(self.intake);
        let writer = join("writer", self.writer).await;
        self.stop_fold.cancel();
        if let Some(strategist) = &self.strategist {
            strategist.stop();
        }
        let fold = join("fold", self.fold).await;
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

/// Looks for other models and, where there is a GPU with TensorRT, gives them to it.
fn watch_engines(
    config: &Config,
    slot: Slot,
    #[cfg_attr(not(feature = "tensorrt"), expect(unused_variables))] stop: &CancellationToken,
) -> engines::Watch {
    let watch = engines::Watch::new(config.engines.dir.clone(), slot);
    #[cfg(feature = "tensorrt")]
    if let Some(precision) = config.engines.tensorrt.precision() {
        let cache = engines::cache(&config.data_dir);
        return watch.with_accelerator(engines::accelerate::Accelerator::new(
            cache,
            precision,
            stop.clone(),
        ));
    }
    watch
}

fn open_journals(config: &Config) -> anyhow::Result<(Journal, Journal)> {
    let open = |name: &str, options: journal::Options| {
        let dir = config.data_dir.join(name);
        Journal::open(&dir, options, &mut |p| {
            tracing::debug!(journal = name, done = p.done, of = p.of, "{}", p.what);
        })
        .with_context(|| format!("the journal in {} cannot be opened", dir.display()))
    };
    let records = open("records", config.journal.clone())?;
    let predictions = open(
        "predictions",
        journal::Options {
            durability: Durability::Lazy,
            tail_entries: config.journal.tail_entries.min(PREDICTIONS_TAIL),
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
        sources.spawn(mqtt::run(
            options.clone(),
            intake.clone(),
            status,
            stop.clone(),
        ));
    }
    if let Some(options) = &config.zenoh {
        let status = status("zenoh", "zenoh");
        sources.spawn(zenoh::run(
            options.clone(),
            intake.clone(),
            status,
            stop.clone(),
        ));
    }
    if let Some(options) = &config.openf1 {
        let status = status("openf1", "openf1");
        sources.spawn(openf1::run(
            options.clone(),
            intake.clone(),
            status,
            stop.clone(),
        ));
    }
    statuses
}

/// What publishers draw from.
struct Publications {
    predictions: Reader,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    health: watch::Receiver<Arc<Health>>,
    alerts: broadcast::Sender<Alert>,
    insights: broadcast::Sender<Insight>,
    receipts: Arc<Receipts>,
}

fn start_publishers(
    config: &Config,
    from: &Publications,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    if config.publish.mqtt.is_none() && config.publish.zenoh.is_none() {
        return;
    }
    let (state, states) = watch::channel(Bytes::new());
    let (health, healths) = watch::channel(Bytes::new());
    let (alert, alerts) = broadcast::channel(ALERTS);
    let (insight, insights) = broadcast::channel(insight::INSIGHTS);
    let drawn = Drawn {
        snapshots: from.snapshots.clone(),
        health: from.health.clone(),
        alerts: from.alerts.subscribe(),
        insights: from.insights.subscribe(),
    };
    let drawings = Drawings {
        state,
        health,
        alert,
        insight,
    };
    tasks.spawn(draw(drawn, drawings, stop.clone()));
    let outlets = publish::Outlets {
        predictions: from.predictions.clone(),
        state: states,
        health: healths,
        alerts,
        insights,
        receipts: Arc::clone(&from.receipts),
        places: config.data_dir.join("publish"),
    };
    if let Err(e) = std::fs::create_dir_all(&outlets.places) {
        // Said again, with what it means, by each publisher.
        tracing::warn!("cannot create {}: {e}", outlets.places.display());
    }
    let progress = || watch::channel(Delivery::default()).0;
    if let Some(options) = config.publish.mqtt.clone() {
        let outlets = outlets.clone();
        tasks.spawn(publish::mqtt::run(
            options,
            outlets,
            progress(),
            stop.clone(),
        ));
    }
    if let Some(options) = config.publish.zenoh.clone() {
        tasks.spawn(publish::zenoh::run(
            options,
            outlets,
            progress(),
            stop.clone(),
        ));
    }
}

/// What is written as JSON.
struct Drawn {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    health: watch::Receiver<Arc<Health>>,
    alerts: broadcast::Receiver<Alert>,
    insights: broadcast::Receiver<Insight>,
}

/// Where it goes as JSON.
struct Drawings {
    state: watch::Sender<Bytes>,
    health: watch::Sender<Bytes>,
    alert: broadcast::Sender<Bytes>,
    insight: broadcast::Sender<(String, Bytes)>,
}

/// Writes state, health, alerts and insights as JSON, once for all publishers.
async fn draw(mut from: Drawn, to: Drawings, stop: CancellationToken) {
    let mut tick = tokio::time::interval(STATE_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => if from.snapshots.has_changed().unwrap_or(false) {
                let snapshot = Arc::clone(&from.snapshots.borrow_and_update());
                to.state.send_replace(json(&Tower::of(&snapshot)));
            },
            Ok(()) = from.health.changed() => {
                let now = Arc::clone(&from.health.borrow_and_update());
                to.health.send_replace(json(&*now));
            }
            Ok(news) = from.alerts.recv() => {
                // Nobody listening is no error.
                let _ = to.alert.send(json(&news));
            }
            Ok(news) = from.insights.recv() => {
                let _ = to.insight.send((news.topic(), json(&news)));
            }
        }
    }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // Structs, lists and numbers: writing them as JSON cannot fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Puts the machine's readings into the metrics, off the runtime's threads: a sensor on a slow bus takes its time.
async fn read_sensors(data_dir: PathBuf, stop: CancellationToken) {
    let mut tick = tokio::time::interval(READINGS_INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let data_dir = data_dir.clone();
        let read = move || Readings::take(Path::new("/"), &data_dir).record();
        if let Err(e) = tokio::task::spawn_blocking(read).await {
            tracing::warn!(error = %e, "the sensors could not be read");
        }
    }
}

/// What health is made of.
struct Watch {
    started: Instant,
    data_dir: PathBuf,
    reader: Reader,
    intake: Gauge,
    writer: watch::Receiver<WriterStatus>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    statuses: Vec<watch::Receiver<SourceStatus>>,
    progress: Progress,
    stopping: CancellationToken,
}

impl Watch {
    async fn run(self, health: watch::Sender<Arc<Health>>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(HEALTH_INTERVAL);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            self.progress.beat(Stage::Runtime);
            let now = self.look();
            gauge!("trackside_ingest_queue_fill").set(self.intake.fill());
            gauge!("trackside_journal_next_seq").set(now.journal.next_seq as f64);
            record_scores(&self.snapshots.borrow().scores);
            health.send_replace(Arc::new(now));
        }
    }

    fn look(&self) -> Health {
        let now = Instant::now();
        let writer = self.writer.borrow().clone();
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let durable_seq = self.reader.next_seq();
        let sources: Vec<SourceStatus> = self.statuses.iter().map(|s| s.borrow().clone()).collect();
        let silence = writer.last_accepted.map(|t| now - t);

        let mut why = Vec::new();
        why.extend(writer.blocked.clone());
        why.extend(lost(&self.reader.losses()));
        for source in sources.iter().filter(|s| s.state != State::Connected) {
            let error = source.last_error.as_deref().unwrap_or("still connecting");
            why.push(format!("source {} is not connected: {error}", source.name));
        }
        if silence.is_some_and(|s| s > SILENT_AFTER) && !sources.is_empty() {
            why.push(format!("no record for more than {SILENT_AFTER:?}"));
        }
        let status = match () {
            () if self.stopping.is_cancelled() => Status::Stopping,
            () if writer.disk_full => Status::DiskFull,
            () if !why.is_empty() => Status::Degraded,
            () => Status::Ok,
        };
        Health {
            status,
            why,
            journal: JournalHealth {
                next_seq: durable_seq,
                durable_seq,
                disk_free_bytes: readings::disk(&self.data_dir).map(|d| d.free_bytes),
            },
            sources,
            queue: QueueHealth {
                held: (self.intake.fill() * QUEUE_MESSAGES as f64) as usize,
                capacity: QUEUE_MESSAGES,
            },
            last_record_age_s: silence.map(|s| s.as_secs_f64()),
            predictor: PredictorHealth {
                model: snapshot.predictor.0.clone(),
                backend: snapshot.predictor.1.to_owned(),
                seq: snapshot.seq,
            },
            at: now,
            ..Health::starting(self.started)
        }
    }
}

/// What is to be said of damage to the journal.
fn lost(losses: &[Loss]) -> Option<String> {
    let first = losses.first()?;
    Some(format!(
        "the journal is damaged in {} place(s), the first: {first}; the rest is served. Stop the daemon and run \
         `trackside journal repair`",
        losses.len()
    ))
}

/// Every figure of the scores as `trackside_predict_score{figure="laptime.clean.0.mae"}`.
fn record_scores(scores: &Scores) {
    fn walk(path: &mut String, value: &serde_json::Value) {
        let inner: Vec<(String, &serde_json::Value)> = match value {
            serde_json::Value::Object(fields) => {
                fields.iter().map(|(k, v)| (k.clone(), v)).collect()
            }
            serde_json::Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, v)| (i.to_string(), v))
                .collect(),
            serde_json::Value::Number(n) => {
                let figure = path.trim_start_matches('.').to_owned();
                gauge!("trackside_predict_score", "figure" => figure)
                    .set(n.as_f64().unwrap_or_default());
                return;
            }
            // Whether a model is adrift.
            serde_json::Value::Bool(holds) => {
                let figure = path.trim_start_matches('.').to_owned();
                gauge!("trackside_predict_score", "figure" => figure)
                    .set(f64::from(u8::from(*holds)));
                return;
            }
            _ => return,
        };
        for (name, value) in inner {
            let length = path.len();
            path.push('.');
            path.push_str(&name);
            walk(path, value);
            path.truncate(length);
        }
    }
    if let Ok(all) = serde_json::to_value(scores) {
        walk(&mut String::new(), &all);
    }
}
