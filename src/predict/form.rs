//! Form: how strong drivers, teams and circuits have been, folded forward race by race.
//!
//! A rating is a number on the scale of [`strength`](super::strength): of two cars whose ratings differ by
//! x, the better one finishes ahead with probability F(x), F Student's t with 4 degrees of freedom. Driver
//! and team share the credit. Nothing is fitted to a name: whoever is new starts in the middle, and a new
//! season pulls everybody back towards it, teams more than drivers.
//!
//! The fold is the same for training, evaluation and serving. What serves starts from a table of all races
//! that have been published ([`Form::shipped`], `engines/outcome/form.toml`).
//!
//! **Invariant:** pure, + − × ÷ and square root only; the form before a race has seen nothing of that race.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::strength::t4;

/// Share of the error between expected and actual order that goes to the driver, and to the team.
const RACE_STEP: f64 = 0.35;
/// Weight of the newest qualifying for a driver and for a team.
const QUALIFYING_STEP: [f64; 2] = [0.10, 0.15];
/// Weight of the newest race in the rate of retirements.
const RETIREMENT_STEP: f64 = 0.06;
/// Weight of the newest race in the places gained.
const GAIN_STEP: f64 = 0.10;
/// What a new season leaves of a team's and of a driver's rating: cars change more than people do.
const TEAM_CARRIES: f64 = 0.6;
const DRIVER_CARRIES: f64 = 0.9;
/// Of ten cars that start, one does not finish.
const TYPICAL_RETIREMENTS: f64 = 0.1;
/// Qualifying gaps beyond this tell no more (% of the field's median).
const MOST_QUALIFYING: f64 = 3.0;
/// Races after which a driver is no newcomer.
const EXPERIENCED: u16 = 60;
/// Correlation of grid and finish where a circuit is new, and how many races that belief is worth.
const TYPICAL_DIFFICULTY: f64 = 0.6;
const BELIEF: f64 = 3.0;
/// What an older race at a circuit counts against a newer one.
const CIRCUIT_CARRIES: f64 = 0.85;
/// Fewest finishers from which an order tells anything.
const FEWEST: usize = 5;
/// Points for a Grand Prix.
const POINTS: [f64; 10] = [25.0, 18.0, 15.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0, 1.0];

/// Columns of [`Form::of`].
pub const FORM_FEATURES: usize = 9;

/// A driver's form.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// Rating in races, the team's apart.
    pub race: f64,
    /// Qualifying time against the field's median (%), the team's part apart; less is better.
    pub qualifying: f64,
    /// Places gained on the grid position in races finished (tens).
    pub gain: f64,
    /// Share of races not finished.
    pub retires: f64,
    /// Races started.
    pub started: u16,
    /// Points of this season.
    pub points: f64,
}

impl Default for Driver {
    fn default() -> Self {
        Driver {
            race: 0.0,
            qualifying: 0.0,
            gain: 0.0,
            retires: TYPICAL_RETIREMENTS,
            started: 0,
            points: 0.0,
        }
    }
}

/// A team's form, as [`Driver`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    pub race: f64,
    pub qualifying: f64,
    pub retires: f64,
}

impl Default for Team {
    fn default() -> Self {
        Team {
            race: 0.0,
            qualifying: 0.0,
            retires: TYPICAL_RETIREMENTS,
        }
    }
}

/// How far the grid has decided the finish at a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circuit {
    /// Discounted sum of the rank correlations of grid and finish, and of the races they come from.
    pub sum: f64,
    pub races: f64,
}

/// What one car brings to a race and takes from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Three letters.
    pub driver: String,
    /// As published; [`lineage`] makes one team of its names.
    pub team: String,
    pub grid: Option<u8>,
    /// Best qualifying time (s).
    pub qualifying_s: Option<f64>,
    /// Official position, where the car was running at the end.
    pub position: Option<u8>,
    /// Whether it took the start; `None` where there is no result yet.
    pub started: Option<bool>,
}

/// Everybody's form before a race.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    pub season: u16,
    /// Races of this season so far.
    pub races: u16,
    pub drivers: BTreeMap<String, Driver>,
    pub teams: BTreeMap<String, Team>,
    pub circuits: BTreeMap<String, Circuit>,
}

impl Form {
    /// Form as of the newest published race, the one that serves.
    ///
    /// # Panics
    /// Never: the table is part of the binary, and a test reads it.
    pub fn shipped() -> Form {
        #[expect(clippy::expect_used, reason = "a test reads the table")]
        Form::read(include_str!("../../engines/outcome/form.toml")).expect("form.toml")
    }

    /// Reads a table.
    ///
    /// # Errors
    /// If the text is no such table.
    pub fn read(text: &str) -> Result<Form, toml::de::Error> {
        toml::from_str(text)
    }

