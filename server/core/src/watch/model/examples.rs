//! Examples of what the model's property says, for those who read.

use std::rc::Rc;

use super::{Inbox, Step, World};
use crate::watch::{CaughtUp, CreateError, Filter, Hub, Spec, WatchId};
use crate::{KeyRange, Revision};

/// A world with one stream that has room for `room` events.
fn world(room: usize) -> World {
    let mut world = World::new();
    world.step(&Step::Open(room));
    world
}

/// A watcher of everything from `start` on.
fn all(start: Option<i64>) -> Spec {
    Spec {
        id: None,
        range: KeyRange::from_wire("\0".into(), "\0".into()),
        start: start.map(Revision::new),
        filter: Filter::default(),
    }
}

/// A batch of so many transactions, each a put of one key.
fn puts(count: usize) -> Step {
    Step::Publish(vec![vec![(0, true)]; count])
}

#[test]
fn ids_count_from_zero_and_skip_those_in_use() {
    let mut hub = Hub::new(Revision::FIRST);
    let stream = hub.open_stream(Inbox(Rc::default()));
    let create = |hub: &mut Hub<Inbox>, id: Option<i64>| {
        let spec = Spec {
            id: id.map(WatchId::new),
            ..all(None)
        };
        hub.create(&stream, spec).map(|created| created.id.get())
    };
    assert_eq!(create(&mut hub, None), Ok(0));
    assert_eq!(create(&mut hub, Some(2)), Ok(2));
    assert_eq!(create(&mut hub, Some(-7)), Ok(-7));
    assert_eq!(create(&mut hub, None), Ok(1));
    assert_eq!(create(&mut hub, None), Ok(3));
    assert_eq!(create(&mut hub, Some(3)), Err(CreateError::DuplicateId));
    assert!(hub.cancel(&stream, WatchId::new(1), None));
    assert_eq!(
        create(&mut hub, None),
        Ok(4),
        "an id is not given out twice"
    );
    assert_eq!(create(&mut hub, Some(1)), Ok(1), "but may be asked for");
    assert!(!hub.cancel(&stream, WatchId::new(99), None));
    hub.check();
}

#[test]
fn an_empty_range_cannot_be_watched() {
    let mut hub = Hub::new(Revision::FIRST);
    let stream = hub.open_stream(Inbox(Rc::default()));
    let spec = Spec {
        range: KeyRange::from_wire("b".into(), "a".into()),
        ..all(None)
    };
    assert_eq!(hub.create(&stream, spec), Err(CreateError::EmptyRange));
    assert_eq!(hub.counts().watchers, 0);
}

#[test]
fn a_full_queue_makes_the_watcher_unsynced_and_history_fills_the_gap() {
    let mut world = world(2);
    world.with_task(0, |world, task| task.create(world, &all(None)));
    world.step(&puts(5));
    assert_eq!(world.hub.counts().unsynced, 1);
    world.with_task(0, |world, task| {
        assert!(task.inbox.0.borrow().is_behind, "the stream was not told");
        task.read(world, 100);
        assert_eq!(task.open[&WatchId::new(0)].received.len(), 5);
    });
    assert_eq!(world.hub.counts().unsynced, 0);
    world.settle();
}

#[test]
fn what_is_published_during_a_read_of_history_is_read_next() {
    let mut world = world(9);
    world.step(&puts(3));
    world.with_task(0, |world, task| task.create(world, &all(Some(2))));
    world.with_task(0, |world, task| {
        let unsynced = world.hub.take_unsynced(&task.id);
        assert_eq!(unsynced, [(WatchId::new(0), Revision::new(2))]);
        task.backlog.extend(unsynced);
        world.step(&puts(1));
        let read_to = Revision::new(4);
        let caught_up = world
            .hub
            .caught_up(&task.id, WatchId::new(0), read_to.next());
        assert_eq!(caught_up, CaughtUp::Behind);
        let caught_up = world
            .hub
            .caught_up(&task.id, WatchId::new(0), read_to.next().next());
        assert_eq!(caught_up, CaughtUp::Synced);
    });
}

#[test]
fn progress_is_announced_only_if_every_watcher_has_everything() {
    let mut world = world(1);
    let ask = |world: &mut World, id: Option<i64>| {
        let task = &world.tasks[0];
        world.hub.progress(&task.id, id.map(WatchId::new))
    };
    assert!(!ask(&mut world, None), "no watcher, no progress");
    world.with_task(0, |world, task| task.create(world, &all(None)));
    assert!(ask(&mut world, None));
    world.with_task(0, |world, task| task.create(world, &all(Some(3))));
    assert!(!ask(&mut world, None), "watcher 1 starts in the future");
    assert!(ask(&mut world, Some(0)));
    assert!(!ask(&mut world, Some(1)));
    world.step(&puts(2));
    assert!(
        !ask(&mut world, Some(0)),
        "watcher 0 is unsynced: its queue was full"
    );
    assert!(!ask(&mut world, Some(2)), "there is no watcher 2");
    world.settle();
}

#[test]
fn after_a_snapshot_the_events_in_between_are_read_or_found_compacted() {
    for (compacted, want) in [(0, None), (3, Some(Revision::new(3)))] {
        let mut world = world(9);
        world.with_task(0, |world, task| task.create(world, &all(None)));
        world.with_task(0, |world, task| task.create(world, &all(Some(9))));
        world.step(&Step::Install(vec![vec![(0, true)]; 3]));
        assert_eq!(
            world.hub.counts().unsynced,
            1,
            "watcher 1 starts later and stays synced"
        );
        world.oldest = Revision::new(compacted);
        world.with_task(0, |world, task| {
            task.read(world, 100);
            let client = task
                .open
                .get(&WatchId::new(0))
                .unwrap_or_else(|| &task.over[0]);
            assert_eq!(client.compacted, want);
            assert_eq!(client.received.len(), if want.is_some() { 0 } else { 3 });
        });
        world.settle();
    }
}
