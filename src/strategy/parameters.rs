//! The fitted parameters of the race model, as `race.toml` holds them.
//!
//! `engines/training/race/race.py` fits them on seasons up to 2023; shares are of a reference lap, so that a circuit
//! which was never seen is a circuit of that lap length.
//!
//! **Invariant:** [`Parameters`] that exist are finite, in range and of the right sizes.

use serde::Deserialize;

/// Everything that was fitted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    pub pace: Pace,
    pub wet: Wet,
    pub traffic: Traffic,
    pub start: Standing,
    pub neutral: Neutral,
    pub stop: Stops,
    pub retire: Retire,
    pub mistake: Mistake,
    pub circuits: Vec<Circuit>,
    pub teams: Vec<Team>,
}

/// Lap times (shares of a reference lap unless said otherwise).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Race pace without fuel on fresh mediums over the field's median qualifying time.
    pub margin: f64,
    /// Share of a gap in qualifying that is left in the race.
    pub from_qualifying: f64,
    /// Spread of a car's pace around that, and where it did not qualify.
    pub form: f64,
    pub form_blind: f64,
    /// Fuel for one lap, and the track coming in: per lap to go.
    pub fuel: f64,
    /// Wear a lap, by compound, and how it grows.
    pub slope: [f64; 5],
    pub curve: f64,
    /// Fresh loss against the medium, by compound.
    pub offset: [f64; 5],
    /// Wear a lap and °C of track temperature above `heat_at`.
    pub heat: f64,
    pub heat_at: f64,
    /// Spread of a lap around its neighbours.
    pub noise: f64,
    /// Spread of the wear of a stint (share a lap).
    pub wear_spread: f64,
    /// Dirty air right behind a car; none from `dirty_gap_s` on (s).
    pub dirty: f64,
    pub dirty_gap_s: f64,
}

/// Water.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wet {
    /// Loss by wetness (dry, damp, wet) and tyre (slick, intermediate, wet).
    pub loss: [[f64; 3]; 3],
    /// Probability a lap that it gets wetter or drier, by wetness.
    pub wetter: [f64; 3],
    pub drier: [f64; 3],
    /// Probability a lap that wrong tyres are changed.
    pub cross: f64,
}

/// Other cars (s).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    pub min_gap_s: f64,
    pub pass_s: f64,
    pub pass_span_s: f64,
    pub blue_s: f64,
}

/// The first lap (shares of a lap).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    pub extra: f64,
    pub slot: f64,
    pub spread: f64,
}

/// Neutralisations.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neutral {
    /// Probability on a lap, and on lap 1: red flag, safety car, virtual one.
    pub hazard: [f64; 3],
    pub hazard_start: [f64; 3],
    /// Laps behind the safety car, catching it up, under a virtual one (reference laps).
    pub safety_car_lap: f64,
    pub catch_up_lap: f64,
    pub virtual_lap: f64,
    /// Probability a lap that worn tyres are changed: under a virtual safety car, under a safety car.
    pub react: [f64; 2],
    /// Shortest, and how many lengths there are (laps).
    pub safety_car_laps: [f64; 2],
    pub virtual_laps: [f64; 2],
    /// Gap in line (s).
    pub gap_s: f64,
}

/// Stops.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stops {
    pub in_loss_s: f64,
    pub out_loss_s: f64,
    /// Share of the loss that is left under a virtual safety car and a safety car.
    pub r#virtual: f64,
    pub safety_car: f64,
    /// Spread of the crew's work (s), and a botched stop: probability and cost (s).
    pub crew_s: f64,
    pub botch: f64,
    pub botch_s: f64,
    /// Typical stint by compound and its spread (shares of the race).
    pub life: [f64; 5],
    pub life_spread: [f64; 5],
}

/// Probability of retiring on lap 1 and on each later lap.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retire {
    pub start: f64,
    pub lap: f64,
}

/// Probability of a mistake on a lap and the most that it costs (share of a lap).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mistake {
    pub chance: f64,
    pub cost: f64,
}

/// One circuit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circuit {
    /// As OpenF1's `circuit_short_name` writes it.
    pub name: String,
    /// Laps of a Grand Prix, as last scheduled.
    pub laps: u16,
    pub length_km: f64,
    /// Time lost on the in-lap and on the out-lap of a stop under green (s).
    pub in_loss_s: f64,
    pub out_loss_s: f64,
    pub life: [f64; 5],
    pub fuel: f64,
    /// Wear of soft, medium and hard.
    pub slope: [f64; 3],
    pub noise: f64,
    pub pass_span_s: f64,
    pub hazard: [f64; 3],
}

