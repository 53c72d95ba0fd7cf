//! What only our client has: caches, watches that resume, leases that are kept.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gonfalon::{Lease, Watch};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::relay::Relay;
use super::report::Number;
use super::{Sizes, everything, ours, own_time, timed};
use crate::dataset;
use crate::sampling;
use crate::stats::{median, number};

/// Calls under way while leases are granted and watches are created.
const UNDER_WAY: usize = 64;

/// Leases are watched once all of them have been renewed for the first time.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

const LEASE: Duration = Duration::from_secs(30);

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A cache of all keys, from nothing.
pub(super) async fn sync(endpoint: &str, sizes: Sizes) -> Result<Vec<Number>> {
    eprintln!("sync");
    let client = ours(endpoint).await?;
    let me = [std::process::id()];
    let before = sampling::memory(&me)?.anonymous;
    let (mut seconds, mut processor) = (Vec::new(), Vec::new());
    let mut overhead = None;
    for _ in 0..sizes.rounds {
        let (cache, took) = timed(async { Ok(client.cache(everything()).await?) }).await?;
        let snapshot = cache.snapshot();
        ensure!(
            snapshot.len() as u64 == sizes.keys,
            "{} keys",
            snapshot.len()
        );
        seconds.push(took.elapsed.as_secs_f64());
        processor.push(took.processor.as_secs_f64());
        if overhead.is_none() {
            let data: usize = snapshot
                .iter()
                .map(|kv| kv.key.len() + kv.value.len())
                .sum();
            let grown = (sampling::memory(&me)?.anonymous.saturating_sub(before)) * 1024;
            overhead = Some((number(grown) - number(data as u64)) / number(sizes.keys));
        }
    }
    let what = format!(
        "{} keys of {} bytes into a cache",
        sizes.keys,
        dataset::VALUE_BYTES
    );
    let middle = |values: Vec<f64>| median(values).context("a round was measured");
    Ok(vec![
        Number::new("sync", &what, middle(seconds)?, "s").at_most(1.0),
        Number::new(
            "sync-cpu",
            "processor time for that",
            middle(processor)?,
            "s",
        ),
        Number::new(
            "sync-memory",
            "memory for each key beyond key and value, with what the listing left in the allocator",
            overhead.context("a round was measured")?,
            "bytes",
        ),
    ])
}

/// From before a put until another client's cache shows it.
pub(super) async fn visible(endpoint: &str, sizes: Sizes) -> Result<Vec<Number>> {
    eprintln!("visible");
    let (writer, reader) = (ours(endpoint).await?, ours(endpoint).await?);
    let cache = reader.cache(everything()).await?;
    let (seen, mut told) = mpsc::channel(16);
    let mut changes = cache.subscribe();
    let watching = tokio::spawn(async move {
        while let Some(changes) = changes.next().await {
            let at = Instant::now();
            let newest = changes.iter().filter_map(|change| change.new.as_ref());
            let newest = newest.map(|kv| kv.mod_revision).max();
            if let Some(newest) = newest
                && seen.send((newest, at)).await.is_err()
            {
                return;
            }
        }
    });
    let mut whole = Histogram::<u64>::new(3)?;
    let mut after = Histogram::<u64>::new(3)?;
    let keys = sizes.keys;
    for sequence in 0..sizes.visible {
        let index = sequence % keys;
        let began = Instant::now();
        let written = writer.put(dataset::key(index), dataset::value(index, sequence));
        let revision = written.await?.revision;
        let answered = Instant::now();
        let shown = tokio::time::timeout(PATIENCE, async {
            loop {
                let (newest, at) = told.recv().await.context("the cache ended")?;
                if newest >= revision {
                    return anyhow::Ok(at);
                }
            }
        });
        let at = shown.await??;
        whole.record(nanoseconds(at.duration_since(began)))?;
        after.record(nanoseconds(at.saturating_duration_since(answered)))?;
    }
    watching.abort();
    let at =
        |histogram: &Histogram<u64>, quantile| number(histogram.value_at_quantile(quantile)) / 1e6;
    let what = "from before a put until another client's cache shows it";
    Ok(vec![
        Number::new("visible-p50", what, at(&whole, 0.5), "ms"),
        Number::new("visible-p99", what, at(&whole, 0.99), "ms").at_most(2.0),
        Number::new(
            "visible-after-answer-p99",
            "of that, what comes after the writer has his answer",
            at(&after, 0.99),
            "ms",
        ),
    ])
}

