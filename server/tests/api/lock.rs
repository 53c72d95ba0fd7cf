//! The Lock service of a real member, over gRPC.

use gonfalon_proto::v3lockpb::lock_client::LockClient;
use gonfalon_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use tonic::{Code, Status};

use crate::member::{Member, PATIENCE};

async fn lock(member: &Member, name: &str, lease: i64) -> Result<LockResponse, Status> {
    let request = LockRequest {
        name: name.to_owned().into(),
        lease,
    };
    let mut client = LockClient::new(member.channel.clone());
    let answer = client.lock(request);
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("the lock is answered");
    Ok(answer?.into_inner())
}

async fn unlock(member: &Member, key: impl Into<bytes::Bytes>) -> Result<(), Status> {
    let request = UnlockRequest { key: key.into() };
    LockClient::new(member.channel.clone())
        .unlock(request)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_lock_is_a_key_of_its_holders_lease() {
    let member = Member::alone().await;
    let lease = member.grant(60).await;
    let held = lock(&member, "l", lease).await.unwrap();
    assert_eq!(held.key, format!("l/{lease:x}"));
    let header = held.header.expect("a header");
    assert!(header.member_id != 0 && header.revision > 1, "{header:?}");
    assert_eq!(member.queue("l").await[0].lease, lease);

    let again = lock(&member, "l", lease).await.unwrap();
    assert_eq!(again.key, held.key, "the same lease has the same place");

    unlock(&member, held.key.clone()).await.unwrap();
    assert!(member.queue("l").await.is_empty());
    unlock(&member, held.key)
        .await
        .expect("unlocking twice is no error");
}

#[tokio::test]
async fn who_waits_is_served_in_order_and_only_when_the_key_before_is_gone() {
    let member = Member::alone().await;
    let mut leases = Vec::new();
    let mut waiters = Vec::new();
    for at in 0..4 {
        leases.push(member.grant(60).await);
        let (request, mut client) = (
            LockRequest {
                name: "l".into(),
                lease: leases[at],
            },
            LockClient::new(member.channel.clone()),
        );
        waiters.push(tokio::spawn(async move { client.lock(request).await }));
        member.wait_for_queue_of("l", at + 1).await;
    }
    // Whoever is second gives up; the third is not served for that.
    waiters.remove(1).abort();
    member.wait_for_queue_of("l", 3).await;
    for (at, waiter) in [0, 2, 3].into_iter().zip(waiters) {
        let held = tokio::time::timeout(PATIENCE, waiter)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let held = held.into_inner();
        assert_eq!(held.key, format!("l/{:x}", leases[at]));
        let queue = member.queue("l").await;
        assert_eq!(
            queue[0].key, held.key,
            "the holder is the first of those who are left"
        );
        assert!(held.header.unwrap().revision >= queue[0].create_revision);
        unlock(&member, held.key).await.unwrap();
    }
}

#[tokio::test]
async fn a_waiter_whose_lease_ends_is_told_so() {
    let member = Member::alone().await;
    let (holder, waiter) = (member.grant(60).await, member.grant(60).await);
    let held = lock(&member, "l", holder).await.unwrap();
    let waits = async {
        let failed = lock(&member, "l", waiter).await.unwrap_err();
        assert_eq!(
            (failed.code(), failed.message()),
            (Code::Unknown, "mutex: session is expired")
        );
    };
    let ends = async {
        member.wait_for_queue_of("l", 2).await;
        member.revoke(waiter).await;
        unlock(&member, held.key).await.unwrap();
    };
    tokio::join!(waits, ends);
}

#[tokio::test]
async fn a_lock_without_a_lease_gets_one_of_a_minute() {
    let member = Member::alone().await;
    let held = lock(&member, "l", 0).await.unwrap();
    let lease = member.queue("l").await[0].lease;
    assert!(lease > 0, "the server chose a lease");
    assert_eq!(held.key, format!("l/{lease:x}"));
    let remaining = member
        .node
        .lease_remaining(gonfalon_core::LeaseId::new(lease))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(remaining.granted, 60);
}

#[tokio::test]
async fn every_failure_of_a_lock_is_unknown() {
    let member = Member::alone().await;
    let failed = lock(&member, "l", 42).await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::Unknown, "etcdserver: requested lease not found")
    );
    let failed = unlock(&member, "").await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::Unknown, "etcdserver: key is not provided")
    );
    let lease = member.grant(60).await;
    let held = lock(&member, "", lease)
        .await
        .expect("a lock may have no name");
    assert_eq!(held.key, format!("/{lease:x}"));
}
