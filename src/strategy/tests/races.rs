//! The race model as a whole: the batch engine against the reference, rules, and what common sense expects.

use proptest::prelude::*;

use crate::compute::cpu::race_monte_carlo::simulate;
use crate::compute::race_monte_carlo::*;
use crate::strategy::model::{ALL_COMPOUNDS, GridCar, ModelError, Start};
use crate::strategy::parameters::Parameters;
use crate::strategy::simulation::{Decision, Driving, Simulation};

fn grid(cars: u8) -> Vec<GridCar> {
    (0..cars)
        .map(|i| GridCar {
            number: i + 1,
            qualifying_s: (i % 7 != 6).then_some(88.0 + 0.13 * f64::from(i)),
            compound: i % 3,
        })
        .collect()
}

fn race(circuit: &str, cars: u8) -> Problem {
    let parameters = Parameters::shipped();
    Start::grid(&parameters, circuit, None, &grid(cars))
        .problem(&parameters)
        .unwrap()
}

fn keys(p: &Problem, seed: u64, races: usize) -> Vec<i32> {
    let mut keys = vec![0; races * p.count as usize];
    simulate(p, seed, 0, &mut keys).unwrap();
    keys
}

/// The reference's keys for every race, and the simulations behind them.
fn assert_alike(p: &Problem, seed: u64, races: usize) {
    let batch = keys(p, seed, races);
    for (number, expected) in batch.chunks(p.count as usize).enumerate() {
        let mut one = Simulation::new(p, seed, number as u32).unwrap();
        while !one.is_over() {
            one.step(|_, _| Decision::Plan);
        }
        assert_eq!(one.keys(), expected, "race {number}");
    }
}

#[test]
fn the_batch_engine_drives_the_same_races_as_the_reference() {
    for (circuit, cars) in [
        ("Sakhir", 20),
        ("Monte Carlo", 22),
        ("Nowhere", 24),
        ("Singapore", 2),
    ] {
        assert_alike(&race(circuit, cars), 11, 150);
    }
}

#[test]
fn so_it_does_in_the_rain_behind_safety_cars_and_with_plans() {
    let mut p = race("Spa-Francorchamps", 20);
    p.level = 1;
    p.wetter = [1 << 28; 3];
    p.drier = [1 << 29; 3];
    p.hazard = [1 << 26, 1 << 28, 1 << 28];
    p.status = Status::SafetyCar as i32;
    p.status_left = 2;
    p.restart = 0;
    for (i, car) in p.cars[..20].iter_mut().enumerate() {
        car.time_ms = 9_000 * i as i32;
        car.plan.count = i as i32 % 3;
        car.plan.reactive = i as i32 % 2;
        car.plan.only = i32::from(i % 4 == 0);
        car.plan.stops[0] = Stop {
            lap: 6 + i as i32,
            compound: 2,
        };
        car.plan.stops[1] = Stop {
            lap: 25,
            compound: 1,
        };
    }
    p.cars[3].running = 0;
    p.first = 5;
    assert_alike(&p, u64::MAX, 400);
}

#[test]
fn threads_change_nothing() {
    let p = race("Zandvoort", 20);
    let with = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| keys(&p, 5, 2_000))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
    // Nor does where a batch begins.
    let mut tail = vec![0; 700 * 20];
    simulate(&p, 5, 1_300, &mut tail).unwrap();
    assert_eq!(one[1_300 * 20..], tail);
    assert_ne!(one, keys(&p, 6, 2_000));
}

#[test]
fn every_car_finishes_or_is_out_once() {
    let p = race("Jeddah", 22);
    for race in keys(&p, 3, 500).chunks(22) {
        let mut seen: Vec<usize> = race.iter().map(|k| car_of(*k)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..22).collect::<Vec<_>>());
        assert!(race.is_sorted());
    }
}

#[test]
fn grid_and_pace_matter_and_monaco_is_monaco() {
    let places = |circuit: &str| {
        let p = race(circuit, 20);
        let mut moved = 0;
        for race in keys(&p, 9, 2_000).chunks(20) {
            for (place, key) in race.iter().enumerate() {
                if time_ms(*key) < OUT_MS {
                    moved += place.abs_diff(car_of(*key));
                }
            }
        }
        f64::from(moved as u32) / 2_000.0 / 20.0
    };
    let (monaco, sakhir) = (places("Monte Carlo"), places("Sakhir"));
    assert!(monaco < sakhir, "{monaco} {sakhir}");
    assert!((1.0..6.0).contains(&sakhir), "{sakhir}");
}

