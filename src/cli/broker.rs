//! The embedded broker behind `trackside demo`: rumqttd, so that nothing need be installed.
//!
//! For demonstrations only: it keeps nothing across a restart and drops messages for subscribers that
//! fall behind by more than its buffers. It listens on this machine alone.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Largest payload: a frame of 1 MiB, and room for its topic.
const MAX_PAYLOAD_BYTES: usize = 1_200_000;
/// Connections at once: source, publisher, page, and some curious ones.
const MAX_CONNECTIONS: usize = 64;
/// Messages on their way to one subscriber, unacknowledged.
const MAX_INFLIGHT: usize = 200;
/// What the broker holds for slow subscribers of one topic: segments, bytes of each.
const SEGMENTS: usize = 4;
const SEGMENT_BYTES: usize = 16 * 1024 * 1024;
/// How long it may take to begin to listen.
const START: Duration = Duration::from_secs(5);

/// Starts a broker on this machine and returns once it takes connections; it runs until the process
/// ends. Port 0 is any free one. MQTT 3.1.1 on the port that is returned, MQTT 5 on the one above it
/// where that is free.
///
/// # Errors
/// If the port is taken, or the broker does not listen within five seconds.
pub fn start(port: u16) -> anyhow::Result<u16> {
    let port = free(port)?;
    let mut broker = Broker::new(config(port));
    // `start` only returns when every listener has ended.
    let (failed, failure) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("broker".into())
        .spawn(move || {
            let ended = broker.start();
            // Nobody listens any more once the start was waited for.
            let _ = failed.send(ended.map_err(|e| e.to_string()));
        })
        .context("the broker's thread cannot be started")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + START;
    loop {
        if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok() {
            return Ok(port);
        }
        if let Ok(ended) = failure.try_recv() {
            bail!("the embedded broker ended at once: {ended:?}");
        }
        if Instant::now() > deadline {
            bail!("the embedded broker does not listen on {address} after {START:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that is free now: rumqttd binds it itself and only logs if it cannot.
fn free(port: u16) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("port {port} is taken; name another one"))?;
    Ok(listener.local_addr()?.port())
}

fn config(port: u16) -> Config {
    let server = |name: &str, port: u16| {
        let settings = ServerSettings {
            name: name.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            tls: None,
            next_connection_delay_ms: 1,
            connections: ConnectionSettings {
                connection_timeout_ms: 5_000,
                max_payload_size: MAX_PAYLOAD_BYTES,
                max_inflight_count: MAX_INFLIGHT,
                auth: None,
                external_auth: None,
                dynamic_filters: true,
            },
        };
        HashMap::from([(name.to_owned(), settings)])
    };
    let five = port.checked_add(1).filter(|p| free(*p).is_ok());
    Config {
        id: 0,
        router: RouterConfig {
            max_connections: MAX_CONNECTIONS,
            max_outgoing_packet_count: MAX_INFLIGHT as u64,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        },
        v4: Some(server("mqtt-3", port)),
        v5: five.map(|p| server("mqtt-5", p)),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

    /// A subscriber gets what a publisher sends, a frame of a megabyte included.
    #[tokio::test(flavor = "multi_thread")]
    async fn it_brokers() {
        let port = super::start(0).unwrap();
        let open = |name: &str| {
            let mut options = MqttOptions::new(name, "127.0.0.1", port);
            options.set_max_packet_size(2_000_000, 2_000_000);
            AsyncClient::new(options, 16)
        };
        let (subscriber, mut incoming) = open("subscriber");
        subscriber
            .subscribe("v1/#", QoS::AtLeastOnce)
            .await
            .unwrap();
        let (publisher, mut outgoing) = open("publisher");
        tokio::spawn(async move { while outgoing.poll().await.is_ok() {} });
        let mut sizes = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), async {
            while sizes.len() < 2 {
                match incoming.poll().await.unwrap() {
                    Event::Incoming(Packet::SubAck(_)) => {
                        for size in [10, 1024 * 1024] {
                            let payload = vec![b'x'; size];
                            publisher
                                .publish("v1/laps", QoS::AtLeastOnce, false, payload)
                                .await
                                .unwrap();
                        }
                    }
                    Event::Incoming(Packet::Publish(p)) => sizes.push(p.payload.len()),
                    _ => {}
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(sizes, [10, 1024 * 1024]);
        let taken = super::start(port).unwrap_err().to_string();
        assert!(taken.contains("is taken"), "{taken}");
    }
}
