//! Track status from nothing but race control's messages, against the official timelines.

use std::collections::BTreeMap;

use super::table;
use crate::race::{Race, StatusChange, TrackStatus};
use crate::record::{Entry, RaceControl, Record, Session, Time};

/// Local time − UTC (h) where a race was resumed at an announced time; the tables have no offset.
const OFFSETS: [(i32, &str); 3] = [(7787, "10:00:00"), (9149, "02:00:00"), (9636, "-03:00:00")];

fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn status_at(history: &[StatusChange], t: Time) -> TrackStatus {
    let at = history.partition_point(|c| c.t <= t);
    at.checked_sub(1)
        .map_or(TrackStatus::Clear, |i| history[i].status)
}

/// 0 racing, else the neutralisation; yellow apart.
fn group(status: TrackStatus, yellow: bool) -> u8 {
    match status {
        TrackStatus::Clear | TrackStatus::Chequered => 0,
        TrackStatus::Yellow => u8::from(yellow),
        TrackStatus::SafetyCar => 2,
        TrackStatus::VirtualSafetyCar | TrackStatus::VirtualSafetyCarEnding => 3,
        TrackStatus::Red => 4,
    }
}

#[test]
fn timelines_of_2023_and_2024_agree_with_the_official_ones() {
    let Some(messages) = table("strategy/race_control-2023-2024.csv.zst") else {
        return;
    };
    let Some(official) = table("strategy/track_status-2023-2024.csv.zst") else {
        return;
    };
    let mut races = BTreeMap::<i32, Vec<&BTreeMap<String, String>>>::new();
    for row in &messages {
        races
            .entry(row["session_key"].parse().unwrap())
            .or_default()
            .push(row);
    }
    let (mut seconds, mut agree, mut agree_with_yellow, mut by_feed) =
        (0u64, 0u64, 0u64, [0u64; 2]);
    let mut worst = Vec::new();
    for (key, rows) in &races {
        let offset = OFFSETS
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, o)| o.to_string());
        let mut race = Race::new();
        let meeting_key = rows[0]["meeting_key"].parse().unwrap();
        race.apply(
            0,
            &Entry::new(Record::Session(Box::new(session(
                *key,
                meeting_key,
                offset,
            )))),
        );
        let mut flags = Vec::new();
        let mut start = None;
        for row in rows {
            let date: Time = row["date"].parse().unwrap();
            if row["flag"] == "CHEQUERED" {
                flags.push(date);
            }
            if row["flag"] == "GREEN" {
                start = Some(date);
            }
            let entry = Entry::new(Record::RaceControl(Box::new(RaceControl {
                meeting_key,
                session_key: *key,
                date: Some(date),
                driver_number: number(&row["driver_number"]),
                lap_number: number(&row["lap_number"]),
                category: optional(&row["category"]),
                flag: optional(&row["flag"]),
                scope: optional(&row["scope"]),
                sector: number(&row["sector"]),
                qualifying_phase: None,
                message: optional(&row["message"]),
            })));
            race.apply(1, &entry);
        }
        let mut feed = false;
        let truth: Vec<StatusChange> = official
            .iter()
            .filter(|row| row["session_key"] == key.to_string())
            .map(|row| {
                feed |= row["source"] == "fastf1";
                let status = match row["status"].as_str() {
                    "1" => TrackStatus::Clear,
                    "2" => TrackStatus::Yellow,
                    "4" => TrackStatus::SafetyCar,
                    "5" => TrackStatus::Red,
                    "6" => TrackStatus::VirtualSafetyCar,
                    "7" => TrackStatus::VirtualSafetyCarEnding,
                    other => panic!("status {other}"),
                };
                StatusChange {
                    t: row["utc"].parse().unwrap(),
                    status,
                }
            })
            .collect();
        // From the lights to the flag, second by second.
        let (Some(from), Some(to)) = (start, flags.last()) else {
            continue;
        };
        let length = to.seconds_since(from) as u64;
        let mut differ = 0;
        for s in 0..length {
            let t = from.plus_seconds(s as f64 + 0.5);
            let (ours, theirs) = (
                status_at(race.track_status_history(), t),
                status_at(&truth, t),
            );
            let same = group(ours, false) == group(theirs, false);
            agree += u64::from(same);
            differ += u64::from(!same);
            agree_with_yellow += u64::from(group(ours, true) == group(theirs, true));
            by_feed[1] += u64::from(feed);
            by_feed[0] += u64::from(feed && same);
        }
        seconds += length;
        worst.push((differ, *key));
    }
    worst.sort_unstable();
    let share = |part: u64, of: u64| part as f64 / of as f64;
    eprintln!(
        "{} races, {seconds} s: safety car, virtual safety car and red agree for {:.4} of the time ({:.4} where the \
         official timeline is the feed's own), with yellow {:.4}; most seconds apart: {:?}",
        races.len(),
        share(agree, seconds),
        share(by_feed[0], by_feed[1]),
        share(agree_with_yellow, seconds),
        &worst[worst.len() - 5..],
    );
    assert!(share(agree, seconds) > 0.997);
    assert!(share(by_feed[0], by_feed[1]) > 0.997);
    assert!(share(agree_with_yellow, seconds) > 0.993);
}

fn session(key: i32, meeting_key: i32, gmt_offset: Option<String>) -> Session {
    Session {
        meeting_key,
        session_key: key,
        session_type: Some("Race".into()),
        session_name: Some("Race".into()),
        date_start: None,
        date_end: None,
        gmt_offset,
        location: None,
        country_key: None,
        country_code: None,
        country_name: None,
        circuit_key: None,
        circuit_short_name: None,
        year: None,
        is_cancelled: None,
    }
}
