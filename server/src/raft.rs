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
