//! What the predictions read of the race: the one place that knows how race state is laid out.
//!
//! **Invariant:** a view is a copy of facts: no arithmetic on them happens here beyond finding when
//! a lap ended and which laps share a set of tyres.

use crate::race::{Car, CarStatus, Compound, Race, SessionType, TrackStatus};
use crate::record::{Gap, Time};

/// The race as it stands at one record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    pub session_key: i32,
    pub session_type: SessionType,
    /// OpenF1's `circuit_short_name`; empty until it is known.
    pub circuit: String,
    /// The feed's time.
    pub clock: Time,
    /// When lap 1 began.
    pub started: Option<Time>,
    pub finished: bool,
    pub status: TrackStatus,
    pub raining: bool,
    pub weather: WeatherView,
    /// By driver number, ascending.
    pub cars: Vec<CarView>,
}

/// The weather as last heard; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeatherView {
    /// °C.
    pub air_c: Option<f64>,
    /// °C.
    pub track_c: Option<f64>,
    /// %.
    pub humidity: Option<f64>,
    /// m/s.
    pub wind_ms: Option<f64>,
}

/// One car.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CarView {
    pub number: u8,
    /// Three letters, for what is known of the driver's form; empty where they are not known.
    pub driver: heapless::String<8>,
    /// Team, to tell teammates; empty where it is not known.
    pub team: heapless::String<48>,
    pub grid: Option<u8>,
    /// Best qualifying time (s).
    pub qualifying_s: Option<f64>,
    pub position: Option<u8>,
    pub status: CarStatus,
    /// Gap to the leader from the feed (s), where it is in seconds.
    pub gap_s: Option<f64>,
    /// Completed laps by number, ascending.
    pub laps: Vec<LapView>,
    /// The lap in progress.
    pub current: Option<LapView>,
    /// Position in the official result, once it is known.
    pub official: Option<u8>,
}

/// One lap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LapView {
    pub number: u16,
    pub started: Option<Time>,
    /// When it ended: its start and its time, else the start of the next.
    pub ended: Option<Time>,
    /// Lap time (s).
    pub time_s: Option<f64>,
    /// Sector times (s).
    pub sectors: [Option<f64>; 3],
    pub is_in: bool,
    pub is_out: bool,
    /// Every track status during the lap: bit `TrackStatus as u8`.
    pub statuses: u8,
    pub compound: Compound,
    /// Age of the tyres at the end of the lap (laps).
    pub age: Option<u16>,
    /// Counts up at each out-lap and wherever the tyres got younger.
    pub stint: u8,
}

impl LapView {
    /// Whether that status held at some time of the lap.
    pub const fn saw(&self, status: TrackStatus) -> bool {
        self.statuses & (1 << status as u8) != 0
    }

    /// Whether the track was clear throughout.
    pub const fn is_green(&self) -> bool {
        let clear = (1 << TrackStatus::Clear as u8) | (1 << TrackStatus::Chequered as u8);
        self.statuses & !clear == 0
    }

    /// A lap that tells pace: timed, green, neither in- nor out-lap, not the first.
    pub fn is_clean(&self) -> bool {
        self.time_s.is_some() && self.is_green() && !self.is_in && !self.is_out && self.number > 1
    }

    /// Sum of the first `n` sectors (s).
    pub fn first_sectors(&self, n: usize) -> Option<f64> {
        self.sectors
            .iter()
            .take(n)
            .try_fold(0.0, |sum, s| Some(sum + (*s)?))
    }
}

impl CarView {
    /// The last completed lap.
    pub fn last(&self) -> Option<&LapView> {
        self.laps.last()
    }

    /// Number of the last completed lap; 0 before the first.
    pub fn laps_completed(&self) -> u16 {
        self.last().map_or(0, |l| l.number)
    }

    /// Whether it still races.
    pub fn runs(&self) -> bool {
        matches!(self.status, CarStatus::OnTrack | CarStatus::InPit)
    }

    /// The completed lap of that number.
    pub fn lap(&self, number: u16) -> Option<&LapView> {
        let at = self.laps.binary_search_by_key(&number, |l| l.number).ok()?;
        self.laps.get(at)
    }

