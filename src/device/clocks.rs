//! Clocks, as the kernel's files give them: of the processor's cores, of a Jetson's GPU, of the memory that both share.
//!
//! What is not there is `None`: a container has few of these files, and those of the memory are root's in part.

use std::path::Path;

use serde::Serialize;

use super::readings::{MAX_SENSORS, entries, file_name, is_gpu, text, whole};

/// A clock (Hz): what it is now, what it moves between, and the highest that the hardware has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clock {
    pub now: Option<u64>,
    pub least: Option<u64>,
    pub most: Option<u64>,
    pub highest: Option<u64>,
}

/// The clock of cores that share one: of a cluster, on a Jetson.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CpuClock {
    /// As the kernel names it, after the first of its cores: `policy0`.
    pub policy: String,
    #[serde(flatten)]
    pub clock: Clock,
}

/// The memory's clock (EMC), and how much of what it could move it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryClock {
    #[serde(flatten)]
    pub clock: Clock,
    /// Whether it is held where it is, as `jetson_clocks` does.
    pub held: Option<bool>,
    /// Share of the cycles in which data moves (%).
    pub load_percent: Option<f64>,
}

/// Every clock that the kernel tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Clocks {
    pub gpu: Option<Clock>,
    pub cpus: Vec<CpuClock>,
    pub memory: Option<MemoryClock>,
}

impl Clocks {
    /// Reads everything below `root`.
    pub fn take(root: &Path) -> Clocks {
        Clocks {
            gpu: gpu(root),
            cpus: cpus(root),
            memory: memory(root),
        }
    }

    /// Writes them into the metrics. The GPU's are with its load.
    pub fn record(&self) {
        use metrics::gauge;
        for cpu in &self.cpus {
            if let Some(hz) = cpu.clock.now {
                gauge!("trackside_device_cpu_frequency_hertz", "policy" => cpu.policy.clone())
                    .set(hz as f64);
            }
            if let Some(hz) = cpu.clock.most {
                gauge!("trackside_device_cpu_max_frequency_hertz", "policy" => cpu.policy.clone())
                    .set(hz as f64);
            }
        }
        let Some(memory) = &self.memory else { return };
        if let Some(hz) = memory.clock.now {
            gauge!("trackside_device_memory_frequency_hertz").set(hz as f64);
        }
        if let Some(hz) = memory.clock.most {
            gauge!("trackside_device_memory_max_frequency_hertz").set(hz as f64);
        }
        if let Some(load) = memory.load_percent {
            gauge!("trackside_device_memory_load_percent").set(load);
        }
    }
}

fn gpu(root: &Path) -> Option<Clock> {
    let dir = entries(&root.join("sys/class/devfreq"))
        .into_iter()
        .find(|dir| is_gpu(&file_name(dir)))?;
    let hz = |name: &str| whole(&dir.join(name));
    let available = text(&dir.join("available_frequencies")).unwrap_or_default();
    let highest = available
        .split_whitespace()
        .filter_map(|hz| hz.parse().ok())
        .max();
    let clock = Clock {
        now: hz("cur_freq"),
        least: hz("min_freq"),
        most: hz("max_freq"),
        highest,
    };
    (clock != Clock::default()).then_some(clock)
}

/// The kernel gives kHz. Cores that are switched off have no clock.
fn cpus(root: &Path) -> Vec<CpuClock> {
    entries(&root.join("sys/devices/system/cpu/cpufreq"))
        .into_iter()
        .filter(|dir| file_name(dir).starts_with("policy"))
        .filter_map(|dir| {
            let hz = |name: &str| whole(&dir.join(name))?.checked_mul(1000);
            let clock = Clock {
                now: hz("scaling_cur_freq"),
                least: hz("scaling_min_freq"),
                most: hz("scaling_max_freq"),
                highest: hz("cpuinfo_max_freq"),
            };
            let policy = file_name(&dir);
            (clock != Clock::default()).then_some(CpuClock { policy, clock })
        })
        .take(MAX_SENSORS)
        .collect()
}

/// What the processor of power and clocks (BPMP) says of the memory's, on Xavier and Orin; only root may read it.
const EMC: &str = "sys/kernel/debug/bpmp/debug/clk/emc";
/// The kernel's own view of the same clock.
const EMC_RATE: &str = "sys/kernel/debug/clk/emc/clk_rate";
/// Cycles in which data moved, in kHz: since kernel 5.10 (root's), and before.
const EMC_LOADS: [&str; 2] = [
    "sys/kernel/debug/cactmon/mc_all",
    "sys/kernel/actmon_avg_activity/mc_all",
];
/// The power mode's cap (Hz; 0: none), on Orin and on Xavier.
const EMC_CAPS: [&str; 2] = [
    "sys/kernel/nvpmodel_clk_cap/emc",
    "sys/kernel/nvpmodel_emc_cap/emc_iso_cap",
];

