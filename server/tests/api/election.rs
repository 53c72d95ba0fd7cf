//! The Election service of a real member, over gRPC.

use gonfalon_proto::v3electionpb::election_client::ElectionClient;
use gonfalon_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::member::{Member, PATIENCE};

fn client(member: &Member) -> ElectionClient<Channel> {
    ElectionClient::new(member.channel.clone())
}

async fn campaign(member: &Member, lease: i64, value: &str) -> Result<LeaderKey, Status> {
    let value = value.to_owned().into();
    let request = CampaignRequest {
        name: "e".into(),
        lease,
        value,
    };
    let mut client = client(member);
    let answer = tokio::time::timeout(PATIENCE, client.campaign(request)).await;
    let answer = answer.expect("the campaign is answered")?.into_inner();
    Ok(answer.leader.expect("a leadership"))
}

async fn proclaim(member: &Member, leader: Option<LeaderKey>, value: &str) -> Result<(), Status> {
    let request = ProclaimRequest {
        leader,
        value: value.to_owned().into(),
    };
    client(member).proclaim(request).await.map(drop)
}

async fn leader(member: &Member) -> Result<LeaderResponse, Status> {
    client(member)
        .leader(LeaderRequest { name: "e".into() })
        .await
        .map(tonic::Response::into_inner)
}

async fn resign(member: &Member, leader: LeaderKey) {
    client(member)
        .resign(ResignRequest {
            leader: Some(leader),
        })
        .await
        .unwrap();
}

async fn next(observed: &mut Streaming<LeaderResponse>) -> String {
    let told = tokio::time::timeout(PATIENCE, observed.message())
        .await
        .expect("something is told");
    let kv = told
        .unwrap()
        .expect("the stream goes on")
        .kv
        .expect("a leader's key");
    String::from_utf8(kv.value.to_vec()).unwrap()
}

fn told(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test]
async fn a_leader_is_elected_proclaims_and_resigns() {
    let member = Member::alone().await;
    let failed = leader(&member).await.unwrap_err();
    assert_eq!(told(&failed), (Code::Unknown, "election: no leader"));

    let lease = member.grant(60).await;
    let won = campaign(&member, lease, "one").await.unwrap();
    let known = leader(&member).await.unwrap().kv.unwrap();
    assert_eq!(won.key, format!("e/{lease:x}"));
    assert_eq!((won.name.as_ref(), won.lease), (b"e".as_ref(), lease));
    assert_eq!((won.rev, &won.key), (known.create_revision, &known.key));
    assert_eq!(known.value, "one");

    proclaim(&member, Some(won.clone()), "two").await.unwrap();
    assert_eq!(leader(&member).await.unwrap().kv.unwrap().value, "two");
    let again = campaign(&member, lease, "three").await.unwrap();
    assert_eq!(
        again, won,
        "the leader campaigns again: the same leadership"
    );
    assert_eq!(
        leader(&member).await.unwrap().kv.unwrap().value,
        "three",
        "and another value"
    );

    let stale = LeaderKey {
        rev: won.rev - 1,
        ..won.clone()
    };
    resign(&member, stale.clone()).await;
    assert!(
        leader(&member).await.is_ok(),
        "a stale resignation does nothing"
    );
    let failed = proclaim(&member, Some(stale), "four").await.unwrap_err();
    assert_eq!(told(&failed), (Code::Unknown, "election: not leader"));

    resign(&member, won).await;
    assert!(leader(&member).await.is_err());
    let failed = proclaim(&member, None, "five").await.unwrap_err();
    assert_eq!(
        told(&failed),
        (Code::Unknown, "\"leader\" field must be provided")
    );
}

/// "The key without a name was never created" is true: nobody may lead under it.
#[tokio::test]
async fn a_leadership_without_a_key_is_refused_and_leaves_nothing_behind() {
    let member = Member::alone().await;
    let nobody = LeaderKey::default();
    let refused = proclaim(&member, Some(nobody.clone()), "v").await;
    let no_key = (Code::Unknown, "etcdserver: key is not provided");
    assert_eq!(told(&refused.unwrap_err()), no_key);
    let request = ResignRequest {
        leader: Some(nobody),
    };
    let refused = client(&member).resign(request).await;
    assert_eq!(told(&refused.unwrap_err()), no_key);
    assert!(leader(&member).await.is_err());
    member.put("k", "the member goes on").await;
}

#[tokio::test]
async fn candidates_succeed_each_other_and_observers_are_told() {
    let member = Member::alone().await;
    let request = LeaderRequest { name: "e".into() };
    let mut observed = client(&member)
        .observe(request.clone())
        .await
        .unwrap()
        .into_inner();

    let first = campaign(&member, member.grant(60).await, "a")
        .await
        .unwrap();
    assert_eq!(
        next(&mut observed).await,
        "a",
        "who observes early hears of the first leader"
    );
    proclaim(&member, Some(first.clone()), "b").await.unwrap();
    proclaim(&member, Some(first.clone()), "c").await.unwrap();
    assert_eq!(next(&mut observed).await, "b");
    assert_eq!(next(&mut observed).await, "c");
    let mut late = client(&member).observe(request).await.unwrap().into_inner();
    assert_eq!(
        next(&mut late).await,
        "c",
        "who observes late hears of the present leader"
    );

    let second = member.grant(60).await;
    let waits = campaign(&member, second, "d");
    let resigns = async {
        member.wait_for_queue_of("e", 2).await;
        member.put("e2/not-this-election", "x").await;
        resign(&member, first).await;
    };
    let (won, ()) = tokio::join!(waits, resigns);
    assert_eq!(won.unwrap().lease, second);
    for observed in [&mut observed, &mut late] {
        assert_eq!(next(observed).await, "d");
    }

    member.revoke(second).await;
    let third = campaign(&member, 0, "e").await.unwrap();
    assert!(third.lease > 0, "the server chose a lease");
    for observed in [&mut observed, &mut late] {
        assert_eq!(
            next(observed).await,
            "e",
            "without a leader nothing is told"
        );
    }
}

#[tokio::test]
async fn a_candidate_that_goes_away_leaves_the_queue() {
    let member = Member::alone().await;
    let first = campaign(&member, member.grant(60).await, "a")
        .await
        .unwrap();
    let lease = member.grant(60).await;
    let mut patient = client(&member);
    let waits = tokio::spawn(async move {
        patient
            .campaign(CampaignRequest {
                name: "e".into(),
                lease,
                value: "b".into(),
            })
            .await
    });
    member.wait_for_queue_of("e", 2).await;
    waits.abort();
    member.wait_for_queue_of("e", 1).await;
    assert_eq!(member.queue("e").await[0].key, first.key);
}

#[tokio::test]
async fn a_candidate_whose_lease_ends_does_not_win() {
    let member = Member::alone().await;
    let first = campaign(&member, member.grant(60).await, "a")
        .await
        .unwrap();
    let lease = member.grant(60).await;
    let ends = async {
        member.wait_for_queue_of("e", 2).await;
        member.revoke(lease).await;
        resign(&member, first).await;
    };
    let (lost, ()) = tokio::join!(campaign(&member, lease, "b"), ends);
    assert_eq!(
        told(&lost.unwrap_err()),
        (Code::Unknown, "election: not leader")
    );
}
