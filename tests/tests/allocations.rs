//! What reads of a cache must not do: allocate. The whole program counts, so it is one of its own.

use std::hint::black_box;

use gonfalon::{Client, KeyRange};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;

const READS: usize = 1000;

#[tokio::test]
async fn reading_a_value_allocates_nothing() {
    let cluster = Cluster::start(Server::Gonfalon, 1)
        .await
        .expect("the server starts");
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    client.put("a/number", "7").await.unwrap();
    let number = client.cached::<u64>("a/number").await.unwrap();
    let cache = client.cache(KeyRange::prefix("a/")).await.unwrap();
    let snapshot = cache.snapshot();
    // Each thread allocates once, with its first read: arc-swap's list of what it reads.
    assert_eq!(*number.load(), 7);

    let counted = |what: &str, read: &dyn Fn()| {
        let counted = allocation_counter::measure(|| (0..READS).for_each(|_| read()));
        assert_eq!(counted.count_total, 0, "{what}: {counted:?}");
    };
    counted("a value", &|| assert_eq!(*black_box(&number).load(), 7));
    counted("a value to keep", &|| {
        assert_eq!(*black_box(&number).load_full(), 7);
    });
    counted("a key", &|| {
        assert!(black_box(&cache).get("a/number").is_some());
    });
    counted("a snapshot", &|| {
        assert_eq!(black_box(&cache).snapshot().len(), 1);
    });
    counted("a prefix", &|| {
        assert_eq!(black_box(&snapshot).prefix("a/").count(), 1);
    });
    counted("the status", &|| {
        assert!(!black_box(&cache).status().is_closed);
    });
    // The counter counts.
    let told = allocation_counter::measure(|| drop(black_box(Box::new(7))));
    assert_eq!(told.count_total, 1);
}
