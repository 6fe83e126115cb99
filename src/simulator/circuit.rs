//! Circuits of our own invention, from straights and corners to a closed centre line.
//!
//! A circuit is a list of sections; its corners turn through ±360° in all, and two of its straights
//! were chosen so that the line closes. What is left of the rounding (under two metres) is spread
//! along the lap.

use super::physics::Setting;

/// A piece of road.
#[derive(Clone, Copy, Debug)]
pub enum Section {
    /// A straight: length (m).
    S(f64),
    /// A corner: radius (m), angle (°, positive to the left).
    C(f64, f64),
}
use Section::{C, S};

/// An invented circuit. Lines are given as fractions of a lap.
#[derive(Debug)]
pub struct Circuit {
    pub key: i32,
    /// As on the command line.
    pub name: &'static str,
    pub short_name: &'static str,
    pub location: &'static str,
    pub country_code: &'static str,
    pub country_name: &'static str,
    pub gmt_offset: &'static str,
    /// Laps of a race of full length.
    pub laps: u16,
    pub sections: &'static [Section],
    /// Ends of sectors 1 and 2.
    pub sector_ends: [f64; 2],
    /// Mini-sectors of each sector.
    pub mini_sectors: [usize; 3],
    /// Start and end of each DRS zone.
    pub drs: &'static [(f64, f64)],
    /// Pit entry before the line and pit exit after it (m).
    pub pit_entry_m: f64,
    pub pit_exit_m: f64,
    /// Chance that a car half a second a lap quicker gets past in a DRS zone.
    pub overtaking: f64,
    /// Tyre wear against the usual.
    pub wear: f64,
    /// Height of the hills (m).
    pub hills_m: f64,
    pub setting: Setting,
}

