//! What the feed says of it all: documents, in their pieces and versions.

use rand::Rng;

use super::control::Said;
use super::session::Session;
use super::truth;
use super::{SessionKind, entrants::ENTRANTS};
use crate::record::{
    Driver, Gap, Interval, Lap, Meeting, OneOrEach, Overtake, Position, Record, SessionResult,
    StartingGrid, Stint, TeamRadio, Weather,
};

/// Mini-sector codes.
const SLOWER: i32 = 2048;
const PERSONAL_BEST: i32 = 2049;
const BEST_OF_ALL: i32 = 2051;
const PIT_LANE: i32 = 2064;
/// Points of a race and of a sprint.
const RACE_POINTS: [f64; 10] = [25.0, 18.0, 15.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0, 1.0];
const SPRINT_POINTS: [f64; 8] = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
/// Gaps are told no more often than this (s).
const INTERVAL_EVERY_S: f64 = 3.3;

fn kmh(speed: f64) -> i16 {
    (speed * 3.6).round() as i16
}

impl Session {
    /// What a subscriber learns at once: meeting, session, drivers, grid, order, tyres.
    pub fn open(&mut self) {
        let start = self.occasion.start;
        let circuit = self.options.circuit;
        let (meeting_key, session_key) = (self.occasion.meeting_key, self.occasion.session_key);
        let year: Option<i32> = start.to_string().get(..4).and_then(|y| y.parse().ok());
        let meeting_start = start.plus_seconds(-2.0 * 86_400.0);
        self.feed.send(
            start,
            Record::Meeting(Box::new(Meeting {
                meeting_key,
                meeting_name: Some(format!("{} Grand Prix", circuit.country_name)),
                meeting_official_name: Some(format!(
                    "TRACKSIDE {} GRAND PRIX",
                    circuit.country_name.to_uppercase()
                )),
                meeting_code: Some(circuit.country_code.into()),
                date_start: Some(meeting_start),
                date_end: Some(start.plus_seconds(7200.0)),
                gmt_offset: Some(circuit.gmt_offset.into()),
                location: Some(circuit.location.into()),
                country_key: Some(circuit.key),
                country_code: Some(circuit.country_code.into()),
                country_name: Some(circuit.country_name.into()),
                circuit_key: Some(circuit.key),
                circuit_short_name: Some(circuit.short_name.into()),
                year,
                is_cancelled: Some(false),
            })),
        );
        let kind = self.occasion.kind;
        self.feed.send(
            start,
            Record::Session(Box::new(crate::record::Session {
                meeting_key,
                session_key,
                session_type: Some(kind.session_type().into()),
                session_name: Some(self.occasion.name.into()),
                date_start: Some(start.plus_seconds(self.green_at)),
                date_end: Some(start.plus_seconds(self.green_at + 7200.0)),
                gmt_offset: Some(circuit.gmt_offset.into()),
                location: Some(circuit.location.into()),
                country_key: Some(circuit.key),
                country_code: Some(circuit.country_code.into()),
                country_name: Some(circuit.country_name.into()),
                circuit_key: Some(circuit.key),
                circuit_short_name: Some(circuit.short_name.into()),
                year,
                is_cancelled: Some(false),
            })),
        );
        for (i, e) in ENTRANTS.iter().take(self.cars.len()).enumerate() {
            let initial = e.first.chars().next().unwrap_or('X');
            let last = e.last.to_uppercase();
            let driver = Driver {
                meeting_key,
                session_key,
                driver_number: e.number,
                broadcast_name: Some(format!("{initial} {last}")),
                full_name: Some(format!("{} {last}", e.first)),
                name_acronym: Some(e.acronym.into()),
                team_name: Some(e.team().name.into()),
                team_colour: Some(e.team().colour.into()),
                first_name: Some(e.first.into()),
                last_name: Some(e.last.into()),
                headshot_url: None,
                country_code: Some(e.country.into()),
            };
            let key = format!("{session_key}_{i}");
            self.feed
                .send_keyed(start, key, Record::Driver(Box::new(driver)));
        }
        if self.is_race() {
            let qualifying_key = self.occasion.qualifying_key;
            for (place, i) in self.order.clone().into_iter().enumerate() {
                let grid = StartingGrid {
                    meeting_key,
                    session_key: qualifying_key,
                    driver_number: self.cars[i].number(),
                    position: Some(place as u8 + 1),
                    lap_duration: self.cars[i].qualifying_s,
                };
                let key = format!("{qualifying_key}_{place:02}");
                self.feed.send_keyed(start, key, Record::StartingGrid(grid));
            }
            let risk = if self.weather.raining { 90 } else { 10 };
            self.say(
                0.0,
                Said::other(format!("RISK OF RAIN FOR F1 RACE IS {risk}%")),
            );
            self.say(
                0.0,
                Said {
                    category: "Drs",
                    ..Said::other("DRS DISABLED")
                },
            );
            for place in 0..self.order.len() {
                let i = self.order[place];
                self.tell_position(i, 0.0);
                self.tell_stint(i, 0.0, None);
            }
        }
    }

