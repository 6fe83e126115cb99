//! The next lap of a car: P10, P50 and P90 (s).
//!
//! A *flying* lap (green, no stop, a clean lap behind it on these tyres) is a linear median
//! regression on the last five clean laps of the stint, on how the rest of the field has just moved
//! against its own laps, on traffic, tyre age and compound. Every other kind of lap (out-lap, first
//! lap on new tyres, behind the safety car, under VSC, after a restart, dry to wet) is a ratio to the
//! car's reference lap. Known sectors replace their share. The interval comes from residuals of the
//! same kind: by how much history there is, how much the car scatters, dry or wet.
//!
//! The prediction is for a lap that ends under the status that holds now: a stop, a spin or a new
//! flag during it is not in the interval. Races and sprints only: what a car does on its next lap of
//! practice or qualifying is a run plan that the feed does not tell.
//!
//! Columns and tables are fitted by `engines/training/floor/pace.py`; both must walk alike.
//!
//! **Invariant:** + − × ÷ and comparisons only, in a fixed order, so that every IEEE machine gives
//! the same bits.

use super::distance::Distance;
use super::floor::{CARRIED_FEATURES, Floor, PACE_FEATURES, Triple};
use super::view::{CarView, LapView, View, is_wet};
use crate::race::{CarStatus, Compound, TrackStatus};
use crate::record::Time;
use crate::record::prediction::Quantiles;

/// Clean laps that a prediction looks back on.
pub const RECENT: usize = 5;
/// Laps that a search for clean laps goes back.
const BACK: usize = 30;
/// A clean lap slower than this many medians of the others says nothing about pace.
const SLOW_LAP: f64 = 1.12;
/// Edges of scatter (share of a lap) between steady, usual and ragged cars.
const SCATTER: [f64; 2] = [0.0012, 0.003];
/// Fewest cars that make a field.
const FIELD: usize = 3;
/// No car ahead (s).
const ALONE_S: f64 = 99.0;
/// Age of tyres where it is not known (laps).
const TYPICAL_AGE: f64 = 10.0;

/// Times of the latest clean laps in a car's stint, newest first (s).
type Recent = heapless::Vec<f64, RECENT>;

/// Which lap, from how many sectors, and its quantiles (s).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    pub lap: u16,
    pub sectors_known: u8,
    pub lap_time: Quantiles,
    /// The plain baseline: the last clean lap, with known sectors in place of its own (s).
    pub baseline_s: Option<f64>,
    /// Whether it is a lap at racing pace with a clean lap of the stint behind it: a trained model may speak.
    pub flying: bool,
    /// Date of the latest fact about the car that it rests on.
    pub rests_on: Option<Time>,
}

/// The median, sorting in place.
pub fn median(x: &mut [f64]) -> Option<f64> {
    if x.is_empty() {
        return None;
    }
    x.sort_unstable_by(f64::total_cmp);
    let middle = x.len() / 2;
    Some(if x.len() % 2 == 1 {
        x[middle]
    } else {
        0.5 * (x[middle - 1] + x[middle])
    })
}

fn median_of(x: &[f64]) -> Option<f64> {
    let mut copy: heapless::Vec<f64, 32> = x.iter().take(32).copied().collect();
    median(&mut copy)
}

/// The latest clean laps of the stint of the last lap, newest first; one much slower than the rest is
/// left out.
pub fn recent_clean(laps: &[LapView]) -> heapless::Vec<&LapView, RECENT> {
    let Some(last) = laps.last() else {
        return heapless::Vec::new();
    };
    let mut found: heapless::Vec<&LapView, RECENT> = laps
        .iter()
        .rev()
        .take_while(|l| l.stint == last.stint)
        .filter(|l| l.is_clean())
        .take(RECENT)
        .collect();
    if found.len() >= 3 {
        let mut times = times_of(&found);
        if let Some(middle) = median(&mut times) {
            found.retain(|l| l.time_s.is_some_and(|t| t <= SLOW_LAP * middle));
        }
    }
    found
}

/// Their times (s).
pub fn times_of(laps: &[&LapView]) -> Recent {
    laps.iter().filter_map(|l| l.time_s).take(RECENT).collect()
}

/// Median of the latest clean laps, whatever the stint (s).
pub fn reference(laps: &[LapView]) -> Option<f64> {
    let mut found: Recent = laps
        .iter()
        .rev()
        .take(BACK)
        .filter(|l| l.is_clean())
        .filter_map(|l| l.time_s)
        .take(RECENT)
        .collect();
    median(&mut found)
}

