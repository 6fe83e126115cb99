//! By hand: small races whose answers one can tell; and, over random views, that nothing published is
//! ever improper.

use proptest::prelude::*;

use super::distance::LapKm;
use super::*;
use crate::predict::view::{CarView, LapView};
use crate::race::{CarStatus, Compound, SessionType};

/// When the made-up races start.
fn start() -> Time {
    Time::from_millis(1_700_000_000_000)
}

/// A car that has driven laps of those times (s) without a stop.
fn car(number: u8, times: &[f64]) -> CarView {
    let mut at = start().plus_seconds(f64::from(number) * 1.0);
    let laps = times.iter().enumerate().map(|(i, time)| {
        let started = at;
        at = at.plus_seconds(*time);
        LapView {
            number: i as u16 + 1,
            started: Some(started),
            ended: Some(at),
            time_s: Some(*time),
            sectors: [Some(0.3 * time), Some(0.4 * time), Some(0.3 * time)],
            statuses: 1,
            compound: Compound::Medium,
            age: Some(i as u16 + 1),
            ..LapView::default()
        }
    });
    CarView {
        number,
        grid: Some(number),
        position: Some(number),
        qualifying_s: Some(88.0 + 0.1 * f64::from(number)),
        laps: laps.collect(),
        ..CarView::default()
    }
}

fn view(cars: Vec<CarView>) -> View {
    let clock = cars
        .iter()
        .filter_map(|c| c.last()?.ended)
        .max()
        .unwrap_or(start());
    View {
        session_key: 1,
        session_type: SessionType::Race,
        circuit: "Sakhir".into(),
        started: Some(start()),
        clock,
        cars,
        ..View::default()
    }
}

/// Ten cars, `n` laps of about 95 s each.
fn race(n: usize) -> View {
    let times = |k: u8| -> Vec<f64> {
        let opening = if n > 0 { vec![102.0] } else { vec![] };
        opening
            .into_iter()
            .chain((1..n).map(|i| 95.0 + 0.05 * f64::from(k) + 0.02 * (i % 3) as f64))
            .collect()
    };
    view((1..=10).map(|k| car(k, &times(k))).collect())
}

fn events(list: &[Event]) -> Events {
    let mut events = Events::new();
    for event in list {
        events.push(*event).unwrap();
    }
    events
}

fn lap_of(view: &View, number: u8, sectors: u8) -> Option<laptime::Forecast> {
    let floor = Floor::shipped();
    let distance = Distance::of(view, &floor, LapKm::Unknown, 0.0);
    laptime::predict(view, view.car(number).unwrap(), &distance, &floor, sectors)
}

#[test]
fn a_steady_car_is_predicted_to_stay_steady() {
    let f = lap_of(&race(12), 4, 0).unwrap();
    assert_eq!((f.lap, f.sectors_known), (13, 0));
    assert!((f.lap_time.p50 - 95.2).abs() < 0.15, "{:?}", f.lap_time);
    assert!(
        f.lap_time.p10 > 94.5 && f.lap_time.p90 < 96.5,
        "{:?}",
        f.lap_time
    );
}

#[test]
fn a_slow_first_sector_moves_the_prediction_and_narrows_it() {
    let mut v = race(12);
    let before = lap_of(&v, 4, 0).unwrap().lap_time;
    let last = *v.cars[3].last().unwrap();
    let mut current = LapView {
        number: 13,
        started: last.ended,
        ended: None,
        time_s: None,
        ..last
    };
    current.sectors = [last.sectors[0].map(|s| s + 2.0), None, None];
    v.cars[3].current = Some(current);
    let after = lap_of(&v, 4, 1).unwrap().lap_time;
    assert!(
        (1.5..2.6).contains(&(after.p50 - before.p50)),
        "{before:?} {after:?}"
    );
    assert!(after.p90 - after.p10 < before.p90 - before.p10);
    assert!(lap_of(&v, 4, 2).is_none(), "sector 2 is not known");
}

