//! A simulated race through the stages, on the CPU; what they shed; what they are asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::telemetry::{HOLD, ROW};
use super::thread::{Engine, Options};
use super::*;
use crate::compute::{Choice, Processor};
use crate::insight::strategist::{MOST_ASKERS, NoAnswer};
use crate::journal::{self, Journal};
use crate::live::Snapshot;
use crate::predict::{Models, Scores};
use crate::race::Race;
use crate::record::{CarData, Entry, Record, decode};
use crate::simulator::circuit::{CIRCUITS, Line};
use crate::simulator::{FrameOptions, Incidents, Options as Simulated, Rain, Simulator};
use crate::strategy::model::Start;
use crate::strategy::moment::Moment;
use crate::strategy::parameters::Parameters;
use crate::strategy::planner::{Question, advise};
use crate::strategy::rules::Told;

const CARS: u8 = 6;

fn race_of(laps: u16, frames: Option<FrameOptions>) -> impl Iterator<Item = Entry> {
    let options = Simulated {
        laps: Some(laps),
        cars: CARS,
        dirt: 0.0,
        rain: Rain::Dry,
        incidents: Incidents::None,
        frames,
        ..Simulated::new(&CIRCUITS[0])
    };
    let messages = Simulator::new(options).unwrap();
    messages.filter_map(|m| Some(decode(&m.topic, &m.payload).ok()?.entry))
}

fn snapshot(seq: u64, race: &Race) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        seq,
        race: race.clone(),
        laptime: BTreeMap::new(),
        pit: BTreeMap::new(),
        order: None,
        scores: Scores::default(),
        predictor: (String::new(), "cpu"),
        models: Models::none(),
        laps: None,
    })
}

fn worker(options: Options) -> (Worker, Outlets, Strategist) {
    let (outlets, strategist) = (Outlets::default(), Strategist::default());
    let engine = Engine::new(Choice::Cpu);
    let worker = Worker::new(options, outlets.clone(), strategist.clone(), engine);
    (worker, outlets, strategist)
}

/// Drives a race past a worker, which looks at it every few seconds.
fn drive(worker: &mut Worker, entries: impl Iterator<Item = Entry>) -> Race {
    let mut race = Race::new();
    for (seq, entry) in (0..).zip(entries) {
        race.apply(seq, &entry);
        worker.take(&entry.record);
        if seq % 200 == 199 {
            worker.tick();
            worker.look(&snapshot(seq + 1, &race));
        }
    }
    worker.look(&snapshot(u64::MAX, &race));
    race
}

#[test]
fn laps_are_taken_apart_compared_and_fitted() {
    let (mut worker, outlets, _) = worker(Options::default());
    let mut news = outlets.news.subscribe();
    let race = drive(&mut worker, race_of(14, None));
    let mut laps = Vec::new();
    let mut stints = 0;
    while let Ok(insight) = news.try_recv() {
        match insight {
            Insight::Lap(lap) => laps.push(lap),
            Insight::Stint(_) => stints += 1,
            _ => {}
        }
    }
    assert!(laps.len() > usize::from(CARS) * 4, "{} laps", laps.len());
    assert!(stints > usize::from(CARS), "{stints} fits");
    let length = Line::of(&CIRCUITS[0]).length;
    let mut compared = 0;
    for lap in laps.iter().filter(|l| l.lap_number > 1 && l.known == 1.0) {
        let off = (f64::from(lap.length_m) - length).abs() / length;
        assert!(
            off < 0.03,
            "lap of {} m, circuit of {length} m",
            lap.length_m
        );
        let shares = lap.full_throttle + lap.braking + lap.coasting;
        assert!(
            (0.05..1.0).contains(&shares) && lap.braking > 0.02,
            "{lap:?}"
        );
        assert!(
            lap.top_speed > lap.mean_speed && lap.mean_speed > lap.least_speed,
            "{lap:?}"
        );
        assert!(lap.gear_changes > 10.0 && lap.minis_s.len() == laps::MINIS);
        let time = |(car, n): (u8, u16)| race.car(car)?.lap(n)?.duration;
        let own = time((lap.driver_number, lap.lap_number)).unwrap();
        let minis: f64 = lap.minis_s.iter().map(|s| f64::from(*s)).sum();
        assert!(
            (minis - own).abs() < 0.01,
            "minis of {minis} s, a lap of {own} s"
        );
        let Some(other) = lap.against.and_then(time) else {
            continue;
        };
        compared += 1;
        let delta = f64::from(*lap.delta_s.last().unwrap());
        assert!(
            (delta - (own - other)).abs() < 0.01,
            "{delta} s, {own} s against {other} s"
        );
    }
    assert!(compared > usize::from(CARS) * 2, "{compared} compared");
    // Of the laps of one look nobody else was faster in a mini-sector; all were taken at first.
    let taken: usize = laps.iter().map(|l| l.fastest_in.len()).sum();
    assert!(taken >= laps::MINIS, "{taken}");
    let latest = outlets.latest.borrow();
    assert_eq!(
        (latest.lap.len(), latest.stint.len()),
        (CARS.into(), CARS.into())
    );
    for stint in latest.stint.values() {
        assert!(
            stint.laps >= 3 && stint.wear_s.abs() < 0.5 && stint.scatter_s > 0.0,
            "{stint:?}"
        );
    }
}

