//! Tests of the race model and the planner as a whole.

mod planner;
mod races;

use super::rules::Rules;

/// As Qatar's in 2023.
pub(super) const QATAR: Rules = Rules {
    min_stops: 0,
    longest_stint_laps: 18,
};
/// As Monaco's in 2025.
pub(super) const MONACO: Rules = Rules {
    min_stops: 2,
    longest_stint_laps: 0,
};
