//! Raft's log on disk: openraft's own suite, and what crashes and damaged disks leave behind.
#![allow(clippy::unwrap_used, reason = "what cannot go on fails its test here")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use gonfalon_proto::peer as pb;
use gonfalon_server::metrics::{Metrics, Wal};
use gonfalon_server::raft::{
    Entry, LogId, Payload, StoredMembership, TypeConfig, Vote, log_id_from_pb, vote_from_pb,
};
use gonfalon_server::storage::log::READ_BYTES_MAX;
use gonfalon_server::storage::{Durability, FailStop, LogStore, StorageError};
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, RaftLogReader, RaftSnapshotBuilder};
use tempfile::TempDir;

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, ()>;

/// The least that the suite needs beside the log: what was applied last, and the membership.
#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
    shared: Option<Arc<std::sync::Mutex<Option<SnapshotMeta>>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Applied {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> std::io::Result<Snapshot> {
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
        };
        if let Some(shared) = &self.shared {
            *shared.lock().unwrap() = Some(meta.clone());
        }
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Applied {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> std::io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> std::io::Result<()>
    where
        S: futures::Stream<Item = std::io::Result<EntryResponder<TypeConfig>>>
            + Unpin
            + OptionalSend,
    {
        while let Some((entry, _)) = entries.try_next().await? {
            self.last = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(self.last, membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        let shared = self.shared.get_or_insert_default().clone();
        Self {
            shared: Some(shared),
            ..self.clone()
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> std::io::Result<()> {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> std::io::Result<Option<Snapshot>> {
        let built = self
            .shared
            .as_ref()
            .and_then(|shared| shared.lock().unwrap().clone());
        Ok(built
            .or(self.snapshot.clone())
            .map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Applied, TempDir> for Stores {
    async fn build(
        &self,
    ) -> Result<(TempDir, LogStore, Applied), openraft::StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path()).unwrap();
        Ok((dir, log, Applied::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_for_log_stores_passes() {
    Suite::test_all(Stores).await.unwrap();
}

fn open(dir: &Path) -> Result<LogStore, StorageError> {
    LogStore::open(dir, FailStop::new(), Durability::Disk, measured())
}

fn measured() -> Wal {
    Metrics::default().disk.wal
}

fn id(index: u64) -> LogId {
    log_id_from_pb(pb::LogId { term: 1, index })
}

fn vote(term: u64) -> Vote {
    vote_from_pb(pb::Vote {
        term,
        candidate: 7,
        committed: false,
    })
}

fn entry(index: u64, bytes: usize) -> Entry {
    let fill = u8::try_from(index % 251).unwrap();
    let payload = EntryPayload::Normal(Payload(Bytes::from(vec![fill; bytes])));
    Entry {
        log_id: id(index),
        payload,
    }
}

/// Appends and waits for the disk.
async fn append(log: &mut LogStore, entries: Vec<Entry>) -> std::io::Result<()> {
    let (sender, receiver) = <TypeConfig as openraft::type_config::TypeConfigExt>::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await?;
    receiver.await.expect("every append is answered")
}

/// Appends entries one by one, each with an fsync of its own.
async fn append_each(log: &mut LogStore, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        append(log, vec![entry(index, 100)]).await.unwrap();
    }
}

async fn indexes(log: &mut LogStore) -> Vec<u64> {
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries.iter().map(|entry| entry.log_id.index).collect()
}

/// A copy of the files as they are now: what a `kill -9` would leave behind.
fn crash_image(dir: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), image.path().join(file.file_name())).unwrap();
    }
    image
}

/// The write-ahead log that was written last.
fn newest_wal(dir: &Path) -> PathBuf {
    let wals = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path());
    wals.filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .expect("an open log has a write-ahead log")
}

/// Where the bytes of entry `index` are in the write-ahead log.
fn position_of(wal: &[u8], index: u64) -> usize {
    let needle = vec![u8::try_from(index % 251).unwrap(); 100];
    wal.windows(needle.len())
        .position(|bytes| bytes == needle)
        .expect("the entry is in the file")
}

#[tokio::test]
async fn what_was_appended_and_voted_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append_each(&mut log, 1..=50).await;
    log.save_vote(&vote(3)).await.unwrap();
    let image = crash_image(dir.path());
    let mut killed = open(image.path()).unwrap();
    assert_eq!(indexes(&mut killed).await, (1..=50).collect::<Vec<_>>());
    assert_eq!(killed.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(killed.last_log_id(), Some(id(50)));
}

#[tokio::test]
async fn truncated_and_purged_entries_stay_gone_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append_each(&mut log, 1..=20).await;
    log.truncate_after(Some(id(15))).await.unwrap();
    log.purge(id(5)).await.unwrap();
    append_each(&mut log, 16..=17).await;
    let want: Vec<u64> = (6..=17).collect();
    assert_eq!(indexes(&mut log).await, want);
    drop(log);
    let mut log = open(dir.path()).unwrap();
    assert_eq!(indexes(&mut log).await, want, "read from disk");
    assert_eq!(
        (log.purged_log_id(), log.last_log_id()),
        (Some(id(5)), Some(id(17)))
    );
}

#[tokio::test]
async fn the_commit_index_is_never_above_the_last_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append_each(&mut log, 1..=5).await;
    log.save_committed(Some(id(4))).await.unwrap();
    drop(log);
    let mut log = open(dir.path()).unwrap();
    assert_eq!(
        log.read_committed().await.unwrap(),
        Some(id(4)),
        "saved without anybody waiting"
    );
    log.save_committed(Some(id(5))).await.unwrap();
    log.truncate_after(Some(id(4))).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(id(4)));
}

#[tokio::test]
async fn a_read_for_a_peer_is_bounded_by_bytes_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append(
        &mut log,
        (1..=30).map(|index| entry(index, 100_000)).collect(),
    )
    .await
    .unwrap();
    append(&mut log, vec![entry(31, 3 * READ_BYTES_MAX), entry(32, 1)])
        .await
        .unwrap();
    drop(log);
    // From disk, then, with the same entries appended behind them, from memory.
    let mut log = open(dir.path()).unwrap();
    for _ in 0..2 {
        let first = log.limited_get_log_entries(1, 33).await.unwrap();
        assert_eq!(first.len(), 10, "ten entries of 100 kB fit into 1 MiB");
        let alone = log.limited_get_log_entries(31, 33).await.unwrap();
        assert_eq!(alone.len(), 1, "one entry above the bound comes alone");
        let streamed: Vec<Entry> = log
            .entries_stream(1..=32)
            .await
            .try_collect()
            .await
            .unwrap();
        assert_eq!(streamed.len(), 32, "a stream reads on until the end");
        assert_eq!(streamed[30], entry(31, 3 * READ_BYTES_MAX));
        log.truncate_after(None).await.unwrap();
        append(
            &mut log,
            (1..=30).map(|index| entry(index, 100_000)).collect(),
        )
        .await
        .unwrap();
        append(&mut log, vec![entry(31, 3 * READ_BYTES_MAX), entry(32, 1)])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    let old_mark = std::fs::read(dir.path().join("SYNCED")).unwrap();
    append_each(&mut log, 1..=100).await;
    let image = crash_image(dir.path());
    // The mark may be a second old: then the last entry is younger than it.
    std::fs::write(image.path().join("SYNCED"), old_mark).unwrap();
    let wal = newest_wal(image.path());
    let bytes = std::fs::read(&wal).unwrap();
    std::fs::write(&wal, &bytes[..position_of(&bytes, 100) + 50]).unwrap();
    let mut torn = open(image.path()).unwrap();
    assert_eq!(indexes(&mut torn).await, (1..=99).collect::<Vec<_>>());
    append_each(&mut torn, 100..=101).await;
}

#[tokio::test]
async fn one_flipped_bit_in_the_middle_refuses_to_open_today_and_tomorrow() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append_each(&mut log, 1..=200).await;
    let image = crash_image(dir.path());
    let wal = newest_wal(image.path());
    let mut bytes = std::fs::read(&wal).unwrap();
    let at = position_of(&bytes, 90) + 50;
    bytes[at] ^= 1;
    std::fs::write(&wal, &bytes).unwrap();
    for attempt in ["first", "second"] {
        let error = open(image.path()).map(drop).unwrap_err();
        let StorageError::Lost {
            synced, recovered, ..
        } = &error
        else {
            panic!("{attempt} attempt: {error}");
        };
        assert!(recovered < synced, "{attempt} attempt: {error}");
        let text = error.to_string();
        assert!(
            text.contains(image.path().to_str().unwrap()),
            "names the directory: {text}"
        );
        assert!(text.contains("Put back a copy"), "says what to do: {text}");
    }
}

#[tokio::test]
async fn a_deleted_write_ahead_log_refuses_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append_each(&mut log, 1..=10).await;
    // Closing raises the mark.
    drop(log);
    std::fs::remove_file(newest_wal(dir.path())).unwrap();
    let error = open(dir.path()).map(drop).unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::Lost { .. } | StorageError::Corrupt { .. }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_deleted_database_or_mark_refuses_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append_each(&mut log, 1..=10).await;
    drop(log);
    let image = crash_image(dir.path());
    std::fs::remove_file(image.path().join("SYNCED")).unwrap();
    let error = open(image.path()).map(drop).unwrap_err();
    assert!(
        matches!(error, StorageError::Corrupt { .. }),
        "without the mark: {error}"
    );
    let mark = std::fs::read(dir.path().join("SYNCED")).unwrap();
    let empty = tempfile::tempdir().unwrap();
    std::fs::write(empty.path().join("SYNCED"), mark).unwrap();
    let error = open(empty.path()).map(drop).unwrap_err();
    assert!(
        matches!(error, StorageError::Lost { .. }),
        "without the database: {error}"
    );
}

#[tokio::test]
async fn a_damaged_entry_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path()).unwrap();
    append_each(&mut log, 1..=3).await;
    drop(log);
    // What RocksDB's own checksums cannot see: bytes that were already wrong when it got them.
    let db = rocksdb::DB::open_cf(
        &rocksdb::Options::default(),
        dir.path(),
        ["default", "log", "meta"],
    )
    .unwrap();
    let family = db.cf_handle("log").unwrap();
    let key = 2u64.to_be_bytes();
    let mut value = db.get_cf(family, key).unwrap().unwrap();
    value[30] ^= 1;
    db.put_cf(family, key, value).unwrap();
    drop(db);
    let mut log = open(dir.path()).unwrap();
    let error = log
        .try_get_log_entries(1..=3)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("checksum does not match"), "{error}");
}