    /// Weather once a minute, radio now and then.
    pub fn tell_the_regular(&mut self, now: f64) {
        if now >= self.next_weather {
            self.next_weather = now + 60.0 + self.rng.random_range(-0.05..0.05);
            let w = &self.weather;
            let tenth = |v: f64| (v * 10.0).round() / 10.0;
            let record = Record::Weather(Box::new(Weather {
                meeting_key: self.occasion.meeting_key,
                session_key: self.occasion.session_key,
                date: self.stamp(now),
                air_temperature: Some(tenth(w.air)),
                track_temperature: Some(tenth(w.track)),
                humidity: Some(w.humidity.round()),
                pressure: Some(tenth(w.pressure)),
                rainfall: Some(i16::from(w.raining)),
                wind_direction: Some(w.wind_from as i16),
                wind_speed: Some(tenth(w.wind)),
            }));
            let arrives = self.instant(now + 0.12);
            self.feed.send(arrives, record);
        }
        if now >= self.next_radio {
            self.next_radio = now + self.rng.random_range(8.0..90.0);
            let i = self.rng.random_range(0..self.cars.len());
            let number = self.cars[i].number();
            let stamp = self.stamp(now);
            let record = Record::TeamRadio(Box::new(TeamRadio {
                meeting_key: self.occasion.meeting_key,
                session_key: self.occasion.session_key,
                driver_number: number,
                date: stamp,
                recording_url: Some(format!(
                    "https://radio.invalid/{}/{number}_{}.mp3",
                    self.occasion.session_key,
                    stamp.millis()
                )),
            }));
            let arrives = self.instant(now + 0.25);
            self.feed.send(arrives, record);
        }
    }

    /// The lap as far as it is known; complete where it ended at `end` (ms of the clock).
    pub fn lap_record(&mut self, i: usize, end: Option<i64>) -> Lap {
        let lost = end.is_some() && self.dirt.loses_sector();
        let blank: Vec<bool> = (0..self.track.minis)
            .map(|_| self.dirt.loses_segment())
            .collect();
        let car = &self.cars[i];
        let [one, two] = car.sectors_ms;
        let seconds = |from: Option<i64>, to: Option<i64>| Some((to? - from?) as f64 / 1000.0);
        let started = Some(car.lap_started_ms);
        let [a, b, _] = self.options.circuit.mini_sectors;
        let segments = |from: usize, to: usize| -> Vec<Option<i32>> {
            (from..to)
                .map(|k| car.segments[k].filter(|_| !blank[k]))
                .collect()
        };
        // As on the real feed, sector 1 of the first lap is told with the complete lap only.
        let tells_first = (car.lap > 1 || !self.is_race() || end.is_some()) && !lost;
        let date_start = self
            .occasion
            .start
            .plus_seconds((car.lap_started_ms + car.date_start_off_ms) as f64 / 1000.0);
        Lap {
            meeting_key: self.occasion.meeting_key,
            session_key: self.occasion.session_key,
            driver_number: car.number(),
            lap_number: car.lap,
            date_start: (!car.date_start_lost).then_some(date_start),
            duration_sector_1: seconds(started, one).filter(|_| tells_first),
            duration_sector_2: seconds(one, two),
            duration_sector_3: seconds(two, end),
            i1_speed: car.sector_speeds[0],
            i2_speed: car.sector_speeds[1],
            st_speed: end.map(|_| kmh(self.track.trap_speed(car.manner) / car.pace)),
            is_pit_out_lap: Some(car.manner.comes_out() && one.is_some()),
            lap_duration: seconds(started, end),
            segments_sector_1: one.map(|_| segments(0, a)),
            segments_sector_2: two.map(|_| segments(a, a + b)),
            segments_sector_3: end.map(|_| segments(a + b, self.track.minis)),
        }
    }

