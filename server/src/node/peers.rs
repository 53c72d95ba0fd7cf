//! The sending half of what members say to each other: openraft's network, and what a follower
//! asks of the leader.
//!
//! A peer has two connections: one for votes and log entries, which must never queue behind a
//! snapshot or a burst of forwarded writes, and one for everything else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gonfalon_core::LeaseId;
use gonfalon_proto::peer::{self as pb, peer_client::PeerClient};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::dial::Dial;
use super::meter::Asking;
use super::plan::Plan;
use super::{Identity, LeaseRemaining};
use crate::limits::{PEER_MESSAGE_BYTES_MAX, PROBE_TIMEOUT};
use crate::metrics::{self, Metrics};
use crate::raft::{LogId, log_id_from_pb};

/// Metadata that names the cluster a call is meant for.
pub(super) const CLUSTER_ID: &str = "gonfalon-cluster-id";
/// Metadata that names the member a call is meant for.
pub(super) const TO: &str = "gonfalon-to";
/// Metadata that names the member that calls.
pub(super) const FROM: &str = "gonfalon-from";

/// Text of the refusals that prove that a forwarded batch was not appended.
pub(super) const NOT_PROPOSED: &str = "not proposed";
/// Text of the refusal of a batch that was appended and discarded with its leader.
pub(super) const DISCARDED: &str = "discarded";

/// What a call to a peer goes through.
pub(super) type Client = PeerClient<Asking<InterceptedService<Channel, Address>>>;

/// Adds the cluster and the member that a call is meant for, and who calls.
#[derive(Debug, Clone)]
pub(super) struct Address {
    cluster_id: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
}

impl tonic::service::Interceptor for Address {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_ID, self.cluster_id.clone());
        metadata.insert(TO, self.to.clone());
        metadata.insert(FROM, self.from.clone());
        Ok(request)
    }
}

/// Connections to the other members.
#[derive(Debug)]
pub(crate) struct Peers {
    cluster_id: u64,
    own: u64,
    metrics: Arc<Metrics>,
    timeout: Duration,
    members: Mutex<BTreeMap<u64, Peer>>,
}

#[derive(Debug, Clone)]
struct Peer {
    urls: Vec<String>,
    raft: Client,
    other: Client,
}

/// Why a batch that was sent to the leader has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForwardError {
    /// It certainly was not appended to a log.
    NotProposed,
    /// It was appended, and the leader lost its office before it was committed.
    Discarded,
    /// It may still be committed.
    Unknown,
}

