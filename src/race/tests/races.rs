//! Whole races.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{fold, official, recording};
use crate::race::{
    CarStatus, Compound, Event, LapState, MAX_LAPS, Race, SessionType, Standing, TrackStatus,
};
use crate::record::{Entry, Record};

const BAHRAIN: &str = "2024-bahrain-race";
const DUTCH: &str = "2023-dutch-race";

fn order(race: &Race) -> Vec<u8> {
    race.classification()
        .iter()
        .map(|r| r.driver_number)
        .collect()
}

/// Stints and pits are what the last version of each says.
fn check_stints_and_pits(entries: &[Entry], race: &Race) {
    let mut stints = BTreeMap::new();
    let mut pits = BTreeSet::new();
    for e in entries {
        match &e.record {
            Record::Stint(r) => {
                let compound = Compound::parse(r.compound.as_deref().unwrap_or_default());
                let held = (compound, r.lap_start.unwrap(), r.lap_end.unwrap());
                stints.insert((r.driver_number, r.stint_number), held);
            }
            Record::Pit(r) => {
                pits.insert((r.driver_number, r.lap_number));
            }
            _ => {}
        }
    }
    let folded: BTreeMap<_, _> = race
        .stint_rows()
        .iter()
        .map(|s| {
            (
                (s.driver_number, s.stint_number),
                (s.compound, s.lap_start, s.lap_end),
            )
        })
        .collect();
    assert_eq!(folded, stints);
    let folded: BTreeSet<_> = race
        .pit_rows()
        .iter()
        .map(|p| (p.driver_number, p.lap))
        .collect();
    assert_eq!(folded, pits);
    assert_eq!(race.pit_rows().len(), pits.len());
}

fn check_laps(entries: &[Entry], race: &Race) {
    for (driver, laps, _) in official(entries) {
        assert_eq!(
            race.car(driver).unwrap().laps_completed,
            laps,
            "car {driver}"
        );
    }
}

/// Everything is said once, and what was said is what there is.
fn check_events(entries: &[Entry]) {
    let mut race = Race::new();
    let mut said = BTreeMap::<String, u32>::new();
    let mut laps = BTreeSet::new();
    for (seq, entry) in entries.iter().enumerate() {
        for event in &race.apply(seq as u64, entry) {
            match event {
                Event::LapCompleted { driver_number, lap } => {
                    let state = race.car(*driver_number).unwrap().lap(*lap).unwrap();
                    assert_eq!(state.completed_seq, Some(seq as u64));
                    laps.insert((*driver_number, *lap));
                }
                Event::PositionChanged { .. } | Event::TrackStatusChanged { .. } => continue,
                _ => {}
            }
            *said.entry(format!("{event:?}")).or_default() += 1;
        }
    }
    for (event, times) in &said {
        let may_recur = event.starts_with("Retired")
            || event.starts_with("Resumed")
            || event.starts_with("PenaltyGiven");
        assert!(*times == 1 || may_recur, "{event} said {times} times");
    }
    let expected: BTreeSet<_> = official(entries)
        .iter()
        .flat_map(|(driver, laps, _)| (1..=*laps).map(|l| (*driver, l)))
        .collect();
    let differ: Vec<_> = laps.symmetric_difference(&expected).collect();
    assert!(differ.is_empty(), "{differ:?}");
    for event in ["SessionStarted", "SessionFinished"] {
        assert_eq!(said.get(event), Some(&1), "{event}");
    }
}

