//! How long the race is: the feed does not say how many laps are scheduled.
//!
//! A Grand Prix runs the fewest laps that exceed 305 km (Monaco: 260 km), a sprint the fewest that
//! exceed 100 km, neither longer than its time limit. Where the circuit is known its table row says
//! the laps; elsewhere the lap length comes from telemetry (speed summed over a lap) or, failing
//! that, from a typical lap time at a typical mean speed.
//!
//! **Invariant:** the remaining distance never grows because a car is slow: only status and time
//! limit change it.

use super::floor::{Circuit, Floor};
use super::laptime::median;
use super::view::{CarView, View};
use crate::race::SessionType;

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

/// The length of the race and what a circuit asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// Laps of the whole race, as scheduled or as the time limit cuts it.
    pub laps: u16,
    pub in_loss_s: f64,
    pub out_loss_s: f64,
    /// Typical stint (share of a Grand Prix), by compound.
    pub life: [f64; 5],
    /// Laps of a Grand Prix here: what [`Distance::life`] is a share of.
    pub grand_prix_laps: u16,
}

impl Distance {
    /// The distance of this race. `lap_km`: lap length summed from telemetry, for circuits that the
    /// table does not have. `suspended_s`: how long the race stood under red.
    pub fn of(view: &View, floor: &Floor, lap_km: Option<f64>, suspended_s: f64) -> Distance {
        let known = floor.circuit(&view.circuit);
        let sprint = view.session_type == SessionType::Sprint;
        let typical = typical_lap_s(view);
        let length = known
            .map(|c| c.length_km)
            .or(lap_km)
            .or(typical.map(|t| t * TYPICAL_SPEED_MS / 1000.0));
        let grand_prix = match (known, length) {
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
        Distance {
            laps: cut_by_time(view, scheduled, limit + suspended_s, typical).min(MOST_LAPS),
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

/// Sums one car's speed over its laps: the lap length of a circuit that the table does not have.
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

    /// The lap length so far (km).
    pub fn lap_km(&self) -> Option<f64> {
        median(&mut self.lengths.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let km = odometer.lap_km().expect("laps were measured");
        assert!((km - 5.0).abs() < 0.02, "{km}");
        let view = View {
            session_type: SessionType::Race,
            circuit: "Madring".into(),
            ..View::default()
        };
        let distance = Distance::of(&view, &floor, Some(km), 0.0);
        assert!((61..=62).contains(&distance.laps), "{}", distance.laps);
        assert_eq!(Distance::of(&view, &floor, None, 0.0).laps, TYPICAL_LAPS);
    }

    #[test]
    fn a_sprint_is_a_hundred_kilometres() {
        let floor = Floor::shipped();
        let view = View {
            session_type: SessionType::Sprint,
            circuit: "Spielberg".into(),
            ..View::default()
        };
        assert_eq!(Distance::of(&view, &floor, None, 0.0).laps, 24);
    }
}
