//! What watchers are promised, stated plainly and tested on random histories.
//!
//! The model of a store is the list of all events. The model of a stream's task does what
//! `server/src/api/watch.rs` does, one step at a time and at random moments: it empties its queue,
//! reads a bit of history, asks for progress. After any such run each watcher must have received
//! exactly the events of the list that it asked for.

mod examples;

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{CaughtUp, CreateError, Filter, Hub, Mark, Queue, Sink, Spec, StreamId, WatchId};
use crate::{Event, EventKind, KeyRange, KeyValue, Revision};

/// A queue that has room for so many events.
#[derive(Debug, Clone)]
struct Inbox(Rc<RefCell<Received>>);

#[derive(Debug, Default)]
struct Received {
    room: usize,
    entries: Vec<Entry>,
    is_behind: bool,
}

#[derive(Debug)]
enum Entry {
    Events(WatchId, Vec<Arc<Event>>),
    Mark(Mark),
}

impl Sink for Inbox {
    type Item = Arc<Event>;
    type Queue<'a> = RefMut<'a, Received>;

    fn item(event: &Arc<Event>) -> Arc<Event> {
        Arc::clone(event)
    }

    fn queue(&self) -> RefMut<'_, Received> {
        self.0.borrow_mut()
    }
}

impl Queue<Arc<Event>> for RefMut<'_, Received> {
    fn offer<'i>(
        &mut self,
        id: WatchId,
        events: impl ExactSizeIterator<Item = &'i Arc<Event>> + Clone,
    ) -> bool {
        let Some(room) = self.room.checked_sub(events.len()) else {
            return false;
        };
        self.room = room;
        self.entries
            .push(Entry::Events(id, events.cloned().collect()));
        true
    }

    fn mark(&mut self, mark: Mark) {
        self.entries.push(Entry::Mark(mark));
    }

    fn behind(&mut self) {
        self.is_behind = true;
    }
}

/// What a client knows of one watcher, from its creation to its end.
#[derive(Debug)]
struct Client {
    spec: Spec,
    created_at: Option<Revision>,
    received: Vec<Arc<Event>>,
    /// Everything up to here was announced.
    progress: Revision,
    is_over: bool,
    compacted: Option<Revision>,
}

/// The model of a stream: what its task and its client know.
#[derive(Debug)]
struct Task {
    id: StreamId,
    inbox: Inbox,
    room: usize,
    backlog: BTreeMap<WatchId, Revision>,
    /// The watchers that have an id now.
    open: BTreeMap<WatchId, Client>,
    over: Vec<Client>,
}

#[derive(Debug)]
struct World {
    hub: Hub<Inbox>,
    /// Every event that ever was, oldest first.
    history: Vec<Arc<Event>>,
    revision: Revision,
    /// The oldest revision whose events can be read.
    oldest: Revision,
    tasks: Vec<Task>,
}

#[derive(Debug, Clone)]
enum Step {
    // A `usize` picks one of what there is then, modulo.
    /// Commits transactions, each some changes of keys, and publishes them as one batch.
    Publish(Vec<Vec<(u8, bool)>>),
    /// Commits transactions that arrive as a snapshot.
    Install(Vec<Vec<(u8, bool)>>),
    Compact(usize),
    Open(usize),
    Close(usize),
    Create {
        stream: usize,
        id: Option<i64>,
        range: KeyRange,
        start: Option<usize>,
        filter: Filter,
    },
    Cancel {
        stream: usize,
        id: i64,
    },
    Drain(usize),
    Read {
        stream: usize,
        limit: i64,
    },
    Progress {
        stream: usize,
        id: Option<i64>,
    },
}

impl World {
    fn new() -> Self {
        Self {
            hub: Hub::new(Revision::FIRST),
            history: Vec::new(),
            revision: Revision::FIRST,
            oldest: Revision::new(0),
            tasks: Vec::new(),
        }
    }

