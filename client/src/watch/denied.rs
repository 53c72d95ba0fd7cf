//! Whether a member that denies a watch denies it to the user, or to a token that is old.
//!
//! A stream keeps the token that it was opened with, and older servers say "denied" when that is no
//! longer good. Another stream has a fresh one, but it breaks every other watch of the client. So
//! first the keys are read, as a call with the newest token: who may read them may watch them.

use std::sync::Arc;

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;

use super::behind::named;
use crate::call::Call;
use crate::error::ErrorKind;
use crate::transport::Transport;

/// Whether the user may not watch what `watch` is of. Where that cannot be found out, perhaps he may.
///
/// # Cancel safety
///
/// Safe.
pub(super) async fn is_denied(transport: Arc<Transport>, watch: pb::WatchCreateRequest) -> bool {
    let request = pb::RangeRequest {
        key: named(&watch.key),
        range_end: watch.range_end,
        // Of as many keys as it may be, as little as can be.
        limit: 1,
        keys_only: true,
        ..pb::RangeRequest::default()
    };
    let read = transport.unary(
        Call::reads("watch"),
        request,
        |channel, request| async move { KvClient::new(channel).range(request).await },
    );
    let read = read.await;
    read.is_err_and(|error| *error.kind() == ErrorKind::PermissionDenied)
}
