//! One connection to a broker, MQTT 3.1.1 or 5 behind one face.
//!
//! A connection is made of a [`Handle`], which queues requests and never blocks, and a [`Wire`],
//! which does the I/O while [`next`] is polled. [`next`] takes the wire and gives it back: rumqttc's
//! poll must not be cancelled half-way (a packet taken from its queue but not yet written would be
//! lost), and a future that owns its wire can be kept across the turns of a `select!`.

use bytes::Bytes;
use rumqttc::v5;

use super::broker::{Broker, Invalid, PROTOCOL_MAX_PACKET_BYTES, Version};

/// What a client brings to a connection beside the broker's address.
#[derive(Clone, Debug)]
pub struct Setup {
    pub client_id: String,
    /// Ask the broker to forget what it kept for us.
    pub clean_session: bool,
    /// How long the broker keeps our session after we are gone (s; MQTT 5).
    pub session_expiry_s: u32,
    /// Most QoS 1 messages that the broker may have out to us at a time (MQTT 5).
    pub receive_maximum: u16,
    /// Most QoS 1 messages that we have out to the broker at a time.
    pub send_maximum: u16,
    /// Requests (publications, acknowledgements) that may wait for the wire.
    pub queue: usize,
    /// The largest packet that is read (B; MQTT 3.1.1, whose brokers know no limit).
    pub reads_up_to: u32,
    pub will: Option<Will>,
}

/// What the broker publishes, retained, when we are gone without a word.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: Bytes,
}

/// Something came or went on the wire.
#[derive(Debug)]
pub enum Happening {
    Connected,
    /// A message; `pkid` is 0 at QoS 0.
    Received {
        topic: Box<str>,
        payload: Bytes,
        pkid: u16,
    },
    /// The answer to our subscription; some of it may be refused.
    Subscribed {
        refused: Option<String>,
    },
    /// One of the topic filters is given up: of what only it brings, nothing comes any more.
    Unsubscribed,
    /// One of our publications was written; `pkid` is 0 at QoS 0.
    Sent {
        pkid: u16,
    },
    /// The broker has one of our publications, or refuses it.
    Acknowledged {
        pkid: u16,
        refused: Option<String>,
    },
    /// Our farewell was written.
    Closing,
    Other,
}

/// Why a connection ended or never began.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The broker said no; the same again would hardly help.
    #[error("refused by the broker: {0}")]
    Refused(String),
    #[error("{0}")]
    Lost(String),
    /// The next packet has more bytes than are read.
    #[error(
        "the broker sends a packet of {0} bytes; it is read on a connection of its own, and refused"
    )]
    Large(u32),
    #[error("the large packet has passed; its connection ends")]
    Passed,
    #[error("no answer for {0:?}")]
    Silent(std::time::Duration),
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Broken {
    /// Whether trying again soon is pointless.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Broken::Refused(_) | Broken::Invalid(_))
    }
}

