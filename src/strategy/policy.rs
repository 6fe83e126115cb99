//! What a policy sees of a simulated race, and what it may do: the pit network's state and actions.
//!
//! The state comes from a [`Simulation`], which is also how a live race is looked at (its present becomes the
//! start of a simulation), so that training and serving share this one function.
//!
//! **Invariant:** a state holds only what a pit wall knows: no wear target of a rival, no hazard to come.

use super::simulation::{Decision, Driving, Simulation};
use crate::compute::race_monte_carlo::{
    OUT_MS, Problem, Race, Status, car_of, class, owes, time_ms,
};

/// Numbers in a state.
pub const STATE: usize = 32;
/// Actions there are.
pub const ACTIONS: usize = 10;

/// Names of the state's columns; all are of the order of 1.
pub const STATE_NAMES: [&str; STATE] = [
    "laps_left",
    "laps_left_share",
    "tyre_age",
    "is_soft",
    "is_medium",
    "is_hard",
    "is_intermediate",
    "is_wet",
    "tyre_loss_s",
    "tyre_slope",
    "age_over_life",
    "left_over_soft_life",
    "left_over_medium_life",
    "left_over_hard_life",
    "owes_compound",
    "virtual_safety_car",
    "safety_car",
    "track_damp",
    "track_wet",
    "pit_loss_now",
    "pass_span",
    "gap_ahead",
    "gap_behind",
    "position",
    "places_lost_by_stop",
    "rejoin_behind",
    "more_stops_share",
    "field_age",
    "ahead_older",
    "behind_older",
    "pace_against_field",
    "stops",
];

/// What the actions are called.
pub const ACTION_NAMES: [&str; ACTIONS] = [
    "stay out",
    "box now for SOFT",
    "box now for MEDIUM",
    "box now for HARD",
    "box now for INTERMEDIATE",
    "box now for WET",
    "stay out for 2 laps",
    "stay out for 3 laps",
    "stay out for 5 laps",
    "stay out for 10 laps",
];

/// An action: what is done about the lap under way, and for how many laps that stands. A change of track status or
/// wetness asks anew before they are over.
pub const fn meaning(action: usize) -> (Decision, i32) {
    match action {
        1..=5 => (Decision::Box(action as u8 - 1), 1),
        6 => (Decision::Stay, 2),
        7 => (Decision::Stay, 3),
        8 => (Decision::Stay, 5),
        9 => (Decision::Stay, 10),
        _ => (Decision::Stay, 1),
    }
}

/// The actions that make sense (bits): nobody boxes on the last lap or under a red flag, for wet tyres on a dry track
/// or for slicks on a wet one, or for a compound that is gone; nobody commits beyond the flag. Nobody stays out on a set
/// that may do no more laps, or while as many stops are owed as there are laps left to make them on.
pub fn legal(simulation: &Simulation<'_>, car: usize, race: &Race) -> u16 {
    let p = simulation.problem();
    let left = p.laps - simulation.next_lap() + 1;
    let mut bits = 1;
    if left > 1 && race.status != Status::Red as i32 {
        for compound in 0..5 {
            let there = p.cars[car].available >> compound & 1 != 0;
            let fits = match class(compound) {
                0 => race.level < 2,
                _ => race.level > 0,
            };
            if there && fits {
                bits |= 1 << (compound + 1);
            }
        }
    }
    let boxes = bits & !1;
    for action in 6..ACTIONS {
        if meaning(action).1 < left {
            bits |= 1 << action;
        }
    }
    if boxes != 0 {
        let stays = |action: &usize| !(1..=5).contains(action);
        for action in (0..ACTIONS).filter(stays) {
            if !may_stay(p, &simulation.cars()[car], left, meaning(action).1) {
                bits &= !(1 << action);
            }
        }
    }
    bits
}

