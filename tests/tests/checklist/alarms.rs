//! Alarms: a cluster that has no space, or whose members differ.

use gonfalon_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, DefragmentRequest, LeaseGrantRequest,
    LeaseRevokeRequest, TxnRequest,
};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::requests::{all_of, delete, delete_prefix, get, op, put};
use tonic::{Code, Status};

use super::{assert_refused, one, one_with};

/// What to do with an alarm, and the alarms.
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;
const NO_SPACE: i32 = 1;
const CORRUPT: i32 = 2;

const NO_SPACE_TEXT: &str = "etcdserver: mvcc: database space exceeded";
const CORRUPT_TEXT: &str = "etcdserver: corrupt cluster";

items! {
    always {
        a_full_store_refuses_writes_until_it_is_disarmed,
        without_space_only_what_takes_space_is_refused,
        a_corrupt_cluster_is_only_read,
    }
    now {}
}

async fn alarm(client: &Client, request: AlarmRequest) -> AlarmResponse {
    let answer = client.maintenance.clone().alarm(request).await;
    answer.expect("an answer about alarms").into_inner()
}

async fn member_id(client: &Client) -> u64 {
    let status = client.status().await.expect("a status");
    status.header.expect("a header").member_id
}

/// Writes until the server refuses to; why it does.
async fn fill(client: &Client) -> Status {
    let value = "v".repeat(100_000);
    for at in 0..200 {
        if let Err(status) = client.put(&format!("k/{at}"), &value).await {
            return status;
        }
    }
    panic!("20 MB fit into a quota of 2 MB");
}

async fn a_full_store_refuses_writes_until_it_is_disarmed(server: Server) {
    // What one member may take: enough to start with, and soon used up.
    let (_cluster, client) = one_with(server, &["--quota-backend-bytes", "2000000"]).await;
    let refused = fill(&client).await;
    assert_refused(
        Err::<(), _>(refused),
        Code::ResourceExhausted,
        NO_SPACE_TEXT,
    );
    let raised = alarm(&client, AlarmRequest::default()).await.alarms;
    let [only] = raised.as_slice() else {
        panic!("one alarm, not {raised:?}")
    };
    assert_eq!(
        (only.alarm, only.member_id),
        (NO_SPACE, member_id(&client).await)
    );
    let errors = client.status().await.expect("a status").errors;
    assert!(errors.iter().any(|e| e.contains("NOSPACE")), "{errors:?}");

    // Reading, deleting, compacting and giving space back go on.
    client.get("k/0").await.expect("a read");
    let deleted = client.kv.clone().delete_range(delete_prefix("k/")).await;
    let deleted = deleted.expect("a deletion").into_inner();
    let compact = CompactionRequest {
        revision: deleted.header.expect("a header").revision,
        physical: true,
    };
    client
        .kv
        .clone()
        .compact(compact)
        .await
        .expect("a compaction");
    let request = DefragmentRequest {};
    let mut maintenance = client.maintenance.clone();
    maintenance.defragment(request).await.expect("defragmented");

    let still = client.put("a", "1").await;
    assert_refused(still, Code::ResourceExhausted, NO_SPACE_TEXT);
    let off = AlarmRequest {
        action: DEACTIVATE,
        member_id: only.member_id,
        alarm: NO_SPACE,
    };
    assert_eq!(
        alarm(&client, off).await.alarms,
        raised,
        "what was disarmed"
    );
    assert_eq!(alarm(&client, off).await.alarms, [], "and not twice");
    client.put("a", "1").await.expect("there is room again");
}

async fn without_space_only_what_takes_space_is_refused(server: Server) {
    let (_cluster, client) = one(server).await;
    let lease = |id| LeaseGrantRequest { id, ttl: 60 };
    let mut leases = client.lease.clone();
    leases.lease_grant(lease(7)).await.expect("a lease");
    client.put("a", "1").await.expect("a put");
    let on = AlarmRequest {
        action: ACTIVATE,
        member_id: member_id(&client).await,
        alarm: NO_SPACE,
    };
    assert_eq!(alarm(&client, on).await.alarms.len(), 1, "raised by hand");

    let refused = leases.lease_grant(lease(8)).await;
    assert_refused(refused, Code::ResourceExhausted, NO_SPACE_TEXT);
    let refused = client.put("a", "2").await;
    assert_refused(refused, Code::ResourceExhausted, NO_SPACE_TEXT);
    // What a transaction would take is counted over both branches.
    let untaken = TxnRequest {
        failure: vec![op(put("a", "2"))],
        ..all_of(vec![op(get("a"))])
    };
    let mut kv = client.kv.clone();
    let refused = kv.txn(untaken).await;
    assert_refused(refused, Code::ResourceExhausted, NO_SPACE_TEXT);

    let deletes = all_of(vec![op(get("a")), op(delete("a"))]);
    kv.txn(deletes).await.expect("a transaction that deletes");
    let revoke = LeaseRevokeRequest { id: 7 };
    leases.lease_revoke(revoke).await.expect("revoked");
    let off = AlarmRequest {
        action: DEACTIVATE,
        ..on
    };
    alarm(&client, off).await;
    client.put("a", "3").await.expect("and taken back");
}

/// etcd's own check raises this alarm; by hand it has the same effect.
async fn a_corrupt_cluster_is_only_read(server: Server) {
    let (_cluster, client) = one(server).await;
    client.put("a", "1").await.expect("a put");
    let on = AlarmRequest {
        action: ACTIVATE,
        member_id: member_id(&client).await,
        alarm: CORRUPT,
    };
    alarm(&client, on).await;
    let (mut kv, mut lease) = (client.kv.clone(), client.lease.clone());
    let grant = LeaseGrantRequest { id: 7, ttl: 60 };
    let compact = CompactionRequest {
        revision: 1,
        physical: false,
    };
    let refusals = [
        ("put", client.put("a", "2").await.err()),
        ("delete", kv.delete_range(delete("a")).await.err()),
        ("txn", kv.txn(all_of(vec![op(delete("a"))])).await.err()),
        ("compact", kv.compact(compact).await.err()),
        ("grant", lease.lease_grant(grant).await.err()),
        (
            "revoke",
            lease.lease_revoke(LeaseRevokeRequest { id: 7 }).await.err(),
        ),
    ];
    for (call, refusal) in refusals {
        let status = refusal.unwrap_or_else(|| panic!("{call} of a corrupt cluster is answered"));
        assert_eq!(
            (status.code(), status.message()),
            (Code::DataLoss, CORRUPT_TEXT),
            "{call}"
        );
    }
    let read = client.get("a").await.expect("a read");
    assert_eq!(read.kvs[0].value, "1");
    let read_only = all_of(vec![op(get("a"))]);
    kv.txn(read_only).await.expect("a transaction that reads");
}