#[test]
fn an_out_lap_costs_what_the_pit_exit_costs() {
    let mut v = race(12);
    let normal = lap_of(&v, 4, 0).unwrap().lap_time;
    v.cars[3].laps.last_mut().unwrap().is_in = true;
    let out = lap_of(&v, 4, 0).unwrap().lap_time;
    let loss = Floor::shipped().circuit("Sakhir").unwrap().out_loss_s;
    assert!(
        (out.p50 - normal.p50 - loss).abs() < 2.0,
        "{normal:?} {out:?} {loss}"
    );
}

#[test]
fn safety_car_laps_are_slow_and_red_ones_are_not_predicted() {
    let mut v = race(12);
    v.status = TrackStatus::SafetyCar;
    assert!(lap_of(&v, 4, 0).unwrap().lap_time.p50 > 115.0);
    v.status = TrackStatus::VirtualSafetyCar;
    let p50 = lap_of(&v, 4, 0).unwrap().lap_time.p50;
    assert!((98.0..130.0).contains(&p50), "{p50}");
    v.status = TrackStatus::Red;
    assert_eq!(lap_of(&v, 4, 0), None);
}

#[test]
fn the_first_laps_come_from_qualifying() {
    let f = lap_of(&race(0), 4, 0).unwrap();
    assert_eq!(f.lap, 1);
    assert!((95.0..112.0).contains(&f.lap_time.p50), "{f:?}");
    let f = lap_of(&race(1), 4, 0).unwrap();
    assert!((92.0..101.0).contains(&f.lap_time.p50), "{f:?}");
    let mut v = race(0);
    v.cars.iter_mut().for_each(|c| c.qualifying_s = None);
    assert_eq!(lap_of(&v, 4, 0), None);
}

#[test]
fn nothing_is_predicted_outside_races() {
    for kind in [
        SessionType::Practice,
        SessionType::Qualifying,
        SessionType::SprintQualifying,
        SessionType::Unknown,
    ] {
        let mut v = race(12);
        v.session_type = kind;
        let all = events(&[
            Event::SessionStarted,
            Event::LapCompleted {
                driver_number: 1,
                lap: 12,
            },
        ]);
        assert!(
            Predictor::new(Floor::shipped())
                .observe_view(&v, 1, &all)
                .is_empty()
        );
    }
}

#[test]
fn nothing_is_predicted_after_the_last_lap() {
    let v = race(57);
    assert_eq!(lap_of(&v, 1, 0), None);
    let floor = Floor::shipped();
    let distance = Distance::of(&v, &floor, LapKm::Unknown, 0.0);
    assert_eq!(distance.laps, 57);
    assert_eq!(order::predict(&v, &distance, &floor), None);
}

fn order_of(view: &View) -> order::Finish {
    let floor = Floor::shipped();
    order::predict(
        view,
        &Distance::of(view, &floor, LapKm::Unknown, 0.0),
        &floor,
    )
    .unwrap()
}

#[test]
fn a_leader_near_the_end_is_surer_of_the_win_than_one_at_the_start() {
    let p_win = |laps| {
        order_of(&race(laps))
            .cars
            .iter()
            .find(|c| c.driver_number == 1)
            .unwrap()
            .p_win
    };
    let (early, late) = (p_win(5), p_win(55));
    assert!(late > 0.7 && 2.0 * early < late, "{early} {late}");
}

#[test]
fn the_retired_take_the_last_places_the_furthest_first() {
    let mut v = race(20);
    v.cars[0].status = CarStatus::Retired;
    v.cars[4].status = CarStatus::Retired;
    v.cars[4].laps.truncate(3);
    let finish = order_of(&v);
    let places: Vec<u8> = finish.cars.iter().map(|c| c.driver_number).collect();
    assert_eq!(&places[8..], &[1, 5]);
    assert_eq!(finish.cars[8].p_retirement, 1.0);
    assert_eq!(finish.cars[9].positions[9], 1.0);
}

fn stop_of(view: &View, number: u8) -> Option<pit::Stop> {
    let floor = Floor::shipped();
    pit::predict(
        view,
        view.car(number).unwrap(),
        &Distance::of(view, &floor, LapKm::Unknown, 0.0),
        &floor,
    )
}

