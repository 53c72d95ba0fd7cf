//! What is asked of both systems, and what they answer.

use std::fmt;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb::{
    AlarmResponse, CompactionRequest, CompactionResponse, DefragmentResponse, DeleteRangeRequest,
    DeleteRangeResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, MemberListResponse, MoveLeaderResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest,
};
use gonfalon_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use gonfalon_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::watching::Seen;

/// A call, and the member it goes to.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "generators and tests build it")]
pub struct Step {
    /// Which member; the same number on both systems.
    pub member: usize,
    /// What is asked.
    pub call: Call,
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "one variant an RPC, named as the RPC")]
#[expect(
    clippy::exhaustive_enums,
    reason = "every call has its way of being sent"
)]
pub enum Call {
    Range(RangeRequest),
    /// On servers that lack the call: the same as [`Call::Range`], whose answer it must give.
    RangeStream(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    /// Lets the server choose the id, and revokes the lease again.
    LeaseOfAnyId {
        ttl: i64,
    },
    LeaseRevoke(i64),
    LeaseKeepAlive(Vec<i64>),
    LeaseTimeToLive(LeaseTimeToLiveRequest),
    LeaseLeases,
    Lock(LockRequest),
    Unlock(UnlockRequest),
    Campaign(CampaignRequest),
    Proclaim(ProclaimRequest),
    Leader(LeaderRequest),
    Resign(ResignRequest),
    MemberList {
        linearizable: bool,
    },
    Status,
    HashKv(HashKvRequest),
    Alarms,
    Defragment,
    /// To a member that does not exist.
    MoveLeader(u64),
    /// Bytes of the test's choice to a method of the test's choice.
    Raw {
        path: &'static str,
        body: Bytes,
    },
    Watch(Script),
    /// A call while an alarm is raised, which is disarmed afterwards.
    Alarmed {
        alarm: i32,
        call: Box<Call>,
    },
}

/// What one client does with one watch stream.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "generators and tests build it")]
pub struct Script {
    /// In order. At the end every event is awaited and every watcher cancelled.
    pub steps: Vec<WatchStep>,
}

/// A step of a [`Script`].
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "every step has its way of being taken"
)]
pub enum WatchStep {
    /// Asks for a watcher and waits until it is created, or refused.
    Create(WatchCreateRequest),
    /// Cancels a watcher, which may not exist.
    Cancel(i64),
    /// Asks for progress when every event has come.
    Progress,
    /// A request that asks for nothing.
    Nothing,
    /// Another call meanwhile.
    Call(Box<Call>),
}

/// The answer to a [`Call`].
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "one variant an RPC, named as the RPC")]
#[expect(
    clippy::exhaustive_enums,
    reason = "every answer has its way of being compared"
)]
pub enum Answer {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    LeaseKeepAlive(Vec<LeaseKeepAliveResponse>),
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    LeaseLeases(LeaseLeasesResponse),
    Lock(LockResponse),
    Unlock(UnlockResponse),
    Campaign(CampaignResponse),
    Proclaim(ProclaimResponse),
    Leader(LeaderResponse),
    Resign(ResignResponse),
    MemberList(MemberListResponse),
    Status(StatusResponse),
    HashKv(HashKvResponse),
    Alarms(AlarmResponse),
    Defragment(DefragmentResponse),
    MoveLeader(MoveLeaderResponse),
    Watch(Seen),
    /// gRPC's code and text.
    Error {
        code: tonic::Code,
        message: String,
    },
}

impl From<tonic::Status> for Answer {
    fn from(status: tonic::Status) -> Self {
        Self::Error {
            code: status.code(),
            message: status.message().to_owned(),
        }
    }
}

impl Answer {
    /// An error as the servers give it.
    pub fn error(code: tonic::Code, message: &str) -> Self {
        Self::Error {
            code,
            message: message.to_owned(),
        }
    }
}

impl Answer {
    /// Whether it says that nobody listens.
    pub fn is_gone(&self) -> bool {
        let (Self::Error { code, message }
        | Self::Watch(Seen {
            end: Some((code, message)),
            ..
        })) = self
        else {
            return false;
        };
        *code == tonic::Code::Unavailable || message == "transport error"
    }
}

impl Call {
    /// Whether the answer depends on what this member has applied so far, so that in a cluster it
    /// must first be brought up to date.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Range(request) | Self::RangeStream(request) => request.serializable,
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::LeaseGrant(_)
            | Self::LeaseOfAnyId { .. }
            | Self::LeaseRevoke(_) => false,
            _ => true,
        }
    }
}

/// Shown for values that nobody wants to read whole.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4000;
        let text = format!("{:?}", self.call);
        if text.len() <= SHOWN {
            return write!(f, "member {}: {text}", self.member);
        }
        let start: String = text.chars().take(SHOWN).collect();
        write!(f, "member {}: {start}… ({} bytes)", self.member, text.len())
    }
}
