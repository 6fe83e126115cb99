//! The processor's backend.
//!
//! **Invariant:** results do not depend on the number of threads, nor on which vector instructions there are.

pub mod race_monte_carlo;
