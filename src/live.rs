//! Live: the fold. Reads the journal by sequence, keeps the race state, makes predictions, journals
//! them, and hands out snapshots.
//!
//! **Invariant:** everything here is a function of the records folded so far. Wall-clock time decides
//! only how often a snapshot is handed out and what the latency histograms say. A restart folds the
//! current meeting again from the journal and arrives at the same state; predictions that were
//! journalled before are made again by the floor, read back where a model made them ([`Recall`]), and not
//! published twice. The fold waits for its models ([`MODELS_PATIENCE`]), so that it is theirs to answer from the
//! first record on, however long they take to load.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::engines::Slot;
use crate::ingest::receipts::Receipts;
use crate::journal::{self, Journal, Reader};
use crate::observability::Stage;
use crate::predict::{Models, Predictor, Scores};
use crate::race::{Event, Race, TrackStatus};
use crate::record::prediction::{LapTimePrediction, OrderPrediction, PitPrediction};
use crate::record::{Entry, Prediction, Record, Time};
use crate::strategy::model::LapsFrom;

/// Records folded between two looks at the clock.
pub const FOLD_BATCH: usize = 8_192;
/// Least time between two snapshots.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);
/// How long the fold waits for a commit before it reports that it is alive.
const IDLE_TICK: Duration = Duration::from_millis(500);
/// Pause after a read of the journal failed.
const READ_RETRY: Duration = Duration::from_millis(500);
/// A race weekend, tests included: sessions within it belong to one meeting and are folded together.
const MEETING_SPAN_S: f64 = 5.0 * 86_400.0;
/// Records before a session's own that may tell of it (its meeting).
const PREAMBLE: u64 = 64;
/// How long the fold waits for models that are being loaded before the floor answers in their place.
const MODELS_PATIENCE: Duration = Duration::from_secs(15);
/// Predictions read back at a time.
const RECALLED: usize = 256;
/// Alerts that a slow outlet may be behind.
pub const ALERTS: usize = 256;

/// Something that a person at the pit wall wants to be told at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// Record that brought it about.
    pub seq: u64,
    /// The feed's time.
    pub at: Time,
    pub session_key: i32,
    #[serde(flatten)]
    pub event: Event,
}

/// The state after some record, with the newest predictions.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Sequence of the next record to fold: everything before it is in here.
    pub seq: u64,
    pub race: Race,
    /// Next lap of each car.
    pub laptime: BTreeMap<u8, LapTimePrediction>,
    /// Next stop of each car.
    pub pit: BTreeMap<u8, PitPrediction>,
    /// Finishing order.
    pub order: Option<OrderPrediction>,
    /// How good the predictions were so far.
    pub scores: Scores,
    /// Name and version of what predicts, and what computes it: a model's where there is one.
    #[serde(skip)]
    pub predictor: (String, &'static str),
    /// The models in use.
    #[serde(skip)]
    pub models: Models,
    /// Laps of the race as the predictor knows them, and how.
    #[serde(skip)]
    pub laps: Option<(u16, LapsFrom)>,
}

/// The fold and its predictions.
pub struct Live {
    race: Race,
    predictor: Predictor,
    /// New models on their way.
    slot: Option<Slot>,
    predictions: Journal,
    laptime: BTreeMap<u8, LapTimePrediction>,
    pit: BTreeMap<u8, PitPrediction>,
    order: Option<OrderPrediction>,
    next: u64,
    /// Journalled predictions end with this many of this record.
    published: Option<(u64, usize)>,
    recall: Recall,
    /// Whether the models of lap times and of stops had left their bands.
    adrift: [bool; 2],
}

/// What one batch brought.
#[derive(Debug, Default)]
pub struct Folded {
    /// Predictions that are new, in order.
    pub predictions: Vec<Prediction>,
    pub alerts: Vec<Alert>,
}

