//! OpenF1's live feed: a token by OAuth2, MQTT with the token as password, and by REST what the feed
//! does not push.
//!
//! ```text
//!  POST /token ──▶ subscription A ──────────────────────┐ 80 % of the token's life
//!                        POST /token ──▶ subscription B ┴──────────────────────┐ …
//! ```
//!
//! A token is refreshed before it ends: a second subscription, under another client id, is made with
//! the new one, and only when the broker has confirmed it is the first let go. What both deliver is
//! one message to the intake, which knows it by its content. If the broker refuses us, a new token is
//! fetched, but not in a storm.
//!
//! The feed is QoS 0 and has no memory: what is published while we are away is lost here. Hence the
//! REST calls at each start ([`rest`]), made after the subscription stands, so that nothing falls in
//! between.

mod rest;
mod token;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::backoff::{self, Backoff};
use super::intake::Intake;
use super::mqtt::broker::{self, Broker, Version};
use super::mqtt::source::{Ended, Subscription, subscribe};
use super::secret::{self, Secret};
use super::status::{SourceStatus, State, Tally};
use super::tls;
use crate::record::Kind;
use token::{Token, TokenError};

/// The part of a token's life after which it is refreshed.
const REFRESH_AT: f64 = 0.8;
/// How long a new subscription may take before the old one is let go all the same.
const HANDOVER: Duration = Duration::from_secs(30);
/// A refusal within this time of fetching the token is not the token's age.
const FRESH: Duration = Duration::from_secs(60);
/// Longest that an HTTP request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest that an HTTP connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most REST queries at a start.
const MAX_QUERIES: usize = 32;

/// OpenF1's live feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// In logs, health and metrics.
    pub name: String,
    /// `https://…`; plain `http://` serves tests.
    pub api_url: String,
    /// `mqtts://…`; plain `mqtt://` serves tests.
    pub mqtt_url: String,
    /// Version of MQTT: 4 or 5.
    pub mqtt_version: Version,
    /// Of the OpenF1 account.
    pub username: String,
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority to trust instead of the system's, for both.
    pub ca_file: Option<PathBuf>,
    /// Topic filters.
    pub topics: Vec<String>,
    /// REST queries made at each start, `<collection>?<filters>`, whose rows are taken in as if the
    /// feed had pushed them.
    pub queries: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "openf1".into(),
            api_url: "https://api.openf1.org".into(),
            mqtt_url: "mqtts://mqtt.openf1.org:8883".into(),
            mqtt_version: Version::V5,
            username: String::new(),
            password: None,
            password_file: None,
            ca_file: None,
            topics: vec!["v1/#".into()],
            queries: [
                "meetings?meeting_key=latest",
                "sessions?session_key=latest",
                "drivers?session_key=latest",
                "starting_grid?meeting_key=latest",
            ]
            .map(Into::into)
            .into(),
        }
    }
}

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("{key} = {value}: must be {allowed}")]
    Value {
        key: &'static str,
        value: String,
        allowed: &'static str,
    },
    #[error(transparent)]
    Password(#[from] secret::Unreadable),
    #[error("mqtt_url: {0}")]
    Mqtt(#[from] broker::Invalid),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("no HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// The first key that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        let value = |key, value: String, allowed| {
            Err(Invalid::Value {
                key,
                value,
                allowed,
            })
        };
        self.api()?;
        self.broker(None).validate()?;
        if self.username.is_empty() {
            return value("username", "\"\"".into(), "that of an OpenF1 account");
        }
        if self.password.is_none() && self.password_file.is_none() {
            return value("password", "absent".into(), "given, or password_file");
        }
        let wrong = |t: &&String| !rumqttc::valid_filter(t);
        if self.topics.is_empty() || self.topics.iter().find(wrong).is_some() {
            let text = format!("{:?}", self.topics);
            return value("topics", text, "topic filters such as v1/#");
        }
        if self.queries.len() > MAX_QUERIES {
            let text = format!("{} queries", self.queries.len());
            return value("queries", text, "at most 32 queries");
        }
        let unknown = |q: &&String| {
            let name = q.split('?').next().unwrap_or_default();
            Kind::from_name(name).is_none() || q.contains(['/', '#'])
        };
        if let Some(query) = self.queries.iter().find(unknown) {
            let allowed = "<collection>?<filters>, such as drivers?session_key=latest";
            return value("queries", format!("{query:?}"), allowed);
        }
        Ok(())
    }

    fn api(&self) -> Result<reqwest::Url, Invalid> {
        let fault = || Invalid::Value {
            key: "api_url",
            value: format!("{:?}", self.api_url),
            allowed: "a URL such as https://api.openf1.org",
        };
        let url = reqwest::Url::parse(&self.api_url).map_err(|_| fault())?;
        match url.scheme() {
            "http" | "https" if url.host().is_some() => Ok(url),
            _ => Err(fault()),
        }
    }

    fn broker(&self, token: Option<&Token>) -> Broker {
        Broker {
            version: self.mqtt_version,
            // Any name will do; the token is what counts.
            username: Some("trackside".into()),
            password: token.map(|t| t.text.clone()),
            ca_file: self.ca_file.clone(),
            keep_alive_s: 20,
            connect_timeout_s: 10,
            ..Broker::at(&self.mqtt_url)
        }
    }

    fn http(&self) -> Result<reqwest::Client, Invalid> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("trackside/", env!("CARGO_PKG_VERSION")))
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(3));
        // Without TLS nobody needs to be trusted, and a machine without roots will do.
        let tls = match self.api()?.scheme() {
            "https" => tls::client_config(self.ca_file.as_deref(), None)?,
            _ => tls::trusting_nobody()?,
        };
        Ok(builder.tls_backend_preconfigured(tls).build()?)
    }
}

