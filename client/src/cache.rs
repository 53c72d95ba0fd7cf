//! A range of keys in memory, kept current: reads cost nanoseconds and never wait.
//!
//! One task lists the range at one revision and then follows a watch from there (`follow.rs`). After
//! every batch it publishes a new [`Snapshot`] by swapping one pointer (`publish.rs`); readers keep
//! whichever they hold. When the history that the watch needs is gone, the range is listed again, and
//! subscribers are told the differences as if nothing had happened.
//!
//! Invariants
//! - a snapshot is the whole range at one revision: no transaction is ever seen in part;
//! - the revision that is published never goes back, unless the store was restored from a backup, or
//!   what was published came from disk;
//! - readers never wait: for no lock, no other reader, no writer, no disk.

mod builder;
mod disk;
mod follow;
#[cfg(feature = "internals")]
pub mod internals;
mod loss;
#[cfg(test)]
mod model;
mod primitives;
mod publish;
mod save;
mod snapshot;
mod status;
mod tree;
mod typed;
mod value;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::types::{KeyRange, KeyValue, Revision};

pub use builder::CacheBuilder;
pub use loss::{LossGuard, Withheld};
pub use save::DiskCopy;
pub use snapshot::{Change, Snapshot};
pub use status::{CacheSource, CacheStatus, StatusChanges};
pub use tree::CachedStructBuilder;
pub use typed::{Cached, Loaded, ValueChanges, ValueError, ValueState};
pub use value::CachedBuilder;

use primitives::Listener;
use publish::Publish;
use save::Saver;

/// The pause before the store is asked whether anything is still on its way: mostly the watch is
/// faster. It doubles with every question.
const PROOF_PAUSE: Duration = Duration::from_millis(20);
const PROOF_PAUSE_MAX: Duration = Duration::from_millis(640);

/// A range of keys, kept current. Clones share it; with the last one it ends.
#[derive(Debug, Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    client: Client,
    range: KeyRange,
    saver: Option<Arc<Saver>>,
    _stop: DropGuard,
}

/// What the tasks write and everybody reads.
#[derive(Debug)]
struct Shared {
    snapshot: Publish<Snapshot>,
    /// All of the status but the revision, which is the snapshot's.
    state: watch::Sender<CacheStatus>,
    /// What is withheld is to be shown.
    accepted: Notify,
    /// The store is not the one any more that the snapshot was read from.
    went_back: Notify,
}

