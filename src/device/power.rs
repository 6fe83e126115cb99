//! Power mode and clocks of a Jetson, and what of them costs latency.
//!
//! `nvpmodel` caps clocks and switches cores off to stay within so many watts; below the cap, clocks follow the
//! load. Telemetry comes in bursts 50 times a second: a GPU that went to sleep between two of them takes its time
//! to wake up. `jetson_clocks` holds all clocks at their caps.

use std::path::Path;

use serde::Serialize;

use super::clocks::{Clock, Clocks, CpuClock};
use super::readings::text;

/// A power mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PowerMode {
    pub id: u32,
    /// As in nvpmodel's configuration, such as `MAXN` or `MODE_30W`; empty where that cannot be read.
    pub name: String,
    /// The mode without a cap, where there is one: its id and name.
    pub unlimited: Option<(u32, String)>,
}

/// Power mode and clocks. A machine that is no Jetson has no mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Power {
    pub mode: Option<PowerMode>,
    #[serde(flatten)]
    pub clocks: Clocks,
}

/// Something that costs latency, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub what: String,
    pub remedy: String,
}

impl Power {
    /// Reads everything below `root`.
    pub fn take(root: &Path) -> Power {
        Power {
            mode: mode(root),
            clocks: Clocks::take(root),
        }
    }

    /// What costs latency, worst first.
    pub fn costs(&self) -> Vec<Cost> {
        let mut costs: Vec<Cost> = self.mode.iter().filter_map(PowerMode::cost).collect();
        if let Some(gpu) = self.clocks.gpu {
            costs.extend(capped("GPU", gpu));
            costs.extend(follows("GPU", gpu));
        }
        // On other machines the processor's clocks are nobody's choice.
        if self.mode.is_some() {
            for (name, clock) in groups(&self.clocks.cpus) {
                costs.extend(capped(&name, clock));
                costs.extend(follows(&name, clock));
            }
        }
        if let Some(memory) = self.clocks.memory {
            costs.extend(capped("memory", memory.clock));
            // It is above its least even while nobody holds it: what counts is whether it may sink.
            if memory.held == Some(false) {
                costs.extend(follows("memory", memory.clock));
            }
        }
        costs
    }
}

impl PowerMode {
    fn cost(&self) -> Option<Cost> {
        let (free, free_name) = self.unlimited.as_ref()?;
        (self.id != *free).then(|| Cost {
            what: format!(
                "power mode {} ({}) caps clocks and cores",
                self.name, self.id
            ),
            remedy: format!(
                "sudo nvpmodel -m {free} selects {free_name}, if supply and cooling allow"
            ),
        })
    }
}

/// A clock that may not be what the hardware has.
fn capped(name: &str, clock: Clock) -> Option<Cost> {
    let (most, highest) = clock.most.zip(clock.highest)?;
    (most < highest).then(|| Cost {
        what: format!(
            "{name} clock capped at {} of {} MHz",
            mhz(most),
            mhz(highest)
        ),
        remedy: "a power mode with more watts lifts the cap (nvpmodel -p --verbose lists them)"
            .into(),
    })
}

/// A clock that sinks while there is little to do.
fn follows(name: &str, clock: Clock) -> Option<Cost> {
    let (least, most) = clock.least.zip(clock.most)?;
    (least < most).then(|| Cost {
        what: format!(
            "{name} clock follows the load, {} to {} MHz: bursts wait for it",
            mhz(least),
            mhz(most)
        ),
        remedy: "sudo jetson_clocks holds it at its cap".into(),
    })
}

/// The processor's clocks by what they move between: one of all cores, as a rule.
fn groups(cpus: &[CpuClock]) -> Vec<(String, Clock)> {
    let bounds = |clock: Clock| Clock { now: None, ..clock };
    let mut groups: Vec<(String, Clock)> = Vec::new();
    for cpu in cpus {
        match groups
            .iter_mut()
            .find(|(_, clock)| *clock == bounds(cpu.clock))
        {
            Some((names, _)) => names.push_str(&format!(", {}", cpu.policy)),
            None => groups.push((format!("CPU {}", cpu.policy), bounds(cpu.clock))),
        }
    }
    if let [(name, _)] = &mut groups[..] {
        *name = "CPU".to_owned();
    }
    groups
}

fn mhz(hz: u64) -> u64 {
    hz / 1_000_000
}

/// `pmode:0002` in nvpmodel's state, `< POWER_MODEL ID=2 NAME=MODE_30W >` in its configuration.
fn mode(root: &Path) -> Option<PowerMode> {
    let state = text(&root.join("var/lib/nvpmodel/status"))?;
    let id = state
        .strip_prefix("pmode:")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    let configuration = text(&root.join("etc/nvpmodel.conf")).unwrap_or_default();
    let modes: Vec<(u32, String)> = configuration
        .lines()
        .filter_map(|line| {
            let mut words = line
                .trim()
                .strip_prefix("< POWER_MODEL ")?
                .split_whitespace();
            let id = words.next()?.strip_prefix("ID=")?.parse().ok()?;
            Some((id, words.next()?.strip_prefix("NAME=")?.to_owned()))
        })
        .collect();
    let name = modes
        .iter()
        .find(|m| m.0 == id)
        .map(|m| m.1.clone())
        .unwrap_or_default();
    // Orin Nano and NX have a MAXN_SUPER above their MAXN.
    let unlimited = modes
        .into_iter()
        .filter(|(_, name)| name.starts_with("MAXN"))
        .max_by_key(|(_, name)| name.len());
    Some(PowerMode {
        id,
        name,
        unlimited,
    })
}

#[cfg(test)]
mod tests {
    use super::super::readings::tests::machine;
    use super::*;

