//! The changes of recent revisions.
//!
//! Reads and replays above the floor are answered from here; what is older is left to
//! [`crate::History`]. A change keeps the version that it superseded (`prev`), so the versions that
//! only reads at old revisions need live exactly as long as the change that superseded them.
//!
//! The changes of a key are linked, newest first, starting from the revision and number that its
//! newest version (or tombstone) carries: nothing is searched by key.
//!
//! Invariants
//! - the queue holds every change of the revisions above `floor`, whole revisions, in order;
//! - `starts` has the position of the first change of each of these revisions, and what they cost;
//! - `bytes` is the sum of [`cost`] over the queue.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Event, EventKind, KeyRange, KeyValue, Revision};

/// Names a change: its revision, and its number within the revision.
pub(crate) type ChangeId = (Revision, u32);

/// The recent changes.
#[derive(Debug)]
pub(crate) struct Recent {
    floor: Revision,
    queue: VecDeque<Change>,
    /// How many changes have left the queue: what is at the front has this position.
    evicted: u64,
    starts: VecDeque<Start>,
    bytes: usize,
    /// Changes that have left the queue and whose memory is still to be given back.
    dropped: VecDeque<Change>,
}

/// Where the changes of one revision begin.
#[derive(Debug)]
struct Start {
    position: u64,
    /// What they cost together.
    bytes: usize,
}

/// At most so many changes give their memory back at once: one revision may have a million, and
/// everybody waits for that. More than one group of commands changes in general.
const FREED_MAX: usize = 32 * 1024;

#[derive(Debug)]
struct Change {
    event: Arc<Event>,
    /// The change of the same key before this one, if it was recent.
    before: Option<ChangeId>,
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
            evicted: 0,
            starts: VecDeque::new(),
            bytes: 0,
            dropped: VecDeque::new(),
        }
    }

    /// Adds change `id`; `before` is the last one of the same key, if there was one.
    pub(crate) fn push(&mut self, id: ChangeId, event: Arc<Event>, before: Option<ChangeId>) {
        let position = self.evicted + self.queue.len() as u64;
        if id.1 == 0 {
            self.starts.push_back(Start { position, bytes: 0 });
        }
        assert_eq!(event.kv.mod_revision, id.0, "a change carries its revision");
        assert_eq!(
            self.position(id),
            Some(position),
            "changes come in order, none left out"
        );
        let bytes = cost(&event);
        self.bytes += bytes;
        let start = self.starts.back_mut();
        start.expect("a change belongs to a revision").bytes += bytes;
        let before = before.filter(|before| before.0 > self.floor);
        self.queue.push_back(Change { event, before });
    }

    /// Drops the oldest revisions until the rest costs at most `budget_bytes`, and frees some of what
    /// was dropped. Whether there is more to free.
    pub(crate) fn evict(&mut self, budget_bytes: usize) -> bool {
        while self.bytes > budget_bytes {
            let oldest = self.starts.pop_front();
            let oldest = oldest.expect("what costs something is of a revision");
            let end = self.starts.front().map(|next| next.position - self.evicted);
            let count = end.map_or(self.queue.len(), |end| {
                usize::try_from(end).expect("the queue is in memory")
            });
            assert!(
                oldest.position == self.evicted && count > 0,
                "a revision has changes"
            );
            // Moved, not looked at: following a million references takes a second.
            self.dropped.extend(self.queue.drain(..count));
            self.evicted += count as u64;
            self.bytes -= oldest.bytes;
            self.floor = self.floor.next();
        }
        let freed = self.dropped.len().min(FREED_MAX);
        self.dropped.drain(..freed);
        if self.dropped.is_empty() && self.dropped.capacity() > FREED_MAX {
            self.dropped = VecDeque::new();
        }
        !self.dropped.is_empty()
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
        assert!(from > self.floor, "what is older is not here");
        let first = self.index((from, 0)).unwrap_or(self.queue.len());
        let events = self.queue.range(first..).map(|change| &change.event);
        events.take_while(move |event| event.kv.mod_revision <= to)
    }

    /// What is known at revision `at` of the key whose last change was `last`.
    pub(crate) fn past(&self, last: ChangeId, at: Revision) -> Past<'_> {
        let mut next = Some(last);
        let mut oldest = None;
        while let Some(change) = next.and_then(|id| self.get(id)) {
            if change.event.kv.mod_revision <= at {
                return match change.event.kind {
                    EventKind::Put => Past::Version(&change.event.kv),
                    EventKind::Delete => Past::Missing,
                };
            }
            oldest = Some(change);
            next = change.before;
        }
        match oldest.map(|change| &change.event.prev) {
            Some(Some(prev)) if prev.mod_revision <= at => Past::Version(prev),
            // Nothing happened between the floor and the oldest change.
            Some(None) if at >= self.floor => Past::Missing,
            _ => Past::Unknown,
        }
    }

    /// How many more keys of `range` exist at the present than at revision `at`.
    pub(crate) fn growth(&self, range: &KeyRange, at: Revision) -> isize {
        let in_range = self
            .events(at.next(), Revision::new(i64::MAX))
            .filter(|event| range.contains(&event.kv.key));
        in_range
            .map(|event| match event.kind {
                EventKind::Put => isize::from(event.kv.version == 1),
                EventKind::Delete => -1,
            })
            .sum()
    }

    /// The recent change `id`.
    pub(crate) fn event(&self, id: ChangeId) -> Option<&Arc<Event>> {
        self.get(id).map(|change| &change.event)
    }

    fn get(&self, id: ChangeId) -> Option<&Change> {
        self.index(id).and_then(|index| self.queue.get(index))
    }

    fn index(&self, id: ChangeId) -> Option<usize> {
        let index = self.position(id)?.checked_sub(self.evicted)?;
        usize::try_from(index).ok()
    }

    fn position(&self, (revision, sub): ChangeId) -> Option<u64> {
        let nth = revision.get().checked_sub(self.floor.get() + 1)?;
        let start = self.starts.get(usize::try_from(nth).ok()?)?;
        Some(start.position + u64::from(sub))
    }

    /// Asserts the invariants; `revision` is the store's.
    pub(crate) fn check(&self, revision: Revision) {
        let mut id = (self.floor, 0);
        for (index, change) in self.queue.iter().enumerate() {
            let next = change.event.kv.mod_revision;
            id = if next == id.0 {
                (next, id.1 + 1)
            } else {
                (id.0.next(), 0)
            };
            assert_eq!(
                next, id.0,
                "no revision is left out, none is below the floor"
            );
            assert_eq!(self.index(id), Some(index), "starts lead to the changes");
            if let Some(before) = change.before.and_then(|before| self.get(before)) {
                assert_eq!(
                    before.event.kv.key, change.event.kv.key,
                    "links stay within a key"
                );
            }
        }
        assert_eq!(id.0, revision, "the queue reaches up to the present");
        let bytes: usize = self.queue.iter().map(|change| cost(&change.event)).sum();
        assert_eq!(self.bytes, bytes, "the bytes are those of the changes");
        let bytes: usize = self.starts.iter().map(|start| start.bytes).sum();
        assert_eq!(self.bytes, bytes, "the bytes are those of the revisions");
    }
}

