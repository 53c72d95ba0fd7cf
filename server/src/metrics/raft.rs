//! Proposals, elections and reads.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{Buckets, Make};

/// Consensus.
#[derive(Debug)]
pub struct Raft {
    /// Leaders seen since the start, the first one included.
    pub leader_changes: IntCounter,
    /// Commands that wait for their answer.
    pub proposals_pending: IntGauge,
    /// Commands that failed for any reason but their own content.
    pub proposals_failed: IntCounter,
    /// Batches that took longer to apply than `--warning-apply-duration`.
    pub slow_apply: IntCounter,
    /// Read indexes that took longer than the leader's heartbeat should.
    pub slow_read_indexes: IntCounter,
    /// Read indexes that were not answered.
    pub read_indexes_failed: IntCounter,
    /// Heartbeats that could not be sent in time.
    pub heartbeat_send_failures: IntCounter,
    /// Snapshots of other members that are being installed.
    pub snapshot_apply_in_progress: IntGauge,
    /// Commands that travelled in one log entry.
    pub commands_per_entry: Histogram,
    /// Linearizable reads that shared one read index.
    pub reads_per_index: Histogram,
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
            slow_apply: make.counter(
                "etcd_server_slow_apply_total",
                "Batches of commands that were slow to apply, likely because of the disk.",
            ),
            slow_read_indexes: make.counter(
                "etcd_server_slow_read_indexes_total",
                "Read indexes that came late.",
            ),
            read_indexes_failed: make.counter(
                "etcd_server_read_indexes_failed_total",
                "Read indexes that never came.",
            ),
            heartbeat_send_failures: make.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats that this leader could not send in time.",
            ),
            snapshot_apply_in_progress: make.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 while a snapshot from another member is being installed.",
            ),
            commands_per_entry: make.histogram(
                "gonfalon_raft_entry_commands",
                "Commands that travelled in one log entry.",
                Buckets::exponential(1.0, 2.0, 10),
            ),
            reads_per_index: make.histogram(
                "gonfalon_raft_read_index_reads",
                "Linearizable reads that shared one read index.",
                Buckets::exponential(1.0, 2.0, 12),
            ),
        }
    }
}
