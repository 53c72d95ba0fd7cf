//! What it costs to hand something over for which many wait, by the servers' own count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gonfalon::Client;
use gonfalon_tests::cluster::Cluster;

use super::recipes::contenders;
use super::{each_server, metric, within};

const WAITERS: u32 = 100;

/// What the members have counted.
#[derive(Debug, Clone, Copy)]
struct Counts {
    txns: f64,
    ranges: f64,
    events: f64,
    watchers: f64,
}

async fn counts(cluster: &Cluster) -> Counts {
    let handled = async |method| metric(cluster, &["grpc_server_handled_total{", method]).await;
    Counts {
        txns: handled("grpc_method=\"Txn\"").await,
        ranges: handled("grpc_method=\"Range\"").await,
        events: metric(cluster, &["etcd_debugging_mvcc_events_total "]).await,
        watchers: metric(cluster, &["etcd_debugging_mvcc_watcher_total "]).await,
    }
}

/// Waits until every waiter watches his own key and the one before.
async fn all_watch(cluster: &Cluster) {
    let watching = async {
        while counts(cluster).await.watchers < f64::from(2 * WAITERS) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(watching).await;
}

/// How much each hand-over has cost: transactions (the release is one), reads, events.
fn cost(before: Counts, after: Counts) -> [f64; 3] {
    let each = |after: f64, before: f64| (after - before) / f64::from(WAITERS);
    [
        each(after.txns, before.txns),
        each(after.ranges, before.ranges),
        each(after.events, before.events),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_a_lock_over_costs_one_event_and_one_transaction_however_many_wait() {
    each_server(async |cluster, client| {
        let first = client.lock("h").acquire().await.unwrap();
        let lease = client.grant(Duration::from_mins(1)).await.unwrap();
        let last = Arc::new(AtomicU32::new(0));
        let mut tasks = Vec::new();
        for _ in 0..WAITERS {
            let lock = client.lock("h").lease(&lease);
            let last = last.clone();
            tasks.push(tokio::spawn(async move {
                let guard = within(lock.acquire()).await.unwrap();
                let turn = u32::try_from(guard.fence().revision().get()).unwrap();
                let before = last.swap(turn, Ordering::SeqCst);
                assert!(
                    before < turn,
                    "{turn} came before {before} and got it later"
                );
                guard.release().await.unwrap();
            }));
        }
        contenders(&client, "h", u64::from(WAITERS) + 1).await;
        all_watch(cluster).await;
        let before = counts(cluster).await;
        first.release().await.unwrap();
        for task in tasks {
            within(task).await.unwrap();
        }
        let [txns, ranges, events] = cost(before, counts(cluster).await);
        eprintln!("each hand-over: {txns} transactions, {ranges} reads, {events} events");
        // The first release is one more, and one who looks may find that his turn has not come.
        assert!(
            txns <= 2.1,
            "{txns} transactions: one to release, one to look"
        );
        assert!(ranges <= 0.1, "{ranges} reads");
        // The one who releases may be told of it before his watch is cancelled.
        assert!(events <= 2.1, "{events} events");
    })
    .await;
}

/// Holds permits one after the other, with as many waiting as there are.
async fn hand_permits_over(client: &Client) {
    let lease = client
        .grant(Duration::from_mins(1))
        .await
        .expect("the server answers");
    let mut tasks = Vec::new();
    for _ in 0..WAITERS {
        let semaphore = client.semaphore("hs", 3).lease(&lease);
        tasks.push(tokio::spawn(async move {
            let permit = within(semaphore.acquire())
                .await
                .expect("the server answers");
            permit.release().await.expect("the server answers");
        }));
    }
    for task in tasks {
        within(task).await.expect("the server answers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_a_permit_over_costs_the_same_however_many_wait() {
    each_server(async |cluster, client| {
        let semaphore = client.semaphore("hs", 3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(semaphore.acquire().await.unwrap());
        }
        let other = client.clone();
        let handing = tokio::spawn(async move { hand_permits_over(&other).await });
        contenders(&client, "hs", u64::from(WAITERS) + 3).await;
        all_watch(cluster).await;
        let before = counts(cluster).await;
        drop(held);
        within(handing).await.unwrap();
        let [txns, ranges, events] = cost(before, counts(cluster).await);
        eprintln!("each hand-over: {txns} transactions, {ranges} reads, {events} events");
        // To release, to look as the first who waits, to look again, to say that it is had.
        assert!(txns <= 6.0, "{txns} transactions");
        assert!(ranges <= 0.1, "{ranges} reads");
        assert!(events <= 6.0, "{events} events");
    })
    .await;
}
