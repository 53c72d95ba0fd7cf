//! The etcd v3 API over one node.
//!
//! A request is parsed ([`gonfalon_wire::parse`]), becomes a command for [`Node::propose`] or a read
//! of [`Node::store`], and what comes of it is put on the wire ([`gonfalon_wire::render`]) or refused
//! with etcd's code and text ([`Refusal`]). One file per service; [`grpc`] finds the service that a
//! request is for. Nothing here decides what the state becomes: that is the core's.

mod auth;
mod cluster;
mod election;
mod grpc;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod queue;
pub mod status;
mod watch;

use std::time::Duration;

use gonfalon_core::command::{Range, Txn};
use gonfalon_core::{
    Answer, Command, Error, History, HistoryError, RangeAnswer, Revision, State, TxnAnswer,
};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::parse::Limits;

pub use grpc::{Answering, Grpc};

use crate::config::Config;
use crate::node::Node;
use status::Refusal;

/// What every service works with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    node: Node,
    limits: Limits,
    cluster_id: u64,
    member_id: u64,
    quota_bytes: Option<u64>,
}

impl Api {
    pub(crate) fn new(node: Node, config: &Config) -> Self {
        let status = node.status();
        Self {
            limits: Limits {
                request_bytes: config.request_bytes_max,
                txn_ops: config.txn_ops_max,
                lease_ttl_min: lease_ttl_min(config.election_timeout),
            },
            cluster_id: status.cluster_id,
            member_id: status.member_id.get(),
            quota_bytes: config.quota_bytes,
            node,
        }
    }

    /// The header of an answer about `revision`.
    fn header(&self, revision: Revision) -> pb::ResponseHeader {
        pb::ResponseHeader {
            revision: revision.get(),
            ..self.header_without_revision()
        }
    }

    /// The header of an answer that is not about keys.
    fn header_without_revision(&self) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: 0,
            raft_term: self.node.term(),
        }
    }

    /// The store's revision as this member has it.
    fn revision(&self) -> Revision {
        self.node.store().read(|state, _| state.revision())
    }

    /// Replicates a command; the revision it left the store at, and what it did.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the command may or may not happen.
    async fn propose(&self, command: Command) -> Result<(Revision, Answer), Refusal> {
        let reply = self.node.propose(command).await?;
        Ok((reply.revision, reply.result?))
    }

    /// Makes the local state cover everything acknowledged so far, unless stale is good enough.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    async fn linearize_unless(&self, serializable: bool) -> Result<(), Refusal> {
        if !serializable {
            self.node.linearize().await?;
        }
        Ok(())
    }

    /// Reads the local state; what was read, and the store's revision at that moment.
    fn read<R>(
        &self,
        read: impl FnOnce(&State, &dyn History) -> Result<Result<R, Error>, HistoryError>,
    ) -> Result<(Revision, R), Refusal> {
        let read = |state: &State, history: &dyn History| (state.revision(), read(state, history));
        told(self.node.store().read(read))
    }

    /// Reads a range of the local state in one go.
    fn read_range(&self, query: &Range) -> Result<(Revision, RangeAnswer), Refusal> {
        let store = self.node.store();
        let read =
            |state: &State, history: &dyn History| (state.revision(), state.range(query, history));
        told(if query.range.is_single() {
            store.read(read)
        } else {
            store.read_many(|state| state.range_weight(query), read)
        })
    }

    /// Carries out a transaction that only reads, on the local state.
    fn read_txn(&self, txn: &Txn) -> Result<(Revision, TxnAnswer), Refusal> {
        let read =
            |state: &State, history: &dyn History| (state.revision(), state.read_txn(txn, history));
        let weight = |state: &State| state.txn_weight(txn);
        told(self.node.store().read_many(weight, read))
    }
}

/// What was read, or why it was not.
fn told<R>(
    (revision, result): (Revision, Result<Result<R, Error>, HistoryError>),
) -> Result<(Revision, R), Refusal> {
    match result {
        Ok(answer) => Ok((revision, answer?)),
        Err(error) => Err(status::storage(error)),
    }
}

/// etcd's rule: one and a half election timeouts, in whole seconds, so that a lease does not end
/// only because a leader was elected.
fn lease_ttl_min(election_timeout: Duration) -> i64 {
    let ms = election_timeout.as_millis() * 3 / 2;
    i64::try_from(ms.div_ceil(1000)).expect("an election timeout is at most 50 s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_lease_outlives_an_election() {
        for (timeout_ms, seconds) in [(1000, 2), (100, 1), (2000, 3), (5000, 8)] {
            let timeout = Duration::from_millis(timeout_ms);
            assert_eq!(
                lease_ttl_min(timeout),
                seconds,
                "election timeout {timeout:?}"
            );
        }
    }
}
