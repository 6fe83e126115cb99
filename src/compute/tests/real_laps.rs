//! The kernels' bodies against the CPU backend on what was really driven: a season's stints, ten minutes of a race.
//!
//! Reads laps/laps-2024.csv.zst and a recording of `$TRACKSIDE_DATA` (else ../shared/data).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::shim::{self, Schedule};
use super::{ORIN, SMALL, compare};
use crate::compute::delta_trace::winner;
use crate::compute::lap_features::FIXED;
use crate::compute::stint_fit::{FIT, TUNING};
use crate::compute::workload::{Case, Sample, Values, recorded};
use crate::compute::{Backend, Cpu, Kernel, StintFit, Task};

const LAPS: &str = "laps/laps-2024.csv.zst";
const RECORDING: &str = "recordings/2024-bahrain-race-first-10-minutes.ndjson.zst";

/// A file of the data folder, decompressed; none where there is none, which a CI does not accept.
fn data(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("TRACKSIDE_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.exists() {
        let why = format!("{} is not there; set TRACKSIDE_DATA", path.display());
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("skipped: {why}");
        return None;
    }
    Some(zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap())
}

/// One way through the shim and one through the CPU; both write into what `task` makes of their room.
fn both<T: Task>(here: &mut T, there: &mut T, schedule: Schedule) {
    Cpu.run(here).unwrap();
    there.check().unwrap();
    let mut launch = there.launch(if schedule == Schedule::Random {
        &SMALL
    } else {
        &ORIN
    });
    shim::run(&mut launch, schedule, 1).unwrap();
}

fn same_bits(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(same, "{what}[{i}] is {a} here and {b} there");
    }
}

#[test]
fn every_stint_of_a_season_fits_alike() {
    let Some(csv) = data(LAPS) else { return };
    let mut reader = csv::Reader::from_reader(&csv[..]);
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|h| h == name).unwrap();
    let (round, driver, stint) = (column("round"), column("driver"), column("stint"));
    let (time, age, lap) = (
        column("lap_time_s"),
        column("tyre_life_laps"),
        column("lap_number"),
    );
    let (into, out) = (column("is_in_lap"), column("is_out_lap"));
    let mut stints: BTreeMap<(u32, String, String), Vec<[f32; 3]>> = BTreeMap::new();
    for row in reader.records() {
        let row = row.unwrap();
        let number = |i: usize| row[i].parse::<f32>().unwrap_or(f32::NAN);
        let clean = &row[into] != "1" && &row[out] != "1";
        let seconds = if clean { number(time) } else { f32::NAN };
        let key = (
            row[round].parse().unwrap(),
            row[driver].to_owned(),
            row[stint].to_owned(),
        );
        stints
            .entry(key)
            .or_default()
            .push([seconds, number(age), 80.0 - number(lap)]);
    }
    assert!(stints.len() > 1000, "{} stints", stints.len());
    let mut starts = vec![0_u32];
    let mut rows: Vec<[f32; 3]> = Vec::new();
    for laps in stints.into_values() {
        rows.extend(laps);
        starts.push(rows.len() as u32);
    }
    let pick = |i: usize| rows.iter().map(|row| row[i]).collect::<Vec<f32>>();
    let (time, age, fuel) = (pick(0), pick(1), pick(2));
    let count = starts.len() - 1;
    let prior = [0.05, 20.0, 0.05, 1e5].repeat(count);
    let (mut a, mut b) = (vec![0.0; count * FIT], vec![0.0; count * FIT]);
    let task = |fit| StintFit {
        stint_start: &starts,
        time_s: &time,
        age: &age,
        fuel: &fuel,
        prior: &prior,
        rounds: 6,
        tuning: TUNING,
        fit,
    };
    let (mut here, mut there) = (task(&mut a), task(&mut b));
    both(&mut here, &mut there, Schedule::LastComeFirst);
    same_bits("fit", &a, &b);
    let wear: Vec<f32> = a
        .chunks(FIT)
        .map(|fit| fit[1])
        .filter(|v| !v.is_nan())
        .collect();
    let sane = wear.iter().filter(|v| v.abs() < 0.5).count();
    assert!(
        sane * 10 > wear.len() * 9,
        "{sane} of {} stints wear plausibly",
        wear.len()
    );
}

/// Microseconds of the day of `2024-03-02T15:03:48.949000+00:00`.
fn microseconds(date: &str) -> i64 {
    let clock = date.split_once('T').unwrap().1;
    let number = |range| {
        clock
            .get(range)
            .map_or(0, |t: &str| t.parse::<i64>().unwrap_or(0))
    };
    ((number(0..2) * 60 + number(3..5)) * 60 + number(6..8)) * 1_000_000 + number(9..15)
}

fn samples(recording: &[u8]) -> Vec<Sample> {
    let mut out = Vec::new();
    for line in recording.split(|&b| b == b'\n') {
        if !line.windows(13).any(|w| w == b"\"v1/car_data\"") {
            continue;
        }
        let message: serde_json::Value = serde_json::from_slice(line).unwrap();
        let sample = &message["payload"];
        let number = |name: &str| sample[name].as_f64().map_or(f32::NAN, |v| v as f32);
        let pedal = |name: &str| {
            Some(number(name))
                .filter(|v| *v <= 100.0)
                .unwrap_or(f32::NAN)
        };
        out.push(Sample {
            car: sample["driver_number"].as_u64().unwrap() as u8,
            at_us: microseconds(sample["date"].as_str().unwrap()),
            channels: [
                number("speed"),
                pedal("throttle"),
                pedal("brake"),
                number("n_gear"),
                number("rpm"),
                number("drs"),
            ],
        });
    }
    out
}

#[test]
fn what_was_driven_resamples_alike_and_so_does_what_follows() {
    let Some(recording) = data(RECORDING) else {
        return;
    };
    let samples = samples(&recording);
    let (here, there) = (recorded(&samples).unwrap(), recorded(&samples).unwrap());
    let schedules = [
        Schedule::Random,
        Schedule::FirstComeFirst,
        Schedule::LastComeFirst,
    ];
    for (((kernel, mut here), (_, mut there)), schedule) in
        here.into_iter().zip(there).zip(schedules)
    {
        Cpu.run(&mut *here.task()).unwrap();
        {
            let mut task = there.task();
            task.check().unwrap();
            shim::run(&mut task.launch(&SMALL), schedule, 1).unwrap();
        }
        compare(&*here, &*there, kernel.name());
        plausible(kernel, &*here);
    }
}

/// Whether that looks like a race, and not like an empty array.
fn plausible(kernel: Kernel, case: &dyn Case) {
    let outputs = case.outputs();
    let most = |values: &Values<'_>, every: usize, at: usize| match values {
        Values::F32(values) => values
            .iter()
            .skip(at)
            .step_by(every)
            .copied()
            .fold(0.0, f32::max),
        _ => panic!("{values:?}"),
    };
    match (kernel, &outputs[..]) {
        (Kernel::LapResample, [_, (_, length_m)]) => {
            let longest = most(length_m, 1, 0);
            assert!((4_000.0..7_000.0).contains(&longest), "{longest} m in 90 s");
        }
        (Kernel::LapFeatures, [(_, features)]) => {
            let best = most(features, FIXED + 24 + 16, 1);
            assert!(
                (0.3..1.0).contains(&best),
                "{best} of the time at full throttle"
            );
        }
        (Kernel::DeltaTrace, [_, (_, Values::U64(winners))]) => {
            assert!(winners.iter().all(|w| winner(*w).is_some()));
        }
        _ => panic!("{kernel:?}: {outputs:?}"),
    }
}
