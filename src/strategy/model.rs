//! The race model: what a race is made of, turned into the whole numbers that are simulated.
//!
//! ```text
//! lap n of N, car i on compound c, tyres a laps old (times in s; T a reference lap, the other symbols shares of it)
//!   t = P_i                     pace of the car: no fuel, fresh mediums
//!     + f·T·(N − n)             fuel, and the track coming in
//!     + o_c·T + s·a + κT·a²/2   tyre: fresh loss, wear; s = (s_c + h·(θ − θ₀))·T·w_i, θ the track's temperature
//!     + d·T·(1 − g/g₀)⁺         dirty air, g the gap to the car ahead, none from g₀ on
//!     + W[level][class]·T       water
//!     + ε                       noise (Irwin–Hall, spread σT), now and then a mistake
//! ```
//!
//! Wear runs at half its rate under a virtual safety car, at a quarter behind a safety car. A stop costs what the
//! circuit's pit lane costs under the status of the in-lap, and what the crew adds: by team, and by luck. P_i varies from race to race by the
//! spread that the estimate has, w_i from stint to stint.
//!
//! A car passes if, unhindered, it would cross the line ahead by more than `u · span`, u uniform: span is small where
//! overtaking is easy. Safety cars, virtual ones, red flags, rain and retirements are hazards a lap. Two dry compounds
//! must be raced on unless wet tyres were; who breaks that, or a race's own rule ([`super::rules`]), is not classified. A red flag brings
//! fresh tyres for all and a standing start. Behind the safety car the field closes up, lapped cars with it.
//!
//! **Invariant:** pure. The same [`Start`] and parameters give the same [`Problem`].

use serde::Serialize;

use super::parameters::{Circuit, Parameters};
use super::rules::Rules;
use crate::compute::ShapeError;
use crate::compute::philox::BELL_SIGMA;
use crate::compute::race_monte_carlo::{
    COMPOUNDS, Car, MAX_CARS, MAX_LAPS, Plan, Problem, Status, Tyre, WrongProblem,
};

/// A reference lap where nothing is known (s).
const TYPICAL_LAP_S: f64 = 90.0;
/// Laps of a Grand Prix of which nothing is known.
pub const TYPICAL_LAPS: u16 = 57;
/// Most that the wear of a stint is believed to differ, relative.
const MOST_WEAR_SPREAD: f64 = 0.6;
/// 2³² and 2¹⁶: what probabilities are thresholds of.
const TWO_32: f64 = 4_294_967_296.0;
const TWO_16: f64 = 65_536.0;

/// How the laps of a race are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LapsFrom {
    /// Somebody has said so.
    Told,
    /// From the lap's length in the calendar.
    Calendar,
    /// From the lap's length as the cars' speeds add up to it.
    Measured,
    /// As many as were last scheduled on this circuit, and nothing speaks against it.
    Circuit,
    /// From what races are like, or because the race has gone on for longer than was thought.
    #[default]
    Guess,
}

/// A race from which one wants to know how it goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// As OpenF1's `circuit_short_name` writes it; a circuit that was never seen is one like the field of circuits.
    pub circuit: String,
    /// Laps of the race.
    pub laps: u16,
    pub laps_from: LapsFrom,
    /// Laps that the leader has completed: 0 on the grid.
    pub lap: u16,
    pub sprint: bool,
    /// What this race asks for beyond two compounds.
    pub rules: Rules,
    pub status: Status,
    /// Laps for which that status has held.
    pub status_laps: u16,
    /// Wetness: dry 0, damp 1, wet 2.
    pub level: u8,
    /// Track temperature (°C).
    pub track_c: Option<f64>,
    /// A lap of the middle of the field without fuel on fresh mediums (s).
    pub reference_s: f64,
    pub cars: Vec<Entrant>,
}

/// A car at the start of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrant {
    pub number: u8,
    /// Behind the leader at the line (s), whole laps included; on the grid: behind pole.
    pub behind_s: f64,
    /// Lap time without fuel on fresh mediums, and how far it is from certain (s).
    pub pace_s: f64,
    pub pace_spread_s: f64,
    /// Wear against that of the field.
    pub wear: f64,
    pub running: bool,
    /// Index of the compound: soft, medium, hard, intermediate, wet.
    pub compound: u8,
    /// Age of the tyres (laps).
    pub age: u16,
    /// What its tyres lose now a lap more each lap (s), where the stint has told; else as the model has it.
    pub slope_s: Option<f64>,
    /// Compounds raced on (bits), the present one included.
    pub used: u8,
    /// Changes of tyres so far, those under a red flag included.
    pub changes: u16,
    /// Compounds that it could take (bits).
    pub available: u8,
    /// What its crew takes longer for a stop than the field's (s).
    pub stop_s: f64,
    pub plan: Plan,
}

