//! The Lock service: whoever is first in the queue holds the lock.

use bytes::Bytes;
use gonfalon_core::command::DeleteRange;
use gonfalon_core::{Command, KeyRange};
use gonfalon_proto::v3lockpb as pb;
use pb::lock_server::Lock;
use tonic::{Request, Response, Status};

use super::Api;
use super::queue::{Entered, Failure, Place, Waiting};
use super::status::Refusal;

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
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(Failure::from(Refusal::EmptyKey).into());
        }
        let delete = DeleteRange {
            range: KeyRange::single(key),
            prev_kv: false,
        };
        let (revision, _) = self
            .propose(Command::DeleteRange(delete))
            .await
            .map_err(Failure::from)?;
        Ok(Response::new(pb::UnlockResponse {
            header: Some(self.header(revision)),
        }))
    }
}
