//! Everything at once, by seed: what each watcher was told is compared with what happened.

use std::collections::BTreeMap;

use gonfalon_proto::etcdserverpb::request_op::Request;
use gonfalon_proto::etcdserverpb::{DeleteRangeRequest, RequestOp, WatchCreateRequest};
use gonfalon_proto::mvccpb::event::EventType;
use gonfalon_proto::mvccpb::{Event, KeyValue};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::stream::{Stream, all};
use super::{put_op, revisions};
use crate::member::Member;

const WRITES: usize = 400;
const STREAMS: usize = 6;
const WATCHERS: i64 = 8;
const KEYS: [&str; 5] = ["a", "b", "b/1", "b/2", "c"];

/// What a client was told of one watcher.
#[derive(Debug, Default)]
struct Told {
    start: i64,
    events: Vec<Event>,
    /// Everything up to here was announced.
    progress: i64,
    compacted: Option<i64>,
}

impl Told {
    /// What the client knows to have been told completely.
    fn last(&self) -> i64 {
        self.events.last().map_or(0, revision).max(self.progress)
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().unwrap().mod_revision
}

fn delete_op(from: &'static str, end: &'static str) -> RequestOp {
    let delete = DeleteRangeRequest {
        key: from.into(),
        range_end: end.into(),
        ..Default::default()
    };
    RequestOp {
        request: Some(Request::RequestDeleteRange(delete)),
    }
}

/// Writes, and compacts now and then; returns the last revision and the last compaction.
async fn write(member: &Member, rng: &mut StdRng) -> (i64, i64) {
    let (mut last, mut compacted) = (1, 0);
    for number in 0..WRITES {
        let value = "v".repeat(rng.random_range(0..2000)) + &number.to_string();
        let mut ops = vec![put_op(KEYS[rng.random_range(0..KEYS.len())], &value)];
        if rng.random_bool(0.3) {
            ops = KEYS.iter().map(|key| put_op(key, &value)).collect();
        }
        if rng.random_bool(0.1) {
            ops = vec![delete_op("b", "c"), put_op("c", &value)];
        }
        last = member.txn(ops).await;
        let oldest = last - rng.random_range(0..50);
        if rng.random_bool(0.03) && oldest > compacted {
            compacted = oldest;
            member.compact(compacted).await;
        }
    }
    (last, compacted)
}

/// A stream of random watchers, read until each is at `until`, once that is known.
async fn watch(
    member: &Member,
    mut rng: StdRng,
    mut until: tokio::sync::watch::Receiver<i64>,
) -> Vec<(WatchCreateRequest, Told)> {
    let mut stream = Stream::open_alone(member).await;
    let mut told: BTreeMap<i64, (WatchCreateRequest, Told)> = BTreeMap::new();
    for id in 1..=WATCHERS {
        let now = member.node.store().read(|state, _| state.revision().get());
        let range = ["", "c", "\0"][rng.random_range(0..3)];
        let request = WatchCreateRequest {
            key: "b".into(),
            range_end: range.into(),
            start_revision: [0, 0, rng.random_range(1..=now + 3)][rng.random_range(0..3)],
            prev_kv: rng.random(),
            fragment: rng.random(),
            filters: [vec![], vec![rng.random_range(0..2)]][rng.random_range(0..2)].clone(),
            watch_id: id,
            ..Default::default()
        };
        told.insert(id, (request.clone(), Told::default()));
        stream.ask_create(request).await;
        tokio::time::sleep(std::time::Duration::from_millis(rng.random_range(0..60))).await;
    }
    let mut asking = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        let goal = *until.borrow_and_update();
        let is_over = |told: &Told| told.compacted.is_some() || goal > 0 && told.last() >= goal;
        if told.values().all(|(_, told)| is_over(told)) {
            return told.into_values().collect();
        }
        let response = tokio::select! {
            response = stream.next() => response,
            _ = asking.tick() => {
                stream.ask_progress().await;
                continue;
            }
        };
        let at = response.header.unwrap().revision;
        if response.watch_id == -1 {
            // It says nothing of who is not created yet; all are, when all have a start.
            for (_, told) in told.values_mut().filter(|(_, told)| told.start > 0) {
                assert!(told.last() <= at, "progress to {at} behind {}", told.last());
                told.progress = at;
            }
            continue;
        }
        let (request, told) = told.get_mut(&response.watch_id).unwrap();
        if response.created {
            told.start = match request.start_revision {
                0 => at + 1,
                start => start,
            };
        } else if response.canceled {
            told.compacted = Some(response.compact_revision);
        } else {
            let first = *revisions(&response)
                .first()
                .expect("a response to a watcher has events");
            assert!(told.start > 0 && told.compacted.is_none() && at >= first);
            assert!(
                first > told.progress,
                "{first} after progress to {}",
                told.progress
            );
            told.events.extend(response.events);
        }
    }
}

