//! Scenes on the tests' driver: the kernel that assembles inputs, and guests of our own that sum what it wrote.
//!
//! A guest's sums tell every number and its place, and the driver does what a graph leaves open in an order of chance:
//! a part that began before its inputs were there, or a copy that left before an answer was, would be seen.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use super::emulated::{DONE, inside_of};
use super::fresh_seed;
use crate::compute::assemble_inputs::Tensor;
use crate::compute::cuda::{
    Array, Assembled, Cuda, CudaError, FIRST_REST, Guest, Maker, Scene, Staged, State,
};
use crate::compute::launch::Data;
use crate::compute::{AssembleInputs, Backend, Cpu};

const ROWS: usize = 5;
const COLUMNS: usize = 7;
const ROUNDS: u32 = 40;

fn inside(test: &str, driver: &str) -> bool {
    inside_of(module_path!(), test, driver)
}

/// `answer[j] = Σ (i + 1)·tensor[i] + 1000·Σ (i + 1)·mask[i] + j`.
struct Summing {
    at: Vec<u64>,
    /// How many were let go of where a context is current.
    gone: Arc<AtomicUsize>,
    /// Runs until it refuses.
    runs: usize,
}

const ANSWERS: usize = 3;

fn sum(tensor: &[f32], mask: &[f32]) -> [f32; ANSWERS] {
    let weighed = |values: &[f32]| -> f32 {
        let pairs = values.iter().zip(1_u16..);
        pairs.map(|(v, i)| v * f32::from(i)).sum()
    };
    let all = weighed(tensor) + 1000.0 * weighed(mask);
    std::array::from_fn(|j| all + j as f32)
}

impl Guest for Summing {
    unsafe fn bind(&mut self, addresses: &[u64]) -> Result<(), String> {
        self.at = addresses.to_vec();
        assert!(self.at.iter().all(|at| *at != 0 && at.is_multiple_of(16)));
        Ok(())
    }

    unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), String> {
        unsafe extern "C" fn run(with: *mut c_void) {
            // SAFETY: made below, and never freed: a graph runs it again and again. The driver's memory is the
            // process's own, and the arrays are as long as the scene says.
            unsafe {
                let at = &*with.cast::<Vec<u64>>();
                let of = |at: u64, n| std::slice::from_raw_parts(at as usize as *const f32, n);
                let answer = sum(of(at[0], ROWS * COLUMNS), of(at[1], ROWS));
                std::slice::from_raw_parts_mut(at[2] as usize as *mut f32, ANSWERS)
                    .copy_from_slice(&answer);
            }
        }
        self.runs = (self.runs.checked_sub(1)).ok_or_else(|| "not today".to_owned())?;
        let with = Box::into_raw(Box::new(self.at.clone()));
        // SAFETY: a live stream; `run` takes what it is given.
        unsafe {
            cudarc::driver::result::stream::launch_host_function(stream.cast(), run, with.cast())
        }
        .map_err(|e| format!("{e:?}"))
    }
}

