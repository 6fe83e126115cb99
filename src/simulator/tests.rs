//! What the feed of a simulated session must be: the same every time, like the real one, and true
//! to the race underneath.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use xxhash_rust::xxh3::Xxh3;

use super::circuit::CIRCUITS;
use super::truth::Status;
use super::*;
use crate::record::codec::Decoded;
use crate::record::{CarData, Entry, Kind, Lap, Location, OneOrEach, Record, decode};

/// Everything a simulator emits, decoded, and what really happened.
struct Taken {
    messages: Vec<(Time, Decoded)>,
    truths: Vec<Truth>,
}

fn take(options: Options) -> Taken {
    let mut simulator = Simulator::new(options).unwrap();
    let messages = simulator
        .by_ref()
        .map(|e| {
            let decoded = decode(&e.topic, &e.payload);
            (
                e.t,
                decoded.unwrap_or_else(|r| panic!("{}: {r}: {:?}", e.topic, e.payload)),
            )
        })
        .collect();
    Taken {
        messages,
        truths: simulator.truths().to_vec(),
    }
}

fn race(laps: u16) -> Options {
    Options {
        laps: Some(laps),
        ..Options::new(&CIRCUITS[3])
    }
}

/// A clean, dry race in which nothing happens.
fn quiet(laps: u16) -> Options {
    Options {
        dirt: 0.0,
        rain: Rain::Dry,
        incidents: Incidents::None,
        ..race(laps)
    }
}

/// A race of usual dirt that several tests look at.
static USUAL: LazyLock<Taken> = LazyLock::new(|| {
    take(Options {
        seed: 11,
        ..race(12)
    })
});

/// A race with everything in it.
static EVENTFUL: LazyLock<Taken> = LazyLock::new(|| {
    let script = [
        (3, Incident::Penalty(51, 5)),
        (5, Incident::SafetyCar),
        (11, Incident::VirtualSafetyCar),
        (14, Incident::Breakdown(7)),
        (17, Incident::Red),
        (21, Incident::Yellow),
    ];
    let script = script.map(|(lap, what)| Scripted { lap, what }).to_vec();
    let incidents = Incidents::Script(script);
    take(Options {
        incidents,
        rain: Rain::Dry,
        seed: 5,
        ..race(26)
    })
});

impl Taken {
    fn entries(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.messages
            .iter()
            .map(|(_, d)| &d.entry)
            .filter(move |e| e.record.kind() == kind)
    }

    fn laps(&self) -> impl Iterator<Item = &Lap> {
        self.entries(Kind::Lap).filter_map(|e| match &e.record {
            Record::Lap(lap) => Some(&**lap),
            _ => None,
        })
    }

    fn said(&self) -> Vec<&str> {
        self.entries(Kind::RaceControl)
            .filter_map(|e| match &e.record {
                Record::RaceControl(r) => r.message.as_deref(),
                _ => None,
            })
            .collect()
    }
}

/// A hash of every byte that a simulator emits, and how many messages there were.
fn hash(options: Options) -> (u64, usize) {
    let (mut hash, mut count) = (Xxh3::new(), 0);
    for e in Simulator::new(options).unwrap() {
        hash.update(&e.t.micros().to_le_bytes());
        hash.update(e.topic.as_bytes());
        hash.update(&e.payload);
        count += 1;
    }
    (hash.digest(), count)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let options = |seed| Options {
        seed,
        frames: Some(FrameOptions::at(50)),
        ..race(3)
    };
    let first = hash(options(1));
    assert!(first.1 > 50_000);
    assert_eq!(hash(options(1)), first);
    assert_ne!(hash(options(2)).0, first.0);
}

