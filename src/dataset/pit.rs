//! Pit samples: what was known about each car's next stop at every line it crossed, and when it stopped.
//!
//! A row is made when a car ends a lap, from what was known then; the truth stands beside it and is in no
//! feature. A row is judged, as live grading does it, if the car went on for three laps more or to the flag
//! and neither of the next two laps saw a red flag.

use super::features::Writer;
use super::race::{CarData, RaceData};
use super::walk::Walk;
use crate::predict::distance::Distance;
use crate::predict::features::pit::{FEATURES, NAMES, VERSION, row};
use crate::predict::floor::{Floor, compound_index};
use crate::predict::pit::{self, Stop};
use crate::race::{Event, TrackStatus};

/// What stands beside the features of a row. `laps_to_stop` is 1 for a stop at the end of the next lap,
/// 0 where none came; `laps_seen` is for how many laps from the row on a stop would have been seen: up to the
/// stop, a red flag (under which a change of tyres is no stop), or the car's last lap; `next_compound` is the compound's index, -1 where there is none.
pub const META_COLUMNS: &[&str] = &[
    "season",
    "round",
    "car",
    "lap",
    "graded",
    "laps_to_stop",
    "laps_seen",
    "next_compound",
    "stint_start",
];
/// Laps after a row at which "within two laps" is settled.
const SETTLED_AFTER: u16 = 3;

/// One row: a car at the line.
#[derive(Clone, Debug)]
pub struct Sample {
    pub car: u8,
    /// Laps completed.
    pub lap: u16,
    pub features: [f32; FEATURES],
    /// Whether "boxes within two laps" is judged.
    pub graded: bool,
    /// Laps until the next in-lap; `None` where none came, or none before a red flag.
    pub laps_to_stop: Option<u16>,
    /// Laps until that stop, a red flag or the car's last lap.
    pub laps_seen: u16,
    /// What it took at that stop (index), where it went on.
    pub next_compound: Option<usize>,
    /// First lap of the stint it is in.
    pub stint_start: u16,
    /// What the floor says.
    pub floor: Option<Stop>,
}

impl Sample {
    /// Whether it boxed at the end of one of the next `laps` laps.
    pub fn stops_within(&self, laps: u16) -> bool {
        self.laps_to_stop.is_some_and(|n| n <= laps)
    }
}

/// All rows of a race, in the order in which they came to be.
pub fn samples(race: &RaceData, floor: &Floor) -> Vec<Sample> {
    let mut samples = Vec::new();
    Walk::new(race).each(|view, _, events| {
        for event in events {
            let Event::LapCompleted { driver_number, lap } = *event else {
                continue;
            };
            let (Some(car), Some(data)) = (view.car(driver_number), race.car(driver_number)) else {
                continue;
            };
            let distance = Distance::of(view, floor, race.calendar.lap_km, 0.0);
            let Some(features) = row(view, car, &distance) else {
                continue;
            };
            let stint = car.last().map_or(0, |l| l.stint);
            let start = car.laps.iter().find(|l| l.stint == stint);
            samples.push(Sample {
                features,
                stint_start: start.map_or(lap, |l| l.number),
                floor: pit::predict(view, car, &distance, floor),
                ..truth(data, lap, race.finished(data))
            });
        }
    });
    samples
}

/// What came after that lap.
fn truth(car: &CarData, lap: u16, finished: bool) -> Sample {
    let last = car.laps.last().map_or(0, |l| l.lap);
    let halted = |l: &super::LapRow| l.statuses & TrackStatus::Red.bit() != 0;
    let next = [car.lap(lap + 1), car.lap(lap + 2)];
    let red = next.iter().flatten().any(|l| halted(l));
    let after = car.laps.iter().filter(|l| l.lap > lap);
    let end = after.clone().find(|l| l.is_in || halted(l));
    let stop = end.filter(|l| !halted(l));
    let seen = match (end, stop) {
        (_, Some(stop)) => stop.lap - lap,
        (Some(red), None) => red.lap - lap - 1,
        (None, None) => after.last().map_or(0, |l| l.lap - lap),
    };
    let fitted = stop.and_then(|s| car.lap(s.lap + 1));
    Sample {
        car: car.number,
        lap,
        features: [0.0; FEATURES],
        graded: (finished || last >= lap + SETTLED_AFTER) && !red,
        laps_to_stop: stop.map(|s| s.lap - lap),
        laps_seen: seen,
        next_compound: fitted.and_then(|l| compound_index(l.compound)),
        stint_start: lap,
        floor: None,
    }
}

/// Collects the rows of many races and writes them.
#[derive(Default)]
pub struct Collector {
    features: Vec<f32>,
    meta: Vec<f32>,
    races: Vec<String>,
}

impl Collector {
    /// Adds a race's rows.
    pub fn add(&mut self, race: &RaceData, samples: &[Sample]) {
        self.races.push(race.title());
        for s in samples {
            self.features.extend(s.features);
            self.meta.extend([
                f32::from(race.season),
                f32::from(race.round),
                f32::from(s.car),
                f32::from(s.lap),
                f32::from(u8::from(s.graded)),
                f32::from(s.laps_to_stop.unwrap_or(0)),
                f32::from(s.laps_seen),
                s.next_compound.map_or(-1.0, |k| k as f32),
                f32::from(s.stint_start),
            ]);
        }
    }

    /// Writes `x.npy`, `meta.npy` and `schema.json` into `folder`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, folder: &std::path::Path) -> std::io::Result<()> {
        let mut writer = Writer::create(folder, "pit", VERSION)?;
        let rows = self.features.len() / FEATURES;
        writer.array("x", &[rows, FEATURES], &NAMES, &self.features)?;
        let columns = META_COLUMNS.len();
        writer.array("meta", &[rows, columns], META_COLUMNS, &self.meta)?;
        writer.finish(serde_json::json!({ "races": self.races }))
    }
}
