//! Caches: one revision at a time, never back, told of every difference.

use std::time::Duration;

use gonfalon::{Cache, Cached, ErrorKind, KeyRange, Op, Revision};
use serde::Deserialize;

use super::{PATIENCE, each_server, relayed, within};

fn pairs(cache: &Cache) -> Vec<(String, String)> {
    let snapshot = cache.snapshot();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    snapshot
        .iter()
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

#[tokio::test]
async fn a_cache_has_what_was_there_and_what_is_written_after() {
    each_server(async |_, client| {
        for number in 0..25 {
            client.put(format!("c/{number:02}"), "0").await.unwrap();
        }
        let cache = client
            .cache(KeyRange::prefix("c/"))
            .page_keys(10)
            .await
            .unwrap();
        assert_eq!(pairs(&cache).len(), 25);
        let written = client.put("c/05", "1").await.unwrap().revision;
        let snapshot = cache.at_least(written).await.unwrap();
        assert_eq!(snapshot.get("c/05").unwrap().value, "1");
        let deleted = client.delete("c/06").await.unwrap().revision;
        let snapshot = cache.at_least(deleted).await.unwrap();
        assert!(snapshot.get("c/06").is_none());
        assert_eq!(snapshot.len(), 24);
        assert_eq!(snapshot.prefix("c/0").count(), 9);
        assert_eq!(cache.status().listings, 1);
    })
    .await;
}

#[tokio::test]
async fn a_write_outside_of_the_range_does_not_keep_its_writer_waiting() {
    each_server(async |_, client| {
        client.put("in/a", "1").await.unwrap();
        let cache = client.cache(KeyRange::prefix("in/")).await.unwrap();
        let outside = client.put("out", "1").await.unwrap().revision;
        let snapshot = within(cache.at_least(outside)).await.unwrap();
        assert!(snapshot.revision() >= outside);
        assert_eq!(snapshot.len(), 1);
        client.put("in/a", "2").await.unwrap();
        client.put("out", "2").await.unwrap();
        let snapshot = within(cache.linearizable()).await.unwrap();
        assert_eq!(snapshot.get("in/a").unwrap().value, "2");
        // One key deleted and another written leaves their number as it was.
        client
            .txn()
            .then(Op::delete("in/a"))
            .then(Op::put("in/b", "3"))
            .await
            .unwrap();
        let snapshot = within(cache.linearizable()).await.unwrap();
        assert!(snapshot.get("in/a").is_none() && snapshot.get("in/b").is_some());
    })
    .await;
}

/// Two keys are always written together; they are never seen apart, and never older than before.
#[tokio::test]
async fn no_transaction_is_seen_in_part_and_no_revision_twice() {
    each_server(async |cluster, direct| {
        let (relay, client) = relayed(cluster).await;
        let both = async |value: &str| {
            let txn = direct.txn().then(Op::put("t/a", value));
            txn.then(Op::put("t/b", value)).await.unwrap().revision
        };
        both("0").await;
        let cache = client.cache(KeyRange::prefix("t/")).await.unwrap();
        let mut changes = cache.subscribe();
        let reader = tokio::spawn({
            let cache = cache.clone();
            async move {
                let mut last = Revision::UNKNOWN;
                loop {
                    let snapshot = cache.snapshot();
                    assert!(snapshot.revision() >= last, "it went back");
                    last = snapshot.revision();
                    let a = snapshot.get("t/a").unwrap();
                    let b = snapshot.get("t/b").unwrap();
                    assert_eq!(a.value, b.value, "seen in part");
                    if a.value == "end" {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        for round in 0..200 {
            if round % 20 == 0 {
                relay.cut();
            }
            both(&format!("{round}")).await;
        }
        let end = both("end").await;
        within(reader).await.unwrap();
        // The subscriber slept all the while; the difference is one change of each.
        let mut told = Vec::new();
        while changes.snapshot().revision() < end {
            told = within(changes.next()).await.unwrap();
        }
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].new.as_ref().unwrap().value, "end");
        assert!(told.iter().all(|change| change.old.is_some()));
    })
    .await;
}

#[tokio::test]
async fn a_cache_whose_history_is_gone_lists_again_and_tells_the_difference() {
    each_server(async |cluster, direct| {
        let (relay, client) = relayed(cluster).await;
        for key in ["h/same", "h/gone", "h/new value"] {
            direct.put(key, "1").await.unwrap();
        }
        let cache = client.cache(KeyRange::prefix("h/")).await.unwrap();
        let mut changes = cache.subscribe();
        relay.refuse(true);
        direct.delete("h/gone").await.unwrap();
        direct.put("h/new value", "2").await.unwrap();
        let last = direct.put("h/new key", "3").await.unwrap().revision;
        direct.compact(last, false).await.unwrap();
        let cut_off = async {
            while cache.status().cut_off_since.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(cut_off).await;
        assert_eq!(pairs(&cache).len(), 3, "the last good state stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let stale = cache.fresh_within(Duration::from_millis(1)).unwrap_err();
        assert_eq!(*stale.kind(), ErrorKind::Unavailable);
        assert!(cache.fresh_within(PATIENCE * 10).is_ok());

        relay.refuse(false);
        let told = within(changes.next()).await.unwrap();
        let named: Vec<_> = told
            .iter()
            .map(|change| {
                let value =
                    |kv: &std::sync::Arc<gonfalon::KeyValue>| kv.value_str().unwrap().to_owned();
                let key = std::str::from_utf8(change.key()).unwrap();
                (
                    key,
                    change.old.as_ref().map(value),
                    change.new.as_ref().map(value),
                )
            })
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            named,
            [
                ("h/gone", some("1"), None),
                ("h/new key", None, some("3")),
                ("h/new value", some("1"), some("2")),
            ]
        );
        assert_eq!(cache.status().listings, 2);
    })
    .await;
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Limits {
    rate: u32,
}

#[tokio::test]
async fn a_typed_value_keeps_the_last_good_one_and_shows_the_error() {
    each_server(async |_, client| {
        client.put("v", r#"{"rate": 10}"#).await.unwrap();
        let limits: Cached<Limits> = client
            .cached("v")
            .check(|limits: &Limits| match limits.rate {
                0 => Err("a rate of 0 stops everything".to_owned()),
                _ => Ok(()),
            })
            .await
            .unwrap();
        let mut changes = limits.changes();
        assert_eq!(limits.load().rate, 10);
        for (stored, rate, wrong) in [
            (r#"{"rate": 20}"#, 20, None),
            ("{", 20, Some("EOF")),
            (r#"{"rate": 0}"#, 20, Some("stops everything")),
            (r#"{"rate": 30}"#, 30, None),
        ] {
            let revision = client.put("v", stored).await.unwrap().revision;
            let now = within(changes.next()).await.unwrap();
            assert_eq!((now.rate, limits.load().rate), (rate, rate), "{stored}");
            assert_eq!(limits.revision(), revision);
            let error = limits.error();
            assert_eq!(error.is_some(), wrong.is_some(), "{stored}: {error:?}");
            if let (Some(error), Some(wrong)) = (error, wrong) {
                assert!(error.to_string().contains(wrong), "{error}");
                assert_eq!((error.key.as_str(), error.revision), ("v", revision));
            }
        }
        client.delete("v").await.unwrap();
        assert_eq!(within(changes.next()).await.unwrap().rate, 30);
        assert_eq!(limits.revision(), Revision::UNKNOWN);
    })
    .await;
}

#[tokio::test]
async fn a_value_that_is_not_there_is_an_error_unless_there_is_a_fallback() {
    each_server(async |_, client| {
        let missing = client.cached::<u32>("n").await.unwrap_err();
        assert_eq!(*missing.kind(), ErrorKind::NotFound);
        let number = client.cached::<u32>("n").text().or(7).await.unwrap();
        assert_eq!(*number.load(), 7);
        let mut changes = number.changes();
        client.put("n", "8").await.unwrap();
        assert_eq!(*within(changes.next()).await.unwrap(), 8);
        client.put("n", "eight").await.unwrap();
        let bad = client.cached::<u32>("n").await.unwrap_err();
        assert_eq!(*bad.kind(), ErrorKind::InvalidArgument);
    })
    .await;
}

/// Its task and its watch go with the last handle: the server has nobody left to tell.
#[tokio::test]
async fn a_cache_that_is_dropped_ends_and_one_whose_client_is_closed_says_so() {
    each_server(async |_, client| {
        let cache = client.cache(KeyRange::prefix("x/")).await.unwrap();
        let mut changes = cache.subscribe();
        let value = client.cached::<u32>("x/n").or(1).await.unwrap();
        client.close().await.unwrap();
        assert!(within(changes.next()).await.is_none());
        assert!(cache.status().is_closed);
        let error = cache.at_least(Revision::new(1 << 40)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Closed);
        assert_eq!(*value.load(), 1);
    })
    .await;
}
