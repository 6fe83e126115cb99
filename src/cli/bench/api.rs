//! `trackside bench api`: answers of the API and messages of its WebSocket a second.
//!
//! The baselines, in the same run: an answer that says next to nothing, and the same records read from
//! the journal without anybody to send them to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::child::{Broker, Daemon, Wired};
use super::publisher::{Packets, Publisher};
use super::{feed, quantile};
use crate::journal::{Journal, MAX_BATCH};

/// Messages of the feed that are in the journal and the state.
const MESSAGES: usize = 100_000;
/// Requests one after the other on one connection.
const REQUESTS: usize = 5_000;
/// How long the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what was published may take to be durable and folded.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures the API.
///
/// # Errors
/// If a process cannot be started or does not do its part.
pub fn run(recording: Option<&Path>) -> anyhow::Result<Value> {
    let scratch = tempfile::tempdir()?;
    let broker = Broker::start(scratch.path())?;
    let wired = Wired {
        broker: Some(&broker),
        publishes: false,
    };
    let daemon = Daemon::start(scratch.path(), wired)?;
    let mut packets = Packets::default();
    for message in feed::messages(recording, MESSAGES)? {
        packets.push(&message.topic, &message.payload)?;
    }
    Publisher::connect(&broker)?.publish(&packets, 0..packets.len())?;
    let records = settled(&daemon)?;

    let state = requests(&daemon, "/api/v1/state")?;
    let live = requests(&daemon, "/health/live")?;
    let (sent, bytes, seconds) = stream(&daemon, records)?;
    drop(daemon);
    let began = Instant::now();
    let reader = Journal::open_read_only(&scratch.path().join("data/records"), &mut |_| {})?;
    let mut next = reader.first_seq();
    loop {
        let batch = reader.batch(next, MAX_BATCH)?;
        if batch.entries.is_empty() {
            break;
        }
        next = batch.next_seq();
    }
    let read = next as f64 / began.elapsed().as_secs_f64();
    Ok(json!({
        "api": {
            "state": state,
            "websocket": {
                "messages": sent,
                "messages_per_s": sent as f64 / seconds,
                "bytes_per_s": bytes as f64 / seconds,
            },
        },
        "baseline": { "live": live, "journal_read_records_per_s": read },
    }))
}

/// Records in the journal once no more come.
fn settled(daemon: &Daemon) -> anyhow::Result<u64> {
    let (mut so_far, mut since) = (0.0, Instant::now());
    while since.elapsed() < SETTLE {
        std::thread::sleep(Duration::from_millis(200));
        let now = daemon.metrics()?.sum("trackside_journal_records_total", "");
        if now > so_far {
            (so_far, since) = (now, Instant::now());
        }
    }
    Ok(so_far as u64)
}

/// One request after the other on one connection.
fn requests(daemon: &Daemon, path: &str) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(daemon.address())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", daemon.address());
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let (mut body, mut line) = (Vec::new(), String::new());
    let mut each = Vec::with_capacity(REQUESTS);
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        stream.write_all(request.as_bytes())?;
        let mut length = 0;
        line.clear();
        answers.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "GET {path}: {line}");
        loop {
            line.clear();
            answers.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        body.resize(length, 0);
        answers.read_exact(&mut body)?;
        each.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    let per_s = REQUESTS as f64 / began.elapsed().as_secs_f64();
    Ok(json!({
        "requests_per_s": per_s,
        "bytes": body.len(),
        "p50_ms": quantile(&mut each, 0.5),
        "p99_ms": quantile(&mut each, 0.99),
    }))
}

/// Catches up with all records over the WebSocket: messages, their bytes, and how long it took (s).
fn stream(daemon: &Daemon, records: u64) -> anyhow::Result<(u64, u64, f64)> {
    let mut stream = TcpStream::connect(daemon.address())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let began = Instant::now();
    write!(
        stream,
        "GET /ws?topics=records&from_seq=0 HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dHJhY2tzaWRlLWJlbmNoIQ==\r\n\r\n",
        daemon.address()
    )?;
    let mut frames = BufReader::with_capacity(256 * 1024, stream);
    let mut line = String::new();
    frames.read_line(&mut line)?;
    ensure!(line.contains(" 101 "), "no WebSocket: {line}");
    while !line.trim().is_empty() {
        line.clear();
        frames.read_line(&mut line)?;
    }
    let (mut messages, mut bytes) = (0, 0);
    let mut payload = Vec::new();
    while messages < records {
        let mut head = [0; 2];
        frames
            .read_exact(&mut head)
            .with_context(|| format!("after {messages} of {records} records"))?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut more = [0; 2];
                frames.read_exact(&mut more)?;
                u64::from(u16::from_be_bytes(more))
            }
            127 => {
                let mut more = [0; 8];
                frames.read_exact(&mut more)?;
                u64::from_be_bytes(more)
            }
            short => u64::from(short),
        };
        payload.resize(usize::try_from(length)?, 0);
        frames.read_exact(&mut payload)?;
        if payload.starts_with(br#"{"type":"record""#) {
            messages += 1;
            bytes += length;
        }
    }
    Ok((messages, bytes, began.elapsed().as_secs_f64()))
}
