//! Disorder: repeats, late records, absurd dates.

use proptest::prelude::*;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{fold, recording};
use crate::race::Race;
use crate::record::{Entry, Record, Time};

/// Furthest that a record is moved.
const WINDOW: usize = 64;

/// The same records, each at most [`WINDOW`] places from where it was, some of them twice.
fn disorder(entries: &[Entry], seed: u64) -> Vec<Entry> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = Vec::with_capacity(entries.len() + entries.len() / 16);
    for chunk in entries.chunks(WINDOW) {
        let mut chunk: Vec<Entry> = chunk.to_vec();
        for _ in 0..WINDOW / 20 {
            let again = chunk[rng.random_range(0..chunk.len())].clone();
            chunk.push(again);
        }
        chunk.shuffle(&mut rng);
        out.extend(chunk);
    }
    out
}

/// What must not depend on the order of arrival.
fn truth(race: &Race) -> serde_json::Value {
    let cars: Vec<_> = race
        .cars()
        .iter()
        .map(|c| {
            let laps: Vec<_> = c
                .laps
                .iter()
                .map(|l| {
                    (
                        l.number,
                        l.started,
                        l.ended,
                        l.sectors,
                        l.duration,
                        l.deleted,
                        l.is_in_lap,
                        l.is_out_lap,
                        l.compound,
                        l.tyre_age,
                        l.is_complete(),
                    )
                })
                .map(|l| format!("{l:?}"))
                .collect();
            (
                c.driver_number,
                c.grid,
                c.position,
                c.laps_completed,
                c.best_lap_s.map(f64::to_bits),
                laps,
                format!("{:?}", c.status),
            )
        })
        .map(|c| (c.0, format!("{c:?}")))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_iter()
        .collect();
    serde_json::json!({
        "classification": race.classification(),
        "stints": race.stint_rows(),
        "pits": race.pit_rows(),
        "track": race.track.history,
        "penalties": race.penalties,
        "cars": cars,
    })
}

#[test]
fn disorder_within_64_records_changes_no_truth() {
    for name in ["2024-bahrain-race", "2023-dutch-race"] {
        let Some(entries) = recording(name) else {
            return;
        };
        // What comes before the stream is order enough: a session must be known for its records.
        let expected = truth(&fold(entries));
        for seed in 0..3 {
            let mut mixed = entries[..WINDOW].to_vec();
            mixed.extend(disorder(&entries[WINDOW..], seed));
            let found = truth(&fold(&mixed));
            for (key, value) in expected.as_object().unwrap() {
                if &found[key] != value {
                    let (a, b) = (value.to_string(), found[key].to_string());
                    let at = a
                        .bytes()
                        .zip(b.bytes())
                        .position(|(x, y)| x != y)
                        .unwrap_or_default();
                    let show = |s: &str| {
                        s.chars()
                            .skip(at.saturating_sub(200))
                            .take(400)
                            .collect::<String>()
                    };
                    panic!("{name}, seed {seed}, {key}:\n{}\n{}", show(&a), show(&b));
                }
            }
        }
    }
}

#[test]
fn a_record_from_the_future_now_and_then_does_no_harm() {
    let Some(entries) = recording("2024-bahrain-race-first-10-minutes") else {
        return;
    };
    let expected = fold(entries);
    let mut race = Race::new();
    for (i, entry) in entries.iter().enumerate() {
        race.apply(i as u64, entry);
        if i > 1000 && i % 5000 == 0 {
            let mut wild = entry.clone();
            match &mut wild.record {
                Record::Location(r) => r.date = Time::LATEST,
                Record::CarData(r) => r.date = Time::LATEST,
                _ => continue,
            }
            race.apply(i as u64, &wild);
        }
    }
    assert_eq!(race.clock, expected.clock);
    assert!(race.refused_dates() > 0);
    let speeds = |race: &Race| race.cars().iter().map(|c| c.last_seen).max();
    assert_eq!(speeds(&race), speeds(&expected));
}

