//! Bytes to and from clients.

use prometheus::IntCounter;

use super::Make;

/// What goes over the network.
#[derive(Debug)]
pub struct Network {
    /// Bytes of gRPC messages received from clients, with their 5-byte prefixes.
    pub client_received_bytes: IntCounter,
    /// Bytes of gRPC messages sent to clients, with their 5-byte prefixes.
    pub client_sent_bytes: IntCounter,
}

impl Network {
    pub(super) fn new(make: &Make<'_>) -> Self {
        Self {
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