/// The next lap of that car, once `sectors_known` (0, 1, 2) of its sectors are in. `None` where
/// nothing honest can be said: under red, after the flag, a stopped car, no history and no grid time.
pub fn predict(
    view: &View,
    car: &CarView,
    distance: &Distance,
    floor: &Floor,
    sectors_known: u8,
) -> Option<Forecast> {
    let stopped = matches!(view.status, TrackStatus::Red | TrackStatus::Chequered);
    let lap = car.laps_completed() + 1;
    if !view.is_race() || !car.runs() || stopped || view.finished || lap > distance.laps {
        return None;
    }
    let current = car.current.filter(|l| l.number == lap);
    let sectors = usize::from(sectors_known.min(2));
    let known = if sectors == 0 {
        0.0
    } else {
        current?.first_sectors(sectors)?
    };
    let recent = recent_clean(&car.laps);
    let kind = kind(view, car, current.as_ref(), &recent);
    // The floor has its own ratio for the first laps after a restart; a model has learnt them.
    let racing = match kind {
        Kind::Flying => true,
        Kind::Ratio(kind) => kind == Ratio::Restart && !recent.is_empty(),
    };
    let (quantiles, baseline_s) = match kind {
        Kind::Flying => flying(view, car, &recent, floor, sectors, known)?,
        Kind::Ratio(kind) => (
            ratio(view, car, kind, distance, floor, sectors, known)?,
            None,
        ),
    };
    let crossed = car.last().and_then(|l| l.ended);
    let rests_on = match current.and_then(|l| l.started) {
        Some(start) if sectors > 0 => Some(start.plus_seconds(known)),
        _ => crossed,
    };
    Some(Forecast {
        lap,
        sectors_known: sectors as u8,
        lap_time: published(quantiles, known)?,
        baseline_s,
        flying: racing,
        rests_on,
    })
}

/// Rounded to a millisecond, in order, no faster than what is already driven.
pub(super) fn published(mut q: Triple, known: f64) -> Option<Quantiles> {
    if !q.iter().all(|v| v.is_finite()) {
        return None;
    }
    q.sort_unstable_by(f64::total_cmp);
    let [p10, p50, p90] = q.map(|v| (v.max(known).max(0.0) * 1000.0).round() / 1000.0);
    (p50 > 0.0).then_some(Quantiles { p10, p50, p90 })
}

