//! The latest weather, and whether it rained.
//!
//! **Invariant:** an older record never replaces a newer one.

use serde::Serialize;

use crate::record::{Time, Weather};

/// Weather as last reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WeatherState {
    pub date: Time,
    /// °C.
    pub air_temperature: Option<f64>,
    /// °C.
    pub track_temperature: Option<f64>,
    /// %.
    pub humidity: Option<f64>,
    /// mbar.
    pub pressure: Option<f64>,
    /// Degrees, 0 = north.
    pub wind_direction: Option<i16>,
    /// m/s.
    pub wind_speed: Option<f64>,
    /// Whether it rains now.
    pub raining: bool,
    /// When rain was last reported in this session.
    pub last_rain: Option<Time>,
}

impl WeatherState {
    /// Whether it has rained in this session.
    pub fn rained(&self) -> bool {
        self.last_rain.is_some()
    }

    pub(super) fn update(current: &mut Option<WeatherState>, record: &Weather) {
        let state = current.get_or_insert_with(WeatherState::default);
        let rain = record.rainfall.is_some_and(|r| r > 0);
        if rain {
            state.last_rain = state.last_rain.max(Some(record.date));
        }
        if record.date < state.date {
            return;
        }
        *state = WeatherState {
            date: record.date,
            air_temperature: record.air_temperature.or(state.air_temperature),
            track_temperature: record.track_temperature.or(state.track_temperature),
            humidity: record.humidity.or(state.humidity),
            pressure: record.pressure.or(state.pressure),
            wind_direction: record.wind_direction.or(state.wind_direction),
            wind_speed: record.wind_speed.or(state.wind_speed),
            raining: rain,
            last_rain: state.last_rain,
        };
    }
}
