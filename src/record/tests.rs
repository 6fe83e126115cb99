//! What must hold for every record, whatever its kind: round trips, keys, and that bytes from
//! outside can do no more than be refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::codec::{Decoded, MAX_DOCUMENT_BYTES, MAX_FRAME_BYTES, encode, openf1_topic};
use super::frame::FrameBuilder;
use super::prediction::{LapTimePrediction, Provenance, Quantiles};
use super::sanitise::{MAX_DURATION_S, MAX_LAP, Nulled};
use super::*;

/// Mutated messages in the test that CI runs; the fuzz targets go on from there.
const MUTATIONS: usize = 100_000;

/// Kinds that arrive as documents.
const DOCUMENTS: &[Kind] = Kind::ALL.split_at(18).0;

/// Draws records that are possible, with every field as often absent as the feeds leave it out,
/// and with text that is hard on codecs.
struct Draw(ChaCha8Rng);

impl Draw {
    fn seeded(seed: u64) -> Draw {
        Draw(ChaCha8Rng::seed_from_u64(seed))
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.0.random_bool(0.8).then(|| value(self))
    }

    fn whole<T: TryFrom<i64>>(&mut self, low: i64, high: i64) -> T {
        let n = self.0.random_range(low..=high);
        T::try_from(n).unwrap_or_else(|_| panic!("{n} does not fit"))
    }

    /// At most six decimals, as feeds write them.
    fn decimal(&mut self, low: f64, high: f64) -> f64 {
        let unit = *[1e6, 1e3, 1.0].choose(&mut self.0).unwrap();
        let n = self
            .0
            .random_range((low * unit).ceil() as i64..=(high * unit).floor() as i64);
        n as f64 / unit
    }

    fn seconds(&mut self) -> Option<f64> {
        self.maybe(|d| d.decimal(0.001, MAX_DURATION_S))
    }

    fn time(&mut self) -> Time {
        let us = self
            .0
            .random_range(Time::EARLIEST.micros()..=Time::LATEST.micros());
        match self.0.random_range(0..3) {
            0 => Time::from_micros(us),
            1 => Time::from_millis(us / 1000),
            _ => Time::from_millis(us / 1_000_000 * 1000),
        }
    }

    fn text(&mut self) -> String {
        const HARD: [&str; 8] = ["\"", "\\", "\n", "\0", "é", "😀", "\u{2028}", "_"];
        let len = self.0.random_range(0..24);
        (0..len)
            .map(|_| match self.0.random_bool(0.1) {
                true => (*HARD.choose(&mut self.0).unwrap()).to_owned(),
                false => char::from(self.0.random_range(b' '..=b'~')).to_string(),
            })
            .collect()
    }

    fn words(&mut self) -> Option<String> {
        self.maybe(Self::text)
    }

    fn gap(&mut self) -> Gap {
        match self.0.random_bool(0.8) {
            true => Gap::Seconds(self.decimal(0.0, MAX_DURATION_S)),
            false => Gap::Laps(self.0.random()),
        }
    }

    fn one_or_each<T>(&mut self, value: impl Fn(&mut Self) -> T) -> OneOrEach<T> {
        match self.0.random_bool(0.5) {
            true => OneOrEach::One(value(self)),
            false => OneOrEach::Each((0..3).map(|_| self.maybe(&value)).collect()),
        }
    }

    fn segments(&mut self) -> Option<Vec<Option<i32>>> {
        self.maybe(|d| {
            let len = d.0.random_range(0..30);
            (0..len).map(|_| d.maybe(|d| d.whole(2048, 2070))).collect()
        })
    }

