//! What is true right now, and what is thought of it: answers from the latest snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::params::{Params, number};
use super::tower;
use super::{Refusal, Shared};
use crate::analytics::driver::{self, Entry};
use crate::insight::strategist::NoAnswer;
use crate::predict::view::View;
use crate::record::prediction::{LapTimePrediction, OrderPrediction, PitPrediction};

/// JSON that no cache may keep.
pub(super) fn fresh<T: Serialize>(value: T) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

pub(super) async fn state(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    Ok((
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        shared.picture.latest().body,
    )
        .into_response())
}

pub(super) async fn car(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    let driver_number = number("number", &text, 1..=u8::MAX)?;
    let snapshot = shared.picture.snapshot();
    match tower::car(&snapshot.race, driver_number) {
        Some(car) => Ok(fresh(car)),
        None => Err(Refusal::missing(format!(
            "car {driver_number} is not in this session; its cars are {:?}",
            tower::numbers(&snapshot.race)
        ))),
    }
}

pub(super) async fn scores(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    Ok(fresh(&shared.picture.snapshot().scores))
}

/// The latest answer to each question.
#[derive(Serialize)]
struct Latest<'a> {
    seq: u64,
    laptime: &'a BTreeMap<u8, LapTimePrediction>,
    race: Option<&'a OrderPrediction>,
    pit: &'a BTreeMap<u8, PitPrediction>,
}

pub(super) async fn predictions(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    let snapshot = shared.picture.snapshot();
    Ok(fresh(Latest {
        seq: snapshot.seq,
        laptime: &snapshot.laptime,
        race: snapshot.order.as_ref(),
        pit: &snapshot.pit,
    }))
}

/// What the laps say about each driver, so far.
#[derive(Serialize)]
struct Analytics {
    seq: u64,
    /// `None` until somebody has driven [`driver::FEW_LAPS`] clean laps.
    field: Option<driver::Field>,
    drivers: Vec<driver::Driver>,
}

pub(super) async fn drivers(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    let snapshot = shared.picture.snapshot();
    // Some milliseconds of arithmetic.
    let judged = tokio::task::spawn_blocking(move || {
        let view = View::of(&snapshot.race);
        let laps: Vec<Entry> = view.cars.iter().map(Entry::of).collect();
        (snapshot.seq, driver::drivers(&laps))
    });
    let (seq, judged) = judged.await.map_err(|e| Refusal::busy(e.to_string()))?;
    let (field, drivers) = judged.map_or((None, Vec::new()), |(field, found)| (Some(field), found));
    Ok(fresh(Analytics {
        seq,
        field,
        drivers,
    }))
}

pub(super) async fn insights(
    State(shared): State<Arc<Shared>>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    let latest = Arc::clone(&shared.context.insights.borrow());
    Ok(fresh(&*latest))
}

pub(super) async fn strategy(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    params.only(&[])?;
    let driver_number = number("number", &text, 1..=u8::MAX)?;
    let Some(strategist) = &shared.context.strategist else {
        let why = "nothing is simulated: [compute] live = false in the configuration";
        return Err(Refusal::missing(why.to_owned()));
    };
    let snapshot = shared.picture.snapshot();
    match strategist.ask(snapshot, driver_number).await {
        Ok(insight) => Ok(fresh(&*insight)),
        Err(e @ (NoAnswer::Busy | NoAnswer::Stopping)) => Err(Refusal::busy(e.to_string())),
        Err(e) => Err(Refusal::missing(e.to_string())),
    }
}
