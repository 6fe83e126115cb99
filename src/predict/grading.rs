//! Live grading: every prediction is scored when the truth arrives.
//!
//! - **Lap time**: when the lap's time is known. Clean laps (green, neither in- nor out-lap, a clean
//!   lap before it in the stint) are graded beside the last clean lap; all timed laps apart from it.
//! - **Finishing order**: the first prediction at or after 0, 25, 50 and 75 % of the distance, when
//!   the session has finished, against the order then known (official where it is, else on the road).
//! - **Pit**: "boxes within two laps", two laps after the fact (an in-lap is certain only once the car
//!   has left the pit lane), and the compound when it did. Laps under red are not graded.
//!
//! **Invariant:** bounded: at most [`LAPTIME_OPEN`] and [`PIT_OPEN`] open predictions a car and four
//! orders; one that finds no room or no truth is counted as ungraded, and no prediction is graded
//! twice.

use std::collections::{BTreeMap, VecDeque};

use super::drift::Window;
use super::laptime::Forecast;
use super::pit::Stop;
use super::scores::Scores;
use super::view::{LapView, View};
use crate::race::{CarStatus, TrackStatus};
use crate::record::prediction::{OrderPrediction, Quantiles};

/// Open lap time predictions of a car: one lap, with 0, 1 and 2 sectors known, and some slack for
/// laps whose time comes late.
const LAPTIME_OPEN: usize = 9;
/// Open pit predictions of a car.
const PIT_OPEN: usize = 8;
/// Shares of the distance whose orders are graded.
pub const MOMENTS: [f64; 4] = [0.0, 0.25, 0.5, 0.75];
/// Laps after a prediction at which "within two laps" is settled.
const SETTLED_AFTER: u16 = 3;

/// What is open, and the grades so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grader {
    laptime: BTreeMap<u8, VecDeque<OpenLap>>,
    pit: BTreeMap<u8, VecDeque<OpenStop>>,
    orders: [Option<OpenOrder>; 4],
    /// Newest grades of the models of lap times and of stops.
    newest: [Window; 2],
    scores: Scores,
}

/// A lap as the floor forecast it, and what the model said in its place.
#[derive(Clone, Debug, PartialEq)]
struct OpenLap {
    floor: Forecast,
    model: Option<Quantiles>,
}

#[derive(Clone, Debug, PartialEq)]
struct OpenStop {
    lap: u16,
    within_2: f64,
    says_yes: bool,
    /// The floor's "within two laps", where a model spoke in its place.
    floor: Option<f64>,
    planned_in_lap: u16,
    compound: Option<String>,
}

/// An order as predicted: per car the chances of a win and of the podium, and its places then.
#[derive(Clone, Debug, PartialEq)]
struct OpenOrder {
    /// (car, p win, p podium, position on track, grid), as at that moment.
    cars: Vec<(u8, f64, f64, usize, usize)>,
}

impl Grader {
    /// The grades so far.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// A lap time was predicted, by the floor and, where it speaks, by a model.
    pub fn expect_lap(&mut self, car: u8, floor: Forecast, model: Option<Quantiles>) {
        let open = self.laptime.entry(car).or_default();
        if open.len() == LAPTIME_OPEN {
            open.pop_front();
            self.scores.laptime.ungraded += 1;
        }
        open.push_back(OpenLap { floor, model });
    }

    /// Other models answer from here on: nothing is known of them yet.
    pub fn other_models(&mut self) {
        self.newest = Default::default();
        self.scores.drift = Default::default();
    }

    /// A stop was predicted, by a model whose "within two laps" is a yes from that probability on; `floor` is the
    /// floor's probability, where it is not the floor that speaks.
    pub fn expect_stop(&mut self, car: u8, stop: &Stop, yes: f64, floor: Option<f64>) {
        let open = self.pit.entry(car).or_default();
        if open.len() == PIT_OPEN {
            open.pop_front();
            self.scores.pit.ungraded += 1;
        }
        open.push_back(OpenStop {
            lap: stop.lap,
            within_2: stop.within[1],
            says_yes: stop.within[1] >= yes,
            floor,
            planned_in_lap: stop.planned_in_lap,
            compound: stop.compounds.first().map(|c| c.compound.clone()),
        });
    }

