//! That the server in memory does what its page says.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame, Rpc};
use gonfalon::{Compare, ErrorKind, KeyRange, LeaseStatus, Op, Outcome, Revision};

use super::{PATIENCE, next, told, within};

fn kind(error: &gonfalon::Error) -> (ErrorKind, Outcome) {
    (error.kind().clone(), error.outcome())
}

#[tokio::test]
async fn it_answers_as_a_server_does() {
    let server = FakeServer::start();
    let client = server.client();
    assert_eq!(client.get("a").await.unwrap(), None);
    let first = client.put("a", "1").await.unwrap().revision;
    assert_eq!(first, Revision::new(2), "the empty store is at 1");
    let txn = client
        .txn()
        .when(Compare::value("a").eq("1"))
        .then(Op::put("a", "2"))
        .then(Op::put("b", "2"));
    let second = txn.await.unwrap();
    assert!(second.succeeded);
    assert_eq!(client.range(KeyRange::all()).await.unwrap().kvs.len(), 2);
    let past = client.range("a").at(first).await.unwrap();
    assert_eq!(past.kvs[0].value, "1");

    client.compact(second.revision, false).await.unwrap();
    let error = client.range("a").at(first).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Compacted { .. }));
    let error = client.put("", "x").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(client.cluster().members().await.unwrap().len(), 1);
    let status = client.maintenance().status().await.unwrap();
    assert_eq!(status.revision, second.revision);
}

#[tokio::test]
async fn what_the_test_itself_writes_is_seen_and_not_counted() {
    let server = FakeServer::start();
    let client = server.client();
    let mut watch = client.watch(KeyRange::prefix("k/")).await.unwrap();
    server.txn([Op::put("k/1", "x"), Op::put("k/2", "y")]);
    let revision = server.delete("k/1");
    let wanted = [("k/1", "x"), ("k/2", "y"), ("k/1", "")];
    let mut seen = Vec::new();
    while seen.len() < wanted.len() {
        seen.extend(told(&next(&mut watch).await));
    }
    assert_eq!(seen, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(server.revision(), revision);
    assert_eq!(server.get("k/2").unwrap().value, "y");
    assert_eq!(server.received(Rpc::Txn), 0);
    assert_eq!(server.received(Rpc::Watch), 1);
}

#[tokio::test]
async fn a_lost_request_and_a_lost_answer_look_the_same_to_a_client() {
    let server = FakeServer::start();
    let client = server.client();
    let unknown = |error: &gonfalon::Error| error.outcome() == Outcome::Unknown;

    server.on_next(Rpc::Put).drop_request();
    assert!(unknown(&client.put("k", "1").await.unwrap_err()));
    assert_eq!(server.get("k"), None);

    server.on_next(Rpc::Put).drop_response();
    assert!(unknown(&client.put("k", "2").await.unwrap_err()));
    assert_eq!(server.get("k").unwrap().value, "2");

    // A read is sent again.
    server.on_next(Rpc::Range).times(2).drop_response();
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "2");
    assert_eq!(
        (server.received(Rpc::Put), server.received(Rpc::Range)),
        (2, 3)
    );
}

