//! Predictions of the three questions: trained models where there are any, above an honest statistical floor;
//! and their live grading.
//!
//! | question | when | file |
//! |---|---|---|
//! | next lap: P10, P50, P90 | a car completes a lap; sectors 1 and 2 of the lap in progress; lights out; pit exit | [`laptime`] |
//! | finishing order | lights out; the leader completes a lap; the track status changes; a car retires | [`order`], [`strength`] |
//! | next stop | a car completes a lap | [`pit`] |
//!
//! [`distance`] knows how long the race is, [`grading`] scores every prediction when the truth
//! arrives ([`scores`], [`drift`]), [`floor`] holds the fitted parameters, [`view`] is what is read of the race.
//! Parameters come from races up to 2023 (`engines/training/floor/`), which is also where the figures
//! on 2024 stand. Races and sprints only: in practice and qualifying nothing is predicted, because
//! the run plan decides the next lap and the feed does not tell it.
//!
//! Trained models ([`models`], [`outcome`], [`stops`]) stand in for the floor's numbers wherever they have an
//! answer, all three at once where a car crosses the line and a GPU takes them so (`crossing`); [`features`] is what they see, [`memory`] what is remembered of a car's laps, [`shift`] where the whole
//! field was off, [`form`] what is known of drivers and teams beforehand, [`usual`] what the model of the order is
//! mixed with.
//!
//! **Invariant:** pure, apart from calling engines. No clock, no file, no randomness, no hash order; the floor's
//! arithmetic is + − × ÷ and square root, which IEEE 754 rounds alike everywhere, with no exp, ln or fused
//! multiply-add. So the same records give the same predictions of the floor, byte for byte, on x86-64 and aarch64;
//! a model's are the same on one machine, and between machines as near as their sums are. (Published figures
//! are rounded to a millisecond and to 1e-4 besides, for the reader's sake: rounding alone would not
//! do, since a last-bit difference can straddle a rounding edge.)

#![forbid(unsafe_code)]

pub mod crossing;
pub mod distance;
pub mod drift;
pub mod features;
pub mod floor;
pub mod form;
pub mod grading;
pub mod laptime;
pub mod memory;
pub mod models;
pub mod order;
pub mod outcome;
pub mod pit;
pub mod scores;
pub mod shift;
pub mod stops;
pub mod strength;
pub mod usual;
pub mod view;

#[cfg(test)]
pub(crate) mod backtest;
#[cfg(test)]
mod tests;

pub use floor::{Floor, FloorError};
pub use models::Models;
pub use scores::Scores;
pub use view::View;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::race::{Event, Events, Race, TrackStatus};
use crate::record::Time;
use crate::record::prediction::{
    LapTimePrediction, OrderPrediction, PitPrediction, Prediction, Provenance, Quantiles,
};
use crate::strategy::model::LapsFrom;

use crossing::Crossing;
use distance::{Distance, LapKm, Odometer};
use grading::Grader;
use models::LapTimes;

/// Name and version of this model.
pub const MODEL: &str = "floor-1";
/// What computes it.
pub const BACKEND: &str = "cpu";

/// Most cars with something due at one record.
const MOST_DUE: usize = crate::race::MAX_EVENTS;

/// Predicts and grades, one session at a time.
#[derive(Clone, Debug)]
pub struct Predictor {
    floor: Arc<Floor>,
    session_key: Option<i32>,
    /// Newest (lap, sectors known) predicted of each car; 1 more than sectors after a pit exit, when
    /// the same lap is predicted again as an out-lap.
    laptime_made: BTreeMap<u8, (u16, u8)>,
    /// Newest lap after which a stop was predicted of each car.
    pit_made: BTreeMap<u8, u16>,
    /// Newest leader lap after which the order was predicted.
    order_made: Option<u16>,
    /// Since when the race stands under red, and for how long it stood before (s).
    red_since: Option<Time>,
    suspended_s: f64,
    /// Whether this is a race, whose lap is to be measured.
    measures: bool,
    /// What the calendar says of a lap, where there is one.
    calendar: LapKm,
    /// Laps of this race, as of the newest prediction, and how they are known.
    laps: Option<(u16, LapsFrom)>,
    odometer: Odometer,
    grader: Grader,
    /// The trained model of lap times, where there is one.
    laptimes: LapTimes,
    /// What the model of the order said when it failed in this session: from then on the floor speaks.
    order_failure: Option<String>,
    /// What the model of the next stop said when it failed in this session: likewise.
    stop_failure: Option<String>,
    finished: bool,
}

