//! Publishers against a real mosquitto and a real Zenoh session, with a source as the subscriber.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Encoding, Outlets, mqtt, zenoh};
use crate::ingest::SourceStatus;
use crate::ingest::intake::Intake;
use crate::ingest::mqtt::connection::Will;
use crate::ingest::mqtt::outbox::{self, Progress};
use crate::ingest::mqtt::tests::{
    Mosquitto, PATIENCE, Sink, free_port, options, run_source, until,
};
use crate::ingest::mqtt::{self as source, Version};
use crate::ingest::status::State;
use crate::ingest::zenoh::{self as zenoh_source, Network};
use crate::journal::{self, Bookmark, Journal};
use crate::record::codec::{Wire, encode};
use crate::record::prediction::{LapTimePrediction, Prediction, Provenance, Quantiles};
use crate::record::{Entry, Record, Time};

fn prediction(n: u64) -> Prediction {
    Prediction::LapTime(LapTimePrediction {
        provenance: Provenance {
            session_key: 9472,
            made_at: Time::from_millis(n as i64),
            seq: n,
            model: "floor-1".into(),
            backend: "cpu".into(),
            stale_s: 0.25,
        },
        driver_number: (n % 20) as u8 + 1,
        lap_number: 3,
        sectors_known: 0,
        lap_time: Quantiles {
            p10: 95.0,
            p50: 96.5,
            p90: 98.0,
        },
    })
}

struct Bench {
    journal: Journal,
    outlets: Outlets,
    state: watch::Sender<Bytes>,
    health: watch::Sender<Bytes>,
    alerts: broadcast::Sender<Bytes>,
    insights: broadcast::Sender<(String, Bytes)>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), journal::Options::default(), &mut |_| {}).unwrap();
        let (state, states) = watch::channel(Bytes::from_static(b"{\"state\":0}"));
        let (health, healths) = watch::channel(Bytes::from_static(b"{\"status\":\"ok\"}"));
        let (alerts, all_alerts) = broadcast::channel(64);
        let (insights, all_insights) = broadcast::channel(64);
        let outlets = Outlets {
            predictions: journal.reader(),
            state: states,
            health: healths,
            alerts: all_alerts,
            insights: all_insights,
            receipts: Arc::default(),
            places: dir.path().to_owned(),
        };
        Bench {
            journal,
            outlets,
            state,
            health,
            alerts,
            insights,
            _dir: dir,
        }
    }

    fn predict(&mut self, range: std::ops::Range<u64>) {
        let entry = |n| Entry::new(Record::Prediction(Box::new(prediction(n))));
        self.journal.append(range.map(entry).collect());
        self.journal.commit().unwrap();
    }
}

fn predictions(sink: &Sink) -> Vec<(Box<str>, Bytes)> {
    let mut all = sink.all();
    all.retain(|(topic, _)| topic.contains("/predictions/"));
    all
}

fn last(sink: &Sink, topic: &str) -> Option<Bytes> {
    let all = sink.all();
    all.into_iter()
        .rfind(|(t, _)| &**t == topic)
        .map(|(_, p)| p)
}

