//! Car data, locations and high-rate frames, all sampled from the same motion.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::car::Place;
use super::pace::DRS_GAP_S;
use super::physics::{gear, rpm};
use super::session::{DT, Session};
use super::{FrameOptions, Options};
use crate::record::frame::FrameBuilder;
use crate::record::{CarData, Location, Record};

/// Time from one sample to the next (s): about 3.7 and 3.85 a second.
const CAR_DATA_EVERY: [f64; 4] = [0.20, 0.24, 0.28, 0.36];
const LOCATION_EVERY: [f64; 4] = [0.18, 0.22, 0.26, 0.38];
/// What a sample takes to the subscriber (s), and a frame after its last sample.
const CAR_DATA_DELAY: f64 = 0.30;
const LOCATION_DELAY: f64 = 0.32;
const FRAME_DELAY: f64 = 0.004;
/// How far a car strays from the line (m).
const STRAY_M: f64 = 3.0;
/// A stopped car sends zeros from then on (s).
const ZEROS_AFTER_S: f64 = 45.0;
/// Steering ratio times wheelbase (° per 1/m): 1 g of a hairpin is most of a turn.
const STEERING: f64 = 3800.0;

/// Channels of a frame, in the order in which they are added.
pub const CHANNELS: [&str; 16] = [
    "rpm",
    "speed",
    "throttle",
    "brake",
    "gear",
    "steering",
    "accel_long",
    "accel_lat",
    "tyre_temp_fl",
    "tyre_temp_fr",
    "tyre_temp_rl",
    "tyre_temp_rr",
    "brake_temp_front",
    "brake_temp_rear",
    "fuel_flow",
    "ers_charge",
];

/// What a car's sensors show, before noise.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    speed: f64,
    accel: f64,
    lateral: f64,
    throttle: f64,
    braking: bool,
    s: f64,
    alive: bool,
}

/// Temperatures and stores that follow what a car does.
#[derive(Clone, Copy, Debug)]
struct Warmth {
    tyres: [f64; 4],
    brakes: [f64; 2],
    charge: f64,
}

struct Burst {
    sequence: u64,
    /// Columns by channel.
    columns: Vec<Vec<f32>>,
}

pub(super) struct Telemetry {
    rng: ChaCha8Rng,
    next_car_data: f64,
    next_location: f64,
    /// Per car: no telemetry, no location until then (s); how far off the line it is (m).
    silent: Vec<f64>,
    lost: Vec<f64>,
    stray: Vec<f64>,
    warmth: Vec<Warmth>,
    frames: Option<FrameOptions>,
    bursts: Vec<Burst>,
    /// Samples taken of each channel since the clock's zero.
    taken: u64,
}

impl Telemetry {
    pub fn new(options: &Options, cars: usize, seed: u64) -> Telemetry {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2);
        let channels = options.frames.as_ref().map_or(0, |f| f.channels);
        Telemetry {
            rng,
            next_car_data: 0.0,
            next_location: 0.07,
            silent: vec![f64::MIN; cars],
            lost: vec![f64::MIN; cars],
            stray: vec![0.0; cars],
            warmth: vec![
                Warmth {
                    tyres: [70.0; 4],
                    brakes: [250.0; 2],
                    charge: 60.0
                };
                cars
            ],
            frames: options.frames.clone(),
            bursts: (0..cars)
                .map(|_| Burst {
                    sequence: 0,
                    columns: vec![Vec::new(); channels],
                })
                .collect(),
            taken: 0,
        }
    }
}

impl Session {
    /// Samples the step that begins at `now`.
    pub fn sample(&mut self, now: f64) {
        let end = now + DT;
        while self.telemetry.next_car_data < end {
            let at = self.telemetry.next_car_data;
            let step = CAR_DATA_EVERY.choose(&mut self.telemetry.rng).copied();
            // To the millisecond: the feed's dates are.
            self.telemetry.next_car_data = ((at + step.unwrap_or(0.27)) * 1000.0).round() / 1000.0;
            if !self.dirt.loses_sample() {
                self.sample_car_data(at, at - now);
            }
        }
        while self.telemetry.next_location < end {
            let at = self.telemetry.next_location;
            let step = LOCATION_EVERY.choose(&mut self.telemetry.rng).copied();
            self.telemetry.next_location = ((at + step.unwrap_or(0.26)) * 1000.0).round() / 1000.0;
            if !self.dirt.loses_sample() {
                self.sample_locations(at, at - now);
            }
        }
        if self.telemetry.frames.is_some() {
            self.warm_up();
            self.sample_frames(now, end);
        }
    }

