//! Copies of everything for clients.
//!
//! A copy is made of links to the database's files and is read where it lies. It costs no disk when
//! it is made, but it keeps files that the database replaces meanwhile; so there are few at a time,
//! and one more waits for its turn. Who has one must not keep it for ever.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::{Store, blocking};
use crate::limits::BACKUPS_MAX;
use crate::node::SnapshotDir;
use crate::storage::StorageError;
use crate::storage::bundle::Bundle;

/// A copy of everything, read as one file. What it takes on disk is given back after it is dropped.
#[derive(Debug)]
pub struct Backup {
    /// None once it is dropped.
    held: Option<Held>,
    size_bytes: u64,
}

/// What is given back, in this order: it is closed, deleted, and then the next may come.
#[derive(Debug)]
struct Held {
    bundle: Bundle,
    _dir: SnapshotDir,
    _turn: OwnedSemaphorePermit,
}

impl Drop for Backup {
    /// Deleting gigabytes takes a while, and whoever drops this may have others to serve.
    fn drop(&mut self) {
        let held = self.held.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(held));
        }
    }
}

impl Store {
    /// Makes a copy of everything applied so far, once it is its turn.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] if the disk has no room for what is still only in memory.
    ///
    /// # Cancel safety
    ///
    /// Safe: a copy that nobody waits for any more is deleted once it is made.
    pub async fn backup(&self) -> Result<Backup, StorageError> {
        let turn = self.turn().await;
        let dir = self.new_copy();
        let db = self.db();
        let _timer = self.metrics.disk.snapshot_seconds.start_timer();
        blocking(move || {
            db.require_room_for_copy()?;
            db.link(dir.path())?;
            let bundle = Bundle::open(dir.path())
                .map_err(|error| StorageError::io(dir.path(), "listing a checkpoint", error))?;
            Ok(Backup {
                size_bytes: bundle.size_bytes(),
                held: Some(Held {
                    bundle,
                    _dir: dir,
                    _turn: turn,
                }),
            })
        })
        .await
    }

    async fn turn(&self) -> OwnedSemaphorePermit {
        const OPEN: &str = "it is never closed";
        match Arc::clone(&self.backups).try_acquire_owned() {
            Ok(turn) => turn,
            Err(TryAcquireError::Closed) => unreachable!("{OPEN}"),
            Err(TryAcquireError::NoPermits) => {
                let turn = Arc::clone(&self.backups).acquire_owned();
                tracing::info!(
                    at_once = BACKUPS_MAX,
                    "a snapshot waits until another one is read"
                );
                turn.await.expect(OPEN)
            }
        }
    }
}

impl Backup {
    /// Bytes of all of it.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Read for Backup {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let held = self.held.as_mut().expect("only dropping takes it");
        held.bundle.read(to)
    }
}
