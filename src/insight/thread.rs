//! The threads: what is read from the journal and the fold, and when which stage runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::laps::{Laps, Traces};
use super::stints;
use super::telemetry::{Limit, Telemetry};
use super::{Insight, MOST_BEHIND, Outlets, Strategist, TICK, shed, took};
use crate::compute::choice::{NoGpu, TRIED};
use crate::compute::{Backend, Choice, Processor, ShapeError, Ticker};
use crate::device::Signs;
use crate::journal::Reader;
use crate::live::Snapshot;
use crate::record::{Lap, Record};
use crate::strategy::parameters::Parameters;
use crate::strategy::rules::Told;

/// Records taken between two looks at the clock.
const BATCH: usize = 2_048;
/// How long it waits for news.
const PATIENCE: Duration = Duration::from_millis(500);
/// Cars at the front that matter where nobody has said which do.
pub const LEADERS: usize = 4;
/// Most cars that may be named as those that matter.
pub const MOST_NAMED: usize = 8;
/// How often a GPU that could not be opened is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How far the threads give way to the pipeline.
const GIVE_WAY: i32 = 5;

/// What is computed, and on what.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub backend: Choice,
    /// Driver numbers of the cars that matter; where it is empty, the first [`LEADERS`].
    pub cars: Vec<u8>,
    pub limits: Vec<Limit>,
    /// Rules of the race, where they are not those of the table.
    pub rules: Told,
}

/// Starts both threads; they end with `stop` and [`Strategist::stop`].
///
/// # Errors
/// If the system has no thread to give.
pub fn start(
    options: Options,
    records: &Reader,
    snapshots: &watch::Receiver<Arc<Snapshot>>,
    outlets: &Outlets,
    runtime: &Handle,
    stop: &CancellationToken,
) -> std::io::Result<Strategist> {
    let strategist = Strategist::default();
    let engine = Engine::new(options.backend);
    let rules = options.rules;
    let worker = Worker::new(options, outlets.clone(), strategist.clone(), engine.clone());
    let (records, snapshots) = (records.clone(), snapshots.clone());
    let (runtime, stop) = (runtime.clone(), stop.clone());
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    named("insight").spawn(move || worker.run(&records, snapshots, &runtime, &stop))?;
    let (own, outlets) = (strategist.clone(), outlets.clone());
    named("strategist").spawn(move || {
        // Half of the processor at most.
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2));
        if let Some(pool) = give_way(threads) {
            let parameters = Parameters::shipped();
            pool.install(|| own.run(&parameters, rules, &outlets, || engine.processor()));
        }
    })?;
    Ok(strategist)
}

/// The backend in use, looked for again where it could not be had.
#[derive(Clone)]
pub struct Engine {
    choice: Choice,
    /// Below which the machine's files are.
    root: Arc<Path>,
    now: Arc<Mutex<Looked>>,
}

/// The processor that there is.
struct Looked {
    processor: Processor,
    /// When to look again; `None`: there is no need, or somebody is at it.
    again: Option<Instant>,
    /// Why the CPU stands in, where that was told.
    told: Option<NoGpu>,
}

impl Engine {
    /// Looks for nothing yet.
    pub fn new(choice: Choice) -> Engine {
        Engine::below(choice, Path::new("/"))
    }

    /// The same on a machine whose files are below `root`.
    fn below(choice: Choice, root: &Path) -> Engine {
        Engine {
            choice,
            root: root.into(),
            now: Arc::new(Mutex::new(Looked {
                processor: Processor::Cpu,
                again: (choice != Choice::Cpu).then(Instant::now),
                told: None,
            })),
        }
    }

