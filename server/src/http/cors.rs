//! Pages for scripts of other origins, as `--cors` allows them.
//!
//! A browser asks first, with OPTIONS; that is answered here, whatever the page.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

/// What a script may do, once its origin is allowed. etcd says the same of every page.
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");
const ANY: &str = "*";

/// Lets scripts of `origins` read `pages`; `*` among them is any origin.
pub(crate) fn with_cors(pages: Router, origins: &[String]) -> Router {
    pages.layer(from_fn_with_state(Arc::from(origins), answer))
}

async fn answer(State(origins): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let allowed = allowed(&origins, request.headers().get(ORIGIN));
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    }
    response
}

/// Whom the answer may be shown to.
fn allowed(origins: &[String], asks: Option<&HeaderValue>) -> Option<HeaderValue> {
    if origins.iter().any(|origin| origin == ANY) {
        return Some(HeaderValue::from_static(ANY));
    }
    let asks = asks?;
    let is_allowed = origins.iter().any(|origin| asks == origin.as_str());
    is_allowed.then(|| asks.clone())
}