    /// A season begins: ratings are pulled to the middle, points start again. Nothing happens when it
    /// has begun already.
    pub fn begin(&mut self, season: u16) {
        if season <= self.season {
            return;
        }
        self.season = season;
        self.races = 0;
        for team in self.teams.values_mut() {
            team.race *= TEAM_CARRIES;
            team.qualifying *= TEAM_CARRIES;
        }
        for driver in self.drivers.values_mut() {
            driver.race *= DRIVER_CARRIES;
            driver.points = 0.0;
        }
    }

    /// A driver's form in a car of that team: rating of both, of the team, qualifying of both (%), points a
    /// race, retirement rates of both, places gained, experience, how far the season is on (each about −3…3).
    pub fn of(&self, driver: &str, team: &str) -> [f64; FORM_FEATURES] {
        let d = self.drivers.get(driver).copied().unwrap_or_default();
        let t = self.teams.get(&lineage(team)).copied().unwrap_or_default();
        [
            d.race + t.race,
            t.race,
            d.qualifying + t.qualifying,
            d.points / POINTS[0] / f64::from(self.races.max(1)),
            d.retires,
            t.retires,
            d.gain,
            f64::from(d.started.min(EXPERIENCED)) / f64::from(EXPERIENCED),
            f64::from(self.races.min(24)) / 24.0,
        ]
    }

    /// How far the grid decides the finish here: 0 not at all, 1 wholly.
    pub fn difficulty(&self, circuit: &str) -> f64 {
        let c = self.circuits.get(circuit).copied().unwrap_or_default();
        (c.sum + BELIEF * TYPICAL_DIFFICULTY) / (c.races + BELIEF)
    }

    /// A race of the season that has begun is over.
    pub fn update(&mut self, circuit: &str, entries: &[Entry]) {
        self.update_races(entries);
        self.update_qualifying(entries);
        for e in entries.iter().filter(|e| e.started == Some(true)) {
            let out = f64::from(u8::from(e.position.is_none()));
            let driver = self.drivers.entry(e.driver.clone()).or_default();
            driver.retires += RETIREMENT_STEP * (out - driver.retires);
            driver.started = driver.started.saturating_add(1);
            if let Some(place) = e.position {
                driver.points += POINTS.get(usize::from(place) - 1).copied().unwrap_or(0.0);
                let grid = f64::from(e.grid.unwrap_or(20));
                driver.gain += GAIN_STEP * ((grid - f64::from(place)) / 10.0 - driver.gain);
            }
            let team = self.teams.entry(lineage(&e.team)).or_default();
            team.retires += RETIREMENT_STEP * (out - team.retires);
        }
        if entries.iter().any(|e| e.started.is_some()) {
            self.races += 1;
        }
        let placed: Vec<(f64, f64)> = entries
            .iter()
            .filter_map(|e| Some((f64::from(e.grid.unwrap_or(20)), f64::from(e.position?))))
            .collect();
        if placed.len() > FEWEST && !circuit.is_empty() {
            let c = self.circuits.entry(circuit.to_owned()).or_default();
            c.sum = CIRCUIT_CARRIES * c.sum + rank_correlation(&placed);
            c.races = CIRCUIT_CARRIES * c.races + 1.0;
        }
    }

    /// Every pair of finishers moves the ratings by how surprising its order was.
    fn update_races(&mut self, entries: &[Entry]) {
        let finishers: Vec<(&Entry, f64)> = entries
            .iter()
            .filter(|e| e.position.is_some())
            .map(|e| (e, self.of(&e.driver, &e.team)[0]))
            .collect();
        if finishers.len() < FEWEST {
            return;
        }
        let others = (finishers.len() - 1) as f64;
        let steps: Vec<f64> = finishers
            .iter()
            .map(|(own, rating)| {
                let surprise = |(other, theirs): &(&Entry, f64)| {
                    let ahead = f64::from(u8::from(own.position < other.position));
                    ahead - t4(rating - theirs)
                };
                let rivals = finishers.iter().filter(|(o, _)| o.position != own.position);
                rivals.map(surprise).sum::<f64>() / others
            })
            .collect();
        let moves: Vec<(String, String, f64)> = finishers
            .iter()
            .zip(steps)
            .map(|((e, _), s)| (e.driver.clone(), lineage(&e.team), RACE_STEP * s))
            .collect();
        for (driver, team, step) in moves {
            self.drivers.entry(driver).or_default().race += step;
            self.teams.entry(team).or_default().race += step;
        }
    }

    fn update_qualifying(&mut self, entries: &[Entry]) {
        let mut times: Vec<f64> = entries.iter().filter_map(|e| e.qualifying_s).collect();
        if times.len() < FEWEST {
            return;
        }
        let Some(middle) = super::laptime::median(&mut times) else {
            return;
        };
        for e in entries {
            let Some(time) = e.qualifying_s else { continue };
            let gap = (100.0 * (time / middle - 1.0)).clamp(-MOST_QUALIFYING, MOST_QUALIFYING);
            let error = gap - self.of(&e.driver, &e.team)[2];
            let driver = self.drivers.entry(e.driver.clone()).or_default();
            driver.qualifying += QUALIFYING_STEP[0] * error;
            let team = self.teams.entry(lineage(&e.team)).or_default();
            team.qualifying += QUALIFYING_STEP[1] * error;
        }
    }
}

