//! The KV service: reading and writing keys.

pub(super) mod deep;
mod pages;
mod stream;

use std::time::Instant;

use futures::stream::BoxStream;
use gonfalon_core::{Answer, Command, Revision};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::parse::{self, Effect};
use gonfalon_wire::render;
use pb::kv_server::Kv;
use tonic::{Request, Response, Status};

use super::{Api, status};

impl Api {
    async fn answer_range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let read = parse::range(request)?;
        self.linearize_unless(read.serializable).await?;
        let (revision, answer) = if pages::is_worthwhile(&read.range) {
            pages::read(self, &read.range).await?
        } else {
            self.read_range(&read.range)?
        };
        Ok(render::range(answer, self.header(revision)))
    }
}

#[tonic::async_trait]
impl Kv for Api {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let started = Instant::now();
        let answer = self.answer_range(request.into_inner()).await;
        let counted = &self.node.store().metrics().kv;
        counted.ranges.inc();
        counted
            .range_seconds
            .observe(answer.is_ok(), started.elapsed());
        answer.map(Response::new)
    }

    type RangeStreamStream = BoxStream<'static, Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let read = parse::range_stream(request.into_inner())?;
        self.linearize_unless(read.serializable).await?;
        let pieces = stream::pieces(self.clone(), &read.range)?;
        Ok(Response::new(pieces))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let put = parse::put(request.into_inner(), &self.limits)?;
        let (revision, Answer::Put(answer)) = self.propose(Command::Put(put)).await? else {
            unreachable!("a put is answered as one");
        };
        Ok(Response::new(render::put(answer, self.header(revision))))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let delete = parse::delete(request.into_inner(), &self.limits)?;
        let command = Command::DeleteRange(delete);
        let (revision, Answer::DeleteRange(answer)) = self.propose(command).await? else {
            unreachable!("a deletion is answered as one");
        };
        Ok(Response::new(render::delete(answer, self.header(revision))))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let parse::Transaction { txn, effect } = parse::txn(request.into_inner(), &self.limits)?;
        let (revision, answer) = match effect {
            Effect::Read { serializable } => {
                self.linearize_unless(serializable).await?;
                self.read_txn(&txn)?
            }
            Effect::Write => match self.propose(Command::Txn(txn)).await? {
                (revision, Answer::Txn(answer)) => (revision, answer),
                (_, other) => unreachable!("a transaction is answered as one, not {other:?}"),
            },
        };
        Ok(Response::new(render::txn(answer, self.header(revision))))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let request = request.into_inner();
        let compacted = Revision::new(request.revision);
        let (revision, _) = self
            .propose(Command::Compact {
                revision: compacted,
            })
            .await?;
        if request.physical {
            self.node
                .store()
                .wait_compacted(compacted)
                .await
                .map_err(status::storage)?;
        }
        Ok(Response::new(pb::CompactionResponse {
            header: Some(self.header(revision)),
        }))
    }
}
