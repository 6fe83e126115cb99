//! Race control's messages, as they came.
//!
//! **Invariant:** at most [`MAX_MESSAGES`] are kept, in the order of their dates; the same message at
//! the same time is kept once.

use std::sync::Arc;

use serde::Serialize;

use crate::record::{RaceControl, Time};

/// Most messages kept; the oldest go first. A race has about 90, the busiest of 2023 had 242.
pub const MAX_MESSAGES: usize = 512;
/// Longest message kept (bytes); longer ones are cut.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// A message of race control.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ControlMessage {
    /// When it was given; the clock's time where the feed gives none, or one that the clock refused.
    pub date: Time,
    /// The leader's lap, as the feed says.
    pub lap: Option<u16>,
    /// The car that it names first.
    pub driver_number: Option<u8>,
    pub category: Option<heapless::String<16>>,
    pub flag: Option<heapless::String<16>>,
    pub message: Arc<str>,
}

impl ControlMessage {
    pub(super) fn of(r: &RaceControl, clock: Time) -> ControlMessage {
        let text = r.message.as_deref().unwrap_or_default().trim();
        let mut end = text.len().min(MAX_MESSAGE_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        ControlMessage {
            date: r.date.unwrap_or(clock).min(clock),
            lap: r.lap_number,
            driver_number: r.driver_number.or_else(|| cars(text).first().copied()),
            category: r.category.as_deref().map(super::text::cut),
            flag: r.flag.as_deref().map(super::text::cut),
            message: Arc::from(&text[..end]),
        }
    }

    /// Puts it into its place; says whether it is new.
    pub(super) fn keep(self, log: &mut Vec<ControlMessage>) -> bool {
        let at = log.partition_point(|m| m.date <= self.date);
        let told = log[..at]
            .iter()
            .rev()
            .take_while(|m| m.date == self.date)
            .any(|m| m.message == self.message && m.flag == self.flag);
        if told {
            return false;
        }
        log.insert(at, self);
        if log.len() > MAX_MESSAGES {
            log.remove(0);
        }
        true
    }
}

/// Whether a message says that the session is over, other than by the flag: `SESSION FINISHED`, `RACE
/// WILL NOT BE RESUMED`.
pub(super) fn says_over(message: &str) -> bool {
    let starts = |text: &str| message.starts_with(text);
    let ends = |text: &str| message.ends_with(text);
    (starts("SESSION") || starts("RACE"))
        && (ends(" FINISHED")
            || ends(" FINALISED")
            || ends(" ENDED")
            || message.contains(" WILL NOT BE RESUMED")
            || message.contains(" WILL NOT RESUME"))
}

/// Most cars that a message names.
pub const MAX_NAMED: usize = 8;

/// The cars that a message names: `CAR 40 (LAW)`, `CARS 22 (TSU) AND 63 (RUS)`, `CAR 27`.
///
/// ```
/// use trackside::race::control::cars;
/// assert_eq!(cars("TURN 1 INCIDENT INVOLVING CARS 22 (TSU) AND 63 (RUS) NOTED")[..], [22, 63]);
/// assert_eq!(cars("5 SECOND TIME PENALTY FOR CAR 10 (GAS) - 3 TRACK LIMITS")[..], [10]);
/// ```
pub fn cars(message: &str) -> heapless::Vec<u8, MAX_NAMED> {
    let mut found = heapless::Vec::new();
    let mut after_car = false;
    let mut words = message.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let named = words.peek().is_some_and(|next| next.starts_with('('));
        if let Ok(number) = word.trim_end_matches(',').parse::<u8>()
            && (1..=99).contains(&number)
            && (named || after_car)
            && !found.contains(&number)
            && found.push(number).is_err()
        {
            break;
        }
        after_car = word == "CAR";
    }
    found
}
