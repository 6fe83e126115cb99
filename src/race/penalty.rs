//! Investigations and penalties, read from race control's messages.
//!
//! A time penalty is taken as served at the car's next visit to the pit lane that is not under a red
//! flag; a drive-through or stop-and-go likewise, but not behind the safety car (the rules forbid
//! it). "PENALTY SERVED", where race control says so, settles it too. Drive-throughs and stop-and-gos
//! that nobody served are not turned into seconds: the stewards do that after the race, in writing.
//!
//! **Invariant:** one entry a decision, however often it is told: messages are heard once
//! ([`super::control`]).

use heapless::String;
use serde::Serialize;

use super::control::{MAX_NAMED, cars};
use super::event::say;
use super::{CarStatus, Event, Events, Race, text};
use crate::record::Time;

/// Most penalties kept; the rest are dropped. The most in a race so far were about 20.
pub const MAX_PENALTIES: usize = 128;
/// Most investigations kept; the oldest go first.
pub const MAX_INVESTIGATIONS: usize = 128;

/// What a penalty is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PenaltyKind {
    /// Seconds, at the next stop or added at the end.
    Time {
        seconds: u16,
    },
    DriveThrough,
    /// Seconds standing still.
    StopGo {
        seconds: u16,
    },
}

/// A penalty that race control announced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Penalty {
    pub driver_number: u8,
    #[serde(flatten)]
    pub kind: PenaltyKind,
    pub given: Time,
    /// Such as `SPEEDING IN THE PIT LANE`.
    pub reason: String<64>,
    pub served: bool,
}

impl Penalty {
    /// Seconds that it adds to the race time unless it is served.
    pub const fn seconds(&self) -> u16 {
        match self.kind {
            PenaltyKind::Time { seconds } => seconds,
            _ => 0,
        }
    }
}

/// How far the stewards have got with an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InvestigationState {
    Noted,
    UnderInvestigation,
    AfterSession,
    NoAction,
    Penalised,
}

/// An incident that the stewards were told of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Investigation {
    pub cars: heapless::Vec<u8, MAX_NAMED>,
    /// Such as `CAUSING A COLLISION`; empty where the message gives none.
    pub reason: String<64>,
    pub state: InvestigationState,
    /// When it came to that.
    pub date: Time,
}

/// What a message decides.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    Penalty {
        cars: heapless::Vec<u8, MAX_NAMED>,
        kind: PenaltyKind,
    },
    Served {
        cars: heapless::Vec<u8, MAX_NAMED>,
    },
    Disqualified {
        cars: heapless::Vec<u8, MAX_NAMED>,
    },
    /// A car stopped or retired, by race control's word.
    Stopped {
        cars: heapless::Vec<u8, MAX_NAMED>,
    },
    LapDeleted {
        car: u8,
        seconds: Option<f64>,
        lap: Option<u16>,
    },
    LapReinstated {
        car: u8,
        seconds: f64,
    },
    Investigation {
        cars: heapless::Vec<u8, MAX_NAMED>,
        state: InvestigationState,
    },
}

/// What comes after ` - `.
pub(super) fn reason(message: &str) -> String<64> {
    text::cut(message.split_once(" - ").map_or("", |(_, r)| r))
}

/// Reads a message; `None` where it decides nothing about a car.
pub(super) fn decision(message: &str, flag: Option<&str>) -> Option<Decision> {
    let has = |text: &str| message.contains(text);
    let cars = cars(message);
    let first = *cars.first()?;
    let flag = flag.unwrap_or_default().trim();
    if has("DELETED") {
        let lap = number_after(message, " LAP ");
        let seconds = lap_time(message);
        return Some(Decision::LapDeleted {
            car: first,
            seconds,
            lap,
        });
    }
    if has("REINSTATED") {
        return lap_time(message).map(|seconds| Decision::LapReinstated {
            car: first,
            seconds,
        });
    }
    if has("PENALTY SERVED") {
        return Some(Decision::Served { cars });
    }
    if has("PENALTY FOR CAR") {
        let head = message.split(" FOR CAR").next().unwrap_or_default();
        let kind = if head.contains("DRIVE THROUGH") || head.contains("DRIVE-THROUGH") {
            PenaltyKind::DriveThrough
        } else {
            let seconds = seconds_before(head)?;
            match head.contains("STOP") {
                true => PenaltyKind::StopGo { seconds },
                false if head.contains("TIME PENALTY") => PenaltyKind::Time { seconds },
                false => return None,
            }
        };
        return Some(Decision::Penalty { cars, kind });
    }
    if flag.eq_ignore_ascii_case("BLACK") || has("BLACK FLAG FOR CAR") || has("DISQUALIFIED") {
        return Some(Decision::Disqualified { cars });
    }
    if (has(" STOPPED") || has(" RETIRED")) && !has("INCIDENT") {
        return Some(Decision::Stopped { cars });
    }
    let state = if has("NO FURTHER") {
        InvestigationState::NoAction
    } else if has("WILL BE INVESTIGATED AFTER") {
        InvestigationState::AfterSession
    } else if has("UNDER INVESTIGATION") {
        InvestigationState::UnderInvestigation
    } else if has(" NOTED") {
        InvestigationState::Noted
    } else {
        return None;
    };
    Some(Decision::Investigation { cars, state })
}

