//! How fast each car goes: on its own, in traffic, behind a safety car; and who gets past whom.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::car::{Place, Run};
use super::control::Phase;
use super::session::{DT, Session};

/// Slower than a qualifying lap with the same tyres and fuel (s): nobody races flat out.
const RACE_MARGIN_S: f64 = 1.6;
/// Fuel for a lap costs so much a lap (s): about 1.7 kg at 0.033 s/kg.
const FUEL_S: f64 = 0.056;
/// Dirty air within this gap (s) costs up to so much (s a lap).
const DIRTY_AIR_GAP_S: f64 = 1.6;
const DIRTY_AIR_S: f64 = 0.55;
/// Cars follow no closer than this (s), racing and in line.
const CLOSEST_S: f64 = 0.42;
const IN_LINE_S: f64 = 0.8;
/// Stretch of the lap's time behind a safety car, catching it up, under a virtual one, under red.
const SAFETY_CAR: f64 = 1.62;
const CATCHING_UP: f64 = 1.28;
const VIRTUAL: f64 = 1.36;
const RED: f64 = 1.7;
const COOL_DOWN: f64 = 1.45;
/// Passing and being passed.
const PASSING: f64 = 0.978;
const YIELDING: f64 = 1.018;
/// Within this gap a car may open its DRS (s).
pub(super) const DRS_GAP_S: f64 = 1.0;
/// How long an attempt may take (s).
const ATTEMPT_S: f64 = 22.0;

impl Session {
    /// Sets the pace of every car for the step that begins at `now`.
    pub fn decide_paces(&mut self, now: f64) {
        self.measure();
        self.see_ahead();
        for i in 0..self.cars.len() {
            self.cars[i].free_pace = self.free_pace(i);
        }
        for i in 0..self.cars.len() {
            let pace = match self.control.phase {
                _ if self.cars[i].finished_ms.is_some() => COOL_DOWN,
                Phase::Waiting | Phase::Green => self.racing_pace(i, now),
                phase => self.neutral_pace(i, phase),
            };
            let car = &mut self.cars[i];
            // Nobody brakes or accelerates in an instant: a tenth of the way in a tenth.
            car.pace += (pace - car.pace) * (DT / 0.6).min(1.0);
        }
    }

    /// Finds the car just ahead of each on the road, whatever lap it is on.
    fn see_ahead(&mut self) {
        let length = self.track.line.length;
        let mut road: Vec<(f64, usize)> = self
            .cars
            .iter()
            .enumerate()
            .filter(|(_, c)| c.place == Place::Moving && !c.in_lane)
            .map(|(i, c)| (c.s.rem_euclid(length), i))
            .collect();
        road.sort_by(|a, b| a.0.total_cmp(&b.0));
        for car in &mut self.cars {
            car.ahead = None;
        }
        for (place, (s, i)) in road.iter().enumerate() {
            let (ahead_s, ahead) = road[(place + 1) % road.len()];
            if ahead != *i {
                let metres = (ahead_s - s).rem_euclid(length);
                self.cars[*i].ahead = Some((ahead, metres / self.cars[*i].speed.max(10.0)));
            }
        }
    }

    /// Pace on an empty track: driver, car, fuel, tyres, form, water.
    fn free_pace(&self, i: usize) -> f64 {
        let car = &self.cars[i];
        let reference = self.track.reference_s();
        let wear = self.options.circuit.wear;
        let wetness = self.weather.wetness;
        let tyres = car.tyres.compound.loss_s(car.tyres.age(), wear, wetness);
        // Water slows everyone, whatever they are on.
        let water = 6.0 * wetness;
        let mut loss = car.entrant.pace_s() + tyres + car.form + water;
        if self.is_race() {
            let laps_left = f64::from(self.laps.saturating_sub(car.lap.saturating_sub(1)));
            loss += RACE_MARGIN_S + FUEL_S * laps_left;
            if car.lap == 1 {
                // The first lap sorts itself out by slots and nerves.
                loss += 1.5 + 0.22 * car.slot as f64;
            }
        } else {
            match car.run {
                Run::Push(_) if self.occasion.kind == super::SessionKind::Practice => loss += 1.0,
                Run::Push(_) => {}
                Run::OutLap => return 1.30 + loss / reference,
                Run::InLap => return 1.38 + loss / reference,
            }
        }
        1.0 + loss / reference
    }

