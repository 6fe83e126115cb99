//! One record into the state.
//!
//! **Invariant:** what streams takes the short way: a table look-up and a handful of stores. Only a
//! record that changes something rare (a lap, race control, a new session) goes further.

use super::control::{ControlMessage, says_over};
use super::event::say;
use super::penalty::{PenaltyKind, decision};
use super::session::{MeetingName, is_live};
use super::track::{Signal, signal};
use super::{
    CarStatus, Event, Events, OfficialResult, Race, SessionType, TrackStatus, WeatherState,
};
use crate::record::{
    Entry, Lap, Pit, Position, RaceControl, Record, SessionResult, StartingGrid, Time,
};

/// Time in the pit lane that is assumed where the feed gives none (s).
const USUAL_LANE_S: f64 = 20.0;

impl Race {
    /// Takes in the journal's record `seq` and says what it changed.
    pub fn apply(&mut self, seq: u64, entry: &Entry) -> Events {
        let mut events = Events::new();
        let record = &entry.record;
        self.seq = seq;
        let Some(key) = record.session_key() else {
            if let Record::Meeting(r) = record {
                let meeting = MeetingName::of(r);
                self.session.meet(&meeting);
                self.sessions.meeting = Some(meeting);
            }
            return events;
        };
        match record {
            Record::StartingGrid(r) => {
                self.grid(r, entry.id);
                return events;
            }
            Record::Prediction(_) | Record::ChampionshipDriver(_) | Record::ChampionshipTeam(_) => {
                return events;
            }
            _ => {}
        }
        if self.session.key != Some(key) && !self.turns(seq, entry, key, &mut events) {
            self.foreign_records += 1;
            return events;
        }
        self.sessions.own(record);
        self.fold(seq, entry, &mut events);
        events
    }

    /// Folds a record of this session.
    fn fold(&mut self, seq: u64, entry: &Entry, events: &mut Events) {
        let record = &entry.record;
        let in_time = self.tick(seq, record, events);
        if in_time || !record.kind().streams() && !matches!(record, Record::Position(_)) {
            self.take(seq, entry, events);
        }
    }

    /// A record of another session came: whether that one goes on from here. If not, the record is
    /// folded aside.
    fn turns(&mut self, seq: u64, entry: &Entry, key: i32, events: &mut Events) -> bool {
        let other = self.other.as_deref();
        let other = other
            .filter(|o| o.session.key == Some(key))
            .map(|o| o.clock);
        let turns = self.sessions.begins(&entry.record, key, &self.session)
            || self.sessions.outlasts(other, self.clock);
        if turns {
            self.turn_to(&entry.record, key, events);
        } else {
            self.fold_aside(seq, entry, key);
        }
        turns
    }

    /// Folds a record of a session that is not this one, in case it takes over or comes back. What is
    /// held of a third session gives way only to one that keeps coming.
    fn fold_aside(&mut self, seq: u64, entry: &Entry, key: i32) {
        let held = self.other.as_ref().map(|o| o.session.key);
        if held != Some(Some(key)) {
            let room = held.is_none() || self.sessions.keep_coming();
            if !room || !is_live(&entry.record) {
                return;
            }
            self.other = Some(Box::new(self.opened(&entry.record, key)));
        }
        if let Some(other) = &mut self.other {
            other.seq = seq;
            other.fold(seq, entry, &mut Events::new());
            self.sessions.heard_aside(other.clock);
        }
    }

    /// A session of which nothing was folded yet, with what was announced of it.
    fn opened(&self, record: &Record, key: i32) -> Race {
        let mut session = self.sessions.session(key).cloned().unwrap_or_default();
        session.key = Some(key);
        session.meeting_key = meeting_key(record).or(session.meeting_key);
        Race {
            session,
            ..Race::new()
        }
    }

    /// Goes on with another session. The one before is kept aside if it was alive.
    fn turn_to(&mut self, record: &Record, key: i32, events: &mut Events) {
        let (next, third) = match self.other.take() {
            Some(held) if held.session.key == Some(key) => (*held, None),
            held => (self.opened(record, key), held),
        };
        let mut before = std::mem::replace(self, next);
        self.seq = before.seq;
        self.sessions = std::mem::take(&mut before.sessions);
        if let Some(meeting) = &self.sessions.meeting {
            self.session.meet(meeting);
        }
        self.other = match self.sessions.alive {
            true => Some(Box::new(before)),
            false => third,
        };
        self.sessions.begun();
        say(events, Event::SessionChanged { session_key: key });
    }

