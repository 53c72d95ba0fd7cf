//! The Lease service: keys that live as long as somebody renews their lease.
//!
//! Leases are granted and revoked through the log; their clock is the leader's, and
//! [`crate::node::Node`] asks it wherever it is.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use gonfalon_core::{Command, LeaseId};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::parse;
use pb::lease_server::Lease;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, grpc};

/// Renewals of one stream that are under way at a time: what one client may make a follower keep in
/// flight to the leader. More of them wait in the connection's window.
const KEEP_ALIVES_IN_FLIGHT_MAX: usize = 64;

#[tonic::async_trait]
impl Lease for Api {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let ttl = parse::lease_ttl(request.ttl, &self.limits);
        let id = match request.id {
            0 => random_id(),
            chosen => LeaseId::new(chosen),
        };
        let (revision, _) = self.propose(Command::LeaseGrant { id, ttl }).await?;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: Some(self.header(revision)),
            id: id.get(),
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let id = LeaseId::new(request.into_inner().id);
        let (revision, _) = self.propose(Command::LeaseRevoke { id }).await?;
        Ok(Response::new(pb::LeaseRevokeResponse {
            header: Some(self.header(revision)),
        }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let api = self.clone();
        let answers = request
            .into_inner()
            .map(move |request| {
                let api = api.clone();
                async move {
                    let request = request.inspect_err(|error| {
                        let network = &api.node.store().metrics().network;
                        network.lease_streams_failed.ended(error.code());
                    });
                    api.keep_alive(request.map_err(grpc::in_etcds_words)?.id)
                        .await
                }
            })
            .buffered(KEEP_ALIVES_IN_FLIGHT_MAX);
        Ok(Response::new(until_error(answers).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let id = LeaseId::new(request.id);
        let remaining = self.node.lease_remaining(id).await?;
        let keys = if request.keys && remaining.is_some() {
            self.linearize_unless(false).await?;
            self.lease_keys(id)
        } else {
            Vec::new()
        };
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header: Some(self.header(self.revision())),
            id: request.id,
            ttl: remaining.map_or(-1, |lease| lease.remaining),
            granted_ttl: remaining.map_or(0, |lease| lease.granted),
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        _request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.linearize_unless(false).await?;
        let (revision, mut leases) = self.node.store().read(|state, _| {
            let ids: Vec<_> = state.leases().map(|(id, _)| id).collect();
            (state.revision(), ids)
        });
        self.node.sort_leases(&mut leases);
        let leases = leases.iter().map(|id| pb::LeaseStatus { id: id.get() });
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: Some(self.header(revision)),
            leases: leases.collect(),
        }))
    }
}

impl Api {
    /// Renews a lease. One that does not exist is no error: its time to live is 0.
    async fn keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        // Taken before the renewal, as etcd does: the answer is as of no later than that.
        let header = self.header(self.revision());
        let ttl = self.node.lease_keep_alive(LeaseId::new(id)).await?;
        Ok(pb::LeaseKeepAliveResponse {
            header: Some(header),
            id,
            ttl: ttl.unwrap_or(0),
        })
    }

    fn lease_keys(&self, id: LeaseId) -> Vec<bytes::Bytes> {
        self.node.store().read(|state, _| {
            let keys = state
                .lease(id)
                .into_iter()
                .flat_map(gonfalon_core::Lease::keys);
            keys.map(bytes::Bytes::copy_from_slice).collect()
        })
    }
}

/// An id for a client that did not choose one. Drawn by who proposes it, so that every member
/// applies the same; taken ids are refused when applied, and 2^63 make that unlikely.
pub(super) fn random_id() -> LeaseId {
    LeaseId::new(rand::random_range(1..=i64::MAX))
}

/// A gRPC stream ends with its first error.
fn until_error<T>(
    answers: impl stream::Stream<Item = Result<T, Status>>,
) -> impl stream::Stream<Item = Result<T, Status>> {
    answers.scan(false, |has_failed, answer| {
        let is_over = std::mem::replace(has_failed, answer.is_err());
        std::future::ready((!is_over).then_some(answer))
    })
}
