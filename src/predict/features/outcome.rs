//! What the `outcome` model sees: one row a car that still races, in the order on track.
//!
//! A row holds the car's place and gap, its pace against the field **on the same laps** (so that safety
//! cars, rain and traffic that slow everybody cancel out), its tyres and the stops still owed, the order as it
//! would be if everybody served those now (who has stopped and who has not is the greatest distortion of the
//! order on track between a quarter and three quarters of the distance), the grid and qualifying, its
//! [`Form`], and, the same in each row, the state of the race.
//!
//! Gaps count over √(laps to go), pace times √(laps to go): what is left to happen grows like a random walk.
//!
//! **Invariant:** the columns are [`COLUMNS`], in that order; every value is finite; what is not known has a
//! neutral value and a column that says so. Cost: one pass over the laps of all cars, some 50 µs.

use super::super::distance::Distance;
use super::super::floor::compound_index;
use super::super::form::{FORM_FEATURES, Form};
use super::super::laptime::median;
use super::super::order::{running_order, stops_owed};
use super::super::scores::ln;
use super::super::view::{CarView, LapView, View, is_wet};
use crate::race::{CarStatus, Compound, TrackStatus};
use crate::record::Time;

/// Version of this definition: data and weights of another version do not fit.
pub const VERSION: u32 = 1;
/// Rows of a frame: more cars have not started since 1995, and 26 never will.
pub const MOST_CARS: usize = 24;
/// Numbers in a row.
pub const FEATURES: usize = COLUMNS.len();

/// Names of the columns.
pub const COLUMNS: [&str; 54] = [
    // The order on track.
    "gap_root",
    "gap_root_squeezed",
    "place",
    "ln_place",
    "place_root",
    "ahead_root",
    "behind_root",
    "laps_down",
    "gained",
    // Pace.
    "pace",
    "pace_root",
    "pace_known",
    "long_pace",
    "long_pace_root",
    "long_pace_known",
    // Tyres and stops.
    "tyre_age",
    "soft",
    "medium",
    "hard",
    "intermediate",
    "wet",
    "stops",
    "stops_against_field",
    "owes_compound",
    "owed",
    "owed_loss_root",
    "in_pit",
    "served_gap_root",
    "ln_served_place",
    "served_place_root",
    "fresher_than_ahead",
    // What the weekend has said.
    "grid",
    "ln_grid",
    "ln_grid_difficulty",
    "ln_place_difficulty",
    "from_pit_lane",
    "qualifying",
    "qualifying_known",
    "team_qualifying",
    // Form.
    "form_race",
    "form_team",
    "form_qualifying",
    "form_points",
    "form_retires",
    "form_team_retires",
    "form_gain",
    "form_experience",
    "form_season",
    // The race: the same in each row.
    "share",
    "left",
    "squeezed",
    "virtual",
    "wet_track",
    "difficulty",
];

/// A gap beyond this tells no more (s).
const MOST_GAP_S: f64 = 120.0;
/// What a gap to a neighbour is cut at (s).
const MOST_NEAR_S: f64 = 30.0;
/// Clean laps, and the laps in which they are looked for, for the recent and for the long pace.
const RECENT: (usize, usize) = (5, 10);
const LONG: (usize, usize) = (20, 25);
/// Cars that must have driven a lap cleanly before it says what is usual.
const FEWEST_ON_LAP: usize = 3;
/// A pace beyond this is an incident (%).
const MOST_PACE: f64 = 2.5;
/// Where qualifying is not known (% behind pole), and the most that counts.
const TYPICAL_QUALIFYING: f64 = 2.0;
const MOST_QUALIFYING: f64 = 5.0;
/// Place of a car whose grid position is not known or which starts from the pit lane.
const BACK_OF_GRID: u8 = 20;
/// Under a safety car gaps tell the order and nothing more.
const SQUEEZED: f64 = 0.02;
/// Gap of a car that has no lap yet (s).
const NO_LAP_GAP_S: f64 = 30.0;

/// All rows at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Driver numbers in running order: row k is car k.
    pub cars: Vec<u8>,
    /// [`MOST_CARS`] × [`FEATURES`], row after row; rows without a car are 0.
    pub values: Vec<f32>,
    /// Share of the distance that the leader has completed.
    pub share: f64,
}

