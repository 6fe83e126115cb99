//! The next lap, as the model `laptime` sees it: one row when a lap ends, one more after each sector.
//!
//! Everything is told against the car's own base, the median of its last three clean laps of the stint, so
//! that circuits, seasons and fuel loads drop out: the model predicts the difference to the base (s). What a
//! race engineer looks at is here: the last clean laps and how they scatter, tyres, fuel, traffic in front
//! and behind (blue flags), how the rest of the field moved on its latest laps and in the sectors that it
//! has already driven of this one, the teammate, weather and track status.
//!
//! Values are clipped and scaled to about −3…3; what is not known is 0 with a mask column beside it.

use super::super::laptime::{RECENT, median, recent_clean, reference};
use super::super::view::{CarView, LapView, View, is_wet};
use crate::race::{Compound, TrackStatus};
use crate::record::Time;

/// Definition of the columns; a model names the one that it was trained on.
pub const VERSION: u32 = 1;

/// Columns at the line, by name.
pub const LINE_COLUMNS: &[&str] = &[
    "clean_laps",
    "lag",
    "p1",
    "p2",
    "p3",
    "p4",
    "p5",
    "scatter",
    "slope",
    "stint_best",
    "stint_median",
    "last",
    "last_clean",
    "last_in",
    "last_out",
    "last_yellow",
    "last_slow",
    "last_red",
    "since_slow",
    "s1",
    "s2",
    "s3",
    "s_known",
    "s1_step",
    "s2_step",
    "s3_step",
    "age",
    "stint_laps",
    "age_at_start",
    "soft",
    "medium",
    "hard",
    "intermediate",
    "wet",
    "dry_unknown",
    "fraction",
    "remaining",
    "lap",
    "lap_2",
    "lap_3",
    "lap_s",
    "rank",
    "pace_to_field",
    "pace_to_best",
    "now_yellow",
    "now_slow",
    "raining",
    "track_c",
    "air_c",
    "humidity",
    "wind",
    "weather_known",
    "gap",
    "gap_near",
    "gap_close",
    "gap_before",
    "gap_step",
    "ahead_pace",
    "ahead_pace_near",
    "ahead_last",
    "ahead_lapped",
    "ahead_lapping",
    "ahead_age",
    "gap_2",
    "ahead_2_pace",
    "behind",
    "behind_near",
    "behind_pace",
    "behind_lapping",
    "lapping_soon",
    "lapped_soon",
    "field_step",
    "field_drift",
    "field_count",
    "late_step",
    "late_drift",
    "wide_step",
    "same_step",
    "same_slope",
    "same_count",
    "field_slope",
    "field_scatter",
    "field_s1",
    "field_s1_count",
    "field_s2",
    "field_s2_count",
    "mate_step",
    "mate_drift",
    "mate_pace",
    "mate_known",
    "own_to_field",
    "to_qualifying",
    "field_last",
    "field_pits",
    "field_wet",
    "lapping_far",
    "trend",
    "trend_late",
    "trend_count",
    "ahead_trend",
];
/// Columns at the line.
pub const LINE: usize = LINE_COLUMNS.len();

/// Columns after sector 1 or 2, by name.
pub const SECTOR_COLUMNS: &[&str] = &[
    "known_last",
    "known_median",
    "known_clip",
    "newest_last",
    "newest_median",
    "share",
    "mask",
    "field_known",
    "field_known_count",
    "field_newest",
    "late_known",
    "ahead_known",
    "ahead_newest",
    "gap",
    "gap_near",
    "gap_step",
    "field_step",
    "late_step",
    "late_drift",
    "now_yellow",
    "now_slow",
    "carried",
    "rest_1",
    "rest_2",
    "rest_3",
    "rest_4",
    "rest_5",
    "rest_scatter",
    "field_rest",
    "late_rest",
    "ahead_rest",
];
/// Columns after a sector.
pub const SECTOR: usize = SECTOR_COLUMNS.len();

