//! The race that is simulated many times: one state, its cars and its hazards, in whole numbers.
//!
//! Times are milliseconds in `i32`, slopes 1/256 ms, probabilities thresholds against 32 or 16 random bits. With
//! no floating point in the loop every backend gives the same races, bit by bit, whatever its compiler does.
//! What the numbers mean in racing, and how they are fitted, is the affair of the room that builds a [`Problem`].
//!
//! # A lap
//!
//! Every running car drives every lap; a lapped car's later laps count only for the order. For lap `n` of `N`:
//!
//! 1. **The race.** A neutralisation goes on or may begin; rain may come or go ([`Race::next_lap`]).
//! 2. **Each car by itself.**
//!    `free = base + form + lap[n] + wear + wet[level][class] + noise (+ mistake)`;
//!    behind a safety car `free = catch_up`; under a virtual one `free += vsc`.
//!    A car that boxes pays `pit[status]` and what its crew adds (its own pace, and luck), all of it on the in-lap.
//!    Behind a safety car it queues on the way in like everyone else.
//! 3. **In the order of the last line**, from the leader back: dirty air within `dirty_gap`, blue flags beyond a
//!    lap, and the car ahead. A car that would cross the line less than `min_gap` after the slowest car that it
//!    follows is held up, unless it would be ahead by more than it needs to pass.
//! 4. **The line.** Times are sorted anew; who boxed gets fresh tyres; after a red flag everybody does.
//!
//! # Rules
//!
//! Two dry compounds, a least number of changes of tyres, a most of laps on a set; the latter two in races that have
//! them (0: none), and then whatever a car's plan says: no set stays on for longer ([`stint`]). Who has not met the
//! others by the last lap is not classified ([`breaks_rules`]). A red flag's change of tyres counts like any other.
//!
//! A finished race is one key a car, in finishing order: [`key`], [`time_ms`], [`car_of`].

use zerocopy::{Immutable, IntoBytes};

use super::philox::{Purpose, bell, philox};

/// Most cars: five bits of a key.
pub const MAX_CARS: usize = 32;
/// Most laps of a race.
pub const MAX_LAPS: usize = 128;
/// Most stops of a plan.
pub const MAX_STOPS: usize = 4;
/// Compounds: soft, medium, hard, intermediate, wet.
pub const COMPOUNDS: usize = 5;
/// From this time on (ms, 9.3 h) a key means a car that is out.
pub const OUT_MS: i32 = 1 << 25;
/// Of two cars that are out the one that went further ranks first, by this much a lap (ms).
const OUT_STEP_MS: i32 = 1024;
/// A free lap that says "stops on this lap".
pub const STOPS_HERE: u32 = 0x7_FFFF;
/// Longest free lap that a packed car holds (ms).
const LONGEST_LAP_MS: i32 = 0x7_FFFE;
/// Longest advantage that a pass may need (ms).
const MOST_NEED_MS: i32 = 0xFFF << 2;
/// An age that no tyre reaches: no stop is planned.
pub const NEVER: i32 = 1 << 20;
/// A stint that would be followed by fewer laps than this goes to the flag instead.
const SHORTEST_TAIL: i32 = 6;
/// Nobody boxes because of a safety car with this few laps to go.
pub const TOO_LATE: i32 = 4;
/// Most changes of tyres that a rule may ask for.
pub const MOST_MIN_STOPS: i32 = 8;

/// How a set of tyres of one car behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Tyre {
    /// Loss when fresh, against the reference compound (ms).
    pub offset_ms: i32,
    /// Loss that each lap adds (1/256 ms).
    pub slope_q8: i32,
    /// Growth of that slope (1/256 ms).
    pub curve_q8: i32,
    /// Typical stint (laps).
    pub life: i32,
}

/// A stop that a plan asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Stop {
    /// The in-lap.
    pub lap: i32,
    /// Index of the compound taken.
    pub compound: i32,
}

