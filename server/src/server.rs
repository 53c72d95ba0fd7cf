//! A whole server: sockets, the member behind them, and the order in which they come and go.
//!
//! Sockets are opened before anything on disk is touched, so that a port in use leaves no trace.
//! Stopping goes the other way round, each part while everything behind it still works: leadership is
//! handed over, the clients' sockets end with their requests answered, then what answered them and
//! the peers' sockets, then Raft, and last the state is brought to disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gonfalon_proto::peer::peer_server::PeerServer;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::Grpc;
use crate::config::{Config, ConfigError, InitialState, ListenUrl, Url};
use crate::http::{Counted, Pages, Waiting, with_cors, with_not_found};
use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::listen::{self, Front, Limits, ListenError, Listening};
use crate::metrics::Metrics;
use crate::node::{Asked, InitialMember, Node, NodeConfig, OpenError, Opening};
use crate::tasks::{TaskError, Tasks};

/// How long clients get to leave, then all tasks to end, and then the databases to close.
const GRACE: Duration = Duration::from_secs(3);

/// How long handing over leadership may take; if it takes longer, the others elect.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// A running server.
#[derive(Debug)]
pub struct Server {
    node: Node,
    tasks: Tasks,
    client_addresses: Vec<SocketAddr>,
}

/// Why a server could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// An option that matters only for a new data directory.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The member.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// The sockets of one server, but its peers'.
struct Sockets {
    client: Vec<Listening>,
    client_http: Vec<Listening>,
    metrics: Vec<Listening>,
}

impl Server {
    /// Opens the sockets and the member; requests are served from here on. While a new member waits
    /// for the others with which it founds a cluster, clients are told so.
    pub async fn open(config: Config) -> Result<Self, ServerError> {
        let bind = |urls: &[ListenUrl], flag| listen::bind(urls, flag, &config);
        let sockets = Sockets {
            client: bind(&config.listen_client, "listen-client-urls")?,
            client_http: bind(&config.listen_client_http, "listen-client-http-urls")?,
            metrics: bind(&config.listen_metrics, "listen-metrics-urls")?,
        };
        let peer_sockets = bind(&config.listen_peer, "listen-peer-urls")?;
        let client_addresses = sockets.client.iter().map(|(address, _)| *address).collect();
        if !crate::node::is_started(&config.data_dir) {
            config.verify_first_boot()?;
        }
        let mut tasks = Tasks::new();
        let opening = Opening::claim(node_config(&config))?;
        log_listeners(&sockets, &peer_sockets);
        // Before the member is open: members that found a cluster ask each other whether they may.
        serve_peers(peer_sockets, &config, &opening, &mut tasks);
        let waits = tasks.leave_token().child_token();
        if let Some(reason) = opening.waits() {
            serve_waiting(&sockets, &config, reason, &waits, &mut tasks);
        }
        let node = opening.open(&mut tasks).await?;
        waits.cancel();
        serve_clients(sockets, &config, &node, &mut tasks);
        Ok(Self {
            node,
            tasks,
            client_addresses,
        })
    }

    /// Where clients are served; the real ports, if 0 was asked for.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// The member.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Waits until the cluster has a leader and knows this member.
    pub async fn ready(&self) {
        self.node.published().await;
    }

    /// Serves until `signal`, then stops in order.
    ///
    /// # Errors
    ///
    /// A task ended that should have gone on: a disk failed, most likely.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), TaskError> {
        let failed = tokio::select! {
            () = signal => None,
            failed = self.tasks.first_failure() => Some(failed),
        };
        if failed.is_none() {
            let handed_over = tokio::time::timeout(HAND_OVER_MAX, self.node.hand_over()).await;
            if handed_over.is_err() {
                tracing::warn!("leadership was not handed over in time; the others will elect");
            }
            self.tasks.end_clients(GRACE).await;
        }
        let stopped = self.tasks.shut_down(GRACE).await;
        close(self.node).await;
        failed.map_or(stopped, Err)
    }
}

/// Gives the member back: if nobody else has it any more its databases are closed, which a disk that
/// hangs holds up.
async fn close(node: Node) {
    let closing = tokio::task::spawn_blocking(move || drop(node));
    if tokio::time::timeout(GRACE, closing).await.is_err() {
        tracing::warn!("the databases are not closed in time; what is in the log is not lost");
    }
}

