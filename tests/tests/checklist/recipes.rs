//! Locks and elections that the server keeps, and that they are ordinary keys.

use std::time::Duration;

use gonfalon_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use gonfalon_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use gonfalon_proto::v3lockpb::{LockRequest, UnlockRequest};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use tonic::{Code, Status};

use super::{PATIENCE, SILENCE, assert_refused, one};

items! {
    always {
        item_22_every_error_of_locks_and_elections_is_unknown,
        a_lock_is_a_key_named_by_its_lease,
        an_election_takes_no_larger_values_than_a_put,
        a_lock_has_no_larger_name_than_a_key,
        a_second_lock_waits_for_the_first,
        a_waiter_that_gives_up_leaves_nothing_behind,
        a_lock_falls_with_its_lease,
        an_election_has_one_leader_and_observers_see_each,
    }
    now {
        a_waiter_whose_lease_ends_gets_no_lock,
    }
}

async fn grant(client: &Client, id: i64) {
    let request = LeaseGrantRequest { id, ttl: 60 };
    client
        .lease
        .clone()
        .lease_grant(request)
        .await
        .expect("a lease");
}

async fn lock(client: &Client, name: &'static str, lease: i64) -> Result<Vec<u8>, Status> {
    let request = LockRequest {
        name: name.into(),
        lease,
    };
    Ok(client
        .lock
        .clone()
        .lock(request)
        .await?
        .into_inner()
        .key
        .to_vec())
}

async fn campaign(client: &Client, lease: i64, value: &'static str) -> Result<LeaderKey, Status> {
    let request = CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
    };
    let answer = client
        .election
        .clone()
        .campaign(request)
        .await?
        .into_inner();
    Ok(answer
        .leader
        .expect("who campaigns successfully is told its key"))
}

/// Waits until `prefix` holds `count` keys: that is when a waiter stands in the queue.
async fn queued(client: &Client, prefix: &str, count: usize) {
    let all = async {
        while client.get_prefix(prefix).await.expect("a read").kvs.len() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("the queue has that length in the end");
}

async fn item_22_every_error_of_locks_and_elections_is_unknown(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7).await;
    let no_lease = "etcdserver: requested lease not found";
    assert_refused(lock(&client, "l", 404).await, Code::Unknown, no_lease);
    assert_refused(campaign(&client, 404, "v").await, Code::Unknown, no_lease);
    let unlocked = client.lock.clone().unlock(UnlockRequest::default()).await;
    assert_refused(unlocked, Code::Unknown, "etcdserver: key is not provided");
    let mut election = client.election.clone();
    let nobody = election.leader(LeaderRequest { name: "e".into() }).await;
    assert_refused(nobody, Code::Unknown, "election: no leader");
    let text = "\"leader\" field must be provided";
    assert_refused(
        election.proclaim(ProclaimRequest::default()).await,
        Code::Unknown,
        text,
    );
    assert_refused(
        election.resign(ResignRequest::default()).await,
        Code::Unknown,
        text,
    );
    let stale = LeaderKey {
        name: "e".into(),
        key: "e/7".into(),
        rev: 2,
        lease: 7,
    };
    let request = ProclaimRequest {
        leader: Some(stale.clone()),
        value: "v".into(),
    };
    assert_refused(
        election.proclaim(request).await,
        Code::Unknown,
        "election: not leader",
    );
    let request = ResignRequest {
        leader: Some(stale),
    };
    election
        .resign(request)
        .await
        .expect("resigning twice does no harm");
}

async fn a_lock_is_a_key_named_by_its_lease(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 0x1f).await;
    let key = lock(&client, "l", 0x1f).await.expect("a lock");
    assert_eq!(key, b"l/1f");
    assert_eq!(
        lock(&client, "l", 0x1f).await.expect("the same lock again"),
        key
    );
    let held = client.get("l/1f").await.expect("a read");
    assert_eq!(
        (
            held.kvs[0].lease,
            held.kvs[0].version,
            held.kvs[0].value.len()
        ),
        (0x1f, 1, 0)
    );
    assert_eq!(
        lock(&client, "", 0x1f)
            .await
            .expect("a lock without a name"),
        b"/1f"
    );
    let unlock = UnlockRequest { key: key.into() };
    client
        .lock
        .clone()
        .unlock(unlock.clone())
        .await
        .expect("unlocked");
    client
        .lock
        .clone()
        .unlock(unlock)
        .await
        .expect("unlocking twice does no harm");
    assert_eq!(client.get("l/1f").await.expect("a read").count, 0);
    let own = lock(&client, "own", 0)
        .await
        .expect("a lock with a lease of its own");
    let own = client
        .get(std::str::from_utf8(&own).expect("a text"))
        .await
        .expect("a read");
    assert_ne!(own.kvs[0].lease, 0, "the server has granted one");
}

async fn an_election_takes_no_larger_values_than_a_put(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7).await;
    let of = |bytes: usize| CampaignRequest {
        name: "e".into(),
        lease: 7,
        value: vec![b'v'; bytes].into(),
    };
    let mut election = client.election.clone();
    let refused = election.campaign(of(1_600_000)).await;
    let text = "etcdserver: request is too large";
    assert_refused(refused, Code::Unknown, text);
    let leader = election.campaign(of(1_500_000)).await;
    let leader = leader.expect("below the limit of 1.5 MiB").into_inner();
    let proclaim = ProclaimRequest {
        leader: leader.leader,
        value: of(1_600_000).value,
    };
    let refused = election.proclaim(proclaim).await;
    assert_refused(refused, Code::Unknown, text);
}

