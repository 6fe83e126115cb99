//! Rules of a race beyond the two compounds: how many stops it asks for, how many laps a set of tyres may do.
//!
//! Which races had them stands in `rules.toml`, each with its source; whoever knows better says so ([`Told`]). What
//! counts is sets: a change under a red flag is a stop, and laps that a set did before the race are laps of it.
//!
//! The engines keep to them in every simulated race ([`crate::compute::race_monte_carlo`]); here it is judged whether
//! a plan does, by which rule it does not and by how much, and said in words what a rule asks of a car.
//!
//! **Invariant:** a race without such rules knows nothing of this: no plan is illegal and nothing is said.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::model::{Entrant, Start};
use crate::compute::race_monte_carlo::{MAX_LAPS, MOST_MIN_STOPS, Plan};

/// What a race asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Changes of tyres that every car must make; 0: no such rule.
    pub min_stops: u8,
    /// Laps that a set may do; 0: no such rule.
    pub longest_stint_laps: u16,
}

/// What somebody has said about them: 0 that there is no such rule, nothing that it is as the table has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Told {
    pub min_stops: Option<u8>,
    pub longest_stint_laps: Option<u16>,
}

/// One race of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    season: u16,
    circuit: String,
    #[serde(default)]
    min_stops: u8,
    #[serde(default)]
    longest_stint_laps: u16,
    /// For whoever reads the table.
    #[allow(dead_code)]
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    races: Vec<Row>,
}

static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    // Embedded at build time and parsed by a test: not from outside the process.
    toml::from_str::<Table>(include_str!("rules.toml"))
        .expect("rules.toml is checked by a test")
        .races
});

impl Rules {
    /// Those of a Grand Prix: `circuit` as OpenF1's `circuit_short_name` writes it, letter case aside.
    pub fn of(season: u16, circuit: &str) -> Rules {
        let here = |row: &&Row| row.season == season && row.circuit.eq_ignore_ascii_case(circuit);
        TABLE
            .iter()
            .find(here)
            .map_or(Rules::default(), |row| Rules {
                min_stops: row.min_stops,
                longest_stint_laps: row.longest_stint_laps,
            })
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Rules::default()
    }

    /// In words, such as `the rule of 2 stops`.
    pub fn named(&self) -> Option<String> {
        let stops = (self.min_stops > 0).then(|| rule_of_stops(self.min_stops));
        let stint = (self.longest_stint_laps > 0).then(|| rule_of_laps(self.longest_stint_laps));
        match (stops, stint) {
            (Some(a), Some(b)) => Some(format!("{a} and {b}")),
            (a, b) => a.or(b),
        }
    }
}

impl Told {
    /// The rules, where somebody has said so else than the table.
    #[must_use]
    pub fn over(self, table: Rules) -> Rules {
        Rules {
            min_stops: self.min_stops.unwrap_or(table.min_stops),
            longest_stint_laps: self.longest_stint_laps.unwrap_or(table.longest_stint_laps),
        }
    }

    /// Whether the engines can hold it.
    ///
    /// # Errors
    /// The key that is wrong, what it is and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let (stops, laps) = (
            self.min_stops.unwrap_or(0),
            self.longest_stint_laps.unwrap_or(0),
        );
        if i32::from(stops) > MOST_MIN_STOPS {
            let why =
                format!("min_stops is {stops}; allowed: 0 (no such rule) to {MOST_MIN_STOPS}");
            return Err(("min_stops", why));
        }
        if usize::from(laps) > MAX_LAPS {
            let why =
                format!("longest_stint_laps is {laps}; allowed: 0 (no such rule) to {MAX_LAPS}");
            return Err(("longest_stint_laps", why));
        }
        Ok(())
    }
}

