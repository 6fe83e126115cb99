//! A log for what may come in floods: a few lines a second for each reason, the rest counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second for one reason.
pub const LINES_PER_SECOND: u32 = 5;
/// Reasons that are told apart; further ones share the last place.
pub const MAX_REASONS: usize = 32;
/// Bytes of a payload that are shown.
pub const SHOWN_BYTES: usize = 48;
/// Characters of a topic that are shown.
const SHOWN_TOPIC: usize = 96;
const WINDOW: Duration = Duration::from_secs(1);

/// Logs refused messages with their topic and first bytes, at most [`LINES_PER_SECOND`] a second
/// for each reason. What it leaves out is counted and said with the next line that is written.
#[derive(Debug, Default)]
pub struct SampledLog {
    windows: Mutex<Vec<Window>>,
}

#[derive(Debug)]
struct Window {
    reason: &'static str,
    begun: Instant,
    written: u32,
    left_out: u64,
}

impl SampledLog {
    pub fn new() -> SampledLog {
        SampledLog::default()
    }

    /// Whether a line for `reason` may be written at `now`; if so, how many were left out since
    /// the last one.
    pub fn admit(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match windows.iter().position(|w| w.reason == reason) {
            Some(at) => at,
            None if windows.len() < MAX_REASONS => {
                windows.push(Window {
                    reason,
                    begun: now,
                    written: 0,
                    left_out: 0,
                });
                windows.len() - 1
            }
            None => MAX_REASONS - 1,
        };
        let window = &mut windows[at];
        if now.saturating_duration_since(window.begun) >= WINDOW {
            window.begun = now;
            window.written = 0;
        }
        if window.written == LINES_PER_SECOND {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.left_out))
    }

    /// Logs one refused message, or counts it as left out.
    pub fn rejected(
        &self,
        reason: &'static str,
        topic: &str,
        payload: &[u8],
        why: &dyn std::fmt::Display,
    ) {
        if let Some(left_out) = self.admit(reason, Instant::now()) {
            let topic: String = topic.chars().take(SHOWN_TOPIC).collect();
            let first = &payload[..payload.len().min(SHOWN_BYTES)];
            tracing::warn!(
                reason,
                topic,
                bytes = payload.len(),
                first = %first.escape_ascii(),
                left_out,
                "refused a message: {why}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_a_few_lines_a_second() {
        let log = SampledLog::new();
        let start = Instant::now();
        let lines = (0..1_000).filter(|_| log.admit("malformed", start).is_some());
        assert_eq!(lines.count(), LINES_PER_SECOND as usize);
        // Another reason has its own lines.
        assert_eq!(log.admit("absurd", start), Some(0));
        // A second later, the next line says how many were left out, once.
        let later = start + WINDOW;
        let left_out = 1_000 - u64::from(LINES_PER_SECOND);
        assert_eq!(log.admit("malformed", later), Some(left_out));
        assert_eq!(log.admit("malformed", later), Some(0));
    }

    #[test]
    fn reasons_are_bounded() {
        let log = SampledLog::new();
        let now = Instant::now();
        for i in 0..MAX_REASONS * 2 {
            let reason: &'static str = Box::leak(format!("reason {i}").into_boxed_str());
            let _ = log.admit(reason, now);
        }
        assert_eq!(log.windows.lock().unwrap().len(), MAX_REASONS);
    }
}
