//! Which session it is, and when a record begins another.
//!
//! A daemon may hear of other sessions at any time: the calendar lists the whole weekend, the grid
//! carries the qualifying session's key, an old document is sent again. Another session begins when
//! - nothing was known yet;
//! - a `sessions` record of a later session comes and the present one is over (its official result
//!   is known) or has not come alive;
//! - a record that only a running session brings, or a driver list, comes for a later session that
//!   was announced before;
//! - [`STRANGERS`] such records of another session come in a row, with none of the present one in
//!   between, and the present one has not come alive, or they go on for [`PATIENCE_S`] by their own
//!   dates, or are that much later than the last of the present one. So a burst of another session
//!   does not interrupt one that goes on.
//!
//! Nothing is lost by waiting, nor by a wrong turn: records of one other session are folded aside
//! from its first, and the session before is kept when another begins. If it comes back, by the same
//! rules, it goes on with all that was folded of it.
//!
//! **Invariant:** a single record of a session that was never announced resets nothing, and no number
//! of them takes from what is known of the present one.

use heapless::String;
use serde::Serialize;

use super::text;
use crate::record::{Meeting, Record, Session, Time};

/// Announced sessions that are remembered.
pub const MAX_ANNOUNCED: usize = 16;
/// Records of another session in a row before it may begin unannounced.
pub const STRANGERS: u16 = 64;
/// For how long they must go on while the present session is silent (s).
pub const PATIENCE_S: f64 = 120.0;
/// Most parts of qualifying, restarts included.
pub const MAX_PARTS: usize = 3;

/// What kind of session it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionType {
    Practice,
    Qualifying,
    SprintQualifying,
    Sprint,
    Race,
    #[default]
    Unknown,
}

impl SessionType {
    /// From OpenF1's `session_type` (Practice, Qualifying, Race) and `session_name` (Practice 1,
    /// Sprint Shootout, Sprint Qualifying, Sprint, Race, Day 1, …). In 2021 and 2022 "Sprint
    /// Qualifying" was the name of the sprint itself: its type tells.
    pub fn parse(session_type: &str, name: &str) -> SessionType {
        let kind = session_type.to_ascii_lowercase();
        let name = name.to_ascii_lowercase();
        let sprint = name.contains("sprint");
        if kind.contains("race") {
            if sprint {
                SessionType::Sprint
            } else {
                SessionType::Race
            }
        } else if kind.contains("qualifying") || kind.contains("shootout") {
            if sprint {
                SessionType::SprintQualifying
            } else {
                SessionType::Qualifying
            }
        } else if kind.contains("practice") || name.contains("practice") || name.starts_with("day ")
        {
            SessionType::Practice
        } else if sprint && (name.contains("shootout") || name.contains("qualifying")) {
            SessionType::SprintQualifying
        } else if sprint || kind.contains("sprint") {
            SessionType::Sprint
        } else if name.contains("qualifying") {
            SessionType::Qualifying
        } else if name.contains("race") {
            SessionType::Race
        } else {
            SessionType::Unknown
        }
    }

    /// Whether cars race each other: a race or a sprint.
    pub const fn is_race(self) -> bool {
        matches!(self, SessionType::Race | SessionType::Sprint)
    }

    /// Whether it is qualifying of either kind.
    pub const fn is_qualifying(self) -> bool {
        matches!(
            self,
            SessionType::Qualifying | SessionType::SprintQualifying
        )
    }
}

/// A session, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SessionState {
    /// OpenF1's `session_key`; `None` before the first record.
    pub key: Option<i32>,
    pub meeting_key: Option<i32>,
    pub session_type: SessionType,
    /// Such as `Race` or `Practice 1`.
    pub name: String<48>,
    /// Such as `Bahrain Grand Prix`.
    pub meeting_name: String<64>,
    pub circuit_short_name: String<48>,
    pub circuit_key: Option<i32>,
    pub country_name: String<48>,
    pub location: String<48>,
    pub year: Option<i32>,
    pub scheduled_start: Option<Time>,
    pub scheduled_end: Option<Time>,
    /// Local time − UTC (s).
    pub gmt_offset_s: i32,
    /// When the first lap of a race began, or the pit exit opened.
    pub started: Option<Time>,
    /// When the chequered flag was first shown (in qualifying: at the end of the last part so far).
    pub chequered: Option<Time>,
    pub finished: bool,
    /// When each part of qualifying began, first to last.
    pub parts: heapless::Vec<Time, MAX_PARTS>,
}

impl SessionState {
    /// The part of qualifying that is on or was last: 1, 2 or 3; `None` outside qualifying and before
    /// it began.
    pub fn part(&self) -> Option<u8> {
        (!self.parts.is_empty()).then_some(self.parts.len() as u8)
    }

    pub(super) fn describe(&mut self, r: &Session) {
        self.key = Some(r.session_key);
        self.meeting_key = Some(r.meeting_key);
        let parsed = SessionType::parse(
            r.session_type.as_deref().unwrap_or_default(),
            r.session_name.as_deref().unwrap_or_default(),
        );
        if parsed != SessionType::Unknown {
            self.session_type = parsed;
        }
        text::set(&mut self.name, r.session_name.as_deref());
        text::set(
            &mut self.circuit_short_name,
            r.circuit_short_name.as_deref(),
        );
        text::set(&mut self.country_name, r.country_name.as_deref());
        text::set(&mut self.location, r.location.as_deref());
        self.circuit_key = r.circuit_key.or(self.circuit_key);
        self.year = r.year.or(self.year);
        self.scheduled_start = r.date_start.or(self.scheduled_start);
        self.scheduled_end = r.date_end.or(self.scheduled_end);
        if let Some(offset) = r.gmt_offset.as_deref().and_then(offset_s) {
            self.gmt_offset_s = offset;
        }
    }