    /// Adds transactions to the history and returns their events.
    fn commit(&mut self, txns: &[Vec<(u8, bool)>]) -> Vec<Arc<Event>> {
        let before = self.history.len();
        for txn in txns {
            self.revision = self.revision.next();
            for &(key, is_put) in txn {
                let kind = if is_put {
                    EventKind::Put
                } else {
                    EventKind::Delete
                };
                let kv = KeyValue {
                    key: vec![b'a' + key].into(),
                    mod_revision: self.revision,
                    ..KeyValue::default()
                };
                self.history.push(Arc::new(Event {
                    kind,
                    kv,
                    prev: None,
                }));
            }
        }
        self.history[before..].to_vec()
    }

    /// A revision from 1 to a few beyond the present.
    fn some_revision(&self, pick: usize) -> Revision {
        let range = usize::try_from(self.revision.get()).unwrap() + 3;
        Revision::new(i64::try_from(pick % range).unwrap() + 1)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish(txns) => {
                let events = self.commit(txns);
                self.hub.publish(self.revision, &events);
            }
            Step::Install(txns) => {
                self.commit(txns);
                self.hub.reset(self.revision);
            }
            Step::Compact(pick) => {
                self.oldest = self
                    .oldest
                    .max(self.some_revision(*pick).min(self.revision));
            }
            Step::Open(room) => {
                let inbox = Inbox(Rc::new(RefCell::new(Received {
                    room: *room,
                    ..Received::default()
                })));
                let id = self.hub.open_stream(inbox.clone());
                let (backlog, open, over) = Default::default();
                self.tasks.push(Task {
                    id,
                    inbox,
                    room: *room,
                    backlog,
                    open,
                    over,
                });
            }
            Step::Close(stream) => self.close(*stream),
            Step::Create {
                stream,
                id,
                range,
                start,
                filter,
            } => {
                let start = start.map(|pick| self.some_revision(pick));
                let id = id.map(WatchId::new);
                let spec = Spec {
                    id,
                    range: range.clone(),
                    start,
                    filter: *filter,
                };
                self.with_task(*stream, |world, task| task.create(world, &spec));
            }
            Step::Cancel { stream, id } => {
                self.with_task(*stream, |world, task| task.cancel(world, WatchId::new(*id)));
            }
            Step::Drain(stream) => self.with_task(*stream, |world, task| task.drain(world)),
            Step::Read { stream, limit } => {
                self.with_task(*stream, |world, task| task.read(world, *limit));
            }
            Step::Progress { stream, id } => {
                let id = id.map(WatchId::new);
                self.with_task(*stream, |world, task| task.ask_for_progress(world, id));
            }
        }
        self.hub.check();
    }

    /// Runs `act` on one of the streams, if there is one.
    fn with_task(&mut self, stream: usize, act: impl FnOnce(&mut Self, &mut Task)) {
        if self.tasks.is_empty() {
            return;
        }
        let mut task = self.tasks.swap_remove(stream % self.tasks.len());
        act(self, &mut task);
        self.tasks.push(task);
    }

    fn close(&mut self, stream: usize) {
        if self.tasks.is_empty() {
            return;
        }
        let task = self.tasks.swap_remove(stream % self.tasks.len());
        for client in task.open.values().chain(&task.over) {
            client.verify_prefix(self);
        }
        self.hub.close_stream(task.id);
    }

    /// Lets every stream do all there is to do, and then demands that nothing is missing.
    fn settle(&mut self) {
        for mut task in std::mem::take(&mut self.tasks) {
            for round in 0.. {
                assert!(round < 10_000, "a stream does not come to rest");
                task.drain(self);
                let is_behind = task.inbox.0.borrow().is_behind;
                if !is_behind && task.backlog.is_empty() {
                    break;
                }
                task.read(self, 3);
            }
            for client in task.open.values() {
                let last = client.verify_prefix(self);
                assert_eq!(last, None, "never received by {:?}", client.spec);
            }
            for client in &task.over {
                client.verify_prefix(self);
            }
            let is_all_current = task
                .open
                .values()
                .all(|client| client.spec.start.is_none_or(|r| r <= self.revision));
            let is_answered = self.hub.progress(&task.id, None);
            assert_eq!(
                is_answered,
                is_all_current && !task.open.is_empty(),
                "progress at rest"
            );
            self.hub.close_stream(task.id);
        }
        assert_eq!(self.hub.counts(), super::Counts::default());
    }
}

