//! What the program says of a race, against the official rows of its recording.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Race;
use super::support::{self, Official};

pub fn check_summary(summary: &Value, official: &Official, race: &Race) {
    let records = summary["records"].as_object().expect("records by topic");
    let counted = |name: &str| -> BTreeMap<&str, u64> {
        let count = |count: &Value| count[name].as_u64().expect("a number");
        let topics = records.iter();
        topics
            .map(|(topic, of)| (topic.as_str(), count(of)))
            .collect()
    };
    let expected = |of: fn(&support::Count) -> u64| -> BTreeMap<&str, u64> {
        let counts = official.counts.iter();
        counts
            .map(|(topic, count)| (topic.as_str(), of(count)))
            .collect()
    };
    assert_eq!(counted("messages"), expected(|c| c.messages));
    assert_eq!(counted("documents"), expected(|c| c.documents));
    for (topic, count) in records {
        assert_eq!(count["rejected"], serde_json::json!({}), "{topic}");
    }

    let rows = summary["classification"].as_array().expect("rows");
    let on_road = moved(official, race.on_road);
    let with_penalties = moved(official, race.with_penalties);
    assert_eq!(rows.len(), official.result.len());
    for (row, (at, car)) in rows.iter().zip((1..).zip(&on_road)) {
        let result = official.result.iter().find(|r| r.driver_number == *car);
        let result = result.expect("a car of the result");
        assert_eq!(row["position"], at, "{row}");
        assert_eq!(row["driver_number"], *car, "P{at} on the road: {row}");
        assert_eq!(row["laps"], result.laps, "{row}");
        assert_eq!(row["status"], result.status.as_str(), "{row}");
        let penalty = race.penalties.iter().find(|p| p.0 == *car);
        // As text, since −0 is a number too.
        let penalty = format!("{:.1}", penalty.map_or(0.0, |p| p.1));
        assert_eq!(row["penalty_s"].to_string(), penalty, "{row}");
        let corrected = with_penalties.iter().position(|c| c == car);
        let corrected = corrected.expect("every car is listed") + 1;
        assert_eq!(row["corrected_position"], corrected, "{row}");
    }

    let number = |row: &Value, name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{row}"));
    let stints = summary["stints"].as_array().expect("stints").iter();
    let stints: Vec<support::Stint> = stints
        .map(|r| {
            let compound = r["compound"].as_str().expect("a compound").to_owned();
            let laps = (number(r, "lap_start"), number(r, "lap_end"));
            let which = (number(r, "driver_number"), number(r, "stint_number"));
            (which.0, which.1, compound, laps.0, laps.1)
        })
        .collect();
    assert_eq!(stints, official.stints);
    let pits = summary["pits"].as_array().expect("pits").iter();
    let pits: Vec<(u64, u64)> = pits
        .map(|r| (number(r, "driver_number"), number(r, "lap")))
        .collect();
    let stops = official.stops.iter().map(|(car, lap, _)| (*car, *lap));
    assert_eq!(pits, stops.collect::<Vec<_>>());
    check_track(summary, race);
}

/// The official order with some places taken by others.
fn moved(official: &Official, places: &[(u64, u64)]) -> Vec<u64> {
    let mut order: Vec<u64> = official.result.iter().map(|r| r.driver_number).collect();
    for (position, car) in places {
        order[usize::try_from(position - 1).expect("small")] = *car;
    }
    let cars: BTreeSet<u64> = order.iter().copied().collect();
    assert_eq!(cars.len(), order.len(), "a car twice in {order:?}");
    order
}

/// Statuses but for yellow flags (and the clear after them), each in its time.
fn check_track(summary: &Value, race: &Race) {
    let mut said: Vec<(String, String)> = Vec::new();
    let mut before = "clear".to_owned();
    for change in summary["track_status"].as_array().expect("changes") {
        let status = change["status"].as_str().expect("a status").to_owned();
        let t = change["t"].as_str().expect("a date");
        if status != "yellow" && status != before {
            said.push((status.clone(), t[11..19].to_owned()));
            before = status;
        }
    }
    let statuses: Vec<&str> = said.iter().map(|(status, _)| status.as_str()).collect();
    let expected: Vec<&str> = race.track.iter().map(|(status, ..)| *status).collect();
    assert_eq!(statuses, expected);
    for ((status, t), (_, first, last)) in said.iter().zip(race.track) {
        assert!(
            (*first..=*last).contains(&t.as_str()),
            "{status} at {t}, expected from {first} to {last}"
        );
    }
}

/// What the API shows of the race at its end.
pub fn check_state(state: &Value, official: &Official, race: &Race) {
    let rows = state["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), official.result.len());
    for row in rows {
        let car = row["driver_number"].as_u64().expect("a car");
        let result = official.result.iter().find(|r| r.driver_number == car);
        assert_eq!(
            row["laps"],
            result.expect("a car of the result").laps,
            "{row}"
        );
        let stint = official.stints.iter().rfind(|s| s.0 == car);
        let (_, number, compound, ..) = stint.expect("a stint of each car");
        assert_eq!(row["tyre"]["stint"], *number, "{row}");
        assert_eq!(row["tyre"]["compound"], compound.as_str(), "{row}");
        let waited = |exit: &str| race.stopped.is_some_and(|(a, b)| (a..=b).contains(&exit));
        let stops = official
            .stops
            .iter()
            .filter(|s| s.0 == car && !waited(&s.2))
            .count();
        assert_eq!(row["stops"], stops, "{row}");
    }
    assert_eq!(state["track_status"], "chequered");
}
