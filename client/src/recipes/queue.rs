//! A queue of contenders for something that one alone may have.
//!
//! A place in it is a key with a lease; the order is that of their creation. Whoever waits watches
//! the place before his own, his own, and his lease, and when his turn has come he reads his place
//! once more: a lease that has ended meanwhile gives no right.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Outcome};
use crate::lease::{Lease, LostReason};
use crate::op::{Op, SortBy, SortOrder};
use crate::txn::{Compare, OpResult, Txn};
use crate::types::{EventKind, KeyRange, KeyValue, Revision};
use crate::watch::{Overflow, Watch};

/// What can be asked of everything that is held: of a lock and of leadership alike.
macro_rules! held {
    () => {
        /// A number that is higher than that of everybody who had it before: for resources outside of the
        /// store, which refuse what is lower than they have seen.
        pub fn fence(&self) -> $crate::Revision {
            self.holding.revision()
        }

        /// The key that stands for it.
        pub fn key(&self) -> &bytes::Bytes {
            self.holding.key()
        }

        /// Whether it is surely held: its lease has not ended and nobody is known to have deleted its
        /// key.
        pub fn is_held(&self) -> bool {
            self.holding.lost_reason().is_none()
        }

        /// Returns when it is lost, and why.
        ///
        /// # Cancel safety
        ///
        /// Safe.
        pub async fn lost(&self) -> $crate::LostReason {
            self.holding.lost().await
        }

        /// Cancelled when it is lost.
        pub fn token(&self) -> tokio_util::sync::CancellationToken {
            self.holding.token()
        }

        /// A transaction that takes place only while it is held: add operations, await it, and
        /// look at [`TxnResult::succeeded`](crate::TxnResult::succeeded).
        pub fn txn(&self) -> $crate::Txn {
            self.holding.txn()
        }
    };
}
pub(super) use held;

/// What somebody contends for, and with what.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) client: Client,
    /// For messages.
    pub(super) call: &'static str,
    /// The contenders' keys begin with it; ends with a slash.
    pub(super) prefix: Bytes,
    pub(super) ttl: Duration,
    pub(super) lease: Option<Lease>,
}

/// A place in the queue. Dropped, it is given up in the background.
#[derive(Debug)]
pub(super) struct Place {
    client: Client,
    key: Bytes,
    /// When the key was created; unknown as long as nobody has confirmed that.
    revision: Revision,
    lease: Lease,
    /// Whether the lease ends with the place; then the key goes with it.
    owns_lease: bool,
    is_left: bool,
}

/// The first place in the queue.
#[derive(Debug)]
pub(super) struct Holding {
    place: Place,
    fate: Arc<Fate>,
    _watching: DropGuard,
}

/// Whether something is still held.
#[derive(Debug, Default)]
struct Fate {
    lost: OnceLock<LostReason>,
    token: CancellationToken,
}

impl Fate {
    fn lose(&self, reason: LostReason) {
        if self.lost.set(reason).is_ok() {
            self.token.cancel();
        }
    }
}

impl Queue {
    pub(super) fn new(client: Client, call: &'static str, name: Bytes, ttl: Duration) -> Self {
        let mut prefix = Vec::from(name);
        prefix.push(b'/');
        Self {
            client,
            call,
            prefix: prefix.into(),
            ttl,
            lease: None,
        }
    }

    fn range(&self) -> KeyRange {
        KeyRange::prefix(&self.prefix)
    }

    /// Waits for the first place.
    pub(super) async fn acquire(&self, value: Bytes) -> Result<Holding, Error> {
        let place = self.enter(value).await?;
        let mut own = self.watch_own(&place).await?;
        while let Some(before) = self.before(&place).await? {
            self.wait_for_deletion(&before, &mut own, &place).await?;
        }
        self.verify(&place).await?;
        Ok(place.hold(own))
    }

    /// The first place, if nobody has it.
    pub(super) async fn try_acquire(&self, value: Bytes) -> Result<Option<Holding>, Error> {
        let place = self.enter(value).await?;
        if self.before(&place).await?.is_some() {
            place.leave().await?;
            return Ok(None);
        }
        let own = self.watch_own(&place).await?;
        self.verify(&place).await?;
        Ok(Some(place.hold(own)))
    }

