//! This member's watchers: the hub behind its lock, and the subscribers that it feeds.
//!
//! The task that applies commands calls [`Watchers::publish`] after each batch and before it
//! answers the writers. Whoever wants events opens a [`Subscriber`]: the gRPC service (`api/watch.rs`)
//! one for each of its streams, the lock and election services a [`LocalWatch`]. A subscriber that
//! is slow costs its bounded queue and delays nobody: it reads from history what its queue had no
//! room for.
//!
//! Locks: the hub's, then a mailbox's. Neither is held while the state is read or anything is
//! awaited.

mod event;
mod local;
mod mailbox;
mod subscriber;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::{Arc, Mutex, MutexGuard};

use gonfalon_core::watch::{Counts, Hub};
use gonfalon_core::{Error, Event, HistoryError, Revision};

pub use event::SharedEvent;
pub use local::{LocalWatch, WatchError};
pub use mailbox::{Entry, Mailbox};
pub use subscriber::{Delivery, Subscriber};

/// The watchers of this member.
#[derive(Debug)]
pub struct Watchers {
    hub: Mutex<Hub<Mailbox>>,
}

impl Watchers {
    /// Nobody watches a store that is at `revision`.
    pub fn new(revision: Revision) -> Self {
        Self {
            hub: Mutex::new(Hub::new(revision)),
        }
    }

    /// Tells the watchers of all changes since the last call, which brought the store to
    /// `revision`. See [`Hub::publish`].
    pub fn publish(&self, revision: Revision, events: &[Arc<Event>]) {
        self.lock().publish(revision, events);
    }

    /// Notes that a snapshot has replaced the store by one that is at `revision`.
    pub fn reset(&self, revision: Revision) {
        self.lock().reset(revision);
    }

    /// How many watchers there are.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// Events that wait in the queues of all streams.
    pub fn pending_events(&self) -> usize {
        self.lock().sinks().map(Mailbox::event_count).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Hub<Mailbox>> {
        self.hub
            .lock()
            .expect("a panic of the hub ends the process")
    }
}

/// Where subscribers read what is past.
pub trait Replay: Send + Sync + 'static {
    /// The changes from revision `from` on: whole revisions, about `limit` changes. Previous
    /// versions may be missing unless `with_prev` is set.
    fn replay(
        &self,
        from: Revision,
        limit: usize,
        with_prev: bool,
    ) -> Result<Result<Replayed, Error>, HistoryError>;
}

/// A part of history.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The changes, oldest first, each revision whole. Empty only if there are no later ones.
    pub events: Vec<Arc<Event>>,
    /// The store's revision when they were read.
    pub revision: Revision,
}
