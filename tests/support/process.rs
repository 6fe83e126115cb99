//! A child process that never outlives its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// Bytes of a log that are shown when a test fails.
const TAIL_BYTES: usize = 4000;
/// How long a killed process may take to go, or a wrapped one to come.
const GONE_WITHIN: Duration = Duration::from_secs(180);

/// A running child, its output in a file.
pub struct Process {
    name: String,
    child: Child,
    /// The process that signals go to, where the child only wraps it (strace).
    inner: Option<Pid>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, appending what it says to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Process {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file");
        let err = out.try_clone().expect("a second handle");
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {program} cannot be started: {e}"));
        Process {
            name: name.to_owned(),
            child,
            inner: None,
            log: log.to_owned(),
        }
    }

    /// From now on signals go to the child's only child.
    pub fn look_inside(&mut self) {
        let parent = self.child.id();
        let limit = GONE_WITHIN;
        self.inner = Some(wait_for("the wrapped process", limit, || child_of(parent)));
    }

    /// Its process id (of the wrapped process, if it is wrapped).
    pub fn pid(&self) -> Pid {
        self.inner.unwrap_or_else(|| Pid::from_child(&self.child))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal)
            .unwrap_or_else(|e| panic!("{}: signal {signal:?}: {e}", self.name));
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            // Gone between the look and the signal is as good.
            let _ = kill_process(self.pid(), Signal::KILL);
        }
        self.wait(GONE_WITHIN);
    }

    /// SIGTERM, and waits until it is gone.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, limit, || self.child.try_wait().expect("a child"))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Resident memory (bytes).
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(&path).expect("a running process");
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kib: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        kib * 1024
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid().as_raw_nonzero());
        std::fs::read_dir(path).expect("a running process").count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(inner) = self.inner {
            let _ = kill_process(inner, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(TAIL_BYTES);
            let tail = log.get(tail..).unwrap_or(&log);
            eprintln!("--- end of {}'s log:\n{tail}\n---", self.name);
        }
    }
}

/// The first process whose parent is `parent`.
fn child_of(parent: u32) -> Option<Pid> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // `pid (name) state ppid …`; the name may hold anything.
        let ppid = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1))
            .and_then(|p| p.parse::<u32>().ok());
        if ppid == Some(parent) {
            return Pid::from_raw(pid);
        }
    }
    None
}