#[test]
fn bahrain_2024_is_the_official_result() {
    let Some(entries) = recording(BAHRAIN) else {
        return;
    };
    let race = fold(entries);
    assert_eq!(race.session.session_type, SessionType::Race);
    assert_eq!(race.session.meeting_name.as_str(), "Bahrain Grand Prix");
    assert_eq!(race.session.circuit_short_name.as_str(), "Sakhir");
    assert!(race.session.finished);
    let expected: Vec<u8> = official(entries).iter().map(|r| r.0).collect();
    assert_eq!(order(&race), expected);
    let running: Vec<u8> = race.order().iter().map(|c| c.driver_number).collect();
    assert_eq!(running, expected);
    for (i, row) in race.classification().iter().enumerate() {
        assert_eq!(usize::from(row.position), i + 1);
        assert_eq!(row.corrected_position, row.position);
        assert_eq!(row.official.as_ref().unwrap().position, Some(row.position));
        let behind = 57 - row.laps;
        let status = if behind == 0 {
            Standing::Finished
        } else {
            Standing::Lapped(behind)
        };
        assert_eq!(row.status, status);
        if let (Some(gap), Some(crate::record::Gap::Seconds(s))) =
            (row.gap_s, row.official.as_ref().unwrap().gap_to_leader)
        {
            assert!(
                (gap - s).abs() < 0.25,
                "car {}: {gap} s, officially {s} s",
                row.driver_number
            );
        }
    }
    check_laps(entries, &race);
    check_stints_and_pits(entries, &race);
    assert!(race.penalties.is_empty());
    assert_eq!(race.track_status(), TrackStatus::Chequered);
    assert_eq!(race.leader_lap(), 57);
    // Track limits: the time of lap 3 of car 4 was deleted.
    assert!(race.car(4).unwrap().lap(3).unwrap().deleted);
    assert_eq!(race.car(1).unwrap().grid, Some(1));
    assert_eq!(race.car(1).unwrap().qualifying_s, Some(89.179));
    assert!(!race.weather.as_ref().unwrap().rained());
}

#[test]
fn the_dutch_race_of_2023_is_the_order_on_the_road() {
    let Some(entries) = recording(DUTCH) else {
        return;
    };
    let race = fold(entries);
    let road = [
        1, 14, 11, 10, 55, 44, 4, 23, 81, 31, 18, 27, 22, 40, 20, 77, 63, 24, 16, 2,
    ];
    assert_eq!(order(&race), road);
    // With the penalties that race control announced during the race it is the official result, but
    // for car 20, which got 5 s afterwards.
    let mut corrected = race.classification();
    corrected.sort_by_key(|r| r.corrected_position);
    let corrected: Vec<u8> = corrected.iter().map(|r| r.driver_number).collect();
    assert_eq!(
        corrected,
        [
            1, 14, 10, 11, 55, 44, 4, 23, 81, 31, 18, 27, 40, 20, 77, 22, 63, 24, 16, 2
        ]
    );
    // Which is what the feed's own positions say, too.
    for row in race.classification().iter().filter(|r| r.laps == 72) {
        assert_eq!(
            row.feed_position,
            Some(row.corrected_position),
            "car {}",
            row.driver_number
        );
    }
    let owed: BTreeMap<u8, f64> = race
        .classification()
        .iter()
        .filter(|r| r.penalty_s > 0.0)
        .map(|r| (r.driver_number, r.penalty_s))
        .collect();
    assert_eq!(owed, BTreeMap::from([(11, 5.0), (22, 5.0)]));
    let given: Vec<(u8, u16, bool)> = race
        .penalties
        .iter()
        .map(|p| (p.driver_number, p.seconds(), p.served))
        .collect();
    assert_eq!(
        given,
        [
            (40, 10, true),
            (10, 5, true),
            (22, 5, false),
            (11, 5, false)
        ]
    );
    for row in race.classification() {
        let retired = [24, 16, 2].contains(&row.driver_number);
        let status = if retired {
            Standing::Retired
        } else {
            Standing::Finished
        };
        assert_eq!(row.status, status, "car {}", row.driver_number);
    }
    check_laps(entries, &race);
    check_stints_and_pits(entries, &race);
    assert!(race.weather.as_ref().unwrap().rained());
    // The long waits in the pit lane are no stops; the stops before them are.
    let long = race
        .cars()
        .iter()
        .flat_map(|c| &c.pits)
        .filter(|p| p.lane_s > Some(600.0));
    assert!(long.clone().count() == 17 && long.clone().all(|p| p.under_red));
    assert!(
        race.car(14)
            .unwrap()
            .pits
            .iter()
            .filter(|p| !p.under_red)
            .count()
            >= 4
    );
}

