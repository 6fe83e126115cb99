//! The pit wall: the plan before the start, the call at the last moment, the stop.

use rand::Rng;
use rand_distr::{Distribution, Normal};

use super::SessionKind;
use super::car::Place;
use super::control::Phase;
use super::physics::Manner;
use super::session::Session;
use super::truth;
use super::tyre::{Compound, Set};
use crate::record::{Pit, Record};

/// Fewest laps between two stops, and before the end.
const APART: u16 = 3;
/// A car that loses more than this to fresh tyres comes in early (s a lap).
const WORN_OUT_S: f64 = 3.2;
/// Chance a lap that a car stuck within the pit window tries the undercut.
const UNDERCUT: f64 = 0.22;
/// Laps before the planned stop in which it may.
const WINDOW: u16 = 5;

impl Session {
    /// Tyres for the start and stops after it.
    pub fn plan_race(&mut self) {
        use Compound::{Hard, Medium, Soft};
        let laps = f64::from(self.laps);
        let wet = Compound::for_water(self.weather.wetness);
        for i in 0..self.cars.len() {
            let spread: f64 = self.rng.random_range(-0.05..0.05);
            let draw = self.rng.random_range(0..100);
            let (first, stops): (Compound, Vec<(f64, Compound)>) = match draw {
                _ if self.occasion.kind == SessionKind::Sprint => (Medium, vec![]),
                0..=34 => (Medium, vec![(0.44, Hard)]),
                35..=44 => (Hard, vec![(0.60, Medium)]),
                45..=59 => (Soft, vec![(0.30, Hard)]),
                60..=84 => (Soft, vec![(0.27, Hard), (0.65, Hard)]),
                _ => (Medium, vec![(0.33, Hard), (0.72, Medium)]),
            };
            let used = self.rng.random_range(0..4);
            let car = &mut self.cars[i];
            car.place = Place::Grid;
            let compound = wet.unwrap_or(first);
            car.tyres = Set::new(compound, if compound == Hard { 0 } else { used });
            car.used = vec![compound];
            car.plan = match wet {
                Some(_) => Vec::new(),
                None => stops
                    .into_iter()
                    .map(|(at, tyre)| (((at + spread) * laps).round() as u16, tyre))
                    .filter(|(lap, _)| (2..self.laps.saturating_sub(1)).contains(lap))
                    .collect(),
            };
        }
    }

    /// The last moment to call a car in.
    pub fn decide(&mut self, i: usize, at: f64) {
        if !self.is_race() {
            return self.decide_run(i, at);
        }
        if !self.cars[i].racing() || self.cars[i].manner.goes_in() {
            return;
        }
        let Some(compound) = self.call(i) else { return };
        self.cars[i].called = Some(compound);
        let manner = if self.cars[i].manner.comes_out() {
            Manner::OutIn
        } else {
            Manner::In
        };
        self.change_manner(i, manner);
    }

    /// Whether the car is called in, and for what.
    fn call(&mut self, i: usize) -> Option<Compound> {
        let car = &self.cars[i];
        let left = self.laps.saturating_sub(car.lap);
        let since = car.lap - car.stint_from + 1;
        let wetness = self.weather.wetness;
        let now_on = car.tyres.compound;
        let next = car.plan.first().copied();
        if let Phase::Red(red) = self.control.phase {
            // Everyone comes in under a red flag, and everyone changes. A lapped car makes up a
            // lap first; one that is further back does not keep the others waiting.
            let due = car.lap >= red.lap || car.lap + 2 < red.lap;
            return due.then(|| self.next_tyre(i, left));
        }
        if left == 0 {
            return None;
        }
        let water = Compound::for_water(wetness);
        match (water, now_on.is_slick()) {
            // Too wet for slicks, too dry for the others: each wall takes its own moment.
            (Some(tyre), true) if self.rng.random_bool(0.7) => return Some(tyre),
            (Some(tyre), false) if tyre != now_on && since > 4 && self.rng.random_bool(0.4) => {
                return Some(tyre);
            }
            (None, false) if wetness < 0.15 && left > 1 && self.rng.random_bool(0.45) => {
                return Some(self.next_tyre(i, left));
            }
            _ => {}
        }
        if since < APART || left < APART || !now_on.is_slick() {
            return None;
        }
        let car = &self.cars[i];
        let safety_car = matches!(self.control.phase, Phase::SafetyCar { in_after: None, .. });
        let slow = safety_car || matches!(self.control.phase, Phase::VirtualSafetyCar { .. });
        if slow && since > 8 && left > 6 {
            let soon = next.is_some_and(|(lap, _)| lap < car.lap + 14);
            if self.rng.random_bool(if soon { 0.75 } else { 0.12 }) {
                return Some(self.next_tyre(i, left));
            }
        }
        let (lap, tyre) = match next {
            Some(next) => next,
            None => {
                let wear = self.options.circuit.wear;
                let worn =
                    now_on.loss_s(car.tyres.age(), wear, 0.0) - now_on.loss_s(0.0, wear, 0.0);
                return (worn > WORN_OUT_S && left > 8).then(|| self.next_tyre(i, left));
            }
        };
        let stuck = car.ahead.is_some_and(|(_, gap)| gap < 1.4);
        let window = car.lap + WINDOW > lap && since > 6;
        let early = self.control.green() && stuck && window && self.rng.random_bool(UNDERCUT);
        (self.cars[i].lap >= lap || early).then_some(tyre)
    }

