//! What was: records, predictions and sessions, read from the journals by sequence.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use super::params::Params;
use super::refusal::quoted;
use super::state::fresh;
use super::{Refusal, Shared};
use crate::journal::{Reader, Skipped};
use crate::record::{Entry, Kind, Prediction, Record, codec};

/// Most records that one answer holds.
pub const MAX_RECORDS: usize = 5_000;
/// Records in an answer unless asked otherwise.
pub const DEFAULT_RECORDS: usize = 500;
/// Most predictions that one answer holds.
pub const MAX_PREDICTIONS: usize = 1_000;
/// Predictions in an answer unless asked otherwise.
pub const DEFAULT_PREDICTIONS: usize = 100;
/// Most journal entries that one request looks at.
pub const MAX_SCAN: u64 = 200_000;
/// Entries read from the journal at a time.
const READ: usize = 1_024;
/// Bytes of JSON at which an answer is cut; the caller goes on from its `next_seq`.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The topic of an entry, as its source or we publish it.
pub fn topic(record: &Record) -> String {
    match record {
        Record::Prediction(p) => p.topic(),
        Record::Frame(f) => format!(
            "{}{}/{}",
            codec::FRAMES_PREFIX,
            f.session_key,
            f.driver_number
        ),
        other => codec::openf1_topic(other.kind()),
    }
}

/// A range of the journal that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    pub from: u64,
    /// The first sequence after it.
    pub to: u64,
    /// Damaged on disk; otherwise retention removed it.
    pub damaged: bool,
}

impl From<&Skipped> for Lost {
    fn from(skipped: &Skipped) -> Lost {
        Lost {
            from: skipped.seqs.start,
            to: skipped.seqs.end,
            damaged: skipped.loss.is_some(),
        }
    }
}

#[derive(Serialize)]
struct Item {
    seq: u64,
    topic: String,
    payload: Box<serde_json::value::RawValue>,
}

impl Item {
    fn of(seq: u64, entry: &Entry) -> Result<Item, Refusal> {
        Ok(Item {
            seq,
            topic: topic(&entry.record),
            payload: serde_json::value::to_raw_value(entry).map_err(|e| Refusal::journal(&e))?,
        })
    }

    fn bytes(&self) -> usize {
        self.payload.get().len() + self.topic.len() + 40
    }
}

#[derive(Serialize)]
struct Page<T> {
    /// Where to go on.
    next_seq: u64,
    /// Where the journal ends by now.
    journal_next_seq: u64,
    skipped: Vec<Lost>,
    records: T,
}

/// Runs a read of the journal where it may block, a bounded number of them at a time.
pub(super) async fn reading<T: Send + 'static>(
    shared: &Shared,
    read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    // The time limit of the request bounds the wait. The permit goes along, so that a reader whose
    // caller has left still counts until it is done.
    let permit = Arc::clone(&shared.journal_reads)
        .acquire_owned()
        .await
        .map_err(|_| Refusal::busy("the daemon is stopping; ask again later".to_owned()))?;
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        read()
    })
    .await
    .map_err(|e| Refusal::journal(&e))?
}

/// Walks the journal from `from` on, until `visit` says stop, `until` is reached, or [`MAX_SCAN`]
/// entries were seen. Gives where to go on, and what could not be read.
fn walk(
    reader: &Reader,
    from: u64,
    until: u64,
    mut visit: impl FnMut(u64, &Entry) -> Result<bool, Refusal>,
) -> Result<(u64, Vec<Lost>), Refusal> {
    let mut next = from;
    let mut skipped = Vec::new();
    let end = until.min(from.saturating_add(MAX_SCAN));
    while next < end {
        let most = READ.min(usize::try_from(end - next).unwrap_or(READ));
        let batch = reader.batch(next, most).map_err(|e| Refusal::journal(&e))?;
        skipped.extend(batch.skipped.iter().map(Lost::from));
        for (seq, entry) in batch.iter() {
            if !visit(seq, entry)? {
                return Ok((seq + 1, skipped));
            }
        }
        if batch.next_seq() == next {
            break;
        }
        next = batch.next_seq();
    }
    Ok((next, skipped))
}

