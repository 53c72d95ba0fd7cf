//! A client that is closed, or dropped, leaves nothing behind. One test, alone in its process:
//! it counts what the whole process has.

use std::time::{Duration, Instant};

use gonfalon::{Cached, Client, Error, KeyRange};
use gonfalon_tests::binaries::server_under_test;
use gonfalon_tests::cluster::Cluster;

const CLIENTS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// What the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    threads: usize,
    files: usize,
    tasks: usize,
}

impl Held {
    fn now() -> Self {
        let entries = |dir| std::fs::read_dir(dir).expect("Linux").count();
        Self {
            threads: entries("/proc/self/task"),
            files: entries("/proc/self/fd"),
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
        }
    }

    /// Threads and connections that were told to end need a moment.
    async fn becomes(before: Self) {
        let began = Instant::now();
        while Self::now() != before {
            assert!(
                began.elapsed() < PATIENCE,
                "{before:?} are now {:?}",
                Self::now()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A client with one of everything that works in the background; some of it may outlive it.
async fn used(endpoint: &str, outlived: bool) -> Result<Client, Error> {
    let client = Client::connect(endpoint).await?;
    let lease = client.grant(Duration::from_mins(1)).await?;
    client.put("l/limit", "1").lease(&lease).await?;
    let watch = client.watch(KeyRange::prefix("l/")).await?;
    let cache = client.cache(KeyRange::prefix("l/")).await?;
    let limit: Cached<u32> = client.cached("l/limit").await?;
    let lock = client.lock("l/lock").acquire().await?;
    assert_eq!(*limit.load(), 1);
    if outlived {
        tokio::spawn(async move {
            lease.lost().await;
            drop((lease, watch, cache, limit, lock));
        });
    }
    Ok(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_leave_no_thread_no_file_and_no_task_behind() {
    let cluster = Cluster::start(server_under_test(), 1).await.unwrap();
    let endpoint = cluster.member(0).endpoint();
    // What comes once and stays, as the threads of the runtime.
    used(&endpoint, true).await.unwrap().close().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = Held::now();
    let began = Instant::now();
    for number in 0..CLIENTS {
        if number % 100 == 0 {
            eprintln!(
                "{number} clients after {:?}: {:?}",
                began.elapsed(),
                Held::now()
            );
        }
        if number % 10 == 0 {
            // Without a word.
            drop(used(&endpoint, false).await.unwrap());
        } else {
            let client = used(&endpoint, number % 2 == 0).await.unwrap();
            client.close().await.unwrap();
        }
    }
    eprintln!("{CLIENTS} clients in {:?}", began.elapsed());
    Held::becomes(before).await;
    let client = Client::connect(&endpoint).await.unwrap();
    let began = Instant::now();
    while !client.leases().await.unwrap().is_empty() {
        assert!(
            began.elapsed() < PATIENCE,
            "leases of clients that are gone"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