    /// Moves the clock on, and what was waiting for it. `false`: the clock refused the record's date,
    /// so that what streams must be left out, lest what comes after it seem old.
    #[inline]
    fn tick(&mut self, seq: u64, record: &Record, events: &mut Events) -> bool {
        let date = match record {
            // The schedule is no news of the time.
            Record::Session(_) => None,
            Record::Frame(r) => Some(r.last),
            record => record.date(),
        };
        let Some(date) = date else {
            return true;
        };
        self.clock = self.gate.advance(self.clock, date);
        if self.track.is_due(self.clock) {
            self.with_track(events, |race| {
                race.track
                    .derive(race.clock, race.session.session_type.is_race());
            });
        }
        if matches!(self.finish.overdue, Some(t) if t < self.clock) {
            self.finish.overdue = None;
            for i in 0..self.cars.len() {
                if self.cars[i].complete_overdue(seq, &self.track, events) {
                    self.after_completion(i, events);
                }
            }
        }
        if matches!(self.finish.deadline, Some(t) if t < self.clock) {
            self.close_race(events);
        }
        date <= self.clock
    }

    #[inline]
    fn take(&mut self, seq: u64, entry: &Entry, events: &mut Events) {
        match &entry.record {
            Record::CarData(r) => {
                let racing =
                    self.session.started.is_some() && self.track.status != TrackStatus::Red;
                if let Some(i) = self.slot(r.driver_number) {
                    self.cars[i].telemetry(r, racing);
                    self.mind_standing(i, r.date, events);
                }
            }
            Record::Location(r) => {
                if let Some(i) = self.slot(r.driver_number) {
                    self.cars[i].locate(r);
                }
            }
            Record::Interval(r) => {
                if self.session.session_type == SessionType::Unknown {
                    // Only races have intervals.
                    self.session.session_type = SessionType::Race;
                }
                if let Some(i) = self.slot(r.driver_number) {
                    self.cars[i].space(r);
                }
            }
            Record::Frame(r) => {
                if let Some(i) = self.slot(r.driver_number) {
                    let car = &mut self.cars[i];
                    car.last_seen = car.last_seen.max(Some(r.last));
                }
            }
            Record::Position(r) => self.position(r, events),
            Record::Lap(r) => self.lap(r, entry.id, seq, events),
            Record::Pit(r) => self.visit(r, entry.id, events),
            Record::Stint(r) => {
                if let Some(i) = self.slot(r.driver_number) {
                    self.cars[i].stint(r, entry.id, events);
                }
            }
            Record::Weather(r) => WeatherState::update(&mut self.weather, r),
            Record::RaceControl(r) => self.control(r, entry.id, events),
            Record::Driver(r) => {
                if let Some(i) = self.slot(r.driver_number) {
                    self.cars[i].identify(r);
                }
            }
            Record::Session(r) => {
                self.sessions.announce(r);
                self.session.describe(r);
                if let Some(meeting) = &self.sessions.meeting {
                    self.session.meet(meeting);
                }
            }
            Record::SessionResult(r) => self.result(r, entry.id, events),
            Record::Overtake(_)
            | Record::TeamRadio(_)
            | Record::Meeting(_)
            | Record::StartingGrid(_)
            | Record::ChampionshipDriver(_)
            | Record::ChampionshipTeam(_)
            | Record::Prediction(_) => {}
        }
    }

    /// The grid carries the qualifying session's key: it is matched by its meeting, and a sprint's
    /// grid is told from the race's where the qualifying session was announced.
    fn grid(&mut self, r: &StartingGrid, version: Option<i64>) {
        let set_by = self.sessions.session(r.session_key).map(|s| s.session_type);
        let other = match self.session.session_type {
            SessionType::Race => set_by == Some(SessionType::SprintQualifying),
            SessionType::Sprint => set_by == Some(SessionType::Qualifying),
            SessionType::Unknown => false,
            _ => true,
        };
        if self.session.meeting_key != Some(r.meeting_key) || other {
            return;
        }
        let Some(i) = self.slot(r.driver_number) else {
            return;
        };
        let car = &mut self.cars[i];
        if car.heard.grid_is_official && version < car.heard.grid_version {
            return;
        }
        if r.position.is_some() {
            car.grid = r.position;
            car.heard.grid_is_official = true;
        }
        car.heard.grid_version = version;
        car.qualifying_s = r.lap_duration.or(car.qualifying_s);
    }