/// Whether a car that could box may stay out for so many laps, `left` to go, without breaking a rule of the race.
fn may_stay(p: &Problem, car: &Driving, left: i32, laps: i32) -> bool {
    let longest = p.longest_stint_laps;
    let fits = longest == 0 || car.age + laps < longest;
    let owed = p.min_stops - car.changes;
    // In-laps are those before the last; what can no longer be met is not gone after.
    let (possible, after) = (left - 1, left - 1 - laps);
    fits && (owed <= 0 || owed > possible || owed <= after)
}

/// What the car sees before the lap under way; `race` is what holds on that lap.
pub fn state(simulation: &Simulation<'_>, index: usize, race: &Race) -> [f32; STATE] {
    let p = simulation.problem();
    let car = &simulation.cars()[index];
    let field = Field::of(simulation, index);
    let left = (p.laps - simulation.next_lap() + 1) as f32;
    let tyres = &p.cars[index].tyres;
    let own = car.compound as usize;
    let mut s = [0.0; STATE];
    s[0] = left / 50.0;
    s[1] = left / p.laps as f32;
    s[2] = car.age as f32 / 30.0;
    s[3 + own] = 1.0;
    s[8] = (car.wear_q8 >> 8) as f32 / 2000.0;
    s[9] = car.slope_q8 as f32 / 25_600.0;
    s[10] = car.age as f32 / tyres[own].life as f32;
    for (at, tyre) in s[11..14].iter_mut().zip(tyres) {
        *at = left / tyre.life as f32 / 2.0;
    }
    s[14] = flag(owes(p, car.used));
    s[15] = flag(race.status == Status::Virtual as i32);
    s[16] = flag(race.status == Status::SafetyCar as i32);
    s[17] = flag(race.level == 1);
    s[18] = flag(race.level == 2);
    s[19] = p.pit_ms[race.status as usize] as f32 / 30_000.0;
    s[20] = p.pass_span_ms as f32 / 1000.0;
    field.fill(&mut s, p, car, race);
    s[31] = car.stops as f32 / 3.0;
    s
}

fn flag(holds: bool) -> f32 {
    f32::from(u8::from(holds))
}

/// The others as one car sees them.
struct Field<'a> {
    /// (behind this car (ms, negative: ahead), the car), by place.
    others: Vec<(i32, &'a Driving)>,
}

/// Gaps are told up to here (ms).
const FAR_MS: i32 = 30_000;

