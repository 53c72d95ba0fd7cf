//! `etcd-client`: keys, transactions, compaction, maintenance.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse,
};

use super::{cluster, connect, connect_to};

async fn fill(client: &mut Client, keys: &[&str]) {
    for key in keys {
        client.put(*key, "v", None).await.expect("a put");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_gets_and_deletes_with_their_options() {
    let cluster = cluster(1).await;
    let mut client = connect(&cluster).await;
    let first = client.put("k", "1", None).await.expect("a put");
    assert!(first.prev_key().is_none());
    let options = PutOptions::new().with_prev_key();
    let second = client.put("k", "2", Some(options)).await.expect("a put");
    assert_eq!(second.prev_key().expect("asked for").value(), b"1");
    let revision = first.header().expect("a header").revision();
    let old = GetOptions::new().with_revision(revision);
    let old = client.get("k", Some(old)).await.expect("a get");
    assert_eq!(old.kvs()[0].value(), b"1");

    fill(&mut client, &["p/b", "p/a", "p/c"]).await;
    let sorted = GetOptions::new()
        .with_prefix()
        .with_limit(2)
        .with_sort(SortTarget::Key, SortOrder::Descend);
    let found = client.get("p/", Some(sorted)).await.expect("a get");
    let keys: Vec<&[u8]> = found.kvs().iter().map(etcd_client::KeyValue::key).collect();
    assert_eq!(keys, [b"p/c", b"p/b"]);
    assert_eq!((found.count(), found.more()), (3, true));
    let counted = GetOptions::new().with_prefix().with_count_only();
    let counted = client.get("p/", Some(counted)).await.expect("a get");
    assert_eq!((counted.count(), counted.kvs().len()), (3, 0));

    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = client.delete("p/", Some(options)).await.expect("a delete");
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_take_one_branch_and_nest() {
    let cluster = cluster(1).await;
    let mut client = connect(&cluster).await;
    client.put("account", "100", None).await.expect("a put");
    let swap = |from: &str, to: &str| {
        Txn::new()
            .when([Compare::value("account", CompareOp::Equal, from)])
            .and_then([
                TxnOp::put("account", to, None),
                TxnOp::txn(Txn::new().and_then([TxnOp::get("account", None)])),
            ])
            .or_else([TxnOp::get("account", None)])
    };
    let done = client.txn(swap("100", "90")).await.expect("a txn");
    assert!(done.succeeded());
    let responses = done.op_responses();
    let TxnOpResponse::Txn(nested) = &responses[1] else {
        panic!("{responses:?}");
    };
    let TxnOpResponse::Get(seen) = &nested.op_responses()[0] else {
        panic!("{nested:?}");
    };
    assert_eq!(seen.kvs()[0].value(), b"90", "it reads its own write");
    let refused = client.txn(swap("100", "80")).await.expect("a txn");
    assert!(!refused.succeeded());
    let TxnOpResponse::Get(found) = &refused.op_responses()[0] else {
        panic!("{refused:?}");
    };
    assert_eq!(found.kvs()[0].value(), b"90");
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_and_errors_are_those_the_crate_knows() {
    let cluster = cluster(1).await;
    let mut client = connect(&cluster).await;
    fill(&mut client, &["a", "a", "a"]).await;
    client.compact(3, None).await.expect("a compaction");
    let old = GetOptions::new().with_revision(2);
    let error = client.get("a", Some(old)).await.expect_err("it is gone");
    let etcd_client::Error::GRpcStatus(status) = error else {
        panic!("{error}");
    };
    assert_eq!(
        (i32::from(status.code()), status.message()),
        (11, "etcdserver: mvcc: required revision has been compacted")
    );
    let status = client.status().await.expect("a status");
    assert!(status.version().starts_with("3."), "{}", status.version());
    assert_ne!(status.leader(), 0);
    let members = client.member_list().await.expect("members");
    assert_eq!(members.members()[0].id(), status.leader());
    client.defragment().await.expect("defragmented");
    assert_ne!(client.hash_kv(0).await.expect("a hash").hash(), 0);
    let mut snapshot = client.snapshot().await.expect("a snapshot");
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await.expect("a part") {
        bytes += part.blob().len();
    }
    assert!(bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_where_it_is_told_to() {
    let cluster = cluster(3).await;
    let leader = cluster.leader().await.expect("a leader");
    let mut client = connect_to(&cluster, leader).await;
    let other = (leader + 1) % 3;
    let target = cluster.client(other).status().await.expect("a status");
    let target = target.header.expect("a header").member_id;
    client.move_leader(target).await.expect("it moves");
    assert_eq!(cluster.leader().await.expect("a leader"), other);
}
