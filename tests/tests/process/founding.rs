//! What a new member says while it waits for those with which it founds a cluster, and what a member
//! writes into its log when it starts, under another name too.

use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::process::log_tail;
use gonfalon_tests::raw::http_get;
use tonic::{Code, Status};

use super::PATIENCE;

/// Between two looks at what must happen.
const POLL: std::time::Duration = std::time::Duration::from_millis(20);

/// Asks member `at` until it refuses in its own words.
async fn refusal(cluster: &Cluster, at: usize) -> Status {
    let client = cluster.client(at);
    let refused = async {
        loop {
            match client.get("a").await {
                // Nobody listens there yet.
                Err(status) if std::error::Error::source(&status).is_some() => {
                    tokio::time::sleep(POLL).await;
                }
                Err(status) => return status,
                Ok(_) => panic!("a member alone answers"),
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await;
    refused.expect("it answers at once")
}

/// Waits until the log of member `at` has a line with all of `words`.
async fn logged(cluster: &Cluster, at: usize, words: &[&str]) {
    let log = cluster.member(at).log();
    let has = async {
        let found = |line: &str| words.iter().all(|word| line.contains(word));
        while !std::fs::read_to_string(log)
            .unwrap_or_default()
            .lines()
            .any(found)
        {
            tokio::time::sleep(POLL).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, has).await;
    assert!(
        in_time.is_ok(),
        "{words:?} are not in:\n{}",
        log_tail(log, 20)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_waits_for_the_others_says_so_at_once() {
    let mut cluster = Cluster::prepare(Server::Gonfalon, 3, &[]).expect("ports");
    cluster.start_member(0).expect("it starts");
    let waits = "waiting for members m1, m2 to found the cluster";
    let status = refusal(&cluster, 0).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, waits)
    );
    for path in ["/health", "/readyz", "/livez"] {
        let (code, text) = http_get(&cluster.member(0).endpoint(), path)
            .await
            .expect("it answers");
        assert_eq!(code, 503, "{path}: {text}");
        assert!(text.contains("waiting for members"), "{path}: {text}");
    }
    logged(
        &cluster,
        0,
        &["WARN", "m1", "Connection refused", "waits for"],
    )
    .await;

    // One that was told something else is no founder of the same cluster.
    let mut other = cluster.command(1);
    other.args(["--initial-cluster-token", "another"]);
    cluster.start_member_as(1, other).expect("it starts");
    let differs = "--initial-cluster-token is another there and etcd-cluster here";
    logged(&cluster, 0, &["WARN", "other flags", differs]).await;
    let differs = "--initial-cluster-token is etcd-cluster there and another here";
    logged(&cluster, 1, &["WARN", "other flags", differs]).await;
    let stopped = cluster.terminate(1).await.expect("it stops");
    assert!(stopped.success(), "{stopped}");

    cluster.start_member(1).expect("it starts");
    cluster.ready().await.expect("two are a majority");
    let (code, text) = http_get(&cluster.member(0).endpoint(), "/health")
        .await
        .expect("it answers");
    assert_eq!(code, 200, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_tells_its_log_how_it_starts_and_stops_and_under_which_name() {
    let mut cluster = Cluster::start(Server::Gonfalon, 1)
        .await
        .expect("the server starts");
    cluster.terminate(0).await.expect("it stops");
    let peers = cluster.member(0).peer_port().to_string();
    for words in [
        ["INFO", "opening the data directory", "m0.data"],
        ["INFO", "listening for members", &peers],
        ["INFO", "leading", "term"],
        ["INFO", "stopped in order", ""],
    ] {
        logged(&cluster, 0, &words).await;
    }
    let mut renamed = cluster.command(0);
    let own = format!("renamed=http://127.0.0.1:{peers}");
    renamed.args(["--name", "renamed", "--initial-cluster", &own]);
    cluster.start_member_as(0, renamed).expect("it starts");
    cluster.ready().await.expect("it is the same member");
    logged(&cluster, 0, &["WARN", "--name", "renamed", "m0"]).await;
}
