//! The shipped models on an invented race: loaded, swapped while it runs, broken.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::dataset::{Dataset, RaceData, Walk};
use crate::inference::{Model, Tensor};
use crate::predict::models::LapTimeModel;
use crate::predict::{Floor, Predictor};
use crate::record::prediction::{LapTimePrediction, Prediction};

const LAPS: u16 = 24;

fn shipped() -> Chosen {
    Chosen::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("engines"))
}

/// Eight cars, 24 laps, tyres that wear, a stop each, and noise.
pub(crate) fn invented() -> RaceData {
    let mut rows = String::from(
        "season,round,event_name,driver_number,team,lap_number,lap_time_s,sector1_s,sector2_s,sector3_s,\
         lap_end_session_s,stint,compound,tyre_life_laps,is_in_lap,is_out_lap,track_status\n",
    );
    let mut state = 7u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5
    };
    for car in 1..=8u16 {
        let mut clock = 3600.0 + f64::from(car) * 0.4;
        let stop = 10 + car % 4;
        for lap in 1..=LAPS {
            let (stint, age) = if lap <= stop {
                (1, lap)
            } else {
                (2, lap - stop)
            };
            let (pit_in, pit_out) = (lap == stop, lap == stop + 1);
            let sectors = [30.0, 35.0, 25.0].map(|s| s + 0.02 * f64::from(age) + 0.3 * noise());
            let lost = if lap == 1 {
                6.0
            } else if pit_out {
                20.0
            } else {
                0.0
            };
            let time = sectors.iter().sum::<f64>() + 0.1 * f64::from(car) + lost;
            clock += time;
            let [a, b, _] = sectors;
            rows += &format!(
                "2031,1,Moon Grand Prix,{car},Team {},{lap},{time:.3},{a:.3},{b:.3},{:.3},{clock:.3},{stint},\
                 MEDIUM,{age},{},{},1\n",
                car / 2,
                time - a - b,
                u8::from(pit_in),
                u8::from(pit_out)
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("laps")).unwrap();
    std::fs::write(dir.path().join("laps/laps-2031.csv"), rows).unwrap();
    let mut set = Dataset::read(dir.path(), 2031..=2031).unwrap();
    assert_eq!(set.faults.count, 0);
    set.races.remove(0)
}

/// Lap predictions; at step `swap.0` other models are taken.
fn drive(models: Models, swap: Option<(u64, &Models)>) -> (Vec<LapTimePrediction>, Predictor) {
    let mut predictor = Predictor::new(Floor::shipped()).with_models(models);
    let mut made = Vec::new();
    Walk::new(&invented()).each(|view, seq, events| {
        if let Some((_, models)) = swap.filter(|(at, _)| *at == seq) {
            predictor.swap_models(models.clone());
        }
        for prediction in predictor.observe_view(view, seq, events) {
            if let Prediction::LapTime(p) = prediction {
                made.push(p);
            }
        }
    });
    (made, predictor)
}

#[test]
fn shipped_models_answer_flying_laps_and_are_graded_beside_the_floor() {
    let models = shipped().load().unwrap();
    let (made, predictor) = drive(models, None);
    let modelled = made
        .iter()
        .filter(|p| p.provenance.backend == "tract")
        .count();
    let floor = made
        .iter()
        .filter(|p| p.provenance.model == "floor-1")
        .count();
    // Three a lap but for laps 1 and 2, the in- and out-laps, and the last that nothing follows.
    assert!(modelled > 300 && floor > 20, "{modelled} {floor}");
    let scores = predictor.scores();
    for at in 0..3 {
        let (model, floor) = (scores.laptime.clean[at], scores.laptime.floor[at]);
        assert!(model.count == floor.count && model.count > 100);
        assert!(model.mae() < Some(0.5), "{model:?}");
    }
    assert!(scores.laptime.modelled > 300);
    assert!(
        made.iter()
            .all(|p| p.lap_time.p10 <= p.lap_time.p50 && p.lap_time.p50 <= p.lap_time.p90)
    );
    assert_eq!(predictor.model_failure(), None);
}

#[test]
fn a_model_swapped_in_mid_race_goes_on_as_if_it_had_been_there() {
    let models = shipped().load().unwrap();
    let (whole, _) = drive(models.clone(), None);
    let (swapped, _) = drive(Models::none(), Some((300, &models)));
    assert_eq!(whole.len(), swapped.len());
    let mut alike = 0;
    for (a, b) in whole.iter().zip(&swapped) {
        assert_eq!(
            (a.driver_number, a.lap_number),
            (b.driver_number, b.lap_number)
        );
        if b.provenance.seq >= 300 {
            // After a sector it is moved by what it said of the latest laps: until it has, by nothing.
            if b.sectors_known > 0 && b.provenance.seq < 460 {
                assert!((a.lap_time.p50 - b.lap_time.p50).abs() < 0.1, "{a:?} {b:?}");
                continue;
            }
            assert_eq!(
                (a.lap_time.p50, &a.provenance),
                (b.lap_time.p50, &b.provenance)
            );
            alike += u32::from(b.provenance.backend == "tract");
        } else {
            assert_eq!(b.provenance.model, "floor-1");
        }
    }
    assert!(alike > 100, "{alike}");
}

/// Counts what it is asked.
struct Counting {
    inner: Arc<dyn Engine>,
    runs: Arc<std::sync::atomic::AtomicUsize>,
}

impl Engine for Counting {
    fn backend(&self) -> &'static str {
        "counting"
    }

    fn model(&self) -> &Model {
        self.inner.model()
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.inner.run(inputs)
    }
}

