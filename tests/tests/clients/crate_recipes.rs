//! `etcd-client`: leases, locks, elections.

use std::time::{Duration, Instant};

use etcd_client::{
    Client, GetOptions, LeaseTimeToLiveOptions, LockOptions, ProclaimOptions, PutOptions,
    ResignOptions,
};

use super::{PATIENCE, cluster, connect, connect_to};

async fn is_there(client: &mut Client, key: &str) -> bool {
    let options = GetOptions::new().with_count_only();
    let found = client.get(key, Some(options)).await.expect("a get");
    found.count() == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lives_as_long_as_it_is_renewed() {
    // Renewed at followers, too: only the leader keeps the time.
    let cluster = cluster(3).await;
    let leader = cluster.leader().await.expect("a leader");
    let mut client = connect_to(&cluster, (leader + 1) % 3).await;
    let lease = client.lease_grant(2, None).await.expect("a lease").id();
    let options = PutOptions::new().with_lease(lease);
    client
        .put("leased", "v", Some(options))
        .await
        .expect("a put");
    let (mut keeper, mut renewals) = client.lease_keep_alive(lease).await.expect("a stream");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        keeper.keep_alive().await.expect("it can be renewed");
        let renewed = renewals.message().await.expect("an answer").expect("one");
        assert_eq!(renewed.ttl(), 2);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(is_there(&mut client, "leased").await);
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let lives = client.lease_time_to_live(lease, Some(options)).await;
    let lives = lives.expect("an answer");
    assert_eq!(
        (lives.granted_ttl(), lives.keys()),
        (2, &[b"leased".to_vec()][..])
    );
    assert_eq!(client.leases().await.expect("a list").leases().len(), 1);

    drop((keeper, renewals));
    let start = Instant::now();
    while is_there(&mut client, "leased").await {
        assert!(start.elapsed() < PATIENCE, "it does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = client
        .lease_time_to_live(lease, None)
        .await
        .expect("an answer");
    assert_eq!(gone.ttl(), -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_by_one_and_passes_to_the_next() {
    let cluster = cluster(1).await;
    let mut first = connect(&cluster).await;
    let mut second = connect(&cluster).await;
    let held = first.lock("mutex", None).await.expect("the lock");
    let lease = second.lease_grant(60, None).await.expect("a lease").id();
    let options = LockOptions::new().with_lease(lease);
    let waiting = tokio::spawn(async move {
        let held = second.lock("mutex", Some(options)).await.expect("the lock");
        (second, held)
    });
    // The one who waits has a key behind the holder's.
    let options = || Some(GetOptions::new().with_prefix().with_count_only());
    while first.get("mutex/", options()).await.expect("a get").count() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!waiting.is_finished());
    first.unlock(held.key()).await.expect("it is given up");
    let (mut second, held) = tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(held.key().starts_with(b"mutex/"));
    // The end of its lease is the end of its lock.
    second.lease_revoke(lease).await.expect("revoked");
    let again = tokio::time::timeout(PATIENCE, first.lock("mutex", None)).await;
    again.expect("in time").expect("the lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_has_one_leader_whom_observers_see() {
    let cluster = cluster(3).await;
    let mut alice = connect_to(&cluster, 0).await;
    let mut bob = connect_to(&cluster, 1).await;
    let mut observer = connect_to(&cluster, 2).await;
    let lease = alice.lease_grant(60, None).await.expect("a lease").id();
    let won = alice.campaign("office", "alice", lease).await.expect("won");
    let key = won.leader().expect("a key").clone();
    let mut seen = observer.observe("office").await.expect("a stream");
    let lease = bob.lease_grant(60, None).await.expect("a lease").id();
    let waiting = tokio::spawn(async move {
        let won = bob.campaign("office", "bob", lease).await.expect("won");
        (bob, won)
    });
    let mut next = async |wanted: &[u8]| {
        // A proclamation may come before the observer has seen what it replaces.
        let found = async {
            loop {
                let message = seen.message().await.expect("a message").expect("one");
                if message.kv().expect("a leader").value() == wanted {
                    return;
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{} is not seen", String::from_utf8_lossy(wanted)));
    };
    next(b"alice").await;
    let options = ProclaimOptions::new().with_leader(key.clone());
    alice
        .proclaim("alice again", Some(options))
        .await
        .expect("proclaimed");
    next(b"alice again").await;
    assert!(!waiting.is_finished());
    let options = ResignOptions::new().with_leader(key);
    alice.resign(Some(options)).await.expect("resigned");
    next(b"bob").await;
    waiting.await.expect("no panic");
    let leader = observer.leader("office").await.expect("a leader");
    assert_eq!(leader.kv().expect("a leader").value(), b"bob");
}