    fn position(&mut self, r: &Position, events: &mut Events) {
        let before_start = self.session.started.is_none();
        let Some(i) = self.slot(r.driver_number) else {
            return;
        };
        let car = &mut self.cars[i];
        let earliest = car.heard.first_position.is_none_or(|t| r.date < t);
        if before_start && earliest && !car.heard.grid_is_official {
            car.grid = Some(r.position);
            car.heard.first_position = Some(r.date);
        }
        if car.heard.position > Some(r.date) {
            return;
        }
        car.heard.position = Some(r.date);
        if car.position != Some(r.position) {
            car.position = Some(r.position);
            say(
                events,
                Event::PositionChanged {
                    driver_number: r.driver_number,
                    position: r.position,
                },
            );
        }
    }

    fn lap(&mut self, r: &Lap, version: Option<i64>, seq: u64, events: &mut Events) {
        let Some(i) = self.slot(r.driver_number) else {
            return;
        };
        let is_race = self.session.session_type.is_race();
        if self.session.started.is_none() && is_race {
            self.start(self.told(r.date_start), events);
        }
        let heard = (version, seq, self.clock);
        let progress = self.cars[i].lap_record(r, heard, &self.track, events);
        if progress.waits {
            let due = self.clock.plus_seconds(super::lap::LAP_TIME_WAIT_S);
            self.finish.overdue = Some(self.finish.overdue.map_or(due, |held| held.min(due)));
        }
        if !is_race {
            return;
        }
        let closed = self.finish.closed;
        let car = &mut self.cars[i];
        if progress.moved {
            car.heard.has_started = true;
            car.heard.leader_laps = self.finish.leader_laps.max(car.laps_completed);
            car.heard.standing_since = None;
            match car.status {
                CarStatus::Retired if self.finish.winner_line.is_none() && !closed => {
                    car.status = CarStatus::OnTrack;
                    say(
                        events,
                        Event::Resumed {
                            driver_number: r.driver_number,
                        },
                    );
                }
                CarStatus::NotStarted if !closed => car.status = CarStatus::OnTrack,
                _ => {}
            }
        }
        if let Some(number) = progress.began.filter(|n| *n >= self.finish.leader_begun) {
            self.finish.leader_begun = number;
            let t = self.told(r.date_start);
            self.with_track(events, |race| {
                race.track.leader_began_lap(t, race.clock, true)
            });
        }
        if progress.completed.is_some() {
            self.after_completion(i, events);
        }
        if closed {
            self.adopt_result(i, events);
        }
    }

    /// Car `i` of the list has completed a lap: what follows from it for the race.
    fn after_completion(&mut self, i: usize, events: &mut Events) {
        if !self.session.session_type.is_race() {
            return;
        }
        if self.cars[i].laps_completed > self.finish.leader_laps {
            self.finish.leader_laps = self.cars[i].laps_completed;
            self.miss_the_silent(events);
        }
        self.settle_finish(events);
    }

    /// A date that the clock took, else the clock's own.
    fn told(&self, date: Option<Time>) -> Time {
        date.filter(|t| *t <= self.clock).unwrap_or(self.clock)
    }

    fn start(&mut self, t: Time, events: &mut Events) {
        self.session.started = Some(t);
        say(events, Event::SessionStarted);
    }

    fn visit(&mut self, r: &Pit, version: Option<i64>, events: &mut Events) {
        let Some(i) = self.slot(r.driver_number) else {
            return;
        };
        let exit = self.told(r.date);
        let lane_s = r.lane_duration.or(r.pit_duration).unwrap_or(USUAL_LANE_S);
        let entry = exit.plus_seconds(-lane_s);
        let under_red = self.track.was_suspended(entry, exit);
        let is_new = self.cars[i].pit(r, exit, version, under_red, events);
        let car = &mut self.cars[i];
        car.heard.standing_since = None;
        if !is_new || car.pits.iter().any(|p| p.exit == Some(exit) && p.under_red) {
            return;
        }
        let neutral = TrackStatus::SafetyCar.bit() | TrackStatus::VirtualSafetyCar.bit();
        let neutralised = self.track.held(entry, exit) & neutral != 0;
        for p in &mut self.penalties {
            let counts = matches!(p.kind, PenaltyKind::Time { .. }) || !neutralised;
            if p.driver_number == r.driver_number && p.given <= entry && counts {
                p.served = true;
            }
        }
        self.count_penalties();
    }