/// Every circuit there is.
pub static CIRCUITS: [Circuit; 4] = [
    Circuit {
        key: 901,
        name: "halmstrand",
        short_name: "Halmstrand",
        location: "Halmstrand",
        country_code: "NHL",
        country_name: "Norhalm",
        gmt_offset: "02:00:00",
        laps: 57,
        sections: &[
            S(300.0),
            C(25.0, -70.0),
            S(150.0),
            C(18.0, 90.0),
            S(120.0),
            C(130.0, 70.0),
            S(90.0),
            C(35.0, 95.0),
            S(910.2),
            C(50.0, -170.0),
            S(60.0),
            C(60.0, 45.0),
            S(120.0),
            C(90.0, 45.0),
            S(60.0),
            C(25.0, 150.0),
            S(120.0),
            C(60.0, -60.0),
            S(600.0),
            C(220.0, 25.0),
            S(90.0),
            C(25.0, -80.0),
            S(90.0),
            C(25.0, 170.0),
            S(658.6),
            C(50.0, 110.0),
            S(150.0),
            C(220.0, 35.0),
            S(200.0),
            C(18.0, -95.0),
            S(600.0),
        ],
        sector_ends: [0.33, 0.68],
        mini_sectors: [8, 9, 8],
        drs: &[(0.17, 0.28), (0.60, 0.68), (0.92, 1.0)],
        pit_entry_m: 255.0,
        pit_exit_m: 225.0,
        overtaking: 0.30,
        wear: 1.1,
        hills_m: 8.0,
        setting: Setting::TEMPERATE,
    },
    Circuit {
        key: 902,
        name: "costa-brisa",
        short_name: "Costa Brisa",
        location: "Porto Brisa",
        country_code: "BRS",
        country_name: "Brisa",
        gmt_offset: "01:00:00",
        laps: 58,
        sections: &[
            S(400.0),
            C(50.0, 120.0),
            S(60.0),
            C(60.0, -70.0),
            S(600.0),
            C(130.0, -80.0),
            S(260.0),
            C(35.0, 110.0),
            S(90.0),
            C(60.0, 70.0),
            S(200.0),
            C(220.0, 40.0),
            S(899.1),
            C(25.0, 80.0),
            S(260.0),
            C(90.0, 60.0),
            S(90.0),
            C(25.0, -170.0),
            S(600.0),
            C(14.0, 110.0),
            S(413.8),
            C(25.0, 90.0),
            S(450.0),
        ],
        sector_ends: [0.36, 0.66],
        mini_sectors: [8, 8, 7],
        drs: &[(0.47, 0.60), (0.92, 1.0)],
        pit_entry_m: 260.0,
        pit_exit_m: 235.0,
        overtaking: 0.36,
        wear: 0.9,
        hills_m: 15.0,
        setting: Setting::HOT,
    },
    Circuit {
        key: 903,
        name: "kestrel-park",
        short_name: "Kestrel Park",
        location: "Great Kestrel",
        country_code: "KST",
        country_name: "Kestrelland",
        gmt_offset: "00:00:00",
        laps: 53,
        sections: &[
            S(400.0),
            C(14.0, -170.0),
            S(150.0),
            C(90.0, 45.0),
            S(60.0),
            C(18.0, 95.0),
            S(600.0),
            C(25.0, 120.0),
            S(450.0),
            C(130.0, 70.0),
            S(450.0),
            C(25.0, -170.0),
            S(150.0),
            C(60.0, 40.0),
            S(90.0),
            C(90.0, 80.0),
            S(488.8),
            C(25.0, 90.0),
            S(373.6),
            C(90.0, 40.0),
            S(120.0),
            C(60.0, 35.0),
            S(60.0),
            C(220.0, -45.0),
            S(120.0),
            C(130.0, -70.0),
            S(90.0),
            C(25.0, 150.0),
            S(120.0),
            C(25.0, 80.0),
            S(120.0),
            C(18.0, -150.0),
            S(200.0),
            C(25.0, 120.0),
            S(350.0),
        ],
        sector_ends: [0.30, 0.64],
        mini_sectors: [7, 9, 9],
        drs: &[(0.14, 0.24), (0.52, 0.59)],
        pit_entry_m: 250.0,
        pit_exit_m: 245.0,
        overtaking: 0.24,
        wear: 1.0,
        hills_m: 22.0,
        setting: Setting::COOL,
    },
    Circuit {
        key: 904,
        name: "monte-ferro",
        short_name: "Monte Ferro",
        location: "Ferro",
        country_code: "FER",
        country_name: "Ferria",
        gmt_offset: "02:00:00",
        laps: 66,
        sections: &[
            S(300.0),
            C(35.0, 120.0),
            S(150.0),
            C(220.0, 25.0),
            S(60.0),
            C(35.0, -110.0),
            S(90.0),
            C(60.0, 65.0),
            S(90.0),
            C(60.0, -40.0),
            S(260.0),
            C(60.0, 25.0),
            S(260.0),
            C(25.0, 90.0),
            S(880.1),
            C(18.0, 90.0),
            S(859.6),
            C(35.0, 95.0),
            S(90.0),
            C(50.0, -150.0),
            S(200.0),
            C(50.0, 150.0),
            S(600.0),
        ],
        sector_ends: [0.34, 0.70],
        mini_sectors: [7, 8, 7],
        drs: &[(0.42, 0.56), (0.60, 0.73), (0.90, 1.0)],
        pit_entry_m: 270.0,
        pit_exit_m: 220.0,
        overtaking: 0.42,
        wear: 0.85,
        hills_m: 30.0,
        setting: Setting::HOT,
    },
];

impl Circuit {
    /// The circuit of that name, as `--list-circuits` writes it.
    pub fn named(name: &str) -> Option<&'static Circuit> {
        CIRCUITS.iter().find(|c| c.name.eq_ignore_ascii_case(name))
    }
}

/// A point of the centre line.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// m, east and north of somewhere in the infield.
    pub x: f64,
    pub y: f64,
    pub z: f64,
    /// Direction of driving (rad).
    pub heading: f64,
    /// 1/m, positive to the left.
    pub curvature: f64,
}

