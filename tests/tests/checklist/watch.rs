//! Watches.

use bytes::Bytes;
use gonfalon_proto::etcdserverpb::{
    CompactionRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use gonfalon_proto::mvccpb::KeyValue;
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::raw;
use gonfalon_tests::requests::{ZERO, all_of, delete, op, put, watch, watch_prefix};
use gonfalon_tests::streams::WatchStream;
use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::{PATIENCE, SILENCE, one, one_with};

items! {
    always {
        item_16_ids_begin_with_zero_and_a_refusal_has_minus_one,
        item_17_a_watch_of_compacted_history_is_created_and_then_ended,
        item_19_pieces_of_an_answer_are_not_interrupted,
        item_20_a_deletion_names_only_its_key_and_revision,
        item_36_a_stream_without_further_requests_goes_on,
        item_41_an_empty_range_end_on_the_wire_is_a_single_key,
        history_is_replayed_and_then_the_present_follows,
        filters_drop_events_and_empty_answers,
        the_first_requests_of_a_stream_may_come_together,
    }
    now {
        item_18_what_cannot_be_answered_is_silent,
        item_37_a_client_may_insist_on_a_leader,
        a_negative_revision_is_refused_at_once,
        a_deletion_at_the_compacted_revision_is_still_seen,
        progress_comes_by_itself_when_nothing_happens,
    }
}

async fn next(stream: &mut WatchStream) -> WatchResponse {
    stream.next(PATIENCE).await.expect("an answer")
}

fn revision(answer: &WatchResponse) -> i64 {
    answer.header.as_ref().expect("a header").revision
}

fn mod_revisions(answer: &WatchResponse) -> Vec<i64> {
    answer
        .events
        .iter()
        .filter_map(|event| event.kv.as_ref())
        .map(|kv| kv.mod_revision)
        .collect()
}

async fn item_16_ids_begin_with_zero_and_a_refusal_has_minus_one(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    stream.create(watch("a")).await;
    let first = next(&mut stream).await;
    assert_eq!(
        (first.watch_id, first.created, first.canceled),
        (0, true, false)
    );
    stream
        .create(WatchCreateRequest {
            watch_id: 5,
            ..watch("a")
        })
        .await;
    assert_eq!(next(&mut stream).await.watch_id, 5);
    stream
        .create(WatchCreateRequest {
            watch_id: 5,
            ..watch("a")
        })
        .await;
    let refused = next(&mut stream).await;
    assert_eq!(
        (refused.watch_id, refused.created, refused.canceled),
        (-1, true, true)
    );
    let reason = "mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!(refused.cancel_reason, reason);
    stream
        .create(WatchCreateRequest {
            range_end: "a".into(),
            ..watch("b")
        })
        .await;
    let refused = next(&mut stream).await;
    assert_eq!(
        (refused.watch_id, refused.created, refused.canceled),
        (-1, true, true)
    );
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    client.put("a", "1").await.expect("a put");
    let mut ids = [
        next(&mut stream).await.watch_id,
        next(&mut stream).await.watch_id,
    ];
    ids.sort_unstable();
    assert_eq!(
        ids,
        [0, 5],
        "the stream and its watchers are not harmed by refusals"
    );
    stream.progress().await;
    let progress = next(&mut stream).await;
    assert_eq!(
        (
            progress.watch_id,
            revision(&progress),
            progress.events.len()
        ),
        (-1, 2, 0)
    );
}

async fn item_17_a_watch_of_compacted_history_is_created_and_then_ended(server: Server) {
    let (_cluster, client) = one(server).await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await.expect("a put");
    }
    let request = CompactionRequest {
        revision: 3,
        physical: true,
    };
    client
        .kv
        .clone()
        .compact(request)
        .await
        .expect("a compaction");
    let mut stream = WatchStream::open(&client);
    stream
        .create(WatchCreateRequest {
            start_revision: 2,
            ..watch("a")
        })
        .await;
    let created = next(&mut stream).await;
    assert_eq!(
        (created.created, created.canceled, revision(&created)),
        (true, false, 4)
    );
    let ended = next(&mut stream).await;
    assert_eq!((ended.created, ended.canceled), (false, true));
    assert_eq!((ended.compact_revision, revision(&ended)), (3, 0));
    assert_eq!(ended.cancel_reason, "");
    stream
        .create(WatchCreateRequest {
            start_revision: 3,
            ..watch("a")
        })
        .await;
    assert!(next(&mut stream).await.created);
    assert_eq!(
        mod_revisions(&next(&mut stream).await),
        [3, 4],
        "history at it is still there"
    );
}

async fn item_18_what_cannot_be_answered_is_silent(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    stream.cancel(404).await;
    stream
        .send(WatchRequest {
            request_union: None,
        })
        .await;
    stream.progress().await;
    stream
        .create(WatchCreateRequest {
            start_revision: 100,
            ..watch("a")
        })
        .await;
    assert!(
        next(&mut stream).await.created,
        "nothing came before the first watcher"
    );
    client.put("a", "1").await.expect("a put");
    stream.progress().await;
    stream
        .quiet(SILENCE)
        .await
        .expect("no word while a watcher waits for the future");
}