/// Base where a car has driven nothing at all (s).
const SOME_LAP_S: f64 = 90.0;
/// Fewest cars whose median counts.
const FEW: usize = 3;
/// Cars that crossed the line last, for what is freshest.
const LATE: usize = 5;
/// A base that is this many field's qualifying times tells of a wait on the grid, not of pace.
const NO_PACE: f64 = 1.3;
/// A first clean lap where only qualifying is known, as a ratio to it.
const RACE_TO_QUALIFYING: f64 = 1.07;
/// A lap this much slower than the next is no pace either.
const ODD_LAP: f64 = 1.08;
/// A car that has gone to the pits is not in the way for so long (s).
const IN_PITS_S: f64 = 25.0;

/// A row at the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What the model's answer is added to (s).
    pub base_s: f64,
    /// Whether there is a clean lap of this stint behind it: else the floor answers.
    pub flying: bool,
    /// [`LINE_COLUMNS`].
    pub x: [f32; LINE],
}

/// A row after a sector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sector {
    /// What the model's answer is added to: known sectors and the typical rest (s).
    pub base_s: f64,
    /// [`SECTOR_COLUMNS`].
    pub x: [f32; SECTOR],
}

/// Fills a row column by column and counts along.
struct Row<'a> {
    x: &'a mut [f32],
    at: usize,
}

impl Row<'_> {
    fn put(&mut self, value: f64) {
        if let Some(x) = self.x.get_mut(self.at) {
            *x = if value.is_finite() { value as f32 } else { 0.0 };
        }
        self.at += 1;
    }

    fn flag(&mut self, yes: bool) {
        self.put(f64::from(u8::from(yes)));
    }

    /// Seconds, clipped to ±`bound`.
    fn seconds(&mut self, value: Option<f64>, bound: f64) {
        self.put(value.unwrap_or(0.0).clamp(-bound, bound));
    }
}

type Few = heapless::Vec<f64, 32>;

/// What one other car says about the field.
struct Other<'a> {
    car: &'a CarView,
    ended: Time,
    /// Since it crossed the line (s).
    since: f64,
    /// Median of its last three clean laps (s).
    base: f64,
    /// Its last lap against the one before, both clean and consecutive (s).
    step: Option<f64>,
    /// Its last lap, clean, against the median of those before (s).
    drift: Option<f64>,
    slope: Option<f64>,
    scatter: f64,
}

/// The car's times of the latest clean laps in the stint, newest first, and their laps.
struct Own<'a> {
    recent: heapless::Vec<&'a LapView, RECENT>,
    times: Few,
    base: f64,
}