impl Live {
    /// Begins at the current meeting in `records`; predictions go to `predictions`.
    ///
    /// # Errors
    /// If the predictions' journal cannot be read.
    pub fn new(
        records: &Reader,
        predictor: Predictor,
        predictions: Journal,
    ) -> Result<Live, journal::Error> {
        let published = last_published(&predictions.reader())?;
        let next = start_of_meeting(records);
        Ok(Live {
            race: Race::new(),
            predictor,
            slot: None,
            recall: Recall::new(predictions.reader(), next)?,
            predictions,
            laptime: BTreeMap::new(),
            pit: BTreeMap::new(),
            order: None,
            next,
            published,
            adrift: [false; 2],
        })
    }

    /// Takes new models from that slot, between two batches; the first of them before the first.
    #[must_use]
    pub fn with_slot(mut self, slot: Slot) -> Live {
        self.slot = Some(slot);
        self
    }

    /// Sequence of the next record to fold.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// How good the predictions were so far.
    pub fn scores(&self) -> &Scores {
        self.predictor.scores()
    }

    /// The race state.
    pub fn race(&self) -> &Race {
        &self.race
    }

    /// A reader of the predictions' journal.
    pub fn predictions(&self) -> Reader {
        self.predictions.reader()
    }

    /// Folds records of which the first has sequence `first`; journals what they bring.
    ///
    /// # Errors
    /// If predictions could not be journalled.
    pub fn fold(&mut self, first: u64, entries: &[Entry]) -> Result<Folded, journal::Error> {
        let mut folded = Folded::default();
        self.take_models();
        for (seq, entry) in (first..).zip(entries) {
            let events = self.race.apply(seq, entry);
            for event in &events {
                if let Event::SessionChanged { .. } = event {
                    self.laptime.clear();
                    self.pit.clear();
                    self.order = None;
                }
                if is_alert(event) {
                    folded.alerts.push(Alert {
                        seq,
                        at: self.race.clock,
                        session_key: self.race.session.key.unwrap_or_default(),
                        event: *event,
                    });
                }
            }
            let session = self.race.session.key;
            let before = match self.published {
                Some((last, _)) if seq <= last => self.recall.of(seq, session)?,
                _ => Vec::new(),
            };
            let made = self
                .predictor
                .observe_again(&self.race, seq, &events, &before);
            for (nth, prediction) in made.into_iter().enumerate() {
                self.keep(&prediction);
                if !self.was_published(seq, nth) {
                    folded.predictions.push(prediction);
                }
            }
        }
        self.next = first + entries.len() as u64;
        self.tell_drift();
        if !folded.predictions.is_empty() {
            let entries = folded.predictions.iter();
            self.predictions.append(
                entries
                    .map(|p| Entry::new(Record::Prediction(Box::new(p.clone()))))
                    .collect(),
            );
        }
        // Also without news: what an earlier failure left in the buffer is tried again.
        self.predictions.commit()?;
        Ok(folded)
    }

    /// Says when a model leaves its band, and when it is back.
    fn tell_drift(&mut self) {
        let drift = &self.predictor.scores().drift;
        let models = [("laptime", drift.laptime), ("stop", drift.stop)];
        for (was, (model, now)) in self.adrift.iter_mut().zip(models) {
            if now.adrift && !*was {
                tracing::warn!(model, "a model drifts: {}", now.words());
            } else if *was && !now.adrift {
                tracing::info!(model, "the model is within its band: {}", now.words());
            }
            *was = now.adrift;
        }
    }

