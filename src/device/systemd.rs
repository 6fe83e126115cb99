//! Word to systemd: ready, status, watchdog, reloading, stopping.
//!
//! A [`Notifier`] without a listener (no `systemd` feature, or not started by systemd as a
//! `Type=notify` service) takes every word and does nothing.

use std::time::Duration;

/// Longest status line that is sent (characters).
pub const MAX_STATUS_CHARS: usize = 200;

/// Where words to the service manager go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notifier {
    listens: bool,
}

impl Notifier {
    /// From the environment that systemd gives a service: `NOTIFY_SOCKET`.
    pub fn from_env() -> Notifier {
        Notifier {
            listens: cfg!(feature = "systemd") && std::env::var_os("NOTIFY_SOCKET").is_some(),
        }
    }

    /// One to whom nobody listens.
    pub const fn silent() -> Notifier {
        Notifier { listens: false }
    }

    /// Whether somebody listens.
    pub const fn listens(self) -> bool {
        self.listens
    }

    /// The daemon has started, or has finished reloading.
    pub fn ready(self) {
        self.say(&[("READY", "1")]);
    }

    /// One line for `systemctl status`.
    pub fn status(self, line: &str) {
        self.say(&[("STATUS", &one_line(line))]);
    }

    /// The daemon moves; see [`super::watchdog`] for who may say so.
    pub fn watchdog(self) {
        self.say(&[("WATCHDOG", "1")]);
    }

    /// The configuration is read again; [`Notifier::ready`] ends it.
    pub fn reloading(self) {
        self.say(&[("RELOADING", "1")]);
    }

    /// The daemon drains and stops.
    pub fn stopping(self) {
        self.say(&[("STOPPING", "1")]);
    }

    /// Asks for `more` time in the present phase, where starting or stopping takes long (a journal
    /// that is repaired, a queue that is drained).
    pub fn extend(self, more: Duration) {
        self.say(&[("EXTEND_TIMEOUT_USEC", &more.as_micros().to_string())]);
    }

    fn say(self, words: &[(&'static str, &str)]) {
        if self.listens {
            send(words);
        }
    }

    /// How often the watchdog wants to hear from us, at the latest; `None` where there is none.
    pub fn watchdog_timeout(self) -> Option<Duration> {
        self.listens.then(watchdog_timeout).flatten()
    }
}

/// Status is one line: systemd would read a second one as another word.
fn one_line(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_STATUS_CHARS)
        .collect()
}

#[cfg(feature = "systemd")]
fn send(words: &[(&'static str, &str)]) {
    if let Err(error) = ::systemd::daemon::notify(words.iter()) {
        tracing::warn!(%error, ?words, "systemd could not be told");
    }
}

#[cfg(not(feature = "systemd"))]
fn send(_: &[(&'static str, &str)]) {}

#[cfg(feature = "systemd")]
fn watchdog_timeout() -> Option<Duration> {
    match ::systemd::daemon::watchdog_enabled() {
        Ok(0) => None,
        Ok(microseconds) => Some(Duration::from_micros(microseconds)),
        Err(error) => {
            tracing::warn!(%error, "WATCHDOG_USEC cannot be read; the watchdog is left alone");
            None
        }
    }
}

#[cfg(not(feature = "systemd"))]
fn watchdog_timeout() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_listener_every_word_is_a_no_op() {
        let nobody = Notifier::silent();
        nobody.ready();
        nobody.status("x");
        nobody.watchdog();
        nobody.stopping();
        assert_eq!(nobody.watchdog_timeout(), None);
        assert!(!nobody.listens());
    }

    #[test]
    fn a_status_cannot_smuggle_in_another_word() {
        let line = one_line(&format!("lap 3\nWATCHDOG=1{}", "x".repeat(500)));
        assert!(line.starts_with("lap 3 WATCHDOG=1"));
        assert_eq!(line.chars().count(), MAX_STATUS_CHARS);
    }
}
