//! Checksums that are equal on all members, however far each has swept.
//!
//! Everything is read from one RocksDB snapshot, the revisions too: what is in memory may be one
//! step ahead of the database, and a compaction while the versions are read would let some vanish.

use gonfalon_core::{Error, Revision};
use rocksdb::{IteratorMode, ReadOptions, Snapshot};

use super::records::{VersionRecord, read_version, split_version_key};
use super::{Files, StateDb, load, meta, options};
use crate::storage::StorageError;

/// A checksum of the history, and of which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C.
    pub hash: u32,
    /// The history starts here (exclusive, but for what is still visible at it).
    pub compacted: Revision,
    /// The history ends here.
    pub revision: Revision,
}

impl StateDb {
    /// CRC-32C of every version that can be read up to revision `at` (the present one if none).
    /// Nothing can be read at one that is negative. Blocks.
    ///
    /// # Errors
    ///
    /// The inner one if the revision is compacted, or has not been written yet.
    pub fn hash_kv(&self, at: Option<Revision>) -> Result<Result<KvHash, Error>, StorageError> {
        let snapshot = self.files.db.snapshot();
        let (compacted, present) = revisions(&self.files, &snapshot)?;
        let revision = at.unwrap_or(present);
        if revision > present {
            return Ok(Err(Error::FutureRevision { current: present }));
        }
        // etcd refuses no negative revision here, and finds nothing at it.
        if revision < compacted && revision.get() > 0 {
            return Ok(Err(Error::Compacted { oldest: compacted }));
        }
        let hash = versions(&self.files, &snapshot, compacted, revision)?;
        Ok(Ok(KvHash {
            hash,
            compacted,
            revision,
        }))
    }

    /// CRC-32C of everything that is replicated: the history, leases, alarms, members. Blocks.
    pub fn hash(&self) -> Result<u32, StorageError> {
        let files = &*self.files;
        let snapshot = files.db.snapshot();
        let (compacted, present) = revisions(files, &snapshot)?;
        let mut crc = versions(files, &snapshot, compacted, present)?;
        let failed = |error: rocksdb::Error| files.error("reading the state", error);
        let lease = files.family(options::LEASE);
        for item in snapshot.iterator_cf(lease, IteratorMode::Start) {
            let (id, ttl) = item.map_err(failed)?;
            crc = crc32c::crc32c_append(crc, &id);
            crc = crc32c::crc32c_append(crc, &ttl);
        }
        let family = files.family(options::META);
        for key in [meta::ALARMS, meta::MEMBERS] {
            let record = snapshot.get_pinned_cf(family, key).map_err(failed)?;
            crc = crc32c::crc32c_append(crc, record.as_deref().unwrap_or_default());
        }
        Ok(crc)
    }
}

/// The revision of the last compaction (-1 if none), and the present one.
fn revisions(files: &Files, snapshot: &Snapshot<'_>) -> Result<(Revision, Revision), StorageError> {
    let family = files.family(options::META);
    let read = |key: &[u8]| {
        let bytes = snapshot
            .get_cf(family, key)
            .map_err(|error| files.error("reading the state", error))?;
        load::parse_revision(files, key, bytes)
    };
    let compacted = read(meta::COMPACTED)?.unwrap_or(Revision::new(-1));
    Ok((compacted, read(meta::REVISION)?.unwrap_or(Revision::FIRST)))
}

/// CRC-32C of every version that can be read at revisions `compacted..=at`.
fn versions(
    files: &Files,
    snapshot: &Snapshot<'_>,
    compacted: Revision,
    at: Revision,
) -> Result<u32, StorageError> {
    let mut read = ReadOptions::default();
    read.fill_cache(false);
    read.set_readahead_size(load::READAHEAD_BYTES);
    let mut versions = snapshot.raw_iterator_cf_opt(files.family(options::KV), read);
    versions.seek_to_first();
    let mut crc = 0;
    let mut last_prefix = Vec::new();
    // Whether the newest version at or below `compacted` of the present key was seen.
    let mut has_oldest = false;
    while let Some((encoded, record)) = versions.item() {
        let (prefix, version) =
            split_version_key(encoded).ok_or_else(|| files.corrupt("a version's key"))?;
        if prefix != last_prefix {
            last_prefix.clear();
            last_prefix.extend_from_slice(prefix);
            has_oldest = false;
        }
        let is_tombstone = match read_version(prefix, version, record) {
            Some(VersionRecord::Tombstone) => true,
            Some(VersionRecord::Put(_)) => false,
            None => return Err(files.corrupt("a version")),
        };
        // A deletion up to there may or may not have been swept: it is nothing in either case.
        let is_readable =
            version.0 > compacted || (!std::mem::replace(&mut has_oldest, true) && !is_tombstone);
        if is_readable && version.0 <= at {
            crc = crc32c::crc32c_append(crc, encoded);
            crc = crc32c::crc32c_append(crc, record);
        }
        versions.next();
    }
    versions
        .status()
        .map_err(|error| files.error("reading the state", error))?;
    Ok(crc)
}
