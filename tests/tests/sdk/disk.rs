//! A cache's copy on disk: an application starts while the cluster is away, and never from a file
//! that is not whole or not its own.

use std::path::Path;
use std::time::Duration;

use gonfalon::{Cache, CacheBuilder, CacheSource, Client, DiskCopy, ErrorKind, KeyRange};

use super::{PATIENCE, each_server, relayed, within};

/// Whoever starts without a cluster waits for it no longer than this.
const WAIT: Duration = Duration::from_millis(200);

fn copy(path: &Path) -> DiskCopy {
    DiskCopy::at(path).wait(WAIT).every(PATIENCE)
}

fn pairs(cache: &Cache) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let snapshot = cache.snapshot();
    let pairs = snapshot.iter().map(|kv| (text(&kv.key), text(&kv.value)));
    pairs.collect()
}

fn cache_at(client: &Client, path: &Path) -> CacheBuilder {
    client
        .cache(KeyRange::prefix("d/"))
        .disk(copy(path))
        .deadline(WAIT * 10)
}

fn contains(path: &Path, text: &str) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, so).await;
    ended.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn a_cache_starts_from_disk_while_the_cluster_is_away_and_tells_what_differs_afterwards() {
    each_server(async |cluster, direct| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        for key in ["d/gone", "d/new value", "d/same"] {
            direct.put(key, "1").await.unwrap();
        }
        let first = cache_at(&direct, &path).await.unwrap();
        until("it is live", || first.status().source == CacheSource::Live).await;
        first.save().await.unwrap();
        let saved = first.snapshot().revision();
        drop(first);

        let (relay, client) = relayed(cluster).await;
        relay.refuse(true);
        direct.delete("d/gone").await.unwrap();
        direct.put("d/new value", "2").await.unwrap();
        direct.put("d/new key", "3").await.unwrap();
        let cache = within(cache_at(&client, &path).into_future())
            .await
            .unwrap();
        let status = cache.status();
        assert_eq!((status.source, status.revision), (CacheSource::Disk, saved));
        assert!(
            status.age() > Duration::ZERO && status.age() < PATIENCE * 10,
            "{status:?}"
        );
        assert!(cache.fresh_within(Duration::ZERO).is_err());
        let kept: Vec<_> = pairs(&cache).into_iter().map(|(key, _)| key).collect();
        assert_eq!(kept, ["d/gone", "d/new value", "d/same"]);
        // What came from disk is not written back: it would look younger than it is.
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        cache.save().await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().modified().unwrap(),
            before
        );

        let mut changes = cache.subscribe();
        relay.refuse(false);
        let told = within(changes.next()).await.unwrap();
        let keys: Vec<_> = told.iter().map(|change| change.key().clone()).collect();
        assert_eq!(keys, ["d/gone", "d/new key", "d/new value"]);
        until("it is live", || cache.status().source == CacheSource::Live).await;
        let heard = || cache.fresh_within(Duration::from_secs(2)).is_ok();
        until("it is heard of", heard).await;
        assert_eq!(cache.status().listings, 1);
        let written = direct.put("d/same", "4").await.unwrap().revision;
        let snapshot = within(cache.at_least(written)).await.unwrap();
        assert_eq!(snapshot.get("d/same").unwrap().value, "4");
    })
    .await;
}

#[tokio::test]
async fn what_changed_is_on_disk_soon_after_the_cache_is_dropped_or_its_client_closed() {
    each_server(async |_, client| {
        let folder = tempfile::tempdir().unwrap();
        for (name, closes) in [("dropped", false), ("closed", true)] {
            let path = folder.path().join(name);
            let cache = cache_at(&client, &path).await.unwrap();
            // The first copy is written at once, the next not before PATIENCE is over.
            until("there is a first copy", || path.exists()).await;
            let value = format!("value of {name}");
            let written = client.put("d/a", &value).await.unwrap().revision;
            cache.at_least(written).await.unwrap();
            if closes {
                client.close().await.unwrap();
            } else {
                drop(cache);
            }
            until("the last change is written", || contains(&path, &value)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_copy_that_is_damaged_too_old_or_of_other_keys_is_not_used() {
    each_server(async |cluster, direct| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        direct.put("d/a", "1").await.unwrap();
        let cache = cache_at(&direct, &path).await.unwrap();
        cache.save().await.unwrap();
        drop(cache);
        // The copy of a cache that is dropped may be written once more.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let good = std::fs::read(&path).unwrap();
        let (relay, client) = relayed(cluster).await;
        relay.refuse(true);
        let refused = async |what: &str, cache: CacheBuilder| {
            let error = within(cache.into_future()).await.expect_err(what);
            assert!(error.is_retryable(), "{what}: {error}");
        };

        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        refused("torn", cache_at(&client, &path)).await;
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        refused("flipped", cache_at(&client, &path)).await;
        std::fs::write(&path, &good).unwrap();
        let old = copy(&path).age_max(Duration::ZERO);
        refused("too old", cache_at(&client, &path).disk(old)).await;
        let others = copy(&path).cluster_id(1);
        refused("another cluster", cache_at(&client, &path).disk(others)).await;
        let namespaced = client.namespace("n/");
        refused("another namespace", cache_at(&namespaced, &path)).await;
        let range = client.cache(KeyRange::prefix("e/"));
        refused("another range", range.disk(copy(&path)).deadline(WAIT * 10)).await;
        let missing = folder.path().join("missing");
        refused("missing", cache_at(&client, &missing)).await;
        let good = within(cache_at(&client, &path).into_future()).await;
        assert_eq!(pairs(&good.expect("it is as it was")).len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_typed_value_starts_from_disk_too() {
    each_server(async |cluster, direct| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        direct.put("d/number", "7").await.unwrap();
        let number = |client: &Client| {
            let disk = copy(&path);
            client
                .cached::<u32>("d/number")
                .cache(|cache| cache.disk(disk))
        };
        let first = number(&direct).await.unwrap();
        first.cache().save().await.unwrap();
        let (relay, client) = relayed(cluster).await;
        relay.refuse(true);
        let again = within(number(&client).into_future()).await.unwrap();
        assert_eq!(*again.load(), 7);
        assert_eq!(again.cache().status().source, CacheSource::Disk);
        direct.put("d/number", "8").await.unwrap();
        let mut changes = again.changes();
        relay.refuse(false);
        assert_eq!(*within(changes.next()).await.unwrap(), 8);
    })
    .await;
}

#[tokio::test]
async fn a_cache_without_a_copy_says_so_when_it_is_to_be_saved() {
    each_server(async |_, client| {
        let cache = client.cache(KeyRange::prefix("d/")).await.unwrap();
        let error = cache.save().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::FailedPrecondition);
        let nowhere = cache_at(&client, Path::new("no such folder/copy"))
            .await
            .unwrap();
        let error = nowhere.save().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::File);
    })
    .await;
}
