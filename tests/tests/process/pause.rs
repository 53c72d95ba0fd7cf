//! SIGSTOP: a member that hears and says nothing for a while, then goes on as if it had not slept.

use std::time::{Duration, Instant};

use gonfalon_tests::binaries::server_under_test;
use gonfalon_tests::cluster::Cluster;

use super::{SOME, advance, under_load, verify};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_up_deposed_serves_nothing_stale() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    for _ in 0..2 {
        let leader = cluster.leader().await.expect("a leader");
        cluster.pause(leader).expect("it runs");
        // The others elect; clients of the sleeper go to them.
        advance(&workload, SOME).await;
        cluster.resume(leader).expect("it runs");
        cluster.ready().await.expect("it hears of its successor");
        advance(&workload, SOME).await;
    }
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_sleeps_is_waited_for_by_nobody() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    let leader = cluster.leader().await.expect("a leader");
    let follower = (leader + 1) % 3;
    cluster.pause(follower).expect("it runs");
    advance(&workload, 3 * SOME).await;
    cluster.resume(follower).expect("it runs");
    cluster.ready().await.expect("it catches up");
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_sleep_a_moment_go_on_together() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    for at in 0..3 {
        cluster.pause(at).expect("it runs");
    }
    // Longer than any election timeout: all wake up as candidates, clients have given up.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for at in 0..3 {
        cluster.resume(at).expect("it runs");
    }
    advance(&workload, SOME).await;
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_does_not_wait_for_a_leader_that_sleeps_once_there_is_another() {
    /// The server gives up a call after this: five seconds and two election timeouts.
    const GIVEN_UP: Duration = Duration::from_secs(7);
    let mut cluster = Cluster::start(server_under_test(), 3)
        .await
        .expect("the cluster starts");
    let leader = cluster.leader().await.expect("a leader");
    let client = cluster.client((leader + 1) % 3);
    client.put("before", "1").await.expect("it serves");
    cluster.pause(leader).expect("it runs");
    let asleep = Instant::now();
    // Both go to the sleeper, who will not answer. What became of the write nobody knows.
    let (put, get) = tokio::join!(client.put("during", "1"), client.get("before"));
    drop(put);
    get.expect("it is read from the next leader");
    client
        .put("after", "1")
        .await
        .expect("the next leader takes it");
    let waited = asleep.elapsed();
    assert!(waited < GIVEN_UP, "{waited:?}\n{}", cluster.logs());
    cluster.resume(leader).expect("it runs");
}
