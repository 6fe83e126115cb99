//! Power mode and clocks of a Jetson, and what of them costs latency.
//!
//! `nvpmodel` caps clocks and switches cores off to stay within so many watts; below the cap, clocks follow the
//! load. Telemetry comes in bursts 50 times a second: a GPU that went to sleep between two of them takes its time
//! to wake up. `jetson_clocks` holds all clocks at their caps.

use std::path::Path;

use serde::Serialize;

use super::readings::{entries, file_name, is_gpu, text, whole};

/// A power mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PowerMode {
    pub id: u32,
    /// As in nvpmodel's configuration, such as `MAXN` or `MODE_30W`; empty where that cannot be read.
    pub name: String,
    /// The mode without a cap, where there is one: its id and name.
    pub unlimited: Option<(u32, String)>,
}

/// A clock (Hz): what it is now, what it moves between, and the highest that the hardware has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Clock {
    pub now: u64,
    pub least: u64,
    pub most: u64,
    pub highest: u64,
}

/// Power mode and clocks; empty where it is no Jetson.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Power {
    pub mode: Option<PowerMode>,
    pub gpu: Option<Clock>,
    pub cpu: Option<Clock>,
    /// Memory's clock (Hz); only root may read it.
    pub memory_hz: Option<u64>,
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
            gpu: gpu(root),
            cpu: cpu(root),
            memory_hz: whole(&root.join("sys/kernel/debug/bpmp/debug/clk/emc/rate")),
        }
    }

    /// What costs latency, worst first.
    pub fn costs(&self) -> Vec<Cost> {
        let mut costs = Vec::new();
        if let Some(PowerMode {
            id,
            name,
            unlimited: Some((free, free_name)),
        }) = &self.mode
            && id != free
        {
            costs.push(Cost {
                what: format!("power mode {name} ({id}) caps clocks and cores"),
                remedy: format!(
                    "sudo nvpmodel -m {free} selects {free_name}, if supply and cooling allow"
                ),
            });
        }
        for (name, clock) in [("GPU", self.gpu), ("CPU", self.cpu)] {
            let Some(clock) = clock else { continue };
            if clock.most < clock.highest {
                costs.push(Cost {
                    what: format!("{name} clock capped at {} of {} MHz", mhz(clock.most), mhz(clock.highest)),
                    remedy: "a power mode with more watts lifts the cap (nvpmodel -p --verbose lists them)".into(),
                });
            }
            if clock.least < clock.most {
                costs.push(Cost {
                    what: format!(
                        "{name} clock follows the load, {} to {} MHz: bursts wait for it",
                        mhz(clock.least),
                        mhz(clock.most)
                    ),
                    remedy: "sudo jetson_clocks holds it at its cap".into(),
                });
            }
        }
        costs
    }
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

fn gpu(root: &Path) -> Option<Clock> {
    let dir = entries(&root.join("sys/class/devfreq"))
        .into_iter()
        .find(|dir| is_gpu(&file_name(dir)))?;
    let most = whole(&dir.join("max_freq"))?;
    let available = text(&dir.join("available_frequencies")).unwrap_or_default();
    let highest = available
        .split_whitespace()
        .filter_map(|hz| hz.parse().ok())
        .max();
    Some(Clock {
        now: whole(&dir.join("cur_freq"))?,
        least: whole(&dir.join("min_freq"))?,
        most,
        highest: highest.unwrap_or(most),
    })
}

/// The first core's; the kernel gives kHz. Only where nvpmodel is: on other machines it is nobody's choice.
fn cpu(root: &Path) -> Option<Clock> {
    text(&root.join("var/lib/nvpmodel/status"))?;
    let dir = root.join("sys/devices/system/cpu/cpu0/cpufreq");
    let hz = |name: &str| Some(whole(&dir.join(name))?.saturating_mul(1000));
    Some(Clock {
        now: hz("scaling_cur_freq")?,
        least: hz("scaling_min_freq")?,
        most: hz("scaling_max_freq")?,
        highest: hz("cpuinfo_max_freq")?,
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
        const CPU: &str = "sys/devices/system/cpu/cpu0/cpufreq";
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

    #[test]
    fn another_machine_has_nothing_to_say() {
        let files = [(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq",
            "800000",
        )];
        let power = Power::take(machine(&files).path());
        assert_eq!(power, Power::default());
        assert_eq!(power.costs(), []);
    }

    #[test]
    fn nonsense_is_an_absence() {
        let power = orin("pmode:many\n", ["fast", "faster"], ["729600", "1728000"]);
        assert_eq!((power.mode, power.gpu), (None, None));
    }
}
