//! A range of keys in memory, kept current: reads cost nanoseconds and never wait.
//!
//! One task lists the range at one revision and then follows a watch from there. After every batch
//! it publishes a new [`Snapshot`] by swapping one pointer; readers keep whichever they hold. When
//! the history that the watch needs is gone, the range is listed again, and subscribers are told the
//! differences as if nothing had happened.
//!
//! Invariants
//! - a snapshot is the whole range at one revision: no transaction is ever seen in part;
//! - the revision that is published never goes back, unless the store was restored from a backup.

mod follow;
mod snapshot;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{Client, awaited};
use crate::error::{Error, ErrorKind};
use crate::types::{KeyRange, KeyValue, Revision};

pub use snapshot::{Change, Snapshot};
pub use typed::{Cached, CachedBuilder, Loaded, ValueChanges, ValueError};

/// The pause before the store is asked whether anything is still on its way: mostly the watch is
/// faster.
const PROOF_PAUSE: Duration = Duration::from_millis(20);

/// A cache to be: settings first, then await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct CacheBuilder {
    client: Client,
    range: KeyRange,
    page_keys: u32,
    deadline: Option<Duration>,
}

impl CacheBuilder {
    pub(crate) fn new(client: Client, range: KeyRange) -> Self {
        Self {
            client,
            range,
            page_keys: 10_000,
            deadline: None,
        }
    }

    /// How many keys are read at once when the range is listed. Default: 10,000.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn page_keys(mut self, keys: u32) -> Self {
        assert!(keys > 0, "a page has at least one key");
        self.page_keys = keys;
        self
    }

    /// How long the first listing may take. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn send(self) -> Result<Cache, Error> {
        let deadline = self.deadline.unwrap_or(self.client.default_deadline());
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            status: watch::Sender::new(CacheStatus::default()),
        });
        let follower = follow::Follower {
            client: self.client.clone(),
            range: self.range.clone(),
            page_keys: self.page_keys,
            shared: shared.clone(),
        };
        let cache = Cache {
            inner: Arc::new(Inner {
                shared,
                client: self.client,
                range: self.range,
                _stop: stop.clone().drop_guard(),
            }),
        };
        let first = follower.list();
        let give_up = Instant::now() + deadline;
        let late = || {
            Error::new(
                ErrorKind::Timeout,
                "cache",
                "the range was not listed in time",
            )
        };
        let first = timeout_at(give_up, first).await.map_err(|_| late())??;
        let started = follower.shared.clone();
        started.publish(first);
        tokio::spawn(follower.run(stop));
        Ok(cache)
    }
}

awaited!(CacheBuilder => Cache);

/// How current a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatus {
    /// The revision that its snapshot is of: nothing in the range has changed between this and the
    /// last change before it.
    pub revision: Revision,
    /// Since when no member reports changes; none while one does.
    pub cut_off_since: Option<Instant>,
    /// How often the whole range was listed, the first time included.
    pub listings: u64,
    /// Whether the client was closed: nothing will change any more.
    pub is_closed: bool,
}

impl Default for CacheStatus {
    fn default() -> Self {
        Self {
            revision: Revision::UNKNOWN,
            cut_off_since: None,
            listings: 0,
            is_closed: false,
        }
    }
}

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
    _stop: DropGuard,
}

/// What the task writes and everybody reads.
#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    status: watch::Sender<CacheStatus>,
}

impl Shared {
    fn publish(&self, snapshot: Snapshot) {
        let revision = snapshot.revision();
        // The pointer first: whoever is woken finds what he was woken for.
        self.snapshot.store(Arc::new(snapshot));
        self.status.send_modify(|status| status.revision = revision);
    }
}