/// Every event that there was, oldest first, as a watcher of everything was told.
async fn record(member: &Member, mut until: tokio::sync::watch::Receiver<i64>) -> Vec<Event> {
    let mut stream = Stream::open_alone(member).await;
    let watcher = WatchCreateRequest {
        prev_kv: true,
        start_revision: 1,
        ..all()
    };
    stream.create(watcher).await;
    let mut events: Vec<Event> = Vec::new();
    loop {
        let goal = *until.borrow_and_update();
        if goal > 0 && events.last().is_some_and(|event| revision(event) >= goal) {
            return events;
        }
        tokio::select! {
            response = stream.next() => {
                assert!(!response.canceled, "the recorder is quicker than any compaction");
                let first = revisions(&response)[0];
                assert!(events.last().is_none_or(|last| revision(last) < first), "half a revision");
                events.extend(response.events);
            }
            _ = until.changed() => {}
        }
    }
}

/// Replays the events: each version must follow from the ones before.
fn verify_history(events: &[Event]) {
    let mut state: BTreeMap<&[u8], &KeyValue> = BTreeMap::new();
    for event in events {
        let kv = event.kv.as_ref().unwrap();
        let before = state.get(kv.key.as_ref()).copied();
        assert_eq!(event.prev_kv.as_ref(), before, "the version before {kv:?}");
        if event.r#type == i32::from(EventType::Delete) {
            assert!(before.is_some(), "{kv:?} was not there");
            state.remove(kv.key.as_ref());
        } else {
            let created = before.map_or(kv.mod_revision, |before| before.create_revision);
            let version = before.map_or(1, |before| before.version + 1);
            assert_eq!((kv.create_revision, kv.version), (created, version));
            state.insert(&kv.key, kv);
        }
    }
}

fn verify(history: &[Event], request: &WatchCreateRequest, told: &Told, compacted: i64) {
    let wants = |event: &&Event| {
        let kv = event.kv.as_ref().unwrap();
        let is_in = match request.range_end.as_ref() {
            b"" => kv.key == request.key,
            b"\0" => kv.key >= request.key,
            end => kv.key >= request.key && kv.key.as_ref() < end,
        };
        is_in && kv.mod_revision >= told.start && !request.filters.contains(&event.r#type)
    };
    let mut want = history.iter().filter(wants);
    for event in &told.events {
        let want = want.next().expect("no more than there was");
        assert_eq!(
            (event.r#type, &event.kv),
            (want.r#type, &want.kv),
            "{request:?}"
        );
        match &event.prev_kv {
            Some(prev) => {
                assert!(request.prev_kv);
                assert_eq!(Some(prev), want.prev_kv.as_ref());
            }
            None => assert!(
                !request.prev_kv || want.prev_kv.is_none() || revision(event) - 1 < compacted,
                "the version before {event:?} is readable",
            ),
        }
    }
    match (told.compacted, want.next()) {
        (None, missing) => assert_eq!(missing, None, "never told to {request:?}"),
        (Some(oldest), missing) => {
            assert!(
                oldest <= compacted
                    && missing.is_none_or(|it| revision(it) < oldest || told.events.is_empty())
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_watcher_is_told_is_what_happened() {
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("repeat with SEED={seed}");
    let member = Member::alone().await;
    let (goal, until) = tokio::sync::watch::channel(0);
    let writing = async {
        let mut rng = StdRng::seed_from_u64(seed);
        let (last, compacted) = write(&member, &mut rng).await;
        goal.send_replace(last);
        compacted
    };
    let watching = futures::future::join_all((1..=STREAMS as u64).map(|number| {
        let rng = StdRng::seed_from_u64(seed.wrapping_add(number));
        watch(&member, rng, until.clone())
    }));
    let (compacted, told, history) =
        tokio::join!(writing, watching, record(&member, until.clone()));
    verify_history(&history);
    for (request, told) in told.iter().flatten() {
        verify(&history, request, told, compacted);
    }
}