impl Peers {
    /// No connections yet; `timeout` bounds each call but streams.
    pub(super) fn new(identity: &Identity, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            cluster_id: identity.cluster_id,
            own: identity.member_id.get(),
            metrics,
            timeout,
            members: Mutex::default(),
        }
    }

    /// The connection for votes and log entries of `member`, at `urls`.
    pub(super) fn raft_client(&self, member: u64, urls: &[String]) -> Result<Client, PeerError> {
        self.learn(member, urls)?;
        self.find(member).map(|peer| peer.raft)
    }

    /// The connection for snapshots of `member`, at `urls`.
    pub(super) fn bulk_client(&self, member: u64, urls: &[String]) -> Result<Client, PeerError> {
        self.learn(member, urls)?;
        self.find(member).map(|peer| peer.other)
    }

    /// Remembers where `member` is reached; connects when first needed.
    pub(super) fn learn(&self, member: u64, urls: &[String]) -> Result<(), PeerError> {
        let mut members = self
            .members
            .lock()
            .expect("nothing panics while it holds this lock");
        if members.get(&member).is_some_and(|peer| peer.urls == urls) {
            return Ok(());
        }
        let url = urls.first().ok_or(PeerError::Unknown(member))?;
        let bad = |(url, why)| PeerError::BadUrl { url, why };
        let dial = Dial::new(member, urls, self.timeout).map_err(bad)?;
        // Only a name for the member: where it is reached is `dial`'s business.
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| bad((url.clone(), error.to_string())))?
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        let address = Address {
            cluster_id: ascii(self.cluster_id),
            to: ascii(member),
            from: ascii(self.own),
        };
        let metrics = self.metrics(member);
        let client = || {
            let channel = endpoint.connect_with_connector_lazy(dial.clone());
            let channel = InterceptedService::new(channel, address.clone());
            PeerClient::new(Asking::new(channel, metrics.clone()))
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
        };
        let peer = Peer {
            urls: urls.to_vec(),
            raft: client(),
            other: client(),
        };
        members.insert(member, peer);
        Ok(())
    }

    /// A heartbeat was sent later than it should have been.
    pub(super) fn heartbeat_late(&self) {
        self.metrics.raft.heartbeats_late.inc();
    }

    /// What is counted of `member`.
    pub(super) fn metrics(&self, member: u64) -> Arc<metrics::Peer> {
        self.metrics.peers.learn(self.own, member)
    }

    fn find(&self, member: u64) -> Result<Peer, PeerError> {
        let members = self
            .members
            .lock()
            .expect("nothing panics while it holds this lock");
        members
            .get(&member)
            .cloned()
            .ok_or(PeerError::Unknown(member))
    }

    fn other(&self, member: u64) -> Result<Client, Status> {
        self.find(member)
            .map(|peer| peer.other)
            .map_err(|e| Status::unavailable(e.to_string()))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Sends a batch to `leader`; returns when it is committed.
    pub(super) async fn propose(&self, leader: u64, batch: Bytes) -> Result<(), ForwardError> {
        let mut client = self.other(leader).map_err(|_| ForwardError::NotProposed)?;
        // No timeout of our own: the caller has one, and ours would not tell him more.
        match client.propose(pb::ProposeRequest { batch }).await {
            Ok(_) => Ok(()),
            Err(status) => Err(match (status.code(), status.message()) {
                (Code::FailedPrecondition, NOT_PROPOSED) => ForwardError::NotProposed,
                (Code::FailedPrecondition, DISCARDED) => ForwardError::Discarded,
                _ if is_unsent(&status) => ForwardError::NotProposed,
                _ => ForwardError::Unknown,
            }),
        }
    }

    /// Asks `member` for an answer, on the way that log entries take. None in [`PROBE_TIMEOUT`]
    /// is a failure.
    pub(super) async fn ping(&self, member: u64) -> Result<(), Status> {
        let found = self.find(member);
        let mut client = found.map_err(|e| Status::unavailable(e.to_string()))?.raft;
        let mut request = Request::new(pb::PingRequest {});
        request.set_timeout(PROBE_TIMEOUT);
        client.ping(request).await.map(drop)
    }

    /// Asks `member` whether it knows this member as one that was started before; with its plan, if
    /// it is new too.
    pub(super) async fn is_started(&self, member: u64) -> Result<(bool, Option<Plan>), Status> {
        let mut request = Request::new(pb::IsStartedRequest { member: self.own });
        request.set_timeout(PROBE_TIMEOUT);
        let response = self.other(member)?.is_started(request).await?;
        let plan = Plan::read(response.metadata());
        Ok((response.into_inner().started, plan))
    }

    /// Asks `leader` up to where a linearizable read must have applied.
    pub(super) async fn read_index(&self, leader: u64) -> Result<LogId, Status> {
        let request = self.request(pb::ReadIndexRequest {});
        let response = self.other(leader)?.read_index(request).await?.into_inner();
        let read = response
            .read_log_id
            .ok_or_else(|| Status::internal("no read index"))?;
        Ok(log_id_from_pb(read))
    }

    /// Asks `leader` to renew leases; seconds granted to each, 0 for one that does not exist.
    pub(super) async fn keep_alive(&self, leader: u64, ids: Vec<i64>) -> Result<Vec<i64>, Status> {
        let count = ids.len();
        let request = self.request(pb::LeaseKeepAliveRequest { ids });
        let ttls = self
            .other(leader)?
            .lease_keep_alive(request)
            .await?
            .into_inner()
            .ttls;
        if ttls.len() != count {
            return Err(Status::internal(
                "the leader answered for another number of leases",
            ));
        }
        Ok(ttls)
    }

    /// Asks `leader` what is left of a lease.
    pub(super) async fn lease_remaining(
        &self,
        leader: u64,
        id: LeaseId,
    ) -> Result<Option<LeaseRemaining>, Status> {
        let request = self.request(pb::LeaseRemainingRequest { id: id.get() });
        let found = self
            .other(leader)?
            .lease_remaining(request)
            .await?
            .into_inner();
        Ok(found.found.then_some(LeaseRemaining {
            granted: found.granted_ttl,
            remaining: found.remaining_ttl,
        }))
    }
}

/// Why there is no connection to a member.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum PeerError {
    #[error("no address is known of member {0:x}")]
    Unknown(u64),
    #[error("peer URL {url}: {why}")]
    BadUrl { url: String, why: String },
}

/// Whether the failure happened before anything could have been sent.
pub(super) fn is_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

fn ascii(id: u64) -> MetadataValue<Ascii> {
    format!("{id:x}")
        .parse()
        .expect("hexadecimal digits are ASCII")
}

/// The peers, shared by everything that talks to them.
pub(super) type SharedPeers = Arc<Peers>;
