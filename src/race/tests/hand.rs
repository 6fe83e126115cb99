//! Sessions written by hand: practice, qualifying, a sprint weekend, and what must not reset them.

use bytes::Bytes;

use crate::race::{CarStatus, Event, Race, SessionType, Standing, TrackStatus};
use crate::record::{Time, decode};

/// A feed by hand: `T` is seconds after the session's start.
pub(super) struct Feed {
    pub race: Race,
    seq: u64,
    pub key: i32,
    start: Time,
    pub events: Vec<Event>,
}

impl Feed {
    pub fn new(key: i32, start: &str) -> Feed {
        Feed {
            race: Race::new(),
            seq: 0,
            key,
            start: start.parse().unwrap(),
            events: Vec::new(),
        }
    }

    pub fn send(&mut self, topic: &str, fields: &str) {
        let payload = format!(r#"{{"meeting_key":1,"session_key":{},{fields}}}"#, self.key);
        let decoded = decode(topic, &Bytes::from(payload.clone()));
        let entry = decoded.unwrap_or_else(|e| panic!("{payload}: {e}")).entry;
        self.events.extend(&self.race.apply(self.seq, &entry));
        self.seq += 1;
    }

    pub fn at(&self, t: f64) -> Time {
        self.start.plus_seconds(t)
    }

    pub fn session(&mut self, kind: &str, name: &str) {
        let start = self.start;
        self.send(
            "v1/sessions",
            &format!(
                r#""session_type":"{kind}","session_name":"{name}","date_start":"{start}","gmt_offset":"02:00:00""#
            ),
        );
    }

    pub fn control(&mut self, t: f64, flag: &str, message: &str) {
        let date = self.at(t);
        let flag = match flag {
            "" => "null".to_string(),
            flag => format!("{flag:?}"),
        };
        self.send(
            "v1/race_control",
            &format!(r#""date":"{date}","flag":{flag},"scope":"Track","message":"{message}""#),
        );
    }

    /// Start, both sectors and end of a lap.
    pub fn lap(&mut self, car: u8, lap: u16, t: f64, seconds: f64) {
        let date = self.at(t);
        let head = format!(r#""driver_number":{car},"lap_number":{lap},"date_start":"{date}""#);
        self.send("v1/laps", &head);
        let s = seconds / 3.0;
        self.send("v1/laps", &format!(r#"{head},"duration_sector_1":{s}"#));
        let rest = format!(
            r#"{head},"duration_sector_1":{s},"duration_sector_2":{s},"duration_sector_3":{s}"#
        );
        self.send("v1/laps", &format!(r#"{rest},"lap_duration":{seconds}"#));
    }

    pub fn position(&mut self, car: u8, t: f64, position: u8) {
        let date = self.at(t);
        self.send(
            "v1/position",
            &format!(r#""driver_number":{car},"date":"{date}","position":{position}"#),
        );
    }

    pub fn speed(&mut self, car: u8, t: f64, speed: i16) {
        let date = self.at(t);
        self.send(
            "v1/car_data",
            &format!(r#""driver_number":{car},"date":"{date}","speed":{speed}"#),
        );
    }

    pub fn order(&self) -> Vec<u8> {
        self.race
            .classification()
            .iter()
            .map(|r| r.driver_number)
            .collect()
    }

    pub fn said(&self, event: Event) -> usize {
        self.events.iter().filter(|e| **e == event).count()
    }
}

#[test]
fn practice_goes_by_best_laps_until_the_feed_gives_positions() {
    let mut feed = Feed::new(10, "2025-05-02T10:00:00Z");
    feed.session("Practice", "Practice 1");
    feed.control(0.0, "GREEN", "GREEN LIGHT - PIT EXIT OPEN");
    feed.lap(1, 1, 10.0, 120.0);
    feed.lap(1, 2, 130.0, 80.0);
    feed.lap(4, 1, 12.0, 119.0);
    feed.lap(4, 2, 131.0, 79.5);
    feed.lap(16, 1, 20.0, 95.0);
    assert_eq!(feed.race.session.session_type, SessionType::Practice);
    assert_eq!(feed.order(), [4, 1, 16]);
    feed.control(
        220.0,
        "",
        "CAR 4 (NOR) TIME 1:19.500 DELETED - TRACK LIMITS AT TURN 9 LAP 2 12:03:31",
    );
    assert_eq!(feed.race.car(4).unwrap().best_lap_s, Some(119.0));
    assert_eq!(feed.order(), [1, 16, 4]);
    feed.control(230.0, "", "CAR 4 (NOR) TIME 1:19.500 WILL BE REINSTATED");
    assert_eq!(feed.order(), [4, 1, 16]);
    feed.position(4, 240.0, 2);
    feed.position(1, 240.0, 1);
    assert_eq!(feed.order(), [1, 4, 16]);
    assert_eq!(feed.said(Event::SessionStarted), 1);
    feed.control(3600.0, "CHEQUERED", "CHEQUERED FLAG");
    assert_eq!(feed.said(Event::SessionFinished), 1);
    assert!(
        feed.race
            .classification()
            .iter()
            .all(|r| r.status == Standing::Finished)
    );
    assert!(
        feed.race
            .cars()
            .iter()
            .all(|c| c.status != CarStatus::Retired)
    );
}

#[test]
fn qualifying_eliminates_part_by_part() {
    let mut feed = Feed::new(11, "2025-05-03T14:00:00Z");
    feed.session("Qualifying", "Qualifying");
    feed.control(0.0, "GREEN", "GREEN LIGHT - PIT EXIT OPEN");
    assert_eq!(feed.race.session.part(), Some(1));
    for (i, car) in [1, 4, 16, 44].into_iter().enumerate() {
        feed.lap(car, 1, 20.0, 100.0);
        feed.lap(car, 2, 130.0, 80.0 + i as f64);
    }
    // A red flag and the green light after it go on with the same part.
    feed.control(300.0, "RED", "RED FLAG");
    assert_eq!(feed.race.track_status(), TrackStatus::Red);
    feed.control(600.0, "GREEN", "GREEN LIGHT - PIT EXIT OPEN");
    assert_eq!(feed.race.track_status(), TrackStatus::Clear);
    assert_eq!(feed.race.session.part(), Some(1));
    // Car 44 is the fastest of all in the first part, and yet out.
    feed.lap(44, 3, 650.0, 79.0);
    feed.control(1100.0, "CHEQUERED", "CHEQUERED FLAG");
    assert_eq!(feed.race.track_status(), TrackStatus::Chequered);
    feed.control(1500.0, "GREEN", "GREEN LIGHT - PIT EXIT OPEN");
    assert_eq!(feed.race.session.part(), Some(2));
    feed.lap(1, 3, 1520.0, 79.4);
    feed.lap(4, 3, 1521.0, 79.2);
    feed.lap(16, 3, 1522.0, 79.9);
    feed.control(2400.0, "CHEQUERED", "CHEQUERED FLAG");
    feed.control(2800.0, "GREEN", "GREEN LIGHT - PIT EXIT OPEN");
    feed.lap(1, 4, 2810.0, 79.1);
    feed.lap(4, 4, 2811.0, 78.8);
    feed.control(
        3000.0,
        "",
        "CAR 4 (NOR) TIME 1:18.800 DELETED - TRACK LIMITS AT TURN 4 LAP 4 16:47:10",
    );
    feed.lap(4, 5, 2950.0, 79.3);
    assert_eq!(feed.said(Event::SessionFinished), 0);
    feed.control(3500.0, "CHEQUERED", "CHEQUERED FLAG");
    assert_eq!(feed.said(Event::SessionFinished), 1);
    assert_eq!(feed.order(), [1, 4, 16, 44]);
    let rows = feed.race.classification();
    assert_eq!(rows[1].parts, [Some(81.0), Some(79.2), Some(79.3)]);
    assert_eq!(rows[3].parts, [Some(79.0), None, None]);
}

#[test]
fn an_older_version_undoes_nothing_and_a_late_one_fills_gaps() {
    let mut feed = Feed::new(12, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    let date = feed.at(0.0);
    let head = format!(r#""driver_number":1,"lap_number":1,"date_start":"{date}""#);
    feed.send(
        "v1/laps",
        &format!(r#"{head},"lap_duration":95.5,"duration_sector_2":30.0,"_id":40"#),
    );
    feed.send(
        "v1/laps",
        &format!(r#"{head},"lap_duration":99.9,"duration_sector_1":33.0,"_id":30"#),
    );
    let lap = feed.race.car(1).unwrap().lap(1).unwrap();
    assert_eq!(lap.duration, Some(95.5));
    assert_eq!(lap.sectors, [Some(33.0), Some(30.0), None]);
    assert_eq!(
        feed.said(Event::LapCompleted {
            driver_number: 1,
            lap: 1
        }),
        1
    );
    for (id, end, compound) in [(7, 20, "HARD"), (5, 10, "SOFT")] {
        feed.send(
            "v1/stints",
            &format!(r#""driver_number":1,"stint_number":1,"lap_start":1,"lap_end":{end},"compound":"{compound}","tyre_age_at_start":2,"_id":{id}"#),
        );
    }
    let stint = &feed.race.car(1).unwrap().stints[0];
    assert_eq!((stint.lap_end, stint.compound.name()), (20, "HARD"));
    assert_eq!(feed.race.car(1).unwrap().lap(1).unwrap().tyre_age, Some(3));
    assert_eq!(
        feed.said(Event::StintStarted {
            driver_number: 1,
            stint: 1
        }),
        1
    );
}

#[test]
fn a_lap_without_a_time_is_over_when_the_next_is_under_way() {
    let mut feed = Feed::new(12, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    let (a, b) = (feed.at(0.0), feed.at(95.0));
    feed.send(
        "v1/laps",
        &format!(r#""driver_number":1,"lap_number":1,"date_start":"{a}""#),
    );
    feed.send(
        "v1/laps",
        &format!(r#""driver_number":1,"lap_number":2,"date_start":"{b}""#),
    );
    let done = Event::LapCompleted {
        driver_number: 1,
        lap: 1,
    };
    // Its time may still be a few milliseconds away.
    assert_eq!(feed.said(done), 0);
    feed.send(
        "v1/laps",
        &format!(r#""driver_number":1,"lap_number":2,"date_start":"{b}","duration_sector_1":30.0"#),
    );
    assert_eq!(feed.said(done), 1);
    let lap = feed.race.car(1).unwrap().lap(1).unwrap();
    assert_eq!((lap.duration, lap.ended), (None, Some(b)));
    assert_eq!(feed.race.car(1).unwrap().laps_completed, 1);
    assert_eq!(
        feed.said(Event::SectorCompleted {
            driver_number: 1,
            lap: 2,
            sector: 1
        }),
        1
    );
}

#[test]
fn a_car_that_stands_is_out_until_it_goes_on() {
    let mut feed = Feed::new(12, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    feed.lap(1, 1, 0.0, 90.0);
    feed.lap(4, 1, 0.0, 91.0);
    feed.speed(4, 95.0, 280);
    for s in 0..100 {
        feed.speed(4, 100.0 + f64::from(s), 0);
    }
    assert_eq!(feed.race.car(4).unwrap().status, CarStatus::Retired);
    assert_eq!(feed.said(Event::Retired { driver_number: 4 }), 1);
    feed.lap(4, 2, 91.0, 200.0);
    assert_eq!(feed.race.car(4).unwrap().status, CarStatus::OnTrack);
    assert_eq!(feed.said(Event::Resumed { driver_number: 4 }), 1);
    // And a car of which nothing comes any more.
    for lap in 2..8 {
        feed.lap(1, lap, 90.0 * f64::from(lap), 90.0);
    }
    assert_eq!(feed.race.car(4).unwrap().status, CarStatus::Retired);
    feed.control(800.0, "", "FIA STEWARDS: BLACK FLAG FOR CAR 1 (VER)");
    let rows = feed.race.classification();
    assert_eq!(rows.last().unwrap().driver_number, 1);
    assert_eq!(rows.last().unwrap().status, Standing::Disqualified);
}

#[test]
fn the_flag_ends_the_race_lap_by_lap() {
    let mut feed = Feed::new(12, "2025-05-04T13:00:00Z");
    feed.session("Race", "Sprint");
    assert_eq!(feed.race.session.session_type, SessionType::Sprint);
    feed.send("v1/drivers", r#""driver_number":77,"name_acronym":"BOT""#);
    for lap in 1..=3 {
        let t = f64::from(lap - 1);
        feed.lap(1, lap, 90.0 * t, 90.0);
        feed.lap(4, lap, 92.0 * t, 92.0);
    }
    feed.lap(16, 1, 0.0, 130.0);
    feed.lap(16, 2, 130.0, 130.0);
    // The flag falls before the winner's last lap is told, and just after car 63 began its own.
    feed.lap(63, 1, 0.0, 178.0);
    feed.lap(63, 2, 178.0, 178.5);
    feed.control(359.0, "CHEQUERED", "CHEQUERED FLAG");
    assert!(
        feed.race
            .cars()
            .iter()
            .all(|c| c.status != CarStatus::Finished)
    );
    feed.lap(1, 4, 270.0, 90.0);
    assert_eq!(feed.race.car(1).unwrap().status, CarStatus::Finished);
    assert_eq!(feed.race.car(63).unwrap().status, CarStatus::OnTrack);
    feed.lap(4, 4, 276.0, 92.0);
    feed.lap(16, 3, 260.0, 130.0);
    // The lap back to the pits counts for nothing.
    feed.lap(4, 5, 368.0, 150.0);
    assert_eq!(feed.race.car(4).unwrap().laps_completed, 4);
    assert_eq!(feed.said(Event::SessionFinished), 0);
    feed.speed(1, 900.0, 0);
    assert_eq!(feed.said(Event::SessionFinished), 1);
    let rows = feed.race.classification();
    let rows: Vec<(u8, String)> = rows
        .iter()
        .map(|r| (r.driver_number, r.status.to_string()))
        .collect();
    let expected = [
        (1, "finished"),
        (4, "finished"),
        (16, "+1 lap"),
        (63, "retired"),
        (77, "not_started"),
    ];
    assert_eq!(rows, expected.map(|(d, s)| (d, s.to_string())));
}

#[test]
fn other_sessions_do_not_reset_this_one() {
    let mut feed = Feed::new(20, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    feed.lap(1, 1, 0.0, 90.0);
    // The grid comes under the qualifying session's key.
    feed.key = 19;
    feed.send(
        "v1/starting_grid",
        r#""driver_number":1,"position":5,"lap_duration":80.1"#,
    );
    // An old document, and one with a wild key.
    let date = feed.at(60.0);
    feed.send(
        "v1/car_data",
        &format!(r#""driver_number":1,"date":"{date}","speed":100"#),
    );
    feed.key = 99_999;
    feed.send(
        "v1/car_data",
        &format!(r#""driver_number":1,"date":"{date}","speed":100"#),
    );
    // The next race is announced while this one is on.
    feed.key = 30;
    feed.send(
        "v1/sessions",
        r#""session_type":"Race","session_name":"Race","date_start":"2025-05-18T13:00:00Z""#,
    );
    assert_eq!(feed.race.session.key, Some(20));
    assert_eq!(feed.race.car(1).unwrap().grid, Some(5));
    assert_eq!(feed.race.foreign_records, 3);
    assert_eq!(feed.said(Event::SessionChanged { session_key: 20 }), 1);
    // Its driver list begins it, and what was announced of it is known.
    feed.send("v1/drivers", r#""driver_number":4,"name_acronym":"NOR""#);
    assert_eq!(feed.race.session.key, Some(30));
    assert_eq!(feed.race.session.session_type, SessionType::Race);
    assert_eq!(feed.race.cars().len(), 1);
    assert_eq!(feed.race.car(4).unwrap().acronym.as_str(), "NOR");
    // A session that nobody announced begins once it streams.
    feed.key = 31;
    for s in 0..100 {
        feed.speed(16, f64::from(s), 100);
    }
    assert_eq!(feed.race.session.key, Some(31));
    assert_eq!(feed.said(Event::SessionChanged { session_key: 31 }), 1);
}

#[test]
fn a_sprint_grid_is_not_the_grid_of_the_race() {
    let mut feed = Feed::new(40, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    for (key, name, position) in [(38, "Sprint Qualifying", 9), (39, "Qualifying", 2)] {
        feed.key = key;
        feed.send("v1/sessions", &format!(r#""session_type":"Qualifying","session_name":"{name}","date_start":"2025-05-03T13:00:00Z""#));
        feed.send(
            "v1/starting_grid",
            &format!(r#""driver_number":1,"position":{position}"#),
        );
    }
    feed.key = 38;
    feed.send("v1/starting_grid", r#""driver_number":1,"position":9"#);
    assert_eq!(feed.race.car(1).unwrap().grid, Some(2));
}

#[test]
fn a_penalty_is_served_at_the_next_stop_but_not_under_a_red_flag() {
    let mut feed = Feed::new(12, "2025-05-04T13:00:00Z");
    feed.session("Race", "Race");
    feed.lap(10, 1, 0.0, 90.0);
    feed.control(
        100.0,
        "",
        "FIA STEWARDS: 5 SECOND TIME PENALTY FOR CAR 10 (GAS) - SPEEDING IN THE PIT LANE",
    );
    // The same message again is the same penalty.
    feed.control(
        100.0,
        "",
        "FIA STEWARDS: 5 SECOND TIME PENALTY FOR CAR 10 (GAS) - SPEEDING IN THE PIT LANE",
    );
    assert_eq!(feed.race.penalties.len(), 1);
    assert_eq!(feed.race.car(10).unwrap().penalty_s, 5.0);
    feed.control(150.0, "RED", "RED FLAG");
    let exit = feed.at(900.0);
    feed.send(
        "v1/pit",
        &format!(r#""driver_number":10,"lap_number":2,"date":"{exit}","lane_duration":700.0"#),
    );
    assert_eq!(feed.race.car(10).unwrap().penalty_s, 5.0);
    assert!(feed.race.car(10).unwrap().pits[0].under_red);
    feed.control(910.0, "CLEAR", "TRACK CLEAR");
    let exit = feed.at(1800.0);
    feed.send(
        "v1/pit",
        &format!(r#""driver_number":10,"lap_number":9,"date":"{exit}","lane_duration":27.0"#),
    );
    assert_eq!(feed.race.car(10).unwrap().penalty_s, 0.0);
    assert!(feed.race.penalties[0].served);
    assert_eq!(
        feed.said(Event::PenaltyGiven {
            driver_number: 10,
            seconds: 5
        }),
        1
    );
    assert_eq!(
        feed.said(Event::PitExit {
            driver_number: 10,
            lap: Some(9)
        }),
        1
    );
}
