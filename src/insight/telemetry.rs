//! Ticks: statistics of every channel of every car since the last one, and the limits that they break.
//!
//! A tick is two tasks of fixed shapes, one captured graph on a GPU:
//!
//! 1. `frame_stats` over what each channel brought since the last tick: least, greatest, mean, root mean square.
//!    They become the car's newest row of features.
//! 2. `assemble_inputs` over the rows of the ticks before: of each channel that has a limit the least or the
//!    greatest, as what it is beyond the limit, [`HOLD`] rows of each car.
//!
//! A limit is broken when all of these rows are beyond it, and kept again when none is. So one wild sample alarms
//! nobody, and whatever the rate of a channel, a tick costs the same.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Origin, shed};
use crate::compute::assemble_inputs::Tensor;
use crate::compute::frame_stats::STATS;
use crate::compute::{AssembleInputs, By, FrameStats, ShapeError, Task, Ticker};
use crate::race::MAX_CARS;
use crate::record::{CarData, Frame, Time};

/// Most samples of a channel that one tick takes: 1 kHz in bursts of a quarter of a second.
pub const ROW: usize = 256;
/// Most channels.
pub const MAX_CHANNELS: usize = crate::record::frame::MAX_CHANNELS;
/// Most limits.
pub const MAX_LIMITS: usize = 64;
/// Rows in a row that must be beyond a limit.
pub const HOLD: usize = 5;
/// Rows that are kept of each car.
const SLOTS: usize = 8;
/// Where the least and the greatest are among the statistics.
const LEAST: u32 = 0;
const GREATEST: u32 = 1;
/// Nothing is beyond a limit by more than this.
const FAR: f32 = 1e30;

/// The channels of OpenF1's `car_data`, named as those of frames.
const CAR_DATA: [&str; 5] = ["speed", "rpm", "gear", "throttle", "brake"];

/// A limit of a channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    pub channel: String,
    /// Whether the channel may not be above it; else not below.
    pub is_upper: bool,
    pub limit: f64,
}

/// A limit that a car's channel breaks, or keeps again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TelemetryAlert {
    #[serde(flatten)]
    pub origin: Origin,
    pub driver_number: u8,
    #[serde(flatten)]
    pub limit: Limit,
    /// `false`: it is kept again.
    pub broken: bool,
    /// The worst of the rows that said so.
    pub seen: f64,
}

impl TelemetryAlert {
    /// Whether both are about the same limit of the same car.
    pub fn is_about_the_same(&self, other: &TelemetryAlert) -> bool {
        self.driver_number == other.driver_number && self.limit == other.limit
    }
}

/// The latest statistics of a channel: least, greatest, mean, root mean square.
pub type Statistics = [f32; STATS];

/// What came since the last tick, and the rows of the ticks before.
pub struct Telemetry {
    session_key: Option<i32>,
    clock: Time,
    cars: Vec<u8>,
    channels: Vec<String>,
    limits: Vec<Limit>,
    /// By car and channel.
    waiting: BTreeMap<(usize, usize), Vec<f32>>,
    /// Samples that a row has had room for so far: it only grows, so that shapes seldom change.
    stride: usize,
    stats: Vec<f32>,
    /// `[car][slot][channel][STATS]`
    history: Vec<f32>,
    newest: Vec<u32>,
    count: Vec<u32>,
    /// By car and limit.
    broken: BTreeMap<(usize, usize), bool>,
}

impl Telemetry {
    /// Watches for those limits, of which [`MAX_LIMITS`] count.
    pub fn new(mut limits: Vec<Limit>) -> Telemetry {
        limits.truncate(MAX_LIMITS);
        Telemetry {
            session_key: None,
            clock: Time::default(),
            cars: Vec::new(),
            channels: CAR_DATA.map(str::to_owned).to_vec(),
            limits,
            waiting: BTreeMap::new(),
            stride: 4,
            stats: Vec::new(),
            history: Vec::new(),
            newest: Vec::new(),
            count: Vec::new(),
            broken: BTreeMap::new(),
        }
    }

