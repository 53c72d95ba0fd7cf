//! One connection's requests: what is to go wrong with them, and who answers them.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use futures::Stream;
use futures::future::BoxFuture;
use gonfalon_wire::Refusal;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::api::Api;
use super::fault::{Fault, Rpc};
use super::watch::watching;
use super::world::Shared;
use crate::transport::NEEDS_LEADER;

/// The metadata that says who asks.
pub(super) const TOKEN: &str = "token";

#[derive(Clone)]
pub(super) struct Front {
    api: Api,
    /// Cancelled, the connection breaks.
    cut: CancellationToken,
}

impl Front {
    pub(super) fn new(shared: Arc<Shared>, member: usize, cut: CancellationToken) -> Self {
        Self {
            api: Api { shared, member },
            cut,
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let rpc = Rpc::of(request.uri().path());
        let fault = self.api.shared.world().faults.call(rpc);
        match &fault {
            Some(Fault::DropRequest) => return self.break_off().await,
            Some(Fault::Refuse(status)) => return status.clone().into_http(),
            Some(Fault::Delay(time)) => sleep(*time).await,
            Some(Fault::DropResponse) | None => {}
        }
        if let Err(refusal) = self.admit(rpc, request.headers()) {
            return Status::from(refusal).into_http();
        }
        let response = self.dispatch(rpc, request).await;
        match fault {
            Some(Fault::DropResponse) => self.break_off().await,
            _ => response,
        }
    }

    /// Breaks the connection; nobody hears an answer.
    async fn break_off(&self) -> Response<Body> {
        self.cut.cancel();
        std::future::pending().await
    }

    /// What holds for every call.
    fn admit(&self, rpc: Rpc, headers: &HeaderMap) -> Result<(), Refusal> {
        let world = self.api.shared.world();
        if headers.contains_key(NEEDS_LEADER) && !world.members[self.api.member].sees_leader() {
            return Err(Refusal::NoLeader);
        }
        match rpc {
            // A stream of watches asks when watches are created on it.
            Rpc::Authenticate | Rpc::Status | Rpc::Watch => Ok(()),
            _ => world.check_token(token(headers).as_deref()),
        }
    }

    async fn dispatch(&self, rpc: Rpc, request: Request<Incoming>) -> Response<Body> {
        let api = &self.api;
        match rpc {
            Rpc::Range => unary(request, |asked| api.range(asked)).await,
            Rpc::Put => unary(request, |asked| api.put(asked)).await,
            Rpc::DeleteRange => unary(request, |asked| api.delete_range(asked)).await,
            Rpc::Txn => unary(request, |asked| api.txn(asked)).await,
            Rpc::Compact => unary(request, |asked| api.compact(asked)).await,
            Rpc::LeaseGrant => unary(request, |asked| api.lease_grant(asked)).await,
            Rpc::LeaseRevoke => unary(request, |asked| api.lease_revoke(asked)).await,
            Rpc::LeaseTimeToLive => unary(request, |asked| api.lease_time_to_live(asked)).await,
            Rpc::LeaseLeases => unary(request, |asked| api.lease_leases(asked)).await,
            Rpc::MemberList => unary(request, |asked| api.member_list(asked)).await,
            Rpc::Status => unary(request, |asked| Ok(api.status(asked))).await,
            Rpc::Authenticate => unary(request, |asked| api.authenticate(asked)).await,
            Rpc::LeaseKeepAlive => {
                let leaderless = self.leaderless(request.headers());
                streaming(request, |asked| api.lease_keep_alive(asked, &leaderless)).await
            }
            Rpc::Watch => {
                let leaderless = self.leaderless(request.headers());
                let token = token(request.headers());
                streaming(request, |asked| {
                    watching(api, asked, &leaderless, token.as_deref())
                })
                .await
            }
            Rpc::Other => {
                let path = request.uri().path();
                Status::unimplemented(format!("the server in memory has no {path}")).into_http()
            }
        }
    }

    /// What ends a stream that has asked to end when there is no leader.
    fn leaderless(&self, headers: &HeaderMap) -> CancellationToken {
        if !headers.contains_key(NEEDS_LEADER) {
            return CancellationToken::new();
        }
        let world = self.api.shared.world();
        world.members[self.api.member].leaderless.clone()
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { Ok(front.answer(request).await) })
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(TOKEN)?.to_str().ok()?.to_owned())
}

/// Answers a call of one request.
async fn unary<Q, R>(
    request: Request<Incoming>,
    answer: impl Fn(Q) -> Result<R, Refusal> + Send + Sync,
) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    R: Message + Default + Send + 'static,
{
    let service = service_fn(|asked: tonic::Request<Q>| {
        let answered = answer(asked.into_inner());
        ready(answered.map(tonic::Response::new).map_err(Status::from))
    });
    // The server has its own limit, and words for it.
    tonic::server::Grpc::new(ProstCodec::<R, Q>::default())
        .max_decoding_message_size(usize::MAX)
        .unary(service, request)
        .await
}

/// Answers a call that is a stream in both directions.
async fn streaming<Q, R, S>(
    request: Request<Incoming>,
    answer: impl Fn(Streaming<Q>) -> S + Send + Sync,
) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    R: Message + Default + Send + 'static,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
{
    let service = service_fn(|asked: tonic::Request<Streaming<Q>>| {
        ready(Ok(tonic::Response::new(answer(asked.into_inner()))))
    });
    tonic::server::Grpc::new(ProstCodec::<R, Q>::default())
        .streaming(service, request)
        .await
}
