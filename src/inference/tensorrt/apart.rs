//! A build in a process of its own, by `trackside engines build`, which leaves the plan in the cache.
//!
//! TensorRT measures for minutes, with all the memory that it is given, and nothing stops it from without. In a process
//! of its own that gives way to the daemon's, ends with it, and is ended when the daemon is told to stop.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Cache, Key};

/// Longest that a build may take.
const LONGEST_BUILD: Duration = Duration::from_secs(30 * 60);
/// How long one that is ended may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(20);
/// Most bytes of a line that a build says.
const MOST_OF_A_LINE: u64 = 4096;

/// Who builds.
#[derive(Clone, Debug)]
pub struct Apart {
    program: PathBuf,
    folder: PathBuf,
    stop: CancellationToken,
}

impl Apart {
    /// `program` is trackside; models are in `folder`. Builds are ended when `stop` is cancelled.
    pub fn new(program: &Path, folder: &Path, stop: CancellationToken) -> Apart {
        Apart {
            program: program.to_owned(),
            folder: folder.to_owned(),
            stop,
        }
    }

    /// The plan of that key of the model of that name, which lies in the cache then.
    ///
    /// # Errors
    /// What the build said last, or that it was ended.
    pub(super) fn build(&self, name: &str, cache: &Cache, key: &Key) -> Result<Vec<u8>, String> {
        let mut command = Command::new(&self.program);
        command.args(["engines", "build", "--give-way", "--engines"]);
        command.arg(&self.folder).arg("--cache").arg(cache.folder());
        command.args(["--model", name, "--precision", key.precision.name()]);
        command.arg("--batches").arg(key.batch.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = command.stderr(Stdio::piped()).spawn();
        let mut child = started.map_err(|e| format!("no build can be started: {e}"))?;
        tracing::info!(
            model = key.model,
            batch = key.batch,
            process = child.id(),
            "an engine is being built"
        );
        let stderr = child.stderr.take();
        let listener = std::thread::spawn(move || stderr.map_or_else(String::new, last_line));
        // One that was ended may hang in the driver for a while: nobody waits for what it would still say.
        let status = self.wait(&mut child)?;
        let last = listener.join().unwrap_or_default();
        match status {
            status if status.success() => {}
            status => return Err(format!("its build ended with {status}: {last}")),
        }
        match cache.read(key) {
            Ok(Some(plan)) => Ok(plan),
            Ok(None) => Err(format!(
                "it was built, but not kept for this machine: {last}"
            )),
            Err(fault) => Err(format!("what was built is not used: {fault}")),
        }
    }

    /// Until it has ended, or is ended.
    fn wait(&self, child: &mut Child) -> Result<ExitStatus, String> {
        let began = Instant::now();
        loop {
            let say = |e: std::io::Error| format!("its build is lost: {e}");
            if let Some(status) = child.try_wait().map_err(say)? {
                return Ok(status);
            }
            let why = if self.stop.is_cancelled() {
                "its build was ended: the daemon stops"
            } else if began.elapsed() > LONGEST_BUILD {
                "its build was ended: it took too long"
            } else {
                std::thread::sleep(LOOK);
                continue;
            };
            child.kill().map_err(say)?;
            let killed = Instant::now();
            while killed.elapsed() < PATIENCE && child.try_wait().map_err(say)?.is_none() {
                std::thread::sleep(LOOK);
            }
            return Err(why.to_owned());
        }
    }
}

/// Passes on what is said, line by line; the last line.
fn last_line(from: impl Read) -> String {
    let mut from = BufReader::new(from);
    let mut last = String::new();
    loop {
        let mut line = Vec::new();
        let read = from
            .by_ref()
            .take(MOST_OF_A_LINE)
            .read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            return last;
        }
        let line = String::from_utf8_lossy(&line);
        if !line.trim().is_empty() {
            line.trim().clone_into(&mut last);
            tracing::info!("build: {last}");
        }
    }
}

/// Lets every other process go first, and ends with the one that started this.
pub fn give_way() {
    use rustix::process::{Signal, nice, set_parent_process_death_signal};
    /// The lowest priority that there is.
    const LAST: i32 = 19;
    /// Likeliest to go when memory runs out, from −1000 to 1000.
    const FIRST_TO_GO: &str = "900";
    // Each refused: then it competes, which is no error.
    let _ = nice(LAST);
    let _ = std::fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Precision};
    use super::*;

    fn key() -> Key {
        Key {
            model: "pit-1".to_owned(),
            onnx_sha256: "ab".repeat(32),
            machine: Machine::any("TensorRT-RTX 1 1.7.0".to_owned(), (8, 7)),
            precision: Precision::Fp16,
            batch: 20,
            recipe: 0,
        }
    }

    /// A build by a script, in a folder with a cache in it.
    fn by(script: &str, stop: &CancellationToken) -> (tempfile::TempDir, Result<Vec<u8>, String>) {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("trackside");
        let script = format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display());
        std::fs::write(&program, script).unwrap();
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, permissions).unwrap();
        // What the script moves into its place.
        let made = Cache::new(&dir.path().join("made"));
        made.write(&key(), b"a plan").unwrap();
        let cache = Cache::new(&dir.path().join("kept"));
        std::fs::create_dir(cache.folder()).unwrap();
        let apart = Apart::new(&program, Path::new("models"), stop.clone());
        let built = apart.build("pit", &cache, &key());
        (dir, built)
    }

    #[test]
    fn a_build_leaves_its_plan_in_the_cache() {
        let go = CancellationToken::new();
        let (dir, built) = by("echo \"$@\" > asked; cp made/* kept", &go);
        assert_eq!(built.unwrap(), b"a plan");
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
        let kept = dir.path().join("kept");
        assert_eq!(
            asked.trim(),
            format!(
                "engines build --give-way --engines models --cache {} --model pit --precision fp16 --batches 20",
                kept.display()
            )
        );
        // More is said than a pipe holds.
        let (_, built) = by(
            "yes 'TensorRT says much' | head -c 300000 >&2; cp made/* kept",
            &go,
        );
        assert_eq!(built.unwrap(), b"a plan");
        let (_, built) = by(
            "echo one >&2; echo 'unknown operator Undercut' >&2; exit 1",
            &go,
        );
        let why = built.unwrap_err();
        assert!(
            why.contains("exit status: 1: unknown operator Undercut"),
            "{why}"
        );
        let (_, built) = by("echo 'no room' >&2", &go);
        let why = built.unwrap_err();
        assert!(why.contains("not kept for this machine: no room"), "{why}");
        let (_, built) = by("echo damaged > kept/$(ls made)", &go);
        assert!(built.unwrap_err().contains("not used"));
    }

    #[test]
    fn a_build_ends_when_the_daemon_stops() {
        let stop = CancellationToken::new();
        let ends = stop.clone();
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            ends.cancel();
        });
        let began = Instant::now();
        let (dir, built) = by("echo $$ > process; exec sleep 600", &stop);
        assert!(built.unwrap_err().contains("the daemon stops"));
        assert!(began.elapsed() < Duration::from_secs(30));
        later.join().unwrap();
        let process = std::fs::read_to_string(dir.path().join("process")).unwrap();
        assert!(!Path::new("/proc").join(process.trim()).exists());
    }
}
