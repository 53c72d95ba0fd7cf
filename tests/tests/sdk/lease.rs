//! Leases: kept while their handles live, lost in time, gone with the last handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
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

/// A lease that outlives a connection which hangs has been renewed on another one: the keep-alive of
/// the connection notices nothing for 15 s.
#[tokio::test]
async fn a_connection_that_hangs_loses_no_lease() {
    each_server(async |cluster, direct| {
        let (relay, client) = relayed(cluster).await;
        let lease = client.grant(TTL).await.unwrap();
        client.put("h", "1").lease(&lease).await.unwrap();
        let end = Instant::now() + 3 * TTL;
        while Instant::now() < end {
            relay.hang();
            tokio::time::sleep(TTL / 2).await;
            assert!(lease.is_held(), "{lease:?}");
        }
        assert!(direct.get("h").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn an_application_whose_health_check_panics_is_not_well_and_harms_no_other_lease() {
    each_server(async |_, client| {
        let sick = client.grant(TTL).health(|| panic!("on purpose")).await;
        let (sick, well) = (sick.unwrap(), client.grant(TTL).await.unwrap());
        assert_eq!(within(sick.lost()).await, LostReason::NotRenewed);
        tokio::time::sleep(TTL).await;
        assert!(well.is_held());
    })
    .await;
}

#[tokio::test]
async fn a_detached_lease_lives_on_until_its_time_is_up_unless_somebody_adopts_it() {
    each_server(async |_, client| {
        let (one, two) = (
            client.grant(TTL).await.unwrap(),
            client.grant(TTL).await.unwrap(),
        );
        client.put("d/1", "1").lease(&one).await.unwrap();
        client.put("d/2", "2").lease(&two).await.unwrap();
        let clone = one.clone();
        let (one, two) = (one.detach(), two.detach());
        assert_eq!(clone.status(), LeaseStatus::Lost(LostReason::Detached));
        drop(clone);
        let adopted = client.adopt(one).await.unwrap();
        assert!(adopted.is_held() && adopted.id() == one);
        until("the other ends", async || {
            client.get("d/2").await.unwrap().is_none()
        })
        .await;
        assert!(client.lease_info(two, false).await.is_err());
        assert!(adopted.is_held());
        assert!(client.get("d/1").await.unwrap().is_some());
        drop(adopted);
        until("it is revoked", async || {
            client.get("d/1").await.unwrap().is_none()
        })
        .await;
        let error = client.adopt(one).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::LeaseNotFound);
    })
    .await;
}

/// All on one stream, each renewed several times in the time that it was granted for.
#[tokio::test]
async fn ten_thousand_leases_are_kept_at_once() {
    const LEASES: usize = 10_000;
    const TTL: Duration = Duration::from_secs(10);
    each_server(async |cluster, observer| {
        let (relay, client) = relayed(cluster).await;
        let began = Instant::now();
        let grants = futures::stream::iter((0..LEASES).map(|_| client.grant(TTL).into_future()));
        let leases: Vec<_> = grants.buffer_unordered(128).collect().await;
        let leases: Vec<gonfalon::Lease> = leases.into_iter().map(Result::unwrap).collect();
        eprintln!("granted after {:?}", began.elapsed());
        assert_eq!(
            relay.connections(),
            2,
            "one for calls, one for all renewals"
        );
        let (used, end) = (keeper_cpu(), Instant::now() + 2 * TTL);
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let lost = leases.iter().filter(|lease| !lease.is_held()).count();
            assert_eq!(lost, 0, "of {LEASES}");
        }
        eprintln!(
            "renewals of {:?}: {:?} of processor time",
            2 * TTL,
            keeper_cpu().saturating_sub(used)
        );
        assert_eq!(observer.leases().await.unwrap().len(), LEASES);
        drop(leases);
        client.close_within(PATIENCE).await.unwrap();
        assert_eq!(observer.leases().await.unwrap(), []);
    })
    .await;
}

/// What every thread that renews leases in this process has used so far.
fn keeper_cpu() -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("Linux") {
        // A thread that ends meanwhile has no file any more.
        let Ok(stat) = std::fs::read_to_string(task.expect("an entry").path().join("stat")) else {
            continue;
        };
        // The kernel keeps 15 bytes of a name.
        if let Some((_, fields)) = stat.split_once("(gonfalon-leases) ") {
            let fields: Vec<&str> = fields.split(' ').collect();
            let time = |at: usize| fields[at].parse::<u64>().expect("a number");
            ticks += time(11) + time(12);
        }
    }
    // Linux counts in hundredths for everybody who asks.
    Duration::from_millis(10 * ticks)
}
