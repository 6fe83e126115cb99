//! Many races at once: a race in each lane.
//!
//! # Cost, sketched before it was written
//!
//! A car-lap has 50 cycles on each of two cores at 3 GHz for 100,000 races/s of 20 cars × 57 laps. With 16 races
//! side by side (one AVX-512 register, two of AVX2, four of SSE2 or NEON):
//!
//! | step | vector operations a car-lap (of 16 lanes) | cycles a car-lap, AVX2 |
//! |---|---:|---:|
//! | Philox, ten rounds of two 32×32→64 products | ~400 | 10 |
//! | free lap: wear, noise, decisions | ~120 | 4 |
//! | in order: a gather, then compares and blends | 16 loads + ~40 | 6 |
//! | sorting network, min and max a comparator, ~5 a car | ~40 | 1 |
//! | stops: scalar, 4 % of car-laps | – | 3 |
//!
//! So about 25 cycles, and random numbers are the largest part: one call a car-lap, all of its 128 bits used. The
//! state of 16 races (20 cars × 10 words × 16 lanes = 13 KB) stays in the first-level cache.
//!
//! # Layout
//!
//! State is `[car][lane]`; keys are `[place][lane]`, sorted; what step 2 found for a car travels to step 3 as one
//! packed word, so that following the order costs one gather.

// A lane is an index into many arrays at once.
#![allow(clippy::needless_range_loop)]

use rayon::prelude::*;

use crate::compute::philox::{Purpose, bell, philox_lanes};
use crate::compute::race_monte_carlo::*;

/// Races side by side.
pub const LANES: usize = 16;
/// Races of a unit of work.
const BATCH: usize = LANES * 16;

type Lane = [i32; LANES];

/// Simulates races `first..first + races` and writes a key a car and race: `[race][place]`, in finishing order.
///
/// Runs on the current rayon pool. A race depends on the problem, the seed and its number, on nothing else.
///
/// ```
/// # use trackside::compute::race_monte_carlo::*;
/// # use trackside::compute::cpu::race_monte_carlo::simulate;
/// # let problem = trackside::strategy::example_problem();
/// let mut keys = vec![0; 1_000 * problem.count as usize];
/// simulate(&problem, 7, 0, &mut keys)?;
/// let wins = keys.chunks(problem.count as usize).filter(|race| car_of(race[0]) == 0).count();
/// assert!(wins > 0);
/// # Ok::<(), WrongProblem>(())
/// ```
///
/// # Errors
/// If the problem holds a number outside what the engines can, or `keys` is not a whole number of races.
pub fn simulate(p: &Problem, seed: u64, first: u32, keys: &mut [i32]) -> Result<(), WrongProblem> {
    p.check()?;
    let count = p.count as usize;
    if !keys.len().is_multiple_of(count) {
        return Err(WrongProblem {
            what: "length of keys",
            value: keys.len() as i32,
        });
    }
    let run = implementation();
    let network = network(count);
    keys.par_chunks_mut(BATCH * count)
        .enumerate()
        .for_each(|(batch, keys)| {
            let first = first.wrapping_add((batch * BATCH) as u32);
            run(p, &network, seed, first, keys);
        });
    Ok(())
}

type Run = fn(&Problem, &[(u8, u8)], u64, u32, &mut [i32]);

/// The widest instructions that this processor has.
fn implementation() -> Run {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512dq")
        {
            return wide::avx512;
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return wide::avx2;
        }
    }
    baseline
}

fn baseline(p: &Problem, network: &[(u8, u8)], seed: u64, first: u32, keys: &mut [i32]) {
    batch(p, network, seed, first, keys);
}

/// The same source for wider registers.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod wide {
    use super::{Problem, batch};

    pub fn avx2(p: &Problem, network: &[(u8, u8)], seed: u64, first: u32, keys: &mut [i32]) {
        #[target_feature(enable = "avx2")]
        fn with(p: &Problem, network: &[(u8, u8)], seed: u64, first: u32, keys: &mut [i32]) {
            batch(p, network, seed, first, keys);
        }
        assert!(std::arch::is_x86_feature_detected!("avx2"));
        // SAFETY: the processor has the instructions, asserted above; the function has no other conditions.
        unsafe { with(p, network, seed, first, keys) }
    }

    pub fn avx512(p: &Problem, network: &[(u8, u8)], seed: u64, first: u32, keys: &mut [i32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn with(p: &Problem, network: &[(u8, u8)], seed: u64, first: u32, keys: &mut [i32]) {
            batch(p, network, seed, first, keys);
        }
        assert!(
            std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512dq")
        );
        // SAFETY: the processor has the instructions, asserted above; the function has no other conditions.
        unsafe { with(p, network, seed, first, keys) }
    }
}

