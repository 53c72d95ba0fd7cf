//! Large ranges, streamed where a server can and page by page where it cannot: nobody can tell.

use bytes::Bytes;
use gonfalon::{Client, KeyRange, KeyValue, Revision};
use gonfalon_tests::binaries::Server;

use super::{each_server, within};

async fn fill(client: &Client, keys: usize, value_bytes: usize) {
    for first in (0..keys).step_by(100) {
        let mut txn = client.txn();
        for number in first..(first + 100).min(keys) {
            let value = vec![b'v'; value_bytes];
            txn = txn.then(gonfalon::Op::put(format!("p/{number:06}"), value));
        }
        txn.await.expect("the server takes writes");
    }
}

/// Writes all over the range, for as long as it is polled.
async fn disturb(client: Client) {
    for number in 0.. {
        let at = (number * 7919) % 3000;
        client
            .put(format!("p/{at:06}"), "disturbed")
            .await
            .expect("the server takes writes");
        client
            .delete(format!("p/{:06}", at + 1))
            .await
            .expect("the server takes writes");
        client
            .put(format!("p/{at:06}x"), "new")
            .await
            .expect("the server takes writes");
    }
}

#[tokio::test]
async fn pages_are_the_same_however_they_came() {
    each_server(async |cluster, client| {
        fill(&client, 3000, 100).await;
        let begun = client.revision_floor();
        let disturbing = tokio::spawn(disturb(client.clone()));
        for (page_keys, range) in [
            (7, KeyRange::between("p/000100", "p/000300")),
            (100, KeyRange::prefix("p/")),
            (1000, KeyRange::all()),
            (2999, KeyRange::prefix("p/")),
        ] {
            let mut pages = client.range(range.clone()).pages(page_keys);
            let mut kvs: Vec<KeyValue> = Vec::new();
            let mut shapes: Vec<(usize, bool, u64)> = Vec::new();
            let mut revision = Revision::UNKNOWN;
            while let Some(page) = within(pages.next()).await {
                let page = page.unwrap();
                assert!(page.revision == revision || revision == Revision::UNKNOWN);
                revision = page.revision;
                shapes.push((page.kvs.len(), page.more, page.count));
                kvs.extend(page.kvs);
            }
            assert!(revision >= begun);
            let at_once = client.range(range.clone()).at(revision).await.unwrap();
            assert_eq!(kvs.len(), at_once.kvs.len(), "{range:?}");
            assert!(kvs == at_once.kvs, "{range:?}: the same keys and values");
            // Full pages, and what is left of the count each time.
            let mut left = at_once.count;
            for (at, &(keys, more, count)) in shapes.iter().enumerate() {
                assert_eq!(count, left, "page {at} of {shapes:?}");
                left -= keys as u64;
                assert_eq!(more, left > 0, "page {at} of {shapes:?}");
                assert!(
                    keys == page_keys as usize || !more,
                    "page {at} of {shapes:?}"
                );
            }
            assert_eq!(left, 0);
        }
        disturbing.abort();
        let streamed = super::metric(cluster, &["started_total", "\"RangeStream\""]).await;
        assert_eq!(
            streamed > 0.0,
            cluster.server() == Server::Gonfalon,
            "streamed where that is known: {streamed}"
        );
    })
    .await;
}

#[tokio::test]
async fn keys_come_one_by_one_up_to_the_limit() {
    each_server(async |_, client| {
        fill(&client, 2500, 1).await;
        let team = client.namespace("p/");
        for (limit, want) in [(0, 2500), (1, 1), (1000, 1000), (1500, 1500), (9000, 2500)] {
            let mut stream = team
                .range(KeyRange::all())
                .keys_only()
                .limit(limit)
                .stream();
            let mut keys: Vec<Bytes> = Vec::new();
            while let Some(kv) = within(stream.next()).await {
                keys.push(kv.unwrap().key);
            }
            assert_eq!(keys.len(), want, "of {limit}");
            assert!(keys.is_sorted_by(|one, next| one < next));
            assert_eq!(keys[0], "000000");
        }
    })
    .await;
}

/// 24 MB, of which whoever reads takes one page and then his time: more than is held for him.
#[tokio::test]
async fn a_reader_who_takes_his_time_holds_up_no_watch_and_misses_nothing() {
    each_server(async |_, client| {
        fill(&client, 2400, 10_000).await;
        let mut watch = client.watch("w").await.unwrap();
        let mut pages = client.range(KeyRange::prefix("p/")).pages(100);
        let mut keys = 0;
        for page in 0.. {
            let Some(read) = within(pages.next()).await else {
                break;
            };
            keys += read.unwrap().kvs.len();
            client.put("w", format!("{page}")).await.unwrap();
            let batch = super::next(&mut watch).await;
            assert_eq!(super::told(&batch)[0].1, format!("{page}"));
        }
        assert_eq!(keys, 2400);
    })
    .await;
}

#[tokio::test]
async fn a_history_that_is_compacted_meanwhile_ends_the_pages_with_that_error() {
    each_server(async |_, client| {
        fill(&client, 300, 1).await;
        let mut pages = client.range(KeyRange::prefix("p/")).pages(100);
        let first = pages.next().await.unwrap().unwrap();
        client.put("p/x", "").await.unwrap();
        client.put("p/x", "").await.unwrap();
        client.compact(first.revision.next(), false).await.unwrap();
        let error = within(pages.next()).await.unwrap().unwrap_err();
        let compacted = matches!(error.kind(), gonfalon::ErrorKind::Compacted { .. });
        assert!(compacted, "{error}");
        assert!(pages.next().await.is_none());
    })
    .await;
}
