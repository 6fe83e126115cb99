//! What is known about a car's next stop when it crosses the line (or later on the lap): one row of
//! [`FEATURES`] numbers, for training and for serving alike.
//!
//! Nothing names a driver, a team or a circuit: tyres, distance, pace, the field's stops, gaps, weather.
//! What is not known is NaN; a network's input takes the mean of its training instead.
//!
//! **Invariant:** pure, and from the view alone: a row says nothing that the view did not know.

use crate::predict::distance::Distance;
use crate::predict::floor::{COMPOUNDS, compound_index};
use crate::predict::laptime::median;
use crate::predict::view::{CarView, LapView, View, is_wet};
use crate::race::TrackStatus;
use crate::record::Time;

/// Version of the definition: a model trained on another is refused.
pub const VERSION: u32 = 1;
/// Numbers in a row.
pub const FEATURES: usize = 72;

/// Names of the columns. Laps unless the name says otherwise: `_share` 0–1, `_s` seconds, `_c` °C,
/// `is_` 0 or 1, `n_` cars.
pub const NAMES: [&str; FEATURES] = [
    "left",
    "left_share",
    "total",
    "age",
    "age_over_life",
    "life",
    "is_soft",
    "is_medium",
    "is_hard",
    "is_intermediate",
    "is_wet_tyre",
    "life_soft",
    "life_medium",
    "life_hard",
    "pit_loss_s",
    "stint_laps",
    "stops",
    "is_rule_open",
    "reach",
    "reach_best",
    "plan_left",
    "is_virtual_safety_car",
    "is_safety_car",
    "safety_car_laps",
    "fade",
    "last_against_recent",
    "slope_s",
    "against_field",
    "against_new_tyres",
    "more_stops_share",
    "fewer_stops_share",
    "stops_below_median",
    "younger_share",
    "n_same_compound",
    "age_over_median_end",
    "age_over_first_end",
    "age_over_last_end",
    "n_ends",
    "n_in_20_s",
    "n_in_100_s",
    "n_in_300_s",
    "position",
    "gap_ahead_s",
    "ahead_age",
    "is_ahead_stopped",
    "gap_behind_s",
    "behind_age",
    "is_behind_stopped",
    "lost_places",
    "rejoin_gap_s",
    "n_near_stopped",
    "n_ahead_stopped",
    "n_undercut",
    "mate_since_stop",
    "mate_more_stops",
    "mate_age",
    "is_wet",
    "other_kind_share",
    "other_kind_faster_share",
    "is_rain",
    "track_c",
    "last_stop_lap",
    "n_running",
    "lap",
    "is_soft_used",
    "is_medium_used",
    "is_hard_used",
    "fitted_soft_share",
    "fitted_medium_share",
    "fitted_hard_share",
    "fitted_intermediate_share",
    "fitted_wet_share",
];

/// A car that has not crossed the line for so long is out of the field (s).
const SILENT_S: f64 = 200.0;
/// Gaps are told up to here (s): beyond, a car is alone.
const FAR_S: f64 = 60.0;
/// A car this close is a rival on track (s).
const NEAR_S: f64 = 5.0;
/// Stops at most so many laps ago count as recent.
const RECENT_LAPS: u16 = 2;
/// Sets taken off younger than this were not worn out (laps).
const YOUNG_END: u16 = 4;
/// Clean laps that a trend within the stint needs, and takes at most.
const TREND: std::ops::RangeInclusive<usize> = 6..=8;
/// Share of the green pit loss that a stop costs under a virtual and a full safety car.
const CHEAPER: [f64; 2] = [0.65, 0.5];

/// Another car of the field, with what is asked of it again and again.
struct Other<'a> {
    car: &'a CarView,
    last: &'a LapView,
    stops: usize,
    /// Time behind this car (s, negative: ahead) at the last lap that both have ended.
    gap_s: Option<f64>,
    /// Laps since its last in-lap; `None` before the first stop.
    since_stop: Option<u16>,
}

/// The row for that car at this moment; `None` where no stop is predicted: no lap yet, in the pit lane,
/// tyres or their age not known, under red, after the flag.
pub fn row(view: &View, car: &CarView, distance: &Distance) -> Option<[f32; FEATURES]> {
    let last = car.last()?;
    let compound = compound_index(last.compound)?;
    let age = f64::from(last.age?);
    let stopped = matches!(view.status, TrackStatus::Red | TrackStatus::Chequered);
    if last.is_in || !car.runs() || stopped || view.finished || distance.laps <= last.number {
        return None;
    }
    let now = view.clock;
    let others = others(view, car, now);
    let mut row = Row::default();
    let life = distance.life_laps(compound).max(4.0);
    row.distance_and_tyres(car, last, distance, (compound, age, life));
    row.status(view, car);
    row.pace(car, last, &others);
    row.field(car, last, age, &others, now);
    row.neighbours(view, car, last, distance, &others);
    row.weather(view, car, last, &others);
    row.compounds(car, &others);
    Some(row.finish())
}

