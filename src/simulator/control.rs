//! Race control: lights, flags, safety cars, red flags, investigations and penalties.

use rand::Rng;

use super::car::Place;
use super::session::{Occasion, Session};
use super::truth::Status;
use super::{Incident, Incidents, Options, SessionKind};
use crate::record::{RaceControl, Record};

/// What holds on the whole track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    /// Before the start.
    Waiting,
    Green,
    SafetyCar {
        /// Not in before then (s).
        until: f64,
        /// Lap of the leader at whose end it comes in, once that is said.
        in_after: Option<u16>,
    },
    VirtualSafetyCar {
        until: f64,
        ending: bool,
    },
    Red(Red),
}

/// A race that is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Red {
    /// The leader's lap at the flag: everyone comes in at the end of it, so that a car that was
    /// just behind the line does not end up a lap down.
    pub lap: u16,
    since: f64,
    resumes: f64,
    /// Whether the restart was announced, and whether it has begun.
    told: bool,
    releasing: bool,
}

/// Chance that a car's race ends on a given lap.
const BREAKDOWN: f64 = 0.001_2;
/// The same on the first lap.
const FIRST_LAP: f64 = 0.012;
/// Chance of an incident to look into, per second of green racing.
const INCIDENT: f64 = 1.0 / 700.0;
/// Shortest safety car (s), and how long red flags last (s).
const SAFETY_CAR_S: std::ops::Range<f64> = 240.0..480.0;
const RED_S: std::ops::Range<f64> = 700.0..1500.0;
/// Time between cars that leave the lane for a restart (s).
const RELEASE_EVERY_S: f64 = 2.0;

pub(super) struct Control {
    pub phase: Phase,
    pub chequered: bool,
    pub drs: bool,
    /// Leader's lap at whose start DRS is next enabled.
    drs_from: u16,
    yellow: Option<(i16, f64)>,
    incidents: Incidents,
    /// Next line of the script.
    scripted: usize,
    /// Words that are yet to be said: when, what. At most a handful per incident.
    later: Vec<(f64, Said)>,
    release_next: f64,
    /// Parts of practice or qualifying: start and end (s).
    pub parts: Vec<(f64, f64)>,
    pub part: usize,
    pub part_open: bool,
}

/// A message of race control.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub category: &'static str,
    pub flag: Option<&'static str>,
    pub scope: Option<&'static str>,
    pub sector: Option<i16>,
    pub driver: Option<u8>,
    pub message: String,
    /// A penalty that takes effect with it: car, seconds.
    pub penalty: Option<(usize, f64)>,
}

impl Said {
    pub fn other(message: impl Into<String>) -> Said {
        Said {
            category: "Other",
            message: message.into(),
            ..Said::default()
        }
    }

    pub fn flag(flag: &'static str, message: impl Into<String>) -> Said {
        let scope = Some("Track");
        Said {
            category: "Flag",
            flag: Some(flag),
            scope,
            message: message.into(),
            ..Said::default()
        }
    }

    fn sector(flag: &'static str, sector: i16, message: String) -> Said {
        Said {
            sector: Some(sector),
            scope: Some("Sector"),
            ..Said::flag(flag, message)
        }
    }

    pub fn driver(flag: &'static str, driver: u8, message: String) -> Said {
        Said {
            driver: Some(driver),
            scope: Some("Driver"),
            ..Said::flag(flag, message)
        }
    }

    fn safety_car(message: &str) -> Said {
        Said {
            category: "SafetyCar",
            ..Said::other(message)
        }
    }

    fn drs(message: &str) -> Said {
        Said {
            category: "Drs",
            ..Said::other(message)
        }
    }
}

