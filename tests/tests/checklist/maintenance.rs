//! What operators and their tools ask for.

use std::time::{Duration, Instant};

use gonfalon_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, HashKvRequest, MemberListRequest, MoveLeaderRequest,
    RangeRequest, SnapshotRequest,
};
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;
use gonfalon_tests::requests::get;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::{PATIENCE, assert_refused, one, one_with};

items! {
    always {
        item_25_answers_about_the_cluster_have_no_revision,
        item_26_a_snapshot_ends_with_the_hash_of_what_it_holds,
        hashes_are_equal_on_all_members,
        history_is_compacted_by_itself,
        the_health_service_serves,
    }
    now {
        item_24_some_answers_have_no_header,
        item_27_the_version_lets_clients_use_what_is_there,
        leadership_is_given_away_on_request,
    }
}

async fn item_24_some_answers_have_no_header(server: Server) {
    let cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    let leader = cluster.leader().await.expect("a leader");
    let client = cluster.client(leader);
    let mut maintenance = client.maintenance.clone();
    let defragmented = maintenance
        .defragment(DefragmentRequest {})
        .await
        .expect("an answer");
    assert_eq!(defragmented.into_inner().header, None);
    let other = cluster
        .client((leader + 1) % 3)
        .status()
        .await
        .expect("a status");
    let target_id = other.header.expect("a header").member_id;
    let moved = maintenance
        .move_leader(MoveLeaderRequest { target_id })
        .await;
    assert_eq!(moved.expect("an answer").into_inner().header, None);
    let mut snapshot = maintenance
        .snapshot(SnapshotRequest {})
        .await
        .expect("a stream")
        .into_inner();
    let first = snapshot
        .message()
        .await
        .expect("a part")
        .expect("a first part");
    assert_eq!(first.header, None);
}

async fn item_25_answers_about_the_cluster_have_no_revision(server: Server) {
    let (cluster, client) = one(server).await;
    client.put("a", "1").await.expect("a put");
    let list = client
        .cluster
        .clone()
        .member_list(MemberListRequest { linearizable: true })
        .await;
    let list = list.expect("a list").into_inner();
    let header = list.header.expect("a header");
    assert_eq!(header.revision, 0);
    assert!(
        header.cluster_id != 0 && header.raft_term != 0,
        "{header:?}"
    );
    let [member] = list.members.as_slice() else {
        panic!("one member")
    };
    assert_eq!((member.id, member.name.as_str()), (header.member_id, "m0"));
    assert_eq!(
        member.client_ur_ls,
        [format!("http://{}", cluster.member(0).endpoint())]
    );
    let peer = format!("http://127.0.0.1:{}", cluster.member(0).peer_port());
    assert_eq!(
        (member.peer_ur_ls.as_slice(), member.is_learner),
        ([peer].as_slice(), false)
    );
}

async fn item_26_a_snapshot_ends_with_the_hash_of_what_it_holds(server: Server) {
    let (_cluster, client) = one(server).await;
    for at in 0..20 {
        client
            .put(&format!("k{at}"), &"v".repeat(20_000))
            .await
            .expect("a put");
    }
    let stream = client
        .maintenance
        .clone()
        .snapshot(SnapshotRequest {})
        .await
        .expect("a stream");
    let mut stream = stream.into_inner();
    let mut whole = Vec::new();
    let mut remaining: Option<u64> = None;
    while let Some(part) = stream.message().await.expect("a part") {
        whole.extend_from_slice(&part.blob);
        if let Some(before) = remaining {
            assert!(part.remaining_bytes <= before, "more remains than before");
        }
        remaining = Some(part.remaining_bytes);
    }
    assert_eq!(remaining, Some(0), "nothing remains at the end");
    assert_eq!(
        whole.len() % 512,
        32,
        "etcdctl demands whole sectors and a hash"
    );
    let (content, hash) = whole.split_at(whole.len() - 32);
    assert_eq!(Sha256::digest(content).as_slice(), hash);
}

async fn item_27_the_version_lets_clients_use_what_is_there(server: Server) {
    let (_cluster, client) = one(server).await;
    let status = client.status().await.expect("a status");
    let parts: Vec<u32> = status
        .version
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    let [3, minor, _] = parts[..] else {
        panic!("{} is no version of etcd 3", status.version)
    };
    assert_eq!(
        minor, 7,
        "Kubernetes turns features on by {}",
        status.version
    );
    assert!(
        status.storage_version.starts_with("3."),
        "{}",
        status.storage_version
    );
    assert_eq!(status.db_size_quota, 2 << 30, "the default");
    assert!(
        status.db_size > 0 && status.db_size_in_use > 0,
        "{status:?}"
    );
    assert!(status.raft_index >= status.raft_applied_index, "{status:?}");
}