/// From a cut until every one of many watches has an event that was written after it.
pub(super) async fn resume(endpoint: &str, sizes: Sizes) -> Result<Vec<Number>> {
    eprintln!("resume");
    let direct = ours(endpoint).await?;
    let relay = Relay::to(endpoint).await?;
    let client = ours(&relay.endpoint()).await?;
    let mut watches = create(&client, sizes.watches).await?;
    let (mut seconds, mut processor) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds {
        let connections = relay.accepted();
        let (revision, took) = timed(async {
            relay.cut();
            let written = direct.put("/resume", round.to_string()).await?.revision;
            for watch in &mut watches {
                let batch = tokio::time::timeout(PATIENCE, watch.next()).await?;
                let batch = batch.context("the watch ended")??;
                ensure!(
                    batch.revision == written && batch.events.len() == 1,
                    "{} events up to {} instead of that of {written}",
                    batch.events.len(),
                    batch.revision
                );
            }
            Ok(written)
        })
        .await?;
        ensure!(relay.accepted() > connections, "no connection was cut");
        ensure!(
            watches.iter().all(|watch| watch.position() >= revision),
            "one is behind"
        );
        seconds.push(took.elapsed.as_secs_f64());
        processor.push(took.processor.as_secs_f64());
    }
    let what = format!(
        "from a cut until {} watches have what came after it",
        sizes.watches
    );
    let middle = |values: Vec<f64>| median(values).context("a round was measured");
    Ok(vec![
        Number::new("resume", &what, middle(seconds)?, "s").at_most(1.0),
        Number::new(
            "resume-cpu",
            "processor time for that",
            middle(processor)?,
            "s",
        ),
    ])
}

async fn create(client: &gonfalon::Client, count: usize) -> Result<Vec<Watch>> {
    let mut creating = JoinSet::new();
    let mut watches = Vec::with_capacity(count);
    for _ in 0..count {
        if creating.len() >= UNDER_WAY {
            watches.push(creating.join_next().await.context("one is under way")???);
        }
        let client = client.clone();
        creating.spawn(async move { client.watch("/resume").await });
    }
    while let Some(watch) = creating.join_next().await {
        watches.push(watch??);
    }
    Ok(watches)
}

/// What it costs to keep many leases.
pub(super) async fn leases(endpoint: &str, sizes: Sizes) -> Result<Vec<Number>> {
    eprintln!("leases");
    let client = ours(endpoint).await?;
    let mut granting = JoinSet::new();
    let mut leases: Vec<Lease> = Vec::with_capacity(sizes.leases);
    for _ in 0..sizes.leases {
        if granting.len() >= UNDER_WAY {
            leases.push(granting.join_next().await.context("one is under way")???);
        }
        let client = client.clone();
        granting.spawn(async move { client.grant(LEASE).await });
    }
    while let Some(lease) = granting.join_next().await {
        leases.push(lease??);
    }
    tokio::time::sleep(SETTLED_AFTER).await;
    let (began, before) = (Instant::now(), own_time()?);
    tokio::time::sleep(sizes.kept).await;
    let processor = own_time()?.saturating_sub(before);
    let share = processor.as_secs_f64() / began.elapsed().as_secs_f64();
    let held = leases.iter().filter(|lease| lease.is_held()).count();
    ensure!(
        held == sizes.leases,
        "{held} of {} leases are held",
        sizes.leases
    );
    let what = format!("of a core, to keep {} leases of {LEASE:?}", sizes.leases);
    Ok(vec![
        Number::new("leases", &what, share * 100.0, "%").at_most(1.0),
    ])
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
