//! One member alone: what it acknowledged is there after a crash, and after Ctrl-C.

use gonfalon_tests::process::Signal;

use super::{PATIENCE, SOME, advance, under_load, verify};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9_in_the_middle_of_writes() {
    let (mut cluster, workload) = under_load(1, &[]).await;
    for _ in 0..4 {
        cluster.kill(0).expect("it runs");
        cluster.start_member(0).expect("it starts");
        cluster.ready().await.expect("it comes back");
        advance(&workload, SOME).await;
    }
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_it_and_the_data_is_there_when_it_starts_again() {
    let (mut cluster, workload) = under_load(1, &[]).await;
    for signal in [Signal::INT, Signal::TERM] {
        cluster.signal(0, signal).expect("it runs");
        let status = cluster.wait(0, PATIENCE).await.expect("it stops");
        assert!(status.success(), "{signal:?} ended it with {status}");
        cluster.start_member(0).expect("it starts");
        cluster.ready().await.expect("it comes back");
        advance(&workload, SOME).await;
    }
    verify(cluster, workload).await;
}
