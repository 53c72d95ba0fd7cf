//! Clusters of real processes that are killed, paused, stopped and given bad disks while clients
//! write and watch: nothing acknowledged is lost, no read is stale, no event is lost, repeated or
//! out of order.
//!
//! The clients and what is checked of them are in `gonfalon_tests::{workload, check}`.

#[path = "process/alone.rs"]
mod alone;
#[path = "process/disk.rs"]
mod disk;
#[path = "process/founding.rs"]
mod founding;
#[path = "process/kill.rs"]
mod kill;
#[path = "process/pause.rs"]
mod pause;
#[path = "process/refusal.rs"]
mod refusal;
#[path = "process/single.rs"]
mod single;
#[path = "process/snapshot.rs"]
mod snapshot;
#[path = "process/space.rs"]
mod space;
#[path = "process/terminate.rs"]
mod terminate;
#[path = "process/wiped.rs"]
mod wiped;

use std::time::Duration;

use gonfalon_tests::binaries::server_under_test;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::workload::Workload;

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Writes before, during and after what a test does to the cluster.
const SOME: u64 = 60;

/// A cluster that has clients, and has acknowledged some writes.
async fn under_load(size: usize, flags: &[&str]) -> (Cluster, Workload) {
    let cluster = Cluster::start_with(server_under_test(), size, flags)
        .await
        .expect("the cluster starts");
    let workload = Workload::start(&cluster);
    advance(&workload, SOME).await;
    (cluster, workload)
}

/// Waits until clients have written some more.
#[track_caller]
fn advance(workload: &Workload, writes: u64) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let advanced = workload.advance(writes, PATIENCE).await;
        advanced.unwrap_or_else(|error| panic!("{at}: writes do not go on: {error:#}"));
    }
}

/// Waits for the cluster, ends the clients and judges all they were told.
async fn verify(mut cluster: Cluster, workload: Workload) {
    cluster.ready().await.expect("every member serves");
    advance(&workload, SOME).await;
    let report = workload.verify(&cluster).await.expect("a last look");
    eprintln!("{report}");
    let revisions = usize::try_from(report.revision).expect("positive");
    // Three watchers from the beginning, and one of each member at the end.
    assert!(report.events > 3 * revisions, "{report}");
}
