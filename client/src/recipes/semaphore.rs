//! Something that a limited number of contenders have at a time, in the order in which they asked.
//!
//! How many that is stands in the store, at the semaphore's name: two programs that believe in
//! different numbers would each be right for themselves, and nobody would be limited.

use std::time::Duration;

use bytes::Bytes;

use super::contender::Contender;
use super::hold::guard;
use super::line::{Line, identity_setting, line_settings};
use crate::client::Client;
use crate::error::{Error, ErrorKind};

/// A semaphore by its name and number of permits; settings, then [`Semaphore::acquire`].
#[derive(Debug, Clone)]
pub struct Semaphore {
    line: Line,
}

guard! {
    /// A permit that is held. Dropped, it is released in the background.
    ///
    /// Several hold permits at a time, each with a fence of his own: with n permits, a resource can
    /// refuse what is lower than the n highest fences that it has seen.
    Permit
}

impl Semaphore {
    pub(crate) fn new(client: Client, name: Bytes, permits: u32) -> Self {
        let line = Line::new(client, "semaphore", &name);
        Self {
            line: Line {
                width: permits,
                agreed: Some((name, permits.to_string().into())),
                ..line
            },
        }
    }

    line_settings!(line);
    identity_setting!(line);

    /// Waits for a permit.
    ///
    /// The first who asks writes the number of permits to the semaphore's name, where it stays. To
    /// change it, delete that key when nobody holds or waits for a permit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FailedPrecondition`](crate::ErrorKind::FailedPrecondition): others have agreed
    /// on another number of permits, and nothing was asked for.
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument): there are no permits.
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): the lease ended, or somebody deleted the key,
    /// while it waited. Else as any call; but once it waits, what passes (no connection, no leader)
    /// does not end it for as long as its lease is held.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the place in the line is given up.
    pub async fn acquire(&self) -> Result<Permit, Error> {
        let holding = self.line()?.acquire(self.line.identity.clone()).await?;
        Ok(holding.into())
    }

    /// Waits for a permit, for `time` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): there was none by then, and the place in
    /// the line is given up. Else as [`Semaphore::acquire`].
    ///
    /// # Cancel safety
    ///
    /// As [`Semaphore::acquire`].
    pub async fn acquire_within(&self, time: Duration) -> Result<Permit, Error> {
        let identity = self.line.identity.clone();
        let holding = self.line()?.acquire_within(time, identity).await?;
        Ok(holding.into())
    }

    /// A permit, if there is one now.
    ///
    /// # Errors
    ///
    /// As [`Semaphore::acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn try_acquire(&self) -> Result<Option<Permit>, Error> {
        let identity = self.line.identity.clone();
        let holding = self.line()?.try_acquire(identity).await?;
        Ok(holding.map(Permit::from))
    }

    /// Who holds a permit and who waits, in order.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        self.line.contenders().await
    }

    fn line(&self) -> Result<&Line, Error> {
        if self.line.width > 0 {
            return Ok(&self.line);
        }
        let message = "a semaphore has at least one permit";
        Err(Error::new(
            ErrorKind::InvalidArgument,
            self.line.call,
            message,
        ))
    }
}
