//! Finds the service that a request is for, and answers in etcd's words where tonic has its own.
//!
//! One lookup by name instead of a router: every request passes here, and the services are few and
//! known. What etcd's interceptors do for every call is here too: the metadata `hasleader` and
//! `client-api-version`.

mod deadline;
mod stream;
mod words;

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use gonfalon_proto::etcdserverpb::auth_server::AuthServer;
use gonfalon_proto::etcdserverpb::cluster_server::ClusterServer;
use gonfalon_proto::etcdserverpb::kv_server::KvServer;
use gonfalon_proto::etcdserverpb::lease_server::LeaseServer;
use gonfalon_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use gonfalon_proto::v3electionpb::election_server::ElectionServer;
use gonfalon_proto::v3lockpb::lock_server::LockServer;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service;

use deadline::Deadline;
pub(super) use words::{in_etcds_words, unknown_method};

use super::Api;
use super::kv::deep::TxnMethod;
use super::status::Refusal;
use super::watch::WatchService;
use crate::config::Config;
use crate::node::Node;

/// A message may be larger than the largest request by this much, as etcd has it, so that a request
/// that is a little too large is told so and not cut off.
const OVERHEAD_BYTES: usize = 512 * 1024;

/// The gRPC services of one member, as one tower service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Grpc {
    services: Arc<Services>,
}

#[derive(Debug)]
struct Services {
    node: Node,
    election_timeout: Duration,
    kv: KvServer<Api>,
    txn: TxnMethod,
    lease: LeaseServer<Api>,
    cluster: ClusterServer<Api>,
    maintenance: MaintenanceServer<Api>,
    auth: AuthServer<Api>,
    lock: LockServer<Api>,
    election: ElectionServer<Api>,
    watch: WatchService,
    health: HealthServer<HealthService>,
}

impl Grpc {
    /// The services of `node`.
    pub fn new(node: Node, config: &Config) -> Self {
        let api = Arc::new(Api::new(node.clone(), config));
        let max = config.request_bytes_max + OVERHEAD_BYTES;
        // A new reporter says that the server as a whole, the service "", is serving.
        let health = HealthService::from_health_reporter(HealthReporter::new());
        let services = Services {
            node,
            election_timeout: config.election_timeout,
            txn: TxnMethod::new(api.clone(), max),
            kv: KvServer::from_arc(api.clone()).max_decoding_message_size(max),
            lease: LeaseServer::from_arc(api.clone()).max_decoding_message_size(max),
            cluster: ClusterServer::from_arc(api.clone()).max_decoding_message_size(max),
            maintenance: MaintenanceServer::from_arc(api.clone()).max_decoding_message_size(max),
            auth: AuthServer::from_arc(api.clone()).max_decoding_message_size(max),
            lock: LockServer::from_arc(api.clone()).max_decoding_message_size(max),
            election: ElectionServer::from_arc(api.clone()).max_decoding_message_size(max),
            watch: WatchService::new(
                api,
                config.request_bytes_max,
                max,
                config.watch_progress_notify_interval,
            ),
            health: HealthServer::new(health).max_decoding_message_size(max),
        };
        Self {
            services: Arc::new(services),
        }
    }
}

impl<B> Service<Request<B>> for Grpc
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let needs_leader = match self.services.admit(request.headers()) {
            Ok(needs_leader) => needs_leader,
            Err(refusal) => return Answering::with(Status::from(refusal).into_http()),
        };
        let Some(path) = request.uri().path_and_query().cloned() else {
            return Answering::with(words::unknown("").into_http());
        };
        let deadline = Deadline::of(request.headers());
        let Some(answer) = self.services.call(request) else {
            return Answering::with(words::unknown(path.path()).into_http());
        };
        let services = needs_leader.then(|| self.services.clone());
        Answering {
            answer,
            path: Some(path),
            deadline,
            needs_leader: services,
        }
    }
}

impl Services {
    /// What holds for every call; whether it must end when there is no leader any more.
    fn admit(&self, headers: &HeaderMap) -> Result<bool, Refusal> {
        if let Some(version) = headers.get("client-api-version")
            && std::str::from_utf8(version.as_bytes()).is_err()
        {
            return Err(Refusal::InvalidClientApiVersion);
        }
        let needs_leader = headers
            .get("hasleader")
            .is_some_and(|value| value == "true");
        if needs_leader && self.node.status().leader.is_none() {
            return Err(Refusal::NoLeader);
        }
        Ok(needs_leader)
    }

    /// Hands the request to its service; none if there is no such service.
    fn call<B>(&self, request: Request<B>) -> Option<BoxFuture<'static, Answer>>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let (service, _) = words::split(request.uri().path())?;
        Some(match service {
            _ if request.uri().path() == TxnMethod::PATH => {
                let txn = self.txn.clone();
                Box::pin(async move { Ok(txn.call(request).await) })
            }
            KvServer::<Api>::NAME => self.kv.clone().call(request),
            LeaseServer::<Api>::NAME => self.lease.clone().call(request),
            ClusterServer::<Api>::NAME => self.cluster.clone().call(request),
            MaintenanceServer::<Api>::NAME => self.maintenance.clone().call(request),
            AuthServer::<Api>::NAME => self.auth.clone().call(request),
            LockServer::<Api>::NAME => self.lock.clone().call(request),
            ElectionServer::<Api>::NAME => self.election.clone().call(request),
            WatchService::NAME => self.watch.clone().call(request),
            HealthServer::<HealthService>::NAME => self.health.clone().call(request),
            _ => return None,
        })
    }
}

type Answer = Result<Response<Body>, Infallible>;

/// The answer to a request.
#[must_use = "a request is only worked on while its answer is awaited"]
pub struct Answering {
    answer: BoxFuture<'static, Answer>,
    /// What was called; taken once answered.
    path: Option<PathAndQuery>,
    deadline: Option<Deadline>,
    /// Set if a stream must end when there is no leader any more.
    needs_leader: Option<Arc<Services>>,
}

impl std::fmt::Debug for Answering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answering")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Answering {
    fn with(response: Response<Body>) -> Self {
        Self {
            answer: Box::pin(ready(Ok(response))),
            path: None,
            deadline: None,
            needs_leader: None,
        }
    }
}

impl Future for Answering {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let Poll::Ready(Ok(response)) = self.answer.as_mut().poll(cx) else {
            let Some(deadline) = &mut self.deadline else {
                return Poll::Pending;
            };
            // The work is dropped with this: whoever waits in a queue leaves it.
            return deadline
                .poll(cx)
                .map(|()| Ok(words::deadline_exceeded().into_http()));
        };
        let response = match self.path.take() {
            Some(path) => words::translate(response, path.path()),
            None => response,
        };
        Poll::Ready(Ok(match self.needs_leader.take() {
            Some(services) => response.map(|body| {
                let node = services.node.clone();
                Body::new(stream::WhileLed::new(body, node, services.election_timeout))
            }),
            None => response,
        }))
    }
}
