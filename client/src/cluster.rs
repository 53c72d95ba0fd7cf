//! The members of the cluster.

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::cluster_client::ClusterClient;

use crate::call::Call;
use crate::client::Client;
use crate::error::Error;

/// Calls about the cluster's members.
#[derive(Debug, Clone)]
pub struct Cluster {
    client: Client,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its id; never 0.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where the other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Every member, as the leader knows them.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let request = pb::MemberListRequest { linearizable: true };
        let call = Call::reads("members");
        let answer = self
            .client
            .unary(call, request, move |channel, request| async move {
                ClusterClient::new(channel).member_list(request).await
            })
            .await?;
        Ok(answer.members.into_iter().map(Member::from_wire).collect())
    }
}

impl Member {
    fn from_wire(member: pb::Member) -> Self {
        Self {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            is_learner: member.is_learner,
        }
    }
}
