//! Transactions.

use gonfalon_proto::etcdserverpb::compare::TargetUnion;
use gonfalon_proto::etcdserverpb::response_op::Response;
use gonfalon_proto::etcdserverpb::{
    Compare, HashKvRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::requests::{all_of, compare, delete, delete_prefix, get, op, put};
use tonic::{Code, Status};

use super::{assert_refused, one, one_with};

const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";
/// `VALUE` and `VERSION` among the targets.
const VALUE: i32 = 3;
const VERSION: i32 = 0;
/// Among the relations.
const EQUAL: i32 = 0;

items! {
    always {
        item_07_a_comparison_with_the_value_of_a_missing_key_is_false,
        item_08_a_comparison_that_nobody_knows_is_true,
        item_09_no_key_is_put_twice_whatever_branch_is_taken,
        item_10_inner_headers_have_a_revision_and_nothing_else,
        item_34_operations_of_nested_transactions_share_one_budget,
        the_limits_are_options,
        transactions_nest_as_deep_as_their_budget_allows,
        a_comparison_over_a_range_holds_for_every_key,
        an_operation_without_a_request_is_refused,
    }
    now {
        item_42_an_error_in_a_write_leaves_no_effect_on_any_member,
    }
}

async fn send(client: &Client, txn: TxnRequest) -> Result<TxnResponse, Status> {
    Ok(client.kv.clone().txn(txn).await?.into_inner())
}

async fn holds(client: &Client, condition: Compare) -> bool {
    let txn = TxnRequest {
        compare: vec![condition],
        ..TxnRequest::default()
    };
    send(client, txn)
        .await
        .expect("the comparison is answered")
        .succeeded
}

async fn item_07_a_comparison_with_the_value_of_a_missing_key_is_false(server: Server) {
    let (_cluster, client) = one(server).await;
    for result in 0..4 {
        let value = TargetUnion::Value("x".into());
        let is_true = holds(&client, compare("missing", result, VALUE, value)).await;
        assert!(
            !is_true,
            "relation {result} to the value of a key that is not there"
        );
    }
    assert!(
        holds(
            &client,
            compare("missing", 0, VERSION, TargetUnion::Version(0))
        )
        .await
    );
}

async fn item_08_a_comparison_that_nobody_knows_is_true(server: Server) {
    let (_cluster, client) = one(server).await;
    client.put("a", "1").await.expect("a put");
    assert!(
        holds(&client, compare("a", 9, VERSION, TargetUnion::Version(5))).await,
        "relation 9"
    );
    assert!(
        holds(&client, compare("a", 0, 9, TargetUnion::Version(5))).await,
        "target 9"
    );
    // A value of another kind counts as the zero of the target's.
    let mixed = compare("a", 0, VERSION, TargetUnion::Value("1".into()));
    assert!(!holds(&client, mixed).await, "version 1 is not 0");
}

async fn item_09_no_key_is_put_twice_whatever_branch_is_taken(server: Server) {
    let (_cluster, client) = one(server).await;
    let twice = vec![op(put("a", "1")), op(put("a", "2"))];
    let untaken = TxnRequest {
        failure: twice,
        ..TxnRequest::default()
    };
    assert_refused(
        send(&client, untaken).await,
        Code::InvalidArgument,
        DUPLICATE,
    );
    let put_and_delete = all_of(vec![op(delete_prefix("a")), op(put("ab", "1"))]);
    assert_refused(
        send(&client, put_and_delete).await,
        Code::InvalidArgument,
        DUPLICATE,
    );
    let nested = all_of(vec![op(put("a", "1")), op(all_of(vec![op(put("a", "2"))]))]);
    assert_refused(
        send(&client, nested).await,
        Code::InvalidArgument,
        DUPLICATE,
    );

    let deletes = all_of(vec![op(delete("a")), op(delete_prefix("a"))]);
    send(&client, deletes).await.expect("deletions may overlap");
    let branches = TxnRequest {
        success: vec![op(put("a", "1"))],
        failure: vec![op(put("a", "2"))],
        ..TxnRequest::default()
    };
    send(&client, all_of(vec![op(branches)]))
        .await
        .expect("only one branch is taken");
    assert_eq!(
        client.get("a").await.expect("a read").kvs[0].value.as_ref(),
        b"1"
    );
}

async fn item_10_inner_headers_have_a_revision_and_nothing_else(server: Server) {
    let (_cluster, client) = one(server).await;
    let txn = all_of(vec![
        op(put("a", "1")),
        op(get("a")),
        op(all_of(vec![op(put("b", "1"))])),
    ]);
    let answer = send(&client, txn).await.expect("a transaction");
    let outer = answer.header.expect("a header");
    assert!(
        outer.cluster_id != 0 && outer.member_id != 0 && outer.raft_term != 0,
        "{outer:?}"
    );
    assert_eq!(outer.revision, 2);
    let [first, second, third] = answer.responses.as_slice() else {
        panic!("three answers")
    };
    let Some(Response::ResponsePut(first)) = &first.response else {
        panic!("a put")
    };
    let Some(Response::ResponseRange(second)) = &second.response else {
        panic!("a range")
    };
    let Some(Response::ResponseTxn(third)) = &third.response else {
        panic!("a transaction")
    };
    for header in [first.header, second.header] {
        let header = header.expect("a header");
        assert_eq!(header.revision, 2);
        assert_eq!(
            (header.cluster_id, header.member_id, header.raft_term),
            (0, 0, 0)
        );
    }
    assert_eq!(
        second.kvs[0].mod_revision, 2,
        "a read sees the put before it"
    );
    assert_eq!(
        third.header,
        Some(ResponseHeader::default()),
        "present and empty"
    );
}

async fn item_34_operations_of_nested_transactions_share_one_budget(server: Server) {
    let (_cluster, client) = one(server).await;
    let reads = |n: usize| vec![op(get("a")); n];
    send(&client, all_of(reads(128)))
        .await
        .expect("128 operations");
    assert_refused(
        send(&client, all_of(reads(129))).await,
        Code::InvalidArgument,
        TOO_MANY,
    );
    let with_nested = |outer: usize, inner: usize| {
        let mut ops = reads(outer - 1);
        ops.push(op(all_of(reads(inner))));
        all_of(ops)
    };
    send(&client, with_nested(28, 100))
        .await
        .expect("28 and 100 operations");
    let above = send(&client, with_nested(28, 101)).await;
    assert_refused(above, Code::InvalidArgument, TOO_MANY);
}

async fn the_limits_are_options(server: Server) {
    let flags = ["--max-txn-ops", "3", "--max-request-bytes", "10000"];
    let (_cluster, client) = one_with(server, &flags).await;
    let reads = |n: usize| all_of(vec![op(get("a")); n]);
    send(&client, reads(3)).await.expect("three operations");
    let refused = send(&client, reads(4)).await;
    assert_refused(refused, Code::InvalidArgument, TOO_MANY);

    let put_of = |bytes: usize| put("a", &"v".repeat(bytes));
    let mut kv = client.kv.clone();
    kv.put(put_of(9_900)).await.expect("below the limit");
    let too_large = "etcdserver: request is too large";
    let refused = kv.put(put_of(10_001)).await;
    assert_refused(refused, Code::InvalidArgument, too_large);
    let half = || op(put("b", &"v".repeat(5_000)));
    let nested = all_of(vec![op(put_of(5_000)), op(all_of(vec![half()]))]);
    let refused = send(&client, nested).await;
    assert_refused(refused, Code::InvalidArgument, too_large);
    // gRPC lets half a megabyte more through.
    let refused = kv.put(put_of(520_000)).await;
    assert_refused(refused, Code::InvalidArgument, too_large);
    let refused = kv.put(put_of(600_000)).await.expect_err("it is refused");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().ends_with(" vs. 534288)"), "{refused:?}");
}