impl Task {
    fn create(&mut self, world: &mut World, spec: &Spec) {
        let created = match world.hub.create(&self.id, spec.clone()) {
            Ok(created) => created,
            Err(CreateError::EmptyRange) => return assert!(spec.range.is_empty()),
            Err(CreateError::DuplicateId) => {
                return assert!(self.open.contains_key(&spec.id.unwrap()));
            }
        };
        assert_eq!(created.at, world.revision);
        assert!(
            spec.id.is_none_or(|id| id == created.id),
            "another id than was asked for"
        );
        let client = Client {
            spec: spec.clone(),
            created_at: None,
            received: Vec::new(),
            progress: Revision::new(0),
            is_over: false,
            compacted: None,
        };
        let before = self.open.insert(created.id, client);
        assert!(before.is_none(), "{:?} is in use", created.id);
    }

    fn cancel(&mut self, world: &mut World, id: WatchId) {
        assert_eq!(
            world.hub.cancel(&self.id, id, None),
            self.open.contains_key(&id)
        );
        self.backlog.remove(&id);
        self.drain(world);
    }

    fn drain(&mut self, world: &World) {
        let entries = {
            let mut inbox = self.inbox.0.borrow_mut();
            inbox.room = self.room;
            std::mem::take(&mut inbox.entries)
        };
        for entry in entries {
            match entry {
                Entry::Events(id, events) => {
                    let client = self
                        .open
                        .get_mut(&id)
                        .expect("events of a watcher that exists");
                    client.receive(world, events);
                }
                Entry::Mark(Mark::Created { id, at }) => self.open_mut(id).created_at = Some(at),
                Entry::Mark(Mark::Canceled { id, compacted, .. }) => {
                    let mut client = self.open.remove(&id).expect("a watcher that exists");
                    client.is_over = true;
                    client.compacted = compacted;
                    self.over.push(client);
                }
                Entry::Mark(Mark::Progress { id: Some(id), at }) => {
                    self.open_mut(id).announce(world, at);
                }
                Entry::Mark(Mark::Progress { id: None, at }) => {
                    // It says nothing of watchers that were created behind it.
                    let created = |client: &&mut Client| client.created_at.is_some();
                    self.open
                        .values_mut()
                        .filter(created)
                        .for_each(|c| c.announce(world, at));
                }
            }
        }
    }

    fn open_mut(&mut self, id: WatchId) -> &mut Client {
        self.open
            .get_mut(&id)
            .expect("a mark of a watcher that exists")
    }

    /// Reads up to `limit` revisions of history for the first watcher that is behind.
    fn read(&mut self, world: &mut World, limit: i64) {
        self.inbox.0.borrow_mut().is_behind = false;
        self.backlog.extend(world.hub.take_unsynced(&self.id));
        self.drain(world);
        let Some((&id, &from)) = self.backlog.first_key_value() else {
            return;
        };
        if from < world.oldest {
            self.backlog.remove(&id);
            assert!(world.hub.cancel(&self.id, id, Some(world.oldest)));
            return self.drain(world);
        }
        let to = world.revision.min(Revision::new(from.get() + limit - 1));
        let client = self.open_mut(id);
        let wanted: Vec<_> = world
            .history
            .iter()
            .filter(|event| client.wants(event, from, to))
            .cloned()
            .collect();
        for events in wanted.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
            client.receive(world, events.to_vec());
        }
        match world.hub.caught_up(&self.id, id, to.next()) {
            CaughtUp::Synced => self.backlog.remove(&id),
            CaughtUp::Behind => self.backlog.insert(id, to.next()),
        };
    }

    fn ask_for_progress(&mut self, world: &mut World, id: Option<WatchId>) {
        let before = self.inbox.0.borrow().entries.len();
        let is_answered = world.hub.progress(&self.id, id);
        let answers = self.inbox.0.borrow().entries.len() - before;
        assert_eq!(answers, usize::from(is_answered), "marks queued");
    }
}