/// Why a plan, or any plan at all, breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    #[error(
        "car {car}: its plan breaks the rule of {asked} stops by {short}: {made} made, {planned} planned, and laps are left for no more than {room} others"
    )]
    Stops {
        car: u8,
        asked: u8,
        made: u16,
        planned: u16,
        room: u16,
        short: u16,
    },
    #[error(
        "car {car}: its plan breaks the rule of {most} laps a set by {over}: the set that comes off on lap {until} has done {laps} by then"
    )]
    Stint {
        car: u8,
        most: u16,
        until: u16,
        laps: u16,
        over: u16,
    },
    #[error(
        "car {car}: no plan can keep the rule of {asked} stops any more: {owed} are owed, and {possible} can be made before the flag"
    )]
    NoLapsForStops {
        car: u8,
        asked: u8,
        owed: u16,
        possible: u16,
    },
    #[error(
        "car {car}: no plan can keep the rule of {most} laps a set any more: the set will have done {laps} at the flag, {over} too many, and nobody boxes on the last lap"
    )]
    NoLapForFresh {
        car: u8,
        most: u16,
        laps: u16,
        over: u16,
    },
}

/// What keeps a car from staying out for the lap under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// Its set has done all that it may at the end of this lap.
    Stint,
    /// As many stops are owed as there are laps left to make them on.
    Stops,
}

/// Stops that a car still owes, and laps on which it could make them: from the one under way to the last but one.
fn owed(start: &Start, car: &Entrant) -> (u16, u16) {
    let owed = u16::from(start.rules.min_stops).saturating_sub(car.changes);
    (
        owed,
        (start.laps - start.lap.min(start.laps)).saturating_sub(1),
    )
}

/// Whether a rule makes the car box on the lap under way.
pub fn forced(start: &Start, car: &Entrant) -> Option<Forced> {
    let (owed, possible) = owed(start, car);
    let most = start.rules.longest_stint_laps;
    if possible == 0 {
        None
    } else if most > 0 && car.age + 1 >= most {
        Some(Forced::Stint)
    } else {
        (owed > 0 && owed == possible).then_some(Forced::Stops)
    }
}

/// Whether any plan can still keep the rules.
///
/// # Errors
/// [`Illegal`], if none can.
pub fn possible(start: &Start, car: &Entrant) -> Result<(), Illegal> {
    let (owed, possible) = owed(start, car);
    if owed > possible {
        return Err(Illegal::NoLapsForStops {
            car: car.number,
            asked: start.rules.min_stops,
            owed,
            possible,
        });
    }
    let most = start.rules.longest_stint_laps;
    let laps = car.age + (start.laps - start.lap);
    if possible == 0 && most > 0 && laps > most {
        return Err(Illegal::NoLapForFresh {
            car: car.number,
            most,
            laps,
            over: laps - most,
        });
    }
    Ok(())
}

/// Whether a plan keeps the rules as far as it goes: what an open one leaves to tyre life is left to it. A set that is
/// over its laps already must come off on the lap under way.
///
/// # Errors
/// [`Illegal`]: by which rule it does not, and by how much.
pub fn check(start: &Start, car: &Entrant, plan: &Plan) -> Result<(), Illegal> {
    let Rules {
        min_stops,
        longest_stint_laps: most,
    } = start.rules;
    let (mut lap, mut age, mut planned) = (start.lap, car.age, 0);
    let stint = |from: u16, until: u16, age: u16| {
        let laps = age + (until - from);
        let unavoidable = until == start.lap + 1;
        if most == 0 || laps <= most || unavoidable {
            return Ok(());
        }
        Err(Illegal::Stint {
            car: car.number,
            most,
            until,
            laps,
            over: laps - most,
        })
    };
    for stop in &plan.stops[..(plan.count.max(0) as usize).min(plan.stops.len())] {
        let at = u16::try_from(stop.lap).unwrap_or(0);
        // What is behind us, and what comes too late, is no stop.
        if at <= lap || at >= start.laps {
            continue;
        }
        stint(lap, at, age)?;
        (lap, age, planned) = (at, 0, planned + 1);
    }
    let closed = plan.only != 0;
    if closed {
        stint(lap, start.laps, age)?;
    }
    let room = if closed {
        0
    } else {
        start.laps.saturating_sub(lap + 1)
    };
    let short = u16::from(min_stops).saturating_sub(car.changes + planned + room);
    if short > 0 {
        return Err(Illegal::Stops {
            car: car.number,
            asked: min_stops,
            made: car.changes,
            planned,
            room,
            short,
        });
    }
    Ok(())
}

