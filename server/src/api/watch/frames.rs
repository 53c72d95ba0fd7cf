//! What a subscriber hands out, as messages: few of them, and never half a revision unless the
//! client has said that it joins fragments.
//!
//! Messages are made one at a time, when the client has room for them: what waits are entries, and
//! those are small.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gonfalon_core::Revision;
use gonfalon_core::watch::{Mark, WatchId};
use gonfalon_proto::etcdserverpb as pb;
use prost::Message as _;

use super::NO_WATCHER;
use crate::limits::WATCH_MESSAGE_BYTES;
use crate::watch::{Delivery, Entry, SharedEvent};

/// A message: what prost encodes, and the events, which are encoded already.
#[derive(Debug)]
pub(in crate::api) struct Frame {
    pub(super) head: pb::WatchResponse,
    pub(super) events: Vec<Arc<SharedEvent>>,
    pub(super) with_prev: bool,
}

impl Frame {
    /// A message without events.
    fn message(head: pb::WatchResponse) -> Self {
        Self {
            head,
            events: Vec::new(),
            with_prev: false,
        }
    }

    /// How many events it tells.
    pub(super) fn event_count(&self) -> u64 {
        self.events.len() as u64
    }

    /// Bytes on the wire.
    pub(super) fn size_bytes(&self) -> usize {
        let size = |event: &Arc<SharedEvent>| size_of_event(event, self.with_prev);
        self.head.encoded_len() + self.events.iter().map(size).sum::<usize>()
    }
}

/// How a watcher wants to be told.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each thing a client may ask for"
)]
pub(super) struct Details {
    pub(super) with_prev: bool,
    pub(super) may_fragment: bool,
    pub(super) wants_progress: bool,
    /// Whether it was told nothing since progress was last looked at.
    pub(super) is_quiet: bool,
}

/// Makes messages of entries.
#[derive(Debug)]
pub(super) struct Frames {
    /// Without revision, and with the term of the last delivery.
    header: pb::ResponseHeader,
    /// The size at which a response is split, if its watcher agrees to that.
    fragment_bytes: usize,
    watchers: BTreeMap<WatchId, Details>,
    /// What is still to be told, the next at the end. Between two marks the entries of a watcher
    /// are side by side.
    entries: Vec<Entry>,
    /// The store's revision when the entries were read from history.
    read_at: Option<Revision>,
    /// Made already; to be told before the entries.
    made: VecDeque<Frame>,
}

impl Frames {
    pub(super) fn new(header: pb::ResponseHeader, fragment_bytes: usize) -> Self {
        Self {
            header,
            fragment_bytes,
            watchers: BTreeMap::new(),
            entries: Vec::new(),
            read_at: None,
            made: VecDeque::new(),
        }
    }

    /// Takes notice of a new watcher, before its creation is delivered.
    pub(super) fn add(&mut self, id: WatchId, details: Details) {
        self.watchers.insert(id, details);
    }

