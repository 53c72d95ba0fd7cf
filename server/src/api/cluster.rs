//! The Cluster service: who is a member. Changing that is not built yet.

use gonfalon_proto::etcdserverpb as pb;
use pb::cluster_server::{Cluster, SERVICE_NAME};
use tonic::{Request, Response, Status};

use super::{Api, grpc};
use crate::node::Member;

#[tonic::async_trait]
impl Cluster for Api {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.linearize_unless(!request.into_inner().linearizable)
            .await?;
        Ok(Response::new(pb::MemberListResponse {
            header: Some(self.header_without_revision()),
            members: self.node.members().into_iter().map(member).collect(),
        }))
    }

    async fn member_add(
        &self,
        _request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(grpc::unknown_method(SERVICE_NAME, "MemberAdd"))
    }

    async fn member_remove(
        &self,
        _request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(grpc::unknown_method(SERVICE_NAME, "MemberRemove"))
    }

    async fn member_update(
        &self,
        _request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(grpc::unknown_method(SERVICE_NAME, "MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(grpc::unknown_method(SERVICE_NAME, "MemberPromote"))
    }
}

fn member(member: Member) -> pb::Member {
    pb::Member {
        id: member.id.get(),
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}
