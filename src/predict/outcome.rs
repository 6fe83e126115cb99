//! The trained model of the finishing order, above the floor's.
//!
//! A [`Frame`] of features goes in; for each car the probability of every place among the cars that still race
//! comes out, and of not seeing the flag. Cars that are out follow behind them, as in the floor. Where the model's
//! manifest says so (`calibration.mix`), the places are a mixture of the network's and of [`Usual`]'s.
//!
//! **Invariant:** what comes out is checked: probabilities that are none, or rows and columns that do not sum
//! to 1, are an error, and then the floor's order stands.

use std::sync::Arc;

use super::distance::Distance;
use super::features::outcome::{COLUMNS, FEATURES, Frame, MOST_CARS, VERSION, frame};
use super::form::Form;
use super::order::{self, Finish};
use super::usual::Usual;
use super::view::View;
use crate::inference::{Engine, EngineError, Tensor};
use crate::race::CarStatus;

/// Name of the model in the manifest.
pub const OUTCOME: &str = "outcome";
/// The calibration that says how much of the answer is [`Usual`]'s: a weight for each of its knots.
const MIX: &str = "mix";
/// The column that holds the place on track, over [`PLACES`].
const PLACE: &str = "place";
const PLACES: f32 = 10.0;
/// How far a row's or a column's sum may be off 1: Sinkhorn's scaling in the graph ends after a fixed number
/// of rounds, with rows.
const ROW_SLACK: f64 = 1e-3;
const COLUMN_SLACK: f64 = 0.2;

/// Probabilities at one moment, by row of the frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Chances {
    /// Of each place among the cars of the frame, n × n; rows sum to 1, columns nearly.
    pub places: Vec<Vec<f64>>,
    /// Of not seeing the flag.
    pub retires: Vec<f64>,
}

impl Chances {
    /// Probability of finishing among the first `n`, by row.
    pub fn within(&self, n: usize) -> Vec<f64> {
        let sum = |row: &Vec<f64>| row.iter().take(n).sum::<f64>().min(1.0);
        self.places.iter().map(sum).collect()
    }
}

/// The network, everybody's form, and what it is mixed with.
pub struct OutcomeModel {
    engine: Arc<dyn Engine>,
    form: Form,
    usual: Usual,
    /// A weight for each knot; none where the network stands alone.
    mix: Vec<f64>,
    /// Index of [`PLACE`].
    place: usize,
}

impl OutcomeModel {
    /// Takes an engine that has the right tensors, and the form that is shipped.
    ///
    /// # Errors
    /// [`EngineError::Shape`] if it was made for other features or has other tensors.
    pub fn new(engine: Arc<dyn Engine>) -> Result<OutcomeModel, EngineError> {
        let model = engine.model();
        model.made_for(VERSION)?;
        model.has(
            &[
                ("cars", &[1, MOST_CARS, FEATURES]),
                ("mask", &[1, MOST_CARS]),
            ],
            &[
                ("positions", &[1, MOST_CARS, MOST_CARS]),
                ("retirement", &[1, MOST_CARS]),
            ],
        )?;
        let usual = Usual::shipped();
        let mix = model.calibration(MIX).unwrap_or_default().to_vec();
        let sound = mix.iter().all(|w| (0.0..=1.0).contains(w));
        if !(mix.is_empty() || mix.len() == usual.knots()) || !sound {
            let why = format!("calibration.mix must be {} shares", usual.knots());
            return Err(model.misfit("positions", why));
        }
        let Some(place) = COLUMNS.iter().position(|c| *c == PLACE) else {
            return Err(model.misfit("cars", format!("no column is called {PLACE:?}")));
        };
        Ok(OutcomeModel {
            engine,
            form: Form::shipped(),
            usual,
            mix,
            place,
        })
    }

