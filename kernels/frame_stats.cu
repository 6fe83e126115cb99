// frame_stats: least, greatest, mean and root mean square of every channel in every window.
//
//   samples  [rows][stride]      f32  a row is one channel of one car; missing = NaN
//   stats    [rows][windows][4]  f32  out: min, max, mean, rms; NaN where nothing is known
//   known    [rows][windows]     u32  out: samples that were there
//
// Window w of a row is its samples w·hop to w·hop + length. Length, hop and stride are multiples of 4, so that
// a lane loads 16 B at a time.
//
// Order of the sums: component j of lane l adds elements 4·(l + 32·i) + j for i = 0, 1, …; then a lane adds
// (0 + 1) + (2 + 3); then the warp's fold. 128 running sums in all, which is also what keeps the error small
// and lets a CPU use its vectors.
//
// Mapping: one warp a window, eight a block, grid-stride. Bytes: 4·length read (windows that overlap find each
// other in the cache), 20 written, a window. Bound: memory bandwidth (3 compares, 3 sums and a product a sample).
#include "include/reduce.h"

static const u32 STATS_THREADS = 256;
static const u32 STATS_WARPS = STATS_THREADS / 32;

struct Running {
  float sum, square, low, high;
};

INLINE void take(Running &r, u32 &known, float v) {
  if (is_missing(v)) return;
  r.sum = r.sum + v;
  r.square = r.square + v * v;
  r.low = v < r.low ? v : r.low;
  r.high = v > r.high ? v : r.high;
  known++;
}

INLINE float lesser(float a, float b) { return b < a ? b : a; }
INLINE float greater(float a, float b) { return b > a ? b : a; }

KERNEL(STATS_THREADS)
frame_stats(const float *samples, float *stats, u32 *known_out, u32 rows, u32 stride, u32 windows, u32 length,
            u32 hop) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const u32 items = rows * windows;
  for (u32 item = blockIdx.x * STATS_WARPS + warp; item < items; item += gridDim.x * STATS_WARPS) {
    const u32 row = item / windows, window = item - row * windows;
    const float4 *in = (const float4 *)(samples + (u64)row * stride + (u64)window * hop);
    const Running nothing = {0, 0, float_of(0x7f800000u), float_of(0xff800000u)};
    Running r0 = nothing, r1 = nothing, r2 = nothing, r3 = nothing;
    u32 known = 0;
    for (u32 i = lane; i < length / 4; i += 32) {
      const float4 v = in[i];
      take(r0, known, v.x);
      take(r1, known, v.y);
      take(r2, known, v.z);
      take(r3, known, v.w);
    }
    const float sum = warp_sum((r0.sum + r1.sum) + (r2.sum + r3.sum));
    const float square = warp_sum((r0.square + r1.square) + (r2.square + r3.square));
    const float low = warp_min(lesser(lesser(r0.low, r1.low), lesser(r2.low, r3.low)));
    const float high = warp_max(greater(greater(r0.high, r1.high), greater(r2.high, r3.high)));
    known = warp_sum(known);
    if (lane == 0) {
      const float count = (float)known;
      float4 out = {missing(), missing(), missing(), missing()};
      if (known) {
        const float4 found = {low, high, quotient(sum, count), square_root(quotient(square, count))};
        out = found;
      }
      ((float4 *)stats)[item] = out;
      known_out[item] = known;
    }
  }
}
