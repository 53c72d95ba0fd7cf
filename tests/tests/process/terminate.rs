//! SIGTERM and SIGINT: a member that is asked to stop hands its leadership over first.

use std::time::{Duration, Instant};

use gonfalon_tests::process::Signal;

use super::{PATIENCE, SOME, advance, under_load, verify};

/// Nobody elects a leader without being asked to before this has passed.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over_before_it_goes() {
    let flags = ["--heartbeat-interval", "400", "--election-timeout", "4000"];
    let (mut cluster, workload) = under_load(3, &flags).await;
    let leader = cluster.leader().await.expect("a leader");
    let told = Instant::now();
    let status = cluster.terminate(leader).await.expect("it stops");
    assert!(status.success(), "it ended with {status}");
    advance(&workload, SOME).await;
    let pause = workload.longest_pause(told);
    assert!(
        pause < ELECTION_TIMEOUT / 2,
        "writes paused for {pause:?}: the others had to elect\n{}",
        cluster.logs()
    );
    cluster.start_member(leader).expect("it starts");
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_can_be_restarted_in_turn_under_load() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    for at in 0..3 {
        let status = cluster.terminate(at).await.expect("it stops");
        assert!(status.success(), "member {at} ended with {status}");
        advance(&workload, SOME / 2).await;
        cluster.start_member(at).expect("it starts");
        cluster.ready().await.expect("it comes back");
    }
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_stop_cleanly_when_all_are_told_to() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    for at in 0..3 {
        cluster.signal(at, Signal::INT).expect("it runs");
    }
    for at in 0..3 {
        let status = cluster.wait(at, PATIENCE).await.expect("it stops");
        assert!(status.success(), "member {at} ended with {status}");
    }
    for at in 0..3 {
        cluster.start_member(at).expect("it starts");
    }
    verify(cluster, workload).await;
}
