// delta_trace: time gained or lost against a reference lap along the distance, and who was fastest where.
//
//   grid       [laps][rows][bins]    f32  of lap_resample; row 0 is the time (s)
//   reference  [laps]                u32  the lap to compare with; 0xffffffff = none
//   lap_group  [laps]                u32  laps that compete for mini-sectors (a race, say); 0xffffffff = none
//   lap_track  [laps]                u32  which circuit's edges
//   edges      [tracks][minis + 1]   u32  points where mini-sectors begin, and the end of the last
//   delta      [laps][bins]          f32  out: time − reference's time at the same point (s); NaN = none
//   winner     [groups][minis]       u64  in and out, all ones at first: the fastest lap's time as the bits of
//                                         a float in the upper half, the lap's number in the lower
//
// Times above zero order like their bits, and a tie goes to the lap of the lower number: the least of whole
// numbers, the same in any order. So winner is one atomicMin for each lap and mini-sector.
//
// Mapping: one warp a lap, four a block; a lane takes four points at a time (16 B loads and stores; bins must
// be a multiple of 4). Bytes: 4·bins read, 4·bins read of the reference (from the cache when shared by a race's
// laps), 4·bins written, a lap. Bound: memory bandwidth.
#include "include/reduce.h"

static const u32 DELTA_THREADS = 128;
static const u32 DELTA_WARPS = DELTA_THREADS / 32;
static const u32 NONE = 0xffffffffu;

KERNEL(DELTA_THREADS)
delta_trace(const float *grid, const u32 *reference, const u32 *lap_group, const u32 *lap_track, const u32 *edges,
            float *delta, u64 *winner, u32 laps, u32 rows, u32 bins, u32 minis) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (u32 lap = blockIdx.x * DELTA_WARPS + warp; lap < laps; lap += gridDim.x * DELTA_WARPS) {
    const float *time = grid + (u64)lap * rows * bins;
    const u32 other = reference[lap];
    const float4 *own = (const float4 *)time;
    float4 *out = (float4 *)(delta + (u64)lap * bins);
    if (other == NONE) {
      const float4 nothing = {missing(), missing(), missing(), missing()};
      for (u32 k = lane; k < bins / 4; k += 32) out[k] = nothing;
    } else {
      const float4 *theirs = (const float4 *)(grid + (u64)other * rows * bins);
      for (u32 k = lane; k < bins / 4; k += 32) {
        const float4 a = own[k], b = theirs[k];
        const float4 d = {a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w};
        out[k] = d;
      }
    }
    const u32 group = lap_group[lap];
    if (group != NONE) {
      const u32 *edge = edges + (u64)lap_track[lap] * (minis + 1);
      for (u32 m = lane; m < minis; m += 32) {
        const float took = time[edge[m + 1]] - time[edge[m]];
        if (took > 0.0f) atomicMin(&winner[(u64)group * minis + m], (u64)bits_of(took) << 32 | lap);
      }
    }
  }
}
