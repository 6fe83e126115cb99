//! One lap of one car, as the tables give it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use super::DatasetError;
use super::table::{Faults, Row, Table};
use crate::race::{Compound, TrackStatus};
use crate::record::Time;

/// Lap and sector times that can be (s). Laps under a red flag are long.
const POSSIBLE_S: RangeInclusive<f64> = 5.0..=20_000.0;

/// A row of `laps-*.csv`. `None`: not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LapRow {
    pub season: u16,
    pub round: u16,
    pub event: String,
    pub session_key: Option<i32>,
    /// Three letters.
    pub driver: String,
    pub number: u8,
    pub team: String,
    pub lap: u16,
    /// Lap time (s).
    pub time_s: Option<f64>,
    /// Sector times (s).
    pub sectors: [Option<f64>; 3],
    /// Speeds at intermediate 1, 2, finish line, speed trap (km/h).
    pub speeds_kmh: [Option<f64>; 4],
    /// When it ended (s): on the session's clock, else since 1970; one clock a race.
    pub end_s: Option<f64>,
    /// Start of the lap.
    pub started: Option<Time>,
    /// Number of the stint as published.
    pub stint: Option<u8>,
    /// Relative to the event.
    pub compound: Compound,
    /// Name of the rubber, such as `C3`.
    pub compound_name: String,
    /// Laps on the set at the end of the lap.
    pub tyre_age: Option<u16>,
    pub fresh: Option<bool>,
    pub is_in: bool,
    pub is_out: bool,
    /// Entry to and exit from the pits on the session's clock (s).
    pub pit_in_s: Option<f64>,
    pub pit_out_s: Option<f64>,
    /// Every track status of the lap, as a bit set over `TrackStatus as u8`; 0 where nothing is known.
    pub statuses: u8,
    /// What held when the lap ended, as far as the digits tell: they stand in the order in which they came up, each
    /// once. A yellow flag is taken to be over, and so is a virtual safety car that was ending.
    pub status_at_end: TrackStatus,
    /// Whether the published digits say "clear throughout" and nothing else.
    pub clear: bool,
    /// Position at the end of the lap.
    pub position: Option<u8>,
    /// The publisher's plausibility flag; `None` for rebuilt rounds.
    pub accurate: Option<bool>,
    pub air_c: Option<f64>,
    pub track_c: Option<f64>,
    /// %.
    pub humidity: Option<f64>,
    /// m/s.
    pub wind_ms: Option<f64>,
    pub rain: Option<bool>,
}

impl LapRow {
    /// The evaluation's clean lap: accurate (where that is told), green throughout, timed, neither in- nor
    /// out-lap, not the first.
    pub fn is_clean(&self) -> bool {
        self.accurate != Some(false)
            && self.clear
            && self.time_s.is_some()
            && !self.is_in
            && !self.is_out
            && self.lap > 1
    }

    /// Sum of the first `n` sectors (s).
    pub fn first_sectors(&self, n: usize) -> Option<f64> {
        let known = self.sectors.iter().take(n);
        known.copied().try_fold(0.0, |sum, s| Some(sum + s?))
    }
}

/// What a digit of `track_status` means.
pub fn status_of(digit: char) -> Option<TrackStatus> {
    Some(match digit {
        '1' => TrackStatus::Clear,
        '2' => TrackStatus::Yellow,
        '4' => TrackStatus::SafetyCar,
        '5' => TrackStatus::Red,
        '6' => TrackStatus::VirtualSafetyCar,
        '7' => TrackStatus::VirtualSafetyCarEnding,
        _ => return None,
    })
}

/// The status that the last digit leaves behind.
fn at_end(digits: &str) -> TrackStatus {
    use TrackStatus::{Red, SafetyCar, VirtualSafetyCar};
    let last = digits.chars().filter_map(status_of).next_back();
    last.filter(|s| matches!(s, SafetyCar | VirtualSafetyCar | Red))
        .unwrap_or_default()
}

/// Rows of one file that belong to `seasons`; `found` collects the seasons that there are.
pub(super) fn read(
    file: &Path,
    seasons: &RangeInclusive<u16>,
    found: &mut BTreeSet<u16>,
    faults: &mut Faults,
) -> Result<Vec<LapRow>, DatasetError> {
    let mut table = Table::open(file)?;
    let rows = table.each(faults, |row| {
        let season = row.key("season")?;
        found.insert(season);
        if !seasons.contains(&season) {
            return Some(None);
        }
        parse(row, season).map(Some)
    })?;
    Ok(rows.into_iter().flatten().collect())
}

fn parse(row: &mut Row<'_>, season: u16) -> Option<LapRow> {
    let (round, number, lap) = (
        row.key("round")?,
        row.key("driver_number")?,
        row.key("lap_number")?,
    );
    let text = |row: &Row<'_>, column| row.text(column).unwrap_or("").to_owned();
    let digits = text(row, "track_status");
    let digits = digits.trim_end_matches(".0");
    let statuses = digits.chars().filter_map(status_of);
    let time_s = row.within("lap_time_s", POSSIBLE_S);
    let started: Option<Time> = row.parsed("date_start_utc");
    let session_end = row.number("lap_end_session_s");
    let wall = started
        .zip(time_s)
        .map(|(t, d)| t.micros() as f64 / 1e6 + d);
    Some(LapRow {
        season,
        round,
        number,
        lap,
        event: text(row, "event_name"),
        session_key: row.whole("session_key"),
        driver: text(row, "driver"),
        team: text(row, "team"),
        time_s,
        sectors: ["sector1_s", "sector2_s", "sector3_s"].map(|c| row.within(c, POSSIBLE_S)),
        speeds_kmh: [
            "speed_i1_kmh",
            "speed_i2_kmh",
            "speed_fl_kmh",
            "speed_st_kmh",
        ]
        .map(|c| row.number(c)),
        end_s: session_end.or(wall),
        started,
        stint: row.whole("stint"),
        compound: row
            .text("compound")
            .map_or(Compound::Unknown, Compound::parse),
        compound_name: text(row, "compound_name"),
        tyre_age: row.within("tyre_life_laps", 0.0..=200.0).map(|a| a as u16),
        fresh: row.flag("fresh_tyre"),
        is_in: row.flag("is_in_lap").unwrap_or(false),
        is_out: row.flag("is_out_lap").unwrap_or(false),
        pit_in_s: row.number("pit_in_session_s"),
        pit_out_s: row.number("pit_out_session_s"),
        status_at_end: at_end(digits),
        statuses: statuses.fold(0, |bits, s| bits | s.bit()),
        clear: digits == "1",
        position: row.whole("position"),
        accurate: row.flag("is_accurate"),
        air_c: row.number("air_temp_c"),
        track_c: row.number("track_temp_c"),
        humidity: row.number("humidity_pct"),
        wind_ms: row.number("wind_speed_ms"),
        rain: row.flag("rainfall"),
    })
}
