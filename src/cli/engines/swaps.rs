//! Handing models over while a race runs: what it costs whoever folds, and whether the answers stay what they are.
//!
//! A simulated race is folded and predicted from tick by tick, [`SPEED`] times as fast as it is driven. Beside it a
//! thread does what the daemon does: it builds the engines, in a process of their own, loads them, compares them and
//! puts them into the slot, the CPU's in between; the tick that finds models there takes them as the daemon's fold does.
//! Each prediction is compared with what the CPU alone has said at the same record.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::cli::say::say;
use crate::engines::Slot;
use crate::inference::tensorrt::Precision;
use crate::predict::{Floor, MODEL, Models, Predictor};
use crate::race::{Events, Race};
use crate::record::prediction::Prediction;
use crate::record::{Entry, Time, decode};
use crate::simulator::circuit::CIRCUITS;
use crate::simulator::{Options, Simulator};

/// How often records are folded; a tick that takes longer is late.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// Ticks between two hand-overs: most of a lap, since cars that drive close together cross a line close together, and
/// nothing is predicted until the next.
const TICKS_BETWEEN: u32 = 250;
/// Seconds of the race in one: so fast that there is something to predict in most ticks, and seldom much.
const SPEED: f64 = 10.0;
/// Laps of the race, which begins again where handing over takes longer.
pub(super) const LAPS: u16 = 12;

/// What is asked of the models that are handed over.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// What answers.
    pub backend: &'static str,
    /// How far from the CPU's a time may be (s), or a probability.
    pub off: f64,
}

impl Wanted {
    /// Of engines in that precision. An answer moves the width of the next ones, so that differences live on.
    pub fn of(backend: &'static str, precision: Precision) -> Wanted {
        let off = match precision {
            Precision::Fp32 => 0.02,
            Precision::Fp16 => 0.1,
        };
        Wanted { backend, off }
    }
}

/// What handing models over cost whoever folds meanwhile.
#[derive(Debug, Default, Serialize)]
pub(super) struct Swaps {
    pub swaps: usize,
    pub ticks: u64,
    pub late: u64,
    pub longest_ms: f64,
    /// The longest that the fold took to take models.
    pub longest_swap_ms: f64,
    /// Until the first engines were built and loaded.
    pub first_s: f64,
    pub predictions: u64,
    /// Those that a model has made, by the backend that was asked for, while its engines were in use.
    pub by_backend: u64,
    /// Times that engines were taken away again and had gone over to another backend by then.
    pub fallen_back: u64,
    /// The furthest that a time (s) or a probability was from the CPU's.
    pub off: f64,
}

impl Swaps {
    pub fn say(&self) {
        let Swaps {
            swaps,
            ticks,
            late,
            longest_ms,
            longest_swap_ms,
            ..
        } = self;
        say!(
            "{swaps} swaps under load: {ticks} ticks, {late} late, the longest {longest_ms:.2} ms"
        );
        say!(
            "    taking models: at most {longest_swap_ms:.3} ms; the first were there after {:.1} s",
            self.first_s
        );
        let Swaps {
            predictions,
            by_backend,
            off,
            ..
        } = self;
        say!(
            "    {predictions} predictions, {by_backend} by the engines handed over, off the CPU's by at most {off:.1e}"
        );
    }

    /// # Errors
    /// What was not as it should be.
    pub fn judge(&self, wanted: Wanted) -> anyhow::Result<()> {
        let Wanted { backend, off } = wanted;
        anyhow::ensure!(
            self.late == 0,
            "{} ticks were late while models were handed over",
            self.late
        );
        anyhow::ensure!(self.by_backend > 0, "{backend} has predicted nothing");
        anyhow::ensure!(
            self.fallen_back == 0,
            "{} times the models had left {backend} before they were taken away",
            self.fallen_back
        );
        anyhow::ensure!(
            self.off <= off,
            "a prediction was {:.2e} off the CPU's; {off:.0e} is allowed",
            self.off
        );
        Ok(())
    }
}

