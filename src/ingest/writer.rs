//! The writer: decodes, deduplicates, journals and acknowledges, one batch at a time.
//!
//! **Invariant:** an [`super::Ack`] leaves here only after [`Journal::commit`] returned with the
//! message's record on disk, or after the message was refused for good (malformed, duplicate,
//! superseded).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::dedupe::{Dedupe, Verdict};
use super::intake::{Queue, Queued};
use super::receipts::Receipts;
use super::tally::Tally;
use super::{Ack, Message};
use crate::journal::{self, Journal};
use crate::observability::{STAGE_SECONDS, SampledLog, Stage};
use crate::record::{self, Entry, Kind, Record};

/// How long the writer waits for a message before it reports that it is alive.
const IDLE_TICK: Duration = Duration::from_millis(500);
/// After this long without a record, the open segment is sealed.
const SEAL_AFTER_IDLE: Duration = Duration::from_secs(600);
/// Live records of another session in a row after which that one is the present one.
const SESSION_CHANGE: u32 = 1_000;
/// Pause between attempts to commit while the disk is full or failing.
const COMMIT_RETRY: Duration = Duration::from_millis(250);

/// How records are gathered into commits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitOptions {
    /// A commit closes at this many messages: fewer than a source may have out, or it would wait for
    /// messages that the broker holds back until this very commit is acknowledged …
    pub records: usize,
    /// … or this long after its first one (ms), whichever is first.
    pub interval_ms: u64,
}

impl Default for CommitOptions {
    fn default() -> Self {
        CommitOptions {
            records: 4_096,
            interval_ms: 5,
        }
    }
}

/// What the writer tells about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriterStatus {
    /// Why it cannot commit at present, if it cannot.
    pub blocked: Option<String>,
    /// Whether that is because the disk is full.
    pub disk_full: bool,
    /// Records accepted since start.
    pub accepted: u64,
    /// Frames that never came, by their sequence numbers.
    pub frame_gaps: u64,
    /// When the last record was accepted.
    pub last_accepted: Option<Instant>,
}

/// The only one who writes the journal of records.
pub struct Writer {
    journal: Journal,
    dedupe: Dedupe,
    options: CommitOptions,
    tally: Arc<Mutex<Tally>>,
    receipts: Arc<Receipts>,
    status: watch::Sender<WriterStatus>,
    rejected: SampledLog,
    pending: Vec<Entry>,
    acks: Vec<Ack>,
    received: Vec<Instant>,
    /// The session whose live records arrive at present.
    session: Option<i32>,
    /// Live records in a row that belong to another one.
    strangers: u32,
    seal_after_commit: bool,
}

impl Writer {
    /// Takes over `journal`.
    pub fn new(journal: Journal, options: CommitOptions) -> Writer {
        Writer {
            dedupe: Dedupe::new(journal.reader()),
            journal,
            options,
            tally: Arc::default(),
            receipts: Arc::default(),
            status: watch::channel(WriterStatus::default()).0,
            rejected: SampledLog::default(),
            pending: Vec::new(),
            acks: Vec::new(),
            received: Vec::new(),
            session: None,
            strangers: 0,
            seal_after_commit: false,
        }
    }

    /// Counts by topic, shared with whoever reports them.
    pub fn tally(&self) -> Arc<Mutex<Tally>> {
        Arc::clone(&self.tally)
    }

    /// When records were received, for the latency of later stages.
    pub fn receipts(&self) -> Arc<Receipts> {
        Arc::clone(&self.receipts)
    }

    /// What the writer tells about itself.
    pub fn status(&self) -> watch::Receiver<WriterStatus> {
        self.status.subscribe()
    }

    /// A reader of the journal that is written.
    pub fn reader(&self) -> journal::Reader {
        self.journal.reader()
    }

    /// Writes until the queue is closed and empty, or `stop` is cancelled while the disk refuses.
    /// `beat` is called at least every half second while there is progress to be made.
    ///
    /// # Errors
    /// If the journal fails in a way that a retry cannot mend.
    pub fn run(
        mut self,
        mut queue: Queue,
        stop: &CancellationToken,
        beat: impl Fn(),
    ) -> Result<(), journal::Error> {
        let gather = Duration::from_millis(self.options.interval_ms);
        let mut batch: Vec<Queued> = Vec::new();
        let mut last_record = Instant::now();
        let mut sealed = false;
        while queue.gather(&mut batch, self.options.records, IDLE_TICK, gather) {
            beat();
            if batch.is_empty() {
                if !sealed && last_record.elapsed() > SEAL_AFTER_IDLE {
                    match self.journal.close_segment() {
                        Ok(()) => sealed = true,
                        // Nobody waits for it: what is committed stays where it is until the next try.
                        Err(e) => {
                            tracing::warn!(error = %e, "the idle session's segment cannot be sealed");
                            last_record = Instant::now();
                        }
                    }
                }
                continue;
            }
            (last_record, sealed) = (Instant::now(), false);
            for queued in &mut batch {
                self.absorb(&mut queued.message);
            }
            while let Err(e) = self.commit() {
                if stop.is_cancelled() {
                    return Err(e);
                }
                self.refuse(&e);
                beat();
                std::thread::sleep(COMMIT_RETRY);
            }
            // Only now may the queue take as many bytes again.
            batch.clear();
        }
        self.close()
    }

