//! Configuration: one TOML file, every key overridable as `TRACKSIDE__SECTION__KEY`.
//!
//! Parsed once into typed values; nothing past this point sees a string. A wrong key or value is
//! refused with the line, what was found and what is allowed.
//!
//! ```
//! use trackside::config::Config;
//! let config = Config::from_toml("data_dir = '/var/lib/trackside'\n[api]\nlisten = '127.0.0.1:8040'").unwrap();
//! assert_eq!(config.api.listen.port(), 8040);
//! let wrong = Config::from_toml("[api]\nlissten = '127.0.0.1:8040'").unwrap_err();
//! assert!(wrong.to_string().contains("line 2"));
//! ```
//!
//! **Invariant:** a [`Config`] that exists is valid.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::compute::Choice;
use crate::engines::{Acceleration, Chosen};
use crate::ingest::{mqtt, openf1, writer::CommitOptions, zenoh};
use crate::insight::telemetry::MAX_LIMITS;
use crate::insight::thread::MOST_NAMED;
use crate::insight::{self, Limit};
use crate::journal;
use crate::observability::{self, LogFormat};
use crate::publish;
use crate::strategy::rules;

/// Prefix of environment variables that override keys.
pub const ENV_PREFIX: &str = "TRACKSIDE__";
/// Most MQTT sources.
pub const MAX_MQTT_SOURCES: usize = 16;
/// Most channels in the registry.
pub const MAX_CHANNELS: usize = 1_024;

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the journals lie.
    pub data_dir: PathBuf,
    pub log: Log,
    /// The journal of records: segments, retention, reserve.
    pub journal: journal::Options,
    /// How records are gathered into commits.
    pub commit: CommitOptions,
    /// MQTT brokers to ingest from.
    pub mqtt: Vec<mqtt::Options>,
    /// Zenoh, where it is to be ingested from.
    pub zenoh: Option<zenoh::Options>,
    /// OpenF1's live feed, where it is to be ingested from.
    pub openf1: Option<openf1::Options>,
    pub publish: Publish,
    pub api: Api,
    pub engines: Engines,
    pub compute: Compute,
    /// Rules of the race that is on, where they are not those of the table: `min_stops`, `longest_stint_laps`.
    pub strategy: rules::Told,
    /// High-rate channels: name to unit, meaning and limits.
    pub channels: BTreeMap<String, Channel>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("/var/lib/trackside"),
            log: Log::default(),
            journal: journal::Options::default(),
            commit: CommitOptions::default(),
            mqtt: Vec::new(),
            zenoh: None,
            openf1: None,
            publish: Publish::default(),
            api: Api::default(),
            engines: Engines::default(),
            compute: Compute::default(),
            strategy: rules::Told::default(),
            channels: BTreeMap::new(),
        }
    }
}

/// Logging. Reloaded on SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as
    /// `info,trackside::ingest=debug`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// Where answers are published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    pub mqtt: Option<publish::mqtt::Options>,
    pub zenoh: Option<publish::zenoh::Options>,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Address and port; port 0 takes a free one.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
}

fn address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is no address and port; write 127.0.0.1:8040, or 0.0.0.0:8040 for every network"
        ))
    })
}

impl Default for Api {
    fn default() -> Self {
        Api {
            listen: SocketAddr::from(([127, 0, 0, 1], 8040)),
        }
    }
}

/// The trained models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engines {
    /// Their folder, or `none` for the statistical floor alone; empty: beside the program, else `engines/`.
    pub dir: Chosen,
    /// Whether models are given to a GPU where TensorRT is: `fp32`, `fp16`, or `off`. Engines that were built are
    /// kept in `engines` of the data directory.
    pub tensorrt: Acceleration,
}

