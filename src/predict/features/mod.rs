//! What the trained models see of a race: numbers computed from a [`View`](super::View), by the same code
//! when training data are written, when models are judged and when they are served.
//!
//! **Invariant:** a feature is a function of the view alone, and the view holds only what was known at that
//! moment. No driver, team or circuit is named: what a model has not met must not matter.

pub mod laptime;
pub mod outcome;
pub mod pit;
