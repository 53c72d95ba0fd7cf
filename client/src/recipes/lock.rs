//! A lock that one contender at a time has, in the order in which they asked.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::queue::{Holding, Queue};
use crate::client::Client;
use crate::error::Error;
use crate::lease::{Lease, LostReason};
use crate::txn::Txn;
use crate::types::{IntoBytes, KeyValue, Revision};

/// A lease of a lock whose user did not choose: how long others wait for a holder who has died.
const TTL: Duration = Duration::from_secs(15);

/// A lock by its name; settings, then [`Lock::acquire`].
#[derive(Debug, Clone)]
pub struct Lock {
    queue: Queue,
    value: Bytes,
}

impl Lock {
    pub(crate) fn new(client: Client, name: Bytes) -> Self {
        Self {
            queue: Queue::new(client, "lock", name, TTL),
            value: Bytes::new(),
        }
    }

    /// How long others wait for a holder who has died. Default: 15 s.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.queue.ttl = ttl;
        self
    }

    /// Holds it with this lease rather than with one of its own: all that goes with the lease is
    /// lost together. Clones of a lease contend with each other like anybody else.
    #[must_use]
    pub fn lease(mut self, lease: &Lease) -> Self {
        self.queue.lease = Some(lease.clone());
        self
    }

    /// Who holds it, for people who look: the value of the holder's key. Default: empty.
    #[must_use]
    pub fn identity(mut self, value: impl IntoBytes) -> Self {
        self.value = value.into_bytes();
        self
    }

    /// Waits until it is held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): the lease ended, or somebody deleted the key,
    /// while it waited. Else as any call.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the place in the queue is given up.
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        let holding = self.queue.acquire(self.value.clone()).await?;
        Ok(LockGuard { holding })
    }

    /// Holds it if nobody else does.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        let holding = self.queue.try_acquire(self.value.clone()).await?;
        Ok(holding.map(|holding| LockGuard { holding }))
    }

    /// Who holds it (first) and who waits, in order.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn contenders(&self) -> Result<Vec<KeyValue>, Error> {
        self.queue.contenders().await
    }
}

/// A lock that is held. Dropped, it is released in the background.
#[derive(Debug)]
#[must_use = "dropped, the lock is released"]
pub struct LockGuard {
    holding: Holding,
}

impl LockGuard {
    /// A number that is higher than that of every holder before: for resources outside of the
    /// store, which refuse what is lower than they have seen.
    pub fn fence(&self) -> Revision {
        self.holding.revision()
    }

    /// The key that stands for it.
    pub fn key(&self) -> &Bytes {
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
    pub async fn lost(&self) -> LostReason {
        self.holding.lost().await
    }

    /// Cancelled when it is lost.
    pub fn token(&self) -> CancellationToken {
        self.holding.token()
    }

    /// A transaction that takes place only while the lock is held: add operations, await it, and
    /// look at [`TxnResult::succeeded`](crate::TxnResult::succeeded).
    pub fn txn(&self) -> Txn {
        self.holding.txn()
    }

    /// Releases it; returns when the next one can have it.
    ///
    /// # Errors
    ///
    /// As any call; then it is released in the background.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it is released in the background.
    pub async fn release(self) -> Result<(), Error> {
        self.holding.release().await
    }
}
