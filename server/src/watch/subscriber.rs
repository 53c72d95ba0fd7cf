//! One stream of watchers, from the reader's side: live events from its mailbox, past ones from
//! history, in turn, so that neither starves the other.
//!
//! The order of steps is what makes the two ends meet. A watcher is first taken from the hub's list
//! of unsynced ones, *then* the mailbox is emptied, and only then is history read for it: whatever
//! it was told before it fell behind has left the mailbox by then.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use gonfalon_core::watch::{CaughtUp, CreateError, Created, Filter, Spec, StreamId, WatchId};
use gonfalon_core::{Error, Event, HistoryError, KeyRange, Revision};

use super::event::SharedEvent;
use super::mailbox::{Entry, Mailbox};
use super::{Replay, Replayed, Watchers};
use crate::limits::{
    REPLAY_BYTES_MAX, REPLAY_EVENTS_FIRST, REPLAY_EVENTS_MAX, REPLAY_WATCHERS_MAX,
};

/// A stream of watchers. Dropping it removes them.
pub struct Subscriber {
    watchers: Arc<Watchers>,
    replay: Arc<dyn Replay>,
    mailbox: Mailbox,
    /// Some until it is dropped.
    stream: Option<StreamId>,
    interests: BTreeMap<WatchId, Interest>,
    /// Unsynced watchers and the revision to read on from. What they were told before has left
    /// the mailbox.
    backlog: BTreeMap<WatchId, Revision>,
    /// The hub has unsynced watchers for the backlog.
    is_behind: bool,
    /// The mailbox had its turn last.
    is_turn_of_history: bool,
    /// The watcher for which history was read last.
    last_read: Option<WatchId>,
    /// How many changes to read in one go.
    replay_events: usize,
}

/// What a watcher wants of history.
#[derive(Debug)]
struct Interest {
    range: KeyRange,
    filter: Filter,
    with_prev: bool,
}

/// Whether there was something to hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each needs another reaction")]
pub enum Delivery {
    /// Nothing now: wait for [`Subscriber::filled`].
    Nothing,
    /// As it happened, each revision whole. There may be nothing in it: ask again.
    Live,
    /// From history, each revision whole, read when the store was at `revision`.
    Replayed {
        /// The store's revision.
        revision: Revision,
    },
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber")
            .field("interests", &self.interests)
            .field("backlog", &self.backlog)
            .finish_non_exhaustive()
    }
}

impl Subscriber {
    /// Opens a stream without watchers.
    pub fn open(watchers: Arc<Watchers>, replay: Arc<dyn Replay>) -> Self {
        let mailbox = Mailbox::default();
        let stream = watchers.lock().open_stream(mailbox.clone());
        Self {
            watchers,
            replay,
            mailbox,
            stream: Some(stream),
            interests: BTreeMap::new(),
            backlog: BTreeMap::new(),
            is_behind: false,
            is_turn_of_history: false,
            last_read: None,
            replay_events: REPLAY_EVENTS_FIRST,
        }
    }

    /// Adds a watcher; its creation is handed out before its events.
    pub fn create(&mut self, spec: Spec, with_prev: bool) -> Result<Created, CreateError> {
        let (range, filter) = (spec.range.clone(), spec.filter);
        let created = self.watchers.lock().create(self.stream(), spec)?;
        self.interests.insert(
            created.id,
            Interest {
                range,
                filter,
                with_prev,
            },
        );
        Ok(created)
    }

    /// Removes a watcher, which is handed out behind its last events; false if there is none.
    pub fn cancel(&mut self, id: WatchId) -> bool {
        self.remove(id, None)
    }

    fn remove(&mut self, id: WatchId, compacted: Option<Revision>) -> bool {
        self.interests.remove(&id);
        self.backlog.remove(&id);
        self.watchers.lock().cancel(self.stream(), id, compacted)
    }

    /// Asks for progress of one watcher, or of all; it is handed out behind the events it covers.
    /// False if it cannot be told now.
    pub fn progress(&mut self, id: Option<WatchId>) -> bool {
        self.watchers.lock().progress(self.stream(), id)
    }

    /// The revision up to which watchers of this member have been told.
    pub fn revision(&self) -> Revision {
        self.watchers.lock().revision()
    }