/// What the rules ask of a car yet, for the reason of an advice; empty where they ask for nothing.
pub fn asked(start: &Start, car: &Entrant) -> String {
    let Rules {
        min_stops,
        longest_stint_laps: most,
    } = start.rules;
    let (owed, _) = owed(start, car);
    let now = forced(start, car);
    let mut text = String::new();
    if owed > 0 {
        let last = match now {
            Some(Forced::Stops) => ", and this lap is the last to begin on",
            _ => "",
        };
        text += &format!(
            ". {} asks for {owed} more{last}",
            capital(&rule_of_stops(min_stops))
        );
    }
    if most > 0 && car.age + (start.laps - start.lap) > most {
        let by = match now {
            Some(Forced::Stint) => "at the end of this lap".to_owned(),
            _ => format!("by lap {}", (start.lap + most).saturating_sub(car.age)),
        };
        let rule = capital(&rule_of_laps(most));
        text += &format!(". {rule} takes this set, {} laps old, off {by}", car.age);
    }
    text
}

fn rule_of_stops(stops: u8) -> String {
    format!(
        "the rule of {stops} stop{}",
        if stops == 1 { "" } else { "s" }
    )
}

fn rule_of_laps(laps: u16) -> String {
    format!("the rule of {laps} laps a set")
}

