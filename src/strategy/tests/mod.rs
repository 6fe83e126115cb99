//! Tests of the race model and the planner as a whole.

mod planner;
mod races;
