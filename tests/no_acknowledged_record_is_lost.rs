//! `kill -9` takes nothing that was acknowledged, and adds nothing twice.
//!
//! A publisher sends at QoS 1 through mosquitto while the daemon is killed a hundred times at random
//! moments, the broker is restarted and the broker hangs. Between the daemon and the broker lies a wire that
//! listens ([`support::Proxy`]): right after each kill, every message that the daemon had acknowledged must be
//! in the journal; at the end every message that the broker had accepted must be there exactly once.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

mod support;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{
    Broker, BrokerOptions, Daemon, Proxy, Publisher, Recording, Scratch, mqtt_source_at, wait_for,
};

const KILLS: usize = 100;
/// Messages published between two kills.
const MESSAGES_PER_KILL: usize = 300;
/// Longest that the daemon lives after it is ready and fed.
const LONGEST_LIFE: Duration = Duration::from_millis(80);
/// Kills from one restart of the broker to the next, and from one hang to the next.
const KILLS_PER_BROKER_RESTART: usize = 17;
const KILLS_PER_HANG: usize = 13;
const HANG: Duration = Duration::from_millis(700);
/// Kills before which something new was acknowledged: with fewer, the checks after the kills would say little.
const LEAST_TELLING_KILLS: usize = KILLS / 4;
const READY_WITHIN: Duration = Duration::from_secs(180);
const ACCEPTED_WITHIN: Duration = Duration::from_secs(180);
const DURABLE_WITHIN: Duration = Duration::from_secs(180);

#[test]
fn kill_9_loses_nothing_acknowledged_and_doubles_nothing() {
    let Some(path) = support::data("recordings/2024-bahrain-race-first-10-minutes.ndjson.zst")
    else {
        return;
    };
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);

    let scratch = Scratch::new();
    let mut broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let proxy = Proxy::to(broker.port());
    let home = scratch.join("daemon");
    let sections = mqtt_source_at(&broker, proxy.port(), "kill");
    let start = || Daemon::start(&home, &sections, READY_WITHIN);

    let mut daemon = start();
    daemon.wait_connected(READY_WITHIN);
    let publisher = Publisher::connect(&broker, "kill-publisher");
    let mut messages = Recording::open(&path);
    let mut published: Vec<i64> = Vec::new();
    let (mut heard, mut telling) = (0, 0);
    for kill in 1..=KILLS {
        for message in messages.by_ref().take(MESSAGES_PER_KILL) {
            published.push(message.id.expect("a recorded message has an _id"));
            publisher.publish(&message.topic, message.payload);
        }
        std::thread::sleep(LONGEST_LIFE.mul_f64(rng.random()));
        if kill % KILLS_PER_BROKER_RESTART == 0 {
            // In order, so that the broker itself loses nothing of what it has accepted.
            broker.stop();
            broker.start_again();
        }
        if kill % KILLS_PER_HANG == 0 {
            broker.hang();
            std::thread::sleep(HANG);
            daemon.kill();
            broker.go_on();
        } else {
            daemon.kill();
        }
        let held = count(&home);
        let acknowledged = proxy.acknowledged();
        telling += usize::from(acknowledged.len() > heard);
        heard = acknowledged.len();
        let lost: Vec<i64> = acknowledged
            .iter()
            .map(|payload| id(payload))
            .filter(|id| !held.contains_key(id))
            .collect();
        assert!(
            lost.is_empty(),
            "kill {kill}: acknowledged, yet not in the journal: {lost:?}"
        );
        daemon = start();
    }

    publisher.wait_accepted(published.len(), ACCEPTED_WITHIN);
    wait_for("everything accepted to be durable", DURABLE_WITHIN, || {
        let durable = daemon.json("/health")["journal"]["durable_seq"].as_u64()?;
        (durable >= published.len() as u64).then_some(())
    });
    daemon.terminate(READY_WITHIN);
    let held = count(&home);
    let wrong: Vec<(i64, usize)> = published
        .iter()
        .map(|id| (*id, held.get(id).copied().unwrap_or(0)))
        .filter(|(_, times)| *times != 1)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} are not there exactly once (_id, times): {:?}",
        wrong.len(),
        published.len(),
        &wrong[..wrong.len().min(10)]
    );
    assert_eq!(held.len(), published.len(), "records that nobody published");
    // A wire that hears nothing would find nothing lost.
    let acknowledged = proxy.acknowledged();
    let known: HashSet<i64> = acknowledged.iter().map(|payload| id(payload)).collect();
    println!(
        "{KILLS} kills, {telling} of them after new acknowledgements; {} messages, {} acknowledgements heard, of {} \
         messages; {} breaks of the publisher",
        published.len(),
        acknowledged.len(),
        known.len(),
        publisher.breaks()
    );
    assert!(telling >= LEAST_TELLING_KILLS, "{telling} of {KILLS} kills");
    assert_eq!(
        known.len(),
        published.len(),
        "messages never heard to be acknowledged"
    );
}

/// How often each `_id` is in the journal.
fn count(home: &std::path::Path) -> HashMap<i64, usize> {
    let mut times = HashMap::new();
    for record in Daemon::export(&Daemon::data_in(home)).expect("a journal that can be read") {
        *times.entry(record.id.expect("an _id")).or_default() += 1;
    }
    times
}

fn id(payload: &[u8]) -> i64 {
    let (_, id) = support::version(payload).expect("a document");
    id.expect("an _id")
}
