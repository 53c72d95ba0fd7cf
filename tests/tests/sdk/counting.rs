//! Counters, queues, and transactions as functions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use gonfalon::{Client, Error, ErrorKind, KeyRange, Outcome};
use gonfalon_tests::relay::Relay;

use super::{each_server, within};

#[tokio::test]
async fn every_addition_counts_once_under_load() {
    each_server(async |cluster, client| {
        let tasks = (0..8).map(|number| {
            let counter = match number % 2 {
                0 => client.counter("c"),
                _ => super::client(cluster).counter("c"),
            };
            tokio::spawn(async move {
                let mut sums = Vec::new();
                for _ in 0..10 {
                    sums.push(within(counter.add(3)).await.unwrap());
                }
                sums
            })
        });
        let mut sums = BTreeSet::new();
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            sums.extend(task.unwrap());
        }
        let wanted: BTreeSet<i64> = (1..=80).map(|number| 3 * number).collect();
        assert_eq!(sums, wanted, "each sum was somebody's");
        let counter = client.counter("c");
        assert_eq!(counter.add(-240).await.unwrap(), 0);
        assert_eq!(client.get("c").await.unwrap().unwrap().value, "0");
        assert_eq!(counter.add(i64::MAX).await.unwrap(), i64::MAX);
        let error = counter.add(1).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        client.put("c", "many").await.unwrap();
        let error = counter.add(1).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::FailedPrecondition);
        client.delete("c").await.unwrap();
        assert_eq!(client.counter("c").get().await.unwrap(), 0);
        assert_eq!(within(counter.add(1)).await.unwrap(), 1);
    })
    .await;
}

/// The connection is cut after so many bytes of answers, for every number that an addition takes:
/// before, within and after what tells that it took place.
#[tokio::test]
async fn an_addition_whose_answer_is_lost_counts_once() {
    each_server(async |cluster, direct| {
        let relay = Relay::to(cluster.member(0).client_port()).await.unwrap();
        let client = Client::builder().endpoints(relay.endpoint());
        let client = client.retry_share(1.0).build().unwrap();
        let counter = client.counter("u");
        let mut sum = counter.add(1).await.unwrap();
        let queue = client.queue("uq");
        let mut items = 0_u64;
        for bytes in (0..300).step_by(7) {
            relay.cut_after(bytes);
            match within(counter.add(1)).await {
                Ok(told) => {
                    sum += 1;
                    assert_eq!(told, sum, "cut after {bytes}");
                }
                Err(error) => assert_eq!(error.outcome(), Outcome::NotApplied, "{error}"),
            }
            let stored = direct.counter("u").get().await.unwrap();
            assert_eq!(stored, sum, "cut after {bytes}");
            relay.cut_after(bytes);
            match within(queue.enqueue("x")).await {
                Ok(_) => items += 1,
                Err(error) => assert_eq!(error.outcome(), Outcome::NotApplied, "{error}"),
            }
            assert_eq!(direct.queue("uq").count().await.unwrap(), items, "{bytes}");
            // What the next repetitions are paid with.
            for _ in 0..5 {
                within(client.get("u").into_future()).await.unwrap();
            }
        }
        assert!(sum > 30, "{sum}");
    })
    .await;
}

#[tokio::test]
async fn items_come_out_in_the_order_in_which_they_went_in() {
    each_server(async |cluster, client| {
        let queue = client.queue("q");
        assert_eq!(queue.try_dequeue().await.unwrap(), None);
        for number in 0..10 {
            queue.enqueue(format!("{number}")).await.unwrap();
        }
        assert_eq!(queue.count().await.unwrap(), 10);
        for number in 0..10 {
            assert_eq!(queue.dequeue().await.unwrap(), format!("{number}"));
        }
        let other = super::client(cluster).queue("q");
        let waiting = tokio::spawn(async move { other.dequeue().await.unwrap() });
        tokio::task::yield_now().await;
        queue.enqueue("late").await.unwrap();
        assert_eq!(within(waiting).await.unwrap(), "late");

        let queue = client.priority_queue("p");
        for (value, priority) in [("c", 7), ("e", 500), ("d", 7), ("a", 0), ("b", 1)] {
            queue.enqueue(value, priority).await.unwrap();
        }
        // As etcd's own puts it, before ours of the same priority.
        let keys = client.range(KeyRange::prefix("p/")).await.unwrap().kvs;
        assert_eq!(keys[2].key, "p/00007/0000000000000000");
        for wanted in ["a", "b", "c", "d", "e"] {
            assert_eq!(queue.dequeue().await.unwrap(), wanted);
        }
    })
    .await;
}

