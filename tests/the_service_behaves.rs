//! What a service manager and an operator rely on: SIGTERM drains, SIGHUP reloads, systemd hears the truth,
//! and a wrong configuration is refused with its key, its value, its line and what is allowed.

#![forbid(unsafe_code)]
// Seeds and figures belong into the test's output.
#![allow(clippy::print_stdout)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use trackside::journal::{Journal, Options};

use support::{
    Broker, BrokerOptions, Daemon, Proxy, Publisher, Recording, Scratch, mqtt_source_at, trackside,
    wait_for,
};

const READY_WITHIN: Duration = Duration::from_secs(180);
const GONE_WITHIN: Duration = Duration::from_secs(180);
const TEN_MINUTES: &str = "recordings/2024-bahrain-race-first-10-minutes.ndjson.zst";
/// Messages in all, and after how many of them the daemon is told to stop. What may be on its way then must
/// be durable within the 15 s that a stopping source waits, also on a machine that is busy with other things.
const MESSAGES: usize = 8_000;
const STOP_AFTER: u64 = 2_000;

#[test]
fn sigterm_makes_durable_and_acknowledges_all_that_was_taken() {
    let Some(path) = support::data(TEN_MINUTES) else {
        return;
    };
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
    let proxy = Proxy::to(broker.port());
    let home = scratch.join("daemon");
    let sections = mqtt_source_at(&broker, proxy.port(), "service");
    let daemon = Daemon::start(&home, &sections, READY_WITHIN);
    daemon.wait_connected(READY_WITHIN);

    let publisher = Publisher::connect(&broker, "service-publisher");
    let published: Vec<_> = Recording::open(&path).take(MESSAGES).collect();
    for message in &published {
        publisher.publish(&message.topic, message.payload.clone());
    }
    wait_for("the middle of the stream", READY_WITHIN, || {
        let taken = daemon.metric("trackside_ingest_received_total")?;
        (taken >= STOP_AFTER as f64).then_some(())
    });
    let status = daemon.terminate(GONE_WITHIN);
    assert!(status.success(), "{status}");

    // Both ways: nothing acknowledged is missing, and nothing that is held was left unacknowledged, to be
    // delivered again.
    let mut held = count(&home);
    let (at_stop, taken) = (held.len(), proxy.acknowledged());
    let acknowledged = taken.iter().map(|payload| id(payload));
    for id in acknowledged {
        assert_eq!(held.remove(&id), Some(1), "{id} was acknowledged");
    }
    assert!(held.is_empty(), "{} held, not acknowledged", held.len());
    assert!(at_stop >= STOP_AFTER as usize, "{at_stop} held");
    Daemon::verify(&Daemon::data_in(&home)).expect("a whole journal");

    // The broker has kept the rest.
    publisher.wait_accepted(MESSAGES, READY_WITHIN);
    let daemon = Daemon::start(&home, &sections, READY_WITHIN);
    wait_for("all of it", READY_WITHIN, || {
        let durable = daemon.json("/health")["journal"]["durable_seq"].as_u64()?;
        (durable >= MESSAGES as u64).then_some(())
    });
    assert!(daemon.terminate(GONE_WITHIN).success());
    let held = count(&home);
    let wrong: Vec<_> = published
        .iter()
        .filter(|m| held.get(&m.id.expect("an _id")) != Some(&1))
        .map(|m| &m.payload)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} not exactly once: {:?}",
        wrong.len(),
        wrong.first()
    );
    println!("{at_stop} of {MESSAGES} held and acknowledged at SIGTERM, all of them in the end");
}

/// How often each `_id` is in the journal.
fn count(home: &Path) -> HashMap<i64, usize> {
    let mut times = HashMap::new();
    for record in Daemon::export(&Daemon::data_in(home)).expect("a journal that can be read") {
        *times.entry(record.id.expect("an _id")).or_default() += 1;
    }
    times
}

fn id(payload: &[u8]) -> i64 {
    let (_, id) = support::version(payload).expect("a document");
    id.expect("an _id")
}

