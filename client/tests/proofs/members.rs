//! Members that lag, stores that were restored, tokens that are old, the future.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame, Rpc};
use gonfalon::{Client, ErrorKind, KeyRange, OnCompacted, Op, Revision, WatchState};

use super::{Model, next, told, within};

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

/// A cluster of three whose second member is three revisions behind, and a client that was
/// connected to the first and sees only the second now.
async fn on_a_laggard() -> (FakeServer, Client, gonfalon::Watch, Model) {
    let server = FakeServer::builder().members(3).start();
    server.member(1).stop();
    server.member(2).stop();
    let client = server.client();
    let range = KeyRange::prefix("k/");
    let mut model = Model::after(range.clone(), server.revision());
    let mut watch = client
        .watch(range)
        .await
        .expect("the first member is there");
    server.member(1).lag(3);
    for value in ["1", "2", "3"] {
        server.put("k/a", value);
    }
    model.take(&server, &mut watch).await;
    let streams = server.received(Rpc::Watch);
    server.member(1).start();
    server.member(0).stop();
    while server.received(Rpc::Watch) == streams {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (server, client, watch, model)
}

#[tokio::test(start_paused = true)]
async fn a_watch_leaves_a_member_that_lags_for_one_that_does_not() {
    let (server, _client, mut watch, mut model) = on_a_laggard().await;
    server.member(2).start();
    server.put("k/a", "4");
    model.take(&server, &mut watch).await;
    assert_eq!(watch.state(), WatchState::Live);
}

#[tokio::test(start_paused = true)]
async fn or_waits_for_it_if_there_is_no_other_and_says_that_it_is_not_live() {
    let (server, _client, mut watch, mut model) = on_a_laggard().await;
    server.put("k/a", "4");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(watch.state(), WatchState::Resuming);
    server.member(1).lag(0);
    model.take(&server, &mut watch).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(watch.state(), WatchState::Live);
}

/// Why it is behind cannot be found out, because what would tell is refused: it is left, and not asked
/// without a pause.
#[tokio::test(start_paused = true)]
async fn a_watch_leaves_a_member_that_is_behind_also_if_no_read_may_tell_why() {
    let (server, _client, mut watch, mut model) = on_a_laggard().await;
    server.permit_reads("other/");
    let streams = server.received(Rpc::Watch);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(watch.state(), WatchState::Resuming);
    let streams = server.received(Rpc::Watch) - streams;
    assert!(streams < 100, "{streams} streams in a minute");
    server.member(2).start();
    server.put("k/a", "4");
    model.take(&server, &mut watch).await;
    assert_eq!(watch.state(), WatchState::Live);
}

#[tokio::test(start_paused = true)]
async fn a_serializable_read_never_shows_less_than_its_client_has_seen() {
    let server = FakeServer::builder().members(2).start();
    let client = server.client();
    let put = |value: &str| server.put("k", value.to_owned());
    put("old");
    client.get("k").await.unwrap();
    server.member(1).lag(1);
    let floor = put("new");
    // Whoever answers first: what the one that lags says is passed on to nobody.
    for first in [0, 1, 0, 1] {
        client.get("k").await.unwrap();
        assert_eq!(client.revision_floor(), floor);
        server.member(1 - first).stop();
        client.get("k").await.unwrap();
        server.member(1 - first).start();
        let read = client.get("k").serializable().await.unwrap();
        assert_eq!(read.unwrap().value, "new", "member {first} was asked last");
    }
    // Nor if there is no other.
    let only = server.member(1).client();
    only.get("k").await.unwrap();
    assert_eq!(
        only.revision_floor(),
        floor,
        "linearizable reads are current"
    );
    let error = only.get("k").serializable().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("has seen"), "{error}");
    assert_eq!(error.outcome(), gonfalon::Outcome::NotApplied);
    // Who does not mind gets it.
    server.member(0).stop();
    let careless = server.client_builder().reads_go_forward(false);
    let careless = careless.build().unwrap();
    let read = careless.get("k").serializable().await.unwrap();
    assert_eq!(read.unwrap().value, "old");
    // It catches up while it is asked.
    let only = server.member(1).client();
    only.get("k").await.unwrap();
    let reading = tokio::spawn(only.get("k").serializable().into_future());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!reading.is_finished());
    server.member(1).lag(0);
    let read = within(reading).await.unwrap().unwrap();
    assert_eq!(read.unwrap().value, "new");
}

