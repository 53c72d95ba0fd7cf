//! Consistent copies of the database, made of links to its files, and putting one in its place.
//!
//! The database lives in a numbered directory; the highest number counts. A copy takes the place of
//! the present database by being renamed to the next number once all of it is on disk, so a crash
//! leaves either the old one or the new one. A path is never used twice: the old database may still
//! be read while the new one is opened, and is deleted only once that was possible.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, Options};

use super::{Loaded, StateDb, load, options};
use crate::raft::{LogId, StoredMembership};
use crate::storage::{FailStop, StorageError, space, sync_dir};

/// Bytes that a copy needs for the lists of its files and options, amply.
const LISTS_BYTES: u64 = 1024 * 1024;

impl StateDb {
    /// Makes a copy in `to`, which must not exist, and says which log entry it is of. Blocks.
    pub fn checkpoint(&self, to: &Path) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        self.link(to)?;
        let files = &*self.files;
        let copy = DB::open_cf_for_read_only(&Options::default(), to, options::ALL, false)
            .map_err(|error| files.error("opening a checkpoint", error))?;
        load::applied(&copy, files)
    }

    /// Fails unless a copy fits on the disk: to fail while it is made would end the member.
    pub fn require_room_for_copy(&self) -> Result<(), StorageError> {
        space::require(&self.files.dir, self.unflushed_bytes() + LISTS_BYTES)
    }

    /// Makes a copy in `to`, which must not exist. Blocks.
    ///
    /// What is only in memory is written to disk; everything else is linked.
    pub fn link(&self, to: &Path) -> Result<(), StorageError> {
        let files = &*self.files;
        Checkpoint::new(&files.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(to))
            .map_err(|error| files.error("making a checkpoint", error))
    }

    /// Whether a copy, of ours or of anybody's, has links to files of this database.
    pub(super) fn is_copied(&self) -> Result<bool, StorageError> {
        let dir = &self.files.dir;
        let failed = |error| StorageError::io(dir, "looking for copies", error);
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            match entry.map_err(failed)?.metadata() {
                Ok(file) if file.is_file() && file.nlink() > 1 => return Ok(true),
                // Deleted meanwhile: no copy of this one matters any more.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Makes the copy in `from` the database below `root` and opens it. Blocks.
    ///
    /// This one can still be read, until and after it is [retired](Self::retire); nothing may be
    /// written to it any more.
    pub fn succeed(
        &self,
        root: &Path,
        from: &Path,
        fail_stop: FailStop,
    ) -> Result<(Self, Loaded), StorageError> {
        let dir = adopt(root, from)?;
        let (pace, metrics) = self.compactor.settings();
        Self::open_dir(&dir, fail_stop, pace, metrics)
    }

    /// Ends what works on this database in the background, and deletes its files: it has a
    /// successor. Blocks.
    pub fn retire(&self) {
        self.compactor.stop();
        self.files.db.cancel_all_background_work(true);
        remove(&self.files.dir);
    }
}

/// The directories below `root` with databases: the one that counts, and those that it replaced.
pub(super) fn current(root: &Path) -> Result<(PathBuf, Vec<PathBuf>), StorageError> {
    let mut numbers = numbers(root)?;
    let last = numbers.pop().unwrap_or(1);
    let dir = |number: u64| root.join(number.to_string());
    Ok((dir(last), numbers.into_iter().map(dir).collect()))
}

/// Makes the copy in `from` the database below `root`; returns its directory.
pub(super) fn adopt(root: &Path, from: &Path) -> Result<PathBuf, StorageError> {
    let last = numbers(root)?.pop().unwrap_or(0);
    let to = root.join((last + 1).to_string());
    sync_dir(from)?;
    std::fs::rename(from, &to)
        .map_err(|error| StorageError::io(root, "moving a database", error))?;
    sync_dir(root)?;
    Ok(to)
}

/// The numbered directories below `root`, ascending.
fn numbers(root: &Path) -> Result<Vec<u64>, StorageError> {
    let failed = |error| StorageError::io(root, "listing databases", error);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Deletes a database that has a successor. One that stays only takes space, until the next start
/// tries again.
pub(super) fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "cannot delete an old database");
    }
}
