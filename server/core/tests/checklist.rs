//! What re-implementations of etcd's store get wrong, one test for each.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/recorded.rs"]
mod recorded;
#[path = "support/script.rs"]
mod script;

use bytes::Bytes;
use gonfalon_core::command::{
    Batch, Command, Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation, Txn,
};
use gonfalon_core::{
    Changes, KeyRange, LeaseId, LoadedVersion, MemberId, NoHistory, Revision, State,
};
use script::Script;

/// Runs the commands of each row on one store, and compares the answers.
fn expect(rows: &[(&str, &str)]) {
    let mut script = Script::new();
    for (row, (commands, want)) in rows.iter().enumerate() {
        let want: Vec<&str> = want.lines().map(str::trim).collect();
        let answer = script.run(commands);
        let answer: Vec<&str> = answer.lines().map(str::trim).collect();
        assert_eq!(answer, want, "row {row}: {commands}");
    }
}

#[test]
fn the_first_write_is_revision_2() {
    expect(&[
        ("status", "revision 1, compacted -1, 0 keys"),
        ("put a 1", "r2"),
    ]);
}

#[test]
fn revision_0_is_compacted_once() {
    let refused = "refused: revision is compacted; the oldest readable one is 0";
    expect(&[
        ("compact 0", "r1"),
        ("compact 0", refused),
        ("put a 1\ncompact 1", "r2\nr2"),
    ]);
}

#[test]
fn the_count_ignores_the_limit_and_the_filters() {
    expect(&[
        ("put a 1\nput b 1\nput c 1", "r2\nr3\nr4"),
        (
            "get * limit=1",
            "a = 1  create 2 mod 2 version 1\ncount 3, more",
        ),
        (
            "get * min-mod=4",
            "c = 1  create 4 mod 4 version 1\ncount 3",
        ),
        ("get * count limit=1", "count 3"),
    ]);
}

#[test]
fn without_an_order_one_key_beyond_the_limit_takes_part_in_the_sort() {
    expect(&[
        ("put a 3\nput b 2\nput c 1\nput d 0", "r2\nr3\nr4\nr5"),
        (
            "get * limit=1 sort=value",
            "b = 2  create 3 mod 3 version 1\ncount 4, more",
        ),
        (
            "get * limit=1 sort=value,asc",
            "d = 0  create 5 mod 5 version 1\ncount 4, more",
        ),
    ]);
}

#[test]
fn a_negative_revision_in_a_transaction_is_compacted() {
    let refused =
        |oldest| format!("refused: revision is compacted; the oldest readable one is {oldest}");
    expect(&[
        ("txn\n  then\n    get a rev=-2", &refused(-1)),
        // Until something is compacted, etcd takes this one for the present.
        ("txn\n  then\n    get a rev=-1", "then\nget r1\ncount 0"),
        ("compact 0", "r1"),
        ("txn\n  then\n    get a rev=-1", &refused(0)),
        ("txn\n  then\n    put a 1\n    get a rev=-1", &refused(0)),
        ("status", "revision 1, compacted 0, 0 keys"),
    ]);
}

#[test]
fn keys_alone_have_a_lease_only_if_they_are_sorted_by_value() {
    expect(&[
        ("grant 7 60\nput a 1 lease=7", "r1\nlease 7 ttl 60\nr2"),
        ("get a keys", "a = \"\"  create 2 mod 2 version 1\ncount 1"),
        (
            "get a keys sort=value",
            "a = \"\"  create 2 mod 2 version 1 lease 7\ncount 1",
        ),
    ]);
}

#[test]
fn the_value_of_a_missing_key_compares_false_whatever_is_asked() {
    for relation in ["=", "!=", "<", ">", "?"] {
        expect(&[(&format!("txn\n  if value(a) {relation} \"\""), "else")]);
    }
}

#[test]
fn an_unknown_target_counts_as_equal_and_an_unknown_relation_as_true() {
    expect(&[
        ("txn\n  if unknown(a) = 0", "then"),
        ("txn\n  if unknown(a) != 0", "else"),
        ("txn\n  if version(a) ? 9", "then"),
    ]);
}

#[test]
fn answers_within_a_transaction_carry_the_revision_they_left() {
    let txn = "txn\n  then\n    get a\n    del a\n    put a 1\n    get a count\n    del b";
    let want = "r2\nthen\nget r1\ncount 0\ndel r1\ndeleted 0\nput r2\nget r2\ncount 1\n\
        del r2\ndeleted 0";
    expect(&[(txn, want)]);
}