/// What one record's events ask to be predicted.
#[derive(Default)]
struct Due {
    /// (car, sectors known).
    laps: heapless::Vec<(u8, u8), MOST_DUE>,
    stops: heapless::Vec<u8, MOST_DUE>,
    /// Cars that completed a lap.
    ended: heapless::Vec<u8, MOST_DUE>,
    order: bool,
}

impl Predictor {
    /// A predictor with those parameters; [`Floor::shipped`] are ours.
    pub fn new(floor: Floor) -> Predictor {
        Predictor::with(Arc::new(floor), Models::none())
    }

    /// With trained models above the floor.
    #[must_use]
    pub fn with_models(self, models: Models) -> Predictor {
        Predictor::with(self.floor, models)
    }

    /// With the length of a lap from the calendar (km), where it is in there.
    #[must_use]
    pub fn with_calendar(mut self, lap_km: Option<f64>) -> Predictor {
        self.calendar = LapKm::of_calendar(lap_km);
        self
    }

    /// Takes other models from the next record on, in the middle of a session, too.
    pub fn swap_models(&mut self, models: Models) {
        self.laptimes.swap(models);
        self.grader.other_models();
        self.order_failure = None;
        self.stop_failure = None;
    }

    /// Name, version and backend of what predicts lap times: the model's where one works, else the floor's.
    pub fn who(&self) -> (String, &'static str) {
        let floor = || (MODEL.to_owned(), BACKEND);
        self.laptimes.provenance().unwrap_or_else(floor)
    }

    /// Laps of this race as they are known now, and how; none before it is about to start.
    pub fn laps(&self) -> Option<(u16, LapsFrom)> {
        self.laps
    }

    /// The models in use.
    pub fn models(&self) -> &Models {
        self.laptimes.models()
    }

    /// What a model said when it failed in this session.
    pub fn model_failure(&self) -> Option<&str> {
        self.laptimes
            .failure
            .as_deref()
            .or(self.order_failure.as_deref())
            .or(self.stop_failure.as_deref())
    }

    fn with(floor: Arc<Floor>, models: Models) -> Predictor {
        Predictor {
            floor,
            session_key: None,
            laptime_made: BTreeMap::new(),
            pit_made: BTreeMap::new(),
            order_made: None,
            red_since: None,
            suspended_s: 0.0,
            measures: false,
            calendar: LapKm::Unknown,
            laps: None,
            odometer: Odometer::default(),
            grader: Grader::default(),
            laptimes: LapTimes::new(models),
            order_failure: None,
            stop_failure: None,
            finished: false,
        }
    }

    /// Running grades of this session.
    pub fn scores(&self) -> &Scores {
        self.grader.scores()
    }

    /// What the record with that sequence makes worth predicting, given the state after it and the
    /// events that it brought about: to be called for every record. At most one prediction for each
    /// car, lap and number of sectors known.
    pub fn observe(&mut self, race: &Race, seq: u64, events: &Events) -> Vec<Prediction> {
        self.observe_again(race, seq, events, &[])
    }

    /// As [`Predictor::observe`], of a record whose predictions were published before: what models said is taken
    /// from there, and no model is asked again. What was not published is made as ever.
    pub fn observe_again(
        &mut self,
        race: &Race,
        seq: u64,
        events: &Events,
        published: &[Prediction],
    ) -> Vec<Prediction> {
        if self.measures {
            self.measure(race);
        }
        if !events.iter().any(is_of_interest) {
            return Vec::new();
        }
        self.observe_with(&View::of(race), seq, events, Published(published))
    }

    /// As [`Predictor::observe`], from a view; telemetry is not in it.
    pub fn observe_view(&mut self, view: &View, seq: u64, events: &Events) -> Vec<Prediction> {
        self.observe_with(view, seq, events, Published(&[]))
    }

    fn observe_with(
        &mut self,
        view: &View,
        seq: u64,
        events: &Events,
        published: Published<'_>,
    ) -> Vec<Prediction> {
        if self.session_key != Some(view.session_key) {
            let calendar = self.calendar;
            *self = Predictor::with(Arc::clone(&self.floor), self.laptimes.models().clone());
            self.calendar = calendar;
            self.session_key = Some(view.session_key);
        }
        if !view.is_race() || self.finished {
            return Vec::new();
        }
        self.measures = !self.odometer.is_done();
        let due = self.digest(view, events);
        self.predict(view, seq, &due, published)
    }