fn subscriber(mosquitto: &Mosquitto) -> source::Options {
    source::Options {
        topics: vec!["trackside/v1/#".into()],
        ..options(mosquitto.broker(Version::V5))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_go_out_in_order_through_an_outage_and_the_rest_as_the_latest() {
    for version in [Version::V4, Version::V5] {
        let Some(mut mosquitto) = Mosquitto::plain() else {
            return;
        };
        let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
        let sink = Sink::start(queue, Duration::ZERO);
        let subscriber = run_source(subscriber(&mosquitto), &intake);
        subscriber.connected().await;

        let mut bench = Bench::new();
        bench.predict(0..5);
        let (told, progress) = watch::channel(Progress::default());
        let stop = CancellationToken::new();
        let options = mqtt::Options {
            broker: mosquitto.broker(version),
            ..mqtt::Options::default()
        };
        let running = tokio::spawn(mqtt::run(
            options,
            bench.outlets.clone(),
            told,
            stop.clone(),
        ));
        until("the publisher", || progress.borrow().connected).await;
        bench.predict(5..400);
        until("the first", || predictions(&sink).len() == 395).await;

        mosquitto.stop();
        until("the outage", || !progress.borrow().connected).await;
        for n in 1..=50 {
            bench
                .state
                .send_replace(format!("{{\"state\":{n}}}").into());
        }
        bench
            .alerts
            .send(Bytes::from_static(b"{\"alert\":\"red flag\"}"))
            .unwrap();
        bench.predict(400..3_000);
        mosquitto.start_again();
        // What the outbox had out when the broker went may come twice; nothing may be missing.
        let expected: Vec<(Box<str>, Bytes)> = (5..3_000)
            .map(prediction)
            .map(|p| (p.topic().into(), serde_json::to_vec(&p).unwrap().into()))
            .collect();
        let seen = || {
            let mut all = predictions(&sink);
            let mut seen = std::collections::HashSet::new();
            all.retain(|m| seen.insert(m.clone()));
            all
        };
        until("all", || seen().len() >= expected.len()).await;
        assert_eq!(
            seen(),
            expected,
            "{version:?}: each one, in order, as the file has it"
        );
        until("the alert", || last(&sink, "trackside/v1/alerts").is_some()).await;
        let state = Bytes::from_static(b"{\"state\":51}");
        // At QoS 0: not for a subscriber that is still on its way back.
        until("the latest state", || {
            bench.state.send_replace(state.clone());
            last(&sink, "trackside/v1/state").as_ref() == Some(&state)
        })
        .await;
        // Likewise.
        let insight = Bytes::from_static(b"{\"insight\":\"lap\"}");
        until("an insight", || {
            let news = ("insights/lap/44".to_owned(), insight.clone());
            bench.insights.send(news).unwrap();
            last(&sink, "trackside/v1/insights/lap/44").as_ref() == Some(&insight)
        })
        .await;
        let late = |n: u32| Bytes::from(format!("{{\"state\":{n}}}"));
        let overtaken = sink
            .all()
            .iter()
            .filter(|(_, p)| (1..50).any(|n| *p == late(n)))
            .count();
        assert_eq!(
            overtaken, 0,
            "what was overtaken during the outage is not sent"
        );

        bench
            .health
            .send_replace(Bytes::from_static(b"{\"status\":\"degraded\"}"));
        until("health", || {
            last(&sink, "trackside/v1/health").is_some_and(|h| h.ends_with(b"degraded\"}"))
        })
        .await;
        stop.cancel();
        tokio::time::timeout(PATIENCE, running)
            .await
            .unwrap()
            .unwrap();
        until("the farewell", || {
            last(&sink, "trackside/v1/health").is_some_and(|h| &h[..] == br#"{"status":"offline"}"#)
        })
        .await;
        subscriber.stopped().await;
    }
}

/// What was journalled and not acknowledged when the publisher died is published by its successor; what was
/// acknowledged is not, or hardly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_it_goes_on_where_the_peer_had_answered_to() {
    for version in [Version::V4, Version::V5] {
        let Some(mosquitto) = Mosquitto::plain() else {
            return;
        };
        let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
        let sink = Sink::start(queue, Duration::ZERO);
        let subscriber = run_source(subscriber(&mosquitto), &intake);
        subscriber.connected().await;
        let mut bench = Bench::new();
        let start = |bench: &Bench| {
            let (told, progress) = watch::channel(Progress::default());
            let options = mqtt::Options {
                broker: mosquitto.broker(version),
                ..mqtt::Options::default()
            };
            let never = CancellationToken::new();
            let running = tokio::spawn(mqtt::run(options, bench.outlets.clone(), told, never));
            (running, progress)
        };
        let kept = |bench: &Bench| {
            Bookmark::at(bench.outlets.places.join("mqtt"))
                .read()
                .unwrap()
        };

        // Before its first start nothing is owed to anyone.
        bench.predict(0..5);
        let (running, progress) = start(&bench);
        until("the publisher", || progress.borrow().connected).await;
        assert_eq!(kept(&bench), Some(5));
        bench.predict(5..100);
        until("what was predicted", || predictions(&sink).len() == 95).await;
        until("its place to be kept", || kept(&bench) == Some(100)).await;
        running.abort();
        let _ = running.await;

        bench.predict(100..300);
        let (running, _progress) = start(&bench);
        until("what was predicted meanwhile", || {
            predictions(&sink).len() == 295
        })
        .await;
        // Dies at once after more has come: this may or may not be on its way.
        bench.predict(300..400);
        running.abort();
        let _ = running.await;
        let (running, _progress) = start(&bench);
        let expected: BTreeSet<u64> = (5..400).collect();
        let seen = || -> BTreeSet<u64> {
            let seq = |(_, payload): (Box<str>, Bytes)| {
                let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                value["seq"].as_u64().unwrap()
            };
            predictions(&sink).into_iter().map(seq).collect()
        };
        until("all of it", || seen() == expected).await;
        let doubled = predictions(&sink).len() - expected.len();
        assert!(doubled <= 295, "{doubled}: more than after one crash");
        running.abort();

        // A journal that is another, and shorter, is not waited for.
        Bookmark::at(bench.outlets.places.join("mqtt"))
            .write(1 << 40)
            .unwrap();
        let (running, progress) = start(&bench);
        until("the publisher", || progress.borrow().connected).await;
        bench.predict(400..401);
        until("what is predicted now", || seen().contains(&400)).await;
        until("its place to be kept", || kept(&bench) == Some(401)).await;
        running.abort();
        subscriber.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_will_speaks_when_we_cannot() {
    let Some(mosquitto) = Mosquitto::plain() else {
        return;
    };
    let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
    let sink = Sink::start(queue, Duration::ZERO);
    let subscriber = run_source(subscriber(&mosquitto), &intake);
    subscriber.connected().await;
    for version in [Version::V4, Version::V5] {
        let topic = format!("trackside/v1/{version:?}/health");
        let will = Will {
            topic: topic.clone(),
            payload: Bytes::from_static(b"gone"),
        };
        let (told, progress) = watch::channel(Progress::default());
        let (_to, publications) = mpsc::channel(1);
        let broker = mosquitto.broker(version);
        let outbox = tokio::spawn(async move {
            let stop = CancellationToken::new();
            outbox::run(&broker, "mortal", Some(will), publications, told, stop).await;
        });
        until("the outbox", || progress.borrow().connected).await;
        outbox.abort();
        until("the will", || last(&sink, &topic).is_some()).await;
    }
    subscriber.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zenoh_gets_the_same_and_cbor_where_asked() {
    let locator = format!("tcp/127.0.0.1:{}", free_port());
    let (intake, queue) = Intake::new(&tokio::runtime::Handle::current());
    let sink = Sink::start(queue, Duration::ZERO);
    let stop = CancellationToken::new();
    let (to, status) = watch::channel(SourceStatus::new("zenoh", "zenoh"));
    let listening = zenoh_source::Options {
        network: Network {
            listen: vec![locator.clone()],
            ..Network::default()
        },
        keys: vec!["box/**".into()],
        ..zenoh_source::Options::default()
    };
    let subscriber = tokio::spawn(zenoh_source::run(listening, intake, to, stop.clone()));
    until("the subscriber", || {
        status.borrow().state == State::Connected
    })
    .await;

    let mut bench = Bench::new();
    let (told, progress) = watch::channel(Progress::default());
    let options = zenoh::Options {
        network: Network::towards(locator),
        prefix: "box".into(),
        encoding: Encoding::Cbor,
    };
    let halt = CancellationToken::new();
    let publisher = tokio::spawn(zenoh::run(
        options,
        bench.outlets.clone(),
        told,
        halt.clone(),
    ));
    until("the publisher", || progress.borrow().connected).await;
    // Zenoh keeps nothing for a subscriber that it has not yet heard of.
    until("the first health", || {
        bench
            .health
            .send_replace(Bytes::from_static(b"{\"status\":\"ok\"}"));
        last(&sink, "box/health").is_some()
    })
    .await;
    bench.predict(0..1_000);
    until("all", || predictions(&sink).len() == 1_000).await;
    for (n, (topic, payload)) in (0..).zip(predictions(&sink)) {
        let entry = Entry::new(Record::Prediction(Box::new(prediction(n))));
        assert_eq!(&*topic, format!("box/predictions/laptime/{}", n % 20 + 1));
        assert_eq!(&payload[..], encode(&entry, Wire::Cbor));
    }
    halt.cancel();
    tokio::time::timeout(PATIENCE, publisher)
        .await
        .unwrap()
        .unwrap();
    stop.cancel();
    tokio::time::timeout(PATIENCE, subscriber)
        .await
        .unwrap()
        .unwrap();
}

#[test]
fn options_are_checked() {
    let options: mqtt::Options = toml::from_str("url = 'mqtt://x'\nencoding = 'cbor'").unwrap();
    assert_eq!(options.encoding, Encoding::Cbor);
    options.validate().unwrap();
    for prefix in ["", "/x", "x/", "a/+/b", "a/#", "a//b", "a/*"] {
        let options = mqtt::Options {
            prefix: prefix.into(),
            ..mqtt::Options::default()
        };
        assert!(
            options
                .validate()
                .unwrap_err()
                .to_string()
                .contains("prefix"),
            "{prefix}"
        );
        let options = zenoh::Options {
            prefix: prefix.into(),
            ..zenoh::Options::default()
        };
        assert!(
            options
                .validate()
                .unwrap_err()
                .to_string()
                .contains("prefix"),
            "{prefix}"
        );
    }
    assert!(toml::from_str::<mqtt::Options>("prefx = 'x'").is_err());
}
