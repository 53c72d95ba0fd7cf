//! Opening the log: what was on disk is proven to be there, or the store does not open.

use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use gonfalon_proto::peer as pb;
use prost::Message;
use rocksdb::{DB, IteratorMode, WriteBatch};
use tokio::sync::Semaphore;

use super::mark::Mark;
use super::recent::Recent;
use super::records::{self, COMMITTED, FORMAT, FORMAT_KEY, PURGED, VOTE, WITNESS};
use super::sync::{Durability, SyncFault, SyncState, SyncThread};
use super::witness::{self, Witness};
use super::{APPENDS_WAITING_MAX, Closer, LogStore, RECENT_BYTES_MAX, Shared, View, options};
use crate::metrics::Wal;
use crate::raft::{LogId, log_id_from_pb, vote_from_pb};
use crate::storage::{FailStop, StorageError, create_dir};

/// Present in every RocksDB directory that was completely created.
const ROCKSDB_CURRENT: &str = "CURRENT";

pub(super) fn open(
    dir: &Path,
    fail_stop: FailStop,
    durability: Durability,
    fault: Option<SyncFault>,
    metrics: Wal,
) -> Result<LogStore, StorageError> {
    create_dir(dir)?;
    let mark = prove(dir)?;
    let db = DB::open_cf_descriptors(&options::database(), dir, options::families())
        .map_err(|error| StorageError::open(dir, &error))?;
    let sequence = recovered(&db, dir, &mark)?;
    let sequence = if sequence == 0 {
        found(&db, dir, &mark)?
    } else {
        sequence
    };
    let view = read_view(&db, dir)?;

    let db = Arc::new(db);
    let sync = Arc::new(SyncState::new(sequence, metrics));
    let store = mark.store();
    let thread = SyncThread {
        db: db.clone(),
        state: sync.clone(),
        mark,
        fail_stop: fail_stop.clone(),
        durability,
        fault,
        dir: dir.to_owned(),
    };
    let thread = std::thread::Builder::new()
        .name("log-sync".to_owned())
        .spawn(move || thread.run())
        .map_err(|error| StorageError::io(dir, "starting the sync thread", error))?;
    let shared = Shared {
        dir: dir.to_owned(),
        db,
        store,
        writer: Mutex::new(()),
        view: RwLock::new(view),
        sync: sync.clone(),
        waiting: Arc::new(Semaphore::new(APPENDS_WAITING_MAX)),
        fail_stop,
    };
    let closer = Closer {
        sync,
        thread: Some(thread),
    };
    Ok(LogStore {
        shared: Arc::new(shared),
        _closer: Arc::new(closer),
    })
}

/// Opens the mark, or creates it with a new store, and raises it to what the write-ahead log itself
/// says was on disk.
///
/// Raised before RocksDB opens the files, because that drops whatever it could not read: a second
/// attempt would find no trace of what is missing.
fn prove(dir: &Path) -> Result<Mark, StorageError> {
    let has_database = dir.join(ROCKSDB_CURRENT).exists();
    let mut mark = match Mark::open(dir)? {
        Some(mark) => mark,
        None if has_database => {
            let why = "it is written before the first entry, so it was deleted";
            return Err(StorageError::corrupt(
                dir,
                "the high-water mark is missing",
                why,
            ));
        }
        None => Mark::create(dir, rand::random())?,
    };
    if !has_database && mark.sequence() > 0 {
        let why = "the database is gone".to_owned();
        return Err(lost(dir, mark.sequence(), 0, why));
    }
    let witnessed = witness::scan(dir, mark.store())?;
    mark.raise(witnessed)?;
    Ok(mark)
}

/// The last batch that RocksDB has recovered, if that is all that the mark asks for.
fn recovered(db: &DB, dir: &Path, mark: &Mark) -> Result<u64, StorageError> {
    let bytes = meta(db, dir, WITNESS)?;
    let witness = match bytes {
        None => None,
        Some(bytes) => {
            let witness = Witness::decode(&bytes);
            let why = "its checksum does not match";
            Some(witness.ok_or_else(|| StorageError::corrupt(dir, "the log's witness", why))?)
        }
    };
    if let Some(other) = witness.filter(|witness| witness.store != mark.store()) {
        let why = format!(
            "store {:x} with the mark of {:x}",
            other.store,
            mark.store()
        );
        return Err(StorageError::corrupt(
            dir,
            "files of two logs are mixed",
            why,
        ));
    }
    let sequence = witness.map_or(0, |witness| witness.sequence);
    if sequence < mark.sequence() {
        let why = "the write-ahead log is damaged, cut off or deleted".to_owned();
        return Err(lost(dir, mark.sequence(), sequence, why));
    }
    Ok(sequence)
}

