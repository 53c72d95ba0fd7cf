//! What clients reach on one port: gRPC, and pages for everything else.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::routing::future::RouteFuture;
use http::{HeaderMap, Request, Response, header};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::Service;
use tower::Service as _;

use crate::api::{Answering as GrpcAnswering, Grpc};
use crate::http::{Answering, Counted, Sent};

/// The services behind the client port. Cheap to clone.
///
/// Every request of every client passes here: one look at its content type, and no router for gRPC.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    grpc: Counted<Grpc>,
    pages: Router,
}

impl Front {
    pub(crate) fn new(grpc: Counted<Grpc>, pages: Router) -> Self {
        Self { grpc, pages }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Either<Sent, axum::body::Body>>;
    type Error = Infallible;
    type Future = Serving;

    fn call(&self, request: Request<Incoming>) -> Serving {
        if is_grpc(request.headers()) {
            Serving::Grpc(self.grpc.clone().call(request))
        } else {
            Serving::Page(Box::pin(self.pages.clone().call(request)))
        }
    }
}

/// Whether a request is a gRPC call; else it is for a page.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a request.
pub(crate) enum Serving {
    Grpc(Answering<GrpcAnswering>),
    Page(Pin<Box<RouteFuture<Infallible>>>),
}

impl Future for Serving {
    type Output = Result<Response<Either<Sent, axum::body::Body>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut *self {
            Self::Grpc(answer) => {
                ready!(Pin::new(answer).poll(context)).map(|answer| answer.map(Either::Left))
            }
            Self::Page(page) => {
                ready!(page.as_mut().poll(context)).map(|page| page.map(Either::Right))
            }
        })
    }
}
