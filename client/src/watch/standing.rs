//! How a watch stands, and how to hear of a change.

use std::sync::Arc;

use tokio::sync::watch;

use super::WatchState;
use crate::clock::Stamp;

/// How a watch stands, and since when it is live, or was.
#[derive(Debug, Clone, Copy)]
struct Standing {
    state: WatchState,
    live_since: Stamp,
}

/// The same of one watch, for whoever sets it and whoever wants to know.
#[derive(Debug, Clone)]
pub(super) struct States(Arc<watch::Sender<Standing>>);

impl States {
    /// Of a watch that is to be created.
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Standing {
            state: WatchState::Resuming,
            live_since: Stamp::now(),
        })))
    }

    pub(super) fn now(&self) -> WatchState {
        self.0.borrow().state
    }

    /// Since when it is live, if it is.
    pub(super) fn live_since(&self) -> Option<Stamp> {
        let now = *self.0.borrow();
        (now.state == WatchState::Live).then_some(now.live_since)
    }

    /// It stands so from now on; what has ended has ended.
    pub(super) fn set(&self, state: WatchState) {
        self.0.send_if_modified(|now| {
            let is_new = now.state != state && now.state != WatchState::Ended;
            if is_new {
                now.state = state;
                if state == WatchState::Live {
                    now.live_since = Stamp::now();
                }
            }
            is_new
        });
    }

    pub(super) fn changes(&self) -> StateChanges {
        StateChanges {
            changes: self.0.subscribe(),
            has_ended: false,
        }
    }
}

/// The changes of a watch's state. It does not borrow the watch, whose batches can be awaited beside
/// it.
#[derive(Debug)]
pub struct StateChanges {
    changes: watch::Receiver<Standing>,
    has_ended: bool,
}

impl StateChanges {
    /// The state after the next change, or after the last of several; none once the watch has ended
    /// and that was told, or once it is dropped.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<WatchState> {
        if self.has_ended || self.changes.changed().await.is_err() {
            return None;
        }
        let state = self.changes.borrow_and_update().state;
        self.has_ended = state == WatchState::Ended;
        Some(state)
    }
}