#[tokio::test]
async fn it_refuses_in_any_words() {
    let server = FakeServer::start();
    let client = server.client();
    server
        .on_next(Rpc::Put)
        .refuse("etcdserver: mvcc: database space exceeded");
    let error = client.put("k", "1").await.unwrap_err();
    assert_eq!(
        kind(&error),
        (ErrorKind::QuotaExceeded, Outcome::NotApplied)
    );
    server
        .on_next(Rpc::Put)
        .refuse("etcdserver: request timed out");
    let error = client.put("k", "1").await.unwrap_err();
    assert_eq!(kind(&error), (ErrorKind::Timeout, Outcome::Unknown));
    server.on_next(Rpc::Put).refuse("what nobody has ever said");
    let error = client.put("k", "1").await.unwrap_err();
    assert_eq!(kind(&error), (ErrorKind::Unavailable, Outcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_call_can_be_late() {
    let server = FakeServer::start();
    let client = server
        .client_builder()
        .deadline(Duration::from_secs(2))
        .build()
        .unwrap();
    server.on_next(Rpc::Put).delay(Duration::from_secs(1));
    client.put("k", "1").await.unwrap();
    server.on_next(Rpc::Put).delay(Duration::from_secs(3));
    let error = client.put("k", "2").await.unwrap_err();
    assert_eq!(kind(&error), (ErrorKind::Timeout, Outcome::Unknown));
}

#[tokio::test]
async fn leases_end_when_the_test_says_so() {
    let server = FakeServer::start();
    let client = server.client();
    let lease = client.grant(Duration::from_mins(1)).await.unwrap();
    client.put("mine", "x").lease(&lease).await.unwrap();
    let other = client.grant(Duration::from_secs(30)).await.unwrap();
    assert_eq!(server.leases().len(), 2);
    let sent = server.sent(Frame::Renewal);
    while server.sent(Frame::Renewal) < sent + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.advance(Duration::from_secs(29));
    assert_eq!(server.leases().len(), 2);
    assert!(server.expire(lease.id()));
    assert!(!server.expire(lease.id()), "it is gone");
    assert_eq!(server.get("mine"), None);
    server.advance(Duration::from_secs(1));
    assert_eq!(server.leases(), []);
    drop(other);
}

#[tokio::test]
async fn the_client_keeps_its_lease_through_a_cut_of_the_renewals() {
    let server = FakeServer::builder().members(2).start();
    let client = server.client();
    server.cut_after(Frame::Renewal, 1);
    let lease = client.grant(Duration::from_secs(3)).await.unwrap();
    while server.sent(Frame::Renewal) < 3 {
        server.advance(Duration::from_millis(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(lease.status(), LeaseStatus::Held));
    assert!(server.received(Rpc::LeaseKeepAlive) >= 2, "it was cut");
}

#[tokio::test]
async fn a_member_that_lags_shows_what_was() {
    let server = FakeServer::builder().members(2).start();
    let behind = server.member(1).client();
    server.put("k", "1");
    server.member(1).lag(2);
    for value in ["2", "3", "4"] {
        server.put("k", value);
    }
    let seen = async |serializable: bool| {
        let range = behind.range("k");
        let range = if serializable {
            range.serializable()
        } else {
            range
        };
        range.await.unwrap().kvs[0].value.clone()
    };
    assert_eq!(seen(true).await, "2");
    assert_eq!(seen(false).await, "4");
    server.member(1).lag(0);
    assert_eq!(seen(true).await, "4");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_or_paused_member_is_left_for_another() {
    let server = FakeServer::builder().members(2).start();
    let client = server.client();
    server.member(0).stop();
    for _ in 0..4 {
        client.put("k", "1").await.unwrap();
    }
    server.member(0).start();
    server.member(1).pause();
    let mut watch = within(client.watch("k").deadline(PATIENCE)).await.unwrap();
    within(client.get("k").deadline(PATIENCE)).await.unwrap();
    server.member(1).resume();
    let mut on_it = within(server.member(1).client().watch("k")).await.unwrap();
    server.put("k", "2");
    for watch in [&mut watch, &mut on_it] {
        assert_eq!(told(&next(watch).await), [("k".into(), "2".into())]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_it_refuses_and_ends_streams() {
    let server = FakeServer::start();
    let client = server
        .client_builder()
        .deadline(Duration::from_secs(1))
        .build()
        .unwrap();
    let mut watch = client.watch("k").await.unwrap();
    server.lose_leader();
    let error = client.put("k", "1").await.unwrap_err();
    assert_eq!(kind(&error), (ErrorKind::NoLeader, Outcome::NotApplied));
    server.elect_leader();
    server.put("k", "2");
    assert_eq!(told(&next(&mut watch).await), [("k".into(), "2".into())]);
}

#[tokio::test]
async fn users_have_tokens_that_can_expire() {
    let server = FakeServer::builder().user("root", "secret").start();
    let error = server.client().put("k", "1").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unauthenticated);
    let wrong = server
        .client_builder()
        .user("root", "guess")
        .build()
        .unwrap();
    let error = wrong.put("k", "1").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unauthenticated);
    let client = server
        .client_builder()
        .user("root", "secret")
        .build()
        .unwrap();
    client.put("k", "1").await.unwrap();
    server.expire_tokens();
    client.put("k", "2").await.unwrap();
    assert_eq!(server.received(Rpc::Authenticate), 3);
}

#[tokio::test]
async fn a_restored_store_is_what_it_was() {
    let server = FakeServer::start();
    let client = server.client();
    client.put("k", "1").await.unwrap();
    let backup = server.revision();
    client.put("k", "2").await.unwrap();
    server.restore(backup);
    assert_eq!(server.revision(), backup);
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "1");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_is_gone() {
    let server = FakeServer::start();
    let client = server
        .client_builder()
        .deadline(Duration::from_millis(300))
        .build()
        .unwrap();
    client.put("k", "1").await.unwrap();
    drop(server);
    let error = client.put("k", "2").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
}
