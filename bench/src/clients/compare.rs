//! Our client and the crate `etcd-client` in turn: the same calls, the same server, one runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gonfalon::{Client, Op, Revision};
use tokio::task::JoinSet;

use super::report::{Comparison, Round};
use super::{Sizes, Took, everything, ours, timed};
use crate::dataset::{self, Random};
use crate::stats::number;

/// The longest that a watch may take to catch up.
const CAUGHT_UP_WITHIN: Duration = Duration::from_mins(1);

/// Keys in one of the transactions that make a history.
const KEYS_PER_TXN: u64 = 100;

/// What both clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Reads of single keys, by so many tasks that each wait for their answer.
    Get(usize),
    /// Writes, by so many tasks.
    Put(usize),
    /// One watch that catches up with a history.
    Watch,
}

pub(super) const ALL: [Case; 5] = [
    Case::Get(1),
    Case::Get(64),
    Case::Put(1),
    Case::Put(64),
    Case::Watch,
];

impl Case {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get(1) => "get-1",
            Self::Get(_) => "get-64",
            Self::Put(1) => "put-1",
            Self::Put(_) => "put-64",
            Self::Watch => "watch",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Get(1) => "linearizable reads of random keys, one after the other",
            Self::Get(_) => "linearizable reads of random keys, 64 under way",
            Self::Put(1) => "writes of 256 bytes, one after the other",
            Self::Put(_) => "writes of 256 bytes, 64 under way",
            Self::Watch => "one watch catching up with events of 256 bytes",
        }
    }
}

/// The two, connected.
#[derive(Clone)]
enum Either {
    Ours(Client),
    Theirs(Box<etcd_client::Client>),
}

/// Runs a case: every round both, the first in turn.
pub(super) async fn run(endpoint: &str, case: Case, sizes: Sizes) -> Result<Comparison> {
    let ours = ours(endpoint).await?;
    let mut theirs = etcd_client::Client::connect([endpoint], None).await?;
    theirs.get("warm", None).await?;
    let from = match case {
        Case::Watch => history(&ours, sizes.events).await?,
        Case::Get(_) | Case::Put(_) => Revision::UNKNOWN,
    };
    let mut both = [
        (Either::Ours(ours), Vec::new()),
        (Either::Theirs(Box::new(theirs)), Vec::new()),
    ];
    for round in 0..sizes.rounds {
        for turn in 0..both.len() {
            let (client, rounds) = &mut both[(round + turn) % 2];
            rounds.push(Box::pin(one(client, case, sizes, from)).await?);
        }
    }
    let [(_, ours), (_, theirs)] = both;
    Ok(Comparison {
        name: case.name(),
        description: case.description(),
        ours,
        theirs,
    })
}

async fn one(client: &Either, case: Case, sizes: Sizes, from: Revision) -> Result<Round> {
    let (calls, Took { elapsed, processor }) = match case {
        Case::Watch => {
            let events = sizes.events;
            let watched = async {
                catch_up(client, from, events).await?;
                Ok(events)
            };
            Box::pin(timed(watched)).await?
        }
        Case::Get(tasks) | Case::Put(tasks) => timed(calls(client, case, tasks, sizes)).await?,
    };
    Ok(Round {
        per_second: number(calls) / elapsed.as_secs_f64(),
        processor_us: processor.as_secs_f64() * 1e6 / number(calls),
    })
}

/// So many tasks that call until the time is up; how many calls they made.
async fn calls(client: &Either, case: Case, tasks: usize, sizes: Sizes) -> Result<u64> {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (client, is_over) = (client.clone(), is_over.clone());
        running.spawn(async move {
            let mut client = client;
            let mut random = Random::new(task as u64);
            let mut calls = 0;
            while !is_over.load(Ordering::Relaxed) {
                let index = random.below(sizes.keys);
                if let Case::Put(_) = case {
                    client.put(index, calls).await?;
                } else {
                    client.get(index).await?;
                }
                calls += 1;
            }
            anyhow::Ok(calls)
        });
    }
    tokio::time::sleep(sizes.length).await;
    is_over.store(true, Ordering::Relaxed);
    let mut sum = 0;
    while let Some(calls) = running.join_next().await {
        sum += calls??;
    }
    ensure!(sum > 0, "no call was answered in {:?}", sizes.length);
    Ok(sum)
}

impl Either {
    async fn get(&mut self, index: u64) -> Result<()> {
        let key = dataset::key(index);
        let length = match self {
            Self::Ours(client) => client.get(key).await?.map(|kv| kv.value.len()),
            Self::Theirs(client) => {
                let answer = client.get(key, None).await?;
                answer.kvs().first().map(|kv| kv.value().len())
            }
        };
        ensure!(
            length == Some(dataset::VALUE_BYTES),
            "a value of {length:?}"
        );
        Ok(())
    }

    async fn put(&mut self, index: u64, sequence: u64) -> Result<()> {
        let (key, value) = (dataset::key(index), dataset::value(index, sequence));
        match self {
            Self::Ours(client) => drop(client.put(key, value).await?),
            Self::Theirs(client) => drop(client.put(key, value, None).await?),
        }
        Ok(())
    }
}

/// Writes so many events, and returns the revision of the first.
async fn history(client: &Client, events: u64) -> Result<Revision> {
    let mut first = None;
    let mut written = 0;
    while written < events {
        let last = (written + KEYS_PER_TXN).min(events);
        let mut txn = client.txn();
        for index in written..last {
            txn = txn.then(Op::put(dataset::key(index), dataset::value(index, 1)));
        }
        let revision = txn.await?.revision;
        first.get_or_insert(revision);
        written = last;
    }
    first.context("a history has events")
}

/// Watches from `from` on until `events` have come.
async fn catch_up(client: &Either, from: Revision, events: u64) -> Result<()> {
    let give_up = Instant::now() + CAUGHT_UP_WITHIN;
    let watching = async {
        let mut seen = 0;
        match client.clone() {
            Either::Ours(client) => {
                // The queue holds whatever comes: what is compared is the way there.
                let watch = client.watch(everything()).from(from).without_prev();
                let mut watch = watch
                    .queue(usize::MAX / 2, gonfalon::Overflow::Fail)
                    .await?;
                while seen < events {
                    let batch = watch.next().await.context("the watch ended")??;
                    seen += batch.events.len() as u64;
                }
            }
            Either::Theirs(mut client) => {
                let (first, end) = dataset::everything();
                let options = etcd_client::WatchOptions::new()
                    .with_range(end)
                    .with_start_revision(from.get());
                let mut watch = client.watch(first, Some(options)).await?;
                while seen < events {
                    let message = watch.message().await?.context("the watch ended")?;
                    seen += message.events().len() as u64;
                }
            }
        }
        ensure!(seen == events, "{seen} events instead of {events}");
        Ok(())
    };
    let give_up = tokio::time::Instant::from_std(give_up);
    tokio::time::timeout_at(give_up, watching).await?
}
