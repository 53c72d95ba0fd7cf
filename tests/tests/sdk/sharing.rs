//! Read-write locks, semaphores, several locks as one, barriers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use gonfalon::{Client, ErrorKind, LostReason, Op};

use super::recipes::{TTL, contenders};
use super::{each_server, within};

/// As another process, as far as servers can tell, every second time.
fn of_two(number: u32, cluster: &gonfalon_tests::cluster::Cluster, client: &Client) -> Client {
    match number % 2 {
        0 => client.clone(),
        _ => super::client(cluster),
    }
}

/// Readers count as 1 and writers as this.
const WRITER: u32 = 1000;

#[tokio::test]
async fn readers_share_a_lock_and_writers_have_it_alone() {
    each_server(async |cluster, client| {
        let inside = Arc::new(AtomicU32::new(0));
        let most_readers = Arc::new(AtomicU32::new(0));
        let tasks = (0..24).map(|number| {
            let lock = of_two(number, cluster, &client).rw_lock("rw").ttl(TTL);
            let (inside, most) = (inside.clone(), most_readers.clone());
            tokio::spawn(async move {
                if number % 4 == 3 {
                    let guard = within(lock.write()).await.unwrap();
                    assert_eq!(inside.fetch_add(WRITER, Ordering::SeqCst), 0, "not alone");
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    assert!(guard.txn().then(Op::put("w", "1")).await.unwrap().succeeded);
                    inside.fetch_sub(WRITER, Ordering::SeqCst);
                    guard.release().await.unwrap();
                } else {
                    let guard = within(lock.read()).await.unwrap();
                    let before = inside.fetch_add(1, Ordering::SeqCst);
                    assert!(before < WRITER, "together with a writer");
                    most.fetch_max(before + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    guard.release().await.unwrap();
                }
            })
        });
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            task.unwrap();
        }
        assert!(
            most_readers.load(Ordering::SeqCst) > 1,
            "readers did not share it"
        );
        contenders(&client, "rw", 0).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_overtakes_a_writer_who_waits() {
    each_server(async |_, client| {
        let lock = client.rw_lock("o").ttl(TTL);
        let first = lock.read().await.unwrap();
        let second = lock.try_read().await.unwrap().expect("readers share it");
        assert!(lock.try_write().await.unwrap().is_none());
        let late = lock.write_within(Duration::from_millis(50)).await;
        assert_eq!(*late.unwrap_err().kind(), ErrorKind::Timeout);
        contenders(&client, "o", 2).await;

        let writer = lock.clone().identity("writer");
        let writer = tokio::spawn(async move { writer.write().await.unwrap() });
        contenders(&client, "o", 3).await;
        assert!(lock.try_read().await.unwrap().is_none());
        contenders(&client, "o", 3).await;
        let last = lock.clone();
        let last = tokio::spawn(async move { last.read().await.unwrap() });
        contenders(&client, "o", 4).await;
        let line = lock.contenders().await.unwrap();
        let holders: Vec<bool> = line.iter().map(|one| one.is_holder).collect();
        assert_eq!(holders, [true, true, false, false]);
        assert_eq!(line[2].identity, "writer");

        first.release().await.unwrap();
        assert!(!writer.is_finished());
        second.release().await.unwrap();
        let writer = within(writer).await.unwrap();
        assert!(!last.is_finished());
        drop(writer);
        assert!(within(last).await.unwrap().is_held());
    })
    .await;
}

/// etcd's own read-write lock is a library of Go's: here are its keys, put as it puts them.
#[tokio::test]
async fn keys_of_etcds_own_read_write_lock_are_waited_for() {
    each_server(async |_, client| {
        let lock = client.rw_lock("etcd").ttl(TTL);
        client
            .put("etcd/write/1700000000000000000", "")
            .await
            .unwrap();
        assert!(lock.try_read().await.unwrap().is_none());
        let ours = lock.clone();
        let ours = tokio::spawn(async move { ours.read().await.unwrap() });
        contenders(&client, "etcd", 2).await;
        client
            .delete("etcd/write/1700000000000000000")
            .await
            .unwrap();
        let ours = within(ours).await.unwrap();
        assert!(ours.key().starts_with(b"etcd/read/"), "{ours:?}");
        client
            .put("etcd/read/1700000000000000001", "")
            .await
            .unwrap();
        drop(ours);
        assert!(lock.try_read().await.unwrap().is_some());
        assert!(lock.try_write().await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn as_many_hold_a_semaphore_as_it_has_permits_and_in_order() {
    each_server(async |cluster, client| {
        let inside = Arc::new(AtomicU32::new(0));
        let most = Arc::new(AtomicU32::new(0));
        let tasks = (0..20).map(|number| {
            let semaphore = of_two(number, cluster, &client).semaphore("s", 3).ttl(TTL);
            let (inside, most) = (inside.clone(), most.clone());
            tokio::spawn(async move {
                let permit = within(semaphore.acquire()).await.unwrap();
                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(now <= 3, "{now} hold it");
                most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                permit.release().await.unwrap();
            })
        });
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            task.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 3, "a permit was not used");
        contenders(&client, "s", 0).await;
        assert_eq!(client.get("s").await.unwrap().unwrap().value, "3");
    })
    .await;
}

#[tokio::test]
async fn whoever_asked_first_gets_the_next_permit_and_all_must_agree_on_their_number() {
    each_server(async |_, client| {
        let semaphore = client.semaphore("f", 2).ttl(TTL);
        let other = client.semaphore("f", 3).ttl(TTL);
        let one = semaphore.acquire().await.unwrap();
        let error = other.acquire().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains("f holds 2"), "{error}");
        let none = client.semaphore("f", 0).try_acquire().await.unwrap_err();
        assert_eq!(*none.kind(), ErrorKind::InvalidArgument);
        let two = semaphore
            .try_acquire()
            .await
            .unwrap()
            .expect("there are two");
        assert!(semaphore.try_acquire().await.unwrap().is_none());

        let mut waiting = Vec::new();
        for number in 0..5_u64 {
            let semaphore = semaphore.clone().identity(format!("{number}"));
            waiting.push(tokio::spawn(
                async move { semaphore.acquire().await.unwrap() },
            ));
            contenders(&client, "f", 3 + number).await;
        }
        let line = semaphore.contenders().await.unwrap();
        assert_eq!(line.iter().filter(|one| one.is_holder).count(), 2);
        // The one in the middle goes: those behind move up.
        let gone = waiting.remove(2);
        gone.abort();
        contenders(&client, "f", 6).await;
        let mut held = vec![one, two];
        for next in 0..4 {
            let permit = held.remove(next % 2);
            permit.release().await.unwrap();
            held.insert(0, within(waiting.remove(0)).await.unwrap());
            assert!(waiting.iter().all(|task| !task.is_finished()), "overtaken");
        }
        assert!(held.iter().all(gonfalon::Permit::is_held));
    })
    .await;
}

#[tokio::test]
async fn several_locks_are_had_all_or_none_whatever_their_order() {
    each_server(async |_, client| {
        let all = client.multi_lock(["c", "a", "b", "a"]).ttl(TTL);
        let guard = all.acquire().await.unwrap();
        assert_eq!(guard.names(), ["a", "b", "c"]);
        assert!(guard.fences().is_sorted() && guard.is_held());
        assert!(client.lock("b").try_acquire().await.unwrap().is_none());
        assert!(guard.txn().then(Op::put("m", "1")).await.unwrap().succeeded);
        guard.release().await.unwrap();

        // One is taken: nothing of the others stays.
        let taken = client.lock("b").ttl(TTL).acquire().await.unwrap();
        assert!(all.try_acquire().await.unwrap().is_none());
        for name in ["a", "c"] {
            contenders(&client, name, 0).await;
        }
        let late = all.acquire_within(Duration::from_millis(100)).await;
        assert_eq!(*late.unwrap_err().kind(), ErrorKind::Timeout);
        for (name, holders) in [("a", 0), ("b", 1), ("c", 0)] {
            contenders(&client, name, holders).await;
        }
        drop(taken);

        // Losing one is losing all.
        let guard = within(all.acquire()).await.unwrap();
        let key = client.lock("b").contenders().await.unwrap().remove(0).key;
        client.delete(&key).await.unwrap();
        assert_eq!(within(guard.lost()).await, LostReason::KeyDeleted);
        assert!(!guard.txn().then(Op::put("m", "2")).await.unwrap().succeeded);
    })
    .await;
}

#[tokio::test]
async fn those_who_want_the_same_locks_in_part_do_not_wait_for_each_other_for_ever() {
    each_server(async |cluster, client| {
        let sets = [["a", "b"], ["b", "c"], ["c", "a"]];
        let inside: Arc<[AtomicU32; 3]> = Arc::default();
        let tasks = (0..12_u32).map(|number| {
            let names = sets[number as usize % 3];
            let locks = of_two(number, cluster, &client).multi_lock(names).ttl(TTL);
            let inside = inside.clone();
            tokio::spawn(async move {
                let at = |name: &str| usize::from(name.as_bytes()[0] - b'a');
                for _ in 0..3 {
                    let guard = within(locks.acquire()).await.unwrap();
                    for name in names {
                        let before = inside[at(name)].fetch_add(1, Ordering::SeqCst);
                        assert_eq!(before, 0, "two hold {name}");
                    }
                    tokio::task::yield_now().await;
                    for name in names {
                        inside[at(name)].fetch_sub(1, Ordering::SeqCst);
                    }
                    guard.release().await.unwrap();
                }
            })
        });
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            task.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_barrier_holds_everybody_until_it_is_released() {
    each_server(async |cluster, client| {
        let barrier = client.barrier("b");
        within(barrier.wait()).await.unwrap();
        assert!(barrier.hold().await.unwrap() && barrier.is_held().await.unwrap());
        assert!(!super::client(cluster).barrier("b").hold().await.unwrap());
        let mut waiting = Vec::new();
        for _ in 0..5 {
            let barrier = super::client(cluster).barrier("b");
            waiting.push(tokio::spawn(async move { barrier.wait().await.unwrap() }));
        }
        for _ in 0..3 {
            client.put("other", "1").await.unwrap();
        }
        assert!(waiting.iter().all(|task| !task.is_finished()));
        barrier.release().await.unwrap();
        for task in waiting {
            within(task).await.unwrap();
        }
        // With a lease it goes with it.
        let lease = client.grant(TTL).await.unwrap();
        assert!(client.barrier("b").lease(&lease).hold().await.unwrap());
        let waits = tokio::spawn(async move { barrier.wait().await.unwrap() });
        drop(lease);
        within(waits).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn all_begin_together_and_end_together_behind_a_double_barrier() {
    each_server(async |cluster, client| {
        for round in 0..3 {
            let entered = Arc::new(AtomicU32::new(0));
            let leaving = Arc::new(AtomicU32::new(0));
            let tasks = (0..4).map(|number| {
                let client = of_two(number, cluster, &client);
                let (entered, leaving) = (entered.clone(), leaving.clone());
                tokio::spawn(async move {
                    let barrier = client.double_barrier("d", 4).ttl(TTL);
                    entered.fetch_add(1, Ordering::SeqCst);
                    let guard = within(barrier.enter()).await.unwrap();
                    assert_eq!(entered.load(Ordering::SeqCst), 4, "too early");
                    let full = barrier.enter().await.unwrap_err();
                    assert_eq!(*full.kind(), ErrorKind::FailedPrecondition);
                    leaving.fetch_add(1, Ordering::SeqCst);
                    within(guard.leave()).await.unwrap();
                    assert_eq!(leaving.load(Ordering::SeqCst), 4, "left too early");
                })
            });
            for task in join_all(tasks.collect::<Vec<_>>()).await {
                task.unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
        }
        contenders(&client, "d/waiters", 0).await;
        assert!(client.get("d/ready").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_participant_who_dies_is_waited_for_until_his_lease_ends() {
    each_server(async |_, client| {
        let lease = client.grant(TTL).await.unwrap();
        let barrier = client.double_barrier("x", 2).ttl(TTL);
        let dying = barrier.clone().lease(&lease);
        let other = tokio::spawn(async move { barrier.enter().await.unwrap() });
        let dying = within(dying.enter()).await.unwrap();
        let other = within(other).await.unwrap();
        let mut leaving = Box::pin(other.leave());
        for _ in 0..20 {
            assert!((&mut leaving).now_or_never().is_none(), "left too early");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        client.revoke(lease.id()).await.unwrap();
        within(leaving).await.unwrap();
        within(dying.lost()).await;
    })
    .await;
}