impl<'a> Own<'a> {
    /// As [`Own::of`], with a base that is pace: not a wait on the grid at a restart.
    fn sane(view: &View, car: &'a CarView) -> Own<'a> {
        let mut own = Own::of(car);
        if let Some(qualifying) = qualifying(view)
            && !on_wet_tyres(car)
            && own.base > NO_PACE * qualifying
        {
            let other = reference(&car.laps).filter(|r| *r <= NO_PACE * qualifying);
            own.base = other.unwrap_or(RACE_TO_QUALIFYING * qualifying);
        }
        own
    }

    fn of(car: &'a CarView) -> Own<'a> {
        let recent = recent_clean(&car.laps);
        let times: Few = recent.iter().filter_map(|l| l.time_s).collect();
        let base = base(&times)
            .or_else(|| reference(&car.laps))
            .or_else(|| car.laps.iter().rev().find_map(|l| l.time_s))
            .unwrap_or(SOME_LAP_S);
        Own {
            recent,
            times,
            base,
        }
    }
}

/// Median of the field's qualifying times (s).
fn qualifying(view: &View) -> Option<f64> {
    let times: Few = view
        .cars
        .iter()
        .filter_map(|c| c.qualifying_s)
        .take(32)
        .collect();
    middle(&times)
}

fn base(times: &[f64]) -> Option<f64> {
    if let [a, b] = *times
        && a.max(b) > ODD_LAP * a.min(b)
    {
        return Some(a.min(b));
    }
    middle(&times[..times.len().min(3)])
}

fn middle(x: &[f64]) -> Option<f64> {
    let mut copy: Few = x.iter().take(32).copied().collect();
    median(&mut copy)
}

/// A median of at least [`FEW`].
fn settled(x: &[f64]) -> Option<f64> {
    (x.len() >= FEW).then(|| middle(x)).flatten()
}

/// Least squares slope of times over laps (s a lap).
fn slope(recent: &[&LapView]) -> Option<f64> {
    if recent.len() < 3 {
        return None;
    }
    let n = recent.len() as f64;
    let points = || {
        recent
            .iter()
            .filter_map(|l| Some((f64::from(l.number), l.time_s?)))
    };
    let (mx, my) = points().fold((0.0, 0.0), |m, (x, y)| (m.0 + x / n, m.1 + y / n));
    let (xy, xx) = points().fold((0.0, 0.0), |s, (x, y)| {
        (s.0 + (x - mx) * (y - my), s.1 + (x - mx) * (x - mx))
    });
    (xx > 0.0).then(|| xy / xx)
}

fn scatter(times: &[f64]) -> f64 {
    let m = middle(times).unwrap_or(0.0);
    let off: Few = times.iter().map(|t| (t - m).abs()).collect();
    middle(&off).unwrap_or(0.0)
}

fn others<'a>(view: &'a View, car: &CarView, now: Time) -> heapless::Vec<Other<'a>, 32> {
    let mut found = heapless::Vec::new();
    for other in view
        .cars
        .iter()
        .filter(|c| c.number != car.number && c.runs())
    {
        let Some((last, ended)) = other.last().and_then(|l| Some((l, l.ended?))) else {
            continue;
        };
        let own = Own::of(other);
        let newest = own.recent.first().filter(|l| l.number == last.number);
        let before = own.recent.get(1).filter(|l| l.number + 1 == last.number);
        let step = newest
            .zip(before)
            .and_then(|(a, b)| Some(a.time_s? - b.time_s?));
        let drift = newest
            .filter(|_| own.times.len() >= 3)
            .and_then(|l| Some(l.time_s? - middle(&own.times[1..])?));
        let made = Other {
            car: other,
            ended,
            since: now.seconds_since(ended),
            base: own.base,
            step,
            drift,
            slope: slope(&own.recent),
            scatter: scatter(&own.times),
        };
        if found.push(made).is_err() {
            break;
        }
    }
    // Who crossed the line last comes first.
    found.sort_unstable_by(|a: &Other, b| {
        b.ended.cmp(&a.ended).then(a.car.number.cmp(&b.car.number))
    });
    found
}

/// The car that crossed the line last before `at`: how long before (s).
fn gap_at(view: &View, car: &CarView, at: Time) -> Option<(u8, f64)> {
    let crossed = |c: &CarView| {
        let last = c
            .laps
            .iter()
            .rev()
            .find(|l| l.ended.is_some_and(|t| t <= at))?;
        let pits = last.is_in;
        let gap = at.seconds_since(last.ended?);
        (!pits || gap > IN_PITS_S).then_some((c.number, gap))
    };
    let found = view
        .cars
        .iter()
        .filter(|c| c.number != car.number)
        .filter_map(crossed);
    found.min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)))
}

/// The row for the lap after the one that `car` has just completed. `race_laps`: laps of the whole race.
/// `None` before its first lap.
pub fn line(view: &View, car: &CarView, race_laps: u16) -> Option<Line> {
    let last = car.last()?;
    let now = last.ended.unwrap_or(view.clock);
    let own = Own::sane(view, car);
    let mut x = [0.0; LINE];
    let mut row = Row { x: &mut x, at: 0 };
    put_own(&mut row, car, last, &own);
    put_sectors(&mut row, &own);
    put_tyres(&mut row, car, last);
    put_race(&mut row, view, car, last, &own, race_laps);
    put_weather(&mut row, view);
    let others = others(view, car, now);
    put_traffic(&mut row, view, car, &own, &others);
    put_field(&mut row, car, last, &own, &others);
    put_change(&mut row, view, car, &own, &others);
    debug_assert_eq!(row.at, LINE);
    Some(Line {
        base_s: own.base,
        flying: !own.times.is_empty(),
        x,
    })
}

