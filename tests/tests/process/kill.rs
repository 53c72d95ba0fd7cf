//! SIGKILL, as when the power fails: of the leader, of a follower, of all.

use super::{SOME, advance, under_load, verify};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_leader_is_killed() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    for _ in 0..2 {
        let leader = cluster.leader().await.expect("a leader");
        cluster.kill(leader).expect("it runs");
        advance(&workload, SOME).await;
        cluster.start_member(leader).expect("it starts");
        cluster.ready().await.expect("it comes back");
        advance(&workload, SOME).await;
    }
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_follower_is_killed() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    let leader = cluster.leader().await.expect("a leader");
    for follower in (0..3).filter(|at| *at != leader) {
        cluster.kill(follower).expect("it runs");
        advance(&workload, SOME).await;
        cluster.start_member(follower).expect("it starts");
        cluster.ready().await.expect("it comes back");
    }
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_all_are_killed() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    for _ in 0..2 {
        for at in 0..3 {
            cluster.kill(at).expect("it runs");
        }
        for at in 0..3 {
            cluster.start_member(at).expect("it starts");
        }
        cluster.ready().await.expect("they come back");
        advance(&workload, SOME).await;
    }
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_members_are_killed_in_turn_without_a_rest() {
    let (mut cluster, workload) = under_load(3, &[]).await;
    for round in 0..6 {
        let at = round % 3;
        cluster.kill(at).expect("it runs");
        cluster.start_member(at).expect("it starts");
        advance(&workload, SOME / 6).await;
    }
    verify(cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_members_any_three_go_on() {
    let (mut cluster, workload) = under_load(5, &[]).await;
    let leader = cluster.leader().await.expect("a leader");
    let dead = [leader, (leader + 1) % 5];
    for at in dead {
        cluster.kill(at).expect("it runs");
    }
    advance(&workload, SOME).await;
    for at in dead {
        cluster.start_member(at).expect("it starts");
    }
    cluster.ready().await.expect("they come back");
    // Those who were dead are needed now.
    let needed: Vec<usize> = (0..5).filter(|at| !dead.contains(at)).take(2).collect();
    for &at in &needed {
        cluster.kill(at).expect("it runs");
    }
    advance(&workload, SOME).await;
    for &at in &needed {
        cluster.start_member(at).expect("it starts");
    }
    verify(cluster, workload).await;
}
