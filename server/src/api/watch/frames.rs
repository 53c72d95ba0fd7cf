//! What a subscriber hands out, as messages: few of them, and never half a revision unless the
//! client has said that it joins fragments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gonfalon_core::Revision;
use gonfalon_core::watch::{Mark, WatchId};
use gonfalon_proto::etcdserverpb as pb;

use super::NO_WATCHER;
use crate::watch::{Delivery, Entry, SharedEvent};

/// Bytes of events past which the next revision goes into a message of its own: many clients take
/// no more than 4 MiB at once.
const MESSAGE_BYTES: usize = 512 * 1024;

/// A message: what prost encodes, and the events, which are encoded already.
#[derive(Debug)]
pub(in crate::api) struct Frame {
    pub(super) head: pb::WatchResponse,
    pub(super) events: Vec<Arc<SharedEvent>>,
    pub(super) with_prev: bool,
}

impl Frame {
    /// A message without events.
    pub(super) fn message(head: pb::WatchResponse) -> Self {
        Self {
            head,
            events: Vec::new(),
            with_prev: false,
        }
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
    /// Without revision and term.
    header: pb::ResponseHeader,
    fragment_bytes: usize,
    watchers: BTreeMap<WatchId, Details>,
}

impl Frames {
    pub(super) fn new(header: pb::ResponseHeader, fragment_bytes: usize) -> Self {
        Self {
            header,
            fragment_bytes,
            watchers: BTreeMap::new(),
        }
    }

    /// Takes notice of a new watcher.
    pub(super) fn add(&mut self, id: WatchId, details: Details) {
        self.watchers.insert(id, details);
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

    /// Turns `entries` into messages behind `ready`.
    pub(super) fn deliver(
        &mut self,
        term: u64,
        delivery: Delivery,
        entries: &mut Vec<Entry>,
        ready: &mut VecDeque<Frame>,
    ) {
        self.header.raft_term = term;
        let read_at = match delivery {
            Delivery::Replayed { revision } => Some(revision),
            Delivery::Live | Delivery::Nothing => None,
        };
        let mut groups: BTreeMap<WatchId, Vec<Arc<SharedEvent>>> = BTreeMap::new();
        for entry in entries.drain(..) {
            match entry {
                Entry::Event(id, event) => groups.entry(id).or_default().push(event),
                // A mark has its place among the events.
                Entry::Mark(mark) => {
                    self.flush(&mut groups, read_at, ready);
                    self.mark(mark, ready);
                }
            }
        }
        self.flush(&mut groups, read_at, ready);
    }

    fn flush(
        &mut self,
        groups: &mut BTreeMap<WatchId, Vec<Arc<SharedEvent>>>,
        read_at: Option<Revision>,
        ready: &mut VecDeque<Frame>,
    ) {
        for (id, events) in std::mem::take(groups) {
            // A watcher that was cancelled meanwhile is told nothing more.
            let Some(details) = self.watchers.get_mut(&id) else {
                continue;
            };
            details.is_quiet = false;
            let details = *details;
            for part in whole_revisions(events) {
                let last = part.last().map(|event| event.event().kv.mod_revision);
                let revision = read_at.or(last).unwrap_or_default();
                self.events(id, details, revision, part, ready);
            }
        }
    }

    /// One response, in fragments if it is too large and may be split.
    fn events(
        &self,
        id: WatchId,
        details: Details,
        revision: Revision,
        events: Vec<Arc<SharedEvent>>,
        ready: &mut VecDeque<Frame>,
    ) {
        let mut parts = vec![events];
        if details.may_fragment {
            parts = fragments(parts.remove(0), details.with_prev, self.fragment_bytes);
        }
        let last = parts.len() - 1;
        for (index, events) in parts.into_iter().enumerate() {
            ready.push_back(Frame {
                head: pb::WatchResponse {
                    fragment: index < last,
                    ..self.about(id.get(), revision)
                },
                events,
                with_prev: details.with_prev,
            });
        }
    }

    fn mark(&mut self, mark: Mark, ready: &mut VecDeque<Frame>) {
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
        ready.push_back(Frame::message(head));
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

/// Splits events, oldest first, where a revision begins and enough has come before it.
fn whole_revisions(events: Vec<Arc<SharedEvent>>) -> Vec<Vec<Arc<SharedEvent>>> {
    let mut parts: Vec<Vec<Arc<SharedEvent>>> = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for event in events {
        let revision = event.event().kv.mod_revision;
        let is_new = last.replace(revision) != Some(revision);
        if parts.is_empty() || is_new && bytes >= MESSAGE_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += event.size_bytes();
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
}

/// Splits events so that each part has at most `max` bytes, or one event.
fn fragments(
    events: Vec<Arc<SharedEvent>>,
    with_prev: bool,
    max: usize,
) -> Vec<Vec<Arc<SharedEvent>>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let size = event.encoded(with_prev).len() + 1;
        if bytes + size > max && parts.last().is_some_and(|part: &Vec<_>| !part.is_empty()) {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
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
    fn told(frames: &mut Frames, mut entries: Vec<Entry>) -> Vec<(i64, i64, Vec<i64>, bool)> {
        let mut ready = VecDeque::new();
        frames.deliver(1, Delivery::Live, &mut entries, &mut ready);
        let told = ready.into_iter().map(|frame| {
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
        let large = |revision| to(0, &event(revision, MESSAGE_BYTES));
        let entries = || vec![large(2), large(2), large(3)];
        assert_eq!(
            told(&mut frames(false, 100), entries()),
            [(0, 2, vec![2, 2], false), (0, 3, vec![3], false)]
        );
        assert_eq!(
            told(&mut frames(true, 100), entries()),
            [
                (0, 2, vec![2], true),
                (0, 2, vec![2], false),
                (0, 3, vec![3], false)
            ]
        );
    }

    #[test]
    fn only_a_quiet_watcher_hears_of_progress_and_a_cancelled_one_of_nothing() {
        let mut frames = frames(false, 100);
        assert_eq!(frames.quiet_watchers(), [WatchId::new(1)]);
        told(&mut frames, vec![to(1, &event(2, 1))]);
        assert_eq!(frames.quiet_watchers(), []);
        let canceled = Mark::Canceled {
            id: WatchId::new(1),
            at: Revision::new(9),
            compacted: Some(Revision::new(5)),
        };
        let entries = vec![Entry::Mark(canceled), to(1, &event(10, 1))];
        assert_eq!(told(&mut frames, entries), [(1, 0, vec![], false)]);
    }
}
