//! Stints that wear, with laps that are slow, missing, or agree to the millisecond.

use super::{Case, Draw, Size, Values, bytes_of};
use crate::compute::stint_fit::{self, TUNING};
use crate::compute::{StintFit, Task};

pub(super) struct Stints {
    stint_start: Vec<u32>,
    time_s: Vec<f32>,
    age: Vec<f32>,
    fuel: Vec<f32>,
    prior: Vec<f32>,
    rounds: u32,
    fit: Vec<f32>,
}

impl Stints {
    pub(super) fn draw(size: Size, draw: &mut Draw) -> Stints {
        let stints = match size {
            Size::Small => 1 + draw.below(60),
            Size::Season => 24 * 20 * 3,
        };
        let (mut stint_start, mut time_s) = (vec![0], Vec::new());
        let (mut age, mut fuel, mut prior) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..stints {
            let laps = match (size, draw.below(10)) {
                (Size::Small, 0) => draw.below(4),
                (Size::Small, 1) => 100 + draw.below(60),
                _ => 8 + draw.below(28),
            };
            let (base, wear) = (draw.between(65.0, 110.0), draw.between(-0.02, 0.2));
            let (used, tank) = (draw.below(8) as f32, draw.between(20.0, 110.0));
            for i in 0..laps {
                let i = i as f32;
                let lap = base + wear * i - 0.05 * i + draw.between(-0.3, 0.3);
                time_s.push(match draw.below(20) {
                    0 => f32::NAN,
                    1 => lap + draw.between(2.0, 30.0),
                    // Laps are timed to a millisecond, and some agree.
                    _ => (lap * 1000.0).round() / 1000.0,
                });
                age.push(used + i);
                fuel.push(tank - 1.6 * i);
            }
            stint_start.push(time_s.len() as u32);
            prior.extend([0.05, draw.between(1.0, 200.0), 0.03, draw.between(1e3, 1e6)]);
        }
        Stints {
            stint_start,
            time_s,
            age,
            fuel,
            prior,
            rounds: if size == Size::Small {
                draw.below(9) as u32
            } else {
                6
            },
            fit: vec![0.0; stints * stint_fit::FIT],
        }
    }
}

impl Case for Stints {
    fn task(&mut self) -> Box<dyn Task + '_> {
        Box::new(StintFit {
            stint_start: &self.stint_start,
            time_s: &self.time_s,
            age: &self.age,
            fuel: &self.fuel,
            prior: &self.prior,
            rounds: self.rounds,
            tuning: TUNING,
            fit: &mut self.fit,
        })
    }

    fn outputs(&self) -> Vec<(&'static str, Values<'_>)> {
        vec![("fit", Values::F32(&self.fit))]
    }

    fn reset(&mut self) {
        self.fit.fill(0.0);
    }

    fn bytes(&self) -> u64 {
        3 * bytes_of(&self.time_s)
            + bytes_of(&self.stint_start)
            + bytes_of(&self.prior)
            + bytes_of(&self.fit)
    }
}
