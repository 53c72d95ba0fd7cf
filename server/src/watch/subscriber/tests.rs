//! Subscribers on the real state, in one process.

use std::time::Duration;

use gonfalon_core::watch::Mark;

use super::*;
use crate::limits::MAILBOX_EVENTS_MAX;
use crate::watch::testing::{Member, all, single};
use crate::watch::{LocalWatch, WatchError};

/// What a client of the subscriber has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Revisions of the events, by watcher.
    events: BTreeMap<i64, Vec<i64>>,
    marks: Vec<Mark>,
}

impl Seen {
    /// Takes what there is now.
    async fn step(&mut self, subscriber: &mut Subscriber) -> Delivery {
        let mut entries = Vec::new();
        let delivery = subscriber.next(&mut entries).await.unwrap();
        for entry in entries {
            match entry {
                Entry::Event(id, event) => {
                    let revision = event.event().kv.mod_revision.get();
                    self.events.entry(id.get()).or_default().push(revision);
                }
                Entry::Mark(mark) => self.marks.push(mark),
            }
        }
        delivery
    }
}

/// Takes all there is until nothing is left.
async fn drain(subscriber: &mut Subscriber) -> (BTreeMap<i64, Vec<i64>>, Vec<Mark>) {
    let mut seen = Seen::default();
    while seen.step(subscriber).await != Delivery::Nothing {}
    (seen.events, seen.marks)
}

fn span(from: i64, to: i64) -> Vec<i64> {
    (from..=to).collect()
}

#[tokio::test]
async fn watchers_that_start_in_the_past_meet_the_present_without_gap_or_repetition() {
    let member = Member::new();
    member.put("a", 3000);
    let mut subscriber = member.subscriber();
    for start in [Some(2), Some(1500), None, Some(3001), Some(3010)] {
        subscriber.create(all(start), false).unwrap();
    }
    let mut seen = Seen::default();
    // A put between any two steps: the present moves while history is read.
    for _ in 0..40 {
        seen.step(&mut subscriber).await;
        member.put("a", 1);
    }
    while seen.step(&mut subscriber).await != Delivery::Nothing {}
    let last = member.revision().get();
    for (id, first) in [(0, 2), (1, 1500), (2, 3002), (3, 3001), (4, 3010)] {
        assert_eq!(seen.events[&id], span(first, last), "watcher {id}");
    }
}

#[tokio::test]
async fn a_full_mailbox_is_made_up_for_from_history() {
    let member = Member::new();
    let mut subscriber = member.subscriber();
    subscriber.create(all(None), false).unwrap();
    subscriber.create(single("a"), false).unwrap();
    member.put("b", MAILBOX_EVENTS_MAX + 10);
    member.put("a", 5);
    assert_eq!(
        member.watchers.counts().unsynced,
        2,
        "neither event found room"
    );
    let (events, _) = drain(&mut subscriber).await;
    let last = member.revision().get();
    assert_eq!(events[&0], span(2, last));
    assert_eq!(events[&1], span(last - 4, last));
    assert_eq!(member.watchers.counts().unsynced, 0);
}

#[tokio::test]
async fn a_compacted_start_is_created_and_then_canceled() {
    let member = Member::new();
    member.put("a", 10);
    member.compact(5);
    let mut subscriber = member.subscriber();
    subscriber.create(all(Some(4)), false).unwrap();
    subscriber.create(all(Some(5)), false).unwrap();
    let (events, marks) = drain(&mut subscriber).await;
    let (id, at) = (WatchId::new(0), Revision::new(11));
    assert_eq!(marks[0], Mark::Created { id, at });
    assert_eq!(
        marks[2],
        Mark::Canceled {
            id,
            at,
            compacted: Some(Revision::new(5))
        }
    );
    assert_eq!(
        events,
        BTreeMap::from([(1, span(5, 11))]),
        "the compacted revision is readable"
    );
}

#[tokio::test]
async fn a_start_in_the_empty_store_comes_to_rest() {
    let member = Member::new();
    let mut subscriber = member.subscriber();
    subscriber.create(all(Some(1)), false).unwrap();
    assert_eq!(drain(&mut subscriber).await.1.len(), 1);
    assert_eq!(member.watchers.counts().unsynced, 0);
    member.put("a", 1);
    assert_eq!(
        drain(&mut subscriber).await.0,
        BTreeMap::from([(0, vec![2])])
    );
}

#[tokio::test]
async fn many_watchers_that_are_behind_all_catch_up() {
    let member = Member::new();
    member.put("a", 500);
    let mut subscriber = member.subscriber();
    for n in 0..200 {
        subscriber.create(all(Some(2 + n)), false).unwrap();
    }
    let (events, _) = drain(&mut subscriber).await;
    for n in 0..200 {
        assert_eq!(events[&n], span(2 + n, 501), "watcher {n}");
    }
}

#[tokio::test]
async fn one_that_is_far_behind_does_not_hold_up_one_that_is_near() {
    let member = Member::new();
    member.put("a", 5000);
    let mut subscriber = member.subscriber();
    subscriber.create(all(Some(2)), false).unwrap();
    subscriber.create(all(Some(4990)), false).unwrap();
    let mut seen = Seen::default();
    while !seen.events.contains_key(&1) {
        seen.step(&mut subscriber).await;
    }
    assert_eq!(seen.events[&1], span(4990, 5001));
    assert!(seen.events[&0].len() < 1000, "it had to wait for the other");
}

#[tokio::test]
async fn dropping_a_subscriber_removes_its_watchers() {
    let member = Member::new();
    let mut subscriber = member.subscriber();
    subscriber.create(all(None), false).unwrap();
    assert_eq!(
        (
            member.watchers.counts().streams,
            member.watchers.counts().watchers
        ),
        (1, 1)
    );
    drop(subscriber);
    assert_eq!(
        member.watchers.counts(),
        gonfalon_core::watch::Counts::default()
    );
}

#[tokio::test]
async fn a_local_watch_waits_for_a_deletion() {
    let member = Member::new();
    member.put("lock/1", 1);
    let deleted = |from: i64| {
        let (watchers, replay) = (member.watchers.clone(), member.replay());
        LocalWatch::deleted(watchers, replay, "lock/1".into(), Revision::new(from))
    };
    let mut waiting = Box::pin(deleted(2));
    let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
    assert!(early.is_err(), "it is still there");
    member.put("lock/1", 1);
    member.put("lock/2", 1);
    member.delete("lock/1");
    assert_eq!(waiting.await.unwrap(), Revision::new(5));
    assert_eq!(
        deleted(2).await.unwrap(),
        Revision::new(5),
        "it was deleted before"
    );
    assert_eq!(
        member.watchers.counts().watchers,
        0,
        "nothing is left behind"
    );

    member.put("a", 1);
    member.compact(6);
    let error = deleted(2).await.unwrap_err();
    assert!(
        matches!(error, WatchError::Compacted { oldest } if oldest.get() == 6),
        "{error}"
    );
}

#[tokio::test]
async fn a_local_watch_of_a_prefix_hands_out_whole_revisions() {
    let member = Member::new();
    let mut watch = LocalWatch::open(
        member.watchers.clone(),
        member.replay(),
        KeyRange::prefix("lock/".into()),
        None,
        Filter::default(),
    );
    member.put("lock/1", 1);
    member.put("other", 1);
    member.put("lock/2", 1);
    let events = watch.next().await.unwrap();
    let keys: Vec<_> = events.iter().map(|event| event.kv.key.clone()).collect();
    assert_eq!(keys, ["lock/1", "lock/2"]);
}
