//! A circuit made ready: its line, a profile for each manner of driving, and what a car passes.

use super::circuit::{Circuit, Line};
use super::physics::{Manner, Motion, Profile};

/// Something at the side of the road.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mark {
    /// End of mini-sector `k`, counted over the lap.
    Mini(usize),
    /// The last chance to call a car in.
    Decide,
    PitEntry,
    PitExit,
    /// The line.
    Line,
}

/// Where a car is called in at the latest (fraction of the lap).
const DECIDE_AT: f64 = 0.8;
/// Speed trap (fraction of the lap).
const TRAP_AT: f64 = 0.985;

pub(super) struct Track {
    pub circuit: &'static Circuit,
    pub line: Line,
    /// By `Manner as usize`.
    profiles: Vec<Profile>,
    marks: Vec<Vec<(f64, Mark)>>,
    /// Mini-sectors in a lap.
    pub minis: usize,
}

const MANNERS: [Manner; 5] = [
    Manner::Flying,
    Manner::Start,
    Manner::In,
    Manner::Out,
    Manner::OutIn,
];

impl Track {
    pub fn of(circuit: &'static Circuit) -> Track {
        let line = Line::of(circuit);
        let profiles: Vec<Profile> = MANNERS
            .iter()
            .map(|m| Profile::solve(circuit, &line, *m))
            .collect();
        let marks = MANNERS
            .iter()
            .zip(&profiles)
            .map(|(manner, profile)| marks(circuit, &line, *manner, profile))
            .collect();
        let minis = circuit.mini_sectors.iter().sum();
        Track {
            circuit,
            line,
            profiles,
            marks,
            minis,
        }
    }

    pub fn profile(&self, manner: Manner) -> &Profile {
        &self.profiles[manner as usize]
    }

    /// What a car passes in a lap driven in that manner: time into the lap (s), what.
    pub fn marks(&self, manner: Manner) -> &[(f64, Mark)] {
        &self.marks[manner as usize]
    }

    /// The quickest lap there is (s).
    pub fn reference_s(&self) -> f64 {
        self.profile(Manner::Flying).duration()
    }

    pub fn motion(&self, manner: Manner, tau: f64) -> Motion {
        self.profile(manner).at(tau)
    }

    /// Speed in the trap at full pace (m/s).
    pub fn trap_speed(&self, manner: Manner) -> f64 {
        let profile = self.profile(manner);
        profile
            .at(profile.time_at(TRAP_AT * self.line.length))
            .speed
    }

    /// The sector whose last mini-sector is `k`.
    pub fn sector_ending(&self, k: usize) -> Option<usize> {
        let [a, b, c] = self.circuit.mini_sectors;
        [a, a + b, a + b + c].iter().position(|end| *end == k + 1)
    }

    /// Marshals' sector (1 …) at `s` metres.
    pub fn marshal_sector(&self, s: f64) -> i16 {
        1 + (s / self.line.length * 16.0) as i16 % 16
    }

    /// Whether `s` lies in a DRS zone.
    pub fn in_drs_zone(&self, s: f64) -> bool {
        let at = s / self.line.length;
        self.circuit
            .drs
            .iter()
            .any(|(from, to)| (*from..*to).contains(&at))
    }

    /// Whether a car at `s` in a lap of that manner is in the pit lane.
    pub fn in_lane(&self, manner: Manner, s: f64) -> bool {
        (manner.comes_out() && s < self.circuit.pit_exit_m)
            || (manner.goes_in() && s > self.line.length - self.circuit.pit_entry_m)
    }
}

fn marks(circuit: &Circuit, line: &Line, manner: Manner, profile: &Profile) -> Vec<(f64, Mark)> {
    let mut out = Vec::new();
    let [one, two] = circuit.sector_ends;
    let mut k = 0;
    for (minis, (from, to)) in circuit
        .mini_sectors
        .iter()
        .zip([(0.0, one), (one, two), (two, 1.0)])
    {
        for i in 1..=*minis {
            let s = line.length * (from + (to - from) * i as f64 / *minis as f64);
            out.push((profile.time_at(s), Mark::Mini(k)));
            k += 1;
        }
    }
    out.push((profile.time_at(line.length * DECIDE_AT), Mark::Decide));
    if manner.goes_in() {
        out.push((
            profile.time_at(line.length - circuit.pit_entry_m),
            Mark::PitEntry,
        ));
    }
    if manner.comes_out() {
        out.push((profile.time_at(circuit.pit_exit_m), Mark::PitExit));
    }
    out.push((profile.duration(), Mark::Line));
    // Stable: at the line, the last mini-sector ends before the lap does.
    out.sort_by(|a, b| a.0.total_cmp(&b.0));
    out
}
