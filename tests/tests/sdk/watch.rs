//! Watches: what they tell, and that a broken connection loses and repeats nothing.

use futures::StreamExt as _;
use gonfalon::{Client, ErrorKind, EventKind, KeyRange, Op, Overflow, Revision, WatchState};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::relay::Relay;

use super::{PATIENCE, each_server, next, relayed, told, within};

#[tokio::test]
async fn a_watch_tells_old_and_new_values_of_whole_transactions() {
    each_server(async |_, client| {
        let mut watch = client.watch(KeyRange::prefix("w/")).await.unwrap();
        assert_eq!(watch.state(), WatchState::Live);
        client.put("x", "not watched").await.unwrap();
        client.put("w/a", "1").await.unwrap();
        let txn = client
            .txn()
            .then(Op::put("w/a", "2"))
            .then(Op::put("w/b", "3"));
        let revision = txn.await.unwrap().revision;
        client.delete("w/a").await.unwrap();

        let mut events = Vec::new();
        while events.len() < 4 {
            events.extend(next(&mut watch).await.events);
        }
        let seen: Vec<_> = events
            .iter()
            .map(|event| {
                let prev = event.prev.as_ref().map(|prev| prev.value_str().unwrap());
                (event.kind, event.kv.key_str().unwrap(), prev)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (EventKind::Put, "w/a", None),
                (EventKind::Put, "w/a", Some("1")),
                (EventKind::Put, "w/b", None),
                (EventKind::Delete, "w/a", Some("2")),
            ]
        );
        assert_eq!(events[1].kv.mod_revision, revision);
        assert_eq!(events[2].kv.mod_revision, revision);
        assert_eq!(watch.position(), events[3].kv.mod_revision);
    })
    .await;
}