/// What is worked out beside the pipeline: telemetry, laps, stints, simulated races.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compute {
    /// `auto` (a GPU where one works, else the CPU), `cpu`, or `cuda` (the CPU, with an error in the log, where there
    /// is no GPU: a daemon does not stand still for want of one).
    pub backend: Choice,
    /// `false`: these stages are left out.
    pub live: bool,
    /// Driver numbers of the cars whose stops are simulated at every mini-sector; where it is empty, those at the front.
    pub cars: Vec<u8>,
}

impl Default for Compute {
    fn default() -> Self {
        Compute {
            backend: Choice::Auto,
            live: true,
            cars: Vec::new(),
        }
    }
}

/// What a high-rate channel measures.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Unit, such as `km/h`.
    pub unit: String,
    #[serde(default)]
    pub description: String,
    /// Below and above these there is an alert.
    #[serde(default)]
    pub low: Option<f64>,
    #[serde(default)]
    pub high: Option<f64>,
}

/// Why a configuration was refused. The message is for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Refused(String),
    #[error("environment variable {name}={value:?} is refused: {why}")]
    Environment {
        name: String,
        value: String,
        why: String,
    },
}

impl Config {
    /// Reads `path` (or nothing but defaults) and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`], naming the line or the variable.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let text = match path {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
                    path: path.to_owned(),
                    source,
                })?
            }
        };
        let environment = std::env::vars().filter(|(name, _)| name.starts_with(ENV_PREFIX));
        Config::from_parts(&text, environment).map_err(|e| match (e, path) {
            (ConfigError::Refused(why), Some(path)) => {
                ConfigError::Refused(format!("{}: {why}", path.display()))
            }
            (e, _) => e,
        })
    }

    /// Reads a file's text alone.
    ///
    /// # Errors
    /// [`ConfigError::Refused`], naming the line.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        Config::from_parts(text, std::iter::empty())
    }

    /// Reads a file's text, then lays `environment` over it, in the order of the names.
    ///
    /// # Errors
    /// [`ConfigError`], naming the line or the variable.
    pub fn from_parts(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut environment: Vec<_> = environment.collect();
        environment.sort();
        let from_file = toml::from_str::<Config>(text);
        if environment.is_empty() {
            return from_file.map_err(refused)?.checked(text, &environment);
        }
        let mut table = toml::from_str::<toml::Table>(text).map_err(refused)?;
        let mut config = from_file;
        for (name, value) in &environment {
            let refuse = |why: String| ConfigError::Environment {
                name: name.clone(),
                value: value.clone(),
                why,
            };
            let path: Vec<String> = name[ENV_PREFIX.len()..]
                .split("__")
                .map(str::to_ascii_lowercase)
                .collect();
            set(&mut table, &path, parse_value(value)).map_err(refuse)?;
            let refuse = |why: String| ConfigError::Environment {
                name: name.clone(),
                value: value.clone(),
                why,
            };
            config = match (table.clone().try_into::<Config>(), config) {
                (Ok(config), _) => Ok(config),
                // The variable broke what was whole.
                (Err(e), Ok(_)) => return Err(refuse(e.message().to_owned())),
                // The file was not whole before; a later variable may complete it.
                (Err(_), Err(e)) => Err(e),
            };
        }
        config.map_err(refused)?.checked(text, &environment)
    }

    /// The whole configuration as [`Config::from_toml`] reads it, passwords as `***`.
    ///
    /// # Errors
    /// If a value has no form in TOML: a number beyond 63 bits, or a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// What is worked out beside the pipeline.
    pub fn insight(&self) -> insight::Options {
        insight::Options {
            backend: self.compute.backend,
            cars: self.compute.cars.clone(),
            limits: self.limits(),
            rules: self.strategy,
        }
    }

    /// The limits of channels.
    fn limits(&self) -> Vec<Limit> {
        let mut limits = Vec::new();
        for (name, channel) in &self.channels {
            for (is_upper, limit) in [(false, channel.low), (true, channel.high)] {
                limits.extend(limit.map(|limit| Limit {
                    channel: name.clone(),
                    is_upper,
                    limit,
                }));
            }
        }
        limits
    }

    /// Whether every value is one that the rooms take.
    fn check(&self) -> Result<(), Wrong> {
        if self.data_dir.as_os_str().is_empty() {
            let why = "data_dir is empty; give a folder such as /var/lib/trackside";
            return Err(Wrong::at(&["data_dir"], why));
        }
        if self.mqtt.len() > MAX_MQTT_SOURCES {
            let sources = self.mqtt.len();
            let why = format!("{sources} [[mqtt]] sources; at most {MAX_MQTT_SOURCES} are allowed");
            return Err(Wrong::at(&["mqtt"], why));
        }
        if self.channels.len() > MAX_CHANNELS {
            let channels = self.channels.len();
            let why = format!("{channels} [channels]; at most {MAX_CHANNELS} are allowed");
            return Err(Wrong::at(&["channels"], why));
        }
        for (name, channel) in &self.channels {
            let (low, high) = (channel.low, channel.high);
            let numbers = [low, high].into_iter().flatten().all(f64::is_finite);
            if !numbers || low.zip(high).is_some_and(|(low, high)| low >= high) {
                let why = format!(
                    "[channels] {name}: low is {low:?} and high {high:?}; allowed: numbers, low below high"
                );
                return Err(Wrong::at(&["channels", name, "low"], why));
            }
        }
        let limits = self.limits().len();
        if limits > MAX_LIMITS {
            let why = format!("{limits} limits in [channels]; at most {MAX_LIMITS} are allowed");
            return Err(Wrong::at(&["channels"], why));
        }
        if self.compute.cars.len() > MOST_NAMED
            || self.compute.cars.iter().any(|n| !(1..=99).contains(n))
        {
            let cars = &self.compute.cars;
            let why = format!(
                "compute.cars is {cars:?}; allowed: at most {MOST_NAMED} driver numbers from 1 to 99"
            );
            return Err(Wrong::at(&["compute", "cars"], why));
        }
        self.strategy
            .check()
            .map_err(|(key, why)| Wrong::at(&["strategy", key], format!("strategy.{why}")))?;
        if !(1..=1_000_000).contains(&self.commit.records) {
            let records = self.commit.records;
            let why = format!("commit.records is {records}; allowed: 1 to 1000000");
            return Err(Wrong::at(&["commit", "records"], why));
        }
        if self.commit.interval_ms > 1_000 {
            let interval = self.commit.interval_ms;
            let why = format!("commit.interval_ms is {interval}; allowed: 0 to 1000");
            return Err(Wrong::at(&["commit", "interval_ms"], why));
        }
        self.journal.validate().map_err(|e| {
            let path = ["journal"].into_iter().chain(e.key.split('.'));
            Wrong::at(&path.collect::<Vec<_>>(), format!("journal.{e}"))
        })?;
        if let Chosen::Folder(folder) = &self.engines.dir
            && !folder.is_dir()
        {
            let why = format!(
                "engines.dir is {}, which is no folder; give one, `none`, or leave it out",
                folder.display()
            );
            return Err(Wrong::at(&["engines", "dir"], why));
        }
        self.check_clients()?;
        self.check_files()?;
        observability::filter(&self.log.level)
            .map_err(|e| Wrong::at(&["log", "level"], format!("[log] {e}")))?;
        for (i, source) in self.mqtt.iter().enumerate() {
            let (number, index) = (i + 1, i.to_string());
            source.validate().map_err(|e| {
                Wrong::within(&["mqtt", &index], &format!("[[mqtt]] number {number}"), e)
            })?;
        }
        if let Some(options) = &self.zenoh {
            let wrong = |e| Wrong::within(&["zenoh"], "[zenoh]", e);
            options.validate().map_err(wrong)?;
        }
        if let Some(options) = &self.openf1 {
            let wrong = |e| Wrong::within(&["openf1"], "[openf1]", e);
            options.validate().map_err(wrong)?;
        }
        if let Some(options) = &self.publish.mqtt {
            let wrong = |e| Wrong::within(&["publish", "mqtt"], "[publish.mqtt]", e);
            options.validate().map_err(wrong)?;
        }
        if let Some(options) = &self.publish.zenoh {
            let wrong = |e| Wrong::within(&["publish", "zenoh"], "[publish.zenoh]", e);
            options.validate().map_err(wrong)?;
        }
        Ok(())
    }

    /// Whether every client of a broker has an id of its own: a broker lets go of one when another of the same
    /// id comes, and so on for ever.
    fn check_clients(&self) -> Result<(), Wrong> {
        let mut clients: Vec<(String, &str)> = Vec::new();
        if let Some(publisher) = &self.publish.mqtt {
            let broker = &publisher.broker;
            clients.push((broker.client_id_for("publisher"), &broker.url));
        }
        for (i, source) in self.mqtt.iter().enumerate() {
            let client = (
                source.broker.client_id_for(&source.name),
                &*source.broker.url,
            );
            if clients.contains(&client) {
                let why = format!(
                    "[[mqtt]] number {}: another client of {} has the id {:?}, too, and a broker keeps but one of \
                     them; give each source a name (or a client_id) of its own",
                    i + 1,
                    client.1,
                    client.0
                );
                return Err(Wrong::at(&["mqtt", &i.to_string(), "name"], why));
            }
            clients.push(client);
        }
        Ok(())
    }

    /// Whether the files that are named exist. What is in them is read when it is needed, as it may change.
    fn check_files(&self) -> Result<(), Wrong> {
        let exists = |section: &[&str], key: &str, file: Option<&Path>| {
            // One that may not be looked at from here may be the daemon's to read.
            match file.map(|f| (f, f.try_exists())) {
                Some((file, Ok(false))) => {
                    let why = format!("{key} is {}, and there is no such file", file.display());
                    Err(Wrong::at(&[section, &[key]].concat(), why))
                }
                _ => Ok(()),
            }
        };
        let of_broker = |section: &[&str], broker: &mqtt::Broker| {
            exists(section, "password_file", broker.password_file.as_deref())?;
            exists(section, "ca_file", broker.ca_file.as_deref())?;
            exists(
                section,
                "client_cert_file",
                broker.client_cert_file.as_deref(),
            )?;
            exists(
                section,
                "client_key_file",
                broker.client_key_file.as_deref(),
            )
        };
        for (i, source) in self.mqtt.iter().enumerate() {
            of_broker(&["mqtt", &i.to_string()], &source.broker)?;
        }
        if let Some(publisher) = &self.publish.mqtt {
            of_broker(&["publish", "mqtt"], &publisher.broker)?;
        }
        if let Some(zenoh) = &self.zenoh {
            let file = zenoh.network.password_file.as_deref();
            exists(&["zenoh", "network"], "password_file", file)?;
        }
        if let Some(zenoh) = &self.publish.zenoh {
            let file = zenoh.network.password_file.as_deref();
            exists(&["publish", "zenoh", "network"], "password_file", file)?;
        }
        if let Some(openf1) = &self.openf1 {
            exists(
                &["openf1"],
                "password_file",
                openf1.password_file.as_deref(),
            )?;
            exists(&["openf1"], "ca_file", openf1.ca_file.as_deref())?;
        }
        Ok(())
    }

    /// The same configuration if it is valid; `text` and `environment` are what it was read from.
    fn checked(self, text: &str, environment: &[(String, String)]) -> Result<Config, ConfigError> {
        let Err(wrong) = self.check() else {
            return Ok(self);
        };
        let variable = format!("{ENV_PREFIX}{}", wrong.path.join("__").to_ascii_uppercase());
        if let Some((name, value)) = environment.iter().find(|(name, _)| *name == variable) {
            return Err(ConfigError::Environment {
                name: name.clone(),
                value: value.clone(),
                why: wrong.why,
            });
        }
        Err(ConfigError::Refused(match line_of(text, &wrong.path) {
            Some(line) => format!("line {line}: {}", wrong.why),
            None => wrong.why,
        }))
    }
}