#[test]
fn the_dutch_track_status_is_the_official_one() {
    let Some(entries) = recording(DUTCH) else {
        return;
    };
    let race = fold(entries);
    let expected = [
        ("13:25:25", TrackStatus::Yellow),
        ("13:26:04", TrackStatus::SafetyCar),
        ("13:36:19", TrackStatus::Clear),
        ("14:29:23", TrackStatus::Yellow),
        ("14:29:30", TrackStatus::Clear),
        ("14:30:11", TrackStatus::Yellow),
        ("14:30:29", TrackStatus::VirtualSafetyCar),
        ("14:31:16", TrackStatus::Red),
        ("15:10:39", TrackStatus::Clear),
        ("15:14:00", TrackStatus::SafetyCar),
        ("15:18:57", TrackStatus::Clear),
        ("15:27:08", TrackStatus::Chequered),
    ];
    let found: Vec<(String, TrackStatus)> = race
        .track_status_history()
        .iter()
        .filter(|c| c.t > race.session.started.unwrap())
        .map(|c| (c.t.to_string()[11..19].to_string(), c.status))
        .collect();
    let found: Vec<(&str, TrackStatus)> = found.iter().map(|(t, s)| (t.as_str(), *s)).collect();
    assert_eq!(found, expected);
}

#[test]
fn retirements_are_seen_while_the_race_goes_on() {
    let Some(entries) = recording(DUTCH) else {
        return;
    };
    let mut race = Race::new();
    let mut retired = BTreeMap::new();
    for (seq, entry) in entries.iter().enumerate() {
        for event in &race.apply(seq as u64, entry) {
            if let Event::Retired { driver_number } = event {
                retired.insert(*driver_number, (race.leader_laps_completed(), race.clock));
            }
            assert!(
                !matches!(event, Event::Resumed { .. }),
                "{event:?} at {}",
                race.clock
            );
        }
    }
    eprintln!("{retired:?}");
    let laps: Vec<(u8, u16)> = retired.iter().map(|(d, (lap, _))| (*d, *lap)).collect();
    // Car 2 crashed on its lap 15, car 16 parked after lap 41, car 24 crashed on lap 63.
    let soon = |laps: u16, at: u16| (at..=at + 3).contains(&laps);
    assert_eq!(laps.len(), 3);
    assert!(
        soon(laps[0].1, 15) && soon(laps[1].1, 41) && soon(laps[2].1, 62),
        "{laps:?}"
    );
}

#[test]
fn every_event_is_said_once() {
    for name in [BAHRAIN, DUTCH] {
        let Some(entries) = recording(name) else {
            return;
        };
        check_events(entries);
    }
}

#[test]
fn in_laps_and_out_laps_agree_with_the_pit_records() {
    for name in [BAHRAIN, DUTCH] {
        let Some(entries) = recording(name) else {
            return;
        };
        let race = fold(entries);
        let (mut both, mut only_marked) = (0, Vec::new());
        for car in race.cars() {
            for lap in &car.laps {
                match (
                    lap.is_in_lap,
                    car.pits.iter().any(|p| p.lap == Some(lap.number)),
                ) {
                    (true, true) => both += 1,
                    (true, false) => only_marked.push((car.driver_number, lap.number)),
                    (false, true) => {
                        panic!("car {} lap {} is an in-lap", car.driver_number, lap.number)
                    }
                    (false, false) => {}
                }
            }
            for pit in car.pits.iter().filter_map(|p| p.lap) {
                assert!(car.lap(pit + 1).is_none_or(|l| l.is_out_lap));
            }
        }
        eprintln!("{name}: {both} in-laps; only by mini-sectors: {only_marked:?}");
        // A car that parks in its garage for good has no pit exit.
        assert!(only_marked.len() <= 3, "{only_marked:?}");
    }
}

