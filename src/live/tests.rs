//! A simulated race by the shipped models, in one life and in several.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::inference::{self, Engine, EngineError, Model, Tensor};
use crate::predict::models::{LAPTIME, LapTimeModel};
use crate::predict::outcome::{OUTCOME, OutcomeModel};
use crate::predict::stops::{FORECAST, StopModel};
use crate::predict::{Floor, Models};
use crate::record::decode;
use crate::simulator::circuit::CIRCUITS;
use crate::simulator::{self, Simulator};

/// Records folded at a time.
const BATCH: usize = 64;

/// Counts how often it is asked.
struct Counting {
    inner: Box<dyn Engine>,
    runs: Arc<AtomicU64>,
}

impl Engine for Counting {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn model(&self) -> &Model {
        self.inner.model()
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.inner.run(inputs)
    }
}

/// The shipped models, and how often they were asked.
fn shipped() -> (Models, Arc<AtomicU64>) {
    let runs = Arc::new(AtomicU64::new(0));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
    let counting = |name: &str| -> Arc<dyn Engine> {
        let inner = inference::load_batches(&folder, name, &[1]).unwrap();
        let runs = Arc::clone(&runs);
        Arc::new(Counting { inner, runs })
    };
    let models = Models {
        laptime: Some(Arc::new(LapTimeModel::new(counting(LAPTIME)).unwrap())),
        outcome: Some(Arc::new(OutcomeModel::new(counting(OUTCOME)).unwrap())),
        stop: Some(Arc::new(StopModel::new(counting(FORECAST)).unwrap())),
        policy: None,
    };
    (models, runs)
}

fn journal(dir: &Path, name: &str) -> Journal {
    Journal::open(&dir.join(name), journal::Options::default(), &mut |_| {}).unwrap()
}

/// Everything but telemetry of a short race.
fn race(dir: &Path) -> Reader {
    let options = simulator::Options {
        laps: Some(12),
        cars: 10,
        ..simulator::Options::new(&CIRCUITS[3])
    };
    let quick = |topic: &str| topic.ends_with("car_data") || topic.ends_with("location");
    let messages = Simulator::new(options).unwrap();
    let entries = messages
        .filter(|m| !quick(&m.topic))
        .filter_map(|m| decode(&m.topic, &m.payload).ok())
        .map(|d| d.entry);
    let mut records = journal(dir, "records");
    records.append(entries.collect());
    records.commit().unwrap();
    records.reader()
}

/// Folds up to that record.
fn fold(live: &mut Live, records: &Reader, until: u64) -> Vec<Prediction> {
    let mut made = Vec::new();
    while live.next_seq() < until {
        let most = BATCH.min((until - live.next_seq()) as usize);
        let batch = records.batch(live.next_seq(), most).unwrap();
        made.extend(
            live.fold(batch.first_seq, &batch.entries)
                .unwrap()
                .predictions,
        );
    }
    made
}

#[test]
fn a_restart_asks_no_model_again_and_goes_on_as_if_there_had_been_none() {
    let dir = tempfile::tempdir().unwrap();
    let records = race(dir.path());
    let end = records.next_seq();
    let (models, runs) = shipped();
    let start = |name: &str| {
        let predictor = Predictor::new(Floor::shipped()).with_models(models.clone());
        Live::new(&records, predictor, journal(dir.path(), name)).unwrap()
    };
    let mut one = start("one");
    let whole = fold(&mut one, &records, end);
    let asked = runs.swap(0, Ordering::Relaxed);
    let by_models = whole.iter().filter(|p| p.provenance().backend == "tract");
    let by_models = by_models.count() as u64;
    assert!(by_models > 200 && asked >= by_models, "{by_models} {asked}");

    let mut made = Vec::new();
    for part in 1..=5 {
        let mut live = start("many");
        let before = end * (part - 1) / 5;
        assert!(fold(&mut live, &records, before).is_empty());
        assert_eq!(runs.load(Ordering::Relaxed), 0, "part {part}");
        made.extend(fold(&mut live, &records, end * part / 5));
        runs.store(0, Ordering::Relaxed);
        let (now, then) = (live.snapshot(), one.snapshot());
        if part == 5 {
            assert_eq!(now.laptime, then.laptime);
            assert_eq!(now.pit, then.pit);
            assert_eq!(now.order, then.order);
            assert_eq!(now.scores, then.scores);
        }
        live.close().unwrap();
    }
    assert_eq!(made, whole);
}

#[test]
fn what_was_published_in_part_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let records = race(dir.path());
    let (models, _) = shipped();
    let start = |name: &str| {
        let predictor = Predictor::new(Floor::shipped()).with_models(models.clone());
        Live::new(&records, predictor, journal(dir.path(), name)).unwrap()
    };
    let mut one = start("one");
    let whole = fold(&mut one, &records, records.next_seq());
    // A power cut in the middle of a record's predictions: of the leader's crossing, which brings several.
    let torn = whole
        .windows(3)
        .rposition(|w| w[0].seq() == w[1].seq() && w[1].seq() == w[2].seq())
        .unwrap();
    let mut cut = journal(dir.path(), "cut");
    let kept = whole[..=torn].iter();
    cut.append(
        kept.map(|p| Entry::new(Record::Prediction(Box::new(p.clone()))))
            .collect(),
    );
    cut.close().unwrap();
    let made = fold(&mut start("cut"), &records, records.next_seq());
    assert_eq!(made, whole[torn + 1..]);
}