/// Refuses a `from_seq` beyond the journal's end.
fn within(from: u64, next: u64) -> Result<u64, Refusal> {
    if from <= next {
        return Ok(from);
    }
    Err(Refusal::parameter(
        "from_seq",
        &from.to_string(),
        &format!("the journal's next sequence is {next}; give that or less"),
    ))
}

pub(super) async fn records(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    let params = params.only(&["from_seq", "limit", "kinds"])?;
    let limit = params
        .number("limit", 1..=MAX_RECORDS)?
        .unwrap_or(DEFAULT_RECORDS);
    let kinds = params.kinds("kinds")?;
    let reader = shared.context.records.clone();
    let end = reader.next_seq();
    let from = match params.number("from_seq", 0..=u64::MAX)? {
        Some(from) => within(from, end)?,
        None => end.saturating_sub(limit as u64).max(reader.first_seq()),
    };
    let page = reading(&shared, move || {
        let mut records = Vec::with_capacity(limit);
        let mut bytes = 0;
        let (next_seq, skipped) = walk(&reader, from, end, |seq, entry| {
            if wanted(kinds.as_deref(), entry.record.kind()) {
                let item = Item::of(seq, entry)?;
                bytes += item.bytes();
                records.push(item);
            }
            Ok(records.len() < limit && bytes < MAX_ANSWER_BYTES)
        })?;
        Ok(Page {
            next_seq,
            journal_next_seq: end,
            skipped,
            records,
        })
    })
    .await?;
    Ok(fresh(page))
}

/// Whether a kind is asked for; all are where none is named.
pub(super) fn wanted(kinds: Option<&[Kind]>, kind: Kind) -> bool {
    kinds.is_none_or(|kinds| kinds.contains(&kind))
}

pub(super) async fn predictions(
    State(shared): State<Arc<Shared>>,
    Path(question): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    if !["laptime", "race", "pit"].contains(&question.as_str()) {
        return Err(Refusal::missing(format!(
            "there are no predictions of {}; the questions are laptime, race and pit",
            quoted(&question)
        )));
    }
    let params = params.only(&["driver_number", "from_seq", "limit"])?;
    let limit = params
        .number("limit", 1..=MAX_PREDICTIONS)?
        .unwrap_or(DEFAULT_PREDICTIONS);
    let driver = params.number("driver_number", 1..=u8::MAX)?;
    if let (Some(driver), "race") = (driver, question.as_str()) {
        return Err(Refusal::parameter(
            "driver_number",
            &driver.to_string(),
            "a prediction of the race is about all cars; leave it out",
        ));
    }
    let reader = shared.context.predictions.clone();
    let end = reader.next_seq();
    let from = params
        .number("from_seq", 0..=u64::MAX)?
        .map(|from| within(from, end))
        .transpose()?;
    let matches = move |p: &Prediction| {
        p.name() == question && driver.is_none_or(|n| p.driver_number() == Some(n))
    };
    let page = reading(&shared, move || {
        // Without a place to begin, the newest ones: the last that match of what one scan covers.
        let newest = from.is_none();
        let from = from.unwrap_or_else(|| end.saturating_sub(MAX_SCAN).max(reader.first_seq()));
        let mut records = VecDeque::with_capacity(limit);
        let (next_seq, skipped) = walk(&reader, from, end, |seq, entry| {
            if let Record::Prediction(p) = &entry.record
                && matches(p)
            {
                if records.len() == limit {
                    records.pop_front();
                }
                records.push_back(Item::of(seq, entry)?);
            }
            Ok(newest || records.len() < limit)
        })?;
        Ok(Page {
            next_seq,
            journal_next_seq: end,
            skipped,
            records,
        })
    })
    .await?;
    Ok(fresh(page))
}

pub(super) async fn sessions(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    let reader = shared.context.records.clone();
    let sessions = reading(&shared, move || Ok(reader.sessions())).await?;
    Ok(fresh(serde_json::json!({ "sessions": sessions })))
}
