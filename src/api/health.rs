//! Health: what an operator, a load balancer and systemd ask for.
//!
//! The daemon publishes a [`Health`] about once a second; these handlers only read it. One that has
//! not been renewed for [`MAX_AGE`] is itself a fault, and is said so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::params::Params;
use super::{Refusal, Shared};
use crate::ingest::status::SourceStatus;

/// Age at which a health that was not renewed counts as a fault.
pub const MAX_AGE: Duration = Duration::from_secs(15);

/// How the daemon is, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not ready yet: the journal is being folded.
    #[default]
    Starting,
    Ok,
    /// Works, but not as it should; `why` says how.
    Degraded,
    /// No room: nothing is acknowledged until there is.
    DiskFull,
    Stopping,
}

/// How the journal is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JournalHealth {
    /// Sequence of the next entry that will be appended.
    pub next_seq: u64,
    /// Everything below it is on disk.
    pub durable_seq: u64,
    /// Bytes left for it; `None` where the file system does not say.
    pub disk_free_bytes: Option<u64>,
}

/// How full the queue between the sources and the journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueHealth {
    pub held: usize,
    pub capacity: usize,
}

/// What predicts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PredictorHealth {
    /// Model and version, such as `floor-1`.
    pub model: String,
    /// `cpu`, `cuda`, `tensorrt`.
    pub backend: String,
    /// Sequence of the last record that it has seen.
    pub seq: u64,
}

/// How the daemon is.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    pub status: Status,
    /// What is wrong, one sentence each; empty when all is well.
    pub why: Vec<String>,
    pub version: &'static str,
    pub journal: JournalHealth,
    pub sources: Vec<SourceStatus>,
    pub queue: QueueHealth,
    /// Age of the last accepted record of any source (s).
    pub last_record_age_s: Option<f64>,
    pub predictor: PredictorHealth,
    /// When the daemon started.
    #[serde(skip)]
    pub started: Instant,
    /// When this was written.
    #[serde(skip)]
    pub at: Instant,
}

impl Health {
    /// Of a daemon that started at `started` and has not done anything yet.
    pub fn starting(started: Instant) -> Health {
        Health {
            status: Status::Starting,
            why: Vec::new(),
            version: env!("CARGO_PKG_VERSION"),
            journal: JournalHealth::default(),
            sources: Vec::new(),
            queue: QueueHealth::default(),
            last_record_age_s: None,
            predictor: PredictorHealth::default(),
            started,
            at: started,
        }
    }

    /// As it stands at `now`: ages have grown since it was written, and if nobody has renewed it
    /// for too long, that is what is wrong.
    pub fn seen_at(&self, now: Instant) -> Health {
        let age = now.saturating_duration_since(self.at);
        let mut seen = self.clone();
        if let Some(s) = &mut seen.last_record_age_s {
            *s += age.as_secs_f64();
        }
        if age > MAX_AGE {
            if matches!(seen.status, Status::Ok | Status::Starting) {
                seen.status = Status::Degraded;
            }
            seen.why.push(format!(
                "health was last renewed {:.0} s ago, over {} s: the daemon's loop hangs; restart it and keep its log",
                age.as_secs_f64(),
                MAX_AGE.as_secs()
            ));
        }
        seen
    }

    /// Whether it may be given work.
    pub fn is_ready(&self) -> bool {
        matches!(self.status, Status::Ok | Status::Degraded)
    }
}

/// A health with its uptime, as it is answered and pushed.
#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    health: Health,
    uptime_s: f64,
}

impl Answer {
    pub fn of(health: &Health, now: Instant) -> Answer {
        Answer {
            health: health.seen_at(now),
            uptime_s: now
                .saturating_duration_since(health.started)
                .as_secs_f64()
                .round(),
        }
    }
}

fn answer(shared: &Shared, well: impl Fn(&Health) -> bool) -> Response {
    let health = Arc::clone(&shared.context.health.borrow());
    let answer = Answer::of(&health, Instant::now());
    let status = if well(&answer.health) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

pub(super) async fn health(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    Ok(answer(&shared, |h| h.status == Status::Ok))
}

/// The process answers: that is all.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "live" }))
}

pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    answer(&shared, Health::is_ready)
}

/// Prometheus text, version 0.0.4.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    (
        [
            (
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            ),
            (header::CACHE_CONTROL, "no-store"),
        ],
        shared.context.metrics.render(),
    )
        .into_response()
}
