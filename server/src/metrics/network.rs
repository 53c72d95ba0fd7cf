//! Bytes and failures between members, and to clients.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Buckets, Make};

/// What goes over the network.
#[derive(Debug)]
pub struct Network {
    /// Bytes of gRPC messages received from clients.
    pub client_received_bytes: IntCounter,
    /// Bytes of gRPC messages sent to clients.
    pub client_sent_bytes: IntCounter,
    active: IntGaugeVec,
    known: IntGaugeVec,
    disconnected: IntCounterVec,
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    received_failures: IntCounterVec,
    round_trip_seconds: HistogramVec,
    snapshot_send_successes: IntCounterVec,
    snapshot_send_failures: IntCounterVec,
    snapshot_send_seconds: HistogramVec,
    snapshot_receive_successes: IntCounterVec,
    snapshot_receive_failures: IntCounterVec,
    snapshot_receive_seconds: HistogramVec,
}

/// What goes between this member and one other; its labels are resolved once.
#[derive(Debug, Clone)]
pub struct Peer {
    /// 1 while there is a connection.
    pub active: IntGauge,
    /// Connections lost.
    pub disconnected: IntCounter,
    /// Bytes of messages sent to it.
    pub sent_bytes: IntCounter,
    /// Bytes of messages received from it.
    pub received_bytes: IntCounter,
    /// Messages that could not be sent to it.
    pub sent_failures: IntCounter,
    /// Messages from it that could not be received.
    pub received_failures: IntCounter,
    /// From an append or a heartbeat to its answer.
    pub round_trip_seconds: Histogram,
    /// Snapshots sent to it.
    pub snapshot_send_successes: IntCounter,
    /// Snapshots that could not be sent to it.
    pub snapshot_send_failures: IntCounter,
    /// How long sending one took.
    pub snapshot_send_seconds: Histogram,
    /// Snapshots received from it.
    pub snapshot_receive_successes: IntCounter,
    /// Snapshots from it that were not received whole.
    pub snapshot_receive_failures: IntCounter,
    /// How long receiving one took.
    pub snapshot_receive_seconds: Histogram,
}

impl Network {
    #[expect(clippy::too_many_lines, reason = "one table of names")]
    pub(super) fn new(make: &Make<'_>) -> Self {
        let both = &["Local", "Remote"];
        let snapshot = || Buckets::exponential(0.1, 2.0, 10);
        Self {
            client_received_bytes: make.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of gRPC messages received from clients.",
            ),
            client_sent_bytes: make.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes of gRPC messages sent to clients.",
            ),
            active: make.gauges(
                "etcd_network_active_peers",
                "1 while there is a connection to the member.",
                both,
            ),
            known: make.gauges("etcd_network_known_peers", "1 for each known member.", both),
            disconnected: make.counters(
                "etcd_network_disconnected_peers_total",
                "Connections to the member that were lost.",
                both,
            ),
            sent_bytes: make.counters(
                "etcd_network_peer_sent_bytes_total",
                "Bytes of messages sent to the member.",
                &["To"],
            ),
            received_bytes: make.counters(
                "etcd_network_peer_received_bytes_total",
                "Bytes of messages received from the member.",
                &["From"],
            ),
            sent_failures: make.counters(
                "etcd_network_peer_sent_failures_total",
                "Messages that could not be sent to the member.",
                &["To"],
            ),
            received_failures: make.counters(
                "etcd_network_peer_received_failures_total",
                "Messages from the member that could not be received.",
                &["From"],
            ),
            round_trip_seconds: make.histograms(
                "etcd_network_peer_round_trip_time_seconds",
                "Seconds from a message to the member until its answer.",
                &["To"],
                Buckets::exponential(0.0001, 2.0, 16),
            ),
            snapshot_send_successes: make.counters(
                "etcd_network_snapshot_send_success",
                "Snapshots sent to the member.",
                &["To"],
            ),
            snapshot_send_failures: make.counters(
                "etcd_network_snapshot_send_failures",
                "Snapshots that could not be sent to the member.",
                &["To"],
            ),
            snapshot_send_seconds: make.histograms(
                "etcd_network_snapshot_send_total_duration_seconds",
                "Seconds that sending one snapshot to the member took.",
                &["To"],
                snapshot(),
            ),
            snapshot_receive_successes: make.counters(
                "etcd_network_snapshot_receive_success",
                "Snapshots received from the member.",
                &["From"],
            ),
            snapshot_receive_failures: make.counters(
                "etcd_network_snapshot_receive_failures",
                "Snapshots from the member that did not arrive whole.",
                &["From"],
            ),
            snapshot_receive_seconds: make.histograms(
                "etcd_network_snapshot_receive_total_duration_seconds",
                "Seconds that receiving one snapshot from the member took.",
                &["From"],
                snapshot(),
            ),
        }
    }

    /// The metrics of what goes between member `local` and member `remote`, which is known from now on.
    pub fn peer(&self, local: u64, remote: u64) -> Peer {
        // etcd writes ids in lowercase hex, without leading zeros.
        let (local, remote) = (format!("{local:x}"), format!("{remote:x}"));
        let both = &[local.as_str(), remote.as_str()];
        let one = &[remote.as_str()];
        self.known.with_label_values(both).set(1);
        Peer {
            active: self.active.with_label_values(both),
            disconnected: self.disconnected.with_label_values(both),
            sent_bytes: self.sent_bytes.with_label_values(one),
            received_bytes: self.received_bytes.with_label_values(one),
            sent_failures: self.sent_failures.with_label_values(one),
            received_failures: self.received_failures.with_label_values(one),
            round_trip_seconds: self.round_trip_seconds.with_label_values(one),
            snapshot_send_successes: self.snapshot_send_successes.with_label_values(one),
            snapshot_send_failures: self.snapshot_send_failures.with_label_values(one),
            snapshot_send_seconds: self.snapshot_send_seconds.with_label_values(one),
            snapshot_receive_successes: self.snapshot_receive_successes.with_label_values(one),
            snapshot_receive_failures: self.snapshot_receive_failures.with_label_values(one),
            snapshot_receive_seconds: self.snapshot_receive_seconds.with_label_values(one),
        }
    }
}
