//! How a car's race ends: retirement and the chequered flag.
//!
//! A car is taken for retired when race control says that it stopped; when it has stood still for
//! [`STANDING_S`] after having been under way (never while it waits out a red flag in the pits); or
//! when the leader has completed [`SILENT_LAPS`] laps since it last got on. It may come back: its
//! next sector or lap ends the retirement.
//!
//! The winner is the first to complete the most laps at a line time not before the chequered flag
//! (race control's dates are whole seconds, so [`FLAG_SLACK_S`] before it counts); every car that
//! completes a lap from then on has finished. Cars that have not after [`FINISH_WAIT_S`] are retired.
//!
//! On the 43 races of 2023 and 2024 in the tables (laps, race control and pit stops only, no
//! telemetry) 852 of 859 cars end as the official result says, and three retirements were taken back
//! (`cargo test --release --lib race::tests::seasons -- --nocapture`).
//!
//! **Invariant:** finishes are derived from line times, not from the order of arrival.

use super::{CarStatus, Event, Events, Race, TrackStatus, event::say};
use crate::record::Time;

/// Laps of the leader without a sign of a car.
pub const SILENT_LAPS: u16 = 3;
/// Standing still on the track (s).
pub const STANDING_S: f64 = 90.0;
/// How long before race control's date the winner may have crossed the line (s).
pub const FLAG_SLACK_S: f64 = 5.0;
/// How long after the winner a car may finish (s), at least; slow laps give more.
pub const FINISH_WAIT_S: f64 = 240.0;

/// The end of the race, as far as it has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Finish {
    /// When the chequered flag was shown.
    pub flag: Option<Time>,
    /// When the winner crossed the line.
    pub winner_line: Option<Time>,
    /// When those still out are given up.
    pub deadline: Option<Time>,
    /// When laps that wait for their time are over without it.
    pub overdue: Option<Time>,
    /// Laps that the leader has completed.
    pub leader_laps: u16,
    /// The furthest lap begun by any car.
    pub leader_begun: u16,
}

impl Race {
    /// The leader has completed another lap: cars of which nothing was heard for long are out.
    pub(super) fn miss_the_silent(&mut self, events: &mut Events) {
        let leader_laps = self.finish.leader_laps;
        for i in 0..self.cars.len() {
            let car = &mut self.cars[i];
            if !car.status.runs() {
                continue;
            }
            if !car.heard.has_started {
                if leader_laps >= 2 {
                    car.status = CarStatus::NotStarted;
                }
            } else if leader_laps.saturating_sub(car.heard.leader_laps) >= SILENT_LAPS {
                self.retire(i, events);
            }
        }
    }

    pub(super) fn retire(&mut self, i: usize, events: &mut Events) {
        let car = &mut self.cars[i];
        if car.status.runs() {
            car.status = CarStatus::Retired;
            let driver_number = car.driver_number;
            say(events, Event::Retired { driver_number });
        }
    }

    /// A car's telemetry came: has it stood for too long?
    #[inline]
    pub(super) fn mind_standing(&mut self, i: usize, now: Time, events: &mut Events) {
        let car = &self.cars[i];
        let Some(since) = car.heard.standing_since else {
            return;
        };
        if car.status != CarStatus::OnTrack || now.seconds_since(since) < STANDING_S {
            return;
        }
        // Who stopped before the red flag fell has stopped by himself.
        let waits = self.track.status == TrackStatus::Red && Some(since) >= self.track.since;
        if self.session.session_type.is_race() && self.session.started.is_some() && !waits {
            self.retire(i, events);
        }
    }

    /// Works out anew who has finished.
    pub(super) fn settle_finish(&mut self, events: &mut Events) {
        let Some(flag) = self.finish.flag else {
            return;
        };
        if !self.session.session_type.is_race() {
            return;
        }
        let from = flag.plus_seconds(-FLAG_SLACK_S);
        let most = self.leader_laps_completed();
        let line = |car: &super::Car| car.last_completed().and_then(|l| l.ended);
        // The first to complete the most laps: until the winner is home that is the leader, a lap
        // ago, whoever else comes by in the last seconds before the flag.
        let first = self
            .cars
            .iter()
            .filter(|c| c.laps_completed == most && most > 0)
            .filter_map(line)
            .min();
        let Some(winner) = first.filter(|t| *t >= from) else {
            return;
        };
        self.finish.winner_line = Some(winner);
        let slowest = self
            .cars
            .iter()
            .filter_map(|c| c.last_completed()?.duration)
            .fold(0.0, f64::max)
            .min(2.0 * FINISH_WAIT_S);
        self.finish.deadline = Some(winner.plus_seconds(FINISH_WAIT_S.max(1.5 * slowest)));
        for car in &mut self.cars {
            let home = line(car).is_some_and(|t| t >= winner);
            if home
                && matches!(
                    car.status,
                    CarStatus::OnTrack | CarStatus::InPit | CarStatus::Retired
                )
            {
                car.status = CarStatus::Finished;
                let driver_number = car.driver_number;
                say(events, Event::Finished { driver_number });
            }
        }
        self.end_if_all_are_in(events);
    }

    /// Gives up those still out.
    pub(super) fn give_up_the_rest(&mut self, events: &mut Events) {
        self.finish.deadline = None;
        for i in 0..self.cars.len() {
            if self.cars[i].heard.has_started {
                self.retire(i, events);
            } else if self.cars[i].status.runs() {
                self.cars[i].status = CarStatus::NotStarted;
            }
        }
        self.end_if_all_are_in(events);
    }

    fn end_if_all_are_in(&mut self, events: &mut Events) {
        if self.finish.winner_line.is_some() && !self.cars.iter().any(|c| c.status.runs()) {
            self.end_session(events);
        }
    }

    pub(super) fn end_session(&mut self, events: &mut Events) {
        if !self.session.finished {
            self.session.finished = true;
            say(events, Event::SessionFinished);
        }
    }
}
