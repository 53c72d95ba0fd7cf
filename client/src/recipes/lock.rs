//! A lock that one contender at a time has, in the order in which they asked.

use std::time::Duration;

use bytes::Bytes;

use super::queue::{Holding, Queue, held};
use crate::client::Client;
use crate::error::Error;
use crate::lease::Lease;
use crate::types::{IntoBytes, KeyValue};

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
    held!();

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
