//! Predictions as bytes: fields in order, floats bit for bit.
//!
//! The first byte says which layout follows, so that a question may gain fields later.

use super::super::cursor::{Cursor, Malformed, put_bytes, put_f64, put_varint, put_zigzag};
use crate::record::Time;
use crate::record::prediction::{
    CompoundChance, FinishPrediction, LapTimePrediction, OrderPrediction, PitPrediction,
    Prediction, Provenance, Quantiles,
};

const LAPTIME_1: u8 = 1;
const RACE_1: u8 = 2;
const PIT_1: u8 = 3;
/// Most cars, positions or compounds that a prediction may list.
const MAX_LIST: usize = 4096;

fn put_quantiles(out: &mut Vec<u8>, q: Quantiles) {
    for v in [q.p10, q.p50, q.p90] {
        put_f64(out, v);
    }
}

fn take_quantiles(c: &mut Cursor) -> Result<Quantiles, Malformed> {
    Ok(Quantiles {
        p10: c.f64()?,
        p50: c.f64()?,
        p90: c.f64()?,
    })
}

fn put_provenance(out: &mut Vec<u8>, p: &Provenance) {
    put_zigzag(out, i64::from(p.session_key));
    put_zigzag(out, p.made_at.micros());
    put_varint(out, p.seq);
    put_bytes(out, p.model.as_bytes());
    put_bytes(out, p.backend.as_bytes());
    put_f64(out, p.stale_s);
}

fn take_provenance(c: &mut Cursor) -> Result<Provenance, Malformed> {
    Ok(Provenance {
        session_key: c.number()?,
        made_at: Time::from_micros(c.zigzag()?),
        seq: c.varint()?,
        model: c.text()?.to_owned(),
        backend: c.text()?.to_owned(),
        stale_s: c.f64()?,
    })
}

pub(super) fn put(out: &mut Vec<u8>, prediction: &Prediction) {
    match prediction {
        Prediction::LapTime(p) => {
            out.push(LAPTIME_1);
            put_provenance(out, &p.provenance);
            out.push(p.driver_number);
            put_varint(out, u64::from(p.lap_number));
            out.push(p.sectors_known);
            put_quantiles(out, p.lap_time);
        }
        Prediction::Race(p) => {
            out.push(RACE_1);
            put_provenance(out, &p.provenance);
            put_varint(out, u64::from(p.lap_number));
            put_varint(out, p.cars.len() as u64);
            for car in &p.cars {
                out.push(car.driver_number);
                for v in [
                    car.expected_position,
                    car.p_win,
                    car.p_podium,
                    car.p_points,
                    car.p_retirement,
                ] {
                    put_f64(out, v);
                }
                put_varint(out, car.positions.len() as u64);
                for v in &car.positions {
                    out.extend_from_slice(&v.to_bits().to_le_bytes());
                }
            }
        }
        Prediction::Pit(p) => {
            out.push(PIT_1);
            put_provenance(out, &p.provenance);
            out.push(p.driver_number);
            put_varint(out, u64::from(p.lap_number));
            for v in [
                p.p_within_1,
                p.p_within_2,
                p.p_within_3,
                p.p_within_5,
                p.p_stop,
            ] {
                put_f64(out, v);
            }
            out.push(u8::from(p.in_lap.is_some()));
            if let Some(q) = p.in_lap {
                put_quantiles(out, q);
            }
            put_varint(out, p.compounds.len() as u64);
            for chance in &p.compounds {
                put_bytes(out, chance.compound.as_bytes());
                put_f64(out, chance.probability);
            }
            put_bytes(out, p.reason.as_bytes());
        }
    }
}

fn lap(c: &mut Cursor) -> Result<u16, Malformed> {
    u16::try_from(c.varint()?).map_err(|_| Malformed("a lap number out of range"))
}

fn take_car(c: &mut Cursor) -> Result<FinishPrediction, Malformed> {
    Ok(FinishPrediction {
        driver_number: c.byte()?,
        expected_position: c.f64()?,
        p_win: c.f64()?,
        p_podium: c.f64()?,
        p_points: c.f64()?,
        p_retirement: c.f64()?,
        positions: {
            let n = c.count(MAX_LIST)?;
            (0..n)
                .map(|_| Ok(f32::from_bits(u32::from_le_bytes(c.array()?))))
                .collect::<Result<_, _>>()?
        },
    })
}

pub(super) fn take(c: &mut Cursor) -> Result<Prediction, Malformed> {
    Ok(match c.byte()? {
        LAPTIME_1 => Prediction::LapTime(LapTimePrediction {
            provenance: take_provenance(c)?,
            driver_number: c.byte()?,
            lap_number: lap(c)?,
            sectors_known: c.byte()?,
            lap_time: take_quantiles(c)?,
        }),
        RACE_1 => Prediction::Race(OrderPrediction {
            provenance: take_provenance(c)?,
            lap_number: lap(c)?,
            cars: {
                let n = c.count(MAX_LIST)?;
                (0..n).map(|_| take_car(c)).collect::<Result<_, _>>()?
            },
        }),
        PIT_1 => Prediction::Pit(PitPrediction {
            provenance: take_provenance(c)?,
            driver_number: c.byte()?,
            lap_number: lap(c)?,
            p_within_1: c.f64()?,
            p_within_2: c.f64()?,
            p_within_3: c.f64()?,
            p_within_5: c.f64()?,
            p_stop: c.f64()?,
            in_lap: match c.byte()? {
                0 => None,
                _ => Some(take_quantiles(c)?),
            },
            compounds: {
                let n = c.count(MAX_LIST)?;
                (0..n)
                    .map(|_| {
                        Ok(CompoundChance {
                            compound: c.text()?.to_owned(),
                            probability: c.f64()?,
                        })
                    })
                    .collect::<Result<_, Malformed>>()?
            },
            reason: c.text()?.to_owned(),
        }),
        _ => return Err(Malformed("a prediction of an unknown layout")),
    })
}
