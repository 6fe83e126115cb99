//! Cars one after the other: it is a few thousand values.

use crate::compute::AssembleInputs;
use crate::compute::assemble_inputs::Tensor;

pub(in crate::compute) fn run(task: &mut AssembleInputs<'_>) {
    let (steps, wanted, slots) = (task.steps, task.choice.len(), task.slots);
    let mut at = 0;
    for car in 0..task.newest.len() {
        let have = (task.count[car] as usize).min(slots);
        for step in 0..steps {
            let back = steps - 1 - step;
            let there = back < have;
            task.mask[car * steps + step] = f32::from(u8::from(there));
            let slot = (task.newest[car] as usize + slots - back) % slots;
            let row = &task.history[(car * slots + slot) * task.features..][..task.features];
            for input in 0..wanted {
                let raw = row[task.choice[input] as usize];
                let value = if there && !raw.is_nan() {
                    ((raw - task.mean[input]) * task.scale[input]).clamp(-task.limit, task.limit)
                } else {
                    0.0
                };
                match &mut task.tensor {
                    Tensor::F32(out) => out[at] = value,
                    Tensor::F16(out) => out[at] = half_bits(value),
                }
                at += 1;
            }
        }
    }
}

/// The bits of the half nearest to `v`, ties to even; too great = infinity.
fn half_bits(v: f32) -> u16 {
    let bits = v.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let size = bits & 0x7fff_ffff;
    if size > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if size >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    let (half, rest, tie) = if size >= 0x3880_0000 {
        ((size - 0x3800_0000) >> 13, size & 0x1fff, 0x1000)
    } else if size > 0x3300_0000 {
        let shift = 126 - (size >> 23);
        let mantissa = size & 0x7f_ffff | 0x80_0000;
        let below = (1 << shift) - 1;
        (mantissa >> shift, mantissa & below, 1 << (shift - 1))
    } else {
        return sign;
    };
    let up = rest > tie || (rest == tie && half & 1 == 1);
    sign | (half + u32::from(up)) as u16
}

#[cfg(test)]
mod tests {
    use super::half_bits;

    /// The value of a half.
    fn value(bits: u16) -> f64 {
        let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        let size = match exponent {
            0 => mantissa * 2f64.powi(-24),
            31 => f64::INFINITY,
            e => (1.0 + mantissa / 1024.0) * 2f64.powi(e - 15),
        };
        if bits & 0x8000 == 0 { size } else { -size }
    }

    #[test]
    fn every_half_comes_back_and_between_two_the_nearer_is_taken() {
        for bits in 0..0x7c00_u16 {
            assert_eq!(half_bits(value(bits) as f32), bits);
            assert_eq!(half_bits(-value(bits) as f32), bits | 0x8000);
            if bits < 0x7bff {
                let middle = (value(bits) + value(bits + 1)) / 2.0;
                let even = if bits & 1 == 0 { bits } else { bits + 1 };
                assert_eq!(half_bits(middle as f32), even, "{middle}");
                let middle = middle as f32;
                assert_eq!(half_bits(f32::from_bits(middle.to_bits() + 1)), bits + 1);
                assert_eq!(half_bits(f32::from_bits(middle.to_bits() - 1)), bits);
            }
        }
        assert_eq!(half_bits(65520.0), 0x7c00);
        assert_eq!(half_bits(65519.99), 0x7bff);
        assert_eq!(half_bits(f32::INFINITY), 0x7c00);
        assert_eq!(half_bits(1e-10), 0);
    }
}
