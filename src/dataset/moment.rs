//! A published race as it stood when the leader had completed a lap: where the race model starts from.
//!
//! **Invariant:** of the laps only those that had ended by then.

use super::race::{CarData, RaceData};
use crate::compute::race_monte_carlo::Status;
use crate::race::TrackStatus;
use crate::strategy::model::LapsFrom;
use crate::strategy::moment::{CarHistory, DrivenLap, Moment};
use crate::strategy::rules::Rules;
use crate::strategy::snapshot::compound_index;

impl RaceData {
    /// The race when the leader had completed `lap` laps; lap 0 is the grid. `None` if nobody's end of it is known.
    ///
    /// A car that has kept the line waiting for two and a half of its laps counts as out.
    pub fn moment(&self, lap: u16) -> Option<Moment> {
        let ends = |lap: u16| {
            self.cars
                .iter()
                .filter_map(move |c| c.lap(lap).and_then(|l| l.end_s))
        };
        let now = match lap {
            0 => f64::NEG_INFINITY,
            _ => ends(lap).min_by(f64::total_cmp)?,
        };
        let leader = self.cars.iter().find_map(|c| {
            let l = c.lap(lap)?;
            (l.end_s == Some(now)).then_some(l)
        });
        let (status, status_laps) = self.status_at(now, lap);
        Some(Moment {
            circuit: self.circuit.clone(),
            laps: self.calendar.laps.map(|laps| (laps, LapsFrom::Calendar)),
            lap,
            sprint: false,
            rules: Rules::of(self.season, &self.circuit),
            status,
            status_laps,
            raining: leader.is_some_and(|l| l.rain == Some(true)),
            track_c: leader.and_then(|l| l.track_c),
            cars: self
                .cars
                .iter()
                .filter(|c| !c.laps.is_empty())
                .map(|c| history(c, lap, now))
                .collect(),
        })
    }

    /// What held at that time, and for how many laps it had (s on the race's clock).
    fn status_at(&self, now: f64, lap: u16) -> (Status, u16) {
        if lap == 0 {
            return (Status::Green, 0);
        }
        let mut status = TrackStatus::Clear;
        let mut since = f64::NEG_INFINITY;
        for row in &self.status {
            let at = if self.session_clock {
                row.session_s
            } else {
                Some(row.at.millis() as f64 / 1000.0)
            };
            let Some(at) = at.filter(|t| *t <= now) else {
                continue;
            };
            (status, since) = (row.status, at);
        }
        let status = match status {
            TrackStatus::SafetyCar => Status::SafetyCar,
            TrackStatus::VirtualSafetyCar => Status::Virtual,
            TrackStatus::Red => Status::Red,
            TrackStatus::Clear
            | TrackStatus::Yellow
            | TrackStatus::VirtualSafetyCarEnding
            | TrackStatus::Chequered => return (Status::Green, 0),
        };
        let first = |n: &u16| {
            let ends = self.cars.iter().filter_map(|c| c.lap(*n)?.end_s);
            ends.min_by(f64::total_cmp).is_some_and(|t| t > since)
        };
        (status, (1..=lap).filter(first).count() as u16)
    }
}

fn history(car: &CarData, lap: u16, now: f64) -> CarHistory {
    let laps: Vec<DrivenLap> = car
        .laps
        .iter()
        .filter(|l| l.lap <= lap && l.end_s.is_some_and(|t| t <= now))
        .map(|l| DrivenLap {
            number: l.lap,
            time_s: l.time_s,
            ended_s: l.end_s,
            compound: compound_index(l.compound),
            age: l.tyre_age,
            clean: l.is_clean(),
        })
        .collect();
    let done = laps.last().map_or(0, |l| l.number);
    let last = car.lap(done);
    // The compound of the first lap is on the car on the grid.
    let on_grid = car.laps.first().filter(|_| lap == 0);
    CarHistory {
        number: car.number,
        team: car.team.clone(),
        grid: car.grid,
        qualifying_s: car.qualifying_s,
        position: last.and_then(|l| l.position).filter(|_| lap > 0),
        running: lap == 0 || runs(car, done, lap, now),
        in_pit: last.is_some_and(|l| l.is_in),
        compound: on_grid.and_then(|l| compound_index(l.compound)),
        age: on_grid
            .and_then(|l| l.tyre_age)
            .map(|a| a.saturating_sub(1)),
        changes: changes(car, done, last.is_some_and(|l| l.is_in)),
        laps,
    }
}