/// A value that is of the right type and yet not allowed.
struct Wrong {
    /// Its key, from the top; a number counts within a list.
    path: Vec<String>,
    why: String,
}

impl Wrong {
    fn at(path: &[&str], why: impl Into<String>) -> Wrong {
        Wrong {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            why: why.into(),
        }
    }

    /// What a room said about its section. Its message begins with the key that is meant.
    fn within(section: &[&str], name: &str, error: impl std::fmt::Display) -> Wrong {
        let said = error.to_string();
        let key = said
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .next();
        let path = [section, key.as_slice()].concat();
        Wrong::at(&path, format!("{name} {said}"))
    }
}

/// The line, counted from 1, where `text` gives `path`, or as much of it as it does give.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let (mut table, mut found) = (root.get_ref(), None);
    let mut parts = path.iter();
    while let Some(part) = parts.next() {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == part) else {
            break;
        };
        let mut at = key.span();
        let mut inner = value.get_ref();
        if let (Some(list), Some(Ok(index))) = (
            inner.as_array(),
            parts.clone().next().map(|p| p.parse::<usize>()),
        ) && let Some(element) = list.get(index)
        {
            parts.next();
            at = element.span();
            inner = element.get_ref();
        }
        found = Some(at.start);
        match inner.as_table() {
            Some(deeper) => table = deeper,
            None => break,
        }
    }
    Some(text.get(..found?)?.matches('\n').count() + 1)
}

