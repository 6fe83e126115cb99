//! mosquitto on a free local port.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::{Process, wait_for};

const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;
const UP_WITHIN: Duration = Duration::from_secs(180);
const DOWN_WITHIN: Duration = Duration::from_secs(180);

/// How the broker is set up.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Keep sessions and queued messages over a restart.
    pub persistence: bool,
    /// Most unacknowledged messages to one client; 0 is no limit.
    pub max_inflight: u32,
    /// Most messages queued for one client; 0 is no limit.
    pub max_queued: u32,
    /// TLS, with a certificate authority of its own.
    pub tls: bool,
    /// User and password that every client must give.
    pub login: Option<(String, String)>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        BrokerOptions {
            persistence: true,
            max_inflight: 0,
            max_queued: 0,
            tls: false,
            login: None,
        }
    }
}

/// A running (or stopped, or hanging) broker. Its port and its data stay over restarts.
pub struct Broker {
    folder: PathBuf,
    options: BrokerOptions,
    port: u16,
    process: Option<Process>,
}

impl Broker {
    /// Starts one whose files lie in `folder`.
    pub fn start(folder: &Path, options: BrokerOptions) -> Broker {
        fs::create_dir_all(folder).expect("the broker's folder");
        let mut broker = Broker {
            folder: folder.to_owned(),
            options,
            port: free_port(),
            process: None,
        };
        broker.write_configuration();
        broker.start_again();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn options(&self) -> &BrokerOptions {
        &self.options
    }

    /// PEM file of the authority that signed the broker's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// In order: with persistence, what it holds is written to disk first.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate(DOWN_WITHIN);
        }
    }

    /// `kill -9`: what it had not written is lost with it.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// It hangs: connections stay open, nothing moves.
    pub fn hang(&self) {
        self.running().signal(Signal::STOP);
    }

    /// It moves again.
    pub fn go_on(&self) {
        self.running().signal(Signal::CONT);
    }

    /// On the same port, with the same data.
    pub fn start_again(&mut self) {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        let log = self.folder.join("mosquitto.log");
        let mut process = Process::start("mosquitto", command, &log);
        let address = ([127, 0, 0, 1], self.port).into();
        wait_for("mosquitto to listen", UP_WITHIN, || {
            assert!(
                process.is_running(),
                "mosquitto has ended; is its port free?"
            );
            TcpStream::connect_timeout(&address, UP_WITHIN).ok()
        });
        self.process = Some(process);
    }

    /// Resident memory (bytes).
    pub fn resident_bytes(&self) -> u64 {
        self.running().resident_bytes()
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the broker is stopped")
    }

    fn write_configuration(&self) {
        let folder = self.folder.display();
        let o = &self.options;
        let mut text = format!(
            "per_listener_settings false\n\
             user root\n\
             listener {} 127.0.0.1\n\
             persistence {}\n\
             persistence_location {folder}/\n\
             max_inflight_messages {}\n\
             max_queued_messages {}\n\
             log_dest stderr\n\
             log_type error\nlog_type warning\nlog_type notice\n\
             allow_anonymous {}\n",
            self.port,
            o.persistence,
            o.max_inflight,
            o.max_queued,
            o.login.is_none()
        );
        if let Some((user, password)) = &o.login {
            let file = self.folder.join("passwords");
            run(Command::new("mosquitto_passwd")
                .args(["-c", "-b"])
                .arg(&file)
                .args([user, password]));
            writeln!(text, "password_file {}", file.display()).expect("a String");
        }
        if o.tls {
            make_certificates(&self.folder);
            writeln!(
                text,
                "certfile {folder}/server.pem\nkeyfile {folder}/server.key"
            )
            .expect("a String");
        }
        fs::write(self.folder.join("mosquitto.conf"), text).expect("a configuration");
    }
}

/// An authority and a certificate for `localhost` and 127.0.0.1 that it signed.
fn make_certificates(folder: &Path) {
    let openssl = || {
        let mut command = Command::new("openssl");
        command.current_dir(folder);
        command
    };
    let curve = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    run(openssl()
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=test authority"])
        .args(curve)
        .args(["-keyout", "ca.key", "-out", "ca.pem"]));
    run(openssl()
        .args(["req", "-subj", "/CN=localhost"])
        .args(curve)
        .args(["-keyout", "server.key", "-out", "server.csr"]));
    fs::write(
        folder.join("server.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .expect("an extension file");
    run(openssl()
        .args([
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
        ])
        .args([
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "server.ext",
        ])
        .args(["-out", "server.pem"]));
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A port that nobody listens on now, dealt out once. It is below the range that the kernel deals out to
/// outgoing connections, so that nobody is likely to take it while a broker is restarted.
pub fn free_port() -> u16 {
    static DEALT: AtomicU16 = AtomicU16::new(0);
    let start = FIRST_PORT + u16::try_from(std::process::id() % 8_000).expect("below 8,000");
    std::iter::repeat_with(|| start + DEALT.fetch_add(1, Ordering::Relaxed))
        .take_while(|port| *port < LAST_PORT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