    fn record(&mut self, kind: Kind) -> Record {
        let meeting_key = self.whole(0, 99_999);
        let session_key = self.whole(0, 99_999);
        let driver_number = self.whole(1, 99);
        match kind {
            Kind::CarData => Record::CarData(CarData {
                meeting_key,
                session_key,
                driver_number,
                date: self.time(),
                rpm: self.maybe(|d| d.whole(0, 20_000)),
                speed: self.maybe(|d| d.whole(0, 400)),
                n_gear: self.maybe(|d| d.whole(0, 8)),
                throttle: self.maybe(|d| d.whole(0, 100)),
                brake: self.maybe(|d| d.whole(0, 100)),
                drs: self.maybe(|d| d.whole(0, 14)),
            }),
            Kind::Location => Record::Location(Location {
                meeting_key,
                session_key,
                driver_number,
                date: self.time(),
                x: self.maybe(|d| d.whole(1, i32::MAX.into())),
                y: self.maybe(|d| d.whole(i32::MIN.into(), i32::MAX.into())),
                z: self.maybe(|d| d.whole(-20_000, 20_000)),
            }),
            Kind::Interval => Record::Interval(Interval {
                meeting_key,
                session_key,
                driver_number,
                date: self.time(),
                gap_to_leader: self.maybe(Self::gap),
                interval: self.maybe(Self::gap),
            }),
            Kind::Position => Record::Position(Position {
                meeting_key,
                session_key,
                driver_number,
                date: self.time(),
                position: self.whole(1, 99),
            }),
            Kind::Lap => Record::Lap(Box::new(Lap {
                meeting_key,
                session_key,
                driver_number,
                lap_number: self.whole(0, MAX_LAP.into()),
                date_start: self.maybe(Self::time),
                duration_sector_1: self.seconds(),
                duration_sector_2: self.seconds(),
                duration_sector_3: self.seconds(),
                i1_speed: self.maybe(|d| d.whole(0, 400)),
                i2_speed: self.maybe(|d| d.whole(0, 400)),
                st_speed: self.maybe(|d| d.whole(0, 400)),
                is_pit_out_lap: self.maybe(|d| d.0.random()),
                lap_duration: self.seconds(),
                segments_sector_1: self.segments(),
                segments_sector_2: self.segments(),
                segments_sector_3: self.segments(),
            })),
            Kind::Pit => Record::Pit(Box::new(Pit {
                meeting_key,
                session_key,
                driver_number,
                date: self.maybe(Self::time),
                lap_number: self.maybe(|d| d.whole(0, MAX_LAP.into())),
                lane_duration: self.seconds(),
                stop_duration: self.seconds(),
                pit_duration: self.seconds(),
            })),
            Kind::Stint => Record::Stint(Box::new(Stint {
                meeting_key,
                session_key,
                driver_number,
                stint_number: self.whole(0, 255),
                lap_start: self.maybe(|d| d.whole(0, MAX_LAP.into())),
                lap_end: self.maybe(|d| d.whole(0, MAX_LAP.into())),
                compound: self.words(),
                tyre_age_at_start: self.maybe(|d| d.whole(0, 99)),
            })),
            Kind::Weather => Record::Weather(Box::new(Weather {
                meeting_key,
                session_key,
                date: self.time(),
                air_temperature: self.maybe(|d| d.decimal(-30.0, 60.0)),
                track_temperature: self.maybe(|d| d.decimal(-30.0, 90.0)),
                humidity: self.maybe(|d| d.decimal(0.0, 100.0)),
                pressure: self.maybe(|d| d.decimal(500.0, 1100.0)),
                rainfall: self.maybe(|d| d.whole(0, 1)),
                wind_direction: self.maybe(|d| d.whole(0, 360)),
                wind_speed: self.maybe(|d| d.decimal(0.0, 100.0)),
            })),
            Kind::RaceControl => Record::RaceControl(Box::new(RaceControl {
                meeting_key,
                session_key,
                date: self.maybe(Self::time),
                driver_number: self.maybe(|d| d.whole(1, 99)),
                lap_number: self.maybe(|d| d.whole(0, 99)),
                category: self.words(),
                flag: self.words(),
                scope: self.words(),
                sector: self.maybe(|d| d.whole(0, 40)),
                qualifying_phase: self.maybe(|d| d.whole(1, 3)),
                message: self.words(),
            })),
            Kind::Overtake => Record::Overtake(Overtake {
                meeting_key,
                session_key,
                date: self.time(),
                overtaking_driver_number: driver_number,
                overtaken_driver_number: self.whole(1, 99),
                position: self.maybe(|d| d.whole(1, 99)),
            }),
            Kind::TeamRadio => Record::TeamRadio(Box::new(TeamRadio {
                meeting_key,
                session_key,
                driver_number,
                date: self.time(),
                recording_url: self.words(),
            })),
            Kind::Driver => Record::Driver(Box::new(Driver {
                meeting_key,
                session_key,
                driver_number,
                broadcast_name: self.words(),
                full_name: self.words(),
                name_acronym: self.words(),
                team_name: self.words(),
                team_colour: self.words(),
                first_name: self.words(),
                last_name: self.words(),
                headshot_url: self.words(),
                country_code: self.words(),
            })),
            Kind::Session => Record::Session(Box::new(Session {
                meeting_key,
                session_key,
                session_type: self.words(),
                session_name: self.words(),
                date_start: self.maybe(Self::time),
                date_end: self.maybe(Self::time),
                gmt_offset: self.words(),
                location: self.words(),
                country_key: self.maybe(|d| d.whole(0, 999)),
                country_code: self.words(),
                country_name: self.words(),
                circuit_key: self.maybe(|d| d.whole(0, 999)),
                circuit_short_name: self.words(),
                year: self.maybe(|d| d.whole(1950, 2100)),
                is_cancelled: self.maybe(|d| d.0.random()),
            })),
            Kind::Meeting => Record::Meeting(Box::new(Meeting {
                meeting_key,
                meeting_name: self.words(),
                meeting_official_name: self.words(),
                meeting_code: self.words(),
                date_start: self.maybe(Self::time),
                date_end: self.maybe(Self::time),
                gmt_offset: self.words(),
                location: self.words(),
                country_key: self.maybe(|d| d.whole(0, 999)),
                country_code: self.words(),
                country_name: self.words(),
                circuit_key: self.maybe(|d| d.whole(0, 999)),
                circuit_short_name: self.words(),
                year: self.maybe(|d| d.whole(1950, 2100)),
                is_cancelled: self.maybe(|d| d.0.random()),
            })),
            Kind::StartingGrid => Record::StartingGrid(StartingGrid {
                meeting_key,
                session_key,
                driver_number,
                position: self.maybe(|d| d.whole(1, 99)),
                lap_duration: self.maybe(|d| d.decimal(1.0, 600.0)),
            }),
            Kind::SessionResult => Record::SessionResult(Box::new(SessionResult {
                meeting_key,
                session_key,
                driver_number,
                position: self.maybe(|d| d.whole(1, 99)),
                number_of_laps: self.maybe(|d| d.whole(0, 99)),
                points: self.maybe(|d| d.decimal(0.0, 26.0)),
                dnf: self.maybe(|d| d.0.random()),
                dns: self.maybe(|d| d.0.random()),
                dsq: self.maybe(|d| d.0.random()),
                duration: self.maybe(|d| d.one_or_each(|d| d.decimal(1.0, 9000.0))),
                gap_to_leader: self.maybe(|d| d.one_or_each(Self::gap)),
            })),
            Kind::ChampionshipDriver => Record::ChampionshipDriver(Box::new(ChampionshipDriver {
                meeting_key,
                session_key,
                driver_number,
                position_start: self.maybe(|d| d.whole(1, 99)),
                position_current: self.maybe(|d| d.whole(1, 99)),
                points_start: self.maybe(|d| d.decimal(0.0, 600.0)),
                points_current: self.maybe(|d| d.decimal(0.0, 600.0)),
            })),
            Kind::ChampionshipTeam => Record::ChampionshipTeam(Box::new(ChampionshipTeam {
                meeting_key,
                session_key,
                team_name: self.text(),
                position_start: self.maybe(|d| d.whole(1, 99)),
                position_current: self.maybe(|d| d.whole(1, 99)),
                points_start: self.maybe(|d| d.decimal(0.0, 900.0)),
                points_current: self.maybe(|d| d.decimal(0.0, 900.0)),
            })),
            Kind::Frame => Record::Frame(Box::new(self.frame())),
            Kind::Prediction => {
                Record::Prediction(Box::new(Prediction::LapTime(LapTimePrediction {
                    provenance: Provenance {
                        session_key,
                        made_at: self.time(),
                        seq: self.0.random::<u32>().into(),
                        model: self.text(),
                        backend: "cpu".into(),
                        stale_s: self.decimal(0.0, 60.0),
                    },
                    driver_number,
                    lap_number: self.whole(1, 99),
                    sectors_known: self.whole(0, 2),
                    lap_time: Quantiles {
                        p10: 90.1,
                        p50: 90.5,
                        p90: 91.25,
                    },
                })))
            }
        }
    }

