//! Leases.

use std::time::Instant;

use gonfalon_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest,
};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::requests::{put, watch_prefix};
use gonfalon_tests::streams::{WatchStream, keep_alive};
use tonic::{Code, Status};

use super::{PATIENCE, assert_refused, one};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

items! {
    always {
        item_11_a_put_without_a_lease_detaches_the_key,
        item_12_revoking_deletes_all_keys_in_one_revision_and_in_order,
        item_13_each_call_has_its_own_way_of_not_finding_a_lease,
        item_14_a_short_ttl_is_raised_and_the_answer_says_so,
        item_15_lease_ids_may_be_negative,
        a_lease_is_granted_once_and_not_for_ever,
        an_expired_lease_takes_its_keys_in_one_revision,
        a_renewed_lease_lives_on,
        any_member_renews_and_lists_leases,
        the_lease_that_ends_first_is_listed_first,
    }
    now {}
}

async fn grant(client: &Client, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Status> {
    let request = LeaseGrantRequest { id, ttl };
    Ok(client
        .lease
        .clone()
        .lease_grant(request)
        .await?
        .into_inner())
}

async fn remaining(client: &Client, id: i64) -> LeaseTimeToLiveResponse {
    let request = LeaseTimeToLiveRequest { id, keys: true };
    client
        .lease
        .clone()
        .lease_time_to_live(request)
        .await
        .expect("a lease's time")
        .into_inner()
}

/// The ids of all leases, as they are listed.
async fn all(client: &Client) -> Vec<i64> {
    let list = client
        .lease
        .clone()
        .lease_leases(LeaseLeasesRequest {})
        .await;
    let leases = list.expect("a list").into_inner().leases;
    leases.iter().map(|lease| lease.id).collect()
}

async fn put_with(client: &Client, key: &str, lease: i64) -> Result<(), Status> {
    client
        .kv
        .clone()
        .put(PutRequest {
            lease,
            ..put(key, "1")
        })
        .await
        .map(|_| ())
}

async fn item_11_a_put_without_a_lease_detaches_the_key(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7, 60).await.expect("a lease");
    put_with(&client, "a", 7).await.expect("a put");
    assert_eq!(remaining(&client, 7).await.keys, ["a"]);
    let keep = PutRequest {
        ignore_lease: true,
        ..put("a", "2")
    };
    client
        .kv
        .clone()
        .put(keep)
        .await
        .expect("a put that keeps the lease");
    assert_eq!(remaining(&client, 7).await.keys, ["a"]);
    client.put("a", "3").await.expect("a put");
    assert_eq!(remaining(&client, 7).await.keys, Vec::<Vec<u8>>::new());
    client
        .lease
        .clone()
        .lease_revoke(LeaseRevokeRequest { id: 7 })
        .await
        .expect("revoked");
    assert_eq!(
        client.get("a").await.expect("a read").kvs[0].lease,
        0,
        "the key stays"
    );
}

async fn item_12_revoking_deletes_all_keys_in_one_revision_and_in_order(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7, 60).await.expect("a lease");
    for key in ["l/c", "l/a", "l/b"] {
        put_with(&client, key, 7).await.expect("a put");
    }
    let mut stream = WatchStream::open(&client);
    stream.create(watch_prefix("l/")).await;
    assert!(stream.next(PATIENCE).await.expect("an answer").created);
    let request = LeaseRevokeRequest { id: 7 };
    let revoked = client
        .lease
        .clone()
        .lease_revoke(request)
        .await
        .expect("revoked")
        .into_inner();
    assert_eq!(revoked.header.expect("a header").revision, 5);
    let events = stream.next(PATIENCE).await.expect("events").events;
    let seen: Vec<(&[u8], i64)> = events
        .iter()
        .filter_map(|event| event.kv.as_ref())
        .map(|kv| (kv.key.as_ref(), kv.mod_revision))
        .collect();
    assert_eq!(seen, [(b"l/a".as_slice(), 5), (b"l/b", 5), (b"l/c", 5)]);
    grant(&client, 8, 60).await.expect("a lease");
    client
        .lease
        .clone()
        .lease_revoke(LeaseRevokeRequest { id: 8 })
        .await
        .expect("revoked");
    let now = client
        .get("l/a")
        .await
        .expect("a read")
        .header
        .expect("a header")
        .revision;
    assert_eq!(now, 5, "a lease without keys changes nothing");
}

