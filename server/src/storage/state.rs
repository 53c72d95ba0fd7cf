//! The replicated state on disk: every version, the order of changes, leases, and how far the log
//! has been applied.
//!
//! Nothing here is fsynced on the way of a write. All column families are flushed together, with
//! the applied log id among them, so what is found after a crash is the state as it was at some
//! entry; the log brings it up to date again.
//!
//! Invariants
//! - one batch holds all changes of the entries it covers and the id of the last of them;
//! - a change's record names the version that it superseded, if that one existed.

mod checkpoint;
mod compact;
mod hash;
mod history;
mod load;
mod options;
mod records;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gonfalon_core::command::AlarmKind;
use gonfalon_core::{Changes, HistoryError, MemberId, MemberInfo, Revision, State, Written};
use prost::Message;
use rocksdb::{ColumnFamily, DB, FlushOptions, WriteBatch, WriteOptions};

use self::compact::Compactor;
use super::{FailStop, StorageError, space};
use crate::metrics::Sweeps;
use crate::raft::{LogId, StoredMembership, log_id_to_pb, stored_membership_to_pb};

pub use self::compact::Pace;
pub use self::hash::KvHash;
pub use self::load::Loaded;

/// Newest format this version reads and the one it writes.
const FORMAT: u32 = 1;

/// Keys of the `meta` column family.
mod meta {
    pub(super) const FORMAT: &[u8] = b"format";
    pub(super) const APPLIED: &[u8] = b"applied";
    pub(super) const MEMBERSHIP: &[u8] = b"membership";
    pub(super) const REVISION: &[u8] = b"revision";
    pub(super) const COMPACTED: &[u8] = b"compacted";
    pub(super) const SWEPT: &[u8] = b"swept";
    pub(super) const ALARMS: &[u8] = b"alarms";
    pub(super) const MEMBERS: &[u8] = b"members";
}

/// The state's database.
#[derive(Debug)]
pub struct StateDb {
    files: Arc<Files>,
    compactor: Compactor,
}

/// What the database's users share.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    db: DB,
}

impl Files {
    fn family(&self, name: &'static str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("every column family is opened with the database")
    }

    fn error(&self, op: &'static str, why: impl ToString) -> StorageError {
        StorageError::io(&self.dir, op, why)
    }

    fn corrupt(&self, what: impl Into<String>) -> StorageError {
        StorageError::corrupt(&self.dir, what, "these bytes were never written")
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db
            .write_opt(batch, &options)
            .map_err(|error| self.error("writing the state", error))
    }
}

impl StateDb {
    /// Opens the database below `root`, or creates it, and reads the present into memory.
    pub fn open(
        root: &Path,
        fail_stop: FailStop,
        pace: Pace,
        metrics: Sweeps,
    ) -> Result<(Self, Loaded), StorageError> {
        super::create_dir(root)?;
        let (dir, replaced) = checkpoint::current(root)?;
        let opened = Self::open_dir(&dir, fail_stop, pace, metrics)?;
        for old in &replaced {
            checkpoint::remove(old);
        }
        Ok(opened)
    }

    fn open_dir(
        dir: &Path,
        fail_stop: FailStop,
        pace: Pace,
        metrics: Sweeps,
    ) -> Result<(Self, Loaded), StorageError> {
        let db = DB::open_cf_descriptors(&options::database(), dir, options::families())
            .map_err(|error| StorageError::open(dir, &error))?;
        let files = Arc::new(Files {
            dir: dir.to_owned(),
            db,
        });
        let (loaded, swept) = load::load(&files)?;
        let compactor = Compactor::start(&files, swept, fail_stop, pace, metrics)?;
        let compacted = loaded.state.compacted();
        if compacted > swept {
            compactor.sweep_to(compacted);
        }
        Ok((Self { files, compactor }, loaded))
    }

    /// Writes what `changes` holds, as of log entry `applied`, in one batch.
    ///
    /// `state` is the state after them.
    pub fn commit(
        &self,
        state: &State,
        changes: &Changes,
        applied: LogId,
        membership: Option<&StoredMembership>,
    ) -> Result<(), StorageError> {
        let files = &*self.files;
        let meta = files.family(options::META);
        let mut batch = WriteBatch::with_capacity_bytes(batch_bytes(&changes.versions));
        self.add_versions(&mut batch, &changes.versions);
        let lease = files.family(options::LEASE);
        for (id, ttl) in &changes.leases {
            let key = id.get().to_be_bytes();
            match ttl {
                Some(ttl) => batch.put_cf(lease, key, ttl.to_le_bytes()),
                None => batch.delete_cf(lease, key),
            }
        }
        if !changes.versions.is_empty() {
            batch.put_cf(meta, meta::REVISION, number(state.revision()));
        }
        if let Some(compacted) = changes.compacted {
            batch.put_cf(meta, meta::COMPACTED, number(compacted));
        }
        if changes.alarms {
            batch.put_cf(meta, meta::ALARMS, alarms_record(state.alarms()));
        }
        if changes.members {
            batch.put_cf(meta, meta::MEMBERS, members_record(state.members()));
        }
        if let Some(membership) = membership {
            let record = stored_membership_to_pb(membership).encode_to_vec();
            batch.put_cf(meta, meta::MEMBERSHIP, record);
        }
        batch.put_cf(meta, meta::APPLIED, log_id_to_pb(applied).encode_to_vec());
        files.write(batch)?;
        if let Some(compacted) = changes.compacted {
            self.compactor.sweep_to(compacted);
        }
        Ok(())
    }