/// A row in the making, by name of the column.
struct Row {
    values: [f32; FEATURES],
    next: usize,
}

impl Default for Row {
    fn default() -> Row {
        Row {
            values: [f32::NAN; FEATURES],
            next: 0,
        }
    }
}

impl Row {
    /// Values come in the order of [`NAMES`], which the debug build checks.
    fn put(&mut self, name: &str, value: impl Into<Option<f64>>) {
        debug_assert_eq!(NAMES[self.next], name, "columns come in the order of NAMES");
        // Narrowing: features need no more than f32 holds.
        self.values[self.next] = value.into().map_or(f32::NAN, |v| v as f32);
        self.next += 1;
    }

    fn is(&mut self, name: &str, holds: bool) {
        self.put(name, f64::from(u8::from(holds)));
    }

    fn finish(self) -> [f32; FEATURES] {
        debug_assert_eq!(self.next, FEATURES);
        self.values
    }

    fn distance_and_tyres(
        &mut self,
        car: &CarView,
        last: &LapView,
        distance: &Distance,
        (compound, age, life): (usize, f64, f64),
    ) {
        let left = f64::from(distance.laps.saturating_sub(last.number));
        let dry = [0, 1, 2].map(|k| distance.life_laps(k));
        self.put("left", left);
        self.put("left_share", left / f64::from(distance.laps.max(1)));
        self.put("total", f64::from(distance.laps));
        self.put("age", age);
        self.put("age_over_life", (age + 1.0) / life);
        self.put("life", life);
        for (k, name) in NAMES[6..11].iter().enumerate() {
            self.is(name, k == compound);
        }
        self.put("life_soft", dry[0]);
        self.put("life_medium", dry[1]);
        self.put("life_hard", dry[2]);
        self.put("pit_loss_s", distance.pit_loss_s());
        let stint = car.laps.iter().filter(|l| l.stint == last.stint).count();
        self.put("stint_laps", stint as f64);
        self.put("stops", stops(car) as f64);
        self.is("is_rule_open", car.owes_compound());
        let longest = dry.into_iter().fold(4.0, f64::max);
        self.put("reach", (age + left) / life);
        self.put("reach_best", left / longest);
        self.put("plan_left", left / (life - age).max(1.0));
    }

    fn status(&mut self, view: &View, car: &CarView) {
        use TrackStatus::{SafetyCar, VirtualSafetyCar, VirtualSafetyCarEnding};
        let slow = matches!(view.status, VirtualSafetyCar | VirtualSafetyCarEnding);
        self.is("is_virtual_safety_car", slow);
        self.is("is_safety_car", view.status == SafetyCar);
        let behind = car.laps.iter().rev().take_while(|l| l.saw(SafetyCar));
        self.put("safety_car_laps", behind.count() as f64);
    }