/// As a GPU takes over, and gives back: nothing is forgotten, nothing is asked twice.
#[test]
fn the_same_models_on_another_engine_go_on_where_they_were() {
    let models = shipped().load().unwrap();
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = || {
        let other = |inner: &Arc<dyn Engine>| -> Result<Arc<dyn Engine>, EngineError> {
            let (inner, runs) = (Arc::clone(inner), Arc::clone(&runs));
            Ok(Arc::new(Counting { inner, runs }))
        };
        models.on(other).unwrap()
    };
    let (whole, _) = drive(counted(), None);
    let asked = runs.swap(0, std::sync::atomic::Ordering::Relaxed);
    let (swapped, _) = drive(counted(), Some((300, &counted())));
    assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), asked);
    assert_eq!(whole, swapped);
    // Nor where the engines call themselves differently.
    let (swapped, _) = drive(models.clone(), Some((300, &counted())));
    assert_eq!(whole.len(), swapped.len());
    let mut by = [0, 0];
    for (a, b) in whole.iter().zip(&swapped) {
        assert_eq!(a.lap_time, b.lap_time, "{:?}", b.provenance);
        by[0] += u32::from(b.provenance.backend == "tract");
        by[1] += u32::from(b.provenance.backend == "counting");
    }
    assert!(by[0] > 100 && by[1] > 100, "{by:?}");
}

/// Answers `good` times, then fails.
struct Failing {
    inner: Box<dyn Engine>,
    good: std::sync::atomic::AtomicU32,
}

impl Engine for Failing {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn model(&self) -> &Model {
        self.inner.model()
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.good.fetch_sub(1, Relaxed) == 0 {
            self.good.store(0, Relaxed);
            return Err(EngineError::Run {
                model: self.model().id(),
                backend: "tract",
                why: "out of order".to_owned(),
            });
        }
        self.inner.run(inputs)
    }
}

#[test]
fn a_model_that_fails_leaves_the_race_to_the_floor() {
    let folder = shipped().folder().unwrap();
    let failing = Failing {
        inner: crate::inference::load(&folder, "laptime").unwrap(),
        good: 50.into(),
    };
    let model = LapTimeModel::new(Arc::new(failing)).unwrap();
    let models = Models {
        laptime: Some(Arc::new(model)),
        ..Models::none()
    };
    let (made, predictor) = drive(models, None);
    let (floor, _) = drive(Models::none(), None);
    assert_eq!(made.len(), floor.len());
    assert!(predictor.model_failure().unwrap().contains("out of order"));
    assert!(made.iter().any(|p| p.provenance.backend == "tract"));
    assert_eq!(made.last(), floor.last());
}

#[test]
fn a_new_version_is_checked_before_it_is_handed_over() {
    let source = shipped().folder().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let manifest = std::fs::read_to_string(source.join(manifest::FILE)).unwrap();
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let chosen = Chosen::Folder(dir.path().to_owned());
    let write = |text: &str| std::fs::write(dir.path().join(manifest::FILE), text).unwrap();
    let slot = Slot::default();
    let mut watch = Watch::new(chosen, slot.clone());
    assert!(!*slot.settled.borrow());
    assert!(watch.look() && *slot.settled.borrow());
    assert!(slot.take().unwrap().outcome.is_some());
    assert!(!watch.look() && slot.take().is_none());
    // Broken: named in the log, nothing is handed over.
    let at = manifest.find("sha256 = \"").unwrap() + 10;
    write(&format!(
        "{}{}{}\n",
        &manifest[..at],
        "0".repeat(64),
        &manifest[at + 64..]
    ));
    assert!(!watch.look() && slot.take().is_none());
    // Whole again, one line longer, and nothing new in it.
    write(&format!("{manifest}\n# again\n"));
    assert!(!watch.look() && slot.take().is_none());
    // One model less.
    let less = manifest.replace("name = \"pit-forecast\"", "name = \"forecast-of-pits\"");
    write(&less);
    assert!(watch.look());
    let models = slot.take().unwrap();
    assert!(models.laptime.is_some() && models.stop.is_none());
    assert!(models.policy.is_some());
    // The strategist's network is swapped with the others.
    write(&less.replace("name = \"pit\"", "name = \"pits\""));
    assert!(watch.look());
    assert!(slot.take().unwrap().policy.is_none());
}

/// What an engine on a GPU takes to be taken apart is not the fold's time.
#[test]
fn an_engine_is_taken_apart_by_who_handed_it_over() {
    let slot = Slot::default();
    let mut watch = Watch::new(shipped(), slot.clone());
    assert!(watch.look());
    let mut fold = Predictor::new(Floor::shipped()).with_models(slot.take().unwrap());
    let first: Vec<_> = fold.models().engines().map(Arc::downgrade).collect();
    assert_eq!(first.len(), 3);
    // Another version takes their place.
    watch.current = Models::none();
    assert!(watch.load());
    watch.look();
    fold.swap_models(slot.take().unwrap());
    assert!(first.iter().all(|e| e.strong_count() == 1));
    watch.look();
    assert!(first.iter().all(|e| e.strong_count() == 0));
    assert!(fold.models().engines().all(|e| Arc::strong_count(e) > 1));
}
