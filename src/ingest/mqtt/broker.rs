//! Where a broker is and how to reach it: the part of the configuration that sources, publishers and
//! replay share.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ingest::secret::{self, Secret};
use crate::ingest::tls;
use crate::record::codec::MAX_FRAME_BYTES;

/// Shortest keep-alive that the client library takes (s).
pub const MIN_KEEP_ALIVE_S: u16 = 5;
/// Room for a packet's head beside the largest payload that is read (B).
const PACKET_HEAD_BYTES: u32 = 64 * 1024;
/// The largest packet that is read by default: the largest frame and its head (B).
pub const DEFAULT_MAX_PACKET_BYTES: u32 = MAX_FRAME_BYTES as u32 + PACKET_HEAD_BYTES;
/// The largest packet that may be configured (B).
pub const LIMIT_MAX_PACKET_BYTES: u32 = 16 * 1024 * 1024;

/// Version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    #[default]
    V5,
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(match self {
            Version::V4 => 4,
            Version::V5 => 5,
        })
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match u8::deserialize(d)? {
            4 => Ok(Version::V4),
            5 => Ok(Version::V5),
            other => Err(serde::de::Error::custom(format!(
                "MQTT version {other} is not known; 4 (that is 3.1.1) and 5 are"
            ))),
        }
    }
}

/// The largest packet that is read from an MQTT 3.1.1 broker in passing (B). It is not told of our limit, as one of
/// MQTT 5 is, and would send what we do not read again and again: up to here it is read, refused and acknowledged.
pub const READ_MAX_PACKET_BYTES: u32 = 2 * LIMIT_MAX_PACKET_BYTES;
/// The largest packet of MQTT (B; 3.1.1, section 2.2.3). One beyond [`READ_MAX_PACKET_BYTES`] gets a connection of its
/// own, whose buffer goes when it has passed.
pub const PROTOCOL_MAX_PACKET_BYTES: u32 = 268_435_455;

/// A broker and the credentials for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Broker {
    /// `mqtt://host[:1883]` or, with TLS, `mqtts://host[:8883]`.
    pub url: String,
    /// 4 (MQTT 3.1.1) or 5.
    pub version: Version,
    /// Must be unique at the broker and the same after a restart; made from the host's and the
    /// source's name when absent.
    pub client_id: Option<String>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// File whose first line is the password; read anew for each connection.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate chain to show; needs `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file of the key to `client_cert_file`.
    pub client_key_file: Option<PathBuf>,
    /// Seconds of silence after which the broker is asked whether it lives (at least 5); it is given
    /// up after twice that.
    pub keep_alive_s: u16,
    /// Seconds that a connection may take, TLS and log-in included.
    pub connect_timeout_s: u16,
    /// Largest packet that is taken (B). What is larger is kept back by the broker (MQTT 5), or counted as
    /// oversized (3.1.1).
    pub max_packet_bytes: u32,
}

impl Default for Broker {
    fn default() -> Self {
        Broker {
            url: "mqtt://localhost:1883".into(),
            version: Version::V5,
            client_id: None,
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            keep_alive_s: 10,
            connect_timeout_s: 5,
            max_packet_bytes: DEFAULT_MAX_PACKET_BYTES,
        }
    }
}

