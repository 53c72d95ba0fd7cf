//! What a member keeps on disk: Raft's log, and the replicated state.
//!
//! Two RocksDB instances, because they want opposite things. [`LogStore`] (`raft/`) is one ordered
//! stream of writes that is fsynced before anything is acknowledged. [`StateDb`] (`state/`) is never
//! fsynced on the way of a write: what a crash takes from it is applied again from the log.
//!
//! A storage error is final. Whoever meets one reports it to [`FailStop`], and the node ends the
//! process: after a failed fsync nobody knows what is on the disk, and asking again does not tell.

use std::path::{Path, PathBuf};

pub mod bundle;
mod fail_stop;
pub mod log;
mod rest;
mod space;
pub mod state;

pub use fail_stop::FailStop;
pub use log::{Durability, LogStore};
pub(crate) use rest::Rest;
pub use state::{KvHash, Loaded, Pace, StateDb};

/// Why something on disk could not be read, written or trusted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process, or another handle in this one, has the directory open.
    #[error("{dir} is in use by another process; stop that one first")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Writes that had reached the disk, and may have been acknowledged, are gone.
    #[error(
        "{dir} has lost writes that were on disk: write {synced} was, but only {recovered} can be \
         read back ({why}). A member that goes on without them may break its promises to the \
         others. Put back a copy of its data directory that is not older than that, if there is one; \
         without it the other members go on as long as they are a majority"
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
        /// The last write that is known to have been fsynced.
        synced: u64,
        /// The last write that could be read.
        recovered: u64,
        /// What was seen.
        why: String,
    },
    /// Bytes on disk are not what was written.
    #[error(
        "{dir} is damaged: {what}: {why}. If the disk is at fault, put back a copy of this data \
         directory that was made while the member was stopped, and has not run since; without one \
         the other members go on as long as they are a majority"
    )]
    Corrupt {
        /// The directory.
        dir: PathBuf,
        /// What was being read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The directory was written by a later version of this program.
    #[error("{dir} has format {found}; this version reads up to {known}. Use a newer version")]
    TooNew {
        /// The directory.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this version knows.
        known: u32,
    },
    /// The disk has too little room for what was asked; nothing was written, and the member goes on.
    #[error("{dir}: {needed} bytes of free disk space are needed, and there are {free}")]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The operating system or RocksDB refused.
    #[error("{dir}: {op}: {why}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was attempted.
        op: &'static str,
        /// Why it failed.
        why: String,
    },
}

impl StorageError {
    /// An error of the operating system or of RocksDB, met while doing `op`.
    pub(crate) fn io(dir: &Path, op: &'static str, why: impl ToString) -> Self {
        Self::Io {
            dir: dir.to_owned(),
            op,
            why: why.to_string(),
        }
    }

    /// Bytes of `what` that cannot have been written by us.
    fn corrupt(dir: &Path, what: impl Into<String>, why: impl ToString) -> Self {
        Self::Corrupt {
            dir: dir.to_owned(),
            what: what.into(),
            why: why.to_string(),
        }
    }

    /// What RocksDB says when it cannot open a database.
    fn open(dir: &Path, error: &rocksdb::Error) -> Self {
        let text = error.to_string();
        // RocksDB has no code of its own for a lock that is held.
        if text.contains("lock hold by current process") || text.contains("While lock file") {
            return Self::InUse {
                dir: dir.to_owned(),
            };
        }
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Self::corrupt(dir, "the database", text),
            _ => Self::io(dir, "opening the database", text),
        }
    }
}

impl From<StorageError> for std::io::Error {
    fn from(error: StorageError) -> Self {
        Self::other(error)
    }
}

/// Makes a directory and the files in it last: their names, not their contents.
fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| StorageError::io(dir, "fsync of the directory", error))
}

/// Creates `dir` if it is missing, so that it is still there after a power failure.
fn create_dir(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)
        .map_err(|error| StorageError::io(dir, "creating the directory", error))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Makes `dir` an empty directory.
pub(crate) fn clear_dir(dir: &Path) -> Result<(), StorageError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::io(dir, "clearing the directory", error));
        }
        _ => {}
    }
    create_dir(dir)
}
