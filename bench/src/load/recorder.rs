//! Counts operations and their latencies.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::metric::{Measurement, Metric};
use crate::sampling::Usage;
use crate::stats::number;

/// Latencies are kept in nanoseconds, to three digits, up to this long.
const LATENCY_MAX: Duration = Duration::from_mins(1);

/// One for each thread: its lock is never contended.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Tally>);

#[derive(Debug)]
struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latencies: histogram(),
            errors: 0,
            first_error: None,
        }
    }
}

impl Recorder {
    /// An operation ended well inside the window.
    pub(crate) fn completed(&self, took: Duration) {
        self.all_completed(took, 1);
    }

    /// `count` operations ended well inside the window, all after the same time.
    pub(crate) fn all_completed(&self, took: Duration, count: u64) {
        let nanos = took.min(LATENCY_MAX).as_nanos();
        let nanos = u64::try_from(nanos).expect("a minute of nanoseconds fits");
        self.tally().latencies.saturating_record_n(nanos, count);
    }

    /// An operation failed, or its answer was wrong.
    pub(crate) fn failed(&self, error: &anyhow::Error) {
        let mut tally = self.tally();
        tally.errors += 1;
        tally
            .first_error
            .get_or_insert_with(|| format!("{error:#}"));
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A panicking task ends the run, so what a poisoned lock holds is only shown, not used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One measurement of what all threads counted while the processors were in `usage`.
pub(super) fn merge(recorders: &[Arc<Recorder>], usage: &Usage) -> Measurement {
    let mut latencies = histogram();
    let mut measured = Measurement {
        other_cores: usage.other_cores,
        ..Measurement::default()
    };
    for recorder in recorders {
        let tally = recorder.tally();
        latencies
            .add(&tally.latencies)
            .expect("all histograms have the same bounds");
        measured.errors += tally.errors;
        measured.first_error = measured
            .first_error
            .take()
            .or_else(|| tally.first_error.clone());
    }
    measured.operations = latencies.len();
    if measured.operations == 0 {
        return measured;
    }
    let operations = number(measured.operations);
    let quantile_us = |q| number(latencies.value_at_quantile(q)) / 1e3;
    measured.metrics.extend([
        (
            Metric::OpsPerSecond,
            operations / usage.elapsed.as_secs_f64(),
        ),
        (Metric::P50Us, quantile_us(0.5)),
        (Metric::P99Us, quantile_us(0.99)),
        (Metric::P999Us, quantile_us(0.999)),
        (
            Metric::ServerCpuUs,
            usage.servers.as_secs_f64() * 1e6 / operations,
        ),
        (
            Metric::ClientCpuUs,
            usage.client.as_secs_f64() * 1e6 / operations,
        ),
    ]);
    measured
}

fn histogram() -> Histogram<u64> {
    let highest = u64::try_from(LATENCY_MAX.as_nanos()).expect("a minute of nanoseconds fits");
    Histogram::new_with_bounds(1, highest, 3).expect("1 ns to 1 min with 3 digits is a valid range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            elapsed: Duration::from_secs(2),
            servers: Duration::from_secs(1),
            client: Duration::from_millis(500),
            other_cores: 0.25,
        }
    }

    #[test]
    fn threads_are_added_up_and_costs_are_per_operation() {
        let recorders: Vec<Arc<Recorder>> = vec![Arc::default(), Arc::default()];
        for micros in 1..=50 {
            recorders[0].completed(Duration::from_micros(micros));
            recorders[1].completed(Duration::from_micros(50 + micros));
        }
        let measured = merge(&recorders, &usage());
        assert_eq!((measured.operations, measured.errors), (100, 0));
        for (metric, want) in [
            (Metric::OpsPerSecond, 50.0),
            (Metric::P50Us, 50.0),
            (Metric::P99Us, 99.0),
            (Metric::ServerCpuUs, 10_000.0),
            (Metric::ClientCpuUs, 5_000.0),
        ] {
            let got = measured.metrics[&metric];
            assert!(
                (got / want - 1.0).abs() < 0.002,
                "{metric:?}: {got} instead of {want}"
            );
        }
    }

    #[test]
    fn without_operations_there_are_no_numbers() {
        let recorder: Arc<Recorder> = Arc::default();
        recorder.failed(&anyhow::anyhow!("first"));
        recorder.failed(&anyhow::anyhow!("second"));
        let measured = merge(&[recorder], &usage());
        assert!(measured.metrics.is_empty());
        assert_eq!(
            (measured.errors, measured.first_error.as_deref()),
            (2, Some("first"))
        );
    }

    #[test]
    fn a_latency_beyond_the_range_counts_as_the_longest() {
        let recorder: Arc<Recorder> = Arc::default();
        recorder.completed(Duration::from_hours(1));
        let measured = merge(&[recorder], &usage());
        assert!(measured.metrics[&Metric::P50Us] >= 59e6, "{measured:?}");
    }
}
