//! The one thread that fsyncs the log.
//!
//! It takes everything that waits, fsyncs once, and completes it in the order in which it was
//! written. While it waits for the disk the next writes gather, so the slower the disk, the more
//! writes share an fsync; nothing is ever delayed to gather more.
//!
//! An fsync that failed is never repeated: the kernel may have dropped the pages and would report
//! success. From then on everything fails, and the fail-stop flag ends the process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use rocksdb::{DB, FlushOptions};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::mark::Mark;
use super::options;
use crate::limits::REST_BYTES_MIN;
use crate::metrics::Wal;
use crate::raft::TypeConfig;
use crate::storage::{FailStop, Rest, StorageError};

/// How old the high-water mark may be while there are writes. Each raise is an fsync of its own.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "the two values of etcd's flag")]
pub enum Durability {
    /// Once it is on disk.
    #[default]
    Disk,
    /// Once the operating system has it: it survives the process, and not the machine. The mark
    /// stays where it is, for it says what is known to be on disk.
    System,
}

/// Called before each fsync; what it returns in place of the fsync's own result, if an error, is
/// treated as if the disk had said it. For tests and drills.
pub type SyncFault = Box<dyn FnMut() -> std::io::Result<()> + Send>;

/// Somebody who waits for the disk.
pub(super) struct Waiter {
    pub(super) done: Done,
    /// Bounds how many wait; given back when this one is told.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

/// How to tell.
pub(super) enum Done {
    Append(IOFlushed<TypeConfig>),
    Write(oneshot::Sender<Result<(), StorageError>>),
}

/// What writers and the thread share.
#[derive(Debug)]
pub(super) struct SyncState {
    /// The last batch given to RocksDB.
    pub(super) written: AtomicU64,
    /// The last batch that is on disk.
    pub(super) synced: AtomicU64,
    pub(super) metrics: Wal,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiters: Vec<Waiter>,
    is_closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiting for the disk", self.waiters.len())
    }
}

impl SyncState {
    /// `sequence` is the last batch that the log has recovered.
    pub(super) fn new(sequence: u64, metrics: Wal) -> Self {
        Self {
            written: AtomicU64::new(sequence),
            synced: AtomicU64::new(sequence),
            metrics,
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Tells `waiter` once everything written before this call is on disk.
    pub(super) fn push(&self, waiter: Waiter) {
        self.lock().waiters.push(waiter);
        self.changed.notify_one();
    }

    /// Ends the thread once it has served everything that waits.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// What waits now, at most `MARK_INTERVAL` from now; and whether the store was closed.
    fn next(&self) -> (Vec<Waiter>, bool) {
        let is_idle = |queue: &mut Queue| queue.waiters.is_empty() && !queue.is_closed;
        let (mut queue, _) = self
            .changed
            .wait_timeout_while(self.lock(), MARK_INTERVAL, is_idle)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        (std::mem::take(&mut queue.waiters), queue.is_closed)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can leave the queue half changed.
        self.queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the thread owns.
pub(super) struct SyncThread {
    pub(super) db: Arc<DB>,
    pub(super) state: Arc<SyncState>,
    pub(super) mark: Mark,
    pub(super) fail_stop: FailStop,
    pub(super) durability: Durability,
    pub(super) fault: Option<SyncFault>,
    pub(super) dir: std::path::PathBuf,
}

impl SyncThread {
    /// Serves until the store is closed.
    pub(super) fn run(mut self) {
        let mut marked_at = Instant::now();
        let mut rest = Rest::new();
        loop {
            let (waiters, is_closed) = self.state.next();
            let result = self.sync(!waiters.is_empty());
            for waiter in waiters {
                waiter.tell(&result);
            }
            if result.is_ok() && (is_closed || marked_at.elapsed() >= MARK_INTERVAL) {
                marked_at = Instant::now();
                if let Err(error) = self.mark.raise(self.state.synced.load(Ordering::Relaxed)) {
                    self.fail_stop.raise(&error);
                }
            }
            if is_closed {
                return;
            }
            if rest.begins(self.state.written.load(Ordering::Relaxed), Instant::now())
                && let Err(error) = self.flush_memtables()
            {
                self.fail_stop.raise(&error);
            }
        }
    }

    /// Has RocksDB write its memtables to files, in the background, if that gives memory back.
    fn flush_memtables(&self) -> Result<(), StorageError> {
        let failed = |error: rocksdb::Error| StorageError::io(&self.dir, "flushing the log", error);
        let families = [options::LOG, options::META]
            .map(|name| self.db.cf_handle(name).expect("opened with the database"));
        let size = rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES;
        let bytes = self.db.property_int_value_cf(families[0], size);
        if bytes.map_err(failed)?.unwrap_or(0) < REST_BYTES_MIN {
            return Ok(());
        }
        let mut flush = FlushOptions::default();
        flush.set_wait(false);
        self.db.flush_cfs_opt(&families, &flush).map_err(failed)
    }

    /// Brings everything written so far to disk. Without somebody who waits, only if there is
    /// something: a committed index, which nobody waits for.
    fn sync(&mut self, is_awaited: bool) -> Result<(), StorageError> {
        self.fail_stop.check()?;
        // Read before the fsync: what is written while it runs may not be part of it.
        let written = self.state.written.load(Ordering::Acquire);
        if !is_awaited && written == self.state.synced.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.durability == Durability::System {
            let written = self.db.flush_wal(false);
            return written.map_err(|why| self.failed("writing the write-ahead log", &why));
        }
        let started = Instant::now();
        let injected = self.fault.as_mut().map_or(Ok(()), |fault| fault());
        let result = injected
            .map_err(|error| error.to_string())
            .and_then(|()| self.db.flush_wal(true).map_err(|error| error.to_string()));
        let took = started.elapsed().as_secs_f64();
        self.state.metrics.fsync_seconds.observe(took);
        result.map_err(|why| self.failed("fsync of the write-ahead log", &why))?;
        self.state.synced.store(written, Ordering::Release);
        Ok(())
    }

    /// Ends everything: nobody knows what is on the disk.
    fn failed(&self, op: &'static str, why: &dyn std::fmt::Display) -> StorageError {
        let error = StorageError::io(&self.dir, op, why);
        self.fail_stop.raise(&error);
        error
    }
}

impl Waiter {
    fn tell(self, result: &Result<(), StorageError>) {
        match self.done {
            Done::Append(callback) => {
                callback.io_completed(result.clone().map_err(std::io::Error::from));
            }
            // Whoever asked may have gone away; the write is on disk all the same.
            Done::Write(sender) => drop(sender.send(result.clone())),
        }
    }
}
