//! A publisher at QoS 1 that costs as little as it can: the packets are made before the clock runs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::child::Broker;

/// Messages on their way at once.
const WINDOW: usize = 4096;
/// Bytes handed to the kernel at once.
const CHUNK: usize = 64 * 1024;
/// How long the broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages, ready to be written.
#[derive(Default)]
pub struct Packets {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Packets {
    /// Adds a PUBLISH at QoS 1 of MQTT 3.1.1.
    ///
    /// # Errors
    /// If the topic is longer than MQTT can say.
    pub fn push(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<()> {
        let id = (self.ends.len() % usize::from(u16::MAX)) as u16 + 1;
        let name = u16::try_from(topic.len()).context("a topic of 64 KiB")?;
        self.bytes.push(0x32);
        let mut rest = 2 + topic.len() + 2 + payload.len();
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
        self.bytes.extend(name.to_be_bytes());
        self.bytes.extend(topic.as_bytes());
        self.bytes.extend(id.to_be_bytes());
        self.bytes.extend(payload);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn start_of(&self, nth: usize) -> usize {
        nth.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

/// How many PUBACKs came, and whether no more will.
type Accepted = Arc<(Mutex<(usize, bool)>, Condvar)>;

/// A connection that publishes.
pub struct Publisher {
    stream: TcpStream,
    accepted: Accepted,
    written: usize,
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// If the broker does not take it.
    pub fn connect(broker: &Broker) -> anyhow::Result<Publisher> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // Clean session, no keep-alive, client id "p".
        stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01p")?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting)?;
        ensure!(greeting[3] == 0, "refused by the broker: {greeting:?}");
        let accepted = Accepted::default();
        let (mut reading, told) = (stream.try_clone()?, Arc::clone(&accepted));
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            let mut over = 0;
            loop {
                let read = reading.read(&mut buffer).unwrap_or(0);
                let mut state = told.0.lock().unwrap_or_else(PoisonError::into_inner);
                // Nothing but PUBACKs comes, each of four bytes.
                state.0 += (over + read) / 4;
                over = (over + read) % 4;
                state.1 = read == 0;
                told.1.notify_one();
                if read == 0 {
                    return;
                }
            }
        });
        Ok(Publisher {
            stream,
            accepted,
            written: 0,
        })
    }

    /// Publishes those as quickly as the broker takes them, and waits until it has them.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn publish(
        &mut self,
        packets: &Packets,
        which: std::ops::Range<usize>,
    ) -> anyhow::Result<()> {
        let (mut at, end) = (which.start, which.end);
        while at < end {
            let room = WINDOW - self.outstanding(WINDOW - 1)?;
            let from = packets.start_of(at);
            let most = packets.ends[at..end.min(at + room)].partition_point(|e| e - from <= CHUNK);
            let next = at + most.max(1);
            self.stream
                .write_all(&packets.bytes[from..packets.start_of(next)])?;
            self.written += next - at;
            at = next;
        }
        self.outstanding(0)?;
        Ok(())
    }

    /// Publishes those at so many a second; returns when each was written.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn publish_paced(
        &mut self,
        packets: &Packets,
        which: std::ops::Range<usize>,
        per_s: f64,
    ) -> anyhow::Result<Vec<Instant>> {
        let began = Instant::now();
        let mut written = Vec::with_capacity(which.len());
        for (nth, at) in which.enumerate() {
            let due = began + Duration::from_secs_f64(nth as f64 / per_s);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            written.push(Instant::now());
            self.stream
                .write_all(&packets.bytes[packets.start_of(at)..packets.ends[at]])?;
            self.written += 1;
        }
        self.outstanding(0)?;
        Ok(written)
    }

    /// Waits until at most so many are on their way; says how many are.
    fn outstanding(&self, most: usize) -> anyhow::Result<usize> {
        let state = self
            .accepted
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (state, late) = self
            .accepted
            .1
            .wait_timeout_while(state, PATIENCE, |s| !s.1 && self.written - s.0 > most)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !late.timed_out() && !state.1,
            "the broker has accepted {} of {} messages and no more",
            state.0,
            self.written
        );
        Ok(self.written - state.0)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
