//! Sockets, and the connections on them.
//!
//! gRPC and HTTP share a port: a connection speaks HTTP/1 or HTTP/2 as its first bytes say, and
//! [`Front`] tells gRPC from pages by the content type.

mod authority;
mod front;
mod requests;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use front::{Front, is_grpc};

use self::authority::Lenient;
use self::requests::{Begun, Requests};
use crate::config::{Config, ListenUrl};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Bytes that a client may send on one stream before it must wait for us.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes that a client may send on one connection before it must wait for us.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of one request's headers.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// Streams that a client has reset before we have noticed them, until the connection is closed: the
/// guard against clients that open and reset streams as fast as they can. A client whose calls time
/// out while this process gets no processor has as many as it makes calls in that time; to close its
/// connection would take its watches too. grpc-go has no such limit. Each takes some 300 bytes.
const PENDING_RESETS_MAX: usize = 10_000;

/// What requests under way get to finish when the server stops. Those that take longer are streams
/// that would never end, and writes that no quorum takes: their clients go to another member.
const DRAIN: Duration = Duration::from_millis(500);

/// How long a connection is silent before the kernel asks whether the other end is still there, and
/// between two questions of which none is answered; etcd's number. HTTP/2's own pings may be off or
/// hours apart, and HTTP/1 has none.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Pause after a connection could not be accepted, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {url} (--{flag}): {why}{}", advice(.why))]
pub struct ListenError {
    url: String,
    flag: &'static str,
    why: std::io::Error,
}

/// What to do about it.
fn advice(why: &std::io::Error) -> &'static str {
    match why.kind() {
        ErrorKind::AddrInUse => "; stop the process that listens there, or choose another port",
        ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        ErrorKind::PermissionDenied => "; choose a port above 1023",
        _ => "",
    }
}

/// A socket that listens. Two may accept from it while one takes over from the other.
pub(crate) type Listening = (SocketAddr, Arc<TcpListener>);

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

/// Opens a socket for each URL, which `flag` has set.
pub(crate) fn bind(
    urls: &[ListenUrl],
    flag: &'static str,
    config: &Config,
) -> Result<Vec<Listening>, ListenError> {
    let bind = |url: &ListenUrl| {
        open(url.address, config).map_err(|why| ListenError {
            url: url.to_string(),
            flag,
            why,
        })
    };
    urls.iter().map(bind).collect()
}

fn open(address: SocketAddr, config: &Config) -> std::io::Result<Listening> {
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
    Ok((listener.local_addr()?, Arc::new(listener)))
}

/// Serves `service` on `listener` until `stop`; then requests under way get [`DRAIN`] to finish. When
/// it returns nothing of them is left.
pub(crate) async fn serve<S, B>(
    listener: Arc<TcpListener>,
    service: S,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), String>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => raise(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let serving = connection(
                        stream,
                        limits.clone(),
                        service.clone(),
                        stop.child_token(),
                    );
                    connections.spawn(serving);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Whoever connects from here on is refused at once, unless somebody else accepts there too.
    drop(listener);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            raise(ended);
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!(
            left = connections.len(),
            "closing connections with open streams"
        );
        connections.shutdown().await;
    }
    Ok(())
}

/// A panic goes on where it is seen.
fn raise(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

fn builder(limits: &Limits, executor: Begun) -> Builder<Begun> {
    let mut builder = Builder::new(executor);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .keep_alive_interval(
            (!limits.keepalive_interval.is_zero()).then_some(limits.keepalive_interval),
        )
        .keep_alive_timeout(limits.keepalive_timeout)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX);
    // Without a timer, a client that sends half a header would be waited for without end.
    builder.http1().timer(TokioTimer::new());
    builder
}

/// Serves one connection until its end, or until `stop` and then to the end of what is under way.
async fn connection<S, B>(stream: TcpStream, limits: Limits, service: S, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    // Answers are small and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE)
        .with_interval(TCP_KEEPALIVE);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "a connection without TCP keep-alive");
    }
    let mut requests = Requests::default();
    let builder = builder(&limits, requests.executor());
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(Lenient::new(stream)), service));
    let ended = tokio::select! {
        biased;
        ended = poll_fn(|context| requests.poll(connection.as_mut(), context)) => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        poll_fn(|context| requests.poll(connection.as_mut(), context)).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests;
