//! How a car's race ends: retirement, the chequered flag, and what can still be told without it.
//!
//! A car is taken for retired when race control says that it stopped; when it has stood still for
//! [`STANDING_S`] after having been under way (never while it waits out a red flag in the pits); or
//! when the leader has completed [`SILENT_LAPS`] laps since it last got on. It may come back: its
//! next sector or lap ends the retirement. A car that its telemetry never shows under way after the
//! start, and that has neither sector nor lap, has not started.
//!
//! The winner is the first to complete the most laps at a line time not before the chequered flag
//! (race control's dates are whole seconds, so [`FLAG_SLACK_S`] before it counts); every car that
//! completes a lap from then on has finished. [`FINISH_WAIT_S`] after that the race is closed.
//!
//! Feeds have holes just there. So a race is also closed when race control says that the session is
//! over, or when the official results of more than half of the cars are known (one row proves
//! nothing); and one that has fallen silent is listed as if it were (after [`QUIET_S`]),
//! without touching the state, as it may be a red flag that nobody told of. Closing means:
//! - What an official result says of laps and of the ending holds from then on.
//! - Without a flag the winner is the first to complete the most laps.
//! - A lap whose end was never told counts if the next one was begun, as do last laps that were begun
//!   before the winner was home if the car was still under way [`CLEAR_OF_LINE_S`] after they must
//!   have ended: then it is on its way back to the pits. Where there is no telemetry at all, two
//!   sectors will do.
//! - Who is still out is retired.
//!
//! On the 43 races of 2023 and 2024 in the tables (laps, race control and pit stops only, neither
//! telemetry nor results) 856 of 859 cars end as the official result says, and three retirements were
//! taken back (`cargo test --release --lib race::tests::seasons -- --nocapture`).
//!
//! **Invariant:** finishes are derived from line times, not from the order of arrival; a word of
//! arrival stands in only for a car whose line times cannot be worked out.

use super::lap::MAX_LAPS;
use super::{Car, CarStatus, Event, Events, LapState, Race, TrackStatus, event::say};
use crate::record::Time;

/// Laps of the leader without a sign of a car.
pub const SILENT_LAPS: u16 = 3;
/// Standing still on the track (s).
pub const STANDING_S: f64 = 90.0;
/// How long before race control's date the winner may have crossed the line (s).
pub const FLAG_SLACK_S: f64 = 5.0;
/// How long after the winner a car may finish (s), at least; slow laps give more.
pub const FINISH_WAIT_S: f64 = 240.0;
/// How long no car may have ended a sector before a race is listed as over (s). Behind the safety car
/// the longest sector takes 80 s or so, and feeds go on for two to three minutes after the last car.
pub const QUIET_S: f64 = 120.0;
/// How long after the guessed end of a lap a car must still be under way to have ended it (s).
pub const CLEAR_OF_LINE_S: f64 = 20.0;
/// How far off such a guess may be (s).
pub const GUESS_SLACK_S: f64 = 10.0;

