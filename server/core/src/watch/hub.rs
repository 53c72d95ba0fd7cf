//! One member's watchers, and the way of an event to those who want it.
//!
//! A watcher is *synced* if it is in the index and told of changes as they are published, or
//! *unsynced* if its stream's task reads history for it. An unsynced watcher is told nothing by the
//! hub, so what its task reads and what it is told later can neither overlap nor leave a gap.
//!
//! Invariants
//! - the index holds exactly the synced watchers;
//! - an unsynced watcher's `next` is at most the hub's revision;
//! - between calls no stream has hits left, and `touched` is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::interval::Interests;
use super::slab::Slab;
use super::{CaughtUp, CreateError, Created, Filter, Mark, Queue, Sink, Spec, WatchId};
use crate::{Event, KeyRange, Revision};

/// The watchers of one member, and the revision up to which they have been told.
///
/// Its owner locks it. Calls are short and never wait: the longest, [`Hub::publish`], is linear in
/// the number of events that are delivered.
#[derive(Debug)]
pub struct Hub<S: Sink> {
    /// The last revision that was published.
    revision: Revision,
    index: Interests<u32>,
    watchers: Slab<Watcher>,
    streams: Slab<Stream<S>>,
    unsynced: usize,
    /// Streams that the batch being published has events for, each once. Kept for its capacity.
    touched: Vec<u32>,
}

/// Names a stream until it is closed. It cannot be copied, so nothing can be asked of a stream that
/// is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamId(u32);

/// How many there are, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Open streams.
    pub streams: usize,
    /// Watchers of all streams.
    pub watchers: usize,
    /// Those of them that are unsynced.
    pub unsynced: usize,
}

#[derive(Debug)]
struct Stream<S> {
    sink: S,
    /// The slots of its watchers.
    watchers: BTreeMap<WatchId, u32>,
    /// Where the search for a free id goes on.
    next_id: i64,
    /// Unsynced watchers that its task has not been told of.
    untold: BTreeSet<WatchId>,
    /// What the batch being published has for it, in order of revision.
    hits: Vec<Hit>,
}

#[derive(Debug)]
struct Watcher {
    stream: u32,
    id: WatchId,
    range: KeyRange,
    filter: Filter,
    /// As its creator gave it.
    start: Option<Revision>,
    /// Synced: events below this one are not wanted. Unsynced: history is to be read from here.
    next: Revision,
    is_synced: bool,
}

/// An event of the batch being published that a watcher wants.
#[derive(Debug, Clone, Copy)]
struct Hit {
    watcher: u32,
    /// Which of the batch's items.
    item: u32,
}

impl<S: Sink> Hub<S> {
    /// A hub for a store that is at `revision`.
    pub fn new(revision: Revision) -> Self {
        Self {
            revision,
            index: Interests::default(),
            watchers: Slab::new(),
            streams: Slab::new(),
            unsynced: 0,
            touched: Vec::new(),
        }
    }

    /// Adds a stream without watchers.
    pub fn open_stream(&mut self, sink: S) -> StreamId {
        StreamId(self.streams.insert(Stream {
            sink,
            watchers: BTreeMap::new(),
            next_id: 0,
            untold: BTreeSet::new(),
            hits: Vec::new(),
        }))
    }

