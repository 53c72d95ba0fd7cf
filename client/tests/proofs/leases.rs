//! Leases while streams break, and what handles say of them.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame, Rpc};
use gonfalon::{Client, ErrorKind, LeaseId, LostReason};
use tokio::time::Instant;

use super::{until, within};

const TTL: Duration = Duration::from_mins(1);
/// The least that the server in memory grants.
const SHORT: Duration = Duration::from_secs(2);

/// Returns when all that handles have left to do is done.
async fn all_orders_are_carried_out(client: &Client, server: &FakeServer) {
    let last = within(client.grant(TTL)).await;
    let id = last.expect("nothing is in its way").id();
    until(|| !server.leases().contains(&id)).await;
}

#[tokio::test]
async fn failures_that_are_over_do_not_delay_the_next_attempt() {
    let server = FakeServer::builder().members(2).start();
    let client = server.client();
    let lease = within(client.grant(TTL)).await.unwrap();
    let renewed = || server.sent(Frame::Renewal);
    until(|| renewed() > 0).await;
    // The pause after so many failures in a row would be random, up to 12.8 s.
    for _ in 0..9 {
        let before = renewed();
        // So long did the stream work.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let began = Instant::now();
        server.cut();
        until(|| renewed() > before).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    assert!(lease.is_held() && server.received(Rpc::LeaseKeepAlive) >= 10);
}

#[tokio::test]
async fn a_look_at_what_was_held_tells_the_lease_s_own_reason() {
    let server = FakeServer::start();
    let client = server.client();
    let lease = within(client.grant(TTL)).await.unwrap();
    let lock = client.lock("l").lease(&lease);
    let guard = within(lock.acquire()).await.unwrap();
    lease.detach();
    // Before any task has run.
    assert!(!guard.is_held());
    assert_eq!(within(guard.lost()).await, LostReason::Detached);
}

#[tokio::test]
async fn a_lease_that_is_too_long_is_refused() {
    let server = FakeServer::start();
    let client = server.client();
    let refused = within(client.grant(Duration::MAX)).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert_eq!(server.received(Rpc::LeaseGrant), 0);
}

#[tokio::test]
async fn a_lease_that_is_adopted_where_it_is_kept_is_one_lease() {
    let server = FakeServer::start();
    let client = server.client();
    let first = within(client.grant(TTL)).await.unwrap();
    let second = within(client.namespace("n/").adopt(first.id())).await;
    let second = second.unwrap();
    assert!(server.expire(first.id()));
    let (one, two) = within(futures::future::join(first.lost(), second.lost())).await;
    assert_eq!((one, two), (LostReason::Gone, LostReason::Gone));

    let first = within(client.grant(TTL)).await.unwrap();
    let id = first.id();
    let second = within(client.adopt(id)).await.unwrap();
    drop(first);
    all_orders_are_carried_out(&client, &server).await;
    assert!(second.is_held());
    assert_eq!(server.leases(), [id], "there is another handle");
    drop(second);
    until(|| server.leases().is_empty()).await;

    let id = within(client.grant(TTL)).await.unwrap().detach();
    let both = futures::future::join(client.adopt(id), client.adopt(id));
    let (first, second) = within(both).await;
    let (first, second) = (first.unwrap(), second.unwrap());
    first.detach();
    assert_eq!(within(second.lost()).await, LostReason::Detached);
    drop(second);
    all_orders_are_carried_out(&client, &server).await;
    assert_eq!(server.leases(), [id]);
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_and_nothing_changes_for_who_has_it() {
    let server = FakeServer::start();
    let client = server.client();
    let id = LeaseId::new(7);
    let first = within(client.grant(SHORT).id(id)).await.unwrap();
    let refused = within(client.grant(SHORT).id(id)).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::LeaseExists, "{refused}");
    // Longer than it was granted for.
    tokio::time::sleep(2 * SHORT).await;
    assert!(first.is_held());
    assert_eq!(server.leases(), [id]);
    // One that somebody ended, and that is granted anew, is another lease.
    assert!(server.expire(id));
    let second = within(client.grant(SHORT).id(id)).await.unwrap();
    assert_eq!(within(first.lost()).await, LostReason::Gone);
    drop(first);
    all_orders_are_carried_out(&client, &server).await;
    assert!(second.is_held());
    assert_eq!(server.leases(), [id]);
    drop(second);
    until(|| server.leases().is_empty()).await;
}

/// The server in memory ends no lease by itself: what is lost here is there yet.
#[tokio::test]
async fn whoever_has_lost_a_lease_ends_nothing_of_those_who_keep_it_now() {
    let server = FakeServer::start();
    let client = server.client();
    let sick = within(client.grant(SHORT).health(|| false)).await.unwrap();
    let others = [sick.clone(), sick.clone()];
    assert_eq!(within(sick.lost()).await, LostReason::NotRenewed);
    let adopted = within(client.adopt(sick.id())).await.unwrap();
    drop(sick);
    for other in others {
        other.detach();
    }
    all_orders_are_carried_out(&client, &server).await;
    assert_eq!(server.leases(), [adopted.id()]);
    // It is renewed, without the other's hook.
    tokio::time::sleep(2 * SHORT).await;
    assert!(adopted.is_held());
    assert!(server.expire(adopted.id()));
    assert_eq!(within(adopted.lost()).await, LostReason::Gone);
}

#[tokio::test]
async fn a_key_that_must_not_be_deleted_is_tried_once() {
    let server = FakeServer::start();
    let backoff = Duration::from_millis(1);
    let client = server.client_builder().backoff(backoff, backoff);
    let client = client.build().unwrap();
    let lease = within(client.grant(TTL)).await.unwrap();
    let lock = client.lock("l").lease(&lease);
    let _guard = within(lock.acquire()).await.unwrap();
    let created = server.sent(Frame::Created);
    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    until(|| server.sent(Frame::Created) >= created + 2).await;
    let refused = "etcdserver: permission denied";
    server.on_next(Rpc::Txn).times(10_000).refuse(refused);
    let before = server.received(Rpc::Txn);
    waiting.abort();
    until(|| server.received(Rpc::Txn) > before).await;
    // Whatever was going on goes on until its budget is used up.
    let _ = within(client.close_within(Duration::from_secs(1))).await;
    assert_eq!(server.received(Rpc::Txn), before + 1);
}
