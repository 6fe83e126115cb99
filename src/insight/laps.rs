//! Laps: what a lap looked like, and where it was won and lost, once it is closed.
//!
//! Each car's samples are kept as they come ([`Traces`]); when a snapshot shows that laps have ended, all of them go
//! through the kernels together: `lap_resample` brings them onto equal steps of distance, `lap_features` takes them
//! apart, `delta_trace` compares them with the session's best lap so far and finds who was fastest where.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::{Origin, shed, took};
use crate::compute::delta_trace::{NONE, winner};
use crate::compute::lap_features::{FIXED, NO_CORNER, Pedals, Rows};
use crate::compute::{Backend, DeltaTrace, LapFeatures, LapResample, ShapeError};
use crate::live::Snapshot;
use crate::race::LapState;
use crate::record::{CarData, Frame, Time};

/// Most laps that are looked at together.
pub const LAPS_AT_ONCE: usize = 64;
/// Points of a lap: one every 10 m or so.
pub const BINS: usize = 512;
/// Mini-sectors of a lap, of equal length.
pub const MINIS: usize = 24;
/// Samples of a car that are kept.
const MOST_SAMPLES: usize = 16_384;
/// How long they are kept (s): longer than a lap behind the safety car and a look that comes late.
const KEPT_S: f64 = 400.0;
/// Least time between two samples that are kept (µs): a lap has no use for more than 50 a second.
const LEAST_PERIOD_US: i64 = 20_000;
/// Points between samples further apart than this are missing (µs).
const MAX_GAP_US: i32 = 1_500_000;
/// Longest lap that is looked at (s).
const LONGEST_S: f64 = 300.0;
/// Fewest samples of a lap.
const FEWEST_SAMPLES: usize = 60;
/// Speed, throttle, brake, gear; the gear holds its value.
const CHANNELS: [&str; 4] = ["speed", "throttle", "brake", "gear"];
const STEPS: u32 = 0b1000;
/// Rows of a resampled lap: the time, then the channels.
const ROWS: usize = CHANNELS.len() + 1;
const WIDTH: usize = FIXED + MINIS;

/// A lap, looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LapInsight {
    #[serde(flatten)]
    pub origin: Origin,
    pub driver_number: u8,
    pub lap_number: u16,
    /// Samples that it rests on, and the share of the lap between samples that are near enough.
    pub samples: usize,
    pub known: f32,
    /// Distance by integrated speed (m).
    pub length_m: f32,
    /// Shares of time.
    pub full_throttle: f32,
    pub braking: f32,
    pub coasting: f32,
    pub gear_changes: f32,
    /// km/h; the mean by distance.
    pub top_speed: f32,
    pub least_speed: f32,
    pub mean_speed: f32,
    /// Times of the mini-sectors (s).
    pub minis_s: Vec<f32>,
    /// Those in which nobody was faster in this session so far.
    pub fastest_in: Vec<usize>,
    /// The lap that it is compared with: the session's best before it.
    pub against: Option<(u8, u16)>,
    /// Time lost against it by the end of each mini-sector (s).
    pub delta_s: Vec<f32>,
}

/// A sample of what the kernels look at.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    at: i64,
    values: [f32; CHANNELS.len()],
}

/// Samples of one car, oldest first.
#[derive(Default)]
struct Trace {
    samples: VecDeque<Sample>,
    /// It sends frames, and its slower telemetry says nothing more.
    has_frames: bool,
}