/// Queues requests for the wire; nothing here waits.
pub enum Handle {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The I/O of a connection.
pub enum Wire {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// The two ends of a connection that will be made when [`next`] is polled first.
///
/// # Errors
/// If the address, a password file or a certificate is unusable.
pub fn open(broker: &Broker, setup: &Setup) -> Result<(Handle, Wire), Invalid> {
    let address = broker.address()?;
    let password = broker.password()?;
    let transport = match address.tls {
        true => rumqttc::Transport::tls_with_config(broker.client_config()?.into()),
        false => rumqttc::Transport::Tcp,
    };
    let login = broker.username.as_deref().map(|user| {
        let password = password.as_ref().map_or("", |p| p.reveal());
        (user.to_owned(), password.to_owned())
    });
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(broker.connect_timeout().as_secs());
    let largest = broker.max_packet_bytes;

    Ok(match broker.version {
        Version::V4 => {
            let mut o = rumqttc::MqttOptions::new(&setup.client_id, address.host, address.port);
            o.set_transport(transport)
                .set_keep_alive(broker.keep_alive())
                .set_clean_session(setup.clean_session || setup.client_id.is_empty())
                .set_max_packet_size(setup.reads_up_to as usize, largest as usize)
                .set_inflight(setup.send_maximum.max(1))
                .set_manual_acks(true);
            if let Some((user, password)) = login {
                o.set_credentials(user, password);
            }
            if let Some(will) = &setup.will {
                o.set_last_will(rumqttc::LastWill::new(
                    &will.topic,
                    will.payload.to_vec(),
                    rumqttc::QoS::AtLeastOnce,
                    true,
                ));
            }
            let (client, mut wire) = rumqttc::AsyncClient::new(o, setup.queue);
            wire.set_network_options(network);
            (Handle::V4(client), Wire::V4(Box::new(wire)))
        }
        Version::V5 => {
            let mut o = v5::MqttOptions::new(&setup.client_id, address.host, address.port);
            // No topic aliases are offered: the library resolves them too late for its events.
            o.set_transport(transport)
                .set_keep_alive(broker.keep_alive())
                .set_clean_start(setup.clean_session)
                .set_session_expiry_interval(Some(setup.session_expiry_s))
                .set_receive_maximum(Some(setup.receive_maximum.max(1)))
                .set_max_packet_size(Some(largest))
                .set_connection_timeout(broker.connect_timeout().as_secs())
                .set_outgoing_inflight_upper_limit(setup.send_maximum.max(1))
                .set_network_options(network)
                .set_manual_acks(true);
            if let Some((user, password)) = login {
                o.set_credentials(user, password);
            }
            if let Some(will) = &setup.will {
                o.set_last_will(v5::mqttbytes::v5::LastWill::new(
                    &will.topic,
                    will.payload.to_vec(),
                    v5::mqttbytes::QoS::AtLeastOnce,
                    true,
                    None,
                ));
            }
            let (client, wire) = v5::AsyncClient::new(o, setup.queue);
            (Handle::V5(client), Wire::V5(Box::new(wire)))
        }
    })
}

/// Waits for the next happening; connects first if that has not been done.
pub async fn next(mut wire: Wire) -> (Wire, Result<Happening, Broken>) {
    let result = match &mut wire {
        Wire::V4(w) => w.poll().await.map(happening_v4).map_err(broken_v4),
        Wire::V5(w) => w.poll().await.map(happening_v5).map_err(broken_v5),
    };
    (wire, result)
}

impl Wire {
    /// A happening that was read along with an earlier one.
    pub fn buffered(&mut self) -> Option<Happening> {
        match self {
            Wire::V4(w) => w.state.events.pop_front().map(happening_v4),
            Wire::V5(w) => w.state.events.pop_front().map(happening_v5),
        }
    }
}

impl Handle {
    /// Queues the acknowledgement of a QoS 1 message; `false` if the queue is full.
    pub fn acknowledge(&self, pkid: u16) -> bool {
        match self {
            Handle::V4(c) => {
                let mut p = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Vec::new());
                p.pkid = pkid;
                c.try_ack(&p).is_ok()
            }
            Handle::V5(c) => {
                let mut p = v5::mqttbytes::v5::Publish::new(
                    "",
                    v5::mqttbytes::QoS::AtLeastOnce,
                    Bytes::new(),
                    None,
                );
                p.pkid = pkid;
                c.try_ack(&p).is_ok()
            }
        }
    }

    /// Queues a subscription to `topics`; `false` if the queue is full or a filter is none.
    pub fn subscribe(&self, topics: &[String], qos: u8) -> bool {
        match self {
            Handle::V4(c) => {
                let qos = match qos {
                    0 => rumqttc::QoS::AtMostOnce,
                    _ => rumqttc::QoS::AtLeastOnce,
                };
                let filters = topics
                    .iter()
                    .map(|t| rumqttc::SubscribeFilter::new(t.clone(), qos));
                c.try_subscribe_many(filters).is_ok()
            }
            Handle::V5(c) => {
                let qos = match qos {
                    0 => v5::mqttbytes::QoS::AtMostOnce,
                    _ => v5::mqttbytes::QoS::AtLeastOnce,
                };
                let filters = topics
                    .iter()
                    .map(|t| v5::mqttbytes::v5::Filter::new(t.clone(), qos));
                c.try_subscribe_many(filters).is_ok()
            }
        }
    }

    /// Queues the end of the subscription to `topic`; `false` if the queue is full.
    pub fn unsubscribe(&self, topic: &str) -> bool {
        match self {
            Handle::V4(c) => c.try_unsubscribe(topic).is_ok(),
            Handle::V5(c) => c.try_unsubscribe(topic).is_ok(),
        }
    }