/// Races of one unit of work, [`LANES`] at a time.
#[inline(always)]
fn batch(p: &Problem, network: &[(u8, u8)], seed: u64, first: u32, keys: &mut [i32]) {
    let count = p.count as usize;
    let mut field = Field::new();
    for (group, keys) in keys.chunks_mut(LANES * count).enumerate() {
        let first = first.wrapping_add((group * LANES) as u32);
        field.begin(p, seed, first);
        for n in p.first..=p.last {
            field.race_events(p, seed, first, n);
            field.free_laps(p, seed, first, n);
            if n == p.laps {
                field.refuse_rule_breakers(p);
            }
            field.in_order(p, n);
            sort(&mut field.keys, network);
            field.red_flags(p, seed, first, n);
        }
        for (l, race) in keys.chunks_mut(count).enumerate() {
            for (place, key) in race.iter_mut().enumerate() {
                *key = field.keys[place][l];
            }
        }
    }
}

/// Sixteen races.
struct Field {
    /// Pace of the day: base and form (ms).
    pace: [Lane; MAX_CARS],
    wear_q8: [Lane; MAX_CARS],
    slope_q8: [Lane; MAX_CARS],
    curve_q8: [Lane; MAX_CARS],
    age: [Lane; MAX_CARS],
    target: [Lane; MAX_CARS],
    early: [Lane; MAX_CARS],
    compound: [Lane; MAX_CARS],
    used: [Lane; MAX_CARS],
    changes: [Lane; MAX_CARS],
    next: [Lane; MAX_CARS],
    /// −1: runs; 0: is out.
    running: [Lane; MAX_CARS],
    packed: [[u32; LANES]; MAX_CARS],
    keys: [Lane; MAX_CARS],
    races: [Race; LANES],
    /// −1: cars queue behind a safety car.
    queues: Lane,
    /// −1: they race.
    racing: Lane,
    /// −1: a standing start.
    start: Lane,
    /// What every car's lap has added: lap, virtual safety car, standing start (ms).
    add: Lane,
    /// −1: the pit lane is open.
    open: Lane,
    pit: Lane,
    react: Lane,
    level: Lane,
    /// How far wear is slowed (bits).
    wear_shift: Lane,
}

impl Field {
    fn new() -> Field {
        let cars = [[0; LANES]; MAX_CARS];
        Field {
            pace: cars,
            wear_q8: cars,
            slope_q8: cars,
            curve_q8: cars,
            age: cars,
            target: cars,
            early: cars,
            compound: cars,
            used: cars,
            changes: cars,
            next: cars,
            running: cars,
            packed: [[0; LANES]; MAX_CARS],
            keys: cars,
            races: [Race {
                status: 0,
                left: 0,
                level: 0,
                restart: 0,
            }; LANES],
            queues: [0; LANES],
            racing: [0; LANES],
            start: [0; LANES],
            add: [0; LANES],
            open: [0; LANES],
            pit: [0; LANES],
            react: [0; LANES],
            level: [0; LANES],
            wear_shift: [0; LANES],
        }
    }

    /// Puts every lane before its first lap.
    #[inline(always)]
    fn begin(&mut self, p: &Problem, seed: u64, first: u32) {
        self.races = [Race::of(p); LANES];
        let mut order = [0; MAX_CARS];
        for (c, car) in p.cars[..p.count as usize].iter().enumerate() {
            let form = philox_lanes::<LANES>(first, 0, c as u32, Purpose::Form, seed);
            for l in 0..LANES {
                self.pace[c][l] = car.base_ms + ((bell(form[0][l]) * car.form_q10) >> 10);
            }
            for l in 0..LANES {
                let roll = [form[1][l], form[2][l], form[3][l], 0];
                let s = stint(p, car, p.first - 1, car.fitted(), 0, roll);
                self.slope_q8[c][l] = s.slope_q8;
                self.target[c][l] = s.target;
                self.early[c][l] = s.early;
                self.next[c][l] = s.next;
            }
            self.wear_q8[c] = [car.wear_q8; LANES];
            self.curve_q8[c] = [car.tyres[car.compound as usize].curve_q8; LANES];
            self.age[c] = [car.age; LANES];
            self.compound[c] = [car.compound; LANES];
            self.used[c] = [car.used | 1 << car.compound; LANES];
            self.changes[c] = [car.changes; LANES];
            self.running[c] = [-i32::from(car.running != 0); LANES];
            order[c] = start_key(car, c);
        }
        let count = p.count as usize;
        order[..count].sort_unstable();
        for place in 0..MAX_CARS {
            self.keys[place] = [if place < count {
                order[place]
            } else {
                i32::MAX
            }; LANES];
        }
    }