impl Drop for Summing {
    fn drop(&mut self) {
        let mut current = std::ptr::null_mut();
        // SAFETY: it writes one handle.
        unsafe { cudarc::driver::sys::cuCtxGetCurrent(&raw mut current) };
        if !current.is_null() {
            self.gone.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The arrays of a part: rows and how many of each there are, and the answer.
#[derive(Clone, Copy)]
struct Part {
    history: usize,
    count: usize,
    answer: usize,
}

/// Three parts, and plays of all, of the second and of the first and the third.
fn scene(cuda: &Cuda) -> (Scene, Vec<Part>) {
    let mut scene = Scene::default();
    let parts = (0..3).map(|_| part(&mut scene, cuda)).collect();
    for play in [vec![0, 1, 2], vec![1], vec![2, 0]] {
        scene.play(play);
    }
    (scene, parts)
}

const CHOICE: [u32; COLUMNS] = [6, 5, 4, 3, 2, 1, 0];
const MEAN: [f32; COLUMNS] = [0.5; COLUMNS];
const SCALE: [f32; COLUMNS] = [2.0; COLUMNS];

fn task<'a>(
    history: &'a [f32],
    count: &'a [u32],
    tensor: &'a mut [f32],
    mask: &'a mut [f32],
) -> AssembleInputs<'a> {
    AssembleInputs {
        history,
        slots: 1,
        features: COLUMNS,
        newest: &[0; ROWS],
        count,
        steps: 1,
        choice: &CHOICE,
        mean: &MEAN,
        scale: &SCALE,
        limit: f32::MAX,
        tensor: Tensor::F32(tensor),
        mask,
    }
}

fn part(scene: &mut Scene, cuda: &Cuda) -> Part {
    let (rows, values) = (ROWS * size_of::<u32>(), ROWS * COLUMNS * size_of::<f32>());
    scene.part();
    let at = Assembled {
        history: scene.array(Array::Given(values)),
        newest: scene.array(Array::Kept(vec![0; rows])),
        count: scene.array(Array::Given(rows)),
        choice: scene.array(Array::Kept(CHOICE.as_bytes().to_vec())),
        mean: scene.array(Array::Kept(MEAN.as_bytes().to_vec())),
        scale: scene.array(Array::Kept(SCALE.as_bytes().to_vec())),
        tensor: scene.array(Array::Between(values)),
        mask: scene.array(Array::Between(rows)),
    };
    let (mut tensor, mut mask) = (vec![0.0; ROWS * COLUMNS], vec![0.0; ROWS]);
    let history = vec![0.0; ROWS * COLUMNS];
    let mut task = task(&history, &[0; ROWS], &mut tensor, &mut mask);
    let geometry = cuda.properties().geometry();
    scene.assemble(&mut task, &geometry, at).unwrap();
    let answer = scene.array(Array::Back(ANSWERS * size_of::<f32>()));
    scene.guest(vec![at.tensor, at.mask, answer]);
    Part {
        history: at.history,
        count: at.count,
        answer,
    }
}

/// A guest that goes on refusing after so many runs.
fn guest(gone: &Arc<AtomicUsize>, runs: usize) -> Box<dyn Guest> {
    Box::new(Summing {
        at: Vec::new(),
        gone: Arc::clone(gone),
        runs,
    })
}

fn staged(
    cuda: &Cuda,
    gone: &Arc<AtomicUsize>,
    refuses: bool,
) -> Result<(Staged, Vec<Part>), CudaError> {
    let runs = if refuses { 0 } else { usize::MAX };
    let maker = || Box::new(move || Ok(guest(gone, runs))) as Maker<'_>;
    made(cuda, vec![maker(), maker(), maker()])
}

fn made(cuda: &Cuda, makers: Vec<Maker<'_>>) -> Result<(Staged, Vec<Part>), CudaError> {
    let (scene, parts) = scene(cuda);
    Ok((cuda.stage(scene, makers)?, parts))
}

/// Numbers of a round for the part of that number, some of them missing.
fn given(round: u32, part: usize) -> (Vec<f32>, Vec<u32>) {
    let seed = round.wrapping_mul(7919).wrapping_add(part as u32 * 104_729);
    let number = |i: u32| match (seed.wrapping_add(i)) % 11 {
        0 => f32::NAN,
        n => n as f32 / 8.0,
    };
    let history = (0..(ROWS * COLUMNS) as u32).map(number).collect();
    (
        history,
        (0..ROWS as u32).map(|row| (seed + row) % 2).collect(),
    )
}

/// The CPU's answer.
fn expected(history: &[f32], count: &[u32]) -> [f32; ANSWERS] {
    let (mut tensor, mut mask) = (vec![0.0; ROWS * COLUMNS], vec![0.0; ROWS]);
    Cpu.run(&mut task(history, count, &mut tensor, &mut mask))
        .unwrap();
    sum(&tensor, &mask)
}

/// Plays once, and gives the answers of the parts that were in it.
fn played(
    staged: &Staged,
    parts: &[Part],
    (play, of): (usize, &[usize]),
    round: u32,
) -> Result<Vec<[f32; ANSWERS]>, CudaError> {
    let rows: Vec<_> = of.iter().map(|part| given(round, *part)).collect();
    let mut answers = vec![[0.0; ANSWERS]; of.len()];
    let mut data = Vec::new();
    for ((part, (history, count)), answer) in of.iter().zip(&rows).zip(&mut answers) {
        let part = parts[*part];
        data.push((part.history, Data::input(history)));
        data.push((part.count, Data::input(count)));
        data.push((part.answer, Data::output(answer)));
    }
    staged.run(play, &mut data)?;
    Ok(answers)
}

const PLAYS: [(usize, &[usize]); 3] = [(0, &[0, 1, 2]), (1, &[1]), (2, &[2, 0])];

/// Free memory, once what was let go of has been given back, after some piece of work.
fn left(cuda: &Cuda) -> usize {
    cuda.memory().unwrap();
    cuda.memory().unwrap().0
}

fn scenes_agree(captured: bool) {
    let cuda = Cuda::open().unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    let first = fresh_seed() as u32 % 1_000_000;
    let mut free = Vec::new();
    for again in 0..3 {
        let (staged, parts) = staged(&cuda, &gone, false).unwrap();
        assert_eq!(staged.is_captured(), captured);
        for round in first..first + ROUNDS {
            let play = PLAYS[round as usize % PLAYS.len()];
            let answers = played(&staged, &parts, play, round).unwrap();
            for (part, answer) in play.1.iter().zip(answers) {
                let (history, count) = given(round, *part);
                let right = expected(&history, &count);
                assert_eq!(answer, right, "round {round}, part {part}");
            }
        }
        drop(staged);
        free.push(left(&cuda));
        assert_eq!(gone.load(Ordering::SeqCst), 3 * (again + 1));
    }
    assert!(free.windows(2).all(|w| w[0] == w[1]), "{free:?}");
    // Who asked has no context of ours afterwards.
    let mut current = std::ptr::null_mut();
    // SAFETY: it writes one handle.
    unsafe { cudarc::driver::sys::cuCtxGetCurrent(&raw mut current) };
    assert!(current.is_null());
    println!("{DONE}");
}

#[test]
fn a_scene_on_a_discrete_gpu() {
    if inside("a_scene_on_a_discrete_gpu", "") {
        scenes_agree(true);
    }
}

#[test]
fn a_scene_on_an_integrated_gpu() {
    if inside("a_scene_on_an_integrated_gpu", "integrated,poolless") {
        scenes_agree(true);
    }
}

/// Neither a stream that captures nothing nor a graph that cannot be made keeps anybody from an answer, or is left.
#[test]
fn a_scene_that_cannot_be_captured_is_played_call_by_call() {
    let test = "a_scene_that_cannot_be_captured_is_played_call_by_call";
    // Every second of the nine captures does not begin, and those that do are not instantiated.
    let begun = [2, 4, 6, 8].map(|nth| format!("refuse:cuStreamBeginCapture_v2:{nth}"));
    let made = [1, 2, 3, 4, 5].map(|nth| format!("refuse:cuGraphInstantiateWithFlags:{nth}"));
    let driver: Vec<String> = begun.into_iter().chain(made).collect();
    if inside(test, &driver.join(",")) {
        scenes_agree(false);
    }
}

#[test]
fn a_guest_that_refuses_leaves_nothing_behind() {
    if !inside("a_guest_that_refuses_leaves_nothing_behind", "") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    drop(staged(&cuda, &gone, false).unwrap());
    let mut free = Vec::new();
    for refused in 1..4 {
        let said = staged(&cuda, &gone, true).err().unwrap();
        assert!(said.to_string().contains("not today"), "{said}");
        free.push(left(&cuda));
        assert_eq!(gone.load(Ordering::SeqCst), 3 + refused);
    }
    // But for the block that waits for the next.
    assert!(free.windows(2).all(|w| w[0] == w[1]), "{free:?}");
    // A scene without a maker for each guest, and arrays of other sizes.
    let (whole, _) = scene(&cuda);
    assert!(cuda.stage(whole, Vec::new()).is_err());
    let (staged, parts) = staged(&cuda, &gone, false).unwrap();
    let short = [0.0_f32; 2];
    let mut data = [(parts[0].history, Data::input(&short))];
    assert!(matches!(staged.run(0, &mut data), Err(CudaError::Guest(_))));
    let mut long = [0.0_f32; ROWS * COLUMNS];
    let mut data = [(parts[0].history, Data::output(&mut long))];
    assert!(matches!(staged.run(0, &mut data), Err(CudaError::Guest(_))));
    println!("{DONE}");
}

/// Two threads and one engine: each gets its own answers.
#[test]
fn two_threads_may_ask_the_same_scene() {
    if !inside("two_threads_may_ask_the_same_scene", "") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let (staged, parts) = staged(&cuda, &Arc::default(), false).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (staged, parts) = (&staged, &parts);
            scope.spawn(move || {
                for round in 0..200 {
                    let round = 2 * round + thread;
                    let answers = played(staged, parts, PLAYS[0], round).unwrap();
                    for (part, answer) in answers.into_iter().enumerate() {
                        let (history, count) = given(round, part);
                        assert_eq!(answer, expected(&history, &count), "round {round}");
                    }
                }
            });
        }
    });
    println!("{DONE}");
}