fn put_own(row: &mut Row, car: &CarView, last: &LapView, own: &Own) {
    let b = own.base;
    let n = last.number;
    row.put(own.times.len() as f64 / RECENT as f64);
    let lag = own
        .recent
        .first()
        .map_or(10, |l| n.saturating_sub(l.number));
    row.put(f64::from(lag.min(10)) / 5.0);
    for i in 0..RECENT {
        row.seconds(own.times.get(i).map(|t| t - b), 3.0);
    }
    row.put(scatter(&own.times).min(2.0));
    row.seconds(slope(&own.recent), 1.0);
    let stint = || {
        car.laps
            .iter()
            .rev()
            .take_while(|l| l.stint == last.stint)
            .filter(|l| l.is_clean())
    };
    let best = stint().filter_map(|l| l.time_s).min_by(f64::total_cmp);
    row.seconds(best.map(|t| t - b), 3.0);
    let stint_times: Few = stint().filter_map(|l| l.time_s).take(32).collect();
    row.seconds(middle(&stint_times).map(|t| t - b), 3.0);
    row.seconds(last.time_s.map(|t| (t - b) / 3.0), 3.0);
    row.flag(last.is_clean());
    row.flag(last.is_in);
    row.flag(last.is_out);
    row.flag(last.saw(TrackStatus::Yellow));
    row.flag(last.saw(TrackStatus::SafetyCar) || last.saw(TrackStatus::VirtualSafetyCar));
    row.flag(last.saw(TrackStatus::Red));
    let slow = |l: &&LapView| {
        l.saw(TrackStatus::SafetyCar)
            || l.saw(TrackStatus::VirtualSafetyCar)
            || l.saw(TrackStatus::Red)
    };
    let since = car
        .laps
        .iter()
        .rev()
        .find(slow)
        .map_or(10, |l| n.saturating_sub(l.number));
    row.put(f64::from(since.min(10)) / 10.0);
}

fn put_sectors(row: &mut Row, own: &Own) {
    let known = own
        .recent
        .first()
        .filter(|l| l.sectors.iter().all(Option::is_some));
    for s in 0..3 {
        let all: Few = own.recent.iter().filter_map(|l| l.sectors[s]).collect();
        let d = known.and_then(|l| Some(l.sectors[s]? - middle(&all)?));
        row.seconds(d, 1.5);
    }
    row.flag(known.is_some());
    for s in 0..3 {
        let step = known.and_then(|l| Some(l.sectors[s]? - own.recent.get(1)?.sectors[s]?));
        row.seconds(step, 1.5);
    }
}

fn put_tyres(row: &mut Row, car: &CarView, last: &LapView) {
    let laps = car
        .laps
        .iter()
        .rev()
        .take_while(|l| l.stint == last.stint)
        .count();
    let age = last.age.map_or(laps as f64, f64::from);
    row.put(age.min(50.0) / 20.0);
    row.put((laps as f64).min(50.0) / 20.0);
    row.put((age - laps as f64).clamp(0.0, 10.0) / 5.0);
    for kind in [
        Compound::Soft,
        Compound::Medium,
        Compound::Hard,
        Compound::Intermediate,
        Compound::Wet,
        Compound::Unknown,
    ] {
        row.flag(last.compound == kind);
    }
}

fn put_race(row: &mut Row, view: &View, car: &CarView, last: &LapView, own: &Own, race_laps: u16) {
    let n = f64::from(last.number);
    let total = f64::from(race_laps.max(last.number));
    row.put(n / total);
    row.put((total - n).min(20.0) / 20.0);
    row.put(n / 60.0);
    row.flag(last.number == 1);
    row.flag(last.number == 2);
    row.put((own.base - 85.0) / 15.0);
    let ahead = view
        .cars
        .iter()
        .filter(|c| c.number != car.number && is_ahead(c, car))
        .count();
    row.put(ahead as f64 / 20.0);
    let bases: Few = view
        .cars
        .iter()
        .filter(|c| c.runs() && c.number != car.number)
        .filter_map(|c| base(&Own::of(c).times))
        .take(32)
        .collect();
    row.seconds(settled(&bases).map(|m| own.base - m), 3.0);
    let best = bases.iter().copied().min_by(f64::total_cmp);
    row.seconds(best.map(|m| own.base - m), 5.0);
}

/// Whether it has gone further: more laps, or as many and sooner.
fn is_ahead(other: &CarView, car: &CarView) -> bool {
    let key = |c: &CarView| c.last().and_then(|l| Some((l.number, l.ended?)));
    match (key(other), key(car)) {
        (Some((a, at)), Some((b, bt))) => a > b || (a == b && at < bt),
        (Some(_), None) => true,
        _ => false,
    }
}