/// A race to be folded, and what the CPU says of it.
pub(super) struct Course {
    /// Up to the first flying lap that a model predicts: folded at once.
    before: usize,
    records: Vec<Entry>,
    /// When each of them was made.
    times: Vec<Time>,
    expected: Vec<Vec<Prediction>>,
}

impl Course {
    /// A race of so many laps, with these models on the CPU.
    ///
    /// # Errors
    /// If the simulator refuses its options, or the models predict no flying lap.
    pub fn of(on_cpu: &Models, laps: u16) -> anyhow::Result<Course> {
        let options = Options {
            laps: Some(laps),
            ..Options::new(&CIRCUITS[0])
        };
        let decoded = Simulator::new(options)?.filter_map(|m| {
            let entry = decode(&m.topic, &m.payload).ok()?.entry;
            Some((m.t, entry))
        });
        let (times, records): (Vec<Time>, Vec<Entry>) = decoded.unzip();
        let mut drive = Drive::new(on_cpu.clone());
        let expected: Vec<_> = records.iter().map(|r| drive.fold(r)).collect();
        let is_first = |made: &Vec<Prediction>| made.iter().any(is_modelled_lap);
        let before = expected.iter().position(is_first);
        Ok(Course {
            before: before.context("no model predicts a flying lap of the simulated race")?,
            records,
            times,
            expected,
        })
    }
}

fn is_modelled_lap(prediction: &Prediction) -> bool {
    matches!(prediction, Prediction::LapTime(p) if p.provenance.model != MODEL)
}

/// One way through the race.
struct Drive {
    race: Race,
    predictor: Predictor,
    next: usize,
}

impl Drive {
    fn new(models: Models) -> Drive {
        Drive {
            race: Race::new(),
            predictor: Predictor::new(Floor::shipped()).with_models(models),
            next: 0,
        }
    }

    fn fold(&mut self, record: &Entry) -> Vec<Prediction> {
        let seq = self.next as u64;
        self.next += 1;
        let events: Events = self.race.apply(seq, record);
        self.predictor.observe(&self.race, seq, &events)
    }
}

/// Folds that race while `moved` gives the models to be handed over, in turn with the CPU's.
///
/// # Errors
/// What `moved` said, or a model that failed.
pub(super) fn under_load(
    course: &Course,
    on_cpu: &Models,
    moved: impl Fn() -> anyhow::Result<Models> + Sync,
    wanted: Wanted,
    swaps: usize,
) -> anyhow::Result<Swaps> {
    let slot = Slot::default();
    let mut figures = Swaps {
        swaps,
        ..Swaps::default()
    };
    let began = Instant::now();
    let first = std::thread::scope(|scope| {
        let loader = scope.spawn(|| -> anyhow::Result<Duration> {
            let mut first = None;
            // Held until the fold has long taken others: it takes none apart.
            let mut handed_over = on_cpu.clone();
            for swap in 0..swaps {
                let models = if swap % 2 == 0 {
                    moved()?
                } else {
                    on_cpu.clone()
                };
                first.get_or_insert_with(|| began.elapsed());
                slot.put(models.clone());
                std::thread::sleep(TICK * TICKS_BETWEEN);
                handed_over = models;
            }
            drop(handed_over);
            Ok(first.unwrap_or_default())
        });
        let mut fold = Fold::new(course, on_cpu);
        while !loader.is_finished() {
            let started = Instant::now();
            if let Some(models) = slot.take() {
                fold.take(models, wanted, &mut figures);
            }
            fold.tick(wanted, &mut figures)?;
            let took = started.elapsed();
            figures.ticks += 1;
            figures.late += u64::from(took > TICK);
            figures.longest_ms = figures.longest_ms.max(took.as_secs_f64() * 1e3);
            fold.begin_again_at_the_flag();
            std::thread::sleep(TICK.saturating_sub(took));
        }
        loader
            .join()
            .map_err(|_| anyhow::anyhow!("the loader panicked"))?
    })?;
    figures.first_s = first.as_secs_f64();
    Ok(figures)
}