    pub(super) fn meet(&mut self, meeting: &MeetingName) {
        if self.meeting_key == Some(meeting.key) {
            self.meeting_name = meeting.name.clone();
        }
    }
}

/// `03:00:00`, `-04:00:00`, `+05:30` in seconds.
fn offset_s(text: &str) -> Option<i32> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = digits.split(':').map(str::parse::<i32>);
    let hours = parts.next()?.ok()?;
    let minutes = parts.next().unwrap_or(Ok(0)).ok()?;
    ((0..=15).contains(&hours) && (0..60).contains(&minutes))
        .then_some(sign * (hours * 3600 + minutes * 60))
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct MeetingName {
    pub key: i32,
    pub name: String<64>,
}

impl MeetingName {
    pub(super) fn of(r: &Meeting) -> MeetingName {
        let name = r
            .meeting_name
            .as_deref()
            .or(r.meeting_official_name.as_deref());
        MeetingName {
            key: r.meeting_key,
            name: text::cut(name.unwrap_or_default()),
        }
    }
}

/// What was heard of other sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    /// The last ones announced, oldest first.
    announced: Vec<SessionState>,
    pub meeting: Option<MeetingName>,
    stranger: Option<i32>,
    strangers: u16,
    /// The time by the other session's clock when they began to come in a row.
    strange_since: Option<Time>,
    /// Whether a record came that only a running session brings.
    pub alive: bool,
}

impl Known {
    /// The session of that key, if it was announced.
    pub(super) fn session(&self, key: i32) -> Option<&SessionState> {
        self.announced.iter().find(|s| s.key == Some(key))
    }

    pub(super) fn announce(&mut self, r: &Session) {
        if let Some(held) = self
            .announced
            .iter_mut()
            .find(|s| s.key == Some(r.session_key))
        {
            held.describe(r);
            return;
        }
        if self.announced.len() == MAX_ANNOUNCED {
            self.announced.remove(0);
        }
        let mut new = SessionState::default();
        new.describe(r);
        self.announced.push(new);
    }

    /// A record of the present session came.
    #[inline]
    pub(super) fn own(&mut self, record: &Record) {
        self.strangers = 0;
        self.alive |= is_live(record);
    }

    /// Whether a record of another session begins that session.
    pub(super) fn begins(&mut self, record: &Record, key: i32, present: &SessionState) -> bool {
        if let Record::Session(r) = record {
            self.announce(r);
        }
        let Some(_) = present.key else {
            return is_live(record) || matches!(record, Record::Session(_) | Record::Driver(_));
        };
        let later = self
            .session(key)
            .is_some_and(|s| s.scheduled_start > present.scheduled_start);
        match record {
            Record::Session(_) => later && (present.finished || !self.alive),
            Record::Driver(_) => later,
            record if is_live(record) => {
                self.count_stranger(key);
                later || !self.alive && self.keep_coming()
            }
            _ => false,
        }
    }

    fn count_stranger(&mut self, key: i32) {
        if self.stranger != Some(key) || self.strangers == 0 {
            self.stranger = Some(key);
            self.strangers = 0;
            self.strange_since = None;
        }
        self.strangers = self.strangers.saturating_add(1);
    }

    /// Whether the records of the last stranger are more than strays.
    pub(super) fn keep_coming(&self) -> bool {
        self.strangers >= STRANGERS
    }

    /// A stranger's record was folded aside and left its clock at `clock`.
    pub(super) fn heard_aside(&mut self, clock: Time) {
        if self.strange_since.is_none() && clock != Time::default() {
            self.strange_since = Some(clock);
        }
    }

    /// Whether the other session, its clock at `other`, has gone on for so long while the present one,
    /// its clock at `present`, was silent that it takes over.
    pub(super) fn outlasts(&self, other: Option<Time>, present: Time) -> bool {
        let long = |from: Time| other.is_some_and(|t| t.seconds_since(from) >= PATIENCE_S);
        self.keep_coming() && (long(present) || self.strange_since.is_some_and(long))
    }

    pub(super) fn begun(&mut self) {
        self.strangers = 0;
        self.stranger = None;
        self.strange_since = None;
        self.alive = false;
    }
}

/// Whether only a running session brings such a record.
pub(super) fn is_live(record: &Record) -> bool {
    matches!(
        record,
        Record::CarData(_)
            | Record::Location(_)
            | Record::Interval(_)
            | Record::Position(_)
            | Record::Lap(_)
            | Record::Pit(_)
            | Record::Stint(_)
            | Record::Frame(_)
            | Record::RaceControl(_)
            | Record::Weather(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_from_type_and_name() {
        for (kind, name, expected) in [
            ("Practice", "Practice 2", SessionType::Practice),
            ("Qualifying", "Qualifying", SessionType::Qualifying),
            (
                "Qualifying",
                "Sprint Qualifying",
                SessionType::SprintQualifying,
            ),
            (
                "Qualifying",
                "Sprint Shootout",
                SessionType::SprintQualifying,
            ),
            ("Race", "Sprint", SessionType::Sprint),
            ("Race", "Race", SessionType::Race),
            ("", "Sprint Shootout", SessionType::SprintQualifying),
            ("Practice", "Day 1", SessionType::Practice),
            ("", "", SessionType::Unknown),
        ] {
            assert_eq!(SessionType::parse(kind, name), expected, "{kind} {name}");
        }
    }

    #[test]
    fn offsets_are_read_with_their_sign() {
        assert_eq!(offset_s("03:00:00"), Some(10_800));
        assert_eq!(offset_s("-04:00:00"), Some(-14_400));
        assert_eq!(offset_s("+05:30"), Some(19_800));
        assert_eq!(offset_s("soon"), None);
    }
}