/// A car on the grid.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GridCar {
    pub number: u8,
    /// Best qualifying time (s).
    pub qualifying_s: Option<f64>,
    /// Compound that it starts on.
    pub compound: u8,
}

/// Laps of a race of which nobody has said how long it is, after `lap` of them.
pub(super) fn length(circuit: &Circuit, lap: u16) -> (u16, LapsFrom) {
    if circuit.laps > lap {
        (circuit.laps, LapsFrom::Circuit)
    } else {
        (TYPICAL_LAPS.max(lap + 1), LapsFrom::Guess)
    }
}

/// Every compound.
pub const ALL_COMPOUNDS: u8 = 0b1_1111;

/// Why a race cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error("{0} cars; a simulated race holds 1 to {MAX_CARS}")]
    Cars(usize),
    #[error("{lap} of {laps} laps are done; a simulated race has 1 to {} laps and one at least to go", MAX_LAPS - 1)]
    Laps { lap: u16, laps: u16 },
    #[error(transparent)]
    Problem(#[from] WrongProblem),
    #[error(transparent)]
    Task(#[from] ShapeError),
}

impl Start {
    /// A race about to begin: `grid` from pole on.
    ///
    /// Pace from qualifying: P = T · (1 + b · (q / q̃ − 1)), q̃ the median of the field, T = margin · q̃.
    pub fn grid(
        parameters: &Parameters,
        circuit: &str,
        laps: Option<u16>,
        grid: &[GridCar],
    ) -> Start {
        let known = parameters.circuit(circuit);
        let mut times: Vec<f64> = grid.iter().filter_map(|c| c.qualifying_s).collect();
        let middle = median(&mut times);
        let reference_s = reference(parameters, &known, middle);
        let cars = grid
            .iter()
            .enumerate()
            .map(|(slot, car)| {
                let (share, spread) = prior(parameters, car.qualifying_s, middle);
                Entrant {
                    number: car.number,
                    behind_s: slot as f64 * parameters.start.slot * reference_s,
                    pace_s: share * reference_s,
                    pace_spread_s: spread * reference_s,
                    wear: 1.0,
                    running: true,
                    compound: car.compound,
                    age: 0,
                    slope_s: None,
                    used: 1 << car.compound,
                    changes: 0,
                    available: ALL_COMPOUNDS,
                    stop_s: 0.0,
                    plan: Plan::default(),
                }
            })
            .collect();
        let told = laps.map(|laps| (laps, LapsFrom::Told));
        let (laps, laps_from) = told.unwrap_or_else(|| length(&known, 0));
        Start {
            circuit: circuit.to_owned(),
            laps,
            laps_from,
            lap: 0,
            sprint: false,
            rules: Rules::default(),
            status: Status::Green,
            status_laps: 0,
            level: 0,
            track_c: None,
            reference_s,
            cars,
        }
    }

    /// The whole numbers of this race.
    ///
    /// # Errors
    /// If there are no cars or laps, too many of them, or a number that the engines cannot hold.
    pub fn problem(&self, parameters: &Parameters) -> Result<Problem, ModelError> {
        if self.cars.is_empty() || self.cars.len() > MAX_CARS {
            return Err(ModelError::Cars(self.cars.len()));
        }
        if self.lap >= self.laps || usize::from(self.laps) >= MAX_LAPS {
            return Err(ModelError::Laps {
                lap: self.lap,
                laps: self.laps,
            });
        }
        let circuit = parameters.circuit(&self.circuit);
        let (p, t) = (parameters, self.reference_s);
        let share = |x: f64| ms(x * t);
        let mut cars = [Car::default(); MAX_CARS];
        for (car, entrant) in cars.iter_mut().zip(&self.cars) {
            *car = self.car(entrant, p, &circuit);
        }
        let mut lap_ms = [0; MAX_LAPS];
        for n in 1..=self.laps {
            lap_ms[usize::from(n)] = share(circuit.fuel * f64::from(self.laps - n));
        }
        // The fitted loss of a stop is a mean: what the crew and botched stops add on average is in it.
        let stop = &p.stop;
        let crew = stop.crew_s / 2.0 + stop.botch * stop.botch_s;
        let green = circuit.in_loss_s + circuit.out_loss_s - crew;
        let neutral = &p.neutral;
        let fresh = self.lap == 0 || self.status == Status::Red;
        let (status, status_left) = match self.status {
            Status::Green | Status::Red => (Status::Green, 0),
            Status::SafetyCar => (
                Status::SafetyCar,
                left(neutral.safety_car_laps, self.status_laps),
            ),
            Status::Virtual => (
                Status::Virtual,
                left(neutral.virtual_laps, self.status_laps),
            ),
        };
        let lengths = |[least, span]: [f64; 2]| [least as i32, span as i32];
        let problem = Problem {
            cars,
            count: self.cars.len() as i32,
            laps: i32::from(self.laps),
            first: i32::from(self.lap) + 1,
            last: i32::from(self.laps),
            lap_ms,
            reference_ms: ms(t * (1.0 + circuit.fuel * f64::from(self.laps) / 2.0)),
            min_gap_ms: ms(p.traffic.min_gap_s),
            dirty_gap_ms: ms(p.pace.dirty_gap_s),
            dirty_q8: (256.0 * p.pace.dirty * t / p.pace.dirty_gap_s).round() as i32,
            pass_ms: ms(p.traffic.pass_s),
            pass_span_ms: ms(circuit.pass_span_s),
            blue_ms: ms(p.traffic.blue_s),
            start_ms: share(p.start.extra),
            start_q10: spread_q10(p.start.spread * t),
            mistake: (p.mistake.chance * TWO_16).round() as i32,
            mistake_ms: share(p.mistake.cost),
            sc_lap_ms: share(neutral.safety_car_lap),
            sc_catch_ms: share(neutral.catch_up_lap),
            sc_gap_ms: ms(neutral.gap_s),
            vsc_ms: share(neutral.virtual_lap - 1.0),
            pit_ms: [
                ms(green),
                ms(green * stop.r#virtual),
                ms(green * stop.safety_car),
                0,
            ],
            crew_ms: ms(stop.crew_s),
            botch: (stop.botch * TWO_16).round() as i32,
            botch_ms: ms(stop.botch_s),
            hazard: circuit.hazard.map(threshold),
            hazard_start: neutral.hazard_start.map(threshold),
            sc_laps: lengths(neutral.safety_car_laps),
            vsc_laps: lengths(neutral.virtual_laps),
            wetter: p.wet.wetter.map(threshold),
            drier: p.wet.drier.map(threshold),
            wet_ms: p.wet.loss.map(|row| row.map(share)),
            react: [
                0,
                (neutral.react[0] * TWO_16) as i32,
                (neutral.react[1] * TWO_16) as i32,
                0,
            ],
            cross: (p.wet.cross * TWO_16) as i32,
            two_compounds: i32::from(!self.sprint),
            min_stops: self.rules.min_stops.into(),
            longest_stint_laps: self.rules.longest_stint_laps.into(),
            status: status as i32,
            status_left,
            level: i32::from(self.level.min(2)),
            restart: i32::from(fresh),
        };
        problem.check()?;
        Ok(problem)
    }

    fn car(&self, e: &Entrant, p: &Parameters, circuit: &Circuit) -> Car {
        let tyres = std::array::from_fn(|c| self.tyre(c, e, p, circuit));
        let compound = usize::from(e.compound).min(COMPOUNDS - 1);
        let age = f64::from(e.age);
        let tyre: Tyre = tyres[compound];
        let slope = e
            .slope_s
            .map_or(f64::from(tyre.slope_q8), |s| s.max(0.0) * 256_000.0);
        let mean = (p.pace.slope[0] + p.pace.slope[1] + p.pace.slope[2]) / 3.0;
        let spread = (p.pace.wear_spread / mean.max(1e-6)).min(MOST_WEAR_SPREAD);
        let life_spread = p.stop.life_spread[compound] / p.stop.life[compound];
        Car {
            base_ms: ms(e.pace_s),
            form_q10: spread_q10(e.pace_spread_s),
            noise_q10: spread_q10(circuit.noise * self.reference_s),
            wear_q16: (spread * TWO_16 / BELL_SIGMA).round() as i32,
            life_q16: (life_spread.min(0.5) * TWO_16 / BELL_SIGMA).round() as i32,
            retire: threshold(p.retire.lap),
            retire_start: threshold(p.retire.start),
            tyres,
            available: i32::from(e.available),
            plan: e.plan,
            time_ms: ms(e.behind_s.clamp(0.0, 16_000.0)),
            running: i32::from(e.running),
            compound: compound as i32,
            age: i32::from(e.age),
            wear_q8: tyre.offset_ms * 256 + (slope * age).round() as i32,
            slope_q8: slope.round() as i32,
            used: i32::from(e.used) | 1 << compound,
            changes: i32::from(e.changes),
            stop_ms: ms(e.stop_s),
        }
    }

    fn tyre(&self, c: usize, e: &Entrant, p: &Parameters, circuit: &Circuit) -> Tyre {
        let heat = self
            .track_c
            .map_or(0.0, |t| p.pace.heat * (t - p.pace.heat_at));
        let slope = if c < 3 {
            (circuit.slope[c] + heat).max(0.2 * circuit.slope[c])
        } else {
            p.pace.slope[c]
        };
        let grand_prix = if circuit.laps > 0 {
            circuit.laps
        } else {
            self.laps
        };
        let life = circuit.life[c] * f64::from(grand_prix) / e.wear.clamp(0.8, 1.25);
        Tyre {
            offset_ms: ms(p.pace.offset[c] * self.reference_s),
            slope_q8: (slope * e.wear * self.reference_s * 256_000.0).round() as i32,
            curve_q8: (p.pace.curve * self.reference_s * 256_000.0).round() as i32,
            life: (life.round() as i32).clamp(2, MAX_LAPS as i32),
        }
    }
}

/// Pace of a car before the race as a share of the reference lap, and its spread (share).
pub fn prior(p: &Parameters, qualifying_s: Option<f64>, middle_s: Option<f64>) -> (f64, f64) {
    match (qualifying_s, middle_s) {
        (Some(q), Some(middle)) if middle > 0.0 => {
            // Beyond a few per cent a time says that something went wrong, not how quick the car is.
            let gap = (q / middle - 1.0).clamp(-0.04, 0.04);
            (1.0 + p.pace.from_qualifying * gap, p.pace.form)
        }
        _ => (1.0, p.pace.form_blind),
    }
}

/// The reference lap (s) from the field's median qualifying time, else from the lap's length, else a typical one.
pub fn reference(p: &Parameters, circuit: &Circuit, middle_s: Option<f64>) -> f64 {
    /// Mean speed of a race lap over the circuits of 2018–2023 (km/s).
    const TYPICAL_KM_S: f64 = 0.0575;
    match middle_s {
        Some(middle) => (middle * p.pace.margin).clamp(40.0, 300.0),
        None if circuit.length_km > 0.0 => circuit.length_km / TYPICAL_KM_S,
        None => TYPICAL_LAP_S,
    }
}

/// The middle one (of two, their mean).
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        _ if n.is_multiple_of(2) => Some((values[n / 2 - 1] + values[n / 2]) / 2.0),
        _ => Some(values[n / 2]),
    }
}

/// A race at Sakhir between twenty cars a tenth of a second a lap apart: for examples, tests and the benchmark.
pub fn example_problem() -> Problem {
    let grid: Vec<GridCar> = (0..20)
        .map(|i| GridCar {
            number: i + 1,
            qualifying_s: Some(90.0 + 0.1 * f64::from(i)),
            compound: i % 2,
        })
        .collect();
    let parameters = Parameters::shipped();
    // Twenty cars and the laps of a known circuit always fit.
    Start::grid(&parameters, "Sakhir", None, &grid)
        .problem(&parameters)
        .expect("the shipped parameters are checked by a test")
}

fn ms(seconds: f64) -> i32 {
    (seconds * 1000.0).round() as i32
}

fn spread_q10(seconds: f64) -> i32 {
    (seconds * 1000.0 * 1024.0 / BELL_SIGMA).round() as i32
}

fn threshold(probability: f64) -> u32 {
    (probability * TWO_32) as u32
}

/// Laps that a neutralisation is expected to last yet, one at least.
fn left([least, span]: [f64; 2], so_far: u16) -> i32 {
    let mean = least + (span - 1.0) / 2.0;
    (mean.round() as i32 - i32::from(so_far)).max(1)
}
