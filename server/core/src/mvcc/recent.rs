//! The changes of recent revisions: a queue in order, and by key.
//!
//! Reads and replays above the floor are answered from here; what is older is left to
//! [`crate::History`]. A change keeps the version that it superseded (`prev`), so the versions that
//! only reads at old revisions need live exactly as long as the change that superseded them.
//!
//! Invariants
//! - the queue holds every change of the revisions above `floor`, whole revisions, in order;
//! - `by_key` holds the same changes, grouped by key;
//! - `bytes` is the sum of [`cost`] over the queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::keys::bounds;
use crate::{Event, EventKind, KeyRange, KeyValue, Revision};

/// The recent changes.
#[derive(Debug)]
pub(crate) struct Recent {
    floor: Revision,
    queue: VecDeque<Arc<Event>>,
    by_key: BTreeMap<Box<[u8]>, VecDeque<Arc<Event>>>,
    bytes: usize,
}

/// What the recent changes know of a key at a revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Past<'a> {
    /// The key had this version.
    Version(&'a KeyValue),
    /// The key did not exist.
    Missing,
    /// That was before what is in memory.
    Unknown,
}

impl Recent {
    /// Nothing is recent at `floor`.
    pub(crate) fn new(floor: Revision) -> Self {
        Self {
            floor,
            queue: VecDeque::new(),
            by_key: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Adds a change of the present revision.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        let revision = event.kv.mod_revision;
        assert!(revision > self.floor, "changes come after what is evicted");
        assert!(
            self.queue
                .back()
                .is_none_or(|last| last.kv.mod_revision <= revision),
            "changes come in the order of their revisions"
        );
        self.bytes += cost(&event);
        if let Some(events) = self.by_key.get_mut(event.kv.key.as_ref()) {
            events.push_back(event.clone());
        } else {
            self.by_key.insert(
                event.kv.key.as_ref().into(),
                VecDeque::from([event.clone()]),
            );
        }
        self.queue.push_back(event);
    }

    /// Drops the oldest revisions until the rest costs at most `budget_bytes`.
    pub(crate) fn evict(&mut self, budget_bytes: usize) {
        while self.bytes > budget_bytes {
            let oldest = self
                .queue
                .front()
                .expect("only changes cost bytes")
                .kv
                .mod_revision;
            while let Some(event) = self
                .queue
                .pop_front_if(|event| event.kv.mod_revision == oldest)
            {
                self.forget(&event);
            }
            assert!(oldest > self.floor, "revisions leave in order");
            self.floor = oldest;
        }
    }

    fn forget(&mut self, event: &Arc<Event>) {
        let key = event.kv.key.as_ref();
        let events = self
            .by_key
            .get_mut(key)
            .expect("every change is listed by key");
        let first = events.pop_front();
        assert!(
            first.is_some_and(|first| Arc::ptr_eq(&first, event)),
            "both queues agree"
        );
        if events.is_empty() {
            self.by_key.remove(key);
        }
        self.bytes -= cost(event);
    }

    /// Memory answers reads at this revision and above.
    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes of revisions `from..=to`, oldest first; both must be above the floor.
    pub(crate) fn events(&self, from: Revision, to: Revision) -> impl Iterator<Item = &Arc<Event>> {
        debug_assert!(from > self.floor, "what is older is not here");
        let first = self
            .queue
            .partition_point(|event| event.kv.mod_revision < from);
        self.queue
            .range(first..)
            .take_while(move |event| event.kv.mod_revision <= to)
    }

    /// What is known of `key` at revision `at`.
    pub(crate) fn past(&self, key: &[u8], at: Revision) -> Past<'_> {
        self.by_key
            .get(key)
            .map_or(Past::Unknown, |events| self.past_of(events, at))
    }

    /// The keys of `range` that changed recently, in key order, and what is known of them at
    /// revision `at`.
    pub(crate) fn range<'a>(
        &'a self,
        range: &KeyRange,
        at: Revision,
    ) -> impl Iterator<Item = (&'a [u8], Past<'a>)> + use<'a> {
        let bounds = bounds(range);
        bounds
            .map(|bounds| self.by_key.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
            .map(move |(key, events)| (key.as_ref(), self.past_of(events, at)))
    }

    fn past_of<'a>(&self, events: &'a VecDeque<Arc<Event>>, at: Revision) -> Past<'a> {
        let after = events.partition_point(|event| event.kv.mod_revision <= at);
        if let Some(event) = after.checked_sub(1).and_then(|last| events.get(last)) {
            return match event.kind {
                EventKind::Put => Past::Version(&event.kv),
                EventKind::Delete => Past::Missing,
            };
        }
        match events.front().and_then(|event| event.prev.as_ref()) {
            Some(prev) if prev.mod_revision <= at => Past::Version(prev),
            // Nothing happened between the floor and the oldest change.
            None if at >= self.floor => Past::Missing,
            _ => Past::Unknown,
        }
    }

    /// The last change of `key`, if it is recent.
    pub(crate) fn last(&self, key: &[u8]) -> Option<&Arc<Event>> {
        self.by_key.get(key).and_then(VecDeque::back)
    }

    /// Asserts the invariants; `revision` is the store's.
    pub(crate) fn check(&self, revision: Revision) {
        let mut at = self.floor;
        for event in &self.queue {
            let next = event.kv.mod_revision;
            assert!(
                next == at || next == at.next(),
                "no revision is left out: {at} then {next}"
            );
            assert!(next > self.floor, "what is at or below the floor is gone");
            at = next;
        }
        assert_eq!(at, revision, "the queue reaches up to the present");
        assert_eq!(
            self.bytes,
            self.queue.iter().map(|event| cost(event)).sum(),
            "bytes"
        );
        let by_key: usize = self.by_key.values().map(VecDeque::len).sum();
        assert_eq!(
            by_key,
            self.queue.len(),
            "both indexes hold the same changes"
        );
        for (key, events) in &self.by_key {
            assert!(!events.is_empty(), "no empty lists");
            assert!(
                events
                    .iter()
                    .all(|event| event.kv.key.as_ref() == key.as_ref()),
                "by key"
            );
        }
    }
}

/// Bytes of memory that a change holds, beside the newest version of its key.
///
/// The version it superseded is kept for it alone. [`OVERHEAD`] is the rest: the change itself, the
/// two handles that point into version blocks, its places in the queue and in the index.
fn cost(event: &Event) -> usize {
    let superseded = event
        .prev
        .as_ref()
        .map_or(0, |prev| prev.key.len() + prev.value.len());
    OVERHEAD + 2 * event.kv.key.len() + superseded
}

/// `Event` in its `Arc` (216), two owners of blocks (2 × 48), a superseded block's header (56),
/// queue slots (2 × 8), and the index's entry with its list (100), each rounded up by the allocator.
const OVERHEAD: usize = 512;
