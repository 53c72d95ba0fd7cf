//! Python: `aetcd` as a client, and a fixture that starts an `etcd` by its name.

use std::path::Path;
use std::process::{Command, Output};

use gonfalon_tests::binaries::{python, server_under_test, workspace};
use gonfalon_tests::cluster::{Cluster, free_port};

use super::cluster;

/// Runs one of the scripts beside this file; fails with what it printed.
fn run(script: &str, args: &[&str]) {
    let script = workspace().join("tests/tests/clients").join(script);
    let output: Output = Command::new(python().expect("the virtual environment is there"))
        .arg(&script)
        .args(args)
        .output()
        .expect("Python runs");
    assert!(
        output.status.success(),
        "{} {}\n{}{}",
        Path::new(&script).display(),
        args.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs one of the checks of `aetcd_checks.py` against a cluster.
async fn check(name: &str, size: usize) {
    let cluster = cluster(size).await;
    let ports: Vec<String> = (0..size)
        .map(|at| cluster.member(at).client_port().to_string())
        .collect();
    run("aetcd_checks.py", &[name, &ports.join(",")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn aetcd_reads_and_writes() {
    check("keys", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aetcd_runs_transactions() {
    check("transactions", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aetcd_watches_and_goes_on_at_another_member() {
    check("watches", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aetcd_keeps_leases_and_lets_them_expire() {
    check("leases", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aetcd_takes_turns_with_a_lock() {
    check("locks", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aetcd_maintains() {
    check("maintenance", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixture_starts_and_stops_it_by_the_name_etcd() {
    // Never started: it has a directory with the link `etcd`.
    let cluster = Cluster::prepare(server_under_test(), 1, &[]).expect("a directory");
    let program = cluster.program().display().to_string();
    let data = cluster.dir().join("fixture").display().to_string();
    let port = || free_port().expect("a port").to_string();
    run("start_etcd.py", &[&program, &data, &port(), &port()]);
}