    fn frame(&mut self) -> Frame {
        let (session, driver) = (self.whole(0, i32::MAX.into()), self.whole(1, 99));
        let sequence = self.0.random_range(0..=i64::MAX as u64);
        let samples = self.0.random_range(1..64);
        let first = Time::from_millis(self.0.random_range(0..4_000_000_000_000));
        let mut builder = if self.0.random() {
            FrameBuilder::evenly(
                session,
                driver,
                sequence,
                first,
                self.0.random_range(1..1_000_000),
            )
        } else {
            let mut at = first;
            let times: Vec<Time> = (0..samples)
                .map(|_| {
                    at = Time::from_micros(at.micros() + self.0.random_range(0..5000));
                    at
                })
                .collect();
            FrameBuilder::at(session, driver, sequence, &times)
        };
        macro_rules! channels {
            ($($ty:ty),*) => {$(
                if self.0.random_bool(0.5) {
                    let values: Vec<$ty> = (0..samples).map(|_| self.0.random()).collect();
                    builder.channel(concat!("as_", stringify!($ty)), &values[..]);
                }
            )*};
        }
        channels!(u8, u16, u32, u64, i8, i16, i32, i64, f64);
        let values: Vec<f32> = (0..samples).map(|_| self.0.random()).collect();
        builder.channel("speed.front-left/raw", &values[..]);
        builder.finish().expect("drawn within the bounds")
    }