    /// What to compute on now: what is asked for; the CPU while that is looked for (a driver may take its time,
    /// and ticks have none), and where it cannot be had, with a line in the log.
    pub fn processor(&self) -> Processor {
        let mut now = self.lock();
        if now.again.is_some_and(|again| again <= Instant::now()) {
            now.again = None;
            let own = self.clone();
            let named = std::thread::Builder::new().name("gpu-look".to_owned());
            if let Err(e) = named.spawn(move || own.look()) {
                tracing::warn!(error = %e, "no thread to look for a GPU with");
                now.again = Some(Instant::now() + LOOK_AGAIN);
            }
        }
        now.processor.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Looked> {
        // Who panicked left whole values here.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let (processor, again) = self.found();
        let mut now = self.lock();
        (now.processor, now.again) = (processor, again);
    }

    /// The processor, and when to look again.
    fn found(&self) -> (Processor, Option<Instant>) {
        let opened = self.choice.open();
        let again = Some(Instant::now() + LOOK_AGAIN);
        match opened {
            Ok((processor, None)) => {
                tracing::info!(backend = processor.name(), "insights are computed");
                (processor.hurried(), None)
            }
            Ok((processor, Some(none))) => {
                let again = again.filter(|_| none.may_come);
                self.tell(none);
                (processor, again)
            }
            // A wish, and no reason to be without insights; it may still come true.
            Err(none) => {
                tracing::error!(
                    "[compute] backend = \"cuda\" cannot be had: {none}; the CPU does the work, and the GPU is looked for again"
                );
                (Processor::Cpu, again)
            }
        }
    }

    /// Says that the CPU stands in: as a warning, once, where the machine has what belongs to a GPU.
    fn tell(&self, none: NoGpu) {
        let signs = Signs::look(&self.root);
        let told = self.lock().told.replace(none.clone());
        match signs {
            Some(_) if told.as_ref() == Some(&none) => {
                tracing::debug!(why = %none, "insights are computed on the CPU");
            }
            Some(signs) => tracing::warn!(
                there = %signs,
                tried = TRIED,
                failed = none.why,
                remedy = signs.remedy(&none),
                "this machine has what belongs to an NVIDIA GPU, and insights are computed on the CPU"
            ),
            None => tracing::info!(why = %none, "insights are computed on the CPU"),
        }
    }
}

/// What reads telemetry and laps, and runs the stages.
pub struct Worker {
    options: Options,
    outlets: Outlets,
    strategist: Strategist,
    engine: Engine,
    parameters: Arc<Parameters>,
    telemetry: Telemetry,
    ticker: Option<(&'static str, Ticker)>,
    traces: Traces,
    laps: Laps,
    session_key: Option<i32>,
    /// How much of its newest lap each car has shown: lap, mini-sectors, sectors.
    progress: BTreeMap<u8, (u16, usize, usize)>,
    /// Cars that have passed a mini-sector since the last look.
    passed: BTreeSet<u8>,
    next: u64,
}

impl Worker {
    pub fn new(
        options: Options,
        outlets: Outlets,
        strategist: Strategist,
        engine: Engine,
    ) -> Worker {
        Worker {
            telemetry: Telemetry::new(options.limits.clone()),
            options,
            outlets,
            strategist,
            engine,
            parameters: Arc::new(Parameters::shipped()),
            ticker: None,
            traces: Traces::default(),
            laps: Laps::default(),
            session_key: None,
            progress: BTreeMap::new(),
            passed: BTreeSet::new(),
            next: 0,
        }
    }

    /// Follows the journal and the fold until `stop`.
    pub fn run(
        mut self,
        records: &Reader,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        runtime: &Handle,
        stop: &CancellationToken,
    ) {
        // Its arithmetic stays on this thread: none of it is worth waking another for.
        let pool = give_way(1);
        let Some(pool) = pool else { return };
        pool.install(|| self.follow(records, snapshots, runtime, stop));
    }