fn log_listeners(sockets: &Sockets, peer_sockets: &[Listening]) {
    for (address, _) in peer_sockets {
        tracing::info!(%address, "listening for members");
    }
    for (address, _) in sockets.client.iter().chain(&sockets.client_http) {
        tracing::info!(%address, "listening for clients");
    }
    for (address, _) in &sockets.metrics {
        tracing::info!(%address, "listening for monitoring");
    }
}

/// Until `end`, tells clients for whom a member waits that does not take part yet.
fn serve_waiting(
    sockets: &Sockets,
    config: &Config,
    reason: watch::Receiver<String>,
    end: &CancellationToken,
    tasks: &mut Tasks,
) {
    let waiting = Waiting::new(reason);
    let all = sockets.client.iter().chain(&sockets.client_http);
    for (_, listener) in all.chain(&sockets.metrics) {
        let (limits, leave) = (Limits::of(config), tasks.leave_token());
        let serving = listen::serve(listener.clone(), waiting.clone(), limits, end.clone());
        tasks.spawn_for_clients("waiting listener", async move {
            serving.await?;
            // Whatever ends earlier would end the server.
            leave.cancelled().await;
            Ok(())
        });
    }
}

fn serve_peers(sockets: Vec<Listening>, config: &Config, opening: &Opening, tasks: &mut Tasks) {
    let peer = PeerServer::from_arc(opening.peer_service())
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let peer = TowerToHyperService::new(Asked::new(
        peer,
        opening.metrics().clone(),
        &texts(&config.advertise_client_urls),
    ));
    let (limits, stop) = (Limits::of(config), tasks.stop_token());
    for (_, listener) in sockets {
        let serving = listen::serve(listener, peer.clone(), limits.clone(), stop.clone());
        tasks.spawn_for_peers("peer listener", serving);
    }
}

fn serve_clients(sockets: Sockets, config: &Config, node: &Node, tasks: &mut Tasks) {
    let limits = Limits::of(config);
    let metrics = node.store().metrics();
    let pages = Pages::new(node.clone(), metrics.clone(), config.quota_bytes);
    let grpc = Counted::new(Grpc::new(node.clone(), config), metrics.clone());
    // With ports of their own, pages are nowhere else, and gRPC is not there.
    let (beside_grpc, alone) = if sockets.client_http.is_empty() {
        (pages.routes(), Router::new())
    } else {
        (Router::new(), pages.routes())
    };
    let origins = &config.cors;
    let client = Front::new(grpc, with_cors(with_not_found(beside_grpc), origins));
    let client_http = TowerToHyperService::new(with_cors(with_not_found(alone), origins));
    let monitoring = TowerToHyperService::new(pages.monitoring());

    let leave = tasks.leave_token();
    for (_, listener) in sockets.client {
        let serving = listen::serve(listener, client.clone(), limits.clone(), leave.clone());
        tasks.spawn_for_clients("client listener", serving);
    }
    for (_, listener) in sockets.client_http {
        let serving = listen::serve(listener, client_http.clone(), limits.clone(), leave.clone());
        tasks.spawn_for_clients("client HTTP listener", serving);
    }
    for (_, listener) in sockets.metrics {
        let serving = listen::serve(listener, monitoring.clone(), limits.clone(), leave.clone());
        tasks.spawn_for_clients("metrics listener", serving);
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn node_config(config: &Config) -> NodeConfig {
    let initial = &config.initial;
    let member = |member: &crate::config::InitialMember| InitialMember {
        name: member.name.clone(),
        peer_urls: texts(&member.peer_urls),
    };
    NodeConfig {
        data_dir: config.data_dir.clone(),
        name: config.name.clone(),
        peer_urls: texts(&initial.advertise_peer_urls),
        client_urls: texts(&config.advertise_client_urls),
        initial_members: initial.cluster.iter().map(member).collect(),
        initial_token: initial.token.clone(),
        is_founder: initial.state == InitialState::New,
        // As in etcd the `initial-` options are not looked at once there is data, so that they may
        // go stale; but who names a new cluster means that cluster.
        check_identity: initial.is_cluster_given && initial.state == InitialState::New,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        snapshot_catchup_entries: config.snapshot_catchup_entries,
        durability: config.durability,
        auto_compaction: config.auto_compaction,
        sweep_pace: config.sweep_pace,
        quota_bytes: config.quota_bytes,
        metrics: Arc::new(Metrics::new(config.metrics)),
    }
}