/// A closed centre line at equal steps.
#[derive(Debug)]
pub struct Line {
    /// m.
    pub length: f64,
    /// m between points.
    pub step: f64,
    pub points: Vec<Point>,
}

/// Distance between points of the line that is aimed at (m).
const STEP_M: f64 = 4.0;

impl Line {
    /// Integrates curvature to heading and heading to place, and closes what rounding left open.
    pub fn of(circuit: &Circuit) -> Line {
        let length: f64 = circuit.sections.iter().map(|s| s.length()).sum();
        let n = (length / STEP_M).round() as usize;
        let step = length / n as f64;
        let mut points = Vec::with_capacity(n);
        let (mut x, mut y, mut heading) = (0.0, 0.0, 0.0_f64);
        for i in 0..n {
            let from = i as f64 * step;
            let curvature = curvature(circuit.sections, from, step);
            points.push(Point {
                x,
                y,
                z: 0.0,
                heading,
                curvature,
            });
            let middle = heading + curvature * step / 2.0;
            x += step * middle.cos();
            y += step * middle.sin();
            heading += curvature * step;
        }
        let (gap_x, gap_y) = (x, y);
        let centre_x = points.iter().map(|p| p.x).sum::<f64>() / n as f64;
        let centre_y = points.iter().map(|p| p.y).sum::<f64>() / n as f64;
        for (i, p) in points.iter_mut().enumerate() {
            let done = i as f64 / n as f64;
            p.x -= gap_x * done + centre_x;
            p.y -= gap_y * done + centre_y;
            let turn = std::f64::consts::TAU * done;
            p.z = circuit.hills_m * ((turn + 1.0).sin() + 0.5 * (2.0 * turn).sin()) / 1.5;
        }
        Line {
            length,
            step,
            points,
        }
    }

    /// The place at `s` metres after the line.
    pub fn at(&self, s: f64) -> Point {
        let n = self.points.len();
        let along = s.rem_euclid(self.length) / self.step;
        let i = (along as usize).min(n - 1);
        let part = along - i as f64;
        let (a, b) = (self.points[i], self.points[(i + 1) % n]);
        Point {
            x: a.x + (b.x - a.x) * part,
            y: a.y + (b.y - a.y) * part,
            z: a.z + (b.z - a.z) * part,
            ..a
        }
    }
}

impl Section {
    fn length(self) -> f64 {
        match self {
            S(length) => length,
            C(radius, angle) => radius * angle.to_radians().abs(),
        }
    }

    fn curvature(self) -> f64 {
        match self {
            S(_) => 0.0,
            C(radius, angle) => angle.signum() / radius,
        }
    }
}

/// Mean curvature from `from` over the next `step` metres: the mean keeps the sum of angles exact.
fn curvature(sections: &[Section], from: f64, step: f64) -> f64 {
    let (mut at, mut turned) = (0.0, 0.0);
    for section in sections {
        let end = at + section.length();
        let shared = (end.min(from + step) - at.max(from)).max(0.0);
        turned += section.curvature() * shared;
        at = end;
    }
    turned / step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_circuit_closes_and_is_as_long_as_its_sections() {
        for circuit in &CIRCUITS {
            let turned: f64 = circuit
                .sections
                .iter()
                .map(|s| if let C(_, angle) = s { *angle } else { 0.0 })
                .sum();
            assert_eq!(turned, 360.0, "{}", circuit.name);
            let line = Line::of(circuit);
            assert!((4000.0..6500.0).contains(&line.length), "{}", line.length);
            let around: f64 = (0..line.points.len())
                .map(|i| {
                    let (a, b) = (line.points[i], line.points[(i + 1) % line.points.len()]);
                    (a.x - b.x).hypot(a.y - b.y)
                })
                .sum();
            // Chords of 4 m are shorter than their arcs, most of all in hairpins.
            assert!(
                (around / line.length - 1.0).abs() < 0.004,
                "{} {around}",
                circuit.name
            );
            assert_eq!(
                Circuit::named(circuit.name).map(|c| c.key),
                Some(circuit.key)
            );
        }
    }
}
