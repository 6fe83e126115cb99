//! What the laps of one race say about each driver.
//!
//! A clean lap is taken apart, over the whole field at once, by least squares:
//!
//! ```text
//! t(i, n) = pace(i) + fuel·n + offset(compound) + wear(compound)·age + ε
//! ```
//!
//! `pace` is then free of fuel and tyres: what is left of a driver in his car. Laps more than [`SLOW`] over the
//! driver's median are left out (traffic jams, mistakes), and so is who has fewer than [`FEW_LAPS`].
//!
//! - **Pace** (s a lap): against the field's median driver; below 0 is quicker.
//! - **Consistency** (s): 1.48 × median absolute residual within a stint: what his laps scatter by.
//! - **Tyres** (s per lap of age): how his laps grow with age beyond the field's wear; below 0 is kinder. Both are
//!   of [`super::stints`], for all stints of all races at once, on whichever backend.
//! - **Sectors** (s): his median against that of the field's median driver, over clean laps.
//! - **Teammate**: difference of pace (s a lap), and laps of the same number on which he was quicker.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fit::{Regression, median};
use super::stints::{Stints, Tyres};
use crate::compute::{Backend, Cpu, ShapeError};
use crate::predict::floor::compound_index;
use crate::predict::view::{CarView, LapView};

/// A lap slower than this many medians of the driver's is no measure of pace.
pub const SLOW: f64 = 1.05;
/// Fewest clean laps of a driver who is judged.
pub const FEW_LAPS: usize = 8;
/// Draws coefficients that little is known about towards 0.
const RIDGE: f64 = 1e-3;
/// A clean lap: timed, green, neither in- nor out-lap, not the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanLap {
    pub number: u16,
    /// s.
    pub time_s: f64,
    pub sectors: [Option<f64>; 3],
    /// Index of the compound, below 5.
    pub compound: usize,
    /// Age of the tyres (laps).
    pub age: f64,
    /// Counts up at each stop.
    pub stint: u8,
}

/// A driver's race.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub number: u8,
    /// Three letters, or empty.
    pub driver: String,
    /// Empty where it is not known.
    pub team: String,
    pub laps: Vec<CleanLap>,
}

impl Entry {
    /// What a car has driven so far.
    pub fn of(car: &CarView) -> Entry {
        let clean = car.laps.iter().filter(|l| l.is_clean());
        let lap = |l: &LapView| {
            Some(CleanLap {
                number: l.number,
                time_s: l.time_s?,
                sectors: l.sectors,
                compound: compound_index(l.compound)?,
                age: f64::from(l.age?),
                stint: l.stint,
            })
        };
        Entry {
            number: car.number,
            driver: car.driver.as_str().to_owned(),
            team: car.team.as_str().to_owned(),
            laps: clean.filter_map(lap).collect(),
        }
    }
}

/// The figures of one driver.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Driver {
    pub number: u8,
    pub driver: String,
    pub team: String,
    /// Clean laps.
    pub laps: usize,
    /// Against the field's median (s a lap, and % of a lap).
    pub pace_s: Option<f64>,
    pub pace_percent: Option<f64>,
    /// Scatter of his laps (s).
    pub consistency_s: Option<f64>,
    /// Wear against the field's (s per lap of age).
    pub wear_s_per_lap: Option<f64>,
    /// Against the field's median (s).
    pub sectors_s: [Option<f64>; 3],
    pub teammate: Option<Teammate>,
}

/// Against the teammate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Teammate {
    pub number: u8,
    pub driver: String,
    /// Difference of pace (s a lap): below 0 is quicker.
    pub pace_s: f64,
    /// Laps of the same number, both clean, that he won, and how many there were.
    pub quicker: usize,
    pub compared: usize,
}

/// What a race asked of everybody.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Field {
    /// Change of the lap time with each lap driven (s): fuel burnt, track coming in.
    pub fuel_s_per_lap: f64,
    /// Wear (s per lap of age) by compound: soft, medium, hard, intermediate, wet; `None` where not driven.
    pub wear_s_per_lap: [Option<f64>; 5],
    /// A typical clean lap (s).
    pub lap_s: f64,
}

/// The field and the drivers of a race, quickest first; `None` where nobody has enough clean laps.
pub type Judged = Option<(Field, Vec<Driver>)>;

/// The drivers of a race, judged on the CPU.
pub fn drivers(entries: &[Entry]) -> Judged {
    // The arrays are made here, and fit each other.
    let judged = judge(&[entries.to_vec()], &Cpu);
    judged.ok().and_then(|mut races| races.pop().flatten())
}

