//! What other threads see of a store meanwhile.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gonfalon_core::MemberId;
use gonfalon_core::command::Put;
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
        let _local = self.local.write().unwrap();
        work();
    }
}

fn put(store: &Store, index: u64) {
    let put = Command::Put(Put {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    });
    let batch = Batch {
        origin: MemberId::new(1),
        sequence: index,
        commands: vec![put],
    };
    let last = log_id_from_pb(pb::LogId { term: 1, index });
    store.apply(&[batch], last, None).unwrap();
}

#[test]
fn a_snapshot_is_opened_while_others_read() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_for_test(&dir);
    let copy = {
        let source = Store::open_for_test(&other);
        (1..=5).for_each(|index| put(&source, index));
        source.checkpoint().unwrap().2
    };
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
