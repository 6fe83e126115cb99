//! Laps, as they arrive in pieces.
//!
//! A lap comes as several versions of one document: its start, after each sector, complete; the
//! complete one may come after the first version of the next lap. What a newer version says replaces
//! what is known, what it leaves out does not; an older version only fills gaps. A lap counts as
//! completed when its time is known; or, where none comes, [`LAP_TIME_WAIT_S`] after its third sector
//! was, or when the next lap has a sector time (or the one after that has begun).
//!
//! **Invariant:** `LapStarted`, `LapCompleted` and each `SectorCompleted` are said once a car and
//! lap; the laps of a car are in the order of their numbers.

use serde::Serialize;

use super::{Car, CarStatus, Compound, Event, Events, Track, event::say};
use crate::record::{Gap, Lap, Time};

/// Most laps of a car in a session.
pub const MAX_LAPS: usize = 200;
/// How long after the third sector a lap time may still come (s).
pub const LAP_TIME_WAIT_S: f64 = 10.0;
/// Mini-sector code of the pit lane.
const PIT_LANE: i32 = 2064;

/// One lap of one car, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LapState {
    pub number: u16,
    pub started: Option<Time>,
    /// When it crossed the line at the end: start + lap time (or sectors), else the start of the next lap, else the
    /// clock when the third sector came.
    pub ended: Option<Time>,
    /// Sector times (s).
    pub sectors: [Option<f64>; 3],
    /// Lap time (s), once complete.
    pub duration: Option<f64>,
    pub is_out_lap: bool,
    pub is_in_lap: bool,
    /// Race control deleted its time.
    pub deleted: bool,
    /// Every track status that held during the lap, as a bit set over `TrackStatus as u8`.
    pub statuses: u8,
    pub compound: Compound,
    /// Age of the tyres at the end of the lap (laps).
    pub tyre_age: Option<u16>,
    /// Position when the lap ended.
    pub position: Option<u8>,
    /// Gap to the leader when the lap ended.
    pub gap_to_leader: Option<Gap>,
    /// Journal sequence of the record that completed it.
    pub completed_seq: Option<u64>,
    #[serde(skip)]
    pub version: Option<i64>,
}

impl LapState {
    /// Whether it is over.
    pub fn is_complete(&self) -> bool {
        self.completed_seq.is_some()
    }

    /// Whether it is over but for its time.
    pub(super) fn is_overdue(&self) -> bool {
        self.sectors[2].is_some() && self.duration.is_none() && self.completed_seq.is_none()
    }

    /// How many leading sectors are known.
    pub fn sectors_known(&self) -> u8 {
        self.sectors.iter().take_while(|s| s.is_some()).count() as u8
    }

    /// Whether it was driven at racing pace throughout: a time that stands, neither in- nor out-lap,
    /// no status but clear.
    pub fn is_clean(&self) -> bool {
        self.duration.is_some()
            && !self.is_in_lap
            && !self.is_out_lap
            && self.statuses & !super::TrackStatus::Clear.bit() == 0
    }
}

/// What a version of a lap brought.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// It is the first word of the car's newest lap.
    pub began: Option<u16>,
    /// Laps that it completed: the number of the last one.
    pub completed: Option<u16>,
    /// It tells that the car got on.
    pub moved: bool,
    /// Its third sector is known and its time is not.
    pub waits: bool,
}

fn take<T>(held: &mut Option<T>, said: Option<T>, newer: bool) {
    if said.is_some() && (newer || held.is_none()) {
        *held = said;
    }
}

fn last_segment(r: &Lap) -> Option<i32> {
    [
        &r.segments_sector_3,
        &r.segments_sector_2,
        &r.segments_sector_1,
    ]
    .into_iter()
    .flatten()
    .find_map(|s| s.iter().rev().find_map(|code| *code))
}

fn edge(segments: &Option<Vec<Option<i32>>>, last: bool) -> Option<i32> {
    let segments = segments.as_ref()?;
    *if last {
        segments.last()?
    } else {
        segments.first()?
    }
}

