//! How fast a car can go around a line: a point mass with grip, downforce, power, drag and brakes.
//!
//! One [`Profile`] a manner of driving (flying lap, standing start, in-lap, out-lap): time, speed
//! and pedals by distance. A car drives a profile more slowly by stretching its time: at a pace of
//! 1.03 every speed is a 1.03th, so that speed still integrates to the lap, sector times follow from
//! distance, and telemetry, location and timing cannot disagree.

use super::circuit::{Circuit, Line};

/// Gravity (m/s²).
const G: f64 = 9.81;
/// Mass of car, driver and a little fuel (kg).
const MASS: f64 = 800.0;
/// Grip of a tyre: side force over load.
const GRIP: f64 = 1.65;
/// Downforce over mass (1/m): at 80 m/s twice the weight.
const DOWNFORCE: f64 = 0.0032;
/// Drag over mass (1/m): 344 km/h at full power.
const DRAG: f64 = 0.001_05;
/// Power at the wheels (W).
const POWER: f64 = 735_000.0;
/// Hardest braking that a driver does (m/s²).
const MAX_BRAKING: f64 = 50.0;
/// Hardest traction out of corners (m/s²).
const MAX_TRACTION: f64 = 14.0;
/// Speed limit in the pit lane (m/s): 80 km/h.
pub const PIT_SPEED: f64 = 80.0 / 3.6;
/// Slowest that a profile goes (m/s): a standing start is over this in a tenth of a second.
const MIN_SPEED: f64 = 1.0;

/// The usual weather of a place.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// °C.
    pub air: f64,
    /// Track over air (°C).
    pub sun: f64,
    /// %.
    pub humidity: f64,
    /// mbar.
    pub pressure: f64,
}

impl Setting {
    pub const TEMPERATE: Setting = Setting {
        air: 21.0,
        sun: 12.0,
        humidity: 55.0,
        pressure: 1013.0,
    };
    pub const HOT: Setting = Setting {
        air: 29.0,
        sun: 18.0,
        humidity: 45.0,
        pressure: 1009.0,
    };
    pub const COOL: Setting = Setting {
        air: 15.0,
        sun: 8.0,
        humidity: 68.0,
        pressure: 1002.0,
    };
}

/// What a car does at a point of a profile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Motion {
    /// m after the line.
    pub s: f64,
    /// m/s.
    pub speed: f64,
    /// m/s², along and across (positive to the left).
    pub accel: f64,
    pub lateral: f64,
    /// %.
    pub throttle: f64,
    pub braking: bool,
}

/// A lap driven in one manner, by distance.
#[derive(Debug)]
pub struct Profile {
    step: f64,
    /// Seconds since the start of the lap at each point, one more than there are points.
    times: Vec<f64>,
    /// m/s at each point, likewise.
    speeds: Vec<f64>,
    /// 1/m at each point.
    curvatures: Vec<f64>,
    /// Where in `times` each hundredth of the lap's time begins: spares the binary search.
    index: Vec<u32>,
}

/// How a lap is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Flying,
    /// From a standstill on the line.
    Start,
    /// Into the pit lane at its end.
    In,
    /// Out of the pit lane at its beginning.
    Out,
    /// Both.
    OutIn,
}

impl Manner {
    pub const fn comes_out(self) -> bool {
        matches!(self, Manner::Out | Manner::OutIn)
    }

    pub const fn goes_in(self) -> bool {
        matches!(self, Manner::In | Manner::OutIn)
    }
}

/// Highest side acceleration at a speed (m/s²): `µ·(g + k·v²)`.
fn side_grip(v: f64) -> f64 {
    GRIP * (G + DOWNFORCE * v * v)
}

/// Share of grip that cornering leaves for accelerating: the friction circle.
fn left_over(v: f64, curvature: f64) -> f64 {
    let used = v * v * curvature.abs() / side_grip(v);
    (1.0 - used * used).max(0.0).sqrt()
}

/// Most acceleration and most deceleration at a speed on a curve (m/s², both positive).
fn pedals(v: f64, curvature: f64) -> (f64, f64) {
    let share = left_over(v, curvature);
    let drag = DRAG * v * v;
    let drive = (POWER / (MASS * v.max(MIN_SPEED))).min(MAX_TRACTION * share);
    let brakes = (side_grip(v) * share).min(MAX_BRAKING);
    ((drive - drag).max(-drag), brakes + drag)
}

