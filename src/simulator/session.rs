//! A session from the first document to the last: the clock, the cars' way around, the order.
//!
//! Time goes in steps of a tenth of a second. A step decides each car's pace, samples telemetry over
//! the step at that pace, then moves the cars; what they pass within the step is timed exactly.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::car::{Car, Place, Run};
use super::control::Control;
use super::dirt::Dirt;
use super::feed::Feed;
use super::physics::Manner;
use super::telemetry::Telemetry;
use super::track::{Mark, Track};
use super::truth::{Classified, Status, Truth};
use super::tyre::{Compound, Set};
use super::weather::Weather;
use super::{Options, SessionKind};
use crate::record::Time;

/// A step of the model (s).
pub(super) const DT: f64 = 0.1;
/// Clock before the start in a race: formation done, cars on the grid (s).
const LEAD_RACE: f64 = 60.0;
/// Clock before pit exit opens in practice and qualifying (s).
const LEAD_TIMED: f64 = 30.0;
/// Clock after the last car is home (s).
const TAIL: f64 = 60.0;
/// Longest that anything lasts (s of the session's clock): a race may take three hours.
const LONGEST: f64 = 4.0 * 3600.0;

/// Whatever a weekend's sessions share.
pub(super) struct Occasion {
    pub meeting_key: i32,
    pub session_key: i32,
    /// Where the grid comes from.
    pub qualifying_key: i32,
    pub kind: SessionKind,
    pub name: &'static str,
    /// Zero of the session's clock.
    pub start: Time,
    pub seed: u64,
    /// Best qualifying laps by entrant, the quickest first: the grid.
    pub grid: Vec<(usize, Option<f64>)>,
}

pub(super) struct Session {
    pub options: Options,
    pub occasion: Occasion,
    pub track: Track,
    pub rng: ChaCha8Rng,
    pub feed: Feed,
    pub dirt: Dirt,
    pub telemetry: Telemetry,
    pub weather: Weather,
    pub control: Control,
    pub truth: Truth,
    pub cars: Vec<Car>,
    /// Indices of cars, first to last.
    pub order: Vec<usize>,
    /// Best mini-sectors and best lap of all.
    pub best_minis: Vec<f64>,
    pub best_lap_s: f64,
    /// Laps of the race.
    pub laps: u16,
    step: u64,
    /// Session clock (s) of lights out or pit exit open.
    pub green_at: f64,
    pub next_weather: f64,
    pub next_radio: f64,
    /// When to end, once that is known.
    pub closes_at: Option<f64>,
    pub done: bool,
}

impl Session {
    pub fn new(options: &Options, occasion: Occasion) -> Session {
        let track = Track::of(options.circuit);
        let mut rng = ChaCha8Rng::seed_from_u64(occasion.seed);
        let race = occasion.kind.is_race();
        let green_at = if race { LEAD_RACE } else { LEAD_TIMED };
        let weather = Weather::draw(options.circuit.setting, options.rain, green_at, &mut rng);
        let laps = match (options.laps, occasion.kind) {
            (Some(laps), _) => laps,
            (None, SessionKind::Sprint) => (options.circuit.laps / 3).max(3),
            (None, _) => options.circuit.laps,
        };
        let mut cars: Vec<Car> = super::entrants::ENTRANTS
            .iter()
            .take(usize::from(options.cars))
            .enumerate()
            .map(|(i, e)| Car::new(e, i, track.minis, Set::new(Compound::Soft, 0)))
            .collect();
        for (slot, (i, lap)) in occasion.grid.iter().enumerate() {
            let car = &mut cars[*i];
            (car.slot, car.position, car.qualifying_s) = (slot, slot as u8 + 1, *lap);
        }
        let order = occasion.grid.iter().map(|(i, _)| *i).collect();
        let mut session = Session {
            telemetry: Telemetry::new(options, cars.len(), occasion.seed),
            dirt: Dirt::new(options.dirt, occasion.seed),
            control: Control::new(options, &occasion, green_at),
            truth: Truth {
                session_key: occasion.session_key,
                ..Truth::default()
            },
            best_minis: vec![f64::INFINITY; track.minis],
            best_lap_s: f64::INFINITY,
            options: options.clone(),
            feed: Feed::new(),
            next_weather: 0.0,
            next_radio: green_at + 20.0,
            closes_at: None,
            done: false,
            step: 0,
            occasion,
            track,
            rng,
            weather,
            cars,
            order,
            laps,
            green_at,
        };
        if race {
            session.plan_race();
        } else {
            session.plan_runs();
        }
        session.open();
        session
    }

    /// The session's clock (s).
    pub fn now(&self) -> f64 {
        self.step as f64 * DT
    }

