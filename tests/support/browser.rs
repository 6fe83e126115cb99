//! Chromium without a window, driven over its DevTools protocol: the page as a person's browser runs it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{Process, get, wait_for};

const UP_WITHIN: Duration = Duration::from_secs(180);
/// Longest wait for the answer to one command.
const ANSWERS_WITHIN: Duration = Duration::from_secs(180);

/// A browser with one page open.
pub struct Browser {
    _process: Process,
    runtime: Runtime,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    faults: Vec<String>,
    requests: Vec<String>,
}

impl Browser {
    /// Starts one with an empty profile in `folder`, at `url`.
    pub fn open(folder: &Path, url: &str) -> Browser {
        std::fs::create_dir_all(folder).expect("the browser's folder");
        let profile = folder.join("profile");
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank");
        let mut process = Process::start("chromium", command, &folder.join("chromium.log"));
        let port: u16 = wait_for("chromium to listen", UP_WITHIN, || {
            assert!(
                process.is_running(),
                "chromium has ended: {}",
                process.log()
            );
            let text = std::fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
            text.lines().next()?.parse().ok()
        });
        let page: String = wait_for("chromium's page", UP_WITHIN, || {
            let (_, body) = get(([127, 0, 0, 1], port).into(), "/json/list").ok()?;
            let list: Value = serde_json::from_str(&body).ok()?;
            let page = list.as_array()?.iter().find(|p| p["type"] == "page")?;
            Some(page["webSocketDebuggerUrl"].as_str()?.to_owned())
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (socket, _) = runtime
            .block_on(tokio_tungstenite::connect_async(page))
            .expect("chromium's DevTools");
        let mut browser = Browser {
            _process: process,
            runtime,
            socket,
            next_id: 0,
            faults: Vec::new(),
            requests: Vec::new(),
        };
        browser.call("Runtime.enable", json!({}));
        browser.call("Log.enable", json!({}));
        browser.call("Page.enable", json!({}));
        browser.call("Network.enable", json!({}));
        browser.call("Page.navigate", json!({ "url": url }));
        browser
    }

    /// The size of the window, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// The value of a JavaScript expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {}",
            answer["exceptionDetails"]
        );
        answer["result"]["value"].clone()
    }

    /// What the page has complained of so far: exceptions, errors in the console, requests that failed or
    /// were refused by its own policy.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Every address that the page has asked for so far, WebSockets included.
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Writes what the window shows into a PNG file.
    pub fn screenshot(&mut self, file: &Path) {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let picture = answer["data"].as_str().expect("a picture");
        std::fs::write(file, base64(picture)).expect("a file for the picture");
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({"id": id, "method": method, "params": params}).to_string();
        let Browser {
            runtime,
            socket,
            faults,
            requests,
            ..
        } = self;
        let answer = runtime.block_on(async {
            tokio::time::timeout(ANSWERS_WITHIN, async {
                socket.send(Message::text(request)).await.expect("a socket");
                loop {
                    let message = socket
                        .next()
                        .await
                        .expect("chromium lives")
                        .expect("a message");
                    let Message::Text(text) = message else {
                        continue;
                    };
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    if message["id"] == id {
                        return message;
                    }
                    faults.extend(fault(&message));
                    requests.extend(request_of(&message));
                }
            })
            .await
        });
        let mut answer = answer.unwrap_or_else(|_| panic!("chromium did not answer {method}"));
        assert!(
            answer.get("error").is_none(),
            "{method}: {}",
            answer["error"]
        );
        answer["result"].take()
    }
}

/// What is wrong, if an event says so.
fn fault(event: &Value) -> Option<String> {
    let params = &event["params"];
    let bad = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => true,
        "Log.entryAdded" => params["entry"]["level"] == "error",
        "Runtime.consoleAPICalled" => params["type"] == "error",
        _ => false,
    };
    bad.then(|| params.to_string())
}

/// The address that an event says is asked for.
fn request_of(event: &Value) -> Option<String> {
    let params = &event["params"];
    let url = match event["method"].as_str()? {
        "Network.requestWillBeSent" => &params["request"]["url"],
        "Network.webSocketCreated" => &params["url"],
        _ => return None,
    };
    url.as_str().map(str::to_owned)
}

/// The bytes behind base64 text (RFC 4648, as `DevTools` writes it).
fn base64(text: &str) -> Vec<u8> {
    let value = |symbol: u8| match symbol {
        b'A'..=b'Z' => Some(symbol - b'A'),
        b'a'..=b'z' => Some(symbol - b'a' + 26),
        b'0'..=b'9' => Some(symbol - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for six in text.bytes().map_while(value) {
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    bytes
}