    /// Tells that no watcher was created, and why.
    pub(super) fn refuse(&mut self, term: u64, at: Revision, reason: &str) {
        self.header.raft_term = term;
        self.made.push_back(Frame::message(pb::WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..self.about(NO_WATCHER, at)
        }));
    }

    /// The watchers that want to hear of progress and were told nothing since the last call.
    pub(super) fn quiet_watchers(&mut self) -> Vec<WatchId> {
        let mut quiet = Vec::new();
        for (&id, details) in &mut self.watchers {
            if std::mem::replace(&mut details.is_quiet, true) && details.wants_progress {
                quiet.push(id);
            }
        }
        quiet
    }

    /// Where to put entries before they are delivered: an empty list that keeps its memory.
    pub(super) fn entries(&mut self) -> &mut Vec<Entry> {
        debug_assert!(self.entries.is_empty(), "what was delivered is told first");
        &mut self.entries
    }

    /// Makes messages of what was put into [`Frames::entries`].
    pub(super) fn deliver(&mut self, term: u64, delivery: Delivery) {
        self.header.raft_term = term;
        self.read_at = match delivery {
            Delivery::Replayed { revision } => Some(revision),
            Delivery::Live | Delivery::Nothing => None,
        };
        // A mark has its place among the events; between marks each watcher's are put together.
        let is_mark = |entry: &Entry| matches!(entry, Entry::Mark(_));
        for events in self.entries.split_mut(is_mark) {
            events.sort_by_key(|entry| match entry {
                Entry::Event(id, _) => Some(*id),
                Entry::Mark(_) => None,
            });
        }
        self.entries.reverse();
    }

    /// The next message.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.made.pop_front() {
            return Some(frame);
        }
        match self.entries.last()? {
            Entry::Event(id, _) => {
                let id = *id;
                Some(self.response(id))
            }
            Entry::Mark(mark) => {
                let mark = *mark;
                self.entries.pop();
                Some(self.mark(mark))
            }
        }
    }

    /// A response of the next events, which are `id`'s, or the first fragment of it.
    fn response(&mut self, id: WatchId) -> Frame {
        let details = self.watchers.get_mut(&id);
        let details = details.expect("a watcher is known until its cancellation is told");
        details.is_quiet = false;
        let details = *details;
        let rest = self.entries.len() - self.count_next(id, details.with_prev);
        let next = self.entries.drain(rest..).rev();
        let events: Vec<_> = next.filter_map(Entry::into_event).collect();
        let last = events.last().map(|event| event.event().kv.mod_revision);
        let whole = Frame {
            head: self.about(id.get(), self.read_at.or(last).unwrap_or_default()),
            events,
            with_prev: details.with_prev,
        };
        if details.may_fragment && whole.size_bytes() >= self.fragment_bytes {
            let mut parts = fragments(whole, self.fragment_bytes).into_iter();
            let first = parts.next().expect("a response has an event");
            self.made.extend(parts);
            return first;
        }
        whole
    }

    /// How many of the next events, all of them `id`'s, go into one response.
    fn count_next(&self, id: WatchId, with_prev: bool) -> usize {
        let (mut count, mut bytes) = (0, 0);
        let mut whole = 0;
        let mut last = None;
        for entry in self.entries.iter().rev() {
            let Entry::Event(other, event) = entry else {
                break;
            };
            if *other != id {
                break;
            }
            let revision = event.event().kv.mod_revision;
            if last.replace(revision) != Some(revision) {
                if whole > 0 && bytes > WATCH_MESSAGE_BYTES {
                    return whole;
                }
                whole = count;
            }
            bytes += size_of_event(event, with_prev);
            count += 1;
        }
        if whole > 0 && bytes > WATCH_MESSAGE_BYTES {
            whole
        } else {
            count
        }
    }

    fn mark(&mut self, mark: Mark) -> Frame {
        let head = match mark {
            Mark::Created { id, at } => pb::WatchResponse {
                created: true,
                ..self.about(id.get(), at)
            },
            Mark::Canceled { id, at, compacted } => {
                self.watchers.remove(&id);
                // etcd leaves the revision out where history is gone.
                let at = if compacted.is_some() {
                    Revision::default()
                } else {
                    at
                };
                pb::WatchResponse {
                    canceled: true,
                    compact_revision: compacted.map_or(0, Revision::get),
                    ..self.about(id.get(), at)
                }
            }
            Mark::Progress { id, at } => self.about(id.map_or(NO_WATCHER, WatchId::get), at),
        };
        Frame::message(head)
    }

    fn about(&self, watch_id: i64, revision: Revision) -> pb::WatchResponse {
        pb::WatchResponse {
            header: Some(pb::ResponseHeader {
                revision: revision.get(),
                ..self.header
            }),
            watch_id,
            ..pb::WatchResponse::default()
        }
    }
}

/// Splits a response into messages of fewer than `max` bytes, or of one event.
fn fragments(whole: Frame, max: usize) -> Vec<Frame> {
    let Frame {
        mut head,
        events,
        with_prev,
    } = whole;
    head.fragment = true;
    let head_bytes = head.encoded_len();
    let mut parts: Vec<Frame> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let size = size_of_event(&event, with_prev);
        match parts.last_mut() {
            Some(part) if bytes + size < max => part.events.push(event),
            _ => {
                bytes = head_bytes;
                parts.push(Frame {
                    head: head.clone(),
                    events: vec![event],
                    with_prev,
                });
            }
        }
        bytes += size;
    }
    if let Some(last) = parts.last_mut() {
        last.head.fragment = false;
    }
    parts
}

/// Bytes of an event in a message.
fn size_of_event(event: &SharedEvent, with_prev: bool) -> usize {
    1 + event.encoded(with_prev).len()
}

#[cfg(test)]
mod tests {
    use gonfalon_core::{Event, EventKind, KeyValue};

    use super::*;

    fn event(revision: i64, bytes: usize) -> Arc<SharedEvent> {
        let kv = KeyValue {
            key: "k".into(),
            value: vec![0; bytes].into(),
            mod_revision: Revision::new(revision),
            ..KeyValue::default()
        };
        Arc::new(SharedEvent::new(Arc::new(Event {
            kind: EventKind::Put,
            kv,
            prev: None,
        })))
    }

    fn frames(may_fragment: bool, fragment_bytes: usize) -> Frames {
        let mut frames = Frames::new(pb::ResponseHeader::default(), fragment_bytes);
        for id in [0, 1] {
            let details = Details {
                with_prev: false,
                may_fragment,
                wants_progress: id == 1,
                is_quiet: true,
            };
            frames.add(WatchId::new(id), details);
        }
        frames
    }

    /// (watcher, header's revision, revisions of the events, fragment) of each message.
    fn told(frames: &mut Frames, entries: Vec<Entry>) -> Vec<(i64, i64, Vec<i64>, bool)> {
        frames.entries().extend(entries);
        frames.deliver(1, Delivery::Live);
        let told = std::iter::from_fn(|| frames.next()).map(|frame| {
            let revisions = frame.events.iter().map(|e| e.event().kv.mod_revision.get());
            let header = frame.head.header.unwrap().revision;
            (
                frame.head.watch_id,
                header,
                revisions.collect(),
                frame.head.fragment,
            )
        });
        told.collect()
    }