impl Cache {
    /// The range as it is now in memory: one moment, however long it is kept.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.shared.snapshot.load_full()
    }

    /// One key, from the newest snapshot.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Arc<KeyValue>> {
        self.inner.shared.snapshot.load().get(key).cloned()
    }

    /// How current it is.
    pub fn status(&self) -> CacheStatus {
        *self.inner.shared.status.borrow()
    }

    /// The newest snapshot if no more than `age` has passed since a member last reported changes.
    /// A connection that dies without a word is noticed after the client's keep-alive timeouts; who
    /// needs more certainty than that uses [`Cache::linearizable`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: it has been cut off for longer.
    pub fn fresh_within(&self, age: Duration) -> Result<Arc<Snapshot>, Error> {
        match self.status().cut_off_since.map(|since| since.elapsed()) {
            Some(passed) if passed > age => Err(Error::new(
                ErrorKind::Unavailable,
                "cache",
                format!("no member has reported changes for {passed:?}"),
            )),
            _ => Ok(self.snapshot()),
        }
    }

    /// A snapshot at `revision` or later: what a write of that revision changed is in it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`]: not within the client's deadline; [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn at_least(&self, revision: Revision) -> Result<Arc<Snapshot>, Error> {
        let give_up = Instant::now() + self.inner.client.default_deadline();
        loop {
            // Mostly the event is on its way.
            let soon = Instant::now() + PROOF_PAUSE;
            if let Some(snapshot) = self.wait_for(revision, soon.min(give_up)).await? {
                return Ok(snapshot);
            }
            if Instant::now() >= give_up {
                let message = format!("revision {revision} has not arrived");
                return Err(Error::new(ErrorKind::Timeout, "cache", message));
            }
            // The write may have been outside of the range: then no event will ever say so.
            self.prove().await?;
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
        let now = self.prove().await?;
        self.at_least(now).await
    }

    /// Waits for a snapshot of `revision` until `give_up`; none if there is none by then.
    async fn wait_for(
        &self,
        revision: Revision,
        give_up: Instant,
    ) -> Result<Option<Arc<Snapshot>>, Error> {
        let mut status = self.inner.shared.status.subscribe();
        let arrived = status.wait_for(|now| now.is_closed || now.revision >= revision);
        match timeout_at(give_up, arrived).await {
            Ok(Ok(now)) if now.revision >= revision => Ok(Some(self.snapshot())),
            Ok(_) => Err(crate::transport::closed("cache")),
            Err(_) => Ok(None),
        }
    }

    /// Asks the store for its revision and whether the range has changed since the snapshot's. If it
    /// has not, the snapshot is of the store's revision too.
    ///
    /// A key that was written since has a later revision; one that was deleted since is missing in
    /// the count, unless it was written again, and then it has a later revision.
    async fn prove(&self) -> Result<Revision, Error> {
        let inner = &self.inner;
        let held = self.snapshot();
        let page = inner
            .client
            .range(inner.range.clone())
            .modified(held.revision().next(), Revision::UNKNOWN)
            .keys_only()
            .limit(1)
            .await?;
        let is_same = page.kvs.is_empty() && page.count == held.len() as u64;
        if is_same && page.revision > held.revision() {
            let moved = Arc::new(held.moved_to(page.revision));
            let shared = &inner.shared;
            // Only if nothing was published meanwhile; else the next round tells.
            let before = shared.snapshot.compare_and_swap(&held, moved);
            if Arc::ptr_eq(&before, &held) {
                let revision = page.revision;
                shared
                    .status
                    .send_modify(|status| status.revision = status.revision.max(revision));
            }
        }
        Ok(page.revision)
    }

    /// The changes from now on.
    pub fn subscribe(&self) -> Changes {
        let status = self.inner.shared.status.subscribe();
        Changes {
            seen: self.snapshot(),
            status,
            cache: self.clone(),
        }
    }
}

/// What changes in a cache. A subscriber who is slow is told the difference between what he was told
/// last and what is: the changes between are left out, and nothing piles up.
#[derive(Debug)]
pub struct Changes {
    seen: Arc<Snapshot>,
    status: watch::Receiver<CacheStatus>,
    cache: Cache,
}

impl Changes {
    /// The snapshot that the last changes led to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.seen
    }

    /// The next changes, in the order of their keys; none once the client is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<Vec<Change>> {
        loop {
            let is_closed = self.status.borrow_and_update().is_closed;
            let now = self.cache.snapshot();
            let changes = now.changes_since(&self.seen);
            self.seen = now;
            if !changes.is_empty() {
                return Some(changes);
            }
            if is_closed || self.status.changed().await.is_err() {
                return None;
            }
        }
    }
}