async fn item_19_pieces_of_an_answer_are_not_interrupted(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    // One revision of 1.4 MB, and what was before it: more than one message takes.
    let both = |fill: &str| {
        let value = fill.repeat(700_000);
        all_of(vec![
            op(put("big/1", &value)),
            op(put("big/2", &value)),
            op(put("small", fill)),
        ])
    };
    let big = WatchCreateRequest {
        fragment: true,
        prev_kv: true,
        ..watch_prefix("big/")
    };
    for request in [big.clone(), watch("small"), big.clone()] {
        stream.create(request).await;
        assert!(next(&mut stream).await.created);
    }
    for fill in ["1", "2", "3"] {
        client
            .kv
            .clone()
            .txn(both(fill))
            .await
            .expect("a transaction");
    }
    stream
        .create(WatchCreateRequest {
            start_revision: 2,
            ..big
        })
        .await;
    let mut open: Option<i64> = None;
    let (mut pieces, mut seen) = (0, vec![0; 4]);
    while seen != [6, 3, 6, 6] {
        let answer = next(&mut stream).await;
        assert!(
            open.is_none_or(|id| id == answer.watch_id),
            "an answer between two pieces"
        );
        let id = usize::try_from(answer.watch_id).expect("an id of these four");
        seen[id] += answer.events.len();
        pieces += usize::from(answer.fragment);
        open = answer.fragment.then_some(answer.watch_id);
    }
    assert!(
        pieces >= 6,
        "six answers of 2.8 MB came in {pieces} pieces and six last ones"
    );
}

async fn item_20_a_deletion_names_only_its_key_and_revision(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    stream
        .create(WatchCreateRequest {
            prev_kv: true,
            ..watch("a")
        })
        .await;
    assert!(next(&mut stream).await.created);
    client.put("a", "1").await.expect("a put");
    let created = next(&mut stream).await.events.remove(0);
    assert_eq!(
        (created.r#type, created.prev_kv),
        (0, None),
        "nothing was there before"
    );
    client
        .kv
        .clone()
        .delete_range(delete("a"))
        .await
        .expect("a deletion");
    let deleted = next(&mut stream).await.events.remove(0);
    assert_eq!(deleted.r#type, 1);
    let only = KeyValue {
        key: "a".into(),
        mod_revision: 3,
        ..KeyValue::default()
    };
    assert_eq!(deleted.kv, Some(only));
    assert_eq!(deleted.prev_kv, created.kv);
}

async fn item_36_a_stream_without_further_requests_goes_on(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    stream.create(watch("a")).await;
    assert!(next(&mut stream).await.created);
    stream.half_close();
    stream
        .quiet(SILENCE)
        .await
        .expect("closing one half ends nothing");
    client.put("a", "1").await.expect("a put");
    assert_eq!(mod_revisions(&next(&mut stream).await), [2]);
}

async fn item_37_a_client_may_insist_on_a_leader(server: Server) {
    let mut cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    let client = cluster.client(0);
    let insist = |stream: &mut Request<_>| {
        stream
            .metadata_mut()
            .insert("hasleader", MetadataValue::from_static("true"));
    };
    let mut stream = WatchStream::open_with(&client, insist);
    stream.create(watch("a")).await;
    assert!(next(&mut stream).await.created);
    for other in [1, 2] {
        cluster.kill(other).expect("the member runs");
    }
    let lost = loop {
        match stream.next(PATIENCE).await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(
        (lost.code(), lost.message()),
        (Code::Unavailable, "etcdserver: no leader")
    );
    let mut late = WatchStream::open_with(&client, insist);
    late.create(watch("a")).await;
    let refused = late.next(PATIENCE).await.expect_err("there is no leader");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "etcdserver: no leader")
    );
}

async fn item_41_an_empty_range_end_on_the_wire_is_a_single_key(server: Server) {
    let (_cluster, client) = one(server).await;
    // create_request { key: "a", range_end: "", start_revision: 1 }, the empty field spelled out.
    let create: &[u8] = &[0x0a, 7, 0x0a, 1, b'a', 0x12, 0, 0x18, 1];
    let path = "/etcdserverpb.Watch/Watch";
    client.put("b", "1").await.expect("a put");
    client.put("a", "1").await.expect("a put");
    let bodies = vec![Bytes::from_static(create)];
    let mut stream = raw::stream(&client, path, bodies).await.expect("a stream");
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let bytes = stream
            .message()
            .await
            .expect("an answer")
            .expect("the stream goes on");
        answers.push(WatchResponse::decode(bytes).expect("a response"));
    }
    assert!(answers[0].created);
    let keys: Vec<&[u8]> = answers[1]
        .events
        .iter()
        .filter_map(|event| event.kv.as_ref())
        .map(|kv| kv.key.as_ref())
        .collect();
    assert_eq!(keys, [b"a"], "everything from a on was not asked for");
}

