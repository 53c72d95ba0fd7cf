//! The state's database: a core state on top of it reads like the plain model, whatever was
//! evicted, swept, flushed or lost in between.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gonfalon_core::command::{Command, DeleteRange, Op, Put, Txn};
use gonfalon_core::{Changes, KeyRange, LeaseId, MemberId, Reply, Revision, State};
use gonfalon_proto::peer as pb;
use gonfalon_server::metrics::Metrics;
use gonfalon_server::raft::{LogId, Membership, PeerNode, StoredMembership, log_id_from_pb};
use gonfalon_server::storage::{FailStop, Loaded, Pace, StateDb, StorageError};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

#[path = "../core/tests/support/compare.rs"]
mod compare;
#[path = "../core/tests/support/plain.rs"]
mod plain;
#[path = "../core/tests/support/random.rs"]
mod random;

use compare::{compare, compare_leases};
use plain::Plain;
use random::Step;

/// A state, the database that it is written to, and what is still to be written.
struct Member {
    dir: TempDir,
    db: StateDb,
    state: State,
    changes: Changes,
    index: u64,
}

impl Member {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    fn open(dir: TempDir) -> Self {
        let (db, loaded) = open(dir.path()).unwrap();
        Self {
            dir,
            db,
            state: loaded.state,
            changes: Changes::default(),
            index: loaded.applied.map_or(0, |id| id.index),
        }
    }

    fn apply(&mut self, command: &Command) -> Reply {
        let result = self.state.apply(command, &self.db, &mut self.changes);
        result.unwrap()
    }

    fn write(&mut self) {
        self.index += 1;
        let changes = std::mem::take(&mut self.changes);
        let applied = id(self.index);
        self.db
            .commit(&self.state, &changes, applied, None)
            .unwrap();
    }

    fn put(&mut self, key: &str, value: &str) {
        self.apply(&put(key, value));
        self.write();
    }

    /// Everything that can be read was written; what is not in memory comes from the database.
    fn evict(&mut self, budget_bytes: usize) {
        self.write();
        self.state.evict(budget_bytes);
    }

    fn restart(self) -> Self {
        let Self { dir, db, .. } = self;
        drop(db);
        Self::open(dir)
    }

    fn sweep(&self) {
        let compacted = self.state.compacted();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(self.db.wait_compacted(compacted)).unwrap();
    }

    fn checkpoint(&self, to: &Path) -> (Option<LogId>, StoredMembership) {
        self.db.checkpoint(to).unwrap()
    }
}

fn open(root: &Path) -> Result<(StateDb, Loaded), StorageError> {
    let sweeps = Metrics::default().disk.sweeps;
    StateDb::open(root, FailStop::new(), Pace::default(), sweeps)
}

fn id(index: u64) -> LogId {
    log_id_from_pb(pb::LogId { term: 1, index })
}

