//! A disk that fails, by strace: the member says so and ends; the others go on without it.

use std::process::Command;

use gonfalon_proto::etcdserverpb::MoveLeaderRequest;
use gonfalon_tests::binaries::strace;
use gonfalon_tests::cluster::Cluster;

use super::{PATIENCE, SOME, advance, under_load, verify};

/// Which system calls fail, and how: with EIO if nothing else is said.
struct Faults {
    /// Separated by commas.
    calls: &'static str,
    /// Its name, and what the system calls it.
    error: (&'static str, &'static str),
    /// From which on, in each thread.
    when: &'static str,
    /// Only on these files, from the data directory; none: on all.
    files: Vec<String>,
}

impl Faults {
    fn new(calls: &'static str, when: &'static str) -> Self {
        let files = Vec::new();
        let error = ("EIO", "Input/output error");
        Self {
            calls,
            error,
            when,
            files,
        }
    }
}

/// Starts a member in which some system calls fail.
///
/// strace stands aside (`-D`), so that the process is the member itself and its exit code its own.
fn start_with_faults(cluster: &mut Cluster, at: usize, faults: &Faults) {
    let mut command = Command::new(strace().expect("strace is installed"));
    command.args(["-D", "-f", "-qqq", "--seccomp-bpf", "-o"]);
    command.arg(cluster.dir().join("strace.log"));
    let Faults { calls, when, .. } = faults;
    let (error, _) = faults.error;
    command.args(["-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:error={error}:{when}")]);
    for file in &faults.files {
        let path = cluster.member(at).data_dir().join(file);
        command.arg("-P").arg(path);
    }
    command.arg(cluster.program());
    cluster.configure(at, &mut command);
    cluster.start_member_as(at, command).expect("it starts");
}

/// Waits until a member ends because its disk failed.
async fn assert_stops(cluster: &mut Cluster, at: usize, why: &str) {
    let status = cluster.wait(at, PATIENCE).await.expect("it stops");
    let log = std::fs::read_to_string(cluster.member(at).log()).expect("it has a log");
    assert_eq!(status.code(), Some(1), "{log}");
    for words in ["storage failed; this member must stop", why] {
        assert!(log.contains(words), "{words:?} is not in its log:\n{log}");
    }
}

/// Restarts a follower with a disk that fails after a while, and waits for its end; then gives it a
/// good disk again.
async fn nothing_is_lost_with(faults: &Faults, leads: bool) {
    let (mut cluster, workload) = under_load(3, &[]).await;
    let leader = cluster.leader().await.expect("a leader");
    let victim = (leader + 1) % 3;
    let status = cluster.terminate(victim).await.expect("it stops");
    assert!(status.success(), "{status}");
    start_with_faults(&mut cluster, victim, faults);
    if leads {
        cluster.ready().await.expect("it comes back");
        lead(&cluster, victim).await;
    }
    assert_stops(&mut cluster, victim, faults.error.1).await;
    advance(&workload, SOME).await;
    cluster.start_member(victim).expect("it starts");
    verify(cluster, workload).await;
}

/// Makes a member the leader.
async fn lead(cluster: &Cluster, at: usize) {
    let status = cluster.client(at).status().await.expect("it serves");
    let target_id = status.header.expect("a header").member_id;
    let leader = cluster.leader().await.expect("a leader");
    let mut maintenance = cluster.client(leader).maintenance;
    let moved = maintenance
        .move_leader(MoveLeaderRequest { target_id })
        .await;
    moved.expect("leadership moves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_fsync_fails_says_so_and_stops() {
    // Counted for each thread: the one that syncs the log is the only one to get that far.
    let faults = Faults::new("fsync,fdatasync", "when=40+");
    nothing_is_lost_with(&faults, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_fsync_fails_is_succeeded() {
    // Late enough to be elected before.
    let faults = Faults::new("fsync,fdatasync", "when=250+");
    nothing_is_lost_with(&faults, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_cannot_write_its_log_says_so_and_stops() {
    // The log's files alone: sockets are written to with the same calls. Their numbers are not
    // known beforehand, but they begin with the first.
    let faults = Faults {
        files: (1..100).map(|at| format!("raft/{at:06}.log")).collect(),
        ..Faults::new("write,pwrite64,writev", "when=20+")
    };
    nothing_is_lost_with(&faults, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_disk_of_a_leader_is_full() {
    let faults = Faults {
        files: (1..100).map(|at| format!("raft/{at:06}.log")).collect(),
        error: ("ENOSPC", "No space left on device"),
        ..Faults::new("write,pwrite64,writev", "when=60+")
    };
    nothing_is_lost_with(&faults, true).await;
}