/// Puts a broker's keys and those of a struct with a field `broker` beside each other into one table
/// of the configuration. (Serde's own `flatten` would let unknown keys pass.)
macro_rules! beside_broker {
    ($flat:ident for $options:ty { $($key:ident: $type:ty),* $(,)? }) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $flat {
            url: String,
            version: $crate::ingest::mqtt::Version,
            client_id: Option<String>,
            username: Option<String>,
            password: Option<$crate::ingest::secret::Secret>,
            password_file: Option<std::path::PathBuf>,
            ca_file: Option<std::path::PathBuf>,
            client_cert_file: Option<std::path::PathBuf>,
            client_key_file: Option<std::path::PathBuf>,
            keep_alive_s: u16,
            connect_timeout_s: u16,
            max_packet_bytes: u32,
            $($key: $type,)*
        }

        impl Default for $flat {
            fn default() -> Self {
                <$options>::default().into()
            }
        }

        impl From<$options> for $flat {
            fn from(options: $options) -> Self {
                let broker = options.broker;
                $flat {
                    url: broker.url,
                    version: broker.version,
                    client_id: broker.client_id,
                    username: broker.username,
                    password: broker.password,
                    password_file: broker.password_file,
                    ca_file: broker.ca_file,
                    client_cert_file: broker.client_cert_file,
                    client_key_file: broker.client_key_file,
                    keep_alive_s: broker.keep_alive_s,
                    connect_timeout_s: broker.connect_timeout_s,
                    max_packet_bytes: broker.max_packet_bytes,
                    $($key: options.$key,)*
                }
            }
        }

        impl From<$flat> for $options {
            fn from(flat: $flat) -> Self {
                Self {
                    broker: $crate::ingest::mqtt::Broker {
                        url: flat.url,
                        version: flat.version,
                        client_id: flat.client_id,
                        username: flat.username,
                        password: flat.password,
                        password_file: flat.password_file,
                        ca_file: flat.ca_file,
                        client_cert_file: flat.client_cert_file,
                        client_key_file: flat.client_key_file,
                        keep_alive_s: flat.keep_alive_s,
                        connect_timeout_s: flat.connect_timeout_s,
                        max_packet_bytes: flat.max_packet_bytes,
                    },
                    $($key: flat.$key,)*
                }
            }
        }
    };
}
pub(crate) use beside_broker;