#[test]
fn dirt_changes_the_feed_and_not_the_race() {
    let (clean, dirty) = (
        take(Options {
            dirt: 0.0,
            ..race(4)
        }),
        take(Options {
            dirt: 20.0,
            ..race(4)
        }),
    );
    assert_eq!(clean.truths, dirty.truths);
    assert!(clean.messages.iter().all(|(_, d)| d.nulled.0 <= 3));
    let nulled = |t: &Taken, kind| {
        t.messages
            .iter()
            .filter(|(_, d)| d.entry.record.kind() == kind && d.nulled.0 > 0)
            .count()
    };
    assert_eq!(nulled(&clean, Kind::CarData), 0);
    assert!(nulled(&dirty, Kind::CarData) > 500);
}

#[test]
fn messages_come_in_the_order_of_their_receipt_with_rising_ids() {
    let mut last = (Time::default(), i64::MIN);
    for (t, decoded) in &USUAL.messages {
        let id = decoded.entry.id.expect("every document has an _id");
        assert!(*t >= last.0 && id > last.1, "{t} {id} after {last:?}");
        last = (*t, id);
        // Told after it happened; the start list tells of what is to come.
        if let Some(date) = decoded.entry.record.date()
            && !matches!(decoded.entry.record.kind(), Kind::Session | Kind::Meeting)
        {
            let delay = t.seconds_since(date);
            // A lap's date is that of its start, off by some milliseconds.
            let longest = if decoded.entry.record.kind() == Kind::Lap {
                3600.0
            } else {
                10.0
            };
            assert!(
                (-0.02..longest).contains(&delay),
                "{:?} {delay}",
                decoded.entry.record
            );
        }
    }
}

#[test]
fn keys_are_openf1s_own() {
    for kind in Kind::ALL {
        let indexed = matches!(
            kind,
            Kind::Driver | Kind::StartingGrid | Kind::SessionResult
        );
        for entry in USUAL.entries(kind) {
            assert_eq!(entry.key.is_some(), indexed, "{entry:?}");
        }
    }
    let repeated = |kind| {
        let all: Vec<_> = USUAL.entries(kind).map(Entry::document).collect();
        all.len() - all.iter().collect::<BTreeSet<_>>().len()
    };
    // The dirt sends some samples twice, with the same key.
    assert!((1..200).contains(&repeated(Kind::CarData)));
    assert_eq!(repeated(Kind::Interval), 0);
}

/// Rates of two recorded races: car_data 3.62 to 3.77 a second and car, location 3.74 to 3.89, an
/// interval every 3.9 to 5.9 s, 0.3 % of pedals lost in one race, 10 % of a car's in the other.
#[test]
fn the_feed_is_as_dense_and_as_dirty_as_the_real_one() {
    let (first, last) = (
        USUAL.messages[0].0,
        USUAL.messages[USUAL.messages.len() - 1].0,
    );
    let seconds = last.seconds_since(first);
    let rate = |kind| USUAL.entries(kind).count() as f64 / 20.0 / seconds;
    assert!(
        (3.55..3.85).contains(&rate(Kind::CarData)),
        "{}",
        rate(Kind::CarData)
    );
    assert!(
        (3.65..3.95).contains(&rate(Kind::Location)),
        "{}",
        rate(Kind::Location)
    );
    // Gaps are told while cars race.
    let raced = USUAL.truths[0].classification[0].race_time_s.unwrap();
    let every = 20.0 * raced / USUAL.entries(Kind::Interval).count() as f64;
    assert!((3.3..6.5).contains(&every), "an interval every {every} s");
    let minutes = seconds / 60.0;
    let weather = USUAL.entries(Kind::Weather).count() as f64;
    assert!((weather - minutes).abs() < 2.0);

    let share = |kind| {
        let of: Vec<_> = USUAL
            .messages
            .iter()
            .filter(|(_, d)| d.entry.record.kind() == kind)
            .collect();
        of.iter().filter(|(_, d)| d.nulled.0 > 0).count() as f64 / of.len() as f64
    };
    assert!(
        (0.002..0.006).contains(&share(Kind::CarData)),
        "{}",
        share(Kind::CarData)
    );
    assert!(
        (0.0001..0.08).contains(&share(Kind::Location)),
        "{}",
        share(Kind::Location)
    );

    // All cars share a date, as on the real feed.
    let mut cars: BTreeMap<Time, usize> = BTreeMap::new();
    for entry in USUAL.entries(Kind::CarData) {
        *cars.entry(entry.record.date().unwrap()).or_default() += 1;
    }
    assert!(cars.values().filter(|n| **n >= 19).count() * 100 > cars.len() * 95);
}