    fn follow(
        &mut self,
        records: &Reader,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        runtime: &Handle,
        stop: &CancellationToken,
    ) {
        let mut committed = records.committed();
        // What was in the journal at start is no news to anyone.
        self.next = records.next_seq();
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        self.begin(&snapshot);
        let (mut ticked, mut looked_at) = (Instant::now(), None);
        while !stop.is_cancelled() {
            let more = self.read(records);
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            // Each once, and only when the telemetry of its laps has been read, too.
            if snapshot.seq <= self.next && looked_at.is_none_or(|seq| seq != snapshot.seq) {
                looked_at = Some(snapshot.seq);
                self.look(&snapshot);
            }
            let until_tick = TICK.saturating_sub(ticked.elapsed());
            if self.telemetry.is_due() && until_tick.is_zero() {
                ticked = Instant::now();
                self.tick();
                continue;
            }
            if more {
                continue;
            }
            let patience = if self.telemetry.is_due() {
                until_tick
            } else {
                PATIENCE
            };
            let fold_is_there = runtime.block_on(async {
                tokio::select! {
                    _ = committed.changed() => true,
                    news = snapshots.changed() => news.is_ok(),
                    () = stop.cancelled() => true,
                    () = tokio::time::sleep(patience) => true,
                }
            });
            if !fold_is_there {
                return;
            }
        }
    }

    /// Reads on; whether there may be more.
    pub(super) fn read(&mut self, records: &Reader) -> bool {
        let end = records.next_seq();
        if end.saturating_sub(self.next) > MOST_BEHIND {
            let newest = end - BATCH as u64;
            shed("records", newest - self.next);
            self.next = newest;
        }
        if self.next >= end {
            return false;
        }
        let batch = match records.batch(self.next, BATCH) {
            Ok(batch) => batch,
            Err(e) => {
                // The fold says so, too, and waits for it to be mended; here it is left out.
                tracing::debug!(error = %e, "insights skip what cannot be read");
                self.next = end;
                return false;
            }
        };
        for entry in &batch.entries {
            self.take(&entry.record);
        }
        self.next = batch.next_seq().max(self.next);
        true
    }

    pub(super) fn take(&mut self, record: &Record) {
        match record {
            Record::CarData(r) => {
                self.telemetry.car_data(r);
                self.traces.car_data(r);
            }
            Record::Frame(frame) => {
                self.telemetry.frame(frame);
                self.traces.frame(frame);
            }
            Record::Lap(r) => self.pass(r),
            _ => {}
        }
    }

    /// Notes whether the car has passed another mini-sector.
    fn pass(&mut self, r: &Lap) {
        let segments = [
            &r.segments_sector_1,
            &r.segments_sector_2,
            &r.segments_sector_3,
        ];
        let minis = segments
            .into_iter()
            .flatten()
            .flatten()
            .filter(|code| code.is_some())
            .count();
        let sectors = [
            r.duration_sector_1,
            r.duration_sector_2,
            r.duration_sector_3,
        ];
        let now = (r.lap_number, minis, sectors.iter().flatten().count());
        let before = self.progress.entry(r.driver_number).or_default();
        if now > *before {
            *before = now;
            self.passed.insert(r.driver_number);
        }
    }

    fn begin(&mut self, snapshot: &Arc<Snapshot>) {
        self.session_key = snapshot.race.session.key;
        self.laps = Laps::default();
        self.laps.skip(snapshot);
        self.progress.clear();
        self.outlets.begin_session(self.session_key);
    }

    /// Looks at what the fold knows now.
    pub(super) fn look(&mut self, snapshot: &Arc<Snapshot>) {
        if snapshot.race.session.key != self.session_key {
            self.begin(snapshot);
        }
        if self.laps.are_new(snapshot)
            && let Err(e) = self.look_at_laps(snapshot)
        {
            tracing::error!(error = %e, "laps were not looked at: a defect");
        }
        let passed = std::mem::take(&mut self.passed);
        if !snapshot.race.session.session_type.is_race() {
            return;
        }
        let matter: Vec<u8> = self
            .matter(snapshot)
            .filter(|n| passed.contains(n))
            .collect();
        if !matter.is_empty() {
            self.strategist.consider(snapshot, &matter);
        }
    }