impl Cache {
    /// The range as it is now in memory: one moment, however long it is kept.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.shared.snapshot.load_full()
    }

    /// One key, from the newest snapshot. Of two calls the second may see a later revision; keys
    /// that belong together are read from one [`Cache::snapshot`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Arc<KeyValue>> {
        self.inner.shared.snapshot.load().get(key).cloned()
    }

    /// Some keys, in order, all from one snapshot.
    pub fn range(&self, range: impl Into<KeyRange>) -> Vec<Arc<KeyValue>> {
        let snapshot = self.snapshot();
        snapshot.range(range).cloned().collect()
    }

    /// How current it is.
    pub fn status(&self) -> CacheStatus {
        let shared = &self.inner.shared;
        // In this order: the snapshot is at least as current as the state says.
        let mut status = *shared.state.borrow();
        status.revision = shared.snapshot.load().revision();
        status
    }

    /// The changes of the status from now on: cut off, live again, withheld, closed.
    pub fn status_changes(&self) -> StatusChanges {
        StatusChanges::new(self.inner.shared.state.subscribe(), self.clone())
    }

    /// The newest snapshot if it is no older than `age`: see [`CacheStatus::age`]. Who needs more
    /// certainty than that uses [`Cache::linearizable`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: it is older.
    pub fn fresh_within(&self, age: Duration) -> Result<Arc<Snapshot>, Error> {
        let status = self.status();
        let passed = status.age();
        if passed <= age {
            return Ok(self.snapshot());
        }
        let why = match status.withheld {
            Some(_) => "a loss of keys has been withheld",
            None => "no member was heard of meanwhile",
        };
        let message = format!("{why}, and what is known is {passed:?} old");
        Err(Error::new(ErrorKind::Unavailable, "cache", message))
    }

    /// A snapshot at `revision` or later: what a write of that revision changed is in it.
    ///
    /// If the store was restored from a backup, `revision` is one of the restored store as soon as this
    /// client knows of it: from any write or linearizable read of its own whose revision is no later
    /// than what it had seen, from another id of the cluster, or from its watches. Until then nothing
    /// tells a revision of one history from one of the other, and what the cache shows may be of the
    /// history before; for a revision that another process has named, that can be a second or two.
    /// [`Cache::linearizable`] asks the store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`]: not within the client's deadline; [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn at_least(&self, revision: Revision) -> Result<Arc<Snapshot>, Error> {
        let give_up = self.inner.client.transport().give_up(None);
        let mut pause = PROOF_PAUSE;
        loop {
            // Mostly the event is on its way.
            let soon = Instant::now() + pause;
            if let Some(snapshot) = self.wait_for(revision, soon.min(give_up)).await? {
                return Ok(snapshot);
            }
            if Instant::now() >= give_up {
                let withheld = match self.status().withheld {
                    Some(_) => ": a loss of keys is withheld",
                    None => "",
                };
                let message = format!("revision {revision} has not arrived{withheld}");
                return Err(Error::new(ErrorKind::Timeout, "cache", message));
            }
            // The write may have been outside of the range: then no event will ever say so.
            let held = self.snapshot();
            self.prove(&held).await?;
            pause = (pause * 2).min(PROOF_PAUSE_MAX);
        }
    }

    /// A snapshot that has everything that was acknowledged, to anybody, before this call.
    ///
    /// # Errors
    ///
    /// As [`Cache::at_least`], and as any read.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn linearizable(&self) -> Result<Arc<Snapshot>, Error> {
        let give_up = self.inner.client.transport().give_up(None);
        let shared = &self.inner.shared;
        loop {
            let held = self.snapshot();
            if let Some(now) = self.prove(&held).await? {
                return self.at_least(now).await;
            }
            // The store was restored: what it is now is being read.
            let other = shared.snapshot.until(|now| {
                let is_over = shared.state.borrow().is_closed;
                (is_over || !Arc::ptr_eq(now, &held)).then_some(())
            });
            if timeout_at(give_up, other).await.is_err() {
                let message = "the store was restored, and what it is now is not shown yet";
                return Err(Error::new(ErrorKind::Timeout, "cache", message));
            }
        }
    }

    /// Waits for a snapshot of `revision` until `give_up`; none if there is none by then.
    async fn wait_for(
        &self,
        revision: Revision,
        give_up: Instant,
    ) -> Result<Option<Arc<Snapshot>>, Error> {
        let shared = &self.inner.shared;
        let arrived = shared.snapshot.until(|now| {
            let is_there = now.revision() >= revision;
            if is_there && self.is_of_store(now) {
                return Some(Ok(now.clone()));
            }
            let is_closed = shared.state.borrow().is_closed;
            is_closed.then(|| Err(crate::transport::closed("cache")))
        });
        timeout_at(give_up, arrived).await.ok().transpose()
    }

    /// Asks the store for its revision and whether the range has changed since the snapshot's. If it
    /// has not, the snapshot is of the store's revision too. None if the store is not the one that
    /// `held` was read from: then the range is listed again.
    ///
    /// A key that was written since has a later revision; one that was deleted since is missing in
    /// the count, unless it was written again, and then it has a later revision.
    async fn prove(&self, held: &Arc<Snapshot>) -> Result<Option<Revision>, Error> {
        let inner = &self.inner;
        let page = inner
            .client
            .range(inner.range.clone())
            .modified(held.revision().next(), Revision::UNKNOWN)
            .keys_only()
            .limit(1)
            .await?;
        let status = self.status();
        if status.source == CacheSource::Disk {
            // It is being compared with the store as a whole, and proves nothing.
            return Ok(Some(page.revision));
        }
        if page.revision < held.revision() || !self.is_of_store(held) {
            // What is withheld was listed already.
            if status.withheld.is_none() {
                inner.shared.went_back.notify_one();
            }
            return Ok(None);
        }
        let is_same = page.kvs.is_empty() && page.count == held.len() as u64;
        if is_same && page.revision > held.revision() {
            // Only if nothing was published meanwhile; else the next round tells.
            inner.shared.snapshot.advance(|now| {
                let is_held = Arc::ptr_eq(now, held);
                is_held.then(|| now.moved_to(page.revision))
            });
        }
        Ok(Some(page.revision))
    }

    /// Whether `snapshot` was read from the store that answers now, as far as is known. What came
    /// from disk may be of any.
    fn is_of_store(&self, snapshot: &Snapshot) -> bool {
        let store = self.inner.client.transport().store();
        let source = self.inner.shared.state.borrow().source;
        source != CacheSource::Disk && snapshot.store() == store
    }

    /// Shows what is withheld, if anything is: see [`LossGuard`]. Says whether there was.
    pub fn accept_loss(&self) -> bool {
        let is_withheld = self.inner.shared.state.borrow().withheld.is_some();
        if is_withheld {
            self.inner.shared.accepted.notify_one();
        }
        is_withheld
    }

    /// Writes the copy on disk now, and returns once it is safely there. What only came from disk is
    /// not written again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FailedPrecondition`]: the cache has none, see [`CacheBuilder::disk`];
    /// [`ErrorKind::File`]: it cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it is written nevertheless, or the one before stays.
    pub async fn save(&self) -> Result<(), Error> {
        let none = || {
            let message = "the cache has no copy on disk";
            Error::new(ErrorKind::FailedPrecondition, "save", message)
        };
        self.inner.saver.as_ref().ok_or_else(none)?.save_now().await
    }

    /// The changes from now on.
    pub fn subscribe(&self) -> Changes {
        let published = self.inner.shared.snapshot.listen();
        Changes {
            seen: self.snapshot(),
            published,
            cache: self.clone(),
        }
    }
}

/// What changes in a cache. A subscriber who is slow is told the difference between what he was told
/// last and what is: the changes between are left out, and nothing piles up. What he holds is one
/// older snapshot, which shares with the newest all that is the same.
#[derive(Debug)]
pub struct Changes {
    seen: Arc<Snapshot>,
    published: Listener,
    cache: Cache,
}

impl Changes {
    /// The snapshot that the last changes led to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.seen
    }

    /// The next changes, in the order of their keys, each key once; none once the client is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<Vec<Change>> {
        loop {
            let is_closed = self.cache.inner.shared.state.borrow().is_closed;
            let now = self.cache.snapshot();
            let changes = now.changes_since(&self.seen);
            self.seen = now;
            if !changes.is_empty() {
                return Some(changes);
            }
            if is_closed || !self.published.rung().await {
                return None;
            }
        }
    }
}