#[test]
fn a_lap_comes_in_four_pieces_that_sum_to_it() {
    let truth: BTreeMap<(u8, u16), f64> = USUAL.truths[0]
        .laps
        .iter()
        .map(|(d, lap, s)| ((*d, *lap), *s))
        .collect();
    let mut versions: BTreeMap<(u8, u16), usize> = BTreeMap::new();
    let mut complete = 0;
    for lap in USUAL.laps() {
        let key = (lap.driver_number, lap.lap_number);
        *versions.entry(key).or_default() += 1;
        let Some(duration) = lap.lap_duration else {
            continue;
        };
        complete += 1;
        assert!((duration - truth[&key]).abs() < 5e-4, "{key:?}");
        if let (Some(a), Some(b), Some(c)) = (
            lap.duration_sector_1,
            lap.duration_sector_2,
            lap.duration_sector_3,
        ) {
            assert!((a + b + c - duration).abs() < 1e-6, "{lap:?}");
        }
    }
    assert_eq!(complete, truth.len());
    assert!(truth.len() >= 20 * 11);
    for key in truth.keys() {
        assert_eq!(versions[key], 4, "{key:?}");
    }
}

/// Integrates one car's speed over its laps, and walks along its locations.
#[test]
fn telemetry_location_and_timing_agree() {
    for circuit in &CIRCUITS {
        let taken = take(Options {
            circuit,
            cars: 3,
            ..quiet(4)
        });
        let line = circuit::Line::of(circuit);
        let driver = taken.truths[0].classification[0].driver_number;
        let starts: BTreeMap<u16, Time> = taken
            .laps()
            .filter(|l| l.driver_number == driver)
            .filter_map(|l| Some((l.lap_number, l.date_start?)))
            .collect();
        let speeds: Vec<(Time, f64)> = taken
            .entries(Kind::CarData)
            .filter_map(|e| match &e.record {
                Record::CarData(CarData {
                    driver_number,
                    date,
                    speed: Some(v),
                    ..
                }) if *driver_number == driver => Some((*date, f64::from(*v) / 3.6)),
                _ => None,
            })
            .collect();
        let places: Vec<(Time, f64, f64)> = taken
            .entries(Kind::Location)
            .filter_map(|e| match &e.record {
                Record::Location(Location {
                    driver_number,
                    date,
                    x: Some(x),
                    y: Some(y),
                    ..
                }) if *driver_number == driver => {
                    Some((*date, f64::from(*x) / 10.0, f64::from(*y) / 10.0))
                }
                _ => None,
            })
            .collect();
        let (from, to) = (starts[&2], starts[&3]);
        let driven = |until: Time| -> f64 {
            speeds
                .windows(2)
                .map(|w| {
                    // Trapezium, cut at the lap's start and end.
                    let (a, b) = (w[0].0.max(from), w[1].0.min(until));
                    let seconds = b.seconds_since(a).max(0.0);
                    seconds * (w[0].1 + w[1].1) / 2.0
                })
                .sum()
        };
        let lap = driven(to);
        assert!(
            (lap / line.length - 1.0).abs() < 0.01,
            "{}: {lap} m",
            circuit.name
        );
        let walked: f64 = places
            .windows(2)
            .filter(|w| w[0].0 >= from && w[1].0 <= to)
            .map(|w| (w[0].1 - w[1].1).hypot(w[0].2 - w[1].2))
            .sum();
        // Chords cut corners; the ends of the lap lie between samples.
        assert!(
            (0.93..1.02).contains(&(walked / line.length)),
            "{}: {walked} m",
            circuit.name
        );
        // At the line, the car is where the line is.
        let home = line.at(0.0);
        let at_line = places.iter().find(|p| p.0 >= to).unwrap();
        let off = (at_line.1 - home.x).hypot(at_line.2 - home.y);
        assert!(off < 45.0, "{}: {off} m from the line", circuit.name);
    }
}

