//! The log's encoding: what goes in comes out, and nothing that comes in breaks the reader.

use bytes::Bytes;
use gonfalon_core::command::{
    AlarmChange, AlarmKind, Batch, Command, Compare, CompareTarget, DecodeError, DeleteRange, Op,
    Put, Range, Relation, Sort, SortOrder, SortTarget, Txn,
};
use gonfalon_core::{KeyRange, LeaseId, MemberId, RangeEnd, Revision};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        Just(RangeEnd::Single),
        bytes().prop_map(RangeEnd::Before),
        Just(RangeEnd::Unbounded)
    ];
    (bytes(), end).prop_map(|(start, end)| KeyRange { start, end })
}

fn put() -> impl Strategy<Value = Put> {
    (bytes(), bytes(), any::<i64>(), any::<[bool; 3]>()).prop_map(|(key, value, lease, flags)| {
        Put {
            key,
            value,
            lease: LeaseId::new(lease),
            prev_kv: flags[0],
            ignore_value: flags[1],
            ignore_lease: flags[2],
        }
    })
}

fn delete_range() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn range() -> impl Strategy<Value = Range> {
    let order = prop_oneof![
        Just(SortOrder::None),
        Just(SortOrder::Ascend),
        Just(SortOrder::Descend)
    ];
    let target = prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::Create),
        Just(SortTarget::Mod),
        Just(SortTarget::Value)
    ];
    let revision = proptest::option::of(any::<i64>().prop_map(Revision::new));
    let options = (
        any::<usize>(),
        revision,
        order,
        target,
        any::<[bool; 2]>(),
        any::<[i64; 4]>(),
    );
    (key_range(), options).prop_map(|(range, (limit, revision, order, target, flags, bounds))| {
        Range {
            range,
            limit,
            revision,
            sort: Sort { order, target },
            keys_only: flags[0],
            count_only: flags[1],
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
        }
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        any::<i64>().prop_map(CompareTarget::CreateRevision),
        any::<i64>().prop_map(CompareTarget::ModRevision),
        any::<i64>().prop_map(CompareTarget::Lease),
        bytes().prop_map(CompareTarget::Value),
        Just(CompareTarget::Unknown)
    ];
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::Greater),
        Just(Relation::Less),
        Just(Relation::NotEqual),
        Just(Relation::Unknown)
    ];
    (key_range(), target, relation).prop_map(|(range, target, relation)| Compare {
        range,
        target,
        relation,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        range().prop_map(Op::Range),
        put().prop_map(Op::Put),
        delete_range().prop_map(Op::DeleteRange)
    ];
    let txn_of = |op: BoxedStrategy<Op>| {
        (vec(compare(), 0..3), vec(op.clone(), 0..3), vec(op, 0..3)).prop_map(
            |(compare, success, failure)| Txn {
                compare,
                success,
                failure,
            },
        )
    };
    let nested = op.prop_recursive(4, 16, 3, move |op| txn_of(op.boxed()).prop_map(Op::Txn));
    txn_of(nested.boxed())
}

