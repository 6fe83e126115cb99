//! The finishing order: probability of every position for every car, and of retirement.
//!
//! For two cars that both finish, P(i ahead of j) = F(s_j − s_i), F Student's t with 4 degrees of
//! freedom and s linear in: gap to the leader (apart under a safety car, when it is worth nothing),
//! position, recent pace against the field, stops still owed times the pit loss, qualifying and grid.
//! Gaps and stops count over √(laps to go): what is left to happen grows like a random walk. The
//! weights are piecewise linear in the share of the distance driven; they were fitted on every pair
//! of finishers of 2018–2023. [`strength`](super::strength) turns strengths into positions.
//!
//! Retirement is a constant hazard per lap, and one for lap 1, from 2021–2023.
//!
//! **Invariant:** rows and columns sum to 1; + − × ÷ and square root only.

use super::distance::Distance;
use super::floor::{COMPOUNDS, Floor, ORDER_FEATURES, Order, compound_index};
use super::laptime::{median, recent_clean, times_of};
use super::strength::{Runner, positions};
use super::view::{CarView, View};
use crate::race::{CarStatus, Compound, TrackStatus};
use crate::record::Time;
use crate::record::prediction::FinishPrediction;

/// A gap beyond this tells no more (s).
const MOST_GAP_S: f64 = 120.0;
/// Place in the tables of the hard tyre, in whose lives stops are counted.
const HARD: usize = 2;
/// Where neither qualifying nor grid is known.
const TYPICAL_QUALI_PERCENT: f64 = 2.0;
const BACK_OF_GRID: u8 = 20;

/// The order as predicted, best expected position first, and the oldest fact it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    pub cars: Vec<FinishPrediction>,
    pub rests_on: Option<Time>,
}

/// The running cars in the order on track: by position, else by laps and the time of the last
/// crossing, else by grid.
pub fn running_order(view: &View) -> Vec<&CarView> {
    let mut cars: Vec<&CarView> = view
        .cars
        .iter()
        .filter(|c| c.runs() || c.status == CarStatus::Finished)
        .collect();
    let latest = Time::LATEST;
    cars.sort_by_key(|c| {
        (
            c.position.unwrap_or(u8::MAX),
            std::cmp::Reverse(c.laps_completed()),
            c.last().and_then(|l| l.ended).unwrap_or(latest),
            c.grid.unwrap_or(u8::MAX),
            c.number,
        )
    });
    cars
}

/// Predicts the order; `None` for anything but a race or sprint with cars, and when it is over.
pub fn predict(view: &View, distance: &Distance, floor: &Floor) -> Option<Finish> {
    let remaining = distance.remaining(view);
    let running = running_order(view);
    if !view.is_race() || view.finished || remaining == 0 || running.is_empty() {
        return None;
    }
    let p_retire = p_retire(view, &floor.order, remaining);
    let weights = weights_at(
        &floor.order,
        f64::from(view.leader_laps()) / f64::from(distance.laps.max(1)),
    );
    let field = Field::of(view, &running);
    let runners: Vec<Runner> = running
        .iter()
        .enumerate()
        .map(|(place, car)| {
            let x = field.features(view, car, place + 1, distance, remaining);
            Runner {
                strength: x.iter().zip(&weights).fold(0.0, |sum, (x, w)| sum + x * w),
                p_retire: if car.status == CarStatus::Finished {
                    0.0
                } else {
                    p_retire
                },
            }
        })
        .collect();
    let table = positions(&runners, floor.order.spread);
    let retires: Vec<f64> = runners.iter().map(|r| r.p_retire).collect();
    Some(finish_of(view, &running, &table, &retires))
}