impl Client {
    fn wants(&self, event: &Event, from: Revision, to: Revision) -> bool {
        let revision = event.kv.mod_revision;
        revision >= from
            && revision <= to
            && self.spec.range.contains(&event.kv.key)
            && self.spec.filter.passes(event.kind)
    }

    /// The first revision that is promised.
    fn first(&self) -> Option<Revision> {
        self.spec.start.or(self.created_at.map(Revision::next))
    }

    /// Atomic, bookmarkable, and created first.
    fn receive(&mut self, world: &World, events: Vec<Arc<Event>>) {
        assert!(
            !self.is_over && self.created_at.is_some(),
            "events before or behind its time"
        );
        let revision = events[0].kv.mod_revision;
        let whole: Vec<_> = world
            .history
            .iter()
            .filter(|event| self.wants(event, revision, revision))
            .collect();
        assert_eq!(
            events.iter().collect::<Vec<_>>(),
            whole,
            "a revision came in parts"
        );
        assert!(
            revision > self.progress,
            "{revision:?} after progress {:?}",
            self.progress
        );
        self.received.extend(events);
    }

    /// Everything up to `at` must be here already, and nothing beyond.
    fn announce(&mut self, world: &World, at: Revision) {
        let first = self.first().expect("progress behind the creation");
        let promised: Vec<_> = world
            .history
            .iter()
            .filter(|event| self.wants(event, first, at))
            .collect();
        assert_eq!(
            self.received.iter().collect::<Vec<_>>(),
            promised,
            "progress to {at:?}"
        );
        assert!(at >= self.progress, "progress went back");
        self.progress = at;
    }

    /// Ordered, unique, reliable and resumable: what was received is what was asked for, from its
    /// first event on, without gaps. Returns the first event that is still to come.
    fn verify_prefix(&self, world: &World) -> Option<Arc<Event>> {
        let Some(first) = self.first() else {
            assert!(
                self.received.is_empty(),
                "events of a watcher that was never created"
            );
            return None;
        };
        let mut promised = world
            .history
            .iter()
            .filter(|e| self.wants(e, first, world.revision));
        for received in &self.received {
            assert_eq!(promised.next(), Some(received), "of {:?}", self.spec);
        }
        let missing = promised.next().cloned();
        if let Some(oldest) = self.compacted {
            assert!(
                oldest <= world.oldest && first < oldest,
                "nothing it needs was compacted"
            );
        }
        missing
    }
}

fn any_txns() -> impl Strategy<Value = Vec<Vec<(u8, bool)>>> {
    vec(vec((0..4_u8, prop::bool::weighted(0.7)), 1..4), 0..4)
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    ("[abcd]", "(\0|[abcde]?)").prop_map(|(key, end)| KeyRange::from_wire(key.into(), end.into()))
}

fn any_step() -> impl Strategy<Value = Step> {
    let stream = any::<usize>;
    let filter = (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
        .prop_map(|(no_put, no_delete)| Filter { no_put, no_delete });
    prop_oneof![
        8 => any_txns().prop_map(Step::Publish),
        1 => any_txns().prop_map(Step::Install),
        1 => any::<usize>().prop_map(Step::Compact),
        2 => (1..12_usize).prop_map(Step::Open),
        1 => stream().prop_map(Step::Close),
        6 => (
            stream(),
            prop::option::weighted(0.2, -1..5_i64),
            any_range(),
            prop::option::of(any::<usize>()),
            filter,
        )
            .prop_map(|(stream, id, range, start, filter)| {
                Step::Create { stream, id, range, start, filter }
            }),
        2 => (stream(), -1..6_i64).prop_map(|(stream, id)| Step::Cancel { stream, id }),
        4 => stream().prop_map(Step::Drain),
        4 => (stream(), 1..4_i64).prop_map(|(stream, limit)| Step::Read { stream, limit }),
        3 => (stream(), prop::option::of(0..4_i64))
            .prop_map(|(stream, id)| Step::Progress { stream, id }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Model: the list of all events, filtered for each watcher.
    #[test]
    fn every_watcher_receives_what_it_asked_for_whatever_happens(steps in vec(any_step(), 1..80)) {
        let mut world = World::new();
        world.step(&Step::Open(4));
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}
