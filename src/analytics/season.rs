//! Drivers over several races: each race counts with the clean laps that it gave.
//!
//! Seconds of different circuits are not alike, so pace is told in per cent of a lap as well.

use std::collections::BTreeMap;

use serde::Serialize;

use super::driver::Driver;

/// A driver over the races of a season.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SeasonDriver {
    pub driver: String,
    pub number: u8,
    /// The last one he drove for.
    pub team: String,
    pub races: usize,
    pub laps: usize,
    pub pace_s: Option<f64>,
    pub pace_percent: Option<f64>,
    pub consistency_s: Option<f64>,
    pub wear_s_per_lap: Option<f64>,
    pub sectors_s: [Option<f64>; 3],
    /// Against teammates: mean difference of pace (s a lap), races won, races compared.
    pub teammate_pace_s: Option<f64>,
    pub teammate_beaten: usize,
    pub teammate_races: usize,
}

/// A weighted mean in the making.
#[derive(Clone, Copy, Default)]
struct Mean(f64, f64);

impl Mean {
    fn add(&mut self, value: Option<f64>, weight: f64) {
        if let Some(v) = value {
            self.0 += weight * v;
            self.1 += weight;
        }
    }

    fn value(self) -> Option<f64> {
        (self.1 > 0.0).then(|| self.0 / self.1)
    }
}

#[derive(Default)]
struct Sums {
    last: SeasonDriver,
    means: [Mean; 7],
    mate: Mean,
}

/// The drivers of those races, the quickest (in per cent) first. A driver is known by his three letters, or by his
/// number where there are none.
pub fn season(races: &[Vec<Driver>]) -> Vec<SeasonDriver> {
    let mut all: BTreeMap<(String, u8), Sums> = BTreeMap::new();
    for driver in races.iter().flatten() {
        let number = if driver.driver.is_empty() {
            driver.number
        } else {
            0
        };
        let sums = all.entry((driver.driver.clone(), number)).or_default();
        let weight = driver.laps as f64;
        let values = [
            driver.pace_s,
            driver.pace_percent,
            driver.consistency_s,
            driver.wear_s_per_lap,
            driver.sectors_s[0],
            driver.sectors_s[1],
            driver.sectors_s[2],
        ];
        for (mean, value) in sums.means.iter_mut().zip(values) {
            mean.add(value, weight);
        }
        let s = &mut sums.last;
        s.driver.clone_from(&driver.driver);
        s.team.clone_from(&driver.team);
        s.number = driver.number;
        s.races += 1;
        s.laps += driver.laps;
        if let Some(mate) = &driver.teammate {
            sums.mate.add(Some(mate.pace_s), 1.0);
            s.teammate_races += 1;
            s.teammate_beaten += usize::from(mate.pace_s < 0.0);
        }
    }
    let mut drivers: Vec<SeasonDriver> = all
        .into_values()
        .map(|sums| {
            let [
                pace_s,
                pace_percent,
                consistency_s,
                wear_s_per_lap,
                s1,
                s2,
                s3,
            ] = sums.means.map(Mean::value);
            SeasonDriver {
                pace_s,
                pace_percent,
                consistency_s,
                wear_s_per_lap,
                sectors_s: [s1, s2, s3],
                teammate_pace_s: sums.mate.value(),
                ..sums.last
            }
        })
        .collect();
    drivers.sort_by(|a, b| {
        let key = |d: &SeasonDriver| d.pace_percent.unwrap_or(f64::INFINITY);
        key(a).total_cmp(&key(b))
    });
    drivers
}

#[cfg(test)]
mod tests {
    use super::super::driver::Teammate;
    use super::*;

    #[test]
    fn races_count_by_their_laps() {
        let race = |driver: &str, laps: usize, pace: f64, mate: f64| Driver {
            driver: driver.to_owned(),
            number: 7,
            laps,
            pace_s: Some(pace),
            pace_percent: Some(pace),
            teammate: Some(Teammate {
                number: 8,
                driver: String::new(),
                pace_s: mate,
                quicker: 0,
                compared: 0,
            }),
            ..Driver::default()
        };
        let all = season(&[
            vec![race("ABC", 10, 1.0, -0.1), race("DEF", 10, 0.2, 0.1)],
            vec![race("ABC", 30, -1.0, 0.3)],
        ]);
        let names: Vec<&str> = all.iter().map(|d| d.driver.as_str()).collect();
        assert_eq!(names, ["ABC", "DEF"]);
        assert_eq!(
            (all[0].races, all[0].laps, all[0].pace_s),
            (2, 40, Some(-0.5))
        );
        assert_eq!((all[0].teammate_beaten, all[0].teammate_races), (1, 2));
        assert!((all[0].teammate_pace_s.unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(all[0].consistency_s, None);
    }
}
