//! Sockets, and the connections on them.
//!
//! gRPC and HTTP share a port: a connection speaks HTTP/1 or HTTP/2 as its first bytes say, and the
//! router tells gRPC methods from pages by their paths.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::config::{Config, ListenUrl};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Bytes that a client may send on one stream before it must wait for us.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes that a client may send on one connection before it must wait for us.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of one request's headers.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// Streams that a client has reset and that we have not noticed yet, before the connection is
/// closed: the guard against clients that open and reset streams as fast as they can.
const PENDING_RESETS_MAX: usize = 100;

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {url}: {why}")]
pub struct ListenError {
    url: String,
    why: std::io::Error,
}

/// How connections are kept.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    concurrent_streams_max: u32,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            concurrent_streams_max: config.concurrent_streams_max,
            keepalive_interval: config.grpc_keepalive_interval,
            keepalive_timeout: config.grpc_keepalive_timeout,
        }
    }
}

/// Opens a socket for each URL.
pub(crate) fn bind(
    urls: &[ListenUrl],
    config: &Config,
) -> Result<Vec<(SocketAddr, TcpListener)>, ListenError> {
    let bind = |url: &ListenUrl| {
        open(url.address, config).map_err(|why| ListenError {
            url: url.to_string(),
            why,
        })
    };
    urls.iter().map(bind).collect()
}

fn open(address: SocketAddr, config: &Config) -> std::io::Result<(SocketAddr, TcpListener)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Always, as Go does: a server that is started again must not wait for old connections to
    // time out. It does not let two processes listen at once.
    socket.set_reuse_address(true)?;
    if config.socket_reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    Ok((listener.local_addr()?, listener))
}

/// Serves `router` on `listener` until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), String> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .add_routes(router.into())
        .serve_with_incoming_shutdown(incoming, stop.cancelled())
        .await
        .map_err(|error| error.to_string())
}
