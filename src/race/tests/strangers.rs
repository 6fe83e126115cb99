//! Records of another session among those of one that goes on.

use super::hand::Feed;
use crate::race::session::PATIENCE_S;
use crate::race::{Event, Race};

/// Laps of the race and how long one takes (s).
const LAPS: u16 = 20;
const LAP_S: f64 = 90.0;

fn begin() -> Feed {
    let mut feed = Feed::new(12, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    feed
}

/// Laps `from..to` of two cars, with telemetry between, a stop on lap 5 and a yellow flag on lap 7.
fn drive(feed: &mut Feed, from: u16, to: u16) {
    for lap in from..to {
        let t = f64::from(lap - 1) * LAP_S;
        for s in 0..9 {
            feed.speed(1, t + 10.0 * f64::from(s), 250);
        }
        feed.lap(1, lap, t, LAP_S);
        feed.lap(4, lap, t + f64::from(lap) * 0.2, LAP_S + 0.2);
        if lap == 5 {
            let date = feed.at(t + LAP_S);
            feed.send(
                "v1/pit",
                &format!(
                    r#""driver_number":4,"lap_number":5,"date":"{date}","lane_duration":22.0"#
                ),
            );
        }
        if lap == 7 {
            feed.control(t + 1.0, "YELLOW", "YELLOW IN TRACK SECTOR 3");
            feed.control(t + 9.0, "CLEAR", "TRACK CLEAR");
        }
    }
}

/// `n` samples of another session, `step_s` apart from `t` on.
fn burst(feed: &mut Feed, key: i32, n: u16, t: f64, step_s: f64) {
    let own = std::mem::replace(&mut feed.key, key);
    for i in 0..n {
        feed.speed(1, t + f64::from(i) * step_s, 99);
    }
    feed.key = own;
}

/// What is known of the race, but for the count of foreign records and sequence numbers.
fn known(race: &Race) -> String {
    let mut race = race.clone();
    (race.foreign_records, race.seq) = (0, 0);
    for lap in race.cars.iter_mut().flat_map(|c| &mut c.laps) {
        lap.completed_seq = lap.completed_seq.map(|_| 0);
    }
    serde_json::to_string(&race).unwrap()
}

fn undisturbed() -> Feed {
    let mut feed = begin();
    drive(&mut feed, 1, LAPS);
    feed
}

#[test]
fn a_burst_of_another_session_changes_nothing() {
    for t in [-5_000.0, 900.0, 5_000_000.0] {
        let mut feed = begin();
        drive(&mut feed, 1, 10);
        let sent = feed.events.len();
        burst(&mut feed, 9999, 60, t, 0.03);
        assert_eq!(feed.events.len(), sent);
        drive(&mut feed, 10, LAPS);
        assert_eq!(feed.said(Event::SessionChanged { session_key: 9999 }), 0);
        assert_eq!(known(&feed.race), known(&undisturbed().race));
    }
    // However many they are, as long as they do not go on for long.
    let mut feed = begin();
    drive(&mut feed, 1, 10);
    burst(&mut feed, 9999, 10_000, 700.0, 0.01);
    drive(&mut feed, 10, LAPS);
    assert_eq!(feed.said(Event::SessionChanged { session_key: 9999 }), 0);
    assert_eq!(feed.race.foreign_records, 10_000);
    assert_eq!(known(&feed.race), known(&undisturbed().race));
}

#[test]
fn a_session_that_comes_back_goes_on_with_all_that_was_known() {
    let mut feed = begin();
    drive(&mut feed, 1, 10);
    // An old session from elsewhere, for ten minutes without a word of this one.
    burst(&mut feed, 9999, 600, -9_000.0, 1.0);
    assert_eq!(feed.race.session.key, Some(9999));
    assert_eq!(feed.race.cars().len(), 1);
    assert!(feed.race.pit_rows().is_empty());
    drive(&mut feed, 10, LAPS);
    assert_eq!(feed.race.session.key, Some(12));
    assert_eq!(feed.said(Event::SessionChanged { session_key: 12 }), 2);
    assert_eq!(known(&feed.race), known(&undisturbed().race));
}

#[test]
fn a_stray_of_a_third_session_does_not_lose_the_second() {
    let mut feed = begin();
    drive(&mut feed, 1, 10);
    burst(&mut feed, 9999, 600, -9_000.0, 1.0);
    burst(&mut feed, 7777, 5, 0.0, 1.0);
    drive(&mut feed, 10, LAPS);
    assert_eq!(known(&feed.race), known(&undisturbed().race));
}

#[test]
fn a_session_that_nobody_announced_takes_over_with_all_its_records() {
    let mut feed = begin();
    drive(&mut feed, 1, 10);
    // An hour and a half later.
    let from = 10.0 * LAP_S + 5_400.0;
    feed.key = 13;
    for car in 1..=20 {
        feed.position(car, from, car);
    }
    assert_eq!(feed.race.session.key, Some(12));
    for i in 0..100 {
        feed.speed(1, from + f64::from(i), 99);
    }
    assert_eq!(feed.race.session.key, Some(13));
    // Those from before it took over are known, too.
    assert_eq!(feed.race.cars().len(), 20);
    assert_eq!(feed.race.car(20).unwrap().position, Some(20));
}

#[test]
fn another_session_at_the_same_time_takes_over_from_a_silent_one_only() {
    let mut feed = begin();
    drive(&mut feed, 1, 10);
    // Turn by turn neither is silent.
    for i in 0..1_000 {
        let t = 10.0 * LAP_S + f64::from(i);
        burst(&mut feed, 9999, 1, t, 1.0);
        feed.speed(4, t, 100);
    }
    assert_eq!(feed.race.session.key, Some(12));
    let t = 10.0 * LAP_S + 1_000.0;
    burst(&mut feed, 9999, PATIENCE_S as u16 - 10, t, 1.0);
    assert_eq!(feed.race.session.key, Some(12));
    burst(&mut feed, 9999, 20, t + PATIENCE_S - 10.0, 1.0);
    assert_eq!(feed.race.session.key, Some(9999));
}

#[test]
fn a_clone_between_changes_nothing() {
    let run = |cut: Option<usize>| {
        let mut feed = begin();
        drive(&mut feed, 1, 10);
        for part in 0..10 {
            if cut == Some(part) {
                feed.race = feed.race.clone();
            }
            burst(&mut feed, 9999, 60, -9_000.0 + 60.0 * part as f64, 1.0);
        }
        drive(&mut feed, 10, LAPS);
        feed.race
    };
    let expected = run(None);
    for cut in 0..10 {
        assert_eq!(run(Some(cut)), expected);
    }
}
