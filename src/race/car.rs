//! A car and its driver.
//!
//! **Invariant:** a car exists from the first record that names it, whether or not the driver list
//! has told who drives it; nothing about it needs memory that was not reserved then.

use heapless::String;
use serde::Serialize;

use super::classification::OfficialResult;
use super::lap::{LapState, MAX_LAPS};
use super::pit::{MAX_PITS, PitState};
use super::stint::{MAX_STINTS, StintState};
use super::text;
use crate::record::{CarData, Driver, Gap, Interval, Location, Time};

/// Speed from which a car is under way (km/h).
pub(super) const UNDER_WAY_KMH: i16 = 50;

/// Where a car is in its race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CarStatus {
    #[default]
    OnTrack,
    InPit,
    /// Stopped for good, as far as one can tell (it may come back).
    Retired,
    /// Took the chequered flag.
    Finished,
    /// The race is under way and the car has not begun it.
    NotStarted,
    Disqualified,
}

impl CarStatus {
    /// Whether the car still races.
    pub const fn runs(self) -> bool {
        matches!(self, CarStatus::OnTrack | CarStatus::InPit)
    }

    pub(super) const fn rank(self) -> u8 {
        match self {
            CarStatus::OnTrack | CarStatus::InPit | CarStatus::Finished => 0,
            CarStatus::Retired => 1,
            CarStatus::NotStarted => 2,
            CarStatus::Disqualified => 3,
        }
    }
}

/// One car.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Car {
    pub driver_number: u8,
    /// Three letters, such as `VER`; the number as text until the driver list is known.
    pub acronym: String<8>,
    pub name: String<48>,
    pub team: String<48>,
    /// RRGGBB.
    pub colour: String<6>,
    /// From the starting grid; until that is known, the first position before the start.
    pub grid: Option<u8>,
    /// Qualifying time (s).
    pub qualifying_s: Option<f64>,
    pub position: Option<u8>,
    pub status: CarStatus,
    /// Laps completed.
    pub laps_completed: u16,
    pub gap_to_leader: Option<Gap>,
    pub interval: Option<Gap>,
    /// Best lap (s), deleted ones left out.
    pub best_lap_s: Option<f64>,
    /// Time penalties from race control that are not yet served (s).
    pub penalty_s: f64,
    /// Last telemetry.
    pub speed_kmh: Option<i16>,
    /// Engine speed (1/min).
    pub rpm: Option<i16>,
    pub gear: Option<i16>,
    /// Throttle (%).
    pub throttle: Option<i16>,
    /// Brake, 0 or 100.
    pub brake: Option<i16>,
    /// DRS code, as OpenF1 gives it.
    pub drs: Option<i16>,
    /// Last known place in the circuit's frame (1/10 m).
    pub location: Option<[i32; 3]>,
    pub last_seen: Option<Time>,
    /// By number, ascending. Laps before the first record are missing.
    pub laps: Vec<LapState>,
    /// By number, ascending.
    pub stints: heapless::Vec<StintState, MAX_STINTS>,
    /// In the order of the in-laps.
    pub pits: heapless::Vec<PitState, MAX_PITS>,
    /// The official result, once it is known.
    pub official: Option<OfficialResult>,
    #[serde(skip)]
    pub(super) heard: Heard,
}

/// What keeps late records from undoing newer ones, and a car's silence from going unnoticed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub telemetry: Option<Time>,
    pub location: Option<Time>,
    pub interval: Option<Time>,
    pub position: Option<Time>,
    /// Date of the first position: the grid, where no grid is known.
    pub first_position: Option<Time>,
    pub grid_is_official: bool,
    pub grid_version: Option<i64>,
    /// Laps of the leader when this car last made progress.
    pub leader_laps: u16,
    /// Whether the car has been under way since the start or the last red flag.
    pub under_way: bool,
    /// Whether it has been under way at all since the start.
    pub raced: bool,
    /// When telemetry last had it under way.
    pub moving: Option<Time>,
    /// The lap that was last told to be over without a line time that could be worked out, and when:
    /// the word of it, or a guess where none came.
    pub over_by: Option<(u16, Time)>,
    /// Since when it has stood still after that.
    pub standing_since: Option<Time>,
    pub has_started: bool,
}

