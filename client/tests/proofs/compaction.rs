//! History that is gone: said, or healed.

use std::collections::BTreeMap;

use bytes::Bytes;
use gonfalon::testkit::{FakeServer, Frame, Rpc};
use gonfalon::{
    Batch, ErrorKind, Event, EventKind, KeyRange, OnCompacted, Op, Revision, Watch, WatchState,
};

use super::{Model, next, within};

const STEPS: usize = 6;

fn step(server: &FakeServer, number: usize) {
    match number {
        0 => server.put("s/a", "1"),
        1 => server.txn([
            Op::put("s/a", "2"),
            Op::put("s/b", "1"),
            Op::put("s/c", "1"),
        ]),
        2 => server.delete("s/b"),
        3 => server.txn([Op::put("s/d", "1"), Op::put("s/b", "2")]),
        4 => server.delete("s/a"),
        5 => server.put("s/c", "2"),
        _ => unreachable!("there are {STEPS} steps"),
    };
}

/// Makes the steps; all history is dropped after the one with the number `compacted`, while nobody
/// can be reached, so that whoever has not heard of them by then never will.
async fn steps(server: &FakeServer, compacted: usize) {
    for number in 0..STEPS {
        step(server, number);
        if number == compacted {
            server.member(0).stop();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            // A change that nobody is told of, and one of something else.
            step(server, (number + 1) % STEPS);
            server.put("other", "x");
            server.compact_now();
            server.member(0).start();
        } else if number % 2 == 0 {
            // Or whoever listens hears it first.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

/// What there is, as one who follows batches knows it.
#[derive(Debug, Default, PartialEq)]
struct Followed(BTreeMap<Bytes, (Bytes, i64)>);

impl Followed {
    fn follow(&mut self, batch: &Batch, with_prev: bool) {
        for event in &batch.events {
            let prev = self.0.get(&event.kv.key).map(|(value, _)| value.clone());
            if with_prev {
                let told = event.prev.as_ref().map(|prev| prev.value.clone());
                assert_eq!(told, prev, "the key before {event:?}");
            }
            self.apply(event);
        }
    }

    fn apply(&mut self, event: &Event) {
        let kv = &event.kv;
        match event.kind {
            EventKind::Put => {
                let now = (kv.value.clone(), kv.mod_revision.get());
                self.0.insert(kv.key.clone(), now);
            }
            EventKind::Delete => {
                let was = self.0.remove(&kv.key);
                assert!(was.is_some(), "{kv:?} was not there, and is deleted");
            }
        }
    }

    /// The same, read from the server.
    async fn of(server: &FakeServer, range: KeyRange) -> Self {
        let read = server
            .client()
            .range(range)
            .await
            .expect("nothing is in its way");
        let kvs = read.kvs.into_iter();
        Self(
            kvs.map(|kv| (kv.key, (kv.value, kv.mod_revision.get())))
                .collect(),
        )
    }
}

/// The next changes in which `wanted` is, however many batches that takes.
async fn until(watch: &mut Watch, wanted: &str, mut each: impl FnMut(&Batch)) {
    loop {
        let batch = next(watch).await;
        each(&batch);
        if batch.events.iter().any(|event| event.kv.key == wanted) {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_history_ends_a_watch_tells_all_or_says_so() {
    let mut said = 0;
    for cut in 0..12 {
        for compacted in 0..STEPS {
            let server = FakeServer::builder().frame_bytes(1).start();
            let client = server.client();
            let range = KeyRange::prefix("s/");
            let mut watch = client.watch(range.clone()).await.unwrap();
            if cut > 0 {
                server.cut_after(Frame::Any, cut);
            }
            let changes = server.changes_after(server.revision());
            assert_eq!(changes, []);
            steps(&server, compacted).await;
            server.put("s/end", "x");

            let mut last = Revision::new(1);
            let error = loop {
                match within(watch.next()).await.expect("an error comes first") {
                    Ok(batch) => {
                        let first = batch.events[0].kv.mod_revision;
                        assert!(first > last, "{batch:?} after {last}");
                        last = batch.revision;
                        if last == server.revision() {
                            break None;
                        }
                    }
                    Err(error) => break Some(error),
                }
            };
            if let Some(error) = error {
                said += 1;
                let ErrorKind::Compacted { oldest } = *error.kind() else {
                    panic!("{error:?}");
                };
                assert!(oldest > last.next(), "{last} was told, {oldest} is there");
                assert!(within(watch.next()).await.is_none());
                assert_eq!(watch.state(), WatchState::Ended);
            }
        }
    }
    assert!(said > 12, "history was missed {said} times");
}

#[tokio::test(start_paused = true)]
async fn or_reads_again_and_tells_the_differences() {
    let mut relisted = 0;
    for with_prev in [true, false] {
        for cut in 0..12 {
            for compacted in 0..STEPS {
                let server = FakeServer::builder().frame_bytes(1).start();
                let client = server.client();
                server.txn([Op::put("s/a", "0"), Op::put("s/z", "0")]);
                let range = KeyRange::prefix("s/");
                let mut followed = Followed::of(&server, range.clone()).await;
                let mut watch = client
                    .watch(range.clone())
                    .on_compacted(OnCompacted::Relist);
                if !with_prev {
                    watch = watch.without_prev();
                }
                let mut watch = watch.await.unwrap();
                if cut > 0 {
                    server.cut_after(Frame::Any, cut);
                }
                steps(&server, compacted).await;
                server.put("s/end", "x");
                let mut last = Revision::new(1);
                until(&mut watch, "s/end", |batch| {
                    assert!(batch.revision > last, "{batch:?} after {last}");
                    last = batch.revision;
                    relisted += usize::from(batch.is_relisted);
                    followed.follow(batch, with_prev);
                })
                .await;
                assert_eq!(followed, Followed::of(&server, range).await);
                assert_eq!(watch.position(), server.revision());
                assert_eq!(watch.state(), WatchState::Live);
            }
        }
    }
    assert!(relisted > 12, "it was read again {relisted} times");
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_again_can_begin_in_the_past_and_before_history() {
    let server = FakeServer::start();
    let client = server.client();
    let relisting = |from: i64| {
        let watch = client.watch(KeyRange::prefix("k/"));
        watch
            .from(Revision::new(from))
            .on_compacted(OnCompacted::Relist)
    };
    for value in ["1", "2", "3"] {
        server.put("k/a", value);
    }
    let gone = server.put("k/b", "1");
    // Everything, and from the middle.
    for (from, wanted) in [(1, 4), (3, 3)] {
        let mut watch = relisting(from).await.unwrap();
        let mut seen = 0;
        while seen < wanted {
            let batch = next(&mut watch).await;
            assert!(!batch.is_relisted);
            seen += batch.events.len();
        }
        assert_eq!(seen, wanted, "from {from}");
    }
    server.delete("k/b");
    server.compact_now();
    // What is left of what has changed since: a deletion before the watch began is not known.
    let mut watch = relisting(4).await.unwrap();
    let batch = next(&mut watch).await;
    assert!(batch.is_relisted);
    assert_eq!(batch.events.len(), 1, "{batch:?}");
    assert_eq!(batch.events[0].kv.value, "3");
    // Nothing has changed since the last write, but the key that is gone.
    let mut watch = relisting(gone.get()).await.unwrap();
    server.put("k/c", "1");
    until(&mut watch, "k/c", |batch| {
        assert_eq!(batch.events.len(), 1, "{batch:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_that_wants_only_deletions_is_told_of_those_that_it_missed() {
    let server = FakeServer::start();
    let client = server.client();
    let all = || {
        client
            .watch(KeyRange::prefix("k/"))
            .on_compacted(OnCompacted::Relist)
    };
    let mut deletions = all().only_deletes().await.unwrap();
    let mut puts = all().only_puts().await.unwrap();
    server.put("k/a", "1");
    let batch = next(&mut puts).await;
    assert_eq!(batch.events.len(), 1);
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    server.member(0).stop();
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    server.txn::<Op>([Op::delete("k/a").into(), Op::put("k/b", "1").into()]);
    server.put("other", "x");
    server.compact_now();
    server.member(0).start();
    let batch = next(&mut deletions).await;
    let event = &batch.events[0];
    assert_eq!((event.kind, batch.events.len()), (EventKind::Delete, 1));
    assert_eq!(event.kv.key, "k/a");
    assert_eq!(event.prev.as_ref().unwrap().value, "1");
    let batch = next(&mut puts).await;
    assert_eq!(
        (&batch.events[0].kv.key[..], batch.events.len()),
        (&b"k/b"[..], 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_right_again_wherever_history_ends() {
    for cut in 0..12 {
        for compacted in 0..STEPS {
            let server = FakeServer::builder().frame_bytes(1).start();
            let client = server.client();
            server.txn([Op::put("s/a", "0"), Op::put("s/z", "0")]);
            let range = KeyRange::prefix("s/");
            let cache = client.cache(range.clone()).await.unwrap();
            let mut changes = cache.subscribe();
            if cut > 0 {
                server.cut_after(Frame::Any, cut);
            }
            steps(&server, compacted).await;
            let last = server.put("s/end", "x");
            let snapshot = within(cache.at_least(last)).await.unwrap();
            let wanted = Followed::of(&server, range).await;
            let of = |kvs: &mut dyn Iterator<Item = &gonfalon::KeyValue>| {
                let kv = |kv: &gonfalon::KeyValue| {
                    (kv.key.clone(), (kv.value.clone(), kv.mod_revision.get()))
                };
                Followed(kvs.map(kv).collect())
            };
            assert_eq!(of(&mut snapshot.iter().map(AsRef::as_ref)), wanted);
            // Whoever follows its changes is right too.
            let mut known: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            known.insert("s/a".into(), "0".into());
            known.insert("s/z".into(), "0".into());
            while !known.contains_key(&b"s/end"[..]) {
                for change in within(changes.next()).await.expect("the cache goes on") {
                    let old = change.old.as_ref().map(|kv| kv.value.clone());
                    assert_eq!(known.get(change.key()).cloned(), old);
                    match &change.new {
                        Some(kv) => known.insert(kv.key.clone(), kv.value.clone()),
                        None => known.remove(change.key()),
                    };
                }
            }
            let values = wanted.0.into_iter().map(|(key, (value, _))| (key, value));
            assert_eq!(known, values.collect());
        }
    }
}

/// A watch of what was compacted up to exactly where it begins has lost nothing.
#[tokio::test(start_paused = true)]
async fn nothing_is_missed_by_one_who_has_all_before_the_compaction() {
    let server = FakeServer::start();
    let client = server.client();
    let range = KeyRange::prefix("k/");
    let mut model = Model::after(range.clone(), server.revision());
    let mut watch = client.watch(range).await.unwrap();
    server.put("k/a", "1");
    model.take(&server, &mut watch).await;
    server.cut();
    server.compact_now();
    server.put("k/a", "2");
    // The version before is compacted, or is not: both are right.
    let batch = next(&mut watch).await;
    assert_eq!(batch.events[0].kv.value, "2");
    assert_eq!(server.received(Rpc::Watch), 2);
}
