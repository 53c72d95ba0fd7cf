//! What queues have in common: items behind a name, taken for good or claimed for a while.
//!
//! An item is a key that is written once. A claim is a key beside it, `__<name>/claims/<item>`, that
//! goes with the claimant's lease: an item with a claim is somebody's, and without one anybody's
//! (again). What is done is deleted together with its claim, by whoever still has the claim.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::hold::{Holding, fencing, held};
use super::line::below;
use super::once::{Committed, Once, aside};
use super::place::{Place, is_history_gone, lost, or_lost, patiently};
use crate::client::Client;
use crate::error::Error;
use crate::op::{Op, SortBy, SortOrder};
use crate::txn::{Compare, OpResult};
use crate::types::{KeyRange, KeyValue, Revision};
use crate::watch::{Overflow, Watch};

/// How long an item waits for a worker who has died with it.
pub(super) const TTL: Duration = Duration::from_secs(30);

/// The items behind a name.
#[derive(Debug, Clone)]
pub(super) struct Items {
    pub(super) client: Client,
    pub(super) name: Bytes,
    /// What comes first.
    pub(super) by: SortBy,
    pub(super) ttl: Duration,
    pub(super) once: Arc<Once>,
}

/// An item that is somebody's until it is done. Dropped, it is given back in the background; if its
/// holder dies, it is given back when his lease ends.
#[doc = ""]
#[doc = fencing!()]
#[derive(Debug)]
#[must_use = "dropped, the item is given back"]
pub struct Claim {
    holding: Holding,
    item: KeyValue,
    client: Client,
}

impl Items {
    pub(super) fn new(client: Client, name: Bytes, by: SortBy) -> Self {
        Self {
            once: Arc::new(Once::new(client.clone(), aside(&name, "once/"), TTL)),
            ttl: TTL,
            client,
            name,
            by,
        }
    }

    pub(super) fn with_ttl(mut self, ttl: Duration) -> Self {
        let prefix = aside(&self.name, "once/");
        self.once = Arc::new(Once::new(self.client.clone(), prefix, ttl));
        self.ttl = ttl;
        self
    }

    pub(super) fn range(&self) -> KeyRange {
        KeyRange::prefix(below(&self.name, ""))
    }

    fn claims(&self) -> Bytes {
        aside(&self.name, "claims/")
    }

    fn claim_of(&self, item: &KeyValue) -> Bytes {
        let rest = item.key.slice(self.name.len() + 1..);
        [&self.claims()[..], &rest[..]].concat().into()
    }

    /// How many there are, claimed or not.
    pub(super) async fn count(&self) -> Result<u64, Error> {
        let page = self.client.range(self.range()).count_only().await?;
        Ok(page.count)
    }

    /// The first that is not claimed, as of the revision.
    async fn first(&self) -> Result<(Option<KeyValue>, Revision), Error> {
        let mut limit = 1;
        loop {
            let items = Op::get(self.range())
                .sort(self.by, SortOrder::Ascending)
                .limit(limit);
            let claims = Op::get(KeyRange::prefix(self.claims())).keys_only();
            let read = self.client.txn().then(claims).then(items).await?;
            let revision = read.revision;
            let mut pages = read.results.into_iter().filter_map(OpResult::into_range);
            let claims = pages.next().map(|page| page.kvs).unwrap_or_default();
            let items = pages.next().map(|page| page.kvs).unwrap_or_default();
            let listed = u32::try_from(items.len()).unwrap_or(u32::MAX);
            let is_free = |item: &KeyValue| {
                let claim = self.claim_of(item);
                claims.iter().all(|kv| kv.key != claim)
            };
            let found = items.into_iter().find(is_free);
            if found.is_some() || listed < limit {
                return Ok((found, revision));
            }
            // One more than are claimed: one at least is free.
            limit = u32::try_from(claims.len() + 1).unwrap_or(u32::MAX);
        }
    }

    /// The first that is not claimed; waits for it. Once it waits, what is passing does not end it.
    async fn wait_for_first(&self) -> Result<KeyValue, Error> {
        let (mut found, mut seen) = self.first().await?;
        loop {
            if let Some(item) = found {
                return Ok(item);
            }
            match patiently(&self.client, || self.something_new(seen)).await {
                Err(error) if is_history_gone(&error) => {}
                waited => waited?,
            }
            (found, seen) = patiently(&self.client, || self.first()).await?;
        }
    }

