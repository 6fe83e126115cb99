//! The next stop of a car: when, onto what, and why.
//!
//! A discrete-time hazard: the odds that the lap about to start is an in-lap are a base times one
//! fitted factor each of tyre age over the typical stint here, compound, laps to go (apart while the
//! two-compound rule is open), track status, a stop by a car close by, loss of pace in the stint,
//! the share of the field on the other kind of tyre (dry or wet), and stops made. Chaining the hazard
//! over the laps to come gives the rest. A safety car lasts [`SAFETY_CAR_STAYS`] of its chance from lap to
//! lap. No stop is foreseen on the last lap.
//!
//! **Invariant:** odds are fitted numbers, not exponentials: + − × ÷ only.

use super::distance::{Distance, MOST_LAPS};
use super::floor::{COMPOUNDS, Floor, Pit, compound_index};
use super::laptime::median;
use super::order::running_order;
use super::view::{CarView, LapView, View, is_wet};
use crate::race::{Compound, TrackStatus};
use crate::record::Time;
use crate::record::prediction::{CompoundChance, Quantiles};

/// Probability that a safety car that is out is still out a lap later.
pub const SAFETY_CAR_STAYS: f64 = 0.75;
/// The same for a virtual safety car.
const VIRTUAL_STAYS: f64 = 0.5;
/// Stops this close in time count as a rival's (s).
const RIVAL_S: f64 = 4.0;
/// A car this close behind can try the undercut (s).
const UNDERCUT_S: f64 = 3.0;
/// Share of its typical life from which a tyre is old enough for a safety-car stop.
const OLD: f64 = 0.4;
/// Laps in a stint that are needed to see it fade.
const FADE: usize = 4;
/// Laps within which a car that has not crossed the line is out of the field (s).
const SILENT_S: f64 = 200.0;
/// Below this, the in-lap of a stop that is unlikely to come is not worth a word.
pub(super) const RARE: f64 = 0.02;

/// What is known about a car's stops at the end of a lap.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// Laps completed.
    pub lap: u16,
    /// In-lap within the next 1, 2, 3, 5 laps.
    pub within: [f64; 4],
    pub p_stop: f64,
    pub in_lap: Option<Quantiles>,
    pub compounds: Vec<CompoundChance>,
    pub reason: String,
    /// The plain baseline: the lap at which the tyres reach the typical stint here.
    pub planned_in_lap: u16,
    pub rests_on: Option<Time>,
}

/// What the hazard of one car rests on.
struct Facts<'a> {
    view: &'a View,
    car: &'a CarView,
    last: &'a LapView,
    compound: usize,
    age: f64,
    life: f64,
    left: u16,
    rule: bool,
    rival: bool,
    /// Loss of the last lap against the stint's best three (share of a lap).
    slower: f64,
    /// Share of the field on the other kind of tyre.
    cross: f64,
    stops: usize,
    safety_car_before: bool,
}

/// The next stop of that car; `None` where it stands, is in the pits, or too little is known.
pub fn predict(view: &View, car: &CarView, distance: &Distance, floor: &Floor) -> Option<Stop> {
    let facts = Facts::of(view, car, distance)?;
    let pit = &floor.pit;
    // In-laps that are possible: the next lap up to the last but one.
    let laps = usize::from(facts.left.saturating_sub(1).min(MOST_LAPS));
    let mut not_yet = 1.0;
    let mut by_lap = Vec::with_capacity(laps);
    for ahead in 0..laps {
        not_yet *= 1.0 - facts.hazard(pit, ahead);
        by_lap.push(1.0 - not_yet);
    }
    let p_stop = by_lap.last().copied().unwrap_or(0.0);
    let within = [1usize, 2, 3, 5].map(|k| share(by_lap.get(k - 1).copied().unwrap_or(p_stop)));
    let at = |q: f64| {
        let k = by_lap
            .iter()
            .position(|p| *p >= q * p_stop)
            .unwrap_or(laps.saturating_sub(1));
        f64::from(facts.last.number) + (k + 1) as f64
    };
    let in_lap = (p_stop >= RARE).then(|| Quantiles {
        p10: at(0.1),
        p50: at(0.5),
        p90: at(0.9),
    });
    let due = (facts.life - facts.age)
        .ceil()
        .clamp(1.0, f64::from(MOST_LAPS));
    Some(Stop {
        lap: facts.last.number,
        within,
        p_stop: share(p_stop),
        in_lap,
        compounds: facts.next_compound(pit, distance),
        reason: facts.reason(distance, floor),
        // Cast of a number between 1 and MOST_LAPS.
        planned_in_lap: facts.last.number + due as u16,
        rests_on: facts.last.ended,
    })
}