    /// Decodes, judges and queues one message for the next commit; whether the journal will get it.
    pub fn absorb(&mut self, message: &mut Message) -> bool {
        self.acks.extend(message.ack.take());
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = tally.topic(&message.topic);
        topic.messages += 1;
        let decoded = match record::decode(&message.topic, &message.payload) {
            Ok(decoded) => decoded,
            Err(reject) => {
                let reason = reject.reason();
                *topic.rejected.entry(reason).or_default() += 1;
                counter!("trackside_ingest_rejected_total", "reason" => reason).increment(1);
                let (topic, payload) = (&message.topic, &message.payload);
                self.rejected.rejected(reason, topic, payload, &reject);
                return false;
            }
        };
        topic.nulled += u64::from(decoded.nulled.0);
        match self.dedupe.judge(&decoded.entry) {
            Ok(Verdict::Duplicate) => {
                topic.duplicates += 1;
                false
            }
            Ok(Verdict::Superseded) => {
                topic.superseded += 1;
                false
            }
            verdict => {
                // If the journal cannot say whether it holds the record, keeping it twice is the
                // lesser evil: the state takes the newest version anyhow.
                if let Err(e) = &verdict {
                    tracing::error!(error = %e, "the journal could not be asked for a duplicate");
                }
                topic.documents += u64::from(verdict.ok() == Some(Verdict::NewDocument));
                drop(tally);
                self.note_session(&decoded.entry.record);
                self.pending.push(decoded.entry);
                self.received.push(message.received);
                true
            }
        }
    }

    /// Makes durable what was absorbed, then acknowledges it. Returns how many records.
    ///
    /// # Errors
    /// The journal's; what was absorbed stays, and the next call tries again.
    pub fn commit(&mut self) -> Result<usize, journal::Error> {
        if !self.pending.is_empty() {
            self.journal.append(std::mem::take(&mut self.pending));
        }
        let accepted = self.received.len();
        if accepted > 0 {
            let first = self.journal.next_seq() - accepted as u64;
            self.journal.commit()?;
            self.settle(first);
        }
        for ack in self.acks.drain(..) {
            // A source that is gone needs no word: its broker will deliver again.
            let _ = ack.to.send(ack.token);
        }
        if std::mem::take(&mut self.seal_after_commit) {
            self.journal.close_segment()?;
        }
        Ok(accepted)
    }

    /// Commits what is left and closes the journal. The last segment stays open: a daemon that starts again
    /// goes on with it.
    ///
    /// # Errors
    /// The journal's.
    pub fn close(mut self) -> Result<(), journal::Error> {
        self.commit()?;
        self.journal.close()
    }

    /// [`Writer::close`] at the end of what there is to write: the last segment is sealed.
    ///
    /// # Errors
    /// The journal's.
    pub fn finish(mut self) -> Result<(), journal::Error> {
        self.commit()?;
        self.journal.close_segment()?;
        self.journal.close()
    }

    fn settle(&mut self, first: u64) {
        let now = Instant::now();
        let oldest = self.received.iter().min().copied().unwrap_or(now);
        let durable = histogram!(STAGE_SECONDS, "stage" => Stage::Durable.name());
        for received in self.received.drain(..) {
            durable.record((now - received).as_secs_f64());
        }
        let next = self.journal.next_seq();
        self.receipts.push(first, next, oldest);
        counter!("trackside_journal_records_total").increment(next - first);
        counter!("trackside_journal_commits_total").increment(1);
        let frame_gaps = self.dedupe.frame_gaps();
        self.status.send_modify(|s| {
            (s.blocked, s.disk_full) = (None, false);
            s.accepted += next - first;
            s.frame_gaps = frame_gaps;
            s.last_accepted = Some(now);
        });
    }

    fn refuse(&self, error: &journal::Error) {
        let why = error.to_string();
        counter!("trackside_journal_commit_failures_total").increment(1);
        self.status.send_if_modified(|s| {
            let news = s.blocked.as_deref() != Some(&why);
            if news {
                tracing::error!(error = %why, "nothing is acknowledged until the journal can write");
                s.blocked = Some(why);
                s.disk_full = matches!(error, journal::Error::DiskFull { .. });
            }
            news
        });
    }

    /// A session that live records have moved on from is over: its segment is sealed. A stray record of
    /// another session says nothing, a run of them does.
    fn note_session(&mut self, record: &Record) {
        if !matches!(record.kind(), Kind::CarData | Kind::Location | Kind::Lap) {
            return;
        }
        let session = record.session_key();
        if self.session == session {
            self.strangers = 0;
            return;
        }
        self.strangers += 1;
        if self.session.is_none() || self.strangers >= SESSION_CHANGE {
            self.seal_after_commit |= self.session.is_some();
            self.session = session;
            self.strangers = 0;
        }
    }
}