impl Car {
    /// Takes in a version of a lap, heard as journal record `seq` when the clock stood at `clock`.
    pub(super) fn lap_record(
        &mut self,
        r: &Lap,
        (version, seq, clock): (Option<i64>, u64, Time),
        track: &Track,
        events: &mut Events,
    ) -> Progress {
        let number = r.lap_number;
        let mut progress = Progress::default();
        if number == 0 || usize::from(number) > MAX_LAPS {
            return progress;
        }
        // The lap back to the pits after the flag is none.
        if self.status == CarStatus::Finished && number > self.laps_completed {
            return progress;
        }
        let i = match self.lap_index(number) {
            Ok(i) => i,
            Err(i) => {
                self.laps.insert(
                    i,
                    LapState {
                        number,
                        statuses: track.status.bit(),
                        version,
                        ..LapState::default()
                    },
                );
                self.fit(i);
                self.laps[i].is_out_lap = number > 1 && self.pitted_on(number - 1);
                self.laps[i].is_in_lap = self.pitted_on(number);
                if i + 1 == self.laps.len() {
                    progress.began = Some(number);
                    progress.moved = true;
                }
                i
            }
        };
        let lap = &mut self.laps[i];
        let newer = version >= lap.version;
        let knew = lap.sectors;
        merge(lap, r, version, newer, clock);
        let sectors = lap.sectors;
        progress.moved |= (0..3).any(|s| knew[s].is_none() && sectors[s].is_some());
        let over = lap.duration.is_some() && lap.completed_seq.is_none();
        if lap.is_overdue() {
            progress.waits = true;
            lap.ended = lap.ended.or(Some(clock));
        }
        self.time_line(i);
        self.complete_before(i, seq, track, events, &mut progress);
        if progress.began.is_some() {
            let driver_number = self.driver_number;
            say(
                events,
                Event::LapStarted {
                    driver_number,
                    lap: number,
                },
            );
        }
        if over {
            self.complete(i, seq, track, events);
            if self.laps[i].ended.is_none() {
                self.heard.over_by = Some((number, clock));
            }
            progress.completed = progress.completed.max(Some(number));
            progress.moved = true;
        } else if self.laps[i].completed_seq.is_none() {
            for sector in [0, 1] {
                if knew[sector].is_none() && sectors[sector].is_some() {
                    say(
                        events,
                        Event::SectorCompleted {
                            driver_number: self.driver_number,
                            lap: number,
                            sector: sector as u8 + 1,
                        },
                    );
                }
            }
        }
        self.count_best(i);
        if newer {
            self.follow_lane(i, r);
        }
        progress
    }

    /// Completes the laps before lap `i` of the list that must be over by now.
    fn complete_before(
        &mut self,
        i: usize,
        seq: u64,
        track: &Track,
        events: &mut Events,
        progress: &mut Progress,
    ) {
        let lap = &self.laps[i];
        let under_way = lap.duration.is_some() || lap.sectors.iter().any(Option::is_some);
        let over = lap.number.saturating_sub(if under_way { 1 } else { 2 });
        for j in 0..i {
            if self.laps[j].number <= over && self.laps[j].completed_seq.is_none() {
                self.complete(j, seq, track, events);
                progress.completed = progress.completed.max(Some(self.laps[j].number));
            }
        }
        // Laps that were never heard of count all the same.
        self.laps_completed = self.laps_completed.max(over);
    }

    /// Completes the laps whose time has not come; says whether there were any.
    pub(super) fn complete_overdue(
        &mut self,
        seq: u64,
        track: &Track,
        events: &mut Events,
    ) -> bool {
        let mut any = false;
        for i in self.laps.len().saturating_sub(2)..self.laps.len() {
            if self.laps[i].is_overdue() {
                self.complete(i, seq, track, events);
                any = true;
            }
        }
        any
    }

    fn complete(&mut self, i: usize, seq: u64, track: &Track, events: &mut Events) {
        let (position, gap) = (self.position, self.gap_to_leader);
        let lap = &mut self.laps[i];
        lap.completed_seq = Some(seq);
        lap.position = position;
        lap.gap_to_leader = gap;
        if let (Some(from), Some(to)) = (lap.started, lap.ended) {
            lap.statuses = track.held(from, to);
        }
        let number = lap.number;
        self.laps_completed = self.laps_completed.max(number);
        say(
            events,
            Event::LapCompleted {
                driver_number: self.driver_number,
                lap: number,
            },
        );
    }

