//! How long the race is: the feed does not say how many laps are scheduled.
//!
//! A Grand Prix runs the fewest laps that exceed 305 km (Monaco: 260 km), a sprint the fewest that
//! exceed 100 km, neither longer than its time limit. How long a lap is, the first that can say says:
//!
//! | what | [`LapsFrom`] |
//! |---|---|
//! | the calendar, which published seasons come with | `calendar` |
//! | the circuit's row of the table, unless the calendar, telemetry or the lap times contradict it | `circuit` |
//! | telemetry: speed summed over a lap ([`Odometer`]) | `measured` |
//! | a typical lap time at a typical mean speed; without one, the laps of a typical race | `guess` |
//!
//! A circuit's name alone says little: races go to other layouts under it. A race that goes on when it should be over
//! is longer than was thought: it is taken to end a lap on, again and again, and its length is a guess from there.
//!
//! **Invariant:** the remaining distance never grows because a car is slow: only status and time
//! limit change it, and laps that should not have been.

use super::floor::{Circuit, Floor};
use super::laptime::median;
use super::view::{CarView, View};
use crate::race::{SessionType, TrackStatus};
use crate::strategy::model::LapsFrom;

/// Distance that a Grand Prix exceeds (km).
const GRAND_PRIX_KM: f64 = 305.0;
/// Distance that a sprint exceeds (km).
const SPRINT_KM: f64 = 100.0;
/// Time limit of a Grand Prix without its suspensions (s).
const GRAND_PRIX_LIMIT_S: f64 = 7_200.0;
/// Time limit of a sprint (s).
const SPRINT_LIMIT_S: f64 = 3_600.0;
/// Mean speed of a race lap over the circuits of 2018–2023 (m/s): only where nothing else is known.
const TYPICAL_SPEED_MS: f64 = 57.5;
/// Laps of a Grand Prix whose lap length is not known at all.
const TYPICAL_LAPS: u16 = 57;
/// Most laps that are ever predicted.
pub const MOST_LAPS: u16 = 120;
/// How far a lap in the calendar may be off the table's and still be that circuit's (share): kerbs are moved.
const SAME_BY_CALENDAR: f64 = 0.005;
/// The same of a lap that was measured: the cars' speeds come as whole km/h four times a second.
const SAME_BY_MEASURE: f64 = 0.03;
/// No lap of a race has this mean speed (m/s; the quickest, at Monza, has 70): it was a shorter lap.
const TOO_QUICK_MS: f64 = 80.0;

/// What is known of the length of a lap, beside the circuit's name (km).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum LapKm {
    #[default]
    Unknown,
    Calendar(f64),
    Measured(f64),
}

impl LapKm {
    /// As the calendar has it, where it does.
    pub fn of_calendar(km: Option<f64>) -> LapKm {
        km.filter(|km| *km > 0.0)
            .map_or(LapKm::Unknown, LapKm::Calendar)
    }

    /// Whether a lap can be as long as the table says; `typical_s` is what one takes.
    fn agrees(self, table_km: f64, typical_s: Option<f64>) -> bool {
        match self {
            LapKm::Calendar(km) => (km / table_km - 1.0).abs() <= SAME_BY_CALENDAR,
            LapKm::Measured(km) => (km / table_km - 1.0).abs() <= SAME_BY_MEASURE,
            LapKm::Unknown => typical_s.is_none_or(|t| table_km * 1000.0 < TOO_QUICK_MS * t),
        }
    }
}

/// The length of the race and what a circuit asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// Laps of the whole race, as scheduled or as the time limit cuts it.
    pub laps: u16,
    pub laps_from: LapsFrom,
    pub in_loss_s: f64,
    pub out_loss_s: f64,
    /// Typical stint (share of a Grand Prix), by compound.
    pub life: [f64; 5],
    /// Laps of a Grand Prix here: what [`Distance::life`] is a share of.
    pub grand_prix_laps: u16,
}

