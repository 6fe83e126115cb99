//! A thousand times from a logger to a plan and back, broken models among them: the heap stays flat. With TensorRT-RTX,
//! which builds for a GPU that is not there; the other releases would time kernels on one a thousand times, and what
//! the driver keeps meanwhile would be counted.
#![cfg(feature = "rtx")]

mod onnx;

use std::env;
use std::process::Command;

use onnx::Kind;
use onnx::models::{dense, unknown_operator};
use tensorrt_rs::{Builder, Library, Logger, Parser, Typing};

/// Rounds between two looks at the heap, and how often.
const ROUNDS: u32 = 200;
const PHASES: usize = 5;
/// Builders that are at work at the same time.
const THREADS: u32 = 2;
/// The least that a round can leak (bytes): the smallest piece that the allocator hands out.
const LEAST: i64 = 32;
/// Set in the process that does the work.
const CHILD: &str = "TENSORRT_RS_SOAK";
/// Counts exactly, since nothing that was freed is kept aside for its thread; and builds faster, since the library
/// takes 64 MiB for every build, a page at a time.
const TUNABLES: &str =
    "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1";

#[repr(C)]
struct Heap {
    arena: usize,
    free_chunks: usize,
    fast_chunks: usize,
    mapped_regions: usize,
    mapped: usize,
    most: usize,
    fast_free: usize,
    used: usize,
    free: usize,
    trimmable: usize,
}

unsafe extern "C" {
    safe fn mallinfo2() -> Heap;
}

/// Bytes that are allocated, of every thread's arena.
fn allocated() -> i64 {
    let heap = mallinfo2();
    (heap.used + heap.mapped) as i64
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn round(model: &[u8], broken: &[u8]) {
    let library = Library::open().expect("TensorRT, from TENSORRT_LIB=$(tensorrt-rs/libs)");
    let logger = Logger::with_sink(|_, _| ()).unwrap();
    let builder = Builder::new(library, &logger).unwrap();
    let mut refused = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut refused)
        .unwrap()
        .parse(broken)
        .unwrap_err();
    let mut network = builder.network(Typing::Strong).unwrap();
    Parser::new(&mut network).unwrap().parse(model).unwrap();
    network.set_input_shape("state", &[22, 8]).unwrap();
    let mut config = builder.config().unwrap();
    config.compute_capabilities(&[89]).unwrap();
    assert!(!builder.build(&mut network, &mut config).unwrap().is_empty());
}

/// Bytes that each phase has left behind.
#[allow(clippy::print_stderr)]
fn work() {
    let (model, broken) = (dense(Kind::F32), unknown_operator());
    let grown: Vec<i64> = (0..PHASES)
        .map(|_| {
            let before = allocated();
            std::thread::scope(|scope| {
                let rounds = || (0..ROUNDS / THREADS).for_each(|_| round(&model, &broken));
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(rounds)).collect();
                // The scope alone would not wait for what the threads free as they end.
                threads
                    .into_iter()
                    .for_each(|thread| thread.join().unwrap());
            });
            allocated() - before
        })
        .collect();
    eprintln!(
        "heap {grown:+?} bytes in {PHASES} times {ROUNDS} rounds, resident at the end {} KiB",
        resident_kib()
    );
    // The first has what libraries keep. A leak shows in every other one, a table that has grown only in its own:
    // so the lower of the two in the middle decides.
    let mut leaked = grown[1..].to_vec();
    leaked.sort_unstable();
    let leaked = leaked[(leaked.len() - 1) / 2];
    assert!(
        leaked < LEAST * i64::from(ROUNDS),
        "each round leaks {} bytes",
        leaked / i64::from(ROUNDS)
    );
}

#[test]
fn the_heap_stays_flat() {
    if env::var_os(CHILD).is_some() {
        return work();
    }
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_heap_stays_flat", "--nocapture"])
        .env(CHILD, "1")
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {said}", done.status);
    assert!(said.contains("resident at the end"), "{said}");
    eprint!("{said}");
}