    /// Works out when lap `i` of the list and its neighbours ended.
    fn time_line(&mut self, i: usize) {
        for j in i.saturating_sub(1)..(i + 2).min(self.laps.len()) {
            let lap = &self.laps[j];
            let next = self.laps.get(j + 1).filter(|n| n.number == lap.number + 1);
            let before = j.checked_sub(1).map(|b| &self.laps[b]);
            let before = before.filter(|b| b.number + 1 == lap.number);
            let start = lap.started.or(before.and_then(|b| b.ended));
            // Sectors add up to the lap, to the millisecond.
            let by_sectors = || lap.sectors.iter().copied().sum::<Option<f64>>();
            let by_time = start
                .zip(lap.duration.or_else(by_sectors))
                .map(|(t, d)| t.plus_seconds(d));
            self.laps[j].ended = by_time.or(next.and_then(|n| n.started)).or(lap.ended);
        }
    }

    fn count_best(&mut self, i: usize) {
        if let Some(d) = self.laps[i].duration.filter(|_| !self.laps[i].deleted)
            && self.best_lap_s.is_none_or(|b| d < b)
        {
            self.best_lap_s = Some(d);
        }
    }

    /// Finds the best lap anew, after a time was deleted or given back.
    pub(super) fn recount_best(&mut self) {
        self.best_lap_s = None;
        for i in 0..self.laps.len() {
            self.count_best(i);
        }
    }

    /// Follows the car into the pit lane and out of it by the mini-sectors of lap `i` of the list.
    fn follow_lane(&mut self, i: usize, r: &Lap) {
        let Some(code) = last_segment(r) else {
            return;
        };
        let newest = i + 1 == self.laps.len();
        let next_is_empty = self
            .laps
            .get(i + 1)
            .is_some_and(|l| l.sectors == [None; 3] && l.duration.is_none());
        if !self.status.runs() || !(newest || next_is_empty) {
            return;
        }
        if code == PIT_LANE {
            let on_the_way_out =
                r.segments_sector_2.is_none() && self.pitted_on(r.lap_number.saturating_sub(1));
            if !self.pitted_on(r.lap_number) && !on_the_way_out {
                self.status = CarStatus::InPit;
            }
        } else if newest {
            self.status = CarStatus::OnTrack;
        }
    }

    /// The status of the track changed: the lap in progress has seen it.
    pub(super) fn see(&mut self, status: super::TrackStatus) {
        if let Some(lap) = self.laps.last_mut()
            && lap.completed_seq.is_none()
        {
            lap.statuses |= status.bit();
        }
    }

    /// Deletes a lap time, or gives it back; says whether a lap was found.
    ///
    /// The lap is found by its time; where the message gives none, by its number.
    pub(super) fn delete_lap(
        &mut self,
        seconds: Option<f64>,
        lap: Option<u16>,
        deleted: bool,
    ) -> bool {
        // Times are given to the millisecond.
        let by_time = seconds.and_then(|s| {
            self.laps
                .iter()
                .rposition(|l| l.duration.is_some_and(|d| (d - s).abs() < 0.000_6))
        });
        let by_number = || {
            lap.filter(|_| seconds.is_none())
                .and_then(|n| self.lap_index(n).ok())
        };
        let Some(i) = by_time.or_else(by_number) else {
            return false;
        };
        self.laps[i].deleted = deleted;
        self.recount_best();
        true
    }
}

fn merge(lap: &mut LapState, r: &Lap, version: Option<i64>, newer: bool, clock: Time) {
    // A start ahead of the clock was refused by it.
    take(
        &mut lap.started,
        r.date_start.filter(|t| *t <= clock),
        newer,
    );
    take(&mut lap.sectors[0], r.duration_sector_1, newer);
    take(&mut lap.sectors[1], r.duration_sector_2, newer);
    take(&mut lap.sectors[2], r.duration_sector_3, newer);
    take(&mut lap.duration, r.lap_duration, newer);
    lap.version = lap.version.max(version);
    lap.is_out_lap |=
        r.is_pit_out_lap == Some(true) || edge(&r.segments_sector_1, false) == Some(PIT_LANE);
    lap.is_in_lap |= edge(&r.segments_sector_3, true) == Some(PIT_LANE);
}