    fn look_at_laps(&mut self, snapshot: &Snapshot) -> Result<(), ShapeError> {
        let processor = self.engine.processor();
        for lap in self.laps.look(snapshot, &self.traces, &processor)? {
            self.outlets.say(Insight::Lap(lap));
        }
        for stint in stints::fit(snapshot, &self.parameters, &processor)? {
            // The stints of cars that have closed no lap stay as they were.
            let before = self
                .outlets
                .latest
                .borrow()
                .stint
                .get(&stint.driver_number)
                .cloned();
            if before.is_none_or(|b| (b.stint, b.laps) != (stint.stint, stint.laps)) {
                self.outlets.say(Insight::Stint(stint));
            }
        }
        Ok(())
    }

    /// The cars that matter and still race, in running order.
    fn matter<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = u8> + 'a {
        let named = &self.options.cars;
        let order = snapshot
            .race
            .order()
            .into_iter()
            .filter(|car| car.status.runs());
        let numbers = order.map(|car| car.driver_number);
        numbers
            .enumerate()
            .filter(|(place, n)| {
                if named.is_empty() {
                    *place < LEADERS
                } else {
                    named.contains(n)
                }
            })
            .map(|(_, n)| n)
    }

    pub(super) fn tick(&mut self) {
        let processor = self.engine.processor();
        let name = processor.name();
        if self.ticker.as_ref().is_none_or(|(of, _)| *of != name) {
            self.ticker = Some((name, processor.ticker()));
        }
        let Some((_, ticker)) = &mut self.ticker else {
            return;
        };
        let began = Instant::now();
        match self.telemetry.tick(self.next, ticker) {
            Ok((by, alerts)) => {
                took("tick", by, began);
                for alert in alerts {
                    let (broken, car) = (alert.broken, alert.driver_number);
                    tracing::warn!(
                        car,
                        broken,
                        channel = alert.limit.channel,
                        seen = alert.seen,
                        "limit"
                    );
                    self.outlets.say(Insight::Telemetry(alert));
                }
            }
            Err(e) => tracing::error!(error = %e, "a tick was left out: a defect"),
        }
    }
}

#[cfg(test)]
impl Worker {
    pub(super) fn next(&self) -> u64 {
        self.next
    }
}

/// Lowers this thread below the pipeline's, and makes it the first of so many that compute.
fn give_way(threads: usize) -> Option<ThreadPool> {
    // On Linux a thread has a niceness of its own, which those that it starts inherit. Refused: then it competes,
    // which is no error.
    let _ = rustix::process::nice(GIVE_WAY);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .use_current_thread()
        .build();
    match pool {
        Ok(pool) => Some(pool),
        Err(e) => {
            tracing::error!(error = %e, "there are no insights");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged, at info and above, when a GPU is looked for twice below `root`.
    fn logged(root: &Path) -> Vec<String> {
        let log = Log::default();
        let own = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || own.clone())
            .finish();
        let engine = Engine::below(Choice::Auto, root);
        tracing::subscriber::with_default(subscriber, || {
            engine.look();
            engine.look();
        });
        assert_eq!(engine.lock().processor.name(), "cpu");
        let bytes = log.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_jetson_that_computes_on_the_cpu_says_so_once_and_what_to_do() {
        if let Ok((_, None)) = Choice::Auto.open() {
            // There is a GPU, and nothing to say of it.
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let quiet = logged(root.path());
        assert_eq!(quiet.len(), 2, "{quiet:?}");
        assert!(quiet.iter().all(|line| line.contains("INFO")), "{quiet:?}");
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/nv_tegra_release"), "# R36\n").unwrap();
        let said = logged(root.path());
        let [line] = &said[..] else {
            panic!("{said:?}");
        };
        let why = Choice::Auto.open().unwrap().1.unwrap();
        for part in ["WARN", "/etc/nv_tegra_release", TRIED, &why.why, why.remedy] {
            assert!(line.contains(part), "{part:?} is missing in {line}");
        }
    }
}
