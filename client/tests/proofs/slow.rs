//! Consumers that do not take what they are told.

use std::time::Duration;

use bytes::Bytes;
use gonfalon::testkit::{FakeServer, Rpc};
use gonfalon::{ErrorKind, KeyRange, Overflow};

use super::{next, within};

const VALUE_BYTES: usize = 1024 * 1024;
const VALUES: usize = 100;
const QUEUE_BYTES: usize = 4 * VALUE_BYTES;

/// A hundred megabytes for watches that nobody polls: everything else goes on as ever, and what is
/// kept for them is what their policies say.
#[tokio::test]
async fn watches_that_are_not_polled_delay_nothing_and_keep_what_they_may() {
    let server = FakeServer::start();
    let client = server.client();
    let all = |overflow: Overflow| {
        let watch = client.watch(KeyRange::prefix("big/")).without_prev();
        watch.queue(QUEUE_BYTES, overflow).into_future()
    };
    let mut failing = all(Overflow::Fail).await.unwrap();
    let mut merged = all(Overflow::CoalescePerKey).await.unwrap();
    let mut newest = all(Overflow::LatestOnly).await.unwrap();
    let mut small = client.watch("small").await.unwrap();
    let lease = client.grant(Duration::from_secs(5)).await.unwrap();
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut first = None;
    for number in 0..VALUES {
        let revision = server.put(format!("big/{}", number % 2), &value);
        first.get_or_insert(revision);
        let key = number.to_string();
        let before = std::time::Instant::now();
        client.put("small", &key).await.unwrap();
        assert_eq!(next(&mut small).await.events[0].kv.value, key);
        assert!(
            before.elapsed() < Duration::from_secs(5),
            "nothing is in its way"
        );
    }
    assert!(lease.is_held());
    assert_eq!(server.received(Rpc::Watch), 1, "the stream never broke");
    let last = server.changes_after(first.unwrap()).into_iter().rev();
    let last = last
        .map(|event| event.kv)
        .find(|kv| kv.key.starts_with(b"big"));
    let last = last.unwrap().mod_revision;

    let (mut bytes, mut told) = (0, None);
    let from = loop {
        match within(failing.next()).await.unwrap() {
            Ok(batch) => {
                bytes += batch.events.iter().map(|e| e.kv.value.len()).sum::<usize>();
                told = Some(batch.revision);
            }
            Err(error) => match *error.kind() {
                ErrorKind::Lagged { from } => break from,
                ref other => panic!("{other:?}"),
            },
        }
    };
    assert!(bytes <= QUEUE_BYTES, "{bytes} bytes were kept");
    assert_eq!(
        told.map(gonfalon::Revision::next),
        Some(from),
        "nothing before it is lost"
    );

    for (watch, keys) in [(&mut merged, 2), (&mut newest, 1)] {
        let mut batch = next(watch).await;
        let mut bytes = 0;
        loop {
            bytes += batch.events.iter().map(|e| e.kv.value.len()).sum::<usize>();
            if batch.revision == last {
                break;
            }
            batch = next(watch).await;
        }
        assert!(
            bytes <= QUEUE_BYTES + keys * VALUE_BYTES,
            "{bytes} bytes were kept"
        );
        assert_eq!(batch.revision, last, "the last is always there");
    }
}
