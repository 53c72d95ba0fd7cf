//! The pages that share the client port with gRPC: health, version, metrics.
//!
//! Paths, codes and bodies are etcd's, since probes, load balancers and dashboards are written
//! against them.

mod cors;
mod count;
mod health;
mod waiting;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use gonfalon_core::command::AlarmKind;
use serde::Serialize;

pub(crate) use cors::with_cors;
pub(crate) use count::{Answering, Counted, Sent};
pub(crate) use waiting::Waiting;

use crate::metrics::{Metrics, View};
use crate::node::Node;
use crate::version;

/// What the pages are about. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    node: Node,
    metrics: Arc<Metrics>,
    quota_bytes: Option<u64>,
}

impl Pages {
    pub(crate) fn new(node: Node, metrics: Arc<Metrics>, quota_bytes: Option<u64>) -> Self {
        Self {
            node,
            metrics,
            quota_bytes,
        }
    }

    /// What `--listen-metrics-urls` serves.
    pub(crate) fn monitoring(&self) -> Router {
        health::routes(Router::new())
            .route("/metrics", any(metrics))
            .with_state(self.clone())
    }

    /// All of them.
    pub(crate) fn routes(&self) -> Router {
        let version = Router::new()
            .route("/version", any(version))
            .with_state(self.clone());
        self.monitoring().merge(version)
    }

    fn view(&self) -> View {
        let status = self.node.status();
        let store = self.node.store();
        let watchers = store.watchers().counts();
        let view = store.read(|state, _| View {
            revision: state.revision().get(),
            compacted: state.compacted().get(),
            keys: state.key_count(),
            leases: state.leases().len(),
            recent_bytes: state.recent_bytes(),
            alarms: state
                .alarms()
                .map(|(member, kind)| (member.get(), alarm_name(kind)))
                .collect(),
            ..View::default()
        });
        View {
            member_id: status.member_id.get(),
            leader: status.leader.map(gonfalon_core::MemberId::get),
            is_learner: status.is_learner,
            term: status.term,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            size_bytes: store.size_bytes(),
            size_in_use_bytes: store.size_in_use_bytes(),
            quota_bytes: self.quota_bytes.unwrap_or(0),
            watch_streams: watchers.streams,
            watchers: watchers.watchers,
            watchers_unsynced: watchers.unsynced,
            events_pending: store.watchers().pending_events(),
            ..view
        }
    }
}

/// Adds what is said of any other path: as Go's HTTP server says it.
pub(crate) fn with_not_found(pages: Router) -> Router {
    pages.fallback(async || plain(StatusCode::NOT_FOUND, "404 page not found\n"))
}

/// The alarm's name on the wire.
fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

/// Whatever the method: etcd's page does not look at it.
async fn metrics(State(pages): State<Pages>) -> Response {
    let text = pages.metrics.encode(&pages.view());
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

/// The answer of `/version`: the keys are etcd's, ours stands behind them.
#[derive(Debug, Serialize)]
struct Version {
    etcdserver: &'static str,
    etcdcluster: &'static str,
    storage: &'static str,
    gonfalon: &'static str,
}

async fn version(method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    Json(Version {
        etcdserver: version::ETCD,
        etcdcluster: version::CLUSTER,
        storage: version::STORAGE,
        gonfalon: version::GONFALON,
    })
    .into_response()
}

fn method_not_allowed() -> Response {
    let answer = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    ([(ALLOW, "GET")], answer).into_response()
}

/// What is written for people, as Go's HTTP server sends it.
fn plain(code: StatusCode, text: impl Into<String>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code, headers, text.into()).into_response()
}