/// The whole order as it is published: the running cars with their probabilities of each place among
/// themselves and of retiring, the cars that are out behind them.
pub(super) fn finish_of(
    view: &View,
    running: &[&CarView],
    table: &[Vec<f64>],
    retires: &[f64],
) -> Finish {
    let stopped = stopped_order(view);
    let all = running.len() + stopped.len();
    let mut cars: Vec<FinishPrediction> = running
        .iter()
        .zip(table)
        .zip(retires)
        .map(|((car, row), p_retire)| finish(car.number, row, all, *p_retire))
        .collect();
    cars.extend(stopped.iter().enumerate().map(|(k, car)| {
        let mut row = vec![0.0; all];
        row[running.len() + k] = 1.0;
        finish(car.number, &row, all, 1.0)
    }));
    cars.sort_by(|a, b| {
        a.expected_position
            .total_cmp(&b.expected_position)
            .then(a.driver_number.cmp(&b.driver_number))
    });
    // The oldest of the running cars' last crossings; at the grid there is none.
    let rests_on = running.iter().filter_map(|c| c.last()?.ended).min();
    Finish { cars, rests_on }
}

/// Cars that are out, in the order in which they will be classified: the furthest first, those that
/// never started and the disqualified last.
fn stopped_order(view: &View) -> Vec<&CarView> {
    let mut cars: Vec<&CarView> = view
        .cars
        .iter()
        .filter(|c| !(c.runs() || c.status == CarStatus::Finished))
        .collect();
    cars.sort_by_key(|c| {
        let group = match c.status {
            CarStatus::Disqualified => 2,
            CarStatus::NotStarted => 1,
            _ => 0,
        };
        (
            group,
            std::cmp::Reverse(c.laps_completed()),
            c.position.unwrap_or(u8::MAX),
            c.number,
        )
    });
    cars
}

/// Probability of not seeing the flag, the same for every car that runs: h a lap, h₁ on lap 1.
fn p_retire(view: &View, order: &Order, remaining: u16) -> f64 {
    let mut survives = if view.leader_laps() == 0 {
        1.0 - order.retire_lap_1
    } else {
        1.0
    };
    for _ in 0..remaining {
        survives *= 1.0 - order.retire_per_lap;
    }
    1.0 - survives
}

/// The weights at a share of the distance, linear between knots.
fn weights_at(order: &Order, share: f64) -> [f64; ORDER_FEATURES] {
    let knots = &order.knots;
    let above = knots
        .partition_point(|k| *k <= share)
        .clamp(1, knots.len() - 1);
    let (low, high) = (knots[above - 1], knots[above]);
    let u = ((share - low) / (high - low)).clamp(0.0, 1.0);
    std::array::from_fn(|f| {
        let w = &order.weights[f];
        w[above - 1] * (1.0 - u) + w[above] * u
    })
}

/// What is common to all cars at one moment.
struct Field {
    /// When the first car ended each lap; index is the lap number.
    first_crossing: Vec<Option<Time>>,
    /// Median over the cars of their recent clean laps (s).
    pace_s: Option<f64>,
    /// Best qualifying time (s).
    pole_s: Option<f64>,
    /// Median of the field's recent laps, or a typical one: what a lap behind costs (s).
    lap_s: f64,
}

fn recent_pace(car: &CarView) -> Option<f64> {
    median(&mut times_of(&recent_clean(&car.laps)))
}

impl Field {
    fn of(view: &View, running: &[&CarView]) -> Field {
        let mut first_crossing = vec![None; usize::from(view.leader_laps()) + 1];
        for lap in view.cars.iter().flat_map(|c| &c.laps) {
            if let (Some(first), Some(t)) =
                (first_crossing.get_mut(usize::from(lap.number)), lap.ended)
            {
                *first = Some(first.map_or(t, |f: Time| f.min(t)));
            }
        }
        let mut paces: Vec<f64> = running.iter().filter_map(|c| recent_pace(c)).collect();
        let pace_s = median(&mut paces);
        Field {
            first_crossing,
            pace_s,
            pole_s: view
                .cars
                .iter()
                .filter_map(|c| c.qualifying_s)
                .min_by(f64::total_cmp),
            lap_s: pace_s.unwrap_or(90.0),
        }
    }

