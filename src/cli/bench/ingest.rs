//! `trackside bench ingest`: from a broker to the disk, beside a subscriber that only counts.
//!
//! mosquitto, the daemon and the bare subscriber are processes of their own; the publisher is this one.
//! Runs are interleaved, each with a broker and a daemon of its own, and the medians are told.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};

use super::child::{BareSubscriber, Broker, Daemon, Wired, cpu_s};
use super::feed::{self, Message};
use super::publisher::{Packets, Publisher};
use super::{median, quantile};
use crate::ingest;
use crate::ingest::writer::{CommitOptions, Writer};
use crate::journal::{self, Durability, Journal};
use crate::observability::STAGE_SECONDS;

/// Runs of each kind.
const ROUNDS: usize = 3;
/// Messages of the feed in a run.
const MESSAGES: usize = 100_000;
/// Frames in a run, of 100 samples each.
const FRAMES: usize = 60_000;
/// Rate at which latency is measured (messages a second), for how many messages, and after how many: four
/// minutes of the clock in which a race makes a thousand predictions and the journal's tail moves fifteen times.
/// A shorter recording ends sooner.
const PACE: f64 = 1000.0;
const PACED: usize = 240_000;
const BEFORE_PACED: usize = 80_000;
/// Longest time that a run may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long predictions that are on their way may take at the end.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// Measures ingest.
///
/// # Errors
/// If a process cannot be started or does not do its part.
pub fn run(recording: Option<&Path>) -> anyhow::Result<Value> {
    let (frames, samples) = feed::frames(FRAMES)?;
    let (per_s, bare_per_s, frame_rounds) = race(&frames, frames.len() as u64)?;
    let per_frame = samples as f64 / frames.len() as f64;
    let frame_ratio = per_s / bare_per_s;
    drop(frames);

    let messages = feed::messages(recording, BEFORE_PACED + PACED)?;
    let sequences = sequences(&messages)?;
    let some = messages.len().min(MESSAGES);
    let accepted = sequences[..some].iter().flatten().count() as u64;
    let (openf1, bare, rounds) = race(&packets(&messages[..some])?, accepted)?;
    let packets = packets(&messages)?;
    drop(messages);
    let latency = latency(&packets, &sequences)?;
    Ok(json!({
        "ingest": {
            "frames": {
                "samples_per_s": per_s * per_frame,
                "frames_per_s": per_s,
                "ratio_to_bare_subscriber": frame_ratio,
            },
            "openf1": {
                "messages_per_s": openf1,
                "ratio_to_bare_subscriber": openf1 / bare,
            },
            "latency_ms": latency,
        },
        "baseline": {
            "bare_subscriber": {
                "samples_per_s": bare_per_s * per_frame,
                "frames_per_s": bare_per_s,
                "messages_per_s": bare,
            },
        },
        "rounds": { "frames": frame_rounds, "openf1": rounds },
    }))
}

fn packets(messages: &[Message]) -> anyhow::Result<Packets> {
    let mut packets = Packets::default();
    for message in messages {
        packets.push(&message.topic, &message.payload)?;
    }
    Ok(packets)
}

