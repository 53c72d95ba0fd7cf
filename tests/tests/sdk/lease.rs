//! Leases: kept while their handles live, lost in time, gone with the last handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gonfalon::{ErrorKind, LeaseId, LeaseStatus, LostReason};

use super::{PATIENCE, each_server, relayed, within};

const TTL: Duration = Duration::from_secs(3);

async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !check().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_lease_is_kept_while_a_handle_lives_and_revoked_with_the_last() {
    each_server(async |_, client| {
        let lease = client.grant(TTL).await.unwrap();
        assert!(lease.ttl() >= TTL);
        client.put("l", "1").lease(&lease).await.unwrap();
        let clone = lease.clone();
        drop(lease);
        // Longer than it was granted for.
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        assert!(clone.is_held());
        let info = client.lease_info(clone.id(), true).await.unwrap();
        assert_eq!(info.keys, ["l"]);
        assert!(client.leases().await.unwrap().contains(&clone.id()));
        drop(clone);
        until("the key goes with the last handle", async || {
            client.get("l").await.unwrap().is_none()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_somebody_else_ends_is_lost() {
    each_server(async |_, client| {
        let lease = client.grant(TTL).id(LeaseId::new(7)).await.unwrap();
        let taken = client.grant(TTL).id(LeaseId::new(7)).await.unwrap_err();
        assert_eq!(*taken.kind(), ErrorKind::LeaseExists);
        let token = lease.token();
        client.revoke(LeaseId::new(7)).await.unwrap();
        client.revoke(LeaseId::new(7)).await.unwrap();
        assert_eq!(within(lease.lost()).await, LostReason::Gone);
        assert!(token.is_cancelled() && !lease.is_held());
        assert_eq!(lease.remaining(), Duration::ZERO);
        let error = lease.renew_now().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::LeaseNotFound);
        let error = client.lease_info(LeaseId::new(7), false).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::LeaseNotFound);
    })
    .await;
}

/// The holder must have given up before the server has: the key is still there when it does.
#[tokio::test]
async fn a_lease_that_cannot_be_renewed_is_given_up_before_the_server_ends_it() {
    each_server(async |cluster, direct| {
        let (relay, client) = relayed(cluster).await;
        let lease = client.grant(TTL).await.unwrap();
        client.put("g", "1").lease(&lease).await.unwrap();
        relay.refuse(true);
        assert_eq!(within(lease.lost()).await, LostReason::NotRenewed);
        assert!(direct.get("g").await.unwrap().is_some(), "not yet ended");
        until("the server ends it", async || {
            direct.get("g").await.unwrap().is_none()
        })
        .await;
        // Nothing brings it back.
        relay.refuse(false);
        let status = lease.status();
        assert_eq!(status, LeaseStatus::Lost(LostReason::NotRenewed));
    })
    .await;
}

#[tokio::test]
async fn a_cut_connection_loses_no_lease() {
    each_server(async |cluster, _| {
        let (relay, client) = relayed(cluster).await;
        let lease = client.grant(TTL).await.unwrap();
        let end = Instant::now() + 2 * TTL;
        while Instant::now() < end {
            relay.cut();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(lease.is_held());
        }
    })
    .await;
}

#[tokio::test]
async fn an_application_that_is_not_well_loses_its_lease() {
    each_server(async |_, client| {
        let is_well = Arc::new(AtomicBool::new(true));
        let word = is_well.clone();
        let lease = client
            .grant(TTL)
            .health(move || word.load(Ordering::Relaxed))
            .await
            .unwrap();
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        assert!(lease.is_held());
        is_well.store(false, Ordering::Relaxed);
        assert_eq!(within(lease.lost()).await, LostReason::NotRenewed);
    })
    .await;
}

/// The runtime of this test has one thread, and it is blocked for longer than the lease.
#[tokio::test]
async fn an_application_that_blocks_its_runtime_loses_no_lease() {
    each_server(async |_, client| {
        let lease = client.grant(TTL).await.unwrap();
        client.put("b", "1").lease(&lease).await.unwrap();
        std::thread::sleep(2 * TTL);
        assert!(lease.is_held());
        assert!(client.get("b").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn revoking_ends_a_lease_for_every_clone() {
    each_server(async |_, client| {
        let lease = client.grant(TTL).await.unwrap();
        let clone = lease.clone();
        client.put("r", "1").lease(&clone).await.unwrap();
        lease.revoke().await.unwrap();
        assert_eq!(clone.status(), LeaseStatus::Lost(LostReason::Revoked));
        assert!(client.get("r").await.unwrap().is_none());
    })
    .await;
}
