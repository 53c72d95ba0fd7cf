//! Answers of the health endpoints.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::Make;

/// How often the health endpoints were asked, and what they said.
#[derive(Debug)]
pub struct Health {
    successes: IntCounter,
    failures: IntCounter,
    last: IntGaugeVec,
    checks: IntCounterVec,
}

impl Health {
    pub(super) fn new(make: &Make<'_>) -> Self {
        Self {
            successes: make.counter("etcd_server_health_success", "`/health` said true."),
            failures: make.counter("etcd_server_health_failures", "`/health` said false."),
            last: make.gauges(
                "etcd_server_healthcheck",
                "1 if the check succeeded when it was last asked for.",
                &["type", "name"],
            ),
            checks: make.counters(
                "etcd_server_healthchecks_total",
                "Checks of `/livez` and `/readyz` by outcome.",
                &["type", "name", "status"],
            ),
        }
    }

    /// Counts one answer of `/health`.
    pub fn answered(&self, is_healthy: bool) {
        if is_healthy {
            self.successes.inc();
        } else {
            self.failures.inc();
        }
    }

    /// Counts one check of `endpoint` (`livez` or `readyz`).
    pub fn checked(&self, endpoint: &'static str, check: &'static str, is_success: bool) {
        let status = if is_success { "success" } else { "error" };
        self.last
            .with_label_values(&[endpoint, check])
            .set(i64::from(is_success));
        self.checks
            .with_label_values(&[endpoint, check, status])
            .inc();
    }
}