    /// An order was predicted, at that share of the distance.
    pub fn expect_order(&mut self, view: &View, order: &OrderPrediction, share: f64) {
        let Some(moment) = MOMENTS.iter().rposition(|m| share >= *m) else {
            return;
        };
        // The grid's prediction is the one made before lap 1 is over, not one from 10 % of the way.
        if self.orders[moment].is_some() || (moment == 0 && share > 0.0) {
            return;
        }
        let running = super::order::running_order(view);
        let place = |number: u8| running.iter().position(|c| c.number == number);
        let cars = order.cars.iter().map(|c| {
            let car = view.car(c.driver_number);
            let grid = car.and_then(|c| c.grid).map_or(usize::MAX, usize::from);
            let track = place(c.driver_number).map_or(usize::MAX, |p| p + 1);
            (c.driver_number, c.p_win, c.p_podium, track, grid)
        });
        self.orders[moment] = Some(OpenOrder {
            cars: cars.collect(),
        });
    }

    /// A car completed a lap: its open predictions that this settles are graded.
    pub fn lap_completed(&mut self, view: &View, car: u8, lap: u16) {
        self.grade_laps(view, car, lap);
        self.grade_stops(view, car, lap, false);
        let [laptime, stop] = &self.newest;
        self.scores.drift.laptime = laptime.standing();
        self.scores.drift.stop = stop.standing();
    }

    /// The session is over: what can be graded is, the rest is counted as ungraded.
    pub fn session_finished(&mut self, view: &View) {
        self.grade_orders(view);
        let cars: Vec<u8> = self.pit.keys().copied().collect();
        for car in cars {
            let finished = view
                .car(car)
                .is_some_and(|c| c.status == CarStatus::Finished);
            let laps = view.car(car).map_or(0, |c| c.laps_completed());
            self.grade_stops(view, car, laps, finished);
        }
        self.close();
    }

    /// Counts all that is still open as ungraded.
    fn close(&mut self) {
        self.scores.laptime.ungraded += self.laptime.values().map(|o| o.len() as u64).sum::<u64>();
        self.scores.pit.ungraded += self.pit.values().map(|o| o.len() as u64).sum::<u64>();
        self.scores.race.ungraded += self.orders.iter().flatten().count() as u64;
        self.laptime.clear();
        self.pit.clear();
        self.orders = Default::default();
    }

    fn grade_laps(&mut self, view: &View, number: u8, lap: u16) {
        let Some(open) = self.laptime.get_mut(&number) else {
            return;
        };
        let truth = view.car(number).and_then(|c| c.lap(lap));
        let scores = &mut self.scores.laptime;
        let newest = &mut self.newest[0];
        let clean = view
            .car(number)
            .is_some_and(|c| is_graded_clean(&c.laps, lap));
        open.retain(|OpenLap { floor: f, model }| {
            if f.lap > lap {
                return true;
            }
            match truth.filter(|t| t.number == f.lap).and_then(|t| t.time_s) {
                None => scores.ungraded += 1,
                Some(time) => {
                    let at = usize::from(f.sectors_known.min(2));
                    let triple = |q: &Quantiles| [q.p10, q.p50, q.p90];
                    let floor = triple(&f.lap_time);
                    let q = model.as_ref().map_or(floor, triple);
                    scores.all[at].add(q[1], time);
                    scores.all[at].add_interval(q, time);
                    // Both on the same laps, or the comparison says nothing.
                    if let Some(baseline) = f.baseline_s.filter(|_| clean) {
                        scores.clean[at].add(q[1], time);
                        scores.clean[at].add_interval(q, time);
                        scores.floor[at].add(floor[1], time);
                        scores.floor[at].add_interval(floor, time);
                        if at == 0 && model.is_some() {
                            let held = q[0] <= time && time <= q[2];
                            newest.add((q[1] - time).abs(), (floor[1] - time).abs(), Some(held));
                        }
                        scores.modelled += u64::from(model.is_some());
                        scores.baseline[at].add(baseline, time);
                    }
                }
            }
            false
        });
    }

