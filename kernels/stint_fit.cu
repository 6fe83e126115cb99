// stint_fit: pace of a stint against tyre age and fuel, by regression that outliers cannot bend.
//
//   lap time = base + degradation·(age − age₀) + burn·(fuel − fuel₀) + noise
//
//   stint_start [stints + 1]  u32  laps of stint s: stint_start[s] to stint_start[s + 1]; at most 128 are used
//   time_s      [laps]        f32  NaN, ±1e9 and beyond = not to be used (in-lap, yellow)
//   age         [laps]        f32  of the tyres (laps)
//   fuel        [laps]        f32  in the tank (kg), or laps to go: the unit of `burn`
//   prior       [stints][4]   f32  degradation, its precision, burn, its precision (1/s², in units of the noise:
//                                  a precision p counts like laps that tell it with spread 1/√p)
//   fit         [stints][8]   f32  out: base, degradation, burn, scale of the noise (1.4826·median |residual|),
//                                  standard errors of base, degradation and burn, laps used; NaN: under 3 laps
//
// Age and fuel nearly run together within a stint, so that both have a prior; age₀ and fuel₀ are the means over
// the laps used, and times are taken against the stint's fastest lap, which keeps floats small. `rounds` rounds
// of reweighting after a first unweighted one: a lap more than `tuning` scales off weighs tuning·scale/|residual|
// (Huber). The scale is the median of the residuals' sizes found by rank: element i's rank is the number of those
// that are smaller, or equal and before it. No sort, and no order of execution to depend on.
//
// Mapping: one warp a stint, four a block. A lane holds laps lane, lane + 32, …, up to four, in registers; sizes
// of residuals in shared memory (512 B a warp). All lanes solve the same 3×3 system (Cholesky), in the same order.
// Bytes: 12 a lap, 48 a stint. Operations: (rounds + 1)·(laps·(laps + 40) + 350). Bound: latency of one warp for
// a race, arithmetic for seasons.
#include "include/reduce.h"

static const u32 FIT_THREADS = 128;
static const u32 FIT_WARPS = FIT_THREADS / 32;
static const u32 FIT_LAPS = 128;
static const u32 FIT_EACH = FIT_LAPS / 32;
// Least scale of the noise (s): below it, laps agree better than they are timed.
static const float LEAST_SCALE = 0.001f;

// Whether it is a number, and one that may occur.
INLINE bool usable(float v) { return v > -1e9f && v < 1e9f; }

// Solves the symmetric system, and gives the diagonal of the inverse.
struct Solved {
  float x0, x1, x2, v0, v1, v2;
};

INLINE Solved solve(float a00, float a01, float a02, float a11, float a12, float a22, float b0, float b1,
                           float b2) {
  // A = L·Lᵀ, with the inverses of L's diagonal as d.
  const float d0 = quotient(1.0f, square_root(a00));
  const float l10 = a01 * d0, l20 = a02 * d0;
  const float d1 = quotient(1.0f, square_root(a11 - l10 * l10));
  const float l21 = (a12 - l20 * l10) * d1;
  const float d2 = quotient(1.0f, square_root((a22 - l20 * l20) - l21 * l21));
  const float y0 = b0 * d0;
  const float y1 = (b1 - l10 * y0) * d1;
  const float y2 = ((b2 - l20 * y0) - l21 * y1) * d2;
  Solved s;
  s.x2 = y2 * d2;
  s.x1 = (y1 - l21 * s.x2) * d1;
  s.x0 = ((y0 - l10 * s.x1) - l20 * s.x2) * d0;
  // Columns of L⁻¹.
  const float m10 = -(l10 * d0) * d1;
  const float m20 = -(l20 * d0 + l21 * m10) * d2;
  const float m21 = -(l21 * d1) * d2;
  s.v0 = (d0 * d0 + m10 * m10) + m20 * m20;
  s.v1 = d1 * d1 + m21 * m21;
  s.v2 = d2 * d2;
  return s;
}