    /// What the car does `ahead` seconds into the present step.
    fn reading(&self, i: usize, ahead: f64) -> Reading {
        let car = &self.cars[i];
        match car.place {
            Place::Moving => {
                let motion = self.track.motion(car.manner, car.tau + ahead / car.pace);
                let slot = motion.s - car.s;
                // Before the slots are blended away, `s` lies behind the profile's.
                let offset = if car.lap == 1 {
                    (slot - ahead * car.speed).max(0.0)
                } else {
                    0.0
                };
                Reading {
                    speed: motion.speed / car.pace,
                    accel: motion.accel / (car.pace * car.pace),
                    lateral: motion.lateral / (car.pace * car.pace),
                    throttle: (motion.throttle / car.pace.powi(2)).min(100.0),
                    braking: motion.braking,
                    s: motion.s - offset,
                    alive: true,
                }
            }
            Place::Grid | Place::Boxed { .. } => Reading {
                s: car.s,
                alive: true,
                ..Reading::default()
            },
            Place::Stopped { since } => {
                let alive = self.now() < since + ZEROS_AFTER_S;
                Reading {
                    s: car.s,
                    alive,
                    ..Reading::default()
                }
            }
            Place::Garage => Reading {
                s: car.s,
                ..Reading::default()
            },
        }
    }

    fn drs(&self, i: usize, reading: &Reading) -> i16 {
        let car = &self.cars[i];
        let free = !self.is_race() || car.ahead.is_some_and(|(_, gap)| gap < DRS_GAP_S);
        let allowed = (self.control.drs || !self.is_race()) && car.place == Place::Moving;
        match allowed && free {
            true if self.track.in_drs_zone(reading.s) && reading.throttle > 60.0 => 12,
            true if self.track.in_drs_zone(reading.s + 120.0) => 8,
            _ if car.place == Place::Moving => 0,
            _ => 1,
        }
    }

    fn sample_car_data(&mut self, at: f64, ahead: f64) {
        let date = self.stamp(at);
        let arrives = self.instant(at + CAR_DATA_DELAY);
        for i in 0..self.cars.len() {
            if let Some(gap) = self.dirt.gap() {
                self.telemetry.silent[i] = at + gap;
            }
            if at < self.telemetry.silent[i] {
                continue;
            }
            let reading = self.reading(i, ahead);
            let drs = self.dirt.odd_drs().unwrap_or_else(|| self.drs(i, &reading));
            let pedals_lost = self.dirt.loses_pedals();
            let shown_gear = if reading.alive {
                i16::from(gear(reading.speed))
            } else {
                0
            };
            let n_gear = self.dirt.garbage_gear().unwrap_or(shown_gear);
            let rng = &mut self.telemetry.rng;
            let revs = rpm(reading.speed) + rng.random_range(-40.0..40.0);
            // Feet are not steps: full throttle is sometimes told as 99.
            let foot = reading.throttle.round() as i16 - i16::from(rng.random_bool(0.1));
            let sample = CarData {
                meeting_key: self.occasion.meeting_key,
                session_key: self.occasion.session_key,
                driver_number: self.cars[i].number(),
                date,
                rpm: Some(if reading.alive { revs as i16 } else { 0 }),
                speed: Some((reading.speed * 3.6).round() as i16),
                n_gear: Some(n_gear),
                throttle: Some(if pedals_lost { 104 } else { foot.clamp(0, 100) }),
                brake: Some(if pedals_lost {
                    104
                } else {
                    i16::from(reading.braking) * 100
                }),
                drs: Some(drs),
            };
            if self.dirt.repeats() {
                let again = self.instant(at + CAR_DATA_DELAY + 0.4);
                self.feed.send(again, Record::CarData(sample.clone()));
            }
            self.feed.send(arrives, Record::CarData(sample));
        }
    }

    fn sample_locations(&mut self, at: f64, ahead: f64) {
        let date = self.stamp(at);
        let arrives = self.instant(at + LOCATION_DELAY);
        for i in 0..self.cars.len() {
            if let Some(lost) = self.dirt.loses_location() {
                self.telemetry.lost[i] = at + lost;
            }
            let reading = self.reading(i, ahead);
            let point = self.track.line.at(reading.s);
            let kick = self.telemetry.rng.random_range(-0.4..0.4);
            let stray = &mut self.telemetry.stray[i];
            *stray = (*stray * 0.9 + kick).clamp(-STRAY_M, STRAY_M);
            let lost = !reading.alive || at < self.telemetry.lost[i];
            let decimetres = |v: f64| if lost { 0 } else { (v * 10.0).round() as i32 };
            let stray = self.telemetry.stray[i];
            let location = Location {
                meeting_key: self.occasion.meeting_key,
                session_key: self.occasion.session_key,
                driver_number: self.cars[i].number(),
                date,
                x: Some(decimetres(point.x - stray * point.heading.sin())),
                y: Some(decimetres(point.y + stray * point.heading.cos())),
                z: Some(decimetres(point.z)),
            };
            if self.dirt.repeats() {
                let again = self.instant(at + LOCATION_DELAY + 0.4);
                self.feed.send(again, Record::Location(location.clone()));
            }
            self.feed.send(arrives, Record::Location(location));
        }
    }

