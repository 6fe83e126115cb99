//! `/ws`: records, predictions, state, health, alerts and insights as they happen, from any sequence on.
//!
//! `?topics=` takes `records`, `predictions`, `state`, `health`, `alerts` and `insights` (default: `state,health`),
//! `kinds=` the collections that `records` sends (default: all), `from_seq=` and
//! `from_prediction=` where to begin (default: now). One JSON object a message:
//!
//! ```text
//! {"type":"hello","version":…,"topics":[…],"from_seq":…,"next_seq":…,"from_prediction":…,"next_prediction":…,"reset":false}
//! {"type":"record","seq":N,"topic":"v1/laps","payload":{…}}
//! {"type":"prediction","seq":N,"topic":"trackside/v1/predictions/laptime/1","payload":{…}}
//! {"type":"caught_up","stream":"records","next_seq":N}
//! {"type":"skipped","stream":"records","from":A,"to":B}      what is damaged or expired
//! {"type":"state","seq":N,"payload":{…}}                     at most 5 a second, the latest wins
//! {"type":"health","payload":{…}}                            at most 1 a second
//! {"type":"alert","payload":{…}}                             flags, race control, retirements, limits of channels
//! {"type":"insight","topic":"insights/lap/44","payload":{…}} as published under that topic
//! {"type":"missed","stream":"alerts","count":N}              by a client too slow for them
//! ```
//!
//! Each client reads the journals at its own pace, so a slow one slows only itself; one that takes
//! nothing for [`SEND_TIMEOUT`] is let go, and comes back with its last sequence plus one.
//! `reset` is true where a client asked for a sequence beyond the journal's end: the journal is
//! another one than it knew, and it begins at the end of this one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::follow::{Follower, Stream};
use super::health::Answer;
use super::params::Params;
use super::refusal::quoted;
use super::{Refusal, Shared};
use crate::insight::Insight;
use crate::journal::Reader;
use crate::record::Kind;

/// Most clients at once.
pub const MAX_CLIENTS: usize = 64;
/// Largest message taken from a client (bytes); none needs to send any.
pub const MAX_INBOUND_BYTES: usize = 4 * 1024;
/// Most messages taken from a client between two pings.
pub const MAX_INBOUND: u32 = 64;
/// How long a client may take for what is sent to it at once (at most about 256 KiB).
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client is asked whether it is there.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Silence after which a client counts as gone.
pub const SILENCE: Duration = Duration::from_secs(45);
/// Shortest time between two states.
pub const STATE_INTERVAL: Duration = Duration::from_millis(200);
/// Shortest time between two healths.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wish {
    records: bool,
    predictions: bool,
    state: bool,
    health: bool,
    alerts: bool,
    insights: bool,
    kinds: Option<Vec<Kind>>,
    from_seq: Option<u64>,
    from_prediction: Option<u64>,
}

impl Wish {
    fn of(params: Params) -> Result<Wish, Refusal> {
        let params = params.only(&["topics", "kinds", "from_seq", "from_prediction"])?;
        let mut wish = Wish {
            kinds: params.kinds("kinds")?,
            from_seq: params.number("from_seq", 0..=u64::MAX)?,
            from_prediction: params.number("from_prediction", 0..=u64::MAX)?,
            ..Wish::default()
        };
        for topic in params.text("topics").unwrap_or("state,health").split(',') {
            match topic.trim() {
                "records" => wish.records = true,
                "predictions" => wish.predictions = true,
                "state" => wish.state = true,
                "health" => wish.health = true,
                "alerts" => wish.alerts = true,
                "insights" => wish.insights = true,
                other => {
                    let remedy =
                        "the topics are records, predictions, state, health, alerts and insights";
                    return Err(Refusal::parameter("topics", other, remedy));
                }
            }
        }
        let needs = [
            ("from_seq", wish.from_seq.is_some(), wish.records, "records"),
            ("kinds", wish.kinds.is_some(), wish.records, "records"),
            (
                "from_prediction",
                wish.from_prediction.is_some(),
                wish.predictions,
                "predictions",
            ),
        ];
        for (name, given, has_topic, topic) in needs {
            if given && !has_topic {
                let value = params.text(name).unwrap_or_default();
                let remedy = format!("it needs {topic} among the topics");
                return Err(Refusal::parameter(name, value, &remedy));
            }
        }
        Ok(wish)
    }

