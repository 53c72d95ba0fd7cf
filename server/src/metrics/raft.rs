//! Proposals, elections and reads.

use prometheus::{IntCounter, IntGauge};

use super::Make;

/// Consensus.
#[derive(Debug)]
pub struct Raft {
    /// Leaders seen since the start, the first one included.
    pub leader_changes: IntCounter,
    /// Callers whose command is on its way.
    pub proposals_pending: IntGauge,
    /// Commands that were given up, by this member or by their callers.
    pub proposals_failed: IntCounter,
    /// Attempts to get a read index that failed.
    pub read_indexes_failed: IntCounter,
    /// Rounds of reads that were not served in time.
    pub slow_read_indexes: IntCounter,
    /// Batches that took longer to apply than `--warning-apply-duration`.
    pub slow_apply: IntCounter,
    /// Heartbeats that this leader sent late.
    pub heartbeats_late: IntCounter,
    /// Snapshots of other members that are being installed.
    pub snapshot_apply_in_progress: IntGauge,
}

impl Raft {
    pub(super) fn new(make: &Make<'_>) -> Self {
        Self {
            leader_changes: make.counter(
                "etcd_server_leader_changes_seen_total",
                "Changes of the leader that this member has seen.",
            ),
            proposals_pending: make.gauge(
                "etcd_server_proposals_pending",
                "Commands that were proposed and wait for their answer.",
            ),
            proposals_failed: make.counter(
                "etcd_server_proposals_failed_total",
                "Commands that were proposed and got no answer.",
            ),
            read_indexes_failed: make.counter(
                "etcd_server_read_indexes_failed_total",
                "Attempts to get a read index that failed; all reads that wait share one.",
            ),
            slow_read_indexes: make.counter(
                "etcd_server_slow_read_indexes_total",
                "Read indexes that did not come, or were not applied here, in time.",
            ),
            slow_apply: make.counter(
                "etcd_server_slow_apply_total",
                "Batches of commands that were slow to apply, likely because of the disk.",
            ),
            heartbeats_late: make.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats that this leader sent more than two intervals after the last one, \
                 likely because of the disk.",
            ),
            snapshot_apply_in_progress: make.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 while a snapshot from another member is being installed.",
            ),
        }
    }
}