    /// Follows one car's speed over its laps.
    fn measure(&mut self, race: &Race) {
        let followed = match self.odometer.car() {
            Some(number) => race.car(number).filter(|c| c.status.runs()),
            None => None,
        };
        let Some(car) = followed.or_else(|| race.cars().iter().find(|c| c.status.runs())) else {
            return;
        };
        if let (Some(speed), Some(at)) = (car.speed_kmh, car.last_seen) {
            self.odometer.sample(
                car.driver_number,
                car.laps_completed + 1,
                f64::from(speed),
                at,
            );
        }
    }

    /// Grades what the events settle and notes what they ask for.
    fn digest(&mut self, view: &View, events: &Events) -> Due {
        let mut due = Due::default();
        for event in events {
            match *event {
                Event::SessionStarted => {
                    due.order = true;
                    for car in &view.cars {
                        let _ = due.laps.push((car.number, 0));
                    }
                }
                Event::LapCompleted { driver_number, lap } => {
                    self.grader.lap_completed(view, driver_number, lap);
                    let _ = due.laps.push((driver_number, 0));
                    let _ = due.ended.push(driver_number);
                    let _ = due.stops.push(driver_number);
                    due.order |=
                        Some(view.leader_laps()) != self.order_made && view.leader_laps() == lap;
                }
                Event::SectorCompleted {
                    driver_number,
                    sector: sector @ 1..=2,
                    ..
                } => {
                    let _ = due.laps.push((driver_number, sector));
                }
                Event::PitExit { driver_number, .. } => {
                    let _ = due.laps.push((driver_number, 0));
                }
                Event::TrackStatusChanged { status } => {
                    self.suspend(view, status);
                    due.order = true;
                }
                Event::Retired { .. } => due.order = true,
                Event::SessionFinished => {
                    self.grader.session_finished(view);
                    self.finished = true;
                }
                _ => {}
            }
        }
        due
    }

    /// Counts the time under red: it does not count against the time limit.
    fn suspend(&mut self, view: &View, status: TrackStatus) {
        match (status, self.red_since) {
            (TrackStatus::Red, None) => self.red_since = Some(view.clock),
            (TrackStatus::Red, Some(_)) | (_, None) => {}
            (_, Some(since)) => {
                self.suspended_s += view.clock.seconds_since(since).max(0.0);
                self.red_since = None;
            }
        }
    }

    fn predict(
        &mut self,
        view: &View,
        seq: u64,
        due: &Due,
        published: Published<'_>,
    ) -> Vec<Prediction> {
        if self.finished || (due.laps.is_empty() && due.stops.is_empty() && !due.order) {
            return Vec::new();
        }
        let standing = self
            .red_since
            .map_or(0.0, |t| view.clock.seconds_since(t).max(0.0));
        let suspended = self.suspended_s + standing;
        let distance = Distance::of(view, &self.floor, self.lap(view), suspended);
        self.laps = Some((distance.laps, distance.laps_from));
        for car in due.ended.iter().filter_map(|n| view.car(*n)) {
            self.laptimes.lap_completed(view, car, distance.laps);
        }
        let mut said = self.cross(view, due, &distance, published);
        let mut made = Vec::new();
        for (car, sectors) in &due.laps {
            let before = published.lap(*car, *sectors);
            made.extend(self.predict_lap(view, seq, &distance, (*car, *sectors), before));
        }
        for car in &due.stops {
            let about = (*car, published.stop(*car));
            made.extend(self.predict_stop(view, seq, &distance, about, &mut said));
        }
        if due.order {
            made.extend(self.predict_order(view, seq, &distance, published.order(), said));
        }
        made
    }

    /// What the calendar says of a lap, or else telemetry. Against a circuit's name that is heard when it is done: the
    /// first laps are a second long or short, as their ends come late.
    fn lap(&self, view: &View) -> LapKm {
        if self.calendar != LapKm::Unknown {
            self.calendar
        } else if self.odometer.is_done() || self.floor.circuit(&view.circuit).is_none() {
            self.odometer.lap()
        } else {
            LapKm::Unknown
        }
    }