/// Changes of tyres by the number of the stint, where it is published; after an in-lap the next one is on its way.
fn changes(car: &CarData, done: u16, in_pit: bool) -> Option<u16> {
    let first = car.laps.first()?.stint?;
    let stint = match car.lap(done) {
        Some(lap) => lap.stint?,
        None => first,
    };
    Some(u16::from(stint.saturating_sub(first)) + u16::from(in_pit))
}

/// Laps of its own for which a car may keep its line waiting before it counts as out.
const PATIENCE: f64 = 2.5;

/// Whether a car still races: it has not kept the line waiting for too long.
fn runs(car: &CarData, done: u16, lap: u16, now: f64) -> bool {
    let ended = car.lap(done).and_then(|l| l.end_s);
    let mut times: Vec<f64> = car
        .laps
        .iter()
        .filter(|l| l.lap <= done)
        .filter_map(|l| l.time_s)
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    match (ended, times.get(times.len() / 2)) {
        (Some(ended), Some(typical)) => now - ended < PATIENCE * typical,
        _ => done + 1 >= lap,
    }
}

#[cfg(test)]
mod tests {
    use crate::compute::cpu::race_monte_carlo::simulate;
    use crate::compute::race_monte_carlo::car_of;
    use crate::dataset::Dataset;
    use crate::strategy::model::Start;
    use crate::strategy::parameters::Parameters;
    use crate::strategy::planner::{Question, advise};
    use crate::strategy::simulation::{Decision, Simulation};

    const RACES: usize = 400;

    /// What the simulated races of a season that nothing was fitted on say, and what happened.
    #[derive(Default)]
    struct Judged {
        cars: f64,
        /// Actual position within P10 to P90 of the simulated ones.
        covered: f64,
        /// Error of the mean simulated position, and of the present order, against the actual one.
        error: f64,
        error_of_order: f64,
        /// Brier score of a podium, and of the present order taken for certain.
        brier: f64,
        brier_of_order: f64,
    }

    #[test]
    fn simulated_races_are_spread_like_those_of_2024() {
        let Some(folder) = crate::predict::backtest::data() else {
            return;
        };
        let parameters = Parameters::shipped();
        let set = Dataset::read(&folder, 2024..=2024).unwrap();
        for (share, slack) in [(0, 1.08), (25, 1.0), (50, 1.0), (75, 1.08)] {
            let mut judged = Judged::default();
            for race in &set.races {
                let lap = race.laps() * share / 100;
                let Some(moment) = race.moment(lap) else {
                    continue;
                };
                let start = Start::at(&parameters, &moment);
                let problem = start.problem(&parameters).unwrap();
                let count = start.cars.len();
                let mut keys = vec![0; RACES * count];
                simulate(&problem, 1, 0, &mut keys).unwrap();
                let mut places = vec![Vec::with_capacity(RACES); count];
                for race in keys.chunks(count) {
                    for (place, key) in race.iter().enumerate() {
                        places[car_of(*key)].push(place as f64 + 1.0);
                    }
                }
                let mut order: Vec<usize> = (0..count).collect();
                order.sort_by(|a, b| {
                    let key = |i: usize| (!start.cars[i].running, start.cars[i].behind_s);
                    key(*a).partial_cmp(&key(*b)).unwrap()
                });
                for (i, car) in start.cars.iter().enumerate().filter(|(_, c)| c.running) {
                    let result = race.car(car.number).and_then(|c| c.result.clone());
                    let Some(actual) = result.and_then(|r| r.position).map(f64::from) else {
                        continue;
                    };
                    places[i].sort_unstable_by(f64::total_cmp);
                    let mean = places[i].iter().sum::<f64>() / RACES as f64;
                    let podium =
                        places[i].iter().filter(|p| **p <= 3.0).count() as f64 / RACES as f64;
                    let now = order.iter().position(|o| *o == i).unwrap() as f64 + 1.0;
                    let hit = f64::from(actual <= 3.0);
                    judged.cars += 1.0;
                    judged.covered += f64::from(
                        places[i][RACES / 10] <= actual
                            && actual <= places[i][RACES - RACES / 10 - 1],
                    );
                    judged.error += (mean - actual).abs();
                    judged.error_of_order += (now - actual).abs();
                    judged.brier += (podium - hit) * (podium - hit);
                    judged.brier_of_order += (f64::from(now <= 3.0) - hit).abs();
                }
            }
            let Judged {
                cars,
                covered,
                error,
                error_of_order,
                brier,
                brier_of_order,
            } = judged;
            println!(
                "{share} %: {cars} cars, P10-P90 covers {:.3}, error {:.2} (present order {:.2}), podium Brier {:.4} (present order {:.4})",
                covered / cars,
                error / cars,
                error_of_order / cars,
                brier / cars,
                brier_of_order / cars
            );
            assert!(cars > 300.0);
            // Whole positions cover more than four fifths where they are few.
            assert!(
                (0.78..=0.94).contains(&(covered / cars)),
                "{share} %: {}",
                covered / cars
            );
            assert!(
                error < slack * error_of_order,
                "{share} %: {error} {error_of_order}"
            );
            assert!(
                brier < brier_of_order,
                "{share} %: {brier} {brier_of_order}"
            );
        }
    }

