// race_monte_carlo: the rest of the race, many times over, under each of several plans.
//
//   problems  [plans]                 Problem  `src/compute/race_monte_carlo.rs`, whose rules these are
//   keys      [plans][races][count]   i32      out: a key a car, in finishing order: time (ms) << 5 | car
//
// Races first, first + 1, … of the seed. Random numbers are Philox of (race, lap, car, purpose): plans meet the
// same safety cars and the same slow stops, and the CPU backend draws the same numbers and gives the same keys.
// Whole numbers only, so that agreement is exact, race by race.
//
// Mapping: one warp a race, four a block, grid-stride over plans × races. A lane is a car while cars drive by
// themselves (its state stays in registers for the whole race), and a place while they follow each other:
//
//   1. the race        every lane, the same; its draws are made 32 laps at a time, a lap a lane
//   2. a car a lane    noise, wear, weather, decisions; fresh tyres for the few that box
//   3. a place a lane  dirty air, blue flags: all at once; then who holds up whom, from the leader back: a chain of
//                      as many steps as there are cars, each two shuffles and a handful of whole-number operations
//   4. a place a lane  sorting the keys: bitonic, 15 steps, left out when they are in order already
//
// Bytes: 8 KB a plan from the cache, 4·count written a race: nothing. Operations a car-lap: about 110 for Philox,
// 70 for the lap, 35 in order, 6 to sort. Bound: instructions: about 500 of a warp a lap.
#include "include/race.h"
#include "include/reduce.h"

static const u32 RACE_THREADS = 128;
static const u32 RACE_WARPS = RACE_THREADS / 32;

// A car as it drives; one in each lane.
struct Driving {
  i32 pace, wear_q8, slope_q8, curve_q8, age, target, early, compound, used, changes, next;
  bool running;
};

// Fresh tyres at the end of lap n.
INLINE void change_tyres(Driving &d, const Problem &p, const Car &car, const Race &race, i32 n, u32 number, u32 lane,
                         u32 k0, u32 k1, bool red) {
  const Words roll = philox(number, (u32)n, lane, DRAW_STINT, k0, k1);
  const bool planned = !red && d.next < car.plan.count && race.level == 0 && tyre_class(d.compound) == 0;
  i32 next = d.next, compound;
  d.changes++;
  if (planned) compound = car.plan.stops[next++].compound;
  else compound = compound_for(p, car, n, race.level, d.used, d.changes, roll.w3);
  const Tyre &tyre = car.tyres[compound];
  const Fitted on = {compound, 0, tyre.slope_q8, d.used, d.changes};
  const Stint s = stint(p, car, n, on, next, roll);
  d.compound = compound;
  d.used |= 1 << compound;
  d.wear_q8 = tyre.offset_ms << 8;
  d.slope_q8 = s.slope_q8;
  d.curve_q8 = tyre.curve_q8;
  d.age = 0;
  d.target = s.target;
  d.early = s.early;
  d.next = s.next;
}

// Puts the keys of the lanes in order. No two cars' keys are equal: every way of sorting gives the same.
INLINE i32 sorted(i32 key, u32 lane) {
  const i32 below = __shfl_up_sync(ALL, key, 1);
  if (__ballot_sync(ALL, lane == 0 || below <= key) == ALL) return key;
#pragma unroll
  for (u32 k = 2; k <= 32; k <<= 1) {
#pragma unroll
    for (u32 j = k >> 1; j > 0; j >>= 1) {
      const i32 other = __shfl_xor_sync(ALL, key, (int)j);
      const bool lower = ((lane & j) == 0) == ((lane & k) == 0);
      key = lower ? least(key, other) : most(key, other);
    }
  }
  return key;
}