#[tokio::test(start_paused = true)]
async fn a_new_watch_does_not_tell_what_its_client_has_seen_before() {
    let (server, client, mut old, mut model) = on_a_laggard().await;
    let seen = client.put("k/b", "1").await.unwrap().revision;
    assert_eq!(seen, server.revision());
    let mut new = client.watch(KeyRange::prefix("k/")).await.unwrap();
    server.put("k/b", "2");
    server.member(1).lag(0);
    assert_eq!(told(&next(&mut new).await), [("k/b".into(), "2".into())]);
    model.take(&server, &mut old).await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_is_told_from_a_lagging_member() {
    for is_renamed in [true, false] {
        let server = FakeServer::start();
        let client = server.client();
        client.put("k0", "1").await.unwrap();
        client.put("k", "1").await.unwrap();
        let backup = server.revision();
        let mut watch = client.watch("k").await.unwrap();
        let mut quiet = client.watch("quiet").from(Revision::new(3)).await.unwrap();
        let mut healed = client
            .watch(KeyRange::prefix("k"))
            .on_compacted(OnCompacted::Relist)
            .await
            .unwrap();
        server.put("k", "2");
        server.put("k2", "2");
        server.delete("k0");
        assert_eq!(told(&next(&mut watch).await).len(), 1);
        while next(&mut healed).await.revision < server.revision() {}
        if is_renamed {
            server.restore(backup);
        } else {
            server.roll_back(backup);
        }
        let error = within(watch.next()).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Restored, "{error}");
        let batch = next(&mut healed).await;
        assert!(batch.is_relisted);
        assert_eq!(batch.revision, backup);
        assert_eq!(
            told(&batch),
            [
                ("k0".into(), "1".into()),
                ("k".into(), "1".into()),
                ("k2".into(), String::new()),
            ],
            "what is back, what is as it was, what is gone again"
        );
        // What was seen of the old store is not held against the new one.
        let mut fresh = client.watch("k").await.unwrap();
        server.put("k", "3");
        assert_eq!(told(&next(&mut fresh).await), [("k".into(), "3".into())]);
        assert_eq!(told(&next(&mut healed).await), [("k".into(), "3".into())]);
        if is_renamed {
            let error = within(quiet.next()).await.unwrap().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Restored);
        } else {
            // All that it knows is still so.
            server.put("quiet", "1");
            assert_eq!(told(&next(&mut quiet).await).len(), 1);
        }
    }
}

async fn user(server: &FakeServer) -> Client {
    let client = server.client_builder().user("root", "secret").build();
    let client = client.expect("the endpoints are addresses");
    client
        .put("first", "1")
        .await
        .expect("the password is right");
    client
}

#[tokio::test(start_paused = true)]
async fn a_watch_outlives_its_token_again_and_again() {
    let server = FakeServer::builder().user("root", "secret").start();
    let client = user(&server).await;
    let range = KeyRange::prefix("k/");
    let mut model = Model::after(range.clone(), server.revision());
    let mut watch = client.watch(range).await.unwrap();
    for round in 0..5 {
        server.expire_tokens();
        // A stream keeps the token that it was opened with; creations on it are refused.
        if round % 2 == 0 {
            server.cut();
        }
        let other = within(client.watch("other")).await.unwrap();
        server.put("k/a", round.to_string());
        model.take(&server, &mut watch).await;
        drop(other);
    }
    assert_eq!(server.received(Rpc::Authenticate), 6);
}

#[tokio::test(start_paused = true)]
async fn a_denied_watch_is_asked_for_again_with_a_fresh_token_and_then_denied() {
    let server = FakeServer::builder().user("root", "secret").start();
    let client = user(&server).await;
    // Older servers say so of an old token too.
    server.refuse_watch(DENIED);
    let mut watch = client.watch("k").await.unwrap();
    server.put("k", "1");
    assert_eq!(told(&next(&mut watch).await), [("k".into(), "1".into())]);
    server.refuse_watch(DENIED);
    server.refuse_watch(DENIED);
    let error = user(&server).await.watch("k").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    server.put("k", "2");
    assert_eq!(told(&next(&mut watch).await), [("k".into(), "2".into())]);

    // Who has no token to renew is denied at once.
    let server = FakeServer::start();
    server.refuse_watch(DENIED);
    let error = server.client().watch("k").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(server.received(Rpc::Watch), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_no_token_is_not_asked_without_a_pause() {
    let server = FakeServer::builder().user("root", "secret").start();
    let client = user(&server).await;
    let text = "etcdserver: invalid auth token";
    server.on_next(Rpc::Watch).times(1_000_000).refuse(text);
    let watch = client.watch("k").deadline(Duration::from_mins(1));
    let error = watch.await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    let asked = server.received(Rpc::Watch);
    assert!(asked < 100, "{asked} streams in a minute");
}

#[tokio::test]
async fn a_range_without_keys_is_refused_for_what_it_is() {
    let client = FakeServer::start();
    let error = client.client().watch(KeyRange::between("b", "a")).await;
    assert_eq!(*error.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_the_future_waits_for_it() {
    let server = FakeServer::builder().members(2).start();
    let client = server.client();
    let start = Revision::new(50);
    let mut watch = client.watch("k").from(start).await.unwrap();
    let mut current = client.watch("k").await.unwrap();
    for number in server.revision().get() + 1..=60 {
        if number % 7 == 0 {
            server.cut();
        }
        let revision = server.put("k", number.to_string());
        assert_eq!(revision.get(), number);
        server.report_progress();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut model = Model::after(KeyRange::key("k"), Revision::new(49));
    model.take(&server, &mut watch).await;
    assert!(server.sent(Frame::Progress) > 0, "the other was told of it");
    assert_eq!(next(&mut current).await.events[0].kv.mod_revision.get(), 2);
}

/// A leader is lost and found while a lease and a watch go on.
#[tokio::test(start_paused = true)]
async fn without_a_leader_a_watch_waits_and_loses_nothing() {
    let server = FakeServer::builder().members(3).start();
    let client = server.client();
    let range = KeyRange::prefix("k/");
    let mut model = Model::after(range.clone(), server.revision());
    let mut watch = client.watch(range).await.unwrap();
    for round in 0..5 {
        server.lose_leader();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(watch.state(), WatchState::Resuming);
        server.elect_leader();
        server.txn([Op::put("k/a", round.to_string()), Op::put("k/b", "x")]);
        model.take(&server, &mut watch).await;
        assert_eq!(watch.state(), WatchState::Live);
    }
}
