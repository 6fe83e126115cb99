//! A car: where it is, on what tyres, and what it means to do.

use super::entrants::Entrant;
use super::physics::Manner;
use super::tyre::{Compound, Set};

/// Where a car is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// Waiting on its grid slot.
    Grid,
    /// Moving, on track or in the pit lane.
    Moving,
    /// At its box until then (s of the session's clock); under a red flag, until released.
    Boxed { until: f64 },
    /// In the garage.
    Garage,
    /// Stopped for good beside the track since then.
    Stopped { since: f64 },
}

/// What a car is doing in practice or qualifying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    OutLap,
    /// Laps at full pace still to go.
    Push(u8),
    InLap,
}

/// A pass through the mini-sectors of one lap.
#[derive(Clone, Debug)]
pub(super) struct Passages {
    pub lap: u16,
    /// Session clock (s) at the end of each mini-sector; NaN where not yet passed.
    pub at: Vec<f64>,
}

/// Laps of which a car's passages are remembered: enough to measure gaps to a car laps ahead.
const REMEMBERED_LAPS: usize = 4;

pub(super) struct Car {
    pub entrant: &'static Entrant,
    pub place: Place,
    /// The lap that it is on, from 1; 0 before the start.
    pub lap: u16,
    pub laps_completed: u16,
    pub manner: Manner,
    /// Time into the lap's profile (s).
    pub tau: f64,
    /// Next of the lap's marks.
    pub next_mark: usize,
    /// Stretch of the profile's time.
    pub pace: f64,
    /// What its pace would be on its own.
    pub free_pace: f64,
    /// m since the start of lap 1.
    pub distance: f64,
    /// m after the line.
    pub s: f64,
    /// m/s.
    pub speed: f64,
    pub in_lane: bool,
    /// The car just ahead on the road, and how far (s).
    pub ahead: Option<(usize, f64)>,
    /// Grid slot, from 0.
    pub slot: usize,
    pub position: u8,
    pub qualifying_s: Option<f64>,

    /// Session clock at the lap's start (ms), and at the ends of sectors 1 and 2.
    pub lap_started_ms: i64,
    pub sectors_ms: [Option<i64>; 2],
    pub sector_speeds: [Option<i16>; 2],
    pub date_start_off_ms: i64,
    pub date_start_lost: bool,
    pub passages: Vec<Passages>,
    pub best_minis: Vec<f64>,
    pub segments: Vec<Option<i32>>,
    pub best_lap_s: Option<f64>,
    pub phase_best: [Option<f64>; 3],
    pub last_interval: f64,

    /// Form of the day, sector by sector (s a lap).
    pub form: f64,
    pub tyres: Set,
    pub stint_number: u8,
    pub stint_from: u16,
    /// Stops still planned: after which lap, onto what.
    pub plan: Vec<(u16, Compound)>,
    /// Called in this lap, for this compound.
    pub called: Option<Compound>,
    /// Still has to stop at its box on this out-lap, for so long (s).
    pub stop_s: Option<f64>,
    pub box_s: f64,
    pub lane_since: f64,
    pub in_lap: u16,
    pub used: Vec<Compound>,
    /// Being passed or passing, until then.
    pub passing: Option<(usize, f64)>,
    pub yielding_until: f64,
    pub last_blue: f64,

    /// Where its race ends: lap, mini-sector.
    pub fails_at: Option<(u16, usize)>,
    pub retired: bool,
    pub penalty_s: f64,
    pub finished_ms: Option<i64>,
    pub run: Run,
    /// When it next leaves the garage (s).
    pub leaves_at: f64,
    pub eliminated: bool,
}

impl Car {
    pub fn new(entrant: &'static Entrant, index: usize, minis: usize, tyres: Set) -> Car {
        Car {
            entrant,
            place: Place::Garage,
            lap: 0,
            laps_completed: 0,
            manner: Manner::Start,
            tau: 0.0,
            next_mark: 0,
            pace: 1.0,
            free_pace: 1.0,
            distance: 0.0,
            s: 0.0,
            speed: 0.0,
            in_lane: false,
            ahead: None,
            slot: index,
            position: index as u8 + 1,
            qualifying_s: None,
            lap_started_ms: 0,
            sectors_ms: [None; 2],
            sector_speeds: [None; 2],
            date_start_off_ms: 0,
            date_start_lost: false,
            passages: (0..REMEMBERED_LAPS)
                .map(|_| Passages {
                    lap: 0,
                    at: vec![f64::NAN; minis],
                })
                .collect(),
            best_minis: vec![f64::INFINITY; minis],
            segments: vec![None; minis],
            best_lap_s: None,
            phase_best: [None; 3],
            last_interval: f64::MIN,
            form: 0.0,
            tyres,
            stint_number: 1,
            stint_from: 1,
            plan: Vec::new(),
            called: None,
            stop_s: None,
            box_s: 60.0 + 14.0 * entrant.team as f64,
            lane_since: 0.0,
            in_lap: 0,
            used: vec![tyres.compound],
            passing: None,
            yielding_until: f64::MIN,
            last_blue: f64::MIN,
            fails_at: None,
            retired: false,
            penalty_s: 0.0,
            finished_ms: None,
            run: Run::OutLap,
            leaves_at: f64::MAX,
            eliminated: false,
        }
    }

    pub fn number(&self) -> u8 {
        self.entrant.number
    }

    /// Racing still: neither retired nor past the flag.
    pub fn racing(&self) -> bool {
        !self.retired && self.finished_ms.is_none()
    }

    /// `CAR 7 (ARD)`, as race control writes it.
    pub fn called_out(&self) -> String {
        format!("CAR {} ({})", self.number(), self.entrant.acronym)
    }

    /// Notes that it passed the end of mini-sector `k` of its lap.
    pub fn pass(&mut self, k: usize, at: f64) {
        let slot = usize::from(self.lap) % REMEMBERED_LAPS;
        let passages = &mut self.passages[slot];
        if passages.lap != self.lap {
            passages.lap = self.lap;
            passages.at.fill(f64::NAN);
        }
        passages.at[k] = at;
    }

    /// When it passed the end of mini-sector `k` of `lap`, if that is not too long ago.
    pub fn passed(&self, lap: u16, k: usize) -> Option<f64> {
        let passages = &self.passages[usize::from(lap) % REMEMBERED_LAPS];
        (passages.lap == lap)
            .then(|| passages.at[k])
            .filter(|at| !at.is_nan())
    }
}
