//! A client that does not read: it costs what its queue may hold and delays nobody.

use gonfalon_proto::etcdserverpb::WatchCreateRequest;

use super::revisions;
use super::stream::{Stream, all};
use crate::member::Member;

/// So many puts of such values: far more than a connection's window and a mailbox hold.
const PUTS: i64 = 600;
const VALUE_BYTES: usize = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_read_delays_nobody_and_misses_nothing() {
    let member = Member::alone().await;
    let mut slow = Stream::open(&member).await;
    slow.create(all()).await;
    slow.create(WatchCreateRequest {
        prev_kv: true,
        ..all()
    })
    .await;
    let mut quick = Stream::open_alone(&member).await;
    quick.create(all()).await;
    let value = "x".repeat(VALUE_BYTES);
    let reading = async {
        let mut told = Vec::new();
        while told.last() != Some(&(1 + PUTS)) {
            told.extend(revisions(&quick.next().await));
        }
        told
    };
    let writing = async {
        for _ in 0..PUTS {
            member.put("a", &value).await;
        }
    };
    let (told, ()) = tokio::join!(reading, writing);
    assert_eq!(told, (2..=1 + PUTS).collect::<Vec<_>>(), "the quick one");
    let counts = member.node.store().watchers().counts();
    assert_eq!(counts.unsynced, 2, "the slow one's queue was full");

    let mut told = [Vec::new(), Vec::new()];
    while told.iter().any(|told| told.last() != Some(&(1 + PUTS))) {
        let response = slow.next().await;
        let bytes: usize = response
            .events
            .iter()
            .map(|it| it.kv.as_ref().unwrap().value.len())
            .sum();
        assert!(bytes < 1024 * 1024, "a message of {bytes} bytes");
        told[usize::try_from(response.watch_id).unwrap()].extend(revisions(&response));
    }
    for (id, told) in told.iter().enumerate() {
        assert_eq!(
            told,
            &(2..=1 + PUTS).collect::<Vec<_>>(),
            "watcher {id} of the slow one"
        );
    }
    member.put("a", "live again").await;
    assert_eq!(revisions(&slow.next().await), [2 + PUTS]);
    assert_eq!(member.node.store().watchers().counts().unsynced, 0);
}
