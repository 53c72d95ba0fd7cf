//! Why a node, or its disk, refuses what clients ask, in the words of the wire.

use std::fmt;

pub use gonfalon_wire::Refusal;
use tonic::Status;

use crate::node::NodeError;
use crate::storage::StorageError;

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NoLeader => Self::NoLeader,
            NodeError::LeaderChanged => Self::LeaderChanged,
            NodeError::Timeout => Self::Timeout,
            NodeError::TimeoutLeaderLost => Self::TimeoutLeaderLost,
            NodeError::TimeoutApply => Self::TimeoutApply,
            NodeError::TooManyRequests => Self::TooManyRequests,
            NodeError::TooLarge => Self::RequestTooLarge,
            NodeError::Stopped => Self::Stopped,
            NodeError::NotLeader => Self::NotLeader,
            NodeError::BadTransferee => Self::BadLeaderTransferee,
        }
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        Refusal::from(error).into()
    }
}

/// A read that the disk failed. What is wrong with it is for the operator, not for the client.
pub(super) fn storage(error: impl fmt::Display) -> Refusal {
    tracing::error!(%error, "reading storage for a client");
    Refusal::Storage
}

/// What looks after the storage was refused, or the disk failed it.
pub(super) fn upkeep(error: StorageError) -> Refusal {
    match error {
        StorageError::NoSpace { .. } => {
            tracing::warn!(%error, "refusing a client");
            Refusal::DiskFull
        }
        error => storage(error),
    }
}