    /// The instant at which the clock shows `s`.
    pub fn instant(&self, s: f64) -> Time {
        self.occasion.start.plus_seconds(s)
    }

    /// `instant`, to the millisecond.
    pub fn stamp(&self, s: f64) -> Time {
        Time::from_millis(self.instant(s).millis())
    }

    /// When word of what happened at `s` arrives, a little sooner or later each time.
    pub fn arrival(&mut self, s: f64) -> Time {
        let jitter = self.dirt.jitter();
        self.instant(s + jitter)
    }

    pub fn is_race(&self) -> bool {
        self.occasion.kind.is_race()
    }

    /// The lap that the leader is on.
    pub fn leader_lap(&self) -> u16 {
        let lap = self.cars.iter().map(|c| c.lap).max().unwrap_or(0);
        if self.is_race() {
            lap.clamp(1, self.laps)
        } else {
            lap.max(1)
        }
    }

    /// One tenth of a second.
    pub fn advance(&mut self) {
        let now = self.now();
        self.weather.step(now, DT, &mut self.rng);
        self.control_step(now);
        if !self.is_race() {
            self.runs_step(now);
        }
        self.decide_paces(now);
        self.tell_the_regular(now);
        self.sample(now);
        for i in 0..self.cars.len() {
            self.drive(i, now);
        }
        if now >= self.green_at {
            self.rank(now);
        }
        self.close_when_over(now);
        self.step += 1;
    }

    /// Moves a car through the step that begins at `now`, past whatever it passes.
    fn drive(&mut self, i: usize, now: f64) {
        let end = now + DT;
        let mut at = match self.cars[i].place {
            Place::Moving => now,
            Place::Boxed { until } if until < end => {
                self.cars[i].place = Place::Moving;
                until.max(now)
            }
            _ => return,
        };
        // Each turn passes a mark or ends the step; a car passes but a few marks in a tenth.
        while self.cars[i].place == Place::Moving {
            let car = &mut self.cars[i];
            let (mut tau, mark) = self.track.marks(car.manner)[car.next_mark];
            let mut stop = None;
            if let Some(stop_s) = car.stop_s {
                let boxed = self.track.profile(car.manner).time_at(car.box_s);
                if boxed <= tau {
                    (tau, stop) = (boxed, Some(stop_s));
                }
            }
            let reached = at + (tau - car.tau).max(0.0) * car.pace;
            if reached > end {
                car.tau += (end - at) / car.pace;
                break;
            }
            (at, car.tau) = (reached, tau);
            if let Some(stop_s) = stop {
                car.stop_s = None;
                car.place = Place::Boxed { until: at + stop_s };
            } else {
                car.next_mark += 1;
                self.pass(i, mark, at);
            }
        }
    }

    /// A car passes a mark.
    fn pass(&mut self, i: usize, mark: Mark, at: f64) {
        // Past the flag only the way home counts.
        if self.cars[i].finished_ms.is_some() && mark != Mark::Line {
            return;
        }
        match mark {
            Mark::Mini(k) => {
                self.cars[i].pass(k, at);
                self.judge_mini(i, k, at);
                if let Some(sector @ (0 | 1)) = self.track.sector_ending(k) {
                    self.end_sector(i, sector, at);
                }
                if self.is_race() {
                    self.tell_interval(i, k, at);
                    self.consider_passing(i, at);
                }
                if self.cars[i].fails_at == Some((self.cars[i].lap, k)) {
                    self.stop_for_good(i, at);
                }
            }
            Mark::Decide => self.decide(i, at),
            Mark::PitEntry => {
                let car = &mut self.cars[i];
                (car.lane_since, car.in_lap) = (at, car.lap);
            }
            Mark::PitExit => self.leave_lane(i, at),
            Mark::Line => self.end_lap(i, at),
        }
    }

    /// Switches a car to another manner where it is.
    pub fn change_manner(&mut self, i: usize, manner: Manner) {
        let car = &mut self.cars[i];
        let s = self.track.profile(car.manner).at(car.tau).s;
        let profile = self.track.profile(manner);
        car.manner = manner;
        car.tau = profile.time_at(s);
        let marks = self.track.marks(manner);
        // The mark just passed lies at this very place: a hair's breadth keeps it passed.
        car.next_mark = marks.partition_point(|(tau, _)| *tau <= car.tau + 1e-6);
    }

