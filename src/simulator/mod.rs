//! The simulator: a synthetic race weekend that looks like the real feed, message by message.
//!
//! Underneath is a race, not a script. A point mass goes around an invented [`circuit`] ([`physics`]);
//! drivers, fuel, [`tyre`]s and [`weather`] stretch its time; cars follow, attack and yield; walls call
//! them in; race control answers what happens. Telemetry, location, laps and gaps are all read off
//! the same motion, so that they agree with each other: speed integrates to the lap, sectors sum to
//! it, and gaps are measured where cars pass.
//!
//! ```
//! use trackside::simulator::{Options, Simulator, circuit::Circuit};
//! let options = Options { laps: Some(5), seed: 7, ..Options::new(Circuit::named("monte-ferro").unwrap()) };
//! let mut simulator = Simulator::new(options).unwrap();
//! let first = simulator.next().unwrap();
//! assert_eq!(&*first.topic, "v1/meetings");
//! ```
//!
//! Cost: a step of a tenth of a second moves twenty cars past half a dozen comparisons each and sends
//! some fifteen messages of about a microsecond; memory is the messages of the last few seconds.
//!
//! **Invariant:** no clock, no file, no socket: the same [`Options`] give the same bytes. Faults on
//! the line ([`Options::dirt`]) draw from a stream of their own, so that a clean race is the same
//! race.

mod calls;
mod car;
pub mod circuit;
mod control;
mod dirt;
pub mod entrants;
mod feed;
mod pace;
pub mod physics;
mod report;
mod runs;
mod session;
mod telemetry;
#[cfg(test)]
mod tests;
mod track;
pub mod truth;
pub mod tyre;
pub mod weather;

use std::collections::VecDeque;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::record::Time;
use circuit::Circuit;
use session::{Occasion, Session};
pub use telemetry::CHANNELS;
pub use truth::Truth;
pub use weather::Rain;

/// Fewest and most cars.
pub const CARS: std::ops::RangeInclusive<u8> = 2..=20;
/// Shortest and longest race (laps).
pub const LAPS: std::ops::RangeInclusive<u16> = 1..=100;
/// Slowest and fastest frames (Hz).
pub const RATES_HZ: std::ops::RangeInclusive<u32> = 50..=1000;
/// Most samples in one of our frames.
pub const MAX_SAMPLES_PER_FRAME: u32 = 4096;
/// First session's start where none is given: 2030-06-16T12:59:00Z; each seed has a week of its own.
const EPOCH_S: i64 = 1_907_845_140;
const WEEK_S: i64 = 7 * 86_400;
/// Weeks after which seeds share one.
const WEEKS: u64 = 2000;

/// What kind of session, or all of a weekend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    Practice,
    Qualifying,
    Sprint,
    Race,
}

impl SessionKind {
    pub const fn is_race(self) -> bool {
        matches!(self, SessionKind::Race | SessionKind::Sprint)
    }

    /// `session_type`, as OpenF1 writes it: a sprint's is `Race`.
    pub const fn session_type(self) -> &'static str {
        match self {
            SessionKind::Practice => "Practice",
            SessionKind::Qualifying => "Qualifying",
            SessionKind::Sprint | SessionKind::Race => "Race",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            SessionKind::Practice => "Practice 1",
            SessionKind::Qualifying => "Qualifying",
            SessionKind::Sprint => "Sprint",
            SessionKind::Race => "Race",
        }
    }
}

/// One session or a weekend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programme {
    Only(SessionKind),
    /// Practice, qualifying, race: the grid is what qualifying made it.
    Weekend,
}

/// Something that is to happen in a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    Yellow,
    SafetyCar,
    VirtualSafetyCar,
    Red,
    /// The car of that number stops on the lap after.
    Breakdown(u8),
    /// That car gets a time penalty (s).
    Penalty(u8, u16),
}

/// An incident and the leader's lap on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scripted {
    pub lap: u16,
    pub what: Incident,
}

/// Where incidents come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Incidents {
    /// None happen.
    None,
    /// By chance, as often as in real races.
    #[default]
    Drawn,
    /// These and no others, in order; one at a time.
    Script(Vec<Scripted>),
}

