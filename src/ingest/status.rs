//! How a source is doing, for health and for the page.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{Counter, counter, gauge};
use serde::Serialize;
use tokio::sync::watch;

use crate::record::Time;

/// How often a busy source writes its counts into its status.
pub const REFRESH: Duration = Duration::from_millis(200);
/// Longest error text that is kept (characters).
const MAX_ERROR_CHARS: usize = 300;

/// Where a source stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Trying to reach its peer.
    #[default]
    Connecting,
    /// Connected and subscribed.
    Connected,
    /// The peer answered and said no; tried again, but rarely.
    Refused,
    /// Told to stop, or at its end.
    Stopped,
}

/// A snapshot of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceStatus {
    /// As in the configuration.
    pub name: String,
    /// `mqtt`, `zenoh`, `openf1` or `replay`.
    pub kind: &'static str,
    pub state: State,
    pub connected_since: Option<Time>,
    /// Connections made since start.
    pub connections: u64,
    /// The last error, until the next one; not cleared by a success.
    pub last_error: Option<String>,
    pub last_error_at: Option<Time>,
    /// Messages taken off the wire.
    pub messages: u64,
    /// Their payloads (B).
    pub bytes: u64,
    /// QoS 0 messages that found no room.
    pub shed: u64,
    /// Messages acknowledged to the peer.
    pub acknowledged: u64,
    /// Messages of this connection that wait for their acknowledgement.
    pub unacknowledged: u64,
    pub last_message_at: Option<Time>,
}

impl SourceStatus {
    /// Of a source that has not begun.
    pub fn new(name: impl Into<String>, kind: &'static str) -> SourceStatus {
        SourceStatus {
            name: name.into(),
            kind,
            state: State::Connecting,
            connected_since: None,
            connections: 0,
            last_error: None,
            last_error_at: None,
            messages: 0,
            bytes: 0,
            shed: 0,
            acknowledged: 0,
            unacknowledged: 0,
            last_message_at: None,
        }
    }
}

/// The present instant by the wall clock. Only for people to read: nothing is computed from it.
pub(crate) fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Counts on a source's hot path; told to the watchers at most every [`REFRESH`].
pub(crate) struct Tally {
    to: watch::Sender<SourceStatus>,
    messages: u64,
    bytes: u64,
    shed: u64,
    acknowledged: u64,
    unacknowledged: u64,
    told: Instant,
    messages_total: Counter,
    bytes_total: Counter,
    acknowledged_total: Counter,
}

impl Tally {
    pub(crate) fn new(to: watch::Sender<SourceStatus>) -> Tally {
        let name = to.borrow().name.clone();
        Tally {
            to,
            messages: 0,
            bytes: 0,
            shed: 0,
            acknowledged: 0,
            unacknowledged: 0,
            told: Instant::now(),
            messages_total: counter!("trackside_ingest_received_total", "source" => name.clone()),
            bytes_total: counter!("trackside_ingest_received_bytes_total", "source" => name.clone()),
            acknowledged_total: counter!("trackside_ingest_acknowledged_total", "source" => name),
        }
    }

    pub(crate) fn message(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    pub(crate) fn shed(&mut self) {
        self.shed += 1;
    }

    /// One more is out for its acknowledgement.
    pub(crate) fn awaits(&mut self) {
        self.unacknowledged += 1;
    }

    pub(crate) fn acknowledged(&mut self) {
        self.acknowledged += 1;
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
    }

    /// One that was out will not be asked about any more.
    pub(crate) fn withdrawn(&mut self) {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
    }

    /// A new connection: nothing is out on it.
    pub(crate) fn fresh(&mut self) {
        self.unacknowledged = 0;
    }

    pub(crate) const fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    pub(crate) fn connected(&mut self) {
        self.tell(|s| {
            s.state = State::Connected;
            s.connections += 1;
            s.connected_since = Some(now());
        });
        self.up(1.0);
    }

    pub(crate) fn failed(&mut self, state: State, error: &str) {
        let text: String = error.chars().take(MAX_ERROR_CHARS).collect();
        self.tell(|s| {
            s.state = state;
            s.connected_since = None;
            s.last_error = Some(text);
            s.last_error_at = Some(now());
        });
        self.up(0.0);
    }

    pub(crate) fn stopped(&mut self) {
        self.tell(|s| {
            s.state = State::Stopped;
            s.connected_since = None;
        });
        self.up(0.0);
    }

    /// Writes the counts out if they have been kept back long enough.
    pub(crate) fn refresh(&mut self) {
        if self.told.elapsed() >= REFRESH {
            self.tell(|_| {});
        }
    }

    fn up(&self, value: f64) {
        let name = self.to.borrow().name.clone();
        gauge!("trackside_ingest_connected", "source" => name).set(value);
    }

    fn tell(&mut self, change: impl FnOnce(&mut SourceStatus)) {
        self.told = Instant::now();
        self.messages_total.increment(self.messages);
        self.bytes_total.increment(self.bytes);
        self.acknowledged_total.increment(self.acknowledged);
        self.to.send_modify(|s| {
            s.messages += self.messages;
            s.bytes += self.bytes;
            s.shed += self.shed;
            s.acknowledged += self.acknowledged;
            s.unacknowledged = self.unacknowledged;
            if self.messages > 0 {
                s.last_message_at = Some(now());
            }
            change(s);
        });
        self.messages = 0;
        self.bytes = 0;
        self.shed = 0;
        self.acknowledged = 0;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.tell(|_| {});
    }
}