    fn end_lap(&mut self, i: usize, at: f64) {
        let finished = self.cars[i].finished_ms.is_some();
        let ms = (at * 1000.0).round() as i64;
        if finished {
            // The cool-down lap ends in the pit lane.
            self.cars[i].place = Place::Garage;
            return;
        }
        let flag = self.take_flag(i, ms);
        let to_garage = self.cars[i].manner.goes_in() && !self.is_race();
        let next = if flag {
            Manner::In
        } else if self.cars[i].manner.goes_in() {
            Manner::Out
        } else {
            Manner::Flying
        };
        let seconds = (ms - self.cars[i].lap_started_ms) as f64 / 1000.0;
        // The feed tells of the new lap before it tells that the old one is complete.
        let old = self.lap_record(i, Some(ms));
        let car = &mut self.cars[i];
        car.laps_completed = car.lap;
        car.tyres.laps += 1;
        if !(to_garage || flag) {
            self.begin_lap(i, at, next);
        }
        self.complete_lap(i, old, seconds, at);
        if to_garage {
            self.park(i, at);
        } else if flag {
            let car = &mut self.cars[i];
            (car.manner, car.tau, car.next_mark) = (Manner::In, 0.0, 0);
            car.lap += 1;
        }
        self.take_new_tyres_if_in(i, next);
    }

    /// Puts a car at the start of its next lap.
    pub fn begin_lap(&mut self, i: usize, at: f64, manner: Manner) {
        let ms = (at * 1000.0).round() as i64;
        let off = self.dirt.date_start_off_ms();
        let lost = self.dirt.loses_date_start();
        let car = &mut self.cars[i];
        car.lap += 1;
        (car.manner, car.tau, car.next_mark) = (manner, 0.0, 0);
        car.lap_started_ms = ms;
        (car.date_start_off_ms, car.date_start_lost) = (off, lost);
        (car.sectors_ms, car.sector_speeds) = ([None; 2], [None; 2]);
        car.segments.fill(None);
        self.tell_lap_start(i, at);
        self.draw_fate(i);
    }

    /// Whether the car takes the chequered flag with the lap that it ends.
    fn take_flag(&mut self, i: usize, ms: i64) -> bool {
        if !self.is_race() {
            return false;
        }
        if self.cars[i].lap >= self.laps {
            self.wave_chequered(ms as f64 / 1000.0);
        }
        if self.control.chequered {
            self.cars[i].finished_ms = Some(ms);
        }
        self.control.chequered
    }

    /// A car stops beside the track.
    fn stop_for_good(&mut self, i: usize, at: f64) {
        let car = &mut self.cars[i];
        car.place = Place::Stopped { since: at };
        car.retired = true;
        (car.speed, car.fails_at) = (0.0, None);
        self.answer_stopped_car(i, at);
    }

    /// Measures everyone's distance, and tells what changed in the order.
    fn rank(&mut self, now: f64) {
        self.measure();
        let mut order = self.order.clone();
        if self.is_race() {
            let laid = |c: &Car| {
                // Past the flag the order is the one of the flag.
                let flag = c.finished_ms.map_or(i64::MAX, |ms| ms);
                let laps = if c.finished_ms.is_some() {
                    c.laps_completed
                } else {
                    0
                };
                (c.finished_ms.is_none(), u16::MAX - laps, flag)
            };
            order.sort_by(|a, b| {
                let (a, b) = (&self.cars[*a], &self.cars[*b]);
                laid(a)
                    .cmp(&laid(b))
                    .then(b.distance.total_cmp(&a.distance))
            });
            // A car that still races may yet be ahead of one that took the flag a lap down.
            if self.control.chequered {
                order.sort_by(|a, b| self.classified_order(*a, *b));
            }
        } else {
            let phase = self.control.phase_index();
            order.sort_by(|a, b| {
                let key = |i: &usize| {
                    let car = &self.cars[*i];
                    let best = car.phase_best[phase].or(car.best_lap_s);
                    (car.eliminated, best.unwrap_or(f64::INFINITY))
                };
                let ((ea, ta), (eb, tb)) = (key(a), key(b));
                match (ea, eb) {
                    // Who is out keeps the place that they had.
                    (true, true) => self.cars[*a].position.cmp(&self.cars[*b].position),
                    _ => ea.cmp(&eb).then(ta.total_cmp(&tb)),
                }
            });
        }
        self.tell_order(order, now);
    }

    /// Laps, then time of the last lap's end or distance.
    pub fn classified_order(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let (a, b) = (&self.cars[a], &self.cars[b]);
        let reach = |c: &Car| {
            (
                c.retired,
                u16::MAX - if c.racing() { c.lap } else { c.laps_completed },
            )
        };
        reach(a)
            .cmp(&reach(b))
            .then_with(|| match (a.finished_ms, b.finished_ms) {
                (Some(x), Some(y)) => x.cmp(&y),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => b.distance.total_cmp(&a.distance),
            })
    }

