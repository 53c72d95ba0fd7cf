//! The Watch service: many watchers on one stream.
//!
//! A stream has no task of its own: what polls the answer takes requests, empties the subscriber's
//! queue and reads history, in turn. Dropping the stream removes its watchers.

mod codec;
mod frames;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use gonfalon_core::watch::{CreateError, Filter, Spec, WatchId};
use gonfalon_core::{KeyRange, Revision};
use gonfalon_proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::server::{NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use self::codec::WatchCodec;
use self::frames::{Details, Frame, Frames};
use super::status::Refusal;
use super::{Api, status};
use crate::watch::{Delivery, Entry, Subscriber};

/// What answers about no watcher in particular are addressed to.
const NO_WATCHER: i64 = -1;

/// Its only method.
const METHOD: &str = "Watch";

/// The service.
#[derive(Debug, Clone)]
pub(super) struct WatchService {
    api: Arc<Api>,
    request_bytes_max: usize,
    progress_interval: Duration,
}

impl NamedService for WatchService {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl WatchService {
    pub(super) fn new(
        api: Arc<Api>,
        request_bytes_max: usize,
        progress_interval: Duration,
    ) -> Self {
        Self {
            api,
            request_bytes_max,
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
                return Ok(super::grpc::unknown_method(Self::NAME, method).into_http());
            }
            let mut grpc = tonic::server::Grpc::new(WatchCodec);
            Ok(grpc.streaming(service, request).await)
        }
        .boxed()
    }
}

impl StreamingService<pb::WatchRequest> for WatchService {
    type Response = Frame;
    type ResponseStream = BoxStream<'static, Result<Frame, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        let watching = Watching::new(self, request.into_inner());
        let frames = stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(watching))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        std::future::ready(Ok(Response::new(frames.boxed())))
    }
}

/// One stream.
struct Watching {
    api: Arc<Api>,
    /// None once the client has said its last word; it may go on listening.
    requests: Option<Streaming<pb::WatchRequest>>,
    subscriber: Subscriber,
    /// Taken from the subscriber, on its way into `ready`. Empty between two steps.
    entries: Vec<Entry>,
    frames: Frames,
    ready: VecDeque<Frame>,
    progress: Interval,
    stopping: tokio_util::sync::CancellationToken,
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
        let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopping = api.node.stopping();
        Self {
            frames: Frames::new(api.header_without_revision(), service.request_bytes_max),
            api,
            requests: Some(requests),
            subscriber,
            entries: Vec::new(),
            ready: VecDeque::new(),
            progress,
            stopping,
        }
    }

    /// The next message; none when the client is gone.
    async fn next(&mut self) -> Result<Option<Frame>, Status> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            // A stream of events must not keep requests waiting.
            if let Some(requests) = &mut self.requests
                && let Some(request) = requests.message().now_or_never()
            {
                self.take(request?);
                continue;
            }
            let delivery = self.subscriber.next(&mut self.entries).await;
            let delivery = delivery.map_err(|error| Status::from(status::storage(error)))?;
            let term = self.api.node.term();
            self.frames
                .deliver(term, delivery, &mut self.entries, &mut self.ready);
            if delivery == Delivery::Nothing {
                self.wait().await?;
            }
        }
    }

    /// Waits for a request, for something to hand out, or for the time to tell of progress.
    async fn wait(&mut self) -> Result<(), Status> {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(Refusal::Stopped.into()),
            () = self.subscriber.filled() => Ok(()),
            request = request => {
                self.take(request?);
                Ok(())
            }
            _ = self.progress.tick() => {
                for id in self.frames.quiet_watchers() {
                    self.subscriber.progress(Some(id));
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, request: Option<pb::WatchRequest>) {
        let Some(request) = request else {
            self.requests = None;
            return;
        };
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request),
            Some(RequestUnion::CancelRequest(request)) => {
                // An id that nobody has is not worth an answer, as in etcd.
                self.subscriber.cancel(WatchId::new(request.watch_id));
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.subscriber.progress(None);
            }
            None => {}
        }
    }

    fn create(&mut self, request: pb::WatchCreateRequest) {
        if request.start_revision < 0 {
            return self.refuse(Refusal::Compacted.text());
        }
        let filters: Vec<FilterType> = request.filters().collect();
        let key = if request.key.is_empty() {
            Bytes::from_static(b"\0")
        } else {
            request.key
        };
        let spec = Spec {
            id: (request.watch_id != 0).then(|| WatchId::new(request.watch_id)),
            range: KeyRange::from_wire(key, request.range_end),
            start: (request.start_revision > 0).then(|| Revision::new(request.start_revision)),
            filter: Filter {
                no_put: filters.contains(&FilterType::Noput),
                no_delete: filters.contains(&FilterType::Nodelete),
            },
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
            Err(CreateError::EmptyRange) => self.refuse("mvcc: watcher range is empty"),
            Err(CreateError::DuplicateId) => {
                self.refuse("mvcc: duplicate watch ID provided on the WatchStream");
            }
        }
    }

    /// Answers that a watcher was not created.
    fn refuse(&mut self, reason: &str) {
        self.ready.push_back(Frame::message(pb::WatchResponse {
            header: Some(self.api.header(self.api.revision())),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..pb::WatchResponse::default()
        }));
    }
}