    fn topics(&self) -> Vec<&'static str> {
        [
            (self.records, "records"),
            (self.predictions, "predictions"),
            (self.state, "state"),
            (self.health, "health"),
            (self.alerts, "alerts"),
            (self.insights, "insights"),
        ]
        .into_iter()
        .filter_map(|(asked, name)| asked.then_some(name))
        .collect()
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "hello")]
struct Hello {
    version: &'static str,
    topics: Vec<&'static str>,
    from_seq: u64,
    first_seq: u64,
    next_seq: u64,
    from_prediction: u64,
    next_prediction: u64,
    reset: bool,
}

pub(super) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    params: Params,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let wish = Wish::of(params)?;
    let upgrade = upgrade.map_err(|e| Refusal {
        status: StatusCode::UPGRADE_REQUIRED,
        detail: format!("/ws speaks WebSocket only: {e}"),
    })?;
    same_origin(&headers)?;
    let permit = Arc::clone(&shared.clients)
        .try_acquire_owned()
        .map_err(|_| {
            Refusal::busy(format!(
                "{MAX_CLIENTS} WebSocket clients are connected, which is the most; close one"
            ))
        })?;
    let tracker = shared.tracker.clone();
    Ok(upgrade
        .max_message_size(MAX_INBOUND_BYTES)
        .max_frame_size(MAX_INBOUND_BYTES)
        .on_upgrade(move |socket| tracker.track_future(serve(socket, wish, shared, permit))))
}

/// A page from elsewhere must not read the pit wall through its visitor's browser. Clients that
/// are no browsers send no origin.
fn same_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = text(header::HOST).unwrap_or_default();
    let from = origin
        .split_once("://")
        .map_or("", |(_, authority)| authority);
    if !host.is_empty() && from.eq_ignore_ascii_case(host) {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::FORBIDDEN,
        detail: format!(
            "the page's origin is {}, ours is {}; open the page from here, or pass Host on in the proxy",
            quoted(origin),
            quoted(host)
        ),
    })
}

/// Why a client is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It left, or its connection broke.
    Gone,
    Slow,
    Silent,
    Chatty,
    Stopping,
    Fault,
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            End::Gone => "gone",
            End::Slow => "slow",
            End::Silent => "silent",
            End::Chatty => "chatty",
            End::Stopping => "stopping",
            End::Fault => "fault",
        }
    }

    /// What it is told, where it can still be told.
    fn close(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            End::Gone | End::Slow | End::Silent => return None,
            End::Chatty => (
                close_code::POLICY,
                "too many messages; this one only listens",
            ),
            End::Stopping => (close_code::AWAY, "the daemon is stopping; come back"),
            End::Fault => (close_code::ERROR, "the journal could not be read"),
        };
        Some(CloseFrame {
            code,
            reason: reason.into(),
        })
    }
}

async fn serve(socket: WebSocket, wish: Wish, shared: Arc<Shared>, _permit: OwnedSemaphorePermit) {
    let clients = metrics::gauge!("trackside_api_clients");
    clients.increment(1.0);
    let (out, inbound) = socket.split();
    let mut outlet = Outlet {
        out,
        shared: Arc::clone(&shared),
    };
    let Err(end) = converse(&mut outlet, inbound, wish, &shared).await;
    if let Some(frame) = end.close() {
        let goodbye = outlet.out.send(Message::Close(Some(frame)));
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }
    clients.decrement(1.0);
    metrics::counter!("trackside_api_clients_closed_total", "reason" => end.name()).increment(1);
    tracing::debug!(reason = end.name(), "WebSocket client closed");
}