/// A probability as it is published.
pub(super) fn share(p: f64) -> f64 {
    (p * 1e4).round() / 1e4
}

/// Place of a value between ascending edges.
fn bin(edges: &[f64], x: f64) -> usize {
    edges.iter().filter(|e| x > **e).count()
}

impl<'a> Facts<'a> {
    fn of(view: &'a View, car: &'a CarView, distance: &Distance) -> Option<Facts<'a>> {
        let last = car.last()?;
        let out = !car.runs() || last.is_in || view.finished;
        let stopped = matches!(view.status, TrackStatus::Red | TrackStatus::Chequered);
        let compound = compound_index(last.compound)?;
        if out || stopped || !view.is_race() {
            return None;
        }
        let now = last.ended.unwrap_or(view.clock);
        let stint: Vec<f64> = car
            .laps
            .iter()
            .filter(|l| l.stint == last.stint && l.is_clean())
            .filter_map(|l| l.time_s)
            .collect();
        Some(Facts {
            view,
            car,
            last,
            compound,
            age: f64::from(last.age?),
            life: distance.life_laps(compound).max(4.0),
            left: distance.laps.saturating_sub(last.number),
            rule: car.owes_compound(),
            rival: rival_stopped(view, car, now),
            slower: fade(last, &stint),
            cross: other_kind(view, is_wet(last.compound), now),
            stops: car.laps.iter().filter(|l| l.is_in).count(),
            safety_car_before: car
                .laps
                .iter()
                .rev()
                .take(2)
                .filter(|l| l.saw(TrackStatus::SafetyCar))
                .count()
                == 2,
        })
    }

    /// Probability that the lap `ahead` laps after the next one is an in-lap, given no stop before.
    fn hazard(&self, pit: &Pit, ahead: usize) -> f64 {
        let later = ahead as f64;
        let share = (self.age + 1.0 + later) / self.life;
        let left = (f64::from(self.left) - later).max(0.0);
        let mut odds = pit.base
            * pit.age[bin(&pit.age_edges, share)]
            * pit.compound[self.compound]
            * pit.left[bin(&pit.left_edges, left)]
            * pit.slower[bin(&pit.slower_edges, self.slower)]
            * pit.cross[bin(&pit.cross_edges, self.cross)]
            * pit.stops[self.stops.min(pit.stops.len() - 1)]
            * pit.rival[usize::from(self.rival && ahead == 0)];
        if self.rule {
            odds *= pit.left_rule[bin(&pit.left_edges, left)];
        }
        let under = |status: usize| {
            let odds = odds * pit.status[status];
            odds / (1.0 + odds)
        };
        let clear = under(0);
        let (special, stays) = match self.view.status {
            TrackStatus::SafetyCar if self.safety_car_before || ahead > 0 => {
                (under(3), SAFETY_CAR_STAYS)
            }
            TrackStatus::SafetyCar => (under(if share > OLD { 5 } else { 2 }), SAFETY_CAR_STAYS),
            TrackStatus::VirtualSafetyCar | TrackStatus::VirtualSafetyCarEnding => {
                (under(if share > OLD { 4 } else { 1 }), VIRTUAL_STAYS)
            }
            _ => return clear,
        };
        let still = (0..ahead).fold(1.0, |p, _| p * stays);
        still * special + (1.0 - still) * clear
    }

    /// Chances of the next compound, likeliest first; what the rule forbids is left out.
    fn next_compound(&self, pit: &Pit, distance: &Distance) -> Vec<CompoundChance> {
        let left = f64::from(self.left) / f64::from(distance.laps.max(1));
        let third = bin(&[0.35, 0.6], left);
        let row = &pit.next[usize::from(self.rule)][third][self.compound];
        // With the rule open and one stop to come, the same dry compound would not do.
        let last_stop = self.rule && f64::from(self.left) < 1.2 * self.life;
        let allowed = |k: usize| !(last_stop && k == self.compound);
        let sum: f64 = row
            .iter()
            .enumerate()
            .filter(|(k, _)| allowed(*k))
            .map(|(_, p)| p)
            .sum();
        let mut chances: Vec<CompoundChance> = row
            .iter()
            .enumerate()
            .filter(|(k, _)| allowed(*k) && sum > 0.0)
            .map(|(k, p)| CompoundChance {
                compound: name(COMPOUNDS[k]).to_owned(),
                probability: share(p / sum),
            })
            .collect();
        chances.sort_by(|a, b| {
            b.probability
                .total_cmp(&a.probability)
                .then(a.compound.cmp(&b.compound))
        });
        chances
    }

    /// Why, in words and numbers.
    fn reason(&self, distance: &Distance, floor: &Floor) -> String {
        let spread =
            floor.elsewhere.life_spread[self.compound] * f64::from(distance.grand_prix_laps);
        let mut said = vec![
            format!(
                "tyres {:.0} laps old on {}",
                self.age,
                name(self.last.compound)
            ),
            format!("typical stint here {:.0} ± {:.0}", self.life, spread),
            format!("pit loss {:.1} s", distance.pit_loss_s()),
        ];
        match self.view.status {
            TrackStatus::SafetyCar => said.push("safety car out: a stop costs less now".to_owned()),
            TrackStatus::VirtualSafetyCar | TrackStatus::VirtualSafetyCarEnding => {
                said.push("virtual safety car: a stop costs less now".to_owned());
            }
            _ => {}
        }
        if self.rule {
            said.push(format!(
                "second compound still owed, {} laps to go",
                self.left
            ));
        }
        if self.slower > 0.002 {
            said.push(format!(
                "{:.1} % slower than the best of the stint",
                100.0 * self.slower
            ));
        }
        if self.cross > 0.1 {
            let other = if is_wet(self.last.compound) {
                "dry"
            } else {
                "wet"
            };
            said.push(format!(
                "{:.0} % of the field on {other} tyres",
                100.0 * self.cross
            ));
        } else if self.view.raining && !is_wet(self.last.compound) {
            said.push("rain reported".to_owned());
        }
        if self.rival {
            said.push("a car close by has just stopped".to_owned());
        }
        if let Some((number, gap)) = self.undercut() {
            said.push(format!("undercut threat from {number} ({gap:.1} s behind)"));
        }
        said.join("; ")
    }

    /// The car right behind, where it is close enough for the undercut and these tyres are not new.
    fn undercut(&self) -> Option<(u8, f64)> {
        let order = running_order(self.view);
        let place = order.iter().position(|c| c.number == self.car.number)?;
        let behind = order.get(place + 1)?;
        let lap = behind.last()?.number.min(self.last.number);
        let gap = behind
            .lap(lap)?
            .ended?
            .seconds_since(self.car.lap(lap)?.ended?);
        (self.age > 0.5 * self.life && (0.0..UNDERCUT_S).contains(&gap))
            .then_some((behind.number, gap))
    }
}