#[test]
fn old_tyres_and_a_safety_car_call_for_a_stop() {
    let (young, old) = (
        stop_of(&race(6), 4).unwrap(),
        stop_of(&race(24), 4).unwrap(),
    );
    assert!(old.within[1] > 2.0 * young.within[1], "{young:?} {old:?}");
    assert!(young.p_stop > 0.9, "two compounds are the rule: {young:?}");
    let mut v = race(24);
    v.status = TrackStatus::SafetyCar;
    assert!(stop_of(&v, 4).unwrap().within[0] > 3.0 * old.within[0]);
    assert!(
        old.reason
            .starts_with("tyres 24 laps old on MEDIUM; typical stint here "),
        "{}",
        old.reason
    );
    assert!(
        old.reason.contains("undercut threat from 5"),
        "{}",
        old.reason
    );
}

#[test]
fn no_stop_on_the_last_lap() {
    let last = stop_of(&race(56), 4).unwrap();
    assert_eq!(
        (last.p_stop, last.within, last.in_lap),
        (0.0, [0.0; 4], None)
    );
    assert!(stop_of(&race(55), 4).unwrap().p_stop > 0.0);
}

#[test]
fn the_other_compound_is_taken_when_the_rule_asks_for_it() {
    assert_eq!(stop_of(&race(22), 4).unwrap().compounds[0].compound, "HARD");
    // One stop to come and the rule open: the same compound once more is no answer.
    let late = stop_of(&race(40), 4).unwrap();
    assert!(
        late.compounds.iter().all(|c| c.compound != "MEDIUM"),
        "{:?}",
        late.compounds
    );
    assert!(late.compounds[0].probability > 0.4);
}

#[test]
fn each_lap_is_predicted_once_and_graded_once() {
    let mut predictor = Predictor::new(Floor::shipped());
    let done = |lap| {
        events(&[Event::LapCompleted {
            driver_number: 4,
            lap,
        }])
    };
    let made = predictor.observe_view(&race(12), 7, &done(12));
    assert_eq!(
        made.iter().map(Prediction::name).collect::<Vec<_>>(),
        ["laptime", "pit", "race"]
    );
    assert!(
        made.iter()
            .all(|p| p.seq() == 7 && p.provenance().model == MODEL)
    );
    assert!(
        predictor.observe_view(&race(12), 8, &done(12)).is_empty(),
        "said before"
    );
    predictor.observe_view(&race(13), 9, &done(13));
    let lap = predictor.scores().laptime.clean[0];
    assert_eq!(
        (lap.count, predictor.scores().laptime.baseline[0].count),
        (1, 1)
    );
    assert!(lap.mae().unwrap() < 0.2);
    let mut end = race(14);
    end.finished = true;
    predictor.observe_view(&end, 10, &events(&[Event::SessionFinished]));
    // Lap 14 and the stops after laps 12 and 13 were still open; no order was made at a graded moment
    // but the first at or after 0 %, which only the grid may fill.
    assert_eq!(
        (
            predictor.scores().laptime.ungraded,
            predictor.scores().pit.ungraded
        ),
        (1, 2)
    );
}

#[test]
fn a_stop_is_graded_three_laps_later() {
    let mut predictor = Predictor::new(Floor::shipped());
    for lap in 12..=16u16 {
        let mut v = race(usize::from(lap));
        if lap >= 14 {
            v.cars[3].laps[13].is_in = true;
        }
        predictor.observe_view(
            &v,
            u64::from(lap),
            &events(&[Event::LapCompleted {
                driver_number: 4,
                lap,
            }]),
        );
    }
    // After lap 12: in-lap 14 is within two; after lap 13: too. Lap 14's own prediction does not exist.
    let pit = &predictor.scores().pit;
    assert_eq!((pit.within_2.count(), pit.within_2.rate()), (2, Some(1.0)));
    assert_eq!((pit.compounds_named, pit.compounds_right), (1, 0));
}

