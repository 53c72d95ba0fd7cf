//! What goes wrong for one call or one watch, and must not for the others.

use std::time::Duration;

use bytes::Bytes;
use gonfalon::testkit::{FakeServer, Rpc};
use gonfalon::{Client, ErrorKind, KeyRange, OnCompacted, Outcome, Watch, WatchState};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

use super::{next, told, within};

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
const WRONG_PASSWORD: &str = "etcdserver: authentication failed, invalid user ID or password";
const MIB: usize = 1024 * 1024;

fn user(server: &FakeServer) -> Client {
    let builder = server.client_builder().user("root", "secret");
    builder.build().expect("the endpoints are addresses")
}

/// It is told of what is written now.
async fn goes_on(server: &FakeServer, watch: &mut Watch, key: &str) {
    let value = server.revision().to_string();
    server.put(key, &value);
    assert_eq!(told(&next(watch).await), [(key.to_owned(), value)]);
}

#[tokio::test(start_paused = true)]
async fn a_member_is_asked_once_at_most_to_defragment() {
    let server = FakeServer::builder().members(3).start();
    let client = server.client();
    client.get("k").await.unwrap();
    server.on_next(Rpc::Other).drop_response();
    let error = client.maintenance().defragment().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(server.received(Rpc::Other), 1);
}

#[tokio::test(start_paused = true)]
async fn one_member_that_refuses_a_user_does_not_end_his_watches() {
    for members in [1, 3] {
        let server = FakeServer::builder().members(members);
        let server = server.user("root", "secret").start();
        let client = user(&server);
        let mut watch = client.watch("k").await.unwrap();
        server.on_next(Rpc::Authenticate).refuse(WRONG_PASSWORD);
        server.expire_tokens();
        server.cut();
        goes_on(&server, &mut watch, "k").await;

        // All of them, again and again: he is not who he says he is.
        server
            .on_next(Rpc::Authenticate)
            .times(1_000)
            .refuse(WRONG_PASSWORD);
        let asked = server.received(Rpc::Authenticate);
        server.expire_tokens();
        server.cut();
        let error = within(watch.next()).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unauthenticated);
        let asked = server.received(Rpc::Authenticate) - asked;
        assert_eq!(asked, members.max(2), "of {members} members");
        let error = client.watch("k").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unauthenticated);
    }
}

/// The call that fetches the token for all may wait for an hour; the others may not.
#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_come_holds_nobody_up() {
    let server = FakeServer::builder().user("root", "secret").start();
    let client = user(&server);
    let hour = Duration::from_hours(1);
    server.on_next(Rpc::Authenticate).delay(hour);
    let began = Instant::now();
    let first = client.put("first", "1").deadline(hour).into_future();
    let first = tokio::spawn(first);
    while server.received(Rpc::Authenticate) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    client
        .put("second", "1")
        .await
        .expect("within its deadline");
    first.await.unwrap().expect("it was tried again");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_denied_to_the_user_breaks_no_other() {
    let server = FakeServer::builder().user("root", "secret").start();
    let client = user(&server);
    server.permit_reads("mine/");
    let mut watch = client.watch("mine/1").await.unwrap();
    let mut states = watch.state_changes();
    for _ in 0..3 {
        server.refuse_watch(DENIED);
        let error = client.watch(KeyRange::prefix("theirs/")).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    goes_on(&server, &mut watch, "mine/1").await;
    assert_eq!(server.received(Rpc::Watch), 1, "one stream for all of it");
    assert_eq!(watch.state(), WatchState::Live);
    tokio::select! {
        biased;
        state = states.next() => panic!("it was {state:?}"),
        () = sleep(Duration::from_secs(1)) => {}
    }
}

#[tokio::test]
async fn events_that_are_too_large_end_the_watch_that_they_are_for_and_no_other() {
    let server = FakeServer::start();
    let client = server.client_builder().response_bytes_max(MIB);
    let client = client.build().unwrap();
    let mut large = client.watch("large").await.unwrap();
    let healed = client.watch("large").on_compacted(OnCompacted::Relist);
    let mut healed = healed.await.unwrap();
    let mut small = client.watch("small").await.unwrap();
    server.put("large", Bytes::from(vec![b'x'; 5 * MIB]));
    for watch in [&mut large, &mut healed] {
        let error = within(watch.next()).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(error.message().contains("5242885 bytes"), "{error}");
        assert!(within(watch.next()).await.is_none());
        assert_eq!(watch.state(), WatchState::Ended);
    }
    goes_on(&server, &mut small, "small").await;
    assert_eq!(server.received(Rpc::Watch), 1, "the stream never broke");
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let built = builder.worker_threads(1).enable_all().build();
    built.expect("a thread can be started")
}

#[test]
fn a_watch_outlives_the_runtime_that_was_the_first_to_use_one() {
    let home = runtime();
    let (server, client) = home.block_on(async {
        let server = FakeServer::builder().members(2).start();
        let client = server.client();
        (server, client)
    });
    let (mut watch, cache) = runtime().block_on(async {
        let watch = client.watch("k").await.unwrap();
        let cache = client.cache("k").await.unwrap();
        client.sync_endpoints().await.unwrap();
        (watch, cache)
    });
    runtime().block_on(async {
        goes_on(&server, &mut watch, "k").await;
        let written = client.put("k", "last").await.unwrap().revision;
        let shown = within(cache.at_least(written)).await.unwrap();
        assert_eq!(shown.get("k").unwrap().value, "last");
        within(client.watch("other")).await.unwrap();
        within(client.close()).await.unwrap();
    });
}

/// Without the runtime that it was made on a client has no connections: it says so, in time.
#[test]
fn a_client_whose_runtime_has_ended_fails_and_does_not_hang() {
    let server_runtime = runtime();
    let server = server_runtime.block_on(async { FakeServer::start() });
    let client = runtime().block_on(async {
        let client = server.client_builder().deadline(Duration::from_secs(1));
        let client = client.build().unwrap();
        client.put("k", "1").await.unwrap();
        client
    });
    runtime().block_on(async {
        within(client.get("k")).await.unwrap_err();
        within(client.watch("k")).await.unwrap_err();
        within(client.cache("k")).await.unwrap_err();
        within(client.close()).await.unwrap();
    });
}
