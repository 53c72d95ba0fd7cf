//! A lock that one contender at a time has, in the order in which they asked.

use std::time::Duration;

use bytes::Bytes;

use super::contender::Contender;
use super::hold::guard;
use super::line::{Line, identity_setting, line_settings};
use crate::client::Client;
use crate::error::Error;

/// A lock by its name; settings, then [`Lock::acquire`].
#[derive(Debug, Clone)]
pub struct Lock {
    pub(super) line: Line,
}

guard! {
    /// A lock that is held. Dropped, it is released in the background.
    LockGuard
}

impl Lock {
    pub(crate) fn new(client: Client, name: &Bytes) -> Self {
        Self {
            line: Line::new(client, "lock", name),
        }
    }

    line_settings!(line);
    identity_setting!(line);

    /// Waits until it is held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): the lease ended, or somebody deleted the key,
    /// while it waited. Else as any call; but once it waits, what passes (no connection, no leader)
    /// does not end it for as long as its lease is held.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the place in the line is given up.
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        let holding = self.line.acquire(self.line.identity.clone()).await?;
        Ok(holding.into())
    }

    /// Waits until it is held, for `time` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): it was not held by then, and the place in
    /// the line is given up. Else as [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// As [`Lock::acquire`].
    pub async fn acquire_within(&self, time: Duration) -> Result<LockGuard, Error> {
        let identity = self.line.identity.clone();
        let holding = self.line.acquire_within(time, identity).await?;
        Ok(holding.into())
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
        let holding = self.line.try_acquire(self.line.identity.clone()).await?;
        Ok(holding.map(LockGuard::from))
    }

    /// Who holds it (first) and who waits, in order.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        self.line.contenders().await
    }
}