#[test]
fn a_red_flag_brings_fresh_tyres_and_a_standing_start() {
    let mut p = race("Sakhir", 20);
    p.hazard = [u32::MAX, 0, 0];
    p.first = 10;
    p.restart = 0;
    for (i, car) in p.cars[..20].iter_mut().enumerate() {
        (car.retire, car.age, car.time_ms) = (0, 9, 4_000 * i as i32);
    }
    let mut one = Simulation::new(&p, 1, 0).unwrap();
    one.step(|_, _| Decision::Box(0));
    assert_eq!(one.race().status, Status::Red as i32);
    for (i, car) in one.cars().iter().enumerate() {
        assert_eq!((car.age, car.stops, car.boxed), (0, 0, false), "car {i}");
    }
    assert_eq!(one.gaps_ms(car_of(one.keys()[1])).0, Some(grid_ms(1)));
    assert_eq!(one.race().restart, 1);
}

#[test]
fn behind_the_safety_car_the_field_closes_up_and_nobody_passes() {
    let mut p = race("Sakhir", 20);
    (p.status, p.status_left, p.first, p.restart, p.hazard) =
        (Status::SafetyCar as i32, 9, 20, 0, [0; 3]);
    for (i, car) in p.cars[..20].iter_mut().enumerate() {
        (car.retire, car.time_ms) = (0, 6_000 * i as i32);
    }
    let mut one = Simulation::new(&p, 1, 0).unwrap();
    let order: Vec<usize> = one.keys().iter().map(|k| car_of(*k)).collect();
    for _ in 0..8 {
        one.step(|_, _| Decision::Stay);
    }
    assert_eq!(
        order,
        one.keys().iter().map(|k| car_of(*k)).collect::<Vec<_>>()
    );
    let spread = time_ms(one.keys()[19]) - time_ms(one.keys()[0]);
    assert_eq!(spread, 19 * p.sc_gap_ms);
}

#[test]
fn who_never_changes_compound_in_the_dry_is_not_classified() {
    let mut p = race("Sakhir", 20);
    (p.hazard, p.hazard_start, p.wetter) = ([0; 3], [0; 3], [0; 3]);
    let mut one = Simulation::new(&p, 4, 0).unwrap();
    while !one.is_over() {
        one.step(|car, _| {
            if car == 0 {
                Decision::Stay
            } else {
                Decision::Plan
            }
        });
    }
    assert!(one.time_ms(0) >= OUT_MS);
    assert!(
        one.cars()[1..]
            .iter()
            .enumerate()
            .all(|(i, c)| !c.running || c.used.count_ones() > 1 || one.time_ms(i + 1) >= OUT_MS)
    );
    // In a sprint nobody asks.
    p.two_compounds = 0;
    p.cars[0].retire = 0;
    p.cars[0].retire_start = 0;
    let mut sprint = Simulation::new(&p, 4, 0).unwrap();
    while !sprint.is_over() {
        sprint.step(|_, _| Decision::Stay);
    }
    assert!(sprint.time_ms(0) < OUT_MS);
}

/// A race with rules of its own, in which much happens.
fn ruled(min_stops: i32, longest_stint_laps: i32) -> Problem {
    let mut p = race("Lusail", 20);
    (p.min_stops, p.longest_stint_laps) = (min_stops, longest_stint_laps);
    p.hazard = [1 << 26, 1 << 27, 1 << 27];
    p.wetter = [1 << 26; 3];
    p.drier = [1 << 28; 3];
    for (i, car) in p.cars[..20].iter_mut().enumerate() {
        car.age = i as i32 % 5;
        car.stop_ms = 100 * (i as i32 - 10);
        car.plan.count = i as i32 % 4;
        car.plan.reactive = i as i32 % 2;
        car.plan.only = i32::from(i % 3 == 0);
        for (at, stop) in (1..).zip(&mut car.plan.stops) {
            *stop = Stop {
                lap: 13 * at + i as i32 % 6,
                compound: at % 3,
            };
        }
    }
    p
}