impl Trace {
    fn push(&mut self, sample: Sample) {
        // What comes late has missed its place.
        if self
            .samples
            .back()
            .is_some_and(|last| sample.at - last.at < LEAST_PERIOD_US)
        {
            return;
        }
        let oldest = sample.at - (KEPT_S * 1e6) as i64;
        while self.samples.front().is_some_and(|s| s.at < oldest)
            || self.samples.len() >= MOST_SAMPLES
        {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The samples of a stretch of time, with one at its beginning and one at its end that lie on the way between
    /// their neighbours.
    fn between(&self, from: i64, to: i64) -> Vec<Sample> {
        let begin = self.samples.partition_point(|s| s.at < from);
        let end = self.samples.partition_point(|s| s.at <= to);
        let mut own: Vec<Sample> = Vec::with_capacity(end.saturating_sub(begin) + 2);
        own.extend(self.on_the_way(begin, from));
        own.extend(self.samples.range(begin..end.max(begin)));
        own.extend(self.on_the_way(end, to));
        own
    }

    /// Whether there is a sample behind that lap, or none to be waited for.
    fn has_come_to_the_end_of(&self, lap: &LapState) -> bool {
        let Some((_, ended)) = times(lap) else {
            return true;
        };
        (self.samples.back()).is_some_and(|newest| newest.at >= ended.micros())
    }

    /// A sample between number `next` and the one before it.
    fn on_the_way(&self, next: usize, at: i64) -> Option<Sample> {
        let (a, b) = (
            self.samples.get(next.checked_sub(1)?)?,
            self.samples.get(next)?,
        );
        if b.at <= a.at || at == a.at || b.at - a.at > i64::from(MAX_GAP_US) {
            return None;
        }
        let along = (at - a.at) as f32 / (b.at - a.at) as f32;
        let mut values = [0.0; CHANNELS.len()];
        for (c, value) in values.iter_mut().enumerate() {
            *value = if STEPS >> c & 1 == 1 {
                a.values[c]
            } else {
                a.values[c] + (b.values[c] - a.values[c]) * along
            };
        }
        Some(Sample { at, values })
    }
}

/// Samples of every car of a session.
#[derive(Default)]
pub struct Traces {
    session_key: Option<i32>,
    cars: BTreeMap<u8, Trace>,
}

impl Traces {
    /// Takes a sample of the usual telemetry.
    pub fn car_data(&mut self, r: &CarData) {
        let trace = self.trace(r.session_key, r.driver_number);
        if trace.has_frames {
            return;
        }
        let values = [r.speed, r.throttle, r.brake, r.n_gear];
        trace.push(Sample {
            at: r.date.micros(),
            values: values.map(|v| v.map_or(f32::NAN, f32::from)),
        });
    }

    /// Takes a burst, if it has the speed in it.
    pub fn frame(&mut self, frame: &Frame) {
        let mut columns = [None; CHANNELS.len()];
        for (name, samples) in frame.channels() {
            if let Some(c) = CHANNELS.iter().position(|channel| *channel == name) {
                columns[c] = Some(samples);
            }
        }
        if columns[0].is_none() {
            return;
        }
        let trace = self.trace(frame.session_key, frame.driver_number);
        trace.has_frames = true;
        for (i, at) in frame.times().enumerate() {
            let at = at.micros();
            if trace
                .samples
                .back()
                .is_some_and(|last| at - last.at < LEAST_PERIOD_US)
            {
                continue;
            }
            let value = |c: usize| {
                columns[c]
                    .and_then(|s| s.get(i))
                    .map_or(f32::NAN, |v| v as f32)
            };
            trace.push(Sample {
                at,
                values: std::array::from_fn(value),
            });
        }
    }

    fn trace(&mut self, session_key: i32, driver_number: u8) -> &mut Trace {
        if self.session_key != Some(session_key) {
            self.session_key = Some(session_key);
            self.cars.clear();
        }
        self.cars.entry(driver_number).or_default()
    }
}

/// A lap that has ended, with its samples.
struct Closed {
    driver_number: u8,
    lap_number: u16,
    samples: Vec<Sample>,
    began: i64,
}

/// Which laps were looked at, and the best of the session.
#[derive(Default)]
pub struct Laps {
    /// The newest lap of each car that was looked at.
    seen: BTreeMap<u8, u16>,
    /// The session's best lap: its time (s), whose and which it is, and its resampled rows.
    best: Option<(f32, (u8, u16), Vec<f32>)>,
    /// The best time of each mini-sector (s).
    minis: Option<[f32; MINIS]>,
}

impl Laps {
    /// Takes every lap of a race for seen: what was driven before is no news.
    pub fn skip(&mut self, snapshot: &Snapshot) {
        for car in snapshot.race.cars() {
            self.seen.insert(car.driver_number, car.laps_completed);
        }
    }

    /// Whether a car has closed a lap since the last look.
    pub fn are_new(&self, snapshot: &Snapshot) -> bool {
        let seen = |n: u8| self.seen.get(&n).copied().unwrap_or(0);
        let mut cars = snapshot.race.cars().iter();
        cars.any(|car| car.laps_completed > seen(car.driver_number))
    }

    /// Looks at the laps that have ended since the last look.
    ///
    /// # Errors
    /// [`ShapeError`] would be a defect of this file.
    pub fn look(
        &mut self,
        snapshot: &Snapshot,
        traces: &Traces,
        backend: &dyn Backend,
    ) -> Result<Vec<Arc<LapInsight>>, ShapeError> {
        let mut closed = self.closed(snapshot, traces);
        let over = closed.len().saturating_sub(LAPS_AT_ONCE);
        shed("laps", over as u64);
        closed.drain(..over);
        if closed.is_empty() {
            return Ok(Vec::new());
        }
        let (grid, length_m) = resample(&closed, backend)?;
        let features = features(&grid, closed.len(), backend)?;
        let deltas = self.delta(&closed, grid, backend)?;
        let origin = Origin {
            session_key: snapshot.race.session.key.unwrap_or_default(),
            made_at: snapshot.race.clock,
            seq: snapshot.seq,
            backend: deltas.by,
        };
        let mut insights = Vec::with_capacity(closed.len());
        for (i, lap) in closed
            .iter()
            .enumerate()
            .filter(|(i, _)| length_m[*i] > 0.0)
        {
            let f = &features[i * WIDTH..][..WIDTH];
            let row = &deltas.grid[(i * ROWS + 1) * BINS..][..BINS];
            insights.push(Arc::new(LapInsight {
                origin,
                driver_number: lap.driver_number,
                lap_number: lap.lap_number,
                samples: lap.samples.len(),
                known: row.iter().filter(|v| !v.is_nan()).count() as f32 / BINS as f32,
                length_m: length_m[i],
                full_throttle: f[1],
                braking: f[2],
                coasting: f[3],
                gear_changes: f[4],
                top_speed: f[7],
                least_speed: f[8],
                mean_speed: f[9],
                minis_s: f[FIXED..].to_vec(),
                fastest_in: (0..MINIS)
                    .filter(|m| deltas.fastest[*m] == Some(i))
                    .collect(),
                against: deltas.against,
                delta_s: deltas
                    .against
                    .map(|_| ends().map(|end| deltas.delta[i * BINS + end]).collect())
                    .unwrap_or_default(),
            }));
        }
        Ok(insights)
    }

    /// Laps that ended since the last look and whose samples have come.
    fn closed(&mut self, snapshot: &Snapshot, traces: &Traces) -> Vec<Closed> {
        let mut closed = Vec::new();
        let of_this_session = traces.session_key == snapshot.race.session.key;
        for car in snapshot.race.cars() {
            let seen = self.seen.entry(car.driver_number).or_default();
            let trace = traces.cars.get(&car.driver_number);
            let Some(trace) = trace.filter(|_| of_this_session) else {
                *seen = (*seen).max(car.laps_completed);
                continue;
            };
            for lap in &car.laps {
                if lap.number <= *seen || lap.number > car.laps_completed {
                    continue;
                }
                // The timing may be ahead of the telemetry; the newest lap waits for its end.
                if lap.number == car.laps_completed && !trace.has_come_to_the_end_of(lap) {
                    break;
                }
                closed.extend(close(car.driver_number, lap, trace));
                *seen = lap.number;
            }
        }
        closed.sort_by_key(|lap| (lap.lap_number, lap.began));
        closed
    }

    /// Compares with the session's best, which is then the best of these if it is better.
    fn delta(
        &mut self,
        closed: &[Closed],
        mut grid: Vec<f32>,
        backend: &dyn Backend,
    ) -> Result<Deltas, ShapeError> {
        let laps = closed.len();
        let against = self.best.as_ref().map(|best| best.1);
        // The best lap goes last, and is compared with nothing.
        let mut reference = vec![NONE; laps];
        let mut group = vec![0; laps];
        if let Some((_, _, rows)) = &self.best {
            reference.fill(laps as u32);
            grid.extend_from_slice(rows);
            reference.push(NONE);
            group.push(NONE);
        }
        let edges = edges();
        let mut delta = vec![0.0; reference.len() * BINS];
        let mut winners = vec![u64::MAX; MINIS];
        let began = Instant::now();
        let by = backend.run(&mut DeltaTrace {
            grid: &grid,
            rows: ROWS,
            bins: BINS,
            reference: &reference,
            lap_group: &group,
            lap_track: &vec![0; reference.len()],
            edges: &edges,
            minis: MINIS,
            delta: &mut delta,
            winner: &mut winners,
        })?;
        took("delta_trace", by, began);
        let best = self.minis.get_or_insert([f32::INFINITY; MINIS]);
        let fastest = std::array::from_fn(|m| {
            let (lap, time_s) = winner(winners[m])?;
            (time_s < best[m]).then(|| {
                best[m] = time_s;
                lap as usize
            })
        });
        let whole = |i: usize| {
            let time = &grid[i * ROWS * BINS..][..BINS];
            let speed = &grid[(i * ROWS + 1) * BINS..][..BINS];
            // A lap with a hole in it is nobody's measure.
            (!speed.iter().any(|v| v.is_nan())).then(|| time[BINS - 1] - time[0])
        };
        let quickest = (0..laps)
            .filter_map(|i| Some((whole(i)?, i)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((time_s, i)) = quickest
            && self.best.as_ref().is_none_or(|best| time_s < best.0)
        {
            let rows = grid[i * ROWS * BINS..][..ROWS * BINS].to_vec();
            self.best = Some((
                time_s,
                (closed[i].driver_number, closed[i].lap_number),
                rows,
            ));
        }
        Ok(Deltas {
            by,
            grid,
            delta,
            fastest,
            against,
        })
    }
}

struct Deltas {
    by: crate::compute::By,
    grid: Vec<f32>,
    delta: Vec<f32>,
    /// The lap that took the best time of each mini-sector.
    fastest: [Option<usize>; MINIS],
    against: Option<(u8, u16)>,
}

/// When a lap began and when it ended.
fn times(lap: &LapState) -> Option<(Time, Time)> {
    let began = lap.started?;
    let ended = lap.duration.map(|s| began.plus_seconds(s)).or(lap.ended)?;
    Some((began, ended))
}

/// A lap with its samples; none where its times or samples are not known.
fn close(driver_number: u8, lap: &LapState, trace: &Trace) -> Option<Closed> {
    let (began, ended) = times(lap)?;
    let long = ended.seconds_since(began);
    if !(0.0..LONGEST_S).contains(&long) {
        return None;
    }
    let samples = trace.between(began.micros(), ended.micros());
    (samples.len() >= FEWEST_SAMPLES).then_some(Closed {
        driver_number,
        lap_number: lap.number,
        samples,
        began: began.micros(),
    })
}

fn resample(closed: &[Closed], backend: &dyn Backend) -> Result<(Vec<f32>, Vec<f32>), ShapeError> {
    let mut lap_start = vec![0_u32];
    let mut time_us = Vec::new();
    for lap in closed {
        // Below 300 s.
        time_us.extend(lap.samples.iter().map(|s| (s.at - lap.began) as i32));
        lap_start.push(time_us.len() as u32);
    }
    let all = || closed.iter().flat_map(|lap| &lap.samples);
    let channels: Vec<f32> = (0..CHANNELS.len())
        .flat_map(|c| all().map(move |s| s.values[c]))
        .collect();
    let mut grid = vec![0.0; closed.len() * ROWS * BINS];
    let mut length_m = vec![0.0; closed.len()];
    let began = Instant::now();
    let by = backend.run(&mut LapResample {
        lap_start: &lap_start,
        time_us: &time_us,
        channels: &channels,
        bins: BINS,
        step_channels: STEPS,
        max_gap_us: MAX_GAP_US,
        grid: &mut grid,
        length_m: &mut length_m,
    })?;
    took("lap_resample", by, began);
    Ok((grid, length_m))
}

fn features(grid: &[f32], laps: usize, backend: &dyn Backend) -> Result<Vec<f32>, ShapeError> {
    let mut features = vec![0.0; laps * WIDTH];
    let began = Instant::now();
    let by = backend.run(&mut LapFeatures {
        grid,
        rows: ROWS,
        bins: BINS,
        which: Rows {
            speed: Some(1),
            throttle: Some(2),
            brake: Some(3),
            gear: Some(4),
        },
        pedals: Pedals::default(),
        lap_track: &vec![0; laps],
        // Nobody has told where the corners are.
        curvature: &[f32::NAN; BINS],
        corner: &[NO_CORNER; BINS],
        corners: 0,
        edges: &edges(),
        minis: MINIS,
        features: &mut features,
    })?;
    took("lap_features", by, began);
    Ok(features)
}

/// Points where mini-sectors begin, and where the last one ends.
fn edges() -> Vec<u32> {
    (0..=MINIS)
        .map(|m| (m * (BINS - 1) / MINIS) as u32)
        .collect()
}

/// Points where mini-sectors end.
fn ends() -> impl Iterator<Item = usize> {
    (1..=MINIS).map(|m| m * (BINS - 1) / MINIS)
}