    fn predict_lap(
        &mut self,
        view: &View,
        seq: u64,
        distance: &Distance,
        (number, sectors): (u8, u8),
        before: Option<&LapTimePrediction>,
    ) -> Option<Prediction> {
        let car = view.car(number)?;
        let forecast = laptime::predict(view, car, distance, &self.floor, sectors)?;
        // A pit exit tells that the lap is an out-lap: the same lap once more, before its sector 1.
        let out = car.current.is_some_and(|l| l.is_out) || car.last().is_some_and(|l| l.is_in);
        let made = (forecast.lap, 2 * sectors + u8::from(out && sectors == 0));
        if self
            .laptime_made
            .get(&number)
            .is_some_and(|before| *before >= made)
        {
            return None;
        }
        self.laptime_made.insert(number, made);
        let mut provenance = provenance(view, seq, forecast.rests_on);
        let modelled = match before.filter(|p| p.lap_number == forecast.lap) {
            Some(p) => {
                provenance.model.clone_from(&p.provenance.model);
                provenance.backend.clone_from(&p.provenance.backend);
                (p.provenance.model != MODEL).then_some(p.lap_time)
            }
            None => {
                let modelled = self.modelled(view, car, &forecast);
                if let (Some(_), Some((model, backend))) = (modelled, self.laptimes.provenance()) {
                    (provenance.model, provenance.backend) = (model, backend.to_owned());
                }
                modelled
            }
        };
        if let Some(answer) = modelled {
            let sectors = usize::from(forecast.sectors_known);
            self.laptimes.said(number, sectors, answer);
        }
        self.grader.expect_lap(number, forecast, modelled);
        Some(Prediction::LapTime(LapTimePrediction {
            provenance,
            driver_number: number,
            lap_number: forecast.lap,
            sectors_known: forecast.sectors_known,
            lap_time: modelled.unwrap_or(forecast.lap_time),
        }))
    }

    /// What the model says in the floor's place: of flying laps only.
    fn modelled(
        &mut self,
        view: &View,
        car: &view::CarView,
        forecast: &laptime::Forecast,
    ) -> Option<Quantiles> {
        if !forecast.flying {
            return None;
        }
        let sectors = usize::from(forecast.sectors_known);
        let quantiles = self.laptimes.predict(view, car, forecast.lap, sectors)?;
        let known = car.current.and_then(|l| l.first_sectors(sectors));
        laptime::published(quantiles, known.unwrap_or(0.0))
    }

    fn predict_stop(
        &mut self,
        view: &View,
        seq: u64,
        distance: &Distance,
        (number, before): (u8, Option<&PitPrediction>),
        said: &mut Crossing,
    ) -> Option<Prediction> {
        let stop = pit::predict(view, view.car(number)?, distance, &self.floor)?;
        if self
            .pit_made
            .get(&number)
            .is_some_and(|lap| *lap >= stop.lap)
        {
            return None;
        }
        self.pit_made.insert(number, stop.lap);
        let mut provenance = provenance(view, seq, stop.rests_on);
        let mut yes = self.floor.pit.yes;
        let floor = stop.within[1];
        let stop = match before.filter(|p| p.lap_number == stop.lap) {
            Some(p) => {
                provenance.model.clone_from(&p.provenance.model);
                provenance.backend.clone_from(&p.provenance.backend);
                let model = self.laptimes.models().stop.as_ref();
                if let Some(model) = model.filter(|_| p.provenance.model != MODEL) {
                    yes = model.yes;
                }
                pit::Stop {
                    within: [p.p_within_1, p.p_within_2, p.p_within_3, p.p_within_5],
                    p_stop: p.p_stop,
                    in_lap: p.in_lap,
                    compounds: p.compounds.clone(),
                    ..stop
                }
            }
            None => match self.modelled_stop(view, (number, said), distance, &stop) {
                Some((model, refined)) => {
                    provenance.model = model.engine().model().id();
                    model.engine().backend().clone_into(&mut provenance.backend);
                    yes = model.yes;
                    refined
                }
                None => stop,
            },
        };
        let floor = (provenance.model != MODEL).then_some(floor);
        self.grader.expect_stop(number, &stop, yes, floor);
        let [p_within_1, p_within_2, p_within_3, p_within_5] = stop.within;
        Some(Prediction::Pit(PitPrediction {
            provenance,
            driver_number: number,
            lap_number: stop.lap,
            p_within_1,
            p_within_2,
            p_within_3,
            p_within_5,
            p_stop: stop.p_stop,
            in_lap: stop.in_lap,
            compounds: stop.compounds,
            reason: stop.reason,
        }))
    }