/// Any record at all of the kinds that change a race, with few keys so that they meet.
fn any_entry() -> impl Strategy<Value = Entry> {
    let messages = prop::sample::select(vec![
        "RED FLAG",
        "TRACK CLEAR",
        "SAFETY CAR DEPLOYED",
        "SAFETY CAR IN THIS LAP",
        "VIRTUAL SAFETY CAR ENDING",
        "RACE WILL RESUME AT 17:14 - ROLLING START PROCEDURE",
        "RACE WILL RESUME AT 99:99",
        "FIA STEWARDS: 5 SECOND TIME PENALTY FOR CAR 1 (VER) - X",
        "FIA STEWARDS: BLACK FLAG FOR CAR 2 (SAR)",
        "CAR 3 (RIC) TIME 1:24.920 DELETED - TRACK LIMITS AT TURN 3 LAP 6 15:11:22",
        "CARS 1 (VER) AND 2 (SAR) STOPPED",
        "CHEQUERED FLAG",
        "TIME PENALTY FOR CAR",
        " SECOND PENALTY FOR CAR 3 AT :",
    ]);
    let flags = prop::sample::select(vec![
        "null",
        "\"RED\"",
        "\"CHEQUERED\"",
        "\"GREEN\"",
        "\"YELLOW\"",
        "\"CLEAR\"",
    ]);
    let topic = prop::sample::select(vec![
        "v1/laps",
        "v1/position",
        "v1/pit",
        "v1/stints",
        "v1/car_data",
        "v1/location",
        "v1/intervals",
        "v1/race_control",
        "v1/session_result",
        "v1/starting_grid",
        "v1/sessions",
        "v1/weather",
        "v1/drivers",
    ]);
    let duration = prop::option::weighted(0.5, 0.0..3000.0f64);
    (topic, messages, flags, (0u8..40, 0u16..=200, -5_000i64..5_000), (duration.clone(), duration), (0i64..5, 1i32..4)).prop_map(
        |(topic, message, flag, (driver, lap, t), (a, b), (id, session))| {
            let driver = driver.max(1);
            let date = Time::from_millis(1_700_000_000_000 + t * 1000);
            let json = |v: Option<f64>| v.map_or("null".into(), |v| format!("{v}"));
            let payload = format!(
                r#"{{"meeting_key":1,"session_key":{session},"driver_number":{driver},"lap_number":{lap},"date":"{date}","date_start":"{date}",
                "duration_sector_1":{},"lap_duration":{},"lane_duration":{},"position":{},"stint_number":{},"lap_start":{lap},"lap_end":{lap},
                "compound":"SOFT","tyre_age_at_start":{driver},"message":"{message}","flag":{flag},"scope":"Track","sector":{},"speed":{lap},
                "session_type":"Race","session_name":"Race","number_of_laps":{lap},"segments_sector_1":[2064,null],"segments_sector_3":[null,2064],"_id":{id}}}"#,
                json(a), json(b), json(b), driver.max(1), driver % 30, i16::from(driver) - 3,
            );
            crate::record::decode(topic, &bytes::Bytes::from(payload)).unwrap().entry
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_in_any_order_keep_the_invariants(entries in prop::collection::vec(any_entry(), 1..400)) {
        let mut race = Race::new();
        for (seq, entry) in entries.iter().enumerate() {
            race.apply(seq as u64, entry);
        }
        let again = fold(&entries);
        prop_assert_eq!(&race, &again);
        let rows = race.classification();
        prop_assert_eq!(rows.len(), race.cars().len());
        for (i, row) in rows.iter().enumerate() {
            prop_assert_eq!(usize::from(row.position), i + 1);
            prop_assert!(rows.iter().filter(|r| r.corrected_position == row.position).count() == 1);
        }
        for car in race.cars() {
            prop_assert!(car.laps.windows(2).all(|l| l[0].number < l[1].number));
            prop_assert!(car.stints.windows(2).all(|s| s[0].number < s[1].number));
            prop_assert!(car.laps_completed <= 200);
            prop_assert_eq!(race.car(car.driver_number).unwrap().driver_number, car.driver_number);
        }
        prop_assert!(race.track.history.windows(2).all(|h| h[0].t <= h[1].t && h[0].status != h[1].status));
        prop_assert!(race.bytes() < 4 << 20);
        prop_assert_eq!(race.order().len(), race.cars().len());
        serde_json::to_vec(&race).unwrap();
    }
}