/// High-rate frames beside the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameOptions {
    /// Samples a second, within [`RATES_HZ`]; the period is a whole number of µs.
    pub rate_hz: u32,
    /// Within 1 and [`MAX_SAMPLES_PER_FRAME`].
    pub samples_per_frame: u32,
    /// How many of [`CHANNELS`], the first ones.
    pub channels: usize,
}

impl FrameOptions {
    /// Eight channels, ten frames a second for each car.
    pub const fn at(rate_hz: u32) -> FrameOptions {
        let samples = rate_hz / 10;
        FrameOptions {
            rate_hz,
            samples_per_frame: if samples == 0 { 1 } else { samples },
            channels: 8,
        }
    }

    /// Time between samples (µs).
    pub const fn period_us(&self) -> u32 {
        1_000_000 / self.rate_hz
    }
}

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    pub circuit: &'static Circuit,
    pub programme: Programme,
    /// Laps of the race; the circuit's own where not given (a third of it for a sprint).
    pub laps: Option<u16>,
    /// Length of practice, or of all parts of qualifying together (minutes).
    pub minutes: Option<u16>,
    pub seed: u64,
    /// Within [`CARS`].
    pub cars: u8,
    /// Faults on the line: 0 none, 1 as often as on the real feed.
    pub dirt: f64,
    pub rain: Rain,
    pub incidents: Incidents,
    /// Zero of the first session's clock, a minute before its start; by the seed where not given.
    pub start: Option<Time>,
    pub frames: Option<FrameOptions>,
}

impl Options {
    /// A race of full length, twenty cars, real dirt, by chance rain and incidents.
    pub const fn new(circuit: &'static Circuit) -> Options {
        Options {
            circuit,
            programme: Programme::Only(SessionKind::Race),
            laps: None,
            minutes: None,
            seed: 1,
            cars: 20,
            dirt: 1.0,
            rain: Rain::Chance,
            incidents: Incidents::Drawn,
            start: None,
            frames: None,
        }
    }
}

/// An option is out of its bounds.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Impossible {
    #[error("{what} is {value}; it must be within {least} and {most}")]
    Outside {
        what: &'static str,
        value: f64,
        least: f64,
        most: f64,
    },
}

/// A message as a subscriber of the feed gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Receive time; never decreases.
    pub t: Time,
    pub topic: Box<str>,
    pub payload: Bytes,
}

/// Emits a session, or a weekend, message by message.
pub struct Simulator {
    options: Options,
    start: Time,
    to_come: VecDeque<SessionKind>,
    session: Option<Box<Session>>,
    /// Zero of the next session's clock.
    next_start: Time,
    grid: Option<Vec<(usize, Option<f64>)>>,
    truths: Vec<Truth>,
}