    /// Whether something came since the last tick.
    pub fn is_due(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a sample of the usual telemetry.
    pub fn car_data(&mut self, r: &CarData) {
        let Some(car) = self.car(r.session_key, r.driver_number) else {
            return;
        };
        self.clock = self.clock.max(r.date);
        let values = [r.speed, r.rpm, r.n_gear, r.throttle, r.brake];
        for (channel, value) in values.into_iter().enumerate() {
            let value = value.map_or(f32::NAN, f32::from);
            self.put(car, channel, std::iter::once(value));
        }
    }

    /// Takes a burst.
    pub fn frame(&mut self, frame: &Frame) {
        let Some(car) = self.car(frame.session_key, frame.driver_number) else {
            return;
        };
        self.clock = self.clock.max(frame.last);
        for (name, samples) in frame.channels() {
            let Some(channel) = self.channel(name) else {
                continue;
            };
            let skip = samples.len().saturating_sub(ROW);
            shed("samples", skip as u64);
            let newest =
                (skip..samples.len()).map(|i| samples.get(i).map_or(f32::NAN, |v| v as f32));
            self.put(car, channel, newest);
        }
    }

    fn car(&mut self, session_key: i32, number: u8) -> Option<usize> {
        if self.session_key != Some(session_key) {
            *self = Telemetry::new(std::mem::take(&mut self.limits));
            self.session_key = Some(session_key);
        }
        let known = self.cars.iter().position(|n| *n == number);
        known.or_else(|| {
            (self.cars.len() < MAX_CARS).then(|| {
                self.cars.push(number);
                self.cars.len() - 1
            })
        })
    }

    fn channel(&mut self, name: &str) -> Option<usize> {
        let known = self.channels.iter().position(|c| c == name);
        known.or_else(|| {
            (self.channels.len() < MAX_CHANNELS).then(|| {
                self.channels.push(name.to_owned());
                self.channels.len() - 1
            })
        })
    }

    fn put(&mut self, car: usize, channel: usize, values: impl Iterator<Item = f32>) {
        let row = self.waiting.entry((car, channel)).or_default();
        row.extend(values);
        let over = row.len().saturating_sub(ROW);
        row.drain(..over);
        shed("samples", over as u64);
        self.stride = self.stride.max(row.len().next_power_of_two()).min(ROW);
    }

    /// The statistics of the last tick: by car and channel, where there were samples.
    pub fn statistics(&self, car: u8, channel: &str) -> Option<Statistics> {
        let car = self.cars.iter().position(|n| *n == car)?;
        let channel = self.channels.iter().position(|c| c == channel)?;
        let at = (car * self.channels.len() + channel) * STATS;
        self.stats.get(at..at + STATS)?.try_into().ok()
    }

    /// A tick: statistics of what came, and the limits that are broken, or kept again.
    ///
    /// # Errors
    /// [`ShapeError`] would be a defect of this file.
    pub fn tick(
        &mut self,
        seq: u64,
        ticker: &mut Ticker,
    ) -> Result<(By, Vec<TelemetryAlert>), ShapeError> {
        let (cars, channels) = (self.cars.len(), self.channels.len());
        if cars == 0 {
            return Ok((By::Cpu, Vec::new()));
        }
        let (rows, width) = (cars * channels, channels * STATS);
        self.shape(width);
        let mut samples = vec![f32::NAN; rows * self.stride];
        for (&(car, channel), values) in &self.waiting {
            let row = &mut samples[(car * channels + channel) * self.stride..];
            row[..values.len()].copy_from_slice(values);
        }
        self.stats.resize(rows * STATS, f32::NAN);
        let mut known = vec![0; rows];
        let (choice, mean, scale) = self.tables();
        let mut tensor = vec![0.0; cars * HOLD * choice.len()];
        let mut mask = vec![0.0; cars * HOLD];
        let by = {
            let mut tasks: Vec<Box<dyn Task + '_>> = vec![Box::new(FrameStats {
                samples: &samples,
                rows,
                windows: 1,
                length: self.stride,
                hop: self.stride,
                stats: &mut self.stats,
                known: &mut known,
            })];
            if !choice.is_empty() {
                tasks.push(Box::new(AssembleInputs {
                    history: &self.history,
                    slots: SLOTS,
                    features: width,
                    newest: &self.newest,
                    count: &self.count,
                    steps: HOLD,
                    choice: &choice,
                    mean: &mean,
                    scale: &scale,
                    limit: FAR,
                    tensor: Tensor::F32(&mut tensor),
                    mask: &mut mask,
                }));
            }
            ticker.run(&mut tasks)?
        };
        let alerts = self.judge(seq, by, &tensor, &mask);
        self.keep(width);
        self.waiting.clear();
        Ok((by, alerts))
    }

    /// Room for every car; rows of other shapes are forgotten.
    fn shape(&mut self, width: usize) {
        let cars = self.cars.len();
        if self.history.len() != cars * SLOTS * width {
            self.history = vec![f32::NAN; cars * SLOTS * width];
            self.newest = vec![0; cars];
            self.count = vec![0; cars];
            self.stats.clear();
        }
    }

    /// Which features are looked at, and how far each is beyond its limit: (value − mean)·scale. A limit of a
    /// channel that never came looks at nothing of it.
    fn tables(&self) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
        let mut tables = (Vec::new(), Vec::new(), Vec::new());
        for limit in self.known_limits().map(|(_, limit)| limit) {
            let channel = self.channels.iter().position(|c| *c == limit.channel);
            let which = if limit.is_upper { GREATEST } else { LEAST };
            tables.0.push((channel.unwrap_or(0) * STATS) as u32 + which);
            tables.1.push(limit.limit as f32);
            tables.2.push(if limit.is_upper { 1.0 } else { -1.0 });
        }
        tables
    }

    /// Limits of channels that came, with their places among all.
    fn known_limits(&self) -> impl Iterator<Item = (usize, &Limit)> {
        let all = self.limits.iter().enumerate();
        all.filter(|(_, limit)| self.channels.contains(&limit.channel))
    }

    fn judge(&mut self, seq: u64, by: By, tensor: &[f32], mask: &[f32]) -> Vec<TelemetryAlert> {
        let limits: Vec<(usize, Limit)> = self
            .known_limits()
            .map(|(i, limit)| (i, limit.clone()))
            .collect();
        let mut alerts = Vec::new();
        for (car, &driver_number) in self.cars.iter().enumerate() {
            let mask = &mask[car * HOLD..][..HOLD];
            if mask.contains(&0.0) {
                continue;
            }
            for (column, (i, limit)) in limits.iter().enumerate() {
                let beyond = |row: usize| tensor[(car * HOLD + row) * limits.len() + column];
                let broken = self.broken.entry((car, *i)).or_default();
                let now = match (0..HOLD).filter(|row| beyond(*row) > 0.0).count() {
                    0 => false,
                    HOLD => true,
                    _ => continue,
                };
                if *broken == now {
                    continue;
                }
                *broken = now;
                let worst = f64::from((0..HOLD).map(beyond).fold(-FAR, f32::max));
                alerts.push(TelemetryAlert {
                    origin: Origin {
                        session_key: self.session_key.unwrap_or_default(),
                        made_at: self.clock,
                        seq,
                        backend: by,
                    },
                    driver_number,
                    limit: limit.clone(),
                    broken: now,
                    seen: limit.limit + if limit.is_upper { worst } else { -worst },
                });
            }
        }
        alerts
    }

    /// The statistics become the newest row of every car that sent something.
    fn keep(&mut self, width: usize) {
        for car in 0..self.cars.len() {
            if self.waiting.range((car, 0)..(car + 1, 0)).next().is_none() {
                continue;
            }
            let slot = (self.newest[car] as usize + 1) % SLOTS;
            let row = &mut self.history[(car * SLOTS + slot) * width..][..width];
            row.copy_from_slice(&self.stats[car * width..][..width]);
            self.newest[car] = slot as u32;
            self.count[car] = (self.count[car] + 1).min(SLOTS as u32);
        }
    }
}