#[test]
fn tyre_age_follows_from_the_stints() {
    let Some(entries) = recording(BAHRAIN) else {
        return;
    };
    let race = fold(entries);
    let car = race.car(1).unwrap();
    assert_eq!(car.lap(1).unwrap().tyre_age, Some(4));
    for pair in car.laps.windows(2) {
        let same = car.stint_at(pair[0].number).unwrap().number
            == car.stint_at(pair[1].number).unwrap().number;
        if same {
            assert_eq!(pair[1].tyre_age.unwrap(), pair[0].tyre_age.unwrap() + 1);
        }
        assert_ne!(pair[0].compound, Compound::Unknown);
    }
    assert_eq!(car.lap(57).unwrap().compound, Compound::Soft);
}

#[test]
fn a_clone_between_two_halves_changes_nothing() {
    for name in [BAHRAIN, DUTCH] {
        let Some(entries) = recording(name) else {
            return;
        };
        let whole = fold(entries);
        let half = entries.len() / 2;
        let first = fold(&entries[..half]);
        let mut second = first.clone();
        drop(first);
        for (i, entry) in entries[half..].iter().enumerate() {
            second.apply((half + i) as u64, entry);
        }
        assert_eq!(whole, second);
        assert_eq!(whole, fold(entries));
        let (a, b) = (
            serde_json::to_vec(&whole).unwrap(),
            serde_json::to_vec(&second).unwrap(),
        );
        assert_eq!(a, b);
    }
}

#[test]
fn the_first_ten_minutes_are_a_race_in_progress() {
    let Some(entries) = recording("2024-bahrain-race-first-10-minutes") else {
        return;
    };
    let race = fold(entries);
    assert!(!race.session.finished);
    assert!(
        race.classification()
            .iter()
            .all(|r| r.status == Standing::Running)
    );
    assert!(
        race.cars()
            .iter()
            .all(|c| c.status == CarStatus::OnTrack || c.status == CarStatus::InPit)
    );
    let begun = entries.iter().filter_map(|e| match &e.record {
        Record::Lap(r) => Some(r.lap_number),
        _ => None,
    });
    assert_eq!(Some(race.leader_lap()), begun.max());
    assert_eq!(race.leader_laps_completed() + 1, race.leader_lap());
    assert_eq!(race.order().len(), 20);
}

#[test]
fn memory_is_bounded_and_the_fold_is_quick() {
    let Some(entries) = recording(DUTCH) else {
        return;
    };
    let started = Instant::now();
    let race = fold(entries);
    let seconds = started.elapsed().as_secs_f64();
    let rate = entries.len() as f64 / seconds;
    eprintln!(
        "{} records in {seconds:.2} s: {rate:.0} a second",
        entries.len()
    );
    let worst = size_of::<Race>()
        + super::super::MAX_CARS
            * (size_of::<crate::race::Car>() + MAX_LAPS * size_of::<LapState>());
    eprintln!(
        "state: {} KiB; a full one: {} KiB",
        race.bytes() / 1024,
        worst / 1024
    );
    assert!(worst < 2 << 20);
    // Far below what any build reaches; the figure above is the one to read.
    assert!(rate > 100_000.0);
}

#[test]
fn one_race_after_another_is_like_the_other_alone() {
    let Some(first) = recording("2023-dutch-race-first-10-minutes") else {
        return;
    };
    let Some(next) = recording(BAHRAIN) else {
        return;
    };
    let alone = fold(next);
    let after = fold(&[first, next].concat());
    assert_eq!(after.session, alone.session);
    assert_eq!(after.classification(), alone.classification());
    assert_eq!(after.stint_rows(), alone.stint_rows());
    assert_eq!(after.track, alone.track);
    let grid = |race: &Race| {
        race.cars()
            .iter()
            .map(|c| (c.driver_number, c.grid))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(grid(&after), grid(&alone));
}