/// Computes the rows; `None` where no car runs. More than [`MOST_CARS`] are cut from the back.
pub fn frame(view: &View, distance: &Distance, form: &Form) -> Option<Frame> {
    let mut running = running_order(view);
    running.truncate(MOST_CARS);
    if running.is_empty() {
        return None;
    }
    let field = Field::of(view, &running, distance);
    let mut values = Vec::with_capacity(MOST_CARS * FEATURES);
    for (at, car) in running.iter().enumerate() {
        let ahead = at.checked_sub(1).map(|before| running[before]);
        let row = field.row(view, distance, form, at, car, ahead);
        debug_assert!(row.iter().all(|x| x.is_finite()), "{row:?}");
        values.extend(row.iter().map(|x| *x as f32));
    }
    values.resize(MOST_CARS * FEATURES, 0.0);
    Some(Frame {
        cars: running.iter().map(|c| c.number).collect(),
        values,
        share: field.share,
    })
}

/// What is common to the rows, or needs all of them.
struct Field {
    share: f64,
    left: f64,
    squeezed: bool,
    /// By car in running order.
    gaps_s: Vec<f64>,
    owed: Vec<f64>,
    stops: Vec<f64>,
    usual_stops: f64,
    /// Gap (s) and place from 1 as if all stops owed were served now.
    served: Vec<(f64, f64)>,
    recent: Vec<Option<f64>>,
    long: Vec<Option<f64>>,
    pole_s: Option<f64>,
    wet_share: f64,
}

impl Field {
    fn of(view: &View, running: &[&CarView], distance: &Distance) -> Field {
        let leader_laps = view.leader_laps();
        let left = distance.remaining(view);
        let squeezed = matches!(view.status, TrackStatus::SafetyCar | TrackStatus::Red);
        let laps = Laps::of(view, leader_laps);
        let gaps_s: Vec<f64> = running.iter().map(|c| laps.gap_s(c)).collect();
        let owed: Vec<f64> = running.iter().map(|c| owed(c, distance)).collect();
        let stops: Vec<f64> = running.iter().map(|c| stops(c)).collect();
        let mut sorted = stops.clone();
        let served_s: Vec<f64> = running
            .iter()
            .zip(gaps_s.iter().zip(&owed))
            .map(|(car, (gap, owed))| served_s(car, *gap, *owed, distance, squeezed))
            .collect();
        let wet = running.iter().filter(|c| is_wet(fitted(c)));
        Field {
            share: f64::from(leader_laps) / f64::from(distance.laps.max(1)),
            left: f64::from(left),
            squeezed,
            usual_stops: median(&mut sorted).unwrap_or(0.0),
            served: ranked(&served_s),
            recent: running.iter().map(|c| laps.pace(c, RECENT)).collect(),
            long: running.iter().map(|c| laps.pace(c, LONG)).collect(),
            pole_s: view
                .cars
                .iter()
                .filter_map(|c| c.qualifying_s)
                .min_by(f64::total_cmp),
            wet_share: wet.count() as f64 / running.len() as f64,
            gaps_s,
            owed,
            stops,
        }
    }

    /// Qualifying time behind pole (%).
    fn qualifying(&self, car: &CarView) -> Option<f64> {
        let (own, pole) = car.qualifying_s.zip(self.pole_s)?;
        Some((100.0 * (own / pole - 1.0)).clamp(0.0, MOST_QUALIFYING))
    }

