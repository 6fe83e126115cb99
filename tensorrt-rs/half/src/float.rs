//! Numbers of 16 bits.

/// The largest number of 16 bits.
pub(super) const LARGEST: f32 = 65504.0;

/// The nearest IEEE number of 16 bits, ties to even; infinite where it is too large.
pub(super) fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let (exponent, mantissa) = ((bits >> 23 & 0xff) as i32, bits & 0x7f_ffff);
    if exponent == 0xff {
        return sign | 0x7c00 | u16::from(mantissa != 0) << 9;
    }
    // The value is whole · 2^(exponent − 150); a half of the same exponent keeps 10 of the 23 bits, a subnormal
    // one fewer.
    let exponent = exponent - 127 + 15;
    let (base, drop, whole) = match exponent {
        31.. => return sign | 0x7c00,
        1.. => ((exponent as u32) << 10, 13, mantissa),
        -10.. => (0, 14 - exponent, mantissa | 0x80_0000),
        _ => return sign,
    };
    let (kept, rest, tie) = (whole >> drop, whole & ((1 << drop) - 1), 1 << (drop - 1));
    let up = u32::from(rest > tie || (rest == tie && kept & 1 == 1));
    // A carry goes into the exponent, which is right.
    sign | (base + kept + up) as u16
}

/// What the 16 bits mean.
pub(super) fn single(bits: u16) -> f32 {
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * mantissa * 2_f32.powi(-24),
        31 if mantissa > 0.0 => f32::NAN,
        31 => f32::INFINITY * sign,
        _ => sign * (1.0 + mantissa / 1024.0) * 2_f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_itself() {
        for bits in 0..=u16::MAX {
            if bits & 0x7fff <= 0x7c00 {
                assert_eq!(half(single(bits)), bits, "{bits:#x}");
            }
        }
        assert_eq!(half(f32::NAN) & 0x7e00, 0x7e00);
    }

    #[test]
    fn between_two_the_nearer_is_taken() {
        for bits in 0..0x7bff_u16 {
            let (low, high) = (single(bits), single(bits + 1));
            let middle = (low + high) / 2.0;
            assert_eq!(
                half(middle.next_down()),
                bits,
                "below the middle of {low} and {high}"
            );
            assert_eq!(
                half(middle.next_up()),
                bits + 1,
                "above the middle of {low} and {high}"
            );
            assert_eq!(
                half(middle),
                bits + (bits & 1),
                "the middle of {low} and {high}"
            );
        }
        assert_eq!(half(LARGEST), 0x7bff);
        assert_eq!(half(65520.0), 0x7c00);
        assert_eq!(half(1e-9), 0);
        assert_eq!(half(-1e-9), 0x8000);
    }
}
