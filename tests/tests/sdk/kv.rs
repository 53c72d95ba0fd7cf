//! Keys and transactions.

use gonfalon::Swapped;
use gonfalon::{Compare, ErrorKind, KeyRange, Op, OpResult, Outcome, Revision, SortBy, SortOrder};

use super::each_server;

#[tokio::test]
async fn what_is_put_is_read_until_it_is_deleted() {
    each_server(async |_, client| {
        assert_eq!(client.get("a").await.unwrap(), None);
        let put = client.put("a", "1").await.unwrap();
        let kv = client.get("a").await.unwrap().unwrap();
        assert_eq!((kv.value_str(), kv.version), (Some("1"), 1));
        assert_eq!(
            (kv.create_revision, kv.mod_revision),
            (put.revision, put.revision)
        );

        let second = client.put("a", "2").prev_kv().await.unwrap();
        assert_eq!(second.prev, Some(kv));
        let old = client.get("a").at(put.revision).await.unwrap().unwrap();
        assert_eq!(old.value, "1");

        let deleted = client.delete("a").prev_kv().await.unwrap();
        assert_eq!((deleted.count, deleted.prev.len()), (1, 1));
        assert_eq!(client.delete("a").await.unwrap().count, 0);
        assert_eq!(client.revision_floor(), deleted.revision);
    })
    .await;
}

#[tokio::test]
async fn ranges_are_limited_sorted_and_counted() {
    each_server(async |_, client| {
        for (key, value) in [("r/a", "3"), ("r/b", "1"), ("r/c", "2"), ("s", "0")] {
            client.put(key, value).await.unwrap();
        }
        let values = |page: &gonfalon::RangePage| -> Vec<String> {
            let values = page.kvs.iter().map(|kv| kv.value_str().unwrap().to_owned());
            values.collect()
        };
        let all = client.range(KeyRange::prefix("r/")).await.unwrap();
        assert_eq!(
            (values(&all).join(""), all.count, all.more),
            ("312".into(), 3, false)
        );
        let sorted = client
            .range(KeyRange::prefix("r/"))
            .sort(SortBy::Value, SortOrder::Descending)
            .limit(2)
            .await
            .unwrap();
        assert_eq!((values(&sorted).join(""), sorted.more), ("32".into(), true));
        let counted = client.range(KeyRange::all()).count_only().await.unwrap();
        assert_eq!((counted.kvs.len(), counted.count), (0, 4));
        let keys = client
            .range(KeyRange::from("r/c"))
            .keys_only()
            .await
            .unwrap();
        assert_eq!(values(&keys), ["", ""]);
    })
    .await;
}

#[tokio::test]
async fn pages_show_one_revision_whatever_is_written_meanwhile() {
    each_server(async |_, client| {
        for number in 0..25 {
            client.put(format!("p/{number:02}"), "old").await.unwrap();
        }
        let mut pages = client.range(KeyRange::prefix("p/")).pages(10);
        let mut seen = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            seen.extend(page.kvs.iter().map(|kv| (kv.key.clone(), kv.value.clone())));
            client.put("p/24", "new").await.unwrap();
            client.put("p/05x", "new").await.unwrap();
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.iter().all(|(_, value)| value == "old"), "{seen:?}");
        assert!(seen.is_sorted());
    })
    .await;
}

#[tokio::test]
async fn a_transaction_takes_one_branch_and_one_revision() {
    each_server(async |_, client| {
        client.put("t", "1").await.unwrap();
        let done = client
            .txn()
            .when(Compare::value("t").eq("1"))
            .when(Compare::version("t").lt(2))
            .when(Compare::absent("u"))
            .then(Op::put("t", "2").prev_kv())
            .then(Op::get("t"))
            .then(Op::txn().when(Compare::exists("t")).then(Op::put("u", "3")))
            .or_else(Op::delete("t"))
            .await
            .unwrap();
        assert!(done.succeeded);
        let [
            OpResult::Put(put),
            OpResult::Range(read),
            OpResult::Txn(inner),
        ] = &done.results[..]
        else {
            panic!("{:?}", done.results);
        };
        assert_eq!(put.prev.as_ref().unwrap().value, "1");
        assert_eq!(read.kvs[0].value, "2", "it reads its own writes");
        assert!(inner.succeeded);
        let u = client.get("u").await.unwrap().unwrap();
        assert_eq!(u.mod_revision, read.kvs[0].mod_revision);

        let other = client
            .txn()
            .when(Compare::mod_revision("t").gt(done.revision))
            .then(Op::delete("t"))
            .or_else(Op::get(KeyRange::prefix("")).limit(1))
            .await
            .unwrap();
        assert!(!other.succeeded && matches!(other.results[..], [OpResult::Range(_)]));
    })
    .await;
}