/// Messages a second that the daemon makes durable (`accepted` records come of them) and that the bare
/// subscriber counts: medians; and every run.
fn race(packets: &Packets, accepted: u64) -> anyhow::Result<(f64, f64, Value)> {
    let (mut daemons, mut bares, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
    let count = packets.len() as f64;
    for _ in 0..ROUNDS {
        let bare = bare(packets)?;
        let daemon = daemon(packets, accepted)?;
        bares.push(count / bare.elapsed_s);
        daemons.push(count / daemon.elapsed_s);
        rounds.push(json!({ "bare": bare.json(count), "daemon": daemon.json(count) }));
    }
    Ok((median(&mut daemons), median(&mut bares), rounds.into()))
}

/// What one run took.
struct Run {
    elapsed_s: f64,
    /// When the broker had accepted the last message (s).
    accepted_s: f64,
    subscriber_cpu_s: f64,
    broker_cpu_s: f64,
    publisher_cpu_s: f64,
}

impl Run {
    fn json(&self, messages: f64) -> Value {
        json!({
            "elapsed_s": self.elapsed_s,
            "accepted_s": self.accepted_s,
            "messages_per_s": messages / self.elapsed_s,
            "cpu_s": {
                "subscriber": self.subscriber_cpu_s,
                "broker": self.broker_cpu_s,
                "publisher": self.publisher_cpu_s,
            },
        })
    }
}

fn bare(packets: &Packets) -> anyhow::Result<Run> {
    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let mut subscriber = BareSubscriber::start(&broker, packets.len() as u64)?;
    timed(&broker, packets, || {
        let cpu = subscriber.cpu_s()?;
        subscriber.finish()?;
        Ok(cpu)
    })
}

fn daemon(packets: &Packets, accepted: u64) -> anyhow::Result<Run> {
    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let wired = Wired {
        broker: Some(&broker),
        publishes: false,
    };
    let daemon = Daemon::start(scratch.path(), wired)?;
    let before = daemon.cpu_s()?;
    timed(&broker, packets, || {
        daemon.wait_durable(accepted, LIMIT)?;
        Ok(daemon.cpu_s()? - before)
    })
}

/// Publishes everything, then waits with `finish`, which says how much CPU the subscriber took (s).
fn timed(
    broker: &Broker,
    packets: &Packets,
    finish: impl FnOnce() -> anyhow::Result<f64>,
) -> anyhow::Result<Run> {
    let mut publisher = Publisher::connect(broker)?;
    let own = cpu_s(std::process::id())?;
    let brokers = broker.cpu_s()?;
    let began = Instant::now();
    publisher.publish(packets, 0..packets.len())?;
    let accepted_s = began.elapsed().as_secs_f64();
    let publisher_cpu_s = cpu_s(std::process::id())? - own;
    let subscriber_cpu_s = finish()?;
    Ok(Run {
        elapsed_s: began.elapsed().as_secs_f64(),
        accepted_s,
        subscriber_cpu_s,
        broker_cpu_s: broker.cpu_s()? - brokers,
        publisher_cpu_s,
    })
}

/// The sequence that the journal gives to each message, `None` where it does not take it: what the
/// daemon will do with the same messages in the same order.
fn sequences(messages: &[Message]) -> anyhow::Result<Vec<Option<u64>>> {
    let scratch = tempfile::tempdir()?;
    let options = journal::Options {
        durability: Durability::Lazy,
        ..journal::Options::default()
    };
    let commit = CommitOptions::default();
    let journal = Journal::open(scratch.path(), options, &mut |_| {})?;
    let mut next = journal.next_seq();
    let mut writer = Writer::new(journal, commit);
    let mut sequences = Vec::with_capacity(messages.len());
    for (nth, message) in messages.iter().enumerate() {
        let taken = writer.absorb(&mut ingest::Message {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            received: Instant::now(),
            ack: None,
        });
        sequences.push(taken.then_some(next));
        next += u64::from(taken);
        if nth % commit.records == 0 {
            writer.commit()?;
        }
    }
    writer.close()?;
    Ok(sequences)
}

/// From a message's publication to the arrival of the predictions that it brought about, both seen from
/// outside the daemon, and the daemon's own histograms of the same while.
fn latency(packets: &Packets, sequences: &[Option<u64>]) -> anyhow::Result<Value> {
    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let wired = Wired {
        broker: Some(&broker),
        publishes: true,
    };
    let daemon = Daemon::start(scratch.path(), wired)?;
    let mut publisher = Publisher::connect(&broker)?;
    let paced = BEFORE_PACED.min(packets.len() / 2)..packets.len();
    // First the race so far, as quickly as it goes: a state to fold into and to predict from.
    publisher.publish(packets, 0..paced.start)?;
    let so_far = sequences[..paced.start].iter().flatten().count() as u64;
    daemon.wait_durable(so_far, LIMIT)?;
    std::thread::sleep(STRAGGLERS);

    let arrivals = Arrivals::listen(&broker)?;
    let before = daemon.metrics()?;
    let written = publisher.publish_paced(packets, paced.clone(), PACE)?;
    std::thread::sleep(STRAGGLERS);
    let after = daemon.metrics()?;
    let arrived = arrivals.until_now();

    let sent = |seq: u64| {
        let nth = sequences[paced.start..].partition_point(|s| s.is_none_or(|s| s < seq));
        (sequences.get(paced.start + nth)? == &Some(seq)).then(|| written[nth])
    };
    let mut seen: Vec<f64> = arrived
        .into_iter()
        .filter_map(|(seq, at)| Some((at - sent(seq)?).as_secs_f64() * 1e3))
        .collect();
    anyhow::ensure!(!seen.is_empty(), "no prediction came");
    let stages: serde_json::Map<String, Value> = ["durable", "state", "predicted", "published"]
        .into_iter()
        .map(|stage| (stage.to_owned(), histogram(&before, &after, stage)))
        .collect();
    Ok(json!({
        "p50": quantile(&mut seen, 0.5),
        "p99": quantile(&mut seen, 0.99),
        "max": quantile(&mut seen, 1.0),
        "predictions": seen.len(),
        "messages_per_s": PACE,
        "daemon_histograms": stages,
    }))
}

/// p50 and p99 (ms) of what was recorded between two looks: the upper bound of the bucket, since the
/// truth lies somewhere below it.
fn histogram(before: &super::child::Metrics, after: &super::child::Metrics, stage: &str) -> Value {
    let label = format!("stage=\"{stage}\"");
    let then = before.buckets(STAGE_SECONDS, &label);
    let buckets: Vec<(f64, f64)> = after
        .buckets(STAGE_SECONDS, &label)
        .into_iter()
        .map(|(bound, count)| {
            let earlier = then.iter().find(|b| b.0 == bound).map_or(0.0, |b| b.1);
            (bound, count - earlier)
        })
        .collect();
    let count = buckets.last().map_or(0.0, |b| b.1);
    let at_most = |share: f64| {
        let bucket = buckets.iter().find(|b| b.1 >= share * count);
        bucket.map(|b| b.0 * 1e3).filter(|ms| ms.is_finite())
    };
    json!({ "count": count, "p50_at_most": at_most(0.5), "p99_at_most": at_most(0.99) })
}

/// Predictions as they arrive at a subscriber.
struct Arrivals {
    came: mpsc::Receiver<(u64, Instant)>,
}

impl Arrivals {
    fn listen(broker: &Broker) -> anyhow::Result<Arrivals> {
        let (to, came) = mpsc::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let port = broker.port();
        // Ends with the broker.
        std::thread::spawn(move || {
            let listening = async {
                let mut options = MqttOptions::new("listener", "127.0.0.1", port);
                let mut network = rumqttc::NetworkOptions::new();
                network.set_tcp_nodelay(true);
                options.set_network_options(network);
                let (client, mut wire) = AsyncClient::new(options, 16);
                let topic = "trackside/v1/predictions/#";
                client.subscribe(topic, QoS::AtLeastOnce).await.ok()?;
                loop {
                    match wire.poll().await.ok()? {
                        Event::Incoming(Packet::SubAck(_)) => ready.send(()).ok()?,
                        Event::Incoming(Packet::Publish(p)) => {
                            let at = Instant::now();
                            let prediction: Value = serde_json::from_slice(&p.payload).ok()?;
                            to.send((prediction["seq"].as_u64()?, at)).ok()?;
                        }
                        _ => {}
                    }
                }
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let _: Option<()> = runtime.ok().and_then(|r| r.block_on(listening));
        });
        is_ready
            .recv_timeout(LIMIT)
            .context("the listener is not subscribed")?;
        Ok(Arrivals { came })
    }

    fn until_now(&self) -> Vec<(u64, Instant)> {
        self.came.try_iter().collect()
    }
}
