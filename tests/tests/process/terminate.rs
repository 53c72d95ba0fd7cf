//! SIGTERM and SIGINT: a member that is asked to stop hands its leadership over first.

use std::time::{Duration, Instant};

use gonfalon_proto::etcdserverpb::LeaseGrantRequest;
use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::process::Signal;
use tonic::Status;

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

/// Clients that write at one member at once.
const WRITERS: usize = 64;

/// Writes at a member until it does not answer; what the last call was told.
async fn write_until_it_ends(client: Client, key: String) -> Status {
    loop {
        if let Err(status) = client.put(&key, "v").await {
            return status;
        }
    }
}

/// Stops the member `at` while it has writes under way.
async fn stop_under_load(mut cluster: Cluster, at: usize) {
    let writers: Vec<_> = (0..WRITERS)
        .map(|i| tokio::spawn(write_until_it_ends(cluster.client(at), format!("k{i}"))))
        .collect();
    let key = format!("k{}", WRITERS - 1);
    let under_load = async {
        while cluster.client(at).get(&key).await.expect("it serves").count == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, under_load)
        .await
        .expect("all write");
    let status = cluster.terminate(at).await.expect("it stops");
    assert!(status.success(), "it ended with {status}");
    for writer in writers {
        let told = writer.await.expect("it writes until the end");
        assert!(!told.message().contains("server stopped"), "{told}");
    }
    let log = std::fs::read_to_string(cluster.member(at).log()).expect("it has a log");
    assert!(!log.contains("ERROR"), "that was asked for:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stops_answers_what_is_under_way_and_has_no_error_to_tell_of() {
    let cluster = Cluster::start(Server::Gonfalon, 3).await;
    let cluster = cluster.expect("the cluster starts");
    let leader = cluster.leader().await.expect("a leader");
    stop_under_load(cluster, (leader + 1) % 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_answers_what_is_under_way_and_has_no_error_to_tell_of() {
    let cluster = Cluster::start(Server::Gonfalon, 3).await;
    let cluster = cluster.expect("the cluster starts");
    let leader = cluster.leader().await.expect("a leader");
    stop_under_load(cluster, leader).await;
}

/// Two seconds for a leadership that nobody takes, half of one for clients, and some for a machine
/// that is busy. Without a majority a call takes 7 s to be given up.
const STOPS_WITHIN: Duration = Duration::from_millis(4_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_majority_stops_soon_whatever_waits_for_one() {
    let cluster = Cluster::start(Server::Gonfalon, 3).await;
    let mut cluster = cluster.expect("the cluster starts");
    let leader = cluster.leader().await.expect("a leader");
    let client = cluster.client(leader);
    // A lease whose time is up while the leader still believes that it has a majority.
    let lease = LeaseGrantRequest { ttl: 2, id: 0 };
    let granted = client.lease.clone().lease_grant(lease).await;
    granted.expect("a majority is there");
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    for at in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.kill(at).expect("it runs");
    }
    let waiting = tokio::spawn(write_until_it_ends(client, "k".into()));
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    let told = Instant::now();
    let status = cluster.terminate(leader).await.expect("it stops");
    let took = told.elapsed();
    assert!(status.success(), "it ended with {status}");
    assert!(took < STOPS_WITHIN, "it took {took:?}\n{}", cluster.logs());
    waiting.await.expect("it is told of the end");
}
