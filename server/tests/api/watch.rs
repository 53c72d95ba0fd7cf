//! Watches over the wire: what each answer looks like, and that none is missing or too many.

mod slow;
mod storm;
mod stream;

use std::time::Duration;

use gonfalon_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use gonfalon_proto::etcdserverpb::request_op::Request;
use gonfalon_proto::etcdserverpb::watch_create_request::FilterType;
use gonfalon_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchResponse,
};
use gonfalon_proto::mvccpb::event::EventType;
use gonfalon_proto::mvccpb::{Event, KeyValue};

use self::stream::{StartingAt as _, Stream, all, key};
use crate::member::Member;

fn put_op(key: &str, value: &str) -> RequestOp {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let put = PutRequest {
        key,
        value,
        ..Default::default()
    };
    RequestOp {
        request: Some(Request::RequestPut(put)),
    }
}

impl Member {
    /// Runs operations as one transaction; the revision afterwards.
    async fn txn(&self, success: Vec<RequestOp>) -> i64 {
        let txn = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key: "never there".into(),
                target_union: Some(TargetUnion::Version(0)),
                ..Default::default()
            }],
            success,
            failure: vec![],
        };
        let response = self.kv().txn(txn).await.unwrap().into_inner();
        response.header.unwrap().revision
    }

    async fn delete(&self, key: &str) -> i64 {
        let delete = DeleteRangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        };
        let response = self.kv().delete_range(delete).await.unwrap().into_inner();
        response.header.unwrap().revision
    }

    async fn compact(&self, revision: i64) {
        let compact = CompactionRequest {
            revision,
            physical: false,
        };
        self.kv().compact(compact).await.unwrap();
    }
}

/// Revisions of the events of a response.
fn revisions(response: &WatchResponse) -> Vec<i64> {
    let kvs = response.events.iter().map(|event| event.kv.as_ref());
    kvs.map(|kv| kv.unwrap().mod_revision).collect()
}

