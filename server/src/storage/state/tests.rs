//! What only the inside can see: which records a sweep leaves, and a sweep that stops half-way.

use std::time::Duration;

use bytes::Bytes;
use gonfalon_core::command::{Command, DeleteRange, Op, Put, Txn};
use gonfalon_core::{Changes, Event, History as _, KeyRange, LeaseId, Revision, State};
use gonfalon_proto::peer as pb;
use rocksdb::IteratorMode;
use tempfile::TempDir;

use super::compact::sweep_batch;
use super::{Pace, StateDb, options};
use crate::metrics::Metrics;
use crate::raft::log_id_from_pb;
use crate::storage::FailStop;

fn open(dir: &TempDir) -> (StateDb, State) {
    open_at(dir, Pace::default(), &Metrics::default())
}

fn open_at(dir: &TempDir, pace: Pace, metrics: &Metrics) -> (StateDb, State) {
    let sweeps = metrics.disk.sweeps.clone();
    let (db, loaded) = StateDb::open(dir.path(), FailStop::new(), pace, sweeps).unwrap();
    (db, loaded.state)
}

fn run(db: &StateDb, state: &mut State, commands: impl IntoIterator<Item = Command>) {
    let mut changes = Changes::default();
    for command in commands {
        let reply = state.apply(&command, db, &mut changes).unwrap();
        assert!(reply.result.is_ok(), "{command:?}: {reply:?}");
    }
    let applied = log_id_from_pb(pb::LogId { term: 1, index: 1 });
    db.commit(state, &changes, applied, None).unwrap();
}

fn put(key: &'static str) -> Command {
    Command::Put(Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(b"value"),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn delete(key: &'static str) -> Command {
    let range = KeyRange::single(Bytes::from_static(key.as_bytes()));
    Command::DeleteRange(DeleteRange {
        range,
        prev_kv: false,
    })
}

fn compact(revision: i64) -> Command {
    let revision = Revision::new(revision);
    Command::Compact { revision }
}

fn records(db: &StateDb, family: &'static str) -> usize {
    let family = db.files.family(family);
    db.files.db.iterator_cf(family, IteratorMode::Start).count()
}

#[tokio::test]
async fn a_sweep_leaves_what_can_be_read_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (db, mut state) = open(&dir);
    // Revisions 2 to 9.
    let history = [
        put("a"),
        put("b"),
        put("a"),
        delete("a"),
        put("c"),
        delete("c"),
        put("b"),
        put("d"),
    ];
    run(&db, &mut state, history);
    for (revision, versions, changes) in [
        // a: put 2, put 4, delete 5; b: put 3, put 8; c: put 6, delete 7; d: put 9.
        (4, 7, 6),
        // The deletion at 5 itself stays.
        (5, 6, 5),
        (7, 4, 3),
        (9, 2, 1),
    ] {
        run(&db, &mut state, [compact(revision)]);
        db.wait_compacted(Revision::new(revision)).await.unwrap();
        assert_eq!(
            records(&db, options::KV),
            versions,
            "versions after {revision}"
        );
        assert_eq!(
            records(&db, options::REV),
            changes,
            "changes after {revision}"
        );
    }
}

/// All of `commands` at one revision.
fn at_once(commands: [Command; 3]) -> Command {
    let op = |command| match command {
        Command::Put(put) => Op::Put(put),
        Command::DeleteRange(delete) => Op::DeleteRange(delete),
        other => panic!("no operation: {other:?}"),
    };
    Command::Txn(Txn {
        success: commands.map(op).into(),
        ..Txn::default()
    })
}

#[tokio::test]
async fn a_sweep_takes_all_changes_of_a_key_at_one_revision_when_that_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (db, mut state) = open(&dir);
    let twice = at_once([delete("a"), put("a"), delete("a")]);
    run(&db, &mut state, [put("a"), twice, put("b")]);
    // At revision 3 all its changes are left, one version each; after it there is only b.
    for (revision, left) in [(2, 5), (3, 4), (4, 1)] {
        run(&db, &mut state, [compact(revision)]);
        db.wait_compacted(Revision::new(revision)).await.unwrap();
        assert_eq!(records(&db, options::KV), left, "versions after {revision}");
        assert_eq!(records(&db, options::REV), left, "changes after {revision}");
    }
}