impl Simulator {
    /// Checks the options; nothing is simulated before the first message is asked for.
    ///
    /// # Errors
    /// [`Impossible`], with the option and its bounds.
    pub fn new(options: Options) -> Result<Simulator, Impossible> {
        let mut bounds = vec![
            (
                "cars",
                f64::from(options.cars),
                f64::from(*CARS.start()),
                f64::from(*CARS.end()),
            ),
            ("dirt", options.dirt, 0.0, 100.0),
        ];
        if let Some(laps) = options.laps {
            bounds.push((
                "laps",
                f64::from(laps),
                f64::from(*LAPS.start()),
                f64::from(*LAPS.end()),
            ));
        }
        if let Some(minutes) = options.minutes {
            bounds.push(("minutes", f64::from(minutes), 1.0, 180.0));
        }
        if let Some(f) = &options.frames {
            let (least, most) = (f64::from(*RATES_HZ.start()), f64::from(*RATES_HZ.end()));
            bounds.push(("rate", f64::from(f.rate_hz), least, most));
            let most = f64::from(MAX_SAMPLES_PER_FRAME);
            bounds.push((
                "samples per frame",
                f64::from(f.samples_per_frame),
                1.0,
                most,
            ));
            bounds.push(("channels", f.channels as f64, 1.0, CHANNELS.len() as f64));
        }
        for (what, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(Impossible::Outside {
                    what,
                    value,
                    least,
                    most,
                });
            }
        }
        let week = (options.seed % WEEKS) as i64;
        let start = options
            .start
            .unwrap_or(Time::from_millis((EPOCH_S + week * WEEK_S) * 1000));
        let to_come = match options.programme {
            Programme::Only(kind) => VecDeque::from([kind]),
            Programme::Weekend => VecDeque::from([
                SessionKind::Practice,
                SessionKind::Qualifying,
                SessionKind::Race,
            ]),
        };
        Ok(Simulator {
            options,
            start,
            to_come,
            session: None,
            next_start: start,
            grid: None,
            truths: Vec::new(),
        })
    }

    /// What really happened in each session that is over.
    pub fn truths(&self) -> &[Truth] {
        &self.truths
    }

    /// What really happened in the last session that is over.
    pub fn truth(&self) -> Option<&Truth> {
        self.truths.last()
    }

    fn occasion(&self, kind: SessionKind) -> Occasion {
        let start = self.next_start;
        // Minutes since 1970: unique for sessions that do not begin together.
        let minutes = |t: Time| (t.millis() / 60_000) as i32;
        let before = self.truths.last().map(|t| t.session_key);
        let seed = self.options.seed ^ (kind as u64 + 1) << 56;
        Occasion {
            meeting_key: (self.start.millis() / 1000 / WEEK_S) as i32,
            session_key: minutes(start),
            qualifying_key: before.unwrap_or(minutes(start) - 24 * 60),
            kind,
            name: kind.name(),
            start,
            seed,
            grid: match &self.grid {
                Some(grid) if kind.is_race() => grid.clone(),
                _ => draw_grid(&self.options, seed),
            },
        }
    }

    /// Closes a session that is over and keeps what the next one needs.
    fn close(&mut self, session: Session) {
        if session.occasion.kind == SessionKind::Qualifying {
            let lap = |i: usize| {
                let best = session.cars[i].phase_best;
                best[2].or(best[1]).or(best[0])
            };
            self.grid = Some(session.order.iter().map(|i| (*i, lap(*i))).collect());
        }
        let ended = session.instant(session.now());
        // The next session is on the next day.
        self.next_start = Time::from_millis((ended.millis() / 60_000 + 22 * 60) * 60_000);
        self.truths.push(session.truth);
    }
}

impl Iterator for Simulator {
    type Item = Emitted;

    fn next(&mut self) -> Option<Emitted> {
        loop {
            if self.session.is_none() {
                let kind = self.to_come.pop_front()?;
                let occasion = self.occasion(kind);
                self.session = Some(Box::new(Session::new(&self.options, occasion)));
            }
            let session = self.session.as_mut()?;
            // Whatever happens from now on arrives later than now.
            let until = if session.done {
                Time::LATEST
            } else {
                session.instant(session.now())
            };
            if let Some(message) = session.feed.take(until) {
                return Some(message);
            }
            if !session.done {
                session.advance();
            } else if let Some(session) = self.session.take() {
                self.close(*session);
            }
        }
    }
}

/// A grid where no qualifying was simulated: pace and luck.
fn draw_grid(options: &Options, seed: u64) -> Vec<(usize, Option<f64>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(3);
    let line = circuit::Line::of(options.circuit);
    let flying = physics::Profile::solve(options.circuit, &line, physics::Manner::Flying);
    let luck = Normal::new(0.0, 0.18);
    let mut grid: Vec<(usize, Option<f64>)> = entrants::ENTRANTS
        .iter()
        .take(usize::from(options.cars))
        .enumerate()
        .map(|(i, e)| {
            let drawn: f64 = luck.as_ref().map_or(0.0, |n| n.sample(&mut rng));
            let lap = flying.duration() + e.pace_s() + drawn.abs();
            (i, Some((lap * 1000.0).round() / 1000.0))
        })
        .collect();
    grid.sort_by(|a, b| a.1.unwrap_or(f64::MAX).total_cmp(&b.1.unwrap_or(f64::MAX)));
    // Now and then a car has no time and starts last.
    if rng.random_bool(0.15) {
        let unlucky = rng.random_range(0..grid.len());
        let (i, _) = grid.remove(unlucky);
        grid.push((i, None));
    }
    grid
}
