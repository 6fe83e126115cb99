//! Replay: messages that come with their times, from a recording or the simulator, played at a chosen pace to a
//! broker or to a Zenoh network.
//!
//! One thread decompresses and parses, or simulates, ahead (a few batches at most); messages leave in the order in
//! which they come, over one connection. Bad lines are skipped and counted; a file that cannot be read to its
//! end is an error, after what was readable was played.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use zenoh::pubsub::Publisher;
use zenoh::qos::CongestionControl;

use super::mqtt::Broker;
use super::mqtt::outbox::{self, Publication};
use super::recording::{self, Recorded};
use super::zenoh::Network;
use crate::record::Time;
use crate::record::codec::{Topic, Wire, decode_document, encode};

/// Messages read ahead at a time.
const BATCH: usize = 256;
/// Batches read ahead.
const AHEAD: usize = 4;
/// How often progress is told at most.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Messages between the player and the broker's outbox.
const QUEUE: usize = 256;
/// How long a broker may be out of reach before a replay gives up.
const UNREACHABLE: Duration = Duration::from_secs(60);
/// How long a Zenoh subscriber is waited for.
const NOBODY: Duration = Duration::from_secs(20);
/// How long a session stays open after the last message where no source of ours answers.
const LINGER: Duration = Duration::from_secs(2);
/// Most topics with a declared Zenoh publisher; further ones are put without.
const MAX_PUBLISHERS: usize = 1024;
/// Sleeps shorter than this are not worth it.
const TICK: Duration = Duration::from_millis(1);

/// What is played: a [`recording::Reader`], or what a simulator makes up.
pub trait Source: Iterator<Item = Result<Recorded, recording::Error>> + Send + 'static {}

impl<T: Iterator<Item = Result<Recorded, recording::Error>> + Send + 'static> Source for T {}

/// How fast it is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as it is taken.
    Max,
    /// That many times as fast as it was recorded.
    Times(f64),
}

/// The text is no pace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no speed; write max, or a number such as 1 or 20 (times as fast as recorded)")]
pub struct NotAPace(String);

impl std::str::FromStr for Pace {
    type Err = NotAPace;

    fn from_str(text: &str) -> Result<Self, NotAPace> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Pace::Max),
            Ok(times) if (1e-3..=1e6).contains(&times) => Ok(Pace::Times(times)),
            _ => Err(NotAPace(text.chars().take(32).collect())),
        }
    }
}

/// How it is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    pub pace: Pace,
    /// Write OpenF1's JSON messages anew as CBOR.
    pub cbor: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            pace: Pace::Times(1.0),
            cbor: false,
        }
    }
}

