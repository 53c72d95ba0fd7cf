//! How large and how long things may be.

use std::time::Duration;

use bytes::Bytes;
use gonfalon::testkit::{FakeServer, Rpc};
use gonfalon::{
    Client, DiskCopy, ErrorKind, KeyRange, LossGuard, OnCompacted, Op, OpResult, WatchState,
};

use super::within;

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn every_answer_may_be_as_large_as_the_client_accepts() {
    let server = FakeServer::start();
    let client = server.client();
    let value = Bytes::from(vec![b'v'; MIB]);
    for number in 0..5 {
        server.put(format!("large/{number}"), value.clone());
    }
    let read = Op::get(KeyRange::prefix("large/"));
    let answer = within(client.txn().then(read.clone())).await.unwrap();
    let Some(OpResult::Range(page)) = answer.results.first() else {
        panic!("{answer:?}");
    };
    assert_eq!(page.kvs.len(), 5);

    server.put("one", vec![b'v'; 5 * MIB]);
    let put = within(client.put("one", "").prev_kv()).await.unwrap();
    assert_eq!(put.prev.map(|kv| kv.value.len()), Some(5 * MIB));

    let lease = within(client.grant(Duration::from_mins(1)));
    let lease = lease.await.unwrap();
    let long = "k".repeat(MIB);
    for number in 0..5 {
        server.txn([Op::put(format!("{long}{number}"), "").lease(lease.id())]);
    }
    let info = within(client.lease_info(lease.id(), true)).await.unwrap();
    assert_eq!(info.keys.len(), 5);

    let small = server.client_builder().response_bytes_max(MIB);
    let small = small.build().unwrap();
    let refused = within(small.txn().then(read)).await.unwrap_err();
    assert_ne!(*refused.kind(), ErrorKind::Timeout, "{refused}");
}

/// Of a message that is not read nobody knows whose it is.
#[tokio::test]
async fn a_message_of_watches_that_no_server_should_send_ends_them_and_not_the_client() {
    let server = FakeServer::start();
    let client = server.client_builder().response_bytes_max(MIB);
    let client = client.build().unwrap();
    let mut large = within(client.watch("large")).await.unwrap();
    let mut other = within(client.watch("other")).await.unwrap();
    let cache = within(client.cache("other")).await.unwrap();
    let told = server.put("large", "small");
    within(large.next()).await.unwrap().unwrap();
    let streams = server.received(Rpc::Watch);
    server.put("large", vec![b'v'; 33 * MIB]);
    for watch in [&mut large, &mut other] {
        let error = within(watch.next()).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(error.to_string().contains("33554432"), "{error}");
        assert!(within(watch.next()).await.is_none());
    }
    assert_eq!(large.position(), told, "from where it can go on");
    // It is not fetched again and again, and all else is as before.
    let written = within(client.put("other", "1")).await.unwrap().revision;
    let snapshot = within(cache.at_least(written)).await.unwrap();
    assert_eq!(snapshot.get("other").unwrap().value, "1");
    let after = within(client.watch("large").after(written)).await.unwrap();
    assert_eq!(after.state(), WatchState::Live);
    let streams = server.received(Rpc::Watch) - streams;
    assert!(streams <= 3, "{streams} streams");
}

#[tokio::test]
async fn whoever_would_wait_for_ever_may_say_so() {
    let server = FakeServer::start();
    let ever = Duration::MAX;
    let client = server.client_builder().connect_timeout(ever);
    let client = client.deadline(ever).keep_alive(ever, ever);
    let client = client.backoff(ever, ever).build().unwrap();
    within(client.put("k", "v").deadline(ever)).await.unwrap();
    let lease = within(client.grant(Duration::from_mins(1)).deadline(ever));
    drop(lease.await.unwrap());
    within(client.watch("k").deadline(ever)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = DiskCopy::at(dir.path().join("copy")).wait(ever).every(ever);
    let cache = client.cache("k").deadline(ever).disk(copy);
    let guard = LossGuard::new(0.5).keys_min(1).confirm_after(ever);
    let cache = within(cache.guard_loss(guard)).await.unwrap();
    let mut changes = cache.subscribe();
    server.delete("k");
    server.put("k", "w");
    assert!(within(changes.next()).await.is_some(), "it goes on");
    within(cache.linearizable()).await.unwrap();
    let lock = client.lock("l");
    let guard = within(lock.acquire_within(ever)).await.unwrap();
    guard.release().await.unwrap();
    within(client.close_within(ever)).await.unwrap();
}

/// A watch that reads its keys again, and tells no values before, holds and reads none.
#[tokio::test]
async fn what_a_watch_does_not_tell_it_does_not_read() {
    let server = FakeServer::start();
    for number in 0..5 {
        server.put(format!("k/{number}"), vec![b'v'; MIB / 2]);
    }
    let client = server.client_builder().response_bytes_max(MIB);
    let client = client.build().unwrap();
    let watch = |client: &Client| {
        let watch = client.watch(KeyRange::prefix("k/"));
        watch.on_compacted(OnCompacted::Relist)
    };
    let error = within(watch(&client)).await.unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::TooLarge,
        "with values it is too much"
    );
    let mut watch = within(watch(&client).without_prev()).await.unwrap();
    server.put("k/0", "new");
    let batch = within(watch.next()).await.unwrap().unwrap();
    assert_eq!(batch.events[0].kv.value, "new");
    assert_eq!(batch.events[0].prev, None);
}
