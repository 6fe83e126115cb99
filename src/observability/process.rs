//! What the process costs: memory, descriptors, threads, CPU time, from `/proc/self`.

use std::fs;
use std::path::Path;

pub(super) const RSS_BYTES: &str = "trackside_process_resident_memory_bytes";
pub(super) const OPEN_FDS: &str = "trackside_process_open_fds";
pub(super) const THREADS: &str = "trackside_process_threads";
pub(super) const CPU_SECONDS: &str = "trackside_process_cpu_seconds_total";

/// Clock ticks a second in `/proc/*/stat`: fixed at 100 in the kernel's interface on every
/// architecture that we run on.
const USER_HZ: f64 = 100.0;

/// A measurement of a process; `None` where `/proc` does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub resident_bytes: Option<u64>,
    /// The most that it ever was.
    pub peak_resident_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub open_fds: Option<u64>,
    /// User and system time (s).
    pub cpu_s: Option<f64>,
}

impl Process {
    /// Measures the process whose folder in `/proc` is `dir`.
    pub fn read(dir: &Path) -> Process {
        let status = fs::read_to_string(dir.join("status")).unwrap_or_default();
        let stat = fs::read_to_string(dir.join("stat")).unwrap_or_default();
        Process {
            resident_bytes: kilobytes(&status, "VmRSS:"),
            peak_resident_bytes: kilobytes(&status, "VmHWM:"),
            threads: field(&status, "Threads:").and_then(|v| v.parse().ok()),
            open_fds: fs::read_dir(dir.join("fd"))
                .ok()
                .map(|entries| entries.count() as u64),
            cpu_s: cpu(&stat),
        }
    }

    /// Writes it into the metrics.
    pub fn record(&self) {
        let gauges = [
            (RSS_BYTES, self.resident_bytes),
            (THREADS, self.threads),
            (OPEN_FDS, self.open_fds),
        ];
        for (name, value) in gauges {
            if let Some(value) = value {
                metrics::gauge!(name).set(value as f64);
            }
        }
        if let Some(s) = self.cpu_s {
            metrics::counter!(CPU_SECONDS).absolute(s as u64);
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Fields 14 and 15 of `stat`, counted from behind the name in brackets, which may hold anything.
fn cpu(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("status"),
            "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\nThreads:\t7\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("stat"),
            "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 1",
        )
        .unwrap();
        fs::create_dir(dir.path().join("fd")).unwrap();
        fs::write(dir.path().join("fd/0"), "").unwrap();
        let expected = Process {
            resident_bytes: Some(1024 * 1024),
            peak_resident_bytes: Some(2048 * 1024),
            threads: Some(7),
            open_fds: Some(1),
            cpu_s: Some(2.0),
        };
        assert_eq!(Process::read(dir.path()), expected);
        assert_eq!(Process::read(&dir.path().join("gone")), Process::default());
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let own = Process::read(Path::new("/proc/self"));
        assert!(own.resident_bytes > Some(100_000), "{own:?}");
        assert!(own.threads >= Some(1) && own.open_fds >= Some(3), "{own:?}");
    }
}