fn refused(error: toml::de::Error) -> ConfigError {
    // toml's own text names line and column and shows the line.
    ConfigError::Refused(error.to_string().trim_end().to_owned())
}

/// A TOML value where the text is one (`8040`, `true`, `["a"]`), else the text itself.
fn parse_value(text: &str) -> toml::Value {
    toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn set(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    match path {
        [] => Err("no key is named".to_owned()),
        [key] if !key.is_empty() => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [key, index, rest @ ..] if index.parse::<usize>().is_ok() => {
            let index: usize = index.parse().map_err(|_| "no index".to_owned())?;
            let array = table
                .entry(key.clone())
                .or_insert_with(|| toml::Value::Array(Vec::new()))
                .as_array_mut()
                .ok_or_else(|| format!("{key} is no list"))?;
            if index > array.len() || index >= MAX_MQTT_SOURCES {
                return Err(format!(
                    "{key} has {} entries; the next one is number {}",
                    array.len(),
                    array.len()
                ));
            }
            if index == array.len() {
                array.push(toml::Value::Table(toml::Table::new()));
            }
            if rest.is_empty() {
                array[index] = value;
                return Ok(());
            }
            let inner = array[index]
                .as_table_mut()
                .ok_or_else(|| format!("{key}[{index}] is no section"))?;
            set(inner, rest, value)
        }
        [key, rest @ ..] => {
            let inner = table
                .entry(key.clone())
                .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                .as_table_mut()
                .ok_or_else(|| format!("{key} is no section"))?;
            set(inner, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn a_wrong_key_names_line_key_and_what_is_allowed() {
        let e = Config::from_toml("data_dir = '/tmp'\n\n[commit]\nrecord = 5\n").unwrap_err();
        let text = e.to_string();
        for part in ["line 4", "record", "records", "interval_ms"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    fn a_wrong_value_names_what_was_found_and_what_is_allowed() {
        let e = Config::from_toml("[commit]\nrecords = 0\n")
            .unwrap_err()
            .to_string();
        for part in ["line 2: ", "commit.records is 0", "1 to 1000000"] {
            assert!(e.contains(part), "{part:?} is missing in: {e}");
        }
        let e = Config::from_toml("[log]\nformat = 'xml'\n")
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("xml") && e.contains("json") && e.contains("line 2"),
            "{e}"
        );
    }

    #[test]
    fn the_line_of_a_value_is_found_in_lists_and_sections_and_left_out_where_there_is_none() {
        let two = "data_dir = '/tmp'\n[[mqtt]]\nname = 'a'\nurl = 'mqtt://a'\n\n\
                   [[mqtt]]\nname = 'b'\nurl = 'http://b'\n";
        let e = Config::from_toml(two).unwrap_err().to_string();
        assert!(
            e.starts_with("line 8: [[mqtt]] number 2 url = \"http://b\""),
            "{e}"
        );
        let e = Config::from_toml("[publish.mqtt]\nurl = 'mqtt://a'\nprefix = 'a/#'\n")
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("line 3: [publish.mqtt] prefix"), "{e}");
        // A value that came from the environment is not where the file has the key.
        let e = Config::from_parts(
            "[commit]\nrecords = 5\n",
            environment(&[("TRACKSIDE__COMMIT__RECORDS", "0")]),
        )
        .unwrap_err()
        .to_string();
        assert!(
            e.contains("TRACKSIDE__COMMIT__RECORDS") && !e.contains("line"),
            "{e}"
        );
    }

    #[test]
    fn a_wrong_backend_limit_car_or_address_is_refused_with_what_is_allowed() {
        let refused = |text: &str, parts: &[&str]| {
            let said = Config::from_toml(text).unwrap_err().to_string();
            for part in parts {
                assert!(said.contains(part), "{part:?} is missing in: {said}");
            }
        };
        refused(
            "[compute]\nbackend = 'opencl'\n",
            &["line 2", "opencl", "auto, cpu and cuda"],
        );
        refused("[compute]\ncars = [0]\n", &["line 2", "[0]", "1 to 99"]);
        refused(
            "[strategy]\nmin_stops = 2\nlongest_stint_laps = 300\n",
            &[
                "line 3",
                "longest_stint_laps is 300",
                "0 (no such rule) to 128",
            ],
        );
        refused(
            "[strategy]\nmin_stops = 9\n",
            &["line 2", "strategy.min_stops is 9", "to 8"],
        );
        refused(
            "[api]\nlisten = '127.0.0.1:99999'\n",
            &["line 2", "99999", "0.0.0.0:8040"],
        );
        refused(
            "[channels.oil]\nunit = 'bar'\nlow = 5\nhigh = 2\n",
            &["line 3", "oil", "low below high"],
        );
        let c = Config::from_toml(
            "[compute]\nbackend = 'cpu'\ncars = [1, 44]\n[channels.oil]\nunit = 'bar'\nlow = 2\n",
        )
        .unwrap();
        assert_eq!((c.compute.backend, c.compute.live), (Choice::Cpu, true));
        assert_eq!(c.limits().len(), 1);
        assert!(!c.limits()[0].is_upper && c.limits()[0].limit == 2.0);
        let c = Config::from_parts("", environment(&[("TRACKSIDE__COMPUTE__BACKEND", "cuda")]))
            .unwrap();
        assert_eq!(c.compute.backend, Choice::Cuda);
    }

    #[test]
    fn what_cannot_work_is_refused_before_it_is_tried() {
        let refused = |text: &str, parts: &[&str]| {
            let said = Config::from_toml(text).unwrap_err().to_string();
            for part in parts {
                assert!(said.contains(part), "{part:?} is missing in: {said}");
            }
        };
        let source = "[[mqtt]]\nname = 'a'\nurl = 'mqtt://a'\n";
        refused(
            &format!("{source}{source}"),
            &["line 5", "number 2", "mqtt://a", "of its own"],
        );
        refused(
            "[publish.mqtt]\nurl = 'mqtt://a'\nclient_id = 'x'\n[[mqtt]]\nurl = 'mqtt://a'\nclient_id = 'x'\n",
            &["number 1", "\"x\""],
        );
        let elsewhere = source.replace("//a", "//b");
        assert!(Config::from_toml(&format!("{source}{elsewhere}")).is_ok());
        for (key, allowed) in [
            ("segment_bytes = 10", "16384 to 4294967296"),
            ("tail_entries = 0", "1 to 16384"),
            ("tail_entries = 16385", "1 to 16384"),
            ("retain.bytes = 0", "67108864 bytes"),
            ("retain.days = 0", "1 to"),
        ] {
            let name = key.split(' ').next().unwrap();
            refused(&format!("[journal]\n{key}\n"), &["line 2", name, allowed]);
        }
        refused(
            "[engines]\ndir = '/nowhere/engines'\n",
            &["line 2", "/nowhere/engines", "no folder"],
        );
        for key in ["password_file", "ca_file"] {
            let file = format!("username = 'u'\n{key} = '/nowhere/file'\n");
            for section in ["[[mqtt]]", "[publish.mqtt]", "[openf1]"] {
                let parts = ["line 3", key, "/nowhere/file", "no such file"];
                refused(&format!("{section}\n{file}"), &parts);
            }
        }
        refused(
            "[zenoh.network]\nusername = 'u'\npassword_file = '/nowhere/file'\n",
            &["line 3", "no such file"],
        );
    }

    /// What is shown can be checked and says the same, but for passwords.
    #[test]
    fn what_is_shown_is_a_configuration() {
        let full = "data_dir = '/tmp'\n[journal.retain]\nbytes = 100000000\n\
            [[mqtt]]\nname = 'a'\nusername = 'u'\npassword = 'box'\n[[mqtt]]\nname = 'b'\nversion = 4\n\
            [zenoh]\nname = 'z'\n[zenoh.network]\nconnect = ['tcp/127.0.0.1:7447']\n\
            [openf1]\nusername = 'o'\npassword = 'box'\n\
            [publish.mqtt]\nprefix = 'p/q'\nencoding = 'cbor'\n[publish.zenoh]\n\
            [engines]\ndir = 'none'\ntensorrt = 'fp16'\n[compute]\nbackend = 'cpu'\ncars = [1, 44]\n\
            [strategy]\nmin_stops = 2\nlongest_stint_laps = 0\n\
            [channels.'oil p']\nunit = 'bar'\nlow = 2.5\n";
        for text in ["", full] {
            let config = Config::from_toml(text).unwrap();
            let shown = config.to_toml().unwrap();
            assert!(!shown.contains("box"), "{shown}");
            let again = Config::from_toml(&shown).unwrap_or_else(|e| panic!("{e}: {shown}"));
            assert_eq!(format!("{again:#?}"), format!("{config:#?}"), "{shown}");
        }
    }

    #[test]
    fn the_environment_overrides_and_is_named_when_wrong() {
        let c = Config::from_parts(
            "[commit]\nrecords = 10\n",
            environment(&[
                ("TRACKSIDE__COMMIT__RECORDS", "20"),
                ("TRACKSIDE__API__LISTEN", "127.0.0.1:9000"),
                ("TRACKSIDE__MQTT__0__URL", "mqtt://localhost:1883"),
            ]),
        )
        .unwrap();
        assert_eq!(
            (c.commit.records, c.api.listen.port(), c.mqtt.len()),
            (20, 9000, 1)
        );

        let e = Config::from_parts("", environment(&[("TRACKSIDE__COMMIT__RECORDS", "many")]))
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("TRACKSIDE__COMMIT__RECORDS") && e.contains("many"),
            "{e}"
        );
        let e = Config::from_parts("", environment(&[("TRACKSIDE__NONSENSE", "1")]))
            .unwrap_err()
            .to_string();
        assert!(e.contains("TRACKSIDE__NONSENSE"), "{e}");
    }
}
