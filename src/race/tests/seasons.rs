//! Every race of 2023 and 2024 from the tables: laps, race control, pit stops, grid; against the
//! official results.

use std::collections::BTreeMap;

use super::table;
use crate::race::{CarStatus, Event, Race};
use crate::record::{
    Entry, Lap, Pit, Position, RaceControl, Record, Session, StartingGrid, Time, Weather, decode,
};

type Row = BTreeMap<String, String>;

fn number<T: std::str::FromStr>(row: &Row, name: &str) -> Option<T> {
    row[name].parse().ok()
}

fn optional(row: &Row, name: &str) -> Option<String> {
    Some(row[name].clone()).filter(|t| !t.is_empty())
}

fn by_session(rows: Vec<Row>, key: &str) -> BTreeMap<i32, Vec<Row>> {
    let mut sessions = BTreeMap::<i32, Vec<Row>>::new();
    for row in rows {
        if let Some(session) = number(&row, key) {
            sessions.entry(session).or_default().push(row);
        }
    }
    sessions
}

fn lap(session_key: i32, row: &Row, complete: bool) -> Lap {
    let when = |name| complete.then(|| number(row, name)).flatten();
    Lap {
        meeting_key: 1,
        session_key,
        driver_number: number(row, "driver_number").unwrap(),
        lap_number: number(row, "lap_number").unwrap(),
        date_start: number(row, "date_start_utc"),
        duration_sector_1: when("sector1_s"),
        duration_sector_2: when("sector2_s"),
        duration_sector_3: when("sector3_s"),
        i1_speed: None,
        i2_speed: None,
        st_speed: None,
        is_pit_out_lap: Some(row["is_out_lap"] == "1"),
        lap_duration: when("lap_time_s"),
        segments_sector_1: None,
        segments_sector_2: None,
        segments_sector_3: None,
    }
}

fn weather(session_key: i32, date: Time) -> Weather {
    Weather {
        meeting_key: 1,
        session_key,
        date,
        air_temperature: None,
        track_temperature: None,
        humidity: None,
        pressure: None,
        rainfall: None,
        wind_direction: None,
        wind_speed: None,
    }
}

