//! Analytics: what the laps of a race say about its drivers.
//!
//! | file | noun |
//! |---|---|
//! | [`driver`] | pace, consistency, tyres, sectors and teammate of every driver of a race |
//! | `stints` | wear and scatter of every stint, on whichever backend |
//! | [`season`] | the same over several races |
//! | [`fit`] | linear least squares, small and exact |
//!
//! **Invariant:** pure: laps in, figures out. What was not measured is `None`, never 0.

#![forbid(unsafe_code)]

pub mod driver;
pub mod fit;
pub mod season;
mod stints;
