//! The intake: one bounded queue from all sources, one writer into the journal.
//!
//! ```text
//!  sources ──send──▶ queue ──▶ writer: decode → dedupe → append → commit (fdatasync) → ack
//!            waits when full                       group commit: N records or T ms
//! ```
//!
//! **Invariants.** A message is acknowledged only after the journal's commit returned with it on
//! disk, or after it was refused for good. The queue is bounded in messages and in bytes; a stalled
//! disk fills it, sources stop reading, and the broker keeps what we have not acknowledged.
//!
//! **What is shed.** Only QoS 0 messages, which nobody would send again: when less than an eighth of
//! the queue is free, those of kinds that stream (car_data, location, intervals, frames) go first;
//! when it is full, all of them. Each one is counted by topic's kind.
//!
//! **Cost sketch**, per message of car_data: queue 0.1 µs, decode 0.3 µs, dedupe 0.1 µs, append
//! 0.1 µs; a commit costs one fdatasync (0.2–5 ms) whatever its size, so that at 1,000 messages/s and
//! 5 ms it is 200 commits/s of five records, and at full speed a few commits/s of thousands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::counter;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Message;
use crate::record::Kind;
use crate::record::codec::Topic;

/// Messages that the queue holds.
pub const QUEUE_MESSAGES: usize = 16_384;
/// Bytes that the queue holds.
pub const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// What a queued message costs beside its payload (B).
const MESSAGE_OVERHEAD: usize = 96;
/// The part of the queue that is kept free of QoS 0 streaming messages: one in this many.
const SHED_BELOW: usize = 8;
/// The queue is closed: the daemon is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the intake is closed: the daemon is stopping")]
pub struct Closed;

/// A message and the room that it takes up.
pub(super) struct Queued {
    pub(super) message: Message,
    _room: OwnedSemaphorePermit,
}

/// The sources' end of the queue.
#[derive(Clone)]
pub struct Intake {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    shed: Arc<AtomicU64>,
    runtime: Handle,
}

/// The writer's end of the queue.
pub struct Queue {
    messages: mpsc::Receiver<Queued>,
    runtime: Handle,
}

impl Intake {
    /// A queue and its writer's end, for sources that run on `runtime`.
    pub fn new(runtime: &Handle) -> (Intake, Queue) {
        let (send, receive) = mpsc::channel(QUEUE_MESSAGES);
        let intake = Intake {
            queue: send,
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            shed: Arc::default(),
            runtime: runtime.clone(),
        };
        let queue = Queue {
            messages: receive,
            runtime: runtime.clone(),
        };
        (intake, queue)
    }

    /// Hands a message over; waits while the queue is full.
    ///
    /// # Errors
    /// [`Closed`] once the writer is gone.
    pub async fn send(&self, message: Message) -> Result<(), Closed> {
        let room = Arc::clone(&self.room)
            .acquire_many_owned(cost(&message))
            .await
            .map_err(|_| Closed)?;
        self.queue
            .send(Queued {
                message,
                _room: room,
            })
            .await
            .map_err(|_| Closed)
    }

    /// [`Intake::send`] for a thread of its own, outside the runtime.
    ///
    /// # Errors
    /// [`Closed`] once the writer is gone.
    pub fn blocking_send(&self, message: Message) -> Result<(), Closed> {
        self.runtime.block_on(self.send(message))
    }

    /// Hands a QoS 0 message over if there is room for its kind (see the module's doc). `false`: it
    /// was shed.
    ///
    /// # Errors
    /// [`Closed`] once the writer is gone.
    pub fn offer(&self, message: Message) -> Result<bool, Closed> {
        let kind = Topic::parse(&message.topic).map(|t| t.kind);
        let crowded = self.queue.capacity() < QUEUE_MESSAGES / SHED_BELOW
            || self.room.available_permits() < QUEUE_BYTES / SHED_BELOW;
        let taken = if crowded && kind.is_none_or(Kind::streams) {
            false
        } else {
            match Arc::clone(&self.room).try_acquire_many_owned(cost(&message)) {
                Ok(room) => match self.queue.try_send(Queued {
                    message,
                    _room: room,
                }) {
                    Ok(()) => true,
                    Err(mpsc::error::TrySendError::Full(_)) => false,
                    Err(mpsc::error::TrySendError::Closed(_)) => return Err(Closed),
                },
                Err(_) => false,
            }
        };
        if !taken {
            self.shed.fetch_add(1, Ordering::Relaxed);
            counter!("trackside_ingest_shed_total", "kind" => kind.map_or("unknown", Kind::name))
                .increment(1);
        }
        Ok(taken)
    }

    /// A view of the queue that does not keep it open.
    pub fn gauge(&self) -> Gauge {
        Gauge {
            queue: self.queue.downgrade(),
            room: Arc::clone(&self.room),
            shed: Arc::clone(&self.shed),
        }
    }
}

