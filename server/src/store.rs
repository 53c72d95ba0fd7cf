//! The local copy of the replicated state: memory for the present, RocksDB for all of it.
//!
//! Readers share a lock that they hold for microseconds; the apply task alone takes it to write.

use std::path::PathBuf;
use std::sync::RwLock;

use gonfalon_core::{History, Revision, State};

/// The local copy of the replicated state.
#[derive(Debug)]
pub struct Store {
    state: RwLock<State>,
}

/// A storage failure. The member stops: what is on its disk is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

impl Store {
    /// Runs `read` on the present state. Keep it short: applying waits for it.
    pub fn read<R>(&self, read: impl FnOnce(&State, &dyn History) -> R) -> R {
        let state = self.state.read().expect("no reader or writer panics while it holds the lock");
        read(&state, &gonfalon_core::NoHistory)
    }

    /// CRC-32C of the history up to `revision` (the present one if none), with the revision it was
    /// taken at and the compaction it starts from. Equal on all members.
    pub async fn hash_kv(&self, _revision: Option<Revision>) -> Result<KvHash, StoreError> {
        Err(StoreError("not open".into()))
    }

    /// CRC-32C of everything that is replicated.
    pub async fn hash(&self) -> Result<u32, StoreError> {
        Err(StoreError("not open".into()))
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> u64 {
        0
    }

    /// Bytes on disk that are in use: what would be left after a defragmentation.
    pub fn size_in_use_bytes(&self) -> u64 {
        0
    }

    /// Returns when the history below `revision` is gone from the disk too.
    pub async fn wait_compacted(&self, _revision: Revision) -> Result<(), StoreError> {
        Ok(())
    }

    /// Rewrites the files so that deleted data gives its space back.
    pub async fn defragment(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes a consistent copy of everything into one new file and returns its path; the caller
    /// streams and deletes it.
    pub async fn snapshot_file(&self) -> Result<PathBuf, StoreError> {
        Err(StoreError("not open".into()))
    }
}

/// The answer of [`Store::hash_kv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C.
    pub hash: u32,
    /// The history starts here (exclusive, but for what is still visible at it).
    pub compacted: Revision,
    /// The history ends here.
    pub revision: Revision,
}