/// What a car means to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Plan {
    pub stops: [Stop; MAX_STOPS],
    /// How many of them count.
    pub count: i32,
    /// 1: a stop may be pulled forward under a safety car.
    pub reactive: i32,
    /// 1: no stop beyond these unless the tyres are wrong for the weather or have done all that the rules let them;
    /// 0: as tyre life and the rules ask.
    pub only: i32,
}

/// A car: its pace, its tyres and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Car {
    /// Lap time without fuel on fresh reference tyres (ms).
    pub base_ms: i32,
    /// Spread of the day's form, the same on every lap (1/1024 ms per unit of the bell).
    pub form_q10: i32,
    /// Spread of a lap (1/1024 ms per unit of the bell).
    pub noise_q10: i32,
    /// Relative spread of a stint's wear (1/65536 per unit of the bell).
    pub wear_q16: i32,
    /// Relative spread of the length of a stint (1/65536 per unit of the bell).
    pub life_q16: i32,
    /// Probability of stopping on a lap, and on lap 1 (of 2³²).
    pub retire: u32,
    pub retire_start: u32,
    pub tyres: [Tyre; COMPOUNDS],
    /// Compounds that it can take (bits).
    pub available: i32,
    pub plan: Plan,
    /// Time at the last line, against any common zero (ms); below 2²⁴.
    pub time_ms: i32,
    /// 0: it is out already and ranks by `time_ms`, which counts the laps that it lacks.
    pub running: i32,
    pub compound: i32,
    /// Age of its tyres (laps).
    pub age: i32,
    /// Loss of its tyres now (1/256 ms) and what a lap adds (1/256 ms).
    pub wear_q8: i32,
    pub slope_q8: i32,
    /// Compounds that it has raced on (bits).
    pub used: i32,
    /// Changes of tyres so far, those under a red flag included.
    pub changes: i32,
    /// What its crew takes longer for a stop than others' (ms); below 0: it is quicker.
    pub stop_ms: i32,
}

impl Car {
    /// The set that it starts on.
    pub const fn fitted(&self) -> Fitted {
        Fitted {
            compound: self.compound,
            age: self.age,
            slope_q8: self.slope_q8,
            used: self.used,
            changes: self.changes,
        }
    }
}

/// What holds on the whole track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    #[default]
    Green = 0,
    Virtual = 1,
    SafetyCar = 2,
    Red = 3,
}

/// Everything that the races start from.
#[derive(Clone, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Problem {
    pub cars: [Car; MAX_CARS],
    /// How many of them there are.
    pub count: i32,
    /// Laps of the race.
    pub laps: i32,
    /// First and last lap to drive.
    pub first: i32,
    pub last: i32,
    /// What each lap adds for everyone (fuel, the track coming in; ms), by lap number.
    pub lap_ms: [i32; MAX_LAPS],
    /// A typical racing lap (ms): what lapping is measured by.
    pub reference_ms: i32,
    /// Closest that a car follows (ms).
    pub min_gap_ms: i32,
    /// Dirty air: from this gap on (ms), per ms less (1/256).
    pub dirty_gap_ms: i32,
    pub dirty_q8: i32,
    /// Advantage at the line that a pass needs: at least, and at most this much more (ms).
    pub pass_ms: i32,
    pub pass_span_ms: i32,
    /// What being lapped costs a lap (ms).
    pub blue_ms: i32,
    /// The first lap's extra, and its spread (1/1024 ms per unit of the bell).
    pub start_ms: i32,
    pub start_q10: i32,
    /// A mistake: probability (of 2¹⁶) and the most that it costs (ms).
    pub mistake: i32,
    pub mistake_ms: i32,
    /// The leader's lap behind the safety car, that of who catches up, the gap in line (ms).
    pub sc_lap_ms: i32,
    pub sc_catch_ms: i32,
    pub sc_gap_ms: i32,
    /// What a virtual safety car adds to a lap (ms).
    pub vsc_ms: i32,
    /// Time lost by a stop, by status (ms), what the crew adds at most, and a botched stop: probability (of 2¹⁶), cost.
    pub pit_ms: [i32; 4],
    pub crew_ms: i32,
    pub botch: i32,
    pub botch_ms: i32,
    /// Red flag, safety car, virtual one: probability on a lap, and on lap 1 (of 2³²).
    pub hazard: [u32; 3],
    pub hazard_start: [u32; 3],
    /// Shortest, and how many lengths there are (laps): safety car, virtual one.
    pub sc_laps: [i32; 2],
    pub vsc_laps: [i32; 2],
    /// Probability (of 2³²) that it gets wetter or drier, by level: dry, damp, wet.
    pub wetter: [u32; 3],
    pub drier: [u32; 3],
    /// Loss by level and class of tyre: slick, intermediate, wet (ms). Slicks in the dry lose nothing.
    pub wet_ms: [[i32; 3]; 3],
    /// Probability (of 2¹⁶) that tyres are changed on a lap: under each status if worn, and if wrong for the weather.
    pub react: [i32; 4],
    pub cross: i32,
    /// 1: two dry compounds must be raced on, unless it was wet.
    pub two_compounds: i32,
    /// Changes of tyres that every car must make, in the wet too; 0: no such rule.
    pub min_stops: i32,
    /// Laps that a set may do, those of before it was fitted included; 0: no such rule.
    pub longest_stint_laps: i32,
    /// How it stands: status, laps that it will last yet, wetness, standing start.
    pub status: i32,
    pub status_left: i32,
    pub level: i32,
    pub restart: i32,
}