    /// A record as one version of its document, with or without a key of the source's own.
    fn entry(&mut self, kind: Kind) -> Entry {
        Entry {
            record: self.record(kind),
            id: self.maybe(|d| d.0.random()),
            key: self
                .0
                .random_bool(0.3)
                .then(|| format!("{}~", self.text()).into()),
        }
    }
}

fn document_kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(DOCUMENTS)
}

fn payload(entry: &Entry, wire: Wire) -> Bytes {
    encode(entry, wire).into()
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(kind in document_kind(), seed: u64) {
        let entry = Draw::seeded(seed).entry(kind);
        let topic = openf1_topic(kind);
        let expected = Decoded { entry: entry.clone(), nulled: Nulled(0) };
        for wire in [Wire::Json, Wire::Cbor] {
            let payload = payload(&entry, wire);
            let read = decode(&topic, &payload);
            prop_assert_eq!(read.as_ref(), Ok(&expected), "{:?}", wire);
        }
        let suffixed = decode(&format!("{topic}/cbor"), &payload(&entry, Wire::Cbor));
        prop_assert_eq!(suffixed, Ok(expected));
    }

    #[test]
    fn unknown_fields_are_passed_over(kind in document_kind(), seed: u64) {
        let entry = Draw::seeded(seed).entry(kind);
        let mut object: serde_json::Value = serde_json::to_value(&entry).unwrap();
        let fields = object.as_object_mut().unwrap();
        fields.insert("_date_start_last_lap".into(), serde_json::Value::Null);
        fields.insert("tyre_mood".into(), serde_json::json!({"a": [1, {"b": "c"}], "d": 1.5}));
        let topic = openf1_topic(kind);
        let json = Bytes::from(serde_json::to_vec(&object).unwrap());
        let cbor = Bytes::from(serde_cbor::to_vec(&object).unwrap());
        prop_assert_eq!(decode(&topic, &json).map(|d| d.entry), Ok(entry.clone()));
        prop_assert_eq!(decode(&topic, &cbor).map(|d| d.entry), Ok(entry));
    }

    #[test]
    fn a_key_that_says_nothing_new_is_dropped(kind in document_kind(), seed: u64) {
        let mut entry = Draw::seeded(seed).entry(kind);
        entry.key = None;
        let document = entry.document();
        let topic = openf1_topic(kind);
        let derived = key::derive(&entry.record);
        let mut object = serde_json::to_value(&entry).unwrap();
        object["_key"] = derived.as_str().into();
        let read = decode(&topic, &Bytes::from(object.to_string())).unwrap().entry;
        prop_assert_eq!(&read.key, &None);
        prop_assert_eq!(read.document(), document);

        object["_key"] = format!("{}_0", derived.as_str()).into();
        let read = decode(&topic, &Bytes::from(object.to_string())).unwrap().entry;
        prop_assert_eq!(read.key.as_deref(), object["_key"].as_str());
        prop_assert_ne!(read.document(), document);
    }

    #[test]
    fn a_time_is_read_as_written(us in Time::EARLIEST.micros()..=Time::LATEST.micros()) {
        let time = Time::from_micros(us);
        prop_assert_eq!(time.to_string().parse::<Time>(), Ok(time));
        let zulu = time.to_string().replace("+00:00", "Z");
        prop_assert_eq!(zulu.parse::<Time>(), Ok(time));
        let naive = time.to_string().replace("+00:00", "");
        prop_assert_eq!(naive.parse::<Time>(), Ok(time));
    }

    #[test]
    fn a_prediction_is_read_as_written(seed: u64) {
        let Record::Prediction(prediction) = Draw::seeded(seed).record(Kind::Prediction) else {
            unreachable!("a prediction was drawn");
        };
        let json = serde_json::to_string(&prediction).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Prediction>(&json).unwrap(), &*prediction);
    }

    #[test]
    fn a_frame_is_read_as_written(seed: u64) {
        let frame = Draw::seeded(seed).frame();
        let read = decode(&frame.topic(), frame.payload()).unwrap().entry;
        prop_assert_eq!(&read.record, &Record::Frame(Box::new(frame.clone())));
        prop_assert_eq!(encode(&read, Wire::Json), frame.payload().to_vec());

        let times: Vec<Time> = frame.times().collect();
        prop_assert_eq!(times.len(), frame.samples as usize);
        prop_assert_eq!((times[0], times[times.len() - 1]), (frame.first, frame.last));
        prop_assert!(times.is_sorted());

        let json: serde_json::Value = serde_json::to_value(&frame).unwrap();
        prop_assert_eq!(json["seq"].as_u64(), Some(frame.sequence));
        prop_assert_eq!(json["t0"].as_i64(), Some(frame.first.micros()));
        for (name, samples) in frame.channels() {
            let array = json["channels"][name].as_array().unwrap();
            prop_assert_eq!(array.len(), frame.samples as usize);
            prop_assert_eq!(array[0].as_f64(), samples.get(0));
        }
    }

    /// A frame that lost its tail is never taken for a whole one.
    #[test]
    fn a_cut_frame_is_refused(seed: u64, cut in 0.0..1.0_f64) {
        let frame = Draw::seeded(seed).frame();
        let end = (frame.payload().len() as f64 * cut) as usize;
        let refused = Frame::decode(frame.payload().slice(..end));
        prop_assert!(matches!(refused, Err(Reject::Truncated(_))), "{:?}", refused);
    }
}