    fn row(
        &self,
        view: &View,
        distance: &Distance,
        form: &Form,
        at: usize,
        car: &CarView,
        rival: Option<&CarView>,
    ) -> [f64; FEATURES] {
        let root = (self.left + 1.0).sqrt();
        let yes = |b: bool| f64::from(u8::from(b));
        let gap = self.gaps_s[at].min(MOST_GAP_S) / root;
        let near = |gap: f64| gap.clamp(0.0, MOST_NEAR_S) / root;
        let ahead = if at > 0 {
            near(self.gaps_s[at] - self.gaps_s[at - 1])
        } else {
            0.0
        };
        let behind = near(
            self.gaps_s
                .get(at + 1)
                .map_or(MOST_NEAR_S, |g| g - self.gaps_s[at]),
        );
        let place = (at + 1) as f64;
        let grid = f64::from(car.grid.unwrap_or(BACK_OF_GRID));
        let difficulty = form.difficulty(&view.circuit);
        let uneven = 3.0 * (difficulty - 0.6);
        let (recent, long) = (self.recent[at], self.long[at]);
        let (pace, long_pace) = (recent.or(long).unwrap_or(0.0), long.unwrap_or(0.0));
        let fitted = fitted(car);
        let on = |c: Compound| yes(fitted == c);
        let (served_gap, served_place) = self.served[at];
        let own_age = age(car);
        let fresher = rival.map_or(0.0, |r| ((age(r) - own_age) / 20.0).clamp(-1.5, 1.5));
        let mate = view
            .cars
            .iter()
            .filter(|c| !c.team.is_empty() && c.team == car.team)
            .filter_map(|c| self.qualifying(c))
            .min_by(f64::total_cmp);
        let own = self.qualifying(car);
        let of: [f64; FORM_FEATURES] = form.of(&car.driver, &car.team);
        let laps_down = view
            .leader_laps()
            .saturating_sub(car.laps_completed())
            .min(5);
        [
            if self.squeezed { 0.0 } else { gap },
            if self.squeezed { gap } else { 0.0 },
            place / 10.0,
            ln_of(place),
            place / root,
            ahead,
            behind,
            f64::from(laps_down),
            (grid - place) / 10.0,
            pace,
            pace * root / 7.0,
            yes(recent.is_some()),
            long_pace,
            long_pace * root / 7.0,
            yes(long.is_some()),
            own_age / 20.0,
            on(Compound::Soft),
            on(Compound::Medium),
            on(Compound::Hard),
            on(Compound::Intermediate),
            on(Compound::Wet),
            self.stops[at],
            self.stops[at] - self.usual_stops,
            yes(car.owes_compound()),
            self.owed[at],
            self.owed[at] * distance.pit_loss_s() / (10.0 * root),
            yes(is_in_pit(car)),
            served_gap.min(MOST_GAP_S) / root,
            ln_of(served_place),
            served_place / root,
            fresher,
            grid / 10.0,
            ln_of(grid),
            ln_of(grid) * uneven,
            ln_of(place) * uneven,
            yes(car.grid.is_none()),
            own.or(mate).unwrap_or(TYPICAL_QUALIFYING),
            yes(own.is_some()),
            mate.or(own).unwrap_or(TYPICAL_QUALIFYING),
            of[0],
            of[1],
            of[2],
            of[3],
            of[4],
            of[5],
            of[6],
            of[7],
            of[8],
            self.share.min(1.0),
            self.left / 70.0,
            yes(self.squeezed),
            yes(matches!(
                view.status,
                TrackStatus::VirtualSafetyCar | TrackStatus::VirtualSafetyCarEnding
            )),
            self.wet_share.max(0.5 * yes(view.raining)),
            difficulty,
        ]
    }
}

/// What the laps of all cars say about one another.
struct Laps {
    /// When the first car ended each lap, and what was usual on it (s); index is the lap number.
    first: Vec<Option<Time>>,
    usual_s: Vec<Option<f64>>,
}

