//! A member that lost its data: it must not found the cluster a second time, for with another one
//! that was down meanwhile it would be a majority that knows nothing of the latest writes.

use std::path::PathBuf;
use std::time::Duration;

use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::process::log_tail;

use super::PATIENCE;

/// Longer than several elections take.
const ELECTIONS: Duration = Duration::from_secs(5);
/// Acknowledged while the member was down that remains.
const KEYS: [&str; 2] = ["acknowledged-1", "acknowledged-2"];

/// A cluster whose members 0 and 1 have acknowledged [`KEYS`] without member 2. None of them runs,
/// and the data directory of member 0 has been moved to the path returned.
async fn with_lost_data() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(Server::Gonfalon, 3)
        .await
        .expect("the cluster starts");
    cluster.kill(2).expect("it runs");
    cluster.ready().await.expect("two are a majority");
    for key in KEYS {
        let put = cluster.client(0).put(key, "1").await;
        put.expect("two are a majority");
    }
    cluster.kill(0).expect("it runs");
    cluster.kill(1).expect("it runs");
    let data = cluster.member(0).data_dir().to_owned();
    let kept = data.with_extension("kept");
    std::fs::rename(&data, &kept).expect("it can be moved");
    (cluster, kept)
}

/// Asserts that member `at` ends by itself, says why, and leaves nothing in its data directory.
async fn assert_refuses(cluster: &mut Cluster, at: usize) {
    let status = cluster.wait(at, PATIENCE).await.expect("it ends");
    let text = log_tail(cluster.member(at).log(), 1);
    assert_eq!(status.code(), Some(1), "{text}");
    for words in ["has already been bootstrapped", "restore the directory"] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    let names: Vec<_> = std::fs::read_dir(cluster.member(at).data_dir())
        .expect("it is there")
        .map(|entry| entry.expect("readable").file_name())
        .filter(|name| name != "lock")
        .collect();
    assert!(names.is_empty(), "left on disk: {names:?}");
}

/// Asserts that the member that answers `client` is without a leader, and stays so.
async fn assert_no_leader(client: &Client) {
    let until = tokio::time::Instant::now() + ELECTIONS;
    while tokio::time::Instant::now() < until {
        if let Ok(status) = client.status().await {
            assert_eq!(status.leader, 0, "two of three that know nothing elected");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = client.status().await.expect("it answers");
    assert_eq!(status.leader, 0, "it is alone");
}

/// Asserts that [`KEYS`] are there, whomever one asks.
async fn assert_kept(cluster: &mut Cluster) {
    cluster.ready().await.expect("two are a majority");
    for at in (0..3).filter(|at| cluster.member(*at).is_started()) {
        for key in KEYS {
            let found = cluster.client(at).get(key).await.expect("it serves");
            assert_eq!(found.count, 1, "member {at} has lost {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_its_data_waits_for_one_that_knows_it_and_ends() {
    let (mut cluster, kept) = with_lost_data().await;
    cluster.start_member(0).expect("it starts");
    // It has nobody to ask.
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.start_member(2).expect("it starts");
    assert_refuses(&mut cluster, 0).await;
    assert_no_leader(&cluster.client(2)).await;

    let data = cluster.member(0).data_dir().to_owned();
    std::fs::remove_dir_all(&data).expect("it can be removed");
    std::fs::rename(kept, data).expect("it can be moved back");
    cluster.start_member(0).expect("it starts");
    assert_kept(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_its_data_ends_when_one_that_runs_knows_it() {
    let (mut cluster, _kept) = with_lost_data().await;
    cluster.start_member(2).expect("it starts");
    let client = cluster.client(2);
    let up = async {
        while client.status().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("it serves");
    cluster.start_member(0).expect("it starts");
    assert_refuses(&mut cluster, 0).await;
    assert_no_leader(&client).await;

    cluster.start_member(1).expect("it starts");
    assert_kept(&mut cluster).await;
    // Not even now that there is a majority without it.
    cluster.start_member(0).expect("it starts");
    assert_refuses(&mut cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_new_members_of_three_are_enough_and_the_third_may_be_late() {
    let mut cluster = Cluster::prepare(Server::Gonfalon, 3, &[]).expect("ports");
    cluster.start_member(1).expect("it starts");
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.start_member(0).expect("it starts");
    cluster.ready().await.expect("two are a majority");
    for key in KEYS {
        let put = cluster.client(0).put(key, "1").await;
        put.expect("two are a majority");
    }
    cluster.start_member(2).expect("it starts");
    assert_kept(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_killed_at_any_moment_of_its_first_start_can_start_again() {
    let mut cluster = Cluster::prepare(Server::Gonfalon, 3, &[]).expect("ports");
    cluster.start_member(1).expect("it starts");
    for moment in [5, 20, 40, 60, 80, 120, 200] {
        cluster.start_member(0).expect("it starts");
        tokio::time::sleep(Duration::from_millis(moment)).await;
        cluster.kill(0).expect("it runs");
    }
    cluster.start_member(0).expect("it starts");
    cluster.ready().await.expect("two are a majority");
    let put = cluster.client(0).put("a", "1").await;
    put.expect("two are a majority");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_log_alone_is_gone_is_refused() {
    let mut cluster = Cluster::start(Server::Gonfalon, 1)
        .await
        .expect("the server starts");
    cluster.client(0).put("a", "1").await.expect("it serves");
    cluster.terminate(0).await.expect("it stops");
    let log = cluster.member(0).data_dir().join("raft");
    let kept = cluster.dir().join("raft.kept");
    std::fs::rename(&log, &kept).expect("it can be moved");
    cluster.start_member(0).expect("it starts");
    let status = cluster.wait(0, PATIENCE).await.expect("it ends");
    let text = log_tail(cluster.member(0).log(), 1);
    assert_eq!(status.code(), Some(1), "{text}");
    for words in ["has a state but no log", "raft", "restore it"] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    assert!(!log.exists(), "it began another log");

    std::fs::rename(kept, log).expect("it can be moved back");
    cluster.start_member(0).expect("it starts");
    cluster.ready().await.expect("it has all its data");
    let found = cluster.client(0).get("a").await.expect("it serves");
    assert_eq!(found.count, 1);
}
