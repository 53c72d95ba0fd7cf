//! How long the disk takes.

use prometheus::{Histogram, IntGauge};

use super::{Buckets, Make};

/// Writes and waits on the log's and the state's files.
#[derive(Debug)]
pub struct Disk {
    /// One fsync of the log. The alert on a slow disk reads this.
    pub wal_fsync_seconds: Histogram,
    /// One batch of applied commands written to the state.
    pub state_commit_seconds: Histogram,
    /// One defragmentation.
    pub defragment_seconds: Histogram,
    /// Whether a defragmentation is under way.
    pub defragment_inflight: IntGauge,
    /// One snapshot written for a client or a member.
    pub snapshot_seconds: Histogram,
}

impl Disk {
    pub(super) fn new(make: &Make<'_>) -> Self {
        let milliseconds = || Buckets::exponential(0.001, 2.0, 14);
        Self {
            wal_fsync_seconds: make.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Seconds that one fsync of the Raft log took.",
                milliseconds(),
            ),
            state_commit_seconds: make.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Seconds that writing one batch of applied commands took.",
                milliseconds(),
            ),
            defragment_seconds: make.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Seconds that one defragmentation took.",
                Buckets::exponential(0.1, 2.0, 13),
            ),
            defragment_inflight: make.gauge(
                "etcd_disk_defrag_inflight",
                "1 while a defragmentation is under way.",
            ),
            snapshot_seconds: make.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Seconds that writing one snapshot took.",
                Buckets::exponential(0.01, 2.0, 17),
            ),
        }
    }
}