    fn send_lap(&mut self, lap: Lap, at: f64) {
        let arrives = self.arrival(at + 0.18);
        self.feed.send(arrives, Record::Lap(Box::new(lap)));
    }

    /// A lap begins: told, and the first of its form drawn.
    pub fn tell_lap_start(&mut self, i: usize, at: f64) {
        self.draw_form(i);
        if !self.is_race() && self.cars[i].lap > 1 {
            self.next_run(i);
        }
        let lap = self.lap_record(i, None);
        self.send_lap(lap, at);
    }

    /// A mini-sector ends: its colour.
    pub fn judge_mini(&mut self, i: usize, k: usize, at: f64) {
        let car = &mut self.cars[i];
        if car.finished_ms.is_some() {
            return;
        }
        let from = match k {
            0 => Some(car.lap_started_ms as f64 / 1000.0),
            _ => car.passed(car.lap, k - 1),
        };
        let Some(took) = from.map(|from| at - from) else {
            return;
        };
        car.segments[k] = Some(if car.in_lane {
            PIT_LANE
        } else if took < self.best_minis[k] {
            BEST_OF_ALL
        } else if took < car.best_minis[k] {
            PERSONAL_BEST
        } else {
            SLOWER
        });
        if !car.in_lane {
            car.best_minis[k] = car.best_minis[k].min(took);
            self.best_minis[k] = self.best_minis[k].min(took);
        }
    }

    /// Sector 1 or 2 (0 or 1) ends.
    pub fn end_sector(&mut self, i: usize, sector: usize, at: f64) {
        if self.cars[i].finished_ms.is_some() {
            return;
        }
        self.draw_form(i);
        let car = &mut self.cars[i];
        car.sectors_ms[sector] = Some((at * 1000.0).round() as i64);
        let motion = self.track.motion(car.manner, car.tau);
        car.sector_speeds[sector] = Some(kmh(motion.speed / car.pace));
        let lap = self.lap_record(i, None);
        self.send_lap(lap, at);
    }

    /// A lap is complete.
    pub fn complete_lap(&mut self, i: usize, lap: Lap, seconds: f64, at: f64) {
        let delay = self.dirt.lap_delay();
        // The flag: whatever is later than the car's last word on its lap.
        let number = lap.lap_number;
        let arrives = self.arrival(at + 0.19 + delay);
        let manner_in = lap
            .segments_sector_3
            .as_ref()
            .is_some_and(|s| s.last() == Some(&Some(PIT_LANE)));
        let out = lap.is_pit_out_lap == Some(true);
        self.feed.send(arrives, Record::Lap(Box::new(lap)));
        let driver = self.cars[i].number();
        self.truth.laps.push((driver, number, seconds));
        let part = self.control.phase_index();
        let timed = self.is_race() || (!out && !manner_in);
        let car = &mut self.cars[i];
        if timed {
            let best = |held: Option<f64>| Some(held.map_or(seconds, |h| h.min(seconds)));
            car.best_lap_s = best(car.best_lap_s);
            car.phase_best[part] = best(car.phase_best[part]);
            self.best_lap_s = self.best_lap_s.min(seconds);
        }
        self.tell_stint(i, at + 0.2, Some(at));
    }