fn put(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What a `kill -9` would leave behind now.
fn crash_image(dir: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    copy(dir, image.path());
    image
}

proptest! {
    // Each case opens several databases.
    #![proptest_config(ProptestConfig { cases: 25, ..ProptestConfig::default() })]

    /// Model: one whole copy of the map per revision.
    #[test]
    fn any_history_reads_from_disk_like_the_copies(
        steps in vec(random::step(), 1..40),
        part in 1_usize..4,
    ) {
        let mut model = Plain::default();
        let mut member = Member::new();
        for step in steps {
            match step {
                Step::Apply(command) => {
                    let command = random::placed(command, model.revision());
                    let want = model.apply(&command);
                    prop_assert_eq!(&member.apply(&command), &want, "{:?}", &command);
                }
                Step::Read(range) => {
                    let range = random::placed_range(range, model.revision());
                    let answer = member.state.range(&range, &member.db).unwrap();
                    prop_assert_eq!(answer, model.range(&range), "{:?}", &range);
                }
                Step::ReadTxn(txn) => {
                    let txn = random::placed_txn(txn, model.revision());
                    let answer = member.state.read_txn(&txn, &member.db).unwrap();
                    prop_assert_eq!(answer, model.read_txn(&txn), "{:?}", &txn);
                }
                Step::Write => member.write(),
                Step::Evict(budget_bytes) => member.evict(budget_bytes),
                Step::Sweep => {
                    member.write();
                    let before = member.db.hash_kv(None).unwrap();
                    member.sweep();
                    prop_assert_eq!(member.db.hash_kv(None).unwrap(), before);
                }
                Step::Restart => {
                    member.write();
                    member = member.restart();
                }
            }
            member.state.check();
            compare_leases(&member.state, &model);
        }
        // Nothing is left in memory: every read that can go to the database goes there.
        member.evict(0);
        compare(&member.state, &member.db, &model, part);
        let mut member = member.restart();
        member.state.check();
        compare_leases(&member.state, &model);
        compare(&member.state, &member.db, &model, part);
        member.sweep();
        member.evict(0);
        compare(&member.state, &member.db, &model, part);
    }
}

#[test]
fn a_key_deleted_twice_at_one_revision_reads_from_disk_like_the_copies() {
    let put_op = |key| match put(key, "again") {
        Command::Put(put) => Op::Put(put),
        other => panic!("{other:?}"),
    };
    let delete_op = |key: &'static str| {
        Op::DeleteRange(DeleteRange {
            range: KeyRange::single(key.into()),
            prev_kv: false,
        })
    };
    let success = vec![delete_op("key"), put_op("key"), delete_op("key")];
    let twice = Command::Txn(Txn {
        success,
        ..Txn::default()
    });
    let compact = |revision| Command::Compact {
        revision: Revision::new(revision),
    };
    let mut model = Plain::default();
    let mut member = Member::new();
    // At revision 3 the key is deleted twice; the last put is revision 4.
    for command in [
        put("key", "1"),
        twice,
        compact(2),
        compact(3),
        put("other", "1"),
        compact(4),
    ] {
        assert_eq!(member.apply(&command), model.apply(&command), "{command:?}");
        compare(&member.state, &member.db, &model, 2);
        member.evict(0);
        compare(&member.state, &member.db, &model, 2);
        member.sweep();
        member = member.restart();
        member.state.check();
        compare(&member.state, &member.db, &model, 2);
    }
}

#[test]
fn a_crash_takes_back_whole_entries_in_all_column_families_alike() {
    let mut member = Member::new();
    let mut model = Plain::default();
    let grant = |id| Command::LeaseGrant {
        id: LeaseId::new(id),
        ttl: 60,
    };
    for index in 1..=20 {
        for command in [put(&format!("key{}", index % 7), "v"), grant(index)] {
            member.apply(&command);
            model.apply(&command);
        }
        member.write();
    }
    member.db.flush().unwrap();
    for index in 21..=30 {
        member.apply(&grant(index));
        member.put("later", "lost");
    }
    let crashed = Member::open(crash_image(member.dir.path()));
    assert_eq!(
        crashed.index, 20,
        "what was flushed, and nothing of the rest"
    );
    compare(&crashed.state, &crashed.db, &model, 3);
    compare_leases(&crashed.state, &model);
    drop(member.restart());
}

#[test]
fn closing_brings_everything_to_disk() {
    let mut member = Member::new();
    member.put("a", "1");
    member.apply(&Command::PublishMember {
        id: MemberId::new(7),
        name: "one".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
    });
    member.write();
    let member = member.restart();
    assert_eq!(member.index, 2);
    assert_eq!(member.state.members().count(), 1);
}

#[test]
fn opening_twice_says_that_it_is_in_use() {
    let member = Member::new();
    let error = open(member.dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, StorageError::InUse { .. }), "{error}");
}

#[test]
fn a_copy_holds_what_was_committed_before_it_and_names_the_entry() {
    let mut member = Member::new();
    let nodes = [(
        7,
        PeerNode {
            peer_urls: vec!["http://127.0.0.1:2380".into()],
        },
    )];
    let membership = Membership::new(vec![[7].into()], BTreeMap::from(nodes)).unwrap();
    let membership = StoredMembership::new(Some(id(1)), membership);
    member.index = 1;
    member
        .db
        .commit(&member.state, &Changes::default(), id(1), Some(&membership))
        .unwrap();
    let mut model = Plain::default();
    for index in 0..100 {
        let command = put(&format!("key{}", index % 9), &index.to_string());
        member.apply(&command);
        member.write();
        model.apply(&command);
    }
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    assert_eq!(
        member.checkpoint(&copy),
        (Some(id(101)), membership.clone())
    );
    member.put("later", "not in the copy");

    let other = Member::new();
    let (db, loaded) = other
        .db
        .succeed(other.dir.path(), &copy, FailStop::new())
        .unwrap();
    other.db.retire();
    assert_eq!(loaded.applied, Some(id(101)));
    assert_eq!(loaded.membership, membership);
    compare(&loaded.state, &db, &model, 5);
    assert!(!copy.exists(), "moved, not copied");
    drop(db);
    drop(other.db);
    let (db, loaded) = open(other.dir.path()).unwrap();
    compare(&loaded.state, &db, &model, 5);
    assert_eq!(
        directories(other.dir.path()).len(),
        1,
        "the old database is deleted"
    );
}

