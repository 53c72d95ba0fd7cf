//! The Watch service: many watchers on one stream.
//!
//! A stream has no task of its own: what polls the answer takes requests, empties the subscriber's
//! queue and reads history, in turn. Dropping the stream removes its watchers.

mod codec;
mod frames;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use gonfalon_core::watch::WatchId;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::{parse, render};
use pb::watch_request::RequestUnion;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::server::{NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use self::codec::WatchCodec;
use self::frames::{Details, Frame, Frames};
use super::status::Refusal;
use super::{Api, grpc, status};
use crate::watch::{Delivery, Subscriber};

/// What answers about no watcher in particular are addressed to.
const NO_WATCHER: i64 = -1;

/// Its only method.
const METHOD: &str = "Watch";

/// The service.
#[derive(Debug, Clone)]
pub(super) struct WatchService {
    api: Arc<Api>,
    request_bytes_max: usize,
    message_bytes_max: usize,
    progress_interval: Duration,
}

impl NamedService for WatchService {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl WatchService {
    pub(super) fn new(
        api: Arc<Api>,
        request_bytes_max: usize,
        message_bytes_max: usize,
        progress_interval: Duration,
    ) -> Self {
        Self {
            api,
            request_bytes_max,
            message_bytes_max,
            progress_interval,
        }
    }
}

impl<B> Service<http::Request<B>> for WatchService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            if method != METHOD {
                return Ok(grpc::unknown_method(Self::NAME, method).into_http());
            }
            let mut server = tonic::server::Grpc::new(WatchCodec)
                .max_decoding_message_size(service.message_bytes_max);
            Ok(server.streaming(service, request).await)
        }
        .boxed()
    }
}

impl StreamingService<pb::WatchRequest> for WatchService {
    type Response = Frame;
    type ResponseStream = BoxStream<'static, Result<Frame, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        let watching = Box::new(Watching::new(self, request.into_inner()));
        let frames = stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            Some(match watching.next().await {
                Ok(frame) => (Ok(frame), Some(watching)),
                Err(error) => (Err(error), None),
            })
        });
        std::future::ready(Ok(Response::new(frames.boxed())))
    }
}

/// One stream.
struct Watching {
    api: Arc<Api>,
    asking: Asking,
    subscriber: Subscriber,
    frames: Frames,
}

/// What a stream has to react to, beside events.
struct Asking {
    /// None once the client has said its last word; it may go on listening.
    requests: Option<Streaming<pb::WatchRequest>>,
    progress: Interval,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Something that a stream has to react to.
enum Asked {
    Request(pb::WatchRequest),
    /// There will be no more requests.
    NothingMore,
    /// It is time to tell quiet watchers of progress.
    QuietWatchers,
}

impl Watching {
    fn new(service: &WatchService, requests: Streaming<pb::WatchRequest>) -> Self {
        let api = service.api.clone();
        let store = api.node.store().clone();
        let subscriber = Subscriber::open(store.watchers().clone(), store);
        // Not all streams at once: up to a tenth later.
        let jitter = service
            .progress_interval
            .mul_f64(rand::random::<f64>() / 10.0);
        let period = service.progress_interval + jitter;
        let mut progress = interval_at(Instant::now() + period, period);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            asking: Asking {
                requests: Some(requests),
                progress,
                stopping: Box::pin(api.node.stopping().cancelled_owned()),
            },
            subscriber,
            frames: Frames::new(api.header_without_revision(), service.request_bytes_max),
            api,
        }
    }

    /// The next message. A stream ends with an error or by being dropped, never by itself: a client
    /// that has no more requests may go on listening.
    async fn next(&mut self) -> Result<Frame, Status> {
        loop {
            if let Some(frame) = self.frames.next() {
                let metrics = self.api.node.store().metrics();
                metrics.kv.events.inc_by(frame.event_count());
                return Ok(frame);
            }
            // However much there is to do, others want to run too.
            tokio::task::consume_budget().await;
            // Events must keep neither requests nor progress waiting.
            if let Some(asked) = self.asking.next().now_or_never() {
                let asked = self.counted(asked)?;
                self.answer(asked);
                continue;
            }
            let delivery = self.subscriber.next(self.frames.entries()).await;
            let delivery = delivery.map_err(|error| Status::from(status::storage(error)))?;
            self.frames.deliver(self.api.node.term(), delivery);
            if delivery == Delivery::Nothing {
                tokio::select! {
                    biased;
                    () = self.subscriber.filled() => {}
                    asked = self.asking.next() => {
                        let asked = self.counted(asked)?;
                        self.answer(asked);
                    }
                }
            }
        }
    }

    /// Counts a stream that broke.
    fn counted(&self, asked: Result<Asked, Status>) -> Result<Asked, Status> {
        let network = &self.api.node.store().metrics().network;
        asked.inspect_err(|error| {
            // Ended by us is not broken.
            if !self.api.node.stopping().is_cancelled() {
                network.watch_streams_failed.ended(error.code());
            }
        })
    }

    /// Does what was asked. The answer is in the subscriber's queue, in its place among the events,
    /// and taken from there at once: an id may be cancelled and used again by the next request.
    fn answer(&mut self, asked: Asked) {
        match asked {
            Asked::NothingMore => self.asking.requests = None,
            Asked::QuietWatchers => {
                for id in self.frames.quiet_watchers() {
                    self.subscriber.progress(Some(id));
                }
            }
            Asked::Request(request) => match request.request_union {
                Some(RequestUnion::CreateRequest(request)) => self.create(request),
                Some(RequestUnion::CancelRequest(request)) => {
                    // An id that nobody has is not worth an answer, as in etcd.
                    self.subscriber.cancel(WatchId::new(request.watch_id));
                }
                Some(RequestUnion::ProgressRequest(_)) => {
                    self.subscriber.progress(None);
                }
                None => {}
            },
        }
        self.subscriber.take(self.frames.entries());
        self.frames.deliver(self.api.node.term(), Delivery::Live);
    }

    fn create(&mut self, request: pb::WatchCreateRequest) {
        let spec = match parse::watch(&request) {
            Ok(spec) => spec,
            Err(refusal) => return self.refuse(refusal.text()),
        };
        match self.subscriber.create(spec, request.prev_kv) {
            Ok(created) => self.frames.add(
                created.id,
                Details {
                    with_prev: request.prev_kv,
                    may_fragment: request.fragment,
                    wants_progress: request.progress_notify,
                    is_quiet: true,
                },
            ),
            Err(error) => self.refuse(render::not_created(error)),
        }
    }

    /// Answers that a watcher was not created.
    fn refuse(&mut self, reason: &str) {
        let at = self.subscriber.revision();
        self.frames.refuse(self.api.node.term(), at, reason);
    }
}

impl Asking {
    /// The next request, or the time to tell of progress.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    async fn next(&mut self) -> Result<Asked, Status> {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut self.stopping => Err(Refusal::Stopped.into()),
            _ = self.progress.tick() => Ok(Asked::QuietWatchers),
            request = request => match request {
                Ok(Some(request)) => Ok(Asked::Request(request)),
                Ok(None) => Ok(Asked::NothingMore),
                Err(error) => Err(grpc::in_etcds_words(error)),
            },
        }
    }
}
