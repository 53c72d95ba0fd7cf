//! A watch by the server itself, for services that wait for keys to change.

use std::sync::Arc;

use bytes::Bytes;
use gonfalon_core::watch::{Filter, Mark, Spec};
use gonfalon_core::{Event, HistoryError, KeyRange, Revision};

use super::mailbox::Entry;
use super::subscriber::{Delivery, Subscriber};
use super::{Replay, Watchers};

/// One watcher. Dropping it removes it.
#[derive(Debug)]
pub struct LocalWatch {
    subscriber: Subscriber,
    entries: Vec<Entry>,
}

/// Why a watch ended.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "each needs another reaction")]
pub enum WatchError {
    /// What it was to be told next is compacted.
    #[error("compacted; the oldest readable revision is {oldest}")]
    Compacted {
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The storage below cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl LocalWatch {
    /// Watches `range` from revision `start` on, past or future, or from the present on.
    ///
    /// # Panics
    ///
    /// If no key can be in `range`.
    pub fn open(
        watchers: Arc<Watchers>,
        replay: Arc<dyn Replay>,
        range: KeyRange,
        start: Option<Revision>,
        filter: Filter,
    ) -> Self {
        let mut subscriber = Subscriber::open(watchers, replay);
        let spec = Spec {
            id: None,
            range,
            start,
            filter,
        };
        subscriber
            .create(spec, false)
            .expect("the range is not empty, the stream is new");
        Self {
            subscriber,
            entries: Vec::new(),
        }
    }

    /// Waits for the next changes: one at least, whole revisions, in order.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        loop {
            let delivery = self.subscriber.next(&mut self.entries).await?;
            let mut events = Vec::new();
            for entry in self.entries.drain(..) {
                match entry {
                    Entry::Event(_, event) => events.push(event.event().clone()),
                    Entry::Mark(Mark::Canceled {
                        compacted: Some(oldest),
                        ..
                    }) => {
                        return Err(WatchError::Compacted { oldest });
                    }
                    Entry::Mark(_) => {}
                }
            }
            if !events.is_empty() {
                return Ok(events);
            }
            if delivery == Delivery::Nothing {
                self.subscriber.filled().await;
            }
        }
    }

    /// Waits until `key` is deleted at revision `from` or later; returns the revision.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn deleted(
        watchers: Arc<Watchers>,
        replay: Arc<dyn Replay>,
        key: Bytes,
        from: Revision,
    ) -> Result<Revision, WatchError> {
        let filter = Filter {
            no_put: true,
            no_delete: false,
        };
        let range = KeyRange::single(key);
        let mut watch = Self::open(watchers, replay, range, Some(from), filter);
        let events = watch.next().await?;
        Ok(events[0].kv.mod_revision)
    }
}
