//! `trackside doctor`: what this machine has, what is wrong, what to do about it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::say::say;
use crate::compute::Choice;
use crate::compute::choice::{NoGpu, TRIED};
use crate::config::Config;
use crate::device::{Notifier, Readings, Signs};
use crate::journal;

/// Free space (bytes) under which a race may not fit: a race at 1 kHz takes a few GB.
const LITTLE_SPACE: u64 = 8 * 1024 * 1024 * 1024;

/// Say what this machine has, what is wrong and what to do about it.
#[derive(clap::Args)]
pub struct Args {
    /// The configuration file; without it, defaults and `TRACKSIDE__…` variables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write everything as JSON.
    #[arg(long)]
    json: bool,
}

/// One look at one thing.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    found: String,
    /// What to do about it, where something is to be done.
    remedy: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            what,
            ok: true,
            found: found.into(),
            remedy: None,
        }
    }

    fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            what,
            ok: false,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Runs it; fails if something is wrong.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let config = match Config::load(args.config.as_deref()) {
        Ok(config) => {
            findings.push(Finding::good("configuration", "valid"));
            config
        }
        Err(e) => {
            let remedy = "correct the key that is named; `trackside config check` says it again";
            findings.push(Finding::bad("configuration", e.to_string(), remedy));
            Config::default()
        }
    };
    findings.push(data_dir(&config.data_dir));
    findings.push(space(&config.data_dir));
    findings.push(stored(&config.data_dir));
    findings.push(port(&config));
    findings.push(sources(&config));
    findings.push(service());
    let root = Path::new("/");
    findings.push(gpu(config.compute.backend, root));
    let readings = Readings::take(root, &config.data_dir);
    findings.extend(clocks(&readings));

    if args.json {
        let all = serde_json::json!({ "findings": findings, "readings": readings });
        say!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        for f in &findings {
            say!(
                "{} {:<14} {}",
                if f.ok { "ok " } else { "BAD" },
                f.what,
                f.found
            );
            if let Some(remedy) = &f.remedy {
                say!("    {:<14} → {remedy}", "");
            }
        }
        say!("\n{}", serde_json::to_string_pretty(&readings)?);
    }
    let bad = findings.iter().filter(|f| !f.ok).count();
    anyhow::ensure!(
        bad == 0,
        "{bad} of {} things need attention",
        findings.len()
    );
    Ok(())
}

fn data_dir(dir: &Path) -> Finding {
    const WHAT: &str = "data directory";
    let shown = dir.display();
    let probe = std::fs::create_dir_all(dir)
        .and_then(|()| tempfile::NamedTempFile::new_in(dir))
        .and_then(|file| file.as_file().sync_all());
    match probe {
        Ok(()) => Finding::good(WHAT, format!("{shown} can be written and synced")),
        Err(e) => Finding::bad(
            WHAT,
            format!("{shown}: {e}"),
            "make it writable for the daemon's user, or set data_dir",
        ),
    }
}

fn space(dir: &Path) -> Finding {
    const WHAT: &str = "disk";
    match crate::device::readings::disk(dir) {
        None => Finding::good(WHAT, "the file system does not say how full it is"),
        Some(disk) if disk.free_bytes < LITTLE_SPACE => Finding::bad(
            WHAT,
            format!("{} MB free", disk.free_bytes / 1_000_000),
            "make room, or lower [journal.retain]",
        ),
        Some(disk) => Finding::good(WHAT, format!("{} GB free", disk.free_bytes / 1_000_000_000)),
    }
}

fn stored(dir: &Path) -> Finding {
    const WHAT: &str = "journal";
    let records = dir.join("records");
    if !records.exists() {
        return Finding::good(WHAT, "none yet");
    }
    match journal::Journal::open_read_only(&records, &mut |_| {}) {
        Ok(reader) => Finding::good(
            WHAT,
            format!(
                "{} records of {} sessions",
                reader.next_seq() - reader.first_seq(),
                reader.sessions().len()
            ),
        ),
        Err(e) => Finding::bad(
            WHAT,
            e.to_string(),
            "run `trackside journal verify`, then `trackside journal repair`",
        ),
    }
}