#[test]
fn a_put_without_a_lease_detaches_the_key() {
    expect(&[
        (
            "grant 7 60\nput a 1 lease=7\nleases",
            "r1\nlease 7 ttl 60\nr2\n7 ttl 60 [a]",
        ),
        ("put a 2\nleases", "r3\n7 ttl 60 []"),
        ("revoke 7\nget a count", "r3\ncount 1"),
    ]);
}

#[test]
fn a_revoked_lease_takes_its_keys_at_one_revision_in_key_order() {
    expect(&[
        ("grant -7 60", "r1\nlease -7 ttl 60"),
        ("put b 1 lease=-7\nput a 1 lease=-7", "r2\nr3"),
        ("revoke -7", "r4"),
        (
            "events 4",
            "delete a = \"\"  create 0 mod 4 version 0, was a = 1  create 3 mod 3 version 1 lease -7
            delete b = \"\"  create 0 mod 4 version 0, was b = 1  create 2 mod 2 version 1 lease -7",
        ),
        ("revoke -7", "refused: lease not found"),
    ]);
}

#[test]
fn a_deletion_is_told_with_the_key_and_the_revision_alone() {
    expect(&[
        (
            "grant 7 60\nput a 1 lease=7\ndel a",
            "r1\nlease 7 ttl 60\nr2\nr3\ndeleted 1",
        ),
        ("compact 3", "r3"),
        ("events 3", "delete a = \"\"  create 0 mod 3 version 0"),
    ]);
}

#[test]
fn the_version_before_is_not_told_once_it_is_compacted() {
    expect(&[
        ("put a 1\nput a 2\nput a 3", "r2\nr3\nr4"),
        ("compact 3", "r4"),
        (
            "events 3",
            "put a = 2  create 2 mod 3 version 2
            put a = 3  create 2 mod 4 version 3, was a = 2  create 2 mod 3 version 2",
        ),
    ]);
}

#[test]
fn a_read_that_is_refused_leaves_no_effect_of_its_transaction() {
    let future = "refused: revision is in the future; the current one is 2";
    let mut script = Script::new();
    script.run("put a 1");
    script.write();
    for txn in [
        "txn\n  then\n    put a 2\n    del b..\n    get a rev=3",
        "txn\n  then\n    put a 2\n    txn\n      then\n        get a rev=3",
    ] {
        assert_eq!(script.run(txn), future, "{txn}");
        assert_eq!(
            script.run("get a"),
            "a = 1  create 2 mod 2 version 1\ncount 1",
            "{txn}"
        );
    }
}

#[test]
fn what_is_refused_hands_out_no_changes() {
    let mut state = State::new();
    let put = |key: &str, lease| Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::new(),
        lease: LeaseId::new(lease),
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let without_key = |branch: &str| {
        let ops = vec![Op::Put(put("a", 0)), Op::Put(put("", 0))];
        let [success, failure] = match branch {
            "success" => [ops, vec![]],
            _ => [vec![], ops],
        };
        let is_new = Compare {
            range: KeyRange::single(Bytes::from_static(b"a")),
            target: CompareTarget::Version(0),
            relation: match branch {
                "success" => Relation::Equal,
                _ => Relation::Greater,
            },
        };
        Txn {
            compare: vec![is_new],
            success,
            failure,
        }
    };
    let nested = Txn {
        compare: vec![],
        success: vec![Op::Txn(without_key("failure"))],
        failure: vec![],
    };
    for command in [
        Command::Put(put("", 0)),
        Command::Txn(without_key("success")),
        Command::Txn(without_key("failure")),
        Command::Txn(nested),
        Command::Put(put("a", 9)),
        Command::Put(Put {
            ignore_value: true,
            ..put("a", 0)
        }),
        Command::Compact {
            revision: Revision::new(2),
        },
        Command::LeaseGrant {
            id: LeaseId::NONE,
            ttl: 5,
        },
        Command::LeaseRevoke {
            id: LeaseId::new(9),
        },
    ] {
        let mut changes = Changes::default();
        let reply = state.apply(&command, &NoHistory, &mut changes).unwrap();
        assert!(
            reply.result.is_err() && changes.is_empty(),
            "{command:?}: {changes:?}"
        );
        assert_eq!(reply.revision, Revision::FIRST);
    }
}