KERNEL(RACE_THREADS)
race_monte_carlo(const Problem *problems, i32 *keys, u32 plans, u32 races, u32 first, u32 k0, u32 k1) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const u32 items = plans * races;
  for (u32 item = blockIdx.x * RACE_WARPS + warp; item < items; item += gridDim.x * RACE_WARPS) {
    const u32 plan = item / races;
    const u32 number = first + (item - plan * races);
    const Problem &p = problems[plan];
    const Car &car = p.cars[lane];  // there are always 32; those beyond the count are zeros
    const i32 count = p.count;
    const bool is_place = (i32)lane < count;

    Race race = {p.status, p.status_left, p.level, p.restart};
    Driving d;
    {
      const Words form = philox(number, 0, lane, DRAW_FORM, k0, k1);
      const Words roll = {form.w1, form.w2, form.w3, 0};
      const Fitted on = {car.compound, car.age, car.slope_q8, car.used, car.changes};
      const Stint s = stint(p, car, p.first - 1, on, 0, roll);
      d.pace = car.base_ms + (times(bell(form.w0), car.form_q10) >> 10);
      d.slope_q8 = s.slope_q8;
      d.target = s.target;
      d.early = s.early;
      d.next = s.next;
      d.wear_q8 = car.wear_q8;
      d.curve_q8 = car.tyres[car.compound].curve_q8;
      d.age = car.age;
      d.compound = car.compound;
      d.used = car.used | 1 << car.compound;
      d.changes = car.changes;
      d.running = car.running != 0;
    }
    i32 key = sorted(is_place ? start_key(car, (i32)lane) : 0x7fffffff, lane);
    const u32 retire = car.retire;
    const i32 noise_q10 = car.noise_q10;

    Words draws = {0, 0, 0, 0};
    for (i32 n = p.first; n <= p.last; n++) {
      // 1. The race.
      const u32 ahead_by = (u32)(n - p.first) & 31;
      if (ahead_by == 0) draws = philox(number, (u32)n + lane, 0, DRAW_RACE, k0, k1);
      next_lap(race, p, n, __shfl_sync(ALL, draws.w0, ahead_by), __shfl_sync(ALL, draws.w1, ahead_by),
               __shfl_sync(ALL, draws.w2, ahead_by));
      const bool start = race.restart != 0;
      race.restart = 0;
      const bool queues = race.status >= SAFETY_CAR, racing = race.status == GREEN;

      // 2. A car a lane.
      u32 word;
      {
        const Words roll = philox(number, (u32)n, lane, DRAW_LAP, k0, k1);
        const i32 low = (i32)(roll.w3 & 0xFFFF), high = (i32)(roll.w3 >> 16), chance = (i32)(roll.w1 >> 16);
        const i32 own = tyre_class(d.compound);
        const bool damp = race.level != 0 || own != 0;
        const i32 water = damp ? p.wet_ms[race.level][own] : 0;
        const i32 wrong = own != race.level ? p.cross : 0;
        const i32 add = p.lap_ms[n & (RACE_LAPS - 1)] + (start ? p.start_ms : 0) +
                        (race.status == VIRTUAL ? p.vsc_ms : 0);
        const i32 noise = times(bell(roll.w0), start ? p.start_q10 : noise_q10) >> 10;
        const i32 mistake = high < p.mistake ? times(p.mistake_ms, low) >> 16 : 0;
        i32 free = queues ? p.sc_catch_ms : d.pace + (d.wear_q8 >> 8) + noise + mistake + add + water;
        d.age++;
        const bool worn = d.age >= d.early && chance < p.react[race.status] && n + TOO_LATE <= p.laps;
        const bool due = (d.age >= d.target || worn || chance < wrong) && d.running && n < p.laps &&
                         race.status != RED;
        if (due)
          free += p.pit_ms[race.status] + car.stop_ms + (times(p.crew_ms, low) >> 16) + (high < p.botch ? p.botch_ms : 0);
        const i32 need = start ? 0 : p.pass_ms + (times(p.pass_span_ms, (i32)(roll.w1 & 0xFFFF)) >> 16);
        const bool stops = d.running && roll.w2 < (n == 1 ? car.retire_start : retire);
        const bool out = stops || !d.running;
        word = pack(free, need, out || due) | (out ? STOPS_HERE << 13 : 0);
        d.running = d.running && !stops;
        d.wear_q8 += d.slope_q8 >> (race.status < SAFETY_CAR ? race.status : 2);
        d.slope_q8 += d.curve_q8;
        if (due && !stops) change_tyres(d, p, car, race, n, number, lane, k0, k1, false);
        if (n == p.laps && breaks_rules(p, d.used, d.changes)) word = STOPS_HERE << 13 | 1;
      }
      __syncwarp();

      // 3. A place a lane.
      {
        word = __shfl_sync(ALL, word, (u32)key & 31);
        const i32 t = key >> 5;
        const i32 free = (i32)(word >> 13);
        const bool ghost = word & 1;
        const i32 lead = __shfl_sync(ALL, t, 0);
        const i32 in_front = __shfl_up_sync(ALL, t, 1);
        const i32 close = most(p.dirty_gap_ms - (t - (lane == 0 ? FAR_BEHIND : in_front)), 0);
        const i32 dirty = times(close, p.dirty_q8) >> 8;
        const i32 blue = t - lead > p.reference_ms ? p.blue_ms : 0;
        const i32 own = t + free + (racing ? dirty + blue : 0);
        // What a pass needs; −1 marks who is in nobody's way.
        const i32 need = ghost ? -1 : (i32)(word << 1 & 0x3FFC);
        const i32 gap = racing ? p.min_gap_ms : p.sc_gap_ms;
        i32 barrier = queues ? lead + p.sc_lap_ms - gap : FAR_BEHIND;
        i32 second = barrier;
        i32 end = t + free;
        for (i32 place = 0; place < count; place++) {
          const i32 c = __shfl_sync(ALL, own, (u32)place);
          const i32 needs = __shfl_sync(ALL, need, (u32)place);
          const i32 limit = barrier + gap;
          if (needs < 0) {  // the same for the whole warp
            // Who boxes behind the safety car queues on the way in.
            if (queues && (i32)lane == place) end = most(end, limit + free - p.sc_catch_ms);
            continue;
          }
          const i32 floor = racing && limit - c > needs ? second + gap : limit;
          const i32 held = most(c, floor);
          if ((i32)lane == place) end = held;
          second = most(second, least(barrier, held));
          barrier = most(barrier, held);
        }
        if (free == (i32)STOPS_HERE) end = OUT_MS + (200 - n) * OUT_STEP_MS + (i32)lane;
        if (t >= OUT_MS) end = t;
        if (is_place) key = end << 5 | (key & 31);
      }

      // 4. The line.
      key = sorted(key, lane);
      if (race.status == RED) {  // the same for the whole warp
        race.restart = 1;
        const i32 lead = __shfl_sync(ALL, key >> 5, 0);
        const bool goes_on = is_place && key >> 5 < OUT_MS;
        u32 on = goes_on ? 1u << (key & 31) : 0;
        if (goes_on) key = (lead + 150 * (i32)lane) << 5 | (key & 31);
        for (int step = 16; step > 0; step >>= 1) on |= __shfl_xor_sync(ALL, on, step);
        if (n < p.laps && (on >> lane & 1)) change_tyres(d, p, car, race, n, number, lane, k0, k1, true);
        __syncwarp();
      }
    }
    if (is_place) keys[(u64)item * (u32)count + lane] = key;
  }
}