impl Problem {
    /// Whether every number is one that the engines can hold.
    ///
    /// # Errors
    /// Names the field that is not.
    pub fn check(&self) -> Result<(), WrongProblem> {
        let wrong = |what, value: i32| Err(WrongProblem { what, value });
        if !(1..=MAX_CARS as i32).contains(&self.count) {
            return wrong("count", self.count);
        }
        if !(1..MAX_LAPS as i32).contains(&self.laps) {
            return wrong("laps", self.laps);
        }
        if self.first < 1 || self.last > self.laps || self.first > self.last + 1 {
            return wrong("first", self.first);
        }
        let small: [(&'static str, i32, i32); 13] = [
            ("reference_ms", self.reference_ms, 400_000),
            ("min_gap_ms", self.min_gap_ms, 10_000),
            ("dirty_gap_ms", self.dirty_gap_ms, 10_000),
            ("dirty_q8", self.dirty_q8, 1 << 12),
            ("pass_ms", self.pass_ms, 100_000),
            ("pass_span_ms", self.pass_span_ms, 30_000),
            ("sc_lap_ms", self.sc_lap_ms, 500_000),
            ("sc_catch_ms", self.sc_catch_ms, 500_000),
            ("vsc_ms", self.vsc_ms, 200_000),
            ("start_ms", self.start_ms, 60_000),
            ("start_q10", self.start_q10, 1 << 20),
            ("min_stops", self.min_stops, MOST_MIN_STOPS),
            (
                "longest_stint_laps",
                self.longest_stint_laps,
                MAX_LAPS as i32,
            ),
        ];
        for (what, value, most) in small {
            if !(0..=most).contains(&value) {
                return wrong(what, value);
            }
        }
        if !(0..=2).contains(&self.level) {
            return wrong("level", self.level);
        }
        if !(0..=3).contains(&self.status) {
            return wrong("status", self.status);
        }
        // The batch engine does not look at it while it is dry and everybody is on slicks.
        if self.wet_ms[0][0] != 0 {
            return wrong("wet_ms[0][0]", self.wet_ms[0][0]);
        }
        for car in &self.cars[..self.count as usize] {
            if !(0..COMPOUNDS as i32).contains(&car.compound) {
                return wrong("cars.compound", car.compound);
            }
            if !(0..1 << 24).contains(&car.time_ms) {
                return wrong("cars.time_ms", car.time_ms);
            }
            if !(20_000..400_000).contains(&car.base_ms) {
                return wrong("cars.base_ms", car.base_ms);
            }
            if !(0..1 << 20).contains(&car.noise_q10) {
                return wrong("cars.noise_q10", car.noise_q10);
            }
            if !(0..=MAX_STOPS as i32).contains(&car.plan.count) {
                return wrong("cars.plan.count", car.plan.count);
            }
            for stop in &car.plan.stops[..car.plan.count as usize] {
                if !(0..COMPOUNDS as i32).contains(&stop.compound) {
                    return wrong("cars.plan.stops.compound", stop.compound);
                }
            }
            if !(0..=MAX_LAPS as i32).contains(&car.changes) {
                return wrong("cars.changes", car.changes);
            }
            if !(-5_000..=5_000).contains(&car.stop_ms) {
                return wrong("cars.stop_ms", car.stop_ms);
            }
            if car.available & 0b111 == 0 {
                return wrong("cars.available", car.available);
            }
            for tyre in &car.tyres {
                if !(0..1 << 18).contains(&tyre.slope_q8) {
                    return wrong("cars.tyres.slope_q8", tyre.slope_q8);
                }
                if !(1..=MAX_LAPS as i32).contains(&tyre.life) {
                    return wrong("cars.tyres.life", tyre.life);
                }
            }
        }
        Ok(())
    }
}

/// A number that the engines cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "race problem: {what} is {value}, outside what the engines hold; see Problem's docs for its unit"
)]
pub struct WrongProblem {
    pub what: &'static str,
    pub value: i32,
}