#[test]
fn frames_run_on_without_a_gap_and_say_what_the_feed_says() {
    let options = FrameOptions {
        rate_hz: 200,
        samples_per_frame: 100,
        channels: 16,
    };
    let taken = take(Options {
        cars: 2,
        frames: Some(options),
        ..quiet(2)
    });
    let mut next: BTreeMap<u8, (u64, Time)> = BTreeMap::new();
    let mut driven = 0.0;
    let fastest = taken.truths[0].classification[0].driver_number;
    let starts: BTreeMap<u16, Time> = taken
        .laps()
        .filter(|l| l.driver_number == fastest)
        .filter_map(|l| Some((l.lap_number, l.date_start?)))
        .collect();
    let end = starts[&1].plus_seconds(
        taken.truths[0]
            .laps
            .iter()
            .filter(|l| l.0 == fastest)
            .map(|l| l.2)
            .sum(),
    );
    let mut frames = 0;
    for (_, decoded) in &taken.messages {
        let Record::Frame(frame) = &decoded.entry.record else {
            continue;
        };
        frames += 1;
        assert_eq!((frame.samples, frame.period_us()), (100, Some(5000)));
        assert_eq!(
            frame.channels().map(|(n, _)| n).collect::<Vec<_>>(),
            CHANNELS
        );
        let expected = next.insert(frame.driver_number, (frame.sequence + 1, frame.last));
        match expected {
            Some((sequence, last)) => {
                assert_eq!(frame.sequence, sequence);
                assert_eq!(frame.first, last.plus_seconds(0.005));
            }
            None => assert_eq!(frame.sequence, 0),
        }
        if frame.driver_number == fastest {
            let speeds = frame.channel("speed").unwrap();
            for (t, v) in frame.times().zip(speeds.iter()) {
                if t >= starts[&2] && t < end {
                    driven += v / 3.6 * 0.005;
                }
            }
        }
    }
    assert!(frames > 2 * 2 * 60);
    let length = circuit::Line::of(&CIRCUITS[3]).length;
    assert!(
        (driven / length - 1.0).abs() < 0.003,
        "{driven} m of {length}"
    );
}

#[test]
fn what_is_scripted_happens_and_is_told() {
    let truth = &EVENTFUL.truths[0];
    let statuses: Vec<Status> = truth.track_status.iter().map(|(_, s)| *s).collect();
    use Status::*;
    assert_eq!(
        statuses,
        [
            Clear,
            SafetyCar,
            Clear,
            VirtualSafetyCar,
            VirtualSafetyCarEnding,
            Clear,
            Red,
            SafetyCar,
            Clear,
            Chequered
        ]
    );
    let said = EVENTFUL.said();
    for words in [
        "SAFETY CAR DEPLOYED",
        "SAFETY CAR IN THIS LAP",
        "VIRTUAL SAFETY CAR DEPLOYED",
        "VIRTUAL SAFETY CAR ENDING",
        "TRACK CLEAR",
        "RED FLAG",
        "DRS ENABLED",
        "DRS DISABLED",
        "CHEQUERED FLAG",
        "FIA STEWARDS: 5 SECOND TIME PENALTY FOR CAR 51 (SOR) - SPEEDING IN THE PIT LANE",
    ] {
        assert!(said.contains(&words), "{words}: {said:#?}");
    }
    assert!(
        said.iter()
            .any(|m| m.starts_with("CAR 7 (ARD) STOPPED ON TRACK"))
    );
    assert!(said.iter().any(|m| m.starts_with("YELLOW IN TRACK SECTOR")));
    let stopped = truth
        .classification
        .iter()
        .find(|c| c.driver_number == 7)
        .unwrap();
    assert!(
        stopped.retired && (13..=15).contains(&stopped.laps),
        "{stopped:?}"
    );
    // Everyone sat the red flag out in the lane, and changed tyres.
    let sat_out: BTreeSet<u8> = truth
        .pits
        .iter()
        .filter(|p| p.lane_s > 300.0)
        .map(|p| p.driver_number)
        .collect();
    assert_eq!(sat_out.len(), 19, "{:?}", truth.pits);
    // It does not cost anybody a lap.
    let laps: Vec<u16> = truth
        .classification
        .iter()
        .filter(|c| !c.retired)
        .map(|c| c.laps)
        .collect();
    assert!(laps.iter().filter(|l| **l == 26).count() >= 15, "{laps:?}");
}

