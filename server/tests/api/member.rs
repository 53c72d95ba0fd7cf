//! Members in this process, and clients of them.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use gonfalon_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RangeResponse,
};
use gonfalon_proto::mvccpb::KeyValue;
use gonfalon_server::Server;
use gonfalon_server::config::{Config, Invocation, Options};
use gonfalon_server::node::Node;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Longer than anything here should take, even on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A member that goes, with its data, when it is dropped.
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) config: Config,
    pub(crate) channel: Channel,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    stopped: JoinHandle<()>,
    _dir: TempDir,
}

impl Member {
    /// A cluster of one.
    pub(crate) async fn alone() -> Self {
        Self::alone_with(&[]).await
    }

    /// A cluster of one, with more options.
    pub(crate) async fn alone_with(options: &[&str]) -> Self {
        let member = Self::of_cluster(1, options).remove(0).await;
        tokio::time::timeout(PATIENCE, member.node.published())
            .await
            .expect("it leads itself");
        member
    }

    /// The members of a new cluster, each to be awaited to start it.
    pub(crate) fn of_cluster(
        size: usize,
        options: &[&str],
    ) -> Vec<impl Future<Output = Self> + use<>> {
        let sockets: Vec<TcpListener> = (0..2 * size)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let urls: Vec<String> = sockets
            .iter()
            .map(|it| format!("http://{}", it.local_addr().unwrap()))
            .collect();
        let (client, peer) = urls.split_at(size);
        let named = peer
            .iter()
            .enumerate()
            .map(|(at, url)| format!("n{at}={url}"));
        let cluster = named.collect::<Vec<_>>().join(",");
        let config = |at: usize| {
            let dir = tempfile::tempdir().unwrap();
            let mut args = vec![
                format!("--name=n{at}"),
                format!("--data-dir={}", dir.path().join("data").display()),
                format!("--listen-client-urls={}", client[at]),
                format!("--advertise-client-urls={}", client[at]),
                format!("--listen-peer-urls={}", peer[at]),
                format!("--initial-advertise-peer-urls={}", peer[at]),
                format!("--initial-cluster={cluster}"),
            ];
            args.extend(options.iter().map(ToString::to_string));
            match Options::read(&args, &[]).unwrap() {
                Invocation::Run(options) => (options.resolve().unwrap(), client[at].clone(), dir),
                other => panic!("{other:?} is not to be run"),
            }
        };
        (0..size)
            .map(config)
            .map(|(config, url, dir)| Self::open(config, url, dir))
            .collect()
    }

    async fn open(config: Config, url: String, dir: TempDir) -> Self {
        let server = Server::open(config.clone()).await.unwrap();
        let node = server.node().clone();
        let address = server.client_addresses()[0];
        let (stop, signal) = oneshot::channel();
        let stopped = tokio::spawn(async move {
            server
                .run_until(async { drop(signal.await) })
                .await
                .unwrap();
        });
        let channel = Channel::from_shared(url).unwrap().connect_lazy();
        Self {
            node,
            config,
            channel,
            address,
            stop,
            stopped,
            _dir: dir,
        }
    }

    /// Stops the member and waits until it has.
    pub(crate) async fn stop(self) {
        drop(self.node);
        drop(self.stop);
        self.stopped.await.unwrap();
    }

    /// A connection beside the one that is shared.
    pub(crate) fn connect(&self) -> Channel {
        let url = format!("http://{}", self.address);
        Channel::from_shared(url).unwrap().connect_lazy()
    }

    /// What a browser would be told, headers and all.
    pub(crate) async fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: member\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        self.kv()
            .put(PutRequest {
                key,
                value,
                ..Default::default()
            })
            .await
            .unwrap();
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> RangeResponse {
        self.kv().range(request).await.unwrap().into_inner()
    }

    /// Everything below `name`, oldest first.
    pub(crate) async fn queue(&self, name: &str) -> Vec<KeyValue> {
        let request = RangeRequest {
            key: format!("{name}/").into(),
            range_end: format!("{name}0").into(),
            sort_order: 1,
            sort_target: 2,
            ..Default::default()
        };
        self.range(request).await.kvs
    }

    /// Returns when `count` keys are below `name`.
    pub(crate) async fn wait_for_queue_of(&self, name: &str, count: usize) {
        let wait = async {
            while self.queue(name).await.len() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the queue gets there");
    }

    pub(crate) async fn grant(&self, ttl: i64) -> i64 {
        let grant = LeaseGrantRequest { ttl, id: 0 };
        LeaseClient::new(self.channel.clone())
            .lease_grant(grant)
            .await
            .unwrap()
            .into_inner()
            .id
    }

    pub(crate) async fn revoke(&self, id: i64) {
        let revoke = LeaseRevokeRequest { id };
        LeaseClient::new(self.channel.clone())
            .lease_revoke(revoke)
            .await
            .unwrap();
    }
}
