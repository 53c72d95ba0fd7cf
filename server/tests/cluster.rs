//! Members in one process, over real sockets and disks: what a cluster promises below its API.
#![allow(clippy::unwrap_used, reason = "what cannot go on fails its test here")]

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use gonfalon_core::command::{Command, Put, Range};
use gonfalon_core::{KeyRange, LeaseId, Reply, Revision};
use gonfalon_proto::peer::ProposeRequest;
use gonfalon_proto::peer::peer_client::PeerClient;
use gonfalon_server::Server;
use gonfalon_server::config::{AutoCompaction, Config, Invocation, Options};
use gonfalon_server::metrics::View;
use gonfalon_server::node::{Node, NodeError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A member that can be stopped.
struct Member {
    node: Node,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Member {
    async fn open(config: Config) -> Self {
        let server = Server::open(config).await.unwrap();
        let node = server.node().clone();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let signal = async { drop(stopped.await) };
            server.run_until(signal).await.unwrap();
        });
        Self { node, stop, ended }
    }

    async fn stop(self) {
        drop(self.node);
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

/// The configuration of each member of a cluster of `size` in `dir`, on ports that were free.
fn configs(size: usize, dir: &Path, more: &[&str]) -> Vec<Config> {
    let sockets: Vec<TcpListener> = (0..2 * size)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let url = |i: usize| format!("http://{}", sockets[i].local_addr().unwrap());
    let cluster: Vec<String> = (0..size)
        .map(|i| format!("n{i}={}", url(size + i)))
        .collect();
    let config = |i: usize| {
        let mut args: Vec<String> = [
            ("name", format!("n{i}")),
            ("data-dir", dir.join(format!("n{i}")).display().to_string()),
            ("listen-client-urls", url(i)),
            ("advertise-client-urls", url(i)),
            ("listen-peer-urls", url(size + i)),
            ("initial-advertise-peer-urls", url(size + i)),
            ("initial-cluster", cluster.join(",")),
        ]
        .map(|(flag, value)| format!("--{flag}={value}"))
        .into();
        args.extend(more.iter().map(ToString::to_string));
        match Options::read(&args, &[]).unwrap() {
            Invocation::Run(options) => options.resolve().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    (0..size).map(config).collect()
}

async fn cluster(size: usize, dir: &Path, more: &[&str]) -> (Vec<Config>, Vec<Member>) {
    let configs = configs(size, dir, more);
    let members = started(&configs).await;
    (configs, members)
}

async fn started(configs: &[Config]) -> Vec<Member> {
    let members = futures::future::join_all(configs.iter().cloned().map(Member::open)).await;
    for member in &members {
        tokio::time::timeout(Duration::from_secs(20), member.node.published())
            .await
            .expect("every member hears of a leader");
    }
    members
}

async fn put(node: &Node, key: &str, value: &str) -> Result<Reply, NodeError> {
    let put = Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    node.propose(Command::Put(put)).await
}

async fn get(node: &Node, key: &str) -> Option<String> {
    node.linearize().await.unwrap();
    let range = Range::of(KeyRange::single(key.to_owned().into()));
    let answer = node
        .store()
        .read(|state, history| state.range(&range, history));
    let kv = answer.unwrap().unwrap().kvs.pop()?;
    Some(String::from_utf8(kv.value.to_vec()).unwrap())
}

/// The value of one series of `member`'s metrics.
fn metric(member: &Member, series: &str) -> u64 {
    let text = member.node.store().metrics().encode(&View::default());
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("{series} is not served"));
    value.trim().parse().unwrap()
}

/// The label of a member in metrics.
fn label(member: &Member) -> String {
    format!("{:x}", member.node.identity().member_id.get())
}

/// Returns when `is_so`.
async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    waited.unwrap_or_else(|_| panic!("not within 20 s: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_keeps_its_data_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (configs, mut members) = cluster(1, dir.path(), &[]).await;
    for i in 0..100 {
        put(&members[0].node, &format!("k{i}"), "v")
            .await
            .unwrap()
            .result
            .unwrap();
    }
    members.pop().unwrap().stop().await;
    let member = Member::open(configs[0].clone()).await;
    member.node.published().await;
    assert_eq!(get(&member.node, "k99").await.as_deref(), Some("v"));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_writes_and_reads_what_the_others_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (_, members) = cluster(3, dir.path(), &[]).await;
    for (i, writer) in members.iter().enumerate() {
        let value = i.to_string();
        put(&writer.node, "k", &value)
            .await
            .unwrap()
            .result
            .unwrap();
        for reader in &members {
            assert_eq!(
                get(&reader.node, "k").await.as_deref(),
                Some(value.as_str())
            );
        }
    }
    let lists: Vec<_> = members.iter().map(|member| member.node.members()).collect();
    assert!(
        lists
            .iter()
            .all(|list| list.len() == 3 && *list == lists[0]),
        "{lists:?}"
    );
    assert!(
        lists[0].iter().all(|member| member.name.starts_with('n')),
        "{lists:?}"
    );
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_when_asked_and_when_the_leader_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut members) = cluster(3, dir.path(), &[]).await;
    let leader = members[0].node.status().leader.unwrap();
    let at = |members: &[Member], id| {
        let is = |m: &Member| m.node.identity().member_id == id;
        members.iter().position(is).unwrap()
    };
    let target = (at(&members, leader) + 1) % 3;
    let target = members[target].node.identity().member_id;
    let from = members[at(&members, leader)].node.clone();
    from.move_leader(target).await.unwrap();
    assert_eq!(from.status().leader, Some(target));
    let refused = from.move_leader(leader).await;
    assert_eq!(
        refused,
        Err(NodeError::NotLeader),
        "only the leader moves leadership"
    );
    drop(from);

    let stopped = members.remove(at(&members, target));
    stopped.stop().await;
    put(&members[0].node, "k", "after")
        .await
        .unwrap()
        .result
        .unwrap();
    assert_eq!(get(&members[1].node, "k").await.as_deref(), Some("after"));
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_the_newest_revisions_are_compacted_whoever_leads() {
    const KEEP: i64 = 10;
    let dir = tempfile::tempdir().unwrap();
    let mut configs = configs(3, dir.path(), &[]);
    for config in &mut configs {
        config.auto_compaction = AutoCompaction::Revisions {
            keep: KEEP,
            every: Duration::from_millis(100),
        };
    }
    let mut members = started(&configs).await;
    for round in 0..2 {
        let mut written = 0;
        for i in 0..3 * KEEP {
            let reply = put(&members[0].node, "k", &i.to_string()).await.unwrap();
            reply.result.unwrap();
            written = reply.revision.get();
        }
        let kept = |node: &Node| node.store().read(|state, _| state.compacted().get());
        let is_compacted = || {
            let mut nodes = members.iter().map(|member| &member.node);
            nodes.all(|node| kept(node) == written - KEEP)
        };
        wait_until("every member dropped the same history", is_compacted).await;
        let read_at = |revision| {
            let mut range = Range::of(KeyRange::single("k".into()));
            range.revision = Some(Revision::new(revision));
            let node = &members[1].node;
            let read = node
                .store()
                .read(|state, history| state.range(&range, history));
            let answer = read.unwrap();
            answer.map(|mut answer| answer.kvs.pop().unwrap().value)
        };
        let oldest = read_at(written - KEEP).unwrap();
        assert_eq!(oldest, (2 * KEEP - 1).to_string(), "round {round}");
        let gone = read_at(written - KEEP - 1);
        assert!(
            matches!(gone, Err(gonfalon_core::Error::Compacted { .. })),
            "round {round}: {gone:?}"
        );
        if round == 0 {
            let leader = members[0].node.status().leader.unwrap();
            let leads = |member: &Member| member.node.identity().member_id == leader;
            let at = members.iter().position(leads).unwrap();
            members.remove(at).stop().await;
        }
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--snapshot-count=10", "--snapshot-catchup-entries=5"];
    let (configs, mut members) = cluster(3, dir.path(), &more).await;
    members.pop().unwrap().stop().await;
    for i in 0..200 {
        put(&members[i % 2].node, &format!("k{i}"), &i.to_string())
            .await
            .unwrap();
    }
    let late = Member::open(configs[2].clone()).await;
    assert_eq!(get(&late.node, "k199").await.as_deref(), Some("199"));
    assert_eq!(get(&late.node, "k0").await.as_deref(), Some("0"));
    let hash = |m: &Member| {
        let node = m.node.clone();
        async move { node.store().hash_kv(None).await.unwrap().unwrap().hash }
    };
    assert_eq!(hash(&late).await, hash(&members[0]).await);

    let sum = |of: &dyn Fn(&Member) -> u64| members.iter().map(of).sum::<u64>();
    let to = format!("{{To=\"{}\"}}", label(&late));
    let sent = sum(&|m| metric(m, &format!("etcd_network_snapshot_send_success{to}")));
    let received = sum(&|from| {
        let from = format!("{{From=\"{}\"}}", label(from));
        let way = "etcd_network_snapshot_receive";
        assert_eq!(metric(&late, &format!("{way}_inflights_total{from}")), 0);
        metric(&late, &format!("{way}_success{from}"))
    });
    assert!(
        sent >= 1 && received >= sent,
        "{sent} sent, {received} received"
    );
    let saved = metric(&late, "etcd_snap_db_save_total_duration_seconds_count");
    assert_eq!(saved, received);
    assert!(metric(&late, "etcd_snap_db_fsync_duration_seconds_count") > saved);
    late.stop().await;
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_on_every_member_and_renewals_reach_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let (_, members) = cluster(3, dir.path(), &[]).await;
    let id = LeaseId::new(7);
    let grant = Command::LeaseGrant { id, ttl: 2 };
    members[1]
        .node
        .propose(grant)
        .await
        .unwrap()
        .result
        .unwrap();
    for member in &members {
        assert_eq!(member.node.lease_keep_alive(id).await, Ok(Some(2)));
        let left = member.node.lease_remaining(id).await.unwrap().unwrap();
        assert_eq!((left.granted, left.remaining), (2, 1));
        assert_eq!(
            member.node.lease_keep_alive(LeaseId::new(8)).await,
            Ok(None)
        );
    }
    tokio::time::timeout(Duration::from_secs(10), async {
        while members[2]
            .node
            .store()
            .read(|state, _| state.lease(id).is_some())
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the lease expires");
    assert_eq!(members[0].node.lease_keep_alive(id).await, Ok(None));
    for member in members {
        member.stop().await;
    }
}

/// A follower acknowledges a grant once it is committed, and the leader may not have applied it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_known_wherever_it_is_asked_for_once_it_is_granted() {
    let dir = tempfile::tempdir().unwrap();
    let (_, members) = cluster(3, dir.path(), &[]).await;
    let leader = members[0].node.status().leader.unwrap();
    let (leaders, followers): (Vec<_>, Vec<_>) = members
        .iter()
        .map(|member| member.node.clone())
        .partition(|node| node.identity().member_id == leader);
    let load = {
        let leader = leaders[0].clone();
        tokio::spawn(async move {
            let value = "v".repeat(1000);
            loop {
                let puts = (0..64).map(|i| put(&leader, "load", &value[i..]));
                futures::future::join_all(puts).await;
            }
        })
    };
    for (i, (here, there)) in (1..=300).zip([(0, 1), (1, 0)].into_iter().cycle()) {
        let (here, there) = (&followers[here], &followers[there]);
        let id = LeaseId::new(i);
        let grant = Command::LeaseGrant { id, ttl: 60 };
        here.propose(grant).await.unwrap().result.unwrap();
        let (renewed, left) = if i % 3 == 0 {
            (there.lease_keep_alive(id).await, Ok(None))
        } else {
            (Ok(None), there.lease_remaining(id).await)
        };
        let is_known = renewed == Ok(Some(60)) || left.as_ref().is_ok_and(Option::is_some);
        assert!(is_known, "lease {i}: {renewed:?}, {left:?}");
    }
    load.abort();
    drop((leaders, followers));
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_alone_is_not_ready_and_raises_no_term() {
    let dir = tempfile::tempdir().unwrap();
    let election_timeout = ["--heartbeat-interval=20", "--election-timeout=200"];
    let (configs, members) = cluster(3, dir.path(), &election_timeout).await;
    for member in members {
        member.stop().await;
    }
    let alone = Member::open(configs[0].clone()).await;
    let term = alone.node.term();
    let ready = tokio::time::timeout(Duration::from_secs(2), alone.node.published()).await;
    assert!(ready.is_err(), "it knows its name, but there is no leader");
    assert_eq!(
        alone.node.term(),
        term,
        "it asks whether it would be elected before it stands"
    );
    let second = Member::open(configs[1].clone()).await;
    for member in [&alone, &second] {
        let ready = tokio::time::timeout(Duration::from_secs(20), member.node.published());
        ready.await.expect("two of three have a leader");
    }
    assert!(alone.node.term() > term);
    for member in [alone, second] {
        member.stop().await;
    }
}

/// Without an election a leader that lost what it had not synced could use a log id twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_starts_again_is_elected_again() {
    let dir = tempfile::tempdir().unwrap();
    let (configs, mut members) = cluster(1, dir.path(), &[]).await;
    let mut member = members.pop().unwrap();
    for _ in 0..3 {
        let term = member.node.term();
        member.stop().await;
        member = Member::open(configs[0].clone()).await;
        member.node.published().await;
        assert!(member.node.term() > term, "term {term} goes on");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_read_does_not_get_into_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (configs, mut members) = cluster(1, dir.path(), &[]).await;
    let member = members.pop().unwrap();
    let peer_url = configs[0].initial.advertise_peer_urls[0].to_string();
    let mut peer = PeerClient::connect(peer_url).await.unwrap();
    let identity = member.node.identity();
    let mut request = tonic::Request::new(ProposeRequest {
        batch: b"\x09garbage".as_slice().into(),
    });
    let ids = [
        ("gonfalon-cluster-id", format!("{:x}", identity.cluster_id)),
        ("gonfalon-to", format!("{:x}", identity.member_id.get())),
    ];
    for (name, id) in ids {
        request.metadata_mut().insert(name, id.parse().unwrap());
    }
    let refused = peer.propose(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    put(&member.node, "k", "v").await.unwrap().result.unwrap();
    assert_eq!(get(&member.node, "k").await.as_deref(), Some("v"));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_between_members_is_counted_by_member() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut members) = cluster(3, dir.path(), &[]).await;
    for member in &members {
        put(&member.node, "k", "v").await.unwrap().result.unwrap();
        get(&member.node, "k").await;
    }
    for one in &members {
        for other in members.iter().filter(|other| label(other) != label(one)) {
            let (from, to) = (label(one), label(other));
            let pair = format!("{{Local=\"{from}\",Remote=\"{to}\"}}");
            assert_eq!(metric(one, &format!("etcd_network_known_peers{pair}")), 1);
            wait_until("every member has answered", || {
                metric(one, &format!("etcd_network_active_peers{pair}")) == 1
            })
            .await;
            let trips = format!("etcd_network_peer_round_trip_time_seconds_count{{To=\"{to}\"}}");
            wait_until("it was pinged", || metric(one, &trips) > 0).await;
            let bytes = "etcd_network_peer";
            let received = format!("{bytes}_received_bytes_total{{From=\"{from}\"}}");
            let received = metric(other, &received);
            let sent = metric(one, &format!("{bytes}_sent_bytes_total{{To=\"{to}\"}}"));
            assert!(
                0 < received && received <= sent,
                "{sent} bytes sent from {from} to {to}, {received} received"
            );
        }
    }

    let gone = members.pop().unwrap();
    let to = label(&gone);
    gone.stop().await;
    for one in &members {
        let pair = format!("{{Local=\"{}\",Remote=\"{to}\"}}", label(one));
        wait_until("it is noticed that a member is gone", || {
            metric(one, &format!("etcd_network_active_peers{pair}")) == 0
        })
        .await;
        let lost = format!("etcd_network_disconnected_peers_total{pair}");
        assert!(metric(one, &lost) >= 1);
        let failed = format!("etcd_network_peer_sent_failures_total{{To=\"{to}\"}}");
        assert!(metric(one, &failed) >= 1);
    }
    for member in members {
        member.stop().await;
    }
}

/// Both are append requests without entries; openraft sends a heartbeat as the sole one of a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_heartbeat_is_counted_and_word_of_a_commit_is_none() {
    const WRITES: u64 = 6;
    let dir = tempfile::tempdir().unwrap();
    let timing = ["--heartbeat-interval=200", "--election-timeout=4000"];
    let (_, members) = cluster(3, dir.path(), &timing).await;
    let late = || {
        let name = "etcd_server_heartbeat_send_failures_total";
        members.iter().map(|it| metric(it, name)).sum::<u64>()
    };
    let before = late();
    for _ in 0..WRITES {
        put(&members[0].node, "k", "v").await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let counted = late() - before;
    assert!(
        counted < WRITES,
        "{counted} for {WRITES} writes, twice each"
    );

    // No heartbeat is sent while every thread has something else to do.
    let before = late();
    let busy = std::sync::Arc::new(std::sync::Barrier::new(2));
    let threads = [busy.clone(), busy].map(|busy| {
        tokio::spawn(async move {
            busy.wait();
            std::thread::sleep(Duration::from_secs(1));
        })
    });
    futures::future::join_all(threads).await;
    wait_until("late heartbeats are counted", || late() > before).await;
    for member in members {
        member.stop().await;
    }
}

/// openraft's own pause does not begin while there is no connection: it tried 30,000 times a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_gone_is_tried_now_and_then_and_found_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (configs, mut members) = cluster(3, dir.path(), &[]).await;
    let leader = members[0].node.status().leader.unwrap();
    let at = members
        .iter()
        .position(|member| member.node.identity().member_id != leader)
        .unwrap();
    let gone = members.remove(at);
    let to = label(&gone);
    gone.stop().await;
    put(&members[0].node, "k", "v")
        .await
        .unwrap()
        .result
        .unwrap();
    let failed = format!("etcd_network_peer_sent_failures_total{{To=\"{to}\"}}");
    let failures = || {
        let all = members.iter().map(|member| metric(member, &failed));
        all.sum::<u64>()
    };
    wait_until("it is noticed", || failures() > 0).await;
    let before = failures();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let more = failures() - before;
    assert!(more < 300, "{more} attempts in 2 s");

    let back = Member::open(configs[at].clone()).await;
    wait_until("it has what it missed", || {
        let applied = |member: &Member| member.node.status().applied_index;
        applied(&back) >= applied(&members[0])
    })
    .await;
    assert_eq!(get(&back.node, "k").await.as_deref(), Some("v"));
    back.stop().await;
    for member in members {
        member.stop().await;
    }
}
