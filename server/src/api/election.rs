//! The Election service: whoever is first in the queue leads, and its key's value is what it
//! publishes.

mod observe;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gonfalon_core::command::{Op, Txn};
use gonfalon_core::{LeaseId, Revision};
use gonfalon_proto::v3electionpb as pb;
use gonfalon_wire::{Refusal, render};
use pb::election_server::Election;
use tonic::{Request, Response, Status};

use super::Api;
use super::queue::{self, Entered, Failure, Place, Waiting};

#[tonic::async_trait]
impl Election for Api {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let lease = self.session(lease).await?;
        let Entered {
            place,
            value_before,
            revision,
        } = self.enter(&name, lease, value.clone()).await?;

        let waiting = Waiting::new(self, place.clone());
        if value_before.is_some_and(|before| before != value) {
            self.publish(&place, lease, value).await?;
        }
        self.wait_turn(&Place::queue(&name), &place).await?;
        waiting.keep();
        // etcd does not look, and tells a candidate without a key that it leads.
        self.still_holding(&place)?.ok_or(Failure::NotLeader)?;

        let leader = pb::LeaderKey {
            name,
            key: place.key,
            rev: place.created.get(),
            lease: lease.get(),
        };
        let header = Some(self.header(revision));
        Ok(Response::new(pb::CampaignResponse {
            header,
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.ok_or(Failure::LeaderMissing)?;
        let session = leader.lease;
        let place = place(leader)?;
        let lease = self.session(session).await?;
        let revision = self.publish(&place, lease, value).await?;
        Ok(Response::new(pb::ProclaimResponse {
            header: Some(self.header(revision)),
        }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let queue = Place::queue(&request.into_inner().name);
        self.linearize_unless(false).await.map_err(Failure::from)?;
        let (revision, first) = self.first_of(&queue)?;
        let kv = render::kv(first.ok_or(Failure::NoLeader)?);
        let header = Some(self.header(revision));
        Ok(Response::new(pb::LeaderResponse {
            header,
            kv: Some(kv),
        }))
    }

    type ObserveStream = BoxStream<'static, Result<pb::LeaderResponse, Status>>;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let queue = Place::queue(&request.into_inner().name);
        self.linearize_unless(false).await.map_err(Failure::from)?;
        Ok(Response::new(observe::leaders(self.clone(), queue).boxed()))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let leader = request.into_inner().leader.ok_or(Failure::LeaderMissing)?;
        let revision = self.leave(place(leader)?).await?;
        Ok(Response::new(pb::ResignResponse {
            header: Some(self.header(revision)),
        }))
    }
}

impl Api {
    /// Gives a place another value; the revision afterwards.
    async fn publish(
        &self,
        place: &Place,
        lease: LeaseId,
        value: bytes::Bytes,
    ) -> Result<Revision, Failure> {
        let put = queue::put(place.key.clone(), value, lease);
        let txn = Txn {
            compare: vec![place.is_held()],
            success: vec![Op::Put(put)],
            failure: vec![],
        };
        let (revision, results) = self.transact(txn).await?;
        if results.is_empty() {
            Err(Failure::NotLeader)
        } else {
            Ok(revision)
        }
    }
}

/// The place that a caller says he has.
fn place(leader: pb::LeaderKey) -> Result<Place, Failure> {
    if leader.key.is_empty() {
        return Err(Refusal::EmptyKey.into());
    }
    Ok(Place {
        key: leader.key,
        created: Revision::new(leader.rev),
    })
}
