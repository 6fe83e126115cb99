//! The planner, duels and rejoins: by hand where the arithmetic can be done by hand.

use crate::compute::race_monte_carlo::{Plan, Status, Stop};
use crate::strategy::duel::{ANSWER_LAPS, Terms, board};
use crate::strategy::model::{GridCar, Start};
use crate::strategy::moment::{CarHistory, DrivenLap, Moment};
use crate::strategy::parameters::Parameters;
use crate::strategy::planner::{Kind, PlannerError, Question, advise, candidates};
use crate::strategy::rejoin::rejoins;
use crate::strategy::rules::{Illegal, Rules};
use crate::strategy::tests::{MONACO, QATAR};

/// Parameters of a world without luck, air or traffic: only wear and the pit lane are left.
fn clockwork() -> Parameters {
    let mut p = Parameters::shipped();
    p.pace.noise = 1e-4;
    for circuit in &mut p.circuits {
        circuit.noise = 1e-4;
    }
    p.pace.dirty = 0.0;
    p.pace.wear_spread = 0.0;
    p.pace.offset = [0.0; 5];
    p.stop.crew_s = 0.0;
    p.stop.botch = 0.0;
    p.mistake.chance = 0.0;
    p.traffic.blue_s = 0.0;
    p.traffic.min_gap_s = 0.0;
    p
}

fn grid(cars: u8) -> Vec<GridCar> {
    (0..cars)
        .map(|i| GridCar {
            number: i + 1,
            qualifying_s: Some(90.0 + 0.1 * f64::from(i)),
            compound: 1,
        })
        .collect()
}

/// Two cars alike, the second `gap_s` behind, on mediums twenty laps old that lose 0.1 s more each lap.
fn chase(p: &Parameters, gap_s: f64) -> Start {
    let mut start = Start::grid(p, "Sakhir", None, &grid(2));
    start.lap = 20;
    for (i, car) in start.cars.iter_mut().enumerate() {
        (car.pace_s, car.pace_spread_s) = (95.0, 0.0);
        (car.age, car.slope_s, car.behind_s) = (20, Some(0.1), gap_s * i as f64);
    }
    start
}

#[test]
fn an_undercut_gains_what_worn_tyres_lose() {
    let p = clockwork();
    // Both lose 2.0 s when they set out on lap 21, then 0.1 s more each lap. We box on lap 21, it boxes on lap 23.
    // On laps 22 and 23 it drives on old tyres, we on new ones that wear by `fresh` a lap:
    //   it loses 2.1 + 2.2, we lose 0 + fresh.   After its stop both are on new tyres, ours two laps older:
    //   on laps 24 and 25 we lose 2·fresh + 3·fresh against 0 + fresh.
    assert_eq!(ANSWER_LAPS, 2);
    let circuit = p.circuit("Sakhir");
    let start = chase(&p, 1.0);
    let fresh = circuit.slope[2] * start.reference_s;
    let gained = (2.1 + 2.2) - fresh - (5.0 - 1.0) * fresh;
    let terms = Terms {
        car: 1,
        compound: 2,
        races: 64,
        seed: 3,
    };
    let odds = |gap: f64| board(&chase(&p, gap), &p, terms).unwrap()[0];
    assert_eq!(odds(gained - 0.15).undercut(), Some(1.0));
    assert_eq!(odds(gained + 0.15).undercut(), Some(0.0));
    // Staying out on the same tyres is the wrong way round, and behind us nobody is.
    assert_eq!(odds(1.0).overcut(), Some(0.0));
    assert!(odds(1.0).threat().is_none());
    // Seen from the car ahead it is a threat, as certain as it was an opportunity.
    let seen = board(&chase(&p, 1.0), &p, Terms { car: 0, ..terms }).unwrap()[0];
    assert_eq!(seen.threat().map(|t| t.0), Some(1.0));
    assert_eq!(seen.ahead_by_s, -1.0);
}

#[test]
fn a_rejoin_is_the_gap_and_the_pit_lane() {
    let p = clockwork();
    let mut start = Start::grid(&p, "Sakhir", None, &grid(6));
    start.lap = 20;
    for (car, behind) in start
        .cars
        .iter_mut()
        .zip([0.0, 4.0, 10.0, 24.0, 27.5, 40.0])
    {
        car.behind_s = behind;
    }
    let circuit = p.circuit("Sakhir");
    let loss = circuit.in_loss_s + circuit.out_loss_s;
    assert!((22.0..24.0).contains(&loss), "{loss}");
    let [green, virtual_one, safety_car] = rejoins(&start, &p, 1);
    // 4.0 + 22.5: between the cars at 24.0 and 27.5.
    assert_eq!((green.position, green.places_lost), (4, 2));
    assert_eq!(green.behind_car, Some(4));
    assert!((green.gap_ahead_s.unwrap() - (4.0 + loss - 24.0)).abs() < 1e-9);
    assert!((green.gap_behind_s.unwrap() - (27.5 - 4.0 - loss)).abs() < 1e-9);
    assert_eq!(green.traffic, 1);
    assert!(safety_car.loss_s < virtual_one.loss_s && virtual_one.loss_s < green.loss_s);
    // Behind the safety car the same stop costs one place.
    assert_eq!(safety_car.places_lost, 1);
}

