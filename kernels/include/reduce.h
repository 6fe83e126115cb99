// Reductions over a warp and a block, in one stated order.
//
// A float sum over n elements by a warp: lane l adds the elements l, l + 32, l + 64, … in that order,
// starting from 0; then the 32 partial sums are folded: with those 16 lanes away, 8, 4, 2, 1. Addition of
// floats commutes, so that every lane of the fold holds the same bits. The CPU backend does exactly this. Of
// equals (0 and −0) a least or greatest keeps that of the lower lane, in lane 0.
#pragma once
#include "block.h"

INLINE float warp_sum(float v) {
  for (int d = 16; d > 0; d >>= 1) v = v + __shfl_xor_sync(ALL, v, d);
  return v;
}

INLINE u32 warp_sum(u32 v) {
  for (int d = 16; d > 0; d >>= 1) v = v + __shfl_xor_sync(ALL, v, d);
  return v;
}

INLINE i64 warp_sum(i64 v) {
  for (int d = 16; d > 0; d >>= 1) v = v + __shfl_xor_sync(ALL, v, d);
  return v;
}

INLINE float warp_max(float v) {
  for (int d = 16; d > 0; d >>= 1) {
    float other = __shfl_xor_sync(ALL, v, d);
    v = other > v ? other : v;
  }
  return v;
}

INLINE float warp_min(float v) {
  for (int d = 16; d > 0; d >>= 1) {
    float other = __shfl_xor_sync(ALL, v, d);
    v = other < v ? other : v;
  }
  return v;
}

// Sum over lanes 0 to own, own included. Integers: the order is of no matter.
INLINE i64 warp_running_sum(i64 v) {
  const u32 lane = threadIdx.x & 31;
  for (u32 d = 1; d < 32; d <<= 1) {
    i64 below = __shfl_up_sync(ALL, v, d);
    if (lane >= d) v += below;
  }
  return v;
}
