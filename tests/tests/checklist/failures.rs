//! What holds when members stop: alone, over a restart, and under a new leader.

use std::time::{Duration, Instant};

use gonfalon_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, HashKvRequest, LeaseGrantRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RangeResponse, WatchCreateRequest,
};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::client::Client;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::requests::{all_of, delete, get, get_all, op, put, watch};
use gonfalon_tests::streams::WatchStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::{PATIENCE, assert_refused, one};

items! {
    always {
        a_member_without_a_quorum_tells_what_it_knows_and_promises_nothing,
        a_restart_forgets_nothing,
        a_lease_does_not_end_early_under_a_new_leader,
    }
    now {}
}

const NO_LEADER: &str = "etcdserver: no leader";

fn local(request: RangeRequest) -> RangeRequest {
    RangeRequest {
        serializable: true,
        ..request
    }
}

/// Waits until a member knows that there is no leader.
async fn leaderless(client: &Client) {
    let lost = async {
        while client.status().await.expect("a status").leader != 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lost)
        .await
        .expect("a member that hears of nobody has no leader");
}

async fn a_member_without_a_quorum_tells_what_it_knows_and_promises_nothing(server: Server) {
    let mut cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    let client = cluster.client(0);
    client.put("a", "1").await.expect("a put");
    client.get("a").await.expect("the member has it");
    for other in [1, 2] {
        cluster.kill(other).expect("it ran");
    }
    leaderless(&client).await;

    let errors = client.status().await.expect("a status").errors;
    assert_eq!(errors, [NO_LEADER]);
    let mut kv = client.kv.clone();
    let read = kv.range(local(get("a"))).await.expect("a local read");
    assert_eq!(read.into_inner().kvs[0].value, "1");
    let reads = all_of(vec![op(local(get("a")))]);
    kv.txn(reads).await.expect("a transaction of local reads");
    let mut stream = WatchStream::open(&client);
    let from_the_first = WatchCreateRequest {
        start_revision: 1,
        ..watch("a")
    };
    stream.create(from_the_first).await;
    assert!(stream.next(PATIENCE).await.expect("an answer").created);
    let history = stream.next(PATIENCE).await.expect("history");
    assert_eq!(history.events.len(), 1);

    let mut insisting = Request::new(local(get("a")));
    let yes = MetadataValue::from_static("true");
    insisting.metadata_mut().insert("hasleader", yes);
    assert_refused(kv.range(insisting).await, Code::Unavailable, NO_LEADER);
    let lost = client.put("a", "2").await.expect_err("nobody can agree");
    if server.is_current() {
        assert_eq!(lost.code(), Code::Unavailable, "{lost:?}");
        let text = lost.message();
        let is_known = text == NO_LEADER || text.starts_with("etcdserver: request timed out");
        assert!(is_known, "{text}");
    } else {
        // It waits for a leader to propose to, and passes on what ended the wait.
        assert_eq!(lost.message(), "context deadline exceeded");
    }
}

/// All that a client can ask a lone member about its state.
#[derive(Debug, PartialEq)]
struct Everything {
    keys: RangeResponse,
    old: RangeResponse,
    leased: Vec<bytes::Bytes>,
    granted: i64,
    hash: (u32, i64),
    alarms: AlarmResponse,
}

impl Everything {
    async fn ask(client: &Client, old_revision: i64, lease: i64) -> Self {
        let range = async |request| {
            let answer = client.kv.clone().range(request).await;
            let mut answer = answer.expect("a read").into_inner();
            // Another term after a restart.
            answer.header.as_mut().expect("a header").raft_term = 0;
            answer
        };
        let request = LeaseTimeToLiveRequest {
            id: lease,
            keys: true,
        };
        let time = client.lease.clone().lease_time_to_live(request).await;
        let time = time.expect("a lease's time").into_inner();
        let mut maintenance = client.maintenance.clone();
        let hash = maintenance.hash_kv(HashKvRequest { revision: 0 }).await;
        let hash = hash.expect("a hash").into_inner();
        let alarms = maintenance.alarm(AlarmRequest::default()).await;
        let mut alarms = alarms.expect("alarms").into_inner();
        alarms.header = None;
        Self {
            keys: range(get_all()).await,
            old: range(RangeRequest {
                revision: old_revision,
                ..get_all()
            })
            .await,
            leased: time.keys,
            granted: time.granted_ttl,
            hash: (hash.hash, hash.compact_revision),
            alarms,
        }
    }
}

