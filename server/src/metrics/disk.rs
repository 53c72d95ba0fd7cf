//! How long the disk takes.

use prometheus::{Histogram, IntGauge};

use super::{Buckets, Make};

/// Writes and waits on the log's and the state's files.
#[derive(Debug)]
pub struct Disk {
    /// The Raft log.
    pub wal: Wal,
    /// One batch of applied commands written to the state.
    pub state_commit_seconds: Histogram,
    /// One defragmentation.
    pub defragment_seconds: Histogram,
    /// Whether a defragmentation is under way.
    pub defragment_inflight: IntGauge,
    /// The fsync of one file of a snapshot from another member.
    pub snapshot_file_fsync_seconds: Histogram,
    /// One snapshot from another member, until it is on disk.
    pub snapshot_save_seconds: Histogram,
    /// One snapshot written for a client or a member.
    pub snapshot_seconds: Histogram,
}

/// Writes to the Raft log.
#[derive(Debug, Clone)]
pub struct Wal {
    /// One fsync. The alert on a slow disk reads this.
    pub fsync_seconds: Histogram,
    /// One batch handed to the log, which does not wait for the disk.
    pub write_seconds: Histogram,
    /// Bytes handed to the log; a gauge in etcd, too.
    pub write_bytes: IntGauge,
}

impl Disk {
    pub(super) fn new(make: &Make<'_>) -> Self {
        let milliseconds = || Buckets::exponential(0.001, 2.0, 14);
        Self {
            wal: Wal {
                fsync_seconds: make.histogram(
                    "etcd_disk_wal_fsync_duration_seconds",
                    "Seconds that one fsync of the Raft log took.",
                    milliseconds(),
                ),
                write_seconds: make.histogram(
                    "etcd_disk_wal_write_duration_seconds",
                    "Seconds that handing one batch to the Raft log took.",
                    milliseconds(),
                ),
                write_bytes: make.gauge(
                    "etcd_disk_wal_write_bytes_total",
                    "Bytes handed to the Raft log.",
                ),
            },
            snapshot_file_fsync_seconds: make.histogram(
                "etcd_snap_db_fsync_duration_seconds",
                "Seconds that the fsync of one file of a received snapshot took.",
                milliseconds(),
            ),
            snapshot_save_seconds: make.histogram(
                "etcd_snap_db_save_total_duration_seconds",
                "Seconds that receiving a snapshot and writing it to disk took.",
                Buckets::exponential(0.1, 2.0, 10),
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
