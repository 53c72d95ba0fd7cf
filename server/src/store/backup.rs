//! Copies of everything for clients.
//!
//! A copy is made of links to the database's files and is read where it lies. It costs no disk when
//! it is made, but it keeps files that the database replaces meanwhile; so there are few at a time,
//! and one more waits for its turn.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::{Store, blocking};
use crate::node::SnapshotDir;
use crate::storage::StorageError;
use crate::storage::bundle::Bundle;

/// A copy of everything, read as one file. What it takes on disk is given back with it.
#[derive(Debug)]
pub struct Backup {
    // Dropped in this order: closed, deleted, and then the next may come.
    bundle: Bundle,
    _dir: SnapshotDir,
    _turn: OwnedSemaphorePermit,
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
        let turns = Arc::clone(&self.backups);
        let turn = turns.acquire_owned().await.expect("it is never closed");
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let dir = SnapshotDir::own(self.outgoing.join(number.to_string()));
        let db = self.db();
        let _timer = self.metrics.disk.snapshot_seconds.start_timer();
        blocking(move || {
            db.require_room_for_copy()?;
            db.link(dir.path())?;
            let bundle = Bundle::open(dir.path())
                .map_err(|error| StorageError::io(dir.path(), "listing a checkpoint", error))?;
            Ok(Backup {
                bundle,
                _dir: dir,
                _turn: turn,
            })
        })
        .await
    }
}

impl Backup {
    /// Bytes of all of it.
    pub fn size_bytes(&self) -> u64 {
        self.bundle.size_bytes()
    }
}

impl Read for Backup {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.bundle.read(to)
    }
}