    /// What befalls the whole race on lap `n`.
    #[inline(always)]
    fn race_events(&mut self, p: &Problem, seed: u64, first: u32, n: i32) {
        let roll = philox_lanes::<LANES>(first, n as u32, 0, Purpose::Race, seed);
        for l in 0..LANES {
            let race = &mut self.races[l];
            race.next_lap(p, n, [roll[0][l], roll[1][l], roll[2][l], roll[3][l]]);
            let start = race.restart != 0;
            race.restart = 0;
            let status = race.status as usize & 3;
            self.queues[l] = -i32::from(race.queues());
            self.racing[l] = -i32::from(race.racing());
            self.start[l] = -i32::from(start);
            self.pit[l] = p.pit_ms[status];
            self.react[l] = p.react[status];
            self.level[l] = race.level;
            self.open[l] = mask(race.status != Status::Red as i32);
            self.add[l] = p.lap_ms[n as usize & (MAX_LAPS - 1)]
                + if start { p.start_ms } else { 0 }
                + if status == Status::Virtual as usize {
                    p.vsc_ms
                } else {
                    0
                };
            self.wear_shift[l] = [0, 1, 2, 2][status];
        }
    }

    /// Each car by itself: its free lap, whether it boxes, whether it stops.
    #[inline(always)]
    fn free_laps(&mut self, p: &Problem, seed: u64, first: u32, n: i32) {
        let wet = self.level != [0; LANES];
        for (c, car) in p.cars[..p.count as usize].iter().enumerate() {
            let roll = philox_lanes::<LANES>(first, n as u32, c as u32, Purpose::Lap, seed);
            let retire = if n == 1 { car.retire_start } else { car.retire };
            let mut water: Lane = [0; LANES];
            let mut wrong: Lane = [0; LANES];
            if wet || self.compound[c].iter().any(|&k| k > 2) {
                for l in 0..LANES {
                    let class = class(self.compound[c][l]);
                    let level = self.level[l];
                    water[l] = p.wet_ms[level as usize % 3][class as usize % 3];
                    wrong[l] = if class != level { p.cross } else { 0 };
                }
            }
            let mut boxing: Lane = [0; LANES];
            let soon_enough = mask(n + TOO_LATE <= p.laps);
            let may = mask(n < p.laps);
            let (pace, early, target) = (self.pace[c], self.early[c], self.target[c]);
            let mut age = self.age[c];
            let mut wear = self.wear_q8[c];
            let mut slope = self.slope_q8[c];
            let mut running = self.running[c];
            let (curve, mut packed) = (self.curve_q8[c], [0; LANES]);
            for l in 0..LANES {
                let (w0, w1, w2, w3) = (roll[0][l], roll[1][l], roll[2][l], roll[3][l]);
                let low = (w3 & 0xFFFF) as i32;
                let high = (w3 >> 16) as i32;
                let spread = select(self.start[l], p.start_q10, car.noise_q10);
                let noise = (bell(w0) * spread) >> 10;
                let mistake = mask(high < p.mistake) & ((p.mistake_ms * low) >> 16);
                let racing = pace[l] + (wear[l] >> 8) + noise + mistake + self.add[l] + water[l];
                let free = select(self.queues[l], p.sc_catch_ms, racing);

                age[l] += 1;
                let chance = (w1 >> 16) as i32;
                let worn = mask(age[l] >= early[l]) & mask(chance < self.react[l]) & soon_enough;
                let due = mask(age[l] >= target[l]) | worn | mask(chance < wrong[l]);
                let due = due & running[l] & may & self.open[l];
                let crew = (p.crew_ms * low) >> 16;
                let botch = mask(high < p.botch) & p.botch_ms;
                let free = free + ((self.pit[l] + car.stop_ms + crew + botch) & due);
                let need = p.pass_ms + ((p.pass_span_ms * (w1 & 0xFFFF) as i32) >> 16);
                let need = need & !self.start[l];

                let stops = mask(w2 < retire) & running[l];
                let out = stops | !running[l];
                let word = pack(free, need, out | due);
                packed[l] = word | (out as u32 & (STOPS_HERE << 13));
                running[l] &= !stops;
                boxing[l] = due & !stops;
                wear[l] += slope[l] >> self.wear_shift[l];
                slope[l] += curve[l];
            }
            self.age[c] = age;
            self.wear_q8[c] = wear;
            self.slope_q8[c] = slope;
            self.running[c] = running;
            self.packed[c] = packed;
            if boxing != [0; LANES] {
                for l in (0..LANES).filter(|l| boxing[*l] != 0) {
                    self.change_tyres(p, seed, first, n, (c, l), false);
                }
            }
        }
    }