/// Breaks a message the ways that radio links, bugs and malice break them.
fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.random_range(1..=2) {
        let at = rng.random_range(0..=bytes.len());
        let to = rng.random_range(at..=bytes.len());
        match rng.random_range(0..8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                let from = rng.random_range(0..=other.len());
                bytes.splice(at..to, other[from..].iter().copied());
            }
            4 => bytes.insert(at, rng.random()),
            5 => bytes
                .splice(at..at, vec![*b"[{\x9f\xbf".choose(rng).unwrap(); 300])
                .for_each(drop),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match rng.random() {
                        true => *byte ^ (1 << rng.random_range(0..8)),
                        false => *b"0-9.e\"{}[],:\x00\x1b\xff".choose(rng).unwrap(),
                    };
                }
            }
        }
    }
}

/// Every mutated message is refused with a reason, or is a record that is possible: one that is
/// written and read again unchanged.
#[test]
fn mutated_messages_never_do_harm() {
    let mut draw = Draw::seeded(20_240_302);
    let mut seeds: Vec<(String, Bytes)> = Vec::new();
    for kind in DOCUMENTS {
        for wire in [Wire::Json, Wire::Cbor] {
            seeds.push((openf1_topic(*kind), payload(&draw.entry(*kind), wire)));
        }
    }
    for _ in 0..DOCUMENTS.len() {
        let frame = draw.frame();
        seeds.push((frame.topic(), frame.payload().clone()));
    }

    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..MUTATIONS {
        let (topic, payload) = seeds.choose(&mut draw.0).unwrap();
        let (_, other) = seeds.choose(&mut draw.0).unwrap();
        let mut bytes = payload.to_vec();
        mutate(&mut draw.0, &mut bytes, other);
        match decode(topic, &bytes.into()) {
            Err(reject) => *outcomes.entry(reject.reason()).or_default() += 1,
            Ok(decoded) => {
                *outcomes.entry("accepted").or_default() += 1;
                let again = decode(topic, &payload_of(&decoded.entry)).unwrap();
                assert_eq!(again.entry, decoded.entry);
                assert_eq!(again.nulled, Nulled(0));
            }
        }
    }
    // Should mutation break too little or too much, the test would say nothing.
    for (outcome, least) in [
        ("accepted", 1000),
        ("truncated", 1000),
        ("malformed", 1000),
        ("mistyped", 1000),
        ("absurd", 10),
        ("too_deep", 5),
    ] {
        let n = outcomes.get(outcome).copied().unwrap_or(0);
        assert!(
            n >= least,
            "only {n} of {MUTATIONS} were {outcome}: {outcomes:?}"
        );
    }
}