/// Writes the first batch of a new store, and waits until it is on disk.
fn found(db: &DB, dir: &Path, mark: &Mark) -> Result<u64, StorageError> {
    let io = |error: rocksdb::Error| StorageError::io(dir, "creating the log", error);
    let family = db
        .cf_handle(options::META)
        .expect("opened with the database");
    let witness = Witness {
        store: mark.store(),
        sequence: 1,
        synced: 0,
    };
    let mut batch = WriteBatch::default();
    batch.put_cf(family, FORMAT_KEY, FORMAT.to_be_bytes());
    batch.put_cf(family, WITNESS, witness.encode());
    db.write(batch).map_err(io)?;
    db.flush_wal(true).map_err(io)?;
    Ok(witness.sequence)
}

/// What the log holds.
fn read_view(db: &DB, dir: &Path) -> Result<View, StorageError> {
    check_format(db, dir)?;
    let vote: Option<pb::Vote> = message(db, dir, VOTE)?;
    let committed: Option<pb::LogId> = message(db, dir, COMMITTED)?;
    let purged: Option<pb::LogId> = message(db, dir, PURGED)?;
    let purged = purged.map(log_id_from_pb);
    let first = end_of_log(db, dir, IteratorMode::Start)?;
    let last = end_of_log(db, dir, IteratorMode::End)?;
    if let (Some(purged), Some(first)) = (purged, first)
        && first.index != purged.index + 1
    {
        let why = format!("the first entry is {first}, but everything up to {purged} is purged");
        return Err(StorageError::corrupt(dir, "entries are missing", why));
    }
    Ok(View {
        vote: vote.map(vote_from_pb),
        committed: committed.map(log_id_from_pb),
        purged,
        first: first.map_or(0, |first| first.index),
        last: last.max(purged),
        recent: Recent::new(RECENT_BYTES_MAX),
    })
}

fn check_format(db: &DB, dir: &Path) -> Result<(), StorageError> {
    let bytes = meta(db, dir, FORMAT_KEY)?.unwrap_or_default();
    let found = <[u8; 4]>::try_from(bytes.as_slice())
        .map(u32::from_be_bytes)
        .map_err(|_| StorageError::corrupt(dir, "the log's format", "it is not a number"))?;
    if found > FORMAT {
        return Err(StorageError::TooNew {
            dir: dir.to_owned(),
            found,
            known: FORMAT,
        });
    }
    Ok(())
}

/// The entry at one end of the log.
fn end_of_log(db: &DB, dir: &Path, end: IteratorMode<'_>) -> Result<Option<LogId>, StorageError> {
    let family = db
        .cf_handle(options::LOG)
        .expect("opened with the database");
    let Some(item) = db.iterator_cf(family, end).next() else {
        return Ok(None);
    };
    let (key, value) = item.map_err(|error| StorageError::io(dir, "reading the log", error))?;
    records::decode_entry(&key, &value)
        .map(|entry| Some(entry.log_id))
        .map_err(|why| StorageError::corrupt(dir, format!("log entry {key:?}"), why))
}

fn message<M: Message + Default>(
    db: &DB,
    dir: &Path,
    key: &[u8],
) -> Result<Option<M>, StorageError> {
    let what = || format!("the log's {}", String::from_utf8_lossy(key));
    meta(db, dir, key)?
        .map(|value| records::open(key, &value))
        .transpose()
        .map_err(|why| StorageError::corrupt(dir, what(), why))
}

fn meta(db: &DB, dir: &Path, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
    let family = db
        .cf_handle(options::META)
        .expect("opened with the database");
    db.get_cf(family, key)
        .map_err(|error| StorageError::io(dir, "reading the log", error))
}

fn lost(dir: &Path, synced: u64, recovered: u64, why: String) -> StorageError {
    StorageError::Lost {
        dir: dir.to_owned(),
        synced,
        recovered,
        why,
    }
}
