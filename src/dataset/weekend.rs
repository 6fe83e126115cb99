//! Calendar, grid, qualifying and results, from `history/f1db-*` and, where those end, `strategy/*`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use super::table::{Faults, Row, Table};
use super::{DatasetError, files};

/// A race: (season, round).
pub type Key = (u16, u16);

/// How a car ended its race.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultRow {
    /// Official position of a classified car.
    pub position: Option<u8>,
    /// Laps completed.
    pub laps: Option<u16>,
    /// Why it did not finish, as published: `Engine`, `DNF`; empty for a finisher.
    pub retired: String,
    pub disqualified: bool,
    /// It did not start.
    pub absent: bool,
    /// Race time (s).
    pub time_s: Option<f64>,
}

impl ResultRow {
    /// Whether it was running at the end and is classified.
    pub fn finished(&self) -> bool {
        self.position.is_some() && self.retired.is_empty() && !self.disqualified && !self.absent
    }
}

/// A line of the calendar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalendarRow {
    /// f1db's id of the circuit, such as `monza`.
    pub circuit: String,
    /// Day of the race.
    pub date: String,
    /// Laps driven or to be driven.
    pub laps: Option<u16>,
    /// Length of a lap (km).
    pub lap_km: Option<f64>,
}

/// Everything known of the races of some seasons beside their laps.
#[derive(Clone, Debug, Default)]
pub struct Weekends {
    pub calendar: BTreeMap<Key, CalendarRow>,
    /// Place on the grid by car.
    pub grid: BTreeMap<Key, BTreeMap<u8, u8>>,
    /// Best qualifying time by car (s).
    pub qualifying: BTreeMap<Key, BTreeMap<u8, f64>>,
    pub results: BTreeMap<Key, BTreeMap<u8, ResultRow>>,
}

/// Reads what is there. A table that is missing is no error.
pub(super) fn read(
    folder: &Path,
    seasons: &RangeInclusive<u16>,
    faults: &mut Faults,
) -> Result<Weekends, DatasetError> {
    let mut all = Weekends::default();
    let history = folder.join("history");
    let strategy = folder.join("strategy");
    each(
        &history,
        "f1db-races",
        seasons,
        "year",
        faults,
        |row, key| {
            let text = |c| row.text(c).unwrap_or("").to_owned();
            let (circuit, date) = (text("circuit_id"), text("date"));
            let row = CalendarRow {
                circuit,
                date,
                laps: row.whole("scheduled_laps").or_else(|| row.whole("laps")),
                lap_km: row.number("course_length"),
            };
            all.calendar.insert(key, row);
            Some(())
        },
    )?;
    each(
        &history,
        "f1db-grids",
        seasons,
        "year",
        faults,
        |row, key| {
            let car = row.key("driver_number")?;
            // From the pit lane: no place.
            if row.text("position").is_some_and(is_place) {
                let place = row.whole("position")?;
                all.grid.entry(key).or_default().insert(car, place);
            }
            Some(())
        },
    )?;
    each(
        &history,
        "f1db-qualifying",
        seasons,
        "year",
        faults,
        |row, key| {
            let car = row.key("driver_number")?;
            let times = ["time_s", "q1_s", "q2_s", "q3_s"].map(|c| row.number(c));
            if let Some(best) = times.into_iter().flatten().min_by(f64::total_cmp) {
                all.qualifying.entry(key).or_default().insert(car, best);
            }
            Some(())
        },
    )?;
    each(
        &history,
        "f1db-results",
        seasons,
        "year",
        faults,
        |row, key| {
            let car = row.key("driver_number")?;
            let position = row.text("position").unwrap_or("").to_owned();
            let result = ResultRow {
                position: position.parse().ok(),
                laps: row.whole("laps"),
                retired: retired(row.text("reason_retired"), &position),
                disqualified: position == "DSQ" || position == "EX",
                absent: matches!(position.as_str(), "DNS" | "DNQ" | "DNPQ" | "WD"),
                time_s: row.number("time_s"),
            };
            all.results.entry(key).or_default().insert(car, result);
            Some(())
        },
    )?;
    // The feed's own tables, for what f1db does not have (yet).
    each(
        &strategy,
        "starting_grid-",
        seasons,
        "season",
        faults,
        |row, key| {
            let car = row.key("driver_number")?;
            if let Some(place) = row.whole("position") {
                all.grid.entry(key).or_default().entry(car).or_insert(place);
            }
            if let Some(time) = row.number("lap_duration") {
                let times = all.qualifying.entry(key).or_default();
                times.entry(car).or_insert(time);
            }
            Some(())
        },
    )?;
    each(
        &strategy,
        "session_result-",
        seasons,
        "season",
        faults,
        |row, key| {
            let car = row.key("driver_number")?;
            let said = |row: &mut Row<'_>, c| row.flag(c).unwrap_or(false);
            let (dnf, absent) = (said(row, "dnf"), said(row, "dns"));
            let result = ResultRow {
                position: row.whole("position"),
                laps: row.whole("number_of_laps"),
                retired: if dnf { "DNF".to_owned() } else { String::new() },
                disqualified: said(row, "dsq"),
                absent,
                time_s: row.text("duration").and_then(|t| t.parse().ok()),
            };
            let results = all.results.entry(key).or_default();
            results.entry(car).or_insert(result);
            Some(())
        },
    )?;
    Ok(all)
}

fn is_place(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn retired(reason: Option<&str>, position: &str) -> String {
    match reason {
        Some(reason) => reason.to_owned(),
        None if is_place(position) => String::new(),
        None => position.to_owned(),
    }
}

/// Calls `then` for each row of `folder/name*` that belongs to `seasons`.
pub(super) fn each(
    folder: &Path,
    name: &str,
    seasons: &RangeInclusive<u16>,
    season: &str,
    faults: &mut Faults,
    mut then: impl FnMut(&mut Row<'_>, Key) -> Option<()>,
) -> Result<(), DatasetError> {
    let found = match files(folder, name) {
        Ok(found) => found,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(DatasetError::Table(folder.join(name), e)),
    };
    for file in found {
        Table::open(&file)?.each(faults, |row| {
            let year = row.key(season)?;
            if !seasons.contains(&year) {
                return Some(());
            }
            let round = row.key("round")?;
            then(row, (year, round))
        })?;
    }
    Ok(())
}
