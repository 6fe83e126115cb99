//! The baseline of ingest: a subscriber that counts and acknowledges and does nothing else.
//!
//! It asks of the broker what the daemon asks: MQTT 5, the same topics, QoS 1, as many messages on their
//! way at once.

use std::time::Duration;

use anyhow::Context;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};

use crate::cli::say::say;
use crate::ingest::mqtt;

/// It gives up when nothing comes for this long.
const SILENCE: Duration = Duration::from_secs(30);
/// Requests that may wait for the wire.
const REQUESTS: usize = 16;

/// A subscriber that only counts: the baseline of `ingest`.
#[derive(clap::Args)]
pub struct Args {
    /// The broker's port on this machine.
    #[arg(long)]
    port: u16,
    /// Ends after so many.
    #[arg(long)]
    messages: u64,
}

/// Counts; says `subscribed` and, at the end, `counted`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(count(args))
}

async fn count(args: &Args) -> anyhow::Result<()> {
    let as_daemon = mqtt::Options::default();
    let mut options = MqttOptions::new("bare", "127.0.0.1", args.port);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_receive_maximum(Some(as_daemon.receive_maximum))
        .set_max_packet_size(Some(as_daemon.broker.max_packet_bytes))
        .set_network_options(network);
    let (client, mut wire) = AsyncClient::new(options, REQUESTS);
    let filters = as_daemon
        .topics
        .iter()
        .map(|t| Filter::new(t.clone(), QoS::AtLeastOnce));
    client.subscribe_many(filters).await?;
    let mut counted = 0;
    while counted < args.messages {
        let event = tokio::time::timeout(SILENCE, wire.poll())
            .await
            .with_context(|| format!("{counted} of {} messages came", args.messages))??;
        match event {
            Event::Incoming(Packet::SubAck(_)) => say!("subscribed"),
            Event::Incoming(Packet::Publish(_)) => counted += 1,
            _ => {}
        }
    }
    say!("counted");
    Ok(())
}
