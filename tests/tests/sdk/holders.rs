//! Holders that are stopped, and clusters that lose their leader: never two who both pass their
//! fence.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use gonfalon::{Client, Lease, Op, Outcome, Revision};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::process::{Process, Signal};

use super::recipes::contenders;
use super::{each_server, within};

/// Every value that was written to the register, in order.
async fn register(client: &Client, since: Revision) -> Vec<i64> {
    let now = client.get("register").await.expect("the server answers");
    let now = now.expect("it was written").mod_revision;
    let watch = client.watch("register").from(since);
    let mut watch = watch.await.expect("the server answers");
    let mut written = Vec::new();
    while watch.position() < now {
        for event in super::next(&mut watch).await.events {
            let digits = event.kv.value_str().expect("it is text");
            written.push(digits.parse().expect("it is a number"));
        }
    }
    written
}

fn lines(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_holder_who_is_stopped_for_longer_than_his_lease_writes_nothing_when_he_wakes_up() {
    each_server(async |cluster, client| {
        let since = client.put("register", "0").await.unwrap().revision;
        for round in 0..3 {
            let log = cluster.dir().join(format!("holder{round}.log"));
            let mut command = Command::new(env!("CARGO_BIN_EXE_holder"));
            command.args([&cluster.member(0).endpoint(), "stopped", "2"]);
            let mut holder = Process::spawn(command, &log).unwrap();
            let at_work = async {
                while lines(&log).len() < 3 + round {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            within(at_work).await;
            let lock = client.lock("stopped").ttl(Duration::from_secs(2));
            let next = tokio::spawn(async move { within(lock.acquire()).await.unwrap() });
            contenders(&client, "stopped", 2).await;
            holder.signal(Signal::STOP).unwrap();
            let next = within(next).await.unwrap();
            let value = next.fence().revision().to_string();
            let written = next.txn().then(Op::put("register", value)).await.unwrap();
            assert!(written.succeeded && next.is_held());
            let before = lines(&log).len();
            holder.signal(Signal::CONT).unwrap();
            // It finds out at its first look, whenever that was.
            holder.wait(super::PATIENCE).await.unwrap();
            let after = lines(&log).split_off(before);
            // One line may have been on its way when it was stopped, and one look had been made.
            assert!(after.len() <= 3, "{after:?}");
            let last = after.last().expect("it says that it has lost");
            assert!(last.starts_with("believed=false written=false"), "{last}");
            next.release().await.unwrap();
        }
        let written = register(&client, since).await;
        assert!(
            written.is_sorted(),
            "a fence was passed by an older one: {written:?}"
        );
    })
    .await;
}

/// Holders and waiters, each of them a client of all members.
async fn twenty_five<G, F: Future<Output = G>>(
    cluster: &Cluster,
    hold: impl Fn(Client, Lease, usize) -> F,
) -> Vec<G> {
    let holders = (0..25).map(async |number| {
        let client = super::client(cluster);
        let lease = client
            .grant(Duration::from_secs(20))
            .await
            .expect("the server answers");
        hold(client, lease, number).await
    });
    join_all(holders).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_locks_and_elections_outlive_the_leader_of_the_cluster() {
    let mut cluster = Cluster::start(Server::Gonfalon, 3).await.unwrap();
    let lock = async |client: Client, lease, number| {
        let lock = client.lock(format!("l{number}")).lease(&lease);
        within(lock.acquire()).await.unwrap()
    };
    let lead = async |client: Client, lease, number| {
        let election = client.election(format!("e{number}")).lease(&lease);
        within(election.campaign("first")).await.unwrap()
    };
    let locks = twenty_five(&cluster, lock).await;
    let leaders = twenty_five(&cluster, lead).await;
    let mut waiting = Vec::new();
    for number in 0..25 {
        let client = super::client(&cluster);
        waiting.push(tokio::spawn(async move {
            let lock = client.lock(format!("l{number}"));
            let guard = lock.acquire().await.unwrap();
            let election = client.election(format!("e{number}"));
            let leadership = election.campaign("second").await.unwrap();
            (guard, leadership)
        }));
    }
    let client = super::client(&cluster);
    for number in 0..25 {
        contenders(&client, &format!("l{number}"), 2).await;
    }
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).unwrap();
    // The others elect a new one; whoever holds something still does, and can prove it.
    for guard in &locks {
        let proven = loop {
            match within(guard.txn().then(Op::put("p", "")).into_future()).await {
                // Sent over a connection to the dead that nobody had missed yet.
                Err(error) if error.outcome() == Outcome::Unknown => {}
                proven => break proven.unwrap(),
            }
        };
        assert!(proven.succeeded && guard.is_held(), "{guard:?}");
    }
    for leadership in &leaders {
        within(leadership.proclaim("still first")).await.unwrap();
        assert!(leadership.is_held(), "{leadership:?}");
    }
    assert!(
        waiting.iter().all(|task| !task.is_finished()),
        "two hold it"
    );
    for (guard, leadership) in locks.into_iter().zip(leaders) {
        let fences = (guard.fence(), leadership.fence());
        within(guard.release()).await.unwrap();
        within(leadership.resign()).await.unwrap();
        let (next, leads) = within(waiting.remove(0)).await.unwrap();
        assert!(next.fence() > fences.0 && leads.fence() > fences.1);
        assert!(next.is_held() && leads.is_held());
    }
    cluster.start_member(leader).unwrap();
    cluster.ready().await.unwrap();
}

/// From when until when somebody was sure that he held the lock.
type Tenure = (Instant, Instant);

/// Holds the lock again and again, and writes his fence through it, until told to stop.
async fn contend(client: Client, stop: Arc<AtomicBool>) -> Vec<Tenure> {
    let lock = client.lock("load").ttl(Duration::from_secs(10));
    let mut tenures = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        // What fails while a leader is missing is begun anew.
        let Ok(guard) = within(lock.acquire()).await else {
            continue;
        };
        let begin = Instant::now();
        let fence = guard.fence().revision().to_string();
        let written = guard.txn().then(Op::put("register", fence)).await;
        let end = Instant::now();
        if guard.is_held() {
            tenures.push((begin, end));
            // What is not known may have been written, and was if the key is still there.
            assert!(written.map_or_else(|_| true, |written| written.succeeded));
        }
        // If it fails it goes on in the background.
        let _ = guard.release().await;
    }
    tenures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_holds_a_lock_while_each_member_of_three_is_killed() {
    let mut cluster = Cluster::start(Server::Gonfalon, 3).await.unwrap();
    let client = super::client(&cluster);
    let first = client.put("register", "0").await.unwrap().revision;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let client = super::client(&cluster);
        tasks.push(tokio::spawn(contend(client, stop.clone())));
    }
    for at in 0..3 {
        let before = client.get("register").await.unwrap().unwrap().version;
        cluster.kill(at).unwrap();
        // The two that are left hand it over as before.
        let goes_on = async {
            loop {
                let now = client.get("register").await;
                if now.is_ok_and(|kv| kv.is_some_and(|kv| kv.version > before + 20)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(goes_on).await;
        cluster.start_member(at).unwrap();
        cluster.ready().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut tenures = Vec::new();
    for task in tasks {
        tenures.extend(within(task).await.unwrap());
    }
    tenures.sort();
    eprintln!("{} tenures", tenures.len());
    assert!(tenures.len() > 60, "{}", tenures.len());
    for pair in tenures.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two held it: {pair:?}");
    }
    let written = register(&client, first).await;
    assert!(
        written.is_sorted(),
        "a fence was passed by an older one: {written:?}"
    );
    contenders(&client, "load", 0).await;
}