    fn add_versions(&self, batch: &mut WriteBatch, versions: &[Written]) {
        let (kv, rev) = (
            self.files.family(options::KV),
            self.files.family(options::REV),
        );
        // RocksDB copies what it is given, so the same memory does for all.
        let (mut key, mut record) = (Vec::new(), Vec::new());
        for written in versions {
            let event = &written.event;
            let at = (event.kv.mod_revision, written.sub);
            key.clear();
            record.clear();
            records::put_version_key(&mut key, &event.kv.key, at);
            records::put_version(&mut record, event);
            batch.put_cf(kv, &key, &record);
            record.clear();
            records::put_change(&mut record, written);
            batch.put_cf(rev, records::change_key(at), &record);
        }
    }

    /// Brings everything committed to disk. Blocks.
    pub fn flush(&self) -> Result<(), StorageError> {
        let files = &*self.files;
        let families = options::ALL.map(|name| files.family(name));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        files
            .db
            .flush_cfs_opt(&families, &options)
            .map_err(|error| files.error("flushing the state", error))
    }

    /// Rewrites all files, so that what was deleted gives its space back. Blocks.
    ///
    /// # Errors
    ///
    /// [`StorageError::NoSpace`] if the new files do not fit beside the old ones; nothing was done.
    pub fn defragment(&self) -> Result<(), StorageError> {
        space::require(&self.files.dir, self.defragment_bytes()?)?;
        let failed_before = self.background_errors();
        self.flush()?;
        for name in options::ALL {
            let family = self.files.family(name);
            self.files
                .db
                .compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
        // Compacting says nothing of how it went.
        if self.background_errors() > failed_before {
            let why = "RocksDB could not write the new files; its LOG says why";
            return Err(self.files.error("defragmenting", why));
        }
        Ok(())
    }

    /// Bytes of free disk space that a defragmentation needs.
    fn defragment_bytes(&self) -> Result<u64, StorageError> {
        // One family after the other is written anew, and its old files are deleted after that,
        // which gives nothing back while a copy has them too. How much of them is live is an
        // estimate; if it is too low, RocksDB fails half-way and takes no more writes.
        let sizes = options::ALL.map(|name| self.property(name, "rocksdb.live-sst-files-size"));
        let beside = if self.is_copied()? {
            sizes.into_iter().sum()
        } else {
            sizes.into_iter().max().unwrap_or(0)
        };
        Ok(beside + self.unflushed_bytes())
    }

    /// How often RocksDB has failed in the background.
    fn background_errors(&self) -> u64 {
        // One count for all families, kept with the default one.
        let count = self
            .files
            .db
            .property_int_value("rocksdb.background-errors");
        count.ok().flatten().unwrap_or(0)
    }

    /// Bytes on disk and waiting to be written to it.
    pub fn size_bytes(&self) -> u64 {
        self.sum(&[
            "rocksdb.live-sst-files-size",
            "rocksdb.cur-size-all-mem-tables",
        ])
    }

    /// Bytes of data that is not superseded or deleted, about.
    pub fn size_in_use_bytes(&self) -> u64 {
        self.sum(&[
            "rocksdb.estimate-live-data-size",
            "rocksdb.cur-size-all-mem-tables",
        ])
        .min(self.size_bytes())
    }

    /// Bytes that are in memory only.
    pub fn unflushed_bytes(&self) -> u64 {
        self.sum(&["rocksdb.cur-size-all-mem-tables"])
    }

    fn sum(&self, properties: &[&str]) -> u64 {
        options::ALL
            .iter()
            .flat_map(|name| properties.iter().map(move |property| (name, property)))
            .map(|(name, property)| self.property(name, property))
            .sum()
    }

    fn property(&self, family: &'static str, property: &str) -> u64 {
        let family = self.files.family(family);
        let value = self.files.db.property_int_value_cf(family, property);
        // A property that RocksDB does not know would be an error of ours, caught by a test.
        value.ok().flatten().unwrap_or(0)
    }

    /// Returns when what a compaction at `revision` dropped is gone from the database too.
    pub async fn wait_compacted(&self, revision: Revision) -> Result<(), StorageError> {
        self.compactor.wait(revision).await
    }
}

impl From<HistoryError> for StorageError {
    fn from(error: HistoryError) -> Self {
        Self::Io {
            dir: PathBuf::new(),
            op: "reading history",
            why: error.0,
        }
    }
}

/// About how large a batch with `versions` gets.
fn batch_bytes(versions: &[Written]) -> usize {
    /// Lengths, revisions and numbers of the two records of a version, and the key once more.
    const BESIDE: usize = 96;
    let bytes = |written: &Written| {
        let kv = &written.event.kv;
        2 * kv.key.len() + kv.value.len() + BESIDE
    };
    BESIDE + versions.iter().map(bytes).sum::<usize>()
}

fn number(revision: Revision) -> [u8; 8] {
    revision.get().to_le_bytes()
}

/// Alarms: member and kind, nine bytes each.
fn alarms_record(alarms: impl Iterator<Item = (MemberId, AlarmKind)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (member, kind) in alarms {
        bytes.extend_from_slice(&member.get().to_le_bytes());
        bytes.push(match kind {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
        });
    }
    bytes
}

/// Members: JSON, since it is small and rarely written.
fn members_record<'a>(members: impl Iterator<Item = (MemberId, &'a MemberInfo)>) -> Vec<u8> {
    let list: Vec<_> = members
        .map(|(id, info)| (id.get(), &info.name, &info.client_urls))
        .collect();
    serde_json::to_vec(&list).expect("numbers and strings are JSON")
}