/// Bytes of memory that a change holds, beside the newest version of its key.
///
/// The version it superseded is kept for it alone. [`OVERHEAD`] is the rest: the change itself and
/// the two handles that point into version blocks.
fn cost(event: &Event) -> usize {
    let superseded = event
        .prev
        .as_ref()
        .map_or(0, |prev| prev.key.len() + prev.value.len());
    OVERHEAD + event.kv.key.len() + superseded
}

/// [`Event`] in its `Arc` (216), two owners of blocks (2 × 48), a superseded block's header (56),
/// the places in the queue and in `starts` (32 + 16), rounded up as allocators do.
const OVERHEAD: usize = 448;

#[cfg(test)]
mod tests {
    use super::*;

    fn push(recent: &mut Recent, revision: i64, changes: usize) {
        for sub in 0..u32::try_from(changes).expect("a test's changes are few") {
            let kv = KeyValue {
                key: format!("{sub}").into(),
                mod_revision: Revision::new(revision),
                ..KeyValue::default()
            };
            let event = Event {
                kind: EventKind::Put,
                kv,
                prev: None,
            };
            recent.push((Revision::new(revision), sub), Arc::new(event), None);
        }
    }

    #[test]
    fn a_huge_revision_leaves_at_once_and_gives_its_memory_back_bit_by_bit() {
        let mut recent = Recent::new(Revision::FIRST);
        push(&mut recent, 2, 3);
        push(&mut recent, 3, 2 * FREED_MAX);
        push(&mut recent, 4, 1);
        let last = recent.event((Revision::new(4), 0)).map(|last| cost(last));
        recent.evict(last.expect("it is recent"));
        recent.check(Revision::new(4));
        assert_eq!(recent.floor(), Revision::new(3));
        assert_eq!(recent.dropped.len(), FREED_MAX + 3);
        recent.evict(usize::MAX);
        assert_eq!(recent.dropped.len(), 3);
        recent.evict(usize::MAX);
        assert_eq!(recent.dropped.capacity(), 0);
        assert!(recent.event((Revision::new(4), 0)).is_some());
    }
}
