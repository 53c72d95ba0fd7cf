//! Checksums that are equal on all members, however far each has swept.

use gonfalon_core::Revision;
use rocksdb::{IteratorMode, ReadOptions};

use super::records::{VersionRecord, read_version, split_version_key};
use super::{StateDb, options};
use crate::storage::StorageError;

impl StateDb {
    /// CRC-32C of every version that can be read at revisions `compacted..=at`. Blocks.
    pub fn hash_kv(&self, compacted: Revision, at: Revision) -> Result<u32, StorageError> {
        let files = &*self.files;
        let snapshot = files.db.snapshot();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut versions = snapshot.raw_iterator_cf_opt(files.family(options::KV), options);
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
            let is_kept = if version.0 > compacted {
                version.0 <= at
            } else {
                // A deletion here may or may not have been swept: it is nothing in either case.
                !std::mem::replace(&mut has_oldest, true) && !is_tombstone
            };
            if is_kept {
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

    /// CRC-32C of everything else that is replicated: leases, alarms, members. Blocks.
    pub fn hash_rest(&self) -> Result<u32, StorageError> {
        let files = &*self.files;
        let failed = |error: rocksdb::Error| files.error("reading the state", error);
        let mut crc = 0;
        let lease = files.family(options::LEASE);
        for item in files.db.iterator_cf(lease, IteratorMode::Start) {
            let (id, ttl) = item.map_err(failed)?;
            crc = crc32c::crc32c_append(crc, &id);
            crc = crc32c::crc32c_append(crc, &ttl);
        }
        let meta = files.family(options::META);
        for key in [super::meta::ALARMS, super::meta::MEMBERS] {
            let record = files.db.get_pinned_cf(meta, key).map_err(failed)?;
            crc = crc32c::crc32c_append(crc, record.as_deref().unwrap_or_default());
        }
        Ok(crc)
    }
}
