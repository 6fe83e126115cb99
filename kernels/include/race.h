// The race that is simulated, in whole numbers: what `src/compute/race_monte_carlo.rs` says, word for word. The
// structs have its layout; what the fields mean is written there.
#pragma once
#include "philox.h"

static const i32 RACE_CARS = 32;
static const i32 RACE_LAPS = 128;
static const i32 OUT_MS = 1 << 25;
static const i32 OUT_STEP_MS = 1024;
static const u32 STOPS_HERE = 0x7FFFFu;
static const i32 LONGEST_LAP_MS = 0x7FFFE;
static const i32 MOST_NEED_MS = 0xFFF << 2;
static const i32 NEVER = 1 << 20;
static const i32 SHORTEST_TAIL = 6;
static const i32 TOO_LATE = 4;
static const i32 FAR_BEHIND = -(1 << 30);

enum Status : i32 { GREEN = 0, VIRTUAL = 1, SAFETY_CAR = 2, RED = 3 };

struct Tyre {
  i32 offset_ms, slope_q8, curve_q8, life;
};
struct Stop {
  i32 lap, compound;
};
struct Plan {
  Stop stops[4];
  i32 count, reactive, only;
};
struct Car {
  i32 base_ms, form_q10, noise_q10, wear_q16, life_q16;
  u32 retire, retire_start;
  Tyre tyres[5];
  i32 available;
  Plan plan;
  i32 time_ms, running, compound, age, wear_q8, slope_q8, used, changes, stop_ms;
};
struct Problem {
  Car cars[RACE_CARS];
  i32 count, laps, first, last;
  i32 lap_ms[RACE_LAPS];
  i32 reference_ms, min_gap_ms, dirty_gap_ms, dirty_q8, pass_ms, pass_span_ms, blue_ms, start_ms, start_q10;
  i32 mistake, mistake_ms, sc_lap_ms, sc_catch_ms, sc_gap_ms, vsc_ms;
  i32 pit_ms[4];
  i32 crew_ms, botch, botch_ms;
  u32 hazard[3], hazard_start[3];
  i32 sc_laps[2], vsc_laps[2];
  u32 wetter[3], drier[3];
  i32 wet_ms[3][3];
  i32 react[4];
  i32 cross, two_compounds, min_stops, longest_stint_laps, status, status_left, level, restart;
};
// Words of 4 bytes, as `src/compute/race_layout.rs` asserts them.
#define SIZE(type, words) static_assert(sizeof(type) == (words) * 4, #type " is laid out as in Rust")
#ifdef __CUDACC_RTC__
// NVRTC has no offsetof: it checks the sizes, and the host's compiler, with the same header, where each field lies.
#define AT(type, field, words) static_assert(sizeof(type) > (words) * 4, #type " is long enough")
#else
#define AT(type, field, words) \
  static_assert(__builtin_offsetof(type, field) == (words) * 4, #type "." #field " lies where Rust has it")
#endif
SIZE(Tyre, 4); AT(Tyre, slope_q8, 1); AT(Tyre, curve_q8, 2); AT(Tyre, life, 3); SIZE(Stop, 2);
AT(Stop, compound, 1); SIZE(Plan, 11); AT(Plan, count, 8); AT(Plan, reactive, 9); AT(Plan, only, 10); SIZE(Car, 48);
AT(Car, form_q10, 1); AT(Car, noise_q10, 2); AT(Car, wear_q16, 3); AT(Car, life_q16, 4); AT(Car, retire, 5);
AT(Car, retire_start, 6); AT(Car, tyres, 7); AT(Car, available, 27); AT(Car, plan, 28); AT(Car, time_ms, 39);
AT(Car, running, 40); AT(Car, compound, 41); AT(Car, age, 42); AT(Car, wear_q8, 43); AT(Car, slope_q8, 44);
AT(Car, used, 45); AT(Car, changes, 46); AT(Car, stop_ms, 47); SIZE(Problem, 1727); AT(Problem, count, 1536);
AT(Problem, laps, 1537); AT(Problem, first, 1538); AT(Problem, last, 1539); AT(Problem, lap_ms, 1540);
AT(Problem, reference_ms, 1668); AT(Problem, min_gap_ms, 1669); AT(Problem, dirty_gap_ms, 1670);
AT(Problem, dirty_q8, 1671); AT(Problem, pass_ms, 1672); AT(Problem, pass_span_ms, 1673);
AT(Problem, blue_ms, 1674); AT(Problem, start_ms, 1675); AT(Problem, start_q10, 1676); AT(Problem, mistake, 1677);
AT(Problem, mistake_ms, 1678); AT(Problem, sc_lap_ms, 1679); AT(Problem, sc_catch_ms, 1680);
AT(Problem, sc_gap_ms, 1681); AT(Problem, vsc_ms, 1682); AT(Problem, pit_ms, 1683); AT(Problem, crew_ms, 1687);
AT(Problem, botch, 1688); AT(Problem, botch_ms, 1689); AT(Problem, hazard, 1690); AT(Problem, hazard_start, 1693);
AT(Problem, sc_laps, 1696); AT(Problem, vsc_laps, 1698); AT(Problem, wetter, 1700); AT(Problem, drier, 1703);
AT(Problem, wet_ms, 1706); AT(Problem, react, 1715); AT(Problem, cross, 1719); AT(Problem, two_compounds, 1720);
AT(Problem, min_stops, 1721); AT(Problem, longest_stint_laps, 1722); AT(Problem, status, 1723);
AT(Problem, status_left, 1724); AT(Problem, level, 1725); AT(Problem, restart, 1726);
#undef SIZE
#undef AT

// Products that wrap, as in Rust.
INLINE i32 times(i32 a, i32 b) { return (i32)((u32)a * (u32)b); }
INLINE i32 least(i32 a, i32 b) { return a < b ? a : b; }
INLINE i32 most(i32 a, i32 b) { return a > b ? a : b; }
INLINE u32 capped_sum(u32 a, u32 b) { return a + b < a ? 0xffffffffu : a + b; }

INLINE i32 tyre_class(i32 compound) { return compound < 3 ? 0 : compound - 2; }

INLINE bool owes(const Problem &p, i32 used) {
  const i32 dry = used & 7;
  return p.two_compounds != 0 && (used & 0x18) == 0 && (dry & (dry - 1)) == 0;
}

INLINE bool breaks_rules(const Problem &p, i32 used, i32 changes) { return owes(p, used) || changes < p.min_stops; }

struct Owed {
  i32 by_stint, in_all;
};

// Stops that the rules still ask for.
INLINE Owed owed_stops(const Problem &p, i32 left, i32 age, i32 changes) {
  Owed o = {0, 0};
  const i32 longest = p.longest_stint_laps, over = left - most(longest - age, 1), lack = p.min_stops - changes;
  if (longest > 0 && over > 0) o.by_stint = (over + longest - 1) / longest;
  o.in_all = lack > o.by_stint && lack < left ? lack : o.by_stint;
  return o;
}

INLINE i32 start_key(const Car &car, i32 index) {
  const i32 time = car.running != 0 ? car.time_ms : OUT_MS + 200 * OUT_STEP_MS + (car.time_ms & 0xFFFFF);
  return time << 5 | index;
}

INLINE u32 pack(i32 free_ms, i32 need_ms, bool ghost) {
  const u32 free = (u32)most(0, least(free_ms, LONGEST_LAP_MS));
  const u32 need = (u32)(least(need_ms, MOST_NEED_MS) >> 2);
  return free << 13 | need << 1 | (u32)ghost;
}

struct Stint {
  i32 slope_q8, target, early, next;
};

struct Fitted {
  i32 compound, age, slope_q8, used, changes;
};

// A stint that begins or goes on after lap n.
INLINE Stint stint(const Problem &p, const Car &car, i32 n, const Fitted &on, i32 next, const Words &roll) {
  Stint s;
  const i32 age = on.age, factor = times(bell(roll.w0), car.wear_q16) >> 8;
  s.slope_q8 = most(on.slope_q8 + (times(on.slope_q8, factor) >> 8), 0);
  while (next < car.plan.count && car.plan.stops[next].lap <= n) next++;
  s.next = next;
  const i32 left = p.laps - n, flag = age + left, longest = p.longest_stint_laps;
  const i32 limit = longest > 0 ? most(longest, age + 1) : NEVER;
  const Owed owed = owed_stops(p, left, age, on.changes);
  if (next < car.plan.count) {
    const i32 wait = car.plan.stops[next].lap - n;
    s.target = least(age + wait, limit);
    s.early = car.plan.reactive != 0 ? age + (wait + 1) / 2 : NEVER;
    s.early = most(s.early, longest > 0 ? flag - times(most(owed.by_stint, car.plan.count - next), longest) : 0);
    return s;
  }
  if (car.plan.only != 0) {
    s.target = limit;
    s.early = NEVER;
    return s;
  }
  const i32 typical = car.tyres[on.compound].life;
  const i32 life = most(typical + (times(times(typical, bell(roll.w1)), car.life_q16) >> 16), 2);
  const i32 spread = (i32)(roll.w2 >> 12 & 3);
  s.target = life > age ? life : age + 1 + spread;
  if (owes(p, on.used | 1 << on.compound) && tyre_class(on.compound) == 0)
    s.target = most(least(s.target, flag - 1 - spread), age + 1);
  else if (owed.in_all == 0 && s.target + SHORTEST_TAIL > flag) s.target = NEVER;
  i32 from = 0;
  if (owed.in_all > 0) {
    const i32 share = age + (left + owed.in_all) / (owed.in_all + 1) + spread;
    const i32 saves = flag - times(owed.by_stint, longest);
    if (owed.by_stint > 0 && saves * 4 <= life * 5) from = saves;
    s.target = most(least(s.target, least(share, flag - owed.in_all)), from);
    s.target = most(least(s.target, limit), age + 1);
  }
  s.early = s.target < NEVER ? most(s.target * 115 >> 8, 4) : most(life * 154 >> 8, 8);
  s.early = most(s.early, from);
  return s;
}

// The compound that tyre life asks for after lap n, at the change of that number.
INLINE i32 compound_for(const Problem &p, const Car &car, i32 n, i32 level, i32 used, i32 changes, u32 roll) {
  if (level > 0) return level + 2;
  const i32 left = p.laps - n, owed = owed_stops(p, left, 0, changes).in_all;
  const i32 share = owed > 0 ? (left + owed) / (owed + 1) : left;
  const bool owing = owes(p, used);
  i32 best = -1, best_life = 0;
  for (i32 c = 0; c < 3; c++) {
    if (!(car.available >> c & 1) || (owing && (used & 7) == 1 << c)) continue;
    const i32 life = car.tyres[c].life;
    if (times(life, 256 + (i32)(roll & 63)) >> 8 >= share) return c;
    if (best < 0 || life > best_life) {
      best = c;
      best_life = life;
    }
  }
  return best >= 0 ? best : __ffs((u32)(car.available & 7)) - 1;
}

struct Race {
  i32 status, left, level, restart;
};

// What holds on lap n.
INLINE void next_lap(Race &race, const Problem &p, i32 n, u32 roll0, u32 roll1, u32 roll2) {
  if (race.left > 0) {
    race.left--;
  } else {
    const u32 *hazard = n == 1 ? p.hazard_start : p.hazard;
    const u32 red = hazard[0], sc = capped_sum(red, hazard[1]), vsc = capped_sum(sc, hazard[2]);
    const i32 share = (i32)(roll1 >> 16);
    if (roll0 < red) {
      race.status = RED;
      race.left = 0;
    } else if (roll0 < sc) {
      race.status = SAFETY_CAR;
      race.left = p.sc_laps[0] + (times(share, p.sc_laps[1]) >> 16) - 1;
    } else if (roll0 < vsc) {
      race.status = VIRTUAL;
      race.left = p.vsc_laps[0] + (times(share, p.vsc_laps[1]) >> 16) - 1;
    } else {
      race.status = GREEN;
      race.left = 0;
    }
  }
  const i32 level = race.level;
  if (roll2 < p.wetter[level]) race.level = least(level + 1, 2);
  else if (roll2 > 0xffffffffu - p.drier[level]) race.level = most(level - 1, 0);
}