    /// Gap to the leader (s): at the line on the car's own last lap, else as the feed has it.
    fn gap_s(&self, car: &CarView) -> f64 {
        let at_line = car.last().and_then(|l| {
            let leader = self
                .first_crossing
                .get(usize::from(l.number))
                .copied()
                .flatten()?;
            Some(l.ended?.seconds_since(leader))
        });
        at_line
            .or(car.gap_s)
            .unwrap_or(0.0)
            .clamp(0.0, MOST_GAP_S.max(self.lap_s))
    }

    /// In the order of `features` in order.py: larger is worse.
    fn features(
        &self,
        view: &View,
        car: &CarView,
        place: usize,
        distance: &Distance,
        remaining: u16,
    ) -> [f64; ORDER_FEATURES] {
        let root = (f64::from(remaining) + 1.0).sqrt();
        let gap = self.gap_s(car).min(MOST_GAP_S) / root;
        let squeezed = matches!(view.status, TrackStatus::SafetyCar | TrackStatus::Red);
        let pace = match (recent_pace(car), self.pace_s) {
            (Some(own), Some(field)) => 100.0 * (own / field - 1.0),
            _ => 0.0,
        };
        let quali = match (car.qualifying_s, self.pole_s) {
            (Some(own), Some(pole)) => 100.0 * (own / pole - 1.0),
            _ => TYPICAL_QUALI_PERCENT,
        };
        let left = distance.laps.saturating_sub(car.laps_completed());
        let place = place as f64;
        let grid = f64::from(car.grid.unwrap_or(BACK_OF_GRID));
        [
            if squeezed { 0.0 } else { gap },
            if squeezed { gap } else { 0.0 },
            place / 10.0,
            pace.clamp(-2.0, 2.0) * root / 7.0,
            stops_owed(car, distance, left) * distance.pit_loss_s() / (10.0 * root),
            quali.clamp(0.0, 4.0),
            grid / 10.0,
            place / root,
        ]
    }
}

/// Stops still to make: laps to go beyond the tyres' typical life, in lives of a hard tyre; at least
/// one while the two-compound rule is open. Before lap 1 the tyres tell nothing.
pub fn stops_owed(car: &CarView, distance: &Distance, left: u16) -> f64 {
    let Some(last) = car.last().filter(|_| left > 1) else {
        return 0.0;
    };
    let fitted = car.current.map_or(last.compound, |l| {
        if l.compound == Compound::Unknown {
            last.compound
        } else {
            l.compound
        }
    });
    let Some(compound) = compound_index(fitted) else {
        return 0.0;
    };
    debug_assert!(compound < COMPOUNDS.len());
    let age = last.age.map_or(10.0, f64::from);
    let tyres_left = (distance.life_laps(compound) - age).max(0.0);
    let hard = distance.life_laps(HARD).max(5.0);
    let stops = ((f64::from(left) - tyres_left) / hard).clamp(0.0, 2.5);
    if car.owes_compound() {
        stops.max(1.0)
    } else {
        stops
    }
}

/// A car's row as it is published: probabilities to 1e-4, the row padded to all cars.
fn finish(driver_number: u8, row: &[f64], all: usize, p_retirement: f64) -> FinishPrediction {
    let tenth_of_mille = |p: f64| (p * 1e4).round() / 1e4;
    let first = |n: usize| tenth_of_mille(row.iter().take(n).sum::<f64>().min(1.0));
    let expected: f64 = row
        .iter()
        .enumerate()
        .map(|(k, p)| (k + 1) as f64 * p)
        .sum();
    let mut shown = row.to_vec();
    shown.resize(all, 0.0);
    FinishPrediction {
        driver_number,
        expected_position: (expected * 1e3).round() / 1e3,
        p_win: first(1),
        p_podium: first(3),
        p_points: first(10),
        p_retirement: tenth_of_mille(p_retirement),
        // Six digits: rounding to four would cost rows of 20 up to 1e-3 of their sum.
        positions: shown
            .iter()
            .map(|p| ((p * 1e6).round() / 1e6) as f32)
            .collect(),
    }
}