/// The messages of a race in the order of their times.
fn feed(key: i32, laps: &[Row], control: &[Row], pits: &[Row], grid: &[Row]) -> Vec<Entry> {
    let mut dated: Vec<(Time, Record)> = Vec::new();
    for (i, row) in laps.iter().enumerate() {
        let follows = |a: &Row, b: &Row| {
            let lap = |r: &Row| number::<u16>(r, "lap_number").unwrap_or_default();
            a["driver_number"] == b["driver_number"] && lap(a) + 1 == lap(b)
        };
        let end = |r: &Row| {
            Some(number::<Time>(r, "date_start_utc")?.plus_seconds(number(r, "lap_time_s")?))
        };
        let before = i
            .checked_sub(1)
            .map(|b| &laps[b])
            .filter(|b| follows(b, row));
        let after = laps.get(i + 1).filter(|a| follows(row, a));
        let Some(start) = number::<Time>(row, "date_start_utc").or(before.and_then(end)) else {
            continue;
        };
        dated.push((start, Record::Lap(Box::new(lap(key, row, false)))));
        if number::<f64>(row, "lap_time_s").is_none() && number::<f64>(row, "sector3_s").is_none() {
            continue;
        }
        let sector = |name| number::<f64>(row, name).unwrap_or(30.0);
        let sectors = sector("sector1_s") + sector("sector2_s") + sector("sector3_s");
        let end = number::<f64>(row, "lap_time_s")
            .map(|s| start.plus_seconds(s))
            .or_else(|| after.and_then(|a| number(a, "date_start_utc")))
            .unwrap_or(start.plus_seconds(sectors));
        dated.push((
            end.plus_seconds(0.18),
            Record::Lap(Box::new(lap(key, row, true))),
        ));
        if let Some(position) = number::<f64>(row, "position") {
            let record = Position {
                meeting_key: 1,
                session_key: key,
                driver_number: number(row, "driver_number").unwrap(),
                date: end,
                position: position as u8,
            };
            dated.push((end.plus_seconds(0.1), Record::Position(record)));
        }
    }
    for row in control {
        let date: Time = row["date"].parse().unwrap();
        let record = RaceControl {
            meeting_key: 1,
            session_key: key,
            date: Some(date),
            driver_number: number(row, "driver_number"),
            lap_number: number(row, "lap_number"),
            category: optional(row, "category"),
            flag: optional(row, "flag"),
            scope: optional(row, "scope"),
            sector: number(row, "sector"),
            qualifying_phase: None,
            message: optional(row, "message"),
        };
        dated.push((
            date.plus_seconds(0.14),
            Record::RaceControl(Box::new(record)),
        ));
    }
    for row in pits {
        let Some(date) = number::<Time>(row, "date") else {
            continue;
        };
        let record = Pit {
            meeting_key: 1,
            session_key: key,
            driver_number: number(row, "driver_number").unwrap(),
            date: Some(date),
            lap_number: number(row, "lap_number"),
            lane_duration: number(row, "pit_duration"),
            stop_duration: None,
            pit_duration: None,
        };
        dated.push((date.plus_seconds(0.22), Record::Pit(Box::new(record))));
    }
    dated.sort_by_key(|(t, _)| *t);
    // Weather comes every minute, and for a while after the last word.
    if let (Some(first), Some(last)) = (dated.first(), dated.last()) {
        let (first, minutes) = (first.0, last.0.seconds_since(first.0) as u64 / 60 + 15);
        dated.extend((0..minutes).map(|m| {
            let date = first.plus_seconds(60.0 * m as f64);
            (date, Record::Weather(Box::new(weather(key, date))))
        }));
        dated.sort_by_key(|(t, _)| *t);
    }
    let session = Session {
        meeting_key: 1,
        session_key: key,
        session_type: Some("Race".into()),
        session_name: Some("Race".into()),
        date_start: None,
        date_end: None,
        gmt_offset: None,
        location: None,
        country_key: None,
        country_code: None,
        country_name: None,
        circuit_key: None,
        circuit_short_name: None,
        year: None,
        is_cancelled: None,
    };
    let mut entries = vec![Entry::new(Record::Session(Box::new(session)))];
    entries.extend(grid.iter().map(|row| {
        Entry::new(Record::StartingGrid(StartingGrid {
            meeting_key: 1,
            session_key: key - 4,
            driver_number: number(row, "driver_number").unwrap(),
            position: number(row, "position"),
            lap_duration: number(row, "lap_duration"),
        }))
    }));
    entries.extend(dated.into_iter().map(|(_, record)| Entry::new(record)));
    entries
}

fn result(key: i32, row: &Row) -> Entry {
    let or_null = |name| Some(row[name].as_str()).filter(|v| !v.is_empty());
    let whole = |name| or_null(name).map_or("null", |v| v.trim_end_matches(".0"));
    let flag = |name: &str| row[name].to_ascii_lowercase();
    let payload = format!(
        r#"{{"meeting_key":1,"session_key":{key},"driver_number":{},"position":{},"number_of_laps":{},"dnf":{},"dns":{},"dsq":{}}}"#,
        row["driver_number"],
        whole("position"),
        whole("number_of_laps"),
        flag("dnf"),
        flag("dns"),
        flag("dsq"),
    );
    decode("v1/session_result", &payload.into()).unwrap().entry
}

/// Once the results are known, laps and status are theirs.
fn check_results(mut race: Race, key: i32, results: &[Row]) {
    for row in results {
        race.apply(race.seq + 1, &result(key, row));
    }
    assert!(race.session.finished);
    let rows = race.classification();
    for row in results {
        let driver: u8 = number(row, "driver_number").unwrap();
        let ours = rows.iter().find(|r| r.driver_number == driver).unwrap();
        // The only car without laps was shown the black flag (Interlagos 2024).
        if let Some(laps) = number::<u16>(row, "number_of_laps") {
            assert_eq!(ours.laps, laps, "{key} car {driver}");
        }
        let is = |name: &str| row[name].eq_ignore_ascii_case("true");
        let classified = number::<u8>(row, "position").is_some();
        let expected = match (is("dnf"), is("dns"), classified && !is("dsq")) {
            (true, _, _) => CarStatus::Retired,
            (_, true, _) => CarStatus::NotStarted,
            (_, _, true) => CarStatus::Finished,
            _ => CarStatus::Disqualified,
        };
        let status = race.car(driver).unwrap().status;
        assert_eq!(status, expected, "{key} car {driver}");
    }
}