impl Distance {
    /// The distance of this race. `lap`: what calendar or telemetry say of a lap. `suspended_s`: how long the race
    /// stood under red.
    pub fn of(view: &View, floor: &Floor, lap: LapKm, suspended_s: f64) -> Distance {
        let known = floor.circuit(&view.circuit);
        let sprint = view.session_type == SessionType::Sprint;
        let typical = typical_lap_s(view);
        let same = known.filter(|c| lap.agrees(c.length_km, typical));
        let (length, laps_from) = match (same, lap) {
            (Some(c), LapKm::Calendar(_)) => (Some(c.length_km), LapsFrom::Calendar),
            (Some(c), _) => (Some(c.length_km), LapsFrom::Circuit),
            (None, LapKm::Calendar(km)) => (Some(km), LapsFrom::Calendar),
            (None, LapKm::Measured(km)) => (Some(km), LapsFrom::Measured),
            (None, LapKm::Unknown) => (
                typical.map(|t| t * TYPICAL_SPEED_MS / 1000.0),
                LapsFrom::Guess,
            ),
        };
        let grand_prix = match (same, length) {
            (Some(c), _) => c.laps,
            (None, Some(km)) => laps_over(GRAND_PRIX_KM, km),
            (None, None) => TYPICAL_LAPS,
        };
        let scheduled = match (sprint, length) {
            (false, _) => grand_prix,
            (true, Some(km)) => laps_over(SPRINT_KM, km),
            (true, None) => TYPICAL_LAPS / 3,
        };
        let limit = if sprint {
            SPRINT_LIMIT_S
        } else {
            GRAND_PRIX_LIMIT_S
        };
        let (in_loss_s, out_loss_s, life) = match known {
            Some(Circuit {
                in_loss_s,
                out_loss_s,
                life,
                ..
            }) => (*in_loss_s, *out_loss_s, *life),
            None => (
                floor.elsewhere.in_loss_s,
                floor.elsewhere.out_loss_s,
                floor.elsewhere.life,
            ),
        };
        let cut = cut_by_time(view, scheduled, limit + suspended_s, typical);
        let (laps, laps_from) = moved_on(view, cut, laps_from);
        Distance {
            laps: laps.min(MOST_LAPS),
            laps_from,
            in_loss_s,
            out_loss_s,
            life,
            grand_prix_laps: grand_prix,
        }
    }

    /// Laps that the leader still has to do.
    pub fn remaining(&self, view: &View) -> u16 {
        self.laps.saturating_sub(view.leader_laps())
    }

    /// Time that a stop costs under green (s).
    pub fn pit_loss_s(&self) -> f64 {
        self.in_loss_s + self.out_loss_s
    }

    /// Typical stint on the compound with that index (laps).
    pub fn life_laps(&self, compound: usize) -> f64 {
        self.life[compound] * f64::from(self.grand_prix_laps)
    }
}

/// The fewest laps of `km` that exceed `distance` km.
fn laps_over(distance: f64, km: f64) -> u16 {
    (1..=MOST_LAPS)
        .find(|n| f64::from(*n) * km > distance)
        .unwrap_or(MOST_LAPS)
}

/// Median of the latest clean laps over the field (s).
pub fn typical_lap_s(view: &View) -> Option<f64> {
    let mut latest: Vec<f64> = view
        .cars
        .iter()
        .filter_map(|c: &CarView| c.laps.iter().rfind(|l| l.is_clean())?.time_s)
        .collect();
    median(&mut latest)
}

/// The scheduled laps, or as many as the time limit leaves room for: when it runs out, the leader
/// finishes that lap and one more.
fn cut_by_time(view: &View, scheduled: u16, limit_s: f64, typical: Option<f64>) -> u16 {
    let done = view.leader_laps();
    let (Some(started), Some(lap_s)) = (view.started, typical) else {
        return scheduled;
    };
    let left_s = limit_s - view.clock.seconds_since(started);
    let more = if left_s <= 0.0 {
        1.0
    } else {
        (left_s / lap_s.max(30.0)).ceil() + 1.0
    };
    // Saturates: a float to integer cast in Rust never wraps.
    scheduled.min(done.saturating_add(more as u16))
}