    /// Car `c` of lane `l` takes fresh tyres at the end of lap `n`.
    #[inline(never)]
    fn change_tyres(
        &mut self,
        p: &Problem,
        seed: u64,
        first: u32,
        n: i32,
        (c, l): (usize, usize),
        red: bool,
    ) {
        let car = &p.cars[c];
        let race = &self.races[l];
        let roll = stint_roll(seed, first.wrapping_add(l as u32), n, c);
        let (used, next) = (self.used[c][l], self.next[c][l]);
        let changes = self.changes[c][l] + 1;
        let planned =
            !red && next < car.plan.count && race.level == 0 && class(self.compound[c][l]) == 0;
        let (compound, next) = if planned {
            (car.plan.stops[next as usize].compound, next + 1)
        } else {
            let raced = (used, changes);
            (compound_for(p, car, n, race.level, raced, roll[3]), next)
        };
        let tyre = &car.tyres[compound as usize];
        let on = Fitted {
            compound,
            age: 0,
            slope_q8: tyre.slope_q8,
            used,
            changes,
        };
        let s = stint(p, car, n, on, next, roll);
        self.compound[c][l] = compound;
        self.used[c][l] = used | 1 << compound;
        self.changes[c][l] = changes;
        self.wear_q8[c][l] = tyre.offset_ms << 8;
        self.slope_q8[c][l] = s.slope_q8;
        self.curve_q8[c][l] = tyre.curve_q8;
        self.age[c][l] = 0;
        self.target[c][l] = s.target;
        self.early[c][l] = s.early;
        self.next[c][l] = s.next;
    }

    /// On the last lap: who has not raced on two compounds, or stopped as often as the rules ask, is not classified.
    #[inline(always)]
    fn refuse_rule_breakers(&mut self, p: &Problem) {
        for c in 0..p.count as usize {
            for l in 0..LANES {
                if breaks_rules(p, self.used[c][l], self.changes[c][l]) {
                    self.packed[c][l] = STOPS_HERE << 13 | 1;
                }
            }
        }
    }

    /// From the leader back: who is held up, who passes.
    #[inline(always)]
    fn in_order(&mut self, p: &Problem, n: i32) {
        let gap: Lane = std::array::from_fn(|l| select(self.racing[l], p.min_gap_ms, p.sc_gap_ms));
        let gap: Lane = std::array::from_fn(|l| select(self.queues[l], p.sc_gap_ms, gap[l]));
        let lead: Lane = std::array::from_fn(|l| time_ms(self.keys[0][l]));
        let mut before: Lane = [i32::MIN / 2; LANES];
        let mut barrier: Lane = std::array::from_fn(|l| {
            select(self.queues[l], lead[l] + p.sc_lap_ms - gap[l], i32::MIN / 2)
        });
        let mut second: Lane = barrier;
        let packed = self.packed.as_flattened();
        for place in 0..p.count as usize {
            let mut word = [0; LANES];
            for l in 0..LANES {
                let car = (self.keys[place][l] & 31) as usize;
                word[l] = packed[(car * LANES + l) & (MAX_CARS * LANES - 1)];
            }
            for l in 0..LANES {
                let key = self.keys[place][l];
                let t = key >> 5;
                let free = (word[l] >> 13) as i32;
                let need = (word[l] << 1 & 0x3FFC) as i32;
                let ghost = -((word[l] & 1) as i32);
                let racing = self.racing[l];
                let close = (p.dirty_gap_ms - (t - before[l])).max(0);
                let dirty = (close * p.dirty_q8) >> 8;
                let blue = select(mask(t - lead[l] > p.reference_ms), p.blue_ms, 0);
                let c = t + free + ((dirty + blue) & racing);
                let limit = barrier[l] + gap[l];
                let passes = mask(limit - c > need) & racing;
                let floor = select(passes, second[l] + gap[l], limit);
                let held = c.max(floor);
                // Who boxes behind the safety car queues on the way in.
                let queued = select(self.queues[l], limit + free - p.sc_catch_ms, i32::MIN / 2);
                let end = select(ghost, (t + free).max(queued), held);
                let ahead = select(ghost, i32::MIN / 2, end);
                second[l] = second[l].max(barrier[l].min(ahead));
                barrier[l] = barrier[l].max(ahead);
                before[l] = t;
                let stopped = select(
                    mask(free == STOPS_HERE as i32),
                    out_ms(n, place as i32),
                    end,
                );
                let end = select(mask(t >= OUT_MS), t, stopped);
                self.keys[place][l] = (end << 5) | (key & 31);
            }
        }
    }

