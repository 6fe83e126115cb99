//! The live race as a [`Moment`].
//!
//! **Invariant:** a copy of facts: nothing is estimated here.

use super::model::LapsFrom;
use super::moment::{CarHistory, DrivenLap, Moment};
use super::rules::Rules;
use crate::compute::race_monte_carlo::Status;
use crate::race::{Car, CarStatus, Compound, Race, SessionType, TrackStatus};
use crate::record::Time;

/// Index of a compound in the race model.
pub const fn compound_index(compound: Compound) -> Option<u8> {
    match compound {
        Compound::Soft => Some(0),
        Compound::Medium => Some(1),
        Compound::Hard => Some(2),
        Compound::Intermediate => Some(3),
        Compound::Wet => Some(4),
        Compound::Unknown => None,
    }
}

/// The compound of an index.
pub const fn compound_of(index: u8) -> Compound {
    match index {
        0 => Compound::Soft,
        1 => Compound::Medium,
        2 => Compound::Hard,
        3 => Compound::Intermediate,
        4 => Compound::Wet,
        _ => Compound::Unknown,
    }
}

impl Moment {
    /// The race as it stands. `laps`: its length and how it is known.
    pub fn of(race: &Race, laps: Option<(u16, LapsFrom)>) -> Moment {
        let lap = race.leader_laps_completed();
        let (status, status_laps) = status(race, lap);
        let weather = race.weather.as_ref();
        Moment {
            circuit: race.session.circuit_short_name.as_str().to_owned(),
            laps,
            lap,
            sprint: race.session.session_type == SessionType::Sprint,
            rules: rules(race),
            status,
            status_laps,
            raining: weather.is_some_and(|w| w.raining),
            track_c: weather.and_then(|w| w.track_temperature),
            cars: race.cars().iter().map(|c| history(c, race.clock)).collect(),
        }
    }
}

/// Those of a Grand Prix of that season; a sprint has none.
fn rules(race: &Race) -> Rules {
    let session = &race.session;
    let season = session.year.and_then(|y| u16::try_from(y).ok());
    match season {
        Some(season) if session.session_type == SessionType::Race => {
            Rules::of(season, session.circuit_short_name.as_str())
        }
        _ => Rules::default(),
    }
}

/// Changes of tyres by the stints that are told; in the pits the next one is on its way.
fn changes(car: &Car, on_its_way: bool) -> Option<u16> {
    let stint = car.current_stint()?;
    Some(u16::from(stint.number.saturating_sub(1)) + u16::from(on_its_way))
}

fn status(race: &Race, lap: u16) -> (Status, u16) {
    let now = |s: TrackStatus| match s {
        TrackStatus::SafetyCar => Status::SafetyCar,
        TrackStatus::VirtualSafetyCar => Status::Virtual,
        TrackStatus::Red => Status::Red,
        TrackStatus::Clear
        | TrackStatus::Yellow
        | TrackStatus::VirtualSafetyCarEnding
        | TrackStatus::Chequered => Status::Green,
    };
    let status = now(race.track_status());
    if status == Status::Green {
        return (status, 0);
    }
    let bit = race.track_status().bit();
    let laps = race
        .cars()
        .iter()
        .map(|c| {
            let held = |l: &&crate::race::LapState| l.number <= lap && l.statuses & bit != 0;
            c.laps
                .iter()
                .rev()
                .skip_while(|l| l.number > lap)
                .take_while(held)
                .count()
        })
        .max()
        .unwrap_or(0);
    (status, laps as u16)
}

fn history(car: &Car, clock: Time) -> CarHistory {
    let done = car.laps_completed;
    let seconds = |t: Time| t.millis() as f64 / 1000.0;
    let laps: Vec<DrivenLap> = car
        .laps
        .iter()
        .filter(|l| l.number <= done)
        .map(|l| DrivenLap {
            number: l.number,
            time_s: l.duration,
            ended_s: l.ended.filter(|t| *t <= clock).map(seconds),
            compound: compound_index(l.compound).or_else(|| {
                car.stint_at(l.number)
                    .and_then(|s| compound_index(s.compound))
            }),
            age: l.tyre_age,
            clean: l.is_clean() && l.number > 1,
        })
        .collect();
    let boxed = car.lap(done).is_some_and(|l| l.is_in_lap);
    let in_pit =
        car.status == CarStatus::InPit && car.laps.last().is_some_and(|l| l.number > done) && boxed
            || boxed && car.lap(done + 1).is_none_or(|l| l.sectors[0].is_none());
    let stint = car.current_stint();
    // The stint of before the stop says nothing about the tyres after it.
    let told = stint.filter(|s| !in_pit || s.lap_start > done);
    CarHistory {
        number: car.driver_number,
        team: car.team.as_str().to_owned(),
        grid: car.grid,
        qualifying_s: car.qualifying_s,
        position: car.position,
        running: car.status.runs(),
        in_pit,
        compound: told.and_then(|s| compound_index(s.compound)),
        age: if in_pit {
            told.map(|s| s.age_at_start.unwrap_or(0))
        } else {
            laps.last().and_then(|l| l.age)
        },
        changes: changes(car, in_pit && told.is_none()),
        laps,
    }
}