/// Where a client's messages go.
struct Outlet {
    out: SplitSink<WebSocket, Message>,
    shared: Arc<Shared>,
}

impl Outlet {
    /// Sends all, or says why that is not possible.
    async fn send(&mut self, messages: Vec<Utf8Bytes>) -> Result<(), End> {
        let count = messages.len() as u64;
        let out = &mut self.out;
        let sending = async {
            for message in messages {
                out.feed(Message::Text(message)).await?;
            }
            out.flush().await
        };
        tokio::select! {
            () = self.shared.stop.cancelled() => Err(End::Stopping),
            sent = tokio::time::timeout(SEND_TIMEOUT, sending) => match sent {
                Ok(Ok(())) => {
                    metrics::counter!("trackside_api_messages_sent_total").increment(count);
                    Ok(())
                }
                Ok(Err(_)) => Err(End::Gone),
                Err(_) => Err(End::Slow),
            },
        }
    }

    async fn ping(&mut self) -> Result<(), End> {
        match tokio::time::timeout(
            SEND_TIMEOUT,
            self.out.send(Message::Ping(Default::default())),
        )
        .await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Slow),
        }
    }
}

/// Where a follower begins: where it was asked to, else at the end; at the end too, and `true`,
/// where it was asked to begin beyond it.
fn begin(reader: &Reader, asked: Option<u64>) -> (u64, u64, bool) {
    let next = reader.next_seq();
    match asked {
        Some(from) if from <= next => (from, next, false),
        Some(_) => (next, next, true),
        None => (next, next, false),
    }
}

