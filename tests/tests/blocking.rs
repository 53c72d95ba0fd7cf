//! The blocking facade, from plain threads: calls, watches as iterators, limits, interrupts.

use std::time::{Duration, Instant};

use gonfalon::blocking::{self, Interrupt, Next, Wait as _, WaitEach as _};
use gonfalon::{Cached, Client, Compare, ErrorKind, KeyRange, LostReason, Op};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;

const PATIENCE: Duration = Duration::from_secs(30);
const SERVERS: [Server; 3] = [Server::Gonfalon, Server::Etcd34, Server::Etcd35];

/// A server of each kind, and a client of it on a thread that knows no runtime.
fn each_server(test: impl Fn(&str, Client)) {
    for server in SERVERS {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let cluster = runtime.block_on(Cluster::start(server, 1));
        let cluster = cluster.expect("the server starts");
        eprintln!("against {server:?}");
        let endpoint = cluster.member(0).endpoint();
        test(&endpoint, blocking::connect(&endpoint).expect("it answers"));
    }
}

#[test]
fn keys_transactions_leases_caches_locks_and_elections_work_without_a_runtime() {
    each_server(|_, client| {
        let lease = client.grant(Duration::from_secs(30)).wait().unwrap();
        let put = client.put("b/k", "1").lease(&lease).wait().unwrap();
        let kv = client.get("b/k").wait().unwrap().unwrap();
        assert_eq!((kv.value_str(), kv.mod_revision), (Some("1"), put.revision));
        let txn = client
            .txn()
            .when(Compare::value("b/k").eq("1"))
            .then(Op::put("b/k", "2"))
            .wait()
            .unwrap();
        assert!(txn.succeeded);

        let cache = client.cache(KeyRange::prefix("b/")).wait().unwrap();
        let limit: Cached<u32> = client.cached("b/k").wait().unwrap();
        assert_eq!(*limit.load(), 2);
        let written = client.put("b/k", "3").wait().unwrap().revision;
        let snapshot = cache.at_least(written).wait().unwrap();
        assert_eq!(snapshot.get("b/k").unwrap().value, "3");

        let lock = client.lock("b/lock").acquire().wait().unwrap();
        let taken = client.lock("b/lock").try_acquire().wait().unwrap();
        assert!(taken.is_none());
        lock.release().wait().unwrap();
        let leader = client.election("b/election").campaign("me").wait().unwrap();
        let seen = client.election("b/election").leader().wait().unwrap();
        assert_eq!(seen.unwrap().value, "me");
        leader.resign().wait().unwrap();

        let pages = client.range(KeyRange::all()).pages(1);
        let keys: Vec<_> = pages
            .wait_each()
            .map(|page| page.unwrap().kvs.len())
            .collect();
        assert_eq!(keys, [1]);
        lease.revoke().wait().unwrap();
        assert_eq!(lease.lost().wait().unwrap(), LostReason::Revoked);
        client.close().wait().unwrap();
        let closed = client.get("b/k").wait().unwrap_err();
        assert_eq!(*closed.kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_watch_is_an_iterator_with_a_time_limit() {
    each_server(|_, client| {
        let mut changes = client.watch("w").wait().unwrap().wait_each();
        assert!(matches!(
            changes.next_within(Duration::from_millis(100)),
            Next::TimedOut
        ));
        // What was not there in time is not lost.
        let writer = client.clone();
        let writing = std::thread::spawn(move || {
            for number in 0..3 {
                writer.put("w", format!("{number}")).wait().unwrap();
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 3 {
            match changes.next_within(PATIENCE) {
                Next::Item(batch) => seen.extend(batch.unwrap().events),
                other => panic!("{other:?}"),
            }
        }
        writing.join().unwrap();
        let values: Vec<_> = seen
            .iter()
            .filter_map(|event| event.kv.value_str())
            .collect();
        assert_eq!(values, ["0", "1", "2"]);
        // The end is said once, and then there is nothing more.
        client.close().wait().unwrap();
        let last = changes.next().unwrap().unwrap_err();
        assert_eq!(*last.kind(), ErrorKind::Closed);
        assert!(changes.next().is_none());
    });
}

/// As Ctrl-C does: another thread frees those that wait, and nothing that they held stays.
#[test]
fn an_interrupt_frees_threads_that_wait_and_what_they_held_is_given_up() {
    each_server(|_, client| {
        let interrupt = Interrupt::new();
        let holder = client.lock("i/lock").acquire().wait().unwrap();
        let (waiter, stop) = (client.clone(), interrupt.clone());
        let locking = std::thread::spawn(move || {
            let lock = waiter.lock("i/lock");
            lock.acquire().wait_unless(&stop).unwrap().is_none()
        });
        let (watcher, stop) = (client.clone(), interrupt.clone());
        let watching = std::thread::spawn(move || {
            let watch = watcher.watch("i/k").wait().unwrap();
            // The iterator is dropped as soon as it ends.
            watch.wait_each_unless(&stop).count()
        });
        let began = Instant::now();
        let range = || KeyRange::prefix("i/lock/");
        while client.range(range()).count_only().wait().unwrap().count < 2 {
            assert!(began.elapsed() < PATIENCE, "the second never waits");
            std::thread::sleep(Duration::from_millis(10));
        }
        interrupt.interrupt();
        assert!(locking.join().unwrap(), "no lock");
        assert_eq!(watching.join().unwrap(), 0);
        while client.range(range()).count_only().wait().unwrap().count > 1 {
            assert!(began.elapsed() < PATIENCE, "its place in the queue stays");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(holder.is_held());
        let none = client.get("i/k").wait_unless(&interrupt).unwrap();
        assert!(none.is_none(), "it is used for good");
    });
}

#[test]
fn a_wait_with_a_limit_ends() {
    each_server(|_, client| {
        let holder = client.lock("l/lock").acquire().wait().unwrap();
        let began = Instant::now();
        let lock = client.lock("l/lock");
        let second = lock.acquire().wait_within(Duration::from_millis(200));
        let second = second.unwrap();
        assert!(second.is_none() && began.elapsed() < PATIENCE);
        assert!(holder.is_held());
        drop(holder);
    });
}

#[tokio::test]
async fn waiting_inside_of_a_runtime_is_an_error_and_neither_a_panic_nor_a_hang() {
    let cluster = Cluster::start(Server::Gonfalon, 1).await.unwrap();
    let endpoint = cluster.member(0).endpoint();
    let refused = blocking::connect(&endpoint).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::WouldBlock, "{refused}");
    let client = Client::connect(&endpoint).await.unwrap();
    let refused = client.put("k", "v").wait().unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::WouldBlock);
    assert!(client.get("k").await.unwrap().is_none(), "it was not sent");
    let mut changes = client.watch("k").await.unwrap().wait_each();
    let refused = changes.next().unwrap().unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::WouldBlock);
    assert!(changes.next().is_none());
}

/// Not even where a runtime would not let it.
#[tokio::test]
async fn handles_of_a_blocking_client_can_be_dropped_anywhere() {
    let cluster = Cluster::start(Server::Gonfalon, 1).await.unwrap();
    let endpoint = cluster.member(0).endpoint();
    let made = std::thread::spawn(move || {
        let client = blocking::connect(&endpoint).unwrap();
        let lease = client.grant(Duration::from_mins(1)).wait().unwrap();
        let lock = client.lock("d").acquire().wait().unwrap();
        let watch = client.watch("d").wait().unwrap().wait_each();
        (client, lease, lock, watch)
    });
    let (client, lease, lock, watch) = made.join().unwrap();
    // They are the ordinary handles: they can be awaited, too.
    client.put("d", "1").lease(&lease).await.unwrap();
    drop((lease, lock, watch, client));
}