fn put_status(row: &mut Row, view: &View) {
    use TrackStatus::{SafetyCar, VirtualSafetyCar, VirtualSafetyCarEnding, Yellow};
    row.flag(view.status == Yellow);
    row.flag(matches!(
        view.status,
        SafetyCar | VirtualSafetyCar | VirtualSafetyCarEnding
    ));
}

fn put_weather(row: &mut Row, view: &View) {
    put_status(row, view);
    row.flag(view.raining);
    let w = &view.weather;
    row.put(w.track_c.map_or(0.0, |t| (t - 38.0) / 12.0));
    row.put(w.air_c.map_or(0.0, |t| (t - 24.0) / 8.0));
    row.put(w.humidity.map_or(0.0, |h| (h - 50.0) / 25.0));
    row.put(w.wind_ms.map_or(0.0, |v| (v - 2.0) / 2.0));
    row.flag(w.track_c.is_some());
}

/// A gap in three scales: to 30 s, and two that see only what is near.
fn put_gap(row: &mut Row, gap: f64) {
    row.put(gap.min(30.0) / 30.0);
    row.put(1.0 / (1.0 + gap));
    row.put((2.0 - gap).max(0.0));
}

fn put_traffic(row: &mut Row, view: &View, car: &CarView, own: &Own, others: &[Other]) {
    let laps = car.laps_completed();
    let b = own.base;
    let in_the_way = |o: &&Other| {
        let pits = o.car.last().is_some_and(|l| l.is_in);
        o.since >= 0.0 && (!pits || o.since > IN_PITS_S)
    };
    let mut ahead = others.iter().filter(in_the_way);
    let first = ahead.next();
    let gap = first.map_or(60.0, |o| o.since);
    put_gap(row, gap);
    let previous = car
        .laps
        .iter()
        .rev()
        .nth(1)
        .and_then(|l| gap_at(view, car, l.ended?));
    row.put(previous.map_or(60.0, |p| p.1).min(30.0) / 30.0);
    let same = first.zip(previous).filter(|(o, p)| o.car.number == p.0);
    row.seconds(same.map(|(o, p)| o.since - p.1), 2.0);
    let pace = first.map(|o| o.base - b);
    row.seconds(pace, 3.0);
    row.seconds(pace.map(|p| p * (1.0 - gap / 3.0).max(0.0)), 3.0);
    let last = first.and_then(|o| Some(o.car.last()?.time_s? - b));
    row.seconds(last.filter(|_| gap < 5.0), 3.0);
    let rank = |o: &Other| o.car.laps_completed();
    row.flag(first.is_some_and(|o| gap < 5.0 && rank(o) < laps));
    row.flag(first.is_some_and(|o| gap < 5.0 && rank(o) > laps));
    let age = |c: &CarView| c.last().and_then(|l| l.age).map(f64::from);
    let older = first.and_then(|o| Some((age(car)? - age(o.car)?) / 10.0));
    row.seconds(older, 3.0);
    let second = ahead.next();
    row.put(second.map_or(60.0, |o| o.since).min(30.0) / 30.0);
    row.seconds(second.filter(|o| o.since < 5.0).map(|o| o.base - b), 3.0);

    // Behind: when it should cross the line next, from its own pace.
    let due = |o: &Other| {
        let pits = o.car.last().is_some_and(|l| l.is_in);
        (!pits)
            .then_some(o.base - o.since)
            .filter(|d| *d > -2.0)
            .map(|d| d.max(0.0))
    };
    let behind = others
        .iter()
        .filter_map(|o| Some((due(o)?, o)))
        .min_by(|a, b| {
            a.0.total_cmp(&b.0)
                .then(a.1.car.number.cmp(&b.1.car.number))
        });
    let close = behind.as_ref().map_or(60.0, |d| d.0);
    row.put(close.min(30.0) / 30.0);
    row.put(1.0 / (1.0 + close));
    row.seconds(
        behind.as_ref().filter(|d| d.0 < 3.0).map(|d| d.1.base - b),
        3.0,
    );
    // A car that is about to begin a later lap than ours will lap us.
    let lapping = |o: &Other| o.car.laps_completed() >= laps;
    row.flag(behind.as_ref().is_some_and(|d| d.0 < 3.0 && lapping(d.1)));
    let soon = others
        .iter()
        .filter(|o| lapping(o) && due(o).is_some_and(|d| d < 1.0 + (b - o.base).clamp(0.0, 6.0)))
        .count();
    row.put(soon.min(4) as f64 / 2.0);
    let lapped = others
        .iter()
        .filter(|o| o.since >= 0.0 && o.car.laps_completed() < laps)
        .filter(|o| o.since < 1.0 + (o.base - b).clamp(0.0, 5.0))
        .count();
    row.put(lapped.min(4) as f64 / 2.0);
}