#[test]
fn sighup_takes_over_the_level_of_the_log_and_a_wrong_one_changes_nothing() {
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(scratch.path(), "[log]\nlevel = \"warn\"\n", READY_WITHIN);
    assert!(
        !daemon.process().log().contains(" INFO "),
        "{}",
        daemon.process().log()
    );

    let mut reload = |level: &str, says: &str, times: usize| {
        let config = scratch.join("trackside.toml");
        let before = fs::read_to_string(&config).expect("a configuration");
        let lines = before
            .lines()
            .map(|line| match line.starts_with("level = ") {
                true => format!("level = \"{level}\"\n"),
                false => format!("{line}\n"),
            });
        fs::write(&config, lines.collect::<String>()).expect("a configuration");
        daemon.process().signal(Signal::HUP);
        wait_for(says, READY_WITHIN, || {
            (daemon.process().log().matches(says).count() == times).then_some(())
        });
        assert_eq!(daemon.get("/health").expect("an answer").0, 200);
    };
    reload("info", "the log's level is in force", 1);
    reload("loud", "all stays as it was", 1);
    // Still at info: else the word about it would not be there.
    reload("info", "the log's level is in force", 2);
    reload(
        "error,trackside::cli=info",
        "the log's level is in force",
        3,
    );
    let log = daemon.process().log();
    assert!(
        log.contains("loud") && log.contains("trace"),
        "what was wrong is not said: {log}"
    );
    daemon.process().signal(Signal::TERM);
    assert!(daemon.process().wait(GONE_WITHIN).success());
    assert!(daemon.process().log().contains("stopped"));
}

#[test]
fn a_wrong_configuration_is_refused_with_key_value_line_and_what_is_allowed() {
    let scratch = Scratch::new();
    let file = scratch.join("wrong.toml");
    // What it says, and what the refusal must name.
    let wrongs: [(&str, &[&str]); 9] = [
        (
            "[commit]\nrecord = 5\n",
            &["line 2", "record = 5", "records", "interval_ms"],
        ),
        (
            "[commit]\n\nrecords = 0\n",
            &["line 3", "commit.records", "is 0", "1 to 1000000"],
        ),
        (
            "[commit]\nrecords = \"many\"\n",
            &["line 2", "records = \"many\"", "expected"],
        ),
        (
            "[commit]\ninterval_ms = 5000\n",
            &["line 2", "interval_ms", "5000", "0 to 1000"],
        ),
        (
            "[log]\nformat = 'xml'\n",
            &["line 2", "format = 'xml'", "auto", "text", "json"],
        ),
        (
            "[log]\nlevel = 'loud'\n",
            &["line 2", "level", "loud", "error, warn, info"],
        ),
        (
            "[api]\nlisten = 'here'\n",
            &["line 2", "listen = 'here'", "address"],
        ),
        (
            "[[mqtt]]\nname = 'a'\nurl = 'mqtt://a'\n[[mqtt]]\nname = 'b'\nurl = 'http://b'\n",
            &["line 6", "url", "http://b", "mqtt://host[:port]"],
        ),
        (
            "[[mqtt]]\nurl = 'mqtt://a'\nqos = 2\n",
            &["line 3", "qos", "2", "0 or 1"],
        ),
    ];
    for (text, named) in wrongs {
        fs::write(&file, text).expect("a file");
        let output = trackside()
            .args(["run", "--config"])
            .arg(&file)
            .output()
            .expect("an answer");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "taken: {text}");
        for part in named.iter().copied().chain(["wrong.toml"]) {
            assert!(
                said.contains(part),
                "{part:?} is missing for {text:?}: {said}"
            );
        }
    }
    let output = trackside()
        .args(["run", "--config"])
        .arg(scratch.join("nowhere.toml"))
        .output()
        .expect("an answer");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("nowhere.toml"),
        "{said}"
    );
}

#[test]
fn who_reads_no_more_is_left_in_peace() {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    Journal::open(&data.join("records"), Options::default(), &mut |_| {})
        .and_then(Journal::close)
        .expect("an empty journal");
    let data = data.to_str().expect("a path");
    let commands: [&[&str]; 7] = [
        &["journal", "ls", "--data", data],
        &["journal", "ls", "--json", "--data", data],
        &["journal", "verify", "--data", data],
        &["journal", "export", "--out", "-", "--data", data],
        &["config", "show"],
        &["completions", "bash"],
        &["--help"],
    ];
    for command in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = trackside()
            .args(command)
            .stdout(writer)
            .output()
            .expect("an end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        assert!(!said.contains("panicked"), "{command:?}: {said}");
    }
    // Nor does it panic where nobody hears its faults.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = trackside()
        .args(["journal", "ls", "--data", "/nowhere"])
        .stderr(writer)
        .status()
        .expect("an end");
    assert_eq!(status.code(), Some(1));
}

/// What the service manager hears. `tests/run` builds with `--features systemd`; without it there is nobody
/// to speak, and these tests are counted as ignored.
mod notify {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// Pings come at half of it; every stage moves at least once a second, or a little later where the machine
    /// is busy with other things.
    const WATCHDOG: Duration = Duration::from_secs(8);
    /// A disk that does not answer for this long (far longer than the watchdog waits).
    const STUCK: Duration = Duration::from_secs(20);

    /// A socket as systemd gives one to a service.
    struct Manager {
        socket: UnixDatagram,
        heard: Vec<(Instant, String)>,
    }

