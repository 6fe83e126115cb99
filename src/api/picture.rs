//! The latest snapshot as text, drawn once however many ask for it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use tokio::sync::watch;

use super::tower::Tower;
use crate::live::Snapshot;

/// A snapshot in the two forms that are sent.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// The tower: the body of `/api/v1/state`.
    pub body: Bytes,
    /// The same within a WebSocket message.
    pub message: Utf8Bytes,
}

/// Draws snapshots, and remembers the last one.
pub(super) struct Picture {
    state: watch::Receiver<Arc<Snapshot>>,
    last: Mutex<Option<(Arc<Snapshot>, Drawn)>>,
}

impl Picture {
    pub fn new(state: watch::Receiver<Arc<Snapshot>>) -> Picture {
        Picture {
            state,
            last: Mutex::new(None),
        }
    }

    /// The latest snapshot itself.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.borrow())
    }

    /// The latest snapshot, drawn. Those who ask while it is drawn (below a millisecond) wait for
    /// it, rather than each drawing their own.
    pub fn latest(&self) -> Drawn {
        let snapshot = self.snapshot();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((drawn_from, drawn)) = &*last
            && Arc::ptr_eq(drawn_from, &snapshot)
        {
            return drawn.clone();
        }
        let drawn = draw(&snapshot);
        *last = Some((snapshot, drawn.clone()));
        drawn
    }
}

fn draw(snapshot: &Snapshot) -> Drawn {
    // A tower is structs, lists and numbers: writing it as JSON cannot fail.
    let body = serde_json::to_string(&Tower::of(snapshot)).unwrap_or_else(|_| "null".to_owned());
    let message = format!(
        r#"{{"type":"state","seq":{},"payload":{body}}}"#,
        snapshot.seq
    );
    Drawn {
        body: body.into(),
        message: message.into(),
    }
}
