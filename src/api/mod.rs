//! API: what the daemon knows, over HTTP and WebSocket, and the pit-wall page.
//!
//! **Invariant:** it holds no state of its own. Every answer is read from a journal by sequence or
//! from the latest snapshot; what is kept here (one rendered snapshot) can be thrown away at any
//! moment. It never writes, and nobody waits for it: a slow reader slows only itself.
//!
//! | route | answers |
//! |---|---|
//! | `/health`, `/health/live`, `/health/ready` | how the daemon is ([`health`]) |
//! | `/api/v1/state` | the timing tower ([`tower`]) |
//! | `/api/v1/cars/{number}` | one car: laps, stints, pits |
//! | `/api/v1/telemetry/{number}` | car_data and location from the journal ([`telemetry`]) |
//! | `/api/v1/predictions`, `/api/v1/predictions/{laptime,race,pit}` | the latest; the history |
//! | `/api/v1/insights` | laps, stints, strategy and limits of channels: the latest of each car |
//! | `/api/v1/strategy/{number}` | a car's stops, simulated now |
//! | `/api/v1/analytics/drivers` | what the laps so far say about each driver: pace, consistency, tyres, sectors |
//! | `/api/v1/scores` | how past predictions did |
//! | `/api/v1/sessions`, `/api/v1/records` | what the journal holds ([`history`]) |
//! | `/ws` | all of it as it happens, from any sequence on ([`stream`]) |
//! | `/metrics` | Prometheus text |
//! | `/` | the page ([`page`]) |
//!
//! Every request is bounded: in size ([`MAX_BODY_BYTES`]), in time ([`REQUEST_TIMEOUT`]), in rows
//! (each route's own constants), in connections ([`MAX_CONNECTIONS`]) and in what runs on the disk
//! at once ([`MAX_JOURNAL_READS`]). Errors are `{"detail": "…"}` and name the parameter, the value
//! and the remedy.

#![forbid(unsafe_code)]

pub mod health;
pub mod history;
pub mod page;
pub mod params;
pub mod refusal;
pub mod state;
pub mod stream;
pub mod telemetry;
pub mod tower;

mod door;
mod follow;
mod picture;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::insight::{Insight, Insights, Strategist};
use crate::journal;
use crate::live::{Alert, Snapshot};

pub use health::Health;
pub use refusal::Refusal;

/// Largest request body that is read; no route needs one.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// Longest that a request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Most connections at once; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 512;
/// Most requests that read the journal at once; further ones wait their turn.
pub const MAX_JOURNAL_READS: usize = 4;
/// How long open connections get to finish when the daemon stops.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Where it listens unless told otherwise: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8040";

/// What the API reads.
#[derive(Clone)]
pub struct Context {
    pub records: journal::Reader,
    pub predictions: journal::Reader,
    pub state: watch::Receiver<Arc<Snapshot>>,
    pub health: watch::Receiver<Arc<Health>>,
    pub metrics: PrometheusHandle,
    pub insights: watch::Receiver<Arc<Insights>>,
    /// For WebSocket clients that listen to them.
    pub alerts: broadcast::Sender<Alert>,
    pub news: broadcast::Sender<Insight>,
    /// Whom to ask about a car's stops; `None` where it is left out.
    pub strategist: Option<Strategist>,
}

/// Why the API cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot listen on {listen}: {source}; stop what listens there, or set [api] listen to another address"
    )]
    Listen {
        listen: SocketAddr,
        source: io::Error,
    },
}

/// What every handler may reach.
struct Shared {
    context: Context,
    picture: picture::Picture,
    /// Bounds what reads the journal for a request.
    journal_reads: Arc<Semaphore>,
    /// Bounds WebSocket clients.
    clients: Arc<Semaphore>,
    /// WebSocket clients that are still being served.
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// An API that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped: after the token was cancelled, at most [`SHUTDOWN_GRACE`].
    pub async fn finished(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the API ended badly");
        }
    }
}

/// Binds `listen`, then serves until `stop` is cancelled.
///
/// # Errors
///
/// [`Error::Listen`] where the address cannot be had. Nothing fails after that: what goes wrong on
/// one connection ends that connection.
pub async fn serve(
    listen: SocketAddr,
    context: Context,
    stop: CancellationToken,
) -> Result<Server, Error> {
    let failed = |source| Error::Listen { listen, source };
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let listener = door::Bounded::new(listener, MAX_CONNECTIONS);

    let tracker = TaskTracker::new();
    let app = router_with(context, stop.clone(), tracker.clone());
    let task = tokio::spawn(async move {
        let stopping = stop.clone();
        let serving = axum::serve(listener, app)
            .with_graceful_shutdown(async move { stopping.cancelled().await });
        let drained = async {
            stop.cancelled().await;
            tracker.close();
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            _ = async { let _ = serving.await; tracker.close(); tracker.wait().await } => {}
            () = drained => tracing::warn!(
                grace_s = SHUTDOWN_GRACE.as_secs(),
                "API connections were still open after the grace period; closed"
            ),
        }
    });
    Ok(Server { address, task })
}

/// The routes with all their layers, for a server of one's own.
pub fn router(context: Context, stop: CancellationToken) -> Router {
    router_with(context, stop, TaskTracker::new())
}

fn router_with(context: Context, stop: CancellationToken, tracker: TaskTracker) -> Router {
    let shared = Arc::new(Shared {
        picture: picture::Picture::new(context.state.clone()),
        context,
        journal_reads: Arc::new(Semaphore::new(MAX_JOURNAL_READS)),
        clients: Arc::new(Semaphore::new(stream::MAX_CLIENTS)),
        tracker,
        stop,
    });
    let routes = Router::new()
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/api/v1/state", get(state::state))
        .route("/api/v1/cars/{number}", get(state::car))
        .route("/api/v1/insights", get(state::insights))
        .route("/api/v1/strategy/{number}", get(state::strategy))
        .route("/api/v1/analytics/drivers", get(state::drivers))
        .route("/api/v1/scores", get(state::scores))
        .route("/api/v1/telemetry/{number}", get(telemetry::telemetry))
        .route("/api/v1/predictions", get(state::predictions))
        .route("/api/v1/predictions/{question}", get(history::predictions))
        .route("/api/v1/sessions", get(history::sessions))
        .route("/api/v1/records", get(history::records))
        .route("/metrics", get(health::metrics))
        .route("/ws", get(stream::upgrade))
        .merge(page::routes())
        .fallback(refusal::no_such_route)
        .method_not_allowed_fallback(refusal::only_get)
        .with_state(shared);
    door::guard(routes)
}

#[cfg(test)]
mod tests;