    /// Compounds raced on so far, in the order of their first lap.
    pub fn compounds_used(&self) -> heapless::Vec<Compound, 6> {
        let mut used = heapless::Vec::new();
        for lap in self.laps.iter().chain(&self.current) {
            if lap.compound != Compound::Unknown && !used.contains(&lap.compound) {
                // Six compounds exist.
                let _ = used.push(lap.compound);
            }
        }
        used
    }

    /// Whether the rule of two dry compounds still asks for a stop: only dry tyres so far, and one kind.
    pub fn owes_compound(&self) -> bool {
        let used = self.compounds_used();
        used.len() < 2 && !used.iter().any(|c| is_wet(*c))
    }
}

/// A team's name as a view holds it, cut where it is too long.
pub fn team_name(text: &str) -> heapless::String<48> {
    let mut name = heapless::String::new();
    for c in text.chars() {
        if name.push(c).is_err() {
            break;
        }
    }
    name
}

/// Whether a compound is for a wet track.
pub const fn is_wet(compound: Compound) -> bool {
    matches!(compound, Compound::Intermediate | Compound::Wet)
}

impl View {
    /// The race as it stands.
    pub fn of(race: &Race) -> View {
        let mut cars: Vec<CarView> = race.cars().iter().map(car_view).collect();
        cars.sort_unstable_by_key(|c| c.number);
        View {
            session_key: race.session.key.unwrap_or_default(),
            session_type: race.session.session_type,
            circuit: race.session.circuit_short_name.as_str().to_owned(),
            clock: race.clock,
            started: race.session.started,
            finished: race.session.finished,
            status: race.track_status(),
            raining: race.weather.as_ref().is_some_and(|w| w.raining),
            weather: race
                .weather
                .as_ref()
                .map_or_else(WeatherView::default, |w| WeatherView {
                    air_c: w.air_temperature,
                    track_c: w.track_temperature,
                    humidity: w.humidity,
                    wind_ms: w.wind_speed,
                }),
            cars,
        }
    }

    /// The car of that number.
    pub fn car(&self, number: u8) -> Option<&CarView> {
        let at = self.cars.binary_search_by_key(&number, |c| c.number).ok()?;
        self.cars.get(at)
    }

    /// Laps that the leader has completed.
    pub fn leader_laps(&self) -> u16 {
        self.cars
            .iter()
            .map(CarView::laps_completed)
            .max()
            .unwrap_or(0)
    }

    /// Whether it is a race or a sprint.
    pub const fn is_race(&self) -> bool {
        matches!(self.session_type, SessionType::Race | SessionType::Sprint)
    }
}

fn car_view(car: &Car) -> CarView {
    let mut laps: Vec<LapView> = Vec::with_capacity(car.laps.len());
    let (mut stint, mut age) = (0u8, None);
    for lap in &car.laps {
        let held = car
            .stints
            .iter()
            .rfind(|s| s.lap_start <= lap.number)
            .map_or(Compound::Unknown, |s| s.compound);
        if lap.is_out_lap || matches!((age, lap.tyre_age), (Some(a), Some(b)) if b <= a) {
            stint = stint.saturating_add(1);
        }
        age = lap.tyre_age.or(age);
        if let (Some(before), Some(start)) = (laps.last_mut(), lap.started) {
            before.ended = before.ended.or(Some(start));
        }
        laps.push(LapView {
            number: lap.number,
            started: lap.started,
            ended: lap
                .started
                .zip(lap.duration)
                .map(|(t, d)| t.plus_seconds(d)),
            time_s: lap.duration,
            sectors: lap.sectors,
            is_in: lap.is_in_lap,
            is_out: lap.is_out_lap,
            statuses: lap.statuses,
            compound: if lap.compound == Compound::Unknown {
                held
            } else {
                lap.compound
            },
            age: lap.tyre_age,
            stint,
        });
    }
    let done = laps.partition_point(|l| l.number <= car.laps_completed);
    let current = laps.get(done).copied();
    laps.truncate(done);
    CarView {
        number: car.driver_number,
        driver: car.acronym.clone(),
        team: car.team.clone(),
        grid: car.grid,
        qualifying_s: car.qualifying_s,
        position: car.position,
        status: car.status,
        gap_s: car.gap_to_leader.and_then(Gap::seconds),
        laps,
        current,
        official: car.official.as_ref().and_then(|o| o.position),
    }
}