/// What changes for everyone: rain, restarts, the rush to the pits.
fn put_change(row: &mut Row, view: &View, car: &CarView, own: &Own, others: &[Other]) {
    let ratio = qualifying(view).map(|q| 10.0 * (own.base / q - 1.0));
    row.seconds(ratio, 3.0);
    let within = || others.iter().filter(|o| (0.0..own.base).contains(&o.since));
    let racing = |o: &&Other| o.car.last().is_some_and(|l| !l.is_in && !l.is_out);
    let last: Few = within()
        .filter(racing)
        .filter_map(|o| Some(o.car.last()?.time_s? - o.base))
        .collect();
    row.seconds(settled(&last).map(|d| d / 3.0), 5.0);
    let pits = within()
        .filter(|o| o.car.last().is_some_and(|l| l.is_in || l.is_out))
        .count();
    row.put(pits as f64 / 10.0);
    let wet = within().filter(|o| on_wet_tyres(o.car)).count();
    row.put(wet as f64 / 10.0);
    let laps = car.laps_completed();
    let far = others.iter().filter(|o| {
        let due = o.base - o.since;
        o.car.laps_completed() >= laps && (-2.0..8.0).contains(&due) && o.base < own.base
    });
    row.put(far.count().min(4) as f64 / 2.0);
    let mut trends: heapless::Vec<(f64, f64), 32> = others
        .iter()
        .filter_map(|o| trend(view, car, o))
        .map(|(since, change)| (since, change * own.base))
        .collect();
    trends.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let all: Few = trends.iter().map(|t| t.1).collect();
    row.seconds(settled(&all), 4.0);
    row.seconds(middle(&all[..all.len().min(LATE)]), 4.0);
    row.put(all.len() as f64 / 10.0);
    let ahead = others.first().filter(|o| (0.0..3.0).contains(&o.since));
    let ahead = ahead.and_then(|o| trend(view, car, o));
    row.seconds(ahead.map(|t| t.1 * own.base), 4.0);
}

/// The latest sector that another car has driven against the same one a lap before: how long ago (s), and how
/// much slower it was, as a share of it. What changes shows here first.
fn trend(view: &View, car: &CarView, other: &Other) -> Option<(f64, f64)> {
    let now = car.last().and_then(|l| l.ended).unwrap_or(view.clock);
    let mut laps = other.car.laps.iter().rev();
    let last = laps.next()?;
    let driven = |l: &LapView| (0..2).rev().find(|s| l.sectors[*s].is_some());
    let current = other.car.current.as_ref().filter(|l| driven(l).is_some());
    let (new, old, sector) = match current {
        Some(l) => (l, last, driven(l)?),
        None => (last, laps.next()?, 2),
    };
    let passed = new.started?.plus_seconds(new.first_sectors(sector + 1)?);
    let since = now.seconds_since(passed);
    let (a, b) = (new.sectors[sector]?, old.sectors[sector]?);
    let plain = old.is_clean() && !new.is_out && !(new.is_in && sector == 2) && b > 0.0;
    (plain && (0.0..other.base).contains(&since)).then_some((since, (a - b) / b))
}