    fn grade_stops(&mut self, view: &View, number: u8, lap: u16, finished: bool) {
        let (Some(open), Some(car)) = (self.pit.get_mut(&number), view.car(number)) else {
            return;
        };
        let scores = &mut self.scores.pit;
        let newest = &mut self.newest[1];
        open.retain(|p| {
            if p.lap + SETTLED_AFTER > lap && !finished {
                return true;
            }
            let next = [car.lap(p.lap + 1), car.lap(p.lap + 2)];
            if next.iter().flatten().any(|l| l.saw(TrackStatus::Red)) {
                scores.ungraded += 1;
                return false;
            }
            let stopped = next.iter().flatten().find(|l| l.is_in);
            scores
                .within_2
                .add(p.within_2, p.says_yes, stopped.is_some());
            if let Some(floor) = p.floor {
                let off = |said: f64| {
                    let off = said - f64::from(u8::from(stopped.is_some()));
                    off * off
                };
                newest.add(off(p.within_2), off(floor), None);
            }
            let planned = p.planned_in_lap <= p.lap + 2;
            scores
                .fixed_plan
                .add(if planned { 1.0 } else { 0.0 }, planned, stopped.is_some());
            // The compound counts once a stop: for the prediction made right before the in-lap.
            let fitted = stopped
                .filter(|l| l.number == p.lap + 1)
                .and_then(|l| car.lap(l.number + 1));
            if let (Some(lap), Some(named)) = (fitted, &p.compound) {
                scores.compounds_named += 1;
                scores.compounds_right += u64::from(super::pit::name(lap.compound) == named);
            }
            false
        });
    }

    fn grade_orders(&mut self, view: &View) {
        let order = final_order(view);
        let position = |number: u8| order.iter().position(|n| *n == number).map(|p| p + 1);
        for (at, open) in self.orders.iter_mut().enumerate() {
            let Some(open) = open.take() else { continue };
            let rows: Option<Vec<_>> = open
                .cars
                .iter()
                .map(|c| Some((c, position(c.0)?)))
                .collect();
            let Some(rows) = rows else {
                self.scores.race.ungraded += 1;
                continue;
            };
            let certain = |place: usize| {
                let (win, top3) = (place == 1, place <= 3);
                (f64::from(u8::from(win)), f64::from(u8::from(top3)))
            };
            let model: Vec<_> = rows.iter().map(|(c, p)| (c.1, c.2, *p)).collect();
            let by = |place: fn(&(u8, f64, f64, usize, usize)) -> usize| -> Vec<_> {
                rows.iter()
                    .map(|(c, p)| (certain(place(c)).0, certain(place(c)).1, *p))
                    .collect()
            };
            let scores = &mut self.scores.race.at[at];
            scores.model.add(&model);
            scores.current_order.add(&by(|c| c.3));
            scores.grid.add(&by(|c| c.4));
        }
    }
}

/// A clean lap with a clean lap before it in the stint.
fn is_graded_clean(laps: &[LapView], lap: u16) -> bool {
    let Some(at) = laps.iter().position(|l| l.number == lap && l.is_clean()) else {
        return false;
    };
    laps[..at]
        .iter()
        .rev()
        .take_while(|l| l.stint == laps[at].stint)
        .any(LapView::is_clean)
}

/// The order at the end: official where it is known, else as on the road, the retired by distance.
fn final_order(view: &View) -> Vec<u8> {
    let mut cars: Vec<_> = view.cars.iter().collect();
    cars.sort_by_key(|c| {
        let group = match c.status {
            CarStatus::Finished | CarStatus::OnTrack | CarStatus::InPit => 0,
            CarStatus::Retired => 1,
            CarStatus::NotStarted => 2,
            CarStatus::Disqualified => 3,
        };
        let by_distance = if group == 0 {
            0
        } else {
            u16::MAX - c.laps_completed()
        };
        (
            c.official.is_none(),
            c.official,
            group,
            by_distance,
            c.position.unwrap_or(u8::MAX),
            c.number,
        )
    });
    cars.iter().map(|c| c.number).collect()
}