    /// The model's numbers in the floor's stop; none where there is no model, or after it failed in this session.
    fn modelled_stop(
        &mut self,
        view: &View,
        (number, said): (u8, &mut Crossing),
        distance: &Distance,
        stop: &pit::Stop,
    ) -> Option<(Arc<stops::StopModel>, pit::Stop)> {
        let model = self.laptimes.models().stop.clone()?;
        if self.stop_failure.is_some() {
            return None;
        }
        if let Some(forecast) = said.stop_of(number) {
            let left = distance.laps.saturating_sub(stop.lap);
            return Some((model, forecast.refine(stop, left)));
        }
        match model.refine(view, view.car(number)?, distance, stop) {
            Ok(refined) => Some((model, refined?)),
            Err(e) => {
                self.stop_failure = Some(e.to_string());
                None
            }
        }
    }

    fn predict_order(
        &mut self,
        view: &View,
        seq: u64,
        distance: &Distance,
        before: Option<&OrderPrediction>,
        said: Crossing,
    ) -> Option<Prediction> {
        let prediction = match before.filter(|p| p.lap_number == view.leader_laps()) {
            Some(p) => p.clone(),
            None => self.make_order(view, seq, distance, said)?,
        };
        self.order_made = Some(view.leader_laps());
        let share = f64::from(view.leader_laps()) / f64::from(distance.laps.max(1));
        self.grader.expect_order(view, &prediction, share);
        Some(Prediction::Race(prediction))
    }

    fn make_order(
        &mut self,
        view: &View,
        seq: u64,
        distance: &Distance,
        said: Crossing,
    ) -> Option<OrderPrediction> {
        let modelled = said.order.or_else(|| self.modelled_order(view, distance));
        let by_model = modelled.is_some();
        let finish = modelled.or_else(|| order::predict(view, distance, &self.floor))?;
        let mut provenance = provenance(view, seq, finish.rests_on);
        if let (true, Some(model)) = (by_model, &self.laptimes.models().outcome) {
            provenance.model = model.engine().model().id();
            model.engine().backend().clone_into(&mut provenance.backend);
        }
        Some(OrderPrediction {
            provenance,
            lap_number: view.leader_laps(),
            cars: finish.cars,
        })
    }

    /// The order by the trained model, where there is one that has not failed in this session.
    fn modelled_order(&mut self, view: &View, distance: &Distance) -> Option<order::Finish> {
        if self.order_failure.is_some() {
            return None;
        }
        let model = self.laptimes.models().outcome.clone()?;
        match model.predict(view, distance) {
            Ok(finish) => finish,
            Err(e) => {
                self.order_failure = Some(e.to_string());
                None
            }
        }
    }
}

/// What was published of a record.
#[derive(Clone, Copy)]
struct Published<'a>(&'a [Prediction]);

impl<'a> Published<'a> {
    fn lap(self, car: u8, sectors: u8) -> Option<&'a LapTimePrediction> {
        self.0.iter().find_map(|p| match p {
            Prediction::LapTime(p) if (p.driver_number, p.sectors_known) == (car, sectors) => {
                Some(p)
            }
            _ => None,
        })
    }

    fn stop(self, car: u8) -> Option<&'a PitPrediction> {
        self.0.iter().find_map(|p| match p {
            Prediction::Pit(p) if p.driver_number == car => Some(p),
            _ => None,
        })
    }

    fn order(self) -> Option<&'a OrderPrediction> {
        self.0.iter().find_map(|p| match p {
            Prediction::Race(p) => Some(p),
            _ => None,
        })
    }
}

/// Whether an event may bring a prediction or a grade about.
fn is_of_interest(event: &Event) -> bool {
    matches!(
        event,
        Event::SessionChanged { .. }
            | Event::SessionStarted
            | Event::SessionFinished
            | Event::LapCompleted { .. }
            | Event::SectorCompleted { .. }
            | Event::PitExit { .. }
            | Event::TrackStatusChanged { .. }
            | Event::Retired { .. }
    )
}

/// Who made it, when, from what; an input from the future (a clock that was set right) is not stale.
fn provenance(view: &View, seq: u64, rests_on: Option<Time>) -> Provenance {
    let stale = rests_on.map_or(0.0, |t| view.clock.seconds_since(t).max(0.0));
    Provenance {
        session_key: view.session_key,
        made_at: view.clock,
        seq,
        model: MODEL.to_owned(),
        backend: BACKEND.to_owned(),
        stale_s: (stale * 1000.0).round() / 1000.0,
    }
}