impl Control {
    pub fn new(options: &Options, occasion: &Occasion, green_at: f64) -> Control {
        let minutes = |m: f64| m * 60.0;
        let parts: &[(f64, f64)] = match occasion.kind {
            SessionKind::Qualifying => &[(18.0, 7.0), (15.0, 8.0), (12.0, 0.0)],
            SessionKind::Practice => &[(60.0, 0.0)],
            _ => &[],
        };
        let scale = options.minutes.map_or(1.0, |m| {
            f64::from(m) / parts.iter().map(|(long, _)| long).sum::<f64>().max(1.0)
        });
        let mut from = green_at;
        let parts = parts
            .iter()
            .map(|(long, pause)| {
                let part = (from, from + minutes(*long) * scale);
                from = part.1 + minutes(*pause).max(180.0);
                part
            })
            .collect();
        Control {
            phase: Phase::Waiting,
            chequered: false,
            drs: false,
            drs_from: 2,
            yellow: None,
            incidents: options.incidents.clone(),
            scripted: 0,
            later: Vec::new(),
            release_next: 0.0,
            parts,
            part: 0,
            part_open: false,
        }
    }

    /// Part of qualifying, from 0.
    pub fn phase_index(&self) -> usize {
        self.part.min(2)
    }

    /// Chance that a car's race ends on this lap.
    pub fn breakdown_odds(&self, lap: u16) -> f64 {
        match (&self.incidents, lap) {
            (Incidents::Drawn, 1) => FIRST_LAP,
            (Incidents::Drawn, _) => BREAKDOWN,
            _ => 0.0,
        }
    }

    /// Whether cars race each other freely.
    pub fn green(&self) -> bool {
        self.phase == Phase::Green
    }
}

impl Session {
    /// Says something at `at`.
    pub fn say(&mut self, at: f64, said: Said) {
        if let Some((i, seconds)) = said.penalty {
            self.cars[i].penalty_s += seconds;
        }
        // Race control's clock shows whole seconds.
        let date = self.instant(at.floor());
        let qualifying = self.occasion.kind == SessionKind::Qualifying;
        let record = Record::RaceControl(Box::new(RaceControl {
            meeting_key: self.occasion.meeting_key,
            session_key: self.occasion.session_key,
            date: Some(date),
            driver_number: said.driver,
            lap_number: self.is_race().then(|| self.leader_lap()),
            category: Some(said.category.into()),
            flag: said.flag.map(Into::into),
            scope: said.scope.map(Into::into),
            sector: said.sector,
            qualifying_phase: qualifying.then_some(self.control.part as i16 + 1),
            message: Some(said.message),
        }));
        let arrives = self.instant(at.max(self.now()) + 0.14);
        self.feed.send(arrives, record);
    }

    fn say_later(&mut self, at: f64, said: Said) {
        self.control.later.push((at, said));
    }

    /// Lets race control do what is due at `now`.
    pub fn control_step(&mut self, now: f64) {
        let mut due: Vec<(f64, Said)> = Vec::new();
        self.control.later.retain(|(at, said)| {
            let wait = *at > now;
            if !wait {
                due.push((*at, said.clone()));
            }
            wait
        });
        for (at, said) in due {
            self.say(at, said);
        }
        if !self.is_race() {
            return;
        }
        if self.control.phase == Phase::Waiting && now >= self.green_at {
            self.lights_out(now);
        }
        self.follow_script(now);
        self.control_phase(now);
        let lap = self.leader_lap();
        let racing = self.control.green() && !self.control.chequered;
        if racing && !self.control.drs && lap >= self.control.drs_from && self.weather.wetness < 0.2
        {
            self.control.drs = true;
            self.say(now, Said::drs("DRS ENABLED"));
        }
        if self.control.drs && self.weather.wetness > 0.3 {
            self.disable_drs(now, lap + 2);
        }
        if let Some((sector, until)) = self.control.yellow
            && now >= until
        {
            self.control.yellow = None;
            self.say(
                now,
                Said::sector("CLEAR", sector, format!("CLEAR IN TRACK SECTOR {sector}")),
            );
        }
        let drawn = matches!(self.control.incidents, Incidents::Drawn);
        if drawn && racing && self.rng.random_bool(INCIDENT * super::session::DT) {
            self.look_into_something(now);
        }
    }

