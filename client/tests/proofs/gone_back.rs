//! What a client holds of a store that was restored, or whose history went while it was read.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Rpc};
use gonfalon::{Client, ErrorKind, KeyRange, OnCompacted, Op, Revision, WatchState};

use super::{next, told, until, within};

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

/// Waits until so many calls have arrived.
async fn received(server: &FakeServer, rpc: Rpc, count: usize) {
    let arrived = async {
        while server.received(rpc) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(arrived).await;
}

/// A store that was restored to the revision that is given, with the same id or with another; the
/// client has seen more of it.
async fn restored(is_renamed: bool) -> (FakeServer, Client, Revision) {
    let server = FakeServer::start();
    let client = server.client();
    let backup = server.put("k/a", "old");
    for _ in 0..5 {
        server.put("k/a", "new");
    }
    let read = client.get("k/a").await.expect("nothing is in its way");
    assert_eq!(read.expect("it is there").value, "new");
    go_back(&server, is_renamed, backup);
    (server, client, backup)
}

fn go_back(server: &FakeServer, is_renamed: bool, backup: Revision) {
    if is_renamed {
        server.restore(backup);
    } else {
        server.roll_back(backup);
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_read_only_what_he_watches_is_told_of_a_restored_store() {
    let server = FakeServer::start();
    let client = server.client();
    server.permit_reads("k/");
    server.put("k/a", "old");
    let backup = server.revision();
    let mut watch = client.watch(KeyRange::prefix("k/")).await.unwrap();
    server.put("k/a", "new");
    assert_eq!(told(&next(&mut watch).await).len(), 1);
    server.roll_back(backup);
    let error = within(watch.next()).await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restored, "{error}");
}

#[tokio::test(start_paused = true)]
async fn and_leaves_a_member_that_lags() {
    let server = FakeServer::builder().members(2).start();
    server.permit_reads("k/");
    server.member(1).stop();
    let client = server.client();
    let mut watch = client.watch(KeyRange::prefix("k/")).await.unwrap();
    server.member(1).lag(3);
    server.put("k/a", "1");
    assert_eq!(told(&next(&mut watch).await).len(), 1);
    let streams = server.received(Rpc::Watch);
    server.member(1).start();
    server.member(0).stop();
    received(&server, Rpc::Watch, streams + 1).await;
    server.member(0).start();
    server.put("k/a", "2");
    assert_eq!(told(&next(&mut watch).await), [("k/a".into(), "2".into())]);
    assert_eq!(watch.state(), WatchState::Live);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_is_read_without_a_watch() {
    // Of another id: its first answer says so.
    let (_server, client, backup) = restored(true).await;
    let read = client.range("k/a").serializable().await.unwrap();
    assert_eq!(
        (read.revision, &read.kvs[0].value[..]),
        (backup, &b"old"[..])
    );
    assert_eq!(client.revision_floor(), backup);

    // Of the same: a linearizable read does.
    let (_server, client, backup) = restored(false).await;
    let error = client.range("k/a").serializable().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "it may lag");
    client.range("k/a").await.unwrap();
    let read = client.range("k/a").serializable().await.unwrap();
    assert_eq!(read.revision, backup);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lists_an_older_state_shows_it() {
    let server = FakeServer::start();
    let client = server.client();
    let backup = server.put("k/a", "old");
    let cache = client.cache(KeyRange::prefix("k/")).await.unwrap();
    let seen = server.put("k/a", "new");
    within(cache.at_least(seen)).await.unwrap();
    // The watch ends for another reason, and the store goes back before the listing arrives.
    server.refuse_watch(DENIED);
    let ranges = server.received(Rpc::Range);
    server.on_next(Rpc::Range).delay(Duration::from_secs(1));
    server.cut();
    received(&server, Rpc::Range, ranges + 1).await;
    server.roll_back(backup);
    let shown = async {
        while cache.get("k/a").expect("it is there").value != "old" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(shown).await;
    let next = server.put("k/a", "next");
    let snapshot = within(cache.at_least(next)).await.unwrap();
    assert_eq!(snapshot.get("k/a").unwrap().value, "next");
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_linearizable_as_soon_as_the_store_was_restored() {
    for is_renamed in [true, false] {
        let server = FakeServer::start();
        let client = server.client();
        let backup = server.put("k/a", "old");
        let cache = client.cache(KeyRange::prefix("k/")).await.unwrap();
        let seen = server.put("k/a", "new");
        within(cache.at_least(seen)).await.unwrap();
        // The cache's own watch does not get through meanwhile.
        go_back(&server, is_renamed, backup);
        let snapshot = within(cache.linearizable()).await.unwrap();
        assert_eq!(snapshot.get("k/a").unwrap().value, "old", "{is_renamed}");
        let written = client.put("k/b", "1").await.unwrap().revision;
        let snapshot = within(cache.at_least(written)).await.unwrap();
        assert_eq!(snapshot.get("k/b").unwrap().value, "1");
    }
}

/// What `builder` becomes, whose first listing takes more than one page: while the second is on its
/// way, a key is written and the history goes.
async fn disturbed<B>(server: &FakeServer, builder: B, key: &str) -> B::Output
where
    B: IntoFuture<Output: Send + 'static, IntoFuture: Send + 'static>,
{
    server.on_next(Rpc::Range).delay(Duration::ZERO);
    server.on_next(Rpc::Range).delay(Duration::from_secs(1));
    let listing = tokio::spawn(builder.into_future());
    received(server, Rpc::Range, 2).await;
    server.put(key.to_owned(), "2");
    server.compact_now();
    within(listing).await.expect("it does not panic")
}

#[tokio::test(start_paused = true)]
async fn a_first_listing_whose_history_goes_starts_again() {
    let server = FakeServer::start();
    server.txn((0..3).map(|n| Op::put(format!("k/{n}"), "1")));
    let client = server.client();
    let builder = client.cache(KeyRange::prefix("k/")).page_keys(2);
    let cache = disturbed(&server, builder, "k/0").await.unwrap();
    assert_eq!(cache.snapshot().len(), 3);
    assert_eq!(cache.get("k/0").unwrap().value, "2");
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_now_on_does_not_tell_what_was_there_if_its_first_listing_fails() {
    let server = FakeServer::start();
    // More than it reads at once.
    for hundred in 0..101 {
        server.txn((0..100).map(|n| Op::put(format!("k/{hundred:03}{n:02}"), "1")));
    }
    let client = server.client();
    let builder = client
        .watch(KeyRange::prefix("k/"))
        .on_compacted(OnCompacted::Relist);
    let mut watch = disturbed(&server, builder, "k/00000").await.unwrap();
    server.put("k/end", "x");
    assert_eq!(
        told(&next(&mut watch).await),
        [("k/end".into(), "x".into())]
    );
}

/// By a write: what is read after it is of the restored store, whatever was known before.
#[tokio::test(start_paused = true)]
async fn a_write_to_a_restored_store_is_waited_for_by_caches_that_have_not_noticed() {
    for (is_renamed, later) in [(true, 5), (false, 5), (false, 1)] {
        let server = FakeServer::start();
        let client = server.client();
        let backup = server.put("k/a", "1");
        let cache = client.cache(KeyRange::prefix("k/")).await.unwrap();
        let value = client.cached::<u32>("k/a").await.unwrap();
        for _ in 0..later {
            server.put("k/a", "2");
        }
        let seen = server.revision();
        within(cache.at_least(seen)).await.unwrap();
        assert_eq!(*within(value.at_least(seen)).await.unwrap().value, 2);
        // No watch gets through any more.
        let watches = server.on_next(Rpc::Watch).times(1_000);
        watches.delay(Duration::from_mins(1));
        go_back(&server, is_renamed, backup);
        let written = client.put("k/b", "1").await.unwrap().revision;
        assert!(written <= seen, "by its number it is known");
        let snapshot = within(cache.at_least(written)).await.unwrap();
        assert_eq!(snapshot.get("k/a").unwrap().value, "1");
        assert_eq!(snapshot.get("k/b").unwrap().value, "1");
        let state = within(value.at_least(written)).await.unwrap();
        assert_eq!((*state.value, state.revision), (1, backup));
    }
}

/// Nobody asks it for anything.
#[tokio::test(start_paused = true)]
async fn a_cache_whose_client_has_noticed_lists_again_by_itself() {
    let server = FakeServer::start();
    let client = server.client();
    let backup = server.put("k/a", "old");
    let cache = client.cache(KeyRange::prefix("k/")).await.unwrap();
    for _ in 0..5 {
        server.put("k/a", "new");
    }
    within(cache.at_least(server.revision())).await.unwrap();
    let watches = server.on_next(Rpc::Watch).times(1_000);
    watches.delay(Duration::from_mins(1));
    server.roll_back(backup);
    client.get("elsewhere").await.unwrap();
    until(|| cache.get("k/a").is_some_and(|kv| kv.value == "old")).await;
    assert_eq!(cache.status().listings, 2);
}
