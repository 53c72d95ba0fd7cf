//! Bytes to and from clients.

use prometheus::IntCounter;
use tonic::Code;

use super::Make;

/// What goes over the network.
#[derive(Debug)]
pub struct Network {
    /// Bytes of gRPC messages received from clients, with their 5-byte prefixes.
    pub client_received_bytes: IntCounter,
    /// Bytes of gRPC messages sent to clients, with their 5-byte prefixes.
    pub client_sent_bytes: IntCounter,
    /// Streams of watchers from which a request could not be read.
    pub watch_streams_failed: StreamFailures,
    /// Streams of renewals from which a request could not be read.
    pub lease_streams_failed: StreamFailures,
}

/// Streams of clients that broke, beside those that the client gave up.
#[derive(Debug)]
pub struct StreamFailures(IntCounter);

impl StreamFailures {
    /// Counts a stream that ended with `code`, unless its client ended it.
    pub fn ended(&self, code: Code) {
        if !matches!(code, Code::Cancelled | Code::DeadlineExceeded) {
            self.0.inc();
        }
    }
}

impl Network {
    pub(super) fn new(make: &Make<'_>) -> Self {
        let failures = make.counters(
            "etcd_network_server_stream_failures_total",
            "Streams of clients that broke.",
            &["Type", "API"],
        );
        let failures = |api| StreamFailures(failures.with_label_values(&["receive", api]));
        Self {
            watch_streams_failed: failures("watch"),
            lease_streams_failed: failures("lease-keepalive"),
            client_received_bytes: make.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of gRPC messages received from clients.",
            ),
            client_sent_bytes: make.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes of gRPC messages sent to clients.",
            ),
        }
    }
}