    /// Takes the models that wait in the slot; whether there were any.
    fn take_models(&mut self) -> bool {
        let models = self.slot.as_ref().and_then(Slot::take);
        let there = models.is_some();
        if let Some(models) = models {
            self.predictor.swap_models(models);
        }
        there
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            seq: self.next,
            race: self.race.clone(),
            laptime: self.laptime.clone(),
            pit: self.pit.clone(),
            order: self.order.clone(),
            scores: self.predictor.scores().clone(),
            predictor: self.predictor.who(),
            models: self.predictor.models().clone(),
            laps: self.predictor.laps(),
        }
    }

    /// Seals the predictions' journal.
    ///
    /// # Errors
    /// The journal's.
    pub fn close(self) -> Result<(), journal::Error> {
        self.predictions.close()
    }

    fn keep(&mut self, prediction: &Prediction) {
        match prediction {
            Prediction::LapTime(p) => {
                self.laptime.insert(p.driver_number, p.clone());
            }
            Prediction::Pit(p) => {
                self.pit.insert(p.driver_number, p.clone());
            }
            Prediction::Race(p) => self.order = Some(p.clone()),
        }
    }

    fn was_published(&self, seq: u64, nth: usize) -> bool {
        self.published
            .is_some_and(|(last, count)| seq < last || (seq == last && nth < count))
    }
}

/// Reads back what was published, record by record in the order of the journal.
struct Recall {
    predictions: Reader,
    /// The next to be read, and where what was published before this start ends.
    at: u64,
    end: u64,
    read: VecDeque<Prediction>,
}

impl Recall {
    /// Begins with the predictions of record `from`.
    fn new(predictions: Reader, from: u64) -> Result<Recall, journal::Error> {
        let end = predictions.next_seq();
        let (mut low, mut high) = (predictions.first_seq(), end);
        while low < high {
            let middle = low + (high - low) / 2;
            let batch = predictions.batch(middle, 1)?;
            let earlier = batch.entries.first().is_some_and(|e| match &e.record {
                Record::Prediction(p) => p.seq() < from,
                _ => false,
            });
            match earlier {
                true => low = batch.next_seq(),
                false => high = middle,
            }
        }
        Ok(Recall {
            predictions,
            at: low,
            end,
            read: VecDeque::new(),
        })
    }

    /// What was published of that record, in that session; to be asked in ascending order.
    fn of(&mut self, seq: u64, session: Option<i32>) -> Result<Vec<Prediction>, journal::Error> {
        let mut found = Vec::new();
        loop {
            while let Some(next) = self.read.pop_front() {
                if next.seq() > seq {
                    self.read.push_front(next);
                    return Ok(found);
                }
                if next.seq() == seq && Some(next.session_key()) == session {
                    found.push(next);
                }
            }
            if self.at >= self.end {
                return Ok(found);
            }
            let most = RECALLED.min((self.end - self.at) as usize);
            let batch = self.predictions.batch(self.at, most)?;
            self.at = batch.next_seq().max(self.at + 1);
            let entries = batch.entries.into_iter();
            self.read.extend(entries.filter_map(|e| match e.record {
                Record::Prediction(p) => Some(*p),
                _ => None,
            }));
        }
    }
}

/// Where to begin: with the first session of the meeting that the journal ends in.
fn start_of_meeting(records: &Reader) -> u64 {
    let sessions = records.sessions();
    let Some(last) = sessions.iter().filter_map(|s| s.last).max() else {
        return records.first_seq();
    };
    sessions
        .iter()
        .filter(|s| {
            s.last
                .is_none_or(|t| last.seconds_since(t) <= MEETING_SPAN_S)
        })
        .map(|s| s.first_seq)
        .min()
        .unwrap_or(0)
        .saturating_sub(PREAMBLE)
        .max(records.first_seq())
}

fn last_published(predictions: &Reader) -> Result<Option<(u64, usize)>, journal::Error> {
    let next = predictions.next_seq();
    let mut last = None;
    // All predictions of one record lie side by side: at most two for each car and one for all.
    let from = next
        .saturating_sub(4 * crate::race::MAX_CARS as u64)
        .max(predictions.first_seq());
    let mut at = from;
    while at < next {
        let batch = predictions.batch(at, (next - at) as usize)?;
        if batch.entries.is_empty() {
            break;
        }
        for entry in batch.entries.iter() {
            if let Record::Prediction(p) = &entry.record {
                last = match last {
                    Some((seq, n)) if seq == p.seq() => Some((seq, n + 1)),
                    _ => Some((p.seq(), 1)),
                };
            }
        }
        at = batch.next_seq();
    }
    Ok(last)
}