fn put_field(row: &mut Row, car: &CarView, last: &LapView, own: &Own, others: &[Other]) {
    let b = own.base;
    let within = |o: &&Other| (0.0..b).contains(&o.since);
    let of = |f: &dyn Fn(&Other) -> Option<f64>| -> Few {
        others.iter().filter(within).filter_map(f).collect()
    };
    let steps = of(&|o| o.step);
    let drifts = of(&|o| o.drift);
    let step = settled(&steps);
    row.seconds(step, 3.0);
    row.seconds(settled(&drifts), 3.0);
    row.put(steps.len() as f64 / 10.0);
    row.seconds(middle(&steps[..steps.len().min(LATE)]), 3.0);
    row.seconds(middle(&drifts[..drifts.len().min(LATE)]), 3.0);
    row.seconds(step.map(|s| s / 3.0), 5.0);
    let alike = |o: &Other| {
        let other = o.car.last();
        other.is_some_and(|l| l.compound == last.compound && l.compound != Compound::Unknown)
    };
    let same = of(&|o| o.step.filter(|_| alike(o)));
    row.seconds(settled(&same), 3.0);
    let slopes = of(&|o| o.slope.filter(|_| alike(o)));
    row.seconds(settled(&slopes), 1.0);
    row.put(same.len() as f64 / 10.0);
    let all = of(&|o| o.slope);
    row.seconds(settled(&all), 1.0);
    let scatters = of(&|o| (o.scatter > 0.0).then_some(o.scatter));
    row.put(settled(&scatters).unwrap_or(0.0).min(2.0));
    for sectors in [1, 2] {
        let moves = field_sectors(others, sectors);
        row.seconds(settled(&moves), 2.0);
        row.put(moves.len() as f64 / 10.0);
    }
    let mate = others
        .iter()
        .find(|o| !car.team.is_empty() && o.car.team == car.team)
        .filter(within);
    row.seconds(mate.and_then(|o| o.step), 2.0);
    row.seconds(mate.and_then(|o| o.drift), 2.0);
    row.seconds(mate.map(|o| o.base - b), 3.0);
    row.flag(mate.is_some());
    // How far the last lap was off what the field did on its own.
    let drift = own.times.get(1).map(|t| own.times[0] - t);
    row.seconds(drift.zip(step).map(|(d, s)| d - s), 3.0);
}

/// The first sectors of the lap in progress against the car's own last three, over the cars that have driven
/// them, freshest line first.
fn field_sectors(others: &[Other], sectors: usize) -> Few {
    let moved = |o: &Other| {
        let now = o.car.current.as_ref()?.first_sectors(sectors)?;
        let recent = recent_clean(&o.car.laps);
        let sums: Few = recent
            .iter()
            .filter_map(|l| l.first_sectors(sectors))
            .collect();
        Some(now - middle(&sums[..sums.len().min(3)])?)
    };
    others.iter().filter_map(moved).collect()
}

