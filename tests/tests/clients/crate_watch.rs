//! `etcd-client`: watches, and going on with them at another member.

use etcd_client::{EventType, WatchFilterType, WatchOptions, WatchStream};

use super::{PATIENCE, cluster, connect, connect_to};

/// The next `count` events: type, key, value, revision.
async fn events(stream: &mut WatchStream, count: usize) -> Vec<(EventType, String, String, i64)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await;
        let message = message.expect("in time").expect("a message");
        for event in message.expect("the stream goes on").events() {
            let kv = event.kv().expect("a key");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (key, value) = (text(kv.key()), text(kv.value()));
            seen.push((event.event_type(), key, value, kv.mod_revision()));
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_the_past_then_the_present_as_it_was_asked_to() {
    let cluster = cluster(1).await;
    let mut client = connect(&cluster).await;
    client.put("w/1", "past", None).await.expect("a put");
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(1)
        .with_prev_key();
    let mut all = client.watch("w/", Some(options)).await.expect("a watch");
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(1)
        .with_filters([WatchFilterType::NoPut]);
    let mut deletes = client.watch("w/", Some(options)).await.expect("a watch");
    client.put("w/1", "now", None).await.expect("a put");
    client.put("elsewhere", "now", None).await.expect("a put");
    client.delete("w/1", None).await.expect("a delete");

    let seen = events(&mut all, 3).await;
    let shown: Vec<(EventType, &str, i64)> = seen
        .iter()
        .map(|(kind, _, value, revision)| (*kind, value.as_str(), *revision))
        .collect();
    assert_eq!(
        shown,
        [
            (EventType::Put, "past", 2),
            (EventType::Put, "now", 3),
            (EventType::Delete, "", 5)
        ]
    );
    let seen = events(&mut deletes, 1).await;
    assert_eq!((seen[0].0, seen[0].3), (EventType::Delete, 5));

    all.request_progress().await.expect("it can be asked");
    let progress = tokio::time::timeout(PATIENCE, all.message()).await;
    let progress = progress.expect("in time").expect("a message").expect("one");
    assert!(progress.events().is_empty());
    assert_eq!(progress.header().expect("a header").revision(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_watches_share_a_stream_and_are_canceled_one_by_one() {
    let cluster = cluster(1).await;
    let mut client = connect(&cluster).await;
    let first = WatchOptions::new().with_watch_id(7);
    let mut stream = client.watch("a", Some(first)).await.expect("a watch");
    let second = WatchOptions::new().with_watch_id(8);
    stream.watch("b", Some(second)).await.expect("another");
    stream.cancel(7).await.expect("it can be canceled");
    loop {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await;
        let message = message.expect("in time").expect("a message").expect("one");
        if message.canceled() {
            assert_eq!(message.watch_id(), 7);
            break;
        }
    }
    client.put("a", "unseen", None).await.expect("a put");
    client.put("b", "seen", None).await.expect("a put");
    let seen = events(&mut stream, 1).await;
    assert_eq!(seen[0].1, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_member_where_it_was_cut_off() {
    let mut cluster = cluster(3).await;
    let mut writer = connect_to(&cluster, 1).await;
    let mut client = connect_to(&cluster, 0).await;
    let options = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch("k", Some(options)).await.expect("a watch");
    writer.put("k", "0", None).await.expect("a put");
    let mut seen = events(&mut stream, 1).await;
    // It is lost without a word; what is written meanwhile waits in the others' history.
    cluster.kill(0).expect("it runs");
    for value in 1..20 {
        let value = value.to_string();
        while writer.put("k", value.as_str(), None).await.is_err() {
            // Its leader was the one that was killed.
        }
    }
    assert!(
        stream.message().await.is_err(),
        "the client hears that the member is gone"
    );
    let mut client = connect_to(&cluster, 2).await;
    let next = seen[0].3 + 1;
    let options = WatchOptions::new().with_start_revision(next);
    let mut stream = client.watch("k", Some(options)).await.expect("a watch");
    while seen.last().is_none_or(|last| last.2 != "19") {
        seen.extend(events(&mut stream, 1).await);
    }
    let mut values: Vec<&str> = seen.iter().map(|event| event.2.as_str()).collect();
    // A put that was tried again may be there twice, one behind the other.
    values.dedup();
    let wanted: Vec<String> = (0..20).map(|value: i32| value.to_string()).collect();
    assert_eq!(values, wanted);
}
