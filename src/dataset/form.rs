//! Form folded through the published seasons: what was known of everybody before each race.
//!
//! The fold begins in [`FIRST_SEASON`] with `history/f1db-*` and takes, where those tables end, the races
//! that have laps, those of seasons before the ones asked for as well ([`between`]). A folder without history starts
//! from the table that is shipped, if its races are newer than that table, else from nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::race::{RaceData, circuit_name};
use super::table::{Faults, Table};
use super::weekend::{Key, each};
use super::{Dataset, DatasetError, files};
use crate::predict::form::{Entry, Form};

/// The fold begins here: ratings have settled long before the first laps (2018).
pub const FIRST_SEASON: u16 = 2003;
/// Later than any season.
const LAST_SEASON: u16 = 9999;

/// One car of a race in the tables of history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entrant {
    pub number: u8,
    /// Driver, team, grid, qualifying, position if it was running at the end.
    pub entry: Entry,
    /// Official position, also of a car that is classified without having been running at the end.
    pub classified: Option<u8>,
    pub laps: u16,
}

/// One race in the tables of history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PastRace {
    /// As OpenF1 names it, where it is known.
    pub circuit: String,
    /// By driver number, ascending.
    pub cars: Vec<Entrant>,
}

/// Every race since [`FIRST_SEASON`], by season and round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub races: BTreeMap<Key, PastRace>,
}

impl History {
    /// Reads `history/f1db-{races,grids,qualifying,results,drivers}`; tables that are not there are empty.
    ///
    /// # Errors
    /// [`DatasetError::Table`] if a table is damaged as a whole.
    pub fn read(folder: &Path, faults: &mut Faults) -> Result<History, DatasetError> {
        let folder = folder.join("history");
        let seasons = FIRST_SEASON..=LAST_SEASON;
        let letters = abbreviations(&folder, faults)?;
        let mut circuits: BTreeMap<Key, String> = BTreeMap::new();
        let mut cars: BTreeMap<Key, BTreeMap<u8, Entrant>> = BTreeMap::new();
        each(
            &folder,
            "f1db-races",
            &seasons,
            "year",
            faults,
            |row, key| {
                circuits.insert(key, circuit_name(row.text("circuit_id")?, "", key.0));
                Some(())
            },
        )?;
        for table in ["f1db-grids", "f1db-qualifying", "f1db-results"] {
            each(&folder, table, &seasons, "year", faults, |row, key| {
                let number = row.key("driver_number")?;
                let car = cars.entry(key).or_default().entry(number).or_default();
                car.number = number;
                if let (Some(driver), true) = (row.text("driver_id"), car.entry.driver.is_empty()) {
                    let known = letters.get(driver).cloned();
                    car.entry.driver = known.unwrap_or_else(|| abbreviation(driver));
                }
                if let (Some(team), true) = (row.text("constructor_id"), car.entry.team.is_empty())
                {
                    car.entry.team = team.to_owned();
                }
                let position = row.text("position").unwrap_or("").to_owned();
                let place = position.parse::<u8>().ok().filter(|p| *p > 0);
                match table {
                    "f1db-grids" => car.entry.grid = place,
                    "f1db-qualifying" => {
                        let times = ["time_s", "q1_s", "q2_s", "q3_s"].map(|c| row.number(c));
                        car.entry.qualifying_s = times.into_iter().flatten().min_by(f64::total_cmp);
                    }
                    _ => {
                        let absent = matches!(position.as_str(), "DNS" | "DNQ" | "DNPQ" | "WD");
                        car.entry.started = Some(!absent);
                        car.classified = place;
                        let ran = row.text("reason_retired").is_none();
                        car.entry.position = place.filter(|_| ran);
                        car.laps = row.whole("laps").unwrap_or(0);
                    }
                }
                Some(())
            })?;
        }
        let races = cars.into_iter().map(|(key, cars)| {
            let race = PastRace {
                circuit: circuits.remove(&key).unwrap_or_default(),
                cars: cars.into_values().collect(),
            };
            (key, race)
        });
        Ok(History {
            races: races.collect(),
        })
    }
}

