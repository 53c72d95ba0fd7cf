//! A follower that was away for so long that the log it needs is gone.

use gonfalon_tests::cluster::Cluster;

use super::{advance, under_load, verify};

/// Entries between snapshots, and kept behind one: far fewer than are written meanwhile.
const FLAGS: [&str; 4] = [
    "--snapshot-count",
    "50",
    "--experimental-snapshot-catchup-entries",
    "20",
];
/// Many times what the log keeps, even when writes share entries.
const AWAY: u64 = 600;

/// Snapshots of others that a member has taken over, by its log.
fn snapshots_installed(cluster: &Cluster, at: usize) -> usize {
    let log = std::fs::read_to_string(cluster.member(at).log()).expect("it has a log");
    log.matches("installed a snapshot").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_is_brought_up_by_a_snapshot() {
    let (mut cluster, workload) = under_load(3, &FLAGS).await;
    let leader = cluster.leader().await.expect("a leader");
    let follower = (leader + 1) % 3;
    cluster.kill(follower).expect("it runs");
    advance(&workload, AWAY).await;
    cluster.start_member(follower).expect("it starts");
    cluster.ready().await.expect("it catches up");
    assert!(
        snapshots_installed(&cluster, follower) > 0,
        "it caught up without a snapshot: the test proves nothing\n{}",
        cluster.logs()
    );
    // What it was given is on its disk: it serves after a crash, and can lead.
    cluster.kill(follower).expect("it runs");
    cluster.start_member(follower).expect("it starts");
    cluster.ready().await.expect("it comes back");
    cluster.kill(leader).expect("it runs");
    advance(&workload, 60).await;
    cluster.start_member(leader).expect("it starts");
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_killed_while_it_is_brought_up_starts_over() {
    let (mut cluster, workload) = under_load(3, &FLAGS).await;
    let leader = cluster.leader().await.expect("a leader");
    let follower = (leader + 1) % 3;
    cluster.kill(follower).expect("it runs");
    advance(&workload, AWAY).await;
    for writes in [1, 5, 20] {
        cluster.start_member(follower).expect("it starts");
        advance(&workload, writes).await;
        cluster.kill(follower).expect("it runs");
    }
    cluster.start_member(follower).expect("it starts");
    verify(cluster, workload).await;
}
