//! A member that shows less than this client has seen: it lags, and will catch up, or the store was
//! restored from a backup, and never will.
//!
//! Both are silent: a watch of what a member has not applied yet tells nothing, for however long.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use tokio::time::{Instant, sleep};

use crate::call::Call;
use crate::error::{Error, Outcome};
use crate::transport::{Endpoint, Transport};
use crate::types::{Revision, revision_of};

/// How long a member may lag before another is tried, if there is one.
const LAG_MAX: Duration = Duration::from_secs(2);

/// How often a member that lags is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// What became of a member that was behind.
#[derive(Debug)]
pub(super) enum Found {
    /// It has applied what was wanted.
    CaughtUp,
    /// It has not, and is given up.
    Lags,
    /// The whole store is at this revision, which is before what was seen of it.
    Restored(Revision),
    /// It cannot be found out: asking again would get the same answer.
    Refused(Error),
}

/// Finds out why the member at `endpoint` does not show `wanted`, which was seen. `key` is one that
/// may be read: who may watch it may.
///
/// # Cancel safety
///
/// Safe.
pub(super) async fn find_out(
    transport: Arc<Transport>,
    endpoint: Arc<Endpoint>,
    wanted: Revision,
    key: Bytes,
) -> Found {
    let began = Instant::now();
    // A linearizable read shows all that was ever answered, unless the store has gone back.
    let mut pauses = transport.pauses();
    let now = loop {
        let (call, request) = (Call::reads("watch"), question(&key, false));
        let read = transport.unary(call, request, |channel, request| async move {
            KvClient::new(channel).range(request).await
        });
        match read.await {
            Ok(answer) => break revision_of(answer.header.as_ref()),
            Err(error) if !error.is_retryable() => return Found::Refused(error),
            // If nobody answers, the stream breaks before long, and this is asked again.
            Err(_) => sleep(pauses.next().unwrap_or(LAG_MAX)).await,
        }
    };
    if now < wanted {
        return Found::Restored(now);
    }
    while began.elapsed() < LAG_MAX || !transport.has_other_than(&endpoint) {
        let (call, request) = (Call::reads("watch").local(), question(&key, true));
        let asked = transport.ask(&endpoint, call, request, |channel, request| async move {
            KvClient::new(channel).range(request).await
        });
        match asked
            .await
            .map_err(|error| error.outcome_is(Outcome::NotApplied))
        {
            Ok(answer) if revision_of(answer.header.as_ref()) >= wanted => return Found::CaughtUp,
            Err(error) if !error.is_retryable() => return Found::Refused(error),
            Ok(_) | Err(_) => {}
        }
        sleep(LOOK).await;
    }
    Found::Lags
}

/// Reads nothing: the answer's header is what is wanted.
fn question(key: &Bytes, serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest {
        key: named(key),
        count_only: true,
        serializable,
        ..pb::RangeRequest::default()
    }
}

/// The key that a watch of `key` is of: without one, it is the first that there can be.
pub(super) fn named(key: &Bytes) -> Bytes {
    if key.is_empty() {
        return Bytes::from_static(&[0]);
    }
    key.clone()
}
