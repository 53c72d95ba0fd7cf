//! Random steps. Revisions are drawn relative to the present, and placed when a step is run.

use bytes::Bytes;
use gonfalon_core::command::{
    AlarmChange, AlarmKind, Command, Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation,
    Sort, SortOrder, SortTarget, Txn,
};
use gonfalon_core::{KeyRange, LeaseId, MemberId, Revision};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// One step of a random run.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Apply(Command),
    Read(Range),
    ReadTxn(Txn),
    /// The changes so far are written.
    Write,
    /// They are written, and memory is cut down to so many bytes.
    Evict(usize),
    /// Storage drops what is compacted.
    Sweep,
    /// The state is built anew from what was written.
    Restart,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => command().prop_map(Step::Apply),
        3 => range().prop_map(Step::Read),
        1 => read_txn().prop_map(Step::ReadTxn),
        1 => Just(Step::Write),
        1 => (0_usize..6).prop_map(|events| Step::Evict(events * 600)),
        1 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// Moves a command's relative revisions to where the present is.
pub(crate) fn placed(command: Command, present: i64) -> Command {
    match command {
        Command::Compact { revision } => Command::Compact {
            revision: place(revision, present),
        },
        Command::Txn(txn) => Command::Txn(placed_txn(txn, present)),
        other => other,
    }
}

pub(crate) fn placed_range(range: Range, present: i64) -> Range {
    let bound = |bound: i64| if bound == 0 { 0 } else { present + 1 - bound };
    Range {
        revision: range.revision.map(|revision| place(revision, present)),
        min_mod_revision: bound(range.min_mod_revision),
        max_mod_revision: bound(range.max_mod_revision),
        min_create_revision: bound(range.min_create_revision),
        max_create_revision: bound(range.max_create_revision),
        ..range
    }
}

pub(crate) fn placed_txn(txn: Txn, present: i64) -> Txn {
    let place_ops = |ops: Vec<Op>| -> Vec<Op> {
        ops.into_iter()
            .map(|op| match op {
                Op::Range(range) => Op::Range(placed_range(range, present)),
                Op::Txn(txn) => Op::Txn(placed_txn(txn, present)),
                other => other,
            })
            .collect()
    };
    Txn {
        compare: txn.compare,
        success: place_ops(txn.success),
        failure: place_ops(txn.failure),
    }
}

/// 0 is the next revision, 1 the present one, 2 the one before; negative ones stay.
fn place(revision: Revision, present: i64) -> Revision {
    match revision.get() {
        negative @ ..0 => Revision::new(negative),
        back => Revision::new(present + 1 - back),
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    select(vec!["a", "ab", "b", "c", "d"]).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    select(vec!["", "x", "y", "z"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = LeaseId> {
    select(vec![0, 0, 1, 2, -3]).prop_map(LeaseId::new)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        2 => Just(Bytes::new()),
        2 => key(),
        1 => Just(Bytes::from("e")),
        1 => Just(Bytes::from("\0"))
    ];
    (key(), end).prop_map(|(key, end)| KeyRange::from_wire(key, end))
}

fn relative_revision() -> impl Strategy<Value = Revision> {
    prop_oneof![1 => -2_i64..0, 8 => 0_i64..12].prop_map(Revision::new)
}

fn put() -> impl Strategy<Value = Put> {
    let flags = [
        prop::bool::weighted(0.5),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    ];
    (key(), value(), lease(), flags).prop_map(|(key, value, lease, flags)| Put {
        key,
        value,
        lease,
        prev_kv: flags[0],
        ignore_value: flags[1],
        ignore_lease: flags[2],
    })
}

fn delete_range() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn range() -> impl Strategy<Value = Range> {
    let order = select(vec![
        SortOrder::None,
        SortOrder::None,
        SortOrder::Ascend,
        SortOrder::Descend,
    ]);
    let target = select(vec![
        SortTarget::Key,
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let sort = (order, target).prop_map(|(order, target)| Sort { order, target });
    let bound = || prop_oneof![6 => Just(0_i64), 1 => 1_i64..10];
    let bounds = [bound(), bound(), bound(), bound()];
    let revision = prop::option::of(relative_revision());
    let flags = [prop::bool::weighted(0.2), prop::bool::weighted(0.1)];
    (key_range(), 0_usize..4, revision, sort, flags, bounds).prop_map(
        |(range, limit, revision, sort, flags, bounds)| Range {
            range,
            limit,
            revision,
            sort,
            keys_only: flags[0],
            count_only: flags[1],
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0_i64..3).prop_map(CompareTarget::Version),
        (0_i64..8).prop_map(CompareTarget::CreateRevision),
        (0_i64..8).prop_map(CompareTarget::ModRevision),
        (0_i64..3).prop_map(CompareTarget::Lease),
        value().prop_map(CompareTarget::Value),
        Just(CompareTarget::Unknown)
    ];
    let relation = select(vec![
        Relation::Equal,
        Relation::Greater,
        Relation::Less,
        Relation::NotEqual,
        Relation::Unknown,
    ]);
    (key_range(), target, relation).prop_map(|(range, target, relation)| Compare {
        range,
        target,
        relation,
    })
}

fn txn_of(op: BoxedStrategy<Op>) -> impl Strategy<Value = Txn> {
    (vec(compare(), 0..2), vec(op.clone(), 0..4), vec(op, 0..4)).prop_map(
        |(compare, success, failure)| Txn {
            compare,
            success,
            failure,
        },
    )
}

/// Also transactions that etcd's checks of duplicate keys refuse: the core must take them in stride.
fn txn() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        2 => range().prop_map(Op::Range),
        3 => put().prop_map(Op::Put),
        2 => delete_range().prop_map(Op::DeleteRange)
    ];
    txn_of(
        op.prop_recursive(2, 8, 3, |op| txn_of(op.boxed()).prop_map(Op::Txn))
            .boxed(),
    )
}

fn read_txn() -> impl Strategy<Value = Txn> {
    let op = range().prop_map(Op::Range);
    txn_of(
        op.prop_recursive(2, 8, 3, |op| txn_of(op.boxed()).prop_map(Op::Txn))
            .boxed(),
    )
}

fn command() -> impl Strategy<Value = Command> {
    let id = || select(vec![1, 2, -3]).prop_map(LeaseId::new);
    let alarm =
        (any::<bool>(), 1_u64..3, any::<bool>()).prop_map(|(activate, member, is_space)| {
            let kind = if is_space {
                AlarmKind::NoSpace
            } else {
                AlarmKind::Corrupt
            };
            Command::Alarm(AlarmChange {
                activate,
                member: MemberId::new(member),
                kind,
            })
        });
    // Alarms are mostly cleared, so that most commands are not refused.
    let clear = (1_u64..3, any::<bool>()).prop_map(|(member, is_space)| {
        let kind = if is_space {
            AlarmKind::NoSpace
        } else {
            AlarmKind::Corrupt
        };
        Command::Alarm(AlarmChange {
            activate: false,
            member: MemberId::new(member),
            kind,
        })
    });
    prop_oneof![
        20 => put().prop_map(Command::Put),
        10 => delete_range().prop_map(Command::DeleteRange),
        15 => txn().prop_map(Command::Txn),
        3 => relative_revision().prop_map(|revision| Command::Compact { revision }),
        6 => (id(), 1_i64..100).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
        3 => id().prop_map(|id| Command::LeaseRevoke { id }),
        1 => alarm,
        3 => clear,
        1 => ("[xy]", vec("[uv]", 0..2)).prop_map(|(name, client_urls)| {
            Command::PublishMember { id: MemberId::new(1), name, client_urls }
        }),
    ]
}