/// What a finished car is written as: smaller is ahead.
#[inline(always)]
pub const fn key(time_ms: i32, car: i32) -> i32 {
    (time_ms << 5) | car
}

/// Time of a key (ms); from [`OUT_MS`] on the car is out.
#[inline(always)]
pub const fn time_ms(key: i32) -> i32 {
    key >> 5
}

/// Car of a key.
#[inline(always)]
pub const fn car_of(key: i32) -> usize {
    (key & 31) as usize
}

/// Time of a car that stops on lap `n`, last seen in place `p`.
#[inline(always)]
pub const fn out_ms(n: i32, p: i32) -> i32 {
    OUT_MS + (200 - n) * OUT_STEP_MS + p
}

/// Where a car starts: on the grid, on the road, or out already, ranked by its time.
#[inline]
pub const fn start_key(car: &Car, index: usize) -> i32 {
    let time = if car.running != 0 {
        car.time_ms
    } else {
        OUT_MS + 200 * OUT_STEP_MS + (car.time_ms & 0xFFFFF)
    };
    key(time, index as i32)
}

/// Gap to the leader of place `p` when a race is started anew (ms).
#[inline(always)]
pub const fn grid_ms(p: i32) -> i32 {
    150 * p
}

/// A free lap (ms), what a pass needs (ms) and whether the car is out of everybody's way (in the pits, or out).
#[inline(always)]
pub fn pack(free_ms: i32, need_ms: i32, ghost: i32) -> u32 {
    let free = free_ms.clamp(0, LONGEST_LAP_MS) as u32;
    let need = (need_ms.min(MOST_NEED_MS) >> 2) as u32;
    free << 13 | need << 1 | (ghost & 1) as u32
}

/// Class of tyre: slick 0, intermediate 1, wet 2.
#[inline(always)]
pub const fn class(compound: i32) -> i32 {
    if compound < 3 { 0 } else { compound - 2 }
}

/// Whether the rule of two dry compounds is still to be met.
#[inline(always)]
pub const fn owes(p: &Problem, used: i32) -> bool {
    let dry = used & 0b111;
    p.two_compounds != 0 && used & 0b11000 == 0 && dry & (dry - 1) == 0
}

/// Whether a car that comes to the flag like this has broken a rule.
#[inline(always)]
pub const fn breaks_rules(p: &Problem, used: i32, changes: i32) -> bool {
    owes(p, used) || changes < p.min_stops
}

/// Stops that the rules still ask for with `left` laps to go on a set `age` laps old: for the longest stint's sake, and
/// in all. A number that can no longer be reached is not gone after.
pub const fn owed_stops(p: &Problem, left: i32, age: i32, changes: i32) -> (i32, i32) {
    let longest = p.longest_stint_laps;
    let rest = longest - age;
    let over = left - if rest > 1 { rest } else { 1 };
    let by_stint = if longest > 0 && over > 0 {
        (over + longest - 1) / longest
    } else {
        0
    };
    let lack = p.min_stops - changes;
    let in_all = if lack > by_stint && lack < left {
        lack
    } else {
        by_stint
    };
    (by_stint, in_all)
}