fn directories(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A member with one key, and beside it a complete copy of another with two.
fn before_install() -> (Member, TempDir) {
    let mut member = Member::new();
    member.put("old", "1");
    let mut leader = Member::new();
    leader.put("new", "1");
    leader.put("new", "2");
    let copies = tempfile::tempdir().unwrap();
    leader.checkpoint(&copies.path().join("copy"));
    (member, copies)
}

#[test]
fn an_install_that_is_interrupted_leaves_the_old_state_or_the_new_one() {
    // Before the rename: the copy lies elsewhere and is nobody's business.
    let (member, _copies) = before_install();
    let member = member.restart();
    assert_eq!((member.index, member.state.key_count()), (1, 1));

    // After the rename, before the old one is deleted.
    let (member, copies) = before_install();
    let Member { dir, db, .. } = member;
    drop(db);
    std::fs::rename(copies.path().join("copy"), dir.path().join("2")).unwrap();
    let half_deleted = crash_image(dir.path());
    let member = Member::open(dir);
    assert_eq!((member.index, member.state.revision().get()), (2, 3));
    assert_eq!(
        directories(member.dir.path()).len(),
        1,
        "the old one is deleted now"
    );

    // While the old one is deleted.
    std::fs::remove_file(half_deleted.path().join("1/CURRENT")).unwrap();
    let member = Member::open(half_deleted);
    assert_eq!((member.index, member.state.revision().get()), (2, 3));
}

#[test]
fn an_old_database_is_kept_until_the_one_that_replaced_it_has_opened() {
    let (member, copies) = before_install();
    let Member { dir, db, .. } = member;
    drop(db);
    let new = dir.path().join("2");
    std::fs::rename(copies.path().join("copy"), &new).unwrap();
    std::fs::write(new.join("CURRENT"), "damaged").unwrap();
    assert!(open(dir.path()).is_err(), "the copy is damaged");

    std::fs::remove_dir_all(&new).unwrap();
    let member = Member::open(dir);
    assert_eq!((member.index, member.state.key_count()), (1, 1));
}

#[test]
fn a_hash_is_of_the_revision_that_was_asked_for() {
    let (mut one, mut other) = (Member::new(), Member::new());
    for index in 0..30 {
        let (key, value) = (format!("key{}", index % 4), index.to_string());
        one.put(&key, &value);
        other.put(&key, &value);
    }
    let at = one.state.revision();
    other.put("later", "1");
    let ours = one.db.hash_kv(Some(at)).unwrap().unwrap();
    assert_eq!(other.db.hash_kv(Some(at)).unwrap().unwrap(), ours);
    assert_ne!(one.db.hash().unwrap(), other.db.hash().unwrap());
    assert!(
        one.db.hash_kv(Some(at.next())).unwrap().is_err(),
        "not written yet"
    );
    let revision = at.prev();
    other.apply(&Command::Compact { revision });
    other.write();
    assert_ne!(
        other.db.hash_kv(Some(at)).unwrap().unwrap().compacted,
        ours.compacted,
        "an answer says what it covers"
    );
    assert!(
        other.db.hash_kv(Some(revision.prev())).unwrap().is_err(),
        "compacted"
    );
    one.apply(&Command::Compact { revision });
    one.write();
    one.sweep();
    assert_eq!(
        one.db.hash_kv(Some(at)).unwrap(),
        other.db.hash_kv(Some(at)).unwrap()
    );
    one.put("later", "1");
    assert_eq!(one.db.hash().unwrap(), other.db.hash().unwrap());
}

#[test]
fn a_defragmented_database_gives_back_what_was_deleted() {
    let mut member = Member::new();
    let value = "x".repeat(100_000);
    for _ in 0..100 {
        member.put("key", &value);
    }
    let full = member.db.size_bytes();
    assert!(full > 9_000_000, "{full} bytes with 100 versions of 100 kB");
    let revision = member.state.revision();
    member.apply(&Command::Compact { revision });
    member.write();
    member.sweep();
    member.db.defragment().unwrap();
    let left = member.db.size_bytes();
    assert!(
        left < 1_000_000,
        "{left} of {full} bytes are left for one version"
    );
    assert!(member.db.size_in_use_bytes() <= left);
}
