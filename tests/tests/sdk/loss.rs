//! A range that loses most of its keys at once is shown as it was, until that is confirmed.

use std::time::Duration;

use gonfalon::{Cache, Client, KeyRange, LossGuard, Revision, StatusChanges, Withheld};

use super::{PATIENCE, each_server, relayed, within};

const KEYS: usize = 10;

async fn fill(client: &Client) -> Revision {
    let mut last = Revision::UNKNOWN;
    for number in 0..KEYS {
        let put = client.put(format!("l/{number}"), "1").await;
        last = put.expect("a put").revision;
    }
    last
}

async fn guarded(client: &Client, guard: LossGuard) -> Cache {
    let cache = client.cache(KeyRange::prefix("l/")).guard_loss(guard);
    cache.await.expect("a cache")
}

async fn withheld(changes: &mut StatusChanges) -> Withheld {
    loop {
        let status = within(changes.next()).await.expect("the client is open");
        if let Some(withheld) = status.withheld {
            return withheld;
        }
    }
}

async fn shown(changes: &mut StatusChanges) {
    while within(changes.next())
        .await
        .expect("the client is open")
        .withheld
        .is_some()
    {}
}

#[tokio::test]
async fn a_large_loss_is_withheld_until_it_is_accepted() {
    each_server(async |_, client| {
        fill(&client).await;
        let cache = guarded(&client, LossGuard::new(0.5).until_accepted()).await;
        let mut status = cache.status_changes();
        let mut changes = cache.subscribe();
        assert!(!cache.accept_loss(), "there is nothing to accept");
        let deleted = client
            .delete(KeyRange::prefix("l/"))
            .await
            .unwrap()
            .revision;
        let told = withheld(&mut status).await;
        assert_eq!((told.revision, told.keys), (deleted, 0));
        assert_eq!(cache.snapshot().len(), KEYS, "what was good is shown");
        assert!(cache.get("l/0").is_some());
        assert!(cache.fresh_within(Duration::ZERO).is_err());
        // What happens in the meantime is not lost.
        let put = client.put("l/new", "2").await.unwrap().revision;
        while withheld(&mut status).await.revision < put {}
        assert_eq!(cache.snapshot().len(), KEYS);

        assert!(cache.accept_loss());
        let snapshot = within(cache.at_least(put)).await.unwrap();
        assert_eq!(snapshot.len(), 1);
        shown(&mut status).await;
        assert_eq!(within(changes.next()).await.unwrap().len(), KEYS + 1);
        // The next loss is judged anew, and what was accepted before is not accepted for it.
        fill(&client).await;
        client.delete(KeyRange::prefix("l/")).await.unwrap();
        assert_eq!(withheld(&mut status).await.keys, 0);
        assert!(cache.snapshot().len() >= KEYS / 2);
    })
    .await;
}

#[tokio::test]
async fn a_large_loss_is_shown_once_the_store_confirms_it() {
    each_server(async |_, client| {
        fill(&client).await;
        let guard = LossGuard::new(1.0).confirm_after(Duration::from_millis(300));
        let cache = guarded(&client, guard).await;
        let mut status = cache.status_changes();
        let mut changes = cache.subscribe();
        client.delete(KeyRange::prefix("l/")).await.unwrap();
        withheld(&mut status).await;
        shown(&mut status).await;
        assert!(cache.snapshot().is_empty());
        assert_eq!(within(changes.next()).await.unwrap().len(), KEYS);
        assert_eq!(cache.status().listings, 2, "it was asked again");
        let written = client.put("l/a", "1").await.unwrap().revision;
        assert_eq!(within(cache.at_least(written)).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn keys_that_come_back_are_shown_at_once() {
    each_server(async |_, client| {
        fill(&client).await;
        let cache = guarded(&client, LossGuard::new(0.5).until_accepted()).await;
        let mut status = cache.status_changes();
        let all = client.delete(KeyRange::prefix("l/")).await.unwrap();
        withheld(&mut status).await;
        let last = fill(&client).await;
        shown(&mut status).await;
        let snapshot = within(cache.at_least(last)).await.unwrap();
        assert_eq!(snapshot.len(), KEYS);
        assert!(snapshot.get("l/0").unwrap().create_revision > all.revision);
    })
    .await;
}

#[tokio::test]
async fn a_few_deletions_are_never_held_up() {
    each_server(async |_, client| {
        fill(&client).await;
        let cache = guarded(&client, LossGuard::new(0.5).until_accepted()).await;
        let mut last = Revision::UNKNOWN;
        for number in 0..4 {
            last = client.delete(format!("l/{number}")).await.unwrap().revision;
        }
        let snapshot = within(cache.at_least(last)).await.unwrap();
        assert_eq!(snapshot.len(), KEYS - 4);
        // The fifth within the window makes half of what there was.
        let mut status = cache.status_changes();
        client.delete("l/4").await.unwrap();
        withheld(&mut status).await;
    })
    .await;
}

#[tokio::test]
async fn a_loss_that_only_a_new_listing_shows_is_withheld_too() {
    each_server(async |cluster, direct| {
        let (relay, client) = relayed(cluster).await;
        fill(&direct).await;
        let cache = guarded(&client, LossGuard::new(0.5).until_accepted()).await;
        let mut status = cache.status_changes();
        relay.refuse(true);
        direct.delete(KeyRange::prefix("l/")).await.unwrap();
        // Compacted beyond the deletion: at its very revision etcd 3.4 and 3.5 lose it, and resume.
        let last = direct.put("elsewhere", "1").await.unwrap().revision;
        direct.compact(last, false).await.unwrap();
        relay.refuse(false);
        withheld(&mut status).await;
        assert_eq!(cache.snapshot().len(), KEYS);
        assert!(cache.fresh_within(PATIENCE * 10).is_ok());
        assert!(cache.accept_loss());
        assert!(within(cache.at_least(last)).await.unwrap().is_empty());
    })
    .await;
}
