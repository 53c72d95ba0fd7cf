//! Leases while streams break, and what handles say of them.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Frame, Rpc};
use gonfalon::{ErrorKind, LostReason};
use tokio::time::Instant;

use super::within;

const TTL: Duration = Duration::from_mins(1);

async fn until(check: impl Fn() -> bool) {
    let checked = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(checked).await;
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