/// How far a replay is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages played so far.
    pub messages: u64,
    /// Recorded time of the last one.
    pub at: Option<Time>,
    /// Bytes of payload played.
    pub bytes: u64,
    /// Why it stands still, if it does: the broker is out of reach.
    pub fault: Option<String>,
}

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub messages: u64,
    /// Of these, what the broker has acknowledged; `None` where nobody acknowledges.
    pub delivered: Option<u64>,
    /// Lines that were no messages.
    pub skipped: u64,
    /// What was wrong with the first of them.
    pub first_fault: Option<String>,
    /// Recorded time of the first and the last message.
    pub first: Option<Time>,
    pub last: Option<Time>,
    /// Wall time (s).
    pub elapsed_s: f64,
    /// Whether it was stopped before the end of the recording.
    pub stopped: bool,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Recording(#[from] recording::Error),
    #[error("{url}: {fault}")]
    Broker { url: String, fault: String },
    #[error("{url}: the broker refused {refused} of {sent} messages, the last one as {reason}")]
    Refused {
        url: String,
        refused: u64,
        sent: u64,
        reason: String,
    },
    #[error(transparent)]
    Zenoh(#[from] super::zenoh::Error),
    #[error("nobody subscribed to {0} within {NOBODY:?}; start the daemon first")]
    NobodyListens(String),
}

/// What is told while a replay runs.
pub type Tell<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// Plays to a broker at QoS 1; ends when the broker has acknowledged every message.
///
/// # Errors
/// If the source cannot be read to its end, or the broker refuses us, refuses messages, or is out
/// of reach for a minute.
pub async fn publish_mqtt(
    source: impl Source,
    options: Options,
    broker: &Broker,
    stop: &CancellationToken,
    tell: Tell<'_>,
) -> Result<Summary, Error> {
    let fault = |fault: String| Error::Broker {
        url: broker.url.clone(),
        fault,
    };
    broker.validate().map_err(|e| fault(e.to_string()))?;
    let mut player = Player::start(source, options, tell);
    let (to, publications) = mpsc::channel(QUEUE);
    let (told, mut progress) = watch::channel(outbox::Progress::default());
    let client_id = broker.client_id_for(&format!("play-{}", std::process::id()));
    // Given up when this function is left, for whatever reason.
    let halt = stop.child_token();
    let _halting = halt.clone().drop_guard();
    let outbox = tokio::spawn({
        let (broker, halt) = (broker.clone(), halt.clone());
        async move { outbox::run(&broker, &client_id, None, publications, told, halt).await }
    });
    let mut sent = 0;
    while let Some(recorded) = player.next(stop).await? {
        let publication = Publication {
            topic: recorded.topic,
            payload: recorded.payload,
            qos: 1,
            retain: false,
            place: None,
        };
        tokio::select! {
            biased;
            delivered = to.send(publication) => {
                if delivered.is_err() {
                    break;
                }
                sent += 1;
            }
            trouble = trouble(&mut progress, &mut player) => return Err(fault(trouble)),
        }
    }
    drop(to);
    let mut outbox = outbox;
    tokio::select! {
        ended = &mut outbox => ended.map_err(|e| fault(e.to_string()))?,
        trouble = trouble(&mut progress, &mut player) => return Err(fault(trouble)),
    }
    let end = progress.borrow().clone();
    let summary = Summary {
        delivered: Some(end.delivered),
        ..player.finish(stop)
    };
    if end.refused > 0 {
        return Err(Error::Refused {
            url: broker.url.clone(),
            refused: end.refused,
            sent,
            reason: end.last_refusal.unwrap_or_default(),
        });
    }
    if end.delivered != sent && !summary.stopped {
        let missing = sent - end.delivered;
        return Err(fault(format!("{missing} messages were not acknowledged")));
    }
    Ok(summary)
}

/// Ends when the broker has refused us, or has been out of reach for too long. Tells what is wrong meanwhile.
async fn trouble(
    progress: &mut watch::Receiver<outbox::Progress>,
    player: &mut Player<'_>,
) -> String {
    let mut since = tokio::time::Instant::now();
    loop {
        let (connected, rejected, error) = {
            let p = progress.borrow_and_update();
            (p.connected, p.rejected, p.last_error.clone())
        };
        if rejected && !connected {
            return error.unwrap_or_default();
        }
        player.tell_fault(error.filter(|_| !connected));
        if connected {
            // The sender outlives us or all is over; then the other branch has won.
            if progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            since = tokio::time::Instant::now();
            continue;
        }
        match tokio::time::timeout_at(since + UNREACHABLE, progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => std::future::pending::<()>().await,
            Err(_) => {
                let error = progress.borrow().last_error.clone();
                let error = error.unwrap_or_else(|| "no answer".into());
                return format!("out of reach for {UNREACHABLE:?}; the last error: {error}");
            }
        }
    }
}

/// Plays into a Zenoh network, with `CongestionControl::Block`. Waits for a subscriber
/// first, and at the end until every source of ours has taken the last message (closing a session
/// drops what is still on its way).
///
/// # Errors
/// If the source cannot be read to its end, there is no session, or nobody subscribes.
pub async fn publish_zenoh(
    source: impl Source,
    options: Options,
    network: &Network,
    stop: &CancellationToken,
    tell: Tell<'_>,
) -> Result<Summary, Error> {
    let wrong = |e: zenoh::Error| super::zenoh::Error::Session(e.to_string());
    let mut player = Player::start(source, options, tell);
    let session = network.open().await?;
    let mut publishers: HashMap<Box<str>, Publisher<'static>> = HashMap::new();
    let mut awaited = false;
    while let Some(Recorded { topic, payload, .. }) = player.next(stop).await? {
        if !publishers.contains_key(&topic) {
            if publishers.len() >= MAX_PUBLISHERS {
                publishers.clear();
            }
            let publisher = session
                .declare_publisher(topic.to_string())
                .congestion_control(CongestionControl::Block)
                .await
                .map_err(wrong)?;
            if !awaited {
                listened(&publisher, stop).await?;
                awaited = true;
            }
            publishers.insert(topic.clone(), publisher);
        }
        if let Some(publisher) = publishers.get(&topic) {
            publisher.put(payload).await.map_err(wrong)?;
        }
    }
    drop(publishers);
    if super::zenoh::taken(&session).await == 0 {
        tracing::warn!("no trackside source answered: what other subscribers took is not known");
        tokio::time::sleep(LINGER).await;
    }
    session.close().await.map_err(wrong)?;
    Ok(player.finish(stop))
}

async fn listened(publisher: &Publisher<'_>, stop: &CancellationToken) -> Result<(), Error> {
    let deadline = Instant::now() + NOBODY;
    loop {
        let status = publisher.matching_status().await;
        if status.is_ok_and(|s| s.matching()) || stop.is_cancelled() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::NobodyListens(publisher.key_expr().to_string()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

type Batch = Vec<Result<Recorded, recording::Error>>;

/// Hands messages out when they are due.
struct Player<'a> {
    batches: mpsc::Receiver<Batch>,
    batch: std::vec::IntoIter<Result<Recorded, recording::Error>>,
    pace: Pace,
    began: Instant,
    progress: Progress,
    summary: Summary,
    tell: Tell<'a>,
    told: Instant,
}

impl<'a> Player<'a> {
    fn start(mut source: impl Source, options: Options, tell: Tell<'a>) -> Player<'a> {
        let (to, batches) = mpsc::channel(AHEAD);
        // Ends with the source, or when the player is gone.
        tokio::task::spawn_blocking(move || {
            loop {
                let mut batch: Batch = source.by_ref().take(BATCH).collect();
                if options.cbor {
                    for recorded in batch.iter_mut().flatten() {
                        recorded.payload = to_cbor(&recorded.topic, &recorded.payload);
                    }
                }
                if batch.is_empty() || to.blocking_send(batch).is_err() {
                    break;
                }
            }
        });
        Player {
            batches,
            batch: Vec::new().into_iter(),
            pace: options.pace,
            began: Instant::now(),
            progress: Progress::default(),
            summary: Summary::default(),
            tell,
            told: Instant::now(),
        }
    }

    /// The next message, when it is due; `None` at the end or when told to stop.
    async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Recorded>, Error> {
        loop {
            if stop.is_cancelled() {
                self.summary.stopped = true;
                return Ok(None);
            }
            let Some(result) = self.batch.next() else {
                match self.batches.recv().await {
                    Some(batch) => self.batch = batch.into_iter(),
                    None => return Ok(None),
                }
                continue;
            };
            match result {
                Ok(recorded) => {
                    self.wait_for(recorded.at, stop).await;
                    self.count(&recorded);
                    return Ok(Some(recorded));
                }
                Err(fault) if fault.is_of_one_line() => {
                    self.summary.skipped += 1;
                    if self.summary.first_fault.is_none() {
                        self.summary.first_fault = Some(fault.to_string());
                    }
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    async fn wait_for(&mut self, at: Time, stop: &CancellationToken) {
        let Some(first) = self.summary.first else {
            self.began = Instant::now();
            return;
        };
        let Pace::Times(times) = self.pace else {
            return;
        };
        let due = Duration::try_from_secs_f64(at.seconds_since(first) / times);
        let due = self.began + due.unwrap_or_default();
        if due > Instant::now() + TICK {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn count(&mut self, recorded: &Recorded) {
        self.summary.first.get_or_insert(recorded.at);
        self.summary.last = Some(recorded.at);
        self.summary.messages += 1;
        self.progress.messages += 1;
        self.progress.at = Some(recorded.at);
        self.progress.bytes += recorded.payload.len() as u64;
        // A look at the clock now and then is enough when it goes fast.
        if (self.pace != Pace::Max || self.progress.messages.is_multiple_of(BATCH as u64))
            && self.told.elapsed() >= TELL_EVERY
        {
            self.told = Instant::now();
            (self.tell)(self.progress.clone());
        }
    }

    fn tell_fault(&mut self, fault: Option<String>) {
        if self.progress.fault != fault {
            self.progress.fault = fault;
            (self.tell)(self.progress.clone());
        }
    }

    fn finish(mut self, stop: &CancellationToken) -> Summary {
        (self.tell)(self.progress.clone());
        self.summary.stopped |= stop.is_cancelled();
        self.summary.elapsed_s = self.began.elapsed().as_secs_f64();
        self.summary
    }
}

/// The same object in CBOR; what is no OpenF1 object stays as it is.
fn to_cbor(topic: &str, payload: &Bytes) -> Bytes {
    let Some(parsed) = Topic::parse(topic) else {
        return payload.clone();
    };
    match decode_document(parsed.kind, payload, parsed.wire) {
        Ok(entry) => encode(&entry, Wire::Cbor).into(),
        Err(_) => payload.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recording::Reader;
    use super::*;
    use crate::record::decode;

    #[test]
    fn paces() {
        assert_eq!("max".parse(), Ok(Pace::Max));
        assert_eq!("20".parse(), Ok(Pace::Times(20.0)));
        for wrong in ["", "fast", "0", "-1", "inf", "NaN"] {
            let text = wrong.parse::<Pace>().unwrap_err().to_string();
            assert!(text.contains("max"), "{text}");
        }
    }

    fn recording(lines: &[(i64, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = recording::Writer::create(file.path()).unwrap();
        for (ms, payload) in lines {
            let at = Time::from_millis(*ms);
            writer.write(at, "v1/laps", payload.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    #[tokio::test]
    async fn messages_leave_in_order_and_when_they_are_due() {
        let file = recording(&[(1_000, "1"), (3_000, "2"), (2_000, "3"), (21_000, "4")]);
        let mut tell = |_: Progress| {};
        let options = Options {
            pace: Pace::Times(100.0),
            cbor: false,
        };
        let stop = CancellationToken::new();
        let mut player = Player::start(Reader::open(file.path()).unwrap(), options, &mut tell);
        let mut seen = Vec::new();
        let mut began = None;
        while let Some(recorded) = player.next(&stop).await.unwrap() {
            let now = Instant::now();
            let began = *began.get_or_insert(now);
            let text = String::from_utf8(recorded.payload.to_vec()).unwrap();
            seen.push((text, (now - began).as_millis()));
        }
        for ((text, ms), (expected, due)) in
            seen.iter()
                .zip([("1", 0), ("2", 20), ("3", 20), ("4", 200)])
        {
            assert_eq!(text, expected);
            // Early by the grain of the clock at most; late by what a busy machine takes.
            assert!(*ms + 2 >= due && *ms < due + 1_000, "{text} after {ms} ms");
        }
        assert_eq!(player.finish(&stop).messages, 4);
    }

    #[tokio::test]
    async fn bad_lines_are_counted_and_the_first_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = r#"{"t":"2024-03-02T15:03:42Z","topic":"v1/laps","payload":{}}"#;
        std::fs::write(file.path(), format!("{good}\nx\ny\n{good}\n")).unwrap();
        let (stop, mut tell) = (CancellationToken::new(), |_: Progress| {});
        let options = Options {
            pace: Pace::Max,
            cbor: false,
        };
        let mut player = Player::start(Reader::open(file.path()).unwrap(), options, &mut tell);
        while player.next(&stop).await.unwrap().is_some() {}
        let summary = player.finish(&stop);
        assert_eq!((summary.messages, summary.skipped), (2, 2));
        assert!(summary.first_fault.unwrap().starts_with("line 2"));
    }

    #[test]
    fn cbor_says_the_same_as_json() {
        let json = Bytes::from_static(
            br#"{"meeting_key":1229,"session_key":9472,"driver_number":1,"lap_number":3,
            "date_start":"2024-03-02T15:06:42.341000+00:00","lap_duration":96.5,"_key":"9472_3_1","_id":7}"#,
        );
        let cbor = to_cbor("v1/laps", &json);
        assert_ne!(json, cbor);
        assert_eq!(
            decode("v1/laps", &json).unwrap(),
            decode("v1/laps", &cbor).unwrap()
        );
        let strange = Bytes::from_static(b"\x01\x02");
        assert_eq!(to_cbor("v1/laps", &strange), strange);
        assert_eq!(to_cbor("elsewhere", &json), json);
    }
}