#[test]
fn frames_tell_of_laps_as_car_data_does() {
    let frames = FrameOptions {
        channels: 5,
        ..FrameOptions::at(100)
    };
    let (mut worker, outlets, _) = worker(Options::default());
    drive(&mut worker, race_of(3, Some(frames)));
    let latest = outlets.latest.borrow();
    assert_eq!(latest.lap.len(), usize::from(CARS));
    for lap in latest.lap.values() {
        // 50 a second of a lap of more than a minute.
        assert!(lap.samples > 3_000, "{} samples", lap.samples);
        assert!(lap.known > 0.99 && lap.braking > 0.02, "{lap:?}");
    }
}

fn sample(driver_number: u8, n: i64, rpm: Option<i16>) -> CarData {
    CarData {
        meeting_key: 1,
        session_key: 9,
        driver_number,
        date: Time::from_millis(1_700_000_000_000 + 270 * n),
        rpm,
        speed: Some(200),
        n_gear: Some(7),
        throttle: Some(100),
        brake: Some(0),
        drs: None,
    }
}

#[test]
fn a_limit_is_broken_by_rows_in_a_row_and_by_no_wild_sample() {
    let limits = vec![
        Limit {
            channel: "rpm".into(),
            is_upper: true,
            limit: 12_000.0,
        },
        Limit {
            channel: "rpm".into(),
            is_upper: false,
            limit: 4_000.0,
        },
        Limit {
            channel: "never_sent".into(),
            is_upper: true,
            limit: -1.0,
        },
    ];
    let mut telemetry = telemetry::Telemetry::new(limits);
    let mut ticker = Processor::Cpu.ticker();
    let mut n = 0;
    let mut tick = |rpm: Option<i16>| {
        n += 1;
        telemetry.car_data(&sample(1, n, Some(9_000)));
        telemetry.car_data(&sample(44, n, rpm));
        assert!(telemetry.is_due());
        let (by, alerts) = telemetry.tick(n as u64, &mut ticker).unwrap();
        assert_eq!((by, telemetry.is_due()), (By::Cpu, false));
        alerts
    };
    // Wild samples, missing ones and a limit that is just kept say nothing.
    for rpm in [
        Some(9_000),
        Some(20_000),
        Some(0),
        None,
        Some(12_000),
        Some(12_500),
        Some(9_000),
    ] {
        assert_eq!(tick(rpm), []);
    }
    let mut said = Vec::new();
    for _ in 0..3 * HOLD {
        said.extend(tick(Some(12_500)));
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].broken && said[0].driver_number == 44 && said[0].limit.is_upper);
    assert_eq!((said[0].seen, said[0].origin.session_key), (12_500.0, 9));
    for _ in 0..2 * HOLD {
        said.extend(tick(Some(3_000)));
    }
    // Kept again above, and broken below.
    let told: Vec<_> = said.iter().map(|a| (a.broken, a.limit.is_upper)).collect();
    assert!(
        told[1..].contains(&(false, true)) && told[1..].contains(&(true, false)),
        "{told:?}"
    );
    assert_eq!(told.len(), 3);
    assert_eq!(telemetry.statistics(44, "rpm"), Some([3_000.0; 4]));
    assert_eq!(telemetry.statistics(44, "oil"), None);
}

