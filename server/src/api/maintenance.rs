//! The Maintenance service: looking after one member.

mod alarm;
mod snapshot;

use futures::stream::BoxStream;
use gonfalon_core::{MemberId, Revision};
use gonfalon_proto::etcdserverpb as pb;
use pb::maintenance_server::{Maintenance, SERVICE_NAME};
use tonic::{Request, Response, Status};

use super::status::Refusal;
use super::{Api, grpc, status};
use crate::node::NodeError;
use crate::version;

#[tonic::async_trait]
impl Maintenance for Api {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        Ok(Response::new(
            alarm::answer(self, request.into_inner()).await?,
        ))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.node.status();
        let store = self.node.store();
        let (revision, alarms) = store.read(|state, _| (state.revision(), alarm::raised(state)));
        let mut errors: Vec<String> = alarms.iter().map(alarm::describe).collect();
        if status.leader.is_none() {
            errors.insert(0, Refusal::NoLeader.text().to_owned());
        }
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.header(revision)),
            version: version::ETCD.to_owned(),
            db_size: bytes(store.size_bytes()),
            leader: status.leader.map_or(0, MemberId::get),
            raft_index: status.committed_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: bytes(store.size_in_use_bytes()),
            is_learner: status.is_learner,
            storage_version: version::STORAGE.to_owned(),
            // etcd, too, shows a quota that is off as a negative one.
            db_size_quota: self.quota_bytes.map_or(-1, bytes),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.node
            .store()
            .defragment()
            .await
            .map_err(status::upkeep)?;
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn hash(
        &self,
        _request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let hash = self.node.store().hash().await.map_err(status::storage)?;
        Ok(Response::new(pb::HashResponse {
            header: Some(self.header(self.revision())),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let revision = (revision != 0).then(|| Revision::new(revision));
        let hash = self
            .node
            .store()
            .hash_kv(revision)
            .await
            .map_err(status::storage)?
            .map_err(Refusal::from)?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.header(self.revision())),
            hash: hash.hash,
            compact_revision: hash.compacted.get(),
            hash_revision: hash.revision.get(),
        }))
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let backup = self.node.store().backup().await;
        let backup = backup.map_err(status::upkeep)?;
        Ok(Response::new(snapshot::blobs(backup)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = MemberId::new(request.into_inner().target_id);
        let moved = self.node.move_leader(target).await;
        moved.map_err(|error| match error {
            NodeError::Timeout => Refusal::TimeoutLeaderTransfer,
            error => error.into(),
        })?;
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        _request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(grpc::unknown_method(SERVICE_NAME, "Downgrade"))
    }
}

fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
