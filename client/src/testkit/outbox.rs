//! What a member's hub has for one stream of watches, until the stream takes it.
//!
//! It has no bound: whatever is in it is in the store's history too, and shared with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use gonfalon_core::watch::{Mark, Queue, Sink, WatchId};
use gonfalon_core::{Event, Revision};
use tokio::sync::Notify;

#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    told: Mutex<VecDeque<Told>>,
    bell: Notify,
}

#[derive(Debug)]
pub(super) enum Told {
    /// All that one watcher is told of one revision, by a member that is at revision `at`.
    Events {
        id: WatchId,
        events: Vec<Arc<Event>>,
        at: Revision,
    },
    Mark(Mark),
}

impl Outbox {
    pub(super) fn told(&self) -> MutexGuard<'_, VecDeque<Told>> {
        self.0
            .told
            .lock()
            .expect("nothing panics while it holds this lock")
    }

    /// Returns when there is something new.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn filled(&self) {
        self.0.bell.notified().await;
    }
}

/// The queue while the hub fills it.
#[derive(Debug)]
pub(super) struct Open<'a>(&'a Inner, MutexGuard<'a, VecDeque<Told>>);

impl Sink for Outbox {
    type Item = Arc<Event>;
    type Queue<'a> = Open<'a>;

    fn item(event: &Arc<Event>) -> Arc<Event> {
        event.clone()
    }

    fn queue(&self) -> Open<'_> {
        Open(&self.0, self.told())
    }
}

impl Queue<Arc<Event>> for Open<'_> {
    fn offer<'i>(
        &mut self,
        id: WatchId,
        events: impl ExactSizeIterator<Item = &'i Arc<Event>> + Clone,
    ) -> bool {
        let events: Vec<_> = events.cloned().collect();
        let at = events.last().map(|event| event.kv.mod_revision);
        self.1.push_back(Told::Events {
            id,
            events,
            at: at.unwrap_or_default(),
        });
        true
    }

    fn mark(&mut self, mark: Mark) {
        self.1.push_back(Told::Mark(mark));
    }

    fn behind(&mut self) {}
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.bell.notify_one();
    }
}
