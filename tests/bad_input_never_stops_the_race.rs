//! Whatever comes in, the good messages arrive, and what is refused is counted by its reason.
//!
//! A million mutated messages (bits flipped, pieces cut out, doubled and mixed, thousands of open brackets,
//! too long, on topics that nobody knows) go through the writer into a journal and a race, and twenty thousand
//! through mosquitto into a daemon, with good messages of a session of their own in between.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::seq::{IndexedMutRandom, IndexedRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{
    Broker, BrokerOptions, Daemon, Publisher, Recorded, Recording, Scratch, mqtt_source, wait_for,
};
use trackside::ingest::Message;
use trackside::ingest::writer::{CommitOptions, Writer};
use trackside::journal::{Journal, Options, Query};
use trackside::race::Race;

const MUTATIONS: usize = 1_000_000;
const MUTATIONS_THROUGH_A_BROKER: usize = 20_000;
/// Bad messages from one good one to the next.
const BAD_PER_GOOD: usize = 10;
/// Messages from one commit to the next.
const COMMIT_EVERY: usize = 8_192;
/// The good messages' session, which no mutation hits by chance.
const SESSION: i32 = 1_947_110_777;
/// Recorded messages that are mutated.
const SEEDS: usize = 5_000;
const READY_WITHIN: Duration = Duration::from_secs(180);
const ARRIVED_WITHIN: Duration = Duration::from_secs(180);
/// Every reason that must have been met; else the mutations say too little.
const REASONS: [&str; 6] = [
    "unknown_topic",
    "oversized",
    "too_deep",
    "truncated",
    "malformed",
    "mistyped",
];

#[test]
fn a_million_mutated_messages_leave_the_good_ones_whole() {
    let Some(mut bad) = Mutations::seeded(rand::random()) else {
        return;
    };
    let scratch = Scratch::new();
    let journal = Journal::open(scratch.path(), Options::default(), &mut |_| {}).unwrap();
    let mut writer = Writer::new(journal, CommitOptions::default());
    let reader = writer.reader();
    let mut race = Race::new();
    let mut folded = 0;
    let mut goods = 0;
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    let absorb = |writer: &mut Writer, topic: &str, payload: Vec<u8>| {
        writer.absorb(&mut Message {
            topic: topic.into(),
            payload: Bytes::from(payload),
            received: Instant::now(),
            ack: None,
        });
    };
    for n in 0..MUTATIONS {
        let (topic, payload) = bad.next_message();
        absorb(&mut writer, &topic, payload);
        if n % BAD_PER_GOOD == 0 {
            absorb(&mut writer, "v1/car_data", good(goods));
            goods += 1;
        }
        if n % COMMIT_EVERY == 0 || n + 1 == MUTATIONS {
            writer.commit().unwrap();
            // What was accepted must not stop the fold either.
            while folded < reader.next_seq() {
                let batch = reader.batch(folded, COMMIT_EVERY).unwrap();
                for (seq, entry) in (batch.first_seq..).zip(batch.entries.iter()) {
                    race.apply(seq, entry);
                }
                folded = batch.next_seq();
            }
        }
    }
    let query = Query {
        session_key: Some(SESSION),
        ..Query::default()
    };
    let dates: Vec<i64> = reader
        .query(&query)
        .map(|found| found.unwrap().1.record.date().unwrap().millis())
        .collect();
    let expected: Vec<i64> = (0..goods).map(date_ms).collect();
    assert!(
        dates == expected,
        "{} of {goods} good messages, or not in their order",
        dates.len()
    );
    let tally = writer.tally();
    for (_, topic) in tally.lock().unwrap().iter() {
        for (reason, n) in &topic.rejected {
            *reasons.entry(*reason).or_default() += n;
        }
    }
    println!("{goods} good ones whole among {MUTATIONS}; refused: {reasons:?}");
    for reason in REASONS {
        assert!(reasons.contains_key(reason), "nothing was {reason}");
    }
    let refused: u64 = reasons.values().sum();
    assert!(refused > MUTATIONS as u64 / 4 && refused < MUTATIONS as u64);
}