KERNEL(FIT_THREADS)
stint_fit(const u32 *stint_start, const float *time_s, const float *age, const float *fuel, const float *prior,
          float *fit, u32 stints, u32 rounds, float tuning) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float *sizes = (float *)shared_memory() + warp * FIT_LAPS;  // [FIT_LAPS] a warp

  for (u32 stint = blockIdx.x * FIT_WARPS + warp; stint < stints; stint += gridDim.x * FIT_WARPS) {
    const u32 begin = stint_start[stint];
    const u32 length = stint_start[stint + 1] - begin;
    const u32 laps = length < FIT_LAPS ? length : FIT_LAPS;
    float y[FIT_EACH], x1[FIT_EACH], x2[FIT_EACH], residual[FIT_EACH];
    bool used[FIT_EACH];

    float fastest = 1e9f, age_sum = 0, fuel_sum = 0;
    u32 count = 0;
#pragma unroll
    for (u32 j = 0; j < FIT_EACH; j++) {
      const u32 i = lane + 32 * j;
      y[j] = i < laps ? time_s[begin + i] : missing();
      x1[j] = i < laps ? age[begin + i] : missing();
      x2[j] = i < laps ? fuel[begin + i] : missing();
      used[j] = usable(y[j]) && usable(x1[j]) && usable(x2[j]);
      if (used[j]) {
        fastest = y[j] < fastest ? y[j] : fastest;
        age_sum = age_sum + x1[j];
        fuel_sum = fuel_sum + x2[j];
        count++;
      }
    }
    fastest = warp_min(fastest);
    count = warp_sum(count);
    const float known = (float)count;
    const float age0 = quotient(warp_sum(age_sum), known);
    const float fuel0 = quotient(warp_sum(fuel_sum), known);
    float *out = fit + (u64)stint * 8;
    if (count < 3) {  // the same for the whole warp
      if (lane < 8) out[lane] = lane == 7 ? known : missing();
      continue;
    }
    const float p1 = prior[stint * 4], w1 = prior[stint * 4 + 1];
    const float p2 = prior[stint * 4 + 2], w2 = prior[stint * 4 + 3];
#pragma unroll
    for (u32 j = 0; j < FIT_EACH; j++) {
      if (used[j]) {
        y[j] = y[j] - fastest;
        x1[j] = x1[j] - age0;
        x2[j] = x2[j] - fuel0;
      }
    }

    Solved s = {0, 0, 0, 0, 0, 0};
    float scale = 0;
    for (u32 round = 0; round <= rounds; round++) {
      float a00 = 0, a01 = 0, a02 = 0, a11 = 0, a12 = 0, a22 = 0, b0 = 0, b1 = 0, b2 = 0;
#pragma unroll
      for (u32 j = 0; j < FIT_EACH; j++) {
        if (used[j]) {
          float w = 1.0f;
          if (round > 0) {
            const float size = residual[j] < 0.0f ? -residual[j] : residual[j];
            const float most = tuning * scale;
            if (size > most) w = quotient(most, size);
          }
          const float wx1 = w * x1[j], wx2 = w * x2[j];
          a00 = a00 + w;
          a01 = a01 + wx1;
          a02 = a02 + wx2;
          a11 = a11 + wx1 * x1[j];
          a12 = a12 + wx1 * x2[j];
          a22 = a22 + wx2 * x2[j];
          b0 = b0 + w * y[j];
          b1 = b1 + wx1 * y[j];
          b2 = b2 + wx2 * y[j];
        }
      }
      a00 = warp_sum(a00);
      a01 = warp_sum(a01);
      a02 = warp_sum(a02);
      a11 = warp_sum(a11) + w1;
      a12 = warp_sum(a12);
      a22 = warp_sum(a22) + w2;
      b0 = warp_sum(b0);
      b1 = warp_sum(b1) + w1 * p1;
      b2 = warp_sum(b2) + w2 * p2;
      s = solve(a00, a01, a02, a11, a12, a22, b0, b1, b2);

      // The scale: the median size of the residuals, by rank.
      __syncwarp();
#pragma unroll
      for (u32 j = 0; j < FIT_EACH; j++) {
        const u32 i = lane + 32 * j;
        residual[j] = used[j] ? ((y[j] - s.x0) - s.x1 * x1[j]) - s.x2 * x2[j] : 0.0f;
        const float size = residual[j] < 0.0f ? -residual[j] : residual[j];
        sizes[i] = used[j] ? size : -1.0f;
      }
      __syncwarp();
      const u32 middle = (count - 1) / 2;
      float median = 0.0f;
#pragma unroll
      for (u32 j = 0; j < FIT_EACH; j++) {
        const u32 i = lane + 32 * j;
        const float own = sizes[i];
        u32 rank = 0;
        for (u32 o = 0; o < laps; o++) {
          const float other = sizes[o];
          if (other >= 0.0f && (other < own || (other == own && o < i))) rank++;
        }
        if (used[j] && rank == middle) median = own;
      }
      scale = warp_max(median) * 1.4826f;  // one lane has it, the others 0
      scale = scale > LEAST_SCALE ? scale : LEAST_SCALE;
    }
    if (lane == 0) {
      out[0] = s.x0 + fastest;
      out[1] = s.x1;
      out[2] = s.x2;
      out[3] = scale;
      out[4] = scale * square_root(s.v0);
      out[5] = scale * square_root(s.v1);
      out[6] = scale * square_root(s.v2);
      out[7] = known;
    }
  }
}