#[test]
fn dead_tyres_and_a_free_stop_are_taken() {
    let p = Parameters::shipped();
    let mut start = Start::grid(&p, "Sakhir", None, &grid(20));
    start.lap = 30;
    start.status = Status::SafetyCar;
    for (i, car) in start.cars.iter_mut().enumerate() {
        (car.age, car.behind_s) = (30, 1.5 * i as f64);
        car.slope_s = Some(0.15);
    }
    let question = Question {
        car: 4,
        races: 600,
        seed: 1,
    };
    let advice = advise(&start, &p, question).unwrap();
    // Tyres that lose 0.15 s more each lap do not last 27 laps; the safety car is expected to stay for four.
    let first = advice.plans[0].candidate.stops.first().map(|s| s.0);
    assert!(first.is_some_and(|lap| lap <= 34), "{}", advice.reason);
    assert_eq!(advice.position, 5);
    let (name, difference) = advice.against.clone().unwrap();
    assert!(difference.places >= 0.0, "{name}: {difference:?}");
    assert!(advice.reason.contains("of the same races"));
    // The same question, the same answer.
    assert_eq!(advice, advise(&start, &p, question).unwrap());
    for plan in &advice.plans {
        let sum: f64 = plan.probability.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9);
        assert!(
            plan.position.p10 <= plan.position.mean
                && plan.position.mean <= plan.position.p90 + 1.0
        );
        assert!(plan.gain + plan.lose <= 1.0 + 1e-9 && plan.win <= plan.podium);
    }
}

#[test]
fn who_has_just_stopped_stays_out() {
    let p = Parameters::shipped();
    let mut start = Start::grid(&p, "Monza", None, &grid(20));
    start.lap = 40;
    for (i, car) in start.cars.iter_mut().enumerate() {
        (car.age, car.compound, car.used) = (4, 2, 0b110);
        car.behind_s = 3.0 * i as f64;
    }
    let advice = advise(
        &start,
        &p,
        Question {
            car: 9,
            races: 400,
            seed: 1,
        },
    )
    .unwrap();
    assert_ne!(
        advice.plans[0].candidate.kind,
        Kind::BoxNow,
        "{}",
        advice.reason
    );
}

#[test]
fn only_legal_plans_are_laid_down() {
    let p = Parameters::shipped();
    let mut start = Start::grid(&p, "Sakhir", None, &grid(20));
    start.lap = 10;
    let all = candidates(&start, 0);
    assert!(all.len() > 30 && all.len() <= 96, "{}", all.len());
    // On mediums so far: a schedule of mediums only would break the rule, and so would no stop at all.
    for c in all.iter().filter(|c| c.kind == Kind::Schedule) {
        assert!(
            c.stops.iter().any(|(_, name)| *name != "MEDIUM"),
            "{}",
            c.name
        );
        assert!(c.stops.windows(2).all(|s| s[0].0 + 6 <= s[1].0));
        assert!(c.stops.iter().all(|(lap, _)| *lap < 57));
    }
    start.cars[0].used = 0b110;
    assert!(
        candidates(&start, 0)
            .iter()
            .any(|c| c.name == "stay out to the flag")
    );
    start.level = 1;
    assert!(candidates(&start, 0).iter().all(|c| {
        c.stops
            .iter()
            .all(|(_, name)| matches!(*name, "INTERMEDIATE" | "WET"))
    }));
    start.lap = 56;
    assert!(candidates(&start, 0).iter().all(|c| c.stops.is_empty()));
}

#[test]
fn questions_without_an_answer_say_why() {
    let p = Parameters::shipped();
    let mut start = Start::grid(&p, "Sakhir", None, &grid(20));
    let ask = |start: &Start, races| {
        advise(
            start,
            &p,
            Question {
                car: 3,
                races,
                seed: 1,
            },
        )
    };
    assert_eq!(ask(&start, 3), Err(PlannerError::Races(3)));
    start.cars[3].running = false;
    assert_eq!(ask(&start, 100), Err(PlannerError::Out(4)));
    start.cars[3].running = true;
    start.lap = 57;
    assert_eq!(ask(&start, 100), Err(PlannerError::Over(57, 57)));
}