    /// Where every car is, from its time into its lap.
    pub fn measure(&mut self) {
        let length = self.track.line.length;
        for car in &mut self.cars {
            match car.place {
                Place::Grid => {
                    car.distance = -8.0 * (car.slot as f64 + 1.0);
                    car.s = car.distance;
                }
                Place::Moving | Place::Boxed { .. } => {
                    let motion = self.track.motion(car.manner, car.tau);
                    car.s = motion.s;
                    car.speed = match car.place {
                        Place::Moving => motion.speed / car.pace,
                        _ => 0.0,
                    };
                    car.distance = f64::from(car.lap.saturating_sub(1)) * length + motion.s;
                    if car.lap == 1 && car.manner == Manner::Start {
                        // Slots are blended away over the first half-kilometre.
                        let left =
                            8.0 * (car.slot as f64 + 1.0) * (1.0 - motion.s / 500.0).max(0.0);
                        car.distance -= left;
                        car.s -= left;
                    }
                    car.in_lane = self.track.in_lane(car.manner, motion.s);
                }
                Place::Garage | Place::Stopped { .. } => car.speed = 0.0,
            }
        }
    }

    /// Ends the session once everyone is home.
    fn close_when_over(&mut self, now: f64) {
        if let Some(closes) = self.closes_at {
            if now >= closes && !self.done {
                self.done = true;
                self.publish_result(now);
            }
            return;
        }
        let home = |c: &Car| match c.place {
            Place::Garage | Place::Stopped { .. } => true,
            _ => c
                .finished_ms
                .is_some_and(|ms| now > ms as f64 / 1000.0 + 30.0),
        };
        let over = self.control.chequered && self.cars.iter().all(home);
        if over || now > LONGEST {
            self.closes_at = Some(now + TAIL);
        }
    }

    /// The final order, with and without penalties.
    pub fn classify(&mut self) -> Vec<Classified> {
        let mut road = self.order.clone();
        if self.is_race() {
            road.sort_by(|a, b| self.classified_order(*a, *b));
        }
        let time = |c: &Car| c.finished_ms.map(|ms| ms as f64 / 1000.0 - self.green_at);
        let mut official = road.clone();
        if self.is_race() {
            official.sort_by(|a, b| {
                let (a, b) = (&self.cars[*a], &self.cars[*b]);
                let with = |c: &Car| time(c).unwrap_or(f64::INFINITY) + c.penalty_s;
                (a.retired, u16::MAX - a.laps_completed)
                    .cmp(&(b.retired, u16::MAX - b.laps_completed))
                    .then(if a.retired {
                        std::cmp::Ordering::Equal
                    } else {
                        with(a).total_cmp(&with(b))
                    })
            });
        }
        let classified: Vec<Classified> = road
            .iter()
            .enumerate()
            .map(|(place, i)| {
                let car = &self.cars[*i];
                let official = official.iter().position(|j| j == i).unwrap_or(place);
                Classified {
                    driver_number: car.number(),
                    position: place as u8 + 1,
                    official_position: official as u8 + 1,
                    laps: car.laps_completed,
                    retired: car.retired,
                    race_time_s: time(car),
                    best_lap_s: car.best_lap_s,
                    penalty_s: car.penalty_s,
                }
            })
            .collect();
        self.truth.classification.clone_from(&classified);
        self.truth
            .stints
            .sort_by_key(|s| (s.driver_number, s.stint_number));
        classified
    }

    /// Notes a change of the track's status.
    pub fn note_status(&mut self, status: Status, at: f64) {
        let t = self.stamp(at);
        self.truth.track_status.push((t, status));
    }

    /// Draws whether, and where, this lap is the car's last.
    fn draw_fate(&mut self, i: usize) {
        let odds = self.control.breakdown_odds(self.cars[i].lap);
        if self.is_race() && odds > 0.0 && self.rng.random_bool(odds) {
            // Never in the last mini-sectors: a car that limps that far gets home.
            let k = self.rng.random_range(1..self.track.minis - 6);
            self.cars[i].fails_at = Some((self.cars[i].lap, k));
        }
    }

    /// Sends a car out of its garage or, under a red flag, out of the lane.
    pub fn release(&mut self, i: usize, at: f64) {
        let box_s = self.cars[i].box_s;
        self.begin_lap(i, at, Manner::Out);
        let tau = self.track.profile(Manner::Out).time_at(box_s);
        let car = &mut self.cars[i];
        car.tau = tau;
        car.next_mark = self
            .track
            .marks(Manner::Out)
            .partition_point(|(t, _)| *t <= tau);
        car.place = Place::Moving;
        car.run = Run::OutLap;
    }
}