    impl Manager {
        fn at(path: &Path) -> Manager {
            let socket = UnixDatagram::bind(path).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            Manager {
                socket,
                heard: Vec::new(),
            }
        }

        fn listen(&mut self) {
            let mut buffer = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let words = String::from_utf8_lossy(&buffer[..length]).into_owned();
                self.heard.push((Instant::now(), words));
            }
        }

        /// When each message came that begins like this.
        fn times(&mut self, begins: &str) -> Vec<Instant> {
            self.listen();
            let heard = self
                .heard
                .iter()
                .filter(|(_, said)| said.starts_with(begins));
            heard.map(|(at, _)| *at).collect()
        }

        fn wait(&mut self, begins: &str, times: usize, limit: Duration) {
            wait_for(begins, limit, || {
                (self.times(begins).len() >= times).then_some(())
            });
        }
    }

    fn under(mut command: Command, socket: &Path) -> Command {
        command.env("NOTIFY_SOCKET", socket);
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        command.env_remove("WATCHDOG_PID");
        command
    }

    #[test]
    #[cfg_attr(not(feature = "systemd"), ignore = "needs --features systemd")]
    fn systemd_hears_ready_status_watchdog_reloading_and_stopping() {
        let scratch = Scratch::new();
        let socket = scratch.join("notify");
        let mut manager = Manager::at(&socket);
        let mut daemon = Daemon::start_wrapped(&scratch.join("daemon"), "", READY_WITHIN, |c| {
            (under(c, &socket), false)
        });
        manager.wait("READY=1", 1, READY_WITHIN);
        manager.wait("STATUS=0 records on disk; 0 of 0 sources", 1, READY_WITHIN);
        manager.wait("WATCHDOG=1", 3, READY_WITHIN);
        let pings = manager.times("WATCHDOG=1");
        assert!(
            pings.windows(2).all(|two| two[1] - two[0] < WATCHDOG),
            "{pings:?}"
        );

        daemon.process().signal(Signal::HUP);
        manager.wait("RELOADING=1", 1, READY_WITHIN);
        manager.wait("READY=1", 2, READY_WITHIN);
        assert_eq!(manager.times("STOPPING=1").len(), 0);
        daemon.process().signal(Signal::TERM);
        assert!(daemon.process().wait(GONE_WITHIN).success());
        manager.wait("STOPPING=1", 1, GONE_WITHIN);
        let words: Vec<_> = manager
            .heard
            .iter()
            .map(|(_, said)| said.as_str())
            .collect();
        // It pings on while it drains, and promises nothing more.
        let last = words.iter().rfind(|word| **word != "WATCHDOG=1");
        assert_eq!(last, Some(&"STOPPING=1"), "{words:?}");
    }

    #[test]
    #[cfg_attr(not(feature = "systemd"), ignore = "needs --features systemd")]
    fn a_disk_that_never_answers_silences_the_watchdog() {
        let Some(path) = support::data(TEN_MINUTES) else {
            return;
        };
        let scratch = Scratch::new();
        let socket = scratch.join("notify");
        let mut manager = Manager::at(&socket);
        let broker = Broker::start(&scratch.join("broker"), BrokerOptions::default());
        let sections = mqtt_source_at(&broker, broker.port(), "stuck");
        let home = scratch.join("daemon");
        // Once records come, the writer's first flush takes longer than the watchdog's patience.
        let daemon = Daemon::start_wrapped(&home, &sections, READY_WITHIN, |c| {
            let mut strace = Command::new("strace");
            let delay = STUCK.as_micros();
            strace
                .args(["-f", "-qq", "-o"])
                .arg(scratch.join("strace"))
                .args(["-e", "trace=fdatasync"])
                .args([
                    "-e",
                    &format!("inject=fdatasync:delay_enter={delay}:when=1"),
                ])
                .arg(c.get_program())
                .args(c.get_args());
            (under(strace, &socket), true)
        });
        daemon.wait_connected(READY_WITHIN);
        manager.wait("WATCHDOG=1", 1, READY_WITHIN);
        let publisher = Publisher::connect(&broker, "stuck-publisher");
        for message in Recording::open(&path).take(100) {
            publisher.publish(&message.topic, message.payload);
        }
        manager.wait("STATUS=no progress in writer", 1, READY_WITHIN);
        let longest = |pings: &[Instant]| pings.windows(2).map(|two| two[1] - two[0]).max();
        let before = manager.times("WATCHDOG=1").len();
        manager.wait("WATCHDOG=1", before + 1, READY_WITHIN);
        let pings = manager.times("WATCHDOG=1");
        assert!(
            longest(&pings) > Some(WATCHDOG),
            "systemd would not have noticed: {pings:?}"
        );
    }
}