fn memory(root: &Path) -> Option<MemoryClock> {
    let emc = root.join(EMC);
    let first = |paths: &[&str]| paths.iter().find_map(|path| whole(&root.join(path)));
    let now = whole(&emc.join("rate")).or_else(|| whole(&root.join(EMC_RATE)));
    let highest = whole(&emc.join("max_rate"));
    let cap = first(&EMC_CAPS).filter(|hz| *hz > 0);
    // A cap may lie above what the hardware has.
    let most = cap.map_or(highest, |cap| Some(highest.map_or(cap, |hz| hz.min(cap))));
    let moved = first(&EMC_LOADS);
    let load = moved.zip(now).filter(|(_, now)| *now > 0);
    let memory = MemoryClock {
        clock: Clock {
            now,
            least: whole(&emc.join("min_rate")),
            most,
            highest,
        },
        held: whole(&emc.join("mrq_rate_locked")).map(|locked| locked != 0),
        load_percent: load
            .map(|(khz, hz)| (khz as f64 * 1e3 / hz as f64 * 100.0).clamp(0.0, 100.0)),
    };
    (memory != MemoryClock::default()).then_some(memory)
}

#[cfg(test)]
mod tests {
    use super::super::readings::tests::machine;
    use super::*;

    const POLICIES: &str = "sys/devices/system/cpu/cpufreq";

    /// What the metrics say of it, in order.
    fn told(files: &[(&str, &str)]) -> Vec<String> {
        let clocks = Clocks::take(machine(files).path());
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || clocks.record());
        let text = recorder.handle().render();
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix("trackside_device_"));
        let mut values: Vec<String> = values.map(str::to_owned).collect();
        values.sort();
        values
    }

    #[test]
    fn an_orin_as_root_tells_every_clock() {
        let root = machine(&[
            (&format!("{POLICIES}/policy0/scaling_cur_freq"), "1728000\n"),
            (&format!("{POLICIES}/policy0/scaling_min_freq"), "729600\n"),
            (&format!("{POLICIES}/policy0/scaling_max_freq"), "1728000\n"),
            (&format!("{POLICIES}/policy0/cpuinfo_max_freq"), "2201600\n"),
            // A cluster that is switched off.
            (
                &format!("{POLICIES}/policy4/scaling_governor"),
                "schedutil\n",
            ),
            (&format!("{POLICIES}/policy8/scaling_cur_freq"), "729600\n"),
            (&format!("{POLICIES}/ondemand/up_threshold"), "95\n"),
            (&format!("{EMC}/rate"), "2133000000\n"),
            (&format!("{EMC}/min_rate"), "204000000\n"),
            (&format!("{EMC}/max_rate"), "3199000000\n"),
            (&format!("{EMC}/mrq_rate_locked"), "0\n"),
            ("sys/kernel/debug/cactmon/mc_all", "533250\n"),
            ("sys/kernel/nvpmodel_clk_cap/emc", "2133000000\n"),
        ]);
        let clocks = Clocks::take(root.path());
        let policies: Vec<&str> = clocks.cpus.iter().map(|cpu| &*cpu.policy).collect();
        assert_eq!(policies, ["policy0", "policy8"]);
        assert_eq!(clocks.cpus[0].clock.highest, Some(2_201_600_000));
        assert_eq!(clocks.cpus[1].clock.most, None);
        let memory = clocks.memory.unwrap();
        assert_eq!(memory.load_percent, Some(25.0));
        assert_eq!(memory.held, Some(false));
        assert_eq!(memory.clock.most, Some(2_133_000_000));
        assert_eq!(memory.clock.highest, Some(3_199_000_000));
    }

    #[test]
    fn a_xavier_tells_its_own_files_and_its_cap_no_more_than_the_hardware_has() {
        let values = told(&[
            (&format!("{POLICIES}/policy0/scaling_cur_freq"), "1190400"),
            (&format!("{POLICIES}/policy0/scaling_max_freq"), "2265600"),
            (&format!("{POLICIES}/policy2/scaling_cur_freq"), "1420800"),
            (&format!("{POLICIES}/policy2/scaling_max_freq"), "2265600"),
            (EMC_RATE, "1600000000"),
            (&format!("{EMC}/max_rate"), "2133000000"),
            ("sys/kernel/actmon_avg_activity/mc_all", "160000"),
            ("sys/kernel/nvpmodel_emc_cap/emc_iso_cap", "9000000000"),
        ]);
        let expected = [
            r#"cpu_frequency_hertz{policy="policy0"} 1190400000"#,
            r#"cpu_frequency_hertz{policy="policy2"} 1420800000"#,
            r#"cpu_max_frequency_hertz{policy="policy0"} 2265600000"#,
            r#"cpu_max_frequency_hertz{policy="policy2"} 2265600000"#,
            "memory_frequency_hertz 1600000000",
            "memory_load_percent 10",
            "memory_max_frequency_hertz 2133000000",
        ];
        assert_eq!(values, expected);
    }

    /// As the daemon's user has it: no file of debugfs, and a cap of 0, which is none.
    #[test]
    fn what_may_not_be_read_is_an_absence_and_no_zero() {
        let values = told(&[
            (&format!("{POLICIES}/policy0/scaling_cur_freq"), "1190400"),
            (&format!("{POLICIES}/policy0/scaling_max_freq"), "<unknown>"),
            ("sys/kernel/actmon_avg_activity/mc_all", "160000"),
            ("sys/kernel/nvpmodel_clk_cap/emc", "0"),
        ]);
        assert_eq!(
            values,
            [r#"cpu_frequency_hertz{policy="policy0"} 1190400000"#]
        );
        assert!(told(&[]).is_empty());
        assert_eq!(Clocks::take(machine(&[]).path()), Clocks::default());
    }
}
