//! etcd's own command line, every command that applies, against the server under test and a real
//! etcd 3.4 beside it: it must say the same of both.
//!
//! Ids, terms and addresses, which differ between any two clusters, have names in the transcripts
//! that are compared; revisions, counts and texts of errors are compared as they are.

#[path = "etcdctl/kv.rs"]
mod kv;
#[path = "etcdctl/lease.rs"]
mod lease;
#[path = "etcdctl/maintenance.rs"]
mod maintenance;
#[path = "etcdctl/members.rs"]
mod members;
#[path = "etcdctl/mirror.rs"]
mod mirror;
#[path = "etcdctl/recipes.rs"]
mod recipes;
#[path = "etcdctl/txn.rs"]
mod txn;
#[path = "etcdctl/watch.rs"]
mod watch;

use std::time::Duration;

use anyhow::Result;
use gonfalon_tests::binaries::{Server, server_under_test};
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::etcdctl::Etcdctl;

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// A lone member needs no second to elect itself.
const QUICK: [&str; 4] = ["--heartbeat-interval", "20", "--election-timeout", "200"];

/// A cluster with an empty store, and etcdctl for it.
async fn started(server: Server, size: usize) -> (Cluster, Etcdctl) {
    let flags = if size == 1 { &QUICK[..] } else { &[] };
    let cluster = Cluster::start_with(server, size, flags)
        .await
        .expect("the server starts");
    let etcdctl = Etcdctl::new(&cluster).expect("etcdctl is installed");
    (cluster, etcdctl)
}

/// Runs `script` against the server under test and against etcd; asserts that etcdctl said the
/// same, and gives what it said.
async fn says_the_same(size: usize, script: fn(&mut Etcdctl) -> Result<()>) -> String {
    let mut transcripts = Vec::new();
    for server in [Server::Etcd34, server_under_test()] {
        let (cluster, mut etcdctl) = started(server, size).await;
        let played = script(&mut etcdctl);
        played.unwrap_or_else(|error| {
            panic!("{server:?}: {error:#}\n{}", etcdctl.transcript());
        });
        transcripts.push(etcdctl.transcript());
        drop(cluster);
    }
    let ours = transcripts.pop().expect("two were played");
    let etcds = transcripts.pop().expect("two were played");
    assert_same(&etcds, &ours);
    ours
}

/// Asserts that two transcripts are equal, and shows where they are not.
#[track_caller]
fn assert_same(etcds: &str, ours: &str) {
    if etcds == ours {
        return;
    }
    let same = etcds
        .lines()
        .zip(ours.lines())
        .take_while(|(a, b)| a == b)
        .count();
    let from = same.saturating_sub(6);
    let part = |text: &str| -> Vec<String> {
        text.lines()
            .skip(from)
            .take(16)
            .map(str::to_owned)
            .collect()
    };
    panic!(
        "etcdctl says different things from line {}:\n--- of etcd\n{}\n--- of us\n{}",
        same + 1,
        part(etcds).join("\n"),
        part(ours).join("\n")
    );
}