/// How full the queue is, for health.
#[derive(Clone)]
pub struct Gauge {
    queue: mpsc::WeakSender<Queued>,
    room: Arc<Semaphore>,
    shed: Arc<AtomicU64>,
}

impl Gauge {
    /// 0 to 1: the fuller of messages and bytes.
    pub fn fill(&self) -> f64 {
        let free = self
            .queue
            .upgrade()
            .map_or(QUEUE_MESSAGES, |q| q.capacity());
        let messages = 1.0 - free as f64 / QUEUE_MESSAGES as f64;
        let bytes = 1.0 - self.room.available_permits() as f64 / QUEUE_BYTES as f64;
        messages.max(bytes)
    }

    /// QoS 0 messages shed since start.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

fn cost(message: &Message) -> u32 {
    let bytes = message.payload.len() + message.topic.len() + MESSAGE_OVERHEAD;
    bytes.min(QUEUE_BYTES) as u32
}

impl Queue {
    /// Moves messages into `into`: waits up to `patience` for a first one, then gathers until there
    /// are `most` or `gather` has passed. `false` once the queue is closed and empty. A message keeps
    /// its room in the queue until its [`Queued`] is dropped.
    pub(super) fn gather(
        &mut self,
        into: &mut Vec<Queued>,
        most: usize,
        patience: Duration,
        gather: Duration,
    ) -> bool {
        let messages = &mut self.messages;
        self.runtime.block_on(async {
            match tokio::time::timeout(patience, messages.recv_many(into, most)).await {
                Err(_) => return true,
                Ok(0) => return false,
                Ok(_) => {}
            }
            let deadline = tokio::time::Instant::now() + gather;
            while into.len() < most {
                let rest = most - into.len();
                match tokio::time::timeout_at(deadline, messages.recv_many(into, rest)).await {
                    Err(_) | Ok(0) => break,
                    Ok(_) => {}
                }
            }
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;

    fn message(topic: &str, bytes: usize) -> Message {
        Message {
            topic: topic.into(),
            payload: Bytes::from(vec![b' '; bytes]),
            received: Instant::now(),
            ack: None,
        }
    }

    /// What was offered and taken, until the first that was not.
    fn take_until_shed(intake: &Intake, topic: &str, bytes: usize, most: usize) -> usize {
        (0..most)
            .take_while(|_| intake.offer(message(topic, bytes)).unwrap())
            .count()
    }

    #[tokio::test]
    async fn what_streams_is_shed_first_then_all_and_each_is_counted() {
        let (intake, mut queue) = Intake::new(&Handle::current());
        let gauge = intake.gauge();
        let keep_free = QUEUE_MESSAGES / SHED_BELOW;
        // Up to an eighth of the queue everything has room.
        let taken = take_until_shed(&intake, "v1/car_data", 10, usize::MAX);
        assert_eq!((taken, gauge.shed()), (QUEUE_MESSAGES - keep_free + 1, 1));
        for topic in [
            "v1/location",
            "v1/intervals",
            "trackside/v1/frames/1/1",
            "nonsense",
        ] {
            assert_eq!(intake.offer(message(topic, 10)), Ok(false), "{topic}");
        }
        assert_eq!(gauge.shed(), 5);
        // The rest is for what does not stream.
        let taken = take_until_shed(&intake, "v1/laps", 10, usize::MAX);
        assert_eq!((taken, gauge.shed()), (keep_free - 1, 6));
        assert_eq!(gauge.fill(), 1.0);
        assert_eq!(intake.offer(message("v1/race_control", 10)), Ok(false));
        // And none of it once there is room again.
        let mut taken = Vec::new();
        tokio::task::spawn_blocking(move || {
            queue.gather(&mut taken, QUEUE_MESSAGES, Duration::ZERO, Duration::ZERO);
            assert_eq!(taken.len(), QUEUE_MESSAGES);
            drop(taken);
            assert_eq!(intake.offer(message("v1/car_data", 10)), Ok(true));
            assert_eq!(intake.gauge().shed(), 7);
            drop(queue);
            assert_eq!(intake.offer(message("v1/car_data", 10)), Err(Closed));
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn bytes_are_bounded_too() {
        const LARGE: usize = 1024 * 1024;
        let (intake, _queue) = Intake::new(&Handle::current());
        let taken = take_until_shed(&intake, "v1/car_data", LARGE, usize::MAX);
        assert_eq!(taken, 28, "of 32 MiB, an eighth is kept free");
        let taken = taken + take_until_shed(&intake, "v1/laps", LARGE, usize::MAX);
        assert_eq!(
            taken, 31,
            "the topic and what a message costs beside come on top"
        );
        // Who may not shed waits instead.
        let waiting = intake.send(message("v1/laps", LARGE));
        assert!(
            tokio::time::timeout(Duration::from_millis(50), waiting)
                .await
                .is_err()
        );
    }
}