fn payload_of(entry: &Entry) -> Bytes {
    // CBOR keeps every bit of a float; JSON is allowed the last one.
    payload(entry, Wire::Cbor)
}

#[test]
fn a_list_is_no_document() {
    for (topic, payload) in [
        ("v1/meetings", &b"[1229]"[..]),
        (
            "v1/position",
            b" [\"2024-03-02T15:03:42+00:00\",9472,1229,1,1]",
        ),
        ("v1/meetings/cbor", &[0x81, 0x19, 0x04, 0xcd]),
        // Behind the tag that says "CBOR", and one of eight bytes.
        ("v1/meetings", &[0xd9, 0xd9, 0xf7, 0x81, 0x01]),
        (
            "v1/meetings/cbor",
            &[0xdb, 0, 0, 0, 0, 0, 0, 0xd9, 0xf7, 0x9f, 0x01, 0xff],
        ),
    ] {
        let refused = decode(topic, &Bytes::copy_from_slice(payload));
        assert!(
            matches!(refused, Err(Reject::Mistyped(_))),
            "{topic}: {refused:?}"
        );
    }
}

#[test]
fn a_meeting_without_a_number_is_refused() {
    for payload in [
        &br#"{"_key":"0"}"#[..],
        br#"{"meeting_key":0}"#,
        br#"{"_key":"0","meeting_key":0}"#,
    ] {
        let refused = decode("v1/meetings", &Bytes::from_static(payload));
        assert!(matches!(refused, Err(Reject::Mistyped(_))), "{refused:?}");
    }
    let kept = decode("v1/meetings", &Bytes::from_static(br#"{"_key":"1229"}"#)).unwrap();
    assert!(matches!(kept.entry.record, Record::Meeting(m) if m.meeting_key == 1229));
}

#[test]
fn oversized_messages_are_refused_unread() {
    let long = Bytes::from(vec![b' '; MAX_DOCUMENT_BYTES + 1]);
    assert_eq!(decode("v1/laps", &long).unwrap_err().reason(), "oversized");
    let long = Bytes::from(vec![0xa0; MAX_FRAME_BYTES + 1]);
    assert_eq!(
        decode("trackside/v1/frames/1/1", &long)
            .unwrap_err()
            .reason(),
        "oversized"
    );
}

/// The dirt of real feeds, field by field: nulled and counted, the rest of the record kept.
#[test]
fn what_cannot_be_is_nulled_and_counted() {
    let json = br#"{"meeting_key":1229,"session_key":9472,"driver_number":1,
        "date":"2024-03-02T15:02:42+00:00","rpm":11000.0,"speed":301,"n_gear":15,
        "throttle":104,"brake":104,"drs":8}"#;
    let decoded = decode("v1/car_data", &Bytes::from_static(json)).unwrap();
    let Record::CarData(car) = decoded.entry.record else {
        panic!("no car_data")
    };
    assert_eq!(decoded.nulled, Nulled(3));
    assert_eq!(
        (car.rpm, car.speed, car.drs),
        (Some(11_000), Some(301), Some(8))
    );
    assert_eq!((car.n_gear, car.throttle, car.brake), (None, None, None));

    let lost = br#"{"meeting_key":1,"session_key":2,"driver_number":3,
        "date":"2024-03-02T15:02:42.5Z","x":0,"y":0,"z":0}"#;
    let decoded = decode("v1/location", &Bytes::from_static(lost)).unwrap();
    assert_eq!(decoded.nulled, Nulled(3));
}

