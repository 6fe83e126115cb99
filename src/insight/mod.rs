//! Insight: what telemetry and laps say while they are driven, worked out beside the pipeline.
//!
//! ```text
//!  journal ──(by sequence, shed when far behind)──▶ ┌─ insight ────────────────────────────┐
//!  fold ──(the latest snapshot)───────────────────▶ │ tick: frame_stats, assemble_inputs   │ ─▶ alerts
//!                                                   │ a lap closes: lap_resample, features,│ ─▶ insights/lap
//!                                                   │   delta_trace; stint_fit             │ ─▶ insights/stint
//!                                                   └──────────────┬───────────────────────┘
//!                            mini-sectors of the cars that matter  ▼
//!                                                   ┌─ strategist ─────────────────────────┐
//!                                                   │ race_monte_carlo                     │ ─▶ insights/strategy
//!                                                   └──────────────────────────────────────┘
//! ```
//!
//! Two threads of their own, both behind the pipeline and neither waited for by it. The arithmetic is
//! [`crate::compute`]'s, on the backend that `[compute] backend` names; both backends give the same bits.
//!
//! What is shed, by what rule (each counted as `trackside_insight_shed_total{what=…}`):
//!
//! | what | rule |
//! |---|---|
//! | `records` | more than [`MOST_BEHIND`] behind the journal: on with the newest; laps with a hole say so |
//! | `samples` | more than [`telemetry::ROW`] of a channel since the last tick: the newest stay |
//! | `laps` | more than [`laps::LAPS_AT_ONCE`] closed since the last look: the newest stay |
//! | `questions` | a car whose question still waits is asked about once, as things stand by then |
//!
//! Ticks are of the wall's clock, [`TICK`] apart at least: a replay at many times the speed of life has no more of
//! them than life has. The strategist rests after each answer ([`strategist`]), so that its share of the machine is
//! bounded however often cars pass a mini-sector.
//!
//! **Invariant:** nothing that is folded, predicted or journalled depends on it. Take it away and all else is the
//! same, bytes included; that is why it may read the wall's clock.

#![forbid(unsafe_code)]

pub mod laps;
pub mod stints;
pub mod strategist;
pub mod telemetry;
#[cfg(test)]
mod tests;
pub mod thread;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::compute::By;
use crate::record::Time;

pub use laps::LapInsight;
pub use stints::StintInsight;
pub use strategist::{Strategist, StrategyInsight};
pub use telemetry::{Limit, TelemetryAlert};
pub use thread::{Options, Worker, start};

/// Least time between two ticks: 50 Hz.
pub const TICK: Duration = Duration::from_millis(20);
/// Records behind the journal beyond which this skips to the newest: within what the journal holds in memory, so
/// that nothing is ever decoded for it.
pub const MOST_BEHIND: u64 = 16_384;
/// Insights that a slow outlet may be behind.
pub const INSIGHTS: usize = 256;
/// Prefix of their topics below that of all topics.
pub const TOPIC: &str = "insights";
/// Histogram of what a stage took (s); labels `stage`, `backend`.
pub const STAGE_SECONDS: &str = "trackside_insight_stage_seconds";
/// Counter of what was shed; label `what`.
pub const SHED: &str = "trackside_insight_shed_total";

/// Where an insight comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Origin {
    pub session_key: i32,
    /// The feed's time.
    pub made_at: Time,
    /// Everything before this record is in it.
    pub seq: u64,
    /// What computed it.
    pub backend: By,
}

/// Something that was found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "insight", rename_all = "snake_case")]
pub enum Insight {
    Lap(Arc<LapInsight>),
    Stint(Arc<StintInsight>),
    Strategy(Arc<StrategyInsight>),
    Telemetry(TelemetryAlert),
}

impl Insight {
    /// Its topic below the prefix of all topics: `insights/{lap,stint,strategy}/<driver>`, or `alerts`.
    pub fn topic(&self) -> String {
        let (name, driver) = match self {
            Insight::Lap(i) => ("lap", i.driver_number),
            Insight::Stint(i) => ("stint", i.driver_number),
            Insight::Strategy(i) => ("strategy", i.advice.driver_number),
            Insight::Telemetry(_) => return "alerts".to_owned(),
        };
        format!("{TOPIC}/{name}/{driver}")
    }
}

/// The latest of everything, by car.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Insights {
    pub session_key: Option<i32>,
    pub lap: BTreeMap<u8, Arc<LapInsight>>,
    pub stint: BTreeMap<u8, Arc<StintInsight>>,
    pub strategy: BTreeMap<u8, Arc<StrategyInsight>>,
    /// Limits of channels that are broken now.
    pub alerts: Vec<TelemetryAlert>,
}

/// Where insights go. Clones say to the same listeners.
#[derive(Clone)]
pub struct Outlets {
    pub latest: watch::Sender<Arc<Insights>>,
    pub news: broadcast::Sender<Insight>,
}

impl Default for Outlets {
    fn default() -> Outlets {
        Outlets {
            latest: watch::channel(Arc::default()).0,
            news: broadcast::channel(INSIGHTS).0,
        }
    }
}

impl Outlets {
    fn say(&self, insight: Insight) {
        self.latest.send_modify(|all| {
            let all = Arc::make_mut(all);
            match &insight {
                Insight::Lap(i) => {
                    all.lap.insert(i.driver_number, Arc::clone(i));
                }
                Insight::Stint(i) => {
                    all.stint.insert(i.driver_number, Arc::clone(i));
                }
                Insight::Strategy(i) if all.session_key == Some(i.origin.session_key) => {
                    all.strategy.insert(i.advice.driver_number, Arc::clone(i));
                }
                // Of a session that is over by now.
                Insight::Strategy(_) => {}
                Insight::Telemetry(i) => {
                    all.alerts.retain(|a| !a.is_about_the_same(i));
                    if i.broken {
                        all.alerts.push(i.clone());
                    }
                }
            }
        });
        // Nobody listening is no error.
        let _ = self.news.send(insight);
    }

    fn begin_session(&self, session_key: Option<i32>) {
        self.latest.send_replace(Arc::new(Insights {
            session_key,
            ..Insights::default()
        }));
    }
}

/// Notes what a stage took.
fn took(stage: &'static str, by: By, began: Instant) {
    metrics::histogram!(STAGE_SECONDS, "stage" => stage, "backend" => by.name())
        .record(began.elapsed().as_secs_f64());
}

fn shed(what: &'static str, count: u64) {
    if count > 0 {
        metrics::counter!(SHED, "what" => what).increment(count);
    }
}
