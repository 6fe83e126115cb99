//! What the live feed does not push, by REST: each row of the answers is taken in as a message on
//! `v1/<collection>`.
//!
//! Tolerant, because it is a help and no condition: a query without an answer is left out.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::ingest::Message;
use crate::ingest::backoff::Backoff;
use crate::ingest::intake::Intake;
use crate::ingest::secret::Secret;
use crate::record::codec::OPENF1_PREFIX;

/// Largest answer that is read (B).
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Most rows of an answer that are taken.
const MAX_ROWS: usize = 20_000;
/// Time between two requests: the free tier allows three a second.
const SPACING: Duration = Duration::from_millis(400);
/// Attempts at a query.
const ATTEMPTS: u32 = 5;
/// Longest that a `Retry-After` is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

pub(super) struct Queries {
    pub http: reqwest::Client,
    pub api_url: String,
    pub token: Secret,
    /// `<collection>?<filters>`
    pub queries: Vec<String>,
}

enum Outcome {
    Rows(Vec<Bytes>),
    /// Nothing to be had: why.
    Without(String),
    /// To be tried again, after this time if the service named one.
    Again(Option<Duration>, String),
}

impl Queries {
    /// Makes all queries, one after the other; gives the number of rows taken.
    pub(super) async fn run(&self, intake: &Intake) -> u64 {
        let mut taken = 0;
        for query in &self.queries {
            let rows = match self.query(query).await {
                Ok(rows) => rows,
                Err(why) => {
                    tracing::info!(query, "OpenF1: left out: {why}");
                    continue;
                }
            };
            let collection = query.split('?').next().unwrap_or_default();
            for row in rows {
                let message = Message {
                    topic: format!("{OPENF1_PREFIX}{collection}").into(),
                    payload: row,
                    received: Instant::now(),
                    ack: None,
                };
                if intake.send(message).await.is_err() {
                    return taken;
                }
                taken += 1;
            }
            tokio::time::sleep(SPACING).await;
        }
        taken
    }

    async fn query(&self, query: &str) -> Result<Vec<Bytes>, String> {
        let mut backoff = Backoff::default();
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match self.ask(query).await {
                Outcome::Rows(rows) => return Ok(rows),
                Outcome::Without(why) => return Err(why),
                Outcome::Again(after, why) => {
                    last = why;
                    let wait = backoff.wait().max(after.unwrap_or_default());
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Err(format!("{last}, {ATTEMPTS} times"))
    }

    async fn ask(&self, query: &str) -> Outcome {
        let url = format!("{}/{OPENF1_PREFIX}{query}", self.api_url);
        let request = self.http.get(url).bearer_auth(self.token.reveal());
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return Outcome::Again(None, e.to_string()),
        };
        let status = response.status().as_u16();
        match status {
            200..=299 => {}
            408 | 429 | 500..=599 => {
                let after = retry_after(&response);
                return Outcome::Again(after, format!("answer {status}"));
            }
            // 404: nothing found; 422: too much asked; 401: a session is live and the account is none
            // for it.
            _ => return Outcome::Without(format!("answer {status}")),
        }
        match body(response, MAX_ANSWER_BYTES).await {
            Ok(bytes) => match rows(&bytes) {
                Ok(rows) => Outcome::Rows(rows),
                Err(e) => Outcome::Without(format!("no JSON array: {e}")),
            },
            Err(why) => Outcome::Again(None, why),
        }
    }
}

fn rows(bytes: &[u8]) -> Result<Vec<Bytes>, serde_json::Error> {
    let rows: Vec<&RawValue> = serde_json::from_slice(bytes)?;
    Ok(rows
        .into_iter()
        .take(MAX_ROWS)
        .map(|row| Bytes::copy_from_slice(row.get().as_bytes()))
        .collect())
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn body(mut response: reqwest::Response, limit: usize) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| e.to_string())? {
        if bytes.len() + chunk.len() > limit {
            return Err(format!("the answer is larger than {limit} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}
