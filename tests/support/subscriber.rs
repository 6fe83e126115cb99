//! A subscriber of what the daemon publishes.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use super::{Broker, wait_for};

const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(180);
const LARGEST_PACKET: usize = 4 << 20;
/// Requests that wait for the connection.
const REQUESTS: usize = 16;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub topic: String,
    pub payload: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    subscribed: bool,
    heard: Vec<Heard>,
}

/// Keeps every message of a topic filter, in order, at QoS 1.
pub struct Subscriber {
    client: Client,
    inbox: Arc<Mutex<Inbox>>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Subscribes, and waits until the broker has confirmed it.
    pub fn to(broker: &Broker, filter: &str) -> Subscriber {
        let mut options = MqttOptions::new("test-subscriber", "127.0.0.1", broker.port());
        options.set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET);
        let (client, mut connection) = Client::new(options, REQUESTS);
        client
            .subscribe(filter, QoS::AtLeastOnce)
            .expect("room for a request");
        let inbox: Arc<Mutex<Inbox>> = Arc::default();
        let into = Arc::clone(&inbox);
        let thread = std::thread::spawn(move || {
            for event in connection.iter() {
                let mut inbox = into.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => inbox.subscribed = true,
                    Ok(Event::Incoming(Packet::Publish(publish))) => inbox.heard.push(Heard {
                        topic: publish.topic,
                        payload: publish.payload.to_vec(),
                    }),
                    Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
                    Ok(_) => {}
                    Err(_) => {
                        drop(inbox);
                        std::thread::sleep(PAUSE_AFTER_ERROR);
                    }
                }
            }
        });
        let subscriber = Subscriber {
            client,
            inbox,
            thread: Some(thread),
        };
        wait_for("the subscription", SUBSCRIBED_WITHIN, || {
            subscriber.look(|inbox| inbox.subscribed.then_some(()))
        });
        subscriber
    }

    /// How many messages have come.
    pub fn count(&self) -> usize {
        self.look(|inbox| inbox.heard.len())
    }

    /// All that has come, in order.
    pub fn heard(&self) -> Vec<Heard> {
        self.look(|inbox| inbox.heard.clone())
    }

    fn look<T>(&self, look: impl FnOnce(&Inbox) -> T) -> T {
        look(&self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // Where the broker is gone already, the thread ends with the test program.
        if self.client.disconnect().is_ok()
            && let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            let _ = thread.join();
        }
    }
}