    fn control(&mut self, r: &RaceControl, id: Option<i64>, events: &mut Events) {
        let message = ControlMessage::of(r, self.clock);
        let (t, text) = (message.date, message.message.clone());
        if !message.keep(&mut self.control) {
            return;
        }
        let is_race = self.session.session_type.is_race();
        self.with_track(events, |race| {
            let offset = race.session.gmt_offset_s;
            race.track
                .hear(r, id.unwrap_or_default(), race.clock, offset, is_race);
        });
        let signal = signal(r, &text);
        if !is_race && signal == Some(Signal::Green) && self.session.started.is_none() {
            self.start(t, events);
        }
        if self.session.session_type.is_qualifying() {
            let number = r.qualifying_phase.and_then(|n| u8::try_from(n).ok());
            if signal == Some(Signal::Green) || number.is_some() {
                self.begin_part(t, number);
            }
        }
        if signal == Some(Signal::Chequered) {
            self.flag(t, events);
        } else if is_race && self.finish.flag.is_none() && says_over(&text) {
            self.close_after(t);
        }
        if let Some(decision) = decision(&text, r.flag.as_deref()) {
            self.decide(decision, &text, t, events);
        }
    }

    fn flag(&mut self, t: Time, events: &mut Events) {
        let kind = self.session.session_type;
        if kind.is_race() {
            self.session.chequered = Some(self.session.chequered.map_or(t, |held| held.min(t)));
            self.finish.flag = self.session.chequered;
            self.settle_finish(events);
            if self.finish.winner_line.is_none() {
                // Should the last lap of all be lost.
                self.close_after(t);
            }
            return;
        }
        self.session.chequered = self.session.chequered.max(Some(t));
        let last_part =
            usize::from(self.session.part().unwrap_or_default()) == super::session::MAX_PARTS;
        if kind == SessionType::Practice || kind.is_qualifying() && last_part {
            self.end_session(events);
        }
    }

    fn result(&mut self, r: &SessionResult, version: Option<i64>, events: &mut Events) {
        let Some(i) = self.slot(r.driver_number) else {
            return;
        };
        let new = OfficialResult::of(r, version);
        let held = &mut self.cars[i].official;
        if held
            .as_ref()
            .is_some_and(|h| h.version > version || *h == new)
        {
            return;
        }
        *held = Some(new);
        say(
            events,
            Event::ResultKnown {
                driver_number: r.driver_number,
            },
        );
        if !self.session.session_type.is_race() {
            return self.end_session(events);
        }
        let told = self.cars.iter().filter(|c| c.official.is_some()).count();
        if self.finish.winner_line.is_some() || self.finish.closed || 2 * told > self.cars.len() {
            self.close_race(events);
        }
    }

    /// Does something to the track and tells of a change of status.
    fn with_track(&mut self, events: &mut Events, change: impl FnOnce(&mut Race)) {
        let before = self.track.status;
        change(self);
        let status = self.track.status;
        if status != before {
            for car in &mut self.cars {
                car.see(status);
            }
            say(events, Event::TrackStatusChanged { status });
        }
    }
}

/// The meeting that a record belongs to, where its session is told by it.
fn meeting_key(record: &Record) -> Option<i32> {
    Some(match record {
        Record::CarData(r) => r.meeting_key,
        Record::Location(r) => r.meeting_key,
        Record::Interval(r) => r.meeting_key,
        Record::Position(r) => r.meeting_key,
        Record::Lap(r) => r.meeting_key,
        Record::Pit(r) => r.meeting_key,
        Record::Stint(r) => r.meeting_key,
        Record::Weather(r) => r.meeting_key,
        Record::RaceControl(r) => r.meeting_key,
        Record::Driver(r) => r.meeting_key,
        Record::Session(r) => r.meeting_key,
        _ => return None,
    })
}