#[test]
fn more_samples_than_a_row_holds_leave_the_newest() {
    let mut telemetry = telemetry::Telemetry::new(Vec::new());
    for n in 0..2 * ROW as i64 {
        telemetry.car_data(&sample(1, n, Some(n as i16)));
    }
    telemetry.tick(0, &mut Processor::Cpu.ticker()).unwrap();
    let [least, greatest, ..] = telemetry.statistics(1, "rpm").unwrap();
    assert_eq!((least, greatest), (ROW as f32, 2.0 * ROW as f32 - 1.0));
}

#[test]
fn who_is_far_behind_goes_on_with_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Journal::open(dir.path(), journal::Options::default(), &mut |_| ()).unwrap();
    let (mut worker, ..) = worker(Options::default());
    let entries = |from: i64, to: i64| -> Vec<Entry> {
        let one = |n| Record::CarData(sample(1, n, Some(1))).into();
        (from..to).map(one).collect()
    };
    records.append(entries(0, 1_000));
    records.commit().unwrap();
    let reader = records.reader();
    assert!(worker.read(&reader));
    assert_eq!(worker.next(), 1_000);
    assert!(!worker.read(&reader));
    let many = MOST_BEHIND as i64 + 5_000;
    records.append(entries(1_000, 1_000 + many));
    records.commit().unwrap();
    // One batch, and it is at the end: what lay between was shed.
    assert!(worker.read(&reader));
    assert_eq!(worker.next(), reader.next_seq());
}

