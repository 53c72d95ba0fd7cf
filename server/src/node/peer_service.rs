//! The receiving half of what members say to each other.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures::{Stream, StreamExt};
use gonfalon_core::command::Batch;
use gonfalon_core::{LeaseId, MemberId};
use gonfalon_proto::peer::{self as pb, peer_server::Peer};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderError, TransferLeaderRequest,
    VoteRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::peers::{CLUSTER_ID, DISCARDED, FROM, ForwardError, NOT_PROPOSED, TO};
use super::plan::Plan;
use super::propose::classify_write;
use super::read::own_index;
use super::snapshot::Receiver;
use super::{Identity, Node, NodeError};
use crate::metrics;
use crate::raft::{
    DecodeError, Payload, TypeConfig, entry_from_pb, log_id_from_pb, log_id_to_pb,
    stored_membership_from_pb, vote_from_pb, vote_to_pb,
};

/// Answers the other members.
#[derive(Debug)]
pub struct PeerService {
    identity: Identity,
    /// What it was told, if it began without data: then it knows of no member that was started.
    plan: Option<Plan>,
    /// None until the member takes part: nothing but `IsStarted` is answered before.
    node: OnceLock<Node>,
    /// Where snapshots are received, one directory each.
    incoming: PathBuf,
    received: AtomicU64,
}

impl PeerService {
    /// Answers for the member `identity`, with a `plan` if it is new; snapshots are received below
    /// `incoming`.
    pub(super) fn new(identity: Identity, plan: Option<Plan>, incoming: PathBuf) -> Self {
        Self {
            identity,
            plan,
            node: OnceLock::new(),
            incoming,
            received: AtomicU64::new(0),
        }
    }

    /// From now on the member takes part.
    pub(super) fn answer_for(&self, node: Node) {
        let answers = self.node.set(node);
        assert!(answers.is_ok(), "a member is opened once");
    }

    /// Refuses calls that are meant for another cluster or another member.
    fn check_address<T>(&self, request: &Request<T>) -> Result<(), Status> {
        for (name, what, own) in [
            (CLUSTER_ID, "a member of cluster", self.identity.cluster_id),
            (TO, "member", self.identity.member_id.get()),
        ] {
            let meant = request
                .metadata()
                .get(name)
                .and_then(|value| value.to_str().ok());
            if meant.and_then(|id| u64::from_str_radix(id, 16).ok()) != Some(own) {
                return Err(Status::permission_denied(format!(
                    "this is {what} {own:x}; the call is for {}",
                    meant.unwrap_or("nobody")
                )));
            }
        }
        Ok(())
    }

    /// Refuses what is meant for others, and everything while this member takes part in nothing.
    fn check<T>(&self, request: &Request<T>) -> Result<&Node, Status> {
        self.check_address(request)?;
        let not_yet = || Status::unavailable("this member does not take part yet");
        self.node.get().ok_or_else(not_yet)
    }
}

/// The member that asks, if it is one of the cluster's.
fn sender<T>(node: &Node, request: &Request<T>) -> Option<Arc<metrics::Peer>> {
    let from = request.metadata().get(FROM)?.to_str().ok()?;
    let from = u64::from_str_radix(from, 16).ok()?;
    node.store().metrics().peers.find(from)
}

fn bad(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is missing"))
}