/// Three letters of each driver by id.
fn abbreviations(
    folder: &Path,
    faults: &mut Faults,
) -> Result<BTreeMap<String, String>, DatasetError> {
    let mut letters = BTreeMap::new();
    for file in files(folder, "f1db-drivers").unwrap_or_default() {
        Table::open(&file)?.each(faults, |row| {
            let id = row.text("id")?.to_owned();
            letters.insert(id, row.text("abbreviation")?.to_owned());
            Some(())
        })?;
    }
    Ok(letters)
}

/// Three letters for a driver who is not in the table: of the last name, as is the custom.
fn abbreviation(id: &str) -> String {
    let name = id.rsplit('-').next().unwrap_or(id);
    name.chars().take(3).collect::<String>().to_uppercase()
}

impl PastRace {
    /// A race with laps as history would tell it.
    pub fn of(race: &RaceData) -> PastRace {
        let cars = race.cars.iter().map(|car| {
            let ran = race.finished(car);
            let official = car.result.as_ref().and_then(|r| r.position);
            let laps = car.laps.last().map_or(0, |l| l.lap);
            let absent = car.result.as_ref().is_some_and(|r| r.absent);
            Entrant {
                number: car.number,
                entry: Entry {
                    driver: car.driver.clone(),
                    team: car.team.clone(),
                    grid: car.grid,
                    qualifying_s: car.qualifying_s,
                    position: if car.result.is_some() {
                        official.filter(|_| ran)
                    } else {
                        None
                    },
                    started: Some(!absent),
                },
                classified: official,
                laps,
            }
        });
        let mut past = PastRace {
            circuit: race.circuit.clone(),
            cars: cars.collect(),
        };
        past.rank_unofficial(race);
        past
    }

    /// Where no result is published: by laps, then by who ended the last one first.
    fn rank_unofficial(&mut self, race: &RaceData) {
        if race.cars.iter().any(|c| c.result.is_some()) {
            return;
        }
        let mut ends: Vec<(std::cmp::Reverse<u16>, f64, usize)> = race
            .cars
            .iter()
            .enumerate()
            .filter(|(_, c)| race.finished(c))
            .filter_map(|(i, c)| {
                let last = c.laps.last()?;
                Some((std::cmp::Reverse(last.lap), last.end_s?, i))
            })
            .collect();
        ends.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (place, (_, _, car)) in (1u8..).zip(ends) {
            self.cars[car].entry.position = Some(place);
            self.cars[car].classified = Some(place);
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.cars.iter().map(|c| c.entry.clone()).collect()
    }
}

/// The races with laps of the seasons that history does not tell of (or does not end), before season `first`.
///
/// # Errors
/// [`DatasetError`] if a table is damaged as a whole.
pub fn between(
    folder: &Path,
    history: &History,
    first: u16,
) -> Result<Vec<RaceData>, DatasetError> {
    let told = history.races.keys().next_back().map(|key| key.0);
    let from = told.unwrap_or_else(|| Form::shipped().season.saturating_add(1));
    if from >= first {
        return Ok(Vec::new());
    }
    match Dataset::read(folder, from..=first - 1) {
        Ok(set) => Ok(set.races),
        Err(DatasetError::NoLaps { .. }) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Form before every race of `races`, and before each of history's; ascending by season and round.
/// `each` is called with the race's key, the form before it, and the race as history tells it.
pub fn fold<'a>(
    history: &History,
    races: impl IntoIterator<Item = &'a RaceData>,
    mut each: impl FnMut(Key, &Form, &PastRace),
) -> Form {
    let mut all: BTreeMap<Key, PastRace> = history.races.clone();
    for race in races {
        let told = all
            .get(&(race.season, race.round))
            .is_some_and(|past| past.cars.iter().any(|c| c.entry.started.is_some()));
        if !told {
            all.insert((race.season, race.round), PastRace::of(race));
        }
    }
    let shipped = Form::shipped();
    let first = all.keys().next().map_or(0, |k| k.0);
    let mut form = if first > shipped.season {
        shipped
    } else {
        Form::default()
    };
    for (key, race) in &all {
        form.begin(key.0);
        each(*key, &form, race);
        form.update(&race.circuit, &race.entries());
    }
    form
}