async fn a_restart_forgets_nothing(server: Server) {
    let (mut cluster, client) = one(server).await;
    let mut kv = client.kv.clone();
    let grant = LeaseGrantRequest { id: -7, ttl: 600 };
    let granted = client.lease.clone().lease_grant(grant).await;
    granted.expect("a lease");
    for value in ["1", "2", "3", "4"] {
        client.put("a", value).await.expect("a put");
    }
    let leased = PutRequest {
        lease: -7,
        ..put("b", "1")
    };
    kv.put(leased).await.expect("a put");
    let both = all_of(vec![op(put("c", "1")), op(delete("a"))]);
    kv.txn(both).await.expect("a transaction");
    let compact = CompactionRequest {
        revision: 4,
        physical: true,
    };
    kv.compact(compact).await.expect("a compaction");
    let own_id = client.status().await.expect("a status").leader;
    let raise = AlarmRequest {
        action: 1,
        member_id: own_id,
        alarm: 1,
    };
    let raised = client.maintenance.clone().alarm(raise).await;
    raised.expect("an alarm is raised");
    let before = Everything::ask(&client, 5, -7).await;
    assert_eq!((before.keys.count, before.old.count), (2, 1), "{before:?}");
    assert_eq!((before.granted, before.leased.len()), (600, 1));
    assert_eq!(before.hash.1, 4);

    cluster.kill(0).expect("it ran");
    cluster.start_member(0).expect("it starts again");
    cluster.ready().await.expect("it is ready");
    assert_eq!(Everything::ask(&client, 5, -7).await, before);
    let gone = RangeRequest {
        revision: 3,
        ..get("a")
    };
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_refused(kv.range(gone).await, Code::OutOfRange, text);
    let mut stream = WatchStream::open(&client);
    let from_five = WatchCreateRequest {
        start_revision: 5,
        prev_kv: true,
        ..watch("a")
    };
    stream.create(from_five).await;
    assert!(stream.next(PATIENCE).await.expect("an answer").created);
    let history = stream.next(PATIENCE).await.expect("history").events;
    let values: Vec<_> = history
        .iter()
        .map(|event| &event.prev_kv.as_ref().expect("what was before").value)
        .collect();
    assert_eq!(values, ["3", "4"], "{history:?}");
}

/// Nobody knows when the old leader renewed a lease last: the new one begins its time again.
async fn a_lease_does_not_end_early_under_a_new_leader(server: Server) {
    let mut cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    let leader = cluster.leader().await.expect("a leader");
    let client = cluster.client((leader + 1) % 3);
    let grant = LeaseGrantRequest { id: 7, ttl: 3 };
    let granted = client.lease.clone().lease_grant(grant).await;
    granted.expect("a lease");
    let leased = PutRequest {
        lease: 7,
        ..put("a", "1")
    };
    client.kv.clone().put(leased).await.expect("a put");
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.kill(leader).expect("it ran");
    cluster.ready().await.expect("the others elect a leader");
    let elected = Instant::now();
    let gone = async {
        loop {
            let read = client.kv.clone().range(local(get("a"))).await;
            if read.expect("a local read").into_inner().count == 0 {
                return elected.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let lived = tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("nobody renews the lease");
    // The new leader was at work a little before it was seen to be.
    assert!(
        lived > Duration::from_secs(2),
        "gone {lived:?} after the election, of 3 s"
    );
}
