//! Practice and qualifying: out-lap, laps at full pace, in-lap, garage; and again.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::SessionKind;
use super::car::{Place, Run};
use super::control::Said;
use super::physics::Manner;
use super::session::Session;
use super::truth::Status;
use super::tyre::{Compound, Set};

/// Shortest stay in the garage (s).
const TURNAROUND_S: f64 = 150.0;

impl Session {
    /// First departures.
    pub fn plan_runs(&mut self) {
        for i in 0..self.cars.len() {
            let late = self.rng.random_range(5.0..150.0);
            self.cars[i].leaves_at = self.green_at + late;
            self.cars[i].stint_number = 0;
        }
    }

    /// Opens and closes the parts of the session, and sends cars out.
    pub fn runs_step(&mut self, now: f64) {
        let Some((from, to)) = self.control.parts.get(self.control.part).copied() else {
            return;
        };
        if !self.control.part_open && now >= from && now < to {
            self.control.part_open = true;
            self.control.phase = super::control::Phase::Green;
            self.note_status(Status::Clear, now);
            self.say(now, Said::flag("GREEN", "GREEN LIGHT - PIT EXIT OPEN"));
        }
        if self.control.part_open && now >= to {
            self.control.part_open = false;
            self.note_status(Status::Chequered, now);
            self.say(now, Said::flag("CHEQUERED", "CHEQUERED FLAG"));
        }
        let home = self.cars.iter().all(|c| c.place != Place::Moving);
        if now >= to && home {
            self.end_part();
        }
        if !self.control.part_open {
            return;
        }
        for i in 0..self.cars.len() {
            let car = &self.cars[i];
            // No time for an out-lap and a lap: stay in.
            let enough = now + 1.35 * self.track.reference_s() < to;
            if car.place == Place::Garage && !car.eliminated && now >= car.leaves_at && enough {
                self.start_run(i, now);
            }
        }
    }

    fn start_run(&mut self, i: usize, now: f64) {
        use Compound::{Hard, Medium, Soft};
        let qualifying = self.occasion.kind == SessionKind::Qualifying;
        let dry = if qualifying {
            Soft
        } else {
            *[Soft, Medium, Medium, Hard]
                .choose(&mut self.rng)
                .unwrap_or(&Medium)
        };
        let compound = Compound::for_water(self.weather.wetness).unwrap_or(dry);
        let push = if qualifying {
            1
        } else {
            self.rng.random_range(2..9)
        };
        let car = &mut self.cars[i];
        car.tyres = Set::new(compound, 0);
        car.stint_number += 1;
        self.release(i, now);
        let car = &mut self.cars[i];
        car.stint_from = car.lap;
        // The out-lap comes before the laps at full pace.
        car.run = Run::OutLap;
        car.plan = vec![(push, compound)];
    }

    /// At the last moment to come in: does this lap end in the pits?
    pub fn decide_run(&mut self, i: usize, _at: f64) {
        let open = self.control.part_open;
        let car = &mut self.cars[i];
        let next = match car.run {
            Run::OutLap if open => Run::Push(car.plan.first().map_or(1, |(laps, _)| *laps as u8)),
            Run::OutLap => Run::InLap,
            Run::Push(laps) if open && laps > 1 => Run::Push(laps - 1),
            // The lap at full pace ends at the line; the way in is another lap.
            Run::Push(0) | Run::InLap => Run::InLap,
            Run::Push(_) => Run::Push(0),
        };
        match (car.run, next) {
            (Run::InLap, _) | (Run::OutLap, Run::InLap) => {
                let manner = if car.manner.comes_out() {
                    Manner::OutIn
                } else {
                    Manner::In
                };
                if !car.manner.goes_in() {
                    self.change_manner(i, manner);
                }
            }
            _ => car.called = None,
        }
        self.cars[i].plan = match next {
            Run::Push(laps) => vec![(u16::from(laps), self.cars[i].tyres.compound)],
            _ => Vec::new(),
        };
    }

    /// What a car does on the lap that it begins.
    pub fn next_run(&mut self, i: usize) {
        let car = &mut self.cars[i];
        car.run = match (car.run, car.plan.first()) {
            (Run::InLap, _) | (_, None) => Run::InLap,
            (_, Some((0, _))) => Run::InLap,
            (_, Some((laps, _))) => Run::Push(*laps as u8),
        };
    }

    /// A car ends its in-lap in the garage.
    pub fn park(&mut self, i: usize, at: f64) {
        let stay = TURNAROUND_S + self.rng.random_range(0.0..300.0);
        let car = &mut self.cars[i];
        car.place = Place::Garage;
        car.leaves_at = at + stay;
        car.in_lap = car.laps_completed;
    }

    /// A part is over and all are home: eliminate, or end.
    fn end_part(&mut self) {
        if self.control.part + 1 >= self.control.parts.len() {
            self.control.chequered = true;
            return;
        }
        let left = self.cars.iter().filter(|c| !c.eliminated).count();
        // Of twenty, five go after each part.
        let stays = left - (self.cars.len() / 4).min(left - 1);
        for place in stays..left {
            let i = self.order[place];
            self.cars[i].eliminated = true;
        }
        self.control.part += 1;
        let (from, _) = self.control.parts[self.control.part];
        for i in 0..self.cars.len() {
            self.cars[i].leaves_at = from + self.rng.random_range(5.0..140.0);
        }
    }
}