    /// The race of the 18 laps, as it stood: what is recommended, driven many times among rivals who keep the rule, too.
    #[test]
    fn plans_for_qatar_2023_keep_every_stint_within_18_laps() {
        let Some(folder) = crate::predict::backtest::data() else {
            return;
        };
        const MOST: i32 = 18;
        let parameters = Parameters::shipped();
        let set = Dataset::read(&folder, 2023..=2023).unwrap();
        let race = set.races.iter().find(|r| r.circuit == "Lusail").unwrap();
        let (mut asked, mut three) = (0, 0);
        for lap in [0, 6, 15, 28, 40, 50] {
            let start = Start::at(&parameters, &race.moment(lap).unwrap());
            assert_eq!(start.rules.longest_stint_laps, MOST as u16);
            let running = start.cars.iter().enumerate().filter(|(_, c)| c.running);
            for (car, entrant) in running.step_by(3) {
                let question = Question {
                    car,
                    races: 64,
                    seed: 3,
                };
                let advice = advise(&start, &parameters, question).unwrap();
                let mut problem = start.problem(&parameters).unwrap();
                problem.cars[car].plan = advice.plans[0].candidate.plan;
                for number in 0..8 {
                    let mut one = Simulation::new(&problem, 3, number).unwrap();
                    while !one.is_over() {
                        let before = one.cars().to_vec();
                        one.step(|_, _| Decision::Plan);
                        for (was, now) in before.iter().zip(one.cars()) {
                            // A set that was over its laps already comes off on the first lap.
                            let over = one.next_lap() == problem.first + 1 && was.age >= MOST;
                            assert!(!now.running || over || was.age < MOST, "{was:?}");
                        }
                    }
                    let own = one.cars()[car];
                    if lap == 0 && own.running {
                        asked += 1;
                        three += i32::from(own.changes >= 3);
                    }
                    assert!(own.changes >= i32::from(entrant.changes) && !own.overran);
                }
            }
        }
        // 57 laps take four sets of 18.
        assert!(asked > 20 && three == asked, "{three} of {asked}");
    }

    #[test]
    fn stops_of_2024_cost_what_the_parameters_say() {
        let Some(folder) = crate::predict::backtest::data() else {
            return;
        };
        let parameters = Parameters::shipped();
        let set = Dataset::read(&folder, 2024..=2024).unwrap();
        let mut off = Vec::new();
        for race in &set.races {
            let Some(circuit) = parameters.known(&race.circuit) else {
                continue;
            };
            let mut losses: Vec<f64> = Vec::new();
            for car in &race.cars {
                for pair in car.laps.windows(2).filter(|p| p[0].is_in && p[1].is_out) {
                    let around: Vec<f64> = car
                        .laps
                        .iter()
                        .filter(|l| l.is_clean() && l.lap.abs_diff(pair[0].lap) < 6)
                        .filter_map(|l| l.time_s)
                        .collect();
                    let green = pair.iter().all(|l| l.clear);
                    let (Some(a), Some(b)) = (pair[0].time_s, pair[1].time_s) else {
                        continue;
                    };
                    if green && around.len() >= 4 {
                        losses.push(a + b - 2.0 * around.iter().sum::<f64>() / around.len() as f64);
                    }
                }
            }
            losses.sort_unstable_by(f64::total_cmp);
            if losses.len() >= 10 {
                off.push((losses[losses.len() / 2] - circuit.in_loss_s - circuit.out_loss_s).abs());
            }
        }
        off.sort_unstable_by(f64::total_cmp);
        println!("stops: {} circuits, off by {off:.1?} s", off.len());
        assert!(off.len() >= 10);
        assert!(off[off.len() / 2] < 1.5, "{off:?}");
    }
}