    /// Queues a publication; `false` if the queue is full.
    pub fn publish(&self, topic: &str, payload: Bytes, qos: u8, retain: bool) -> bool {
        match self {
            Handle::V4(c) => {
                let qos = match qos {
                    0 => rumqttc::QoS::AtMostOnce,
                    _ => rumqttc::QoS::AtLeastOnce,
                };
                c.try_publish(topic, qos, retain, payload).is_ok()
            }
            Handle::V5(c) => {
                let qos = match qos {
                    0 => v5::mqttbytes::QoS::AtMostOnce,
                    _ => v5::mqttbytes::QoS::AtLeastOnce,
                };
                c.try_publish(topic, qos, retain, payload).is_ok()
            }
        }
    }

    /// Queues the farewell behind everything queued before; `false` if the queue is full.
    pub fn disconnect(&self) -> bool {
        match self {
            Handle::V4(c) => c.try_disconnect().is_ok(),
            Handle::V5(c) => c.try_disconnect().is_ok(),
        }
    }
}

fn happening_v4(event: rumqttc::Event) -> Happening {
    use rumqttc::{Event, Outgoing, Packet, SubscribeReasonCode};
    match event {
        Event::Incoming(Packet::Publish(p)) => Happening::Received {
            topic: p.topic.into_boxed_str(),
            payload: p.payload,
            pkid: p.pkid,
        },
        Event::Incoming(Packet::PubAck(a)) => Happening::Acknowledged {
            pkid: a.pkid,
            refused: None,
        },
        Event::Incoming(Packet::ConnAck(_)) => Happening::Connected,
        Event::Incoming(Packet::SubAck(s)) => Happening::Subscribed {
            refused: s
                .return_codes
                .contains(&SubscribeReasonCode::Failure)
                .then(|| "not allowed".into()),
        },
        Event::Incoming(Packet::UnsubAck(_)) => Happening::Unsubscribed,
        Event::Outgoing(Outgoing::Publish(pkid)) => Happening::Sent { pkid },
        Event::Outgoing(Outgoing::Disconnect) => Happening::Closing,
        _ => Happening::Other,
    }
}

fn happening_v5(event: v5::Event) -> Happening {
    use v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::Publish(p)) => Happening::Received {
            topic: String::from_utf8_lossy(&p.topic).into(),
            payload: p.payload,
            pkid: p.pkid,
        },
        v5::Event::Incoming(Packet::PubAck(a)) => Happening::Acknowledged {
            pkid: a.pkid,
            refused: match a.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                reason => Some(format!("{reason:?}")),
            },
        },
        v5::Event::Incoming(Packet::ConnAck(_)) => Happening::Connected,
        v5::Event::Incoming(Packet::SubAck(s)) => Happening::Subscribed {
            refused: s
                .return_codes
                .iter()
                .find(|c| !matches!(c, SubscribeReasonCode::Success(_)))
                .map(|c| format!("{c:?}")),
        },
        v5::Event::Incoming(Packet::UnsubAck(_)) => Happening::Unsubscribed,
        v5::Event::Outgoing(rumqttc::Outgoing::Publish(pkid)) => Happening::Sent { pkid },
        v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Happening::Closing,
        _ => Happening::Other,
    }
}

fn broken_v4(error: rumqttc::ConnectionError) -> Broken {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError, StateError, mqttbytes};
    match error {
        ConnectionError::MqttState(StateError::Deserialization(
            mqttbytes::Error::PayloadSizeLimitExceeded(bytes),
        )) => {
            // Its length on the wire has no more than 28 bits.
            Broken::Large(u32::try_from(bytes).unwrap_or(PROTOCOL_MAX_PACKET_BYTES))
        }
        ConnectionError::ConnectionRefused(
            code @ (Code::BadUserNamePassword
            | Code::NotAuthorized
            | Code::BadClientId
            | Code::RefusedProtocolVersion),
        ) => Broken::Refused(format!("{code:?}")),
        other => Broken::Lost(other.to_string()),
    }
}

fn broken_v5(error: v5::ConnectionError) -> Broken {
    use v5::mqttbytes::v5::ConnectReturnCode as Code;
    match error {
        v5::ConnectionError::ConnectionRefused(
            code @ (Code::BadUserNamePassword
            | Code::NotAuthorized
            | Code::BadClientId
            | Code::ClientIdentifierNotValid
            | Code::RefusedProtocolVersion
            | Code::UnsupportedProtocolVersion
            | Code::BadAuthenticationMethod
            | Code::Banned),
        ) => Broken::Refused(format!("{code:?}")),
        other => Broken::Lost(other.to_string()),
    }
}