/// Runs the feed until it is told to stop or the intake closes.
pub async fn run(
    options: Options,
    intake: Intake,
    status: watch::Sender<SourceStatus>,
    stop: CancellationToken,
) {
    let mut tally = Tally::new(status.clone());
    let mut feed = Feed {
        client_id: options.broker(None).client_id_for(&options.name),
        options,
        intake,
        status,
        backoff: Backoff::default(),
        turns: 0,
        queried: false,
    };
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let end = tokio::select! {
            end = feed.keep_up(&mut tally, &stop) => end,
            () = stop.cancelled() => break,
        };
        let Err(fault) = end else { break };
        // A configuration that does not serve; a file may yet be mended.
        tally.failed(State::Refused, &fault.to_string());
        tokio::select! {
            () = tokio::time::sleep(backoff.jittered(backoff::REFUSED)) => {}
            () = stop.cancelled() => {}
        }
    }
    tally.stopped();
}

struct Feed {
    options: Options,
    client_id: String,
    intake: Intake,
    status: watch::Sender<SourceStatus>,
    backoff: Backoff,
    /// Subscriptions made; the client ids alternate.
    turns: u64,
    /// Whether the REST queries of this start are under way or done.
    queried: bool,
}

/// A subscription under way; let go when dropped.
struct Turn {
    task: JoinHandle<Ended>,
    ready: mpsc::Receiver<()>,
    stop: CancellationToken,
    token: Token,
    fetched: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Feed {
    /// Fetches tokens and hands subscriptions over. Ends when the intake is closed.
    async fn keep_up(
        &mut self,
        tally: &mut Tally,
        stop: &CancellationToken,
    ) -> Result<(), Invalid> {
        let http = self.options.http()?;
        let mut turn = self.begin(&http, tally, stop).await?;
        loop {
            // Until the subscription stands, or is refused.
            tokio::select! {
                ready = turn.ready.recv() => {
                    if ready.is_some() {
                        self.backoff.reset();
                        self.query_once(&http, &turn.token, stop);
                    }
                }
                () = tokio::time::sleep(HANDOVER) => {}
            }
            let life = turn.token.life.mul_f64(REFRESH_AT);
            let due = turn.fetched + self.backoff.jittered(life).max(life.mul_f64(0.9));
            let next = tokio::select! {
                ended = &mut turn.task => match ended {
                    Ok(Ended::IntakeClosed | Ended::Stopped) => return Ok(()),
                    Ok(Ended::Refused(fault)) => {
                        self.refused(&turn, &fault, tally).await;
                        self.begin(&http, tally, stop).await?
                    }
                    Err(panic) => {
                        tally.failed(State::Connecting, &panic.to_string());
                        tokio::time::sleep(self.backoff.wait()).await;
                        self.begin(&http, tally, stop).await?
                    }
                },
                () = tokio::time::sleep_until(due.into()) => {
                    let mut next = self.begin(&http, tally, stop).await?;
                    // The old one serves until the new one stands.
                    let ready = tokio::time::timeout(HANDOVER, next.ready.recv()).await;
                    tracing::info!(source = %self.options.name, ready = matches!(ready, Ok(Some(()))), "OpenF1: new token");
                    next
                }
            };
            turn = next;
        }
    }

    /// A token and a subscription with it.
    async fn begin(
        &mut self,
        http: &reqwest::Client,
        tally: &mut Tally,
        stop: &CancellationToken,
    ) -> Result<Turn, Invalid> {
        let token = self.token(http, tally).await?;
        self.turns += 1;
        let subscription = Subscription {
            broker: self.options.broker(Some(&token)),
            client_id: format!("{}-{}", self.client_id, self.turns % 2),
            topics: self.options.topics.clone(),
            qos: 0,
            clean_session: true,
            session_expiry_s: 0,
            receive_maximum: 16,
            ends_when_refused: true,
        };
        let (say, ready) = mpsc::channel(1);
        let (own, intake) = (stop.child_token(), self.intake.clone());
        let (status, halt) = (self.status.clone(), own.clone());
        let task = tokio::spawn(async move {
            let mut tally = Tally::new(status);
            // Full: it has been said.
            let on_ready = || _ = say.try_send(());
            subscribe(&subscription, intake, &mut tally, &halt, on_ready).await
        });
        Ok(Turn {
            task,
            ready,
            stop: own,
            token,
            fetched: Instant::now(),
        })
    }

    /// Tries until there is a token: soon again where the service is in trouble, rarely where it
    /// says no.
    async fn token(&mut self, http: &reqwest::Client, tally: &mut Tally) -> Result<Token, Invalid> {
        let password = secret::resolve(
            self.options.password.as_ref(),
            self.options.password_file.as_deref(),
        )?;
        let password = password.unwrap_or_else(|| "".into());
        let url = format!("{}/token", self.options.api_url.trim_end_matches('/'));
        loop {
            let error = match token::fetch(http, &url, &self.options.username, &password).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            tracing::warn!(source = %self.options.name, "OpenF1: {error}");
            let (state, wait) = match &error {
                TokenError::Denied { .. } => {
                    (State::Refused, self.backoff.jittered(backoff::REFUSED))
                }
                _ => (State::Connecting, self.backoff.wait()),
            };
            tally.failed(state, &error.to_string());
            tokio::time::sleep(wait).await;
        }
    }

    /// An old token is replaced at once. A fresh one that is refused means something else.
    async fn refused(&mut self, turn: &Turn, fault: &str, tally: &mut Tally) {
        tracing::warn!(source = %self.options.name, "OpenF1: {fault}");
        tally.failed(State::Refused, fault);
        if turn.fetched.elapsed() < FRESH {
            tokio::time::sleep(self.backoff.jittered(backoff::REFUSED)).await;
        }
    }

    fn query_once(&mut self, http: &reqwest::Client, token: &Token, stop: &CancellationToken) {
        if std::mem::replace(&mut self.queried, true) {
            return;
        }
        let queries = rest::Queries {
            http: http.clone(),
            api_url: self.options.api_url.trim_end_matches('/').into(),
            token: token.text.clone(),
            queries: self.options.queries.clone(),
        };
        let (intake, stop) = (self.intake.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                taken = queries.run(&intake) => tracing::info!(taken, "OpenF1: rows by REST"),
                () = stop.cancelled() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests;