    /// Returns when there is another item, or a claim has ended.
    async fn something_new(&self, seen: Revision) -> Result<(), Error> {
        let watch = |range| self.client.watch(range).after(seen).without_prev();
        let items = watch(self.range()).only_puts();
        let claims = watch(KeyRange::prefix(self.claims())).only_deletes();
        let (mut items, mut claims) = futures::future::try_join(
            items.queue(0, Overflow::LatestOnly).into_future(),
            claims.queue(0, Overflow::LatestOnly).into_future(),
        )
        .await?;
        let batch = tokio::select! {
            batch = Watch::next(&mut items) => batch,
            batch = Watch::next(&mut claims) => batch,
        };
        match batch {
            Some(batch) => batch.map(drop),
            None => Err(crate::transport::closed("queue")),
        }
    }

    /// Takes the first away for good; waits for it.
    pub(super) async fn take(&self) -> Result<KeyValue, Error> {
        loop {
            let item = self.wait_for_first().await?;
            if self.delete(&item).await? {
                return Ok(item);
            }
        }
    }

    /// Takes the first away for good, if there is one.
    pub(super) async fn try_take(&self) -> Result<Option<KeyValue>, Error> {
        loop {
            let Some(item) = self.first().await?.0 else {
                return Ok(None);
            };
            if self.delete(&item).await? {
                return Ok(Some(item));
            }
        }
    }

    /// Whether it was this call that deleted it.
    async fn delete(&self, item: &KeyValue) -> Result<bool, Error> {
        let txn = self
            .client
            .txn()
            .when(Compare::mod_revision(&item.key).eq(item.mod_revision))
            .when(Compare::absent(self.claim_of(item)))
            .then(Op::delete(&item.key));
        Ok(matches!(self.once.commit(txn).await?, Committed::Done(_)))
    }

    /// Claims the first; waits for it.
    pub(super) async fn claim(&self) -> Result<Claim, Error> {
        loop {
            let item = self.wait_for_first().await?;
            if let Some(claim) = self.try_claim_of(item).await? {
                return Ok(claim);
            }
        }
    }

    /// Claims the first, if there is one.
    pub(super) async fn try_claim(&self) -> Result<Option<Claim>, Error> {
        loop {
            let Some(item) = self.first().await?.0 else {
                return Ok(None);
            };
            if let Some(claim) = self.try_claim_of(item).await? {
                return Ok(Some(claim));
            }
        }
    }

    /// Claims it, unless somebody else was faster.
    async fn try_claim_of(&self, item: KeyValue) -> Result<Option<Claim>, Error> {
        let lease = self.once.lease().await?;
        let proof = Bytes::from(format!("{}-{:x}", lease.id(), fastrand::u64(..)));
        let key = self.claim_of(&item);
        let mut place = Place::shared(&self.client, key, proof.clone(), lease);
        let claimed = self
            .client
            .txn()
            .when(Compare::absent(&place.key))
            .when(Compare::mod_revision(&item.key).eq(item.mod_revision))
            .then(Op::put(&place.key, &proof).lease(&place.lease))
            .or_else(Op::get(&place.key))
            .repeatable()
            .await
            .map_err(or_lost("claim"))?;
        place.cluster = claimed.cluster;
        place.revision = claimed.revision;
        if !claimed.succeeded {
            let found = claimed.results.into_iter().find_map(OpResult::into_range);
            let found = found.and_then(|page| page.kvs.into_iter().next());
            let Some(earlier) = found.filter(|kv| kv.value == proof) else {
                place.was_never_taken();
                return Ok(None);
            };
            place.revision = earlier.create_revision;
        }
        if !place.lease.is_held() {
            return Err(lost("claim", place.lost_reason()));
        }
        Ok(Some(Claim {
            holding: Holding::new(place, None),
            item,
            client: self.client.clone(),
        }))
    }
}

impl Claim {
    held!(holding.tenure);

    /// What was put into the queue.
    pub fn value(&self) -> &Bytes {
        &self.item.value
    }

    /// The item's key.
    pub fn item(&self) -> &Bytes {
        &self.item.key
    }

    /// It is done: takes it from the queue.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): the claim had ended before, and the item is
    /// there for others, or is another's. Else as any call; then it is given back.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the item may be done, or be given back.
    pub async fn done(self) -> Result<(), Error> {
        let item = self.item.key.clone();
        let is_done = self
            .holding
            .release_with([Op::delete(&item).into()])
            .await?;
        if is_done {
            return Ok(());
        }
        // Nobody knows which attempt was answered; but what is gone is done.
        let left = self.client.get(&item).keys_only().await?;
        match left.filter(|kv| kv.mod_revision == self.item.mod_revision) {
            None => Ok(()),
            Some(_) => Err(lost("done", crate::lease::LostReason::KeyDeleted)),
        }
    }

    /// Gives it back: others can have it at once.
    ///
    /// # Errors
    ///
    /// As any call; then it is given back in the background.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it is given back in the background.
    pub async fn give_back(self) -> Result<(), Error> {
        self.holding.release().await
    }
}
