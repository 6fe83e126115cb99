// lap_resample: from samples in time to points at equal steps of distance.
//
// Speed is integrated to distance (trapezia, over whole lap), the lap is cut into bins − 1 equal steps,
// and every channel is read off at each of the `bins` points. Traces of laps then lie on top of each other
// whatever their pace and the sampling's jitter.
//
//   lap_start  [laps + 1]                  u32  samples of lap l: lap_start[l] to lap_start[l + 1]
//   time_us    [samples]                   i32  since the lap's start, never decreasing in a lap
//   channels   [channel_count][samples]    f32  channel 0 is the speed (km/h); missing = NaN
//   grid       [laps][channel_count + 1][bins]  f32  out: row 0 the time (s), then the channels
//   length_m   [laps]                      f32  out: integrated distance; 0 = too little to resample
//
// Exactness. Speed is rounded to 1/64 km/h and time is whole µs, so that distance is an integer (i64, units
// of 1/4.608e8 m): its running sum is the same in any order. Point k lies in the interval i for which
// S[i]·n ≤ k·T < S[i+1]·n, with S the running sum, T the total and n = bins − 1: whole numbers again. Only
// the last step, reading off a value, is in floats: a + (b − a)·w.
//
// A channel with its bit set in `step_mask` holds its value to the next sample (gear, DRS). Where a value on
// either side is missing, or the samples are more than max_gap_us apart, the point is missing; never guessed.
//
// Mapping: one block of 128 a lap (grid-stride over laps). Pass 1 sums the intervals; pass 2 scans them, and
// the thread of an interval notes its number and weight in shared memory for each point in it (8 B a point);
// pass 3, a thread a point, reads off the channels, with coalesced writes.
// Bytes: (2·4 + 4·channel_count)·samples read (pass 2 finds pass 1's in the cache; a lap is a few KB),
// 4·(channel_count + 1)·bins·laps written. Bound: memory bandwidth.
#include "include/reduce.h"

static const u32 RESAMPLE_THREADS = 128;
static const u32 RESAMPLE_WARPS = RESAMPLE_THREADS / 32;
// Fastest that is believed (km/h), in 1/64.
static const i32 MAX_SPEED = 500 * 64;

// Speed in 1/64 km/h, or −1 where it is missing.
INLINE i32 whole_speed(float v) {
  if (is_missing(v)) return -1;
  i32 q = round_to_int(v * 64.0f);
  return q < 0 ? 0 : q > MAX_SPEED ? MAX_SPEED : q;
}

// Twice the distance between two samples: (v0 + v1)·dt, one side standing in for a missing other.
INLINE i64 interval(i32 t0, i32 t1, float v0, float v1) {
  i32 a = whole_speed(v0), b = whole_speed(v1);
  if (a < 0) a = b;
  if (b < 0) b = a;
  i64 dt = (i64)t1 - (i64)t0;
  return a < 0 || dt <= 0 ? 0 : (i64)(a + b) * dt;
}

// The first point at or after `sum`: the least k with k·total ≥ sum·n. For n < 4096 the quotient of floats is off
// by less than 0.001, so that its whole part is never above k; whole numbers do the rest.
INLINE u32 first_point(i64 sum, i64 total, u32 n) {
  i64 k = (i64)(quotient(long_to_float(sum), long_to_float(total)) * (float)n);
  while (k * total < sum * (i64)n) k++;
  return (u32)k;
}

KERNEL(RESAMPLE_THREADS)
lap_resample(const u32 *lap_start, const i32 *time_us, const float *channels, float *grid, float *length_m,
             u32 laps, u32 samples, u32 channel_count, u32 bins, u32 step_mask, i32 max_gap_us) {
  i64 *warp_total = (i64 *)shared_memory();             // [RESAMPLE_WARPS]
  u32 *at = (u32 *)(warp_total + RESAMPLE_WARPS);       // [bins]
  float *weight = (float *)(at + bins);                 // [bins]
  const u32 thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const u32 n = bins - 1;

  for (u32 lap = blockIdx.x; lap < laps; lap += gridDim.x) {
    const u32 begin = lap_start[lap], end = lap_start[lap + 1];
    const u32 intervals = end > begin + 1 ? end - begin - 1 : 0;
    const i32 *t = time_us + begin;
    const float *v = channels + begin;

    // Pass 1: the total.
    i64 total = 0;
    for (u32 i = thread; i < intervals; i += RESAMPLE_THREADS) total += interval(t[i], t[i + 1], v[i], v[i + 1]);
    total = warp_sum(total);
    __syncthreads();  // the last lap's readers of shared memory are done
    if (lane == 0) warp_total[warp] = total;
    __syncthreads();
    total = 0;
    for (u32 w = 0; w < RESAMPLE_WARPS; w++) total += warp_total[w];
    if (thread == 0) length_m[lap] = long_to_float(total) * (1.0f / 4.608e8f);

    float *out = grid + (u64)lap * (channel_count + 1) * bins;
    if (total == 0) {  // the same for the whole block
      for (u32 i = thread; i < (channel_count + 1) * bins; i += RESAMPLE_THREADS) out[i] = missing();
      continue;
    }

    // Pass 2: which points each interval holds.
    i64 before = 0;
    for (u32 first = 0; first < intervals; first += RESAMPLE_THREADS) {
      const u32 i = first + thread;
      const i64 own = i < intervals ? interval(t[i], t[i + 1], v[i], v[i + 1]) : 0;
      const i64 running = warp_running_sum(own);
      __syncthreads();
      if (lane == 31) warp_total[warp] = running;
      __syncthreads();
      i64 sum = before + running - own;
      for (u32 w = 0; w < RESAMPLE_WARPS; w++) {
        if (w < warp) sum += warp_total[w];
        before += warp_total[w];
      }
      if (own > 0) {
        const float size = long_to_float(own * (i64)n);
        u32 k = first_point(sum, total, n);
        for (i64 past = (i64)k * total - sum * (i64)n; k < n && past < own * (i64)n; k++, past += total) {
          at[k] = i;
          weight[k] = quotient(long_to_float(past), size);
        }
      }
    }
    if (thread == 0) {
      at[n] = intervals - 1;
      weight[n] = 1.0f;
    }
    __syncthreads();

    // Pass 3: read off.
    for (u32 k = thread; k < bins; k += RESAMPLE_THREADS) {
      const u32 i = at[k];
      const float w = weight[k];
      const i32 dt = t[i + 1] - t[i];
      out[k] = int_to_float(t[i] + round_to_int(int_to_float(dt) * w)) * 1e-6f;
      for (u32 c = 0; c < channel_count; c++) {
        const float *row = channels + (u64)c * samples + begin;
        const float a = row[i], b = row[i + 1];
        float value;
        if (dt > max_gap_us) value = missing();
        else if (step_mask >> c & 1) value = w < 1.0f ? a : b;
        else value = is_missing(a) || is_missing(b) ? missing() : a + (b - a) * w;
        out[(u64)(c + 1) * bins + k] = value;
      }
    }
  }
}