impl Profile {
    /// Solves a lap: corner speeds, then what power allows forwards, then what brakes allow
    /// backwards; twice around where the lap flows into itself.
    pub fn solve(circuit: &Circuit, line: &Line, manner: Manner) -> Profile {
        let n = line.points.len();
        let ds = line.step;
        let pit = |i: usize| {
            let s = i as f64 * ds;
            (manner.comes_out() && s < circuit.pit_exit_m)
                || (manner.goes_in() && s > line.length - circuit.pit_entry_m)
        };
        let limit = |i: usize| {
            let k = line.points[i % n].curvature.abs();
            // v² = µ·g·R / (1 − µ·k·R), without bound where downforce outgrows the corner.
            let grip_left = k - GRIP * DOWNFORCE;
            let corner = if grip_left > 0.0 {
                (GRIP * G / grip_left).sqrt()
            } else {
                f64::MAX
            };
            if pit(i % n) {
                corner.min(PIT_SPEED)
            } else {
                corner
            }
            .min(105.0)
        };
        let mut speeds: Vec<f64> = (0..=n).map(limit).collect();
        let flows = manner == Manner::Flying;
        if manner == Manner::Start {
            speeds[0] = MIN_SPEED;
        }
        if manner == Manner::In {
            speeds[0] = Profile::solve(circuit, line, Manner::Flying).speeds[0];
        }
        if flows {
            // As fast as the straight before the line may allow; the first way around tells.
            speeds[0] = speeds[0].min(70.0);
        }
        for _ in 0..if flows { 2 } else { 1 } {
            for i in 0..n {
                let v = speeds[i];
                let (accel, _) = pedals(v, line.points[i].curvature);
                let reached = (v * v + 2.0 * accel * ds).max(MIN_SPEED * MIN_SPEED).sqrt();
                speeds[i + 1] = speeds[i + 1].min(reached);
            }
            if flows {
                // The end of this lap is the start of the next one.
                speeds[0] = speeds[n];
                for i in 0..n {
                    speeds[i + 1] = limit(i + 1);
                }
            }
        }
        for i in 0..n {
            let (accel, _) = pedals(speeds[i], line.points[i].curvature);
            let reached = (speeds[i].powi(2) + 2.0 * accel * ds)
                .max(MIN_SPEED * MIN_SPEED)
                .sqrt();
            speeds[i + 1] = speeds[i + 1].min(reached);
        }
        for i in (0..n).rev() {
            let v = speeds[i + 1];
            let (_, brakes) = pedals(v, line.points[i].curvature);
            speeds[i] = speeds[i].min((v * v + 2.0 * brakes * ds).sqrt());
        }
        let mut times = Vec::with_capacity(n + 1);
        let mut t = 0.0;
        times.push(t);
        for pair in speeds.windows(2) {
            t += 2.0 * ds / (pair[0] + pair[1]);
            times.push(t);
        }
        let hundredths = 256;
        let index = (0..hundredths)
            .map(|h| {
                let from = t * f64::from(h) / f64::from(hundredths);
                (times.partition_point(|x| *x <= from).saturating_sub(1)) as u32
            })
            .collect();
        let curvatures = line.points.iter().map(|p| p.curvature).collect();
        Profile {
            step: ds,
            times,
            speeds,
            curvatures,
            index,
        }
    }

    /// Time of the whole lap (s).
    pub fn duration(&self) -> f64 {
        self.times.last().copied().unwrap_or(0.0)
    }

    /// Time at which the car is `s` metres after the line (s).
    pub fn time_at(&self, s: f64) -> f64 {
        let along = (s / self.step).clamp(0.0, (self.times.len() - 1) as f64);
        let i = (along as usize).min(self.times.len() - 2);
        let part = (along - i as f64) * self.step;
        let (v0, v1) = (self.speeds[i], self.speeds[i + 1]);
        // Constant acceleration within a step: part = v0·t + a·t²/2.
        let v = (v0 * v0 + (v1 * v1 - v0 * v0) * part / self.step).sqrt();
        self.times[i] + 2.0 * part / (v0 + v)
    }

