//! Readings: temperatures, GPU load, power, memory, disk, as the kernel's files give them.
//!
//! Every path is taken below a root, so that a test can build a machine out of files. A Jetson has
//! all of it, a laptop some, a container hardly any: what is not there is `None` or an empty list.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::power::Power;

/// Most bytes read from one file; the kernel's are far smaller.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Most entries of one folder that are looked at.
const MAX_ENTRIES: usize = 64;
/// Most thermal zones and most power rails that are kept.
pub const MAX_SENSORS: usize = 32;

/// A thermal zone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Temperature {
    /// As the kernel names it, such as `cpu-thermal`.
    pub zone: String,
    pub celsius: f64,
}

/// A rail of a power monitor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rail {
    /// As the device tree names it, such as `VDD_IN` (everything) or `VDD_CPU_GPU_CV`.
    pub name: String,
    pub watts: f64,
}

/// The GPU: of the SoC, or the first discrete one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Gpu {
    /// Share of time that it is busy (%).
    pub load_percent: Option<f64>,
    pub frequency_hz: Option<u64>,
    pub max_frequency_hz: Option<u64>,
}

/// Memory; on a Jetson, CPU and GPU share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
    pub swap_total_bytes: u64,
    pub swap_free_bytes: u64,
}

/// Memory of a GPU that has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GpuMemory {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// The file system that holds the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub total_bytes: u64,
    /// What a process without privileges may still write.
    pub free_bytes: u64,
}

/// What the machine says of itself at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Readings {
    /// Such as `NVIDIA Jetson AGX Orin Developer Kit`.
    pub model: Option<String>,
    /// First line of the Jetson Linux release.
    pub jetson_linux: Option<String>,
    pub kernel: Option<String>,
    /// Processes ready to run, over one minute.
    pub load_1min: Option<f64>,
    pub memory: Option<Memory>,
    pub disk: Option<Disk>,
    pub gpu: Option<Gpu>,
    pub gpu_memory: Option<GpuMemory>,
    pub temperatures: Vec<Temperature>,
    pub rails: Vec<Rail>,
    /// Fan speeds (1/min).
    pub fans_rpm: Vec<f64>,
    /// Power mode and clocks.
    pub power: Power,
}

impl Readings {
    /// Reads everything below `root` (`/` on a real machine), and the disk that holds `data`.
    pub fn take(root: &Path, data: &Path) -> Readings {
        let readings = Readings {
            model: text(&root.join("proc/device-tree/model"))
                .or_else(|| text(&root.join("sys/class/dmi/id/product_name"))),
            jetson_linux: text(&root.join("etc/nv_tegra_release"))
                .and_then(|t| t.lines().next().map(str::to_owned)),
            kernel: text(&root.join("proc/sys/kernel/osrelease")),
            load_1min: text(&root.join("proc/loadavg"))
                .and_then(|t| t.split_whitespace().next()?.parse().ok()),
            memory: memory(root),
            disk: disk(data),
            gpu: gpu(root),
            gpu_memory: None,
            temperatures: temperatures(root),
            rails: rails(root),
            fans_rpm: fans(root),
            power: Power::take(root),
        };
        with_nvml(readings, root)
    }

    /// Writes them into the metrics.
    pub fn record(&self) {
        use metrics::gauge;
        for t in &self.temperatures {
            gauge!("trackside_device_temperature_celsius", "zone" => t.zone.clone()).set(t.celsius);
        }
        for rail in &self.rails {
            gauge!("trackside_device_power_watts", "rail" => rail.name.clone()).set(rail.watts);
        }
        if let Some(m) = self.memory {
            gauge!("trackside_device_memory_available_bytes").set(m.available_bytes as f64);
            gauge!("trackside_device_memory_total_bytes").set(m.total_bytes as f64);
        }
        if let Some(d) = self.disk {
            gauge!("trackside_device_disk_free_bytes").set(d.free_bytes as f64);
            gauge!("trackside_device_disk_total_bytes").set(d.total_bytes as f64);
        }
        if let Some(load) = self.gpu.and_then(|gpu| gpu.load_percent) {
            gauge!("trackside_device_gpu_load_percent").set(load);
        }
        if let Some(memory) = self.gpu_memory {
            gauge!("trackside_device_gpu_memory_free_bytes").set(memory.free_bytes as f64);
            gauge!("trackside_device_gpu_memory_total_bytes").set(memory.total_bytes as f64);
        }
        if let Some(hz) = self.gpu.and_then(|gpu| gpu.frequency_hz) {
            gauge!("trackside_device_gpu_frequency_hertz").set(hz as f64);
        }
        if let Some(hz) = self.gpu.and_then(|gpu| gpu.max_frequency_hz) {
            gauge!("trackside_device_gpu_max_frequency_hertz").set(hz as f64);
        }
        self.power.clocks.record();
        if let Some(mode) = &self.power.mode {
            gauge!("trackside_device_power_mode").set(f64::from(mode.id));
        }
        if let Some(load) = self.load_1min {
            gauge!("trackside_device_load_1min").set(load);
        }
    }
}