async fn leadership_is_given_away_on_request(server: Server) {
    let cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    let leader = cluster.leader().await.expect("a leader");
    let target = (leader + 1) % 3;
    let id_of = async |at: usize| {
        let status = cluster.client(at).status().await.expect("a status");
        status.header.expect("a header").member_id
    };
    let target_id = id_of(target).await;
    let on_a_follower = cluster.client(target).maintenance.clone();
    let refused = { on_a_follower }
        .move_leader(MoveLeaderRequest { target_id })
        .await;
    assert_refused(refused, Code::FailedPrecondition, "etcdserver: not leader");
    let mut maintenance = cluster.client(leader).maintenance;
    let unknown = maintenance
        .move_leader(MoveLeaderRequest { target_id: 1 })
        .await;
    assert_refused(
        unknown,
        Code::FailedPrecondition,
        "etcdserver: bad leader transferee",
    );
    let start = Instant::now();
    maintenance
        .move_leader(MoveLeaderRequest { target_id })
        .await
        .expect("the leader moves");
    assert_eq!(
        cluster
            .client(leader)
            .status()
            .await
            .expect("a status")
            .leader,
        target_id
    );
    cluster
        .client(leader)
        .put("a", "1")
        .await
        .expect("a put through the old leader");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "took {:?}",
        start.elapsed()
    );
}

async fn hashes_are_equal_on_all_members(server: Server) {
    let cluster = Cluster::start(server, 3)
        .await
        .expect("three members start");
    for at in 0..30 {
        let client = cluster.client(at % 3);
        client
            .put(&format!("k{}", at % 7), &at.to_string())
            .await
            .expect("a put");
    }
    let compact = CompactionRequest {
        revision: 10,
        physical: true,
    };
    cluster
        .client(0)
        .kv
        .clone()
        .compact(compact)
        .await
        .expect("a compaction");
    for revision in [12, 20, 31] {
        let mut hashes = Vec::new();
        for at in 0..3 {
            let client = cluster.client(at);
            client
                .get("k1")
                .await
                .expect("a read brings the member up to date");
            let hash = client
                .maintenance
                .clone()
                .hash_kv(HashKvRequest { revision })
                .await;
            let hash = hash.expect("a hash").into_inner();
            hashes.push((hash.hash, hash.compact_revision));
        }
        assert!(
            hashes.iter().all(|h| *h == hashes[0]),
            "at {revision}: {hashes:?}"
        );
        assert_eq!(hashes[0].1, 10);
    }
    let client = cluster.client(1);
    let hash_at = async |revision| {
        client
            .maintenance
            .clone()
            .hash_kv(HashKvRequest { revision })
            .await
            .map(|_| ())
    };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_refused(hash_at(5).await, Code::OutOfRange, compacted);
    let future = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(hash_at(99).await, Code::OutOfRange, future);
}

async fn history_is_compacted_by_itself(server: Server) {
    let flags = [
        "--auto-compaction-mode",
        "periodic",
        "--auto-compaction-retention",
        "1s",
    ];
    let (_cluster, client) = one_with(server, &flags).await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await.expect("a put");
    }
    let start = Instant::now();
    let old = RangeRequest {
        revision: 2,
        ..get("a")
    };
    while let Ok(answer) = client.kv.clone().range(old.clone()).await {
        assert_eq!(answer.into_inner().kvs[0].value, "1");
        assert!(
            start.elapsed() < PATIENCE,
            "history older than a second is still there"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client.get("a").await.expect("a read").kvs[0].value, "3");
}

async fn the_health_service_serves(server: Server) {
    let (_cluster, client) = one(server).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(client.channel.clone());
    let whole = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    let answer = health.check(whole).await.expect("an answer").into_inner();
    assert_eq!(answer.status, 1, "SERVING");
    let unknown = tonic_health::pb::HealthCheckRequest {
        service: "nobody".into(),
    };
    let refused = health.check(unknown).await.expect_err("no such service");
    let said = (refused.code(), refused.message());
    assert_eq!(said, (Code::NotFound, "unknown service"));
}