#[tokio::test]
async fn a_question_is_answered_as_the_planner_does() {
    let (mut worker, outlets, strategist) = worker(Options {
        cars: vec![3],
        ..Options::default()
    });
    let mut race = Race::new();
    for (seq, entry) in (0..).zip(race_of(20, None)) {
        race.apply(seq, &entry);
        worker.take(&entry.record);
        if race.leader_laps_completed() == 16 {
            break;
        }
    }
    let now = snapshot(77, &race);
    worker.look(&now);
    let parameters = Parameters::shipped();
    let thread = {
        let (strategist, outlets) = (strategist.clone(), outlets.clone());
        std::thread::spawn(move || {
            strategist.run(&Parameters::shipped(), Told::default(), &outlets, || {
                Processor::Cpu
            });
        })
    };
    let number = race.order()[1].driver_number;
    let answer = strategist.ask(Arc::clone(&now), number).await.unwrap();
    let start = Start::at(&parameters, &Moment::of(&race, None));
    let question = Question {
        car: start.cars.iter().position(|c| c.number == number).unwrap(),
        races: answer.races,
        seed: answer.seed,
    };
    let expected = advise(&start, &parameters, question).unwrap();
    assert_eq!(answer.advice.recommended, expected.recommended);
    assert_eq!(
        answer.advice.plans[..],
        expected.plans[..answer.advice.plans.len()]
    );
    assert_eq!((answer.origin.seq, answer.origin.backend), (77, By::Cpu));
    assert_eq!(answer.network, None);
    // The same with the shipped network beside it: Monte Carlo's advice stands, and the network's is the command's.
    let engines = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
    let models = Models::load(&engines).unwrap();
    let policy = models.policy.clone().expect("the network is shipped");
    let with_network = Arc::new(Snapshot {
        models,
        ..Snapshot::clone(&now)
    });
    let second = strategist.ask(with_network, number).await.unwrap();
    assert_eq!(second.advice, answer.advice);
    let own = policy.opinion(&start, &parameters, question.car, Some(&expected));
    assert_eq!(second.network, Some(own.unwrap()));
    let said = serde_json::to_value(&*second).unwrap();
    let agrees = said["network"]["agrees"].as_bool().unwrap();
    assert_eq!(
        agrees,
        said["network"]["boxes"] == answer.advice.recommended.starts_with("box now")
    );
    let word = if agrees { "agrees" } else { "disagrees" };
    let reason = said["network"]["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("Monte Carlo {word}")), "{reason}");
    // Taken away again: from the next snapshot on there is none.
    let third = strategist.ask(Arc::clone(&now), number).await.unwrap();
    assert_eq!(third.network, None);
    assert_eq!(strategist.ask(now, 98).await, Err(NoAnswer::NoCar(98)));
    // It is there for all to see.
    assert!(outlets.latest.borrow().strategy.contains_key(&number));
    strategist.stop();
    thread.join().unwrap();
}

#[tokio::test]
async fn rules_that_are_told_are_those_of_the_answer() {
    let told = Told {
        min_stops: Some(2),
        longest_stint_laps: Some(18),
    };
    let strategist = Strategist::default();
    let thread = {
        let (strategist, outlets) = (strategist.clone(), Outlets::default());
        std::thread::spawn(move || {
            strategist.run(&Parameters::shipped(), told, &outlets, || Processor::Cpu);
        })
    };
    let mut race = Race::new();
    for (seq, entry) in (0..).zip(race_of(20, None)) {
        race.apply(seq, &entry);
        if race.leader_laps_completed() == 8 {
            break;
        }
    }
    let number = race.order()[1].driver_number;
    let answer = strategist.ask(snapshot(1, &race), number).await.unwrap();
    let mut start = Start::at(&Parameters::shipped(), &Moment::of(&race, None));
    assert!(start.rules.is_none());
    start.rules = told.over(start.rules);
    let question = Question {
        car: start.cars.iter().position(|c| c.number == number).unwrap(),
        races: answer.races,
        seed: answer.seed,
    };
    let expected = advise(&start, &Parameters::shipped(), question).unwrap();
    assert_eq!(answer.advice.rules, start.rules);
    assert_eq!(answer.advice.reason, expected.reason);
    assert!(
        answer
            .advice
            .reason
            .contains("The rule of 2 stops asks for 2 more")
    );
    strategist.stop();
    thread.join().unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_strategist_that_has_too_much_to_do() {
    let strategist = Strategist::default();
    let now = snapshot(1, &Race::new());
    for _ in 0..3 {
        strategist.consider(&now, &[1, 2, 1]);
    }
    assert_eq!(strategist.waiting(), 2);
    let asking: Vec<_> = (0..MOST_ASKERS)
        .map(|_| {
            let (strategist, now) = (strategist.clone(), Arc::clone(&now));
            tokio::spawn(async move { strategist.ask(now, 1).await })
        })
        .collect();
    while strategist.askers() < MOST_ASKERS {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        strategist.ask(Arc::clone(&now), 1).await,
        Err(NoAnswer::Busy)
    );
    strategist.stop();
    for one in asking {
        assert_eq!(one.await.unwrap(), Err(NoAnswer::Stopping));
    }
    // No race: said so, by a strategist that works.
    let strategist = Strategist::default();
    let outlets = Outlets::default();
    let thread = {
        let strategist = strategist.clone();
        std::thread::spawn(move || {
            strategist.run(&Parameters::shipped(), Told::default(), &outlets, || {
                Processor::Cpu
            });
        })
    };
    assert_eq!(strategist.ask(now, 1).await, Err(NoAnswer::NoRace));
    strategist.stop();
    thread.join().unwrap();
}