fn command() -> impl Strategy<Value = Command> {
    let kind = prop_oneof![Just(AlarmKind::NoSpace), Just(AlarmKind::Corrupt)];
    prop_oneof![
        put().prop_map(Command::Put),
        delete_range().prop_map(Command::DeleteRange),
        txn().prop_map(Command::Txn),
        any::<i64>().prop_map(|number| Command::Compact {
            revision: Revision::new(number)
        }),
        any::<[i64; 2]>().prop_map(|[id, ttl]| Command::LeaseGrant {
            id: LeaseId::new(id),
            ttl
        }),
        any::<i64>().prop_map(|id| Command::LeaseRevoke {
            id: LeaseId::new(id)
        }),
        (any::<bool>(), any::<u64>(), kind).prop_map(|(activate, member, kind)| {
            Command::Alarm(AlarmChange {
                activate,
                member: MemberId::new(member),
                kind,
            })
        }),
        (any::<u64>(), ".{0,8}", vec(".{0,8}", 0..3)).prop_map(|(id, name, client_urls)| {
            Command::PublishMember {
                id: MemberId::new(id),
                name,
                client_urls,
            }
        }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    (any::<u64>(), any::<u64>(), vec(command(), 0..5)).prop_map(|(origin, sequence, commands)| {
        Batch {
            origin: MemberId::new(origin),
            sequence,
            commands,
        }
    })
}

fn encoded(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    batch.encode(&mut out);
    out
}

proptest! {
    #[test]
    fn a_batch_comes_out_as_it_went_in(batch in batch()) {
        let bytes = Bytes::from(encoded(&batch));
        prop_assert_eq!(Batch::decode(bytes), Ok(batch));
    }

    #[test]
    fn a_command_is_never_longer_than_announced(command in command()) {
        let announced = command.encoded_len();
        let empty = Batch { origin: MemberId::new(1), sequence: 1, commands: vec![] };
        let one = Batch { commands: vec![command], ..empty.clone() };
        let len = encoded(&one).len() - encoded(&empty).len();
        prop_assert!(len <= announced, "{} bytes, announced {}", len, announced);
    }

    #[test]
    fn a_batch_that_was_cut_is_refused(batch in batch(), cut in any::<prop::sample::Index>()) {
        let whole = encoded(&batch);
        let bytes = Bytes::from(whole).slice(..cut.index(encoded(&batch).len()));
        prop_assert!(Batch::decode(bytes).is_err());
    }

    #[test]
    fn random_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        // Whatever can be read is a batch that can be written and read again.
        if let Ok(batch) = Batch::decode(Bytes::from(bytes)) {
            prop_assert_eq!(Batch::decode(Bytes::from(encoded(&batch))), Ok(batch));
        }
    }

    #[test]
    fn a_batch_with_some_bytes_changed_is_read_without_a_panic(
        batch in batch(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&batch);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(batch) = Batch::decode(Bytes::from(bytes)) {
            prop_assert_eq!(Batch::decode(Bytes::from(encoded(&batch))), Ok(batch));
        }
    }
}

/// Format 1 is on disks: these bytes must be read for ever.
#[test]
fn the_encoding_of_format_1_does_not_change() {
    let put = Command::Put(Put {
        key: "k".into(),
        value: "v".into(),
        lease: LeaseId::new(-1),
        prev_kv: true,
        ignore_value: false,
        ignore_lease: false,
    });
    let txn = Command::Txn(Txn {
        compare: vec![Compare {
            range: KeyRange::single("k".into()),
            target: CompareTarget::ModRevision(300),
            relation: Relation::Greater,
        }],
        success: vec![Op::Range(Range::of(KeyRange::prefix("a".into())))],
        failure: vec![Op::Txn(Txn::default())],
    });
    let compact = Command::Compact {
        revision: Revision::new(64),
    };
    let batch = Batch {
        origin: MemberId::new(7),
        sequence: 129,
        commands: vec![put, txn, compact],
    };
    let expected = [
        &[1_u8, 7, 0, 0, 0, 0, 0, 0, 0, 0x81, 1, 3][..],
        &[1, 1, 1, b'k', 1, b'v', 1],
        &[3, 1, 0, 1, b'k', 1, 2, 0xd8, 4],
        &[1, 1, 1, 1, b'b', 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 4, 0, 0, 0],
        &[4, 0x80, 1],
    ]
    .concat();
    assert_eq!(encoded(&batch), expected);
}

#[test]
fn what_is_not_a_batch_is_refused_with_its_reason() {
    let header = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let with = |rest: &[u8]| [&header[..], rest].concat();
    let nine_ff = [0xff; 9];
    let deep = [with(&[1, 3]), [0, 1, 4].repeat(200)].concat();
    for (bytes, want) in [
        (vec![], DecodeError::Short),
        (vec![2], DecodeError::Format(2)),
        (with(&[]), DecodeError::Short),
        (with(&[0, 9]), DecodeError::Long(1)),
        (
            with(&[1, 99]),
            DecodeError::Unknown {
                what: "a command",
                number: 99,
            },
        ),
        (
            with(&[1, 1, 8]),
            DecodeError::Unknown {
                what: "flags",
                number: 8,
            },
        ),
        // A million commands in no bytes at all.
        (with(&[0xc0, 0x84, 0x3d]), DecodeError::Short),
        (with(&[1, 1, 0, 0xff, 0xff, 0x03]), DecodeError::Short),
        (
            [&with(&[])[..], &nine_ff, &[0x02]].concat(),
            DecodeError::Number,
        ),
        (with(&[1, 8, 1, 1, 0xff, 0]), DecodeError::Text),
        (deep, DecodeError::Nesting),
    ] {
        assert_eq!(
            Batch::decode(Bytes::from(bytes.clone())),
            Err(want),
            "{bytes:?}"
        );
    }
}

#[test]
fn keys_and_values_are_slices_of_the_batch() {
    let put = Command::Put(Put {
        key: "key".into(),
        value: "value".into(),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    });
    let batch = Batch {
        origin: MemberId::new(1),
        sequence: 1,
        commands: vec![put],
    };
    let bytes = Bytes::from(encoded(&batch));
    let within = bytes.as_ptr_range();
    let decoded = Batch::decode(bytes.clone()).unwrap();
    let Command::Put(put) = &decoded.commands[0] else {
        panic!("{decoded:?}")
    };
    assert!(within.contains(&put.key.as_ptr()) && within.contains(&put.value.as_ptr()));
}