#[test]
fn the_result_the_stints_and_the_pits_are_the_truths() {
    for (taken, laps) in [(&*USUAL, 12), (&*EVENTFUL, 26)] {
        let truth = &taken.truths[0];
        assert_eq!(truth.classification.len(), 20);
        let mut official = truth.classification.clone();
        official.sort_by_key(|c| c.official_position);
        let results: Vec<_> = taken
            .entries(Kind::SessionResult)
            .filter_map(|e| match &e.record {
                Record::SessionResult(r) => Some(r),
                _ => None,
            })
            .collect();
        assert_eq!(results.len(), 20);
        for (result, c) in results.iter().zip(&official) {
            assert_eq!(result.driver_number, c.driver_number);
            assert_eq!(result.number_of_laps, Some(c.laps));
            assert_eq!(result.dnf, Some(c.retired));
            let completed = truth.laps.iter().filter(|l| l.0 == c.driver_number).count();
            assert_eq!(completed, usize::from(c.laps));
            if c.laps == laps {
                let total: f64 = truth
                    .laps
                    .iter()
                    .filter(|l| l.0 == c.driver_number)
                    .map(|l| l.2)
                    .sum();
                let Some(OneOrEach::One(duration)) = result.duration else {
                    panic!("no duration: {result:?}");
                };
                // From lights out; the first lap starts within a step of it.
                assert!(
                    (duration - total - c.penalty_s).abs() < 0.2,
                    "{duration} {total}"
                );
            }
        }
        assert!(
            official
                .windows(2)
                .all(|w| w[0].laps >= w[1].laps || w[0].retired || w[1].retired)
        );

        // Last version of each stint, and each pit, as folded from the feed.
        let mut stints = BTreeMap::new();
        for entry in taken.entries(Kind::Stint) {
            let Record::Stint(s) = &entry.record else {
                continue;
            };
            let told = (
                s.compound.clone().unwrap(),
                s.lap_start.unwrap(),
                s.lap_end.unwrap(),
            );
            stints.insert((s.driver_number, s.stint_number), told);
        }
        let true_stints: BTreeMap<_, _> = truth
            .stints
            .iter()
            .map(|s| {
                let told = (s.compound.name().to_owned(), s.lap_start, s.lap_end);
                ((s.driver_number, s.stint_number), told)
            })
            .collect();
        assert_eq!(stints, true_stints);
        // A car's stints follow each other without a gap.
        for ((driver, number), (_, start, _)) in &stints {
            match stints.get(&(*driver, number - 1)) {
                Some((_, _, end)) => assert_eq!(*start, end + 1, "car {driver} stint {number}"),
                None => assert_eq!((*number, *start), (1, 1)),
            }
        }
        let pits: Vec<(u8, Option<u16>)> = taken
            .entries(Kind::Pit)
            .filter_map(|e| match &e.record {
                Record::Pit(p) => Some((p.driver_number, p.lap_number)),
                _ => None,
            })
            .collect();
        let mut true_pits: Vec<_> = truth
            .pits
            .iter()
            .map(|p| (p.driver_number, Some(p.lap)))
            .collect();
        let mut told = pits;
        told.sort_unstable();
        true_pits.sort_unstable();
        assert_eq!(told, true_pits);
    }
}