/// A race with rules of its own after `lap` laps, every set as old as that.
fn ruled(circuit: &str, rules: Rules, lap: u16) -> Start {
    let mut start = Start::grid(&Parameters::shipped(), circuit, None, &grid(20));
    (start.rules, start.lap) = (rules, lap);
    for (i, car) in start.cars.iter_mut().enumerate() {
        (car.age, car.behind_s) = (lap, 2.0 * i as f64);
    }
    start
}

#[test]
fn plans_keep_the_rules_of_the_race() {
    let start = ruled("Lusail", QATAR, 8);
    let all = candidates(&start, 0);
    assert!(all.iter().any(|c| c.kind == Kind::Schedule), "{all:?}");
    for c in &all {
        let mut laps: Vec<i32> = c.stops.iter().map(|s| s.0).collect();
        assert!(laps.first().is_none_or(|lap| *lap <= 18), "{}", c.name);
        if c.plan.only == 1 {
            laps.push(57);
            assert!(laps.windows(2).all(|l| l[1] - l[0] <= 18), "{}", c.name);
        }
    }
    let start = ruled("Monte Carlo", MONACO, 8);
    let all = candidates(&start, 0);
    let closed = || all.iter().filter(|c| c.plan.only == 1);
    assert!(closed().count() > 5 && closed().all(|c| c.stops.len() >= 2));
    // One that has stopped already needs one more; two are enough.
    let after = |changes: u16| {
        let mut start = start.clone();
        (start.cars[0].changes, start.cars[0].used) = (changes, 0b110);
        let all = candidates(&start, 0);
        let closed = all.iter().filter(|c| c.plan.only == 1);
        closed.map(|c| c.stops.len()).min()
    };
    assert_eq!((after(1), after(2)), (Some(1), Some(0)));
}

#[test]
fn a_rule_that_forces_a_stop_is_obeyed_and_said() {
    let p = Parameters::shipped();
    let ask = |start: &Start| {
        advise(
            start,
            &p,
            Question {
                car: 3,
                races: 64,
                seed: 1,
            },
        )
    };
    // On a set that has done 17 of 18 laps, and on one that is far beyond them.
    for lap in [17, 30] {
        let advice = ask(&ruled("Lusail", QATAR, lap)).unwrap();
        assert!(
            advice
                .plans
                .iter()
                .all(|p| p.candidate.kind == Kind::BoxNow)
        );
        let said = "The rule of 18 laps a set takes this set";
        assert!(advice.reason.contains(said), "{}", advice.reason);
        assert!(advice.reason.contains("at the end of this lap"));
        assert_eq!(advice.rules, QATAR);
    }
    let monaco = |lap: u16, changes: u16| {
        let mut start = ruled("Monte Carlo", MONACO, lap);
        for car in &mut start.cars {
            (car.age, car.used, car.changes) = (9, 0b110, changes);
        }
        ask(&start)
    };
    let laps = p.circuit("Monte Carlo").laps;
    let advice = monaco(laps - 2, 1).unwrap();
    assert!(
        advice.recommended.starts_with("box now"),
        "{}",
        advice.reason
    );
    let said = "The rule of 2 stops asks for 1 more, and this lap is the last to begin on";
    assert!(advice.reason.contains(said), "{}", advice.reason);
    assert!(
        monaco(40, 0)
            .unwrap()
            .reason
            .contains("The rule of 2 stops asks for 2 more")
    );
    assert!(!monaco(40, 2).unwrap().reason.contains("rule"));
    // Nobody can make two stops on one lap, and that is no advice.
    let refused = monaco(laps - 2, 0).unwrap_err();
    assert_eq!(
        refused,
        PlannerError::Illegal(Illegal::NoLapsForStops {
            car: 4,
            asked: 2,
            owed: 2,
            possible: 1
        })
    );
}

