//! The kernels' bodies against the CPU backend on what was really driven: a season's stints, ten minutes of a race.
//!
//! Reads laps/laps-2024.csv.zst and a recording of `$TRACKSIDE_DATA` (else ../shared/data).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::shim::{self, Schedule};
use super::{ORIN, SMALL};
use crate::compute::delta_trace::winner;
use crate::compute::lap_features::{FIXED, NO_CORNER, Pedals, Rows};
use crate::compute::stint_fit::{FIT, TUNING};
use crate::compute::{Backend, Cpu, DeltaTrace, LapFeatures, LapResample, StintFit, Task};

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

/// Ninety seconds of every car at a time, as if they were laps.
struct Stretches {
    starts: Vec<u32>,
    time_us: Vec<i32>,
    /// Speed, throttle, brake, gear.
    channels: [Vec<f32>; 4],
}

fn stretches(recording: &[u8]) -> Stretches {
    let mut cars: BTreeMap<u64, Vec<(i64, [f32; 4])>> = BTreeMap::new();
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
        let values = [
            number("speed"),
            pedal("throttle"),
            pedal("brake"),
            number("n_gear"),
        ];
        let at = microseconds(sample["date"].as_str().unwrap());
        cars.entry(sample["driver_number"].as_u64().unwrap())
            .or_default()
            .push((at, values));
    }
    let mut out = Stretches {
        starts: vec![0],
        time_us: Vec::new(),
        channels: Default::default(),
    };
    for samples in cars.values_mut() {
        samples.sort_by_key(|s| s.0);
        let mut rest = &samples[..];
        while let Some(&(began, _)) = rest.first() {
            let (own, after) = rest.split_at(rest.partition_point(|s| s.0 < began + 90_000_000));
            for (at, values) in own {
                out.time_us.push((at - began) as i32);
                for (channel, value) in out.channels.iter_mut().zip(values) {
                    channel.push(*value);
                }
            }
            out.starts.push(out.time_us.len() as u32);
            rest = after;
        }
    }
    out
}

#[test]
fn what_was_driven_resamples_alike_and_so_does_what_follows() {
    const BINS: usize = 512;
    const MINIS: usize = 24;
    const CORNERS: usize = 16;
    let Some(recording) = data(RECORDING) else {
        return;
    };
    let s = stretches(&recording);
    let laps = s.starts.len() - 1;
    assert!(laps > 100, "{laps} stretches");
    let channels = s.channels.concat();
    let rows = s.channels.len() + 1;
    let room = || (vec![0.0; laps * rows * BINS], vec![0.0; laps]);
    let ((mut a, mut a_length), (mut b, mut b_length)) = (room(), room());
    fn task<'a>(
        (s, channels): (&'a Stretches, &'a [f32]),
        grid: &'a mut [f32],
        length_m: &'a mut [f32],
    ) -> LapResample<'a> {
        LapResample {
            lap_start: &s.starts,
            time_us: &s.time_us,
            channels,
            bins: BINS,
            step_channels: 0b1000,
            max_gap_us: 1_000_000,
            grid,
            length_m,
        }
    }
    both(
        &mut task((&s, &channels), &mut a, &mut a_length),
        &mut task((&s, &channels), &mut b, &mut b_length),
        Schedule::Random,
    );
    same_bits("grid", &a, &b);
    same_bits("length", &a_length, &b_length);
    let longest = a_length.iter().copied().fold(0.0, f32::max);
    assert!((4_000.0..7_000.0).contains(&longest), "{longest} m in 90 s");

    let edges: Vec<u32> = (0..=MINIS)
        .map(|m| (m * (BINS - 1) / MINIS) as u32)
        .collect();
    let corner: Vec<u8> = (0..BINS)
        .map(|k| {
            if k % 32 < 12 {
                (k / 32) as u8
            } else {
                NO_CORNER
            }
        })
        .collect();
    let curvature: Vec<f32> = (0..BINS).map(|k| (k % 64) as f32 * 1e-4 - 3e-3).collect();
    let (tracks, width) = (vec![0; laps], FIXED + MINIS + CORNERS);
    let (mut fa, mut fb) = (vec![0.0; laps * width], vec![0.0; laps * width]);
    let task = |features| LapFeatures {
        grid: &a,
        rows,
        bins: BINS,
        which: Rows {
            speed: Some(1),
            throttle: Some(2),
            brake: Some(3),
            gear: Some(4),
        },
        pedals: Pedals::default(),
        lap_track: &tracks,
        curvature: &curvature,
        corner: &corner,
        corners: CORNERS,
        edges: &edges,
        minis: MINIS,
        features,
    };
    let (mut here, mut there) = (task(&mut fa), task(&mut fb));
    both(&mut here, &mut there, Schedule::FirstComeFirst);
    same_bits("features", &fa, &fb);
    let best = fa.chunks(width).map(|f| f[1]).fold(0.0, f32::max);
    assert!(
        (0.3..1.0).contains(&best),
        "{best} of the time at full throttle"
    );

    let (reference, group) = (vec![0; laps], vec![0; laps]);
    let (mut da, mut db) = (vec![0.0; laps * BINS], vec![0.0; laps * BINS]);
    let (mut wa, mut wb) = (vec![u64::MAX; MINIS], vec![u64::MAX; MINIS]);
    fn delta<'a>(
        (grid, rows): (&'a [f32], usize),
        (reference, group, tracks, edges): (&'a [u32], &'a [u32], &'a [u32], &'a [u32]),
        delta: &'a mut [f32],
        winner: &'a mut [u64],
    ) -> DeltaTrace<'a> {
        DeltaTrace {
            grid,
            rows,
            bins: BINS,
            reference,
            lap_group: group,
            lap_track: tracks,
            edges,
            minis: MINIS,
            delta,
            winner,
        }
    }
    let tables = (&reference[..], &group[..], &tracks[..], &edges[..]);
    both(
        &mut delta((&a, rows), tables, &mut da, &mut wa),
        &mut delta((&a, rows), tables, &mut db, &mut wb),
        Schedule::LastComeFirst,
    );
    same_bits("delta", &da, &db);
    assert_eq!(wa, wb);
    assert!(wa.iter().all(|w| winner(*w).is_some()));
}
