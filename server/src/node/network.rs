//! openraft's network on top of [`Peers`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt};
use gonfalon_proto::peer as pb;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, raft::TransferLeaderError};
use tokio::time::Instant;
use tonic::Status;

use super::peers::{Client, PeerError, SharedPeers, is_unsent};
use super::snapshot::{SnapshotDir, chunks};
use crate::limits::UNREACHABLE_PAUSE;
use crate::raft::{
    PeerNode, TypeConfig, entry_to_pb, log_id_from_pb, log_id_to_pb, stored_membership_to_pb,
    vote_from_pb, vote_to_pb,
};

/// Makes a [`PeerNetwork`] for each member.
#[derive(Debug, Clone)]
pub(super) struct Network {
    peers: SharedPeers,
    heartbeat_interval: Duration,
}

impl Network {
    pub(super) fn new(peers: SharedPeers, heartbeat_interval: Duration) -> Self {
        Self {
            peers,
            heartbeat_interval,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        PeerNetwork {
            target,
            node: node.clone(),
            peers: self.peers.clone(),
            heartbeats: Arc::new(Heartbeats::new(self.heartbeat_interval)),
        }
    }
}

/// What Raft says to one member.
#[derive(Debug)]
pub(super) struct PeerNetwork {
    target: u64,
    node: PeerNode,
    peers: SharedPeers,
    /// openraft has one of these for heartbeats alone, for as long as this member leads, and one for
    /// log entries.
    heartbeats: Arc<Heartbeats>,
}

/// Notices heartbeats that are sent late: by a leader that has no processor or no disk to itself.
#[derive(Debug)]
struct Heartbeats {
    interval: Duration,
    /// When the last one was sent, if it was answered: the next one after a failure comes when
    /// there is time for it again.
    last: Mutex<Option<Instant>>,
}

impl Heartbeats {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Mutex::default(),
        }
    }

    /// Whether one that is sent now should have been long before, as etcd draws the line.
    fn is_late(&self, now: Instant) -> bool {
        let before = self.lock().take();
        before.is_some_and(|before| now.duration_since(before) > 2 * self.interval)
    }

    /// Notes that the one that was sent at `sent` is answered.
    fn answered(&self, sent: Instant) {
        *self.lock() = Some(sent);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.last
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// Whether a stream of append requests is a heartbeat, in which openraft sends a sole request
/// without entries. What tells a follower of a commit has none either, but is one of many.
fn is_heartbeat(requests: &impl Stream) -> bool {
    requests.size_hint() == (1, Some(1))
}

impl PeerNetwork {
    fn client(&self) -> Result<Client, RPCError<TypeConfig>> {
        self.peers
            .raft_client(self.target, &self.node.peer_urls)
            .map_err(unknown)
    }
}

fn unknown(error: PeerError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

/// A member that cannot be reached is left alone for a while; any other failure is tried again.
fn failed(status: Status) -> RPCError<TypeConfig> {
    if is_unsent(&status) {
        RPCError::Unreachable(Unreachable::from_string(status))
    } else {
        RPCError::Network(NetworkError::from_string(status))
    }
}

fn missing(what: &str) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(format!(
        "the answer has no {what}"
    )))
}

fn request<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

pub(super) fn append_to_pb(request: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to_pb(&request.vote)),
        prev_log_id: request.prev_log_id.map(log_id_to_pb),
        entries: request.entries.iter().map(entry_to_pb).collect(),
        leader_commit: request.leader_commit.map(log_id_to_pb),
    }
}

fn append_from_pb(
    response: pb::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
    Ok(match response.result.ok_or_else(|| missing("result"))? {
        pb::append_response::Result::Matched(matched) => Ok(matched.log_id.map(log_id_from_pb)),
        pb::append_response::Result::Conflict(id) => {
            Err(StreamAppendError::Conflict(log_id_from_pb(id)))
        }
        pb::append_response::Result::HigherVote(vote) => {
            Err(StreamAppendError::HigherVote(vote_from_pb(vote)))
        }
    })
}

fn vote_request_to_pb(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to_pb(&request.vote)),
        last_log_id: request.last_log_id.map(log_id_to_pb),
        leadership_transfer: request.leadership_transfer,
    }
}

fn vote_response(
    response: pb::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
    let vote = vote_from_pb(response.vote.ok_or_else(|| missing("vote"))?);
    Ok(VoteResponse::new(
        vote,
        response.last_log_id.map(log_id_from_pb),
        response.granted,
    ))
}