    fn pace(&mut self, car: &CarView, last: &LapView, others: &[Other<'_>]) {
        let stint: Vec<f64> = car
            .laps
            .iter()
            .filter(|l| l.stint == last.stint && l.is_clean())
            .filter_map(|l| l.time_s)
            .collect();
        let own = last.time_s.filter(|t| *t > 0.0);
        let over = |reference: Option<f64>| Some((own? - reference?) / own?);
        let clean = own.filter(|_| last.is_clean());
        let mut best = stint.clone();
        best.sort_unstable_by(f64::total_cmp);
        best.truncate(3);
        let fade = (stint.len() >= 4 && clean.is_some())
            .then(|| over(median(&mut best)))
            .flatten();
        self.put("fade", fade);
        let before = stint.len().saturating_sub(6)..stint.len().saturating_sub(1);
        let recent = (stint.len() >= 4).then(|| median(&mut stint[before].to_vec()));
        self.put("last_against_recent", over(recent.flatten()));
        let tail = &stint[stint.len().saturating_sub(*TREND.end())..];
        self.put(
            "slope_s",
            (tail.len() >= *TREND.start()).then(|| slope(tail)),
        );
        let times = |young: bool| -> Option<f64> {
            let clean = others.iter().filter(|o| o.last.is_clean());
            let mut times: Vec<f64> = clean
                .filter(|o| !young || o.last.age.is_some_and(|a| a <= 6))
                .filter_map(|o| o.last.time_s)
                .collect();
            median(&mut times)
        };
        self.put("against_field", over(times(false)));
        self.put("against_new_tyres", clean.and_then(|_| over(times(true))));
    }

    fn field(&mut self, car: &CarView, last: &LapView, age: f64, others: &[Other<'_>], now: Time) {
        let n = others.len().max(1) as f64;
        let own = stops(car);
        let share = |holds: &dyn Fn(&Other<'_>) -> bool| {
            others.iter().filter(|o| holds(o)).count() as f64 / n
        };
        self.put("more_stops_share", share(&|o| o.stops > own));
        self.put("fewer_stops_share", share(&|o| o.stops < own));
        let mut all: Vec<f64> = others.iter().map(|o| o.stops as f64).collect();
        self.put(
            "stops_below_median",
            median(&mut all).map(|m| m - own as f64),
        );
        let younger = |o: &Other<'_>| o.last.age.is_some_and(|a| f64::from(a) < age);
        self.put("younger_share", share(&younger));
        let same = others.iter().filter(|o| o.last.compound == last.compound);
        self.put("n_same_compound", same.count() as f64);
        let mut ends: Vec<f64> = Vec::new();
        let mut in_laps = [0u32; 3];
        for lap in others.iter().flat_map(|o| &o.car.laps).filter(|l| l.is_in) {
            if lap.compound == last.compound {
                ends.extend(lap.age.filter(|a| *a >= YOUNG_END).map(f64::from));
            }
            let ago = lap.ended.map_or(f64::INFINITY, |t| now.seconds_since(t));
            for (count, within) in in_laps.iter_mut().zip([20.0, 100.0, 300.0]) {
                *count += u32::from(ago < within);
            }
        }
        let past = |end: Option<f64>| end.map(|e| age + 1.0 - e);
        self.put("age_over_median_end", past(median(&mut ends)));
        self.put("age_over_first_end", past(ends.first().copied()));
        self.put("age_over_last_end", past(ends.last().copied()));
        self.put("n_ends", ends.len() as f64);
        for (name, count) in ["n_in_20_s", "n_in_100_s", "n_in_300_s"]
            .iter()
            .zip(in_laps)
        {
            self.put(name, f64::from(count));
        }
    }

    fn neighbours(
        &mut self,
        view: &View,
        car: &CarView,
        last: &LapView,
        distance: &Distance,
        others: &[Other<'_>],
    ) {
        let gaps = |behind: bool| {
            let on_that_side = others.iter().filter_map(move |o| {
                let gap = o.gap_s.filter(|g| (*g > 0.0) == behind)?;
                Some((gap.abs(), o))
            });
            on_that_side.min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let ahead_of_us = |o: &&Other<'_>| {
            o.last.number > last.number
                || (o.last.number == last.number && o.gap_s.is_some_and(|g| g < 0.0))
        };
        self.put(
            "position",
            1.0 + others.iter().filter(ahead_of_us).count() as f64,
        );
        let sides = [
            ["gap_ahead_s", "ahead_age", "is_ahead_stopped"],
            ["gap_behind_s", "behind_age", "is_behind_stopped"],
        ];
        for (behind, [gap, age, stopped]) in [false, true].into_iter().zip(sides) {
            let near = gaps(behind);
            self.put(gap, near.map(|n| n.0.min(FAR_S)));
            let older = near.and_then(|(_, o)| Some(f64::from(o.last.age?) - f64::from(last.age?)));
            self.put(age, older);
            self.is(stopped, near.is_some_and(|(_, o)| recently(o)));
        }
        let cheaper = match view.status {
            TrackStatus::SafetyCar => CHEAPER[1],
            TrackStatus::VirtualSafetyCar | TrackStatus::VirtualSafetyCarEnding => CHEAPER[0],
            _ => 1.0,
        };
        let loss = distance.pit_loss_s() * cheaper;
        let passing = |o: &&Other<'_>| o.gap_s.is_some_and(|g| g > 0.0 && g < loss);
        let passed = others.iter().filter(passing);
        self.put("lost_places", passed.clone().count() as f64);
        let rejoin = passed.filter_map(|o| Some(loss - o.gap_s?));
        self.put("rejoin_gap_s", rejoin.fold(30.0, f64::min));
        let near = |o: &&Other<'_>| o.gap_s.is_some_and(|g| g.abs() < NEAR_S) && o.last.is_in;
        self.put("n_near_stopped", others.iter().filter(near).count() as f64);
        let mut in_front: Vec<(f64, bool)> = others
            .iter()
            .filter_map(|o| Some((-o.gap_s.filter(|g| *g < 0.0)?, recently(o))))
            .collect();
        in_front.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let stopped = in_front.iter().take(3).filter(|c| c.1).count();
        self.put("n_ahead_stopped", stopped as f64);
        let undercutting = |o: &&Other<'_>| undercuts(car, last, o);
        self.put(
            "n_undercut",
            others.iter().filter(undercutting).count() as f64,
        );
        let mate = others
            .iter()
            .find(|o| !car.team.is_empty() && o.car.team == car.team);
        let since = mate.map(|m| m.since_stop.map_or(99.0, f64::from));
        self.put("mate_since_stop", since);
        self.put(
            "mate_more_stops",
            mate.map(|m| m.stops as f64 - stops(car) as f64),
        );
        let older = mate.and_then(|m| Some(f64::from(m.last.age?) - f64::from(last.age?)));
        self.put("mate_age", older);
        self.is("is_wet", is_wet(last.compound));
    }

    fn weather(&mut self, view: &View, car: &CarView, last: &LapView, others: &[Other<'_>]) {
        let other_kind = |o: &&Other<'_>| is_wet(o.last.compound) != is_wet(last.compound);
        let n = others.len().max(1) as f64;
        self.put(
            "other_kind_share",
            others.iter().filter(other_kind).count() as f64 / n,
        );
        let flying = |o: &&Other<'_>| !o.last.is_in && !o.last.is_out;
        let best = others
            .iter()
            .filter(other_kind)
            .filter(flying)
            .filter_map(|o| o.last.time_s)
            .min_by(f64::total_cmp);
        let faster = last
            .time_s
            .zip(best)
            .map(|(own, t)| (own - t) / own.max(1.0));
        self.put("other_kind_faster_share", faster);
        self.is("is_rain", view.raining);
        self.put("track_c", view.weather.track_c);
        let stop = car.laps.iter().rfind(|l| l.is_in);
        self.put("last_stop_lap", stop.map_or(0.0, |l| f64::from(l.number)));
        self.put("n_running", others.len() as f64 + 1.0);
        self.put("lap", f64::from(last.number));
    }

    /// What this car has raced on, and what the others have fitted so far in this race (share of their stops).
    fn compounds(&mut self, car: &CarView, others: &[Other<'_>]) {
        let used = car.compounds_used();
        for (name, compound) in NAMES[64..67].iter().zip(COMPOUNDS) {
            self.is(name, used.contains(&compound));
        }
        let mut fitted = [0.0_f64; 5];
        for pair in others.iter().flat_map(|o| o.car.laps.windows(2)) {
            if let (true, Some(k)) = (pair[0].is_in, compound_index(pair[1].compound)) {
                fitted[k] += 1.0;
            }
        }
        let all = fitted.iter().sum::<f64>().max(1.0);
        for (name, n) in NAMES[67..].iter().zip(fitted) {
            self.put(name, n / all);
        }
    }
}

fn stops(car: &CarView) -> usize {
    car.laps.iter().filter(|l| l.is_in).count()
}

fn recently(o: &Other<'_>) -> bool {
    o.since_stop.is_some_and(|n| n <= RECENT_LAPS)
}

/// The cars still running, this one left out.
fn others<'a>(view: &'a View, car: &CarView, now: Time) -> Vec<Other<'a>> {
    let here = view
        .cars
        .iter()
        .filter(|c| c.number != car.number && c.runs());
    here.filter_map(|o| {
        let last = o.last()?;
        (now.seconds_since(last.ended?) < SILENT_S).then(|| Other {
            car: o,
            last,
            stops: stops(o),
            gap_s: gap(car, o),
            since_stop: o
                .laps
                .iter()
                .rfind(|l| l.is_in)
                .map(|l| last.number - l.number),
        })
    })
    .collect()
}

/// How far `o` is behind `car` (s; negative: ahead) at the last lap that both have ended; `None` where they
/// are more than a lap apart.
fn gap(car: &CarView, o: &CarView) -> Option<f64> {
    let (own, theirs) = (car.laps_completed(), o.laps_completed());
    if own.abs_diff(theirs) > 1 {
        return None;
    }
    let lap = own.min(theirs);
    Some(o.lap(lap)?.ended?.seconds_since(car.lap(lap)?.ended?))
}

/// Whether that car was close behind on the lap before it stopped, which it did lately.
fn undercuts(car: &CarView, last: &LapView, o: &Other<'_>) -> bool {
    let Some(stop) = o.car.laps.iter().rfind(|l| l.is_in) else {
        return false;
    };
    if stop.number + 3 < last.number || stop.number < 2 {
        return false;
    }
    let at = |c: &CarView| c.lap(stop.number - 1)?.ended;
    at(o.car)
        .zip(at(car))
        .is_some_and(|(theirs, own)| (0.0..NEAR_S).contains(&theirs.seconds_since(own)))
}

/// Slope of a straight line through equally spaced values (per step).
fn slope(y: &[f64]) -> f64 {
    let n = y.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let mean = y.iter().sum::<f64>() / n;
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, v) in y.iter().enumerate() {
        let x = i as f64 - middle;
        xy += x * (v - mean);
        xx += x * x;
    }
    if xx > 0.0 { xy / xx } else { 0.0 }
}
