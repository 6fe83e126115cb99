//! The kernels' own bodies, run on the host, against the CPU backend: every bit.

#[cfg(feature = "cuda")]
mod emulated;
mod real_laps;
#[cfg(feature = "cuda")]
mod scenes;
mod shim;

use self::shim::Schedule;
use super::launch::Geometry;
use super::workload::{Case, Size, case};
use super::{Backend, Cpu, Kernel};

/// Rounds of fresh inputs for each kernel.
const ROUNDS: u64 = 12;

/// A device with few multiprocessors, so that blocks have to loop.
const SMALL: Geometry = Geometry {
    multiprocessors: 1,
    threads_each: 256,
};
const ORIN: Geometry = Geometry {
    multiprocessors: 16,
    threads_each: 1536,
};

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |t| t.as_nanos() as u64)
}

/// Both ways over the same inputs.
fn agree(kernel: Kernel, seed: u64) {
    let schedules = [
        Schedule::FirstComeFirst,
        Schedule::LastComeFirst,
        Schedule::Random,
    ];
    let schedule = schedules[(seed % 3) as usize];
    let geometry = if seed.is_multiple_of(2) { SMALL } else { ORIN };
    let (mut here, mut there) = (
        case(kernel, Size::Small, seed),
        case(kernel, Size::Small, seed),
    );
    Cpu.run(&mut *here.task()).unwrap();
    {
        let mut task = there.task();
        task.check().unwrap();
        let mut launch = task.launch(&geometry);
        shim::run(&mut launch, schedule, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    compare(
        &*here,
        &*there,
        &format!(
            "{} with seed {seed} ({schedule:?}, {geometry:?})",
            kernel.name()
        ),
    );
}

fn compare(here: &dyn Case, there: &dyn Case, what: &str) {
    for ((name, a), (_, b)) in here.outputs().iter().zip(there.outputs()) {
        if let Some(i) = a.difference(&b) {
            panic!(
                "{what}: {name}[{i}] is {} here and {} there",
                a.show(i),
                b.show(i)
            );
        }
    }
}

fn agree_on_fresh_inputs(kernel: Kernel) {
    let first = fresh_seed();
    println!("seeds from {first}");
    for seed in first..first + ROUNDS {
        agree(kernel, seed);
    }
}

#[test]
fn assemble_inputs_agrees() {
    agree_on_fresh_inputs(Kernel::AssembleInputs);
}

#[test]
fn delta_trace_agrees() {
    agree_on_fresh_inputs(Kernel::DeltaTrace);
}

#[test]
fn frame_stats_agrees() {
    agree_on_fresh_inputs(Kernel::FrameStats);
}

#[test]
fn lap_features_agrees() {
    agree_on_fresh_inputs(Kernel::LapFeatures);
}

#[test]
fn lap_resample_agrees() {
    agree_on_fresh_inputs(Kernel::LapResample);
}

#[test]
fn stint_fit_agrees() {
    agree_on_fresh_inputs(Kernel::StintFit);
}

#[test]
fn race_monte_carlo_agrees() {
    agree_on_fresh_inputs(Kernel::RaceMonteCarlo);
}
