//! Counts what goes between members, on both sides of a call: what one sends, the other receives.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tower::Service;

use super::peers::FROM;
use crate::listen::is_grpc;
use crate::metrics::{Metrics, Peer};

/// What this member asks of another.
#[derive(Debug, Clone)]
pub(super) struct Asking<S> {
    inner: S,
    peer: Arc<Peer>,
}

impl<S> Asking<S> {
    pub(super) fn new(inner: S, peer: Arc<Peer>) -> Self {
        Self { inner, peer }
    }
}

impl<S, B> Service<Request<Body>> for Asking<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Metered<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let is_ready = ready!(self.inner.poll_ready(cx));
        Poll::Ready(is_ready.inspect_err(|_| self.peer.send_failed()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = self.peer.clone();
        let sent = Meter::of(&peer, Way::Sent);
        let asked = self
            .inner
            .call(request.map(|body| Body::new(Metered::new(body, sent))));
        async move {
            let answer = asked.await.inspect_err(|_| peer.send_failed())?;
            peer.answered();
            let received = Meter::of(&peer, Way::Received);
            Ok(answer.map(|body| Metered::new(body, received)))
        }
        .boxed()
    }
}

/// What others ask of this member.
#[derive(Debug, Clone)]
pub(crate) struct Asked<S> {
    inner: S,
    metrics: Arc<Metrics>,
    /// What a client is told that has come to the wrong port.
    advice: Arc<str>,
}

impl<S> Asked<S> {
    /// `client_urls` are where clients should go.
    pub(crate) fn new(inner: S, metrics: Arc<Metrics>, client_urls: &[String]) -> Self {
        let urls = client_urls.join(",");
        let advice =
            format!("this is where members talk to each other; clients are served at {urls}");
        Self {
            inner,
            metrics,
            advice: advice.into(),
        }
    }

    /// The answer to what no member asks.
    fn turned_away<B>(&self, request: &Request<B>) -> Response<Body> {
        if is_grpc(request.headers()) {
            return Status::unimplemented(&*self.advice).into_http();
        }
        let text = format!("{}\n", self.advice);
        let mut page = Response::new(Body::new(text));
        *page.status_mut() = StatusCode::NOT_FOUND;
        page
    }
}

impl<S, B> Service<Request<B>> for Asked<S>
where
    S: Service<Request<Metered<B>>, Response = Response<Body>, Error = Infallible> + NamedService,
    S::Future: Send + 'static,
{
    type Response = Response<Metered<Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().strip_prefix('/');
        if path
            .and_then(|path| path.split_once('/'))
            .is_none_or(|(name, _)| name != S::NAME)
        {
            let answer = self.turned_away(&request);
            let nobody = Meter {
                peer: Err((self.metrics.clone(), None)),
                way: Way::Sent,
            };
            return std::future::ready(Ok(answer.map(|body| Metered::new(body, nobody)))).boxed();
        }
        let asks = request.headers().get(FROM);
        let asks = asks.and_then(|id| u64::from_str_radix(id.to_str().ok()?, 16).ok());
        let meter = |way| Meter {
            peer: Err((self.metrics.clone(), asks)),
            way,
        };
        let (received, sent) = (meter(Way::Received), meter(Way::Sent));
        let answer = self
            .inner
            .call(request.map(|body| Metered::new(body, received)));
        answer
            .map(|answer| answer.map(|answer| answer.map(|body| Metered::new(body, sent))))
            .boxed()
    }
}

/// Where the bytes of one body are counted.
#[derive(Debug)]
struct Meter {
    /// Who is at the other end; if that member is not known yet, where it will be found. One that
    /// never is known is not counted.
    peer: Result<Arc<Peer>, (Arc<Metrics>, Option<u64>)>,
    way: Way,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Sent,
    Received,
}

impl Meter {
    fn of(peer: &Arc<Peer>, way: Way) -> Self {
        Self {
            peer: Ok(peer.clone()),
            way,
        }
    }

    fn peer(&mut self) -> Option<&Peer> {
        if let Err((metrics, Some(id))) = &self.peer
            && let Some(peer) = metrics.peers.find(*id)
        {
            self.peer = Ok(peer);
        }
        self.peer.as_deref().ok()
    }

    fn count(&mut self, bytes: usize) {
        let way = self.way;
        let Some(peer) = self.peer() else { return };
        let counter = match way {
            Way::Sent => &peer.sent_bytes,
            Way::Received => &peer.received_bytes,
        };
        counter.inc_by(bytes as u64);
    }

    fn broke_off(&mut self) {
        if let (Way::Received, Some(peer)) = (self.way, self.peer()) {
            peer.receive_failed();
        }
    }
}

/// A body whose bytes are counted as they pass.
#[derive(Debug)]
pub(crate) struct Metered<B> {
    body: B,
    meter: Meter,
}

impl<B> Metered<B> {
    fn new(body: B, meter: Meter) -> Self {
        Self { body, meter }
    }
}

impl<B> HttpBody for Metered<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(0, Buf::remaining);
                self.meter.count(data);
            }
            Some(Err(_)) => self.meter.broke_off(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
