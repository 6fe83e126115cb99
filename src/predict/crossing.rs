//! A car crosses the line: its next lap, its next stop and, where it leads, the order are due at once, and three models
//! are to be asked. Where a GPU computes them together, one call asks them all.
//!
//! **Invariant:** it asks nothing that would not be asked anyway, and what it is told is what each model would say by
//! itself. Without an answer each is asked on its own, as ever.

use super::distance::Distance;
use super::features::pit::row;
use super::order::Finish;
use super::stops::Forecast;
use super::view::View;
use super::{Due, Predictor, Published, outcome, stops};
use crate::inference::tensorrt::BACKEND;

/// The models by their numbers in [`super::Models::together`], and the choices of them that it must know.
pub const LAPTIME: usize = 0;
pub const STOP: usize = 1;
pub const OUTCOME: usize = 2;
/// Any car, and one that leads.
pub const CHOICES: [&[usize]; 2] = [&[LAPTIME, STOP], &[LAPTIME, STOP, OUTCOME]];

/// What the models said of a crossing beforehand; the lap time model's answer lies where it is looked for.
#[derive(Default)]
pub(super) struct Crossing {
    stop: Option<(u8, Forecast)>,
    pub order: Option<Finish>,
}

impl Crossing {
    /// Of that car.
    pub fn stop_of(&mut self, car: u8) -> Option<Forecast> {
        let (_, forecast) = self.stop.take_if(|(of, _)| *of == car)?;
        Some(forecast)
    }
}

impl Predictor {
    /// Asks the models together, where one car has crossed the line and they can be.
    pub(super) fn cross(
        &mut self,
        view: &View,
        due: &Due,
        distance: &Distance,
        published: Published<'_>,
    ) -> Crossing {
        let ([ended], [stop]) = (due.ended.as_slice(), due.stops.as_slice()) else {
            return Crossing::default();
        };
        let asked_before = !published.0.is_empty();
        if ended != stop || asked_before || !due.laps.contains(&(*ended, 0)) {
            return Crossing::default();
        }
        self.ask_together(view, *ended, due.order, distance)
            .unwrap_or_default()
    }

    fn ask_together(
        &mut self,
        view: &View,
        car: u8,
        order: bool,
        distance: &Distance,
    ) -> Option<Crossing> {
        let models = self.laptimes.models().clone();
        let together = models.together.as_ref().filter(|t| t.works())?;
        // One that is with the CPU by itself says so of its answers.
        let on_gpu = models.engines().all(|e| e.backend() == BACKEND);
        if !on_gpu || self.model_failure().is_some() {
            return None;
        }
        let (stop, outcome) = (models.stop.as_ref()?, models.outcome.as_ref()?);
        let stop_fed = [stops::fed(&[row(view, view.car(car)?, distance)?], 1)];
        let frame = order.then(|| outcome.frame(view, distance)).flatten();
        let order_fed = frame.as_ref().map(outcome::fed);
        let mut asked = vec![(LAPTIME, self.laptimes.next(car)?), (STOP, &stop_fed[..])];
        asked.extend(order_fed.iter().map(|fed| (OUTCOME, &fed[..])));
        let mut answers = together.run(&asked).ok()?.into_iter();
        self.laptimes.told(car, answers.next()?);
        // Whatever is no answer is asked again, and found out then.
        let forecast = stop.forecast_of(&answers.next()?, 0, 1).ok();
        let chances = (frame.zip(answers.next()))
            .and_then(|(frame, answer)| outcome.chances(&frame, &answer).ok());
        Some(Crossing {
            stop: forecast.map(|forecast| (car, forecast)),
            order: chances.map(|chances| outcome::finish(view, &chances)),
        })
    }
}