/// Talks to one client until it or we end it.
async fn converse(
    outlet: &mut Outlet,
    mut inbound: SplitStream<WebSocket>,
    wish: Wish,
    shared: &Shared,
) -> Result<std::convert::Infallible, End> {
    let context = &shared.context;
    let (from_seq, next_seq, reset) = begin(&context.records, wish.from_seq);
    let (from_prediction, next_prediction, reset_too) =
        begin(&context.predictions, wish.from_prediction);
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION"),
        topics: wish.topics(),
        from_seq,
        first_seq: context.records.first_seq(),
        next_seq,
        from_prediction,
        next_prediction,
        reset: reset || reset_too,
    };
    outlet.send(vec![text(&hello)]).await?;

    let mut records = wish.records.then(|| {
        Follower::new(
            Stream::Records,
            context.records.clone(),
            from_seq,
            wish.kinds,
        )
    });
    let mut predictions = wish.predictions.then(|| {
        let reader = context.predictions.clone();
        Follower::new(Stream::Predictions, reader, from_prediction, None)
    });
    let (mut state, mut health) = (context.state.clone(), context.health.clone());
    let mut alerts = wish.alerts.then(|| context.alerts.subscribe());
    // Limits of channels are alerts, too.
    let mut news = (wish.alerts || wish.insights).then(|| context.news.subscribe());
    // Something to send at once, then on each change, but never sooner than the interval.
    let (mut state_due, mut health_due) = (wish.state, wish.health);
    let (mut state_at, mut health_at) = (tokio::time::Instant::now(), tokio::time::Instant::now());
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut inbound_count) = (Instant::now(), 0);

    loop {
        // Every branch only waits; the work is done when one is chosen, so that dropping the others
        // loses nothing. The choice among ready branches is random, hence fair.
        tokio::select! {
            () = shared.stop.cancelled() => return Err(End::Stopping),
            message = inbound.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
                Some(Ok(_)) => {
                    heard = Instant::now();
                    inbound_count += 1;
                    if inbound_count > MAX_INBOUND {
                        return Err(End::Chatty);
                    }
                }
            },
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE {
                    return Err(End::Silent);
                }
                inbound_count = 0;
                outlet.ping().await?;
            }
            changed = state.changed(), if wish.state && !state_due => {
                changed.map_err(|_| End::Stopping)?;
                state_due = true;
            }
            () = sleep_until(state_at), if state_due => {
                state.mark_unchanged();
                state_due = false;
                state_at = tokio::time::Instant::now() + STATE_INTERVAL;
                outlet.send(vec![shared.picture.latest().message]).await?;
            }
            changed = health.changed(), if wish.health && !health_due => {
                changed.map_err(|_| End::Stopping)?;
                health_due = true;
            }
            () = sleep_until(health_at), if health_due => {
                health_due = false;
                health_at = tokio::time::Instant::now() + HEALTH_INTERVAL;
                let answer = Answer::of(&health.borrow_and_update().clone(), Instant::now());
                outlet.send(vec![text(&Pushed::Health { payload: answer })]).await?;
            }
            alert = heard_of(&mut alerts) => match alert? {
                Ok(alert) => outlet.send(vec![text(&Pushed::Alert { payload: &alert })]).await?,
                Err(count) => outlet.send(vec![missed("alerts", count)]).await?,
            },
            insight = heard_of(&mut news) => match insight? {
                Ok(alert @ Insight::Telemetry(_)) => if wish.alerts {
                    outlet.send(vec![text(&Pushed::Alert { payload: &alert })]).await?;
                },
                Ok(insight) if wish.insights => {
                    let topic = insight.topic();
                    outlet.send(vec![text(&Pushed::Insight { topic, payload: &insight })]).await?;
                }
                Ok(_) => {}
                Err(count) => outlet.send(vec![missed("insights", count)]).await?,
            },
            ready = ready(&mut records) => pass_on(outlet, &mut records, ready).await?,
            ready = ready(&mut predictions) => pass_on(outlet, &mut predictions, ready).await?,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Pushed<P> {
    Health { payload: P },
    Alert { payload: P },
    Insight { topic: String, payload: P },
    Missed { stream: &'static str, count: u64 },
}

fn missed(stream: &'static str, count: u64) -> Utf8Bytes {
    metrics::counter!("trackside_api_news_missed_total", "stream" => stream).increment(count);
    text(&Pushed::<()>::Missed { stream, count })
}

/// Waits for the next of a broadcast that may not be listened to; `Err` within: how many were missed.
async fn heard_of<T: Clone>(
    from: &mut Option<broadcast::Receiver<T>>,
) -> Result<Result<T, u64>, End> {
    let Some(from) = from else {
        return std::future::pending().await;
    };
    match from.recv().await {
        Ok(news) => Ok(Ok(news)),
        Err(RecvError::Lagged(count)) => Ok(Err(count)),
        Err(RecvError::Closed) => Err(End::Stopping),
    }
}

/// Waits for a follower that may not be there.
async fn ready(follower: &mut Option<Follower>) -> Option<()> {
    match follower {
        Some(follower) => follower.ready().await,
        None => std::future::pending().await,
    }
}

async fn pass_on(
    outlet: &mut Outlet,
    follower: &mut Option<Follower>,
    ready: Option<()>,
) -> Result<(), End> {
    let (Some(follower), Some(())) = (follower, ready) else {
        return Err(End::Stopping);
    };
    let messages = follower.read().await.map_err(|error| {
        tracing::error!(%error, "a WebSocket client's catch-up could not read the journal");
        End::Fault
    })?;
    if messages.is_empty() {
        return Ok(());
    }
    outlet.send(messages).await
}

fn text(value: &impl Serialize) -> Utf8Bytes {
    // Structs, lists and numbers of our own: writing them as JSON cannot fail.
    serde_json::to_string(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8040"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn only_our_own_page_may_listen_from_a_browser() {
        assert!(same_origin(&headers(None)).is_ok());
        assert!(same_origin(&headers(Some("http://127.0.0.1:8040"))).is_ok());
        for other in ["http://127.0.0.1", "https://evil.example", "null", ""] {
            let refusal = same_origin(&headers(Some(other))).unwrap_err();
            assert_eq!(refusal.status, StatusCode::FORBIDDEN, "{other}");
        }
    }
}
