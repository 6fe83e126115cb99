//! Stints: how each car's tyres wear, fitted anew with every lap.
//!
//! `stint_fit` is a regression of clean laps on tyre age and fuel that one slow lap cannot bend. A few laps cannot
//! tell wear from fuel: what past seasons say of the compound and the circuit (`strategy/race.toml`) is the prior,
//! as sure as stints differ from each other.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::{Origin, took};
use crate::compute::stint_fit::{FIT, TUNING};
use crate::compute::{Backend, ShapeError, StintFit};
use crate::live::Snapshot;
use crate::race::{Compound, LapState, Race};
use crate::strategy::parameters::Parameters;
use crate::strategy::snapshot::compound_index;

/// Rounds of reweighting.
const ROUNDS: u32 = 6;
/// Laps are counted down from here where the length of the race is not known: only differences count.
const FROM_LAPS: u16 = 100;
/// How sure the prior of fuel is (laps² of spread, as if seen): it hardly differs from car to car.
const FUEL_PRECISION: f32 = 1e4;

/// What the laps of a stint say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StintInsight {
    #[serde(flatten)]
    pub origin: Origin,
    pub driver_number: u8,
    pub stint: u8,
    pub compound: Compound,
    /// Clean laps that it rests on.
    pub laps: u16,
    /// A lap of it (s), at the mean age and fuel of its laps.
    pub lap_s: f32,
    /// Wear (s a lap), and how far it is from certain (standard error).
    pub wear_s: f32,
    pub wear_error_s: f32,
    /// Fuel and the track coming in (s a lap to go).
    pub fuel_s: f32,
    /// What laps scatter by (s).
    pub scatter_s: f32,
}

/// The stints under way, laid out for the kernel.
#[derive(Default)]
struct Rows {
    start: Vec<u32>,
    time_s: Vec<f32>,
    age: Vec<f32>,
    fuel: Vec<f32>,
    prior: Vec<f32>,
    of: Vec<(u8, u8, Compound)>,
}

/// Fits the stint that each car is in, of a snapshot of which some laps are new.
///
/// # Errors
/// [`ShapeError`] would be a defect of this file.
pub fn fit(
    snapshot: &Snapshot,
    parameters: &Parameters,
    backend: &dyn Backend,
) -> Result<Vec<Arc<StintInsight>>, ShapeError> {
    let rows = Rows::of(&snapshot.race, parameters);
    if rows.of.is_empty() {
        return Ok(Vec::new());
    }
    let began = Instant::now();
    let mut fits = vec![0.0; rows.of.len() * FIT];
    let by = backend.run(&mut StintFit {
        stint_start: &rows.start,
        time_s: &rows.time_s,
        age: &rows.age,
        fuel: &rows.fuel,
        prior: &rows.prior,
        rounds: ROUNDS,
        tuning: TUNING,
        fit: &mut fits,
    })?;
    took("stint_fit", by, began);
    let origin = Origin {
        session_key: snapshot.race.session.key.unwrap_or_default(),
        made_at: snapshot.race.clock,
        seq: snapshot.seq,
        backend: by,
    };
    let told = rows.of.iter().zip(fits.chunks_exact(FIT));
    Ok(told
        .filter(|(_, fit)| !fit[0].is_nan())
        .map(|(&(driver_number, stint, compound), fit)| {
            Arc::new(StintInsight {
                origin,
                driver_number,
                stint,
                compound,
                laps: fit[7] as u16,
                lap_s: fit[0],
                wear_s: fit[1],
                wear_error_s: fit[5],
                fuel_s: fit[2],
                scatter_s: fit[3],
            })
        })
        .collect())
}

impl Rows {
    fn of(race: &Race, parameters: &Parameters) -> Rows {
        let circuit = parameters.circuit(race.session.circuit_short_name.as_str());
        let laps = if circuit.laps > 0 {
            circuit.laps
        } else {
            FROM_LAPS
        };
        let mut rows = Rows {
            start: vec![0],
            ..Rows::default()
        };
        for car in race.cars().iter().filter(|car| car.status.runs()) {
            let Some(stint) = car.current_stint() else {
                continue;
            };
            let own = |lap: &&LapState| lap.number >= stint.lap_start && lap.is_complete();
            // Shares of a lap are shares of its best one.
            let (Some(compound), Some(reference)) =
                (compound_index(stint.compound), car.best_lap_s)
            else {
                continue;
            };
            for lap in car.laps.iter().filter(own) {
                let time = lap.duration.filter(|_| lap.is_clean() && lap.number > 1);
                rows.time_s.push(time.map_or(f32::NAN, |t| t as f32));
                rows.age.push(lap.tyre_age.map_or(f32::NAN, f32::from));
                rows.fuel.push(f32::from(laps) - f32::from(lap.number));
            }
            rows.start.push(rows.time_s.len() as u32);
            let c = usize::from(compound).min(4);
            let slope = if c < 3 {
                circuit.slope[c]
            } else {
                parameters.pace.slope[c]
            };
            let sure = (circuit.noise / parameters.pace.wear_spread).max(1e-3);
            rows.prior.extend([
                (slope * reference) as f32,
                (sure * sure) as f32,
                (circuit.fuel * reference) as f32,
                FUEL_PRECISION,
            ]);
            rows.of
                .push((car.driver_number, stint.number, stint.compound));
        }
        rows
    }
}