#[test]
fn rules_of_a_race_are_the_same_in_both_engines() {
    for (min_stops, longest) in [(2, 0), (0, 18), (3, 25), (1, 1), (8, 9)] {
        assert_alike(&ruled(min_stops, longest), 5, 120);
        let mut late = ruled(min_stops, longest);
        (late.first, late.restart) = (44, 0);
        for (i, car) in late.cars[..20].iter_mut().enumerate() {
            (car.age, car.changes) = (3 * i as i32, i as i32 % 4);
        }
        assert_alike(&late, 6, 120);
    }
}

#[test]
fn no_set_does_more_laps_than_the_race_allows() {
    let p = ruled(0, 18);
    let (mut longest, mut stops) = (0, 0);
    for number in 0..60 {
        let mut one = Simulation::new(&p, 9, number).unwrap();
        while !one.is_over() {
            let before: Vec<Driving> = one.cars().to_vec();
            one.step(|_, _| Decision::Plan);
            for (was, car) in before.iter().zip(one.cars()) {
                if car.running {
                    longest = longest.max(was.age + 1);
                    stops += car.changes - was.changes;
                }
            }
        }
        assert!(one.cars().iter().all(|c| !c.overran));
    }
    assert_eq!(longest, 18);
    assert!(stops > 60 * 15 * 3, "{stops}");
}

#[test]
fn a_set_that_is_over_its_laps_comes_off_on_the_first_lap() {
    let mut p = ruled(0, 18);
    (p.hazard, p.wetter, p.first, p.restart) = ([0; 3], [0; 3], 20, 0);
    for car in &mut p.cars[..20] {
        (car.age, car.retire) = (30, 0);
    }
    let mut one = Simulation::new(&p, 2, 0).unwrap();
    one.step(|_, _| Decision::Plan);
    assert!(one.cars().iter().all(|c| c.boxed && c.changes == 1));
}

#[test]
fn who_stops_too_rarely_or_overruns_is_not_classified() {
    let mut p = race("Monte Carlo", 20);
    (p.hazard, p.hazard_start, p.min_stops) = ([0; 3], [0; 3], 2);
    for car in &mut p.cars[..20] {
        (car.retire, car.retire_start) = (0, 0);
    }
    let drive = |p: &Problem, own: &dyn Fn(i32) -> Decision| {
        let mut one = Simulation::new(p, 4, 0).unwrap();
        while !one.is_over() {
            let decision = own(one.next_lap());
            one.step(|car, _| if car == 0 { decision } else { Decision::Plan });
        }
        let others = one.cars()[1..].iter();
        assert!(others.clone().all(|c| c.changes >= p.min_stops));
        one.time_ms(0) < OUT_MS
    };
    let at = |laps: &'static [i32]| {
        move |n: i32| match laps.iter().position(|l| *l == n) {
            Some(i) => Decision::Box([2, 1][i % 2]),
            None => Decision::Stay,
        }
    };
    assert!(!drive(&p, &at(&[40])));
    assert!(drive(&p, &at(&[40, 41])));
    // In the wet, too: the number of stops is asked for whatever the weather.
    let mut wet = p.clone();
    (wet.level, wet.drier, wet.wetter) = (2, [0; 3], [0; 3]);
    for car in &mut wet.cars[..20] {
        (car.compound, car.used) = (4, 0);
    }
    assert!(!drive(&wet, &|_| Decision::Stay));
    assert!(drive(&wet, &|n| if n == 30 || n == 50 {
        Decision::Box(4)
    } else {
        Decision::Stay
    }));
    // Stops of before count.
    p.cars[0].changes = 1;
    assert!(drive(&p, &at(&[40])));
    // A set that does a lap too many.
    (p.min_stops, p.longest_stint_laps) = (0, 30);
    assert!(drive(&p, &at(&[30, 60])));
    assert!(!drive(&p, &at(&[31, 60])));
}

#[test]
fn a_rule_that_is_met_already_changes_nothing() {
    let p = race("Sakhir", 20);
    let mut met = p.clone();
    (met.min_stops, met.longest_stint_laps) = (2, MAX_LAPS as i32);
    for car in &mut met.cars[..20] {
        car.changes = 2;
    }
    assert_eq!(keys(&p, 3, 500), keys(&met, 3, 500));
    let mut asked = met.clone();
    asked.min_stops = 4;
    assert_ne!(keys(&p, 3, 500), keys(&asked, 3, 500));
}

