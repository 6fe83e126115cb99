// CUDA's words on the host: a block's threads are fibers, a barrier is where a fiber gives way.
//
// Only what the kernels use. A barrier or a shuffle that not all of its threads reach, a thread that ends
// while others wait for it, and threads of a warp that wait for different things are all errors that end the
// run: on a device they would hang it or give whatever was there. See shim.cpp for the order of execution.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define KERNEL(threads) extern "C" void
#define INLINE static inline

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int32_t i32;
typedef unsigned long long u64;
typedef long long i64;

static const u32 ALL = 0xffffffffu;

struct Index {
  u32 x, y, z;
};
// Those of the fiber that runs.
extern Index threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
  float x, y, z, w;
};

namespace shim {
enum Wait : u32 { RUNS, ENDED, AT_BLOCK, AT_WARP, AT_SHUFFLE_UP, AT_SHUFFLE_XOR, AT_SHUFFLE, AT_BALLOT };
void give_way(Wait what);
unsigned char *shared();
// Puts a value on the table for the warp, waits for the others, and takes that of `lane`.
u64 exchange(Wait what, u64 value, u32 lane);
u32 ballot(bool predicate);
[[noreturn]] void fail(const char *why);
}  // namespace shim

INLINE unsigned char *shared_memory() { return shim::shared(); }
INLINE void __syncthreads() { shim::give_way(shim::AT_BLOCK); }
INLINE void __syncwarp() { shim::give_way(shim::AT_WARP); }

template <class T>
T shim_shuffle(shim::Wait what, u32 mask, T v, u32 lane) {
  static_assert(sizeof(T) <= sizeof(u64), "a shuffle moves at most 8 bytes");
  if (mask != ALL) shim::fail("a shuffle with a partial mask");
  u64 bits = 0;
  memcpy(&bits, &v, sizeof v);
  bits = shim::exchange(what, bits, lane);
  memcpy(&v, &bits, sizeof v);
  return v;
}

template <class T>
T __shfl_xor_sync(u32 mask, T v, int d) {
  return shim_shuffle(shim::AT_SHUFFLE_XOR, mask, v, (threadIdx.x & 31) ^ (u32)d);
}
template <class T>
T __shfl_up_sync(u32 mask, T v, u32 d) {
  const u32 lane = threadIdx.x & 31;
  return shim_shuffle(shim::AT_SHUFFLE_UP, mask, v, lane < d ? lane : lane - d);
}
template <class T>
T __shfl_sync(u32 mask, T v, u32 lane) {
  return shim_shuffle(shim::AT_SHUFFLE, mask, v, lane & 31);
}
INLINE u32 __ballot_sync(u32 mask, bool predicate) {
  if (mask != ALL) shim::fail("a ballot with a partial mask");
  return shim::ballot(predicate);
}

// Fibers do not interrupt each other: plain code is atomic.
template <class T>
T atomicMin(T *at, T v) {
  const T old = *at;
  if (v < old) *at = v;
  return old;
}
template <class T>
T atomicAdd(T *at, T v) {
  const T old = *at;
  *at = old + v;
  return old;
}

INLINE u32 bits_of(float v) {
  u32 bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}
INLINE float float_of(u32 bits) {
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}
INLINE i32 round_to_int(float v) {
  // As the device does: out of range goes to the end of the range.
  if (v >= 2147483648.0f) return INT32_MAX;
  if (v < -2147483648.0f) return INT32_MIN;
  return v != v ? 0 : (i32)nearbyintf(v);
}
INLINE float int_to_float(i32 v) { return (float)v; }
INLINE float long_to_float(i64 v) { return (float)v; }
INLINE float square_root(float v) { return sqrtf(v); }
INLINE float quotient(float a, float b) { return a / b; }
INLINE u32 high_product(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }
INLINE int __popc(u32 v) { return __builtin_popcount(v); }
INLINE int __ffs(u32 v) { return __builtin_ffs((int)v); }
INLINE int __clz(u32 v) { return v ? __builtin_clz(v) : 32; }