    /// Hands out what there is into `entries`, which must be empty.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self, entries: &mut Vec<Entry>) -> Result<Delivery, HistoryError> {
        if self.is_turn_of_history && !self.backlog.is_empty() {
            self.is_turn_of_history = false;
            return self.read_history(entries).await;
        }
        self.take(entries);
        let is_idle = entries.is_empty() && self.backlog.is_empty() && !self.is_behind;
        Ok(if is_idle {
            Delivery::Nothing
        } else {
            Delivery::Live
        })
    }

    /// Hands out what has happened into `entries`, which must be empty, and reads no history: the
    /// answer to what was asked a moment ago is in it.
    pub fn take(&mut self, entries: &mut Vec<Entry>) {
        // This order is the one that the head of this file explains.
        if std::mem::take(&mut self.is_behind) {
            let unsynced = self.watchers.lock().take_unsynced(self.stream());
            self.backlog.extend(unsynced);
        }
        self.is_behind = self.mailbox.take(entries);
        self.is_turn_of_history = true;
    }

    /// Returns when there may be something to hand out again.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn filled(&self) {
        self.mailbox.filled().await;
    }

    /// Reads a part of history for the next watcher of the backlog, and gives it to all others
    /// that need the same part.
    async fn read_history(&mut self, entries: &mut Vec<Entry>) -> Result<Delivery, HistoryError> {
        let Some((id, from)) = self.next_turn() else {
            return Ok(Delivery::Live);
        };
        let replay = self.replay.clone();
        let limit = self.replay_events;
        let with_prev = self
            .backlog
            .keys()
            .any(|id| self.interests.get(id).is_some_and(|i| i.with_prev));
        let read = move || replay.replay(from, limit, with_prev);
        let replayed = match tokio::task::spawn_blocking(read).await {
            Ok(replayed) => replayed?,
            Err(error) => return Err(HistoryError(error.to_string())),
        };
        self.last_read = Some(id);
        match replayed {
            Ok(Replayed { events, revision }) => {
                self.adapt(&events);
                self.give(id, from, &events, revision, entries);
                Ok(Delivery::Replayed { revision })
            }
            Err(Error::Compacted { oldest }) => {
                self.remove_compacted(oldest);
                Ok(Delivery::Live)
            }
            Err(error) => Err(HistoryError(error.to_string())),
        }
    }

    /// The watcher of the backlog behind the one that was last, around and around.
    fn next_turn(&self) -> Option<(WatchId, Revision)> {
        let behind = self.last_read.map_or(Bound::Unbounded, Bound::Excluded);
        let mut turns = self
            .backlog
            .range((behind, Bound::Unbounded))
            .chain(&self.backlog);
        turns.next().map(|(&id, &from)| (id, from))
    }

    /// Reads less at a time where values are large, and more where they are small.
    fn adapt(&mut self, events: &[Arc<Event>]) {
        let bytes: usize = events
            .iter()
            .map(|event| event.kv.key.len() + event.kv.value.len())
            .sum();
        if bytes > REPLAY_BYTES_MAX {
            self.replay_events = (self.replay_events / 2).max(1);
        } else if events.len() >= self.replay_events && bytes < REPLAY_BYTES_MAX / 2 {
            self.replay_events = (self.replay_events * 2).min(REPLAY_EVENTS_MAX);
        }
    }

    /// Hands out `events`, all there are from revision `from` on as far as they go, to the watcher
    /// `first` and to others whose next event is among them.
    fn give(
        &mut self,
        first: WatchId,
        from: Revision,
        events: &[Arc<Event>],
        revision: Revision,
        entries: &mut Vec<Entry>,
    ) {
        let next = match events.last() {
            Some(last) => last.kv.mod_revision.next(),
            None => revision.next().max(from),
        };
        let served: Vec<(WatchId, Revision)> = self
            .backlog
            .range(first..)
            .chain(self.backlog.range(..first))
            .map(|(&id, &at)| (id, at))
            .filter(|&(_, at)| at >= from && at <= next)
            .take(REPLAY_WATCHERS_MAX)
            .collect();
        for event in events {
            let mut shared = None;
            for &(id, at) in &served {
                let interest = &self.interests[&id];
                if event.kv.mod_revision >= at
                    && interest.filter.passes(event.kind)
                    && interest.range.contains(&event.kv.key)
                {
                    let shared =
                        shared.get_or_insert_with(|| Arc::new(SharedEvent::new(event.clone())));
                    entries.push(Entry::Event(id, Arc::clone(shared)));
                }
            }
        }
        let watchers = self.watchers.clone();
        let mut hub = watchers.lock();
        for (id, _) in served {
            match hub.caught_up(self.stream(), id, next) {
                CaughtUp::Synced => self.backlog.remove(&id),
                CaughtUp::Behind => self.backlog.insert(id, next),
            };
        }
    }

    /// Removes the watchers whose next event is not in history any more.
    fn remove_compacted(&mut self, oldest: Revision) {
        let is_lost = |(&id, &next): (&WatchId, &Revision)| (next < oldest).then_some(id);
        let lost: Vec<WatchId> = self.backlog.iter().filter_map(is_lost).collect();
        for id in lost {
            self.remove(id, Some(oldest));
        }
    }

    fn stream(&self) -> &StreamId {
        self.stream
            .as_ref()
            .expect("it is there until this is dropped")
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.watchers.lock().close_stream(stream);
        }
    }
}

#[cfg(test)]
mod tests;
