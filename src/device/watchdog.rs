//! The watchdog: systemd hears from us only while every stage of the pipeline moves.
//!
//! Each stage's loop beats once a turn, and turns at least once a second even when there is nothing
//! to do. At half of systemd's time-out we look: if every stage has beaten since the last ping, we
//! ping. A stage that hangs (a lock, a disk that never answers) stops the pings, and systemd
//! restarts the daemon; what was acknowledged is in the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Notifier;

/// The longest that a stage may take between two beats while all is well.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// A stage that must move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The asynchronous side: sources, outlets, API.
    Runtime,
    /// Decodes, drops doubles, appends to the journal and commits.
    Writer,
    /// Folds the journal into the race and predicts.
    Fold,
}

impl Stage {
    /// Every stage, in the order of the pipeline.
    pub const ALL: [Stage; 3] = [Stage::Runtime, Stage::Writer, Stage::Fold];

    pub const fn name(self) -> &'static str {
        match self {
            Stage::Runtime => "runtime",
            Stage::Writer => "writer",
            Stage::Fold => "fold",
        }
    }
}

/// Beats of every stage. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    beats: Arc<[AtomicU64; Stage::ALL.len()]>,
}

impl Progress {
    pub fn new() -> Progress {
        Progress::default()
    }

    /// The stage has made a turn.
    pub fn beat(&self, stage: Stage) {
        self.beats[stage as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Turns of each stage so far, in the order of [`Stage::ALL`].
    pub fn beats(&self) -> [u64; Stage::ALL.len()] {
        std::array::from_fn(|i| self.beats[i].load(Ordering::Relaxed))
    }
}

/// Compares what was with what is.
#[derive(Clone, Debug)]
pub struct Watchdog {
    progress: Progress,
    at_last_ping: [u64; Stage::ALL.len()],
}

impl Watchdog {
    pub fn new(progress: Progress) -> Watchdog {
        let at_last_ping = progress.beats();
        Watchdog {
            progress,
            at_last_ping,
        }
    }

    /// Looks whether every stage has moved since the last time that all had.
    ///
    /// # Errors
    ///
    /// The stages that have not, in the order of the pipeline; it is then no time to ping.
    pub fn check(&mut self) -> Result<(), Vec<Stage>> {
        let now = self.progress.beats();
        let stuck: Vec<Stage> = Stage::ALL
            .into_iter()
            .filter(|stage| now[*stage as usize] == self.at_last_ping[*stage as usize])
            .collect();
        if !stuck.is_empty() {
            return Err(stuck);
        }
        self.at_last_ping = now;
        Ok(())
    }
}

/// Pings `notifier` for as long as the pipeline moves, until `stop`. Returns at once where no
/// watchdog listens.
pub async fn run(notifier: Notifier, progress: Progress, stop: CancellationToken) {
    let Some(timeout) = notifier.watchdog_timeout() else {
        return;
    };
    let mut watchdog = Watchdog::new(progress);
    let mut ticks = tokio::time::interval(timeout / 2);
    // The first tick comes at once, before any stage can have moved.
    ticks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => match watchdog.check() {
                Ok(()) => notifier.watchdog(),
                Err(stuck) => tell(notifier, &stuck),
            },
        }
    }
}

fn tell(notifier: Notifier, stuck: &[Stage]) {
    let names: Vec<_> = stuck.iter().map(|stage| stage.name()).collect();
    let names = names.join(", ");
    metrics::counter!("trackside_device_watchdog_missed_total").increment(1);
    tracing::error!(stages = %names, "no progress since the last watchdog ping; not pinging");
    notifier.status(&format!("no progress in {names}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_must_move_between_two_pings() {
        let progress = Progress::new();
        let mut watchdog = Watchdog::new(progress.clone());
        assert_eq!(watchdog.check(), Err(Stage::ALL.to_vec()));
        for stage in Stage::ALL {
            progress.beat(stage);
        }
        assert_eq!(watchdog.check(), Ok(()));
        // One stage hangs while the others go on, look after look.
        for _ in 0..3 {
            progress.beat(Stage::Runtime);
            progress.beat(Stage::Fold);
            assert_eq!(watchdog.check(), Err(vec![Stage::Writer]));
        }
        // It moves again: what the others did since the last ping still counts.
        progress.beat(Stage::Writer);
        assert_eq!(watchdog.check(), Ok(()));
        assert_eq!(watchdog.check(), Err(Stage::ALL.to_vec()));
    }

    #[tokio::test]
    async fn without_a_watchdog_there_is_nothing_to_run() {
        run(
            Notifier::silent(),
            Progress::new(),
            CancellationToken::new(),
        )
        .await;
    }
}