/// The fold, with whatever models it has.
struct Fold<'a> {
    course: &'a Course,
    drive: Drive,
    /// How far into the race (s), from the first record that is not folded at once.
    clock_s: f64,
    /// Whether the models in use are those that are handed over.
    moved: bool,
}

impl<'a> Fold<'a> {
    fn new(course: &'a Course, models: &Models) -> Fold<'a> {
        let mut drive = Drive::new(models.clone());
        for record in &course.records[..course.before] {
            drive.fold(record);
        }
        Fold {
            course,
            drive,
            clock_s: 0.0,
            moved: false,
        }
    }

    fn take(&mut self, models: Models, wanted: Wanted, figures: &mut Swaps) {
        let began = Instant::now();
        let predictor = &mut self.drive.predictor;
        let stayed = predictor
            .models()
            .engines()
            .all(|e| e.backend() == wanted.backend);
        figures.fallen_back += u64::from(self.moved && !stayed);
        predictor.swap_models(models);
        self.moved = !self.moved;
        let took = began.elapsed().as_secs_f64() * 1e3;
        figures.longest_swap_ms = figures.longest_swap_ms.max(took);
    }

    /// Folds what has happened since the tick before.
    fn tick(&mut self, wanted: Wanted, figures: &mut Swaps) -> anyhow::Result<()> {
        let course = self.course;
        self.clock_s += TICK.as_secs_f64() * SPEED;
        let start = course.times[course.before];
        while let Some(record) = course.records.get(self.drive.next) {
            let at = self.drive.next;
            if course.times[at].seconds_since(start) > self.clock_s {
                break;
            }
            let made = self.drive.fold(record);
            figures.compare(&made, &course.expected[at], self.moved.then_some(wanted));
        }
        if let Some(why) = self.drive.predictor.model_failure() {
            anyhow::bail!("a model failed: {why}");
        }
        Ok(())
    }

    fn begin_again_at_the_flag(&mut self) {
        if self.drive.next < self.course.records.len() {
            return;
        }
        let models = self.drive.predictor.models().clone();
        *self = Fold {
            moved: self.moved,
            ..Fold::new(self.course, &models)
        };
    }
}

impl Swaps {
    fn compare(&mut self, made: &[Prediction], expected: &[Prediction], moved: Option<Wanted>) {
        if made.len() != expected.len() {
            self.off = f64::INFINITY;
        }
        for (made, expected) in made.iter().zip(expected) {
            self.predictions += 1;
            let backend = &provenance(made).backend;
            self.by_backend += u64::from(moved.is_some_and(|w| w.backend == backend));
            let (made, expected) = (numbers(made), numbers(expected));
            if made.len() != expected.len() {
                self.off = f64::INFINITY;
            }
            let pairs = made.iter().zip(&expected);
            self.off = pairs.fold(self.off, |off, (a, b)| off.max((a - b).abs()));
        }
    }
}

fn provenance(prediction: &Prediction) -> &crate::record::prediction::Provenance {
    match prediction {
        Prediction::LapTime(p) => &p.provenance,
        Prediction::Race(p) => &p.provenance,
        Prediction::Pit(p) => &p.provenance,
    }
}

/// Times (s) and probabilities. What is a lap or a place is left out: it may stand on an edge.
fn numbers(prediction: &Prediction) -> Vec<f64> {
    match prediction {
        Prediction::LapTime(p) => vec![p.lap_time.p10, p.lap_time.p50, p.lap_time.p90],
        Prediction::Pit(p) => vec![
            p.p_within_1,
            p.p_within_2,
            p.p_within_3,
            p.p_within_5,
            p.p_stop,
        ],
        Prediction::Race(p) => {
            let mut cars: Vec<_> = p.cars.iter().collect();
            cars.sort_by_key(|c| c.driver_number);
            let of = |c: &&crate::record::prediction::FinishPrediction| {
                [c.p_win, c.p_podium, c.p_retirement]
            };
            cars.iter().flat_map(of).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, LazyLock};

    use super::*;
    use crate::engines::Chosen;
    use crate::engines::computed::{Computed, Mover};
    use crate::inference::{Engine, EngineError, Model, Tensor};

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("engines")
    }

    /// An engine in a GPU's place: it calls itself so, and every answer is `off`.
    struct Elsewhere {
        inner: Arc<dyn Engine>,
        backend: &'static str,
        off: f32,
    }

    impl Engine for Elsewhere {
        fn backend(&self) -> &'static str {
            self.backend
        }

        fn model(&self) -> &Model {
            self.inner.model()
        }

        fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
            let mut outputs = self.inner.run(inputs)?;
            if self.model().name == "laptime" {
                outputs[0].values.iter_mut().for_each(|v| *v += self.off);
            }
            Ok(outputs)
        }
    }

    static ON_CPU: LazyLock<Models> = LazyLock::new(|| Chosen::Folder(folder()).load().unwrap());
    /// Short: a test waits for it.
    static COURSE: LazyLock<Course> = LazyLock::new(|| Course::of(&ON_CPU, 4).unwrap());

    /// Of two swaps to models that are computed as in fp16, `off`, by what calls itself so.
    fn of(backend: &'static str, off: f32) -> Swaps {
        let mover = Mover::new(Computed::CpuFp16, &folder()).unwrap();
        let moved = || {
            let moved = ON_CPU.on(|cpu| {
                let inner = mover.take(cpu)?;
                Ok(Arc::new(Elsewhere {
                    inner,
                    backend,
                    off,
                }))
            });
            Ok(moved?)
        };
        let wanted = Wanted::of("gpu", Precision::Fp16);
        let mut swaps = under_load(&COURSE, &ON_CPU, moved, wanted, 3).unwrap();
        assert!(swaps.ticks > 0 && swaps.longest_ms > 0.0 && swaps.first_s > 0.0);
        // How long a tick takes on a machine that does other things beside is not for a test to say.
        swaps.late = 0;
        swaps
    }

    #[test]
    fn swaps_under_load_are_compared_with_the_cpus_answers() {
        let wanted = Wanted::of("gpu", Precision::Fp16);
        let swaps = of("gpu", 0.0);
        assert!(swaps.predictions > 0 && swaps.off > 0.0, "{swaps:?}");
        swaps.judge(wanted).unwrap();
        let late = Swaps { late: 1, ..swaps };
        assert!(late.judge(wanted).unwrap_err().to_string().contains("late"));
    }

    #[test]
    fn a_race_that_is_over_begins_again() {
        let mut fold = Fold::new(&COURSE, &ON_CPU);
        assert_eq!(fold.drive.next, COURSE.before);
        assert!(COURSE.expected[COURSE.before].iter().any(is_modelled_lap));
        let (wanted, mut figures) = (Wanted::of("tract", Precision::Fp32), Swaps::default());
        fold.begin_again_at_the_flag();
        // All of it in one tick.
        fold.clock_s = f64::INFINITY;
        fold.tick(wanted, &mut figures).unwrap();
        assert_eq!(fold.drive.next, COURSE.records.len());
        assert!(
            figures.predictions > 100 && figures.off == 0.0,
            "{figures:?}"
        );
        fold.begin_again_at_the_flag();
        assert_eq!((fold.drive.next, fold.clock_s), (COURSE.before, 0.0));
    }

    #[test]
    fn engines_that_answer_otherwise_or_not_at_all_are_told() {
        let wanted = Wanted::of("gpu", Precision::Fp16);
        let told = of("gpu", 0.5).judge(wanted).unwrap_err().to_string();
        assert!(told.contains("off the CPU's"), "{told}");
        let told = of("tract", 0.0).judge(wanted).unwrap_err().to_string();
        assert!(told.contains("gpu has predicted nothing"), "{told}");
    }
}
