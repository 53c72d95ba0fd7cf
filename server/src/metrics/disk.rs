//! How long the disk takes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{Buckets, Make};

/// Writes and waits on the log's and the state's files.
#[derive(Debug)]
pub struct Disk {
    /// The Raft log.
    pub wal: Wal,
    /// Compacted history that is swept off the disk.
    pub sweeps: Sweeps,
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

/// Compacted history that is swept off the disk.
#[derive(Debug, Clone)]
pub struct Sweeps {
    batch_milliseconds: Histogram,
    total_milliseconds: Histogram,
    versions: IntCounter,
    last: IntGauge,
}

impl Sweeps {
    fn new(make: &Make<'_>) -> Self {
        Self {
            batch_milliseconds: make.histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Milliseconds that sweeping one batch of compacted history took.",
                Buckets::exponential(1.0, 2.0, 13),
            ),
            total_milliseconds: make.histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Milliseconds that sweeping everything that was compacted took, with pauses.",
                Buckets::exponential(100.0, 2.0, 14),
            ),
            versions: make.counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Versions of keys swept off the disk.",
            ),
            last: make.gauge(
                "etcd_debugging_mvcc_db_compaction_last",
                "When a sweep last ended, in Unix seconds; 0 if none has since the start.",
            ),
        }
    }

    /// Counts one batch, of so many versions.
    pub fn batch(&self, versions: u64, took: Duration) {
        self.versions.inc_by(versions);
        self.batch_milliseconds.observe(milliseconds(took));
    }

    /// Counts a sweep that has caught up with what was compacted.
    pub fn finished(&self, took: Duration) {
        self.total_milliseconds.observe(milliseconds(took));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_or(0, |since| since.as_secs());
        self.last.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Batches since the start.
    pub fn batch_count(&self) -> u64 {
        self.batch_milliseconds.get_sample_count()
    }

    /// Versions swept since the start.
    pub fn version_count(&self) -> u64 {
        self.versions.get()
    }
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
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
            sweeps: Sweeps::new(make),
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
