//! Lap time samples: every car's race as one sequence of rows, each with the lap that came next.
//!
//! A row is made when a lap ends and completed with what was known after sectors 1 and 2 of the next. What
//! the truth was stands beside it and is in no feature.

use super::features::Writer;
use super::race::RaceData;
use super::walk::Walk;
use crate::predict::distance::{Distance, LapKm};
use crate::predict::features::laptime::{
    LINE, LINE_COLUMNS, SECTOR, SECTOR_COLUMNS, Sector, VERSION, line, sector,
};
use crate::predict::floor::Floor;
use crate::race::Event;

/// What stands beside the features of a row.
pub const META_COLUMNS: &[&str] = &[
    "season",
    "round",
    "car",
    "sequence",
    "lap",
    "base_s",
    "truth_s",
    "graded",
    "racing",
    "flying",
    "plain_0_s",
    "plain_1_s",
    "plain_2_s",
    "base_1_s",
    "base_2_s",
    "median_s",
];

/// One row: a lap that ended, and the next.
#[derive(Clone, Debug)]
pub struct Sample {
    pub car: u8,
    /// Number of the completed lap; what is predicted is the next one.
    pub lap: u16,
    pub base_s: f64,
    pub flying: bool,
    pub line: [f32; LINE],
    /// After sectors 1 and 2 of the next lap.
    pub sectors: [Option<Sector>; 2],
    /// Time of the next lap (s).
    pub truth_s: Option<f64>,
    /// Whether the next lap is one that is judged: clean, with a clean lap before it in its stint.
    pub graded: bool,
    /// Whether the next lap was driven at racing pace: green, neither in- nor out-lap.
    pub racing: bool,
    /// The baseline: the clean lap before, with 0, 1, 2 known sectors in place of its own (s).
    pub plain_s: [Option<f64>; 3],
    /// The other baseline: median of the last three clean laps of the stint (s).
    pub median_s: Option<f64>,
}

/// All rows of a race: by car, then by lap.
pub fn samples(race: &RaceData, floor: &Floor) -> Vec<Vec<Sample>> {
    let mut cars: Vec<Vec<Sample>> = vec![Vec::new(); race.cars.len()];
    Walk::new(race).each(|view, _, events| {
        for event in events {
            match *event {
                Event::LapCompleted { driver_number, lap } => {
                    let Some(at) = place(race, driver_number) else {
                        continue;
                    };
                    let length = LapKm::of_calendar(race.calendar.lap_km);
                    let laps = Distance::of(view, floor, length, 0.0).laps;
                    let Some(made) = line(view, &view.cars[at], laps) else {
                        continue;
                    };
                    let mut sample = truth(race, at, lap);
                    sample.base_s = made.base_s;
                    sample.flying = made.flying;
                    sample.line = made.x;
                    cars[at].push(sample);
                }
                Event::SectorCompleted {
                    driver_number,
                    lap,
                    sector: n @ 1..=2,
                } => {
                    let Some(at) = place(race, driver_number) else {
                        continue;
                    };
                    let open = cars[at].last_mut().filter(|s| s.lap + 1 == lap);
                    if let Some(sample) = open {
                        sample.sectors[usize::from(n) - 1] =
                            sector(view, &view.cars[at], usize::from(n));
                    }
                }
                _ => {}
            }
        }
    });
    cars
}

fn place(race: &RaceData, car: u8) -> Option<usize> {
    race.cars.binary_search_by_key(&car, |c| c.number).ok()
}

/// What came after that lap, and the baselines.
fn truth(race: &RaceData, car: usize, lap: u16) -> Sample {
    let data = &race.cars[car];
    let next = data.laps.binary_search_by_key(&(lap + 1), |l| l.lap).ok();
    let row = next.map(|at| &data.laps[at]);
    let before = next
        .and_then(|at| data.clean_before(at))
        .map(|at| &data.laps[at]);
    let plain = |sectors: usize| {
        let (row, old) = (row?, before?);
        Some(old.time_s? + row.first_sectors(sectors)? - old.first_sectors(sectors)?)
    };
    let stint: Vec<f64> = match (next, row) {
        (Some(at), Some(row)) => data.laps[..at]
            .iter()
            .rev()
            .filter(|l| l.is_clean())
            .take_while(|l| l.stint == row.stint)
            .take(3)
            .filter_map(|l| l.time_s)
            .collect(),
        _ => Vec::new(),
    };
    let green = |l: &super::LapRow| l.clear && !l.is_in && !l.is_out && l.lap > 1;
    Sample {
        car: data.number,
        lap,
        base_s: 0.0,
        flying: false,
        line: [0.0; LINE],
        sectors: [None, None],
        truth_s: row.and_then(|r| r.time_s),
        graded: before.is_some(),
        racing: row.is_some_and(|r| green(r) && r.time_s.is_some()),
        plain_s: [plain(0), plain(1), plain(2)],
        median_s: crate::predict::laptime::median(&mut stint.clone()),
    }
}

/// Collects the rows of many races and writes them.
#[derive(Default)]
pub struct Collector {
    line: Vec<f32>,
    sectors: [Vec<f32>; 2],
    meta: Vec<f32>,
    sequences: usize,
    races: Vec<String>,
}

impl Collector {
    /// Adds the rows of one race.
    pub fn add(&mut self, race: &RaceData, cars: &[Vec<Sample>]) {
        self.races.push(race.title());
        for rows in cars.iter().filter(|r| !r.is_empty()) {
            for row in rows {
                self.line.extend(row.line);
                for (all, own) in self.sectors.iter_mut().zip(&row.sectors) {
                    all.extend(own.as_ref().map_or([0.0; SECTOR], |s| s.x));
                }
                let number = |v: Option<f64>| v.map_or(f32::NAN, |v| v as f32);
                let flag = |b: bool| f32::from(u8::from(b));
                self.meta.extend([
                    f32::from(race.season),
                    f32::from(race.round),
                    f32::from(row.car),
                    self.sequences as f32,
                    f32::from(row.lap),
                    row.base_s as f32,
                    number(row.truth_s),
                    flag(row.graded),
                    flag(row.racing),
                    flag(row.flying),
                    number(row.plain_s[0]),
                    number(row.plain_s[1]),
                    number(row.plain_s[2]),
                    number(row.sectors[0].as_ref().map(|s| s.base_s)),
                    number(row.sectors[1].as_ref().map(|s| s.base_s)),
                    number(row.median_s),
                ]);
            }
            self.sequences += 1;
        }
    }

    /// Writes `line`, `sector1`, `sector2` and `meta`, all with one row a lap, sequences one after another.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &std::path::Path) -> std::io::Result<()> {
        let mut writer = Writer::create(folder, "laptime", VERSION)?;
        let rows = self.meta.len() / META_COLUMNS.len();
        writer.array("line", &[rows, LINE], LINE_COLUMNS, &self.line)?;
        for (n, values) in [1, 2].iter().zip(&self.sectors) {
            let name = format!("sector{n}");
            writer.array(&name, &[rows, SECTOR], SECTOR_COLUMNS, values)?;
        }
        let width = META_COLUMNS.len();
        writer.array("meta", &[rows, width], META_COLUMNS, &self.meta)?;
        writer.finish(serde_json::json!({ "races": self.races, "sequences": self.sequences }))
    }
}