#[tokio::test]
async fn every_item_is_taken_by_one() {
    each_server(async |cluster, client| {
        for number in 0..40 {
            client
                .queue("w")
                .enqueue(format!("{number}"))
                .await
                .unwrap();
        }
        let tasks = (0..6).map(|number| {
            let queue = match number % 2 {
                0 => client.queue("w"),
                _ => super::client(cluster).queue("w"),
            };
            tokio::spawn(async move {
                let mut taken = Vec::new();
                if number < 3 {
                    while let Some(value) = queue.try_dequeue().await.unwrap() {
                        taken.push(value);
                    }
                } else {
                    while let Some(claim) = queue.try_claim().await.unwrap() {
                        taken.push(claim.value().clone());
                        claim.done().await.unwrap();
                    }
                }
                taken
            })
        });
        let mut all = Vec::new();
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            all.extend(task.unwrap());
        }
        let distinct: BTreeSet<_> = all.iter().cloned().collect();
        assert_eq!((all.len(), distinct.len()), (40, 40), "{all:?}");
        assert_eq!(client.queue("w").count().await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_claimed_item_is_nobody_elses_until_it_is_given_back_or_its_worker_dies() {
    each_server(async |cluster, client| {
        let (queue, other) = (client.queue("k"), super::client(cluster).queue("k"));
        queue.enqueue("1").await.unwrap();
        queue.enqueue("2").await.unwrap();
        let first = queue.claim().await.unwrap();
        let second = other.claim().await.unwrap();
        assert_eq!(
            (&first.value()[..], &second.value()[..]),
            (&b"1"[..], &b"2"[..])
        );
        assert!(other.try_claim().await.unwrap().is_none());
        assert!(other.try_dequeue().await.unwrap().is_none());
        second.give_back().await.unwrap();
        let second = within(queue.claim()).await.unwrap();
        assert_eq!(second.value(), "2");
        second.done().await.unwrap();

        // Dropping is enough; and so is the worker's end.
        drop(first);
        let doomed = super::client(cluster);
        let worker = doomed.queue("k").ttl(Duration::from_secs(2));
        let claim = within(worker.claim()).await.unwrap();
        assert!(other.try_claim().await.unwrap().is_none());
        let again = tokio::spawn(async move { other.claim().await.unwrap() });
        let lease = client.get(claim.key()).await.unwrap().unwrap().lease;
        client.revoke(lease.unwrap()).await.unwrap();
        let again = within(again).await.unwrap();
        assert!(again.fence() > claim.fence());
        within(claim.lost()).await;
        let error = claim.done().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Lost, "{error}");
        assert!(again.is_held());
        again.done().await.unwrap();
        assert_eq!(queue.count().await.unwrap(), 0);
    })
    .await;
}

async fn balance(client: &Client, account: &str) -> i64 {
    let found = client.get(account).await.expect("the server answers");
    let found = found.expect("the account is there");
    let digits = found.value_str().expect("it is text");
    digits.parse().expect("it is a number")
}

#[tokio::test]
async fn a_function_that_moves_money_loses_none_of_it() {
    each_server(async |cluster, client| {
        let accounts = ["a", "b", "c"];
        for account in accounts {
            client.put(account, "100").await.unwrap();
        }
        let runs = Arc::new(AtomicU32::new(0));
        let tasks = (0..6_usize).map(|number| {
            let client = super::client(cluster);
            let runs = runs.clone();
            let (from, to) = (accounts[number % 3], accounts[(number + 1) % 3]);
            tokio::spawn(async move {
                let stm = client.stm().once("stm");
                for _ in 0..5 {
                    let moved = stm.run(|txn| {
                        runs.fetch_add(1, Ordering::SeqCst);
                        async move {
                            let read = async |key: &str| {
                                let value = txn.get(key).await?.unwrap_or_default();
                                let text = std::str::from_utf8(&value).unwrap();
                                Ok::<i64, Error>(text.parse().unwrap())
                            };
                            let (had, has) = (read(from).await?, read(to).await?);
                            txn.put(from, (had - 7).to_string())?;
                            txn.put(to, (has + 7).to_string())?;
                            assert_eq!(read(to).await?, has + 7, "its own writes are seen");
                            Ok::<_, Error>(())
                        }
                    });
                    within(moved).await.unwrap();
                }
            })
        });
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            task.unwrap();
        }
        let mut sum = 0;
        for account in accounts {
            sum += balance(&client, account).await;
        }
        assert_eq!(sum, 300);
        assert!(runs.load(Ordering::SeqCst) >= 30);
    })
    .await;
}

#[tokio::test]
async fn all_reads_of_a_function_are_of_one_revision_and_it_runs_again_when_that_is_gone() {
    each_server(async |_, client| {
        client.put("x", "1").await.unwrap();
        client.put("y", "1").await.unwrap();
        let runs = Arc::new(AtomicU32::new(0));
        let other = client.clone();
        let (pair, _) = client
            .stm()
            .run(|txn| {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                let other = other.clone();
                async move {
                    let x = txn.get("x").await?;
                    // Somebody comes in between.
                    if run < 2 {
                        let value = format!("{}", run + 2);
                        other.put("x", &value).await?;
                        let put = other.put("y", &value).await?;
                        if run == 1 {
                            other.compact(put.revision, true).await?;
                        }
                    }
                    let y = txn.get("y").await?;
                    assert_eq!(x, y, "of two moments");
                    txn.put("z", x.clone().unwrap())?;
                    txn.delete("none")?;
                    Ok::<_, Error>((x, y))
                }
            })
            .await
            .unwrap();
        assert_eq!(pair.0.unwrap(), "3");
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(client.get("z").await.unwrap().unwrap().value, "3");

        let stm = client.stm().ops_max(3);
        let many = stm.run(|txn| async move {
            for number in 0..4 {
                txn.put(format!("many/{number}"), "")?;
            }
            Ok::<_, Error>(())
        });
        assert_eq!(*many.await.unwrap_err().kind(), ErrorKind::TooLarge);
        let range = client.range(KeyRange::prefix("many/")).count_only();
        assert_eq!(range.await.unwrap().count, 0);
    })
    .await;
}
