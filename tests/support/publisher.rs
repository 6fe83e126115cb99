//! A publisher at QoS 1 that knows which of its messages the broker has accepted.
//!
//! Written out rather than built on a client library: a library that forgets or renumbers what was on its
//! way when a connection broke would blur the very thing that the tests count.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Broker;

/// Messages on their way at once. Far below the number of packet ids, which follow from the messages'
/// numbers.
const IN_FLIGHT: usize = 500;
/// Messages handed over and not yet on their way.
const QUEUE: usize = 1000;
/// How long to wait for PUBACKs before looking whether there is more to send.
const LOOK: Duration = Duration::from_millis(2);
/// How long the broker may take to take a packet or to greet.
const PATIENCE: Duration = Duration::from_secs(3);
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

struct Message {
    topic: String,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Progress {
    /// Numbers of accepted messages, in the order of their PUBACKs.
    accepted: Vec<usize>,
    /// Times that a connection broke or could not be made.
    breaks: usize,
    stop: bool,
}

/// A connection to a broker that comes back by itself and sends again what was not accepted.
pub struct Publisher {
    queue: Option<SyncSender<Message>>,
    progress: Arc<(Mutex<Progress>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects, without TLS, as often as it takes.
    pub fn connect(broker: &Broker, client_id: &str) -> Publisher {
        let (sender, receiver) = sync_channel(QUEUE);
        let progress = Arc::<(Mutex<Progress>, Condvar)>::default();
        let mut sending = Sending {
            port: broker.port(),
            hello: connect_packet(client_id, broker.options().login.as_ref()),
            queue: receiver,
            next: 0,
            window: BTreeMap::new(),
            progress: progress.clone(),
        };
        Publisher {
            queue: Some(sender),
            progress,
            thread: Some(std::thread::spawn(move || sending.run())),
        }
    }

    /// Hands a message over; waits while too many are on their way.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        let message = Message {
            topic: topic.to_owned(),
            payload: payload.into(),
        };
        self.queue
            .as_ref()
            .expect("until it is dropped")
            .send(message)
            .expect("the publisher's thread lives");
    }

    /// Numbers (counted from 0 as they were published) of the messages that the broker has accepted.
    pub fn accepted(&self) -> Vec<usize> {
        self.progress.0.lock().expect("no panic").accepted.clone()
    }

    /// Times that a connection broke or could not be made.
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
        let (accepted, breaks) = (guard.accepted.len(), guard.breaks);
        drop(guard);
        assert!(
            !timeout.timed_out(),
            "waited {limit:?} for {count} messages to be accepted; {accepted} are, {breaks} breaks"
        );
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Ok(mut progress) = self.progress.0.lock() {
            progress.stop = true;
        }
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The publisher's thread.
struct Sending {
    port: u16,
    hello: Vec<u8>,
    queue: Receiver<Message>,
    next: usize,
    /// On their way, by number, as packets.
    window: BTreeMap<usize, Vec<u8>>,
    progress: Arc<(Mutex<Progress>, Condvar)>,
}

impl Sending {
    fn run(&mut self) {
        while !self.is_stopped() {
            if self.converse().is_err() {
                self.progress.0.lock().expect("no panic").breaks += 1;
                std::thread::sleep(RECONNECT_AFTER);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.progress.0.lock().expect("no panic").stop
    }

    /// One connection, from its greeting to its end.
    fn converse(&mut self) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&self.hello)?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting)?;
        if greeting[0] != 0x20 || greeting[3] != 0 {
            return Err(io::Error::other(format!("refused: {greeting:?}")));
        }
        stream.set_read_timeout(Some(LOOK))?;
        for packet in self.window.values() {
            stream.write_all(packet)?;
        }
        let mut received = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while !self.is_stopped() {
            let fresh = self.take_fresh();
            stream.write_all(&fresh)?;
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => received.extend_from_slice(&buffer[..read]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            self.take_acknowledgements(&mut received)?;
        }
        stream.write_all(&[0xe0, 0])
    }

    /// Packets of new messages, as many as the window has room for.
    fn take_fresh(&mut self) -> Vec<u8> {
        let mut packets = Vec::new();
        while self.window.len() < IN_FLIGHT
            && let Ok(message) = self.queue.try_recv()
        {
            let packet = publish_packet(&message.topic, packet_id(self.next), &message.payload);
            packets.extend_from_slice(&packet);
            self.window.insert(self.next, packet);
            self.next += 1;
        }
        packets
    }

    fn take_acknowledgements(&mut self, received: &mut Vec<u8>) -> io::Result<()> {
        let whole = received.len() / 4 * 4;
        for ack in received[..whole].chunks(4) {
            if ack[..2] != [0x40, 2] {
                return Err(io::Error::other(format!("no PUBACK: {ack:?}")));
            }
            let id = u16::from_be_bytes([ack[2], ack[3]]);
            let number = self.window.keys().copied().find(|n| packet_id(*n) == id);
            if let Some(number) = number {
                self.window.remove(&number);
                self.progress
                    .0
                    .lock()
                    .expect("no panic")
                    .accepted
                    .push(number);
            }
        }
        received.drain(..whole);
        if whole > 0 {
            self.progress.1.notify_all();
        }
        Ok(())
    }
}

fn packet_id(number: usize) -> u16 {
    u16::try_from(number % 65_535 + 1).expect("at most 65,535")
}

/// CONNECT of MQTT 3.1.1, clean session, no keep-alive.
fn connect_packet(client_id: &str, login: Option<&(String, String)>) -> Vec<u8> {
    let flags = if login.is_some() { 0xc2 } else { 0x02 };
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
    put_text(&mut body, client_id);
    if let Some((user, password)) = login {
        put_text(&mut body, user);
        put_text(&mut body, password);
    }
    packet(0x10, &body)
}

/// PUBLISH at QoS 1 of MQTT 3.1.1.
pub fn publish_packet(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    put_text(&mut body, topic);
    body.extend(id.to_be_bytes());
    body.extend(payload);
    packet(0x32, &body)
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("a short text");
    body.extend(len.to_be_bytes());
    body.extend(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest % 128).expect("below 128");
        rest /= 128;
        packet.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}
