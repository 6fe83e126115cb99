//! Device: the machine under the daemon: what it measures, and the service manager that keeps it.
//!
//! Readings of Jetson, SoC and host from sysfs ([`readings`]), their clocks ([`clocks`]), power mode and what of it
//! costs latency ([`power`]), a discrete GPU from NVML, what says that there is a GPU at all ([`nvidia`]); word to
//! systemd ([`systemd`]); and the watchdog that pings it only while the pipeline really moves ([`watchdog`]).
//!
//! **Invariant:** absent hardware, an absent service manager or an absent feature is a value, not an
//! error. Nothing here is needed for an answer to be right.

#![forbid(unsafe_code)]

pub mod clocks;
pub mod nvidia;
#[cfg(feature = "cuda")]
mod nvml;
pub mod power;
pub mod readings;
pub mod systemd;
pub mod watchdog;

pub use nvidia::Signs;
pub use readings::Readings;
pub use systemd::Notifier;
pub use watchdog::{Progress, Stage};
