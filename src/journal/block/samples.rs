//! Entries of every kind for tests, each from a seed.

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::record::prediction::*;
use crate::record::*;

fn text(rng: &mut ChaCha8Rng) -> String {
    let n = rng.random_range(0..40);
    (0..n).map(|_| rng.random_range(' '..'ÿ')).collect()
}

fn maybe<T>(rng: &mut ChaCha8Rng, make: impl FnOnce(&mut ChaCha8Rng) -> T) -> Option<T> {
    rng.random_bool(0.8).then(|| make(rng))
}

fn float(rng: &mut ChaCha8Rng) -> f64 {
    match rng.random_range(0..4) {
        0 => 0.0,
        1 => -rng.random::<f64>() * 1e-300,
        2 => f64::from(rng.random_range(0..200_000)) / 1000.0,
        _ => rng.random::<f64>() * 1e17,
    }
}

fn gap(rng: &mut ChaCha8Rng) -> Gap {
    match rng.random_bool(0.5) {
        true => Gap::Seconds(float(rng)),
        false => Gap::Laps(rng.random_range(0..80)),
    }
}

fn segments(rng: &mut ChaCha8Rng) -> Vec<Option<i32>> {
    let n = rng.random_range(0..9);
    (0..n).map(|_| maybe(rng, |r| r.random())).collect()
}

fn head(bytes: &mut Vec<u8>, major: u8, v: u64) {
    bytes.push(major << 5 | 27);
    bytes.extend_from_slice(&v.to_be_bytes());
}

/// A frame's payload: the map that `Frame` documents, of one 8-bit channel.
pub fn frame(session: u16, driver: u8, sequence: u32, first: Time, samples: &[u8]) -> Frame {
    let mut b = vec![0xa6];
    let key = |b: &mut Vec<u8>, name: &str| {
        b.push(0x60 | name.len() as u8);
        b.extend_from_slice(name.as_bytes());
    };
    for (name, v) in [
        ("session", u64::from(session)),
        ("driver", u64::from(driver)),
        ("seq", u64::from(sequence)),
        ("t0", first.micros() as u64),
        ("dt", 1000),
    ] {
        key(&mut b, name);
        head(&mut b, 0, v);
    }
    key(&mut b, "ch");
    b.push(0xa1);
    key(&mut b, "gear");
    b.extend_from_slice(&[0xd8, 64]);
    head(&mut b, 2, samples.len() as u64);
    b.extend_from_slice(samples);
    Frame::decode(Bytes::from(b)).expect("a well-formed frame")
}

fn provenance(rng: &mut ChaCha8Rng, session_key: i32, made_at: Time) -> Provenance {
    Provenance {
        session_key,
        made_at,
        seq: rng.random_range(0..1000),
        model: text(rng),
        backend: "cpu".into(),
        stale_s: float(rng),
    }
}

fn quantiles(rng: &mut ChaCha8Rng) -> Quantiles {
    Quantiles {
        p10: float(rng),
        p50: float(rng),
        p90: float(rng),
    }
}

fn prediction(rng: &mut ChaCha8Rng, session: i32, driver_number: u8, t: Time) -> Prediction {
    let provenance = provenance(rng, session, t);
    match rng.random_range(0..3) {
        0 => Prediction::LapTime(LapTimePrediction {
            provenance,
            driver_number,
            lap_number: rng.random(),
            sectors_known: rng.random(),
            lap_time: quantiles(rng),
        }),
        1 => Prediction::Race(OrderPrediction {
            provenance,
            lap_number: rng.random(),
            cars: (0..rng.random_range(0..4))
                .map(|driver_number| FinishPrediction {
                    driver_number,
                    expected_position: float(rng),
                    p_win: float(rng),
                    p_podium: float(rng),
                    p_points: float(rng),
                    p_retirement: float(rng),
                    positions: (0..rng.random_range(0..5)).map(|_| rng.random()).collect(),
                })
                .collect(),
        }),
        _ => Prediction::Pit(PitPrediction {
            provenance,
            driver_number,
            lap_number: rng.random(),
            p_within_1: float(rng),
            p_within_2: float(rng),
            p_within_3: float(rng),
            p_within_5: float(rng),
            p_stop: float(rng),
            in_lap: maybe(rng, quantiles),
            compounds: (0..rng.random_range(0..3))
                .map(|_| CompoundChance {
                    compound: text(rng),
                    probability: float(rng),
                })
                .collect(),
            reason: text(rng),
        }),
    }
}