/// On the machine itself, what the driver's library says; it is no matter of files.
#[cfg(feature = "cuda")]
fn with_nvml(mut readings: Readings, root: &Path) -> Readings {
    if root == Path::new("/") {
        super::nvml::add(&mut readings);
    }
    readings
}

#[cfg(not(feature = "cuda"))]
fn with_nvml(readings: Readings, _: &Path) -> Readings {
    readings
}

/// Room on the file system that holds `path`.
pub fn disk(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// A small file's text, without the NUL that ends device-tree strings. Sensors that are powered
/// down answer with an error: that, too, is an absence.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

fn float(path: &Path) -> Option<f64> {
    text(path)?.parse().ok().filter(|v: &f64| v.is_finite())
}

pub(super) fn whole(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// Entries of a folder, in the order of their names and, where these end in numbers, of those.
pub(super) fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = read
        .take(MAX_ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort_by_key(|path| {
        let name = file_name(path);
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u64>().unwrap_or(0);
        (stem.to_owned(), number)
    });
    paths
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn memory(root: &Path) -> Option<Memory> {
    let info = text(&root.join("proc/meminfo"))?;
    let bytes = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        let kilobytes: u64 = line[name.len()..].split_whitespace().next()?.parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    Some(Memory {
        total_bytes: bytes("MemTotal:")?,
        available_bytes: bytes("MemAvailable:")?,
        swap_total_bytes: bytes("SwapTotal:").unwrap_or(0),
        swap_free_bytes: bytes("SwapFree:").unwrap_or(0),
    })
}

/// Zones give thousandths of a degree.
fn temperatures(root: &Path) -> Vec<Temperature> {
    entries(&root.join("sys/class/thermal"))
        .into_iter()
        .filter(|dir| file_name(dir).starts_with("thermal_zone"))
        .filter_map(|dir| {
            Some(Temperature {
                zone: text(&dir.join("type"))?,
                celsius: float(&dir.join("temp"))? / 1000.0,
            })
        })
        .take(MAX_SENSORS)
        .collect()
}

/// Where Jetson releases put the GPU's load, oldest first: thousandths of the time.
const GPU_LOADS: [&str; 4] = [
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/bus@0/17000000.gpu/load",
    "sys/devices/platform/17000000.gpu/load",
];

fn gpu(root: &Path) -> Option<Gpu> {
    let devfreq = entries(&root.join("sys/class/devfreq"))
        .into_iter()
        .find(|dir| is_gpu(&file_name(dir)));
    let load = GPU_LOADS
        .iter()
        .map(|path| root.join(path))
        .chain(devfreq.iter().map(|dir| dir.join("device/load")))
        .find_map(|path| float(&path));
    let gpu = Gpu {
        load_percent: load.map(|thousandths| (thousandths / 10.0).clamp(0.0, 100.0)),
        frequency_hz: devfreq
            .as_ref()
            .and_then(|dir| whole(&dir.join("cur_freq"))),
        max_frequency_hz: devfreq
            .as_ref()
            .and_then(|dir| whole(&dir.join("max_freq"))),
    };
    (gpu != Gpu::default()).then_some(gpu)
}

/// `17000000.gpu` (Orin), `17000000.gv11b` (Xavier), `17000000.ga10b`, `57000000.gpu` (Nano).
pub(super) fn is_gpu(devfreq: &str) -> bool {
    [".gpu", ".gv11b", ".gp10b", ".ga10b", ".gb10b"]
        .iter()
        .any(|suffix| devfreq.ends_with(suffix))
}

/// INA3221 monitors give mV and mA for each labelled rail; others give µW outright.
fn rails(root: &Path) -> Vec<Rail> {
    let mut rails = Vec::new();
    for dir in entries(&root.join("sys/class/hwmon")) {
        for channel in 1..=8 {
            let file = |name: &str, what: &str| dir.join(format!("{name}{channel}_{what}"));
            let millivolts = float(&file("in", "input"));
            let milliamps = float(&file("curr", "input"));
            let watts = match (float(&file("power", "input")), millivolts, milliamps) {
                (Some(microwatts), _, _) => microwatts / 1e6,
                (None, Some(mv), Some(ma)) => mv * ma / 1e6,
                _ => continue,
            };
            let label = text(&file("in", "label"))
                .or_else(|| text(&file("power", "label")))
                .unwrap_or_else(|| {
                    let chip = text(&dir.join("name")).unwrap_or_else(|| file_name(&dir));
                    format!("{chip} {channel}")
                });
            if rails.len() == MAX_SENSORS {
                return rails;
            }
            rails.push(Rail { name: label, watts });
        }
    }
    rails
}

/// `fan1_input` where hwmon has it; Jetson's tachometer calls it `rpm`.
fn fans(root: &Path) -> Vec<f64> {
    entries(&root.join("sys/class/hwmon"))
        .into_iter()
        .filter_map(|dir| float(&dir.join("fan1_input")).or_else(|| float(&dir.join("rpm"))))
        .take(MAX_SENSORS)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::device) fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn an_orin_is_read_in_full() {
        let root = machine(&[
            ("proc/device-tree/model", "NVIDIA Jetson AGX Orin\0"),
            (
                "etc/nv_tegra_release",
                "# R36 (release), REVISION: 3.0\nmore\n",
            ),
            ("proc/sys/kernel/osrelease", "5.15.136-tegra\n"),
            ("proc/loadavg", "1.25 0.50 0.40 2/900 1234\n"),
            (
                "proc/meminfo",
                "MemTotal:       32000 kB\nMemFree: 1 kB\nMemAvailable:   16000 kB\nSwapTotal: 100 kB\nSwapFree: 50 kB\n",
            ),
            ("sys/class/thermal/thermal_zone10/type", "tj-thermal\n"),
            ("sys/class/thermal/thermal_zone10/temp", "51500\n"),
            ("sys/class/thermal/thermal_zone2/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone2/temp", "49000\n"),
            ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
            ("sys/devices/platform/bus@0/17000000.gpu/load", "437\n"),
            ("sys/class/devfreq/17000000.gpu/cur_freq", "1300500000\n"),
            ("sys/class/devfreq/17000000.gpu/max_freq", "1300500000\n"),
            ("sys/class/hwmon/hwmon1/name", "ina3221\n"),
            ("sys/class/hwmon/hwmon1/in1_label", "VDD_GPU_SOC\n"),
            ("sys/class/hwmon/hwmon1/in1_input", "19000\n"),
            ("sys/class/hwmon/hwmon1/curr1_input", "500\n"),
            ("sys/class/hwmon/hwmon2/name", "board\n"),
            ("sys/class/hwmon/hwmon2/power1_input", "15000000\n"),
            ("sys/class/hwmon/hwmon3/rpm", "2100\n"),
        ]);
        let r = Readings::take(root.path(), root.path());
        assert_eq!(r.model.as_deref(), Some("NVIDIA Jetson AGX Orin"));
        assert_eq!(
            r.jetson_linux.as_deref(),
            Some("# R36 (release), REVISION: 3.0")
        );
        assert_eq!(r.load_1min, Some(1.25));
        assert_eq!(r.memory.unwrap().available_bytes, 16_000 * 1024);
        let gpu = r.gpu.unwrap();
        assert_eq!(gpu.load_percent, Some(43.7));
        assert_eq!(gpu.frequency_hz, Some(1_300_500_000));
        let zones: Vec<_> = r
            .temperatures
            .iter()
            .map(|t| (&*t.zone, t.celsius))
            .collect();
        assert_eq!(zones, [("cpu-thermal", 49.0), ("tj-thermal", 51.5)]);
        let rails: Vec<_> = r.rails.iter().map(|p| (&*p.name, p.watts)).collect();
        assert_eq!(rails, [("VDD_GPU_SOC", 9.5), ("board 1", 15.0)]);
        assert_eq!(r.fans_rpm, [2100.0]);
        let disk = r.disk.unwrap();
        assert!(disk.total_bytes >= disk.free_bytes && disk.total_bytes > 0);
    }

    #[test]
    fn a_machine_without_sensors_reads_as_absent() {
        let root = machine(&[]);
        let r = Readings::take(root.path(), &root.path().join("gone"));
        assert_eq!(r, Readings::default());
    }

    #[test]
    fn nonsense_in_a_sensor_is_an_absence() {
        let root = machine(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu\n"),
            ("sys/class/thermal/thermal_zone0/temp", "N/A\n"),
            ("sys/devices/gpu.0/load", "\u{0}\n"),
            ("proc/meminfo", "MemTotal: many kB\n"),
            ("sys/class/hwmon/hwmon0/in1_input", "12000\n"),
        ]);
        let r = Readings::take(root.path(), &root.path().join("gone"));
        assert_eq!(r, Readings::default());
    }
}
