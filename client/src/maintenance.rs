//! The members' own affairs. These calls are answered by the member that is asked: with several
//! endpoints, make a client for the one that is meant.

use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::call::{Call, Repeat};
use crate::client::Client;
use crate::error::Error;
use crate::types::{Revision, revision_of};

/// Defragmentation reads and writes the whole store.
const DEFRAGMENT_DEADLINE: Duration = Duration::from_mins(10);

/// Calls about one member.
#[derive(Debug, Clone)]
pub struct Maintenance {
    client: Client,
}

/// How a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its id.
    pub member_id: u64,
    /// The store's revision as it has it.
    pub revision: Revision,
    /// The version of etcd that it is, or stands for.
    pub version: String,
    /// The id of the leader; 0 if it sees none.
    pub leader: u64,
    /// Raft's term.
    pub raft_term: u64,
    /// Index of the last log entry that it knows to be committed.
    pub raft_index: u64,
    /// Index of the last log entry that it has applied.
    pub raft_applied_index: u64,
    /// What its database takes on disk, in bytes.
    pub db_bytes: u64,
    /// What of that is in use.
    pub db_bytes_in_use: u64,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// What is wrong with it, in its own words.
    pub errors: Vec<String>,
}

impl Maintenance {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// How the member is.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn status(&self) -> Result<MemberStatus, Error> {
        let call = Call::reads("status").local();
        let request = pb::StatusRequest::default();
        let answer = self
            .client
            .unary(call, request, move |channel, request| async move {
                MaintenanceClient::new(channel).status(request).await
            })
            .await?;
        self.client.saw(answer.header.as_ref());
        Ok(MemberStatus::from_wire(answer))
    }

    /// Gives space that compaction has freed back to the file system.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the member goes on with it.
    pub async fn defragment(&self) -> Result<(), Error> {
        let call = Call::new("defragment", Repeat::Safe)
            .local()
            .within(Some(DEFRAGMENT_DEADLINE));
        let request = pb::DefragmentRequest::default();
        let answer = self
            .client
            .unary(call, request, move |channel, request| async move {
                MaintenanceClient::new(channel).defragment(request).await
            })
            .await?;
        self.client.saw(answer.header.as_ref());
        Ok(())
    }

    /// Hands leadership to the member `target`; only the leader can.
    ///
    /// # Cancel safety
    ///
    /// Dropped, leadership may move or not.
    pub async fn move_leader(&self, target: u64) -> Result<(), Error> {
        let call = Call::writes("move leader");
        let request = pb::MoveLeaderRequest { target_id: target };
        self.client
            .unary(call, request, move |channel, request| async move {
                MaintenanceClient::new(channel).move_leader(request).await
            })
            .await?;
        Ok(())
    }
}

impl MemberStatus {
    fn from_wire(answer: pb::StatusResponse) -> Self {
        let bytes = |number: i64| u64::try_from(number).unwrap_or_default();
        Self {
            member_id: answer.header.as_ref().map_or(0, |header| header.member_id),
            revision: revision_of(answer.header.as_ref()),
            version: answer.version,
            leader: answer.leader,
            raft_term: answer.raft_term,
            raft_index: answer.raft_index,
            raft_applied_index: answer.raft_applied_index,
            db_bytes: bytes(answer.db_size),
            db_bytes_in_use: bytes(answer.db_size_in_use),
            is_learner: answer.is_learner,
            errors: answer.errors,
        }
    }
}
