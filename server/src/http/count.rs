//! Counts gRPC calls and their bytes on the way through.
//!
//! The code of a call is in the trailers, the last thing of its body; one that never sends any was
//! given up. Nothing is allocated here: bodies are wrapped, not boxed.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tower::Service;

use crate::metrics::{Call, Metrics};

/// A gRPC service whose calls are counted.
#[derive(Debug, Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Counted<S> {
    pub(crate) fn new(inner: S, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl<S, B> Service<Request<B>> for Counted<S>
where
    S: Service<Request<Received<B>>, Response = Response<tonic::body::Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Sent>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = self.metrics.rpc.begin(request.uri().path());
        let version = request.headers().get("client-api-version");
        let version = version.and_then(|version| version.to_str().ok());
        self.metrics.clients.asked(version, call.is_stream());
        let metrics = self.metrics.clone();
        let request = request.map(|body| Received { body, metrics });
        Answering {
            inner: self.inner.call(request),
            call: Some(call),
            metrics: self.metrics.clone(),
        }
    }
}

/// The answer of a counted call.
#[derive(Debug)]
pub(crate) struct Answering<F> {
    inner: F,
    /// Taken by the answer, with whose body the call ends.
    call: Option<Call>,
    metrics: Arc<Metrics>,
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Sent>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = std::task::ready!(Pin::new(&mut self.inner).poll(context));
        let mut call = self.call.take().expect("a call is answered once");
        // An answer without a body has its code in the headers.
        note_code(&mut call, response.headers());
        let metrics = self.metrics.clone();
        Poll::Ready(Ok(response.map(|body| Sent {
            body,
            call,
            metrics,
        })))
    }
}

fn note_code(call: &mut Call, headers: &HeaderMap) {
    if let Some(status) = Status::from_header_map(headers) {
        call.ended(status.code());
    }
}

/// The body of a call, counted as it is read.
#[derive(Debug)]
pub(crate) struct Received<B> {
    body: B,
    metrics: Arc<Metrics>,
}

impl<B: Body + Unpin> Body for Received<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.metrics
                .network
                .client_received_bytes
                .inc_by(data.remaining() as u64);
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

/// The body of an answer, counted as it is written; with it the call ends.
#[derive(Debug)]
pub(crate) struct Sent {
    body: tonic::body::Body,
    call: Call,
    metrics: Arc<Metrics>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.metrics
                        .network
                        .client_sent_bytes
                        .inc_by(data.len() as u64);
                } else if let Some(trailers) = frame.trailers_ref() {
                    note_code(&mut self.call, trailers);
                }
            }
            Some(Err(status)) => {
                let code = status.code();
                self.call.ended(code);
            }
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
