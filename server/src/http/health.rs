//! `/health`, and the checks of `/livez` and `/readyz`, which have a page of their own each.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{self, Query};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use gonfalon_core::command::{AlarmKind, Range};
use gonfalon_core::{History, KeyRange, State};
use serde::Serialize;

use super::{Pages, alarm_name, method_not_allowed, plain};
use crate::store::Store;

/// How long a check may wait for the cluster: longer than an election, shorter than the patience of
/// common probes.
const CHECK_MAX: Duration = Duration::from_secs(5);

/// `?name=value&...`, in order; a name may be given more than once.
type Pairs = Query<Vec<(String, String)>>;

/// One thing that may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// No alarm says that this cluster's data differs between members.
    DataCorruption,
    /// This member answers reads.
    SerializableRead,
    /// The cluster answers reads: there is a quorum.
    LinearizableRead,
    /// This member may vote.
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

/// The answer of `/health`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    health: &'static str,
    reason: String,
}

impl Health {
    /// That something is wrong.
    pub(super) fn bad(reason: String) -> Self {
        let health = "false";
        Self { health, reason }
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).expect("two strings are JSON"))
    }
}

/// Adds the pages to `router`.
pub(super) fn routes(mut router: Router<Pages>) -> Router<Pages> {
    router = router.route("/health", any(health));
    for (endpoint, checks) in [("livez", LIVEZ), ("readyz", READYZ)] {
        let all = move |extract::State(pages): extract::State<Pages>,
                        method: Method,
                        Query(pairs): Pairs| async move {
            let excluded = values(&pairs, "exclude");
            let left = checks
                .iter()
                .filter(|check| !excluded.contains(&check.name()));
            page(&pages, endpoint, &method, left.copied(), &pairs).await
        };
        router = router.route(&format!("/{endpoint}"), any(all));
        for &check in checks {
            let one = move |extract::State(pages): extract::State<Pages>,
                            method: Method,
                            Query(pairs): Pairs| async move {
                page(&pages, endpoint, &method, [check].into_iter(), &pairs).await
            };
            router = router.route(&format!("/{endpoint}/{}", check.name()), any(one));
        }
    }
    router
}

async fn health(
    extract::State(pages): extract::State<Pages>,
    method: Method,
    Query(pairs): Pairs,
) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let is_serializable = values(&pairs, "serializable").first() == Some(&"true");
    let found = diagnose(&pages, &values(&pairs, "exclude"), is_serializable).await;
    pages.metrics.health.answered(found.is_ok());
    let health = match found {
        Ok(()) => Health {
            health: "true",
            reason: String::new(),
        },
        Err(reason) => Health::bad(reason),
    };
    let text = health.to_string();
    if health.health == "true" {
        // JSON that calls itself text: etcd sets no type, and Go guesses this one.
        return ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    }
    tracing::warn!(reason = health.reason, "/health says false");
    plain(StatusCode::SERVICE_UNAVAILABLE, text + "\n")
}

/// Alarms first, then the leader, then a read, as etcd does; the first that is wrong is told.
async fn diagnose(pages: &Pages, excluded: &[&str], is_serializable: bool) -> Result<(), String> {
    let raised = alarms(pages.node.store(), CHECK_MAX).await;
    let raised = raised.map_err(|error| format!("RANGE ERROR:{error}"))?;
    let alarm = raised
        .into_iter()
        .map(alarm_name)
        .find(|name| !excluded.contains(name));
    if let Some(name) = alarm {
        return Err(format!("ALARM {name}"));
    }
    if is_serializable {
        let read = serializable(pages.node.store(), CHECK_MAX).await;
        return read.map_err(|error| format!("RANGE ERROR:{error}"));
    }
    if pages.node.status().leader.is_none() {
        return Err("RAFT NO LEADER".to_owned());
    }
    linearizable(pages)
        .await
        .map_err(|error| format!("RANGE ERROR:{error}"))
}

