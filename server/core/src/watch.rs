//! Watchers, and who is told of what.
//!
//! Here is one member's view of the watchers that its clients have opened: nothing of it is
//! replicated, and nothing of it waits. The task that applies commands hands every change to
//! [`Hub::publish`], which passes it to the queues of the streams that want it. What a queue has no
//! room for is not kept here: its watcher becomes *unsynced*, and the stream's own task reads what
//! it missed from history, at its own pace, until [`Hub::caught_up`] lets it follow live again.
//!
//! What a watcher is promised, whichever of the two ways its events take: every event of its range
//! from its start on, in order, once, all events of one revision together, and no progress
//! announced beyond what it was given. `watch/model.rs` states this as a plain model and tests it.
//!
//! The gRPC side (responses, fragments, previous values) is in `server/src/api/watch.rs`.

mod hub;
mod interval;
#[cfg(test)]
mod model;
mod slab;

use std::fmt;
use std::sync::Arc;

pub use hub::{Counts, Hub, StreamId};

use crate::{Event, EventKind, KeyRange, Revision};

/// Names a watcher within its stream. 0 is a legal id, and so are negative ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(i64);

impl WatchId {
    /// The watcher with this number on the wire.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number on the wire.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Debug for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watch {}", self.0)
    }
}

/// What a watcher wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its id, or none to have one chosen: 0, 1, 2, … per stream, without those in use.
    pub id: Option<WatchId>,
    /// The keys to watch.
    pub range: KeyRange,
    /// The first revision to tell, past or future; none for all that come after the creation.
    pub start: Option<Revision>,
    /// Which kinds of change to leave out.
    pub filter: Filter,
}

/// Which kinds of change a watcher does not want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
}

impl Filter {
    /// Whether changes of this kind get through.
    pub fn passes(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// A watcher that now exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: WatchId,
    /// The hub's revision at its creation. Without a start, events begin right behind it.
    pub at: Revision,
    /// Whether it follows live. If not, its stream must catch up for it.
    pub is_synced: bool,
}

/// Why a watcher was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the wire has a text for each; a new one needs one"
)]
pub enum CreateError {
    /// No key can be in its range.
    #[error("the range to watch is empty")]
    EmptyRange,
    /// The stream has a watcher of that id.
    #[error("the stream has a watcher of that id")]
    DuplicateId,
}

/// Whether a watcher that has read history may follow live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third state")]
pub enum CaughtUp {
    /// It follows live from here on.
    Synced,
    /// More was published meanwhile: read on.
    Behind,
}

/// What a stream is told between events, in its place among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each must reach the client; a new one needs a way"
)]
pub enum Mark {
    /// The watcher exists. Its events, if any, come behind this.
    Created {
        /// The watcher.
        id: WatchId,
        /// See [`Created::at`].
        at: Revision,
    },
    /// The watcher is gone. Nothing of it comes behind this.
    Canceled {
        /// The watcher.
        id: WatchId,
        /// The hub's revision.
        at: Revision,
        /// Set if it was cancelled because the events it needed next were compacted: the oldest
        /// revision that can still be read.
        compacted: Option<Revision>,
    },
    /// Everything up to `at` came before this.
    Progress {
        /// For this watcher; none if for all watchers of the stream.
        id: Option<WatchId>,
        /// The hub's revision.
        at: Revision,
    },
}

/// The receiving end of a stream: a bounded queue that the stream's task empties.
///
/// The hub never waits for a sink.
pub trait Sink {
    /// What the queue keeps of an event. Made once per event and cloned for each watcher, so that
    /// watchers can share work (the encoded bytes, say).
    type Item;
    /// The queue while it is locked. Dropping it wakes the stream's task if it has got anything.
    type Queue<'a>: Queue<Self::Item>
    where
        Self: 'a;

    /// Makes the item of an event.
    fn item(event: &Arc<Event>) -> Self::Item;

    /// Locks the queue.
    fn queue(&self) -> Self::Queue<'_>;
}

/// A locked queue of a [`Sink`].
pub trait Queue<I> {
    /// Takes all events that a watcher is told of one revision, or refuses them all for lack of
    /// room.
    fn offer<'i>(
        &mut self,
        id: WatchId,
        events: impl ExactSizeIterator<Item = &'i I> + Clone,
    ) -> bool
    where
        I: 'i;

    /// Takes a mark. Marks answer what the stream's task itself has asked for, so that it is that
    /// task, and not the queue, that bounds their number.
    fn mark(&mut self, mark: Mark);

    /// Notes that watchers of the stream have become unsynced: its task is to call
    /// [`Hub::take_unsynced`].
    fn behind(&mut self);
}