    const CONFIGURATION: &str = "# comment\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n\
        < POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n\
        < POWER_MODEL ID=1 NAME=MODE_15W >\n< POWER_MODEL ID=2 NAME=MODE_30W >\n";

    fn orin(mode: &str, gpu: [&str; 2], cpu: [&str; 2]) -> Power {
        const GPU: &str = "sys/class/devfreq/17000000.gpu";
        const CPU: &str = "sys/devices/system/cpu/cpufreq/policy0";
        let at = |dir: &str, name: &str| format!("{dir}/{name}");
        let files = [
            ("var/lib/nvpmodel/status".to_owned(), mode),
            ("etc/nvpmodel.conf".to_owned(), CONFIGURATION),
            (at(GPU, "cur_freq"), gpu[0]),
            (at(GPU, "min_freq"), gpu[0]),
            (at(GPU, "max_freq"), gpu[1]),
            (
                at(GPU, "available_frequencies"),
                "306000000 612000000 1300500000",
            ),
            (at(CPU, "scaling_cur_freq"), cpu[0]),
            (at(CPU, "scaling_min_freq"), cpu[0]),
            (at(CPU, "scaling_max_freq"), cpu[1]),
            (at(CPU, "cpuinfo_max_freq"), "2201600"),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, *text)).collect();
        Power::take(machine(&files).path())
    }

    #[test]
    fn an_orin_at_thirty_watts_is_told_what_it_loses() {
        let power = orin(
            "pmode:0002\n",
            ["306000000", "612000000"],
            ["729600", "1728000"],
        );
        let mode = power.mode.as_ref().unwrap();
        assert_eq!((mode.id, &*mode.name), (2, "MODE_30W"));
        assert_eq!(mode.unlimited, Some((0, "MAXN".to_owned())));
        let said: Vec<String> = power.costs().into_iter().map(|c| c.what).collect();
        assert_eq!(
            said,
            [
                "power mode MODE_30W (2) caps clocks and cores",
                "GPU clock capped at 612 of 1300 MHz",
                "GPU clock follows the load, 306 to 612 MHz: bursts wait for it",
                "CPU clock capped at 1728 of 2201 MHz",
                "CPU clock follows the load, 729 to 1728 MHz: bursts wait for it",
            ]
        );
        assert!(power.costs()[0].remedy.contains("nvpmodel -m 0"));
    }

    #[test]
    fn an_orin_with_jetson_clocks_costs_nothing() {
        let power = orin("pmode:0000\n", ["1300500000"; 2], ["2201600"; 2]);
        assert_eq!(power.costs(), []);
    }

    /// Two clusters that differ, and the memory, of which root alone is told whether it is held.
    #[test]
    fn clusters_and_the_memory_are_judged_too() {
        const POLICIES: &str = "sys/devices/system/cpu/cpufreq";
        const EMC: &str = "sys/kernel/debug/bpmp/debug/clk/emc";
        let mut files = vec![("var/lib/nvpmodel/status".to_owned(), "pmode:0000\n")];
        for (policy, most) in [
            ("policy0", "2201600"),
            ("policy4", "1728000"),
            ("policy8", "2201600"),
        ] {
            for name in ["scaling_cur_freq", "scaling_min_freq", "scaling_max_freq"] {
                files.push((format!("{POLICIES}/{policy}/{name}"), most));
            }
            files.push((format!("{POLICIES}/{policy}/cpuinfo_max_freq"), "2201600"));
        }
        for (name, value) in [
            ("rate", "2133000000"),
            ("min_rate", "204000000"),
            ("max_rate", "3199000000"),
        ] {
            files.push((format!("{EMC}/{name}"), value));
        }
        let said = |more: &[(&str, &str)]| -> Vec<String> {
            let all = files.iter().map(|(path, text)| (&**path, *text));
            let all: Vec<(&str, &str)> = all.chain(more.iter().copied()).collect();
            let costs = Power::take(machine(&all).path()).costs();
            costs.into_iter().map(|cost| cost.what).collect()
        };
        let cluster = "CPU policy4 clock capped at 1728 of 2201 MHz";
        assert_eq!(said(&[]), [cluster]);
        let held = format!("{EMC}/mrq_rate_locked");
        let memory = "memory clock follows the load, 204 to 3199 MHz: bursts wait for it";
        assert_eq!(said(&[(&held, "0")]), [cluster, memory]);
        let capped = "memory clock capped at 2133 of 3199 MHz";
        let cap = ("sys/kernel/nvpmodel_clk_cap/emc", "2133000000");
        assert_eq!(said(&[(&held, "1"), cap]), [cluster, capped]);
    }

    #[test]
    fn another_machine_has_nothing_to_say() {
        const CPU: &str = "sys/devices/system/cpu/cpufreq/policy0";
        let (least, most) = (
            format!("{CPU}/scaling_min_freq"),
            format!("{CPU}/scaling_max_freq"),
        );
        let power = Power::take(machine(&[(&least, "800000"), (&most, "4800000")]).path());
        assert_eq!((&power.mode, power.clocks.cpus.len()), (&None, 1));
        assert_eq!(power.costs(), []);
        assert_eq!(Power::take(machine(&[]).path()), Power::default());
    }

    #[test]
    fn nonsense_is_an_absence() {
        let power = orin("pmode:many\n", ["fast", "faster"], ["729600", "1728000"]);
        assert_eq!(power.mode, None);
        let gpu = power.clocks.gpu.unwrap();
        assert_eq!(
            (gpu.now, gpu.most, gpu.highest),
            (None, None, Some(1_300_500_000))
        );
        assert_eq!(power.costs(), []);
    }
}