    fn lights_out(&mut self, now: f64) {
        self.control.phase = Phase::Green;
        self.note_status(Status::Clear, now);
        self.say(now, Said::flag("GREEN", "GREEN LIGHT - PIT EXIT OPEN"));
        for i in 0..self.cars.len() {
            if self.cars[i].place == Place::Grid {
                self.cars[i].place = Place::Moving;
                self.begin_lap(i, now, super::physics::Manner::Start);
            }
        }
    }

    fn disable_drs(&mut self, now: f64, until_lap: u16) {
        self.control.drs_from = until_lap;
        if self.control.drs {
            self.control.drs = false;
            self.say(now, Said::drs("DRS DISABLED"));
        }
    }

    fn follow_script(&mut self, now: f64) {
        let Incidents::Script(script) = &self.control.incidents else {
            return;
        };
        let Some(line) = script.get(self.control.scripted).copied() else {
            return;
        };
        if !self.control.green() || self.leader_lap() < line.lap || self.control.chequered {
            return;
        }
        self.control.scripted += 1;
        match line.what {
            Incident::Yellow => self.yellow(now, 5, 20.0),
            Incident::VirtualSafetyCar => self.virtual_safety_car(now),
            Incident::SafetyCar => self.safety_car(now),
            Incident::Red => self.red_flag(now),
            Incident::Breakdown(number) => {
                let found = self
                    .cars
                    .iter()
                    .position(|c| c.number() == number && c.racing());
                if let Some(i) = found {
                    let (lap, next) = (self.cars[i].lap, self.track.minis / 2);
                    self.cars[i].fails_at = Some((lap + 1, next));
                }
            }
            Incident::Penalty(number, seconds) => {
                if let Some(i) = self.cars.iter().position(|c| c.number() == number) {
                    self.penalise(i, seconds, "SPEEDING IN THE PIT LANE", now);
                }
            }
        }
    }

    fn yellow(&mut self, now: f64, sector: i16, lasts: f64) {
        if self.control.yellow.is_none() {
            self.control.yellow = Some((sector, now + lasts));
            let message = format!("YELLOW IN TRACK SECTOR {sector}");
            self.say(now, Said::sector("YELLOW", sector, message));
        }
    }

    fn safety_car(&mut self, now: f64) {
        let until = now + self.rng.random_range(SAFETY_CAR_S);
        self.control.phase = Phase::SafetyCar {
            until,
            in_after: None,
        };
        self.note_status(Status::SafetyCar, now);
        self.disable_drs(now, u16::MAX);
        self.say(now, Said::safety_car("SAFETY CAR DEPLOYED"));
    }

    fn virtual_safety_car(&mut self, now: f64) {
        let until = now + self.rng.random_range(60.0..150.0);
        self.control.phase = Phase::VirtualSafetyCar {
            until,
            ending: false,
        };
        self.note_status(Status::VirtualSafetyCar, now);
        self.disable_drs(now, u16::MAX);
        self.say(now, Said::safety_car("VIRTUAL SAFETY CAR DEPLOYED"));
    }

    fn red_flag(&mut self, now: f64) {
        let resumes = now + self.rng.random_range(RED_S);
        let lap = self.leader_lap();
        let (since, told, releasing) = (now, false, false);
        self.control.phase = Phase::Red(Red {
            lap,
            since,
            resumes,
            told,
            releasing,
        });
        self.note_status(Status::Red, now);
        self.disable_drs(now, u16::MAX);
        self.say(now, Said::flag("RED", "RED FLAG"));
    }