    /// What to fit for so many laps: the plan's, or what lasts, with two compounds in a dry race.
    fn next_tyre(&self, i: usize, left: u16) -> Compound {
        if let Some(wet) = Compound::for_water(self.weather.wetness) {
            return wet;
        }
        let car = &self.cars[i];
        if let Some((_, tyre)) = car.plan.first() {
            return *tyre;
        }
        let lasts = match left {
            0..=14 => Compound::Soft,
            15..=26 => Compound::Medium,
            _ => Compound::Hard,
        };
        let only = car.used.iter().all(|c| *c == lasts);
        match lasts {
            Compound::Medium if only => Compound::Hard,
            other if only && car.used.iter().all(|c| c.is_slick()) && other == Compound::Hard => {
                Compound::Medium
            }
            other => other,
        }
    }

    /// New tyres and the time that they take, for a car that crosses the line in the pit lane.
    pub fn take_new_tyres_if_in(&mut self, i: usize, next: Manner) {
        if !self.is_race() || !next.comes_out() {
            return;
        }
        let in_lap = self.cars[i].lap - 1;
        let red = match self.control.phase {
            Phase::Red(red) => in_lap >= red.lap || in_lap + 2 < red.lap,
            _ => false,
        };
        let crew: f64 = Normal::new(2.45, 0.22).map_or(2.45, |n| n.sample(&mut self.rng));
        let fumble = if self.rng.random_bool(0.05) {
            self.rng.random_range(1.5..7.0)
        } else {
            0.0
        };
        let car = &mut self.cars[i];
        let Some(compound) = car.called.take() else {
            return;
        };
        let stop = crew.max(1.85) + car.entrant.team().stop_s + fumble + car.penalty_s;
        car.penalty_s = 0.0;
        car.stop_s = Some(if red { f64::INFINITY } else { stop });
        car.tyres = Set::new(compound, 0);
        car.used.push(compound);
        // A stop that came early stands for the planned one.
        car.plan
            .retain(|(lap, _)| *lap > car.lap + APART + self.laps / 8);
        car.stint_number += 1;
        car.stint_from = car.lap;
    }

    /// A car leaves the pit lane: the visit and the new stint are told.
    pub fn leave_lane(&mut self, i: usize, at: f64) {
        if !self.is_race() && self.cars[i].in_lap == 0 {
            // From the garage for the first time.
            self.tell_stint(i, at + 3.0, None);
            return;
        }
        let car = &self.cars[i];
        let lane_s = ((at - car.lane_since) * 10.0).round() / 10.0;
        let (number, lap) = (car.number(), car.in_lap);
        let record = Record::Pit(Box::new(Pit {
            meeting_key: self.occasion.meeting_key,
            session_key: self.occasion.session_key,
            driver_number: number,
            date: Some(self.stamp(at)),
            lap_number: Some(lap),
            lane_duration: Some(lane_s),
            stop_duration: None,
            pit_duration: Some(lane_s),
        }));
        let arrives = self.arrival(at + 0.22);
        self.feed.send(arrives, record);
        self.truth.pits.push(truth::Pit {
            driver_number: number,
            lap,
            lane_s,
        });
        self.tell_stint(i, at + 3.0, None);
    }
}