#[test]
fn the_order_is_graded_at_the_flag() {
    let mut predictor = Predictor::new(Floor::shipped());
    predictor.observe_view(&race(0), 0, &events(&[Event::SessionStarted]));
    for lap in [15u16, 29, 43] {
        predictor.observe_view(
            &race(usize::from(lap)),
            u64::from(lap),
            &events(&[Event::LapCompleted {
                driver_number: 1,
                lap,
            }]),
        );
    }
    let mut end = race(57);
    end.cars
        .iter_mut()
        .for_each(|c| c.status = CarStatus::Finished);
    predictor.observe_view(&end, 99, &events(&[Event::SessionFinished]));
    for at in &predictor.scores().race.at {
        assert_eq!(
            (at.model.races, at.current_order.podium_overlap()),
            (1, Some(3.0))
        );
        assert_eq!(at.grid.log_loss_win().map(|l| l < 1e-9), Some(true));
        assert!(at.model.podium_overlap() == Some(3.0) && at.model.brier_top3() < Some(0.15));
    }
    assert!(
        predictor
            .observe_view(
                &end,
                100,
                &events(&[Event::LapCompleted {
                    driver_number: 1,
                    lap: 57
                }])
            )
            .is_empty()
    );
}

#[test]
fn another_session_starts_from_nothing() {
    let mut predictor = Predictor::new(Floor::shipped());
    let lap = events(&[Event::LapCompleted {
        driver_number: 4,
        lap: 12,
    }]);
    predictor.observe_view(&race(12), 1, &lap);
    let mut other = race(12);
    other.session_key = 2;
    assert!(!predictor.observe_view(&other, 2, &lap).is_empty());
    assert_eq!(predictor.scores(), &Scores::default());
}

/// Time, sectors, in-lap, out-lap, statuses, compound, age.
type AnyLap = (
    Option<f64>,
    [Option<f64>; 3],
    bool,
    bool,
    u8,
    u8,
    Option<u16>,
);

/// A lap of anything: times from absurd to normal, flags at random.
fn any_lap() -> impl Strategy<Value = AnyLap> {
    (
        prop::option::weighted(
            0.9,
            prop_oneof![8 => 70.0f64..130.0, 1 => 0.001f64..5.0, 1 => 130.0f64..3000.0],
        ),
        [
            prop::option::of(0.1f64..900.0),
            prop::option::of(0.1f64..900.0),
            prop::option::of(0.1f64..900.0),
        ],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        0u8..128,
        0u8..6,
        prop::option::of(0u16..80),
    )
}

fn any_compound(k: u8) -> Compound {
    *floor::COMPOUNDS
        .get(usize::from(k))
        .unwrap_or(&Compound::Unknown)
}

prop_compose! {
    fn any_car(number: u8)(
        laps in prop::collection::vec(any_lap(), 0..45),
        grid in prop::option::of(1u8..30),
        qualifying_s in prop::option::of(60.0f64..130.0),
        position in prop::option::of(1u8..30),
        status in 0u8..6,
        gap_s in prop::option::of(-5.0f64..500.0),
        late in -50i64..500,
    ) -> CarView {
        let status = [CarStatus::OnTrack, CarStatus::InPit, CarStatus::Retired, CarStatus::Finished,
            CarStatus::NotStarted, CarStatus::Disqualified][usize::from(status)];
        let mut at = start().plus_seconds(late as f64);
        let mut all: Vec<LapView> = laps.iter().enumerate().map(|(i, (time_s, sectors, is_in, is_out, statuses, compound, age))| {
            let started = at;
            at = at.plus_seconds(time_s.unwrap_or(90.0));
            LapView {
                number: i as u16 + 1, started: Some(started), ended: time_s.map(|_| at), time_s: *time_s, sectors: *sectors,
                is_in: *is_in, is_out: *is_out, statuses: if *statuses < 64 { 1 } else { *statuses }, compound: any_compound(*compound),
                age: *age, stint: (i / 15) as u8,
            }
        }).collect();
        let current = all.pop();
        CarView { number, driver: Default::default(), team: Default::default(), grid, qualifying_s, position, status, gap_s, laps: all, current, official: None }
    }
}