    fn to(id: i64, event: &Arc<SharedEvent>) -> Entry {
        Entry::Event(WatchId::new(id), event.clone())
    }

    #[test]
    fn revisions_of_a_watcher_share_a_message_up_to_a_mark() {
        let (two, three, four) = (event(2, 1), event(3, 1), event(4, 1));
        let progress = Entry::Mark(Mark::Progress {
            id: None,
            at: Revision::new(3),
        });
        let entries = vec![
            to(0, &two),
            to(1, &two),
            to(0, &three),
            progress,
            to(0, &four),
        ];
        assert_eq!(
            told(&mut frames(false, 100), entries),
            [
                (0, 3, vec![2, 3], false),
                (1, 2, vec![2], false),
                (-1, 3, vec![], false),
                (0, 4, vec![4], false),
            ]
        );
    }

    #[test]
    fn a_large_response_is_split_between_revisions_and_within_one_only_in_fragments() {
        let large = |revision| to(0, &event(revision, WATCH_MESSAGE_BYTES * 2 / 3));
        let entries = || vec![large(2), large(2), large(3), to(0, &event(4, 1))];
        assert_eq!(
            told(&mut frames(false, 100), entries()),
            [(0, 2, vec![2, 2], false), (0, 4, vec![3, 4], false)]
        );
        assert_eq!(
            told(&mut frames(true, WATCH_MESSAGE_BYTES), entries()),
            [
                (0, 2, vec![2], true),
                (0, 2, vec![2], false),
                (0, 4, vec![3, 4], false)
            ]
        );
    }

    #[test]
    fn a_revision_that_would_make_a_message_too_large_begins_the_next_one() {
        let small = |revision| to(0, &event(revision, 10));
        let entries = vec![
            small(2),
            small(3),
            to(0, &event(4, WATCH_MESSAGE_BYTES)),
            small(5),
        ];
        assert_eq!(
            told(&mut frames(false, 100), entries),
            [
                (0, 3, vec![2, 3], false),
                (0, 4, vec![4], false),
                (0, 5, vec![5], false)
            ]
        );
    }

    #[test]
    fn a_fragment_is_smaller_than_the_limit_and_the_whole_too_if_it_is_not_split() {
        let events = || (0..5).map(|_| event(2, 20)).collect::<Vec<_>>();
        let whole = |events| Frame {
            head: pb::WatchResponse {
                watch_id: 7,
                ..pb::WatchResponse::default()
            },
            events,
            with_prev: false,
        };
        let one = whole(events().split_off(4)).size_bytes() + 2;
        let each = size_of_event(&event(2, 20), false);
        for (max, counts) in [
            (one, [1; 5].as_slice()),
            (one + each, &[1; 5]),
            (one + each + 1, &[2, 2, 1]),
            (one + 3 * each + 1, &[4, 1]),
        ] {
            let parts = fragments(whole(events()), max);
            let got: Vec<_> = parts.iter().map(|part| part.events.len()).collect();
            assert_eq!(got, counts, "events of each part, at most {max} bytes");
            let flags: Vec<_> = parts.iter().map(|part| part.head.fragment).collect();
            let (last, others) = flags.split_last().unwrap();
            assert!(!last && others.iter().all(|&flag| flag), "{flags:?}");
        }
    }

    #[test]
    fn what_was_read_from_history_has_the_revision_it_was_read_at() {
        let mut frames = frames(false, 100);
        frames.entries().push(to(0, &event(2, 1)));
        let revision = Revision::new(9);
        frames.deliver(1, Delivery::Replayed { revision });
        let head = frames.next().unwrap().head;
        assert_eq!(head.header.unwrap().revision, 9);
    }

    #[test]
    fn only_a_quiet_watcher_that_asked_hears_of_progress() {
        let mut frames = frames(false, 100);
        assert_eq!(frames.quiet_watchers(), [WatchId::new(1)]);
        told(&mut frames, vec![to(1, &event(2, 1))]);
        assert_eq!(frames.quiet_watchers(), []);
        assert_eq!(frames.quiet_watchers(), [WatchId::new(1)]);
    }

    #[test]
    fn a_compacted_watcher_is_told_from_where_on_it_could_read() {
        let mut frames = frames(false, 100);
        frames.entries().push(Entry::Mark(Mark::Canceled {
            id: WatchId::new(1),
            at: Revision::new(9),
            compacted: Some(Revision::new(5)),
        }));
        frames.deliver(1, Delivery::Live);
        let head = frames.next().unwrap().head;
        assert_eq!((head.canceled, head.compact_revision), (true, 5));
        assert_eq!(head.header.unwrap().revision, 0);
        assert!(frames.next().is_none());
    }
}
