//! Raft's log, vote and commit index: one ordered stream of writes, fsynced in groups.
//!
//! A write goes into RocksDB's write-ahead buffer and memtable on the caller's task, without
//! waiting; the [sync thread](sync) brings everything that has gathered to disk with one fsync and
//! then tells those who wait. The newest entries are also kept in memory.
//!
//! Invariants
//! - every batch carries a [`witness::Witness`] with the next sequence number, so the order on disk
//!   is the order of the calls, and what had been fsynced can be proven when the store is opened;
//! - entries have no gaps: the first is one above `purged`, each next one is one above the last;
//! - the commit index that is read back is never above the last entry;
//! - after one failed write or fsync nothing is written any more.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use rocksdb::{ColumnFamily, DB, WriteBatch};
use tokio::sync::{Semaphore, oneshot};

use self::recent::Recent;
use self::records::{COMMITTED, PURGED, VOTE, WITNESS, entry_key, seal};
use self::sync::{Done, SyncState, Waiter};
use self::witness::Witness;
use super::{FailStop, StorageError};
use crate::metrics::Wal;
use crate::raft::{Entry, LogId, TypeConfig, Vote, log_id_to_pb, vote_to_pb};

mod mark;
mod open;
mod options;
mod reader;
mod recent;
mod records;
mod sync;
mod witness;

pub use reader::READ_BYTES_MAX;
pub use sync::{Durability, SyncFault};

/// Recent entries in memory: a second of full load. Replication to a peer that is further behind
/// reads memtables and files.
pub const RECENT_BYTES_MAX: usize = 4 << 20;
/// Appends that may wait for the disk at a time; the next one waits for the first of them.
const APPENDS_WAITING_MAX: usize = 4096;

/// Bytes of a batch beside its entries: keys, lengths, witness.
const BATCH_BESIDE_BYTES: usize = 256;

/// The log. Cheap to clone; the last clone that is dropped brings everything to disk.
#[derive(Debug, Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    /// Dropped after `shared` is no longer used by this handle.
    _closer: Arc<Closer>,
}

/// What handles and readers share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    db: Arc<DB>,
    /// Drawn when the store was created.
    store: u64,
    /// Held while a batch is made and given to RocksDB, so that sequence numbers are in order.
    /// Taken before `view`.
    writer: Mutex<()>,
    /// Held for memory accesses only, never while waiting for a disk.
    view: RwLock<View>,
    sync: Arc<SyncState>,
    waiting: Arc<Semaphore>,
    fail_stop: FailStop,
}

/// What the log holds, as it will be once the sync thread has caught up.
#[derive(Debug)]
struct View {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first entry, if there is one.
    first: u64,
    /// The last entry; the purged one if there is no entry.
    last: Option<LogId>,
    recent: Recent,
}

/// Ends the sync thread.
#[derive(Debug)]
struct Closer {
    sync: Arc<SyncState>,
    thread: Option<JoinHandle<()>>,
}

impl LogStore {
    /// Opens the log in `dir`, or creates it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Lost`] if writes that were on disk are gone, [`StorageError::InUse`] if
    /// somebody else has it open; see [`StorageError`] for the rest.
    pub fn open(
        dir: &Path,
        fail_stop: FailStop,
        durability: Durability,
        metrics: Wal,
    ) -> Result<Self, StorageError> {
        open::open(dir, fail_stop, durability, None, metrics)
    }

    /// Opens the log with a fault to inject before each fsync. For tests and drills.
    pub fn open_with_fault(
        dir: &Path,
        fail_stop: FailStop,
        durability: Durability,
        fault: SyncFault,
        metrics: Wal,
    ) -> Result<Self, StorageError> {
        open::open(dir, fail_stop, durability, Some(fault), metrics)
    }

    /// The last entry of the log, if it ever held one.
    pub fn last_log_id(&self) -> Option<LogId> {
        self.shared.view().last
    }

    /// The last entry that was purged.
    pub fn purged_log_id(&self) -> Option<LogId> {
        self.shared.view().purged
    }

    /// The vote that was saved last.
    pub fn vote(&self) -> Option<Vote> {
        self.shared.view().vote
    }

    /// Bytes of the entries up to `last` in the files, about: none of what is only in memory still.
    /// When the log was just opened that is nothing.
    pub fn entry_bytes(&self, last: u64) -> u64 {
        let (from, to) = (entry_key(self.shared.view().first), entry_key(last + 1));
        if from >= to {
            return 0;
        }
        let entries = rocksdb::Range::new(&from, &to);
        let family = self.shared.family(options::LOG);
        let sizes = self.shared.db.get_approximate_sizes_cf(family, &[entries]);
        sizes.into_iter().sum()
    }

