//! What passes ends neither a wait nor a candidate; what does not pass ends both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame, OnNext, Rpc};
use gonfalon::{Client, Error, ErrorKind, LostReason};

use super::recipes::WAITS;
use super::{until, within};

const NO_LEADER: &str = "etcdserver: no leader";
/// More than a client repeats by itself.
const MANY: usize = 40;

/// A client that does not wait long, neither between attempts nor for an answer.
fn client(server: &FakeServer, deadline: Duration) -> Client {
    let backoff = (Duration::from_millis(1), Duration::from_millis(5));
    let builder = server.client_builder().backoff(backoff.0, backoff.1);
    let builder = builder.deadline(deadline);
    builder.build().expect("nothing is wrong with these")
}

/// The event arrives, and the look that must follow is refused more often than calls are repeated.
#[tokio::test]
async fn a_wait_goes_on_while_nobody_can_say_whose_turn_it_is() {
    for wait in WAITS {
        let server = FakeServer::start();
        let client = client(&server, Duration::from_secs(5));
        let lease = within(client.grant(Duration::from_mins(1))).await.unwrap();
        (wait.block)(&server);
        let waiting = tokio::spawn((wait.begin)(client.clone(), lease.clone()));
        until(|| server.sent(Frame::Created) >= 2).await;
        server.on_next(Rpc::Txn).times(MANY).refuse(NO_LEADER);
        let before = server.received(Rpc::Txn);
        (wait.make_way)(&server);
        let held = within(waiting).await.expect("it does not panic");
        held.unwrap_or_else(|error| panic!("{}: {error}", wait.name));
        let refused = server.received(Rpc::Txn) - before;
        assert!(refused > MANY, "{}: {refused} transactions", wait.name);
    }
}

/// It has its place, and then no member reports changes for longer than a call may take.
#[tokio::test]
async fn a_wait_goes_on_while_no_member_watches_for_it() {
    for wait in WAITS {
        let server = FakeServer::start();
        let client = client(&server, Duration::from_millis(300));
        let lease = within(client.grant(Duration::from_mins(1))).await.unwrap();
        (wait.block)(&server);
        let streams = 10 * MANY;
        server.on_next(Rpc::Watch).times(streams).refuse(NO_LEADER);
        let waiting = tokio::spawn((wait.begin)(client.clone(), lease.clone()));
        until(|| server.received(Rpc::Watch) > streams).await;
        (wait.make_way)(&server);
        let held = within(waiting).await.expect("it does not panic");
        held.unwrap_or_else(|error| panic!("{}: {error}", wait.name));
    }
}

#[tokio::test]
async fn a_wait_ends_when_its_lease_does_although_nobody_answers() {
    let server = FakeServer::start();
    let client = client(&server, Duration::from_secs(5));
    let lease = within(client.grant(Duration::from_mins(1))).await.unwrap();
    server.put("n/0", "");
    let lock = client.lock("n").lease(&lease);
    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    until(|| server.sent(Frame::Created) >= 2).await;
    server.on_next(Rpc::Txn).times(1_000_000).refuse(NO_LEADER);
    let before = server.received(Rpc::Txn);
    server.delete("n/0");
    until(|| server.received(Rpc::Txn) > before + MANY).await;
    assert!(!waiting.is_finished());
    lease.detach();
    let error = within(waiting).await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Lost, "{error}");
}

#[tokio::test]
async fn a_wait_ends_at_what_does_not_pass() {
    let server = FakeServer::start();
    let client = client(&server, Duration::from_secs(5));
    server.put("n/0", "");
    let lock = client.lock("n");
    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    until(|| server.sent(Frame::Created) >= 2).await;
    let denied = "etcdserver: permission denied";
    server.on_next(Rpc::Txn).refuse(denied);
    server.delete("n/0");
    let error = within(waiting).await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
}

#[tokio::test]
async fn a_candidate_goes_on_whatever_passes() {
    type Fault = fn(OnNext<'_>);
    let faults: [(&str, Fault); 3] = [
        ("no leader", |next| next.refuse(NO_LEADER)),
        ("requests are lost", |next| next.drop_request()),
        ("answers are lost", |next| next.drop_response()),
    ];
    for (what, fault) in faults {
        for rpc in [Rpc::LeaseGrant, Rpc::Txn] {
            let server = FakeServer::start();
            let client = client(&server, Duration::from_secs(5));
            fault(server.on_next(rpc).times(MANY));
            let election = client.election("e");
            let led = within(election.run("me", |_| async { "led" })).await;
            let led = led.unwrap_or_else(|error| panic!("{what}, {rpc:?}: {error}"));
            assert_eq!(led, "led");
            assert!(server.received(rpc) > MANY, "{what}, {rpc:?}");
        }
    }
}

#[tokio::test]
async fn a_leader_without_a_cluster_campaigns_until_there_is_one_again() {
    let server = Arc::new(FakeServer::start());
    let client = client(&server, Duration::from_millis(50));
    let election = client.election("e").ttl(Duration::from_secs(2));
    let times = Arc::new(AtomicU32::new(0));
    let (office, cluster) = (times.clone(), server.clone());
    let running = tokio::spawn(async move {
        let lead = |context: gonfalon::LeaderContext| {
            let (time, cluster) = (office.fetch_add(1, Ordering::SeqCst), cluster.clone());
            async move {
                if time == 0 {
                    cluster.lose_leader();
                    context.token().cancelled().await;
                }
                time
            }
        };
        election.run("me", lead).await
    });
    until(|| times.load(Ordering::SeqCst) == 1).await;
    let before = server.received(Rpc::LeaseGrant);
    until(|| server.received(Rpc::LeaseGrant) > before + MANY).await;
    assert!(!running.is_finished());
    // The lease of its first time could not be revoked, and its time is up now.
    for lease in server.leases() {
        server.expire(lease);
    }
    server.elect_leader();
    assert_eq!(within(running).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_candidate_ends_at_what_does_not_pass() {
    async fn ends(client: &Client) -> Error {
        let election = client.election("e");
        let ended = within(election.run("me", |_| async {})).await;
        ended.expect_err("it does not lead")
    }
    let server = FakeServer::start();
    let client = client(&server, Duration::from_secs(5));
    for (text, kind) in [
        ("etcdserver: permission denied", ErrorKind::PermissionDenied),
        (
            "etcdserver: duplicate key given in txn request",
            ErrorKind::InvalidArgument,
        ),
        (
            "etcdserver: mvcc: database space exceeded",
            ErrorKind::QuotaExceeded,
        ),
    ] {
        server.on_next(Rpc::Txn).refuse(text);
        let error = ends(&client).await;
        assert_eq!(*error.kind(), kind, "{error}");
    }
    // With a lease of its own it goes on after a loss; with the caller's it cannot.
    let lease = within(client.grant(Duration::from_mins(1))).await.unwrap();
    let election = client.election("e").lease(&lease);
    server.on_next(Rpc::Txn).times(1_000_000).refuse(NO_LEADER);
    let running = tokio::spawn(async move { election.run("me", |_| async {}).await });
    until(|| server.received(Rpc::Txn) > MANY).await;
    assert!(!running.is_finished());
    lease.detach();
    let error = within(running).await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Lost, "{error}");
    assert!(
        error.to_string().contains(LostReason::Detached.text()),
        "{error}"
    );
    let closed = server.client();
    closed.close().await.unwrap();
    assert_eq!(*ends(&closed).await.kind(), ErrorKind::Closed);
}