    /// The engine below.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// The same, to be shared.
    pub fn shared(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Asks the network.
    ///
    /// # Errors
    /// [`EngineError`] if it fails or its answer is no distribution.
    pub fn ask(&self, frame: &Frame) -> Result<Chances, EngineError> {
        let outputs = self.engine.run(&fed(frame))?;
        self.chances(frame, &outputs)
    }

    /// What the network's answer to that frame says.
    ///
    /// # Errors
    /// [`EngineError`] if it is no distribution.
    pub fn chances(&self, frame: &Frame, outputs: &[Tensor]) -> Result<Chances, EngineError> {
        let n = frame.cars.len();
        let [positions, retirement] = outputs else {
            return Err(self.refuse(format!("{} outputs, 2 are wanted", outputs.len())));
        };
        let rows = positions.values.chunks_exact(MOST_CARS).take(n);
        let mut places: Vec<Vec<f64>> = rows
            .map(|row| row.iter().take(n).map(|p| f64::from(*p)).collect())
            .collect();
        let retires: Vec<f64> = retirement
            .values
            .iter()
            .take(n)
            .map(|p| f64::from(*p))
            .collect();
        let sound = |p: &f64| (-1e-6..=1.0 + 1e-3).contains(p);
        if places.len() != n || !places.iter().flatten().chain(&retires).all(sound) {
            return Err(self.refuse("an answer that is no probability".to_owned()));
        }
        for (at, row) in places.iter().enumerate() {
            let across: f64 = row.iter().sum();
            let down: f64 = places.iter().map(|r| r[at]).sum();
            if (across - 1.0).abs() > ROW_SLACK || (down - 1.0).abs() > COLUMN_SLACK {
                return Err(self.refuse(format!(
                    "row {at} sums to {across}, column {at} to {down}; both must be 1"
                )));
            }
        }
        let cars = frame.values.chunks_exact(FEATURES).take(n);
        let on_track: Vec<usize> = cars
            .map(|car| (car[self.place] * PLACES).round() as usize)
            .collect();
        let share = frame.share;
        self.usual.mix(&mut places, &self.mix, &on_track, share);
        Ok(Chances { places, retires })
    }

    fn refuse(&self, why: String) -> EngineError {
        EngineError::Run {
            model: self.engine.model().id(),
            backend: self.engine.backend(),
            why,
        }
    }

    /// The order as it is published; `None` where the floor has none either, or more cars race than the
    /// network has rows.
    ///
    /// # Errors
    /// As [`OutcomeModel::ask`].
    pub fn predict(&self, view: &View, distance: &Distance) -> Result<Option<Finish>, EngineError> {
        let Some(frame) = self.frame(view, distance) else {
            return Ok(None);
        };
        let chances = self.ask(&frame)?;
        Ok(Some(finish(view, &chances)))
    }

    /// What the network is to be asked about; `None` as in [`OutcomeModel::predict`].
    pub fn frame(&self, view: &View, distance: &Distance) -> Option<Frame> {
        let running = order::running_order(view).len();
        if !view.is_race() || view.finished || distance.remaining(view) == 0 || running > MOST_CARS
        {
            return None;
        }
        frame(view, distance, &self.form)
    }
}

/// What the network is fed.
pub fn fed(frame: &Frame) -> [Tensor; 2] {
    let mut mask = vec![1.0; frame.cars.len()];
    mask.resize(MOST_CARS, 0.0);
    [
        Tensor::new("cars", &[1, MOST_CARS, FEATURES], frame.values.clone()),
        Tensor::new("mask", &[1, MOST_CARS], mask),
    ]
}

/// The order as it is published.
pub fn finish(view: &View, chances: &Chances) -> Finish {
    let running = order::running_order(view);
    let retires = running.iter().zip(&chances.retires).map(|(car, p)| {
        if car.status == CarStatus::Finished {
            0.0
        } else {
            *p
        }
    });
    let retires: Vec<f64> = retires.collect();
    order::finish_of(view, &running, &chances.places, &retires)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The shipped model; loading it compares it with its recorded answers.
    fn shipped() -> OutcomeModel {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let engine = crate::inference::load(&folder, OUTCOME).unwrap();
        OutcomeModel::new(engine.into()).unwrap()
    }

    /// A frame of `n` cars that no race has had.
    fn invented(n: usize) -> Frame {
        let mut values = vec![0.0f32; MOST_CARS * FEATURES];
        for (at, row) in values.chunks_exact_mut(FEATURES).take(n).enumerate() {
            let place = at as f32 + 1.0;
            for (column, name) in super::super::features::outcome::COLUMNS.iter().enumerate() {
                row[column] = match *name {
                    "place" | "grid" => place / 10.0,
                    "ln_place" | "ln_grid" | "ln_served_place" => place.ln(),
                    "gap_root" | "served_gap_root" => place / 3.0,
                    "share" => 0.5,
                    "left" => 0.4,
                    "hard" | "pace_known" | "long_pace_known" | "qualifying_known" => 1.0,
                    "qualifying" | "team_qualifying" => place / 10.0,
                    "form_race" => 1.0 - place / 10.0,
                    "difficulty" => 0.6,
                    _ => 0.0,
                };
            }
        }
        Frame {
            cars: (1..=n as u8).collect(),
            values,
            share: 0.5,
        }
    }

    #[test]
    fn the_shipped_model_gives_distributions_whatever_the_order_of_the_rows() {
        let model = shipped();
        for n in [1, 2, 17, 20, 22, 24] {
            let frame = invented(n);
            // Sums are checked within.
            let chances = model.ask(&frame).unwrap();
            assert_eq!((chances.places.len(), chances.retires.len()), (n, n));
            assert!(n < 3 || chances.within(1)[0] > chances.within(1)[n - 1]);
            let mut turned = frame.clone();
            let rows: Vec<&[f32]> = frame.values.chunks_exact(FEATURES).take(n).collect();
            let backwards: Vec<f32> = rows.iter().rev().flat_map(|r| r.iter().copied()).collect();
            turned.values[..backwards.len()].copy_from_slice(&backwards);
            let other = model.ask(&turned).unwrap();
            for (a, b) in chances.places.iter().zip(other.places.iter().rev()) {
                assert!(
                    a.iter().zip(b).all(|(p, q)| (p - q).abs() < 1e-3),
                    "{n}: {a:?} {b:?}"
                );
            }
        }
    }
}