async fn a_lock_has_no_larger_name_than_a_key(server: Server) {
    let (_cluster, client) = one(server).await;
    let name = "n".repeat(1_600_000);
    let text = "etcdserver: request is too large";
    let request = LockRequest {
        name: name.clone().into(),
        lease: 0,
    };
    let refused = client.lock.clone().lock(request).await;
    assert_refused(refused, Code::Unknown, text);
    let request = UnlockRequest { key: name.into() };
    let refused = client.lock.clone().unlock(request).await;
    assert_refused(refused, Code::Unknown, text);
}

async fn a_second_lock_waits_for_the_first(server: Server) {
    let (_cluster, client) = one(server).await;
    for lease in [7, 8, 9] {
        grant(&client, lease).await;
    }
    let unlock = async |key: Vec<u8>| {
        client
            .lock
            .clone()
            .unlock(UnlockRequest { key: key.into() })
            .await
            .expect("unlocked");
    };
    let first = lock(&client, "l", 7).await.expect("the first lock");
    let waiter = |lease| {
        let client = client.clone();
        tokio::spawn(async move { lock(&client, "l", lease).await })
    };
    let second = waiter(8);
    queued(&client, "l/", 2).await;
    let third = waiter(9);
    queued(&client, "l/", 3).await;
    tokio::time::sleep(SILENCE).await;
    assert!(
        !second.is_finished() && !third.is_finished(),
        "two hold the lock at once"
    );
    unlock(first).await;
    let second = tokio::time::timeout(PATIENCE, second)
        .await
        .expect("its turn comes");
    let second = second.expect("no panic").expect("the second lock");
    assert!(!third.is_finished(), "the third is not before the second");
    unlock(second).await;
    let third = tokio::time::timeout(PATIENCE, third)
        .await
        .expect("its turn comes");
    assert_eq!(third.expect("no panic").expect("the third lock"), b"l/9");
}

async fn a_waiter_that_gives_up_leaves_nothing_behind(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7).await;
    grant(&client, 8).await;
    lock(&client, "l", 7).await.expect("the first lock");
    let impatient = tokio::time::timeout(SILENCE, lock(&client, "l", 8)).await;
    assert!(impatient.is_err(), "two hold the lock at once");
    queued(&client, "l/", 1).await;
    assert_eq!(
        client.get("l/7").await.expect("a read").count,
        1,
        "the holder's key stays"
    );
}

async fn a_lock_falls_with_its_lease(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7).await;
    grant(&client, 8).await;
    lock(&client, "l", 7).await.expect("the first lock");
    let second = tokio::spawn({
        let client = client.clone();
        async move { lock(&client, "l", 8).await }
    });
    queued(&client, "l/", 2).await;
    client
        .lease
        .clone()
        .lease_revoke(LeaseRevokeRequest { id: 7 })
        .await
        .expect("revoked");
    let second = tokio::time::timeout(PATIENCE, second)
        .await
        .expect("its turn comes");
    assert_eq!(second.expect("no panic").expect("the second lock"), b"l/8");
}

/// etcd 3.4.23 gives it the lock all the same, with a key that is gone.
async fn a_waiter_whose_lease_ends_gets_no_lock(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7).await;
    grant(&client, 8).await;
    let key = lock(&client, "l", 7).await.expect("the first lock");
    let second = tokio::spawn({
        let client = client.clone();
        async move { lock(&client, "l", 8).await }
    });
    queued(&client, "l/", 2).await;
    let revoke = LeaseRevokeRequest { id: 8 };
    let revoked = client.lease.clone().lease_revoke(revoke).await;
    revoked.expect("revoked");
    let unlock = UnlockRequest { key: key.into() };
    let unlocked = client.lock.clone().unlock(unlock).await;
    unlocked.expect("unlocked");
    let second = tokio::time::timeout(PATIENCE, second)
        .await
        .expect("its turn comes")
        .expect("no panic");
    assert_refused(second, Code::Unknown, "mutex: session is expired");
    assert_eq!(client.get_prefix("l/").await.expect("a read").count, 0);
}

async fn an_election_has_one_leader_and_observers_see_each(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7).await;
    grant(&client, 8).await;
    let first = campaign(&client, 7, "one").await.expect("the first leader");
    assert_eq!(
        (first.key.as_ref(), first.rev, first.lease),
        (b"e/7".as_slice(), 2, 7)
    );
    let mut election = client.election.clone();
    let observed = election
        .observe(LeaderRequest { name: "e".into() })
        .await
        .expect("a stream");
    let mut observed = observed.into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(PATIENCE, observed.message()).await;
        let message = message
            .expect("an answer")
            .expect("no error")
            .expect("the stream goes on");
        message.kv.expect("a leader's key").value
    };
    assert_eq!(next().await, "one");
    let second = tokio::spawn({
        let client = client.clone();
        async move { campaign(&client, 8, "two").await }
    });
    queued(&client, "e/", 2).await;
    let proclaim = ProclaimRequest {
        leader: Some(first.clone()),
        value: "one more".into(),
    };
    election
        .proclaim(proclaim)
        .await
        .expect("the leader proclaims");
    assert_eq!(next().await, "one more");
    let leader = election
        .leader(LeaderRequest { name: "e".into() })
        .await
        .expect("a leader");
    assert_eq!(leader.into_inner().kv.expect("its key").key, "e/7");
    election
        .resign(ResignRequest {
            leader: Some(first),
        })
        .await
        .expect("the leader resigns");
    let second = tokio::time::timeout(PATIENCE, second)
        .await
        .expect("its turn comes");
    assert_eq!(
        second.expect("no panic").expect("the second leader").lease,
        8
    );
    assert_eq!(next().await, "two");
}