async fn page(
    pages: &Pages,
    endpoint: &'static str,
    method: &Method,
    checks: impl Iterator<Item = Check>,
    pairs: &[(String, String)],
) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let mut lines = String::new();
    let mut is_well = true;
    for check in checks {
        let result = check.run(pages).await;
        pages
            .metrics
            .health
            .checked(endpoint, check.name(), result.is_ok());
        is_well &= result.is_ok();
        let line = match result {
            Ok(()) => format!("[+]{} ok\n", check.name()),
            Err(why) => format!("[-]{} failed: {why}\n", check.name()),
        };
        lines.push_str(&line);
    }
    if !is_well {
        tracing::warn!(endpoint, checks = lines, "a health check fails");
        // One more line end, as Go's error pages have it.
        return plain(StatusCode::SERVICE_UNAVAILABLE, lines + "\n");
    }
    if !pairs.iter().any(|(name, _)| name == "verbose") {
        lines.clear();
    }
    plain(StatusCode::OK, lines + "ok\n")
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, pages: &Pages) -> Result<(), String> {
        match self {
            Self::DataCorruption => {
                let raised = alarms(pages.node.store(), CHECK_MAX).await?;
                if raised.contains(&AlarmKind::Corrupt) {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
                Ok(())
            }
            Self::SerializableRead => serializable(pages.node.store(), CHECK_MAX).await,
            Self::LinearizableRead => linearizable(pages).await,
            Self::NonLearner if pages.node.status().is_learner => {
                Err("not supported for learner".to_owned())
            }
            Self::NonLearner => Ok(()),
        }
    }
}

/// The alarms that are raised.
async fn alarms(store: &Arc<Store>, patience: Duration) -> Result<Vec<AlarmKind>, String> {
    let read = |state: &State, _: &dyn History| state.alarms().map(|(_, kind)| kind).collect();
    read_within(store, patience, read).await
}

/// Whether this member answers reads: it does not while its state is locked for too long.
async fn serializable(store: &Arc<Store>, patience: Duration) -> Result<(), String> {
    let first = Range {
        limit: 1,
        keys_only: true,
        ..Range::of(KeyRange::single(Bytes::from_static(b"\0")))
    };
    let read = move |state: &State, history: &dyn History| state.range(&first, history);
    match read_within(store, patience, read).await? {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refused)) => Err(format!("etcdserver: {refused}")),
        Err(failed) => Err(failed.to_string()),
    }
}

async fn read_within<R: Send + 'static>(
    store: &Arc<Store>,
    patience: Duration,
    read: impl FnOnce(&State, &dyn History) -> R + Send + 'static,
) -> Result<R, String> {
    let store = store.clone();
    // On a thread that may wait, or this task would, and with it whatever shares its thread.
    let read = tokio::task::spawn_blocking(move || store.read(read));
    match tokio::time::timeout(patience, read).await {
        Ok(read) => read.map_err(|ended| ended.to_string()),
        Err(_) => Err("context deadline exceeded".to_owned()),
    }
}

async fn linearizable(pages: &Pages) -> Result<(), String> {
    match tokio::time::timeout(CHECK_MAX, pages.node.linearize()).await {
        Ok(result) => result.map_err(|error| format!("etcdserver: {error}")),
        Err(_) => Err("etcdserver: request timed out".to_owned()),
    }
}

/// Every value given for `name`, without empty ones.
fn values<'a>(pairs: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let of_name = pairs
        .iter()
        .filter(|(key, value)| key == name && !value.is_empty());
    of_name.map(|(_, value)| value.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_member_whose_state_is_locked_does_not_answer_reads() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open_for_test(&dir));
        let patience = Duration::from_secs(20);
        assert_eq!(serializable(&store, patience).await, Ok(()));

        let (release, released) = mpsc::channel::<()>();
        let (lock, is_locked) = mpsc::channel();
        let locked = store.clone();
        let holder = std::thread::spawn(move || {
            locked.while_locked(|| {
                lock.send(()).unwrap();
                // Ends when the sender is dropped.
                released.recv().expect_err("nothing is sent");
            });
        });
        is_locked.recv().unwrap();
        let late = Err("context deadline exceeded".to_owned());
        let short = Duration::from_millis(50);
        assert_eq!(serializable(&store, short).await, late);
        assert_eq!(alarms(&store, short).await.map(|_| ()), late);
        drop(release);
        holder.join().unwrap();
        assert_eq!(serializable(&store, patience).await, Ok(()));
    }
}