/// The revision in the header.
fn at(response: &WatchResponse) -> i64 {
    response.header.as_ref().unwrap().revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_created_before_its_events_and_they_are_whole() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    let created = stream.create(key("a")).await;
    assert!(created.created && !created.canceled && created.events.is_empty());
    assert_eq!((created.watch_id, at(&created)), (0, 1));

    member.put("a", "1").await;
    member.put("b", "not watched").await;
    member.delete("a").await;
    let first = stream.next().await;
    let put = KeyValue {
        key: "a".into(),
        value: "1".into(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        lease: 0,
    };
    let want = Event {
        r#type: EventType::Put.into(),
        kv: Some(put),
        prev_kv: None,
    };
    assert_eq!((first.events, first.watch_id), (vec![want], 0));
    let second = stream.next().await;
    let deleted = KeyValue {
        key: "a".into(),
        mod_revision: 4,
        ..Default::default()
    };
    let want = Event {
        r#type: EventType::Delete.into(),
        kv: Some(deleted),
        prev_kv: None,
    };
    assert_eq!((second.events.clone(), at(&second)), (vec![want], 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_the_clients_or_count_from_zero() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    for (asked, given) in [(0, 0), (2, 2), (-5, -5), (0, 1), (0, 3)] {
        let request = WatchCreateRequest {
            watch_id: asked,
            ..key("a")
        };
        let created = stream.create(request).await;
        assert_eq!(
            (created.watch_id, created.canceled),
            (given, false),
            "{asked} was asked for"
        );
    }
    let taken = WatchCreateRequest {
        watch_id: 2,
        ..key("a")
    };
    stream
        .refused(
            taken,
            "mvcc: duplicate watch ID provided on the WatchStream",
        )
        .await;
    member.put("a", "1").await;
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(stream.next().await.watch_id);
    }
    told.sort_unstable();
    assert_eq!(told, [-5, 0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_and_the_stream_goes_on() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    let range = |key: &'static str, end: &'static str| WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    for (from, end) in [("b", "a"), ("b", "b")] {
        stream
            .refused(range(from, end), "mvcc: watcher range is empty")
            .await;
    }
    let negative = WatchCreateRequest {
        start_revision: -1,
        ..key("a")
    };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    stream.refused(negative, compacted).await;
    assert_eq!(stream.create(range("b", "c")).await.watch_id, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_holds_the_keys_that_its_ends_name() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    for (from, end) in [("", ""), ("b", ""), ("a", "b"), ("b", "\0"), ("", "\0")] {
        let request = WatchCreateRequest {
            key: from.into(),
            range_end: end.into(),
            ..Default::default()
        };
        stream.create(request).await;
    }
    for (name, want) in [("\0", vec![0, 4]), ("a", vec![2, 4]), ("b", vec![1, 3, 4])] {
        member.put(name, "1").await;
        let mut told = Vec::new();
        for _ in &want {
            told.push(stream.next().await.watch_id);
        }
        told.sort_unstable();
        assert_eq!(told, want, "{name:?}");
    }
    stream.nothing_more().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_told_from_any_revision_that_is_not_compacted() {
    let member = Member::alone().await;
    for value in ["1", "2", "3", "4"] {
        member.put("a", value).await;
    }
    member.delete("a").await;
    member.compact(4).await;
    for start in 4..=6 {
        let mut stream = Stream::open(&member).await;
        let created = stream.create(key("a").starting_at(start)).await;
        assert_eq!(at(&created), 6, "a watch from {start}");
        let mut told = Vec::new();
        while told.len() < usize::try_from(7 - start).unwrap() {
            let response = stream.next().await;
            assert_eq!(at(&response), 6, "a watch from {start}");
            told.extend(revisions(&response));
        }
        assert_eq!(
            told,
            (start..=6).collect::<Vec<_>>(),
            "a watch from {start}"
        );
        stream.nothing_more().await;
    }
    for start in [1, 3] {
        let mut stream = Stream::open(&member).await;
        let created = stream.create(key("a").starting_at(start)).await;
        assert!(
            created.created && !created.canceled,
            "created first, from {start}"
        );
        let canceled = stream.next().await;
        assert!(canceled.canceled && !canceled.created);
        assert_eq!(
            (canceled.compact_revision, at(&canceled)),
            (4, 0),
            "from {start}"
        );
        assert_eq!(
            (canceled.watch_id, canceled.cancel_reason.as_str()),
            (0, "")
        );
        stream.nothing_more().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_the_future_is_silent_until_then() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    stream.create(key("a").starting_at(4)).await;
    stream.ask_progress().await;
    for value in ["2", "3", "4"] {
        member.put("a", value).await;
    }
    assert_eq!(revisions(&stream.next().await), [4]);
    stream.nothing_more().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_leave_out_what_they_name() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    for filters in [vec![FilterType::Noput], vec![FilterType::Nodelete]] {
        let filters = filters.into_iter().map(Into::into).collect();
        stream
            .create(WatchCreateRequest {
                filters,
                ..key("a")
            })
            .await;
    }
    member.put("a", "1").await;
    member.delete("a").await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let response = stream.next().await;
        told.push((response.watch_id, revisions(&response)));
    }
    told.sort_unstable();
    assert_eq!(told, [(0, vec![3]), (1, vec![2])]);
    stream.nothing_more().await;
    // The same from history.
    let (filters, past) = (vec![FilterType::Noput.into()], key("a").starting_at(2));
    stream.create(WatchCreateRequest { filters, ..past }).await;
    assert_eq!(revisions(&stream.next().await), [3]);
    let told = member.node.store().metrics().kv.events.get();
    assert_eq!(told, 3, "events told are counted, and no others");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_comes_along_if_asked_for() {
    let member = Member::alone().await;
    let with_prev = WatchCreateRequest {
        prev_kv: true,
        ..key("a")
    };
    let mut live = Stream::open(&member).await;
    live.create(with_prev.clone()).await;
    live.create(key("a")).await;
    member.put("a", "1").await;
    member.put("a", "2").await;
    member.delete("a").await;
    member.put("a", "3").await;
    let mut past = Stream::open(&member).await;
    past.create(with_prev.clone().starting_at(2)).await;
    let before = |event: &Event| event.prev_kv.as_ref().map(|kv| kv.value.clone());
    for (name, stream) in [("live", &mut live), ("past", &mut past)] {
        let mut told = Vec::new();
        while told.len() < 4 {
            let response = stream.next().await;
            match response.watch_id {
                0 => told.extend(response.events.iter().map(before)),
                _ => assert!(response.events.iter().all(|event| event.prev_kv.is_none())),
            }
        }
        let want = [None, Some("1".into()), Some("2".into()), None];
        assert_eq!(told, want, "{name}");
    }
    // What came before the oldest readable revision is gone.
    member.compact(3).await;
    let mut past = Stream::open(&member).await;
    past.create(with_prev.starting_at(3)).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.extend(past.next().await.events.iter().map(before));
    }
    assert_eq!(told, [None, Some("2".into()), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_told_at_once_and_in_fragments_only_to_who_joins_them() {
    let member = Member::alone_with(&["--max-request-bytes=10000"]).await;
    // Requests of 9 KB; with the versions before, their events are 18 KB.
    let value = "x".repeat(3000);
    let puts = || {
        ["a", "b", "c"]
            .iter()
            .map(|key| put_op(key, &value))
            .collect()
    };
    let first = member.txn(puts()).await;
    let watcher = |prev_kv, fragment| WatchCreateRequest {
        prev_kv,
        fragment,
        ..all()
    };
    let mut live = Stream::open(&member).await;
    let mut past = Stream::open(&member).await;
    for (prev_kv, fragment) in [(true, false), (false, true), (true, true)] {
        live.create(watcher(prev_kv, fragment)).await;
    }
    let second = member.txn(puts()).await;
    for (prev_kv, fragment) in [(true, false), (false, true), (true, true)] {
        let watcher = watcher(prev_kv, fragment).starting_at(second);
        past.ask_create(watcher).await;
    }
    assert_eq!(second, first + 1);
    for (name, stream) in [("live", &mut live), ("past", &mut past)] {
        let mut told = Vec::new();
        while told.iter().map(|(_, events, _)| events).sum::<usize>() < 9 {
            let response = stream.next().await;
            if response.created {
                continue;
            }
            assert!(
                revisions(&response)
                    .iter()
                    .all(|&revision| revision == second)
            );
            told.push((response.watch_id, response.events.len(), response.fragment));
        }
        // The fragments of a watcher follow one another: clients rely on it.
        let joined = told
            .iter()
            .position(|&(id, ..)| id == 2)
            .expect("it is told");
        let parts: Vec<_> = told.drain(joined..joined + 3).collect();
        assert_eq!(parts, [(2, 1, true), (2, 1, true), (2, 1, false)], "{name}");
        told.sort_unstable();
        assert_eq!(told, [(0, 3, false), (1, 3, false)], "{name}");
        stream.nothing_more().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_watcher_is_told_so_and_nothing_else() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    stream.create(key("a")).await;
    stream.create(key("a")).await;
    member.put("a", "1").await;
    stream.next().await;
    stream.next().await;
    stream.cancel(0).await;
    let canceled = stream.next().await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!(
        (canceled.watch_id, canceled.cancel_reason.as_str()),
        (0, "")
    );
    assert_eq!((canceled.compact_revision, at(&canceled)), (0, 2));
    member.put("a", "2").await;
    assert_eq!(stream.next().await.watch_id, 1);
    // Neither an id that nobody has nor a request for nothing is answered.
    stream.cancel(0).await;
    stream.cancel(99).await;
    stream.send(None).await;
    stream.nothing_more().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_cancelled_can_be_used_again_in_one_breath() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    let seven = |name| WatchCreateRequest {
        watch_id: 7,
        ..key(name)
    };
    stream.create(seven("a")).await;
    member.put("a", "1").await;
    for name in ["b", "c", "a"] {
        stream.cancel(7).await;
        stream.ask_create(seven(name)).await;
    }
    let mut told = Vec::new();
    while told.len() < 7 {
        let response = stream.next().await;
        told.push((response.created, response.canceled, response.events.len()));
    }
    let (created, canceled) = ((true, false, 0), (false, true, 0));
    let pairs = [canceled, created, canceled, created, canceled, created];
    assert_eq!((told[0], &told[1..]), ((false, false, 1), pairs.as_slice()));
    member.put("a", "2").await;
    assert_eq!(revisions(&stream.next().await), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_said_its_last_word_is_told_on() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    stream.create(key("a")).await;
    stream.half_close();
    for revision in 2..5 {
        member.put("a", "1").await;
        assert_eq!(revisions(&stream.next().await), [revision]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_when_asked_for_and_true() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    // Of nobody there is no progress.
    stream.ask_progress().await;
    stream.create(key("a")).await;
    stream.create(key("b").starting_at(2)).await;
    stream.ask_progress().await;
    stream.nothing_more().await;
    // Both watchers have started now.
    member.put("a", "1").await;
    assert_eq!(revisions(&stream.next().await), [2]);
    member.put("other", "1").await;
    stream.ask_progress().await;
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, at(&progress)), (-1, 3));
    assert!(!progress.created && !progress.canceled && progress.events.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watcher_hears_of_progress_now_and_then_if_it_asked() {
    let interval = Duration::from_millis(200);
    let member = Member::alone_with(&["--watch-progress-notify-interval=200ms"]).await;
    let mut stream = Stream::open(&member).await;
    stream.create(key("a")).await;
    let quiet = WatchCreateRequest {
        progress_notify: true,
        ..key("b")
    };
    stream.create(quiet).await;
    member.put("other", "1").await;
    let first = stream.next().await;
    assert_eq!((first.watch_id, at(&first), first.events.len()), (1, 2, 0));
    let before = tokio::time::Instant::now();
    for _ in 0..3 {
        let progress = stream.next().await;
        assert_eq!((progress.watch_id, at(&progress)), (1, 2));
    }
    let took = before.elapsed();
    assert!(took >= interval * 11 / 4, "three came within {took:?}");

    // Even while another watcher of the stream is told without a pause.
    let busy = async {
        loop {
            member.put("a", "1").await;
        }
    };
    let quiet = async { while stream.next().await.watch_id != 1 {} };
    tokio::select! {
        () = busy => unreachable!("it puts for ever"),
        () = quiet => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_go_with_their_stream_and_end_with_the_server() {
    let member = Member::alone().await;
    let mut stream = Stream::open(&member).await;
    stream.create(key("a")).await;
    let mut other = Stream::open(&member).await;
    other.create(key("a")).await;
    assert_eq!(member.node.store().watchers().counts().watchers, 2);
    drop(stream);
    while member.node.store().watchers().counts().watchers != 1 {
        tokio::task::yield_now().await;
    }
    member.stop().await;
    let end = other.end().await;
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end}");
}
