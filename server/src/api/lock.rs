//! The Lock service: whoever is first in the queue holds the lock.

use bytes::Bytes;
use gonfalon_core::Command;
use gonfalon_proto::{etcdserverpb as etcd, v3lockpb as pb};
use gonfalon_wire::parse;
use pb::lock_server::Lock;
use tonic::{Request, Response, Status};

use super::Api;
use super::queue::{Entered, Failure, Place, Waiting};

#[tonic::async_trait]
impl Lock for Api {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let pb::LockRequest { name, lease } = request.into_inner();
        let lease = self.session(lease).await?;
        let Entered {
            place, revision, ..
        } = self.enter(&name, lease, Bytes::new()).await?;
        let queue = Place::queue(&name);

        let waiting = Waiting::new(self, place.clone());
        self.wait_turn(&queue, &place).await?;
        waiting.keep();

        let now = self.still_holding(&place)?.ok_or(Failure::SessionExpired)?;
        assert!(now >= revision, "the store does not go back");
        Ok(Response::new(pb::LockResponse {
            header: Some(self.header(now)),
            key: place.key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        // etcd deletes the key as a client would, within the same limits.
        let delete = etcd::DeleteRangeRequest {
            key: request.into_inner().key,
            ..Default::default()
        };
        let delete = parse::delete(delete, &self.limits).map_err(Failure::from)?;
        let (revision, _) = self
            .propose(Command::DeleteRange(delete))
            .await
            .map_err(Failure::from)?;
        Ok(Response::new(pb::UnlockResponse {
            header: Some(self.header(revision)),
        }))
    }
}
