//! The whole way to a device, on a machine without one: `kernels/host/driver.cpp` built as libcuda.so.
//!
//! Each test runs itself again in a process whose loader finds that library first; the inner run does the work.
//! Against a real GPU, `tests/gpu` does the same and more.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{compare, fresh_seed};
use crate::compute::cuda::{
    Cuda, CudaError, During, Echo, FIRST_REST, State, TICK_LIMIT, TickGraph,
};
use crate::compute::workload::{Case, Size, case, tick};
use crate::compute::{Backend, By, Choice, Cpu, Kernel, Processor, Ticker, Witness};
use crate::strategy::duel::{Terms, board, board_on};
use crate::strategy::model::{GridCar, Start};
use crate::strategy::parameters::Parameters;
use crate::strategy::planner::{Question, advise, advise_on};

/// Set in the inner run.
const INSIDE: &str = "TRACKSIDE_TEST_INSIDE";
/// Said by an inner run that came to its end.
pub(super) const DONE: &str = "the inner run is done";
/// Fresh inputs for each kernel.
const ROUNDS: u64 = 3;
/// A device that failed is back by then, on a machine that has much else to do.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// Ticks that must leave the device's memory as it was.
const TICKS: u64 = 300;

/// Whether this is the inner run; else runs the test of that name with that driver, and asks for its success.
fn inside(test: &str, driver: &str) -> bool {
    inside_of(module_path!(), test, driver)
}

/// The same for a test of another module.
pub(super) fn inside_of(module: &str, test: &str, driver: &str) -> bool {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let dir = BUILT.get_or_init(|| {
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let dir = tempfile::tempdir().unwrap();
        let built = Command::new("g++")
            .args([
                "-std=c++17",
                "-O1",
                "-fPIC",
                "-shared",
                "-fvisibility=hidden",
            ])
            .args(["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"])
            .args(["-ffp-contract=off", "-Wno-unknown-pragmas", "-I"])
            .arg(&kernels)
            .arg(kernels.join("host/driver.cpp"))
            .arg("-o")
            .arg(dir.path().join("libcuda.so"))
            .status()
            .expect("g++ builds the tests' driver; install build-essential");
        assert!(built.success(), "the tests' driver does not compile");
        dir
    });
    let name = format!("{}::{test}", module.split_once("::").unwrap().1);
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, "1")
        .env("LD_LIBRARY_PATH", dir.path())
        .env("TRACKSIDE_DRIVER", driver)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains(DONE),
        "{test} with {driver:?}: {}\n{said}\n{}",
        run.status,
        String::from_utf8_lossy(&run.stderr)
    );
    false
}

fn expected(kernel: Kernel, seed: u64) -> Box<dyn Case> {
    let mut case = case(kernel, Size::Small, seed);
    Cpu.run(&mut *case.task()).unwrap();
    case
}

/// Every kernel through the driver, and a tick as a graph, again and again; memory stays as it was.
fn everything_agrees() {
    let cuda = Cuda::open().unwrap();
    let first = fresh_seed();
    for (round, kernel) in (0..ROUNDS).flat_map(|r| Kernel::ALL.map(|k| (r, k))) {
        let seed = first.wrapping_add(round);
        let mut there = case(kernel, Size::Small, seed);
        let mut task = there.task();
        task.check().unwrap();
        cuda.try_run(&mut *task).unwrap();
        drop(task);
        let what = format!("{} with seed {seed}", kernel.name());
        compare(&*expected(kernel, seed), &*there, &what);
    }
    let mut cases = tick(first);
    let mut graph = {
        let mut tasks: Vec<_> = cases.iter_mut().map(|c| c.task()).collect();
        cuda.capture(&mut tasks).unwrap()
    };
    let mut free = Vec::new();
    for n in 0..TICKS {
        cases.iter_mut().for_each(|c| c.reset());
        let mut tasks: Vec<_> = cases.iter_mut().map(|c| c.task()).collect();
        graph.try_run(&mut tasks).unwrap();
        if n % 50 == 49 {
            free.push(cuda.memory().unwrap().0);
        }
    }
    assert!(free.windows(2).all(|w| w[0] == w[1]), "{free:?}");
    let mut here = tick(first);
    for (here, there) in here.iter_mut().zip(&cases) {
        Cpu.run(&mut *here.task()).unwrap();
        compare(&**here, &**there, "a tick");
    }
    // Other shapes: captured anew.
    let mut other: Vec<_> = Kernel::ALL.map(|k| case(k, Size::Small, first)).into();
    let mut tasks: Vec<_> = other.iter_mut().map(|c| c.task()).collect();
    graph.try_run(&mut tasks).unwrap();
    drop(tasks);
    for (kernel, there) in Kernel::ALL.into_iter().zip(&other) {
        compare(&*expected(kernel, first), &**there, kernel.name());
    }
    println!("{DONE}");
}

