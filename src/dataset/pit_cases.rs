//! Races of the past as cases for regret: the grid as it was, and what each car really did.
//!
//! Only dry races count: a race in which anybody of note ran on wet tyres says little about a plan for a dry one.

use super::race::{CarData, RaceData};
use crate::compute::race_monte_carlo::{MAX_STOPS, Plan};
use crate::predict::floor::compound_index;
use crate::race::TrackStatus;
use crate::strategy::model::{GridCar, ModelError, Start};
use crate::strategy::parameters::Parameters;
use crate::strategy::regret::{Case, fixed_plan, plan};
use crate::strategy::rules::Rules;

/// Share of laps on wet tyres from which a race was wet.
const WET_SHARE: f64 = 0.02;
/// Of the grid every such car is a case.
const EVERY: usize = 3;

/// The cases of a race: every third car of the grid that finished, with its stops as driven. None of a wet race,
/// or of one whose compounds are not known.
///
/// # Errors
/// If the grid makes a race that the engines cannot hold.
pub fn cases(race: &RaceData, parameters: &Parameters) -> Result<Vec<Case>, ModelError> {
    if is_wet(race) {
        return Ok(Vec::new());
    }
    let mut grid: Vec<&CarData> = race.cars.iter().filter(|c| start_of(c).is_some()).collect();
    grid.sort_by_key(|c| (c.grid.unwrap_or(u8::MAX), c.number));
    let slots: Vec<GridCar> = grid
        .iter()
        .filter_map(|c| {
            Some(GridCar {
                number: c.number,
                qualifying_s: c.qualifying_s,
                // Compounds are indices below 5.
                compound: start_of(c)? as u8,
            })
        })
        .collect();
    // Nobody's dry compound at the start is known: there is no race to simulate.
    if slots.is_empty() {
        return Ok(Vec::new());
    }
    let laps = race.calendar.laps.filter(|l| *l > 0).unwrap_or(race.laps());
    let mut start = Start::grid(parameters, &race.circuit, Some(laps), &slots);
    start.rules = Rules::of(race.season, &race.circuit);
    let problem = start.problem(parameters)?;
    let chosen = grid.iter().enumerate().step_by(EVERY);
    Ok(chosen
        .filter(|(_, car)| race.finished(car))
        .filter_map(|(at, car)| {
            Some(Case {
                driven: driven(car)?,
                fixed: fixed_plan(&problem, at),
                car: at,
                problem: problem.clone(),
            })
        })
        .collect())
}

/// Index of the compound that it started on, a dry one.
fn start_of(car: &CarData) -> Option<usize> {
    compound_index(car.laps.first()?.compound).filter(|c| *c < 3)
}

fn is_wet(race: &RaceData) -> bool {
    let laps = race.cars.iter().flat_map(|c| &c.laps);
    let wet = laps
        .clone()
        .filter(|l| compound_index(l.compound).is_some_and(|c| c > 2));
    wet.count() as f64 > WET_SHARE * laps.count().max(1) as f64
}

/// Its stops; changes under a red flag are none. `None` where a compound is not known or there were too many.
fn driven(car: &CarData) -> Option<Plan> {
    let mut stops = Vec::new();
    for lap in car.laps.iter().filter(|l| l.is_in) {
        if lap.statuses & TrackStatus::Red.bit() != 0 {
            continue;
        }
        let Some(next) = car.lap(lap.lap + 1) else {
            continue;
        };
        let compound = compound_index(next.compound).filter(|c| *c < 3)?;
        stops.push((i32::from(lap.lap), compound as i32));
    }
    (!stops.is_empty() && stops.len() <= MAX_STOPS).then(|| plan(&stops))
}