impl Laps {
    fn of(view: &View, leader_laps: u16) -> Laps {
        let size = usize::from(leader_laps) + 1;
        let mut first: Vec<Option<Time>> = vec![None; size];
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); size];
        for lap in view.cars.iter().flat_map(|c| &c.laps) {
            let at = usize::from(lap.number);
            if let (Some(slot), Some(t)) = (first.get_mut(at), lap.ended) {
                *slot = Some(slot.map_or(t, |f| f.min(t)));
            }
            if let (Some(list), Some(t), true) = (times.get_mut(at), lap.time_s, lap.is_clean()) {
                list.push(t);
            }
        }
        let usual = |list: &mut Vec<f64>| {
            (list.len() >= FEWEST_ON_LAP)
                .then(|| median(list))
                .flatten()
        };
        Laps {
            first,
            usual_s: times.iter_mut().map(usual).collect(),
        }
    }

    /// Gap to the leader at the line on the car's own last lap (s).
    fn gap_s(&self, car: &CarView) -> f64 {
        let Some(last) = car.last() else {
            return if self.first.len() > 1 {
                NO_LAP_GAP_S
            } else {
                0.0
            };
        };
        let leader = self.first.get(usize::from(last.number)).copied().flatten();
        let at_line = leader.zip(last.ended).map(|(l, own)| own.seconds_since(l));
        at_line
            .or(car.gap_s)
            .unwrap_or(0.0)
            .clamp(0.0, 2.0 * MOST_GAP_S)
    }

    /// Median of the car's lap times against the field's on the same laps (%), over the newest `of.0` clean
    /// laps of the last `of.1`.
    fn pace(&self, car: &CarView, of: (usize, usize)) -> Option<f64> {
        let against = |lap: &LapView| {
            let usual = self
                .usual_s
                .get(usize::from(lap.number))
                .copied()
                .flatten()?;
            Some(100.0 * (lap.time_s? / usual - 1.0))
        };
        let mut found: Vec<f64> = car
            .laps
            .iter()
            .rev()
            .take(of.1)
            .filter(|l| l.is_clean())
            .filter_map(against)
            .take(of.0)
            .collect();
        (found.len() >= 2)
            .then(|| median(&mut found))
            .flatten()
            .map(|p| p.clamp(-MOST_PACE, MOST_PACE))
    }
}

/// The compound that the car is on, as far as one knows.
fn fitted(car: &CarView) -> Compound {
    let current = car.current.map_or(Compound::Unknown, |l| l.compound);
    if current == Compound::Unknown {
        car.last().map_or(Compound::Unknown, |l| l.compound)
    } else {
        current
    }
}

/// Whether it has entered the pits and not yet driven on.
fn is_in_pit(car: &CarView) -> bool {
    car.last().is_some_and(|l| l.is_in) || car.status == CarStatus::InPit
}

/// Laps on the tyres; none on those that are being fitted.
fn age(car: &CarView) -> f64 {
    if is_in_pit(car) {
        return 0.0;
    }
    car.last()
        .map_or(0.0, |l| l.age.map_or(10.0, |a| f64::from(a.min(60))))
}

/// Stops made; the one in progress is one.
fn stops(car: &CarView) -> f64 {
    let made = car.last().map_or(0, |l| l.stint);
    f64::from(made) + f64::from(u8::from(is_in_pit(car)))
}

/// Stops still owed, without the one in progress.
fn owed(car: &CarView, distance: &Distance) -> f64 {
    let left = distance.laps.saturating_sub(car.laps_completed());
    if compound_index(fitted(car)).is_none() {
        return 0.0;
    }
    let owed = stops_owed(car, distance, left);
    if is_in_pit(car) {
        (owed - 1.0).max(0.0)
    } else {
        owed
    }
}

/// Gap as if all stops owed were served now (s). A stop in progress has the way out before it; under a
/// safety car a stop costs half and gaps are worth nothing but their order.
fn served_s(car: &CarView, gap_s: f64, owed: f64, distance: &Distance, squeezed: bool) -> f64 {
    let (share, gap_s) = if squeezed {
        (0.5, SQUEEZED * gap_s)
    } else {
        (1.0, gap_s)
    };
    let leaving = if is_in_pit(car) && car.last().is_some() {
        distance.out_loss_s
    } else {
        0.0
    };
    gap_s + share * (owed * distance.pit_loss_s() + leaving)
}

/// Distance to the least, and the place from 1 in ascending order; of equals the first comes first.
fn ranked(x: &[f64]) -> Vec<(f64, f64)> {
    let least = x.iter().copied().fold(f64::INFINITY, f64::min);
    x.iter()
        .enumerate()
        .map(|(i, own)| {
            let before = x
                .iter()
                .enumerate()
                .filter(|(j, o)| o.total_cmp(own).then(j.cmp(&i)).is_lt());
            (own - least, (before.count() + 1) as f64)
        })
        .collect()
}

/// ln x for x ≥ 1, the same on every machine.
fn ln_of(x: f64) -> f64 {
    -ln(1.0 / x.max(1.0))
}