    /// A version of the car's present stint; `lap_ended` where a lap was just completed on it.
    pub fn tell_stint(&mut self, i: usize, at: f64, lap_ended: Option<f64>) {
        let car = &self.cars[i];
        let lap_end = match lap_ended {
            Some(_) => car.laps_completed,
            None => car.stint_from,
        };
        let stint = truth::Stint {
            driver_number: car.number(),
            stint_number: car.stint_number,
            compound: car.tyres.compound,
            lap_start: car.stint_from,
            lap_end,
            age_at_start: car.tyres.age_at_start,
        };
        let same = |s: &&mut truth::Stint| {
            (s.driver_number, s.stint_number) == (stint.driver_number, stint.stint_number)
        };
        match self.truth.stints.iter_mut().find(same) {
            Some(held) => *held = stint.clone(),
            None => self.truth.stints.push(stint.clone()),
        }
        let record = Record::Stint(Box::new(Stint {
            meeting_key: self.occasion.meeting_key,
            session_key: self.occasion.session_key,
            driver_number: stint.driver_number,
            stint_number: stint.stint_number,
            lap_start: Some(stint.lap_start),
            lap_end: Some(stint.lap_end),
            compound: Some(stint.compound.name().into()),
            tyre_age_at_start: Some(stint.age_at_start),
        }));
        let last = match lap_ended {
            Some(at) => format!("\"{}\"", self.stamp(at)),
            None => "null".to_owned(),
        };
        let arrives = self.arrival(at);
        self.feed
            .send_with(arrives, record, format!("\"_date_start_last_lap\":{last}"));
    }

    fn tell_position(&mut self, i: usize, at: f64) {
        let record = Record::Position(Position {
            meeting_key: self.occasion.meeting_key,
            session_key: self.occasion.session_key,
            driver_number: self.cars[i].number(),
            date: self.stamp(at),
            position: self.cars[i].position,
        });
        let arrives = self.arrival(at + 0.1);
        self.feed.send(arrives, record);
    }

    /// The order changed, or not.
    pub fn tell_order(&mut self, order: Vec<usize>, now: f64) {
        if order == self.order {
            return;
        }
        let before: Vec<u8> = self.cars.iter().map(|c| c.position).collect();
        for (place, i) in order.iter().enumerate() {
            self.cars[*i].position = place as u8 + 1;
        }
        for i in order.iter().copied() {
            let position = self.cars[i].position;
            if position == before[i] {
                continue;
            }
            self.tell_position(i, now);
            if !self.is_race() || position > before[i] {
                continue;
            }
            for j in order.iter().copied() {
                let passed = before[j] < before[i] && self.cars[j].position > position;
                if passed && self.cars[j].racing() {
                    self.tell_overtake(i, j, now);
                }
            }
        }
        self.order = order;
    }

    fn tell_overtake(&mut self, i: usize, j: usize, now: f64) {
        let record = Record::Overtake(Overtake {
            meeting_key: self.occasion.meeting_key,
            session_key: self.occasion.session_key,
            date: self.stamp(now),
            overtaking_driver_number: self.cars[i].number(),
            overtaken_driver_number: self.cars[j].number(),
            position: Some(self.cars[i].position),
        });
        let arrives = self.instant(now + 0.16);
        self.feed.send(arrives, record);
    }