impl NetBackoff<TypeConfig> for PeerNetwork {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetStreamAppend<TypeConfig> for PeerNetwork {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut client = self.client()?;
            let sent = is_heartbeat(&input).then(Instant::now);
            if sent.is_some_and(|now| self.heartbeats.is_late(now)) {
                self.peers.heartbeat_late();
            }
            let requests = input.map(|request| append_to_pb(&request));
            let responses = match client.append(requests).await {
                Ok(responses) => responses.into_inner(),
                Err(status) => {
                    // openraft pauses while it makes the stream's first request, and without a
                    // connection nobody asks for that: it would try again at once, for ever.
                    tokio::time::sleep(UNREACHABLE_PAUSE).await;
                    return Err(failed(status));
                }
            };
            let heartbeats = self.heartbeats.clone();
            let results = responses.map(move |response| {
                let response = response.map_err(failed)?;
                if let Some(sent) = sent {
                    heartbeats.answered(sent);
                }
                append_from_pb(response)
            });
            let results: BoxStream<'s, _> = Box::pin(results);
            Ok(results)
        })
    }
}

impl NetVote<TypeConfig> for PeerNetwork {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = request(vote_request_to_pb(&rpc), option.soft_ttl());
        vote_response(
            self.client()?
                .vote(request)
                .await
                .map_err(failed)?
                .into_inner(),
        )
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = request(vote_request_to_pb(&rpc), option.soft_ttl());
        vote_response(
            self.client()?
                .pre_vote(request)
                .await
                .map_err(failed)?
                .into_inner(),
        )
    }
}

impl NetSnapshot<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotDir;

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotDir>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self
            .peers
            .bulk_client(self.target, &self.node.peer_urls)
            .map_err(unknown)?;
        let header = pb::SnapshotHeader {
            vote: Some(vote_to_pb(&vote)),
            last_log_id: snapshot.meta.last_log_id.map(log_id_to_pb),
            membership: Some(stored_membership_to_pb(&snapshot.meta.last_membership)),
        };
        let metrics = self.peers.metrics(self.target);
        let counted = metrics.snapshots_sent.begin();
        let sending = client.install_snapshot(chunks(header, snapshot.snapshot));
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            response = sending => {
                let response = response.map_err(failed)?.into_inner();
                let vote = response.vote.ok_or_else(|| missing("vote"))?;
                counted.succeeded();
                Ok(SnapshotResponse::new(vote_from_pb(vote)))
            }
        }
    }
}

impl NetTransferLeader<TypeConfig> for PeerNetwork {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = pb::TransferLeaderRequest {
            from: Some(vote_to_pb(req.from_leader())),
            to: *req.to_node_id(),
            last_log_id: req.last_log_id().copied().map(log_id_to_pb),
        };
        let request = request(message, option.soft_ttl());
        let response = self
            .client()?
            .transfer_leader(request)
            .await
            .map_err(failed)?
            .into_inner();
        Ok(match response.result.ok_or_else(|| missing("result"))? {
            pb::transfer_leader_response::Result::Accepted(_) => Ok(()),
            pb::transfer_leader_response::Result::VoteChanged(actual) => {
                Err(TransferLeaderError::VoteChanged {
                    expected: *req.from_leader(),
                    actual: vote_from_pb(actual),
                })
            }
            pb::transfer_leader_response::Result::NotFlushed(flushed) => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: req.last_log_id().copied(),
                    actual: flushed.log_id.map(log_id_from_pb),
                })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_late_if_the_last_one_was_more_than_two_intervals_ago() {
        let interval = Duration::from_millis(100);
        let heartbeats = Heartbeats::new(interval);
        let start = Instant::now();
        for (at_ms, is_late) in [
            (0, false),
            (100, false),
            (300, false),
            (501, true),
            (600, false),
        ] {
            let at = start + Duration::from_millis(at_ms);
            assert_eq!(heartbeats.is_late(at), is_late, "at {at_ms} ms");
            heartbeats.answered(at);
        }
    }

    #[test]
    fn a_heartbeat_after_one_that_failed_is_not_late() {
        let interval = Duration::from_millis(100);
        let heartbeats = Heartbeats::new(interval);
        let start = Instant::now();
        heartbeats.answered(start);
        assert!(!heartbeats.is_late(start + interval), "this one fails");
        assert!(!heartbeats.is_late(start + 5 * interval));
    }
}