/// What sort of lap comes next.
enum Kind {
    Flying,
    Ratio(Ratio),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ratio {
    Out,
    OutSlow,
    Fresh,
    SafetyCarFirst,
    SafetyCar,
    Virtual,
    Restart,
    Crossover,
}

fn kind(view: &View, car: &CarView, current: Option<&LapView>, recent: &[&LapView]) -> Kind {
    use TrackStatus::{Red, SafetyCar, VirtualSafetyCar, VirtualSafetyCarEnding};
    let Some(last) = car.last() else {
        return Kind::Ratio(Ratio::Fresh);
    };
    let slow = matches!(
        view.status,
        SafetyCar | VirtualSafetyCar | VirtualSafetyCarEnding
    );
    let out = last.is_in || car.status == CarStatus::InPit || current.is_some_and(|l| l.is_out);
    let fitted = current.map_or(last.compound, |l| l.compound);
    let before = car.laps.iter().rfind(|l| l.is_clean());
    let crossed = before.is_some_and(|b| {
        fitted != Compound::Unknown
            && b.compound != Compound::Unknown
            && is_wet(b.compound) != is_wet(fitted)
    });
    let followed = car
        .laps
        .iter()
        .rev()
        .take(2)
        .filter(|l| l.saw(SafetyCar))
        .count()
        == 2;
    Kind::Ratio(match view.status {
        _ if out && slow => Ratio::OutSlow,
        _ if out => Ratio::Out,
        SafetyCar if followed => Ratio::SafetyCar,
        SafetyCar => Ratio::SafetyCarFirst,
        VirtualSafetyCar | VirtualSafetyCarEnding => Ratio::Virtual,
        _ if crossed => Ratio::Crossover,
        _ if last.saw(SafetyCar) || last.saw(VirtualSafetyCar) || last.saw(Red) => Ratio::Restart,
        _ if recent.is_empty() => Ratio::Fresh,
        _ => return Kind::Flying,
    })
}

/// A lap as a ratio to the reference lap, or to qualifying where there is none.
fn ratio(
    view: &View,
    car: &CarView,
    kind: Ratio,
    distance: &Distance,
    floor: &Floor,
    sectors: usize,
    known: f64,
) -> Option<Triple> {
    let pace = &floor.pace;
    let own = reference(&car.laps);
    if own.is_none() && sectors > 0 {
        return None;
    }
    let rest_of = |table: &[Triple; 3], whole: f64, loss: f64| -> Option<Triple> {
        let done = if sectors == 0 {
            0.0
        } else {
            share(car, sectors)?
        };
        let rest = whole * (1.0 - done);
        Some(table[sectors].map(|q| known + rest * q + loss))
    };
    let loss = if sectors == 0 {
        distance.out_loss_s
    } else {
        0.0
    };
    match (kind, own) {
        (Ratio::Out, Some(r)) => rest_of(&pace.out, r, loss),
        (Ratio::OutSlow, Some(r)) => rest_of(&pace.out_slow, r, loss),
        (Ratio::Fresh, Some(r)) => rest_of(&pace.fresh, r, 0.0),
        (Ratio::SafetyCarFirst, Some(r)) => rest_of(&pace.safety_car_first, r, 0.0),
        (Ratio::SafetyCar, Some(r)) => rest_of(&pace.safety_car, r, 0.0),
        (Ratio::Virtual, Some(r)) => rest_of(&pace.r#virtual, r, 0.0),
        (Ratio::Restart, Some(r)) => rest_of(&pace.restart, r, 0.0),
        (Ratio::Crossover, Some(r)) => rest_of(&pace.crossover, r, 0.0),
        (Ratio::Fresh | Ratio::Restart, None) => opening(view, car, floor),
        (_, None) => None,
    }
}

/// Share of the lap that the first sectors take, from the car's latest clean lap that has all three.
fn share(car: &CarView, sectors: usize) -> Option<f64> {
    let whole = car
        .laps
        .iter()
        .rfind(|l| l.is_clean() && l.first_sectors(3).is_some())?;
    let sum = whole.first_sectors(3)?;
    (sum > 0.0).then_some(whole.first_sectors(sectors)? / sum)
}

/// Laps 1 and 2, and any lap before the car's first clean one: over the field's median qualifying.
fn opening(view: &View, car: &CarView, floor: &Floor) -> Option<Triple> {
    let fitted = car
        .current
        .or(car.last().copied())
        .map_or(Compound::Unknown, |l| l.compound);
    if is_wet(fitted) {
        return None;
    }
    let mut times: heapless::Vec<f64, 32> = view
        .cars
        .iter()
        .filter_map(|c| c.qualifying_s)
        .take(32)
        .collect();
    let field = median(&mut times)?;
    let table = if car.laps.is_empty() {
        floor.pace.lap_1
    } else {
        floor.pace.lap_2
    };
    Some(table.map(|q| field * q))
}

/// The regression: quantiles and the plain baseline.
fn flying(
    view: &View,
    car: &CarView,
    recent: &[&LapView],
    floor: &Floor,
    sectors: usize,
    known: f64,
) -> Option<(Triple, Option<f64>)> {
    let times = times_of(recent);
    let last = *times.first()?;
    let pace = &floor.pace;
    let ahead = dot(&pace.flying, &features(view, car, recent, &times)?);
    let bucket = bucket(&times, is_wet(car.last()?.compound))?;
    if sectors == 0 {
        let guess = last + ahead;
        return Some((pace.residual[bucket].map(|q| guess + q * last), Some(last)));
    }
    let sums: Recent = recent
        .iter()
        .filter_map(|l| l.first_sectors(sectors))
        .collect();
    let (newest, middle) = (*sums.first()?, median_of(&sums)?);
    let (weights, residual) = match sectors {
        1 => (&pace.after_1, &pace.residual_1),
        _ => (&pace.after_2, &pace.residual_2),
    };
    let guess = last + dot(weights, &carried(ahead, known, newest, middle));
    Some((
        residual[bucket].map(|q| guess + q * last),
        Some(last + known - newest),
    ))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + x * y)
}

fn clip(x: f64, bound: f64) -> f64 {
    x.clamp(-bound, bound)
}

fn flag(b: bool) -> f64 {
    if b { 1.0 } else { 0.0 }
}

/// Columns once sectors are known: `known` against their sum on the last and on the median clean lap.
fn carried(ahead: f64, known: f64, newest: f64, middle: f64) -> [f64; CARRIED_FEATURES] {
    let (a, b) = (known - newest, known - middle);
    [
        1.0,
        ahead,
        a,
        b,
        clip(a, 0.3),
        clip(b, 0.3),
        clip(a, 1.5),
        clip(b, 1.5),
    ]
}

/// Row of the residual tables: 1, 2 or more clean laps (steady, usual, ragged); 5 on for the wet.
fn bucket(times: &[f64], wet: bool) -> Option<usize> {
    let middle = median_of(times)?;
    let off: Recent = times.iter().map(|t| (t - middle).abs()).collect();
    let scatter = median_of(&off)? / times[0];
    let row = match times.len() {
        0 | 1 => 0,
        2 => 1,
        _ => 2 + SCATTER.iter().filter(|s| scatter >= **s).count(),
    };
    Some(row + if wet { 5 } else { 0 })
}

/// Columns of the flying lap, in the order of `features` in pace.py.
fn features(
    view: &View,
    car: &CarView,
    recent: &[&LapView],
    times: &[f64],
) -> Option<[f64; PACE_FEATURES]> {
    let last = car.last()?;
    let p1 = *times.first()?;
    let d1 = median_of(times)? - p1;
    let d2 = times.get(1).map_or(0.0, |p2| p2 - p1);
    let d3 = median_of(&times[..times.len().min(3)])? - p1;
    let lag = f64::from(last.number.saturating_sub(recent.first()?.number));
    let (drift, step) = field_moves(view, car, last.ended?, p1);
    let (gap, pace_ahead) = car_ahead(view, car, last.ended?);
    let da = pace_ahead.map_or(0.0, |p| p - p1);
    let wet = flag(is_wet(last.compound));
    let (close, near) = (flag(gap < 1.5), flag((1.5..3.0).contains(&gap)));
    let age = last.age.map_or(TYPICAL_AGE, f64::from).min(40.0);
    let (k, n) = (times.len(), last.number);
    let full = flag(k >= RECENT);
    Some([
        1.0,
        d1,
        d2,
        d3,
        clip(d1, 0.12),
        clip(d2, 0.12),
        clip(d1, 0.4),
        clip(d2, 0.4),
        clip(d1, 1.0),
        clip(d2, 1.0),
        clip(drift, 1.0),
        clip(drift, 5.0),
        clip(step, 0.3),
        clip(step, 3.0),
        wet * clip(drift, 3.0),
        wet * clip(step, 3.0),
        wet * clip(d1, 2.0),
        wet * clip(d2, 2.0),
        lag.min(5.0),
        close,
        close * clip(da, 1.0),
        close * clip(da.max(0.0), 1.0),
        near,
        near * clip(da, 1.0),
        flag(k == 1),
        flag(k == 2),
        flag(k == 3),
        age / 10.0,
        flag(last.compound == Compound::Soft),
        flag(last.compound == Compound::Hard),
        wet,
        flag(n == 2),
        flag(n == 3),
        full * d1,
        full * d2,
    ])
}

/// How the rest of the field has moved within the last lap (s): against the median of its own recent
/// laps, and against its own lap before.
fn field_moves(view: &View, car: &CarView, now: Time, within_s: f64) -> (f64, f64) {
    let mut drift: heapless::Vec<f64, 32> = heapless::Vec::new();
    let mut step: heapless::Vec<f64, 32> = heapless::Vec::new();
    for other in view.cars.iter().filter(|c| c.number != car.number).take(32) {
        let Some(ended) = other.last().and_then(|l| l.ended) else {
            continue;
        };
        let recent = recent_clean(&other.laps);
        let times = times_of(&recent);
        let latest = recent
            .first()
            .zip(other.last())
            .is_some_and(|(r, l)| r.number == l.number);
        if !latest || !(0.0..within_s).contains(&now.seconds_since(ended)) {
            continue;
        }
        if times.len() >= 3
            && let Some(middle) = median_of(&times[1..])
        {
            // At most 32 cars: there is room.
            let _ = drift.push(times[0] - middle);
        }
        if times.len() >= 2 && recent[1].number + 1 == recent[0].number {
            let _ = step.push(times[0] - times[1]);
        }
    }
    let settle = |x: &mut heapless::Vec<f64, 32>| {
        if x.len() >= FIELD {
            median(x).unwrap_or(0.0)
        } else {
            0.0
        }
    };
    (settle(&mut drift), settle(&mut step))
}

/// The car that crossed the line last before this one: how long ago (s), and its pace (s).
fn car_ahead(view: &View, car: &CarView, now: Time) -> (f64, Option<f64>) {
    let mut best: (f64, Option<&CarView>) = (ALONE_S, None);
    for other in view.cars.iter().filter(|c| c.number != car.number) {
        let Some(ended) = other.last().and_then(|l| l.ended) else {
            continue;
        };
        let gap = now.seconds_since(ended);
        if gap >= 0.0 && gap < best.0 {
            best = (gap, Some(other));
        }
    }
    let pace = best.1.and_then(|c| {
        let times = times_of(&recent_clean(&c.laps));
        median_of(&times[..times.len().min(3)])
    });
    (best.0, pace)
}