    /// Gaps, measured where the cars pass: to the leader's time there, and to the car ahead's.
    pub fn tell_interval(&mut self, i: usize, k: usize, at: f64) {
        let car = &self.cars[i];
        if !car.racing() || at - car.last_interval < INTERVAL_EVERY_S {
            return;
        }
        let leads = self.order.first() == Some(&i);
        // The leader's row comes once a lap.
        if leads && k != 0 {
            return;
        }
        let place = self.order.iter().position(|o| *o == i).unwrap_or(0);
        let behind = |j: usize| {
            let earlier = self.cars[j].passed(car.lap, k)?;
            (earlier < at).then(|| ((at - earlier) * 1000.0).round() / 1000.0)
        };
        let (gap, interval) = if leads {
            (Some(Gap::Seconds(0.0)), Some(Gap::Seconds(0.0)))
        } else {
            let leader = &self.cars[self.order[0]];
            let laps = ((leader.distance - car.distance) / self.track.line.length).floor();
            let gap = match laps {
                n if n >= 1.0 => Some(Gap::Laps(n as u16)),
                _ => behind(self.order[0]).map(Gap::Seconds),
            };
            (gap, behind(self.order[place - 1]).map(Gap::Seconds))
        };
        let record = Record::Interval(Interval {
            meeting_key: self.occasion.meeting_key,
            session_key: self.occasion.session_key,
            driver_number: car.number(),
            date: self.stamp(at),
            gap_to_leader: gap,
            interval,
        });
        self.cars[i].last_interval = at;
        let arrives = self.arrival(at + 0.15);
        self.feed.send(arrives, record);
    }

    /// The official result, last of all.
    pub fn publish_result(&mut self, now: f64) {
        let mut classified = self.classify();
        classified.sort_by_key(|c| c.official_position);
        let race = self.is_race();
        let qualifying = self.occasion.kind == SessionKind::Qualifying;
        let winner = classified.first().cloned();
        let thousandth = |s: f64| (s * 1000.0).round() / 1000.0;
        for (place, c) in classified.iter().enumerate() {
            let car = self.cars.iter().find(|car| car.number() == c.driver_number);
            let total = c.race_time_s.map(|t| thousandth(t + c.penalty_s));
            let winner_total = winner
                .as_ref()
                .and_then(|w| w.race_time_s.map(|t| thousandth(t + w.penalty_s)));
            let behind = winner.as_ref().map_or(0, |w| w.laps.saturating_sub(c.laps));
            let (duration, gap) = if race {
                let on_lead_lap = behind == 0 && !c.retired;
                let gap = match behind {
                    _ if c.retired => None,
                    0 => total
                        .zip(winner_total)
                        .map(|(t, w)| Gap::Seconds(thousandth(t - w))),
                    n => Some(Gap::Laps(n)),
                };
                let duration = total.filter(|_| on_lead_lap);
                (duration.map(OneOrEach::One), gap.map(OneOrEach::One))
            } else if qualifying {
                let best = car.map_or([None; 3], |c| c.phase_best);
                let least = |part: usize| {
                    let all = self.cars.iter().filter_map(|c| c.phase_best[part]);
                    all.reduce(f64::min)
                };
                let gaps = (0..3)
                    .map(|p| {
                        best[p]
                            .zip(least(p))
                            .map(|(b, l)| Gap::Seconds(thousandth(b - l)))
                    })
                    .collect();
                (
                    Some(OneOrEach::Each(best.to_vec())),
                    Some(OneOrEach::Each(gaps)),
                )
            } else {
                let least = winner.as_ref().and_then(|w| w.best_lap_s);
                let gap = c
                    .best_lap_s
                    .zip(least)
                    .map(|(b, l)| Gap::Seconds(thousandth(b - l)));
                (c.best_lap_s.map(OneOrEach::One), gap.map(OneOrEach::One))
            };
            let points = match self.occasion.kind {
                SessionKind::Race => RACE_POINTS.get(place).copied().unwrap_or(0.0),
                SessionKind::Sprint => SPRINT_POINTS.get(place).copied().unwrap_or(0.0),
                _ => 0.0,
            };
            let result = SessionResult {
                meeting_key: self.occasion.meeting_key,
                session_key: self.occasion.session_key,
                driver_number: c.driver_number,
                position: (!c.retired).then_some(c.official_position),
                number_of_laps: Some(c.laps),
                points: race.then_some(if c.retired { 0.0 } else { points }),
                dnf: Some(c.retired),
                dns: Some(false),
                dsq: Some(false),
                duration,
                gap_to_leader: gap,
            };
            let key = format!("{}_{place:02}", self.occasion.session_key);
            let arrives = self.instant(now + 0.5);
            self.feed
                .send_keyed(arrives, key, Record::SessionResult(Box::new(result)));
        }
    }
}
