//! Processes of a measurement: mosquitto, the daemon, and a subscriber that does nothing but count.
//!
//! *Invariant:* whatever was started here is gone when its value is dropped, and it listens on loopback
//! only.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to start.
const START: Duration = Duration::from_secs(20);
/// How long it may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(15);
/// Between two looks at a process that starts or stops.
const LOOK: Duration = Duration::from_millis(2);
/// How long an answer of the daemon may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Ticks a second in /proc (`USER_HZ`; the same on every Linux that we run on).
const TICKS_PER_S: f64 = 100.0;

/// A process, asked to stop and then made to when this is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time that a process has used so far (s).
pub fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = after
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<u64>().ok())
        .sum();
    Ok(ticks as f64 / TICKS_PER_S)
}

fn wait(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !done()? {
        ensure!(began.elapsed() < START, "waited {START:?} for {what}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// mosquitto, without limits on what waits for a subscriber.
pub struct Broker {
    process: Guarded,
    port: u16,
}

impl Broker {
    /// Starts one whose files lie in `scratch`.
    pub fn start(scratch: &Path) -> anyhow::Result<Broker> {
        // Free a moment ago; should another take it meanwhile, mosquitto says so and ends.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let file = scratch.join("mosquitto.conf");
        std::fs::write(
            &file,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
                 set_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\n\
                 max_queued_bytes 0\nlog_dest none\n"
            ),
        )?;
        let sbin = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("mosquitto")
            .env("PATH", sbin)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("mosquitto cannot be started; install it (apt-get install mosquitto)")?;
        let mut process = Guarded(child);
        wait("mosquitto to listen", || {
            if let Some(status) = process.0.try_wait()? {
                bail!("mosquitto ended at once: {status}");
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        })?;
        Ok(Broker { process, port })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(self.process.0.id())
    }
}

/// The daemon: this very binary, in a process of its own.
pub struct Daemon {
    process: Guarded,
    address: SocketAddr,
    started_in: Duration,
}

/// What the daemon is to do with a broker.
#[derive(Clone, Copy)]
pub struct Wired<'a> {
    pub broker: Option<&'a Broker>,
    /// Whether it publishes its predictions, too.
    pub publishes: bool,
}

impl Daemon {
    /// Starts one whose data lie in `scratch`, and waits until its sources are connected.
    pub fn start(scratch: &Path, wired: Wired) -> anyhow::Result<Daemon> {
        let (config, ready) = (scratch.join("trackside.toml"), scratch.join("ready"));
        let data = scratch.join("data");
        let mut text = format!(
            "data_dir = {data:?}\n[log]\nlevel = \"warn\"\n[api]\nlisten = \"127.0.0.1:0\"\n"
        );
        if let Some(broker) = wired.broker {
            let at = format!("url = \"mqtt://127.0.0.1:{}\"\n", broker.port);
            text += &format!("[[mqtt]]\nname = \"bench\"\nclient_id = \"bench\"\n{at}");
            if wired.publishes {
                text += &format!("[publish.mqtt]\nclient_id = \"bench-publisher\"\n{at}");
            }
        }
        std::fs::write(&config, text)?;
        match std::fs::remove_file(&ready) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let log = std::fs::File::create(scratch.join("trackside.log"))?;
        let mut command = Command::new(own_binary()?);
        command.arg("run").arg("--config").arg(&config);
        command.arg("--ready-file").arg(&ready);
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut process = Guarded(child);
        let mut address = None;
        wait("the daemon to be ready", || {
            if let Some(status) = process.0.try_wait()? {
                let log = std::fs::read_to_string(scratch.join("trackside.log"))?;
                bail!("the daemon ended at once: {status}\n{log}");
            }
            // Renamed into its place when it is whole.
            if let Ok(text) = std::fs::read_to_string(&ready) {
                address = Some(text.trim().parse()?);
            }
            Ok(address.is_some())
        })?;
        let daemon = Daemon {
            process,
            address: address.context("no address")?,
            started_in: began.elapsed(),
        };
        if wired.broker.is_some() {
            wait("the daemon's source to be connected", || {
                let health: serde_json::Value = serde_json::from_str(&daemon.get("/health")?)?;
                let sources = health["sources"].as_array();
                Ok(sources
                    .is_some_and(|s| !s.is_empty() && s.iter().all(|s| s["state"] == "connected")))
            })?;
        }
        Ok(daemon)
    }

    /// From the start of the process to the file that says that it is ready.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(self.process.0.id())
    }

    /// A field of its `/proc/…/status` (bytes).
    pub fn memory(&self, field: &str) -> anyhow::Result<u64> {
        super::memory_of(&self.process.0.id().to_string(), field)
    }

    /// The body of a path of its API.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("GET {path}: no answer"))?;
        Ok(body.to_owned())
    }

    /// Its metrics, as it shows them.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        Ok(Metrics(self.get("/metrics")?))
    }

    /// Waits until it has made that many records durable.
    pub fn wait_durable(&self, records: u64, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let durable = self.metrics()?.sum("trackside_journal_records_total", "");
            if durable >= records as f64 {
                return Ok(());
            }
            ensure!(
                began.elapsed() < limit,
                "waited {limit:?} for {records} records; {durable} are durable"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Metrics in Prometheus's text.
pub struct Metrics(String);

impl Metrics {
    /// The sum of the series of that name whose labels contain `label`.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        self.series(name, label).map(|(_, value)| value).sum()
    }

    /// Labels and value of each series of that name whose labels contain `label`.
    fn series<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let whole = labels.is_empty() || labels.starts_with('{');
            (whole && labels.contains(label)).then_some((labels, value.parse().ok()?))
        })
    }

    /// Upper bounds and cumulative counts of a histogram, in the order of its bounds.
    pub fn buckets(&self, name: &str, label: &str) -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        self.series(&name, label)
            .filter_map(|(labels, count)| {
                let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
                let bound = match bound {
                    "+Inf" => f64::INFINITY,
                    number => number.parse().ok()?,
                };
                Some((bound, count))
            })
            .collect()
    }
}

/// A subscriber that counts and acknowledges and does nothing else, in a process of its own.
pub struct BareSubscriber {
    process: Guarded,
    says: BufReader<ChildStdout>,
}

impl BareSubscriber {
    /// Starts one that waits for `messages`, and waits until it is subscribed.
    pub fn start(broker: &Broker, messages: u64) -> anyhow::Result<BareSubscriber> {
        let mut child = Command::new(own_binary()?)
            .args(["bench", "bare-subscriber", "--port"])
            .arg(broker.port.to_string())
            .arg("--messages")
            .arg(messages.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let says = child.stdout.take().context("no pipe")?;
        let mut subscriber = BareSubscriber {
            process: Guarded(child),
            says: BufReader::new(says),
        };
        subscriber.hear("subscribed")?;
        Ok(subscriber)
    }

    /// Waits until it has counted them all; `messages` beyond its own limit of time are an error.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.hear("counted")
    }

    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(self.process.0.id())
    }

    fn hear(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        ensure!(
            line.trim() == word,
            "the bare subscriber says {line:?}, not {word:?}"
        );
        Ok(())
    }
}

fn own_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("where this binary lies")
}
