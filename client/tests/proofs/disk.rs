//! Copies of caches on disk, of one cluster and of another.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Rpc};
use gonfalon::{CacheSource, Client, DiskCopy, KeyRange};

use super::{until, within};

/// A copy that was read from the cluster with the id 1, and the server as it is now: restored, and with
/// the id 2.
async fn restored(copy: &DiskCopy) -> FakeServer {
    let server = FakeServer::start();
    let backup = server.revision();
    server.put("k/a", "old");
    let client = server.client();
    let cache = client.cache(KeyRange::prefix("k/")).disk(copy.clone());
    let cache = within(cache).await.expect("nothing is in its way");
    within(cache.save()).await.expect("there is room");
    client.close().await.expect("nothing is in its way");
    server.restore(backup);
    server
}

/// Without a server that answers.
async fn alone(client: &Client, copy: DiskCopy) -> Result<gonfalon::Cache, gonfalon::Error> {
    let copy = copy.wait(Duration::from_millis(100));
    within(client.cache(KeyRange::prefix("k/")).disk(copy)).await
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_another_cluster_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let copy = DiskCopy::at(dir.path().join("copy"));
    let server = restored(&copy).await;
    // One who has been answered knows who is meant.
    let client = server.client();
    client.get("k/a").await.unwrap();
    server.member(0).stop();
    assert!(alone(&client, copy.clone()).await.is_err());
    // One who was told, too.
    let fresh = server.client();
    let of = |id| copy.clone().cluster_id(id);
    assert!(alone(&fresh, of(2)).await.is_err());
    let told = alone(&fresh, of(1)).await.unwrap();
    assert_eq!(told.status().source, CacheSource::Disk);
    // Who knows nothing believes it until he hears better.
    let cache = alone(&server.client(), copy).await.unwrap();
    assert_eq!(cache.status().source, CacheSource::Disk);
    assert_eq!(cache.get("k/a").unwrap().value, "old");
    server.member(0).start();
    until(|| cache.status().source == CacheSource::Live).await;
    assert!(cache.get("k/a").is_none(), "it was never written there");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_from_one_cluster_is_not_saved_as_anothers() {
    let dir = tempfile::tempdir().unwrap();
    let copy = DiskCopy::at(dir.path().join("copy"));
    let server = FakeServer::start();
    let client = server.client();
    let backup = server.revision();
    server.put("k/a", "old");
    let cache = client.cache(KeyRange::prefix("k/")).disk(copy.clone());
    let cache = within(cache).await.unwrap();
    // Neither a watch nor a listing gets through any more, but a write does, and names the new id.
    let watches = server.on_next(Rpc::Watch).times(1_000);
    watches.delay(Duration::from_mins(1));
    let ranges = server.on_next(Rpc::Range).times(1_000);
    ranges.delay(Duration::from_mins(1));
    server.restore(backup);
    client.put("elsewhere", "1").await.unwrap();
    within(cache.save()).await.unwrap();
    assert_eq!(cache.get("k/a").unwrap().value, "old", "not listed again");
    drop(cache);
    server.member(0).stop();
    assert!(alone(&server.client(), copy.cluster_id(2)).await.is_err());
}
