//! What is measured, and one measurement.

use std::collections::BTreeMap;

use serde::Serialize;

/// One number that a measurement may yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Operations completed a second.
    OpsPerSecond,
    /// Latency in microseconds: half of the operations were faster.
    P50Us,
    /// Latency in microseconds: 99 of 100 operations were faster.
    P99Us,
    /// Latency in microseconds: 999 of 1000 operations were faster.
    P999Us,
    /// Processor time of all servers together, in microseconds an operation.
    ServerCpuUs,
    /// Processor time of the load generator, in microseconds an operation.
    ClientCpuUs,
    /// Resident memory of all servers, in MiB, when they had come to rest.
    RssMib,
    /// Resident memory in MiB when the last write of the fill was answered.
    RssFilledMib,
    /// The most resident memory so far, in MiB.
    RssPeakMib,
    /// The part of the resting memory that is not files mapped into it (etcd maps its database).
    RssAnonymousMib,
    /// Seconds from SIGTERM to the end of the process.
    StopSeconds,
}

impl Metric {
    /// Short name for tables and targets.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::OpsPerSecond => "ops/s",
            Self::P50Us => "p50",
            Self::P99Us => "p99",
            Self::P999Us => "p99.9",
            Self::ServerCpuUs => "CPU/op",
            Self::ClientCpuUs => "client CPU/op",
            Self::RssMib => "RSS",
            Self::RssFilledMib => "RSS after fill",
            Self::RssPeakMib => "peak RSS",
            Self::RssAnonymousMib => "anonymous RSS",
            Self::StopSeconds => "stop",
        }
    }
}

/// What one case yielded on one server, once.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Measurement {
    /// The numbers; which ones depends on the case.
    pub(crate) metrics: BTreeMap<Metric, f64>,
    /// Operations that were completed and checked inside the window.
    pub(crate) operations: u64,
    /// Operations that failed or whose answer was wrong, warm-up included.
    pub(crate) errors: u64,
    /// The first of these, in words.
    pub(crate) first_error: Option<String>,
    /// Cores that neither the servers under test nor the load generator used.
    pub(crate) other_cores: f64,
}

impl Measurement {
    /// Whether every operation was answered, and correctly.
    pub(crate) fn is_clean(&self) -> bool {
        self.operations > 0 && self.errors == 0
    }
}