    /// Bytes on disk, without the write-ahead log.
    pub fn size_bytes(&self) -> u64 {
        [options::LOG, options::META]
            .into_iter()
            .filter_map(|name| {
                let family = self.shared.family(name);
                let property = rocksdb::properties::TOTAL_SST_FILES_SIZE;
                self.shared
                    .db
                    .property_int_value_cf(family, property)
                    .ok()
                    .flatten()
            })
            .sum()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, std::io::Error> {
        let view = self.shared.view();
        Ok(LogState {
            last_purged_log_id: view.purged,
            last_log_id: view.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), std::io::Error> {
        self.shared.write(
            |batch, shared| {
                let value = seal(VOTE, &vote_to_pb(vote));
                batch.put_cf(shared.family(options::META), VOTE, value);
            },
            |view| view.vote = Some(*vote),
        )?;
        let (sender, receiver) = oneshot::channel();
        self.shared.sync.push(Waiter {
            done: Done::Write(sender),
            _permit: None,
        });
        let gone = |error| StorageError::io(&self.shared.dir, "waiting for the disk", error);
        Ok(receiver.await.map_err(gone)??)
    }

    /// In the same stream as the entries and behind them, so that it is never ahead of them on
    /// disk. Nobody waits for it.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), std::io::Error> {
        Ok(self.shared.write(
            |batch, shared| {
                let family = shared.family(options::META);
                match committed {
                    Some(id) => {
                        batch.put_cf(family, COMMITTED, seal(COMMITTED, &log_id_to_pb(id)));
                    }
                    None => batch.delete_cf(family, COMMITTED),
                }
            },
            |view| view.committed = committed,
        )?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, std::io::Error> {
        let view = self.shared.view();
        Ok(view.committed.min(view.last))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), std::io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // Never closed, so this fails never.
        let permit = self.shared.waiting.clone().acquire_owned().await.ok();
        let entries: Vec<(Entry, Vec<u8>)> = entries
            .into_iter()
            .map(|entry| {
                let value = records::encode_entry(&entry);
                (entry, value)
            })
            .collect();
        self.shared.append(entries)?;
        self.shared.sync.push(Waiter {
            done: Done::Append(callback),
            _permit: permit,
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), std::io::Error> {
        let keep = last.map(|id| id.index);
        Ok(self.shared.write(
            |batch, shared| {
                let from = entry_key(keep.map_or(0, |index| index + 1));
                let family = shared.family(options::LOG);
                batch.delete_range_cf(family, from.as_slice(), &records::AFTER_LAST);
            },
            |view| {
                view.recent.truncate_after(keep);
                if view.last > last {
                    view.last = last.max(view.purged);
                }
            },
        )?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), std::io::Error> {
        Ok(self.shared.write(
            |batch, shared| {
                let meta = shared.family(options::META);
                batch.put_cf(meta, PURGED, seal(PURGED, &log_id_to_pb(upto)));
                let log = shared.family(options::LOG);
                batch.delete_range_cf(log, entry_key(0), entry_key(upto.index + 1));
            },
            |view| {
                view.recent.purge(upto.index);
                view.purged = Some(upto);
                view.first = view.first.max(upto.index + 1);
                view.last = view.last.max(Some(upto));
            },
        )?)
    }
}

impl Shared {
    /// Writes entries behind the last one.
    fn append(&self, entries: Vec<(Entry, Vec<u8>)>) -> Result<(), StorageError> {
        if entries.is_empty() {
            return self.fail_stop.check();
        }
        let next = entries[0].0.log_id.index;
        let last = self.view().last;
        if let Some(last) = last
            && next != last.index + 1
        {
            let what = format!("an append at {next} behind {last}");
            return Err(StorageError::corrupt(
                &self.dir,
                what,
                "it would leave a gap",
            ));
        }
        let bytes = entries.iter().map(|(_, value)| value.len()).sum();
        self.write_sized(
            bytes,
            |batch, shared| {
                let family = shared.family(options::LOG);
                for (entry, value) in &entries {
                    batch.put_cf(family, entry_key(entry.log_id.index), value);
                }
            },
            |view| {
                if view.last == view.purged {
                    view.first = next;
                }
                view.last = entries.last().map(|(entry, _)| entry.log_id);
                for (entry, value) in &entries {
                    view.recent.push(entry.clone(), value.len());
                }
            },
        )
    }

    /// Writes one small batch as the next in the stream, then changes the view to match.
    fn write(
        &self,
        fill: impl FnOnce(&mut WriteBatch, &Self),
        show: impl FnOnce(&mut View),
    ) -> Result<(), StorageError> {
        self.write_sized(0, fill, show)
    }

    /// The same for a batch with about `bytes` of values.
    fn write_sized(
        &self,
        bytes: usize,
        fill: impl FnOnce(&mut WriteBatch, &Self),
        show: impl FnOnce(&mut View),
    ) -> Result<(), StorageError> {
        self.fail_stop.check()?;
        let mut batch = WriteBatch::with_capacity_bytes(bytes + BATCH_BESIDE_BYTES);
        fill(&mut batch, self);
        let _writer = self.lock_writer();
        let witness = Witness {
            store: self.store,
            sequence: self.sync.written.load(Ordering::Relaxed) + 1,
            synced: self.sync.synced.load(Ordering::Acquire),
        };
        batch.put_cf(self.family(options::META), WITNESS, witness.encode());
        let bytes = batch.size_in_bytes();
        let timer = self.sync.metrics.write_seconds.start_timer();
        self.db.write(batch).map_err(|error| {
            let error = StorageError::io(&self.dir, "writing to the log", error);
            self.fail_stop.raise(&error);
            error
        })?;
        drop(timer);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.sync.metrics.write_bytes.add(bytes);
        self.sync.written.store(witness.sequence, Ordering::Release);
        show(&mut self.view_mut());
        Ok(())
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with the database")
    }

    // A thread that panics while it holds one of these ends the process; nobody sees the rest.
    fn lock_writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.sync.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's sync thread panicked");
        }
    }
}