/// One team.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// As OpenF1's `team_name` writes it, in one season or another.
    pub names: Vec<String>,
    /// What its stops take longer than the field's (s); below 0: they are quicker.
    pub stop_s: f64,
}

/// The parameters are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ParametersError {
    #[error(
        "race model parameters do not parse: {0}; write them with engines/training/race/race.py"
    )]
    Toml(#[from] toml::de::Error),
    #[error(
        "race model parameter {name} is {value}, not between {least} and {most}; write them with engines/training/race/race.py"
    )]
    OutOfRange {
        name: &'static str,
        value: f64,
        least: f64,
        most: f64,
    },
}

impl Parameters {
    /// The parameters that the program was built with.
    pub fn shipped() -> Parameters {
        // Embedded at build time and parsed by a test: not from outside the process.
        Parameters::parse(include_str!("race.toml")).expect("race.toml is checked by a test")
    }

    /// Reads parameters.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn parse(text: &str) -> Result<Parameters, ParametersError> {
        let parameters: Parameters = toml::from_str(text)?;
        parameters.check()?;
        Ok(parameters)
    }

    /// The circuit of that name (letter case aside), or one like no other: the field's parameters, `laps` unknown.
    pub fn circuit(&self, name: &str) -> Circuit {
        self.known(name).cloned().unwrap_or_else(|| Circuit {
            name: name.to_owned(),
            laps: 0,
            length_km: 0.0,
            in_loss_s: self.stop.in_loss_s,
            out_loss_s: self.stop.out_loss_s,
            life: self.stop.life,
            fuel: self.pace.fuel,
            slope: [self.pace.slope[0], self.pace.slope[1], self.pace.slope[2]],
            noise: self.pace.noise,
            pass_span_s: self.traffic.pass_span_s,
            hazard: self.neutral.hazard,
        })
    }

    /// The circuit of that name, where it was fitted.
    pub fn known(&self, name: &str) -> Option<&Circuit> {
        self.circuits
            .iter()
            .find(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// What a team's stops take longer than the field's (s); of a team that was never seen, nothing.
    pub fn stop_s(&self, team: &str) -> f64 {
        let named = |t: &&Team| t.names.iter().any(|n| n.eq_ignore_ascii_case(team));
        self.teams.iter().find(named).map_or(0.0, |t| t.stop_s)
    }

    fn check(&self) -> Result<(), ParametersError> {
        let mut ranges: Vec<(&'static str, f64, f64, f64)> = vec![
            ("pace.margin", self.pace.margin, 0.9, 1.3),
            ("pace.from_qualifying", self.pace.from_qualifying, 0.0, 2.0),
            ("pace.form", self.pace.form, 0.0, 0.1),
            ("pace.form_blind", self.pace.form_blind, 0.0, 0.1),
            ("pace.fuel", self.pace.fuel, 0.0, 0.01),
            ("pace.curve", self.pace.curve, 0.0, 1e-3),
            ("pace.heat", self.pace.heat, -1e-3, 1e-3),
            ("pace.heat_at", self.pace.heat_at, -10.0, 70.0),
            ("pace.noise", self.pace.noise, 1e-4, 0.05),
            ("pace.wear_spread", self.pace.wear_spread, 0.0, 0.01),
            ("pace.dirty", self.pace.dirty, 0.0, 0.05),
            ("pace.dirty_gap_s", self.pace.dirty_gap_s, 0.1, 9.0),
            ("wet.cross", self.wet.cross, 0.0, 1.0),
            ("traffic.min_gap_s", self.traffic.min_gap_s, 0.0, 5.0),
            ("traffic.pass_s", self.traffic.pass_s, 0.0, 10.0),
            ("traffic.pass_span_s", self.traffic.pass_span_s, 0.01, 16.0),
            ("traffic.blue_s", self.traffic.blue_s, 0.0, 10.0),
            ("start.extra", self.start.extra, 0.0, 0.5),
            ("start.slot", self.start.slot, 0.0, 0.02),
            ("start.spread", self.start.spread, 0.0, 0.1),
            (
                "neutral.safety_car_lap",
                self.neutral.safety_car_lap,
                1.0,
                3.0,
            ),
            ("neutral.catch_up_lap", self.neutral.catch_up_lap, 1.0, 3.0),
            ("neutral.virtual_lap", self.neutral.virtual_lap, 1.0, 3.0),
            ("neutral.gap_s", self.neutral.gap_s, 0.1, 5.0),
            ("stop.virtual", self.stop.r#virtual, 0.0, 1.0),
            ("stop.safety_car", self.stop.safety_car, 0.0, 1.0),
            ("stop.crew_s", self.stop.crew_s, 0.0, 20.0),
            ("stop.botch", self.stop.botch, 0.0, 1.0),
            ("stop.botch_s", self.stop.botch_s, 0.0, 60.0),
            ("retire.start", self.retire.start, 0.0, 0.5),
            ("retire.lap", self.retire.lap, 0.0, 0.1),
            ("mistake.chance", self.mistake.chance, 0.0, 1.0),
            ("mistake.cost", self.mistake.cost, 0.0, 0.3),
        ];
        let each = |list: &mut Vec<_>, name, values: &[f64], least, most| {
            list.extend(values.iter().map(|v| (name, *v, least, most)));
        };
        each(&mut ranges, "pace.slope", &self.pace.slope, 0.0, 0.01);
        each(&mut ranges, "pace.offset", &self.pace.offset, -0.05, 0.05);
        each(
            &mut ranges,
            "wet.loss",
            self.wet.loss.as_flattened(),
            0.0,
            1.0,
        );
        each(&mut ranges, "wet.wetter", &self.wet.wetter, 0.0, 1.0);
        each(&mut ranges, "wet.drier", &self.wet.drier, 0.0, 1.0);
        each(
            &mut ranges,
            "neutral.hazard",
            &self.neutral.hazard,
            0.0,
            0.2,
        );
        each(
            &mut ranges,
            "neutral.hazard_start",
            &self.neutral.hazard_start,
            0.0,
            0.6,
        );
        each(&mut ranges, "neutral.react", &self.neutral.react, 0.0, 1.0);
        each(
            &mut ranges,
            "neutral.safety_car_laps",
            &self.neutral.safety_car_laps,
            1.0,
            30.0,
        );
        each(
            &mut ranges,
            "neutral.virtual_laps",
            &self.neutral.virtual_laps,
            1.0,
            30.0,
        );
        each(&mut ranges, "stop.life", &self.stop.life, 0.02, 1.5);
        each(
            &mut ranges,
            "stop.life_spread",
            &self.stop.life_spread,
            0.0,
            1.0,
        );
        ranges.push((
            "stop.in_loss_s + out_loss_s",
            self.stop.in_loss_s + self.stop.out_loss_s,
            5.0,
            60.0,
        ));
        for c in &self.circuits {
            ranges.push(("circuits.laps", f64::from(c.laps), 10.0, 120.0));
            ranges.push(("circuits.length_km", c.length_km, 1.0, 25.0));
            ranges.push((
                "circuits.in_loss_s + out_loss_s",
                c.in_loss_s + c.out_loss_s,
                5.0,
                60.0,
            ));
            ranges.push(("circuits.fuel", c.fuel, 0.0, 0.01));
            ranges.push(("circuits.noise", c.noise, 1e-4, 0.05));
            ranges.push(("circuits.pass_span_s", c.pass_span_s, 0.01, 16.0));
            each(&mut ranges, "circuits.life", &c.life, 0.02, 1.5);
            each(&mut ranges, "circuits.slope", &c.slope, 0.0, 0.01);
            each(&mut ranges, "circuits.hazard", &c.hazard, 0.0, 0.2);
        }
        for team in &self.teams {
            ranges.push(("teams.stop_s", team.stop_s, -3.0, 3.0));
        }
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(ParametersError::OutOfRange {
                    name,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_parameters_are_usable() {
        let p = Parameters::shipped();
        assert!(p.circuits.len() >= 24);
        assert!(p.known("monte carlo").is_some());
        // Overtaking is harder where everybody says so.
        let span = |name| p.known(name).unwrap().pass_span_s;
        assert!(span("Monte Carlo") > 3.0 * span("Spa-Francorchamps"));
        assert!(span("Singapore") > span("Sakhir"));
        // Crews differ by tenths; one that has another name by now is the same, and one that is new is like the field.
        assert!(p.stop_s("red bull racing") < -0.2 && p.stop_s("Haas F1 Team") > 0.2);
        assert_eq!(p.stop_s("AlphaTauri"), p.stop_s("RB"));
        assert_eq!((p.stop_s("Cadillac"), p.stop_s("")), (0.0, 0.0));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let text = include_str!("race.toml").replace("catch_up_lap = 1.", "catch_up_lap = 9.");
        let error = Parameters::parse(&text).unwrap_err().to_string();
        assert!(error.contains("neutral.catch_up_lap"), "{error}");
        let error = Parameters::parse("[pace]").unwrap_err().to_string();
        assert!(error.contains("race.py"), "{error}");
    }
}