async fn transactions_nest_as_deep_as_their_budget_allows(server: Server) {
    let (_cluster, client) = one(server).await;
    let nested = |depth: usize| {
        let mut txn = TxnRequest::default();
        for _ in 0..depth {
            txn = all_of(vec![op(txn)]);
        }
        // Not taken: clients of tonic cannot read answers that are as deep.
        TxnRequest {
            compare: vec![compare("missing", EQUAL, VERSION, TargetUnion::Version(1))],
            ..txn
        }
    };
    for depth in [1, 49, 50, 60, 128] {
        let answer = send(&client, nested(depth)).await;
        let answer = answer.unwrap_or_else(|status| panic!("{depth} deep: {status}"));
        assert!(!answer.succeeded && answer.responses.is_empty());
    }
    for depth in [129, 500] {
        let refused = send(&client, nested(depth)).await;
        assert_refused(refused, Code::InvalidArgument, TOO_MANY);
    }
}

/// etcd 3.4.23 fails this: members that owe nobody an answer do the puts (fixed in 3.7.0).
async fn item_42_an_error_in_a_write_leaves_no_effect_on_any_member(server: Server) {
    let cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    let client = cluster.client(0);
    client.put("a", "1").await.expect("a put");
    let future = RangeRequest {
        revision: 99,
        ..get("a")
    };
    let txn = all_of(vec![
        op(put("a", "2")),
        op(delete("b")),
        op(future),
        op(put("c", "1")),
    ]);
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(send(&client, txn).await, Code::OutOfRange, text);
    let mut hashes = Vec::new();
    for at in 0..3 {
        let member = cluster.client(at);
        let read = member.get("a").await.expect("a read");
        assert_eq!(
            (read.header.expect("a header").revision, read.kvs[0].version),
            (2, 1)
        );
        let hash = member
            .maintenance
            .clone()
            .hash_kv(HashKvRequest { revision: 0 })
            .await;
        hashes.push(hash.expect("a hash").into_inner().hash);
    }
    assert!(
        hashes.iter().all(|hash| *hash == hashes[0]),
        "members differ: {hashes:?}"
    );
}