#[test]
fn a_red_flags_change_is_a_stop() {
    let mut p = race("Sakhir", 20);
    (p.hazard, p.first, p.restart) = ([u32::MAX, 0, 0], 10, 0);
    let mut one = Simulation::new(&p, 1, 0).unwrap();
    one.step(|_, _| Decision::Plan);
    let running = |c: &&Driving| c.running;
    assert!(
        one.cars()
            .iter()
            .filter(running)
            .all(|c| (c.changes, c.stops) == (1, 0))
    );
}

#[test]
fn a_stop_costs_what_the_pit_lane_costs() {
    let mut p = race("Sakhir", 2);
    (p.first, p.last, p.restart, p.hazard) = (20, 20, 0, [0; 3]);
    (p.crew_ms, p.botch, p.mistake) = (0, 0, 0);
    for (i, car) in p.cars[..2].iter_mut().enumerate() {
        (car.retire, car.noise_q10, car.form_q10, car.wear_q16) = (0, 0, 0, 0);
        (car.base_ms, car.time_ms, car.compound) = (95_000, 60_000 * i as i32, 1);
        (car.wear_q8, car.slope_q8) = (0, 0);
    }
    // Its crew is quicker than the field's.
    p.cars[1].stop_ms = -384;
    let mut one = Simulation::new(&p, 1, 0).unwrap();
    one.step(|car, _| {
        if car == 1 {
            Decision::Box(2)
        } else {
            Decision::Stay
        }
    });
    let lap = 95_000 + p.lap_ms[20];
    assert_eq!(one.cars()[0].lap_ms, lap);
    assert_eq!(one.cars()[1].lap_ms, lap + p.pit_ms[0] - 384);
    assert_eq!(one.cars()[1].compound, 2);
    assert!(p.pit_ms[2] < p.pit_ms[1] && p.pit_ms[1] < p.pit_ms[0]);
}

#[test]
fn what_cannot_be_simulated_is_refused_by_name() {
    let parameters = Parameters::shipped();
    let mut start = Start::grid(&parameters, "Sakhir", Some(200), &grid(20));
    assert_eq!(
        start.problem(&parameters),
        Err(ModelError::Laps { lap: 0, laps: 200 })
    );
    start.laps = 57;
    start.cars[4].available = 0;
    let said = start.problem(&parameters).unwrap_err().to_string();
    assert!(said.contains("cars.available is 0"), "{said}");
    start.cars.clear();
    assert_eq!(start.problem(&parameters), Err(ModelError::Cars(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any decisions at all, on any number of cars: the rules hold and nothing breaks.
    #[test]
    fn rules_hold_whatever_is_decided(
        cars in 1_u8..=32,
        seed: u64,
        level in 0_u8..3,
        min_stops in 0_u8..4,
        longest in prop::sample::select(vec![0_u16, 1, 7, 18, 25]),
        wild in prop::collection::vec(0_u8..40, 32),
    ) {
        let parameters = Parameters::shipped();
        let mut start = Start::grid(&parameters, "Interlagos", Some(30), &grid(cars));
        start.level = level;
        (start.rules.min_stops, start.rules.longest_stint_laps) = (min_stops, longest);
        for car in &mut start.cars {
            car.available = ALL_COMPOUNDS;
        }
        let p = start.problem(&parameters).unwrap();
        let mut one = Simulation::new(&p, seed, 0).unwrap();
        while !one.is_over() {
            let n = one.next_lap();
            let before: Vec<i32> = one.cars().iter().map(|c| c.age).collect();
            one.step(|car, _| match wild[car] {
                w @ 0..5 if n % 7 == 3 => Decision::Box(w),
                5..10 => Decision::Stay,
                _ => Decision::Plan,
            });
            for (i, car) in one.cars().iter().enumerate().filter(|(_, c)| c.running) {
                prop_assert!(car.age == before[i] + 1 || car.age == 0);
                prop_assert!(car.lap_ms > 40_000, "{car:?}");
                prop_assert!(car.used & 1 << car.compound != 0);
                prop_assert!(!(car.boxed && n == p.laps));
            }
            prop_assert!(one.keys().is_sorted());
        }
        for (i, car) in one.cars().iter().enumerate() {
            let out = one.time_ms(i) >= OUT_MS;
            prop_assert!(out || !breaks_rules(&p, car.used, car.changes) && !car.overran);
        }
    }
}