#[test]
fn a_discrete_gpu_agrees() {
    if inside("a_discrete_gpu_agrees", "") {
        everything_agrees();
    }
}

#[test]
fn an_integrated_gpu_agrees() {
    if inside("an_integrated_gpu_agrees", "integrated,poolless") {
        everything_agrees();
    }
}

/// Where memory is shared, what streams is copied nowhere, and everything else is: the first copy breaks the context.
#[test]
fn on_an_integrated_gpu_what_streams_is_mapped() {
    let test = "on_an_integrated_gpu_what_streams_is_mapped";
    if !inside(test, "integrated,fail:cuMemcpyHtoDAsync_v2:1") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    for kernel in Kernel::ALL.into_iter().filter(|k| k.streams()) {
        let mut there = case(kernel, Size::Small, 1);
        cuda.try_run(&mut *there.task()).unwrap();
        compare(&*expected(kernel, 1), &*there, kernel.name());
    }
    let mut cases = tick(1);
    let mut tasks: Vec<_> = cases.iter_mut().map(|c| c.task()).collect();
    cuda.capture(&mut tasks)
        .unwrap()
        .try_run(&mut tasks)
        .unwrap();
    let mut there = case(Kernel::LapResample, Size::Small, 1);
    let said = cuda.try_run(&mut *there.task());
    let copied = matches!(said, Err(CudaError::Driver { call, .. }) if call == "cuMemcpyHtoDAsync");
    assert!(copied, "{said:?}");
    println!("{DONE}");
}

