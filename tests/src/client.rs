//! The services of one member over one connection, straight from the stubs.

use std::time::Duration;

use anyhow::Result;
use gonfalon_proto::etcdserverpb::cluster_client::ClusterClient;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use gonfalon_proto::etcdserverpb::watch_client::WatchClient;
use gonfalon_proto::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use gonfalon_proto::v3electionpb::election_client::ElectionClient;
use gonfalon_proto::v3lockpb::lock_client::LockClient;
use tonic::transport::{Channel, Endpoint};

/// Connecting to a loopback address takes microseconds; a paused process never accepts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Stubs of every service of one member.
///
/// The fields are tonic's own clients: tests say exactly what goes over the wire.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "one field a service, named as the service")]
#[expect(clippy::exhaustive_structs, reason = "tests take it apart")]
pub struct Client {
    pub channel: Channel,
    pub kv: KvClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
    pub lock: LockClient<Channel>,
    pub election: ElectionClient<Channel>,
}

impl Client {
    /// Stubs for the member at `http://127.0.0.1:port`; connects when first used, and again when
    /// the connection is lost.
    ///
    /// # Errors
    /// Never for a port that fits.
    pub fn new(port: u16) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        // etcd sends answers of any size; only the tests' own memory bounds them.
        Ok(Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            lock: LockClient::new(channel.clone()),
            election: ElectionClient::new(channel.clone()),
            channel,
        })
    }

    /// Writes a key.
    ///
    /// # Errors
    /// The server's status.
    pub async fn put(&self, key: &str, value: &str) -> Result<PutResponse, tonic::Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        Ok(self.kv.clone().put(request).await?.into_inner())
    }

    /// Reads a key, linearizably.
    ///
    /// # Errors
    /// The server's status.
    pub async fn get(&self, key: &str) -> Result<RangeResponse, tonic::Status> {
        let request = RangeRequest {
            key: key.to_owned().into(),
            ..RangeRequest::default()
        };
        Ok(self.kv.clone().range(request).await?.into_inner())
    }

    /// Reads every key that begins with `prefix` (which ends below 0xff), linearizably.
    ///
    /// # Errors
    /// The server's status.
    pub async fn get_prefix(&self, prefix: &str) -> Result<RangeResponse, tonic::Status> {
        let request = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: prefix_end(prefix),
            ..RangeRequest::default()
        };
        Ok(self.kv.clone().range(request).await?.into_inner())
    }

    /// What the member says of itself.
    ///
    /// # Errors
    /// The server's status.
    pub async fn status(&self) -> Result<StatusResponse, tonic::Status> {
        Ok(self
            .maintenance
            .clone()
            .status(StatusRequest {})
            .await?
            .into_inner())
    }
}

/// The `range_end` of every key that begins with `prefix`.
///
/// # Panics
/// If the prefix is empty or ends with 0xff, which no test uses.
pub fn prefix_end(prefix: &str) -> bytes::Bytes {
    let mut end = prefix.as_bytes().to_vec();
    let last = end.last_mut().expect("the prefix is not empty");
    *last = last.checked_add(1).expect("the prefix ends below 0xff");
    end.into()
}
