//! The end of a client: what it held is given up, and nothing of it stays at work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gonfalon::{Client, ConnectionState, ErrorKind, KeyRange, LostReason, Outcome};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::relay::Relay;

use super::{client, each_server, relayed, within};

const TTL: Duration = Duration::from_mins(5);

#[tokio::test]
async fn closing_revokes_every_lease_and_with_it_locks_and_leaderships() {
    each_server(async |cluster, observer| {
        let client = client(cluster);
        let lease = client.grant(TTL).await.unwrap();
        client.put("c/lease", "1").lease(&lease).await.unwrap();
        let lock = client.lock("c/lock").ttl(TTL).acquire().await.unwrap();
        let election = client.election("c/election").lease(&lease);
        let leader = election.campaign("me").await.unwrap();
        // One that waits behind the leader, and is given up just before the end.
        let second = client.election("c/election").lease(&lease);
        let waiting = tokio::time::timeout(Duration::from_millis(300), second.campaign("too"));
        assert!(waiting.await.is_err(), "one leads already");
        let detached = client.grant(TTL).await.unwrap();
        client
            .put("c/detached", "1")
            .lease(&detached)
            .await
            .unwrap();
        let detached = detached.detach();

        client.close().await.unwrap();
        // Not soon: now.
        let left = observer.range(KeyRange::prefix("c/")).await.unwrap();
        let keys: Vec<_> = left.kvs.iter().filter_map(|kv| kv.key_str()).collect();
        assert_eq!(keys, ["c/detached"]);
        assert_eq!(observer.leases().await.unwrap(), [detached]);
        assert_eq!(lease.lost().await, LostReason::Closed);
        assert!(!lock.is_held() && !leader.is_held());
        assert_eq!(within(lock.lost()).await, LostReason::Closed);
    })
    .await;
}

#[tokio::test]
async fn a_closed_client_fails_every_call_with_closed_and_closes_again() {
    each_server(async |cluster, _| {
        let client = client(cluster);
        let mut watch = client.watch("k").await.unwrap();
        let cache = client.cache(KeyRange::prefix("k")).await.unwrap();
        let clone = client.namespace("n/");
        let (one, two) = tokio::join!(client.close(), clone.close());
        one.unwrap();
        two.unwrap();
        client.close().await.unwrap();
        assert_eq!(*client.state().borrow(), ConnectionState::Closed);
        let closed = |kind: Option<ErrorKind>| assert_eq!(kind, Some(ErrorKind::Closed));
        closed(clone.get("k").await.err().map(|e| e.kind().clone()));
        let put = client.put("k", "1").await.unwrap_err();
        assert_eq!(put.outcome(), Outcome::NotApplied, "it was never sent");
        closed(Some(put.kind().clone()));
        closed(client.txn().await.err().map(|e| e.kind().clone()));
        closed(client.grant(TTL).await.err().map(|e| e.kind().clone()));
        closed(client.watch("k").await.err().map(|e| e.kind().clone()));
        closed(
            client
                .lock("l")
                .acquire()
                .await
                .err()
                .map(|e| e.kind().clone()),
        );
        let range = KeyRange::prefix("k");
        closed(client.cache(range).await.err().map(|e| e.kind().clone()));
        let status = client.maintenance().status().await;
        closed(status.err().map(|e| e.kind().clone()));
        closed(
            client
                .sync_endpoints()
                .await
                .err()
                .map(|e| e.kind().clone()),
        );
        let last = within(watch.next()).await.expect("its end");
        closed(last.err().map(|e| e.kind().clone()));
        assert!(cache.status().is_closed);
    })
    .await;
}

/// The server is stopped with the write on its way: nobody can know, and closing must not say that
/// it did not happen.
#[tokio::test]
async fn a_write_that_closing_cuts_off_is_unknown() {
    let mut cluster = Cluster::start(Server::Gonfalon, 1).await.unwrap();
    let client = client(&cluster);
    client.put("k", "0").await.unwrap();
    cluster.pause(0).unwrap();
    let put = client.put("k", "1").into_future();
    let closing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.close().await.unwrap();
    };
    let (put, ()) = tokio::join!(put, closing);
    let error = put.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Closed);
    assert_eq!(error.outcome(), Outcome::Unknown);
    cluster.resume(0).unwrap();
}

#[tokio::test]
async fn closing_takes_no_longer_than_its_budget_when_no_server_answers() {
    each_server(async |cluster, observer| {
        let (relay, client) = relayed(cluster).await;
        let lease = client.grant(Duration::from_secs(5)).await.unwrap();
        client.put("b", "1").lease(&lease).await.unwrap();
        relay.refuse(true);
        let began = Instant::now();
        let error = client.close_within(Duration::from_millis(500)).await;
        let error = error.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout, "{error}");
        assert!(began.elapsed() < Duration::from_secs(4), "{error:?}");
        assert_eq!(lease.lost().await, LostReason::Closed);
        assert!(
            observer.get("b").await.unwrap().is_some(),
            "nobody could tell"
        );
    })
    .await;
}

/// Without a word: the last handle is dropped, and nobody waits.
#[tokio::test]
async fn dropping_the_last_handle_ends_leases_without_blocking() {
    each_server(async |cluster, observer| {
        let client = client(cluster);
        let lease = client.grant(TTL).await.unwrap();
        client.put("d", "1").lease(&lease).await.unwrap();
        let lease = Arc::new(lease);
        let began = Instant::now();
        drop((client, lease));
        assert!(began.elapsed() < Duration::from_millis(100));
        let gone = async {
            while observer.get("d").await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(gone).await;
        assert_eq!(observer.leases().await.unwrap(), []);
    })
    .await;
}

/// The handle lives on; its connections do not.
#[tokio::test]
async fn a_closed_client_holds_no_connection() {
    each_server(async |cluster, _| {
        let relay = Relay::to(cluster.member(0).client_port()).await.unwrap();
        let client = Client::connect(relay.endpoint()).await.unwrap();
        let _lease = client.grant(TTL).await.unwrap();
        let _watch = client.watch("k").await.unwrap();
        let until = async |check: fn(u64) -> bool| {
            while !check(relay.connections()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // For calls, for watches, for leases; the last comes about on another thread.
        within(until(|connections| connections == 3)).await;
        client.close().await.unwrap();
        within(until(|connections| connections == 0)).await;
    })
    .await;
}
