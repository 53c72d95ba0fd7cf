//! The quota: a member whose database has grown to it raises the NOSPACE alarm for the cluster.
//!
//! The alarm is replicated state; what it refuses is decided in `gonfalon-core`. It stays until an
//! operator has made room (compact, defragment) and disarms it.

use std::time::Duration;

use gonfalon_core::command::{AlarmChange, AlarmKind, Command};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::tasks::Rounds;

/// How often the size is looked at. The quota can be exceeded by what is written in between.
const INTERVAL: Duration = Duration::from_millis(200);

impl Node {
    /// Raises the alarm whenever the database is at or above `quota_bytes`, until `stop`.
    pub(super) async fn watch_quota(&self, quota_bytes: Option<u64>, stop: CancellationToken) {
        let Some(quota_bytes) = quota_bytes else {
            return stop.cancelled().await;
        };
        let alarm = (self.identity().member_id, AlarmKind::NoSpace);
        let mut rounds = Rounds::every(INTERVAL, stop);
        while rounds.next().await {
            let size_bytes = self.store().size_bytes();
            let is_raised = self
                .store()
                .read(|state, _| state.alarms().any(|raised| raised == alarm));
            if size_bytes < quota_bytes || is_raised {
                continue;
            }
            tracing::warn!(
                size_bytes,
                quota_bytes,
                "the database has reached its quota, and writes are refused; compact old history, \
                 defragment, and disarm the NOSPACE alarm, or start with a larger \
                 --quota-backend-bytes"
            );
            let command = Command::Alarm(AlarmChange {
                activate: true,
                member: alarm.0,
                kind: alarm.1,
            });
            if let Err(error) = self.propose(command).await {
                tracing::warn!(%error, "cannot raise the NOSPACE alarm; trying again");
            }
        }
    }
}
