//! Strategy: how the race may go on, and what a stop would change about it.
//!
//! | file | noun |
//! |---|---|
//! | [`parameters`] | what was fitted on past seasons (`race.toml`) |
//! | [`rules`] | what single races ask for beyond the two compounds (`rules.toml`) |
//! | [`model`] | the race model: a [`model::Start`] in seconds into a problem in whole numbers |
//! | [`pace`] | a car's pace and wear, learnt lap by lap |
//! | [`opinion`] | what the pit network would do, beside Monte Carlo |
//! | [`policy`] | what the pit network sees and may do |
//! | [`environment`] | many races side by side, in which it learns |
//! | [`regret`] | what a way of stopping loses against hindsight |
//! | [`simulation`] | one race, lap by lap, with a say in every stop |
//!
//! Random numbers are those of [`crate::compute::philox`]: key the seed, counter (race, lap, car, purpose).
//!
//! **Invariant:** pure. No clock, no file; every seed is given. The same state, parameters and seed give the same
//! answer, bit by bit, whatever the machine and the number of threads.

#![forbid(unsafe_code)]

pub mod duel;
pub mod environment;
pub mod model;
pub mod moment;
pub mod opinion;
pub mod pace;
pub mod parameters;
pub mod planner;
pub mod policy;
pub mod regret;
pub mod rejoin;
pub mod rules;
pub mod simulation;
pub mod snapshot;

pub use crate::compute::philox;
pub use model::example_problem;

#[cfg(test)]
mod tests;