#[test]
fn the_daemon_stays_well_under_mutated_messages_from_a_broker() {
    let Some(mut bad) = Mutations::seeded(rand::random()) else {
        return;
    };
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let home = scratch.join("daemon");
    let daemon = Daemon::start(&home, &mqtt_source(&broker, "bad-input"), READY_WITHIN);
    daemon.wait_connected(READY_WITHIN);
    let publisher = Publisher::connect(&broker, "bad-publisher");
    let (mut goods, mut sent) = (0, 0);
    for n in 0..MUTATIONS_THROUGH_A_BROKER {
        let (topic, payload) = bad.next_message();
        publisher.publish(&topic, payload);
        sent += 1;
        if n % BAD_PER_GOOD == 0 {
            publisher.publish("v1/car_data", good(goods));
            goods += 1;
            sent += 1;
        }
    }
    publisher.wait_accepted(sent, ARRIVED_WITHIN);
    wait_for("everything to be acknowledged", ARRIVED_WITHIN, || {
        let health = daemon.json("/health");
        let acknowledged = health["sources"][0]["acknowledged"].as_u64()?;
        (acknowledged >= sent as u64).then_some(())
    });
    let health = daemon.json("/health");
    assert_eq!(health["status"], "ok", "{health:#}");
    assert_eq!(health["sources"][0]["connections"], 1, "{health:#}");
    let (_, metrics) = daemon.get("/metrics").unwrap();
    for reason in REASONS {
        let series = format!("trackside_ingest_rejected_total{{reason=\"{reason}\"}} ");
        let count = metrics.lines().find_map(|l| l.strip_prefix(&*series));
        assert!(
            count.is_some_and(|c| c.parse::<u64>().is_ok_and(|c| c > 0)),
            "no {series:?} in /metrics"
        );
    }
    assert!(daemon.terminate(READY_WITHIN).success());
    let whole = Daemon::export(&Daemon::data_in(&home)).expect("a journal that can be read");
    let session = format!("\"session_key\":{SESSION}");
    let found = whole
        .iter()
        .filter(|r| r.payload.contains(&session))
        .count();
    assert_eq!(found, goods, "good messages that arrived");
}

/// The good message number `n`.
fn good(n: usize) -> Vec<u8> {
    let (seconds, ms) = (n / 1000, n % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{{\"meeting_key\":1229,\"session_key\":{SESSION},\"driver_number\":{},\
         \"date\":\"2031-05-01T{hour:02}:{minute:02}:{second:02}.{ms:03}000+00:00\",\
         \"rpm\":11000,\"speed\":300,\"n_gear\":8,\"throttle\":100,\"brake\":0,\"drs\":0}}",
        n % 20 + 1
    )
    .into_bytes()
}

/// Its date (ms since 1970).
fn date_ms(n: usize) -> i64 {
    const FIRST_OF_MAY_2031: i64 = 1_935_360_000_000;
    FIRST_OF_MAY_2031 + n as i64
}

/// Broken messages without end, as radio links, bugs and malice break them.
struct Mutations {
    rng: ChaCha8Rng,
    seeds: Vec<Recorded>,
}

impl Mutations {
    fn seeded(seed: u64) -> Option<Mutations> {
        println!("seed {seed}");
        let path = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")?;
        Some(Mutations {
            rng: ChaCha8Rng::seed_from_u64(seed),
            seeds: Recording::open(&path).take(SEEDS).collect(),
        })
    }

    fn next_message(&mut self) -> (String, Vec<u8>) {
        let rng = &mut self.rng;
        let seed = self.seeds.choose(rng).expect("some");
        let other = self.seeds.choose(rng).expect("some").payload.as_bytes();
        let mut topic = seed.topic.clone();
        let mut bytes = seed.payload.clone().into_bytes();
        for _ in 0..rng.random_range(1..=2) {
            let at = rng.random_range(0..=bytes.len());
            let to = rng.random_range(at..=bytes.len());
            match rng.random_range(0..1000) {
                0..150 => bytes.truncate(at),
                150..300 => drop(bytes.drain(at..to)),
                300..400 => {
                    let again = bytes[at..to].to_vec();
                    bytes.splice(at..at, again);
                }
                400..550 => {
                    let from = rng.random_range(0..=other.len());
                    bytes.splice(at..to, other[from..].iter().copied());
                }
                550..600 => topic = self.seeds.choose(rng).expect("some").topic.clone(),
                600..640 => topic = format!("v1/{:x}", rng.random::<u64>()),
                640..645 => {
                    let bracket = *b"[{\x9f\xbf".choose(rng).expect("some");
                    bytes.splice(0..0, vec![bracket; 3000]);
                }
                645..647 => bytes.resize(65 * 1024 + 1, b' '),
                647..700 => topic = format!("trackside/v1/frames/{}/1", rng.random::<u16>()),
                _ => {
                    for _ in 0..rng.random_range(1..4) {
                        if let Some(byte) = bytes.choose_mut(rng) {
                            *byte = rng.random();
                        }
                    }
                }
            }
        }
        (topic, bytes)
    }
}