#[test]
fn the_last_positions_are_the_order_on_the_road() {
    for taken in [&*USUAL, &*EVENTFUL] {
        let mut positions = BTreeMap::new();
        for entry in taken.entries(Kind::Position) {
            if let Record::Position(p) = &entry.record {
                positions.insert(p.driver_number, p.position);
            }
        }
        for c in &taken.truths[0].classification {
            assert_eq!(
                positions[&c.driver_number], c.position,
                "car {}",
                c.driver_number
            );
        }
    }
}

#[test]
fn rain_brings_out_the_wet_tyres() {
    let rain = Rain::ShowerAt(4.0);
    let taken = take(Options {
        rain,
        seed: 2,
        ..race(14)
    });
    let wet = taken.truths[0]
        .stints
        .iter()
        .filter(|s| !s.compound.is_slick())
        .count();
    assert!(wet >= 15, "{wet} stints on wet tyres");
    let rained = taken.entries(Kind::Weather).any(|e| match &e.record {
        Record::Weather(w) => w.rainfall == Some(1),
        _ => false,
    });
    assert!(rained);
}

#[test]
fn a_weekend_starts_its_race_as_it_qualified() {
    let options = Options {
        programme: Programme::Weekend,
        minutes: Some(24),
        dirt: 0.0,
        rain: Rain::Dry,
        ..race(3)
    };
    let taken = take(options);
    assert_eq!(taken.truths.len(), 3);
    let keys: BTreeSet<i32> = taken.truths.iter().map(|t| t.session_key).collect();
    assert_eq!(keys.len(), 3);
    let qualified: Vec<u8> = taken.truths[1]
        .classification
        .iter()
        .map(|c| c.driver_number)
        .collect();
    let grid: Vec<(u8, i32)> = taken
        .entries(Kind::StartingGrid)
        .filter_map(|e| match &e.record {
            Record::StartingGrid(g) => Some((g.driver_number, g.session_key)),
            _ => None,
        })
        .collect();
    assert_eq!(grid.iter().map(|g| g.0).collect::<Vec<_>>(), qualified);
    assert!(grid.iter().all(|g| g.1 == taken.truths[1].session_key));
    // Who goes out in the first part has no time in the second.
    let parts: Vec<usize> = taken
        .entries(Kind::SessionResult)
        .filter_map(|e| match &e.record {
            Record::SessionResult(r) if r.session_key == taken.truths[1].session_key => {
                match &r.duration {
                    Some(OneOrEach::Each(parts)) => Some(parts.iter().flatten().count()),
                    _ => None,
                }
            }
            _ => None,
        })
        .collect();
    assert_eq!(parts.len(), 20);
    assert_eq!(parts.iter().filter(|n| **n == 3).count(), 10, "{parts:?}");
    assert_eq!(parts.iter().filter(|n| **n == 1).count(), 5, "{parts:?}");
}

#[test]
fn options_out_of_their_bounds_are_refused() {
    let refused = |options: Options| Simulator::new(options).err().map(|e| e.to_string());
    assert_eq!(refused(quiet(3)), None);
    let said = refused(Options {
        cars: 21,
        ..quiet(3)
    });
    assert_eq!(
        said.as_deref(),
        Some("cars is 21; it must be within 2 and 20")
    );
    assert!(refused(quiet(0)).is_some());
    assert!(
        refused(Options {
            dirt: f64::NAN,
            ..quiet(3)
        })
        .is_some()
    );
    assert!(
        refused(Options {
            frames: Some(FrameOptions::at(49)),
            ..quiet(3)
        })
        .is_some()
    );
}