    /// Who is in the queue, the first first.
    pub(super) async fn contenders(&self) -> Result<Vec<KeyValue>, Error> {
        let range = self.client.range(self.range());
        let page = range
            .sort(SortBy::CreateRevision, SortOrder::Ascending)
            .await?;
        Ok(page.kvs)
    }

    /// Takes a place at the end.
    async fn enter(&self, value: Bytes) -> Result<Place, Error> {
        let lease = match &self.lease {
            Some(lease) => lease.clone(),
            None => self.client.grant(self.ttl).await?,
        };
        // Two tasks with one lease are two contenders.
        let number = fastrand::u32(..);
        let mut key = Vec::from(&self.prefix[..]);
        key.extend_from_slice(format!("{}-{number:x}", lease.id()).as_bytes());
        let mut place = Place {
            client: self.client.clone(),
            key: key.into(),
            revision: Revision::UNKNOWN,
            owns_lease: self.lease.is_none(),
            lease,
            is_left: false,
        };
        // Nobody else has this name, so that an attempt which finds it taken finds the one before.
        let entered = self
            .client
            .txn()
            .when(Compare::absent(&place.key))
            .then(Op::put(&place.key, value).lease(&place.lease))
            .or_else(Op::get(&place.key))
            .repeatable()
            .await?;
        let found = match entered.results.into_iter().next() {
            Some(OpResult::Range(page)) => page.kvs.into_iter().next(),
            _ => None,
        };
        place.revision = found.map_or(entered.revision, |kv| kv.create_revision);
        Ok(place)
    }

    async fn watch_own(&self, place: &Place) -> Result<Watch, Error> {
        self.client
            .watch(&place.key)
            .after(place.revision)
            .only_deletes()
            .without_prev()
            .await
    }

    /// Whoever is directly before `place`, and the revision of that.
    async fn before(&self, place: &Place) -> Result<Option<(KeyValue, Revision)>, Error> {
        let last = Revision::new(place.revision.get() - 1);
        let page = self
            .client
            .range(self.range())
            .created(Revision::UNKNOWN, last)
            .sort(SortBy::CreateRevision, SortOrder::Descending)
            .limit(1)
            .keys_only()
            .await?;
        let revision = page.revision;
        Ok(page.kvs.into_iter().next().map(|kv| (kv, revision)))
    }

    /// Waits until the contender before is gone. It may not have been the holder: look again.
    async fn wait_for_deletion(
        &self,
        (before, seen): &(KeyValue, Revision),
        own: &mut Watch,
        place: &Place,
    ) -> Result<(), Error> {
        let mut watch = self
            .client
            .watch(&before.key)
            .after(*seen)
            .only_deletes()
            .without_prev()
            .queue(0, Overflow::LatestOnly)
            .await?;
        tokio::select! {
            biased;
            reason = place.lease.lost() => Err(self.lost(reason)),
            reason = place.gone(own) => Err(self.lost(reason)),
            gone = deleted(&mut watch) => match gone {
                // What it waited for may have happened before the history that is left.
                Err(error) if matches!(error.kind(), ErrorKind::Compacted { .. }) => Ok(()),
                gone => gone,
            },
        }
    }

    /// The turn has come; the place must be there still.
    async fn verify(&self, place: &Place) -> Result<(), Error> {
        let kv = self.client.get(&place.key).await?;
        if kv.is_none_or(|kv| kv.create_revision != place.revision) {
            let reason = if place.lease.is_held() {
                LostReason::KeyDeleted
            } else {
                LostReason::Gone
            };
            return Err(self.lost(reason));
        }
        if place.lease.is_held() {
            Ok(())
        } else {
            Err(self.lost(LostReason::NotRenewed))
        }
    }

    fn lost(&self, reason: LostReason) -> Error {
        Error::new(ErrorKind::Lost, self.call, reason.text())
    }
}

/// Returns when the watched key is deleted.
async fn deleted(watch: &mut Watch) -> Result<(), Error> {
    while let Some(batch) = watch.next().await {
        let events = batch?.events;
        if events.iter().any(|event| event.kind == EventKind::Delete) {
            return Ok(());
        }
    }
    Err(crate::transport::closed("watch"))
}

