//! What clients hear of a member that does not take part yet: at once, and for whom it waits.
//!
//! Nothing of a member is there before the founders have agreed, so that no page and no call has
//! another answer than this.

use std::convert::Infallible;
use std::future::{Ready, ready};

use axum::http::StatusCode;
use http::{Request, Response};
use hyper::service::Service;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use super::health::Health;
use super::plain;
use crate::listen::is_grpc;

/// Answers every call with UNAVAILABLE, and every page with 503. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    reason: watch::Receiver<String>,
}

impl Waiting {
    /// For what `reason` says at the time.
    pub(crate) fn new(reason: watch::Receiver<String>) -> Self {
        Self { reason }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let reason = self.reason.borrow().clone();
        if is_grpc(request.headers()) {
            return Status::unavailable(reason).into_http();
        }
        let text = if request.uri().path() == "/health" {
            Health::bad(reason).to_string()
        } else {
            reason
        };
        plain(StatusCode::SERVICE_UNAVAILABLE, text + "\n").map(Body::new)
    }
}

impl<B> Service<Request<B>> for Waiting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn every_call_and_every_page_says_for_whom_the_member_waits() {
        let (say, reason) = watch::channel("waiting for member n2".to_owned());
        let waiting = Waiting::new(reason);
        let call = Request::post("/etcdserverpb.KV/Range")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let refused = waiting.answer(&call);
        let status = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(status.message(), "waiting for member n2");

        say.send_replace("waiting for member n3".to_owned());
        for (path, want) in [
            (
                "/health",
                "{\"health\":\"false\",\"reason\":\"waiting for member n3\"}\n",
            ),
            ("/readyz", "waiting for member n3\n"),
            ("/metrics", "waiting for member n3\n"),
        ] {
            let page = waiting.answer(&Request::get(path).body(()).unwrap());
            assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            let body = page.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, want, "{path}");
        }
    }
}