fn is_alert(event: &Event) -> bool {
    match event {
        Event::TrackStatusChanged { status } => *status != TrackStatus::Yellow,
        Event::SessionChanged { .. }
        | Event::SessionStarted
        | Event::SessionFinished
        | Event::Retired { .. }
        | Event::PenaltyGiven { .. } => true,
        _ => false,
    }
}

/// Where the fold's results go.
pub struct Outlets {
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    pub alerts: broadcast::Sender<Alert>,
    pub receipts: Arc<Receipts>,
}

impl Live {
    /// Until the first models are there, or it is known that there will be none; also if the daemon is told to stop
    /// meanwhile, since what is committed is still to be folded, by whom it is due.
    fn wait_for_models(&self, runtime: &Handle, beat: impl Fn()) {
        let Some(slot) = &self.slot else { return };
        let began = Instant::now();
        while began.elapsed() < MODELS_PATIENCE {
            beat();
            // Made inside: the timer wants the runtime around it.
            let settled = async { tokio::time::timeout(IDLE_TICK, slot.settled()).await };
            if runtime.block_on(settled).is_ok() {
                return;
            }
        }
        tracing::warn!(
            "the models are still being loaded; the statistical floor answers until they are"
        );
    }

    /// Folds until `stop` is cancelled and everything committed is folded. `beat` is called at least
    /// every half second.
    ///
    /// # Errors
    /// If the predictions' journal cannot be closed.
    pub fn run(
        mut self,
        records: &Reader,
        outlets: &Outlets,
        runtime: &Handle,
        stop: &CancellationToken,
        beat: impl Fn(),
    ) -> Result<(), journal::Error> {
        self.wait_for_models(runtime, &beat);
        let mut committed = records.committed();
        // What was in the journal at start is no news to anyone.
        let live_from = records.next_seq();
        let mut handed_out = Instant::now();
        let mut stale = true;
        loop {
            beat();
            stale |= self.take_models();
            let batch = match records.batch(self.next, FOLD_BATCH) {
                Ok(batch) => batch,
                Err(e) => {
                    tracing::error!(error = %e, seq = self.next, "the journal cannot be read; trying again");
                    std::thread::sleep(READ_RETRY);
                    continue;
                }
            };
            for skipped in &batch.skipped {
                tracing::error!(
                    ?skipped,
                    "records are left out of the state: the journal has them no more"
                );
            }
            if batch.entries.is_empty() && batch.next_seq() <= self.next {
                if stale && handed_out.elapsed() >= SNAPSHOT_INTERVAL {
                    outlets.snapshot.send_replace(Arc::new(self.snapshot()));
                    (stale, handed_out) = (false, Instant::now());
                }
                if stop.is_cancelled() {
                    outlets.snapshot.send_replace(Arc::new(self.snapshot()));
                    return self.close();
                }
                let patience = if stale { SNAPSHOT_INTERVAL } else { IDLE_TICK };
                runtime.block_on(async {
                    tokio::select! {
                        _ = committed.changed() => {}
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(patience) => {}
                    }
                });
                continue;
            }
            let last = batch.next_seq() - 1;
            match self.fold(batch.first_seq, &batch.entries) {
                Ok(folded) => {
                    outlets.receipts.done(Stage::State, last);
                    if let Some(newest) = folded.predictions.last() {
                        outlets.receipts.done(Stage::Predicted, newest.seq());
                    }
                    for alert in folded.alerts {
                        if alert.seq >= live_from {
                            // Nobody listening is no error.
                            let _ = outlets.alerts.send(alert);
                        }
                    }
                }
                Err(e) => tracing::error!(error = %e, "predictions could not be journalled"),
            }
            self.next = batch.next_seq();
            stale = true;
            if handed_out.elapsed() >= SNAPSHOT_INTERVAL {
                outlets.snapshot.send_replace(Arc::new(self.snapshot()));
                (stale, handed_out) = (false, Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests;