fn capital(text: &str) -> String {
    text.replacen("the", "The", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::race_monte_carlo::Stop;
    use crate::strategy::model::GridCar;
    use crate::strategy::parameters::Parameters;
    use crate::strategy::tests::{MONACO, QATAR};

    /// One car at Lusail (57 laps) after `lap` of them, on a set `age` laps old.
    fn at(rules: Rules, lap: u16, age: u16, changes: u16) -> Start {
        let grid = [GridCar {
            number: 44,
            qualifying_s: Some(84.0),
            compound: 1,
        }];
        let mut start = Start::grid(&Parameters::shipped(), "Lusail", Some(57), &grid);
        (start.rules, start.lap) = (rules, lap);
        (start.cars[0].age, start.cars[0].changes) = (age, changes);
        start
    }

    fn plan(laps: &[i32], only: bool) -> Plan {
        let mut plan = Plan {
            count: laps.len() as i32,
            only: only.into(),
            ..Plan::default()
        };
        for (stop, lap) in plan.stops.iter_mut().zip(laps) {
            *stop = Stop {
                lap: *lap,
                compound: 2,
            };
        }
        plan
    }

    #[test]
    fn the_table_holds_the_three_races_and_no_other() {
        assert_eq!(Rules::of(2023, "lusail"), QATAR);
        assert_eq!(Rules::of(2025, "Monte Carlo"), MONACO);
        assert_eq!(Rules::of(2025, "Lusail").longest_stint_laps, 25);
        assert!(Rules::of(2024, "Lusail").is_none() && Rules::of(2024, "Monte Carlo").is_none());
        assert_eq!(TABLE.len(), 3);
        let known = Parameters::shipped();
        for row in TABLE.iter() {
            assert!(known.known(&row.circuit).is_some(), "{}", row.circuit);
            assert!(row.min_stops > 0 || row.longest_stint_laps > 0);
            assert!(!row.source.is_empty());
        }
    }

    #[test]
    fn what_is_told_stands_over_the_table_key_by_key() {
        let told = Told {
            min_stops: Some(1),
            longest_stint_laps: None,
        };
        let over = told.over(QATAR);
        assert_eq!((over.min_stops, over.longest_stint_laps), (1, 18));
        assert_eq!(
            over.named().unwrap(),
            "the rule of 1 stop and the rule of 18 laps a set"
        );
        let none = Told {
            longest_stint_laps: Some(0),
            ..Told::default()
        };
        assert!(none.over(QATAR).is_none() && Rules::default().named().is_none());
        let (key, why) = Told {
            min_stops: Some(9),
            ..Told::default()
        }
        .check()
        .unwrap_err();
        assert_eq!(key, "min_stops");
        assert!(why.contains("is 9") && why.contains("to 8"), "{why}");
    }

    #[test]
    fn a_plan_is_refused_with_the_rule_and_by_how_much() {
        let start = at(QATAR, 0, 0, 0);
        let said = |start: &Start, plan: Plan| {
            check(start, &start.cars[0], &plan).map_err(|e| e.to_string())
        };
        assert_eq!(said(&start, plan(&[18, 36, 54], true)), Ok(()));
        // An open plan leaves the rest to tyre life.
        assert_eq!(said(&start, plan(&[18], false)), Ok(()));
        let e = said(&start, plan(&[18, 38, 54], true)).unwrap_err();
        assert!(
            e.contains("18 laps a set by 2") && e.contains("lap 38"),
            "{e}"
        );
        let e = said(&start, plan(&[18, 36], true)).unwrap_err();
        assert!(e.contains("by 3: the set that comes off on lap 57"), "{e}");
        // Used laps count; a set that is over already comes off now.
        let used = at(QATAR, 10, 13, 1);
        assert!(
            said(&used, plan(&[16], false))
                .unwrap_err()
                .contains("by 1")
        );
        assert_eq!(said(&used, plan(&[15], false)), Ok(()));
        assert_eq!(said(&at(QATAR, 10, 25, 0), plan(&[11], false)), Ok(()));
        assert!(said(&at(QATAR, 10, 25, 0), plan(&[12], false)).is_err());

        let start = at(MONACO, 20, 20, 0);
        assert_eq!(said(&start, plan(&[30, 40], true)), Ok(()));
        let e = said(&start, plan(&[30], true)).unwrap_err();
        assert!(e.contains("rule of 2 stops by 1: 0 made, 1 planned"), "{e}");
        assert_eq!(said(&at(MONACO, 20, 20, 1), plan(&[30], true)), Ok(()));
        // The second can follow on lap 56 at the latest.
        assert_eq!(said(&start, plan(&[55], false)), Ok(()));
        assert!(
            said(&start, plan(&[56], false))
                .unwrap_err()
                .contains("by 1")
        );
        // Without rules nothing is illegal.
        assert_eq!(
            said(&at(Rules::default(), 0, 60, 0), plan(&[], true)),
            Ok(())
        );
    }

    #[test]
    fn what_is_forced_now_and_what_nobody_can_do_any_more() {
        let forced = |start: Start| super::forced(&start, &start.cars[0]);
        let possible = |start: Start| super::possible(&start, &start.cars[0]);
        assert_eq!(forced(at(QATAR, 10, 16, 0)), None);
        assert_eq!(forced(at(QATAR, 10, 17, 0)), Some(Forced::Stint));
        assert_eq!(forced(at(QATAR, 10, 30, 0)), Some(Forced::Stint));
        assert_eq!(forced(at(MONACO, 53, 9, 0)), None);
        assert_eq!(forced(at(MONACO, 54, 9, 0)), Some(Forced::Stops));
        assert_eq!(forced(at(MONACO, 54, 9, 1)), None);
        assert_eq!(possible(at(MONACO, 54, 9, 0)), Ok(()));
        let e = possible(at(MONACO, 55, 9, 0)).unwrap_err().to_string();
        assert!(e.contains("2 are owed, and 1 can be made"), "{e}");
        assert_eq!(possible(at(QATAR, 56, 17, 3)), Ok(()));
        let e = possible(at(QATAR, 56, 19, 2)).unwrap_err().to_string();
        assert!(e.contains("20 at the flag, 2 too many"), "{e}");
    }

    #[test]
    fn what_they_ask_is_said_in_words() {
        let said = |start: Start| asked(&start, &start.cars[0]);
        assert_eq!(
            said(at(MONACO, 20, 20, 1)),
            ". The rule of 2 stops asks for 1 more"
        );
        assert!(
            said(at(MONACO, 54, 3, 0)).ends_with("2 more, and this lap is the last to begin on")
        );
        assert_eq!(
            said(at(QATAR, 10, 10, 0)),
            ". The rule of 18 laps a set takes this set, 10 laps old, off by lap 18"
        );
        assert!(said(at(QATAR, 17, 17, 0)).ends_with("off at the end of this lap"));
        assert_eq!(said(at(MONACO, 40, 9, 2)) + &said(at(QATAR, 50, 3, 3)), "");
    }
}