/// The drivers of each of those races.
///
/// # Errors
/// [`ShapeError`] would be a defect of this room.
pub fn judge(races: &[Vec<Entry>], backend: &dyn Backend) -> Result<Vec<Judged>, ShapeError> {
    let fitted: Vec<Option<(Vec<Entry>, Model)>> = races
        .iter()
        .map(|entries| {
            let kept: Vec<Entry> = entries.iter().filter_map(usable).collect();
            let model = (!kept.is_empty()).then(|| Model::fit(&kept));
            model.map(|model| (kept, model))
        })
        .collect();
    let mut stints = Stints::default();
    for (kept, model) in fitted.iter().flatten() {
        for entry in kept {
            stints.add(entry, model);
        }
    }
    let mut tyres = stints.fit(backend)?.into_iter();
    let judged = fitted.iter().map(|race| {
        let (kept, model) = race.as_ref()?;
        let tyres: Vec<Tyres> = tyres.by_ref().take(kept.len()).collect();
        one_race(kept, model, &tyres)
    });
    Ok(judged.collect())
}

fn one_race(kept: &[Entry], model: &Model, tyres: &[Tyres]) -> Judged {
    let mut all: Vec<f64> = kept
        .iter()
        .flat_map(|e| &e.laps)
        .map(|l| l.time_s)
        .collect();
    let field = Field {
        fuel_s_per_lap: model.fuel,
        wear_s_per_lap: std::array::from_fn(|c| model.driven[c].then_some(model.wear[c])),
        lap_s: median(&mut all)?,
    };
    let middle = median(&mut model.pace.clone())?;
    let sectors = field_sectors(kept);
    let mut drivers: Vec<Driver> = kept
        .iter()
        .zip(&model.pace)
        .zip(tyres)
        .map(|((entry, pace), tyres)| Driver {
            number: entry.number,
            driver: entry.driver.clone(),
            team: entry.team.clone(),
            laps: entry.laps.len(),
            pace_s: Some(pace - middle),
            pace_percent: Some(100.0 * (pace - middle) / field.lap_s),
            consistency_s: tyres.scatter_s,
            wear_s_per_lap: tyres.wear_s,
            sectors_s: std::array::from_fn(|s| Some(sector(entry, s)? - sectors[s]?)),
            teammate: None,
        })
        .collect();
    for (at, driver) in drivers.iter_mut().enumerate() {
        driver.teammate = teammate(kept, &model.pace, at);
    }
    drivers.sort_by(|a, b| {
        a.pace_s
            .partial_cmp(&b.pace_s)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    Some((field, drivers))
}

/// The entry without the laps that tell nothing; `None` if too few are left.
fn usable(entry: &Entry) -> Option<Entry> {
    let mut times: Vec<f64> = entry.laps.iter().map(|l| l.time_s).collect();
    let limit = SLOW * median(&mut times)?;
    let laps: Vec<CleanLap> = entry
        .laps
        .iter()
        .filter(|l| l.time_s <= limit && l.compound < 5)
        .copied()
        .collect();
    (laps.len() >= FEW_LAPS).then(|| Entry {
        laps,
        ..entry.clone()
    })
}

/// The race taken apart.
pub(super) struct Model {
    pace: Vec<f64>,
    /// s a lap driven.
    pub fuel: f64,
    /// s per lap of age, by compound.
    pub wear: [f64; 5],
    driven: [bool; 5],
}

impl Model {
    fn fit(entries: &[Entry]) -> Model {
        let n = entries.len();
        let mut regression = Regression::new(n + 11);
        let mut driven = [false; 5];
        let mut sum = (0.0, 0.0, 0.0);
        for lap in entries.iter().flat_map(|e| &e.laps) {
            sum = (
                sum.0 + lap.time_s,
                sum.1 + f64::from(lap.number),
                sum.2 + 1.0,
            );
        }
        // About the means, so that the ridge draws nothing but differences.
        let (level, lap_0) = (sum.0 / sum.2, sum.1 / sum.2);
        for (i, entry) in entries.iter().enumerate() {
            for lap in &entry.laps {
                driven[lap.compound] = true;
                let row = [
                    (i, 1.0),
                    (n, f64::from(lap.number) - lap_0),
                    (n + 1 + lap.compound, 1.0),
                    (n + 6 + lap.compound, lap.age),
                ];
                regression.add(&row, lap.time_s - level);
            }
        }
        let x = regression.solve(RIDGE);
        Model {
            pace: x[..n].iter().map(|p| p + level - x[n] * lap_0).collect(),
            fuel: x[n],
            wear: std::array::from_fn(|c| x[n + 6 + c]),
            driven,
        }
    }
}

fn sector(entry: &Entry, s: usize) -> Option<f64> {
    let mut times: Vec<f64> = entry.laps.iter().filter_map(|l| l.sectors[s]).collect();
    median(&mut times)
}

fn field_sectors(entries: &[Entry]) -> [Option<f64>; 3] {
    std::array::from_fn(|s| {
        let mut all: Vec<f64> = entries.iter().filter_map(|e| sector(e, s)).collect();
        median(&mut all)
    })
}

fn teammate(entries: &[Entry], pace: &[f64], at: usize) -> Option<Teammate> {
    let own = &entries[at];
    let is_mate = |e: &&(usize, &Entry)| e.0 != at && !own.team.is_empty() && e.1.team == own.team;
    let (other, mate) = entries.iter().enumerate().find(|e| is_mate(&e))?;
    let theirs: BTreeMap<u16, f64> = mate.laps.iter().map(|l| (l.number, l.time_s)).collect();
    let both = own
        .laps
        .iter()
        .filter_map(|l| Some((l.time_s, *theirs.get(&l.number)?)));
    let both: Vec<(f64, f64)> = both.collect();
    Some(Teammate {
        number: mate.number,
        driver: mate.driver.clone(),
        pace_s: pace[at] - pace[other],
        quicker: both.iter().filter(|(a, b)| a < b).count(),
        compared: both.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver whose laps follow the model exactly, but for a zigzag of ± `scatter`.
    fn entry(number: u8, team: &str, pace: f64, wear: f64, scatter: f64) -> Entry {
        // Everybody stops on another lap: else wear and fuel could not be told apart.
        let stop = 15 + 2 * u16::from(number);
        let laps = (2..42).filter(|n| *n != stop).map(|n| {
            let second = n > stop;
            let stint = u8::from(second);
            let age = f64::from(if second { n - stop } else { n });
            let (compound, offset, field_wear) = if second {
                (2, 0.4, 0.02)
            } else {
                (1, 0.0, 0.05)
            };
            let zigzag = if n % 2 == 0 { scatter } else { -scatter };
            let time =
                90.0 + pace - 0.06 * f64::from(n) + offset + (field_wear + wear) * age + zigzag;
            CleanLap {
                number: n,
                time_s: time,
                sectors: [Some(30.0 + pace), Some(30.0), None],
                compound,
                age,
                stint,
            }
        });
        Entry {
            number,
            team: team.to_owned(),
            laps: laps.collect(),
            ..Entry::default()
        }
    }

    #[test]
    fn pace_is_free_of_fuel_and_tyres() {
        // The quick one drove the second half only: lighter and on other tyres.
        let mut quick = entry(1, "A", -0.2, 0.0, 0.0);
        quick.laps.retain(|l| l.number > 17);
        let field = [
            quick,
            entry(2, "A", 0.0, 0.0, 0.0),
            entry(3, "B", 0.3, 0.0, 0.0),
        ];
        let (race, drivers) = drivers(&field).unwrap();
        let order: Vec<u8> = drivers.iter().map(|d| d.number).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(
            (drivers[0].pace_s.unwrap() + 0.2).abs() < 0.01,
            "{drivers:?}"
        );
        assert!(
            (drivers[2].pace_s.unwrap() - 0.3).abs() < 0.01,
            "{drivers:?}"
        );
        assert!((race.fuel_s_per_lap + 0.06).abs() < 0.005, "{race:?}");
        let mate = drivers[0].teammate.as_ref().unwrap();
        assert_eq!((mate.number, mate.quicker, mate.compared), (2, 23, 23));
        assert!((mate.pace_s + 0.2).abs() < 0.01);
        assert_eq!(drivers[2].teammate, None);
        assert!((drivers[2].sectors_s[0].unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(drivers[2].sectors_s[2], None);
    }

    #[test]
    fn who_wears_and_who_scatters() {
        let field = [
            entry(1, "", 0.0, 0.0, 0.0),
            entry(2, "", 0.0, 0.0, 0.1),
            entry(3, "", 0.0, 0.03, 0.0),
            entry(4, "", 0.0, 0.0, 0.0),
            entry(5, "", 0.0, 0.0, 0.0),
        ];
        let (_, drivers) = drivers(&field).unwrap();
        let of = |n: u8| drivers.iter().find(|d| d.number == n).unwrap();
        assert!(of(2).consistency_s.unwrap() > 0.1 && of(1).consistency_s.unwrap() < 0.03);
        // The field takes a fifth of it for its own wear, the prior a fifth of the rest.
        let (kind, hard) = (of(1).wear_s_per_lap.unwrap(), of(3).wear_s_per_lap.unwrap());
        assert!(
            hard > 0.012 && kind < 0.0 && hard - kind > 0.02,
            "{hard} {kind}"
        );
    }

    #[test]
    fn slow_laps_and_short_races_say_nothing() {
        let mut field = vec![entry(1, "", 0.0, 0.0, 0.0), entry(2, "", 0.1, 0.0, 0.0)];
        let before = drivers(&field).unwrap();
        let slow = CleanLap {
            time_s: 120.0,
            ..field[0].laps[0]
        };
        field[0].laps.push(slow);
        assert_eq!(drivers(&field).unwrap(), before);
        field[0].laps.truncate(FEW_LAPS - 1);
        assert_eq!(drivers(&field).unwrap().1.len(), 1);
        assert_eq!(drivers(&[]), None);
    }
}