/// Keys of a range that did not exist at the revision of a read are looked at, too.
#[test]
fn a_long_range_with_few_keys_at_a_past_revision_is_read_in_parts() {
    let mut script = Script::new();
    let put = |number: usize| {
        Command::Put(Put {
            key: Bytes::from(format!("{number:05}")),
            value: Bytes::new(),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        })
    };
    script.apply(&put(9999));
    for number in 0..9999 {
        script.apply(&put(number));
    }
    let everything = KeyRange::prefix("".into());
    let delete = DeleteRange {
        range: everything.clone(),
        prev_kv: false,
    };
    script.apply(&Command::DeleteRange(delete));
    script.run("evict 0");

    let at = Revision::new(2);
    let (mut kvs, mut count, mut parts) = (0, 0, 0);
    let mut from = None;
    loop {
        let page = script
            .state
            .page(&everything, at, from.as_ref(), 10, false, &script.written)
            .unwrap();
        let part = script
            .state
            .count(&everything, at, from.as_ref(), &script.written)
            .unwrap();
        let (page, part) = (page.unwrap(), part.unwrap());
        assert_eq!(page.next, part.next, "both look at as many keys");
        (kvs, count, parts) = (kvs + page.kvs.len(), count + part.count, parts + 1);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((kvs, count, parts), (1, 1, 3));
    let whole = Range {
        revision: Some(at),
        ..Range::of(everything)
    };
    let whole = script
        .state
        .range(&whole, &script.written)
        .unwrap()
        .unwrap();
    assert_eq!((whole.kvs.len(), whole.count), (1, 1));
}

#[test]
fn a_stored_value_does_not_keep_the_batch_that_brought_it() {
    /// Bytes that tell when nobody refers to them any more.
    struct Owned(Vec<u8>, std::sync::mpsc::Sender<()>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owned {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
        }
    }
    let put = Command::Put(Put {
        key: "key".into(),
        value: "value".into(),
        lease: LeaseId::new(7),
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    });
    let grant = Command::LeaseGrant {
        id: LeaseId::new(7),
        ttl: 5,
    };
    let delete = DeleteRange {
        range: KeyRange::single("key".into()),
        prev_kv: true,
    };
    let commands = vec![grant, put, Command::DeleteRange(delete)];
    let mut bytes = Vec::new();
    Batch {
        origin: MemberId::new(1),
        sequence: 1,
        commands,
    }
    .encode(&mut bytes);
    let (sender, dropped) = std::sync::mpsc::channel();
    let batch = Batch::decode(Bytes::from_owner(Owned(bytes, sender))).unwrap();
    let (mut state, mut changes) = (State::new(), Changes::default());
    let replies: Vec<_> = batch
        .commands
        .iter()
        .map(|command| state.apply(command, &NoHistory, &mut changes).unwrap())
        .collect();
    assert!(
        dropped.try_recv().is_err(),
        "the commands are slices of the batch"
    );
    drop(batch);
    assert!(
        dropped.try_recv().is_ok(),
        "kept by {replies:?} or {changes:?}"
    );
}

#[test]
fn damaged_storage_is_refused_with_the_key() {
    let version = |key: &'static str, mod_revision, lease| LoadedVersion {
        key: key.as_bytes(),
        value: b"",
        create_revision: Revision::new(2),
        mod_revision: Revision::new(mod_revision),
        sub: 0,
        version: 1,
        lease: LeaseId::new(lease),
    };
    for (versions, want) in [
        (
            [version("a", 2, 0), version("a", 3, 0)],
            "a key out of order, at key \"a\"",
        ),
        (
            [version("b", 2, 0), version("a", 3, 0)],
            "a key out of order, at key \"a\"",
        ),
        (
            [version("a", 2, 0), version("b", 9, 0)],
            "outside the history of the store, at key \"b\"",
        ),
        (
            [
                version("a", 2, 0),
                LoadedVersion {
                    create_revision: Revision::new(4),
                    ..version("b", 3, 0)
                },
            ],
            "before its creation, at key \"b\"",
        ),
        (
            [version("a", 2, 0), version("b", 3, 7)],
            "a lease that does not exist, at key \"b\"",
        ),
    ] {
        let mut loader = State::loader();
        loader.revision(Revision::new(5), None);
        loader.version(&versions[0]).unwrap();
        let error = loader.version(&versions[1]).unwrap_err().to_string();
        assert!(error.contains(want), "{error}, not {want}");
    }
    let mut loader = State::loader();
    loader.revision(Revision::new(5), Some(Revision::new(6)));
    let error = loader.finish().unwrap_err().to_string();
    assert!(error.contains("revision 5, compacted at 6"), "{error}");
}