#[test]
fn every_race_of_two_seasons_comes_out_as_the_stewards_had_it() {
    let mut laps = Vec::new();
    for year in [2023, 2024] {
        let Some(rows) = table(&format!("laps/laps-{year}.csv.zst")) else {
            return;
        };
        laps.extend(rows);
    }
    let read = |name: &str, key| {
        Some(by_session(
            table(&format!("strategy/{name}-2023-2024.csv.zst"))?,
            key,
        ))
    };
    let mut laps = by_session(laps, "session_key");
    for rows in laps.values_mut() {
        rows.sort_by_key(|r| (r["driver_number"].clone(), number::<u16>(r, "lap_number")));
    }
    let Some(control) = read("race_control", "session_key") else {
        return;
    };
    let Some(pits) = read("pit", "session_key") else {
        return;
    };
    let Some(grids) = read("starting_grid", "race_session_key") else {
        return;
    };
    let Some(results) = read("session_result", "session_key") else {
        return;
    };
    let (mut races, mut cars, mut same_laps, mut same_place, mut false_alarms) = (0, 0, 0, 0, 0);
    let (mut same_end, mut late) = (0, Vec::new());
    for (key, result) in &results {
        let (Some(laps), Some(control), Some(grid)) =
            (laps.get(key), control.get(key), grids.get(key))
        else {
            continue;
        };
        let entries = feed(*key, laps, control, pits.get(key).map_or(&[], |p| p), grid);
        let mut race = Race::new();
        for (seq, entry) in entries.iter().enumerate() {
            let events = race.apply(seq as u64, entry);
            false_alarms += events
                .iter()
                .filter(|e| matches!(e, Event::Resumed { .. }))
                .count();
        }
        races += 1;
        let rows = race.classification();
        let place = |driver: u8| rows.iter().find(|r| r.driver_number == driver);
        let mut odd = Vec::new();
        for row in result {
            let driver: u8 = number(row, "driver_number").unwrap();
            let Some(ours) = place(driver) else {
                odd.push(format!("{driver} unknown"));
                continue;
            };
            cars += 1;
            let official_laps: u16 = number(row, "number_of_laps").unwrap_or_default();
            if ours.laps == official_laps {
                same_laps += 1;
            } else {
                odd.push(format!(
                    "{driver}: {} laps, officially {official_laps}",
                    ours.laps
                ));
            }
            let official: Option<u8> = number(row, "position");
            if official.is_none_or(|p| p == ours.corrected_position) {
                same_place += 1;
            } else {
                odd.push(format!(
                    "{driver}: P{} officially P{}",
                    ours.corrected_position,
                    official.unwrap()
                ));
            }
            let out = row["dnf"].eq_ignore_ascii_case("true");
            let status = race.car(driver).unwrap().status;
            if out == (status == CarStatus::Retired)
                || row["dns"].eq_ignore_ascii_case("true")
                || row["dsq"].eq_ignore_ascii_case("true")
            {
                same_end += 1;
            } else {
                late.push(format!("{key} {driver}: {status:?}"));
            }
        }
        check_results(race, *key, result);
        if !odd.is_empty() {
            eprintln!(
                "{} {} {key}: {}",
                laps[0]["season"],
                laps[0]["event_name"],
                odd.join("; ")
            );
        }
    }
    eprintln!(
        "{races} races, {cars} cars: laps as officially {same_laps}, place with announced penalties {same_place}, \
         finished or not {same_end}; {false_alarms} retirements taken back; {late:?}"
    );
    // What differs, by hand: laps that the tables lack (Monza 2023, Monaco 2024), penalties and
    // disqualifications after the race (Spielberg, Austin, Mexico 2023; Melbourne, Miami, Spa 2024), a
    // penalty taken back (Jeddah 2023), a restart by an order from before (Melbourne 2023), a restart
    // time without a time zone (Zandvoort 2023), a black flag that took the laps (Interlagos 2024).
    assert_eq!((races, cars), (43, 859));
    assert!(same_laps >= 835 && same_place >= 795 && same_end >= 856);
    assert!(false_alarms <= 3);
}