    fn control_phase(&mut self, now: f64) {
        match self.control.phase {
            Phase::SafetyCar {
                until,
                in_after: None,
            } => {
                let leader = self.order.first().map(|i| &self.cars[*i]);
                let Some((s, lap)) = leader.map(|c| (c.s / self.track.line.length, c.lap)) else {
                    return;
                };
                if now >= until && (0.45..0.75).contains(&s) && self.everyone_in_line() {
                    self.control.phase = Phase::SafetyCar {
                        until,
                        in_after: Some(lap),
                    };
                    self.say(now, Said::safety_car("SAFETY CAR IN THIS LAP"));
                }
            }
            Phase::SafetyCar {
                in_after: Some(lap),
                ..
            } if self.leader_lap() > lap => {
                self.go_green(now);
            }
            Phase::VirtualSafetyCar {
                until,
                ending: false,
            } if now >= until => {
                let until = now + self.rng.random_range(10.0..15.0);
                self.control.phase = Phase::VirtualSafetyCar {
                    until,
                    ending: true,
                };
                self.note_status(Status::VirtualSafetyCarEnding, now);
                self.say(now, Said::safety_car("VIRTUAL SAFETY CAR ENDING"));
            }
            Phase::VirtualSafetyCar {
                until,
                ending: true,
            } if now >= until => self.go_green(now),
            Phase::Red(red) => self.red_phase(now, red),
            _ => {}
        }
    }

    fn red_phase(&mut self, now: f64, mut red: Red) {
        let held = |c: &super::car::Car| !matches!(c.place, Place::Moving);
        let all_in = self.cars.iter().all(held);
        let notice = 600.0_f64.min((red.resumes - red.since) / 2.0);
        if !red.told && all_in && now > red.resumes - notice {
            red.told = true;
            let order: Vec<String> = self
                .order
                .iter()
                .filter(|i| self.cars[**i].racing())
                .map(|i| self.cars[*i].number().to_string())
                .collect();
            let message = format!("ORDER FOR RESTART: {}", order.join(", "));
            self.say(now, Said::other(message));
            let at = self.instant(red.resumes).to_string();
            let message = format!(
                "RACE WILL RESUME AT {} - ROLLING START PROCEDURE",
                &at[11..16]
            );
            self.say(now, Said::other(message));
        }
        red.releasing |= red.told && now >= red.resumes;
        self.control.phase = Phase::Red(red);
        if !red.releasing || now < self.control.release_next {
            return;
        }
        let waits = |i: &usize| self.cars[*i].racing() && held(&self.cars[*i]);
        match self.order.iter().copied().find(waits) {
            Some(i) => {
                // Its lap has begun when it crossed the line in the lane.
                self.cars[i].place = Place::Moving;
                self.control.release_next = now + RELEASE_EVERY_S;
            }
            None => {
                // The safety car leads them round for a lap or two.
                let until = now + 60.0;
                self.control.phase = Phase::SafetyCar {
                    until,
                    in_after: None,
                };
                self.note_status(Status::SafetyCar, now);
                let message = "SAFETY CAR WILL ENTER PITS: ROLLING START PROCEDURE";
                self.say(now, Said::other(message));
            }
        }
    }

    /// Whether the field is closed up behind the safety car.
    fn everyone_in_line(&self) -> bool {
        let out = self
            .cars
            .iter()
            .filter(|c| c.place == Place::Moving && !c.in_lane && c.racing());
        let gaps = out
            .filter(|c| c.ahead.is_some_and(|(_, gap)| gap > 4.0))
            .count();
        // One gap there always is: from the leader to the last car.
        gaps <= 2
    }

    fn go_green(&mut self, now: f64) {
        self.control.phase = Phase::Green;
        self.control.drs_from = self.leader_lap() + 2;
        self.note_status(Status::Clear, now);
        self.say(now, Said::flag("CLEAR", "TRACK CLEAR"));
    }