/// A set of tyres on a car, and what it has raced on before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fitted {
    pub compound: i32,
    /// Laps on it, those of before it was fitted included.
    pub age: i32,
    pub slope_q8: i32,
    /// Compounds before it (bits).
    pub used: i32,
    /// Changes of tyres, the one to this set included.
    pub changes: i32,
}

/// A stint as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stint {
    pub slope_q8: i32,
    /// Age at which it boxes (laps).
    pub target: i32,
    /// Age from which it boxes under a safety car (laps).
    pub early: i32,
    /// The plan's next stop.
    pub next: i32,
}

/// A stint of `car` that begins or goes on after lap `n`.
///
/// It ends where the plan says, else where tyre life and the rules do: stops that a rule asks for share what is left
/// of the race, and a stint is stretched by up to a quarter of the tyres' life if that saves a stop.
pub fn stint(p: &Problem, car: &Car, n: i32, on: Fitted, next: i32, roll: [u32; 4]) -> Stint {
    let Fitted { compound, age, .. } = on;
    let factor = (bell(roll[0]) * car.wear_q16) >> 8;
    let slope_q8 = (on.slope_q8 + ((on.slope_q8 * factor) >> 8)).max(0);
    let mut next = next;
    while next < car.plan.count && car.plan.stops[next as usize].lap <= n {
        next += 1;
    }
    let left = p.laps - n;
    let flag = age + left;
    let longest = p.longest_stint_laps;
    // A set that has done all it may comes off on the next lap.
    let most = if longest > 0 {
        longest.max(age + 1)
    } else {
        NEVER
    };
    let (by_stint, owed) = owed_stops(p, left, age, on.changes);
    if next < car.plan.count {
        let wait = car.plan.stops[next as usize].lap - n;
        let early = if car.plan.reactive != 0 {
            age + (wait + 1) / 2
        } else {
            NEVER
        };
        // Not so early that the stints after it could not reach the flag.
        let sets = by_stint.max(car.plan.count - next);
        let early = early.max(if longest > 0 {
            flag - sets * longest
        } else {
            0
        });
        return Stint {
            slope_q8,
            target: (age + wait).min(most),
            early,
            next,
        };
    }
    if car.plan.only != 0 {
        return Stint {
            slope_q8,
            target: most,
            early: NEVER,
            next,
        };
    }
    let life = car.tyres[compound as usize].life;
    let life = (life + ((life * bell(roll[1]) * car.life_q16) >> 16)).max(2);
    let spread = (roll[2] >> 12 & 3) as i32;
    let mut target = if life > age { life } else { age + 1 + spread };
    if owes(p, on.used | 1 << compound) && p.level_is_dry(compound) {
        target = target.min(flag - 1 - spread).max(age + 1);
    } else if owed == 0 && target + SHORTEST_TAIL > flag {
        target = NEVER;
    }
    let mut least = 0;
    if owed > 0 {
        let share = age + (left + owed) / (owed + 1) + spread;
        target = target.min(share).min(flag - owed);
        let saves_a_stop = flag - by_stint * longest;
        if by_stint > 0 && saves_a_stop * 4 <= life * 5 {
            least = saves_a_stop;
        }
        target = target.max(least).min(most).max(age + 1);
    }
    let early = if target < NEVER {
        ((target * 115) >> 8).max(4)
    } else {
        ((life * 154) >> 8).max(8)
    };
    Stint {
        slope_q8,
        target,
        early: early.max(least),
        next,
    }
}

impl Problem {
    #[inline(always)]
    const fn level_is_dry(&self, compound: i32) -> bool {
        class(compound) == 0
    }
}

