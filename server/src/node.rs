//! One member: owns Raft, the replicated state and its storage, and the order in which they start
//! and stop.
//!
//! Everything that clients ask for goes through four calls: [`Node::propose`] replicates a command,
//! [`Node::linearize`] makes the local state safe to read, [`Node::store`] reads it, and the lease
//! calls talk to whoever keeps the leases' clock, the leader. None of them cares which member this
//! is: what a follower cannot do itself it asks of the leader.

use std::sync::Arc;

use gonfalon_core::command::Command;
use gonfalon_core::{LeaseId, MemberId, Reply};

use crate::store::Store;

/// A handle to this member. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
}

/// Why a node could not do what was asked; the text for clients is in `api/status.rs`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No leader is known. Nothing was proposed.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the call was under way. A write may or may not have happened.
    #[error("leader changed")]
    LeaderChanged,
    /// No answer in time. A write may or may not have happened.
    #[error("timed out")]
    Timeout,
    /// No answer in time, and the leader was lost meanwhile. A write may or may not have happened.
    #[error("timed out, possibly due to previous leader failure")]
    TimeoutLeaderLost,
    /// This member did not catch up with the leader in time.
    #[error("timed out waiting for the applied index")]
    TimeoutApply,
    /// Too much is waiting to be applied. Nothing was proposed.
    #[error("too many requests")]
    TooManyRequests,
    /// The command is larger than a log entry may be. Nothing was proposed.
    #[error("request is too large")]
    TooLarge,
    /// The node is shutting down.
    #[error("stopped")]
    Stopped,
    /// This member is not the leader, and only the leader can do this.
    #[error("not leader")]
    NotLeader,
    /// The member named is not a voter of this cluster.
    #[error("bad leader transferee")]
    BadTransferee,
}

/// What a node knows of itself and its cluster, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster.
    pub cluster_id: u64,
    /// This member.
    pub member_id: MemberId,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// Raft's term.
    pub term: u64,
    /// Index of the last log entry that is known to be committed.
    pub committed_index: u64,
    /// Index of the last log entry that was applied.
    pub applied_index: u64,
    /// Whether this member has no vote.
    pub is_learner: bool,
}

/// One member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// What is left of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRemaining {
    /// Seconds granted.
    pub granted: i64,
    /// Seconds left, rounded down; not below 0.
    pub remaining: i64,
}

impl Node {
    /// Replicates `command` and answers once this member has applied it.
    ///
    /// # Errors
    ///
    /// See [`NodeError`]: its lines say whether the command may have happened. What is wrong with
    /// the command itself is in [`Reply::result`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the command may or may not happen.
    pub async fn propose(&self, _command: Command) -> Result<Reply, NodeError> {
        Err(NodeError::Stopped)
    }

    /// Returns when the local state holds everything that any member acknowledged before the call.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn linearize(&self) -> Result<(), NodeError> {
        Err(NodeError::Stopped)
    }

    /// The local state.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Renews a lease; seconds granted, or none if there is no such lease.
    pub async fn lease_keep_alive(&self, _id: LeaseId) -> Result<Option<i64>, NodeError> {
        Err(NodeError::Stopped)
    }

    /// What is left of a lease, or none if there is no such lease.
    pub async fn lease_remaining(&self, _id: LeaseId) -> Result<Option<LeaseRemaining>, NodeError> {
        Err(NodeError::Stopped)
    }

    /// Hands leadership to `target`; returns when it is the leader.
    pub async fn move_leader(&self, _target: MemberId) -> Result<(), NodeError> {
        Err(NodeError::Stopped)
    }

    /// What this member knows of itself and the cluster.
    pub fn status(&self) -> Status {
        Status {
            cluster_id: 0,
            member_id: MemberId::new(0),
            leader: None,
            term: 0,
            committed_index: 0,
            applied_index: 0,
            is_learner: false,
        }
    }

    /// The cluster's term alone; cheaper than [`Node::status`], for response headers.
    pub fn term(&self) -> u64 {
        0
    }

    /// The cluster's members as this member knows them, in order of their ids.
    pub fn members(&self) -> Vec<Member> {
        Vec::new()
    }
}
