//! The members of the cluster.

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::cluster_client::ClusterClient;

use crate::call::{Call, Repeat};
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

/// Sends a request of the service Cluster.
macro_rules! ask {
    ($cluster:expr, $call:expr, $method:ident, $request:expr) => {{
        let send = move |channel, request| async move {
            ClusterClient::new(channel).$method(request).await
        };
        // Its headers name no revision.
        $cluster.client.unary($call, $request, send).await?
    }};
}

fn all(members: Vec<pb::Member>) -> Vec<Member> {
    members.into_iter().map(Member::from_wire).collect()
}

fn texts<S: AsRef<str>>(urls: impl IntoIterator<Item = S>) -> Vec<String> {
    let urls = urls.into_iter().map(|url| url.as_ref().to_owned());
    urls.collect()
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
        Ok(all(ask!(self, call, member_list, request).members))
    }

    /// Every member, as the one that is asked knows them: possible without a leader, and maybe old.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn members_serializable(&self) -> Result<Vec<Member>, Error> {
        let request = pb::MemberListRequest {
            linearizable: false,
        };
        let call = Call::reads("members").local();
        Ok(all(ask!(self, call, member_list, request).members))
    }

    /// Adds a member, which is then started with the cluster's state `existing`. The cluster counts
    /// on it from now on: with one member, nothing is written until the second has come.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument): a URL is none;
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists): another member has it;
    /// [`ErrorKind::FailedPrecondition`](crate::ErrorKind::FailedPrecondition): too few members run.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the member may have been added or not.
    pub async fn add<S: AsRef<str>>(
        &self,
        peer_urls: impl IntoIterator<Item = S>,
    ) -> Result<Member, Error> {
        self.add_as("add member", texts(peer_urls), false).await
    }

    /// Adds a member without a vote, which can be [promoted](Cluster::promote) when it has caught up.
    ///
    /// # Errors
    ///
    /// As [`Cluster::add`]; [`ErrorKind::FailedPrecondition`](crate::ErrorKind::FailedPrecondition)
    /// also if there are as many learners as there may be.
    ///
    /// # Cancel safety
    ///
    /// As [`Cluster::add`].
    pub async fn add_learner<S: AsRef<str>>(
        &self,
        peer_urls: impl IntoIterator<Item = S>,
    ) -> Result<Member, Error> {
        self.add_as("add learner", texts(peer_urls), true).await
    }

    async fn add_as(
        &self,
        name: &'static str,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<Member, Error> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: peer_urls,
            is_learner,
        };
        let answer = ask!(self, Call::writes(name), member_add, request);
        Ok(Member::from_wire(answer.member.unwrap_or_default()))
    }

    /// Gives a learner a vote; the members after it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound);
    /// [`ErrorKind::FailedPrecondition`](crate::ErrorKind::FailedPrecondition): it has a vote, or has
    /// not caught up with the leader.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been promoted or not.
    pub async fn promote(&self, id: u64) -> Result<Vec<Member>, Error> {
        let request = pb::MemberPromoteRequest { id };
        let call = Call::writes("promote member");
        Ok(all(ask!(self, call, member_promote, request).members))
    }

    /// Changes where the other members reach one; the members after it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), and as [`Cluster::add`] for URLs.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been changed or not.
    pub async fn update<S: AsRef<str>>(
        &self,
        id: u64,
        peer_urls: impl IntoIterator<Item = S>,
    ) -> Result<Vec<Member>, Error> {
        let request = pb::MemberUpdateRequest {
            id,
            peer_ur_ls: texts(peer_urls),
        };
        let call = Call::new("update member", Repeat::Safe);
        Ok(all(ask!(self, call, member_update, request).members))
    }

    /// Removes a member, which ends; the members after it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound);
    /// [`ErrorKind::FailedPrecondition`](crate::ErrorKind::FailedPrecondition): those that run would
    /// be no majority any more.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been removed or not.
    pub async fn remove(&self, id: u64) -> Result<Vec<Member>, Error> {
        let request = pb::MemberRemoveRequest { id };
        let call = Call::writes("remove member");
        Ok(all(ask!(self, call, member_remove, request).members))
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