/// The compound that tyre life asks for after lap `n`, at the change of that number: of those that last for their share
/// of what is left the softest.
pub fn compound_for(
    p: &Problem,
    car: &Car,
    n: i32,
    level: i32,
    (used, changes): (i32, i32),
    roll: u32,
) -> i32 {
    if level > 0 {
        return level + 2;
    }
    let left = p.laps - n;
    let (_, owed) = owed_stops(p, left, 0, changes);
    // A division for those alone who owe a stop: every car that boxes comes by here.
    let share = if owed > 0 {
        (left + owed) / (owed + 1)
    } else {
        left
    };
    let owing = owes(p, used);
    let mut best = -1;
    for c in 0..3 {
        let legal = car.available >> c & 1 != 0 && !(owing && used & 0b111 == 1 << c);
        if !legal {
            continue;
        }
        let life = car.tyres[c as usize].life;
        if (life * (256 + (roll & 63) as i32)) >> 8 >= share {
            return c;
        }
        if best < 0 || life > car.tyres[best as usize].life {
            best = c;
        }
    }
    if best >= 0 {
        best
    } else {
        // Nothing legal is left: the rule is broken rather than the car parked.
        (car.available & 0b111).trailing_zeros() as i32
    }
}

/// What the whole race is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race {
    pub status: i32,
    /// Laps that the status lasts yet, this one included.
    pub left: i32,
    pub level: i32,
    /// A standing start is due.
    pub restart: i32,
}

impl Race {
    /// Before the first lap.
    pub const fn of(p: &Problem) -> Race {
        Race {
            status: p.status,
            left: p.status_left,
            level: p.level,
            restart: p.restart,
        }
    }

    /// What holds on lap `n`.
    #[inline]
    pub fn next_lap(&mut self, p: &Problem, n: i32, roll: [u32; 4]) {
        if self.left > 0 {
            self.left -= 1;
        } else {
            let hazard = if n == 1 { &p.hazard_start } else { &p.hazard };
            let length = |[least, span]: [i32; 2]| least + (((roll[1] >> 16) as i32 * span) >> 16);
            let (red, sc) = (hazard[0], hazard[0].saturating_add(hazard[1]));
            (self.status, self.left) = if roll[0] < red {
                (Status::Red as i32, 0)
            } else if roll[0] < sc {
                (Status::SafetyCar as i32, length(p.sc_laps) - 1)
            } else if roll[0] < sc.saturating_add(hazard[2]) {
                (Status::Virtual as i32, length(p.vsc_laps) - 1)
            } else {
                (Status::Green as i32, 0)
            };
        }
        let level = self.level as usize;
        if roll[2] < p.wetter[level] {
            self.level = (self.level + 1).min(2);
        } else if roll[2] > u32::MAX - p.drier[level] {
            self.level = (self.level - 1).max(0);
        }
    }

    /// Whether cars race on this lap.
    #[inline(always)]
    pub const fn racing(&self) -> bool {
        self.status == Status::Green as i32
    }

    /// Whether they queue behind a safety car on this lap.
    #[inline(always)]
    pub const fn queues(&self) -> bool {
        self.status >= Status::SafetyCar as i32
    }
}

/// Whether a car boxes on lap `n`, tyres `age` laps old at its end; `roll` has 16 bits.
#[inline(always)]
pub const fn boxes(
    p: &Problem,
    race: &Race,
    n: i32,
    tyre: (i32, i32, i32, i32),
    roll: i32,
) -> bool {
    let (compound, age, target, early) = tyre;
    let status = race.status;
    let worn = age >= early && n + TOO_LATE <= p.laps && roll < p.react[status as usize];
    let wrong = class(compound) != race.level && roll < p.cross;
    n < p.laps && status != Status::Red as i32 && (age >= target || worn || wrong)
}

/// The words of a stint that begins after lap `n`.
#[inline]
pub fn stint_roll(seed: u64, race: u32, n: i32, car: usize) -> [u32; 4] {
    philox([race, n as u32, car as u32, Purpose::Stint as u32], seed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn slicks_that_lose_in_the_dry_are_refused() {
        let mut p = crate::strategy::example_problem();
        assert_eq!(p.check(), Ok(()));
        p.wet_ms[0][0] = 1;
        assert_eq!(p.check().unwrap_err().what, "wet_ms[0][0]");
    }
}
