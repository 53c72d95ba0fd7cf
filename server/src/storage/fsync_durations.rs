//! How long fsyncs take, counted without a lock for `etcd_disk_wal_fsync_duration_seconds`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in seconds: etcd's, 1 ms doubling up to 8.192 s.
const BOUNDS: [f64; 14] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct FsyncDurations {
    /// Not cumulative; the last one counts what is above every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

/// The histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct FsyncSnapshot {
    /// Upper bounds in seconds, and how many durations were at or below each.
    pub cumulative: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// Their sum in seconds.
    pub sum_seconds: f64,
}

impl FsyncDurations {
    /// Counts one fsync.
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|&bound| bound < took.as_secs_f64());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // 2^64 ns are 584 years of fsync.
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The counts now. A duration that is being counted at the same time may be missing in part.
    pub fn snapshot(&self) -> FsyncSnapshot {
        let counts = self
            .buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let mut count = 0;
        let cumulative = BOUNDS
            .iter()
            .zip(&counts)
            .map(|(&bound, here)| {
                count += here;
                (bound, count)
            })
            .collect();
        count += counts[BOUNDS.len()];
        let sum = Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed));
        FsyncSnapshot {
            cumulative,
            count,
            sum_seconds: sum.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_every_bucket_that_it_fits_in() {
        let durations = FsyncDurations::default();
        for millis in [1, 3, 10_000] {
            durations.observe(Duration::from_millis(millis));
        }
        let snapshot = durations.snapshot();
        assert_eq!(
            snapshot.cumulative[0],
            (0.001, 1),
            "1 ms is within the first bound"
        );
        assert_eq!(
            snapshot.cumulative[1],
            (0.002, 1),
            "3 ms is not within 2 ms"
        );
        assert_eq!(
            snapshot.cumulative[13],
            (8.192, 2),
            "10 s is above every bound"
        );
        assert_eq!(snapshot.count, 3);
        assert!(
            (snapshot.sum_seconds - 10.004).abs() < 1e-9,
            "{}",
            snapshot.sum_seconds
        );
    }
}