fn undecodable(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn vote_request(request: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let vote = vote_from_pb(request.vote.ok_or_else(|| bad("vote"))?);
    let mut vote = VoteRequest::new(vote, request.last_log_id.map(log_id_from_pb));
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

fn vote_response(response: &openraft::raft::VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to_pb(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(log_id_to_pb),
    }
}

fn append_request(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, DecodeError> {
    let vote = request.vote.ok_or_else(|| DecodeError {
        what: "append",
        why: "vote is missing".into(),
    })?;
    Ok(AppendEntriesRequest {
        vote: vote_from_pb(vote),
        prev_log_id: request.prev_log_id.map(log_id_from_pb),
        entries: request
            .entries
            .into_iter()
            .map(entry_from_pb)
            .collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(log_id_from_pb),
    })
}

fn append_response(result: &openraft::raft::StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as R;
    let result = match result {
        Ok(matched) => R::Matched(pb::Matched {
            log_id: matched.map(log_id_to_pb),
        }),
        Err(StreamAppendError::Conflict(id)) => R::Conflict(log_id_to_pb(*id)),
        Err(StreamAppendError::HigherVote(vote)) => R::HigherVote(vote_to_pb(vote)),
    };
    pb::AppendResponse {
        result: Some(result),
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<pb::AppendResponse, Status>> + Send>>;

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let node = self.check(&request)?;
        let request = vote_request(request.into_inner())?;
        let response = node.raft().vote(request).await.map_err(stopped)?;
        Ok(Response::new(vote_response(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let node = self.check(&request)?;
        let request = vote_request(request.into_inner())?;
        let response = node.raft().pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(vote_response(&response)))
    }

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let node = self.check(&request)?;
        // A message that cannot be read ends the stream; the leader opens another. So does the end
        // of this member: what came before is answered.
        let requests = futures::stream::unfold(request.into_inner(), async |mut messages| {
            let message = messages.message().await.ok().flatten()?;
            let request = append_request(message)
                .inspect_err(|error| tracing::warn!(%error, "unreadable append request"))
                .ok()?;
            Some((request, messages))
        });
        let stopping = node.inner.stop.clone().cancelled_owned();
        let results = node
            .raft()
            .stream_append(requests.take_until(stopping).boxed());
        let node = node.clone();
        let responses = results.map(move |result| match result {
            Ok(result) => {
                if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                    node.heard_from_leader();
                }
                Ok(append_response(&result))
            }
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        use pb::transfer_leader_response::Result as R;
        let node = self.check(&request)?;
        let request = request.into_inner();
        let from = vote_from_pb(request.from.ok_or_else(|| bad("from"))?);
        let last = request.last_log_id.map(log_id_from_pb);
        let transfer = TransferLeaderRequest::new(from, request.to, last);
        let result = match node.raft().handle_transfer_leader(transfer).await {
            Ok(Ok(())) => R::Accepted(pb::Blank {}),
            Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => {
                R::VoteChanged(vote_to_pb(&actual))
            }
            Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => {
                R::NotFlushed(pb::Matched {
                    log_id: actual.map(log_id_to_pb),
                })
            }
            Err(fatal) => return Err(stopped(fatal)),
        };
        Ok(Response::new(pb::TransferLeaderResponse {
            result: Some(result),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        use pb::snapshot_chunk::Part;
        let node = self.check(&request)?;
        let peer = sender(node, &request);
        let receiving = peer.as_ref().map(|peer| peer.snapshots_received.begin());
        let mut chunks = request.into_inner();
        let Some(pb::SnapshotChunk {
            part: Some(Part::Header(header)),
        }) = chunks.message().await?
        else {
            return Err(bad("header"));
        };
        let vote = vote_from_pb(header.vote.ok_or_else(|| bad("vote"))?);
        let membership = header.membership.ok_or_else(|| bad("membership"))?;
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        let dir = self
            .incoming
            .join(format!("{:x}-{number}", std::process::id()));
        let disk = &node.store().metrics().disk;
        let began = std::time::Instant::now();
        let mut receiver = Receiver::create(dir, disk.snapshot_file_fsync_seconds.clone())
            .await
            .map_err(|error| Status::internal(format!("receiving a snapshot: {error}")))?;
        while let Some(chunk) = chunks.message().await? {
            let Some(Part::File(file)) = chunk.part else {
                return Err(bad("file"));
            };
            receiver.write(file).await?;
        }
        let received = receiver.finish()?;
        let took = began.elapsed().as_secs_f64();
        disk.snapshot_save_seconds.observe(took);
        if let Some(receiving) = receiving {
            receiving.succeeded();
        }
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: header.last_log_id.map(log_id_from_pb),
            last_membership: stored_membership_from_pb(membership).map_err(undecodable)?,
        };
        let snapshot = SnapshotOf::<TypeConfig, _> {
            meta,
            snapshot: received,
        };
        let installed = node.raft().install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(stopped)?;
        Ok(Response::new(pb::SnapshotResponse {
            vote: Some(vote_to_pb(&response.vote)),
        }))
    }

    async fn ping(
        &self,
        request: Request<pb::PingRequest>,
    ) -> Result<Response<pb::PingResponse>, Status> {
        self.check(&request)?;
        Ok(Response::new(pb::PingResponse {}))
    }

    async fn is_started(
        &self,
        request: Request<pb::IsStartedRequest>,
    ) -> Result<Response<pb::IsStartedResponse>, Status> {
        let plan = self.plan.as_ref().filter(|_| self.node.get().is_none());
        let Some(plan) = plan else {
            let node = self.check(&request)?;
            let started = node.is_started(MemberId::new(request.into_inner().member));
            return Ok(Response::new(pb::IsStartedResponse { started }));
        };
        if let Err(mut refused) = self.check_address(&request) {
            plan.write(refused.metadata_mut());
            return Err(refused);
        }
        let mut response = Response::new(pb::IsStartedResponse { started: false });
        plan.write(response.metadata_mut());
        Ok(response)
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        let node = self.check(&request)?;
        let read = own_index(node.raft()).await;
        let read = read.map_err(|_| Status::failed_precondition("not leader"))?;
        Ok(Response::new(pb::ReadIndexResponse {
            read_log_id: Some(log_id_to_pb(read)),
        }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeResponse>, Status> {
        let node = self.check(&request)?;
        let batch = request.into_inner().batch;
        // What this version cannot read must not get into the log: every member would have to
        // apply it, again after each start.
        if let Err(error) = Batch::decode(batch.clone()) {
            return Err(Status::invalid_argument(error.to_string()));
        }
        let error = match node.raft().client_write(Payload(batch)).await {
            Ok(written) => {
                let log_id = Some(log_id_to_pb(written.log_id));
                return Ok(Response::new(pb::ProposeResponse { log_id }));
            }
            Err(error) => classify_write(error),
        };
        Err(match error {
            Ok(_) | Err(ForwardError::NotProposed) => Status::failed_precondition(NOT_PROPOSED),
            Err(ForwardError::Discarded) => Status::failed_precondition(DISCARDED),
            Err(ForwardError::Unknown) => Status::unavailable("stopping"),
        })
    }

    async fn lease_keep_alive(
        &self,
        request: Request<pb::LeaseKeepAliveRequest>,
    ) -> Result<Response<pb::LeaseKeepAliveResponse>, Status> {
        let node = self.check(&request)?;
        let ids = request.into_inner().ids.into_iter().map(LeaseId::new);
        let ids: Vec<_> = ids.collect();
        let ttls = node.renew_here(&ids).await.map_err(not_leading)?;
        let ttls = ttls.into_iter().map(Option::unwrap_or_default).collect();
        Ok(Response::new(pb::LeaseKeepAliveResponse { ttls }))
    }

    async fn lease_remaining(
        &self,
        request: Request<pb::LeaseRemainingRequest>,
    ) -> Result<Response<pb::LeaseRemainingResponse>, Status> {
        let node = self.check(&request)?;
        let id = LeaseId::new(request.into_inner().id);
        let found = node.remaining_here(id).await.map_err(not_leading)?;
        Ok(Response::new(pb::LeaseRemainingResponse {
            found: found.is_some(),
            granted_ttl: found.map_or(0, |lease| lease.granted),
            remaining_ttl: found.map_or(0, |lease| lease.remaining),
        }))
    }
}

fn not_leading(error: NodeError) -> Status {
    Status::failed_precondition(error.to_string())
}