async fn a_comparison_over_a_range_holds_for_every_key(server: Server) {
    let (_cluster, client) = one(server).await;
    for (key, value) in [("a/1", "x"), ("a/2", "x"), ("b", "y")] {
        client.put(key, value).await.expect("a put");
    }
    let all_are = |prefix: &str, value: &str| Compare {
        range_end: gonfalon_tests::client::prefix_end(prefix),
        ..compare(
            prefix,
            0,
            VALUE,
            TargetUnion::Value(value.to_owned().into()),
        )
    };
    assert!(holds(&client, all_are("a/", "x")).await);
    assert!(!holds(&client, all_are("a/", "y")).await);
    client.put("a/3", "y").await.expect("a put");
    assert!(
        !holds(&client, all_are("a/", "x")).await,
        "one of three is another"
    );
    let of_nothing = Compare {
        range_end: gonfalon_tests::client::prefix_end("z/"),
        ..compare("z/", 1, VERSION, TargetUnion::Version(0))
    };
    assert!(
        !holds(&client, of_nothing).await,
        "no key at all counts as a missing one"
    );
}

async fn an_operation_without_a_request_is_refused(server: Server) {
    let (_cluster, client) = one(server).await;
    let txn = all_of(vec![RequestOp { request: None }]);
    let answer = send(&client, txn).await;
    assert_refused(answer, Code::InvalidArgument, "etcdserver: key not found");
    let empty = send(&client, TxnRequest::default())
        .await
        .expect("an empty transaction");
    assert!(empty.succeeded, "all of no conditions hold");
    assert_eq!(
        empty.header.expect("a header").revision,
        1,
        "and nothing has changed"
    );
}