    /// Temperatures follow the step.
    fn warm_up(&mut self) {
        for i in 0..self.cars.len() {
            let r = self.reading(i, DT / 2.0);
            let warmth = &mut self.telemetry.warmth[i];
            let work = r.lateral.abs() * r.speed / 20.0 + r.accel.abs() * r.speed / 40.0;
            for (corner, tyre) in warmth.tyres.iter_mut().enumerate() {
                // The outer side carries more; the driven end slips more.
                let outer = if (corner % 2 == 0) == (r.lateral < 0.0) {
                    1.25
                } else {
                    0.75
                };
                let driven = if corner >= 2 { 1.1 } else { 1.0 };
                let target = self.weather.track + 45.0 + work * outer * driven * 0.45;
                *tyre += (target - *tyre) * DT / 12.0;
            }
            for (end, brake) in warmth.brakes.iter_mut().enumerate() {
                let share = if end == 0 { 0.6 } else { 0.4 };
                let heat = if r.braking {
                    -r.accel.min(0.0) * r.speed * 0.55 * share
                } else {
                    0.0
                };
                let cooling = (*brake - self.weather.air) * (0.02 + 0.002 * r.speed);
                *brake = (*brake + (heat - cooling) * DT).clamp(20.0, 1200.0);
            }
            let spent = if r.throttle > 95.0 {
                -0.35
            } else if r.braking {
                0.9
            } else {
                0.05
            };
            warmth.charge = (warmth.charge + spent * DT).clamp(5.0, 100.0);
        }
    }

    fn sample_frames(&mut self, now: f64, end: f64) {
        let Some(options) = self.telemetry.frames.clone() else {
            return;
        };
        let period_us = options.period_us();
        let period = f64::from(period_us) / 1e6;
        loop {
            let at = self.telemetry.taken as f64 * period;
            // Half a microsecond: a step's end is not to be missed for rounding.
            if at >= end - 5e-7 {
                break;
            }
            for i in 0..self.cars.len() {
                let reading = self.reading(i, (at - now).max(0.0));
                self.push_sample(i, &reading);
            }
            self.telemetry.taken += 1;
            if self
                .telemetry
                .taken
                .is_multiple_of(u64::from(options.samples_per_frame))
            {
                self.flush_frames(&options, period_us, at);
            }
        }
    }

    fn push_sample(&mut self, i: usize, r: &Reading) {
        let telemetry = &mut self.telemetry;
        // One draw is noise enough for four sensors.
        let bits: u64 = telemetry.rng.random();
        let noise = |n: u32| f64::from((bits >> (16 * n)) as i16) / 32_768.0;
        let warmth = telemetry.warmth[i];
        let live = f64::from(u8::from(r.alive));
        let steering = if r.speed > 1.0 {
            r.lateral / (r.speed * r.speed) * STEERING
        } else {
            0.0
        };
        let brake = if r.braking {
            (-r.accel * 2.6).clamp(0.0, 140.0)
        } else {
            0.0
        };
        let values: [f64; CHANNELS.len()] = [
            (rpm(r.speed) + 25.0 * noise(0)) * live,
            (r.speed * 3.6 + 0.15 * noise(1)).max(0.0) * live,
            r.throttle,
            brake,
            f64::from(gear(r.speed)),
            steering + 0.8 * noise(2),
            r.accel + 0.35 * noise(3),
            r.lateral + 0.35 * noise(1),
            warmth.tyres[0] + 0.2 * noise(0),
            warmth.tyres[1] + 0.2 * noise(1),
            warmth.tyres[2] + 0.2 * noise(2),
            warmth.tyres[3] + 0.2 * noise(3),
            warmth.brakes[0] + noise(2),
            warmth.brakes[1] + noise(3),
            r.throttle * 1.0,
            warmth.charge,
        ];
        for (column, value) in telemetry.bursts[i].columns.iter_mut().zip(values) {
            column.push(value as f32);
        }
    }

    fn flush_frames(&mut self, options: &FrameOptions, period_us: u32, last: f64) {
        let samples = u64::from(options.samples_per_frame);
        let first_us = (self.telemetry.taken - samples) as i64 * i64::from(period_us);
        let first = crate::record::Time::from_micros(self.occasion.start.micros() + first_us);
        let arrives = self.instant(last + FRAME_DELAY);
        for i in 0..self.cars.len() {
            let number = self.cars[i].number();
            let burst = &mut self.telemetry.bursts[i];
            let mut builder = FrameBuilder::evenly(
                self.occasion.session_key,
                number,
                burst.sequence,
                first,
                period_us,
            );
            for (name, column) in CHANNELS.iter().zip(&mut burst.columns) {
                match *name {
                    "rpm" => {
                        let whole: Vec<u16> = column.iter().map(|v| *v as u16).collect();
                        builder.channel(name, &whole[..]);
                    }
                    "gear" => {
                        let whole: Vec<u8> = column.iter().map(|v| *v as u8).collect();
                        builder.channel(name, &whole[..]);
                    }
                    _ => {
                        builder.channel(name, &column[..]);
                    }
                }
                column.clear();
            }
            burst.sequence += 1;
            match builder.finish() {
                Ok(frame) => self.feed.send_frame(arrives, frame),
                // `FrameOptions` are checked before a session begins.
                Err(refused) => unreachable!("a frame of our own is refused: {refused}"),
            }
        }
    }
}
