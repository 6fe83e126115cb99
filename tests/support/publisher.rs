//! A publisher at QoS 1 that knows which of its messages the broker has accepted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::{Client, Connection, Event, MqttOptions, Outgoing, Packet, QoS};

use super::Broker;

/// Messages on their way at once.
const IN_FLIGHT: u16 = 500;
/// Messages handed over and not yet on their way.
const QUEUE: usize = 1000;
const MAX_PACKET_BYTES: usize = 2 * 1024 * 1024;
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Progress {
    /// Messages that have been on their way; each has the number in which it was published.
    sent: usize,
    outstanding: HashMap<u16, usize>,
    /// Numbers of accepted messages, in the order of their PUBACKs.
    accepted: Vec<usize>,
    /// Times that the connection broke.
    breaks: usize,
}

/// A connection to a broker that comes back by itself and sends again what was not accepted.
pub struct Publisher {
    client: Client,
    progress: Arc<(Mutex<Progress>, Condvar)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects without TLS.
    pub fn connect(broker: &Broker, client_id: &str) -> Publisher {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", broker.port());
        options
            .set_inflight(IN_FLIGHT)
            .set_clean_session(false)
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        if let Some((user, password)) = &broker.options().login {
            options.set_credentials(user, password);
        }
        let (client, connection) = Client::new(options, QUEUE);
        let progress = Arc::<(Mutex<Progress>, Condvar)>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (progress, stop) = (progress.clone(), stop.clone());
            move || drive(connection, &progress, &stop)
        });
        Publisher {
            client,
            progress,
            stop,
            thread: Some(thread),
        }
    }

    /// Hands a message over; waits while too many are on their way.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .expect("the publisher's thread lives");
    }

    /// Numbers (counted from 0 as they were published) of the messages that the broker has accepted.
    pub fn accepted(&self) -> Vec<usize> {
        self.progress.0.lock().expect("no panic").accepted.clone()
    }

    /// Times that the connection broke.
    pub fn breaks(&self) -> usize {
        self.progress.0.lock().expect("no panic").breaks
    }

    /// Waits until the broker has accepted `count` messages.
    ///
    /// # Panics
    /// When the time is up.
    pub fn wait_accepted(&self, count: usize, limit: Duration) {
        let guard = self.progress.0.lock().expect("no panic");
        let (guard, timeout) = self
            .progress
            .1
            .wait_timeout_while(guard, limit, |p| p.accepted.len() < count)
            .expect("no panic");
        assert!(
            !timeout.timed_out(),
            "waited {limit:?} for {count} messages to be accepted; {} are, {} broken connections",
            guard.accepted.len(),
            guard.breaks
        );
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.client.try_disconnect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drive(mut connection: Connection, progress: &(Mutex<Progress>, Condvar), stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // The limit only lets `stop` be seen.
        let Ok(event) = connection.recv_timeout(Duration::from_millis(100)) else {
            continue;
        };
        let mut p = progress.0.lock().expect("no panic");
        match event {
            Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                // An id that is already out is the same message, sent again after a break.
                if !p.outstanding.contains_key(&id) {
                    let number = p.sent;
                    p.sent += 1;
                    p.outstanding.insert(id, number);
                }
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                if let Some(number) = p.outstanding.remove(&ack.pkid) {
                    p.accepted.push(number);
                    progress.1.notify_all();
                }
            }
            Ok(_) => {}
            Err(_) => {
                p.breaks += 1;
                drop(p);
                std::thread::sleep(RECONNECT_AFTER);
            }
        }
    }
}