/// Returns when the key that was created at `revision` is gone, or when nobody will tell any more.
async fn gone(client: &Client, key: &Bytes, revision: Revision, own: &mut Watch) -> LostReason {
    let mut pauses = client.transport().pauses();
    let mut ended = deleted(own).await;
    loop {
        match ended {
            Ok(()) => return LostReason::KeyDeleted,
            Err(error) if *error.kind() == ErrorKind::Closed => return LostReason::Closed,
            // The watch needed history that is gone, or could not be made again.
            Err(_) => {}
        }
        ended = match look_again(client, key, revision).await {
            Ok(Some(watch)) => {
                *own = watch;
                deleted(own).await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                Err(error)
            }
        };
    }
}

/// A watch of the key from now on, if it is there.
async fn look_again(
    client: &Client,
    key: &Bytes,
    revision: Revision,
) -> Result<Option<Watch>, Error> {
    let page = client.range(KeyRange::key(key)).keys_only().await?;
    if page.kvs.iter().all(|kv| kv.create_revision != revision) {
        return Ok(None);
    }
    let watch = client.watch(key).after(page.revision).only_deletes();
    watch.without_prev().await.map(Some)
}

impl Place {
    async fn gone(&self, own: &mut Watch) -> LostReason {
        gone(&self.client, &self.key, self.revision, own).await
    }

    /// It is the first: keeps an eye on it.
    fn hold(self, mut own: Watch) -> Holding {
        let fate = Arc::new(Fate::default());
        let stop = CancellationToken::new();
        let (told, lost) = (fate.clone(), self.lease.lost_owned());
        let (client, key, revision) = (self.client.clone(), self.key.clone(), self.revision);
        let watching = async move {
            let reason = tokio::select! {
                biased;
                reason = lost => reason,
                reason = gone(&client, &key, revision, &mut own) => reason,
            };
            told.lose(reason);
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
        Holding {
            place: self,
            fate,
            _watching: stop.drop_guard(),
        }
    }

    /// Gives the place up: only this one, should the name be somebody else's meanwhile.
    async fn leave(mut self) -> Result<(), Error> {
        let deleted = self
            .client
            .txn()
            .when(Compare::create_revision(&self.key).eq(self.revision))
            .then(Op::delete(&self.key))
            .repeatable()
            .await;
        if deleted.is_ok() {
            self.is_left = true;
        }
        // Else dropping goes on with it.
        deleted.map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // With a lease of its own the key goes when the lease is dropped.
        if self.is_left || self.owns_lease {
            return;
        }
        if let Ok(keeper) = self.client.keeper() {
            let namespace = self.client.namespace_bytes();
            keeper.clean(crate::types::prefixed(namespace, &self.key));
        }
    }
}

impl Holding {
    pub(super) fn key(&self) -> &Bytes {
        &self.place.key
    }

    pub(super) fn revision(&self) -> Revision {
        self.place.revision
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.place.lease
    }

    pub(super) fn lost_reason(&self) -> Option<LostReason> {
        if !self.place.lease.is_held() {
            self.fate.lose(LostReason::NotRenewed);
        }
        self.fate.lost.get().copied()
    }

    pub(super) async fn lost(&self) -> LostReason {
        self.fate.token.cancelled().await;
        self.lost_reason()
            .expect("the token is cancelled by losing alone")
    }

    pub(super) fn token(&self) -> CancellationToken {
        self.fate.token.child_token()
    }

    /// A transaction that takes place only while the place is there.
    pub(super) fn txn(&self) -> Txn {
        let is_mine = Compare::create_revision(self.key()).eq(self.revision());
        self.place.client.txn().when(is_mine)
    }

    /// Writes the place's value.
    pub(super) async fn write(&self, call: &'static str, value: Bytes) -> Result<Revision, Error> {
        let put = Op::put(self.key(), value).lease(self.lease());
        let written = self.txn().then(put).await?;
        if written.succeeded {
            return Ok(written.revision);
        }
        self.fate.lose(LostReason::KeyDeleted);
        let reason = LostReason::KeyDeleted.text();
        Err(Error::new(ErrorKind::Lost, call, reason).outcome_is(Outcome::NotApplied))
    }

    pub(super) async fn release(self) -> Result<(), Error> {
        self.fate.lose(LostReason::Revoked);
        self.place.leave().await
    }
}