/// Spearman's correlation: the product-moment correlation of ranks.
fn rank_correlation(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |pick: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        pairs
            .iter()
            .map(|own| pairs.iter().filter(|o| pick(o) < pick(own)).count() as f64)
            .collect()
    };
    let (a, b) = (ranks(|p| p.0), ranks(|p| p.1));
    let n = pairs.len() as f64;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / n;
    let (ma, mb) = (mean(&a), mean(&b));
    let dot = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
        x.iter().zip(y).map(|(p, q)| (p - mx) * (q - my)).sum()
    };
    let scale = (dot(&a, ma, &a, ma) * dot(&b, mb, &b, mb)).sqrt();
    if scale > 0.0 {
        dot(&a, ma, &b, mb) / scale
    } else {
        0.0
    }
}

/// Words by which a team's names over the years, and those of the teams it took over from, are known.
const LINEAGES: [(&str, &[&str]); 11] = [
    ("redbull", &["redbull"]),
    ("mclaren", &["mclaren"]),
    ("ferrari", &["ferrari"]),
    ("mercedes", &["mercedes", "brawn", "honda"]),
    (
        "tororosso",
        &["tororosso", "alphatauri", "racingbulls", "visacashapp"],
    ),
    ("sauber", &["sauber", "alfaromeo", "audi"]),
    ("haas", &["haas"]),
    ("williams", &["williams"]),
    ("alpine", &["alpine", "renault", "lotus"]),
    ("astonmartin", &["astonmartin", "racingpoint", "forceindia"]),
    ("cadillac", &["cadillac"]),
];

/// One name for a team, whatever its sponsors: letters and digits, lower case, known names folded together.
///
/// ```
/// use trackside::predict::form::lineage;
/// assert_eq!(lineage("Oracle Red Bull Racing"), lineage("red-bull"));
/// assert_eq!(lineage("RB"), lineage("AlphaTauri"));
/// assert_eq!(lineage("New Team"), "newteam");
/// ```
pub fn lineage(team: &str) -> String {
    let plain: String = team
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    if plain == "rb" || plain == "vcarb" {
        return "tororosso".to_owned();
    }
    let known = LINEAGES
        .iter()
        .find(|(_, words)| words.iter().any(|w| plain.contains(w)));
    known.map_or(plain, |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(driver: &str, team: &str, place: u8) -> Entry {
        Entry {
            driver: driver.to_owned(),
            team: team.to_owned(),
            grid: Some(place),
            qualifying_s: Some(90.0 + f64::from(place) / 10.0),
            position: Some(place),
            started: Some(true),
        }
    }

    #[test]
    fn who_wins_rises_and_a_new_season_pulls_back() {
        let mut form = Form::default();
        form.begin(2030);
        let names = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"];
        for _ in 0..10 {
            let race: Vec<Entry> = names.iter().zip(1..).map(|(n, p)| entry(n, n, p)).collect();
            form.update("Moon", &race);
        }
        let rating = |form: &Form, n: &str| form.of(n, n)[0];
        assert!(rating(&form, "AAA") > 1.0 && rating(&form, "FFF") < -1.0);
        assert!(form.of("AAA", "AAA")[2] < 0.0);
        assert!(form.difficulty("Moon") > 0.85 && form.difficulty("Mars") == TYPICAL_DIFFICULTY);
        assert_eq!(form.of("NEW", "nobody")[0], 0.0);
        let before = rating(&form, "AAA");
        form.begin(2031);
        let after = rating(&form, "AAA");
        assert!(after < 0.8 * before && after > 0.0);
        assert_eq!(form.of("AAA", "AAA")[3], 0.0);
        form.begin(2031);
        assert_eq!(after, rating(&form, "AAA"));
    }

    #[test]
    fn a_race_without_results_changes_no_rating() {
        let mut form = Form::default();
        form.begin(2030);
        let mut race: Vec<Entry> = (1..8).map(|p| entry(&format!("D{p}"), "T", p)).collect();
        for e in &mut race {
            (e.position, e.started, e.qualifying_s) = (None, None, None);
        }
        form.update("Moon", &race);
        assert_eq!((form.races, form.drivers.len()), (0, 0));
    }

    #[test]
    fn the_shipped_table_is_read() {
        let form = Form::shipped();
        assert!(form.season >= 2024 && form.drivers.len() > 15 && form.teams.len() >= 10);
        assert!(form.difficulty("Monte Carlo") > form.difficulty("Interlagos"));
    }
}