prop_compose! {
    fn any_view()(
        cars in (0usize..14).prop_flat_map(|n| (1..=n as u8).map(any_car).collect::<Vec<_>>()),
        status in 0usize..7,
        sprint in any::<bool>(),
        circuit in prop_oneof![Just("Sakhir"), Just("Monte Carlo"), Just("Nowhere"), Just("")],
        raining in any::<bool>(),
    ) -> View {
        use TrackStatus::{Chequered, Clear, Red, SafetyCar, VirtualSafetyCar, VirtualSafetyCarEnding, Yellow};
        View {
            status: [Clear, Yellow, SafetyCar, VirtualSafetyCar, VirtualSafetyCarEnding, Red, Chequered][status],
            session_type: if sprint { SessionType::Sprint } else { SessionType::Race },
            circuit: circuit.to_owned(),
            raining,
            ..view(cars)
        }
    }
}

fn proper(p: f64) -> bool {
    (0.0..=1.0).contains(&p)
}

fn check(prediction: &Prediction) {
    assert!(prediction.provenance().stale_s >= 0.0);
    match prediction {
        Prediction::LapTime(p) => {
            let q = p.lap_time;
            assert!(
                q.p10 >= 0.0 && q.p10 <= q.p50 && q.p50 <= q.p90 && q.p90.is_finite(),
                "{q:?}"
            );
        }
        Prediction::Race(p) => {
            for place in 0..p.cars.len() {
                let column: f64 = p.cars.iter().map(|c| f64::from(c.positions[place])).sum();
                assert!((column - 1.0).abs() < 1e-3, "place {place}: {column}");
            }
            for c in &p.cars {
                let row: f64 = c.positions.iter().map(|p| f64::from(*p)).sum();
                assert!((row - 1.0).abs() < 1e-3 && c.positions.len() == p.cars.len());
                assert!(c.positions.iter().all(|p| proper(f64::from(*p))));
                assert!(
                    proper(c.p_win)
                        && c.p_win <= c.p_podium
                        && c.p_podium <= c.p_points
                        && proper(c.p_points)
                );
                assert!(proper(c.p_retirement) && c.expected_position >= 0.999);
            }
        }
        Prediction::Pit(p) => {
            let chain = [
                0.0,
                p.p_within_1,
                p.p_within_2,
                p.p_within_3,
                p.p_within_5,
                p.p_stop,
                1.0,
            ];
            assert!(chain.is_sorted(), "{chain:?}");
            if let Some(q) = p.in_lap {
                assert!(
                    f64::from(p.lap_number) < q.p10 && q.p10 <= q.p50 && q.p50 <= q.p90,
                    "{q:?}"
                );
            }
            let sum: f64 = p.compounds.iter().map(|c| c.probability).sum();
            assert!((sum - 1.0).abs() < 1e-3 && p.compounds.iter().all(|c| proper(c.probability)));
            assert!(!p.reason.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_the_view_what_is_published_is_proper(v in any_view()) {
        let mut list = vec![Event::SessionStarted, Event::TrackStatusChanged { status: v.status }];
        for c in &v.cars {
            let lap = c.laps_completed();
            list.push(Event::LapCompleted { driver_number: c.number, lap });
            list.push(Event::SectorCompleted { driver_number: c.number, lap: lap + 1, sector: 1 });
            list.push(Event::SectorCompleted { driver_number: c.number, lap: lap + 1, sector: 2 });
        }
        let all = events(&list);
        let mut predictor = Predictor::new(Floor::shipped());
        let made = predictor.observe_view(&v, 1, &all);
        made.iter().for_each(check);
        let again = Predictor::new(Floor::shipped()).observe_view(&v, 1, &all);
        prop_assert_eq!(serde_json::to_vec(&made).unwrap(), serde_json::to_vec(&again).unwrap());
        predictor.observe_view(&v, 2, &events(&[Event::SessionFinished]));
        let shown = serde_json::to_string(predictor.scores()).unwrap();
        prop_assert!(!shown.contains("NaN"));
    }
}
