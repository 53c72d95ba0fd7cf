//! A lock that many readers or one writer have.
//!
//! The keys are where etcd's `RWMutex` puts its own: `<name>/read/…` and `<name>/write/…`. A reader
//! waits for the last writer before him; a writer waits for the last of all before him. So nobody is
//! overtaken: a reader who comes after a waiting writer waits too.

use std::time::Duration;

use bytes::Bytes;

use super::contender::Contender;
use super::hold::guard;
use super::line::{Line, below, identity_setting, line_settings};
use crate::client::Client;
use crate::error::Error;
use crate::types::KeyRange;

/// A read-write lock by its name; settings, then [`RwLock::read`] or [`RwLock::write`].
#[derive(Debug, Clone)]
pub struct RwLock {
    name: Bytes,
    line: Line,
}

guard! {
    /// A read-write lock that is held together with other readers. Dropped, it is released in the
    /// background.
    RwLockReadGuard
}

guard! {
    /// A read-write lock that is held alone. Dropped, it is released in the background.
    RwLockWriteGuard
}

impl RwLock {
    pub(crate) fn new(client: Client, name: Bytes) -> Self {
        Self {
            line: Line::new(client, "read-write lock", &name),
            name,
        }
    }

    line_settings!(line);
    identity_setting!(line);

    /// Waits until no writer who came before has it.
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
    pub async fn read(&self) -> Result<RwLockReadGuard, Error> {
        let holding = self.readers().acquire(self.line.identity.clone()).await?;
        Ok(holding.into())
    }

    /// [`RwLock::read`], for `time` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), and as [`RwLock::read`].
    ///
    /// # Cancel safety
    ///
    /// As [`RwLock::read`].
    pub async fn read_within(&self, time: Duration) -> Result<RwLockReadGuard, Error> {
        let identity = self.line.identity.clone();
        let holding = self.readers().acquire_within(time, identity).await?;
        Ok(holding.into())
    }

    /// Reads if no writer has it or waits for it.
    ///
    /// # Errors
    ///
    /// As [`RwLock::read`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn try_read(&self) -> Result<Option<RwLockReadGuard>, Error> {
        let identity = self.line.identity.clone();
        let holding = self.readers().try_acquire(identity).await?;
        Ok(holding.map(RwLockReadGuard::from))
    }

    /// Waits until nobody who came before has it.
    ///
    /// # Errors
    ///
    /// As [`RwLock::read`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the place in the line is given up.
    pub async fn write(&self) -> Result<RwLockWriteGuard, Error> {
        let holding = self.writers().acquire(self.line.identity.clone()).await?;
        Ok(holding.into())
    }

    /// [`RwLock::write`], for `time` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), and as [`RwLock::read`].
    ///
    /// # Cancel safety
    ///
    /// As [`RwLock::write`].
    pub async fn write_within(&self, time: Duration) -> Result<RwLockWriteGuard, Error> {
        let identity = self.line.identity.clone();
        let holding = self.writers().acquire_within(time, identity).await?;
        Ok(holding.into())
    }

    /// Writes if nobody else has it or waits for it.
    ///
    /// # Errors
    ///
    /// As [`RwLock::read`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn try_write(&self) -> Result<Option<RwLockWriteGuard>, Error> {
        let identity = self.line.identity.clone();
        let holding = self.writers().try_acquire(identity).await?;
        Ok(holding.map(RwLockWriteGuard::from))
    }

    /// Who holds it and who waits, in the order in which they came. Whether somebody reads or
    /// writes is in his key.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        let writers = below(&self.name, "write");
        let mut is_after_writer = false;
        let kvs = self.line.in_order(KeyRange::prefix(&self.line.prefix));
        let contenders = kvs.await?.into_iter().enumerate().map(|(at, kv)| {
            let is_writer = kv.key.starts_with(&writers);
            let is_holder = !is_after_writer && (at == 0 || !is_writer);
            is_after_writer |= is_writer;
            Contender::new(kv, at, is_holder)
        });
        Ok(contenders.collect())
    }

    fn readers(&self) -> Line {
        Line {
            prefix: below(&self.name, "read/"),
            rivals: KeyRange::prefix(below(&self.name, "write")),
            ..self.line.clone()
        }
    }

    fn writers(&self) -> Line {
        Line {
            prefix: below(&self.name, "write/"),
            ..self.line.clone()
        }
    }
}