    /// What race control does about a car that stopped.
    pub fn answer_stopped_car(&mut self, i: usize, at: f64) {
        let sector = self.track.marshal_sector(self.cars[i].s);
        let message = format!(
            "{} STOPPED ON TRACK IN SECTOR {sector}",
            self.cars[i].called_out()
        );
        let driver = Some(self.cars[i].number());
        self.say(
            at,
            Said {
                category: "CarEvent",
                driver,
                ..Said::other(message)
            },
        );
        self.yellow(at, sector, self.cars.len() as f64 + 25.0);
        if !self.control.green() || self.control.chequered || !self.is_race() {
            return;
        }
        let left = self.laps.saturating_sub(self.leader_lap());
        match self.rng.random_range(0..100) {
            _ if matches!(self.control.incidents, Incidents::Script(_)) => {}
            0..=34 if left > 3 => self.safety_car(at),
            35..=69 => self.virtual_safety_car(at),
            70..=75 if left > 5 => self.red_flag(at),
            _ => {}
        }
    }

    /// Something happened that the stewards note: often nothing comes of it.
    fn look_into_something(&mut self, now: f64) {
        let i = self.rng.random_range(0..self.cars.len());
        if !self.cars[i].racing() || self.cars[i].place != Place::Moving {
            return;
        }
        let who = self.cars[i].called_out();
        let turn = self.rng.random_range(1..=14);
        match self.rng.random_range(0..10) {
            0..=3 => {
                let lap = self.cars[i].laps_completed;
                if let Some(s) = self.cars[i].best_lap_s {
                    let time = format!("{}:{:06.3}", (s / 60.0) as u32, s % 60.0);
                    let message = format!(
                        "{who} TIME {time} DELETED - TRACK LIMITS AT TURN {turn} LAP {lap}"
                    );
                    self.say(now, Said::other(message));
                }
            }
            4 => {
                let driver = Some(self.cars[i].number());
                let message = format!("{who} OFF TRACK AND CONTINUED AT TURN {turn}");
                self.say(
                    now,
                    Said {
                        category: "CarEvent",
                        driver,
                        ..Said::other(message)
                    },
                );
                let sector = self.track.marshal_sector(self.cars[i].s);
                self.yellow(now, sector, 8.0);
                self.cars[i].form += 1.5;
            }
            5..=7 => {
                let what = format!("TURN {turn} INCIDENT INVOLVING {who}");
                let why = "FORCING ANOTHER DRIVER OFF THE TRACK";
                self.say(now, Said::other(format!("{what} NOTED - {why}")));
                let message =
                    format!("FIA STEWARDS: {what} REVIEWED NO FURTHER INVESTIGATION - {why}");
                self.say_later(now + 95.0, Said::other(message));
            }
            _ => {
                let seconds = if self.rng.random_bool(0.8) { 5 } else { 10 };
                self.penalise(i, seconds, "CAUSING A COLLISION", now);
            }
        }
    }

    /// Noted, under investigation, penalised.
    fn penalise(&mut self, i: usize, seconds: u16, why: &str, now: f64) {
        let who = self.cars[i].called_out();
        let what = format!("INCIDENT INVOLVING {who}");
        self.say(now, Said::other(format!("{what} NOTED - {why}")));
        let message = format!("FIA STEWARDS: {what} UNDER INVESTIGATION - {why}");
        self.say_later(now + 20.0, Said::other(message));
        let message = format!("FIA STEWARDS: {seconds} SECOND TIME PENALTY FOR {who} - {why}");
        let penalty = Some((i, f64::from(seconds)));
        self.say_later(
            now + 75.0,
            Said {
                penalty,
                ..Said::other(message)
            },
        );
    }

    /// The end of a race, once.
    pub fn wave_chequered(&mut self, at: f64) {
        if !self.control.chequered {
            self.control.chequered = true;
            self.note_status(Status::Chequered, at);
            self.say(at, Said::flag("CHEQUERED", "CHEQUERED FLAG"));
        }
    }
}