/// An entry of `kind` from `seed`. Keys repeat often, so that documents have versions.
pub fn entry_of(kind: Kind, seed: u64) -> Entry {
    let r = &mut ChaCha8Rng::seed_from_u64(seed);
    let session_key = r.random_range(9470..9473);
    let meeting_key = 1229;
    let driver_number = r.random_range(1..6);
    // Dates on whole seconds within a minute, and a few anywhere.
    let date = match r.random_range(0..20) {
        0 => Time::from_micros(r.random_range(Time::EARLIEST.micros()..Time::LATEST.micros())),
        _ => Time::from_millis(1_709_391_600_000 + 1000 * r.random_range(0..60)),
    };
    let record = match kind {
        Kind::CarData => Record::CarData(CarData {
            meeting_key,
            session_key,
            driver_number,
            date,
            rpm: maybe(r, |r| r.random()),
            speed: maybe(r, |r| r.random()),
            n_gear: maybe(r, |r| r.random_range(0..9)),
            throttle: maybe(r, |r| r.random()),
            brake: maybe(r, |r| r.random()),
            drs: maybe(r, |r| r.random()),
        }),
        Kind::Location => Record::Location(Location {
            meeting_key,
            session_key,
            driver_number,
            date,
            x: maybe(r, |r| r.random()),
            y: maybe(r, |r| r.random()),
            z: maybe(r, |r| r.random()),
        }),
        Kind::Interval => Record::Interval(Interval {
            meeting_key,
            session_key,
            driver_number,
            date,
            gap_to_leader: maybe(r, gap),
            interval: maybe(r, gap),
        }),
        Kind::Position => Record::Position(Position {
            meeting_key,
            session_key,
            driver_number,
            date,
            position: r.random(),
        }),
        Kind::Lap => Record::Lap(Box::new(Lap {
            meeting_key,
            session_key,
            driver_number,
            lap_number: r.random_range(0..4),
            date_start: maybe(r, |_| date),
            duration_sector_1: maybe(r, float),
            duration_sector_2: maybe(r, float),
            duration_sector_3: maybe(r, float),
            i1_speed: maybe(r, |r| r.random()),
            i2_speed: maybe(r, |r| r.random()),
            st_speed: maybe(r, |r| r.random()),
            is_pit_out_lap: maybe(r, |r| r.random()),
            lap_duration: maybe(r, float),
            segments_sector_1: maybe(r, segments),
            segments_sector_2: maybe(r, segments),
            segments_sector_3: maybe(r, segments),
        })),
        Kind::Pit => Record::Pit(Box::new(Pit {
            meeting_key,
            session_key,
            driver_number,
            date: maybe(r, |_| date),
            lap_number: maybe(r, |r| r.random_range(0..4)),
            lane_duration: maybe(r, float),
            stop_duration: maybe(r, float),
            pit_duration: maybe(r, float),
        })),
        Kind::Stint => Record::Stint(Box::new(Stint {
            meeting_key,
            session_key,
            driver_number,
            stint_number: r.random_range(0..3),
            lap_start: maybe(r, |r| r.random()),
            lap_end: maybe(r, |r| r.random()),
            compound: maybe(r, text),
            tyre_age_at_start: maybe(r, |r| r.random()),
        })),
        Kind::Weather => Record::Weather(Box::new(Weather {
            meeting_key,
            session_key,
            date,
            air_temperature: maybe(r, float),
            track_temperature: maybe(r, float),
            humidity: maybe(r, float),
            pressure: maybe(r, float),
            rainfall: maybe(r, |r| r.random()),
            wind_direction: maybe(r, |r| r.random()),
            wind_speed: maybe(r, float),
        })),
        Kind::RaceControl => Record::RaceControl(Box::new(RaceControl {
            meeting_key,
            session_key,
            date: maybe(r, |_| date),
            driver_number: maybe(r, |_| driver_number),
            lap_number: maybe(r, |r| r.random_range(0..3)),
            category: None,
            flag: maybe(r, |_| "GREEN".into()),
            scope: None,
            sector: maybe(r, |r| r.random_range(0..3)),
            qualifying_phase: maybe(r, |r| r.random()),
            message: maybe(r, text),
        })),
        Kind::Overtake => Record::Overtake(Overtake {
            meeting_key,
            session_key,
            date,
            overtaking_driver_number: driver_number,
            overtaken_driver_number: r.random(),
            position: maybe(r, |r| r.random()),
        }),
        Kind::TeamRadio => Record::TeamRadio(Box::new(TeamRadio {
            meeting_key,
            session_key,
            driver_number,
            date,
            recording_url: maybe(r, text),
        })),
        Kind::Driver => Record::Driver(Box::new(Driver {
            meeting_key,
            session_key,
            driver_number,
            broadcast_name: maybe(r, text),
            full_name: maybe(r, text),
            name_acronym: maybe(r, text),
            team_name: maybe(r, text),
            team_colour: maybe(r, text),
            first_name: maybe(r, text),
            last_name: maybe(r, text),
            headshot_url: maybe(r, text),
            country_code: maybe(r, text),
        })),
        Kind::Session => Record::Session(Box::new(Session {
            meeting_key,
            session_key,
            session_type: maybe(r, text),
            session_name: maybe(r, text),
            date_start: maybe(r, |_| date),
            date_end: maybe(r, |_| date),
            gmt_offset: maybe(r, text),
            location: maybe(r, text),
            country_key: maybe(r, |r| r.random()),
            country_code: maybe(r, text),
            country_name: maybe(r, text),
            circuit_key: maybe(r, |r| r.random()),
            circuit_short_name: maybe(r, text),
            year: maybe(r, |r| r.random()),
            is_cancelled: maybe(r, |r| r.random()),
        })),
        Kind::Meeting => Record::Meeting(Box::new(Meeting {
            meeting_key,
            meeting_name: maybe(r, text),
            meeting_official_name: maybe(r, text),
            meeting_code: maybe(r, text),
            date_start: maybe(r, |_| date),
            date_end: maybe(r, |_| date),
            gmt_offset: maybe(r, text),
            location: maybe(r, text),
            country_key: maybe(r, |r| r.random()),
            country_code: maybe(r, text),
            country_name: maybe(r, text),
            circuit_key: maybe(r, |r| r.random()),
            circuit_short_name: maybe(r, text),
            year: maybe(r, |r| r.random()),
            is_cancelled: maybe(r, |r| r.random()),
        })),
        Kind::StartingGrid => Record::StartingGrid(StartingGrid {
            meeting_key,
            session_key,
            driver_number,
            position: maybe(r, |r| r.random()),
            lap_duration: maybe(r, float),
        }),
        Kind::SessionResult => Record::SessionResult(Box::new(SessionResult {
            meeting_key,
            session_key,
            driver_number,
            position: maybe(r, |r| r.random()),
            number_of_laps: maybe(r, |r| r.random()),
            points: maybe(r, float),
            dnf: maybe(r, |r| r.random()),
            dns: maybe(r, |r| r.random()),
            dsq: maybe(r, |r| r.random()),
            duration: maybe(r, |r| match r.random_bool(0.5) {
                true => OneOrEach::One(float(r)),
                false => OneOrEach::Each(vec![None, Some(float(r))]),
            }),
            gap_to_leader: maybe(r, |r| match r.random_bool(0.5) {
                true => OneOrEach::One(gap(r)),
                false => OneOrEach::Each(vec![Some(gap(r)), None, Some(gap(r))]),
            }),
        })),
        Kind::ChampionshipDriver => Record::ChampionshipDriver(Box::new(ChampionshipDriver {
            meeting_key,
            session_key,
            driver_number,
            position_start: maybe(r, |r| r.random()),
            position_current: maybe(r, |r| r.random()),
            points_start: maybe(r, float),
            points_current: maybe(r, float),
        })),
        Kind::ChampionshipTeam => Record::ChampionshipTeam(Box::new(ChampionshipTeam {
            meeting_key,
            session_key,
            team_name: text(r),
            position_start: maybe(r, |r| r.random()),
            position_current: maybe(r, |r| r.random()),
            points_start: maybe(r, float),
            points_current: maybe(r, float),
        })),
        Kind::Frame => {
            let samples: Vec<u8> = (0..r.random_range(1..200)).map(|_| r.random()).collect();
            let sequence = r.random_range(0..50);
            let first = Time::from_millis(1_709_391_600_000 + i64::from(r.random::<u16>()));
            Record::Frame(Box::new(frame(
                session_key as u16,
                driver_number,
                sequence,
                first,
                &samples,
            )))
        }
        Kind::Prediction => {
            Record::Prediction(Box::new(prediction(r, session_key, driver_number, date)))
        }
    };
    let id = match kind {
        Kind::Frame | Kind::Prediction => None,
        _ => maybe(r, |r| match r.random_bool(0.1) {
            true => r.random(),
            false => 1_709_391_600_000 + r.random_range(0..100_000),
        }),
    };
    // Now and then a source's own key: text of its own, or what another record would derive.
    let key = (r.random_bool(0.1)).then(|| match r.random_bool(0.5) {
        true => text(r),
        false => format!(
            "{}_{}",
            1_709_391_600_000i64 + 1000 * r.random_range(0..60),
            r.random_range(1..6)
        ),
    });
    let key = key.filter(|k| k != key::derive(&record).as_str());
    Entry {
        record,
        id,
        key: key.map(Into::into),
    }
}

/// An entry of some kind; half of them are telemetry.
pub fn entry(seed: u64) -> Entry {
    let kind = match seed % 40 {
        n if n < 10 => Kind::CarData,
        n if n < 20 => Kind::Location,
        n => Kind::ALL[n as usize - 20],
    };
    entry_of(kind, seed)
}
