// lap_features: what a lap looked like, from its resampled channels.
//
//   grid       [laps][rows][bins]     f32  of lap_resample; row 0 is the time (s)
//   lap_track  [laps]                 u32  which circuit's tables
//   curvature  [tracks][bins]         f32  signed, 1/m; missing = NaN
//   corner     [tracks][bins]         u8   number of the corner that the point lies in; 255 = none
//   edges      [tracks][minis + 1]    u32  points where mini-sectors begin, and the end of the last
//   features   [laps][10 + minis + corners]  f32  out:
//     0 lap time (s) · 1, 2, 3 shares of time at full throttle, braking, coasting (0 to 1)
//     4 changes of gear · 5, 6 greatest and mean lateral acceleration (g)
//     7, 8, 9 highest, lowest, mean speed by distance (km/h)
//     then mini-sector times (s), then the lowest speed in each corner (km/h)
//
// `row_*` say which row of the grid holds a channel; 0 = it is not there. A feature of which nothing is known
// is NaN. Shares: of the time during which the channel was known; a step belongs to the point it begins at.
//
// Mapping: one warp a lap, four a block. Lane l reads the points l, l + 32, …: coalesced; the next point's
// value, which a step needs too, is in the same or the next line. Corners' minima are kept in shared memory
// as bit patterns of positive floats, which order like the floats: atomicMin, exact in any order.
// Bytes: 4·bins·(used rows + curvature) + bins read, 4·(10 + minis + corners) written, a lap. The circuit's
// tables stay in the cache. Bound: memory bandwidth.
#include "include/reduce.h"

static const u32 FEATURES_THREADS = 128;
static const u32 FEATURES_WARPS = FEATURES_THREADS / 32;
static const u32 FEATURES_FIXED = 10;
static const u32 MAX_CORNERS = 32;
static const u32 NO_SPEED = 0xffffffffu;
static const float PER_G = 1.0f / 9.80665f;
static const float KMH = 1.0f / 3.6f;

INLINE float share(float part, float whole) { return whole > 0.0f ? quotient(part, whole) : missing(); }

KERNEL(FEATURES_THREADS)
lap_features(const float *grid, const u32 *lap_track, const float *curvature, const u8 *corner, const u32 *edges,
             float *features, u32 laps, u32 rows, u32 bins, u32 minis, u32 corners, u32 row_speed,
             u32 row_throttle, u32 row_brake, u32 row_gear, float full_at, float lift_at, float brake_at) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  u32 *slowest = (u32 *)shared_memory() + warp * MAX_CORNERS;  // [MAX_CORNERS] a warp
  const u32 width = FEATURES_FIXED + minis + corners;

  for (u32 lap = blockIdx.x * FEATURES_WARPS + warp; lap < laps; lap += gridDim.x * FEATURES_WARPS) {
    const float *time = grid + (u64)lap * rows * bins;
    const float *speed = time + (u64)row_speed * bins;
    const float *throttle = time + (u64)row_throttle * bins;
    const float *brake = time + (u64)row_brake * bins;
    const float *gear = time + (u64)row_gear * bins;
    const u32 track = lap_track[lap];
    const float *bend = curvature + (u64)track * bins;
    const u8 *corner_at = corner + (u64)track * bins;

    slowest[lane] = NO_SPEED;
    __syncwarp();
    float full = 0, lifted = 0, braking = 0, known_throttle = 0, known_brake = 0, known_both = 0;
    float g_sum = 0, g_max = -1.0f, v_sum = 0, v_max = -1.0f, v_min = 1e9f;
    u32 shifts = 0, g_count = 0, v_count = 0;
    for (u32 k = lane; k < bins; k += 32) {
      // The last point begins no step.
      const bool steps = k + 1 < bins;
      const float dt = steps ? time[k + 1] - time[k] : 0.0f;
      const float p = row_throttle ? throttle[k] : missing();
      const float b = row_brake ? brake[k] : missing();
      if (!is_missing(dt)) {
        if (!is_missing(p)) {
          known_throttle += dt;
          if (p >= full_at) full += dt;
        }
        if (!is_missing(b)) {
          known_brake += dt;
          if (b >= brake_at) braking += dt;
        }
        if (!is_missing(p) && !is_missing(b)) {
          known_both += dt;
          if (p < lift_at && b < brake_at) lifted += dt;
        }
      }
      if (row_gear && steps) {
        const float now = gear[k], next = gear[k + 1];
        if (!is_missing(now) && !is_missing(next) && now != next) shifts++;
      }
      const float v = row_speed ? speed[k] : missing();
      if (!is_missing(v)) {
        v_sum += v;
        v_count++;
        v_max = v > v_max ? v : v_max;
        v_min = v < v_min ? v : v_min;
        const u32 c = corner_at[k];
        if (c < corners) atomicMin(&slowest[c], bits_of(v > 0.0f ? v : 0.0f));
        const float metres = v * KMH;
        const float lateral = metres * metres * bend[k] * PER_G;
        if (!is_missing(lateral)) {
          const float size = lateral < 0.0f ? -lateral : lateral;
          g_sum += size;
          g_count++;
          g_max = size > g_max ? size : g_max;
        }
      }
    }
    full = warp_sum(full);
    lifted = warp_sum(lifted);
    braking = warp_sum(braking);
    known_throttle = warp_sum(known_throttle);
    known_brake = warp_sum(known_brake);
    known_both = warp_sum(known_both);
    g_sum = warp_sum(g_sum);
    v_sum = warp_sum(v_sum);
    g_max = warp_max(g_max);
    v_max = warp_max(v_max);
    v_min = warp_min(v_min);
    shifts = warp_sum(shifts);
    g_count = warp_sum(g_count);
    v_count = warp_sum(v_count);
    __syncwarp();

    float *out = features + (u64)lap * width;
    if (lane == 0) {
      out[0] = time[bins - 1] - time[0];
      out[1] = share(full, known_throttle);
      out[2] = share(braking, known_brake);
      out[3] = share(lifted, known_both);
      out[4] = row_gear ? (float)shifts : missing();
      out[5] = g_count ? g_max : missing();
      out[6] = share(g_sum, (float)g_count);
      out[7] = v_count ? v_max : missing();
      out[8] = v_count ? v_min : missing();
      out[9] = share(v_sum, (float)v_count);
    }
    const u32 *edge = edges + (u64)track * (minis + 1);
    for (u32 m = lane; m < minis; m += 32) out[FEATURES_FIXED + m] = time[edge[m + 1]] - time[edge[m]];
    for (u32 c = lane; c < corners; c += 32)
      out[FEATURES_FIXED + minis + c] = slowest[c] == NO_SPEED ? missing() : float_of(slowest[c]);
    __syncwarp();
  }
}