fn port(config: &Config) -> Finding {
    const WHAT: &str = "API address";
    let listen = config.api.listen;
    match TcpListener::bind(listen) {
        Ok(_) => Finding::good(WHAT, format!("{listen} is free")),
        Err(e) => Finding::bad(
            WHAT,
            format!("{listen}: {e}"),
            "the daemon may be running already; else set [api] listen",
        ),
    }
}

fn sources(config: &Config) -> Finding {
    const WHAT: &str = "sources";
    let n = config.mqtt.len()
        + usize::from(config.zenoh.is_some())
        + usize::from(config.openf1.is_some());
    match n {
        0 => Finding::bad(
            WHAT,
            "none configured",
            "add a [[mqtt]], [zenoh] or [openf1] section, or try `trackside demo`",
        ),
        n => Finding::good(WHAT, format!("{n} configured")),
    }
}

#[cfg(feature = "cuda")]
fn gpu(choice: Choice, root: &Path) -> Finding {
    use crate::compute::cuda::{Cuda, CudaError};
    match Cuda::open() {
        Ok(cuda) => {
            let p = cuda.properties();
            let (major, minor) = p.capability;
            let memory = if p.integrated { "shared" } else { "own" };
            Finding::good(
                GPU,
                format!(
                    "{}, compute capability {major}.{minor}, {memory} memory",
                    p.name
                ),
            )
        }
        Err(e) => {
            let absent = matches!(e, CudaError::NoDriver | CudaError::NoDevice);
            no_gpu(&e.into(), absent, choice, root)
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn gpu(choice: Choice, root: &Path) -> Finding {
    match Choice::Cuda.open() {
        Ok(_) => Finding::good(GPU, "there is one"),
        Err(none) => no_gpu(&none, true, choice, root),
    }
}

const GPU: &str = "GPU";

/// A machine without a GPU is in order, for the CPU does the same work; one that has what belongs to a GPU is not,
/// unless it is left alone on purpose.
fn no_gpu(none: &NoGpu, absent: bool, choice: Choice, root: &Path) -> Finding {
    match Signs::look(root) {
        Some(signs) if choice != Choice::Cpu => Finding::bad(
            GPU,
            format!(
                "there is {signs}; tried {TRIED}: {}; the CPU does its work",
                none.why
            ),
            signs.remedy(none),
        ),
        _ if absent => Finding::good(GPU, format!("{}: the CPU does its work", none.why)),
        _ => Finding::bad(
            GPU,
            format!("{}: the CPU does its work", none.why),
            none.remedy,
        ),
    }
}

/// What costs latency; not wrong, for a battery or a small supply may ask for it.
fn clocks(readings: &Readings) -> Vec<Finding> {
    let costs = readings.power.costs().into_iter();
    costs
        .map(|cost| Finding {
            remedy: Some(cost.remedy),
            ..Finding::good("clocks", cost.what)
        })
        .collect()
}

fn service() -> Finding {
    const WHAT: &str = "service";
    match (cfg!(feature = "systemd"), Notifier::from_env().listens()) {
        (_, true) => Finding::good(WHAT, "started by systemd, which is told"),
        (true, false) => Finding::good(WHAT, "built for systemd, not started by it"),
        (false, false) => Finding::good(WHAT, "built without the systemd feature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_there_and_does_not_open_is_wrong_and_none_at_all_is_not() {
        let root = tempfile::tempdir().unwrap();
        let none = NoGpu {
            why: "no library".to_owned(),
            remedy: "install it",
            may_come: false,
        };
        let found = |absent, choice| no_gpu(&none, absent, choice, root.path());
        assert!(found(true, Choice::Auto).ok && !found(false, Choice::Auto).ok);
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/nvmap"), "").unwrap();
        let wrong = found(true, Choice::Auto);
        assert!(!wrong.ok);
        for part in ["/dev/nvmap", TRIED, "no library", "the CPU"] {
            assert!(
                wrong.found.contains(part),
                "{part:?} is missing in {}",
                wrong.found
            );
        }
        assert_eq!(wrong.remedy.as_deref(), Some("install it"));
        // Who wants no GPU has none.
        assert!(found(true, Choice::Cpu).ok);
    }
}
