// IEEE 754 half precision by whole numbers.
#pragma once
#include "block.h"

// The bits of the half nearest to v, ties to even; too great = infinity; NaN stays NaN.
INLINE u16 half_bits(float v) {
  const u32 bits = bits_of(v);
  const u32 sign = bits >> 16 & 0x8000u;
  const u32 size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return (u16)(sign | 0x7e00u);
  if (size >= 0x477ff000u) return (u16)(sign | 0x7c00u);  // from 65520 on
  u32 half, rest, tie;
  if (size >= 0x38800000u) {  // 2^-14: normal
    half = (size - 0x38000000u) >> 13;
    rest = size & 0x1fffu;
    tie = 0x1000u;
  } else if (size > 0x33000000u) {  // above 2^-25: subnormal
    const u32 shift = 126 - (size >> 23);
    const u32 mantissa = (size & 0x7fffffu) | 0x800000u;
    half = mantissa >> shift;
    rest = mantissa & ((1u << shift) - 1);
    tie = 1u << (shift - 1);
  } else {
    return (u16)sign;
  }
  if (rest > tie || (rest == tie && (half & 1))) half++;
  return (u16)(sign | half);
}
