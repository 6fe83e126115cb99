//! Races by hand whose feeds have holes at the end: no flag, a last lap that was lost, no dates, cars
//! that never left the grid; with and without the official result.

use super::hand::Feed;
use crate::race::{CarStatus, Event, Race};

/// Cars and their lap times (s): three on the lead lap and one lapped.
const CARS: [(u8, f64); 4] = [(1, 90.0), (4, 91.0), (16, 92.0), (63, 125.0)];
const LAPS: u16 = 4;
/// When the winner comes home (s).
const HOME_S: f64 = 360.0;

/// A message: when it is heard (s), topic, fields.
type Message = (f64, &'static str, String);

fn result(car: u8, position: &str, laps: u16, more: &str) -> Message {
    let fields =
        format!(r#""driver_number":{car},"position":{position},"number_of_laps":{laps},{more}"#);
    (1_000.0, "v1/session_result", fields)
}

/// The messages of a whole race, in order.
fn whole(feed: &Feed) -> Vec<Message> {
    let mut all = Vec::new();
    for (place, (car, lap_s)) in CARS.into_iter().enumerate() {
        let laps = (HOME_S / lap_s).ceil() as u16;
        for lap in 1..=laps {
            let from = f64::from(lap - 1) * lap_s;
            let date = feed.at(from);
            let mut fields =
                format!(r#""driver_number":{car},"lap_number":{lap},"date_start":"{date}""#);
            all.push((from + 0.1, "v1/laps", fields.clone()));
            for sector in 1..=3 {
                fields += &format!(r#","duration_sector_{sector}":{}"#, lap_s / 3.0);
                if sector == 3 {
                    fields += &format!(r#","lap_duration":{lap_s}"#);
                }
                let told = from + lap_s / 3.0 * f64::from(sector) + 0.2;
                all.push((told, "v1/laps", fields.clone()));
            }
            let stint = format!(
                r#""driver_number":{car},"stint_number":1,"lap_start":1,"lap_end":{lap},"compound":"HARD","tyre_age_at_start":0"#
            );
            all.push((from + 0.3, "v1/stints", stint));
        }
        let date = feed.at(30.0);
        let fields = format!(
            r#""driver_number":{car},"date":"{date}","position":{}"#,
            place + 1
        );
        all.push((30.0, "v1/position", fields));
        // On the way back to the pits for 100 s after the finish, then parked.
        let finish = f64::from(laps) * lap_s;
        for t in (1..90).map(|i| 10.0 * f64::from(i)) {
            let speed = if t < finish + 100.0 { 200 } else { 0 };
            let date = feed.at(t);
            let fields = format!(r#""driver_number":{car},"date":"{date}","speed":{speed}"#);
            all.push((t, "v1/car_data", fields));
        }
    }
    let date = feed.at(HOME_S);
    let fields = format!(r#""date":"{date}","flag":"CHEQUERED","message":"CHEQUERED FLAG""#);
    all.push((HOME_S + 0.3, "v1/race_control", fields));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

fn results() -> Vec<Message> {
    let flags = r#""dnf":false,"dns":false,"dsq":false"#;
    let gap = |s: f64| format!(r#"{flags},"gap_to_leader":{s:.1}"#);
    vec![
        result(1, "1", 4, &gap(0.0)),
        result(4, "2", 4, &gap(4.0)),
        result(16, "3", 4, &gap(8.0)),
        result(63, "4", 3, &format!(r#"{flags},"gap_to_leader":"+1 LAP""#)),
    ]
}

fn race_of(messages: &[Message]) -> Feed {
    let mut feed = new();
    for (_, topic, fields) in messages {
        feed.send(topic, fields);
    }
    feed
}

fn new() -> Feed {
    let mut feed = Feed::new(12, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    feed
}

/// Every message that `lost` does not hold of, with the results and without.
fn with_and_without_results(lost: impl Fn(&Message) -> bool) -> [Feed; 2] {
    let mut left = whole(&new());
    left.retain(|m| !lost(m));
    let without = race_of(&left);
    left.extend(results());
    [without, race_of(&left)]
}

fn listed(race: &Race) -> Vec<(u8, u16, String)> {
    race.classification()
        .iter()
        .map(|r| (r.driver_number, r.laps, r.status.to_string()))
        .collect()
}

fn list(rows: &[(u8, u16, &str)]) -> Vec<(u8, u16, String)> {
    rows.iter().map(|r| (r.0, r.1, r.2.to_string())).collect()
}

fn as_driven() -> Vec<(u8, u16, String)> {
    list(&[
        (1, 4, "finished"),
        (4, 4, "finished"),
        (16, 4, "finished"),
        (63, 3, "+1 lap"),
    ])
}

fn is_flag(m: &Message) -> bool {
    m.1 == "v1/race_control"
}

/// Whether it is the complete version of a car's lap.
fn completes(m: &Message, car: u8, lap: u16) -> bool {
    let head = format!(r#""driver_number":{car},"lap_number":{lap},"#);
    m.1 == "v1/laps" && m.2.starts_with(&head) && m.2.contains("lap_duration")
}

#[test]
fn without_a_chequered_flag_the_race_ends_all_the_same() {
    for feed in with_and_without_results(is_flag) {
        assert_eq!(listed(&feed.race), as_driven());
    }
    let [without, with] = with_and_without_results(is_flag);
    // Nobody said that it is over: it is listed so, but the state waits.
    assert!(!without.race.session.finished);
    assert!(with.race.session.finished);
    assert_eq!(with.said(Event::SessionFinished), 1);
}

#[test]
fn race_control_may_say_that_the_session_is_over() {
    let mut left = whole(&new());
    let at = left.iter().position(is_flag).unwrap();
    left[at].2 = left[at]
        .2
        .replace("CHEQUERED FLAG", "SESSION FINISHED")
        .replace(r#""CHEQUERED""#, "null");
    let feed = race_of(&left);
    assert_eq!(listed(&feed.race), as_driven());
    assert_eq!(feed.said(Event::SessionFinished), 1);
    assert_eq!(feed.race.session.chequered, None);
}

#[test]
fn whose_last_lap_is_never_told_complete_has_driven_it() {
    for (car, lap) in [(1, 4), (4, 4), (16, 4), (63, 3)] {
        for flag_too in [false, true] {
            let lost = |m: &Message| completes(m, car, lap) || flag_too && is_flag(m);
            for feed in with_and_without_results(lost) {
                assert_eq!(
                    listed(&feed.race),
                    as_driven(),
                    "car {car}, flag lost: {flag_too}"
                );
                let rows = feed.race.classification();
                let row = rows.iter().find(|r| r.driver_number == car).unwrap();
                assert_eq!((row.line, row.gap_s), (None, None));
            }
        }
    }
}

#[test]
fn a_last_lap_of_which_nothing_came_is_driven_too() {
    let lost =
        |m: &Message| m.1 == "v1/laps" && m.2.contains(r#""driver_number":16,"lap_number":4"#);
    for feed in with_and_without_results(lost) {
        assert_eq!(listed(&feed.race), as_driven());
    }
}

#[test]
fn all_last_laps_may_be_lost() {
    let lost = |m: &Message| m.0 > HOME_S - 5.0 && m.1 == "v1/laps";
    for feed in with_and_without_results(lost) {
        assert_eq!(listed(&feed.race), as_driven());
    }
    // Without telemetry only the result can tell.
    let lost = |m: &Message| lost(m) || m.1 == "v1/car_data";
    let [_, feed] = with_and_without_results(lost);
    assert_eq!(listed(&feed.race), as_driven());
}

#[test]
fn a_car_without_dates_has_its_place() {
    for car in [1, 4, 63] {
        let head = format!(r#""driver_number":{car},"#);
        let mut left = whole(&new());
        for m in left.iter_mut().filter(|m| m.1 == "v1/laps") {
            if m.2.starts_with(&head) {
                let (before, date) = m.2.split_once(r#""date_start":""#).unwrap();
                let (_, after) = date.split_once('"').unwrap();
                m.2 = format!(r#"{before}"date_start":null{after}"#);
            }
        }
        let feed = race_of(&left);
        assert!(
            feed.race
                .car(car)
                .unwrap()
                .laps
                .iter()
                .all(|l| l.started.is_none())
        );
        assert_eq!(listed(&feed.race), as_driven(), "car {car}");
        left.extend(results());
        assert_eq!(listed(&race_of(&left).race), as_driven(), "car {car}");
    }
}

#[test]
fn who_breaks_down_on_the_last_lap_has_not_driven_it() {
    let mut left = whole(&new());
    left.retain(|m| !completes(m, 16, 4));
    let head = r#""driver_number":16,"#;
    for m in &mut left {
        if m.1 == "v1/car_data" && m.2.starts_with(head) && m.0 > 355.0 {
            m.2 = m.2.replace("200", "0");
        }
    }
    let mut feed = race_of(&left);
    let expected = list(&[
        (1, 4, "finished"),
        (4, 4, "finished"),
        (16, 3, "retired"),
        (63, 3, "+1 lap"),
    ]);
    assert_eq!(listed(&feed.race), expected);
    // And its word is not needed once the result is known.
    let row = result(16, "4", 3, r#""dnf":true,"dns":false,"dsq":false"#);
    feed.send(row.1, &row.2);
    assert_eq!(listed(&feed.race), expected);
}

#[test]
fn whichever_message_is_lost_the_list_is_the_same() {
    let all = whole(&new());
    for i in 0..all.len() {
        let mut left = all.clone();
        let lost = left.remove(i);
        assert_eq!(listed(&race_of(&left).race), as_driven(), "{lost:?}");
        left.extend(results());
        let feed = race_of(&left);
        assert_eq!(listed(&feed.race), as_driven(), "{lost:?}, with the result");
        for row in feed.race.stint_rows() {
            let laps = feed.race.car(row.driver_number).unwrap().laps_completed;
            assert_eq!((row.lap_start, row.lap_end), (1, laps), "{lost:?}");
        }
    }
}

#[test]
fn who_only_went_to_the_grid_did_not_start() {
    let mut left = whole(&new());
    let started = new().at(0.0);
    let mut late = |t: f64, topic, fields: String| left.push((t, topic, fields));
    // Car 10 broke down before the start: its first lap is told all the same.
    let head = format!(r#""driver_number":10,"lap_number":1,"date_start":"{started}""#);
    late(0.1, "v1/laps", head);
    for t in 1..90 {
        let date = new().at(f64::from(t) * 10.0);
        for (car, speed) in [(10, 0), (22, if t == 1 { 150 } else { 0 })] {
            let fields = format!(r#""driver_number":{car},"date":"{date}","speed":{speed}"#);
            late(f64::from(t) * 10.0, "v1/car_data", fields);
        }
    }
    left.sort_by(|a, b| a.0.total_cmp(&b.0));
    let feed = race_of(&left);
    let mut expected = as_driven();
    // Car 22, of whose laps nothing came, was seen under way.
    expected.extend(list(&[(22, 0, "retired"), (10, 0, "not_started")]));
    assert_eq!(listed(&feed.race), expected);
}

#[test]
fn the_result_tells_laps_and_status_and_the_road_the_order() {
    let mut left = whole(&new());
    let flags = |dnf, dns, dsq| format!(r#""dnf":{dnf},"dns":{dns},"dsq":{dsq}"#);
    // Car 4 got seconds after the race that nobody announced; car 63 was classified but out.
    left.extend([
        result(1, "1", 4, &flags(false, false, false)),
        result(16, "2", 4, &flags(false, false, false)),
        result(4, "3", 4, &flags(false, false, false)),
        result(63, "4", 2, &flags(true, false, false)),
        result(99, "null", 0, &flags(false, true, false)),
    ]);
    let feed = race_of(&left);
    let mut expected = as_driven();
    expected[3] = (63, 2, "retired".into());
    expected.push((99, 0, "not_started".into()));
    assert_eq!(listed(&feed.race), expected);
    // A disqualification is another matter: the winner is no longer in it.
    // So it is where only his place is missing.
    for flags in [flags(false, false, true), flags(false, false, false)] {
        let mut left = left.clone();
        left.push(result(1, "null", 4, &flags));
        let rows = listed(&race_of(&left).race);
        assert_eq!(rows[0].0, 4);
        assert_eq!(rows.last(), Some(&(1, 4, "disqualified".into())));
    }
}

#[test]
fn one_stray_result_ends_no_race() {
    let all = whole(&new());
    let (before, after) = all.split_at(all.len() / 4);
    let stray = result(16, "1", 1, r#""dnf":false,"dns":false,"dsq":false"#);
    let mut feed = race_of(&[before, &[stray]].concat());
    assert!(!feed.race.session.finished);
    assert_eq!(feed.race.car(16).unwrap().status, CarStatus::OnTrack);
    for (_, topic, fields) in after.iter().chain(&results()) {
        feed.send(topic, fields);
    }
    assert_eq!(listed(&feed.race), as_driven());
}

#[test]
fn a_red_flag_is_no_end() {
    let all = whole(&new());
    let half = all.partition_point(|m| m.0 < HOME_S / 2.0);
    let mut feed = race_of(&all[..half]);
    feed.control(HOME_S / 2.0, "RED", "RED FLAG");
    for t in 0..200 {
        feed.speed(1, HOME_S / 2.0 + 10.0 * f64::from(t), 0);
    }
    let rows = feed.race.classification();
    assert!(rows.iter().all(|r| r.status.to_string() == "running"));
}

#[test]
fn a_lost_version_of_a_stint_shortens_none() {
    let mut left = whole(&new());
    left.retain(|m| m.1 != "v1/stints");
    for (number, from, to) in [(1, 1, 1), (2, 3, 3)] {
        let fields = format!(
            r#""driver_number":1,"stint_number":{number},"lap_start":{from},"lap_end":{to},"compound":"SOFT""#
        );
        left.push((900.0, "v1/stints", fields));
    }
    let rows = race_of(&left).race.stint_rows();
    let ends: Vec<(u16, u16)> = rows.iter().map(|s| (s.lap_start, s.lap_end)).collect();
    assert_eq!(ends, [(1, 2), (3, LAPS)]);
}

#[test]
fn a_clone_between_changes_nothing() {
    let lost = |m: &Message| is_flag(m) || completes(m, 16, 4);
    let mut left = whole(&new());
    left.retain(|m| !lost(m));
    left.extend(results());
    let expected = race_of(&left).race;
    for cut in (0..left.len()).step_by(7) {
        let mut feed = race_of(&left[..cut]);
        feed.race = feed.race.clone();
        for (_, topic, fields) in &left[cut..] {
            feed.send(topic, fields);
        }
        assert_eq!(feed.race, expected);
    }
}

#[test]
fn a_lap_back_to_the_pits_that_is_told_late_moves_no_finish() {
    // As at Monza in 2023: minutes after the finish another lap begins for all cars at once.
    let mut left = whole(&new());
    left.retain(|m| !completes(m, 4, 4));
    let date = new().at(800.0);
    for (car, lap) in [(1, 5), (4, 5), (16, 5), (63, 4)] {
        let fields = format!(r#""driver_number":{car},"lap_number":{lap},"date_start":"{date}""#);
        left.push((800.1, "v1/laps", fields));
    }
    left.sort_by(|a, b| a.0.total_cmp(&b.0));
    for flag_too in [false, true] {
        let mut left = left.clone();
        left.retain(|m| !flag_too || !is_flag(m));
        left.extend(results());
        let race = race_of(&left).race;
        assert_eq!(listed(&race), as_driven());
        assert_eq!(race.classification()[1].line, None);
    }
}