    /// Removes a stream and its watchers; returns its sink.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the id must not be used again"
    )]
    pub fn close_stream(&mut self, stream: StreamId) -> S {
        let Stream { sink, watchers, .. } = self.streams.remove(stream.0);
        for slot in watchers.into_values() {
            self.remove_watcher(slot);
        }
        sink
    }

    /// Adds a watcher and queues [`Mark::Created`].
    pub fn create(&mut self, stream: &StreamId, spec: Spec) -> Result<Created, CreateError> {
        if spec.range.is_empty() {
            return Err(CreateError::EmptyRange);
        }
        let id = self.free_id(stream, spec.id)?;
        let at = self.revision;
        let next = spec.start.unwrap_or(at.next());
        let is_synced = next > at;
        let Spec {
            range,
            start,
            filter,
            ..
        } = spec;
        let slot = self.watchers.insert(Watcher {
            stream: stream.0,
            id,
            range,
            filter,
            start,
            next,
            is_synced,
        });
        let stream = &mut self.streams[stream.0];
        stream.watchers.insert(id, slot);
        let mut queue = stream.sink.queue();
        queue.mark(Mark::Created { id, at });
        if is_synced {
            self.index.insert(&self.watchers[slot].range, slot);
        } else {
            self.unsynced += 1;
            stream.untold.insert(id);
            queue.behind();
        }
        Ok(Created { id, at, is_synced })
    }

    /// The id that was asked for, or the next one that is free.
    fn free_id(
        &mut self,
        stream: &StreamId,
        asked: Option<WatchId>,
    ) -> Result<WatchId, CreateError> {
        let stream = &mut self.streams[stream.0];
        if let Some(id) = asked {
            let is_used = stream.watchers.contains_key(&id);
            return if is_used {
                Err(CreateError::DuplicateId)
            } else {
                Ok(id)
            };
        }
        while stream.watchers.contains_key(&WatchId::new(stream.next_id)) {
            stream.next_id += 1;
        }
        let id = WatchId::new(stream.next_id);
        stream.next_id += 1;
        Ok(id)
    }

    /// Removes a watcher and queues [`Mark::Canceled`]; false if there is none of that id.
    ///
    /// `compacted` is for the stream's task, which finds out that history is gone.
    pub fn cancel(&mut self, stream: &StreamId, id: WatchId, compacted: Option<Revision>) -> bool {
        let at = self.revision;
        let stream = &mut self.streams[stream.0];
        let Some(slot) = stream.watchers.remove(&id) else {
            return false;
        };
        stream.untold.remove(&id);
        stream
            .sink
            .queue()
            .mark(Mark::Canceled { id, at, compacted });
        self.remove_watcher(slot);
        true
    }

    /// Forgets a watcher that its stream has forgotten.
    fn remove_watcher(&mut self, slot: u32) {
        let watcher = self.watchers.remove(slot);
        if watcher.is_synced {
            self.index.remove(&watcher.range, slot);
        } else {
            self.unsynced -= 1;
        }
    }

    /// Tells the watchers of the changes that brought the store to `revision`.
    ///
    /// `events` are all changes since the revision published before, in order, and their revisions
    /// whole. Call it before the writers are answered: who creates a watcher after that may rely on
    /// [`Created::at`] being at least the revision of the write.
    pub fn publish(&mut self, revision: Revision, events: &[Arc<Event>]) {
        assert!(
            revision >= self.revision,
            "{revision:?} published behind {:?}",
            self.revision
        );
        let is_new = |event: &Arc<Event>| {
            event.kv.mod_revision > self.revision && event.kv.mod_revision <= revision
        };
        debug_assert!(events.iter().all(is_new), "events of other revisions");
        debug_assert!(
            events.is_sorted_by_key(|event| event.kv.mod_revision),
            "events out of order"
        );
        self.revision = revision;
        if self.index.is_empty() {
            return;
        }
        let items = self.find_hits(events);
        let mut touched = std::mem::take(&mut self.touched);
        for stream in touched.drain(..) {
            self.deliver(stream, &items);
        }
        self.touched = touched;
    }

    /// Notes in each stream which events its watchers want; returns the events that anybody wants.
    fn find_hits(&mut self, events: &[Arc<Event>]) -> Vec<(Revision, S::Item)> {
        let mut items = Vec::new();
        for event in events {
            let revision = event.kv.mod_revision;
            let mut item = None;
            self.index.search(&event.kv.key, |slot| {
                let watcher = &self.watchers[slot];
                if revision < watcher.next || !watcher.filter.passes(event.kind) {
                    return;
                }
                let item = *item.get_or_insert_with(|| {
                    items.push((revision, S::item(event)));
                    u32::try_from(items.len() - 1).expect("a batch is far smaller")
                });
                let stream = &mut self.streams[watcher.stream];
                if stream.hits.is_empty() {
                    self.touched.push(watcher.stream);
                }
                stream.hits.push(Hit {
                    watcher: slot,
                    item,
                });
            });
        }
        items
    }

    /// Offers a stream its hits; watchers whose hits it has no room for become unsynced.
    fn deliver(&mut self, stream_slot: u32, items: &[(Revision, S::Item)]) {
        let stream = &mut self.streams[stream_slot];
        let mut hits = std::mem::take(&mut stream.hits);
        let mut queue = stream.sink.queue();
        let revision_of = |hit: &Hit| items[hit.item as usize].0;
        for of_revision in hits.chunk_by_mut(|a, b| revision_of(a) == revision_of(b)) {
            let revision = revision_of(&of_revision[0]);
            // Stable: the events of a watcher stay in order.
            of_revision.sort_by_key(|hit| hit.watcher);
            for of_watcher in of_revision.chunk_by(|a, b| a.watcher == b.watcher) {
                let slot = of_watcher[0].watcher;
                let watcher = &mut self.watchers[slot];
                if !watcher.is_synced {
                    continue; // A revision before this one has found no room.
                }
                let events = of_watcher.iter().map(|hit| &items[hit.item as usize].1);
                if queue.offer(watcher.id, events) {
                    continue;
                }
                watcher.is_synced = false;
                watcher.next = revision;
                self.index.remove(&watcher.range, slot);
                self.unsynced += 1;
                stream.untold.insert(watcher.id);
                queue.behind();
            }
        }
        hits.clear();
        drop(queue);
        stream.hits = hits;
    }

    /// The watchers of a stream that became unsynced since the last call, and where to read on.
    ///
    /// What the queue holds now comes before what is read for them, so empty it first.
    pub fn take_unsynced(&mut self, stream: &StreamId) -> Vec<(WatchId, Revision)> {
        let stream = &mut self.streams[stream.0];
        let next = |id| (id, self.watchers[stream.watchers[&id]].next);
        std::mem::take(&mut stream.untold)
            .into_iter()
            .map(next)
            .collect()
    }

    /// Notes that an unsynced watcher has been given everything below `next`.
    ///
    /// It is synced only if nothing at or above `next` has been published: what comes is told, what
    /// was is read, and nothing is both or neither.
    pub fn caught_up(&mut self, stream: &StreamId, id: WatchId, next: Revision) -> CaughtUp {
        let slot = self.streams[stream.0].watchers[&id];
        let watcher = &mut self.watchers[slot];
        assert!(
            !watcher.is_synced,
            "{id:?} is told and must not be read for"
        );
        assert!(
            next >= watcher.next,
            "{id:?} went back from {:?} to {next:?}",
            watcher.next
        );
        watcher.next = next;
        if next <= self.revision {
            return CaughtUp::Behind;
        }
        watcher.is_synced = true;
        self.unsynced -= 1;
        self.index.insert(&watcher.range, slot);
        CaughtUp::Synced
    }

    /// Queues [`Mark::Progress`] for one watcher, or for all of the stream, and says whether it did.
    ///
    /// It does not if one of them is unsynced, or starts in the future, or if there is none.
    pub fn progress(&mut self, stream: &StreamId, id: Option<WatchId>) -> bool {
        let at = self.revision;
        let stream = &self.streams[stream.0];
        let is_current = |slot: &u32| {
            let watcher = &self.watchers[*slot];
            watcher.is_synced && watcher.start.is_none_or(|start| start <= at)
        };
        let is_due = match id {
            Some(id) => stream.watchers.get(&id).is_some_and(is_current),
            None => !stream.watchers.is_empty() && stream.watchers.values().all(is_current),
        };
        if is_due {
            stream.sink.queue().mark(Mark::Progress { id, at });
        }
        is_due
    }

    /// Notes that the store has jumped to `revision` because a snapshot was installed.
    ///
    /// The events in between were never published. Watchers that want them become unsynced and read
    /// them from history, or find them compacted.
    pub fn reset(&mut self, revision: Revision) {
        assert!(
            revision >= self.revision,
            "{revision:?} installed behind {:?}",
            self.revision
        );
        let missed = self.revision.next();
        self.revision = revision;
        for (slot, watcher) in self.watchers.iter_mut() {
            let next = watcher.next.max(missed);
            if !watcher.is_synced || next > revision {
                continue;
            }
            watcher.is_synced = false;
            watcher.next = next;
            self.index.remove(&watcher.range, slot);
            self.unsynced += 1;
            let stream = &mut self.streams[watcher.stream];
            stream.untold.insert(watcher.id);
            stream.sink.queue().behind();
        }
    }

    /// The last revision that was published.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many streams and watchers there are.
    pub fn counts(&self) -> Counts {
        Counts {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            unsynced: self.unsynced,
        }
    }

    /// The sinks of all streams.
    pub fn sinks(&self) -> impl Iterator<Item = &S> {
        self.streams.iter().map(|(_, stream)| &stream.sink)
    }

    /// Panics if an invariant of this file's head does not hold.
    pub fn check(&self) {
        self.index.check();
        let mut synced = 0;
        for (slot, watcher) in self.watchers.iter() {
            let stream = &self.streams[watcher.stream];
            assert_eq!(
                stream.watchers.get(&watcher.id),
                Some(&slot),
                "{:?}",
                watcher.id
            );
            let mut found = 0;
            self.index.search(&watcher.range.start, |other| {
                found += usize::from(other == slot);
            });
            assert_eq!(
                found,
                usize::from(watcher.is_synced),
                "{:?} in the index",
                watcher.id
            );
            synced += found;
            assert!(
                watcher.is_synced || watcher.next <= self.revision,
                "{watcher:?} is synced"
            );
        }
        assert_eq!(self.index.len(), synced, "members of the index");
        assert_eq!(
            self.unsynced,
            self.watchers.len() - synced,
            "unsynced watchers"
        );
        assert!(self.touched.is_empty(), "streams left from a batch");
        for (_, stream) in self.streams.iter() {
            assert!(stream.hits.is_empty(), "hits left from a batch");
            for id in &stream.untold {
                assert!(
                    !self.watchers[stream.watchers[id]].is_synced,
                    "{id:?} was told wrong"
                );
            }
        }
        let of_streams: usize = self
            .streams
            .iter()
            .map(|(_, stream)| stream.watchers.len())
            .sum();
        assert_eq!(of_streams, self.watchers.len(), "watchers of streams");
    }
}