/// `TIME 1:24.920` in seconds.
fn lap_time(message: &str) -> Option<f64> {
    let (_, rest) = message.split_once(" TIME ")?;
    let (minutes, seconds) = rest.split_whitespace().next()?.split_once(':')?;
    let (m, s): (f64, f64) = (minutes.parse().ok()?, seconds.parse().ok()?);
    Some(m * 60.0 + s)
}

fn number_after(message: &str, word: &str) -> Option<u16> {
    let (_, rest) = message.split_once(word)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The number before `SECOND`.
fn seconds_before(head: &str) -> Option<u16> {
    let (before, _) = head.split_once(" SECOND")?;
    before.split_whitespace().next_back()?.parse().ok()
}

impl Investigation {
    /// Puts a step of the stewards into the list: the open incident of the same cars and reason goes
    /// on, otherwise it is a new one.
    pub(super) fn note(
        list: &mut Vec<Investigation>,
        cars: heapless::Vec<u8, MAX_NAMED>,
        reason: String<64>,
        state: InvestigationState,
        date: Time,
    ) {
        let open = |i: &&mut Investigation| {
            matches!(
                i.state,
                InvestigationState::Noted
                    | InvestigationState::UnderInvestigation
                    | InvestigationState::AfterSession
            ) && (i.reason == reason || reason.is_empty() || i.reason.is_empty())
        };
        let same = |i: &Investigation| match state {
            InvestigationState::Penalised => cars.iter().all(|c| i.cars.contains(c)),
            _ => i.cars == cars,
        };
        if let Some(held) = list.iter_mut().rev().filter(open).find(|i| same(i)) {
            if date >= held.date {
                (held.state, held.date) = (state, date);
            }
            return;
        }
        if list.len() == MAX_INVESTIGATIONS {
            list.remove(0);
        }
        list.push(Investigation {
            cars,
            reason,
            state,
            date,
        });
    }
}

impl Race {
    /// Does what race control decided.
    pub(super) fn decide(&mut self, decision: Decision, text: &str, t: Time, events: &mut Events) {
        match decision {
            Decision::Penalty { cars, kind } => {
                for driver_number in cars.iter().copied() {
                    let penalty = Penalty {
                        driver_number,
                        kind,
                        given: t,
                        reason: reason(text),
                        served: false,
                    };
                    let seconds = match kind {
                        PenaltyKind::Time { seconds } | PenaltyKind::StopGo { seconds } => seconds,
                        PenaltyKind::DriveThrough => 0,
                    };
                    if self.penalties.len() < MAX_PENALTIES {
                        self.penalties.push(penalty);
                    }
                    say(
                        events,
                        Event::PenaltyGiven {
                            driver_number,
                            seconds,
                        },
                    );
                }
                self.count_penalties();
                let state = InvestigationState::Penalised;
                Investigation::note(&mut self.investigations, cars, reason(text), state, t);
            }
            Decision::Served { cars } => {
                let owed = |p: &&mut Penalty| !p.served && cars.contains(&p.driver_number);
                if let Some(p) = self.penalties.iter_mut().find(owed) {
                    p.served = true;
                }
                self.count_penalties();
            }
            Decision::Disqualified { cars } => {
                for number in cars {
                    if let Some(i) = self.slot(number) {
                        self.cars[i].status = CarStatus::Disqualified;
                    }
                }
            }
            Decision::Stopped { cars } => {
                for number in cars {
                    if let Some(i) = self.slot(number)
                        && self.session.session_type.is_race()
                    {
                        self.retire(i, events);
                    }
                }
            }
            Decision::LapDeleted { car, seconds, lap } => {
                if let Some(i) = self.slot(car) {
                    self.cars[i].delete_lap(seconds, lap, true);
                }
            }
            Decision::LapReinstated { car, seconds } => {
                if let Some(i) = self.slot(car) {
                    self.cars[i].delete_lap(Some(seconds), None, false);
                }
            }
            Decision::Investigation { cars, state } => {
                Investigation::note(&mut self.investigations, cars, reason(text), state, t);
            }
        }
    }

    /// Adds up what each car still has to serve.
    pub(super) fn count_penalties(&mut self) {
        for car in &mut self.cars {
            let owed = self
                .penalties
                .iter()
                .filter(|p| p.driver_number == car.driver_number && !p.served);
            // The sum of nothing is −0.
            car.penalty_s = owed.map(|p| f64::from(p.seconds())).sum::<f64>() + 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &str) -> Option<Decision> {
        decision(message, None)
    }

    fn only(car: u8) -> heapless::Vec<u8, MAX_NAMED> {
        heapless::Vec::from_slice(&[car]).unwrap()
    }

    #[test]
    fn penalties_of_every_kind() {
        let time = |s| PenaltyKind::Time { seconds: s };
        for (message, car, kind) in [
            (
                "FIA STEWARDS: 10 SECOND TIME PENALTY FOR CAR 40 (LAW) - IMPEDING",
                40,
                time(10),
            ),
            (
                "FIA STEWARDS: LAP 1 TURN 1 INCIDENT 5 SECOND TIME PENALTY FOR CAR 3 (RIC) - X",
                3,
                time(5),
            ),
            (
                "FIA STEWARDS: DRIVE THROUGH PENALTY FOR CAR 11 (PER) - SPEEDING IN THE PIT LANE",
                11,
                PenaltyKind::DriveThrough,
            ),
            (
                "FIA STEWARDS: 10 SECOND STOP/GO PENALTY FOR CAR 4 (NOR) - FAILING TO SLOW UNDER YELLOW FLAGS",
                4,
                PenaltyKind::StopGo { seconds: 10 },
            ),
        ] {
            assert_eq!(
                read(message),
                Some(Decision::Penalty {
                    cars: only(car),
                    kind
                }),
                "{message}"
            );
        }
        assert_eq!(
            reason("FIA STEWARDS: 10 SECOND TIME PENALTY FOR CAR 40 (LAW) - IMPEDING").as_str(),
            "IMPEDING"
        );
    }

    #[test]
    fn other_decisions() {
        assert_eq!(
            read("CAR 10 (GAS) TIME 1:24.920 DELETED - TRACK LIMITS AT TURN 3 LAP 6 15:11:22"),
            Some(Decision::LapDeleted {
                car: 10,
                seconds: Some(84.92),
                lap: Some(6)
            })
        );
        assert_eq!(
            read("FIA STEWARDS: BLACK FLAG FOR CAR 27 (HUL)"),
            Some(Decision::Disqualified { cars: only(27) })
        );
        assert_eq!(
            read("CAR 16 (LEC) STOPPED AT TURN 8"),
            Some(Decision::Stopped { cars: only(16) })
        );
        assert_eq!(
            read("CAR 16 (LEC) OFF TRACK AND CONTINUED AT TURN 11"),
            None
        );
        assert_eq!(
            decision(
                "BLACK AND WHITE FLAG FOR CAR 20 (MAG) - MOVING UNDER BRAKING",
                Some("BLACK AND WHITE")
            ),
            None
        );
        assert_eq!(
            decision(
                "WAVED BLUE FLAG FOR CAR 2 (SAR) TIMED AT 15:13:17",
                Some("BLUE")
            ),
            None
        );
    }

    #[test]
    fn an_incident_goes_its_way() {
        let mut list = Vec::new();
        for (t, message, state) in [
            (
                1,
                "TURN 1 INCIDENT INVOLVING CARS 22 (TSU) AND 63 (RUS) NOTED - CAUSING A COLLISION",
                InvestigationState::Noted,
            ),
            (
                2,
                "FIA STEWARDS: TURN 1 INCIDENT INVOLVING CARS 22 (TSU) AND 63 (RUS) UNDER INVESTIGATION - CAUSING A COLLISION",
                InvestigationState::UnderInvestigation,
            ),
        ] {
            let Some(Decision::Investigation { cars, state: read }) = read(message) else {
                panic!("{message}")
            };
            assert_eq!(read, state);
            Investigation::note(&mut list, cars, reason(message), read, Time::from_millis(t));
        }
        Investigation::note(
            &mut list,
            only(22),
            reason("X - CAUSING A COLLISION"),
            InvestigationState::Penalised,
            Time::from_millis(3),
        );
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].state, InvestigationState::Penalised);
    }
}
