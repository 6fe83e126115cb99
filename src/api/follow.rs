//! Following a journal by sequence: catch-up and live are the same reading, so there is no seam.
//!
//! A follower holds nothing but the sequence it wants next. What is committed while it catches up
//! is simply further along; when it has reached the end it waits for the next commit.

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use tokio::sync::watch;

use super::history::{Lost, topic, wanted};
use crate::journal::{self, Reader};
use crate::record::{Entry, Kind};

/// Entries read at a time when every one is sent.
const READ: usize = 512;
/// Entries read at a time when most are passed over.
const READ_FILTERED: usize = 4_096;
/// Bytes of messages after which a chunk is sent as it is.
const CHUNK_BYTES: usize = 256 * 1024;

/// Which journal is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Records,
    Predictions,
}

/// Reads on from a sequence.
pub(super) struct Follower {
    stream: Stream,
    reader: Reader,
    committed: watch::Receiver<u64>,
    next: u64,
    kinds: Option<Vec<Kind>>,
    caught_up: bool,
}

/// Messages that are ready to be sent, in order.
pub(super) struct Chunk {
    pub messages: Vec<Utf8Bytes>,
    next: u64,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Notice {
    /// A range that cannot be had: damaged, or expired.
    Skipped {
        stream: Stream,
        #[serde(flatten)]
        lost: Lost,
    },
    /// Everything before `next_seq` has been sent; what follows is live.
    CaughtUp { stream: Stream, next_seq: u64 },
}

impl Follower {
    pub fn new(stream: Stream, reader: Reader, from: u64, kinds: Option<Vec<Kind>>) -> Follower {
        Follower {
            stream,
            committed: reader.committed(),
            reader,
            next: from,
            kinds,
            caught_up: false,
        }
    }

    /// Waits until there is something to read. May be dropped and called again at any time.
    /// `None` once the journal's writer is gone.
    pub async fn ready(&mut self) -> Option<()> {
        if !self.caught_up {
            return Some(());
        }
        let next = self.next;
        self.committed
            .wait_for(|committed| *committed > next)
            .await
            .ok()
            .map(|_| ())
    }

    /// Reads the next chunk off the async threads, and moves on.
    pub async fn read(&mut self) -> Result<Vec<Utf8Bytes>, journal::Error> {
        let (stream, reader, from) = (self.stream, self.reader.clone(), self.next);
        let kinds = self.kinds.clone();
        let end = *self.committed.borrow_and_update();
        let read = move || chunk(stream, &reader, from, end, kinds.as_deref());
        let chunk = match tokio::task::spawn_blocking(read).await {
            Ok(chunk) => chunk?,
            Err(fault) => std::panic::resume_unwind(fault.into_panic()),
        };
        let mut messages = chunk.messages;
        self.next = chunk.next;
        if !self.caught_up && self.next >= end {
            self.caught_up = true;
            messages.push(notice(&Notice::CaughtUp {
                stream,
                next_seq: self.next,
            }));
        }
        Ok(messages)
    }
}

/// Reads from `from` on, at most to `end`, and draws what is wanted.
fn chunk(
    stream: Stream,
    reader: &Reader,
    from: u64,
    end: u64,
    kinds: Option<&[Kind]>,
) -> Result<Chunk, journal::Error> {
    let mut messages = Vec::new();
    if from >= end {
        return Ok(Chunk {
            messages,
            next: from,
        });
    }
    let most = if kinds.is_some() { READ_FILTERED } else { READ };
    let batch = reader.batch(from, most)?;
    messages.extend(batch.skipped.iter().map(|skipped| {
        let lost = Lost::from(skipped);
        notice(&Notice::Skipped { stream, lost })
    }));
    let mut bytes = 0;
    for (seq, entry) in batch.iter() {
        if !wanted(kinds, entry.record.kind()) {
            continue;
        }
        let message = message(stream, seq, entry);
        bytes += message.len();
        messages.push(message);
        if bytes >= CHUNK_BYTES {
            return Ok(Chunk {
                messages,
                next: seq + 1,
            });
        }
    }
    // A batch is empty only where nothing is committed; were it empty here, it would be asked for
    // for ever.
    let next = match batch.next_seq() {
        next if next > from => next,
        _ => end,
    };
    Ok(Chunk { messages, next })
}

fn message(stream: Stream, seq: u64, entry: &Entry) -> Utf8Bytes {
    let kind = match stream {
        Stream::Records => "record",
        Stream::Predictions => "prediction",
    };
    let topic = topic(&entry.record);
    // An entry is structs, lists and numbers: writing it as JSON cannot fail.
    let payload = serde_json::to_string(entry).unwrap_or_else(|_| "null".to_owned());
    format!(r#"{{"type":"{kind}","seq":{seq},"topic":"{topic}","payload":{payload}}}"#).into()
}

fn notice(notice: &Notice) -> Utf8Bytes {
    serde_json::to_string(notice).unwrap_or_default().into()
}
