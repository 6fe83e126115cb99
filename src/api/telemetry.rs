//! Telemetry of one car: car_data and location between two times, from the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use super::history::reading;
use super::params::{Params, number};
use super::state::fresh;
use super::{Refusal, Shared, tower};
use crate::journal::{Query, Reader};
use crate::record::{CarData, Kind, Location, Record, Time};

/// Longest stretch of time that one answer covers (s).
pub const MAX_SPAN_S: f64 = 900.0;
/// Stretch before `to` unless `from` is given (s).
pub const DEFAULT_SPAN_S: f64 = 60.0;
/// Most samples of each collection in an answer.
pub const MAX_SAMPLES: usize = 10_000;
/// Samples of each collection unless asked otherwise.
pub const DEFAULT_SAMPLES: usize = 1_000;
/// Most rows that one request looks at (a car sends about 3.7 a second).
const MAX_ROWS: usize = 100_000;

/// What one car did. Oldest first; where there was more than the limit, the newest were kept.
#[derive(Debug, Serialize)]
struct Telemetry {
    session_key: i32,
    driver_number: u8,
    from: Time,
    to: Time,
    truncated: bool,
    car_data: VecDeque<CarData>,
    location: VecDeque<Location>,
}

pub(super) async fn telemetry(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    let driver_number = number("number", &text, 1..=u8::MAX)?;
    let params = params.only(&["from", "to", "limit", "session_key"])?;
    let limit = params
        .number("limit", 1..=MAX_SAMPLES)?
        .unwrap_or(DEFAULT_SAMPLES);
    let snapshot = shared.picture.snapshot();
    let session_key = params
        .number("session_key", 1..=i32::MAX)?
        .or_else(|| tower::session_key(&snapshot.race))
        .ok_or_else(|| {
            Refusal::missing(
                "no session is known yet; name one with session_key (see /api/v1/sessions)"
                    .to_owned(),
            )
        })?;
    let (from, to) = span(&params, tower::clock(&snapshot.race))?;
    drop(snapshot);

    let reader = shared.context.records.clone();
    let telemetry = reading(&shared, move || {
        let query = |kind| Query {
            kind: Some(kind),
            session_key: Some(session_key),
            driver_number: Some(driver_number),
            from: Some(from),
            // A query ends before its `to`; ours is the last instant that is wanted.
            to: Some(to.plus_seconds(1e-6)),
        };
        let (car_data, cut_1) = newest(&reader, &query(Kind::CarData), limit, |r| match r {
            Record::CarData(r) => Some(r),
            _ => None,
        })?;
        let (location, cut_2) = newest(&reader, &query(Kind::Location), limit, |r| match r {
            Record::Location(r) => Some(r),
            _ => None,
        })?;
        Ok(Telemetry {
            session_key,
            driver_number,
            from,
            to,
            truncated: cut_1 || cut_2,
            car_data,
            location,
        })
    })
    .await?;
    Ok(fresh(telemetry))
}

/// The stretch that is asked for; the newest minute by the feed's clock unless said otherwise.
fn span(params: &Params, clock: Option<Time>) -> Result<(Time, Time), Refusal> {
    let (from, to) = (params.time("from")?, params.time("to")?);
    let (from, to) = match (from, to, clock) {
        (Some(from), Some(to), _) => (from, to),
        (None, Some(to), _) => (to.plus_seconds(-DEFAULT_SPAN_S), to),
        (Some(from), None, _) => (from, from.plus_seconds(MAX_SPAN_S)),
        (None, None, Some(clock)) => (clock.plus_seconds(-DEFAULT_SPAN_S), clock),
        (None, None, None) => {
            return Err(Refusal::missing(
                "no record with a date has come yet; give from and to".to_owned(),
            ));
        }
    };
    let seconds = to.seconds_since(from);
    if !(0.0..=MAX_SPAN_S).contains(&seconds) {
        return Err(Refusal::parameter(
            "from",
            &from.to_string(),
            &format!("it is {seconds} s before to, {to}; give a stretch of 0 to {MAX_SPAN_S} s"),
        ));
    }
    Ok((from, to))
}

/// The newest `limit` samples that a query finds, and whether there were more.
fn newest<T>(
    reader: &Reader,
    query: &Query,
    limit: usize,
    sample: impl Fn(Record) -> Option<T>,
) -> Result<(VecDeque<T>, bool), Refusal> {
    let mut kept = VecDeque::with_capacity(limit.min(DEFAULT_SAMPLES));
    let mut truncated = false;
    for (row, found) in reader.query(query).enumerate() {
        if row == MAX_ROWS {
            truncated = true;
            break;
        }
        let (_, entry) = found.map_err(|e| Refusal::journal(&e))?;
        let Some(sample) = sample(entry.record) else {
            continue;
        };
        if kept.len() == limit {
            kept.pop_front();
            truncated = true;
        }
        kept.push_back(sample);
    }
    Ok((kept, truncated))
}
