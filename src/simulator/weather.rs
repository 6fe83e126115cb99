//! The sky: temperatures and wind that drift, rain that comes and goes, a track that gets wet and
//! dries.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::physics::Setting;

/// How much rain there is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rain {
    /// None at all.
    Dry,
    /// By chance: one day in six has a shower.
    #[default]
    Chance,
    /// A shower for certain, starting this many minutes after the session's start.
    ShowerAt(f64),
    /// Rain from start to end.
    Wet,
}

/// The weather of a session.
#[derive(Debug)]
pub struct Weather {
    setting: Setting,
    /// Showers: start, end (s), intensity (0 to 1).
    showers: Vec<(f64, f64, f64)>,
    /// 0 dry, 1 standing water.
    pub wetness: f64,
    pub raining: bool,
    pub air: f64,
    pub track: f64,
    pub humidity: f64,
    pub pressure: f64,
    pub wind: f64,
    pub wind_from: f64,
}

/// Wetting at full intensity, and drying without rain (1/s).
const WETTING: f64 = 1.0 / 240.0;
const DRYING: f64 = 1.0 / 1500.0;

impl Weather {
    /// Draws a session's weather; `start_s` is its start on the same clock as [`Weather::step`].
    pub fn draw(setting: Setting, rain: Rain, start_s: f64, rng: &mut ChaCha8Rng) -> Weather {
        let mut shower = |from: f64| {
            let lasts = rng.random_range(600.0..1500.0);
            (
                start_s + from,
                start_s + from + lasts,
                rng.random_range(0.55..1.0),
            )
        };
        let showers = match rain {
            Rain::Dry => Vec::new(),
            Rain::ShowerAt(minutes) => vec![shower(minutes * 60.0)],
            Rain::Wet => vec![(f64::MIN, f64::MAX, 0.8)],
            Rain::Chance => {
                let drawn = shower(0.0);
                if rng.random_bool(1.0 / 6.0) {
                    let from = rng.random_range(300.0..4500.0);
                    vec![(drawn.0 + from, drawn.1 + from, drawn.2)]
                } else {
                    Vec::new()
                }
            }
        };
        let wet = rain == Rain::Wet;
        Weather {
            setting,
            showers,
            wetness: if wet { 0.55 } else { 0.0 },
            raining: wet,
            air: setting.air + rng.random_range(-3.0..3.0),
            track: setting.air + setting.sun * if wet { 0.2 } else { 1.0 },
            humidity: setting.humidity + if wet { 25.0 } else { 0.0 },
            pressure: setting.pressure + rng.random_range(-4.0..4.0),
            wind: rng.random_range(0.3..3.5),
            wind_from: rng.random_range(0.0..360.0),
        }
    }

    /// Lets `dt` seconds go by, until `now`.
    pub fn step(&mut self, now: f64, dt: f64, rng: &mut ChaCha8Rng) {
        let rain: f64 = self
            .showers
            .iter()
            .filter(|(from, to, _)| (*from..*to).contains(&now))
            .map(|(_, _, intensity)| intensity)
            .sum();
        self.raining = rain > 0.0;
        // Rain wets towards its own intensity; sun and tyres dry.
        let change = if self.wetness < rain {
            WETTING * rain
        } else {
            -DRYING
        };
        self.wetness = (self.wetness + change * dt).clamp(0.0, 1.0);
        let mut drift = |value: &mut f64, towards: f64, hold: f64, noise: f64| {
            let kick: f64 = StandardNormal.sample(rng);
            *value += (towards - *value) * dt / hold + noise * kick * dt.sqrt();
        };
        let sun = self.setting.sun
            * if self.raining {
                0.2
            } else {
                1.0 - 0.6 * self.wetness
            };
        drift(&mut self.air, self.setting.air - 2.0 * rain, 3600.0, 0.004);
        let ground = self.air + sun;
        drift(&mut self.track, ground, 900.0, 0.012);
        drift(
            &mut self.humidity,
            self.setting.humidity + 35.0 * rain,
            900.0,
            0.03,
        );
        drift(&mut self.pressure, self.setting.pressure, 7200.0, 0.002);
        drift(&mut self.wind, 1.8, 600.0, 0.05);
        drift(&mut self.wind_from, 180.0, 20_000.0, 1.5);
        self.wind = self.wind.max(0.0);
        self.humidity = self.humidity.clamp(5.0, 99.0);
        self.wind_from = self.wind_from.rem_euclid(360.0);
    }
}