/// The row once `sectors` (1 or 2) of the lap in progress are in. `None` where they or those of a clean lap of
/// this stint are not known.
pub fn sector(view: &View, car: &CarView, sectors: usize) -> Option<Sector> {
    let current = car.current.as_ref()?;
    let known = current.first_sectors(sectors)?;
    let own = Own::sane(view, car);
    let newest = own.recent.first()?.first_sectors(sectors)?;
    let sums: Few = own
        .recent
        .iter()
        .filter_map(|l| l.first_sectors(sectors))
        .collect();
    let typical = middle(&sums[..sums.len().min(3)])?;
    let now = current.started?.plus_seconds(known);
    let others = others(view, car, now);
    let mut x = [0.0; SECTOR];
    let mut row = Row { x: &mut x, at: 0 };
    row.seconds(Some(known - newest), 3.0);
    row.seconds(Some(known - typical), 3.0);
    row.seconds(Some(known - typical), 0.4);
    let part = |l: &LapView| l.sectors[sectors - 1];
    let parts: Few = own.recent.iter().filter_map(|l| part(l)).collect();
    row.seconds(
        part(current)
            .zip(own.recent.first().and_then(|l| part(l)))
            .map(|(a, b)| a - b),
        3.0,
    );
    row.seconds(part(current).zip(middle(&parts)).map(|(a, b)| a - b), 3.0);
    row.put(known / own.base);
    row.put(1.0);
    // What the others have just done in the same sectors: of the lap in progress, or of the one just over.
    let moved = |o: &Other, one: bool| {
        let of = |l: &LapView| {
            if one {
                part(l)
            } else {
                l.first_sectors(sectors)
            }
        };
        let mut laps = o.car.laps.iter().rev();
        let (new, old) = match o.car.current.as_ref().filter(|l| of(l).is_some()) {
            Some(l) => (*l, *laps.next()?),
            None => (*laps.next()?, *laps.next()?),
        };
        let passed = new.started?.plus_seconds(new.first_sectors(sectors)?);
        let since = now.seconds_since(passed);
        let fresh = (0.0..own.base).contains(&since) && old.is_clean() && !new.is_out;
        fresh.then_some((since, of(&new)? - of(&old)?))
    };
    let mut moves: heapless::Vec<(f64, f64), 32> =
        others.iter().filter_map(|o| moved(o, false)).collect();
    moves.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let all: Few = moves.iter().map(|m| m.1).collect();
    row.seconds(settled(&all), 2.0);
    row.put(all.len() as f64 / 10.0);
    let parts: Few = others
        .iter()
        .filter_map(|o| Some(moved(o, true)?.1))
        .collect();
    row.seconds(settled(&parts), 2.0);
    row.seconds(middle(&all[..all.len().min(LATE)]), 2.0);
    let ahead = moves.first().copied();
    let near = ahead.filter(|m| m.0 < 3.0);
    row.seconds(near.map(|m| m.1), 2.0);
    row.seconds(near.map(|m| m.1 - (known - newest)), 2.0);
    let gap = ahead.map_or(60.0, |m| m.0);
    row.put(gap.min(30.0) / 30.0);
    row.put(1.0 / (1.0 + gap));
    let line_gap = others
        .iter()
        .find(|o| o.ended <= car.last().and_then(|l| l.ended).unwrap_or(now));
    let at_line = line_gap.map(|o| {
        car.last()
            .and_then(|l| l.ended)
            .unwrap_or(now)
            .seconds_since(o.ended)
    });
    row.seconds(at_line.filter(|g| *g < 10.0).map(|g| gap - g), 2.0);
    let within = |o: &&Other| (0.0..own.base).contains(&o.since);
    let steps: Few = others
        .iter()
        .filter(within)
        .filter_map(|o| o.step)
        .collect();
    let drifts: Few = others
        .iter()
        .filter(within)
        .filter_map(|o| o.drift)
        .collect();
    row.seconds(settled(&steps), 3.0);
    row.seconds(middle(&steps[..steps.len().min(LATE)]), 3.0);
    row.seconds(middle(&drifts[..drifts.len().min(LATE)]), 3.0);
    put_status(&mut row, view);
    // The plain baseline against the base: the last clean lap with the known sectors in place of its own.
    let rests: Few = own
        .recent
        .iter()
        .filter_map(|l| Some(l.time_s? - l.first_sectors(sectors)?))
        .collect();
    let base_s = known + middle(&rests[..rests.len().min(3)])?;
    let carried = own.times.first().map(|t| t + known - newest - base_s);
    row.seconds(carried, 4.0);
    put_rest(&mut row, &own, &rests, &others, sectors, near.is_some());
    debug_assert_eq!(row.at, SECTOR);
    Some(Sector { base_s, x })
}

/// The sectors still to come: how they went on the car's own last laps, and how the others last drove them
/// against their own.
fn put_rest(row: &mut Row, own: &Own, rests: &[f64], others: &[Other], sectors: usize, near: bool) {
    let typical = middle(&rests[..rests.len().min(3)]).unwrap_or(0.0);
    for i in 0..RECENT {
        row.seconds(rests.get(i).map(|r| r - typical), 1.5);
    }
    row.put(scatter(rests).min(1.0));
    let moved = |o: &Other| {
        let rest = |l: &LapView| Some(l.time_s? - l.first_sectors(sectors)?);
        let last = o.car.last().filter(|l| l.is_clean())?;
        let recent = recent_clean(&o.car.laps);
        let before: Few = recent.iter().skip(1).filter_map(|l| rest(l)).collect();
        Some(rest(last)? - middle(&before)?)
    };
    let within = |o: &&Other| (0.0..own.base).contains(&o.since);
    let moves: Few = others.iter().filter(within).filter_map(moved).collect();
    row.seconds(settled(&moves), 1.5);
    row.seconds(middle(&moves[..moves.len().min(LATE)]), 1.5);
    row.seconds(others.first().filter(|_| near).and_then(moved), 1.5);
}

/// Whether the tyres that a lap ended on are for the wet.
pub fn on_wet_tyres(car: &CarView) -> bool {
    car.last().is_some_and(|l| is_wet(l.compound))
}