async fn history_is_replayed_and_then_the_present_follows(server: Server) {
    let (_cluster, client) = one(server).await;
    for value in ["1", "2"] {
        client.put("a", value).await.expect("a put");
    }
    let both = all_of(vec![op(put("a", "3")), op(put("ab", "3"))]);
    client.kv.clone().txn(both).await.expect("a transaction");
    let everything = WatchCreateRequest {
        key: Bytes::new(),
        range_end: ZERO.into(),
        start_revision: 2,
        ..watch("")
    };
    let mut stream = WatchStream::open(&client);
    stream.create(everything).await;
    assert!(next(&mut stream).await.created);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(mod_revisions(&next(&mut stream).await));
    }
    assert_eq!(seen, [2, 3, 4, 4]);
    client.put("z", "1").await.expect("a put");
    let live = next(&mut stream).await;
    assert_eq!((mod_revisions(&live), revision(&live)), (vec![5], 5));
}

async fn filters_drop_events_and_empty_answers(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    for (watch_id, filter) in [(10, 0), (11, 1)] {
        stream
            .create(WatchCreateRequest {
                watch_id,
                filters: vec![filter],
                ..watch("a")
            })
            .await;
        assert!(next(&mut stream).await.created);
    }
    client.put("a", "1").await.expect("a put");
    client
        .kv
        .clone()
        .delete_range(delete("a"))
        .await
        .expect("a deletion");
    let put = next(&mut stream).await;
    assert_eq!(
        (put.watch_id, mod_revisions(&put)),
        (11, vec![2]),
        "NODELETE sees the put"
    );
    let deletion = next(&mut stream).await;
    assert_eq!(
        (deletion.watch_id, mod_revisions(&deletion)),
        (10, vec![3]),
        "NOPUT does not"
    );
    stream
        .quiet(SILENCE)
        .await
        .expect("an answer whose events are all dropped is not sent");
}

async fn the_first_requests_of_a_stream_may_come_together(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    for _ in 0..50 {
        stream.create(watch("a")).await;
    }
    for id in 0..50 {
        let created = next(&mut stream).await;
        assert_eq!(
            (created.watch_id, created.created),
            (id, true),
            "answered in their order"
        );
    }
    stream.cancel(7).await;
    let canceled = next(&mut stream).await;
    assert_eq!((canceled.watch_id, canceled.canceled), (7, true));
    assert_eq!(
        (canceled.cancel_reason.as_str(), canceled.compact_revision),
        ("", 0)
    );
    client.put("a", "1").await.expect("a put");
    let mut ids = Vec::new();
    for _ in 0..49 {
        ids.push(next(&mut stream).await.watch_id);
    }
    ids.sort_unstable();
    assert!(!ids.contains(&7), "nothing comes after the end");
    ids.dedup();
    assert_eq!(ids.len(), 49, "every other watcher once");
}

async fn a_negative_revision_is_refused_at_once(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut stream = WatchStream::open(&client);
    stream
        .create(WatchCreateRequest {
            start_revision: -1,
            ..watch("a")
        })
        .await;
    let refused = next(&mut stream).await;
    assert_eq!(
        (refused.watch_id, refused.created, refused.canceled),
        (-1, true, true)
    );
    let reason = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(refused.cancel_reason, reason);
}

async fn a_deletion_at_the_compacted_revision_is_still_seen(server: Server) {
    let (_cluster, client) = one(server).await;
    client.put("a", "1").await.expect("a put");
    client
        .kv
        .clone()
        .delete_range(delete("a"))
        .await
        .expect("a deletion");
    client.put("b", "1").await.expect("a put");
    let request = CompactionRequest {
        revision: 3,
        physical: true,
    };
    client
        .kv
        .clone()
        .compact(request)
        .await
        .expect("a compaction");
    let mut stream = WatchStream::open(&client);
    let from = WatchCreateRequest {
        start_revision: 3,
        prev_kv: true,
        ..watch("a")
    };
    stream.create(from).await;
    assert!(next(&mut stream).await.created);
    let seen = next(&mut stream).await;
    assert_eq!((seen.events[0].r#type, mod_revisions(&seen)), (1, vec![3]));
    assert_eq!(seen.events[0].prev_kv, None, "what was before is compacted");
}

async fn progress_comes_by_itself_when_nothing_happens(server: Server) {
    let flags = ["--watch-progress-notify-interval", "300ms"];
    let (_cluster, client) = one_with(server, &flags).await;
    let mut stream = WatchStream::open(&client);
    stream
        .create(WatchCreateRequest {
            progress_notify: true,
            ..watch("a")
        })
        .await;
    assert!(next(&mut stream).await.created);
    client
        .put("b", "1")
        .await
        .expect("a put that it does not watch");
    let mut last = 0;
    for _ in 0..3 {
        let progress = next(&mut stream).await;
        assert_eq!((progress.watch_id, progress.events.len()), (0, 0));
        assert!(
            revision(&progress) >= last,
            "progress goes back to {}",
            revision(&progress)
        );
        last = revision(&progress);
    }
    assert_eq!(last, 2);
}
