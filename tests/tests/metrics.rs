//! The table of the client's metrics says what is emitted, and all of it. One test, alone in its
//! process: the recorder is the process's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gonfalon::{Cached, Client, KeyRange, LostReason, Overflow, Revision};
use gonfalon_tests::binaries::{server_under_test, workspace};
use gonfalon_tests::cluster::{Cluster, free_port};
use gonfalon_tests::relay::Relay;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebuggingRecorder, Snapshotter};

const PATIENCE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(2);

/// Name, kind and labels of a metric.
type Row = (String, String, BTreeSet<String>);

/// What the documentation says.
fn documented() -> BTreeSet<Row> {
    let page = workspace().join("docs/client-metrics.md");
    let page = std::fs::read_to_string(page).expect("the table");
    let plain = |text: &str| text.trim().trim_matches('`').to_owned();
    let rows = page.lines().filter(|line| line.starts_with("| `gonfalon_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let labels = cells[3]
            .split(',')
            .map(plain)
            .filter(|label| !label.is_empty());
        (plain(cells[1]), plain(cells[2]), labels.collect())
    })
    .collect()
}

/// What was recorded since the last time.
fn emitted(recorded: &Snapshotter) -> BTreeSet<Row> {
    let all = recorded.snapshot().into_vec().into_iter();
    all.map(|(key, ..)| {
        let kind = match key.kind() {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels = key.key().labels().map(|label| label.key().to_owned());
        (
            key.key().name().to_owned(),
            kind.to_owned(),
            labels.collect(),
        )
    })
    .collect()
}

async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !check().await {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Attempts that fail, until no more may be made.
async fn exhausts_its_retries() -> anyhow::Result<()> {
    let dead = format!("127.0.0.1:{}", free_port()?);
    let client = Client::builder()
        .endpoints(dead)
        .deadline(Duration::from_secs(2))
        .retry_share(0.0)
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .build()?;
    for _ in 0..3 {
        assert!(client.get("k").await.is_err());
    }
    Ok(())
}

async fn watches(relay: &Relay, client: &Client) -> anyhow::Result<()> {
    let mut watch = client.watch("m/watched").await?;
    let put = client.put("m/watched", "1").await?;
    watch.next().await.expect("it goes on")?;
    relay.cut();
    // Whatever was cut off, this arrives.
    until("the write succeeds", async || {
        client.put("m/watched", "2").await.is_ok()
    })
    .await;
    watch.next().await.expect("it goes on")?;

    let narrow = client.watch("m/watched").queue(1, Overflow::LatestOnly);
    let narrow = narrow.await?;
    let mut last = put.revision;
    for number in 0..3 {
        let value = format!("{number}");
        last = client.put("m/watched", value).await?.revision;
    }
    until("all has arrived", async || narrow.position() >= last).await;

    client.compact(last, false).await?;
    let old = client.watch("m/watched").from(Revision::new(1));
    let ended = match old.await {
        Ok(mut watch) => watch.next().await.and_then(Result::err),
        Err(error) => Some(error),
    };
    assert!(ended.is_some(), "that history is gone");
    Ok(())
}

async fn leases(relay: &Relay, client: &Client) -> anyhow::Result<()> {
    let lease = client.grant(TTL).await?;
    tokio::time::sleep(TTL).await;
    relay.hang();
    tokio::time::sleep(TTL).await;
    assert!(lease.is_held(), "it was renewed on a second connection");
    relay.refuse(true);
    assert_eq!(lease.lost().await, LostReason::NotRenewed);
    relay.refuse(false);
    Ok(())
}

async fn caches(client: &Client) -> anyhow::Result<()> {
    client.put("m/limit", "1").await?;
    let limit: Cached<u32> = client.cached("m/limit").await?;
    let cache = client.cache(KeyRange::prefix("m/")).await?;
    let put = client.put("m/limit", "no number").await?;
    cache.at_least(put.revision).await?;
    until("it is refused", async || limit.error().is_some()).await;
    assert_eq!(*limit.load(), 1);
    Ok(())
}

#[tokio::test]
async fn the_table_of_metrics_says_what_is_emitted() {
    let recorder = DebuggingRecorder::new();
    let recorded = recorder.snapshotter();
    recorder.install().expect("this process has no other");
    let cluster = Cluster::start(server_under_test(), 1).await.unwrap();
    let relay = Relay::to(cluster.member(0).client_port()).await.unwrap();
    let client = Client::connect(relay.endpoint()).await.unwrap();
    exhausts_its_retries().await.unwrap();
    watches(&relay, &client).await.unwrap();
    caches(&client).await.unwrap();
    let guard = client.lock("m/lock").acquire().await.unwrap();
    guard.release().await.unwrap();
    leases(&relay, &client).await.unwrap();

    let documented = documented();
    let emitted = || emitted(&recorded);
    // What happens on other threads is counted a moment later.
    let began = Instant::now();
    loop {
        let silent: Vec<_> = documented.difference(&emitted()).cloned().collect();
        if silent.is_empty() {
            break;
        }
        let is_late = began.elapsed() > PATIENCE;
        assert!(!is_late, "only in docs/client-metrics.md: {silent:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let missing: Vec<_> = emitted().difference(&documented).cloned().collect();
    assert!(
        missing.is_empty(),
        "not in docs/client-metrics.md: {missing:#?}"
    );
}
