//! Several locks as one: all of them or none.
//!
//! They are acquired one after the other in the order of their names, whatever order they were given
//! in, so two who want the same ones in part never wait for each other; also not for somebody who
//! takes them one by one with [`Lock`](super::Lock), in this order. They are released in reverse.

use std::time::Duration;

use bytes::Bytes;

use super::fence::Fence;
use super::hold::{Holding, fencing};
use super::line::{Line, identity_setting, line_settings};
use super::place::{lost, patiently};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::lease::{Lease, LostReason};
use crate::op::Op;
use crate::txn::Txn;

/// Several locks by their names; settings, then [`MultiLock::acquire`]. Each is the same as a
/// [`Lock`](crate::Lock) of that name.
#[derive(Debug, Clone)]
pub struct MultiLock {
    /// In order, each once.
    names: Vec<Bytes>,
    line: Line,
}

/// Locks that are held together, with one lease. Dropped, they are released in the background.
#[doc = ""]
#[doc = fencing!()]
#[derive(Debug)]
#[must_use = "dropped, the locks are released"]
pub struct MultiLockGuard {
    names: Vec<Bytes>,
    /// In the order of the names; left from the end.
    held: Vec<Holding>,
    /// Ends, if it is the guard's own, after the last of them.
    lease: Lease,
    client: Client,
}

impl MultiLock {
    pub(crate) fn new(client: Client, mut names: Vec<Bytes>) -> Self {
        names.sort();
        names.dedup();
        Self {
            names,
            line: Line::new(client, "multi-lock", &Bytes::new()),
        }
    }

    line_settings!(line);
    identity_setting!(line);

    /// Waits until all are held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): the lease ended, or somebody deleted a key,
    /// while it waited. Else as any call; but while it waits for one of them, what passes (no
    /// connection, no leader) does not end it for as long as its lease is held. Whatever was held
    /// already is released.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, what is held and the place in the line are given up.
    pub async fn acquire(&self) -> Result<MultiLockGuard, Error> {
        let mut guard = self.none().await?;
        for line in self.lines(&guard.lease) {
            let holding = line.acquire(self.line.identity.clone()).await?;
            guard.held.push(holding);
        }
        guard.confirmed(self.line.call).await
    }

    /// Waits until all are held, for `time` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): they were not held by then. Else as
    /// [`MultiLock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// As [`MultiLock::acquire`].
    pub async fn acquire_within(&self, time: Duration) -> Result<MultiLockGuard, Error> {
        let late = || Error::new(ErrorKind::Timeout, self.line.call, "they were not all had");
        tokio::time::timeout(time, self.acquire())
            .await
            .map_err(|_| late())?
    }

    /// Holds all if nobody holds any of them.
    ///
    /// # Errors
    ///
    /// As [`MultiLock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn try_acquire(&self) -> Result<Option<MultiLockGuard>, Error> {
        let mut guard = self.none().await?;
        for line in self.lines(&guard.lease) {
            let Some(holding) = line.try_acquire(self.line.identity.clone()).await? else {
                guard.release().await?;
                return Ok(None);
            };
            guard.held.push(holding);
        }
        guard.confirmed(self.line.call).await.map(Some)
    }

    async fn none(&self) -> Result<MultiLockGuard, Error> {
        let lease = match &self.line.lease {
            Some(lease) => lease.clone(),
            None => self.line.client.grant(self.line.ttl).await?,
        };
        Ok(MultiLockGuard {
            names: self.names.clone(),
            held: Vec::with_capacity(self.names.len()),
            lease,
            client: self.line.client.clone(),
        })
    }

    fn lines(&self, lease: &Lease) -> impl Iterator<Item = Line> + use<> {
        let (client, call, lease) = (self.line.client.clone(), self.line.call, lease.clone());
        self.names.clone().into_iter().map(move |name| Line {
            lease: Some(lease.clone()),
            ..Line::new(client.clone(), call, &name)
        })
    }
}

impl MultiLockGuard {
    /// The names, in order.
    pub fn names(&self) -> &[Bytes] {
        &self.names
    }

    /// The fence of each lock, in the order of the names.
    pub fn fences(&self) -> Vec<Fence> {
        self.held.iter().map(|held| held.tenure.fence()).collect()
    }

    /// Whether all are surely held, as of now.
    pub fn is_held(&self) -> bool {
        self.held
            .iter()
            .all(|held| held.tenure.lost_reason().is_none())
    }

    /// Returns when one of them is lost, and why. None of no locks is ever lost.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost(&self) -> LostReason {
        let all = self.held.iter().map(|held| Box::pin(held.tenure.lost()));
        let all: Vec<_> = all.collect();
        if all.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(all).await.0
    }

    /// A transaction that takes place only while all are held: add operations, await it, and look
    /// at [`TxnResult::succeeded`](crate::TxnResult::succeeded).
    pub fn txn(&self) -> Txn {
        let all = self.held.iter().map(|held| held.tenure.is_there());
        all.fold(self.client.txn(), Txn::when)
    }

    /// Releases them, the last first; returns when others can have them.
    ///
    /// # Errors
    ///
    /// As any call; then the rest is released in the background.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the rest is released in the background.
    pub async fn release(mut self) -> Result<(), Error> {
        while let Some(last) = self.held.pop() {
            last.release().await?;
        }
        Ok(())
    }

    /// What was acquired first may have been lost while it waited for the last.
    async fn confirmed(self, call: &'static str) -> Result<Self, Error> {
        if let [_, .., last] = &self.held[..] {
            let read = Op::get(last.tenure.key()).count_only();
            let ask = || self.txn().then(read.clone()).into_future();
            let confirmed = tokio::select! {
                biased;
                reason = self.lost() => return Err(lost(call, reason)),
                confirmed = patiently(&self.client, ask) => confirmed?,
            };
            if !confirmed.succeeded {
                return Err(lost(call, LostReason::KeyDeleted));
            }
        }
        let mut reasons = self.held.iter().map(|held| held.tenure.lost_reason());
        match reasons.find_map(|reason| reason) {
            Some(reason) => Err(lost(call, reason)),
            None => Ok(self),
        }
    }
}

impl Drop for MultiLockGuard {
    fn drop(&mut self) {
        while self.held.pop().is_some() {}
    }
}
