//! A member of three that is left alone: it refuses what needs a majority and serves what does not.

use std::time::Duration;

use gonfalon_proto::etcdserverpb::RangeRequest;
use gonfalon_tests::binaries::server_under_test;
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use tonic::{Code, Status};

/// Longer than the server's own limit, which is 5 s and two election timeouts.
const DEADLINE: Duration = Duration::from_secs(20);

/// The texts with which etcd gives up a call for want of a majority.
const GIVEN_UP: [&str; 4] = [
    "etcdserver: no leader",
    "etcdserver: leader changed",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
];

#[track_caller]
fn assert_given_up<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    let status = answer.expect_err(what);
    assert_eq!(status.code(), Code::Unavailable, "{what}: {status}");
    assert!(GIVEN_UP.contains(&status.message()), "{what}: {status}");
}

async fn read_serializable(client: &Client, key: &str) -> Result<String, Status> {
    let request = RangeRequest {
        key: key.to_owned().into(),
        serializable: true,
        ..RangeRequest::default()
    };
    let response = client.kv.clone().range(request).await?.into_inner();
    let value = response.kvs.first().map(|kv| kv.value.clone());
    Ok(String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
}

/// Kills all but `left` of a cluster that holds a key, and asks the one that is left.
async fn left_alone(mut cluster: Cluster, left: usize) {
    let client = cluster.client(left);
    client
        .put("before", "1")
        .await
        .expect("a majority is there");
    // A read that goes through the one that is left: it has applied the write then.
    client.get("before").await.expect("a majority is there");
    for at in (0..3).filter(|at| *at != left) {
        cluster.kill(at).expect("it runs");
    }
    let (put, get) = tokio::join!(
        tokio::time::timeout(DEADLINE, client.put("alone", "1")),
        tokio::time::timeout(DEADLINE, client.get("before")),
    );
    assert_given_up("a write", put.expect("an answer in time"));
    assert_given_up("a linearizable read", get.expect("an answer in time"));
    let value = tokio::time::timeout(DEADLINE, read_serializable(&client, "before")).await;
    assert_eq!(value.expect("at once").expect("from its own state"), "1");

    let other = (left + 1) % 3;
    cluster.start_member(other).expect("it starts");
    cluster.ready().await.expect("two are a majority");
    client.put("after", "1").await.expect("two are a majority");
    let before = client.get("before").await.expect("two are a majority");
    assert_eq!(before.count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_alone_serves_only_what_needs_no_majority() {
    let cluster = Cluster::start(server_under_test(), 3)
        .await
        .expect("the cluster starts");
    let leader = cluster.leader().await.expect("a leader");
    left_alone(cluster, leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_alone_serves_only_what_needs_no_majority() {
    let cluster = Cluster::start(server_under_test(), 3)
        .await
        .expect("the cluster starts");
    let leader = cluster.leader().await.expect("a leader");
    left_alone(cluster, (leader + 1) % 3).await;
}
