// What a kernel's body may use, on the device and on the host.
//
// On the device these are CUDA's own words. Anywhere else `host/block.h` gives them the same meaning with
// one fiber for each thread, so that a test runs the very same bodies: indexing, barriers, reductions.
//
// House rules that keep both sides equal bit for bit:
//  - shared memory is dynamic only (`shared_memory()`): the host fills it with garbage before each block;
//  - compiled without contraction into fused multiply-adds (-fmad=false, -ffp-contract=off), divisions and
//    square roots as IEEE 754 rounds them; no library function of mathematics;
//  - sums of floats go in the order written in `reduce.h`; sums of integers may go in any.
#pragma once

#ifdef __CUDACC__

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define INLINE static __device__ __forceinline__

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

static const u32 ALL = 0xffffffffu;

INLINE unsigned char *shared_memory() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return dynamic_shared;
}

INLINE u32 bits_of(float v) { return __float_as_uint(v); }
INLINE float float_of(u32 bits) { return __uint_as_float(bits); }
INLINE i32 round_to_int(float v) { return __float2int_rn(v); }
INLINE float int_to_float(i32 v) { return __int2float_rn(v); }
INLINE float long_to_float(i64 v) { return __ll2float_rn(v); }
INLINE float square_root(float v) { return __fsqrt_rn(v); }
INLINE float quotient(float a, float b) { return __fdiv_rn(a, b); }
INLINE u32 high_product(u32 a, u32 b) { return __umulhi(a, b); }

#else
#include "../host/block.h"
#endif

// No value: what a channel holds where the sensor said nothing.
INLINE float missing() { return float_of(0x7fc00000u); }
INLINE bool is_missing(float v) { return v != v; }
