//! What the parser accepts, and the text of each refusal.

use super::*;

const LIMITS: Limits = Limits {
    request_bytes: 1_572_864,
    txn_ops: 128,
    lease_ttl_min: 2,
};

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn write(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

fn remove(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn request(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn op_get(key: &str) -> pb::RequestOp {
    request(pb::request_op::Request::RequestRange(get(key)))
}

fn op_put(key: &str) -> pb::RequestOp {
    request(pb::request_op::Request::RequestPut(write(key, "v")))
}

fn op_delete(key: &str) -> pb::RequestOp {
    request(pb::request_op::Request::RequestDeleteRange(remove(key)))
}

fn op_txn(txn: pb::TxnRequest) -> pb::RequestOp {
    request(pb::request_op::Request::RequestTxn(txn))
}

fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        success,
        ..Default::default()
    }
}

#[test]
fn an_empty_key_is_refused_wherever_one_is_needed() {
    let compare = pb::TxnRequest {
        compare: vec![pb::Compare::default()],
        ..Default::default()
    };
    let refusals = [
        range(get("")).err(),
        put(write("", "v"), &LIMITS).err(),
        delete(remove(""), &LIMITS).err(),
        txn(compare, &LIMITS).err(),
        txn(then(vec![op_get("")]), &LIMITS).err(),
        txn(then(vec![op_put("")]), &LIMITS).err(),
        txn(then(vec![op_delete("")]), &LIMITS).err(),
        txn(
            pb::TxnRequest {
                failure: vec![op_get("")],
                ..Default::default()
            },
            &LIMITS,
        )
        .err(),
        txn(then(vec![op_txn(then(vec![op_get("")]))]), &LIMITS).err(),
    ];
    for (row, refusal) in refusals.into_iter().enumerate() {
        assert_eq!(refusal, Some(Refusal::EmptyKey), "row {row}");
    }
}

#[test]
fn orders_and_targets_outside_of_their_enums_are_refused() {
    for (order, target, is_fine) in [
        (0, 0, true),
        (2, 4, true),
        (3, 0, false),
        (0, 5, false),
        (-1, 0, false),
        (0, -1, false),
    ] {
        let request = pb::RangeRequest {
            sort_order: order,
            sort_target: target,
            ..get("a")
        };
        let wanted = if is_fine {
            None
        } else {
            Some(Refusal::InvalidSortOption)
        };
        assert_eq!(
            range(request).err(),
            wanted,
            "order {order}, target {target}"
        );
    }
}

#[test]
fn a_negative_limit_is_none_and_a_negative_revision_is_the_present_outside_of_a_transaction() {
    let request = pb::RangeRequest {
        limit: -3,
        revision: -7,
        ..get("a")
    };
    let read = range(request.clone()).unwrap();
    assert_eq!((read.range.limit, read.range.revision), (0, None));

    let within = txn(then(vec![request_of(request)]), &LIMITS).unwrap();
    let Op::Range(within) = &within.txn.success[0] else {
        panic!("a range stays one")
    };
    assert_eq!(
        within.revision,
        Some(Revision::new(-7)),
        "below every compaction"
    );
}

fn request_of(range: pb::RangeRequest) -> pb::RequestOp {
    request(pb::request_op::Request::RequestRange(range))
}

#[test]
fn a_stream_is_in_key_order_and_unfiltered() {
    let sorted = |order, target| pb::RangeRequest {
        sort_order: order,
        sort_target: target,
        ..get("a")
    };
    let wanted = [
        (get("a"), None),
        (sorted(1, 0), None),
        (sorted(2, 0), Some(Refusal::StreamSortOrder)),
        (sorted(1, 3), Some(Refusal::StreamSortOrder)),
        (sorted(0, 3), None),
        (
            pb::RangeRequest {
                max_create_revision: 9,
                ..get("a")
            },
            Some(Refusal::StreamRevisionFilter),
        ),
        (sorted(0, 9), Some(Refusal::InvalidSortOption)),
        (get(""), Some(Refusal::EmptyKey)),
    ];
    for (request, refusal) in wanted {
        assert_eq!(range_stream(request.clone()).err(), refusal, "{request:?}");
    }
}

#[test]
fn what_is_to_be_ignored_must_not_be_given() {
    let both = pb::PutRequest {
        ignore_value: true,
        ..write("a", "v")
    };
    assert_eq!(put(both, &LIMITS).err(), Some(Refusal::ValueProvided));
    let both = pb::PutRequest {
        ignore_lease: true,
        lease: 7,
        ..write("a", "v")
    };
    assert_eq!(put(both, &LIMITS).err(), Some(Refusal::LeaseProvided));
    let neither = pb::PutRequest {
        ignore_value: true,
        ignore_lease: true,
        ..write("a", "")
    };
    assert!(put(neither, &LIMITS).is_ok());
}

#[test]
fn a_write_may_be_as_large_as_etcds_limit_allows_and_no_larger() {
    let limits = Limits {
        request_bytes: 1_572_864,
        ..LIMITS
    };
    // Tried with etcd 3.4 and 3.5: the longest value and the longest key that they take.
    assert!(put(write("k", &"v".repeat(1_572_840)), &limits).is_ok());
    assert_eq!(
        put(write("k", &"v".repeat(1_572_841)), &limits).err(),
        Some(Refusal::RequestTooLarge)
    );
    assert!(delete(remove(&"k".repeat(1_572_843)), &limits).is_ok());
    assert_eq!(
        delete(remove(&"k".repeat(1_572_844)), &limits).err(),
        Some(Refusal::RequestTooLarge)
    );
    let limits = Limits {
        request_bytes: 100,
        ..LIMITS
    };
    let writes = then(vec![op_put("a"), op_get(&"k".repeat(100))]);
    assert_eq!(txn(writes, &limits).err(), Some(Refusal::RequestTooLarge));
    let reads = then(vec![op_get(&"k".repeat(100))]);
    assert!(
        txn(reads, &limits).is_ok(),
        "what only reads is not written down anywhere"
    );
}

#[test]
fn an_operation_that_is_none_of_those_known_is_refused() {
    let nothing = pb::RequestOp { request: None };
    assert_eq!(
        txn(then(vec![nothing]), &LIMITS).err(),
        Some(Refusal::KeyNotFound)
    );
}

#[test]
fn the_longest_list_counts_and_leaves_the_rest_to_transactions_within() {
    let limits = Limits {
        txn_ops: 4,
        ..LIMITS
    };
    let gets = |count: usize| vec![op_get("a"); count];
    let compares = |count: usize| {
        vec![
            pb::Compare {
                key: "a".into(),
                ..Default::default()
            };
            count
        ]
    };
    let with = |compare, success, failure| pb::TxnRequest {
        compare,
        success,
        failure,
    };
    let nested = |outer: usize, inner: usize| {
        let mut ops = gets(outer - 1);
        ops.push(op_txn(then(gets(inner))));
        then(ops)
    };
    for (name, request, is_fine) in [
        ("nothing", then(vec![]), true),
        ("4 of each", with(compares(4), gets(4), gets(4)), true),
        ("5 compares", with(compares(5), vec![], vec![]), false),
        ("5 on success", with(vec![], gets(5), vec![]), false),
        ("5 on failure", with(vec![], vec![], gets(5)), false),
        ("1 around 3", nested(1, 3), true),
        ("1 around 4", nested(1, 4), false),
        ("4 around 0", nested(4, 0), true),
        ("4 around 1", nested(4, 1), false),
    ] {
        let wanted = if is_fine {
            None
        } else {
            Some(Refusal::TooManyOps)
        };
        assert_eq!(txn(request, &limits).err(), wanted, "{name}");
    }
}

#[test]
fn both_branches_are_checked_for_keys_put_twice() {
    let twice = || vec![op_put("a"), op_put("a")];
    assert_eq!(
        txn(then(twice()), &LIMITS).err(),
        Some(Refusal::DuplicateKey)
    );
    let on_failure = pb::TxnRequest {
        failure: twice(),
        ..Default::default()
    };
    assert_eq!(txn(on_failure, &LIMITS).err(), Some(Refusal::DuplicateKey));
    let one_each = pb::TxnRequest {
        success: vec![op_put("a")],
        failure: vec![op_put("a")],
        compare: vec![],
    };
    assert!(txn(one_each, &LIMITS).is_ok());
}

#[test]
fn only_plain_ranges_are_served_without_the_log() {
    let local = || {
        request_of(pb::RangeRequest {
            serializable: true,
            ..get("a")
        })
    };
    for (name, request, effect) in [
        (
            "nothing at all",
            then(vec![]),
            Effect::Read { serializable: true },
        ),
        (
            "a range",
            then(vec![op_get("a")]),
            Effect::Read {
                serializable: false,
            },
        ),
        (
            "a stale range",
            then(vec![local()]),
            Effect::Read { serializable: true },
        ),
        (
            "one of each",
            then(vec![local(), op_get("a")]),
            Effect::Read {
                serializable: false,
            },
        ),
        ("a put", then(vec![op_put("a")]), Effect::Write),
        (
            "a deletion",
            then(vec![op_get("a"), op_delete("a")]),
            Effect::Write,
        ),
        (
            "a transaction within",
            then(vec![op_txn(then(vec![]))]),
            Effect::Write,
        ),
        (
            "a put on failure",
            pb::TxnRequest {
                failure: vec![op_put("a")],
                ..Default::default()
            },
            Effect::Write,
        ),
    ] {
        assert_eq!(txn(request, &LIMITS).unwrap().effect, effect, "{name}");
    }
}

#[test]
fn a_compare_whose_value_is_of_another_kind_compares_with_zero() {
    use pb::compare::TargetUnion;
    let parsed = |target, union| {
        let request = pb::Compare {
            key: "a".into(),
            target,
            target_union: union,
            ..Default::default()
        };
        compare(request).unwrap().target
    };
    for (target, union, wanted) in [
        (0, Some(TargetUnion::Version(7)), CompareTarget::Version(7)),
        (0, Some(TargetUnion::Lease(7)), CompareTarget::Version(0)),
        (
            1,
            Some(TargetUnion::CreateRevision(7)),
            CompareTarget::CreateRevision(7),
        ),
        (1, None, CompareTarget::CreateRevision(0)),
        (
            2,
            Some(TargetUnion::ModRevision(7)),
            CompareTarget::ModRevision(7),
        ),
        (
            2,
            Some(TargetUnion::Version(7)),
            CompareTarget::ModRevision(0),
        ),
        (
            3,
            Some(TargetUnion::Value("v".into())),
            CompareTarget::Value("v".into()),
        ),
        (
            3,
            Some(TargetUnion::Version(7)),
            CompareTarget::Value("".into()),
        ),
        (4, Some(TargetUnion::Lease(7)), CompareTarget::Lease(7)),
        (4, None, CompareTarget::Lease(0)),
        (5, Some(TargetUnion::Version(7)), CompareTarget::Unknown),
    ] {
        assert_eq!(
            parsed(target, union.clone()),
            wanted,
            "target {target}, {union:?}"
        );
    }
}

#[test]
fn a_relation_outside_of_its_enum_is_kept_as_unknown() {
    for (result, relation) in [
        (0, Relation::Equal),
        (1, Relation::Greater),
        (2, Relation::Less),
        (3, Relation::NotEqual),
        (4, Relation::Unknown),
    ] {
        let request = pb::Compare {
            key: "a".into(),
            result,
            ..Default::default()
        };
        assert_eq!(
            compare(request).unwrap().relation,
            relation,
            "result {result}"
        );
    }
}

#[test]
fn a_lease_lasts_as_long_as_asked_but_not_shorter_than_an_election() {
    for (asked, granted) in [(60, 60), (1, 2), (0, 2), (-5, 2), (i64::MAX, i64::MAX)] {
        assert_eq!(lease_ttl(asked, &LIMITS), granted, "{asked} s");
    }
}
