//! The types that openraft is used with, and their bytes on disk and between members.
//!
//! The encoding is `peer.proto`, never a serialisation of the library's own types, so that the
//! library can change them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use gonfalon_proto::peer as pb;
use openraft::alias::{CommittedLeaderIdOf, LogIdOf, StoredMembershipOf, VoteOf};
use openraft::entry::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;

openraft::declare_raft_types!(
    /// Members are named by 64-bit ids; an entry carries a batch of commands as bytes.
    pub TypeConfig:
        D = Payload,
        R = (),
        NodeId = u64,
        Node = PeerNode,
        LeaderId = LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// A log entry.
pub type Entry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
/// Term and index of an entry.
pub type LogId = LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = VoteOf<TypeConfig>;
/// The membership and the entry that set it.
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
/// Who takes part in consensus.
pub type Membership = openraft::Membership<u64, PeerNode>;

/// A batch of commands, in gonfalon-core's encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a member's peers reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerNode {
    /// `http://host:port`.
    pub peer_urls: Vec<String>,
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer_urls.join(","))
    }
}

/// Bytes that are not what this version (or an older one) wrote.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {why}")]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl DecodeError {
    fn missing(what: &'static str, field: &str) -> Self {
        Self {
            what,
            why: format!("{field} is missing"),
        }
    }
}

impl From<DecodeError> for std::io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// A log id as a message.
pub fn log_id_to_pb(id: LogId) -> pb::LogId {
    pb::LogId {
        term: *id.leader_id,
        index: id.index,
    }
}

/// A message as a log id.
pub fn log_id_from_pb(id: pb::LogId) -> LogId {
    LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(id.term), id.index)
}

/// A vote as a message.
pub fn vote_to_pb(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        candidate: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

/// A message as a vote.
pub fn vote_from_pb(vote: pb::Vote) -> Vote {
    let leader_id = LeaderId {
        term: vote.term,
        voted_for: vote.candidate,
    };
    Vote {
        leader_id,
        committed: vote.committed,
    }
}

/// A membership as a message.
pub fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs
            .map(|ids| pb::Voters {
                ids: ids.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| pb::Node {
                id: *id,
                peer_urls: node.peer_urls.clone(),
            })
            .collect(),
    }
}

/// A message as a membership.
///
/// # Errors
///
/// A voter that is not among the nodes.
pub fn membership_from_pb(membership: pb::Membership) -> Result<Membership, DecodeError> {
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|voters| voters.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, PeerNode> = membership
        .nodes
        .into_iter()
        .map(|node| {
            (
                node.id,
                PeerNode {
                    peer_urls: node.peer_urls,
                },
            )
        })
        .collect();
    Membership::new(configs, nodes).map_err(|error| DecodeError {
        what: "membership",
        why: error.to_string(),
    })
}

/// A stored membership as a message.
pub fn stored_membership_to_pb(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: (*stored.log_id()).map(log_id_to_pb),
        membership: Some(membership_to_pb(stored.membership())),
    }
}

/// A message as a stored membership.
///
/// # Errors
///
/// The membership is missing or malformed.
pub fn stored_membership_from_pb(
    stored: pb::StoredMembership,
) -> Result<StoredMembership, DecodeError> {
    let membership = stored
        .membership
        .ok_or_else(|| DecodeError::missing("stored membership", "membership"))?;
    Ok(StoredMembership::new(
        stored.log_id.map(log_id_from_pb),
        membership_from_pb(membership)?,
    ))
}

/// An entry as a message; the batch's bytes are shared, not copied.
pub fn entry_to_pb(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(payload) => pb::entry::Payload::Batch(payload.0.clone()),
        EntryPayload::Membership(membership) => {
            pb::entry::Payload::Membership(membership_to_pb(membership))
        }
    };
    pb::Entry {
        log_id: Some(log_id_to_pb(entry.log_id)),
        payload: Some(payload),
    }
}

/// A message as an entry.
///
/// # Errors
///
/// The log id or the payload is missing or malformed.
pub fn entry_from_pb(entry: pb::Entry) -> Result<Entry, DecodeError> {
    let log_id = entry
        .log_id
        .ok_or_else(|| DecodeError::missing("entry", "log id"))?;
    let payload = match entry
        .payload
        .ok_or_else(|| DecodeError::missing("entry", "payload"))?
    {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::entry::Payload::Batch(bytes) => EntryPayload::Normal(Payload(bytes)),
        pb::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_pb(membership)?)
        }
    };
    Ok(Entry {
        log_id: log_id_from_pb(log_id),
        payload,
    })
}
