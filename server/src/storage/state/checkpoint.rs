//! Consistent copies of the database, made of links to its files, and putting one in its place.
//!
//! A replacement goes through two renames: the copy is moved to `<dir>.next`, the database to
//! `<dir>.old`, the copy to `<dir>`. A crash leaves one of four pictures, and [`recover`] knows each:
//! with `<dir>` there, `.next` is forgotten (whoever sent it sends it again); without it, `.next` is
//! whole and takes its place. `.old` is always rubbish.

use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, Options};

use super::{StateDb, load, options};
use crate::raft::{LogId, StoredMembership};
use crate::storage::{StorageError, sync_dir};

impl StateDb {
    /// Makes a copy in `to`, which must not exist, and says which log entry it is of. Blocks.
    pub fn checkpoint(&self, to: &Path) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let files = &*self.files;
        let failed = |error: rocksdb::Error| files.error("making a checkpoint", error);
        Checkpoint::new(&files.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(to))
            .map_err(failed)?;
        let copy = DB::open_cf_for_read_only(&Options::default(), to, options::ALL, false)
            .map_err(failed)?;
        load::applied(&copy, files)
    }

    /// Stops the database's own threads, so that its files can be put aside.
    pub fn retire(&self) {
        self.files.db.cancel_all_background_work(true);
    }
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Puts the database copied to `from` in the place of the one in `dir`, which must be retired.
pub fn replace(dir: &Path, from: &Path) -> Result<(), StorageError> {
    let (next, old) = (beside(dir, ".next"), beside(dir, ".old"));
    remove(dir, &next)?;
    sync_dir(from)?;
    rename(dir, from, &next)?;
    rename(dir, dir, &old)?;
    rename(dir, &next, dir)?;
    remove(dir, &old)
}

/// Finishes or forgets a replacement that was interrupted.
pub(super) fn recover(dir: &Path) -> Result<(), StorageError> {
    let next = beside(dir, ".next");
    if next.exists() {
        if dir.exists() {
            remove(dir, &next)?;
        } else {
            rename(dir, &next, dir)?;
        }
    }
    remove(dir, &beside(dir, ".old"))
}

/// Renames, durably.
fn rename(dir: &Path, from: &Path, to: &Path) -> Result<(), StorageError> {
    std::fs::rename(from, to).map_err(|error| StorageError::io(dir, "moving a database", error))?;
    for path in [from, to] {
        if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

fn remove(dir: &Path, path: &Path) -> Result<(), StorageError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StorageError::io(dir, "deleting an old database", error))
        }
        _ => Ok(()),
    }
}