    /// Where the car is and what it does at `t` seconds into the lap; beyond its end it rolls on.
    pub fn at(&self, t: f64) -> Motion {
        let last = self.times.len() - 2;
        let total = self.duration();
        let slot = (t / total * self.index.len() as f64).clamp(0.0, self.index.len() as f64 - 1.0);
        let mut i = self.index[slot as usize] as usize;
        while i < last && self.times[i + 1] <= t {
            i += 1;
        }
        let (v0, v1) = (self.speeds[i], self.speeds[i + 1]);
        let accel = (v1 * v1 - v0 * v0) / (2.0 * self.step);
        let into = (t - self.times[i]).max(0.0);
        let within = into.min(self.times[i + 1] - self.times[i]);
        let speed = v0 + accel * within;
        let s =
            i as f64 * self.step + (v0 + accel * within / 2.0) * within + speed * (into - within);
        let curvature = self.curvatures[i];
        let (most, hardest) = pedals(speed, curvature);
        let drag = DRAG * speed * speed;
        Motion {
            s,
            speed,
            accel,
            lateral: speed * speed * curvature,
            throttle: if accel > -drag {
                (100.0 * (accel + drag) / (most + drag).max(0.1)).clamp(0.0, 100.0)
            } else {
                0.0
            },
            braking: accel < -drag - 0.06 * hardest,
        }
    }
}

/// Gear at a speed (m/s), 1 to 8; 0 at a standstill.
pub fn gear(speed: f64) -> u8 {
    const UP: [f64; 7] = [23.0, 31.0, 40.0, 50.0, 60.0, 70.0, 79.0];
    if speed < 0.5 {
        0
    } else {
        1 + UP.iter().filter(|v| speed > **v).count() as u8
    }
}

/// Engine speed (1/min) in the gear of that speed.
pub fn rpm(speed: f64) -> f64 {
    // At 11,900 1/min each gear runs at these speeds (m/s).
    const TOP: [f64; 9] = [1.0, 25.5, 34.0, 43.5, 54.0, 64.5, 75.0, 84.5, 100.0];
    let gear = gear(speed) as usize;
    if gear == 0 {
        4000.0
    } else {
        (11_900.0 * speed / TOP[gear]).max(4800.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::circuit::CIRCUITS;

    #[test]
    fn speed_integrates_to_the_lap_and_laps_are_plausible() {
        for circuit in &CIRCUITS {
            let line = Line::of(circuit);
            let profile = Profile::solve(circuit, &line, Manner::Flying);
            let lap = profile.duration();
            assert!((62.0..115.0).contains(&lap), "{}: {lap} s", circuit.name);
            let dt = 0.01;
            let driven: f64 = (0..(lap / dt) as usize)
                .map(|i| profile.at(i as f64 * dt).speed * dt)
                .sum();
            assert!(
                (driven / line.length - 1.0).abs() < 0.002,
                "{}: {driven}",
                circuit.name
            );
            let (mut top, mut slow, mut side) = (0.0_f64, 99.0_f64, 0.0_f64);
            for i in 0..(lap / dt) as usize {
                let m = profile.at(i as f64 * dt);
                (top, slow) = (top.max(m.speed), slow.min(m.speed));
                side = side.max(m.lateral.abs());
            }
            assert!((78.0..98.0).contains(&top), "{}: {top} m/s", circuit.name);
            assert!((11.0..30.0).contains(&slow), "{}: {slow} m/s", circuit.name);
            assert!(side < 6.0 * G, "{}: {side} m/s²", circuit.name);
            for s in [0.0, 1.0, 777.7, line.length - 0.1] {
                let there = profile.at(profile.time_at(s)).s;
                assert!((there - s).abs() < 1e-6, "{s} {there}");
            }
        }
    }

    #[test]
    fn the_pit_lane_is_driven_at_its_limit_and_costs_what_it_costs() {
        for circuit in &CIRCUITS {
            let line = Line::of(circuit);
            let [flying, inward, out] = [Manner::Flying, Manner::In, Manner::Out]
                .map(|m| Profile::solve(circuit, &line, m));
            let lane = (inward.duration()
                - inward.time_at(line.length - circuit.pit_entry_m + 5.0))
                + out.time_at(circuit.pit_exit_m - 5.0);
            assert!(
                (18.0..27.0).contains(&lane),
                "{}: {lane} s in the lane",
                circuit.name
            );
            let loss = inward.duration() + out.duration() - 2.0 * flying.duration();
            assert!(
                (9.0..22.0).contains(&loss),
                "{}: {loss} s lost",
                circuit.name
            );
            assert!(out.at(1.0).speed <= PIT_SPEED + 1e-9);
        }
    }
}