#[tokio::test]
async fn a_swap_writes_only_over_what_was_expected() {
    each_server(async |_, client| {
        let first = client.put_if_absent("c", "1").await.unwrap();
        let Swapped::Done { revision } = first else {
            panic!("{first:?}");
        };
        let second = client.put_if_absent("c", "2").await.unwrap();
        let Swapped::Conflict {
            current: Some(current),
        } = second
        else {
            panic!("{second:?}");
        };
        assert_eq!(
            (current.value_str(), current.mod_revision),
            (Some("1"), revision)
        );
        assert!(
            client
                .compare_and_swap("c", revision, "3")
                .await
                .unwrap()
                .is_done()
        );
        assert!(
            !client
                .compare_and_swap("c", revision, "4")
                .await
                .unwrap()
                .is_done()
        );
        let absent = client.compare_and_swap("d", revision, "5").await.unwrap();
        assert_eq!(absent, Swapped::Conflict { current: None });
    })
    .await;
}

#[tokio::test]
async fn a_namespace_hides_its_prefix_everywhere() {
    each_server(async |_, client| {
        let team = client.namespace("team/").namespace("a/");
        let mut watch = team.watch(KeyRange::all()).await.unwrap();
        client.put("team/b/k", "other").await.unwrap();
        team.put("k", "mine").await.unwrap();
        assert_eq!(client.get("team/a/k").await.unwrap().unwrap().value, "mine");
        let all = team.range(KeyRange::all()).await.unwrap();
        assert_eq!(all.kvs.len(), 1);
        assert_eq!(all.kvs[0].key, "k");
        assert_eq!(
            super::told(&super::next(&mut watch).await),
            [("k".into(), "mine".into())]
        );
        let txn = team.txn().when(Compare::exists("k")).then(Op::get("k"));
        let Some(OpResult::Range(page)) = txn.await.unwrap().results.into_iter().next() else {
            panic!("it read");
        };
        assert_eq!(page.kvs[0].key, "k");
        assert_eq!(
            team.delete(KeyRange::all()).prev_kv().await.unwrap().prev[0].key,
            "k"
        );
        assert!(client.get("team/b/k").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn refusals_say_what_is_wrong_and_that_nothing_happened() {
    each_server(async |_, client| {
        let revision = client.put("e", "1").await.unwrap().revision;
        client.put("e", "2").await.unwrap();
        client.compact(revision.next(), false).await.unwrap();
        let empty = client.put("", "x").await.unwrap_err();
        let compacted = client.get("e").at(revision).await.unwrap_err();
        let future = client
            .get("e")
            .at(Revision::new(1 << 40))
            .await
            .unwrap_err();
        let missing = client.put("none", "").ignore_value().await.unwrap_err();
        let lease = client
            .put("e", "3")
            .lease(gonfalon::LeaseId::new(99))
            .await
            .unwrap_err();
        for (error, kind) in [
            (&empty, ErrorKind::InvalidArgument),
            (
                &compacted,
                ErrorKind::Compacted {
                    oldest: Revision::UNKNOWN,
                },
            ),
            (&future, ErrorKind::FutureRevision),
            (&missing, ErrorKind::NotFound),
            (&lease, ErrorKind::LeaseNotFound),
        ] {
            assert_eq!(
                (error.kind(), error.outcome()),
                (&kind, Outcome::NotApplied),
                "{error}"
            );
            assert_eq!(error.attempts(), 1, "{error}");
        }
        assert!(
            empty
                .to_string()
                .starts_with("put: invalid argument: etcdserver: key is not")
        );
    })
    .await;
}
