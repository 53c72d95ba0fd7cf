//! A disk that fails, by strace: the member says so and ends; the others go on without it.

use std::process::Command;

use gonfalon_tests::binaries::strace;
use gonfalon_tests::cluster::Cluster;

use super::{PATIENCE, SOME, advance, under_load, verify};

/// Starts a member in which some system calls fail.
///
/// strace stands aside (`-D`), so that the process is the member itself and its exit code its own.
fn start_with_faults(cluster: &mut Cluster, at: usize, faults: &[&str]) {
    let mut command = Command::new(strace().expect("strace is installed"));
    command.args(["-D", "-f", "-qqq", "--seccomp-bpf", "-o"]);
    command.arg(cluster.dir().join("strace.log"));
    command.args(faults).arg(cluster.program());
    cluster.configure(at, &mut command);
    cluster.start_member_as(at, command).expect("it starts");
}

/// Waits until a member ends because its disk failed.
async fn assert_stops(cluster: &mut Cluster, at: usize) {
    let status = cluster.wait(at, PATIENCE).await.expect("it stops");
    let log = std::fs::read_to_string(cluster.member(at).log()).expect("it has a log");
    assert_eq!(status.code(), Some(1), "{log}");
    for words in [
        "storage failed; this member must stop",
        "Input/output error",
    ] {
        assert!(log.contains(words), "{words:?} is not in its log:\n{log}");
    }
}

/// Restarts the member number `at` with a disk that fails after a while, and waits for its end;
/// then gives it a good disk again.
async fn nothing_is_lost_with(faults: &[&str], leads: bool) {
    let (mut cluster, workload) = under_load(3, &[]).await;
    let leader = cluster.leader().await.expect("a leader");
    let victim = if leads { leader } else { (leader + 1) % 3 };
    let status = cluster.terminate(victim).await.expect("it stops");
    assert!(status.success(), "{status}");
    start_with_faults(&mut cluster, victim, faults);
    assert_stops(&mut cluster, victim).await;
    advance(&workload, SOME).await;
    cluster.start_member(victim).expect("it starts");
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_fsync_fails_says_so_and_stops() {
    // Counted for each thread: the one that syncs the log is the only one to get that far.
    let faults = ["-e", "inject=fsync,fdatasync:error=EIO:when=40+"];
    nothing_is_lost_with(&faults, false).await;
}