/// What is wrong with a [`Broker`].
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("url = {url:?}: {fault}; write mqtt://host[:port] or mqtts://host[:port]")]
    Url { url: String, fault: String },
    #[error("{key} = {value}: must be {allowed}")]
    Value {
        key: &'static str,
        value: String,
        allowed: &'static str,
    },
    #[error("{key} is given without {missing}; both are needed, or neither")]
    Half {
        key: &'static str,
        missing: &'static str,
    },
    #[error(transparent)]
    Password(#[from] secret::Unreadable),
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Where a URL points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

impl Broker {
    /// With that URL and nothing else changed.
    pub fn at(url: impl Into<String>) -> Broker {
        Broker {
            url: url.into(),
            ..Broker::default()
        }
    }

    /// Checks every value that can be checked without reading a file or the network.
    ///
    /// # Errors
    /// The first key that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        let value = |key, value: String, allowed| {
            Err(Invalid::Value {
                key,
                value,
                allowed,
            })
        };
        self.address()?;
        if self.keep_alive_s < MIN_KEEP_ALIVE_S {
            let text = self.keep_alive_s.to_string();
            return value("keep_alive_s", text, "at least 5 seconds");
        }
        if !(1..=300).contains(&self.connect_timeout_s) {
            let text = self.connect_timeout_s.to_string();
            return value("connect_timeout_s", text, "1 to 300 seconds");
        }
        if !(DEFAULT_MAX_PACKET_BYTES..=LIMIT_MAX_PACKET_BYTES).contains(&self.max_packet_bytes) {
            let text = self.max_packet_bytes.to_string();
            return value(
                "max_packet_bytes",
                text,
                "1114112 (1 MiB and a head) to 16777216",
            );
        }
        if self.client_id.as_deref() == Some("") {
            return value("client_id", "\"\"".into(), "non-empty, or absent");
        }
        if (self.password.is_some() || self.password_file.is_some()) && self.username.is_none() {
            return Err(Invalid::Half {
                key: "password",
                missing: "username",
            });
        }
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(_), None) => Err(Invalid::Half {
                key: "client_cert_file",
                missing: "client_key_file",
            }),
            (None, Some(_)) => Err(Invalid::Half {
                key: "client_key_file",
                missing: "client_cert_file",
            }),
            _ => Ok(()),
        }
    }

    /// Host, port and whether TLS is spoken.
    ///
    /// # Errors
    /// If the URL is none, has another scheme, or carries what does not belong into it.
    pub fn address(&self) -> Result<Address, Invalid> {
        let fault = |fault: String| Invalid::Url {
            url: self.url.clone(),
            fault,
        };
        let url = reqwest::Url::parse(&self.url).map_err(|e| fault(e.to_string()))?;
        let tls = match url.scheme() {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            other => return Err(fault(format!("{other} is no scheme of MQTT"))),
        };
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() {
            return Err(fault("it names no host".into()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("credentials go into username and password".into()));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(fault("there is more behind the host".into()));
        }
        Ok(Address {
            host: host.into(),
            port: url.port().unwrap_or(if tls { 8883 } else { 1883 }),
            tls,
        })
    }

    /// The client id: as configured, else `trackside-<host>-<role>`.
    pub fn client_id_for(&self, role: &str) -> String {
        self.client_id.clone().unwrap_or_else(|| {
            let host = rustix::system::uname();
            format!("trackside-{}-{role}", host.nodename().to_string_lossy())
        })
    }

    pub(crate) fn password(&self) -> Result<Option<Secret>, Invalid> {
        Ok(secret::resolve(
            self.password.as_ref(),
            self.password_file.as_deref(),
        )?)
    }

    pub(crate) fn client_config(&self) -> Result<rustls::ClientConfig, Invalid> {
        let client = match (&self.client_cert_file, &self.client_key_file) {
            (Some(chain), Some(key)) => Some((chain.as_path(), key.as_path())),
            _ => None,
        };
        Ok(tls::client_config(self.ca_file.as_deref(), client)?)
    }

    pub(crate) fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_s.max(MIN_KEEP_ALIVE_S).into())
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_s.max(1).into())
    }

    /// Longest silence of a connection that is polled: two pings and a connection attempt. Whatever
    /// hangs longer hangs for good.
    pub(crate) fn patience(&self) -> Duration {
        self.keep_alive() * 2 + self.connect_timeout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_wrong_ones_explained() {
        let address = |url: &str| Broker::at(url).address();
        let at = |host: &str, port, tls| Address {
            host: host.into(),
            port,
            tls,
        };
        assert_eq!(address("mqtt://garage").unwrap(), at("garage", 1883, false));
        assert_eq!(
            address("mqtts://pit.example").unwrap(),
            at("pit.example", 8883, true)
        );
        assert_eq!(address("mqtt://[::1]:42").unwrap(), at("[::1]", 42, false));
        for (url, word) in [
            ("garage:1883", "scheme"),
            ("http://garage", "scheme"),
            ("mqtt://", "host"),
            ("mqtt://a:b@garage", "username"),
            ("mqtt://garage/topic", "behind"),
            ("mqtt://garage:99999", "port"),
        ] {
            let text = address(url).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains(url), "{text}");
        }
    }

    #[test]
    fn values_are_checked_with_key_and_allowed_range() {
        let fault = |change: fn(&mut Broker)| {
            let mut broker = Broker::default();
            change(&mut broker);
            broker.validate().unwrap_err().to_string()
        };
        Broker::default().validate().unwrap();
        assert!(fault(|b| b.keep_alive_s = 4).contains("keep_alive_s = 4"));
        assert!(fault(|b| b.max_packet_bytes = 10_240).contains("1114112"));
        assert!(fault(|b| b.connect_timeout_s = 0).contains("1 to 300"));
        assert!(fault(|b| b.client_id = Some(String::new())).contains("client_id"));
        assert!(fault(|b| b.password = Some("x".into())).contains("username"));
        assert!(fault(|b| b.client_key_file = Some("k".into())).contains("client_cert_file"));
    }

    #[test]
    fn toml_forms() {
        let broker: Broker = toml::from_str("url = 'mqtts://x'\nversion = 4").unwrap();
        assert_eq!((broker.version, broker.keep_alive_s), (Version::V4, 10));
        let unknown = toml::from_str::<Broker>("uri = 'mqtts://x'").unwrap_err();
        assert!(unknown.to_string().contains("uri"), "{unknown}");
        let version = toml::from_str::<Broker>("version = 3").unwrap_err();
        assert!(version.to_string().contains("3.1.1"), "{version}");
    }

    #[test]
    fn passwords_do_not_show() {
        let broker = Broker {
            password: Some("hunter".into()),
            ..Broker::default()
        };
        assert!(!format!("{broker:?}").contains("hunter"));
        assert!(!toml::to_string(&broker).unwrap().contains("hunter"));
    }
}
