//! The local copy of the replicated state: memory for the present, RocksDB for all of it.
//!
//! Readers share a lock that they hold for microseconds; the apply task alone takes it to write. Who
//! needs it for longer says so first: then nobody waits for it on a thread that others want too.

mod backup;
mod replay;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use gonfalon_core::command::{Batch, Command};
use gonfalon_core::{
    Changes, Error, Event, History, HistoryError, LeaseId, Reply, Revision, State, Written,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use crate::limits::{BACKUPS_MAX, HISTORY_BYTES_MAX, HISTORY_BYTES_MIN, HISTORY_SHARE, LONG_KEYS};
use crate::metrics::{Inflight, Metrics};
use crate::node::SnapshotDir;
use crate::raft::{LogId, StoredMembership};
use crate::storage::{FailStop, KvHash, Loaded, Pace, StateDb, StorageError};
use crate::watch::Watchers;

pub use backup::Backup;

/// A group of entries that takes longer to apply is counted as slow: etcd's limit.
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// The local copy of the replicated state.
#[derive(Debug)]
pub struct Store {
    /// From the first change of a group to the moment at which all of them are in the database.
    /// Taken before `local`.
    applying: Mutex<()>,
    /// Taken before `applied`, and never while a watcher's queue is locked.
    local: RwLock<Local>,
    /// Requests under way that take the state for long.
    long: AtomicUsize,
    /// The last entry applied, and the membership in force at it.
    applied: Mutex<(Option<LogId>, StoredMembership)>,
    watchers: Arc<Watchers>,
    fail_stop: FailStop,
    metrics: Arc<Metrics>,
    /// Where the database is.
    root: PathBuf,
    /// Where copies are made for followers and clients, one directory each.
    outgoing: PathBuf,
    copies: AtomicU64,
    /// One for each copy that clients may have at once.
    backups: Arc<Semaphore>,
}

/// What a snapshot replaces as one.
#[derive(Debug)]
struct Local {
    state: State,
    db: Arc<StateDb>,
}

impl Store {
    /// Opens the database below `root` and reads the present into memory.
    ///
    /// Copies for followers and clients are made below `outgoing`; what an earlier process left
    /// there is deleted.
    pub fn open(
        root: &Path,
        outgoing: PathBuf,
        fail_stop: FailStop,
        pace: Pace,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StorageError> {
        crate::storage::clear_dir(&outgoing)?;
        let sweeps = metrics.disk.sweeps.clone();
        let (db, loaded) = StateDb::open(root, fail_stop.clone(), pace, sweeps)?;
        let Loaded {
            state,
            applied,
            membership,
        } = loaded;
        let watchers = Arc::new(Watchers::new(state.revision()));
        Ok(Self {
            watchers,
            applying: Mutex::default(),
            local: RwLock::new(Local {
                state,
                db: Arc::new(db),
            }),
            long: AtomicUsize::new(0),
            applied: Mutex::new((applied, membership)),
            fail_stop,
            metrics,
            root: root.to_owned(),
            outgoing,
            copies: AtomicU64::new(0),
            backups: Arc::new(Semaphore::new(BACKUPS_MAX)),
        })
    }

    /// Runs `read` on the present state. Keep it short: applying waits for it.
    pub fn read<R>(&self, read: impl FnOnce(&State, &dyn History) -> R) -> R {
        let local = self.local();
        read(&local.state, &*local.db)
    }

    /// The same for what may take as many keys as `weight` says.
    pub fn read_many<R>(
        &self,
        weight: impl FnOnce(&State) -> usize,
        read: impl FnOnce(&State, &dyn History) -> R,
    ) -> R {
        if weight(&self.local().state) < LONG_KEYS {
            return self.read(read);
        }
        self.long(|| self.read(read))
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Who is told of changes.
    pub fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }

    /// The last entry applied, and the membership in force at it.
    pub fn applied_state(&self) -> (Option<LogId>, StoredMembership) {
        self.applied.lock().expect(UNPOISONED).clone()
    }

    /// Carries out `batches`, the last of which is entry `last`, writes what changed, and tells the
    /// watchers. `readable` is told of leases granted (seconds) and gone (none), in order, as soon as
    /// readers find the changes.
    ///
    /// # Errors
    ///
    /// Of storage. The member must stop: memory is ahead of the disk.
    pub fn apply(
        &self,
        batches: &[Batch],
        last: LogId,
        membership: Option<StoredMembership>,
        readable: impl FnOnce(&[(LeaseId, Option<i64>)]),
    ) -> io::Result<Vec<Vec<Reply>>> {
        let apply = || {
            let _applying = self.applying.lock().expect(UNPOISONED);
            let mut changes = Changes::default();
            let replies = self.run(batches, &mut changes)?;
            readable(&changes.leases);
            self.commit(&changes, last, membership)?;
            self.publish(&changes.versions);
            Ok(replies)
        };
        let started = Instant::now();
        let replies = if self.is_long(batches) {
            self.long(apply)
        } else {
            apply()
        };
        if started.elapsed() > SLOW_APPLY {
            self.metrics.raft.slow_apply.inc();
        }
        replies
            .inspect_err(|error| self.fail_stop.raise(error))
            .map_err(io::Error::other)
    }

    /// Whether `batches` may keep the state to themselves for long.
    fn is_long(&self, batches: &[Batch]) -> bool {
        let commands = || batches.iter().flat_map(|batch| &batch.commands);
        let may_be = |command: &Command| !matches!(command, Command::Put(_));
        if !commands().any(may_be) {
            return false;
        }
        let local = self.local();
        let weights = commands().map(|command| local.state.command_weight(command));
        weights.sum::<usize>() >= LONG_KEYS
    }

    /// Gives back memory of the past that fits on disk, while nobody writes.
    pub fn evict_at_rest(&self) {
        // Ends at once when somebody writes: what is being applied is not in the database yet.
        while let Ok(_resting) = self.applying.try_lock() {
            if !self.local_mut().state.evict(HISTORY_BYTES_MIN) {
                break;
            }
        }
    }

    fn run(
        &self,
        batches: &[Batch],
        changes: &mut Changes,
    ) -> Result<Vec<Vec<Reply>>, StorageError> {
        let mut local = self.local_mut();
        let Local { state, db } = &mut *local;
        // Everything from earlier calls is in the database by now.
        state.evict(history_budget(state.key_bytes()));
        let mut before = Instant::now();
        let mut apply = |command: &Command| {
            let reply = state.apply(command, &**db, changes)?;
            let now = Instant::now();
            self.metrics.kv.applied(command, &reply, now - before);
            before = now;
            Ok::<_, HistoryError>(reply)
        };
        let mut apply = |batch: &Batch| batch.commands.iter().map(&mut apply).collect();
        let replies: Result<Vec<Vec<Reply>>, _> = batches.iter().map(&mut apply).collect();
        replies.map_err(StorageError::from)
    }

    fn commit(
        &self,
        changes: &Changes,
        last: LogId,
        membership: Option<StoredMembership>,
    ) -> Result<(), StorageError> {
        let local = self.local();
        let timer = self.metrics.disk.state_commit_seconds.start_timer();
        local
            .db
            .commit(&local.state, changes, last, membership.as_ref())?;
        timer.observe_duration();
        let mut applied = self.applied.lock().expect(UNPOISONED);
        applied.0 = Some(last);
        if let Some(membership) = membership {
            applied.1 = membership;
        }
        Ok(())
    }

    fn publish(&self, versions: &[Written]) {
        if let Some(last) = versions.last() {
            let events: Vec<Arc<Event>> = versions.iter().map(|w| w.event.clone()).collect();
            self.watchers.publish(last.event.kv.mod_revision, &events);
        }
    }

    /// Brings everything applied to disk; what of it then needs no log entries any more. Blocks.
    pub fn flush(&self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        loop {
            let applied = self.applied_state();
            let db = self.db();
            match db.flush() {
                Ok(()) => return Ok(applied),
                // A snapshot has replaced it meanwhile, and there is nothing left to flush of it.
                Err(_) if !Arc::ptr_eq(&db, &self.db()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes that [`Store::flush`] would bring to disk.
    pub fn unflushed_bytes(&self) -> u64 {
        self.db().unflushed_bytes()
    }

    /// Makes a copy of everything, and says which log entry it is of. Blocks.
    pub fn checkpoint(
        &self,
    ) -> Result<(Option<LogId>, StoredMembership, SnapshotDir), StorageError> {
        let copy = self.new_copy();
        let (applied, membership) = self.db().checkpoint(copy.path())?;
        Ok((applied, membership, copy))
    }

    /// A place for a copy; what is made there is deleted with it.
    fn new_copy(&self) -> SnapshotDir {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        SnapshotDir::own(self.outgoing.join(number.to_string()))
    }

    /// Replaces everything by the copy in `from`. Blocks, but whoever reads goes on meanwhile.
    pub fn install(&self, from: &Path) -> Result<(), StorageError> {
        let _inflight = Inflight::of(&self.metrics.raft.snapshot_apply_in_progress);
        // Only the caller applies, so nothing is written to the old database meanwhile.
        let old = self.db();
        let (db, loaded) = old.succeed(&self.root, from, self.fail_stop.clone())?;
        let revision = loaded.state.revision();
        let new = Local {
            state: loaded.state,
            db: Arc::new(db),
        };
        let replaced = {
            let mut local = self.local_mut();
            *self.applied.lock().expect(UNPOISONED) = (loaded.applied, loaded.membership);
            std::mem::replace(&mut *local, new)
        };
        self.watchers.reset(revision);
        tracing::info!(%revision, "installed a snapshot");
        // Millions of keys take a while to forget.
        drop(replaced);
        old.retire();
        Ok(())
    }

    /// CRC-32C of the history up to `revision` (the present one if none).
    pub async fn hash_kv(
        &self,
        revision: Option<Revision>,
    ) -> Result<Result<KvHash, Error>, StorageError> {
        let db = self.db();
        let _timer = self.metrics.kv.hash_kv_seconds.start_timer();
        blocking(move || db.hash_kv(revision)).await
    }

    /// CRC-32C of everything that is replicated.
    pub async fn hash(&self) -> Result<u32, StorageError> {
        let db = self.db();
        let _timer = self.metrics.kv.hash_seconds.start_timer();
        blocking(move || db.hash()).await
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> u64 {
        self.db().size_bytes()
    }

    /// Bytes on disk that are in use: what would be left after a defragmentation, about.
    pub fn size_in_use_bytes(&self) -> u64 {
        self.db().size_in_use_bytes()
    }

    /// Returns when the history below `revision` is gone from the disk too.
    pub async fn wait_compacted(&self, revision: Revision) -> Result<(), StorageError> {
        let db = self.db();
        db.wait_compacted(revision).await
    }

    /// Rewrites the files so that deleted data gives its space back.
    pub async fn defragment(&self) -> Result<(), StorageError> {
        let db = self.db();
        let _inflight = Inflight::of(&self.metrics.disk.defragment_inflight);
        let _timer = self.metrics.disk.defragment_seconds.start_timer();
        blocking(move || db.defragment()).await
    }

    fn db(&self) -> Arc<StateDb> {
        self.local().db.clone()
    }

    fn local(&self) -> RwLockReadGuard<'_, Local> {
        self.patient(|| self.local.read().expect(UNPOISONED))
    }

    fn local_mut(&self) -> RwLockWriteGuard<'_, Local> {
        self.patient(|| self.local.write().expect(UNPOISONED))
    }

    /// Does what takes the state for long.
    fn long<R>(&self, work: impl FnOnce() -> R) -> R {
        let _counted = Counted::of(&self.long);
        apart(work)
    }

    /// Waits for the state, where it may if that can take long.
    fn patient<R>(&self, wait: impl FnOnce() -> R) -> R {
        if self.long.load(Ordering::Relaxed) == 0 {
            return wait();
        }
        apart(wait)
    }
}

/// One of those that `count` counts, until it is dropped.
struct Counted<'a> {
    count: &'a AtomicUsize,
}

impl<'a> Counted<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self { count }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does `work`, which blocks, while the tasks that share its thread go on on another.
fn apart<R>(work: impl FnOnce() -> R) -> R {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if flavor.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread) {
        return tokio::task::block_in_place(work);
    }
    work()
}

/// Bytes of recent history that a state with `key_bytes` of present keeps in memory: who has little
/// to hold does not hold its past instead.
fn history_budget(key_bytes: usize) -> usize {
    (key_bytes / HISTORY_SHARE).clamp(HISTORY_BYTES_MIN, HISTORY_BYTES_MAX)
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(StorageError::Io {
            dir: PathBuf::new(),
            op: "running",
            why: error.to_string(),
        }),
    }
}

const UNPOISONED: &str = "whoever panics while holding the state ends the process";

#[cfg(test)]
mod tests;