/// The end of the race, as far as it has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Finish {
    /// When the chequered flag was shown.
    pub flag: Option<Time>,
    /// When the winner crossed the line.
    pub winner_line: Option<Time>,
    /// When the race is closed.
    pub deadline: Option<Time>,
    /// Whether it has been closed: nobody is out any more.
    pub closed: bool,
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
            let car = &self.cars[i];
            let silent = leader_laps.saturating_sub(car.heard.leader_laps) >= SILENT_LAPS;
            if !car.status.runs() {
                continue;
            }
            if !car.heard.has_started && !car.heard.raced {
                if leader_laps >= 2 {
                    self.cars[i].status = CarStatus::NotStarted;
                }
            } else if silent {
                self.retire(i, events);
            }
        }
    }

    pub(super) fn retire(&mut self, i: usize, events: &mut Events) {
        let started = self.session.started;
        let car = &mut self.cars[i];
        if car.status.runs() {
            car.status = match car.stayed_on_the_grid(started) {
                true => CarStatus::NotStarted,
                false => CarStatus::Retired,
            };
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

    /// The first to complete the most laps, if that was after the flag: until the winner is home it is
    /// the leader, a lap ago, whoever else comes by in the last seconds before the flag.
    fn first_home(&self) -> Option<Time> {
        let most = self.leader_laps_completed();
        let leaders = self.cars.iter().filter(|c| c.laps_completed == most);
        let first = leaders.filter_map(Car::crossed).min()?;
        let flagged = |t: Time| first >= t.plus_seconds(-FLAG_SLACK_S);
        (self.finish.closed || self.finish.flag.is_some_and(flagged)).then_some(first)
    }

    /// Works out anew who has finished.
    pub(super) fn settle_finish(&mut self, events: &mut Events) {
        if !self.session.session_type.is_race() {
            return;
        }
        let Some(winner) = self.first_home() else {
            return;
        };
        self.finish.winner_line = Some(winner);
        self.close_after(winner);
        for car in &mut self.cars {
            let home = car.crossed().is_some_and(|t| t >= winner);
            if home
                && car.official_ending().is_none()
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
        if !self.cars.iter().any(|c| c.status.runs()) {
            self.end_session(events);
        }
    }

    /// The race is to be closed once all have had time to come home after `t`.
    pub(super) fn close_after(&mut self, t: Time) {
        if self.finish.closed {
            return;
        }
        let slowest = self
            .cars
            .iter()
            .filter_map(|c| c.last_completed()?.duration)
            .fold(0.0, f64::max)
            .min(2.0 * FINISH_WAIT_S);
        self.finish.deadline = Some(t.plus_seconds(FINISH_WAIT_S.max(1.5 * slowest)));
    }

    /// Closes the race: nobody is out any more.
    pub(super) fn close_race(&mut self, events: &mut Events) {
        self.finish.closed = true;
        self.finish.deadline = None;
        for i in 0..self.cars.len() {
            self.adopt_result(i, events);
        }
        self.count_lost_laps();
        self.settle_finish(events);
        for i in 0..self.cars.len() {
            let heard = &self.cars[i].heard;
            if heard.has_started || heard.raced {
                self.retire(i, events);
            } else if self.cars[i].status.runs() {
                self.cars[i].status = CarStatus::NotStarted;
            }
        }
        self.end_session(events);
    }

    /// What the official result says of a car's laps and ending holds.
    pub(super) fn adopt_result(&mut self, i: usize, events: &mut Events) {
        let car = &mut self.cars[i];
        let Some(official) = &car.official else {
            return;
        };
        if let Some(laps) = official.laps.filter(|n| usize::from(*n) <= MAX_LAPS) {
            car.laps_completed = laps;
        }
        let Some(ending) = car.official_ending().filter(|e| *e != car.status) else {
            return;
        };
        car.status = ending;
        let driver_number = car.driver_number;
        match ending {
            CarStatus::Finished => say(events, Event::Finished { driver_number }),
            CarStatus::Retired => say(events, Event::Retired { driver_number }),
            _ => {}
        }
    }

    /// Counts last laps that must have been driven though their end was never told.
    fn count_lost_laps(&mut self) {
        let flag = self.finish.flag.map(|f| f.plus_seconds(-FLAG_SLACK_S));
        let first = self.first_home();
        // Nobody is known to have come home: all last laps were lost.
        let home = match flag.filter(|f| first.is_none_or(|t| t < *f)) {
            None => first.map(|t| self.winner_home(t)),
            flag => flag,
        };
        let Some(home) = home else {
            return;
        };
        for car in &mut self.cars {
            let out = car.status.runs() || car.status == CarStatus::Retired;
            let Some((start, end)) = car.lost_lap() else {
                continue;
            };
            let sure = car.ended(car.laps_completed + 1).is_some();
            let last = start < home && end.plus_seconds(GUESS_SLACK_S) >= home;
            if out && (sure || last) && car.official_ending().is_none() {
                car.laps_completed += 1;
                car.heard.over_by = Some((car.laps_completed, end));
            }
        }
    }

    /// When the winner came home, if the first who is known to have completed the most laps did so at
    /// `first`: it may be the winner's last lap that was lost.
    fn winner_home(&self, first: Time) -> Time {
        let most = self.leader_laps_completed();
        self.cars
            .iter()
            .filter(|c| c.laps_completed + 1 == most)
            .filter_map(|c| Some(c.lost_lap()?.1))
            .fold(first, Time::min)
    }

    /// Whether no car has ended a sector for [`QUIET_S`], though the track is open.
    pub(super) fn has_fallen_silent(&self) -> bool {
        let sign = |l: &LapState| {
            let driven: f64 = l.sectors.iter().map_while(|s| *s).sum();
            l.started.map(|t| t.plus_seconds(driven)).max(l.ended)
        };
        let newest = self.cars.iter().flat_map(|c| c.laps.iter().rev().take(2));
        let last = newest.filter_map(sign).max();
        self.session.session_type.is_race()
            && !self.session.finished
            && self.track.status != TrackStatus::Red
            && self.leader_laps_completed() > 0
            && last.is_some_and(|t| self.clock.seconds_since(t) > QUIET_S)
    }

    pub(super) fn end_session(&mut self, events: &mut Events) {
        if !self.session.finished {
            self.session.finished = true;
            say(events, Event::SessionFinished);
        }
    }
}

impl Car {
    /// How its race ended officially.
    fn official_ending(&self) -> Option<CarStatus> {
        self.official.as_ref()?.ending
    }

    /// The line time at the end of its last completed lap.
    pub(super) fn line(&self) -> Option<Time> {
        self.ended(self.laps_completed)
    }

    /// When it ended its last completed lap; near enough where the line time cannot be worked out.
    pub(super) fn crossed(&self) -> Option<Time> {
        let heard = self.heard.over_by.filter(|b| b.0 == self.laps_completed);
        self.line().or(heard.map(|b| b.1))
    }

    /// When lap `number` ended. A lap without a time of its own ended when the next one began; but the
    /// lap back to the pits may be told to begin at any time (Monza 2023: for all cars at once, six
    /// minutes after the finish).
    fn ended(&self, number: u16) -> Option<Time> {
        let ended = self.lap(number)?.ended?;
        let next = self.lap(number + 1);
        let by_next = next.is_some_and(|n| n.started == Some(ended) && n.sectors_known() == 0);
        let far = |t: Time| ended.seconds_since(t).abs() > GUESS_SLACK_S;
        (!by_next || !self.guessed_end(number).is_some_and(far)).then_some(ended)
    }

    fn stayed_on_the_grid(&self, started: Option<Time>) -> bool {
        self.heard.telemetry > started
            && !self.heard.raced
            && self.laps_completed == 0
            && self.laps.iter().all(|l| l.sectors_known() == 0)
    }

    /// Start and end of the lap after the last completed one, where all speaks for its having been
    /// driven though nobody told of its end.
    fn lost_lap(&self) -> Option<(Time, Time)> {
        let number = self.laps_completed + 1;
        let lap = self.lap(number);
        let start = lap.and_then(|l| l.started).or(self.crossed())?;
        // Its third sector is known, or the start of the next one.
        if let Some(end) = self.ended(number) {
            return Some((start, end));
        }
        let end = start.plus_seconds(self.guessed_lap_s(number)?);
        let driven = match self.heard.telemetry {
            Some(_) => self.heard.moving >= Some(end.plus_seconds(CLEAR_OF_LINE_S)),
            None => self.status.runs() && lap.is_some_and(|l| l.sectors_known() >= 2),
        };
        (driven && usize::from(number) <= MAX_LAPS).then_some((start, end))
    }

    /// When lap `number` ended, guessed from its start and the lap before it.
    pub(super) fn guessed_end(&self, number: u16) -> Option<Time> {
        let started = self.lap(number).and_then(|l| l.started);
        let before = || self.lap(number.checked_sub(1)?)?.ended;
        let start = started.or_else(before)?;
        Some(start.plus_seconds(self.guessed_lap_s(number)?))
    }

    /// Duration of lap `number` (s): its own sectors as far as they are known, else those of the lap
    /// before.
    fn guessed_lap_s(&self, number: u16) -> Option<f64> {
        let before = self.lap(number.checked_sub(1)?)?;
        let own = self.lap(number).map_or([None; 3], |l| l.sectors);
        let sectors = own.iter().zip(before.sectors).map(|(s, b)| s.or(b));
        sectors.sum::<Option<f64>>().or(before.duration)
    }
}
