//! The bounds of the possible. What lies outside is nulled and counted, never guessed at.

use super::{Gap, OneOrEach, Record};

/// How many fields of a record were nulled, and of which kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nulled(pub u32);

/// Fastest plausible speed (km/h). The record in a race is 372.5 (Bottas, Mexico 2016).
pub const MAX_SPEED_KMH: i16 = 400;
/// Highest plausible engine speed (1/min). The rules cap it at 15,000; V10s reached 20,000.
pub const MAX_RPM: i16 = 20_000;
/// Highest gear.
pub const MAX_GEAR: i16 = 8;
/// Highest DRS code that the feed is known to send (14: open).
pub const MAX_DRS: i16 = 14;
/// Longest plausible lap, sector or visit to the pits (s): a red flag may stop a race for hours.
pub const MAX_DURATION_S: f64 = 14_400.0;
/// Most points that anybody can have in a season.
pub const MAX_POINTS: f64 = 10_000.0;
/// Longest plausible race (laps).
pub const MAX_LAP: u16 = 200;

fn keep<T: PartialOrd + Copy>(field: &mut Option<T>, low: T, high: T, nulled: &mut Nulled) {
    // A NaN compares with nothing, so it is not kept either.
    if let Some(v) = *field
        && !(low <= v && v <= high)
    {
        *field = None;
        nulled.0 += 1;
    }
}

fn keep_each<T>(
    field: &mut Option<OneOrEach<T>>,
    possible: impl Fn(&T) -> bool,
    nulled: &mut Nulled,
) {
    match field {
        Some(OneOrEach::One(v)) if !possible(v) => {
            *field = None;
            nulled.0 += 1;
        }
        Some(OneOrEach::Each(values)) => {
            for v in values {
                if v.as_ref().is_some_and(|v| !possible(v)) {
                    *v = None;
                    nulled.0 += 1;
                }
            }
        }
        _ => {}
    }
}

/// Nulls what cannot be (104 for a missing throttle, a fifteenth gear, a car at (0,0)) and says how
/// many fields it nulled.
pub fn sanitise(record: &mut Record) -> Nulled {
    let mut n = Nulled::default();
    match record {
        Record::CarData(r) => {
            keep(&mut r.rpm, 0, MAX_RPM, &mut n);
            keep(&mut r.speed, 0, MAX_SPEED_KMH, &mut n);
            keep(&mut r.n_gear, 0, MAX_GEAR, &mut n);
            keep(&mut r.throttle, 0, 100, &mut n);
            keep(&mut r.brake, 0, 100, &mut n);
            keep(&mut r.drs, 0, MAX_DRS, &mut n);
        }
        // The feed writes (0,0) when it has lost the car.
        Record::Location(r) if r.x == Some(0) && r.y == Some(0) => {
            n.0 += 2 + u32::from(r.z.is_some());
            (r.x, r.y, r.z) = (None, None, None);
        }
        Record::Interval(r) => {
            for gap in [&mut r.gap_to_leader, &mut r.interval] {
                if let Some(Gap::Seconds(s)) = *gap
                    && !(-1.0..=MAX_DURATION_S).contains(&s)
                {
                    *gap = None;
                    n.0 += 1;
                }
            }
        }
        Record::Lap(r) => {
            for d in [
                &mut r.duration_sector_1,
                &mut r.duration_sector_2,
                &mut r.duration_sector_3,
                &mut r.lap_duration,
            ] {
                keep(d, 0.001, MAX_DURATION_S, &mut n);
            }
            for v in [&mut r.i1_speed, &mut r.i2_speed, &mut r.st_speed] {
                keep(v, 0, MAX_SPEED_KMH, &mut n);
            }
        }
        Record::Pit(r) => {
            for d in [
                &mut r.lane_duration,
                &mut r.stop_duration,
                &mut r.pit_duration,
            ] {
                keep(d, 0.0, MAX_DURATION_S, &mut n);
            }
        }
        Record::Weather(r) => {
            keep(&mut r.air_temperature, -30.0, 60.0, &mut n);
            keep(&mut r.track_temperature, -30.0, 90.0, &mut n);
            keep(&mut r.humidity, 0.0, 100.0, &mut n);
            keep(&mut r.pressure, 500.0, 1100.0, &mut n);
            keep(&mut r.rainfall, 0, 1, &mut n);
            keep(&mut r.wind_direction, 0, 360, &mut n);
            keep(&mut r.wind_speed, 0.0, 100.0, &mut n);
        }
        Record::StartingGrid(r) => keep(&mut r.lap_duration, 1.0, MAX_DURATION_S, &mut n),
        // CBOR can carry NaN and infinities; a state that holds one is not equal to itself.
        Record::SessionResult(r) => {
            keep(&mut r.points, 0.0, MAX_POINTS, &mut n);
            let time = |s: &f64| (0.0..=MAX_DURATION_S).contains(s);
            keep_each(&mut r.duration, time, &mut n);
            keep_each(
                &mut r.gap_to_leader,
                |g| g.seconds().is_none_or(|s| time(&s)),
                &mut n,
            );
        }
        Record::ChampionshipDriver(r) => {
            keep(&mut r.points_start, 0.0, MAX_POINTS, &mut n);
            keep(&mut r.points_current, 0.0, MAX_POINTS, &mut n);
        }
        Record::ChampionshipTeam(r) => {
            keep(&mut r.points_start, 0.0, MAX_POINTS, &mut n);
            keep(&mut r.points_current, 0.0, MAX_POINTS, &mut n);
        }
        _ => {}
    }
    n
}

/// Why a record cannot be accepted at all, where it cannot: `Some((field, value))`.
pub(super) fn absurd(record: &Record) -> Option<(&'static str, String)> {
    if let Some(t) = record.date()
        && !t.is_plausible()
    {
        return Some(("date", t.to_string()));
    }
    if let Some(d) = record.driver_number()
        && !(1..=99).contains(&d)
    {
        return Some(("driver_number", d.to_string()));
    }
    let lap = match record {
        Record::Lap(r) => Some(r.lap_number),
        Record::Pit(r) => r.lap_number,
        Record::Stint(r) => r.lap_end.max(r.lap_start),
        _ => None,
    };
    if let Some(lap) = lap.filter(|l| *l > MAX_LAP) {
        return Some(("lap_number", lap.to_string()));
    }
    match record {
        Record::Position(r) if !(1..=99).contains(&r.position) => {
            Some(("position", r.position.to_string()))
        }
        r if r.session_key().is_some_and(|k| k < 0) => Some((
            "session_key",
            r.session_key().unwrap_or_default().to_string(),
        )),
        _ => None,
    }
}
