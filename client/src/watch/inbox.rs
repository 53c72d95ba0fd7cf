//! What one watch has received and its consumer has not yet taken.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;

use super::standing::States;
use super::{Batch, Overflow, WatchState};
use crate::error::{Error, ErrorKind};
use crate::observe;
use crate::types::{Event, KeyValue, Revision};

/// What an event takes beside its keys and values.
const EVENT_BYTES: usize = size_of::<Event>();

/// A queue of batches with one producer, the hub, and one consumer.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    bytes_max: usize,
    overflow: Overflow,
    states: States,
    /// How the watch stands when this has ended.
    at_end: WatchState,
}

#[derive(Debug)]
struct Queue {
    /// Each with its size in bytes.
    batches: VecDeque<(Batch, usize)>,
    bytes: usize,
    /// At how many bytes it is full. Beyond the limit that was set while even the last change of
    /// each key is more than that: twice as much then, so that a batch is not gone through again
    /// for every event.
    full_at: usize,
    position: Revision,
    has_ended: bool,
    /// What comes after the last batch; taken once.
    end: Option<Error>,
}

impl Inbox {
    /// Of a watch that stands as `states` says, and as `at_end` when this queue has ended.
    pub(super) fn new(
        bytes_max: usize,
        overflow: Overflow,
        states: States,
        at_end: WatchState,
    ) -> Self {
        Self {
            queue: Mutex::new(Queue {
                batches: VecDeque::new(),
                bytes: 0,
                full_at: bytes_max,
                position: Revision::UNKNOWN,
                has_ended: false,
                end: None,
            }),
            waker: AtomicWaker::new(),
            bytes_max,
            overflow,
            states,
            at_end,
        }
    }

    /// Takes what was received. False: the queue is full, and the watch has ended of it.
    pub(super) fn push(&self, batch: Batch) -> bool {
        let bytes = batch_bytes(&batch);
        observe::watch_batch(batch.events.len());
        let mut queue = self.lock();
        let is_full = queue.bytes + bytes > queue.full_at && !queue.batches.is_empty();
        if is_full {
            observe::watch_overflowed();
        }
        if is_full && self.overflow == Overflow::Fail {
            let from = queue.position.next();
            drop(queue);
            self.end(Error::new(ErrorKind::Lagged { from }, "watch", ""));
            return false;
        }
        queue.position = queue.position.max(batch.revision);
        if is_full {
            let waiting = std::mem::take(&mut queue.batches);
            let kept = match self.overflow {
                Overflow::CoalescePerKey => coalesced(waiting, batch),
                Overflow::LatestOnly | Overflow::Fail => Batch {
                    is_coalesced: true,
                    ..batch
                },
            };
            let bytes = batch_bytes(&kept);
            queue.bytes = bytes;
            queue.full_at = self.bytes_max.max(2 * bytes);
            queue.batches.push_back((kept, bytes));
        } else {
            queue.bytes += bytes;
            queue.batches.push_back((batch, bytes));
        }
        drop(queue);
        self.waker.wake();
        true
    }

    /// Nothing happened up to `position`.
    pub(super) fn advance(&self, position: Revision) {
        let mut queue = self.lock();
        queue.position = queue.position.max(position);
    }

    /// How the watch stands from now on.
    pub(super) fn set_state(&self, state: WatchState) {
        let queue = self.lock();
        if !queue.has_ended {
            self.states.set(state);
        }
    }

    /// Nothing more comes; the first reason counts.
    pub(super) fn end(&self, error: Error) {
        let mut queue = self.lock();
        if !queue.has_ended {
            queue.has_ended = true;
            queue.end = Some(error);
            self.states.set(self.at_end);
        }
        drop(queue);
        self.waker.wake();
    }

    /// Why the watch ended, if it has, for whoever created it.
    pub(super) fn take_end(&self) -> Option<Error> {
        self.lock().end.take()
    }