impl Car {
    /// A car of which only the number is known, with room for its laps.
    pub fn new(driver_number: u8) -> Car {
        let mut acronym = String::new();
        // Two or three digits always fit.
        let _ = std::fmt::write(&mut acronym, format_args!("{driver_number}"));
        Car {
            driver_number,
            acronym,
            name: String::new(),
            team: String::new(),
            colour: String::new(),
            grid: None,
            qualifying_s: None,
            position: None,
            status: CarStatus::OnTrack,
            laps_completed: 0,
            gap_to_leader: None,
            interval: None,
            best_lap_s: None,
            penalty_s: 0.0,
            speed_kmh: None,
            rpm: None,
            gear: None,
            throttle: None,
            brake: None,
            drs: None,
            location: None,
            last_seen: None,
            laps: Vec::with_capacity(MAX_LAPS),
            stints: heapless::Vec::new(),
            pits: heapless::Vec::new(),
            official: None,
            heard: Heard::default(),
        }
    }

    /// The lap that it is on; the last one once it has stopped or finished; 0 before the start.
    pub fn current_lap(&self) -> u16 {
        self.laps.last().map_or(0, |l| l.number)
    }

    /// The lap of that number.
    pub fn lap(&self, number: u16) -> Option<&LapState> {
        self.lap_index(number).ok().map(|i| &self.laps[i])
    }

    /// The last lap that it completed.
    pub fn last_completed(&self) -> Option<&LapState> {
        self.lap(self.laps_completed)
    }

    /// The stint that a lap belongs to: the last one that had begun by then.
    pub fn stint_at(&self, lap: u16) -> Option<&StintState> {
        self.stints
            .iter()
            .filter(|s| s.lap_start <= lap)
            .max_by_key(|s| s.number)
    }

    /// The stint that it is in.
    pub fn current_stint(&self) -> Option<&StintState> {
        self.stints.last()
    }

    /// Where `number` is among the laps, or where it belongs. Mostly the last or the one before.
    pub(super) fn lap_index(&self, number: u16) -> Result<usize, usize> {
        match self.laps.last() {
            Some(l) if l.number == number => Ok(self.laps.len() - 1),
            Some(l) if l.number < number => Err(self.laps.len()),
            _ => self.laps.binary_search_by_key(&number, |l| l.number),
        }
    }

    /// What the running order is sorted by.
    pub(super) fn running_key(&self) -> (u8, u8, f64) {
        match (self.position, self.grid) {
            (Some(p), _) => (0, p, 0.0),
            (None, Some(g)) => (1, g, 0.0),
            (None, None) => (2, 0, self.best_lap_s.unwrap_or(f64::MAX)),
        }
    }

    pub(super) fn identify(&mut self, driver: &Driver) {
        text::set(&mut self.acronym, driver.name_acronym.as_deref());
        text::set(
            &mut self.name,
            driver
                .full_name
                .as_deref()
                .or(driver.broadcast_name.as_deref()),
        );
        text::set(&mut self.team, driver.team_name.as_deref());
        text::set(&mut self.colour, driver.team_colour.as_deref());
    }

    #[inline]
    pub(super) fn telemetry(&mut self, r: &CarData, racing: bool) {
        if self.heard.telemetry > Some(r.date) {
            return;
        }
        self.heard.telemetry = Some(r.date);
        self.last_seen = self.last_seen.max(Some(r.date));
        self.speed_kmh = r.speed;
        self.rpm = r.rpm;
        self.gear = r.n_gear;
        self.throttle = r.throttle;
        self.brake = r.brake;
        self.drs = r.drs;
        match r.speed {
            Some(v) if v >= UNDER_WAY_KMH => {
                self.heard.under_way = racing;
                self.heard.raced |= racing;
                self.heard.moving = Some(r.date);
                self.heard.standing_since = None;
            }
            Some(0) if self.heard.under_way && self.heard.standing_since.is_none() => {
                self.heard.standing_since = Some(r.date);
            }
            Some(v) if v > 0 => self.heard.standing_since = None,
            _ => {}
        }
    }

    #[inline]
    pub(super) fn locate(&mut self, r: &Location) {
        if self.heard.location > Some(r.date) {
            return;
        }
        self.heard.location = Some(r.date);
        self.last_seen = self.last_seen.max(Some(r.date));
        if let (Some(x), Some(y)) = (r.x, r.y) {
            self.location = Some([x, y, r.z.unwrap_or_default()]);
        }
    }

    #[inline]
    pub(super) fn space(&mut self, r: &Interval) {
        if self.heard.interval > Some(r.date) {
            return;
        }
        self.heard.interval = Some(r.date);
        self.gap_to_leader = r.gap_to_leader;
        self.interval = r.interval;
    }
}