    /// After a red flag: everyone in line, on fresh tyres, for a standing start.
    #[inline(always)]
    fn red_flags(&mut self, p: &Problem, seed: u64, first: u32, n: i32) {
        for l in 0..LANES {
            if self.races[l].status != Status::Red as i32 {
                continue;
            }
            self.races[l].restart = 1;
            let lead = time_ms(self.keys[0][l]);
            for place in 0..p.count as usize {
                let k = self.keys[place][l];
                if time_ms(k) >= OUT_MS {
                    continue;
                }
                self.keys[place][l] = key(lead + grid_ms(place as i32), car_of(k) as i32);
                if n < p.laps {
                    self.change_tyres(p, seed, first, n, (car_of(k), l), true);
                }
            }
        }
    }
}

/// −1 where it holds: what [`select`] and `&` take, so that no lane branches.
#[inline(always)]
const fn mask(holds: bool) -> i32 {
    -(holds as i32)
}

#[inline(always)]
const fn select(mask: i32, yes: i32, no: i32) -> i32 {
    (mask & yes) | (!mask & no)
}

/// Sorts the places of every lane.
#[inline(always)]
fn sort(keys: &mut [Lane; MAX_CARS], network: &[(u8, u8)]) {
    for &(a, b) in network {
        let (a, b) = (
            usize::from(a) & (MAX_CARS - 1),
            usize::from(b) & (MAX_CARS - 1),
        );
        let (x, y) = (keys[a], keys[b]);
        for l in 0..LANES {
            keys[a][l] = x[l].min(y[l]);
            keys[b][l] = x[l].max(y[l]);
        }
    }
}

/// Batcher's odd-even merge sort of 32, less the comparators of places that no car has.
fn network(count: usize) -> Vec<(u8, u8)> {
    let mut network = Vec::new();
    let mut p = 1;
    while p < MAX_CARS {
        let mut k = p;
        while k >= 1 {
            let mut j = k % p;
            while j + k < MAX_CARS {
                for i in 0..k.min(MAX_CARS - j - k) {
                    if (i + j) / (2 * p) == (i + j + k) / (2 * p) && i + j + k < count {
                        network.push(((i + j) as u8, (i + j + k) as u8));
                    }
                }
                j += 2 * k;
            }
            k /= 2;
        }
        p *= 2;
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::compute::philox::philox;

    #[test]
    fn every_vector_width_drives_the_same_races() {
        let p = crate::strategy::example_problem();
        let count = p.count as usize;
        let network = network(count);
        let drive = |run: Run| {
            let mut keys = vec![0; 300 * count];
            run(&p, &network, 9, 0, &mut keys);
            keys
        };
        let plain = drive(baseline);
        assert_eq!(plain, drive(implementation()));
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            assert_eq!(plain, drive(wide::avx2));
        }
    }

    #[test]
    fn the_network_sorts_every_number_of_cars() {
        for count in 1..=MAX_CARS {
            let network = network(count);
            for trial in 0..200 {
                let mut keys = [[i32::MAX; LANES]; MAX_CARS];
                for (place, lanes) in keys[..count].iter_mut().enumerate() {
                    for (l, k) in lanes.iter_mut().enumerate() {
                        let at = [trial, place as u32, l as u32, 0];
                        *k = (philox(at, 3)[0] >> (trial % 31)) as i32 & i32::MAX;
                    }
                }
                let before = keys;
                sort(&mut keys, &network);
                for l in 0..LANES {
                    let mut expected: Vec<i32> = before[..count].iter().map(|k| k[l]).collect();
                    expected.sort_unstable();
                    let got: Vec<i32> = keys[..count].iter().map(|k| k[l]).collect();
                    assert_eq!(got, expected);
                }
            }
        }
    }
}