async fn item_13_each_call_has_its_own_way_of_not_finding_a_lease(server: Server) {
    let (_cluster, client) = one(server).await;
    let renewed = keep_alive(&client, &[404, 0])
        .await
        .expect("answers, not errors");
    assert_eq!(
        renewed.iter().map(|r| (r.id, r.ttl)).collect::<Vec<_>>(),
        [(404, 0), (0, 0)]
    );
    let time = remaining(&client, 404).await;
    assert_eq!((time.id, time.ttl, time.granted_ttl), (404, -1, 0));
    for id in [404, 0] {
        let revoked = client
            .lease
            .clone()
            .lease_revoke(LeaseRevokeRequest { id })
            .await;
        assert_refused(revoked, Code::NotFound, NOT_FOUND);
    }
    assert_refused(put_with(&client, "a", 404).await, Code::NotFound, NOT_FOUND);
}

async fn item_14_a_short_ttl_is_raised_and_the_answer_says_so(server: Server) {
    // With the default election timeout: one and a half of it, in whole seconds.
    let cluster = Cluster::start(server, 1).await.expect("the server starts");
    let client = cluster.client(0);
    for ttl in [1, 0, -7] {
        let granted = grant(&client, 0, ttl).await.expect("a lease");
        assert_eq!(granted.ttl, 2, "asked for {ttl}");
        assert!(
            granted.id > 0,
            "the server chooses a positive id, not {}",
            granted.id
        );
    }
    assert_eq!(grant(&client, 0, 3).await.expect("a lease").ttl, 3);
}

async fn item_15_lease_ids_may_be_negative(server: Server) {
    let (_cluster, client) = one(server).await;
    assert_eq!(grant(&client, -3, 60).await.expect("a lease").id, -3);
    put_with(&client, "a", -3).await.expect("a put");
    assert_eq!(remaining(&client, -3).await.keys, ["a"]);
    assert_eq!(
        keep_alive(&client, &[-3]).await.expect("renewed")[0].ttl,
        60
    );
    client
        .lease
        .clone()
        .lease_revoke(LeaseRevokeRequest { id: -3 })
        .await
        .expect("revoked");
}

async fn a_lease_is_granted_once_and_not_for_ever(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7, 60).await.expect("a lease");
    let again = grant(&client, 7, 60).await;
    assert_refused(
        again,
        Code::FailedPrecondition,
        "etcdserver: lease already exists",
    );
    let long = grant(&client, 8, 9_000_000_001).await;
    assert_refused(long, Code::OutOfRange, "etcdserver: too large lease TTL");
    assert_eq!(
        grant(&client, 9, 9_000_000_000).await.expect("a lease").ttl,
        9_000_000_000
    );
}

async fn an_expired_lease_takes_its_keys_in_one_revision(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    stream.create(watch_prefix("l/")).await;
    assert!(stream.next(PATIENCE).await.expect("an answer").created);
    let start = Instant::now();
    let granted = grant(&client, 7, 2).await.expect("a lease");
    put_with(&client, "l/a", 7).await.expect("a put");
    put_with(&client, "l/b", 7).await.expect("a put");
    let mut deleted = Vec::new();
    while deleted.is_empty() {
        let events = stream
            .next(PATIENCE)
            .await
            .expect("the keys are deleted")
            .events;
        deleted.extend(events.into_iter().filter(|event| event.r#type == 1));
    }
    assert!(
        start.elapsed().as_secs() >= 2,
        "expired after {:?} of 2 s",
        start.elapsed()
    );
    assert_eq!(granted.ttl, 2);
    assert_eq!(deleted.len(), 2, "both keys at once");
    assert_eq!(remaining(&client, 7).await.ttl, -1);
}

async fn a_renewed_lease_lives_on(server: Server) {
    let (_cluster, client) = one(server).await;
    grant(&client, 7, 2).await.expect("a lease");
    let start = Instant::now();
    while start.elapsed().as_secs() < 4 {
        assert_eq!(keep_alive(&client, &[7]).await.expect("renewed")[0].ttl, 2);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert!(
        remaining(&client, 7).await.ttl >= 0,
        "it was renewed all the time"
    );
}

async fn any_member_renews_and_lists_leases(server: Server) {
    let cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    grant(&cluster.client(0), 7, 60).await.expect("a lease");
    put_with(&cluster.client(1), "a", 7).await.expect("a put");
    for at in 0..3 {
        let client = cluster.client(at);
        assert_eq!(
            keep_alive(&client, &[7]).await.expect("renewed")[0].ttl,
            60,
            "member {at}"
        );
        client
            .get("a")
            .await
            .expect("a read brings the member up to date");
        let time = remaining(&client, 7).await;
        assert_eq!(
            (time.granted_ttl, time.keys),
            (60, vec!["a".into()]),
            "member {at}"
        );
        assert_eq!(all(&client).await, [7], "member {at}");
    }
}

async fn the_lease_that_ends_first_is_listed_first(server: Server) {
    let (_cluster, client) = one(server).await;
    for (id, ttl) in [(1, 500), (2, 100), (3, 300)] {
        grant(&client, id, ttl).await.expect("a lease");
    }
    assert_eq!(all(&client).await, [2, 3, 1]);
}