#[test]
fn a_plan_from_outside_that_breaks_a_rule_is_refused() {
    let p = Parameters::shipped();
    let mut start = ruled("Lusail", QATAR, 5);
    let one_stop = Plan {
        stops: [Stop {
            lap: 20,
            compound: 2,
        }; 4],
        count: 1,
        only: 1,
        ..Plan::default()
    };
    start.cars[7].plan = one_stop;
    let question = Question {
        car: 3,
        races: 64,
        seed: 1,
    };
    let said = advise(&start, &p, question).unwrap_err().to_string();
    for part in ["car 8", "18 laps a set by 2", "lap 20 has done 20"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    start.rules = Rules::default();
    let free = advise(&start, &p, question).unwrap();
    assert!(!free.reason.contains("rule"));
    // The answer of a race without rules says nothing of them.
    assert!(serde_json::to_value(&free).unwrap().get("rules").is_none());
}

#[test]
fn any_field_anywhere_in_any_weather_gets_an_answer() {
    let p = Parameters::shipped();
    for (circuit, cars, level, lap) in [
        ("", 24, 0, 0),
        ("Madring", 22, 1, 3),
        ("Monte Carlo", 22, 2, 70),
        ("Sakhir", 1, 0, 55),
    ] {
        let mut start = Start::grid(&p, circuit, None, &grid(cars));
        (start.level, start.lap) = (level, lap.min(start.laps - 1));
        for car in &mut start.cars {
            car.compound = if level > 0 { level + 2 } else { car.compound };
            car.used |= 1 << car.compound;
        }
        let advice = advise(
            &start,
            &p,
            Question {
                car: usize::from(cars) - 1,
                races: 64,
                seed: 2,
            },
        )
        .unwrap();
        assert!(!advice.reason.is_empty());
        let terms = Terms {
            car: 0,
            compound: 2,
            races: 32,
            seed: 2,
        };
        board(&start, &p, terms).unwrap();
    }
}

/// Laps 1 to `done` of a car that takes `lap_s` for each, from `grid_s` on.
fn laps(done: u16, lap_s: f64, grid_s: f64) -> Vec<DrivenLap> {
    (1..=done)
        .map(|n| DrivenLap {
            number: n,
            time_s: Some(lap_s),
            ended_s: Some(grid_s + lap_s * f64::from(n)),
            compound: Some(1),
            age: Some(n),
            clean: n > 1,
        })
        .collect()
}

#[test]
fn a_moment_becomes_a_start() {
    let p = Parameters::shipped();
    let car = |number: u8, laps: Vec<DrivenLap>| CarHistory {
        number,
        running: true,
        laps,
        ..CarHistory::default()
    };
    let mut cars = vec![
        car(1, laps(20, 97.0, 0.0)),
        car(2, laps(20, 97.3, 1.0)),
        // A lap down: it has done 19 when the leader has done 20.
        car(3, laps(19, 102.0, 2.0)),
        // Out since lap 5.
        car(4, laps(5, 97.0, 3.0)),
        // In the pits, its new tyres not shown yet; never close behind or ahead of car 2.
        car(5, laps(20, 97.2, 9.0)),
    ];
    cars[3].running = false;
    cars[4].in_pit = true;
    cars[0].team = "Red Bull Racing".to_owned();
    let moment = Moment {
        circuit: "Sakhir".to_owned(),
        lap: 20,
        cars,
        ..Moment::default()
    };
    let start = Start::at(&p, &moment);
    assert_eq!((start.laps, start.lap, start.level), (57, 20, 0));
    let [one, two, three, four, five] = start.cars.as_slice() else {
        panic!("five cars went in");
    };
    assert_eq!(one.behind_s, 0.0);
    assert!((two.behind_s - (1.0 + 20.0 * 0.3)).abs() < 1e-6);
    // 19 laps of 102 s and one more such lap, give or take what it believes of its pace.
    assert!((three.behind_s - 102.0).abs() < 3.0, "{}", three.behind_s);
    assert!(!four.running);
    let out = p.circuit("Sakhir").out_loss_s;
    assert!((five.behind_s - (9.0 + 20.0 * 0.2 + out)).abs() < 1e-6);
    assert_eq!((five.compound, five.age, five.used), (2, 0, 0b110));
    assert_eq!((one.changes, five.changes), (0, 1));
    assert_eq!((one.stop_s, two.stop_s), (p.stop_s("Red Bull Racing"), 0.0));
    // Pace: what it would do on its present tyres, from its laps; the first few were driven in dirty air.
    let now =
        |e: &crate::strategy::model::Entrant| e.pace_s + e.slope_s.unwrap() * f64::from(e.age);
    let slower = now(two) - now(one);
    assert!((0.1..0.7).contains(&slower), "{slower}: {one:?} {two:?}");
    start.problem(&p).unwrap();
    // The grid of a race that nobody has seen.
    let grid = Moment {
        cars: (1..=22)
            .map(|n| CarHistory {
                number: n,
                grid: Some(n),
                running: true,
                ..CarHistory::default()
            })
            .collect(),
        ..Moment::default()
    };
    let start = Start::at(&p, &grid);
    assert_eq!(start.lap, 0);
    assert!(start.cars.windows(2).all(|c| c[0].behind_s < c[1].behind_s));
    start.problem(&p).unwrap();
}