/// A context that breaks takes the guests with it, and nothing of theirs is called in it any more; while somebody
/// holds it, it is not torn down.
#[test]
fn a_context_that_breaks_is_not_touched_and_one_that_is_held_stays() {
    let test = "a_context_that_breaks_is_not_touched_and_one_that_is_held_stays";
    if !inside(test, "fail:cuGraphLaunch:3") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    let (staged, parts) = staged(&cuda, &gone, false).unwrap();
    let hold = cuda.hold().unwrap();
    let ask = |round| played(&staged, &parts, PLAYS[0], round).map(|_| ());
    assert!(ask(0).is_ok() && ask(1).is_ok());
    assert!(matches!(ask(2), Err(CudaError::Driver { .. })));
    assert!(ask(3).is_err());
    // Its rest is over, and it is still there: making it current is not using it.
    std::thread::sleep(FIRST_REST + Duration::from_secs(2));
    assert_eq!(cuda.state(), State::Rests);
    drop(hold.current().unwrap());
    drop(hold);
    let began = Instant::now();
    while cuda.state() != State::Open {
        assert!(began.elapsed() < Duration::from_secs(20), "it stays closed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gone.load(Ordering::SeqCst), 0);
    assert!(matches!(ask(4), Err(CudaError::NotCaptured)));
    drop(staged);
    left(&cuda);
    assert_eq!(gone.load(Ordering::SeqCst), 0);
    let (fresh, parts) = self::staged(&cuda, &gone, false).unwrap();
    assert!(played(&fresh, &parts, PLAYS[0], 4).is_ok());
    println!("{DONE}");
}

/// The second part's guest refuses in the middle of a play: what was put onto the streams before it is waited for.
#[test]
fn a_play_that_stops_in_the_middle_leaves_no_work_behind() {
    let test = "a_play_that_stops_in_the_middle_leaves_no_work_behind";
    let begun = [1, 2, 3].map(|nth| format!("refuse:cuStreamBeginCapture_v2:{nth}"));
    if !inside(test, &begun.join(",")) {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    // Its first run, one in each of its two plays, and one that is asked for.
    let makers = [usize::MAX, 4, usize::MAX].map(|runs| {
        let gone = &gone;
        Box::new(move || Ok(guest(gone, runs))) as Maker<'_>
    });
    let (staged, parts) = made(&cuda, makers.into()).unwrap();
    assert!(!staged.is_captured());
    assert!(played(&staged, &parts, PLAYS[0], 0).is_ok());
    let said = played(&staged, &parts, PLAYS[0], 1).unwrap_err();
    assert!(said.to_string().contains("not today"), "{said}");
    assert_eq!(cuda.state(), State::Open);
    let answers = played(&staged, &parts, PLAYS[2], 2).unwrap();
    for (part, answer) in [2, 0].into_iter().zip(answers) {
        let (history, count) = given(2, part);
        assert_eq!(answer, expected(&history, &count), "part {part}");
    }
    assert!(played(&staged, &parts, PLAYS[0], 3).is_err());
    drop(staged);
    left(&cuda);
    assert_eq!(gone.load(Ordering::SeqCst), 3);
    println!("{DONE}");
}

/// Guests are made while the device is at something long, for which `crowd` queue up: what comes of them.
fn arrive_late(
    cuda: &Cuda,
    gone: &Arc<AtomicUsize>,
    crowd: usize,
) -> Result<(Staged, Vec<Part>), CudaError> {
    let waiting = Mutex::new(Vec::new());
    let last = || {
        let (long, queue) = (cuda.clone(), (0..crowd).map(|_| cuda.clone()));
        let mut waiting = waiting.lock().unwrap();
        waiting.push(std::thread::spawn(move || {
            drop(long.measure_copy(1 << 20, 1))
        }));
        std::thread::sleep(Duration::from_millis(200));
        waiting.extend(queue.map(|cuda| std::thread::spawn(move || drop(cuda.memory()))));
        std::thread::sleep(Duration::from_millis(200));
        Ok(guest(gone, usize::MAX))
    };
    let maker = || Box::new(move || Ok(guest(gone, usize::MAX))) as Maker<'_>;
    let said = made(cuda, vec![maker(), maker(), Box::new(last)]);
    for thread in waiting.into_inner().unwrap() {
        thread.join().unwrap();
    }
    said
}

/// The device's queue is full when they come: they go on the thread that made them, where their context is current.
#[test]
fn guests_that_are_turned_away_go_in_their_context() {
    let test = "guests_that_are_turned_away_go_in_their_context";
    if !inside(test, "slow:cuMemcpyDtoDAsync_v2:1") {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    let said = arrive_late(&cuda, &gone, 30).err().unwrap();
    assert!(matches!(said, CudaError::Busy), "{said}");
    assert_eq!(gone.load(Ordering::SeqCst), 3);
    drop(staged(&cuda, &gone, false).unwrap());
    left(&cuda);
    assert_eq!(gone.load(Ordering::SeqCst), 6);
    println!("{DONE}");
}

/// The device breaks while they wait: nothing of theirs is called in that context any more.
#[test]
fn guests_on_their_way_are_left_to_a_context_that_breaks() {
    let test = "guests_on_their_way_are_left_to_a_context_that_breaks";
    if !inside(
        test,
        "slow:cuMemcpyDtoDAsync_v2:1,fail:cuEventElapsedTime:1",
    ) {
        return;
    }
    let cuda = Cuda::open().unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    let said = arrive_late(&cuda, &gone, 0).err().unwrap();
    assert!(matches!(said, CudaError::Resting(_)), "{said}");
    let began = Instant::now();
    while cuda.state() != State::Open {
        assert!(began.elapsed() < Duration::from_secs(60), "it stays closed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gone.load(Ordering::SeqCst), 0);
    let (staged, parts) = staged(&cuda, &gone, false).unwrap();
    assert!(played(&staged, &parts, PLAYS[0], 4).is_ok());
    println!("{DONE}");
}