/// Too large for its column, a fraction, a boolean: the field is nulled and counted, in JSON as in CBOR.
#[test]
fn a_number_that_does_not_fit_costs_its_field() {
    let sample = |fields: &str| {
        format!(
            r#"{{"meeting_key":1229,"session_key":9472,"driver_number":1,
                "date":"2024-03-02T15:02:42+00:00",{fields}}}"#
        )
    };
    // The field of each collection's name, and the number of nulled fields.
    for (topic, fields, nulled) in [
        ("v1/car_data", r#""speed":99999,"throttle":50"#, 1),
        ("v1/car_data", r#""rpm":70000,"throttle":50"#, 1),
        (
            "v1/car_data",
            r#""rpm":1e30,"n_gear":-99999999999,"throttle":50"#,
            2,
        ),
        (
            "v1/car_data",
            r#""rpm":18446744073709551615,"throttle":50"#,
            1,
        ),
        ("v1/car_data", r#""rpm":11000.5,"throttle":50"#, 1),
        (
            "v1/car_data",
            r#""rpm":true,"brake":false,"throttle":50"#,
            2,
        ),
        ("v1/car_data", r#""rpm":null,"drs":8.0,"throttle":50"#, 0),
        (
            "v1/weather",
            r#""air_temperature":true,"rainfall":true,"humidity":50"#,
            2,
        ),
        ("v1/location", r#""x":3000000000,"y":-7,"z":0"#, 1),
    ] {
        let json = sample(fields);
        let value: serde_cbor::Value = serde_json::from_str(&json).unwrap();
        let cbor = serde_cbor::to_vec(&value).unwrap();
        for (topic, payload) in [
            (topic.to_owned(), Bytes::from(json.into_bytes())),
            (format!("{topic}/cbor"), Bytes::from(cbor)),
        ] {
            let decoded = decode(&topic, &payload).unwrap_or_else(|e| panic!("{fields}: {e}"));
            assert_eq!(decoded.nulled, Nulled(nulled), "{topic} {fields}");
            match decoded.entry.record {
                Record::CarData(r) => assert_eq!(r.throttle, Some(50), "{fields}"),
                Record::Weather(r) => assert_eq!((r.humidity, r.rainfall), (Some(50.0), None)),
                Record::Location(r) => assert_eq!((r.x, r.y), (None, Some(-7))),
                other => panic!("{other:?}"),
            }
        }
    }
    // What says which record it is must be what it has to be; and one count does not reach into the next.
    for wrong in [
        r#""driver_number":true"#,
        r#""driver_number":300"#,
        r#""driver_number":1.5"#,
        r#""driver_number":1,"_id":1.5"#,
        r#""driver_number":1,"_id":true"#,
        r#""driver_number":1,"rpm":99999,"speed":"fast""#,
    ] {
        let json = sample("")
            .replace(r#""driver_number":1"#, wrong)
            .replace(",}", "}");
        let refused = decode("v1/car_data", &Bytes::from(json.into_bytes()));
        assert!(
            matches!(refused, Err(Reject::Mistyped(_))),
            "{wrong}: {refused:?}"
        );
    }
    let clean = decode(
        "v1/car_data",
        &Bytes::from(sample(r#""rpm":9000"#).into_bytes()),
    );
    assert_eq!(clean.unwrap().nulled, Nulled(0));
}

/// JSON has no NaN, CBOR has: a record that held one would not be equal to itself.
#[test]
fn numbers_that_are_none_are_nulled() {
    let mut result = Draw::seeded(1).record(Kind::SessionResult);
    let mut team = Draw::seeded(1).record(Kind::ChampionshipTeam);
    if let (Record::SessionResult(r), Record::ChampionshipTeam(t)) = (&mut result, &mut team) {
        r.points = Some(f64::NAN);
        r.duration = Some(OneOrEach::Each(vec![Some(f64::NAN), Some(90.5)]));
        r.gap_to_leader = Some(OneOrEach::One(Gap::Seconds(f64::INFINITY)));
        (t.points_start, t.points_current) = (Some(f64::NAN), Some(-1.0));
    }
    for (record, nulled) in [(result, 3), (team, 2)] {
        let topic = openf1_topic(record.kind());
        let read = decode(&topic, &payload(&record.into(), Wire::Cbor)).unwrap();
        assert_eq!(read.nulled, Nulled(nulled));
        let again = decode(&topic, &payload(&read.entry, Wire::Cbor)).unwrap();
        assert_eq!(again.entry, read.entry);
        if let Record::SessionResult(r) = again.entry.record {
            assert_eq!(r.duration, Some(OneOrEach::Each(vec![None, Some(90.5)])));
            assert_eq!((r.points, r.gap_to_leader), (None, None));
        }
    }
}