/// The laps, or one more than are done where the race has not ended with them: there was no chequered flag, and of
/// laps that somebody has scheduled the leader has completed one more.
fn moved_on(view: &View, laps: u16, from: LapsFrom) -> (u16, LapsFrom) {
    let done = view.leader_laps();
    let beyond = match from {
        LapsFrom::Told | LapsFrom::Calendar | LapsFrom::Circuit => done > laps,
        LapsFrom::Measured | LapsFrom::Guess => done >= laps,
    };
    if beyond && !view.finished && view.status != TrackStatus::Chequered {
        return (done + 1, LapsFrom::Guess);
    }
    (laps, from)
}

/// Sums one car's speed over its laps: the lap length, whatever the circuit is called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Odometer {
    /// The car that is followed, and the lap it is on.
    car: Option<(u8, u16)>,
    last: Option<crate::record::Time>,
    metres: f64,
    /// Longest gap between two samples on this lap (s).
    gap_s: f64,
    lengths: heapless::Vec<f64, 5>,
}

/// A lap with a longer silence of telemetry says nothing about its length (s).
const MOST_SILENCE_S: f64 = 2.0;

impl Odometer {
    /// One sample: a car's speed, its lap, when. Another car begins a new count.
    pub fn sample(&mut self, car: u8, lap: u16, speed_kmh: f64, at: crate::record::Time) {
        if self.lengths.is_full() || lap == 0 {
            return;
        }
        match self.car {
            Some((followed, on)) if followed == car && on == lap => {}
            before => {
                if before.is_some_and(|(followed, on)| followed == car && on > 1 && lap == on + 1)
                    && self.gap_s <= MOST_SILENCE_S
                {
                    let km = self.metres / 1000.0;
                    if (1.0..20.0).contains(&km) {
                        let _ = self.lengths.push(km);
                    }
                }
                self.car = Some((car, lap));
                self.metres = 0.0;
                self.gap_s = 0.0;
            }
        }
        let dt = self.last.map_or(0.0, |t| at.seconds_since(t));
        if dt > 0.0 {
            self.metres += speed_kmh / 3.6 * dt;
            self.gap_s = self.gap_s.max(dt);
        }
        if dt >= 0.0 {
            self.last = Some(at);
        }
    }

    /// The car that is followed.
    pub fn car(&self) -> Option<u8> {
        self.car.map(|(number, _)| number)
    }

    /// The lap length so far.
    pub fn lap(&self) -> LapKm {
        median(&mut self.lengths.clone()).map_or(LapKm::Unknown, LapKm::Measured)
    }

