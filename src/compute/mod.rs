//! Arithmetic over plain arrays: what a GPU will do, and what the CPU does today.
//!
//! | file | noun |
//! |---|---|
//! | [`philox`] | random numbers by counter |
//! | [`race_monte_carlo`] | a race to be simulated many times, in whole numbers |
//! | [`cpu`] | the backend of the processor: lanes that the compiler vectorises, batches over rayon |
//!
//! **Invariant:** numbers in, numbers out: nothing here knows a driver, a file or a clock. It is the only room that
//! may hold `unsafe`, each with its reason beside it. A backend gives the same bytes whatever the machine, the
//! number of threads and the vector width.

pub mod cpu;
pub mod philox;
pub mod race_monte_carlo;