#[tokio::test]
async fn a_sweep_that_was_interrupted_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (db, mut state) = open(&dir);
    run(&db, &mut state, (0..5000).map(|_| put("key")));
    let target = state.revision();
    db.compactor.stop();
    run(&db, &mut state, [compact(target.get())]);
    let unswept = db.hash_kv(None).unwrap().unwrap();
    let reached = sweep_batch(&db.files, Revision::default(), target, 1000).unwrap();
    assert!(
        reached.upto < target,
        "5000 changes are more than one batch"
    );
    assert_eq!(records(&db, options::KV), 5000 - 1000 + 1);
    assert_eq!(db.hash_kv(None).unwrap().unwrap(), unswept, "half swept");
    drop(db);

    let (db, state) = open(&dir);
    assert_eq!(state.compacted(), target);
    db.wait_compacted(target).await.unwrap();
    assert_eq!(records(&db, options::KV), 1);
    assert_eq!(records(&db, options::REV), 1);
    assert_eq!(db.hash_kv(None).unwrap().unwrap(), unswept, "swept");
}

#[tokio::test]
async fn a_hash_before_the_first_revision_is_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (db, mut state) = open(&dir);
    let before_time = Some(Revision::new(-1));
    let nothing = db.hash_kv(None).unwrap().unwrap().hash;
    run(&db, &mut state, (0..5).map(|_| put("key")));
    assert_eq!(db.hash_kv(before_time).unwrap().unwrap().hash, nothing);
    run(&db, &mut state, [compact(4)]);
    db.wait_compacted(Revision::new(4)).await.unwrap();
    let hashed = db.hash_kv(before_time).unwrap().unwrap();
    assert_eq!(
        (hashed.hash, hashed.revision, hashed.compacted),
        (nothing, Revision::new(-1), Revision::new(4))
    );
    let compacted = db.hash_kv(Some(Revision::new(3))).unwrap();
    assert!(compacted.is_err(), "a revision that was there is compacted");
}

#[tokio::test]
async fn a_sweep_keeps_to_its_pace_and_ends_when_the_database_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let pace = Pace {
        batch_changes: 100,
        pause: Duration::from_hours(1),
    };
    let metrics = Metrics::default();
    let sweeps = &metrics.disk.sweeps;
    let (db, mut state) = open_at(&dir, pace, &metrics);
    run(&db, &mut state, (0..1000).map(|_| put("key")));
    let target = state.revision();
    run(&db, &mut state, [compact(target.get())]);
    while sweeps.batch_count() == 0 {
        tokio::task::yield_now().await;
    }
    drop(db);
    assert_eq!(sweeps.batch_count(), 1, "an hour has not passed");
    assert_eq!(sweeps.version_count(), 99, "the first superseded nothing");

    let (db, _) = open_at(&dir, Pace::default(), &metrics);
    db.wait_compacted(target).await.unwrap();
    assert_eq!(records(&db, options::KV), 1);
    drop(db);
    assert_eq!((sweeps.batch_count(), sweeps.version_count()), (2, 999));
}

#[test]
fn a_defragmentation_asks_for_room_for_all_families_while_a_copy_keeps_the_old_files() {
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (db, mut state) = open(&dir);
    run(&db, &mut state, (0..1000).map(|_| put("key")));
    db.flush().unwrap();
    let [largest, all] = {
        let sizes = options::ALL.map(|name| db.property(name, "rocksdb.live-sst-files-size"));
        [sizes.into_iter().max().unwrap(), sizes.into_iter().sum()]
    };
    assert!(0 < largest && largest < all, "{largest} of {all} bytes");
    let room_beside = |files: u64| {
        let needed = db.defragment_bytes().unwrap();
        assert_eq!(needed - db.unflushed_bytes(), files);
    };
    room_beside(largest);
    db.link(&copies.path().join("copy")).unwrap();
    room_beside(all);
    drop(copies);
    room_beside(largest);
}

#[test]
fn every_property_of_the_sizes_is_one_that_rocksdb_knows() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = open(&dir);
    for property in [
        "rocksdb.live-sst-files-size",
        "rocksdb.cur-size-all-mem-tables",
        "rocksdb.estimate-live-data-size",
    ] {
        let family = db.files.family(options::KV);
        let value = db.files.db.property_int_value_cf(family, property).unwrap();
        assert!(value.is_some(), "{property}");
    }
}

#[tokio::test]
async fn changes_are_read_with_the_versions_before_their_revision_if_these_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (db, mut state) = open(&dir);
    let twice = at_once([delete("a"), put("a"), delete("a")]);
    // a: put 2, changed 3 times at 4, put 5; b: put 3.
    run(&db, &mut state, [put("a"), put("b"), twice, put("a")]);
    let read = |with_prev| {
        let last = Revision::new(5);
        let revisions = db.events(Revision::new(2), last, 100, with_prev).unwrap();
        let events = revisions.into_iter().flat_map(|revision| revision.events);
        let prev = |event: Event| event.prev.map(|prev| prev.mod_revision.get());
        events.map(prev).collect::<Vec<_>>()
    };
    // The second change at 4 creates the key, as the one at 5 does.
    let before = Some(2);
    assert_eq!(read(true), [None, None, before, None, before, None]);
    assert_eq!(read(false), [None; 6]);
}