impl<'a> Field<'a> {
    fn of(simulation: &'a Simulation<'_>, index: usize) -> Field<'a> {
        let own = simulation.time_ms(index);
        let others = simulation.keys().iter().filter_map(|k| {
            let (t, i) = (time_ms(*k), car_of(*k));
            (t < OUT_MS && i != index).then(|| (t - own, &simulation.cars()[i]))
        });
        Field {
            others: others.collect(),
        }
    }

    fn fill(&self, s: &mut [f32; STATE], p: &Problem, car: &Driving, race: &Race) {
        let n = self.others.len().max(1) as f32;
        let loss = p.pit_ms[race.status as usize];
        let ahead = self.others.iter().rfind(|o| o.0 < 0);
        let behind = self.others.iter().find(|o| o.0 >= 0);
        let gap = |o: Option<&(i32, &Driving)>| o.map_or(FAR_MS, |o| o.0.abs().min(FAR_MS));
        let older = |o: Option<&(i32, &Driving)>| o.map_or(0, |o| o.1.age - car.age);
        let passing = |o: &&(i32, &Driving)| (0..loss).contains(&o.0);
        s[21] = gap(ahead) as f32 / 10_000.0;
        s[22] = gap(behind) as f32 / 10_000.0;
        s[23] = self.others.iter().filter(|o| o.0 < 0).count() as f32 / 20.0;
        s[24] = self.others.iter().filter(passing).count() as f32 / 10.0;
        let rejoin = self.others.iter().filter(passing).map(|o| loss - o.0).min();
        s[25] = rejoin.unwrap_or(FAR_MS).min(FAR_MS) as f32 / 10_000.0;
        s[26] = self.others.iter().filter(|o| o.1.stops > car.stops).count() as f32 / n;
        s[27] = self.others.iter().map(|o| o.1.age).sum::<i32>() as f32 / n / 30.0;
        s[28] = older(ahead) as f32 / 20.0;
        s[29] = older(behind) as f32 / 20.0;
        let pace = self
            .others
            .iter()
            .map(|o| o.1.pace_ms - car.pace_ms)
            .sum::<i32>();
        s[30] = pace as f32 / n / 1000.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::example_problem;

    #[test]
    fn the_state_by_hand_and_what_is_legal_on_the_grid() {
        let problem = example_problem();
        let simulation = Simulation::new(&problem, 1, 0).unwrap();
        let race = Race::of(&problem);
        let s = state(&simulation, 1, &race);
        let laps = problem.laps as f32;
        assert_eq!((s[0], s[1], s[2]), (laps / 50.0, 1.0, 0.0));
        // Second on the grid starts on mediums, owes a compound, has one car ahead.
        assert_eq!(
            (s[3], s[4], s[14], s[23], s[31]),
            (0.0, 1.0, 1.0, 0.05, 0.0)
        );
        assert!(s.iter().all(|v| v.is_finite() && v.abs() < 10.0), "{s:?}");
        // Stay, box for three dry compounds, and commit for 2 to 10 laps; no wet tyres on a dry track.
        assert_eq!(legal(&simulation, 1, &race), 0b11_1100_1111);
        let red = Race {
            status: Status::Red as i32,
            ..race
        };
        assert_eq!(legal(&simulation, 1, &red) & 0b11_1110, 0);
    }

    #[test]
    fn rules_of_the_race_mask_staying_out() {
        let mut problem = example_problem();
        (problem.hazard, problem.hazard_start) = ([0; 3], [0; 3]);
        (problem.cars[1].retire, problem.cars[1].retire_start) = (0, 0);
        problem.longest_stint_laps = 18;
        let boxes = 0b1110;
        let after = |problem: &Problem, laps: i32| {
            let mut simulation = Simulation::new(problem, 1, 0).unwrap();
            while simulation.next_lap() <= laps {
                simulation.step(|_, _| Decision::Stay);
            }
            legal(&simulation, 1, &Race::of(problem))
        };
        // Seven laps old, ten more end on lap 17; eight laps old they would end on the last that is allowed, too late
        // to say so.
        assert_eq!(after(&problem, 7), 0b11_1100_1111);
        assert_eq!(after(&problem, 8), 0b1_1100_1111);
        assert_eq!(after(&problem, 16), boxes | 1);
        assert_eq!(after(&problem, 17), boxes);
        // Two stops owed need the last two laps on which one may box.
        (problem.longest_stint_laps, problem.min_stops) = (0, 2);
        assert_eq!(after(&problem, problem.laps - 4), boxes | 1);
        assert_eq!(after(&problem, problem.laps - 3), boxes);
        problem.cars[1].changes = 2;
        assert_eq!(after(&problem, problem.laps - 3) & 1, 1);
    }

    #[test]
    fn on_the_last_lap_one_stays_out() {
        let problem = example_problem();
        let mut simulation = Simulation::new(&problem, 1, 0).unwrap();
        while simulation.next_lap() < problem.laps {
            simulation.step(|_, _| Decision::Plan);
        }
        let upcoming = simulation.upcoming();
        assert_eq!(legal(&simulation, 0, &upcoming), 1);
    }

    #[test]
    fn names_and_meanings_go_together() {
        for (action, name) in ACTION_NAMES.iter().enumerate() {
            let (decision, laps) = meaning(action);
            assert_eq!(
                name.starts_with("box"),
                matches!(decision, Decision::Box(_))
            );
            assert!(laps == 1 || name.contains(&laps.to_string()), "{name}");
        }
    }
}