/// As OpenF1 writes it.
pub fn name(compound: Compound) -> &'static str {
    match compound {
        Compound::Soft => "SOFT",
        Compound::Medium => "MEDIUM",
        Compound::Hard => "HARD",
        Compound::Intermediate => "INTERMEDIATE",
        Compound::Wet => "WET",
        Compound::Unknown => "UNKNOWN",
    }
}

/// Whether a car that crossed the line just before this one did so on its in-lap.
fn rival_stopped(view: &View, car: &CarView, now: Time) -> bool {
    view.cars
        .iter()
        .filter(|c| c.number != car.number)
        .any(|c| {
            c.last().is_some_and(|l| {
                l.is_in
                    && l.ended
                        .is_some_and(|t| (0.0..RIVAL_S).contains(&now.seconds_since(t)))
            })
        })
}

/// How much slower the last lap was than the median of the stint's best three (share of a lap).
fn fade(last: &LapView, stint: &[f64]) -> f64 {
    let (true, true, Some(time)) = (last.is_clean(), stint.len() >= FADE, last.time_s) else {
        return 0.0;
    };
    let mut sorted = stint.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    median(&mut sorted[..3]).map_or(0.0, |best| (time - best) / time)
}

/// Share of the field that is on the other kind of tyre (dry or wet).
fn other_kind(view: &View, wet: bool, now: Time) -> f64 {
    let field = view.cars.iter().filter_map(|c| {
        let last = c.last()?;
        (now.seconds_since(last.ended?) < SILENT_S).then_some(is_wet(last.compound) != wet)
    });
    let (others, all) = field.fold((0.0, 0.0), |(o, n), other| {
        (o + if other { 1.0 } else { 0.0 }, n + 1.0)
    });
    if all > 0.0 { others / all } else { 0.0 }
}
