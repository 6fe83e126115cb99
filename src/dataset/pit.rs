//! Pit samples: what was known about each car's next stop at every line it crossed, and when it stopped.
//!
//! A row is made when a car ends a lap, from what was known then; the truth stands beside it and is in no
//! feature. A row is judged, as live grading does it, if the car went on for three laps more or to the flag
//! and neither of the next two laps saw a red flag.

use super::features::Writer;
use super::race::{CarData, RaceData};
use super::walk::Walk;
use crate::predict::distance::{Distance, LapKm};
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
            let length = LapKm::of_calendar(race.calendar.lap_km);
            let distance = Distance::of(view, floor, length, 0.0);
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
    let mut after = car.laps.iter().filter(|l| l.lap > lap);
    let end = after.clone().find(|l| l.is_in || halted(l));
    let stop = end.filter(|l| !halted(l));
    let seen = match (end, stop) {
        (_, Some(stop)) => stop.lap - lap,
        (Some(red), None) => red.lap - lap - 1,
        (None, None) => after.next_back().map_or(0, |l| l.lap - lap),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::LapRow;
    use crate::race::Compound;

    /// A race of `cars` cars over `laps` laps; each boxes at the end of the lap that `stop` says.
    fn race(cars: u8, laps: u16, stop: impl Fn(u8) -> u16) -> RaceData {
        let mut race = RaceData {
            season: 2031,
            round: 1,
            session_clock: true,
            ..RaceData::default()
        };
        for number in 1..=cars {
            let mut car = CarData {
                number,
                team: format!("team {}", number / 2),
                grid: Some(number),
                ..CarData::default()
            };
            let mut end = 3600.0 + f64::from(number);
            for lap in 1..=laps {
                let (in_lap, out_lap) = (lap == stop(number), lap == stop(number) + 1);
                let age = if lap > stop(number) {
                    lap - stop(number)
                } else {
                    lap
                };
                let time = 90.0
                    + 0.05 * f64::from(age)
                    + 0.02 * f64::from(number)
                    + if out_lap { 20.0 } else { 0.0 };
                end += time;
                car.laps.push(LapRow {
                    number,
                    lap,
                    time_s: Some(time),
                    end_s: Some(end),
                    compound: if lap > stop(number) {
                        Compound::Hard
                    } else {
                        Compound::Medium
                    },
                    tyre_age: Some(age),
                    is_in: in_lap,
                    is_out: out_lap,
                    statuses: TrackStatus::Clear.bit(),
                    clear: true,
                    stint: Some(1 + u8::from(lap > stop(number))),
                    ..LapRow::default()
                });
            }
            race.cars.push(car);
        }
        race
    }

    fn rows(race: &RaceData) -> Vec<(u8, u16, [u32; FEATURES])> {
        let samples = samples(race, &Floor::shipped());
        samples
            .iter()
            .map(|s| (s.car, s.lap, s.features.map(f32::to_bits)))
            .collect()
    }

    #[test]
    fn the_truth_by_hand() {
        let race = race(4, 50, |n| 20 + u16::from(n));
        let samples = samples(&race, &Floor::shipped());
        let of = |car: u8, lap: u16| samples.iter().find(|s| s.car == car && s.lap == lap);
        let before = of(2, 20).unwrap();
        assert_eq!(
            (before.laps_to_stop, before.laps_seen, before.next_compound),
            (Some(2), 2, Some(2))
        );
        assert!(before.graded && before.stops_within(2) && !before.stops_within(1));
        assert!(of(2, 22).is_none(), "in the pit lane nothing is asked");
        let after = of(2, 30).unwrap();
        assert_eq!(
            (after.laps_to_stop, after.laps_seen, after.stint_start),
            (None, 20, 23)
        );
    }

    /// The property that matters: whatever is changed after a moment, what was said until then stays the same.
    #[test]
    fn the_future_changes_no_row() {
        let original = race(6, 40, |n| 15 + 2 * u16::from(n));
        let all = rows(&original);
        for cut in [5_u16, 16, 22, 30] {
            let mut other = original.clone();
            // From the moment car 1 ends that lap, everything is different.
            let moment = original.cars[0].laps[usize::from(cut) - 1].end_s.unwrap();
            for lap in other.cars.iter_mut().flat_map(|c| &mut c.laps) {
                if lap.end_s.unwrap() > moment {
                    lap.end_s = lap.end_s.map(|t| t + 7.0);
                    lap.time_s = lap.time_s.map(|t| t + 3.0);
                    lap.is_in = !lap.is_in;
                    lap.compound = Compound::Soft;
                    lap.tyre_age = Some(3);
                    lap.statuses = TrackStatus::SafetyCar.bit();
                    lap.status_at_end = TrackStatus::SafetyCar;
                    lap.clear = false;
                }
            }
            let known = |row: &&(u8, u16, [u32; FEATURES])| {
                let car = &original.cars[usize::from(row.0) - 1];
                car.laps[usize::from(row.1) - 1].end_s.unwrap() <= moment
            };
            let changed = rows(&other);
            let before: Vec<_> = all.iter().filter(known).collect();
            let after: Vec<_> = changed.iter().filter(known).collect();
            assert!(before.len() > 4 * usize::from(cut - 1), "{}", before.len());
            assert_eq!(before, after, "cut at lap {cut}");
        }
    }

    #[test]
    fn every_column_is_filled_or_not_known() {
        let race = race(6, 40, |n| 15 + 2 * u16::from(n));
        let samples = samples(&race, &Floor::shipped());
        for (column, name) in NAMES.iter().enumerate() {
            let known = samples
                .iter()
                .filter(|s| s.features[column].is_finite())
                .count();
            let weather = matches!(*name, "track_c" | "other_kind_faster_share");
            assert_eq!(known == 0, weather, "{name}");
        }
    }
}
