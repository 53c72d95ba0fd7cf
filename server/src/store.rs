//! The local copy of the replicated state: memory for the present, RocksDB for all of it.
//!
//! Readers share a lock that they hold for microseconds; the apply task alone takes it to write.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use gonfalon_core::command::Batch;
use gonfalon_core::{Changes, History, LeaseId, Reply, Revision, State};

use crate::limits::HISTORY_BYTES_MAX;
use crate::node::SnapshotDir;
use crate::raft::{LogId, StoredMembership};
use crate::storage::{FailStop, Loaded, StateDb, StorageError};

/// The local copy of the replicated state.
#[derive(Debug)]
pub struct Store {
    /// Taken before `applied`, and never while a watcher's queue is locked.
    local: RwLock<Local>,
    /// The last entry applied, and the membership in force at it.
    applied: Mutex<(Option<LogId>, StoredMembership)>,
    fail_stop: FailStop,
}

/// What a snapshot replaces as one.
#[derive(Debug)]
struct Local {
    state: State,
    db: Arc<StateDb>,
}

/// What came of applying a group of entries.
#[derive(Debug, Default)]
pub struct Applied {
    /// One list for each batch, one reply for each of its commands.
    pub replies: Vec<Vec<Reply>>,
    /// Leases granted (seconds) and gone (none), in order.
    pub leases: Vec<(LeaseId, Option<i64>)>,
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

impl Store {
    /// Opens the database in `dir` and reads the present into memory.
    pub fn open(dir: &Path, fail_stop: FailStop) -> Result<Self, StorageError> {
        let (db, loaded) = StateDb::open(dir, fail_stop.clone())?;
        let Loaded {
            state,
            applied,
            membership,
        } = loaded;
        Ok(Self {
            local: RwLock::new(Local {
                state,
                db: Arc::new(db),
            }),
            applied: Mutex::new((applied, membership)),
            fail_stop,
        })
    }

    /// Runs `read` on the present state. Keep it short: applying waits for it.
    pub fn read<R>(&self, read: impl FnOnce(&State, &dyn History) -> R) -> R {
        let local = self.local();
        read(&local.state, &*local.db)
    }

    /// The last entry applied, and the membership in force at it.
    pub fn applied_state(&self) -> (Option<LogId>, StoredMembership) {
        self.applied.lock().expect(UNPOISONED).clone()
    }

    /// Carries out `batches`, the last of which is entry `last`, writes what changed, and tells the
    /// watchers.
    ///
    /// # Errors
    ///
    /// Of storage. The member must stop: memory is ahead of the disk.
    pub fn apply(
        &self,
        batches: &[Batch],
        last: LogId,
        membership: Option<StoredMembership>,
    ) -> io::Result<Applied> {
        let mut changes = Changes::default();
        let replies = self
            .run(batches, &mut changes)
            .and_then(|replies| self.commit(&changes, last, membership).map(|()| replies))
            .inspect_err(|error| self.fail_stop.raise(error))
            .map_err(io::Error::other)?;
        Ok(Applied {
            replies,
            leases: changes.leases,
        })
    }

    fn run(
        &self,
        batches: &[Batch],
        changes: &mut Changes,
    ) -> Result<Vec<Vec<Reply>>, StorageError> {
        let mut local = self.local.write().expect(UNPOISONED);
        let Local { state, db } = &mut *local;
        // Everything from earlier calls is in the database by now.
        state.evict(HISTORY_BYTES_MAX);
        let mut apply = |batch: &Batch| {
            let commands = batch.commands.iter();
            commands
                .map(|command| state.apply(command, &**db, changes))
                .collect::<Result<Vec<_>, _>>()
        };
        batches
            .iter()
            .map(&mut apply)
            .collect::<Result<_, _>>()
            .map_err(StorageError::from)
    }

    fn commit(
        &self,
        changes: &Changes,
        last: LogId,
        membership: Option<StoredMembership>,
    ) -> Result<(), StorageError> {
        let local = self.local();
        local
            .db
            .commit(&local.state, changes, last, membership.as_ref())?;
        let mut applied = self.applied.lock().expect(UNPOISONED);
        applied.0 = Some(last);
        if let Some(membership) = membership {
            applied.1 = membership;
        }
        Ok(())
    }

    /// Brings everything applied to disk; what of it then needs no log entries any more.
    pub fn flush(&self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.applied_state();
        self.db().flush()?;
        Ok(applied)
    }

    fn db(&self) -> Arc<StateDb> {
        self.local().db.clone()
    }

    fn local(&self) -> RwLockReadGuard<'_, Local> {
        self.local.read().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "whoever panics while holding the state ends the process";
