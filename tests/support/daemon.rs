//! Our binary, run for real.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::{Broker, Process, Recorded, get, wait_for};

/// A command of the binary that is under test.
pub fn trackside() -> Command {
    Command::new(env!("CARGO_BIN_EXE_trackside"))
}

/// The `[[mqtt]]` section for a broker.
pub fn mqtt_source(broker: &Broker, client_id: &str) -> String {
    mqtt_source_at(broker, broker.port(), client_id)
}

/// As [`mqtt_source`], but by way of `port`, where something stands between the daemon and the broker.
pub fn mqtt_source_at(broker: &Broker, port: u16, client_id: &str) -> String {
    // By name with TLS, as the certificate says.
    let host = if broker.options().tls {
        "mqtts://localhost"
    } else {
        "mqtt://127.0.0.1"
    };
    let mut text = format!(
        "[[mqtt]]\nname = \"{client_id}\"\nurl = \"{host}:{port}\"\nclient_id = \"{client_id}\"\n"
    );
    if let Some((user, password)) = &broker.options().login {
        writeln!(text, "username = \"{user}\"\npassword = \"{password}\"").expect("a String");
    }
    if broker.options().tls {
        writeln!(text, "ca_file = \"{}\"", broker.authority().display()).expect("a String");
    }
    text
}

/// A running daemon. Its configuration, data and log lie in one folder, which outlives it.
pub struct Daemon {
    folder: PathBuf,
    process: Process,
    address: SocketAddr,
}

impl Daemon {
    /// Starts it with `folder/data` as its data and `sections` as the rest of its configuration, and
    /// waits until it is ready.
    pub fn start(folder: &Path, sections: &str, ready_within: Duration) -> Daemon {
        Self::start_wrapped(folder, sections, ready_within, |command| (command, false))
    }

    /// As [`Daemon::start`]; `wrap` may change the command, or put it behind another program, and says
    /// whether it did the latter.
    pub fn start_wrapped(
        folder: &Path,
        sections: &str,
        ready_within: Duration,
        wrap: impl FnOnce(Command) -> (Command, bool),
    ) -> Daemon {
        let daemon = Self::spawn(folder, sections, ready_within, wrap);
        wait_for("trackside to be healthy", ready_within, || {
            matches!(daemon.get("/health"), Ok((200, _))).then_some(())
        });
        daemon
    }

    /// As [`Daemon::start`], where something is wrong with its surroundings: waits until it answers, not
    /// until all is well.
    pub fn start_unwell(folder: &Path, sections: &str, ready_within: Duration) -> Daemon {
        Self::spawn(folder, sections, ready_within, |command| (command, false))
    }

    fn spawn(
        folder: &Path,
        sections: &str,
        ready_within: Duration,
        wrap: impl FnOnce(Command) -> (Command, bool),
    ) -> Daemon {
        let data = Self::data_in(folder);
        fs::create_dir_all(&data).expect("the data folder");
        let config = folder.join("trackside.toml");
        let mut text = format!(
            "data_dir = \"{}\"\n{sections}\n[api]\nlisten = \"127.0.0.1:0\"\n",
            data.display()
        );
        if !sections.contains("[engines]") {
            // Most promises are not about models, and loading them takes as long as a whole life here.
            text.push_str("[engines]\ndir = \"none\"\n");
        }
        fs::write(&config, text).expect("a configuration");
        let ready = folder.join("ready");
        let _ = fs::remove_file(&ready);

        let mut command = trackside();
        command.arg("run").arg("--config").arg(&config);
        command.arg("--ready-file").arg(&ready);
        let (command, wrapped) = wrap(command);
        let mut process = Process::start("trackside", command, &folder.join("trackside.log"));
        let address: SocketAddr = wait_for("trackside to be ready", ready_within, || {
            assert!(
                process.is_running(),
                "trackside has ended: {}",
                process.log()
            );
            fs::read_to_string(&ready).ok()?.trim().parse().ok()
        });
        if wrapped {
            process.look_inside();
        }
        Daemon {
            folder: folder.to_owned(),
            process,
            address,
        }
    }

    /// The data folder of a daemon that runs in `folder`.
    pub fn data_in(folder: &Path) -> PathBuf {
        folder.join("data")
    }

    pub fn data(&self) -> PathBuf {
        Self::data_in(&self.folder)
    }

    /// Where its API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Status and body of a path of its API.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        get(self.address, path)
    }

    /// A path of its API as JSON.
    pub fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path).unwrap_or_else(|e| panic!("GET {path}: {e}"));
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("GET {path}: {e}: {body}"))
    }

    /// Waits until every source is connected and subscribed: what is published before that, no broker keeps
    /// for a daemon that it has never seen.
    pub fn wait_connected(&self, limit: Duration) {
        wait_for("every source to be connected", limit, || {
            let health = self.json("/health");
            let sources = health["sources"].as_array()?;
            (!sources.is_empty() && sources.iter().all(|s| s["state"] == "connected")).then_some(())
        });
    }

    /// The sum over all labels of a metric; `None` while it does not exist.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, body) = self.get("/metrics").ok()?;
        let mut found = None;
        for line in body.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            if series.split('{').next() == Some(name) {
                *found.get_or_insert(0.0) += value.parse::<f64>().ok()?;
            }
        }
        found
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// SIGTERM: drains, flushes and goes.
    pub fn terminate(mut self, limit: Duration) -> ExitStatus {
        self.process.terminate(limit)
    }

    /// Every record in a data folder, in the order of their sequence; works beside a running daemon.
    ///
    /// # Errors
    /// What `trackside journal export` said, if it failed.
    pub fn export(data: &Path) -> Result<Vec<Recorded>, String> {
        let output = trackside()
            .args([
                "journal", "export", "--format", "ndjson", "--out", "-", "--data",
            ])
            .arg(data)
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!(
                "journal export: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        String::from_utf8(output.stdout)
            .map_err(|e| e.to_string())?
            .lines()
            .map(Recorded::parse)
            .collect()
    }

    /// # Errors
    /// What `trackside journal verify` found wrong.
    pub fn verify(data: &Path) -> Result<(), String> {
        let output = trackside()
            .args(["journal", "verify", "--data"])
            .arg(data)
            .output()
            .map_err(|e| e.to_string())?;
        output.status.success().then_some(()).ok_or_else(|| {
            format!(
                "journal verify: {}: {}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }
}
