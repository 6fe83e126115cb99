//! Stops, stints, track status and race control's messages, from `strategy/*`. Seasons before 2023 have none.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use super::DatasetError;
use super::lap::status_of;
use super::table::Faults;
use super::weekend::{Key, each};
use crate::race::{Compound, TrackStatus};
use crate::record::Time;

/// A visit to the pits.
#[derive(Clone, Debug, PartialEq)]
pub struct PitRow {
    pub car: u8,
    /// The in-lap.
    pub lap: Option<u16>,
    /// Exit from the pits.
    pub exit: Option<Time>,
    /// Time in the pit lane (s); thousands of seconds are a red flag.
    pub lane_s: Option<f64>,
}

/// A stint as published. One-lap stints at restarts and ages off by one lap are as they came.
#[derive(Clone, Debug, PartialEq)]
pub struct StintRow {
    pub car: u8,
    pub stint: u8,
    pub lap_start: Option<u16>,
    pub lap_end: Option<u16>,
    pub compound: Compound,
    pub age_at_start: Option<u16>,
}

/// A change of track status.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusRow {
    pub at: Time,
    /// On the session's clock (s).
    pub session_s: Option<f64>,
    pub status: TrackStatus,
}

/// A message of race control.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    pub at: Time,
    pub car: Option<u8>,
    pub lap: Option<u16>,
    pub category: String,
    pub flag: String,
    pub scope: String,
    pub message: String,
}

/// All of them by race.
#[derive(Clone, Debug, Default)]
pub struct Strategy {
    pub pits: BTreeMap<Key, Vec<PitRow>>,
    pub stints: BTreeMap<Key, Vec<StintRow>>,
    pub status: BTreeMap<Key, Vec<StatusRow>>,
    pub messages: BTreeMap<Key, Vec<MessageRow>>,
}

/// Reads what is there. A table that is missing is no error.
pub(super) fn read(
    folder: &Path,
    seasons: &RangeInclusive<u16>,
    faults: &mut Faults,
) -> Result<Strategy, DatasetError> {
    let folder = folder.join("strategy");
    let mut all = Strategy::default();
    each(&folder, "pit-", seasons, "season", faults, |row, key| {
        let pit = PitRow {
            car: row.key("driver_number")?,
            lap: row.whole("lap_number"),
            exit: row.parsed("date"),
            lane_s: row.number("pit_duration"),
        };
        all.pits.entry(key).or_default().push(pit);
        Some(())
    })?;
    each(&folder, "stints-", seasons, "season", faults, |row, key| {
        let stint = StintRow {
            car: row.key("driver_number")?,
            stint: row.key("stint_number")?,
            lap_start: row.whole("lap_start"),
            lap_end: row.whole("lap_end"),
            compound: row
                .text("compound")
                .map_or(Compound::Unknown, Compound::parse),
            age_at_start: row.whole("tyre_age_at_start"),
        };
        all.stints.entry(key).or_default().push(stint);
        Some(())
    })?;
    each(
        &folder,
        "track_status-",
        seasons,
        "season",
        faults,
        |row, key| {
            let digit = row.text("status").and_then(|t| t.chars().next());
            let Some(status) = digit.and_then(status_of) else {
                row.fault("status", "no status that is known");
                return None;
            };
            let change = StatusRow {
                at: row.parsed("utc")?,
                session_s: row.number("session_time_s"),
                status,
            };
            all.status.entry(key).or_default().push(change);
            Some(())
        },
    )?;
    each(
        &folder,
        "race_control-",
        seasons,
        "season",
        faults,
        |row, key| {
            let text = |c| row.text(c).unwrap_or("").to_owned();
            let [category, flag, scope, message] =
                ["category", "flag", "scope", "message"].map(text);
            let said = MessageRow {
                at: row.parsed("date")?,
                car: row.whole("driver_number"),
                lap: row.whole("lap_number"),
                category,
                flag,
                scope,
                message,
            };
            all.messages.entry(key).or_default().push(said);
            Some(())
        },
    )?;
    for changes in all.status.values_mut() {
        changes.sort_by_key(|c| c.at);
    }
    for messages in all.messages.values_mut() {
        messages.sort_by_key(|m| m.at);
    }
    Ok(all)
}
