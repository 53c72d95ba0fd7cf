//! Reading the present into memory when a database is opened.

use gonfalon_core::command::AlarmKind;
use gonfalon_core::{LeaseId, LoadError, Loader, MemberId, MemberInfo, Revision, State};
use gonfalon_proto::peer as pb;
use prost::Message;
use rocksdb::{DB, IteratorMode, ReadOptions};

use super::records::{VersionRecord, read_version, split_version_key, unescape};
use super::{FORMAT, Files, meta, options};
use crate::raft::{LogId, StoredMembership, log_id_from_pb, stored_membership_from_pb};
use crate::storage::StorageError;

/// What a database held when it was opened.
#[derive(Debug)]
pub struct Loaded {
    /// The present.
    pub state: State,
    /// The last log entry in it.
    pub applied: Option<LogId>,
    /// The membership in force at that entry.
    pub membership: StoredMembership,
}

/// Reads ahead this much while all keys are scanned.
pub(super) const READAHEAD_BYTES: usize = 2 << 20;

/// The present, and the revision up to which history was swept.
pub(super) fn load(files: &Files) -> Result<(Loaded, Revision), StorageError> {
    check_format(files)?;
    let mut loader = State::loader();
    let revision = revision(files, meta::REVISION)?.unwrap_or(Revision::FIRST);
    loader.revision(revision, self::revision(files, meta::COMPACTED)?);
    load_small(files, &mut loader)?;
    load_versions(files, &mut loader)?;
    let state = loader.finish().map_err(|error| damaged(files, &error))?;
    let (applied, membership) = applied(&files.db, files)?;
    let swept = self::revision(files, meta::SWEPT)?.unwrap_or_default();
    let loaded = Loaded {
        state,
        applied,
        membership,
    };
    Ok((loaded, swept))
}

fn damaged(files: &Files, error: &LoadError) -> StorageError {
    StorageError::corrupt(&files.dir, "the state", error)
}

fn check_format(files: &Files) -> Result<(), StorageError> {
    match get(files, meta::FORMAT)? {
        None => {
            let mut batch = rocksdb::WriteBatch::default();
            batch.put_cf(
                files.family(options::META),
                meta::FORMAT,
                FORMAT.to_le_bytes(),
            );
            files.write(batch)
        }
        Some(bytes) => {
            let bytes: [u8; 4] = bytes.try_into().map_err(|_| files.corrupt("the format"))?;
            let found = u32::from_le_bytes(bytes);
            if found > FORMAT {
                return Err(StorageError::TooNew {
                    dir: files.dir.clone(),
                    found,
                    known: FORMAT,
                });
            }
            Ok(())
        }
    }
}

fn get(files: &Files, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
    files
        .db
        .get_cf(files.family(options::META), key)
        .map_err(|error| files.error("reading the state", error))
}

fn revision(files: &Files, key: &[u8]) -> Result<Option<Revision>, StorageError> {
    parse_revision(files, key, get(files, key)?)
}

/// Reads what was stored under `key` as a revision.
pub(super) fn parse_revision(
    files: &Files,
    key: &[u8],
    bytes: Option<Vec<u8>>,
) -> Result<Option<Revision>, StorageError> {
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let bytes: [u8; 8] = bytes
        .try_into()
        .map_err(|_| files.corrupt(String::from_utf8_lossy(key)))?;
    Ok(Some(Revision::new(i64::from_le_bytes(bytes))))
}

/// The applied log id and the membership in `db`, which may be another one than that of `files`.
pub(super) fn applied(
    db: &DB,
    files: &Files,
) -> Result<(Option<LogId>, StoredMembership), StorageError> {
    let family = db
        .cf_handle(options::META)
        .expect("every column family is opened with the database");
    let get = |key| {
        db.get_pinned_cf(family, key)
            .map_err(|error| files.error("reading the state", error))
    };
    let applied = match get(meta::APPLIED)? {
        Some(bytes) => Some(log_id_from_pb(
            pb::LogId::decode(&*bytes).map_err(|_| files.corrupt("the applied log id"))?,
        )),
        None => None,
    };
    let membership = match get(meta::MEMBERSHIP)? {
        Some(bytes) => pb::StoredMembership::decode(&*bytes)
            .ok()
            .and_then(|message| stored_membership_from_pb(message).ok())
            .ok_or_else(|| files.corrupt("the membership"))?,
        None => StoredMembership::default(),
    };
    Ok((applied, membership))
}

fn load_small(files: &Files, loader: &mut Loader) -> Result<(), StorageError> {
    for item in files
        .db
        .iterator_cf(files.family(options::LEASE), IteratorMode::Start)
    {
        let (id, ttl) = item.map_err(|error| files.error("reading leases", error))?;
        let lease = <[u8; 8]>::try_from(&*id)
            .ok()
            .zip(<[u8; 8]>::try_from(&*ttl).ok());
        let (id, ttl) = lease.ok_or_else(|| files.corrupt("a lease"))?;
        loader
            .lease(
                LeaseId::new(i64::from_be_bytes(id)),
                i64::from_le_bytes(ttl),
            )
            .map_err(|error| damaged(files, &error))?;
    }
    for record in get(files, meta::ALARMS)?.unwrap_or_default().chunks(9) {
        let (member, kind) = record
            .split_first_chunk::<8>()
            .ok_or_else(|| files.corrupt("an alarm"))?;
        let kind = match kind {
            [1] => AlarmKind::NoSpace,
            [2] => AlarmKind::Corrupt,
            _ => return Err(files.corrupt("an alarm")),
        };
        loader.alarm(MemberId::new(u64::from_le_bytes(*member)), kind);
    }
    if let Some(record) = get(files, meta::MEMBERS)? {
        let members: Vec<(u64, String, Vec<String>)> = serde_json::from_slice(&record)
            .map_err(|error| StorageError::corrupt(&files.dir, "members", error))?;
        for (id, name, client_urls) in members {
            loader.member(MemberId::new(id), MemberInfo { name, client_urls });
        }
    }
    Ok(())
}

/// Gives `loader` the newest version of each key.
fn load_versions(files: &Files, loader: &mut Loader) -> Result<(), StorageError> {
    let mut options = ReadOptions::default();
    options.set_readahead_size(READAHEAD_BYTES);
    options.fill_cache(false);
    let mut versions = files
        .db
        .raw_iterator_cf_opt(files.family(options::KV), options);
    versions.seek_to_first();
    let mut key = Vec::new();
    let mut last_prefix = Vec::new();
    while let Some((encoded, record)) = versions.item() {
        let (prefix, at) =
            split_version_key(encoded).ok_or_else(|| files.corrupt("a version's key"))?;
        if prefix != last_prefix {
            last_prefix.clear();
            last_prefix.extend_from_slice(prefix);
            if !unescape(prefix, &mut key) {
                return Err(files.corrupt("a version's key"));
            }
            let loaded = match read_version(&key, at, record) {
                Some(VersionRecord::Put(version)) => loader.version(&version),
                Some(VersionRecord::Tombstone) => loader.tombstone(&key, at.0, at.1),
                None => return Err(files.corrupt("a version")),
            };
            loaded.map_err(|error| damaged(files, &error))?;
        }
        versions.next();
    }
    versions
        .status()
        .map_err(|error| files.error("reading the state", error))
}
