//! What a cache says of how current it is, while members answer, are silent, and come back.

use std::time::Duration;

use gonfalon::testkit::{FakeServer, Rpc};
use gonfalon::{Cache, CacheSource, KeyRange, WatchState};
use tokio::time::{Instant, sleep};

use super::{next, within};

/// A member is asked every second.
const SOON: Duration = Duration::from_millis(1_200);

/// The defaults of `ClientBuilder::keep_alive`, together: then a silent connection is given up.
const GIVEN_UP: Duration = Duration::from_secs(15);

async fn is(cache: &Cache, source: CacheSource) {
    let mut changes = cache.status_changes();
    while cache.status().source != source {
        within(changes.next()).await.expect("the client is open");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_cache_is_as_young_as_its_members_last_answer() {
    let server = FakeServer::start();
    let client = server.client();
    let cache = client.cache(KeyRange::prefix("k/")).await.unwrap();
    is(&cache, CacheSource::Live).await;
    for _ in 0..20 {
        sleep(Duration::from_millis(700)).await;
        let status = cache.status();
        assert_eq!(status.source, CacheSource::Live);
        assert!(status.age() <= SOON, "{:?}", status.age());
        assert!(cache.fresh_within(SOON).is_ok());
    }
    let answers = server.received(Rpc::Status);
    assert!(answers <= 16, "{answers} questions in 14 s");

    // Nobody asks for nobody.
    let mut watch = client.watch("k/1").await.unwrap();
    drop(cache);
    sleep(SOON).await;
    let answers = server.received(Rpc::Status);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(server.received(Rpc::Status), answers);
    server.put("k/1", "1");
    next(&mut watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_is_asked_once_for_all_caches_of_a_client() {
    let server = FakeServer::start();
    let client = server.client();
    let mut caches = Vec::new();
    for number in 0..20 {
        let cache = client.cache(KeyRange::prefix(format!("{number}/")));
        caches.push(cache.await.unwrap());
    }
    for cache in &caches {
        is(cache, CacheSource::Live).await;
    }
    let before = server.received(Rpc::Status);
    sleep(Duration::from_secs(10)).await;
    let asked = server.received(Rpc::Status) - before;
    assert!((9..=11).contains(&asked), "{asked} questions in 10 s");
    assert!(caches.iter().all(|cache| cache.fresh_within(SOON).is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_falls_silent_is_seen_in_the_age_at_once_and_in_the_state_after_keep_alive() {
    let server = FakeServer::start();
    let cache = server.client().cache(KeyRange::prefix("k/")).await.unwrap();
    is(&cache, CacheSource::Live).await;
    sleep(Duration::from_mins(1)).await;
    let silent = Instant::now();
    server.member(0).pause();
    for _ in 0..10 {
        sleep(Duration::from_secs(1)).await;
        let age = cache.status().age();
        let range = silent.elapsed()..=silent.elapsed() + SOON;
        assert!(range.contains(&age), "{age:?} after {:?}", silent.elapsed());
    }
    assert!(cache.fresh_within(Duration::from_secs(5)).is_err());
    is(&cache, CacheSource::Resuming).await;
    assert!(
        silent.elapsed() <= GIVEN_UP + SOON,
        "{:?}",
        silent.elapsed()
    );
    let since = cache.status().cut_off_since.expect("it is cut off");
    assert!(
        since <= silent && since + SOON >= silent,
        "from its last answer"
    );
    sleep(Duration::from_secs(10)).await;
    assert!(cache.status().age() >= silent.elapsed());

    server.member(0).resume();
    is(&cache, CacheSource::Live).await;
    sleep(SOON).await;
    assert!(cache.status().age() <= SOON);
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_not_live_before_a_member_has_created_its_watch() {
    let server = FakeServer::start();
    server.on_next(Rpc::Watch).delay(Duration::from_secs(3));
    let began = Instant::now();
    let cache = server.client().cache(KeyRange::prefix("k/")).await.unwrap();
    let listed = cache.status();
    assert_eq!(listed.source, CacheSource::Resuming);
    assert!(listed.cut_off_since.is_some_and(|since| since >= began));
    sleep(Duration::from_secs(2)).await;
    let status = cache.status();
    assert_eq!(status.source, CacheSource::Resuming);
    assert!(status.age() >= Duration::from_secs(2), "{:?}", status.age());
    is(&cache, CacheSource::Live).await;
    assert_eq!(cache.status().cut_off_since, None);
    sleep(SOON).await;
    assert!(cache.status().age() <= SOON);
    assert_eq!(cache.status().listings, 1);
}

/// What a lagging member answers is no proof of what is known to have happened.
#[tokio::test(start_paused = true)]
async fn a_member_that_lags_does_not_make_a_cache_young() {
    let server = FakeServer::start();
    let client = server.client();
    let cache = client.cache(KeyRange::prefix("k/")).await.unwrap();
    is(&cache, CacheSource::Live).await;
    sleep(SOON).await;
    server.member(0).lag(1);
    let behind = Instant::now();
    client.put("elsewhere", "1").await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let age = cache.status().age();
    assert!(age + SOON >= behind.elapsed(), "{age:?}");
    server.member(0).lag(0);
    sleep(2 * SOON).await;
    assert!(cache.status().age() <= SOON);
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_watchs_state_are_told_beside_its_batches() {
    let server = FakeServer::start();
    let client = server.client();
    let mut watch = client.watch("k").await.unwrap();
    let mut states = watch.state_changes();
    for number in 0..3 {
        server.member(0).stop();
        assert_eq!(within(states.next()).await, Some(WatchState::Resuming));
        server.put("k", number.to_string());
        server.member(0).start();
        assert_eq!(within(states.next()).await, Some(WatchState::Live));
        assert_eq!(
            next(&mut watch).await.events[0].kv.value,
            number.to_string()
        );
    }
    let mut early = watch.state_changes();
    client.close().await.unwrap();
    for states in [&mut states, &mut early] {
        let mut last = None;
        while let Some(state) = within(states.next()).await {
            last = Some(state);
        }
        assert_eq!(last, Some(WatchState::Ended));
    }
}

#[tokio::test]
async fn who_drops_a_watch_hears_no_more_of_its_states() {
    let server = FakeServer::start();
    let watch = server.client().watch("k").await.unwrap();
    let mut states = watch.state_changes();
    drop(watch);
    while let Some(state) = within(states.next()).await {
        assert_ne!(state, WatchState::Live);
    }
}