    /// Whether nothing that comes changes it.
    pub fn is_done(&self) -> bool {
        self.lengths.is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::view::LapView;
    use crate::record::Time;

    #[test]
    fn laps_follow_the_distance_rule() {
        assert_eq!(laps_over(GRAND_PRIX_KM, 5.412), 57);
        assert_eq!(laps_over(GRAND_PRIX_KM, 7.004), 44);
        assert_eq!(laps_over(SPRINT_KM, 4.318), 24);
        assert_eq!(laps_over(GRAND_PRIX_KM, 0.0), MOST_LAPS);
    }

    #[test]
    fn an_unknown_circuit_is_measured_from_telemetry() {
        let floor = Floor::shipped();
        let mut odometer = Odometer::default();
        // 4 laps of 100 s at 180 km/h: 5 km each.
        for tenth in 0..4_000i64 {
            let lap = 1 + (tenth / 1000) as u16;
            odometer.sample(1, lap, 180.0, Time::from_millis(tenth * 100));
        }
        let LapKm::Measured(km) = odometer.lap() else {
            panic!("laps were measured");
        };
        assert!((km - 5.0).abs() < 0.02, "{km}");
        let view = View {
            session_type: SessionType::Race,
            circuit: "Madring".into(),
            ..View::default()
        };
        let distance = Distance::of(&view, &floor, LapKm::Measured(km), 0.0);
        assert!((61..=62).contains(&distance.laps), "{}", distance.laps);
        assert_eq!(distance.laps_from, LapsFrom::Measured);
        let guessed = Distance::of(&view, &floor, LapKm::Unknown, 0.0);
        assert_eq!(
            (guessed.laps, guessed.laps_from),
            (TYPICAL_LAPS, LapsFrom::Guess)
        );
    }

    fn at(circuit: &str) -> View {
        View {
            session_type: SessionType::Race,
            circuit: circuit.into(),
            ..View::default()
        }
    }

    /// The same, with one car that has driven `laps` clean laps of `lap_s`.
    fn after(circuit: &str, laps: u16, lap_s: f64) -> View {
        let lap = |number| LapView {
            number,
            time_s: Some(lap_s),
            statuses: TrackStatus::Clear.bit(),
            ..LapView::default()
        };
        let car = CarView {
            number: 1,
            laps: (1..=laps).map(lap).collect(),
            ..CarView::default()
        };
        View {
            cars: vec![car],
            ..at(circuit)
        }
    }

    #[test]
    fn a_name_is_not_believed_against_what_is_measured() {
        let floor = Floor::shipped();
        let of = |view: &View, lap| {
            let d = Distance::of(view, &floor, lap, 0.0);
            (d.laps, d.laps_from)
        };
        let grid = at("Sakhir");
        assert_eq!(of(&grid, LapKm::Unknown), (57, LapsFrom::Circuit));
        // A measured lap is a little off; the calendar is not, but kerbs are moved.
        assert_eq!(of(&grid, LapKm::Measured(5.36)), (57, LapsFrom::Circuit));
        assert_eq!(of(&grid, LapKm::Calendar(5.41)), (57, LapsFrom::Calendar));
        // The outer layout: 87 laps of 3.543 km.
        assert_eq!(of(&grid, LapKm::Calendar(3.543)), (87, LapsFrom::Calendar));
        assert_eq!(of(&grid, LapKm::Measured(3.543)), (87, LapsFrom::Measured));
        // Nobody tells, but no car does 5.4 km in 56 s.
        let (laps, from) = of(&after("Sakhir", 5, 56.0), LapKm::Unknown);
        assert!((87..=100).contains(&laps) && from == LapsFrom::Guess);
        let slow = after("Sakhir", 5, 150.0);
        assert_eq!(of(&slow, LapKm::Unknown), (57, LapsFrom::Circuit));
    }

    #[test]
    fn a_race_that_goes_on_is_longer_than_was_thought() {
        let floor = Floor::shipped();
        let of = |view: &View, lap| {
            let d = Distance::of(view, &floor, lap, 0.0);
            (d.laps, d.laps_from)
        };
        let mut view = after("Nowhere", 61, 90.0);
        // 5 km a lap: 62 laps; after 62 without a flag it is 63.
        assert_eq!(of(&view, LapKm::Measured(5.0)), (62, LapsFrom::Measured));
        view = after("Nowhere", 62, 90.0);
        assert_eq!(of(&view, LapKm::Measured(5.0)), (63, LapsFrom::Guess));
        view.status = TrackStatus::Chequered;
        assert_eq!(of(&view, LapKm::Measured(5.0)), (62, LapsFrom::Measured));
        // What is scheduled is believed until the leader has done more.
        view = after("Sakhir", 57, 95.0);
        assert_eq!(of(&view, LapKm::Unknown), (57, LapsFrom::Circuit));
        view = after("Sakhir", 58, 95.0);
        assert_eq!(of(&view, LapKm::Unknown), (59, LapsFrom::Guess));
        // And never beyond what is ever predicted.
        view = after("Sakhir", MOST_LAPS, 95.0);
        assert_eq!(of(&view, LapKm::Unknown).0, MOST_LAPS);
    }

    #[test]
    fn a_sprint_is_a_hundred_kilometres() {
        let floor = Floor::shipped();
        let view = View {
            session_type: SessionType::Sprint,
            circuit: "Spielberg".into(),
            ..View::default()
        };
        assert_eq!(Distance::of(&view, &floor, LapKm::Unknown, 0.0).laps, 24);
    }
}