#[tokio::test]
async fn a_watch_from_the_past_tells_it_first() {
    each_server(async |_, client| {
        let first = client.put("h", "1").await.unwrap().revision;
        client.put("h", "2").await.unwrap();
        let mut watch = client.watch("h").from(first).without_prev().await.unwrap();
        let mut deletions = client.watch("h").from(first).only_deletes().await.unwrap();
        client.put("h", "3").await.unwrap();
        client.delete("h").await.unwrap();
        let mut values = Vec::new();
        while values.len() < 4 {
            values.extend(
                told(&next(&mut watch).await)
                    .into_iter()
                    .map(|(_, value)| value),
            );
        }
        assert_eq!(values, ["1", "2", "3", ""]);
        assert_eq!(next(&mut deletions).await.events.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_watch_of_compacted_history_says_where_the_history_begins() {
    each_server(async |_, client| {
        for value in ["1", "2", "3"] {
            client.put("c", value).await.unwrap();
        }
        let now = client.revision_floor();
        client.compact(now, false).await.unwrap();
        let mut watch = client.watch("c").from(Revision::new(2)).await.unwrap();
        let error = within(watch.next()).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Compacted { oldest: now });
        assert!(within(watch.next()).await.is_none(), "an error is the end");
        assert_eq!(watch.state(), WatchState::Ended);
    })
    .await;
}

#[tokio::test]
async fn a_slow_consumer_delays_nobody_and_gets_what_its_policy_says() {
    each_server(async |_, client| {
        let value = "v".repeat(1000);
        let all = || client.watch(KeyRange::prefix("q/")).without_prev();
        let mut strict = all().queue(10_000, Overflow::Fail).await.unwrap();
        let mut merged = all().queue(10_000, Overflow::CoalescePerKey).await.unwrap();
        let mut latest = all().queue(10_000, Overflow::LatestOnly).await.unwrap();
        let mut quick = all().await.unwrap();
        let mut last = Revision::UNKNOWN;
        for number in 0..100 {
            let key = format!("q/{}", number % 3);
            last = client.put(key, &value).await.unwrap().revision;
        }
        let mut told = 0;
        while told < 100 {
            told += next(&mut quick).await.events.len();
        }

        let mut seen = 0;
        let error = loop {
            match within(strict.next()).await.unwrap() {
                Ok(batch) => seen += batch.events.len(),
                Err(error) => break error,
            }
        };
        let from = match error.kind() {
            ErrorKind::Lagged { from } => *from,
            other => panic!("{other:?}"),
        };
        // The writes follow each other without a gap: the first is the last minus 99.
        let unseen = usize::try_from(last.get() - from.get() + 1).unwrap();
        assert_eq!(
            seen + unseen,
            100,
            "what was queued is told, the rest is named"
        );

        let batch = next(&mut merged).await;
        assert!(batch.is_coalesced);
        assert_eq!(batch.events.len(), 3, "the last change of each key");
        let mut revision = batch.revision;
        while revision < last {
            revision = next(&mut merged).await.revision;
        }
        let mut newest = next(&mut latest).await;
        while newest.revision < last {
            newest = next(&mut latest).await;
        }
    })
    .await;
}

/// Puts, transactions, deletions, and one answer that comes in pieces.
async fn script(client: &Client) -> Vec<(i64, String)> {
    let big = "B".repeat(400_000);
    for number in 0..4 {
        client
            .put(format!("s/{number}"), "x")
            .await
            .expect("the server does it");
    }
    client
        .txn()
        .then(Op::put("s/big1", &big))
        .then(Op::put("s/big2", &big))
        .then(Op::put("s/small", "y"))
        .await
        .expect("the server does it");
    client
        .delete(KeyRange::prefix("s/"))
        .await
        .expect("the server does it");
    client.put("s/last", "z").await.expect("the server does it");
    let mut watch = client
        .watch(KeyRange::prefix("s/"))
        .from(Revision::new(2))
        .await
        .expect("the server does it");
    let mut events = Vec::new();
    while events.last().is_none_or(|(_, key)| key != "s/last") {
        events.extend(names(&next(&mut watch).await));
    }
    events
}

fn names(batch: &gonfalon::Batch) -> Vec<(i64, String)> {
    let name = |event: &gonfalon::Event| {
        let key = event.kv.key_str().expect("keys are text").to_owned();
        (event.kv.mod_revision.get(), key)
    };
    batch.events.iter().map(name).collect()
}

/// A connection that is cut after so many bytes, for every number of bytes that matters: within
/// each frame and between them.
#[tokio::test]
async fn wherever_the_connection_is_cut_nothing_is_lost_or_repeated() {
    for server in [Server::Gonfalon, Server::Etcd35] {
        let cluster = Cluster::start(server, 1).await.expect("the server starts");
        let wanted = script(&super::client(&cluster)).await;
        let port = cluster.member(0).client_port();
        let relay = Relay::to(port).await.unwrap();
        let mut cut_after = 0;
        loop {
            let before = relay.passed();
            relay.cut_after(cut_after);
            let client = Client::builder()
                .endpoints(relay.endpoint())
                .backoff(std::time::Duration::from_millis(1), PATIENCE / 100)
                .deadline(PATIENCE)
                .build()
                .unwrap();
            let mut watch = client
                .watch(KeyRange::prefix("s/"))
                .from(Revision::new(2))
                .await
                .unwrap();
            let mut seen = Vec::new();
            while seen.len() < wanted.len() {
                let batch = next(&mut watch).await;
                for revision in batch.revisions() {
                    let whole = wanted
                        .iter()
                        .filter(|(at, _)| *at == revision[0].kv.mod_revision.get());
                    assert_eq!(revision.len(), whole.count(), "a revision is whole");
                }
                seen.extend(names(&batch));
            }
            assert_eq!(seen, wanted, "{server:?}, cut after {cut_after} bytes");
            if relay.passed() - before < cut_after {
                break;
            }
            // Small frames byte by byte; within the large ones a few places are enough.
            cut_after += if cut_after < 600 { 7 } else { 150_001 };
        }
        assert!(cut_after > 800_000, "the script is longer than that");
    }
}

#[tokio::test]
async fn many_watches_move_together_when_their_connection_is_cut() {
    each_server(async |cluster, direct| {
        let (relay, client) = relayed(cluster).await;
        let mut watches = futures::stream::FuturesUnordered::new();
        for number in 0..200 {
            let key = format!("m/{number:03}");
            watches.push({
                let watch = client.watch(&key);
                async move { (key, watch.await.unwrap()) }
            });
        }
        let mut watches: Vec<_> = watches.by_ref().collect().await;
        for round in 0..3 {
            relay.cut();
            for (key, _) in &watches {
                direct.put(key, format!("{round}")).await.unwrap();
            }
            for (key, watch) in &mut watches {
                let told = told(&next(watch).await);
                assert_eq!(told, [(key.clone(), format!("{round}"))]);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_is_dropped_ends_and_so_does_one_whose_client_is_closed() {
    each_server(async |_, client| {
        let dropped = client.watch("d").await.unwrap();
        drop(dropped);
        let mut watch = client.watch("d").await.unwrap();
        client.put("d", "1").await.unwrap();
        assert_eq!(told(&next(&mut watch).await), [("d".into(), "1".into())]);
        client.close().await.unwrap();
        let error = within(watch.next()).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Closed);
        let error = client.watch("d").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Closed);
        assert_eq!(
            *client.put("d", "2").await.unwrap_err().kind(),
            ErrorKind::Closed
        );
    })
    .await;
}