    fn racing_pace(&mut self, i: usize, now: f64) -> f64 {
        let reference = self.track.reference_s();
        let car = &self.cars[i];
        let mut pace = car.free_pace;
        if !self.is_race() || car.in_lane {
            return pace;
        }
        if now < car.yielding_until {
            pace *= YIELDING;
        }
        let Some((j, gap)) = car.ahead else {
            return pace;
        };
        let length = self.track.line.length;
        let lead = self.cars[j].distance - car.distance;
        if lead.abs() > length / 2.0 || !self.cars[j].racing() {
            // One of the two is a lap or more ahead: who is lapped makes way.
            if lead < 0.0 && gap < 1.2 {
                self.make_way(j, now);
                pace += 0.25 / reference;
            }
            return pace;
        }
        if let Some((target, until)) = car.passing {
            if target == j && now < until {
                return (pace * PASSING).min(self.cars[j].pace * PASSING);
            }
            self.cars[i].passing = None;
        }
        if gap < DIRTY_AIR_GAP_S {
            pace += DIRTY_AIR_S * (1.0 - gap / DIRTY_AIR_GAP_S) / reference;
        }
        if gap < CLOSEST_S {
            pace = pace.max(self.cars[j].pace * (1.0 + 0.2 * (CLOSEST_S - gap)));
        }
        pace
    }

    fn make_way(&mut self, lapped: usize, now: f64) {
        let car = &mut self.cars[lapped];
        car.yielding_until = now + 2.0;
        if now - car.last_blue > 45.0 {
            car.last_blue = now;
            let (number, who) = (car.number(), car.called_out());
            let at = self.instant(now).to_string();
            let message = format!("WAVED BLUE FLAG FOR {who} TIMED AT {}", &at[11..19]);
            self.say(now, super::control::Said::driver("BLUE", number, message));
        }
    }

    /// Pace where racing is suspended: everyone in line, nobody past anybody.
    fn neutral_pace(&self, i: usize, phase: Phase) -> f64 {
        let car = &self.cars[i];
        let leads = self.order.first() == Some(&i);
        let own = match phase {
            Phase::VirtualSafetyCar { .. } => VIRTUAL,
            Phase::Red(_) => RED,
            _ if leads => SAFETY_CAR,
            _ => CATCHING_UP,
        };
        if car.in_lane {
            return car.free_pace;
        }
        match car.ahead {
            Some((j, gap)) if gap < IN_LINE_S && !leads => {
                (self.cars[j].pace * (1.0 + 0.25 * (IN_LINE_S - gap))).clamp(own, 6.0)
            }
            Some((j, gap)) if gap < 4.0 * IN_LINE_S && !leads => {
                // Close up gently.
                let part = (gap - IN_LINE_S) / (3.0 * IN_LINE_S);
                let theirs = self.cars[j].pace;
                (theirs + (own - theirs) * part).max(own)
            }
            _ => own,
        }
    }

    /// At the end of each mini-sector a car close behind another may try to get past.
    pub fn consider_passing(&mut self, i: usize, at: f64) {
        let car = &self.cars[i];
        let Some((j, gap)) = car.ahead else { return };
        let theirs = &self.cars[j];
        if !self.control.green() || gap > DRS_GAP_S || car.passing.is_some() || !theirs.racing() {
            return;
        }
        if (theirs.distance - car.distance).abs() > self.track.line.length / 2.0 {
            return;
        }
        let quicker = (theirs.free_pace - car.free_pace) * self.track.reference_s();
        let zone = self.track.in_drs_zone(car.s + 40.0);
        let chance = if car.lap == 1 {
            // Slots, not pace, put them in line.
            0.04
        } else {
            let drs = if self.control.drs && zone { 1.0 } else { 0.12 };
            self.options.circuit.overtaking * drs * (quicker / 0.5).clamp(0.0, 3.0) / 2.0
        };
        if chance > 0.0 && self.rng.random_bool(chance.min(0.9)) {
            self.cars[i].passing = Some((j, at + ATTEMPT_S));
            self.cars[j].yielding_until = at + ATTEMPT_S / 3.0;
        }
    }

    /// Draws a car's form for its next sector (s a lap): it remembers half of the last one.
    pub fn draw_form(&mut self, i: usize) {
        let noise: f64 = StandardNormal.sample(&mut self.rng);
        let spread = if self.is_race() { 0.19 } else { 0.13 };
        let wet = 1.0 + 3.0 * self.weather.wetness;
        let car = &mut self.cars[i];
        car.form = 0.5 * car.form + spread * wet * noise;
    }
}