#[tokio::test]
async fn opening_twice_says_that_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(dir.path()).unwrap();
    let error = open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, StorageError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_failed_fsync_fails_everything_after_it_and_raises_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let fail_stop = FailStop::new();
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = broken.clone();
    let fault = Box::new(move || {
        if is_broken.swap(false, Ordering::Relaxed) {
            return Err(std::io::Error::other("injected"));
        }
        Ok(())
    });
    let mut log = LogStore::open_with_fault(
        dir.path(),
        fail_stop.clone(),
        Durability::Disk,
        fault,
        measured(),
    )
    .unwrap();
    append_each(&mut log, 1..=3).await;
    assert!(fail_stop.error().is_none());
    broken.store(true, Ordering::Relaxed);
    let error = append(&mut log, vec![entry(4, 10)])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("injected"), "{error}");
    // The disk is well again, but nobody knows what happened to entry 4.
    let later = append(&mut log, vec![entry(5, 10)])
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(later, error, "never tried again");
    let vote_error = log.save_vote(&vote(9)).await.unwrap_err().to_string();
    assert_eq!(vote_error, error);
    assert_eq!(fail_stop.raised().await.to_string(), error);
}

#[tokio::test]
async fn many_appends_share_an_fsync_and_are_told_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let counted = measured();
    let mut log = LogStore::open(
        dir.path(),
        FailStop::new(),
        Durability::Disk,
        counted.clone(),
    )
    .unwrap();
    let mut waiting = Vec::new();
    for index in 1..=500 {
        let (sender, receiver) = <TypeConfig as openraft::type_config::TypeConfigExt>::oneshot();
        log.append([entry(index, 100)], IOFlushed::signal(sender))
            .await
            .unwrap();
        let read = log.try_get_log_entries(index..=index).await.unwrap();
        assert_eq!(read, [entry(index, 100)], "readable before it is on disk");
        waiting.push(receiver);
    }
    for receiver in waiting {
        receiver.await.unwrap().unwrap();
    }
    let fsyncs = counted.fsync_seconds.get_sample_count();
    assert!(fsyncs < 500, "{fsyncs} fsyncs for 500 appends");
    assert_eq!(counted.write_seconds.get_sample_count(), 500);
    let bytes = counted.write_bytes.get();
    assert!(bytes > 500 * 100, "{bytes} bytes for 500 appends of 100");
}

#[tokio::test]
async fn without_fsync_nothing_waits_for_the_disk_and_the_process_may_end() {
    let dir = tempfile::tempdir().unwrap();
    let (fail_stop, counted) = (FailStop::new(), measured());
    let fault = Box::new(|| Err(std::io::Error::other("nobody asks the disk")));
    let mut log = LogStore::open_with_fault(
        dir.path(),
        fail_stop.clone(),
        Durability::System,
        fault,
        counted.clone(),
    )
    .unwrap();
    append_each(&mut log, 1..=10).await;
    log.save_vote(&vote(3)).await.unwrap();
    assert_eq!(counted.fsync_seconds.get_sample_count(), 0);
    assert!(fail_stop.error().is_none());
    // What the operating system has is there for another process while this one still runs.
    let copy = crash_image(dir.path());
    let copied = open(copy.path()).unwrap();
    assert_eq!(
        (copied.last_log_id(), copied.vote()),
        (Some(id(10)), Some(vote(3)))
    );
    drop(log);
    let log = open(dir.path()).unwrap();
    assert_eq!(log.last_log_id(), Some(id(10)));
}
