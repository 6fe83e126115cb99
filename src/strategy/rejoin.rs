//! Where a car would come back onto the track if it boxed on this lap.
//!
//! Plain arithmetic on the gaps at the last line: nobody else stops, nobody gains or loses meanwhile.

use serde::Serialize;

use super::model::Start;
use super::parameters::Parameters;

/// Cars this close ahead on coming back hold one up (s).
const TRAFFIC_S: f64 = 5.0;

/// A rejoin under one status.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rejoin {
    /// `green`, `virtual_safety_car` or `safety_car`.
    pub under: &'static str,
    /// Time that the stop costs (s).
    pub loss_s: f64,
    /// Place among the cars that run.
    pub position: usize,
    /// Places that it costs for now.
    pub places_lost: usize,
    /// To the car ahead and from the car behind (s).
    pub gap_ahead_s: Option<f64>,
    pub gap_behind_s: Option<f64>,
    /// Number of the car ahead.
    pub behind_car: Option<u8>,
    /// Cars within five seconds ahead.
    pub traffic: usize,
}

/// Rejoins of the car at `index` under green, virtual safety car and safety car.
pub fn rejoins(start: &Start, parameters: &Parameters, index: usize) -> [Rejoin; 3] {
    let circuit = parameters.circuit(&start.circuit);
    let green = circuit.in_loss_s + circuit.out_loss_s;
    let stop = &parameters.stop;
    [
        ("green", 1.0),
        ("virtual_safety_car", stop.r#virtual),
        ("safety_car", stop.safety_car),
    ]
    .map(|(under, share)| {
        let loss_s = green * share + start.cars[index].stop_s;
        rejoin(start, index, under, loss_s)
    })
}

fn rejoin(start: &Start, index: usize, under: &'static str, loss_s: f64) -> Rejoin {
    let own = start.cars[index].behind_s;
    let after = own + loss_s;
    let others = || {
        start
            .cars
            .iter()
            .enumerate()
            .filter(move |(i, c)| *i != index && c.running)
            .map(|(_, c)| c)
    };
    let before = others().filter(|c| c.behind_s < own).count();
    let ahead = others()
        .filter(|c| c.behind_s <= after)
        .max_by(|a, b| a.behind_s.total_cmp(&b.behind_s));
    let behind = others()
        .filter(|c| c.behind_s > after)
        .min_by(|a, b| a.behind_s.total_cmp(&b.behind_s));
    let place = others().filter(|c| c.behind_s <= after).count();
    Rejoin {
        under,
        loss_s,
        position: place + 1,
        places_lost: place.saturating_sub(before),
        gap_ahead_s: ahead.map(|c| after - c.behind_s),
        gap_behind_s: behind.map(|c| c.behind_s - after),
        behind_car: ahead.map(|c| c.number),
        traffic: others()
            .filter(|c| c.behind_s <= after && after - c.behind_s < TRAFFIC_S)
            .count(),
    }
}