/// Waits until the device was opened anew.
fn comes_back(cuda: &Cuda) {
    let began = Instant::now();
    while cuda.state() != State::Open {
        assert!(began.elapsed() < BACK_WITHIN, "{:?}", cuda.state());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The third launch breaks the context: the answer comes all the same, the GPU rests, and is opened anew.
#[test]
fn the_cpu_takes_over_within_the_call_and_the_gpu_comes_back() {
    let test = "the_cpu_takes_over_within_the_call_and_the_gpu_comes_back";
    if !inside(test, "fail:cuLaunchKernel:3,fail:cuGraphLaunch:2") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let kernel = Kernel::FrameStats;
    let mut used = Vec::new();
    for seed in 0..5 {
        let mut there = case(kernel, Size::Small, seed);
        let by = cuda.run(&mut *there.task()).unwrap();
        compare(&*expected(kernel, seed), &*there, "a run");
        used.push(by == By::Cpu);
    }
    assert_eq!(used, [false, false, true, true, true]);
    assert_eq!(cuda.state(), State::Rests);
    assert!(matches!(
        cuda.try_run(&mut *case(kernel, Size::Small, 8).task()),
        Err(CudaError::Resting(_))
    ));
    // By itself: the context is torn down, and a new one works.
    comes_back(&cuda);
    let mut there = case(kernel, Size::Small, 9);
    cuda.try_run(&mut *there.task()).unwrap();
    compare(&*expected(kernel, 9), &*there, "after the failure");
    // A graph breaks at its second launch, and is captured anew.
    let mut cases = tick(1);
    let mut graph = {
        let mut tasks: Vec<_> = cases.iter_mut().map(|c| c.task()).collect();
        cuda.capture(&mut tasks).unwrap()
    };
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        let mut tasks: Vec<_> = cases.iter_mut().map(|c| c.task()).collect();
        let said = graph.try_run(&mut tasks);
        if let Err(e) = &said {
            assert!(matches!(e, CudaError::Driver { .. }), "{e}");
            comes_back(&cuda);
        }
        outcomes.push(said.is_ok());
    }
    assert_eq!(outcomes, [true, false, true, true]);
    println!("{DONE}");
}

/// A kernel goes where no memory is. The call that sent it succeeds; the next one finds the error, and so does every
/// other until the context is destroyed.
#[test]
fn an_address_that_is_nobodys_breaks_the_context_until_it_is_destroyed() {
    let test = "an_address_that_is_nobodys_breaks_the_context_until_it_is_destroyed";
    if !inside(test, "") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let kernel = Kernel::FrameStats;
    let run = |seed| {
        let mut there = case(kernel, Size::Small, seed);
        let said = cuda.try_run(&mut *there.task());
        said.map(|()| compare(&*expected(kernel, seed), &*there, "a run"))
    };
    run(1).unwrap();
    assert!(
        !cuda.go_astray(During::Races).unwrap(),
        "there are no races"
    );
    run(2).unwrap();
    let free = cuda.memory().unwrap().0;
    assert!(cuda.go_astray(During::Ticks).unwrap());
    assert_eq!(cuda.state(), State::Open);
    let said = run(3).unwrap_err();
    let illegal =
        matches!(&said, CudaError::Driver { name, .. } if name == "CUDA_ERROR_ILLEGAL_ADDRESS");
    assert!(illegal, "{said}");
    assert_eq!(cuda.state(), State::Rests);
    comes_back(&cuda);
    run(4).unwrap();
    assert_eq!(cuda.memory().unwrap().0, free);
    println!("{DONE}");
}

/// The driver frees memory once the device has done all that it was given: nothing is, while races are under way.
#[test]
fn nothing_is_freed_while_races_are_under_way() {
    let test = "nothing_is_freed_while_races_are_under_way";
    if !inside(test, "poolless") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let seed = fresh_seed();
    let kernels = Kernel::ALL.into_iter().filter(|kernel| !kernel.is_long());
    let kernels: Vec<(Kernel, Box<dyn Case>)> = kernels
        .map(|kernel| (kernel, expected(kernel, seed)))
        .collect();
    let run = |kernel| {
        let mut there = case(kernel, Size::Small, seed);
        cuda.try_run(&mut *there.task()).unwrap();
        there
    };
    // Free memory once what was let go of has been given back.
    let free = || {
        cuda.memory().unwrap();
        cuda.memory().unwrap().0
    };
    run(Kernel::RaceMonteCarlo);
    kernels.iter().for_each(|(kernel, _)| drop(run(*kernel)));
    let before = free();
    std::thread::scope(|scope| {
        let races = scope.spawn(|| (0..6).for_each(|_| drop(run(Kernel::RaceMonteCarlo))));
        while !races.is_finished() {
            for (kernel, here) in &kernels {
                compare(&**here, &*run(*kernel), "beside races");
            }
        }
    });
    // But for a second block that is parked.
    let lost = before.saturating_sub(free());
    assert!(lost <= 1 << 20, "{lost} bytes");
    println!("{DONE}");
}

/// Memory cannot be given back, which nobody waits for: it is counted all the same, and the device is opened anew.
#[test]
fn a_failure_that_nobody_meets_is_counted() {
    let test = "a_failure_that_nobody_meets_is_counted";
    if !inside(test, "fail:cuMemFreeHost:1") {
        return;
    }
    let metrics = crate::observability::start_metrics().unwrap();
    let cuda = Cuda::open().unwrap();
    let mut cases = tick(1);
    let mut tasks: Vec<_> = cases.iter_mut().map(|c| c.task()).collect();
    drop(cuda.capture(&mut tasks).unwrap());
    // Its block goes after this piece of work, or after the next.
    cuda.run(&mut *case(Kernel::FrameStats, Size::Small, 1).task())
        .unwrap();
    let began = Instant::now();
    while cuda.state() == State::Open {
        assert!(began.elapsed() < BACK_WITHIN, "it does not fail");
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = metrics.render();
    let counted = "trackside_compute_gpu_errors_total{kernel=\"none\"} 1";
    assert!(said.contains(counted), "{said}");
    comes_back(&cuda);
    println!("{DONE}");
}

#[test]
fn a_device_that_does_not_open_is_an_error() {
    let test = "a_device_that_does_not_open_is_an_error";
    if !inside(test, "fail:cuModuleLoadData:1") {
        return;
    }
    assert!(matches!(
        Cuda::open(),
        Err(CudaError::Driver {
            call: "cuModuleLoadData",
            ..
        })
    ));
    println!("{DONE}");
}

/// A strategist's question on the driver: the answer of the CPU, bit by bit.
#[test]
fn the_planner_says_the_same_on_a_gpu() {
    if !inside("the_planner_says_the_same_on_a_gpu", "") {
        return;
    }
    let (gpu, instead) = Choice::Cuda.open().unwrap();
    assert_eq!((gpu.name(), instead), ("cuda", None));
    let grid: Vec<GridCar> = (0..8)
        .map(|i| GridCar {
            number: i + 1,
            qualifying_s: Some(90.0 + 0.2 * f64::from(i)),
            compound: i % 3,
        })
        .collect();
    let parameters = Parameters::shipped();
    // Few laps to go: fibers drive them.
    let mut start = Start::grid(&parameters, "Sakhir", Some(57), &grid);
    start.lap = 50;
    let question = Question {
        car: 2,
        races: 80,
        seed: fresh_seed(),
    };
    let here = advise(&start, &parameters, question).unwrap();
    assert_eq!(
        here,
        advise_on(&gpu, &start, &parameters, question).unwrap(),
        "seed {}",
        question.seed
    );
    let terms = Terms {
        car: 2,
        compound: 2,
        races: 16,
        seed: question.seed,
    };
    let here = board(&start, &parameters, terms).unwrap();
    assert!(!here.is_empty());
    assert_eq!(here, board_on(&gpu, &start, &parameters, terms).unwrap());
    assert_eq!(gpu.at_work(), By::Cuda);
    println!("{DONE}");
}

/// Races on the background's stream, ticks meanwhile; then the device breaks under both of them.
#[test]
fn ticks_go_on_while_races_are_simulated() {
    let test = "ticks_go_on_while_races_are_simulated";
    if !inside(test, "fail:cuStreamQuery:10") {
        return;
    }
    let (gpu, _) = Choice::Auto.open().unwrap();
    let mut ticker = gpu.ticker();
    let seed = fresh_seed();
    let races = {
        let gpu = gpu.clone();
        std::thread::spawn(move || {
            let mut by = Vec::new();
            for seed in (0..8).map(|n| seed.wrapping_add(n)) {
                let mut there = case(Kernel::RaceMonteCarlo, Size::Small, seed);
                by.push(gpu.run(&mut *there.task()).unwrap());
                let expected = expected(Kernel::RaceMonteCarlo, seed);
                compare(&*expected, &*there, &format!("races with seed {seed}"));
            }
            by
        })
    };
    let mut here = tick(seed);
    for case in &mut here {
        Cpu.run(&mut *case.task()).unwrap();
    }
    let mut ticked = 0;
    while !races.is_finished() || ticked < 50 {
        let mut there = tick(seed);
        let mut tasks: Vec<_> = there.iter_mut().map(|c| c.task()).collect();
        ticker.run(&mut tasks).unwrap();
        drop(tasks);
        for (here, there) in here.iter().zip(&there) {
            compare(&**here, &**there, "a tick");
        }
        ticked += 1;
    }
    let by = races.join().unwrap();
    assert!(
        by.starts_with(&[By::Cuda]) && by.ends_with(&[By::Cpu]),
        "{by:?}"
    );
    assert_eq!(gpu.at_work(), By::Cpu);
    println!("{DONE}");
}

/// Ticks for so long: what did each, and the longest time that one took.
fn ticks(gpu: &Processor, ticker: &mut Ticker, span: Duration) -> (Vec<By>, Duration) {
    let seed = fresh_seed();
    let mut here = tick(seed);
    for case in &mut here {
        Cpu.run(&mut *case.task()).unwrap();
    }
    let (mut by, mut longest) = (Vec::new(), Duration::ZERO);
    let began = Instant::now();
    while began.elapsed() < span {
        let mut there = tick(seed);
        let mut tasks: Vec<_> = there.iter_mut().map(|c| c.task()).collect();
        let ticked = Instant::now();
        by.push(ticker.run(&mut tasks).unwrap());
        longest = longest.max(ticked.elapsed());
        drop(tasks);
        for (here, there) in here.iter().zip(&there) {
            compare(&**here, &**there, "a tick");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(gpu.name(), "cuda");
    (by, longest)
}

/// Ticks until that holds of what did each, a second at a time.
fn ticks_until(
    gpu: &Processor,
    ticker: &mut Ticker,
    holds: impl Fn(&[By]) -> bool,
) -> (Vec<By>, Duration) {
    let (mut all, mut longest) = (Vec::new(), Duration::ZERO);
    let began = Instant::now();
    while !holds(&all) && began.elapsed() < BACK_WITHIN {
        let (by, took) = ticks(gpu, ticker, Duration::from_secs(1));
        all.extend(by);
        longest = longest.max(took);
    }
    (all, longest)
}

/// Longest that a tick may take here: the limit to begin, that to end, and room for a machine with much else to do.
const LONGEST_TICK: Duration = Duration::from_millis(1_000);

/// A call that never returns: one tick waits for its limit, none after it; the device is lost, and says so.
#[test]
fn a_device_that_hangs_costs_one_tick_its_limit() {
    let test = "a_device_that_hangs_costs_one_tick_its_limit";
    if !inside(test, "hang:cuGraphLaunch:20") {
        return;
    }
    let gpu = Choice::Cuda.open().unwrap().0.hurried();
    let mut ticker = gpu.ticker();
    let cuda = Cuda::open().unwrap();
    let hangs = |_: &[By]| cuda.state() == State::Silent;
    let (by, longest) = ticks_until(&gpu, &mut ticker, hangs);
    let on_gpu = by.iter().filter(|by| **by == By::Cuda).count();
    assert!((1..20).contains(&on_gpu), "{on_gpu} graphs until it hangs");
    assert!((TICK_LIMIT..LONGEST_TICK).contains(&longest), "{longest:?}");
    // Past the time at which a device that had failed would be opened anew.
    let (by, longest) = ticks(&gpu, &mut ticker, FIRST_REST * 2);
    assert!(
        !by.contains(&By::Cuda) && longest < LONGEST_TICK,
        "{longest:?}"
    );
    assert!(by.ends_with(&[By::Cpu; 100]), "{}", by.len());
    assert_eq!(gpu.at_work(), By::Cpu);
    assert_eq!(cuda.state(), State::Silent);
    let kernel = Kernel::LapFeatures;
    let said = cuda.try_run(&mut *case(kernel, Size::Small, 1).task());
    assert!(matches!(said, Err(CudaError::Silent)), "{said:?}");
    println!("{DONE}");
}

/// The capture, the context of the second opening and one run are slow: no tick waits for them, and a call that
/// returned after all is a failure that ends.
#[test]
fn no_tick_waits_for_a_capture_or_for_a_device_that_opens() {
    let test = "no_tick_waits_for_a_capture_or_for_a_device_that_opens";
    let slow =
        "slow:cuGraphInstantiateWithFlags:1,slow:cuGraphLaunch:20,slow:cuDevicePrimaryCtxRetain:2";
    if !inside(test, slow) {
        return;
    }
    let gpu = Choice::Cuda.open().unwrap().0.hurried();
    let mut ticker = gpu.ticker();
    let is_back = |by: &[By]| {
        let by_cpu = by.iter().rposition(|by| *by == By::Cpu).unwrap_or(0);
        by_cpu > 100 && by.ends_with(&[By::Cuda; 20])
    };
    let (by, longest) = ticks_until(&gpu, &mut ticker, is_back);
    assert!(is_back(&by), "it did not come back");
    let began = by.iter().position(|by| *by == By::Cuda).unwrap();
    assert!(
        began > 5,
        "the CPU ticked {began} times beside a slow capture"
    );
    let by_cpu = by[began..].iter().filter(|by| **by == By::Cpu).count();
    assert!(by_cpu > 20, "{by_cpu} while it rested");
    assert!(longest < LONGEST_TICK, "{longest:?}");
    comes_back(&Cuda::open().unwrap());
    println!("{DONE}");
}

/// A driver that hangs while it opens the device anew does it on its own thread.
#[test]
fn a_device_that_hangs_when_it_is_opened_anew_holds_nobody_up() {
    let test = "a_device_that_hangs_when_it_is_opened_anew_holds_nobody_up";
    if !inside(test, "fail:cuGraphLaunch:5,hang:cuDevicePrimaryCtxRetain:2") {
        return;
    }
    let gpu = Choice::Cuda.open().unwrap().0.hurried();
    let mut ticker = gpu.ticker();
    let (by, longest) = ticks(&gpu, &mut ticker, FIRST_REST * 2);
    assert!(by.contains(&By::Cuda) && by.ends_with(&[By::Cpu; 100]));
    assert!(longest < LONGEST_TICK, "{longest:?}");
    assert_ne!(Cuda::open().unwrap().state(), State::Open);
    println!("{DONE}");
}

/// The device is in a long piece of work of somebody else's: ticks are the CPU's meanwhile, its graphs and blocks stay
/// as they were, and nothing counts as a failure.
#[test]
fn a_device_that_is_busy_loses_nothing() {
    let test = "a_device_that_is_busy_loses_nothing";
    // To capture a second graph would break it.
    let slow = "slow:cuMemcpyDtoDAsync_v2:1,fail:cuGraphInstantiateWithFlags:2";
    if !inside(test, slow) {
        return;
    }
    let patient = Cuda::open().unwrap();
    let cuda = patient.clone().hurried();
    let gpu = Processor::Cuda(cuda.clone());
    let witness = Witness::of(&gpu);
    let (mut graph, mut cases) = (TickGraph::default(), tick(1));
    let mut ticked = |graph: &mut TickGraph| {
        let mut tasks: Vec<_> = cases.iter_mut().map(|c| c.task()).collect();
        cuda.tick(graph, &mut tasks).unwrap()
    };
    let began = Instant::now();
    while ticked(&mut graph) == By::Cpu {
        assert!(began.elapsed() < BACK_WITHIN);
    }
    let free = patient.memory().unwrap().0;
    let busy = {
        let patient = patient.clone();
        std::thread::spawn(move || patient.measure_copy(1 << 20, 1))
    };
    let mut by = Vec::new();
    while !busy.is_finished() {
        by.push(ticked(&mut graph));
        let mut there = case(Kernel::LapFeatures, Size::Small, 3);
        witness.run(&mut *there.task()).unwrap();
        compare(&*expected(Kernel::LapFeatures, 3), &*there, "beside a copy");
        std::thread::sleep(Duration::from_millis(10));
    }
    busy.join().unwrap().unwrap();
    assert!(by.contains(&By::Cpu), "{by:?}");
    // The device is at work, and yet some of that was the CPU's.
    assert_eq!((gpu.at_work(), witness.by()), (By::Cuda, By::Cpu));
    // The same graph.
    let began = Instant::now();
    while ticked(&mut graph) == By::Cpu {
        assert!(began.elapsed() < BACK_WITHIN);
    }
    assert_eq!(cuda.state(), State::Open);
    // Blocks that were allocated meanwhile are parked; none is lost.
    let parked = free - patient.memory().unwrap().0;
    assert!(parked <= 4 << 20, "{parked} bytes");
    drop(graph);
    println!("{DONE}");
}

/// An engine of somebody else's answers, outlasts a device that is busy, and leaves nothing behind; so does one that
/// never came.
#[test]
fn a_guest_outlasts_a_busy_device_and_leaves_nothing() {
    let test = "a_guest_outlasts_a_busy_device_and_leaves_nothing";
    // The guest's first run, that of its play and its capture are such copies, too.
    if !inside(test, "slow:cuMemcpyDtoDAsync_v2:4") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let numbers: Vec<f32> = (0..10).map(|n| n as f32).collect();
    let hosted = cuda.host(&[10], &[10], || Ok(Echo::of(10))).unwrap();
    let expected = vec![numbers.clone()];
    let echo = || hosted.run(&[&numbers]);
    assert_eq!(echo().unwrap(), expected);
    let busy = {
        let cuda = cuda.clone();
        std::thread::spawn(move || cuda.measure_copy(1 << 20, 1))
    };
    let mut refused = 0;
    while !busy.is_finished() {
        match echo() {
            Ok(said) => assert_eq!(said, expected),
            Err(CudaError::Busy) => refused += 1,
            Err(e) => panic!("{e}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    busy.join().unwrap().unwrap();
    assert!(refused > 0, "the device was never busy");
    let began = Instant::now();
    let said = loop {
        match echo() {
            Err(CudaError::Busy) => assert!(began.elapsed() < BACK_WITHIN),
            said => break said.unwrap(),
        }
    };
    assert_eq!(said, expected);
    assert!(matches!(
        hosted.run(&[&numbers[1..]]),
        Err(CudaError::Guest(_))
    ));
    drop(hosted);
    let free = || {
        // What was let go of is given back after the next piece of work.
        cuda.memory().unwrap();
        cuda.memory().unwrap().0
    };
    let before = free();
    for _ in 0..20 {
        let hosted = cuda.host(&[10], &[10], || Ok(Echo::of(10))).unwrap();
        assert_eq!(hosted.run(&[&numbers]).unwrap(), expected);
        let refused = cuda.host(&[10], &[10], || Err("no room".to_owned()));
        assert!(matches!(refused, Err(CudaError::Guest(_))));
    }
    // Beside a block or two that are parked.
    let lost = before.saturating_sub(free());
    assert!(lost <= 2 << 20, "{lost} bytes");
    println!("{DONE}");
}
