//! The bounded queue between the hub and a subscriber.
//!
//! The hub fills it and never waits; the subscriber takes all there is at once. What does not fit is
//! refused, which makes its watcher unsynced.

use std::sync::{Arc, Mutex, MutexGuard};

use gonfalon_core::Event;
use gonfalon_core::watch::{Mark, Queue, Sink, WatchId};
use tokio::sync::Notify;

use super::event::SharedEvent;
use crate::limits::{MAILBOX_BYTES_MAX, MAILBOX_EVENTS_KEPT, MAILBOX_EVENTS_MAX};

/// Something to tell a subscriber, in its place among the rest.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A change that a watcher wants.
    Event(WatchId, Arc<SharedEvent>),
    /// An answer to something the subscriber asked for.
    Mark(Mark),
}

impl Entry {
    /// The event; none of a mark.
    pub fn into_event(self) -> Option<Arc<SharedEvent>> {
        match self {
            Self::Event(_, event) => Some(event),
            Self::Mark(_) => None,
        }
    }
}

/// A handle to the queue; the hub has one and the subscriber the other.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: Mutex<Held>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Held {
    entries: Vec<Entry>,
    events: usize,
    bytes: usize,
    is_behind: bool,
}

impl Mailbox {
    /// Moves everything that is queued behind `entries`, which must be empty, and says whether
    /// watchers have become unsynced since the last call.
    ///
    /// The queue goes on with the memory of `entries`, unless it is much.
    pub(super) fn take(&self, entries: &mut Vec<Entry>) -> bool {
        debug_assert!(entries.is_empty(), "entries would be lost");
        entries.shrink_to(MAILBOX_EVENTS_KEPT);
        let mut held = self.lock();
        std::mem::swap(&mut held.entries, entries);
        held.events = 0;
        held.bytes = 0;
        std::mem::take(&mut held.is_behind)
    }

    /// Events that are queued.
    pub(super) fn event_count(&self) -> usize {
        self.lock().events
    }

    /// Returns when something was queued since the last [`Mailbox::take`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn filled(&self) {
        self.0.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0
            .held
            .lock()
            .expect("nobody panics while holding a mailbox")
    }
}

impl Sink for Mailbox {
    type Item = Arc<SharedEvent>;
    type Queue<'a> = Filling<'a>;

    fn item(event: &Arc<Event>) -> Self::Item {
        Arc::new(SharedEvent::new(event.clone()))
    }

    fn queue(&self) -> Filling<'_> {
        Filling {
            held: Some(self.lock()),
            wake: &self.0.wake,
        }
    }
}

/// The locked queue. Wakes the subscriber once, when it is unlocked.
#[derive(Debug)]
pub struct Filling<'a> {
    /// Some until it is dropped.
    held: Option<MutexGuard<'a, Held>>,
    wake: &'a Notify,
}

impl Filling<'_> {
    fn held(&mut self) -> &mut Held {
        self.held
            .as_mut()
            .expect("it is there until this is dropped")
    }
}

impl Queue<Arc<SharedEvent>> for Filling<'_> {
    fn offer<'i>(
        &mut self,
        id: WatchId,
        events: impl ExactSizeIterator<Item = &'i Arc<SharedEvent>> + Clone,
    ) -> bool {
        let held = self.held();
        let count = held.events + events.len();
        let bytes = held.bytes
            + events
                .clone()
                .map(|event| event.size_bytes())
                .sum::<usize>();
        if count > MAILBOX_EVENTS_MAX || bytes > MAILBOX_BYTES_MAX {
            return false;
        }
        held.events = count;
        held.bytes = bytes;
        held.entries
            .extend(events.map(|event| Entry::Event(id, event.clone())));
        true
    }

    fn mark(&mut self, mark: Mark) {
        self.held().entries.push(Entry::Mark(mark));
    }

    fn behind(&mut self) {
        self.held().is_behind = true;
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        // Unlocked first, or the subscriber may wake up only to wait.
        self.held = None;
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use gonfalon_core::{EventKind, KeyValue, Revision};

    use super::*;

    fn item(value_bytes: usize) -> Arc<SharedEvent> {
        let kv = KeyValue {
            key: "key".into(),
            value: vec![0; value_bytes].into(),
            mod_revision: Revision::new(2),
            ..KeyValue::default()
        };
        Mailbox::item(&Arc::new(Event {
            kind: EventKind::Put,
            kv,
            prev: None,
        }))
    }

    const ID: WatchId = WatchId::new(0);

    #[test]
    fn a_revision_that_does_not_fit_is_refused_whole_and_marks_always_fit() {
        let mailbox = Mailbox::default();
        let items = vec![item(1); MAILBOX_EVENTS_MAX - 1];
        assert!(mailbox.queue().offer(ID, items.iter()));
        assert!(
            !mailbox.queue().offer(ID, items[..2].iter()),
            "two more events"
        );
        assert!(
            mailbox.queue().offer(ID, items[..1].iter()),
            "one more event"
        );
        mailbox.queue().mark(Mark::Progress {
            id: None,
            at: Revision::FIRST,
        });

        let mut entries = Vec::new();
        assert!(!mailbox.take(&mut entries));
        assert_eq!(entries.len(), MAILBOX_EVENTS_MAX + 1);
        assert!(
            mailbox.queue().offer(ID, items.iter()),
            "taken, there is room again"
        );
    }

    #[test]
    fn what_is_refused_taken_or_no_event_is_not_counted_as_pending() {
        let watchers = crate::watch::Watchers::new(Revision::FIRST);
        let (mailbox, other) = (Mailbox::default(), Mailbox::default());
        watchers.lock().open_stream(mailbox.clone());
        watchers.lock().open_stream(other.clone());
        let item = item(1);
        assert!(mailbox.queue().offer(ID, [&item, &item].into_iter()));
        assert!(other.queue().offer(ID, [&item].into_iter()));
        let too_many = vec![item; MAILBOX_EVENTS_MAX];
        assert!(!other.queue().offer(ID, too_many.iter()));
        other.queue().mark(Mark::Progress {
            id: None,
            at: Revision::FIRST,
        });
        assert_eq!(watchers.pending_events(), 3);
        mailbox.take(&mut Vec::new());
        assert_eq!(watchers.pending_events(), 1);
    }

    #[test]
    fn large_values_fill_it_too() {
        let mailbox = Mailbox::default();
        let large = item(MAILBOX_BYTES_MAX / 2 - 1000);
        assert!(mailbox.queue().offer(ID, [&large].into_iter()));
        assert!(mailbox.queue().offer(ID, [&large].into_iter()));
        assert!(!mailbox.queue().offer(ID, [&large].into_iter()));
    }

    #[tokio::test]
    async fn one_batch_wakes_the_subscriber_once() {
        let mailbox = Mailbox::default();
        let mut queue = mailbox.queue();
        queue.behind();
        assert!(queue.offer(ID, [&item(1)].into_iter()));
        drop(queue);
        mailbox.filled().await;
        assert!(mailbox.take(&mut Vec::new()), "watchers are behind");
        assert!(!mailbox.take(&mut Vec::new()), "which is said once");
        let again = tokio::time::timeout(std::time::Duration::ZERO, mailbox.filled()).await;
        assert!(again.is_err(), "nothing was queued since");
    }
}
