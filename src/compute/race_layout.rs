//! Where the kernel finds the fields of a race (in words of 4 bytes): asserted here and, with the same numbers, in
//! `kernels/include/race.h`. Neither side compiles once they lie elsewhere.

use std::mem::{offset_of, size_of};

use super::race_monte_carlo::{Car, Plan, Problem, Stop, Tyre};

const fn at(bytes: usize, words: usize) {
    assert!(bytes == words * 4, "the kernel finds it elsewhere");
}

const _: () = {
    at(size_of::<Tyre>(), 4);
    at(offset_of!(Tyre, slope_q8), 1);
    at(offset_of!(Tyre, curve_q8), 2);
    at(offset_of!(Tyre, life), 3);
    at(size_of::<Stop>(), 2);
    at(offset_of!(Stop, compound), 1);
    at(size_of::<Plan>(), 11);
    at(offset_of!(Plan, count), 8);
    at(offset_of!(Plan, reactive), 9);
    at(offset_of!(Plan, only), 10);
    at(size_of::<Car>(), 48);
    at(offset_of!(Car, form_q10), 1);
    at(offset_of!(Car, noise_q10), 2);
    at(offset_of!(Car, wear_q16), 3);
    at(offset_of!(Car, life_q16), 4);
    at(offset_of!(Car, retire), 5);
    at(offset_of!(Car, retire_start), 6);
    at(offset_of!(Car, tyres), 7);
    at(offset_of!(Car, available), 27);
    at(offset_of!(Car, plan), 28);
    at(offset_of!(Car, time_ms), 39);
    at(offset_of!(Car, running), 40);
    at(offset_of!(Car, compound), 41);
    at(offset_of!(Car, age), 42);
    at(offset_of!(Car, wear_q8), 43);
    at(offset_of!(Car, slope_q8), 44);
    at(offset_of!(Car, used), 45);
    at(offset_of!(Car, changes), 46);
    at(offset_of!(Car, stop_ms), 47);
    at(size_of::<Problem>(), 1727);
    at(offset_of!(Problem, count), 1536);
    at(offset_of!(Problem, laps), 1537);
    at(offset_of!(Problem, first), 1538);
    at(offset_of!(Problem, last), 1539);
    at(offset_of!(Problem, lap_ms), 1540);
    at(offset_of!(Problem, reference_ms), 1668);
    at(offset_of!(Problem, min_gap_ms), 1669);
    at(offset_of!(Problem, dirty_gap_ms), 1670);
    at(offset_of!(Problem, dirty_q8), 1671);
    at(offset_of!(Problem, pass_ms), 1672);
    at(offset_of!(Problem, pass_span_ms), 1673);
    at(offset_of!(Problem, blue_ms), 1674);
    at(offset_of!(Problem, start_ms), 1675);
    at(offset_of!(Problem, start_q10), 1676);
    at(offset_of!(Problem, mistake), 1677);
    at(offset_of!(Problem, mistake_ms), 1678);
    at(offset_of!(Problem, sc_lap_ms), 1679);
    at(offset_of!(Problem, sc_catch_ms), 1680);
    at(offset_of!(Problem, sc_gap_ms), 1681);
    at(offset_of!(Problem, vsc_ms), 1682);
    at(offset_of!(Problem, pit_ms), 1683);
    at(offset_of!(Problem, crew_ms), 1687);
    at(offset_of!(Problem, botch), 1688);
    at(offset_of!(Problem, botch_ms), 1689);
    at(offset_of!(Problem, hazard), 1690);
    at(offset_of!(Problem, hazard_start), 1693);
    at(offset_of!(Problem, sc_laps), 1696);
    at(offset_of!(Problem, vsc_laps), 1698);
    at(offset_of!(Problem, wetter), 1700);
    at(offset_of!(Problem, drier), 1703);
    at(offset_of!(Problem, wet_ms), 1706);
    at(offset_of!(Problem, react), 1715);
    at(offset_of!(Problem, cross), 1719);
    at(offset_of!(Problem, two_compounds), 1720);
    at(offset_of!(Problem, min_stops), 1721);
    at(offset_of!(Problem, longest_stint_laps), 1722);
    at(offset_of!(Problem, status), 1723);
    at(offset_of!(Problem, status_left), 1724);
    at(offset_of!(Problem, level), 1725);
    at(offset_of!(Problem, restart), 1726);
};
