//! What a member that has lost its cluster tells clients and probes.

use std::task::Poll;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use gonfalon_core::{Command, LeaseId};
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use gonfalon_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, MoveLeaderRequest, PutRequest, StatusRequest,
};
use gonfalon_server::limits::{BATCH_COMMANDS_MAX, IN_FLIGHT_MAX, QUEUE_COMMANDS_MAX};
use gonfalon_server::node::NodeError;
use tonic::{Code, IntoStreamingRequest as _, Status, Streaming};

use crate::member::{Member, PATIENCE};

/// As short as a busy machine allows.
const OPTIONS: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];

/// An election timeout until the leader counts as lost, four more until streams end.
const ENDED_AFTER: Duration = Duration::from_millis(2500);

/// When that has been noticed, on a busy machine too.
const NOTICED_MAX: Duration = Duration::from_secs(6);

/// Opens a stream of renewals that stays open, with the metadata `hasleader`.
async fn renew_while_led(member: &Member) -> Result<Streaming<LeaseKeepAliveResponse>, Status> {
    let mut request = stream::pending::<LeaseKeepAliveRequest>().into_streaming_request();
    let metadata = request.metadata_mut();
    metadata.insert("hasleader", "true".parse().unwrap());
    let mut client = LeaseClient::new(member.channel.clone());
    Ok(client.lease_keep_alive(request).await?.into_inner())
}

/// Three members that have found a leader: the one to ask, which leads or not, and the others.
async fn cluster(asked_leads: bool) -> (Member, Vec<Member>) {
    let mut members = futures::future::join_all(Member::of_cluster(3, &OPTIONS)).await;
    let find = async {
        loop {
            let statuses: Vec<_> = members.iter().map(|it| it.node.status()).collect();
            let leader = statuses[0].leader;
            if leader.is_some() && statuses.iter().all(|status| status.leader == leader) {
                let mut leads = statuses.iter().map(|it| Some(it.member_id) == leader);
                return leads.position(|leads| leads == asked_leads);
            }
            tokio::task::yield_now().await;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, find).await;
    let asked = asked.expect("they agree on a leader");
    let asked = members.remove(asked.expect("one leads, two do not"));
    (asked, members)
}

fn refusal(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

const NO_LEADER: (Code, &str) = (Code::Unavailable, "etcdserver: no leader");

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_a_leader_is_served_while_there_is_one() {
    for asked_leads in [true, false] {
        let (asked, others) = cluster(asked_leads).await;
        let mut led = renew_while_led(&asked).await.unwrap();
        // A little longer than a leader that says nothing would be waited for.
        let nothing = tokio::time::timeout(ENDED_AFTER * 6 / 5, led.message()).await;
        assert!(
            nothing.is_err(),
            "ended although there is a leader: {nothing:?}"
        );
        stream::iter(others)
            .for_each_concurrent(2, Member::stop)
            .await;
        let ended = tokio::time::timeout(NOTICED_MAX, led.message()).await;
        let ended = ended.expect("a stream ends without a leader").unwrap_err();
        assert_eq!(
            refusal(&ended),
            NO_LEADER,
            "the asked one led: {asked_leads}"
        );
        let refused = renew_while_led(&asked).await.unwrap_err();
        assert_eq!(
            refusal(&refused),
            NO_LEADER,
            "the asked one led: {asked_leads}"
        );
        asked.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_quorum_says_so_to_whoever_looks_after_it() {
    for asked_leads in [true, false] {
        let (asked, others) = cluster(asked_leads).await;
        let mut maintenance = MaintenanceClient::new(asked.channel.clone());
        let before = maintenance.status(StatusRequest {}).await.unwrap();
        assert!(before.get_ref().leader != 0 && before.get_ref().errors.is_empty());
        stream::iter(others)
            .for_each_concurrent(2, Member::stop)
            .await;

        let noticed = async {
            while asked.node.status().leader.is_some() {
                tokio::task::yield_now().await;
            }
        };
        let noticed = tokio::time::timeout(NOTICED_MAX, noticed).await;
        noticed.expect("a leader without a quorum leads nobody");
        let status = maintenance.status(StatusRequest {}).await.unwrap();
        let status = status.into_inner();
        assert_eq!(
            (status.leader, status.errors.as_slice()),
            (0, [NO_LEADER.1.to_owned()].as_slice())
        );

        let health = asked.page("/health").await;
        assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
        assert!(
            health.ends_with("{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n"),
            "{health}"
        );
        let local = asked.page("/health?serializable=true").await;
        assert!(local.starts_with("HTTP/1.1 200 "), "{local}");
        let ready = asked.page("/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
        assert!(ready.contains("[-]linearizable_read failed: "), "{ready}");
        let live = asked.page("/livez").await;
        assert!(live.starts_with("HTTP/1.1 200 "), "{live}");
        let metrics = asked.page("/metrics").await;
        assert!(
            metrics.contains("\netcd_server_has_leader 0\n"),
            "{metrics}"
        );
        let counted = ["read_indexes_failed", "slow_read_indexes"].map(|name| {
            let name = format!("etcd_server_{name}_total ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
            line.expect("it is served").parse::<u64>().unwrap()
        });
        assert!(counted.iter().sum::<u64>() > 0, "what /readyz read failed");
        asked.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_too_many_wait_is_refused() {
    let (asked, others) = cluster(true).await;
    stream::iter(others)
        .for_each_concurrent(2, Member::stop)
        .await;
    // Some are on their way to a log already, and make room in the queue.
    let most = QUEUE_COMMANDS_MAX + (IN_FLIGHT_MAX + 1) * BATCH_COMMANDS_MAX;
    let mut waiting = Vec::new();
    let refused = loop {
        let revoke = Command::LeaseRevoke {
            id: LeaseId::new(1),
        };
        let mut proposed = Box::pin(asked.node.propose(revoke));
        match futures::poll!(&mut proposed) {
            Poll::Pending => waiting.push(proposed),
            Poll::Ready(answer) => break answer.unwrap_err(),
        }
        assert!(waiting.len() <= most, "nobody is refused");
    };
    assert_eq!(refused, NodeError::TooManyRequests);
    assert!(waiting.len() >= QUEUE_COMMANDS_MAX, "{}", waiting.len());
    let put = PutRequest {
        key: "k".into(),
        ..Default::default()
    };
    let refused = asked.kv().put(put).await.unwrap_err();
    let text = "etcdserver: too many requests";
    assert_eq!(refusal(&refused), (Code::Unknown, text));
    drop(waiting);
    asked.stop().await;
}

/// etcd says the same when the caller's time is up; without that it would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn leadership_that_nobody_takes_stays_and_the_caller_is_told() {
    let (leader, mut others) = cluster(true).await;
    let target = others.remove(0);
    let target_id = target.node.status().member_id.get();
    target.stop().await;
    let mut maintenance = MaintenanceClient::new(leader.channel.clone());
    let refused = maintenance
        .move_leader(MoveLeaderRequest { target_id })
        .await;
    let text = "etcdserver: request timed out, leader transfer took too long";
    assert_eq!(refusal(&refused.unwrap_err()), (Code::Unknown, text));
}