    pub(super) fn position(&self) -> Revision {
        self.lock().position
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Batch, Error>>> {
        // Before the look: what arrives in between wakes.
        self.waker.register(context.waker());
        let mut queue = self.lock();
        if let Some((batch, bytes)) = queue.batches.pop_front() {
            queue.bytes -= bytes;
            if queue.batches.is_empty() {
                queue.full_at = self.bytes_max;
            }
            return Poll::Ready(Some(Ok(batch)));
        }
        if !queue.has_ended {
            return Poll::Pending;
        }
        Poll::Ready(queue.end.take().map(Err))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

fn batch_bytes(batch: &Batch) -> usize {
    let kv = |kv: &KeyValue| kv.key.len() + kv.value.len();
    let event = |event: &Event| EVENT_BYTES + kv(&event.kv) + event.prev.as_ref().map_or(0, kv);
    batch.events.iter().map(event).sum()
}

/// One batch with the last event of each key, in the order of these.
fn coalesced(waiting: VecDeque<(Batch, usize)>, newest: Batch) -> Batch {
    let revision = newest.revision;
    let all: Vec<Event> = waiting
        .into_iter()
        .map(|(batch, _)| batch)
        .chain([newest])
        .flat_map(|batch| batch.events)
        .collect();
    // What each key was before its first event, and where its last one is.
    let mut keys: HashMap<Bytes, (Option<KeyValue>, usize)> = HashMap::new();
    for (at, event) in all.iter().enumerate() {
        keys.entry(event.kv.key.clone())
            .or_insert_with(|| (event.prev.clone(), at))
            .1 = at;
    }
    let last = all.into_iter().enumerate().filter_map(|(at, event)| {
        let (_, last) = keys.get(&event.kv.key)?;
        if *last != at {
            return None;
        }
        let (prev, _) = keys.remove(&event.kv.key)?;
        Some(Event { prev, ..event })
    });
    Batch {
        revision,
        events: last.collect(),
        is_coalesced: true,
        is_relisted: false,
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;
    use crate::types::EventKind;

    fn kv(key: &str, revision: i64) -> KeyValue {
        KeyValue::from_wire(gonfalon_proto::mvccpb::KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            mod_revision: revision,
            ..Default::default()
        })
    }

    /// `key` was written at `revision`, and before that at `before`.
    fn put(key: &str, revision: i64, before: i64) -> Batch {
        Batch {
            revision: Revision::new(revision),
            events: vec![Event {
                kind: EventKind::Put,
                kv: kv(key, revision),
                prev: (before > 0).then(|| kv(key, before)),
            }],
            is_coalesced: false,
            is_relisted: false,
        }
    }

    fn taken(inbox: &Inbox) -> Vec<Result<Batch, ErrorKind>> {
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        std::iter::from_fn(|| match inbox.poll(&mut context) {
            Poll::Ready(Some(item)) => Some(item.map_err(|error| error.kind().clone())),
            Poll::Ready(None) | Poll::Pending => None,
        })
        .collect()
    }

    /// A queue with room for two events with prev, not for three.
    fn inbox(overflow: Overflow) -> Inbox {
        sized(2 * (EVENT_BYTES + 2), overflow)
    }

    fn sized(bytes_max: usize, overflow: Overflow) -> Inbox {
        Inbox::new(bytes_max, overflow, States::new(), WatchState::Ended)
    }

    #[test]
    fn a_full_queue_ends_the_watch_after_what_was_queued() {
        let inbox = inbox(Overflow::Fail);
        assert!(inbox.push(put("a", 2, 0)) && inbox.push(put("b", 3, 0)));
        assert!(!inbox.push(put("c", 4, 0)));
        let from = Revision::new(4);
        assert_eq!(
            taken(&inbox),
            [
                Ok(put("a", 2, 0)),
                Ok(put("b", 3, 0)),
                Err(ErrorKind::Lagged { from })
            ]
        );
        assert_eq!(taken(&inbox), [], "an error is said once");
        assert_eq!(inbox.states.now(), WatchState::Ended);
    }

    #[test]
    fn a_full_queue_can_keep_the_last_change_of_each_key() {
        let inbox = inbox(Overflow::CoalescePerKey);
        for batch in [put("a", 2, 1), put("b", 3, 0), put("a", 4, 2)] {
            assert!(inbox.push(batch));
        }
        let [Ok(batch)] = &taken(&inbox)[..] else {
            panic!("one batch");
        };
        assert!(batch.is_coalesced);
        assert_eq!(batch.revision, Revision::new(4));
        let got: Vec<_> = batch
            .events
            .iter()
            .map(|event| {
                let prev = event.prev.as_ref().map(|kv| kv.mod_revision.get());
                (
                    event.kv.key_str().unwrap(),
                    event.kv.mod_revision.get(),
                    prev,
                )
            })
            .collect();
        assert_eq!(got, [("b", 3, None), ("a", 4, Some(1))]);
    }

    /// A hundred keys in a queue for two of them, written again and again.
    #[test]
    fn a_queue_that_coalesces_holds_no_more_than_each_key_twice() {
        let inbox = inbox(Overflow::CoalescePerKey);
        let one = batch_bytes(&put("00", 2, 1));
        for revision in 2..1000 {
            let key = format!("{:02}", revision % 100);
            assert!(inbox.push(put(&key, revision, 1)));
            let bytes = inbox.lock().bytes;
            assert!(bytes <= 2 * 100 * one, "{bytes} bytes at {revision}");
        }
        let mut last = std::collections::BTreeMap::new();
        for batch in taken(&inbox) {
            for event in batch.unwrap().events {
                let before = last.insert(event.kv.key, event.kv.mod_revision.get());
                assert!(before < Some(event.kv.mod_revision.get()));
            }
        }
        assert!(last.values().copied().eq(900..1000), "{last:?}");
        assert_eq!(inbox.lock().full_at, inbox.bytes_max, "it was emptied");
    }

    #[test]
    fn a_full_queue_can_keep_the_newest_alone() {
        let inbox = inbox(Overflow::LatestOnly);
        for revision in 2..10 {
            assert!(inbox.push(put("a", revision, 0)));
        }
        let got = taken(&inbox);
        let last = got.last().unwrap().as_ref().unwrap();
        assert_eq!(last.revision, Revision::new(9));
        assert!(got.len() <= 2);
    }

    #[test]
    fn one_batch_may_be_larger_than_the_queue() {
        let inbox = sized(1, Overflow::Fail);
        assert!(inbox.push(put("a", 2, 0)));
        assert_eq!(taken(&inbox), [Ok(put("a", 2, 0))]);
        assert!(inbox.push(put("a", 3, 0)), "it is empty again");
    }
}
