//! What other threads see of a store meanwhile.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gonfalon_core::command::{DeleteRange, Put};
use gonfalon_core::{KeyRange, MemberId};
use gonfalon_proto::peer as pb;
use tempfile::TempDir;

use super::*;
use crate::raft::log_id_from_pb;

/// Longer than opening a small database takes, even on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

impl Store {
    /// An empty one.
    pub(crate) fn open_for_test(dir: &TempDir) -> Self {
        let (root, outgoing) = (dir.path().join("state"), dir.path().join("outgoing"));
        let metrics = Arc::new(Metrics::default());
        Self::open(&root, outgoing, FailStop::new(), Pace::default(), metrics).unwrap()
    }

    /// Runs `work` while nobody can read.
    pub(crate) fn while_locked(&self, work: impl FnOnce()) {
        self.long(|| {
            let _local = self.local.write().unwrap();
            work();
        });
    }
}

fn put(store: &Store, index: u64) {
    apply(store, index, put_of("key".to_owned()));
}

fn put_of(key: String) -> Command {
    Command::Put(Put {
        key: key.into(),
        value: Bytes::from_static(b"value"),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn apply(store: &Store, index: u64, command: Command) {
    let batch = Batch {
        origin: MemberId::new(1),
        sequence: index,
        commands: vec![command],
    };
    let last = log_id_from_pb(pb::LogId { term: 1, index });
    store.apply(&[batch], last, None, |_| ()).unwrap();
}

/// A copy in `dir` of a store with five writes.
fn copy_of_five(dir: &TempDir) -> SnapshotDir {
    let source = Store::open_for_test(dir);
    (1..=5).for_each(|index| put(&source, index));
    source.checkpoint().unwrap().2
}

/// A runtime with one thread for what blocks, and that thread is busy until the sender is dropped.
fn busy_runtime() -> (tokio::runtime::Runtime, mpsc::Sender<()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build();
    let runtime = runtime.unwrap();
    let (release, busy) = mpsc::channel::<()>();
    runtime.spawn_blocking(move || busy.recv().unwrap_err());
    (runtime, release)
}

#[test]
fn a_copy_for_a_client_is_not_deleted_by_whoever_drops_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_for_test(&dir);
    let idle = tokio::runtime::Runtime::new().unwrap();
    let backup = idle.block_on(store.backup()).unwrap();
    let copy = dir.path().join("outgoing/0");
    assert!(copy.is_dir());

    let (runtime, release) = busy_runtime();
    runtime.block_on(async { drop(backup) });
    assert!(copy.is_dir(), "a thread that serves has deleted it");
    drop(release);
    let start = Instant::now();
    let is_over = || store.backups.available_permits() == BACKUPS_MAX;
    while !is_over() && start.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    assert!(is_over(), "its turn does not end");
    assert!(!copy.exists(), "nobody has deleted it");
}

#[test]
fn an_old_database_that_cannot_be_deleted_does_not_undo_an_install() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_for_test(&dir);
    let copy = copy_of_five(&other);
    // What is open stays so, wherever it is; and a file is no directory that could be deleted.
    let old = dir.path().join("state/1");
    std::fs::rename(&old, dir.path().join("elsewhere")).unwrap();
    std::fs::write(&old, "").unwrap();
    store.install(copy.path()).unwrap();
    assert!(old.exists(), "it was deleted: this proves nothing");
    assert_eq!(store.read(|state, _| state.revision()), Revision::new(6));
    put(&store, 6);
}

#[test]
fn a_snapshot_is_opened_while_others_read() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_for_test(&dir);
    let copy = copy_of_five(&other);
    let opened = dir.path().join("state/2/LOCK");
    let (reading, is_reading) = mpsc::channel();
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            store.read(|state, _| {
                reading.send(()).unwrap();
                let start = Instant::now();
                while !opened.exists() && start.elapsed() < PATIENCE {
                    std::thread::yield_now();
                }
                (opened.exists(), state.revision())
            })
        });
        is_reading.recv().unwrap();
        store.install(copy.path()).unwrap();
        let (was_opened, revision) = reader.join().unwrap();
        assert!(was_opened, "opening waits for a reader, and readers for it");
        assert_eq!(revision, Revision::new(1), "a read sees one state");
    });
    assert_eq!(store.read(|state, _| state.revision()), Revision::new(6));
    assert!(
        !dir.path().join("state/1").exists(),
        "the old one is deleted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_waits_long_for_the_state_leaves_his_thread_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open_for_test(&dir));
    let (release, released) = mpsc::channel::<()>();
    let (lock, is_locked) = mpsc::channel();
    let locked = store.clone();
    let holder = std::thread::spawn(move || {
        locked.while_locked(|| {
            lock.send(()).unwrap();
            // Ends when the sender is dropped, and in any case.
            let _ = released.recv_timeout(PATIENCE);
        });
    });
    is_locked.recv().unwrap();
    let (begin, has_begun) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        begin.send(()).expect("somebody waits for it");
        store.read(|state, _| state.revision())
    });
    has_begun.await.unwrap();
    let other = tokio::spawn(async { "has run" });
    let other = tokio::time::timeout(PATIENCE / 2, other).await;
    assert_eq!(other.expect("a thread is left").unwrap(), "has run");
    assert!(!reading.is_finished(), "the state is still taken");
    drop(release);
    holder.join().unwrap();
    assert_eq!(reading.await.unwrap(), Revision::FIRST);
}

#[test]
fn memory_of_a_large_deletion_is_given_back_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_for_test(&dir);
    let keys = 40_000;
    for index in 1..=keys {
        apply(&store, index, put_of(format!("key-{index:0200}")));
    }
    let all = DeleteRange {
        range: KeyRange::from_wire("\0".into(), "\0".into()),
        prev_kv: false,
    };
    apply(&store, keys + 1, Command::DeleteRange(all));
    let recent = || store.read(|state, _| state.recent_bytes());
    assert!(recent() > HISTORY_BYTES_MIN, "{} bytes", recent());
    store.evict_at_rest();
    assert!(recent() <= HISTORY_BYTES_MIN, "{} bytes", recent());
}
